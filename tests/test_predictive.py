"""Exact predictive moments against the dense normal of the whole series, and what is refused."""

import pytest
import torch

from seqlatent import zoo
from seqlatent.inference import Kalman, Particles
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel, moments
from seqlatent.networks import MinGRU
from seqlatent.sequences import Sequences


def series(steps=20):
    g = torch.Generator().manual_seed(0)
    y = torch.randn(2, steps, 1, generator=g, dtype=torch.float64).cumsum(1)
    y[1, -3:] = torch.nan
    shift, scale = torch.tensor([[1.0], [-3.0]]), torch.tensor([[2.0], [0.1]])
    return Sequences.of(y, shift=shift.double(), scale=scale.double())


def test_the_moments_are_those_of_smoothing_unobserved_steps():
    model, data = zoo.structural(trend=True, season_length=4).double(), series()
    mean, variance = moments(model, model.belief(data, end=True), 5)
    states = model.smooth(data.extend(5))
    H, _, R = model.emission.matrices(model.context(data))
    loc = states.mean[:, -5:] @ H.mT
    P = states.marginals.covariance_matrix[:, -5:]
    torch.testing.assert_close(mean, data.shift[:, None] + data.scale[:, None] * loc)
    spread = (H @ P @ H.mT)[..., 0] + R[0, 0]
    torch.testing.assert_close(variance, data.scale[:, None].square() * spread)


def test_gaps_and_covariates_of_the_future_enter():
    model = zoo.structural(covariate_dim=1).double()
    y = torch.zeros(1, 6, 1, dtype=torch.float64)
    u = torch.linspace(-1, 1, 6, dtype=torch.float64)[None, :, None]
    belief = model.belief(Sequences.of(y + 3 * u, u=u))
    ahead = torch.tensor([[[1.0], [5.0]]], dtype=torch.float64)
    near, _ = moments(model, belief, 2, u=ahead)
    assert near[0, 1, 0] == pytest.approx(15.0, abs=1.5)
    _, variance = moments(model, belief, 2, u=0 * ahead)
    _, later = moments(
        model, belief, 2, u=0 * ahead, t=torch.tensor([6.0, 16.0], dtype=torch.float64)
    )
    assert later[0, 1, 0] > variance[0, 1, 0]


def test_a_memory_of_known_inputs_enters_as_in_sampled_paths(generator):
    model = zoo.deep_state(season_length=4, hidden_dim=4).double()
    with torch.no_grad():
        for p in model.transition.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    belief = model.belief(series())
    mean, variance = moments(model, belief, 3)
    y = model.forecast(belief, 3, n=4000, generator=generator).y
    assert bool(((y.mean(0) - mean).abs() < 5 * (variance / 4000).sqrt()).all())
    torch.testing.assert_close(y.std(0), variance.sqrt(), rtol=0.08, atol=0)


def test_a_series_without_a_past_starts_from_the_initial_distribution():
    model = zoo.structural().double()
    nothing = Sequences.of(torch.full((1, 3, 1), torch.nan, dtype=torch.float64))
    mean, variance = moments(model, model.belief(nothing, end=False), 2)
    assert mean[0, 0, 0] == 0
    assert variance[0, 0, 0] == pytest.approx(100 + 0.25)


def test_what_has_no_exact_moments_is_refused():
    data = Sequences.of(torch.zeros(1, 4, 1))
    deep = zoo.deep_markov(latent_dim=2, hidden_dim=4)
    with pytest.raises(TypeError, match="linear transition and a linear emission"):
        moments(deep, deep.belief(data), 2)
    net = zoo.deep_state(hidden_dim=4)
    width = CausalMemory.input_dim(1, lags=(1,))
    memory = CausalMemory(1, MinGRU(width, 4), lags=(1,))
    net = LatentModel(net.transition, net.emission, Kalman(), memory)
    with pytest.raises(TypeError, match="the memory CausalMemory"):
        moments(net, net.belief(data), 2)
    model = zoo.structural()
    cloud = LatentModel(model.transition, model.emission, Particles(8))
    with pytest.raises(TypeError, match="with particles"):
        moments(cloud, cloud.belief(data), 2)
