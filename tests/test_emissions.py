"""Neural emissions: each family against torch's own, at its extremes, and fed back to itself."""

import math

import pytest
import torch
from torch import distributions

from seqlatent.distributions import sample
from seqlatent.emissions.bernoulli import Bernoulli
from seqlatent.emissions.categorical import Categorical
from seqlatent.emissions.counts import NegativeBinomial, Poisson
from seqlatent.emissions.gaussian import Normal
from seqlatent.emissions.heavy_tailed import StudentT
from seqlatent.sequences import Context
from seqlatent.testing import EmissionContract
from seqlatent.testing.contract import seeded

exact = {"rtol": 1e-10, "atol": 1e-10}
float64 = torch.float64
FAMILIES = (Normal, StudentT, Poisson, NegativeBinomial, Bernoulli, Categorical)
REAL, COUNTS = (Normal, StudentT), (Poisson, NegativeBinomial)


def build(family, latent_dim=3, obs_dim=1, **options):
    more = {"categories": 4} if family is Categorical else {}
    return family(latent_dim, obs_dim, **more, **options)


def constant(family, raw, **options):
    """An emission whose parameters are ``raw`` whatever the state."""
    p = build(family, hidden=(), **options).double()
    with torch.no_grad():
        p.net.layers[-1].weight.zero_()
        p.net.layers[-1].bias.copy_(torch.as_tensor(raw, dtype=float64))
    return p


def summed(distribution, most):
    """Sum over the values 0 to ``most``."""
    values = torch.arange(most + 1, dtype=float64).reshape(
        -1, *(1 for _ in distribution.batch_shape), 1
    )
    return distribution.log_prob(values).exp().sum(0)


def integrated(distribution, width, points=200_001):
    """Integral over the real line, through the tails by the map x = scale * sinh(u)."""
    u = torch.linspace(-width, width, points, dtype=float64)
    base = distribution.base_dist
    shape = (-1, *(1 for _ in distribution.batch_shape), 1)
    x = base.loc + base.scale * u.sinh().reshape(shape)
    weight = (base.scale * u.cosh().reshape(shape))[..., 0] * (u[1] - u[0])
    return (distribution.log_prob(x).exp() * weight).sum(0)


