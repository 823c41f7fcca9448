"""The log likelihood by blocks: the filter's, the dense one, statsmodels'; gradients; bad cases."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    LinearGaussian,
    dense_posterior,
    each,
    random_covariance,
    random_data,
    random_system,
    structural,
)
from statsmodels.tsa.statespace.structural import UnobservedComponents
from torch.autograd import gradcheck

from seqlatent import kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.kalman.likelihood import missing_patterns
from seqlatent.kalman.likelihood import moving_average as reduced
from seqlatent.kalman.likelihood.block_model import block_model


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def by_filter(model, y, observed, **options):
    return kalman.filter(LinearGaussianSystem(*model, **options), y, observed).log_evidence.sum(-1)


def system(latent_dim, obs_dim, lead, own, seed=0):
    g = rng(seed)
    if not own:
        return random_system(latent_dim, obs_dim, generator=g)
    model = random_system(latent_dim, obs_dim, lead=(*lead, 1), generator=g)
    mean = torch.randn(*lead, latent_dim, dtype=torch.float64, generator=g)
    return model._replace(m0=mean, P0=random_covariance(*lead, latent_dim, generator=g))


def basic(period, series=1, seed=0):
    """Trend and season with variances of each series, and which coordinates are diffuse."""
    model = structural(period)
    factor = torch.rand(2, series, 1, 1, 1, dtype=torch.float64, generator=rng(seed)) + 0.3
    return model._replace(Q=model.Q * factor[0], R=model.R * factor[1])


def walks(*shape, seed=0):
    return torch.randn(*shape, 1, dtype=torch.float64, generator=rng(seed)).cumsum(-2)


def all_of(model):
    return torch.ones(model.F.shape[-1], dtype=torch.bool)


def at_block_size(monkeypatch, rounds):
    monkeypatch.setattr(missing_patterns, "_rounds", lambda *sizes: rounds)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([(), (4,), (2, 3)]),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.2, 0.9]),
    st.booleans(),
    st.integers(0, 5),
)
def test_it_is_the_sum_of_what_the_filter_finds(K, D, lead, steps, missing, own, rounds):
    model = system(K, D, lead, own and bool(lead))
    y, observed = random_data(lead, steps, D, missing, rng(1))
    with pytest.MonkeyPatch.context() as patch:
        at_block_size(patch, rounds)
        found = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    assert found.shape == lead
    torch.testing.assert_close(found, by_filter(model, y, observed), rtol=1e-10, atol=1e-10)


def test_it_is_the_dense_gaussian():
    model = random_system(3, 2, generator=rng())
    y, observed = random_data((4,), 25, 2, 0.3, rng(1))
    expected = each(dense_posterior, model, y, observed).log_evidence
    if expected.dim() > 1:
        expected = expected.sum(-1)
    found = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_series_of_every_pattern_are_grouped_and_come_back_in_order():
    model = structural(12, initial_variance=1e4)
    y, observed = walks(60, 200), torch.ones(60, 200, 1, dtype=torch.bool)
    observed[:10, 70:] = False
    observed[10:14, 5:] = False
    observed[14, 3:] = observed[15, :190] = observed[16] = False
    observed[17:27, :30] = False
    observed[27:45, 40:50] = False
    observed[45:58, 7] = False
    found = kalman.log_likelihood(
        LinearGaussianSystem(*model), torch.where(observed, y, 0), observed
    )
    expected = by_filter(model, torch.where(observed, y, 0), observed)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found[16] == 0


def test_time_varying_matrices_and_exact_observations_go_step_by_step():
    varying = random_system(3, 2, 9, generator=rng())
    exact = random_system(2, 1, generator=rng())._replace(R=torch.zeros(1, 1, dtype=torch.float64))
    for model, obs_dim in ((varying, 2), (exact, 1)):
        y, observed = random_data((3,), 9, obs_dim, 0.2, rng(1))
        found = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
        assert torch.equal(found, by_filter(model, y, observed))


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("obs_dim", "missing"), [(1, 0.0), (2, 0.3)])
def test_gradients_of_every_matrix(monkeypatch, rounds, own, obs_dim, missing):
    at_block_size(monkeypatch, rounds)
    model = system(2, obs_dim, (2,), own)
    y, observed = random_data((2,), 9, obs_dim, missing, rng(1))
    observed[0, 7:] = False

    def value(*matrices):
        parts = list(matrices)
        for i in (2, 4, 7):
            parts[i] = (parts[i] + parts[i].mT) / 2
        return kalman.log_likelihood(
            LinearGaussianSystem(*parts), torch.where(observed, y, 0), observed
        )

    assert gradcheck(value, [x.clone().requires_grad_() for x in model], atol=1e-6)


@pytest.mark.parametrize("period", [4, 12])
def test_gradients_through_steady_blocks_are_those_of_the_filter(period):
    model = structural(period, initial_variance=100.0)
    y, observed = walks(3, 600), torch.ones(3, 600, 1, dtype=torch.bool)
    grads = []
    for f in (kalman.log_likelihood, by_filter_plain):
        parts = [x.clone().requires_grad_() for x in model]
        grads.append(torch.autograd.grad(f(LinearGaussianSystem(*parts), y, observed).sum(), parts))
    for ours, theirs in zip(*grads, strict=True):
        if ours.dim() == 2 and ours.shape[0] == ours.shape[1]:
            ours, theirs = ours + ours.mT, theirs + theirs.mT
        size = theirs.abs().max()
        torch.testing.assert_close(ours / size, theirs / size, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rounds", [0, 2])
def test_gradients_keep_their_digits_under_a_transition_that_grows(monkeypatch, rounds):
    """Six integrations, whose shocks are those of three."""
    at_block_size(monkeypatch, rounds)
    one, g = torch.eye(6, dtype=torch.float64), rng(3)
    G, H, y = (torch.randn(*s, dtype=torch.float64, generator=g) for s in ((6, 3), (1, 6), (90, 1)))
    F, Q, zero = one + one.roll(1, 1).triu(1), G @ G.mT, 0 * one[0]
    model = (F, zero, Q, zero, one, H, zero[:1], one[:1, :1])
    y, observed = y.cumsum(-2), torch.ones(90, 1, dtype=torch.bool)
    grads = []
    for f in (kalman.log_likelihood, by_filter_plain):
        parts = [x.clone().requires_grad_() for x in model]
        grads.append(torch.autograd.grad(f(LinearGaussianSystem(*parts), y, observed), parts))
    for ours, theirs in zip(*grads, strict=True):
        if ours.shape == (6, 6) and ours is not grads[0][0]:  # all but F are symmetric
            ours, theirs = ours + ours.mT, theirs + theirs.mT
        size = theirs.abs().max()
        torch.testing.assert_close(ours / size, theirs / size, rtol=0, atol=1e-6)


def test_gradients_of_a_panel_with_missing_values_take_the_blocks_of_its_values(monkeypatch):
    """Under a wide prior most of the first block's states are known only together."""
    model, y = structural(12), walks(16, 80)
    observed = torch.rand(y.shape, generator=rng(1)) > 0.05
    y, begun, initial_block = torch.where(observed, y, 0), [], missing_patterns.initial_block

    def counted(*arguments):
        begun.append(arguments)
        return initial_block(*arguments)

    monkeypatch.setattr(missing_patterns, "initial_block", counted)
    at_block_size(monkeypatch, 4)
    kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    blocks, grads = len(begun), []
    for f in (kalman.log_likelihood, by_filter_plain):
        Q, R = (x.clone().requires_grad_() for x in (model.Q, model.R))
        value = f(LinearGaussianSystem(*model._replace(Q=Q, R=R)), y, observed).sum()
        grads.append([x + x.mT for x in torch.autograd.grad(value, (Q, R))])
    assert len(begun) == 2 * blocks
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8 * float(theirs.abs().max()))


