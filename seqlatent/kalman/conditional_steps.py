"""Steps given their next observation, and the posterior as a chain of them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    apply,
    innovation_factor,
    join,
    regular,
    rest,
    symmetric,
)
from seqlatent.kalman.riccati import closed_loop
from seqlatent.linalg import cholesky


class ConditionalSteps(NamedTuple):
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


def moved_back(x: Tensor, steps: int) -> Tensor:
    """Moves what is said of the past at the steps from the second on to the steps before."""
    return torch.cat([x.expand(steps - 1, *x.shape[1:]), x.new_zeros(1, *x.shape[1:])])


def conditional_steps(s: AlignedSystem) -> ConditionalSteps:
    """The steps from the second on: a Kalman update of the noise of each.

    Nothing is divided by R, which may be singular. The prior, whose variance may be large,
    has no part in it.
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
    return ConditionalSteps(
        closed_loop(F, gain, HF), b + apply(gain, residual), C, eta, whitened.mT @ whitened
    )


def first_distribution(s: AlignedSystem, eta: Tensor, J: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of z_1 given y_1 and the potential ``(J, eta)`` of what follows.

    What y_1 says is a part of the potential, where it can be divided by R. Where it cannot, the
    potential comes first: a large prior variance that it determines is gone before the update
    subtracts anything from it.
    """
    eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device)
    exact = not regular(s.R[:1])
    if not exact:
        L = cholesky(s.R[:1], what="covariance R of the observation noise")
        white = torch.linalg.solve_triangular(L, s.H[:1], upper=False)
        loadings = torch.linalg.solve_triangular(L.mT, white, upper=True)
        J, eta = J + white.mT @ white, eta + apply(loadings.mT, s.y[:1] - s.d[:1])
    P = updated_covariance(s.P0, J, eye)
    m = s.m0 + apply(P, eta - apply(J, s.m0))
    if not exact:
        return m, P
    H, R, residual = s.H[:1], s.R[:1], s.y[:1] - s.d[:1] - apply(s.H[:1], m)
    PH = P @ H.mT
    L = innovation_factor(H @ PH + R, "innovation covariance H P H^T + R")
    gain = torch.cholesky_solve(PH.mT, L).mT
    keep = eye - gain @ H
    return m + apply(gain, residual), symmetric(keep @ P @ keep.mT + gain @ R @ gain.mT)


def updated_covariance(P: Tensor, J: Tensor, eye: Tensor) -> Tensor:
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
    s: AlignedSystem,
    e: ConditionalSteps,
    precision: Tensor,
    shift: Tensor,
    first: tuple[Tensor, Tensor],
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
