"""What every transition owes."""

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.chain import ConditionallyLinear, MarkovChain, initial_of, next_of
from seqlatent.distributions import Carried, FactorNormal, sample
from seqlatent.sequences import Context
from seqlatent.testing import contract
from seqlatent.testing.contract import Contract, cast, close, require, seeded, shaped
from seqlatent.transitions import Transition

__all__ = ["TransitionContract", "check_transition"]


class TransitionContract(Contract):
    """Laws of every transition.

    ``build`` makes the transition; its parameters should be away from special values (a gate that
    is exactly shut has no gradient). ``context`` makes what it conditions on.

    Attributes:
        moments: Whether its distributions know mean and variance.
        pathwise: Whether a path carries gradients to the parameters.
        batch: Series.
        steps: Steps of each.
    """

    moments: bool = True
    pathwise: bool = True
    batch: int = 3
    steps: int = 5

    def build(self) -> Transition:
        """Returns the transition under test."""
        raise NotImplementedError

    def small(self) -> Transition | None:
        """Returns one with at most two random dimensions, or None where there is no such."""
        p = self.build()
        return p if p.latent_dim <= 2 else None

    def context(self, batch: int, steps: int) -> Context:
        """Returns the context of a range of steps."""
        return contract.context(batch, steps)

    def parts(self) -> tuple[Transition, Context, Tensor]:
        """The transition, a context, and a path on its own support ``(B, T, K)``."""
        p, c = self.made(), self.context(self.batch, self.steps)
        return p, c, self.path(p, c)

    def path(self, p: Transition, c: Context, shape: tuple[int, ...] = ()) -> Tensor:
        """A path that is always the same."""
        return MarkovChain(p, c).rsample(shape, seeded(3)).detach()

    def _shapes(self, found: Distribution, batch: tuple[int, ...], dim: int, what: str) -> None:
        shapes = tuple(found.batch_shape), tuple(found.event_shape)
        require(
            shapes == (batch, (dim,)),
            f"{what} must return a distribution of batch {batch} and event {(dim,)}, found batch "
            f"{shapes[0]} and event {shapes[1]}",
        )

    def test_initial_has_the_batch_of_its_context(self) -> None:
        p, c = self.made(), self.context(self.batch, self.steps)
        self._shapes(initial_of(p, c[0]), (self.batch,), p.latent_dim, "initial")

    def test_forward_has_the_batch_of_its_state(self) -> None:
        p, c, z = self.parts()
        found = next_of(p, z[:, :-1], c[1:])
        self._shapes(found, (self.batch, self.steps - 1), p.latent_dim, "forward")

    def test_one_step_equals_all_steps(self) -> None:
        p, c, z = self.parts()
        every = p(z[:, :-1], c[1:]).log_prob(z[:, 1:])
        for t in range(1, self.steps):
            one = p(z[:, t - 1], c[t])
            self._shapes(one, (self.batch,), p.latent_dim, "forward of one step")
            close(one.log_prob(z[:, t]), every[:, t - 1], "one step at a time has other densities")

    def test_sample_axes_lead(self) -> None:
        p, c, _ = self.parts()
        z = self.path(p, c, (2, 3))
        shaped(z, (2, 3, self.batch, self.steps, p.latent_dim), "paths")
        found = p(z[..., :-1, :], c[1:])
        self._shapes(found, (2, 3, self.batch, self.steps - 1), p.latent_dim, "forward")
        every = found.log_prob(z[..., 1:, :])
        text = "densities of several samples are not those of each"
        for i in range(2):
            for j in range(3):
                close(every[i, j], p(z[i, j, :, :-1], c[1:]).log_prob(z[i, j, :, 1:]), text)
        close(p(z[..., 0, :], c[1]).log_prob(z[..., 1, :]), every[..., 0], text)

    def test_series_are_independent(self) -> None:
        p, c, z = self.parts()
        order = torch.tensor([2, 0, 1])
        chain, other = MarkovChain(p, c), MarkovChain(p, contract.permuted(c, order))
        text = "the density of a series depends on the others"
        close(chain.log_prob(z)[order], other.log_prob(z[order]), text)
        for b in range(self.batch):
            one = torch.tensor([b])
            alone = MarkovChain(p, contract.permuted(c, one)).log_prob(z[one])
            close(alone, chain.log_prob(z)[one], text)

    def test_every_parameter_gets_a_finite_gradient_from_the_density(self) -> None:
        p, c, z = self.parts()
        if not any(x.requires_grad for x in p.parameters()):
            raise SkipTest("nothing is learned")
        MarkovChain(p, c).log_prob(z).sum().backward()
        contract.finite_gradients(p)

    def test_paths_carry_finite_gradients(self) -> None:
        if not self.pathwise:
            raise SkipTest("its samples are not reparametrised")
        p, c, _ = self.parts()
        path = MarkovChain(p, c).rsample((4,))
        if not any(x.requires_grad for x in p.parameters()):
            require(not path.requires_grad, "a path has a gradient, and nothing is learned")
            return
        require(path.requires_grad, "a path has no gradient; sample with rsample")
        path.square().sum().backward()
        gradients = [x.grad for x in p.parameters() if x.grad is not None]
        require(bool(gradients), "a path has no gradient in any parameter")
        require(all(bool(g.isfinite().all()) for g in gradients), "a gradient is not finite")

    def test_the_state_gets_a_finite_gradient(self) -> None:
        p, c, z = self.parts()
        z.requires_grad_()
        MarkovChain(p, c).log_prob(z).sum().backward()
        assert z.grad is not None
        require(z.grad.isfinite().all(), f"the gradient of the density in a state is {z.grad}")

    def test_samples_have_the_moments_of_the_distribution(self) -> None:
        if not self.moments:
            raise SkipTest("the moments have no closed form")
        p, c, z = self.parts()
        for found in (p.initial(c[0]), p(z[:, 0], c[1])):
            n = 20_000
            x = sample(found, (n,), seeded(4)).detach()
            mean, variance = found.mean.detach(), found.variance.detach()
            deviation = (x - mean).square()
            bound = 5 * (variance / n).sqrt() + 1e-9
            require(((x.mean(0) - mean).abs() <= bound).all(), "the mean of samples is another")
            bound = 5 * deviation.std(0) / n**0.5 + 1e-9
            away = (deviation.mean(0) - variance).abs()
            require((away <= bound).all(), "the variance of samples is another")

    def test_the_density_integrates_to_one(self) -> None:
        p = self.small()
        if p is None:
            raise SkipTest("it has no distribution of one or two dimensions")
        p = p.double()
        c = self.context(1, 2)
        with torch.no_grad():
            z = self.path(p, c)
            for found in (p.initial(c[0]), p(z[:, 0], c[1])):
                mass = integral(found)
                one = torch.ones_like(mass)
                close(mass, one, "the density integrates to something else", rtol=1e-6, atol=0)

    def test_the_type_follows_the_inputs(self) -> None:
        for dtype in (torch.float32, torch.float64):
            p = self.build().to(dtype)
            c = cast(self.context(self.batch, self.steps), dtype)
            chain = MarkovChain(p, c)
            z = chain.rsample()
            found = {
                "paths": z,
                "densities": chain.log_prob(z),
                "first states": sample(p.initial(c[0])),
                "next states": sample(p(z[:, 0], c[1])),
            }
            for what, x in found.items():
                require(x.dtype == dtype, f"{what} of a transition in {dtype} are {x.dtype}")

    def test_a_copy_is_equal_and_apart(self) -> None:
        p, c, z = self.parts()
        before = MarkovChain(p, c).log_prob(z)
        for what, other in contract.copies(p):
            close(MarkovChain(other, c).log_prob(z), before, f"{what} has other densities")
            contract.moved(other)
            close(MarkovChain(p, c).log_prob(z), before, f"{what} shares its parameters")

    def test_the_state_dict_holds_all_there_is(self) -> None:
        p, c, z = self.parts()
        other = self.made()
        contract.moved(other)
        other.load_state_dict(p.state_dict())
        first, second = MarkovChain(p, c), MarkovChain(other, c)
        text = "something that matters is no parameter or buffer"
        close(first.log_prob(z), second.log_prob(z), text)

    def test_the_repr_is_readable(self) -> None:
        contract.readable(self.made())

    def test_a_series_of_one_step(self) -> None:
        p, c = self.made(), self.context(self.batch, 1)
        chain = MarkovChain(p, c)
        z = chain.rsample((2,))
        shaped(z, (2, self.batch, 1, p.latent_dim), "paths of one step")
        first = p.initial(c[0]).log_prob(z[..., 0, :])
        close(chain.log_prob(z)[..., 0], first, "the density of one step is not that of the first")

    def test_a_private_generator_decides_the_path(self) -> None:
        p, c, _ = self.parts()
        contract.repeatable(lambda: self.path(p, c, (2,)), "paths")

    def test_gaps_count_if_and_only_if_it_says_so(self) -> None:
        p, c, z = self.parts()
        far = c.replace(dt=3 * c.dt)
        near = p(z[:, :-1], c[1:]).log_prob(z[:, 1:])
        wide = p(z[:, :-1], far[1:]).log_prob(z[:, 1:])
        if not p.handles_gaps:
            close(near, wide, "it reads c.dt; say so by handles_gaps = True")
        elif any(x.requires_grad for x in p.parameters()):
            away = (near - wide).abs().max()
            require(away > 1e-6, "it says handles_gaps = True, and gaps change nothing")

    def test_its_matrices_are_its_distribution(self) -> None:
        p, c, z = self.parts()
        if not isinstance(p, ConditionallyLinear):
            raise SkipTest("it is not linear")
        F, b, G = p.matrices(c[1:])
        found = p(z[:, :-1], c[1:])
        mean = (F @ z[:, :-1, :, None])[..., 0] + b
        close(found.mean, mean, "forward has another mean than its matrices")
        variance = G.square().sum(-1).expand_as(mean)
        close(found.variance, variance, "forward has another variance than its matrices")
        m0, G0 = p.initial_moments(c[0])
        first = p.initial(c[0])
        mean, variance = m0.expand_as(first.mean), G0.square().sum(-1).expand_as(first.mean)
        close(first.mean, mean, "initial has another mean than initial_moments")
        close(first.variance, variance, "initial has another variance than initial_moments")
        for factor in (G, G0):
            rank = torch.linalg.matrix_rank(factor.detach())
            require((rank == factor.shape[-1]).all(), "columns of the noise factor depend")


