"""Laws in continuous time: what they say over one gap is what they say over its parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.emissions.linear import LinearGaussian as Observation
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.networks import reinitialise
from seqlatent.sequences import Context, Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.transitions import (
    Cycle,
    LinearSDE,
    LocalLevel,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Regression,
    Sum,
    TrigonometricSeasonal,
)

exact = {"rtol": 1e-10, "atol": 1e-12}


def shake(module):
    """Moves all parameters a little away from their special initial values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def oscillator():
    """Returns the matrices of a damped oscillator whose velocity alone is noisy."""
    A = torch.tensor([[0.0, 1.0], [-0.5, -0.3]], dtype=torch.float64)
    LLT = torch.tensor([[0.0, 0.0], [0.0, 0.4]], dtype=torch.float64)
    a = torch.tensor([0.1, -0.2], dtype=torch.float64)
    return {"A": A, "a": a, "LLT": LLT, "m0": a, "P0": torch.eye(2, dtype=torch.float64)}


class InContinuousTime(TransitionContract):
    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestOrnsteinUhlenbeck(InContinuousTime):
    def build(self):
        return shake(OrnsteinUhlenbeck(2, time_scale=(1.0, 5.0)))


class TestOrnsteinUhlenbeckOnAGrid(TransitionContract):
    def build(self):
        return shake(OrnsteinUhlenbeck(3, time_scale=2.0))

    def small(self):
        return OrnsteinUhlenbeck(1)


class TestStableSDE(InContinuousTime):
    def build(self):
        return shake(LinearSDE(2))


class TestStableSDEOnAGrid(TransitionContract):
    def build(self):
        return shake(LinearSDE(3))


class TestFreeSDE(InContinuousTime):
    def build(self):
        return shake(LinearSDE(2, stable=False))


class TestKnownSDE(InContinuousTime):
    def build(self):
        return LinearSDE.of(**oscillator(), learn=True)


EXACT = {
    "level": lambda: LocalLevel(0.3),
    "trend": lambda: LocalLinearTrend(0.3, 0.2, continuous=True),
    "smooth trend": lambda: LocalLinearTrend(None, 0.2, continuous=True),
    "constant slope": lambda: LocalLinearTrend(0.3, None, continuous=True),
    "line": lambda: LocalLinearTrend(None, None, continuous=True),
    "harmonics": lambda: TrigonometricSeasonal(7.3, 3, 0.2),
    "cycle": lambda: Cycle(9.0, 0.3, damping=0.7),
    "regression": lambda: Regression([0, 1], scale=0.2),
    "sum": lambda: Sum([LocalLevel(0.3), OrnsteinUhlenbeck(2), Cycle(5.0)]),
    "ornstein-uhlenbeck": lambda: shake(OrnsteinUhlenbeck(3, time_scale=(0.5, 3.0, 40.0))),
    "stable sde": lambda: shake(LinearSDE(3)),
    "free sde": lambda: shake(LinearSDE(3, stable=False)),
    "oscillator": lambda: LinearSDE.of(**oscillator()),
}


def over(transition, gap):
    """Returns F, b and Q of one gap."""
    dt = torch.tensor([[gap]], dtype=torch.float64)
    c = Context.regular(1, dtype=torch.float64, dt=dt)
    with torch.no_grad():
        F, b, G = transition.matrices(c)
    size = transition.latent_dim
    return F.reshape(size, size), b.reshape(size), (G @ G.mT).reshape(size, size)


def assert_composes(transition, first, second):
    """Checks that one gap is two gaps whose sum it is."""
    F1, b1, Q1 = over(transition, first)
    F2, b2, Q2 = over(transition, second)
    F, b, Q = over(transition, first + second)
    tolerance = {"rtol": 1e-10, "atol": 1e-10 * max(1.0, Q.abs().max().item())}
    torch.testing.assert_close(F, F2 @ F1, **tolerance)
    torch.testing.assert_close(b, F2 @ b1 + b2, **tolerance)
    torch.testing.assert_close(Q, F2 @ Q1 @ F2.mT + Q2, **tolerance)


@pytest.mark.parametrize("name", EXACT)
def test_a_gap_of_two_is_two_gaps_of_one(name):
    assert_composes(EXACT[name]().double(), 1.0, 1.0)


@pytest.mark.parametrize("name", EXACT)
@given(first=st.floats(1e-3, 20.0), second=st.floats(1e-3, 20.0))
def test_a_gap_is_the_sum_of_its_parts(name, first, second):
    assert_composes(EXACT[name]().double(), first, second)


