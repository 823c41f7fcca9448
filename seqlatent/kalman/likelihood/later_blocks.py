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
from seqlatent.kalman.likelihood.block_model import BlockModel
from seqlatent.kalman.likelihood.steady_state import (
    EqualBlocks,
    adjoint,
    is_steady,
    run_steady,
    shared,
    surprise,
)
from seqlatent.linalg import broadcast_shapes


def later_blocks(
    block: BlockModel,
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
    return _LaterBlocks.apply(*block, mean, cov, size, *data)  # type: ignore[return-value]


class _Memory:
    """What a pass over blocks keeps for the way back, and what each block overwrites.

    It is allocated once: memory that is touched for the first time is slower than what is done with
    it.

    Args:
        block: The block.
        mean: Mean of the state before the first one.
        y: Rows of the observations.
        lead: Leading axes of covariances.
        keep: Whether there is a way back.
    """

    def __init__(
        self, block: BlockModel, mean: Tensor, y: Tensor, lead: tuple[int, ...], keep: bool
    ) -> None:
        number, (M, K) = len(y), block.rows.shape[-2:]
        space = number if keep else 1
        self.block, self.keep = block, keep
        self.factors, self.gains, self.covs = (
            y.new_empty(n, *lead, *shape)
            for n, shape in ((space, (M, M)), (space, (M, K)), (max(space, 2), (K, K)))
        )
        self.sizes, self.deviations = y.new_empty(number, *lead, K), y.new_empty(number, *lead, M)
        self.half, self.cross, self.work, self.ahead = (
            y.new_empty(*lead, *shape) for shape in ((M, K), (M, K), (K, K), (K, K))
        )
        self.S, self.info = y.new_empty(*lead, M, M), y.new_empty(lead, dtype=torch.int32)
        self.failed = torch.zeros_like(self.info)
        self.means = mean.new_empty(space, *mean.shape) if keep else mean.new_empty(0)
        self.errors = y.new_empty(y.shape if keep else 0)
        self.onward, self.observe = block.transition.mT, block.rows.mT

    def update(self, n: int, P: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """The factor L of the covariance of a block's rows, and W, which its innovations move."""
        kept = n if self.keep else 0
        L, W, half, cross, S = self.factors[kept], self.gains[kept], self.half, self.cross, self.S
        torch.matmul(self.block.rows, P, out=half)
        if seen is None:
            torch.matmul(half, self.observe, out=S).add_(self.block.yy)
            torch.matmul(half, self.onward, out=cross).add_(self.block.yz)
        else:
            # what was not seen is a phantom of variance one, without any covariance
            mask = seen.unsqueeze(-1)
            half.mul_(mask)
            torch.matmul(half, self.observe, out=S).addcmul_(self.block.yy, mask).mul_(mask.mT)
            S.diagonal(dim1=-2, dim2=-1).add_(1 - seen)
            torch.matmul(half, self.onward, out=cross).addcmul_(self.block.yz, mask)
        torch.linalg.cholesky_ex(S, out=(L, self.info))
        self.failed |= self.info
        self.deviations[n] = L.diagonal(dim1=-2, dim2=-1)
        torch.linalg.solve_triangular(L, cross, upper=False, out=W)
        return L, W

    def innovations(
        self, L: Tensor, x: Tensor, y: Tensor, seen: Tensor | None
    ) -> Float[Tensor, "*L C M"]:
        """Rows of a block relative to what was known before each, in units of their deviations."""
        e = y - x @ self.observe
        if seen is not None:
            e = e * seen.unsqueeze(-2)
        return torch.linalg.solve_triangular(L.mT, e, upper=True, left=False)

    def predict(self, n: int, P: Tensor, W: Tensor) -> Tensor:
        """The covariance before the block after block n."""
        torch.matmul(self.block.transition, P, out=self.ahead)
        torch.matmul(self.ahead, self.onward, out=self.work).add_(self.block.zz)
        self.sizes[n + 1] = self.work.diagonal(dim1=-2, dim2=-1)
        _add(self.work, W.mT, W, -1.0)
        later = self.covs[n + 1 if self.keep else (n + 1) % 2]
        return torch.lerp(self.work, self.work.mT, 0.5, out=later)


class _LaterBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Any) -> tuple[Tensor, Tensor]:
        block, (mean, cov, size, y, seen, counted) = BlockModel(*parts[:5]), parts[5:]
        number, keep = len(y), any(ctx.needs_input_grad)
        each = [v.shape[:-2] for v in (*block, cov, mean)]
        each += [] if seen is None else [seen.shape[1:-1]]
        memory = _Memory(block, mean, y, broadcast_shapes(*each), keep)
        memory.sizes[0] = size
        x, P = mean, memory.covs[0].copy_(cov)
        squares, further, n = torch.zeros_like(y[0, ..., 0]), None, 0
        for n in range(number):
            mask = None if seen is None else seen[n]
            L, W = memory.update(n, P, mask)
            e = memory.innovations(L, x, y[n], mask)
            if counted is None:
                squares.add_(torch.linalg.vecdot(e, e))
            else:
                squares.add_(surprise(L, e, counted[n]), alpha=2.0)
            if keep:
                memory.means[n], memory.errors[n] = x, e
            if n + 1 == number:
                break
            x = x @ memory.onward + e @ W
            later_P = memory.predict(n, P, W)
            if seen is None and is_steady(P, later_P):
                out = (memory.means[n + 1 :], memory.errors[n + 1 :]) if keep else None
                later = None if counted is None else counted[n + 1 :]
                further = run_steady(block.rows, block.transition, L, W, x, y[n + 1 :], later, out)
                break
            P = later_P
        used, total = slice(n + 1), -0.5 * squares
        sizes, deviations = memory.sizes[used], memory.deviations[used]
        if counted is None:
            total = total - deviations.log().sum((0, -1)).unsqueeze(-1)
        total = total if further is None else total - further
        condition = _condition(block, sizes, deviations, None if seen is None else seen[used])
        condition = torch.where(memory.failed > 0, torch.inf, condition)
        ctx.memory, ctx.last, ctx.cov_shape = memory, n, cov.shape
        ctx.save_for_backward(*block)
        ctx.seen, ctx.counted = seen, counted
        ctx.mark_non_differentiable(condition)
        return total, condition

    @staticmethod
    @first_order("differentiate log_likelihood itself, which has all")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Reverse mode by hand: one pass back over the blocks, all that are alike at once."""
        parts, memory = ctx.saved_tensors, ctx.memory
        rows, transition = parts[:2]
        seen, counted, of_data = ctx.seen, ctx.counted, ctx.needs_input_grad[8]
        weight, n = grads[0].unsqueeze(-1), len(memory.means)
        path = [min(i, ctx.last) for i in range(n)]
        totals = [torch.zeros_like(x) for x in parts]
        of_y: list[Tensor] = [memory.errors[0]] * n
        of_x, of_P = torch.zeros_like(memory.means[0]), torch.zeros_like(memory.covs[0])
        begin, end = shared(path, counted)
        while n > 0:
            alike = n == end > begin
            first = begin if alike else n - 1
            some, at = slice(first, n), path[first]
            blocks = EqualBlocks(
                memory.covs[at],
                memory.factors[at],
                memory.gains[at],
                memory.means[some],
                memory.errors[some],
                None if seen is None else seen[first],
                None if alike or counted is None else counted[first],
            )
            found = adjoint(rows, transition, blocks, weight, of_x, of_P, of_data)
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
    block: BlockModel,
    sizes: Float[Tensor, "N *l K"],
    deviations: Float[Tensor, "N *l M"],
    seen: Float[Tensor, "N *w M"] | None,
) -> Float[Tensor, "*l"]:
    """The largest ratio of what the variance of a row was got from to what is left of it."""
    state = (block.rows.abs() @ sizes.sqrt().unsqueeze(-1)).squeeze(-1).square()
    ratio = (state + block.yy.diagonal(dim1=-2, dim2=-1)) / deviations.square()
    return (ratio if seen is None else ratio * seen).amax((0, -1))


def _summed(grad: Tensor, like: Tensor) -> Tensor:
    return grad if grad.shape == like.shape else grad.sum_to_size(like.shape)