def integral(found: Distribution, points: int = 401, width: float = 12.0) -> Tensor:
    """Integral of one series' density over its support (trapezoidal rule)."""
    if isinstance(found, Carried):
        random_dim, carry = found.random_dim, found.carry
    else:
        random_dim, carry = found.event_shape[0], None
    volume: Any = 1.0
    factor = None
    if isinstance(found, FactorNormal) and found.factor.shape[-1] < random_dim:
        factor = found.factor.expand(*found.batch_shape, *found.factor.shape[-2:])
        factor = factor.reshape(factor.shape[-2:])
        random_dim = factor.shape[-1]
        volume = torch.linalg.det(factor.mT @ factor).sqrt()
        centre, spread = factor.new_zeros(random_dim), factor.new_ones(random_dim)
    else:
        drawn = sample(found, (4000,), seeded(2)).detach()
        drawn = drawn.reshape(4000, -1)[:, :random_dim]
        centre, spread = drawn.mean(0), drawn.std(0)
    require(random_dim in (1, 2), "build one of one or two random dimensions, in small()")
    unit = torch.linspace(-width, width, points, dtype=centre.dtype)
    grid = torch.cartesian_prod(*[unit] * random_dim).reshape(-1, random_dim) * spread + centre
    cell = (2 * width / (points - 1)) ** random_dim * spread.prod() * volume
    if factor is not None:
        assert isinstance(found, FactorNormal)
        grid = found.loc.reshape(-1) + grid @ factor.mT
    if carry is not None:
        grid = torch.cat([grid, carry.reshape(1, -1).expand(len(grid), -1)], -1)
    density = found.log_prob(grid.reshape(len(grid), *found.batch_shape, -1)).exp()
    return (density * cell).sum()


def check_transition(
    build: Callable[[], Transition],
    *,
    context: Callable[[int, int], Context] | None = None,
    small: Callable[[], Transition | None] | None = None,
    moments: bool = True,
    pathwise: bool = True,
) -> list[str]:
    """Tries the laws of every transition on one of your own.

    Args:
        build: Returns the transition, its parameters away from special values.
        context: From series and steps to what it conditions on; without memory and covariates
            unless told otherwise: see :func:`seqlatent.testing.context`.
        small: Returns one with at most two random dimensions, whose density is integrated; None
            where there is none.
        moments: Whether its distributions know mean and variance.
        pathwise: Whether a path carries gradients to the parameters.

    Returns:
        The laws that hold.

    Raises:
        AssertionError: At the first that does not, with a sentence.
    """
    laws: Any = TransitionContract()
    laws.build, laws.moments, laws.pathwise = build, moments, pathwise
    laws.context = laws.context if context is None else context
    laws.small = laws.small if small is None else small
    return laws.run()
