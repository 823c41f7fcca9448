"""The first block of steps of a filter: it meets the prior, which may be diffuse."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.derivatives import first_order
from seqlatent.kalman.likelihood.block_model import BlockModel

# Relative accuracy of values to that of gradients.
_SLOPES = 0.1
# Variances that shrink by less leave no more than a few digits less.
_MANY = 1e4


class InitialBlock(NamedTuple):
    """The distribution of the state after the first block, and what the block was worth.

    ``size`` holds variances that rounding of those of ``cov`` is as large as that of, ``condition``
    says by how much rounding was amplified: see :func:`amplified`.
    """

    mean: Float[Tensor, "*L C K"]
    cov: Float[Tensor, "*P K K"]
    log_evidence: Float[Tensor, "*L C"]
    size: Float[Tensor, "*P K"]
    condition: Float[Tensor, "*P"]


def initial_block(
    block: BlockModel,
    m0: Float[Tensor, "*m C K"],
    P0: Float[Tensor, "*p K K"],
    y: Float[Tensor, "*y C M"],
    seen: Float[Tensor, "*w M"] | None,
    diffuse: Bool[Tensor, " K"] | None,
) -> InitialBlock:
    r"""The first block, given as many of its rows as there are.

    With observations in units of their noise, :math:`U = L^{-1} O`, and the posterior covariance
    :math:`W = (P_0^{-1} + U^\top U)^{-1}`,

    .. math::
        s &= W U^\top L^{-1} (y - O m_0), \quad \hat z_1 = m_0 + s, \quad
            e = L^{-1} (y - O \hat z_1) \\
        -2 \log p(y) &= \|e\|^2 + s^\top P_0^{-1} s + \log|I + P_0 U^\top U|
            + 2 \log|L| + M \log 2\pi

    All terms are of the size of the noise, whatever the size of the prior, and an error of s counts
    by its square. A diffuse coordinate has precision 0, and its determinant is that of W alone. Its
    mean is free, so that observations are read relative to those that a first estimate of it
    explains: their level costs no digits.

    Args:
        block: The block.
        m0: Mean of the first state.
        P0: Its covariance; rows and columns of diffuse coordinates are not read.
        y: Rows of the observations, 0 where nothing was seen.
        seen: 1 for rows that count, 0 for others; all by default.
        diffuse: Coordinates of the first state of which nothing is known.
    """
    rows, transition, yy, yz, zz = block
    count = y.shape[-1]
    rows, yy, yz = rows[..., :count, :], yy[..., :count, :count], yz[..., :count, :]
    number: Tensor | int = count
    if seen is not None:
        yy = masked(yy, seen)
        rows, yz, y = rows * seen[..., None], yz * seen[..., None], y * seen[..., None, :]
        number = seen.sum(-1)[..., None]
    L, info = torch.linalg.cholesky_ex(yy)
    U = torch.linalg.solve_triangular(L, rows, upper=False)
    back = torch.linalg.solve_triangular(L, yz, upper=False)
    J, level = U.mT @ U, None
    if diffuse is not None:
        m0 = m0.masked_fill(diffuse, 0.0)
        with torch.no_grad():
            found = posterior(P0, J, _whitened(L, y - m0 @ rows.mT) @ U, diffuse)
            level = found.shift.masked_fill(~diffuse, 0.0)
        y = y - level @ rows.mT
    found = posterior(P0, J, _whitened(L, y - m0 @ rows.mT) @ U, diffuse)
    mean = m0 + found.shift
    residual = _whitened(L, y - mean @ rows.mT)
    log_det = found.log_det + 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = residual.square().sum(-1) + found.square
    log_evidence = -0.5 * (square + log_det[..., None] + math.log(2 * math.pi) * number)
    closed = transition - back.mT @ U
    spread = closed @ found.cov @ closed.mT
    cov = spread + (zz - back.mT @ back)
    mean = mean if level is None else mean + level
    with torch.no_grad():
        size = (spread + zz).diagonal(dim1=-2, dim2=-1)
        if seen is not None:
            backwards = _known_backwards(closed, found, seen)
            size = torch.maximum(size, backwards + zz.diagonal(dim1=-2, dim2=-1))
        condition = torch.maximum(amplified(L), found.condition)
        condition = torch.maximum(condition, _failed(L, info))
        if cov.requires_grad:
            surprise = residual.square().mean(-1).amax(-1).clamp_min(1.0)
            slopes = surprise * _shock_condition(rows, L, block, cov, seen)
            slopes = torch.maximum(slopes, _noise_condition(U, L, found.cov, seen))
            condition = torch.maximum(condition, _SLOPES * slopes)
    after = mean @ transition.mT + residual @ back
    return InitialBlock(after, (cov + cov.mT) / 2, log_evidence, size, condition)


def _known_backwards(
    closed: Float[Tensor, "*c K K"], found: "Posterior", seen: Float[Tensor, "*w M"]
) -> Float[Tensor, "..."]:
    """What the variances of a first state that is seen late only are carried on by, else zero.

    Long transitions of a state that is known backwards add terms much larger than their sum, each
    of which has the rounding of an inverse.
    """
    late = seen[..., : seen.shape[-1] // 4].sum(-1, keepdim=True) == 0
    if seen.shape[-1] < 4 or not bool(late.any()):
        return torch.zeros_like(found.cov[..., 0])
    deviation = found.cov.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-1)
    terms = found.condition.unsqueeze(-1) * (closed.abs() @ deviation).squeeze(-1).square()
    return torch.where(late, terms, 0.0)


def amplified(L: Float[Tensor, "*l M M"]) -> Float[Tensor, "*l"]:
    """The most by which rounding of a variance is amplified in what is left of it.

    A row of a Cholesky factor has the variance as its square, and ends with what those before it
    leave of that. What those after it leave, too, is less and takes an inverse: it is looked at
    where the former is no small number.
    """
    left = L.diagonal(dim1=-2, dim2=-1).square()
    found = (L.square().sum(-1) / left).amax(-1)
    if not bool((found > _MANY).any()):
        return found
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return inflated(L, torch.linalg.solve_triangular(L, eye, upper=False)).amax(-1)


def _noise_condition(
    U: Float[Tensor, "*u M K"],
    L: Float[Tensor, "*l M M"],
    W: Float[Tensor, "*w K K"],
    seen: Float[Tensor, "*s M"] | None,
) -> Float[Tensor, "..."]:
    r"""By how much rounding is amplified in the gradient of the noise, of which less is asked.

    A row that the state follows leaves little of it, :math:`(1 - u_i W u_i^\top) / L_{ii}^2`, where
    both terms of a small noise are large.
    """
    weight = 1 / L.diagonal(dim1=-2, dim2=-1).square()
    weight = weight if seen is None else weight * seen
    spread = W.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-1)
    rounding = (U.abs() @ spread).squeeze(-1).square() * weight
    left = (weight * (1 - ((U @ W) * U).sum(-1))).sum(-1)
    tiny = torch.finfo(L.dtype).eps * weight.amax(-1)
    return rounding.amax(-1) / torch.maximum(left, tiny)


def _shock_condition(
    rows: Float[Tensor, "*o M K"],
    L: Float[Tensor, "*l M M"],
    block: BlockModel,
    cov: Float[Tensor, "*p K K"],
    seen: Float[Tensor, "*s M"] | None,
) -> Float[Tensor, "..."]:
    r"""By how much larger than the gradient of the shocks are the terms that it is a sum of.

    They are what rows say of the first state if all else is known, :math:`O_i^2 / L_{ii}^2`. What
    is left of it is what data say of a state whose past is known, too: no less than what one row of
    the next block does. Without shocks, or under a transition that grows, that is little.
    """
    weight = 1 / L.diagonal(dim1=-2, dim2=-1).square()
    weight = weight if seen is None else weight * seen
    terms = (weight.unsqueeze(-1) * rows.square()).sum(-2).amax(-1)
    variance = ((block.rows @ cov) * block.rows).sum(-1) + block.yy.diagonal(dim1=-2, dim2=-1)
    left = (block.rows.square() / variance.unsqueeze(-1)).amax((-1, -2))
    return terms / left


def inflated(L: Float[Tensor, "*l K K"], inverse: Float[Tensor, "*l K K"]) -> Float[Tensor, "*l K"]:
    """By how much variances exceed what they were with all other coordinates known.

    It is symmetric in a covariance and its inverse.

    Args:
        L: Cholesky factor of the precision.
        inverse: Its inverse.
    """
    return L.square().sum(-1) * inverse.square().sum(-2)


def diffuse_condition(
    block: BlockModel, seen: Float[Tensor, "*w M"] | None, diffuse: Bool[Tensor, " K"]
) -> Float[Tensor, "*l"]:
    """The condition of the diffuse coordinates by all rows; infinite where these leave one open."""
    rows, yy = block.rows[..., diffuse], block.yy
    if seen is not None:
        rows, yy = rows * seen[..., None], masked(yy, seen)
    with torch.no_grad():
        L, failed = torch.linalg.cholesky_ex(yy)
        U = torch.linalg.solve_triangular(L, rows, upper=False)
        C, loose = torch.linalg.cholesky_ex(U.mT @ U)
        eye = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
        inverse = torch.linalg.solve_triangular(C, eye, upper=False)
        return torch.maximum(inflated(C, inverse).amax(-1), _failed(C, failed + loose))


class Posterior(NamedTuple):
    """A covariance, what it takes off the logarithm of a determinant, rows times it, their size."""

    cov: Float[Tensor, "... K K"]
    log_det: Float[Tensor, "..."]
    shift: Float[Tensor, "... C K"]
    square: Float[Tensor, "... C"]
    condition: Float[Tensor, "..."]


def posterior(
    P: Float[Tensor, "*p K K"],
    J: Float[Tensor, "*j K K"],
    b: Float[Tensor, "*b C K"],
    diffuse: Bool[Tensor, " K"] | None,
) -> Posterior:
    r"""The covariance :math:`W = (P^{-1} + J)^{-1}`, and rows s = b W.

    With them come :math:`\log |P| - \log |W|` and :math:`s P^{-1} s^\top`. All are accurate in
    every direction by itself, under variances of any size and of none. Flat coordinates have
    precision 0.
    The rows are solved for: where few observations with little noise leave directions open, W in
    the others is mere rounding.
    """
    return Posterior(*_Posterior.apply(P, J, b, diffuse))  # type: ignore[misc]


class _Posterior(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, P: Tensor, J: Tensor, b: Tensor, diffuse: Tensor | None
    ) -> tuple[Tensor, ...]:
        precision = torch.ones_like(P[..., 0])
        ctx.like, ctx.diffuse, given = P, diffuse, P
        if diffuse is not None:
            # a diffuse coordinate has a column of the factor to itself
            given = P.masked_fill(diffuse | diffuse[:, None], 0.0) + diffuse.diag().to(P.dtype)
            precision = precision.masked_fill(diffuse, 0.0)
        G, ctx.regular = _factor(given)
        L, info = torch.linalg.cholesky_ex(G.mT @ J @ G + torch.diag_embed(precision))
        eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        inverse = torch.linalg.solve_triangular(L, eye, upper=False)
        half = inverse @ G.mT
        v = _solved(L, b @ G)
        W, shift, v = half.mT @ half, v @ G.mT, v * precision.unsqueeze(-2)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        inflation = inflated(L, inverse).amax(-1)
        condition = torch.maximum(inflation, _failed(L, info))
        ctx.save_for_backward(J, b, W, shift, v, precision, half, G, L)
        ctx.mark_non_differentiable(condition)
        return W, log_det, shift, v.square().sum(-1), condition

    @staticmethod
    @first_order("differentiate log_likelihood itself, which has all")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        r"""By what the prior alone says, :math:`C = P^{-1} W` and :math:`\lambda = P^{-1} s`.

        .. math::
            \bar P = C\, \bar W\, C^\top + \bar\ell\, C J - \bar q\, \lambda \lambda^\top
                + \lambda\, (C \bar s)^\top, \quad
            \bar J = -W \bar W W + \bar\ell\, W - s\, (W \bar s)^\top, \quad \bar b = W \bar s

        where :math:`\bar s` holds :math:`2 \bar q \lambda` too. Both are :math:`I - J W` and
        :math:`b - J s` as well, but those are differences of what the data say.
        """
        J, b, W, shift, v, precision, half, G, L = ctx.saved_tensors
        of_W, of_log_det, of_shift, of_square, _ = grads
        of_W, scale = (of_W + of_W.mT) / 2, of_log_det[..., None, None]
        if ctx.regular:
            kept = torch.linalg.solve_triangular(L.mT, half, upper=True)
            kept = _divided(G, precision.unsqueeze(-1) * kept)
            prior_shift = _divided(G, v.mT).mT
        else:
            eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
            kept, prior_shift = eye - J @ W, b - shift @ J
            if ctx.diffuse is not None:
                kept = kept.masked_fill(ctx.diffuse[:, None], 0.0)
                prior_shift = prior_shift.masked_fill(ctx.diffuse, 0.0)
        of_square = of_square.unsqueeze(-1)
        of_shift = of_shift + 2 * of_square * prior_shift
        of_b = _solved(L, of_shift @ G) @ G.mT
        # rows have batch axes that W need not have: each term is summed by itself
        outer = prior_shift.mT @ (of_shift @ kept.mT - of_square * prior_shift)
        of_P = _totals(ctx.like, kept @ of_W @ kept.mT + scale * (kept @ J), outer)
        of_J = _totals(J, scale * W - W @ of_W @ W, -shift.mT @ of_b)
        if ctx.diffuse is not None:
            of_P = of_P.masked_fill(ctx.diffuse | ctx.diffuse[:, None], 0.0)
        return of_P, of_J, of_b.sum_to_size(b.shape), None


def _totals(like: Tensor, *terms: Tensor) -> Tensor:
    """The symmetric part of a sum of gradients, each summed over axes that ``like`` lacks."""
    total = torch.stack([term.sum_to_size(like.shape) for term in terms]).sum(0)
    return (total + total.mT) / 2


def _factor(P: Tensor) -> tuple[Tensor, bool]:
    """A lower triangular factor, and True; of a singular covariance its symmetric root."""
    diagonal = P.diagonal(dim1=-2, dim2=-1)
    if bool((torch.diag_embed(diagonal) == P).all()):
        return torch.diag_embed(diagonal.sqrt()), bool((diagonal > 0).all())
    L, info = torch.linalg.cholesky_ex(P)
    if not bool(info.any()):
        return L, True
    values, vectors = torch.linalg.eigh(P)
    return (vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)) @ vectors.mT, False


def _solved(L: Tensor, rows: Tensor) -> Tensor:
    """Rows divided by a matrix, by its Cholesky factor."""
    half = torch.linalg.solve_triangular(L, rows.mT, upper=False)
    return torch.linalg.solve_triangular(L.mT, half, upper=True).mT


def _divided(G: Tensor, x: Tensor) -> Tensor:
    """Columns divided by the transpose of a lower triangular factor."""
    return torch.linalg.solve_triangular(G.mT, x, upper=True)


def _whitened(L: Tensor, rows: Tensor) -> Tensor:
    """Rows divided by a factor of their covariance."""
    return torch.linalg.solve_triangular(L.mT, rows, upper=True, left=False)


def _failed(L: Tensor, info: Tensor) -> Tensor:
    """Infinite where a factor was not found."""
    return torch.where(info > 0, torch.inf, 0.0).to(L.dtype)


def masked(S: Tensor, seen: Tensor) -> Tensor:
    """A covariance in which rows that were not seen are unit-variance phantoms."""
    return S * seen[..., None] * seen[..., None, :] + torch.diag_embed(1 - seen)
