"""Every named model with every emission that suits it: trains, gains, and stays finite."""

from functools import partial

import numpy as np
import pytest
import torch

from seqlatent import zoo
from seqlatent.emissions import (
    Bernoulli,
    Categorical,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from seqlatent.inference import Combiner, Parallel, Tilted
from seqlatent.networks import reinitialise
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit
from seqlatent.zoo import deep_markov, deep_state, latent_ode, srnn, structural, vrnn

SEEDS = range(5)
BATCH, STEPS = 8, 12


EMISSIONS = {
    "normal": Normal,
    "student": StudentT,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "bernoulli": Bernoulli,
    "categorical": partial(Categorical, categories=3),
}
small = {"latent_dim": 3, "hidden_dim": 8}
NEURAL = {
    "deep_markov": partial(deep_markov, **small),
    "deep_markov_combiner": partial(deep_markov, posterior=Combiner, **small),
    "deep_markov_tilted": partial(deep_markov, posterior=Tilted, **small),
    "deep_markov_causal": partial(deep_markov, causal=True, posterior=Tilted, **small),
    "srnn": partial(srnn, lags=(1, 2), **small),
    "srnn_deterministic": partial(srnn, latent_dim=0, hidden_dim=8),
    "vrnn": partial(vrnn, **small),
    "latent_ode": partial(latent_ode, **small),
    "latent_ode_noisy": partial(latent_ode, diffusion=0.2, **small),
}
EXACT = {
    "structural": structural,
    "structural_full": partial(structural, trend=True, season_length=4),
    "deep_state": partial(deep_state, season_length=4, hidden_dim=8),
}


def series(emission, seed, steps=STEPS):
    """Returns a seasonal panel with missing cells, unequal lengths, in the emission's support."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(steps, dtype=torch.get_default_dtype())
    wave = (t / 2).sin() + torch.randn(BATCH, steps, generator=generator) / 3
    y = {
        "normal": 50 + 10 * wave,
        "student": 50 + 10 * wave,
        "poisson": torch.poisson(wave.exp() * 3, generator=generator),
        "negative_binomial": torch.poisson(wave.exp() * 3, generator=generator),
        "bernoulli": (wave > 0).to(wave.dtype),
        "categorical": (wave > 0.3).to(wave.dtype) + (wave > -0.3).to(wave.dtype),
    }[emission][..., None]
    y[torch.rand(y.shape, generator=generator) < 0.2] = torch.nan
    y[0, steps // 2 :] = torch.nan
    if emission in ("normal", "student"):
        return Sequences.of(
            y, shift=torch.full((BATCH, 1), 50.0), scale=torch.full((BATCH, 1), 10.0)
        )
    scale = torch.full((BATCH, 1), 3.0 if "i" in emission and "bern" not in emission else 1.0)
    return Sequences.of(y, scale=scale if emission in ("poisson", "negative_binomial") else None)


def train(model, sequences, objective, seed, steps):
    """Trains, and returns the objective per series before and after with common random numbers."""
    reinitialise(model, torch.Generator().manual_seed(seed))

    def score():
        with torch.no_grad():
            return objective(model, sequences, generator=torch.Generator().manual_seed(9)).mean()

    before = score()
    history = fit(model, sequences, objective, steps=steps, batch_size=BATCH, seed=seed)
    assert history.skipped == 0
    return before, score()


def check(model, sequences, before, after, horizon=1000):
    assert torch.isfinite(after)
    assert after > before
    assert all(torch.isfinite(p).all() for p in model.parameters())
    generator = torch.Generator().manual_seed(0)
    belief = model.belief(sequences, generator=generator)
    paths = model.forecast(belief, horizon, n=2, generator=generator)
    assert torch.isfinite(paths.y).all()
    assert torch.isfinite(paths.z).all()


@pytest.mark.parametrize(
    ("name", "emission"),
    [
        # one emission of each model is enough by default, and none where steps are dear
        pytest.param(
            name,
            emission,
            marks=[] if emission == "normal" and "ode" not in name else [pytest.mark.slow],
        )
        for name in NEURAL
        for emission in EMISSIONS
        # the noise of the flow does not meet the emission: two families are enough
        if name != "latent_ode_noisy" or emission in ("normal", "poisson")
    ],
)
def test_trains_a_few_steps_and_rolls_out(name, emission):
    sequences = series(emission, 0)
    model = NEURAL[name](emission=EMISSIONS[emission])
    objective = evidence if name == "srnn_deterministic" else partial(elbo, samples=4)
    before, after = train(model, sequences, objective, 0, 20)
    check(model, sequences, before, after)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.slow
def test_exact_model_trains_and_rolls_out(name):
    sequences = series("normal", 0, steps=24)
    model = EXACT[name]()
    before, after = train(model, sequences, evidence, 0, 30)
    check(model, sequences, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("name", [name for name in NEURAL if name != "latent_ode_noisy"])
def test_trains_300_steps_over_seeds(name, emission):
    objective = evidence if name == "srnn_deterministic" else partial(elbo, samples=2)
    for seed in SEEDS:
        # an integrator takes ten times as long a step as a network
        sequences = series(emission, seed, steps=6 if name == "latent_ode" else STEPS)
        model = NEURAL[name](emission=EMISSIONS[emission])
        before, after = train(model, sequences, objective, seed, 300)
        check(model, sequences, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_exact_model_trains_300_steps_over_seeds(name):
    for seed in SEEDS:
        sequences = series("normal", seed, steps=24)
        model = EXACT[name]()
        before, after = train(model, sequences, evidence, seed, 300)
        check(model, sequences, before, after)


@pytest.mark.parametrize("build", [*NEURAL.values(), *EXACT.values()], ids=[*NEURAL, *EXACT])
def test_says_what_it_is_made_of(build):
    text = repr(build())
    assert "transition" in text
    assert "emission" in text


@pytest.mark.parametrize("posterior", [Tilted, Combiner, Parallel])
def test_posterior_is_a_choice(posterior):
    model = deep_markov(posterior=posterior, **small)
    assert isinstance(model.inference.posterior, posterior)


# --- sizes and switches -------------------------------------------------------------------------

SIZES = {
    zoo.structural: {"season_length": 4, "covariate_dim": 2},
    zoo.count_structural: {"season_length": 4, "covariate_dim": 2},
    zoo.unobserved_components: {"season_length": 4, "autoregressive": 2, "covariate_dim": 1},
    zoo.exponential_smoothing: {"season_length": 4},
    zoo.dynamic_factors: {"obs_dim": 3, "factors": 2, "order": 1},
    zoo.deep_state: {"season_length": 4, "harmonics": 2, "hidden_dim": 4, "covariate_dim": 1},
    zoo.deep_markov: {"obs_dim": 1, "latent_dim": 2, "hidden_dim": 4, "covariate_dim": 1},
    zoo.srnn: {"obs_dim": 2, "latent_dim": 2, "hidden_dim": 4, "covariate_dim": 1},
    zoo.vrnn: {"obs_dim": 2, "latent_dim": 2, "hidden_dim": 4, "covariate_dim": 1},
    zoo.latent_ode: {"obs_dim": 2, "latent_dim": 2, "hidden_dim": 4, "covariate_dim": 1},
    zoo.hidden_markov: {"states": 2, "obs_dim": 2, "covariate_dim": 1},
    zoo.switching: {"states": 2, "season_length": 4},
}
FACTORIES = pytest.mark.parametrize("make", SIZES, ids=lambda make: make.__name__)


def test_every_factory_is_in_the_table():
    assert {make.__name__ for make in SIZES} == set(zoo.__all__)


@FACTORIES
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, torch.tensor])
def test_sizes_are_integers_of_any_library(make, kind):
    plain = make(**SIZES[make])
    other = make(**{name: kind(size) for name, size in SIZES[make].items()})
    assert repr(other) == repr(plain)
    assert [p.shape for p in other.parameters()] == [p.shape for p in plain.parameters()]


@FACTORIES
@pytest.mark.parametrize("wrong", [True, np.True_, 2.0, "2", -1], ids=repr)
def test_sizes_that_are_none_are_refused_by_name(make, wrong):
    for name in SIZES[make]:
        with pytest.raises(ValueError, match=f"^{name} must be an integer of at least"):
            make(**SIZES[make] | {name: wrong})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (zoo.structural, "trend"),
        (zoo.exponential_smoothing, "admissible"),
        (zoo.dynamic_factors, "bias"),
        (zoo.deep_state, "damped"),
        (zoo.deep_markov, "causal"),
        (zoo.srnn, "irregular"),
        (zoo.unobserved_components, "irregular"),
    ],
)
def test_switches_are_true_or_false(make, name):
    sizes = SIZES[make]
    make(**sizes, **{name: np.True_})
    for wrong in (1, "yes", torch.tensor(True)):
        with pytest.raises(ValueError, match=f"^{name} must be True or False, found"):
            make(**sizes, **{name: wrong})


def test_lags_and_codes_come_in_arrays():
    model = zoo.srnn(hidden_dim=4, lags=np.array([1, 7]), code_sizes=[np.int64(3)])
    assert repr(model) == repr(zoo.srnn(hidden_dim=4, lags=(1, 7), code_sizes=(3,)))
    for name in ("lags", "code_sizes"):
        with pytest.raises(ValueError, match=f"^{name} must be an integer of at least 1, found 0"):
            zoo.srnn(**{name: [2, 0]})
    model = zoo.unobserved_components(freq_seasonal=[(np.int64(12), np.int64(2))])
    assert repr(model) == repr(zoo.unobserved_components(freq_seasonal=[(12, 2)]))


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: zoo.deep_state(harmonics=2), "harmonics=2 .* Give season_length"),
        (lambda: zoo.deep_state(trend=False, damped=True), "damped=True .*trend=False.*Leave"),
        (lambda: zoo.exponential_smoothing(damped=True), "needs trend=True, found damped=True"),
        (lambda: zoo.deep_state(season_length=4, harmonics=3), "1 to 2 harmonics, found 3"),
        (lambda: zoo.deep_markov(core_scale=0.5), "core_scale=0.5 .* Give core"),
    ],
)
def test_what_would_be_ignored_is_refused(act, text):
    with pytest.raises(ValueError, match=text):
        act()
