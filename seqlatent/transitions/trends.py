"""Components of a slowly moving mean: level, trend, damped trend, and regression on covariates."""

from collections.abc import Iterable

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.spelling import meant
from seqlatent.transitions.parameters import Number
from seqlatent.transitions.structural import (
    Loading,
    Structural,
    columns_of,
    constant,
    gap,
    noise_columns,
)

__all__ = ["DampedTrend", "LocalLevel", "LocalLinearTrend", "Regression", "named_trend"]

# whether there is a level, a noise of it, a slope, a noise of it, and noise in the observation
_TRENDS = {
    "irregular": (0, 0, 0, 0, 1),
    "fixed intercept": (1, 0, 0, 0, 0),
    "deterministic constant": (1, 0, 0, 0, 1),
    "local level": (1, 1, 0, 0, 1),
    "random walk": (1, 1, 0, 0, 0),
    "fixed slope": (1, 0, 1, 0, 0),
    "deterministic trend": (1, 0, 1, 0, 1),
    "local linear deterministic trend": (1, 1, 1, 0, 1),
    "random walk with drift": (1, 1, 1, 0, 0),
    "local linear trend": (1, 1, 1, 1, 1),
    "smooth trend": (1, 0, 1, 1, 1),
    "random trend": (1, 0, 1, 1, 0),
}


class LocalLevel(Structural):
    r"""A random walk with Gaussian increments.

    .. math:: z_t = z_{t-1} + \sqrt{\Delta_t}\,\sigma\,\varepsilon_t

    The level of a series that wanders without direction. Over any gap it is Brownian motion.

    Args:
        scale: Initial standard deviation :math:`\sigma` of a unit step; None for a constant level.
        initial_scale: Standard deviation of the first level, in units of the standardised series.
        learn_initial: Whether the mean of the first level is learned, or 0.

    Shape:
        ``forward``: z ``(*S, B, T, 1)`` -> Distribution, batch ``(*S, B, T)``, event ``(1,)``.

    Example:
        >>> p = LocalLevel(scale=0.1)
        >>> p(torch.zeros(3, 1), Context.regular(3)).event_shape
        torch.Size([1])

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.
    """

    def __init__(
        self,
        scale: Number | None = 0.1,
        *,
        initial_scale: Number = 10.0,
        learn_initial: bool = False,
    ) -> None:
        super().__init__(Loading.of(1), initial_scale=(initial_scale,), learn_initial=learn_initial)
        self.handles_gaps = True
        self.learn_scale("scale", scale)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        G = noise_columns(1, [(0, self.scale_of("scale", c))], c)
        dt = gap(c)
        if dt is not None:
            G = G * dt.sqrt()[..., None]
        b = c.dt.new_zeros(1)
        return torch.ones_like(b)[:, None], b, G


