"""Metrics of forecasts on frames: plain functions, a row for each series, a column for each model.

They have the signature that ``utilsforecast.evaluation.evaluate`` calls, and share three rules:

- A cell whose truth is NaN is left out of every sum and mean.
- A truth that was observed needs a forecast: a missing one is a
  :class:`~seqlatent.forecasting.errors.DataError` that names the series and the stamp.
- Rows are grouped by series, by the column ``target`` where there are several targets, and by
  cutoff where there is one; groups keep the order in which they first appear.

``models`` are aliases. Beside the column ``Alias`` (the median) the metrics read ``Alias-lo-80``,
``Alias-hi-80``, ``Alias_ql0.1`` and ``Alias-log_score``. Give ``models`` to ``evaluate`` too: left
to guess, it takes every such column for a model.
"""

from seqlatent.forecasting.metrics.density import log_score
from seqlatent.forecasting.metrics.interval import coverage, interval_score, msis
from seqlatent.forecasting.metrics.names import ColumnNames
from seqlatent.forecasting.metrics.point import mae, mase, rmse, rmsse
from seqlatent.forecasting.metrics.quantile import quantile_loss, total_wql, wql
from seqlatent.forecasting.metrics.sample import crps, energy_score, variogram_score
from seqlatent.forecasting.metrics.table import horizon_scores, scores

__all__ = [
    "ColumnNames",
    "coverage",
    "crps",
    "energy_score",
    "horizon_scores",
    "interval_score",
    "log_score",
    "mae",
    "mase",
    "msis",
    "quantile_loss",
    "rmse",
    "rmsse",
    "scores",
    "total_wql",
    "variogram_score",
    "wql",
]
