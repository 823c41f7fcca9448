"""What every transition owes: a subclass says how to build one, and inherits the tests.

class TestGated(TransitionContract):
    def build(self):
        return Gated(3, context_dim=2)

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=1, covariate_dim=1)
"""

import copy
import pickle

import pytest
import torch

from seqlatent.chain import ConditionallyLinear, MarkovChain
from seqlatent.distributions import Carried, FactorNormal, sample
from seqlatent.sequences import Context

exact = {"rtol": 1e-10, "atol": 1e-10}


def context(
    batch, steps, *, memory_dim=0, covariate_dim=0, encoder_dim=0, codes=None, irregular=False
):
    """Returns a float64 context of a range of steps with random fields, the same at every call."""
    generator = torch.Generator().manual_seed(1)

    def random(width):
        return torch.randn(batch, steps, width, dtype=torch.float64, generator=generator)

    values = {"m": random(memory_dim), "u": random(covariate_dim), "e": random(encoder_dim)}
    if codes is not None:
        values["codes"] = torch.arange(batch)[:, None, None].expand(batch, steps, 1) % codes
    if irregular:
        values["dt"] = 0.25 + 2 * random(1).abs()
    return Context.regular(batch, steps, dtype=torch.float64, **values)


def cast(c, dtype):
    """Returns a context in another floating type."""
    fields = {name: getattr(c, name) for name in ("u", "dt", "shift", "scale", "m", "e")}
    return c.replace(**{name: x.to(dtype) for name, x in fields.items()})


def integral(marginals, points=401, width=12.0):
    """Returns the integral of one series' density over its support (trapezoidal rule)."""
    if isinstance(marginals, Carried):
        random_dim, carry = marginals.random_dim, marginals.carry
    else:
        random_dim, carry = marginals.event_shape[0], None
    volume = 1.0
    if isinstance(marginals, FactorNormal) and marginals.factor.shape[-1] < random_dim:
        G = marginals.factor.expand(*marginals.batch_shape, *marginals.factor.shape[-2:]).reshape(
            marginals.factor.shape[-2:]
        )
        random_dim = G.shape[-1]
        volume = torch.linalg.det(G.mT @ G).sqrt()
        centre, spread = G.new_zeros(random_dim), G.new_ones(random_dim)
    else:
        drawn = sample(marginals, (4000,), torch.Generator().manual_seed(2)).detach()
        drawn = drawn.reshape(4000, -1)[:, :random_dim]
        G, centre, spread = None, drawn.mean(0), drawn.std(0)
    assert random_dim in (1, 2), "integrate over one or two dimensions: override small()"
    unit = torch.linspace(-width, width, points, dtype=centre.dtype)
    grid = torch.cartesian_prod(*[unit] * random_dim).reshape(-1, random_dim) * spread + centre
    cell = (2 * width / (points - 1)) ** random_dim * spread.prod() * volume
    if G is not None:
        grid = marginals.loc.reshape(-1) + grid @ G.mT
    if carry is not None:
        grid = torch.cat([grid, carry.reshape(1, -1).expand(len(grid), -1)], -1)
    return (
        marginals.log_prob(grid.reshape(len(grid), *marginals.batch_shape, -1)).exp() * cell
    ).sum()


