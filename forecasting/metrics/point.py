"""Metrics of point forecasts, plain and scaled by the errors of a naive forecast in the past."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from typing_extensions import Unpack

from seqlatent.forecasting.arguments import whole
from seqlatent.forecasting.errors import DataError
from seqlatent.forecasting.metrics.cells import (
    TARGET,
    Cells,
    Loss,
    aliases,
    codes,
    named,
    numbers,
    open_past,
    require,
    values,
)
from seqlatent.forecasting.metrics.names import ColumnNames, columns_of

__all__ = ["mae", "mase", "rmse", "rmsse"]


def mae(
    df: Any,
    models: Sequence[str],
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean absolute error of each series, :math:`\frac{1}{H} \sum_t |y_t - \hat y_t|`.

    The best forecast under it is the median, which is what the column of a model holds.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Columns of the forecasts.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.metrics import mae
        >>> df = pd.DataFrame({"unique_id": ["a", "a"], "y": [1.0, 2.0], "naive": [0.0, 4.0]})
        >>> mae(df, ["naive"])
          unique_id  naive
        0         a    1.5
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(absolute(cells, models), models)


def rmse(
    df: Any,
    models: Sequence[str],
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Root mean squared error of each series.

    .. math:: \sqrt{\frac{1}{H} \sum_t (y_t - \hat y_t)^2}

    The best forecast under it is the mean: ``models=["srnn-mean"]`` scores that column.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Columns of the forecasts.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(squared(cells, models), models)


def mase(
    df: Any,
    models: Sequence[str],
    seasonality: Any,
    train_df: Any,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean absolute scaled error of each series.

    .. math:: \frac{1}{H} \sum_t |y_t - \hat y_t| \Big/
        \frac{1}{T - m} \sum_{s=m+1}^T |y_s - y_{s-m}|

    The published number of a data set is the mean over all series and steps. A series whose
    denominator is zero (a constant one) or has no term (one that is too short) is NaN and left out
    of means, as in GluonTS, whose numbers most tables show. Terms with a missing value are left
    out; GluonTS leaves out the whole series then.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Columns of the forecasts.
        seasonality: Steps of a season :math:`m`.
        train_df: Past of the series: id, stamp, truth, in any order, a row for every step (NaN
            where nothing was observed). Only rows up to the cutoff, or before the first step
            forecast, are used.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Another look at measures of forecast accuracy (Hyndman and Koehler, 2006).
    """
    cells = Cells.of(df, columns_of(names))
    scale = naive_scale(cells, train_df, seasonality)
    return cells.score(scaled(absolute(cells, models), scale), models)


def rmsse(
    df: Any,
    models: Sequence[str],
    seasonality: Any,
    train_df: Any,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Root mean squared scaled error of each series.

    .. math:: \sqrt{\frac{1}{H} \sum_t (y_t - \hat y_t)^2 \Big/
        \frac{1}{T - m} \sum_{s=m+1}^T (y_s - y_{s-m})^2}

    The M5 competition took it with :math:`m = 1`, from the first sale on. Series that cannot be
    scaled are NaN, as in :func:`mase`.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Columns of the forecasts.
        seasonality: Steps of a season :math:`m`.
        train_df: Past of the series, as in :func:`mase`.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        M5 accuracy competition: Results, findings, and conclusions (Makridakis et al., 2022).
    """
    cells = Cells.of(df, columns_of(names))
    scale = naive_scale(cells, train_df, seasonality, power=2)
    return cells.score(scaled(squared(cells, models), scale), models)


def absolute(cells: Cells, models: Sequence[str]) -> Loss:
    """Absolute errors."""
    loss = np.abs(cells.truth[:, None] - cells.forecasts(aliases(models)))
    return Loss(loss, np.ones(len(loss)))


def squared(cells: Cells, models: Sequence[str]) -> Loss:
    """Squared errors, of which a score is the root of the mean."""
    loss, weight, *_ = absolute(cells, models)
    return Loss(loss**2, weight, root=True)


def scaled(loss: Loss, scale: np.ndarray) -> Loss:
    """Divides each cell by the scale of its series."""
    return loss._replace(loss=loss.loss / scale[:, None], by_series=loss.root)


def naive_scale(cells: Cells, train_df: Any, seasonality: Any, power: int = 1) -> np.ndarray:
    """Mean power of the seasonal naive forecast's errors in the past of each row's series ``(R,)``.

    NaN where it is zero or has no term.
    """
    seasonality = whole("seasonality", seasonality, "a number of steps, 1 for none,")
    columns = cells.columns
    train = open_past(train_df, columns, "train_df")
    names = [key for key in cells.keys if key in (columns.id, TARGET)]
    require(train, [*names, columns.time, columns.targets[0]], "train_df")
    truth = numbers(train, columns.targets[0], "train_df")
    past, series = codes(
        [values(train, name, "train_df") for name in names],
        [values(cells.frame, name)[cells.first] for name in names],
    )
    windows = columns.cutoff in cells.keys
    if windows:
        until = values(cells.frame, columns.cutoff)[cells.first]
    elif columns.time in cells.frame.columns:
        until = _first_times(cells)
    else:
        until = None
    stamps = values(train, columns.time, "train_df")
    time, *last = _ranks(stamps) if until is None else _ranks(stamps, until)
    # One ascending number for series and time finds where the past of each group begins and ends.
    span = 1 + max(int(part.max(initial=0)) for part in (time, *last))
    order = np.argsort(past * span + time, kind="stable")
    key = (past * span + time)[order]
    begin = np.searchsorted(key, series * span)
    if last:
        end = np.searchsorted(key, series * span + last[0], "right" if windows else "left")
    else:
        end = np.searchsorted(key, (series + 1) * span)
    unknown = np.flatnonzero(~np.isin(series, past))
    if len(unknown):
        row = int(cells.first[unknown[0]])
        raise DataError(
            f"train_df must hold the past of every series, found no row for "
            f"{named(cells.frame, names, row)}; add its rows.",
            column=columns.id,
            id=cells.frame[columns.id][row],
            row=row,
        )
    truth = truth[order]
    error = np.full(len(truth) + 1, np.nan)
    error[seasonality:-1] = np.abs(truth[seasonality:] - truth[:-seasonality]) ** power
    total = _sums(np.nan_to_num(error), np.minimum(begin + seasonality, end), end)
    terms = _sums((~np.isnan(error)).astype(float), np.minimum(begin + seasonality, end), end)
    scale = np.full(len(total), np.nan)
    np.divide(total, terms, out=scale, where=(terms > 0) & (total > 0))
    return scale[cells.group]


def _sums(x: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Sums of ``x[begin:end]``, each on its own, so that no series drowns another."""
    both = np.column_stack([begin, end]).ravel()
    return np.where(end > begin, np.add.reduceat(x, both)[::2], 0.0)


def _first_times(cells: Cells) -> np.ndarray:
    """First stamp of each group."""
    order = np.lexsort((_ranks(cells.times)[0], cells.group))
    return cells.times[order[np.searchsorted(cells.group[order], np.arange(len(cells.first)))]]


def _ranks(*stamps: np.ndarray) -> list[np.ndarray]:
    """Ranks of stamps among all of them."""
    codes(*([part] for part in stamps))  # refuses datetimes beside integers
    ranks, _ = pd.factorize(np.concatenate(stamps), sort=True)
    return np.split(ranks, np.cumsum([len(part) for part in stamps])[:-1])
