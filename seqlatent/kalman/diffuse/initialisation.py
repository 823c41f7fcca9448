r"""Exact diffuse initialisation: first states of which some coordinates have no prior variance.

A diffuse prior is the limit of ever larger variances. The state is then its finite part and
directions, a matrix B whose coefficients may be anything:

.. math:: z_t = m_t + B_t \delta + N(0, P_t)

An observation that sees a direction for the first time determines it. The gain of such a step is
the limit of the ordinary one, under which the covariance is still Joseph's sum. So there is no
second covariance, nothing is infinite, and once no direction is left the ordinary recursion goes
on.
"""

import math
from typing import NamedTuple

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
    means,
    residuals,
    rest,
    symmetric,
)
from seqlatent.kalman.diffuse.directions import Directions, Settled, free_gain, limit_gain
from seqlatent.kalman.riccati import congruence, stack, unstack

_LOG_2PI = math.log(2 * math.pi)

# The variance of an approximate diffuse start, in squared units of a state.
LARGE_VARIANCE = 1e8


def prior(G0: Tensor) -> tuple[Tensor, Tensor | None]:
    r"""Covariance of a first state, and which of its coordinates are diffuse.

    .. math:: P_0 = G_0 G_0^\top

    but for the coordinates in whose row there is an infinity: those have no prior variance, and
    their rows and columns of the covariance are zero.

    Args:
        G0: Factor of the covariance, with infinities for standard deviations that are infinite.

    Shape:
        ``(*L, K, R)`` -> ``(*L, K, K)`` and ``(K,)``, or None where all is finite.

    Raises:
        ValueError: If series differ in which coordinates are diffuse.

    Example:
        >>> P0, diffuse = seqlatent.kalman.prior(torch.tensor([[torch.inf, 0.0], [0.0, 2.0]]))
        >>> P0, diffuse
        (tensor([[0., 0.],
                [0., 4.]]), tensor([ True, False]))
    """
    infinite = G0.isinf()
    if not bool(infinite.any()):
        return G0 @ G0.mT, None
    diffuse = shared(infinite.any(-1))
    finite = torch.where(shared(infinite.any(-2)) | diffuse.unsqueeze(-1), 0.0, G0)
    return finite @ finite.mT, diffuse


