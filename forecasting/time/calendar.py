"""Calendars, time stamps of one unit as numbers and back, on the local calendar of a time zone."""

from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError

__all__ = ["zone"]

UNITS = ("s", "ms", "us", "ns")
YEARS = ("0001", "10000")  # that datetimes hold, up to the second
FEATURES = {
    "second": ("hour", "weekday"),
    "hour": ("hour", "weekday"),
    "other": ("hour", "weekday"),
    "day": ("weekday", "yearday"),
    "business": ("weekday", "yearday"),
    "week": ("week",),
    "half": ("month",),
    "month": ("month",),
    "quarter": ("quarter",),
    "year": (),
}


@dataclass(frozen=True)
class Calendar:
    """Ticks since the epoch, in UTC and on the local calendar.

    Args:
        tick: Unit that times are counted in, ``"us"`` or ``"ns"``.
        tz: Time zone; None for stamps without one.
    """

    tick: str
    tz: str | None

    @property
    def size(self) -> int:
        """Nanoseconds of a tick."""
        return 1 if self.tick == "ns" else 1000

    @property
    def day(self) -> int:
        """Ticks of a day."""
        return 86_400_000_000_000 // self.size

    def index(self, ticks: np.ndarray) -> pd.DatetimeIndex:
        """Ticks as an index of pandas, without a zone."""
        return pd.DatetimeIndex(ticks.astype(f"datetime64[{self.tick}]"))

    def ticks(self, index: Any) -> np.ndarray:
        """An index of pandas, without a zone, as ticks."""
        return np.asarray(index).astype(f"datetime64[{self.tick}]").astype(np.int64)

    def stamps(self, ticks: np.ndarray, unit: str) -> np.ndarray:
        """Ticks as datetime64 of a unit.

        Raises:
            TimeError: If a year has no four digits.
        """
        first, stop = (np.datetime64(year, self.tick).astype(np.int64) for year in YEARS)
        if self.tick == "us" and ticks.size and not first <= ticks.min() <= ticks.max() < stop:
            beyond = int(ticks.max() if ticks.max() >= stop else ticks.min())
            day = np.datetime64(beyond, self.tick).astype("datetime64[D]")
            raise TimeError(
                f"expected stamps of the years 1 to 9999, found {day}. "
                "Use a shorter horizon, or number the rows with integers."
            )
        return ticks.astype(f"datetime64[{self.tick}]").astype(f"datetime64[{unit}]")

    def local(self, instants: np.ndarray) -> np.ndarray:
        """UTC to the local calendar."""
        if self.tz is None:
            return instants
        index = self.index(instants).tz_localize("UTC").tz_convert(self.tz)
        return self.ticks(index.tz_localize(None))

    def settled(self, instants: np.ndarray) -> np.ndarray:
        """UTC to the local calendar, with summer time's first moments back where they belong.

        Where a time index runs in whole days and one of its stamps falls into the hour that is left
        out, the stamp is the first moment after that hour; here it is the one that was meant, as
        the neighbouring row tells.
        """
        local = self.local(instants)
        if self.tz is None or len(local) < 2:
            return local
        moved = np.flatnonzero(self.instants(local - 1) == instants)
        neighbour = np.where(moved > 0, moved - 1, 1)
        meant = local[moved] - local[moved] % self.day + local[neighbour] % self.day
        right = self.instants(meant) == instants[moved]
        local[moved[right]] = meant[right]
        return local

    def instants(self, local: np.ndarray, *, second: bool = False) -> np.ndarray:
        """The local calendar to UTC.

        Hours that the change to summer time leaves out become the first moment after it, hours
        that come twice are the first of the two, unless the ``second`` is asked for.
        """
        if self.tz is None:
            return local
        index = self.index(local).tz_localize(
            self.tz, ambiguous=np.full(len(local), not second), nonexistent="shift_forward"
        )
        return self.ticks(index.tz_convert("UTC").tz_localize(None))

    def turns(self, instants: np.ndarray) -> np.ndarray:
        """By how much the clocks change from some instants to ten years later: ticks, distinct."""
        if self.tz is None:
            return np.zeros(0, np.int64)
        last = int(instants.max())
        end = max(last + 1, min(last + 3653 * self.day, 84_000 * self.day))
        days = np.arange(int(instants.min()), end, self.day)
        offsets = np.unique(self.local(days) - days)
        return offsets[1:] - offsets[0]

    def waves(self, cycle: str, instants: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Sines and cosines of the calendar ``(R, F)`` that suit a cycle, and their names."""
        names = FEATURES[cycle]
        if not names:
            return np.zeros((len(instants), 0)), ()
        local = self.local(instants)
        angles = [2 * np.pi * self._phase(name, local) for name in names]
        features = np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], -1)
        return features, tuple(f"{name}_{wave}" for name in names for wave in ("sin", "cos"))

    def _phase(self, name: str, local: np.ndarray) -> np.ndarray:
        if name == "hour":
            return local % self.day / self.day
        if name == "weekday":
            return (local // self.day + 3) % 7 / 7
        index = self.index(local)
        if name in ("month", "quarter"):
            month = np.asarray(index.month) - 1
            return month / 12 if name == "month" else month // 3 / 4
        return (np.asarray(index.day_of_year) - 1) / 365.25


def values_of(stamps: Any) -> tuple[np.ndarray, str, str | None]:
    """Integers or datetime64 in UTC, the unit of datetimes (else ``""``) and their time zone."""
    if isinstance(stamps, pd.DatetimeIndex):
        tz = zone(stamps.tz)
        if tz is not None:
            stamps = stamps.tz_convert("UTC").tz_localize(None)
        return stamps.to_numpy(), stamps.unit, tz
    values = np.asarray(stamps)
    if values.dtype.kind == "M":
        unit = np.datetime_data(values.dtype)[0]
        if unit not in UNITS:
            unit = "s"
            values = values.astype("datetime64[s]")
        return values, unit, None
    if values.dtype.kind not in "iu":
        raise TimeError(f"expected integer or datetime stamps, found dtype {values.dtype}.")
    return values.astype(np.int64), "", None


def finer(unit: str, length: int) -> str:
    """A unit, or the coarsest one below it that divides a step of so many nanoseconds."""
    needed = next(i for i in range(4) if length % 1000 ** (3 - i) == 0)
    return UNITS[max(UNITS.index(unit), needed)]


def zone(tz: tzinfo | str | None) -> str | None:
    """Name of a time zone, from which pandas makes it again."""
    if tz is None or isinstance(tz, str):
        return tz
    offset = tz.utcoffset(None)
    for name in (str(tz), _shift(offset) if offset is not None else ""):
        try:
            pd.DatetimeTZDtype(tz=name)
        except (TypeError, KeyError, ValueError, OSError):
            continue
        return name
    raise TimeError(
        f"expected a time zone with a name, found {tz!r}. Use one such as 'Europe/Berlin': "
        "df['ds'].dt.tz_convert('Europe/Berlin')."
    )


def _shift(offset: Any) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
