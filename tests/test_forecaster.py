"""The dataframe skin: verbs, laws, files, threads, bad input."""

import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from trained import Trained

from seqlatent.forecasting import (
    Columns,
    DataError,
    Forecaster,
    TargetError,
    TimeError,
)
from seqlatent.forecasting.engines.latent.recipes import (
    deep_markov,
    deep_state,
    srnn,
    structural,
    vrnn,
)

MODELS = {
    "srnn": lambda: srnn(members=2, steps=3, latent_dim=2, hidden_dim=8),
    "vrnn": lambda: vrnn(members=1, steps=2, latent_dim=2, hidden_dim=8),
    "deep_markov": lambda: deep_markov(members=1, steps=3, latent_dim=2, hidden_dim=8),
    "deep_state": lambda: deep_state(steps=3, hidden_dim=4),
    "structural": lambda: structural(
        ["damped", "log level"], criterion="equal", draws=1, calibrate=False
    ),
    "seasonal_naive": lambda: "seasonal_naive",
}


def slow_but(*quick):
    """The models, of which these stay in the default tests."""
    return [x if x in quick else pytest.param(x, marks=pytest.mark.slow) for x in MODELS]


LATENT = [name for name in MODELS if name != "seasonal_naive"]


def panel(series=3, rows=40, season=4, seed=0, integers=False):
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(series):
        n = rows + 5 * i
        ds = np.arange(n) if integers else pd.date_range("2024-01-01", periods=n, freq="D")
        y = 10 * (i + 1) + np.sin(2 * np.pi * np.arange(n) / season) + rng.normal(0, 0.3, n)
        frames.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y}))
    return pd.concat(frames, ignore_index=True)


def forecaster(name, **options):
    return Forecaster(MODELS[name](), season_length=4, **options)


@pytest.fixture(scope="module")
def fitted():
    return Trained("forecaster", lambda name: forecaster(name).fit(panel()))


@pytest.mark.parametrize("name", MODELS)
def test_predict_gives_ordered_quantiles_for_the_next_steps(fitted, name):
    df = panel()
    found = fitted[name].predict(5, level=[80, 95], quantiles=[0.1])
    assert list(found.columns) == [
        "unique_id", "ds", name, f"{name}-mean", f"{name}-lo-80", f"{name}-hi-80",
        f"{name}-lo-95", f"{name}-hi-95", f"{name}_ql0.1",
    ]  # fmt: skip
    assert found["unique_id"].tolist() == ["s0"] * 5 + ["s1"] * 5 + ["s2"] * 5
    last = df.groupby("unique_id")["ds"].max()
    assert (found.groupby("unique_id")["ds"].min() == last + pd.Timedelta("1D")).all()
    values = found.drop(columns=["unique_id", "ds"])
    assert np.isfinite(values.to_numpy()).all()
    ordered = [f"{name}-lo-95", f"{name}-lo-80", name, f"{name}-hi-80", f"{name}-hi-95"]
    assert (values[ordered].diff(axis=1).iloc[:, 1:] >= 0).all().all()
    assert (values[f"{name}-hi-80"] > values[f"{name}-lo-80"]).all()
    np.testing.assert_allclose(values[f"{name}_ql0.1"], values[f"{name}-lo-80"])


@pytest.mark.parametrize("name", MODELS)
def test_sample_gives_joint_paths(fitted, name):
    found = fitted[name].sample(3, n=7)
    assert list(found.columns) == ["unique_id", "ds", "sample_id", name]
    assert len(found) == 3 * 7 * 3
    assert found["sample_id"].tolist()[:6] == [0, 0, 0, 1, 1, 1]
    assert np.isfinite(found[name]).all()


