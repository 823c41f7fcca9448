"""Extended, unscented, moment-matching and Laplace inference: against the exact engine, particles,
finite differences and their extremes."""

import math

import pytest
import torch
from torch import distributions

import seqlatent
from seqlatent import LatentModel, Sequences, objectives
from seqlatent.distributions import sample
from seqlatent.emissions import (
    LinearBernoulli,
    LinearGaussian,
    LinearNegativeBinomial,
    LinearPoisson,
    LinearSignal,
    Normal,
    Poisson,
    StudentT,
)
from seqlatent.inference import (
    Extended,
    Kalman,
    Laplace,
    MomentMatching,
    Particles,
    Unscented,
)
from seqlatent.sequences import Context
from seqlatent.testing import EmissionContract
from seqlatent.testing.contract import seeded
from seqlatent.transitions import Gated, LocalLevel, LocalLinearTrend, Regression, Seasonal, Sum
from seqlatent.transitions import LinearGaussian as LinearGaussianTransition

float64 = torch.float64
exact = {"rtol": 1e-9, "atol": 1e-9}
FILTERS = (Extended, MomentMatching, Unscented)
FAMILIES = (LinearPoisson, LinearNegativeBinomial, LinearBernoulli)


class NormalSignal(LinearSignal):
    """A normal distribution that does not say it is one."""

    def distribution(self, signal, c):
        return distributions.Normal(c.shift + c.scale * signal, 0.5 * c.scale, validate_args=False)


class TailedSignal(LinearSignal):
    """A distribution whose density is not log-concave."""

    def distribution(self, signal, c):
        return distributions.StudentT(
            4.0, c.shift + c.scale * signal, 0.5 * c.scale, validate_args=False
        )


def structure(*, season=4, scale=0.1, initial_scale=1.0):
    return Sum(
        [
            LocalLevel(scale, initial_scale=initial_scale),
            Seasonal(season, 0.05, initial_scale=0.4),
        ]
    )


def build(family, inference, transition=None, bias=None, **options):
    transition = structure() if transition is None else transition
    emission = family(
        transition.latent_dim, loading=transition.loading, bias=bias is not None, **options
    )
    model = LatentModel(transition, emission, inference).double()
    if bias is not None:
        with torch.no_grad():
            model.emission.d.fill_(bias)
    return model


def other(model, inference):
    """The same parts under another inference."""
    return LatentModel(model.transition, model.emission, inference)


def simulate(model, batch=2, steps=30, missing=0.2, seed=0, **fields):
    """Series from the model's own prior, with holes."""
    generator = seeded(seed)
    base = Sequences.of(torch.zeros(batch, steps, model.emission.obs_dim, dtype=float64), **fields)
    y = model.rollout(base, generator=generator).y[0]
    observed = torch.rand(y.shape, generator=generator) >= missing
    return Sequences.of(y, observed=observed, **fields)


# --- the emissions


class SignalContract(EmissionContract):
    real, counts = False, True
    family: type[LinearSignal]

    def build(self, obs_dim=2):
        p = self.family(3, obs_dim, bias=True, context_dim=2, exposure=None)
        with torch.no_grad():
            p.head.normal_(generator=seeded(3))
        return p

    def total(self, distribution):
        values = torch.arange(4001, dtype=float64).reshape(-1, 1, 1, 1)
        return distribution.log_prob(values).exp().sum(0)


class TestLinearPoisson(SignalContract):
    family = LinearPoisson


class TestLinearNegativeBinomial(SignalContract):
    family = LinearNegativeBinomial


