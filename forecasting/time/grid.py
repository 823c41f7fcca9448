"""Grids, the stamps that lie a whole number of steps apart."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.time.calendar import Calendar
from seqlatent.forecasting.time.frequency import Frequency
from seqlatent.forecasting.time.inference import Gaps
from seqlatent.forecasting.time.offsets import brief, on_offset, read_offset, written
from seqlatent.forecasting.time.sessions import PREFIX, Session

__all__ = []

# What pandas raises, from version to version, beyond the last stamp that it can hold.
_BEYOND = (pd.errors.OutOfBoundsDatetime, OverflowError, ValueError)


@dataclass(frozen=True)
class Even:
    """Steps of fixed length.

    Args:
        length: Of a step, in ticks.
        parts: Number of equal parts of a step that stamps may lie on.
        origin: Stamp number 0.
    """

    length: int
    parts: int
    origin: int

    def stamps(self, k: np.ndarray) -> np.ndarray:
        """Ticks of the parts of some numbers."""
        part = self.length // self.parts
        if (
            k.size
            and max(abs(self.origin + part * int(k.min())), abs(self.origin + part * int(k.max())))
            >= 2**63
        ):
            raise TimeError(
                f"expected stamps that 64 bits can hold, found one {int(np.abs(k).max())} parts of "
                "a step from the first. Use a shorter horizon, or stamps of a coarser unit."
            )
        return self.origin + k * part

    def count(self, local: np.ndarray) -> np.ndarray:
        """Number of the part nearest to each of some ticks."""
        part = self.length // self.parts
        return (local - self.origin + part // 2) // part


@dataclass(frozen=True)
class Grid:
    """Steps of a calendar such as ``"MS"`` or ``"B"``, made as far as they are asked for.

    Args:
        calendar: How stamps are counted.
        base: Alias of one part of a step.
        parts: Number of parts of a step.
        origin: Stamp number 0, local ticks.
    """

    calendar: Calendar
    base: str
    parts: int
    origin: int
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def stamps(self, k: np.ndarray) -> np.ndarray:
        """Local ticks of the parts of some numbers."""
        if not k.size:
            return k.astype(np.int64)
        low, high = int(k.min()), int(k.max())
        return np.where(
            k < 0,
            self._behind(-min(low, 0) + 1)[np.maximum(-k, 0)],
            self._ahead(max(high, 0) + 1)[np.maximum(k, 0)],
        )

    def count(self, local: np.ndarray) -> np.ndarray:
        """Number of the last part at or before each of some local ticks."""
        ahead = self._ahead(2)
        low, high = int(local.min()), int(local.max())
        while ahead[-1] < high:
            ahead = self._ahead(len(ahead) + 1, _needed(ahead, high))
        found = np.searchsorted(ahead, local, side="right") - 1
        if low >= ahead[0]:
            return found
        behind = self._behind(2)
        while behind[-1] > low:
            behind = self._behind(len(behind) + 1, _needed(behind, low))
        grid = behind[::-1]
        back = np.searchsorted(grid, local, side="right") - len(grid)
        return np.where(local < ahead[0], back, found)

    def _ahead(self, count: int, hoped: int = 64) -> np.ndarray:
        return self._run("ahead", count, hoped)

    def _behind(self, count: int, hoped: int = 64) -> np.ndarray:
        return self._run("behind", count, hoped)

    def _run(self, side: str, count: int, hoped: int) -> np.ndarray:
        """The first ``count`` stamps to one side, or more where there is room for them."""
        found = self.known.get(side)
        if found is not None and len(found) >= count:
            return found
        hoped = max(hoped, count, 0 if found is None else int(1.5 * len(found)))
        try:
            found = self._made(side, hoped)
        except _BEYOND:
            found = self._last(side, count)
        self.known[side] = found
        return found

    def _last(self, side: str, count: int) -> np.ndarray:
        try:
            return self._made(side, count)
        except _BEYOND as error:
            raise TimeError(
                f"expected stamps that datetimes can hold, found {count - 1} steps of "
                f"{brief(self.base)} {side} of {self.calendar.index(np.array([self.origin]))[0]}. "
                "Use a shorter horizon."
            ) from error

    def _made(self, side: str, count: int) -> np.ndarray:
        end = self.calendar.index(np.array([self.origin]))[0]
        ends: dict[str, Any] = {"start": end} if side == "ahead" else {"end": end}
        unit: Any = self.calendar.tick
        index = pd.date_range(periods=count, freq=read_offset(self.base), unit=unit, **ends)
        ticks = self.calendar.ticks(index)
        return ticks if side == "ahead" else ticks[::-1]


def _needed(run: np.ndarray, stamp: int) -> int:
    """How many stamps are likely to lead up to one, given the first few."""
    mean = abs(int(run[-1]) - int(run[0])) / (len(run) - 1)
    return max(2 * len(run), int(1.05 * abs(stamp - int(run[0])) / mean) + 2)


def grid_of(frequency: Frequency, calendar: Calendar, divisions: int, origin: int) -> Any:
    """The grid of a frequency from an origin, in local ticks."""
    if frequency.base is None:
        return Even(frequency.length // calendar.size, divisions, origin)
    if frequency.base.startswith(PREFIX):
        return Session.read(frequency.base, calendar, origin)
    return Grid(calendar, frequency.base, frequency.n, origin)


def _session(frequency: Frequency, calendar: Calendar) -> Session | None:
    found = (frequency.base or "").startswith(PREFIX)
    return Session.read(frequency.alias, calendar, 0) if found else None


def anchored(alias: str, local: np.ndarray, calendar: Calendar) -> str:
    """A frequency of whole months that keeps to the day of the month that the stamps have.

    Months from the 31st on would otherwise stay at the 28th after February, as pandas' do.
    """
    offset = read_offset(alias)
    if type(offset) is not pd.DateOffset or not set(offset.kwds) <= {"months", "years"}:
        return alias
    index = calendar.index(local)
    day = int(np.asarray(index.day).max())
    if not (index.day == np.minimum(index.days_in_month, day)).all():
        return alias
    return written(pd.DateOffset(n=offset.n, **offset.kwds, day=day))


def on_the_wall(
    ticks: np.ndarray, offsets: np.ndarray, frequency: Frequency, calendar: Calendar
) -> bool:
    """Whether clocks change, and hours or minutes are counted on the local calendar.

    They are where a change is a whole number of steps; of longer steps, such as six hours, the
    stamps say whether they keep to the wall clock.
    """
    if calendar.tz is None or frequency.local or frequency.cycle != "hour":
        return False
    turns, length = calendar.turns(ticks), frequency.length // calendar.size
    if not len(turns) or not (turns % length).any():
        return len(turns) > 0
    even, moved = (Gaps.of(x, offsets).size % length for x in (calendar.local(ticks), ticks))
    return bool(moved.any() and not even.any())


def first_on_grid(ticks: np.ndarray, frequency: Frequency, calendar: Calendar) -> int | None:
    """The first stamp that steps can be counted from; None if all are off the grid.

    It is not the first moment of a summer time, which may stand for one that was left out.
    """
    session, offset = _session(frequency, calendar), read_offset(frequency.alias)
    candidates = np.unique(ticks)
    for tick in candidates[:1000]:
        local = calendar.local(np.array([tick]))
        if (
            frequency.weekday is not None
            and frequency.weekday != (local[0] // calendar.day + 3) % 7
        ):
            continue
        if session is not None:
            if not session.holds(local)[0]:
                continue
        elif frequency.base is not None and not on_offset(offset, calendar.index(local)[0]):
            continue
        if frequency.local and calendar.tz and calendar.instants(local - 1)[0] == tick:
            continue
        return int(tick)
    return int(candidates[0]) if frequency.weekday is None and frequency.base is None else None
