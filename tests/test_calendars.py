"""Calendars at the dataframe: offsets, sessions, the wall clock, seasons, what errors advise."""

import re

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import (
    Columns,
    CovariateError,
    DataError,
    Forecaster,
    GapsWarning,
    TimeError,
)
from seqlatent.forecasting.engines.latent.recipes import deep_state
from seqlatent.forecasting.frames.read import read


def long(ds, y=None, id="a"):
    y = np.arange(len(ds), dtype=float) if y is None else y
    return pd.DataFrame({"unique_id": id, "ds": ds, "y": y})


OFFSETS = [
    pd.offsets.CustomBusinessDay(holidays=["2024-12-25", "2024-12-26", "2025-01-01"]),
    pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu"),
    pd.offsets.BusinessHour(start="08:00", end="12:00"),
    pd.offsets.CustomBusinessMonthEnd(holidays=["2024-12-31"]),
    pd.DateOffset(months=1, day=15),
]


@pytest.mark.parametrize("offset", OFFSETS, ids=str)
def test_fit_update_load_and_refit_keep_the_calendar(offset, tmp_path):
    ds = pd.date_range("2024-11-01", periods=61, freq=offset)[1:]
    model = Forecaster("naive", freq=offset).fit(long(ds[:20]))
    assert model.predict(6)["ds"].tolist() == ds[20:26].tolist()
    model.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    for found in (model, loaded):
        found.update(long(ds[20:40]))
        assert found.predict(20)["ds"].tolist() == ds[40:].tolist()
    refitted = Forecaster("naive", freq=loaded.freq).fit(long(ds[:50]))
    assert refitted.predict(10)["ds"].tolist() == ds[50:].tolist()
    windows = model.cross_validation(long(ds), 3, n_windows=2)
    assert windows["ds"].tolist() == ds[-6:].tolist()


def test_the_offset_of_an_index_is_kept():
    ds = pd.date_range("2024-12-02", periods=16, freq=OFFSETS[0])
    wide = pd.DataFrame({"shop": np.arange(16.0)}, index=ds)
    found = Forecaster("naive").fit(wide).predict(6)["ds"]
    assert found.tolist() == pd.date_range(ds[-1], periods=7, freq=OFFSETS[0])[1:].tolist()


def test_stamps_beyond_the_last_year():
    years = np.array([f"{year}-12-31" for year in range(9900, 9999)], "datetime64[us]")
    model = Forecaster("naive").fit(long(years))
    assert model.predict(1)["ds"].tolist() == [pd.Timestamp("9999-12-31")]
    with pytest.raises(TimeError, match=r"(10001-12-31|datetimes can hold).*shorter horizon"):
        model.predict(3)


def test_nanoseconds_that_run_out():
    ds = pd.date_range("2262-01-01", periods=90, unit="ns")
    with pytest.raises(TimeError, match="64 bits can hold"):
        Forecaster("naive").fit(long(ds)).predict(30)


# --- what errors advise ----------------------------------------------------------------------


def refused(df, columns=None):
    with pytest.raises(DataError) as caught:
        read(df, columns)
    return str(caught.value)


@pytest.mark.parametrize("freq", ["h", "15min"])
def test_a_naive_hour_that_comes_twice_is_about_time_zones(freq):
    ds = pd.date_range("2024-10-25", "2024-10-29", freq=freq, tz="Europe/London")
    df = pd.concat([long(ds.tz_localize(None)), long(ds.tz_localize(None), id="b")])
    assert "found 2024-10-27 01:00:00 again. If the clocks went back" in refused(df)
    advised = df.assign(
        ds=df.groupby("unique_id")["ds"].transform(
            lambda s: s.dt.tz_localize("Europe/London", ambiguous="infer")
        )
    )
    assert read(advised).panel.time_index.freq == freq


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-10-26", "2024-10-27", "2024-10-27"],
        ["2024-10-27 00:00", "2024-10-27 01:00", "2024-10-27 01:00", "2024-10-27 01:00"],
        ["2024-10-27 11:00", "2024-10-27 12:00", "2024-10-27 12:00"],
    ],
)
def test_other_stamps_that_come_twice_are_dropped_or_added_up(stamps):
    assert "Drop or add up" in refused(long(pd.to_datetime(stamps)))


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_a_frame_without_ids_is_told_how_to_name_its_series(backend):
    df = long(pd.date_range("2024-01-01", periods=9)).drop(columns="unique_id")
    if backend == "pandas":
        assert "df.assign(unique_id='mine')" in refused(df)
        assert read(df.assign(unique_id="mine")).panel.batch == 1
        assert read(df.set_index("ds")["y"]).panel.batch == 1
    else:
        pl = pytest.importorskip("polars")
        text = refused(pl.from_pandas(df))
        assert "df.with_columns(pl.lit('mine').alias('unique_id'))" in text


