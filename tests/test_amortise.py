"""Forecasters of one's own prior: what they learn, what they refuse, what a file keeps."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.amortised import (
    Adaptation,
    Curriculum,
    Network,
    Rehearsal,
    Seasons,
    Trainer,
    context_of,
    forecast,
)
from seqlatent.amortised.adaptation import block_loss
from seqlatent.forecasting import Amortised, ArgumentError, Forecaster, amortise
from seqlatent.prior import (
    ComponentPrior,
    Cycle,
    Grid,
    Level,
    LogUniform,
    Missing,
    Noise,
    Observation,
    Part,
    StructuralPrior,
    Uniform,
)
from seqlatent.training import Deadline

SMALL = {"width": 16, "depth": 1, "head_width": 8, "head_depth": 1, "factors": 2}
REAL = Observation(weights={"real": 1.0}, offset=0.0, whole=0.0)
NOISE = Noise(scale=0.5, heavy=0.0, volatility=0.0, outlier_rate=0.0)
CALM = StructuralPrior(
    components=[Level(scale=0.1, break_rate=0.0)], noise=NOISE, observation=REAL, missing=Missing()
)
OSCILLATOR = CALM.replace(components=[Cycle(period=Uniform(9.0, 11.0), damping=Uniform(0.97, 1.0))])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(**SMALL).eval()


def trained(prior=OSCILLATOR, **options) -> Amortised:
    return amortise(prior, **{"steps": 2, "horizon": 6, "start": small(), **options})


def frame(prior=OSCILLATOR, series=6, rows=60, seed=1):
    y = prior.sample(series, rows, generator=seeded(seed)).y.double().numpy()
    ds = pd.date_range("2024-01-01", periods=rows)
    parts = [pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": v}) for i, v in enumerate(y)]
    return pd.concat(parts, ignore_index=True)


def network_of(engine):
    assert engine.own is not None
    return engine.own[0]


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


# --- cycle -------------------------------------------------------------------------------------


def test_a_cycle_is_stationary_and_turns_with_its_period():
    part = Cycle(period=8.0, damping=0.9, amplitude=2.0).sample(Grid(20_000, 20, (), seeded()))
    path = part.path
    torch.testing.assert_close(path.std(0), torch.full((20,), 2.0), atol=0.05, rtol=0)
    for lag in (1, 4, 8):
        found = (path[:, lag:] * path[:, :-lag]).mean() / 4
        expected = 0.9**lag * math.cos(2 * math.pi * lag / 8)
        assert found.item() == pytest.approx(expected, abs=0.02)
    assert set(part.parameters) == {"period", "damping", "amplitude"}


def test_an_undamped_cycle_is_a_wave():
    part = Cycle(period=Uniform(5.0, 30.0), damping=1.0).sample(Grid(50, 40, (), seeded()))
    path, turn = part.path.double(), torch.cos(2 * math.pi / part.parameters["period"].double())
    left = path[:, 2:] - 2 * turn * path[:, 1:-1] + path[:, :-2]
    assert left.abs().max() < 1e-3


# --- training ----------------------------------------------------------------------------------


def held_out(network, prior):
    curriculum = Curriculum(prior, {Seasons(1): 1.0}, horizon=6)
    batch = curriculum.draw(seeded(50), batch=300, leads=range(1, 7))
    found = forecast([network], batch.y, batch.observed, batch.seasons, batch.leads)
    return block_loss(found.marginals, batch)


@pytest.mark.slow
def test_what_is_learned_is_the_prior():
    one, other = (network_of(trained(prior, steps=200)) for prior in (OSCILLATOR, CALM))
    untrained = held_out(small(), OSCILLATOR)
    assert held_out(one, OSCILLATOR) < untrained - 0.1
    assert held_out(one, OSCILLATOR) < held_out(other, OSCILLATOR) - 0.1
    assert held_out(other, CALM) < held_out(one, CALM) - 0.1


def test_a_seed_says_all_of_steps():
    before = torch.get_rng_state()
    one, again, other = (trained(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert same(network_of(one), network_of(again))
    assert not same(network_of(one), network_of(other))


def test_the_network_that_is_trained_on_stays_as_it_is():
    start = small()
    engine = trained(start=start)
    assert same(start, small())
    assert not same(network_of(engine), start)


class _Clock:
    """A second each time that it is asked."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_a_deadline_ends_the_training_and_the_rate_falls_by_it():
    curriculum = Curriculum(CALM, {Seasons(1): 1.0}, batch=8)
    trainer = Trainer(curriculum, steps=10**9, network=SMALL)
    clock = _Clock()
    deadline, rates = Deadline(60.0, clock), []

    def report(trainer):
        rates.append(trainer.optimiser.param_groups[0]["lr"] / min(1, trainer.step / 300))

    trainer.run(every=1, report=report, deadline=deadline)
    assert 5 < trainer.step < 60
    assert clock.now <= 70
    assert rates[0] > 0.9e-3
    assert rates[-1] < 0.1e-3
    assert rates == sorted(rates, reverse=True)


