"""The three recursions of matrices, each hidden from autograd with a hand-written backward.

Their arguments are stacks ``(T, N, i, j)``: time, then all leading axes along which any matrix
differs as one; what is constant in time has one step. Vectors have no loop here: their paths are
affine recurrences.

The gradient of each recursion is a congruence that runs the other way, and the congruence is its
own: all three differentiate any number of times, and autograd never records a loop.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.linalg import cholesky


def stack(x: Tensor, lead: Sequence[int]) -> Float[Tensor, "_ N i j"]:
    """Writes out the leading axes of ``(T, *, i, j)`` and makes them one."""
    return x.expand(len(x), *lead, *x.shape[-2:]).reshape(len(x), prod(lead), *x.shape[-2:])


def unstack(x: Float[Tensor, "T N i j"], lead: Sequence[int]) -> Tensor:
    """Brings a stack back to ``(T, *lead, i, j)``."""
    return x.reshape(len(x), *lead, *x.shape[-2:])


def congruence(
    A: Float[Tensor, "_ N K K"], V: Float[Tensor, "T N K K"], *, reverse: bool = False
) -> Float[Tensor, "T N K K"]:
    r"""The covariances of an affine chain, from the symmetric ones of its noise.

    .. math:: P_1 = V_1, \quad P_{t+1} = A_t P_t A_t^\top + V_{t+1}

    ``A`` describes the T - 1 steps between. With ``reverse`` the chain starts at the last step,
    :math:`P_t = A_t P_{t+1} A_t^\top + V_t`.
    """
    P: Tensor = _Congruence.apply(A, V, reverse)  # type: ignore[assignment]
    return P


def covariances(
    F: Float[Tensor, "_ N K K"],
    Q: Float[Tensor, "_ N K K"],
    P0: Float[Tensor, "1 N K K"],
    H: Float[Tensor, "_ N D K"],
    R: Float[Tensor, "_ N D D"],
    informed: list[bool],
) -> tuple[
    Float[Tensor, "T N K K"],
    Float[Tensor, "T N K K"],
    Float[Tensor, "T N K D"],
    Float[Tensor, "T N D D"],
]:
    r"""Predicted and filtered covariances, gains and innovation covariances of a Kalman filter.

    .. math::
        P^-_t &= F_t P_{t-1} F_t^\top + Q_t, \quad
        S_t = H_t P^-_t H_t^\top + R_t, \quad k_t = P^-_t H_t^\top S_t^{-1} \\
        P_t &= (I - k_t H_t) P^-_t (I - k_t H_t)^\top + k_t R_t k_t^\top

    Steps that are not ``informed`` have no observation at all and only predict.
    """
    return _Covariances.apply(F, Q, P0, H, R, informed)  # type: ignore[return-value]


def information(
    F: Float[Tensor, "_ N K K"], Q: Float[Tensor, "_ N K K"], J: Float[Tensor, "T N K K"]
) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "_ N K K"]]:
    r"""Precision of all that follows from each step on, and the posterior's transition matrices.

    .. math::
        A_t = (I + Q_t \Lambda_{t+1})^{-1} F_t, \quad
        \Lambda_T = J_T, \quad \Lambda_t = J_t + A_t^\top \Lambda_{t+1} F_t

    ``F``, ``Q`` and A describe the T - 1 steps between.
    """
    precision, A = _Information.apply(F, Q, J)  # type: ignore[misc]
    return precision, A


class _Congruence(torch.autograd.Function):
    @staticmethod
    def forward(
        A: Float[Tensor, "_ N K K"], V: Float[Tensor, "T N K K"], reverse: bool
    ) -> Float[Tensor, "T N K K"]:
        P = torch.empty(V.shape, dtype=V.dtype, device=V.device)
        path, V_steps, steps = P.unbind(), V.unbind(), len(V)
        A_steps, transposed = _steps(A, steps - 1), _steps(A.mT, steps - 1)
        half = torch.empty_like(path[0])
        path[-reverse].copy_(V_steps[-reverse])
        for t in range(steps - 2, -1, -1) if reverse else range(steps - 1):
            old, new = (t + 1, t) if reverse else (t, t + 1)
            torch.bmm(A_steps[t], path[old], out=half)
            torch.baddbmm(V_steps[new], half, transposed[t], out=path[new])
        return P

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, _, ctx.reverse = inputs
        ctx.save_for_backward(A, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        A, P = ctx.saved_tensors
        G = congruence(A.mT, _symmetric(grads[0]), reverse=not ctx.reverse)
        grad_A = None
        if ctx.needs_input_grad[0]:
            new, old = (G[:-1], P[1:]) if ctx.reverse else (G[1:], P[:-1])
            grad_A = _total(2 * new @ A @ old, A)
        return grad_A, G, None


class _Covariances(torch.autograd.Function):
    """The update is Joseph's in two stages of the cost of an outer product each.

    The second, zero but for rounding, undoes what the subtraction of the first one cost.
    """

    @staticmethod
    def forward(
        F: Float[Tensor, "_ N K K"],
        Q: Float[Tensor, "_ N K K"],
        P0: Float[Tensor, "1 N K K"],
        H: Float[Tensor, "_ N D K"],
        R: Float[Tensor, "_ N D D"],
        informed: list[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        steps, (n, size), rows = len(informed), P0.shape[1:3], H.shape[-2]
        predicted, filtered = (P0.new_empty(steps, n, size, size) for _ in range(2))
        gain, S = P0.new_zeros(steps, n, size, rows), P0.new_empty(steps, n, rows, rows)
        prior, posterior, gains, S_steps = (x.unbind() for x in (predicted, filtered, gain, S))
        F_steps, F_half, Q_half = (_steps(x, steps) for x in (F, F.mT / 2, Q / 2))
        H_steps, H_columns, R_steps = (_steps(x, steps) for x in (H, H.mT, R))
        work, half, column = (torch.empty_like(x) for x in (P0[0], P0[0], gains[0]))
        prior[0].copy_(P0[0])
        for t in range(steps):
            P, k, h = prior[t], gains[t], H_columns[t]
            if t > 0:
                torch.bmm(F_steps[t], posterior[t - 1], out=work)
                torch.baddbmm(Q_half[t], work, F_half[t], out=half)
                torch.add(half, half.mT, out=P)
            if not informed[t]:
                posterior[t].copy_(P)
                S_steps[t].copy_(R_steps[t])
                continue
            torch.bmm(P, h, out=column)
            torch.baddbmm(R_steps[t], H_steps[t], column, out=S_steps[t])
            if rows == 1:
                torch.div(column, S_steps[t], out=k)
                noise = k * R_steps[t]
            else:
                k.copy_(_right_solve(column, S_steps[t]))
                noise = torch.bmm(k, R_steps[t])
            torch.baddbmm(P, k, column.mT, alpha=-1, out=work)
            torch.baddbmm(noise, work, h, beta=-1, out=column)
            torch.baddbmm(work, column, k.mT, beta=0.5, alpha=-0.5, out=half)
            torch.add(half, half.mT, out=posterior[t])
        return predicted, filtered, gain, S

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        F, Q, _, H, R, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.constant = [len(x) == 1 for x in (F, Q, H, R)]
        ctx.save_for_backward(F, H, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        F, H, *outputs = ctx.saved_tensors
        F, Q, P0, H, R = _covariances_adjoint(F, H, outputs, grads)
        one_F, one_Q, one_H, one_R = ctx.constant
        # F and Q of the first step are not used.
        F = F.sum(0, keepdim=True) if one_F else torch.cat([torch.zeros_like(P0), F])
        Q = Q.sum(0, keepdim=True) if one_Q else torch.cat([torch.zeros_like(P0), Q])
        H = H.sum(0, keepdim=True) if one_H else H
        R = R.sum(0, keepdim=True) if one_R else R
        return F, Q, P0, H, R, None


def _covariances_adjoint(
    F: Tensor,
    H: Tensor,
    outputs: list[Tensor],
    grads: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Gradients of F, Q, P0, H, R, each per step, from those of what :func:`covariances` returns.

    An optimal gain does not change its own covariance to first order, so with C = I - k H

    .. math::
        dP &= C\, dP^- C^\top - k\, dH\, P - P\, dH^\top k^\top + k\, dR\, k^\top \\
        dk &= (C\, dP^- H^\top + P\, dH^\top - k\, dR) S^{-1} - k\, dH\, k \\
        dS &= H\, dP^- H^\top + dH\, P^- H^\top + H P^- dH^\top + dR
    """
    P, k, S = outputs
    of_predicted, of_P, of_k, of_S = grads
    # Gradients by what happens at each step: of P^-, H and R.
    of_S = torch.zeros_like(S) if of_S is None else _symmetric(of_S)
    of_k = torch.zeros_like(k) if of_k is None else of_k
    Z = _right_solve(of_k, S)
    kZ = k.mT @ Z
    total = _symmetric((Z + H.mT @ (of_S - kZ)) @ H)
    of_H = Z.mT @ P - k.mT @ of_k @ k.mT + 2 * of_S @ (S @ k.mT)
    step_gradients = total, of_H, of_S - _symmetric(kZ)
    return states_adjoint(F, H, P, k, step_gradients, of_predicted, of_P)


