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

__all__ = ["VALUE", "long", "pair", "places"]

VALUE = "y"  # the truth of a joint model of several targets, as backtests name it


def pair(
    truth: Any, frame: nw.DataFrame[Any], columns: Columns, single: Columns
) -> nw.DataFrame[Any]:
    """Puts the truth beside the forecasts."""
    cell = places(frame, columns)
    keys = [name for name in (columns.cutoff, columns.sample) if name in frame.columns]
    (place,) = codes([values(frame, name, "forecasts") for name in cell])
    (row,) = codes([place, *(values(frame, name, "forecasts") for name in keys)])
    again = np.flatnonzero(pd.Series(row).duplicated().to_numpy())
    if len(again):
        raise TimeError(
            f"every cell must be forecast once, found a second row for "
            f"{named(frame, [*cell, *keys], again[0])}; drop repeated rows.",
            column=columns.time,
            id=frame[columns.id][int(again[0])],
            row=int(again[0]),
        )
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
    again = np.flatnonzero(pd.Series(right).duplicated().to_numpy())
    if len(again):
        raise TimeError(
            f"every truth must be there once, found a second row for "
            f"{named(known, cell, again[0])}; drop repeated rows.",
            column=columns.time,
            id=known[columns.id][int(again[0])],
            row=int(again[0]),
        )
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