def test_gradients_of_groups_that_share_a_first_block_are_those_of_the_filter():
    model, y = structural(4, initial_variance=100.0), walks(6, 120)
    observed = torch.ones_like(y, dtype=torch.bool)
    for i in range(6):
        observed[i, 60 + 7 * i] = False
    y = torch.where(observed, y, 0)
    for diffuse in (None, all_of(model)):
        grads = []
        for f in (kalman.log_likelihood, by_filter_plain):
            Q, R = (x.clone().requires_grad_() for x in (model.Q, model.R))
            changed = model._replace(Q=Q, R=R)
            value = f(LinearGaussianSystem(*changed, diffuse=diffuse), y, observed)
            grads.append([x + x.mT for x in torch.autograd.grad(value.sum(), (Q, R))])
        for ours, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def by_filter_plain(system, y, observed):
    return kalman.filter(system, y, observed).log_evidence.sum(-1)


@pytest.mark.parametrize("period", [2, 4, 12, 24])
@pytest.mark.parametrize("missing", [False, True])
def test_a_diffuse_start_is_that_of_statsmodels(period, missing):
    model, y = structural(period), walks(90)
    observed = torch.ones_like(y, dtype=torch.bool)
    if missing:
        observed[torch.rand(90, generator=rng(2)) < 0.2] = False
        observed[:3] = False
    values = torch.where(observed, y, torch.nan)[:, 0].numpy()
    peer = UnobservedComponents(values, "lltrend", seasonal=period, use_exact_diffuse=True)
    y = torch.where(observed, y, 0)
    found = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=all_of(model)), y, observed)
    assert found.item() == pytest.approx(peer.loglike([1.0, 0.09, 0.01, 0.04]), rel=1e-10)


