"""Frequencies, how long one step of an index is: pandas aliases, fixed lengths and calendars."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.time.offsets import brief, read_offset, written
from seqlatent.forecasting.time.sessions import PREFIX
from seqlatent.forecasting.values import told

__all__ = ["IRREGULAR", "LONGEST", "Frequency", "alias_of", "of_period", "plain_freq"]

DAY = 86_400_000_000_000  # nanoseconds
IRREGULAR = "irregular"
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")

# What pandas 2.2 deprecated, or never took, and what it is called now.
RENAMED = {
    **{"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "BH": "bh", "CBH": "cbh"},
    **{"M": "ME", "BM": "BME", "SM": "SME", "CBM": "CBME", "Q": "QE", "BQ": "BQE"},
    **{"A": "YE", "Y": "YE", "BA": "BYE", "BY": "BYE", "AS": "YS", "BAS": "BYS"},
    **{"d": "D", "b": "B", "w": "W", "hour": "h", "day": "D", "week": "W", "month": "MS"},
    **{"minute": "min", "second": "s", "quarter": "QS", "year": "YS"},
    **{"hourly": "h", "daily": "D", "weekly": "W", "monthly": "MS", "quarterly": "QS"},
    **{"yearly": "YS", "annual": "YS", "minutely": "min"},
}
CHOICES = (
    "'s', 'min', '15min', 'h', 'D', 'B' (business days), 'W' (any weekday), 'W-MON', 'MS' "
    "(month start), 'ME' (month end), 'QS', 'QE', 'YS', 'YE', a multiple of one of them such as "
    "'2h', an offset of pandas such as pd.offsets.CustomBusinessDay(holidays=[...]) or "
    "pd.DateOffset(months=1), or 'irregular'"
)
LONGEST = 10_000  # steps of a season that is taken without being asked for
SPANS = tuple(DAY // n for n in (1, 24, 1440, 86_400, 86_400_000, 86_400_000_000))
TICKS = (
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
)


@dataclass(frozen=True)
class Frequency:
    """One step of a time index of datetimes.

    Args:
        alias: Name in the language of pandas, or an offset with its parameters.
        cycle: What calendar features and seasons suit it: ``"second"``, ``"hour"``, ``"day"``,
            ``"business"``, ``"week"``, ``"half"`` (of a month), ``"month"``, ``"quarter"``,
            ``"year"``, or ``"other"``.
        n: Multiple of the unit of the cycle or, for a calendar, of its base.
        length: Nanoseconds of a step of fixed length; 0 for a calendar.
        local: Whether steps are counted on the local calendar rather than in absolute time.
        weekday: Weekday that every stamp must fall on, Monday 0; None for any.
        base: Alias of one step of the calendar, of which ``n`` make a step; None where the
            length is fixed.
        usual: Parts of the usual season of a calendar; 0 for what suits the cycle.
        holidays: Days on which a step of the calendar is closed, in days since the epoch.
    """

    alias: str
    cycle: str
    n: int = 1
    length: int = 0
    local: bool = True
    weekday: int | None = None
    base: str | None = None
    usual: int = 0
    holidays: tuple[int, ...] = ()

    @staticmethod
    def parse(freq: Any) -> "Frequency":
        """Reads an alias, or an offset of pandas that has one."""
        return _parse(alias_of(freq))

    @property
    def season(self) -> int:
        """Steps of the season that such data most often have; 1 for none."""
        whole = {
            "day": 7,
            "business": 5,
            "week": 52,
            "half": 24,
            "month": 12,
            "quarter": 4,
        }
        if self.usual or self.cycle in whole:
            steps = self.usual or whole[self.cycle]
            return steps // self.n if steps % self.n == 0 else 1
        if self.cycle not in ("hour", "second") or not self.length:
            return 1
        spans = SPANS[0 if self.cycle == "hour" else 1 :]
        steps = [span // self.length for span in spans if span % self.length == 0]
        return next((count for count in steps if count <= LONGEST), 1)

    @property
    def left_out(self) -> int:
        """Steps of the season that data below a second would have, and that is too long; or 0."""
        hour = SPANS[1]
        steps = hour // self.length if self.cycle == "second" and hour % self.length == 0 else 0
        return steps if steps > LONGEST else 0


def alias_of(freq: Any) -> str:
    """The alias of a frequency, which may be an offset or a duration of pandas."""
    if isinstance(freq, pd.Timedelta | pd.offsets.Tick) and not isinstance(freq, pd.offsets.Day):
        return fixed(int(pd.Timedelta(freq).as_unit("ns").value))
    if type(freq) is pd.DateOffset:
        return _relative(freq)
    if isinstance(freq, pd.offsets.BaseOffset):
        return written(freq)
    if isinstance(freq, str):
        return freq.strip()
    raise TimeError(
        f"freq: expected a pandas alias or offset for datetimes, found {told(freq)}. Use one of "
        f"{CHOICES}; "
        "whole numbers are for integer time columns."
    )


def plain_freq(freq: Any) -> Any:
    """A frequency without objects of pandas or numpy: None, a whole number or text."""
    if isinstance(freq, pd.Timedelta | pd.offsets.BaseOffset):
        return alias_of(freq)
    return int(freq) if isinstance(freq, np.integer) else freq


def fixed(length: int) -> str:
    """Alias of a step of so many nanoseconds."""
    if length <= 0:
        raise TimeError(f"freq: expected a positive length of a step, found {length} nanoseconds.")
    name, size = next((name, size) for name, size in TICKS if length % size == 0)
    return name if length == size else f"{length // size}{name}"


def cycle_of(days: float) -> str:
    """The cycle of irregular steps that usually last so many days."""
    cycles = (("hour", 0.99), ("day", 6), ("week", 27), ("month", 85), ("quarter", 360))
    return next((cycle for cycle, bound in cycles if days < bound), "year")


def of_period(freq: str) -> str:
    """Alias of the start stamps of periods, whose own aliases are different ones."""
    n, name, anchor = re.fullmatch(r"(\d*)([A-Za-z]+)(?:-([A-Z]+))?", freq).groups()  # type: ignore[union-attr]
    name = {"M": "MS", "ME": "MS", "Q": "QS", "QE": "QS", "A": "YS", "Y": "YS", "YE": "YS"}.get(
        name, name
    )
    if name in ("QS", "YS"):
        start = MONTHS[(MONTHS.index(anchor or "DEC") + 1) % 12]
        return f"{n}{name}" if start == "JAN" else f"{n}{name}-{start}"
    if name == "W":
        return f"{n}W-{WEEKDAYS[(WEEKDAYS.index(anchor or 'SUN') + 1) % 7]}"
    return f"{n}{name}"


@lru_cache(maxsize=128)
def _parse(alias: str) -> Frequency:
    if alias.startswith(PREFIX + "{"):
        return Frequency(alias, "hour", base=alias, usual=json.loads(alias[len(PREFIX) :])["bars"])
    offset = _offset(alias)
    if isinstance(offset, pd.offsets.Day):
        return _days(alias, offset.n)
    if isinstance(offset, pd.offsets.Week):
        free = re.fullmatch(r"\d*W", alias) is not None
        return _days(alias, 7 * offset.n, None if free else offset.weekday)
    if isinstance(offset, pd.offsets.Tick):
        return _tick(alias, offset.nanos)
    base, holidays = offset.base, ()
    if offset.n == 1 and type(offset) in (
        pd.offsets.CustomBusinessDay,
        pd.offsets.CustomBusinessHour,
    ):  # a closed day is a step without a row, so that the week goes on
        days = offset.calendar.holidays.astype(np.int64)
        holidays = tuple(days.tolist())
        kwds = {k: v for k, v in offset.kwds.items() if k not in ("holidays", "calendar")}
        base = type(offset)(**kwds)
    return Frequency(
        alias, _cycle(offset), offset.n, base=written(base), usual=_usual(offset), holidays=holidays
    )


def _relative(offset: Any) -> str:
    """Alias of a ``DateOffset``, one of pandas where it only counts days or parts of them."""
    kwds = {name: value for name, value in offset.kwds.items() if value}
    if len(kwds) == 1:
        (name, value) = next(iter(kwds.items()))
        if name in ("weeks", "days") and value * offset.n >= 1 and value == int(value):
            return written(
                (pd.offsets.Week if name == "weeks" else pd.offsets.Day)(value * offset.n)
            )
        if name not in ("months", "years") and name.endswith("s"):
            return fixed(int(pd.Timedelta(**{name: value * offset.n}).as_unit("ns").value))
    if not any(name.endswith("s") for name in kwds):
        raise TimeError(
            f"freq: expected steps forward in time, found {offset!r}. Give what a step lasts, such "
            "as pd.DateOffset(months=1, day=15)."
        )
    return written(offset)


def _usual(offset: Any) -> int:
    """Parts of the season that an offset with parameters most often has; 0 if its cycle says it."""
    calendar = getattr(offset, "calendar", None)
    if _cycle(offset) == "hour":  # business hours, since others have a fixed length
        length = sum(
            (b.hour * 60 + b.minute - a.hour * 60 - a.minute - 1) % 1440 + 1
            for a, b in zip(offset.start, offset.end, strict=True)
        )
        return length // 60 if length % 60 == 0 else 1
    if _cycle(offset) == "business" and calendar is not None:
        return int(calendar.weekmask.sum())
    if type(offset) is pd.DateOffset:
        months = offset.kwds.get("months", 0) + 12 * offset.kwds.get("years", 0)
        whole = _cycle(offset) in ("month", "year") and months and 12 % months == 0
        return int(12 // months) if whole else 1
    return 0


def _offset(alias: str) -> Any:
    match = re.fullmatch(r"(\d*)\s*([A-Za-z]+)((?:-\w+)*)", alias)
    if match and match[2] in RENAMED:
        new = f"{match[1]}{RENAMED[match[2]]}{match[3]}"
        raise TimeError(f"freq: expected a pandas alias, found {alias!r}. It is now {new!r}.")
    offset = read_offset(alias)
    if offset is None:
        raise TimeError(
            f"freq: expected a pandas alias, found {brief(alias)}. Use one of {CHOICES}."
        )
    if offset.n < 1:
        raise TimeError(f"freq: expected steps forward in time, found {alias!r}.")
    return offset


def _days(alias: str, days: int, weekday: int | None = None) -> Frequency:
    cycle, n = ("week", days // 7) if days % 7 == 0 else ("day", days)
    return Frequency(alias, cycle, n, length=days * DAY, weekday=weekday)


def _tick(alias: str, length: int) -> Frequency:
    if length % DAY == 0:
        cycle, n = (
            ("week", length // DAY // 7) if length % (7 * DAY) == 0 else ("day", length // DAY)
        )
    elif length > DAY:
        cycle, n = "other", 1
    else:
        cycle, n = ("hour" if length >= 60_000_000_000 else "second"), 1
    return Frequency(alias, cycle, n, length=length, local=False)


def _cycle(offset: Any) -> str:
    name = type(offset).__name__
    if "Hour" in name:
        return "hour"
    if type(offset) is pd.DateOffset:
        sizes = {key for key, value in offset.kwds.items() if value and key.endswith("s")}
        names = {"months": "month", "years": "year"}
        return names.get(min(sizes), "other") if sizes <= set(names) else "other"
    parts = (
        ("Quarter", "quarter"),
        ("Year", "year"),
        ("FY5253", "year"),
        ("SemiMonth", "half"),
        ("Month", "month"),
        ("Day", "business"),
    )
    return next((cycle for part, cycle in parts if part in name), "other")
