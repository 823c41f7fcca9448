"""Smoothing from a diffuse first state: its law given everything, and what stays undetermined."""

import torch
from jaxtyping import Bool
from torch import Tensor

from seqlatent.kalman.directions import Directions, at, limit_gain, settle
from seqlatent.kalman.elements import (
    System,
    apply,
    join,
    matrix_lead,
    path,
    rest,
    symmetric,
    tilted,
)
from seqlatent.kalman.initial import Moments, marked, shared
from seqlatent.kalman.paths import Smoothed
from seqlatent.kalman.recursions import congruence, stack, unstack
from seqlatent.kalman.validation import check_diffuse
from seqlatent.linalg import cholesky


def starting(predicted_cov: Tensor, diffuse: Tensor | None) -> Tensor | None:
    """Which coordinates are diffuse: as said, or where a filter's first variance is infinite."""
    if diffuse is None:
        variance = predicted_cov[..., 0, :, :].diagonal(dim1=-2, dim2=-1)
        infinite = variance.isinf()
        return shared(infinite) if bool(infinite.any()) else None
    check_diffuse(diffuse, predicted_cov.shape[-1])
    return diffuse if bool(diffuse.any()) else None


def first_law(
    s: System, eta: Tensor, J: Tensor, diffuse: Bool[Tensor, " K"], left: Tensor
) -> tuple[Tensor, Tensor]:
    """Moments of z_1 given y_1 and the potential ``(J, eta)`` of what follows.

    What the directions that are ``left`` would add, which nothing determines, is not in them.
    """
    eye = torch.eye(len(diffuse), dtype=J.dtype, device=J.device)
    count = int(diffuse.sum())
    unit = torch.eye(count, dtype=J.dtype, device=J.device)
    H, R = s.H[:1], s.R[:1]
    lead = matrix_lead(H)
    ranks = torch.full((1, *lead), count, device=J.device)
    one, B, still, _ = settle(H, eye[:, diffuse], unit, ranks, diffuse.to(J.dtype))
    gain, _, _ = limit_gain(s.P0, H, R, one)
    m = s.m0 + apply(gain, s.y[:1] - s.d[:1] - apply(H, s.m0))
    keep = eye - gain @ H
    P = symmetric(keep @ s.P0 @ keep.mT + gain @ R @ gain.mT)
    shape = torch.broadcast_shapes(P.shape[:-2], J.shape[:-2], B.shape[:-2])
    moved = torch.linalg.solve(eye + P @ J, B.expand(*shape, -1, -1))
    G = symmetric(moved.mT @ J @ B)
    unused = unit - still + left
    level = G.detach().diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    level = torch.where(level > 0, level, 1.0)
    L = cholesky(G + level * unused, what="precision of the first state")
    X = torch.cholesky_solve(unit.expand(L.shape), L) - left / level
    P = tilted(P, J, eye)
    news = eta - apply(J, m)
    m = m + apply(P, news) + apply(moved, apply(X, apply(moved.mT, news)))
    return m, symmetric(P + moved @ X @ moved.mT)


def undetermined_path(s: System, diffuse: Tensor, left: Tensor) -> Tensor | None:
    """The directions of each state that no observation ever determines, or None."""
    if not bool((left != 0).any()):
        return None
    with torch.no_grad():
        eye = torch.eye(len(diffuse), dtype=left.dtype, device=left.device)
        B = [eye[:, diffuse] @ left]
        for t in range(1, s.steps):
            B.append(at(s.F, t) @ B[-1])
        lead = torch.broadcast_shapes(*(x.shape for x in (B[0], B[-1])))
        return torch.stack([x.expand(lead) for x in B])


def open_ended(
    s: System, smoothed: Smoothed, diffuse: Tensor, left: Tensor, undetermined: float
) -> Smoothed:
    """Smoothed moments with the variance of what nothing determines."""
    B = undetermined_path(s, diffuse, left)
    if B is None:
        return smoothed
    scale = torch.ones_like(B[..., 0])
    cov = marked(smoothed.cov.movedim(-3, 0), B, scale, undetermined).movedim(0, -3)
    return smoothed._replace(cov=cov)


def divisible(s: System) -> bool:
    """Whether observations have a density given the state of the step before."""
    H, Q, R = (rest(x, s.steps) for x in (s.H, s.Q, s.R))
    variances = (H @ Q @ H.mT + R).detach().diagonal(dim1=-2, dim2=-1)
    return bool((variances > 0).all())


def backwards(
    s: System, diffuse: Tensor, undetermined: float, found: Directions, moments: Moments
) -> Smoothed:
    """Smoothed moments from filtered ones: each state observes the next, which is known.

    For observations without noise, of which a state determines the next. A gain that is the limit
    of vast variances serves here as it does in the filter.
    """
    mean, cov, predicted_mean, _, _ = moments
    steps, (size, count) = s.steps, found.after.shape[-2:]
    F, Q = rest(s.F, steps), rest(s.Q, steps)
    P = cov[:-1]
    missing = (0, 0) * (found.after.dim() - 1) + (0, steps - len(found.after))
    B = torch.nn.functional.pad(found.after, missing)[:-1]
    scale = torch.nn.functional.pad(found.scale, missing[2:])[:-1]
    rank = torch.full(B.shape[:-2], count, device=B.device)
    one = settle(F, B, B.new_zeros(count, count), rank, scale)[0]
    S = F @ P @ F.mT + Q
    N = torch.where(one.plain.unsqueeze(-1), one.rows, 0.0)
    inverse = torch.linalg.pinv(symmetric(N @ S @ N.mT), rtol=1e-12, hermitian=True)
    gain = one.gain + (P @ F.mT - one.gain @ S) @ N.mT @ inverse @ N
    keep = torch.eye(size, dtype=P.dtype, device=P.device) - gain @ F
    noise = torch.cat([symmetric(keep @ P @ keep.mT + gain @ Q @ gain.mT), cov[-1:]])
    lead = matrix_lead(gain, noise)
    cov = unstack(congruence(stack(gain, lead), stack(noise, lead), reverse=True), lead)
    offset = mean[:-1] - apply(gain, predicted_mean[1:])
    still = torch.zeros_like(gain[:1])
    closed = torch.cat([gain, still]).expand(steps, *gain.shape[1:])
    own = torch.cat([offset, mean[-1:]])
    mean = path(closed, own, reverse=True)
    cross = join(torch.zeros_like(cov[:1]), cov[1:] @ gain.mT, steps)
    mean = mean.movedim(0, -2)
    shape = (*mean.shape, size)
    smoothed = Smoothed(mean, *(x.movedim(0, -3).expand(shape) for x in (cov, cross)))
    return open_ended(s, smoothed, diffuse, found.left.detach(), undetermined)
