"""fit without arguments: right for exact models, in any units, and honest about convergence."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from seqlatent import zoo
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Sequences
from seqlatent.training import History, fit, lbfgs
from seqlatent.training.gradient.batches import TrainingData
from seqlatent.training.gradient.descent import Descent
from seqlatent.training.gradient.ranks import Ranks
from seqlatent.training.gradient.surface import Surface, judge
from seqlatent.transitions import Cycle

F64 = torch.float64
components = partial(zoo.unobserved_components, initial_scale=3.0)
MODELS = {
    "structural": zoo.structural,
    "structural, trend and season": partial(zoo.structural, trend=True, season_length=4),
    "smooth trend and season": partial(components, "smooth trend", season_length=4),
    "level and harmonics": partial(components, "local level", freq_seasonal=[(6, 2)]),
    "level and cycle": lambda: components("local level", cycle=Cycle(11.0)),
    "walk and autoregression": partial(components, "random walk", autoregressive=2),
    "regression": partial(components, "local level", covariate_dim=2),
    "exponential smoothing": zoo.exponential_smoothing,
    "damped trend and season": partial(
        zoo.exponential_smoothing, trend=True, damped=True, season_length=4
    ),
    "factors": partial(zoo.dynamic_factors, 4, 2),
    "factors and errors": partial(zoo.dynamic_factors, 3, 1, idiosyncratic="ar", correlated=True),
    "two regimes": zoo.hidden_markov,
    "three regimes": partial(zoo.hidden_markov, states=3),
    "counts": zoo.count_structural,
    "networks of the noises": partial(zoo.deep_state, season_length=4, hidden_dim=8),
}
QUICK = {"structural", "level and cycle", "exponential smoothing", "two regimes"}


def per_cell(model, data):
    with torch.no_grad():
        return evidence(model, data).sum().item() / data.observed.sum().item()


def moved(model, seed, size):
    """Parameters some way from where the model starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=F64).to(p))
    return model


def simulated(name, seed):
    """A model and what it simulates, one cell in twenty missing."""
    torch.manual_seed(seed)
    truth = moved(MODELS[name]().double(), seed, 1.5 if "regimes" in name else 0.5)
    generator = torch.Generator().manual_seed(seed)
    obs_dim = truth.emission.obs_dim
    u = None
    if name == "regression":
        u = torch.randn(3, 80, 2, generator=generator, dtype=F64)
    empty = Sequences.of(torch.zeros(3, 80, obs_dim, dtype=F64), u=u)
    y = truth.rollout(empty, generator=generator).y[0]
    seen = torch.rand(y.shape, generator=generator) > 0.05
    return truth, Sequences.of(y, observed=seen, u=u)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in MODELS]
)
def test_a_fit_without_arguments_finds_what_made_the_data(name):
    truth, data = simulated(name, 1)
    torch.manual_seed(9)
    model = MODELS[name]()
    history = fit(model, data.to(dtype=torch.float32))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert per_cell(model.double(), data) > per_cell(truth, data) - 0.05
    if name != "networks of the noises":
        assert history.stopped == "converged"
        assert history.gain < 1e-3


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_two_regimes_are_found_from_any_start(seed):
    generator = torch.Generator().manual_seed(seed)
    calm = torch.arange(150) // 30 % 2 == 0
    noise = torch.randn(2, 150, generator=generator, dtype=F64)
    y = 100 + torch.where(calm, 0.0, 30.0) + torch.where(calm, 4.0, 9.0) * noise
    torch.manual_seed(seed)
    model = zoo.hidden_markov().double()
    data = Sequences.of(y[..., None])
    fit(model, data)
    spread = torch.where(calm, 4.0, 9.0).to(F64)
    oracle = torch.distributions.Normal(100 + torch.where(calm, 0.0, 30.0), spread).log_prob(y)
    assert per_cell(model, data) > oracle.mean().item() - 0.15
    regime = model.smooth(data).mean.argmax(-1) == model.smooth(data).mean[0, 0].argmax()
    assert (regime == calm).double().mean() > 0.98


@pytest.mark.slow
def test_regimes_that_differ_in_spread_alone():
    generator = torch.Generator().manual_seed(0)
    calm = torch.arange(240) // 40 % 2 == 0
    y = torch.where(calm, 0.1, 3.0) * torch.randn(1, 240, generator=generator, dtype=F64)
    model, data = zoo.hidden_markov().double(), Sequences.of(y[..., None])
    fit(model, data)
    regime = model.smooth(data).mean[0].argmax(-1)
    agreed = (regime == regime[0]) == calm
    assert agreed.double().mean() > 0.95


# In any units


