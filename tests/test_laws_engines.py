"""Laws that hold for every engine behind a forecaster."""

import numpy as np
import pytest
from engines import ENGINES, EXACT, alias, copied, fitted, panel, rows_of


def changed(df, row):
    """The same frame up to a row of each series, and others after it."""
    other = df.copy()
    later = rows_of(df) > row
    rng = np.random.default_rng(1)
    other.loc[later, "y"] = 7 * df.loc[later, "y"] * rng.uniform(0.5, 2, later.sum()) + 40
    return other


def assert_same_until(found, other, row, name):
    before = rows_of(found) <= row
    for column in found.columns.drop(["unique_id", "ds", "y"], errors="ignore"):
        np.testing.assert_array_equal(found[column][before], other[column][before], err_msg=name)


def assert_blind(verb, name, df):
    """Asserts that what a verb says of a row is said without knowing later ones."""
    say = getattr(fitted(name), verb)
    found = say(df)
    for row in (6, 25):
        assert_same_until(found, say(changed(df, row)), row, name)


@pytest.mark.parametrize("name", ENGINES)
def test_the_score_of_a_row_does_not_depend_on_later_rows(name):
    assert_blind("score", name, panel())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "sarimax" else n for n in ENGINES]
)
def test_the_score_of_a_row_of_a_new_series_does_not_depend_on_later_rows(name):
    assert_blind("score", name, panel(prefix="x"))


@pytest.mark.parametrize("prefix", ["s", "x"])
@pytest.mark.parametrize("name", ["structural", "deep_state", "own", "short_own"])
def test_the_innovation_of_a_row_does_not_depend_on_later_rows(name, prefix):
    assert_blind("innovations", name, panel(prefix=prefix))


@pytest.mark.parametrize("prefix", ["s", "x"])
@pytest.mark.parametrize("name", ["structural", "deep_state", "short_own"])
def test_a_filtered_component_does_not_depend_on_later_rows(name, prefix):
    df = panel(prefix=prefix)
    found, other = (fitted(name).components(x, kind="filtered") for x in (df, changed(df, 25)))
    for component in found["component"].unique():
        one, two = (x[x["component"] == component] for x in (found, other))
        assert_same_until(one[KEYS], two[KEYS], 25, component)


KEYS = ["unique_id", "ds", "mean", "lo-80", "hi-80"]


def assert_same_forecast(found, expected, name):
    assert (found["unique_id"] == expected["unique_id"]).all()
    assert (found["ds"] == expected["ds"]).all()
    column = alias(name)
    if name in EXACT:
        values = expected.columns.drop(["unique_id", "ds"])
        np.testing.assert_allclose(found[values], expected[values], rtol=1e-8)
        return
    width = expected[f"{column}-hi-80"] - expected[f"{column}-lo-80"]
    for end in ("", "-lo-80", "-hi-80"):
        away = (found[column + end] - expected[column + end]).abs() / width
        assert away.max() < 0.3, (name, end, away.max())


@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize("name", ENGINES)
def test_an_update_is_a_forecast_from_all_rows(name, block):
    df = panel()
    model, nth = copied(name), rows_of(df)
    for first in range(28, nth.max() + 1, block):
        model.update(df[(nth >= first) & (nth < first + block)])
    assert_same_forecast(
        model.predict(6, samples=1000), fitted(name).predict(6, df=df, samples=1000), name
    )


@pytest.mark.parametrize("name", ENGINES)
def test_an_update_of_a_new_series_is_a_forecast_from_all_of_its_rows(name):
    df = panel(prefix="x")
    model, nth = copied(name), rows_of(df)
    for first in range(0, nth.max() + 1, 8):
        model.update(df[(nth >= first) & (nth < first + 8)])
    found = model.predict(6, samples=1000)
    found = found[found["unique_id"].str.startswith("x")].reset_index(drop=True)
    assert_same_forecast(found, fitted(name).predict(6, df=df, samples=1000), name)
