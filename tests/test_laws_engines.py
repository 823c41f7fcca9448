"""Laws that hold for every engine behind a forecaster."""

import numpy as np
import pytest
import torch
from engines import ENGINES, EXACT, alias, copied, fitted, panel, rows_of

from seqlatent.forecasting.engines.latent.engine import LatentEngine
from seqlatent.sequences import Sequences


def changed(df, row):
    """The same frame up to a row of each series, and others after it."""
    other = df.copy()
    later = rows_of(df) > row
    rng = np.random.default_rng(1)
    other.loc[later, "y"] = 7 * df.loc[later, "y"] * rng.uniform(0.5, 2, later.sum()) + 40
    return other


def holed(df, row):
    """The same frame up to a row of each series, and holes after it, short and long."""
    other, nth = df.copy(), rows_of(df)
    series = df["unique_id"].str[-1].astype(int)
    apart = (nth > row) & (nth % (2 + series) == 0)
    long = (series == 1) & (nth > row + 2) & (nth < row + 12)
    other.loc[apart | long, "y"] = np.nan
    return other


def ended(df, row):
    """The same frame up to a row of each series, which soon end, and at different rows."""
    return df[rows_of(df) <= row + df["unique_id"].str[-1].astype(int)]


def assert_same_until(found, other, row, name, rtol=0.0):
    found, other = (x[rows_of(x) <= row] for x in (found, other))
    for column in found.columns.drop(["unique_id", "ds", "y"], errors="ignore"):
        np.testing.assert_allclose(found[column], other[column], rtol, atol=0, err_msg=name)


def assert_blind(verb, name, df):
    """Asserts that what a verb says of a row is said without knowing later ones."""
    say = getattr(fitted(name), verb)
    found = say(df)
    for row in (6, 25):
        for other in (changed, holed, ended):
            # a filter of fewer rows is another computation, of the same numbers
            rtol = 1e-12 if other is ended and name in EXACT else 0.0
            # so is one pass of a network over fewer windows, which end with a value each
            blurred = other is not changed and name in ("amortised", "rehearsed")
            rtol = 1e-9 if blurred else rtol
            assert_same_until(found, say(other(df, row)), row, name, rtol)


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
@pytest.mark.parametrize("name", ["structural", "deep_state", "short_own", "amortised"])
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


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.parametrize("name", ["structural", "short_structural", "own", "deep_state"])
def test_an_update_of_many_rows_is_a_forecast_from_all_of_them(name, block):
    """However many windows the rows fill, and whether or not they begin with those of training."""
    df = panel(150, series=1)
    model, nth = copied(name), rows_of(df)
    for first in range(28, nth.max() + 1, block):
        model.update(df[(nth >= first) & (nth < first + block)])
    found = model.predict(6)
    assert_same_forecast(
        found[found["unique_id"] == "s0"].reset_index(drop=True),
        fitted(name).predict(6, df=df),
        name,
    )


@pytest.mark.parametrize("name", ["structural", "short_structural", "own"])
def test_the_state_after_many_updates_is_that_of_one_filter_over_all_rows(name):
    """The filter of the model itself, from the first row that the fit read, in its units."""
    df = panel(330, series=1)
    model, nth = copied(name), rows_of(df)
    for first in range(28, 330):
        model.update(df[nth == first])
    engine, state = model._engines[alias(name)], model._fitted.states[alias(name)]
    assert isinstance(engine, LatentEngine)
    ensemble = engine.ensemble
    first = 12 if name == "short_structural" else 0
    y = df["y"].to_numpy()[first:]
    for m, (member, belief) in enumerate(zip(ensemble.models, state.beliefs, strict=True)):
        values = np.log(y) if ensemble.kinds[m] == "log" else y
        units = ensemble.units[ensemble.kinds[m]]
        data = Sequences.of(
            torch.from_numpy((values[None, :, None] - units.shift[0]) / units.unit),
            t=torch.arange(first, 330.0, dtype=torch.float64),
            codes=torch.zeros(1, len(ensemble.data_summary.code_sizes), dtype=torch.long),
            scale=torch.from_numpy(units.scale[:1] / units.unit),
        )
        whole = member.belief(data).latest
        assert whole.mean is not None
        assert whole.cov is not None
        torch.testing.assert_close(belief.latest.mean[:1], whole.mean, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(belief.latest.cov[:1], whole.cov, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ENGINES)
def test_an_update_of_a_new_series_is_a_forecast_from_all_of_its_rows(name):
    df = panel(prefix="x")
    model, nth = copied(name), rows_of(df)
    for first in range(0, nth.max() + 1, 8):
        model.update(df[(nth >= first) & (nth < first + 8)])
    found = model.predict(6, samples=1000)
    found = found[found["unique_id"].str.startswith("x")].reset_index(drop=True)
    assert_same_forecast(found, fitted(name).predict(6, df=df, samples=1000), name)
