"""Seasons of which some phases never have a value: no Fridays, no nights."""

import numpy as np
import pytest
from local_engines import LEVELS, ahead, fitted, make_panel

from seqlatent.forecasting.engines.baselines import ETS, SARIMAX, Theta
from seqlatent.forecasting.engines.baselines.orders import harmonics
from seqlatent.forecasting.engines.engine import FitOptions


def forecast(kind, values, season):
    """Quantiles ``(Q, N, season)`` of the next season, scores ``(R,)`` and notes."""
    panel = make_panel(list(values))
    options = {"max_rows": 500} if kind is SARIMAX else {}  # any, so that orders are searched
    engine = fitted(kind, panel, FitOptions(season_lengths=(season,)), **options)
    marginals = engine.marginals(engine.start(panel, 0), ahead(panel, season), LEVELS, 1, 0)
    return marginals.quantiles[..., 0], engine.score(panel, 0).log_score, engine.notes


def widths(quantiles):
    return quantiles[-1] - quantiles[0]


@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("kind", [ETS, Theta, SARIMAX], ids=lambda kind: kind.alias)
def test_a_phase_without_a_value_lies_between_its_neighbours(kind, slope, noise):
    """The other phases are forecast as those of a series that has them all."""
    t = np.arange(77)
    pattern = np.array([0.0, 3.0, 4.0, 5.0, 4.0, 3.0, -2.0])
    truth = 10 + slope * t + pattern[t % 7]
    y = truth + noise * np.random.default_rng(0).normal(size=77)
    values = [np.where(t % 7 == 4, np.nan, y)[:70], y[:70]]
    found, score, notes = forecast(kind, values, 7)
    others = t[70:] % 7 != 4
    ours, whole = found[1]
    assert np.abs(ours - whole)[others].max() < 0.01 + 3 * noise
    assert abs(ours[4] - (whole[3] + whole[5]) / 2) < 0.7
    np.testing.assert_allclose(*widths(found)[:, others], atol=0.01 + noise, rtol=0.5)
    if not slope:
        assert np.abs(ours - truth[70:])[others].max() < 0.01 + 3 * noise
    assert np.isfinite(score[14:70][np.isfinite(values[0][14:])]).all()
    assert notes == {"s0": "1 of 7 phases of the season have no value: as the others say"}


@pytest.mark.parametrize("blank", [range(8), range(0, 24, 3), range(10)])
def test_sines_and_cosines_leave_no_phase_to_chance(blank):
    """Hours without a value in a row are told from few waves: three are wild between."""
    t = np.arange(480)
    y = 20 + 5 * np.sin(2 * np.pi * t / 24) + 2 * np.random.default_rng(0).normal(size=480)
    y = np.where(np.isin(t % 24, blank), np.nan, y)
    found, _, notes = forecast(SARIMAX, [y], 24)
    assert (np.abs(found[1, 0] - 20 - 5 * np.sin(2 * np.pi * t[:24] / 24)) < 5).all()
    said = f"{len(blank)} of 24 phases of the season have no value: as the others say"
    assert notes == {"s0": said}


def test_harmonics():
    y = np.random.default_rng(0).normal(size=120)
    t = np.arange(120)
    assert harmonics(y, 24) == 3
    assert harmonics(np.where(t % 24 == 3, np.nan, y), 24) == 3
    assert harmonics(np.where(t % 24 < 4, np.nan, y), 24) == 2
    assert harmonics(np.where(t % 24 < 8, np.nan, y), 24) == 1
    assert harmonics(np.where(t % 24 < 11, np.nan, y), 24) == 1
