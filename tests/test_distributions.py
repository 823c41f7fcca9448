"""Distributions that torch lacks; drawing, masking and divergences over those that it has."""

import math

import pytest
import torch
from batches import F64, close, normal, seeded, standard_error, within
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Categorical,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    SigmoidTransform,
    StudentT,
    TransformedDistribution,
    kl_divergence,
)

from seqlatent.distributions import (
    Carried,
    CovarianceNormal,
    Empirical,
    FactorNormal,
    base_noise,
    cumulative,
    detach,
    diagonal_normal,
    kl_per_dim,
    masked_log_prob,
    reparametrise,
    sample,
)


def covariance(K, seed=0):
    A = normal(K, K + 2, seed=seed)
    return A @ A.T / K


def independent(family, *parameters, n=1):
    return Independent(family(*parameters, validate_args=False), n, validate_args=False)


# --- FactorNormal and CovarianceNormal -----------------------------------------------------------


def test_square_factor_is_the_dense_normal():
    loc, G = normal(4, 3, seed=1), normal(3, 3, seed=2)
    p, dense = FactorNormal(loc, G), MultivariateNormal(loc, G @ G.T)
    z = normal(5, 4, 3, seed=3)
    close(p.log_prob(z), dense.log_prob(z), rtol=1e-9)
    close(p.covariance_matrix, dense.covariance_matrix)
    close(p.variance, dense.variance)
    assert p.batch_shape == (4,)
    assert p.event_shape == (3,)


def test_thin_factor_has_the_density_of_its_noise():
    loc, G = normal(2, 4, seed=1), normal(2, 4, 2, seed=2)
    eps = normal(7, 2, 2, seed=3)
    z = loc + (G @ eps[..., None])[..., 0]
    log_det = torch.linalg.svdvals(G).log().sum(-1)
    expected = Normal(0.0, 1.0).log_prob(eps).sum(-1) - log_det
    close(FactorNormal(loc, G).log_prob(z), expected)


def test_thin_factors_of_one_span_are_comparable():
    # q and p on a common subspace: the log ratio is that of the coordinates on it
    basis = normal(4, 2, seed=1)
    A, B = normal(2, 2, seed=2), normal(2, 2, seed=3)
    x = normal(5, 2, seed=4)
    q, p = (FactorNormal(torch.zeros(4, dtype=F64), basis @ M) for M in (A, B))
    flat = [MultivariateNormal(torch.zeros(2, dtype=F64), M @ M.T) for M in (A, B)]
    z = x @ basis.T
    close(q.log_prob(z) - p.log_prob(z), flat[0].log_prob(x) - flat[1].log_prob(x))


def test_factor_of_no_columns_is_a_point():
    p = FactorNormal(normal(3, 2), torch.zeros(2, 0, dtype=F64))
    z = sample(p, (4,))
    assert torch.equal(z, p.loc.expand(4, 3, 2))
    assert torch.equal(p.log_prob(z), torch.zeros(4, 3, dtype=F64))


def test_factor_normal_gradients_are_those_of_the_density():
    loc, G = normal(3, seed=1).requires_grad_(), normal(3, 2, seed=2).requires_grad_()
    z = (loc + G @ normal(2, seed=3)).detach()
    torch.autograd.gradcheck(lambda m, G: FactorNormal(m, G).log_prob(z), (loc, G))


def test_factor_broadcasts_against_the_mean():
    p = FactorNormal(normal(3, 1, 2), normal(4, 2, 1))
    assert p.batch_shape == (3, 4)
    assert sample(p, (5,)).shape == (5, 3, 4, 2)
    assert p.variance.shape == (3, 4, 2)
    assert p.covariance_matrix.shape == (3, 4, 2, 2)


def test_covariance_normal_is_the_dense_normal():
    loc, P = normal(4, 3, seed=1), covariance(3)
    p, dense = CovarianceNormal(loc, P), MultivariateNormal(loc, P)
    z = normal(4, 3, seed=2)
    close(p.log_prob(z), dense.log_prob(z))
    close(p.variance, dense.variance)
    singular = CovarianceNormal(loc[0], torch.ones(3, 3, dtype=F64))
    drawn = sample(singular, (5,), seeded()) - loc[0]
    close(drawn, drawn[:, :1].expand(5, 3))


# --- Carried and Empirical -----------------------------------------------------------------------


