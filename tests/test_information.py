"""The filter of information: the same results, and a first state of which nothing is known."""

import math

import pytest
import torch
from reference import each, loop_filter, random_data, random_system
from test_square_root import total
from torch.testing import assert_close

from seqlatent import kalman
from seqlatent.kalman import LinearGaussianSystem

F64 = torch.float64


EXACT = {"rtol": 1e-8, "atol": 1e-9}


def system(latent_dim, obs_dim, steps=None, lead=(), *, diagonal=True, rank=None):
    model = random_system(latent_dim, obs_dim, steps, lead, rank=rank)
    if diagonal:
        model = model._replace(R=model.R.diagonal(dim1=-2, dim2=-1).diag_embed())
    return model


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("latent_dim", "obs_dim"), [(1, 1), (3, 2), (2, 5)])
def test_it_is_the_filter_that_drops_missing_rows(latent_dim, obs_dim, steps, missing, diagonal):
    model = system(latent_dim, obs_dim, steps, (2,), diagonal=diagonal)
    y, observed = random_data((2,), steps, obs_dim, missing)
    found = kalman.filter_information(LinearGaussianSystem(*model), y, observed)
    for x, expected in zip(found, each(loop_filter, model, y, observed), strict=True):
        assert_close(x, expected, **EXACT)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_constant_matrices_and_singular_noises(missing, diagonal):
    model = system(3, 4, diagonal=diagonal, rank=1)
    model = model._replace(P0=torch.diag(torch.tensor([0.0, 2.0, 0.0], dtype=F64)))
    y, observed = random_data((3,), 6, 4, missing)
    found = kalman.filter_information(LinearGaussianSystem(*model), y, observed)
    for x, expected in zip(
        found, kalman.filter(LinearGaussianSystem(*model), y, observed), strict=True
    ):
        assert_close(x, expected, **EXACT)
    if missing == 0:
        assert found.cov.stride(0) == 0


def test_a_matrix_that_is_no_bijection_and_loadings_that_say_nothing():
    model = system(3, 4)
    F, H = model.F.clone(), model.H.clone()
    F[0], H[:, 1] = 0, 0
    model = model._replace(F=F, H=H)
    y, observed = random_data((2,), 5, 4, 0.3)
    found = kalman.filter_information(LinearGaussianSystem(*model), y, observed)
    for x, expected in zip(
        found, kalman.filter(LinearGaussianSystem(*model), y, observed), strict=True
    ):
        assert_close(x, expected, **EXACT)


