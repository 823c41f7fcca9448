"""Initial states: which rows of a series to fit, and its level, trend and season before them."""

from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.engines.baselines.spread import ROUNDING

__all__ = []

DIGITS = 2.0**33
"""Steps to one standard deviation that an optimiser sees."""


class Standard(NamedTuple):
    """A series with mean zero and standard deviation one, and the way back.

    Attributes:
        y: The series ``(T,)``.
        digits: The same to ten digits, for optimisers: their paths magnify the sixteenth, which
            differs between a series and its multiple, to the third of a forecast ``(T,)``.
        shift: Its mean before.
        unit: Its standard deviation before.
        rounding: Size of the rounding errors that the series came with.
    """

    y: np.ndarray
    digits: np.ndarray
    shift: float
    unit: float
    rounding: float

    @classmethod
    def of(cls, y: np.ndarray) -> "Standard":
        """Standardises a series ``(T,)``, NaN where missing, that is not constant."""
        shift, unit = float(np.nanmean(y)), float(np.nanstd(y))
        rounding = ROUNDING * float(np.nanmax(np.abs(y))) / unit
        y = (y - shift) / unit
        return cls(y, np.round(y * DIGITS) / DIGITS, shift, unit, rounding)


def window(y: np.ndarray, values: int, rows: int | None = None) -> slice:
    """Rows with the last values of a series, of which the first and the last have one.

    Args:
        y: A series, NaN where missing ``(T,)``.
        values: Number of values, at most.
        rows: Number of rows, at most; None for any number.
    """
    seen = np.flatnonzero(np.isfinite(y))
    if not len(seen):
        return slice(0, 0)
    chosen = seen[-values:]
    if rows is not None:
        chosen = chosen[chosen > chosen[-1] - rows]
    return slice(int(chosen[0]), int(chosen[-1]) + 1)


def few(values: int) -> str:
    """That so many values are not enough."""
    return "one value is too few to fit" if values == 1 else f"{values} values are too few to fit"


def season_gap(y: np.ndarray, season: int) -> str:
    """What a series lacks to show a season, empty if nothing.

    It needs two seasons and, where some phases never have a value, two values at half of them.
    """
    if len(y) < 2 * season:
        rows = "one row is" if len(y) == 1 else f"{len(y)} rows are"
        return f"{rows} fewer than two seasons"
    values = np.bincount(np.flatnonzero(np.isfinite(y)) % season, minlength=season)
    few = int((values < 2).sum())
    lost = values.min() == 0 and 2 * few > season
    return f"{few} of its phases have fewer than two values" if lost else ""


def never_seen(y: np.ndarray, season: int) -> str:
    """That some phases of a season never have a value, empty if all have one or there is none."""
    never = season - len(np.unique(np.flatnonzero(np.isfinite(y)) % season))
    text = f"{never} of {season} phases of the season have no value: as the others say"
    return text if season > 1 and never else ""


def filled(y: np.ndarray, season: int) -> np.ndarray:
    """Missing values from the same phase of the season before, else on a line between neighbours.

    A phase that never has a value is on that line in each season.

    Args:
        y: A series with a value in its first row ``(T,)``.
        season: Steps of the season, 1 for none.
    """
    y, seen = y.copy(), np.isfinite(y)
    if seen.all():
        return y
    if season > 1:
        for t in np.flatnonzero(~seen):
            if t >= season:
                y[t] = y[t - season]
    rows, known = np.arange(len(y)), np.isfinite(y)
    return np.where(known, y, np.interp(rows, rows[known], y[known]))


def initial(y: np.ndarray, season: int) -> tuple[float, float, np.ndarray]:
    """Level, trend, and season of the first ``season`` rows; all before the first row.

    The season is the mean, over the first five, of what is left of a centred moving average; level
    and trend are a line through the first ten values without it.

    Args:
        y: A series without missing values ``(T,)``.
        season: Steps of the season, 1 for none.

    References:
        Forecasting with Exponential Smoothing (Hyndman et al., 2008), section 2.6.1.
    """
    pattern = np.zeros(season)
    if season > 1:
        cycles = min(5, len(y) // season)
        head = y[: max(cycles, 1) * season]
        if cycles >= 2:
            ends = [0.5] if season % 2 == 0 else []
            window = np.array([*ends, *[1.0] * (season - len(ends)), *ends]) / season
            trend = np.convolve(head, window, mode="valid")
            half = len(window) // 2
            rest = np.full(len(head), np.nan)
            rest[half : half + len(trend)] = head[half : half + len(trend)] - trend
            rest = rest.reshape(-1, season)
            known = np.isfinite(rest)
            pattern = np.where(known, rest, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        else:
            pattern[: len(head)] = head[:season] - head.mean()
        pattern -= pattern.mean()
    head = y[: max(10, season)]
    head = head - pattern[np.arange(len(head)) % season]
    if len(head) < 3:
        return float(head[0]), 0.0, pattern
    rows = np.arange(1, len(head) + 1)
    trend, level = np.polyfit(rows, head, 1)
    return float(level), float(trend), pattern
