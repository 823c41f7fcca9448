"""Metrics of predictive densities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from seqlatent.forecasting.errors import DataError
from seqlatent.forecasting.metrics.cells import Cells, Loss, aliases, numbers
from seqlatent.forecasting.metrics.names import ColumnNames, columns_of

__all__ = ["log_score"]


def log_score(
    df: Any,
    models: Sequence[str],
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean logarithmic score of each series, :math:`-\frac{1}{H} \sum_t \log p(y_t)`.

    Lower is better, as with all metrics here but coverage; the columns ``Alias-log_score`` that it
    reads hold :math:`\log p(y_t)`, NaN where nothing was observed, and such rows are left out.

    Args:
        df: Frame with a row for each series and step, as a forecaster's ``score`` returns it.
        models: Aliases.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Rational Decisions (Good, 1952).
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(negative_log(cells, models), models)


def negative_log(cells: Cells, models: Sequence[str]) -> Loss:
    """Negative log densities, NaN where no model has one."""
    names = [f"{model}-log_score" for model in aliases(models)]
    found = np.column_stack([numbers(cells.frame, name) for name in names])
    rows, which = np.nonzero(np.isnan(found) & ~np.isnan(found).all(1, keepdims=True))
    if len(rows):
        raise DataError(
            f"models must be scored on the same rows, found no score in {names[which[0]]!r} for "
            f"{cells.name(rows[0])}, where another model has one; score all, or one at a time.",
            column=names[which[0]],
            id=cells.frame[cells.columns.id][int(rows[0])],
            row=int(rows[0]),
        )
    return Loss(-found, np.ones(len(found)))
