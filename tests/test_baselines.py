"""Baselines against pandas one-liners, statsmodels, and the laws every engine keeps."""

import json
import os
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from local_engines import LEVELS, SEASON, ahead, fitted, holes, make_panel, waves

from seqlatent.forecasting.arguments import objects
from seqlatent.forecasting.engines import baselines
from seqlatent.forecasting.engines.baselines import (
    ETS,
    SARIMAX,
    LocalEngine,
    Naive,
    SeasonalNaive,
    Theta,
)
from seqlatent.forecasting.engines.baselines.bridges import bridge
from seqlatent.forecasting.engines.baselines.initial import filled, initial
from seqlatent.forecasting.engines.baselines.newcomers import anchor_of
from seqlatent.forecasting.engines.baselines.orders import candidates
from seqlatent.forecasting.engines.baselines.quiet import quiet
from seqlatent.forecasting.engines.baselines.spread import PanelSpread, difference_scale, positive
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.errors import CovariateError, TargetError, TimeError
from seqlatent.forecasting.frames.panel import Future
from seqlatent.training import Deadline

DATA = Path(os.environ.get("SEQLATENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
ENGINES = (Naive, SeasonalNaive, ETS, Theta, SARIMAX)
each_engine = pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.alias)


def same(a, b, rtol=1e-9):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-9, err_msg=name)


# ---- naive forecasts are one-liners of pandas


def test_naive_is_the_last_value_and_widens_as_a_walk():
    y = waves()[0]
    panel = make_panel([y])
    engine = fitted(Naive, panel)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 6), LEVELS, 10, 0)
    s = pd.Series(y)
    sd = np.sqrt((s.diff() ** 2).mean()) * np.sqrt(np.arange(1, 7))
    np.testing.assert_allclose(marginals.mean[0, :, 0], s.iloc[-1], rtol=1e-12)
    np.testing.assert_allclose(marginals.quantiles[1, 0, :, 0], s.iloc[-1], rtol=1e-12)
    z = NormalDist().inv_cdf(0.9)
    np.testing.assert_allclose(marginals.quantiles[2, 0, :, 0], s.iloc[-1] + z * sd, rtol=1e-12)


def test_seasonal_naive_is_the_last_season_and_widens_by_seasons():
    y = waves()[1]
    panel = make_panel([y])
    engine = fitted(SeasonalNaive, panel)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 10), LEVELS, 10, 0)
    s = pd.Series(y)
    mean = np.tile(s.iloc[-4:], 3)[:10]
    sd = np.sqrt((s.diff(4) ** 2).mean()) * np.sqrt(np.arange(10) // 4 + 1)
    np.testing.assert_allclose(marginals.mean[0, :, 0], mean, rtol=1e-12)
    z = NormalDist().inv_cdf(0.9)
    np.testing.assert_allclose(marginals.quantiles[2, 0, :, 0], mean + z * sd, rtol=1e-12)


def test_missing_values_go_back_to_the_last_observed_one_of_the_phase():
    y = waves()[0]
    y[-3] = np.nan
    panel = make_panel([y])
    engine = fitted(SeasonalNaive, panel)
    state = engine.start(panel, 0)
    marginals = engine.marginals(state, ahead(panel, 4), LEVELS, 10, 0)
    expected = pd.Series(y).groupby(np.arange(len(y)) % 4).last()
    np.testing.assert_allclose(marginals.mean[0, :, 0], expected, rtol=1e-12)
    width = marginals.quantiles[2, 0, :, 0] - marginals.mean[0, :, 0]
    np.testing.assert_allclose(width / width[0], [1, np.sqrt(2), 1, 1], rtol=1e-12)


def test_fewer_rows_than_a_season_are_naive():
    panel = make_panel([[3.0, 4.0, 6.0], waves()[0]])
    engine = fitted(SeasonalNaive, panel)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 3), LEVELS, 10, 0)
    plain = fitted(Naive, panel)
    other = plain.marginals(plain.start(panel, 0), ahead(panel, 3), LEVELS, 10, 0)
    np.testing.assert_allclose(marginals.quantiles[:, 0], other.quantiles[:, 0], rtol=1e-12)
    assert "naive" in engine.notes["s0"]
    assert "s1" not in engine.notes


def test_a_phase_never_observed_is_naive():
    y = waves()[0]
    y[1::4] = np.nan
    panel = make_panel([y])
    engine = fitted(SeasonalNaive, panel)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 4), LEVELS, 10, 0)
    np.testing.assert_allclose(marginals.mean[0, :, 0], [y[-4], y[-1], y[-2], y[-1]], rtol=1e-12)


