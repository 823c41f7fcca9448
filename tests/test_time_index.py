"""Clock: time stamps to steps and back, for every kind of calendar and time zone."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest
from dateutil import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.time.calendar import zone
from seqlatent.forecasting.time.frequency import Frequency, of_period
from seqlatent.forecasting.time.index import TimeIndex

ABSOLUTE = ["h", "30min", "2h", "15min", "s", "500ms", "36h"]
LOCAL = ["D", "2D", "W", "W-MON", "2W-FRI"]
CALENDAR = ["B", "MS", "ME", "2MS", "QS", "QE-DEC", "QS-FEB", "YS", "YE", "YE-MAR"]
CALENDAR += ["BMS", "BME", "BQE", "SMS", "bh", "WOM-2TUE"]
ZONES = [None, "UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "UTC+02:00"]


OFFSETS = [
    pd.offsets.CustomBusinessDay(holidays=["2016-01-05", "2016-03-28"]),
    pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu"),
    pd.offsets.CustomBusinessDay(2, weekmask="Mon Tue Wed Thu Fri Sat", holidays=["2016-01-06"]),
    pd.offsets.BusinessHour(start="08:00", end="12:00"),
    pd.offsets.BusinessHour(start=["09:00", "13:00"], end=["12:00", "17:00"]),
    pd.offsets.CustomBusinessHour(start="10:00", end="12:00", holidays=["2016-01-08"]),
    pd.offsets.CustomBusinessMonthEnd(holidays=["2016-03-31"]),
    pd.offsets.CustomBusinessMonthBegin(holidays=["2016-02-01"]),
    pd.DateOffset(months=1, day=15),
    pd.DateOffset(months=1, day=30),
    pd.DateOffset(months=3, day=31),
    pd.DateOffset(years=1, month=2, day=29),
    pd.DateOffset(days=1, hours=12),
    pd.offsets.FY5253(weekday=4, startingMonth=12, variation="last"),
    pd.offsets.Easter(),
]


def stamps_of(freq, tz, start="2016-01-04", periods=60):
    """What pandas says the stamps are, with the hours that summer time leaves out moved on."""
    if freq in ABSOLUTE:
        return pd.date_range(start, periods=periods, freq=freq, tz=tz)
    index = pd.date_range(start, periods=periods, freq=freq)
    if tz is None:
        return index
    return index.tz_localize(tz, nonexistent="shift_forward", ambiguous=np.ones(periods, bool))


def index_of(index, freq=None):
    return TimeIndex.of(index, [0, len(index)], freq)


def aware(stamps, tz):
    return stamps if tz is None else pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(tz)


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("freq", ABSOLUTE + LOCAL + CALENDAR)
def test_steps_are_those_of_pandas(freq, tz):
    index = stamps_of(freq, tz)
    time_index = index_of(index, freq)
    np.testing.assert_array_equal(time_index.steps(index), np.arange(len(index)))
    expected = index.tz_convert("UTC").tz_localize(None) if tz else index
    np.testing.assert_array_equal(time_index.stamps(np.arange(len(index))), expected.to_numpy())


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("freq", ABSOLUTE + LOCAL + CALENDAR)
def test_steps_undo_stamps_before_and_beyond_the_data(freq, tz):
    time_index = index_of(stamps_of(freq, tz), freq)
    t = np.arange(-90, 200)
    np.testing.assert_array_equal(time_index.steps(aware(time_index.stamps(t), tz)), t)


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_offsets_keep_their_parameters(offset, tz):
    index = pd.date_range("2016-01-04", periods=46, freq=offset)[1:]
    wanted = index if tz is None else index.tz_localize(tz)
    time_index = TimeIndex.of(wanted[:30], [0, 30], offset)
    again = TimeIndex.from_dict(json.loads(json.dumps(time_index.to_dict())))
    assert again == time_index
    assert (
        TimeIndex.of(wanted[:30], [0, 30], time_index.freq) == time_index
    )  # as a saved model fits again
    for found in (time_index, again):
        t = np.arange(-8.0, 60)
        t = t[found.open(t)]  # a holiday is a step without a row
        stamps = aware(found.stamps(t), tz)
        np.testing.assert_array_equal(found.steps(stamps), t)
        np.testing.assert_array_equal(stamps[t >= 0][:45], wanted)
        ahead = found.following(found.ticks(wanted[4:6]), found.steps(wanted[4:6]), 30)
        np.testing.assert_array_equal(aware(ahead[0], tz), wanted[5:35])
        np.testing.assert_array_equal(aware(ahead[1], tz), wanted[6:36])


def test_parameters_of_offsets_that_cannot_be_kept():
    class Own(pd.offsets.Easter):
        pass

    with pytest.raises(TimeError, match=r"expected an offset of pandas.*CustomBusinessDay"):
        Frequency.parse(Own())
    with pytest.raises(TimeError, match=r"numbers, text or dates, found weekday=MO\(\+1\)"):
        Frequency.parse(pd.DateOffset(months=1, weekday=relativedelta.MO(1)))
    with pytest.raises(TimeError, match=r"freq: expected a pandas alias, found 'Custom"):
        Frequency.parse('CustomBusinessDay{"weekmask": "Caturday"}')


def test_errors_show_the_first_parameters_of_an_offset():
    days = pd.bdate_range("2024-01-02", periods=200).strftime("%Y-%m-%d").tolist()
    offset = pd.offsets.CustomBusinessDay(holidays=days)
    with pytest.raises(TimeError, match="expected stamps on the grid of freq='Custom") as caught:
        TimeIndex.of(pd.DatetimeIndex(["2024-01-02", "2024-01-03"]), [0, 2], offset)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("day", [2, 15, 28, 29, 30])
def test_one_day_of_each_month_is_a_frequency(day):
    month = pd.date_range("2023-01-01", periods=30, freq="MS")
    index = month + pd.to_timedelta(np.minimum(day, month.days_in_month) - 1, unit="D")
    for freq in (None, pd.DateOffset(months=1)):
        time_index = index_of(index[:14], freq)
        assert (time_index.freq, time_index.default_season) == (
            f'DateOffset{{"day": {day}, "months": 1}}',
            12,
        )
        np.testing.assert_array_equal(time_index.stamps(np.arange(30)), index)
    assert index_of(index[::3]).default_season == 4
    assert index_of(index[::12]).default_season == 1


def test_months_without_a_common_day_go_on_as_pandas_does():
    index = pd.date_range("2024-01-31", periods=6, freq=pd.DateOffset(months=1))
    time_index = index_of(index, pd.DateOffset(months=1))
    np.testing.assert_array_equal(time_index.stamps(np.arange(6)), index)


@pytest.mark.parametrize(
    ("offset", "season"),
    [
        (pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat"), 6),
        (pd.offsets.CustomBusinessDay(2, weekmask="Sun Mon Tue Wed"), 2),
        (pd.offsets.BusinessHour(start="08:00", end="12:00"), 4),
        (pd.offsets.BusinessHour(start="22:00", end="02:00"), 4),
        (pd.offsets.BusinessHour(start="08:00", end="12:30"), 1),
        (pd.offsets.CustomBusinessMonthEnd(holidays=["2024-12-31"]), 12),
        (pd.DateOffset(months=2), 6),
        (pd.DateOffset(months=5), 1),
        (pd.DateOffset(weeks=1), 52),
        (pd.DateOffset(hours=2), 12),
        (pd.offsets.Easter(), 1),
    ],
    ids=str,
)
def test_seasons_of_offsets(offset, season):
    assert Frequency.parse(offset).season == season


@given(
    st.sampled_from(ABSOLUTE + LOCAL + CALENDAR),
    st.sampled_from(ZONES),
    st.lists(st.integers(-200, 200), max_size=20),
    st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2060-01-01")),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_steps_undo_stamps(freq, tz, t, start, unit):
    unit = "ms" if freq == "500ms" and unit == "s" else unit
    index = stamps_of(freq, tz, start.replace(minute=0, second=0, microsecond=0), 3).as_unit(unit)
    time_index = TimeIndex.from_dict(json.loads(json.dumps(index_of(index, freq).to_dict())))
    t = np.array(t, np.int64)
    t = t[time_index.open(t)]  # not the hours that summer time leaves out
    stamps = time_index.stamps(t)
    assert stamps.dtype == np.dtype(f"datetime64[{unit}]")
    np.testing.assert_array_equal(time_index.steps(aware(stamps, tz)), t)
    assert (np.diff(time_index.stamps(np.unique(t))).astype(np.int64) > 0).all()


@given(st.integers(-1000, 1000), st.integers(1, 50), st.lists(st.integers(0, 40), min_size=1))
def test_integers(origin, step, t):
    t = np.array(t)
    time_index = TimeIndex.of(origin + step * np.unique(t), [0, len(np.unique(t))], step)
    assert (time_index.kind, time_index.freq, time_index.unit) == ("integer", step, "")
    stamps = time_index.stamps(t)
    assert stamps.dtype == np.int64
    np.testing.assert_array_equal(time_index.steps(stamps), t)
    assert time_index.features(t)[0].shape == (len(t), 0)
    assert time_index.default_season == 1


@pytest.mark.parametrize(("stamps", "step"), [([3, 5, 9], 2), ([3], 1), ([0, 6, 15], 3)])
def test_the_step_of_integers_divides_all_gaps(stamps, step):
    assert TimeIndex.of(np.array(stamps), [0, len(stamps)]).freq == step


@pytest.mark.parametrize("freq", CALENDAR)
def test_steps_long_before_the_data(freq):
    index = stamps_of(freq, None, "1995-01-01", 200)
    time_index = index_of(index[-2:], freq)
    np.testing.assert_array_equal(time_index.steps(index), np.arange(-198, 2))


@pytest.mark.parametrize(
    ("freq", "stamps"),
    [("W-MON", ["2024-01-01", "2024-01-08"]), ("MS", ["2024-01-01", "2024-02-01"])],
)
def test_the_grid_starts_at_the_first_stamp_that_is_on_it(freq, stamps):
    index = pd.DatetimeIndex(["2023-12-30", *stamps])
    _, there = index_of(index, freq).locate(index)
    assert there.tolist() == [False, True, True]


def test_stamps_may_be_dates():
    days = np.arange("2024-01-01", "2024-01-05", dtype="datetime64[D]")
    time_index = index_of(days)
    assert (time_index.freq, time_index.unit) == ("D", "s")
    np.testing.assert_array_equal(time_index.steps(days), np.arange(4))


def test_a_time_index_does_not_start_at_an_hour_that_was_moved():
    days = pd.date_range("2016-10-16", periods=5, freq="D")  # there is no midnight on the first
    index = days.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    time_index = index_of(index)
    np.testing.assert_array_equal(np.diff(time_index.steps(index)), 1)
    assert time_index.freq == "D"


class Nameless(datetime.tzinfo):
    """A zone that cannot be made again from its name."""

    def __init__(self, minutes):
        self.offset = None if minutes is None else datetime.timedelta(minutes=minutes)

    def utcoffset(self, _):
        return self.offset

    def __str__(self):
        return "?"


def test_zones_have_names():
    assert zone(Nameless(-90)) == "UTC-01:30"
    with pytest.raises(TimeError, match="expected a time zone with a name"):
        zone(Nameless(None))


def test_shapes_are_kept():
    time_index = index_of(stamps_of("MS", None))
    t = np.arange(6.0).reshape(2, 3)
    assert time_index.stamps(t).shape == (2, 3)
    np.testing.assert_array_equal(time_index.steps(time_index.stamps(t)), t)
    assert time_index.stamps(3.0).shape == ()
    assert time_index.steps(np.empty(0, "datetime64[us]")).shape == (0,)


INFERRED = {
    **{freq: freq for freq in [*ABSOLUTE, "D", "2D", "B", "W-MON", "MS", "ME", "2MS", "QS"]},
    **{"W": "W-SUN", "QE-DEC": "QE", "QS-FEB": "QS-FEB", "2W-FRI": "2W-FRI", "QE-JAN": "QE-JAN"},
    **{"YS": "YS", "YE": "YE", "YE-MAR": "YE-MAR", "YS-APR": "YS-APR", "2YE": "2YE"},
    **{"BMS": "BMS", "BME": "BME", "BQE": "BQE", "BYS": "BYS", "6ME": "6ME", "10D": "10D"},
    "4W-MON": "4W-MON",
}


@pytest.mark.parametrize("tz", [None, "America/Sao_Paulo"])
@pytest.mark.parametrize("freq", INFERRED)
def test_the_frequency_is_inferred(freq, tz):
    index = stamps_of(freq, tz, "2015-12-01", 40)
    assert index_of(index).freq == INFERRED[freq]


@pytest.mark.parametrize("freq", ["h", "D", "B", "W-MON", "MS", "QE"])
def test_the_frequency_is_inferred_in_spite_of_gaps(freq):
    index = stamps_of(freq, None).delete([3, 4, 17, 40])
    time_index = index_of(index)
    assert time_index.freq == freq
    np.testing.assert_array_equal(time_index.steps(index), np.delete(np.arange(60), [3, 4, 17, 40]))


def test_short_series_take_over_what_long_ones_have():
    long, short = stamps_of("D", None, periods=9), pd.DatetimeIndex(["2016-01-04", "2016-01-06"])
    time_index = TimeIndex.of(long.append(short).append(short[:1]), [0, 9, 11, 12])
    assert time_index.freq == "D"


def test_days_within_a_week_go_with_either():
    week = pd.date_range("2024-01-01", periods=4, freq="D")
    assert TimeIndex.of(week, [0, 4]).freq == "D"
    both = pd.bdate_range("2024-01-01", periods=12).append(week)
    assert TimeIndex.of(both, [0, 12, 16]).freq == "B"


def series(*parts):
    index = parts[0]
    for part in parts[1:]:
        index = index.append(part)
    return index, np.concatenate([[0], np.cumsum([len(part) for part in parts])])


def test_weeks_may_end_on_different_days():
    days = [pd.date_range(start, periods=5, freq="7D") for start in ("2024-01-01", "2024-01-06")]
    index, offsets = series(*days)
    time_index = TimeIndex.of(index, offsets)
    assert time_index.freq == "W"
    t = time_index.steps(index)
    np.testing.assert_array_equal(np.diff(t[:5]), 1)
    np.testing.assert_array_equal(np.diff(t[5:]), 1)
    assert t[5] == pytest.approx(5 / 7, abs=1e-7)
    np.testing.assert_array_equal(time_index.stamps(t + 100), index + pd.Timedelta(days=700))


@given(
    st.sampled_from(["h", "D", "W", "2W", "2MS", "3MS", "2QS", "12ME", 6]),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
    st.integers(-1000, 10**6),
)
def test_series_may_be_out_of_phase(freq, phases, far):
    if freq == 6:
        parts = [np.arange(3) * 6 + phase for phase in phases]
        index, offsets = np.concatenate(parts), np.arange(len(parts) + 1) * 3
    else:
        grid = {"h": "5min", "D": "h", "W": "D", "2W": "D", "2QS": "QS", "12ME": "ME"}
        fine = pd.date_range("2024-01-31", periods=12, freq=grid.get(freq, "MS"))
        starts = [fine[phase] for phase in phases]
        index, offsets = series(
            *(
                pd.DatetimeIndex([s + k * pd.tseries.frequencies.to_offset(freq) for k in range(3)])
                if freq not in ("W", "2W")
                else pd.date_range(s, periods=3, freq=f"{7 if freq == 'W' else 14}D")
                for s in starts
            )
        )
    time_index = TimeIndex.of(index, offsets, freq)
    t = time_index.steps(index)
    for i in range(len(phases)):
        np.testing.assert_array_equal(np.diff(t[offsets[i] : offsets[i + 1]]), 1)
    np.testing.assert_array_equal(time_index.stamps(t), index)
    far = far if freq == "h" else far % 100
    np.testing.assert_array_equal(time_index.steps(time_index.stamps(t + far)), t + far)


def test_a_clock_makes_room_for_the_phases_of_new_series():
    index = pd.date_range("2024-01-01", periods=4, freq="h")
    time_index = index_of(index)
    half = index + pd.Timedelta(minutes=30)
    with pytest.raises(TimeError, match=r"row 0: .*grid of freq='h', such as 2024-01-01 or "):
        time_index.steps(half)
    refined = time_index.refine(half[:1])
    np.testing.assert_array_equal(refined.steps(half), np.arange(4) + 0.5)
    np.testing.assert_array_equal(refined.steps(index), time_index.steps(index))
    assert refined.refine(index[:1]) == refined
    irregular = index_of(index, "irregular")
    assert irregular.refine(half) is irregular


def test_series_without_a_common_grid():
    stamps = np.array([0, 3_600_000_000, 1_234_567, 3_601_234_567]).view("datetime64[us]")
    with pytest.raises(TimeError, match=r"id 1, row 2: .*plain fraction of freq='h'"):
        TimeIndex.of(stamps, [0, 2, 4], "h")


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20, unique=True))
def test_irregular(seconds):
    stamps = np.sort(np.array(seconds)).astype("datetime64[s]")
    time_index = TimeIndex.of(stamps, [0, len(stamps)], "irregular")
    assert time_index.kind == time_index.freq == "irregular"
    assert time_index.step == np.median(np.diff(stamps).astype(np.int64))
    t = time_index.steps(stamps)
    assert t[0] == 0
    np.testing.assert_array_equal(time_index.stamps(t), stamps)
    assert TimeIndex.from_dict(json.loads(json.dumps(time_index.to_dict()))) == time_index


def test_irregular_integers_and_zones():
    time_index = TimeIndex.of(np.array([2, 3, 7]), [0, 3], "irregular")
    np.testing.assert_array_equal(time_index.steps(np.array([2, 7])), [0, 2])
    np.testing.assert_array_equal(time_index.stamps([1.0, 2.0]), [4, 7])  # steps of 2.5, rounded
    index = pd.DatetimeIndex(["2024-03-31 00:00", "2024-04-01 00:00"], tz="Europe/Berlin")
    assert index_of(index, "irregular").step == 23 * 3600
    assert index_of(index, "irregular").default_season == 1
    with pytest.raises(TimeError, match="two rows or more"):
        index_of(index[:1], "irregular")


def test_days_and_hours_are_counted_on_the_local_calendar():
    night = pd.DatetimeIndex(["2024-03-30 12:00", "2024-03-31 12:00"], tz="Europe/Berlin")
    assert index_of(night).freq == "D"
    np.testing.assert_array_equal(index_of(night, "D").steps(night), [0, 1])
    np.testing.assert_array_equal(index_of(night, "h").steps(night), [0, 24])
    np.testing.assert_array_equal(index_of(night[:1], "2h").steps(night[:1]), [0])
    assert not index_of(night[:1], "2h").wall
    assert not index_of(night.tz_convert("UTC"), "h").wall
    assert not index_of(night.tz_convert("Australia/Lord_Howe"), "h").wall  # half an hour
    assert index_of(night.tz_convert("Australia/Lord_Howe"), "30min").wall


@pytest.mark.parametrize("freq", ["2h", "6h", "12h"])
@pytest.mark.parametrize("day", ["2024-03-28", "2024-10-24"])
def test_longer_steps_keep_to_the_clock_that_their_stamps_keep_to(freq, day):
    local = pd.date_range(day, periods=60, freq=freq).tz_localize("Europe/London")
    absolute = pd.date_range(day, periods=60, freq=freq, tz="Europe/London")
    for index, wall in ((local, True), (absolute, False)):
        time_index = index_of(index)
        assert (time_index.freq, time_index.wall) == (freq, wall)
        np.testing.assert_array_equal(time_index.steps(index), np.arange(60))
        ahead = time_index.following(time_index.ticks(index[:1]), np.zeros(1), 59)
        np.testing.assert_array_equal(ahead[0], index[1:].tz_convert(None))


@pytest.mark.parametrize("freq", ["h", "30min", "15min"])
@pytest.mark.parametrize("month", ["03", "10"])
def test_hours_that_are_left_out_are_closed_and_those_that_come_twice_are_one(freq, month):
    day = {"03": "2024-03-31", "10": "2024-10-27"}[month]
    index = pd.date_range(day, periods=5 * 24, freq=freq, tz="Europe/Berlin")
    time_index = index_of(index)
    t = time_index.steps(index)
    per_hour = {"h": 1, "30min": 2, "15min": 4}[freq]
    left_out = np.arange(2 * per_hour, 3 * per_hour)
    if month == "03":
        np.testing.assert_array_equal(
            np.flatnonzero(~time_index.open(np.arange(t.max()))), left_out
        )
        np.testing.assert_array_equal(time_index.stamps(t), index.tz_convert(None))
    else:
        assert time_index.open(np.arange(t.max())).all()
        np.testing.assert_array_equal(t[3 * per_hour : 4 * per_hour], left_out)
        np.testing.assert_array_equal(
            time_index.again(left_out), time_index.ticks(index[3 * per_hour : 4 * per_hour])
        )
    ahead = time_index.following(time_index.ticks(index[:1]), t[:1], len(index) - 1)
    np.testing.assert_array_equal(ahead[0], index[1:].tz_convert(None))


def test_both_of_two_equal_local_times_are_that_day():
    twice = pd.DatetimeIndex(["2024-10-26 02:30", "2024-10-27 02:30", "2024-10-27 02:30"])
    index = twice.tz_localize("Europe/Berlin", ambiguous=[True, True, False])
    np.testing.assert_array_equal(index_of(index[:2], "D").steps(index), [0, 1, 1])


FEATURES = {
    "h": ("hour", "weekday"),
    "15min": ("hour", "weekday"),
    "s": ("hour", "weekday"),
    "D": ("weekday", "yearday"),
    "B": ("weekday", "yearday"),
    "W-MON": ("week",),
    "SMS": ("month",),
    "ME": ("month",),
    "QS": ("quarter",),
    "YE": (),
}


@pytest.mark.parametrize("freq", FEATURES)
def test_features_suit_the_frequency(freq):
    index = stamps_of(freq, None)
    time_index = index_of(index, freq)
    features, names = time_index.features(time_index.steps(index))
    assert names == tuple(f"{name}_{wave}" for name in FEATURES[freq] for wave in ("sin", "cos"))
    assert features.shape == (60, len(names))
    assert features.dtype == np.float64
    np.testing.assert_allclose(features[:, ::2] ** 2 + features[:, 1::2] ** 2, 1)


def angle(features, names, name):
    i = names.index(f"{name}_sin")
    return np.arctan2(features[:, i], features[:, i + 1]) / (2 * np.pi) % 1


def test_features_are_in_local_time():
    index = pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin")
    time_index = index_of(index)
    features, names = time_index.features(time_index.steps(index))
    np.testing.assert_allclose(angle(features, names, "hour") * 24 % 24, index.hour, atol=1e-9)
    np.testing.assert_allclose(
        angle(features, names, "weekday") * 7 % 7, index.day_of_week, atol=1e-9
    )


@pytest.mark.parametrize(
    ("freq", "name", "phase"),
    [
        ("D", "yearday", lambda index: (index.day_of_year - 1) / 365.25),
        ("W-WED", "week", lambda index: (index.day_of_year - 1) / 365.25),
        ("MS", "month", lambda index: (index.month - 1) / 12),
        ("QE", "quarter", lambda index: (index.quarter - 1) / 4),
    ],
)
def test_features_go_round_the_calendar(freq, name, phase):
    index = stamps_of(freq, None)
    features, names = index_of(index, freq).features(np.arange(60))
    np.testing.assert_allclose(angle(features, names, name), phase(index), atol=1e-9)


@pytest.mark.parametrize(("hours", "name"), [(1, "hour"), (30, "weekday"), (24 * 30, "month")])
def test_irregular_clocks_have_the_features_of_their_usual_gap(hours, name):
    index = pd.DatetimeIndex(["2024-01-01"]).append(
        pd.DatetimeIndex(["2024-01-01"]) + pd.Timedelta(hours=hours)
    )
    assert f"{name}_sin" in index_of(index, "irregular").features([0.0, 1.0])[1]


SEASONS = {
    **{"h": 24, "30min": 48, "15min": 96, "2h": 12, "7h": 1, "min": 1440, "s": 3600, "24h": 7},
    **{"D": 7, "2D": 1, "B": 5, "W": 52, "W-MON": 52, "2W": 26, "3W": 1, "MS": 12, "ME": 12},
    **{"3MS": 4, "QS": 4, "QE-DEC": 4, "2QE": 2, "YS": 1, "YE-MAR": 1, "SME": 24, "bh": 8},
    **{"36h": 1, "168h": 52, "48h": 1},
}


@pytest.mark.parametrize("freq", SEASONS)
def test_default_seasons(freq):
    assert Frequency.parse(freq).season == SEASONS[freq]
    assert TimeIndex("datetime", freq, 0).default_season == SEASONS[freq]


@pytest.mark.parametrize(
    ("period", "alias"),
    [
        ("M", "MS"),
        ("2M", "2MS"),
        ("Q-DEC", "QS"),
        ("Q-NOV", "QS-DEC"),
        ("Y-DEC", "YS"),
        ("Y-MAR", "YS-APR"),
        ("A-DEC", "YS"),
        ("W-SUN", "W-MON"),
        ("D", "D"),
        ("h", "h"),
    ],
)
def test_periods_are_known_by_their_starts(period, alias):
    assert of_period(period) == alias


@pytest.mark.parametrize(
    "freq", ["D", "W-SUN", "W-WED", "M", "Q-DEC", "Q-JAN", "Y-DEC", "Y-JUN", "h"]
)
def test_starts_of_periods_are_on_their_grid(freq):
    periods = pd.period_range("2020-01-01", periods=30, freq=freq)
    start = periods.to_timestamp(how="start")
    time_index = index_of(start, of_period(periods.freqstr))
    np.testing.assert_array_equal(time_index.steps(start), np.arange(30))


def test_offsets_and_durations_of_pandas_have_aliases():
    day = pd.date_range("2024-01-01", periods=3, freq="D")
    assert index_of(day, pd.offsets.Day()).freq == "D"
    assert index_of(day, pd.Timedelta(hours=12)).freq == "12h"
    assert index_of(day, pd.offsets.Hour(3)).freq == "3h"
    assert index_of(day[:1], pd.offsets.MonthBegin()).freq == "MS"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("H", "h"),
        ("T", "min"),
        ("2H", "2h"),
        ("M", "ME"),
        ("Q", "QE"),
        ("Q-NOV", "QE-NOV"),
        ("A", "YE"),
        ("A-JUN", "YE-JUN"),
        ("Y", "YE"),
        ("AS", "YS"),
        ("BM", "BME"),
        ("S", "s"),
        ("d", "D"),
        ("w", "W"),
        ("monthly", "MS"),
    ],
)
def test_old_aliases_are_told_the_new_one(old, new):
    with pytest.raises(TimeError, match=f"found '{old}'. It is now '{new}'"):
        Frequency.parse(old)


@pytest.mark.parametrize("freq", ["fortnight", "0D", "-1h", "", "X-MON", pd.DateOffset(day=1)])
def test_unknown_frequencies_are_told_what_to_give(freq):
    with pytest.raises(TimeError, match=r"freq: expected .*found"):
        Frequency.parse(freq)


def test_frequencies_of_the_wrong_kind():
    day = pd.date_range("2024-01-01", periods=3, freq="D")
    with pytest.raises(TimeError, match=r"found 1. Use one of 's', 'min'"):
        index_of(day, 1)
    assert TimeIndex.of(np.arange(3), [0, 3], "D").freq == 1
    with pytest.raises(TimeError, match="found 'fortnight'"):
        TimeIndex.of(np.arange(3), [0, 3], "fortnight")
    for freq in (0, -2, 1.5, True):
        with pytest.raises(TimeError, match=f"whole number of at least 1.*found {freq!r}"):
            TimeIndex.of(np.arange(3), [0, 3], freq)
    with pytest.raises(TimeError, match="found dtype float64"):
        TimeIndex.of(np.arange(3.0), [0, 3])
    with pytest.raises(TimeError, match="positive length"):
        index_of(day, pd.Timedelta(0))


def test_one_row_has_no_frequency():
    day = pd.date_range("2024-01-01", periods=2, freq="D")
    with pytest.raises(
        TimeError, match=r"series of one row only. Give freq=, one of 's'"
    ) as caught:
        TimeIndex.of(day, [0, 1, 2])
    assert (caught.value.id, caught.value.row) == (0, 0)


@pytest.mark.parametrize(
    ("days", "found"),
    [([0, 2, 5], "2 days"), ([0, 1.5, 2.5], "1 days 00:00:00"), ([0, 31, 45], "14 days")],
)
def test_stamps_without_a_frequency(days, found):
    index = pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D")
    with pytest.raises(
        TimeError,
        match=f"no multiples of its smallest one, {found}.*irregular.*integers.*to_period",
    ):
        index_of(index)


@pytest.mark.parametrize(
    ("one", "other", "match"),
    [
        ("h", "2h", "step of 0 days 02:00:00 here and of 0 days 01:00:00 in id 0"),
        ("D", "W-MON", "step of 7 days here and of 1 day in id 0"),
        ("MS", "QS", "step of 3 months here and of 1 month in id 0"),
        ("D", "B", "no weekends here but some in id 0"),
        ("D", "MS", "found 'MS' here and 'D' in id 0"),
    ],
)
def test_series_must_agree(one, other, match):
    index, offsets = series(stamps_of(one, None), stamps_of(other, None))
    match = match.replace("0 days ", "")
    with pytest.raises(TimeError, match=match) as caught:
        TimeIndex.of(index, offsets)
    assert (caught.value.id, caught.value.row) == (1, 60)


@pytest.mark.parametrize(
    ("freq", "wrong", "near"),
    [
        ("MS", "2024-03-02", "2024-03-01 or 2024-04-01"),
        ("h", "2024-03-02 00:10", "2024-03-02 or 2024-03-02 01:00:00"),
        ("W-MON", "2024-03-03", "2024-02-26 or 2024-03-04"),
        ("B", "2024-03-03", "2024-03-01 or 2024-03-04"),
        ("2MS", "2024-03-02", "2024-03-01 or 2024-05-01"),
    ],
)
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_stamps_off_the_grid(freq, wrong, near, tz):
    index = pd.date_range("2024-01-01", periods=4, freq=freq, tz=tz)
    time_index = index_of(index, freq)
    before, after = near.split(" or ")
    with pytest.raises(
        TimeError, match=f"such as {before}.* or {after}.*; found {wrong}"
    ) as caught:
        time_index.steps(index.append(pd.DatetimeIndex([wrong], tz=tz)))
    assert caught.value.row == 4


def test_a_start_off_the_grid():
    with pytest.raises(TimeError, match=r"grid of freq='MS', found 2024-01-02. Give the freq="):
        index_of(pd.DatetimeIndex(["2024-01-02", "2024-01-03"]), "MS")


def test_stamps_of_another_kind():
    time_index = index_of(stamps_of("D", None))
    with pytest.raises(TimeError, match="expected datetimes as in training, found integers"):
        time_index.steps(np.arange(3))


def test_stamps_beyond_what_datetimes_hold():
    time_index = index_of(stamps_of("YS", None, "2000", 5).as_unit("ns"))
    assert time_index.stamps(200.0) == np.datetime64("2200-01-01")
    assert time_index.stamps(260.0) == np.datetime64("2260-01-01")
    with pytest.raises(TimeError, match=r"datetimes can hold.*Use a shorter horizon"):
        time_index.stamps(300.0)
    assert time_index.steps(np.array(["2262-01-01"], "datetime64[ns]")) == [262]


def test_steps_beyond_64_bits():
    time_index = index_of(stamps_of("D", None).as_unit("ns"), "D")
    assert time_index.stamps(80_000.0) > np.datetime64("2230")
    for t in (100_000.0, -200_000.0):
        with pytest.raises(TimeError, match="64 bits can hold"):
            time_index.stamps(t)


def test_units_are_as_fine_as_the_frequency_needs():
    index = stamps_of("D", None).as_unit("s")
    assert index_of(index, "D").unit == "s"
    assert index_of(index, "500ms").unit == "ms"
    assert index_of(index, "h").stamps([0.5]).dtype == "datetime64[s]"
