"""Rollouts that share one past, and the objective that scores them."""

import math

import pytest
import torch

from seqlatent import Belief, LatentModel, Sequences, zoo
from seqlatent.emissions import NegativeBinomial, StudentT
from seqlatent.inference import Kalman, Parallel, Particles
from seqlatent.memory import Memory
from seqlatent.model import moments, one_step
from seqlatent.objectives import elbo, rollout_crps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def srnn(latent_dim=0, emission=StudentT):
    model = zoo.srnn(
        latent_dim=latent_dim,
        hidden_dim=8,
        lags=(1, 2, 5),
        covariate_dim=2,
        emission=emission,
        posterior=Parallel,
        causal=True,
    ).double()
    from seqlatent.networks import reinitialise

    reinitialise(model, generator(0))
    return model


def data(batch=3, steps=12):
    y = torch.randn(batch, steps, 1, generator=generator(1), dtype=torch.float64).cumsum(1) + 5
    u = torch.randn(batch, steps, 2, generator=generator(2), dtype=torch.float64)
    return Sequences.of(y, u=u, scale=torch.full((batch, 1), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("latent_dim", [0, 2])
def test_paths_that_share_their_past_are_those_that_do_not(latent_dim, monkeypatch):
    model = srnn(latent_dim)
    belief = model.belief(data(), generator=generator(0))
    u = torch.zeros(3, 9, 2, dtype=torch.float64)
    shared = model.forecast(belief, 9, n=4, u=u, generator=generator(3))
    monkeypatch.setattr(type(model.memory), "advance", Memory.advance)
    single = model.forecast(belief, 9, n=4, u=u, generator=generator(3))
    torch.testing.assert_close(shared.y, single.y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(shared.z, single.z, rtol=1e-10, atol=1e-10)


def test_reading_once_gives_features_and_state():
    model, sequences = srnn(), data()
    index = torch.tensor([3, 11, -1])
    m, state = model.memory.read(sequences, index)
    torch.testing.assert_close(m, model.memory(sequences))
    for found, expected in zip(state, model.memory.state_at(sequences, index), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_belief_of_a_parallel_posterior_has_the_distribution_of_its_paths():
    model, sequences = srnn(2), data()
    model.inference.particles = 4000
    with torch.no_grad():
        z = model.posterior(sequences).rsample((4000,), generator(0))[..., -1, :]
    values = model.belief(sequences, generator=generator(1)).latest.values
    torch.testing.assert_close(values.mean(0), z.mean(0), atol=0.1, rtol=0.1)
    torch.testing.assert_close(values.std(0), z.std(0), atol=0.1, rtol=0.1)


def test_foresight_is_minus_the_crps_of_paths_and_trains_the_memory():
    model, sequences = srnn(), data()
    found = rollout_crps(model, sequences, horizon=4, samples=5, generator=generator(0))
    belief = model.belief(sequences.window(0, 8), end=True)
    y = model.forecast(
        belief,
        4,
        n=5,
        u=sequences.u[:, 8:],
        t=sequences.t[:, 8:],
        gradient=True,
        generator=generator(0),
    ).y
    truth = sequences.y[:, 8:]
    pairs = (y[:, None] - y[None]).abs().sum((0, 1)) / (2 * 5 * 4)
    expected = -(((y - truth).abs().mean(0) - pairs) / 2.0).sum((1, 2))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert all(p.grad is not None for p in model.memory.parameters())


def test_foresight_refuses_what_it_cannot_train():
    with pytest.raises(ValueError, match="past before its horizon"):
        rollout_crps(srnn(), data(), horizon=12)
    with pytest.raises(ValueError, match="samples must be"):
        rollout_crps(srnn(), data(), horizon=3, samples=1)
    counts = Sequences.of(torch.ones(2, 9, 1).double(), u=torch.zeros(2, 9, 2).double())
    with pytest.raises(TypeError, match="no gradient"):
        rollout_crps(srnn(emission=NegativeBinomial), counts, horizon=3)


def test_beliefs_join_and_stand_where_they_are_told():
    model, sequences = srnn(2), data()
    end = torch.tensor([11, 5, 8])
    belief = model.belief(sequences, end=end, generator=generator(0))
    assert belief.t.tolist() == [11.0, 5.0, 8.0]
    parts = [belief.select(torch.tensor([i])) for i in range(3)]
    again = Belief.join(parts)
    torch.testing.assert_close(again.latest.values, belief.latest.values)
    torch.testing.assert_close(again.memory[0], belief.memory[0])
    exact = zoo.structural().double()
    with pytest.raises(ValueError, match="at least one belief"):
        Belief.join([])
    plain = Sequences.of(sequences.y)
    with pytest.raises(ValueError, match="one kind"):
        Belief.join([exact.belief(plain), belief])


def local_level(y):
    model = zoo.structural().double()
    return model, Sequences.of(y)


def test_one_step_scores_of_an_exact_model_are_its_innovations():
    y = torch.randn(2, 9, 1, generator=generator(0), dtype=torch.float64).cumsum(1)
    model, sequences = local_level(y)
    found = one_step(model, sequences)
    torch.testing.assert_close(found.log_prob, model.filter(sequences).log_evidence)
    for t in range(1, 9):
        belief = model.belief(sequences.window(0, t))
        mean, variance = moments(model, belief, 1)
        below = torch.special.ndtr((y[:, t] - mean[:, 0]) / variance[:, 0].sqrt())
        torch.testing.assert_close(found.below[:, t], below)


def test_one_step_scores_by_particles_approach_the_exact_ones():
    y = 0.2 * torch.randn(2, 6, 1, generator=generator(0), dtype=torch.float64).cumsum(1)
    exact, sequences = local_level(y)
    assert isinstance(exact.inference, Kalman)
    model = LatentModel(exact.transition, exact.emission, Particles(4000))
    found = one_step(model, sequences, samples=4000, generator=generator(1))
    truth = one_step(exact, sequences)
    torch.testing.assert_close(found.log_prob, truth.log_prob, atol=0.15, rtol=0)
    torch.testing.assert_close(found.below, truth.below, atol=0.05, rtol=0)


def test_one_step_of_counts_has_ties():
    model = zoo.srnn(latent_dim=0, hidden_dim=4, emission=NegativeBinomial)
    sequences = Sequences.of(torch.zeros(2, 5, 1))
    found = one_step(model, sequences, samples=200, generator=generator(0))
    assert bool((found.equal > 0.2).all())
    assert bool((found.below == 0).all())
    assert not math.isnan(found.log_prob.sum().item())


def test_a_model_without_latents_takes_no_step_to_say_so(monkeypatch):
    model, sequences = srnn(), data()
    calls = []
    forward = type(model.transition).forward
    monkeypatch.setattr(
        type(model.transition), "forward", lambda *a: calls.append(1) or forward(*a)
    )
    elbo(model, sequences).sum().backward()
    assert len(calls) < sequences.steps
