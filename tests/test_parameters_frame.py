"""Parameters of each series: estimates, bands, probabilities, units, agreement with statsmodels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from statsmodels.tsa.statespace.structural import UnobservedComponents

from seqlatent.forecasting import ColumnError, Columns, DataError, Forecaster, plots, spec_of
from seqlatent.forecasting.engines.parameters import (
    Marginals,
    by_specification,
    in_order,
    pooled,
)
from seqlatent.forecasting.engines.structural import fit_structural

FEW = {"specifications": ["damped", "log drift", "reverting"]}


def panel(series=3, rows=24, seed=0, season=4):
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(series):
        n = rows + 6 * i
        walk, noise = rng.normal(size=(2, n))
        y = 50 + (1 + i) * (0.5 * walk.cumsum() + noise + np.sin(np.arange(n) * 2 * np.pi / season))
        frames.append(pd.DataFrame({"unique_id": f"s{series - i}", "ds": range(n), "y": y}))
    return pd.concat(frames, ignore_index=True)


def walks(rows=400, seed=3):
    rng = np.random.default_rng(seed)
    y = 2 * rng.normal(size=rows).cumsum() + 3 * rng.normal(size=rows) + 100
    return pd.DataFrame({"unique_id": "walk", "ds": range(rows), "y": y})


def structural(name="structural", **options):
    return replace(spec_of("structural", **FEW | options), name=name)


@pytest.fixture(scope="module")
def df():
    return panel()


@pytest.fixture(scope="module")
def both(df):
    models = [structural(), structural("bayes", bayes=True, draws=4), "naive"]
    return Forecaster(models, freq=1, season_length=4).fit(df)


def test_a_row_for_each_parameter_of_each_series_in_the_words_of_the_field(df, both):
    found = both.parameters(level=[50, 90])
    assert found.columns.tolist() == [
        *("unique_id", "parameter"),
        *(
            f"{model}{end}"
            for model in ("structural", "bayes")
            for end in ("", "-lo-50", "-hi-50", "-lo-90", "-hi-90", "-probability")
        ),
    ]
    names = [
        *("level.scale", "slope.scale", "slope.damping", "slope.initial_scale"),
        *("season4.scale", "season4.initial_scale"),
        *("autoregressive.coefficient", "autoregressive.scale", "noise.scale"),
    ]
    for id, rows in found.groupby("unique_id", sort=False):
        assert rows["parameter"].tolist() == names, id
    assert found["unique_id"].unique().tolist() == df["unique_id"].unique().tolist()
    for model in ("structural", "bayes"):
        ends = [f"{model}-lo-90", f"{model}-lo-50", model, f"{model}-hi-50", f"{model}-hi-90"]
        assert bool((np.diff(found[ends].to_numpy(), axis=1) >= 0).all())
        scales = found[found["parameter"].str.endswith("scale")]
        assert bool((scales[ends] > 0).all(axis=None))
        shares = found[found["parameter"].str.endswith(("damping", "coefficient"))]
        assert bool((shares[ends].abs() < 1).all(axis=None))


def test_a_probability_is_the_weight_of_the_specifications_that_have_the_parameter(both):
    found = both.parameters(level=[80])
    stacking = both.report("structural")
    trends = [name.split(",")[0] for name in stacking.specifications]
    weight = dict(zip(trends, stacking.weights, strict=True))
    wanted = {
        "level.scale": weight["damped"] + weight["log drift"],
        "slope.scale": weight["damped"],
        "slope.damping": weight["damped"],
        "slope.initial_scale": weight["damped"] + weight["log drift"],
        "season4.scale": 1.0,
        "autoregressive.scale": weight["reverting"],
        "noise.scale": 1.0,
    }
    mean = found.groupby("parameter")["structural-probability"].mean()
    for name, value in wanted.items():
        assert mean[name] == pytest.approx(value, abs=1e-9), name
    each = both.parameters(level=[80], specifications=True)
    assert each.columns[:3].tolist() == ["unique_id", "specification", "parameter"]
    assert each["specification"].unique().tolist() == list(stacking.specifications)
    noise = each[each["parameter"] == "noise.scale"]
    total = noise.groupby("unique_id")[["structural-probability", "bayes-probability"]].sum()
    np.testing.assert_allclose(total, 1.0)
    damped = each[each["specification"] == "damped, season 4"].set_index(["unique_id", "parameter"])
    alone = found.set_index(["unique_id", "parameter"])
    for name in ("slope.damping", "slope.scale"):  # which no other specification has
        columns = ["structural", "structural-lo-80", "structural-hi-80"]
        np.testing.assert_allclose(
            damped.xs(name, level=1)[columns], alone.xs(name, level=1)[columns], rtol=1e-9
        )


def test_ten_times_the_values_have_ten_times_the_scales_and_all_else_alike(df, both):
    keys = ["unique_id", "parameter"]
    more = Forecaster([structural(), structural("bayes", bayes=True, draws=4)], freq=1)
    more.season_length = (4,)
    more.fit(df.assign(y=df["y"] * 10))
    for specifications in (False, True):
        index = keys + ["specification"] * specifications
        one = both.parameters(specifications=specifications).set_index(index)
        ten = more.parameters(specifications=specifications).set_index(index)
        assert one.index.equals(ten.index)
        scale = one.index.get_level_values("parameter").str.endswith("scale")
        factor = np.where(scale, 10.0, 1.0)[:, None]
        sure = [name for name in one if name.endswith("probability")]
        values = one.columns.difference(sure)
        np.testing.assert_allclose(ten[values], one[values] * factor, rtol=1e-3)
        np.testing.assert_allclose(ten[sure], one[sure], atol=1e-3)


def test_series_come_in_the_order_of_the_rows_whichever_they_are(df, both):
    found = both.parameters(level=[80])
    order = ["s2", "s1", "s3"]
    mixed = pd.concat([df[df["unique_id"] == id].tail(3) for id in order])
    other = both.parameters(mixed, level=[80])
    assert other["unique_id"].unique().tolist() == order
    keys = ["unique_id", "parameter"]
    pd.testing.assert_frame_equal(
        other.set_index(keys).sort_index(), found.set_index(keys).sort_index()
    )
    one = both.parameters(mixed[mixed["unique_id"] == "s1"])
    assert one["unique_id"].unique().tolist() == ["s1"]


def test_a_saved_or_updated_forecaster_tells_the_same(df, both, tmp_path):
    both.save(tmp_path / "folder")
    loaded = Forecaster.load(tmp_path / "folder")
    expected = both.parameters()
    with pytest.raises(ValueError, match="pass the rows to look at"):
        loaded.parameters()
    pd.testing.assert_frame_equal(loaded.parameters(df), expected)
    later = df.groupby("unique_id", sort=False).tail(1)
    loaded.update(later.assign(ds=later["ds"] + 1))
    pd.testing.assert_frame_equal(loaded.parameters(later), expected)


def test_a_stranger_is_refused_by_its_name(df, both):
    new = df[df["unique_id"] == "s1"].assign(unique_id="new")
    with pytest.raises(DataError, match="id 'new' is new, and structural has parameters") as caught:
        both.parameters(pd.concat([df, new]))
    assert caught.value.id == "new"


def test_a_model_without_parameters_says_which_has_some(df):
    with pytest.raises(TypeError, match=r"parameters need a model .* found .*; use 'structural'"):
        Forecaster("naive").fit(df).parameters()
    network = spec_of("srnn", members=1, steps=2, hidden_dim=4)
    with pytest.raises(TypeError, match="found srnn; use 'structural'"):
        Forecaster(network, freq=1).fit(df).parameters()


def test_columns_have_the_names_of_the_frame_and_no_others(df):
    columns = Columns(id="shop", time="week", target="sales")
    mine = df.rename(columns={"unique_id": "shop", "ds": "week", "y": "sales"})
    spec = structural(specifications=["level"])
    found = Forecaster(spec, columns=columns, freq=1).fit(mine).parameters(level=None)
    assert found.columns.tolist() == ["shop", "parameter", "structural", "structural-probability"]
    wrong = replace(columns, id="parameter")
    fitted = Forecaster(spec, columns=wrong, freq=1).fit(mine.rename(columns={"shop": "parameter"}))
    with pytest.raises(ColumnError, match="parameters has a column 'parameter' of its own"):
        fitted.parameters()
    for name in ("parameter", "specification", "x-probability"):
        with pytest.raises(ColumnError, match=name):
            Forecaster(replace(spec, name=name), freq=1).fit(df)


def test_a_long_local_level_has_the_estimates_and_errors_of_statsmodels():
    df = walks()
    options = {"specifications": ["level"]}
    models = [structural(**options), structural("bayes", bayes=True, **options)]
    found = Forecaster(models, freq=1).fit(df).parameters(level=[80]).set_index("parameter")
    fitted = UnobservedComponents(df["y"].to_numpy(), "llevel").fit(disp=False)
    named = dict(zip(fitted.param_names, fitted.params, strict=True))
    errors = dict(zip(fitted.param_names, fitted.bse, strict=True))
    for name, theirs in (("level.scale", "sigma2.level"), ("noise.scale", "sigma2.irregular")):
        scale = named[theirs] ** 0.5
        error = errors[theirs] / (2 * named[theirs])  # of its logarithm
        row = found.loc[name]
        for model in ("structural", "bayes"):
            assert row[model] == pytest.approx(scale, rel=0.6 * error)
            width = np.log(row[f"{model}-hi-80"] / row[f"{model}-lo-80"]) / (2 * norm.ppf(0.9))
            assert width == pytest.approx(error, rel=0.3)
            assert row[f"{model}-probability"] == 1.0


def test_bands_are_those_of_the_draws():
    y = torch.from_numpy(panel(2, 30)["y"].to_numpy()[:60].reshape(2, 30).copy())
    for bayes in (False, True):
        fitted = fit_structural(
            y,
            1,
            4,
            specifications=["damped"],
            draws=400,
            bayes=bayes,
            calibrate=False,
            criterion="equal",
        )
        levels = [0.1, 0.5, 0.9]
        found = pooled(fitted.marginals, levels)
        unit = fitted.prepare(y).sequences(log=False).scale[:, 0]
        trend = [m.model.transition.components[0] for m in fitted.members]
        own = {
            "level.scale": torch.stack([x.log_level_scale[:-1, 0].exp() for x in trend]) * unit,
            "slope.scale": torch.stack([x.log_slope_scale[:-1, 0].exp() for x in trend]) * unit,
            "slope.damping": torch.stack([x.damping_logit[:-1, 0].sigmoid() for x in trend]),
        }
        for name, draws in own.items():
            p = found.names.index(name)
            for k, level in enumerate(levels):
                below = (draws.detach().numpy() <= found.quantiles[p, k, :, 0]).mean(0)
                np.testing.assert_allclose(below, level, atol=0.08)


def marginals(mean, scale, weight, name="one", names=("level.scale",), kinds=("scale",)):
    mean, scale = (torch.tensor(x, dtype=torch.float64)[:, None] for x in (mean, scale))
    score = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    vectors = mean + score[:, None, None] * scale
    weight = torch.tensor(weight, dtype=torch.float64)
    centre = torch.zeros(len(names), dtype=torch.float64)
    unit = torch.tensor([2.0] * len(mean), dtype=torch.float64)
    return Marginals(name, names, kinds, score, vectors, centre, unit, weight)


def test_a_mixture_has_the_quantiles_of_its_draws():
    one = marginals([0.1, 0.0], [0.3, 0.2], [0.25, 0.5])
    two = marginals([-0.8, 0.4], [0.1, 0.5], [0.75, 0.0], "two")
    levels = [0.1, 0.4, 0.9]
    found = pooled([one, two], levels)
    rng = np.random.default_rng(0)
    x = np.concatenate([0.1 + 0.3 * rng.normal(size=50_000), -0.8 + 0.1 * rng.normal(size=150_000)])
    x = 2 * np.exp(6 * np.tanh(x / 6))
    np.testing.assert_allclose(found.median[0, 0, 0], np.median(x), rtol=0.01)
    np.testing.assert_allclose(found.quantiles[0, :, 0, 0], np.quantile(x, levels), rtol=0.01)
    # the second series has the first specification alone, with a weight of a half
    exact = 2 * np.exp(6 * np.tanh(0.2 * norm.ppf(levels) / 6))
    np.testing.assert_allclose(found.quantiles[0, :, 1, 0], exact, rtol=1e-9)
    np.testing.assert_allclose(found.probability[0, :, 0], [1.0, 0.5])


def test_what_no_specification_has_is_nan():
    one = marginals([0.0], [1.0], [0.0])
    found = pooled([one], [0.1])
    assert np.isnan(found.median).all()
    assert np.isnan(found.quantiles).all()
    assert found.probability.tolist() == [[[0.0]]]
    (alone,) = by_specification([one], [0.1])
    assert alone.specification == "one"
    assert np.isnan(alone.median).all()


def test_quantiles_of_draws_are_linear_between_normal_scores():
    score = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    vectors = torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64)[:, None, None]
    one = Marginals(
        "one",
        ("slope.damping",),
        ("share",),
        score,
        vectors,
        torch.zeros(1).double(),
        torch.ones(1).double(),
        torch.ones(1).double(),
    )
    (found,) = by_specification([one], norm.cdf([-1.0, 0.5, 1.0, 3.0]).tolist())
    expected = 1 / (1 + np.exp(-6 * np.tanh(np.array([-0.5, -0.125, 0.25, 1.75]) / 6)))
    np.testing.assert_allclose(found.quantiles[0, :, 0, 0], expected, rtol=1e-9)
    twice = pooled([one, one], norm.cdf([0.5, 3.0]).tolist())
    np.testing.assert_allclose(twice.quantiles[0, :, 0, 0], expected[[1, 3]], rtol=1e-6)


def test_names_are_in_the_order_of_components():
    names = ["noise.scale", "slope.initial_scale", "cycle.period", "level.scale", "slope.scale"]
    assert in_order([*names, "noise.scale"]) == (
        *("level.scale", "slope.scale", "slope.initial_scale", "cycle.period", "noise.scale"),
    )


def test_a_picture_has_an_interval_for_each_model_and_parameter(both):
    found = both.parameters(level=[50, 90])
    scales, shares = plots.parameters(found, id="s1")
    assert scales.get_xscale() == "log"
    assert [t.get_text() for t in shares.get_yticklabels()] == [
        "slope.damping",
        "autoregressive.coefficient",
    ]
    assert [t.get_text() for t in scales.get_legend().get_texts()] == [
        *("structural", "bayes", "50 %", "90 %"),
    ]
    drawn = {round(float(x), 9) for line in shares.lines for x in line.get_xdata()}
    rows = found[found["unique_id"] == "s1"].set_index("parameter")
    for model in ("structural", "bayes"):
        for name in ("slope.damping", "autoregressive.coefficient"):
            assert round(rows.loc[name, model], 9) in drawn
    assert len(shares.collections) == 4
    assert any(text.get_text() == "probability" for text in shares.texts)
    (one,) = plots.parameters(found, id="s1", model="bayes", names=["level.scale"], levels=[90])
    assert len(one.collections) == 1
    each = both.parameters(specifications=True)
    axes = plots.parameters(each, id="s1", specification="log drift, season 4")
    assert len(axes) == 1
    with pytest.raises(DataError, match="specification must be named"):
        plots.parameters(each, id="s1")
    with pytest.raises(DataError, match="id must be named"):
        plots.parameters(found)
    with pytest.raises(DataError, match=r"names must be one .* found 'level'"):
        plots.parameters(found, id="s1", names=["level"])
    with pytest.raises(ColumnError, match="parameter"):
        plots.parameters(found.drop(columns="parameter"))


def test_specifications_tell_the_same_in_whichever_order_they_are_named(df):
    keys = ["unique_id", "specification", "parameter"]
    tables, forecasts = [], []
    for order in (["damped", "log drift"], ["log drift", "damped"]):
        spec = structural(specifications=order, criterion="equal")
        # values below one, whose logarithms are negative
        fitted = Forecaster(spec, freq=1, season_length=1).fit(df.assign(y=df["y"] / 100))
        tables.append(fitted.parameters(specifications=True).set_index(keys).sort_index())
        forecasts.append(fitted.predict(3, level=[80]))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    alone = Forecaster(structural(specifications=["log drift"]), freq=1, season_length=1)
    columns = ["structural", "structural-lo-80"]
    found = alone.fit(df.assign(y=df["y"] / 100)).parameters().set_index("unique_id")
    expected = tables[0].xs("log drift", level=1).reset_index("parameter")
    for name in ("level.scale", "noise.scale"):
        one, other = (x[x["parameter"] == name][columns] for x in (found, expected))
        np.testing.assert_allclose(one.loc[other.index], other, rtol=1e-4)
    # draws of the parameters differ, and what 80 % cover by them hardly
    np.testing.assert_allclose(forecasts[0]["structural"], forecasts[1]["structural"], rtol=0.01)
