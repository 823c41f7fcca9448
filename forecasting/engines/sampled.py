"""What sample paths say: scores and imputed values of engines that have no others."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = []

_CELLS = 4_000_000  # cells of sample paths that are held at once

IMPUTED = (
    "impute draws from what was known before a hole and does not condition on the rows after it; "
    "before the first value of a series it draws the paths after that value, backwards in time"
)
"""What is to be noted of :func:`impute`."""


def score(engine: Any, panel: Panel, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log scores ``(R,)`` and probability integral transforms ``(R, D)`` by one-step samples.

    The transform is the rank among the samples, and the density that of :func:`densities`. The
    first row of a series, before which nothing is known, and rows without a value are NaN.

    Args:
        engine: An engine with ``start``, ``paths`` and ``samples``.
        panel: The rows.
        seed: Seed of what is drawn.
    """
    log_score, pit = np.full(panel.rows, np.nan), np.full(panel.y.shape, np.nan)
    size = max(1, _CELLS // (engine.samples * panel.y.shape[1]))
    for series in np.split(np.arange(panel.batch), np.arange(size, panel.batch, size)):
        for step, rows, state in _states(engine, panel, series, seed):
            future = Future(panel.t[rows, None], panel.future[rows, None])
            x = np.asarray(engine.paths(state, future, engine.samples, seed + step))[:, :, 0]
            y = panel.y[rows]
            pit[rows] = ranks(x, y, np.random.default_rng([seed, step]))
            log_score[rows] = densities(x, y)
    return log_score, pit


def _states(
    engine: Any, panel: Panel, series: np.ndarray, seed: int
) -> Iterator[tuple[int, np.ndarray, Any]]:
    """For each step the rows there, and the state of their series after the rows before."""
    alive, state = series, None
    for step in range(1, int(panel.lengths[series].max())):
        longer = np.flatnonzero(panel.lengths[alive] > step)
        ended, alive = len(longer) < len(alive), alive[longer]
        some = panel.select(alive)
        nth = _nth(some)
        if state is None or not engine.updates:
            state = engine.start(some.keep(nth < step), seed)
        else:
            state = engine.select(state, longer) if ended else state
            state = engine.update(state, some.keep(nth == step - 1), seed)
        yield step, panel.offsets[alive] + step, state


def _nth(panel: Panel) -> np.ndarray:
    """Number of each row within its series ``(R,)``."""
    return np.arange(panel.rows) - panel.offsets[panel.owner]


def ranks(samples: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank of each value among samples, uniform between 0 and 1 where they are of its distribution.

    Args:
        samples: Samples ``(n, ...)``.
        y: Values, NaN where there is none.
        rng: Breaks ties at random.
    """
    less, ties = (samples < y).sum(0), (samples == y).sum(0)
    rank = (less + rng.uniform(size=y.shape) * (ties + 1)) / (len(samples) + 1)
    return np.where(np.isnan(y), np.nan, rank)


def densities(samples: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Log density of values by Gaussian kernels on samples, all observed targets jointly.

    .. math:: \log \tfrac{1}{n} \sum_i \prod_d N(y_d; x_{id}, b_d^2), \quad
        b_d = 0.9 \min(s_d, r_d / 1.34)\, n^{-1/5}

    with standard deviations :math:`s` and interquartile ranges :math:`r` (Silverman's rule). Where
    all samples are whole numbers, :math:`b` is at least half, as if each were spread over its unit.
    NaN where nothing is observed, or where all samples are equal, for a point has no density.

    Args:
        samples: Samples ``(n, M, D)``.
        y: Values, NaN where there is none ``(M, D)``.

    References:
        Density Estimation for Statistics and Data Analysis (Silverman, 1986), equation 3.31.
    """
    n, seen = len(samples), ~np.isnan(y)
    spread = samples.std(0)
    low, high = np.quantile(samples, [0.25, 0.75], axis=0)
    inner = (high - low) / 1.34
    width = 0.9 * np.where(inner > 0, np.minimum(spread, inner), spread) * n**-0.2
    whole = (samples == np.round(samples)).all(0)
    width = np.where(whole & (spread > 0), np.maximum(width, 0.5), width)
    known = (spread > 1e-12 * np.abs(samples).max(0)) & (width > 0)
    unit = np.where(known, width, 1.0)
    z = (np.where(seen, y, 0.0) - samples) / unit
    cells = np.where(seen, -0.5 * (z**2 + np.log(2 * np.pi)) - np.log(unit), 0.0).sum(-1)
    top = cells.max(0)
    density = top + np.log(np.exp(cells - top).mean(0))
    return np.where(seen.any(-1) & (known | ~seen).all(-1), density, np.nan)


def impute(engine: Any, panel: Panel, n: int, seed: int) -> np.ndarray:
    """Draws ``(n, R, D)`` of every cell from the state before its hole; see :data:`IMPUTED`.

    Args:
        engine: An engine with ``start`` and ``paths``.
        panel: The rows; every series has a value.
        n: Draws.
        seed: Seed of what is drawn.
    """
    draws = np.repeat(panel.y[None], n, axis=0)
    for k, (series, first, last) in enumerate(_holes(panel, n)):
        begin = first == 0
        known = np.where(begin, last, first)  # rows that are known before the paths begin
        known = known + begin  # the first value itself, where the paths go backwards from it
        heads = panel.select(series)
        state = engine.start(heads.keep(_nth(heads) < known[heads.owner]), seed)
        size = last - first
        steps = np.arange(size.max())
        rows = panel.offsets[series][:, None] + known[:, None] + steps
        inside = np.minimum(rows, panel.offsets[series + 1][:, None] - 1)
        t = panel.t[inside] + (rows - inside)
        paths = np.asarray(engine.paths(state, Future(t, panel.future[inside]), n, seed + k))
        for i, (s, a, b) in enumerate(zip(series, first, last, strict=True)):
            place = panel.offsets[s] + np.arange(a, b)
            drawn = paths[:, i, : b - a]
            draws[:, place] = drawn[:, ::-1] if begin[i] else drawn
    return np.where(np.isnan(panel.y), draws, panel.y)


def _holes(panel: Panel, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Series, first row and end of runs of rows that lack a value, some at a time."""
    lacks = np.isnan(panel.y).any(1)
    nth, owner = _nth(panel), panel.owner
    opens = lacks & ~(np.roll(lacks, 1) & (nth > 0))
    shuts = lacks & ~(np.roll(lacks, -1) & (nth < panel.lengths[owner] - 1))
    series, first, last = owner[opens], nth[opens], nth[shuts] + 1
    order = np.argsort(last - first, kind="stable")
    while len(order):
        cells = n * panel.y.shape[1] * (last - first)[order]
        size = max(1, int((cells * np.arange(1, len(order) + 1) <= _CELLS).sum()))
        part, order = order[:size], order[size:]
        yield series[part], first[part], last[part]
