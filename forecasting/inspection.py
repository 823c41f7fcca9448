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
from seqlatent.forecasting.diagnosis import Diagnosis
from seqlatent.forecasting.frames.checks import check_values
from seqlatent.forecasting.frames.names import check_words
from seqlatent.forecasting.last_rows import LastRows
from seqlatent.forecasting.memory_limits import check_draws, check_forecasts
from seqlatent.forecasting.threads import on_threads

if TYPE_CHECKING:
    from seqlatent.forecasting.engines.calibration import Calibration
    from seqlatent.forecasting.engines.structural import Stacking

__all__ = ["Inspection"]


class Inspection(Diagnosis):
    """What a fitted forecaster says of rows that are there: states, parameters, missing values.

    It is one part of :class:`Forecaster`.
    """

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
        """Level, slope, seasons, cycle, regression and the rest of every row, with bands.

        Structural models are mixtures of specifications, and of draws of their parameters; all are
        pooled, and bands are exact. Those of ``"amortised"`` have been learned from drawn series.
        In the units of the data ``level``, ``season12``, ``cycle``, ``autoregressive`` and
        ``regression[price]`` add up to ``signal``, on average and on every path, and ``signal`` and
        ``irregular`` to what was observed. ``slope`` is the gain of the level in the next step, and
        ``coefficient[price]`` that of the signal by one more unit of the covariate. A covariate
        counts from its mean in training. What a specification of logarithms contributes is what a
        component adds to those before it; what a specification does not have is zero there. Of
        ``"amortised"`` all covariates are one ``regression``, and ``noise`` is the standard
        deviation of a value around the signal.

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
    def parameters(
        self,
        df: Any = None,
        *,
        level: Any = (80, 95),
        specifications: Any = False,
        static_df: Any = None,
        seed: Any = None,
    ) -> Any:
        """Parameters of each series and how uncertain they are: scales, dampings, coefficients.

        Of ``structural`` the most probable values, and bands of normal approximations on the scale
        of their logarithms; with ``bayes=True`` quantiles of draws by the exact likelihood. They
        are what the rows of training say; later rows do not change them, and the factor of the
        widths that ``report`` tells is not in them. Of ``"amortised"`` they are what the last rows
        of any series say; of what is there or not, as ``level.breaks``, the probability alone.

        A ``scale`` is a standard deviation in the units of the data, of what moves a component in
        one step or of the noise; ``initial_scale`` is how far from zero its first state is likely
        to lie. Where a specification describes logarithms, it is the standard deviation of these
        times the geometric mean of the series. All other parameters have no unit, but a ``period``,
        which is in steps.

        Args:
            df: Series to tell of; those of training by default. Of ``structural`` only their
                identifiers count, and there must not be new ones.
            level: Levels of the bands, in percent.
            specifications: Whether each specification tells its own parameters, rather than the
                mixture of those that have a parameter.
            static_df: Static features of series that are new.
            seed: Seed of what is random; the forecaster's own by default.

        Returns:
            One row per series and ``parameter``, as ``"slope.damping"``: in the column of a model
            the median, in ``Model-lo-80``, ``Model-hi-80``, ... the bands, given that the series
            has the parameter, and in ``Model-probability`` how probable that is: the weight of the
            specifications that do. NaN where a model does not know the parameter.

        Raises:
            TypeError: If no model has parameters of each series.
            DataError: If a series is new to a model that has only those of its training.

        Example:
            >>> import pandas as pd
            >>> from seqlatent.forecasting import Forecaster, spec_of
            >>> y = [5.0, 6.1, 5.2, 6.4, 7.0, 6.6, 7.9, 8.3, 7.7, 9.0]
            >>> df = pd.DataFrame({"unique_id": "a", "ds": range(10), "y": y})
            >>> forecaster = Forecaster(spec_of("structural", specifications=["level"])).fit(df)
            >>> found = forecaster.parameters(level=80)
            >>> found["parameter"].tolist()
            ['level.scale', 'noise.scale']
            >>> found.columns[2:].tolist()
            ['structural', 'structural-lo-80', 'structural-hi-80', 'structural-probability']
        """
        specifications = flag("specifications", specifications)
        check_words(self.columns, "parameters", results.PARAMETERS)
        levels = levels_of(level)
        panel, output_format = self._rows(df, static_df)
        seed = self.seed if seed is None else seed_of(seed)
        engines, order = self._reading(), panel.order
        told = {alias: e for alias, e in engines.items() if e.parametric}
        found = {
            alias: e.parameters(
                panel.select(order), _ends(levels), seed, specifications=specifications
            )
            for alias, e in (told or engines).items()
        }
        return output_format.frame(
            results.parameters(
                self.columns,
                panel.ids,
                np.argsort(order),
                found,
                levels,
                specifications=specifications,
            )
        )

    @on_threads
    def breaks(
        self,
        df: Any = None,
        *,
        level: Any = (80, 95),
        static_df: Any = None,
    ) -> Any:
        """Where the level of each series jumps, by how much and how surely, and what lies apart.

        Args:
            df: Rows to read; those of training by default.
            level: Levels of the bands, in percent.
            static_df: Static features of series that are new.

        Returns:
            The rows as they came, of each model that knows, given all rows: in ``Model-break`` the
            probability that the level breaks there, for another reason than that it always moves;
            in ``Model-break-size`` by how much it jumps if it does, the median, with bands
            ``Model-break-size-lo-80``, ...; in ``Model-outlier`` the probability that the value is
            an outlier. NaN of series of fewer than two values.

        Raises:
            TypeError: If no model knows where levels break.
        """
        levels = levels_of(level)
        panel, output_format = self._rows(df, static_df)
        engines = self._reading()
        told = {alias: e for alias, e in engines.items() if e.breaking}
        found = {a: e.breaks(panel, _ends(levels)) for a, e in (told or engines).items()}
        return output_format.frame(results.broken(self.columns, panel, found, levels))

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

    def report(self, model: str | None = None) -> "Stacking | Calibration":
        """What a model chose and why, a table when printed.

        ``structural`` says the weights of its specifications and their scores, ``ets`` and
        ``theta`` the factors of their spread.

        Args:
            model: Name of the model; by default the only one that chose among specifications, or
                the only one that has a report.

        Raises:
            ValueError: If there is no such model, or several.
        """
        from seqlatent.forecasting.engines.calibration import Calibration
        from seqlatent.forecasting.engines.structural import Stacking

        summaries = {a: engine.summary for a, engine in self._require_fitted().engines.items()}
        chose = {a: said["stacking"] for a, said in summaries.items() if said.get("stacking")}
        spread = {a: said["calibration"] for a, said in summaries.items() if "calibration" in said}
        found: dict[str, Stacking | Calibration] = {
            **{a: Calibration.from_dict(said) for a, said in spread.items()},
            **{a: Stacking.from_dict(said) for a, said in chose.items()},
        }
        first = chose or spread
        if model is None and len(first) == 1:
            model = next(iter(first))
        if model not in found:
            raise ValueError(
                f"report is for models that choose among specifications or calibrate their "
                f"spread, here {', '.join(map(repr, found)) or 'none'}; found {model!r}."
            )
        return found[model]


def _ends(levels: Sequence[float | int]) -> list[float]:
    """Levels of the quantiles at the ends of central intervals, interval by interval."""
    return [p for level in levels for p in interval(level)]


def _stacked(parts: list[results.Data]) -> results.Data:
    """The columns of several tables, one table below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
