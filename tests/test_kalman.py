"""The exact filter, smoother, potentials and posterior kernels against plain oracles."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import (
    LinearGaussian,
    dense_posterior,
    each,
    loop_filter,
    random_data,
    random_system,
    structural,
)
from torch.testing import assert_close

from seqlatent import kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.linalg import cholesky, factor

FILTERS = (kalman.filter, kalman.filter_scan)
SMOOTHERS = (kalman.smoother, kalman.smoother_scan)
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def potentials(model, y, observed):
    return kalman.potentials(LinearGaussianSystem(*model), y, observed)


def kernels(model, y, observed, G=None, G0=None):
    G = factor(model.Q) if G is None else G
    G0 = factor(model.P0) if G0 is None else G0
    beta = potentials(model, y, observed)
    return kalman.posterior_kernels(LinearGaussianSystem(*model), beta, G=G, G0=G0)


def smooth(smoother, model, y, observed):
    return smoother(LinearGaussianSystem(*model), y, observed)


def in_deviations(found, expected, cov):
    """Returns the largest error of means or covariances, in standard deviations of the states."""
    scale = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    if found.shape == cov.shape:
        scale = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return ((found - expected).abs() / scale).max().item()


# --- against the dense joint Gaussian, and a loop that drops missing rows


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("obs_dim", [1, 2, 3])
@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_everything_equals_the_dense_joint(latent_dim, obs_dim, steps, missing):
    model = random_system(latent_dim, obs_dim, steps, (2,))
    y, observed = random_data((2,), steps, obs_dim, missing)
    one_by_one, joint = (
        each(loop_filter, model, y, observed),
        each(dense_posterior, model, y, observed),
    )
    for run in FILTERS:
        filtered = run(LinearGaussianSystem(*model), y, observed)
        for found, expected in zip(filtered, one_by_one, strict=True):
            assert_close(found, expected, **EXACT)
        assert_close(filtered.log_evidence.sum(-1), joint.log_evidence, **EXACT)
    found = [smooth(run, model, y, observed) for run in SMOOTHERS]
    found.append(kalman.path_moments(kernels(model, y, observed)))
    for smoothed in found:
        assert_close(smoothed.mean, joint.mean, **EXACT)
        assert_close(smoothed.cov, joint.cov, **EXACT)
        assert_close(smoothed.cross, joint.cross, **EXACT)


@pytest.mark.parametrize("rank", [1, 2])
def test_singular_transition_noise_and_known_first_state(rank):
    model = random_system(4, 2, 6, rank=rank)
    model = model._replace(P0=torch.diag(torch.tensor([0.0, 2.0, 0.0, 1.0], dtype=torch.float64)))
    y, observed = random_data((), 6, 2, 0.3)
    joint = dense_posterior(model, y, observed)
    for smoothed in (
        *(smooth(run, model, y, observed) for run in SMOOTHERS),
        kalman.path_moments(kernels(model, y, observed)),
    ):
        assert_close(smoothed.mean, joint.mean, **EXACT)
        assert_close(smoothed.cov, joint.cov, **EXACT)
        assert_close(smoothed.cross, joint.cross, **EXACT)


def test_no_noise_at_all_in_state_or_prior():
    model = random_system(3, 1, 5)
    model = model._replace(Q=torch.zeros_like(model.Q), P0=torch.zeros_like(model.P0))
    y, observed = random_data((), 5, 1, 0.3)
    smoothed = smooth(kalman.smoother, model, y, observed)
    assert_close(
        smoothed.mean, kalman.filter(LinearGaussianSystem(*model), y, observed).predicted_mean
    )
    assert_close(smoothed.cov, torch.zeros_like(smoothed.cov))


@pytest.mark.parametrize("smoother", SMOOTHERS)
def test_observations_without_noise(smoother):
    model = random_system(3, 2, 6)
    model = model._replace(R=torch.zeros_like(model.R))
    y, observed = random_data((), 6, 2, 0.3)
    joint, smoothed = dense_posterior(model, y, observed), smooth(smoother, model, y, observed)
    assert_close(smoothed.mean, joint.mean, **EXACT)
    assert_close(smoothed.cov, joint.cov, **EXACT)
    fitted = (model.H @ smoothed.mean.unsqueeze(-1)).squeeze(-1) + model.d
    assert_close(fitted[observed], y[observed], **EXACT)


# --- a system is verified once


def test_a_system_is_verified_when_it_is_made():
    model = random_system(2, 1)
    system = LinearGaussianSystem(*model)
    assert (system.latent_dim, system.obs_dim) == (2, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        system.F = model.F  # type: ignore[misc]
    with pytest.raises(ValueError, match="Q was expected to be a covariance"):
        dataclasses.replace(system, Q=-model.Q)
    with pytest.raises(ValueError, match=r"H was expected to have the shape"):
        LinearGaussianSystem(*model._replace(H=model.H[..., :1]))


def test_what_a_prior_says_of_diffuse_coordinates_is_left_out():
    model = random_system(2, 1)
    P0 = model.P0.clone()
    P0[0, 0] = torch.inf
    system = LinearGaussianSystem(*model._replace(P0=P0), diffuse=torch.tensor([True, False]))
    assert system.P0[0].tolist() == [0.0, 0.0]
    assert system.P0[1, 1] == model.P0[1, 1]


# --- axes: shared, broadcast, constant in time


CONSTANT = {  # what varies -> leading axes of each tensor
    "nothing": {},
    "offsets": {"b": (2, 1, 5), "d": (3, 1), "m0": (2, 1)},
    "noise by series": {"R": (3, 1)},
    "transition by sample": {"F": (2, 1, 1), "P0": (2, 1)},
    "time": {"F": (5,), "H": (5,)},
    "all": {"F": (2, 1, 5), "H": (3, 1), "Q": (2, 3, 5), "P0": (3,)},
}


@pytest.mark.parametrize("pattern", ["full", "shared", "by series", "by sample and series"])
@pytest.mark.parametrize("varying", CONSTANT)
def test_shared_axes_give_what_written_out_ones_give(varying, pattern):
    model = random_system(2, 2)
    grown = {
        name: getattr(model, name) * (1 + torch.rand(*axes, *(1,) * getattr(model, name).dim()))
        for name, axes in CONSTANT[varying].items()
    }
    model = model._replace(**{name: x.double() for name, x in grown.items()})
    y, observed = random_data((2, 3), 5, 2, 0.0 if pattern == "full" else 0.4)
    if pattern == "shared":
        observed = observed[:1, :1].expand(2, 3, 5, 2)
    elif pattern == "by series":
        observed = observed[:1].clone()
    y = torch.where(observed, y, 0)
    full = model.full((2, 3), 5)
    written_out = each(loop_filter, full, y, observed)
    for run in FILTERS:
        for found, expected in zip(
            run(LinearGaussianSystem(*model), y, observed), written_out, strict=True
        ):
            assert_close(found, expected, **EXACT)
    joint = each(dense_posterior, full, y, observed)
    for run in SMOOTHERS:
        smoothed = smooth(run, model, y, observed)
        assert_close(smoothed.mean, joint.mean, **EXACT)
        assert_close(smoothed.cov, joint.cov, **EXACT)
        assert_close(smoothed.cross, joint.cross, **EXACT)
    assert_close(potentials(model, y, observed), potentials(full, y, observed.expand(2, 3, 5, 2)))
    short, long = kernels(model, y, observed), kernels(full, y, observed.expand(2, 3, 5, 2))
    noise = torch.randn(4, 2, 3, 5, 2, dtype=torch.float64)
    covs = [q.factor @ q.factor.mT for q in (short, long)]
    assert_close((short.A, short.offset, covs[0]), (long.A, long.offset, covs[1]), **EXACT)
    assert_close(kalman.sample_paths(short, noise), kalman.sample_paths(_written_out(short), noise))


def _written_out(kernels):
    return kalman.Kernels(*(x.clone() for x in kernels))


def test_covariances_that_do_not_differ_are_computed_once():
    model = random_system(3, 2)
    y, observed = random_data((50,), 4, 2, 0.4)
    observed = observed[:1].expand(50, 4, 2).clone()
    filtered = kalman.filter(LinearGaussianSystem(*model), y, observed)
    smoothed = smooth(kalman.smoother, model, y, observed)
    q = kernels(model, y, observed)
    for x in (filtered.cov, filtered.predicted_cov, smoothed.cov, smoothed.cross, q.A, q.factor):
        assert x.shape[0] == 50
        assert x.stride(0) == 0


def test_a_step_that_no_series_observed_is_skipped_exactly():
    model = random_system(2, 1)
    y, observed = random_data((3,), 6, 1, 0.0)
    observed[:, 2:4] = False
    filtered = kalman.filter(LinearGaussianSystem(*model), y, observed)
    assert_close(filtered.mean[:, 2:4], filtered.predicted_mean[:, 2:4])
    assert_close(filtered.cov[:, 2:4], filtered.predicted_cov[:, 2:4])
    assert torch.equal(filtered.log_evidence[:, 2:4], torch.zeros(3, 2, dtype=torch.float64))


def test_what_stands_in_unobserved_cells_does_not_matter():
    model = random_system(2, 2)
    y, observed = random_data((3,), 6, 2, 0.4)
    poisoned = torch.where(observed, y, torch.nan)
    for run in FILTERS:
        assert_close(
            run(LinearGaussianSystem(*model), poisoned, observed),
            run(LinearGaussianSystem(*model), y, observed),
        )


# --- the keystone: exact posterior paths explain the evidence, each of them


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_every_posterior_path_gives_the_evidence(rank, missing, generator):
    G = torch.randn(12, 4, rank, dtype=torch.float64, generator=generator)
    model = random_system(4, 2, 12, (3,), generator=generator)._replace(Q=G @ G.mT)
    G0 = cholesky(model.P0)
    y, observed = random_data((3,), 12, 2, missing, generator)
    q = kernels(model, y, observed, G, G0)
    eps = torch.randn(5, 3, 12, 4, dtype=torch.float64, generator=generator)
    log_weight = path_log_weight(model, q, G, G0, kalman.sample_paths(q, eps), y, observed)
    evidence = kalman.filter(LinearGaussianSystem(*model), y, observed).log_evidence.sum(-1)
    assert_close(log_weight, evidence.expand(5, 3), rtol=1e-9, atol=1e-9)


def test_every_posterior_path_gives_the_evidence_of_a_structural_model(generator):
    model = structural(period=6, initial_variance=1e6)
    G, G0 = model.Q.sqrt()[:, :3], model.P0.sqrt()
    y, observed = random_data((2,), 40, 1, 0.3, generator)
    q = kernels(model, y, observed, G, G0)
    eps = torch.randn(5, 2, 40, 7, dtype=torch.float64, generator=generator)
    log_weight = path_log_weight(model, q, G, G0, kalman.sample_paths(q, eps), y, observed)
    evidence = kalman.filter(LinearGaussianSystem(*model), y, observed).log_evidence.sum(-1)
    assert_close(log_weight, evidence.expand(5, 2), rtol=1e-8, atol=1e-8)


def path_log_weight(model, q, G, G0, z, y, observed):
    """Returns log p(z) + log p(y | z) - log q(z), the densities of z being of the prior's noise."""
    *lead, steps, _ = y.shape
    full = model.full(tuple(lead), steps)
    before = torch.cat([torch.zeros_like(z[..., :1, :]), z[..., :-1, :]], -2)
    prior_mean = (full.F @ before.unsqueeze(-1)).squeeze(-1) + full.b
    prior_mean[..., 0, :] = full.m0
    mean = (q.A @ before.unsqueeze(-1)).squeeze(-1) + q.offset
    log_weight = 0.0
    for factors, t in ((G0.unsqueeze(-3), slice(0, 1)), (G, slice(1, None))):
        G_t = factors if factors.dim() < 3 or len(factors) == 1 else factors[..., t, :, :]
        inverse, rank = torch.linalg.pinv(G_t), G_t.shape[-1]
        noise, shift = (
            (inverse @ x[..., t, :].unsqueeze(-1)).squeeze(-1)
            for x in (z - prior_mean, mean - prior_mean)
        )
        L = inverse @ q.factor[..., t, :, :rank]
        white = torch.linalg.solve(L, (noise - shift).unsqueeze(-1)).squeeze(-1)
        log_weight = log_weight + 0.5 * (white.square() - noise.square()).sum((-1, -2))
        log_weight = log_weight + torch.linalg.slogdet(L)[1].sum(-1)
    for i in itertools.product(*map(range, (*lead, steps))):
        seen = observed[i]
        if seen.any():
            mean = (full.H[i] @ z[(slice(None), *i)].unsqueeze(-1)).squeeze(-1) + full.d[i]
            R = full.R[i][seen][:, seen]
            distribution = torch.distributions.MultivariateNormal(
                mean[:, seen], R, validate_args=False
            )
            log_weight[(slice(None), *i[:-1])] += distribution.log_prob(y[i][seen])
    return log_weight


