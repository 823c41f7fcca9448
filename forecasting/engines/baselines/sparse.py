"""Sparse series, of which most rows have no value: a level, and a distribution of gaps."""

from typing import Any

import numpy as np

from seqlatent.forecasting.engines.baselines.initial import Standard
from seqlatent.forecasting.engines.baselines.polish import polish

__all__ = []

LEAST, MOST = 1e-4, 1 - 1e-4


def smoothing_of_gaps(y: np.ndarray) -> tuple[float, float]:
    r"""Level before the first row, and how much of an error it takes up, by maximum likelihood.

    After :math:`k` rows the error has variance :math:`\sigma^2 (1 + (k - 1) \alpha^2)`; nothing is
    put into the rows between.

    Args:
        y: A series, NaN where missing, with values at several rows ``(T,)``.
    """
    from scipy.optimize import minimize_scalar

    rows = np.flatnonzero(np.isfinite(y))
    data = Standard.of(y[rows])
    values, between = data.digits, np.diff(rows, prepend=rows[0] - 1) - 1
    level = float(values[:10].mean())

    def loss(alpha: float) -> float:
        errors, current = np.empty(len(values)), level
        for i, value in enumerate(values):
            errors[i] = value - current
            current += alpha * errors[i]
        ratio = 1 + between * alpha**2
        return len(values) * np.log(np.mean(errors**2 / ratio)) + np.log(ratio).sum()

    # The best of a grid, then within its neighbours: the likelihood may have two maxima.
    grid = np.linspace(LEAST, MOST, 21)
    best = int(np.argmin([loss(alpha) for alpha in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    near: Any = minimize_scalar(loss, bounds=(low, high), method="bounded")
    alpha = polish(lambda x: loss(x[0]), np.array([near.x]), np.array([LEAST]), np.array([MOST]))
    return data.shift + data.unit * float(data.y[:10].mean()), float(alpha[0])
