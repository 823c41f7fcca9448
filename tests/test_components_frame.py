"""Components of a structural forecaster: names, units, bands, sums, specifications, agreement."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from statsmodels.tsa.statespace.structural import UnobservedComponents

from seqlatent.emissions import LinearGaussian
from seqlatent.forecasting import Columns, DataError, Forecaster, Spec, plots
from seqlatent.forecasting.engines.contributions import by_specification, pooled
from seqlatent.forecasting.engines.latent.components import decompose
from seqlatent.forecasting.engines.latent.recipes import deep_state, srnn
from seqlatent.forecasting.engines.terms import Decomposed, Normals, Term
from seqlatent.forecasting.features.transforms import Identity, Log
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.transitions import (
    AR,
    Cycle,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
)

LEVELS, SLOPE, SEASON, NOISE = 0.02, 0.005, 0.01, 0.05
Z80 = 1.2815515655446004


def plain(parts, *, targets=1, scale=NOISE, transform="none", correlated=False, name="plain"):
    """A spec of one structural model that is not trained, or of a model of each transform."""

    def model(specification):
        transition = Sum(specification())
        loading = transition.loading if targets == 1 else None
        emission = LinearGaussian(
            transition.latent_dim,
            targets,
            loading=loading,
            bias=False,
            scale=scale,
            correlated=correlated,
        )
        return LatentModel(transition, emission, Kalman())

    return Spec(
        name,
        lambda data_summary: [
            model(specification)
            for specification in (parts if isinstance(parts, list) else [parts])
        ],
        lambda models, training: None,
        calendar=False,
        transform=transform if isinstance(transform, str) else lambda data_summary: transform,
        dtype=torch.float64,
    )


def trend_and_season():
    return [
        LocalLinearTrend(LEVELS, SLOPE, initial_scale=2.0, initial_slope_scale=0.1),
        Seasonal(4, SEASON, initial_scale=0.5),
    ]


def damped(level=LEVELS):
    return [
        DampedTrend(level, SLOPE, initial_scale=2.0, initial_slope_scale=0.1),
        Seasonal(4, SEASON, initial_scale=0.5),
    ]


def drift():
    return [LocalLinearTrend(LEVELS, None, initial_scale=2.0), Seasonal(4, initial_scale=0.5)]


def mixture():
    """Two draws of one form, another form, and one of logarithms."""
    specifications = [damped, partial(damped, 2 * LEVELS), drift, damped]
    return plain(specifications, transform=["none", "none", "none", "log"], name="structural")


def panel(series=2, rows=40, season=4, seed=0, holes=()):
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


def wide(frame, column="mean"):
    keys = ["unique_id", "ds"] + [k for k in ("target", "specification") if k in frame]
    return frame.pivot(index=keys, columns="component", values=column)


def oracle(y, unit):
    """The same model in statsmodels, with the same first state, in units of the data."""
    model = UnobservedComponents(y, level="local linear trend", seasonal=4)
    first = np.array([2.0, 0.1, 0.5, 0.5, 0.5]) * unit
    model.ssm.initialize_known(np.zeros(5), np.diag(first**2))
    variances = (np.array([NOISE, LEVELS, SLOPE, SEASON]) * unit) ** 2
    return model.smooth(variances)


@pytest.fixture(scope="module")
def single():
    df = panel(holes=(5, 6, 20, 60))
    return df, Forecaster(plain(trend_and_season)).fit(df)


@pytest.fixture(scope="module")
def mixed():
    df = panel(holes=(7, 50))
    return df, Forecaster(mixture()).fit(df)


@pytest.mark.parametrize("kind", ["smoothed", "filtered"])
def test_one_model_agrees_with_statsmodels(single, kind):
    df, model = single
    found = model.components(kind=kind, level=[80])
    assert list(found.columns) == [
        "unique_id", "ds", "model", "component", "scale", "mean", "lo-80", "hi-80"
    ]  # fmt: skip
    unit = model._engines["plain"].ensemble.units["none"].scale[:, 0]
    for i, (name, rows) in enumerate(df.groupby("unique_id")):
        expected = oracle(rows["y"].to_numpy(), unit[i])
        one = found[found["unique_id"] == name]
        mean, low, high = (wide(one, column) for column in ("mean", "lo-80", "hi-80"))
        width = (high - low) / (2 * Z80)
        for component, theirs in (
            ("level", expected.level),
            ("slope", expected.trend),
            ("season4", expected.seasonal),
        ):
            np.testing.assert_allclose(mean[component], theirs[kind], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(
                width[component] ** 2, theirs[f"{kind}_cov"], rtol=1e-6, atol=1e-10
            )
        rest = mean["irregular"].to_numpy()
        np.testing.assert_array_equal(np.isnan(rest), rows["y"].isna())
        np.testing.assert_allclose(mean["signal"] + rest, rows["y"], rtol=1e-9)


def test_the_last_row_is_seen_alike_filtered_and_smoothed(mixed):
    df, model = mixed
    last = df.groupby("unique_id")["ds"].max()
    found = [
        wide(model.components(kind=kind)).loc[[(k, last[k]) for k in last.index]]
        for kind in ("smoothed", "filtered")
    ]
    pd.testing.assert_frame_equal(*found)


def test_the_pooled_components_add_up(mixed):
    df, model = mixed
    found = model.components()
    assert set(found["scale"]) == {"data"}
    mean = wide(found)
    np.testing.assert_allclose(mean["level"] + mean["season4"], mean["signal"], rtol=1e-9)
    y = df.set_index(["unique_id", "ds"])["y"].loc[mean.index]
    np.testing.assert_allclose(mean["signal"] + mean["irregular"], y, rtol=1e-9)
    assert (found["lo-95"] <= found["lo-80"]).all()
    assert (found["lo-80"] <= found["hi-80"]).all()
    assert found["mean"].between(found["lo-95"], found["hi-95"]).all()
    low, high = wide(found, "lo-80"), wide(found, "hi-80")
    np.testing.assert_allclose((low["signal"] + high["irregular"])[y.notna()], y.dropna())


def test_each_form_tells_its_own(mixed):
    _, model = mixed
    found = model.components(specifications=True, level=[80])
    assert found["specification"].unique().tolist() == [
        "damped+season4", "drift+season4", "damped+season4 of logarithms"
    ]  # fmt: skip
    scale = found.groupby(["specification", "component"])["scale"].first()
    assert set(scale["damped+season4"]) == {"data"}
    factors = scale["damped+season4 of logarithms"]
    assert factors[["level", "signal"]].tolist() == ["data"] * 2
    assert factors[["slope", "season4", "irregular"]].tolist() == ["factor"] * 3
    additive = wide(found[found["specification"] == "drift+season4"])
    np.testing.assert_allclose(additive["level"] + additive["season4"], additive["signal"])


def test_medians_of_factors_multiply():
    df = panel(1)
    found = (
        Forecaster(plain(trend_and_season, transform="log"))
        .fit(df)
        .components(specifications=True, level=[80])
    )
    median = (wide(found, "lo-80") * wide(found, "hi-80")) ** 0.5
    np.testing.assert_allclose(median["level"] * median["season4"], median["signal"])
    np.testing.assert_allclose(median["signal"] * median["irregular"], df["y"])


def test_draws_of_a_form_are_a_mixture_of_their_normals(mixed):
    model = mixed[1]
    ensemble = model._engines["structural"].ensemble
    found = decompose(ensemble, model._fitted.panel, None, filtered=False)
    level = wide(model.components(specifications=True, level=[80]), "hi-80").xs(
        "damped+season4", level=2
    )
    marginals = [found.terms[m]["level"].own for m in range(2)]
    below = (
        sum(
            norm.cdf(level["level"].to_numpy(), *(x[:, 0] for x in marginal))
            for marginal in marginals
        )
        / 2
    )
    np.testing.assert_allclose(below, 0.9, atol=1e-9)
    assert np.ptp([marginal.mean for marginal in marginals], axis=0).max() > 0


def made(kinds, terms, weights):
    """A single row with given distributions of its components."""
    y = np.full((1, 1), 5.0)
    time_index = TimeIndex.of(np.arange(2), np.array([0, 2]), 1)
    rows = Panel(
        np.array(["a"]), np.array([0, 1]), np.zeros(1), y, y[:, :0], y[:, :0], y[:, :0],
        y[:, :0].astype(np.int64), np.arange(1), time_index,
    )  # fmt: skip
    specifications = tuple(f"form {k}" for k in range(len(kinds)))
    return Decomposed(rows, specifications, kinds, np.array([weights]), terms)


def test_what_a_factor_adds_has_the_distribution_of_the_difference():
    def marginal(mean, scale):
        return Normals(np.array([[mean]]), np.array([[scale]]))

    rng = np.random.default_rng(0)
    base = rng.normal(1.0, 0.2, 400_000)
    own = 0.3 + 0.4 * (base - 1.0) + rng.normal(0, 0.1, len(base))
    spread = (0.08**2 + 0.1**2) ** 0.5
    both = (0.2**2 + spread**2 + 2 * 0.4 * 0.2**2) ** 0.5
    log = {
        "level": Term("component", marginal(1.0, 0.2)),
        "season4": Term(
            "component", marginal(0.3, spread), marginal(1.0, 0.2), marginal(1.3, both)
        ),
        "signal": Term("signal", marginal(1.3, both)),
    }
    plain_ = {
        "level": Term("component", marginal(2.0, 0.1)),
        "season4": Term("component", marginal(1.0, 0.3), marginal(2.0, 0.1), marginal(3.0, 0.35)),
        "signal": Term("signal", marginal(3.0, 0.35)),
    }
    found = made(("log", "none"), (log, plain_), [0.6, 0.4])
    transforms = {"log": Log(1.0), "none": Identity()}
    result = pooled(found, transforms, [0.1, 0.5, 0.9])
    assert result.names == ("level", "season4", "irregular", "signal")
    n = int(len(base) / 0.6 * 0.4)
    added = np.concatenate([np.exp(base + own) - np.exp(base), rng.normal(1.0, 0.3, n)])
    below = (added < result.quantiles[1]).mean(-1)[:, 0]
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.005)
    np.testing.assert_allclose(result.mean[1, 0, 0], added.mean(), rtol=0.01)
    np.testing.assert_allclose(result.mean[:2].sum(0), result.mean[3])
    specifications = {one.specification: one for one in by_specification(found, transforms, [0.5])}
    np.testing.assert_allclose(specifications["form 0"].quantiles[1].item(), np.exp(0.3))


def test_a_component_that_a_form_lacks_is_zero_there():
    def marginal(mean):
        return Normals(np.array([[mean]]), np.array([[0.1]]))

    some = {
        "level": Term("component", marginal(2.0)),
        "cycle": Term("component", marginal(1.0), marginal(2.0), marginal(3.0)),
        "signal": Term("signal", marginal(3.0)),
    }
    none = {"level": Term("component", marginal(3.0)), "signal": Term("signal", marginal(3.0))}
    result = pooled(made(("none", "none"), (none, some), [0.5, 0.5]), {"none": Identity()}, [0.25])
    assert result.names == ("level", "cycle", "irregular", "signal")
    np.testing.assert_allclose(result.mean[:, 0, 0], [2.5, 0.5, 2.0, 3.0])
    np.testing.assert_allclose(result.quantiles[1].item(), 0.0, atol=1e-6)


def test_specifications_without_weight_are_left_out():
    def marginal(mean):
        return Normals(np.array([[mean]]), np.array([[0.1]]))

    terms = {"level": Term("component", marginal(2.0)), "signal": Term("signal", marginal(2.0))}
    found = made(("none", "none"), (terms, terms), [1.0, 0.0])
    first, second = by_specification(found, {"none": Identity()}, [0.5])
    assert np.isfinite(first.mean).all()
    assert np.isnan(second.mean).all()


def test_regression_has_contributions_and_coefficients_in_units_of_the_data():
    rng = np.random.default_rng(0)
    df = panel(rows=80)
    df["promo"] = (rng.random(len(df)) < 0.3).astype(float)
    df["price"] = rng.normal(100, 20, len(df))
    df["y"] += 5 * df["promo"] - 0.1 * df["price"]

    def parts():
        return [LocalLevel(0.01), Regression(range(2)), Seasonal(4), AR(1, 0.01), Cycle(11.0, 0.01)]

    model = Forecaster(plain(parts, scale=0.03)).fit(df)
    found = model.components()
    assert found["component"].unique().tolist() == [
        "level", "regression[promo]", "regression[price]", "season4", "autoregressive", "cycle",
        "coefficient[promo]", "coefficient[price]", "irregular", "signal",
    ]  # fmt: skip
    mean = wide(found)
    np.testing.assert_allclose(mean["coefficient[promo]"], 5, atol=0.3)
    np.testing.assert_allclose(mean["coefficient[price]"], -0.1, atol=0.01)
    parts = ["level", "regression[promo]", "regression[price]", "season4"]
    parts += ["autoregressive", "cycle"]
    np.testing.assert_allclose(mean[parts].sum(axis=1), mean["signal"])
    promo = df.set_index(["unique_id", "ds"])["promo"].loc[mean.index]
    off, on = (mean["regression[promo]"][promo == k].groupby("unique_id").mean() for k in (0, 1))
    np.testing.assert_allclose(on - off, 5, atol=0.3)
    ahead = df.groupby("unique_id")["ds"].max().reset_index()
    ahead["ds"] += pd.Timedelta(days=1)
    more = wide(model.components(h=1, X_df=ahead.assign(promo=1.0, price=100.0)))
    assert len(more) == len(mean) + 2


def test_components_of_the_forecast_add_up_to_it(single):
    df, model = single
    h = 6
    found = wide(model.components(h=h))
    assert len(found) == len(df) + 2 * h
    ahead = model.predict(h).set_index(["unique_id", "ds"])
    np.testing.assert_allclose(found["signal"].loc[ahead.index], ahead["plain-mean"], rtol=1e-9)
    assert found["irregular"].loc[ahead.index].isna().all()
    past = wide(model.components())
    pd.testing.assert_frame_equal(found.loc[past.index], past, rtol=1e-9)
    given = wide(model.components(df, h=h))
    pd.testing.assert_frame_equal(given, found)


def test_several_targets_have_components_each():
    rng = np.random.default_rng(1)
    df = panel(1).assign(x=lambda d: 3 + rng.normal(size=len(d)))
    columns = Columns(target=("y", "x"))
    spec = plain(trend_and_season, targets=2, correlated=True)
    found = Forecaster(spec, columns=columns).fit(df).components()
    assert found["target"].unique().tolist() == ["y", "x"]
    mean = wide(found)
    np.testing.assert_allclose(mean["level"] + mean["season4"], mean["signal"])


def test_smooth_gives_the_same_components(mixed):
    _, model = mixed
    states, found = model.smooth(), model.components()
    assert set(states["kind"]) == {"component", "state", "signal"}
    theirs = found[found["component"] != "irregular"]
    assert (states["name"].to_numpy() == theirs["component"].to_numpy()).all()
    for column in ("mean", "lo-80", "hi-95"):
        np.testing.assert_array_equal(states[column], theirs[column])


def test_what_a_network_reads_off_inputs_is_a_component():
    df = panel()
    model = Forecaster(deep_state(steps=3, hidden_dim=4), season_length=4).fit(df)
    mean = wide(model.components())
    parts = [name for name in mean if name not in ("signal", "slope", "irregular")]
    assert {"level", "season4"} <= set(parts)
    np.testing.assert_allclose(mean[parts].sum(axis=1), mean["signal"], rtol=1e-9)


def test_a_model_without_a_level_has_a_constant():
    df = panel(1)
    found = Forecaster(plain(lambda: [Seasonal(4), AR(1)])).fit(df).components()
    mean = wide(found)
    np.testing.assert_allclose(mean["season4"] + mean["autoregressive"], mean["signal"])
    assert (mean["constant"] == 0).all()


def test_polars_comes_back_as_polars():
    pl = pytest.importorskip("polars")
    df = pl.from_pandas(panel(1))
    found = Forecaster(plain(trend_and_season)).fit(df).components()
    assert isinstance(found, pl.DataFrame)
    assert len(found) == 5 * 40


def test_errors_teach(single, tmp_path):
    df, model = single
    with pytest.raises(ValueError, match=r"kind must be one of .*, found .both."):
        model.components(kind="both")
    with pytest.raises(TypeError, match="components need a structural model"):
        Forecaster("naive").fit(df.dropna()).components()
    neural = Forecaster(srnn(members=1, steps=1, hidden_dim=4)).fit(df)
    with pytest.raises(TypeError, match=r"transition of named components.*found .* in srnn"):
        neural.components()
    rows = panel(holes=(5, 6, 20, 60)).groupby("unique_id").tail(1)
    fresh = Forecaster(plain(trend_and_season)).fit(df)
    fresh.update(rows.assign(ds=rows["ds"] + pd.Timedelta(days=1)))
    with pytest.raises(ValueError, match="df must be given"):
        fresh.components()
    assert len(fresh.components(df))


def test_beside_models_without_components_the_others_speak(single):
    df, _ = single
    both = Forecaster([plain(trend_and_season), "seasonal_naive"], season_length=4).fit(df)
    assert both.components()["model"].unique().tolist() == ["plain"]


def test_pictures_show_the_data_then_each_component(mixed):
    _, model = mixed
    found = model.components(h=6)
    axes = plots.components(found, id="s0")
    titles = [ax.get_title("left") for ax in axes]
    assert titles == ["signal", "level", "slope", "season4", "irregular"]
    said = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert said == ["mean", "80 %", "95 %", "observed"]
    ends = [one.get_xdata() for one in axes[3].lines]
    assert any(len(set(x)) == 1 for x in ends)  # where the future begins
    (one,) = plots.components(found, id="s0", names=["irregular"], last=16)
    assert len(one.lines[0].get_xdata()) == 10
    specifications = model.components(specifications=True)
    name = "damped+season4 of logarithms"
    axes = plots.components(specifications, id="s1", specification=name)
    assert axes[3].get_title("left") == "season4, a factor"
    with pytest.raises(DataError, match="specification must be named"):
        plots.components(specifications, id="s1")


def test_coefficients_are_drawn_when_named():
    rng = np.random.default_rng(0)
    df = panel(1).assign(x=rng.normal(size=40))
    model = Forecaster(plain(lambda: [LocalLevel(0.01), Regression([0])])).fit(df)
    found = model.components()
    assert len(plots.components(found)) == 4
    (ax,) = plots.components(found, names=["coefficient[x]"])
    assert ax.get_title("left") == "coefficient[x]"