def test_without_intervals_all_quantiles_and_paths_are_the_point():
    panel = make_panel(waves())
    engine = fitted(SeasonalNaive, panel, intervals=False)
    state = engine.start(panel, 0)
    marginals = engine.marginals(state, ahead(panel, 5), LEVELS, 10, 0)
    assert (marginals.quantiles == marginals.mean).all()
    assert (engine.paths(state, ahead(panel, 5), 3, 0) == marginals.mean).all()
    with pytest.raises(NotImplementedError, match="intervals=True"):
        engine.score(panel, 0)


def test_the_longest_history_of_a_seasonal_naive_without_a_season_is_naive():
    panel = make_panel(waves())
    engine = fitted(SeasonalNaive, panel, FitOptions())
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 2), LEVELS, 1, 0)
    np.testing.assert_allclose(marginals.mean[:, 1, 0], [y[-1] for y in waves()])


def test_naive_on_an_irregular_clock_is_a_brownian_motion():
    t = np.array([0.0, 0.5, 2.0, 5.0])
    panel = make_panel([[1.0, 2.0, 0.0, 3.0]], kind="irregular", t=t)
    engine = fitted(Naive, panel)
    state = engine.start(panel, 0)
    marginals = engine.marginals(
        state, Future(np.array([[5.5, 9.0]]), np.zeros((1, 2, 0))), LEVELS, 1, 0
    )
    variance = np.mean(np.diff(panel.y[:, 0]) ** 2 / np.diff(t))
    width = marginals.quantiles[2, 0, :, 0] - 3.0
    expected = NormalDist().inv_cdf(0.9) * np.sqrt(variance * np.array([0.5, 4.0]))
    np.testing.assert_allclose(width, expected, rtol=1e-12)


def test_phases_do_not_mind_a_fraction_of_the_times():
    y = waves()[0]
    for kind in (SeasonalNaive, ETS):
        whole, shifted = make_panel([y]), make_panel([y], start=0.5)
        several = []
        for panel in (whole, shifted):
            engine = fitted(kind, panel)
            several.append(engine.marginals(engine.start(panel, 0), ahead(panel, 6), LEVELS, 1, 0))
        np.testing.assert_allclose(several[0].quantiles, several[1].quantiles, rtol=1e-9)


# ---- agreement with statsmodels


def test_ets_agrees_with_statsmodels():
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    y = waves()[2]
    panel = make_panel([y])
    engine = fitted(ETS, panel)
    state = engine.start(panel, 0)
    marginals = engine.marginals(state, ahead(panel, 9), LEVELS, 1, 0)
    one = {name: values[0, 0] for name, values in engine._fitted.items()}
    assert one["gamma"] > 0
    damped = one["beta"] > 0
    model = ETSModel(
        y,
        trend="add" if damped else None,
        damped_trend=bool(damped),
        seasonal="add",
        seasonal_periods=4,
        initialization_method="known",
        initial_level=one["level0"],
        initial_trend=one["trend0"] if damped else None,
        initial_seasonal=one["season0"],
    )
    names = {
        "smoothing_level": "alpha",
        "smoothing_trend": "beta",
        "smoothing_seasonal": "gamma",
        "damping_trend": "phi",
    }
    found = model.smooth([one[names[name]] for name in model.param_names])
    np.testing.assert_allclose(marginals.mean[0, :, 0], found.forecast(9), rtol=1e-9)
    factor = found._relative_forecast_variance(np.arange(1, 10))
    width = (marginals.quantiles[2] - marginals.mean)[0, :, 0]
    np.testing.assert_allclose(width**2 / width[0] ** 2, factor / factor[0], rtol=1e-9)
    free = len(y) - one["parameters"]
    np.testing.assert_allclose(one["scale"] ** 2, np.sum(found.resid**2) / free, rtol=1e-9)
    smoothed = engine.smooth(panel, 0)
    assert smoothed.names[:2] == ("level", "trend")
    np.testing.assert_allclose(smoothed.mean[:, 0], found.level, rtol=1e-9)
    assert (smoothed.scale == 0).all()