def test_minutes_are_a_deadline(monkeypatch):
    given = []

    def run(trainer, *, deadline, **_):
        given.append((trainer.steps, deadline.total, deadline.spent))
        return trainer.network

    monkeypatch.setattr(Trainer, "run", run)
    trained(steps=None, minutes=50.0)
    trained(minutes=50.0, steps=7)
    (_, total, spent), (steps, never, _) = given
    assert total == pytest.approx(3000.0)
    assert spent > 0  # what was drawn before counts
    assert (steps, never) == (7, math.inf)


def test_a_bar_shows_steps(capsys):
    trained(progress=True, steps=21)
    assert "21/21" in capsys.readouterr().err


def test_leads_beyond_what_is_asked_for_are_not_drawn():
    curriculum = Curriculum(CALM, {Seasons(12): 1.0}, horizon=5)
    for seed in range(20):
        assert curriculum.draw(seeded(seed), batch=2).leads.tolist() == [1, 2, 3, 4, 5]


# --- rehearsal ---------------------------------------------------------------------------------


def test_kept_series_are_those_of_the_curriculum():
    curriculum = Curriculum(CALM, {Seasons(12): 1.0}, horizon=5)
    kept = Rehearsal.of(curriculum, Seasons(12), seeded(), series=7)
    assert kept.y.shape == kept.observed.shape == (7, context_of(Seasons(12)))
    assert kept.future.shape == (7, 5)
    batch = kept.draw(seeded(), Seasons(12), 40, [1, 3, 9])
    assert batch.y.shape == (40, kept.y.shape[1])
    assert batch.seen.tolist() == [[True, True, False]] * 40
    where = (batch.y[:, None] == kept.y).all(-1)
    assert where.any(1).all()
    torch.testing.assert_close(batch.future[:, 1], kept.future[where.int().argmax(1), 2])


def test_kept_series_know_no_other_seasons():
    kept = Rehearsal.of(Curriculum(CALM), Seasons(12), seeded(), series=3)
    with pytest.raises(ValueError, match=r"have seasons \(12, 0\), found \(7, 0\)"):
        kept.draw(seeded(), Seasons(7))


# --- behind a forecaster -----------------------------------------------------------------------

FEW = Adaptation(steps=4, batch=16, drawn=16)


def test_it_adapts_with_series_of_its_own_prior(monkeypatch):
    def never(*_, **__):
        raise AssertionError("series of the package's prior were drawn")

    engine = trained(adapt=FEW)
    monkeypatch.setattr(Curriculum, "draw", never)
    model = Forecaster(engine, season_length=1).fit(frame())
    fitted: Any = model._engines["amortised"]
    assert fitted.summary["losses"]


def test_a_saved_one_is_the_same_and_adapts_the_same(tmp_path):
    model = Forecaster(trained(adapt=FEW), season_length=1, seed=2).fit(frame())
    model.save(tmp_path)
    loaded = Forecaster.load(tmp_path)
    assert loaded.predict(5, level=[80]).equals(model.predict(5, level=[80]))
    other = frame(seed=9)
    pd.testing.assert_frame_equal(loaded.fit(other).predict(5), model.fit(other).predict(5))


def test_seasons_that_were_not_trained_are_refused():
    with pytest.raises(ArgumentError, match=r"season_length=\[1\], found \[7\]"):
        Forecaster(trained()).fit(frame())


