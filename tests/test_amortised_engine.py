"""Networks behind a forecaster: windows, distributions, scores, adaptation and files."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from engines import amortised, panel
from local_engines import LEVELS, ahead, followed_in_parts, make_panel, waves

from seqlatent.amortised import Adaptation, Network, load_networks
from seqlatent.amortised import weights as shipped
from seqlatent.amortised.latents import weights as shipped_latents
from seqlatent.forecasting import Amortised, Columns, FolderError, Forecaster, forecaster, register
from seqlatent.forecasting.engines import registry
from seqlatent.forecasting.engines.amortised import engine as engines
from seqlatent.forecasting.engines.amortised import predictor, windows
from seqlatent.forecasting.engines.amortised.packing import CHANGED, TOLD_OTHERWISE
from seqlatent.forecasting.engines.baselines import Theta
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.training import Deadline

SEED = 3


def behind(model: Forecaster) -> Any:
    """The engine of a forecaster."""
    return model._engines["amortised"]


def own():
    """A small network without any training."""
    found = amortised().own
    assert found is not None
    return found


def fitted(given, season_lengths=(4,), **options) -> Any:
    found: Any = Amortised(**{"adapt": False, "networks": own(), **options})
    found.fit(given, FitOptions(season_lengths, SEED))
    return found


def quantiles(engine, state, future):
    return engine.marginals(state, future, LEVELS, 1, SEED).quantiles


def torn(lengths=(40, 3, 61), targets=2, seed=0):
    """Series of several targets with holes, long gaps at the end, and a target without values."""
    rng = np.random.default_rng(seed)
    series = [rng.normal(20, 3, (n, targets)) for n in lengths]
    for y in series:
        y[rng.random(y.shape) < 0.3] = np.nan
    series[0][-25:, 0] = np.nan
    series[1][:, 1] = np.nan
    return make_panel(series)


# --- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4, 20, 300])
def test_a_state_that_follows_is_that_of_all_rows(length):
    rows = torn()
    for cuts in ((1,), (2, 3), (1, 17, 18, 30, 55)):
        state = followed_in_parts(rows, cuts, length)
        whole = windows.state_of(rows, length)
        for name in ("age", "last"):
            np.testing.assert_array_equal(state[name], whole[name])
        found, expected = (windows.widened(x["y"], length) for x in (state, whole))
        np.testing.assert_array_equal(found, expected)


def test_a_window_ends_with_the_last_value():
    state = windows.state_of(make_panel([[1, 2, np.nan, 4, np.nan, np.nan], [np.nan, 7]]), 3)
    expected = [[[2, np.nan, 4]], [[np.nan, np.nan, 7]]]
    np.testing.assert_array_equal(state["y"], expected)
    assert state["age"].tolist() == [[2], [0]]


def test_rows_before_the_window_do_not_matter():
    series = waves((400, 380, 390))
    engine = fitted(make_panel(series))
    short = make_panel([y[-engine.predictor.length :] for y in series])
    long = make_panel(series)
    found = quantiles(engine, engine.start(short, SEED), ahead(short, 3))
    expected = quantiles(engine, engine.start(long, SEED), ahead(long, 3))
    np.testing.assert_array_equal(found, expected)


# --- forecasts ---------------------------------------------------------------------------------


def test_missing_rows_at_the_end_are_leads():
    series = waves()
    before = make_panel(series)
    engine = fitted(before)
    gaps = (0, 3, 11)
    after = make_panel(
        [np.append(y, np.full(k, np.nan)) for y, k in zip(series, gaps, strict=True)]
    )
    expected = quantiles(engine, engine.start(before, SEED), ahead(before, 16))
    found = quantiles(engine, engine.start(after, SEED), ahead(after, 5))
    for i, k in enumerate(gaps):
        np.testing.assert_allclose(found[:, i], expected[:, i, k : k + 5], rtol=1e-9)


def test_paths_have_the_marginals_and_depend_on_each_other():
    rows = make_panel(waves())
    engine = fitted(rows)
    state, future = engine.start(rows, SEED), ahead(rows, 6)
    drawn = engine.paths(state, future, 4000, SEED)
    found = engine.marginals(state, future, LEVELS, 1, SEED)
    width = found.quantiles[-1] - found.quantiles[0]
    away = (np.quantile(drawn, LEVELS, axis=0) - found.quantiles) / width
    assert np.abs(away).max() < 0.06
    assert np.abs((drawn.mean(0) - found.mean) / width).max() < 0.03
    correlation = np.corrcoef(drawn[:, 0, :, 0].T)
    assert correlation[np.triu_indices(6, 1)].min() > 0.05


@pytest.mark.parametrize("level", [0.001, 0.0137, 0.5, 0.77, 0.9999])
def test_quantiles_are_of_any_level(level):
    rows = make_panel(waves())
    engine = fitted(rows)
    state, future = engine.start(rows, SEED), ahead(rows, 2)
    low, _, high = LEVELS
    found = engine.marginals(state, future, [low, level, high], 1, SEED).quantiles
    assert ((found[1] > found[0]) == (level > low)).all()
    assert ((found[2] > found[1]) == (level < high)).all()


def test_any_number_of_leads_and_series_is_forecast_in_parts(monkeypatch):
    rows = torn()
    engine = fitted(rows)
    state, future = engine.start(rows, SEED), ahead(rows, 70)
    expected = engine.marginals(state, future, LEVELS, 1, SEED)
    monkeypatch.setattr(predictor, "_LEADS", 16)
    monkeypatch.setattr(predictor, "_CELLS", 40)
    monkeypatch.setattr(engines, "_CELLS", 100)
    monkeypatch.setattr(windows, "_SOME", 2)
    found = engine.marginals(engine.start(rows, SEED), future, LEVELS, 1, SEED)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9)


def test_each_target_is_forecast_by_itself():
    rows = torn()
    engine = fitted(rows)
    assert engine.notes[None] == "each target is forecast by itself"
    both = quantiles(engine, engine.start(rows, SEED), ahead(rows, 4))
    alone = replace(rows.select([0, 2]), y=rows.select([0, 2]).y[:, 1:])
    one = fitted(alone)
    found = quantiles(one, one.start(alone, SEED), ahead(alone, 4))
    np.testing.assert_allclose(found[..., 0], both[:, [0, 2]][..., 1], rtol=1e-9)


def test_a_series_of_few_values_is_as_the_others_are():
    series = [*waves(), np.array([33.0]), np.full(9, np.nan), np.array([np.nan, 28.0, np.nan])]
    rows = make_panel(series)
    engine = fitted(rows)
    assert engine.notes == {
        "s3": "one value: it moves as the other series do",
        "s4": "no value: it stands and moves as the other series do",
        "s5": "one value: it moves as the other series do",
    }
    low, middle, high = quantiles(engine, engine.start(rows, SEED), ahead(rows, 4))[..., 0]
    seen = np.concatenate(waves())
    np.testing.assert_allclose(middle[3:6, 0], [33, seen.mean(), 28], rtol=0.02)
    np.testing.assert_allclose((high - low)[3], (high - low)[3, 0] * np.sqrt([1, 2, 3, 4]))
    assert (high - low)[4] == pytest.approx(2 * 1.2816 * rows.y[~np.isnan(rows.y)].std(), rel=1e-3)
    drawn = engine.paths(engine.start(rows, SEED), ahead(rows, 2), 500, SEED)
    assert np.corrcoef(drawn[:, 4, :, 0].T)[0, 1] > 0.8


def test_forecasts_keep_to_counts_and_to_zero():
    rng = np.random.default_rng(0)
    rows = make_panel([rng.poisson(0.7, 60).astype(float) for _ in range(3)])
    engine = fitted(rows)
    state, future = engine.start(rows, SEED), ahead(rows, 5)
    drawn = engine.paths(state, future, 50, SEED)
    assert drawn.min() == 0
    assert (drawn == drawn.round()).all()
    assert quantiles(engine, state, future).min() == 0


@pytest.mark.parametrize("lengths", [(), (60,), (1000,), (7, 300), (5, 7, 30, 365)])
def test_seasons_of_any_length_are_taken(lengths):
    rows = make_panel(waves())
    engine = fitted(rows, lengths)
    assert np.isfinite(quantiles(engine, engine.start(rows, SEED), ahead(rows, 9))).all()
    note = "seasons of 5 and 365 steps are read, those between, 7, 30, are not"
    assert engine.notes.get(None) == (note if len(lengths) > 2 else None)


# --- scores ------------------------------------------------------------------------------------


def test_scores_are_those_of_forecasts_from_the_rows_before():
    rows = make_panel([y[:, 0] for y in np.split(torn().y[:, :1], [40, 43])])
    engine = fitted(rows)
    found = engine.score(rows, SEED)
    for i in range(rows.batch):
        y = rows.y[rows.series(i), 0]
        seen = np.flatnonzero(~np.isnan(y))
        for k in range(len(y)):
            row = rows.offsets[i] + k
            if k not in seen or k <= seen[0]:
                assert np.isnan(found.log_score[row])
                assert np.isnan(found.pit[row]).all()
                continue
            before = make_panel([y[:k]])
            state = engine.start(before, SEED)
            (_, one), *_ = engine._forecasts(state, ahead(before, 1))
            value = torch.tensor([[y[k]]])
            expected = one.marginals.log_prob(value).item()
            assert found.log_score[row] == pytest.approx(expected, rel=1e-8)
            less, up_to = one.marginals.distribution(value)
            assert found.pit[row, 0] == pytest.approx(less.item(), abs=1e-9)
            assert less.item() == up_to.item()


def test_scores_of_targets_are_summed():
    rows = torn()
    engine = fitted(rows)
    both = engine.score(rows, SEED)
    parts = []
    for d in (0, 1):
        one = replace(rows, y=rows.y[:, d : d + 1])
        parts.append(fitted(one).score(one, SEED).log_score)
    seen = ~np.isnan(parts[0]) & ~np.isnan(parts[1])
    assert seen.sum() > 30
    np.testing.assert_allclose(both.log_score[seen], (parts[0] + parts[1])[seen], rtol=1e-8)
    assert np.isnan(both.log_score).sum() == (np.isnan(parts[0]) & np.isnan(parts[1])).sum()


def test_scores_of_counts_are_probabilities_and_their_transform_is_drawn():
    rng = np.random.default_rng(0)
    rows = make_panel([rng.poisson(0.7, 80).astype(float) for _ in range(6)])
    engine = fitted(rows)
    found = engine.score(rows, SEED)
    seen = ~np.isnan(found.log_score)
    assert (found.log_score[seen] <= 0).all()
    pit = found.pit[seen]
    assert ((pit >= 0) & (pit <= 1)).all()
    assert len(np.unique(pit)) > 0.98 * len(pit)
    again = engine.score(rows, SEED).pit
    np.testing.assert_array_equal(found.pit, again)
    assert not np.array_equal(again, engine.score(rows, SEED + 1).pit, equal_nan=True)


# --- adaptation --------------------------------------------------------------------------------


def test_networks_are_adapted_where_they_are_told_to(monkeypatch):
    asked = []

    def seen(*given, device, **options):
        asked.append(device)
        return real(*given, **options)

    real = engines.adapted
    monkeypatch.setattr(engines, "adapted", seen)
    engine = amortised()
    engine.fit(make_panel(waves()), replace(FitOptions((4,), SEED), device="meta"))
    assert asked == ["meta"]


def test_networks_are_adapted_to_the_panel_and_those_given_are_left_alone():
    engine: Any = amortised()
    before = {k: x.clone() for k, x in engine.own[0].state_dict().items()}
    rows = make_panel(waves())
    engine.fit(rows, FitOptions((4,), SEED))
    assert engine.summary["share"] == 0.75
    assert engine.networks is not None
    assert all(torch.equal(x, before[k]) for k, x in engine.own[0].state_dict().items())
    assert not torch.equal(engine.networks[0].out.weight, engine.own[0].out.weight)
    plain = fitted(rows)
    found, expected = (quantiles(x, x.start(rows, SEED), ahead(rows, 3)) for x in (engine, plain))
    assert not np.allclose(found, expected)


def test_a_seed_decides_the_adaptation():
    df, drawn = panel(28), torch.get_rng_state()
    found = [
        Forecaster(amortised(), season_length=4, seed=seed).fit(df).predict(2) for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn, torch.get_rng_state())
    pd.testing.assert_frame_equal(found[0], found[1])
    assert not found[0].equals(found[2])


@pytest.mark.parametrize("horizon", [None, 20])
def test_little_data_leave_the_networks_as_they_are(horizon):
    rows = make_panel([[3.0, 4.0], [5.0], [np.nan, np.nan, 2.0]])
    engine = fitted(rows, adapt=True, horizon=horizon)
    assert (engine.summary["share"], engine.networks) == (0.0, None)
    assert engine.notes[None].startswith("too few rows to adapt to")
    assert np.isfinite(quantiles(engine, engine.start(rows, SEED), ahead(rows, 4))).all()


@pytest.mark.parametrize(("limit", "text"), [(1, "after 0 of 6 steps"), (9, "of 6 steps")])
def test_adaptation_ends_in_time_and_says_so(limit, text, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(forecaster, "Deadline", lambda seconds: Deadline(seconds, clock))
    model = Forecaster(amortised(), season_length=4, time_limit=limit).fit(panel(28))
    note = model.notes["amortised"][None]
    assert note.startswith("adaptation stopped by time_limit after ")
    assert text in note
    assert np.isfinite(model.predict(3).iloc[:, 2:].to_numpy(float)).all()


def test_progress_is_shown_where_it_is_asked_for(capfd):
    Forecaster(amortised(), season_length=4).fit(panel(28))
    assert not capfd.readouterr().err
    Forecaster(amortised(), season_length=4, progress=True).fit(panel(28))
    assert "6/6" in capfd.readouterr().err


def test_a_backtest_adapts_anew():
    df = panel(40)
    model = Forecaster(amortised(), season_length=4)
    refit = model.cross_validation(df, 3, n_windows=2, refit=True)
    kept = model.cross_validation(df, 3, n_windows=2, refit=False)
    first = refit["cutoff"] == refit.groupby("unique_id")["cutoff"].transform("min")
    pd.testing.assert_frame_equal(refit[first], kept[first])
    assert not np.isclose(refit["amortised"], kept["amortised"])[~first].any()


# --- files -------------------------------------------------------------------------------------


def test_networks_of_the_package_are_kept_by_their_hash_alone(tmp_path, monkeypatch):
    df = panel(28)
    model = Forecaster(Amortised(adapt=False), season_length=4).fit(df)
    expected = model.predict(3)
    model.save(tmp_path / "m")
    assert sum(x.stat().st_size for x in (tmp_path / "m").iterdir()) < 100_000
    pd.testing.assert_frame_equal(Forecaster.load(tmp_path / "m").predict(3), expected)
    assert Forecaster.load(tmp_path / "m").notes == model.notes
    # a later version of the package brings others
    other = shipped.pack_networks(list(own()), {})
    monkeypatch.setattr(shipped, "_shipped", lambda: other)
    monkeypatch.setattr(shipped, "_networks", own)
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.notes == {"amortised": {None: CHANGED}}
    assert not loaded.predict(3).equals(expected)
    assert loaded.fit(df).notes == {}


def test_networks_of_another_layout_are_refused_in_words(tmp_path, monkeypatch):
    model = Forecaster(Amortised(adapt=False, networks=own()), season_length=4).fit(panel(28))
    model.save(tmp_path / "m")
    monkeypatch.setattr("seqlatent.amortised.network.FILTERED_SERIES", 9)
    with pytest.raises(FolderError, match="a Network whose weights have other shapes"):
        Forecaster.load(tmp_path / "m")


def test_other_networks_of_latents_than_when_it_was_saved_are_noted(tmp_path, monkeypatch):
    model = Forecaster(Amortised(adapt=False), season_length=4).fit(panel(28))
    model.save(tmp_path / "m")
    assert Forecaster.load(tmp_path / "m").notes == model.notes
    monkeypatch.setattr(shipped_latents, "_shipped", lambda: b"others")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.notes == {"amortised": {None: TOLD_OTHERWISE}}


def test_adapted_networks_are_kept_whatever_the_package_brings(tmp_path, monkeypatch):
    df = panel(28)
    monkeypatch.setattr(shipped, "_networks", own)
    how = Adaptation(steps=3, lr=0.1, batch=16, drawn=8)
    model = Forecaster(Amortised(adapt=how, horizon=3), season_length=4).fit(df)
    assert behind(model).networks is not None
    expected = model.predict(3)
    model.save(tmp_path / "m")
    monkeypatch.setattr(shipped, "_networks", load_networks)
    loaded = Forecaster.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    assert loaded.notes == model.notes
    assert behind(loaded).summary == behind(model).summary


@pytest.mark.parametrize(
    "make", [lambda: Amortised(adapt=False, horizon=5, networks=own()), lambda: Theta(max_rows=30)]
)
def test_a_variant_keeps_its_name_and_its_options(make, tmp_path):
    df = panel(28)
    register("mine", make)
    try:
        model = Forecaster(["mine", "naive"], season_length=4).fit(df)
        model.save(tmp_path / "m")
        expected = model.predict(3)
    finally:
        del registry._REGISTERED["mine"]
    loaded = Forecaster.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.predict(3), expected)
    pd.testing.assert_frame_equal(loaded.fit(df).predict(3), expected)


def test_two_variants_stand_side_by_side():
    plain = Amortised(adapt=False, networks=own())
    plain.alias = "plain"
    model = Forecaster([amortised(), plain], season_length=4).fit(panel(28))
    assert model.aliases == ("amortised", "plain")
    found = model.predict(2)
    assert not np.allclose(found["amortised"], found["plain"])


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"adapt": 5}, TypeError, "adapt must be True, False or an Adaptation, found int"),
        ({"horizon": 0}, ValueError, "horizon must be a positive number of steps, found 0"),
        ({"networks": []}, TypeError, r"networks must be one or more of .*Network, found \[\]"),
        ({"networks": [torch.nn.Linear(1, 1)]}, TypeError, "networks must be one or more"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, text):
    made = inspect.unwrap(Amortised.__init__)  # a check of types would refuse some before
    with pytest.raises(error, match=text):
        made(Amortised.__new__(Amortised), **options)


def test_without_adaptation_covariates_are_left_out_with_a_note():
    df = panel(28).assign(x=1.0, z=2.0)
    model = Forecaster(Amortised(adapt=False, networks=own()), columns=Columns(past=["z"]))
    note = model.fit(df).notes["amortised"][None]
    text = "amortised ignores covariates (1 known ahead, 1 past): adapt=True, 'sarimax' or a"
    assert note == f"{text} latent model uses them"


def test_networks_of_several_sizes_are_averaged():
    rows = make_panel(waves())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        more = Network(width=24, depth=1, head_width=16, head_depth=1, factors=3)
    parts = []
    for networks in (own(), [more], [*own(), more]):
        engine = fitted(rows, networks=networks)
        parts.append(quantiles(engine, engine.start(rows, SEED), ahead(rows, 4)))
    np.testing.assert_allclose(parts[2][1], (parts[0][1] + parts[1][1]) / 2, rtol=1e-8)
