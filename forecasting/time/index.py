"""Time index, the steps that the time stamps of many series are counted in."""

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.errors.locate import Rows, shown
from seqlatent.forecasting.time.calendar import Calendar, finer, values_of
from seqlatent.forecasting.time.frequency import DAY, IRREGULAR, Frequency, alias_of, cycle_of
from seqlatent.forecasting.time.grid import (
    Even,
    Grid,
    anchored,
    first_on_grid,
    grid_of,
    on_the_wall,
)
from seqlatent.forecasting.time.inference import datetime_alias, integer_step, median_gap
from seqlatent.forecasting.time.offsets import brief
from seqlatent.forecasting.time.sessions import Session

__all__ = ["TimeIndex"]

SECOND = 1_000_000_000  # nanoseconds
FINEST = 2**25  # parts of a step that phases are told apart by


@dataclass(frozen=True)
class TimeIndex:
    """Steps to time stamps and back: integers, datetimes with a frequency, or irregular times.

    Steps are counted on the local calendar of the time zone, so that a season of a day or a week
    stays where it is on the wall clock: the hour that summer time leaves out is a step without a
    row, of the hour that comes twice the first one is the step. So are holidays of an offset steps
    without rows. :meth:`open` tells such steps, :meth:`following` gives the stamps that come
    next. Steps that no change of clocks is a multiple of, such as ``"6h"``, are counted on the
    clock that the stamps keep to, those below a minute in absolute time.

    Within a series, times are one step apart. Series may be out of phase with each other, such
    as weeks (``"W"``) that end on different days or hours that start at half past: their times
    then have a fraction, the same one in every row. Where a frequency fixes the phase (``"MS"``,
    ``"W-MON"``), stamps off that grid are an error.

    Args:
        kind: ``"integer"``, ``"datetime"`` or ``"irregular"``.
        freq: Alias of pandas, step of integers, or ``"irregular"``.
        origin: Stamp at time 0: an integer, or nanoseconds since the epoch, UTC.
        tz: Time zone; None for stamps without one.
        unit: Resolution of datetime stamps, such as ``"us"``; empty for integers.
        step: What a step of an irregular time index lasts, in seconds or units of integers.
        divisions: Number of equal parts of a step that series may be out of phase by.
        wall: Whether steps of hours or minutes are counted on the local calendar.

    Example:
        >>> import numpy as np
        >>> from seqlatent.forecasting.time.index import TimeIndex
        >>> stamps = np.array(["2024-01-31", "2024-02-29", "2024-04-30"], "datetime64[us]")
        >>> time_index = TimeIndex.of(stamps, [0, 3])
        >>> time_index.freq, time_index.steps(stamps), time_index.stamps(np.array([4.0]))
        ('ME', array([0., 1., 3.]), array(['2024-05-31T00:00:00.000000'], dtype='datetime64[us]'))
    """

    kind: str
    freq: str | int | None
    origin: int
    tz: str | None = None
    unit: str = "us"
    step: float = 1.0
    divisions: int = 1
    wall: bool = False

    @classmethod
    def of(
        cls, stamps: Any, offsets: Any, freq: Any = None, *, rows: Rows | None = None
    ) -> "TimeIndex":
        """The time index of some series.

        Args:
            stamps: Integers, datetime64, or a DatetimeIndex, ascending within each series ``(R,)``.
            offsets: Series ``i`` has the rows ``offsets[i]`` to ``offsets[i + 1]``.
            freq: Alias of pandas, whole number for integers, ``"irregular"``, or None to infer it.
                Series of one or two rows take over what longer ones have.
            rows: Names for errors.

        Raises:
            TimeError: If ``freq`` is unknown or cannot be inferred, or series disagree.
        """
        offsets, (values, unit, tz) = np.asarray(offsets, np.int64), values_of(stamps)
        rows = Rows.bare(offsets) if rows is None else rows
        irregular = isinstance(freq, str) and freq.strip().lower() == IRREGULAR
        if not unit:
            if irregular:
                gap = median_gap(values, offsets, rows)
                return cls("irregular", IRREGULAR, int(values.min()), unit="", step=gap)
            step = integer_step(freq, values, offsets)
            time_index = cls("integer", step, int(values.min()), unit="")
            return time_index._refined(values[offsets[:-1]], offsets, rows)
        calendar = Calendar("ns" if unit == "ns" else "us", tz)
        ticks = calendar.ticks(values)
        if irregular:
            seconds = median_gap(ticks, offsets, rows) * calendar.size / SECOND
            origin = int(ticks.min()) * calendar.size
            return cls("irregular", IRREGULAR, origin, tz, unit, seconds)
        if freq is None:
            freq = datetime_alias(ticks, calendar.settled(ticks), calendar.day, offsets, rows)
        alias = alias_of(freq)
        time_index = cls("datetime", alias, 0, tz, finer(unit, Frequency.parse(alias).length))
        calendar = time_index._calendar
        ticks = calendar.ticks(values)
        time_index = replace(
            time_index,
            wall=on_the_wall(ticks, offsets, time_index._frequency, calendar),
            freq=anchored(alias, calendar.local(ticks), calendar),
        )
        start = first_on_grid(ticks, time_index._frequency, calendar)
        if start is None:
            i = rows.first(ticks == ticks.min())
            raise rows.error(
                TimeError,
                i,
                f"expected stamps on the grid of freq={brief(alias)}, found {shown(values[i], tz)}."
                " Give the freq= that the stamps have ('irregular' for none).",
            )
        time_index = replace(time_index, origin=start * calendar.size)
        return time_index._refined(ticks[offsets[:-1]], offsets, rows)

    def steps(self, stamps: Any) -> np.ndarray:
        """Times of some stamps, float64 of the same shape.

        Raises:
            TimeError: If a stamp is off the grid; the error's ``row`` is its position.
        """
        t, there = self.locate(stamps)
        if not there.all():
            i = int(np.argmin(there))
            text = self.off_grid(np.asarray(values_of(stamps)[0]).reshape(-1)[i])
            raise TimeError(f"row {i}: {text}", row=i)
        return t

    def locate(self, stamps: Any) -> tuple[np.ndarray, np.ndarray]:
        """Times of some stamps, and which of the stamps are on the grid."""
        values = self._same(stamps)
        shape, values = values.shape, values.reshape(-1)
        if self.kind == "irregular":
            delta = values - self._start
            t = delta / (self.step * self._per_unit)
            return t.reshape(shape), np.ones(shape, bool)
        parts, there = self._count(values)
        return self._times(parts).reshape(shape), there.reshape(shape)

    def stamps(self, t: Any) -> np.ndarray:
        """Stamps of some times, of the same shape: int64, or datetime64 in UTC."""
        t = np.asarray(t, np.float64)
        if self.kind == "irregular":
            ticks = self._start + np.rint(t * (self.step * self._per_unit)).astype(np.int64)
        else:
            parts = np.rint(t * self._steps.parts).astype(np.int64)
            ticks = self._instants(parts.reshape(-1)).reshape(t.shape)
        return self._stamps(ticks)

    @property
    def folded(self) -> bool:
        """Whether there are steps without a row, or with two, so that steps do not count rows."""
        return self.wall or bool(self.kind == "datetime" and self._frequency.holidays)

    def open(self, t: Any) -> np.ndarray:
        """Which times are those of a row, not of a left out hour or a holiday; of t's shape."""
        t = np.asarray(t, np.float64)
        if not self.folded:
            return np.ones(t.shape, bool)
        parts = np.rint(t * self._steps.parts).astype(np.int64).reshape(-1)
        return self._open(self._steps.stamps(parts)).reshape(t.shape)

    def again(self, t: Any) -> np.ndarray:
        """The second stamps of times whose hour comes twice, the only ones of others, in ticks."""
        t = np.asarray(t, np.float64)
        parts = np.rint(t * self._steps.parts).astype(np.int64).reshape(-1)
        local = self._steps.stamps(parts)
        return self._calendar.instants(local, second=True).reshape(t.shape)

    def ticks(self, stamps: Any) -> np.ndarray:
        """Stamps as whole numbers that compare as they do."""
        return self._same(stamps)

    def following(self, last: np.ndarray, t: np.ndarray, h: int) -> np.ndarray:
        """Stamps of the next rows ``(N, H)``.

        Args:
            last: Stamps of the last rows, in ticks ``(N,)``.
            t: Their times ``(N,)``.
            h: Number of rows.
        """
        length = self._frequency.length // self._calendar.size
        if self.wall and not (self._calendar.turns(last) % length).any():
            return self._stamps(last[:, None] + length * np.arange(1, h + 1))
        count = h
        while True:
            ahead = t[:, None] + np.arange(1, count + 1)
            nth = np.cumsum(self.open(ahead), 1)
            if (nth[:, -1] >= h).all():
                break
            count += max(h, 8)
        place = (nth[:, :, None] < np.arange(1, h + 1)).sum(1)
        return self.stamps(np.take_along_axis(ahead, place, 1))

    def features(self, t: Any) -> tuple[np.ndarray, tuple[str, ...]]:
        """Sines and cosines of the calendar, in local time, that suit the frequency.

        Args:
            t: Times ``(R,)``.

        Returns:
            Features, float64 ``(R, F)``, and their ``F`` names. Integers have none.
        """
        t = np.asarray(t, np.float64)
        if not self.unit:
            return np.zeros((len(t), 0)), ()
        calendar = self._calendar
        return calendar.waves(self._cycle, calendar.ticks(self.stamps(t)))

    @property
    def default_season(self) -> int:
        """Steps of the season such data most often have; 1 for none."""
        return self._frequency.season if self.kind == "datetime" else 1

    @property
    def daily(self) -> bool:
        """Whether every step lasts one day or more on the local calendar."""
        return self.kind != "datetime" or (
            self._frequency.cycle not in ("hour", "second", "other") and self._frequency.local
        )

    def refine(self, stamps: Any, offsets: Any = None, rows: Rows | None = None) -> "TimeIndex":
        """The time index that also has room for the phases of other series.

        Times that the time index has given so far keep their meaning.

        Args:
            stamps: First stamp of each series ``(N,)``.
            offsets: Rows of each series, for errors.
            rows: Names for errors.

        Raises:
            TimeError: If the series have next to nothing in common.
        """
        if self.kind == "irregular" or not len(stamps):
            return self
        offsets = np.arange(len(stamps) + 1) if offsets is None else offsets
        return self._refined(self._same(stamps), offsets, rows or Rows.bare(offsets))

    def off_grid(self, stamp: Any) -> str:
        """What an error says of a stamp off the grid."""
        value = np.asarray(stamp).reshape(1)
        parts, _ = self._count(self._same(value))
        step = self._steps.parts // self.divisions
        below = parts - parts % step
        if self._instants(below)[0] > self._same(value)[0]:
            below = below - step
        above = below + step
        while not self.open(self._times(below))[0]:
            below = below - step
        while not self.open(self._times(above))[0]:
            above = above + step
        near = self._times(np.concatenate([below, above]))
        before, after = (shown(stamp, self.tz) for stamp in self.stamps(near))
        return (
            f"expected stamps on the grid of freq={brief(self.freq)}, such as {before} or {after}; "
            f"found {shown(value[0], self.tz)}. Correct it, or give the freq= that the stamps "
            "have ('irregular' for none)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "TimeIndex":
        """Reads what :meth:`to_dict` gave."""
        return cls(**d)

    def _refined(self, ticks: np.ndarray, offsets: np.ndarray, rows: Rows) -> "TimeIndex":
        steps = self._steps
        if isinstance(steps, Grid | Session):
            parts, there = self._count(ticks, steps.parts)
            period, rest = steps.parts, parts[there] % steps.parts
        else:
            whole = self._divided(1)
            apart = ticks[~whole._count(ticks)[1]]
            period, rest = steps.length, (self._local(apart) - steps.origin) % steps.length
        divisions = period // math.gcd(period, *np.unique(rest).tolist())
        divisions = math.lcm(self.divisions, divisions)
        if divisions <= FINEST:
            return self._divided(divisions)
        i = int(np.argmin(self._count(ticks)[1]))
        raise rows.error(
            TimeError,
            int(offsets[i]),
            "expected series that are out of phase by a plain fraction of "
            f"freq={brief(self.freq)}, "
            f"found one that starts at {shown(self._stamps(ticks)[i], self.tz)}. Round the stamps, "
            "or use freq='irregular'.",
        )

    def _divided(self, divisions: int) -> "TimeIndex":
        """The time index of other phases; the same ones keep the grid as far as it is made."""
        return self if divisions == self.divisions else replace(self, divisions=divisions)

    @cached_property
    def _calendar(self) -> Calendar:
        return Calendar("us" if self.unit in ("s", "ms", "us") else "ns", self.tz)

    @cached_property
    def _frequency(self) -> Frequency:
        return Frequency.parse(self.freq)

    @cached_property
    def _steps(self) -> Even | Grid | Session:
        origin = int(self._local(np.array([self._start]))[0])
        if self.kind == "integer":
            return Even(int(self.freq or 1), self.divisions, origin)
        return grid_of(self._frequency, self._calendar, self.divisions, origin)

    @cached_property
    def _start(self) -> int:
        """Stamp at time 0, in ticks."""
        return self.origin // self._calendar.size if self.unit else self.origin

    @property
    def _per_unit(self) -> float:
        return SECOND / self._calendar.size if self.unit else 1.0

    @property
    def _cycle(self) -> str:
        if self.kind == "datetime":
            return self._frequency.cycle
        return cycle_of(self.step * SECOND / DAY)

    def _same(self, stamps: Any) -> np.ndarray:
        """Stamps as integers or ticks, if they are of the time index's own kind."""
        values, unit, _ = values_of(stamps)
        if bool(unit) != bool(self.unit):
            kinds = ("integers", "datetimes")
            raise TimeError(
                f"expected {kinds[bool(self.unit)]} as in training, found {kinds[bool(unit)]}."
            )
        return self._calendar.ticks(values) if unit else values

    def _stamps(self, ticks: np.ndarray) -> np.ndarray:
        return self._calendar.stamps(ticks, self.unit) if self.unit else ticks

    @property
    def _is_local(self) -> bool:
        return self.kind == "datetime" and (self.wall or self._frequency.local)

    def _open(self, local: np.ndarray) -> np.ndarray:
        there = np.ones(len(local), bool)
        if self.wall:
            there &= self._calendar.local(self._calendar.instants(local)) == local
        if self._frequency.holidays:
            days = np.array(self._frequency.holidays)
            there &= ~np.isin(local // self._calendar.day, days)
        return there

    def _local(self, ticks: np.ndarray) -> np.ndarray:
        return self._calendar.local(ticks) if self._is_local else ticks

    def _count(
        self, ticks: np.ndarray, divisions: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number of parts of a step since the origin, and which stamps are on the grid.

        The grid has the time index's own phases unless other ``divisions`` of a step are given.
        """
        if not len(ticks):
            return ticks, np.ones(0, bool)
        local, steps = self._local(ticks), self._steps
        count = steps.count(local)
        there = steps.stamps(count) == local
        if self.tz and not there.all():  # hours that summer time moved
            apart = np.flatnonzero(~there)
            there[apart] = self._instants(count[apart]) == ticks[apart]
        there &= count % (steps.parts // (divisions or self.divisions)) == 0
        if self.folded:
            there &= self._open(local)
        if self.kind == "datetime" and self._frequency.weekday is not None:
            there &= (local // self._calendar.day + 3) % 7 == self._frequency.weekday
        return count, there

    def _instants(self, parts: np.ndarray) -> np.ndarray:
        local = self._steps.stamps(parts)
        return self._calendar.instants(local) if self._is_local else local

    def _times(self, parts: np.ndarray) -> np.ndarray:
        # Fractions are kept to 26 bits, so that differences of times are exact whole numbers.
        whole, rest = np.divmod(parts, self._steps.parts)
        return whole + np.rint(rest / self._steps.parts * 2**26) / 2**26
