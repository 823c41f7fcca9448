"""Priors that can be drawn from: what the parts add up to, and that each is what it names."""

import inspect
import math

import pytest
import torch

from seqlatent import prior
from seqlatent.prior import (
    Autoregression,
    Grid,
    Level,
    LogUniform,
    LongSeason,
    Missing,
    Noise,
    Observation,
    Season,
    Signed,
    Slope,
    Sometimes,
    StructuralPrior,
    Uniform,
)

SEASONS = [(), (2,), (7,), (12,), (24, 168), (7, 365), (1000,)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(series=200, steps=60, season_lengths=(12,), seed=0, **parts):
    given = StructuralPrior(**parts)
    return given.sample(series, steps, season_lengths=season_lengths, generator=seeded(seed))


@pytest.mark.parametrize("season_lengths", SEASONS, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 75])
def test_components_add_up_and_all_is_finite(season_lengths, steps):
    found = drawn(300, steps, season_lengths)
    torch.testing.assert_close(torch.stack([*found.components.values()]).sum(0), found.signal)
    for values in (found.y, *found.components.values(), *found.parameters.values()):
        assert values.isfinite().all()
    assert found.y.shape == found.observed.shape == (300, steps)
    assert all(x.shape == (300,) for x in found.parameters.values())


def test_one_generator_says_all():
    one, same, other = drawn(), drawn(), drawn(seed=1)
    assert torch.equal(one.y, same.y)
    assert torch.equal(one.observed, same.observed)
    assert not torch.equal(one.y, other.y)


def test_nothing_global_is_touched():
    before = torch.get_rng_state()
    drawn(5)
    assert torch.equal(before, torch.get_rng_state())


def test_a_level_walks_by_its_scale():
    path, parameters, _ = Level(scale=LogUniform(0.1, 2.0), break_rate=0.0).sample(
        Grid(400, 800, generator=seeded())
    )
    found = path.diff(dim=1).std(1, keepdim=True) / parameters["scale"]
    torch.testing.assert_close(found, torch.ones_like(found), atol=0.12, rtol=0)


def test_breaks_come_as_often_as_they_are_said_to():
    path, *_ = Level(scale=0.0, break_rate=0.05, break_scale=3.0).sample(
        Grid(200, 500, generator=seeded())
    )
    steps = path.diff(dim=1)
    assert (steps != 0).float().mean().item() == pytest.approx(0.05, abs=0.004)
    assert steps[steps != 0].std().item() == pytest.approx(3.0, rel=0.05)


def test_a_slope_is_damped_towards_its_drift():
    path, p, _ = Slope(break_rate=0.0, scale=0.5, damping=Uniform(0.3, 0.9)).sample(
        Grid(300, 500, generator=seeded())
    )
    away = torch.diff(path, dim=1) - p["drift"]
    shocks = away[:, 1:] - p["damping"] * away[:, :-1]
    found = shocks.std(1)
    torch.testing.assert_close(found, torch.full_like(found, 0.5), atol=0.09, rtol=0)
    assert shocks.mean().item() == pytest.approx(0.0, abs=0.01)


def test_an_autoregression_has_its_variance():
    path, *_ = Autoregression(coefficient=0.8, scale=0.6).sample(Grid(300, 600, generator=seeded()))
    expected = 0.6 / math.sqrt(1 - 0.8**2)
    assert path[:, 50:].std().item() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_a_season_repeats_and_sums_to_zero(smooth):
    part = Season(amplitude=2.0, smooth=smooth, drift=0.0, growth=0.0).sample(
        Grid(50, 48, (12,), seeded())
    )
    torch.testing.assert_close(part.path[:, 12:], part.path[:, :-12])
    total = part.path[:, :12].sum(1)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-4, rtol=0)
    assert part.path.std(1).min() > 0


def test_a_season_may_break():
    part = Season(amplitude=1.0, drift=0.0, growth=0.0, break_rate=1.0).sample(
        Grid(20, 24, (12,), seeded())
    )
    torch.testing.assert_close(part.path[:, 12:], part.path[:, :12])  # from the first season on


def test_days_of_a_week_lift_all_their_hours():
    days = LongSeason(amplitude=1.0, weekend=0.0, pattern=0.0)
    path = days.sample(Grid(30, 24 * 14, (24, 168), seeded())).path
    torch.testing.assert_close(path[:, 168:], path[:, :168])
    # one jump a day at most, at the same hour of all days
    jumps = (path.diff(dim=1) != 0).nonzero()
    for i in range(30):
        assert len(set((jumps[jumps[:, 0] == i, 1] % 24).tolist())) == 1
    assert len({int(jumps[jumps[:, 0] == i, 1][0] % 24) for i in range(30)}) > 10


def test_a_weekend_is_two_days():
    week = LongSeason(amplitude=1.0, weekend=1.0, pattern=0.0)
    path = week.sample(Grid(30, 24 * 7, (24, 168), seeded())).path
    assert ((path != 0).sum(1) == 48).all()


def test_a_weekend_may_have_days_of_another_shape():
    week = LongSeason(amplitude=0.0, pattern=1.0)
    path = week.sample(Grid(30, 24 * 7, (24, 168), seeded())).path
    assert ((path != 0).sum(1) == 48).all()
    torch.testing.assert_close(path.sum(1), torch.zeros(30), atol=1e-4, rtol=0)  # no level


def test_a_year_over_weeks_is_slow():
    part = LongSeason(amplitude=1.0).sample(Grid(30, 730, (7, 365), seeded()))
    torch.testing.assert_close(part.path[:, 365:], part.path[:, :365], atol=1e-4, rtol=0)