@pytest.mark.parametrize("dtype", ["str", "category"])
def test_words_as_a_covariate_hear_of_indicator_columns(dtype):
    ds = pd.date_range("2024-01-01", periods=9)
    df = long(ds).assign(weather=pd.Series(["sun", "rain", "snow"] * 3).astype(dtype))
    assert "df = pd.get_dummies(df, columns=['weather'], drop_first=True)" in refused(df)
    if dtype == "str":
        assert "pd.get_dummies(df, columns=['weather'], drop_first=True)" in refused(
            df, Columns(past=["weather"])
        )
    made = pd.get_dummies(df, columns=["weather"], drop_first=True)
    assert read(made).names == ("weather_snow", "weather_sun")


# --- the wall clock --------------------------------------------------------------------------

CHANGES = {"spring": "2024-03-31", "autumn": "2024-10-27"}


def local_hours(change, freq="h", days=24, tz="Europe/London"):
    """A series of the local time of day, some days before a change of clocks and two after."""
    day = pd.Timestamp(CHANGES[change])
    start, end = day - pd.Timedelta(days=days), day + pd.Timedelta(days=2)
    ds = pd.date_range(start, end, freq=freq, tz=tz, inclusive="left")
    return long(ds, ds.hour + ds.minute / 60), ds < pd.Timestamp(day, tz=tz)


@pytest.mark.parametrize("model", ["seasonal_naive", "ets", "theta"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_season_of_the_day_follows_the_wall_clock(model, change):
    df, before = local_hours(change)
    df["y"] += 0.05 * np.random.default_rng(0).normal(size=len(df))
    h = int((~before).sum())
    found = Forecaster(model).fit(df[before]).predict(h)
    assert found["ds"].tolist() == df["ds"][~before].tolist()
    np.testing.assert_allclose(found[model], found["ds"].dt.hour, atol=0.3)
    drawn = Forecaster(model).fit(df[before]).sample(h, n=2)
    assert drawn["ds"].tolist() == 2 * found["ds"].tolist()


@pytest.mark.parametrize("freq", ["h", "30min"])
@pytest.mark.parametrize("change", CHANGES)
def test_updates_through_a_change_of_clocks_are_a_forecast_from_all_rows(freq, change, tmp_path):
    df, before = local_hours(change, freq)
    model = Forecaster("seasonal_naive").fit(df[before])
    for i in np.flatnonzero(~before)[: 6 * (2 if freq == "30min" else 1)]:
        model.update(df[i : i + 1])
        found, wanted = model.predict(8), model.predict(8, df=df[: i + 1])
        assert found["ds"].tolist() == df["ds"][i + 1 : i + 9].tolist()
        pd.testing.assert_frame_equal(found, wanted)
        model.save(tmp_path / "model")
        pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "model").predict(8), wanted)
        with pytest.raises(TimeError, match="expected rows after the last one seen"):
            model.update(df[i - 3 : i + 1])
    ahead = df["ds"].between(*found["ds"].iloc[[0, -1]])
    off = found["seasonal_naive"].to_numpy() - df["y"][ahead].to_numpy()
    assert np.abs(off[-3:]).max() < 1e-9


def test_two_series_pass_a_change_of_clocks_at_different_rows():
    df, before = local_hours("autumn")
    ends = np.flatnonzero(~before)[[0, 1]] + 1  # at midnight, and at the first of two ones
    both = pd.concat([df[: ends[0]], df[: ends[1]].assign(unique_id="b")])
    model = Forecaster("seasonal_naive").fit(both)
    found = model.predict(5)
    wanted = [*df["ds"][ends[0] : ends[0] + 5], *df["ds"][ends[1] : ends[1] + 5]]
    assert found["ds"].tolist() == wanted
    rest = [df[ends[0] : ends[0] + 2], df[ends[1] : ends[1] + 1].assign(unique_id="b")]
    again = model.update(pd.concat(rest)).predict(5)
    wanted = [*df["ds"][ends[0] + 2 : ends[0] + 7], *df["ds"][ends[1] + 1 : ends[1] + 6]]
    assert again["ds"].tolist() == wanted


