"""Emissions that stay where data stay: their densities, draws, quantiles and gradients."""

import numpy as np
import pytest
import torch
from torch import distributions

from seqlatent.distributions import Censored, Inflated, LogisticOf, SoftplusOf, cumulative, sample
from seqlatent.distributions.bounded import log_student_cdf
from seqlatent.emissions import (
    ByTarget,
    CensoredStudentT,
    HurdleStudentT,
    InflatedLogitStudentT,
    LogitStudentT,
    Poisson,
    SoftplusStudentT,
    StudentT,
    UnitCensoredStudentT,
    ZeroInflatedNegativeBinomial,
)
from seqlatent.sequences import Context
from seqlatent.testing import EmissionContract
from seqlatent.testing.contract import seeded

float64 = torch.float64
SCALED = (SoftplusStudentT, CensoredStudentT, HurdleStudentT)
UNIT = (LogitStudentT, UnitCensoredStudentT, InflatedLogitStudentT)
FAMILIES = (*SCALED, *UNIT, ZeroInflatedNegativeBinomial)


def mass(distribution, upper):
    """Integral over the open range by a map of the line, and the masses at 0 and 1."""
    u = torch.linspace(-400.0, 400.0, 400_001, dtype=float64)
    lead = (-1, *(1 for _ in distribution.batch_shape), 1)
    if upper == 1:
        x, slope = u.sigmoid(), u.sigmoid() * (-u).sigmoid()
        keep = (x > 0) & (x < 1)
        x, slope = x[keep], slope[keep]
    else:
        x, slope = u.exp(), u.exp()
    density = distribution.log_prob(x.reshape(lead)).exp() * slope.reshape(lead)[..., 0]
    found = density.sum(0) * (u[1] - u[0])
    for point in (0.0, 1.0):
        at = torch.full((*distribution.batch_shape, 1), point, dtype=float64)
        both = cumulative(distribution, at)
        found = found + both.equal[..., 0]
    return found


class Bounded(EmissionContract):
    family, upper = SoftplusStudentT, float("inf")
    real, moments = False, False

    def build(self, obs_dim=2):
        p = self.family(3, obs_dim, context_dim=2, hidden=(8,))
        with torch.no_grad():  # tails whose mass a grid reaches
            p.net.layers[-1].bias[2 :: p.size] += 8.0
        return p

    def total(self, distribution):
        return mass(distribution, self.upper)


class TestSoftplusStudentT(Bounded):
    pass


class TestCensoredStudentT(Bounded):
    family = CensoredStudentT


class TestHurdleStudentT(Bounded):
    family = HurdleStudentT


class TestLogitStudentT(Bounded):
    family, upper = LogitStudentT, 1


class TestUnitCensoredStudentT(Bounded):
    family, upper = UnitCensoredStudentT, 1


class TestInflatedLogitStudentT(Bounded):
    family, upper = InflatedLogitStudentT, 1


