"""The Kalman filter over blocks of steps: likelihoods without a loop over single steps.

Two forms of a block. The first meets the prior as a precision: nothing is subtracted from it. Later
blocks are an ordinary filter of as many dimensions as a block has rows, whose Cholesky factor gives
the innovation of each step; its gradient is written by hand.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.derivatives import first_order
from seqlatent.kalman.likelihood.block_model import Lifted
from seqlatent.kalman.likelihood.steady_state import (
    adjoint,
    is_steady,
    run_steady,
    shared,
    surprise,
)
from seqlatent.linalg import broadcast_shapes


def continued(
    block: Lifted,
    mean: Float[Tensor, "*L C K"],
    cov: Float[Tensor, "*P K K"],
    size: Float[Tensor, "*P K"],
    y: Float[Tensor, "N *L C M"],
    seen: Float[Tensor, "N *w M"] | None,
    counted: Float[Tensor, "N *c _ M"] | None,
) -> tuple[Float[Tensor, "*L C"], Float[Tensor, "*l"]]:
    r"""Log evidence of the blocks after the first, without its constant, and its condition.

    .. math::
        S &= O P O^\top + \Sigma_{yy} = L L^\top, \quad
        W = L^{-1} (O P \Phi^\top + \Sigma_{yz}), \quad e = L^{-1}(y - O x) \\
        x' &= \Phi x + W^\top e, \quad P' = \Phi P \Phi^\top + \Sigma_{zz} - W^\top W

    Row i of e is the innovation of that row given all before, in units of its deviation
    :math:`L_{ii}`. Once P is steady the factors are kept, and what remains to be done for all
    blocks together is products with the data.

    Rounding of what the variance of a row was subtracted from counts relative to what is left of
    it, :math:`L_{ii}^2`. The condition is the largest ratio of both.

    Args:
        block: The block, all of whose rows count.
        mean: Mean of the state before the first of these blocks, given all before.
        cov: Its covariance, which the C series of a group have in common.
        size: The variances from which its own were got by subtraction.
        y: Rows of the observations, 0 where nothing was seen.
        seen: 1 for rows that were seen and 0 for others, where some were not.
        counted: 1 for rows that count, 0 for those after the end of a series: as they follow all
            that counts, they change none of it. All by default.
    """
    data = (y, seen, counted)
    return _Continued.apply(*block, mean, cov, size, *data)  # type: ignore[return-value]


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
        size: Tensor,
        y: Tensor,
        seen: Tensor | None,
        counted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        number, keep = len(y), any(ctx.needs_input_grad)
        each = [v.shape[:-2] for v in (rows, transition, yy, yz, zz, cov, mean)]
        each += [] if seen is None else [seen.shape[1:-1]]
        lead = broadcast_shapes(*each)
        (M, K), space = rows.shape[-2:], number if keep else 1
        # memory that is touched for the first time is slower than what is done with it
        factors, gains, covs = (
            cov.new_empty(n, *lead, *shape)
            for n, shape in ((space, (M, M)), (space, (M, K)), (max(space, 2), (K, K)))
        )
        sizes, deviations = cov.new_empty(number, *lead, K), cov.new_empty(number, *lead, M)
        sizes[0] = size
        half, cross, work, ahead = (
            cov.new_empty(*lead, *shape) for shape in ((M, K), (M, K), (K, K), (K, K))
        )
        S, info = cov.new_empty(*lead, M, M), cov.new_empty(lead, dtype=torch.int32)
        onward, observe = transition.mT, rows.mT
        x, P, failed = mean, covs[0].copy_(cov), torch.zeros_like(info)
        means = x.new_empty(space, *x.shape) if keep else x.new_empty(0)
        errors = y.new_empty(y.shape if keep else 0)
        squares, further = torch.zeros_like(y[0, ..., 0]), None
        kept = n = 0
        for n in range(number):
            kept = n if keep else 0
            L, W = factors[kept], gains[kept]
            torch.matmul(rows, P, out=half)
            if seen is None:
                torch.matmul(half, observe, out=S).add_(yy)
                torch.matmul(half, onward, out=cross).add_(yz)
            else:
                # what was not seen is a phantom of variance one, without any covariance
                mask = seen[n].unsqueeze(-1)
                half.mul_(mask)
                torch.matmul(half, observe, out=S).addcmul_(yy, mask).mul_(mask.mT)
                S.diagonal(dim1=-2, dim2=-1).add_(1 - seen[n])
                torch.matmul(half, onward, out=cross).addcmul_(yz, mask)
            torch.linalg.cholesky_ex(S, out=(L, info))
            failed |= info
            deviations[n] = L.diagonal(dim1=-2, dim2=-1)
            torch.linalg.solve_triangular(L, cross, upper=False, out=W)
            e = y[n] - x @ observe
            if seen is not None:
                e = e * seen[n].unsqueeze(-2)
            e = torch.linalg.solve_triangular(L.mT, e, upper=True, left=False)
            if counted is None:
                squares.add_(torch.linalg.vecdot(e, e))
            else:
                squares.add_(surprise(L, e, counted[n]), alpha=2.0)
            if keep:
                means[n], errors[n] = x, e
            if n + 1 == number:
                break
            x = x @ onward + e @ W
            torch.matmul(transition, P, out=ahead)
            torch.matmul(ahead, onward, out=work).add_(zz)
            sizes[n + 1] = work.diagonal(dim1=-2, dim2=-1)
            _add(work, W.mT, W, -1.0)
            later_P = covs[n + 1 if keep else (n + 1) % 2]
            torch.lerp(work, work.mT, 0.5, out=later_P)
            if seen is None and is_steady(P, later_P):
                out = (means[n + 1 :], errors[n + 1 :]) if keep else None
                later = None if counted is None else counted[n + 1 :]
                further = run_steady(rows, transition, L, W, x, y[n + 1 :], later, out)
                break
            P = later_P
        used = slice(n + 1)
        total = -0.5 * squares
        if counted is None:
            total = total - deviations[used].log().sum((0, -1)).unsqueeze(-1)
        total = total if further is None else total - further
        path = [min(n, kept) for n in range(number)] if keep else []
        condition = _condition(
            rows, yy, sizes[used], deviations[used], None if seen is None else seen[used]
        )
        condition = torch.where(failed > 0, torch.inf, condition)
        ctx.path = (means, errors, covs, factors, gains, path)
        ctx.save_for_backward(rows, transition, yy, yz, zz)
        ctx.seen, ctx.counted, ctx.cov_shape = seen, counted, cov.shape
        ctx.mark_non_differentiable(condition)
        return total, condition

    @staticmethod
    @first_order("differentiate log_likelihood itself, which has all")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Reverse mode by hand: one pass back over the blocks, all that are alike at once."""
        parts = ctx.saved_tensors
        rows, transition = parts[:2]
        seen, counted, of_data = ctx.seen, ctx.counted, ctx.needs_input_grad[8]
        weight = grads[0].unsqueeze(-1)
        means, errors, covs, factors, gains, path = ctx.path
        totals = [torch.zeros_like(x) for x in parts]
        of_y: list[Tensor] = [errors[0]] * len(means)
        of_x, of_P = torch.zeros_like(means[0]), torch.zeros_like(covs[0])
        begin, end = shared(path, counted)
        n = len(means)
        while n > 0:
            alike = n == end > begin
            first = begin if alike else n - 1
            some, at = slice(first, n), path[first]
            distribution = covs[at], factors[at], gains[at], means[some], errors[some]
            mask = None if seen is None else seen[first]
            part = None if alike or counted is None else counted[first]
            found = adjoint(
                rows, transition, *distribution, weight, part, of_x, of_P, mask, of_data
            )
            for total, more in zip(totals, found[:5], strict=True):
                total += _summed(more, total)
            of_x, of_P, of_y[some] = found[5:]
            n = first
        of_cov = of_P.sum_to_size(ctx.cov_shape)
        data = torch.stack(of_y) if of_data else None
        return (*totals, of_x, of_cov, None, data, None, None)


def _add(out: Tensor, a: Tensor, b: Tensor, factor: float) -> Tensor:
    """Adds a product to a matrix, or to each of a batch, in place."""
    if out.dim() == 2:
        return out.addmm_(a, b, alpha=factor)
    return out.baddbmm_(a, b, alpha=factor)


def _condition(
    rows: Tensor,
    yy: Tensor,
    sizes: Float[Tensor, "N *l K"],
    deviations: Float[Tensor, "N *l M"],
    seen: Float[Tensor, "N *w M"] | None,
) -> Float[Tensor, "*l"]:
    """The largest ratio of what the variance of a row was got from to what is left of it."""
    state = (rows.abs() @ sizes.sqrt().unsqueeze(-1)).squeeze(-1).square()
    ratio = (state + yy.diagonal(dim1=-2, dim2=-1)) / deviations.square()
    return (ratio if seen is None else ratio * seen).amax((0, -1))


def _summed(grad: Tensor, like: Tensor) -> Tensor:
    return grad if grad.shape == like.shape else grad.sum_to_size(like.shape)
