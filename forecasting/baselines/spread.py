"""Spread, how far series move from one value to the next, and what to assume where none shows."""

from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.panel import Panel

__all__ = ["Pool", "difference_scale", "magnitude", "phase_of", "positive"]

FLOOR = 1e-4
"""Least standard deviation, as a part of a series' mean absolute value."""


class Pool(NamedTuple):
    """What a whole panel says about a series that says nothing of itself.

    Attributes:
        center: Mean of all cells ``(D,)``.
        spread: Standard deviation of all cells, positive ``(D,)``.
        ratio: Median over series of the scale of a step by the mean absolute value ``(D,)``.
    """

    center: np.ndarray
    spread: np.ndarray
    ratio: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> "Pool":
        """Summarises a panel; 0, 1 and 1 where it has no value at all."""
        targets = panel.y.shape[1]
        center, spread, ratio = np.zeros(targets), np.ones(targets), np.ones(targets)
        steps, levels = difference_scale(panel, 1), magnitude(panel)
        for d in range(targets):
            values = panel.y[np.isfinite(panel.y[:, d]), d]
            if len(values):
                center[d] = values.mean()
                spread[d] = values.std() or np.abs(values).mean() or 1.0
            known = (steps[:, d] > 0) & (levels[:, d] > 0)
            if known.any():
                ratio[d] = np.median(steps[known, d] / levels[known, d])
        return cls(center, spread, ratio)


def phase_of(t: np.ndarray, season: int) -> np.ndarray:
    """Phase of the season at some times, 0 where there is none.

    Times of a series may have a fraction, the same in every row; it is no matter of the phase.
    """
    if season == 1:
        return np.zeros(t.shape, np.int64)
    return np.floor(t + 1e-6).astype(np.int64) % season


def difference_scale(panel: Panel, season: int) -> np.ndarray:
    r"""Root mean square of the differences between values a season apart ``(N, D)``.

    Where values are missing the difference spans :math:`k` seasons, and counts with its square
    divided by :math:`k`: the increments of a random walk add up. NaN where there is no pair.
    """
    scale = np.full((panel.batch, panel.y.shape[1]), np.nan)
    key = panel.owner * season + phase_of(panel.t, season)
    order = np.lexsort((panel.t, key))
    for d in range(panel.y.shape[1]):
        rows = order[np.isfinite(panel.y[order, d])]
        same = key[rows[1:]] == key[rows[:-1]]
        after, before = rows[1:][same], rows[:-1][same]
        seasons = (panel.t[after] - panel.t[before]) / season
        squares = (panel.y[after, d] - panel.y[before, d]) ** 2 / seasons
        owner = key[after] // season
        total = np.bincount(owner, squares, minlength=panel.batch)
        count = np.bincount(owner, minlength=panel.batch)
        scale[:, d] = np.sqrt(np.divide(total, count, where=count > 0, out=scale[:, d].copy()))
    return scale


def magnitude(panel: Panel) -> np.ndarray:
    """Mean absolute value of each series ``(N, D)``, NaN where it has none."""
    seen = np.isfinite(panel.y)
    starts = panel.offsets[:-1]
    total = np.add.reduceat(np.where(seen, np.abs(panel.y), 0.0), starts, axis=0)
    count = np.add.reduceat(seen.astype(np.float64), starts, axis=0)
    return np.divide(total, count, where=count > 0, out=np.full_like(total, np.nan))


def positive(scale: np.ndarray, level: np.ndarray, pool: Pool) -> np.ndarray:
    """Scales that are never NaN nor zero.

    Where none is known, it is in proportion to the series' magnitude, as in the rest of the panel;
    where it is zero, as of a constant series, it becomes a ten-thousandth of the magnitude.
    """
    level = np.where(np.isnan(level), pool.spread, level)
    floor = FLOOR * np.where(level > 0, level, pool.spread)
    return np.maximum(np.where(np.isnan(scale), pool.ratio * level, scale), floor)
