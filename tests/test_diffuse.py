"""Exact diffuse initialisation against limits of dense Gaussians, and the laws that it obeys."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import LinearGaussian, dense_posterior, each, random_data, random_system, structural
from torch.testing import assert_close

from seqlatent import kalman, objectives
from seqlatent.distributions import DiffuseNormal
from seqlatent.emissions.linear import LinearGaussian as Observation
from seqlatent.inference import Kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.model import LatentModel
from seqlatent.model.predictive import moments
from seqlatent.sequences import Sequences
from seqlatent.transitions import (
    AR,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
)

RUNS = ((kalman.filter, kalman.smoother), (kalman.filter_scan, kalman.smoother_scan))
EXACT = {"rtol": 1e-9, "atol": 1e-9}
inf = math.inf


def mask(*diffuse):
    return torch.tensor(diffuse, dtype=torch.bool)


def smooth(smoother, model, diffuse, y, observed):
    return smoother(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)


def limit(model, y, observed, diffuse, power):
    """Returns the dense posterior for large variances, extrapolated to infinite ones.

    What is left at a variance v is of the order 1 / v.
    """
    found = []
    for p in power:
        large = torch.where(diffuse, 10.0**p, 0.0).to(model.P0)
        P0 = model.P0.masked_fill(diffuse | diffuse[:, None], 0.0) + large.diag()
        exact = each(dense_posterior, model._replace(P0=P0), y, observed)
        constant = diffuse.sum() * p * math.log(10) / 2
        found.append(exact._replace(log_evidence=exact.log_evidence + constant))
    return type(found[0])(*((10 * b - a) / 9 for a, b in zip(*found, strict=True)))


# --- the limit of large variances


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize("obs_dim", [1, 2, 3])
@pytest.mark.parametrize(
    "diffuse", [mask(1, 0, 0), mask(0, 1, 1), mask(1, 1, 1)], ids=lambda x: str(x.tolist())
)
def test_everything_is_the_limit_of_large_variances(diffuse, obs_dim, steps, missing, generator):
    model = random_system(3, obs_dim, steps, (2,), generator=generator)
    model = model._replace(F=1.4 * model.F)
    y, observed = random_data((2,), steps, obs_dim, missing, generator)
    observed[:, -3:, 0] = True
    joint = limit(model, y, observed, diffuse, power=(7, 8))
    for run, smoother in RUNS:
        filtered = run(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
        assert_close(filtered.log_evidence.sum(-1), joint.log_evidence, rtol=0, atol=1e-5)
        smoothed = smooth(smoother, model, diffuse, y, observed)
        for found, expected in zip(smoothed, joint[1:], strict=True):
            assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert_close(filtered.mean[..., -1, :], smoothed.mean[..., -1, :], **EXACT)
        assert_close(filtered.cov[..., -1, :, :], smoothed.cov[..., -1, :, :], **EXACT)


def test_loop_and_scan_agree_at_every_step_of_every_series(generator):
    model = structural(period=4)
    y, observed = random_data((6,), 20, 1, 0.4, generator)
    diffuse = mask(1, 1, 1, 1, 1)
    loop, scan = (
        run(LinearGaussianSystem(*model, diffuse=diffuse), y, observed) for run, _ in RUNS
    )
    assert loop.cov.diagonal(dim1=-2, dim2=-1).isinf().any(-1).sum(-1).unique().numel() > 1
    for found, expected in zip(scan, loop, strict=True):
        assert_close(found, expected, **EXACT)
    smoothed = [smooth(s, model, diffuse, y, observed) for _, s in RUNS]
    for found, expected in zip(*smoothed, strict=True):
        assert_close(found, expected, **EXACT)


def test_series_by_series_is_what_a_batch_is(generator):
    model = structural(period=4)
    y, observed = random_data((5,), 16, 1, 0.4, generator)
    observed[0], observed[1, :9] = False, False
    diffuse = mask(1, 1, 1, 1, 1)
    batch = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    smoothed = smooth(kalman.smoother, model, diffuse, y, observed)
    for i in range(5):
        one = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y[i], observed[i])
        for found, expected in zip(batch, one, strict=True):
            assert_close(found[i], expected, **EXACT)
        expected = smooth(kalman.smoother, model, diffuse, y[i], observed[i])
        assert_close(smoothed.cov[i], expected.cov, **EXACT)
        assert_close(smoothed.mean[i], expected.mean, **EXACT)


def test_axes_of_samples_and_series_broadcast(generator):
    model = structural(period=4)
    y, observed = random_data((2, 3), 12, 1, 0.3, generator)
    model = model._replace(R=model.R * torch.rand(3, 1, 1, 1, dtype=torch.float64))
    diffuse = mask(1, 0, 1, 1, 1)
    filtered = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    full = model.full((2, 3), 12)
    for found, expected in zip(
        filtered,
        kalman.filter(LinearGaussianSystem(*full, diffuse=diffuse), y, observed),
        strict=True,
    ):
        assert_close(found, expected, **EXACT)


def test_a_finite_variance_in_place_of_the_infinite_one_is_a_wide_prior(generator):
    model = structural(period=4)._replace(P0=1e8 * torch.eye(5, dtype=torch.float64))
    y, observed = random_data((), 12, 1, 0.3, generator)
    wide = kalman.filter(LinearGaussianSystem(*model), y, observed)
    filtered = kalman.filter(
        LinearGaussianSystem(*model, diffuse=mask(1, 1, 1, 1, 1)), y, observed, undetermined=1e8
    )
    assert_close(filtered.cov[:3] / 1e8, wide.cov[:3] / 1e8, rtol=1e-6, atol=1e-7)
    assert_close(filtered.cov[-1], wide.cov[-1], rtol=1e-5, atol=1e-6)


# --- what is not determined


def test_variances_are_infinite_until_a_coordinate_is_determined():
    model = structural(period=3)
    model = LinearGaussian(
        model.F[:2, :2], model.b[:2], model.Q[:2, :2], model.m0[:2], model.P0[:2, :2],
        torch.tensor([[1.0, 0.0]], dtype=torch.float64), model.d, model.R,
    )  # fmt: skip
    y, observed = torch.arange(5.0, dtype=torch.float64)[:, None], torch.ones(5, 1, dtype=bool)
    observed[1] = False
    filtered = kalman.filter(LinearGaussianSystem(*model, diffuse=mask(1, 1)), y, observed)
    found = filtered.cov.diagonal(dim1=-2, dim2=-1).isinf().tolist()
    # the level is known where it is observed; a slope takes two observations
    assert found == [[False, True], [True, True], [False, False], [False] * 2, [False] * 2]
    assert filtered.mean.isfinite().all()
    assert not filtered.cov.isnan().any()


def collinear(steps):
    """Returns a level and two coefficients of the same covariate, of which only a sum is known."""
    eye = torch.eye(3, dtype=torch.float64)
    u = torch.linspace(-1, 2, steps, dtype=torch.float64)
    H = torch.stack([torch.ones_like(u), u, 2 * u], -1)[:, None]
    zero, noise = eye[0] * 0, eye[:1, :1]
    return LinearGaussian(eye, zero, 0.1 * eye[0].diag(), zero, eye, H, zero[:1], noise)


def test_what_nothing_determines_is_infinite_and_the_rest_is_right(generator):
    model = collinear(9)
    y, observed = random_data((), 9, 1, 0.0, generator)
    alone = LinearGaussian(
        model.F[:2, :2], model.b[:2], model.Q[:2, :2], model.m0[:2], model.P0[:2, :2],
        model.H[..., :2], model.d, model.R,
    )  # fmt: skip
    for run, smoother in RUNS:
        filtered = run(LinearGaussianSystem(*model, diffuse=mask(1, 1, 1)), y, observed)
        smoothed = smooth(smoother, model, mask(1, 1, 1), y, observed)
        expected = run(LinearGaussianSystem(*alone, diffuse=mask(1, 1)), y, observed)
        for x in (filtered.cov, smoothed.cov):
            variance = x.diagonal(dim1=-2, dim2=-1)[1:]
            assert variance.isinf().tolist() == [[False, True, True]] * 8
        # the evidence differs by the size of the covariates' common direction
        assert_close(filtered.log_evidence.sum(), expected.log_evidence.sum() - 0.5 * math.log(5))
        total = smoothed.mean @ torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        alone_smoothed = smooth(smoother, alone, mask(1, 1), y, observed)
        assert_close(smoothed.mean[:, 0], alone_smoothed.mean[:, 0], **EXACT)
        assert_close(smoothed.cov[:, 0, 0], alone_smoothed.cov[:, 0, 0], **EXACT)
        assert_close(total, alone_smoothed.mean[:, 1], **EXACT)


def test_a_coordinate_that_is_not_seen_at_first_waits():
    model = collinear(12)
    H = model.H.clone()
    H[..., 2] = 0
    H[:6, :, 1] = 0
    model = model._replace(H=H)
    y, observed = random_data((), 12, 1, 0.0)
    filtered = kalman.filter(LinearGaussianSystem(*model, diffuse=mask(1, 1, 0)), y, observed)
    variance = filtered.cov.diagonal(dim1=-2, dim2=-1)
    assert variance.isinf().tolist() == [[False, t < 6, False] for t in range(12)]


@pytest.mark.parametrize("steps", [1, 4])
def test_nothing_observed_says_nothing(steps):
    model = structural(period=4)
    y, observed = random_data((2,), steps, 1, 1.0)
    for run, smoother in RUNS:
        system = LinearGaussianSystem(*model, diffuse=mask(1, 1, 1, 1, 1))
        filtered, smoothed = run(system, y, observed), smoother(system, y, observed)
        assert not filtered.log_evidence.any()
        for x in (filtered.cov, filtered.predicted_cov, smoothed.cov):
            assert x.diagonal(dim1=-2, dim2=-1).isinf().all()
            assert not x.isnan().any()
        assert filtered.mean.isfinite().all()
        assert smoothed.mean.isfinite().all()
    beta = kalman.potentials(system, y, observed)
    G0 = inf * torch.eye(5).double()
    q = kalman.posterior_kernels(system, beta, G=model.Q.sqrt(), G0=G0)
    assert_close(q.factor[..., 0, :, :].square().sum(-1), torch.full((2, 5), 1e8).double())


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e6, 1e12])
def test_units_of_the_data_do_not_matter(scale, generator):
    model = structural(period=4)
    y, observed = random_data((2,), 20, 1, 0.3, generator)
    diffuse = mask(1, 1, 1, 1, 1)
    scaled = model._replace(Q=scale**2 * model.Q, R=scale**2 * model.R)
    for run, smoother in RUNS:
        unit = run(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
        other = run(LinearGaussianSystem(*scaled, diffuse=diffuse), scale * y, observed)
        # a direction that is determined has a density against the flat one, not against y
        jacobian = (observed.sum((-2, -1)) - 5).double() * math.log(scale)
        assert_close(other.log_evidence.sum(-1), unit.log_evidence.sum(-1) - jacobian, **EXACT)
        assert_close(other.mean / scale, unit.mean, **EXACT)
        assert_close(other.cov / scale**2, unit.cov, **EXACT)
        a, b = (
            smooth(smoother, m, diffuse, k * y, observed)
            for m, k in ((model, 1.0), (scaled, scale))
        )
        assert_close(b.mean / scale, a.mean, **EXACT)
        assert_close(b.cov / scale**2, a.cov, **EXACT)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_a_coordinate_do_not_matter(scale, generator):
    model = structural(period=4)
    y, observed = random_data((), 20, 1, 0.0, generator)
    T = torch.tensor([1.0, 1.0, scale, scale, scale], dtype=torch.float64)
    other = model._replace(F=T[:, None] * model.F / T, Q=T[:, None] * model.Q * T, H=model.H / T)
    diffuse = mask(1, 1, 1, 1, 1)
    a, b = (
        kalman.filter(LinearGaussianSystem(*m, diffuse=diffuse), y, observed)
        for m in (model, other)
    )
    assert_close(b.mean[4:] / T, a.mean[4:], rtol=1e-7, atol=1e-8)
    evidence = b.log_evidence.sum() - 3 * math.log(scale)
    assert_close(evidence, a.log_evidence.sum(), rtol=1e-8, atol=0)


def test_single_precision_on_a_daily_season_of_hours(generator):
    model = structural(period=24)
    t = torch.arange(120, dtype=torch.float64)
    y = (5 * torch.sin(t / 4) + 0.1 * t + torch.randn(120, generator=generator))[:, None]
    observed = torch.rand(120, 1, generator=generator) > 0.05
    observed[:30] = True
    short = LinearGaussian(*(x.float() for x in model))
    diffuse = torch.ones(25, dtype=torch.bool)
    exact = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    filtered = kalman.filter(LinearGaussianSystem(*short, diffuse=diffuse), y.float(), observed)
    assert torch.equal(filtered.cov.isinf(), exact.cov.isinf())
    assert_close(filtered.log_evidence.double(), exact.log_evidence, rtol=1e-2, atol=1e-2)
    a = smooth(kalman.smoother, model, diffuse, y, observed)
    b = smooth(kalman.smoother, short, diffuse, y.float(), observed)
    assert_close(b.mean.double(), a.mean, rtol=0, atol=2e-2)


@pytest.mark.parametrize(("run", "smoother"), RUNS)
def test_a_smoother_takes_what_the_filter_found(run, smoother, generator):
    system = LinearGaussianSystem(*structural(period=4), diffuse=mask(1, 1, 1, 1, 1))
    y, observed = random_data((2,), 20, 1, 0.3, generator)
    found = smoother(system, y, observed, filtered=run(system, y, observed))
    for x, expected in zip(found, smoother(system, y, observed), strict=True):
        assert_close(x, expected, **EXACT)


# --- laws


@given(seed=st.integers(0, 10_000), more=st.integers(1, 4), diffuse=st.integers(1, 31))
def test_appended_unobserved_steps_change_nothing(seed, more, diffuse):
    generator = torch.Generator().manual_seed(seed)
    diffuse = mask(*(diffuse >> i & 1 for i in range(5)))
    model = structural(period=4, initial_variance=1.0)
    y, observed = random_data((2,), 9, 1, 0.4, generator)
    longer_y, longer = (torch.nn.functional.pad(x, (0, 0, 0, more)) for x in (y, observed))
    short = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    long = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), longer_y, longer)
    for a, b, event in zip(short, long, (1, 2, 1, 2, 0), strict=True):
        assert_close(b.narrow(-1 - event, 0, 9), a, **EXACT)
    a, b = (
        smooth(kalman.smoother, model, diffuse, *x) for x in ((y, observed), (longer_y, longer))
    )
    assert_close(b.cov[:, :9], a.cov, **EXACT)
    assert_close(b.mean[:, :9], a.mean, **EXACT)


@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_rows_of_an_observation_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    model = random_system(4, 3, 5, generator=generator)
    y, observed = random_data((), 5, 3, 0.3, generator)
    index = torch.randperm(3, generator=generator)
    other = model._replace(
        H=model.H[:, index], d=model.d[:, index], R=model.R[:, index][..., index]
    )
    diffuse = mask(1, 1, 0, 1)
    a = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed, undetermined=1.0)
    b = kalman.filter(
        LinearGaussianSystem(*other, diffuse=diffuse),
        y[:, index],
        observed[:, index],
        undetermined=1.0,
    )
    for found, expected in zip(a, b, strict=True):
        assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_no_diffuse_coordinate_is_no_diffuse_start():
    model = random_system(2, 1)
    y, observed = random_data((), 5, 1, 0.3)
    for run, _ in RUNS:
        none = run(LinearGaussianSystem(*model, diffuse=mask(0, 0)), y, observed)
        for found, expected in zip(
            none, run(LinearGaussianSystem(*model), y, observed), strict=True
        ):
            assert torch.equal(found, expected)


# --- the posterior chain


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("diffuse", [mask(1, 0, 0), mask(0, 1, 1), mask(1, 1, 1)])
def test_the_posterior_chain_has_the_moments_of_the_smoother(diffuse, explicit, generator):
    model = random_system(3, 1, 8, (2,), generator=generator)
    y, observed = random_data((2,), 8, 1, 0.2, generator)
    model = model._replace(P0=model.P0.diagonal(dim1=-2, dim2=-1).diag_embed())
    system = LinearGaussianSystem(*model, diffuse=diffuse)
    beta = kalman.potentials(system, y, observed)
    G, G0 = torch.linalg.cholesky(model.Q), model.P0.sqrt()
    G0 = G0 if explicit else torch.where(torch.diag(diffuse), inf, G0)
    q = kalman.posterior_kernels(system, beta, G=G, G0=G0)
    expected = kalman.smoother(system, y, observed)
    for found, x in zip(kalman.path_moments(q), expected, strict=True):
        assert_close(found, x, rtol=1e-7, atol=1e-8)


def build(*components):
    transition = Sum(components).double()
    emission = Observation(transition.latent_dim, 1, loading=transition.loading).double()
    return LatentModel(transition, emission, Kalman()).double()


def everything():
    return build(
        LocalLinearTrend(0.3, 0.1, initial_scale=inf, initial_slope_scale=inf),
        Seasonal(4, 0.2, initial_scale=inf),
        Regression([0], initial_scale=inf),
        AR(1),
    )


def data(batch=3, steps=30, missing=0.2):
    generator = torch.Generator().manual_seed(5)
    y = torch.randn(batch, steps, 1, dtype=torch.float64, generator=generator).cumsum(1) * 3 + 50
    y[torch.rand(y.shape, generator=generator) < missing] = torch.nan
    u = torch.randn(batch, steps, 1, dtype=torch.float64, generator=generator)
    scale = torch.full((batch, 1), 4.0, dtype=torch.float64)
    return Sequences.of(y, u=u, shift=40 * scale / scale, scale=scale)


def test_every_posterior_path_gives_the_diffuse_evidence(generator):
    model, sequences = everything(), data()
    q = model.posterior(sequences)
    z = q.rsample((4,), generator)
    log_weight = model.log_joint(z, sequences).sum(-1) - q.log_prob(z).sum(-1)
    evidence = objectives.evidence(model, sequences)
    assert_close(log_weight, evidence.expand(4, 3), rtol=1e-8, atol=1e-8)
    assert_close(objectives.elbo(model, sequences), evidence, rtol=1e-8, atol=1e-8)


def test_the_density_of_a_diffuse_first_state():
    G = torch.tensor([[inf, 0.0], [0.0, 2.0]], dtype=torch.float64)
    distribution = DiffuseNormal(torch.ones(2, dtype=torch.float64), G)
    assert distribution.mean.tolist() == [1.0, 1.0]
    assert distribution.variance.tolist() == [inf, 4.0]
    flat = -0.5 * math.log(2 * math.pi)
    value = torch.tensor([-1e6, 1.0], dtype=torch.float64)
    assert_close(distribution.log_prob(value).item(), 2 * flat - math.log(2))


# --- models


def test_a_diffuse_prior_cannot_be_drawn_from():
    model, sequences = everything(), data()
    for draw in (lambda: model.prior(sequences).rsample(), lambda: model.rollout(sequences)):
        with pytest.raises(ValueError, match=r"infinite variances in its coordinates \[0, 1, 2"):
            draw()
    single = build(LocalLevel(initial_scale=inf))
    with pytest.raises(ValueError, match=r"Give the components a finite initial_scale"):
        single.transition.initial(model.context(sequences)[0]).rsample()


def test_a_learned_initial_scale_is_finite():
    with pytest.raises(ValueError, match="to be learned must start from a finite one"):
        Seasonal(4, initial_scale=inf, learn_initial_scale=True)
    assert DampedTrend(initial_scale=inf, learn_initial_scale=True).learned_scales == 1


def test_scan_and_loop_of_a_model_agree():
    model, sequences = everything(), data()
    other = LatentModel(model.transition, model.emission, Kalman(scan=True))
    for name in ("filter", "smooth"):
        a, b = (getattr(m, name)(sequences) for m in (model, other))
        assert_close(a.mean, b.mean, **EXACT)
        assert_close(a.variance, b.variance, **EXACT)
        assert_close(a.log_evidence, b.log_evidence, **EXACT)


@pytest.mark.parametrize("stop", [1, 3, 12])
def test_a_belief_moves_on_as_if_filtered_at_once(stop):
    model, sequences = everything(), data()
    sequences = Sequences.of(
        torch.where(torch.arange(3)[:, None, None] == 2, torch.nan, sequences.y),
        observed=sequences.observed & (torch.arange(3)[:, None, None] < 2),
        u=sequences.u, shift=sequences.shift, scale=sequences.scale,
    )  # fmt: skip
    at_once = model.belief(sequences, end=True)
    start = model.belief(sequences.window(0, stop), end=True)
    moved = model.update(start, sequences.window(stop, 30))
    assert_close(moved.latest.mean[:2], at_once.latest.mean[:2], rtol=1e-5, atol=1e-5)
    assert_close(moved.latest.cov[:2], at_once.latest.cov[:2], rtol=1e-5, atol=1e-5)
    assert moved.latest.cov.isfinite().all()


def test_a_series_that_starts_later_is_exact(generator):
    model, sequences = everything(), data()
    late = sequences.observed.clone()
    late[1, :8] = False
    sequences = Sequences(
        sequences.y, late, sequences.t, sequences.u, sequences.codes,
        sequences.shift, sequences.scale,
    )  # fmt: skip
    start = model.belief(sequences.window(0, 8), end=False)
    assert start.latest.started.tolist() == [True, False, True]
    rows = sequences.window(8, 30)
    moved = model.update(start.select(slice(1, 2)), rows.select(slice(1, 2)))
    expected = model.belief(rows.select(slice(1, 2)), end=True)
    assert_close(moved.latest.mean, expected.latest.mean, **EXACT)
    assert_close(moved.latest.cov, expected.latest.cov, **EXACT)


def test_forecasts_of_little_or_no_data_are_finite_and_wide(generator):
    model, sequences = everything(), data()
    observed = sequences.observed.clone()
    observed[0] = False
    observed[1, 2:] = False
    sequences = Sequences(
        sequences.y, observed, sequences.t, sequences.u, sequences.codes,
        sequences.shift, sequences.scale,
    )  # fmt: skip
    belief = model.belief(sequences)
    u = torch.ones(3, 4, 1, dtype=torch.float64)
    mean, variance = moments(model, belief, 4, u=u)
    paths = model.forecast(belief, 4, n=2000, u=u, generator=generator)
    assert mean.isfinite().all()
    assert (variance[:2] > 1e8).all()
    assert (variance[2] < 1e4).all()
    assert_close(paths.y.var(0), variance, rtol=0.2, atol=0)


def test_lookahead_and_one_step_laws_are_finite():
    from seqlatent.model.onestep import one_step

    model, sequences = everything(), data(missing=0.0)
    value = objectives.multi_step_score(model, sequences.window(0, 6), horizon=3)
    assert value.isfinite().all()
    distributions = one_step(model, sequences)
    assert distributions.below.isfinite().all()
    assert_close(distributions.below[:, 0], torch.full((3, 1), 0.5).double(), atol=0.01, rtol=0)


# --- gradients


def tensors(model):
    return tuple(x.clone().requires_grad_() for x in model)


@pytest.mark.parametrize(
    ("run", "obs_dim"), [(kalman.filter, 1), (kalman.filter, 2), (kalman.filter_scan, 1)]
)
def test_gradients_of_the_evidence(run, obs_dim, generator):
    model = random_system(3, obs_dim, generator=generator)
    y, observed = random_data((2,), 5, obs_dim, 0.3, generator)

    def evidence(F, b, Q, m0, P0, H, d, R):
        Q, P0, R = ((x + x.mT) / 2 for x in (Q, P0, R))
        model = F, b, Q, m0, P0, H, d, R
        return run(LinearGaussianSystem(*model, diffuse=mask(1, 0, 1)), y, observed).log_evidence

    assert torch.autograd.gradcheck(evidence, tensors(model))


@pytest.mark.parametrize("obs_dim", [1, 2])
def test_gradients_of_smoothed_moments_and_paths(obs_dim, generator):
    model = random_system(2, obs_dim, generator=generator)
    y, observed = random_data((), 4, obs_dim, 0.0, generator)
    eps = torch.randn(4, 2, dtype=torch.float64, generator=generator)
    G0 = torch.tensor([[inf, 0.0], [0.0, 1.5]], dtype=torch.float64)
    G = torch.linalg.cholesky(model.Q)

    def found(y, F, b, G, m0, H, d, R):
        Q, R = G @ G.mT, (R + R.mT) / 2
        P0, diffuse = kalman.prior(G0)
        system = LinearGaussianSystem(F, b, Q, m0, P0, H, d, R, diffuse=diffuse)
        filtered = kalman.filter(system, y, observed)
        smoothed = kalman.smoother(system, y, observed, filtered=filtered)
        beta = kalman.potentials(system, y, observed)
        q = kalman.posterior_kernels(system, beta, G=G, G0=G0)
        return filtered.mean[2:], filtered.cov[2:], *smoothed, kalman.sample_paths(q, eps)

    F, b, _, m0, _, H, d, R = tensors(model)
    inputs = (y.requires_grad_(), F, b, G.requires_grad_(), m0, H, d, R)
    assert torch.autograd.gradcheck(found, inputs)


def test_second_derivatives_of_the_evidence(generator):
    model = random_system(2, 1, generator=generator)
    y, observed = random_data((), 4, 1, 0.0, generator)

    def evidence(F, Q, H, R):
        Q = (Q + Q.mT) / 2
        model_ = (F, model.b, Q, model.m0, model.P0, H, model.d, R)
        return kalman.filter(
            LinearGaussianSystem(*model_, diffuse=mask(1, 1)), y, observed
        ).log_evidence.sum()

    F, _, Q, _, _, H, _, R = tensors(model)
    assert torch.autograd.gradgradcheck(evidence, (F, Q, H, R))


def test_every_parameter_of_a_model_has_a_finite_gradient():
    model, sequences = everything(), data()
    objectives.evidence(model, sequences).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


# --- bad input


def arguments(**changes):
    model = random_system(3, 2)
    y, observed = random_data((4,), 5, 2, 0.0)
    return {**model._asdict(), "y": y, "observed": observed, **changes}


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


NEGATIVE = torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"b": zeros(2)},
            r"b was expected to have the shape \(..., K\) = \(..., 3\), found \(2,\)",
        ),
        ({"F": zeros(3, 2)}, r"F was expected to have the shape \(..., K, K\) = \(..., 2, 2\)"),
        ({"F": zeros(3)}, r"F was expected to have at least 2 axes, \(..., K, K\), found shape"),
        ({"H": zeros(2, 2)}, r"H was expected .* \(..., 2, 3\), found \(2, 2\)"),
        ({"R": zeros(3, 3)}, r"R was expected .* \(..., 2, 2\), found \(3, 3\).*by H there are D"),
        ({"y": zeros(5, 3)}, r"y was expected .* \(..., 2\), found \(5, 3\)"),
        ({"d": zeros(7, 2)}, r"were expected to broadcast against each other, found .*d \(7, 2\)"),
        ({"m0": zeros(2, 3)}, r"expected to broadcast .* m0 \(2, 3\)"),
        ({"Q": NEGATIVE}, r"Q was expected to be a covariance.*eigenvalue -1 .*Build it as G G\^T"),
        ({"P0": NEGATIVE}, r"P0 was expected to be a covariance.*eigenvalue -1 "),
        ({"R": -torch.eye(2).double()}, "R was expected to be a covariance.*variances from -1"),
        ({"P0": inf * torch.eye(3).double()}, r"P0 was expected to be finite.*kalman.prior\(G0\)"),
        ({"Q": zeros(3, 3) + torch.nan}, "Q was expected to be finite, found NaN"),
        ({"y": zeros(4, 5, 2) + torch.nan}, r"found nan in y at \(0, 0, 0\), in 40 of 40 observed"),
        ({"y": zeros(4, 5, 2) + inf}, r"found inf in y .*mark it as not observed"),
        ({"diffuse": torch.ones(3)}, r"tensor of bool of shape \(K,\) = \(3,\).*float32 of shape"),
        ({"diffuse": mask(1, 0)}, r"found torch.bool of shape \(2,\)"),
    ],
)
@pytest.mark.parametrize("run", [kalman.filter, kalman.filter_scan])
def test_bad_input_is_named(run, changes, match):
    given = arguments(**changes)
    data = given.pop("y"), given.pop("observed")
    with pytest.raises(ValueError, match=match):
        run(LinearGaussianSystem(**given), *data)


@pytest.mark.parametrize("run", [kalman.smoother, kalman.smoother_scan, kalman.potentials])
def test_every_function_verifies_the_data(run):
    given = arguments()
    y, observed = given.pop("y"), given.pop("observed")
    with pytest.raises(ValueError, match=r"y was expected to have the shape \(..., D\)"):
        run(LinearGaussianSystem(**given), y[..., :1], observed)
    with pytest.raises(ValueError, match="found nan in y at"):
        run(LinearGaussianSystem(**given), torch.nan * y, observed)


def test_singular_and_tiny_covariances_are_covariances():
    given = arguments(Q=torch.ones(3, 3).double(), P0=zeros(3, 3), R=1e-24 * torch.eye(2).double())
    data = given.pop("y"), given.pop("observed")
    assert kalman.filter(LinearGaussianSystem(**given), *data).log_evidence.isfinite().all()


def test_series_that_differ_in_what_is_diffuse_are_refused():
    G0 = torch.eye(2).expand(2, 2, 2).clone()
    G0[0, 0, 0] = inf
    with pytest.raises(ValueError, match="same coordinates of the first state"):
        kalman.prior(G0)
    P0, diffuse = kalman.prior(G0[1:])
    assert diffuse is None
    assert torch.equal(P0, G0[1:])


def test_a_single_step():
    model = build(LocalLinearTrend(0.3, 0.1, initial_scale=inf, initial_slope_scale=inf))
    sequences = Sequences.of(torch.full((1, 1, 1), 3.0, dtype=torch.float64))
    noise = model.emission.matrices(model.context(sequences))[2].item()
    for states in (model.filter(sequences), model.smooth(sequences)):
        assert_close(states.mean[0, 0, 0].item(), 3.0)
        assert_close(states.variance[0, 0, 0].item(), noise)
        assert states.variance[0, 0, 1] == inf
    flat = -0.5 * math.log(2 * math.pi)
    assert_close(objectives.evidence(model, sequences).item(), flat)
    assert model.posterior(sequences).rsample((3,)).isfinite().all()
    mean, variance = moments(model, model.belief(sequences), 2)
    assert mean.isfinite().all()
    assert (variance > 1e7).all()


def test_a_covariate_that_is_never_there_costs_a_look_per_step():
    model = collinear(400)
    H = model.H.clone()
    H[..., 1:] = 0
    y, observed = random_data((), 400, 1, 0.0)
    filtered = kalman.filter(
        LinearGaussianSystem(*model._replace(H=H), diffuse=mask(1, 1, 1)), y, observed
    )
    alone = LinearGaussian(
        model.F[:1, :1], model.b[:1], model.Q[:1, :1], model.m0[:1], model.P0[:1, :1],
        H[..., :1], model.d, model.R,
    )  # fmt: skip
    expected = kalman.filter(LinearGaussianSystem(*alone, diffuse=mask(1)), y, observed)
    assert_close(filtered.log_evidence, expected.log_evidence)
    assert_close(filtered.mean[:, :1], expected.mean)
    assert filtered.cov.diagonal(dim1=-2, dim2=-1)[:, 1:].isinf().all()
