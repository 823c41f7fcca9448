"""Innovations and their tests: agreement with statsmodels, exactness, size and power."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, norm
from statsmodels.stats.stattools import jarque_bera
from statsmodels.tsa.statespace.structural import UnobservedComponents
from statsmodels.tsa.stattools import breakvar_heteroskedasticity_test

from seqlatent.emissions import LinearGaussian
from seqlatent.forecasting import ColumnError, Columns, Forecaster, Spec, TargetError, plots
from seqlatent.forecasting.engines.latent.recipes import srnn
from seqlatent.forecasting.engines.latent.residuals import checks, correlogram, pooled, vague
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.transitions import DampedTrend, LocalLevel, LocalLinearTrend, Seasonal, Sum

LEVEL, SLOPE, SEASON, NOISE = 0.02, 0.005, 0.01, 0.05
FIRST = np.array([2.0, 0.1, 0.5, 0.5, 0.5])


def plain(parts, *, scale=NOISE, transform="none", name="plain", targets=1):
    def build(data_summary):
        transition = Sum(parts())
        loading = transition.loading if targets == 1 else None
        emission = LinearGaussian(
            transition.latent_dim, targets, loading=loading, bias=False, scale=scale
        )
        return [LatentModel(transition, emission, Kalman())]

    def several(data_summary):
        return [build(data_summary)[0] for _ in range(1 if isinstance(transform, str) else 2)]

    return Spec(
        name,
        several,
        lambda models, training: None,
        calendar=False,
        transform=transform,
        dtype=torch.float64,
    )


def trend_and_season():
    return [
        LocalLinearTrend(LEVEL, SLOPE, initial_scale=2.0, initial_slope_scale=0.1),
        Seasonal(4, SEASON, initial_scale=0.5),
    ]


def panel(series=2, rows=60, season=4, seed=0, holes=()):
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(series):
        n = rows + 5 * i
        ds = pd.date_range("2024-01-01", periods=n, freq="D")
        y = 10 * (i + 1) + np.sin(2 * np.pi * np.arange(n) / season) + rng.normal(0, 0.3, n)
        frames.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y}))
    df = pd.concat(frames, ignore_index=True)
    df.loc[list(holes), "y"] = np.nan
    return df


def oracle(y, unit, burn):
    model = UnobservedComponents(y, level="local linear trend", seasonal=4)
    model.ssm.initialize_known(np.zeros(5), np.diag((FIRST * unit) ** 2))
    model.ssm.loglikelihood_burn = burn
    return model.smooth((np.array([NOISE, LEVEL, SLOPE, SEASON]) * unit) ** 2)


@pytest.mark.parametrize("burn", [0, 5])
@pytest.mark.parametrize("holes", [(), (20, 21, 40, 70)])
def test_one_model_agrees_with_statsmodels(burn, holes):
    df = panel(holes=holes)
    model = Forecaster(plain(trend_and_season)).fit(df)
    unit = model._engines["plain"].ensemble.units["none"].scale[:, 0]
    found = model.innovations(burn=burn)
    told = model.diagnose(lags=6, burn=burn)
    assert list(told.columns) == [
        "unique_id", "model", "test", "lag", "n", "statistic", "p_value"
    ]  # fmt: skip
    for i, (name, rows) in enumerate(df.groupby("unique_id")):
        theirs = oracle(rows["y"].to_numpy(), unit[i], burn)
        x = found.loc[found["unique_id"] == name, "plain-innovation"].to_numpy(copy=True)
        expected = theirs.filter_results.standardized_forecasts_error[0]
        assert np.isnan(x[:burn]).all()
        seen = rows["y"].notna().to_numpy(copy=True)
        seen[:burn] = False
        np.testing.assert_array_equal(~np.isnan(x), seen)
        np.testing.assert_allclose(x[seen], expected[seen], rtol=1e-6, atol=1e-8)
        mine = told[told["unique_id"] == name].set_index("test")[["statistic", "p_value"]]
        if holes:  # statsmodels' results take a missing row for an innovation of zero
            jb = jarque_bera(x[seen])
            h = breakvar_heteroskedasticity_test(x[burn:], round(len(x[burn:]) / 3))
            np.testing.assert_allclose(mine["p_value"]["heteroskedasticity"], h[1], rtol=1e-6)
        else:
            jb = theirs.test_normality("jarquebera")[0]
            h = theirs.test_heteroskedasticity("breakvar")[0]
            np.testing.assert_allclose(mine.loc["heteroskedasticity"], h, rtol=1e-6)
            box = theirs.test_serial_correlation("ljungbox", lags=6)[0]
            np.testing.assert_allclose(mine.loc["whiteness"], box.T, rtol=1e-6)
        np.testing.assert_allclose(mine.loc["normality"], jb[:2], rtol=1e-6)


def test_a_diffuse_start_agrees_with_statsmodels():
    df = panel(1, holes=(2, 5, 20))

    def parts():
        trend = LocalLinearTrend(LEVEL, SLOPE, initial_scale=math.inf, initial_slope_scale=math.inf)
        return [trend, Seasonal(4, SEASON, initial_scale=math.inf)]

    model = Forecaster(plain(parts)).fit(df)
    unit = model._engines["plain"].ensemble.units["none"].scale[0, 0]
    y = df["y"].to_numpy()
    exact = UnobservedComponents(
        y, level="local linear trend", seasonal=4, use_exact_diffuse=True
    ).smooth((np.array([NOISE, LEVEL, SLOPE, SEASON]) * unit) ** 2)
    x = model.innovations()["plain-innovation"].to_numpy()
    seen = ~np.isnan(x)
    assert np.flatnonzero(seen)[0] == exact.nobs_diffuse == 7
    expected = exact.filter_results.standardized_forecasts_error[0]
    np.testing.assert_allclose(x[seen], expected[seen], rtol=1e-5, atol=1e-6)
    found = model.components(level=[80]).pivot(index="ds", columns="component", values="mean")
    np.testing.assert_allclose(found["level"], exact.level.smoothed, rtol=1e-6)
    np.testing.assert_allclose(found["season4"], exact.seasonal.smoothed, atol=1e-6)
    assert np.isfinite(model.impute(df, level=[80])["y-hi-80"]).all()


@pytest.fixture(scope="module")
def mixed():
    df = panel(holes=(5,))
    spec = plain(trend_and_season, transform=lambda data_summary: ["none", "log"], name="mixed")
    return df, Forecaster(spec).fit(df)


def test_by_default_as_many_rows_are_left_out_as_states_are_vague(mixed):
    df = panel(holes=(1, 3))
    found = Forecaster(plain(trend_and_season)).fit(df).innovations()
    x = found.loc[found["unique_id"] == "s0", "plain-innovation"]
    assert np.flatnonzero(x.notna())[0] == 7  # five observations, two rows without one
    assert mixed[1]._engines["mixed"].burn == 5
    trend = DampedTrend(learn_initial_scale=True)
    emission = LinearGaussian(2, loading=trend.loading)
    assert vague(LatentModel(trend, emission, Kalman())) == 1
    assert Forecaster("naive").fit(df)._engines["naive"].burn == 0


def test_mixtures_have_the_scores_of_their_pit(mixed):
    df, model = mixed
    found = model.innovations(burn=0)["mixed-innovation"]
    pit = model.score(df)["mixed-pit"]
    np.testing.assert_allclose(norm.cdf(found), pit, atol=1e-12)
    np.testing.assert_array_equal(found.isna(), df["y"].isna())


def test_scores_stay_finite_far_in_the_tails(mixed):
    df, model = panel(1), mixed[1]
    df.loc[[30, 45], "y"] = [60.0, -40.0]
    found = model.innovations(df)["mixed-innovation"]
    assert np.isfinite(found[5:]).all()
    assert found[30] > 9
    assert found[45] < -9


def test_other_models_have_normal_scores_too():
    df = panel()
    model = Forecaster(
        ["seasonal_naive", srnn(members=1, steps=2, hidden_dim=4)], season_length=4
    ).fit(df)
    found = model.innovations()
    assert list(found.columns) == [
        "unique_id", "ds", "y", "seasonal_naive-innovation", "srnn-innovation"
    ]  # fmt: skip
    assert np.isfinite(found["srnn-innovation"]).all()
    assert set(model.diagnose(lags=1)["model"]) == {"seasonal_naive", "srnn"}


def test_counts_are_randomised_by_a_seed():
    rng = np.random.default_rng(0)
    df = panel(1).assign(y=rng.poisson(2.0, 60).astype(float))
    spec = srnn(members=1, steps=2, hidden_dim=4, emission="poisson")
    model = Forecaster(spec).fit(df)
    one, same, other = (model.innovations(seed=s)["srnn-innovation"] for s in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)


def test_several_targets():
    rng = np.random.default_rng(1)
    df = panel(1).assign(x=rng.normal(size=60))
    columns = Columns(target=("y", "x"))
    model = Forecaster(plain(trend_and_season, targets=2), columns=columns).fit(df)
    assert model.innovations()["target"].unique().tolist() == ["y", "x"]
    told = model.diagnose(lags=2)
    assert len(told) == 2 * 6
    assert "target" in model.diagnose(lags=2, pooled=True)


@pytest.fixture(scope="module")
def simulated():
    """Series of the very model that looks at them."""
    rng = np.random.default_rng(3)
    n, steps = 150, 80
    level = rng.normal(0, 1, (n, 1)) + (0.1 * rng.normal(size=(n, steps))).cumsum(1)
    y = level + 0.3 * rng.normal(size=(n, steps))
    frame = pd.DataFrame(
        {"unique_id": np.repeat(np.arange(n), steps), "ds": np.tile(np.arange(steps), n)}
    )
    return frame.assign(y=y.ravel())


def local(level, noise):
    """A local level of given scales in units of the data."""
    spec = plain(lambda: [LocalLevel(level, initial_scale=100.0)], scale=noise)

    def unscaled(engine):
        one = engine.ensemble.units["none"]
        plain_units = replace(one, shift=np.zeros_like(one.shift), scale=np.ones_like(one.scale))
        engine.ensemble = replace(engine.ensemble, units={"none": plain_units})

    return spec, unscaled


def known(spec, unscaled, df):
    """A forecaster of a model whose series have their own units taken from it."""
    model = Forecaster(replace(spec, own=True)).fit(df)
    unscaled(model._engines["plain"])
    return model


def test_tests_of_the_right_model_have_uniform_p_values(simulated):
    model = known(*local(0.1, 0.3), simulated)
    x = model.innovations()["plain-innovation"].dropna()
    assert kstest(x, "norm").pvalue > 0.01
    told = model.diagnose(lags=5, pooled=True).set_index(["test", "lag"])
    assert (told["series"] == 150).all()
    assert (told["share_below_05"] < 0.12).all()
    kept = (
        told.index.get_level_values("test") != "normality"
    )  # whose distribution is that of long series
    assert (told["uniform_p"][kept] > 0.001).all()


def test_tests_of_wrong_models_reject(simulated):
    stiff = known(*local(0.001, 0.3), simulated).diagnose(lags=5, pooled=True)
    stiff = stiff.set_index(["test", "lag"])["share_below_05"]
    assert stiff["whiteness", 5] > 0.5
    narrow = known(*local(0.05, 0.15), simulated).diagnose(lags=1, pooled=True)
    assert narrow.set_index("test")["share_below_05"]["variance"] > 0.9


def test_missing_rows_have_a_part_in_whiteness():
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(300):
        x = rng.normal(size=120)
        x[rng.random(120) < 0.3] = np.nan
        rejected.append(checks(x, 5)[-1].p_value)
    assert 0.02 < np.mean(np.array(rejected) < 0.05) < 0.09
    r, pairs = correlogram(np.array([[1.0, np.nan, -1.0, 1.0, -1.0]]), 2)
    assert pairs.tolist() == [2, 2]
    np.testing.assert_allclose(r, [-0.5, 0.0])


def test_too_few_observations_have_no_tests():
    found = checks(np.array([0.1, np.nan, 0.3]), 2)
    assert all(np.isnan(one.p_value) for one in found)
    assert [one.lag for one in found] == [0, 0, 0, 0, 1, 2]
    assert pooled(np.array([np.nan]))[0] == 0
    assert np.isnan(checks(np.zeros(20), 1)[0].p_value)


def test_default_lags_are_two_seasons_or_ten():
    df = panel()
    model = Forecaster(plain(trend_and_season), season_length=4).fit(df)
    assert model.diagnose()["lag"].max() == 8
    assert (
        Forecaster(plain(trend_and_season), season_length=1).fit(df).diagnose()["lag"].max() == 10
    )


def test_errors_teach():
    df = panel()
    model = Forecaster(plain(trend_and_season)).fit(df)
    with pytest.raises(ValueError, match="burn must be a number of observations"):
        model.innovations(burn=-1)
    with pytest.raises(ValueError, match="lags must be a number of steps"):
        model.diagnose(lags=0)
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster("naive").diagnose()


def test_four_panels_of_one_series_and_of_all():
    model = Forecaster(plain(trend_and_season)).fit(panel(3))
    found = model.innovations()
    one, all_ = plots.diagnostics(found, id="s1"), plots.diagnostics(found, lags=7)
    assert [ax.get_title("left") for ax in one] == [
        "s1: innovations of plain", "density", "quantiles", "autocorrelation"
    ]  # fmt: skip
    assert all_[0].get_title("left") == "innovations of plain, 3 series"
    assert all_[3].get_xlim()[1] == pytest.approx(7.6)
    bars = all_[1].patches[0].get_data()
    assert (bars.values * np.diff(bars.edges)).sum() == pytest.approx(1)
    again = plots.diagnostics(found, id="s0", axes=one)
    assert again[0] is one[0]


def test_pictures_of_polars_and_of_integer_times():
    pl = pytest.importorskip("polars")
    df = pl.from_pandas(panel(2).assign(ds=lambda d: d.groupby("unique_id").cumcount()))
    found = Forecaster(plain(trend_and_season)).fit(df).innovations()
    assert len(plots.diagnostics(found)) == 4


def test_pictures_refuse():
    found = Forecaster(plain(trend_and_season)).fit(panel(1)).innovations()
    with pytest.raises(ColumnError, match="'<model>-innovation', found"):
        plots.diagnostics(found.drop(columns="plain-innovation"))
    with pytest.raises(TargetError, match="at least 5 values, found 1"):
        plots.diagnostics(found[:6])