def test_carried_scores_only_its_random_part():
    base, carry = diagonal_normal(normal(4, 2), torch.ones(4, 2, dtype=F64)), normal(3, seed=5)
    p = Carried(base, carry)
    assert (p.batch_shape, p.event_shape) == ((4,), (5,))
    s = sample(p, (6,), seeded())
    assert torch.equal(s[..., 2:], carry.expand(6, 4, 3))
    close(p.log_prob(s), base.log_prob(s[..., :2]))
    close(p.log_prob(s + torch.tensor([0.0, 0, 9, 9, 9])), p.log_prob(s))
    close(p.mean, torch.cat([base.mean, carry.expand(4, 3)], -1))
    assert torch.equal(p.variance[..., 2:], torch.zeros(4, 3, dtype=F64))


def test_carried_without_a_random_part_is_deterministic():
    p = Carried(None, normal(4, 3))
    s = sample(p, (2,))
    assert torch.equal(s, p.carry.expand(2, 4, 3))
    assert torch.equal(p.log_prob(s), torch.zeros(2, 4, dtype=F64))
    assert torch.equal(p.mean, p.carry)
    assert torch.equal(reparametrise(p, base_noise(p, (2,))), s)
    assert base_noise(p, (2,)).shape == (2, 4, 0)


def test_carried_divergence_is_that_of_the_random_parts():
    q, p = (diagonal_normal(normal(4, 2, seed=i), normal(4, 2, seed=i + 5).exp()) for i in (0, 1))
    carry = normal(4, 3)
    close(kl_divergence(Carried(q, carry), Carried(p, carry)), kl_divergence(q, p))
    nothing = Carried(None, carry)
    assert torch.equal(kl_divergence(nothing, nothing), torch.zeros(4, dtype=F64))


def test_empirical_moments_are_weighted():
    values, log_weights = normal(6, 4, 2), normal(6, 4, seed=1)
    p = Empirical(values, log_weights)
    w = log_weights.softmax(0)
    mean = torch.einsum("nb,nbk->bk", w, values)
    centred = values - mean
    close(p.mean, mean)
    close(p.variance, torch.einsum("nb,nbk->bk", w, centred**2))
    close(p.covariance_matrix, torch.einsum("nb,nbi,nbj->bij", w, centred, centred))
    close(p.covariance_matrix.diagonal(dim1=-2, dim2=-1), p.variance)


