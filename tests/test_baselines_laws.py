"""Baselines know no unit and no zero, say what they leave out, and stand on the last values."""

from statistics import NormalDist

import numpy as np
import pytest
from local_engines import LEVELS, ahead, fitted, make_panel

from seqlatent.forecasting.engines.baselines import ETS, SARIMAX, Naive, SeasonalNaive, Theta
from seqlatent.forecasting.engines.baselines.initial import Standard, window
from seqlatent.forecasting.engines.baselines.orders import exact
from seqlatent.forecasting.engines.baselines.polish import polish
from seqlatent.forecasting.engines.baselines.sparse import smoothing_of_gaps
from seqlatent.forecasting.engines.baselines.spread import PanelSpread
from seqlatent.forecasting.engines.engine import FitOptions

ENGINES = (Naive, SeasonalNaive, ETS, Theta, SARIMAX)
each_engine = pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.alias)
each_fitted = pytest.mark.parametrize("kind", ENGINES[2:], ids=lambda kind: kind.alias)
QUARTERS = FitOptions(season_lengths=(4,))


def series():
    """Walks, trends, seasons, holes, without errors or short; steps of about one."""
    rng = np.random.default_rng(0)
    t = np.arange(60)
    walk = np.cumsum(rng.standard_normal(60) + 0.2)
    season = 4 * np.sin(2 * np.pi * t / 4 + 1)
    both = 0.3 * t + season + 0.5 * rng.standard_normal(60)
    return {
        "walk": walk,
        "trend and season": both,
        "season": season + 0.5 * rng.standard_normal(60),
        "noise": rng.standard_normal(60),
        "holes": np.where(rng.random(60) < 0.2, np.nan, both),
        "mostly holes": np.where(t % 7 == 0, walk, np.nan),
        "ends early": np.where(t > 52, np.nan, both),
        "begins late": np.where(t < 11, np.nan, both),
        "season without error": season,
        "line": 0.5 * t,
        "short": walk[:7],
        "one value": walk[:1],
        "no value": np.full(20, np.nan),
    }


def some(kind):
    """Fewer of them for engines whose fits are slow."""
    slow = ("season", "noise", "begins late", "ends early", "mostly holes")
    return {k: y for k, y in series().items() if kind is not SARIMAX or k not in slow}


def forecast(kind, values, fit_options=QUARTERS, h=6):
    """Quantiles ``(Q, N, h)``, scores ``(R,)`` and notes."""
    panel = make_panel(list(values))
    engine = fitted(kind, panel, fit_options, **({"max_rows": 200} if kind is SARIMAX else {}))
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, h), LEVELS, 1, 0)
    return marginals.quantiles[..., 0], engine.score(panel, 0).log_score, engine.notes


def widths(quantiles):
    return quantiles[-1] - quantiles[0]


# ---- no unit


@each_engine
def test_a_series_in_another_unit_has_its_forecast_in_that_unit(kind):
    values = [*some(kind).values(), np.full(20, 7.0)]
    expected, score, notes = forecast(kind, values)
    assert (widths(expected) > 0).all()
    for unit in (1e-9, 7.0, 1e12):
        found, other, said = forecast(kind, [unit * y for y in values])
        away = np.abs(found / unit - expected).max(axis=(0, 2))
        assert (away < 1e-6 * widths(expected).min(1)).all(), dict(
            zip(series(), away, strict=False)
        )
        np.testing.assert_allclose(other + np.log(unit), score, rtol=1e-6, atol=1e-6)
        assert said == notes


# ---- no zero


@each_engine
def test_a_series_higher_up_has_its_forecast_higher_up(kind):
    """Offsets up to 1e9 steps; the data themselves are rounded to 1e-7 of a step there."""
    values = some(kind)
    if kind is Theta:  # its seasonal factors begin where all values are positive
        values = {name: y - 1e4 for name, y in values.items()}
    expected, _, notes = forecast(kind, values.values())
    for offset in (1e4, 1e9):
        offset = -offset if kind is Theta else offset
        found, _, said = forecast(kind, [offset + y for y in values.values()])
        rounding = 1e-16 * abs(offset)
        for i, name in enumerate(values):
            width = widths(expected)[i]
            away = np.abs(found[:, i] - offset - expected[:, i]).max()
            assert away < 1e-5 * width.min() + 100 * rounding, (name, offset)
            allowed = 1e-5 * width + 100 * rounding
            assert (np.abs(widths(found)[i] - width) < allowed).all(), (name, offset)
        assert said == notes


