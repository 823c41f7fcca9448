"""Engines of one's own behind a forecaster: three methods, and everything else by default."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from engines import panel, rows_of
from own_engines import Smoothed, Walk

from seqlatent.forecasting import ArgumentError, Columns, FolderError, Forecaster
from seqlatent.forecasting.engines.engine import Engine, OutOfTime
from seqlatent.forecasting.engines.sampled import densities, ranks

BOTH = [Walk, Smoothed]


@pytest.fixture
def df():
    return panel(24)


@pytest.mark.parametrize("model", [Walk, Walk(), Smoothed, Smoothed()])
def test_every_verb_answers(model, df):
    fitted = Forecaster(model, season_length=4).fit(df)
    (alias,) = fitted.aliases
    assert alias == ("smoothed" if isinstance(model, Smoothed) or model is Smoothed else "Walk")
    found = fitted.predict(3, level=[80])
    assert len(found) == 9
    assert (found[f"{alias}-lo-80"] <= found[alias]).all()
    assert len(fitted.sample(2, n=5)) == 30
    holes = df.copy()
    holes.loc[[0, 7, 8, 30], "y"] = np.nan
    drawn = fitted.impute(holes, n=4)
    assert len(drawn) == 16
    assert np.isfinite(drawn["y"]).all()
    assert "does not condition on the rows after it" in fitted.notes[alias][None]
    pit = fitted.score(df)[f"{alias}-pit"]
    assert pit[rows_of(df) > 0].between(0, 1).all()
    assert pit[rows_of(df) == 0].isna().all()
    assert np.isfinite(fitted.innovations(df)[f"{alias}-innovation"].dropna()).all()
    back = fitted.cross_validation(df, 2, n_windows=2, refit=False)
    assert len(back) == 12
    with pytest.raises(NotImplementedError, match="no latent state"):
        fitted.smooth()


def test_the_engine_that_is_given_is_left_alone(df):
    mine = Walk(2.0)
    fitted = Forecaster(mine).fit(df)
    assert vars(mine) == {"floor": 2.0, "notes": {}, "summary": {}}
    pd.testing.assert_frame_equal(fitted.predict(2), fitted.fit(df).predict(2))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("block", [1, 5])
def test_an_update_is_a_forecast_from_all_rows(kind, block, df):
    nth = rows_of(df)
    df = pd.concat([df[df["unique_id"] == s] for s in ("s2", "s0", "s1")], ignore_index=True)
    nth = rows_of(df)
    fitted, other = (Forecaster(kind, season_length=4).fit(df[nth < 18]) for _ in range(2))
    for first in range(18, nth.max() + 1, block):
        fitted.update(df[(nth >= first) & (nth < first + block)])
    found, expected = fitted.predict(4), other.predict(4, df=df)
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("given", ["class", "instance"])
def test_it_is_saved_and_loaded_and_fitted_again(kind, given, df, tmp_path):
    nth, first = rows_of(df), kind()
    fitted = Forecaster([first, "naive"], season_length=4).fit(df[nth < 20])
    fitted.update(df[(nth >= 20) & (nth < 22)])
    fitted.save(tmp_path / "model")
    with pytest.raises(FolderError, match=rf"engines=\[{kind.__name__}\]"):
        Forecaster.load(tmp_path / "model")
    loaded = Forecaster.load(
        tmp_path / "model", engines=kind if given == "class" else [type(first)()]
    )
    pd.testing.assert_frame_equal(loaded.predict(3), fitted.predict(3))
    rest = df[nth >= 22]
    pd.testing.assert_frame_equal(loaded.update(rest).predict(3), fitted.update(rest).predict(3))
    again = loaded.fit(df[nth < 20]).predict(3)
    pd.testing.assert_frame_equal(again, fitted.fit(df[nth < 20]).predict(3))
    loaded.save(tmp_path / "model")


def test_options_of_an_engine_are_kept_in_the_folder(df, tmp_path):
    fitted = Forecaster(Walk(50.0)).fit(df)
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", engines=[Walk])
    pd.testing.assert_frame_equal(loaded.fit(df).predict(3), fitted.predict(3))


def test_a_baseline_with_options_is_an_engine(df, tmp_path):
    from seqlatent.forecasting.engines.baselines import SeasonalNaive

    fitted = Forecaster(SeasonalNaive(season_length=3, intervals=False)).fit(df)
    expected = fitted.predict(3)
    assert (expected["seasonal_naive-lo-80"] == expected["seasonal_naive"]).all()
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(df).predict(3), expected)


class Stateful(Smoothed):
    """One whose state is not what the defaults can take."""

    def start(self, panel, seed):
        return self.made(panel.batch)

    def update(self, state, panel, seed):
        return state


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda n: {"a": np.zeros(n), "b": np.zeros(n + 1)}, r"state\['a'\] 3, state\['b'\] 4"),
        (lambda n: {"a": [0.0] * n}, r"found a list at state\['a'\]"),
        (lambda n: (np.zeros(n), 3.0), r"found a float at state\[1\]"),
        (lambda n: {"a": torch.tensor(1.0)}, "an array without axes"),
    ],
)
def test_a_state_that_cannot_be_picked_from_says_why(made, message, df):
    class Odd(Stateful):
        def made(self, n):
            return made(n)

    with pytest.raises(TypeError, match=message):
        Forecaster(Odd).fit(df)


def test_an_attribute_that_cannot_be_saved_is_named(df, tmp_path):
    class Curious(Walk):
        def fit(self, panel, fit_options):
            super().fit(panel, fit_options)
            self.how = lambda y: y

    with pytest.raises(FolderError, match=r"found a function at Curious\.how; keep what"):
        Forecaster(Curious).fit(df).save(tmp_path / "model")


def test_a_model_of_no_kind_is_refused():
    with pytest.raises(TypeError, match="an Engine or its class, or a list of these, found int"):
        Forecaster(3)
    with pytest.raises(TypeError, match=r"Half does not take.*fit, start and paths"):
        Forecaster(type("Half", (Engine,), {"fit": lambda self, p, o: None}))
    with pytest.raises(ValueError, match=r"'Walk' twice; .*an Engine another alias"):
        Forecaster([Walk, Walk()])


def test_engines_of_a_folder_must_be_there(df, tmp_path):
    Forecaster("naive").fit(df).save(tmp_path / "model")
    with pytest.raises(ArgumentError, match="engines must have the names of models"):
        Forecaster.load(tmp_path / "model", engines=[Walk])
    load = inspect.unwrap(Forecaster.load.__func__)  # a check of types would refuse it before
    with pytest.raises(ArgumentError, match=r"engines must be Engines or classes.*found str"):
        load(Forecaster, tmp_path / "model", engines=["Walk"])


def test_two_of_a_class_differ_in_alias(df, tmp_path):
    one, two = Walk(), Walk(5.0)
    one.alias, two.alias = "flat", "lifted"
    fitted = Forecaster([one, two]).fit(df)
    found = fitted.predict(2)
    np.testing.assert_allclose(found["lifted-mean"] - found["flat-mean"], 5.0)
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", engines=[Walk])
    pd.testing.assert_frame_equal(loaded.predict(2), found)


def test_ranks_and_densities_are_those_of_the_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 300, 2)), rng.normal(size=(300, 2))
    y[0, 1], y[1] = np.nan, np.nan
    truth = -0.5 * (y**2 + np.log(2 * np.pi))
    found = densities(x, y)
    assert np.isnan(found[1])
    away = found - np.nansum(truth, 1)
    assert np.abs(away[0]) < 0.2
    assert abs(np.median(away[2:])) < 0.05
    np.testing.assert_allclose(
        densities(7 * x + 3, 7 * y + 3)[2:], found[2:] - 2 * np.log(7), rtol=1e-9
    )
    assert np.isnan(densities(np.ones((50, 1, 1)), np.ones((1, 1)))).all()
    u = ranks(x, y, rng)
    assert np.isnan(u[0, 1])
    assert abs(np.nanmean(u) - 0.5) < 0.05
    counts = rng.poisson(3.0, (4000, 1, 1)).repeat(8, 1).astype(float)
    given = np.arange(8.0)[:, None]
    expected = given[:, 0] * np.log(3) - 3 - np.cumsum(np.log(np.maximum(given[:, 0], 1)))
    np.testing.assert_allclose(densities(counts, given), expected, atol=0.3)


class Late(Walk):
    def fit(self, panel, fit_options):
        if not fit_options.deadline.never:
            raise OutOfTime("no time at all")
        super().fit(panel, fit_options)


def test_what_stands_in_its_place_is_saved_beside_it(df, tmp_path):
    fitted = Forecaster(Late, time_limit=5.0, season_length=4).fit(df)
    assert fitted.notes["Late"][None].startswith("no time at all: the seasonal naive forecast")
    fitted.save(tmp_path / "model")
    with pytest.raises(FolderError, match=r"engines=\[Late\]"):
        Forecaster.load(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", engines=Late)
    pd.testing.assert_frame_equal(loaded.predict(3), fitted.predict(3))
    assert loaded.fit(df).notes == fitted.notes


@pytest.mark.parametrize("kind", BOTH)
def test_rows_that_are_kept_know_the_wall_clock(kind, tmp_path):
    ds = pd.date_range("2024-03-29", periods=96, freq="h", tz="Europe/Berlin")
    rng = np.random.default_rng(0)
    df = pd.concat(
        [
            pd.DataFrame({"unique_id": u, "ds": ds, "y": rng.normal(size=96).cumsum()})
            for u in (3, 1)
        ]
    )
    fitted, other = (Forecaster(kind).fit(df[df["ds"] < ds[40]]) for _ in range(2))
    fitted.update(df[(df["ds"] >= ds[40]) & (df["ds"] < ds[60])])
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model", engines=kind)
    loaded.update(df[df["ds"] >= ds[60]])
    expected = other.predict(5, df=df)
    pd.testing.assert_frame_equal(loaded.predict(5), expected, check_exact=False, rtol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_several_targets_covariates_and_series_that_are_new(kind):
    rng, ds = np.random.default_rng(0), pd.date_range("2024-01-01", periods=33)
    df = pd.concat(
        [
            pd.DataFrame(rng.normal(size=(33, 3)), columns=[*"abx"]).assign(unique_id=u, ds=ds)
            for u in "pq"
        ],
        ignore_index=True,
    )
    ahead = df[df["ds"] >= ds[30]].drop(columns=["a", "b"])
    df = df[df["ds"] < ds[30]].reset_index(drop=True)
    df.loc[[0, 1, 5, 6], "a"], df.loc[[0, 29], "b"] = np.nan, np.nan
    fitted = Forecaster(kind, columns=Columns(target=["a", "b"])).fit(df)
    assert len(fitted.predict(3, X_df=ahead)) == 12
    assert len(fitted.impute(df, n=3)) == 18
    assert len(fitted.score(df)) == 120
    fitted.update(df[df["unique_id"] == "p"].assign(unique_id="z"))
    more = pd.concat([ahead, ahead[ahead["unique_id"] == "p"].assign(unique_id="z")])
    assert len(fitted.predict(3, X_df=more)) == 18
