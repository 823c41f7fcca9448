"""Forecaster, the dataframe skin: a model, or several side by side, with one set of verbs."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from seqlatent.emissions import Emission
from seqlatent.forecasting.arguments import (
    ForecastOptions,
    device_of,
    flag,
    freq_of,
    horizon,
    seasons_of,
    seconds_of,
    seed_of,
    whole,
)
from seqlatent.forecasting.backtest import RollingOrigin, cross_validation
from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.engines.spec import Spec
from seqlatent.forecasting.fitted import Configuration, Fitted
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.read import OutputFormat
from seqlatent.forecasting.inspection import Inspection
from seqlatent.forecasting.memory_limits import check_forecasts, check_paths
from seqlatent.forecasting.persistence import read_fitted, write_fitted
from seqlatent.forecasting.threads import on_threads
from seqlatent.training import Deadline

__all__ = ["Forecaster"]

Self = TypeVar("Self", bound="Forecaster")


class Forecaster(Inspection):
    """Fits a model on a dataframe, and forecasts with intervals, quantiles or joint sample paths.

    Frames are long, one row per series and time stamp, pandas or polars: what goes in as one comes
    out as the same. A pandas Series, or a wide frame with a DatetimeIndex, is accepted too. Missing
    values and gaps stay missing; rows may come in any order; series may differ in length, begin and
    end at different times, and be new at prediction time.

    Args:
        model: Name of a latent model (``"structural"``, ``"deep_state"``, ``"deep_markov"``,
            ``"srnn"``, ``"vrnn"``, ``"latent_ode"``), ``"recurrent"``, ``"amortised"``, a baseline
            (``"naive"``, ``"seasonal_naive"``, ``"ets"``, ``"sarimax"``, ``"theta"``), one that was
            given to :func:`register`, a :class:`Spec`, an :class:`Engine` or its class, or a list
            of these, whose forecasts come side by side.
        freq: Frequency of the time stamps, a pandas alias such as ``"h"`` or ``"MS"``, or an offset
            such as ``pd.offsets.CustomBusinessDay(holidays=...)``; of integer times the step, or an
            alias that says what a step is; ``"irregular"``; None infers it.
        season_length: Steps of a season, or a list of several; None takes what suits ``freq``.
        columns: Names of the columns.
        members: Networks in the ensemble of a neural model; each path comes from one of them.
        emission: Family of the observations of a neural model, a class or one of
            :data:`~seqlatent.forecasting.engines.laws.EMISSIONS`. None lets the values of each
            target decide: counts, values above 0 or within [0, 1], and exact zeros stay so.
        seed: Seed of everything random: the same seed gives the same frames. Global generators are
            neither read nor moved.
        time_limit: Seconds that the fit of each model may take, reading and all that is measured
            on held-out rows included; ``notes`` says what was not reached. A model that was stopped
            so early that the seasonal naive forecast is better on the last rows gives way to it.
        progress: Whether to show progress.
        device: Where neural models train.
        threads: Threads over which torch splits an operation while a call lasts, in all of the
            process, put back when it ends; None leaves them as they are. On a busy machine one
            costs least.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting import Forecaster
        >>> ds = pd.date_range("2024-01-01", periods=60, freq="D")
        >>> df = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 4.0, 3.0] * 15})
        >>> forecast = Forecaster("seasonal_naive", season_length=4).fit(df).predict(3, level=[80])
        >>> list(forecast.columns)[:3], len(forecast)
        (['unique_id', 'ds', 'seasonal_naive'], 3)
    """

    def __init__(
        self,
        model: Any = "structural",
        *,
        freq: Any = None,
        season_length: Any = None,
        columns: Columns | None = None,
        members: Any = None,
        emission: str | Callable[..., Emission] | None = None,
        seed: Any = 0,
        time_limit: Any = None,
        progress: Any = False,
        device: Any = "cpu",
        threads: Any = None,
    ) -> None:
        self.columns = Columns() if columns is None else columns
        if not isinstance(self.columns, Columns):
            raise TypeError(
                f"columns must be Columns(id=..., time=..., target=...), found {columns!r}."
            )
        self.freq, self.season_length = freq_of(freq), seasons_of(season_length)
        self.seed = seed_of(seed)
        self.time_limit = seconds_of(time_limit)
        self.progress, self.device = flag("progress", progress), device_of(device)
        self.threads = None if threads is None else whole("threads", threads, "a number of threads")
        members = None if members is None else whole("members", members, "a number of networks")
        self._model, self._members, self._emission = model, members, emission
        self._asked: dict[str, Engine] = self._configuration.engines()
        self._fitted, self._observers = None, {}

    @property
    def _configuration(self) -> Configuration:
        return Configuration(
            self._model,
            self.columns,
            self.freq,
            self.season_length,
            self._members,
            self._emission,
            self.seed,
            self.time_limit,
            self.progress,
            self.device,
        )

    @property
    def _engines(self) -> dict[str, Engine]:
        return self._asked if self._fitted is None else self._fitted.engines

    # --- fitting -----------------------------------------------------------------------------

    @on_threads
    def fit(self: Self, df: Any, static_df: Any = None) -> Self:
        """Fits every model on all rows.

        Args:
            df: Long frame ``id, time, target`` and covariates.
            static_df: One row per series with static features: numbers or categories.

        Returns:
            The forecaster itself.

        Raises:
            DataError: Where the frame cannot be used as it is; says which column, id and row.
        """
        deadline, configuration = Deadline(self.time_limit), self._configuration
        reading = configuration.read(df, static_df)
        self._fitted, self._observers = Fitted.fit(configuration, reading, deadline), {}
        return self

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names of the models, which are the names of their columns."""
        return tuple(self._engines)

    @property
    def ids(self) -> list[Any]:
        """Series that it knows, in their order."""
        return list(self._require_fitted().last_rows.ids)

    @property
    def notes(self) -> dict[str, dict[Any, str]]:
        """What a model could not do as asked, by model and series; None is all series.

        Of series that are new it says what was so in the frame that was looked at last.
        """
        found = {
            alias: self._observers.get(alias, e).notes | e.notes
            for alias, e in self._engines.items()
        }
        remarks = () if self._fitted is None else self._fitted.remarks
        for notes in found.values() if remarks else ():
            notes[None] = "; ".join([*([notes[None]] if None in notes else []), *remarks])
        return {alias: notes for alias, notes in found.items() if notes}

    # --- forecasting -------------------------------------------------------------------------

    @on_threads
    def predict(
        self,
        h: Any,
        df: Any = None,
        X_df: Any = None,
        *,
        level: Any = (80, 95),
        quantiles: Any = None,
        samples: Any = None,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """Forecasts the next ``h`` steps of every series.

        For each model: ``Model``, the median; ``Model-mean``; ``Model-lo-80`` and ``Model-hi-80``,
        the central interval of each level; ``Model_ql0.1`` for each quantile asked for. They are
        exact for linear Gaussian models, and computed from sample paths otherwise.

        Args:
            h: Steps ahead, at least 1, the same or another at each call.
            df: Rows to forecast from instead of those last seen; its series may be new. Nothing is
                fitted again.
            X_df: Covariates known ahead, the next ``h`` rows of each series.
            level: Levels of central intervals, in percent: one or several; None for none.
            quantiles: Levels of quantiles, between 0 and 1.
            samples: Sample paths behind the quantiles of models without a closed form.
            static_df: Static features of series in ``df`` that are new.
            seed: Seed of the paths; the forecaster's own by default.

        Returns:
            One row per series and step, of the kind of frame that was fitted.

        Raises:
            ArgumentError: If ``h``, a level or a quantile is out of range, or the forecasts are
                more than this machine's memory holds: the text says how much they would take.
            DataError: If a frame cannot be used as it is.
        """
        h, options = horizon(h), ForecastOptions.of(level, quantiles, samples)
        engines, targets = self._engines.values(), len(self.columns.targets)
        there, output_format = self._there(
            df, static_df, lambda n: check_forecasts(engines, n, h, options, targets=targets)
        )
        future = there.future(X_df, h)
        seed = self.seed if seed is None else seed_of(seed)
        return output_format.frame(there.forecast(future, options, seed))

    @on_threads
    def sample(
        self,
        h: Any,
        n: Any = 100,
        df: Any = None,
        X_df: Any = None,
        *,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """Draws joint paths of the next ``h`` steps of every series.

        Args:
            h: Steps ahead.
            n: Paths of each series.
            df: As in :meth:`predict`.
            X_df: As in :meth:`predict`.
            static_df: As in :meth:`predict`.
            seed: Seed of the paths; the forecaster's own by default.

        Returns:
            One row per series, path and step, with the number of the path in ``sample_id``.
        """
        h, n = horizon(h), whole("n", n, "a number of paths")
        models, targets = len(self._engines), len(self.columns.targets)
        there, output_format = self._there(
            df, static_df, lambda series: check_paths(models, series, h, n, targets)
        )
        future = there.future(X_df, h)
        seed = self.seed if seed is None else seed_of(seed)
        return output_format.frame(there.sample(future, n, seed))

    def _there(
        self, df: Any, static_df: Any, check: Callable[[int], None]
    ) -> tuple[Fitted, OutputFormat]:
        """The models where they stand, or at the end of another frame, if what follows fits."""
        fitted = self._require_fitted()
        check(fitted.batch if df is None else 1)  # at least so many, before a frame is read
        if df is None:
            return fitted, fitted.output_format
        panel, output_format = fitted.read(df, static_df)
        check(panel.batch)
        there = fitted.with_history(panel, self.seed)
        self._observers = there.engines
        return there, output_format

    @on_threads
    def update(self: Self, df: Any, static_df: Any = None) -> Self:
        """Takes new rows in without fitting again, at a cost that the past does not add to.

        Where it then stands is where ``predict(df=...)`` would, given all rows.

        Args:
            df: Rows that follow those last seen; a series that is new is filtered from its start.
            static_df: Static features of series that are new.

        Raises:
            TimeError: If a row does not come after the last one of its series.
        """
        fitted = self._require_fitted()
        panel, _ = fitted.read(df, static_df)
        self._fitted, self._observers = fitted.updated(panel, self.seed), {}
        return self

    @on_threads
    def cross_validation(
        self,
        df: Any,
        h: Any,
        *,
        n_windows: Any = 1,
        step_size: Any = None,
        refit: Any = True,
        static_df: Any = None,
        level: Any = (80, 95),
        quantiles: Any = None,
        samples: Any = None,
    ) -> Any:
        """Forecasts the last windows of a frame from what came before each of them.

        Args:
            df: All rows.
            h: Steps of a window.
            n_windows: Windows; the last one ends with the last row of each series.
            step_size: Steps between the starts of windows; ``h`` by default.
            refit: Whether to fit at every window, only at the first, or (a number) at every so
                many-th; in between, rows are filtered with the parameters that there are.
            static_df: Static features.
            level: As in :meth:`predict`.
            quantiles: As in :meth:`predict`.
            samples: As in :meth:`predict`.

        Returns:
            As :meth:`predict`, with the ``cutoff`` that was the last time seen, and the truth.
        """
        h, options = horizon(h), ForecastOptions.of(level, quantiles, samples)
        origin = RollingOrigin.of(h, n_windows, step_size, refit)
        return cross_validation(
            self._configuration, self._engines.values(), df, static_df, origin, options
        )

    def plot(self, df: Any, forecasts: Any = None, **options: Any) -> Any:
        """Draws fan charts of forecasts after their history.

        Args:
            df: History.
            forecasts: What :meth:`predict` returned; None forecasts a season, or ten steps.
            options: Passed to :func:`seqlatent.forecasting.plots.fans`.

        Returns:
            Array of matplotlib Axes.
        """
        from seqlatent.forecasting import plots

        if forecasts is None:
            forecasts = self.predict(max([10, *(self.season_length or ())]))
        return plots.fans(df, forecasts, columns=self.columns, **options)

    # --- files -------------------------------------------------------------------------------

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes the fitted forecaster as JSON and safetensors.

        Of the training data it keeps where each series stands, and all rows for an :class:`Engine`
        of your own that has no update. An older model at this place stays
        until the new one is complete, and is then replaced in one step: whatever stops it, a power
        cut too, leaves the one or the other. Nothing that it did not write is deleted.

        Args:
            folder: Folder to write; a symbolic link is followed.

        Raises:
            FolderError: If something else is there, or the folder cannot be written.
        """
        write_fitted(Path(folder), self._configuration, self._require_fitted())

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        *,
        specs: Spec | Sequence[Spec] = (),
        engines: Engine | type[Engine] | Sequence[Engine | type[Engine]] = (),
    ) -> "Forecaster":
        """Reads what :meth:`save` wrote, onto the CPU, every file by its checksum.

        It forecasts as the saved one did, and its :meth:`fit` fits the same models again.

        Args:
            folder: Folder to read.
            specs: Specs of your own that the forecaster was made from: functions and classes are
                not saved, so that reading a folder runs no code but that of the package.
            engines: Engines of your own that it was made from, or their classes. Models that were
                registered under a name need not be given.

        Raises:
            FolderError: If the folder is missing, damaged, foreign, or of another version, or needs
                a Spec or an Engine that was not given.
            ArgumentError: If a Spec or an Engine is given and no model of the folder has its name.
        """
        asked, fitted = read_fitted(Path(folder), specs, engines)
        found = cls(
            asked.model,
            freq=asked.freq,
            season_length=asked.season_length,
            columns=asked.columns,
            seed=asked.seed,
            time_limit=asked.time_limit,
        )
        found._fitted = fitted
        return found

    def __repr__(self) -> str:
        fitted = ", not fitted" if self._fitted is None else f", series={self._fitted.batch}"
        return f"Forecaster({', '.join(self.aliases)}{fitted})"
