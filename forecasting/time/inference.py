"""Cadence, the frequency that the time stamps of many series have in common."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.errors.locate import Rows, plain
from seqlatent.forecasting.time.frequency import (
    CHOICES,
    DAY,
    MONTHS,
    WEEKDAYS,
    Frequency,
    fixed,
    plain_freq,
)
from seqlatent.forecasting.time.offsets import brief, written
from seqlatent.forecasting.time.sessions import session_alias
from seqlatent.forecasting.values import told

__all__ = []


class _Uneven(Exception):
    """The id of a series whose gaps no step divides, and what to say of it."""


class Gaps(NamedTuple):
    """Gaps between neighbouring rows of the series that have two rows or more.

    Attributes:
        series: Which series these are ``(M,)``.
        starts: Where the gaps of each begin in ``size`` ``(M,)``.
        size: All gaps.
    """

    series: np.ndarray
    starts: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, offsets: np.ndarray) -> "Gaps":
        """Gaps of ascending stamps ``(R,)``."""
        counts = np.diff(offsets) - 1
        inner = np.ones(max(len(x) - 1, 0), bool)
        inner[offsets[1:-1] - 1] = False
        series = np.flatnonzero(counts > 0)
        return cls(series, (np.cumsum(counts) - counts)[series], np.diff(x)[inner])

    def step(self, offsets: np.ndarray, rows: Rows, unit: str) -> int:
        """The step that all series have in common, of which every gap is a multiple."""
        least = np.minimum.reduceat(self.size, self.starts)
        odd = np.flatnonzero(least != np.gcd.reduceat(self.size, self.starts))
        if len(odd):
            raise _Uneven(
                rows.ids[self.series[odd[0]]],
                "expected gaps of a whole number of steps in this series, found gaps that are no "
                f"multiples of its smallest one, {_length(least[odd[0]], unit)}. Give freq=, one "
                f"of {CHOICES}; or number the rows with integers, freq= saying what a step is; or "
                "make periods of the stamps, such as .dt.to_period('M').",
            )
        other = np.flatnonzero(least != least[0])
        if len(other):
            one = plain(rows.ids[self.series[0]])
            raise rows.error(
                TimeError,
                int(offsets[self.series[other[0]]]),
                f"expected one frequency for all series, found a step of "
                f"{_length(least[other[0]], unit)} here and of {_length(least[0], unit)} in id "
                f"{one!r}. Give freq= of the finer one if the missing rows "
                "are gaps; else forecast the series in two panels.",
            )
        return int(least[0])


def integer_step(freq: Any, stamps: np.ndarray, offsets: np.ndarray) -> int:
    """Step of integer stamps: ``freq`` or, where it is no number, the divisor that all gaps share.

    An alias such as ``"h"`` says what a step means, not how far apart integers are.
    """
    freq = plain_freq(freq)
    if isinstance(freq, str):
        Frequency.parse(freq)
        freq = None
    if freq is None:
        size = Gaps.of(stamps, offsets).size
        return int(np.gcd.reduce(size)) if len(size) else 1
    if isinstance(freq, bool) or not isinstance(freq, int | np.integer) or freq < 1:
        raise TimeError(
            f"freq: expected a whole number of at least 1 for integer stamps, found "
            f"{told(freq)}. Give "
            "freq=1, or 'irregular', or make datetimes of the stamps."
        )
    return int(freq)


def median_gap(x: np.ndarray, offsets: np.ndarray, rows: Rows) -> float:
    """Median gap between neighbouring rows."""
    size = Gaps.of(x, offsets).size
    if not len(size):
        raise rows.error(
            TimeError, 0, "expected a series of two rows or more, to learn the usual gap from."
        )
    return float(np.median(size))


def datetime_alias(
    instants: np.ndarray, local: np.ndarray, day: int, offsets: np.ndarray, rows: Rows
) -> str:
    """Infers a pandas alias that all series with three rows or more agree on.

    Gaps are allowed as long as each of these series has two rows that are one step apart.

    Args:
        instants: Ticks since the epoch, UTC, ascending within each series ``(R,)``.
        local: The same on the local calendar ``(R,)``.
        day: Ticks of a day.
        offsets: Rows of each series ``(N + 1,)``.
        rows: Names for errors.
    """
    try:
        return _common(instants, local, day, offsets, rows)
    except _Uneven as error:
        odd, text = int(np.flatnonzero(rows.ids == error.args[0])[0]), error.args[1]
        names = _names(instants, local, day, offsets, rows)
        raise _uneven(odd, text, names, offsets, rows) from None


def _names(
    instants: np.ndarray, local: np.ndarray, day: int, offsets: np.ndarray, rows: Rows
) -> dict[int, str]:
    """Aliases of the first series that each alone have one."""
    found = {}
    for i in np.flatnonzero(np.diff(offsets) >= 3)[:100]:
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        alone = rows.select(np.array([i]), np.arange(part.start, part.stop))
        ends = np.array([0, part.stop - part.start])
        try:
            found[int(i)] = _common(instants[part], local[part], day, ends, alone)
        except (_Uneven, TimeError):
            continue
    return found


def _uneven(odd: int, text: str, names: dict[int, str], offsets: np.ndarray, rows: Rows) -> Any:
    """The error about a series of uneven gaps: its own frequency may just be another one."""
    others = {i: name for i, name in names.items() if name != names.get(odd)}
    if odd in names and others:
        i, name = next(iter(others.items()))
        text = (
            f"expected one frequency for all series, found {brief(names[odd])} here and "
            f"{brief(name)} in id {plain(rows.ids[i])!r}. Forecast the series in two panels, or "
            "bring them to one frequency, for example with df.resample."
        )
    return rows.error(TimeError, int(offsets[odd]), text)


def _common(
    instants: np.ndarray, local: np.ndarray, day: int, offsets: np.ndarray, rows: Rows
) -> str:
    lengths = np.diff(offsets)
    if lengths.max() < 2:
        raise rows.error(
            TimeError,
            0,
            "expected a series of two rows or more, to infer the frequency from; found series of "
            f"one row only. Give freq=, one of {CHOICES}.",
        )
    series = np.flatnonzero(lengths >= min(3, lengths.max()))
    index = np.flatnonzero(np.isin(rows.owner, series))
    rows = rows.select(series, index)
    instants, local = instants[index], local[index]
    offsets = np.concatenate([[0], np.cumsum(lengths[series])])
    if (Gaps.of(local, offsets).size % day == 0).all():
        return _days(local // day, offsets, rows)
    step = _hours(instants, local, DAY // day, offsets, rows)
    return session_alias(local, step // (DAY // day), day, offsets) or fixed(step)


def _hours(
    instants: np.ndarray, local: np.ndarray, size: int, offsets: np.ndarray, rows: Rows
) -> int:
    """Nanoseconds of a step, in absolute time or, if it is longer so, on the wall clock."""
    gaps = Gaps.of((local - local.min()) * size, offsets)
    wall = 0
    if (gaps.size > 0).all() and (np.diff(local - instants) != 0).any():
        wall = int(np.gcd.reduce(gaps.size))
        wall = wall if (np.minimum.reduceat(gaps.size, gaps.starts) == wall).all() else 0
    try:
        step = Gaps.of((instants - instants.min()) * size, offsets).step(offsets, rows, "ns")
    except _Uneven:
        if not wall:
            raise
        return wall
    return max(step, wall)


def _days(day: np.ndarray, offsets: np.ndarray, rows: Rows) -> str:
    """Alias of steps of whole days, each a number of days since the epoch."""
    gaps = Gaps.of(day, offsets)
    if gaps.size.min() >= 28:
        alias = _months(day, offsets, rows)
        if alias is not None:
            return alias
    step = gaps.step(offsets, rows, "day")
    if step % 7 == 0:
        weekdays = np.unique((day + 3) % 7)
        name = f"W-{WEEKDAYS[weekdays[0]]}" if len(weekdays) == 1 else "W"
        return name if step == 7 else f"{step // 7}{name}"
    return f"{step}D" if step > 1 else _business(day, offsets, rows)


def _business(day: np.ndarray, offsets: np.ndarray, rows: Rows) -> str:
    """Days, or business days if no row lies on a weekend although series go on after one."""
    weekend = np.logical_or.reduceat((day + 3) % 7 >= 5, offsets[:-1])
    week = (day + 3) // 7
    skips = ~weekend & (week[offsets[1:] - 1] > week[offsets[:-1]])
    if skips.any() and weekend.any():
        one = plain(rows.ids[np.argmax(weekend)])
        raise rows.error(
            TimeError,
            int(offsets[np.argmax(skips)]),
            "expected one frequency for all series, found no weekends here but some in id "
            f"{one!r}. Give freq='D' if the missing days are gaps; else "
            "forecast the series in two panels.",
        )
    return "B" if skips.any() else "D"


def _months(day: np.ndarray, offsets: np.ndarray, rows: Rows) -> str | None:
    """Alias of starts, ends or one day of months, quarters or years; None if it is none."""
    date = day.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    first, last = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]") - 1
    bounds = (
        ("", "S", first),
        ("", "E", last),
        ("B", "S", np.busday_offset(first, 0, roll="forward")),
        ("B", "E", np.busday_offset(last, 0, roll="backward")),
    )
    for business, end, bound in bounds:
        if (date == bound).all():
            number = month.astype(np.int64)
            n = Gaps.of(number, offsets).step(offsets, rows, "month")
            return _month_alias(n, number, business, end)
    place = (date - first).astype(np.int64)
    if (place == np.minimum(place.max(), (last - first).astype(np.int64))).all():
        n = Gaps.of(month.astype(np.int64), offsets).step(offsets, rows, "month")
        return written(pd.DateOffset(months=n, day=int(place.max()) + 1))
    return None


def _month_alias(n: int, number: np.ndarray, business: str, end: str) -> str:
    letter, size = ("Y", 12) if n % 12 == 0 else ("Q", 3) if n == 3 else ("M", 1)
    phases = np.unique(number % size)
    if size == 1 or len(phases) > 1:  # series in different phases count months
        return f"{n if n > 1 else ''}{business}M{end}"
    home = phases[0] == (0 if end == "S" else size - 1)
    anchor = "" if home else f"-{MONTHS[phases[0]]}"
    return f"{n // size if n > size else ''}{business}{letter}{end}{anchor}"


def _length(size: Any, unit: str) -> str:
    if unit == "ns":
        return str(pd.Timedelta(int(size), "ns")).removeprefix("0 days ")
    return f"{size} {unit}" if size == 1 else f"{size} {unit}s"
