"""Trained posteriors against the exact one, on linear Gaussian data with missing values."""

from functools import partial

import pytest
import torch

from seqlatent.diagnostics import simulation_based_calibration
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import (
    Amortised,
    Combiner,
    Encoder,
    FilteringEncoder,
    Kalman,
    Parallel,
    Posterior,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU, reinitialise
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit
from seqlatent.transitions import OrnsteinUhlenbeck

WIDTH = Encoder.input_dim(2)
POSTERIORS = {
    "tilted": Tilted,
    "combiner": partial(Combiner, hidden_dim=32),
    "parallel": Parallel,
}


def problem(batch=256, steps=24):
    """Returns a true model under exact inference and its data, a fifth of the cells missing."""
    generator = torch.Generator().manual_seed(3)
    transition = OrnsteinUhlenbeck(2, time_scale=(8.0, 3.0)).requires_grad_(False)
    eye = torch.eye(2)
    exact = LatentModel(
        transition, LinearGaussianEmission.of(eye, torch.zeros(2), 0.3 * eye), Kalman()
    )
    template = Sequences.of(torch.zeros(batch, steps, 2))
    y = exact.rollout(template, generator=generator).y[0]
    y[torch.rand(y.shape, generator=generator) < 0.2] = torch.nan
    return exact, Sequences.of(y)


def trained(posterior, *, steps, seed=0):
    exact, sequences = problem()
    encoder = SmoothingEncoder(MinGRU(WIDTH, 32), MinGRU(WIDTH, 32))
    inference = Amortised(encoder, posterior(encoder.out_dim, 2), particles=200)
    reinitialise(inference, torch.Generator().manual_seed(seed))
    model = LatentModel(exact.transition, exact.emission, inference)
    fit(model, sequences, elbo, steps=steps, batch_size=64, seed=seed)
    return model, exact, sequences


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_trained_posterior_comes_close_to_the_exact_one(name):
    model, exact, sequences = trained(POSTERIORS[name], steps=900)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bound = elbo(model, sequences, samples=50, generator=generator).mean()
        truth = evidence(exact, sequences).mean()
        means = model.smooth(sequences, generator=generator).mean
        smoothed = exact.smooth(sequences).mean
    assert (truth - bound) / truth.abs() < 0.02
    assert torch.corrcoef(torch.stack([means.flatten(), smoothed.flatten()]))[0, 1] > 0.98


@pytest.mark.slow
def test_a_causal_encoder_learns_the_filter():
    exact, sequences = problem()
    encoder = FilteringEncoder(MinGRU(WIDTH, 32))
    inference = Amortised(encoder, Tilted(encoder.out_dim, 2), particles=200)
    reinitialise(inference, torch.Generator().manual_seed(0))
    model = LatentModel(exact.transition, exact.emission, inference)
    fit(model, sequences, elbo, steps=600, batch_size=64)
    means = model.filter(sequences, generator=torch.Generator().manual_seed(0)).mean
    truth = exact.filter(sequences).mean
    assert torch.corrcoef(torch.stack([means.flatten(), truth.flatten()]))[0, 1] > 0.97


class Sharpened(Posterior):
    """A trained tilted posterior whose potentials claim eight times their precision."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.latent_dim = inner, inner.latent_dim

    def statistics(self, features):
        m, w = self.inner.statistics(features).chunk(2, -1)
        return torch.cat([m, 8 * w], -1)

    def kernel(self, transition, c):
        return self.inner.kernel(transition, c)


@pytest.mark.slow
def test_calibration_passes_a_trained_posterior_and_catches_an_over_confident_one():
    model, _, sequences = trained(Tilted, steps=900)
    generator = torch.Generator().manual_seed(0)
    ranks = simulation_based_calibration(
        model, sequences, replications=2, draws=99, generator=generator
    )
    assert ranks.spread.mean() == pytest.approx(1, abs=0.1)
    sharp = Amortised(model.inference.encoder, Sharpened(model.inference.posterior))
    confident = LatentModel(model.transition, model.emission, sharp)
    ranks = simulation_based_calibration(
        confident, sequences, replications=2, draws=99, generator=generator
    )
    assert not ranks.uniform()
    assert ranks.spread.mean() > 1.2
