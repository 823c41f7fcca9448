"""A system and its data on common axes, time first, and what algorithms do with such tensors."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.system import Problem
from seqlatent.linalg import broadcast_shapes, cholesky, mask_rows
from seqlatent.recurrence import affine_recurrence

_LOG_2PI = math.log(2 * math.pi)


class AlignedSystem(NamedTuple):
    """A system and its data whose tensors have time first and the same number of axes.

    Time and each leading axis have full length or length one: an axis along which nothing differs
    is never repeated. Rows of what was not observed are unit-variance phantoms. ``diffuse`` is None
    where no coordinate of the first state is.
    """

    lead: tuple[int, ...]
    steps: int
    F: Float[Tensor, "_ *f K K"]
    b: Float[Tensor, "_ *b K"]
    Q: Float[Tensor, "_ *q K K"]
    m0: Float[Tensor, "1 *m K"]
    P0: Float[Tensor, "1 *p K K"]
    H: Float[Tensor, "_ *h D K"]
    d: Float[Tensor, "_ *d D"]
    R: Float[Tensor, "_ *r D D"]
    y: Float[Tensor, "_ *y D"]
    observed: Bool[Tensor, "_ *o D"]
    diffuse: Bool[Tensor, " K"] | None


class Moments(NamedTuple):
    """What a filter finds, time first; leading axes along which nothing differs have length one."""

    mean: Float[Tensor, "T *m K"]
    cov: Float[Tensor, "T *c K K"]
    predicted_mean: Float[Tensor, "T *m K"]
    predicted_cov: Float[Tensor, "T *c K K"]
    log_evidence: Float[Tensor, "*e"]


def aligned(problem: Problem) -> AlignedSystem:
    """Aligns the axes of a problem's tensors; masks the rows of what was not observed."""
    F, b, Q, m0, P0, H, d, R, y, observed, diffuse = problem
    lead, steps = problem.axes
    F, Q, P0, H, R = (align(x, lead, 2) for x in (F, Q, P0.unsqueeze(-3), H, R))
    b, m0, d, y, observed = (align(x, lead, 1) for x in (b, m0.unsqueeze(-2), d, y, observed))
    for i in range(1, len(lead) + 1):
        one = observed.narrow(i, 0, 1)
        if observed.shape[i] > 1 and bool((observed == one).all()):
            observed = one
    if not bool(observed.all()):
        H, d, R, y = mask_rows(H, d, R, y, observed)
    return AlignedSystem(lead, steps, F, b, Q, m0, P0, H, d, R, y, observed, diffuse)


def align(x: Tensor, lead: tuple[int, ...], event: int) -> Tensor:
    """Puts time first in ``(*, T, ...)`` and completes the axes; expanded ones get length one."""
    axes = len(lead) + 1
    x = x.reshape((1,) * (axes + event - x.dim()) + x.shape)
    for i in range(axes):
        if x.stride(i) == 0 and x.shape[i] > 1:
            x = x.narrow(i, 0, 1)
    return x.movedim(axes - 1, 0)


def rest(x: Tensor, steps: int) -> Tensor:
    """Leaves out the first of some steps; what is constant in time keeps its one."""
    return x if len(x) == 1 < steps else x[1:]


def join(first: Tensor, later: Tensor, steps: int) -> Tensor:
    """Puts the first of some steps before the later ones; :func:`rest` undone."""
    shape = broadcast_shapes(first.shape[1:], later.shape[1:])
    return torch.cat([first.expand(1, *shape), later.expand(steps - 1, *shape)])


def at(x: Tensor, t: int) -> Tensor:
    """A step of what has all steps, or one for all."""
    return x[t] if len(x) > 1 else x[0]


def after(x: Tensor, y: Tensor) -> Tensor:
    """What has time first, then what comes later, under the leading axes of both."""
    shape = torch.broadcast_shapes(x.shape[1:], y.shape[1:])
    return torch.cat([x.expand(-1, *shape), y.expand(-1, *shape)])


def path(F: Tensor, b: Tensor, *, reverse: bool = False) -> Tensor:
    """An affine recurrence, time first."""
    h = affine_recurrence(F.movedim(0, -3), b.movedim(0, -2), reverse=reverse)
    return h.movedim(-2, 0)


def apply(M: Float[Tensor, "*m i j"], v: Float[Tensor, "*v j"]) -> Float[Tensor, "... i"]:
    """Matrix times vector; along axes that ``M`` shares, vectors are columns of one product."""
    return torch.einsum("...ij,...j->...i", M, v)