class LocalLinearTrend(Structural):
    r"""A level with a slope, both of which wander.

    .. math::
        \mu_t = \mu_{t-1} + \nu_{t-1} + \sigma_\mu \varepsilon_t, \qquad
        \nu_t = \nu_{t-1} + \sigma_\nu \eta_t

    With ``level_scale=None`` the trend is smooth. In continuous time the slope drives the level
    within a step too, which defines the distribution over a gap of any length:

    .. math:: d\mu = \nu\,dt + \sigma_\mu\,dW, \qquad d\nu = \sigma_\nu\,dV

    Args:
        level_scale: Initial standard deviation :math:`\sigma_\mu`; None for no noise.
        slope_scale: Initial standard deviation :math:`\sigma_\nu`; None for a constant slope.
        continuous: Whether it moves in continuous time, and so over irregular gaps.
        initial_scale: Standard deviation of the first level, in units of the standardised series.
        initial_slope_scale: Standard deviation of the first slope.
        learn_initial: Whether the mean of the first state is learned, or 0.
        learn_initial_scale: Whether the standard deviation of the first slope is learned.

    Shape:
        ``forward``: z ``(*S, B, T, 2)`` -> Distribution, batch ``(*S, B, T)``, event ``(2,)``.

    Example:
        >>> LocalLinearTrend(0.1, 0.01, continuous=True).handles_gaps
        True

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2 and
        equation 9.2.6 in continuous time.
    """

    def __init__(
        self,
        level_scale: Number | None = 0.1,
        slope_scale: Number | None = 0.01,
        *,
        continuous: bool = False,
        initial_scale: Number = 10.0,
        initial_slope_scale: Number = 1.0,
        learn_initial: bool = False,
        learn_initial_scale: bool = False,
    ) -> None:
        super().__init__(
            Loading.of(1, 0),
            initial_scale=(initial_scale, initial_slope_scale),
            learn_initial=learn_initial,
            learn_initial_scale=learn_initial_scale,
        )
        self.handles_gaps = continuous
        self.learn_scale("level_scale", level_scale)
        self.learn_scale("slope_scale", slope_scale)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        level, slope = self.scale_of("level_scale", c), self.scale_of("slope_scale", c)
        zeros = constant([0, 0], c)
        if not self.handles_gaps:
            return _shear(constant([1], c)), zeros, noise_columns(2, [(0, level), (1, slope)], c)
        dt = gap(c)
        dt = constant([1], c) if dt is None else dt
        return _shear(dt), zeros, _integrated(level, slope, dt)


def _shear(dt: Tensor) -> Tensor:
    """``[[1, dt], [0, 1]]`` for gaps ``(..., 1)``."""
    one, zero = torch.ones_like(dt), torch.zeros_like(dt)
    return torch.stack([torch.cat([one, dt], -1), torch.cat([zero, one], -1)], -2)


def _integrated(level: Tensor | None, slope: Tensor | None, dt: Tensor) -> Tensor:
    """Factor of the noise over gaps ``(..., 1)``: the slope's end, then the level given that."""
    if slope is None:
        if level is None:
            return torch.stack([dt[..., :0], dt[..., :0]], -2)
        upper = level * dt.sqrt()
        return torch.stack([upper, torch.zeros_like(upper)], -2)
    # given the slope at its end, the integral of a slope's walk has a quarter of its variance left
    rest = slope.square() * dt**3 / 12
    if level is not None:
        rest = rest + level.square() * dt
    upper = torch.cat([slope * dt**1.5 / 2, rest.sqrt()], -1)
    lower = slope * dt.sqrt()
    return torch.stack([upper, torch.cat([lower, torch.zeros_like(lower)], -1)], -2)


class DampedTrend(Structural):
    r"""A level with a slope that dies out.

    .. math::
        \mu_t = \mu_{t-1} + \nu_{t-1} + \sigma_\mu \varepsilon_t, \qquad
        \nu_t = \phi\,\nu_{t-1} + \sigma_\nu \eta_t

    Forecasts flatten out, which most series forgive more readily than a line.

    Args:
        level_scale: Initial standard deviation :math:`\sigma_\mu`; None for no noise.
        slope_scale: Initial standard deviation :math:`\sigma_\nu`; None for no noise.
        damping: Initial :math:`\phi` in (0, 1).
        initial_scale: Standard deviation of the first level, in units of the standardised series.
        initial_slope_scale: Standard deviation of the first slope.
        learn_initial: Whether the mean of the first state is learned, or 0.
        learn_initial_scale: Whether the standard deviation of the first slope is learned.

    Shape:
        ``forward``: z ``(*S, B, T, 2)`` -> Distribution, batch ``(*S, B, T)``, event ``(2,)``.

    Example:
        >>> F, b, G = DampedTrend(damping=0.5).matrices(Context.regular(1))
        >>> F
        tensor([[1.0000, 1.0000],
                [0.0000, 0.5000]], grad_fn=<StackBackward0>)

    References:
        Forecasting Trends in Time Series (Gardner & McKenzie, 1985).
    """

    damping_logit: Tensor

    def __init__(
        self,
        level_scale: Number | None = 0.1,
        slope_scale: Number | None = 0.05,
        *,
        damping: Number = 0.9,
        initial_scale: Number = 10.0,
        initial_slope_scale: Number = 1.0,
        learn_initial: bool = False,
        learn_initial_scale: bool = False,
    ) -> None:
        super().__init__(
            Loading.of(1, 0),
            initial_scale=(initial_scale, initial_slope_scale),
            learn_initial=learn_initial,
            learn_initial_scale=learn_initial_scale,
        )
        self.learn_scale("level_scale", level_scale)
        self.learn_scale("slope_scale", slope_scale)
        if not 0 < damping < 1:
            raise ValueError(
                f"damping must lie in (0, 1), found {damping!r}; at 1 it is LocalLinearTrend."
            )
        self.start("damping_logit", torch.tensor([float(damping)]).logit())

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        zero = constant([0], c)
        damping = self.read("damping_logit", c).sigmoid()
        lower = torch.cat([zero.expand_as(damping), damping], -1)
        F = torch.stack([constant([1, 1], c).expand_as(lower), lower], -2)
        noises = [(0, self.scale_of("level_scale", c)), (1, self.scale_of("slope_scale", c))]
        return F, constant([0, 0], c), noise_columns(2, noises, c)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, damping={self.damping_logit.sigmoid().mean().item():.3g}"


