"""What every emission owes."""

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from seqlatent.distributions import sample
from seqlatent.emissions import Emission
from seqlatent.sequences import Context
from seqlatent.testing import contract
from seqlatent.testing.contract import Contract, close, require, seeded, shaped

__all__ = ["EmissionContract", "check_emission"]


class EmissionContract(Contract):
    """Laws of every emission.

    ``build`` makes the emission, over a state of ``latent_dim`` dimensions and what ``context``
    gives: one feature of memory and one covariate.

    Attributes:
        real: Whether values are real, so that shift and scale are an affine map.
        counts: Whether the scale multiplies the mean.
        moments: Whether its distributions know mean and variance.
        factorises: Whether dimensions are independent given the state.
        latent_dim: Dimensions of the state.
        obs_dim: Observed dimensions.
        batch: Series.
        steps: Steps of each.
    """

    real: bool = True
    counts: bool = False
    moments: bool = True
    factorises: bool = True
    latent_dim: int = 3
    obs_dim: int = 2
    batch: int = 3
    steps: int = 4

    def build(self, obs_dim: int = 2) -> Emission:
        """Returns the emission under test."""
        raise NotImplementedError

    def context(
        self, batch: int, steps: int, obs_dim: int = 2, dtype: torch.dtype = torch.float64
    ) -> Context:
        """Returns the context of a range of steps, with shifts and scales away from 0 and 1."""
        generator = seeded(1)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

        shift = random(batch, 1, obs_dim).expand(-1, steps, -1)
        scale = (1.0 + random(batch, 1, obs_dim).abs()).expand(-1, steps, -1)
        values: Any = {"m": random(batch, steps, 1), "u": random(batch, steps, 1)}
        return Context.regular(batch, steps, dtype=dtype, shift=shift, scale=scale, **values)

    def total(self, distribution: Distribution) -> Tensor:
        """Returns the sum or integral of a distribution of one cell, for each of its batch."""
        raise NotImplementedError

    def parts(self) -> tuple[Emission, Tensor, Context, Tensor, Tensor]:
        """The emission, states, their context, values on its support, and that all are seen."""
        p, c = self.made(self.obs_dim), self.context(self.batch, self.steps, self.obs_dim)
        shape = (self.batch, self.steps, self.latent_dim)
        z = torch.randn(shape, dtype=torch.float64, generator=seeded(2))
        y = sample(p(z, c), (), seeded(3)).detach().to(z.dtype)
        return p, z, c, y, torch.ones_like(y, dtype=torch.bool)

    def test_the_distribution_has_the_batch_of_the_state(self) -> None:
        p, c = self.made(self.obs_dim), self.context(self.batch, self.steps, self.obs_dim)
        z = torch.randn(self.batch, self.steps, self.latent_dim, dtype=torch.float64)
        found = p(z, c)
        shapes = tuple(found.batch_shape), tuple(found.event_shape)
        require(
            shapes == ((self.batch, self.steps), (self.obs_dim,)),
            f"forward must return a distribution of batch {(self.batch, self.steps)} and event "
            f"{(self.obs_dim,)}, found batch {shapes[0]} and event {shapes[1]}; write "
            "Independent(..., 1) where dimensions are independent",
        )

    def test_one_step_equals_all_steps(self) -> None:
        p, z, c, y, seen = self.parts()
        every = p.log_prob(y, seen, z, c)
        shaped(every, (self.batch, self.steps), "log_prob")
        for t in range(self.steps):
            one = p.log_prob(y[:, t], seen[:, t], z[:, t], c[t])
            close(one, every[:, t], "one step at a time has other densities")

    def test_sample_axes_lead(self) -> None:
        p, z, c, y, seen = self.parts()
        more = z + torch.randn(2, 5, *z.shape, dtype=z.dtype, generator=seeded(4))
        every = p.log_prob(y, seen, more, c)
        shaped(every, (2, 5, self.batch, self.steps), "log_prob of sampled states")
        text = "densities given several samples are not those given each"
        for i in range(2):
            for j in range(5):
                close(every[i, j], p.log_prob(y, seen, more[i, j], c), text)
        step = p.log_prob(y[:, 1], seen[:, 1], more[..., 1, :], c[1])
        close(step, every[..., 1], text)

    def test_series_are_independent(self) -> None:
        p, z, c, y, seen = self.parts()
        order = torch.tensor([2, 0, 1])
        other = p.log_prob(y[order], seen, z[order], contract.permuted(c, order))
        close(p.log_prob(y, seen, z, c)[order], other, "a density depends on other series")

    def test_the_density_has_unit_mass(self) -> None:
        p, c = self.made(1), self.context(self.batch, self.steps, 1)
        shape = (self.batch, self.steps, self.latent_dim)
        z = torch.randn(shape, dtype=torch.float64, generator=seeded(2))
        with torch.no_grad():
            mass = self.total(p(z, c))
        close(mass, torch.ones_like(mass), "densities sum to something else", rtol=1e-6, atol=0)

    def test_samples_have_the_moments_of_the_distribution(self) -> None:
        if not self.moments:
            raise SkipTest("the moments have no closed form")
        p, z, c, _, _ = self.parts()
        n = 20_000
        found = p(z[:, 0], c[0])
        x = sample(found, (n,), seeded(5)).detach().to(z.dtype)
        mean, variance = found.mean.detach(), found.variance.detach()
        bound = 5 * (variance / n).sqrt()
        require(((x.mean(0) - mean).abs() <= bound).all(), "the mean of samples is another")
        deviation = (x - mean).square()
        bound = 5 * deviation.std(0) / n**0.5
        away = (deviation.mean(0) - variance).abs()
        require((away <= bound).all(), "the variance of samples is another")

    def test_missing_cells_are_left_out(self) -> None:
        if not self.factorises:
            raise SkipTest("dimensions depend on one another")
        p, z, c, y, _ = self.parts()
        observed = torch.rand(y.shape, generator=seeded(6)) < 0.5
        found = p(z, c)
        require(isinstance(found, Independent), f"it must be Independent, found {found}")
        assert isinstance(found, Independent)
        cells = found.base_dist.log_prob(y)
        expected = torch.where(observed, cells, torch.zeros_like(cells)).sum(-1)
        text = "the density is not that of the cells that were seen"
        close(p.log_prob(y, observed, z, c), expected, text)

    def test_what_stands_in_a_missing_cell_does_not_matter(self) -> None:
        p, z, c, y, _ = self.parts()
        observed = torch.rand(y.shape, generator=seeded(6)) < 0.5
        expected = p.log_prob(y, observed, z, c)
        for anything in (-7.5, 1e30, 0.3):
            filled = torch.where(observed, y, torch.full_like(y, anything))
            text = f"{anything} in a missing cell changes the density"
            close(p.log_prob(filled, observed, z, c), expected, text)

    def test_nothing_observed_gives_no_gradient(self) -> None:
        p, z, c, y, _ = self.parts()
        z.requires_grad_()
        nothing = torch.zeros_like(y, dtype=torch.bool)
        found = p.log_prob(torch.full_like(y, -7.5), nothing, z, c)
        close(found, torch.zeros_like(found), "nothing seen has a density", rtol=0, atol=0)
        found.sum().backward()
        for x in (z, *(x for x in p.parameters() if x.requires_grad)):
            zero = x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))
            require(zero, f"nothing was seen, and a gradient is {x.grad} instead of zero")

    def test_every_parameter_gets_a_finite_gradient(self) -> None:
        p, z, c, y, seen = self.parts()
        if not any(x.requires_grad for x in p.parameters()):
            raise SkipTest("nothing is learned")
        p.log_prob(y, seen, z, c).sum().backward()
        contract.finite_gradients(p)
        for name, x in p.named_parameters():
            has = x.grad is None or bool(x.grad.abs().sum() > 0)
            require(has, f"the parameter {name} has no influence")

    def test_shift_and_scale_are_an_affine_map(self) -> None:
        if not self.real:
            raise SkipTest("values are not real")
        p, z, c, y, seen = self.parts()
        a, b = 7.0, 3.0
        moved = c.replace(shift=b + a * c.shift, scale=a * c.scale)
        jacobian = self.obs_dim * torch.log(torch.tensor(a, dtype=z.dtype))
        text = "values in other units, by c.shift and c.scale, have another density"
        after = p.log_prob(b + a * y, seen, z, moved)
        close(after, p.log_prob(y, seen, z, c) - jacobian, text)

    def test_the_scale_multiplies_the_mean(self) -> None:
        if not self.counts:
            raise SkipTest("values are not counts")
        p, z, c, _, _ = self.parts()
        more = p(z, c.replace(scale=7 * c.scale, shift=c.shift + 3))
        text = "seven times c.scale is not seven times the mean"
        close(more.mean, 7 * p(z, c).mean, text)

    def test_a_private_generator_decides_the_sample(self) -> None:
        p, z, c, _, _ = self.parts()
        found = contract.repeatable(lambda: sample(p(z, c), (6,), seeded(7)), "samples")
        shaped(found, (6, self.batch, self.steps, self.obs_dim), "samples")

    def test_samples_pass_the_check(self) -> None:
        p, _, _, y, seen = self.parts()
        try:
            p.check(y, seen)
        except ValueError as error:
            raise AssertionError(f"a sample lies outside of the support: {error}") from error

    def test_the_check_names_a_wrong_width(self) -> None:
        p, _, _, y, seen = self.parts()
        text = f"has {self.obs_dim} observed dimensions, the sequences have {2 * self.obs_dim}"
        try:
            p.check(torch.cat([y, y], -1), torch.cat([seen, seen], -1))
        except ValueError as error:
            require(text in str(error), f"it says {error}, and not that it {text}")
        else:
            raise AssertionError(f"values of another width pass its check; obs_dim is {p.obs_dim}")

    def test_the_type_follows_the_inputs(self) -> None:
        _, z, _, y, seen = self.parts()
        for dtype in (torch.float32, torch.float64):
            p = self.build(self.obs_dim).to(dtype)
            c = self.context(self.batch, self.steps, self.obs_dim, dtype=dtype)
            found = p.log_prob(y.to(dtype), seen, z.to(dtype), c).dtype
            require(found == dtype, f"densities of an emission in {dtype} are {found}")
            found = sample(p(z.to(dtype), c)).dtype
            require(found in (dtype, torch.long), f"samples of one in {dtype} are {found}")

    def test_a_copy_is_equal_and_apart(self) -> None:
        p, z, c, y, seen = self.parts()
        before = p.log_prob(y, seen, z, c)
        for what, other in contract.copies(p):
            close(other.log_prob(y, seen, z, c), before, f"{what} has other densities")
            other.check(y, seen)
            contract.moved(other)
            close(p.log_prob(y, seen, z, c), before, f"{what} shares its parameters")

    def test_the_state_dict_holds_all_there_is(self) -> None:
        p, z, c, y, seen = self.parts()
        other = self.made(self.obs_dim)
        contract.moved(other)
        other.load_state_dict(p.state_dict())
        text = "something that matters is no parameter or buffer"
        close(other.log_prob(y, seen, z, c), p.log_prob(y, seen, z, c), text)

    def test_the_repr_is_readable(self) -> None:
        contract.readable(self.made(self.obs_dim))


