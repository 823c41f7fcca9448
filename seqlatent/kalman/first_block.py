"""The first block of steps of a filter: it meets the prior, which may be vast or flat."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.lifted import Lifted


class Began(NamedTuple):
    """The law of the state after the first block, and what the block was worth."""

    mean: Float[Tensor, "*L C K"]
    cov: Float[Tensor, "*P K K"]
    log_evidence: Float[Tensor, "*L C"]


def begin(
    block: Lifted,
    m0: Float[Tensor, "*m C K"],
    P0: Float[Tensor, "*p K K"],
    y: Float[Tensor, "*y C M"],
    seen: Float[Tensor, "*w M"] | None,
    flat: Bool[Tensor, " K"] | None,
) -> Began:
    r"""The first block, given as many of its rows as there are.

    With observations in units of their noise, :math:`U = L^{-1} O`, and the posterior covariance
    :math:`W = (P_0^{-1} + U^\top U)^{-1}`,

    .. math::
        \hat z_1 &= m_0 + W U^\top (L^{-1} y - U m_0), \quad e = L^{-1} y - U \hat z_1 \\
        -2 \log p(y) &= \|e\|^2 + (\hat z_1 - m_0)^\top U^\top e + \log|I + P_0 U^\top U|
            + 2 \log|L| + M \log 2\pi

    All terms are of the size of the noise, whatever the size of the prior. A flat coordinate has
    precision 0, and its determinant is that of W alone.

    Args:
        block: The block.
        m0: Mean of the first state.
        P0: Its covariance; rows and columns of flat coordinates are not read.
        y: Rows of the observations, 0 where nothing was seen.
        seen: 1 for rows that count, 0 for others; all by default.
        flat: Coordinates of the first state of which nothing is known.
    """
    rows, transition, yy, yz, zz = block
    count = y.shape[-1]
    rows, yy, yz = rows[..., :count, :], yy[..., :count, :count], yz[..., :count, :]
    number: Tensor | int = count
    if seen is not None:
        yy = masked(yy, seen)
        rows, yz, y = rows * seen[..., None], yz * seen[..., None], y * seen[..., None, :]
        number = seen.sum(-1)[..., None]
    L = torch.linalg.cholesky(yy)
    U = torch.linalg.solve_triangular(L, rows, upper=False)
    back = torch.linalg.solve_triangular(L, yz, upper=False)
    white = torch.linalg.solve_triangular(L.mT, y, upper=True, left=False)
    W, log_det, shift = posterior(P0, U.mT @ U, (white - m0 @ U.mT) @ U, flat)
    mean = m0 + shift
    residual = white - mean @ U.mT
    square = residual.square().sum(-1) + (shift * (residual @ U)).sum(-1)
    log_det = log_det + 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_evidence = -0.5 * (square + log_det[..., None] + math.log(2 * math.pi) * number)
    closed = transition - back.mT @ U
    cov = closed @ W @ closed.mT + (zz - back.mT @ back)
    return Began(mean @ transition.mT + residual @ back, (cov + cov.mT) / 2, log_evidence)


def determines(
    block: Lifted, seen: Float[Tensor, "*w M"] | None, flat: Bool[Tensor, " K"], count: int
) -> bool:
    """Whether so many rows determine all flat coordinates of the first state."""
    rows, yy = block.rows[..., :count, flat], block.yy[..., :count, :count]
    if seen is not None:
        rows, yy = rows * seen[..., None], masked(yy, seen)
    with torch.no_grad():
        L = torch.linalg.cholesky(yy)
        U = torch.linalg.solve_triangular(L, rows, upper=False)
        return not bool(_loose(U.mT @ U).any())


def _loose(J: Float[Tensor, "*j K K"]) -> Bool[Tensor, "..."]:
    """Whether a precision has a direction without any, but for rounding."""
    scale = J.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    unit = J / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    L, info = torch.linalg.cholesky_ex(unit)
    least = L.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    return (info > 0) | ~(least > 1e5 * torch.finfo(J.dtype).eps)


def posterior(
    P: Float[Tensor, "*p K K"],
    J: Float[Tensor, "*j K K"],
    b: Float[Tensor, "*b C K"],
    flat: Bool[Tensor, " K"] | None,
) -> tuple[Float[Tensor, "... K K"], Float[Tensor, "..."], Float[Tensor, "... C K"]]:
    r"""The covariance :math:`W = (P^{-1} + J)^{-1}`, :math:`\log |P| - \log |W|`, and rows b W.

    Accurate in every direction by itself, under variances of any size and of none. Flat coordinates
    have precision 0; what neither prior nor ``J`` determines gets a variance of :math:`10^{12}`
    relative to the best known and is left out of the determinant. The rows are solved for: where
    few observations with little noise leave directions open, W in the others is mere rounding.
    """
    return _Posterior.apply(P, J, b, flat)[:3]  # type: ignore[index, return-value]


class _Posterior(torch.autograd.Function):
    @staticmethod
    def forward(P: Tensor, J: Tensor, b: Tensor, flat: Tensor | None) -> tuple[Tensor, ...]:
        size = P.shape[-1]
        eye = torch.eye(size, dtype=P.dtype, device=P.device)
        precision = torch.ones_like(P[..., 0])
        if flat is not None:
            P = P.masked_fill(flat | flat[:, None], 0.0)
            precision = precision.masked_fill(flat, 0.0)
        # a flat coordinate has a column of the factor to itself
        G = _factor(P) if flat is None else _factor(P + flat.diag().to(P.dtype))
        if flat is not None:
            G = torch.where(flat | flat[:, None], eye, G)
        M = G.mT @ J @ G + torch.diag_embed(precision)
        missing = torch.zeros_like(M[..., 0, 0])
        if flat is not None and bool(_loose(J[..., flat, :][..., flat]).any()):
            # by the observations alone: what is known weakly, for a vast prior of others, is known
            extra, missing = _undetermined(J[..., flat, :][..., flat])
            M = M + eye[:, flat] @ extra @ eye[flat]
        L = torch.linalg.cholesky(M)
        V = torch.linalg.solve_triangular(L, G.mT, upper=False)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - missing
        return V.mT @ V, log_det, _solved(G, L, b), G, L

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        P, J, b, ctx.flat = inputs
        W, _, shift, G, L = output
        ctx.like = P
        ctx.mark_non_differentiable(G, L)
        ctx.save_for_backward(J, b, W, shift, G, L)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        r"""With C = I - J W: dP = C dW C^T + d J W-free part; see the formulas.

        .. math::
            \bar P = (I - J W)\, \bar W\, (I - W J) + \bar\ell\, (J - J W J), \quad
            \bar J = -W \bar W W + \bar\ell\, W

        Rows b W give :math:`\bar W` the products of b with their gradients; these meet W by the
        same solution.
        """
        J, b, W, shift, G, L = ctx.saved_tensors
        of_W, of_log_det, of_shift = grads[:3]
        of_W = (of_W + of_W.mT) / 2
        scale = of_log_det[..., None, None]
        JW = J @ W
        keep = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) - JW
        of_b = _solved(G, L, of_shift)
        cross, outer = shift.mT @ of_b, (b - shift @ J).mT @ (of_shift - of_b @ J)
        # rows have batch axes that W need not have: each term is summed by itself
        of_P = _totals(ctx.like, keep @ of_W @ keep.mT + scale * (keep @ J), outer)
        of_J = _totals(J, scale * W - W @ of_W @ W, -cross)
        if ctx.flat is not None:
            of_P = of_P.masked_fill(ctx.flat | ctx.flat[:, None], 0.0)
        return of_P, of_J, of_b.sum_to_size(b.shape), None


def _totals(like: Tensor, *terms: Tensor) -> Tensor:
    """The symmetric part of a sum of gradients, each summed over axes that ``like`` lacks."""
    total = torch.stack([term.sum_to_size(like.shape) for term in terms]).sum(0)
    return (total + total.mT) / 2


def _solved(G: Tensor, L: Tensor, b: Tensor) -> Tensor:
    """Rows times the posterior covariance, whose precision in units of the prior is L L^T."""
    half = torch.linalg.solve_triangular(L, (b @ G).mT, upper=False)
    return torch.linalg.solve_triangular(L.mT, half, upper=True).mT @ G.mT


def _factor(P: Tensor) -> Tensor:
    """A factor of a covariance; of a singular one too, which then is its symmetric root."""
    diagonal = P.diagonal(dim1=-2, dim2=-1)
    if bool((torch.diag_embed(diagonal) == P).all()):
        return torch.diag_embed(diagonal.sqrt())
    L, info = torch.linalg.cholesky_ex(P)
    if not bool(info.any()):
        return L
    values, vectors = torch.linalg.eigh(P)
    return (vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)) @ vectors.mT


def _undetermined(M: Tensor) -> tuple[Tensor, Tensor]:
    """What to add in directions without any precision, and the logarithm of its determinant."""
    scale = M.diagonal(dim1=-2, dim2=-1).amax(-1)
    scale = torch.where(scale > 0, scale, 1.0)[..., None]
    values, vectors = torch.linalg.eigh(M)
    none = values < 1e4 * torch.finfo(M.dtype).eps * scale
    extra = (vectors * (none * scale).unsqueeze(-2)) @ vectors.mT
    return extra, (none * scale.log()).sum(-1)


def masked(S: Tensor, seen: Tensor) -> Tensor:
    """A covariance in which rows that were not seen are unit-variance phantoms."""
    return S * seen[..., None] * seen[..., None, :] + torch.diag_embed(1 - seen)
