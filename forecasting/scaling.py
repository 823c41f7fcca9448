"""Scales of series, from their past alone."""

import numpy as np
import torch

from seqlatent.forecasting.panel import Panel
from seqlatent.forecasting.structural import VARIED, completed, standards

__all__ = [
    "DIGITS",
    "LOCAL",
    "Scales",
    "level_and_spread",
    "local",
    "magnitude",
    "recent",
    "scales",
    "span",
    "varied",
]

LOCAL = ("local", "counts")  # kinds that are computed anew for every window

DIGITS = 1e-13  # steps of this part of the level are those of rounding, in double precision
_CLIP = 10.0  # a value counts at most so many times the median: one spike must not set the scale


Scales = tuple[np.ndarray, np.ndarray]


def scales(
    panel: Panel,
    kind: str,
    *,
    season: int = 1,
    rows: int | None = None,
    usual: Scales | None = None,
    digits: float = DIGITS,
) -> Scales:
    """Shift and scale of each series and target, of the kind named.

    Args:
        panel: Rows to read; whatever they hold is taken for the past.
        kind: ``"magnitude"``, ``"level"``, ``"standard"``, ``"differences"``, ``"local"`` or
            ``"counts"``; see :func:`magnitude`, :func:`level_and_spread`, :func:`standard`,
            :func:`differences` and :func:`local`.
        season: Rows of a season, for what is local.
        rows: How many rows up to the last value of a series count as near; None for all.
        usual: Those of the series of training, for a series that does not say its own; those of
            the panel by default.
        digits: Steps of this part of the level are those of rounding.

    Returns:
        Two arrays ``(N, D)``; the scale is positive and finite whatever the rows hold.
    """
    if kind == "differences":
        return differences(panel, season, rows, usual)
    middle = None
    if usual is not None:
        shift, scale = (np.tile(np.median(x, 0), (panel.batch, 1)) for x in usual)
        middle = shift, scale
    if kind in LOCAL:
        most = int(panel.lengths.max())
        near = recent(panel, most if rows is None else min(rows, most))
        return local(near, season, kind, usual=middle, digits=digits)
    shift, scale = _KINDS[kind](panel)
    if middle is None:
        return shift, scale
    empty = np.maximum.reduceat(~np.isnan(panel.y), panel.offsets[:-1], 0) == 0
    return np.where(empty, middle[0], shift), np.where(empty, middle[1], scale)