@pytest.mark.parametrize("name", EXACT)
def test_over_no_gap_nothing_happens(name):
    transition = EXACT[name]().double()
    F, b, Q = over(transition, 1e-9)
    eye = torch.eye(transition.latent_dim, dtype=torch.float64)
    torch.testing.assert_close(F, eye, rtol=0, atol=1e-7)
    torch.testing.assert_close(b, torch.zeros_like(b), rtol=0, atol=1e-7)
    torch.testing.assert_close(Q, torch.zeros_like(Q), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", EXACT)
def test_equal_gaps_share_their_matrices(name):
    transition = EXACT[name]().double()
    unit = transition.matrices(context(2, 4))
    assert all(x.ndim <= 2 for x in unit)
    mixed = context(2, 4)
    dt = torch.tensor([[1.0, 2.0, 1.0, 3.5], [2.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    mixed = mixed.replace(dt=dt[..., None])
    for whole, x in zip(transition.matrices(mixed), unit, strict=True):
        torch.testing.assert_close(whole.expand(2, 4, *x.shape)[0, 2], x, **exact)


@pytest.mark.parametrize("name", EXACT)
def test_steps_between_that_nobody_saw_do_not_matter(name):
    """The evidence is the same on a grid with holes and on the times that were observed."""
    transition = EXACT[name]().double()
    emission = Observation(transition.latent_dim, scale=0.5).double()
    model = LatentModel(transition, emission, Kalman())
    y = torch.randn(2, 12, 1, dtype=torch.float64)
    u = torch.zeros(2, 12, 2, dtype=torch.float64)
    kept = torch.tensor([0, 1, 4, 5, 9, 11])
    hole = torch.ones(12, dtype=torch.bool)
    hole[kept] = False
    grid = Sequences.of(y.masked_fill(hole[:, None], torch.nan), u=u)
    sparse = Sequences.of(y[:, kept], t=kept.double(), u=u[:, kept])
    with torch.no_grad():
        first, second = (model.filter(s).log_evidence.sum(-1) for s in (grid, sparse))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "build", [EXACT["ornstein-uhlenbeck"], EXACT["stable sde"], EXACT["cycle"]]
)
@pytest.mark.parametrize("gap", [0.1, 1.0, 30.0])
def test_the_first_state_is_stationary(build, gap):
    transition = build().double()
    F, b, Q = over(transition, gap)
    m0, G0 = transition.initial_moments(Context.regular(1, dtype=torch.float64))
    m0, P0 = m0.detach(), (G0 @ G0.mT).detach()
    torch.testing.assert_close(F @ m0 + b, m0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(F @ P0 @ F.mT + Q, P0, rtol=1e-9, atol=1e-9)


def test_after_a_long_gap_a_stable_distribution_has_forgotten():
    for build in (EXACT["ornstein-uhlenbeck"], EXACT["stable sde"]):
        transition = build().double()
        F, _, Q = over(transition, 5000.0)
        assert F.abs().max() < 1e-6
        distribution = transition.initial(Context.regular(1, dtype=torch.float64))
        torch.testing.assert_close(
            Q.diagonal(), distribution.variance[0].detach(), rtol=1e-6, atol=1e-6
        )


def test_a_stable_equation_is_stable_whatever_its_parameters():
    p = LinearSDE(4).double()
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.copy_(2 * torch.randn_like(parameter))
    A, _ = p.drift()
    assert (torch.linalg.eigvals(A.detach()).real < 0).all()


def test_the_equation_of_known_matrices_is_theirs():
    known = oscillator()
    p = LinearSDE.of(**known)
    A, a = p.drift()
    L = p.diffusion()
    m0, G0 = p.initial_moments(context(1, 1)[0])
    for found, name in ((A, "A"), (a, "a"), (m0, "m0")):
        assert torch.equal(found, known[name])
    torch.testing.assert_close(L @ L.mT, known["LLT"], **exact)
    torch.testing.assert_close(G0 @ G0.mT, known["P0"], **exact)
    assert not list(p.parameters())


def test_the_offset_agrees_with_small_steps():
    p = LinearSDE.of(**oscillator())
    _, b, _ = over(p, 2.0)
    z, steps = torch.zeros(2, dtype=torch.float64), 20_000
    for _ in range(steps):
        z = z + (2.0 / steps) * (p.A @ z + p.a)
    torch.testing.assert_close(b, z, rtol=1e-3, atol=1e-4)


def test_gradients_over_gaps_agree_with_finite_differences():
    class Moments(torch.nn.Module):
        def __init__(self, transition):
            super().__init__()
            self.transition = transition

        def forward(self, c):
            F, b, G = self.transition.matrices(c)
            return F, b, G @ G.mT

    module = Moments(shake(LinearSDE(2)).double())
    names = [name for name, _ in module.named_parameters()]
    c = context(1, 3, irregular=True)

    def moments(*values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (c,))

    inputs = tuple(x.detach().clone().requires_grad_() for x in module.parameters())
    assert torch.autograd.gradcheck(moments, inputs)


def test_no_gap_has_a_finite_gradient():
    p = OrnsteinUhlenbeck(2)
    c = Context.regular(1, dt=torch.zeros(1, 1))
    a, b, scale = p.affine(c)
    assert scale.abs().max() == 0
    (a + b + scale).sum().backward()
    assert all(x.grad.isfinite().all() for x in p.parameters())


@pytest.mark.parametrize("build", [lambda: OrnsteinUhlenbeck(2), lambda: LinearSDE(3)])
def test_parameters_return_to_their_start(build):
    p = shake(build())
    reinitialise(p, torch.Generator())
    for a, b in zip(p.parameters(), build().parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: OrnsteinUhlenbeck(1, time_scale=0.0), "time_scale must be a positive number"),
        (lambda: OrnsteinUhlenbeck(2, time_scale=(1.0,)), r"or 2 of them, found \(1.0,\)"),
        (lambda: OrnsteinUhlenbeck(1, scale=-1.0), "scale must be a positive standard deviation"),
        (lambda: LinearSDE(0), "latent_dim must be an integer of at least 1, found 0"),
        (lambda: LinearSDE.of(**{**oscillator(), "a": torch.zeros(3)}), "because A is 2 x 2"),
        (lambda: LinearSDE.of(**{**oscillator(), "LLT": -torch.eye(2)}), "diffusion L L\\^T was"),
        (
            lambda: LinearSDE.of(**{**oscillator(), "A": -torch.eye(2)}),
            "the noise must reach every direction.*rank 1 of 2",
        ),
    ],
)
def test_wrong_arguments_are_named(build, match):
    with pytest.raises(ValueError, match=match):
        build()
