"""Chains: densities equal the loop's, and so do paths and gradients, however they were sampled."""

import pytest
import torch
from batches import F64, close, normal, seeded, standard_error, within
from small_models import Curved, Matrices, Remembering, Reverting, linear_parts
from torch import nn
from torch.distributions import (
    Independent,
    Normal,
    StudentT,
    TransformedDistribution,
)
from torch.distributions.transforms import ExpTransform

from seqlatent.chain import (
    ConditionallyLinear,
    Correction,
    MarkovChain,
    sample_path,
    sequential_path,
)
from seqlatent.distributions import Carried, diagonal_normal, sample
from seqlatent.sequences import Context
from seqlatent.transitions.transition import NoLatent, Transition

B, K, M = 2, 2, 3


def context(steps, seed=0, grad=False):
    m = normal(B, steps, M, seed=seed)
    u = normal(B, steps, 1, seed=seed + 1)
    dt = 0.5 + torch.rand(B, steps, 1, generator=seeded(seed), dtype=F64)
    if grad:
        m, u, dt = (x.requires_grad_() for x in (m, u, dt))
    return Context.regular(B, steps, m=m, u=u, dt=dt, dtype=F64)


class Heavy(Transition):
    """Student-t steps, which are no location-scale transform of normal noise."""

    latent_dim = K

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.8, dtype=F64))

    def _distribution(self, loc):
        base = StudentT(torch.full_like(loc, 5.0), loc, torch.ones_like(loc), validate_args=False)
        return Independent(base, 1, validate_args=False)

    def initial(self, c):
        return self._distribution(c.dt.expand(*c.shape, K))

    def forward(self, z, c):
        return self._distribution(self.slope * z + c.u)


class Positive(Heavy):
    """Log-normal steps: a bare transformed distribution of normals."""

    def _distribution(self, loc):
        return TransformedDistribution(
            diagonal_normal(0.1 * loc, torch.ones_like(loc)), [ExpTransform()], validate_args=False
        )


class Deterministic(Transition):
    """A flow of a random start."""

    def __init__(self):
        super().__init__()
        self.latent_dim = K
        self.turn = nn.Parameter(normal(K, K))

    def initial(self, c):
        loc = c.dt.new_zeros(*c.shape, K)
        return diagonal_normal(loc, loc + 1)

    def forward(self, z, c):
        return Carried(None, torch.tanh(z @ self.turn) + c.u)


def linear(thin):
    return linear_parts(K, seed=3, thin=thin)[0]


KERNELS = {
    "normal": lambda: Curved(K, M + 1),
    "carried": lambda: Remembering(K, 3),
    "deterministic": Deterministic,
    "factor": lambda: linear(False),
    "thin factor": lambda: linear(True),
    "affine": lambda: Reverting(*(0.3 + normal(K, seed=i).abs() for i in range(3))),
    "no latent": NoLatent,
    "heavy": Heavy,
    "positive": Positive,
}


def recorded(kernel, c, shape, generator):
    """The plain loop that autograd records."""
    z = sample(kernel.initial(c[0]), shape, generator)
    path = [z]
    for t in range(1, c.shape[-1]):
        path.append(sample(kernel(path[-1], c[t]), (), generator))
    return torch.stack(path, -2)


def gradients(path, leaves, seed=5):
    weight = normal(*path.shape, seed=seed)
    loss = (weight * path + 0.1 * path.square() * weight.flip(-2)).sum()
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)]


# --- densities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", KERNELS)
def test_log_prob_of_all_steps_is_that_of_the_loop(name, steps):
    kernel, c = KERNELS[name](), context(steps)
    with torch.no_grad():
        z = recorded(kernel, c, (3,), seeded())
        expected = [kernel.initial(c[0]).log_prob(z[..., 0, :])]
        expected += [kernel(z[..., t - 1, :], c[t]).log_prob(z[..., t, :]) for t in range(1, steps)]
        found = MarkovChain(kernel, c).log_prob(z)
    assert found.shape == (3, B, steps)
    close(found, torch.stack(expected, -1))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", KERNELS)
def test_paths_have_sample_axes_in_front(name, shape):
    kernel, c = KERNELS[name](), context(4)
    z = MarkovChain(kernel, c).rsample(shape, seeded())
    assert z.shape == (*shape, B, 4, kernel.latent_dim)
    first, rest = MarkovChain(kernel, c).conditionals(z)
    assert first.batch_shape == (B,)
    assert rest.batch_shape == (*shape, B, 3)


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", KERNELS)
def test_sequential_path_has_values_and_gradients_of_the_recorded_loop(name, shape, steps):
    kernel, c = KERNELS[name](), context(steps, grad=True)
    leaves = [*kernel.parameters(), c.m, c.u, c.dt]
    found = sequential_path(kernel, c, shape, seeded())
    expected = recorded(kernel, c, shape, seeded())
    close(found, expected)
    if expected.requires_grad:
        for a, b in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
            close(a, b, atol=1e-11)