@pytest.mark.parametrize("change", CHANGES)
def test_covariates_and_windows_pass_a_change_of_clocks(change):
    df, before = local_hours(change, days=6)
    df["x"] = np.arange(len(df)) % 5.0
    df["y"] += 3 * df["x"]
    model = Forecaster("sarimax", season_length=1).fit(df[before])
    ahead = df[~before].drop(columns="y")
    found = model.predict(30, X_df=ahead)
    assert found["ds"].tolist() == df["ds"][~before].tolist()[:30]
    with pytest.raises(CovariateError, match="found none at 2024"):
        model.predict(30, X_df=ahead.drop(index=ahead.index[4]))
    model.update(df[~before][:5])
    assert model.predict(3, X_df=ahead)["ds"].tolist() == df["ds"][~before].tolist()[5:8]
    windows = Forecaster("seasonal_naive").cross_validation(df.drop(columns="x"), 12, n_windows=4)
    assert len(windows) == 48
    truth = df.set_index("ds")["y"]
    assert (windows["y"].to_numpy() == truth[windows["ds"]].to_numpy()).all()
    assert windows["ds"].isin(df["ds"]).all()


@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_hours_that_are_left_out_are_never_given_back(change):
    df, _ = local_hours(change, days=6)
    df.loc[::7, "y"] = np.nan
    model = Forecaster(deep_state(steps=2, hidden_dim=4)).fit(df)
    for found in (model.impute(df), model.smooth(), model.score(df)):
        assert found["ds"].isin(df["ds"]).all()
    hole = df.drop(index=df.index[10:13])
    assert set(df["ds"][10:13]) <= set(model.impute(hole)["ds"])


def test_a_week_goes_on_after_a_holiday():
    day = pd.offsets.CustomBusinessDay(holidays=["2024-12-25", "2024-12-26", "2025-01-01"])
    ds = pd.date_range("2024-11-04", periods=60, freq=day)
    df = long(ds, ds.day_of_week.to_numpy(float))
    found = Forecaster("seasonal_naive", freq=day).fit(df[:36]).predict(15)
    assert found["ds"].tolist() == ds[36:51].tolist()
    np.testing.assert_allclose(found["seasonal_naive"], found["ds"].dt.day_of_week)
    with pytest.raises(TimeError, match="found 2024-12-25"):
        Forecaster("naive", freq=day).fit(long(pd.date_range("2024-12-23", periods=4)))


# --- seasons ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freq", "season"), [("1s", 3600), ("100ms", 600), ("1ms", 1000), ("1us", 1000), ("7ms", 1)]
)
def test_a_season_of_fast_data_stays_small_and_that_is_said(freq, season, tmp_path):
    ds = pd.date_range("2024-01-01", periods=200, freq=freq)
    model = Forecaster("seasonal_naive").fit(long(ds))
    assert model._configuration.seasons(model._fitted.panel) == ((season,) if season > 1 else ())
    model.save(tmp_path / "model")
    assert sum(file.stat().st_size for file in (tmp_path / "model").rglob("*")) < 200_000
    for found in (model, Forecaster.load(tmp_path / "model")):
        said = found.notes.get("seasonal_naive", {}).get(None, "")
        assert (f"the season is {season} steps" in said) == (freq in ("100ms", "1ms", "1us"))


def test_a_season_longer_than_all_series_is_left_out_and_that_is_said():
    ds = pd.date_range("2024-01-01", periods=200, freq="s")
    model = Forecaster("seasonal_naive", season_length=[60, 86_400]).fit(long(ds))
    assert model._configuration.seasons(model._fitted.panel) == (60,)
    assert "season of 86400 steps is left out" in model.notes["seasonal_naive"][None]


def test_rows_of_an_hour_that_comes_twice_are_counted_in_notes():
    df, _ = local_hours("autumn", "30min")
    model = Forecaster("naive").fit(df)
    assert "2 rows that came second in an hour" in model.notes["naive"][None]
    assert Forecaster("naive").fit(local_hours("spring")[0]).notes == {}


# --- sessions --------------------------------------------------------------------------------


def bars(days, start="11:00", count=4, minutes=30, tz=None):
    start = pd.Timedelta(f"{start}:00")
    ds = [d + start + pd.Timedelta(minutes=minutes * k) for d in days for k in range(count)]
    return pd.DatetimeIndex(ds, tz=tz)


