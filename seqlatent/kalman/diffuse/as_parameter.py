"""A first state of infinite variance as an unknown parameter, on which information adds up."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import AlignedSystem, Moments, apply, join, path, rest
from seqlatent.linalg import cholesky


class Paths(NamedTuple):
    """What each diffuse coordinate adds to states, and what data say of all of them."""

    before: Float[Tensor, "T *l K k"]
    after: Float[Tensor, "T *l K k"]
    seen: Float[Tensor, "T *l E k"]
    precision: Float[Tensor, "T *l k k"]


def paths(
    s: AlignedSystem,
    gain: Float[Tensor, "_ *g K E"],
    closed: Float[Tensor, "_ *c K K"],
    L: Float[Tensor, "_ *s E E"],
) -> Paths:
    r"""What a unit of each diffuse coordinate :math:`\delta` does, and the precision of it.

    .. math::
        z_t = z_t^0 + A_t \delta, \quad
        \Lambda_t = \Lambda_{t-1} + X_t^\top X_t, \quad X_t = L_t^{-1} H A^-_t

    Args:
        s: The model.
        gain: Its gains.
        closed: What is left of a state from one step to the next.
        L: Factors of the innovations' covariances.
    """
    diffuse = s.diffuse
    assert diffuse is not None
    index = diffuse.nonzero()[:, 0]
    lead, steps = torch.broadcast_shapes(closed.shape[1:-2], L.shape[1:-2]), s.steps
    eye = torch.eye(len(diffuse), dtype=L.dtype, device=L.device)
    first = eye[index].reshape(1, len(index), *(1,) * len(lead), len(diffuse))
    updated = (eye - gain[:1] @ s.H[:1]).unsqueeze(1)
    # columns of A are paths of their own: an axis before all others but time
    kept = apply(updated, first).expand(1, len(index), *lead, -1)
    later = kept.new_zeros(steps - 1, *kept.shape[1:])
    A = path(closed.unsqueeze(1), torch.cat([kept, later]))
    moved = apply(rest(s.F, steps).unsqueeze(1), A[:-1])
    before = join(first, moved, steps).movedim(1, -1)
    X = torch.linalg.solve_triangular(L, s.H @ before, upper=False)
    return Paths(before, A.movedim(1, -1), X, (X.mT @ X).cumsum(0))


@torch.no_grad()
def estimate(found: Paths, white: Float[Tensor, "T *L E"]) -> Float[Tensor, "*L k"]:
    """What all innovations, divided by L, say of the diffuse coordinates; zero where nothing."""
    return apply(_inverse(found.precision)[0][-1], apply(found.seen.mT, white).sum(0))


@torch.no_grad()
def ill_determined(precision: Float[Tensor, "T *p k k"]) -> bool:
    """Whether a direction is neither open nor known with half of the digits, at any step."""
    size = precision.diagonal(dim1=-2, dim2=-1)
    eps = torch.finfo(size.dtype).eps
    known = size > eps**1.5 * size[-1:]
    scale = torch.where(known, size.clamp_min(torch.finfo(size.dtype).tiny).rsqrt(), 0.0)
    values = torch.linalg.eigvalsh(precision * scale.unsqueeze(-1) * scale.unsqueeze(-2))
    return bool(((values > 64 * eps) & (values < eps**0.4)).any())


def with_estimated_start(
    x: Moments, found: Paths, white: Float[Tensor, "T *L E"], place: Float[Tensor, "*L k"]
) -> Moments:
    r"""Adds to a filter that started from some :math:`\delta` what the data say of it.

    .. math:: s_t = s_{t-1} + X_t^\top L_t^{-1} v_t

    The precision starts at zero. A filter with a diffuse prior of :math:`\delta` has the mean
    :math:`m_t + A_t \Lambda_t^{-1} s_t`. Where nothing is known, that is zero.

    Args:
        x: The filter with the diffuse coordinates known.
        found: What they add.
        white: Innovations divided by L.
        place: How far from zero it started.
    """
    before, A, X, precision = found
    count = precision.shape[-1]
    shift = apply(X.mT, white).cumsum(0)
    inverse, log_det, unknown = _inverse(precision)
    delta = apply(inverse, shift)
    gained = 0.5 * ((delta * shift).sum(-1) - log_det)
    nothing = torch.zeros_like(precision[:1])
    everything = nothing + torch.eye(count, dtype=white.dtype, device=white.device)
    past, past_unknown = (
        torch.cat([nothing, inverse[:-1]]),
        torch.cat([everything, unknown[:-1]]),
    )
    past_delta = torch.cat([torch.zeros_like(delta[:1]), delta[:-1]])
    delta = delta - apply(unknown, place)
    past_delta = past_delta - apply(past_unknown, place)
    return Moments(
        x.mean + apply(A, delta),
        _spread(x.cov, A, inverse, unknown),
        x.predicted_mean + apply(before, past_delta),
        _spread(x.predicted_cov, before, past, past_unknown),
        x.log_evidence + torch.cat([gained[:1], gained[1:] - gained[:-1]]),
    )


def _inverse(precision: Float[Tensor, "T *p k k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse and log determinant where anything is known, and projector to where nothing is.

    Where nothing is known the precision is completed in its own units, before it is factored: a
    unit variance would take the digits of a small one.
    """
    known = precision.detach()
    scale = known[-1].diagonal(dim1=-2, dim2=-1).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    values, vectors = torch.linalg.eigh(known / (scale.unsqueeze(-1) * scale.unsqueeze(-2)))
    nothing = values < torch.finfo(known.dtype).eps ** 0.75
    vectors = torch.where(nothing.unsqueeze(-2), vectors, 0)
    basis, filled = vectors / scale.unsqueeze(-1), vectors * scale.unsqueeze(-1)
    size = basis.norm(dim=-2, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    basis = basis / size
    unknown = basis @ torch.linalg.pinv(basis)
    L = cholesky(precision + filled @ filled.mT, what="information on the first state")
    # what completes it has a determinant, too
    volume = torch.linalg.slogdet(basis.mT @ basis + torch.diag_embed((~nothing).to(size.dtype)))[1]
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_det = log_det + volume + 2 * size.log().sum((-2, -1))
    kept = torch.eye(unknown.shape[-1], dtype=L.dtype, device=L.device) - unknown
    return kept @ torch.cholesky_inverse(L) @ kept, log_det, unknown


def _spread(P: Tensor, A: Tensor, inverse: Tensor, unknown: Tensor) -> Tensor:
    """Covariance with the part of the unknown start; infinite variances where nothing is known."""
    P = P + A @ inverse @ A.mT
    size = A.detach().square().sum(-1)
    unknown_variance = (A @ unknown).detach().square().sum(-1) > torch.finfo(
        P.dtype
    ).eps ** 0.5 * size
    infinite = torch.diag_embed(unknown_variance)
    return torch.where(infinite, torch.inf, P)
