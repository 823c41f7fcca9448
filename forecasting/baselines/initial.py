"""Initial level, trend and season of a series, from its first rows."""

import numpy as np

__all__ = ["filled", "initial"]


def filled(y: np.ndarray, season: int) -> np.ndarray:
    """Missing values from the same phase of the season before, else on a line between neighbours.

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