def prior_factor(G0: Tensor, diffuse: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """A factor with unit columns for diffuse coordinates, and which columns those are.

    Coordinates are diffuse where their row has an infinity, whose column becomes the unit one;
    where all is finite, as ``diffuse`` says.
    """
    infinite = G0.isinf()
    if bool(infinite.any()):
        diffuse_columns, rows = shared(infinite.any(-2)), shared(infinite.any(-1))
        finite = torch.where(diffuse_columns | rows.unsqueeze(-1), 0.0, G0)
        return finite + (infinite & diffuse_columns).to(G0.dtype), diffuse_columns
    if diffuse is None or not bool(diffuse.any()):
        return G0, None
    finite = torch.where(diffuse.unsqueeze(-1), 0.0, G0)
    kept = finite[..., (finite != 0).reshape(-1, finite.shape[-1]).any(0)]
    unit = torch.eye(len(diffuse), dtype=G0.dtype, device=G0.device)[:, diffuse]
    factor = torch.cat([kept, unit.expand(*kept.shape[:-1], -1)], -1)
    return factor, torch.arange(factor.shape[-1], device=G0.device) >= kept.shape[-1]


def approximate_diffuse(G0: Tensor) -> Tensor:
    """A factor with standard deviations of 1e4 for infinite ones, for what needs numbers.

    Example:
        >>> seqlatent.kalman.approximate_diffuse(torch.tensor([[torch.inf, 0.0], [0.0, 2.0]]))
        tensor([[1.0000e+04, 0.0000e+00],
                [0.0000e+00, 2.0000e+00]])
    """
    return torch.where(G0.isinf(), LARGE_VARIANCE**0.5, G0)


def shared(pattern: Tensor) -> Tensor:
    """The pattern ``(*L, K)`` of all series, which must be the same."""
    rows = pattern.reshape(-1, pattern.shape[-1])
    if not bool((rows == rows[:1]).all()):
        raise ValueError(
            "The same coordinates of the first state were expected to be diffuse in all series, "
            "found infinities in different places. Give every series the same components."
        )
    return rows[0]


def diffuse_precision(M: Tensor, diffuse_columns: Tensor | None) -> Tensor:
    """The precision of a first state's noise, from G' J G, where some noise has a diffuse prior.

    Where data leave a direction of it open, the diffuse prior becomes one of a standard deviation
    of 1e4.
    """
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    if diffuse_columns is None:
        return eye + M
    M = M + eye * ~diffuse_columns
    known = M.detach()
    size = known.diagonal(dim1=-2, dim2=-1)
    size = torch.where(size > 0, size, 1.0).sqrt()
    lowest = torch.linalg.eigvalsh(known / (size.unsqueeze(-1) * size.unsqueeze(-2)))[..., 0]
    open_ = lowest < 32 * len(diffuse_columns) * torch.finfo(M.dtype).eps
    if not bool(open_.any()):
        return M
    return (
        M
        + (open_[..., None].to(M.dtype) * diffuse_columns.to(M.dtype) / LARGE_VARIANCE).diag_embed()
    )


def initial_phase(s: AlignedSystem, found: Directions) -> tuple[Moments, AlignedSystem | None]:
    """Moments of the steps until all that is ever determined is, and the system that goes on."""
    steps = len(found.settled.log_size)
    first = window(s, 0, steps)
    gain, predicted_cov, cov, white, L = _phase(first, found.settled)
    closed = first.F - gain @ (first.H @ first.F)
    mean, predicted_mean = means(first, gain, closed)
    terms = apply(white, residuals(first, predicted_mean)).square()
    terms = (terms + 2.0 * L.diagonal(dim1=-2, dim2=-1).log()).sum(-1) + found.settled.log_size
    evidence = -0.5 * (terms + _LOG_2PI * first.observed.sum(-1).to(terms.dtype))
    moments = Moments(mean, cov, predicted_mean, predicted_cov, evidence)
    if steps == s.steps:
        return moments, None
    later = window(s, steps, s.steps)
    F, b, Q = later.F[:1], later.b[:1], later.Q[:1]
    P0 = symmetric(F @ cov[-1:] @ F.mT + Q)
    return moments, later._replace(m0=apply(F, mean[-1:]) + b, P0=P0, diffuse=None)


class _Phase(NamedTuple):
    """Gains, covariances, and what whitens the plain rows, of the first steps."""

    gain: Tensor
    predicted_cov: Tensor
    cov: Tensor
    white: Tensor
    L: Tensor


def _phase(s: AlignedSystem, settled: Settled) -> _Phase:
    """The first steps, in a loop that is not recorded.

    With given gains the covariances are a congruence, to whose gradient an optimal gain contributes
    nothing: with a constant one they have their first derivatives, and with gains found anew out of
    those their second ones too. Means have those with gains that are found once more.
    """
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R, settled.gain)
    eye = torch.eye(s.F.shape[-1], dtype=s.F.dtype, device=s.F.device)
    P, steps, frees = s.P0[0].detach(), [], []
    with torch.no_grad():
        for t in range(s.steps):
            h, r, one = at(s.H, t), at(s.R, t), Settled(*(x[t] for x in settled))
            P = symmetric(at(s.F, t) @ P @ at(s.F, t).mT + at(s.Q, t)) if t else P
            N, free, white, L = free_gain(P, h, r, one)
            k = one.gain + free @ N
            keep, before = eye - k @ h, P
            P = symmetric(keep @ P @ keep.mT + k @ r @ k.mT)
            step = (k, before, P, white, L)
            steps.append([x.expand(*lead, *x.shape[-2:]) for x in step])
            frees.append(free.expand(*lead, *free.shape[-2:]))
    tracked = (s.F, s.Q, s.P0, s.H, s.R, settled.gain)
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in tracked):
        return _Phase(*(torch.stack(x) for x in zip(*steps, strict=True)))
    N = torch.where(settled.plain.unsqueeze(-1), settled.rows, 0.0)
    predicted_cov, _ = _joseph(s, settled.gain + torch.stack(frees) @ N, lead)
    gain, _, _ = limit_gain(predicted_cov, s.H, s.R, settled)
    predicted_cov, cov = _joseph(s, gain, lead)
    gain, white, L = limit_gain(predicted_cov, s.H, s.R, settled)
    return _Phase(gain, predicted_cov, cov, white, L)


def _joseph(s: AlignedSystem, gain: Tensor, lead: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Predicted and filtered covariances under given gains."""
    F, Q = rest(s.F, s.steps), rest(s.Q, s.steps)
    keep = torch.eye(gain.shape[-2], dtype=gain.dtype, device=gain.device) - gain @ s.H
    noise = keep @ join(s.P0, Q, s.steps) @ keep.mT + gain @ s.R @ gain.mT
    A = keep[1:] @ F
    cov = unstack(symmetric(congruence(stack(A, lead), stack(symmetric(noise), lead))), lead)
    return join(s.P0, symmetric(F @ cov[:-1] @ F.mT + Q), s.steps), cov


def window(s: AlignedSystem, start: int, stop: int) -> AlignedSystem:
    """Some steps of a system; what is constant in time keeps its one."""
    parts = {
        name: getattr(s, name)[start:stop] if len(getattr(s, name)) > 1 else getattr(s, name)
        for name in ("F", "b", "Q", "H", "d", "R", "y", "observed")
    }
    return s._replace(steps=stop - start, **parts)


def concatenated(first: Moments, later: Moments | None) -> Moments:
    """The moments of the first steps, then those of the later ones."""
    if later is None:
        return first
    return Moments(*(after(x, y) for x, y in zip(first, later, strict=True)))


def marked(cov: Tensor, B: Tensor, scale: Tensor, undetermined: float) -> Tensor:
    """Covariances, time first, with the variance of the directions left at the first steps."""
    B = B.detach()
    if bool((B == 0).all()):
        return cov
    if math.isinf(undetermined):
        size = torch.linalg.vector_norm(B, dim=-1)
        rounding = torch.finfo(B.dtype).eps ** 0.75 * scale
        more = torch.where(size > rounding, math.inf, 0.0).to(B.dtype).diag_embed()
    else:
        more = undetermined * (B @ B.mT)
    if len(more) == len(cov):
        return cov + more
    first = cov[: len(more)] + more
    return after(first, cov[len(more) :])
