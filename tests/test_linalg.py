"""Factors, conditioning and discretisation against dense linear algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.distributions import MultivariateNormal

from seqlatent.linalg import cholesky, condition, factor, mask_rows, van_loan

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def covariance(*shape, rank=None, generator=None):
    *lead, size = shape
    G = torch.randn(*lead, size, rank or size, dtype=torch.float64, generator=generator)
    return G @ G.mT / size


# --- factors ------------------------------------------------------------------------------------


def test_cholesky_adds_nothing_where_nothing_is_needed():
    P = covariance(2, 3, 4)
    assert torch.equal(cholesky(P), torch.linalg.cholesky(P))


def test_cholesky_leaves_the_other_matrices_of_a_batch_alone():
    P = torch.stack([covariance(3), torch.ones(3, 3, dtype=torch.float64)])
    L = cholesky(P)
    assert torch.equal(L[0], torch.linalg.cholesky(P[0]))
    torch.testing.assert_close(L[1] @ L[1].mT, P[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_cholesky_jitter_is_relative(dtype, scale):
    P = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=dtype) * scale
    P[1, 1] -= torch.finfo(dtype).eps * scale / 2  # a negative eigenvalue for rounding alone
    L = cholesky(P)
    assert L.dtype == dtype
    torch.testing.assert_close(L @ L.mT / scale, P / scale)


@pytest.mark.parametrize("large", [1e6, 1e12])
def test_cholesky_jitter_leaves_a_small_variance_beside_a_large_one(large):
    P = torch.block_diag(large * torch.ones(2, 2), 1e-6 * torch.ones(1, 1)).double()
    P[1, 1] -= torch.finfo(P.dtype).eps * large / 2
    L = cholesky(P)
    torch.testing.assert_close((L @ L.mT)[2, 2], P[2, 2], rtol=1e-12, atol=0)
    torch.testing.assert_close(L @ L.mT, P)


def test_cholesky_of_zero_is_almost_zero():
    assert cholesky(torch.zeros(2, 2)).abs().max() < 1e-10


def test_cholesky_of_no_matrices():
    assert cholesky(torch.zeros(0, 2, 2)).shape == (0, 2, 2)
    assert cholesky(torch.zeros(3, 0, 0)).shape == (3, 0, 0)


def test_cholesky_gradient():
    G = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda G: cholesky(G @ G.mT + torch.eye(3, dtype=G.dtype)), (G,))


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_factor_of_any_rank(rank):
    G = torch.randn(4, 3, rank, dtype=torch.float64)
    P = G @ G.mT
    found = factor(P)
    torch.testing.assert_close(found @ found.mT, P, **EXACT)
    assert (found.abs().sum(-2) > 0).sum(-1).eq(rank).all()


@pytest.mark.parametrize("P", [torch.eye(3), torch.ones(2, 2), torch.diag(torch.tensor([2.0, 0]))])
def test_factor_gradient_at_repeated_and_zero_eigenvalues(P):
    """Along a matrix that keeps the rank: d(G G^T) is dP."""
    P = P.double().requires_grad_()
    step = P.detach() @ covariance(len(P)) @ P.detach()
    weight = covariance(len(P))
    G = factor(P)
    (grad,) = torch.autograd.grad((weight * (G @ G.mT)).sum(), P)
    torch.testing.assert_close((grad * step).sum(), (weight * step).sum(), **EXACT)


def test_factor_gradient():
    G = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def log_density(G):
        root = factor(G @ G.mT)
        return MultivariateNormal(torch.zeros(3, dtype=G.dtype), root @ root.mT).log_prob(G[0])

    assert gradcheck(log_density, (G,))


def test_factor_of_nothing():
    assert factor(torch.zeros(2, 0, 0)).shape == (2, 0, 0)


@pytest.mark.parametrize("function", [cholesky, factor])
@pytest.mark.parametrize(
    ("P", "message"),
    [
        (torch.diag(torch.tensor([1.0, -1e-2])), r"noise R was .*semi-definite.*-0\.01 to 1"),
        (torch.stack([torch.eye(2), -torch.eye(2)]), r"semi-definite.* from -1 to -1"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), r"semi-definite.* from -1 to 3"),
        (torch.tensor([[torch.inf]]), "to be finite, found NaN or infinity in 1 of 1"),
        (torch.tensor([[1.0, 0.0], [torch.nan, 1.0]]), "to be finite"),
        (torch.ones(3), r"square matrices.*torch\.diag_embed"),
        (torch.ones(3, 2), "square matrices"),
        (torch.ones(2, 2).long(), "floating"),
    ],
)
def test_no_covariance(function, P, message):
    with pytest.raises(ValueError, match=message):
        function(P, what="noise R")


# --- discretisation -----------------------------------------------------------------------------


def quadrature(A, LLT, dt, points=4000):
    """Q by the midpoint rule: slow and obviously right."""
    s = (torch.arange(points, dtype=A.dtype) + 0.5) * dt / points
    E = torch.linalg.matrix_exp(A * s[:, None, None])
    return (E @ LLT @ E.mT).sum(0) * dt / points


def test_van_loan_equals_quadrature():
    A, LLT = torch.randn(3, 3, dtype=torch.float64), covariance(3)
    dt = torch.tensor([0.1, 1.0, 2.5], dtype=torch.float64)
    F, Q = van_loan(A, LLT, dt)
    torch.testing.assert_close(F, torch.linalg.matrix_exp(A * dt[:, None, None]), **EXACT)
    for i, gap in enumerate(dt):
        torch.testing.assert_close(Q[i], quadrature(A, LLT, gap), rtol=1e-5, atol=1e-5)


def test_van_loan_of_an_integrated_random_walk():
    A = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    LLT = torch.diag(torch.tensor([0.0, 2.0], dtype=torch.float64))
    for dt in (1e-3, 1.0, 37.0, 1e4):
        F, Q = van_loan(A, LLT, torch.tensor(dt, dtype=torch.float64))
        wanted = 2 * torch.tensor([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]], dtype=torch.float64)
        torch.testing.assert_close(F, torch.tensor([[1, dt], [0, 1]], dtype=torch.float64))
        torch.testing.assert_close(Q, wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_van_loan_holds_for_stiff_systems_and_long_gaps(dtype):
    """Where e^{-A dt} would overflow; doubling costs the digits of rate x gap and no more."""
    rate = torch.tensor([0.1, 20.0], dtype=dtype)
    dt = torch.tensor([0.0, 1e-3, 1.0, 100.0], dtype=dtype)
    F, Q = van_loan(-torch.diag(rate), torch.ones(2, 2, dtype=dtype), dt)
    total = rate[:, None] + rate
    wanted = -torch.expm1(-total * dt[:, None, None]) / total
    accuracy = {"rtol": 2000 * torch.finfo(dtype).eps, "atol": 1e-6 * torch.finfo(dtype).eps}
    torch.testing.assert_close(Q, wanted, **accuracy)
    torch.testing.assert_close(F, torch.diag_embed((-rate * dt[:, None]).exp()), **accuracy)


def test_van_loan_of_no_gap_is_the_identity():
    F, Q = van_loan(torch.randn(2, 2), torch.eye(2), torch.zeros(3))
    assert torch.equal(F, torch.eye(2).expand(3, 2, 2))
    assert torch.equal(Q, torch.zeros(3, 2, 2))


@settings(max_examples=20, deadline=None)
@given(gaps=st.tuples(st.floats(0, 5), st.floats(0, 5)), seed=st.integers(0, 20))
def test_two_gaps_are_their_sum(gaps, seed):
    rng = torch.Generator().manual_seed(seed)
    A = torch.randn(2, 2, dtype=torch.float64, generator=rng) - torch.eye(2)
    LLT = covariance(2, generator=rng)
    F, Q = van_loan(A, LLT, torch.tensor([*gaps, sum(gaps)], dtype=torch.float64))
    torch.testing.assert_close(F[1] @ F[0], F[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(F[1] @ Q[0] @ F[1].mT + Q[1], Q[2], rtol=1e-9, atol=1e-9)


def test_van_loan_broadcasts():
    A, dt = torch.randn(4, 1, 2, 2), torch.rand(3)
    F, Q = van_loan(A, torch.eye(2), dt)
    assert F.shape == Q.shape == (4, 3, 2, 2)
    torch.testing.assert_close(F[1, 2], van_loan(A[1, 0], torch.eye(2), dt[2])[0])
    assert van_loan(A, torch.eye(2), torch.zeros(0))[1].shape == (4, 0, 2, 2)


def test_van_loan_gradient():
    A = (torch.randn(2, 2, dtype=torch.float64) - 2 * torch.eye(2)).requires_grad_()
    G = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    dt = torch.tensor([0.3, 7.1], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda A, G, dt: van_loan(A, G @ G.mT, dt), (A, G, dt))


def test_van_loan_hands_on_what_is_not_finite():
    F, _ = van_loan(torch.full((1, 1), torch.nan), torch.eye(1), torch.ones(()))
    assert F.isnan().all()


def test_van_loan_of_a_negative_gap():
    with pytest.raises(ValueError, match=r"dt >= 0, found -0\.5"):
        van_loan(torch.eye(1), torch.eye(1), torch.tensor([1.0, -0.5]))


# --- conditioning -------------------------------------------------------------------------------


def problem(*lead, D=3, K=2, seed=0):
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    P, R = covariance(*lead, K, generator=rng), covariance(*lead, D, generator=rng)
    H, d, y = normal(*lead, D, K), normal(*lead, D), normal(*lead, D)
    observed = torch.rand(*lead, D, generator=rng) > 0.4
    return normal(*lead, K), P, H, d, R, y, observed


def dense(m, P, H, d, R, y, observed):
    """One observation with its missing rows dropped."""
    H, d, y, R = H[observed], d[observed], y[observed], R[observed][:, observed]
    if not observed.any():
        return m, P, torch.zeros((), dtype=m.dtype)
    S = H @ P @ H.mT + R
    K = P @ H.mT @ torch.linalg.inv(S)
    log_prob = MultivariateNormal(H @ m + d, S).log_prob(y)
    return m + K @ (y - H @ m - d), P - K @ H @ P, log_prob


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), D=st.integers(1, 4), K=st.integers(1, 3))
def test_condition_equals_dropping_the_missing_rows(seed, D, K):
    inputs = problem(3, 2, D=D, K=K, seed=seed)
    found = condition(*inputs)
    for i in range(3):
        for j in range(2):
            wanted = dense(*(x[i, j] for x in inputs))
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a[i, j], b, rtol=1e-8, atol=1e-9)


def test_condition_ignores_what_stands_in_missing_rows():
    m, P, H, d, R, y, observed = problem(4)
    poisoned = torch.where(observed, y, torch.nan)
    for a, b in zip(
        condition(m, P, H, d, R, y, observed),
        condition(m, P, H, d, R, poisoned, observed),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_condition_on_nothing_changes_nothing():
    m, P, H, d, R, y, _ = problem(4)
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    found = condition(m, P, H, d, R, y, nothing)
    assert torch.equal(found[0], m)
    torch.testing.assert_close(found[1], P, **EXACT)
    assert torch.equal(found[2], torch.zeros(4, dtype=torch.float64))
    none = condition(m, P, H[:, :0], d[:, :0], R[:, :0, :0], y[:, :0], nothing[:, :0])
    torch.testing.assert_close(none, found, **EXACT)


def test_condition_row_by_row_equals_all_at_once():
    m, P, H, d, _, y, observed = problem(4)
    variance = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    wanted = condition(m, P, H, d, torch.diag(variance), y, observed)
    total = torch.zeros(4, dtype=torch.float64)
    for i in (2, 0, 1):
        row = slice(i, i + 1)
        R = variance[row, None]
        m, P, log_prob = condition(m, P, H[:, row], d[:, row], R, y[:, row], observed[:, row])
        total = total + log_prob
    torch.testing.assert_close((m, P, total), wanted, **EXACT)


def test_condition_broadcasts_and_keeps_the_dtype():
    m, P, H, d, R, y, observed = problem()
    y, observed = y.expand(4, 5, 3), observed.expand(4, 5, 3)
    found = condition(m, P, H, d, R, y, observed)
    assert [x.shape for x in found] == [(4, 5, 2), (4, 5, 2, 2), (4, 5)]
    single = condition(*(x.float() for x in (m, P, H, d, R, y)), observed)
    assert all(x.dtype == torch.float32 for x in single)


def test_condition_of_a_known_state():
    m, P, H, d, R, y, observed = problem(4)
    found = condition(m, 0 * P, H, d, R, y, observed)
    assert torch.equal(found[0], m)
    assert torch.equal(found[1], 0 * P)


def test_condition_gradient():
    m, P, H, d, R, y, observed = problem(2)
    inputs = [x.requires_grad_() for x in (m, torch.linalg.cholesky(P), H, d, R, y)]

    def run(m, P_chol, H, d, R, y):
        return condition(m, P_chol @ P_chol.mT, H, d, (R + R.mT) / 2, y, observed)

    assert gradcheck(run, inputs)


def test_gradients_pass_by_the_missing_rows():
    m, P, H, d, R, y, observed = problem(4)
    y = torch.where(observed, y, torch.nan).requires_grad_()
    condition(m, P, H, d, R, y, observed)[2].sum().backward()
    assert y.grad[observed].abs().min() > 0
    assert torch.equal(y.grad[~observed], torch.zeros_like(y.grad[~observed]))


def test_phantom_rows_are_standard_normal():
    _, _, H, d, R, y, observed = problem(5)
    H, d, R, y = mask_rows(H, d, R, y, observed)
    assert not any(x[~observed].any() for x in (H, d, y))
    for i in range(5):
        missing = ~observed[i]
        assert torch.equal(R[i][missing], torch.eye(3, dtype=R.dtype)[missing])
        assert torch.equal(R[i][:, missing], torch.eye(3, dtype=R.dtype)[:, missing])
    prior = MultivariateNormal(d, R).log_prob(y) + (~observed).sum(-1) * math.log(2 * math.pi) / 2
    assert prior[(~observed).all(-1)].abs().sum() == 0
