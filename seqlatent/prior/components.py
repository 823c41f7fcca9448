"""Components of a structural series, each with distributions over its parameters."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from seqlatent.prior.grid import Grid, Part
from seqlatent.prior.hyper import LogUniform, Scalar, Signed, Sometimes, Uniform
from seqlatent.recurrence import linear_recurrence

__all__ = ["Autoregression", "ComponentPrior", "Cycle", "Level", "Season", "Slope"]


class ComponentPrior(ABC):
    """A component of series, in units of the usual noise, and what its parameters may be.

    Attributes:
        name: What it is called beside the others.
    """

    name: str

    @abstractmethod
    def sample(self, grid: Grid) -> Part:
        """Draws the component of every series."""


@dataclass(frozen=True)
class Level(ComponentPrior):
    r"""A random walk that sometimes breaks: :math:`l_t = l_{t-1} + \sigma \varepsilon_t + j_t`.

    Args:
        scale: Standard deviation :math:`\sigma` of a step.
        break_rate: Probability of a break at a step.
        break_scale: Standard deviation of a break.
        name: What it is called.

    References:
        Forecasting, Structural Time Series Models (Harvey, 1989), chapter 2.
    """

    scale: Scalar = Sometimes(0.92, LogUniform(0.03, 4.0))
    break_rate: Scalar = Sometimes(0.5, LogUniform(0.005, 0.06))
    break_scale: Scalar = LogUniform(1.0, 8.0)
    name: str = "level"

    def sample(self, grid: Grid) -> Part:
        scale, rate = grid.scalar(self.scale), grid.scalar(self.break_rate)
        size = grid.scalar(self.break_scale)
        steps = scale * grid.normal()
        breaks = grid.jumps(rate, size)
        parameters = {"scale": scale, "break_rate": rate, "break_scale": size}
        return Part(torch.cumsum(steps + breaks, 1), parameters, {"break": breaks})


@dataclass(frozen=True)
class Slope(ComponentPrior):
    r"""What a damped slope adds up to, around a constant drift.

    .. math:: b_t = h + \phi (b_{t-1} - h) + \sigma \varepsilon_t + j_t, \qquad
        s_t = s_{t-1} + b_t

    Args:
        drift: Drift of a series; where it returns home, h is the drift, else 0.
        home: Whether the slope returns to the drift (1) or to zero (0).
        start: What the first slope has beside the drift.
        damping: :math:`\phi`; at 1 the slope is a random walk.
        scale: Standard deviation of a shock of the slope.
        break_rate: Probability of a break of the slope at a step.
        break_scale: Standard deviation of a break.
        name: What the sum of the slopes is called.

    References:
        Forecasting with Exponential Smoothing (Hyndman et al., 2008), chapter 2, damped trends.
    """

    drift: Scalar = Sometimes(0.7, Signed(LogUniform(0.005, 1.0)))
    home: Scalar = Sometimes(0.5, 1.0)
    start: Scalar = Sometimes(0.5, Signed(LogUniform(0.01, 1.0)))
    damping: Scalar = Sometimes(0.4, 1.0, Uniform(0.7, 1.0))
    scale: Scalar = Sometimes(0.75, LogUniform(0.003, 0.6))
    break_rate: Scalar = 0.02
    break_scale: Scalar = Sometimes(0.35, LogUniform(0.05, 1.0))
    name: str = "slope"

    def sample(self, grid: Grid) -> Part:
        drift, damping, scale = (grid.scalar(x) for x in (self.drift, self.damping, self.scale))
        rate, size = grid.scalar(self.break_rate), grid.scalar(self.break_scale)
        home = drift * grid.scalar(self.home)
        shocks = scale * grid.normal() + grid.jumps(rate, size)
        first = drift + grid.scalar(self.start) - home
        away = linear_recurrence(damping[..., None], shocks[..., None], first)[..., 0]
        return Part(
            torch.cumsum(home + away, 1),
            {
                "drift": home,
                "start": first,
                "damping": damping,
                "scale": scale,
                "break_rate": rate,
                "break_scale": size,
            },
            {"slope": home + damping * away},
        )


@dataclass(frozen=True)
class Autoregression(ComponentPrior):
    r"""A stationary autoregression, :math:`a_t = \rho a_{t-1} + \sigma \varepsilon_t`, from zero.

    Args:
        coefficient: :math:`\rho`.
        scale: Standard deviation of a shock.
        name: What it is called.
    """

    coefficient: Scalar = Uniform(0.0, 0.95)
    scale: Scalar = Sometimes(0.35, LogUniform(0.2, 2.0))
    name: str = "ar"

    def sample(self, grid: Grid) -> Part:
        coefficient, scale = grid.scalar(self.coefficient), grid.scalar(self.scale)
        shocks = (scale * grid.normal())[..., None]
        path = linear_recurrence(coefficient[..., None], shocks)[..., 0]
        return Part(path, {"coefficient": coefficient, "scale": scale})


@dataclass(frozen=True)
class Cycle(ComponentPrior):
    r"""A stochastic cycle, a damped oscillation that shocks keep going, from its stationary law.

    .. math:: \psi_t = \rho R(2 \pi / p)\, \psi_{t-1} + s \sqrt{1 - \rho^2}\, \varepsilon_t

    with a rotation R in the plane; the component is the first coordinate of :math:`\psi_t`.

    Args:
        period: Steps of a cycle :math:`p`, which need be no season and no whole number.
        damping: :math:`\rho`; at 1 the cycle is a wave that goes on unchanged.
        amplitude: Standard deviation :math:`s` of the component.
        name: What it is called.

    References:
        Forecasting, Structural Time Series Models (Harvey, 1989), chapter 2.3.3.
    """

    period: Scalar = LogUniform(4.0, 60.0)
    damping: Scalar = Uniform(0.8, 1.0)
    amplitude: Scalar = LogUniform(0.3, 10.0)
    name: str = "cycle"

    def sample(self, grid: Grid) -> Part:
        period, damping = grid.scalar(self.period), grid.scalar(self.damping)
        amplitude = grid.scalar(self.amplitude)
        # seen from a frame that turns with it, the state is two autoregressions
        shocks = (1 - damping**2).clamp_min(0).sqrt()[..., None] * grid.normal(grid.steps, 2)
        turned = linear_recurrence(damping[..., None], shocks, grid.normal(2))
        angle = 2 * math.pi * torch.arange(1, grid.steps + 1) / period
        path = amplitude * (turned[..., 0] * angle.cos() - turned[..., 1] * angle.sin())
        return Part(path, {"period": period, "damping": damping, "amplitude": amplitude})


@dataclass(frozen=True)
class Season(ComponentPrior):
    """A pattern of one season, rough or smooth, that drifts from one to the next and may grow.

    Args:
        which: Which of the season lengths of a grid, counted from the shortest.
        amplitude: Standard deviation of the pattern.
        smooth: Whether it is a sum of waves whose size falls with their frequency (1), or has a
            number of its own at each step (0).
        drift: Standard deviation by which the pattern changes from one season to the next.
        growth: Standard deviation by which its size walks at a step, as a part of it.
        break_rate: Probability that a season begins with another pattern.
        name: What it is called.
    """

    which: int = 0
    amplitude: Scalar = Sometimes(0.85, LogUniform(0.2, 10.0))
    smooth: Scalar = Sometimes(0.5, 1.0)
    drift: Scalar = Sometimes(0.6, LogUniform(0.01, 0.4))
    growth: Scalar = Sometimes(0.4, 0.02)
    break_rate: Scalar = 0.0
    name: str = "season"

    def sample(self, grid: Grid) -> Part:
        m = grid.season_lengths[self.which] if self.which < len(grid.season_lengths) else 1
        amplitude, smooth, drift, growth = (
            grid.scalar(x) for x in (self.amplitude, self.smooth, self.drift, self.growth)
        )
        parameters = {"amplitude": amplitude, "smooth": smooth, "drift": drift, "growth": growth}
        if m < 2:
            return Part(torch.zeros(grid.series, grid.steps), parameters)
        seasons = -(-grid.steps // m)
        change = torch.cumsum(drift[..., None] * grid.normal(seasons, m), 1)
        shape = self.shape(grid, m, smooth)
        pattern = (amplitude * shape)[:, None].expand(-1, seasons, -1)
        rate = grid.scalar(self.break_rate)
        if bool((rate > 0).any()):
            other = (grid.uniform(seasons) < rate).cumsum(1) > 0
            new = (amplitude * self.shape(grid, m, smooth))[:, None]
            pattern = torch.where(other[..., None], new, pattern)
        path = (pattern + change).reshape(grid.series, -1)[:, : grid.steps]
        size = 1 + torch.cumsum(growth * grid.normal(), 1)
        return Part(path * size, parameters)

    @staticmethod
    def shape(grid: Grid, m: int, smooth: Tensor | None = None) -> Tensor:
        """Patterns ``(B, m)`` of mean zero.

        Args:
            grid: The steps.
            m: Length of the season.
            smooth: Where they are smooth, ``(B, 1)`` above zero; everywhere by default.
        """
        rough = grid.normal(m)
        # waves of many frequencies differ by less than what a series shows of them
        waves = min(m // 2, 24)
        angle = torch.arange(m) * (2 * math.pi / m)
        order = torch.arange(1, waves + 1)
        basis = torch.cat([torch.cos(order[:, None] * angle), torch.sin(order[:, None] * angle)])
        wave = (grid.normal(2 * waves) / torch.cat([order, order])) @ basis
        shape = wave if smooth is None else torch.where(smooth > 0, wave, rough)
        return shape - shape.mean(1, keepdim=True)
