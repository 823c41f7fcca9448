"""Sessions, bars of equal length in the same hours of each open day, as a market has them."""

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seqlatent.forecasting.time.calendar import Calendar

__all__ = []

PREFIX = "Session"
FULL = 0.9  # share of the bars of a day that have rows, from which on the others are gaps
OPEN = 0.8  # share of the open days that have rows
WIDEST = 0.75  # share of a day, beyond which nights are gaps too


@dataclass(frozen=True)
class Session:
    """Steps that are the bars of a session, on the local calendar.

    Args:
        calendar: How stamps are counted.
        start: Ticks from midnight to the first bar.
        step: Ticks of a bar.
        bars: Bars of a day.
        weekmask: Which weekdays are open, such as ``"1111100"``.
        origin: Stamp number 0, local ticks.
    """

    calendar: Calendar
    start: int
    step: int
    bars: int
    weekmask: str
    origin: int
    parts: int = 1

    @classmethod
    def read(cls, alias: str, calendar: Calendar, origin: int) -> "Session":
        """The session that :func:`session_alias` wrote."""
        found = json.loads(alias.removeprefix(PREFIX))
        start, step = (
            int(pd.Timedelta(found[name]).as_unit("ns").value) // calendar.size
            for name in ("start", "step")
        )
        return cls(calendar, start, step, found["bars"], found["weekmask"], origin)

    def stamps(self, k: np.ndarray) -> np.ndarray:
        """Local ticks of the bars of some numbers."""
        day, bar = np.divmod(k + self._first % self.bars, self.bars)
        first = np.datetime64(self.origin // self.calendar.day, "D")
        days = np.busday_offset(first, day, weekmask=self.weekmask).astype(np.int64)
        return days * self.calendar.day + self.start + bar * self.step

    def count(self, local: np.ndarray) -> np.ndarray:
        """Number of the last bar at or before each of some local ticks."""
        return self._number(local) - self._first

    def holds(self, local: np.ndarray) -> np.ndarray:
        """Which local ticks are bars."""
        day, tick = np.divmod(local, self.calendar.day)
        bar, rest = np.divmod(tick - self.start, self.step)
        open_ = np.is_busday(day.astype("datetime64[D]"), weekmask=self.weekmask)
        return open_ & (rest == 0) & (bar >= 0) & (bar < self.bars)

    @property
    def _first(self) -> int:
        return int(self._number(np.array([self.origin]))[0])

    def _number(self, local: np.ndarray) -> np.ndarray:
        """Bars since the year 1."""
        day, tick = np.divmod(local, self.calendar.day)
        date = day.astype("datetime64[D]")
        before = np.busday_count(np.datetime64("0001-01-01"), date, weekmask=self.weekmask)
        bar = np.clip((tick - self.start) // self.step, -1, self.bars - 1)
        closed = ~np.is_busday(date, weekmask=self.weekmask)
        return before * self.bars + np.where(closed, -1, bar)


def session_alias(
    local: np.ndarray, step: int, calendar_day: int, offsets: np.ndarray
) -> str | None:
    """Alias of the session in which all rows lie; None where nights are just gaps.

    Args:
        local: Local ticks, ascending within each series ``(R,)``.
        step: Ticks of a bar.
        calendar_day: Ticks of a day.
        offsets: Rows of each series ``(N + 1,)``.
    """
    day, tick = np.divmod(local, calendar_day)
    start = int(tick.min())
    bars = (int(tick.max()) - start) // step + 1
    if bars < 2 or bars * step > WIDEST * calendar_day or ((tick - start) % step).any():
        return None
    weekmask = _weekmask(day, offsets)
    bar = (tick - start) // step
    for first, stop in itertools.pairwise(offsets):
        days = np.unique(day[first:stop])
        span = np.busday_count(
            days[0].astype("datetime64[D]"), (days[-1] + 1).astype("datetime64[D]"), weekmask
        )
        full = bars * len(days) - bar[first] - (bars - 1 - bar[stop - 1])
        if len(days) < 3 or len(days) < OPEN * span or stop - first < FULL * full:
            return None
    size = 86_400_000_000_000 // calendar_day
    texts = (str(pd.Timedelta(int(x) * size, "ns")) for x in (start, step))
    parameters = dict(zip(("start", "step"), texts, strict=True))
    return PREFIX + json.dumps({"bars": int(bars), **parameters, "weekmask": weekmask})


def _weekmask(day: np.ndarray, offsets: np.ndarray) -> str:
    """Weekdays on which there are rows, or that no series goes across."""
    open_ = np.zeros(7, bool)
    open_[(np.unique(day) + 3) % 7] = True
    passed = np.zeros(7, bool)
    for first, stop in itertools.pairwise(offsets):
        begin, end = int(day[first]), int(day[stop - 1])
        across = np.arange(begin, min(end, begin + 6) + 1)
        passed[(across + 3) % 7] = True
    return "".join("1" if yes else "0" for yes in open_ | ~passed)
