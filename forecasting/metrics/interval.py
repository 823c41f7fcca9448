"""Metrics of central intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from seqlatent.forecasting.arguments import one_level
from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.metrics.cells import Cells, Loss, aliases, interval_columns
from seqlatent.forecasting.metrics.names import ColumnNames, columns_of
from seqlatent.forecasting.metrics.point import naive_scale, scaled

__all__ = ["coverage", "interval_score", "msis"]


def interval_score(
    df: Any,
    models: Sequence[str],
    level: Any,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean interval score of each series' central intervals, :math:`\alpha = 1 - level / 100`.

    .. math:: u_t - l_t + \tfrac{2}{\alpha} (l_t - y_t)_+ + \tfrac{2}{\alpha} (y_t - u_t)_+

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Aliases; the intervals are ``Alias-lo-80`` and ``Alias-hi-80``.
        level: Nominal coverage in percent.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting and Raftery, 2007),
        equation 43.
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(width(cells, models, level), models)


def msis(
    df: Any,
    models: Sequence[str],
    level: Any,
    seasonality: Any,
    train_df: Any,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean scaled interval score of each series, as in the M4 competition (there ``level=95``).

    It is :func:`interval_score` over the in-sample mean absolute error of the seasonal naive
    forecast, the denominator of :func:`~seqlatent.forecasting.metrics.mase`; series that cannot be
    scaled are NaN as there.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Aliases; the intervals are ``Alias-lo-95`` and ``Alias-hi-95``.
        level: Nominal coverage in percent.
        seasonality: Steps of a season.
        train_df: Past of the series: id, stamp, truth.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        The M4 Competition: 100,000 time series and 61 forecasting methods (Makridakis, Spiliotis
        and Assimakopoulos, 2020).
    """
    cells = Cells.of(df, columns_of(names))
    scale = naive_scale(cells, train_df, seasonality)
    return cells.score(scaled(width(cells, models, level), scale), models)


def coverage(
    df: Any,
    models: Sequence[str],
    level: Any,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Share of each series' truths inside the central intervals, :math:`l_t \le y_t \le u_t`.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Aliases; the intervals are ``Alias-lo-80`` and ``Alias-hi-80``.
        level: Nominal coverage in percent.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model; shares
        between 0 and 1.
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(covered(cells, models, level), models)


def width(cells: Cells, models: Sequence[str], level: Any) -> Loss:
    """Interval scores."""
    y, lo, hi = _bounds(cells, models, level)
    alpha = 1 - level / 100
    outside = np.maximum(lo - y, 0) + np.maximum(y - hi, 0)
    return Loss(hi - lo + 2 / alpha * outside, np.ones(len(y)))


def covered(cells: Cells, models: Sequence[str], level: Any) -> Loss:
    """Whether the truth is inside, NaN where there is none."""
    y, lo, hi = _bounds(cells, models, level)
    return Loss(np.where(np.isnan(y), np.nan, (lo <= y) & (y <= hi)), np.ones(len(y)))


def _bounds(
    cells: Cells, models: Sequence[str], level: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth ``(R, 1)``, lower and upper ends ``(R, M)``."""
    level = one_level(level)
    names = []
    for model in aliases(models):
        lo, hi = interval_columns(cells.frame.columns, model, level)
        if lo is None:
            missing = f"{model}-lo-{level:g}"
            raise ColumnError(
                f"df must have the columns {missing!r} and '{model}-hi-{level:g}', found "
                f"{cells.frame.columns}; forecast with level=[{level:g}].",
                column=missing,
            )
        names.append((lo, hi))
    lower, upper = (list(side) for side in zip(*names, strict=True))
    return cells.truth[:, None], cells.forecasts(lower), cells.forecasts(upper)
