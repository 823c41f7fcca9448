"""Metrics on frames: each against a line of numpy, a closed form or another package."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scoringrules
from scipy import stats

from seqlatent.forecasting.errors import ColumnError, DataError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.metrics import (
    coverage,
    crps,
    energy_score,
    horizon_scores,
    interval_score,
    log_score,
    mae,
    mase,
    msis,
    quantile_loss,
    rmse,
    rmsse,
    scores,
    total_wql,
    variogram_score,
    wql,
)
from seqlatent.forecasting.metrics import sample_paths as paths_module

DATA = Path(os.environ.get("SEQLATENT_DATA", "../shared/data"))
MODELS = ["srnn", "naive"]
DECILES = np.arange(1, 10) / 10


def forecasts(seed=0, ids=("b", "a", "c"), steps=6, missing=2) -> pd.DataFrame:
    """A frame of truth and forecasts; the ids are in no order, and some truths are missing."""
    rng = np.random.default_rng(seed)
    n = len(ids) * steps
    df = pd.DataFrame(
        {
            "unique_id": np.repeat(ids, steps),
            "ds": np.tile(pd.date_range("2020-01-06", periods=steps), len(ids)),
            "y": rng.normal(size=n) * 3 - 1,
        }
    )
    for model in MODELS:
        centre, width = rng.normal(size=n), rng.uniform(1, 2, size=n)
        df[model] = centre
        for q in DECILES:
            df[f"{model}_ql{q:.1f}"] = centre + width * stats.norm.ppf(q)
        for level in (80, 95):
            half = width * stats.norm.ppf(0.5 + level / 200)
            df[f"{model}-lo-{level}"], df[f"{model}-hi-{level}"] = centre - half, centre + half
        df[f"{model}-log_score"] = stats.norm.logpdf(df.y, centre, width)
    df.loc[rng.choice(n, missing, replace=False), "y"] = np.nan
    for model in MODELS:
        df.loc[df.y.isna(), f"{model}-log_score"] = np.nan
    return df


def past(seed=1, ids=("c", "a", "b"), steps=20) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=len(ids) * steps).cumsum()
    y[[3, 17, 30]] = np.nan
    stamps = np.tile(pd.date_range(end="2020-01-05", periods=steps), len(ids))
    df = pd.DataFrame({"unique_id": np.repeat(ids, steps), "ds": stamps, "y": y})
    return df.sample(frac=1, random_state=0)  # in no order


def samples(seed=0, ids=("b", "a"), steps=4, n=7, missing=1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    cells = pd.DataFrame(
        {
            "unique_id": np.repeat(ids, steps),
            "ds": np.tile(np.arange(10, 10 + steps), len(ids)),
            "y": rng.normal(size=len(ids) * steps),
        }
    )
    cells.loc[rng.choice(len(cells), missing, replace=False), "y"] = np.nan
    df = cells.merge(pd.DataFrame({"sample_id": np.arange(n)}), how="cross")
    for model in MODELS:
        df[model] = rng.normal(size=len(df))
    return df.sample(frac=1, random_state=1)


def naive_error(train, m, power=1):
    """In-sample error of the seasonal naive forecast."""
    y = train.sort_values("ds").y.to_numpy()
    return np.nanmean(np.abs(y[m:] - y[:-m]) ** power)


def pinball(y, f, q):
    return np.where(y >= f, q * (y - f), (1 - q) * (f - y))


# One line of numpy for each metric: of the rows of one series and its past.
SINGLE = {
    "mae": lambda g, t, m: np.mean(np.abs(g.y - g[m])),
    "rmse": lambda g, t, m: np.sqrt(np.mean((g.y - g[m]) ** 2)),
    "mase": lambda g, t, m: np.mean(np.abs(g.y - g[m])) / naive_error(t, 7),
    "rmsse": lambda g, t, m: np.sqrt(np.mean((g.y - g[m]) ** 2) / naive_error(t, 7, 2)),
    "quantile_loss": lambda g, t, m: np.mean(pinball(g.y, g[f"{m}_ql0.3"], 0.3)),
    "wql": lambda g, t, m: np.mean(
        [2 * pinball(g.y, g[f"{m}_ql{q:.1f}"], q).sum() / g.y.abs().sum() for q in DECILES]
    ),
    "crps": lambda g, t, m: np.mean(
        scoringrules.crps_quantile(
            g.y.to_numpy(), g[[f"{m}_ql{q:.1f}" for q in DECILES]].to_numpy(), DECILES
        )
    ),
    "interval_score": lambda g, t, m: np.mean(
        scoringrules.interval_score(
            g.y.to_numpy(), g[f"{m}-lo-80"].to_numpy(), g[f"{m}-hi-80"].to_numpy(), 0.2
        )
    ),
    "msis": lambda g, t, m: (
        np.mean(
            g[f"{m}-hi-95"]
            - g[f"{m}-lo-95"]
            + 2 / 0.05 * (g[f"{m}-lo-95"] - g.y) * (g.y < g[f"{m}-lo-95"])
            + 2 / 0.05 * (g.y - g[f"{m}-hi-95"]) * (g.y > g[f"{m}-hi-95"])
        )
        / naive_error(t, 7)
    ),
    "coverage": lambda g, t, m: np.mean((g.y >= g[f"{m}-lo-80"]) & (g.y <= g[f"{m}-hi-80"])),
    "log_score": lambda g, t, m: -np.mean(g[f"{m}-log_score"]),
}


def calls(train):
    return {
        "mae": mae,
        "rmse": rmse,
        "mase": partial(mase, seasonality=7, train_df=train),
        "rmsse": partial(rmsse, seasonality=7, train_df=train),
        "quantile_loss": lambda df, models, **names: quantile_loss(
            df, {m: f"{m}_ql0.3" for m in models}, 0.3, **names
        ),
        "wql": wql,
        "crps": crps,
        "interval_score": partial(interval_score, level=80),
        "msis": partial(msis, level=95, seasonality=7, train_df=train),
        "coverage": partial(coverage, level=80),
        "log_score": log_score,
    }


@pytest.mark.parametrize("backend", ["pandas", "polars"])
@pytest.mark.parametrize("metric", SINGLE)
def test_each_metric_is_its_line_of_numpy(metric, backend):
    df, train = forecasts(), past()
    native = pl.from_pandas if backend == "polars" else lambda frame: frame
    found = calls(native(train))[metric](native(df), MODELS)
    assert isinstance(found, pl.DataFrame if backend == "polars" else pd.DataFrame)
    assert list(found.columns) == ["unique_id", *MODELS]
    assert list(found["unique_id"]) == ["b", "a", "c"]  # in the order they came
    for i, name in enumerate(["b", "a", "c"]):
        group = df[(df.unique_id == name) & df.y.notna()]
        expected = [SINGLE[metric](group, train[train.unique_id == name], m) for m in MODELS]
        np.testing.assert_allclose([found[m][i] for m in MODELS], expected, rtol=1e-12)


@pytest.mark.parametrize("metric", SINGLE)
def test_other_names_integers_and_shuffled_rows(metric):
    df, train = forecasts(), past()
    expected = calls(train)[metric](df, MODELS)
    day = pd.Timestamp("2019-12-01")
    names = {"unique_id": "item_id", "ds": "timestamp", "y": "target"}

    def renamed(frame):
        step = (frame.ds - day).dt.days
        return frame.assign(ds=step, unique_id=frame.unique_id.astype("category")).rename(
            columns=names
        )

    found = calls(renamed(train))[metric](
        renamed(df).sample(frac=1, random_state=2),
        MODELS,
        id_col="item_id",
        time_col="timestamp",
        target_col="target",
    ).set_index("item_id")
    for m in MODELS:
        np.testing.assert_allclose(found.loc[["b", "a", "c"], m], expected[m], rtol=1e-12)


@pytest.mark.parametrize("metric", SINGLE)
def test_cutoffs_are_groups_and_bound_the_past(metric):
    df, train = forecasts(missing=0), past()
    early = df.assign(ds=df.ds - pd.Timedelta(days=9), cutoff=pd.Timestamp("2019-12-27"))
    late = df.assign(cutoff=pd.Timestamp("2020-01-05"))
    both = pd.concat([early, late]).sample(frac=1, random_state=3)
    found = calls(train)[metric](both, MODELS).set_index(["unique_id", "cutoff"])
    assert list(found.columns) == MODELS
    for window in (early, late):
        cutoff = window.cutoff.iloc[0]
        for name, group in window.groupby("unique_id"):
            known = train[(train.unique_id == name) & (train.ds <= cutoff)]
            for m in MODELS:
                expected = SINGLE[metric](group, known, m)
                assert found.loc[(name, cutoff), m] == pytest.approx(expected, rel=1e-12)


def test_several_targets_are_groups():
    one, other = forecasts(0), forecasts(1)
    df = pd.concat([one.assign(target="load"), other.assign(target="price")])
    found = mae(df, MODELS)
    assert list(found.columns) == ["unique_id", "target", *MODELS]
    np.testing.assert_array_equal(found.naive[3:], mae(other, MODELS).naive)
    train = pd.concat([past(1).assign(target="load"), past(2).assign(target="price")])
    found = mase(df, MODELS, 7, train)
    np.testing.assert_array_equal(found.srnn[:3], mase(one, MODELS, 7, past(1)).srnn)
    np.testing.assert_array_equal(found.srnn[3:], mase(other, MODELS, 7, past(2)).srnn)


def test_quantiles_are_found_in_interval_ends_and_the_median():
    df = forecasts()
    bare = df.drop(columns=[c for c in df if "_ql" in c])
    levels = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(
        wql(bare, MODELS, probabilities=levels).naive, wql(df, MODELS, probabilities=levels).naive
    )
    with pytest.raises(ColumnError, match=r"0\.2 quantile of 'srnn'.*quantiles=\[0\.2\]"):
        wql(bare, MODELS)


def test_total_wql_weighs_series_by_their_size():
    df = forecasts()
    seen = df.dropna()
    loss = [2 * pinball(seen.y, seen[f"srnn_ql{q:.1f}"], q).sum() for q in DECILES]
    expected = np.mean(loss) / seen.y.abs().sum()
    found = total_wql(df, MODELS)
    assert found["srnn"] == pytest.approx(expected, rel=1e-12)
    weight = seen.groupby("unique_id", sort=False).y.apply(lambda y: y.abs().sum())
    rows = wql(df, MODELS).set_index("unique_id").srnn
    assert np.average(rows[weight.index], weights=weight) == pytest.approx(expected, rel=1e-12)
    assert wql(df.assign(y=0.0), MODELS).srnn.isna().all()  # nothing to weigh by


def test_series_that_cannot_be_scaled_are_left_out():
    df, train = forecasts(missing=0), past()
    train.loc[train.unique_id == "a", "y"] = 2.0  # constant: the naive error is zero
    train = train[(train.unique_id != "c") | (train.ds > "2020-01-01")]  # shorter than a season
    found = mase(df, MODELS, 7, train)
    assert found.srnn.isna().tolist() == [False, True, True]
    group = df[df.unique_id == "b"]
    expected = SINGLE["mase"](group, train[train.unique_id == "b"], "srnn")
    table = scores(df[["unique_id", "ds", "y"]], df.drop(columns="y"), train, 7)
    assert table.set_index("metric").srnn["mase"] == pytest.approx(expected, rel=1e-12)


def test_rows_of_train_that_were_forecast_are_not_used():
    df, train = forecasts(missing=0), past()
    leaking = pd.concat([train, df[["unique_id", "ds", "y"]].assign(y=1e9)])
    pd.testing.assert_frame_equal(mase(df, MODELS, 7, leaking), mase(df, MODELS, 7, train))
    untimed = mase(df.drop(columns="ds"), MODELS, 7, train)  # no stamps: all of train is past
    pd.testing.assert_frame_equal(untimed, mase(df, MODELS, 7, train))


def test_nullable_integers_and_time_zones():
    df = forecasts(missing=0)
    df["y"] = np.arange(18)
    expected = scores(None, df).srnn
    nullable = df.astype({"y": "Int64", "srnn": "Float64"})
    zoned = nullable.assign(ds=df.ds.dt.tz_localize("Europe/Berlin"))
    truth = zoned[["unique_id", "ds", "y"]].sample(frac=1, random_state=6)
    np.testing.assert_allclose(scores(truth, zoned.drop(columns="y")).srnn, expected)
    nullable.loc[3, "y"] = pd.NA
    floats = df.astype({"y": float})
    floats.loc[3, "y"] = np.nan
    np.testing.assert_array_equal(mae(nullable, MODELS).srnn, mae(floats, MODELS).srnn)


# Sample paths


def grid(df, model, name):
    """Truth ``(H,)`` and paths ``(n, H)`` of a series at the steps with a truth."""
    group = df[df.unique_id == name]
    wide = group.pivot(index="sample_id", columns="ds", values=model)
    y = group.drop_duplicates("ds").set_index("ds").y.dropna()
    return y.sort_index().to_numpy(), wide[y.sort_index().index].to_numpy()


PATHS = {
    "crps": (crps, lambda y, x: np.mean(scoringrules.crps_ensemble(y, x.T, estimator="nrg"))),
    "fair crps": (
        partial(crps, fair=True),
        lambda y, x: np.mean(scoringrules.crps_ensemble(y, x.T, estimator="fair")),
    ),
    "energy": (energy_score, lambda y, x: scoringrules.es_ensemble(y, x)),
    "fair energy": (
        partial(energy_score, fair=True),
        lambda y, x: scoringrules.es_ensemble(y, x, estimator="fair"),
    ),
    "variogram": (variogram_score, lambda y, x: scoringrules.vs_ensemble(y, x)),
    "variogram 1": (
        partial(variogram_score, p=1),
        lambda y, x: scoringrules.vs_ensemble(y, x, p=1.0),
    ),
}


@pytest.mark.parametrize("backend", ["pandas", "polars"])
@pytest.mark.parametrize("metric", PATHS)
def test_scores_of_paths_against_scoringrules(metric, backend, monkeypatch):
    df = samples()
    native = pl.from_pandas(df) if backend == "polars" else df
    function, reference = PATHS[metric]
    found = function(native, MODELS)
    assert type(found) is type(native)
    order = list(dict.fromkeys(df.unique_id))
    assert list(found["unique_id"]) == order
    for m in MODELS:
        expected = [reference(*grid(df, m, name)) for name in order]
        np.testing.assert_allclose(list(found[m]), expected, rtol=1e-10)
    monkeypatch.setattr(paths_module, "BLOCK", 20)  # many small blocks, the same scores
    again = function(native, MODELS)
    np.testing.assert_allclose(list(again["srnn"]), list(found["srnn"]), rtol=1e-12)


def test_series_may_have_different_numbers_of_steps_and_samples():
    one, two = samples(ids=("a",)), samples(3, ids=("z",), steps=2, n=5, missing=0)
    for function in (crps, energy_score, variogram_score):
        both = function(pd.concat([two, one]), MODELS).srnn
        expected = [function(two, MODELS).srnn[0], function(one, MODELS).srnn[0]]
        np.testing.assert_allclose(both, expected, rtol=1e-12)
    unseen = two.assign(y=np.nan)
    for function in (crps, energy_score, variogram_score):
        assert function(unseen, MODELS).srnn.isna().all()


def test_joint_targets_make_one_path():
    a, b = samples(ids=("s",), missing=0), samples(5, ids=("s",), missing=0)
    df = pd.concat([a.assign(target="load"), b.assign(target="price")])
    assert len(energy_score(df, MODELS)) == 2
    (y, x), (v, w) = grid(a, "srnn", "s"), grid(b, "srnn", "s")
    y, x = np.concatenate([y, v]), np.concatenate([x, w], axis=1)
    joint = energy_score(df, MODELS, joint=True)
    assert list(joint.columns) == ["unique_id", *MODELS]
    assert joint.srnn[0] == pytest.approx(scoringrules.es_ensemble(y, x), rel=1e-10)
    found = variogram_score(df, MODELS, joint=True).srnn[0]
    assert found == pytest.approx(scoringrules.vs_ensemble(y, x), rel=1e-10)


def test_crps_of_a_gaussian_tends_to_its_closed_form():
    rng = np.random.default_rng(0)
    y = np.linspace(-2, 2, 9)
    df = pd.DataFrame({"unique_id": "a", "ds": np.arange(9), "y": y})
    drawn = df.merge(pd.DataFrame({"sample_id": np.arange(20_000)}), how="cross")
    drawn["srnn"] = rng.normal(size=len(drawn))
    exact = scoringrules.crps_normal(y, 0.0, 1.0).mean()
    assert crps(drawn, ["srnn"]).srnn[0] == pytest.approx(exact, abs=3e-3)
    levels = np.arange(1, 100) / 100
    quantiles = {f"srnn_ql{q:.2f}": np.full(9, stats.norm.ppf(q)) for q in levels}
    df = pd.concat([df, pd.DataFrame(quantiles)], axis=1)
    assert crps(df, ["srnn"]).srnn[0] == pytest.approx(exact, rel=0.01)  # 99 levels


def test_metrics_are_proper():
    # Truth from N(0, 1) in 2000 series: no forecast may beat the true distribution in expectation.
    rng = np.random.default_rng(0)
    n = 2000
    df = pd.DataFrame({"unique_id": np.arange(n), "ds": 1, "y": rng.normal(size=n)})
    distributions = {"true": (0, 1), "shifted": (0.5, 1), "sharp": (0, 0.6), "wide": (0, 1.6)}
    for name, (loc, scale) in distributions.items():
        df[name] = float(loc)
        for q in DECILES:
            df[f"{name}_ql{q:.1f}"] = stats.norm.ppf(q, loc, scale)
        for level in (80,):
            half = stats.norm.ppf(0.5 + level / 200) * scale
            df[f"{name}-lo-{level}"], df[f"{name}-hi-{level}"] = loc - half, loc + half
        df[f"{name}-log_score"] = stats.norm.logpdf(df.y, loc, scale)
    for function in (crps, partial(interval_score, level=80), log_score):
        mean = function(df, list(distributions))[list(distributions)].mean()
        assert mean.idxmin() == "true"
    total = total_wql(df, list(distributions))
    assert min(total, key=lambda name: total[name]) == "true"
    assert coverage(df, ["true"], 80).true.mean() == pytest.approx(0.8, abs=0.03)


def test_scores_of_paths_are_proper_and_see_dependence():
    rng = np.random.default_rng(0)
    n, steps, m = 400, 4, 50
    root = np.linalg.cholesky(0.9 * np.ones((steps, steps)) + 0.1 * np.eye(steps))
    cells = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(n), steps),
            "ds": np.tile(np.arange(steps), n),
            "y": (rng.normal(size=(n, steps)) @ root.T).ravel(),
        }
    )
    df = cells.merge(pd.DataFrame({"sample_id": np.arange(m)}), how="cross")
    drawn = rng.normal(size=(n, m, steps))
    df["true"] = (drawn @ root.T).transpose(0, 2, 1).ravel()
    df["independent"] = drawn.transpose(0, 2, 1).ravel()  # the same margins
    df["shifted"] = df.true + 0.7
    names = ["true", "independent", "shifted"]
    energy = energy_score(df, names, fair=True)[names].mean()
    assert energy.idxmin() == "true"
    variogram = variogram_score(df, names)[names].mean()
    assert variogram["true"] < variogram["independent"]
    assert variogram["true"] == pytest.approx(variogram["shifted"])
    margin = crps(df, names, fair=True)[names].mean()
    assert margin["true"] == pytest.approx(margin["independent"], abs=0.02)


# Tables


def test_scores_table():
    df, train = forecasts(), past()
    truth, given = df[["unique_id", "ds", "y"]], df.drop(columns="y")
    table = scores(truth.sample(frac=1, random_state=4), given, train, 7, level=(80, 95))
    assert list(table.columns) == ["metric", *MODELS]
    expected = ["mae", "rmse", "mase", "rmsse", "wql", "crps"]
    for level in (80, 95):
        expected += [f"{m}_level{level}" for m in ("interval_score", "msis", "coverage")]
    assert list(table.metric) == [*expected, "log_score"]
    found = table.set_index("metric").srnn
    seen = df.dropna()
    assert found["mae"] == pytest.approx((seen.y - seen.srnn).abs().mean())
    assert found["rmse"] == pytest.approx(np.sqrt(((seen.y - seen.srnn) ** 2).mean()))
    scale = {name: naive_error(group, 7) for name, group in train.groupby("unique_id")}
    over = (seen.y - seen.srnn).abs() / seen.unique_id.map(scale)
    assert found["mase"] == pytest.approx(over.mean())  # over series and steps
    assert found["rmsse"] == pytest.approx(rmsse(df, MODELS, 7, train).srnn.mean())
    assert found["wql"] == pytest.approx(total_wql(df, MODELS)["srnn"])
    width = 2 * (seen["srnn-hi-80"] - seen.srnn)
    outside = ((seen.y - seen.srnn).abs() - width / 2).clip(lower=0)
    assert found["interval_score_level80"] == pytest.approx((width + 10 * outside).mean())
    assert found["coverage_level80"] == pytest.approx((outside == 0).mean())
    assert found["log_score"] == pytest.approx(-seen["srnn-log_score"].mean())
    assert list(scores(None, df, train, 7).metric) == list(table.metric)  # all levels there are


def test_scores_table_in_polars():
    df, train = forecasts(), past()
    expected = scores(None, df, train, 7)
    table = scores(
        pl.from_pandas(df[["unique_id", "ds", "y"]]),
        pl.from_pandas(df.drop(columns="y")),
        pl.from_pandas(train),
        7,
    )
    assert isinstance(table, pl.DataFrame)
    np.testing.assert_allclose(table["srnn"].to_numpy(), expected.srnn, rtol=1e-12)


def test_scores_of_models_that_give_less():
    df = forecasts()
    bare = df.drop(columns=[c for c in df if c.startswith(("naive_", "naive-"))])
    table = scores(None, bare).set_index("metric")
    assert table.naive.dropna().index.tolist() == ["mae", "rmse"]
    assert table.srnn.notna().all()
    only = bare[["unique_id", "ds", "srnn-log_score"]]
    assert scores(None, only).metric.tolist() == ["log_score"]
    assert scores(None, bare, models=["naive"]).metric.tolist() == ["mae", "rmse"]


def test_scores_with_samples():
    df = samples()
    truth = df[["unique_id", "ds", "y"]].drop_duplicates()
    point = df.groupby(["unique_id", "ds"], as_index=False)[["srnn", "naive"]].median()
    drawn = df.drop(columns=["y", "naive"])
    table = scores(truth, point, samples=drawn).set_index("metric")
    assert table.index.tolist() == ["mae", "rmse", "crps", "energy_score", "variogram_score"]
    assert table.naive.dropna().index.tolist() == ["mae", "rmse"]
    assert table.srnn["energy_score"] == pytest.approx(energy_score(df, MODELS).srnn.mean())
    with_truth = point.merge(truth)
    again = scores(None, with_truth, samples=drawn).set_index("metric")
    np.testing.assert_allclose(again.srnn, table.srnn)
    steps = horizon_scores(truth, point, samples=drawn)
    assert steps[steps.metric == "crps"].step.tolist() == [1, 2, 3, 4]


def test_scores_of_backtests_pool_the_windows():
    df = forecasts()
    late = df.assign(ds=df.ds + pd.Timedelta(days=1), cutoff=pd.Timestamp("2020-01-06"))
    both = pd.concat([df.assign(cutoff=pd.Timestamp("2020-01-05")), late])
    table = scores(None, both).set_index("metric")
    np.testing.assert_allclose(table.srnn, scores(None, df).srnn)  # twice the same cells
    drawn = both[["unique_id", "ds", "cutoff", "srnn"]].merge(
        pd.DataFrame({"sample_id": [0, 1]}), how="cross"
    )
    truth = df[["unique_id", "ds"]].assign(y=1.0)
    truth = pd.concat([truth, truth.assign(ds=truth.ds + pd.Timedelta(days=1))]).drop_duplicates()
    point = both.drop(columns="y").merge(truth)
    found = scores(None, point, samples=drawn).set_index("metric")
    assert found.srnn["crps"] == pytest.approx((1 - both.srnn).abs().mean())


def test_scores_of_several_targets():
    one, other = forecasts(0, missing=0), forecasts(1, missing=0)
    columns = Columns(target=("load", "price"))
    truth = one[["unique_id", "ds", "y"]].rename(columns={"y": "load"}).assign(price=other.y)
    given = pd.concat([one.assign(target="load"), other.assign(target="price")])
    train = past().rename(columns={"y": "load"})
    train["price"] = train.load * 2
    table = scores(truth, given.drop(columns="y"), train, 7, columns=columns)
    error = (given.y - given.srnn).abs()
    found = table.set_index("metric").srnn
    assert found["mae"] == pytest.approx(error.mean())
    scale = {name: naive_error(group, 7) for name, group in past().groupby("unique_id")}
    over = error / given.unique_id.map(scale) / given.target.map({"load": 1, "price": 2})
    assert found["mase"] == pytest.approx(over.mean())
    below = train.melt(["unique_id", "ds"], ["load", "price"], var_name="target", value_name="y")
    again = scores(None, given, below, 7, columns=columns)
    np.testing.assert_allclose(again.srnn, table.srnn)
    steps = horizon_scores(truth, given.drop(columns="y"), columns=columns)
    assert set(steps.step) == set(range(1, 7))


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_horizon_scores(backend):
    df, train = forecasts(), past()
    native = pl.from_pandas if backend == "polars" else lambda frame: frame
    truth = native(df[["unique_id", "ds", "y"]])
    given = native(df.drop(columns="y").sample(frac=1, random_state=5))
    table = horizon_scores(truth, given, native(train), 7, level=(80,))
    assert isinstance(table, pl.DataFrame if backend == "polars" else pd.DataFrame)
    assert list(table.columns) == ["metric", "step", *MODELS]
    step = (df.ds - df.ds.min()).dt.days + 1
    loss = np.mean([2 * pinball(df.y, df[f"srnn_ql{q:.1f}"], q) for q in DECILES], axis=0)
    for k in range(1, 7):
        here = step == k
        row = {m: i for i, m in enumerate(table["metric"]) if table["step"][i] == k}
        found = table["srnn"][row["mae"]]
        assert found == pytest.approx((df.y - df.srnn).abs()[here].mean())
        found = table["srnn"][row["rmse"]]
        assert found == pytest.approx(np.sqrt(((df.y - df.srnn) ** 2)[here].mean()))
        found = table["srnn"][row["wql"]]
        assert found == pytest.approx(np.nansum(loss[here]) / df.y[here].abs().sum())


# What other packages say


def test_utilsforecast_evaluates_with_them():
    pytest.importorskip("utilsforecast")
    from utilsforecast import losses
    from utilsforecast.evaluation import evaluate

    df, train = forecasts(missing=0), past().dropna()
    ours = [
        mae,
        rmse,
        partial(mase, seasonality=7),
        partial(rmsse, seasonality=7),
        quantile_loss,
        wql,
        crps,
        interval_score,
        partial(msis, seasonality=7),
        coverage,
        log_score,
    ]
    found = evaluate(df, ours, models=MODELS, level=[80, 95], train_df=train)
    assert set(found.metric) == {
        *("mae", "rmse", "mase", "rmsse", "wql", "crps", "log_score"),
        *(
            f"{name}_level{level}"
            for name in ("interval_score", "msis", "coverage")
            for level in (80, 95)
        ),
        *(f"quantile_loss_q{q}" for q in (0.1, 0.9, 0.025, 0.975)),
    }
    theirs = [
        losses.mae,
        losses.rmse,
        partial(losses.mase, seasonality=7),
        partial(losses.rmsse, seasonality=7),
        losses.quantile_loss,
        losses.coverage,
        losses.winkler_score,
    ]
    expected = evaluate(df, theirs, models=MODELS, level=[80, 95], train_df=train)
    expected["metric"] = expected.metric.str.replace("winkler", "interval")
    both = found.merge(expected, on=["unique_id", "metric"])
    assert len(both) == len(expected)
    for m in MODELS:
        np.testing.assert_allclose(both[f"{m}_x"], both[f"{m}_y"], rtol=1e-9)
    # other names, polars, windows
    late = df.assign(cutoff=pd.Timestamp("2020-01-05"))
    names = {"unique_id": "item", "ds": "time", "y": "value"}
    other = evaluate(
        pl.from_pandas(late.rename(columns=names)),
        ours,
        models=MODELS,
        level=[80],
        train_df=pl.from_pandas(train.rename(columns=names)),
        id_col="item",
        time_col="time",
        target_col="value",
    )
    mine = found[found.metric == "mase"].set_index("unique_id").srnn
    polars = other.filter(pl.col("metric") == "mase")
    np.testing.assert_allclose(polars["srnn"], mine[polars["item"].to_list()])
    with pytest.raises(ValueError, match="require setting `level`"):
        evaluate(df, [quantile_loss], models=MODELS)


def test_utilsforecast_evaluates_paths_and_weighs_to_the_total():
    pytest.importorskip("utilsforecast")
    from utilsforecast.evaluation import evaluate

    df = samples()
    metrics = [crps, energy_score, variogram_score]
    found = evaluate(df, metrics, models=MODELS, agg_fn="mean").set_index("metric")
    assert found.srnn["energy_score"] == pytest.approx(energy_score(df, MODELS).srnn.mean())
    df = forecasts(missing=0)
    df["y"] = df.y.abs()
    found = evaluate(df, [wql], models=MODELS, agg_fn="weighted_mean", weights="auto")
    assert found.srnn[0] == pytest.approx(total_wql(df, MODELS)["srnn"], rel=1e-12)


def naive_m3():
    path = DATA / "m3.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there; set SEQLATENT_DATA to the folder of the benchmark data")
    df = pd.read_parquet(path).query("period == 'YEARLY'")
    df = df.rename(columns={"series": "unique_id", "t": "ds"}).astype(
        {"unique_id": str, "y": float}
    )
    train, test = df[~df.test], df[df.test][["unique_id", "ds", "y"]]
    last = train.groupby("unique_id").y.last()  # season 1: the last value, for ever
    return train[["unique_id", "ds", "y"]], test.assign(naive=test.unique_id.map(last))


def test_published_scores_of_the_naive_forecast_of_m3_yearly():
    train, df = naive_m3()
    for q in DECILES:
        df[f"naive_ql{q:.1f}"] = df.naive
    assert total_wql(df, ["naive"])["naive"] == pytest.approx(0.1665329650420048, rel=1e-7)
    table = scores(df[["unique_id", "ds", "y"]], df.drop(columns="y"), train, 1)
    found = table.set_index("metric").naive
    assert found["wql"] == pytest.approx(0.1665329650420048, rel=1e-7)
    assert found["mase"] == pytest.approx(3.1717102364409517, rel=1e-7)


def test_published_mase_of_car_parts_leaves_out_what_cannot_be_scaled():
    path = DATA / "car_parts.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there; set SEQLATENT_DATA to the folder of the benchmark data")
    wide = pd.read_parquet(path).filter(regex=r"^s\d+").dropna(axis=1)  # GluonTS: no gaps in train
    wide["ds"] = np.arange(len(wide))
    df = wide.melt("ds", var_name="unique_id", value_name="y").astype({"y": float})
    train, test = df[df.ds < 39], df[df.ds >= 39]
    year = train.assign(ds=train.ds + 12).rename(columns={"y": "naive"})
    table = scores(test, test[["unique_id", "ds"]].merge(year), train, 12)
    found = table.set_index("metric").naive
    assert found["mase"] == pytest.approx(1.2014638390969912, rel=1e-9)


# Errors


def test_a_missing_forecast_is_named():
    df = forecasts(missing=0)
    df.loc[8, "naive"] = np.nan
    with pytest.raises(DataError, match=r"found none in 'naive' for unique_id 'a', ds .*2020") as e:
        mae(df, MODELS)
    assert (e.value.id, e.value.column, e.value.row) == ("a", "naive", 8)
    df.loc[8, "y"] = np.nan  # no truth, no need
    mae(df, MODELS)
    truth = forecasts(missing=0)[["unique_id", "ds", "y"]]
    with pytest.raises(
        DataError, match=r"found none for unique_id 'a', ds .*2020.*leave the row out"
    ):
        scores(truth, df.drop(columns="y").drop(index=8))
    scores(truth.drop(index=8), df.drop(columns="y"))  # a forecast without a truth is no error
    with pytest.raises(DataError, match="found none for unique_id 'd'"):
        scores(pd.concat([truth, truth.tail(1).assign(unique_id="d")]), df.drop(columns="y"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda df: mae(df, ["lstm"]), ColumnError, "must have the column 'lstm'"),
        (lambda df: mae(df, "srnn"), TypeError, "models must be a list"),
        (lambda df: mae(df, []), TypeError, "models must be a list"),
        (lambda df: mae(df, MODELS, id_cols="a"), TypeError, "found 'id_cols'.*id_col"),
        (
            lambda df: mae([1], MODELS),
            TypeError,
            "must be a pandas or polars DataFrame, found list",
        ),
        (lambda df: mae(df.assign(srnn="x"), MODELS), ColumnError, "must hold numbers"),
        (lambda df: mae(df.assign(unique_id=None), MODELS), ColumnError, "missing value in row 0"),
        (lambda df: mae(df.assign(sample_id=0), MODELS), ColumnError, "found sample paths"),
        (
            lambda df: mase(df, MODELS, 0, past()),
            ValueError,
            "seasonality must be a number of steps",
        ),
        (
            lambda df: mase(df, MODELS, 1, past().query("unique_id != 'a'")),
            DataError,
            "no row for unique_id 'a'",
        ),
        (
            lambda df: mase(df, MODELS, 1, past().assign(ds=1)),
            TimeError,
            "must agree in their stamps",
        ),
        (lambda df: mase(df, MODELS, 1, past()[["ds"]]), ColumnError, "train_df must have"),
        (lambda df: quantile_loss(df, {"srnn": "srnn"}, 1.0), ValueError, "between 0 and 1"),
        (lambda df: wql(df, MODELS, probabilities=[]), ValueError, "at least one level"),
        (lambda df: interval_score(df, MODELS, 50), ColumnError, r"'srnn-lo-50'.*level=\[50\]"),
        (lambda df: coverage(df, MODELS, 0.8), ColumnError, r"level=\[0\.8\]"),
        (lambda df: coverage(df, MODELS, 100), ValueError, "percentage between 0 and 100"),
        (lambda df: crps(df[["unique_id", "ds", "y"]], ["a"]), ColumnError, "sample paths.*_ql0.1"),
        (lambda df: log_score(df.drop(columns="srnn-log_score"), MODELS), ColumnError, "log_score"),
        (
            lambda df: log_score(df.assign(**{"srnn-log_score": np.nan}), MODELS),
            DataError,
            "scored on the same rows",
        ),
        (
            lambda df: scores(None, df.drop(columns="y").filter(regex="^(?!.*log)")),
            ColumnError,
            "give truth=",
        ),
        (lambda df: scores(None, df, level=(50,)), ColumnError, "level 50 needs columns"),
        (lambda df: scores(None, df[["unique_id", "ds", "y"]]), ColumnError, "columns of models"),
        (lambda df: scores(df[["unique_id", "ds"]], df), ColumnError, "truth must have.*'y'"),
        (lambda df: scores(None, pd.concat([df, df])), TimeError, "second row for unique_id 'b'"),
        (lambda df: scores(pd.concat([df, df]), df), TimeError, "every truth must be there once"),
        (lambda df: scores(None, df, samples=samples()), TimeError, "must agree in their stamps"),
        (
            lambda df: scores(None, df, models=["srnn"], samples=df.rename(columns={"srnn": "x"})),
            ColumnError,
            "paths of one of",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call(forecasts(missing=0))


def test_broken_paths_are_named():
    df = samples(missing=0).sort_values(["unique_id", "ds", "sample_id"], ignore_index=True)
    with pytest.raises(TimeError, match=r"found it twice for unique_id 'a', ds 10"):
        energy_score(pd.concat([df, df.head(1)]), MODELS)
    with pytest.raises(DataError, match=r"other samples for unique_id 'a', ds 11") as e:
        energy_score(df.drop(index=7), MODELS)
    assert e.value.id == "a"
    df.loc[df.index == 7, "sample_id"] = 99  # as many, but others
    with pytest.raises(DataError, match=r"other samples for unique_id 'a', ds 11"):
        energy_score(df, MODELS)
    with pytest.raises(ColumnError, match="'sample_id'"):
        energy_score(forecasts(), MODELS)
    with pytest.raises(ValueError, match="at least 2 samples"):
        crps(samples(n=1), MODELS, fair=True)
    with pytest.raises(ValueError, match="p must be an order"):
        variogram_score(samples(), MODELS, p=0)
    df = samples(missing=0)
    df.loc[df.index[3], "naive"] = np.nan
    with pytest.raises(DataError, match="found none in 'naive'"):
        crps(df, MODELS)


def test_a_target_may_be_called_as_values_are():
    ds = pd.date_range("2024-01-01", periods=30)
    df = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(30.0) % 7, "w": 1.0 + ds.day})
    columns = Columns(target=["y", "w"])
    from seqlatent.forecasting import Forecaster

    cv = Forecaster("seasonal_naive", columns=columns).cross_validation(df, 3, n_windows=2)
    table = scores(None, cv, df, 7, columns=columns)
    assert np.isfinite(table["seasonal_naive"]).all()
