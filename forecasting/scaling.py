"""Scales of series, from their past alone."""

import numpy as np

from seqlatent.forecasting.panel import Panel

__all__ = ["KINDS", "level_and_spread", "magnitude", "scales"]

_CLIP = 10.0  # a value counts at most so many times the median: one spike must not set the scale


def scales(panel: Panel, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each series and target, of the kind named.

    Args:
        panel: Rows to read; whatever they hold is taken for the past.
        kind: ``"magnitude"`` or ``"level"``; see :func:`magnitude` and :func:`level_and_spread`.

    Returns:
        Two arrays ``(N, D)``; the scale is positive and finite whatever the rows hold.
    """
    return KINDS[kind](panel)


def magnitude(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Shift 0 and the mean absolute value, large values clipped at ten medians.

    For positive series whose level says how much they vary, and for counts.
    """
    scale = _by_series(panel, np.abs(panel.y), _clipped_mean)
    return np.zeros_like(scale), _usable(scale)


def level_and_spread(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Median, and mean absolute deviation from it, large deviations clipped at ten medians."""
    shift = np.nan_to_num(_by_series(panel, panel.y, np.median))
    deviation = np.abs(panel.y - shift[panel.owner])
    scale = _by_series(panel, deviation, _clipped_mean)
    # a constant series varies by what is small beside its level
    floor = 1e-3 * np.abs(shift)
    return shift, _usable(np.where(scale > 0, scale, floor))


KINDS = {"magnitude": magnitude, "level": level_and_spread}


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
