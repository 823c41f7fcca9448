"""Frames, long tables of many series read into a panel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import (
    ColumnError,
    CovariateError,
    DataError,
    TargetError,
)
from seqlatent.forecasting.errors.locate import Rows
from seqlatent.forecasting.frames.align import align
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.future import read_future
from seqlatent.forecasting.frames.names import check_inputs
from seqlatent.forecasting.frames.output_format import OutputFormat
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.frames.ranges import DOUBLE, out_of_range, range_of
from seqlatent.forecasting.frames.static import Statics, read_static
from seqlatent.forecasting.frames.table import Table
from seqlatent.forecasting.frames.wide import lengthen
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.forecasting.values import is_object, is_text

__all__ = ["OutputFormat", "Reading", "Statics", "read", "read_future"]


class Reading(NamedTuple):
    """What a frame holds.

    Attributes:
        panel: The series.
        output_format: How to give frames back.
        statics: Static features of training.
        names: Names of the covariates known ahead.
    """

    panel: Panel
    output_format: OutputFormat
    statics: Statics
    names: tuple[str, ...]


def read(
    frame: Any,
    columns: Columns | None = None,
    *,
    freq: Any = None,
    static: Any = None,
    time_index: TimeIndex | None = None,
    statics: Statics | None = None,
    names: Sequence[str] | None = None,
    known: Sequence[Any] = (),
) -> Reading:
    """Reads a frame of many series.

    Rows may come in any order; gaps between the rows of a series become missing values. With
    ``Columns(future=None)`` every column without another role is a covariate known ahead.

    Besides long frames, a pandas Series with time stamps as its index is one series, called by
    its name (or ``"y"``), and a pandas frame with such an index, and neither a column of
    identifiers nor one of time stamps, has one series in each column, from its first value on.

    Args:
        frame: Long frame of pandas or polars, one row per series and time stamp.
        columns: Names of the columns.
        freq: Frequency of the time stamps; None to infer it.
        static: Frame of static features, one row per series.
        time_index: Time index of training; None in training. That of the panel agrees with
            it, but may know more phases.
        statics: Static features of training; None in training.
        names: Covariates known ahead of training, of which none may be absent, while other
            columns are ignored; None in training.
        known: Identifiers of training, of which those of the frame may be some.

    Raises:
        ColumnError: If a column is missing, of a wrong type, or comes twice.
        TimeError: If time stamps repeat, are missing, mix zones, or are off the grid.
        TargetError: If targets are no finite numbers, or larger than 1e100 or, the largest of a
            series, smaller than 1e-100 in size.
        CovariateError: If covariates are missing in a row or, where there are gaps, rows are.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.frames.read import read
        >>> ds = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])
        >>> panel = read(pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1, 2, 4]})).panel
        >>> panel.y[:, 0], panel.time_index.freq
        (array([ 1.,  2., nan,  4.]), 'D')
    """
    columns = Columns() if columns is None else columns
    table = _open(frame, columns)
    ids, codes = table.factorised()
    table.agree(ids, codes, known)
    rows = table.rows(ids, codes)
    times = table.times(rows)
    future = _future_names(table, columns, names)
    y = _numbers(table, columns.targets, rows, TargetError)
    _in_range(y, columns.targets, rows)
    u = _numbers(table, future, rows, CovariateError)
    past = _numbers(table, columns.past, rows, CovariateError)
    _known(u, future, rows)
    freq = table.freq if freq is None else freq
    grid = align(ids, codes, times, rows, time_index, freq, bool(future))
    output_format = OutputFormat.of(table, times.tz)
    real, static_codes, statics = read_static(static, ids, columns, statics=statics)
    panel = Panel(
        ids=ids,
        offsets=grid.offsets,
        t=grid.t,
        y=grid.spread(y),
        future=grid.known(u),
        past=grid.spread(past),
        real=real,
        codes=static_codes,
        row=grid.row,
        time_index=grid.time_index,
        ends=grid.ends,
        unread=grid.unread,
        targets=columns.targets,
    )
    return Reading(panel, output_format, statics, future)


def _open(frame: Any, columns: Columns) -> Table:
    table = lengthen(frame, columns)
    if table is None:
        table = Table.open(frame, columns)
    table.require(
        [columns.id, columns.time, *columns.targets], lambda: _hint(frame, table, columns)
    )
    table.require([*(columns.future or ()), *columns.past])
    return table


def _hint(frame: Any, table: Table, columns: Columns) -> str:
    """What to do where a column is absent."""
    held = set(table.frame.columns)
    if columns.id not in held and {columns.time, *columns.targets} <= held:
        one = columns.targets[0]
        way = (
            f"df.assign({columns.id}='mine'), or pass df.set_index({columns.time!r})[{one!r}]"
            if table.pandas
            else f"df.with_columns(pl.lit('mine').alias({columns.id!r}))"
        )
        return (
            f" Name the series, if it is one: {way}; else say which column tells the series apart: "
            "Columns(id='item_id')."
        )
    if isinstance(frame, pd.DataFrame) and not _plain_index(frame):
        return " Make columns of the index: df.reset_index()."
    return " Name yours, for example Columns(id='item_id', time='timestamp', target='target')."


def _plain_index(frame: pd.DataFrame) -> bool:
    return all(name is None for name in frame.index.names) and frame.index.nlevels == 1


def _future_names(table: Table, columns: Columns, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the covariates known ahead."""
    if names is not None:
        for name in names:
            if name not in table.frame.columns:
                raise CovariateError(
                    f"df: expected the covariate {name!r} as in training, found no such column. "
                    "Add it.",
                    column=name,
                )
        return tuple(names)
    if columns.future is not None:
        return tuple(columns.future)
    taken = {columns.id, columns.time, *columns.targets, *columns.past}
    own = [name for name in (columns.sample, columns.cutoff) if name in table.frame.columns]
    found = tuple(name for name in table.frame.columns if name not in {*taken, *own})
    varying = [name for name in own if _varies(table.frame.get_column(name))]
    check_inputs(columns, found, varying, tested=columns.cutoff in own)
    for name in found:
        column = table.column(name)
        dtype = column.dtype
        objects = is_object(column) and not is_text(column)
        if not (dtype.is_numeric() or dtype == nw.Boolean or objects):
            raise ColumnError(
                f"df: column {name!r}: expected numbers, since every column without another role "
                f"is a covariate known ahead; found dtype {table.series(name).dtype}. "
                f"{_as_numbers(table, name)}; declare the covariates with Columns(future=[...], "
                f"past=[...]); give {name!r} in static_df if it does not change with time, or drop "
                "it.",
                column=name,
            )
    return found