# --- bad input ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(ComponentPrior):
    """Overflows at a step of a few series."""

    value: float = math.nan
    name: str = "broken"

    def sample(self, grid: Grid) -> Part:
        path = torch.zeros(grid.series, grid.steps)
        path[3, 5] = self.value
        return Part(path, {"odd": torch.arange(grid.series)[:, None].double()})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e35])
def test_a_draw_that_is_no_number_is_shown(value):
    prior = CALM.replace(components=[Level(), Broken(value)])
    with pytest.raises(
        ValueError, match=r"at step 5 of 166, by component broken: series 3 of kind 'real'.*odd=3"
    ):
        trained(prior)


def test_an_observation_that_overflows_is_shown():
    prior = CALM.replace(
        components=[Level(scale=0.0, break_rate=0.0)], noise=Noise(scale=1e31, heavy=0.0)
    )
    with pytest.raises(ValueError, match="by component noise: series 0"):
        trained(prior)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (
            {"noise": Noise(scale=0.0), "components": [Level(scale=0.0, break_rate=0.0)]},
            r"one number at all 166 steps of each of 256 series, such as 0,.*level.scale=0",
        ),
        ({"missing": Missing(cells=1.0)}, "hides all but 0 values of each of 256 series"),
    ],
)
def test_a_prior_that_says_nothing_is_refused(parts, match):
    with pytest.raises(ValueError, match=match):
        trained(CALM.replace(**parts))


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"minutes": 0.0, "steps": None},
        {"minutes": math.inf, "steps": None},
        {"horizon": 0},
        {"season_length": [4, 12, 365]},
        {"season_length": 0},
        {"seed": -1},
        {"progress": "yes"},
        {"start": [small()]},
        {"prior": Level()},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options):
    (name, *_) = options
    made = inspect.unwrap(amortise)  # a check of types would refuse some before
    usual = {"prior": OSCILLATOR, "steps": 2, "horizon": 6, "start": small()}
    with pytest.raises(ArgumentError, match=name):
        made(**usual | options)


def test_a_rehearsal_is_a_rehearsal():
    wrong: Any = Curriculum(CALM)
    made = inspect.unwrap(Amortised.__init__)
    with pytest.raises(TypeError, match=r"rehearsal must be .*found Curriculum"):
        made(Amortised.__new__(Amortised), rehearsal=wrong)


def test_a_narrow_prior_can_be_had_by_one_line():
    wide = StructuralPrior()
    narrow = wide.replace(components=[*wide.components, Cycle(amplitude=LogUniform(1.0, 2.0))])
    amplitude = narrow.sample(100, 10, generator=seeded()).parameters["cycle.amplitude"]
    assert np.all((amplitude.numpy() >= 1) & (amplitude.numpy() <= 2))


# --- what series are made of -------------------------------------------------------------------


@pytest.mark.slow
def test_components_of_the_prior_can_be_asked_for_also_after_loading(tmp_path):
    fitted = Forecaster(trained(latents=True), season_length=1, freq="D").fit(frame())
    table = fitted.components(level=[80])
    assert set(table["component"]) == {"level", "slope", "cycle", "noise", "irregular", "signal"}
    wide = table.pivot_table(index=["unique_id", "ds"], columns="component", values="mean")
    np.testing.assert_allclose(wide["level"] + wide["cycle"], wide["signal"], atol=1e-6)
    fitted.save(tmp_path / "kept")
    other = Forecaster.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(other.components(frame(), level=[80]), table)


def test_components_that_were_not_learned_are_refused():
    fitted = Forecaster(trained(), season_length=1, freq="D").fit(frame())
    with pytest.raises(TypeError, match="networks of latents"):
        fitted.components()


def test_half_of_the_minutes_are_for_latents(monkeypatch):
    ends = []

    def run(self, *, deadline, **_):
        ends.append(deadline.total)
        return self.network

    monkeypatch.setattr(Trainer, "run", run)
    amortise(OSCILLATOR, minutes=2, start=small(), latents=True)
    assert ends[0] == pytest.approx(60, abs=2)
    assert ends[1] == pytest.approx(120, abs=4)


@pytest.mark.parametrize("name", ["signal", "noise"])
def test_a_component_has_a_name_of_its_own(name):
    from seqlatent.amortised.latents import LatentNetwork

    with pytest.raises(ValueError, match="names of their own"):
        LatentNetwork([name])
