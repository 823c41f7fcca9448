"""Limits of time: what is fitted within one, and what forecasts where there was too little."""

from typing import Any

import numpy as np

from seqlatent.forecasting.engines.baselines.beside import losses
from seqlatent.forecasting.engines.engine import Engine, FitOptions, OutOfTime
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["fitted"]

_JUDGED = 32  # most series of the last block


def fitted(engine: Engine, panel: Panel, fit_options: FitOptions, seed: int) -> tuple[Engine, Any]:
    """Fits an engine, and stands it after all rows.

    Where the deadline leaves no time for that, or so little that the last block would have been
    forecast better by the seasonal naive forecast, that takes its place, and says so.

    Args:
        engine: The engine.
        panel: All rows.
        fit_options: What it is told.
        seed: Seed of what is drawn.

    Returns:
        The engine that forecasts, and its state.
    """
    try:
        engine.fit(panel, fit_options)
    except OutOfTime as error:
        return _naive(panel, fit_options, seed, str(error))
    if engine.doubtful:
        ratio = _beside_naive(engine, panel, fit_options, seed)
        if not ratio < 1:
            why = f"its loss on the last block is {ratio:.3g} times that of the seasonal naive"
            if not np.isfinite(ratio):
                why = "no time was left to judge it on the last block"
            return _naive(panel, fit_options, seed, f"{engine.stopped}; {why}")
    return engine, engine.start(panel, seed)


def _naive(panel: Panel, fit_options: FitOptions, seed: int, why: str) -> tuple[Engine, Any]:
    """The seasonal naive forecast, which notes why it stands there."""
    from seqlatent.forecasting.engines.baselines import Naive, SeasonalNaive

    seasonal = panel.time_index.kind != "irregular" and bool(fit_options.season_lengths)
    engine = SeasonalNaive() if seasonal else Naive()
    engine.fit(panel, FitOptions(fit_options.season_lengths, fit_options.seed))
    name = "seasonal naive" if seasonal else "naive"
    said = f"{why}: the {name} forecast stands in its place; give it more time"
    engine.notes[None] = "; ".join(filter(None, [said, engine.notes.get(None, "")]))
    return engine, engine.start(panel, seed)


def _beside_naive(engine: Engine, panel: Panel, fit_options: FitOptions, seed: int) -> float:
    """Loss on the last block, as a part of that of the seasonal naive; infinite without time."""
    deadline = fit_options.deadline.sooner(engine.with_history)
    ratio, size, spent = np.inf, min(2, panel.batch), 0.0
    while True:
        # twice as many take at most twice as long
        if deadline.left < 2 * spent or deadline.passed:
            return ratio
        began = deadline.spent
        places = np.unique(np.linspace(0, panel.batch - 1, size).astype(int))
        some = panel.select(places)
        mine, naive = losses(engine, some, fit_options, seed)
        seen = np.isfinite(mine) & np.isfinite(naive)
        if seen.any():
            scale = np.maximum(naive[seen], 1e-12 + 1e-3 * np.nanmean(naive))
            ratio = float(np.mean(mine[seen] / scale) / np.mean(naive[seen] / scale))
        if size >= min(_JUDGED, panel.batch):
            return ratio if seen.any() else 0.0
        size, spent = min(2 * size, _JUDGED, panel.batch), deadline.spent - began
