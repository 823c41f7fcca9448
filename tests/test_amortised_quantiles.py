"""A distribution by its quantiles, and the copula between leads, against what they stand for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.amortised import LEVELS, SCORES, QuantileFunction, copula

X = torch.tensor(SCORES, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(mean, scale, **bounds):
    """A normal distribution by its quantiles."""
    return QuantileFunction(mean[..., None] + scale[..., None] * X, **bounds)


def random_normal(seed=0):
    generator = seeded(seed)
    mean = 10 * torch.randn(5, 4, generator=generator).double()
    return mean, torch.randn(5, 4, generator=generator).double().mul(2).exp()


def rising(seed=0, least=0.05, size=1.0, floor=None, whole=None):
    """Four series of three leads whose knots rise by random steps around zero."""
    generator = seeded(seed)
    steps = least + torch.rand(4, 3, len(LEVELS), generator=generator).double() ** 3
    start = torch.randn(4, 3, 1, generator=generator).double() - 2
    return QuantileFunction(
        size * (start + steps.cumsum(-1)),
        None if floor is None else torch.full((4, 1), floor).double(),
        None if whole is None else torch.full((4, 1), whole),
    )


def test_scores_are_those_of_the_levels():
    torch.testing.assert_close(torch.special.ndtr(X), torch.tensor(LEVELS, dtype=torch.float64))


def test_a_normal_distribution_is_met_exactly():
    mean, scale = random_normal()
    found, exact = normal(mean, scale), torch.distributions.Normal(mean, scale)
    for x in (-6.0, -2.0, -0.3, 0.0, 1.1, 2.32, 5.0):
        y, at = mean + scale * x, torch.full_like(mean, x)
        torch.testing.assert_close(found.at(at), y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.scores(y), at, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.log_prob(y), exact.log_prob(y), rtol=1e-9, atol=1e-9)
        for probability in found.distribution(y):
            torch.testing.assert_close(probability, exact.cdf(y), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.mean(), mean, rtol=1e-11, atol=1e-10)


def test_the_mean_of_a_normal_distribution_with_a_floor_is_exact():
    mean, scale = random_normal()
    floor = torch.tensor([0.0, -3.0, 5.0, -torch.inf, 1e3]).double()[:, None]
    a = (floor - mean) / scale
    exact = torch.where(
        floor.isinf(),
        mean,
        floor.clamp_min(-1e9) * torch.special.ndtr(a)
        + mean * torch.special.ndtr(-a)
        + scale * torch.exp(-0.5 * a**2) / math.sqrt(2 * math.pi),
    )
    found = normal(mean, scale, floor=floor).mean()
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("floor", [None, 0.0, -1.0])
@pytest.mark.parametrize("size", [0.03, 0.1, 1.0, 10.0])
def test_means_are_those_of_the_values(floor, size):
    # values at the centres of many equal parts of probability
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = torch.special.ndtri(u)[:, None, None].expand(-1, 4, 3)
    for whole in (None, False, True):
        found = rising(1, size=size, floor=floor, whole=whole)
        torch.testing.assert_close(found.mean(), found.at(x).mean(0), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 4.0, 9.0, 40.0])
def test_means_of_whole_numbers_are_sums_of_their_probabilities(scale):
    mean = torch.linspace(-40, 60, 31).double()[:, None]
    floor, whole = torch.zeros_like(mean), torch.ones_like(mean, dtype=torch.bool)
    found = normal(mean, torch.full_like(mean, scale), floor=floor, whole=whole)
    k = torch.arange(1, 600).double()
    exact = torch.special.ndtr((mean - k + 0.5) / scale).sum(1, keepdim=True)
    torch.testing.assert_close(found.mean(), exact, rtol=0, atol=1e-6 if scale < 2.5 else 0.01)


@pytest.mark.parametrize("floor", [None, 0.0])
def test_densities_integrate_to_one(floor):
    found = rising(2, floor=floor)
    ends = found.knots.new_tensor([-9.0, 9.0])[:, None, None].expand(-1, 4, 3)
    low, high = rising(2).at(ends)
    edges = torch.stack([low, *found.knots.unbind(-1), high])  # the density is smooth between
    total = torch.zeros_like(low)
    if floor is not None:
        edges = edges.clamp_min(floor)
        total = found.log_prob(total).exp()
    for node, weight in zip(*np.polynomial.legendre.leggauss(40), strict=True):
        half = (edges[1:] - edges[:-1]) / 2
        for y, width in zip(edges[:-1] + half * (1 + node), half, strict=True):
            total = total + width * weight * found.log_prob(y).exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)


@pytest.mark.parametrize("floor", [None, 0.0])
@pytest.mark.parametrize("size", [0.1, 1.0, 4.0])
def test_whole_numbers_have_masses_that_sum_to_one(floor, size):
    found = rising(3, size=size, floor=floor, whole=True)
    y = torch.zeros(4, 3).double()
    sums, before = torch.zeros_like(y), torch.zeros_like(y)
    for k in range(-90 if floor is None else 0, 90):
        less, up_to = found.distribution(y + k)
        mass = found.log_prob(y + k).exp()
        torch.testing.assert_close(up_to - less, mass, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(less, before, rtol=0, atol=1e-12)
        # nothing lies between
        torch.testing.assert_close(found.distribution(y + k + 0.3)[0], up_to)
        torch.testing.assert_close(found.distribution(y + k + 0.7)[1], up_to)
        sums, before = sums + mass, up_to
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-9)


@pytest.mark.parametrize("whole", [False, True])
def test_a_value_below_a_floor_is_a_surprise_and_no_impossibility(whole):
    y = torch.full((4, 3), -2.0).double()
    held = rising(3, floor=0.0, whole=whole)
    free = rising(3, whole=False)
    expected = free.log_prob(y) + math.log(0.01)
    torch.testing.assert_close(held.log_prob(y), expected)
    assert (held.distribution(y)[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [-8.0, 8.0])
def test_a_mass_far_away_keeps_its_digits(far, dtype):
    found = QuantileFunction(X.to(dtype)[None, None], whole=torch.ones(1, 1, dtype=torch.bool))
    exact = torch.special.log_ndtr(torch.tensor(-7.5).double()).item()
    y = torch.full((1, 1), far, dtype=dtype)
    assert found.log_prob(y).item() == pytest.approx(exact, abs=2e-3)


def test_values_keep_to_floors_and_whole_numbers():
    x = 2 * torch.randn(500, 4, 3, generator=seeded()).double()
    free, cut = rising(4).at(x), rising(4, floor=0.0).at(x)
    assert torch.equal(cut, free.clamp_min(0))
    assert torch.equal(rising(4, floor=0.0, whole=True).at(x), free.round().clamp_min(0))
    atom = rising(4, floor=0.0).distribution(torch.zeros(4, 3).double())[1]
    assert torch.equal(torch.special.ndtr(x) <= atom, cut == 0)


def test_a_widened_distribution_keeps_its_median():
    mean, scale = random_normal()
    factor = torch.tensor([0.5, 1.0, 2.0, 3.0]).double()
    found = normal(mean, scale).widened(factor)
    torch.testing.assert_close(found.knots, normal(mean, scale * factor).knots)


@pytest.mark.parametrize("floor", [None, 0.0])
@pytest.mark.parametrize("whole", [None, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("equal", [slice(None), slice(3), slice(5, 9), slice(-2, None)], ids=str)
def test_equal_quantiles_are_an_atom(equal, dtype, whole, floor):
    knots = rising(5).knots.to(dtype).clone()
    knots[..., equal] = 2.0
    knots = torch.cummax(knots, -1).values.requires_grad_(True)
    bounds = rising(floor=floor, whole=whole)
    found = QuantileFunction(knots, None if floor is None else bounds.floor.to(dtype), bounds.whole)
    x = torch.special.ndtri(torch.linspace(1e-3, 1 - 1e-3, 999).double()).to(dtype)
    assert found.at(x[:, None, None].expand(-1, 4, 3)).isfinite().all()
    assert found.mean().isfinite().all()
    for value in (-50.0, 0.0, 1.9, 2.0, 2.1, 50.0):
        y = torch.full((4, 3), value, dtype=dtype)
        assert found.scores(y).isfinite().all()
        less, up_to = found.distribution(y)
        assert ((less >= 0) & (less <= up_to) & (up_to <= 1)).all()
        density = found.log_prob(y)
        assert density.isfinite().all()
        (gradient,) = torch.autograd.grad(density.sum(), knots)
        assert gradient.isfinite().all()
    if equal == slice(None):
        two = torch.full((4, 3), 2.0, dtype=dtype)
        less, up_to = found.distribution(two)
        assert (less == 0).all()
        assert (up_to == 1).all()
        assert (found.distribution(two - 1)[1] == 0).all()
        assert (found.distribution(two + 1)[0] == 1).all()
        torch.testing.assert_close(found.mean(), two)


@given(
    st.lists(st.floats(0, 5), min_size=len(LEVELS), max_size=len(LEVELS)),
    st.floats(-50, 50),
    st.lists(st.floats(-6, 6), min_size=2, max_size=2),
    st.floats(0, 1),
)
def test_values_never_fall_with_the_score_and_scores_lead_back(steps, start, x, part):
    found = QuantileFunction((start + torch.tensor(steps).double().cumsum(0))[None, None])
    low, high = (found.at(torch.tensor([[v]]).double()).item() for v in sorted(x))
    assert low <= high + 1e-12
    knots = found.knots[0, 0]
    y = (knots[0] + part * (knots[-1] - knots[0]))[None, None]
    torch.testing.assert_close(found.at(found.scores(y)), y, rtol=1e-9, atol=1e-9)
    less, up_to = found.distribution(y)
    assert (less <= up_to).all()
    assert found.log_prob(y).isfinite().all()


@given(st.integers(0, 10**6), st.sampled_from([None, 0.0]), st.sampled_from([None, True]))
def test_gradients_of_densities_are_finite(seed, floor, whole):
    bounds = rising(seed, floor=floor, whole=whole)
    knots = rising(seed, least=0.0).knots.requires_grad_(True)
    y = 30 * torch.randn(4, 3, generator=seeded(seed)).double() ** 3
    found = QuantileFunction(knots, bounds.floor, bounds.whole)
    (gradient,) = torch.autograd.grad(found.log_prob(y.round()).sum(), knots)
    assert gradient.isfinite().all()


SIZES = [(1, 1, 1), (2, 5, 3), (3, 4, 8), (1, 20, 2)]


def loadings(size, seed=0):
    return torch.randn(*size, generator=seeded(seed)).double()


def correlations(raw):
    loading, own = copula.rows(raw)
    return loading @ loading.mT + torch.diag_embed(own)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_normal_scores_have_unit_variance(size):
    diagonal = correlations(4 * loadings(size)).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal, torch.ones_like(diagonal), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_density_of_a_copula_is_a_dense_normal_beside_independent_ones(size):
    raw, generator = loadings(size), seeded(1)
    x = torch.randn(size[:2], generator=generator).double()
    seen = torch.rand(size[:2], generator=generator) < 0.7
    found = copula.log_density(x, raw, seen)
    for i, matrix in enumerate(correlations(raw)):
        kept = seen[i]
        matrix, values = matrix[kept][:, kept], x[i, kept]
        joint = torch.distributions.MultivariateNormal(torch.zeros_like(values), matrix)
        alone = torch.distributions.Normal(0.0, 1.0).log_prob(values).sum()
        exact = joint.log_prob(values) - alone if kept.any() else torch.zeros(()).double()
        torch.testing.assert_close(found[i], exact, rtol=1e-10, atol=1e-10)


def test_gradients_of_a_copula_are_exact():
    raw = loadings((2, 4, 3)).requires_grad_(True)
    x = torch.randn(2, 4, generator=seeded(2)).double().requires_grad_(True)
    seen = torch.tensor([[True, True, False, True], [True] * 4])
    assert torch.autograd.gradcheck(lambda x, raw: copula.log_density(x, raw, seen), (x, raw))


def test_sampled_scores_have_the_correlations():
    raw = loadings((2, 6, 2))
    x = copula.sample(raw, 20_000, seeded(3))
    for i, matrix in enumerate(correlations(raw)):
        found = x[:, i].T @ x[:, i] / len(x)
        torch.testing.assert_close(found, matrix, rtol=0, atol=0.05)


@pytest.mark.parametrize(("loading", "rate"), [(1.5, 0.3), (0.7, 1.0), (0.0, 0.3)])
def test_counts_tell_how_leads_move_together(loading, rate):
    generator = torch.Generator().manual_seed(0)
    raw = torch.full((2000, 12, 1), loading)
    x = copula.sample(raw, 1, generator)[0]
    counts = torch.arange(30.0)
    cdf = torch.distributions.Poisson(rate).log_prob(counts).exp().cumsum(0).clamp_max(1 - 1e-7)
    edges = torch.cat([torch.tensor([-torch.inf]), torch.special.ndtri(cdf)])
    y = torch.searchsorted(cdf, torch.special.ndtr(x)).clamp_max(len(counts) - 1)
    low, high, seen = edges[y], edges[y + 1], torch.ones_like(x, dtype=torch.bool)
    learned = torch.tensor([0.5], requires_grad=True)
    optimiser = torch.optim.Adam([learned], 0.05)
    found = []
    for _ in range(150):
        rows = torch.randint(len(x), (256,), generator=generator)
        own = learned.expand(256, 12, 1)
        drawn = copula.between(low[rows], high[rows], own, seen[:256], generator)
        assert (drawn >= low[rows].clamp(-4, 4) - 1e-5).all()
        assert (drawn <= high[rows].clamp(-4, 4) + 1e-5).all()
        optimiser.zero_grad()
        (-copula.log_density(drawn, own, seen[:256]).mean()).backward()
        optimiser.step()
        found.append(learned.item())
    # independent draws would find .66 of 1.5
    assert abs(sum(found[-50:]) / 50) == pytest.approx(loading, abs=0.15)


def test_scores_that_are_known_stay_as_they_are():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(4, 6, 2, generator=generator)
    x, seen = copula.sample(raw, 1, generator)[0], torch.ones(4, 6, dtype=torch.bool)
    torch.testing.assert_close(copula.between(x, x, raw, seen, generator), x)


def test_nothing_global_is_sampled_from():
    before = torch.get_rng_state()
    copula.sample(loadings((1, 2, 2)), 3, seeded())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("several", [1, 2, 5])
def test_an_averaged_copula_has_the_mean_correlations(several):
    raws = [3 * loadings((2, 5, 3), seed) for seed in range(several)]
    mean = torch.stack([correlations(raw) for raw in raws]).mean(0)
    found = correlations(copula.averaged(raws))
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12)
