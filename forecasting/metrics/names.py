"""What metrics take beside a frame and its models: names of columns, said once for all of them."""

from typing import Any, TypedDict

from seqlatent.forecasting.frames.columns import Columns
from seqlatent.spelling import meant

__all__ = ["ColumnNames"]


class ColumnNames(TypedDict, total=False):
    """Columns of a frame that are not called as usual.

    Attributes:
        id_col: Column of the series, usually ``unique_id``.
        time_col: Column of the stamps, ``ds``.
        target_col: Column of the truth, ``y``.
        cutoff_col: Column that tells the windows of a backtest apart, where there is one,
            ``cutoff``.
        sample_col: Column of the numbers of sample paths, where there is one, ``sample_id``.
    """

    id_col: str
    time_col: str
    target_col: str
    cutoff_col: str
    sample_col: str


def columns_of(names: ColumnNames) -> Columns:
    """Columns under the names given, and under the usual ones."""
    known = list(ColumnNames.__annotations__)
    for name in names:
        if name not in known:
            raise TypeError(
                f"expected arguments of the metric, or names of columns by {', '.join(known)}; "
                f"found {name!r}.{meant(name, known)}"
            )
    given: dict[str, Any] = {name.removesuffix("_col"): value for name, value in names.items()}
    return Columns(**given)
