"""The Kalman filter over blocks of steps: likelihoods without a loop over single steps.

Two forms of a block. The first block meets the prior, which may be vast or flat, as a precision;
nothing is subtracted from it. Later blocks are an ordinary filter of as many dimensions as a block
has rows, whose Cholesky factor gives the innovation of each step; its gradient is written by hand.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.lifted import Lifted

# Relative change of a covariance over a block below which it counts as steady, in units of eps.
_STEADY = 32


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
        yy = _masked(yy, seen)
        rows, yz, y = rows * seen[..., None], yz * seen[..., None], y * seen[..., None, :]
        number = seen.sum(-1)[..., None]
    L = torch.linalg.cholesky(yy)
    U = torch.linalg.solve_triangular(L, rows, upper=False)
    back = torch.linalg.solve_triangular(L, yz, upper=False)
    white = torch.linalg.solve_triangular(L.mT, y, upper=True, left=False)
    W, log_det = posterior(P0, U.mT @ U, flat)
    shift = ((white - m0 @ U.mT) @ U) @ W
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
        rows, yy = rows * seen[..., None], _masked(yy, seen)
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
    P: Float[Tensor, "*p K K"], J: Float[Tensor, "*j K K"], flat: Bool[Tensor, " K"] | None
) -> tuple[Float[Tensor, "... K K"], Float[Tensor, "..."]]:
    r"""The covariance :math:`W = (P^{-1} + J)^{-1}`, and :math:`\log |P| - \log |W|`.

    Accurate in every direction by itself, under variances of any size and of none. Flat coordinates
    have precision 0; what neither prior nor ``J`` determines gets a variance of :math:`10^{12}`
    relative to the best known and is left out of the determinant.
    """
    W, log_det = _Posterior.apply(P, J, flat)  # type: ignore[misc]
    return W, log_det


class _Posterior(torch.autograd.Function):
    @staticmethod
    def forward(P: Tensor, J: Tensor, flat: Tensor | None) -> tuple[Tensor, Tensor]:
        size = P.shape[-1]
        eye = torch.eye(size, dtype=P.dtype, device=P.device)
        precision = torch.ones_like(P[..., 0])
        if flat is not None:
            P = P.masked_fill(flat | flat[:, None], 0.0)
            precision = precision.masked_fill(flat, 0.0)
        G = _factor(P)
        if flat is not None:
            # columns of the factor that flat coordinates left empty become theirs
            G = torch.where(flat, eye, G)
        M = G.mT @ J @ G + torch.diag_embed(precision)
        missing = torch.zeros_like(M[..., 0, 0])
        if flat is not None and bool(_loose(M).any()):
            extra, missing = _undetermined(M)
            M = M + extra
        L = torch.linalg.cholesky(M)
        V = torch.linalg.solve_triangular(L, G.mT, upper=False)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - missing
        return V.mT @ V, log_det

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        P, J, ctx.flat = inputs
        ctx.like = P
        ctx.save_for_backward(J, output[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        r"""With C = I - J W: dP = C dW C^T + d J W-free part; see the formulas.

        .. math::
            \bar P = (I - J W)\, \bar W\, (I - W J) + \bar\ell\, (J - J W J), \quad
            \bar J = -W \bar W W + \bar\ell\, W
        """
        J, W = ctx.saved_tensors
        of_W, of_log_det = grads
        of_W = (of_W + of_W.mT) / 2
        scale = of_log_det[..., None, None]
        JW = J @ W
        keep = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) - JW
        of_P = keep @ of_W @ keep.mT + scale * (keep @ J)
        of_J = scale * W - W @ of_W @ W
        if ctx.flat is not None:
            of_P = of_P.masked_fill(ctx.flat | ctx.flat[:, None], 0.0)
        return of_P.sum_to_size(ctx.like.shape), of_J.sum_to_size(J.shape), None


def _factor(P: Tensor) -> Tensor:
    """A factor of a covariance; of a singular one too, unless it is diagonal anyhow."""
    diagonal = P.diagonal(dim1=-2, dim2=-1)
    if bool((torch.diag_embed(diagonal) == P).all()):
        return torch.diag_embed(diagonal.sqrt())
    L, info = torch.linalg.cholesky_ex(P)
    if not bool(info.any()):
        return L
    values, vectors = torch.linalg.eigh(P)
    return vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)


def _undetermined(M: Tensor) -> tuple[Tensor, Tensor]:
    """What to add in directions without any precision, and the logarithm of its determinant."""
    scale = M.diagonal(dim1=-2, dim2=-1).amax(-1)
    scale = torch.where(scale > 0, scale, 1.0)[..., None]
    values, vectors = torch.linalg.eigh(M)
    none = values < 1e4 * torch.finfo(M.dtype).eps * scale
    extra = (vectors * (none * scale).unsqueeze(-2)) @ vectors.mT
    return extra, (none * scale.log()).sum(-1)


def continued(
    block: Lifted,
    mean: Float[Tensor, "*L C K"],
    cov: Float[Tensor, "*P K K"],
    y: Float[Tensor, "N *L C M"],
    seen: Float[Tensor, "N *w M"] | None,
    counted: Float[Tensor, "N *c _ M"] | None,
) -> Float[Tensor, "*L C"]:
    r"""Log evidence of the blocks after the first, without its constant.

    .. math::
        S &= O P O^\top + \Sigma_{yy} = L L^\top, \quad
        W = L^{-1} (O P \Phi^\top + \Sigma_{yz}), \quad e = L^{-1}(y - O x) \\
        x' &= \Phi x + W^\top e, \quad P' = \Phi P \Phi^\top + \Sigma_{zz} - W^\top W

    Row i of e is the innovation of that row given all before, in units of its deviation
    :math:`L_{ii}`. Once P is steady the factors are kept, and what remains to be done for all
    blocks together is products with the data.

    Args:
        block: The block, all of whose rows count.
        mean: Mean of the state before the first of these blocks, given all before.
        cov: Its covariance, which the C series of a group have in common.
        y: Rows of the observations, 0 where nothing was seen.
        seen: 1 for rows that were seen and 0 for others, where some were not.
        counted: 1 for rows that count, 0 for those after the end of a series: as they follow all
            that counts, they change none of it. All by default.
    """
    return _Continued.apply(*block, mean, cov, y, seen, counted)  # type: ignore[return-value]


class _Continued(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        transition: Tensor,
        yy: Tensor,
        yz: Tensor,
        zz: Tensor,
        mean: Tensor,
        cov: Tensor,
        y: Tensor,
        seen: Tensor | None,
        counted: Tensor | None,
    ) -> Tensor:
        number, keep = len(y), any(ctx.needs_input_grad)
        each = [v.shape[:-2] for v in (rows, transition, yy, yz, zz, cov)]
        each += [] if seen is None else [seen.shape[1:-1]]
        lead = torch.broadcast_shapes(*each)
        (M, K), size = rows.shape[-2:], number if keep else 1
        # memory that is touched for the first time is slower than what is done with it
        factors, gains, covs = (
            cov.new_empty(n, *lead, *shape)
            for n, shape in ((size, (M, M)), (size, (M, K)), (max(size, 2), (K, K)))
        )
        half, cross, work, next_P = (
            cov.new_empty(*lead, *shape) for shape in ((M, K), (M, K), (K, K), (K, K))
        )
        S, info = cov.new_empty(*lead, M, M), cov.new_empty(lead, dtype=torch.int32)
        onward, observe = transition.mT, rows.mT
        x, P, failed = mean, covs[0].copy_(cov), torch.zeros_like(info)
        means, errors = [], []
        total = torch.zeros_like(y[0, ..., 0])
        kept, steady = -1, False
        L, W, logs = factors[0], gains[0], cov
        for n in range(number):
            if not steady:
                kept = n if keep else 0
                L, W = factors[kept], gains[kept]
                torch.matmul(rows, P, out=half)
                torch.matmul(half, observe, out=S).add_(yy)
                torch.matmul(half, onward, out=cross).add_(yz)
                if seen is not None:
                    mask = seen[n].unsqueeze(-1)
                    S.mul_(mask).mul_(mask.mT).diagonal(dim1=-2, dim2=-1).add_(1 - seen[n])
                    cross.mul_(mask)
                torch.linalg.cholesky_ex(S, out=(L, info))
                failed |= info
                torch.linalg.solve_triangular(L, cross, upper=False, out=W)
                logs = L.diagonal(dim1=-2, dim2=-1).log().unsqueeze(-2)
            e = y[n] - x @ observe
            if seen is not None:
                e = e * seen[n].unsqueeze(-2)
            e = torch.linalg.solve_triangular(L.mT, e, upper=True, left=False)
            if keep:
                means.append(x)
                errors.append(e)
            if counted is None:
                total = total - (0.5 * torch.linalg.vecdot(e, e) + logs.sum(-1))
            else:
                terms = torch.addcmul(logs, e, e, value=0.5)
                total = total - torch.linalg.vecdot(counted[n], terms)
            if n + 1 == number:
                break
            x = x @ onward + e @ W
            if steady:
                continue
            torch.matmul(transition, P, out=next_P)
            torch.matmul(next_P, onward, out=work).add_(zz)
            _subtract_square(work, W)
            torch.add(work, work.mT, out=next_P).mul_(0.5)
            if seen is None and _steady(P, next_P):
                steady = True
            else:
                P = covs[n + 1 if keep else (n + 1) % 2].copy_(next_P)
        if bool(failed.any()):
            raise _not_definite()
        path = [min(n, kept) for n in range(number)] if keep else []
        ctx.path = (means, errors, covs, factors, gains, path)
        ctx.save_for_backward(rows, transition, yy, yz, zz)
        ctx.seen, ctx.counted = seen, counted
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Reverse mode by hand: one pass back over the blocks, products and triangular solves."""
        rows, transition, *noises = ctx.saved_tensors
        seen, counted = ctx.seen, ctx.counted
        weight = grads[0].unsqueeze(-1)
        means, errors, *covariances, path = ctx.path
        number = len(means)
        of_rows, of_transition = torch.zeros_like(rows), torch.zeros_like(transition)
        of_yy, of_yz, of_zz = (torch.zeros_like(x) for x in noises)
        of_y: list[Tensor] = [errors[0]] * number
        of_x, of_P = torch.zeros_like(means[0]), torch.zeros_like(covariances[0][0])
        last = True
        for n in range(number - 1, -1, -1):
            x, e, (P, L, W) = means[n], errors[n], (v[path[n]] for v in covariances)
            used = weight if counted is None else weight * counted[n]
            of_e = -used * e
            of_diagonal = -used.expand(e.shape).sum(-2) / L.diagonal(dim1=-2, dim2=-1)
            half, of_cross = rows @ P, W
            if not last:
                of_e = of_e + of_x @ W.mT
                of_W = e.mT @ of_x - 2 * W @ of_P
                of_cross = torch.linalg.solve_triangular(L.mT, of_W, upper=True)
                of_transition += _summed(of_x.mT @ x, of_transition)
                of_zz += _summed(of_P, of_zz)
            of_obs = torch.linalg.solve_triangular(L, of_e, upper=False, left=False)
            of_L = torch.diag_embed(of_diagonal) - of_obs.mT @ e
            if not last:
                of_L = of_L - of_cross @ W.mT
            of_S = _cholesky_adjoint(L, of_L)
            if seen is not None:
                mask = seen[n].unsqueeze(-1)
                of_obs, of_S, of_cross = of_obs * mask.mT, of_S * mask * mask.mT, of_cross * mask
            of_yy += _summed(of_S, of_yy)
            of_rows += _summed(2 * of_S @ half - of_obs.mT @ x, of_rows)
            of_y[n] = of_obs
            back_x, back_P = -of_obs @ rows, rows.mT @ of_S @ rows
            if not last:
                of_yz += _summed(of_cross, of_yz)
                forward = transition @ P
                of_rows += _summed(of_cross @ forward, of_rows)
                of_transition += _summed(of_cross.mT @ half + 2 * of_P @ forward, of_transition)
                through = rows.mT @ of_cross @ transition
                back_P = back_P + (through + through.mT) / 2
                back_P = back_P + transition.mT @ of_P @ transition
                back_x = back_x + of_x @ transition
            of_x, of_P, last = back_x, back_P, False
        found = (of_rows, of_transition, of_yy, of_yz, of_zz, of_x, of_P, torch.stack(of_y))
        return (*found, None, None)