@pytest.mark.parametrize("name", slow_but(*(x for x in MODELS if x != "structural")))
def test_same_seed_same_frame_and_no_global_generator_moves(name):
    df = panel(series=2)
    state, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    frames = [forecaster(name, seed=s).fit(df).sample(3, n=4)[name] for s in (1, 1, 2)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(legacy, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", slow_but("seasonal_naive"))
def test_a_loaded_forecaster_predicts_the_same_in_a_new_process(fitted, name, tmp_path):
    place = tmp_path / "model"
    fitted[name].save(place)
    expected = fitted[name].predict(4)
    code = (
        "import sys; from seqlatent.forecasting import Forecaster;"
        "Forecaster.load(sys.argv[1]).predict(4).to_pickle(sys.argv[2])"
    )
    out = tmp_path / "found.pkl"
    subprocess.run([sys.executable, "-c", code, str(place), str(out)], check=True)
    pd.testing.assert_frame_equal(pd.read_pickle(out), expected)
    assert not list(place.rglob("*.pkl"))
    assert not list(place.rglob("*.pt"))


@pytest.mark.parametrize("name", MODELS)
def test_update_row_by_row_equals_update_at_once(fitted, name):
    df, more = panel(), panel(rows=46)
    new = more.merge(df[["unique_id", "ds"]], how="left", indicator=True)
    new = new[new["_merge"] == "left_only"].drop(columns="_merge")
    at_once = Forecaster.__new__(Forecaster)
    at_once.__dict__ |= fitted[name].__dict__
    at_once.update(new)
    rowwise = Forecaster.__new__(Forecaster)
    rowwise.__dict__ |= fitted[name].__dict__
    for _, rows in new.groupby(new.groupby("unique_id").cumcount()):
        rowwise.update(rows)
    a, b = at_once.predict(3), rowwise.predict(3)
    assert (a["ds"] == b["ds"]).all()
    if name in ("structural", "seasonal_naive", "deep_state"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9)


def test_update_of_an_exact_model_equals_filtering_everything():
    df = panel(rows=50)
    cut = df.groupby("unique_id").cumcount(ascending=False) < 7
    model = forecaster("structural").fit(df[~cut])
    whole = model.predict(3, df=df)
    updated = model.update(df[cut]).predict(3)
    np.testing.assert_allclose(updated["structural"], whole["structural"], rtol=1e-8)
    np.testing.assert_allclose(updated["structural-lo-80"], whole["structural-lo-80"], rtol=1e-8)


def test_update_refuses_rows_that_were_seen(fitted):
    with pytest.raises(
        TimeError, match=r"'s0', row 0: expected rows after the last one seen, 2024"
    ) as error:
        fitted["structural"].update(panel().iloc[:2])
    assert error.value.id == "s0"


def test_update_takes_new_series_and_gaps(fitted):
    model = Forecaster.__new__(Forecaster)
    model.__dict__ |= fitted["srnn"].__dict__
    rows = pd.DataFrame(
        {
            "unique_id": ["new"] * 3 + ["s1"],
            "ds": [*pd.date_range("2024-01-01", periods=3), pd.Timestamp("2024-02-20")],
            "y": [1.0, 2.0, 3.0, 20.0],
        }
    )
    model.update(rows)
    assert model.ids == ["s0", "s1", "s2", "new"]
    found = model.predict(1).set_index("unique_id")["ds"]
    assert found["s1"] == pd.Timestamp("2024-02-21")
    assert found["new"] == pd.Timestamp("2024-01-04")


@pytest.mark.parametrize("name", MODELS)
def test_the_future_leaks_into_nothing(name):
    """The poison test: what lies after the cutoff changes no forecast, scale or feature."""
    df = panel(series=2)
    future = df.groupby("unique_id").cumcount(ascending=False) < 4
    frames = []
    for poison in (None, 1e9, np.nan):
        poisoned = df.copy()
        if poison is not None:
            poisoned.loc[future, "y"] = poison
        cv = forecaster(name).cross_validation(poisoned, 4)
        frames.append(cv.drop(columns="y"))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


@pytest.mark.parametrize("refit", [True, False, 2])
def test_cross_validation_windows(refit):
    df = panel(series=2)
    cv = Forecaster("seasonal_naive", season_length=4).cross_validation(
        df, 3, n_windows=3, step_size=2, refit=refit
    )
    assert list(cv.columns)[:4] == ["unique_id", "ds", "cutoff", "y"]
    cutoffs = cv.groupby("unique_id")["cutoff"].unique()["s0"]
    last = df[df["unique_id"] == "s0"]["ds"].max()
    assert list(cutoffs) == [last - pd.Timedelta(days=d) for d in (7, 5, 3)]
    truth = cv.merge(df, on=["unique_id", "ds"])
    np.testing.assert_array_equal(truth["y_x"], truth["y_y"])


def test_models_side_by_side(fitted):
    df = panel()
    both = Forecaster(["seasonal_naive", MODELS["srnn"]()], season_length=4).fit(df).predict(4)
    one = fitted["seasonal_naive"].predict(4)
    pd.testing.assert_frame_equal(both[one.columns], one)
    np.testing.assert_array_equal(both["srnn"], fitted["srnn"].predict(4)["srnn"])


@pytest.mark.parametrize("name", LATENT)
def test_smooth_impute_and_score(fitted, name):
    df = panel()
    df.loc[[5, 6, 60], "y"] = np.nan
    model = fitted[name]
    bands = model.smooth(df)
    assert {"kind", "name", "mean", "lo-80", "hi-80"} <= set(bands.columns)
    assert np.isfinite(bands["mean"]).all()
    assert (bands["hi-80"] >= bands["lo-80"]).all()
    draws = model.impute(df, n=5)
    assert len(draws) == 15
    assert np.isfinite(draws["y"]).all()
    whole = model.impute(df, n=2, complete=True)
    assert len(whole) == 2 * len(df)
    seen = df["y"].notna().to_numpy()
    np.testing.assert_array_equal(whole["y"][: len(df)][seen], df["y"][seen])
    scores = model.score(df)
    assert (scores["ds"] == df["ds"]).all()
    assert (scores["unique_id"] == df["unique_id"]).all()
    missing = df["y"].isna()
    assert scores.loc[~missing, f"{name}-log_score"].notna().all()
    assert scores.loc[missing, f"{name}-log_score"].isna().all()
    assert scores.loc[~missing, f"{name}-pit"].between(0, 1).all()


def test_components_of_a_structural_model_add_up(fitted):
    bands = fitted["structural"].smooth(panel())
    parts = bands[bands["kind"] == "component"].groupby(["unique_id", "ds"])["mean"].sum()
    signal = bands[bands["kind"] == "signal"].set_index(["unique_id", "ds"])["mean"]
    np.testing.assert_allclose(parts.loc[signal.index], signal, rtol=1e-9)


@pytest.mark.slow
def test_unsorted_rows_and_integer_times():
    df = panel(integers=True)
    model = forecaster("structural").fit(df)
    expected = model.predict(3)
    shuffled = df.sample(frac=1.0, random_state=0)
    found = model.predict(3, df=shuffled)
    merged = found.merge(expected, on=["unique_id", "ds"])
    assert len(merged) == len(expected)
    np.testing.assert_allclose(merged["structural_x"], merged["structural_y"], rtol=1e-9)
    assert found["unique_id"].drop_duplicates().tolist() == (
        shuffled["unique_id"].drop_duplicates().tolist()
    )
    assert len(model.fit(shuffled).predict(3)) == 9


def test_structural_reads_covariates_and_says_what_it_does_not_read():
    rng = np.random.default_rng(0)
    df = panel(series=2)
    df["promo"] = (rng.random(len(df)) < 0.3).astype(float)
    df["y"] += 5 * df["promo"]
    df["sales"] = rng.normal(size=len(df))
    model = forecaster("structural", columns=Columns(past=["sales"])).fit(df)
    assert "past covariates" in model.notes["structural"][None]
    last = df.groupby("unique_id")["ds"].max()
    ahead = pd.DataFrame(
        {"unique_id": last.index, "ds": last.to_numpy() + np.timedelta64(1, "D"), "promo": 1.0}
    )
    gain = (
        model.predict(1, X_df=ahead)["structural"]
        - model.predict(1, X_df=ahead.assign(promo=0.0))["structural"]
    )
    np.testing.assert_allclose(gain, 5.0, atol=0.6)
    parts = model.smooth(df)
    assert {"level", "season4", "regression[promo]", "signal"} <= set(parts["name"])


def test_irregular_times():
    rng = np.random.default_rng(0)
    ds = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, 40, 50)), unit="D")
    df = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.sin(np.arange(50) / 3)})
    for spec in (MODELS["srnn"](), MODELS["deep_markov"](), "naive"):
        found = Forecaster(spec, freq="irregular").fit(df).predict(3)
        assert np.isfinite(found.iloc[:, 2:].to_numpy()).all()
    with pytest.raises(TimeError, match="regular steps"):
        Forecaster("structural", freq="irregular").fit(df)


