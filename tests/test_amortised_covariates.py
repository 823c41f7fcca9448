"""Covariates known ahead beside networks that have learned from drawn series."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from engines import amortised
from local_engines import LEVELS, ahead, followed_in_parts, make_panel

from seqlatent.amortised import Adaptation, effects, load_networks
from seqlatent.forecasting import Amortised, Columns, Forecaster
from seqlatent.forecasting.engines.amortised import covariates, predictor, scoring, windows
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.testing import EngineContract

SEED, WEEK, H = 3, 7, 14
PROMOTED = np.array([1.0, 0.0])
AS_THEY_ARE = Adaptation(steps=0)


def promotions(lengths=(120, 97, 110), *, targets=1, effect=8.0, missing=0.0, seed=0):
    """Weekly series that rise by about ``effect`` units on some days, by a driver little else."""
    rng = np.random.default_rng(seed)
    series, u = [], []
    for i, n in enumerate(lengths):
        t, scale = np.arange(n), 10.0**i
        x = np.stack([rng.random(n) < 0.12, rng.normal(size=n)], 1).astype(float)
        own = effect * (1 + 0.2 * rng.normal(size=targets))
        noise = rng.normal(size=(n, targets)) + 0.2 * rng.normal(size=(n, targets)).cumsum(0)
        y = 30 + 4 * np.sin(2 * np.pi * t / WEEK)[:, None] + noise + own * x[:, :1]
        y[rng.random(y.shape) < missing] = np.nan
        series.append(scale * y)
        u.append(x)
    return make_panel(series, u=np.concatenate(u))


def engine(given, **options) -> Any:
    found: Any = Amortised(**{"adapt": AS_THEY_ARE, "horizon": H, **options})
    found.fit(given, FitOptions((WEEK,), SEED))
    return found


def small(given, **options) -> Any:
    """One with a small network without any training."""
    return engine(given, networks=amortised().own, **options)


def plan(rows, h=H, seed=5):
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.random((rows.batch, h)) < 0.2, rng.normal(size=(rows.batch, h))], 2)
    return drawn.astype(float)


def quantiles(engine, rows, u, state=None):
    future = ahead(rows, u.shape[1], u)
    state = engine.start(rows, SEED) if state is None else state
    return engine.marginals(state, future, LEVELS, 1, SEED).quantiles


def cut(rows, n):
    """All but the last rows of each series, and covariates and values of those ``(N, n, ...)``."""
    last = rows.offsets[1:, None] - n + np.arange(n)
    return rows.drop_tail(n), rows.future[last], rows.y[last]


def loss(found, y):
    level = np.array(LEVELS)[:, None, None, None]
    error = y - found
    return np.maximum(level * error, (level - 1) * error).sum() / np.abs(y).sum()


# --- what is learned ---------------------------------------------------------------------------


def test_known_promotions_make_better_forecasts():
    rows, u, y = cut(promotions((180,) * 12, seed=1), H)
    learned = engine(rows)
    plain = engine(replace(rows, future=np.zeros((rows.rows, 0))))
    with_them = loss(quantiles(learned, rows, u), y)
    without = loss(quantiles(plain, rows, u[..., :0]), y)
    assert with_them < 0.7 * without
    assert learned.notes == {}
    ((first, second),) = learned.summary["effects"]
    assert first > 5 * abs(second)


def test_effects_of_each_series_are_found():
    rows = promotions(seed=3)  # of 9.2, 9.7 and 10 units
    found = engine(rows)
    none = np.zeros((rows.batch, H, 2))
    more = (quantiles(found, rows, none + PROMOTED) - quantiles(found, rows, none))[..., 0]
    scale = np.array([1.0, 10.0, 100.0])[:, None]
    np.testing.assert_allclose(more / scale, np.full_like(more, 9.7), rtol=0.2)
    np.testing.assert_allclose(more, np.broadcast_to(more[:1, :, :1], more.shape), rtol=1e-6)


@pytest.mark.parametrize("targets", [1, 2])
def test_covariates_that_do_nothing_are_left_with_a_note(targets):
    rows = promotions((90, 80, 85), effect=0.0, targets=targets)
    found = small(rows)
    assert found.effects == (None,) * targets
    assert covariates.UNUSED in found.notes[None]
    assert found.summary["effects"] == [None] * targets
    state = found.start(rows, SEED)
    assert "u" not in state
    one, other = (quantiles(found, rows, plan(rows, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(one, other)


def test_each_target_has_effects_of_its_own():
    both = promotions((150, 140, 130), targets=2)
    both.y[:, 1] = promotions((150, 140, 130), effect=0.0, seed=4).y[:, 0]
    found = engine(both)
    assert [one is not None for one in found.effects] == [True, False]
    note = f"target 2: {covariates.UNUSED}; each target is forecast by itself"
    assert found.notes == {None: note}
    first = replace(both, y=both.y[:, :1])
    alone = engine(first)
    u = plan(both)
    expected = quantiles(alone, first, u)
    np.testing.assert_allclose(quantiles(found, both, u)[..., :1], expected, rtol=1e-8)


def test_adapted_networks_and_widths_are_those_of_what_is_left():
    rows = promotions((120,) * 6)
    how = Adaptation(steps=3, lr=0.1, batch=16, drawn=8)
    found = small(rows, adapt=how)
    plain = small(replace(rows, future=rows.future[:, :0]), adapt=how)
    assert found.effects[0] is not None
    assert found.summary["losses"][0] != plain.summary["losses"][0]


# --- states and laws ---------------------------------------------------------------------------


def test_a_state_that_follows_is_that_of_all_rows():
    rows = promotions((60, 3, 41), targets=2, missing=0.3)
    rows.y[30:58, 0] = np.nan
    for length in (5, 20, 300):
        for cuts in ((1, 3), (2, 17, 18, 30, 55)):
            state = followed_in_parts(rows, cuts, length, covariates=True)
            whole = windows.state_of(rows, length, True)
            for name, x in whole.items():
                found, expected = state[name], x
                if name in ("y", "u"):
                    found, expected = (windows.widened(v, length) for v in (found, expected))
                np.testing.assert_array_equal(found, expected)


def test_an_update_is_as_good_as_all_rows():
    rows = promotions(missing=0.1)
    found = engine(rows)
    before, later = rows.drop_tail(9), rows.tail(9)
    state = found.update(found.start(before, SEED), later, SEED)
    u = plan(rows)
    expected = quantiles(found, rows, u)
    np.testing.assert_array_equal(quantiles(found, rows, u, state), expected)


def test_missing_rows_at_the_end_are_leads():
    rows = promotions()
    found = engine(rows)
    y = rows.y.copy()
    hidden = np.concatenate(
        [np.arange(end - k, end) for end, k in zip(rows.offsets[1:], (5, 2, 9), strict=True)]
    )
    y[hidden] = np.nan
    later = replace(rows, y=y)
    u = plan(rows, 4)
    one = quantiles(found, later, u)
    for i, k in enumerate((5, 2, 9)):
        short = rows.select([i]).drop_tail(k)
        between = rows.future[rows.series(i)][-k:]
        whole = np.concatenate([between, u[i]])[None]
        np.testing.assert_allclose(one[:, i], quantiles(found, short, whole)[:, 0, k:], rtol=1e-8)


@pytest.mark.parametrize("factor", [1e-4, 3.0, 1e6])
def test_forecasts_are_in_the_units_of_values_and_of_covariates(factor):
    rows = promotions()
    u = plan(rows)
    expected = factor * quantiles(engine(rows), rows, u)
    scaled = replace(rows, y=factor * rows.y)
    np.testing.assert_allclose(quantiles(engine(scaled), scaled, u), expected, rtol=1e-6)
    other = replace(rows, future=factor * rows.future + 3)
    found = quantiles(engine(other), other, factor * u + 3)
    np.testing.assert_allclose(factor * found, expected, rtol=1e-6)


def test_series_are_forecast_the_same_beside_any_others_in_any_parts(monkeypatch):
    rows = promotions(missing=0.1)
    found = engine(rows)
    u = plan(rows)
    expected = quantiles(found, rows, u)
    one = rows.select([1])
    np.testing.assert_allclose(quantiles(found, one, u[[1]]), expected[:, [1]], rtol=1e-8)
    monkeypatch.setattr(effects, "_CELLS", 300)
    monkeypatch.setattr(windows, "_SOME", 2)
    np.testing.assert_allclose(quantiles(found, rows, u), expected, rtol=1e-8)


def test_new_series_have_the_effects_of_all():
    rows = promotions((200,) * 6)
    found = engine(rows)
    short = promotions((5, 60, 60), seed=9)
    short = replace(short, future=short.future * 0)  # nothing of their own to learn from
    none = np.zeros((3, H, 2))
    more = quantiles(found, short, none + PROMOTED) - quantiles(found, short, none)
    scale = np.array([1.0, 10.0, 100.0])[:, None, None]
    assert (np.abs(more / scale / 8 - 1) < 0.8).all()


def test_series_of_few_values_are_as_the_others():
    rows = make_panel(
        [*np.split(promotions().y, [120, 217]), [[np.nan]] * 4, [[31.0]]],
        u=np.concatenate([promotions().future, np.zeros((5, 2))]),
    )
    found = engine(rows)
    none = np.zeros((5, 3, 2))
    low, middle, _ = quantiles(found, rows, none)[..., 0]
    assert np.isfinite(low).all()
    assert middle[4] == pytest.approx(31, rel=0.1)
    more = quantiles(found, rows, none + PROMOTED)[1, ..., 0] - middle
    assert (more[4] > 0).all()
    assert (more[3] == 0).all()  # of no size


class TestContract(EngineContract):
    """What every engine owes, with covariates that have effects."""

    def build(self):
        how = Adaptation(steps=3, lr=0.1, batch=16, drawn=8)
        return Amortised(adapt=how, horizon=3, networks=amortised().own)

    def frame(self):
        rng, df = np.random.default_rng(0), super().frame()
        promoted = rng.random(len(df)) < 0.2
        return df.assign(y=df["y"] * (1 + 0.5 * promoted), promotion=promoted.astype(float))

    def test_effects_are_used(self):
        found, state = self.fitted()
        assert isinstance(found, Amortised)
        assert found.effects[0] is not None
        assert "u" in state


# --- scores ------------------------------------------------------------------------------------


def test_scores_are_those_of_forecasts_from_the_rows_before():
    rows = promotions((70, 61), missing=0.2)
    found = engine(rows)
    scores = found.score(rows, SEED)
    for i, k in ((0, 30), (0, 69), (1, 5), (1, 44)):
        row = rows.offsets[i] + k
        before = rows.select([i]).drop_tail(int(rows.lengths[i]) - k)
        u = rows.future[row][None, None]
        (_, one), *_ = found._forecasts(found.start(before, SEED), ahead(before, 1, u))
        value = torch.from_numpy(rows.y[row][None])
        expected = one.marginals.log_prob(value).item()
        np.testing.assert_allclose(scores.log_score[row], expected, rtol=1e-7)


def test_scores_do_not_know_what_comes_later(monkeypatch):
    rows = promotions((70, 61))
    found = small(rows)
    assert found.effects[0] is not None
    scores = found.score(rows, SEED)
    nth = np.arange(rows.rows) - rows.offsets[rows.owner]
    early = nth < 40
    less = found.score(rows.keep(early), SEED)
    np.testing.assert_allclose(less.log_score, scores.log_score[early], rtol=1e-8)
    np.testing.assert_allclose(less.pit, scores.pit[early], rtol=1e-8)
    monkeypatch.setattr(scoring, "_ROWS", 30)
    again = found.score(rows, SEED)
    np.testing.assert_allclose(again.log_score, scores.log_score, rtol=1e-8)


def test_promotions_are_no_surprise():
    rows = promotions((150,) * 4)
    found = engine(rows)
    plain = engine(replace(rows, future=rows.future[:, :0]))
    promoted = rows.future[:, 0] == 1
    late = np.arange(rows.rows) - rows.offsets[rows.owner] > 60
    better = found.score(rows, SEED).log_score - plain.score(rows, SEED).log_score
    assert np.nanmean(better[late & promoted]) > 1
    assert np.nanmean(better[late]) > 0


# --- precision ---------------------------------------------------------------------------------


def test_many_cells_are_forecast_in_single_precision(monkeypatch):
    rows = promotions()
    found = engine(rows)
    u = plan(rows)
    exact = quantiles(found, rows, u)
    monkeypatch.setattr(predictor, "_EXACT", 3 * H - 1)
    single = quantiles(found, rows, u)
    assert not np.array_equal(single, exact)
    np.testing.assert_allclose(single, exact, rtol=1e-4)
    monkeypatch.setattr(predictor, "_EXACT", 3 * H)
    np.testing.assert_array_equal(quantiles(found, rows, u), exact)


# --- frames ------------------------------------------------------------------------------------


def frame(rows):
    ds = pd.Timestamp("2024-01-01") + pd.to_timedelta(rows.t, "D")
    names = {"unique_id": rows.ids[rows.owner], "ds": ds, "y": rows.y[:, 0]}
    return pd.DataFrame({**names, "promotion": rows.future[:, 0], "driver": rows.future[:, 1]})


def test_a_saved_forecaster_knows_the_effects(tmp_path):
    df = frame(promotions(missing=0.1))
    last = df.groupby("unique_id").cumcount(ascending=False)
    past, later = df[last >= H], df[last < H]
    plan = later.drop(columns="y")
    model = Forecaster(Amortised(adapt=AS_THEY_ARE, horizon=H), season_length=WEEK).fit(past)
    assert model.notes == {}
    expected = model.predict(H, X_df=plan)
    assert not expected.equals(model.predict(H, X_df=plan.assign(promotion=0.0)))
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.predict(H, X_df=plan), expected)
    for one in (model, loaded):
        one.update(later)
    more = plan.assign(ds=plan["ds"] + pd.Timedelta(H, "D"))
    moved = model.predict(H, X_df=more)
    pd.testing.assert_frame_equal(loaded.predict(H, X_df=more), moved)
    pd.testing.assert_frame_equal(model.predict(H, df=df, X_df=more), moved)


def test_past_and_static_covariates_are_left_out_with_a_note():
    df = frame(promotions())
    static = pd.DataFrame({"unique_id": df["unique_id"].unique(), "size": [1.0, 2.0, 3.0]})
    model = Forecaster(
        Amortised(adapt=AS_THEY_ARE, networks=load_networks()[:1]),
        columns=Columns(past=["driver"]),
        season_length=WEEK,
    )
    note = model.fit(df, static_df=static).notes["amortised"][None]
    assert note == ("amortised ignores covariates (1 past, 1 static): a latent model uses them")
