"""Gated transitions and states that carry a memory."""

import pytest
import torch
from torch.nn import functional

from seqlatent.chain import MarkovChain
from seqlatent.distributions import Carried
from seqlatent.inference.amortised.combiner import Combiner
from seqlatent.inference.amortised.tilted import Tilted
from seqlatent.networks import reinitialise
from seqlatent.sequences import Context
from seqlatent.testing import TransitionContract, context
from seqlatent.transitions.neural import CarriedRecurrence, Gated, InitialNormal

exact = {"rtol": 1e-10, "atol": 1e-10}


def perturbed(module, seed=0, size=0.3):
    """Moves every parameter away from its special start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module


class TestGated(TransitionContract):
    def build(self):
        return perturbed(Gated(3, context_dim=3, hidden_dim=8))

    def small(self):
        return perturbed(Gated(1, context_dim=3, hidden_dim=8))

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, covariate_dim=1)


class TestGatedWithoutContext(TransitionContract):
    def build(self):
        return perturbed(Gated(2, hidden_dim=8))


class TestGatedOverGaps(TransitionContract):
    def build(self):
        return perturbed(Gated(2, context_dim=1, hidden_dim=8, handles_gaps=True))

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1, irregular=True)


class TestCarriedRecurrence(TransitionContract):
    def build(self):
        return perturbed(CarriedRecurrence(2, 4, context_dim=3, hidden=(8,)))

    def small(self):
        return perturbed(CarriedRecurrence(1, 3, context_dim=3, hidden=(8,)))

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, covariate_dim=1)


class TestCarriedRecurrenceOverGaps(TransitionContract):
    def build(self):
        return perturbed(CarriedRecurrence(1, 3, handles_gaps=True, hidden=()))

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


def test_gated_is_its_formula():
    p = perturbed(Gated(3, context_dim=2, hidden_dim=8)).double()
    c = context(4, 5, covariate_dim=2)
    z = torch.randn(4, 5, 3, dtype=torch.float64)
    x = p.hidden(torch.cat([z, c.u], -1)).tanh()
    gate, proposal, scale = (
        functional.linear(x, p.head.weight[rows], p.head.bias[rows])
        for rows in (slice(0, 3), slice(3, 6), slice(6, 9))
    )
    gate = gate.sigmoid()
    distribution = p(z, c)
    loc = (1 - gate) * p.raw_decay.tanh() * z + gate * proposal
    torch.testing.assert_close(distribution.mean, loc, **exact)
    torch.testing.assert_close(distribution.stddev, functional.softplus(scale) + 1e-4, **exact)


def test_gated_states_stay_within_bounds_for_large_weights():
    p = Gated(3, hidden_dim=8).double()
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.mul_(30)
    c = Context.regular(2, 1000, dtype=torch.float64)
    z = MarkovChain(p, c).rsample((5,), torch.Generator().manual_seed(0))
    bound = p.head.weight.abs().sum(1) + p.head.bias.abs()
    scale = functional.softplus(bound[6:]).max()
    assert z.abs().max() < 10 * (bound.max() + 5 * scale)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Gated(3, context_dim=2),
        lambda: CarriedRecurrence(2, 4, context_dim=2),
        lambda: InitialNormal(3, 2),
    ],
)
def test_parameters_are_a_function_of_one_generator(build):
    first, second = perturbed(build(), 1), perturbed(build(), 2)
    state = torch.get_rng_state()
    for p in (first, second):
        reinitialise(p, torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_first_state_moves_with_the_context():
    p = InitialNormal(2, 3).double()
    c = context(4, 2, memory_dim=2, covariate_dim=1)[0]
    distribution = p(c)
    expected = torch.cat([c.m, c.u], -1) @ p.shift.weight.mT
    torch.testing.assert_close(distribution.mean, expected, **exact)
    torch.testing.assert_close(distribution.stddev, torch.ones_like(expected), **exact)


def test_the_carry_is_a_gated_recurrent_unit():
    p = perturbed(CarriedRecurrence(2, 4, context_dim=1, hidden=())).double()
    cell = torch.nn.GRUCell(5, 4).double()
    # torch orders the gates reset, update, new, as here
    cell.load_state_dict(
        {
            "weight_ih": p.input_gates.weight,
            "weight_hh": p.carry_gates.weight,
            "bias_ih": p.input_gates.bias,
            "bias_hh": p.carry_gates.bias,
        }
    )
    c = context(3, 1, covariate_dim=1)[0]
    state = torch.randn(3, 6, dtype=torch.float64)
    x = torch.cat([functional.silu(p.embed(state[:, :2])), c.u], -1)
    distribution = p(state, c)
    assert isinstance(distribution, Carried)
    assert distribution.random_dim == 2
    torch.testing.assert_close(distribution.carry, cell(x, state[:, 2:]), **exact)
    loc, scale = p.head(distribution.carry).chunk(2, -1)
    torch.testing.assert_close(distribution.base.mean, loc, **exact)
    torch.testing.assert_close(distribution.base.stddev, functional.softplus(scale) + 1e-4, **exact)


def test_the_carry_remembers_an_early_latent():
    p = perturbed(CarriedRecurrence(1, 4, hidden=())).double()
    c = Context.regular(1, 6, dtype=torch.float64)
    with torch.no_grad():
        z = MarkovChain(p, c).rsample()
        states = [z[:, 0], z[:, 0].clone()]
        states[1][:, :1] += 1.0
        distributions = [p(state, c[1]) for state in states]
        for t in range(2, 6):  # the same latents from the second step on
            states = [
                torch.cat([z[:, t - 1, :1], distribution.carry], -1)
                for distribution in distributions
            ]
            distributions = [p(state, c[t]) for state in states]
    assert (distributions[0].base.mean - distributions[1].base.mean).abs() > 1e-6


@pytest.mark.parametrize("posterior", ["tilted", "combiner"])
def test_a_posterior_corrects_the_random_part_alone(posterior):
    p = perturbed(CarriedRecurrence(2, 4, hidden=())).double()
    q = Tilted(5, 2) if posterior == "tilted" else Combiner(5, 2, carry_dim=4)
    q = q.double()
    c = context(3, 7)
    e = q.statistics(torch.randn(3, 7, 5, dtype=torch.float64))
    c = c.replace(e=e)
    chain = MarkovChain(q.kernel(p, c), c)
    z = chain.rsample((2,))
    assert z.shape == (2, 3, 7, 6)
    assert chain.log_prob(z).isfinite().all()
    own = p(z[..., :-1, :], c[1:]).carry
    torch.testing.assert_close(z[..., 1:, 2:], own, **exact)
    z.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in q.parameters())


@pytest.mark.parametrize("build", [lambda: Gated(3), lambda: CarriedRecurrence(2, 3)])
def test_a_context_of_another_width_is_named(build):
    c = context(2, 3, memory_dim=1, covariate_dim=1)
    p = build().double()
    with pytest.raises(ValueError, match="found 1 of memory and 1 covariates; build it with"):
        p(torch.zeros(2, 3, p.latent_dim, dtype=torch.float64), c)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gated(0), "latent_dim to be an integer of at least 1, found 0; NoLatent"),
        (lambda: Gated(2, hidden_dim=0), "hidden_dim to be an integer of at least 1"),
        (lambda: Gated(2, context_dim=-1), "context_dim to be an integer of at least 0"),
        (lambda: CarriedRecurrence(2, 0), "carry_dim to be an integer of at least 1"),
    ],
)
def test_a_wrong_size_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