def series(seed, n=100):
    """A walk with noise and a small season."""
    rng = np.random.default_rng(seed)
    z = np.cumsum(rng.normal(size=n) * rng.choice([0.1, 0.5, 1]))
    z += rng.normal(size=n) * rng.choice([0.2, 0.64, 1]) + 5
    return z + 0.3 * np.tile([1.0, -1.0, 2.0, -2.0], n // 4)


SERIES = [(1, "local linear trend", 1.0), (2, "smooth trend", 1e4), (7, "local level", 1e-3)]
MORE = [
    (seed, trend, scale)
    for seed in range(10)
    for trend in ("local level", "local linear trend", "smooth trend")
    for scale in (1e-3, 1.0, 1e4)
    if (seed, trend, scale) not in SERIES
]


@pytest.mark.parametrize(
    ("seed", "trend", "scale"),
    [*SERIES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_the_maximum_is_that_of_statsmodels_in_any_units(seed, trend, scale):
    sm = pytest.importorskip("statsmodels.api")
    z = series(seed)
    theirs = sm.tsa.UnobservedComponents(z, trend, use_exact_diffuse=True)
    best = max(theirs.fit(disp=False, maxiter=1000, method=how).llf for how in ("lbfgs", "powell"))
    model = zoo.unobserved_components(trend).double()
    data = Sequences.of(torch.tensor(scale * z)[None, :, None])
    assert fit(model, data).stopped == "converged"
    diffuse = 1 if trend == "local level" else 2
    found = per_cell(model, data) * 100 + (100 - diffuse) * math.log(scale)
    assert found > best - 1e-3


def level(noise=0.7, scale=0.3):
    model = zoo.unobserved_components("local level").double()
    with torch.no_grad():
        model.emission.noise.log_scale.fill_(math.log(noise))
        model.transition.components[0].log_scale.fill_(math.log(scale))
    return model


@pytest.mark.parametrize("start", [{"noise": 1e-5}, {"scale": 1e-6}, {"noise": 1e3, "scale": 1e3}])
def test_a_noise_that_came_near_zero_comes_back(start):
    rng = np.random.default_rng(3)
    z = torch.tensor(0.3 * np.cumsum(rng.normal(size=200)) + 0.64 * rng.normal(size=200))
    data = Sequences.of(z[None, :, None])
    best = level()
    fit(best, data, evidence, optimizer=lbfgs(), steps=50)
    model = level(**start)
    history = fit(model, data, evidence, optimizer=lbfgs(), steps=50)
    assert history.stopped == "converged"
    assert per_cell(model, data) * 200 > per_cell(best, data) * 200 - 1e-3


@pytest.mark.slow
def test_a_covariate_may_have_any_units():
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(1, 120, 1, generator=rng, dtype=F64)
    y = 2 * u + torch.randn(1, 120, 1, generator=rng, dtype=F64)
    found = []
    for unit in (1.0, 1e-4, 1e4):
        model = zoo.unobserved_components("local level", covariate_dim=1).double()
        history = fit(model, Sequences.of(y, u=unit * u), evidence, optimizer=lbfgs(), steps=50)
        assert history.stopped == "converged"
        found.append(per_cell(model, Sequences.of(y, u=unit * u)) * 120)
    assert max(found) - min(found) < 1e-3


# What it says


def surface(model, data):
    batch = TrainingData(data).all()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ranks = Ranks(0, 1, torch.device("cpu"))
    descent = Descent(model, evidence, {}, optimizer, None, ranks, 0, History())
    return Surface(descent, batch)


def test_the_gain_is_what_a_newton_step_promises_in_any_units():
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(1, 120, 1, generator=rng, dtype=F64)
    y = 2 * u + torch.randn(1, 120, 1, generator=rng, dtype=F64)
    gains = []
    for unit in (1.0, 1e3):
        model = zoo.unobserved_components("irregular", covariate_dim=1).double()
        x = surface(model, Sequences.of(y, u=unit * u))
        before = x.read()
        verdict = judge(x)
        assert torch.equal(x.read(), before)
        assert verdict.better is not None
        gains.append(verdict.gain)
    assert gains[0] > 1
    assert gains[1] == pytest.approx(gains[0], rel=1e-3)


def test_a_fit_that_ends_too_early_says_so():
    data = Sequences.of(torch.tensor(series(2))[None, :, None])
    history = fit(level(), data, evidence, optimizer=lbfgs(iterations=1), steps=1)
    assert history.stopped == "steps"
    assert history.gain > 0.1
    assert "not converged: gain=" in repr(history)
    done = fit(level(), data)
    assert "not converged" not in repr(done)


def test_a_maximum_that_is_out_of_reach_is_no_convergence():
    """The slope promises more than any value does."""

    class Cliff(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return -x.square()

        @staticmethod
        def backward(ctx, grad):
            return grad * 5.0

    def objective(model, sequences):
        x = model.transition.components[0].log_scale.sum()
        return Cliff.apply(x).expand(sequences.batch)

    model = level(scale=1.0)
    data = Sequences.of(torch.tensor(series(2))[None, :, None])
    history = fit(model, data, objective, optimizer=lbfgs(), steps=50)
    assert history.stopped == "stalled"
    assert history.gain > 1


# What is chosen


def test_the_objective_is_that_of_the_inference():
    data = Sequences.of(torch.randn(4, 12, 1, generator=torch.Generator().manual_seed(0)))
    neural = zoo.deep_markov(latent_dim=2, hidden_dim=4)
    assert fit(neural, data, steps=2).steps == 2  # evidence would be an error
    assert fit(zoo.structural(), data).stopped == "converged"
    assert fit(zoo.structural(), data, elbo, steps=2).stopped == "steps"


@pytest.mark.parametrize("asked", [{"batch_size": 2}, {"schedule": None}, {"average": 0.9}])
def test_small_steps_where_they_are_asked_for(asked):
    data = Sequences.of(torch.randn(4, 12, 1, generator=torch.Generator().manual_seed(0)))
    history = fit(zoo.structural(), data, steps=7, **asked)
    assert history.steps == 7
    assert history.gain is None


def test_a_start_of_ones_own_is_kept_where_nothing_is_better():
    truth, data = simulated("two regimes", 1)
    model = MODELS["two regimes"]().double()
    model.load_state_dict(truth.state_dict())
    fit(model, data)
    before, after = (m.smooth(data).mean.argmax(-1) for m in (truth, model))
    assert (before == after).double().mean() > 0.95


def test_other_models_are_left_to_small_steps():
    model = LatentModel(level().transition, level().emission, Kalman())
    sampled = fit(
        model, lambda g: Sequences.of(torch.randn(2, 9, 1, generator=g).double()), steps=3
    )
    assert sampled.steps == 3
