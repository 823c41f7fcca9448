"""Forecaster, the dataframe skin: a model, or several side by side, with one set of verbs."""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from seqlatent.emissions import Emission
from seqlatent.forecasting import results as outputs
from seqlatent.forecasting.arguments import (
    chosen,
    device_of,
    flag,
    freq_of,
    horizon,
    levels_of,
    objects,
    quantiles_of,
    samples_of,
    seasons_of,
    seconds_of,
    seed_of,
    whole,
)
from seqlatent.forecasting.engines import time_limit as limits
from seqlatent.forecasting.engines.engine import Engine, FitOptions, Packed, Scores
from seqlatent.forecasting.engines.latent.residuals import burnt
from seqlatent.forecasting.engines.registry import engines_of, model_of, read_engine
from seqlatent.forecasting.engines.spec import Spec
from seqlatent.forecasting.errors import ArgumentError, FolderError, GapsWarning
from seqlatent.forecasting.features.seasons import calendar_notes, seasons, sparse
from seqlatent.forecasting.frames.checks import check_training, check_values
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.names import check_names, check_words
from seqlatent.forecasting.frames.panel import Future, Panel, order_of
from seqlatent.forecasting.frames.read import OutputFormat, Statics, read, read_future
from seqlatent.forecasting.last_rows import LastRows
from seqlatent.forecasting.memory_limits import (
    check_draws,
    check_forecasts,
    check_lags,
    check_paths,
)
from seqlatent.forecasting.storage.folder import read_folder, write_folder
from seqlatent.forecasting.threads import on_threads
from seqlatent.training import Deadline

if TYPE_CHECKING:
    from seqlatent.forecasting.engines.structural import Stacking

__all__ = ["Forecaster"]

_CELLS = 4_000_000  # cells of sample paths that are held at once
Self = TypeVar("Self", bound="Forecaster")


