"""A bank of structural filters in innovations form, each with gains of its own."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["GAINS", "LINEAR", "LOGARITHMS", "PHI", "FilterState", "Filters", "Traces", "scale_of"]

LINEAR = tuple(
    (level, slope * level, season)
    for level in (0.05, 0.2, 0.5, 0.9)
    for slope in (0.0, 0.1)
    for season in (0.1, 0.35)
)
"""Gains of level, slope and season of each filter of values."""

LOGARITHMS = tuple(
    (level, slope * level, season)
    for level, slope in ((0.05, 0.1), (0.2, 0.0), (0.2, 0.1), (0.5, 0.1), (0.9, 0.0))
    for season in (0.1, 0.35)
)
"""The same of each filter of their logarithms, which follow them."""

GAINS = (*LINEAR, *LOGARITHMS)

PHI = 0.97
"""Part of a slope that is left a step later."""

_TINY = torch.finfo(torch.float64).tiny
_SLOW = 0.06  # weight of the last error in the running one
_LATE = 1 / 256  # weight of the last value in what is said of late
_SETTLED = 3  # values from which a slope has its whole gain
_SHARES = (0.9, 0.7)  # most of an error that a phase of the shorter and the longer season takes


class FilterState(NamedTuple):
    """Where filters of some series stand.

    Attributes:
        level: ``(B, K)``.
        slope: ``(B, K)``.
        season: Each phase of the shorter season ``(B, m, K)``, and
        cycles: how often it was seen ``(B, m)``.
        long: Each phase of the longer season ``(B, M, K)``, and
        rounds: how often it was seen ``(B, M)``.
        place: Rows so far, which say the phase ``(B,)``.
        number: Values so far ``(B,)``.
        zeros: Share of them that is zero, of late ``(B,)``.
        waited: Rows since the last value ``(B,)``.
        error: Running absolute error of the median filter ``(B,)``.
        change: Mean absolute change from value to value, of late ``(B,)``.
        last: Last value ``(B,)``.
        least: Least value ``(B,)``.
        whole: Whether all values are whole numbers ``(B,)``.
    """

    level: Float[Tensor, "B K"]
    slope: Float[Tensor, "B K"]
    season: Float[Tensor, "B m K"]
    cycles: Float[Tensor, "B m"]
    long: Float[Tensor, "B M K"]
    rounds: Float[Tensor, "B M"]
    place: Int[Tensor, " B"]
    number: Float[Tensor, " B"]
    zeros: Float[Tensor, " B"]
    waited: Float[Tensor, " B"]
    error: Float[Tensor, " B"]
    change: Float[Tensor, " B"]
    last: Float[Tensor, " B"]
    least: Float[Tensor, " B"]
    whole: Bool[Tensor, " B"]

    @property
    def scale(self) -> Float[Tensor, " B"]:
        """Usual size of an error; of what has never moved a hundredth of its own size."""
        return scale_of(self.error, self.change, self.last)


class Traces(NamedTuple):
    """What filters say row by row.

    Attributes:
        level: After each row ``(B, T, K)``.
        slope: ``(B, T, K)``.
        season: Phase of each row in the shorter season, after it ``(B, T, K)``.
        long: The same in the longer season ``(B, T, K)``.
        error: What each filter was wrong by, zero where nothing is seen ``(B, T, K)``.
        scalars: Fields of the state that are one number a series, by name ``(B, T)``.
    """

    level: Float[Tensor, "B T K"]
    slope: Float[Tensor, "B T K"]
    season: Float[Tensor, "B T K"]
    long: Float[Tensor, "B T K"]
    error: Float[Tensor, "B T K"]
    scalars: dict[str, Float[Tensor, "B T"]]


def scale_of(error: Tensor, change: Tensor, last: Tensor) -> Tensor:
    """Usual size of an error, from the running one and the mean change."""
    scale = 0.5 * error + 0.1 * change
    # below rounding nothing has moved
    tiny = 64 * torch.finfo(scale.dtype).eps * last.abs()
    return torch.where(scale > tiny, scale, 0.01 * last.abs())


_SCALARS = ("place", "number", "zeros", "waited", "error", "change", "last", "least", "whole")


class Filters:
    r"""Level, damped slope and two seasons in innovations form, under many gains at once.

    .. math::
        e_t &= y_t - \ell_{t-1} - \phi b_{t-1} - s_{t-m} - S_{t-M}, \\
        \ell_t &= \ell_{t-1} + \phi b_{t-1} + \alpha e_t, \quad b_t = \phi b_{t-1} + \beta e_t, \\
        s_t &= s_{t-m} + \gamma (1 - \alpha) e_t, \quad
        S_t = S_{t-M} + \gamma (1 - \alpha) (1 - \gamma) e_t

    Each is the steady state of a Kalman filter. Gains start as those of a mean, one over the number
    of values, and fall to their own, so that nothing has to be said of a first state. A row
    without a value moves the level along its slope. The last filters read logarithms: what they say
    of a series that has not been positive throughout means nothing.

    Args:
        short: Steps of the shorter season, 1 for none.
        long: Steps of the longer season, 0 for none.

    Example:
        >>> filters = Filters(4)
        >>> y = torch.tensor([[1.0, 2.0, 4.0, 3.0] * 8]).double()
        >>> state, traces = filters.run(y, torch.ones_like(y, dtype=torch.bool))
        >>> state.season.shape, traces.error.shape
        (torch.Size([1, 4, 26]), torch.Size([1, 32, 26]))

    References:
        Forecasting with Exponential Smoothing: The State Space Approach (Hyndman et al., 2008),
        chapters 2 and 3; double seasons: Short-term electricity demand forecasting using double
        seasonal exponential smoothing (Taylor, 2003).
    """

    def __init__(self, short: int = 1, long: int = 0) -> None:
        self.short, self.long = short, long
        self.gains = torch.tensor(GAINS, dtype=torch.float64)

    def initial(self, batch: int) -> FilterState:
        """State before the first row."""
        k, zero = len(GAINS), torch.zeros(batch, dtype=torch.float64)
        season, long = (zero.new_zeros(batch, n, k) for n in (self.short, max(self.long, 1)))
        return FilterState(
            level=zero.new_zeros(batch, k),
            slope=zero.new_zeros(batch, k),
            season=season,
            cycles=season[..., 0].clone(),
            long=long,
            rounds=long[..., 0].clone(),
            place=torch.zeros(batch, dtype=torch.int64),
            number=zero,
            zeros=zero,
            waited=zero,
            error=zero,
            change=zero,
            last=zero,
            least=torch.full_like(zero, torch.inf),
            whole=torch.ones(batch, dtype=torch.bool),
        )

    def run(
        self,
        y: Float[Tensor, "B T"],
        seen: Bool[Tensor, "B T"],
        state: FilterState | None = None,
        inside: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[FilterState, Traces]:
        """States after all rows, and what there was on the way.

        Args:
            y: Values.
            seen: Which are seen.
            state: State before the first row.
            inside: Which rows there are; others change nothing.
        """
        n, steps = y.shape
        state = self.initial(n) if state is None else state
        inside = torch.ones_like(seen) if inside is None else inside
        # rows are written in place
        state = state._replace(
            **{k: getattr(state, k).clone() for k in ("season", "cycles", "long", "rounds")}
        )
        wide = [y.new_zeros(steps, n, len(GAINS), dtype=torch.float64) for _ in range(5)]
        scalars = {k: y.new_zeros(steps, n, dtype=torch.float64) for k in _SCALARS}
        for t in range(steps):
            state, found = self._step(state, y[:, t], seen[:, t], inside[:, t])
            for held, x in zip(wide, found, strict=True):
                held[t] = x
            for name, held in scalars.items():
                held[t] = getattr(state, name)
        level, slope, season, long, error = (x.transpose(0, 1) for x in wide)
        told = {k: x.T for k, x in scalars.items()}
        return state, Traces(level, slope, season, long, error, told)

    def _step(
        self, s: FilterState, y: Tensor, seen: Tensor, inside: Tensor
    ) -> tuple[FilterState, tuple[Tensor, ...]]:
        """A row; seasons are written in place."""
        alpha, beta, gamma = self.gains.unbind(-1)
        rows = torch.arange(len(y))
        phase, far = s.place % self.short, s.place % max(self.long, 1)
        season, long = s.season[rows, phase], s.long[rows, far]
        ahead, started, count = s.level + PHI * s.slope, (s.number > 0)[:, None], s.number[:, None]
        y_or_zero = torch.where(seen, y, 0.0)[:, None]
        value = torch.cat(
            [
                y_or_zero.expand(-1, len(LINEAR)),
                y_or_zero.clamp_min(_TINY).log().expand(-1, len(LOGARITHMS)),
            ],
            1,
        )
        error = (value - ahead - season - long) * (seen & inside)[:, None] * started
        gain = torch.maximum(alpha, 1 / (count + 1))
        level = torch.where(started, ahead + gain * error, value)
        slope = PHI * s.slope + beta * (count / _SETTLED).clamp_max(1) * error
        rest = error * (1 - gain)
        for held, times, at, share in (
            (s.season, s.cycles, phase, _SHARES[0] * (self.short > 1)),
            (s.long, s.rounds, far, _SHARES[1] * (self.long > 1)),
        ):
            part = share * torch.maximum(gamma, 1 / (times[rows, at] + 1)[:, None])
            held[rows, at] += part * rest
            times[rows, at] += (seen & inside).double()
            rest = rest * (1 - part)
        moved = s._replace(level=level, slope=slope, **_counted(s, y, seen, error))
        new = FilterState(
            *(
                old if old is x else torch.where(inside if x.ndim == 1 else inside[:, None], x, old)
                for x, old in zip(moved, s, strict=True)
            )
        )
        return new, (new.level, new.slope, s.season[rows, phase], s.long[rows, far], error)


def _counted(s: FilterState, y: Tensor, seen: Tensor, error: Tensor) -> dict[str, Tensor]:
    """What is one number a series, after a row."""
    kept = seen & (s.number > 0)
    number = s.number.clamp_min(1)
    slow = torch.maximum(1 / number, s.number.new_tensor(_SLOW))
    late = torch.maximum(1 / number, s.number.new_tensor(_LATE))
    first = torch.maximum(1 / (s.number + 1), s.number.new_tensor(_LATE))
    zero = (y == 0).double()
    typical, move = error[:, : len(LINEAR)].abs().median(-1).values, (y - s.last).abs()
    return {
        "place": s.place + 1,
        "number": s.number + seen.double(),
        "zeros": torch.where(seen, s.zeros + first * (zero - s.zeros), s.zeros),
        "waited": torch.where(seen, 0.0, s.waited + 1),
        "error": torch.where(kept, s.error + slow * (typical - s.error), s.error),
        "change": torch.where(kept, s.change + late * (move - s.change), s.change),
        "last": torch.where(seen, y, s.last),
        "least": torch.where(seen, torch.minimum(s.least, y), s.least),
        "whole": s.whole & (~seen | (y == y.round())),
    }