class TestLinearBernoulli(SignalContract):
    family, counts = LinearBernoulli, False

    def total(self, distribution):
        return sum(
            distribution.log_prob(torch.full((1,), v, dtype=float64)).exp() for v in (0.0, 1.0)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_written_derivatives_are_those_of_the_density(family):
    p = family(1, 2, loading=None).double()
    c = Context.regular(
        5, obs_dim=2, dtype=float64, scale=torch.tensor([[0.5, 3.0]], dtype=float64)
    )
    signal = torch.randn(5, 2, dtype=float64, generator=seeded(0))
    y = sample(p.distribution(signal, c), (), seeded(1)).double()
    with torch.no_grad():
        found = p.derivatives(y, signal, c)
        expected = LinearSignal.derivatives(p, y, signal, c)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
        assert not two.requires_grad


def test_a_linear_density_has_no_curvature():
    class Exponential(LinearSignal):
        def distribution(self, signal, c):
            class Marginals(distributions.Normal):
                def log_prob(self, value):
                    return value * self.loc

            return Marginals(signal, 1.0)

    p = Exponential(1).double()
    y = torch.ones(2, 1, dtype=float64)
    found = p.derivatives(y, 3 * y, Context.regular(2, dtype=float64))
    assert found.weight.abs().max() == 0


def test_the_exposure_multiplies_the_mean():
    u = torch.tensor([[[0.3, 10.0], [0.1, 100.0]]], dtype=float64)
    p = LinearPoisson(1, loading=LocalLevel().loading, exposure=1).double()
    c = Context.regular(1, 2, dtype=float64, u=u)
    mean = p(torch.ones(1, 2, 1, dtype=float64), c).mean
    torch.testing.assert_close(mean[0, :, 0], math.e * u[0, :, 1])
    with pytest.raises(ValueError, match="exposure must be positive at every step, found -2"):
        p.rows(c.replace(u=torch.full_like(u, -2.0)))
    with pytest.raises(ValueError, match=r"the exposure is covariate 1, .* sequences have 0"):
        p.rows(Context.regular(1, 2, dtype=float64))


def test_series_may_have_offset_and_dispersion_of_their_own():
    model = build(LinearNegativeBinomial, Laplace(), LocalLevel(), bias=0.5)
    y = torch.tensor([[[1.0], [3.0]], [[0.0], [9.0]]], dtype=float64)
    codes = torch.tensor([[0], [1]])
    before = objectives.evidence(model, Sequences.of(y))
    tables = seqlatent.model.per_series(model, 2)
    torch.testing.assert_close(objectives.evidence(tables, Sequences.of(y, codes=codes)), before)
    objectives.evidence(tables, Sequences.of(y, codes=codes))[0].backward()
    grad = tables.emission.log_dispersion.grad
    assert grad[0] != 0
    assert (grad[1:] == 0).all()
    with pytest.raises(ValueError, match="has parameters of 2 series already"):
        tables.emission.tabulate(3)


@pytest.mark.parametrize("family", [LinearPoisson, LinearNegativeBinomial])
def test_large_rates_can_be_drawn(family):
    p = family(1, loading=LocalLevel().loading).double()
    z = torch.tensor([[math.log(1e9)], [600.0]], dtype=float64)
    y = sample(p(z, Context.regular(2, dtype=float64)), (500,), seeded(0))
    assert y.isfinite().all()
    assert (y == y.round()).all()
    assert abs(y[:, 0].mean() / 1e9 - 1) < 0.1


def test_poisson_density_of_a_rate_that_underflows():
    p = LinearPoisson(1, loading=LocalLevel().loading).double()
    distribution = p(torch.tensor([[-800.0]], dtype=float64), Context.regular(1, dtype=float64))
    assert distribution.log_prob(torch.tensor([[2.0]], dtype=float64)).item() == pytest.approx(
        -1600 - math.log(2)
    )
    assert distribution.expand((3, 1)).log_prob(torch.zeros(3, 1, 1, dtype=float64)).shape == (3, 1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"latent_dim": 0}, "expected latent_dim to be an integer of at least 1, found 0"),
        ({"exposure": -1}, "expected exposure to be an integer of at least 0, found -1"),
        ({"loading": LocalLinearTrend().loading}, "a loading weighs 2 states"),
        ({"dispersion": 0.0}, "dispersion must lie between 0.0001 and 100, found 0.0"),
    ],
)
def test_bad_arguments_of_an_emission(options, match):
    with pytest.raises(ValueError, match=match):
        LinearNegativeBinomial(**{"latent_dim": 1, **options})