@pytest.mark.parametrize("name", ["normal", "carried", "thin factor"])
def test_gradients_flow_through_the_state_before_the_start(name):
    kernel, c = KERNELS[name](), context(4)
    z0 = normal(3, B, kernel.latent_dim, seed=8).requires_grad_()
    started = torch.tensor([True, False])

    found = sequential_path(kernel, c, (3,), seeded(), (z0, started))

    generator = seeded()
    moved = sample(kernel(z0, c[0]), (), generator)
    fresh = sample(kernel.initial(c[0]), (3,), generator)
    z = [torch.where(started[:, None], moved, fresh)]
    for t in range(1, 4):
        z.append(sample(kernel(z[-1], c[t]), (), generator))
    expected = torch.stack(z, -2)
    close(found, expected)
    leaves = [z0, *kernel.parameters()]
    for a, b in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        close(a, b, atol=1e-11)
    (grad,) = torch.autograd.grad(
        sequential_path(kernel, c, (3,), seeded(), (z0, started)).sum(), z0
    )
    assert torch.equal(grad[:, 1], torch.zeros_like(grad[:, 1]))
    assert bool((grad[:, 0] != 0).any())


def test_the_loop_is_recorded_once_not_per_step():
    kernel, c = Curved(K, M + 1), context(30)
    ways = set()
    pending = [sequential_path(kernel, c, (2,), seeded()).grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in ways:
            ways.add(node)
            pending.extend(n for n, _ in node.next_functions)
    assert len(ways) < 60


def test_a_second_backward_pass_says_what_to_do():
    kernel, c = Curved(K, M + 1), context(3)
    path = sequential_path(kernel, c, (2,), seeded())
    path.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"can be taken once.*sample another path"):
        path.sum().backward()


def test_nothing_is_recorded_without_gradients():
    kernel, c = Curved(K, M + 1), context(4)
    expected = sequential_path(kernel, c, (2,), seeded()).detach()
    with torch.no_grad():
        found = sequential_path(kernel, c, (2,), seeded())
    assert not found.requires_grad
    close(found, expected)
    with torch.inference_mode():
        close(sequential_path(kernel, c, (2,), seeded()).clone(), expected)


@pytest.mark.parametrize("name", ["affine", "factor", "thin factor"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_recurrences_sample_the_same_path_as_the_loop(name, steps):
    kernel, c = KERNELS[name](), context(steps, grad=True)
    leaves = [*kernel.parameters(), c.dt]
    found = MarkovChain(kernel, c).rsample((3,), seeded())
    expected = recorded(kernel, c, (3,), seeded())
    close(found, expected)
    for a, b in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "no latent"])
def test_a_path_continued_with_the_same_generator_is_the_path_at_once(name):
    kernel, c = KERNELS[name](), context(7)
    with torch.no_grad():
        whole = sequential_path(kernel, c, (3,), seeded())
        generator = seeded()
        head = sequential_path(kernel, c[:3], (3,), generator)
        started = torch.ones(B, dtype=torch.bool)
        tail = sequential_path(kernel, c[3:], (3,), generator, (head[..., -1, :], started))
    close(torch.cat([head, tail], -2), whole)