class _Own(EmissionContract):
    """Laws of an emission of which only its support is known."""

    fixed = False  # whether it has as many dimensions as it has, whatever is asked for

    def total(self, distribution: Distribution) -> Tensor:
        support = self.made(self.obs_dim).support
        lead = (-1, *(1 for _ in distribution.batch_shape), 1)
        if isinstance(support, constraints.integer_interval):
            values = torch.arange(support.lower_bound, support.upper_bound + 1)
        elif support is constraints.boolean:
            values = torch.arange(2)
        elif support is constraints.nonnegative_integer:
            values = torch.arange(20_001)
        else:
            return self._integral(distribution, support, lead)
        return distribution.log_prob(values.double().reshape(lead)).exp().sum(0)

    def _integral(
        self, distribution: Distribution, support: constraints.Constraint, lead: tuple[int, ...]
    ) -> Tensor:
        """Through the tails by the map of a grid on the support (trapezoidal rule)."""
        u = torch.linspace(-25.0, 25.0, 100_001, dtype=torch.float64).reshape(lead)
        drawn = sample(distribution, (1000,), seeded(8)).double()
        if support is constraints.real:
            centre = drawn.quantile(0.5, 0)
            width = drawn.quantile(0.75, 0) - drawn.quantile(0.25, 0)
            x, slope = centre + width * u.sinh(), width * u.cosh()
        elif support in (constraints.positive, constraints.nonnegative):
            centre = drawn.log().mean(0)
            x = (centre + u).exp()
            slope = x
        elif support is constraints.unit_interval:
            x = u.sigmoid()
            slope = x * (-u).sigmoid()
        else:
            raise SkipTest("its support is not known here: inherit EmissionContract, give it total")
        density = distribution.log_prob(x).exp() * slope[..., 0]
        return density.sum(0) * (50.0 / 100_000)

    def test_the_density_has_unit_mass(self) -> None:
        if self.obs_dim > 1 and self.fixed:
            raise SkipTest("it has several dimensions, whose densities are not integrated")
        super().test_the_density_has_unit_mass()


def check_emission(
    build: Callable[[int], Emission],
    *,
    latent_dim: int = 3,
    obs_dim: int | None = None,
    context: Callable[..., Context] | None = None,
    moments: bool = True,
    factorises: bool = True,
) -> list[str]:
    """Tries the laws of every emission on one of your own.

    Args:
        build: From observed dimensions to the emission.
        latent_dim: Dimensions of the state that it reads.
        obs_dim: Observed dimensions that it has whatever ``build`` is told; None for any.
        context: From series, steps, observed dimensions and a type to what it conditions on; one
            feature of memory and one covariate by default.
        moments: Whether its distributions know mean and variance.
        factorises: Whether dimensions are independent given the state.

    Returns:
        The laws that hold.

    Raises:
        AssertionError: At the first that does not, with a sentence.
    """
    laws: Any = _Own()
    laws.build, laws.latent_dim, laws.moments, laws.factorises = (
        build,
        latent_dim,
        moments,
        factorises,
    )
    laws.obs_dim, laws.fixed = (2, False) if obs_dim is None else (obs_dim, True)
    laws.context = laws.context if context is None else context
    support = build(laws.obs_dim).support
    laws.real = support is constraints.real
    laws.counts = support is constraints.nonnegative_integer
    return laws.run()
