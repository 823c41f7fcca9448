"""The three recursions of matrices, each hidden from autograd with a hand-written backward.

Their arguments are stacks ``(T, N, i, j)``: time, then all leading axes along which any matrix
differs as one; what is constant in time has one step. Vectors have no loop here: their paths are
affine recurrences.

The gradient of each recursion is a congruence that runs the other way, and the congruence is its
own: all three differentiate any number of times, and autograd never records a loop.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def stack(x: Tensor, lead: Sequence[int]) -> Float[Tensor, "_ N i j"]:
    """Brings ``(*lead, T, i, j)`` into the layout of this file."""
    x = x.movedim(-3, 0)
    x = x.expand(len(x), *lead, *x.shape[-2:]).reshape(len(x), -1, *x.shape[-2:])
    return x.contiguous() if len(x) == 1 else x


def unstack(x: Float[Tensor, "T N i j"], lead: Sequence[int]) -> Tensor:
    """Brings a stack back to ``(*lead, T, i, j)``."""
    return x.reshape(len(x), *lead, *x.shape[-2:]).movedim(0, -3)


def congruence(
    A: Float[Tensor, "_ N K K"], V: Float[Tensor, "T N K K"], *, reverse: bool = False
) -> Float[Tensor, "T N K K"]:
    r"""The covariances of an affine chain.

    .. math:: P_t = A_t P_{t-1} A_t^\top + V_t, \qquad P_0 = 0

    With ``reverse``, :math:`P_t = A_t P_{t+1} A_t^\top + V_t`.
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
) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "T N K K"], Float[Tensor, "T N K D"]]:
    r"""Predicted and filtered covariances and gains of a Kalman filter.

    .. math::
        P^-_t &= F_t P_{t-1} F_t^\top + Q_t, \quad k_t = P^-_t H_t^\top (H_t P^-_t H_t^\top + R_t)^{-1} \\
        P_t &= (I - k_t H_t) P^-_t (I - k_t H_t)^\top + k_t R_t k_t^\top

    Steps that are not ``informed`` have no observation at all and only predict.
    """
    predicted, filtered, gain = _Covariances.apply(F, Q, P0, H, R, informed)  # type: ignore[misc]
    return predicted, filtered, gain


def information(
    F: Float[Tensor, "_ N K K"], Q: Float[Tensor, "_ N K K"], J: Float[Tensor, "T N K K"]
) -> tuple[Float[Tensor, "T N K K"], Float[Tensor, "T N K K"]]:
    r"""Precision of all that follows from each step on, and the posterior's transition matrices.

    .. math:: A_t = (I + Q_t \Lambda_t)^{-1} F_t, \quad \Lambda_{t-1} = J_{t-1} + A_t^\top \Lambda_t F_t

    The first A and what it is made of are not used, and zero.
    """
    precision, A = _Information.apply(F, Q, J)  # type: ignore[misc]
    return precision, A


class _Congruence(torch.autograd.Function):
    @staticmethod
    def forward(
        A: Float[Tensor, "_ N K K"], V: Float[Tensor, "T N K K"], reverse: bool
    ) -> Float[Tensor, "T N K K"]:
        P = torch.empty(V.shape, dtype=V.dtype, device=V.device)
        path, steps = P.unbind(), len(V)
        A_steps, transposed, V_steps = _steps(A, steps), _steps(A.mT, steps), V.unbind()
        order = range(steps - 1, -1, -1) if reverse else range(steps)
        half = torch.empty_like(path[0])
        for before, t in zip((None, *order[:-1]), order, strict=True):
            if before is None:
                path[t].copy_(V_steps[t])
            else:
                torch.bmm(A_steps[t], path[before], out=half)
                torch.baddbmm(V_steps[t], half, transposed[t], out=path[t])
        return P

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, _, ctx.reverse = inputs
        ctx.save_for_backward(A, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        A, P = ctx.saved_tensors
        later = A if len(A) == 1 else A.roll(1 if ctx.reverse else -1, 0)
        G = congruence(later.mT, grads[0], reverse=not ctx.reverse)
        grad_A = None
        if ctx.needs_input_grad[0]:
            before = _shift(P, 1 if not ctx.reverse else -1)
            grad_A = _summed(G @ A @ before.mT + G.mT @ A @ before, A)
        return grad_A, G if ctx.needs_input_grad[1] else None, None
