"""Alignment, the rows of a frame put on the grid of a time index."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlatent.forecasting.errors import CovariateError, TimeError
from seqlatent.forecasting.errors.locate import Rows, shown
from seqlatent.forecasting.frames.timestamps import Times
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.forecasting.time.offsets import brief

__all__ = []

MOST_FILLED = 50  # steps per row, beyond which a grid is taken for a mistake


@dataclass(frozen=True)
class Alignment:
    """Rows by series and time, with gaps filled.

    Args:
        offsets: Rows of each series ``(N + 1,)``.
        t: Time of each row ``(R,)``.
        row: Position of each row in the table, -1 for rows that fill a gap ``(R,)``.
        time_index: The time index that times are read from.
        ends: Stamp of the last row of each series in ticks, where times do not say it ``(N,)``.
        unread: Rows that came second in an hour that comes twice.
    """

    offsets: np.ndarray
    t: np.ndarray
    row: np.ndarray
    time_index: TimeIndex
    ends: np.ndarray | None = None
    unread: int = 0

    def known(self, values: np.ndarray) -> np.ndarray:
        """Covariates, in gaps those of the next row, for hours and days that are left out."""
        place = np.where(self.row < 0, len(self.row), np.arange(len(self.row)))
        return values[self.row[np.minimum.accumulate(place[::-1])[::-1]]]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of a table's rows ``(R', F)`` as rows of the panel, NaN in gaps ``(R, F)``."""
        out = values[self.row]
        out[self.row < 0] = np.nan
        return out


def align(
    ids: np.ndarray,
    codes: np.ndarray,
    times: Times,
    rows: Rows,
    time_index: TimeIndex | None,
    freq: Any,
    covariates: bool,
) -> Alignment:
    """Puts the rows of a table on a grid.

    Args:
        ids: Identifiers ``(N,)``.
        codes: Series of each row of the table.
        times: Time stamps of the rows.
        rows: Names for errors.
        time_index: Time index of training; None to make one.
        freq: Frequency of a new time index; None to infer it.
        covariates: Whether covariates must be known at every step, so that no gap may be.
    """
    order, offsets = _order(codes, times.values, len(ids))
    rows = Rows(rows.column, ids, codes[order], rows.row[order], rows.frame)
    _once(rows, times, order)
    if time_index is None:
        freq = freq if times.freq is None else times.own_freq(freq)
        time_index = TimeIndex.of(times.take(order), offsets, freq, rows=rows)
        if times.date and not time_index.daily:
            raise rows.error(
                TimeError,
                0,
                "expected datetimes, since dates have no time of day for "
                f"freq={brief(time_index.freq)}; found the date {shown(times.values[order[0]])}. "
                "Make datetimes of them, or give a freq= of whole days.",
            )
    else:
        times.agree(time_index, rows)
        time_index = time_index.refine(times.take(order[offsets[:-1]]), offsets, rows)
    t = _located(time_index, times, order, offsets, rows)
    if time_index.kind == "irregular":
        return Alignment(offsets, t, order, time_index)
    ends, unread = None, 0
    if time_index.wall:
        ends = time_index.ticks(times.values[order[offsets[1:] - 1]])
        kept = _ahead(t, offsets)
        unread = int((~kept).sum())
        counts = np.add.reduceat(kept, offsets[:-1])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        t, order, rows = (
            t[kept],
            order[kept],
            rows.select(np.arange(len(ids)), np.flatnonzero(kept)),
        )
    since = np.rint(t - np.repeat(t[offsets[:-1]], np.diff(offsets))).astype(np.int64)
    counts = since[offsets[1:] - 1] + 1
    if counts.sum() == len(t):
        return Alignment(offsets, t, order, time_index, ends, unread)
    if covariates:
        _no_gap(t, since, time_index, rows)
    _plausible(counts, offsets, time_index, rows)
    filled = np.concatenate([[0], np.cumsum(counts)])
    row = np.full(int(filled[-1]), -1, np.int64)
    row[np.repeat(filled[:-1], np.diff(offsets)) + since] = order
    t = np.arange(filled[-1]) - np.repeat(filled[:-1] - t[offsets[:-1]], counts)
    return Alignment(filled, t, row, time_index, ends, unread)


def _ahead(t: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rows that are later than all before them: of an hour that comes twice, the first ones."""
    kept = np.ones(len(t), bool)
    back = np.flatnonzero(np.diff(t) <= 0) + 1
    back = back[~np.isin(back, offsets)]
    for i in np.unique(np.searchsorted(offsets, back, side="right") - 1):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        kept[part][1:] = t[part][1:] > np.maximum.accumulate(t[part])[:-1]
    return kept


def _order(codes: np.ndarray, stamps: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows by series and time, and the rows of each series."""
    stamps = stamps.view(np.int64) if stamps.dtype.kind == "M" else stamps
    later = (np.diff(codes) > 0) | ((np.diff(codes) == 0) & (np.diff(stamps) >= 0))
    order = np.arange(len(codes)) if later.all() else np.lexsort((stamps, codes))
    return order, np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=n))])


