"""Laws of order: rows and series come in any order, and series do not see each other."""

import numpy as np
import pandas as pd
import pytest
from engines import ENGINES, SEASON, alias, copied, fitted, panel, rows_of

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.frames.panel import order_of

KEYS = ["unique_id", "ds", "sample_id"]


def past(rows=28):
    df = panel()
    return df[rows_of(df) < rows]


def ordered(df):
    """A frame by series and time, whatever order it came in."""
    return df.sort_values([k for k in KEYS if k in df]).reset_index(drop=True)


def orders(df):
    """The same rows in other orders: all shuffled, series from the last to the first."""
    yield df.sample(frac=1, random_state=0)
    yield pd.concat([df[df["unique_id"] == id] for id in sorted(set(df["unique_id"]))[::-1]])


def test_the_order_of_identifiers_does_not_depend_on_that_in_which_they_come():
    ids = np.array(["b", 10, "a", 9, True], dtype=object)
    turned = ids[::-1].copy()
    assert ids[order_of(ids)].tolist() == turned[order_of(turned)].tolist()


def test_series_come_as_they_first_appear():
    df = past().sample(frac=1, random_state=1)
    found = Forecaster("naive").fit(df).predict(1)
    assert found["unique_id"].tolist() == list(dict.fromkeys(df["unique_id"]))


@pytest.mark.parametrize("name", ENGINES)
def test_rows_and_series_come_in_any_order(name):
    expected = ordered(fitted(name).predict(6))
    for df in orders(past()):
        model = Forecaster(ENGINES[name](), season_length=SEASON).fit(df)
        pd.testing.assert_frame_equal(ordered(model.predict(6)), expected, check_exact=True)
        for verb in (
            lambda x, m=model: m.predict(6, df=x),
            lambda x, m=model: m.score(x),
            lambda x, m=model: m.innovations(x),
            lambda x, m=model: m.sample(3, 4, df=x),
        ):
            found, wanted = ordered(verb(df)), ordered(verb(past()))
            pd.testing.assert_frame_equal(found, wanted, check_exact=True)


@pytest.mark.parametrize("name", [n for n in ENGINES if n not in ("ets", "theta")])
def test_draws_of_holes_come_in_any_order(name):
    df = past()
    df.loc[[5, 40, 41], "y"] = np.nan
    expected = ordered(fitted(name).impute(df, n=3))
    for other in orders(df):
        found = ordered(fitted(name).impute(other, n=3))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("name", ENGINES)
def test_new_rows_come_in_any_order(name):
    df = pd.concat([panel(), panel(rows=12, prefix="x")])
    later = df[(rows_of(df) >= 28) | df["unique_id"].str.startswith("x")]
    found = []
    for rows in (later, *orders(later)):
        model = copied(name)
        found.append(ordered(model.update(rows).predict(3)))
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0], check_exact=True)


@pytest.mark.parametrize("name", ENGINES)
def test_series_do_not_see_each_other_once_fitted(name):
    model, df = fitted(name), past()
    together = model.predict(6, df=df)
    column = alias(name)
    for id in df["unique_id"].unique():
        alone = model.predict(6, df=df[df["unique_id"] == id]).reset_index(drop=True)
        among = together[together["unique_id"] == id].reset_index(drop=True)
        width = among[f"{column}-hi-80"] - among[f"{column}-lo-80"]
        for end in ("", "-lo-80", "-hi-80"):
            away = (alone[column + end] - among[column + end]).abs() / width
            assert away.max() < 0.3, (id, end, away.max())
