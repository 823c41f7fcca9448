"""Smoothed covariances by factors, of what the past says of a state and what follows does."""

import torch
from torch import Tensor

from seqlatent.kalman.aligned import AlignedSystem, informed_steps, join, matrix_lead, rest
from seqlatent.kalman.moments.covariance_factors import forward_factors
from seqlatent.kalman.riccati import closed_loop, stack, unstack
from seqlatent.kalman.square_roots import root, triangular


@torch.no_grad()
def smoothed_covariances(s: AlignedSystem) -> tuple[Tensor, Tensor]:
    r"""Covariances of states, and of neighbours, given everything, without derivatives.

    A filtered state is a factor :math:`G_{t-1}` of standard normals u. Given the next observation,
    which says :math:`W_t z_{t-1} \sim N(\cdot, I)`, its successor is
    :math:`A_t z_{t-1} + C_t^{1/2} w`, of which what follows says :math:`B_t z_t \sim N(\cdot, I)`:

    .. math::
        Z = \begin{bmatrix} G_{t-1} & 0 \\ A_t G_{t-1} & C_t^{1/2} \end{bmatrix}, \quad
        V = \begin{bmatrix} W_t & 0 \\ 0 & B_t \end{bmatrix} Z, \quad
        \operatorname{Cov}(z_{t-1}, z_t) = Z (I + V^\top V)^{-1} Z^\top

    Nothing is subtracted, and nothing is divided by that is less than the noise of an observation
    given the state before, :math:`H Q H^\top + R`.
    """
    lead, size, steps = matrix_lead(s.F, s.Q, s.P0, s.H, s.R), s.F.shape[-1], s.steps
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    G = forward_factors(F, Q, P0, H, R, informed_steps(s))[1]
    next_ = _given_next(*(rest(x, steps) for x in (F, Q, H, R)))
    A, W, C = (x.expand(steps - 1, *x.shape[1:]) for x in next_)
    G, last = G[:-1], G[-1:] @ G[-1:].mT
    B = _said_later(A, W, C)
    moved = A @ G
    Z = torch.cat(
        [torch.cat([G, torch.zeros_like(C)], -1), torch.cat([moved, C.expand_as(moved)], -1)], -2
    )
    V = torch.cat([torch.nn.functional.pad(W @ G, (0, size)), B @ Z[..., size:, :]], -2)
    units = torch.eye(2 * size, dtype=G.dtype, device=G.device).expand(*V.shape[:2], -1, -1)
    L = triangular(torch.cat([V.mT, units], -1))
    before, after = torch.linalg.solve_triangular(L, Z.mT, upper=False).mT.split(size, -2)
    cov = unstack(torch.cat([before @ before.mT, last]), lead)
    return cov, join(torch.zeros_like(cov[:1]), unstack(after @ before.mT, lead), steps)


def _given_next(F: Tensor, Q: Tensor, H: Tensor, R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Transition, what the next observation says, and factor of the noise given it."""
    rows, Q, R = H.shape[-2], root(Q, "transition covariance Q"), root(R, "covariance R")
    number = max(len(Q), len(H), len(R))
    both = torch.cat([(H @ Q).expand(number, -1, -1, -1), Q.expand(number, -1, -1, -1)], -2)
    noise = torch.nn.functional.pad(R.expand(number, -1, -1, -1), (0, 0, 0, Q.shape[-1]))
    joint = triangular(torch.cat([both, noise], -1))
    L, C = joint[..., :rows, :rows], joint[..., rows:, rows:]
    gain = torch.linalg.solve_triangular(L, joint[..., rows:, :rows], upper=False, left=False)
    HF = H @ F
    return closed_loop(F, gain, HF), torch.linalg.solve_triangular(L, HF, upper=False), C


def _said_later(A: Tensor, W: Tensor, C: Tensor) -> Tensor:
    """A factor B of what all that follows says of each state from the second on, as rows."""
    size = A.shape[-1]
    B = torch.zeros_like(A)
    eye = torch.eye(size, dtype=A.dtype, device=A.device).expand(A.shape[1:])
    for t in range(len(A) - 1, 0, -1):
        noise = torch.cat([(B[t] @ C[t]).mT, eye], -1)
        state = torch.cat([(B[t] @ A[t]).mT, torch.zeros_like(eye)], -1)
        ahead = triangular(torch.cat([noise, state], -2))[:, size:, size:]
        B[t - 1] = triangular(torch.cat([ahead, W[t].mT], -1)).mT
    return B