# --- the exact engine, where the distribution is normal


def gaussian_pair(inference, obs_dim=1):
    """A model that says it is linear and Gaussian, and one that does not."""
    if obs_dim == 1:
        transition = structure()
        one, zero = torch.tensor([transition.loading.constant]), torch.zeros(1)
        loading = transition.loading
    else:
        transition, loading = LinearGaussianTransition(3), None
        one, zero = torch.randn(obs_dim, 3, generator=seeded(5)), torch.zeros(obs_dim)
    exactly = LinearGaussian.of(one, zero, 0.25 * torch.eye(obs_dim))
    silent = NormalSignal(transition.latent_dim, obs_dim, loading=loading)
    if loading is None:
        silent.H.data.copy_(one)
    kalman = LatentModel(transition, exactly, Kalman()).double()
    return kalman, LatentModel(transition, silent.double(), inference)


def gaussian_data(model, obs_dim):
    shift = torch.tensor([[3.0] * obs_dim, [-1e3] * obs_dim], dtype=float64)
    scale = torch.tensor([[2.0] * obs_dim, [1e-3] * obs_dim], dtype=float64)
    return simulate(model, 2, 6, 0.3, shift=shift, scale=scale)


@pytest.mark.parametrize("obs_dim", [1, 2])
@pytest.mark.parametrize(
    "inference",
    [
        Laplace(),
        Laplace(samples=4),
        Extended(),
        Extended(1),
        MomentMatching(),
        Unscented(),
        Unscented(iterations=1),
        Unscented(0.5, 2.0, 1.0, iterations=1),
    ],
    ids=repr,
)
def test_all_equal_kalman_where_the_distribution_is_normal(inference, obs_dim):
    kalman, model = gaussian_pair(inference, obs_dim)
    data = gaussian_data(kalman, obs_dim)
    for distribution in (model, other(kalman, inference)):
        with torch.no_grad():
            torch.testing.assert_close(
                objectives.evidence(distribution, data), objectives.evidence(kalman, data), **exact
            )
            for way in ("filter", "smooth"):
                found, expected = getattr(distribution, way)(data), getattr(kalman, way)(data)
                torch.testing.assert_close(found.mean, expected.mean, **exact)
                torch.testing.assert_close(
                    found.marginals.covariance_matrix,
                    expected.marginals.covariance_matrix,
                    **exact,
                )
                torch.testing.assert_close(
                    found.log_evidence.sum(-1), expected.log_evidence.sum(-1), **exact
                )
        found, expected = distribution.belief(data).latest, kalman.belief(data).latest
        torch.testing.assert_close(found.mean, expected.mean, **exact)
        torch.testing.assert_close(found.cov, expected.cov, **exact)


def test_a_net_with_a_linear_mean_equals_kalman():
    transition = LinearGaussianTransition(2)
    net = Normal(2, 1, hidden=())
    with torch.no_grad():
        net.net.layers[-1].weight[1].zero_()
    H, d = net.net.layers[-1].weight[:1].detach(), net.net.layers[-1].bias[:1].detach()
    sd = torch.nn.functional.softplus(net.net.layers[-1].bias[1:].detach()) + 1e-4
    same = LinearGaussian.of(H, d, sd.square().diag())
    kalman = LatentModel(transition, same, Kalman()).double()
    data = simulate(kalman, 2, 5, 0.3)
    for inference in (Extended(), Extended(1), Unscented(), Unscented(iterations=1)):
        model = LatentModel(transition, net.double(), inference)
        for way in ("filter", "smooth"):
            found, expected = getattr(model, way)(data), getattr(kalman, way)(data)
            loose = {"rtol": 1e-6, "atol": 1e-6}
            torch.testing.assert_close(found.mean, expected.mean, **loose)
            torch.testing.assert_close(found.variance, expected.variance, **loose)
            torch.testing.assert_close(
                found.log_evidence.sum(-1), expected.log_evidence.sum(-1), **loose
            )