def _once(rows: Rows, times: Times, order: np.ndarray) -> None:
    stamps = times.values[order]
    again = np.concatenate([[False], (np.diff(rows.owner) == 0) & (stamps[1:] == stamps[:-1])])
    if again.any():
        i = rows.first(again)
        advice = "Drop or add up the rows that repeat it: df.drop_duplicates, df.groupby."
        if times.tz is None and _clocks_go_back(stamps, again, rows.owner, i):
            advice = (
                "If the clocks went back then, say in which time zone, series by series: "
                f"df[{rows.column!r}].dt.tz_localize('Europe/London', ambiguous='infer'); else "
                "drop the row."
            )
        raise rows.error(
            TimeError,
            i,
            f"expected each time stamp once per series, found {shown(stamps[i], times.tz)} again. "
            f"{advice}",
        )


def _clocks_go_back(stamps: np.ndarray, again: np.ndarray, owner: np.ndarray, i: int) -> bool:
    """Whether all stamps that a series repeats on a day lie in one hour of the night."""
    if stamps.dtype.kind != "M":
        return False
    day = stamps.astype("datetime64[D]")
    series = owner == owner[i]
    gaps = np.diff(np.unique(stamps[series]))
    repeated = np.sort(stamps[again & series & (day == day[i])])
    hour = np.timedelta64(1, "h")
    return bool(
        len(gaps)
        and np.median(gaps) <= hour
        and repeated[-1] - repeated[0] < hour
        and repeated[-1] - day[i] < 4 * hour
        and len(np.unique(repeated)) == len(repeated)
    )


def _located(
    time_index: TimeIndex, times: Times, order: np.ndarray, offsets: np.ndarray, rows: Rows
) -> np.ndarray:
    """Times of the rows, one step or more apart within each series."""
    t, there = time_index.locate(times.take(order))
    if not there.all():
        i = rows.first(~there)
        raise rows.error(TimeError, i, time_index.off_grid(times.values[order[i]]))
    if time_index.kind == "irregular":
        return t
    begins = np.repeat(offsets[:-1], np.diff(offsets))
    since = t - t[begins]
    apart = since != np.rint(since)
    if apart.any():
        i = rows.first(apart)
        stamps = times.values[order]
        raise rows.error(
            TimeError,
            i,
            f"expected a whole number of steps of freq={brief(time_index.freq)} after the first "
            f"row of the series, {shown(stamps[begins[i]], times.tz)}; found "
            f"{shown(stamps[i], times.tz)}. Correct it, or give the freq= that the stamps have "
            "('irregular' for none).",
        )
    again = np.concatenate([[False], (np.diff(rows.owner) == 0) & (np.diff(t) == 0)])
    if again.any() and not time_index.wall:
        i = rows.first(again)
        raise rows.error(
            TimeError,
            i,
            f"expected one row per step of freq={brief(time_index.freq)}, found a second one at "
            f"{shown(times.values[order[i]], times.tz)}. Drop one.",
        )
    return t


def _no_gap(t: np.ndarray, since: np.ndarray, time_index: TimeIndex, rows: Rows) -> None:
    """Makes sure that all gaps are hours and days that are left out."""
    steps = np.diff(since)
    gap = np.append((np.diff(rows.owner) == 0) & (steps > 1), False)
    for i in np.flatnonzero(gap) if time_index.folded else ():
        gap[i] = time_index.open(t[i] + np.arange(1, steps[i])).any()
    if not gap.any():
        return
    i = rows.first(gap)
    raise rows.error(
        CovariateError,
        i,
        "expected covariates known ahead at every step, found no row at "
        f"{shown(time_index.stamps(t[i] + 1)[()], time_index.tz)}, after this one. Add the row; "
        "its target may be missing.",
    )


def _plausible(counts: np.ndarray, offsets: np.ndarray, time_index: TimeIndex, rows: Rows) -> None:
    if counts.sum() > max(MOST_FILLED * offsets[-1], 1_000_000):
        lengths = np.diff(offsets)
        i = int(np.argmax(counts / lengths))
        raise rows.error(
            TimeError,
            int(offsets[i]),
            f"expected most steps of freq={brief(time_index.freq)} to have a row, found "
            f"{lengths[i]} rows in {counts[i]} steps. Give the freq= that the stamps have "
            "('irregular' for none).",
        )