class Regression(Structural):
    r"""Coefficients of covariates, fixed or wandering.

    .. math:: \beta_t = \beta_{t-1} + \sqrt{\Delta_t}\,\sigma \odot \varepsilon_t, \qquad
        y_t = \dots + \beta_t^\top u_t

    Coefficients are part of the state, so the filter integrates them out.

    Args:
        covariates: Indices of the columns of ``u``.
        scale: Initial standard deviation of each coefficient's unit step; None for fixed ones.
        initial_scale: Standard deviation of the coefficients at the first step, in units of the
            standardised series per unit of the covariate.
        learn_initial: Whether the mean of the first coefficients is learned, or 0.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> Regression([0, 2]).loading
        Loading(constant=(0.0, 0.0), covariate=(0, 2))

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 3.6.
    """

    def __init__(
        self,
        covariates: Iterable[int],
        *,
        scale: Number | None = None,
        initial_scale: Number = 10.0,
        learn_initial: bool = False,
    ) -> None:
        index = columns_of(covariates)
        super().__init__(
            Loading((0.0,) * len(index), index),
            initial_scale=(initial_scale,) * len(index),
            learn_initial=learn_initial,
        )
        self.handles_gaps = True
        self.learn_scale("scale", scale, size=len(index))

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        size, scale = self.latent_dim, self.scale_of("scale", c)
        ones = constant([1] * size, c)
        G = ones.diag()[:, :0] if scale is None else scale.diag_embed()
        dt = gap(c)
        if dt is not None:
            G = G * dt.sqrt()[..., None]
        return ones.diag(), torch.zeros_like(ones), G


def named_trend(
    name: str, *, initial_scale: Number = 10.0
) -> tuple["LocalLevel | LocalLinearTrend | None", bool]:
    """A trend under the name that statsmodels gives it, and whether an observation has noise.

    Args:
        name: One of twelve, from "irregular", for none, to "local linear trend".
        initial_scale: Standard deviation of the first state, in units of the standardised series.

    Example:
        >>> from seqlatent.transitions import named_trend
        >>> named_trend("random walk with drift")
        (LocalLinearTrend(level_scale=0.1), False)

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.
    """
    if name not in _TRENDS:
        raise ValueError(
            f"trend must be one of {', '.join(_TRENDS)}; found {name!r}.{meant(name, _TRENDS)}"
        )
    level, noisy, slope, turning, irregular = _TRENDS[name]
    first, level_scale, slope_scale = initial_scale, 0.1 * noisy or None, 0.01 * turning or None
    if slope:
        trend = LocalLinearTrend(
            level_scale, slope_scale, initial_scale=first, initial_slope_scale=first
        )
    else:
        trend = LocalLevel(level_scale, initial_scale=first) if level else None
    return trend, bool(irregular)