# --- particles


CASES = [
    (LinearPoisson, -1.2),
    (LinearPoisson, 1.0),
    (LinearPoisson, 3.9),
    (LinearNegativeBinomial, 1.5),
    (LinearBernoulli, -3.0),
    (LinearBernoulli, 0.2),
]


def errors(states, mean, deviation):
    """Mean absolute error of means in posterior deviations, and of deviations relative."""
    means = ((states.mean - mean).abs() / deviation).mean().item()
    return means, (states.variance.sqrt() / deviation - 1).abs().mean().item()


def reference(model, data, seed=0):
    """Evidence and smoothed moments by importance sampling from the Laplace chain."""
    with torch.no_grad():
        q = other(model, Laplace()).posterior(data)
        z = q.rsample((4000,), seeded(seed))
        log_weight = (model.log_joint(z, data) - q.log_prob(z)).sum(-1)
        share = log_weight.softmax(0)[..., None, None]
        mean = (share * z).sum(0)
        deviation = (share * (z - mean).square()).sum(0).sqrt()
        return log_weight.logsumexp(0) - math.log(len(z)), mean, deviation


@pytest.mark.parametrize(("family", "bias"), CASES)
def test_smoothed_moments_and_evidence(family, bias):
    model = build(family, Laplace(), bias=bias)
    data = simulate(model, 2, 16, seed=3)
    evidence, mean, deviation = reference(model, data)
    with torch.no_grad():
        found = objectives.evidence(model, data)
        means, deviations = errors(model.smooth(data), mean, deviation)
        assert (found - evidence).abs().max() < 0.3
        assert means < 0.1
        assert deviations < 0.05
        sampled = objectives.evidence(
            other(model, Laplace(samples=4000)), data, generator=seeded(1)
        )
        assert (sampled - evidence).abs().max() < 0.03
        for inference, within in ((MomentMatching(), 0.5), (Extended(), 1.5), (Unscented(), 1.0)):
            states = other(model, inference).smooth(data)
            assert (states.log_evidence.sum(-1) - evidence).abs().max() < within
            means, deviations = errors(states, mean, deviation)
            assert means < 0.2
            assert deviations < 0.1


@pytest.mark.parametrize(("family", "bias"), [CASES[0], CASES[5]])
def test_filtered_moments_against_particles(family, bias):
    model = build(family, Particles(2000), LocalLevel(0.2, initial_scale=0.5), bias=bias)
    data = simulate(model, 2, 15, seed=4)
    with torch.no_grad():
        long = model.filter(data, generator=seeded(0))
        for inference, within, nats in (
            (Laplace(), 0.1, 0.5),
            (MomentMatching(), 0.1, 0.5),
            (Extended(), 0.25, 1.0),
        ):
            found = other(model, inference).filter(data)
            means, deviations = errors(found, long.mean, long.variance.sqrt())
            assert means < within
            assert deviations < 0.1
            gap = (found.log_evidence - long.log_evidence).sum(-1).abs().max()
            assert gap < nats