@each_engine
def test_widths_are_those_of_the_steps_however_far_from_zero(kind):
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=400))
    for level, step in ((1.1, 2e-6), (101325.0, 2.0), (1e6, 3.0), (-1e9, 1.0)):
        found, _, _ = forecast(kind, [level + step * walk], FitOptions(), h=1)
        right = 2 * NormalDist().inv_cdf(0.9) * step
        np.testing.assert_allclose(widths(found)[0, 0], right, rtol=0.15)


def test_what_a_panel_says_of_a_series_without_steps_knows_no_zero():
    rng = np.random.default_rng(0)
    walks = [10 * i + np.cumsum(rng.normal(size=50)) for i in range(6)]
    for offset in (0.0, 1e6):
        found, _, _ = forecast(Naive, [*[offset + y for y in walks], np.array([offset + 0.01])])
        np.testing.assert_allclose(widths(found)[-1, 0], widths(found)[:6, 0].mean(), rtol=0.2)
    # Series that move in proportion to their magnitudes say so of others.
    sizes = 10.0 ** np.arange(6)
    panel = make_panel([size * (5 + np.cumsum(rng.normal(size=50))) for size in sizes])
    assert PanelSpread.of(panel).step[0] == 0
    values = [panel.y[panel.series(i), 0] for i in range(6)]
    small = widths(forecast(Naive, [*values, np.array([5.0])])[0])[-1, 0]
    large = widths(forecast(Naive, [*values, np.array([5e5])])[0])[-1, 0]
    assert large == pytest.approx(1e5 * small, rel=1e-6)


# ---- nothing left to explain


@pytest.mark.parametrize("kind", ENGINES[1:], ids=lambda kind: kind.alias)
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e9])
def test_a_season_without_error_goes_on(kind, offset):
    t = np.arange(480)
    wave = 10 * np.sin(2 * np.pi * t / 24)
    found, _, notes = forecast(kind, [offset + wave], FitOptions(season_lengths=(24,)), h=24)
    np.testing.assert_allclose(found[1, 0], offset + wave[:24], atol=1e-2)
    assert (widths(found) < 0.1).all()
    assert not notes


def test_sarimax_goes_on_with_lines_and_regressions_without_error():
    rng = np.random.default_rng(0)
    u, later = rng.normal(size=(60, 1)), rng.normal(size=(1, 5, 1))
    panel = make_panel([5 * u[:, 0] + 1], u=u)
    engine = fitted(SARIMAX, panel, FitOptions())
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 5, later), LEVELS, 1, 0)
    np.testing.assert_allclose(marginals.mean[0], 5 * later[0] + 1, atol=1e-6)
    found, _, notes = forecast(SARIMAX, [3 + 0.5 * np.arange(40.0)], h=5)
    np.testing.assert_allclose(found[1, 0], 3 + 0.5 * np.arange(40, 45), atol=1e-6)
    assert not notes
    assert exact(np.arange(3.0), np.zeros((3, 0)), 1, 1e-9) is None
    found = exact(np.arange(5.0), np.zeros((5, 0)), 1, 1e-9)
    assert found is not None
    assert found[0] == (0, 1, 0, 0, 0, 0, 1, 0)
    assert exact(rng.normal(size=30), np.zeros((30, 0)), 4, 1e-9) is None


# ---- seasons that are used, or said not to be


@pytest.mark.parametrize("kind", [SeasonalNaive, Theta, SARIMAX], ids=lambda kind: kind.alias)
@pytest.mark.parametrize(("season", "n"), [(168, 560), (365, 1095)])
def test_long_seasons_are_used(kind, season, n):
    t = np.arange(n + season)
    y = 10 + 3 * np.sin(2 * np.pi * t / season)
    noise = 0.3 * np.random.default_rng(0).normal(size=n)
    panel = make_panel([y[:n] + noise])
    engine = fitted(kind, panel, FitOptions(), season_length=season)
    mean = engine.marginals(engine.start(panel, 0), ahead(panel, season), LEVELS, 1, 0).mean[
        0, :, 0
    ]
    assert np.abs(mean - y[n:]).mean() < 0.5
    assert "season" not in str(engine.notes)


@pytest.mark.parametrize("kind", ENGINES[1:], ids=lambda kind: kind.alias)
def test_a_season_that_is_not_used_is_said_not_to_be(kind):
    rng = np.random.default_rng(0)
    t = np.arange(60)
    values = [
        np.cumsum(rng.normal(size=18)),  # fewer than two seasons
        np.where(t % 12 < 7, np.nan, np.cumsum(rng.normal(size=60))),  # most phases without value
        3 * np.sin(2 * np.pi * t / 12) + 0.1 * rng.normal(size=60),
    ]
    _, _, notes = forecast(kind, values, FitOptions(season_lengths=(12,)))
    assert "s2" not in notes
    if kind is SeasonalNaive:
        assert notes == {"s1": "7 of 12 phases of the season have no value: naive at those"}
    else:
        assert "without the season of 12" in notes["s0"]
        assert "18 rows are fewer than two seasons" in notes["s0"]
        assert "without the season of 12" in notes["s1"]
        assert "7 of its phases have fewer than two values" in notes["s1"]


