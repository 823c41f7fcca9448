"""Neural ordinary differential equations: the flow over a gap, its solvers and its gradients."""

import math

import pytest
import torch
from torch import nn

from seqlatent.chain import MarkovChain
from seqlatent.distributions import Carried
from seqlatent.networks import reinitialise
from seqlatent.sequences import Context
from seqlatent.testing import TransitionContract, context
from seqlatent.transitions.ode import BoundedField, NeuralODE

exact = {"rtol": 1e-10, "atol": 1e-10}
float64 = torch.float64


def perturbed(module, seed=0, size=0.3):
    """Moves every parameter away from its special start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module


def build(latent_dim=2, seed=0, **options):
    """A flow of some strength, in float64."""
    p = perturbed(NeuralODE(latent_dim, **{"hidden": (8,), **options}), seed).double()
    with torch.no_grad():
        if isinstance(p.field, BoundedField):
            p.field.log_speed.zero_()
    return p


def linear(A, **options):
    """A flow along dz/dt = A z."""
    field = nn.Linear(len(A), len(A), bias=False).double()
    with torch.no_grad():
        field.weight.copy_(A)
    return NeuralODE(len(A), field=field, **options).double()


def gaps(dt, **fields):
    """A context of one step for each series, with the gaps given."""
    dt = torch.tensor(dt, dtype=float64)[:, None]
    return Context.regular(len(dt), dtype=float64, dt=dt, **fields)


class TestNeuralODE(TransitionContract):
    def build(self):
        return build(3, diffusion=0.2, jump=0.1, context_dim=3)

    def small(self):
        return build(1, diffusion=0.2, context_dim=3)

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, covariate_dim=1, irregular=True)


class TestAdjoint(TransitionContract):
    def build(self):
        return build(2, diffusion=0.2, adjoint=True, method="midpoint")

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestJumps(TransitionContract):
    def build(self):
        return build(2, diffusion=None, jump=0.3)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestDeterministicFlow(TransitionContract):
    def build(self):
        return build(2, diffusion=None)

    def small(self):
        return None  # there is no density after the first step

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)

    def test_every_parameter_gets_a_finite_gradient_from_the_density(self):
        transition, c, z = self.parts()
        MarkovChain(transition, c).log_prob(z).sum().backward()
        for name, parameter in transition.first.named_parameters():
            assert parameter.grad.isfinite().all(), name

    def test_gaps_count_if_and_only_if_it_says_so(self):
        transition, c, z = self.parts()
        far = c.replace(dt=3 * c.dt)
        near, wide = (transition(z[:, :-1], k[1:]).carry for k in (c, far))
        assert (near - wide).abs().max() > 1e-6

    def test_only_the_first_step_is_scored(self):
        transition, c, z = self.parts()
        assert isinstance(transition(z[:, 0], c[1]), Carried)
        log_prob = MarkovChain(transition, c).log_prob(z)
        torch.testing.assert_close(log_prob[:, 1:], torch.zeros_like(log_prob[:, 1:]))
        torch.testing.assert_close(log_prob[:, 0], transition.initial(c[0]).log_prob(z[:, 0]))


@pytest.mark.parametrize("method", ["rk4", "dopri5", "dopri8"])
def test_a_linear_flow_is_the_matrix_exponential(method):
    A = torch.tensor([[-0.3, 1.0], [-1.0, -0.1]], dtype=float64)
    p = linear(A, method=method, max_step=0.02, rtol=1e-10, atol=1e-10)
    c = gaps([0.3, 1.0, 2.7])
    z = torch.randn(4, 3, 2, dtype=float64)
    expected = (torch.linalg.matrix_exp(A * c.dt[..., None]) @ z[..., None])[..., 0]
    torch.testing.assert_close(p.flow(z, c), expected, rtol=1e-7, atol=1e-7)


def test_fixed_steps_converge_at_their_order():
    A = torch.tensor([[-0.3, 1.0], [-1.0, -0.1]], dtype=float64)
    c, z = gaps([3.0]), torch.ones(1, 2, dtype=float64)
    expected = torch.linalg.matrix_exp(3 * A) @ z[0]
    for method, order in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
        wide, narrow = (
            (linear(A, method=method, max_step=step).flow(z, c)[0] - expected).norm().item()
            for step in (0.1, 0.05)
        )
        assert math.log2(wide / narrow) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_gap_of_two_is_two_gaps_of_one(method):
    p = build(3, diffusion=None, method=method, rtol=1e-9, atol=1e-9, context_dim=1)
    u = torch.randn(4, 1, dtype=float64)
    one, two = gaps([1.0] * 4, u=u), gaps([2.0] * 4, u=u)
    z = torch.randn(4, 3, dtype=float64)
    torch.testing.assert_close(p.flow(p.flow(z, one), one), p.flow(z, two), rtol=1e-6, atol=1e-6)


def test_a_series_does_not_depend_on_the_gaps_of_others():
    p = build(2, diffusion=None)
    z = torch.randn(3, 2, dtype=float64)
    together = p.flow(z, gaps([0.4, 1.0, 6.5]))
    for i, dt in enumerate([0.4, 1.0, 6.5]):
        torch.testing.assert_close(together[i : i + 1], p.flow(z[i : i + 1], gaps([dt])), **exact)


def test_no_step_is_longer_than_max_step():
    calls = []

    class Counting(nn.Module):
        def forward(self, x):
            calls.append(x)
            return -x

    for dt, step, count in ((1.0, 1.0, 1), (2.5, 1.0, 3), (2.5, 0.5, 5), (0.1, 1.0, 1)):
        calls.clear()
        p = NeuralODE(1, field=Counting(), method="euler", max_step=step).double()
        p.flow(torch.ones(1, 1, dtype=float64), gaps([dt]))
        assert len(calls) == count


class Counting(nn.Module):
    """A pull to zero that counts its calls, and the states that they were made for."""

    def __init__(self):
        super().__init__()
        self.calls = self.states = 0

    def forward(self, x):
        self.calls += 1
        self.states += len(x)
        return -0.1 * x


@pytest.mark.parametrize("adjoint", [False, True])
def test_the_work_of_a_gap_is_bounded(adjoint):
    calls = {}
    for gap in (1.0, 100.0, 200_000.0):
        field = Counting()
        p = NeuralODE(1, field=field, adjoint=adjoint).double()
        assert bool(p.flow(torch.ones(1, 1, dtype=float64), gaps([gap])).isfinite().all())
        calls[gap] = field.calls
    assert calls == {1.0: 4, 100.0: 4 * 100, 200_000.0: 4 * 256}


@pytest.mark.parametrize("gap", [100.0, 200_000.0])
def test_one_long_gap_is_no_work_for_those_beside_it(gap):
    field = Counting()
    p = NeuralODE(1, field=field).double()
    p.flow(torch.ones(500, 1, dtype=float64), gaps([1.0] * 499 + [gap]))
    assert field.states <= 4 * (499 + 256)


@pytest.mark.parametrize("method", ["midpoint", "rk4", "dopri5"])
def test_a_gap_beyond_the_longest_counts_as_that(method):
    p = build(2, diffusion=0.2, method=method, longest=20.0)
    z = torch.randn(2, 2, dtype=float64)
    far, most = p(z, gaps([1e6, 3.0])), p(z, gaps([20.0, 3.0]))
    torch.testing.assert_close(far.mean, most.mean, **exact)
    torch.testing.assert_close(far.variance, most.variance, **exact)


def test_a_bounded_flow_is_at_rest_long_before_the_longest_gap():
    p = build(2, diffusion=None)
    with torch.no_grad():
        p.field.logit_pull.fill_(-1.5)
        p.field.log_speed.fill_(-3.0)
    z = torch.randn(3, 2, dtype=float64)
    torch.testing.assert_close(p.flow(z, gaps([200.0] * 3)), p.flow(z, gaps([1e5] * 3)), **exact)


def test_gaps_of_all_lengths_at_once_are_the_solver_alone_on_each():
    from torchdiffeq import odeint

    p = build(2, diffusion=None, context_dim=1)
    dt = [0.3, 1.0, 1.5, 2.0, 2.5, 4.0, 5.0, 17.2, 40.0]
    u = torch.randn(len(dt), 1, dtype=float64)
    z = torch.randn(6, len(dt), 2, dtype=float64)
    found = p.flow(z, gaps(dt, u=u))
    for i, gap in enumerate(dt):

        def field(tau, state, i=i):
            return p.field(torch.cat([state, u[i].expand(len(state), 1)], -1))

        t = torch.tensor([0.0, gap], dtype=float64)
        step = {"step_size": gap / math.ceil(gap)}
        expected = odeint(field, z[:, i], t, method="rk4", options=step)[-1]
        torch.testing.assert_close(found[:, i], expected, rtol=1e-8, atol=1e-8)


def test_gradients_of_gaps_of_several_steps_reach_state_gap_and_covariates():
    p = build(2, diffusion=None, context_dim=1)
    z = torch.randn(3, 2, dtype=float64, requires_grad=True)
    dt = torch.tensor([[0.5], [3.4], [6.2]], dtype=float64, requires_grad=True)
    u = torch.randn(3, 1, dtype=float64, requires_grad=True)

    def flow(z, dt, u):
        return p.flow(z, Context.regular(3, dtype=float64, dt=dt, u=u))

    assert torch.autograd.gradcheck(flow, (z, dt, u))


def test_noise_grows_with_the_gap_and_jumps_do_not():
    c, z = gaps([0.5, 2.0]), torch.zeros(2, 1, dtype=float64)
    for options, variance in (
        ({"diffusion": 0.3, "jump": None}, [0.09 * 0.5, 0.09 * 2.0]),
        ({"diffusion": None, "jump": 0.2}, [0.04, 0.04]),
        ({"diffusion": 0.3, "jump": 0.2}, [0.09 * 0.5 + 0.04, 0.09 * 2.0 + 0.04]),
    ):
        found = NeuralODE(1, **options).double()(z, c).variance[:, 0]
        torch.testing.assert_close(found, torch.tensor(variance, dtype=float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("method", "rtol"), [("dopri5", 1e-6), ("rk4", 1e-3)])
def test_the_adjoint_has_the_gradients_of_the_solver(method, rtol):
    found = []
    for adjoint in (False, True):
        options = {"method": method, "rtol": 1e-10, "atol": 1e-10, "max_step": 0.1}
        torch.manual_seed(0)
        p = build(2, diffusion=None, adjoint=adjoint, context_dim=2, **options)
        generator = torch.Generator().manual_seed(3)
        inputs = [
            torch.randn(3, width, dtype=float64, generator=generator).requires_grad_()
            for width in (2, 1, 1)
        ]
        dt = torch.tensor([[0.3], [1.0], [2.2]], dtype=float64, requires_grad=True)
        c = gaps([1.0] * 3, m=2 * inputs[1], u=inputs[2]).replace(dt=dt)
        p(inputs[0], c).carry.square().sum().backward()
        found.append([x.grad for x in (*inputs, dt, *p.field.parameters())])
    for through, adjoint in zip(*found, strict=True):
        torch.testing.assert_close(adjoint, through, rtol=rtol, atol=rtol)


def test_gradients_agree_with_differences():
    p = build(2, diffusion=0.2, context_dim=1)
    z = torch.randn(2, 2, dtype=float64, requires_grad=True)
    dt = torch.tensor([[0.7], [2.3]], dtype=float64, requires_grad=True)
    u = torch.randn(2, 1, dtype=float64, requires_grad=True)

    def moments(z, dt, u):
        distribution = p(z, gaps([1.0, 1.0]).replace(dt=dt, u=u))
        return distribution.mean, distribution.variance

    assert torch.autograd.gradcheck(moments, (z, dt, u))


def test_long_rollouts_stay_finite():
    p = perturbed(NeuralODE(3, hidden=(16,), diffusion=0.5), size=3.0)
    with torch.no_grad():
        z = MarkovChain(p, Context.regular(4, 300)).rsample((2,))
    assert z.isfinite().all()


def test_the_field_keeps_its_box():
    field = perturbed(BoundedField(2, hidden=(8,)), size=2.0).double()
    speed, pull = field.log_speed.exp(), field.logit_pull.sigmoid()
    p = NeuralODE(2, field=field, diffusion=None, max_step=0.1).double()
    z = (speed / pull) * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.1, -1.0]], dtype=float64)
    with torch.no_grad():
        for _ in range(20):
            z = p.flow(z, gaps([3.0] * 3))
    assert (z.abs() <= (speed / pull) * (1 + 1e-6)).all()


def test_it_starts_near_the_zero_field():
    for p in (NeuralODE(4), NeuralODE(4)):
        reinitialise(p, torch.Generator().manual_seed(0))
        z = torch.randn(10, 4)
        moved = p(z, Context.regular(10)).mean - z
        assert moved.abs().max() < 0.2
        assert moved.abs().max() > 0


def test_a_chain_of_random_starts_is_differentiable_through_time():
    p = build(2, diffusion=None)
    c = context(3, 6, irregular=True)
    z = MarkovChain(p, c).rsample((2,), torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad(z[..., -1, :].sum(), p.first.loc)
    state = p.initial(c[0]).mean + (z[..., 0, :] - p.initial(c[0]).mean).detach()
    for t in range(1, 6):
        state = p.flow(state, c[t])
    torch.testing.assert_close(state, z[..., -1, :], **exact)
    (expected,) = torch.autograd.grad(state.sum(), p.first.loc)
    torch.testing.assert_close(found, expected, **exact)


def test_the_tilted_posterior_corrects_the_start_alone():
    from seqlatent.inference.amortised.tilted import Tilted

    p, q = build(2, diffusion=None), Tilted(5, 2).double()
    c = context(3, 7, irregular=True)
    c = c.replace(e=q.statistics(torch.randn(3, 7, 5, dtype=float64)))
    chain = MarkovChain(q.kernel(p, c), c)
    z = chain.rsample((2,))
    torch.testing.assert_close(z[..., 1:, :], p.flow(z[..., :-1, :], c[1:]), **exact)
    first, rest = chain.conditionals(z)
    assert (first.mean - p.initial(c[0]).mean).abs().max() > 1e-6
    assert isinstance(rest, Carried)
    z.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in q.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rk5"}, "method to be one of euler, midpoint, rk4"),
        ({"max_step": 0.0}, "max_step to be a positive number, found 0.0"),
        ({"diffusion": -0.1}, "diffusion must be a positive standard deviation"),
        ({"jump": float("nan")}, "jump must be a positive standard deviation"),
        ({"context_dim": -1}, "context_dim to be an integer of at least 0"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        NeuralODE(2, **options)


def test_a_pull_of_one_is_refused():
    with pytest.raises(ValueError, match="pull must be below 1"):
        BoundedField(2, pull=1.0)


def test_a_context_of_another_width_is_named():
    with pytest.raises(ValueError, match="build it with context_dim=1"):
        NeuralODE(1).double()(
            torch.zeros(2, 1, dtype=float64), gaps([1.0, 1.0], u=torch.zeros(2, 1, dtype=float64))
        )