@pytest.mark.parametrize("shift", [0.0, -30.0], ids=["factors", "sums"])
@pytest.mark.parametrize("season", [1, 4])
def test_theta_agrees_with_statsmodels(shift, season):
    from statsmodels.tsa.api import ExponentialSmoothing
    from statsmodels.tsa.forecasting.theta import ThetaModel, ThetaModelResults

    y = waves()[1] + shift
    panel = make_panel([y], start=3.0)
    engine = fitted(Theta, panel, FitOptions(season_lengths=(season,)))
    mean = engine.marginals(engine.start(panel, 0), ahead(panel, 9), LEVELS, 1, 0).mean[0, :, 0]
    model = ThetaModel(y, period=season, deseasonalize=season > 1)
    found = model.fit()
    # Its parameter has four digits, so that its forecast has five.
    np.testing.assert_allclose(mean, found.forecast(9), rtol=1e-5, atol=1e-4)
    alpha, (slope, theirs) = engine._fitted["alpha"][0, 0], found.params
    rest, parts = model._deseasonalize_data()
    smoothing = ExponentialSmoothing(rest, initial_level=rest[0], initialization_method="known")
    ours, other = (smoothing.fit(smoothing_level=a, optimized=False) for a in (alpha, theirs))
    assert ours.sse <= other.sse
    same = ThetaModelResults(slope, alpha, None, ours.forecast(1), parts, False, model)
    np.testing.assert_allclose(mean, same.forecast(9), rtol=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 1), (1, 0, 1)])
def test_sarimax_agrees_with_statsmodels(order):
    from statsmodels.tsa.statespace.sarimax import SARIMAX as Peer

    y = holes(waves())[2]
    rng = np.random.default_rng(3)
    u, later = rng.standard_normal((len(y), 1)), rng.standard_normal((1, 7, 1))
    panel = make_panel([y], u=u)
    engine = fitted(SARIMAX, panel, order=order, seasonal_order=(0, 1, 1))
    assert not engine.notes
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 7, later), LEVELS, 1, 0)
    shift, unit = engine._fitted["shift"][0, 0], engine._fitted["unit"][0, 0]
    x, later = (u - u.mean()) / u.std(), (later - u.mean()) / u.std()
    model = Peer((y - shift) / unit, exog=x, order=order, seasonal_order=(0, 1, 1, 4))
    found = model.smooth(engine._fitted["values"][0, 0])
    forecast = found.get_forecast(7, exog=later[0])
    np.testing.assert_allclose(
        marginals.mean[0, :, 0], shift + unit * forecast.predicted_mean, rtol=1e-8
    )
    width = (marginals.quantiles[2] - marginals.mean)[0, :, 0] / NormalDist().inv_cdf(0.9)
    np.testing.assert_allclose(width, unit * forecast.se_mean, rtol=1e-6)


def test_sarimax_uses_covariates_and_the_others_say_that_they_do_not():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((60, 1))
    u = 1e6 + 1e5 * u  # scales do not matter
    y = 5e-5 * u[:, 0] + 0.1 * np.cumsum(rng.standard_normal(60))
    panel = make_panel([y], u=u)
    later = 1e6 + 1e5 * rng.standard_normal((1, 4, 1))
    engine = fitted(SARIMAX, panel, FitOptions())
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 4, later), LEVELS, 1, 0)
    np.testing.assert_allclose(marginals.mean - 5e-5 * later, y[-1] - 5e-5 * u[-1, 0], atol=0.5)
    assert (np.abs(marginals.mean - y[-1]) > 1).any()
    assert not engine.notes
    with pytest.raises(CovariateError, match=r"expected the 1 covariates .* found 0"):
        engine.start(make_panel([y]), 0)
    assert "1 known ahead): 'sarimax'" in fitted(Naive, panel).notes[None]


# ---- laws of every engine


@each_engine
def test_paths_have_the_distribution(kind):
    series = holes(waves())
    series[1][-3:] = np.nan  # a gap at the end
    panel = make_panel(series)
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 7)
    marginals = engine.marginals(state, future, (0.5, NormalDist().cdf(1.0)), 1, 0)
    paths = engine.paths(state, future, 4000, 0)
    assert paths.shape == (4000, 3, 7, 1)
    scale = marginals.quantiles[1] - marginals.quantiles[0]
    assert (scale > 0).all()
    np.testing.assert_allclose(paths.mean(0), marginals.mean, atol=5 * scale.max() / np.sqrt(4000))
    np.testing.assert_allclose(paths.std(0) / scale, 1.0, atol=0.07)


@each_engine
def test_update_is_start_on_all_rows(kind):
    series = holes(waves())
    panel = make_panel(series)
    engine = fitted(kind, panel)
    lengths = panel.lengths
    first = panel.drop_tail(5)
    index = np.arange(panel.rows) - panel.offsets[:-1][panel.owner]
    rest = panel.keep(index >= lengths[panel.owner] - 5)
    state = engine.update(engine.start(first, 0), rest, 0)
    same(state, engine.start(panel, 0), rtol=1e-6)
    score, early = engine.score(panel, 0), engine.score(first, 0)
    rows = index < lengths[panel.owner] - 5
    np.testing.assert_allclose(score.log_score[rows], early.log_score, rtol=1e-7)
    # Rows that the next panel leaves out are rows without a value.
    marginals = engine.marginals(state, ahead(panel, 3), LEVELS, 1, 0)
    blank = make_panel([y[-5:].copy() for y in series])
    blank = replace(blank, t=rest.t, y=np.where(np.arange(15)[:, None] % 5 < 2, np.nan, rest.y))
    later = blank.keep(np.arange(15) % 5 >= 2)
    a, b = (engine.update(engine.start(first, 0), p, 0) for p in (blank, later))
    for left, right in zip(
        engine.marginals(a, ahead(panel, 3), LEVELS, 1, 0),
        engine.marginals(b, ahead(panel, 3), LEVELS, 1, 0),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, rtol=1e-7)
    assert np.isfinite(marginals.quantiles).all()


