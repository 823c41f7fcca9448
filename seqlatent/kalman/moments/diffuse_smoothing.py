"""Smoothing from a diffuse first state: its posterior, and what stays undetermined."""

import torch
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    after,
    apply,
    at,
    join,
    matrix_lead,
    path,
    regular,
    rest,
    symmetric,
)
from seqlatent.kalman.conditional_steps import updated_covariance
from seqlatent.kalman.diffuse.directions import Directions, limit_gain, settle
from seqlatent.kalman.diffuse.initialisation import marked
from seqlatent.kalman.posterior_path import Smoothed
from seqlatent.kalman.riccati import congruence, stack, unstack
from seqlatent.linalg import cholesky


def diffuse_distribution(
    s: AlignedSystem, eta: Tensor, J: Tensor, left: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Moments of z_1 given y_1 and the potential ``(J, eta)`` of what follows.

    What the directions that are ``left`` would add, which nothing determines, is not in them. None
    where what follows says so little of another direction that its precision has lost its digits.
    """
    diffuse = s.diffuse
    assert diffuse is not None
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
    moved = torch.linalg.solve_ex(eye + P @ J, B.expand(*shape, -1, -1))[0]
    G = symmetric(moved.mT @ J @ B)
    level = G.detach().diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    level = torch.where(level > 0, level, 1.0)
    G = G + level * (unit - still + left)
    if not regular(G):
        return None
    L = cholesky(G, what="precision of the first state")
    X = torch.cholesky_solve(unit.expand(L.shape), L) - left / level
    P = updated_covariance(P, J, eye)
    news = eta - apply(J, m)
    m = m + apply(P, news) + apply(moved, apply(X, apply(moved.mT, news)))
    return m, symmetric(P + moved @ X @ moved.mT)


def undetermined_path(s: AlignedSystem, left: Tensor) -> Tensor | None:
    """The directions of each state that no observation ever determines, or None."""
    if not bool((left != 0).any()):
        return None
    diffuse = s.diffuse
    assert diffuse is not None
    with torch.no_grad():
        eye = torch.eye(len(diffuse), dtype=left.dtype, device=left.device)
        B = [eye[:, diffuse] @ left]
        for t in range(1, s.steps):
            B.append(at(s.F, t) @ B[-1])
        lead = torch.broadcast_shapes(*(x.shape for x in (B[0], B[-1])))
        return torch.stack([x.expand(lead) for x in B])


def open_ended(s: AlignedSystem, smoothed: Smoothed, left: Tensor, undetermined: float) -> Smoothed:
    """Smoothed moments with the variance of what nothing determines."""
    B = undetermined_path(s, left)
    if B is None:
        return smoothed
    scale = torch.ones_like(B[..., 0])
    cov = marked(smoothed.cov.movedim(-3, 0), B, scale, undetermined).movedim(0, -3)
    return smoothed._replace(cov=cov)


def backwards(
    s: AlignedSystem,
    found: Directions,
    first: Moments,
    later: AlignedSystem | None,
    smoothed: Smoothed | None,
) -> Smoothed:
    r"""Smoothed moments of all steps, time first, from those of the ``later`` ones.

    .. math::
        z_t \mid z_{t+1} \sim N(m_t + J_t (z_{t+1} - m^-_{t+1}),\;
        (I - J_t F) P_t (I - J_t F)^\top + J_t Q J_t^\top)

    Each of the ``first`` states is observed by the next one. The gain J of that observation is the
    limit of large variances, as it is in the filter.
    """
    mean, cov, predicted_mean, _, _ = first
    steps = len(mean)
    if later is not None and smoothed is not None:
        mean, cov = after(mean, smoothed.mean[:1]), after(cov, smoothed.cov[:1])
        predicted_mean = after(predicted_mean, later.m0)
    elif steps == 1:
        return Smoothed(mean, cov, torch.zeros_like(cov))
    gain, noise = _gains(s, found, cov)
    lead = matrix_lead(gain, noise)
    cov = unstack(congruence(stack(gain, lead), stack(noise, lead), reverse=True), lead)
    offset = mean[:-1] - apply(gain, predicted_mean[1:])
    last = gain.new_zeros(1, *gain.shape[1:])
    mean = path(torch.cat([gain, last]), after(offset, mean[-1:]), reverse=True)
    cross = join(torch.zeros_like(cov[:1]), cov[1:] @ gain.mT, len(cov))
    if smoothed is None:
        return Smoothed(mean, cov, cross)
    rest_of = (x[1:] for x in smoothed)
    return Smoothed(*(after(x, y) for x, y in zip((mean, cov, cross), rest_of, strict=True)))


def _gains(s: AlignedSystem, found: Directions, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Gains with which states observe the next ones, and what covariance that leaves."""
    count, size, directions = len(cov) - 1, cov.shape[-1], found.after.shape[-1]
    F, Q = (x[:count] for x in (rest(s.F, s.steps), rest(s.Q, s.steps)))
    P, B, scale = cov[:-1], found.after[:count], found.scale[:count]
    rank = torch.full(B.shape[:-2], directions, device=B.device)
    one = settle(F, B, B.new_zeros(directions, directions), rank, scale)[0]
    S = F @ P @ F.mT + Q
    N = torch.where(one.plain.unsqueeze(-1), one.rows, 0.0)
    gain = (
        one.gain + (P @ F.mT - one.gain @ S) @ N.mT @ _pseudo_inverse(symmetric(N @ S @ N.mT)) @ N
    )
    keep = torch.eye(size, dtype=P.dtype, device=P.device) - gain @ F
    return gain, after(symmetric(keep @ P @ keep.mT + gain @ Q @ gain.mT), cov[-1:])


def _pseudo_inverse(S: Tensor) -> Tensor:
    """The inverse of covariances where they are more than rounding, in units of their own."""
    size = S.detach().diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()
    scale = torch.where(size > 0, size, 1.0)
    unit = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    limit = torch.finfo(S.dtype).eps ** 0.75
    return torch.linalg.pinv(S / unit, rtol=limit, hermitian=True) / unit
