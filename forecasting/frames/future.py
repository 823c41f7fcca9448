"""Futures, the rows to forecast: their time stamps, and the covariates known ahead in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.arguments import horizon
from seqlatent.forecasting.errors import CovariateError, TimeError
from seqlatent.forecasting.errors.locate import Rows, plain, shown
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.panel import Future
from seqlatent.forecasting.frames.static import other_type
from seqlatent.forecasting.frames.table import Table
from seqlatent.forecasting.time.index import TimeIndex

__all__ = ["reaching"]


def read_future(
    frame: Any,
    ids: np.ndarray,
    time_index: TimeIndex,
    last: np.ndarray,
    h: Any,
    names: Sequence[str] = (),
    columns: Columns | None = None,
    ends: np.ndarray | None = None,
) -> Future:
    """Reads covariates known ahead, for the steps that follow the last row of each series.

    Every series needs the ``h`` rows that follow its last one, in any order. Rows before and
    beyond them, rows of other series and columns that training did not have are ignored. Without
    covariates the frame may be None; an irregular time index takes the times to forecast from the
    frame, as many for each series, and without a frame goes on in its usual steps.

    Args:
        frame: Pandas or polars frame with identifiers, time stamps and the covariates; or None.
        ids: Identifiers ``(N,)``.
        time_index: Time index of the series.
        last: Time of the last row of each series ``(N,)``.
        h: Number of steps; None for all that the frame of an irregular time index has.
        names: Names of the covariates, in the order of training.
        columns: Names of the columns.
        ends: Stamp of the last row of each series, in ticks, where its time does not say it.

    Raises:
        CovariateError: If a series, a step or a value is absent.
        ColumnError: If a column is absent.
        TimeError: If a stamp repeats, is off the grid or of another kind than in training.
    """
    columns = Columns() if columns is None else columns
    h = None if h is None else horizon(h)
    irregular = time_index.kind == "irregular"
    if frame is None or not (names or irregular):
        _unneeded(names, h)
        return ahead(time_index, last, h, ends)
    table = Table.open(frame, columns, "X_df")
    table.require([columns.id, columns.time, *names])
    given = _Given.read(table, ids, time_index)
    if irregular:
        order, t_future = _next_irregular(given, ids, last, h)
        future = Future(t_future, np.zeros((len(ids), 0, 0)))
    else:
        if h is None:
            raise ValueError(
                "h must be given: only an irregular time index takes its times from X_df."
            )
        future = ahead(time_index, last, h, ends)
        if time_index.wall:
            given = given.first_of_hours(table, time_index)
        order = _next(given, ids, time_index, last, future, h)
    u = [_values(table, name, given, order, time_index).reshape(future.t.shape) for name in names]
    return future._replace(u=np.stack(u, -1) if u else np.zeros((*future.t.shape, 0)))


def _unneeded(names: Sequence[str], h: int | None) -> None:
    """Makes sure that steps can be told without a frame."""
    if h is None:
        raise ValueError("h must be given where no X_df says which times to forecast.")
    if names:
        raise CovariateError(
            f"X_df: expected the covariates known ahead {list(names)} for the next {h} steps "
            "of each series, found no X_df. Give it, or train without them: "
            "Columns(future=[]).",
            column=names[0],
        )


@dataclass(frozen=True)
class _Given:
    """Rows of a frame of covariates known ahead.

    Args:
        rows: Names for errors.
        t: Time of each row ``(R,)``.
        series: Number of the series of each row, -1 for other series ``(R,)``.
        chosen: Rows to look at.
    """

    rows: Rows
    t: np.ndarray
    series: np.ndarray
    chosen: np.ndarray

    @classmethod
    def read(cls, table: Table, ids: np.ndarray, time_index: TimeIndex) -> "_Given":
        """Rows of a table, of which all series must have some."""
        found, codes = table.factorised()
        table.agree(found, codes, ids.tolist())
        series = _matched(found, codes, ids, table.columns)
        rows = table.rows(found, codes)
        t = _times(table, rows, time_index)
        return cls(rows, t, series, np.flatnonzero(series >= 0))

    def first_of_hours(self, table: Table, time_index: TimeIndex) -> "_Given":
        """Without the rows that come second in an hour that comes twice."""
        ticks = time_index.ticks(table.times(self.rows).values)
        first = time_index.ticks(time_index.stamps(self.t)) == ticks
        return replace(self, chosen=self.chosen[first[self.chosen]])


def _values(
    table: Table, name: str, given: _Given, order: np.ndarray, time_index: TimeIndex
) -> np.ndarray:
    """A covariate in the rows that are used, in their order."""
    inside = np.zeros(len(table), bool)
    inside[order] = True
    advice = "Make numbers of them, or train without this column."
    values = table.numbers(name, given.rows, CovariateError, advice, inside)
    missing = np.isnan(values) & inside
    if missing.any():
        j = given.rows.first(missing)
        raise given.rows.error(
            CovariateError,
            j,
            "expected a value known ahead, found a missing one at "
            f"{shown(time_index.stamps(given.t[j])[()], time_index.tz)}. Fill it in, or train "
            "without this column.",
            name,
        )
    return values[order]


def ahead(
    time_index: TimeIndex, last: np.ndarray, h: int, ends: np.ndarray | None = None
) -> Future:
    """The next ``h`` rows of each series, without covariates.

    Where hours or days are left out, or come twice, there are other numbers of steps than of rows.
    """
    if not time_index.folded:
        return Future(last[:, None] + np.arange(1, h + 1), np.zeros((len(last), h, 0)))
    ends = time_index.ticks(time_index.stamps(last)) if ends is None else ends
    stamps = time_index.following(ends, last, h)
    return reaching(last, time_index.locate(stamps)[0], stamps)


def reaching(last: np.ndarray, wanted: np.ndarray, stamps: np.ndarray) -> Future:
    """Steps after the last one, up to all that are wanted ``(N, R)``, which have these stamps.

    What repeats a step that was seen takes the first one that comes.
    """
    place = np.maximum(np.rint(wanted - last[:, None] - 1).astype(np.int64), 0)
    t = last[:, None] + np.arange(1, int(place.max()) + 2)
    return Future(t, np.zeros((*t.shape, 0)), place, stamps)


def _matched(found: np.ndarray, codes: np.ndarray, ids: np.ndarray, columns: Columns) -> np.ndarray:
    """Number of the series of each row, -1 for other series; all series must be there."""
    number = {id: i for i, id in enumerate(ids.tolist())}
    series = np.array([number.get(id, -1) for id in found.tolist()], np.int64)
    absent = np.ones(len(ids), bool)
    absent[series[series >= 0]] = False
    if absent.any():
        id = plain(ids[np.argmax(absent)])
        raise CovariateError(
            f"X_df: column {columns.id!r}: expected rows for every series, found none for id "
            f"{id!r}{other_type(id, found)}. Add the steps to forecast.",
            column=columns.id,
            id=id,
        )
    return series[codes]


def _times(table: Table, rows: Rows, time_index: TimeIndex) -> np.ndarray:
    times = table.times(rows)
    times.agree(time_index, rows)
    t, there = time_index.locate(times.take(np.arange(len(table))))
    if not there.all():
        i = rows.first(~there)
        raise rows.error(TimeError, i, time_index.off_grid(times.values[i]))
    return t


def _next(
    given: _Given,
    ids: np.ndarray,
    time_index: TimeIndex,
    last: np.ndarray,
    future: Future,
    h: int,
) -> np.ndarray:
    """Rows of the next steps ``(N * H,)``; where there is no row to be, the next one is taken."""
    t, series, chosen, count = given.t, given.series, given.chosen, future.horizon
    since = t[chosen] - last[series[chosen]]
    step = np.rint(since).astype(np.int64)
    inside = (step >= 1) & (step <= count) & (since == step)
    place = series[chosen][inside] * count + step[inside] - 1
    order = np.full(len(ids) * count, -1)
    order[place] = chosen[inside]
    counts = np.bincount(place, minlength=len(order))
    if (counts > 1).any():
        _repeated(chosen[inside], place, given.rows)
    absent = order < 0
    if future.place is not None:
        needed = np.arange(count) <= future.place[:, -1:]
        absent &= (time_index.open(future.t) & needed).reshape(-1)
    if absent.any():
        i, k = divmod(int(np.argmax(absent)), count)
        id = plain(ids[i])
        stamp = shown(time_index.stamps(future.t[i, k])[()], time_index.tz)
        column = given.rows.column
        raise CovariateError(
            f"X_df: column {column!r}, id {id!r}: expected rows for the {h} steps after "
            f"{shown(time_index.stamps(last[i])[()], time_index.tz)}, found none at {stamp}. Add "
            "it.",
            column=column,
            id=id,
        )
    return _nearest(order.reshape(len(ids), count)).reshape(-1)


def _nearest(order: np.ndarray) -> np.ndarray:
    """Rows ``(N, H)`` of which none is -1: the next one instead, or the last one."""
    count = order.shape[1]
    place = np.where(order < 0, count, np.arange(count))
    following = np.minimum.accumulate(place[:, ::-1], 1)[:, ::-1]
    last = np.where(order < 0, -1, np.arange(count)).max(1, keepdims=True)
    return np.take_along_axis(order, np.where(following < count, following, last), 1)


def _next_irregular(
    given: _Given, ids: np.ndarray, last: np.ndarray, h: int | None
) -> tuple[np.ndarray, np.ndarray]:
    rows, t, series, chosen = given.rows, given.t, given.series, given.chosen
    chosen = chosen[t[chosen] > last[series[chosen]]]
    chosen = chosen[np.lexsort((t[chosen], series[chosen]))]
    counts = np.bincount(series[chosen], minlength=len(ids))
    h = int(counts.max()) if h is None else h
    if (counts < max(h, 1)).any():
        i = int(np.argmax(counts < max(h, 1)))
        id = plain(ids[i])
        raise CovariateError(
            f"X_df: column {rows.column!r}, id {id!r}: expected {max(h, 1)} rows after the last "
            f"one of the series, found {counts[i]}. Add the times to forecast.",
            column=rows.column,
            id=id,
        )
    same = (np.diff(series[chosen]) == 0) & (np.diff(t[chosen]) == 0)
    if same.any():
        i = int(np.argmax(same))
        _repeated(chosen[[i, i + 1]], np.zeros(2, np.int64), rows)
    starts = np.cumsum(counts) - counts
    order = chosen[(starts[:, None] + np.arange(h)).reshape(-1)]
    return order, t[order].reshape(len(ids), h)


def _repeated(index: np.ndarray, place: np.ndarray, rows: Rows) -> None:
    twice = pd.Series(place).duplicated().to_numpy()
    mask = np.zeros(len(rows.row), bool)
    mask[index[twice]] = True
    i = rows.first(mask)
    raise rows.error(
        TimeError, i, "expected each time stamp once per series, found a second row. Drop one."
    )