def test_sampled_paths_have_the_moments_of_the_smoother(generator):
    model = random_system(2, 1, 5, generator=generator)
    y, observed = random_data((), 5, 1, 0.3, generator)
    eps = torch.randn(20_000, 5, 2, dtype=torch.float64, generator=generator)
    z = kalman.sample_paths(kernels(model, y, observed), eps)
    joint = dense_posterior(model, y, observed)
    assert in_deviations(z.mean(0), joint.mean, joint.cov) < 4 / 20_000**0.5
    covs = torch.stack([z[:, t].T.cov() for t in range(5)])
    assert in_deviations(covs, joint.cov, joint.cov) < 8 / 20_000**0.5


# --- large initial variances


def trending(steps, period, generator):
    t = torch.arange(steps, dtype=torch.float64)
    wave = 5 * torch.sin(2 * torch.pi * t / period)
    return 10 + 0.3 * t + wave + torch.randn(steps, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("initial_variance", [1e6, 1e7])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_large_initial_variance_against_many_digits(initial_variance, missing, generator):
    mpmath = pytest.importorskip("mpmath")
    model = structural(period=6, initial_variance=initial_variance)
    y = trending(20, 6, generator).unsqueeze(-1)
    observed = torch.rand(20, 1, generator=generator) >= missing
    with mpmath.workdps(50):
        exact_filter, exact = many_digits(mpmath, model, y, observed)
    for run in FILTERS:
        filtered = run(LinearGaussianSystem(*model), y, observed)
        evidence = filtered.log_evidence.sum(-1)
        assert_close(evidence, exact_filter.log_evidence.sum(-1), rtol=1e-9, atol=0)
        for mean, cov in ((0, 1), (2, 3)):
            assert in_deviations(filtered[mean], exact_filter[mean], exact_filter[cov]) < 1e-7
            assert in_deviations(filtered[cov], exact_filter[cov], exact_filter[cov]) < 1e-7
    # A phase of the season that is never seen keeps its large variance; rounding has a share in it.
    limit = 1e-14 * initial_variance if missing else 1e-12
    everything = [smooth(run, model, y, observed) for run in SMOOTHERS]
    everything.append(kalman.path_moments(kernels(model, y, observed)))
    for smoothed in everything:
        assert in_deviations(smoothed.mean, exact.mean, exact.cov) < limit
        assert in_deviations(smoothed.cov, exact.cov, exact.cov) < limit
        assert in_deviations(smoothed.cross, exact.cross, exact.cov) < limit


def many_digits(mpmath, model, y, observed):
    """Returns what the loops of the textbook give in fifty digits."""

    def exact(x):
        return mpmath.matrix(x.reshape(len(x), -1).tolist())

    def tensor(path):
        rows = [[[float(x[i, j]) for j in range(x.cols)] for i in range(x.rows)] for x in path]
        return torch.tensor(rows, dtype=torch.float64)

    F, Q, H, R, m, P = map(exact, (model.F, model.Q, model.H, model.R, model.m0, model.P0))
    means, covs, prior_means, prior_covs, log_evidence = [], [], [], [], []
    for t in range(len(y)):
        if t > 0:
            m, P = F * m, F * P * F.T + Q
        prior_means.append(m)
        prior_covs.append(P)
        log_evidence.append(0.0)
        if observed[t, 0]:
            S = (H * P * H.T + R)[0]
            residual = mpmath.mpf(y[t, 0].item()) - (H * m)[0]
            k = P * H.T / S
            m, P = m + k * residual, P - k * k.T * S
            log_evidence[t] = float(-(mpmath.log(2 * mpmath.pi * S) + residual**2 / S) / 2)
        means.append(m)
        covs.append(P)
    path = (tensor(x).squeeze(-1) for x in (means, covs, prior_means, prior_covs))
    filtered = kalman.Filtered(*path, torch.tensor(log_evidence, dtype=torch.float64))
    crosses = [P * 0]
    for t in range(len(y) - 2, -1, -1):
        J = covs[t] * F.T * prior_covs[t + 1] ** -1
        crosses.insert(1, covs[t + 1] * J.T)
        means[t] = means[t] + J * (means[t + 1] - prior_means[t + 1])
        covs[t] = covs[t] + J * (covs[t + 1] - prior_covs[t + 1]) * J.T
    return filtered, kalman.Smoothed(tensor(means).squeeze(-1), tensor(covs), tensor(crosses))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_scan_keeps_its_digits_on_a_daily_season_of_hours(missing, generator):
    model = structural(period=24, initial_variance=1e6)
    y = trending(120, 24, generator).unsqueeze(-1)
    observed = torch.rand(120, 1, generator=generator) >= missing
    loop, scan = (run(LinearGaussianSystem(*model), y, observed) for run in FILTERS)
    assert_close(scan.log_evidence.sum(), loop.log_evidence.sum(), rtol=1e-10, atol=0)
    assert_close(scan.log_evidence, loop.log_evidence, rtol=0, atol=1e-8)
    for mean, cov in ((0, 1), (2, 3)):
        assert in_deviations(scan[mean], loop[mean], loop[cov]) < 1e-8
        assert in_deviations(scan[cov], loop[cov], loop[cov]) < 1e-8
    loop, scan = (smooth(run, model, y, observed) for run in SMOOTHERS)
    assert in_deviations(scan.mean, loop.mean, loop.cov) < 1e-10
    assert in_deviations(scan.cov, loop.cov, loop.cov) < 1e-10
    assert in_deviations(scan.cross, loop.cross, loop.cov) < 1e-10


def test_single_precision_is_sane_on_a_daily_season_of_hours(generator):
    model = structural(period=24, initial_variance=1e3)
    y = trending(200, 24, generator).unsqueeze(-1)
    observed = torch.rand(200, 1, generator=generator) >= 0.1
    short = LinearGaussian(*(x.float() for x in model))
    for run in FILTERS:
        filtered, exact = (
            run(LinearGaussianSystem(*short), y.float(), observed),
            run(LinearGaussianSystem(*model), y, observed),
        )
        assert filtered.mean.dtype == filtered.cov.dtype == torch.float32
        evidence = filtered.log_evidence.double().sum()
        assert_close(evidence, exact.log_evidence.sum(), rtol=1e-4, atol=0)
        assert in_deviations(filtered.mean.double(), exact.mean, exact.cov) < 0.02
    for run in SMOOTHERS:
        smoothed, exact = smooth(run, short, y.float(), observed), smooth(run, model, y, observed)
        assert in_deviations(smoothed.mean.double(), exact.mean, exact.cov) < 2e-3
        assert in_deviations(smoothed.cov.double(), exact.cov, exact.cov) < 2e-3
        variances = smoothed.cov.diagonal(dim1=-2, dim2=-1)
        assert (variances > 0).all()


# --- gradients


NAMES = LinearGaussian._fields


def with_gradients(model):
    return LinearGaussian(*(x.clone().requires_grad_() for x in model))


def symmetric(model):
    """Returns the model whose covariances are the symmetric parts of what was varied."""
    return model._replace(
        **{n: (x + x.mT) / 2 for n in ("Q", "P0", "R") for x in [getattr(model, n)]}
    )


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("run", FILTERS)
def test_gradients_of_the_evidence(run, steps):
    model = with_gradients(random_system(2, 2, steps))
    y, observed = random_data((2,), 3, 2, 0.3)

    def evidence(*tensors):
        return run(
            LinearGaussianSystem(*symmetric(LinearGaussian(*tensors))), y, observed
        ).log_evidence

    assert torch.autograd.gradcheck(evidence, tuple(model))


@pytest.mark.parametrize("obs_dim", [1, 2])
@pytest.mark.parametrize("steps", [None, 3])
def test_gradients_of_all_moments(steps, obs_dim):
    model = with_gradients(random_system(2, obs_dim, steps))
    y, observed = random_data((), 3, obs_dim, 0.3)
    y.requires_grad_()

    def moments(y, *tensors):
        system = LinearGaussianSystem(*symmetric(LinearGaussian(*tensors)))
        return *kalman.filter(system, y, observed), *kalman.smoother(system, y, observed)

    assert torch.autograd.gradcheck(moments, (y, *model))


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_posterior_paths(shared):
    model = with_gradients(random_system(2, 1))
    y, observed = random_data((2,), 3, 1, 0.3)
    observed = observed[:1].expand(2, 3, 1) if shared else observed
    G = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    G0 = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    eps = torch.randn(2, 3, 2, dtype=torch.float64)

    def paths(G, G0, *tensors):
        model = symmetric(LinearGaussian(*tensors))._replace(Q=G @ G.mT)
        return kalman.sample_paths(kernels(model, y, observed, G, G0), eps)

    assert torch.autograd.gradcheck(paths, (G, G0, *model))


def test_second_derivatives_of_the_evidence():
    model = with_gradients(random_system(2, 1))
    y, observed = random_data((), 3, 1, 0.3)

    def evidence(*tensors):
        return kalman.filter(
            LinearGaussianSystem(*symmetric(LinearGaussian(*tensors))), y, observed
        ).log_evidence.sum()

    assert torch.autograd.gradgradcheck(evidence, tuple(model))


# --- laws


@given(seed=st.integers(0, 10_000), more=st.integers(1, 4), obs_dim=st.integers(1, 3))
def test_appended_unobserved_steps_change_nothing(seed, more, obs_dim):
    generator = torch.Generator().manual_seed(seed)
    model = random_system(3, obs_dim, generator=generator)
    y, observed = random_data((2,), 5, obs_dim, 0.3, generator)
    longer_y = torch.nn.functional.pad(y, (0, 0, 0, more))
    longer = torch.nn.functional.pad(observed, (0, 0, 0, more))
    for run in FILTERS:
        short, long = (
            run(LinearGaussianSystem(*model), y, observed),
            run(LinearGaussianSystem(*model), longer_y, longer),
        )
        for a, b, event in zip(short, long, (1, 2, 1, 2, 0), strict=True):
            assert_close(b.narrow(-1 - event, 0, 5), a, **EXACT)
        assert not long.log_evidence[..., 5:].any()
    for run in SMOOTHERS:
        short, long = smooth(run, model, y, observed), smooth(run, model, longer_y, longer)
        for a, b, event in zip(short, long, (1, 2, 2), strict=True):
            assert_close(b.narrow(-1 - event, 0, 5), a, **EXACT)


@given(seed=st.integers(0, 10_000), after=st.integers(1, 4))
def test_standing_still_unseen_changes_nothing(seed, after):
    generator = torch.Generator().manual_seed(seed)
    model = random_system(2, 2, 5, generator=generator)
    y, observed = random_data((2,), 5, 2, 0.3, generator)
    still = model._replace(
        F=torch.eye(2, dtype=torch.float64).expand(5, 2, 2), b=0 * model.b, Q=0 * model.Q
    )
    longer = LinearGaussian(
        *(
            x if name in ("m0", "P0") else _inserted(x, s[:1], after)
            for name, x, s in zip(model._fields, model, still, strict=True)
        )
    )
    y2 = _inserted(y, torch.zeros_like(y[:, :1]), after, 1)
    observed2 = _inserted(observed, torch.zeros_like(observed[:, :1]), after, 1)
    kept = [t for t in range(6) if t != after]
    for run in FILTERS:
        short, long = (
            run(LinearGaussianSystem(*model), y, observed),
            run(LinearGaussianSystem(*longer), y2, observed2),
        )
        assert_close(long.mean[:, kept], short.mean, **EXACT)
        assert_close(long.cov[:, kept], short.cov, **EXACT)
        assert_close(long.log_evidence[:, kept], short.log_evidence, **EXACT)
    for run in SMOOTHERS:
        short, long = smooth(run, model, y, observed), smooth(run, longer, y2, observed2)
        assert_close(long.mean[:, kept], short.mean, **EXACT)
        assert_close(long.cov[:, kept], short.cov, **EXACT)
        assert_close(long.cov[:, after], long.cov[:, after - 1], **EXACT)
        assert_close(long.cross[:, after], long.cov[:, after], **EXACT)


def _inserted(x, one, position, axis=0):
    return torch.cat(
        [x.narrow(axis, 0, position), one, x.narrow(axis, position, x.shape[axis] - position)], axis
    )


@given(seed=st.integers(0, 10_000))
def test_at_the_last_step_smoothing_is_filtering(seed):
    generator = torch.Generator().manual_seed(seed)
    model = random_system(3, 2, 6, generator=generator)
    y, observed = random_data((2,), 6, 2, 0.3, generator)
    filtered = kalman.filter(LinearGaussianSystem(*model), y, observed)
    for run in SMOOTHERS:
        smoothed = smooth(run, model, y, observed)
        assert_close(smoothed.mean[:, -1], filtered.mean[:, -1], **EXACT)
        assert_close(smoothed.cov[:, -1], filtered.cov[:, -1], **EXACT)


def test_unobserved_the_posterior_is_the_prior():
    model = random_system(3, 2)
    y, observed = random_data((), 6, 2, 1.0)
    q = kernels(model, y, observed)
    assert_close(q.A[1:], model.F.expand(5, 3, 3))
    assert_close((q.factor @ q.factor.mT)[1:], model.Q.expand(5, 3, 3))
    assert_close(q.offset, torch.cat([model.m0[None], model.b.expand(5, 3)]))


def test_factors_of_fewer_columns_are_filled_up():
    model = random_system(3, 1, rank=1)
    y, observed = random_data((), 4, 1, 0.3)
    G = factor(model.Q)[:, -1:]
    q = kernels(model, y, observed, G, factor(model.P0))
    assert q.factor.shape == (4, 3, 3)
    assert not q.factor[1:, :, 1:].any()
    narrow = kernels(model, y, observed, factor(model.Q), factor(model.P0)[:, -1:])
    assert not narrow.factor[0, :, 1:].any()


@pytest.mark.parametrize("obs_dim", [1, 2])
def test_an_observation_without_variance_is_refused(obs_dim):
    model = random_system(2, obs_dim)
    model = model._replace(R=0 * model.R)
    known = model._replace(Q=0 * model.Q, P0=0 * model.P0)
    y, observed = random_data((), 4, obs_dim, 0.0)
    for run in FILTERS:
        with pytest.raises(ValueError, match=r"positive variances, found 0.*R a positive variance"):
            run(LinearGaussianSystem(*known), y, observed)
    with pytest.raises(ValueError, match="covariance R of the observation noise"):
        potentials(model, y, observed)


@pytest.mark.parametrize("run", [0, 1], ids=["sequential", "scan"])
@pytest.mark.parametrize("rank", [0, 1, None])
def test_a_state_may_foretell_the_next_observation(run, rank):
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        model = random_system(3, 2, 6 if seed % 2 else None, rank=rank, generator=g)
        R = torch.diag_embed(model.R.diagonal(dim1=-2, dim2=-1) * torch.arange(2))
        model = model._replace(R=R if rank is not None else torch.zeros_like(R))
        y, observed = random_data((2,), 6, 2, 0.3, g)
        if rank == 0:  # so that the last cells are not determined by those before
            model, observed = model._replace(Q=torch.zeros_like(model.Q)), observed & False
            observed[:, :2, 0], observed[:, 2:, 1] = True, True
        joint = each(dense_posterior, model, y, observed)
        filtered = FILTERS[run](LinearGaussianSystem(*model), y, observed)
        expected = each(loop_filter, model, y, observed)
        for found, right in zip(filtered, expected, strict=True):
            assert_close(found, right, rtol=1e-7, atol=1e-7)
        smoothed = smooth(SMOOTHERS[run], model, y, observed)
        for found, right in zip(smoothed, joint[1:], strict=True):
            assert_close(found, right, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("run", [*FILTERS, kalman.log_likelihood])
def test_a_row_that_does_not_see_the_last_direction_has_the_gradient_of_one_that_might(run):
    # the first row would see the level, were its loading not zero; the second one determines it
    H = torch.tensor([[0.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    model = random_system(2, 2)._replace(H=H, F=torch.tensor([[1.0, 0.0], [0.3, 0.8]]).double())
    y, observed = random_data((), 4, 2, 0.0)
    diffuse = torch.tensor([True, False])

    def evidence(F, H):
        distribution = model._replace(F=F, H=H)
        found = run(LinearGaussianSystem(*distribution, diffuse=diffuse), y, observed)
        return found if isinstance(found, torch.Tensor) else found.log_evidence.sum()

    free = [x.clone().requires_grad_() for x in (model.F, model.H)]
    assert torch.autograd.gradcheck(evidence, free, eps=1e-4, atol=1e-5, rtol=1e-5)


# --- against statsmodels


def statsmodels_cases():
    return ["local level", "local linear trend", "dummy seasonal", "cycle", "ar(2)"]


@pytest.mark.parametrize("name", statsmodels_cases())
def test_statsmodels(name):
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.sarimax import SARIMAX
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=60)) + 3 * np.sin(np.arange(60) / 2)
    y[[5, 6, 20, 41]] = np.nan
    if name == "ar(2)":
        theirs, params = SARIMAX(y, order=(2, 0, 0)), [0.6, 0.2, 1.3]
    elif name == "local level":
        theirs, params = UnobservedComponents(y, "llevel"), [0.5, 0.8]
    elif name == "local linear trend":
        theirs, params = UnobservedComponents(y, "lltrend"), [0.5, 0.8, 0.02]
    elif name == "dummy seasonal":
        theirs, params = UnobservedComponents(y, "lltrend", seasonal=4), [0.5, 0.8, 0.02, 0.1]
    else:
        options = {"cycle": True, "stochastic_cycle": True, "damped_cycle": True}
        theirs, params = UnobservedComponents(y, "llevel", **options), [0.5, 0.8, 0.3, 0.5, 0.9]
    theirs.update(np.array(params))
    ssm = theirs.ssm
    K = ssm.k_states
    ssm.initialize_known(np.full(K, 0.5), 2.0 * np.eye(K) + 0.3)
    result = ssm.smooth()

    def tensor(x):
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 0)))

    G = torch.from_numpy(ssm["selection"])
    model = LinearGaussian(
        torch.from_numpy(ssm["transition"].copy()),
        torch.zeros(K, dtype=torch.float64),
        G @ torch.from_numpy(ssm["state_cov"].copy()) @ G.mT,
        torch.full((K,), 0.5, dtype=torch.float64),
        2.0 * torch.eye(K, dtype=torch.float64) + 0.3,
        torch.from_numpy(ssm["design"].copy()),
        torch.zeros(1, dtype=torch.float64),
        torch.from_numpy(ssm["obs_cov"].copy()),
    )
    observed = torch.from_numpy(~np.isnan(y)).unsqueeze(-1)
    y = torch.from_numpy(np.nan_to_num(y)).unsqueeze(-1)
    close = {"rtol": 1e-7, "atol": 1e-8}
    for run in FILTERS:
        filtered = run(LinearGaussianSystem(*model), y, observed)
        assert_close(filtered.log_evidence, torch.from_numpy(result.llf_obs.copy()), **close)
        assert_close(filtered.mean, tensor(result.filtered_state), **close)
        assert_close(filtered.cov, tensor(result.filtered_state_cov), **close)
        assert_close(filtered.predicted_mean, tensor(result.predicted_state[:, :-1]), **close)
        assert_close(filtered.predicted_cov, tensor(result.predicted_state_cov[..., :-1]), **close)
    for run in SMOOTHERS:
        smoothed = smooth(run, model, y, observed)
        assert_close(smoothed.mean, tensor(result.smoothed_state), **close)
        assert_close(smoothed.cov, tensor(result.smoothed_state_cov), **close)
        theirs = tensor(result.smoothed_state_autocov)
        assert_close(smoothed.cross[1:], theirs[:-1], **close)
