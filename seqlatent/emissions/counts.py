"""Emissions for counts: Poisson and negative binomial."""

from jaxtyping import Float
from torch import Tensor, distributions
from torch.distributions import constraints

from seqlatent.emissions.neural import NeuralEmission, positive
from seqlatent.sequences import Context

__all__ = ["NegativeBinomial", "Poisson", "negative_binomial"]

_FLOOR = 1e-6  # least mean, in scales: no count is impossible
_MOST = 1e8  # greatest mean; samplers count in integers, and integers overflow
_LEAST_DISPERSION, _MOST_DISPERSION = 1e-4, 1e2


def _mean(raw: Tensor, c: Context) -> Tensor:
    return (c.scale * positive(raw, _FLOOR)).clamp(max=_MOST)


class Poisson(NeuralEmission):
    r"""Poisson counts whose mean follows the state.

    .. math:: y \sim \operatorname{Poisson}(\mathrm{scale}\,\operatorname{softplus}(\rho_\theta))

    The variance equals the mean; counts that vary more want :class:`NegativeBinomial`. The shift is
    not used. A mean is held below 1e8. In float32 a log density is off by up to two millionths of
    the count (0.02 at ten thousand, while gradients keep their digits), and counts above 1.6e7 are
    not exact: use float64, or a real-valued emission.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = Poisson(3)
        >>> p(torch.zeros(7, 5, 3), Context.regular(5)).sample().shape
        torch.Size([7, 5, 1])
    """

    support = constraints.nonnegative_integer
    size = 1

    def distribution(self, raw: Float[Tensor, "*S D 1"], c: Context) -> distributions.Poisson:
        return distributions.Poisson(_mean(raw[..., 0], c), validate_args=False)


class NegativeBinomial(NeuralEmission):
    r"""Counts that vary more than Poisson counts, with a mean and a dispersion at each step.

    .. math:: y \sim \operatorname{NB}(\mu, \alpha), \quad
        \mu = \mathrm{scale}\,\operatorname{softplus}(\rho_\theta), \quad
        \alpha = \operatorname{softplus}(\eta_\theta), \quad
        \operatorname{Var} y = \mu + \alpha \mu^2

    For sales, visits, events: counts with bursts or many zeros. The shift is not used. The mean is
    held below 1e8, and the dispersion :math:`\alpha`, the reciprocal of the number of failures,
    between 1e-4 and 1e2. Large counts in float32: as :class:`Poisson`.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> p = NegativeBinomial(3)(torch.zeros(5, 3), Context.regular(5))
        >>> bool((p.variance > p.mean).all())
        True

    References:
        DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks (Salinas et al.,
            2020),
        section 3.1. https://arxiv.org/abs/1704.04110
    """

    support = constraints.nonnegative_integer
    size = 2

    def distribution(
        self, raw: Float[Tensor, "*S D 2"], c: Context
    ) -> distributions.NegativeBinomial:
        return negative_binomial(raw, c)


def negative_binomial(raw: Float[Tensor, "*S D 2"], c: Context) -> distributions.NegativeBinomial:
    """Negative binomial distribution of unbounded parameters, in units of the scale."""
    mean, dispersion = raw.unbind(-1)
    dispersion = positive(dispersion, _LEAST_DISPERSION).clamp(max=_MOST_DISPERSION)
    # a probability of success would round to 1; its logit does not
    logits = _mean(mean, c).log() + dispersion.log()
    return distributions.NegativeBinomial(1 / dispersion, logits=logits, validate_args=False)
