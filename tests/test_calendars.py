"""Calendars at the dataframe: offsets, sessions, the wall clock, seasons, what errors advise."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Forecaster


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
