"""A first state of infinite variance as an unknown parameter, on which information adds up."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.elements import System, apply, join, path, rest
from seqlatent.linalg import cholesky


class Started(NamedTuple):
    """What a filter knows at each step, time first."""

    mean: Float[Tensor, "T *L K"]
    cov: Float[Tensor, "T *p K K"]
    predicted_mean: Float[Tensor, "T *L K"]
    predicted_cov: Float[Tensor, "T *p K K"]
    log_evidence: Float[Tensor, "T ..."]


def start(
    x: Started,
    s: System,
    closed: Float[Tensor, "_ *c K K"],
    L: Float[Tensor, "_ *s E E"],
    white: Float[Tensor, "T *L E"],
    diffuse: Bool[Tensor, " K"],
) -> Started:
    r"""Adds to a filter that started from :math:`\delta = 0` what the data say of it.

    .. math::
        z_t = z_t^0 + A_t \delta, \quad
        \Lambda_t = \Lambda_{t-1} + X_t^\top X_t, \quad X_t = L_t^{-1} H A^-_t, \quad
        s_t = s_{t-1} + X_t^\top L_t^{-1} v_t

    The precision starts at zero. A filter with a flat prior of :math:`\delta` has the mean
    :math:`m_t + A_t \Lambda_t^{-1} s_t`.

    Args:
        x: The filter with the diffuse coordinates known.
        s: The model.
        closed: What is left of a state from one step to the next.
        L: Factors of the innovations' covariances.
        white: Innovations divided by them.
        diffuse: Which coordinates of the first state are diffuse.
    """
    index = diffuse.nonzero()[:, 0]
    if not len(index):
        return x
    lead, steps = torch.broadcast_shapes(closed.shape[1:-2], L.shape[1:-2]), s.steps
    eye = torch.eye(len(diffuse), dtype=white.dtype, device=white.device)
    first = eye[index].reshape(1, len(index), *(1,) * len(lead), len(diffuse))
    # an observation of unit noise has the gain P H^T
    updated = (eye - x.cov[:1] @ s.H[:1].mT @ s.H[:1]).unsqueeze(1)
    # columns of A are paths of their own: an axis before all others but time
    kept = apply(updated, first).expand(1, len(index), *lead, -1)
    later = kept.new_zeros(steps - 1, *kept.shape[1:])
    A = path(closed.unsqueeze(1), torch.cat([kept, later]))
    moved = apply(rest(s.F, steps).unsqueeze(1), A[:-1])
    before = join(first, moved, steps).movedim(1, -1)
    A = A.movedim(1, -1)
    X = torch.linalg.solve_triangular(L, s.H @ before, upper=False)
    precision = (X.mT @ X).cumsum(0)
    shift = apply(X.mT, white).cumsum(0)
    inverse, log_det, unknown = _inverse(precision)
    delta = apply(inverse, shift)
    gained = 0.5 * ((delta * shift).sum(-1) - log_det)
    nothing = torch.zeros_like(precision[:1])
    everything = nothing + torch.eye(len(index), dtype=white.dtype, device=white.device)
    past, past_unknown = (
        torch.cat([nothing, inverse[:-1]]),
        torch.cat([everything, unknown[:-1]]),
    )
    past_delta = torch.cat([torch.zeros_like(delta[:1]), delta[:-1]])
    return Started(
        x.mean + apply(A, delta),
        _spread(x.cov, A, inverse, unknown),
        x.predicted_mean + apply(before, past_delta),
        _spread(x.predicted_cov, before, past, past_unknown),
        x.log_evidence + torch.cat([gained[:1], gained[1:] - gained[:-1]]),
    )


def _inverse(precision: Float[Tensor, "T *p k k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse and log determinant where anything is known, and projector to where nothing is."""
    known = precision.detach()
    scale = known[-1].diagonal(dim1=-2, dim2=-1).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    values, vectors = torch.linalg.eigh(known / (scale.unsqueeze(-1) * scale.unsqueeze(-2)))
    nothing = values < torch.finfo(known.dtype).eps ** 0.75
    basis = torch.where(nothing.unsqueeze(-2), vectors, 0) / scale.unsqueeze(-1)
    basis = basis / basis.norm(dim=-2, keepdim=True).clamp_min(torch.finfo(known.dtype).tiny)
    unknown = basis @ torch.linalg.pinv(basis)
    L = cholesky(precision + unknown, what="information on the first state")
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.cholesky_inverse(L) - unknown, log_det, unknown


def _spread(P: Tensor, A: Tensor, inverse: Tensor, unknown: Tensor) -> Tensor:
    """Covariance with the part of the unknown start; infinite variances where nothing is known."""
    P = P + A @ inverse @ A.mT
    size = A.detach().square().sum(-1)
    vague = (A @ unknown).detach().square().sum(-1) > torch.finfo(P.dtype).eps ** 0.5 * size
    infinite = torch.diag_embed(vague)
    return torch.where(infinite, torch.inf, P)
