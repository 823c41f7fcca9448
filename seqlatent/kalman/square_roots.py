"""Factors of covariances that keep the digits of small variances beside large ones."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import innovation_factor
from seqlatent.linalg import factor


def root(P: Tensor, what: str) -> Tensor:
    """A square factor of a covariance, accurate in every coordinate by itself.

    Where there is no Cholesky factor the correlations are factored, so that a small variance beside
    a large one is not taken for rounding.
    """
    L, info = torch.linalg.cholesky_ex(P)
    if not bool(info.any()) and bool(L.sum().isfinite()):
        return L
    variance = P.diagonal(dim1=-2, dim2=-1)
    if not bool(P.isfinite().all()) or bool((variance < 0).any()):
        return factor(P, what=what)  # which says what is wrong
    scale = variance.sqrt()
    unit = torch.where(scale > 0, scale, 1)
    G = factor(P / (unit.unsqueeze(-1) * unit.unsqueeze(-2)), what=what)
    return torch.where(info[..., None, None] > 0, scale.unsqueeze(-1) * G, L)


def triangular(A: Float[Tensor, "*l i j"]) -> Float[Tensor, "*l i i"]:
    """The lower triangular factor with non-negative diagonal of A A^T, without that product.

    Columns come longest first: the reflections then keep the digits of the short ones.
    """
    order = A.norm(dim=-2, keepdim=True).argsort(-1, descending=True)
    A = A.gather(-1, order.expand_as(A))
    wanting = A.shape[-2] - A.shape[-1]
    if wanting > 0:
        A = torch.nn.functional.pad(A, (0, wanting))
    L = torch.linalg.qr(A.mT, mode="r").R.mT
    sign = torch.where(L.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(L)
    return L * sign.unsqueeze(-2)


def innovation_root(
    P: Float[Tensor, "*p K K"], A: Float[Tensor, "*a D K"], C: Float[Tensor, "*c D D"]
) -> Float[Tensor, "*l D D"]:
    r"""The Cholesky factor of :math:`A P A^\top + C`.

    Several rows are factored without that sum: in a combination of them that sees no variance of
    the state, it would round away what C says.
    """
    if A.shape[-2] == 1:
        return innovation_factor(A @ P @ A.mT + C, "innovation covariance H P H^T + R")
    L: Tensor = _InnovationRoot.apply(P, A, C)  # type: ignore[assignment]
    return L


class _InnovationRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, P: Tensor, A: Tensor, C: Tensor) -> Tensor:
        G = A @ root(P, "covariance of the state")
        C = root(C, "observation covariance R")
        lead = torch.broadcast_shapes(G.shape[:-2], C.shape[:-2])
        L = triangular(torch.cat([x.expand(*lead, *x.shape[-2:]) for x in (G, C)], -1))
        require_noise(L)
        ctx.save_for_backward(P, A, C, L)
        return L

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        P, A, C, L = ctx.saved_tensors
        inner = moved(L, grads[0])
        U = torch.linalg.solve_triangular(L, A.expand(*L.shape[:-1], -1), upper=False)
        of_A = 2 * torch.linalg.solve_triangular(L.mT, inner @ U @ P, upper=True)
        half = torch.linalg.solve_triangular(L.mT, inner, upper=True)
        of_C = torch.linalg.solve_triangular(L, half, upper=False, left=False)
        found = (U.mT @ inner @ U, of_A, (of_C + of_C.mT) / 2)
        of_P, of_A, of_C = (g.sum_to_size(x.shape) for g, x in zip(found, (P, A, C), strict=True))
        return of_P, of_A, of_C


def moved(L: Tensor, of_L: Tensor) -> Tensor:
    r"""The gradient of :math:`L^{-1} S L^{-\top}` from that of the Cholesky factor L of S.

    The factor moves by :math:`L\,\mathrm{tril}(L^{-1} dS L^{-\top})`, with half the diagonal.
    """
    inner = (L.mT @ of_L).tril()
    return (inner + inner.tril(-1).mT) / 2


def require_noise(L: Float[Tensor, "*l D D"]) -> None:
    """Raises where a row of observations has no variance given those before."""
    diagonal = L.diagonal(dim1=-2, dim2=-1)
    if bool((diagonal > 0).all()):
        return
    wrong = diagonal[~(diagonal > 0)][0].item()
    raise ValueError(
        "The innovation covariance H P H^T + R was expected to have positive variances, found "
        f"a standard deviation of {wrong:.3g}. Give the observation noise R a positive variance, "
        "or mark what is known exactly as not observed."
    )
