"""Metrics of quantiles."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from seqlatent.forecasting.arguments import one_quantile, quantiles_of
from seqlatent.forecasting.errors import ArgumentError, ColumnError
from seqlatent.forecasting.metrics.cells import Cells, Loss, aliases, quantile_column, ratio
from seqlatent.forecasting.metrics.names import ColumnNames, columns_of

__all__ = ["quantile_loss", "total_wql", "wql"]

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def quantile_loss(
    df: Any,
    models: dict[str, str],
    q: Any = 0.5,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean pinball loss of each series' ``q`` quantile.

    .. math:: \frac{1}{H} \sum_t \max\{q (y_t - \hat y_t), (q - 1)(y_t - \hat y_t)\}

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Column of the quantile of each model, as ``{"srnn": "srnn_ql0.1"}``.
        q: Level of the quantile, between 0 and 1.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Regression Quantiles (Koenker and Bassett, 1978).
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(pinball(cells, list(models.values()), q), list(models))


def wql(
    df: Any,
    models: Sequence[str],
    *,
    probabilities: Sequence[float | int] = DECILES,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Weighted quantile loss of each series, with the sums of that series alone.

    .. math:: \frac{1}{|Q|} \sum_{q \in Q} \frac{\sum_t 2 \rho_q(y_t - \hat y_t^q)}{\sum_t |y_t|}

    A series whose truth is zero throughout is NaN. The mean of these is not the published number:
    that one is :func:`total_wql`. ``evaluate(..., agg_fn="weighted_mean", weights="auto")``
    turns these rows into it where no truth is negative or missing.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Aliases; the quantiles are read from ``Alias_ql0.1`` or else from the end of an
            interval (``Alias-lo-80``), the median from ``Alias_ql0.5`` or else from ``Alias``.
        probabilities: Levels :math:`Q` of the quantiles.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        GluonTS: Probabilistic Time Series Models in Python (Alexandrov et al., 2019).
    """
    cells = Cells.of(df, columns_of(names))
    return cells.score(weighted(cells, models, probabilities), models)


def total_wql(
    df: Any,
    models: Sequence[str],
    *,
    probabilities: Sequence[float | int] = DECILES,
    **names: Unpack[ColumnNames],
) -> dict[str, float]:
    r"""Weighted quantile loss of all series together: the number that tables publish.

    .. math:: \frac{1}{|Q|} \sum_{q \in Q}
        \frac{\sum_{i,t} 2 \rho_q(y_{it} - \hat y_{it}^q)}{\sum_{i,t} |y_{it}|}

    A point forecast scores like one whose quantiles all equal it.

    Args:
        df: Frame with a row for each series and step: truth and forecasts side by side.
        models: Aliases, whose quantiles are found as in :func:`wql`.
        probabilities: Levels :math:`Q` of the quantiles.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Score of each model.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.metrics import total_wql
        >>> df = pd.DataFrame({"unique_id": ["a", "b"], "y": [1.0, 3.0], "naive_ql0.5": [2.0, 3.0]})
        >>> total_wql(df, ["naive"], probabilities=[0.5])
        {'naive': 0.25}
    """
    cells = Cells.of(df, columns_of(names))
    score = ratio(weighted(cells, models, probabilities), np.zeros(len(cells.group), int), 1)[0]
    return dict(zip(models, score.tolist(), strict=True))


def pinball(cells: Cells, names: Sequence[str], q: Any) -> Loss:
    """Pinball losses of columns that hold a quantile."""
    q = one_quantile(q)
    error = cells.truth[:, None] - cells.forecasts(names)
    return Loss(np.maximum(q * error, (q - 1) * error), np.ones(len(error)))


def weighted(cells: Cells, models: Sequence[str], probabilities: Sequence[float | int]) -> Loss:
    """Twice the mean of the pinball losses over the levels; each cell weighs its size."""
    total = np.zeros((len(cells.group), len(aliases(models))))
    probabilities = quantiles_of(probabilities)
    if not probabilities:
        raise ArgumentError("probabilities must hold at least one level, found none.")
    for q in probabilities:
        names = [_found(cells, model, q) for model in models]
        total += 2 * pinball(cells, names, q).loss / len(probabilities)
    return Loss(total, np.abs(cells.truth))


def quantile_levels(names: Sequence[str], model: str) -> list[float]:
    """Levels of a model's columns ``Alias_ql{q}``, ascending."""
    start = f"{model}_ql"
    found = {name[len(start) :] for name in names if name.startswith(start)}
    return sorted({float(q) for q in found if re.fullmatch(r"\d*\.?\d+(?:e-?\d+)?", q)})


def _found(cells: Cells, model: str, q: float | int) -> str:
    """Column of a quantile, which must be there."""
    name = quantile_column(cells.frame.columns, model, q)
    if name is None:
        missing = f"{model}_ql{q:g}"
        raise ColumnError(
            f"df must have the {q:g} quantile of {model!r} in a column {missing!r}, found "
            f"{cells.frame.columns}; forecast with quantiles=[{q:g}].",
            column=missing,
        )
    return name
