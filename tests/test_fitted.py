"""What a forecaster holds once it is fitted, and what forecasts are asked for."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import ArgumentError, Columns, DataError, Forecaster
from seqlatent.forecasting.arguments import ForecastOptions
from seqlatent.forecasting.backtest import RollingOrigin
from seqlatent.forecasting.cli.groups import ModelOptions, grouped
from seqlatent.forecasting.fitted import Configuration, Fitted

MODELS = ["seasonal_naive", "ets"]


def frame(rows=30):
    rng = np.random.default_rng(0)
    ds = pd.date_range("2024-01-01", periods=rows, freq="D")
    parts = [
        pd.DataFrame({"unique_id": id, "ds": ds, "y": rng.normal(size=rows)}) for id in ("b", "a")
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def configuration():
    return Configuration(MODELS, Columns(), season_length=(7,))


@pytest.fixture(scope="module")
def fitted(configuration):
    return Fitted.fit(configuration, configuration.read(frame()))


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_forecaster_forecasts_what_is_fitted_does(fitted):
    expected = Forecaster(MODELS, season_length=7).fit(frame()).predict(3, level=80)
    found = fitted.forecast(fitted.future(None, 3), ForecastOptions.of(80), 0)
    pd.testing.assert_frame_equal(fitted.output_format.frame(found), expected)


def test_another_history_leaves_what_is_fitted_as_it_was(fitted):
    future, options = fitted.future(None, 2), ForecastOptions.of(80)
    before = fitted.forecast(future, options, 0)
    panel, _ = fitted.read(frame(20))
    there = fitted.with_history(panel, 0)
    assert there.batch == fitted.batch == 2
    assert (there.last_rows.t < fitted.last_rows.t).all()
    assert all(there.engines[a] is not e for a, e in fitted.engines.items())
    same(fitted.forecast(future, options, 0), before)


def test_an_update_is_the_history_with_its_rows(fitted):
    whole, _ = fitted.read(frame())
    past, later = whole.drop_tail(5), whole.tail(5)
    there = fitted.with_history(past, 0).updated(later, 0)
    assert there.panel is None
    np.testing.assert_array_equal(there.last_rows.t, fitted.last_rows.t)
    options = ForecastOptions.of(None)
    found, expected = (f.forecast(f.future(None, 3), options, 0) for f in (there, fitted))
    for alias in MODELS:
        np.testing.assert_allclose(found[alias], expected[alias], rtol=1e-9)


def test_a_fit_that_fails_leaves_the_one_before():
    model = Forecaster("seasonal_naive", season_length=7).fit(frame())
    expected = model.predict(3)
    with pytest.raises(DataError):
        model.fit(frame(1))
    with pytest.raises(ArgumentError):
        model.cross_validation(frame(), 3, n_windows=0)
    model.cross_validation(frame(), 3)
    pd.testing.assert_frame_equal(model.predict(3), expected)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_of_a_forecaster_go_their_own_way(copied):
    model = Forecaster(MODELS, season_length=7).fit(frame())
    expected, other = model.predict(3), copied(model)
    pd.testing.assert_frame_equal(other.predict(3), expected)
    rows = frame().tail(1).assign(ds=lambda x: x["ds"] + pd.Timedelta("1D"), y=100.0)
    assert not other.update(rows).predict(3).equals(expected)
    pd.testing.assert_frame_equal(model.predict(3), expected)


def test_options_know_their_quantiles_and_columns():
    options = ForecastOptions.of([80, 95], (q for q in (0.1, 0.3)), np.int64(7))
    assert options.points == [0.025, 0.1, 0.3, 0.5, 0.9, 0.975]
    assert options.columns == 2 + 4 + 2
    assert options.samples == 7
    with pytest.raises(ArgumentError, match="samples must be"):
        ForecastOptions.of(None, None, 0)


@pytest.mark.parametrize(
    ("refit", "fits"),
    [(True, [0, 1, 2, 3]), (False, [0]), (0, [0]), (2, [0, 2]), (np.True_, [0, 1, 2, 3])],
)
def test_windows_of_a_rolling_origin(refit, fits):
    origin = RollingOrigin.of(3, 4, 2, refit)
    assert origin.hidden == [9, 7, 5, 3]
    assert [w for w in range(4) if origin.fits(w)] == fits
    assert RollingOrigin.of(3, 2, None, True).hidden == [6, 3]


def test_a_command_takes_the_options_of_its_groups():
    found = []

    @grouped
    def command(*, horizon: int, models: ModelOptions, quiet: bool = False) -> None:
        found.append((horizon, models, quiet))

    command(horizon=3, freq="D", seed=1)
    assert found == [(3, ModelOptions(freq="D", seed=1), False)]
