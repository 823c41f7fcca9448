"""Which law the values of a target call for, and that forecasts stay where these are."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Columns, Forecaster, TargetError
from seqlatent.forecasting.engines.latent.recipes import deep_markov, latent_ode, srnn, vrnn
from seqlatent.forecasting.engines.laws import EMISSIONS, OUTSIDE, WORDS, Law, law_of, limits
from seqlatent.forecasting.engines.spec import DataSummary, emission_of
from seqlatent.forecasting.features.scaling import Reading, Units, measured

SMALL = {
    "srnn": lambda **o: srnn(members=1, steps=12, hidden_dim=8, **o),
    "srnn_latent": lambda **o: srnn(members=1, steps=12, latent_dim=2, hidden_dim=8, **o),
    "vrnn": lambda **o: vrnn(members=1, steps=6, latent_dim=2, hidden_dim=8, **o),
    "deep_markov": lambda **o: deep_markov(members=1, steps=6, hidden_dim=8, **o),
    "latent_ode": lambda **o: latent_ode(steps=6, latent_dim=2, hidden_dim=8, **o),
}


def frame(y):
    n, rows = y.shape
    ds = pd.date_range("2024-01-01", periods=rows, freq="D")
    ids = np.repeat([f"s{i}" for i in range(n)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(ds, n), "y": y.ravel()})


@cache
def values(kind, n=6, rows=60):
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(n, rows))
    wet = rng.random((n, rows)) > 0.48
    whole = np.where(wet, rng.poisson(3, (n, rows)), 0.0)
    return {
        "softplus_student_t": np.exp(1.2 * noise),
        "censored_student_t": np.maximum(1.7 + noise, 0.0),
        "hurdle_student_t": np.where(wet, rng.gamma(1.0, 3.0, (n, rows)), 0.0),
        "logit_student_t": 1 / (1 + np.exp(-1.5 * noise)),
        "unit_censored_student_t": np.clip(0.5 + 0.3 * noise, 0.0, 1.0),
        "inflated_logit_student_t": np.where(wet, 1 / (1 + np.exp(-noise)), 0.0),
        "negative_binomial": rng.poisson(2.0, (n, rows)).astype(float),
        "zero_inflated_negative_binomial": whole,
    }[kind]


INSIDE = {
    "softplus_student_t": lambda y: y > 0,
    "logit_student_t": lambda y: (y > 0) & (y < 1),
    "unit_censored_student_t": lambda y: (y >= 0) & (y <= 1),
    "inflated_logit_student_t": lambda y: (y >= 0) & (y <= 1),
}


def refit(name, kind, **options):
    return Forecaster(SMALL[name](**options), season_length=7, seed=1).fit(frame(values(kind)))


@pytest.mark.parametrize("kind", WORDS)
def test_values_call_for_their_law(kind):
    law = law_of(values(kind).ravel())
    assert law.name == kind
    assert law_of(np.r_[values(kind).ravel(), np.nan]).name == kind
    assert law_of(np.r_[values(kind).ravel(), -1.0]).name == "student_t"
    assert emission_of(None, DataSummary(laws=(law,))) is EMISSIONS[kind]


@pytest.mark.parametrize(
    ("y", "name"),
    [
        ([np.nan], "student_t"),
        ([0.0, 0.0], "negative_binomial"),
        ([3.0, 200.0, 400.0], "softplus_student_t"),
        ([0.01, 0.02], "softplus_student_t"),
        ([0.3, 0.9, 1.0], "inflated_logit_student_t"),
        ([2.5, 0.0, 7.5, *[3.5] * 20], "censored_student_t"),
    ],
)
def test_thresholds(y, name):
    assert law_of(np.array(y)).name == name


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_a_law_knows_no_unit(unit):
    for kind in ("softplus_student_t", "censored_student_t", "hurdle_student_t"):
        assert law_of(unit * values(kind).ravel()).name == kind


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("name", ["srnn", "deep_markov"])
def test_draws_stay_where_the_data_are(name, kind):
    model = refit(name, kind)
    y = model.sample(5, n=100)[model.aliases[0]].to_numpy(float)
    assert INSIDE.get(kind, lambda y: y >= 0)(y).all()
    if kind.endswith("binomial"):
        assert (y == np.round(y)).all()
    assert f"emission '{kind}'" in model.notes[model.aliases[0]][None]
    holes = frame(values(kind))
    holes["y"] = holes["y"].mask(holes.index % 9 == 4)
    filled = model.impute(holes, n=5)
    assert INSIDE.get(kind, lambda y: y >= 0)(filled["y"].to_numpy(float)).all()


@pytest.mark.parametrize("name", ["srnn_latent", "vrnn", "latent_ode"])
def test_zeros_stay_zeros(name):
    kind = "hurdle_student_t"
    model = refit(name, kind)
    y = model.sample(5, n=100)[model.aliases[0]].to_numpy(float)
    assert (y >= 0).all()
    assert 0.2 < (y == 0).mean() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hurdle_student_t", "zero_inflated_negative_binomial"])
def test_as_many_draws_are_zero_as_values(kind):
    model = Forecaster(srnn(members=1, steps=200, hidden_dim=16), season_length=7)
    model.fit(frame(values(kind)))
    y = model.sample(14, n=200)["srnn"].to_numpy(float)
    assert abs((y == 0).mean() - (values(kind) == 0).mean()) < 0.05


@pytest.mark.parametrize("kind", ["softplus_student_t", "hurdle_student_t", "logit_student_t"])
@pytest.mark.parametrize("name", ["srnn", "deep_markov"])
def test_an_update_is_a_filter_of_all_rows_and_a_folder_keeps_it(name, kind, tmp_path):
    df = frame(values(kind))
    nth = df.groupby("unique_id").cumcount()
    model = Forecaster(SMALL[name](), season_length=7, seed=1).fit(df[nth < 50])
    before = model.predict(4, df=df)
    scores = model.score(df)
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.score(df), scores)
    for one in (model, loaded):
        one.update(df[nth >= 50])
        found = one.predict(4)
        np.testing.assert_allclose(
            found.select_dtypes("number"), before.select_dtypes("number"), rtol=1e-3, atol=1e-4
        )


def test_scores_count_masses_and_densities_in_the_units_of_the_data():
    kind = "hurdle_student_t"
    scores = []
    for unit in (1.0, 1e6):
        df = frame(unit * values(kind))
        model = Forecaster(SMALL["srnn"](), season_length=7, seed=1).fit(df)
        scores.append(model.score(df))
    zero = scores[0]["y"] == 0
    apart = scores[0]["srnn-log_score"] - scores[1]["srnn-log_score"]
    np.testing.assert_allclose(apart[zero], 0.0, atol=2e-3)
    np.testing.assert_allclose(apart[~zero], np.log(1e6), atol=2e-3)
    assert scores[0]["srnn-pit"].between(0, 1).all()


def test_targets_of_different_kinds_have_laws_of_their_own():
    df = frame(values("hurdle_student_t")).rename(columns={"y": "rain"})
    df["sold"] = values("zero_inflated_negative_binomial").ravel()
    df["change"] = values("softplus_student_t").ravel() - 2
    df["share"] = values("logit_student_t").ravel()
    columns = Columns(target=["rain", "sold", "change", "share"])
    for name in ("srnn", "deep_markov"):
        model = Forecaster(SMALL[name](), season_length=7, columns=columns).fit(df)
        note = model.notes[name][None]
        assert "column 'rain': values of at least 0, many of them 0" in note
        assert "column 'sold': counts" in note
        assert "change" not in note
        drawn = model.sample(4, n=50)
        y = {k: v[name].to_numpy(float) for k, v in drawn.groupby("target")}
        assert (y["rain"] >= 0).all()
        assert (y["rain"] == 0).any()
        assert (y["sold"] == np.round(y["sold"])).all()
        assert (y["change"] < 0).any()
        assert ((y["share"] > 0) & (y["share"] < 1)).all()
        assert np.isfinite(model.score(df)[f"{name}-log_score"]).all()


@pytest.mark.parametrize(
    ("emission", "kind", "value", "said"),
    [
        ("softplus_student_t", "softplus_student_t", 0.0, "positive values, found 0"),
        ("hurdle_student_t", "hurdle_student_t", -2.0, "values of at least 0, found -2"),
        ("logit_student_t", "logit_student_t", 1.0, "without the two, found 1"),
        ("unit_censored_student_t", "logit_student_t", 1.5, "values from 0 to 1, found 1.5"),
        ("zero_inflated_negative_binomial", "negative_binomial", 1.5, "counts .* found 1.5"),
    ],
)
def test_a_law_that_was_asked_for_and_is_contradicted_names_the_row(emission, kind, value, said):
    df = frame(values(kind))
    df.loc[70, "y"] = value
    with pytest.raises(TargetError, match=said) as caught:
        Forecaster(SMALL["srnn"](emission=emission), season_length=7).fit(df)
    assert (caught.value.column, caught.value.id, caught.value.row) == ("y", "s1", 70)


def test_a_law_that_was_asked_for_is_kept():
    model = refit("srnn", "hurdle_student_t", emission="censored_student_t")
    assert "emission" not in (model.notes["srnn"].get(None) or "").replace("emission=", "")
    y = model.sample(3, n=50)["srnn"].to_numpy(float)
    assert (y >= 0).all()


@pytest.mark.parametrize("kind", ["softplus_student_t", "logit_student_t", "hurdle_student_t"])
def test_later_rows_may_lie_outside_and_count_as_what_is_nearest(kind):
    df = frame(values(kind))
    model = refit("srnn", kind)
    df.loc[70, "y"] = -3.0
    assert OUTSIDE not in model.notes["srnn"].values()
    later = model.predict(3, df=df)
    assert model.notes["srnn"][df.loc[70, "unique_id"]] == OUTSIDE
    df.loc[70, "y"] = limits(law_of(values(kind).ravel()))[0]
    pd.testing.assert_frame_equal(model.predict(3, df=df), later)
    assert np.isfinite(model.score(df.assign(y=df["y"] - 1.0))["srnn-log_score"]).all()


def test_values_are_read_from_the_zero_of_their_law():
    shift, scale = np.array([[5.0, 5.0, 0.0]]), np.array([[2.0, 2.0, 3.0]])
    readings = (
        Reading("standard"),
        Reading("standard", relative=False),
        Reading("counts", free=False, relative=False),
    )
    units = Units(readings, 1, None, shift, scale)
    y = np.array([[9.0, 9.0, 9.0]])
    np.testing.assert_array_equal(units.inwards(y, shift), [[2.0, 4.5, 9.0]])
    np.testing.assert_array_equal(units.outwards(units.inwards(y, shift), shift), y)
    rows = np.random.default_rng(0).gamma(1.0, 2.0, (4, 9, 3))
    found = measured(rows, ("standard", "local", "counts"))
    for d, kind in enumerate(("standard", "local", "counts")):
        alone = measured(rows[..., d, None], kind)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one[:, d], other[:, 0])


def test_folders_from_before_there_were_laws_are_read():
    config = DataSummary(obs_dim=2).to_dict() | {"counts": True}
    config.pop("laws")
    assert DataSummary.from_dict(config).laws == (Law("negative_binomial"),) * 2
    law = Law("softplus_student_t", 0.2, 0.7)
    assert DataSummary.from_dict(DataSummary(laws=(law,)).to_dict()).laws == (law,)
