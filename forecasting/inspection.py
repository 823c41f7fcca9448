"""Inspection: what a fitted forecaster says of rows that are there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting import results
from seqlatent.forecasting.arguments import (
    ForecastOptions,
    chosen,
    flag,
    horizon,
    interval,
    levels_of,
    samples_of,
    seed_of,
    whole,
)
from seqlatent.forecasting.engines.engine import Engine, Scores
from seqlatent.forecasting.engines.latent.residuals import burnt
from seqlatent.forecasting.features.seasons import seasons
from seqlatent.forecasting.fitted import Fitted
from seqlatent.forecasting.frames.checks import check_values
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.names import check_words
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.frames.read import OutputFormat
from seqlatent.forecasting.last_rows import LastRows
from seqlatent.forecasting.memory_limits import check_draws, check_forecasts, check_lags
from seqlatent.forecasting.threads import on_threads

if TYPE_CHECKING:
    from seqlatent.forecasting.engines.structural import Stacking

__all__ = ["Inspection"]


class Inspection:
    """What a fitted forecaster says of rows that are there: states, residuals, missing values.

    It is one part of :class:`Forecaster`, which sets the attributes.

    Attributes:
        columns: Names of the columns.
        season_length: Steps of each season; None for what suits ``freq``.
        freq: Frequency of the time stamps; None to infer it.
        seed: Seed of everything random.
        threads: Threads while a call lasts; None leaves them as they are.
    """

    columns: Columns
    season_length: tuple[int, ...] | None
    freq: str | int | None
    seed: int
    threads: int | None
    _fitted: Fitted | None
    _observers: dict[str, Engine]  # the models that looked at other rows last, with their notes

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
        check_words(self.columns, "smooth", results.SMOOTHED)
        levels = levels_of(level)
        panel, output_format = self._rows(df, static_df)
        series, rows = panel.ordered()
        parts, lacking = [], None
        for alias, engine in self._reading().items():
            if engine.named:
                _, (one,) = engine.components(
                    panel, None, _ends(levels), filtered=False, specifications=False
                )
                inputs = self._require_fitted().inputs
                parts.append(results.parts(self.columns, panel, alias, one, levels, inputs))
                continue
            try:
                found = engine.smooth(series, self.seed)
            except NotImplementedError as error:  # a baseline beside others has no states
                lacking = error
            else:
                found = found._replace(mean=found.mean[rows], scale=found.scale[rows])
                parts.append(results.smoothed(self.columns, panel, alias, found, levels))
        if not parts:
            assert lacking is not None
            raise lacking
        return output_format.frame(_stacked(parts))

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

        The models are mixtures of specifications, and of draws of their parameters; all are pooled.
        In the units of the data ``level``, ``season12``, ``cycle``, ``autoregressive`` and
        ``regression[price]`` add up to ``signal``, on average and on every path, and ``signal`` and
        ``irregular`` to what was observed. ``slope`` is the gain of the level in the next step, and
        ``coefficient[price]`` that of the signal by one more unit of the covariate. A covariate
        counts from its mean in training. What a specification of logarithms contributes is what a
        component adds to those before it; what a specification does not have is zero there.

        Args:
            df: Rows to read; those of training by default.
            level: Levels of the bands, in percent.
            kind: ``"smoothed"``, given all rows; ``"filtered"``, given the rows up to each.
            specifications: Whether each specification tells its own components: factors where it
                describes logarithms, as ``scale`` says.
            h: Steps ahead whose components are wanted too.
            X_df: Covariates known ahead, the next ``h`` rows of each series.
            static_df: Static features of series that are new.

        Returns:
            One row per series, time, model and component.

        Raises:
            TypeError: If no model has named components.
            ValueError: If an argument is out of range.
        """
        kind = chosen("kind", kind, ("smoothed", "filtered"))
        specifications = flag("specifications", specifications)
        check_words(self.columns, "components", results.COMPONENTS)
        levels = levels_of(level)
        panel, output_format = self._rows(df, static_df)
        fitted, future = self._require_fitted(), None
        if h is not None:
            h, wanted = horizon(h), ForecastOptions(levels)
            check_forecasts(
                fitted.engines.values(), panel.batch, h, wanted, targets=panel.y.shape[1]
            )
            future = replace(fitted, last_rows=LastRows.of(panel)).future(X_df, h)
        engines = self._reading()
        named = {alias: e for alias, e in engines.items() if e.named}
        parts = []
        for alias, engine in (named or engines).items():
            longer, found = engine.components(
                panel,
                future,
                _ends(levels),
                filtered=kind == "filtered",
                specifications=specifications,
            )
            about = (self.columns, longer, alias)
            parts += [
                results.components(
                    *about, one, levels, fitted.inputs, specifications=specifications
                )
                for one in found
            ]
        return output_format.frame(_stacked(parts))

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
                there are coordinates of the first state that are diffuse.
            static_df: Static features of series that are new.
            seed: Seed of what is random; the forecaster's own by default.

        Returns:
            The rows as they came, with a column ``Model-innovation``, which is NaN where nothing
            was observed or the row is left out.
        """
        panel, output_format = self._rows(df, static_df)
        return output_format.frame(
            results.innovated(self.columns, panel, self._innovated(panel, burn, seed))
        )

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
            ``p_value``, NaN where there are too few observations. A model that learned from series
            of a prior has a row more, ``prior``: how far the series lies from these, and the part
            of them that lie as far; of series like them 1 in 100 has a ``p_value`` of 0.01. With
            ``pooled`` one row per model and test: how many ``series`` there are, their
            ``share_below_05``, which is about 0.05 if the model is right, and ``uniform_p``, the
            p-value of Kolmogorov and Smirnov's test that their p-values are uniform.
        """
        check_words(self.columns, "diagnose", results.DIAGNOSED)
        pooled = flag("pooled", pooled)
        lags = None if lags is None else whole("lags", lags, "a number of steps")
        panel, output_format = self._rows(df, static_df)
        if lags is not None:
            check_lags(panel, lags)
        season = next(iter(self._season_lengths(panel)), 1)
        innovated = self._innovated(panel, burn, seed)
        series, _ = panel.ordered()
        usual = {alias: engine.typicality(series) for alias, engine in self._observers.items()}
        data = results.diagnosed(self.columns, panel, innovated, usual, lags, season)
        return output_format.frame(results.summarised(data) if pooled else data)

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
        fitted, complete = self._require_fitted(), flag("complete", complete)
        panel, output_format = fitted.read(df, static_df)
        check_values(panel)
        engine = next(iter(self._reading().values()))
        series, rows = panel.ordered()
        seed = self.seed if seed is None else seed_of(seed)
        if level is not None:
            levels = levels_of(level)
            n = samples_of(n, engine.samples)
            if not engine.exact:
                check_draws(panel, n, complete)
            mean, quantiles = engine.completed(series, [0.5, *_ends(levels)], n, seed)
            mean, quantiles = mean[rows], quantiles[:, rows]
            return output_format.frame(
                results.completed(self.columns, panel, mean, quantiles, levels, complete)
            )
        n = whole("n", 1 if n is None else n, "a number of draws")
        check_draws(panel, n, complete)
        draws = engine.impute(series, n, seed)[:, rows]
        return output_format.frame(results.imputed(self.columns, panel, draws, complete))

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
        panel, output_format = self._require_fitted().read(df, static_df)
        series, rows = panel.ordered()
        scores = {
            a: Scores(*(x[rows] for x in e.score(series, self.seed)))
            for a, e in self._reading().items()
        }
        return output_format.frame(results.scored(self.columns, panel, scores))

    def report(self, model: str | None = None) -> "Stacking":
        """What an automatic model chose and why: scores and shares, a table when printed.

        Args:
            model: Name of the model; the only one that chose by default.

        Raises:
            ValueError: If there is no such model, or several.
        """
        from seqlatent.forecasting.engines.structural import Stacking

        found = {
            alias: stacking
            for alias, engine in self._require_fitted().engines.items()
            if (stacking := engine.summary.get("stacking"))
        }
        if model is None and len(found) == 1:
            model = next(iter(found))
        if model not in found:
            raise ValueError(
                f"report is for models that choose among specifications, here "
                f"{', '.join(map(repr, found)) or 'none'}; found {model!r}."
            )
        return Stacking.from_dict(found[model])

    @property
    def _seen(self) -> Panel | None:
        return None if self._fitted is None else self._fitted.panel

    def _season_lengths(self, panel: Panel) -> tuple[int, ...]:
        return seasons(panel, self.season_length, self.freq)

    def _require_fitted(self) -> Fitted:
        if self._fitted is None:
            raise RuntimeError("the forecaster is not fitted; call fit(df) first, or load(folder).")
        return self._fitted

    def _rows(self, df: Any, static_df: Any = None) -> tuple[Panel, OutputFormat]:
        """The rows of a frame, or those of training."""
        fitted = self._require_fitted()
        if df is not None:
            return fitted.read(df, static_df)
        if fitted.panel is None:
            raise ValueError(
                "df must be given where the forecaster was updated or loaded, for it keeps no rows "
                "then; pass the rows to look at."
            )
        return fitted.panel, fitted.output_format

    def _reading(self) -> dict[str, Engine]:
        """The models to look at other rows with, which note of those what they have to."""
        self._observers = self._require_fitted().observers()
        return self._observers

    def _innovated(self, panel: Panel, burn: Any, seed: Any) -> dict[str, np.ndarray]:
        burn = None if burn is None else whole("burn", burn, "a number of observations", 0)
        seed = self.seed if seed is None else seed_of(seed)
        series, rows = panel.ordered()
        found = {alias: e.innovations(series, seed)[rows] for alias, e in self._reading().items()}
        return {
            alias: burnt(panel, found[alias], e.burn if burn is None else burn)
            for alias, e in self._require_fitted().engines.items()
        }


def _ends(levels: Sequence[float | int]) -> list[float]:
    """Levels of the quantiles at the ends of central intervals, interval by interval."""
    return [p for level in levels for p in interval(level)]


def _stacked(parts: list[results.Data]) -> results.Data:
    """The columns of several tables, one table below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
