"""Room, whether what is asked for fits into memory, told before anything starts."""

from collections.abc import Iterable

import numpy as np

from seqlatent.capacity import brief, shortage
from seqlatent.forecasting.arguments import ForecastOptions
from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.errors import ArgumentError
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["check_draws", "check_forecasts", "check_lags", "check_paths"]

# Bytes of a number in an answer: its column, what that is made from, and the frame made of it.
_CELL = 3 * 8
_OWN = 3  # columns beside those of models: series, time stamp, number of a path or cutoff


def check_forecasts(
    engines: Iterable[Engine],
    series: int,
    h: int,
    options: ForecastOptions,
    *,
    targets: int,
    windows: int = 1,
) -> None:
    """Makes sure that forecasts fit into memory, and the paths of one series that they come from.

    Args:
        engines: The models.
        series: How many series there are.
        h: Steps ahead.
        options: What is wanted of each model.
        targets: How many targets there are.
        windows: How many times as many steps are forecast.

    Raises:
        ArgumentError: If they do not; it names ``h`` or ``samples``.
    """
    engines, rows, samples = list(engines), series * h * targets * windows, options.samples
    answer = _CELL * rows * (len(engines) * options.columns + _OWN)
    aside = max(_aside(engine, samples) for engine in engines)
    text = shortage(answer + _CELL * h * targets * aside)
    if not text:
        return
    what = f"{_counted(series, 'series')} x {brief(h)} steps"
    what += f" x {targets} targets" if targets > 1 else ""
    what += f" x {brief(windows)} windows" if windows > 1 else ""
    few = answer + _CELL * h * targets * max(_aside(engine, None) for engine in engines)
    if samples is not None and not shortage(few):
        raise ArgumentError(
            f"samples must leave paths that fit into memory: {brief(samples)} paths of "
            f"{brief(h)} steps need at least {text}; ask for fewer paths, or fewer steps.",
            name="samples",
        )
    raise ArgumentError(
        f"h must leave forecasts that fit into memory: {what} need at least {text}; ask for fewer "
        "steps, or for some of the series at a time.",
        name="h",
    )


def check_paths(aliases: int, series: int, h: int, n: int, targets: int) -> None:
    """Makes sure that sample paths fit into memory.

    Raises:
        ArgumentError: If they do not; it names ``h`` or ``n``, whichever is larger.
    """
    text = shortage(_CELL * series * h * n * targets * (aliases + _OWN))
    if text:
        name = "n" if n > h else "h"
        raise ArgumentError(
            f"{name} must leave paths that fit into memory: {_counted(series, 'series')} x "
            f"{brief(n)} paths x {brief(h)} steps need at least {text}; ask for fewer paths or "
            "steps, for some of the series at a time, or for quantiles, which predict() "
            "computes in parts.",
            name=name,
        )


def check_draws(panel: Panel, n: int, complete: bool) -> None:
    """Makes sure that draws of missing cells fit into memory, for which all rows are drawn.

    Raises:
        ArgumentError: If they do not; it names ``n``.
    """
    cells = panel.y.size
    rows = cells if complete else int(np.isnan(panel.y).sum())
    text = shortage(n * (2 * 8 * cells + _CELL * rows * (1 + _OWN)))
    if text:
        raise ArgumentError(
            f"n must leave draws that fit into memory: {brief(n)} draws x {brief(panel.rows)} rows "
            f"of {_counted(panel.batch, 'series')} need at least {text}; ask for fewer draws, or "
            "for some of the series at a time.",
            name="n",
        )


def check_lags(panel: Panel, lags: int) -> None:
    """Makes sure that some series has values so many steps apart.

    Raises:
        ArgumentError: If none has.
    """
    longest = int(panel.lengths.max())
    if lags >= longest:
        raise ArgumentError(
            f"lags must be less than the rows of the longest series, {longest:,}, found "
            f"{brief(lags)}; values so far apart say something of independence, others nothing.",
            name="lags",
        )


def _aside(engine: Engine, samples: int | None) -> int:
    """Numbers held for each step of a series while it is forecast."""
    if engine.exact:
        return engine.state_dim**2
    return engine.samples if samples is None else samples


def _counted(count: int, what: str) -> str:
    return f"{brief(count)} {what}"
