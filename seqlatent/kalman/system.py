"""What all algorithms of this folder start from: aligned axes, masked rows, elements of a step."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.riccati import closed_loop
from seqlatent.kalman.validation import checked
from seqlatent.linalg import broadcast_shapes, cholesky, mask_rows
from seqlatent.recurrence import affine_recurrence

_LOG_2PI = math.log(2 * math.pi)


class System(NamedTuple):
    """A linear-Gaussian model whose tensors all have time first and the same number of axes.

    Time and each leading axis have full length or length one: an axis along which nothing differs
    is never repeated. Rows of what was not observed are unit-variance phantoms.
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


class Elements(NamedTuple):
    r"""The distribution of z_t given z_{t-1} and y_t, and what y_t says of z_{t-1}.

    .. math::
        N(z_t;\, A z_{t-1} + b,\, C), \quad
        \exp(-\tfrac12 z_{t-1}^\top J z_{t-1} + \eta^\top z_{t-1})
    """

    A: Float[Tensor, "_ *a K K"]
    b: Float[Tensor, "_ *b K"]
    C: Float[Tensor, "_ *c K K"]
    eta: Float[Tensor, "_ *e K"]
    J: Float[Tensor, "_ *j K K"]


def leading(matrices: Iterable[Tensor], vectors: Iterable[Tensor]) -> tuple[tuple[int, ...], int]:
    """The leading axes of some tensors, broadcast, and the number of steps."""
    shapes = [x.shape[:-2] for x in matrices] + [x.shape[:-1] for x in vectors]
    *lead, steps = broadcast_shapes(*shapes)
    return tuple(lead), steps


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


def then_nothing(x: Tensor, steps: int) -> Tensor:
    """Moves what is said of the past at the steps from the second on to the steps before."""
    return torch.cat([x.expand(steps - 1, *x.shape[1:]), x.new_zeros(1, *x.shape[1:])])


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


def system(
    F: Tensor,
    b: Tensor,
    Q: Tensor,
    m0: Tensor,
    P0: Tensor,
    H: Tensor,
    d: Tensor,
    R: Tensor,
    y: Tensor,
    observed: Tensor,
    *,
    diffuse: Tensor | None = None,
) -> System:
    """Aligns the axes of a model's tensors; masks the rows of what was not observed.

    What P0 says of ``diffuse`` coordinates is left out.

    Raises:
        ValueError: If shapes do not fit, a covariance is none, or what is observed is no number.
    """
    P0 = checked(F, b, Q, m0, P0, H, d, R, y, observed, diffuse)
    return aligned(F, b, Q, m0, P0, H, d, R, y, observed)


def aligned(
    F: Tensor,
    b: Tensor,
    Q: Tensor,
    m0: Tensor,
    P0: Tensor,
    H: Tensor,
    d: Tensor,
    R: Tensor,
    y: Tensor,
    observed: Tensor,
) -> System:
    """The same of tensors that were verified."""
    m0, P0 = m0.unsqueeze(-2), P0.unsqueeze(-3)
    matrices, vectors = (F, Q, P0, H, R), (b, m0, d, y, observed)
    lead, steps = leading(matrices, vectors)
    F, Q, P0, H, R = (align(x, lead, 2) for x in matrices)
    b, m0, d, y, observed = (align(x, lead, 1) for x in vectors)
    for i in range(1, len(lead) + 1):
        one = observed.narrow(i, 0, 1)
        if observed.shape[i] > 1 and bool((observed == one).all()):
            observed = one
    if not bool(observed.all()):
        H, d, R, y = mask_rows(H, d, R, y, observed)
    return System(lead, steps, F, b, Q, m0, P0, H, d, R, y, observed)


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
            "not observed. Where R has one, it is lost beside vast variances: compute in float64."
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


def elements(s: System) -> Elements:
    """Elements of the steps from the second on: a Kalman update of each step's own noise.

    Nothing is divided by R, which may be singular. The prior, which may be vast, has no part in it.
    """
    F, b, Q, H, d, R, y = (rest(x, s.steps) for x in (s.F, s.b, s.Q, s.H, s.d, s.R, s.y))
    QH = Q @ H.mT
    L = innovation_factor(H @ QH + R, "covariance H Q H^T + R of an observation given a state")
    gain = torch.cholesky_solve(QH.mT, L).mT
    HF = H @ F
    whitened = torch.linalg.solve_triangular(L, HF, upper=False)
    residual = y - d - apply(H, b)
    eta = apply(torch.cholesky_solve(HF, L).mT, residual)
    C = closed_loop(Q, gain, QH.mT)
    C = symmetric(closed_loop(C, C @ H.mT - gain @ R, gain.mT))
    return Elements(
        closed_loop(F, gain, HF), b + apply(gain, residual), C, eta, whitened.mT @ whitened
    )


def first_distribution(s: System, eta: Tensor, J: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of z_1 given y_1 and the potential ``(J, eta)`` of what follows.

    What y_1 says is a part of the potential, where it can be divided by R. Where it cannot, the
    potential comes first: a vast prior variance that it determines is gone before the update
    subtracts anything from it.
    """
    eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device)
    exact = not regular(s.R[:1])
    if not exact:
        L = cholesky(s.R[:1], what="covariance R of the observation noise")
        white = torch.linalg.solve_triangular(L, s.H[:1], upper=False)
        loadings = torch.linalg.solve_triangular(L.mT, white, upper=True)
        J, eta = J + white.mT @ white, eta + apply(loadings.mT, s.y[:1] - s.d[:1])
    P = tilted(s.P0, J, eye)
    m = s.m0 + apply(P, eta - apply(J, s.m0))
    if not exact:
        return m, P
    H, R, residual = s.H[:1], s.R[:1], s.y[:1] - s.d[:1] - apply(s.H[:1], m)
    PH = P @ H.mT
    L = innovation_factor(H @ PH + R, "innovation covariance H P H^T + R")
    gain = torch.cholesky_solve(PH.mT, L).mT
    keep = eye - gain @ H
    return m + apply(gain, residual), symmetric(keep @ P @ keep.mT + gain @ R @ gain.mT)


def tilted(P: Tensor, J: Tensor, eye: Tensor) -> Tensor:
    r"""The covariance :math:`(P^{-1} + J)^{-1}`, for singular P too.

    With a Cholesky factor it is accurate in every direction by itself, under variances of any size;
    where there is none, only relative to the largest.
    """
    L, info = torch.linalg.cholesky_ex(P)
    if bool(info.any()):
        return symmetric(torch.linalg.solve_ex(eye + P @ J, P)[0])
    C = cholesky(eye + L.mT @ J @ L, what="precision of the first state")
    half = torch.linalg.solve_triangular(C, L.mT, upper=False)
    return half.mT @ half


def posterior_chain(
    s: System, e: Elements, precision: Tensor, shift: Tensor, first: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices, offsets and noise covariances of the posterior, from the potentials after steps.

    ``first`` are the moments of the first state.
    """
    m, P = first
    precision, shift = precision[1:], shift[1:]
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    V = symmetric(torch.linalg.solve_ex(eye + e.C @ precision, e.C)[0])
    offset = e.b + apply(V, shift - apply(precision, e.b))
    A = join(torch.zeros_like(P), e.A - V @ (precision @ e.A), s.steps)
    return A, join(m, offset, s.steps), join(P, V, s.steps)


def log_evidence(
    s: System, residual: Float[Tensor, "T *L D"], S: Float[Tensor, "T *s D D"]
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