@each_engine
def test_forecasts_that_begin_later_are_those_of_the_later_steps(kind):
    panel = make_panel(waves())
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 8)
    late = Future(future.t[:, 3:], future.u[:, 3:])
    for whole, part in zip(
        engine.marginals(state, future, LEVELS, 1, 0),
        engine.marginals(state, late, LEVELS, 1, 0),
        strict=True,
    ):
        np.testing.assert_allclose(whole[..., 3:, :], part, rtol=1e-9)
    assert engine.paths(state, late, 2, 0).shape == (2, 3, 5, 1)


@each_engine
def test_select_and_join_pick_series(kind):
    panel = make_panel(holes(waves()))
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 3)
    parts = [engine.start(panel.select([i]), 0) for i in (2, 0)]
    joined = engine.join([*parts, engine.select(state, np.array([1]))])
    order = np.array([2, 0, 1])
    a = engine.marginals(joined, future.select(order), LEVELS, 1, 0)
    b = engine.marginals(state, future, LEVELS, 1, 0)
    np.testing.assert_allclose(a.quantiles, b.quantiles[:, order], rtol=1e-9)


def through_json(packed):
    return packed._replace(config=json.loads(json.dumps(packed.config)))


@each_engine
def test_packed_engines_keep_paths(kind):
    panel = make_panel([*holes(waves()), [1.0, 2.0]])
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 5)
    loaded = kind.unpacked(through_json(engine.packed()))
    again = loaded.unpack(engine.pack(state))
    expected = engine.paths(state, future, 5, 7)
    assert (loaded.paths(again, future, 5, 7) == expected).all()
    assert (loaded.paths(loaded.start(panel, 0), future, 5, 7) == expected).all()
    assert loaded.notes == engine.notes


@each_engine
def test_seeds_are_obeyed_and_nothing_global_is_touched(kind):
    panel = make_panel(waves())
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 3)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = (engine.paths(state, future, 4, seed) for seed in (1, 1, 2))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert (a == b).all()
    assert (a != c).all()


@each_engine
def test_hopeless_series_have_laws_with_width_and_notes(kind):
    series = [
        waves()[0],
        np.full(20, np.nan),
        np.full(20, 7.0),
        np.zeros(20),
        np.array([3.0, 5.0]),
        np.array([3.0]),
        np.array([np.nan, 4.0, np.nan]),
    ]
    panel = make_panel(series)
    engine = fitted(kind, panel)
    state, future = engine.start(panel, 0), ahead(panel, 9)
    marginals = engine.marginals(state, future, LEVELS, 1, 0)
    assert np.isfinite(marginals.quantiles).all()
    assert (np.diff(marginals.quantiles, axis=0) > 0).all()
    assert np.isfinite(engine.paths(state, future, 3, 0)).all()
    np.testing.assert_allclose(marginals.mean[2:4, :, 0], [[7.0] * 9, [0.0] * 9], atol=1e-3)
    assert {"s1", "s5", "s6"} <= engine.notes.keys()
    if kind not in (Naive, SeasonalNaive):
        assert "constant" in engine.notes["s2"]
        assert "too few" in engine.notes["s4"]
    assert "s0" not in engine.notes
    score = engine.score(panel, 0)
    assert np.isnan(score.log_score[np.isnan(panel.y[:, 0])]).all()
    only = fitted(kind, make_panel([np.full(3, np.nan)]))
    marginals = only.marginals(
        only.start(panel.select([1]), 0), ahead(panel.select([1]), 2), LEVELS, 1, 0
    )
    assert (np.diff(marginals.quantiles, axis=0) > 0).all()