class TestNormal(EmissionContract):
    def build(self, obs_dim=2):
        return build(Normal, 3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        return integrated(distribution, 5, 2001)


class TestLinearNormal(TestNormal):
    def build(self, obs_dim=2):
        return build(Normal, 3, obs_dim, context_dim=2, hidden=())


class TestStudentT(EmissionContract):
    def build(self, obs_dim=2):
        p = build(StudentT, 3, obs_dim, context_dim=2, hidden=(8,))
        with torch.no_grad():  # a fourth moment, so that the sample variance obeys its own
            p.net.layers[-1].bias[2::3] += 8.0
        return p

    def total(self, distribution):
        return integrated(distribution, 20, 4001)


class TestPoisson(EmissionContract):
    real, counts = False, True

    def build(self, obs_dim=2):
        return build(Poisson, 3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        return summed(distribution, 200)


class TestNegativeBinomial(EmissionContract):
    real, counts = False, True

    def build(self, obs_dim=2):
        return build(NegativeBinomial, 3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        return summed(distribution, 2000)


class TestBernoulli(EmissionContract):
    real = False

    def build(self, obs_dim=2):
        return build(Bernoulli, 3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        return summed(distribution, 1)


class TestCategorical(EmissionContract):
    real, moments = False, False

    def build(self, obs_dim=2):
        return build(Categorical, 3, obs_dim, context_dim=2, hidden=(8,))

    def total(self, distribution):
        return summed(distribution, 3)


@pytest.fixture
def c():
    one = torch.ones(5, 1, dtype=float64)
    return Context.regular(5, dtype=float64, shift=2.0 * one, scale=3.0 * one)


@pytest.fixture
def z():
    return torch.zeros(5, 3, dtype=float64)


def softplus(x):
    return math.log1p(math.exp(x))


def test_normal_is_its_formula(z, c):
    distribution = constant(Normal, [0.7, -0.4])(z, c)
    expected = distributions.Normal(2 + 3 * 0.7, 3 * (softplus(-0.4) + 1e-4))
    y = torch.linspace(-5, 9, 5, dtype=float64)[:, None]
    torch.testing.assert_close(
        distribution.log_prob(y), expected.log_prob(y)[:, 0], rtol=1e-6, atol=0
    )


def test_student_t_is_its_formula(z, c):
    distribution = constant(StudentT, [0.7, -0.4, 1.3])(z, c)
    scipy = pytest.importorskip("scipy.stats")
    frozen = scipy.t(2.01 + softplus(1.3), loc=2 + 3 * 0.7, scale=3 * (softplus(-0.4) + 1e-4))
    y = torch.linspace(-50, 90, 5, dtype=float64)[:, None]
    expected = torch.as_tensor(frozen.logpdf(y.numpy()))[:, 0]
    torch.testing.assert_close(distribution.log_prob(y), expected, **exact)


def test_poisson_is_its_formula(z, c):
    scipy = pytest.importorskip("scipy.stats")
    y = torch.tensor([0.0, 1.0, 3.0, 10.0, 40.0], dtype=float64)[:, None]
    expected = scipy.poisson(3 * (softplus(0.6) + 1e-6)).logpmf(y.numpy())
    found = constant(Poisson, [0.6])(z, c).log_prob(y)
    torch.testing.assert_close(found, torch.as_tensor(expected)[:, 0], **exact)


def test_negative_binomial_is_its_formula(z, c):
    scipy = pytest.importorskip("scipy.stats")
    mean, dispersion = 3 * (softplus(0.6) + 1e-6), softplus(-1.2) + 1e-4
    frozen = scipy.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    distribution = constant(NegativeBinomial, [0.6, -1.2])(z, c)
    y = torch.tensor([0.0, 1.0, 3.0, 10.0, 40.0], dtype=float64)[:, None]
    torch.testing.assert_close(
        distribution.log_prob(y), torch.as_tensor(frozen.logpmf(y))[:, 0], **exact
    )
    expected = torch.full_like(distribution.variance, mean + dispersion * mean**2)
    torch.testing.assert_close(distribution.variance, expected, **exact)


def test_bernoulli_and_categorical_are_their_formulas(z, c):
    y = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=float64)[:, None]
    one = torch.tensor(0.6, dtype=float64).sigmoid().log()
    found = constant(Bernoulli, [0.6])(z, c).log_prob(y)
    torch.testing.assert_close(found, torch.where(y > 0, one, one - 0.6)[:, 0], **exact)
    raw = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=float64)
    y = torch.tensor([0.0, 1.0, 2.0, 3.0, 3.0], dtype=float64)[:, None]
    found = constant(Categorical, raw)(z, c).log_prob(y)
    torch.testing.assert_close(found, raw.log_softmax(0)[y[:, 0].long()], **exact)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, float64])
@pytest.mark.parametrize("level", [-1e30, -1e3, -30.0, 30.0, 1e3, 1e30])
def test_extreme_parameters_have_finite_densities_and_gradients(family, dtype, level):
    c = Context.regular(2, dtype=dtype, scale=torch.tensor([[1e-6], [1e6]], dtype=dtype))
    p = build(family, hidden=())
    p = p.to(dtype)
    with torch.no_grad():
        p.net.layers[-1].bias.fill_(level)
    z = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    distribution = p(z, c)
    drawn = sample(distribution, (50,), seeded(0))
    assert drawn.isfinite().all()
    for value in (0.0, 1.0):
        y = torch.full((2, 1), value, dtype=dtype) * (c.scale if family in REAL else 1.0)
        observed = torch.ones_like(y, dtype=torch.bool)
        log_prob = p.log_prob(y, observed, z, c)
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
    for x in (z, *p.parameters()):
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_fed_its_own_samples_stays_finite(family):
    p = build(family, latent_dim=0, context_dim=1, hidden=(16,))
    with torch.no_grad():
        for parameter in p.parameters():
            parameter.mul_(10.0)
    scale = torch.tensor([[1.0], [1e3], [1e-3]])
    c, z = Context.regular(3, scale=scale), torch.zeros(20, 3, 0)
    y, generator = torch.ones(20, 3, 1), seeded(0)
    with torch.no_grad():
        for _ in range(1000):
            y = sample(p(z, c.replace(m=y)), (), generator).float()
    assert y.isfinite().all()
    p.check(y, torch.ones_like(y, dtype=torch.bool))