def test_states_that_nothing_determines_are_left_out_as_by_statsmodels():
    model, y = structural(4), walks(5, 50)
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[0] = observed[1, 1:] = observed[2, 3:] = observed[3, :47] = observed[4, :40] = False
    y = torch.where(observed, y, 0)
    found = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=all_of(model)), y, observed)
    for b in range(1, 5):
        values = torch.where(observed, y, torch.nan)[b, :, 0].numpy()
        peer = UnobservedComponents(values, "lltrend", seasonal=4, use_exact_diffuse=True)
        assert found[b].item() == pytest.approx(peer.loglike([1.0, 0.09, 0.01, 0.04]), rel=1e-9)
    assert found[0] == 0


def test_the_diffuse_start_is_the_limit_of_large_ones():
    model, y = structural(4), walks(30)
    observed = torch.ones_like(y, dtype=torch.bool)
    limit = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=all_of(model)), y, observed)
    for variance in (1e8, 1e12, 1e16):
        large = structural(4, initial_variance=variance)
        found = kalman.log_likelihood(LinearGaussianSystem(*large), y, observed) + 2.5 * math.log(
            variance
        )
        assert found.item() == pytest.approx(limit.item(), abs=1e3 / variance + 1e-9)


@pytest.mark.parametrize("scales", [(0.3, 0.1, 0.2), (0.3, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_the_reduced_form_is_the_blocks(monkeypatch, scales):
    model = basic(12, 9)
    own = structural(12, scales)
    model = model._replace(Q=own.Q * model.Q[:, :, :1, :1])
    y, observed = walks(9, 80), torch.ones(9, 80, 1, dtype=torch.bool)
    observed[2, 40:] = observed[5, 14:] = observed[6, 13:] = False
    y = torch.where(observed, y, 0)
    found = []
    for form in (reduced.reduce, lambda *matrices: None):
        monkeypatch.setattr(reduced, "reduce", form)
        parts = [x.clone().requires_grad_() for x in (model.Q, model.R)]
        changed = model._replace(Q=parts[0], R=parts[1])
        value = kalman.log_likelihood(
            LinearGaussianSystem(*changed, diffuse=all_of(model)), y, observed
        )
        Q, R = torch.autograd.grad(value.sum(), parts)
        found.append((value.detach(), Q + Q.mT, R))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_reduced_form_is_not_used_where_differences_keep_few_digits():
    """A quadratic trend without shocks: of numbers near 1e5 all but the noise is taken off."""
    one = torch.eye(3, dtype=torch.float64)
    R = 0.1 + torch.rand(24, 1, 1, 1, dtype=torch.float64, generator=rng())
    model = (one + one.roll(1, 1).triu(1), 0 * one[0], 0 * one, 0 * one[0], one, one[:1])
    model = (*model, 0 * one[0, :1], R)
    t = torch.arange(250, dtype=torch.float64)[:, None]
    y = t + 0.5 * t**2 + R[:, 0].sqrt() * torch.randn(24, 250, 1, generator=rng(1)).double()
    observed, flat = torch.ones_like(y, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    found = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=flat), y, observed)
    expected = kalman.filter(
        LinearGaussianSystem(*model, diffuse=flat), y, observed
    ).log_evidence.sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_moving_averages_are_dense_gaussians():
    gamma = torch.tensor([2.0, 0.5, 0.3, -0.2], dtype=torch.float64)
    w = torch.randn(3, 20, dtype=torch.float64, generator=rng())
    lag = (torch.arange(20)[:, None] - torch.arange(20)).abs()
    cov = torch.where(lag < 4, gamma[lag.clamp_max(3)], 0.0)
    dense = torch.distributions.MultivariateNormal(torch.zeros_like(w[0]), cov).log_prob(w)
    torch.testing.assert_close(reduced.moving_average(gamma, w, None)[0], dense)
    counted = (torch.arange(20) < torch.tensor([[20], [7], [1]])).double()
    each = gamma * torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64)

    def value(gamma, w):
        return reduced.moving_average(gamma, w, counted)[0]

    assert gradcheck(value, (each.requires_grad_(), w.requires_grad_()))
    assert gradcheck(value, (gamma.requires_grad_(), w))


def test_a_polynomial_that_loses_digits_is_not_used():
    turn = torch.tensor([[0.9, 0.0], [0.0, 0.9]], dtype=torch.float64)
    assert reduced.reduce(turn, torch.ones(1, 2, dtype=torch.float64)) is None


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_a_block_is_its_steps(rounds):
    model, m = random_system(3, 2, generator=rng()), 2**rounds
    block = block_model(model.F, model.Q, model.H, model.R, rounds)
    V, F = torch.zeros_like(model.Q), torch.eye(3, dtype=torch.float64)
    for i in range(m):
        own = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(block.rows[own], model.H @ F)
        torch.testing.assert_close(block.yy[own, own], model.H @ V @ model.H.mT + model.R)
        V, F = model.F @ V @ model.F.mT + model.Q, model.F @ F
    torch.testing.assert_close(block.zz, V)
    torch.testing.assert_close(block.transition, F)


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e6, 1e12])
def test_units_do_not_matter(scale):
    model, y = structural(12), walks(2, 100)
    observed = torch.rand(2, 100, 1, generator=rng()) > 0.1
    y = torch.where(observed, y, 0)
    squared = scale**2
    changed = model._replace(Q=model.Q * squared, R=model.R * squared, P0=model.P0 * squared)
    found = kalman.log_likelihood(LinearGaussianSystem(*changed), y * scale, observed)
    jacobian = observed.sum((1, 2)).double() * math.log(scale)
    torch.testing.assert_close(
        found + jacobian, kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    )