def test_new_ids_at_prediction_time(fitted):
    df = panel(seed=3).assign(unique_id=lambda d: "x" + d["unique_id"])
    for name in LATENT:
        found = fitted[name].predict(2, df=df)
        assert found["unique_id"].drop_duplicates().tolist() == ["xs0", "xs1", "xs2"]
        assert np.isfinite(found[name]).all()


def test_covariates_past_covariates_and_statics():
    df = panel()
    rng = np.random.default_rng(0)
    df["temp"], df["sales"] = rng.normal(size=len(df)), rng.normal(size=len(df))
    df.loc[3, "sales"] = np.nan
    static = pd.DataFrame(
        {"unique_id": ["s0", "s1", "s2"], "size": [1.0, 2.0, 3.0], "kind": ["a", "b", "a"]}
    )
    columns = Columns(past=["sales"])
    model = Forecaster(MODELS["srnn"](), season_length=4, columns=columns).fit(df, static)
    ahead = pd.DataFrame(
        {
            "unique_id": np.repeat(["s2", "s0", "s1"], 2),
            "ds": [
                stamp
                for i in (2, 0, 1)
                for stamp in pd.date_range(df[df["unique_id"] == f"s{i}"]["ds"].max(), periods=3)[
                    1:
                ]
            ],
            "temp": rng.normal(size=6),
        }
    )
    found = model.predict(2, X_df=ahead)
    other = model.predict(2, X_df=ahead.assign(temp=5.0))
    assert not np.allclose(found["srnn"], other["srnn"])
    with pytest.raises(DataError, match="temp"):
        model.predict(2)
    with pytest.raises(DataError, match="temp"):
        model.predict(2, X_df=ahead.assign(temp=np.nan))
    new = df[df["unique_id"] == "s0"].assign(unique_id="n")
    with pytest.raises(DataError, match="n"):
        model.predict(2, df=new)
    fresh = pd.DataFrame({"unique_id": ["n"], "size": [2.0], "kind": ["never seen"]})
    ahead_n = ahead[ahead["unique_id"] == "s0"].assign(unique_id="n")
    assert len(model.predict(2, df=new, X_df=ahead_n, static_df=fresh)) == 2