def _not_definite() -> ValueError:
    return ValueError(
        "The covariance of observations given the past was expected to be positive definite, found "
        "one that is not; check that Q, R and P0 are covariances and that no value is vast."
    )


def _subtract_square(P: Float[Tensor, "*p K K"], W: Float[Tensor, "*p M K"]) -> None:
    """P - W^T W, in place."""
    if P.dim() == 2:
        P.addmm_(W.mT, W, alpha=-1)
    else:
        P.baddbmm_(W.mT, W, alpha=-1)


def _steady(P: Float[Tensor, "*p K K"], later: Float[Tensor, "*p K K"]) -> bool:
    """Whether a covariance no longer changes; most often its diagonal denies that at once."""
    tolerance = _STEADY * torch.finfo(P.dtype).eps
    old, new = (x.diagonal(dim1=-2, dim2=-1) for x in (P, later))
    limit = tolerance * old.amax(-1, keepdim=True)
    if bool(((new - old).abs() > limit).any()):
        return False
    return not bool(((later - P).abs() > limit.unsqueeze(-1)).any())


def _masked(S: Tensor, seen: Tensor) -> Tensor:
    """A covariance in which rows that were not seen are unit-variance phantoms."""
    return S * seen[..., None] * seen[..., None, :] + torch.diag_embed(1 - seen)


def _cholesky_adjoint(L: Tensor, of_L: Tensor) -> Tensor:
    r"""Gradient of a covariance, from that of its Cholesky factor.

    .. math:: \bar S = \tfrac12 L^{-\top} (\Phi + \Phi^\top) L^{-1}, \quad
        \Phi = \operatorname{tril}(L^\top \bar L) \text{ with half its diagonal}
    """
    inner = (L.mT @ of_L).tril()
    inner = inner + inner.tril(-1).mT
    inner = torch.linalg.solve_triangular(L.mT, inner, upper=True)
    return torch.linalg.solve_triangular(L, inner, upper=False, left=False) / 2


def _summed(grad: Tensor, like: Tensor) -> Tensor:
    return grad if grad.shape == like.shape else grad.sum_to_size(like.shape)