@pytest.mark.parametrize("obs_dim", [2, 4])
def test_float32(obs_dim):
    model = system(3, obs_dim)
    y, observed = random_data((2,), 6, obs_dim, 0.3)
    found = kalman.filter_information(
        LinearGaussianSystem(*(x.float() for x in model)), y.float(), observed
    )
    assert found.mean.dtype == torch.float32
    for x, expected in zip(
        found, kalman.filter(LinearGaussianSystem(*model), y, observed), strict=True
    ):
        assert_close(x.double(), expected, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("diffuse", [None, torch.tensor([True, False])])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_gradcheck(missing, diffuse):
    model = system(2, 3)
    y, observed = random_data((2,), 3, 3, missing)
    observed[:, 0] = True
    args = [x.clone().requires_grad_() for x in (*model, y)]

    def run(F, b, Q, m0, P0, H, d, R, y):
        Q, P0, R = (Q + Q.mT) / 2, (P0 + P0.mT) / 2, R.diagonal().diag()
        found = kalman.filter_information(
            LinearGaussianSystem(F, b, Q, m0, P0, H, d, R, diffuse=diffuse), y, observed
        )
        predicted = found.predicted_cov[..., 1:, :, :]  # the first is infinite
        return total(found._replace(predicted_cov=predicted))

    assert torch.autograd.gradcheck(run, args)


@pytest.mark.parametrize("diffuse", [[True, False, False], [True, True, True]])
@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("obs_dim", [1, 4])
def test_a_diffuse_start_is_the_limit_of_large_variances(obs_dim, steps, diffuse):
    model, diffuse = system(3, obs_dim, steps, (2,) if steps else ()), torch.tensor(diffuse)
    y, observed = random_data((2,), 7, obs_dim, 0.2)
    kappa = 1e12
    both = diffuse[:, None] | diffuse
    large = model._replace(P0=torch.where(both, 0, model.P0) + kappa * diffuse.double().diag())
    expected = kalman.filter_square_root(LinearGaussianSystem(*large), y, observed)
    found = kalman.filter_information(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    known = found.cov.diagonal(dim1=-2, dim2=-1).isfinite()
    assert bool(known[:, -1].all())
    variance = expected.cov.diagonal(dim1=-2, dim2=-1)
    assert bool(known[variance < 1e3].all())
    assert not bool(known[variance > 1e11].any())
    assert_close(found.mean[:, -1], expected.mean[:, -1], rtol=1e-5, atol=1e-5)
    assert_close(found.cov[:, -1], expected.cov[:, -1], rtol=1e-5, atol=1e-5)
    expected = expected.log_evidence.sum(-1) + 0.5 * int(diffuse.sum()) * math.log(kappa)
    assert_close(found.log_evidence.sum(-1), expected, rtol=1e-6, atol=1e-5)


def test_a_diffuse_trend_as_statsmodels_has_it():
    sm = pytest.importorskip("statsmodels.api")
    y = torch.randn(2, 25, 1, dtype=F64).cumsum(1)
    y[0, 3:5] = torch.nan
    F = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    Q, zero = torch.diag(torch.tensor([0.3, 0.1], dtype=F64)), torch.zeros(2, dtype=F64)
    H, R = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[0.5]], dtype=F64)
    diffuse = torch.tensor([True, True])
    model = LinearGaussianSystem(F, zero, Q, zero, 0 * Q, H, zero[:1], R, diffuse=diffuse)
    found = kalman.filter_information(model, y.nan_to_num(), ~y.isnan())
    for b in range(2):
        reference = sm.tsa.UnobservedComponents(
            y[b, :, 0].numpy(), level="lltrend", use_exact_diffuse=True
        )
        result = reference.filter([0.5, 0.3, 0.1])
        assert found.log_evidence[b].sum().item() == pytest.approx(result.llf_obs.sum(), rel=1e-9)
        expected = torch.from_numpy(result.filtered_state.T.copy())
        assert_close(found.mean[b, 2:], expected[2:], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_diffuse_start_is_that_of_the_filter(missing):
    model, diffuse = system(3, 2), torch.tensor([True, False, True])
    y, observed = random_data((2,), 8, 2, missing)
    found = kalman.filter_information(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    expected = kalman.filter(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)
    assert_close(found.mean[:, -1], expected.mean[:, -1], rtol=1e-7, atol=1e-7)
    assert_close(found.cov[:, -1], expected.cov[:, -1], rtol=1e-7, atol=1e-7)
    sums = (x.log_evidence.sum(-1) for x in (found, expected))
    assert_close(*sums, rtol=1e-8, atol=1e-8)


def test_what_is_never_seen_stays_unknown():
    eye, zero = torch.eye(2, dtype=F64), torch.zeros(2, dtype=F64)
    H = torch.tensor([[1.0, 0.0]], dtype=F64)
    y, observed = torch.ones(4, 1, dtype=F64), torch.ones(4, 1, dtype=torch.bool)
    observed[0] = False
    model = (eye, zero, eye, zero, eye, H, zero[:1], eye[:1, :1])
    model = LinearGaussianSystem(*model, diffuse=torch.tensor([True, True]))
    found = kalman.filter_information(model, y, observed)
    variance = found.cov.diagonal(dim1=-2, dim2=-1)
    assert variance[:, 0].isfinite().tolist() == [False, True, True, True]
    assert not variance[:, 1].isfinite().any()
    assert not any(x.isnan().any() for x in found)
    assert found.mean[1, 0].item() == pytest.approx(1.0)


def test_no_noise_is_refused():
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
    y, observed = torch.ones(3, 1, dtype=F64), torch.ones(3, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"use kalman\.filter"):
        kalman.filter_information(
            LinearGaussianSystem(one, zero, one, zero, one, one, zero, 0 * one), y, observed
        )


@pytest.mark.parametrize("run", [kalman.filter_information, kalman.potentials])
def test_a_singular_noise_is_refused(run):
    one, zero = torch.ones(2, 2, dtype=F64), torch.zeros(2, dtype=F64)
    G = torch.tensor([[1.0], [0.3]], dtype=F64)
    y, observed = torch.ones(3, 2, dtype=F64), torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"R of the observation noise .* use kalman\.filter and"):
        run(LinearGaussianSystem(one, zero, one, zero, one, one, zero, G @ G.mT), y, observed)


@pytest.mark.parametrize("run", [kalman.filter, kalman.filter_scan, kalman.filter_information])
@pytest.mark.parametrize("level", [1e3, 1e6, 1e9])
def test_a_diffuse_trend_takes_any_level_up(run, level):
    g = torch.Generator().manual_seed(0)
    F = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    H, Q = torch.eye(1, 2, dtype=F64), torch.tensor([0.5, 0.01], dtype=F64).square().diag()
    zero, R = torch.zeros(2, dtype=F64), torch.ones(1, 1, dtype=F64)
    distribution = (F, zero, Q, zero, torch.zeros_like(Q), H, zero[:1], R)
    # halves of powers of two, so that no digit of the data is lost when the level is added
    y = (torch.randn(200, 1, dtype=F64, generator=g).cumsum(0) * 1024).round() / 1024
    diffuse, observed = torch.ones(2, dtype=torch.bool), torch.ones_like(y, dtype=torch.bool)
    low, high = (
        run(LinearGaussianSystem(*distribution, diffuse=diffuse), y + c, observed)
        for c in (0.0, level)
    )
    limit = 1e-15 * level
    assert_close(high.log_evidence.sum(), low.log_evidence.sum(), rtol=0, atol=1e3 * limit)
    assert_close(high.mean[:, 0] - level, low.mean[:, 0], rtol=0, atol=10 * limit)
    assert_close(high.mean[:, 1], low.mean[:, 1], rtol=0, atol=10 * limit)
    if run is not kalman.filter_information:
        smoother = kalman.smoother if run is kalman.filter else kalman.smoother_scan
        low, high = (
            smoother(LinearGaussianSystem(*distribution, diffuse=diffuse), y + c, observed)
            for c in (0.0, level)
        )
        assert_close(high.mean[:, 0] - level, low.mean[:, 0], rtol=0, atol=10 * limit)


def test_loadings_of_zero_have_their_gradient():
    model = system(3, 4)
    y, observed = random_data((), 5, 4, 0.3)
    H = model.H.clone()
    H[..., 1] = 0.0
    model = model._replace(H=H.requires_grad_())
    found, expected = (
        torch.autograd.grad(total(run(LinearGaussianSystem(*model), y, observed)), model.H)[0]
        for run in (kalman.filter_information, kalman.filter)
    )
    assert_close(found, expected, **EXACT)
