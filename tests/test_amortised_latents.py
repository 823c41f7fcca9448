"""The network of latents: truth, what is read, smoothers, the copula, estimates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlatent.amortised import LEVELS, Curriculum, Seasons, past_of
from seqlatent.amortised.latents import (
    LatentNetwork,
    LatentTrainer,
    latents,
    load_latent_networks,
    parameters,
)
from seqlatent.amortised.latents.joint import FACTORS, Joint, pair_density, sample
from seqlatent.amortised.latents.naive import CANDIDATES
from seqlatent.amortised.latents.objective import draw, loss
from seqlatent.amortised.latents.reading import FEATURES, Reading
from seqlatent.amortised.latents.sums import Sums
from seqlatent.amortised.latents.truth import events_of, parameters_of, truth_of
from seqlatent.amortised.smoothers import DECAYS, LINEAR, bank_of
from seqlatent.prior import KINDS, Observation, StructuralPrior

COMPONENTS = ("season", "long_season", "ar")
SMALL = {"width": 16, "depth": 1, "head_width": 16, "head_depth": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LatentNetwork(COMPONENTS, **SMALL).eval()


def drawn(kind, series=64, steps=96, seed=0):
    prior = StructuralPrior(observation=Observation(weights={kind: 1.0}, whole=0.0))
    return prior.sample(series, steps, season_lengths=(12,), generator=seeded(seed))


def series(n=6, steps=60, seed=0, holes=0.2):
    y = torch.randn(n, steps, generator=seeded(seed), dtype=torch.float64).cumsum(1)
    y = y + 3 * torch.sin(torch.arange(steps) * 2 * math.pi / 12)
    observed = torch.rand(n, steps, generator=seeded(seed + 1)) >= holes
    observed[:, -1] = True
    observed[0, :30] = False
    return y, observed


# --- truth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_level_and_components_add_up_to_the_signal(kind):
    found = truth_of(drawn(kind), COMPONENTS)
    total = found["level"] + sum(found[name] for name in COMPONENTS)
    torch.testing.assert_close(total, found["signal"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_link_gains_is_its_derivative(kind):
    link = drawn(kind).link
    link = link._replace(demand=link.demand / 20)  # far from one, beyond which it does not grow
    link = link._replace(**{k: v.double() for k, v in link._asdict().items() if k != "kind"})
    x = link.centre + torch.linspace(-1.0, 1.0, 21, dtype=torch.float64)
    step = 1e-5
    slope = (link.mean(x + step) - link.mean(x - step)) / (2 * step)
    if kind == "positive":  # it has a corner at zero
        smooth = link.mean(x) > 0
        torch.testing.assert_close(slope[smooth], link.derivative(x)[smooth])
    else:
        torch.testing.assert_close(slope, link.derivative(x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["real", "poisson", "overdispersed", "intermittent"])
def test_noise_is_the_deviation_of_values_around_the_signal(kind):
    prior = StructuralPrior(
        observation=Observation(
            weights={kind: 1.0}, whole=0.0, dispersion=0.3, demand=0.2, count_rate=0.01
        )
    )
    prior = prior.replace(noise=type(prior.noise)(scale=0.02, heavy=0.0, volatility=0.0))
    one = prior.sample(3000, 40, generator=seeded(3))
    found = truth_of(one, COMPONENTS)
    ratio = (one.y - found["signal"]) / found["noise"]
    outliers = events_of(one)["outlier"]
    assert ratio[~outliers].square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_breaks_and_parameters_are_those_that_were_drawn():
    one = drawn("real", 200)
    events, found = events_of(one), truth_of(one, COMPONENTS)
    assert ((found["break"] != 0) == events["break"]).all()
    values, there = parameters_of(one, 90)
    torch.testing.assert_close(values["level.scale"], one.parameters["level.scale"])
    assert (there["level.scale"] == (one.parameters["level.scale"] > 0)).all()
    assert not there["multiplicative"].any()


# --- what is read ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_means_over_windows_are_means(steps, seed):
    x = torch.randn(2, steps, generator=seeded(seed))
    o = (torch.rand(2, steps, generator=seeded(seed + 1)) < 0.6).float()
    first = torch.randint(-3, steps + 3, (2, 5), generator=seeded(seed + 2))
    end = torch.randint(-3, steps + 3, (2, 5), generator=seeded(seed + 3))
    mean, count = Sums.of(x, o).mean(first, end)
    for b in range(2):
        for q in range(5):
            inside = [t for t in range(steps) if first[b, q] <= t < end[b, q] and o[b, t]]
            assert count[b, q] == len(inside)
            expected = x[b, inside].mean() if inside else torch.tensor(0.0)
            torch.testing.assert_close(mean[b, q], expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(0, 10**6))
def test_smoothers_are_means_and_lines_with_falling_weights(steps, seed):
    z = 100 * torch.randn(2, steps, generator=seeded(seed))
    share = torch.rand(1, generator=seeded(seed + 3))  # from all to hardly any
    o = (torch.rand(2, steps, generator=seeded(seed + 1)) < share).float()
    o[:, -1] = 1
    bank = bank_of(z * o, o, 1, steps - 1)
    assert all(part.isfinite().all() for part in bank)
    assert (bank.missed < math.log(1e4)).all()
    z = z / 100
    bank = bank_of(z * o, o, 1, steps - 1)
    t = torch.arange(steps, dtype=torch.float64)
    at = int(torch.randint(steps, (1,), generator=seeded(seed + 2)))
    for k, a in enumerate(DECAYS):
        weight = a ** (t - at).abs() * o[0]
        expected = (weight * z[0]).sum() / weight.sum()
        torch.testing.assert_close(bank.level[0, at, k].double(), expected, atol=1e-5, rtol=1e-5)
        if k in LINEAR:
            line = torch.stack([torch.ones_like(t), t - at], 1)
            gram = (line * weight[:, None]).T @ line
            gram[1, 1] += 1.0
            level, slope = torch.linalg.solve(gram, (line * weight[:, None]).T @ z[0].double())
            i = LINEAR.index(k)
            torch.testing.assert_close(bank.linear[0, at, i].double(), level, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(bank.slope[0, at, i].double(), slope, atol=1e-4, rtol=1e-4)


def test_what_is_missed_is_missed_by_the_others():
    z = torch.randn(1, 30, generator=seeded())
    o = torch.ones_like(z)
    found = bank_of(z, o, 1, 29).missed[0].exp() - 0.02
    errors = []
    for t in range(30):
        left_out = o.clone()
        left_out[0, t] = 0
        bank = bank_of(z * left_out, left_out, 1, 29)
        errors.append((torch.cat([bank.level, bank.linear], -1)[0, t] - z[0, t]).abs())
    # the last row is where the future begins, whose level is that of the row before
    torch.testing.assert_close(found, torch.stack(errors).mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("m", [1, 4, 12])
def test_what_is_read_is_finite_however_little_there_is(m):
    for seed in range(3):
        batch = draw(Curriculum(batch=256), COMPONENTS, seeded(seed), Seasons(m))
        assert loss(small(), batch, seeded()).isfinite()


@pytest.mark.parametrize("m", [4, 7, 12])
def test_a_season_that_does_not_change_is_found_whatever_the_level_does(m):
    steps = 40 * m
    season = torch.randn(m, generator=seeded(1))
    season = season - season.mean()
    walk = torch.randn(1, steps, generator=seeded(2)).cumsum(1)
    z = season.repeat(40)[None] * 10 + walk
    bank = bank_of(z, torch.ones_like(z), m, steps - 1)
    slow = bank.season[0, steps // 2 : steps // 2 + m, len(DECAYS) :]
    error = slow - 10 * season.roll(-(steps // 2 % m))[:, None]
    assert (error[:, 1:4].std(0) < 1.0).all()


@pytest.mark.parametrize("m", [1, 2, 4, 12, 50])
@pytest.mark.parametrize("long", [0, 60])
def test_what_is_read_moves_and_grows_with_the_values(m, long):
    y, observed = series()
    steps = torch.arange(65).expand(6, -1)

    def read(y):
        past = past_of(y, observed, Seasons(m, long))
        return past, Reading(past._replace(lower=past.lower & False), 5).at(steps)

    past, one = read(y)
    other_past, other = read(8 * y + 64)
    assert one.features.shape[-1] == FEATURES
    sizes = {kind: values.shape[-1] for kind, values in one.candidates.items()}
    assert sizes == {**CANDIDATES, "value": CANDIDATES["value"] - 1}
    assert one.features.isfinite().all()
    torch.testing.assert_close(one.features, other.features, atol=2e-3, rtol=1e-3)
    for a, b in ((one.base, other.base), (one.unit, other.unit)):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    assert past.seasons == other_past.seasons


def test_what_is_hidden_is_not_read():
    y, observed = series()
    other = torch.where(observed, y, 1e6)
    steps = torch.arange(60).expand(6, -1)
    one, two = (Reading(past_of(x, observed, Seasons(12))).at(steps) for x in (y, other))
    torch.testing.assert_close(one.features, two.features)


# --- the copula --------------------------------------------------------------------------------


def joint_of(seed=0, b=3, steps=24, j=3):
    raw = torch.randn(b, steps, j, FACTORS + 1, generator=seeded(seed), dtype=torch.float64)
    return Joint.of(raw)


def test_density_of_a_pair_is_that_of_two_normal_numbers():
    joint, x = joint_of(), torch.randn(3, 24, 3, generator=seeded(1), dtype=torch.float64)
    first, second = (Joint(v[:, :12], w[:, :12]) for v, w in (joint, joint_of(5)))
    y = torch.randn(3, 12, 3, generator=seeded(2), dtype=torch.float64)
    apart, lags = torch.full((3, 12), 4), torch.tensor([1, 4, 3])
    for j in range(3):
        for k in range(3):
            counts = torch.zeros(3, 12, 3, 3, dtype=torch.bool)
            counts[0, 0, j, k] = True
            found = pair_density(first, second, x[:, :12], y, apart, lags, counts)
            r = first.loadings[0, 0, j] @ second.loadings[0, 0, k]
            if j == k and 4 % lags[j] == 0:
                memory = (first.memory[0, 0, j] + second.memory[0, 0, j]) / 2
                kept = torch.exp(-memory * 4 / lags[j])
                r = r + first.own[0, 0, j] * second.own[0, 0, j] * kept
            cov = torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), cov)
            alone = torch.distributions.Normal(0.0, 1.0)
            a, b = x[0, 0, j], y[0, 0, k]
            expected = normal.log_prob(torch.stack([a, b])) - alone.log_prob(a) - alone.log_prob(b)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_draws_have_the_correlations_that_are_said():
    joint = joint_of(b=1, steps=14)
    lags = (1, 4, 14)
    x = sample(joint, lags, 40_000, seeded(3))[:, 0].flatten(1)
    found = torch.corrcoef(x.T)
    own, rho = joint.own[0], torch.exp(-joint.memory[0])
    expected = torch.einsum("ajr,bkr->ajbk", joint.loadings[0], joint.loadings[0])
    for j, lag in enumerate(lags):
        for s in range(14):
            kept = torch.tensor(1.0).double()
            for t in range(s, 14, lag):
                kept = kept * (rho[t, j] if t > s else 1.0)
                expected[s, j, t, j] += own[s, j] * own[t, j] * kept
                if t > s:
                    expected[t, j, s, j] += own[s, j] * own[t, j] * kept
    torch.testing.assert_close(found, expected.reshape(42, 42), atol=0.03, rtol=0)
    assert x.std(0) == pytest.approx(torch.ones(42), abs=0.03)


# --- training and estimates --------------------------------------------------------------------


def test_a_batch_has_holes_the_future_and_the_truth():
    batch = draw(Curriculum(batch=64), COMPONENTS, seeded(), Seasons(12))
    steps = batch.y.shape[1]
    assert (batch.steps >= steps).any()
    assert (batch.steps < steps).any()
    assert batch.observed[:, -1].all()
    first = batch.observed.float().argmax(1, keepdim=True)
    assert (batch.steps >= first).float().mean() > 0.95
    hidden = ~batch.observed.gather(1, batch.steps.clamp_max(steps - 1))
    assert hidden[batch.steps < steps].float().mean() > 0.1
    assert {v.shape for v in batch.truth.values()} == {batch.steps.shape}


def test_training_learns_and_is_repeated():
    few = Curriculum(seasons={Seasons(4): 1.0}, batch=32)
    one, two = (LatentTrainer(few, steps=3, network=SMALL).run() for _ in range(2))
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert one.components == COMPONENTS
    batch = draw(few, COMPONENTS, seeded(9))
    assert loss(one, batch, seeded()).isfinite()


@pytest.mark.parametrize("m", [1, 4, 12])
def test_estimates_add_up_move_and_grow(m):
    network, (y, observed) = small(), series()
    (one,) = latents([network], y, observed, Seasons(m), ahead=4)
    (other,) = latents([network], 8 * y, observed, Seasons(m), ahead=4)
    assert one.knots.shape == (6, 64, len(one.names), len(LEVELS))
    assert (one.knots.diff(dim=-1) >= 0).all()
    parts = ["level", *COMPONENTS]
    total = sum(one.mean[..., one.names.index(name)] for name in parts)
    signal = one.mean[..., one.names.index("signal")]
    torch.testing.assert_close(total, signal, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(8 * one.knots, other.knots, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(one.of("level").mean(), one.mean[..., 0], rtol=1e-5, atol=1e-5)
    some = one.quantiles([0.15, 0.5])[:, :, one.names.index("noise")]
    scores = torch.special.ndtri(torch.tensor([0.15, 0.5]).double())[:, None, None]
    torch.testing.assert_close(one.of("noise").at(scores.expand(2, 6, 64))[1], some[..., 1])
    assert ((one.events >= 0) & (one.events <= 1)).all()


@pytest.mark.parametrize("y", [[0.0] * 8, [5.0] * 8, [float(i % 2) for i in range(8)]])
def test_estimates_of_series_that_hardly_move_are_finite(y):
    y = torch.tensor([y], dtype=torch.float64)
    (one,) = latents([small()], y, torch.ones_like(y, dtype=torch.bool), Seasons(12), ahead=3)
    assert one.knots.isfinite().all()
    if not y.any():
        assert (one.knots == 0).all()


def test_parameters_are_in_the_units_of_the_data():
    network, (y, observed) = small(), series()
    one, other = (parameters([network], k * y, observed, Seasons(12)) for k in (1, 8))
    torch.testing.assert_close(
        8 * one.of("level.scale"), other.of("level.scale"), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        one.of("slope.damping"), other.of("slope.damping"), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(one.present, other.present, rtol=1e-3, atol=1e-4)


# --- what ships --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seasons", [Seasons(1), Seasons(4), Seasons(12)])
def test_shipped_posteriors_hold_the_truth_as_often_as_they_say(seasons):
    inside, events, beside, generator = {}, [], [], seeded(5)
    for _ in range(3):
        batch = draw(Curriculum(batch=512), COMPONENTS, generator, seasons)
        y, at = batch.y.double(), batch.steps[:, :1]
        how = {"ahead": int(at.max()) - y.shape[1] + 1, "chunk": 512}
        (found,) = latents(load_latent_networks(), y, batch.observed, seasons, **how)
        for name in ("level", "slope", "signal", "noise"):
            knots = found.of(name).knots.gather(1, at[..., None].expand(-1, -1, len(LEVELS)))[:, 0]
            truth = batch.truth[name][:, 0].double()
            inside.setdefault(name, []).append((truth > knots[:, 3]) & (truth < knots[:, 11]))
        happened = batch.events["break"][:, 0].double()
        events.append(torch.stack([found.event("break").gather(1, at)[:, 0], happened]))
        # beside the mean around each step, in units of each series
        past = past_of(y, batch.observed, seasons)
        mean = Reading(past, how["ahead"]).base * past.unit + past.shift
        guesses = torch.stack([found.mean[..., 0], mean]).gather(2, at.expand(2, -1, -1))[..., 0]
        beside.append((guesses - batch.truth["level"][:, 0]).abs() / past.unit[:, 0])
    for name, parts in inside.items():
        assert torch.cat(parts).double().mean().item() == pytest.approx(0.8, abs=0.04), name
    said, true = torch.cat(events, 1).mean(1).tolist()
    assert said == pytest.approx(true, abs=0.01)
    ours, means = torch.cat(beside, 1).clamp_max(20).mean(1).tolist()
    assert ours < 0.8 * means


def test_shipped_networks_find_a_break_an_outlier_and_a_season():
    t = torch.arange(120)
    season = 4 * torch.sin(2 * math.pi * t / 12)
    noise = torch.randn(120, generator=seeded(2), dtype=torch.float64)
    y = 50 + season + 0.7 * noise + 12.0 * (t >= 70)
    y[40] += 15
    observed = torch.ones(1, 120, dtype=torch.bool)
    (found,) = latents(load_latent_networks(), y[None], observed, Seasons(12))
    assert found.event("break")[0].argmax() == 70
    assert found.event("break")[0, 70] > 0.7
    size = found.quantiles([0.5])[0, 70, found.names.index("break"), 0]
    assert size.item() == pytest.approx(12.0, abs=2.0)
    assert found.event("outlier")[0].argmax() == 40
    assert found.event("outlier")[0, 40] > 0.7
    pattern = found.mean[0, :, found.names.index("season")]
    assert (pattern - season).abs().mean() < 0.5


def test_shipped_networks_fill_a_hole_better_than_a_line():
    t = torch.arange(96)
    season = 5 * torch.cos(2 * math.pi * t / 12)
    noise = torch.randn(96, generator=seeded(3), dtype=torch.float64)
    truth = 20 + 0.1 * t + season + 0.5 * noise
    observed = torch.ones(1, 96, dtype=torch.bool)
    observed[0, 40:49] = False
    (found,) = latents(load_latent_networks(), truth[None], observed, Seasons(12))
    low, middle, high = found.quantiles([0.025, 0.5, 0.975])[0, 40:49, found.names.index("value")].T
    assert (middle - truth[40:49]).abs().mean() < 1.0
    assert ((truth[40:49] > low) & (truth[40:49] < high)).double().mean() > 0.7
