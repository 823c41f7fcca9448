"""Held-out blocks say how wide forecasts are: factors by lead, which every door applies alike."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from local_engines import ahead, make_panel
from scipy.special import ndtr, ndtri

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.baselines import ETS, Naive, Theta
from seqlatent.forecasting.engines.calibration import (
    LEAST,
    Calibration,
    calibrated,
    held_out,
    scores_of,
    usual_horizon,
)
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.forecasting.engines.latent.engine import LatentEngine
from seqlatent.forecasting.engines.latent.recipes import deep_state
from seqlatent.scales import log_scales
from seqlatent.training import Deadline

KINDS = (ETS, Theta)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.alias)
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
DOUBLE = Calibration(((2.0,),) * 3, ((0.5,),) * 3, 40, 9)


def turning(series=24, rows=30, seed=0):
    """Series whose slope turns, which smoothing with a constant drift does not foresee."""
    rng = np.random.default_rng(seed)
    slope = np.cumsum(rng.normal(0, 0.3, (series, rows)), 1)
    return list(50 + np.cumsum(slope + rng.normal(0, 1.0, (series, rows)), 1))


def fit(kind, values, *, deadline=None, **options):
    panel = make_panel(values)
    engine = kind(**options)
    engine.fit(panel, FitOptions(deadline=deadline or Deadline()))
    return engine, panel


# ---- factors


def test_intervals_that_are_half_as_wide_as_they_should_be_are_doubled():
    rng = np.random.default_rng(0)
    scores = 2.0 * rng.standard_normal((2, 200, 9, 1))
    found = calibrated(list(scores))
    later = rng.standard_normal((400, 9, 1))
    spread = found.at(np.broadcast_to(np.arange(1, 10)[:, None], (9, 1)))
    for part in np.array_split(np.arange(9), 3):
        inside = np.abs(2 * later / spread)[:, part] < ndtri(0.9)
        assert 0.76 < inside.mean() < 0.84
    assert found.series == 400
    assert found.horizon == 9


def test_the_factor_of_a_third_is_its_own_and_few_series_say_less():
    rng = np.random.default_rng(0)
    wide = np.repeat([1.0, 1.5, 3.0], 4)[:, None]
    many = calibrated([wide * rng.standard_normal((2000, 12, 1))])
    np.testing.assert_allclose(np.ravel(many.factors), [1.0, 1.5, 2.46], rtol=0.05)  # capped
    few = calibrated([wide * rng.standard_normal((LEAST, 12, 1))])
    assert 1 < few.factors[2][0] < 2
    calm = calibrated([0.5 * rng.standard_normal((LEAST, 12, 1))])
    assert all(0.8 < third[0] < 1 for third in calm.factors)  # one quiet block is no proof
    none = calibrated([wide * rng.standard_normal((LEAST - 1, 12, 1))])
    assert none.plain
    assert "7 series" in str(none)


def test_leads_between_have_factors_between():
    found = Calibration(((1.0,), (1.2,), (1.5,)), ((0.8,), (0.7,), (0.6,)), 50, 9)
    factors = np.ravel(found.at(np.arange(1, 15)[:, None]))
    np.testing.assert_allclose(factors[[0, 1, 4, 7, 8, 13]], [1, 1, 1.2, 1.5, 1.5, 1.5])
    assert (np.diff(factors) >= -1e-12).all()
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    short = Calibration(((1.1,),), ((0.7,),), 50, 1)
    assert np.ravel(short.at(np.array([[1], [5]]))).tolist() == pytest.approx([1.1, 1.1])


def test_values_that_are_mostly_the_same_do_not_narrow_what_covers_the_rest():
    """Of many zeros and some large values 80 % lie close, and 95 % do not."""
    rng = np.random.default_rng(0)
    lumps = np.where(rng.random((200, 9, 1)) < 0.88, 0.05, 2.2)
    assert calibrated([lumps]).plain


def test_targets_have_factors_of_their_own():
    rng = np.random.default_rng(0)
    found = calibrated([np.array([1.0, 2.0]) * rng.standard_normal((4000, 9, 2))])
    np.testing.assert_allclose(found.factors, [[1.0, 2.0]] * 3, rtol=0.06)
    assert np.shape(found.at(np.ones((3, 4, 2)))) == (3, 4, 2)
    assert "target" in str(found)


# ---- what is held out


def test_what_is_held_out_does_not_depend_on_the_order_of_series():
    values = turning(40)
    panel = make_panel(values)
    turned = panel.select(np.arange(40)[::-1])
    one, other = held_out(panel, 5, 4), held_out(turned, 5, 4)
    assert one is not None
    assert other is not None
    assert one.head.ids.tolist() == other.head.ids.tolist()
    assert len(one.head.ids) == 20
    np.testing.assert_array_equal(one.truth, other.truth)
    np.testing.assert_array_equal(one.future.t[:, 0], one.head.last + 1)


def test_series_that_are_too_short_or_end_in_a_hole_are_not_held_out():
    values = [*turning(3), np.arange(12.0), np.full(30, np.nan)]
    values[0][24] = np.nan
    panel = make_panel(values)
    block = held_out(panel, 5, 4)
    assert block is not None
    assert block.head.ids.tolist() == ["s0", "s1", "s2"]
    assert np.isnan(block.truth[0]).all()
    assert np.isfinite(block.truth[1:]).all()
    assert held_out(make_panel([np.arange(5.0)]), 2, 4) is None
    assert usual_horizon(12, np.full(3, 200)) == 24
    assert usual_horizon(1, np.array([20, 21, 300])) == 7


# ---- engines


@each_kind
def test_a_factor_of_one_changes_no_bit_and_another_spreads_about_the_mean(kind):
    engine, panel = fit(kind, turning(5), calibrate=False)
    assert engine.calibration.plain
    state, future = engine.start(panel, 0), ahead(panel, 12)
    m, paths = engine.marginals(state, future, LEVELS, 1, 0), engine.paths(state, future, 50, 3)
    score = engine.score(panel, 0)
    engine.calibration = Calibration(((1.0,),) * 3, ((0.8,),) * 3, 40, 9)
    same = engine.marginals(state, future, LEVELS, 1, 0)
    np.testing.assert_array_equal(same.quantiles, m.quantiles)
    np.testing.assert_array_equal(engine.paths(state, future, 50, 3), paths)
    engine.calibration = DOUBLE
    wide, far = engine.marginals(state, future, LEVELS, 1, 0), engine.paths(state, future, 50, 3)
    np.testing.assert_array_equal(wide.mean, m.mean)
    np.testing.assert_allclose(wide.quantiles - m.mean, 2 * (m.quantiles - m.mean), rtol=1e-9)
    np.testing.assert_allclose(far - m.mean, 2 * (paths - m.mean), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.argsort(far, 0), np.argsort(paths, 0))
    # the density is that of the wider distribution, and integrates to one as it did
    found, seen = engine.score(panel, 0), np.isfinite(score.log_score)
    z = ndtri(score.pit[seen])
    np.testing.assert_allclose(found.pit[seen], ndtr(z / 2), atol=1e-12)
    change = (z**2 - (z / 2) ** 2)[:, 0] / 2 - np.log(2)
    np.testing.assert_allclose(found.log_score[seen], score.log_score[seen] + change, rtol=1e-6)


@each_kind
def test_leads_count_from_the_last_value(kind):
    values = turning(3)
    values[1][-4:] = np.nan
    engine, panel = fit(kind, values, calibrate=False)
    plain = engine.marginals(engine.start(panel, 0), ahead(panel, 2), LEVELS, 1, 0)
    engine.calibration = Calibration(((1.0,), (2.0,), (4.0,)), ((0.8,),) * 3, 40, 3)
    found = engine.marginals(engine.start(panel, 0), ahead(panel, 2), LEVELS, 1, 0)
    ratio = (np.ptp(found.quantiles, 0) / np.ptp(plain.quantiles, 0))[..., 0]
    np.testing.assert_allclose(ratio, [[1, 2], [4, 4], [1, 2]], rtol=1e-9)


@each_kind
def test_intervals_cover_what_they_should_on_a_panel_that_a_model_does_not_foresee(kind):
    values = turning(96, 36)
    past = [y[:-6] for y in values]
    truth = np.stack([y[-6:] for y in values])
    covers = {}
    for calibrate in (False, True):
        engine, panel = fit(kind, past, calibrate=calibrate)
        q = engine.marginals(engine.start(panel, 0), ahead(panel, 6), (0.1, 0.9), 1, 0).quantiles
        covers[calibrate] = np.mean((truth >= q[0, ..., 0]) & (truth <= q[1, ..., 0]))
    assert covers[False] < 0.6
    assert abs(covers[True] - 0.8) < 0.6 * abs(covers[False] - 0.8), covers


@each_kind
def test_the_factors_know_no_unit_and_are_kept(kind):
    values = turning(16)
    engine, panel = fit(kind, values)
    assert not engine.calibration.plain
    other, _ = fit(kind, [1e6 * y - 3e7 for y in values])
    np.testing.assert_allclose(other.calibration.factors, engine.calibration.factors, rtol=1e-4)
    loaded = kind.unpacked(engine.packed())
    assert isinstance(loaded, kind)
    assert loaded.calibration == engine.calibration
    assert loaded.summary == engine.summary
    again = loaded.unfitted()
    again.fit(panel, FitOptions())
    assert again.calibration == engine.calibration
    assert kind(calibrate=False).unfitted().calibration.plain


def test_where_no_time_is_left_nothing_is_calibrated_and_a_note_says_so():
    engine, _ = fit(Theta, turning(16), deadline=Deadline(0.0))
    assert engine.calibration.plain
    assert "widths are not calibrated" in engine.notes[None]
    assert "no time was left" in engine.calibration.why


def test_a_report_says_the_factors(tmp_path):
    ds = pd.date_range("2000-01-01", periods=30, freq="YS")
    frames = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y}) for i, y in enumerate(turning(16))
    ]
    df = pd.concat(frames, ignore_index=True)
    model = Forecaster(["theta", "naive"]).fit(df)
    report = model.report()
    assert str(report).startswith("spread of forecasts, from the last 10 rows of 16 series")
    model.save(tmp_path / "m")
    assert Forecaster.load(tmp_path / "m").report("theta") == report
    with pytest.raises(ValueError, match=r"here 'theta'; found 'naive'"):
        model.report("naive")
    assert "calibrate=False" in str(Forecaster(Theta(calibrate=False)).fit(df).report())
    assert not hasattr(Naive(), "calibration")


# ---- models that are inferred exactly


def test_noises_of_a_deep_state_are_those_that_a_second_fit_asks_for():
    panel, future = make_panel(turning(16)), ahead(make_panel(turning(16)), 6)
    spec = deep_state(steps=3, hidden_dim=4)
    plain, found = LatentEngine(replace(spec, calibrate=False)), LatentEngine(spec)
    for engine in (plain, found):
        engine.fit(panel, FitOptions())
    assert "calibration" not in plain.summary
    said = Calibration.from_dict(found.summary["calibration"])
    assert len(said.factors) == 1
    (factor,) = said.factors[0]
    assert abs(np.log(factor)) > 0.02
    scales = zip(
        log_scales(plain.ensemble.models[0]).values(),
        log_scales(found.ensemble.models[0]).values(),
        strict=True,
    )
    for a, b in scales:
        np.testing.assert_allclose(b.numpy() - a.numpy(), np.log(factor), rtol=1e-9)
    narrow, wide = (
        e.marginals(e.start(panel, 0), future, (0.1, 0.5, 0.9), 1, 0) for e in (plain, found)
    )
    ratio = np.ptp(wide.quantiles, 0) / np.ptp(narrow.quantiles, 0)
    np.testing.assert_allclose(ratio, factor, rtol=0.1)
    loaded = LatentEngine.unpacked(found.packed(), spec)
    assert loaded.summary == found.summary
    again = loaded.marginals(loaded.start(panel, 0), future, (0.1, 0.5, 0.9), 1, 0)
    np.testing.assert_array_equal(again.quantiles, wide.quantiles)


def test_scores_say_where_values_lie_between_quantiles():
    y = np.array([0.0, 3.0, -2.0, 5.0, np.nan])[:, None, None]
    low, middle, high = (np.full_like(y, x) for x in (-1.0, 0.0, 2.0))
    found = scores_of(y, np.stack([low, middle, high]))[:, 0, 0] / ndtri(0.9)
    np.testing.assert_allclose(found, [0, 1.5, -2, 2.5, np.nan])
    assert np.isinf(scores_of(y, np.stack([low, middle, middle]))[1, 0, 0])