@each_engine
def test_series_not_seen_in_training_are_fitted_when_they_come(kind):
    series = waves()
    engine = fitted(kind, make_panel(series[:1]))
    panel = make_panel(series[::-1], ids=["new", "other", "s0"])
    state = engine.start(panel, 0)
    # Their parameters are those of a fit that saw the rows before their last anchor.
    anchor = np.where(panel.ids == "s0", panel.lengths, anchor_of(panel))
    assert (anchor >= 0.6 * panel.lengths).all()
    row = np.arange(panel.rows) - panel.offsets[panel.owner]
    whole = fitted(kind, panel.keep(row < anchor[panel.owner]))
    a = engine.marginals(state, ahead(panel, 5), LEVELS, 1, 0)
    b = whole.marginals(whole.start(panel, 0), ahead(panel, 5), LEVELS, 1, 0)
    np.testing.assert_allclose(a.quantiles, b.quantiles, rtol=1e-7)


@each_engine
def test_new_rows_of_a_fitted_series_keep_its_parameters(kind):
    series = waves((60, 60, 60))
    panel = make_panel(series)
    engine = fitted(kind, panel)
    tail = panel.tail(25)  # without the row that the fitted state begins at
    state = engine.start(tail, 0)
    for name in {"alpha", "scale", "values", "cycle", "step"} & state.keys():
        np.testing.assert_array_equal(state[name], engine._fitted[name])
    a = engine.marginals(state, ahead(tail, 4), LEVELS, 1, 0).mean
    b = engine.marginals(engine.start(panel, 0), ahead(panel, 4), LEVELS, 1, 0).mean
    np.testing.assert_allclose(a, b, atol=1.0)
    blank = replace(tail, y=np.full_like(tail.y, np.nan))
    assert np.isfinite(
        engine.marginals(engine.start(blank, 0), ahead(tail, 2), LEVELS, 1, 0).mean
    ).all()


@each_engine
def test_targets_are_independent(kind):
    a, b = waves((40, 40))
    both, first, second = make_panel([np.stack([a, b], 1)]), make_panel([a]), make_panel([b])
    engine = fitted(kind, both)
    marginals = engine.marginals(engine.start(both, 0), ahead(both, 4), LEVELS, 1, 0)
    score = engine.score(both, 0)
    log_score = 0.0
    for d, panel in enumerate((first, second)):
        one = fitted(kind, panel)
        other = one.marginals(one.start(panel, 0), ahead(panel, 4), LEVELS, 1, 0)
        np.testing.assert_allclose(marginals.quantiles[..., d], other.quantiles[..., 0], rtol=1e-7)
        log_score = log_score + one.score(panel, 0).log_score
    np.testing.assert_allclose(score.log_score, log_score, rtol=1e-6)
    with pytest.raises(TargetError, match="expected the 2 targets that were fitted, found 1"):
        engine.start(first, 0)


@each_engine
def test_score_is_the_distribution_one_step_ahead(kind):
    panel = make_panel(holes(waves()))
    engine = fitted(kind, panel)
    score = engine.score(panel, 0)
    pits = score.pit[np.isfinite(score.pit)]
    assert ((pits >= 0) & (pits <= 1)).all()
    assert abs(pits.mean() - 0.5) < 0.1
    assert np.isnan(score.log_score[np.isnan(panel.y[:, 0])]).all()
    last = panel.offsets[1:] - 1
    before = panel.drop_tail(1)
    marginals = engine.marginals(engine.start(before, 0), ahead(before, 1), (0.5, 0.9), 1, 0)
    scale = (marginals.quantiles[1] - marginals.quantiles[0])[:, 0, 0] / NormalDist().inv_cdf(0.9)
    for i, row in enumerate(last):
        if np.isfinite(panel.y[row, 0]):
            normal = NormalDist(marginals.mean[i, 0, 0], scale[i])
            np.testing.assert_allclose(score.pit[row, 0], normal.cdf(panel.y[row, 0]), rtol=1e-6)
            expected = np.log(normal.pdf(panel.y[row, 0]))
            np.testing.assert_allclose(score.log_score[row], expected, rtol=1e-6)


@each_engine
def test_irregular_clocks_are_refused_where_they_must(kind):
    panel = make_panel([[1.0, 2.0, 3.0]], kind="irregular", t=np.array([0.0, 0.3, 2.0]))
    if kind is Naive:
        fitted(kind, panel, FitOptions())
    else:
        with pytest.raises(TimeError, match=r"regular grid.*'naive' or a latent model"):
            fitted(kind, panel, FitOptions())