def test_a_season_that_models_do_not_take_is_said_not_to_be():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=80)]
    assert forecast(ETS, noise)[2] == {
        "s0": "without the season of 4: the corrected AIC is less without one"
    }
    assert forecast(Theta, noise)[2] == {"s0": "without the season of 4: no autocorrelation at it"}
    many = [np.tile(rng.normal(size=24), 3)[:60] + rng.normal(size=60)]
    _, _, notes = forecast(ETS, many, FitOptions(season_lengths=(24,)))
    assert "without the season of 24" in notes["s0"]


def test_seasonal_naive_counts_the_rows_between_values():
    y = np.full(40, np.nan)
    y[20:29] = np.arange(9.0)
    _, _, notes = forecast(SeasonalNaive, [y], FitOptions(season_lengths=(12,)))
    assert notes == {"s0": "9 rows with values are fewer than a season of 12: naive"}


@each_fitted
def test_a_fallback_is_what_its_note_says(kind):
    rng = np.random.default_rng(0)
    t = np.arange(48)
    visits = np.where(np.isin(t, [1, 5, 18, 22, 31, 40, 44]), 100 + rng.normal(size=48), np.nan)
    constant = np.full(48, 5.0)
    fit_options = FitOptions(season_lengths=(12,))
    found, _, notes = forecast(kind, [visits, visits[:6], constant, visits[:2]], fit_options)
    plain, _, _ = forecast(Naive, [visits, visits[:6], constant, visits[:2]], FitOptions())
    assert (widths(found) < 50).all()  # of values within 5
    assert (np.abs(found[1, :2] - 100) < 5).all()
    assert "2 values are too few to fit: naive, without the season of 12" in notes["s1"]
    assert notes["s2"] == "it is constant: naive"
    assert notes["s3"].startswith("one value is too few to fit: naive")
    np.testing.assert_allclose(found[1, 1:], plain[1, 1:], rtol=1e-9)
    if kind is SARIMAX:
        assert "7 values are too few to fit: naive, without the season of 12" in notes["s0"]
        np.testing.assert_allclose(found[:, 0], plain[:, 0], rtol=1e-3)
    else:
        assert "7 of 44 rows have a value: a level alone" in notes["s0"]


def test_a_seasonal_order_without_a_season_is_said_to_be_left_out():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=60))
    holes = np.where(np.arange(60) % 12 < 7, np.nan, walk)
    options = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1)}
    panel = make_panel([holes, walk])
    engine = fitted(SARIMAX, panel, FitOptions(season_lengths=(12,)), **options)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, 12), LEVELS, 1, 0)
    assert (widths(marginals.quantiles[..., 0]) < 30).all()
    assert engine.notes == {
        "s0": "without the season of 12 (7 of its phases have fewer than two values)"
    }
    engine = fitted(SARIMAX, panel, FitOptions(), **options)
    assert "without seasonal_order (no season is known: give season_length)" in engine.notes["s1"]
    engine = fitted(SARIMAX, panel, FitOptions(season_lengths=(12,)), order=(0, 1, 1))
    assert not engine.notes


@each_engine
def test_a_few_other_rows_of_a_series_have_intervals_of_its_size(kind):
    t = np.arange(120)
    y = 100 + 5 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(0).normal(size=120)
    panel = make_panel([y])
    options = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1)} if kind is SARIMAX else {}
    engine = fitted(kind, panel, FitOptions(season_lengths=(12,)), **options)
    for rows in (1, 3):
        few = panel.tail(rows)
        state, future = engine.start(few, 0), ahead(few, 12)
        marginals = engine.marginals(state, future, LEVELS, 1, 0)
        assert (np.abs(marginals.mean - 100) < 20).all()
        assert (widths(marginals.quantiles) < 60).all()
        assert engine.paths(state, future, 200, 0).std(0).max() < 30


# ---- windows end at the last value


@each_fitted
@pytest.mark.parametrize("blank", [1, 250, 700])
def test_a_window_ends_at_the_last_value(kind, blank):
    rng = np.random.default_rng(0)
    y = 50 + 5 * np.sin(2 * np.pi * np.arange(300) / 4) + rng.normal(size=300)
    off = np.concatenate([y, np.full(blank, np.nan)])
    found, _, notes = forecast(kind, [off], h=4)
    assert not notes
    whole = make_panel([y])
    engine = fitted(kind, whole, QUARTERS, **({"max_rows": 200} if kind is SARIMAX else {}))
    marginals = engine.marginals(engine.start(whole, 0), ahead(whole, blank + 4), LEVELS, 1, 0)
    np.testing.assert_allclose(found[:, 0], marginals.quantiles[:, 0, -4:, 0], rtol=1e-6)


