"""What every emission owes: a subclass says how to build one, and inherits the tests.

class TestPoisson(EmissionContract):
    real = False

    def build(self, obs_dim=2):
        return Poisson(3, obs_dim, context_dim=2)
"""

import copy
import pickle

import pytest
import torch
from torch.distributions import Independent

from seqlatent.distributions import sample
from seqlatent.sequences import Context

exact = {"rtol": 1e-10, "atol": 1e-10}
FIELDS = ("u", "dt", "codes", "shift", "scale", "m", "e", "informed")


def seeded(seed):
    """Returns a generator."""
    return torch.Generator().manual_seed(seed)


class EmissionContract:
    """Tests that every emission passes.

    ``build`` makes the emission to test, over a state of 3, one memory feature, one covariate.
    """

    real = True  # whether values are real, so that shift and scale are an affine map
    counts = False  # whether the scale multiplies the mean
    moments = True  # whether its distributions know mean and variance
    factorises = True  # whether dimensions are independent given the state

    latent_dim, batch, steps, obs_dim = 3, 3, 4, 2

    def build(self, obs_dim=2):
        """Returns the emission under test."""
        raise NotImplementedError

    def context(self, batch, steps, obs_dim=2, dtype=torch.float64):
        """Returns the context of a range of steps, with shifts and scales away from 0 and 1."""
        generator = seeded(1)

        def random(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

        shift = random(batch, 1, obs_dim).expand(-1, steps, -1)
        scale = (1.0 + random(batch, 1, obs_dim).abs()).expand(-1, steps, -1)
        values = {"m": random(batch, steps, 1), "u": random(batch, steps, 1)}
        return Context.regular(batch, steps, dtype=dtype, shift=shift, scale=scale, **values)

    def total(self, distribution):
        """Returns the sum or integral of a distribution of one cell, for each of its batch."""
        raise NotImplementedError

    @pytest.fixture
    def emission(self):
        torch.manual_seed(0)
        return self.build().double()

    @pytest.fixture
    def c(self):
        return self.context(self.batch, self.steps)

    @pytest.fixture
    def z(self):
        shape = (self.batch, self.steps, self.latent_dim)
        return torch.randn(shape, dtype=torch.float64, generator=seeded(2))

    @pytest.fixture
    def y(self, emission, z, c):
        """Values on the emission's own support."""
        return sample(emission(z, c), (), seeded(3)).detach().to(z.dtype)

    @pytest.fixture
    def everything(self, y):
        return torch.ones_like(y, dtype=torch.bool)

    def test_the_distribution_has_the_batch_of_the_state(self, emission, z, c):
        distribution = emission(z, c)
        assert distribution.batch_shape == (self.batch, self.steps)
        assert distribution.event_shape == (self.obs_dim,)

    def test_one_step_equals_all_steps(self, emission, z, c, y, everything):
        every = emission.log_prob(y, everything, z, c)
        assert every.shape == (self.batch, self.steps)
        for t in range(self.steps):
            one = emission.log_prob(y[:, t], everything[:, t], z[:, t], c[t])
            torch.testing.assert_close(one, every[:, t], **exact)

    def test_sample_axes_lead(self, emission, z, c, y, everything):
        more = z + torch.randn(2, 5, *z.shape, dtype=z.dtype, generator=seeded(4))
        every = emission.log_prob(y, everything, more, c)
        assert every.shape == (2, 5, self.batch, self.steps)
        for i in range(2):
            for j in range(5):
                alone = emission.log_prob(y, everything, more[i, j], c)
                torch.testing.assert_close(every[i, j], alone, **exact)
        step = emission.log_prob(y[:, 1], everything[:, 1], more[..., 1, :], c[1])
        torch.testing.assert_close(step, every[..., 1], **exact)

    def test_series_are_independent(self, emission, z, c, y, everything):
        order = torch.tensor([2, 0, 1])
        permuted = c.replace(**{name: getattr(c, name)[order] for name in FIELDS})
        every = emission.log_prob(y, everything, z, c)
        other = emission.log_prob(y[order], everything, z[order], permuted)
        torch.testing.assert_close(every[order], other, **exact)

    def test_the_density_has_unit_mass(self):
        torch.manual_seed(0)
        emission, c = self.build(1).double(), self.context(self.batch, self.steps, 1)
        z = torch.randn(self.batch, self.steps, self.latent_dim, dtype=torch.float64)
        with torch.no_grad():
            mass = self.total(emission(z, c))
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-6, atol=0)

    def test_samples_have_the_moments_of_the_distribution(self, emission, z, c):
        if not self.moments:
            pytest.skip("the moments have no closed form")
        n = 20_000
        distribution = emission(z[:, 0], c[0])
        x = sample(distribution, (n,), seeded(5)).detach().to(z.dtype)
        mean, variance = distribution.mean.detach(), distribution.variance.detach()
        assert ((x.mean(0) - mean).abs() <= 5 * (variance / n).sqrt()).all()
        deviation = (x - mean).square()
        assert ((deviation.mean(0) - variance).abs() <= 5 * deviation.std(0) / n**0.5).all()

    def test_missing_cells_are_left_out(self, emission, z, c, y):
        if not self.factorises:
            pytest.skip("dimensions depend on one another")
        observed = torch.rand(y.shape, generator=seeded(6)) < 0.5
        distribution = emission(z, c)
        assert isinstance(distribution, Independent)
        cells = distribution.base_dist.log_prob(y)
        expected = torch.where(observed, cells, torch.zeros_like(cells)).sum(-1)
        torch.testing.assert_close(emission.log_prob(y, observed, z, c), expected, **exact)

    def test_what_stands_in_a_missing_cell_does_not_matter(self, emission, z, c, y):
        observed = torch.rand(y.shape, generator=seeded(6)) < 0.5
        expected = emission.log_prob(y, observed, z, c)
        for anything in (-7.5, 1e30, 0.3):
            filled = torch.where(observed, y, torch.full_like(y, anything))
            torch.testing.assert_close(emission.log_prob(filled, observed, z, c), expected, **exact)

    def test_nothing_observed_gives_no_gradient(self, emission, z, c, y):
        z = z.clone().requires_grad_()
        nothing = torch.zeros_like(y, dtype=torch.bool)
        log_prob = emission.log_prob(torch.full_like(y, -7.5), nothing, z, c)
        torch.testing.assert_close(log_prob, torch.zeros_like(log_prob), rtol=0, atol=0)
        log_prob.sum().backward()
        for x in (z, *emission.parameters()):
            assert torch.equal(x.grad, torch.zeros_like(x))

    def test_every_parameter_gets_a_finite_gradient(self, emission, z, c, y, everything):
        emission.log_prob(y, everything, z, c).sum().backward()
        for name, parameter in emission.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"{name} has the gradient {parameter.grad}"
            assert parameter.grad.abs().sum() > 0, f"{name} has no influence"

    def test_shift_and_scale_are_an_affine_map(self, emission, z, c, y, everything):
        if not self.real:
            pytest.skip("values are not real")
        a, b = 7.0, 3.0
        moved = c.replace(shift=b + a * c.shift, scale=a * c.scale)
        before = emission.log_prob(y, everything, z, c)
        after = emission.log_prob(b + a * y, everything, z, moved)
        jacobian = self.obs_dim * torch.log(torch.tensor(a, dtype=z.dtype))
        torch.testing.assert_close(after, before - jacobian, **exact)

    def test_the_scale_multiplies_the_mean(self, emission, z, c):
        if not self.counts:
            pytest.skip("values are not counts")
        more = emission(z, c.replace(scale=7 * c.scale, shift=c.shift + 3))
        torch.testing.assert_close(more.mean, 7 * emission(z, c).mean, **exact)

    def test_a_private_generator_decides_the_sample(self, emission, z, c):
        state = torch.get_rng_state()
        first, second = (sample(emission(z, c), (6,), seeded(7)) for _ in range(2))
        assert first.shape == (6, self.batch, self.steps, self.obs_dim)
        assert torch.equal(first, second)
        assert torch.equal(state, torch.get_rng_state())

    def test_samples_pass_the_check(self, emission, y, everything):
        emission.check(y, everything)

    def test_the_check_names_a_wrong_width(self, emission, y, everything):
        with pytest.raises(ValueError, match="has 2 observed dimensions, the sequences have 1"):
            emission.check(y[..., :1], everything[..., :1])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_type_follows_the_inputs(self, dtype, z, y, everything):
        emission = self.build().to(dtype)
        c = self.context(self.batch, self.steps, dtype=dtype)
        assert emission.log_prob(y.to(dtype), everything, z.to(dtype), c).dtype == dtype
        drawn = sample(emission(z.to(dtype), c))
        assert drawn.dtype in (dtype, torch.long)

    def test_a_copy_is_equal_and_apart(self, emission, z, c, y, everything):
        before = emission.log_prob(y, everything, z, c)
        for other in (copy.deepcopy(emission), pickle.loads(pickle.dumps(emission))):
            torch.testing.assert_close(other.log_prob(y, everything, z, c), before, **exact)
            other.check(y, everything)
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.add_(1.0)
            torch.testing.assert_close(emission.log_prob(y, everything, z, c), before, **exact)

    def test_the_state_dict_holds_all_there_is(self, emission, z, c, y, everything):
        other = self.build().double()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.5 * torch.rand_like(parameter))
        other.load_state_dict(emission.state_dict())
        expected = emission.log_prob(y, everything, z, c)
        torch.testing.assert_close(other.log_prob(y, everything, z, c), expected, **exact)

    def test_the_repr_is_readable(self, emission):
        text = repr(emission)
        assert text.startswith(type(emission).__name__ + "(")
        assert " at 0x" not in text
        assert "tensor(" not in text