def test_single_precision():
    model, y = structural(12, initial_variance=1e4), walks(2, 200)
    observed = torch.ones_like(y, dtype=torch.bool)
    single = kalman.log_likelihood(
        LinearGaussianSystem(*(x.float() for x in model)), y.float(), observed
    )
    assert single.dtype == torch.float32
    double = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


def test_offsets_and_first_means_enter_exactly():
    model = random_system(3, 1, generator=rng())
    model = model._replace(b=torch.randn(50, 3, dtype=torch.float64, generator=rng(3)))
    y, observed = random_data((4,), 50, 1, 0.1, rng(1))
    torch.testing.assert_close(
        kalman.log_likelihood(LinearGaussianSystem(*model), y, observed),
        by_filter(model, y, observed),
        rtol=1e-10,
        atol=0,
    )


def test_a_long_series_is_right_at_its_end():
    one = torch.ones(1, 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    model = (one, zero, 0.1 * one, zero, 1e6 * one, one, zero, one)
    y = walks(20_000)
    found = kalman.log_likelihood(
        LinearGaussianSystem(*model), y, torch.ones_like(y, dtype=torch.bool)
    )
    peer = UnobservedComponents(y[:, 0].numpy(), "llevel")
    peer.ssm.initialize_known(np.zeros(1), 1e6 * np.eye(1))
    peer.loglikelihood_burn = 0
    assert found.item() == pytest.approx(peer.loglike([1.0, 0.1]), rel=1e-9)


def test_what_cannot_be_is_named():
    model = random_system(3, 2, generator=rng())
    y, observed = random_data((4,), 9, 2, 0.0, rng(1))
    wrong = model._replace(H=model.H[:, :2])
    with pytest.raises(ValueError, match="H was expected to have the shape"):
        kalman.log_likelihood(LinearGaussianSystem(*wrong), y, observed)
    for name in ("Q", "R", "P0"):
        with pytest.raises(ValueError, match=name):
            kalman.log_likelihood(
                LinearGaussianSystem(*model._replace(**{name: -getattr(model, name)})), y, observed
            )
    with pytest.raises(ValueError, match="observed"):
        kalman.log_likelihood(
            LinearGaussianSystem(*model), y.masked_fill(y > 1, torch.nan), observed
        )


def test_blocks_that_are_too_ill_conditioned_go_step_by_step(monkeypatch):
    model = random_system(3, 2, generator=rng())
    y, observed = random_data((4,), 9, 2, 0.2, rng(1))
    asked = []

    def few(dtype, cells):
        asked.append(dtype)
        return 1e-300

    monkeypatch.setattr(missing_patterns, "trusted", few)
    found = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    assert torch.equal(found, by_filter(model, y, observed))
    assert set(asked) == {torch.float64}


def test_some_series_of_a_group_go_step_by_step_and_others_do_not():
    g = rng()
    # of a smooth trend with a wide prior, three values say little and thirty say much
    one = torch.eye(4, dtype=torch.float64)
    F = one + one.roll(1, 1).triu(1)
    model = (F, 0 * one[0], 1e-6 * one, 0 * one[0], 1e5 * one, one[:1], 0 * one[0, :1], one[:1, :1])
    y, observed = random_data((6,), 30, 1, 0.2, g)
    observed[::2, 3:] = False
    y = torch.where(observed, y, 0).requires_grad_()
    values = [
        f(LinearGaussianSystem(*model), y, observed)
        for f in (kalman.log_likelihood, by_filter_plain)
    ]
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)
    grads = [torch.autograd.grad(x.sum(), y)[0] for x in values]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ratio", [1e-4, 1.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("flat", [False, True])
