"""Backtests: forecasts of windows at the end of a frame from what came before each."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlatent.forecasting.arguments import ForecastOptions, whole
from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.fitted import Configuration, Fitted
from seqlatent.forecasting.frames.future import reaching
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.memory_limits import check_forecasts
from seqlatent.forecasting.results import Data
from seqlatent.forecasting.values import scalar

__all__ = ["RollingOrigin", "cross_validation"]


@dataclass(frozen=True)
class RollingOrigin:
    """Windows of a backtest, of which the last one ends with the last row of each series.

    Args:
        h: Steps of a window.
        windows: Number of windows.
        step: Steps between the starts of windows.
        refit: Windows from one fit to the next; 0 for one fit at the first window.
    """

    h: int
    windows: int = 1
    step: int = 1
    refit: int = 1

    @classmethod
    def of(cls, h: int, n_windows: Any, step_size: Any, refit: Any) -> "RollingOrigin":
        """Reads what a caller gave; see :meth:`Forecaster.cross_validation`.

        Raises:
            ArgumentError: If a number is out of range, or none.
        """
        step = h if step_size is None else whole("step_size", step_size, "a number of steps")
        n_windows = whole("n_windows", n_windows, "a number of windows")
        refit = scalar(refit)
        if not isinstance(refit, bool):
            refit = whole("refit", refit, "True, False or a number of windows", 0)
        return cls(h, n_windows, step, int(refit))

    @property
    def hidden(self) -> list[int]:
        """Rows at the end of each series that a window does not see, for each window."""
        return [self.h + (self.windows - 1 - w) * self.step for w in range(self.windows)]

    def fits(self, window: int) -> bool:
        """Whether models are fitted again at a window."""
        return window % self.refit == 0 if self.refit else window == 0


def cross_validation(
    configuration: Configuration,
    engines: Iterable[Engine],
    df: Any,
    static_df: Any,
    origin: RollingOrigin,
    options: ForecastOptions,
) -> Any:
    """Forecasts windows; see :meth:`Forecaster.cross_validation`.

    Args:
        configuration: The models, and how to fit them.
        engines: Engines that tell how much memory forecasts take, fitted ones if there are any.
        df: All rows.
        static_df: Static features.
        origin: The windows.
        options: What is wanted of the forecasts.
    """
    reading = configuration.read(df, static_df)
    panel, targets = reading.panel, len(configuration.columns.targets)
    _check_lengths(panel, origin.hidden[0])
    size: dict[str, int] = {"targets": targets, "windows": origin.windows}
    check_forecasts(engines, panel.batch, origin.h, options, **size)
    fitted, frames = None, []
    for w, hidden in enumerate(origin.hidden):
        past = panel.drop_tail(panel.reaching(hidden))
        if fitted is None or origin.fits(w):
            fitted = Fitted.fit(configuration, reading._replace(panel=past))
        else:
            fitted = fitted.with_history(past, configuration.seed)
        if not frames:  # only a fitted model says whether it draws paths
            check_forecasts(fitted.engines.values(), panel.batch, origin.h, options, **size)
        future, rows = _ahead(panel, hidden, origin.h)
        data = fitted.forecast(future, options, configuration.seed)
        frames.append(_beside_truth(data, panel, future, rows, fitted))
    return reading.output_format.frame(
        {k: np.concatenate([f[k] for f in frames]) for k in frames[0]}
    )


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


def _beside_truth(
    data: Data, panel: Panel, future: Future, rows: np.ndarray, fitted: Fitted
) -> Data:
    """Forecasts of a window, with its cutoff and what happened at its rows ``(N, h)``."""
    columns, width = fitted.columns, panel.y.shape[1]
    cutoff = panel.time_index.stamps(future.t[:, 0] - 1)
    lead = {k: v for k, v in data.items() if k in (columns.id, columns.time, "target")}
    truth = {
        columns.cutoff: np.repeat(cutoff, rows.shape[1] * width),
        columns.targets[0] if width == 1 else "y": panel.y[rows].reshape(-1),
    }
    return lead | truth | {k: v for k, v in data.items() if k not in lead}
