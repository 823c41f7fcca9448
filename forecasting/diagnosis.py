"""Diagnosis: how well a fitted forecaster foresaw rows that are there."""

from typing import Any

import numpy as np

from seqlatent.forecasting import results
from seqlatent.forecasting.arguments import flag, seed_of, whole
from seqlatent.forecasting.engines.engine import Scores
from seqlatent.forecasting.engines.latent.residuals import burnt
from seqlatent.forecasting.frames.names import check_words
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.memory_limits import check_lags
from seqlatent.forecasting.observing import Observing
from seqlatent.forecasting.threads import on_threads

__all__ = ["Diagnosis"]


class Diagnosis(Observing):
    """How well a fitted forecaster foresaw rows that are there, each from those before it.

    It is one part of :class:`Forecaster`.
    """

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

    def _innovated(self, panel: Panel, burn: Any, seed: Any) -> dict[str, np.ndarray]:
        burn = None if burn is None else whole("burn", burn, "a number of observations", 0)
        seed = self.seed if seed is None else seed_of(seed)
        series, rows = panel.ordered()
        found = {alias: e.innovations(series, seed)[rows] for alias, e in self._reading().items()}
        return {
            alias: burnt(panel, found[alias], e.burn if burn is None else burn)
            for alias, e in self._require_fitted().engines.items()
        }
