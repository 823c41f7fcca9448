"""Wide, series that stand side by side or alone, with their time stamps as the index."""

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import ColumnError, DataError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.table import Table
from seqlatent.forecasting.time.frequency import Frequency

__all__ = ["lengthen"]

# Columns of long frames elsewhere: where one is found, a frame is long and needs other names.
LONG = {"unique_id", "item_id", "series_id", "id", "ds", "date", "datetime", "time", "timestamp"}


def lengthen(frame: Any, columns: Columns, name: str = "df") -> Table | None:
    """Opens a pandas Series, or a wide pandas frame, as a long table; None if it is neither."""
    target = columns.targets[0]
    if isinstance(frame, pd.Series):
        if not _is_time(frame.index):
            raise ColumnError(
                f"{name}: expected a Series with datetimes, periods or integers as its index, "
                f"found an index of {_named(frame.index)}. Give it such an index, or a long frame "
                f"with the columns {columns.id!r}, {columns.time!r} and {target!r}."
            )
        frame = frame.to_frame("y" if frame.name is None else frame.name)
    elif not isinstance(frame, pd.DataFrame) or not _is_wide(frame, columns):
        return None
    if len(columns.targets) > 1:
        raise ColumnError(
            f"{name}: expected a long frame with the targets {list(columns.targets)}, found series "
            "side by side. Make it long, one row per series and time stamp.",
            column=target,
        )
    if frame.empty:
        raise DataError(f"{name}: expected at least one row, found an empty frame.")
    if not frame.columns.is_unique:
        twice = str(frame.columns[frame.columns.duplicated()][0])
        raise ColumnError(
            f"{name}: expected each series once, found {twice!r} twice. Drop one.", column=twice
        )
    steps, series = len(frame), len(frame.columns)
    values = frame.isna().to_numpy(bool)
    begins = np.where(values.all(0), 0, values.argmin(0))  # the first value of each series
    keep = np.flatnonzero((np.arange(steps) >= begins[:, None]).reshape(-1))
    sides: list[pd.Series] = [frame.iloc[:, i] for i in range(series)]
    long = pd.DataFrame(
        {
            columns.id: frame.columns.repeat(steps),
            columns.time: np.tile(np.arange(steps), series),
            target: pd.concat(sides, ignore_index=True),
        }
    ).iloc[keep]
    row = long[columns.time].to_numpy()
    long[columns.time] = frame.index.take(row)
    return Table(
        nw.from_native(long.reset_index(drop=True), eager_only=True),
        columns,
        name,
        row=row,
        freq=_freq(frame.index),
    )


def _is_wide(frame: pd.DataFrame, columns: Columns) -> bool:
    names = {name for name in frame.columns if isinstance(name, str)}
    if {columns.id, columns.time} & names or not _is_time(frame.index):
        return False
    if names & set(columns.targets) and len(frame.columns) > 1:
        return False
    if isinstance(frame.index, pd.RangeIndex):
        known = {name.lower() for name in names} & LONG
        return not known and all(pd.api.types.is_numeric_dtype(t) for t in frame.dtypes)
    return True


def _is_time(index: pd.Index) -> bool:
    stamps = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)
    return stamps or pd.api.types.is_integer_dtype(index.dtype)


def _named(index: pd.Index) -> str:
    return f"{index.nlevels} levels" if index.nlevels > 1 else f"dtype {index.dtype}"


def _freq(index: pd.Index) -> str | None:
    """Alias of the frequency of an index, if it has one."""
    freq = index.freq if isinstance(index, pd.DatetimeIndex) else None
    try:
        return None if freq is None else Frequency.parse(freq).alias
    except TimeError:
        return None
