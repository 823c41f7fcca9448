"""Processes with a latent log rate whose truth is known: stochastic volatility, seasonal counts."""

import math

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial, Poisson

from seqlatent.datasets.simulated import (
    GapDistribution,
    Settings,
    Simulated,
    observe,
    one_regime,
    require_positive,
    require_sizes,
    scalars,
    settings,
    times,
)
from seqlatent.distributions import sample

VOLATILITY = (
    "z_1 ~ N(mean, scale^2); z_t = mean + a (z_{t-1} - mean) + N(0, scale^2 (1 - a^2)), "
    "a = exp(-rate dt_t); y_t ~ N(0, exp(z_t))"
)
COUNTS = (
    "z_1 ~ N(0, scale^2); z_t = a z_{t-1} + N(0, scale^2 (1 - a^2)), a = exp(-rate dt_t); "
    "log r_t = level + amplitude cos(2 pi t / period - phase) + z_t; "
    "y_t ~ Poisson(r_t), or with dispersion > 0 negative binomial of mean r_t "
    "and variance r_t + dispersion r_t^2"
)


def stochastic_volatility(
    batch: int = 16,
    steps: int = 200,
    *,
    mean: float = -1.0,
    rate: float = 0.05,
    scale: float = 0.7,
    irregular: bool | GapDistribution = False,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""Returns whose log variance :math:`z_t` is a stationary Ornstein-Uhlenbeck process.

    .. math:: dz = \theta (\mu - z)\,dt + \sigma \sqrt{2 \theta}\,dW, \qquad y_t \sim N(0, e^{z_t})

    The state is drawn from its exact transition over every gap. Values have no unit; with the
    defaults their standard deviation is about 0.6 in calm and 1.2 in wild weeks, and a shock is
    halved after 14 steps.

    Args:
        batch: Number of independent series.
        steps: Number of steps.
        mean: Mean :math:`\mu` of the log variance.
        rate: Rate of mean reversion :math:`\theta` per sampling step; :math:`e^{-\theta}` is the
            usual persistence.
        scale: Stationary standard deviation :math:`\sigma` of the log variance.
        irregular: ``True`` for exponential gaps of mean 1, or a distribution such as
            :func:`lognormal_gaps`.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns values and states ``(B, T, 1)``.

    Example:
        >>> stochastic_volatility(2, 40, irregular=True).sequences
        Sequences(batch=2, steps=40, obs_dim=1, covariate_dim=0, observed=100.0%, regular=False)

    References:
        Stochastic Volatility: Likelihood Inference and Comparison with ARCH Models (Kim, Shephard
            and Chib, 1998).
        Financial Returns Modelled by the Product of Two Stochastic Processes (Taylor, 1982).
    """
    require_sizes(missing, batch=batch, steps=steps)
    require_positive("rate", rate)
    require_positive("scale", scale, or_zero=True)
    how = settings(generator, dtype)
    t, gaps = times(irregular, batch, steps, how)
    states = mean + _ornstein_uhlenbeck(gaps, rate, scale, how)
    y = torch.exp(states / 2) * torch.randn(states.shape, **how)
    par = scalars(how, mean=mean, rate=rate, scale=scale)
    return Simulated(observe(y, t, missing, how), y, states, par, VOLATILITY, one_regime(states))


def seasonal_counts(
    batch: int = 16,
    steps: int = 120,
    *,
    period: float = 12.0,
    level: float = 1.5,
    amplitude: float = 0.8,
    rate: float = 0.1,
    scale: float = 0.4,
    dispersion: float = 0.0,
    irregular: bool | GapDistribution = False,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""Counts around a seasonal rate with a latent autoregressive level :math:`z_t`.

    .. math::
        \log r_t = \ell + \alpha \cos(2 \pi t / p - \varphi) + z_t, \qquad
        y_t \sim \mathrm{Poisson}(r_t)

    With ``dispersion`` :math:`\kappa > 0` the counts are negative binomial, of mean :math:`r_t` and
    variance :math:`r_t + \kappa r_t^2`. :math:`z_t` is a stationary autoregression of order one, an
    exact Ornstein-Uhlenbeck process where the gaps differ. Series differ in level and phase: a
    panel.

    Args:
        batch: Number of series.
        steps: Number of steps.
        period: Length :math:`p` of the season in sampling steps.
        level: Mean of the series' log levels :math:`\ell`, which have standard deviation 0.5.
        amplitude: Amplitude :math:`\alpha` of the season of the log rate.
        rate: Rate of mean reversion of the latent level per sampling step; its autocorrelation is
            :math:`e^{-\text{rate}}`.
        scale: Stationary standard deviation of the latent level.
        dispersion: Overdispersion :math:`\kappa`; 0 is Poisson.
        irregular: ``True`` for exponential gaps of mean 1, or a distribution such as
            :func:`lognormal_gaps`.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns counts (as floats) and states ``(B, T, 1)``; parameters ``level`` and ``phase``
        ``(B,)``.

    Example:
        >>> seasonal_counts(3, 24, dispersion=0.2).complete.frac().abs().max()
        tensor(0.)

    References:
        A Regression Model for Time Series of Counts (Zeger, 1988).
    """
    require_sizes(missing, batch=batch, steps=steps)
    for name, value in {"period": period, "rate": rate}.items():
        require_positive(name, value)
    for name, value in {"amplitude": amplitude, "scale": scale, "dispersion": dispersion}.items():
        require_positive(name, value, or_zero=True)
    how = settings(generator, dtype)
    t, gaps = times(irregular, batch, steps, how)
    levels = level + 0.5 * torch.randn(batch, **how)
    phase = 2 * math.pi * torch.rand(batch, **how)
    states = _ornstein_uhlenbeck(gaps, rate, scale, how)
    season = amplitude * torch.cos(2 * math.pi * t / period - phase[:, None])
    mean = torch.exp((levels[:, None] + season)[..., None] + states)
    if dispersion > 0:
        logits = torch.log(dispersion * mean)
        counts = NegativeBinomial(1 / dispersion, logits=logits, validate_args=False)
    else:
        counts = Poisson(mean, validate_args=False)
    y = sample(counts, generator=generator)
    par = scalars(
        how, period=period, amplitude=amplitude, rate=rate, scale=scale, dispersion=dispersion
    )
    par |= {"level": levels, "phase": phase}
    return Simulated(observe(y, t, missing, how), y, states, par, COUNTS, one_regime(states))


def _ornstein_uhlenbeck(gaps: Tensor, rate: float, scale: float, how: Settings) -> Tensor:
    """A stationary path of mean 0 at the given gaps ``(B, T)``; returns ``(B, T, 1)``."""
    a = torch.exp(-rate * gaps)
    shocks = scale * torch.randn(gaps.shape, **how)
    shocks[:, 1:] *= (-torch.expm1(-2 * rate * gaps[:, 1:])).sqrt()
    path = [shocks[:, 0]]
    for t in range(1, gaps.shape[1]):
        path.append(a[:, t] * path[-1] + shocks[:, t])
    return torch.stack(path, 1)[..., None]
