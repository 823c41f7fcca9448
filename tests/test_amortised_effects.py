"""Effects of covariates, learned from a panel beside networks."""

import dataclasses
import math

import pytest
import torch

from seqlatent.amortised import (
    Network,
    Seasons,
    effects,
    effects_of,
    forecast,
    load_networks,
    with_effects,
)
from seqlatent.amortised.effects import with_added
from seqlatent.amortised.quantiles import LEVELS

WEEK = Seasons(7)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def often(generator, rate, *shape):
    return (torch.rand(*shape, generator=generator, dtype=torch.float64) < rate).double()


def covariates(kind, series, steps, m, generator):
    """Covariates ``(B, T, U)`` and their mean effects, in units of the noise."""
    if kind == "holidays":
        u = often(generator, 0.06, 1, steps, 2).expand(series, -1, -1)
        return u, [10.0, -4.0]
    if kind == "promotions":
        return often(generator, 0.08, series, steps, 1), [10.0]
    if kind == "temperature":
        weather = normal(generator, 1, steps)
        for k in range(1, steps):
            weather[:, k] += 0.9 * weather[:, k - 1]
        year = 8 * torch.sin(2 * math.pi * torch.arange(steps) / m)
        return (15 + year + 2 * weather)[..., None].expand(series, -1, -1), [0.3]
    if kind == "shift":
        first = torch.rand(series, 1, generator=generator) * 0.8 + 0.1
        return (torch.arange(steps) >= first * steps).double()[..., None], [5.0]
    wild = normal(generator, series, steps, 2)
    return torch.cat([wild, often(generator, 0.05, series, steps, 1)], -1), [0.0, 0.0, 0.0]


