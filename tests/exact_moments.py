"""All moments of a linear Gaussian system at once, from the joint normal of states and data.

What data say at a step is the joint distribution conditioned on the cells before it; a diffuse
start is a parameter of which nothing is known, estimated by generalised least squares.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from mpmath import mp
from reference import LinearGaussian
from torch import Tensor

from seqlatent.linalg import factor

# A direction of a diffuse start that is seen by less than this share of another one is not seen.
ROUNDING = 1e-12


class Marginals(NamedTuple):
    """States given the cells of the first p steps, for each p from none to all of them.

    ``known[p]`` says which coordinates of which state those determine, ``generic[p]`` whether
    as many directions as there are cells, or all; ``settled[p]`` that it is all. ``condition`` is
    that of the correlations of the observations, ``shrinkage`` the largest factor by which they
    shrink a variance, ``cancelled`` the largest one by which transitions do, ``unlike`` the square
    of the ratio of sizes by which data determine a start.
    """

    mean: Tensor  # (*, T + 1, T K)
    cov: Tensor  # (*, T + 1, T K, T K)
    log_evidence: Tensor  # (*, T + 1)
    known: Tensor  # (*, T + 1, T K)
    settled: Tensor  # (*, T + 1)
    generic: Tensor  # (*, T + 1)
    condition: Tensor  # (*,)
    shrinkage: Tensor  # (*,)
    cancelled: Tensor  # (*,)
    unlike: Tensor  # (*,)


def joint_distribution(
    model: LinearGaussian, y: Tensor, observed: Tensor, diffuse: Tensor | None = None
) -> Marginals:
    """The moments of all states of each series, given every beginning of the data."""
    *lead, steps, rows = y.shape
    F, b, Q, m0, P0, H, d, R = model.full(tuple(lead), steps)
    size = F.shape[-1]
    flat = torch.zeros(size, dtype=torch.bool) if diffuse is None else diffuse
    P0 = torch.where(flat | flat[:, None], 0.0, P0)
    move = _moves(F)  # what each shock does to each later state
    shocks = torch.cat([P0.unsqueeze(-3), Q[..., 1:, :, :]], -3)
    mean = _times(move, torch.cat([m0.unsqueeze(-2), b[..., 1:, :]], -2).flatten(-2))
    spread, X = move @ _blocks(_root(shocks)), move[..., :size][..., flat]
    cov, noise = move @ _blocks(shocks) @ move.mT, _blocks(_root(R))
    H, R, y, d = _blocks(H), _blocks(R), y.flatten(-2), d.flatten(-2)
    beginning = torch.arange(steps + 1)[:, None] > torch.arange(steps).repeat_interleave(rows)
    seen = observed.flatten(-2).unsqueeze(-2) & beginning
    both = seen.unsqueeze(-1) & seen.unsqueeze(-2)
    S = (H @ cov @ H.mT + R).unsqueeze(-3)
    condition = _condition(S[..., 0, :, :], seen[..., -1, :])
    S = torch.where(both, S, torch.eye(S.shape[-1], dtype=S.dtype))
    H = torch.where(seen.unsqueeze(-1), H.unsqueeze(-3), 0.0)
    residual = torch.where(seen, (y - d - _times(H[..., -1, :, :], mean)).unsqueeze(-2), 0.0)
    L = torch.linalg.cholesky(S)
    white = torch.linalg.solve_triangular(L, residual.unsqueeze(-1), upper=False)
    A = torch.linalg.solve_triangular(L, H @ cov.unsqueeze(-3), upper=False)
    gain = torch.linalg.solve_triangular(L.mT, A, upper=True).mT
    # what is left of shocks and noise: of covariances, a difference would leave no digit
    kept = spread.unsqueeze(-3) - gain @ (H @ spread.unsqueeze(-3))
    kept = torch.cat([kept, gain @ noise.unsqueeze(-3)], -1)
    W = torch.linalg.solve_triangular(L, H @ X.unsqueeze(-3), upper=False)
    M = X.unsqueeze(-3) - A.mT @ W
    sizes = torch.linalg.svdvals(W)
    most = sizes.detach().amax(-1, keepdim=True) if sizes.shape[-1] else sizes.detach()
    beyond = sizes > ROUNDING * most
    inverse = torch.linalg.pinv(W, rtol=ROUNDING)
    start = inverse @ white
    rest = (white - W @ start).squeeze(-1)
    rank, count = beyond.sum(-1), seen.sum(-1)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_det = log_det + 2 * torch.where(beyond, sizes, 1.0).log().sum(-1)
    evidence = -0.5 * (rest.square().sum(-1) + log_det + count.to(y.dtype) * math.log(2 * math.pi))
    open_ = torch.eye(X.shape[-1], dtype=X.dtype) - inverse @ W
    size_of = X.detach().norm(dim=-1).clamp_min(1e-300).unsqueeze(-2)
    unknown = (X.unsqueeze(-3) @ open_).detach().norm(dim=-1) > 1e-6 * size_of
    left = kept @ kept.mT + (M @ inverse) @ (M @ inverse).mT
    with torch.no_grad():
        least = torch.where(beyond, sizes, torch.inf).amin((-1, -2)) if sizes.shape[-1] else None
        ratio = torch.ones(()) if least is None else sizes.amax((-1, -2)) / least
        before, after = (x.diagonal(dim1=-2, dim2=-1) for x in (cov, left[..., -1, :, :]))
        size = before.amax(-1, keepdim=True)
        shrunk = torch.where(before > 1e-6 * size, before / after.clamp_min(1e-6 * before), 1.0)
        terms = shocks.diagonal(dim1=-2, dim2=-1).flatten(-2)
        cancelled = _times(_moves(F.abs()).square(), terms) / before.clamp_min(1e-6 * size)
    return Marginals(
        mean.unsqueeze(-2) + _times(A.mT, white.squeeze(-1)) + _times(M, start.squeeze(-1)),
        left,
        evidence,
        ~unknown,
        rank == X.shape[-1],
        rank == count.clamp_max(X.shape[-1]),
        condition,
        shrunk.amax(-1),
        cancelled.nan_to_num(1.0).clamp_min(1.0).amax(-1),
        ratio.nan_to_num(1.0).clamp_min(1.0).square(),
    )


def _moves(F: Tensor) -> Tensor:
    """Products of transitions ``(*, T K, T K)``: the block (t, s) is F_t ... F_{s+1}."""
    *lead, steps, size, _ = F.shape
    rows = [torch.eye(size, dtype=F.dtype).expand(*lead, size, size)]
    blocks = [[rows[0]]]
    for t in range(1, steps):
        past = [F[..., t, :, :] @ x for x in blocks[-1]]
        blocks.append([*past, rows[0]])
    nothing = torch.zeros_like(rows[0])
    return torch.cat([torch.cat([*row, *[nothing] * (steps - len(row))], -1) for row in blocks], -2)


def _blocks(x: Tensor) -> Tensor:
    """Matrices ``(*, T, i, j)`` as one, block diagonal ``(*, T i, T j)``."""
    *lead, steps, i, j = x.shape
    wide = x.unsqueeze(-2) * torch.eye(steps, dtype=x.dtype)[:, None, :, None]
    return wide.reshape(*lead, steps * i, steps * j)


def _root(P: Tensor) -> Tensor:
    """A factor of covariances, which may be none by rounding."""
    eye = torch.eye(P.shape[-1], dtype=P.dtype)
    lowest = torch.linalg.eigvalsh(P.detach())[..., :1].clamp_max(0.0)
    return factor(P - lowest.unsqueeze(-1) * eye)


def _times(M: Tensor, v: Tensor) -> Tensor:
    return (M @ v.unsqueeze(-1)).squeeze(-1)


def _condition(S: Tensor, seen: Tensor) -> Tensor:
    """The condition number of the correlations of what is observed."""
    both = seen.unsqueeze(-1) & seen.unsqueeze(-2)
    S = torch.where(both, S.detach(), torch.eye(S.shape[-1], dtype=S.dtype))
    scale = S.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).sqrt()
    values = torch.linalg.eigvalsh(S / (scale.unsqueeze(-1) * scale.unsqueeze(-2)))
    return values[..., -1] / values[..., 0].clamp_min(1e-300)


# --- in hundreds of digits

DIGITS = 420
LARGE = 60  # digits of the variance of a diffuse coordinate
Cells = dict[str, list]


class Precise(NamedTuple):
    """Moments of one series as nested lists of numbers of mpmath, time first."""

    mean: list
    cov: list
    predicted_mean: list
    predicted_cov: list
    log_evidence: list
    smoothed_mean: list
    smoothed_cov: list
    cross: list


def slopes_of(
    at: Callable[[mp.mpf], list[tuple[Cells, list]]],
    weights: list[dict[str, Tensor]],
    diffuse: Tensor | None,
) -> dict[str, tuple[float, float]]:
    """First and second derivative at zero of weighted sums of each kind of moments.

    They are differences over 1e-100.

    Args:
        at: The tensors of a model as numbers, ``y`` among them, and which cells are observed, of
            each series, at a place of a line.
        weights: Weights of moments of each series; those of log evidences are one.
        diffuse: Which coordinates of the first state are diffuse.
    """
    with mp.workdps(DIGITS):
        step = mp.mpf(10) ** -100
        low, middle, high = (_weighted(at(h), weights, diffuse) for h in (-step, 0 * step, step))
        return {
            name: (
                float((high[name] - low[name]) / (2 * step)),
                float((high[name] - 2 * middle[name] + low[name]) / step**2),
            )
            for name in middle
        }


def _weighted(
    series: list[tuple[Cells, list]], weights: list[dict[str, Tensor]], diffuse: Tensor | None
) -> dict[str, mp.mpf]:
    flat = None if diffuse is None else diffuse.tolist()
    total = dict.fromkeys(Precise._fields, mp.mpf(0))
    for (cells, seen), weight in zip(series, weights, strict=True):
        found = precise(cells, seen, flat)
        for name, value in found._asdict().items():
            total[name] += _inner(value, weight[name].tolist() if name in weight else None)
    return total


def _inner(x, w):
    if isinstance(x, list):
        w = [None] * len(x) if w is None else w
        return sum((_inner(p, q) for p, q in zip(x, w, strict=True)), mp.mpf(0))
    return x if w is None else x * mp.mpf(w)


def precise_moments(series: list[tuple[Cells, list]], diffuse: Tensor | None) -> dict[str, Tensor]:
    """Moments of each series, rounded at the end.

    A diffuse coordinate has a large variance; how many directions a step determines is what the log
    evidence changes by where that is another one.
    """
    flat = None if diffuse is None else diffuse.tolist()
    with mp.workdps(DIGITS):
        found = [precise(*one, flat) for one in series]
        more = [precise(*one, flat, 2 * LARGE) for one in series] if flat else found
        unit = LARGE * mp.log(10)
        evidence = [
            [p + mp.nint(2 * (p - q) / unit) * unit / 2 for p, q in zip(*pair, strict=True)]
            for pair in (
                (one.log_evidence, two.log_evidence) for one, two in zip(found, more, strict=True)
            )
        ]
        parts = {name: [_rounded(getattr(x, name)) for x in found] for name in Precise._fields}
        parts["log_evidence"] = _rounded(evidence)
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in parts.items()}


def _rounded(x):
    return [_rounded(p) for p in x] if isinstance(x, list) else float(x)


def precise(
    cells: Cells, seen: list[list[bool]], flat: list[bool] | None, large: int = LARGE
) -> Precise:
    """Moments of one series from the joint normal of its states, given cell after cell."""
    F, b, Q, P, H, d, R, y = (cells[name] for name in ("F", "b", "Q", "P0", "H", "d", "R", "y"))
    K = len(cells["m0"])
    if flat is not None:
        P = [[mp.mpf(0) if flat[i] or flat[j] else P[i][j] for j in range(K)] for i in range(K)]
        for i in range(K):
            P[i][i] += mp.mpf(10) ** large if flat[i] else 0
    m, P = list(cells["m0"]), [list(row) for row in P]
    found = Precise([], [], [], [], [], [], [], [])
    for t, now in enumerate(seen):
        if t:
            m, P = _moved_on(m, P, F[t], b[t], Q[t])
        found.predicted_mean.append(m[-K:])
        found.predicted_cov.append(_block(P, t, t, K))
        total = mp.mpf(0)
        for h, r, v in _rows(H[t], d[t], R[t], y[t], now):
            m, P, more = _updated(m, P, [mp.mpf(0)] * (t * K) + h, r, v)
            total += more
        found.mean.append(m[-K:])
        found.cov.append(_block(P, t, t, K))
        found.log_evidence.append(total)
    steps = range(len(seen))
    return found._replace(
        smoothed_mean=[m[t * K : (t + 1) * K] for t in steps],
        smoothed_cov=[_block(P, t, t, K) for t in steps],
        cross=[_block(P, t, t - 1, K) if t else [[mp.mpf(0)] * K] * K for t in steps],
    )


def _block(P: list, t: int, s: int, K: int) -> list:
    return [row[s * K : (s + 1) * K] for row in P[t * K : (t + 1) * K]]


def _moved_on(m: list, P: list, F: list, b: list, Q: list) -> tuple[list, list]:
    """All states so far with the next one."""
    K = len(b)
    last = range(len(m) - K, len(m))
    ahead = [_dot(row, m[-K:]) + c for row, c in zip(F, b, strict=True)]
    cross = [[_dot(row, [P[i][j] for i in last]) for j in range(len(m))] for row in F]
    own = [[_dot(F[j], cross[i][-K:]) + Q[i][j] for j in range(K)] for i in range(K)]  # F P F^T + Q
    P = [row + [cross[i][k] for i in range(K)] for k, row in enumerate(P)]
    return m + ahead, P + [cross[i] + own[i] for i in range(K)]


def _rows(H: list, d: list, R: list, y: list, now: list[bool]):
    """Rows of an observation, one after the other, their noise that given the rows before."""
    noise, rows = [list(row) for row in R], [list(row) for row in H]
    values = [p - q for p, q in zip(y, d, strict=True)]
    kept = [i for i, s in enumerate(now) if s]
    for i in kept:
        yield rows[i], noise[i][i], values[i]
        if noise[i][i] > 0:
            for j in (j for j in kept if j > i):
                f = noise[j][i] / noise[i][i]
                noise[j] = [p - f * q for p, q in zip(noise[j], noise[i], strict=True)]
                rows[j] = [p - f * q for p, q in zip(rows[j], rows[i], strict=True)]
                values[j] -= f * values[i]


def _updated(m: list, P: list, h: list, r: mp.mpf, v: mp.mpf) -> tuple[list, list, mp.mpf]:
    """A normal distribution given one number, and the log density of that."""
    Ph = [_dot(row, h) for row in P]
    S, e = _dot(h, Ph) + r, v - _dot(h, m)
    m = [x + k * e / S for x, k in zip(m, Ph, strict=True)]
    P = [
        [x - k * q / S for x, q in zip(row, Ph, strict=True)] for row, k in zip(P, Ph, strict=True)
    ]
    return m, P, -(e * e / S + mp.log(S) + mp.log(2 * mp.pi)) / 2


def _dot(x: list, y: list) -> mp.mpf:
    return mp.fdot(x, y)
