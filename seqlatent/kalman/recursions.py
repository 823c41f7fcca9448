"""The three recursions of matrices: a loop over time each, of few operations per step.

Their arguments are stacks ``(T, N, i, j)``: time, then all leading axes along which any matrix
differs as one. Vectors have no loop here: their paths are affine recurrences.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def stack(x: Tensor, lead: Sequence[int]) -> Float[Tensor, "_ N i j"]:
    """Brings ``(*lead, T, i, j)`` into the layout of this file; a constant keeps one step."""
    x = x.movedim(-3, 0)
    x = x.expand(len(x), *lead, *x.shape[-2:]).reshape(len(x), -1, *x.shape[-2:])
    return x.contiguous() if len(x) == 1 else x


def unstack(x: Float[Tensor, "T N i j"], lead: Sequence[int]) -> Tensor:
    """Brings a stack back to ``(*lead, T, i, j)``."""
    return x.reshape(len(x), *lead, *x.shape[-2:]).movedim(0, -3)


def covariances(
    F: Float[Tensor, "_ N K K"],
    Q: Float[Tensor, "_ N K K"],
    P0: Float[Tensor, "1 N K K"],
    H: Float[Tensor, "_ N D K"],
    R: Float[Tensor, "_ N D D"],
    informed: list[bool],
) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "T N K K"], Float[Tensor, "T N K D"]]:
    """Predicted and filtered covariances and gains of a Kalman filter; steps not ``informed`` only predict.

    The update is Joseph's form in two stages, (P - k S k^T) - (its rounding error), each of the
    cost of an outer product. The prediction is made exactly symmetric: without that its error grows.
    """
    steps = len(informed)
    F_steps, transposed, Q_steps = _steps(F, steps), _steps(F.mT / 2, steps), _steps(Q / 2, steps)
    H_steps, loadings, R_steps = _steps(H, steps), _steps(H.mT, steps), _steps(R, steps)
    P, scalar = P0[0], H.shape[-2] == 1
    predicted, filtered, gains = [], [], []
    nothing = P.new_zeros(*P.shape[:-1], H.shape[-2])
    for t in range(steps):
        if t > 0:
            P = torch.baddbmm(Q_steps[t], F_steps[t] @ P, transposed[t])
            P = P + P.mT
        predicted.append(P)
        gain = nothing
        if informed[t]:
            h, R = loadings[t], R_steps[t]
            Ph = torch.bmm(P, h)
            S = torch.baddbmm(R, H_steps[t], Ph)
            gain = Ph / S if scalar else _right_solve(Ph, S)
            P = torch.baddbmm(P, gain, Ph.mT, alpha=-1)
            error = torch.baddbmm(gain * R if scalar else gain @ R, P, h, beta=-1)
            P = torch.baddbmm(P, error, gain.mT, alpha=-1)
        filtered.append(P)
        gains.append(gain)
    P = torch.stack(filtered)
    return torch.stack(predicted), (P + P.mT) / 2, torch.stack(gains)


def information(
    F: Float[Tensor, "_ N K K"], Q: Float[Tensor, "_ N K K"], J: Float[Tensor, "T N K K"]
) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "_ N K K"]]:
    r"""Precision of all that follows from each step on, and the posterior's transition matrices.

    .. math:: \Lambda_t = J_t + A_{t+1}^\top \Lambda_{t+1} F_{t+1}, \\quad A_t = (I + Q_t \Lambda_t)^{-1} F_t

    ``F`` and ``Q`` describe the T - 1 steps from the second on, and so do the A.
    """
    steps = len(J)
    F_steps, halves, Q_steps = _steps(F, steps - 1), _steps(F / 2, steps - 1), _steps(Q, steps - 1)
    J_steps = (J / 2).unbind()
    eye = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device).expand(J.shape[1:])
    precision = J[-1]
    precisions, transitions = [precision], []
    for t in range(steps - 2, -1, -1):
        A = torch.linalg.solve_ex(torch.baddbmm(eye, Q_steps[t], precision), F_steps[t])[0]
        half = torch.baddbmm(J_steps[t], torch.bmm(A.mT, precision), halves[t])
        precision = half + half.mT
        transitions.append(A)
        precisions.append(precision)
    if not transitions:
        return J, J[:0]
    return torch.stack(precisions[::-1]), torch.stack(transitions[::-1])


def propagation(
    A: Float[Tensor, "_ N K K"], V: Float[Tensor, "_ N K K"], P: Float[Tensor, "N K K"], steps: int
) -> Float[Tensor, "T N K K"]:
    """Covariances of an affine chain from that of its first state, P_t = A_t P_{t-1} A_t^T + V_t."""
    A_steps, transposed, V_steps = (_steps(x, steps - 1) for x in (A, A.mT, V))
    path = [P]
    for t in range(steps - 1):
        P = torch.baddbmm(V_steps[t], A_steps[t] @ P, transposed[t])
        path.append(P)
    P = torch.stack(path)
    return (P + P.mT) / 2


def _steps(x: Tensor, steps: int) -> tuple[Tensor, ...]:
    return x.unbind() if len(x) == steps else (x[0],) * steps


def _right_solve(B: Float[Tensor, "N K D"], S: Float[Tensor, "N D D"]) -> Float[Tensor, "N K D"]:
    return torch.cholesky_solve(B.mT, torch.linalg.cholesky_ex(S)[0]).mT
