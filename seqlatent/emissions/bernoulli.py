"""Bernoulli emission."""

from jaxtyping import Float
from torch import Tensor, distributions
from torch.distributions import constraints

from seqlatent.emissions.neural import NeuralEmission
from seqlatent.sequences import Context

__all__ = ["Bernoulli"]


class Bernoulli(NeuralEmission):
    r"""Values of 0 or 1, whose log odds follow the state.

    .. math:: P(y = 1) = \operatorname{sigmoid}(\rho_\theta), \quad
        \rho_\theta = \operatorname{MLP}([z, m, u])

    For events, piano rolls, binary images. Shift and scale are not used.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the log odds affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = Bernoulli(3, 88)
        >>> p(torch.zeros(7, 5, 3), Context.regular(5, obs_dim=88)).sample().shape
        torch.Size([7, 5, 88])
    """

    support = constraints.boolean
    size = 1

    def distribution(self, raw: Float[Tensor, "*S D 1"], c: Context) -> distributions.Bernoulli:
        return distributions.Bernoulli(logits=raw[..., 0], validate_args=False)