@pytest.mark.slow
@pytest.mark.parametrize("transition", ["level", "seasonal"])
@pytest.mark.parametrize(("family", "bias"), CASES)
def test_against_long_particle_runs(family, bias, transition):
    distribution = LocalLevel(0.1, initial_scale=0.5) if transition == "level" else structure()
    model = build(family, Particles(20_000), distribution, bias=bias)
    data = simulate(model, 2, 60, seed=5)
    with torch.no_grad():
        runs = [model.filter(data, generator=seeded(i)) for i in range(3)]
        evidence = torch.stack([r.log_evidence.sum(-1) for r in runs])
        noise = 4 * evidence.std(0) + 0.1
        long = evidence.logsumexp(0) - math.log(3)
        mean = torch.stack([r.mean for r in runs]).mean(0)
        deviation = torch.stack([r.variance for r in runs]).mean(0).sqrt()
        sampled = other(model, Laplace(samples=4000))
        found = objectives.evidence(sampled, data, generator=seeded(9))
        assert ((found - long).abs() < noise).all()
        for inference in (Laplace(), MomentMatching()):
            close = other(model, inference)
            assert ((objectives.evidence(close, data) - long).abs() < noise + 0.5).all()
            means, deviations = errors(close.filter(data), mean, deviation)
            assert means < 0.1 + 0.1 * noise.max()
            assert deviations < 0.1


# --- Laplace


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("samples", [0, 4])
def test_gradients_of_the_evidence(family, samples):
    transition = Sum([LocalLevel(0.3, initial_scale=1.0, learn_initial=True), Regression([0])])
    model = build(family, Laplace(samples=samples, tolerance=1e-12), transition, bias=0.3)
    u = torch.randn(2, 6, 1, dtype=float64, generator=seeded(2))
    data = simulate(model, 2, 6, 0.2, seed=1, u=u)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def value():
        return objectives.evidence(model, data, generator=seeded(0)).sum()

    found = torch.autograd.grad(value(), parameters)
    for p, grad in zip(parameters, found, strict=True):
        for i in range(p.numel()):
            with torch.no_grad():
                flat, step = p.view(-1), 1e-5
                flat[i] += step
                above = value()
                flat[i] -= 2 * step
                below = value()
                flat[i] += step
            expected = ((above - below) / (2 * step)).item()
            assert grad.view(-1)[i].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_gradients_by_autograd_of_a_distribution_that_writes_none():
    model = build(TailedSignal, Laplace(tolerance=1e-12), LocalLevel(0.3, initial_scale=1.0))
    data = Sequences.of(torch.tensor([[[0.1], [0.4], [0.2], [3.0]]], dtype=float64))
    (p,) = [p for p in model.parameters() if p.requires_grad]
    (grad,) = torch.autograd.grad(objectives.evidence(model, data).sum(), p)
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            p += sign * 1e-5
            values.append(objectives.evidence(model, data).item())
            p -= sign * 1e-5
    assert grad.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mode_has_no_slope(family):
    model = build(family, Laplace(tolerance=1e-12), bias=0.5)
    data = simulate(model, 3, 20)
    with torch.no_grad():
        z = model.inference.mode(model, data)
    z.requires_grad_()
    # slopes along directions in which the state can move: of paths of the prior
    path = model.prior(data).rsample((5,), seeded(0)).detach()
    path = path - model.prior(data).rsample((5,), seeded(1)).detach()
    (slope,) = torch.autograd.grad(model.log_joint(z, data).sum(), z)
    # G of a season has fewer columns than rows: densities are those on the states' own subspace
    along = (slope * path).sum((-2, -1))
    assert along.abs().max() < 1e-6


def test_series_converge_by_themselves():
    model = build(LinearPoisson, Laplace(), bias=1.0)
    data = simulate(model, 3, 15)
    wild = data.y.clone()
    wild[1] = 1e6 * (wild[1] + 1)
    together = model.smooth(Sequences.of(wild, observed=data.observed))
    for b in (0, 2):
        alone = model.smooth(data.select(slice(b, b + 1)))
        torch.testing.assert_close(together.mean[b], alone.mean[0], rtol=1e-7, atol=1e-7)


