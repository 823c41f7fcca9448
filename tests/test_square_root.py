"""The filter on factors: the same results, and digits where the ordinary filter has none."""

import pytest
import torch
from reference import LinearGaussian, each, loop_filter, random_data, random_system
from torch.testing import assert_close

from seqlatent import kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.kalman.square_roots import root, triangular

F64 = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def total(filtered):
    """A number to which every entry of a result contributes by another weight."""
    parts = []
    for x in filtered:
        weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
        parts.append((weight * x).sum())
    return sum(parts)


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("latent_dim", "obs_dim"), [(1, 1), (3, 2), (2, 4)])
def test_it_is_the_filter_that_drops_missing_rows(latent_dim, obs_dim, steps, missing):
    model = random_system(latent_dim, obs_dim, steps, (2,))
    y, observed = random_data((2,), steps, obs_dim, missing)
    found = kalman.filter_square_root(LinearGaussianSystem(*model), y, observed)
    for x, expected in zip(found, each(loop_filter, model, y, observed), strict=True):
        assert_close(x, expected, **EXACT)


@pytest.mark.parametrize("rank", [0, 1])
def test_singular_noises_and_a_known_first_state(rank):
    model = random_system(3, 2, rank=1)
    model = model._replace(
        Q=rank * model.Q, P0=torch.diag(torch.tensor([0.0, 2.0, 0.0], dtype=F64))
    )
    y, observed = random_data((3,), 6, 2, 0.3)
    found = kalman.filter_square_root(LinearGaussianSystem(*model), y, observed)
    for x, expected in zip(
        found, kalman.filter(LinearGaussianSystem(*model), y, observed), strict=True
    ):
        assert_close(x, expected, **EXACT)


def test_what_series_share_is_computed_once():
    model = random_system(2, 1)
    y, observed = random_data((5,), 8, 1, 0.0)
    found = kalman.filter_square_root(LinearGaussianSystem(*model), y, observed)
    assert found.cov.stride(0) == 0
    assert_close(found.mean, kalman.filter(LinearGaussianSystem(*model), y, observed).mean, **EXACT)


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("rank", [None, 1])
def test_gradients_are_those_of_the_filter(steps, rank):
    model = random_system(3, 2, steps, rank=rank)
    y, observed = random_data((2,), 4, 2, 0.3)
    found = []
    for run in (kalman.filter, kalman.filter_square_root):
        args = [x.clone().requires_grad_() for x in model]
        found.append(
            torch.autograd.grad(total(run(LinearGaussianSystem(*args), y, observed)), args)
        )
    for plain, other in zip(*found, strict=True):
        assert_close(other, plain, rtol=1e-8, atol=1e-9)


def test_gradcheck():
    model = random_system(2, 2)
    y, observed = random_data((), 3, 2, 0.3)
    args = [x.clone().requires_grad_() for x in (*model, y)]

    def run(F, b, Q, m0, P0, H, d, R, y):
        Q, P0, R = ((x + x.mT) / 2 for x in (Q, P0, R))
        return total(
            kalman.filter_square_root(LinearGaussianSystem(F, b, Q, m0, P0, H, d, R), y, observed)
        )

    assert torch.autograd.gradcheck(run, args)


def hard(dtype):
    """Nearly collinear sharp observations of a state that nothing was known of."""
    model = LinearGaussian(
        torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 0.9]], dtype=F64),
        torch.zeros(3, dtype=F64),
        torch.tensor([0, 1e-4, 1e-6], dtype=F64).diag(),
        torch.zeros(3, dtype=F64),
        1e7 * torch.eye(3, dtype=F64),
        torch.tensor([[1, 1, 0], [1, 1 + 2**-10, 0], [0, 0.5, 1]], dtype=F64),
        torch.zeros(3, dtype=F64),
        1e-6 * torch.eye(3, dtype=F64),
    )
    # numbers that are the same in both precisions
    model = LinearGaussian(*(x.float().double() for x in model))
    g = torch.Generator().manual_seed(2)
    y, observed = random_data((), 20, 3, 0.2, g)
    y = y.float().double()
    return [x.to(dtype) for x in model], y.to(dtype), observed