def _varies(column: Any) -> bool:
    """Whether a column holds several values."""
    values = column.to_list()
    return any(repr(value) != repr(values[0]) for value in values)


def _numbers(table: Table, names: Sequence[str], rows: Rows, kind: type[DataError]) -> np.ndarray:
    """Columns as float64 ``(R, F)``."""
    values = []
    for name in names:
        advice = "Make numbers of them, for example with pd.to_numeric."
        if kind is CovariateError:
            advice = (
                f"{_as_numbers(table, name)}, or drop the column; what does not change with time "
                "belongs in static_df."
            )
        values.append(table.numbers(name, rows, kind, advice))
    return np.stack(values, -1) if values else np.zeros((len(table), 0))


def _as_numbers(table: Table, name: str) -> str:
    """How numbers are made of a covariate that holds none."""
    column = table.column(name)
    texts = column.dtype in (nw.String, nw.Categorical, nw.Enum)
    if is_object(column):
        texts = any(isinstance(value, str) for value in column.to_list())
    if not texts:
        return "Make numbers of them"
    make = (
        f"df = pd.get_dummies(df, columns=[{name!r}], drop_first=True)"
        if table.pandas
        else f"df = df.to_dummies({name!r}, drop_first=True)"
    )
    return f"Make numbers of them, or indicator columns of a category, {make}"


def _in_range(y: np.ndarray, names: Sequence[str], rows: Rows) -> None:
    for d, name in enumerate(names):
        wrong = out_of_range(y[:, d], rows.owner, len(rows.ids), DOUBLE)
        if wrong.any():
            i = rows.first(wrong)
            raise rows.error(TargetError, i, range_of(y[i, d], DOUBLE), name)


def _known(u: np.ndarray, names: Sequence[str], rows: Rows) -> None:
    for i, name in enumerate(names):
        missing = np.isnan(u[:, i])
        if missing.any():
            raise rows.error(
                CovariateError,
                rows.first(missing),
                "expected a value of a covariate known ahead, found a missing one. Fill it in, "
                f"declare it with Columns(past=[{name!r}]), or drop the column.",
                name,
            )