class TestZeroInflatedNegativeBinomial(EmissionContract):
    real, counts = False, True

    def build(self, obs_dim=2):
        return ZeroInflatedNegativeBinomial(3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        values = torch.arange(4001, dtype=float64)
        lead = (-1, *(1 for _ in distribution.batch_shape), 1)
        return distribution.log_prob(values.reshape(lead)).exp().sum(0)


def random_parts(family, seed, *shape, obs_dim=2, dtype=float64):
    """An emission, states and a context with random units of series."""
    g = seeded(seed)
    p = family(3, obs_dim, hidden=(5,)).to(dtype)
    with torch.no_grad():
        for x in p.parameters():
            x.copy_(torch.randn(x.shape, generator=g))
    z = torch.randn(*shape, 4, 3, generator=g, dtype=dtype)
    shift = torch.rand(*shape, 4, obs_dim, generator=g, dtype=dtype)
    scale = 0.05 + torch.rand(*shape, 4, obs_dim, generator=g, dtype=dtype)
    c = Context.regular(1, 4, dtype=dtype, shift=shift, scale=scale)
    return p, z, c


@pytest.mark.parametrize("dtype", [torch.float32, float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_draws_stay_in_the_support_and_have_a_finite_density(family, dtype):
    for seed in range(3):
        p, z, c = random_parts(family, seed, 2, dtype=dtype)
        z = 30 * z  # far out
        y = sample(p(z, c), (50,), seeded(seed))
        assert p.support.check(y).all()
        assert torch.isfinite(p.log_prob(y, torch.ones_like(y, dtype=torch.bool), z, c)).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_finite_differences(family, seed):
    p, z, c = random_parts(family, seed, 2)
    y = sample(p(z, c), (), seeded(seed)).detach()
    if family is not ZeroInflatedNegativeBinomial:
        y[0, 0, 0] = sample(p(z, c), (), seeded(9))[0, 0, 0].detach()
    seen = torch.rand(y.shape, generator=seeded(8)) < 0.7
    z.requires_grad_()
    found = torch.autograd.gradcheck(
        lambda z: p.log_prob(y, seen, z, c), (z,), atol=1e-5, rtol=1e-4
    )
    assert found


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_shares_of_draws(family):
    p, z, c = random_parts(family, 3, 2)
    cells = p(z, c).base_dist
    y = sample(cells, (), seeded(1)).detach()
    y[0] = 0.0
    drawn = sample(cells, (20_000,), seeded(2))
    found = cumulative(cells, y)
    bound = 5 * 0.5 / 20_000**0.5
    assert ((drawn < y).double().mean(0) - found.below).abs().max() < bound
    assert ((drawn == y).double().mean(0) - found.equal).abs().max() < bound


@pytest.mark.parametrize("family", [*SCALED, *UNIT])
def test_quantiles_turn_probabilities_round(family):
    p, z, c = random_parts(family, 4, 2)
    cells = p(z, c).base_dist
    for level in (0.02, 0.3, 0.5, 0.9, 0.99):
        q = cells.icdf(torch.full(cells.batch_shape, level, dtype=float64))
        found = cumulative(cells, q)
        # next to an end a quantile has lost the digits that its probability is read from
        apart = (q > 1e-9) & (q < 1 - 1e-6) if family in UNIT else q > 1e-9
        massive = found.equal > 0
        assert (found.below <= level + 1e-7)[massive].all()
        assert (found.below + found.equal >= level - 1e-7)[massive].all()
        below = found.below[apart & ~massive]
        torch.testing.assert_close(below, torch.full_like(below, level), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_those_of_draws(family):
    p, z, c = random_parts(family, 5, 2)
    with torch.no_grad():
        if family is not ZeroInflatedNegativeBinomial:
            p.net.layers[-1].bias[2 :: p.size] += 10.0
    cells = p(z, c).base_dist
    drawn = sample(cells, (40_000,), seeded(2)).detach().double()
    bound = 6 * drawn.std(0) / 200 + 1e-6
    assert ((drawn.mean(0) - cells.mean.detach()).abs() < bound).all()


@pytest.mark.parametrize("family", SCALED)
def test_units_of_a_series_are_those_of_its_values(family):
    """A density changes by the Jacobian, a probability of zero not at all."""
    p, z, c = random_parts(family, 6, 2, obs_dim=1)
    y = sample(p(z, c), (200,), seeded(1)).detach()
    seen = torch.ones_like(y, dtype=torch.bool)
    other = c.replace(shift=1e6 * c.shift, scale=1e6 * c.scale)
    before, after = p.log_prob(y, seen, z, c), p.log_prob(1e6 * y, seen, z, other)
    expected = before - np.log(1e6) * (y > 0).double()[..., 0]
    torch.testing.assert_close(after, expected, rtol=1e-8, atol=1e-8)


def test_far_from_zero_the_bend_is_nothing():
    base = distributions.StudentT(torch.tensor(4.0, dtype=float64), 60.0, 1.0)
    y = torch.tensor([55.0, 60.0, 70.0], dtype=float64)
    bent = SoftplusOf(base, torch.tensor(1.0, dtype=float64))
    torch.testing.assert_close(bent.log_prob(y), base.log_prob(y), rtol=1e-12, atol=1e-12)
    censored = Censored(base, 0.0)
    torch.testing.assert_close(censored.log_prob(y), base.log_prob(y), rtol=1e-12, atol=1e-12)


def test_the_log_distribution_function_reaches_far_tails():
    from scipy import stats

    df = torch.tensor([2.01, 5.0, 30.0, 900.0], dtype=float64)
    z = torch.tensor([-3.0, -2.0, 0.5, -4.0], dtype=float64)
    torch.testing.assert_close(
        log_student_cdf(df, z), torch.as_tensor(stats.t.logcdf(z, df)), rtol=1e-9, atol=1e-9
    )
    far = log_student_cdf(df[1], torch.tensor([-1e50, -1e70], dtype=float64))
    assert torch.isfinite(far).all()
    # a power law: twenty more powers of ten, a hundred less of probability
    torch.testing.assert_close(far[0] - far[1], 100 * torch.log(torch.tensor(10.0)).double())
    df.requires_grad_()
    z.requires_grad_()
    assert torch.autograd.gradcheck(log_student_cdf, (df, z), atol=1e-6, rtol=1e-4)


def test_draws_at_a_bound_do_not_move_and_others_do():
    loc = torch.tensor([-50.0, 50.0], dtype=float64, requires_grad=True)
    for made in (
        Censored(distributions.StudentT(5.0, loc, 1.0), 0.0),
        LogisticOf(distributions.StudentT(5.0, loc / 50, 1.0)),
    ):
        grad = torch.autograd.grad(sample(made, (), seeded(0)).sum(), loc)[0]
        assert grad[1] > 0
        assert (grad[0] == 0) == isinstance(made, Censored)


def test_what_has_no_gradient_is_said():
    for family in FAMILIES:
        p = family(0)
        p.double()
        z, c = torch.zeros(2, 3, 0, dtype=float64), Context.regular(2, 3, dtype=float64)
        assert sample(p(z, c), (), seeded(0)).requires_grad == p.differentiable
    assert not ByTarget(0, 2, families=(StudentT, HurdleStudentT)).differentiable


def test_a_point_of_a_continuous_law_has_its_mass_alone():
    base = distributions.Exponential(torch.tensor(2.0))
    made = Inflated(base, torch.tensor([0.0]), (0.0,))
    assert made.log_prob(torch.tensor(0.0)).exp() == 0.5
    counts = Inflated(distributions.Poisson(1.0), torch.tensor([0.0]), (0.0,))
    expected = 0.5 + 0.5 * np.exp(-1.0)
    assert counts.log_prob(torch.tensor(0.0)).exp().item() == pytest.approx(expected, rel=1e-6)
    assert counts.mean == 0.5
    assert counts.variance.item() == pytest.approx(0.5 * 2 - 0.25)


def test_targets_side_by_side_are_those_alone():
    families = (StudentT, HurdleStudentT, Poisson)
    p = ByTarget(2, 3, families=families, hidden=(4,)).double()
    z = torch.randn(5, 4, 2, dtype=float64, generator=seeded(0))
    shift = torch.tensor([3.0, 0.0, 0.0], dtype=float64).expand(1, 4, 3)
    scale = torch.tensor([2.0, 5.0, 7.0], dtype=float64).expand(1, 4, 3)
    c = Context.regular(1, 4, dtype=float64, shift=shift, scale=scale)
    y = sample(p(z, c), (), seeded(1)).detach()
    seen = torch.rand(y.shape, generator=seeded(2)) < 0.6
    expected = 0
    for d, part in enumerate(p.parts):
        own = c.replace(shift=c.shift[..., d, None], scale=c.scale[..., d, None])
        expected = expected + part.log_prob(y[..., d, None], seen[..., d, None], z, own)
    torch.testing.assert_close(p.log_prob(y, seen, z, c), expected)
    assert cumulative(p(z, c), y).below.shape == y.shape
    assert p(z, c).base_dist.mean.shape == y.shape
    y[2, 1, 1] = -1.0
    with pytest.raises(
        ValueError, match=r"values of at least 0, found -1 at series 2, step 1, dim"
    ):
        p.check(y, torch.ones_like(seen))
    with pytest.raises(ValueError, match="a family for each of 2"):
        ByTarget(2, 2, families=families)