@pytest.mark.parametrize(
    ("family", "wrong", "message"),
    [
        (Poisson, -1.0, r"Poisson expects counts \(integers of at least 0\), found -1 at series 1"),
        (NegativeBinomial, 2.5, r"NegativeBinomial expects counts .*, found 2.5 at series 1"),
        (Bernoulli, 0.5, "Bernoulli expects 0 or 1, found 0.5 at series 1, step 2, dimension 0"),
        (Categorical, 4.0, "Categorical expects class indices .integers from 0 to 3., found 4"),
        (Categorical, -1.0, "Categorical expects class indices .integers from 0 to 3., found -1"),
        (Categorical, 1.5, "Categorical expects class indices .integers from 0 to 3., found 1.5"),
    ],
)
def test_a_value_outside_the_support_is_named(family, wrong, message):
    y = torch.ones(2, 3, 1)
    y[1, 2, 0] = wrong
    observed = torch.ones_like(y, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        build(family).check(y, observed)
    observed[1, 2, 0] = False
    build(family).check(y, observed)


@pytest.mark.parametrize("family", REAL)
def test_every_real_value_is_in_the_support(family):
    build(family).check(torch.tensor([[[-1e30], [0.5]]]), torch.ones(1, 2, 1, dtype=torch.bool))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_latent_it_reads_the_memory_alone(family):
    p = build(family, latent_dim=0, context_dim=2)
    c = Context.regular(4, 5, m=torch.randn(4, 5, 2))
    assert p(torch.zeros(6, 4, 5, 0), c).batch_shape == (6, 4, 5)
    assert build(family, 0)(torch.zeros(6, 4, 0), Context.regular(4)).batch_shape == (6, 4)


@pytest.mark.parametrize("family", COUNTS)
def test_a_mean_is_held_where_samplers_can_count(family):
    raw = [1e6] if family is Poisson else [1e6, 0.0]
    c = Context.regular(3, dtype=float64, scale=torch.full((3, 1), 1e6, dtype=float64))
    distribution = constant(family, raw)(torch.zeros(3, 3, dtype=float64), c)
    torch.testing.assert_close(distribution.mean, torch.full((3, 1), 1e8, dtype=float64), **exact)
    assert (sample(distribution, (1000,), seeded(0)) >= 0).all()


def test_an_outlier_costs_student_t_its_logarithm(z, c):
    far = torch.full((5, 1), 1e6, dtype=float64)
    cost = {f: -constant(f, [0.0] * n)(z, c).log_prob(far) for f, n in ((Normal, 2), (StudentT, 3))}
    assert (cost[StudentT] < 60).all()
    assert (cost[Normal] > 1e9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": -1}, "Normal expected latent_dim to be an integer of at least 0, found -1"),
        ({"latent_dim": 2, "obs_dim": 0}, "obs_dim to be an integer of at least 1, found 0"),
        ({"latent_dim": 2, "context_dim": True}, "context_dim to be an integer of at least 0"),
    ],
)
def test_a_wrong_size_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normal(**arguments)


@pytest.mark.parametrize("categories", [1, True])
def test_a_wrong_number_of_classes_is_named(categories):
    with pytest.raises(ValueError, match="categories to be an integer of at least 2"):
        Categorical(2, categories=categories)


def test_a_state_or_context_of_another_width_is_named():
    c = Context.regular(2, m=torch.zeros(2, 1), u=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="build it with latent_dim=5, context_dim=4"):
        Normal(3)(torch.zeros(2, 5), c)