def test_posterior_chain_serves_the_objectives():
    model = build(LinearPoisson, Laplace(), bias=1.0)
    data = simulate(model, 2, 20)
    q = model.posterior(data)
    z = q.rsample((3000,), seeded(0))
    mode, variance = model.inference.mode(model, data), model.smooth(data).variance
    assert ((z.mean(0) - mode).abs() / variance.sqrt()).max() < 0.1
    bound = objectives.elbo(model, data, samples=500, generator=seeded(0))
    tighter = objectives.iwae(model, data, samples=2000, generator=seeded(0))
    evidence = objectives.evidence(model, data)
    assert (bound < tighter + 0.05).all()
    assert (tighter - evidence).abs().max() < 0.1
    tighter.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_laplace_learns():
    true = build(LinearPoisson, Laplace(), LocalLevel(0.2, initial_scale=1.0), bias=1.0)
    data = simulate(true, 20, 30, 0.1)
    model = build(LinearPoisson, Laplace(), LocalLevel(0.02, initial_scale=1.0), bias=0.0)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -objectives.evidence(model, data).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert model.transition.log_scale.exp().item() == pytest.approx(0.2, abs=0.06)
    assert model.emission.d.item() == pytest.approx(1.0, abs=0.5)


# --- beliefs


@pytest.mark.parametrize("inference", [Laplace(), MomentMatching(), Extended(), Unscented()])
def test_updates_equal_filtering_at_once(inference):
    model = build(LinearPoisson, inference, bias=1.0)
    data = simulate(model, 2, 8)
    whole = model.belief(data, end=True)
    part = model.belief(data.window(0, 4), end=True)
    for start in (4, 6):
        part = model.update(part, data.window(start, start + 2))
    torch.testing.assert_close(part.latest.mean, whole.latest.mean, **exact)
    torch.testing.assert_close(part.latest.cov, whole.latest.cov, **exact)
    filtered = model.filter(data)
    torch.testing.assert_close(whole.latest.mean, filtered.mean[:, -1], **exact)
    paths = model.forecast(whole, 5, n=200, generator=seeded(0))
    assert paths.y.shape == (200, 2, 5, 1)
    assert (paths.y >= 0).all()


def test_a_belief_of_particles_cannot_be_continued():
    model = build(LinearPoisson, Particles(10))
    data = simulate(model, 2, 4)
    belief = model.belief(data, end=True)
    row = Sequences.of(data.y[:, :1], t=data.t[:, -1:] + 1)
    for inference in (Laplace(), Extended()):
        with pytest.raises(ValueError, match="continues from a belief with moments"):
            other(model, inference).update(belief, row)


def test_a_series_that_has_not_started():
    model = build(LinearPoisson, Laplace(), bias=0.0)
    y = torch.ones(2, 5, 1, dtype=float64)
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[1] = False
    belief = model.belief(Sequences.of(y, observed=observed), end=False)
    assert belief.latest.started.tolist() == [True, False]
    row = Sequences.of(3 * y[:, :1], t=torch.tensor([5.0], dtype=float64))
    moved = model.update(belief, row)
    fresh = model.belief(Sequences.of(3 * y[:, :1]))
    torch.testing.assert_close(moved.latest.mean[1], fresh.latest.mean[1], **exact)
    assert moved.latest.started.all()


# --- several dimensions, covariates


def test_independent_dimensions_with_holes():
    transition = LinearGaussianTransition(2)
    emission = LinearPoisson(2, 3, bias=True)
    emission.reset_parameters(seeded(0))
    model = LatentModel(transition, emission, Laplace()).double()
    data = simulate(model, 2, 10, 0.3)
    evidence, mean, deviation = reference(model, data)
    with torch.no_grad():
        assert (objectives.evidence(model, data) - evidence).abs().max() < 0.3
        assert errors(model.smooth(data), mean, deviation)[0] < 0.1
        for inference in (MomentMatching(), Extended(), Unscented()):
            states = other(model, inference).smooth(data)
            assert (states.log_evidence.sum(-1) - evidence).abs().max() < 1.0
            assert errors(states, mean, deviation)[0] < 0.2