def test_empirical_quantiles_invert_the_weighted_distribution():
    values = torch.tensor([[3.0], [1.0], [2.0]], dtype=F64)
    p = Empirical(values, torch.tensor([0.5, 0.2, 0.3], dtype=F64).log())
    found = [p.quantile(q).item() for q in (0.0, 0.1, 0.2, 0.21, 0.5, 0.51, 1.0)]
    assert found == [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    equal = Empirical(normal(101, 3, 2), torch.zeros(101, 3, dtype=F64))
    close(equal.quantile(0.5), equal.values.median(0).values)


def test_empirical_draws_follow_its_weights():
    values = torch.tensor([[[0.0], [5.0]], [[1.0], [6.0]], [[2.0], [7.0]]], dtype=F64)
    weights = torch.tensor([[0.2, 0.0], [0.5, 1.0], [0.3, 0.0]], dtype=F64)
    p = Empirical(values, weights.log())
    z = sample(p, (4000,), seeded())
    assert z.shape == (4000, 2, 1)
    assert torch.equal(z[:, 1], torch.full((4000, 1), 6.0, dtype=F64))
    assert within(z.mean(0), p.mean, standard_error(z))
    assert torch.equal(p.sample((2,), seeded()), sample(p, (2,), seeded()))


# --- drawing -------------------------------------------------------------------------------------

ONE = torch.ones(2, 3, dtype=F64)
LOC, SCALE = normal(2, 3), 0.5 + normal(2, 3, seed=1).abs()
PROBS = normal(2, 3, seed=2).sigmoid()
FAMILIES = {
    "Normal": Normal(LOC, SCALE),
    "Independent": independent(Normal, LOC, SCALE),
    "StudentT": StudentT(8 * ONE, LOC, SCALE),
    "Gamma": Gamma(2 * SCALE, SCALE),
    "Poisson": Poisson(3 * SCALE),
    "NegativeBinomial": NegativeBinomial(3 * ONE, probs=PROBS * 0.8),
    "Bernoulli": Bernoulli(PROBS),
    "Mixture": MixtureSameFamily(Categorical(probs=PROBS), Normal(LOC, SCALE)),
    "MixtureOfVectors": MixtureSameFamily(
        Categorical(probs=PROBS),
        independent(Normal, normal(2, 3, 2), SCALE[..., None] * ONE[0, :2]),
    ),
    "Transformed": TransformedDistribution(Normal(LOC, SCALE), [AffineTransform(1.0, 2.0)]),
    "MultivariateNormal": MultivariateNormal(LOC, covariance(3)),
    "CovarianceNormal": CovarianceNormal(LOC, covariance(3)),
    "FactorNormal": FactorNormal(LOC, normal(3, 2)),
    "Carried": Carried(diagonal_normal(LOC, SCALE), LOC),
    "Empirical": Empirical(normal(4, 2, 3), normal(4, 2)),
}
KNOWN = {  # moments that torch gives wrongly or not at all
    "Transformed": (1 + 2 * LOC, 4 * SCALE**2),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_the_moments_of_their_family(name):
    p = FAMILIES[name]
    mean, variance = KNOWN[name] if KNOWN.get(name) else (p.mean, p.variance)
    x = sample(p, (20000,), seeded())
    assert x.shape == (20000, *p.batch_shape, *p.event_shape)
    assert x.dtype == F64
    assert within(x.mean(0), mean, standard_error(x), 4.5)
    square = (x - mean).square()
    assert within(square.mean(0), variance, standard_error(square), 5.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_private_generator_reproduces_draws_and_leaves_the_global_one_alone(name):
    before = torch.get_rng_state()
    a, b = (sample(FAMILIES[name], (2,), seeded(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())
    sample(FAMILIES[name], (2,))
    assert not torch.equal(before, torch.get_rng_state())


def test_categorical_draws_follow_their_probabilities_and_skip_zeros():
    probs = torch.tensor([[0.0, 0.25, 0.75, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=F64)
    index = sample(Categorical(probs=probs, validate_args=False), (8000,), seeded())
    assert index.shape == (8000, 2)
    share = torch.nn.functional.one_hot(index, 4).to(F64)
    assert within(share.mean(0), probs, standard_error(share))


def test_draws_are_reparametrised_where_the_family_allows():
    parameters = [x.clone().requires_grad_() for x in (LOC, SCALE)]
    loc, scale = parameters
    for p in (
        Normal(loc, scale),
        StudentT(scale + 3, loc, scale),
        Gamma(scale, scale),
        FactorNormal(loc, scale[0].diag()),
        MultivariateNormal(loc, scale_tril=scale[0].diag()),
        CovarianceNormal(loc, scale[0].square().diag()),
        Carried(diagonal_normal(loc, scale), loc),
    ):
        grads = torch.autograd.grad(
            sample(p, (3,), seeded()).sum(), parameters, allow_unused=True, retain_graph=True
        )
        assert all(g is None or bool(g.isfinite().all()) for g in grads)
        assert any(g is not None for g in grads), type(p)
    for p in (Poisson(scale), NegativeBinomial(scale, logits=loc), Bernoulli(logits=loc)):
        assert not sample(p, (3,), seeded()).requires_grad


def test_place_and_noise_make_the_draw():
    for name in ("Normal", "Independent", "FactorNormal", "Carried"):
        p = FAMILIES[name]
        assert torch.equal(
            reparametrise(p, base_noise(p, (4,), seeded())), sample(p, (4,), seeded())
        ), name


def test_families_that_cannot_be_drawn_say_how_to_register():
    p = Beta(SCALE, SCALE)
    assert sample(p, (2,)).shape == (2, *SCALE.shape)
    with pytest.raises(TypeError, match=r"draw from Beta .*sample\.register\(Beta\)"):
        sample(p, (2,), seeded())
    p = Laplace(LOC, SCALE)
    for function in (lambda: base_noise(p, ()), lambda: reparametrise(p, LOC)):
        with pytest.raises(TypeError, match=r"Laplace is not an affine transform of normal noise"):
            function()


# --- masked densities ----------------------------------------------------------------------------

CELLS = {
    "Normal": (Normal, LOC, SCALE),
    "StudentT": (StudentT, 4 * ONE, LOC, SCALE),
    "Poisson": (Poisson, SCALE),
    "NegativeBinomial": (lambda n, p, **k: NegativeBinomial(n, logits=p, **k), SCALE, LOC),
    "Gamma": (Gamma, 3 * SCALE, SCALE),
    "LogNormal": (LogNormal, LOC, SCALE),
    "Beta": (Beta, 2 * SCALE, SCALE),
    "Bernoulli": (lambda p, **k: Bernoulli(logits=p, **k), LOC),
    "MixtureOfGammas": (
        lambda a, b, **k: MixtureSameFamily(
            Categorical(logits=torch.zeros(2, 3, 2, dtype=F64)),
            Gamma(torch.stack([a, a + 1], -1), torch.stack([b, 2 * b], -1), **k),
            **k,
        ),
        3 * SCALE,
        SCALE,
    ),
    "Logistic": (
        lambda m, s, **k: TransformedDistribution(Normal(m, s, **k), [SigmoidTransform()], **k),
        LOC,
        SCALE,
    ),
    "ScaledMixture": (
        lambda m, s, **k: MixtureSameFamily(
            Categorical(logits=torch.zeros(2, 3, 2, dtype=F64)),
            TransformedDistribution(
                Gamma(torch.stack([s, s + 1], -1), torch.stack([s, 2 * s], -1), **k),
                [AffineTransform(0.0, 3.0)],
                **k,
            ),
            **k,
        ),
        LOC,
        SCALE,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_missing_cells_of_independent_families_count_nothing(name):
    family, *parameters = CELLS[name]
    parameters = [p.clone().requires_grad_() for p in parameters]
    p = independent(family, *parameters)
    y = p.sample()
    observed = torch.tensor([[True, False, True], [False, False, False]])
    found = masked_log_prob(p, torch.where(observed, y, 0.0), observed)
    cells = p.base_dist.log_prob(y)
    close(found, torch.where(observed, cells, 0.0).sum(-1))
    for grad in torch.autograd.grad(found.sum(), parameters, allow_unused=True):
        if grad is not None:
            assert bool(grad.isfinite().all())
            assert torch.equal(grad[~observed], torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("lead", [(), (3,)])
def test_missing_cells_of_a_dense_normal_are_integrated_out(lead):
    loc = normal(*lead, 4, 3).requires_grad_()
    root = normal(3, 3, seed=4).requires_grad_()
    P = root @ root.T + torch.eye(3, dtype=F64)
    y = normal(4, 3, seed=1)
    observed = torch.tensor(
        [[True, True, True], [True, False, True], [False, False, True], [False] * 3]
    )
    y = torch.where(observed, y, 0.0)
    found = masked_log_prob(MultivariateNormal(loc, P), y, observed)
    expected = []
    for b, seen in enumerate(observed):
        distribution = (
            MultivariateNormal(loc[..., b, :][..., seen], P[seen][:, seen]) if seen.any() else 0
        )
        expected.append(distribution.log_prob(y[b][seen]) if seen.any() else loc[..., b, 0] * 0)
    expected = torch.stack(expected, -1)
    close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.sum(), (loc, root), retain_graph=True),
        torch.autograd.grad(expected.sum(), (loc, root)),
        strict=True,
    ):
        close(a, b)
    whole = torch.ones_like(observed)
    close(
        masked_log_prob(MultivariateNormal(loc, P), y, whole),
        MultivariateNormal(loc, P).log_prob(y),
    )


def test_families_that_cannot_be_marginalised_say_so():
    observed = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"missing cells out of FactorNormal.*Independent"):
        masked_log_prob(FactorNormal(LOC, normal(3, 3)), LOC, observed)
    with pytest.raises(TypeError, match=r"one event axis of scalar cells, found 2 over Normal"):
        masked_log_prob(independent(Normal, LOC, SCALE, n=2), LOC, observed)


# --- divergences ---------------------------------------------------------------------------------


def test_kl_per_dim_is_the_divergence_of_each_coordinate():
    q, p = diagonal_normal(LOC, SCALE), diagonal_normal(LOC + 1, 2 * SCALE)
    found = kl_per_dim(q, p)
    assert found is not None
    close(found, kl_divergence(Normal(LOC, SCALE), Normal(LOC + 1, 2 * SCALE)))
    close(found.sum(-1), kl_divergence(q, p))
    carried = kl_per_dim(Carried(q, LOC), Carried(p, LOC))
    assert carried is not None
    close(carried, found)
    nothing = kl_per_dim(Carried(None, LOC), Carried(None, LOC))
    assert nothing is not None
    assert nothing.shape == (2, 0)


def test_kl_per_dim_is_none_where_laws_do_not_factorise():
    factor = FactorNormal(LOC, normal(3, 3))
    assert kl_per_dim(factor, factor) is None
    assert kl_per_dim(diagonal_normal(LOC, SCALE), factor) is None
    flat = independent(Normal, LOC, SCALE, n=2)
    assert kl_per_dim(flat, flat) is None


def test_detach_keeps_the_distribution_and_cuts_the_graph():
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    for p in (
        Normal(loc, scale),
        diagonal_normal(loc, scale),
        FactorNormal(loc, scale.diag_embed()),
        Carried(diagonal_normal(loc, scale), loc),
        Carried(None, loc),
    ):
        q = detach(p)
        z = sample(p, (), seeded()).detach()
        close(q.log_prob(z), p.log_prob(z).detach())
        assert not q.log_prob(z).requires_grad
    with pytest.raises(TypeError, match=r"cannot detach Laplace: register it"):
        detach(Laplace(LOC, SCALE))


def test_float32_stays_float32():
    p = FactorNormal(LOC.float(), normal(3, 2).float())
    z = sample(p, (2,), seeded())
    assert z.dtype == p.log_prob(z).dtype == torch.float32
    t = StudentT(torch.full((3,), 0.05), torch.zeros(3), torch.ones(3))
    assert bool(sample(t, (20000,), seeded()).isfinite().all())
    assert math.isfinite(sample(Gamma(torch.tensor(1e-3), torch.tensor(1.0)), (), seeded()))


# --- cumulative ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "distribution",
    [
        Poisson(torch.tensor([0.3, 4.0], dtype=F64)),
        NegativeBinomial(
            torch.tensor([0.7, 5.0], dtype=F64), logits=torch.tensor([0.2, -1.0], dtype=F64)
        ),
        Bernoulli(torch.tensor([0.2, 0.9], dtype=F64)),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
def test_cumulative_probabilities_of_counts_are_sums(distribution):
    values = torch.arange(2 if isinstance(distribution, Bernoulli) else 12, dtype=F64)[:, None]
    p = distribution.log_prob(values.expand(-1, 2)).exp()
    found = cumulative(Independent(distribution, 1), values.expand(-1, 2))
    close(found.equal, p, rtol=1e-9)
    close(found.below, p.cumsum(0) - p, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "distribution",
    [
        Normal(torch.tensor(0.4, dtype=F64), 1.3),
        StudentT(torch.tensor(3.5, dtype=F64), 0.4, 1.3),
        MixtureSameFamily(
            Categorical(torch.tensor([0.3, 0.7], dtype=F64)),
            Normal(torch.tensor([-1.0, 2.0], dtype=F64), torch.tensor([0.5, 1.0], dtype=F64)),
        ),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
def test_cumulative_probabilities_of_densities_are_integrals(distribution):
    y = torch.linspace(-4, 4, 4001, dtype=F64)
    found = cumulative(distribution, y)
    step = torch.trapezoid(distribution.log_prob(y).exp(), y)
    close(found.below[-1] - found.below[0], step, rtol=1e-6)
    assert (found.equal == 0).all()


def test_no_cumulative_probability_where_there_is_no_formula():
    assert cumulative(Gamma(torch.tensor(2.0), torch.tensor(1.0)), torch.tensor(1.0)) is None


@pytest.mark.parametrize(
    "family",
    [
        lambda x: torch.distributions.Laplace(x, x.exp()),
        lambda x: torch.distributions.Exponential(x.exp()),
        lambda x: torch.distributions.HalfNormal(x.exp()),
        lambda x: torch.distributions.Uniform(x, x + 2),
    ],
    ids=["laplace", "exponential", "half normal", "uniform"],
)
def test_families_that_know_their_quantiles_are_drawn_by_them(family):
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    distribution = family(x)
    state, n = torch.get_rng_state(), 40_000
    drawn, again = (sample(distribution, (n,), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(drawn, again)
    assert torch.equal(state, torch.get_rng_state())
    assert drawn.shape == (n, 2)
    mean, variance = distribution.mean.detach(), distribution.variance.detach()
    assert ((drawn.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
    torch.testing.assert_close(drawn.detach().var(0), variance, rtol=0.06, atol=0)
    drawn.mean().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).all()
