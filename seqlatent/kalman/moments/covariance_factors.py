"""Covariances of a filter by their factors: nothing is subtracted, so no digit is lost."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    informed_steps,
    matrix_lead,
    means,
    residuals,
    symmetric,
)
from seqlatent.kalman.riccati import closed_loop, stack, states_adjoint, unstack
from seqlatent.kalman.square_roots import moved, require_noise, root, triangular

_LOG_2PI = math.log(2 * math.pi)
# What is left of a variance, as a power of the precision, from which on digits are short: in a row
# given others of its step, whose slopes divide by it twice, and from one step to the next.
_WITHIN, _BETWEEN = 0.4, 0.5


def by_factors(s: AlignedSystem) -> Moments:
    """Moments of a filter, step by step, whose covariances are carried by factors."""
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    found: Any = _Factors.apply(F, Q, P0, H, R, informed_steps(s))
    closed = unstack(closed_loop(F, found[2], H @ F), lead)
    predicted_cov, cov, gain, L = (unstack(x, lead) for x in found)
    mean, predicted_mean = means(s, gain, closed)
    residual = residuals(s, predicted_mean).unsqueeze(-1)
    white = torch.linalg.solve_triangular(L, residual, upper=False).squeeze(-1)
    terms = white.square() + 2 * L.diagonal(dim1=-2, dim2=-1).log()
    evidence = -0.5 * (terms.sum(-1) + _LOG_2PI * s.observed.sum(-1).to(terms.dtype))
    return Moments(mean, cov, predicted_mean, predicted_cov, evidence)


@torch.no_grad()
def amplified(
    F: Float[Tensor, "_ N K K"],
    H: Float[Tensor, "_ N D K"],
    predicted: Float[Tensor, "T N K K"],
    S: Float[Tensor, "T N D D"],
) -> bool:
    """Whether covariances that were subtracted from each other have lost half of their digits.

    An update leaves rounding of the size of the variances that it started from. What of that the
    rows of a later step see counts relative to their own variance, given the rows before.
    """
    variance = left = S.diagonal(dim1=-2, dim2=-1)
    if not bool(((variance > 0) & variance.isfinite()).all()):
        return False
    if S.shape[-1] > 1:
        L, failed = torch.linalg.cholesky_ex(S)
        left = L.diagonal(dim1=-2, dim2=-1).square().masked_fill(failed[..., None] > 0, 0.0)
    eps = torch.finfo(S.dtype).eps
    if not bool((left > eps**_WITHIN * variance).all()):
        return True
    if len(S) == 1:
        return False
    size = predicted[:-1].diagonal(dim1=-2, dim2=-1).cummax(0)[0]
    HF = (H @ F).square()
    rounding = ((HF if len(HF) == 1 else HF[1:]) @ size.unsqueeze(-1)).squeeze(-1)
    return not bool((left[1:] >= eps**_BETWEEN * rounding).all())


class _Factors(torch.autograd.Function):
    """Covariances, gains and factors of the innovations' covariances, as ``covariances`` has them.

    The loop sees factors only; the adjoint is that of the covariances, which any factors have.
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
        prior, posterior, gain, L = forward_factors(F, Q, P0, H, R, informed)
        return prior @ prior.mT, posterior @ posterior.mT, gain, L

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        F, Q, _, H, R, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.constant = [len(x) == 1 for x in (F, Q, H, R)]
        ctx.save_for_backward(F, H, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        F, H, P, gain, L = ctx.saved_tensors
        of_predicted, of_P, of_k, of_L = grads
        said = _updates_adjoint(H, P, gain, L, of_k, of_L)
        F, Q, P0, H, R = states_adjoint(F, H, P, gain, said, of_predicted, of_P)
        one_F, one_Q, one_H, one_R = ctx.constant
        F = F.sum(0, keepdim=True) if one_F else torch.cat([torch.zeros_like(P0), F])
        Q = Q.sum(0, keepdim=True) if one_Q else torch.cat([torch.zeros_like(P0), Q])
        H = H.sum(0, keepdim=True) if one_H else H
        R = R.sum(0, keepdim=True) if one_R else R
        return F, Q, P0, H, R, None


def forward_factors(
    F: Float[Tensor, "_ N K K"],
    Q: Float[Tensor, "_ N K K"],
    P0: Float[Tensor, "1 N K K"],
    H: Float[Tensor, "_ N D K"],
    R: Float[Tensor, "_ N D D"],
    informed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factors of predicted and filtered covariances, gains, and factors of the innovations'."""
    steps, (n, size), rows = len(informed), P0.shape[1:3], H.shape[-2]
    prior, posterior = (P0.new_empty(steps, n, size, size) for _ in range(2))
    gain, L = P0.new_zeros(steps, n, size, rows), P0.new_empty(steps, n, rows, rows)
    Q = root(Q, "transition covariance Q")
    R = root(R, "observation covariance R")
    G = root(P0, "initial covariance P0")[0]
    for t in range(steps):
        at = [x[t if len(x) > 1 else 0] for x in (F, Q, H, R)]
        if t > 0:
            G = triangular(torch.cat([at[0] @ G, at[1]], -1))
        prior[t] = G
        if not informed[t]:
            posterior[t], L[t] = G, triangular(at[3])
            continue
        wide = torch.cat([at[3], at[3].new_zeros(n, size, rows)], -2)
        joint = triangular(torch.cat([torch.cat([at[2] @ G, G], -2), wide], -1))
        L[t], G = joint[:, :rows, :rows], joint[:, rows:, rows:]
        require_noise(L[t])
        gain[t] = torch.linalg.solve_triangular(
            L[t], joint[:, rows:, :rows], upper=False, left=False
        )
        posterior[t] = G
    return prior, posterior, gain, L


def _updates_adjoint(
    H: Tensor,
    P: Tensor,
    k: Tensor,
    L: Tensor,
    of_k: Tensor | None,
    of_L: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Gradients of P^-, H and R, each per step, from those of gains and innovations.

    With :math:`U = L^{-1} H`, not from what is divided by S: a combination of rows that the state
    has no part in has a large part of that, which H then has to take out again.
    """
    of_k = torch.zeros_like(k) if of_k is None else of_k
    inner = torch.zeros_like(L) if of_L is None else moved(L, of_L)
    U = torch.linalg.solve_triangular(L, H.expand(*L.shape[:-1], -1), upper=False)
    X = torch.linalg.solve_triangular(L.mT, of_k, upper=True, left=False)
    XU = X @ U
    total = symmetric(XU - H.mT @ (k.mT @ XU) + U.mT @ (inner @ U))
    back = X.mT @ P + 2 * inner @ (k @ L).mT
    of_H = torch.linalg.solve_triangular(L.mT, back, upper=True) - k.mT @ of_k @ k.mT
    half = torch.linalg.solve_triangular(L.mT, inner - (k @ L).mT @ X, upper=True)
    of_R = symmetric(torch.linalg.solve_triangular(L, half, upper=False, left=False))
    return total, of_H, of_R
