"""Components, breaks, parameters and holes by networks of latents: windows, sums, units, files."""

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from engines import amortised
from local_engines import make_panel

from seqlatent.amortised import Adaptation
from seqlatent.amortised import weights as packed
from seqlatent.amortised.latents import LatentNetwork, load_latent_networks
from seqlatent.forecasting import Amortised, ColumnError, Columns, Forecaster, plots
from seqlatent.forecasting.engines.amortised import cover, decomposition
from seqlatent.forecasting.engines.engine import FitOptions

SEED = 3
SEASON = 4
CONTEXT = 120  # steps of a window of such seasons
KEYS = ["unique_id", "ds"]


def network(seed=0, scale=1.0, **options) -> LatentNetwork:
    """Without any training; with a scale its outputs depend on what is read."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = LatentNetwork(width=16, head_width=16, depth=1, head_depth=1, **options)
    with torch.no_grad():
        found.out.weight *= scale
    return found


def engine(latents: Any = "small") -> Any:
    given = (network(scale=10.0),) if latents == "small" else latents
    return Amortised(adapt=False, networks=amortised().own, latents=given)


def fitted(df, season_length: Any = SEASON, **columns) -> Any:
    said = Columns(**columns) if columns else None
    return Forecaster(engine(), season_length=season_length, columns=said, freq=1).fit(df)


def rows(y, id="a"):
    return pd.DataFrame({"unique_id": id, "ds": np.arange(len(y)), "y": y})


def wave(n, seed=0, holes=()):
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    y = 20 + 0.3 * rng.normal(size=n).cumsum() + 2 * np.sin(2 * np.pi * t / SEASON)
    y += 0.5 * rng.normal(size=n)
    for first, end in holes:
        y[first:end] = np.nan
    return y


STRANGE = {
    "plain": wave(30),
    "long": wave(3 * CONTEXT, 1, [(150, 160), (201, 202)]),
    "torn": wave(2 * CONTEXT + 50, 2, [(30, 190)]),
    "late": wave(25, 3, [(0, 9)]),
    "ended": wave(25, 4, [(12, 25)]),
    "none": np.full(8, np.nan),
    "one": np.where(np.arange(9) == 4, 7.0, np.nan),
    "flat": np.full(20, 5.0),
    "zero": np.zeros(20),
    "brief": wave(3, 5),
    "counts": np.where(np.arange(40) % 9 == 5, np.nan, np.abs(wave(40, 6) // 3 - 6)),
}


def strange():
    return pd.concat([rows(y, id) for id, y in STRANGE.items()], ignore_index=True)


@pytest.fixture(scope="module")
def df():
    return strange()


@pytest.fixture(scope="module")
def model(df):
    return fitted(df)


def wide(found, column="mean"):
    keys = [*KEYS, "target"] if "target" in found else KEYS
    return found.pivot(index=keys, columns="component", values=column)


# --- windows -----------------------------------------------------------------------------------


def torn_panel(seed, share=0.3):
    """Series of unequal lengths with single holes and long ones, at ends too."""
    rng = np.random.default_rng(seed)
    series = []
    for n in (1, 5, 40, 41, 90, 200, 33):
        y = rng.normal(size=n)
        y[rng.random(n) < share] = np.nan
        for _ in range(rng.integers(0, 3)):
            first = rng.integers(n)
            y[first : first + rng.integers(60)] = np.nan
        series.append(y)
    series.append(np.full(7, np.nan))
    return make_panel(series)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("length", [1, 2, 7, 20, 40])
def test_every_row_belongs_to_one_window_that_ends_with_a_value(seed, length):
    panel = torn_panel(seed)
    seen, owner = ~np.isnan(panel.y[:, 0]), panel.owner
    for covering in (cover.smoothed, cover.filtered):
        found = covering(panel, 0, length)
        count = np.zeros(panel.rows, int)
        for start, end, first, stop in zip(
            found.start, found.end, found.first, found.stop, strict=True
        ):
            count[first:stop] += 1
            assert len(set(owner[start:stop])) == len(set(owner[first : end + 1])) == 1
            known = seen[panel.series(int(owner[end]))]
            before_any = not seen[panel.offsets[owner[end]] : end + 1].any()
            assert seen[end] or not known.any() or (covering is cover.filtered and before_any)
            opens = first == panel.offsets[owner[first]]
            # of what lies before a window only unseen rows are read by the first one
            assert end - start < length or opens
            assert not seen[start : max(start, end - length + 1)].any()
            assert first >= start
        np.testing.assert_array_equal(count, 1)


@pytest.mark.parametrize("length", [20, 21])
def test_a_row_is_told_of_by_the_window_in_whose_middle_it_lies_most(length):
    panel = make_panel([np.arange(173.0)])
    found = cover.smoothed(panel, 0, length)
    assert len(found.end) == 1 + -(-(173 - length) // (length // 2))
    middle = (found.start[1:] + found.end[1:]) / 2
    middle = np.concatenate([[found.end[0] - (length - 1) / 2], middle])
    for k, (first, stop) in enumerate(zip(found.first, found.stop, strict=True)):
        for row in range(first, stop):
            away = np.abs(row - middle)
            assert away[k] <= away.min() + 0.5


def test_a_hole_is_told_of_by_one_window_where_it_can_be():
    y = wave(300)
    for first in range(20, 280, 7):
        holed = y.copy()
        holed[first : first + 9] = np.nan
        found = cover.smoothed(make_panel([holed]), 0, 40)
        inside = (found.first > first) & (found.first < first + 9)
        assert not inside.any()


def test_a_filtered_window_holds_the_last_rows_up_to_the_last_value():
    panel = torn_panel(4)
    found = cover.filtered(panel, 0, 10)
    values = np.flatnonzero(~np.isnan(panel.y[:, 0]))
    np.testing.assert_array_equal(np.intersect1d(found.end, values), values)


@pytest.mark.parametrize("cells", [40, 300, 2**13])
def test_parts_hold_each_row_once_and_the_values_of_its_window(cells, monkeypatch):
    monkeypatch.setattr(cover, "_CELLS", cells)
    panel = torn_panel(1)
    for covering in (cover.smoothed, cover.filtered):
        told = []
        for part in covering(panel, 0, 20).parts(panel):
            row, window, place = part.rows()
            told.append(row)
            values = part.values(panel.y[:, 0])
            at = place + part.steps.start
            inside = at < part.width
            found = values[window[inside], at[inside]]
            np.testing.assert_array_equal(found, panel.y[row[inside], 0])
            assert (np.isnan(panel.y[row[~inside], 0])).all()
            assert ((~np.isnan(values)).sum(1) < 2).all() == part.few
            np.testing.assert_array_equal(part.index[window, at], row)
        np.testing.assert_array_equal(np.sort(np.concatenate(told)), np.arange(panel.rows))


# --- components --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["smoothed", "filtered"])
def test_components_add_up_in_every_row_of_every_series(df, model, kind):
    found = model.components(kind=kind, h=3)
    mean = wide(found)
    assert list(found["component"].unique()) == [
        *("level", "slope", "season4", "autoregressive", "noise", "irregular", "signal")
    ]
    assert list(found.columns[:6]) == [*KEYS, "model", "component", "scale", "mean"]
    assert len(mean) == len(df) + 3 * len(STRANGE)
    assert np.isfinite(mean.drop(columns="irregular")).all(axis=None)
    total = mean["level"] + mean["season4"] + mean["autoregressive"]
    np.testing.assert_allclose(total, mean["signal"], rtol=1e-12, atol=1e-12)
    y = df.set_index(KEYS)["y"].reindex(mean.index)
    np.testing.assert_allclose(mean["signal"] + mean["irregular"], y, rtol=1e-12)
    for low, high in (("lo-95", "lo-80"), ("lo-80", "hi-80"), ("hi-80", "hi-95")):
        assert (found[low] <= found[high]).all()
    assert (found[found["component"] == "noise"]["lo-95"] >= 0).all()


def test_a_signal_that_is_sure_leaves_a_sure_irregular(model):
    found = model.components(level=[50])
    signal, rest = (wide(found, end) for end in ("lo-50", "hi-50"))
    both = signal["signal"] + rest["irregular"]
    y = wide(found)["signal"] + wide(found)["irregular"]
    there = y.notna()
    np.testing.assert_allclose(both[there], y[there], rtol=1e-6, atol=1e-6)


def test_smooth_tells_components_and_states(model):
    found = model.smooth(level=80)
    kinds = found.groupby("name")["kind"].unique().str[0].to_dict()
    states = {"slope": "state", "noise": "state", "signal": "signal"}
    assert kinds == {"level": "component", "season4": "component"} | states | {
        "autoregressive": "component"
    }
    parts = model.components(level=80)
    kept = parts[parts["component"] != "irregular"]
    np.testing.assert_array_equal(found["mean"], kept["mean"])


def test_seasons_that_there_are_not_are_left_out():
    df = rows(wave(40))
    for season_length, names in ((1, set()), ([4, 12], {"season4", "season12"})):
        mean = wide(fitted(df, season_length).components())
        assert {name for name in mean if name.startswith("season")} == names
        parts = mean[["level", "autoregressive", *names]].sum(axis=1)
        np.testing.assert_allclose(parts, mean["signal"], rtol=1e-12)


def test_series_that_say_nothing_are_as_all_others_with_a_note(model, df):
    found = model.components(level=80)
    one = found[(found["unique_id"] == "none") & (found["component"] == "level")]
    center = float(np.nanmean(df["y"]))
    np.testing.assert_allclose(one["mean"], center, rtol=1e-12)
    assert ((one["hi-80"] - one["lo-80"]) > np.nanstd(df["y"])).all()
    other = strange().assign(unique_id=lambda x: "new " + x["unique_id"])
    assert "new none" not in model.notes["amortised"]
    model.components(other)
    for _ in range(2):
        model.components(other, kind="filtered")
        assert model.notes["amortised"]["new none"].startswith("no value")
        assert model.notes["amortised"]["new one"] == "one value: it moves as the other series do"
    model.components()


def test_a_series_of_one_value_is_less_sure_far_from_it(model):
    found = model.components(level=80)
    one = found[(found["unique_id"] == "one") & (found["component"] == "level")]
    width = (one["hi-80"] - one["lo-80"]).to_numpy()
    assert width[4] <= width.min() < width[0] < width[-1] + 1e-9
    np.testing.assert_allclose(one["mean"], 7.0)


def test_specifications_are_one(model):
    pooled, told = (model.components(specifications=x) for x in (False, True))
    assert (told["specification"] == "amortised").all()
    np.testing.assert_array_equal(told["mean"], pooled["mean"])


# --- laws --------------------------------------------------------------------------------------


def looks(model, df):
    yield wide(model.components(df))
    yield wide(model.components(df, level=80), "hi-80")
    yield wide(model.components(df, kind="filtered"))
    yield model.breaks(df).set_index(KEYS).drop(columns="y").sort_index()
    held = df[df["unique_id"] != "none"]
    yield model.impute(held, level=80).set_index(KEYS).sort_index()


def test_rows_and_series_come_in_any_order(model, df):
    turned = pd.concat([part for _, part in [*df.groupby("unique_id", sort=False)][::-1]])
    for other in (df.sample(frac=1, random_state=0), turned):
        for found, expected in zip(looks(model, other), looks(model, df), strict=True):
            pd.testing.assert_frame_equal(found, expected, check_exact=True)
        drawn, wanted = (
            model.impute(x[x["unique_id"] != "none"], n=2).sort_values([*KEYS, "sample_id"])
            for x in (other, df)
        )
        np.testing.assert_array_equal(drawn["y"], wanted["y"])


def test_a_series_alone_is_as_beside_others(model, df):
    together = [*looks(model, df)]
    for id in ("plain", "long", "torn", "late", "counts"):
        alone = looks(model, df[df["unique_id"] == id])
        for found, among in zip(alone, together, strict=True):
            expected = among[among.index.get_level_values(0) == id]
            assert len(found) == len(expected)
            if not len(found):  # no holes
                continue
            scale = np.nanmax(np.abs(expected.to_numpy(float)), axis=0)
            away = np.abs(found - expected) / np.where(scale > 0, scale, 1.0)
            assert np.nanmax(away.to_numpy(float)) < 1e-4


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**12])
def test_a_panel_in_another_unit_has_components_in_that_unit(unit):
    df = rows(wave(150, holes=[(60, 66)]))
    expected, found = ([*looks(fitted(x), x)] for x in (df, df.assign(y=unit * df["y"])))
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        sizes = [name for name in one if name.startswith("amortised-break-size")]
        names = sizes if k == 3 else list(one)
        np.testing.assert_allclose(one[names] / unit, other[names], rtol=1e-9, atol=1e-9)


def test_a_panel_elsewhere_has_its_components_there():
    df = rows(wave(150, holes=[(60, 66)]) - 40.0)  # neither is bounded by zero
    parts = [wide(fitted(x).components()) for x in (df, df.assign(y=df["y"] - 2.0**20))]
    for name in parts[0]:
        moved = 2.0**20 * (name in ("level", "signal"))
        np.testing.assert_allclose(parts[1][name] + moved, parts[0][name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("row", [4, 150])
def test_a_filtered_component_does_not_depend_on_later_rows(model, df, row):
    nth = df.groupby("unique_id").cumcount()
    expected = model.components(df, kind="filtered")
    lost = df.assign(y=df["y"].where(nth <= row))
    changed = df.assign(y=df["y"].where(nth <= row, 3 * df["y"] - 50))
    keys = ["mean", "lo-80", "hi-80"]
    for other, atol in ((changed, 0.0), (lost, 1e-3)):
        found = model.components(other, kind="filtered")
        one, two = (x[x["ds"] <= row] for x in (found, expected))
        assert len(one) == len(two)
        np.testing.assert_allclose(one[keys], two[keys], rtol=0, atol=atol)


@pytest.mark.slow
def test_a_smoothed_row_is_that_of_any_window_length_in_a_short_series(monkeypatch):
    """How many windows are read at once tells nothing."""
    df = strange()
    model = fitted(df)
    expected = [*looks(model, df)]
    monkeypatch.setattr(cover, "_CELLS", 64)
    for found, one in zip(looks(model, df), expected, strict=True):
        scale = np.nanmax(np.abs(one.to_numpy(float)), axis=0)
        away = np.abs(found - one) / np.where(scale > 0, scale, 1.0)
        assert np.nanmax(away.to_numpy(float)) < 1e-4


# --- several targets, covariates -----------------------------------------------------------------


def test_each_target_is_told_of_by_itself():
    x, y = wave(60), wave(60, 1, [(20, 24)])
    df = rows(x).rename(columns={"y": "x"}).assign(y=y)
    both = fitted(df, target=["x", "y"])
    found = both.components(level=80)
    for name, values in (("x", x), ("y", y)):
        alone = fitted(rows(values)).components(level=80)
        own = found[found["target"] == name]
        assert own["component"].tolist() == alone["component"].tolist()
        np.testing.assert_allclose(own[["mean", "hi-80"]], alone[["mean", "hi-80"]], atol=1e-4)
    assert both.breaks(df)["target"].tolist() == ["x", "y"] * 60
    drawn = both.impute(df, n=2)
    assert set(drawn["target"]) == {"y"}
    assert len(drawn) == 8
    assert set(both.parameters(df)["target"]) == {"x", "y"}


def promoted(effect=8.0):
    rng = np.random.default_rng(1)
    promo = (rng.random(80) < 0.3).astype(float)
    return rows(wave(80) + effect * promo).assign(promo=promo)


def test_effects_of_covariates_are_a_component():
    df = promoted()
    how = Amortised(adapt=Adaptation(steps=0), horizon=4, latents=(network(),))
    known: Any = Forecaster(how, season_length=SEASON, freq=1).fit(df)
    assert known._engines["amortised"].effects[0] is not None
    df.loc[40:44, "y"] = np.nan
    later = pd.DataFrame({"unique_id": "a", "ds": np.arange(80, 83), "promo": [1.0, 0.0, 1.0]})
    mean = wide(known.components(df, h=3, X_df=later))
    total = mean["level"] + mean["season4"] + mean["autoregressive"] + mean["regression"]
    np.testing.assert_allclose(total, mean["signal"], rtol=1e-12)
    effect = mean["regression"].to_numpy()
    promo = np.append(df["promo"], later["promo"]).astype(bool)
    assert np.ptp(effect[promo]) < 1e-9
    assert np.ptp(effect[~promo]) < 1e-9
    assert 6 < effect[promo][0] - effect[~promo][0] < 10
    filled = known.impute(df, level=80)
    high = df["promo"][40:45].to_numpy(bool)
    assert filled["y"][high].min() > filled["y"][~high].max()
    assert len(known.parameters(df)) > 0


# --- holes ---------------------------------------------------------------------------------------


def test_draws_have_the_distribution_that_bands_tell(model, df):
    holes = df[df["unique_id"].isin(["plain", "long", "torn", "late", "ended", "one"])]
    drawn = model.impute(holes, n=3000)
    bands = model.impute(holes, level=80).set_index(KEYS)
    width = bands["y-hi-80"] - bands["y-lo-80"]
    at = drawn.groupby(KEYS)["y"].quantile([0.1, 0.5, 0.9]).unstack().loc[bands.index]
    for level, column in ((0.1, "y-lo-80"), (0.5, "y"), (0.9, "y-hi-80")):
        assert ((at[level] - bands[column]) / width).abs().max() < 0.06
    mean = drawn.groupby(KEYS)["y"].mean().loc[bands.index]
    assert ((mean - bands["y-mean"]) / width).abs().max() < 0.05


def test_whole_numbers_and_bounds_are_kept(model, df):
    counts = df[df["unique_id"] == "counts"]
    drawn = model.impute(counts, n=200)["y"]
    assert (drawn >= 0).all()
    assert (drawn == drawn.round()).all()
    assert drawn.nunique() > 2
    long = rows(np.where(np.arange(400) < 200, -1.0, 1.0) * (5 + wave(400) % 1))
    long.loc[[50, 380], "y"] = np.nan  # in a window without a negative value
    assert (model.impute(long, n=400)["y"] < 0).any()


def test_seen_values_stay_and_a_seed_says_all(model, df):
    held = df[df["unique_id"] != "none"]
    drawn = model.impute(held, n=2, complete=True)
    for _, one in drawn.groupby("sample_id"):
        y = one.set_index(KEYS)["y"].loc[held.set_index(KEYS).index].to_numpy()
        seen = held["y"].notna().to_numpy()
        np.testing.assert_array_equal(y[seen], held["y"][seen])
        assert np.isfinite(y).all()
    again = model.impute(held, n=2, complete=True)
    pd.testing.assert_frame_equal(drawn, again)
    other = model.impute(held, n=2, complete=True, seed=9)
    assert not np.array_equal(drawn["y"], other["y"])


def test_draws_go_together_over_time():
    """As their copula does, whose factors and memory neighbours share."""
    shared = network(scale=1.0)
    with torch.no_grad():
        shared.out.bias[-shared._sizes[-1] :] = 2.0
    y = wave(60, holes=[(30, 36)])
    known = Forecaster(engine(latents=(shared,)), season_length=SEASON, freq=1).fit(rows(y))
    drawn = known.impute(rows(y), n=2000)["y"].to_numpy().reshape(2000, 6)
    assert np.corrcoef(drawn.T)[np.triu_indices(6, 1)].min() > 0.5
    few = [np.corrcoef(known.impute(rows(y), n=n)["y"].to_numpy().reshape(n, 6).T) for n in (2000,)]
    np.testing.assert_array_equal(few[0], np.corrcoef(drawn.T))


def test_many_draws_are_made_some_at_a_time(model, df, monkeypatch):
    held = df[df["unique_id"] == "torn"]
    monkeypatch.setattr(decomposition, "_DRAWS", 1000)
    drawn = model.impute(held, n=50)
    assert drawn.groupby("ds")["y"].nunique().min() == 50


# --- breaks and parameters -----------------------------------------------------------------------


def test_rows_come_as_they_are_with_what_is_known_of_breaks(model, df):
    shuffled = df.sample(frac=1, random_state=2)
    found = model.breaks(shuffled, level=[80])
    pd.testing.assert_frame_equal(
        found[[*KEYS, "y"]].reset_index(drop=True), shuffled.reset_index(drop=True)
    )
    assert list(found.columns[3:]) == [
        "amortised-break",
        "amortised-break-size",
        "amortised-break-size-lo-80",
        "amortised-break-size-hi-80",
        "amortised-outlier",
    ]
    dumb = found["unique_id"].isin(["none", "one"])
    assert found.loc[dumb].iloc[:, 3:].isna().all(axis=None)
    told = found.loc[~dumb]
    for name in ("amortised-break", "amortised-outlier"):
        assert told[name].between(0, 1).all()
    size = told.iloc[:, 4:7].to_numpy(float)
    assert (size[:, 1] <= size[:, 0]).all()
    assert (size[:, 0] <= size[:, 2]).all()


def test_models_that_know_no_breaks_say_so_or_stand_aside(df):
    few = df[df["unique_id"] == "plain"]
    with pytest.raises(TypeError, match=r"breaks need a model .* found naive; use 'amortised'"):
        Forecaster("naive", freq=1).fit(few).breaks()
    both = Forecaster([engine(), "naive"], season_length=SEASON, freq=1).fit(few)
    assert not any(name.startswith("naive") for name in both.breaks())


def test_parameters_of_any_rows_in_the_words_of_the_house(model, df):
    found = model.parameters(level=[80, 95])
    plain = found[found["unique_id"] == "plain"].set_index("parameter")
    assert list(plain.index) == [
        *("level.scale", "level.breaks", "slope.scale", "slope.damping"),
        *("season4.scale", "season4.amplitude", "season4.growth"),
        *("autoregressive.scale", "autoregressive.coefficient", "observation.multiplicative"),
        *("noise.scale", "noise.heavy_tails", "noise.volatility", "noise.outliers"),
    ]
    unsized = plain[plain["amortised"].isna()]
    assert set(unsized.index) == {
        *("level.breaks", "season4.growth", "observation.multiplicative"),
        *("noise.heavy_tails", "noise.volatility", "noise.outliers"),
    }
    assert plain["amortised-probability"].between(0, 1).all()
    assert plain.loc["noise.scale", "amortised-probability"] == 1
    sized = plain.drop(index=unsized.index)
    order = ["amortised-lo-95", "amortised-lo-80", "amortised", "amortised-hi-80"]
    assert (np.diff(sized[order].to_numpy(float), axis=1) >= 0).all()
    assert not {"none", "one"} & set(found["unique_id"])
    other = model.parameters(df.assign(unique_id="new " + df["unique_id"]), level=[80, 95])
    np.testing.assert_allclose(other["amortised"], found["amortised"], rtol=1e-4)
    told = model.parameters(specifications=True)
    assert (told["specification"] == "amortised").all()


def test_parameters_are_those_of_components_that_networks_know():
    df = rows(wave(40))
    only = engine(latents=(network(components=("season",)),))
    known = Forecaster(only, season_length=SEASON, freq=1).fit(df)
    parts = {name.partition(".")[0] for name in known.parameters()["parameter"]}
    assert parts == {"level", "slope", "season4", "observation", "noise"}
    mean = wide(known.components())
    np.testing.assert_allclose(mean["level"] + mean["season4"], mean["signal"], rtol=1e-12)


# --- files and options ---------------------------------------------------------------------------


def test_what_is_saved_tells_the_same(model, df, tmp_path):
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    for found, expected in zip(looks(loaded, df), looks(model, df), strict=True):
        pd.testing.assert_frame_equal(found, expected)
    pd.testing.assert_frame_equal(loaded.parameters(df), model.parameters(df))
    again = loaded.fit(df)
    pd.testing.assert_frame_equal(again.components(), model.components())


def test_networks_of_ones_own_have_latents_only_if_they_are_given(df):
    alone = Forecaster(engine(latents=None), season_length=SEASON, freq=1).fit(df)
    for verb in (alone.components, alone.parameters, alone.breaks):
        with pytest.raises(TypeError, match=r"Amortised\(networks=..., latents=\[...\]\)"):
            verb()
    with pytest.raises(NotImplementedError):
        alone.smooth()
    held = df[df["unique_id"] != "none"]
    assert np.isfinite(alone.impute(held)["y"]).all()
    assert "does not condition on the rows after it" in alone.notes["amortised"][None]


def test_networks_of_the_package_stand_beside_its_own():
    plain: Any = Amortised()
    assert plain._latents == load_latent_networks()
    assert plain.named == bool(load_latent_networks())
    assert not Amortised(networks=amortised().own).named


@pytest.mark.parametrize(
    ("latents", "text"),
    [
        ([], r"latents must be one or more of .*LatentNetwork, found \[\]"),
        ([torch.nn.Linear(1, 1)], "latents must be one or more of"),
        ([network(), network(components=("season",))], "networks of the same components"),
    ],
)
def test_latents_that_cannot_be_are_refused(latents, text):
    made = inspect.unwrap(Amortised.__init__)  # a check of types would refuse some before
    with pytest.raises(TypeError, match=text):
        made(Amortised.__new__(Amortised), latents=latents)


def test_several_networks_are_averaged():
    panel = make_panel([wave(40)])
    found = []
    for seeds in ((0,), (1,), (0, 1)):
        one: Any = engine(latents=[network(seed, 10.0) for seed in seeds])
        one.fit(panel, FitOptions((SEASON,), SEED))
        options = {"filtered": False, "specifications": False}
        found.append(one.components(panel, None, [0.1, 0.9], **options)[1][0])
    k = found[0].names.index("slope")
    both = [(a[k] + b[k]) / 2 for a, b in zip(found[0][4:], found[1][4:], strict=True)]
    for x, y in zip(found[2][4:], both, strict=True):
        np.testing.assert_allclose(x[k], y, rtol=1e-4, atol=1e-5)


def test_a_file_holds_networks_of_latents_in_half_precision():
    one = network(components=("season", "ar"))
    data = packed.pack_networks([one], {"seed": 1})
    assert packed.card_of(data) == {"seed": 1}
    (found,) = packed.unpack_networks(data, LatentNetwork)
    assert found.config == one.config
    for name, weight in found.state_dict().items():
        np.testing.assert_allclose(weight, one.state_dict()[name], rtol=1e-3, atol=1e-6)
        assert not weight.requires_grad


# --- pictures ------------------------------------------------------------------------------------


def test_components_breaks_and_parameters_are_drawn(model):
    parts, jumps = model.components(h=4), model.breaks()
    axes = plots.components(parts, id="plain")
    assert [ax.get_title(loc="left") for ax in axes][:2] == ["signal", "level"]
    upper, lower = plots.breaks(parts, jumps, id="plain", threshold=0.3, last=20)
    assert upper.get_title(loc="left") == "level, plain"
    assert lower.get_ylim() == (0, 1)
    (drawn,) = lower.collections
    segments = drawn.get_segments()
    expected = jumps[jumps["unique_id"] == "plain"]["amortised-break"][-16:]
    np.testing.assert_allclose([part[1, 1] for part in segments], expected)
    plots.breaks(model.smooth(), jumps, id="counts")
    with pytest.raises(ColumnError, match="draw what breaks returned"):
        plots.breaks(parts, parts, id="plain")
    *_, last = plots.parameters(model.parameters(), id="plain")
    assert last.get_xlabel() == "probability"
    assert len(last.get_yticks()) == 6