def test_no_ratio_of_noises_costs_digits(ratio, flat):
    model, y = structural(2, (1.0, 0.1, 0.1), noise=ratio**-0.5, initial_variance=100.0), walks(50)
    observed, diffuse = torch.ones_like(y, dtype=torch.bool), all_of(model) if flat else None
    found = []
    for f in (kalman.log_likelihood, by_filter_plain):
        R = model.R.clone().requires_grad_()
        changed = model._replace(R=R)
        value = f(LinearGaussianSystem(*changed, diffuse=diffuse), y, observed)
        found.append((value.detach(), torch.autograd.grad(value, R)[0]))
    (value, slope), (right, right_slope) = found
    torch.testing.assert_close(value, right, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope, right_slope, rtol=max(1e-8, 1e-15 * ratio), atol=0)
    single = (x.float() for x in changed)
    value = kalman.log_likelihood(
        LinearGaussianSystem(*single, diffuse=diffuse), y.float(), observed
    )
    torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=0)


@pytest.mark.parametrize("level", [0.0, 1e5, 1e7, 1e9])
def test_the_level_of_a_diffuse_trend_costs_no_digits(level):
    y = 0.01 * (walks(300, seed=1) + walks(300, seed=2).diff(dim=0, prepend=torch.zeros(1, 1)))
    model = structural(2, (0.005, 1e-4, 1e-3), noise=0.01)
    observed = torch.ones_like(y, dtype=torch.bool)
    right = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=all_of(model)), y, observed)
    found = kalman.log_likelihood(
        LinearGaussianSystem(*model, diffuse=all_of(model)), y + level, observed
    )
    # the values themselves are rounded
    noise = 1e-16 * level / 0.01 * len(y) ** 0.5
    torch.testing.assert_close(found, right, rtol=1e-9, atol=30 * noise)
    single, units = model._replace(Q=1e4 * model.Q, R=1e4 * model.R), 100 * y
    whole = (units + min(level, 1e5)).float()
    variants = (single, LinearGaussian(*(x.float() for x in single)))
    values = [
        kalman.log_likelihood(
            LinearGaussianSystem(*changed, diffuse=all_of(model)),
            whole.to(changed.R.dtype),
            observed,
        )
        for changed in variants
    ]
    torch.testing.assert_close(values[1].double(), values[0], rtol=1e-5, atol=0)


