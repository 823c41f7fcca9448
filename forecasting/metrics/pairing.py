"""Pairing, truth beside forecasts."""

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import ColumnError, DataError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.metrics.cells import (
    TARGET,
    codes,
    named,
    numbers,
    open_frame,
    open_past,
    require,
    values,
)

__all__ = []

VALUE = "y"  # the truth of a joint model of several targets, as backtests name it


def pair(
    truth: Any, frame: nw.DataFrame[Any], columns: Columns, single: Columns
) -> nw.DataFrame[Any]:
    """Puts the truth beside the forecasts."""
    cell = places(frame, columns)
    keys = [name for name in (columns.cutoff, columns.sample) if name in frame.columns]
    (place,) = codes([values(frame, name, "forecasts") for name in cell])
    (row,) = codes([place, *(values(frame, name, "forecasts") for name in keys)])
    _once(row, frame, [*cell, *keys], columns, "every cell must be forecast once")
    name = single.targets[0]
    if truth is None:
        if name in frame.columns or any(c.endswith("-log_score") for c in frame.columns):
            return frame
        raise ColumnError(
            f"forecasts must hold the truth in a column {name!r} where truth is None, found "
            f"{frame.columns}; give truth=.",
            column=name,
        )
    known = open_past(truth, columns, "truth")
    if name not in known.columns or len(columns.targets) > 1:
        known = open_frame(long(truth, columns, "truth"))
    observed = numbers(known, name, "truth")
    left, right = codes(
        [values(frame, key, "forecasts") for key in cell],
        [values(known, key, "truth") for key in cell],
    )
    _once(right, known, cell, columns, "every truth must be there once")
    lost = np.flatnonzero(~np.isin(right, left) & ~np.isnan(observed))
    if len(lost):
        raise DataError(
            f"every observed truth needs a forecast, found none for "
            f"{named(known, cell, lost[0])}; forecast it, or leave the row out of truth.",
            column=columns.time,
            id=known[columns.id][int(lost[0])],
            row=int(lost[0]),
        )
    found = np.full(max(left.max(initial=0), right.max(initial=0)) + 1, np.nan)
    found[right] = observed
    frame = nw.maybe_reset_index(frame)
    return frame.with_columns(
        nw.new_series(name, found[left], nw.Float64, backend=frame.implementation)
    )


def _once(
    place: np.ndarray, frame: nw.DataFrame[Any], keys: list[str], columns: Columns, rule: str
) -> None:
    """Refuses a second row of a place."""
    again = np.flatnonzero(pd.Series(place).duplicated().to_numpy())
    if len(again):
        row = int(again[0])
        raise TimeError(
            f"{rule}, found a second row for {named(frame, keys, row)}; drop repeated rows.",
            column=columns.time,
            id=frame[columns.id][row],
            row=row,
        )


def long(frame: Any, columns: Columns, what: str = "train") -> Any:
    """Several targets below each other, as forecasts have them."""
    if frame is None or len(columns.targets) == 1:
        return frame
    wide = open_frame(frame, what)
    if {TARGET, VALUE} <= set(wide.columns) and not wide[TARGET].dtype.is_numeric():
        return frame
    require(wide, [columns.id, columns.time, *columns.targets], what)
    # no name that a column has may be that of the new ones, until the old ones are gone
    free = "_" * (1 + max(len(name) for name in wide.columns))
    melted = wide.unpivot(
        on=list(columns.targets),
        index=[columns.id, columns.time],
        variable_name=f"{free}{TARGET}",
        value_name=f"{free}{VALUE}",
    )
    return melted.rename({f"{free}{TARGET}": TARGET, f"{free}{VALUE}": VALUE}).to_native()


def places(frame: nw.DataFrame[Any], columns: Columns) -> list[str]:
    """Columns that make a cell of the truth."""
    several = len(columns.targets) > 1
    require(frame, [columns.id, columns.time, *([TARGET] if several else [])], "forecasts")
    return [columns.id, columns.time, *([TARGET] if several else [])]