def test_several_targets():
    df = panel().assign(other=lambda d: d["y"] * 2 + 1)
    columns = Columns(target=["y", "other"])
    model = Forecaster(MODELS["srnn"](), season_length=4, columns=columns).fit(df)
    found = model.predict(2)
    assert found["target"].tolist()[:4] == ["y", "other", "y", "other"]
    assert len(found) == 12
    assert len(model.sample(2, n=3)) == 36
    with pytest.raises(TargetError, match="one target"):
        Forecaster("structural", season_length=4, columns=columns).fit(df)


def test_counts_get_a_count_emission_and_wrong_ones_are_named():
    rng = np.random.default_rng(0)
    df = panel(integers=True).assign(y=lambda d: rng.poisson(2.0, len(d)))
    found = Forecaster(MODELS["srnn"](), season_length=4).fit(df).sample(3, n=5)
    assert (found["srnn"] == found["srnn"].round()).all()
    assert (found["srnn"] >= 0).all()
    spec = srnn(members=1, steps=1, latent_dim=2, hidden_dim=4, emission="negative_binomial")
    for bad in (-1.0, 1.5):
        wrong = df.astype({"y": float}).copy()
        wrong.loc[50, "y"] = bad
        with pytest.raises(TargetError, match=rf"'s1', row 50: .*counts.*{bad:g}") as error:
            Forecaster(spec, season_length=4).fit(wrong)
        assert (error.value.id, error.value.row) == ("s1", 50)


