"""Backtests: forecasts of windows at the end of a frame from what came before each."""

from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.arguments import levels_of, quantiles_of, whole
from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.frames.future import reaching
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.frames.read import read
from seqlatent.forecasting.values import scalar

if TYPE_CHECKING:
    from seqlatent.forecasting.forecaster import Forecaster

__all__ = ["cross_validation"]


def cross_validation(
    forecaster: "Forecaster",
    df: Any,
    h: int,
    *,
    n_windows: Any,
    step_size: Any,
    refit: Any,
    static_df: Any,
    level: Any,
    quantiles: Any,
    samples: Any,
) -> Any:
    """Forecasts windows; see :meth:`Forecaster.cross_validation`."""
    step = h if step_size is None else whole("step_size", step_size, "a number of steps")
    n_windows = whole("n_windows", n_windows, "a number of windows")
    refit = scalar(refit)
    if not isinstance(refit, bool):
        refit = whole("refit", refit, "True, False or a number of windows", 0)
    level, quantiles = levels_of(level), quantiles_of(quantiles)
    panel, output_format, statics, names = read(
        df, forecaster.columns, freq=forecaster.freq, static=static_df
    )
    _check_lengths(panel, h + (n_windows - 1) * step)
    forecaster.check_room(panel.batch, h, level, quantiles, samples, n_windows)
    model, frames = forecaster.unfitted(), []
    for w in range(n_windows):
        hidden = h + (n_windows - 1 - w) * step
        past = panel.drop_tail(panel.reaching(hidden))
        again = w % int(refit) == 0 if refit else w == 0
        model = (
            model.fitted(past, output_format, statics, names) if again else model.with_history(past)
        )
        if not frames:  # only a fitted model says whether it draws paths
            model.check_room(panel.batch, h, level, quantiles, samples, n_windows)
        frames.append(_window(model, panel, hidden, h, level, quantiles, samples))
    return output_format.frame({k: np.concatenate([f[k] for f in frames]) for k in frames[0]})


def _check_lengths(panel: Panel, needed: int) -> None:
    lengths = np.bincount(panel.owner, panel.open).astype(np.int64)
    short = np.flatnonzero(lengths < needed + 2)
    if len(short):
        i = int(short[0])
        raise TargetError(
            f"these windows need {needed + 2} rows of every series, found "
            f"{int(lengths[i])} for {panel.name(i)} (and {len(short) - 1} more such "
            "series); take fewer or shorter windows, or leave short series out.",
            id=panel.ids[i],
            row=int(panel.row[panel.offsets[i]]),
        )


def _ahead(panel: Panel, hidden: int, h: int) -> tuple[Future, np.ndarray]:
    """Steps of a window, and its rows ``(N, h)``: those of left out hours and days are none."""
    first = panel.offsets[1:] - panel.reaching(hidden)
    if not panel.time_index.folded:
        rows = first[:, None] + np.arange(h)
        return Future(panel.t[rows], panel.future[rows]), rows
    places = np.flatnonzero(panel.open)
    rows = places[np.searchsorted(places, first)[:, None] + np.arange(h)]
    future = reaching(panel.t[first - 1], panel.t[rows], panel.time_index.stamps(panel.t[rows]))
    steps = np.minimum(first[:, None] + np.arange(future.horizon), panel.offsets[1:, None] - 1)
    return future._replace(u=panel.future[steps]), rows


def _window(
    model: "Forecaster",
    panel: Panel,
    hidden: int,
    h: int,
    level: Any,
    quantiles: Any,
    samples: Any,
) -> dict[str, np.ndarray]:
    future, rows = _ahead(panel, hidden, h)
    data = model.forecast_rows(future, level=level, quantiles=quantiles, samples=samples)
    columns = model.columns
    width = panel.y.shape[1]
    cutoff = panel.time_index.stamps(future.t[:, 0] - 1)
    lead = {k: v for k, v in data.items() if k in (columns.id, columns.time, "target")}
    truth = {
        columns.cutoff: np.repeat(cutoff, h * width),
        columns.targets[0] if width == 1 else "y": panel.y[rows].reshape(-1),
    }
    return lead | truth | {k: v for k, v in data.items() if k not in lead}
