"""Laws that stay where data stay: above 0, within [0, 1], with points that have mass."""

from collections.abc import Sequence
from math import pi
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, StudentT, constraints
from torch.nn import functional

from seqlatent.derivatives import first_order
from seqlatent.distributions.probabilities import Cumulative, by_scipy, cumulative
from seqlatent.distributions.sampling import sample

__all__ = [
    "Censored",
    "LogisticOf",
    "SoftplusOf",
    "log_student_cdf",
    "open_unit_interval",
    "student_icdf",
]

_NODES, _REACH = 801, 35.0  # of integrals over the line, x = loc + scale sinh(u)


class _OpenUnitInterval(constraints.Constraint):
    """Values between 0 and 1, without the two."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


open_unit_interval = _OpenUnitInterval()


class _Mapped(Distribution):
    """An increasing smooth map of a Student-t variable onto an open range."""

    has_rsample = True
    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    base: StudentT

    def _set(self, base: StudentT) -> None:
        self.base = base
        super().__init__(base.batch_shape, validate_args=False)

    def forwards(self, x: Tensor) -> Tensor:
        """The value of a base variable."""
        raise NotImplementedError

    def backwards(self, y: Tensor) -> Tensor:
        """The base variable of a value."""
        raise NotImplementedError

    def log_slope(self, y: Tensor) -> Tensor:
        """Log derivative of the map, at a value."""
        raise NotImplementedError

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return sample(self, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(self.backwards(value)) - self.log_slope(value)

    def icdf(self, value: Tensor) -> Tensor:
        return self.forwards(student_icdf(self.base, value))

    @property
    def mean(self) -> Tensor:
        """Mean by the trapezoidal rule, without a gradient; exact to about six digits."""
        with torch.no_grad():
            df, loc, scale = (x[..., None] for x in (self.base.df, self.base.loc, self.base.scale))
            u = torch.linspace(-_REACH, _REACH, _NODES, dtype=loc.dtype, device=loc.device)
            if loc.dtype == torch.float32:
                u = u.double()
                df, loc, scale = df.double(), loc.double(), scale.double()
            x = loc + scale * u.sinh()
            weight = StudentT(df, validate_args=False).log_prob(u.sinh()).exp() * u.cosh()
            found = (self._at(x) * weight).sum(-1) * (u[1] - u[0])
        return found.to(self.base.loc)

    def _at(self, x: Tensor) -> Tensor:
        """The map at nodes ``(..., nodes)``."""
        return self.forwards(x)


class SoftplusOf(_Mapped):
    r"""A Student-t variable bent so that it stays above 0.

    .. math:: y = s \log(1 + e^{x / s}), \qquad x \sim t_\nu(\mu, \sigma)

    Where :math:`x` is some widths :math:`s` above 0, :math:`y` is :math:`x`; below, it approaches 0
    as an exponential does. Draws are reparametrised.

    Args:
        base: Distribution of :math:`x`.
        width: The width :math:`s` of the bend.

    Example:
        >>> y = SoftplusOf(torch.distributions.StudentT(3.0, -1.0, 2.0), torch.tensor(1.0))
        >>> round(float(y.icdf(torch.tensor(0.5))), 4)
        0.3133
    """

    support = constraints.positive  # type: ignore[assignment]

    def __init__(self, base: StudentT, width: Tensor) -> None:
        self.width = width.expand(base.batch_shape)
        self._set(base)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "SoftplusOf":
        shape = Size(batch_shape)
        return SoftplusOf(self.base.expand(shape), self.width.expand(shape))

    def forwards(self, x: Tensor) -> Tensor:
        return self._bent(x, self.width)

    def _at(self, x: Tensor) -> Tensor:
        return self._bent(x, self.width[..., None].to(x))

    @staticmethod
    def _bent(x: Tensor, width: Tensor) -> Tensor:
        bent = width * functional.softplus(x / width, threshold=40.0)
        return bent.clamp_min(torch.finfo(bent.dtype).tiny)

    def backwards(self, y: Tensor) -> Tensor:
        return y + self.width * (-(-y / self.width).expm1()).log()

    def log_slope(self, y: Tensor) -> Tensor:
        return (-(-y / self.width).expm1()).log()


class LogisticOf(_Mapped):
    r"""A Student-t variable on the scale of log odds.

    .. math:: y = \frac1{1 + e^{-x}}, \qquad x \sim t_\nu(\mu, \sigma)

    Draws are reparametrised.

    Args:
        base: Distribution of :math:`x`.

    Example:
        >>> LogisticOf(torch.distributions.StudentT(3.0)).mean
        tensor(0.5000)
    """

    support = open_unit_interval  # type: ignore[assignment]

    def __init__(self, base: StudentT) -> None:
        self._set(base)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "LogisticOf":
        return LogisticOf(self.base.expand(Size(batch_shape)))

    def forwards(self, x: Tensor) -> Tensor:
        kind = torch.finfo(x.dtype)
        return x.sigmoid().clamp(kind.tiny, 1 - kind.eps / 2)

    def backwards(self, y: Tensor) -> Tensor:
        return y.log() - (-y).log1p()

    def log_slope(self, y: Tensor) -> Tensor:
        return y.log() + (-y).log1p()


class Censored(Distribution):
    r"""A Student-t variable of which what lies beyond a bound is seen at the bound.

    .. math:: y = \min(\max(x, a), b), \qquad x \sim t_\nu(\mu, \sigma)

    The bounds have mass, :math:`P(x \le a)` and :math:`P(x \ge b)`; between them the density is
    that of :math:`x`. Draws are reparametrised: a draw at a bound does not move with the
    parameters. A log density is that of mass and Lebesgue measure together.

    Args:
        base: Distribution of :math:`x`.
        lower: The bound :math:`a`.
        upper: The bound :math:`b`; infinity for none.

    Example:
        >>> y = Censored(torch.distributions.StudentT(3.0), 0.0)
        >>> y.log_prob(torch.tensor(0.0)).exp()
        tensor(0.5000)

    References:
        Estimation of Relationships for Limited Dependent Variables (Tobin, 1958).
    """

    has_rsample = True
    arg_constraints: ClassVar = {}  # type: ignore[assignment]

    def __init__(self, base: StudentT, lower: float, upper: float = float("inf")) -> None:
        self.base, self.lower, self.upper = base, lower, upper
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """Values from the lower to the upper bound."""
        if self.upper == float("inf"):
            return constraints.greater_than_eq(self.lower)
        return constraints.interval(self.lower, self.upper)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Censored":
        return Censored(self.base.expand(Size(batch_shape)), self.lower, self.upper)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return sample(self, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        found = self._at_bound(self.base.log_prob(value), value <= self.lower, self.lower, 1)
        return self._at_bound(found, value >= self.upper, self.upper, -1)

    def _at_bound(self, found: Tensor, at: Tensor, bound: float, sign: int) -> Tensor:
        """Log densities, with the mass beyond a bound where a value is at it."""
        at = at.expand(found.shape)
        if not bool(at.any()):
            return found
        base = self.base
        df, loc, scale = (x.expand(found.shape)[at] for x in (base.df, base.loc, base.scale))
        mass = log_student_cdf(df, sign * (bound - loc) / scale)
        return torch.where(at, torch.zeros_like(found).masked_scatter(at, mass), found)

    def icdf(self, value: Tensor) -> Tensor:
        return student_icdf(self.base, value).clamp(self.lower, self.upper)

    @property
    def mean(self) -> Tensor:
        """Mean, in closed form and without a gradient; more than one degree of freedom."""
        # max(x, a) less what lies beyond b
        above = self.lower + _excess(self.base, self.lower)
        return above if self.upper == float("inf") else above - _excess(self.base, self.upper)


def _excess(base: StudentT, bound: float) -> Tensor:
    r""":math:`E \max(x - a, 0)`."""
    df, z = base.df.detach(), (base.loc.detach() - bound) / base.scale.detach()
    density = StudentT(df, validate_args=False).log_prob(z).exp()
    below = log_student_cdf(df, z).exp()
    return base.scale.detach() * (z * below + (df + z.square()) / (df - 1) * density)


class _LogStudentCdf(torch.autograd.Function):
    """Log distribution function of the Student-t distribution, by scipy, with its gradient."""

    @staticmethod
    def forward(ctx: Any, df: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        found = _log_cdf(df, z)
        ctx.save_for_backward(df, z, found)
        return found.to(z)

    @staticmethod
    @first_order("write the distribution function by its series")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        df, z, found = ctx.saved_tensors
        slope = (StudentT(df.double(), validate_args=False).log_prob(z.double()) - found).exp()
        step = 1e-4 * df.double()
        rise = (_log_cdf(df + step, z) - _log_cdf(df - step, z)) / (2 * step)
        return grad * rise.to(grad), grad * slope.to(grad)


def _log_cdf(df: Tensor, z: Tensor) -> Tensor:
    """In double precision; far out by its power law, where the function itself underflows."""
    from scipy.special import stdtr

    df, z = df.detach().double(), z.detach().double()
    found = by_scipy(stdtr, df, z)
    half = df / 2
    far = (half + 0.5).lgamma() - half.lgamma() - 0.5 * (pi * df).log()
    far = far + half * df.log() + 0.5 * df.log() - df * z.abs().clamp_min(1.0).log() - df.log()
    return torch.where(found > 1e-290, found.clamp_min(1e-290).log(), far)


def log_student_cdf(df: Tensor, z: Tensor) -> Tensor:
    """Log of ``P(t <= z)`` of a standard Student-t variable, differentiable once.

    Args:
        df: Degrees of freedom.
        z: Values, of the same shape.
    """
    df, z = torch.broadcast_tensors(df, z)
    return _LogStudentCdf.apply(df, z)  # type: ignore[return-value]


def student_icdf(base: StudentT, value: Tensor) -> Tensor:
    """Quantiles of a Student-t distribution, by scipy and without a gradient."""
    from scipy.special import stdtrit

    df, value = torch.broadcast_tensors(base.df, torch.as_tensor(value).to(base.loc))
    return base.loc.detach() + base.scale.detach() * by_scipy(stdtrit, df, value)


@sample.register
def _(
    distribution: _Mapped, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return distribution.forwards(sample(distribution.base, shape, generator))


@sample.register
def _(
    distribution: Censored, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    x = sample(distribution.base, shape, generator)
    return x.clamp(distribution.lower, distribution.upper)


@cumulative.register
def _(distribution: _Mapped, y: Tensor) -> Cumulative | None:
    inside = distribution.support.check(y)  # type: ignore[union-attr]
    x = distribution.backwards(torch.where(inside, y, 0.5))
    found = cumulative(distribution.base, x)
    if found is None:
        return None
    beyond = (y >= 1).to(found.below) if distribution.support is open_unit_interval else 0.0
    return Cumulative(torch.where(inside, found.below, beyond), found.equal)


@cumulative.register
def _(distribution: Censored, y: Tensor) -> Cumulative | None:
    found = cumulative(distribution.base, y)
    if found is None:
        return None
    at_lower, at_upper = y <= distribution.lower, y >= distribution.upper
    below = torch.where(at_lower, 0.0, found.below)
    equal = torch.where(at_upper, 1 - found.below, found.equal)
    return Cumulative(below, torch.where(at_lower, found.below, equal))