def test_a_regression_on_the_log_rate():
    transition = Sum([LocalLevel(0.1, initial_scale=1.0), Regression([0])])
    model = build(LinearPoisson, Laplace(), transition, exposure=1)
    u = torch.randn(2, 15, 2, dtype=float64, generator=seeded(0)).exp()
    data = simulate(model, 2, 15, u=u)
    assert objectives.evidence(model, data).isfinite().all()
    belief = model.belief(data)
    ahead = model.forecast(belief, 3, n=10, u=torch.ones(2, 3, 2, dtype=float64))
    assert ahead.y.shape == (10, 2, 3, 1)


# --- nets


@pytest.mark.parametrize("family", [Normal, StudentT, Poisson])
def test_extended_and_unscented_take_nets(family):
    torch.manual_seed(0)
    transition, net = LinearGaussianTransition(2), family(2, 2, hidden=(4,))
    model = LatentModel(transition, net, Particles(4000)).double()
    data = simulate(model, 2, 3)
    with torch.no_grad():
        long = model.filter(data, generator=seeded(0))
        for inference in (Extended(), Unscented()):
            close = other(model, inference)
            means, deviations = errors(close.filter(data), long.mean, long.variance.sqrt())
            assert means < 0.4
            assert deviations < 0.3
            assert close.smooth(data).mean.isfinite().all()


# --- extremes


EVERY = [Laplace(), MomentMatching(), Extended(), Unscented()]


def finite(model, data):
    with torch.no_grad():
        states = model.smooth(data)
        assert states.log_evidence.isfinite().all()
        assert states.mean.isfinite().all()
        assert (states.variance >= 0).all()
        sampled = other(model, Laplace(samples=2))
        if isinstance(model.inference, Laplace):
            assert objectives.evidence(sampled, data, generator=seeded(0)).isfinite().all()
    belief = model.belief(data)
    assert model.forecast(belief, 2, n=5, generator=seeded(0)).y.isfinite().all()
    return states


@pytest.mark.parametrize("inference", EVERY, ids=repr)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_nothing_seen_and_nothing_but_zeros(family, inference):
    wide = Sum([LocalLevel(0.1, initial_scale=10.0), Seasonal(3, 0.05, initial_scale=10.0)])
    model = build(family, inference, wide)
    y = torch.tensor([0.0, 1.0, 0.0], dtype=float64)[:, None, None].expand(3, 4, 1)
    observed = torch.tensor([True, True, False])[:, None, None].expand(3, 4, 1)
    finite(model, Sequences.of(y[:2, :1]))
    states = finite(model, Sequences.of(y, observed=observed))
    assert states.log_evidence[2].abs().max() < 1e-9
    first = model.transition.initial(Context.regular(1, dtype=float64)).variance[0]
    torch.testing.assert_close(states.variance[2, 0], first, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inference", EVERY, ids=repr)
@pytest.mark.parametrize("initial_scale", [0.5, 10.0, 1e4])
def test_huge_counts(inference, initial_scale):
    level = LocalLevel(0.01, initial_scale=initial_scale)
    for family in (LinearPoisson, LinearNegativeBinomial):
        model = build(family, inference, level)
        y = torch.tensor([[[1e9], [1.1e9], [0.9e9]]], dtype=float64).expand(2, 3, 1)
        scale = torch.tensor([[1.0], [1e9]], dtype=float64)
        states = finite(model, Sequences.of(y, scale=scale))
        if initial_scale > 1:  # else 1e9 is forty deviations away, and a few counts say less
            assert states.mean.exp()[0, 1].item() == pytest.approx(1e9, rel=0.15)
        assert states.mean[1, 1].item() == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("inference", EVERY, ids=repr)
@pytest.mark.parametrize("family", [LinearPoisson, LinearNegativeBinomial])
def test_extreme_scales(inference, family):
    model = build(family, inference, LocalLevel(0.1, initial_scale=100.0))
    y = torch.tensor([[[3.0], [0.0], [5.0]]], dtype=float64).expand(3, 3, 1)
    scale = torch.tensor([[1.0], [1e-8], [1e12]], dtype=float64)
    states = finite(model, Sequences.of(y, scale=scale))
    moved = states.mean + scale.log()[:, None]
    torch.testing.assert_close(moved[1:], moved[:1].expand(2, 3, 1), rtol=0, atol=0.05)


@pytest.mark.parametrize("inference", EVERY, ids=repr)
@pytest.mark.parametrize("family", FAMILIES)
def test_float32(family, inference):
    model = build(family, inference, bias=0.5)
    data = simulate(model, 2, 6)
    with torch.no_grad():
        expected = objectives.evidence(model, data, generator=seeded(0))
        smoothed = model.smooth(data).mean
        model, data = model.float(), data.to(dtype=torch.float32)
        found = objectives.evidence(model, data, generator=seeded(0))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-3)
        mean = model.smooth(data).mean
        torch.testing.assert_close(mean.double(), smoothed, rtol=0, atol=2e-3)


