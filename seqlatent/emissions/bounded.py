"""Student-t emissions that stay above 0 or within [0, 1]."""

from jaxtyping import Float
from torch import Tensor, distributions
from torch.distributions import constraints

from seqlatent.distributions import Censored, LogisticOf, SoftplusOf, open_unit_interval
from seqlatent.emissions.heavy_tailed import StudentT, student
from seqlatent.sequences import Context

__all__ = [
    "CensoredStudentT",
    "LogitStudentT",
    "SoftplusStudentT",
    "UnitCensoredStudentT",
    "log_odds",
]

_HALF = 0.5


class SoftplusStudentT(StudentT):
    r"""Values above 0: a Student-t variable bent where it nears 0.

    .. math:: y = \mathrm{scale}\, \log(1 + e^{x / \mathrm{scale}}), \qquad
        x \sim t_\nu(\mathrm{shift} + \mathrm{scale}\,\mu_\theta,\ \mathrm{scale}\,\sigma_\theta)

    A series that stands some scales above 0 has the law of :class:`StudentT`, one near 0 varies in
    proportion to its level. Values, shift and scale are in units that have the zero of the data.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        As :class:`~seqlatent.emissions.neural.NeuralEmission`.

    Example:
        >>> y = SoftplusStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool((y > 0).all())
        True
    """

    support = constraints.positive

    @property
    def shifted(self) -> tuple[bool, ...]:
        return (True,) * self.obs_dim

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> SoftplusOf:
        return SoftplusOf(student(raw, c.shift, c.scale), c.scale)


class CensoredStudentT(StudentT):
    r"""Values of at least 0: a Student-t variable, or 0 where it is negative.

    .. math:: y = \max(x, 0), \qquad
        x \sim t_\nu(\mathrm{shift} + \mathrm{scale}\,\mu_\theta,\ \mathrm{scale}\,\sigma_\theta)

    The Tobit model: zeros come where the level is low. Draws have a gradient. Where zeros come at
    any level, or are many, take :class:`~seqlatent.emissions.HurdleStudentT`. Arguments are those
    of :class:`SoftplusStudentT`.

    Example:
        >>> y = CensoredStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool((y >= 0).all()), bool((y == 0).any())
        (True, True)

    References:
        Estimation of Relationships for Limited Dependent Variables (Tobin, 1958).
    """

    support = constraints.nonnegative

    @property
    def shifted(self) -> tuple[bool, ...]:
        return (True,) * self.obs_dim

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> Censored:
        return Censored(student(raw, c.shift, c.scale), 0.0)


class LogitStudentT(StudentT):
    r"""Values between 0 and 1: a Student-t variable on the scale of log odds.

    .. math:: \log \frac{y}{1 - y} \sim t_\nu(\log \tfrac{m}{1 - m} + k\,\mu_\theta,\
        k\,\sigma_\theta), \quad s = \min(\mathrm{scale}, \tfrac12), \quad
        m = \min(\max(\mathrm{shift}, s), 1 - s), \quad k = \frac{s}{m (1 - m)}

    so that a series that moves little has the law of :class:`StudentT` around its shift. Arguments
    are those of :class:`SoftplusStudentT`.

    Example:
        >>> y = LogitStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool(((y > 0) & (y < 1)).all())
        True
    """

    support = open_unit_interval

    @property
    def shifted(self) -> tuple[bool, ...]:
        return (True,) * self.obs_dim

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> LogisticOf:
        return LogisticOf(log_odds(raw, c))


class UnitCensoredStudentT(StudentT):
    r"""Values from 0 to 1, the two with mass: a Student-t variable held within them.

    .. math:: y = \min(\max(x, 0), 1), \qquad
        x \sim t_\nu(\mathrm{shift} + \mathrm{scale}\,\mu_\theta,\ \mathrm{scale}\,\sigma_\theta)

    The Tobit model with two limits. Draws have a gradient. Where zeros and ones are many, take
    :class:`~seqlatent.emissions.InflatedLogitStudentT`. Arguments are those of
    :class:`SoftplusStudentT`.

    Example:
        >>> y = UnitCensoredStudentT(3)(torch.zeros(5, 3), Context.regular(5)).sample((100,))
        >>> bool(((y >= 0) & (y <= 1)).all())
        True
    """

    support = constraints.unit_interval

    @property
    def shifted(self) -> tuple[bool, ...]:
        return (True,) * self.obs_dim

    def distribution(self, raw: Float[Tensor, "*S D 3"], c: Context) -> Censored:
        return Censored(student(raw, c.shift, c.scale), 0.0, 1.0)


def log_odds(raw: Float[Tensor, "*S D 3"], c: Context) -> distributions.StudentT:
    """Distribution of the log odds, in units in which a series moves by about 1."""
    scale = c.scale.clamp(max=_HALF)
    middle = c.shift.maximum(scale).minimum(1 - scale)
    return student(raw, middle.logit(), scale / (middle * (1 - middle)))