@pytest.mark.parametrize("kind", [ETS, Theta, SARIMAX], ids=lambda kind: kind.alias)
def test_the_time_limit_leaves_the_simple_model_and_says_so(kind):
    panel = make_panel(waves())
    engine = fitted(kind, panel, replace(SEASON, deadline=Deadline(0.0)))
    assert all("time_limit passed: seasonal naive" in engine.notes[i] for i in panel.ids)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 6), LEVELS, 1, 0)
    plain = fitted(SeasonalNaive, panel)
    other = plain.marginals(plain.start(panel, 0), ahead(panel, 6), LEVELS, 1, 0)
    np.testing.assert_allclose(marginals.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(marginals.quantiles, other.quantiles, rtol=1e-2)


@pytest.mark.parametrize("kind", [ETS, Theta, SARIMAX], ids=lambda kind: kind.alias)
def test_a_failing_library_is_no_crash(kind, monkeypatch):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from statsmodels.tsa.forecasting.theta import ThetaModel
    from statsmodels.tsa.statespace.sarimax import SARIMAX as Model

    def fail(*args, **kwargs):
        raise np.linalg.LinAlgError("singular matrix")

    peer = {ETS: ETSModel, Theta: ThetaModel, SARIMAX: Model}[kind]
    monkeypatch.setattr(peer, "fit", fail)
    panel = make_panel(waves())
    engine = fitted(kind, panel)
    assert all("singular matrix" in engine.notes[i] for i in panel.ids)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 2), LEVELS, 1, 0)
    assert np.isfinite(marginals.quantiles).all()


@pytest.mark.parametrize("kind", [ETS, Theta, SARIMAX], ids=lambda kind: kind.alias)
def test_what_does_not_converge_is_noted(kind, monkeypatch):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from statsmodels.tsa.forecasting.theta import ThetaModel, ThetaModelResults
    from statsmodels.tsa.statespace.sarimax import SARIMAX as Model

    if kind is Theta:
        params = pd.Series([np.nan, 0.5])
        monkeypatch.setattr(ThetaModelResults, "params", params)
        assert ThetaModel(waves()[0], period=4).fit().params is params
    else:
        peer = {ETS: ETSModel, SARIMAX: Model}[kind]
        fit = peer.fit

        def stopped(*args, **kwargs):
            found = fit(*args, **kwargs)
            found.mle_retvals["converged"] = False
            return found

        monkeypatch.setattr(peer, "fit", stopped)
    engine = fitted(kind, make_panel(waves()[:1]))
    assert engine.notes == {"s0": "statsmodels did not converge: seasonal naive"}


@pytest.mark.parametrize("kind", [ETS, SARIMAX], ids=lambda kind: kind.alias)
def test_a_candidate_that_fails_is_noted(kind, monkeypatch):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from statsmodels.tsa.statespace.sarimax import SARIMAX as Model

    peer = {ETS: ETSModel, SARIMAX: Model}[kind]
    fit, calls = peer.fit, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("a bad day")
        return fit(*args, **kwargs)

    monkeypatch.setattr(peer, "fit", once)
    engine = kind()
    engine.fit(make_panel(waves()[:1]), FitOptions())
    assert len(calls) > 1
    assert "a bad day" in engine.notes["s0"]


def test_long_seasons_of_sarimax_are_sines():
    series = waves((90, 100), season=24)
    panel = make_panel(series)
    engine = fitted(SARIMAX, panel, FitOptions(season_lengths=(24,)), max_rows=80)
    assert (engine._fitted["order"][..., -1] == 3).all()
    state = engine.start(panel, 0)
    marginals = engine.marginals(state, ahead(panel, 48), LEVELS, 1, 0)
    assert (np.ptp(marginals.mean, axis=1) > 5).all()
    plain = fitted(SeasonalNaive, panel, FitOptions(season_lengths=(24,)))
    other = plain.marginals(plain.start(panel, 0), ahead(panel, 24), LEVELS, 1, 0)
    assert np.abs(marginals.mean[:, :24] - other.mean).max() < 5


# ---- missing values drawn


@pytest.mark.parametrize("kind", [Naive, SeasonalNaive, SARIMAX], ids=lambda kind: kind.alias)
def test_impute_leaves_observed_cells_and_draws_the_rest(kind):
    series = holes(waves())
    series.append(np.full(6, np.nan))
    panel = make_panel(series)
    engine = fitted(kind, panel)
    draws = engine.impute(panel, 6, 0)
    missing = np.isnan(panel.y)
    assert draws.shape == (6, *panel.y.shape)
    assert (draws[:, ~missing] == panel.y[~missing]).all()
    assert (draws[:, missing].std(0) > 0).all()
    assert (engine.impute(panel, 6, 0) == draws).all()