class Forecaster:
    """Fits a model on a dataframe, and forecasts with intervals, quantiles or joint sample paths.

    Frames are long, one row per series and time stamp, pandas or polars: what goes in as one comes
    out as the same. A pandas Series, or a wide frame with a DatetimeIndex, is accepted too. Missing
    values and gaps stay missing; rows may come in any order; series may differ in length, begin and
    end at different times, and be new at prediction time.

    Args:
        model: Name of a latent model (``"structural"``, ``"deep_state"``, ``"deep_markov"``,
            ``"srnn"``, ``"vrnn"``, ``"latent_ode"``), of a baseline (``"naive"``,
            ``"seasonal_naive"``, ``"ets"``, ``"sarimax"``, ``"theta"``), a :class:`Spec`, or a list
            of these, whose forecasts come side by side.
        freq: Frequency of the time stamps, a pandas alias such as ``"h"`` or ``"MS"``, or an offset
            such as ``pd.offsets.CustomBusinessDay(holidays=...)``; of integer times the step, or an
            alias that says what a step is; ``"irregular"``; None infers it.
        season_length: Steps of a season, or a list of several; None takes what suits ``freq``.
        columns: Names of the columns.
        members: Networks in the ensemble of a neural model; each path comes from one of them.
        emission: Family of the observations of a neural model: ``"normal"``, ``"student_t"``,
            ``"poisson"``, ``"negative_binomial"``, ``"bernoulli"`` or a class. None lets the data
            decide: small counts get a negative binomial, all else a Student-t distribution.
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

    _output_format: OutputFormat
    _statics: Statics
    _names: tuple[str, ...]
    _last_rows: LastRows
    _seen: Panel | None
    _said: tuple[str, ...] = ()

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
        self._model, self._options = model, {"members": members, "emission": emission}
        self._engines: dict[str, Engine] = engines_of(model, **self._options)
        self._states: dict[str, Any] = {}
        self._aside: dict[str, Engine] = {}
        self._seen = None

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
        deadline = Deadline(self.time_limit)
        panel, output_format, statics, names = read(
            df, self.columns, freq=self.freq, static=static_df
        )
        self.__dict__.update(self.fitted(panel, output_format, statics, names, deadline).__dict__)
        return self

    def _trained(self, panel: Panel, deadline: Deadline) -> dict[str, Any]:
        seasons, states, back = self._season_lengths(panel), {}, np.argsort(panel.order)
        for alias, engine in self._engines.items():
            fit_options = FitOptions(seasons, self.seed, deadline, self.progress, self.device)
            found, state = limits.fitted(engine, panel.select(panel.order), fit_options, self.seed)
            self._engines[alias], states[alias] = found, found.select(state, back)
            deadline = Deadline(self.time_limit)  # of the next model
        return states

    def _started(self, engine: Engine, panel: Panel) -> Any:
        # whatever is drawn or computed together must not tell in which order series came
        state = engine.start(panel.select(panel.order), self.seed)
        return engine.select(state, np.argsort(panel.order))

    def _season_lengths(self, panel: Panel) -> tuple[int, ...]:
        return seasons(panel, self.season_length, self.freq)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names of the models, which are the names of their columns."""
        return tuple(self._engines)

    @property
    def ids(self) -> list[Any]:
        """Series that it knows, in their order."""
        self._require_fitted()
        return list(self._last_rows.ids)

    @property
    def notes(self) -> dict[str, dict[Any, str]]:
        """What a model could not do as asked, by model and series; None is all series.

        Of series that are new it says what was so in the frame that was looked at last.
        """
        found = {
            alias: self._aside.get(alias, e).notes | e.notes for alias, e in self._engines.items()
        }
        for notes in found.values() if self._said else ():
            notes[None] = "; ".join([*([notes[None]] if None in notes else []), *self._said])
        return {alias: notes for alias, notes in found.items() if notes}

    def report(self, model: str | None = None) -> "Stacking":
        """What an automatic model chose and why: scores and shares, a table when printed.

        Args:
            model: Name of the model; the only one that chose by default.

        Raises:
            ValueError: If there is no such model, or several.
        """
        from seqlatent.forecasting.engines.structural import Stacking

        self._require_fitted()
        found = {
            alias: stacking
            for alias, engine in self._engines.items()
            if (stacking := engine.summary.get("stacking"))
        }
        if model is None and len(found) == 1:
            model = next(iter(found))
        if model not in found:
            raise ValueError(
                f"report is for models that choose among forms, here "
                f"{', '.join(map(repr, found)) or 'none'}; found {model!r}."
            )
        return Stacking.from_dict(found[model])

    def _require_fitted(self) -> None:
        if not self._states:
            raise RuntimeError("the forecaster is not fitted; call fit(df) first, or load(folder).")

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
        h = horizon(h)
        level, quantiles = levels_of(level), quantiles_of(quantiles)  # once: an iterator ends
        self._require_fitted()
        self.check_room(self._known(df), h, level, quantiles, samples)
        there, output_format = self._with_history(df, static_df)
        self.check_room(len(there._last_rows.ids), h, level, quantiles, samples)
        future = there._future(X_df, h)
        data = there.forecast_rows(
            future, level=level, quantiles=quantiles, samples=samples, seed=seed
        )
        return output_format.frame(data)

    def check_room(
        self, series: int, h: int, level: Any, quantiles: Any, samples: Any, windows: int = 1
    ) -> None:
        """Makes sure that forecasts of so many series fit into memory."""
        if samples is not None:
            samples = whole("samples", samples, "a number of paths")
        check_forecasts(
            self._engines.values(),
            series,
            h,
            targets=len(self.columns.targets),
            columns=2 + 2 * len(level) + len(quantiles),
            samples=samples,
            windows=windows,
        )

    def forecast_rows(
        self,
        future: Future,
        *,
        level: Any,
        quantiles: Any = None,
        samples: Any = None,
        seed: Any = None,
    ) -> dict[str, np.ndarray]:
        """Forecasts of the rows that are wanted, as columns."""
        levels, wanted = levels_of(level), quantiles_of(quantiles)
        points = sorted({0.5, *wanted, *(p for lv in levels for p in outputs.interval(lv))})
        data = self._head(future)
        seed = self.seed if seed is None else seed_of(seed)
        back = np.argsort(order_of(self._last_rows.ids))
        for alias, engine in self._engines.items():
            n, state = samples_of(samples, engine.samples), self._states[alias]
            all_marginals = [
                engine.marginals(engine.select(state, i), future.select(i), points, n, s)
                for i, s in self._chunks(n * future.horizon, seed)
            ]
            q = future.wanted(
                np.concatenate([marginals.quantiles for marginals in all_marginals], 1)[:, back]
            )
            at = {p: q[k].reshape(-1) for k, p in enumerate(points)}
            mean = future.wanted(
                np.concatenate([marginals.mean for marginals in all_marginals])[back][None]
            ).reshape(-1)
            data |= outputs.forecast_columns(alias, at, mean, levels, wanted)
        return data

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
        h = horizon(h)
        n = whole("n", n, "a number of paths")
        self._require_fitted()
        models, targets = len(self._engines), len(self.columns.targets)
        check_paths(models, self._known(df), h, n, targets)
        there, output_format = self._with_history(df, static_df)
        check_paths(models, len(there._last_rows.ids), h, n, targets)
        future = there._future(X_df, h)
        seed = self.seed if seed is None else seed_of(seed)
        data = there._head(future, n)
        back = np.argsort(order_of(there._last_rows.ids))
        for alias, engine in there._engines.items():
            state = there._states[alias]
            paths = [
                engine.paths(engine.select(state, i), future.select(i), n, s)
                for i, s in there._chunks(n * future.horizon, seed)
            ]
            drawn = future.wanted(np.concatenate(paths, 1)[:, back])
            data[alias] = drawn.transpose(1, 0, 2, 3).reshape(-1)
        return output_format.frame(data)

    def _known(self, df: Any) -> int:
        """Series that there are at least before a frame is read."""
        return len(self._last_rows.ids) if df is None else 1

    def _with_history(self: Self, df: Any, static_df: Any) -> tuple[Self, OutputFormat]:
        """The forecaster where it stands, or at the end of another frame."""
        if df is None:
            return self, self._output_format
        panel, output_format = self._panel(df, static_df)
        return self.with_history(panel), output_format

    def with_history(self: Self, panel: Panel) -> Self:
        """A copy with the same parameters that has seen the rows of a panel, and only those."""
        other = copy(self)
        other._engines = self._reading()
        other._states = {a: self._started(e, panel) for a, e in other._engines.items()}
        other._last_rows, other._seen = LastRows.of(panel), panel
        return other

    def _reading(self) -> dict[str, Engine]:
        """The models to look at other rows with, which note of those what they have to."""
        self._aside = {alias: copy(engine) for alias, engine in self._engines.items()}
        for engine in self._aside.values():
            engine.notes = dict(engine.notes)
        return self._aside

    def unfitted(self: Self) -> Self:
        """A copy that has seen nothing."""
        other = copy(self)
        other._states, other._aside = {}, {}
        return other

    def fitted(
        self: Self,
        panel: Panel,
        output_format: OutputFormat,
        statics: Statics,
        names: Sequence[str],
        deadline: Deadline | None = None,
    ) -> Self:
        """A copy that is fitted on a panel."""
        deadline = Deadline(self.time_limit) if deadline is None else deadline
        check_names(self.columns, self.aliases)
        check_training(panel, self.columns)
        said = tuple(calendar_notes(panel, self.season_length, self.freq))
        if self.freq is not None and (gaps := sparse(panel)):
            warnings.warn(f"{gaps}.", GapsWarning, stacklevel=2)
        other = copy(self)
        other._engines, other._aside = engines_of(self._model, **self._options), {}
        other._states = other._trained(panel, deadline)
        other._output_format, other._statics, other._names = output_format, statics, tuple(names)
        other._last_rows, other._seen = LastRows.of(panel), panel
        other._said = said
        return other

    def _rows(self, df: Any, static_df: Any = None) -> tuple[Panel, OutputFormat]:
        """The rows of a frame, or those of training."""
        self._require_fitted()
        if df is not None:
            return self._panel(df, static_df)
        if self._seen is None:
            raise ValueError(
                "df must be given where the forecaster was updated or loaded, for it keeps no rows "
                "then; pass the rows to look at."
            )
        return self._seen, self._output_format

    def _panel(self, df: Any, static_df: Any = None) -> tuple[Panel, OutputFormat]:
        given = static_df is not None
        panel, output_format, _, _ = read(
            df,
            self.columns,
            static=static_df,
            time_index=self._last_rows.time_index,
            statics=self._statics if given else None,
            names=self._names,
            known=list(self._last_rows.ids),
        )
        if not given and self._statics.names:
            panel = self._last_rows.with_statics(panel, self._statics.names)
        return panel, output_format

    def _future(self, X_df: Any, h: int) -> Future:
        last_rows = self._last_rows
        return read_future(
            X_df,
            last_rows.ids,
            last_rows.time_index,
            last_rows.t,
            h,
            self._names,
            self.columns,
            last_rows.ends,
        )

    def _head(self, future: Future, n: int | None = None) -> dict[str, np.ndarray]:
        stamps = (
            self._last_rows.time_index.stamps(future.t) if future.stamps is None else future.stamps
        )
        return outputs.head(self.columns, self._last_rows.ids, stamps, n)

    def _chunks(self, cells: int, seed: int) -> list[tuple[np.ndarray, int]]:
        """Series to forecast together, so that their paths fit into memory, and their seeds.

        They come in the order of their identifiers.
        """
        order = order_of(self._last_rows.ids)
        size = max(1, _CELLS // (cells * len(self.columns.targets)))
        parts = np.array_split(order, max(1, -(-len(order) // size)))
        return [(part, seed + 7919 * k) for k, part in enumerate(parts)]

    # --- rows that are there -----------------------------------------------------------------

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
        self._require_fitted()
        panel, _ = self._panel(df, static_df)
        last_rows, plan = self._last_rows.follow(panel, self._names, self.columns)
        states = {
            alias: plan.apply(engine, self._states[alias], self.seed)
            for alias, engine in self._engines.items()
        }
        self._last_rows, self._states, self._seen, self._aside = last_rows, states, None, {}
        return self

    @on_threads
    def smooth(self, df: Any = None, *, level: Any = (80, 95), static_df: Any = None) -> Any:
        """Latent states and components at every row, given all rows.

        Models without states, such as most baselines, have no rows in what is returned.

        Args:
            df: Rows to smooth; those of training by default.
            level: Levels of the bands, in percent.
            static_df: Static features of series that are new.

        Returns:
            One row per series, time, model and name of a state or component: ``kind`` says which it
            is. Components are those of :meth:`components`, in the units of the data; states are as
            the model has them.
        """
        check_words(self.columns, "smooth", outputs.SMOOTHED)
        levels = levels_of(level)
        points = [p for lv in levels for p in outputs.interval(lv)]
        panel, output_format = self._rows(df, static_df)
        series, rows = panel.ordered()
        parts, lacking = [], None
        for alias, engine in self._reading().items():
            if engine.named:
                _, (one,) = engine.components(
                    panel, None, points, filtered=False, specifications=False
                )
                parts.append(outputs.parts(self.columns, panel, alias, one, levels, self._inputs))
                continue
            try:
                found = engine.smooth(series, self.seed)
            except NotImplementedError as error:  # a baseline beside others has no states
                lacking = error
            else:
                found = found._replace(mean=found.mean[rows], scale=found.scale[rows])
                parts.append(outputs.smoothed(self.columns, panel, alias, found, levels))
        if not parts:
            assert lacking is not None
            raise lacking
        return output_format.frame({k: np.concatenate([p[k] for p in parts]) for k in parts[0]})

    @on_threads
    def components(
        self,
        df: Any = None,
        *,
        level: Any = (80, 95),
        kind: Any = "smoothed",
        specifications: Any = False,
        h: Any = None,
        X_df: Any = None,
        static_df: Any = None,
    ) -> Any:
        """Level, slope, seasons, cycle, regression and the rest of every row, with exact bands.

        The models are mixtures of forms, and of draws of their parameters; all are pooled. In the
        units of the data ``level``, ``season12``, ``cycle``, ``autoregressive`` and
        ``regression[price]`` add up to ``signal``, on average and on every path, and ``signal`` and
        ``irregular`` to what was observed. ``slope`` is the gain of the level in the next step, and
        ``coefficient[price]`` that of the signal by one more unit of the covariate. A covariate
        counts from its mean in training. What a form of logarithms contributes is what a component
        adds to those before it; what a form does not have is zero there.

        Args:
            df: Rows to read; those of training by default.
            level: Levels of the bands, in percent.
            kind: ``"smoothed"``, given all rows; ``"filtered"``, given the rows up to each.
            specifications: Whether each form tells its own components: factors where it describes
                logarithms, as ``scale`` says.
            h: Steps ahead whose components are wanted too.
            X_df: Covariates known ahead, the next ``h`` rows of each series.
            static_df: Static features of series that are new.

        Returns:
            One row per series, time, model and component.

        Raises:
            TypeError: If no model has named components.
            ValueError: If an argument is out of range.
        """
        kind, specifications = (
            chosen("kind", kind, ("smoothed", "filtered")),
            flag("specifications", specifications),
        )
        check_words(self.columns, "components", outputs.COMPONENTS)
        levels = levels_of(level)
        points = [p for lv in levels for p in outputs.interval(lv)]
        panel, output_format = self._rows(df, static_df)
        future = None
        if h is not None:
            there, h = copy(self), horizon(h)
            self.check_room(panel.batch, h, levels, (), None)
            there._last_rows = LastRows.of(panel)
            future = there._future(X_df, h)
        engines = self._reading()
        named = {alias: e for alias, e in engines.items() if e.named}
        parts = []
        for alias, engine in (named or engines).items():
            longer, found = engine.components(
                panel, future, points, filtered=kind == "filtered", specifications=specifications
            )
            parts += [
                outputs.components(
                    self.columns,
                    longer,
                    alias,
                    one,
                    levels,
                    self._inputs,
                    specifications=specifications,
                )
                for one in found
            ]
        return output_format.frame({k: np.concatenate([p[k] for p in parts]) for k in parts[0]})

    @property
    def _inputs(self) -> tuple[str, ...]:
        """Names of the covariates that a model reads, in their order."""
        return (*self._names, *self.columns.past)

    @on_threads
    def innovations(
        self,
        df: Any = None,
        *,
        burn: Any = None,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """How far each observation fell from what was foreseen one step before, standardised.

        They are the normal scores of the one-step predictions, and independent standard normal
        numbers if the model is right: of one linear Gaussian model the standardised innovations of
        the Kalman filter, of a mixture and of any other model ``Phi^-1(PIT)``, randomised for
        counts.

        Args:
            df: Rows to read; those of training by default, which the model has seen.
            burn: First observations of each series that are left out. None leaves out as many as
                there are coordinates of the first state that are vague.
            static_df: Static features of series that are new.
            seed: Seed of what is random; the forecaster's own by default.

        Returns:
            The rows as they came, with a column ``Model-innovation``, which is NaN where nothing
            was observed or the row is left out.
        """
        panel, output_format = self._rows(df, static_df)
        return output_format.frame(
            outputs.innovated(self.columns, panel, self._innovated(panel, burn, seed))
        )

    def _innovated(self, panel: Panel, burn: Any, seed: Any) -> dict[str, np.ndarray]:
        burn = None if burn is None else whole("burn", burn, "a number of observations", 0)
        seed = self.seed if seed is None else seed_of(seed)
        series, rows = panel.ordered()
        found = {alias: e.innovations(series, seed)[rows] for alias, e in self._reading().items()}
        return {
            alias: burnt(panel, found[alias], e.burn if burn is None else burn)
            for alias, e in self._engines.items()
        }

    @on_threads
    def diagnose(
        self,
        df: Any = None,
        lags: Any = None,
        *,
        pooled: Any = False,
        burn: Any = None,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """Tests of the innovations: are they independent, normal and alike at all times.

        Args:
            df: Rows to read; those of training by default.
            lags: Lags up to which whiteness is tested, fewer than the longest series has rows;
                None takes two seasons, or 10 without a season, and at most a fifth of the
                observations.
            pooled: Whether the tests of all series are drawn together.
            burn: As in :meth:`innovations`.
            static_df: Static features of series that are new.
            seed: Seed of what is random.

        Returns:
            One row per series, model and ``test`` (``mean``, ``variance``, ``normality``,
            ``heteroskedasticity``, and ``whiteness`` up to each ``lag``), with ``statistic`` and
            ``p_value``, NaN where there are too few observations. With ``pooled`` one row per model
            and test: how many ``series`` there are, their ``share_below_05``, which is about 0.05
            if the model is right, and ``uniform_p``, the p-value of Kolmogorov and Smirnov's test
            that their p-values are uniform.
        """
        check_words(self.columns, "diagnose", outputs.DIAGNOSED)
        pooled = flag("pooled", pooled)
        lags = None if lags is None else whole("lags", lags, "a number of steps")
        panel, output_format = self._rows(df, static_df)
        if lags is not None:
            check_lags(panel, lags)
        season = next(iter(self._season_lengths(panel)), 1)
        data = outputs.diagnosed(
            self.columns, panel, self._innovated(panel, burn, seed), lags, season
        )
        return output_format.frame(outputs.summarised(data) if pooled else data)

    @on_threads
    def impute(
        self,
        df: Any,
        n: Any = None,
        *,
        level: Any = None,
        complete: Any = False,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """Draws missing values from their distribution given all that is there, before and after.

        Draws are joint over all steps of a series, and exact for linear Gaussian models, as are the
        bands. Observed values stay as they are. Models with a memory of values (``"srnn"``,
        ``"vrnn"``) do not condition on the rows after a hole, as :attr:`notes` says.

        Args:
            df: Rows, with NaN or gaps where values are missing.
            n: Draws of each missing value, 1 by default; one number of ``sample_id`` is one joint
                draw. With ``level``, those behind the bands of models without a closed form.
            level: Levels of bands, in percent, which come instead of draws.
            complete: Whether rows that are not missing come too, so that each number of
                ``sample_id`` is a frame without holes.
            static_df: Static features of series that are new.
            seed: Seed of the draws; the forecaster's own by default.

        Returns:
            ``id, time, sample_id, target``, by the first model; with ``level`` the median in the
            column of the target, ``y-mean``, ``y-lo-80``, ``y-hi-80``, ...

        Raises:
            TargetError: If a series has no value at all.
        """
        self._require_fitted()
        complete = flag("complete", complete)
        panel, output_format = self._panel(df, static_df)
        check_values(panel)
        engine = next(iter(self._reading().values()))
        series, rows = panel.ordered()
        seed = self.seed if seed is None else seed_of(seed)
        if level is not None:
            levels = levels_of(level)
            points = [0.5, *(p for lv in levels for p in outputs.interval(lv))]
            n = samples_of(n, engine.samples)
            if not engine.exact:
                check_draws(panel, n, complete)
            mean, quantiles = engine.completed(series, points, n, seed)
            mean, quantiles = mean[rows], quantiles[:, rows]
            return output_format.frame(
                outputs.completed(self.columns, panel, mean, quantiles, levels, complete)
            )
        n = whole("n", 1 if n is None else n, "a number of draws")
        check_draws(panel, n, complete)
        draws = engine.impute(series, n, seed)[:, rows]
        return output_format.frame(outputs.imputed(self.columns, panel, draws, complete))

    @on_threads
    def score(self, df: Any, *, static_df: Any = None) -> Any:
        """Scores how each row was predicted from the rows before it, and from them alone.

        ``Model-log_score`` is the log density (or probability) of the row, larger is better;
        ``Model-pit`` the probability of a smaller value, uniform where the model is calibrated.

        Args:
            df: Rows to score; nothing is fitted again.
            static_df: Static features of series that are new.

        Returns:
            The rows as they came.
        """
        self._require_fitted()
        panel, output_format = self._panel(df, static_df)
        series, rows = panel.ordered()
        scores = {
            a: Scores(*(x[rows] for x in e.score(series, self.seed)))
            for a, e in self._reading().items()
        }
        return output_format.frame(outputs.scored(self.columns, panel, scores))

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
        from seqlatent.forecasting.backtest import cross_validation

        return cross_validation(
            self,
            df,
            horizon(h),
            n_windows=n_windows,
            step_size=step_size,
            refit=refit,
            static_df=static_df,
            level=level,
            quantiles=quantiles,
            samples=samples,
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

        Of the training data it keeps where each series stands. An older model at this place stays
        until the new one is complete, and is then replaced in one step: whatever stops it, a power
        cut too, leaves the one or the other. Nothing that it did not write is deleted.

        Args:
            folder: Folder to write; a symbolic link is followed.

        Raises:
            FolderError: If something else is there, or the folder cannot be written.
        """
        self._require_fitted()
        last_rows = self._last_rows
        models, groups = [], {"last_rows": last_rows.tensors()}
        asked_for = engines_of(self._model, **self._options)
        for i, (alias, engine) in enumerate(self._engines.items()):
            packed = engine.packed()
            models.append({"alias": alias, "engine": type(engine).__name__, **packed._asdict()})
            asked = model_of(alias, asked_for[alias])
            if isinstance(asked, Spec) and type(engine) is not type(asked_for[alias]):
                models[-1]["asked"] = asked.to_dict()  # another stands in its place
            groups |= {f"model-{i}": models[-1].pop("tensors")}
            groups |= {f"state-{i}": engine.pack(self._states[alias])}
        config = {
            "models": models,
            "columns": outputs.columns_to_dict(self.columns),
            "output_format": self._output_format.to_dict(),
            "time_index": last_rows.time_index.to_dict(),
            "statics": self._statics.to_dict(),
            "covariates": list(self._names),
            "ids": [encoded(id) for id in last_rows.ids],
            "freq": self.freq,
            "season_length": self.season_length,
            "notes": list(self._said),
            "seed": self.seed,
            "time_limit": self.time_limit,
        }
        write_folder(Path(folder), config, groups)

    @classmethod
    def load(
        cls, folder: str | PathLike[str], *, specs: Spec | Sequence[Spec] = ()
    ) -> "Forecaster":
        """Reads what :meth:`save` wrote, onto the CPU, every file by its checksum.

        It forecasts as the saved one did, and its :meth:`fit` fits the same models again.

        Args:
            folder: Folder to read.
            specs: Specs of your own that the forecaster was made from: functions and classes are
                not saved, so that reading a folder runs no code but that of the package.

        Raises:
            FolderError: If the folder is missing, damaged, foreign, or of another version, or needs
                a Spec that was not given.
            ArgumentError: If a Spec is given that no model of the folder has the name of.
        """
        place = Path(folder)
        config, groups = read_folder(place)
        given = {spec.name: spec for spec in ([specs] if isinstance(specs, Spec) else specs)}
        try:
            found = cls.__new__(cls)
            found.columns = Columns(**config["columns"])
            found.freq, found.season_length = config["freq"], seasons_of(config["season_length"])
            found.seed, found.time_limit = config["seed"], config["time_limit"]
            found.progress, found.device, found.threads = False, "cpu", None
            found._output_format = OutputFormat.from_dict(config["output_format"])
            found._statics = Statics.from_dict(config["statics"])
            found._names = tuple(config["covariates"])
            found._said = tuple(config.get("notes", ()))
            found._last_rows = LastRows.from_tensors(
                objects([decoded(code) for code in config["ids"]]),
                config["time_index"],
                groups["last_rows"],
            )
            found._engines, found._states, found._seen, found._aside = {}, {}, None, {}
            asked: dict[str, Spec] = {}
            for i, model in enumerate(config["models"]):
                packed = Packed(model["config"], groups[f"model-{i}"])
                engine = read_engine(model["engine"], packed, given.get(model["alias"]))
                found._engines[model["alias"]] = engine
                if "asked" in model:
                    spec = given.get(model["alias"])
                    asked[model["alias"]] = spec or Spec.from_dict(model["asked"])
                found._states[model["alias"]] = engine.unpack(groups[f"state-{i}"])
            if not found._engines or len(found._last_rows.ids) != len(found._last_rows.t):
                raise FolderError(
                    f"expected models and {len(found._last_rows.t)} ids, found "
                    f"{len(found._engines)} and {len(found._last_rows.ids)}; save the model again."
                )
        except FolderError as error:
            raise FolderError(f"{place}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise FolderError(
                f"{place} was written by seqlatent {config.get('version')}, of which this version "
                f"cannot read {error!r}; fit the forecaster again."
            ) from error
        found._model = [
            asked.get(alias) or model_of(alias, e) for alias, e in found._engines.items()
        ]
        found._options = {}
        for name in given.keys() - found._engines.keys():
            raise ArgumentError(
                f"specs must have the names of models in {place}, {', '.join(found.aliases)}, "
                f"found {name!r}.",
                name="specs",
            )
        return found

    def __repr__(self) -> str:
        fitted = f", series={len(self._last_rows.ids)}" if self._states else ", not fitted"
        return f"Forecaster({', '.join(self.aliases)}{fitted})"
