"""Beside the naive forecast: losses of an engine on the last rows of some series."""

import numpy as np

from seqlatent.forecasting.engines.baselines.naive import Naive, SeasonalNaive
from seqlatent.forecasting.engines.engine import Engine, FitOptions
from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = ["losses"]

_LEVELS = (0.1, 0.5, 0.9)
_PATHS = 50


def losses(
    engine: Engine, panel: Panel, fit_options: FitOptions, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Quantile losses ``(N,)`` of series on their last blocks, and those of the naive forecast."""
    season = (*fit_options.season_lengths, 1)[0]
    h = max(1, min(max(6, round(1.5 * season)), 48, int(panel.lengths.min()) // 3))
    if int(panel.lengths.min()) < 3:
        return np.full(panel.batch, np.nan), np.full(panel.batch, np.nan)
    head = panel.drop_tail(np.full(panel.batch, h))
    rows = panel.offsets[1:, None] - h + np.arange(h)
    future, truth = Future(panel.t[rows], panel.future[rows]), panel.y[rows]
    regular = panel.time_index.kind != "irregular" and bool(fit_options.season_lengths)
    naive = SeasonalNaive() if regular else Naive()
    naive.fit(head, FitOptions(fit_options.season_lengths, fit_options.seed))
    found = []
    for one in (engine, naive):
        marginals = one.marginals(one.start(head, seed), future, _LEVELS, _PATHS, seed)
        loss = np.zeros_like(truth)
        for level, q in zip(_LEVELS, marginals.quantiles, strict=True):
            loss += np.maximum(level * (truth - q), (level - 1) * (truth - q))
        seen = ~np.isnan(truth)
        total, count = np.where(seen, loss, 0.0).sum((1, 2)), seen.sum((1, 2))
        found.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return found[0], found[1]