@each_fitted
def test_each_target_has_a_window_of_its_own(kind):
    rng = np.random.default_rng(0)
    a, b = 50 + 5 * np.sin(np.pi * np.arange(600) / 2)[:, None] + rng.normal(size=(2, 600, 1))
    a[300:], b[:20] = np.nan, np.nan
    options = {"order": (0, 0, 1), "max_rows": 100} if kind is SARIMAX else {}
    several, scores = [], []
    for y in (np.concatenate([a, b], axis=1), a, b):
        panel = make_panel([y])
        engine = fitted(kind, panel, QUARTERS, **options)
        several.append(
            engine.marginals(engine.start(panel, 0), ahead(panel, 4), LEVELS, 1, 0).quantiles
        )
        scores.append(np.nan_to_num(engine.score(panel, 0).log_score))
    np.testing.assert_allclose(several[0], np.concatenate(several[1:], axis=-1), rtol=1e-7)
    np.testing.assert_allclose(scores[0], scores[1] + scores[2], rtol=1e-6)


@each_fitted
def test_a_gap_before_the_last_values_hides_no_others(kind):
    rng = np.random.default_rng(0)
    y = 50 + rng.normal(size=1200)
    y[695:-5] = np.nan
    found, _, _ = forecast(kind, [y], FitOptions(), h=3)
    assert (np.abs(found[1] - 50) < 2).all()
    np.testing.assert_allclose(widths(found), 2.56, rtol=0.35)


def test_windows():
    n = np.nan
    y = np.array([n, 1, 2, n, 3, n, n, 4, n])
    assert window(y, 9) == slice(1, 8)
    assert window(y, 2) == slice(4, 8)
    assert window(y, 9, 4) == slice(4, 8)
    assert window(y, 9, 3) == slice(7, 8)
    assert window(np.full(3, n), 2) == slice(0, 0)


# ---- sparse series


def test_a_level_with_gaps_keeps_their_distribution():
    rng = np.random.default_rng(0)
    t = np.arange(1200)
    noise = np.where(t % 30 == 0, 1100 + 10 * rng.normal(size=1200), np.nan)
    level, alpha = smoothing_of_gaps(noise)
    assert abs(level - 1100) < 10
    assert alpha < 0.3
    walk = np.where(t % 5 == 0, np.cumsum(rng.normal(size=1200)), np.nan)
    assert smoothing_of_gaps(walk)[1] > 0.8
    for kind in (ETS, Theta):
        found, _, notes = forecast(kind, [noise], FitOptions(season_lengths=(7,)), h=1)
        assert abs(found[1, 0, 0] - 1100) < 10
        np.testing.assert_allclose(widths(found), 25.6, rtol=0.3)
        assert "40 of 1171 rows have a value: a level alone" in notes["s0"]


# ---- parts


def test_polish_finds_the_digits_of_a_minimum_and_stays_in_its_box():
    centre = np.array([0.3, -0.7, 2.0])

    def loss(x):
        away = x - centre
        return float(np.cosh(away).sum() + 0.3 * away[0] * away[1])

    far = np.full(3, 10.0)
    np.testing.assert_allclose(polish(loss, centre + 1e-2, -far, far), centre, atol=1e-9)
    found = polish(loss, np.array([0.3, -0.7, 1.0]), -far, np.array([10.0, 10.0, 1.0]))
    np.testing.assert_allclose(found, [0.3, -0.7, 1.0], atol=1e-9)
    start = np.array([0.5, 0.5])
    found = polish(lambda x: float(x[0] ** 2), start, -far[:2], far[:2])
    np.testing.assert_allclose(found, [0.0, 0.5], atol=1e-9)
    assert (polish(lambda x: np.nan, start, -far[:2], far[:2]) == start).all()
    corner = np.array([0.0])
    assert (polish(lambda x: float(x[0]), corner, corner, corner + 1) == corner).all()
    hill = polish(lambda x: float(np.cos(x[0])), np.array([1.5]), corner, np.array([3.0]))
    np.testing.assert_allclose(hill, 3.0)


def test_standard_series_have_ten_digits():
    y = np.random.default_rng(0).normal(3.0, 2.0, 50)
    a, b = Standard.of(y), Standard.of(1e-9 * y)
    np.testing.assert_array_equal(a.digits, b.digits)
    np.testing.assert_allclose(a.digits, a.y, atol=1e-10)
    np.testing.assert_allclose(a.shift + a.unit * a.y, y, rtol=1e-12)