class TransitionContract:
    """Tests that every transition passes.

    ``build`` makes the transition under test; its parameters should be away from special values
    (a gate that is exactly shut has no gradient). ``context`` makes what it conditions on.
    """

    moments = True  # whether its distributions know mean and variance
    pathwise = True  # whether a path carries gradients to the parameters

    batch, steps = 3, 5

    def build(self):
        """Returns the transition under test."""
        raise NotImplementedError

    def small(self):
        """Returns one with at most two random dimensions, or None where there is no such."""
        p = self.build()
        return p if p.latent_dim <= 2 else None

    def context(self, batch, steps):
        """Returns the context of a range of steps."""
        return context(batch, steps)

    @pytest.fixture
    def transition(self):
        return self.build().double()

    @pytest.fixture
    def c(self):
        return self.context(self.batch, self.steps)

    @pytest.fixture
    def z(self, transition, c):
        """A path on the transition's own support, ``(B, T, K)``."""
        return self.path(transition, c)

    def path(self, transition, c, shape=()):
        generator = torch.Generator().manual_seed(3)
        return MarkovChain(transition, c).rsample(shape, generator).detach()

    def test_initial_has_the_batch_of_its_context(self, transition, c):
        marginals = transition.initial(c[0])
        assert marginals.batch_shape == (self.batch,)
        assert marginals.event_shape == (transition.latent_dim,)

    def test_forward_has_the_batch_of_its_state(self, transition, c, z):
        marginals = transition(z[:, :-1], c[1:])
        assert marginals.batch_shape == (self.batch, self.steps - 1)
        assert marginals.event_shape == (transition.latent_dim,)

    def test_one_step_equals_all_steps(self, transition, c, z):
        every = transition(z[:, :-1], c[1:]).log_prob(z[:, 1:])
        for t in range(1, self.steps):
            one = transition(z[:, t - 1], c[t])
            assert one.batch_shape == (self.batch,)
            torch.testing.assert_close(one.log_prob(z[:, t]), every[:, t - 1], **exact)

    def test_sample_axes_lead(self, transition, c):
        z = self.path(transition, c, (2, 3))
        assert z.shape == (2, 3, self.batch, self.steps, transition.latent_dim)
        marginals = transition(z[..., :-1, :], c[1:])
        assert marginals.batch_shape == (2, 3, self.batch, self.steps - 1)
        every = marginals.log_prob(z[..., 1:, :])
        for i in range(2):
            for j in range(3):
                alone = transition(z[i, j, :, :-1], c[1:]).log_prob(z[i, j, :, 1:])
                torch.testing.assert_close(every[i, j], alone, **exact)
        step = transition(z[..., 0, :], c[1])
        torch.testing.assert_close(step.log_prob(z[..., 1, :]), every[..., 0], **exact)

    def test_series_are_independent(self, transition, c, z):
        order = torch.tensor([2, 0, 1])
        names = ("u", "dt", "codes", "shift", "scale", "m", "e", "informed")
        permuted = c.replace(**{name: getattr(c, name)[order] for name in names})
        chain, other = MarkovChain(transition, c), MarkovChain(transition, permuted)
        torch.testing.assert_close(chain.log_prob(z)[order], other.log_prob(z[order]), **exact)

    def test_every_parameter_gets_a_finite_gradient_from_the_density(self, transition, c, z):
        if not any(p.requires_grad for p in transition.parameters()):
            pytest.skip("nothing is learned")
        MarkovChain(transition, c).log_prob(z).sum().backward()
        for name, parameter in transition.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} has no gradient"
                assert parameter.grad.isfinite().all(), f"{name} has the gradient {parameter.grad}"

    def test_paths_carry_finite_gradients(self, transition, c):
        if not self.pathwise:
            pytest.skip("its samples are not reparametrised")
        path = MarkovChain(transition, c).rsample((4,))
        if not any(p.requires_grad for p in transition.parameters()):
            assert not path.requires_grad
            return
        path.square().sum().backward()
        gradients = [p.grad for p in transition.parameters() if p.grad is not None]
        assert gradients
        assert all(g.isfinite().all() for g in gradients)

    def test_the_state_gets_a_finite_gradient(self, transition, c, z):
        z = z.clone().requires_grad_()
        MarkovChain(transition, c).log_prob(z).sum().backward()
        assert z.grad.isfinite().all()

    def test_samples_have_the_moments_of_the_distribution(self, transition, c, z):
        if not self.moments:
            pytest.skip("the moments have no closed form")
        for marginals in (transition.initial(c[0]), transition(z[:, 0], c[1])):
            n = 20_000
            x = sample(marginals, (n,), torch.Generator().manual_seed(4)).detach()
            mean, variance = marginals.mean.detach(), marginals.variance.detach()
            deviation = (x - mean).square()
            bound = 5 * (variance / n).sqrt() + 1e-9
            assert ((x.mean(0) - mean).abs() <= bound).all()
            bound = 5 * deviation.std(0) / n**0.5 + 1e-9
            assert ((deviation.mean(0) - variance).abs() <= bound).all()

    def test_the_density_integrates_to_one(self):
        p = self.small()
        if p is None:
            pytest.skip("it has no distribution of one or two dimensions")
        p = p.double()
        c = self.context(1, 2)
        with torch.no_grad():
            z = self.path(p, c)
            one = torch.ones((), dtype=torch.float64)
            torch.testing.assert_close(integral(p.initial(c[0])), one, rtol=1e-6, atol=0)
            torch.testing.assert_close(integral(p(z[:, 0], c[1])), one, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_type_follows_the_inputs(self, dtype):
        p = self.build().to(dtype)
        c = cast(self.context(self.batch, self.steps), dtype)
        chain = MarkovChain(p, c)
        z = chain.rsample()
        assert z.dtype == dtype
        assert chain.log_prob(z).dtype == dtype
        assert sample(p.initial(c[0])).dtype == dtype
        assert sample(p(z[:, 0], c[1])).dtype == dtype

    def test_a_copy_is_equal_and_apart(self, transition, c, z):
        before = MarkovChain(transition, c).log_prob(z)
        for other in (copy.deepcopy(transition), pickle.loads(pickle.dumps(transition))):
            torch.testing.assert_close(MarkovChain(other, c).log_prob(z), before, **exact)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.add_(1.0)
            torch.testing.assert_close(MarkovChain(transition, c).log_prob(z), before, **exact)

    def test_the_state_dict_holds_all_there_is(self, transition, c, z):
        other = self.build().double()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.5 * torch.rand_like(parameter))
        other.load_state_dict(transition.state_dict())
        first, second = MarkovChain(transition, c), MarkovChain(other, c)
        torch.testing.assert_close(first.log_prob(z), second.log_prob(z), **exact)

    def test_the_repr_is_readable(self, transition):
        text = repr(transition)
        assert text.startswith(type(transition).__name__ + "(")
        assert " at 0x" not in text
        assert "tensor(" not in text

    def test_a_series_of_one_step(self, transition):
        c = self.context(self.batch, 1)
        chain = MarkovChain(transition, c)
        z = chain.rsample((2,))
        assert z.shape == (2, self.batch, 1, transition.latent_dim)
        torch.testing.assert_close(
            chain.log_prob(z)[..., 0], transition.initial(c[0]).log_prob(z[..., 0, :]), **exact
        )

    def test_a_private_generator_decides_the_path(self, transition, c):
        state = torch.get_rng_state()
        first, second = (self.path(transition, c, (2,)) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(state, torch.get_rng_state())

    def test_gaps_count_if_and_only_if_it_says_so(self, transition, c, z):
        far = c.replace(dt=3 * c.dt)
        near = transition(z[:, :-1], c[1:]).log_prob(z[:, 1:])
        wide = transition(z[:, :-1], far[1:]).log_prob(z[:, 1:])
        if not transition.handles_gaps:
            torch.testing.assert_close(near, wide, **exact)
        elif any(p.requires_grad for p in transition.parameters()):
            assert (near - wide).abs().max() > 1e-6

    def test_its_matrices_are_its_distribution(self, transition, c, z):
        if not isinstance(transition, ConditionallyLinear):
            pytest.skip("it is not linear")
        F, b, G = transition.matrices(c[1:])
        marginals = transition(z[:, :-1], c[1:])
        mean = (F @ z[:, :-1, :, None])[..., 0] + b
        torch.testing.assert_close(marginals.mean, mean, **exact)
        variance = G.square().sum(-1).expand_as(mean)
        torch.testing.assert_close(marginals.variance, variance, **exact)
        m0, G0 = transition.initial_moments(c[0])
        first = transition.initial(c[0])
        mean, variance = m0.expand_as(first.mean), G0.square().sum(-1).expand_as(first.mean)
        torch.testing.assert_close(first.mean, mean, **exact)
        torch.testing.assert_close(first.variance, variance, **exact)
        for factor in (G, G0):
            rank = torch.linalg.matrix_rank(factor.detach())
            assert (rank == factor.shape[-1]).all(), "columns of the noise factor depend"