def test_heavy_tails_are_heavier():
    light, heavy = (
        Noise(scale=1.0, heavy=h, volatility=0.0, outlier_rate=0.0).sample(
            Grid(200, 400, generator=seeded())
        )[0]
        for h in (0.0, 1.0)
    )
    kurtosis = [(x.pow(4).mean() / x.square().mean() ** 2).item() for x in (light, heavy)]
    assert kurtosis[0] == pytest.approx(3.0, abs=0.1)
    assert kurtosis[1] > 6


def test_a_local_level_has_the_autocovariances_of_one():
    found = drawn(
        400,
        600,
        (),
        components=[Level(scale=0.5, break_rate=0.0)],
        noise=Noise(scale=1.0, heavy=0.0, volatility=0.0, outlier_rate=0.0),
        observation=Observation(weights={"real": 1.0}, offset=0.0, whole=0.0),
        missing=Missing(cells=0.0, blocks=0.0),
    )
    change = found.y.diff(dim=1)
    assert change.var().item() == pytest.approx(0.25 + 2, rel=0.02)
    assert (change[:, 1:] * change[:, :-1]).mean().item() == pytest.approx(-1.0, rel=0.03)
    assert (change[:, 2:] * change[:, :-2]).mean().item() == pytest.approx(0.0, abs=0.02)
    assert found.observed.all()
    torch.testing.assert_close(found.y, found.signal)


KINDS = {
    "growth": lambda y: (y > 0).all(),
    "positive": lambda y: (y >= 0).all(),
    "poisson": lambda y: (y >= 0).all() and torch.equal(y, y.round()),
    "overdispersed": lambda y: (y >= 0).all() and torch.equal(y, y.round()),
    "intermittent": lambda y: (y == 0).float().mean() > 0.2 and torch.equal(y, y.round()),
    "share": lambda y: (y >= 0).all() and (y <= 1).all(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_keep_their_bounds(kind):
    found = drawn(200, observation=Observation(weights={kind: 1.0}, whole=0.0))
    assert set(found.kinds) == {kind}
    assert KINDS[kind](found.y)


def test_overdispersed_counts_are():
    y = drawn(
        2000,
        5,
        (),
        components=[Level(scale=0.0, break_rate=0.0)],
        noise=Noise(scale=1e-6, heavy=0.0, volatility=0.0, outlier_rate=0.0),
        observation=Observation(weights={"overdispersed": 1.0}, mean=4.0, dispersion=0.5),
    ).y
    assert y.mean().item() == pytest.approx(4.0, rel=0.03)
    assert y.var().item() == pytest.approx(4 + 0.5 * 16, rel=0.06)


def test_weights_are_those_asked_for():
    found = drawn(4000, 2, (), observation=Observation(weights={"real": 3.0, "poisson": 1.0}))
    assert found.kinds.count("real") == pytest.approx(3000, abs=110)
    assert set(found.kinds) == {"real", "poisson"}


def test_lengths_and_holes():
    grid = Grid(500, 40, generator=seeded())
    short = Missing(length=Uniform(0.1, 1.0), least=3, cells=0.0, blocks=0.0).sample(grid)
    assert short[:, -3:].all()
    assert (short.int().diff(dim=1) >= 0).all()  # a series begins once
    assert Missing(cells=0.25, blocks=0.0).sample(grid).float().mean().item() == pytest.approx(
        0.75, abs=0.01
    )
    holes = Missing(cells=0.0, blocks=0.03, block_length=5.0).sample(grid)
    assert 0.02 < (~holes).float().mean() < 0.3


def test_covariates_have_an_effect_that_is_told():
    u = torch.randn(50, 30, 2, generator=seeded(3))
    found = StructuralPrior(effect=Signed(2.0)).sample(50, 30, u=u, generator=seeded())
    size = torch.stack([found.parameters["effects.0"], found.parameters["effects.1"]], -1)
    torch.testing.assert_close(found.components["effects"], (u @ size[..., None])[..., 0])
    data = found.sequences()
    assert data.u.shape == (50, 30, 2)
    assert torch.equal(data.observed[..., 0], found.observed)


def test_sometimes_is_as_often_as_it_says():
    value = Sometimes(0.3, 2.0, 5.0).sample(5000, seeded())
    assert (value == 2).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert set(value.flatten().tolist()) == {2.0, 5.0}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LogUniform(0.0, 1.0), "0 < low <= high"),
        (lambda: Uniform(2.0, 1.0), "low <= high"),
        (lambda: Sometimes(1.5, 1.0), "probability"),
        (lambda: Observation(weights={"reel": 1.0}), "reel"),
        (lambda: Observation(weights={"real": 0.0}), "positive weight"),
        (lambda: StructuralPrior(components=[Level(), Level()]), "names of their own"),
        (lambda: StructuralPrior(components=[Level(name="noise")]), "noise"),
        (lambda: StructuralPrior().sample(0, 5), "series"),
        (lambda: inspect.unwrap(StructuralPrior.sample)(StructuralPrior(), 5, 2.5), "steps"),
        (lambda: StructuralPrior().sample(5, 5, season_lengths=(1,)), "season_lengths"),
        (lambda: StructuralPrior().sample(5, 5, season_lengths=(7, 30, 365)), "at most two"),
        (lambda: StructuralPrior().sample(5, 5, u=torch.zeros(4, 5, 1)), "u must have the shape"),
    ],
)
def test_what_is_no_prior_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_what_does_not_fit_is_refused_before_it_is_drawn():
    with pytest.raises(MemoryError, match="draw fewer"):
        StructuralPrior().sample(10**9, 10**6)


def test_all_parts_are_exported():
    assert set(prior.__all__) >= {"StructuralPrior", "Level", "Season", "Noise", "Observation"}
