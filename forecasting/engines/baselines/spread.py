"""Spread, how far series move from one value to the next, and what to assume where none shows."""

from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.frames.panel import Panel

__all__ = ["PanelSpread"]

FLOOR = 1e-4
"""What a spread of zero becomes, as a part of the series' steps, or of its magnitude."""

ROUNDING = 64 * np.finfo(np.float64).eps
"""Spread that is no more than rounding, as a part of a series' mean absolute value."""


class PanelSpread(NamedTuple):
    """What a whole panel says about a series that says nothing of itself.

    The scale of a step is ``step`` plus ``ratio`` times the series' magnitude. One of the two is
    zero: series move in proportion to their magnitudes where that explains most of how their steps
    differ, and else by a typical step, wherever zero lies.

    Attributes:
        center: Mean of all cells ``(D,)``.
        spread: Standard deviation of all cells, positive ``(D,)``.
        step: Median over series of the scale of a step ``(D,)``.
        ratio: Median over series of the scale of a step by the mean absolute value ``(D,)``.
    """

    center: np.ndarray
    spread: np.ndarray
    step: np.ndarray
    ratio: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> "PanelSpread":
        """Summarises a panel; 0, 1, 0 and 1 where it has no value at all."""
        targets = panel.y.shape[1]
        center, spread = np.zeros(targets), np.ones(targets)
        step, ratio = np.zeros(targets), np.ones(targets)
        steps, levels = difference_scale(panel, 1), magnitude(panel)
        for d in range(targets):
            values = panel.y[np.isfinite(panel.y[:, d]), d]
            if len(values):
                center[d] = values.mean()
                spread[d] = np.abs(center[d]) or 1.0
                if not same_everywhere(values):
                    spread[d] = values.std()
            known = steps[:, d] > ROUNDING * levels[:, d]
            if known.any():
                step[d], ratio[d] = _typical(steps[known, d], levels[known, d])
        return cls(center, spread, step, ratio)


def _typical(step: np.ndarray, level: np.ndarray) -> tuple[float, float]:
    """A typical step and 0, or 0 and a typical ratio to the level."""
    ratio = step / level
    if 2 * np.log(ratio).std() < np.log(step).std():
        return 0.0, float(np.median(ratio))
    return float(np.median(step)), 0.0


def same_everywhere(y: np.ndarray) -> bool:
    """Whether values ``(T,)``, of which at least one is finite, are equal up to rounding."""
    return bool(np.nanmax(y) - np.nanmin(y) <= ROUNDING * np.nanmax(np.abs(y)))


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


def positive(
    scale: np.ndarray, step: np.ndarray, level: np.ndarray, pool: PanelSpread
) -> np.ndarray:
    """Scales that are never NaN nor zero; those that are known stay as they are.

    Args:
        scale: Scales ``(N, D)``. Where one is NaN it is the series' step, and where this is NaN,
            too, what the rest of the panel says. Where one is zero, as of a series that its model
            fits without error, it becomes a ten-thousandth of the step, and of the magnitude where
            this is zero, too, as of a constant series.
        step: Scales of the difference between neighbours ``(N, D)``.
        level: Magnitudes ``(N, D)``.
        pool: What the rest of the panel says.
    """
    level = np.where(level > 0, level, pool.spread)
    known = np.where(np.isnan(step), pool.step + pool.ratio * level, step)
    scale = np.where(np.isnan(scale), known, scale)
    floor = FLOOR * np.where(known > ROUNDING * level, known, level)
    return np.where(scale > ROUNDING * level, scale, floor)
