"""Classic series: long frames with real dates, every value where it belongs."""

import numpy as np
import pandas as pd
import pytest

from seqlatent import datasets

# name: rows, series, missing values, frequency, first day, last day
SETS = {
    "nile": (100, 1, 0, "YS", "1871-01-01", "1970-01-01"),
    "co2": (2284, 1, 59, "W-SAT", "1958-03-29", "2001-12-29"),
    "sunspots": (309, 1, 0, "YS", "1700-01-01", "2008-01-01"),
    "elnino": (732, 1, 0, "MS", "1950-01-01", "2010-12-01"),
    "macrodata": (2436, 12, 0, "QS", "1959-01-01", "2009-07-01"),
    "interest_inflation": (214, 2, 0, "QS", "1972-04-01", "1998-10-01"),
    "danish_money": (275, 5, 0, "QS", "1974-01-01", "1987-07-01"),
    "elec_equip": (257, 1, 0, "MS", "1995-01-01", "2016-05-01"),
    "grunfeld": (220, 11, 0, "YS", "1935-01-01", "1954-01-01"),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_a_long_frame_with_regular_dates(name):
    rows, series, missing, freq, first, last = SETS[name]
    frame = getattr(datasets, name)()
    assert list(frame.columns[:3]) == ["unique_id", "ds", "y"]
    assert len(frame) == rows
    assert frame["unique_id"].nunique() == series
    assert frame["y"].dtype == np.float64
    assert frame["y"].isna().sum() == missing
    assert (frame.index == np.arange(rows)).all()
    expected = pd.date_range(first, last, freq=freq)
    for _, ds in frame.groupby("unique_id")["ds"]:
        assert (ds.to_numpy() == expected.to_numpy()).all()


@pytest.mark.parametrize(
    ("name", "unique_id", "day", "value"),
    [
        ("nile", "nile", "1913-01-01", 456.0),
        ("co2", "co2", "1958-03-29", 316.1),
        ("elnino", "elnino", "1951-02-01", 25.28),
        ("macrodata", "unemp", "1959-04-01", 5.1),
        ("macrodata", "realint", "2009-07-01", -3.44),
        ("interest_inflation", "R", "1998-10-01", 0.038),
        ("danish_money", "ide", "1974-04-01", 0.0955),
        ("grunfeld", "US Steel", "1935-01-01", 209.9),
    ],
)
def test_values_lie_where_they_belong(name, unique_id, day, value):
    frame = getattr(datasets, name)()
    row = frame[(frame["unique_id"] == unique_id) & (frame["ds"] == pd.Timestamp(day))]
    assert row["y"].item() == pytest.approx(value, rel=1e-12)


def test_the_panel_keeps_its_covariates():
    frame = datasets.grunfeld()
    assert list(frame.columns) == ["unique_id", "ds", "y", "value", "capital"]
    assert frame.iloc[0].tolist()[2:] == [317.6, 3078.5, 2.8]


def test_every_call_gives_a_frame_of_its_own():
    frame = datasets.nile()
    frame["y"] = 0.0
    assert datasets.nile()["y"].iloc[0] == 1120.0
