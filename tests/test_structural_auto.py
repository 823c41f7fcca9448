"""The automatic structural forecaster: specifications, their weights, the report of a choice."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from mixtures import mixture_quantiles

from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.engines.latent.recipes import structural
from seqlatent.forecasting.engines.structural import (
    Specification,
    Stacking,
    candidates,
    fit_structural,
    specification_of,
)
from seqlatent.forecasting.engines.structural.mixtures import crps_products, log_densities, ranks
from seqlatent.forecasting.engines.structural.rows import hidden, prepared, without_end
from seqlatent.forecasting.engines.structural.specifications import seasons_of
from seqlatent.forecasting.engines.structural.stacking import (
    Block,
    by_heldout,
    by_information,
    calibration_factor,
    without,
)
from seqlatent.model import moments


def noise(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def lines(batch=12, steps=24, *, seed=0):
    """Series that grow by a constant, with noise around it."""
    slope = 1 + 0.2 * noise(batch, 1, seed=seed)
    t = torch.arange(steps, dtype=torch.float64)
    return 50 + slope * t + 0.3 * noise(batch, steps, seed=seed + 1)


def frame(y):
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(len(y))], y.shape[1]),
            "ds": np.tile(pd.date_range("2020-01-01", periods=y.shape[1], freq="D"), len(y)),
            "y": y.numpy().ravel(),
        }
    )


# --- Forms ---------------------------------------------------------------------------------------


def test_specifications_follow_what_the_panel_allows():
    names = [specification.name for specification in candidates(12, longest=60, positive=True)]
    assert names == [
        "damped, season 12",
        "drift, season 12",
        "reverting, season 12",
        "log damped, season 12",
        "log drift, season 12",
    ]
    short = candidates(12, longest=23, positive=False)
    assert [specification.name for specification in short] == ["damped", "drift", "reverting"]
    assert candidates((24, 168), longest=400, positive=True)[0].seasons == ((24, 12), (168, 6))
    assert "23 values" in seasons_of(12, 23)[1]


def test_specifications_in_words_get_seasons_unless_told_otherwise():
    specifications = candidates(
        4,
        longest=40,
        positive=True,
        specifications=[
            "level",
            "log drift, fixed season",
            "smooth, no season",
            Specification("trend"),
        ],
    )
    assert [specification.name for specification in specifications] == [
        "level, season 4",
        "log drift, fixed season 4",
        "smooth",
        "trend",
    ]
    assert specifications[1].model(2).transition.latent_dim == 5


@pytest.mark.parametrize(
    "trend",
    [
        "level",
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in ("drift", "damped", "smooth", "trend", "reverting")
        ),
    ],
)
def test_every_trend_forecasts(trend):
    y = lines(2, 8)
    fitted = fit_structural(
        y, 1, 2, specifications=[trend], calibrate=False, draws=1, criterion="equal"
    )
    assert bool(torch.isfinite(fitted.histories[trend].evidence).all())
    assert fitted.stacking.reasons == ("the only one",)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Specification("cubic"), "trend must be one of 'level'"),
        (lambda: specification_of("cubic"), "found 'cubic'"),
        (lambda: specification_of("level, hot season"), "fixed season"),
        (
            lambda: candidates(1, longest=9, positive=False, specifications=["log level"]),
            "not positive",
        ),
        (lambda: candidates(1, longest=9, positive=True, specifications="level"), "must be a list"),
        (lambda: candidates(1, longest=9, positive=True, specifications=[]), "at least one"),
        (lambda: structural("level"), "'auto' or a list"),
        (lambda: structural(specifications=["level", "up"]), "found 'up'"),
        (lambda: structural(criterion="cv"), "criterion must be one of 'heldout'"),
        (lambda: fit_structural(torch.zeros(2, 9), criterion="cv"), "found 'cv'"),
    ],
)
def test_errors_teach(make, match):
    with pytest.raises(ValueError, match=match):
        make()


# --- Mixtures ------------------------------------------------------------------------------------


def test_the_crps_of_a_mixture_is_that_of_its_draws():
    y, mean, variance = noise(5), noise(2, 1, 5, seed=1), noise(2, 1, 5, seed=2).exp()
    log = [False, True]
    A, b, c = crps_products(y.exp(), mean, variance, log)
    w = torch.tensor([0.3, 0.7], dtype=torch.float64)
    found = torch.einsum("i,ijn,j->n", w, A, w) - 2 * w @ b + c
    levels = ((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000).tolist()
    q = mixture_quantiles(mean[:, 0], variance[:, 0], log, levels, w)
    level = torch.tensor(levels, dtype=torch.float64)
    error = y.exp()[:, None] - q
    expected = 2 * torch.maximum(level * error, (level - 1) * error).mean(-1)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3)


def test_the_crps_of_a_normal_has_its_closed_form():
    y, scale = noise(6), torch.full((6,), 0.7, dtype=torch.float64)
    A, b, c = crps_products(y, torch.zeros(1, 1, 6).double(), scale.square()[None, None], [False])
    z = y / scale
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    expected = scale * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    torch.testing.assert_close(A[0, 0] - 2 * b[0] + c, expected, rtol=0.02, atol=1e-3)


def test_an_exploding_form_leaves_the_products_finite():
    mean = torch.tensor([[[0.0]], [[500.0]]], dtype=torch.float64)
    A, b, c = crps_products(
        torch.ones(1).double(), mean, torch.ones_like(mean) * 1e4, [False, True]
    )
    assert all(bool(x.isfinite().all()) for x in (A, b, c))


def test_weighted_ranks_and_quantiles_agree():
    mean, variance = noise(2, 4), noise(2, 4, seed=1).exp()
    w = torch.tensor([0.2, 0.8], dtype=torch.float64)
    q = mixture_quantiles(mean, variance, [False, True], [0.3], w)[:, 0]
    torch.testing.assert_close(
        ranks(q, mean, variance, [False, True], w), torch.full((4,), 0.3).double()
    )


def test_densities_are_those_of_torch():
    y, mean, variance = noise(3).exp(), noise(2, 3, seed=1), noise(2, 3, seed=2).exp()
    found = log_densities(y, mean, variance, [False, True])
    kinds = torch.distributions.Normal, torch.distributions.LogNormal
    for i, kind in enumerate(kinds):
        expected = kind(mean[i], variance[i].sqrt(), validate_args=False).log_prob(y)
        torch.testing.assert_close(found[i], expected)


# --- Choices -------------------------------------------------------------------------------------


def block(batch=200, *, bias=(0.0, 0.0), spread=1.0):
    y = noise(batch, 3)
    mean = torch.stack([torch.full_like(y, x) for x in bias])[:, None]
    return Block(y, mean, torch.full_like(mean, spread**2), torch.ones(batch).double())


def test_a_biased_form_loses_its_share_and_few_series_keep_equal_ones():
    many, scores = by_heldout([block(bias=(0.0, 3.0))], [False, False])
    few, _ = by_heldout([block(2, bias=(0.0, 3.0))], [False, False])
    assert many.sum().item() == pytest.approx(1.0)
    assert many[0] > 0.9
    assert 0.5 < few[0] < many[0]
    assert scores is not None
    assert scores.crps[0] < scores.crps[1]
    assert scores.best[0] > 0.9
    same, _ = by_heldout([block()], [False, False])
    torch.testing.assert_close(same, torch.full((2,), 0.5).double(), rtol=1e-4, atol=0)


def test_blocks_without_values_say_nothing():
    empty = block(2)._replace(y=torch.full((2, 3), torch.nan).double())
    weights, scores = by_heldout([empty], [False, False])
    assert weights.tolist() == [0.5, 0.5]
    assert scores is None
    assert calibration_factor([empty], [False, False], weights.expand(2, -1)) == 1.0


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.2, 2.0])
def test_widths_are_calibrated_to_what_was_seen(spread):
    b = block(2000, spread=spread)
    weights = torch.full((2000, 2), 0.5).double()
    assert calibration_factor([b], [False, False], weights) == pytest.approx(1 / spread, rel=0.05)


def test_the_ends_of_few_series_count_as_many_series_do():
    """Widths of one series that is forecast too wide at each of its ends become narrower."""
    ends = [block(1, spread=2.0)._replace(y=noise(1, 3, seed=i)) for i in range(12)]
    weights = torch.full((1, 2), 0.5).double()
    assert calibration_factor(ends, [False, False], weights) < 0.85
    assert calibration_factor(ends[:2], [False, False], weights) > 0.85


def test_information_criteria_weigh_fit_against_size():
    evidence = torch.tensor([[-10.0, -8.5], [-10.0, -5.0]], dtype=torch.float64)
    count = torch.tensor([40, 40])
    aic, total = by_information(evidence, [2, 4], count, "aic")
    bic, _ = by_information(evidence, [2, 4], count, "bic")
    assert total.tolist() == [48.0, 43.0]
    torch.testing.assert_close(aic.sum(1), torch.ones(2).double())
    assert aic[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert bic[0, 0] > aic[0, 0]
    assert aic[1, 1] > 0.9


def test_blocks_follow_each_other():
    y = torch.arange(12.0).double()[None]
    whole = prepared(y, 1, 400)
    short = without_end(whole, 3)
    assert hidden(whole, short, 3).tolist() == [[9.0, 10.0, 11.0]]
    assert hidden(short, without_end(short, 3), 3).tolist() == [[6.0, 7.0, 8.0]]


@pytest.mark.parametrize("offset", [1e6, 1e9])
@pytest.mark.slow
def test_an_offset_changes_no_width(offset):
    y = noise(2, 20).cumsum(1)
    widths = []
    for shift in (0.0, offset):
        fitted = fit_structural(y + shift, 1, 4, draws=1, calibrate=False, criterion="equal")
        assert fitted.stacking.specifications == ("damped", "drift", "reverting")
        widths.append(quantiles(fitted, y + shift, 4, [0.1, 0.9]).diff(dim=-1))
    torch.testing.assert_close(*widths, rtol=0.01, atol=0)


@pytest.mark.parametrize("unit", [1e-9, pytest.param(1e12, marks=pytest.mark.slow)])
def test_a_unit_scales_forecasts(unit):
    y = 10 + noise(3, 30).cumsum(1)
    y[2, 3:] = torch.nan
    y[1, ::2] = torch.nan
    one, other = (
        quantiles(fit_structural(x, 1, 4, specifications=["level"], draws=1), x, 4, [0.1, 0.5, 0.9])
        for x in (y, y * unit)
    )
    torch.testing.assert_close(other / unit, one, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_what_returns_to_its_level_is_not_forecast_as_a_walk():
    e = noise(4, 120, seed=3)
    y = torch.zeros_like(e)
    for t in range(1, e.shape[1]):
        y[:, t] = 0.8 * y[:, t - 1] + e[:, t]
    right = 2 * 1.2816 / (1 - 0.8**2) ** 0.5
    width = {}
    for trend in ("level", "reverting"):
        fitted = fit_structural(y, 1, 24, specifications=[trend], draws=1, calibrate=False)
        width[trend] = quantiles(fitted, y, 24, [0.1, 0.9]).diff(dim=-1)[:, -1].mean().item()
    assert width["reverting"] == pytest.approx(right, rel=0.25)
    assert width["level"] > 1.5 * right


def test_logarithms_of_which_a_series_tells_little_have_no_share_in_it():
    weights = torch.tensor([[0.5, 0.3, 0.2]] * 2, dtype=torch.float64)
    tells = torch.tensor([[True, False, True], [False, False, False]])
    found = without(weights, tells)
    torch.testing.assert_close(found[0], torch.tensor([5, 0, 2]).double() / 7)
    assert found[1].tolist() == [0.5, 0.3, 0.2]


@pytest.mark.slow
def test_the_mean_of_a_few_values_is_of_their_size():
    y = (100 * (0.8 * noise(1, 48, seed=3)).exp()).where(torch.arange(48) % 7 == 3, torch.nan)
    fitted = fit_structural(
        y, 1, 12, specifications=["level", "log drift"], draws=1, calibrate=False
    )
    mean, variance = moments_of(fitted, y, 12)
    log = torch.tensor([m.log for m in fitted.members])[:, None, None]
    each = torch.where(log, (mean + variance / 2).exp(), mean)
    average = (fitted.weights.mT[:, :, None] * each).sum(0)
    assert average.max() < 3 * y.nan_to_num(0.0).max()


def moments_of(fitted, y, horizon):
    rows = fitted.prepare(y)
    found = [
        moments(m.model, m.model.belief(m.sequences(rows), end=False), horizon)
        for m in fitted.members
    ]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    return mean, variance


def quantiles(fitted, y, horizon, levels):
    mean, variance = moments_of(fitted, y, horizon)
    log = [m.log for m in fitted.members]
    return mixture_quantiles(mean, variance, log, levels, fitted.weights.mT[:, :, None])


@pytest.mark.slow
def test_what_grows_is_no_level_and_the_report_says_so():
    fitted = fit_structural(lines(), 1, 6, specifications=["level", "drift"], draws=1)
    level, drift = fitted.stacking.weights
    assert drift > level
    assert fitted.weights.shape == (12, 2)
    text = str(fitted.stacking)
    assert "drift" in text
    assert "least CRPS" in text
    assert "% above" in text
    assert set(fitted.stacking.scores) == {"CRPS", "-log score"}
    plain = json.loads(json.dumps(fitted.stacking.to_dict()))
    assert Stacking.from_dict(plain) == fitted.stacking


@pytest.mark.parametrize("criterion", ["aic", "bic"])
@pytest.mark.slow
def test_a_criterion_gives_each_series_its_own_weights(criterion):
    y = lines(6)
    y[:3] = 50 + noise(3, 24, seed=5)
    fitted = fit_structural(
        y, 1, 6, specifications=["level", "drift"], criterion=criterion, draws=1, calibrate=False
    )
    assert (fitted.weights[:3, 0] > fitted.weights[3:, 0].max()).all()
    assert criterion.upper() in fitted.stacking.scores
    assert "% of the series" in fitted.stacking.reasons[0]


def test_logarithms_are_left_out_with_a_reason_where_values_are_not_positive():
    y = lines(2, 9)
    y[0, 0] = 0.0
    fitted = fit_structural(y, 12, 2, criterion="equal", calibrate=False, draws=1)
    assert [m.specification.log for m in fitted.members] == [False] * 3
    assert len(fitted.stacking.left_out) == 2
    assert "left out: no season of 12" in str(fitted.stacking)
    assert fitted.stacking.weights == pytest.approx((1 / 3,) * 3)


# --- Behind a forecaster -------------------------------------------------------------------------


def test_a_forecaster_reports_and_remembers_its_choice(tmp_path):
    spec = structural(["drift", "log level"], draws=1)
    model = Forecaster(spec, freq="D", season_length=1).fit(frame(lines(4, 15)))
    report = model.report()
    assert report.specifications == ("drift", "log level")
    assert sum(report.weights) == pytest.approx(1.0)
    model.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.report() == report
    pd.testing.assert_frame_equal(loaded.predict(3), model.predict(3))


def test_a_report_of_what_chose_nothing_teaches():
    model = Forecaster("naive", freq="D").fit(frame(lines(2, 9)))
    with pytest.raises(ValueError, match="found None"):
        model.report()


def test_the_plain_name_is_the_automatic_form():
    assert spec_of("structural").train == structural("auto").train


@pytest.mark.slow
def test_several_seasons_run():
    t = torch.arange(60.0).double()
    y = 10 + torch.sin(2 * math.pi * t / 4) + torch.cos(2 * math.pi * t / 12) + 0.1 * noise(2, 60)
    fitted = fit_structural(y, (4, 12), 4, specifications=["level"], draws=1, criterion="equal")
    assert fitted.stacking.specifications == ("level, season 4, season 12",)
