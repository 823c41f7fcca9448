"""Times, a column of time stamps as integers or datetimes in UTC."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import DataError, TimeError
from seqlatent.forecasting.errors.locate import Rows, shown
from seqlatent.forecasting.time.calendar import zone
from seqlatent.forecasting.time.frequency import IRREGULAR, of_period, plain_freq
from seqlatent.forecasting.time.index import TimeIndex

__all__ = ["times_of"]


@dataclass(frozen=True)
class Times:
    """A column of time stamps.

    Args:
        values: Integers or datetime64 in UTC ``(R,)``.
        tz: Time zone; None for stamps without one.
        freq: Alias of the frequency, where the column itself has one.
        date: Whether the stamps are days without a time of day.
    """

    values: np.ndarray
    tz: str | None = None
    freq: str | None = None
    date: bool = False

    def agree(self, time_index: TimeIndex, rows: Rows) -> None:
        """Makes sure that the stamps are of the kind that a time index has."""
        kinds = ("integers", "datetimes without time zone", "datetimes with a time zone")
        own = 0 if self.values.dtype.kind != "M" else 1 if self.tz is None else 2
        other = 0 if not time_index.unit else 1 if time_index.tz is None else 2
        if own != other:
            zone = time_index.tz if other == 2 else None
            fix = f" Use df[{rows.column!r}].dt.tz_localize({zone!r})." if own * other else ""
            raise rows.error(
                TimeError,
                0,
                f"expected {kinds[other]} as in training, found {kinds[own]}: "
                f"{shown(self.values[0], self.tz)}.{fix}",
            )

    def own_freq(self, freq: Any) -> Any:
        """The frequency of a column of periods, if the one asked for is none or the same."""
        freq = plain_freq(freq)
        same = isinstance(freq, str) and re.fullmatch(r"\d*[A-Za-z]+(-[A-Z]+)?", freq)
        if freq is None or (same and of_period(freq) == self.freq):
            return self.freq
        if freq == self.freq or freq == IRREGULAR:
            return freq
        raise TimeError(
            f"freq: expected none, since the periods have one themselves, or {self.freq!r}, that "
            f"of their first moments; found {freq!r}. Leave it out."
        )

    def take(self, index: np.ndarray) -> Any:
        """Some stamps, as a time index takes them."""
        values = self.values[index]
        if values.dtype.kind != "M" or self.tz is None:
            return values
        return pd.DatetimeIndex(values).tz_localize("UTC").tz_convert(self.tz)


def read_times(column: nw.Series, rows: Rows) -> Times:
    """Reads a column without missing values.

    Raises:
        TimeError: If it holds neither datetimes nor integers, or mixes time zones.
    """
    try:
        times = times_of(column)
    except TimeError as error:  # about its time zone, or integers that are too large
        i = 0 if not column.dtype.is_integer() else int(np.argmax(column.to_numpy()))
        raise rows.error(TimeError, i, str(error)) from error
    if times is None:
        raise _no_times(column, rows)
    return times


def times_of(column: nw.Series) -> Times | None:
    """Reads a column without missing values; None if it holds neither datetimes nor integers."""
    if column.implementation.is_pandas():
        return _of_pandas(column.to_native())
    return _of_polars(column)


def _of_pandas(series: Any) -> Times | None:
    dtype = series.dtype
    if isinstance(dtype, pd.PeriodDtype):
        index = pd.PeriodIndex(series)
        unit = index.freqstr.lstrip("0123456789")
        unit = unit if unit in ("ms", "us", "ns") else "s"  # nanoseconds begin in 1678
        start = index.asfreq(unit, how="start").asi8.astype(f"datetime64[{unit}]")
        start = start.astype("datetime64[us]") if unit == "s" else start
        return Times(start, freq=of_period(index.freqstr))
    date = False
    if isinstance(dtype, pd.ArrowDtype):
        kind = nw.from_native(series, series_only=True).dtype
        date = kind == nw.Date
        if date:
            series = series.astype("datetime64[s]")
        elif isinstance(kind, nw.Datetime):
            zone_ = f", {kind.time_zone}" if kind.time_zone else ""
            series = series.astype(f"datetime64[{kind.time_unit}{zone_}]")
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        index = pd.DatetimeIndex(series)
        tz = zone(index.tz)
        return Times(index.tz_convert("UTC").tz_localize(None).to_numpy(), tz)
    if series.dtype.kind == "M":
        return Times(series.to_numpy(), date=date)
    if pd.api.types.is_integer_dtype(series.dtype):
        _signed(series.max())
        return Times(series.to_numpy(np.int64))
    return None


def _of_polars(column: nw.Series) -> Times | None:
    dtype: Any = column.dtype
    if dtype == nw.Date:
        return Times(column.to_numpy().astype("datetime64[s]"), date=True)
    if dtype == nw.Datetime:
        ticks = column.cast(nw.Int64).to_numpy()
        return Times(ticks.astype(f"datetime64[{dtype.time_unit}]"), dtype.time_zone)
    if not dtype.is_integer():
        return None
    _signed(column.max())
    return Times(column.to_numpy().astype(np.int64))


def _signed(most: Any) -> None:
    """Refuses integers that would become negative ones."""
    if most is not None and most >= 2**63:
        raise TimeError(
            f"expected integer stamps less than 2**63, found {most}. Count from another origin."
        )


def _no_times(column: nw.Series, rows: Rows) -> DataError:
    """The error about a column that holds no time stamps."""
    name, values = column.name, column.to_list()
    make = (
        f"df[{name!r}] = pd.to_datetime(df[{name!r}])"
        if column.implementation.is_pandas()
        else f"df = df.with_columns(pl.col({name!r}).str.to_datetime())"
    )
    stamps = [value for value in values if isinstance(value, datetime.datetime)]
    if len(stamps) == len(values):
        zones = {str(stamp.tzinfo) for stamp in stamps}
        if len(zones) > 1:
            odd = np.array([str(stamp.tzinfo) != str(stamps[0].tzinfo) for stamp in stamps])
            i = rows.first(odd)
            return rows.error(
                TimeError,
                i,
                f"expected one time zone, found {values[i]} after {values[0]}. Bring all to "
                f"one: df[{name!r}] = pd.to_datetime(df[{name!r}], utc=True)"
                ".dt.tz_convert('Europe/Berlin').",
            )
    elif isinstance(values[0], str | datetime.date):
        pass
    else:
        make = f"Make them integers (df[{name!r}].astype('int64')) or datetimes"
    return rows.error(
        TimeError,
        0,
        f"expected datetimes or integers, found {values[0]!r} in a column of dtype "
        f"{column.to_native().dtype}. {make}.",
    )