def test_tails_that_are_not_log_concave():
    y = torch.tensor([[[0.1], [0.3], [80.0], [0.2], [0.0]]], dtype=float64)
    for inference in EVERY:
        model = build(TailedSignal, inference, LocalLevel(0.1, initial_scale=10.0))
        states = finite(model, Sequences.of(y))
        if isinstance(inference, Laplace | MomentMatching):
            assert abs(states.mean[0, 2].item()) < 1.0


# --- errors


def test_inferences_that_do_not_fit():
    walk = LocalLevel()
    gated = Gated(2, hidden_dim=4)
    for kind in (Laplace, MomentMatching, Extended, Unscented):
        with pytest.raises(TypeError, match=f"{kind.__name__} needs a linear Gaussian transition"):
            LatentModel(gated, LinearPoisson(2), kind())
    for kind in (Laplace, MomentMatching):
        with pytest.raises(
            TypeError, match=r"needs an emission of a linear signal .* found Normal"
        ):
            LatentModel(walk, Normal(1), kind())
    with pytest.raises(TypeError, match="needs an emission with a mean and a variance"):
        LatentModel(walk, seqlatent.emissions.Categorical(1, categories=3), Extended())


@pytest.mark.parametrize("inference", EVERY, ids=repr)
def test_a_diffuse_first_state(inference):
    model = build(LinearPoisson, inference, LocalLevel(initial_scale=math.inf))
    data = Sequences.of(torch.ones(1, 3, 1, dtype=float64))
    for call in (model.smooth, model.filter, model.belief, model.posterior):
        with pytest.raises(ValueError, match="needs a first state of finite variance"):
            call(data)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_of_the_zoo(family):
    model = seqlatent.zoo.count_structural(
        trend=True, season_length=3, covariate_dim=1, emission=family
    )
    data = Sequences.of(torch.ones(2, 5, 1), u=torch.randn(2, 5, 1, generator=seeded(0)))
    objectives.evidence(model, data).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Laplace(iterations=0), "iterations must be an integer of at least 1, found 0"),
        (lambda: Laplace(tolerance=0), "tolerance must be positive, found 0"),
        (lambda: Laplace(samples=3), "samples must be an even number of paths"),
        (lambda: Extended(0), "iterations must be an integer of at least 1, found 0"),
        (lambda: Unscented(0), "alpha must be a positive spread, found 0"),
        (lambda: Unscented(iterations=0), "iterations must be an integer of at least 1"),
        (lambda: MomentMatching(2), "points must be an integer of at least 3, found 2"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_sigma_points_that_coincide():
    model = build(LinearPoisson, Unscented(kappa=-1.0))
    with pytest.raises(ValueError, match="sigma points of 1 coordinates coincide"):
        model.filter(Sequences.of(torch.zeros(1, 2, 1, dtype=float64)))
