"""Filter and smoother in a number of rounds logarithmic in time, by associative scans.

Steps from the second on are elements that compose; the prior of the first state, whose variance may
be large, meets them only once they are composed.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    aligned,
    apply,
    join,
    log_evidence,
    matrix_lead,
    residuals,
    rest,
    symmetric,
)
from seqlatent.kalman.conditional_steps import (
    ConditionalSteps,
    conditional_steps,
    first_distribution,
    moved_back,
    posterior_chain,
)
from seqlatent.kalman.moments.fixed_interval import (
    FirstDistribution,
    by_innovations_or_chain,
    divisible,
)
from seqlatent.kalman.moments.sequential import Algorithm, Filtered, forward, smoothed
from seqlatent.kalman.moments.sequential import filtered as filtered_by
from seqlatent.kalman.posterior_path import Smoothed, with_cross
from seqlatent.kalman.riccati import closed_loop
from seqlatent.kalman.system import LinearGaussianSystem


def filter_scan(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    *,
    undetermined: float = math.inf,
) -> Filtered:
    r"""Kalman filter by an associative scan.

    Arguments, shapes and results are those of :func:`filter`. Two neighbouring elements compose
    into one, with the help of :math:`(I + C_1 J_2)^{-1}`; composing pairs recursively takes
    :math:`2 \log_2 T` rounds. Where H Q H^T + R is singular, so that a state foretells some of the
    next observation, steps do not compose, and the filter goes step by step.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> seqlatent.kalman.filter_scan(walk, y, observed).mean.T
        tensor([[0.5000, 1.4000]])

    References:
        Temporal Parallelization of Bayesian Smoothers (Särkkä & García-Fernández, 2021), lemma 8.
    """
    return filtered_by(aligned(system.observing(y, observed)), undetermined, _filter)


def _filter(s: AlignedSystem) -> Moments:
    return _run(s)[0]


def _run(s: AlignedSystem) -> tuple[Moments, float]:
    """Moments of a filter, and by which share of a deviation its steps contradict each other."""
    if s.steps == 1 or not divisible(s):
        return forward(s), 0.0
    try:
        found = _composed(s)
    except ValueError:
        return forward(s), 0.0  # arguments were verified before: a precision is none by rounding
    off = _contradiction(s, found)
    return (found, off) if off < torch.finfo(found.mean.dtype).eps ** 0.6 else (forward(s), 0.0)


def _composed(s: AlignedSystem) -> Moments:
    e = ConditionalSteps(*_scan(_compose, _written_out(conditional_steps(s), s.lead, s.steps - 1)))
    # Before any step the state is what it was, and nothing has been said about it.
    eye = torch.eye(e.A.shape[-1], dtype=e.A.dtype, device=e.A.device)[None]
    zero, none = torch.zeros_like(eye), torch.zeros_like(eye[0, :1])
    m, P = first_distribution(s, join(none, e.eta, s.steps), join(zero, e.J, s.steps))
    A, C = join(eye, e.A, s.steps), join(zero, e.C, s.steps)
    mean, cov = apply(A, m) + join(none, e.b, s.steps), symmetric(A @ P @ A.mT + C)
    F, b, Q = rest(s.F, s.steps), rest(s.b, s.steps), rest(s.Q, s.steps)
    predicted_mean = join(s.m0, apply(F, mean[:-1]) + b, s.steps)
    predicted_cov = join(s.P0, symmetric(F @ cov[:-1] @ F.mT + Q), s.steps)
    S = s.H @ predicted_cov @ s.H.mT + s.R
    evidence = log_evidence(s, residuals(s, predicted_mean), S)
    return Moments(mean, cov, predicted_mean, predicted_cov, evidence)


@torch.no_grad()
def _contradiction(s: AlignedSystem, found: Moments) -> float:
    """How far moments are from what an update of their step's predicted ones gives.

    Relative to what is left of a variance: of a large one it may be little.
    """
    PH = found.predicted_cov @ s.H.mT
    L, info = torch.linalg.cholesky_ex(s.H @ PH + s.R)
    if bool(info.any()):
        return math.inf
    gain = torch.cholesky_solve(PH.mT, L).mT
    news = apply(gain, residuals(s, found.predicted_mean))
    cov = closed_loop(found.predicted_cov, gain, PH.mT)
    cov = closed_loop(cov, cov @ s.H.mT - gain @ s.R, gain.mT)
    before, after = (x.diagonal(dim1=-2, dim2=-1) for x in (found.predicted_cov, found.cov))
    limits = torch.finfo(L.dtype)
    size = after.clamp_min(0.0) + limits.eps**0.5 * before + limits.tiny
    mean = (found.predicted_mean + news - found.mean).square() / (size + found.mean.square())
    variance = (cov - found.cov).diagonal(dim1=-2, dim2=-1).abs() / size
    return float(torch.maximum(mean.amax().sqrt(), variance.amax()))


def smoother_scan(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    *,
    filtered: Filtered | None = None,
    undetermined: float = math.inf,
) -> Smoothed:
    """Smoothed moments by two associative scans; all else is as in :func:`smoother`.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> seqlatent.kalman.smoother_scan(walk, y, observed).mean.T
        tensor([[0.8000, 1.4000]])
    """
    s = aligned(system.observing(y, observed))
    return smoothed(s, filtered, undetermined, _SCAN)


def _smooth(s: AlignedSystem) -> Smoothed:
    moments, off = _run(s)
    return by_innovations_or_chain(s, moments, _backward, _chain, off)


def _chain(s: AlignedSystem, distribution: FirstDistribution) -> Smoothed | None:
    e = conditional_steps(s)
    ahead = [x.flip(0) for x in _written_out(e, s.lead, s.steps - 1)]
    ahead = _scan(lambda x, y: _compose(y, x), ahead)
    eta, J = (moved_back(x.flip(0), s.steps) for x in ahead[3:])
    first = distribution(s, eta[:1], J[:1])
    if first is None:
        return None
    A, offset, V = posterior_chain(s, e, J, eta, first)
    _, mean, cov = _scan(_follow, _written_out([A, offset, V], s.lead, s.steps))
    return with_cross(mean, symmetric(cov), rest(A, s.steps))


_SCAN = Algorithm(_filter, _smooth, _chain)


def _backward(kept: Tensor, news: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    lead = torch.broadcast_shapes(kept.shape[1:-2], news.shape[1:-1], said.shape[1:-2])
    parts = _written_out([x.flip(0) for x in (kept, news, said)], lead, len(news))
    _, r, N = (x.flip(0) for x in _scan(_follow, parts))
    return r, symmetric(N)


def _compose(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Two neighbouring elements as one: A, b, C, eta, J of ``x``, then of ``y``."""
    A1, b1, C1, eta1, J1 = x
    A2, b2, C2, eta2, J2 = y
    eye = torch.eye(A1.shape[-1], dtype=A1.dtype, device=A1.device)
    A, C = torch.linalg.solve_ex(eye + C1 @ J2, torch.cat([A1, C1], -1))[0].chunk(2, -1)
    news = eta2 - apply(J2, b1)
    return [
        A2 @ A,
        apply(A2, b1 + apply(C, news)) + b2,
        symmetric(A2 @ C @ A2.mT) + C2,
        apply(A.mT, news) + eta1,
        symmetric(A.mT @ J2 @ A1) + J1,
    ]