def exact_filter(model, y, observed, digits=50):
    """Filters in numbers of many digits, row by row."""
    mp = pytest.importorskip("mpmath")
    mp.mp.dps = digits
    F, b, Q, m, P, H, d, R = (mp.matrix(x.tolist()) for x in model)
    path = []
    for t in range(len(y)):
        if t:
            m, P = F * m + b, F * P * F.T + Q
        for i in range(y.shape[1]):
            if observed[t, i]:
                h = H[i, :]
                S = (h * P * h.T)[0] + R[i, i]
                k = P * h.T / S
                m = m + k * (mp.mpf(y[t, i].item()) - d[i] - (h * m)[0])
                P = P - k * (h * P)
        path.append((m, P))
    size = len(m)
    mean = torch.tensor([[float(m[i]) for i in range(size)] for m, _ in path], dtype=F64)
    cov = [[[float(P[i, j]) for j in range(size)] for i in range(size)] for _, P in path]
    return mean, torch.tensor(cov, dtype=F64)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-3), (F64, 1e-11)])
def test_it_keeps_digits_that_the_filter_loses(dtype, accuracy):
    mean, cov = exact_filter(*hard(F64))
    scale = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    model, *data = hard(dtype)
    found = kalman.filter_square_root(LinearGaussianSystem(*model), *data)
    unit = scale[:, :, None] * scale[:, None]
    assert ((found.cov.double() - cov).abs() / unit).max() < accuracy
    # the means carry the rounding of data of order one, in deviations of order 1e-3
    assert ((found.mean.double() - mean).abs() / scale).max() < 200 * accuracy
    assert torch.linalg.eigvalsh(found.cov.double()).min() > -1e-7 * cov.abs().max()
    assert bool(found.log_evidence.isfinite().all())
    if dtype == torch.float32:
        with pytest.raises(ValueError, match="expected to be positive semi-definite"):
            kalman.filter(LinearGaussianSystem(*model), *data)


def test_factors_keep_small_variances_beside_large_ones():
    P = torch.tensor([[1e12, 0, 0], [0, 1e-8, 0], [0, 0, 0]], dtype=torch.float32)
    G = root(P[None], "covariance")[0]
    assert_close(G @ G.mT, P, rtol=1e-6, atol=0)
    A = torch.randn(2, 4, 3, dtype=F64)
    L = triangular(A)
    assert L.shape == (2, 4, 4)
    assert_close(L @ L.mT, A @ A.mT)
    assert_close(L, L.tril())


@pytest.mark.parametrize("scale", [1e-8, 1e12])
def test_units_do_not_matter(scale):
    model = random_system(2, 2)
    y, observed = random_data((), 6, 2, 0.3)
    F, b, Q, m0, P0, H, d, R = model
    big = (F, b * scale, Q * scale**2, m0 * scale, P0 * scale**2, H, d * scale, R * scale**2)
    found = kalman.filter_square_root(LinearGaussianSystem(*big), y * scale, observed)
    expected = kalman.filter(LinearGaussianSystem(*model), y, observed)
    assert_close(found.mean / scale, expected.mean, **EXACT)
    assert_close(found.cov / scale**2, expected.cov, **EXACT)


def test_bad_covariances_are_refused():
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
    y, observed = torch.ones(3, 1, dtype=F64), torch.ones(3, 1, dtype=torch.bool)

    def run(Q=one, P0=one, R=one):
        return kalman.filter_square_root(
            LinearGaussianSystem(one, zero, Q, zero, P0, one, zero, R), y, observed
        )

    with pytest.raises(ValueError, match="Q was expected to be"):
        run(Q=-one)
    with pytest.raises(ValueError, match="P0 was expected to be"):
        run(P0=one * torch.nan)
    with pytest.raises(ValueError, match="expected to have positive variances"):
        run(Q=0 * one, P0=0 * one, R=0 * one)


def test_a_diffuse_start_is_refused():
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
    diffuse = torch.tensor([True])
    system = LinearGaussianSystem(one, zero, one, zero, one, one, zero, one, diffuse=diffuse)
    with pytest.raises(ValueError, match=r"finite variance, .* use kalman\.filter"):
        kalman.filter_square_root(system, one, one.bool())
