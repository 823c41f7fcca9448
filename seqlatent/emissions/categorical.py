"""Categorical emission."""

from jaxtyping import Float
from torch import Tensor, distributions
from torch.distributions import constraints

from seqlatent.emissions.neural import NeuralEmission
from seqlatent.sequences import Context

__all__ = ["Categorical"]


class Categorical(NeuralEmission):
    r"""One of several classes, whose log odds follow the state.

    .. math:: P(y = i) = \operatorname{softmax}(\rho_\theta)_i, \quad
        \rho_\theta = \operatorname{MLP}([z, m, u])

    Observations hold the index of the class as a float, 0 to ``categories - 1``. Every dimension
    has the same number of classes. Shift and scale are not used.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        categories: Number of classes, at least 2.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the log odds affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = Categorical(3, categories=4)
        >>> p(torch.zeros(7, 5, 3), Context.regular(5)).log_prob(torch.ones(5, 1)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        categories: int,
        context_dim: int = 0,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        if isinstance(categories, bool) or not isinstance(categories, int) or categories < 2:
            raise ValueError(
                "Categorical expected categories to be an integer of at least 2, found "
                f"{categories!r}."
            )
        self.size = categories
        super().__init__(latent_dim, obs_dim, context_dim=context_dim, hidden=hidden)
        self.support = constraints.integer_interval(0, categories - 1)

    def distribution(self, raw: Float[Tensor, "*S D P"], c: Context) -> distributions.Categorical:
        return distributions.Categorical(logits=raw, validate_args=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, categories={self.size}"