@pytest.mark.parametrize("started", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("name", ["affine", "factor", "thin factor", "normal"])
def test_the_shortest_way_continues_as_the_loop_does(name, started):
    kernel, c = KERNELS[name](), context(6)
    start = normal(3, B, K, seed=8), torch.tensor(started)
    found = sample_path(kernel, c, (3,), seeded(), start)
    close(found, sequential_path(kernel, c, (3,), seeded(), start))
    for a, b in zip(
        gradients(found, list(kernel.parameters())),
        gradients(sequential_path(kernel, c, (3,), seeded(), start), list(kernel.parameters())),
        strict=True,
    ):
        close(a, b, rtol=1e-9, atol=1e-11)


def test_a_start_that_no_series_has_is_the_initial_distribution():
    kernel, c = Curved(K, M + 1), context(3)
    start = normal(2, B, K), torch.zeros(B, dtype=torch.bool)
    close(
        sequential_path(kernel, c, (2,), seeded(), start),
        sequential_path(kernel, c, (2,), seeded()),
    )


def test_affine_paths_have_the_moments_of_the_distribution():
    rate, mean, scale = (0.3 + normal(K, seed=i).abs() for i in range(3))
    c = context(6)
    with torch.no_grad():
        z = MarkovChain(Reverting(rate, mean, scale), c).rsample((4000,), seeded())
    # stationary: every step has the distribution of the first
    assert within(z.mean(0), mean.expand(B, 6, K), standard_error(z))
    square = (z - mean).square()
    assert within(square.mean(0), scale.square().expand(B, 6, K), standard_error(square), 4.5)


def test_paths_leave_the_global_generator_alone():
    kernels = [build() for build in KERNELS.values()]
    before = torch.get_rng_state()
    for kernel in kernels:
        MarkovChain(kernel, context(3)).rsample((2,), seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_float32_stays_float32():
    for name in ("normal", "factor", "affine"):
        kernel = KERNELS[name]().float()
        c = context(3)
        c = c.replace(m=c.m.float(), u=c.u.float(), dt=c.dt.float())
        z = MarkovChain(kernel, c).rsample((2,), seeded())
        assert z.dtype == MarkovChain(kernel, c).log_prob(z).dtype == torch.float32


# --- corrections ---------------------------------------------------------------------------------


class Shrunk(Correction):
    """Halves the scale of a diagonal normal distribution."""

    def correct(self, p, z, c):
        assert isinstance(p, Independent)
        assert isinstance(p.base_dist, Normal)
        return diagonal_normal(p.base_dist.loc, 0.5 * p.base_dist.scale)


def test_conditionals_reuse_the_priors_own():
    kernel, c = Curved(K, M + 1), context(4)
    chain = MarkovChain(Shrunk(kernel), c)
    z = chain.rsample((3,), seeded())
    prior = MarkovChain(kernel, c).conditionals(z)
    fresh, reused = chain.conditionals(z), chain.conditionals(z, prior)
    for a, b in zip(fresh, reused, strict=True):
        close(a.mean, b.mean)
        close(a.variance, b.variance)
    close(fresh[1].variance, 0.25 * prior[1].variance)


def test_the_linear_kinds_are_told_apart_by_class():
    assert isinstance(linear(True), ConditionallyLinear)
    assert isinstance(KERNELS["affine"](), ConditionallyLinear)
    assert not isinstance(Curved(K, 0), ConditionallyLinear)
    assert isinstance(linear(True), Matrices)


class Bare(Heavy):
    """One whose steps lack what a distribution of a state has."""

    def __init__(self, first, step):
        super().__init__()
        self.first, self.step = first, step

    def initial(self, c):
        return self.first(torch.zeros(*c.shape, K, dtype=F64))

    def forward(self, z, c):
        return self.step(self.slope * z)


def unit(loc):
    return Normal(loc, torch.ones_like(loc))


def joint(loc):
    return Independent(unit(loc), 1)


def one_for_all(loc):
    return joint(loc[0])


BARE = [
    (
        unit,
        joint,
        TypeError,
        r"Bare\.initial must .* one event axis, found Normal of batch \(2, 2\)",
    ),
    (joint, unit, TypeError, r"Bare\.forward must .* one event axis, found Normal of batch \("),
    (one_for_all, joint, ValueError, r"Bare\.initial must .* of batch \(2,\), found batch \(\)"),
]


@pytest.mark.parametrize(("first", "step", "kind", "message"), BARE)
def test_a_kernel_of_another_shape_is_named(first, step, kind, message):
    chain = MarkovChain(Bare(first, step), context(3))
    with pytest.raises(kind, match=message):
        chain.rsample((4,))
    with pytest.raises(kind, match=message):
        chain.log_prob(torch.zeros(B, 3, K, dtype=F64))


@pytest.mark.parametrize(("first", "step", "kind", "message"), BARE)
@pytest.mark.parametrize("how", ["Particles", "Parallel", "Tilted"])
def test_a_model_with_a_transition_of_another_shape_says_so(first, step, kind, message, how):
    from seqlatent.emissions import Normal as NormalEmission
    from seqlatent.inference import Amortised, FilteringEncoder, Parallel, Particles, Tilted
    from seqlatent.inference.amortised.encoders import Encoder
    from seqlatent.model import LatentModel
    from seqlatent.networks import MinGRU
    from seqlatent.objectives import elbo, fivo
    from seqlatent.sequences import Sequences

    encoder = FilteringEncoder(MinGRU(Encoder.input_dim(1), 4))
    inference = {
        "Particles": lambda: Particles(5),
        "Parallel": lambda: Amortised(encoder, Parallel(encoder.out_dim, K)),
        "Tilted": lambda: Amortised(encoder, Tilted(encoder.out_dim, K)),
    }[how]()
    model = LatentModel(Bare(first, step), NormalEmission(K, 1), inference).double()
    y = Sequences.of(torch.zeros(B, 3, 1, dtype=F64))
    objective = fivo if how == "Particles" else elbo
    with pytest.raises(kind, match=message):
        objective(model, y)
