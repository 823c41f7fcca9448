"""Emissions with points of their own mass: intermittent values and counts, zeros and ones."""

from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from seqlatent.distributions import Inflated, LogisticOf, SoftplusOf
from seqlatent.emissions.bounded import log_odds
from seqlatent.emissions.counts import negative_binomial
from seqlatent.emissions.heavy_tailed import student
from seqlatent.emissions.neural import NeuralEmission
from seqlatent.sequences import Context

__all__ = ["HurdleStudentT", "InflatedLogitStudentT", "ZeroInflatedNegativeBinomial"]

_RARE = -1.0  # log odds at the start of what is not seen in all data


class HurdleStudentT(NeuralEmission):
    r"""Values of at least 0 of which many are exactly 0: rain, intermittent demand.

    .. math:: P(y = 0) = \operatorname{sigmoid}(\gamma_\theta), \qquad y \mid y > 0 =
        \mathrm{scale}\, \log(1 + e^x), \quad x \sim t_\nu(\mu_\theta, \sigma_\theta)

    The shift is not used. Draws have no gradient.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> y = HurdleStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool((y >= 0).all()), bool((y == 0).any())
        (True, True)

    References:
        Some Statistical Models for Limited Dependent Variables (Cragg, 1971).
    """

    support = constraints.nonnegative
    size = 4

    @property
    def differentiable(self) -> bool:
        return False

    def distribution(self, raw: Float[Tensor, "*S D 4"], c: Context) -> Inflated:
        positive = SoftplusOf(student(raw[..., :3], c.shift * 0, c.scale), c.scale)
        return Inflated(positive, raw[..., 3:], (0.0,))


class InflatedLogitStudentT(NeuralEmission):
    r"""Values from 0 to 1 of which many are exactly 0 or 1: sunshine, cloud cover.

    .. math:: P(y = 0), P(y = 1), P(0 < y < 1) = \operatorname{softmax}(\gamma^0_\theta,
        \gamma^1_\theta, 0)

    and between the two the law of :class:`~seqlatent.emissions.LogitStudentT`. Draws have no
    gradient. Arguments are those of :class:`HurdleStudentT`.

    Example:
        >>> y = InflatedLogitStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool((y == 0).any()), bool((y == 1).any())
        (True, True)

    References:
        A General Class of Zero-or-One Inflated Beta Regression Models (Ospina & Ferrari, 2012).
    """

    support = constraints.unit_interval
    size = 5

    @property
    def shifted(self) -> tuple[bool, ...]:
        return (True,) * self.obs_dim

    @property
    def differentiable(self) -> bool:
        return False

    def distribution(self, raw: Float[Tensor, "*S D 5"], c: Context) -> Inflated:
        return Inflated(LogisticOf(log_odds(raw[..., :3], c)), raw[..., 3:] + _RARE, (0.0, 1.0))


class ZeroInflatedNegativeBinomial(NeuralEmission):
    r"""Counts with more zeros than a negative binomial has: spare parts, rare events.

    .. math:: p(y) = \pi \, 1[y = 0] + (1 - \pi) \operatorname{NB}(y; \mu, \alpha), \quad
        \pi = \operatorname{sigmoid}(\gamma_\theta - 1)

    with the mean and the dispersion of :class:`~seqlatent.emissions.NegativeBinomial`. Arguments
    are those of :class:`HurdleStudentT`.

    Example:
        >>> y = ZeroInflatedNegativeBinomial(3)(torch.zeros(5, 3), Context.regular(5)).sample()
        >>> bool((y == y.round()).all())
        True

    References:
        Zero-Inflated Poisson Regression (Lambert, 1992).
    """

    support = constraints.nonnegative_integer
    size = 3

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> Inflated:
        return Inflated(negative_binomial(raw[..., :2], c), raw[..., 2:] + _RARE, (0.0,))
