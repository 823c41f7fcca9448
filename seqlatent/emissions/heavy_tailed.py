"""Student-t emission."""

from jaxtyping import Float
from torch import Tensor, distributions

from seqlatent.emissions.neural import NeuralEmission, positive
from seqlatent.sequences import Context

__all__ = ["StudentT", "student"]

_FLOOR = 1e-4
_LEAST_DF = 2.01  # above 2, so that the variance is finite
_MOST_DF = 1e3  # normal by then, and the log-gamma functions still have their digits in float32


class StudentT(NeuralEmission):
    r"""Student-t observations: a location, a scale and a weight of tails of their own at each step.

    .. math:: y \sim t_\nu(\mathrm{shift} + \mathrm{scale}\,\mu_\theta,\
        \mathrm{scale}\,(\operatorname{softplus}(\rho_\theta) + 10^{-4})), \quad
        \nu = 2.01 + \operatorname{softplus}(\eta_\theta) \le 1002

    The safe choice for real values: an outlier costs its logarithm, not its square, and bends
    neither the state nor the scale. More than two degrees of freedom keep the variance finite.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = StudentT(3)(torch.zeros(5, 3), Context.regular(5))
        >>> bool((p.base_dist.df > 2).all())
        True

    References:
        DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks (Salinas et al.,
            2020).
        https://arxiv.org/abs/1704.04110
    """

    size = 3

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> distributions.Distribution:
        return student(raw, c.shift, c.scale)


def student(raw: Float[Tensor, "*S D 3"], shift: Tensor, scale: Tensor) -> distributions.StudentT:
    """Student-t distribution of unbounded parameters, in units of a shift and a scale."""
    loc, width, df = raw.unbind(-1)
    return distributions.StudentT(
        positive(df.clamp(max=_MOST_DF), _LEAST_DF),
        shift + scale * loc,
        scale * positive(width, _FLOOR),
        validate_args=False,
    )