def states_adjoint(
    F: Tensor,
    H: Tensor,
    P: Tensor,
    k: Tensor,
    step_gradients: tuple[Tensor, Tensor, Tensor],
    of_predicted: Tensor | None,
    of_P: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of F, Q, P0, H, R, each per step, from those of the covariances of states.

    ``step_gradients`` are those of P^-, H and R by gains and innovations of the same step.
    """
    past, F = slice(None, len(P) - 1), F if len(F) == 1 else F[1:]
    total, of_H, of_R = step_gradients
    kG = torch.zeros_like(k.mT)
    if of_P is not None:
        of_P = _symmetric(of_P)
        kG = k.mT @ of_P
        half = of_P - kG.mT @ H
        total = total + half - H.mT @ (k.mT @ half)
    if of_predicted is not None:
        total = total + _symmetric(of_predicted)
    # From the last step to the first, through what is left of a state: F_{t+1} (I - k_t H_t).
    Fk = F @ k[past]
    G = congruence(closed_loop(F, Fk, H if len(H) == 1 else H[past]).mT, total, reverse=True)
    GF = G[1:] @ F
    kG = torch.cat([kG[past] + Fk.mT @ GF, kG[past.stop :]])
    return 2 * GF @ P[past], G[1:], G[:1], of_H - 2 * kG @ P, of_R + _symmetric(kG @ k)


def closed_loop(F: Tensor, k: Tensor, H: Tensor) -> Tensor:
    """F - k H, where H often has a single row."""
    return torch.addcmul(F, k, H, value=-1) if H.shape[-2] == 1 else F - k @ H


class _Information(torch.autograd.Function):
    @staticmethod
    def forward(
        F: Float[Tensor, "_ N K K"], Q: Float[Tensor, "_ N K K"], J: Float[Tensor, "T N K K"]
    ) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "_ N K K"]]:
        precision = torch.empty(J.shape, dtype=J.dtype, device=J.device)
        A = torch.empty_like(precision[1:])
        path, A_steps, steps = precision.unbind(), A.unbind(), len(J) - 1
        F_steps, F_half, Q_steps = (_steps(x, steps) for x in (F, F / 2, Q))
        J_half = (J / 2).unbind()
        work, half = torch.empty_like(path[0]), torch.empty_like(path[0])
        eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device).expand(J.shape[1:])
        path[-1].copy_(J[-1])
        for t in range(steps - 1, -1, -1):
            torch.baddbmm(eye, Q_steps[t], path[t + 1], out=work)
            A_steps[t].copy_(torch.linalg.solve_ex(work, F_steps[t])[0])
            torch.bmm(A_steps[t].mT, path[t + 1], out=work)
            torch.baddbmm(J_half[t], work, F_half[t], out=half)
            torch.add(half, half.mT, out=path[t])
        return precision, A

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        F, Q, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(F, Q, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        r"""Gradients of F, Q and J: with W = (I + Q Lambda)^{-1} and E = Lambda A.

        .. math::
            dA &= W (dF - dQ\, E) - W Q\, d\Lambda\, A \\
            d\Lambda_{t} &= dJ_t + A^\top d\Lambda_{t+1} A - E^\top dQ\, E + dF^\top E + E^\top dF
        """
        F, Q, precision, A = ctx.saved_tensors
        of_precision, of_A = grads
        total = torch.zeros_like(precision) if of_precision is None else _symmetric(of_precision)
        E = precision[1:] @ A
        Y = torch.zeros_like(A)
        if of_A is not None:
            eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
            Y = torch.linalg.solve(eye + precision[1:] @ Q, of_A)
            total = torch.cat([total[:1], total[1:] - _symmetric(Q @ Y @ A.mT)])
        G = congruence(A, total)
        EG = E @ G[:-1]
        return _total(2 * EG + Y, F), _total(-_symmetric((EG + Y) @ E.mT), Q), G


def _steps(x: Tensor, steps: int) -> tuple[Tensor, ...]:
    return x.unbind() if len(x) == steps else (x[0],) * steps


def _total(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of a tensor that may be constant in time."""
    return grad if len(grad) == len(like) else grad.sum(0, keepdim=True)


def _symmetric(P: Tensor) -> Tensor:
    return (P + P.mT) / 2


def _right_solve(B: Tensor, S: Tensor) -> Tensor:
    """B S^{-1} for a covariance S."""
    if S.shape[-1] == 1:
        return B / S
    return torch.cholesky_solve(B.mT, cholesky(S, what="innovation covariance H P H^T + R")).mT
