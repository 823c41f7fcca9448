"""Brownian bridges between the observed values of a walk."""

import numpy as np

__all__ = []


def bridge(
    t: np.ndarray,
    y: np.ndarray,
    key: np.ndarray,
    scale: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws the missing values of random walks given all their observed ones.

    Before the first observed value, and after the last, the walk is free on one side.

    Args:
        t: Times, in the unit of ``scale`` ``(R,)``.
        y: Values, NaN where missing ``(R,)``.
        key: Walk that each row belongs to; every walk has an observed value ``(R,)``.
        scale: Standard deviation of a step of one unit ``(R,)``.
        n: Number of draws.
        rng: Source of the draws.

    Returns:
        Draws ``(n, R)``; observed values are left as they are.
    """
    order = np.lexsort((t, key))
    t, y, key, scale = t[order], y[order], key[order], scale[order]
    rows = np.arange(len(y))
    seen = ~np.isnan(y)
    before = np.maximum.accumulate(np.where(seen, rows, 0))
    after = np.minimum.accumulate(np.where(seen, rows, len(y) - 1)[::-1])[::-1]
    left = seen[before] & (key[before] == key)
    right = seen[after] & (key[after] == key)

    gaps = np.diff(t, prepend=t[:1])
    gaps[1:][key[1:] != key[:-1]] = 0.0  # only differences within a walk are used
    walk = np.cumsum(rng.standard_normal((n, len(y))) * (np.sqrt(gaps) * scale), axis=1)

    # Weight of the value after: 0 and 1 where only one side is observed.
    span = np.where(left & right, t[after] - t[before], 1.0)
    weight = np.where(
        left & right, np.divide(t - t[before], span, where=span > 0, out=np.zeros_like(t)), ~left
    )
    start, end = np.where(left, before, rows), np.where(right, after, rows)
    known = np.where(seen, y, 0.0)
    mean = (1 - weight) * np.where(left, known[before], 0.0) + weight * np.where(
        right, known[after], 0.0
    )
    free = (1 - weight) * (walk - walk[:, start]) + weight * (walk - walk[:, end])
    drawn = np.empty((n, len(y)))
    drawn[:, order] = np.where(seen, y, mean + free)
    return drawn