def test_the_naive_bridge_has_the_distribution_of_a_bridge():
    y = np.array([np.nan, 1.0, np.nan, np.nan, np.nan, 5.0, np.nan])
    panel = make_panel([y])
    engine = fitted(Naive, panel)
    step = engine._fitted["step"][0, 0]
    draws = engine.impute(panel, 8000, 0)[..., 0]
    np.testing.assert_allclose(draws.mean(0), [1, 1, 2, 3, 4, 5, 5], atol=0.1)
    variance = np.array([1, 0, 3 / 4, 1, 3 / 4, 0, 1]) * step**2
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.08)
    together = np.cov(draws[:, 2], draws[:, 4])[0, 1]
    np.testing.assert_allclose(together, step**2 / 4, rtol=0.15)


def test_the_seasonal_bridge_joins_values_of_one_phase():
    y = np.array([0.0, 10.0, 1.0, 11.0, np.nan, 13.0, 3.0, np.nan])
    panel = make_panel([y])
    engine = fitted(SeasonalNaive, panel, FitOptions(season_lengths=(2,)))
    draws = engine.impute(panel, 4000, 0)[..., 0]
    np.testing.assert_allclose(draws.mean(0), [0, 10, 1, 11, 2, 13, 3, 13], atol=0.1)


def test_sarimax_imputes_as_it_smooths():
    y = waves()[0]
    y[[7, 8, 20]] = np.nan
    panel = make_panel([y])
    engine = fitted(SARIMAX, panel, order=(0, 1, 1), seasonal_order=(0, 1, 1))
    smoothed = engine.smooth(panel, 0)
    assert smoothed.names == ("signal",)
    draws = engine.impute(panel, 600, 0)[:, :, 0]
    missing = np.isnan(y)
    scale = smoothed.scale[missing, 0]
    np.testing.assert_allclose(smoothed.mean[~missing, 0], y[~missing], rtol=1e-6)
    assert (smoothed.scale[~missing] == 0).all()
    error = np.abs(draws[:, missing].mean(0) - smoothed.mean[missing, 0])
    assert (error < 5 * scale / np.sqrt(600)).all()
    np.testing.assert_allclose(draws[:, missing].std(0), scale, rtol=0.15)


@pytest.mark.parametrize("kind", [ETS, Theta], ids=lambda kind: kind.alias)
def test_smoothers_cannot_impute(kind):
    with pytest.raises(NotImplementedError, match="use 'naive'"):
        kind().impute(make_panel(waves()), 1, 0)


def test_naive_has_nothing_to_smooth():
    with pytest.raises(NotImplementedError, match="no latent state"):
        Naive().smooth(make_panel(waves()), 0)


# ---- parts


def test_difference_scale_divides_by_the_seasons_between():
    y = np.array([1.0, 5.0, np.nan, 7.0, 4.0, 8.0])
    panel = make_panel([y])
    expected = np.sqrt(np.mean([(4 - 1) ** 2 / 2, (7 - 5) ** 2, (8 - 7) ** 2]))
    np.testing.assert_allclose(difference_scale(panel, 2)[0, 0], expected)
    assert np.isnan(difference_scale(make_panel([[1.0]]), 1)).all()


def test_positive_scales():
    pool = PanelSpread(np.array([0.0]), np.array([2.0]), np.array([0.0]), np.array([0.5]))
    n = np.nan
    scale = np.array([[3.0], [n], [0.0], [0.0], [n], [1e-3], [n], [0.0]])
    step = np.array([[n], [n], [n], [n], [n], [1.0], [7.0], [7.0]])
    level = np.array([[1.0], [4.0], [10.0], [0.0], [n], [1e6], [10.0], [10.0]])
    expected = [[3.0], [2.0], [5e-4], [1e-4], [1.0], [1e-3], [7.0], [7e-4]]
    np.testing.assert_allclose(positive(scale, step, level, pool), expected)


def test_filled_takes_the_season_before_then_lines():
    y = np.array([1.0, np.nan, 3.0, 4.0, np.nan, np.nan])
    np.testing.assert_allclose(filled(y, 1), [1, 2, 3, 4, 4, 4])
    np.testing.assert_allclose(filled(y, 2), [1, 2, 3, 4, 3, 4])


def test_initial_finds_a_line_and_a_season():
    pattern = np.array([3.0, -1.0, -2.0, 0.0])
    y = 5 + 0.5 * np.arange(1, 41) + np.tile(pattern, 10)
    level, trend, season = initial(y, 4)
    np.testing.assert_allclose([level, trend], [5, 0.5], rtol=1e-9)
    np.testing.assert_allclose(season, pattern, rtol=1e-9, atol=1e-9)
    assert initial(np.array([2.0]), 1)[:2] == (2.0, 0.0)
    level, trend, season = initial(np.array([1.0, 2.0, 3.0]), 4)
    assert season.shape == (4,)


