"""Directions of a state without prior variance, and which observations determine them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.aligned import AlignedSystem, at, matrix_lead, symmetric
from seqlatent.kalman.square_roots import innovation_root


class Settled(NamedTuple):
    """What an observation determines, and what it leaves.

    ``gain`` is that of the rows that see a direction for the first time, ``rows`` the combinations
    of rows, of unit determinant, with which the ``plain`` ones see none, ``log_size`` the sum of
    the logarithms of the squared sizes with which the others do.
    """

    gain: Float[Tensor, "*l K D"]
    rows: Float[Tensor, "*l D D"]
    plain: Bool[Tensor, "*l D"]
    log_size: Float[Tensor, "*l"]


class Directions(NamedTuple):
    """The undetermined directions of the first steps, before and after each step's observation.

    They reach until none is left, and else to the last step; those that are ``left`` at the end are
    a projection of the diffuse coordinates of the first state. ``scale`` is the size, and that of
    its rounding, of each coordinate without any observation. ``settled`` is shorter: it ends with
    the last observation that determines anything, and has one step at least.
    """

    before: Float[Tensor, "_ *l K k"]
    after: Float[Tensor, "_ *l K k"]
    scale: Float[Tensor, "_ *l K"]
    settled: Settled
    left: Float[Tensor, "*l k k"]


def directions(s: AlignedSystem) -> Directions:
    """Follows the directions of a diffuse first state until none is left.

    Gradients are recorded, where the matrices have any, only over the steps that determine one.
    """
    with torch.no_grad():
        found, steps = _directions(s, s.steps)
    if not torch.is_grad_enabled() or not (s.F.requires_grad or s.H.requires_grad):
        return found
    tracked = _directions(s, steps)[0]
    after = torch.cat([tracked.after, found.after[len(tracked.after) :]])
    return found._replace(settled=tracked.settled, after=after)


def _directions(s: AlignedSystem, limit: int) -> tuple[Directions, int]:
    diffuse = s.diffuse
    assert diffuse is not None
    size, count = len(diffuse), int(diffuse.sum())
    eye = torch.eye(size, dtype=s.F.dtype, device=s.F.device)
    lead = matrix_lead(s.F, s.H)
    B = free = eye[:, diffuse].expand(*lead, size, count)
    V = torch.diag_embed(free.square().sum(-1))
    left = torch.eye(count, dtype=eye.dtype, device=eye.device).expand(*lead, count, count)
    rank = torch.full(lead, count, device=eye.device)
    seen = (s.H != 0).flatten(-2).any(-1).expand(s.steps, *lead)
    informed = seen.reshape(s.steps, -1).any(-1).tolist()
    clock = torch.arange(s.steps, device=eye.device).reshape(-1, *(1,) * len(lead))
    last = torch.where(seen, clock, -1).amax(0)
    before, after, scales, settled, steps = [], [], [], [], 1
    for t in range(limit):
        if t:
            B, free, V = at(s.F, t) @ B, *_grown(at(s.F, t), free, V)
        before.append(B)
        scales.append(V.diagonal(dim1=-2, dim2=-1).sqrt())
        if t == 0 or (informed[t] and sees(at(s.H, t), B, scales[-1])):
            one, B, left, rank = settle(at(s.H, t), B, left, rank, scales[-1])
            steps = steps if bool(one.plain.all()) else t + 1
        else:
            one = settled[0]._replace(
                gain=torch.zeros_like(settled[0].gain),
                rows=eye_like(settled[0].rows),
                plain=torch.ones_like(settled[0].plain),
                log_size=torch.zeros_like(settled[0].log_size),
            )
        settled.append(one)
        after.append(B)
        if not bool(((rank > 0) & (last > t)).any()):
            break
    if bool((rank > 0).any()):
        for t in range(len(after), limit):
            B, free, V = at(s.F, t) @ B, *_grown(at(s.F, t), free, V)
            before.append(B)
            after.append(B)
            scales.append(V.diagonal(dim1=-2, dim2=-1).sqrt())
    parts = (torch.stack(x) for x in zip(*settled[:steps], strict=True))
    paths = (torch.stack(x) for x in (before, after, scales))
    return Directions(*paths, settled=Settled(*parts), left=left), steps


@torch.no_grad()
def _grown(F: Tensor, free: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Paths without any observation, and a covariance of what rounding leaves of them, over eps.

    A step rounds what it sums, also where the sum is zero, and hands on what was rounded before.
    """
    summed = F.abs() @ torch.linalg.vector_norm(free, dim=-1).unsqueeze(-1)
    return F @ free, F @ V @ F.mT + torch.diag_embed(summed.squeeze(-1).square())


