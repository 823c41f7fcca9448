"""Calendars at the dataframe: offsets, sessions, the wall clock, seasons, what errors advise."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Columns, DataError, Forecaster, TimeError
from seqlatent.forecasting.frames import read


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
    with pytest.raises(TimeError, match=r"years 1 to 9999.*10001-12-31.*shorter horizon"):
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
    assert read(advised).panel.clock.freq == freq


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