@pytest.mark.parametrize("name", MODELS)
def test_constant_and_missing_series_get_a_width(name):
    df = panel()
    df.loc[df["unique_id"] == "s0", "y"] = 5.0
    df.loc[df["unique_id"] == "s1", "y"] = np.nan
    found = forecaster(name).fit(df).predict(3)
    assert np.isfinite(found.drop(columns=["unique_id", "ds"]).to_numpy()).all()
    assert (found[f"{name}-hi-80"] > found[f"{name}-lo-80"]).all()


def test_two_fits_in_two_threads_do_not_disturb_each_other():
    df = panel(series=2)
    expected = [forecaster("srnn", seed=s).fit(df).predict(2)["srnn"] for s in (0, 1)]
    found = [None, None]

    def work(s):
        found[s] = forecaster("srnn", seed=s).fit(df).predict(2)["srnn"]

    threads = [threading.Thread(target=work, args=(s,)) for s in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_any_horizon_and_bad_arguments(fitted):
    model = fitted["structural"]
    assert len(model.predict(1)) == 3
    assert len(model.predict(100)) == 300
    for h in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="h must be"):
            model.predict(h)
    for level in (0, 100, 120, -5):
        with pytest.raises(ValueError, match="level must lie"):
            model.predict(2, level=[level])
    with pytest.raises(ValueError, match="quantiles must lie"):
        model.predict(2, quantiles=[1.0])
    with pytest.raises(ValueError, match="n must be"):
        model.sample(2, n=0)
    with pytest.raises(ValueError, match="model must be one of"):
        Forecaster("prophet")
    with pytest.raises(TypeError, match="name, a Spec"):
        Forecaster(3)
    with pytest.raises(ValueError, match="twice"):
        Forecaster(["naive", "naive"])
    with pytest.raises(ValueError, match="emission is for"):
        Forecaster("structural", emission="poisson")
    with pytest.raises(RuntimeError, match="not fitted"):
        Forecaster("naive").predict(2)
    with pytest.raises(ValueError, match="season_length"):
        Forecaster("naive", season_length=0)
    with pytest.raises(ValueError, match="time_limit"):
        Forecaster("srnn", time_limit=0)


def test_short_and_empty_series():
    df = panel()
    with pytest.raises(TargetError, match=r"at least 2 rows.*'one'"):
        Forecaster("structural").fit(
            pd.concat([df, df.iloc[:1].assign(unique_id="one")], ignore_index=True)
        )
    with pytest.raises(TargetError, match="no value at all"):
        Forecaster("structural").fit(df.assign(y=np.nan))
    with pytest.raises(TargetError, match=r"need \d+ rows"):
        Forecaster("naive").cross_validation(df, 30, n_windows=2)


def test_polars_in_polars_out(fitted):
    pl = pytest.importorskip("polars")
    df = panel()
    model = forecaster("structural").fit(pl.from_pandas(df))
    found = model.predict(3)
    assert isinstance(found, pl.DataFrame)
    expected = fitted["structural"].predict(3)
    np.testing.assert_allclose(found["structural"].to_numpy(), expected["structural"], rtol=1e-9)


def test_a_series_or_a_wide_frame():
    y = panel(series=1).set_index("ds")["y"]
    assert Forecaster("naive").fit(y).ids == ["y"]
    wide = pd.DataFrame({"a": y, "b": 2 * y})
    found = Forecaster("naive").fit(wide).predict(2)
    assert found["unique_id"].tolist() == ["a", "a", "b", "b"]


def test_models_without_states_stand_aside_in_smooth():
    df = panel(series=2)
    both = Forecaster([MODELS["structural"](), "seasonal_naive"], season_length=4).fit(df)
    assert both.smooth(df)["model"].unique().tolist() == ["structural"]
    with pytest.raises(NotImplementedError, match="no latent state"):
        Forecaster("naive").fit(df).smooth(df)


def test_numpy_integers_are_integers():
    df = panel(series=1)
    model = Forecaster("seasonal_naive", season_length=np.int64(4), seed=np.int64(1)).fit(df)
    assert len(model.sample(np.int64(2), n=np.int64(3))) == 6


def test_repr_says_what_it_is(fitted):
    assert repr(fitted["srnn"]) == "Forecaster(srnn, series=3)"
    assert repr(Forecaster(["naive", "ets"])) == "Forecaster(naive, ets, not fitted)"