@pytest.mark.parametrize("tz", [None, "America/New_York"])
@pytest.mark.parametrize(
    ("days", "season"),
    [
        (pd.bdate_range("2016-02-22", periods=25), 4),
        (pd.date_range("2016-03-01", periods=25), 4),
        (pd.bdate_range("2016-02-22", periods=25, freq="C", weekmask="Sun Mon Tue Wed"), 4),
    ],
)
def test_bars_of_a_session_go_on_in_the_next_one(days, season, tz):
    ds = bars(days, tz=tz)
    df = long(ds, np.arange(len(ds)) % 4.0)
    cut = 4 * 20 + 2
    model = Forecaster("seasonal_naive").fit(df[:cut].drop(index=[7, 33]))
    assert model._configuration.seasons(model._fitted.panel) == (season,)
    found = model.predict(10)
    assert found["ds"].tolist() == ds[cut : cut + 10].tolist()
    np.testing.assert_array_equal(found["seasonal_naive"], df["y"][cut : cut + 10])
    time_index = read(df).panel.time_index
    np.testing.assert_array_equal(time_index.steps(ds), np.arange(len(ds)))
    np.testing.assert_array_equal(time_index.steps(ds[::-1][:50]), np.arange(len(ds))[::-1][:50])
    assert time_index.steps(clock_stamps(time_index, [-7, -4, -1], tz)).tolist() == [-7, -4, -1]
    model.update(df[cut : cut + 3])
    assert model.predict(1)["ds"].tolist() == [ds[cut + 3]]


def clock_stamps(time_index, t, tz):
    stamps = pd.DatetimeIndex(time_index.stamps(np.array(t, float)))
    return stamps if tz is None else stamps.tz_localize("UTC").tz_convert(tz)


def test_stamps_outside_a_session_are_refused():
    ds = bars(pd.bdate_range("2016-02-22", periods=25))
    model = Forecaster("naive").fit(long(ds))
    late = ds[-1:] + pd.Timedelta("30min")
    with pytest.raises(TimeError, match=r"such as 2016-03-25 12:30:00 or 2016-03-28 11:00:00"):
        model.update(long(late))


def test_nights_without_rows_may_be_gaps():
    days = pd.date_range("2016-02-22", periods=12)
    rng = np.random.default_rng(0)
    some = bars(days, start="06:00", count=12, minutes=60)
    thin = some[np.sort(rng.permutation(len(some))[: len(some) // 2])]
    assert read(long(thin)).panel.time_index.freq == "h"  # rows lack within the day too
    assert read(long(bars(days[:2]))).panel.time_index.freq == "30min"  # two days are too few
    assert read(long(bars(days, "00:00", 20, 60))).panel.time_index.freq == "h"  # short nights
    two = pd.concat([long(bars(days)), long(bars(days, "08:00"), id="b")])
    assert read(two).panel.time_index.freq == "30min"


# --- a frequency that hardly any step has a row at ----------------------------------------------


@pytest.mark.parametrize(
    ("asked", "stamps", "meant"),
    [
        ("D", pd.date_range("2020-01-01", periods=40, freq="MS"), "freq='MS' is what the stamps"),
        ("D", pd.date_range("2020-01-01", periods=40, freq="ME"), "freq='ME' is what the stamps"),
        ("h", pd.date_range("2020-01-01", periods=40, freq="D"), "freq='D' is what the stamps"),
        ("min", pd.date_range("2020-03-29", periods=40, freq="h", tz="Europe/Berlin"), "freq='h'"),
        ("MS", pd.date_range("2001-01-01", periods=20, freq="YS"), "freq='YS'"),
        (1, np.arange(40) * 30, "freq=30 is what the stamps"),
        ("D", pd.date_range("2020-01-01", periods=40, freq="SMS"), "give the freq= that the"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_a_grid_without_rows_is_warned_of_and_noted(asked, stamps, meant):
    df = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": np.arange(float(len(stamps)))})
    text = f" % of the steps of freq={asked!r} have no row and count as missing: {meant}"
    with pytest.warns(GapsWarning, match=rf"^9\d{re.escape(text)}") as found:
        model = Forecaster("naive", freq=asked).fit(df)
    assert len(found) == 1
    assert meant in model.notes["naive"][None]


def test_a_grid_with_some_rows_is_not(recwarn):
    stamps = pd.date_range("2020-01-01", periods=40, freq="W-WED")
    df = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": np.arange(40.0)})
    assert not Forecaster("naive", freq="D").fit(df).notes
    # what no one asked for is inferred, and has gaps as data have
    days = pd.date_range("2020-01-01", periods=40).append(pd.DatetimeIndex(["2022-01-01"]))
    assert not Forecaster("naive").fit(long(days)).notes
    assert not recwarn.list
