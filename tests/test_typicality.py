"""Whether series are said to be strangers that are, and only as many others as there may be."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.amortised import (
    Curriculum,
    Network,
    Rehearsal,
    Seasons,
    Typicality,
    shipped_typicality,
)
from seqlatent.forecasting import Amortised, Forecaster
from seqlatent.prior import Cycle, Missing, Noise, Observation, StructuralPrior, Uniform

SMALL = {"width": 16, "depth": 1, "head_width": 8, "head_depth": 1, "factors": 2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chaos(series, steps, generator):
    """A logistic map: each value says the next, but no line does."""
    x, path = 0.1 + 0.8 * torch.rand(series, generator=generator), []
    for _ in range(steps + 20):
        x = 3.9 * x * (1 - x)
        path.append(x)
    return 100 + 30 * torch.stack(path[20:], 1)


def runs(series, steps, generator):
    """Noise, and a batch job every 9 to 13 steps."""
    period = torch.randint(9, 14, (series, 1), generator=generator)
    first = torch.randint(0, 9, (series, 1), generator=generator)
    job = (torch.arange(steps) + first) % period == 0
    return 20 + torch.randn(series, steps, generator=generator) + 40 * job


def machine(series, steps, generator):
    """What a machine draws that is switched on and off at random."""
    on = (torch.rand(series, steps, generator=generator) < 0.2).cumsum(1) % 2
    return 10 + 50 * on + 0.5 * torch.randn(series, steps, generator=generator)


STRANGERS = [chaos, runs, machine]
SIZES = [(Seasons(1), 60), (Seasons(7), 90), (Seasons(12), 75)]


def flagged(test, y, observed=None):
    observed = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    return (test.test(y, observed)[1] <= 0.01).double().mean().item()


def test_few_fresh_draws_are_flagged():
    found = []
    for seasons, steps in SIZES:
        fresh = Rehearsal.of(Curriculum(), seasons, seeded(7), 500)
        y, observed = fresh.y[:, -steps:], fresh.observed[:, -steps:]
        found.append(flagged(shipped_typicality(seasons), y, observed))
    assert np.mean(found) <= 0.02
    assert max(found) < 0.03  # the rate of each is that of a few hundred draws


# Networks that read a bank of filters foresee what a machine does there better than those before,
# and flag .69 of it.
LOST = pytest.mark.xfail(strict=True, reason="networks with filters flag .69 of these")


@pytest.mark.parametrize(
    ("stranger", "seasons", "steps"),
    [
        pytest.param(stranger, *size, marks=[LOST] if (stranger, size[1]) == (machine, 90) else [])
        for stranger in STRANGERS
        for size in SIZES
    ],
)
def test_strangers_are_flagged(stranger, seasons, steps):
    assert flagged(shipped_typicality(seasons), stranger(100, steps, seeded(3))) >= 0.9


# --- any networks and any prior ----------------------------------------------------------------

SWINGS = StructuralPrior(
    components=[Cycle(period=Uniform(9.0, 11.0), damping=Uniform(0.97, 1.0))],
    noise=Noise(scale=0.5, heavy=0.0, volatility=0.0, outlier_rate=0.0),
    observation=Observation(weights={"real": 1.0}, offset=0.0, whole=0.0),
    missing=Missing(cells=0.05, blocks=0.0),
)
KNOWN = Curriculum(SWINGS, {Seasons(1): 1.0}, horizon=6)


@pytest.fixture(scope="module")
def own():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(**SMALL).eval()
    return Typicality([network], Rehearsal.of(KNOWN, Seasons(1), seeded(1)))


def test_p_values_of_fresh_draws_are_uniform(own):
    """Whatever the network, here one without any training."""
    fresh = Rehearsal.of(KNOWN, Seasons(1), seeded(2), 800)
    _, p = own.test(fresh.y[:, -45:], fresh.observed[:, -45:])
    assert p.isfinite().all()
    level = torch.linspace(0.1, 0.9, 9)
    found = (p[:, None] <= level).float().mean(0)
    torch.testing.assert_close(found, level, atol=0.07, rtol=0)


def test_draws_of_the_package_are_strangers_to_a_narrow_prior(own):
    wide = Rehearsal.of(Curriculum(), Seasons(1), seeded(2), 100)
    assert flagged(own, wide.y[:, -60:], wide.observed[:, -60:]) > 0.6


def test_units_do_not_matter(own):
    y = KNOWN.drawn(seeded(5), Seasons(1), 20, 6).y[:, -60:].double()
    observed = torch.ones_like(y, dtype=torch.bool)
    one, other = own.test(y, observed), own.test(1000 * y, observed)
    torch.testing.assert_close(one[0], other[0], rtol=1e-3, atol=1e-3)


def test_others_do_not_matter_and_rows_before_the_last_200_do_not(own):
    y = machine(6, 300, seeded()).double()
    observed = torch.ones_like(y, dtype=torch.bool)
    whole = own.test(y, observed)
    torch.testing.assert_close(own.test(y[2:3], observed[2:3])[0], whole[0][2:3], rtol=1e-3, atol=0)
    torch.testing.assert_close(own.test(y[:, -200:], observed[:, -200:])[1], whole[1])


def test_few_rows_or_many_holes_do_not_tell(own):
    y = machine(3, 60, seeded())
    observed = torch.zeros_like(y, dtype=torch.bool)
    observed[0, -11:] = True
    observed[1, ::3] = True
    distance, p = own.test(y, observed)
    assert distance.isnan().all()
    assert p.isnan().all()


@pytest.mark.parametrize("value", [0.0, 5.0, 1e20])
def test_a_constant_has_a_p_value(own, value):
    y = torch.full((2, 40), value)
    distance, p = own.test(y, torch.ones_like(y, dtype=torch.bool))
    assert distance.isfinite().all()
    assert (p <= 0.01).all()


# --- behind a forecaster -----------------------------------------------------------------------


def frame(y):
    ds = pd.date_range("2024-01-01", periods=y.shape[1])
    parts = [pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": v}) for i, v in enumerate(y)]
    return pd.concat(parts, ignore_index=True)


def test_strangers_are_noted_and_in_a_column_when_asked_for(own):
    kept: Any = own
    engine = Amortised(adapt=False, networks=kept.networks, rehearsal=kept.drawn)
    usual = KNOWN.drawn(seeded(9), Seasons(1), 4, 6).y[:, -60:]
    df = frame(torch.cat([usual, machine(2, 60, seeded())]).double().numpy())
    model = Forecaster(engine, season_length=1).fit(df)
    notes = model.notes["amortised"]
    assert set(notes) == {"s4", "s5"}
    assert "unlike what the networks learned from: 0.1%" in notes["s4"]
    told = model.diagnose(lags=1)
    (p,) = [told[told["test"] == "prior"].set_index("unique_id")["p_value"]]
    assert list(p.index[p <= 0.01]) == ["s4", "s5"]
    pooled = model.diagnose(lags=1, pooled=True).set_index("test")
    assert pooled.loc["prior", "series"] == 6
    both = Forecaster([engine, "naive"], season_length=1).fit(df).diagnose(lags=1)
    assert set(both[both["test"] == "prior"]["model"]) == {"amortised"}


def test_networks_of_which_nobody_says_what_they_learned_from_have_no_such_test(own):
    kept: Any = own
    model = Forecaster(Amortised(adapt=False, networks=kept.networks), season_length=1)
    model.fit(frame(machine(2, 60, seeded()).double().numpy()))
    assert not model.notes
    assert "prior" not in set(model.diagnose(lags=1)["test"])


def test_too_few_rows_have_no_p_value(own):
    kept: Any = own
    engine = Amortised(adapt=False, networks=kept.networks, rehearsal=kept.drawn)
    model = Forecaster(engine, season_length=1).fit(frame(np.arange(16.0).reshape(2, 8)))
    told = model.diagnose(lags=1)
    assert all(math.isnan(p) for p in told[told["test"] == "prior"]["p_value"])
