"""Normal emission."""

from jaxtyping import Float
from torch import Tensor, distributions

from seqlatent.emissions.neural import NeuralEmission, positive
from seqlatent.sequences import Context

__all__ = ["Normal"]

_FLOOR = 1e-4


class Normal(NeuralEmission):
    r"""Normal observations with a mean and a standard deviation of their own at each step.

    .. math:: y \sim N(\mathrm{shift} + \mathrm{scale}\,\mu_\theta,\
        \mathrm{scale}\,(\operatorname{softplus}(\rho_\theta) + 10^{-4})), \quad
        (\mu_\theta, \rho_\theta) = \operatorname{MLP}([z, m, u])

    For real values without outliers; else :class:`StudentT`. The floor keeps a stretch of constant
    values from making the density infinite.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = Normal(3, 2)
        >>> p(torch.zeros(7, 5, 3), Context.regular(5, obs_dim=2)).mean.shape
        torch.Size([7, 5, 2])
    """

    size = 2

    def distribution(self, raw: Float[Tensor, "*S D 2"], c: Context) -> distributions.Normal:
        loc, scale = raw.unbind(-1)
        return distributions.Normal(
            c.shift + c.scale * loc, c.scale * positive(scale, _FLOOR), validate_args=False
        )
