"""Linear transitions: free matrices, and parameters that follow the context."""

import pytest
import torch

from seqlatent.chain import MarkovChain
from seqlatent.linalg import factor
from seqlatent.networks import reinitialise
from seqlatent.testing import TransitionContract, context
from seqlatent.transitions import (
    ContextAffine,
    ContextualNoise,
    LinearGaussian,
    LocalLevel,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Seasonal,
    Sum,
)
from seqlatent.transitions.parameters import Factor

exact = {"rtol": 1e-10, "atol": 1e-12}


def system(size=3, rank=3):
    """Returns float64 matrices of a stable system whose noise has some rank."""
    generator = torch.Generator().manual_seed(0)
    like = {"dtype": torch.float64, "generator": generator}
    F = 0.5 * torch.randn(size, size, **like)
    G, G0 = torch.randn(size, rank, **like), torch.randn(size, size, **like)
    b, m0 = torch.randn(size, **like), torch.randn(size, **like)
    return {"F": F, "b": b, "Q": G @ G.mT, "m0": m0, "P0": G0 @ G0.mT}


def shake(module):
    """Moves all parameters a little away from their special initial values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


class TestLinearGaussian(TransitionContract):
    def build(self):
        return shake(LinearGaussian(2))


class TestLinearGaussianDiagonal(TransitionContract):
    def build(self):
        return shake(LinearGaussian(3, diagonal=True))

    def small(self):
        return shake(LinearGaussian(1, diagonal=True))


class TestLinearGaussianKnown(TransitionContract):
    def build(self):
        return LinearGaussian.of(**system())

    def small(self):
        return LinearGaussian.of(**system(1, 1))


class TestLinearGaussianSingular(TransitionContract):
    def build(self):
        return LinearGaussian.of(**system(3, 2), learn=True)

    def small(self):
        matrices = system(3, 2)
        return LinearGaussian.of(**{**matrices, "P0": matrices["Q"]})


class TestContextualNoise(TransitionContract):
    def build(self):
        return shake(ContextualNoise(LocalLinearTrend(0.3, 0.2), 3))

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, covariate_dim=1)


class TestContextualNoiseOfASum(TransitionContract):
    def build(self):
        inner = Sum([LocalLevel(0.3), Seasonal(4, 0.2)])
        return shake(ContextualNoise(inner, 1, initial=False))

    def small(self):
        return ContextualNoise(LocalLevel(0.3), 1)

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1)


class TestContextualNoiseWithGaps(TransitionContract):
    def build(self):
        return shake(ContextualNoise(LocalLevel(0.3), 2))

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, irregular=True)


class TestContextAffine(TransitionContract):
    def build(self):
        return ContextAffine(2, 3, hidden=(8,))

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=2, covariate_dim=1)


class TestContextAffineWithoutContext(TransitionContract):
    def build(self):
        return ContextAffine(2, 0, hidden=())


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_matrices_are_those_that_were_given(learn, rank):
    given = system(3, rank)
    p = LinearGaussian.of(**given, learn=learn)
    c = context(1, 2)
    F, b, G = p.matrices(c)
    m0, G0 = p.initial_moments(c[0])
    assert G.shape == (3, rank)
    for found, expected in (
        (F, given["F"]),
        (b, given["b"]),
        (G @ G.mT, given["Q"]),
        (m0, given["m0"]),
        (G0 @ G0.mT, given["P0"]),
    ):
        torch.testing.assert_close(found.detach(), expected, **exact)
    assert any(x.requires_grad for x in p.parameters()) == learn
    assert len(list(p.parameters())) == (7 if learn else 0)


def test_known_matrices_move_with_the_module():
    p = LinearGaussian.of(**system()).float()
    assert all(x.dtype == torch.float32 for x in p.matrices(context(1, 2)))
    assert set(p.state_dict()) >= {"F", "b", "m0", "noise.log_scale", "spread.below"}


def test_matrices_are_the_same_at_every_step_without_an_axis():
    p = LinearGaussian(3)
    F, b, G = p.matrices(context(2, 5))
    assert (F.shape, b.shape, G.shape) == ((3, 3), (3,), (3, 3))


def test_the_start_is_stationary():
    p = LinearGaussian(4).double()
    F, _, G = p.matrices(context(1, 2))
    _, G0 = p.initial_moments(context(1, 2)[0])
    P = G0 @ G0.mT
    torch.testing.assert_close(F @ P @ F.mT + G @ G.mT, P, rtol=1e-6, atol=1e-6)


def test_a_singular_noise_keeps_its_directions_while_it_is_learned():
    p = LinearGaussian.of(**system(3, 2), learn=True)
    before = p.noise().detach()
    with torch.no_grad():
        p.noise.below.add_(1.0)
        p.noise.log_scale.sub_(0.3)
    both = torch.cat([before, p.noise().detach()], -1)
    assert int(torch.linalg.matrix_rank(both, rtol=1e-9)) == 2


def test_a_factor_is_triangular_with_a_positive_diagonal():
    P = system()["Q"]
    G = Factor(P)()
    torch.testing.assert_close(G, torch.linalg.cholesky(P), **exact)
    assert Factor(P.diagonal().diag(), diagonal=True)().diagonal().prod() > 0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"F": torch.zeros(3)}, ValueError, r"F must be a square matrix .*found shape \(3,\)"),
        ({"F": torch.zeros(0, 0)}, ValueError, "F must be a square matrix"),
        ({"F": torch.ones(3, 3).long()}, TypeError, "F must be a floating tensor, found torch.int"),
        ({"b": torch.zeros(3).bool()}, TypeError, "b must be a floating tensor, found torch.bool"),
        ({"b": torch.zeros(2)}, ValueError, r"b must have shape \(3,\) because F is 3 x 3"),
        ({"Q": torch.eye(2)}, ValueError, r"Q must have shape \(3, 3\).*found \(2, 2\)"),
        ({"Q": -torch.eye(3)}, ValueError, "transition covariance Q was expected to be positive"),
        ({"P0": torch.ones(3, 3).tril()}, ValueError, "P0 must be symmetric.*not its Cholesky"),
        ({"m0": torch.tensor([0, torch.nan, 0])}, ValueError, r"m0 must be finite, found nan at"),
    ],
)
def test_wrong_matrices_are_named(change, error, match):
    with pytest.raises(error, match=match):
        LinearGaussian.of(**{**system(), **change})


@pytest.mark.parametrize(
    "build", [LinearGaussian, lambda k: ContextAffine(k, 1), OrnsteinUhlenbeck]
)
@pytest.mark.parametrize("size", [0, -1, True])
def test_a_wrong_size_is_named(build, size):
    with pytest.raises(ValueError, match="latent_dim must be an integer of at least 1, found"):
        build(size)


def test_contextual_noise_starts_as_the_distribution_inside():
    inner = Sum([LocalLevel(0.3), Seasonal(4, 0.2)]).double()
    p = ContextualNoise(inner, 2)
    c = context(2, 4, memory_dim=2)
    z = MarkovChain(inner, c).rsample()
    torch.testing.assert_close(
        MarkovChain(p, c).log_prob(z), MarkovChain(inner, c).log_prob(z), **exact
    )


def test_contextual_noise_grows_with_its_weight():
    p = ContextualNoise(LocalLevel(0.5), 1, initial=False).double()
    with torch.no_grad():
        p.noise_weight.fill_(1.0)
    c = context(1, 3).replace(u=torch.tensor([[[-50.0], [0.0], [50.0]]]).double())
    G = p.matrices(c)[2].flatten()
    assert G[0] < 1e-9
    torch.testing.assert_close(G[1:], torch.tensor([0.5, 25.0]).double(), rtol=2e-2, atol=0)


def test_contextual_noise_takes_after_the_distribution_inside():
    assert ContextualNoise(LocalLevel(), 1).handles_gaps
    assert not ContextualNoise(Seasonal(4), 1).handles_gaps
    known = LinearGaussian.of(**system())
    assert ContextualNoise(known, 1).noise_weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("inner", "width", "error", "match"),
    [
        (OrnsteinUhlenbeck(2), 1, TypeError, "found OrnsteinUhlenbeck; ContextAffine"),
        (LocalLevel(), 0, ValueError, "context_dim must be the width of .*found 0"),
        (LocalLevel(None), 1, ValueError, "no noise to scale"),
    ],
)
def test_wrong_parts_of_contextual_noise_are_named(inner, width, error, match):
    with pytest.raises(error, match=match):
        ContextualNoise(inner, width)


def test_context_affine_is_stable_for_any_weights():
    p = ContextAffine(3, 2).double()
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.mul_(3)
    a, _, scale = p.affine(context(2, 50, memory_dim=2))
    assert (a.abs() < 1).all()
    assert (scale > 0).all()
    assert p.matrices(context(2, 5, memory_dim=2))[0].shape == (2, 5, 3, 3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: LinearGaussian(2),
        lambda: LinearGaussian.of(**system(3, 2), learn=True),
        lambda: ContextualNoise(Sum([LocalLevel(), Seasonal(3)]), 2),
        lambda: ContextAffine(2, 2),
    ],
)
def test_parameters_can_be_drawn_afresh(build):
    p, q = build(), build()
    shake(p)
    for module in (p, q):
        reinitialise(module, torch.Generator().manual_seed(7))
    for a, b in zip(p.parameters(), q.parameters(), strict=True):
        assert torch.equal(a, b)


def test_factor_and_its_gradient_in_the_covariance_agree_with_finite_differences():
    P = system(3, 3)["Q"]
    noise = Factor(P).double()

    def covariance(log_scale, below):
        values = {"log_scale": log_scale, "below": below}
        G = torch.func.functional_call(noise, values)
        return G @ G.mT

    inputs = tuple(x.detach().clone().requires_grad_() for x in (noise.log_scale, noise.below))
    assert torch.autograd.gradcheck(covariance, inputs)
    torch.testing.assert_close(covariance(*inputs), factor(P) @ factor(P).mT, **exact)