def panel(kind, series=20, steps=200, m=7, *, seed=0, walk=0.1, missing=0.0, alike=0.3):
    """Values with seasons, walks, noise and effects; which are seen, covariates, effects, noise."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.exp(normal(g, series, 1))
    u, mean = covariates(kind, series, steps, m, g)
    effects = torch.tensor(mean, dtype=torch.float64) * (1 + alike * normal(g, series, len(mean)))
    season = 3 * normal(g, series, m)[:, torch.arange(steps) % m] * (m > 1)
    rest = 20 + season + walk * normal(g, series, steps).cumsum(1) + normal(g, series, steps)
    y = noise * (rest + (u @ effects[..., None])[..., 0])
    observed = torch.rand(series, steps, generator=g) >= missing
    y = torch.where(observed, y, torch.nan)
    return y, observed, u, effects * noise, noise


def learned(y, observed, u, seasons):
    return effects_of(y, observed, u, seasons).of(y, observed, u)


PANELS = {
    "weekly": {},
    "walks": {"walk": 1.0, "steps": 300},
    "holes": {"m": 12, "steps": 120, "missing": 0.2},
    "no season": {"m": 1, "walk": 0.3},
    "two series": {"series": 2},
    "many short ones": {"series": 200, "steps": 100, "missing": 0.1},
}


@pytest.mark.parametrize("kind", ["holidays", "promotions"])
@pytest.mark.parametrize("name", PANELS)
def test_strong_effects_are_found_within_a_tenth(kind, name):
    settings = PANELS[name]
    y, observed, u, truth, _ = panel(kind, **settings)
    found = learned(y, observed, u, Seasons(settings.get("m", 7)))
    strong, right = found[:, 0], truth[:, 0]  # ten times the noise
    assert (strong - right).abs().mean() < 0.1 * right.abs().mean()
    torch.testing.assert_close(strong.sum(), right.sum(), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", ["weekly", "holes", "two series", "many short ones"])
@pytest.mark.parametrize(("kind", "most"), [("temperature", 0.2), ("shift", 0.2)])
def test_drivers_and_shifts_are_found(kind, most, name):
    settings = PANELS[name]
    error = right = 0.0
    for seed in range(3):
        y, observed, u, truth, noise = panel(kind, seed=seed, **settings)
        found = learned(y, observed, u, Seasons(settings.get("m", 7)))
        error += ((found - truth) / noise).abs().mean()
        right += (truth / noise).abs().mean()
    assert error < most * right


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "alike"), [("holidays", 0.3), ("temperature", 0.2)])
def test_each_learns_from_all_and_from_itself(kind, alike):
    errors = {"own": 0.0, "pooled": 0.0, "alone": 0.0}
    for seed in range(5):
        y, observed, u, truth, noise = panel(
            kind, 12, steps=100, missing=0.2, seed=seed, alike=alike
        )
        effects = effects_of(y, observed, u, WEEK)
        pooled = dataclasses.replace(effects, between=torch.full_like(effects.between, 1e-12))
        each = [(y[i : i + 1], observed[i : i + 1], u[i : i + 1], WEEK) for i in range(len(y))]
        found = {
            "own": effects.of(y, observed, u),
            "pooled": pooled.of(y, observed, u),
            "alone": torch.cat([learned(*one) for one in each]),
        }
        for name, one in found.items():
            errors[name] += float(((one - truth) / noise).square().mean())
    assert errors["own"] < 0.9 * errors["alone"]
    assert errors["own"] < 0.9 * errors["pooled"]


@pytest.mark.parametrize("name", PANELS)
def test_useless_covariates_have_no_effect(name):
    settings = PANELS[name]
    size = 0.0
    for seed in range(3):
        y, observed, u, _, noise = panel("useless", seed=seed, **settings)
        found = learned(y, observed, u, Seasons(settings.get("m", 7)))
        size += float(((found / noise).abs() * u.std((0, 1))).mean()) / 3
    assert size < 0.1


def test_a_strong_effect_is_no_outlier_and_an_outlier_is_no_effect():
    y, observed, u, truth, noise = panel("promotions")
    wild = torch.rand(y.shape, generator=torch.Generator().manual_seed(5)) < 0.02
    y = torch.where(wild, y + 40 * noise, y)
    found = learned(y, observed, u, WEEK)
    assert (found - truth).abs().mean() < 0.05 * truth.abs().mean()


def test_values_that_move_on_few_days_alone_have_effects():
    u = often(torch.Generator().manual_seed(0), 0.05, 4, 200, 1)
    observed = torch.ones(4, 200, dtype=torch.bool)
    found = learned(7 + 30 * u[..., 0], observed, u, WEEK)
    torch.testing.assert_close(found, torch.full_like(found, 30.0), rtol=0.01, atol=0)


@pytest.mark.parametrize("factor", [-1e-6, 3.0, 1e8])
def test_effects_are_in_the_units_of_values(factor):
    y, observed, u, _, _ = panel("holidays", series=6, missing=0.1)
    found = learned(y * factor + 5 * factor, observed, u, WEEK)
    torch.testing.assert_close(found, factor * learned(y, observed, u, WEEK), rtol=1e-6, atol=0)


def test_effects_are_per_unit_of_covariates():
    y, observed, u, _, _ = panel("temperature", series=6)
    found = learned(y, observed, 1e5 + 1e4 * u, WEEK)
    torch.testing.assert_close(1e4 * found, learned(y, observed, u, WEEK), rtol=1e-6, atol=1e-12)


def test_what_is_not_seen_is_not_read():
    y, observed, u, _, _ = panel("promotions", series=5, missing=0.3)
    effects = effects_of(y, observed, u, WEEK)
    hidden = torch.where(observed[..., None], u, torch.nan)
    same = effects_of(torch.where(observed, y, 1e300), observed, hidden, WEEK)
    torch.testing.assert_close(same.of(y, observed, hidden), effects.of(y, observed, u))
    values = [v for v in vars(same).values() if isinstance(v, torch.Tensor)]
    assert all(bool(v.isfinite().all()) for v in values)


def test_constant_and_repeated_covariates_share_what_there_is():
    y, observed, u, _, noise = panel("promotions", series=8)
    many = torch.cat([u, u, 1 - u, torch.full_like(u, 3.0)], -1)
    effects = effects_of(y, observed, many, WEEK)
    own = effects.of(y, observed, many)
    assert own.isfinite().all()
    assert (own[:, 3] == 0).all()
    one = effects_of(y, observed, u, WEEK)
    together = effects.added(own, many)
    alone = one.added(one.of(y, observed, u), u)
    assert ((together - alone) / noise).abs().max() < 0.3


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_series_that_say_nothing_have_the_effects_of_all_or_none(steps):
    y = torch.arange(3.0 * steps, dtype=torch.float64).reshape(3, steps).round()
    y[1] = 4.0
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[2] = False
    own = learned(y, observed, normal(torch.Generator().manual_seed(0), 3, steps, 2), WEEK)
    assert own.isfinite().all()
    assert (own[1:] == 0).all()


def test_single_precision_and_whole_covariates_do():
    y, observed, u, truth, _ = panel("promotions")
    found = learned(y.float(), observed, u.bool(), WEEK)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, learned(y, observed, u, WEEK).float(), rtol=1e-3, atol=1e-3)
    assert (found - truth).abs().mean() < 0.1 * truth.abs().mean()


def test_useful_effects_are_kept():
    for kind in ("promotions", "holidays"):
        y, observed, u, _, _ = panel(kind, series=12, steps=120, missing=0.1)
        kept = with_effects(load_networks(), y, observed, u, WEEK, 14)
        assert kept is not None
        whole = effects_of(y, observed, u, WEEK)
        assert torch.equal(kept.shared, whole.shared)


def test_useless_effects_are_refused():
    refused = 0
    for seed in range(10):
        y, observed, u, _, _ = panel("useless", series=12, steps=120, seed=seed)
        refused += with_effects(load_networks(), y, observed, u, WEEK, 14) is None
    assert refused >= 7


def test_hidden_values_never_matter_to_whether_effects_are_kept():
    y, observed, u, _, _ = panel("promotions", series=6, steps=120, missing=0.2)
    networks = [Network(width=16, head_width=16, depth=1)]
    one = with_effects(networks, y, observed, u, WEEK, 14)
    hidden = torch.where(observed[..., None], u, torch.nan)
    other = with_effects(networks, torch.where(observed, y, 1e300), observed, hidden, WEEK, 14)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one.shared, other.shared)


def test_a_past_too_short_for_blocks_keeps_no_effects():
    y, observed, u, _, _ = panel("promotions", series=2, steps=20)
    assert with_effects(load_networks(), y, observed, u, WEEK, 14) is None


def test_some_of_many_series_teach_effects(monkeypatch):
    y, observed, u, truth, _ = panel("promotions", series=60)
    whole = effects_of(y, observed, u, WEEK)
    monkeypatch.setattr(effects, "_ENOUGH", u[:20].numel())
    some = effects_of(y, observed, u, WEEK)
    assert 0 < (some.shared - whole.shared).abs().max() < 0.1 * whole.shared.abs().max()
    found = some.of(y, observed, u)
    assert (found - truth).abs().mean() < 0.05 * truth.abs().mean()


def test_short_series_have_effects_in_units_of_their_size():
    y, observed, u, truth, _ = panel("promotions", series=40)
    learned_of = effects_of(y, observed, u, WEEK)
    last = torch.arange(y.shape[1]) >= y.shape[1] - 3
    found = learned_of.of(y, observed & last, u)
    ratio = truth.mean() / y.abs().mean()
    assert found.amin() > 0
    size = (y.abs() * last).sum(1, keepdim=True) / last.sum()
    torch.testing.assert_close(found.mean(), (ratio * size).mean(), rtol=0.4, atol=0)
    torch.testing.assert_close(learned_of.of(3 * y, observed & last, u), 3 * found)


def test_what_is_added_moves_quantiles_and_keeps_the_floor():
    y, observed, u, _, _ = panel("promotions", series=4, steps=120)
    y = (y - y.amin(1, keepdim=True)).round()
    effects = effects_of(y, observed, u, WEEK)
    own = effects.of(y, observed, u)
    rest = forecast(load_networks(), y - effects.added(own, u), observed, WEEK, range(1, 8))
    added = effects.added(own, u[:, -7:])
    found = with_added(rest, added, y, observed)
    low = rest.marginals.at(torch.full((4, 7), -1.0, dtype=torch.float64)) + added
    at = found.marginals.at(torch.full((4, 7), -1.0, dtype=torch.float64))
    torch.testing.assert_close(at, low.round().clamp_min(0))
    assert found.marginals.knots.shape == (4, 7, len(LEVELS))
    assert (found.marginals.mean() >= 0).all()
    assert found.sample(50, torch.Generator().manual_seed(0)).amin() >= 0