def magnitude(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Shift 0 and the mean absolute value, large values clipped at ten medians.

    For positive series whose level says how much they vary, and for counts.
    """
    scale = _by_series(panel, np.abs(panel.y), _clipped_mean)
    return np.zeros_like(scale), _usable(scale)


def level_and_spread(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Median, and mean absolute deviation from it, large deviations clipped at ten medians."""
    shift = _completed(_by_series(panel, panel.y, np.median), None, 0.0)
    deviation = np.abs(panel.y - shift[panel.owner])
    scale = _by_series(panel, deviation, _clipped_mean)
    # a constant series varies by what is small beside its level
    floor = 1e-3 * np.abs(shift)
    return shift, _usable(np.where(scale > 0, scale, floor))


def standard(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, values clipped at ten median deviations from the median."""
    middle = _completed(_by_series(panel, panel.y, np.median), None, 0.0)
    away = panel.y - middle[panel.owner]
    typical = _by_series(panel, np.abs(away), _positive_median)
    most = np.where(typical > 0, _CLIP * typical, np.inf)[panel.owner]
    away = np.clip(away, -most, most)
    mean = np.nan_to_num(_by_series(panel, away, np.mean))
    scale = _by_series(panel, (away - mean[panel.owner]) ** 2, np.mean) ** 0.5
    shift = middle + mean
    floor = 1e-3 * np.abs(shift)
    return shift, _usable(np.where(scale > floor, scale, floor))


def _positive_median(x: np.ndarray) -> float:
    positive = x[x > 0]
    return float(np.median(positive)) if len(positive) else 0.0


def differences(panel: Panel, season: int, rows: int | None, usual: Scales | None = None) -> Scales:
    """Mean of the first season, and the usual size of a difference over a season.

    In these units the noises of structural models are alike across series.
    """
    most = int(panel.lengths.max())
    values = leading(panel, panel.y, most if rows is None else min(rows, most))
    own = standards(torch.from_numpy(values[..., 0]), season)
    others = None if usual is None else (torch.from_numpy(usual[0]), torch.from_numpy(usual[1]))
    shift, scale = completed(*own, others)
    return shift.numpy(), scale.numpy()


def span(panel: Panel, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """First row and row after the last one of what is read of each series, among all ``(N,)``.

    From its first value to its last one, and at most so many rows back from there, however many
    rows without a value follow. A series without a value has its last row.
    """
    seen = ~np.isnan(panel.y).all(1)
    place = np.arange(panel.rows)
    first = np.minimum.reduceat(np.where(seen, place, panel.rows), panel.offsets[:-1])
    stop = np.maximum.reduceat(np.where(seen, place, -1), panel.offsets[:-1]) + 1
    empty = stop == 0
    first = np.where(empty, panel.offsets[1:] - 1, first)
    stop = np.where(empty, panel.offsets[1:], stop)
    return first if rows is None else np.maximum(first, stop - rows), stop


def varied(panel: Panel) -> bool:
    """Whether a target varies by more than a small part of its level in some series.

    Of positive series; it is where logarithms say something else than the values.
    """
    seen, first = ~np.isnan(panel.y), panel.offsets[:-1]
    most = np.maximum.reduceat(np.where(seen, panel.y, -np.inf), first)
    return bool((most > VARIED * np.minimum.reduceat(np.where(seen, panel.y, np.inf), first)).any())


def leading(panel: Panel, values: np.ndarray, rows: int) -> np.ndarray:
    """The rows up to the last value of each series ``(N, rows, *)``, NaN after its end."""
    start, _ = span(panel, rows)
    index = start[:, None] + np.arange(rows)
    inside = index < panel.offsets[1:, None]
    return np.where(inside[..., None], values[np.minimum(index, panel.rows - 1)], np.nan)


_KINDS = {"magnitude": magnitude, "level": level_and_spread, "standard": standard}


def recent(panel: Panel, rows: int) -> np.ndarray:
    """The rows up to the last value of each series ``(N, rows, D)``, NaN before its first."""
    index = span(panel)[1][:, None] - rows + np.arange(rows)
    inside = index >= panel.offsets[:-1, None]
    return np.where(inside[..., None], panel.y[np.maximum(index, 0)], np.nan)


def local(
    y: np.ndarray,
    season: int,
    kind: str = "local",
    *,
    usual: Scales | None = None,
    digits: float = DIGITS,
) -> Scales:
    r"""Where each series stands, and how far it moves: mean of its last season, mean difference.

    .. math:: m = \frac1s \sum_{i<s} y_{T-i}, \qquad
        a = \frac{\sum_t |y_t - y_{t-s}|}{\#t}

    A model that reads :math:`(y - m) / a` sees every window from where it ends, so that a forecast
    is a departure from the present, in units in which that of the naive forecast is about 1. For
    ``"counts"`` the shift is 0 and the scale the mean, with half a count added so that windows of
    zeros differ by their length.

    A window without a value stands where the middle one of the others stands, and one without a
    step moves as they do.

    Args:
        y: Last rows of each series, NaN where missing.
        season: Rows :math:`s` of a season.
        kind: ``"local"`` or ``"counts"``.
        usual: Shift and scale ``(N, D)`` for windows that do not say theirs; the middle ones of
            the other windows by default.
        digits: Steps of this part of the level are those of rounding.

    Shape:
        y ``(N, T, D)`` -> shift and scale ``(N, D)``.

    References:
        Another Look at Measures of Forecast Accuracy (Hyndman & Koehler, 2006), the scale.
    """
    own = (None, None) if usual is None else usual
    seen = ~np.isnan(y)
    filled = np.where(seen, y, 0.0)
    count = seen.sum(1)
    if kind == "counts":
        scale = (np.abs(filled).sum(1) + 0.5) / (count + 1)
        return np.zeros_like(scale), _completed(np.where(count > 0, scale, np.nan), own[1], 1.0)
    season = season if season < y.shape[1] else 1
    # the last season, or as many rows as were seen last
    late = seen & (seen[:, ::-1].cumsum(1)[:, ::-1] <= season)
    shift = np.where(late, y, 0.0).sum(1) / np.maximum(late.sum(1), 1)
    shift = _completed(np.where(count > 0, shift, np.nan), own[0], 0.0)
    scale = np.full_like(shift, np.nan)
    for lag in (season, 1):
        moved = np.abs(y[:, lag:] - y[:, :-lag])
        known = ~np.isnan(moved)
        pairs = known.sum(1)
        # a spike must not set the scale
        top = _CLIP * _middle(np.where(moved > 0, moved, np.nan))
        mean = np.minimum(np.where(known, moved, 0.0), top[:, None]).sum(1) / np.maximum(pairs, 1)
        found = (pairs > 1) & (mean > digits * np.abs(shift))
        scale = np.where(np.isnan(scale) & found, mean, scale)
    away = np.abs(np.where(seen, y - shift[:, None], 0.0))
    away = np.minimum(away, _CLIP * _middle(np.where(away > 0, away, np.nan))[:, None])
    spread = away.sum(1) / np.maximum(count, 1)
    spread = np.where(spread > digits * np.abs(shift), spread, 0.0)
    scale = np.where(np.isnan(scale) & (spread > 0), spread, scale)
    # a constant window has a width too, one of a single value that of the others
    scale = np.where(np.isnan(scale) & (count > 1), 1e-3 * np.abs(shift), scale)
    return shift, _completed(np.maximum(scale, 1e-3 * spread), own[1], 1.0, least=0.0)


def _completed(
    x: np.ndarray, usual: np.ndarray | None, unknown: float, *, least: float = -np.inf
) -> np.ndarray:
    """Puts what is usual, or the median, in the place of what is unknown or not above the least."""
    good = np.isfinite(x) & (x > least)
    if good.all():
        return x
    if usual is None:
        known = [x[good[:, d], d] for d in range(x.shape[1])]
        usual = np.array([np.median(one) if len(one) else unknown for one in known])
    return np.where(good, x, usual)


def _middle(x: np.ndarray) -> np.ndarray:
    """Median along axis 1 of what is no NaN; infinity where there is nothing."""
    ordered = np.sort(x, 1)
    count = (~np.isnan(x)).sum(1)
    if not x.shape[1]:
        return np.full(count.shape, np.inf)
    place = np.maximum(count - 1, 0)[:, None] // 2
    middle = np.take_along_axis(ordered, place, 1)[:, 0]
    return np.where(count > 0, middle, np.inf)


def _clipped_mean(x: np.ndarray) -> float:
    positive = x[x > 0]
    if not len(positive):
        return 0.0
    return float(np.minimum(x, _CLIP * np.median(positive)).mean())


def _by_series(panel: Panel, values: np.ndarray, statistic: object) -> np.ndarray:
    out = np.full((panel.batch, values.shape[1]), np.nan)
    assert callable(statistic)
    for i in range(panel.batch):
        rows = values[panel.series(i)]
        for d in range(values.shape[1]):
            seen = rows[:, d][~np.isnan(rows[:, d])]
            if len(seen):
                out[i, d] = statistic(seen)
    return out


def _usable(scale: np.ndarray) -> np.ndarray:
    """Puts the panel's median in the place of what is zero or unknown."""
    good = np.isfinite(scale) & (scale > 0)
    for d in range(scale.shape[1]):
        typical = np.median(scale[good[:, d], d]) if good[:, d].any() else 1.0
        scale[~good[:, d], d] = typical
    return scale
