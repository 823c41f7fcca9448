"""Laws that hold for every engine behind a forecaster."""

import numpy as np
import pytest
from engines import BASELINES, ENGINES, EXACT, alias, copied, fitted, panel, rows_of

ANEW = pytest.mark.xfail(strict=True, reason="parameters of a new series read all of its rows")
UNITS = pytest.mark.xfail(strict=True, reason="units of a series are those of the whole frame")


LATENT = [name for name in ENGINES if name not in BASELINES]
MOVED = [n for n in LATENT if n not in ("structural", "vrnn", "deep_markov")]


def marked(broken, mark=UNITS):
    """Engines, those that break a law marked."""
    return [pytest.param(n, marks=mark) if n in broken else n for n in ENGINES]


SAID = [
    pytest.param(ids, n, marks=ANEW if n in BASELINES else UNITS) if broken else (ids, n)
    for n in ENGINES
    for ids in ("known", "new")
    for broken in [ids == "new" or n not in ("structural", *BASELINES)]
]


def changed(df, row):
    """The same frame up to a row of each series, and others after it."""
    other = df.copy()
    later = rows_of(df) > row
    rng = np.random.default_rng(1)
    other.loc[later, "y"] = 7 * df.loc[later, "y"] * rng.uniform(0.5, 2, later.sum()) + 40
    return other


def assert_same_until(found, other, row, name):
    before = rows_of(found) <= row
    for column in found.columns.drop(["unique_id", "ds", "y"]):
        np.testing.assert_array_equal(found[column][before], other[column][before], err_msg=name)


PREFIXES = {"known": "s", "new": "x"}


@pytest.mark.parametrize("verb", ["score", "innovations"])
@pytest.mark.parametrize(("ids", "name"), SAID)
def test_what_is_said_of_a_row_does_not_depend_on_later_rows(name, ids, verb):
    df = panel(prefix=PREFIXES[ids])
    say = getattr(fitted(name), verb)
    for row in (6, 25):
        assert_same_until(say(df), say(changed(df, row)), row, name)


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
@pytest.mark.parametrize("name", marked(MOVED))
def test_an_update_is_a_forecast_from_all_rows(name, block):
    df = panel()
    model, nth = copied(name), rows_of(df)
    for first in range(28, nth.max() + 1, block):
        model.update(df[(nth >= first) & (nth < first + block)])
    assert_same_forecast(model.predict(6), fitted(name).predict(6, df=df), name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=ANEW if n in BASELINES else UNITS) for n in ENGINES]
)
def test_an_update_of_a_new_series_is_a_forecast_from_all_of_its_rows(name):
    df = panel(prefix="x")
    model, nth = copied(name), rows_of(df)
    for first in range(0, nth.max() + 1, 8):
        model.update(df[(nth >= first) & (nth < first + 8)])
    found = model.predict(6)
    found = found[found["unique_id"].str.startswith("x")].reset_index(drop=True)
    assert_same_forecast(found, fitted(name).predict(6, df=df), name)
