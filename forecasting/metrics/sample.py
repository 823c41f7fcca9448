"""Metrics of sample paths: of the margins (CRPS) and of whole paths (energy, variogram)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from seqlatent.forecasting.arguments import real
from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.metrics.cells import Cells, Loss, aliases
from seqlatent.forecasting.metrics.names import ColumnNames, columns_of
from seqlatent.forecasting.metrics.quantile import quantile_levels, weighted
from seqlatent.forecasting.metrics.sample_paths import Paths

__all__ = ["crps", "energy_score", "variogram_score"]


def crps(
    df: Any,
    models: Sequence[str],
    *,
    fair: bool = False,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Mean continuous ranked probability score of each series, in the unit of the data.

    .. math:: \mathrm{CRPS}(F, y) = \int (F(x) - 1\{y \le x\})^2 dx
        = E|X - y| - \tfrac{1}{2} E|X - X'|

    Where the frame has sample paths (a column ``sample_id``), :math:`F` is their empirical
    distribution. Otherwise it is twice the mean pinball loss over all columns ``Alias_ql{q}``: an
    approximation that is the better the more levels there are, which should be evenly spread, as
    .1, ..., .9 or .01, ..., .99. Tables also call other things CRPS; see :func:`total_wql`.

    Args:
        df: Frame with a row for each series, step and sample, or for each series and step; the
            truth beside the forecasts (repeated for each sample).
        models: Aliases.
        fair: Whether to score the distribution that the samples come from without bias, rather
            than their empirical one; it does not depend on the number of samples.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting and Raftery, 2007);
        Fair scores for ensemble forecasts (Ferro, 2014).
    """
    columns = columns_of(names)
    cells = Cells.of(df, columns, samples=True)
    if columns.sample not in cells.frame.columns:
        return cells.score(quantile_crps(cells, models), models)
    paths = Paths.of(df, columns, models)
    return paths.cells.score(paths.crps(fair=fair), models)


def energy_score(
    df: Any,
    models: Sequence[str],
    *,
    fair: bool = False,
    joint: bool = False,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Energy score of the sample paths of each series, the CRPS of whole paths.

    .. math:: \mathrm{ES} = E\|X - y\| - \tfrac{1}{2} E\|X - X'\|

    where :math:`X, X'` are paths over all steps and the norm is Euclidean. Steps whose truth is NaN
    are left out of the paths. It grows with the square root of the number of steps.

    Args:
        df: Frame with a row for each series, step and sample; the truth beside the forecasts.
        models: Columns of the paths.
        fair: Whether to score the distribution that the paths come from without bias.
        joint: Whether the targets of a series make one path together (in their units: scale them)
            rather than a path each.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting and Raftery, 2007),
        equation 22.
    """
    columns = columns_of(names)
    paths = Paths.of(df, columns, models, joint=joint)
    return paths.cells.frame_of(paths.energy(fair=fair), models)


def variogram_score(
    df: Any,
    models: Sequence[str],
    *,
    p: Any = 0.5,
    joint: bool = False,
    **names: Unpack[ColumnNames],
) -> Any:
    r"""Variogram score of order ``p`` of the sample paths of each series.

    .. math:: \mathrm{VS}_p = \sum_{s, t} \left( |y_s - y_t|^p - E|X_s - X_t|^p \right)^2

    It sees wrong dependence between steps, to which the energy score is nearly blind, but no shift
    common to all steps. Steps whose truth is NaN are left out; it grows with the square of the
    number of steps.

    Args:
        df: Frame with a row for each series, step and sample; the truth beside the forecasts.
        models: Columns of the paths.
        p: Order, positive.
        joint: Whether the targets of a series make one path together rather than a path each.
        **names: Columns that are not called as usual; see :class:`ColumnNames`.

    Returns:
        Frame of the kind that came in: a row for each series, a column for each model.

    References:
        Variogram-Based Proper Scoring Rules for Probabilistic Forecasts of Multivariate Quantities
        (Scheuerer and Hamill, 2015).
    """
    columns = columns_of(names)
    p = real("p", p, "an order", 1e-6)
    paths = Paths.of(df, columns, models, joint=joint)
    return paths.cells.frame_of(paths.variogram(p), models)


def quantile_crps(cells: Cells, models: Sequence[str]) -> Loss:
    """Twice the mean pinball loss over each model's own quantile columns."""
    found = []
    for model in aliases(models):
        levels = quantile_levels(cells.frame.columns, model)
        if not levels:
            raise ColumnError(
                f"df must have sample paths (a column {cells.columns.sample!r}) or columns "
                f"'{model}_ql0.1' and so on, found {cells.frame.columns}; sample, or forecast "
                "with quantiles=[...].",
                column=f"{model}_ql0.1",
            )
        found.append(weighted(cells, [model], levels).loss[:, 0])
    loss = np.column_stack(found)
    return Loss(loss, np.ones(len(loss)))
