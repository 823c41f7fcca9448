"""Contracts of parts: those of the package keep them, and what breaks one is told which."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from engines import ENGINES
from own_engines import Smoothed, Walk
from small_models import BACKBONES, POSTERIORS
from torch import nn
from torch.distributions import Independent, Normal

from seqlatent.chain import Correction
from seqlatent.distributions import diagonal_normal
from seqlatent.emissions import Bernoulli, Emission, NegativeBinomial, Poisson, StudentT
from seqlatent.emissions import Normal as NormalEmission
from seqlatent.inference import Tilted
from seqlatent.inference.amortised.posterior import Posterior
from seqlatent.memory import CausalMemory, Memory, NoMemory
from seqlatent.testing import (
    EngineContract,
    check_emission,
    check_engine,
    check_memory,
    check_posterior,
    check_transition,
    context,
)
from seqlatent.transitions import DiagonalTransition, OrnsteinUhlenbeck, Transition

# --- parts of the package ------------------------------------------------------------------------


def test_neither_pytest_nor_dataframes_are_needed_to_import_it():
    code = (
        "import sys; sys.modules['pytest'] = None; import seqlatent.testing as t; "
        "assert t.check_transition; assert 'pandas' not in sys.modules; "
        "assert t.check_engine; assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("lags", [(), (1,), (3, 1)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_memories(lags, backbone):
    width = CausalMemory.input_dim(2, lags=lags, covariate_dim=1)
    make = partial(CausalMemory, 2, lags=lags, covariate_dim=1)
    held = check_memory(lambda: make(BACKBONES[backbone](width, 4)))
    assert "all steps at once equal one at a time" in held


def test_no_memory():
    assert "every parameter gets a finite gradient" not in check_memory(NoMemory)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_posteriors(posterior):
    assert len(check_posterior(POSTERIORS[posterior])) == 8


def test_a_posterior_of_another_transition():
    check_posterior(Tilted, transition=lambda: Walking(0.3))


@pytest.mark.parametrize("family", [NormalEmission, StudentT, Poisson, NegativeBinomial, Bernoulli])
def test_emissions_of_which_only_the_support_is_known(family):
    held = check_emission(lambda dims: family(3, dims, context_dim=2, hidden=(4,)))
    assert "the density has unit mass" in held


@pytest.mark.parametrize(
    "name", ["own", "amortised", "recurrent", "naive", "seasonal_naive", "theta", "ets", "sarimax"]
)
def test_engines(name):
    check_engine(ENGINES[name], imputes=name not in ("ets", "theta"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted({*ENGINES} - {"own", "amortised", "recurrent", "theta", "ets", "sarimax"})
)
def test_latent_engines(name):
    # medians of members that draw for themselves differ by more than those of one
    positive = name not in ("structural", "short_structural")
    check_engine(ENGINES[name], equivariant=positive, tolerance=0.4)


@pytest.mark.parametrize("kind", [Walk, Smoothed])
def test_engines_of_a_stranger(kind):
    assert len(check_engine(kind)) == 11


class TestWalk(EngineContract):
    """The same by inheritance."""

    def build(self):
        return Walk()


# --- parts that break a law ----------------------------------------------------------------------


class Walking(DiagonalTransition):
    def __init__(self, scale):
        super().__init__()
        self.latent_dim = 1
        self.log_scale = nn.Parameter(torch.tensor([scale]).log())

    def initial_affine(self, c):
        return torch.zeros_like(self.log_scale), torch.ones_like(self.log_scale)

    def affine(self, c):
        one = torch.ones_like(self.log_scale)
        return one, torch.zeros_like(one), self.log_scale.exp()


class Deaf(Walking):
    handles_gaps = True


class Eager(Walking):
    def affine(self, c):
        a, b, scale = super().affine(c)
        return a, b, scale * c.dt.sqrt()


class Mixing(Walking):
    def affine(self, c):
        a, b, scale = super().affine(c)
        return a, b + c.u.mean(0, keepdim=True), scale


class Bare(Transition):
    latent_dim = 1

    def initial(self, c):
        return Normal(torch.zeros(*c.shape, 1), 1.0)

    def forward(self, z, c):
        return Independent(Normal(z, 1.0), 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Deaf, r"gaps count.*says handles_gaps = True, and gaps change nothing"),
        (Eager, r"gaps count.*it reads c\.dt; say so by handles_gaps = True"),
        (Mixing, "the density of a series depends on the others"),
    ],
)
def test_a_transition_that_breaks_a_law_is_told_which(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_transition(lambda: kind(0.5), context=partial(context, covariate_dim=1))


def test_a_transition_without_an_event_axis():
    with pytest.raises(TypeError, match=r"Bare\.initial must return"):
        check_transition(Bare)


def test_a_transition_with_a_context_of_its_own():
    there = partial(context, irregular=True, covariate_dim=1)
    assert "its matrices are its distribution" in check_transition(
        lambda: OrnsteinUhlenbeck(2), context=there
    )


class Unscaled(Emission):
    def __init__(self, dims):
        super().__init__()
        self.obs_dim = dims
        self.log_scale = nn.Parameter(torch.zeros(dims))

    def forward(self, z, c):
        return diagonal_normal(z[..., : self.obs_dim], self.log_scale.exp())


class Heavier(Unscaled):
    def forward(self, z, c):
        loc = c.shift + c.scale * z[..., : self.obs_dim]
        return diagonal_normal(loc, c.scale * self.log_scale.exp())

    def log_prob(self, y, observed, z, c):
        return super().log_prob(y, observed, z, c) + 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unscaled, "shift and scale are an affine map: values in other units"),
        (Heavier, "missing cells are left out: the density is not that of the cells"),
    ],
)
def test_an_emission_that_breaks_a_law_is_told_which(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_emission(kind)


class Present(Memory):
    """One that reads the present."""

    out_dim = 2

    def forward(self, sequences):
        return sequences.normalised

    def initial(self, batch_shape, like):
        return ()

    def state_at(self, sequences, index):
        return ()

    def step(self, state, y, observed, c):
        return torch.where(observed, (y - c.shift) / c.scale, 0.0), state


def test_a_memory_that_reads_the_present_is_told():
    with pytest.raises(AssertionError, match="step gives other features than forward"):
        check_memory(Present)


class Unconditional(Correction):
    def correct(self, p, z, c):
        loc = c.e if z is None else c.e + 0.0 * z
        return diagonal_normal(loc, torch.ones_like(loc))


class Free(Posterior):
    """One that does not ask whether anything is seen."""

    def __init__(self, feature_dim, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
        self.head = nn.Linear(feature_dim, latent_dim)

    def statistics(self, features):
        return self.head(features)

    def kernel(self, transition, c):
        return Unconditional(transition)


def test_a_posterior_that_is_never_the_prior_is_told():
    with pytest.raises(AssertionError, match="it is not the prior where nothing is seen"):
        check_posterior(Free)


class Forgetful(Smoothed):
    def update(self, state, panel, seed):
        return super().update(state, panel.tail(1), seed)


class Flat(Smoothed):
    def paths(self, state, future, n, seed):
        return super().paths(state, future, n, seed)[:, :, 0]


class Global(Smoothed):
    def paths(self, state, future, n, seed):
        np.random.seed(seed)  # noqa: NPY002
        return super().paths(state, future, n, seed) + np.random.normal()  # noqa: NPY002


class Growing(Walk):
    def fit(self, panel, fit_options):
        before = getattr(self, "floor", 0.0)
        super().fit(panel, fit_options)
        self.floor = before + 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, "row by row|an update is a start from all rows"),
        (Flat, r"paths must have the shape \(1, 3, 1, 1\), found \(1, 3, 1\)"),
        (Global, "paths draw from numpy's global generator"),
        (Growing, "a fit depends on the fit before it"),
    ],
)
def test_an_engine_that_breaks_a_law_is_told_which(kind, message):
    with pytest.raises(AssertionError, match=message):
        check_engine(kind)
