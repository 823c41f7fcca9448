"""Fitted models: engines, the state of every series after its last row, forecasts from there."""

import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqlatent.emissions import Emission
from seqlatent.forecasting import results
from seqlatent.forecasting.arguments import ForecastOptions, samples_of
from seqlatent.forecasting.engines import time_limit as limits
from seqlatent.forecasting.engines.engine import Engine, FitOptions
from seqlatent.forecasting.engines.registry import engines_of
from seqlatent.forecasting.errors import GapsWarning
from seqlatent.forecasting.features.seasons import calendar_notes, seasons, sparse
from seqlatent.forecasting.frames.checks import check_training
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.names import check_names
from seqlatent.forecasting.frames.panel import Future, Panel, order_of
from seqlatent.forecasting.frames.read import OutputFormat, Reading, Statics, read, read_future
from seqlatent.forecasting.last_rows import LastRows
from seqlatent.training import Deadline

__all__ = ["Configuration", "Fitted"]

_CELLS = 4_000_000  # cells of sample paths that are held at once


@dataclass(frozen=True)
class Configuration:
    """What a forecaster is told before it sees data.

    Args:
        model: Name of a model, a spec, or a list of these.
        columns: Names of the columns.
        freq: Frequency of the time stamps; None to infer it.
        season_length: Steps of each season; None for what suits the frequency.
        members: Networks in the ensemble of a neural model.
        emission: Family of the observations of a neural model.
        seed: Seed of everything random.
        time_limit: Seconds that the fit of each model may take.
        progress: Whether to show progress.
        device: Where neural models train.
    """

    model: Any
    columns: Columns
    freq: str | int | None = None
    season_length: tuple[int, ...] | None = None
    members: int | None = None
    emission: str | Callable[..., Emission] | None = None
    seed: int = 0
    time_limit: float | None = None
    progress: bool = False
    device: str = "cpu"

    def engines(self) -> dict[str, Engine]:
        """Engines that have seen nothing, by the names of their columns."""
        return engines_of(self.model, members=self.members, emission=self.emission)

    def read(self, df: Any, static_df: Any = None) -> Reading:
        """Reads a frame to fit on."""
        return read(df, self.columns, freq=self.freq, static=static_df)

    def seasons(self, panel: Panel) -> tuple[int, ...]:
        """Steps of each season of a panel, shortest first."""
        return seasons(panel, self.season_length, self.freq)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Models that were fitted, side by side, and where each series stands.

    Engines meet series in the order of their identifiers, so that whatever is drawn or computed
    together does not tell in which order they came; states are in the order of the rows of a frame.

    Args:
        columns: Names of the columns.
        engines: Models by the names of their columns.
        states: State of all series after their last rows, for each model.
        last_rows: Last row of each series.
        output_format: How frames are given back.
        statics: Static features of training.
        covariates: Names of the covariates known ahead.
        remarks: What is to be said of the rows of training, whatever the model.
        panel: The rows up to the last ones; None where they are not kept.
    """

    columns: Columns
    engines: dict[str, Engine]
    states: dict[str, Any]
    last_rows: LastRows
    output_format: OutputFormat
    statics: Statics
    covariates: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    panel: Panel | None = None

    @classmethod
    def fit(
        cls, configuration: Configuration, reading: Reading, deadline: Deadline | None = None
    ) -> "Fitted":
        """Fits models on a panel.

        Args:
            configuration: The models, and how to fit them.
            reading: The panel, and what its frame was.
            deadline: By when the first model is to be fitted, where its time runs already.
        """
        panel, output_format, statics, covariates = reading
        asked, engines, states = configuration, configuration.engines(), {}
        check_names(asked.columns, list(engines))
        check_training(panel, asked.columns)
        gaps = "" if asked.freq is None else sparse(panel)
        if gaps:
            warnings.warn(f"{gaps}.", GapsWarning, stacklevel=2)
        remarks = calendar_notes(panel, asked.season_length, asked.freq, gaps)
        season_lengths, (ordered, back) = asked.seasons(panel), _by_identifiers(panel)
        for alias, engine in engines.items():
            deadline = Deadline(asked.time_limit) if deadline is None else deadline
            options = FitOptions(season_lengths, asked.seed, deadline, asked.progress, asked.device)
            engines[alias], state = limits.fitted(engine, ordered, options, asked.seed)
            states[alias] = engines[alias].select(state, back)
            deadline = None  # the next model has time of its own
        return cls(
            asked.columns,
            engines,
            states,
            LastRows.of(panel),
            output_format,
            statics,
            covariates,
            tuple(remarks),
            panel,
        )

    @property
    def batch(self) -> int:
        """Number of series."""
        return len(self.last_rows.ids)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the covariates that a model reads, in their order."""
        return (*self.covariates, *self.columns.past)

    # --- other rows --------------------------------------------------------------------------

    def read(self, df: Any, static_df: Any = None) -> tuple[Panel, OutputFormat]:
        """Reads a frame as that of training was."""
        given = static_df is not None
        panel, output_format, _, _ = read(
            df,
            self.columns,
            static=static_df,
            time_index=self.last_rows.time_index,
            statics=self.statics if given else None,
            names=self.covariates,
            known=list(self.last_rows.ids),
        )
        if not given and self.statics.names:
            panel = self.last_rows.with_statics(panel, self.statics.names)
        return panel, output_format

    def observers(self) -> dict[str, Engine]:
        """Copies of the models to look at other rows with, whose notes are of those rows too."""
        found = {alias: copy(engine) for alias, engine in self.engines.items()}
        for engine in found.values():
            engine.notes = dict(engine.notes)
        return found

    def with_history(self, panel: Panel, seed: int) -> "Fitted":
        """The same parameters after the rows of a panel, and only those."""
        engines, (ordered, back) = self.observers(), _by_identifiers(panel)
        states = {a: e.select(e.start(ordered, seed), back) for a, e in engines.items()}
        return replace(
            self, engines=engines, states=states, last_rows=LastRows.of(panel), panel=panel
        )

    def updated(self, panel: Panel, seed: int) -> "Fitted":
        """The same parameters after rows that follow those last seen."""
        last_rows, follow = self.last_rows.follow(panel, self.covariates, self.columns)
        states = {a: follow.apply(e, self.states[a], seed) for a, e in self.engines.items()}
        return replace(self, states=states, last_rows=last_rows, panel=None)

    # --- forecasts ---------------------------------------------------------------------------

    def future(self, X_df: Any, h: int) -> Future:
        """The next ``h`` steps of every series, with their covariates."""
        last = self.last_rows
        return read_future(
            X_df, last.ids, last.time_index, last.t, h, self.covariates, self.columns, last.ends
        )

    def forecast(self, future: Future, options: ForecastOptions, seed: int) -> results.Data:
        """Forecasts of the rows that are wanted, as columns."""
        data, order, points = self._head(future), order_of(self.last_rows.ids), options.points
        back = np.argsort(order)
        for alias, engine in self.engines.items():
            n, state = samples_of(options.samples, engine.samples), self.states[alias]
            # what is known without paths and without covariances of a state takes no more room
            each = len(points) + 1 if engine.exact and not engine.state_dim else n
            parts = [
                engine.marginals(engine.select(state, i), future.select(i), points, n, s)
                for i, s in self._chunks(order, each * future.horizon, seed)
            ]
            quantiles = future.wanted(np.concatenate([p.quantiles for p in parts], 1)[:, back])
            mean = future.wanted(np.concatenate([p.mean for p in parts])[back][None])
            at = {p: quantiles[k].reshape(-1) for k, p in enumerate(points)}
            data |= results.forecast_columns(alias, at, mean.reshape(-1), options)
        return data

    def sample(self, future: Future, n: int, seed: int) -> results.Data:
        """Joint sample paths of the rows that are wanted, as columns."""
        data, order = self._head(future, n), order_of(self.last_rows.ids)
        back = np.argsort(order)
        for alias, engine in self.engines.items():
            state = self.states[alias]
            paths = [
                engine.paths(engine.select(state, i), future.select(i), n, s)
                for i, s in self._chunks(order, n * future.horizon, seed)
            ]
            drawn = future.wanted(np.concatenate(paths, 1)[:, back])
            data[alias] = drawn.transpose(1, 0, 2, 3).reshape(-1)
        return data

    def _head(self, future: Future, n: int | None = None) -> results.Data:
        last, stamps = self.last_rows, future.stamps
        stamps = last.time_index.stamps(future.t) if stamps is None else stamps
        return results.head(self.columns, last.ids, stamps, n)

    def _chunks(self, order: np.ndarray, cells: int, seed: int) -> list[tuple[np.ndarray, int]]:
        """Series to forecast together, so that their paths fit into memory, and their seeds."""
        size = max(1, _CELLS // (cells * len(self.columns.targets)))
        parts = np.array_split(order, max(1, -(-len(order) // size)))
        return [(part, seed + 7919 * k) for k, part in enumerate(parts)]


def _by_identifiers(panel: Panel) -> tuple[Panel, np.ndarray]:
    """The series in the order of their identifiers, and where each of the panel's is there."""
    order = panel.order
    return panel.select(order), np.argsort(order)