def settle(
    H: Tensor, B: Tensor, left: Tensor, rank: Tensor, scale: Tensor
) -> tuple[Settled, Tensor, Tensor, Tensor]:
    """What an observation determines of the directions ``B``: row by row, as Gram and Schmidt do.

    A row sees a direction when it does so beyond rounding. That is measured by the ``scale`` of
    each coordinate without any observation, and so in any units.
    """
    size, rows, count = H.shape[-1], H.shape[-2], B.shape[-1]
    lead = torch.broadcast_shapes(H.shape[:-2], B.shape[:-2])
    H, B, left = (x.expand(*lead, *x.shape[-2:]) for x in (H, B, left))
    rank = rank.expand(lead)
    gain = B.new_zeros(*lead, size, rows)
    unit = torch.eye(rows, dtype=B.dtype, device=B.device)
    plain, log_size = [], B.new_zeros(lead)
    for i in range(rows):
        h = H[..., i : i + 1, :]
        w = h @ B
        square = w.square().sum(-1, keepdim=True)
        beyond = square.detach() > _rounding(h, scale).square()
        new = beyond & (rank > 0)[..., None, None]
        square = torch.where(new, square, 1.0)
        row = unit[i] - h @ gain
        plain.append(~new[..., 0, 0])
        log_size = log_size + square[..., 0, 0].log()
        u = torch.where(new, w, 0.0) / square.sqrt()
        seen = B @ u.mT
        gain = gain + (seen / square.sqrt()) @ row
        rank = rank - new[..., 0, 0].to(rank.dtype)
        # Twice is enough for what remains to be orthogonal to rounding.
        keep = (rank > 0)[..., None, None]
        B, left = B - seen @ u, left - (left @ u.mT) @ u
        B = torch.where(keep, B - (B @ u.mT) @ u, 0.0)
        left = torch.where(keep, left - (left @ u.mT) @ u, 0.0)
    # of a row without a direction all others take out what a change of it would see, not only those
    # before it: that is zero by itself, but not its gradient
    settled = Settled(gain, unit - H @ gain, torch.stack(plain, -1), log_size)
    return settled, B.expand(*lead, size, count), left, rank


@torch.no_grad()
def overlooked(s: AlignedSystem, found: Directions) -> bool:
    """Whether a row sees no direction and a later one does: a change of loadings would be seen."""
    plain = found.settled.plain[:-1]
    open_after = (found.after[: len(plain)] != 0).flatten(-2).any(-1)
    observed = s.observed if len(s.observed) == 1 else s.observed[: len(plain)]
    return bool((plain & open_after.unsqueeze(-1) & observed).any())


def sees(H: Tensor, B: Tensor, scale: Tensor) -> bool:
    """Whether a row of any series sees one of the directions ``B``, beyond rounding."""
    square = (H @ B).detach().square().sum(-1, keepdim=True)
    return bool((square > _rounding(H, scale).square()).any())


def _rounding(H: Tensor, scale: Tensor) -> Tensor:
    return torch.finfo(H.dtype).eps ** 0.75 * (H.detach().abs() @ scale.unsqueeze(-1))


def limit_gain(P: Tensor, H: Tensor, R: Tensor, settled: Settled) -> tuple[Tensor, Tensor, Tensor]:
    """The limit of the Kalman gain, and what whitens the plain rows and by how much."""
    N, free, white, L = free_gain(P, H, R, settled)
    return settled.gain + free @ N, white, L


def free_gain(
    P: Tensor, H: Tensor, R: Tensor, settled: Settled
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The plain rows, their gain, which minimises the covariance, and their whitener."""
    gain, rows, plain, _ = settled
    N = torch.where(plain.unsqueeze(-1), rows, 0.0)
    seen, spare = N @ H, torch.diag_embed((~plain).to(P.dtype))
    L = innovation_root(P, seen, symmetric(N @ R @ N.mT) + spare)
    N = N.expand(L.shape)
    U, white = (
        torch.linalg.solve_triangular(L, x.expand(*L.shape[:-1], -1), upper=False)
        for x in (seen, N)
    )
    PU = P @ U.mT
    right = PU - gain @ (H @ PU + R @ white.mT)
    free = torch.linalg.solve_triangular(L, right, upper=False, left=False)
    return N, free, white, L


def eye_like(x: Tensor) -> Tensor:
    """Unit matrices of the shape of other ones."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand(x.shape)
