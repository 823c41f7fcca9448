"""Observing: the rows that a fitted forecaster looks at, and the models that look at them."""

from typing import Any

from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.features.seasons import seasons
from seqlatent.forecasting.fitted import Fitted
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.frames.read import OutputFormat

__all__ = ["Observing"]


class Observing:
    """The rows that a fitted forecaster looks at, and the models that look at them.

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