def symmetric(P: Float[Tensor, "*p K K"]) -> Float[Tensor, "*p K K"]:
    """The symmetric part."""
    return (P + P.mT).mul_(0.5)


def matrix_lead(*tensors: Tensor) -> tuple[int, ...]:
    """The leading axes of some matrices, broadcast: of length one where none of them differs."""
    return tuple(broadcast_shapes(*(x.shape[1:-2] for x in tensors)))


def informed_steps(s: AlignedSystem) -> list[bool]:
    """Which steps have any observation."""
    return s.observed.flatten(1).any(-1).expand(s.steps).tolist()


def residuals(s: AlignedSystem, predicted_mean: Tensor) -> Tensor:
    """Observations relative to what predicted means make of them."""
    return s.y - s.d - apply(s.H, predicted_mean)


def means(s: AlignedSystem, gain: Tensor, closed: Tensor) -> tuple[Tensor, Tensor]:
    """Filtered and predicted means under given gains.

    The prior mean is the first step's offset, to which its update then applies as to any other.

    Args:
        s: The system.
        gain: Gains of all steps.
        closed: What they leave of a state from one step to the next, (I - k H) F.
    """
    F, b = rest(s.F, s.steps), rest(s.b, s.steps)
    prior = join(s.m0, b, s.steps)
    mean = path(closed, (prior + apply(gain, residuals(s, prior))).expand(-1, *s.lead, -1))
    return mean, join(s.m0, apply(F, mean[:-1]) + b, s.steps)


def innovation_factor(S: Float[Tensor, "*s D D"], what: str) -> Float[Tensor, "*s D D"]:
    """Cholesky factor of a covariance that observations are divided by.

    Raises:
        ValueError: If a variance is zero or no number; the observation would have infinite density.
    """
    variances = S.detach().diagonal(dim1=-2, dim2=-1)
    wrong = variances[~(variances > 0)]
    if len(wrong):
        raise ValueError(
            f"The {what} was expected to have positive variances, found {wrong[0]:.3g}. "
            "Give the observation noise R a positive variance, or mark what is known exactly as "
            "not observed. Where R has one, it is lost beside large variances: compute in float64."
        )
    return S.sqrt() if S.shape[-1] == 1 else cholesky(S, what=what)


def noise_factor(R: Float[Tensor, "*r D D"]) -> Float[Tensor, "*r D D"]:
    """Cholesky factor of the observation noise, for what divides by it.

    Raises:
        ValueError: If it is singular.
    """
    if not regular(R, 0.4):
        lowest = torch.linalg.eigvalsh(R.detach()).amin().item()
        raise ValueError(
            "The covariance R of the observation noise was expected to be positive definite with "
            f"positive variances, found the eigenvalue {lowest:.3g}. What divides by it cannot go "
            "on: use kalman.filter and kalman.smoother, which do not, or mark what is known "
            "exactly as not observed."
        )
    return cholesky(R, what="covariance R of the observation noise")


def regular(S: Float[Tensor, "*s D D"], power: float = 0.2) -> bool:
    """Whether covariances can be divided by, at the cost of less than half of the digits.

    Judged by the least share of a standard deviation that the variables before leave open: it must
    be more than this power of the precision.
    """
    S = S.detach()
    variances = S.diagonal(dim1=-2, dim2=-1)
    if not bool((variances > 0).all()):
        return False
    if S.shape[-1] == 1 or not S.numel():
        return True
    scale = variances.sqrt()
    L, info = torch.linalg.cholesky_ex(S / (scale.unsqueeze(-1) * scale.unsqueeze(-2)))
    least = L.diagonal(dim1=-2, dim2=-1).amin()
    return not bool(info.any()) and bool(least > torch.finfo(S.dtype).eps ** power)


def log_evidence(
    s: AlignedSystem, residual: Float[Tensor, "T *L D"], S: Float[Tensor, "T *s D D"]
) -> Float[Tensor, "T ..."]:
    """Logarithm of p(y_t | y_<t), all steps at once, from innovations and their covariances."""
    L = innovation_factor(S, "innovation covariance H P H^T + R")
    if S.shape[-1] == 1:
        terms = residual.square() / S[..., 0] + S[..., 0].log()
    else:
        eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        white = apply(torch.linalg.solve_triangular(L, eye, upper=False), residual)
        terms = white.square() + 2.0 * L.diagonal(dim1=-2, dim2=-1).log()
    return -0.5 * (terms.sum(-1) + _LOG_2PI * s.observed.sum(-1).to(S.dtype))
