"""Log likelihoods of few series by the reduced form: a banded covariance, factored in one call."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.kalman.aligned import align
from seqlatent.kalman.likelihood.banded_inverse import inverse_band, routines
from seqlatent.kalman.likelihood.missing_patterns import (
    TimeInvariantProblem,
    step_by_step,
    trusted,
)
from seqlatent.kalman.likelihood.moving_average import reduce
from seqlatent.kalman.system import Problem

_LOG_2PI = math.log(2 * math.pi)
_EPS = float(np.finfo(np.float64).eps)
# States, and series with matrices of their own or in all, up to which this is the fastest way.
_ORDER, _OWN, _SERIES = 32, 16, 32
# What rounding may add to value and slopes, by the cell, as bounds of the worst case.
_VALUE, _SLOPES = 3e-10, 1e-7

Array = np.ndarray


class Form(NamedTuple):
    r"""The reduced form, and where the first K observations meet the values that follow.

    A model of K states is K observations and then :math:`w_t = \sum_j \phi_j y_{t-j}`: unit lower
    triangular of the data, whose covariance has K diagonals below the main one.

    Args:
        order: The number K of states.
        polynomial: :math:`\phi` ``(K + 1,)``.
        shocks: What a shock of the state adds to w, lag by lag ``(K, K)``.
        rows: :math:`H F^i` ``(K, K)``.
        noise: Autocovariances of w by a noise of variance one ``(K + 1,)``.
        log_det: Logarithm of the absolute determinant of ``rows``.
        places: Places of the diagonals of a matrix ``(K, K)`` in memory ``(K + 1, K)``.
        inside: Which cells of the first K columns belong to two observations ``(K + 1, K)``.
        early: What a noise of variance one adds to those columns ``(K + 1, K)``.
        ignores_level: Whether a constant leaves w as it is.
    """

    order: int
    polynomial: Array
    shocks: Array
    rows: Array
    noise: Array
    log_det: float
    places: Array
    inside: Array
    early: Array
    ignores_level: bool


@lru_cache(maxsize=16)
def _form(cells: tuple[float, ...], K: int) -> Form | None:
    """A descent asks for the same form at every step."""
    F, H = torch.tensor(cells, dtype=torch.float64).reshape(K + 1, K).split((K, 1))
    reduced = reduce(F, H)
    if reduced is None:
        return None
    polynomial, _, noise, shocks, rows = (x.numpy() for x in reduced[:5])
    lag, column = np.arange(K + 1)[:, None], np.arange(K)
    inside = lag + column < K
    early = np.where(inside, lag == 0, polynomial[:, None]).astype(np.float64)
    places, ignores_level = (lag + column) * K + column, float(polynomial.sum()) == 0.0
    log_det = reduced.log_det
    return Form(K, polynomial, shocks, rows, noise, log_det, places, inside, early, ignores_level)


class Banded(NamedTuple):
    """Series of one length and one covariance, solved.

    Args:
        number: Which series these are.
        value: Their log likelihoods ``(C,)``.
        solved: The inverse covariance times the transformed data ``(N, C)``.
        inverse: Diagonals of the inverse covariance ``(K + 1, N)``, where slopes were asked for.
    """

    number: slice
    value: Array
    solved: Array
    inverse: Array | None


def log_likelihood(problem: Problem) -> Tensor | None:
    """Log likelihoods ``(*L,)``, or None where another way is faster or keeps more digits.

    That needs a scalar observation without gaps and constant matrices, transition and loadings
    without a gradient. The first state has a covariance, or is diffuse in all coordinates.
    """
    F, b, Q, m0, P0, H, d, R, y, observed, diffuse = problem
    K, graph = F.shape[-1], torch.is_grad_enabled()
    if H.shape[-2] > 1 or K > _ORDER or F.numel() > K * K or H.numel() > K:
        return None
    if graph and (F.requires_grad or H.requires_grad or b.requires_grad):
        return None
    if y.device.type != "cpu" or y.shape[-2] < K + 2 or bool(b.any()):
        return None
    is_diffuse = diffuse is not None
    if diffuse is not None and not bool(diffuse.all()):
        return None
    lead, steps = problem.axes
    found = [_constant(x, lead) for x in (Q, R, P0.unsqueeze(-3))]
    matrices, batch = [x.double() for x in found if x is not None], math.prod(lead)
    most = _OWN if any(x.dim() == 3 for x in matrices) else _SERIES
    if len(matrices) < 3 or not 0 < batch <= most:
        return None
    cells = torch.cat([F.detach().reshape(K, K), H.detach().reshape(1, K)]).flatten().tolist()
    form = _form(tuple(cells), K)
    if form is None:
        return None
    y = y.double() - d.double() if d.requires_grad or bool(d.any()) else y.double()
    y = y.expand(*lead, steps, 1).reshape(batch, steps)
    m0 = m0.expand(*lead, K).reshape(batch, K).double()
    parts = (*matrices, m0, y)
    ends = _ends(observed.expand(*lead, steps, 1).reshape(batch, steps).numpy())
    if ends is None or min(ends) < K + 2:
        return None
    needed = graph and any(x.requires_grad for x in parts)
    values = [x.detach().numpy() for x in parts]
    found = _solved(form, values, ends, is_diffuse, needed)
    if found is None:
        return None
    if needed:
        data = (
            form,
            found,
            is_diffuse,
            F.reshape(K, K),
            H.reshape(1, K),
            torch.tensor(ends),
            diffuse,
        )
        value: Any = _Banded.apply(data, *parts)
    else:
        value = torch.from_numpy(np.concatenate([each.value for each in found]))
    return value.reshape(lead).to(F.dtype)


def _constant(x: Tensor, lead: tuple[int, ...]) -> Tensor | None:
    """A matrix that all series share, or one of each ``(B, i, j)``; None if it varies in time."""
    if x.dim() == 2 or x.numel() == x.shape[-1] * x.shape[-2]:
        return x.reshape(x.shape[-2:])
    x = align(x, lead, 2)
    if len(x) > 1:
        return None
    if x[..., 0, 0].numel() == 1:
        return x.reshape(x.shape[-2:])
    return x[0].expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])


def _ends(seen: Array) -> list[int] | None:
    """Lengths of the series, or None where one has gaps."""
    if seen.all():
        return [seen.shape[1]] * len(seen)
    ends = seen.sum(1)
    complete = np.arange(seen.shape[1]) < ends[:, None]
    return ends.tolist() if bool((seen == complete).all()) else None


def _solved(
    form: Form, parts: list[Array], ends: list[int], is_diffuse: bool, slopes: bool
) -> list[Banded] | None:
    """Series by series, or all that share matrices at once; None where digits would be lost."""
    Q, R, P0, m0, y = parts
    if Q.ndim == R.ndim == P0.ndim == 2 and len(set(ends)) == 1:
        groups = [slice(0, len(y))]
    else:
        groups = [slice(i, i + 1) for i in range(len(y))]
    found = []
    for each in groups:
        matrices = [x[each.start] if x.ndim == 3 else x for x in (Q, R, P0)]
        solved = _solve(
            form, matrices, m0[each], y[each, : ends[each.start]], is_diffuse, slopes, each
        )
        if solved is None:
            return None
        found.append(solved)
    return found


def _solve(
    form: Form,
    matrices: list[Array],
    m0: Array,
    y: Array,
    is_diffuse: bool,
    slopes: bool,
    number: slice,
) -> Banded | None:
    (Q, R, P0), K, lapack = matrices, form.order, routines()
    u = _transformed(form, m0, y, is_diffuse)
    band, gamma = _band(form, Q, R[0, 0], None if is_diffuse else P0, len(u))
    L, info = lapack.dpbtrf(band, lower=1)
    if info:
        return None
    root = L[0]
    e, _ = lapack.dtbtrs(L, u, uplo="L")
    x, _ = lapack.dtbtrs(L, e, uplo="L", trans="T")
    cells, least = y.shape[1], root.min()
    # what rounding does to the data, to the variance of a row, and to the quadratic form
    size = np.abs(form.polynomial).sum() * np.abs(y - y[:, :1] if form.ignores_level else y).max()
    limit = trusted(torch.float64, cells)
    if size > limit * least or (band[0] / root**2).max() > limit:
        return None
    later = x if is_diffuse else x[K:]
    most = 2 * np.abs(gamma).sum()
    if _EPS * most * (later * later).sum(0).max() > _VALUE * cells:
        return None
    constant = 0.5 * len(u) * _LOG_2PI + np.log(root).sum()
    if is_diffuse:
        constant += form.log_det + 0.5 * K * _LOG_2PI
    value = -0.5 * (e * e).sum(0) - constant
    if not slopes:
        return Banded(number, value, x, None)
    for k in range(1, K + 1):
        L[k, -k:] = 0.0
    inverse = inverse_band(L)
    total = most * inverse[0, 0 if is_diffuse else K :].sum()
    if _EPS * total * total > _SLOPES * cells:
        return None
    return Banded(number, value, x, inverse)


def _transformed(form: Form, m0: Array, y: Array, is_diffuse: bool) -> Array:
    """The first observations relative to their mean, and w, series as columns ``(N, C)``."""
    K, start = form.order, 0 if is_diffuse else form.order
    u = np.zeros((y.shape[1] - K + start, len(y)), order="F")
    level = (y - y[:, :1] if form.ignores_level else y).T
    w = u[start:]
    for lag, p in enumerate(form.polynomial.tolist()):
        if p:  # most of a season's are zero
            w += p * level[K - lag : len(level) - lag]
    if not is_diffuse:
        u[:K] = (y[:, :K] - m0 @ form.rows.T).T
    return u


def _band(form: Form, Q: Array, r: float, P0: Array | None, size: int) -> tuple[Array, Array]:
    """Diagonals of the covariance, as LAPACK stores a lower band, and those of w in the end."""
    K, c, O = form.order, form.shocks, form.rows
    band = np.empty((K + 1, size), order="F")
    cQ = c @ Q
    gamma = _diagonals(form, cQ @ c.T).sum(1) + r * form.noise
    band[:] = gamma[:, None]
    if P0 is not None:
        # shocks before a step have reached both observations, or an observation and later w
        both, later = (_diagonals(form, X @ O.T).cumsum(1) for X in (O @ Q, cQ))
        shocks = np.where(form.inside[:, 1:], both[:, :-1], later[:, :-1])
        band[:, :K] = form.inside * _diagonals(form, O @ P0 @ O.T) + r * form.early
        band[:, 1:K] += shocks
    return band, gamma


def _diagonals(form: Form, M: Array) -> Array:
    """Row k holds the entries ``(i + k, i)`` of a matrix, then zeros."""
    K = form.order
    memory = np.zeros(2 * K * K)
    memory[: K * K] = M.ravel()
    return memory[form.places]


def _matrix(form: Form, diagonals: Array) -> Array:
    """The adjoint of :func:`_diagonals`."""
    K = form.order
    memory = np.zeros(2 * K * K)
    memory[form.places] = diagonals
    return memory[: K * K].reshape(K, K)


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, data: Any, *parts: Tensor) -> Tensor:
        ctx.data = data
        ctx.save_for_backward(*parts)
        return torch.from_numpy(np.concatenate([each.value for each in data[1]]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        parts, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        form, found, is_diffuse, F, H, ends, diffuse = ctx.data
        if torch.is_grad_enabled():
            Q, R, P0, m0, y = parts
            seen = (torch.arange(y.shape[1]) < ends[:, None]).unsqueeze(-1)
            problem = TimeInvariantProblem(
                F.double(), Q, H.double(), R, P0, m0, y[..., None], seen, ends, diffuse
            )
            inner = [x for x, need in zip(parts, needed, strict=True) if need]
            value = step_by_step(problem)
            slopes = iter(
                torch.autograd.grad(value, inner, grad, create_graph=True, allow_unused=True)
            )
            return None, *(next(slopes) if need else None for need in needed)
        total = [np.zeros(x.shape) if n else None for x, n in zip(parts, needed, strict=True)]
        for each in found:
            _add_slopes(form, each, grad[each.number].numpy(), is_diffuse, total)
        return None, *(None if x is None else torch.from_numpy(x) for x in total)


def _add_slopes(
    form: Form, part: Banded, weight: Array, is_diffuse: bool, total: list[Array | None]
) -> None:
    """Adds the gradients of some series to those of Q, R, P0, m0 and y."""
    K, x, S, number = form.order, part.solved, part.inverse, part.number
    assert S is not None
    used, size = weight * x, len(x)
    of_band = -weight.sum() * S
    for k in range(min(K + 1, size)):  # a short series has no pairs that far apart
        of_band[k, : size - k] += (used[k:] * x[: size - k]).sum(1)
    of_band[0] *= 0.5
    start = 0 if is_diffuse else K
    of_matrices = _of_matrices(form, of_band, start)
    for out, of_one in zip(total[:3], of_matrices, strict=True):
        if out is not None and of_one is not None:
            out[number.start if out.ndim == 3 else ...] += (of_one + of_one.T) / 2
    if total[3] is not None and not is_diffuse:
        total[3][number] += used[:K].T @ form.rows
    of_y, length = total[4], size - start + K
    if of_y is None:
        return
    of_y[number, :start] -= used[:start].T
    for lag, p in enumerate(form.polynomial.tolist()):
        if p:
            of_y[number, K - lag : length - lag] -= p * used[start:].T


def _of_matrices(form: Form, of_band: Array, start: int) -> tuple[Array, Array, Array | None]:
    """Gradients of Q, R and P0 from that of the diagonals; the adjoint of :func:`_band`."""
    K, c, O = form.order, form.shocks, form.rows
    of_gamma = of_band[:, start:].sum(1)
    spread = np.broadcast_to(of_gamma[:, None], (K + 1, K))
    of_Q, of_r = c.T @ _matrix(form, spread) @ c, of_gamma @ form.noise
    if not start:
        return of_Q, np.full((1, 1), of_r), None
    corner = of_band[:, :K]
    first = np.where(form.inside, corner, 0.0)
    both, later = (
        _matrix(form, x[:, ::-1].cumsum(1)[:, ::-1] - x) for x in (first, corner - first)
    )
    of_Q = of_Q + (O.T @ both + c.T @ later) @ O
    of_r = of_r + (corner * form.early).sum()
    return of_Q, np.full((1, 1), of_r), O.T @ _matrix(form, first) @ O