def test_candidates_take_the_differences_that_make_a_series_vary_less():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(200)
    walk = np.cumsum(noise)
    assert {o.d for o in candidates(noise, 1)} == {0}
    assert {o.d for o in candidates(walk, 1)} == {1}
    assert {o.c for o in candidates(walk, 1)} == {0, 1}  # with and without a drift
    assert {(o.d, o.D, o.P) for o in candidates(noise, 4)} == {(0, 0, 1)}
    assert {o.D for o in candidates(noise + np.tile([5.0, 0.0, 0.0, -5.0], 50), 4)} == {1}
    assert {o.k for o in candidates(noise, 24)} == {3}
    assert {o.k for o in candidates(noise[:40], 24)} == {0}


def test_a_bridge_may_have_one_side():
    rng = np.random.default_rng(0)
    y = np.array([np.nan, 2.0, np.nan, np.nan, 9.0])
    key = np.array([0, 0, 0, 1, 1])
    draws = bridge(np.arange(5.0), y, key, np.ones(5), 5000, rng)
    np.testing.assert_allclose(draws.mean(0), [2, 2, 2, 9, 9], atol=0.1)
    np.testing.assert_allclose(draws.std(0), [1, 0, 1, 1, 0], atol=0.05)


def test_quiet_leaves_the_filters_as_they_were():
    before = list(warnings.filters)

    def work():
        for _ in range(50):
            with quiet():
                warnings.warn("unheard", stacklevel=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_wrong_options_teach():
    with pytest.raises(ValueError, match="season_length must be a positive number"):
        SeasonalNaive(season_length=0)
    for kind in (ETS, Theta, SARIMAX):
        with pytest.raises(ValueError, match="max_rows must be a positive number"):
            kind(max_rows=0)
    with pytest.raises(ValueError, match=r"order=\(0, 1, 1\)"):
        SARIMAX(order=(1, 1))


def test_ids_of_every_kind_come_back_from_json():
    stamp = pd.Timestamp("2024-03-01", tz="UTC")
    ids = [2, "a", 2.5, True, None, stamp, stamp.date(), stamp.to_pydatetime()]
    panel = make_panel([[1.0, 2.0]] * len(ids))
    object.__setattr__(panel, "ids", objects(ids))
    engine = fitted(Naive, panel, FitOptions())
    loaded = Naive.unpacked(through_json(engine.packed()))
    assert list(loaded._index) == list(engine._index)
    assert list(map(type, loaded._index)) == list(map(type, engine._index))
    object.__setattr__(panel, "ids", objects([frozenset(), *ids[1:]]))
    with pytest.raises(TypeError, match="ids must be strings, numbers or dates"):
        fitted(Naive, panel, FitOptions()).packed()


def test_names():
    assert list(baselines.BASELINES) == ["naive", "seasonal_naive", "ets", "sarimax", "theta"]
    assert all(issubclass(kind, LocalEngine) for kind in baselines.BASELINES.values())


# ---- the scoreboard


def wql(forecast, y, levels):
    """Weighted quantile loss of forecasts ``(Q, ...)``."""
    q = np.asarray(levels).reshape(-1, *[1] * y.ndim)
    loss = 2 * np.maximum(q * (y - forecast), (q - 1) * (y - forecast))
    return (loss.reshape(len(q), -1).sum(1) / np.abs(y).sum()).mean()


PUBLISHED = {
    "m4_hourly": 0.0483091941403194,
    "m4_weekly": 0.0633986476090776,
    "exchange_rate": 0.0129841406759913,
    "m1_monthly": 0.1914632595030148,
    "m1_quarterly": 0.1495022062865622,
    "m1_yearly": 0.2092955931101782,
    "m3_monthly": 0.1485446007554992,
    "m3_quarterly": 0.1012520529806161,
    "m3_yearly": 0.1665329650420048,
    "car_parts": 1.5999522140809177,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_seasonal_naive_has_the_published_scores(name):
    from seqlatent.datasets import split, tasks

    task = next(task for task in tasks() if task.name == name)
    if not (DATA / task.file).exists():
        pytest.skip(f"no {task.file} in the folder that SEQLATENT_DATA names")
    train, test = split(task, root=DATA, download=False)
    series = [g.to_numpy() for _, g in train.groupby("unique_id", sort=False)["y"]]
    y = np.stack([g.to_numpy() for _, g in test.groupby("unique_id", sort=False)["y"]])
    panel = make_panel(series)
    fit_options = FitOptions(season_lengths=(task.season,) if task.season > 1 else ())
    engine = fitted(SeasonalNaive, panel, fit_options, intervals=False)
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, task.horizon), levels, 1, 0)
    found = wql(marginals.quantiles[..., 0], y, levels)
    assert found == pytest.approx(PUBLISHED[name], abs=5e-5)