def _follow(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Two neighbouring steps of an affine chain as one: matrix, offset, covariance."""
    A1, b1, V1 = x
    A2, b2, V2 = y
    return [A2 @ A1, apply(A2, b1) + b2, A2 @ V1 @ A2.mT + V2]


def _scan(
    compose: Callable[[list[Tensor], list[Tensor]], list[Tensor]], x: list[Tensor]
) -> list[Tensor]:
    """All prefixes of a sequence of elements, time first, by composing pairs recursively."""
    steps = len(x[0])
    if steps < 2:
        return x
    odd = _scan(compose, compose([v[: steps - 1 : 2] for v in x], [v[1::2] for v in x]))
    even = [v[:1] for v in x]
    if steps > 2:
        later = compose([v[: (steps - 1) // 2] for v in odd], [v[2::2] for v in x])
        even = [torch.cat(pair) for pair in zip(even, later, strict=True)]
    return [_interleave(*pair) for pair in zip(even, odd, strict=True)]


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    pairs = torch.stack([even[: len(odd)], odd], 1).flatten(0, 1)
    return torch.cat([pairs, even[len(odd) :]])


def _written_out(parts: Sequence[Tensor], lead: tuple[int, ...], steps: int) -> list[Tensor]:
    """Expands time; vectors get all leading axes, matrices those that any of them has."""
    axes = len(lead) + 3
    shared = matrix_lead(*(x for x in parts if x.dim() == axes))
    return [
        x.expand(steps, *shared, *x.shape[-2:]) if x.dim() == axes else x.expand(steps, *lead, -1)
        for x in parts
    ]