def test_an_offset_of_an_explosive_transition_costs_no_digits():
    model = random_system(2, 1, generator=rng())
    model = model._replace(
        F=torch.tensor([[1.3, 0.2], [0.0, 0.5]], dtype=torch.float64), b=model.b + 1.0
    )
    y, observed = walks(3, 60), torch.ones(3, 60, 1, dtype=torch.bool)
    found = kalman.log_likelihood(LinearGaussianSystem(*model), y, observed)
    torch.testing.assert_close(found, by_filter(model, y, observed), rtol=1e-10, atol=0)


@pytest.mark.parametrize("own", [False, True])
def test_a_leading_gap_before_a_decaying_state_leaves_it_diffuse(own):
    decay = torch.tensor([[0.2, 0.0], [0.0, 0.9]], dtype=torch.float64)
    model = random_system(2, 1, generator=rng())._replace(F=decay)
    if own:
        model = model._replace(R=model.R * torch.ones(2, 1, 1, 1, dtype=torch.float64))
    y, observed = walks(2, 30), torch.ones(2, 30, 1, dtype=torch.bool)
    observed[0, :12] = False
    y = torch.where(observed, y, 0)
    found = kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=all_of(model)), y, observed)
    expected = by_filter(model, y, observed, diffuse=all_of(model))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_a_gradient_that_is_differentiated_again_is_the_filters():
    model = structural(2, initial_variance=10.0)
    y, observed = random_data((3,), 20, 1, 0.2, rng())

    def value(f, scales):
        changed = model._replace(Q=model.Q * scales[0], R=model.R * scales[1])
        return f(LinearGaussianSystem(*changed), y, observed).sum()

    scales = torch.tensor([1.3, 0.7], dtype=torch.float64)
    found, expected = (
        torch.autograd.functional.hessian(partial(value, f), scales)
        for f in (kalman.log_likelihood, by_filter_plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
    slopes = []
    for moved in (scales + step, scales - step):
        moved.requires_grad_()
        slopes.append(torch.autograd.grad(value(kalman.log_likelihood, moved), moved)[0])
    torch.testing.assert_close(found[0], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-6, atol=1e-6)


def test_a_gradient_may_be_asked_for_again():
    model = random_system(2, 1, generator=rng())
    y, observed = random_data((3,), 20, 1, 0.2, rng())
    R = model.R.clone().requires_grad_()
    value = kalman.log_likelihood(LinearGaussianSystem(*model._replace(R=R)), y, observed).sum()
    first, second = (
        torch.autograd.grad(value, R, retain_graph=again)[0] for again in (True, False)
    )
    torch.testing.assert_close(first, second)
