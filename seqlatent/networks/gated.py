"""Paths of gated recurrent units by a loop that autograd does not record."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlatent.derivatives import first_order

__all__ = []


def gated_path(layer: nn.Module, x: Tensor, start: Tensor) -> Tensor:
    """States of a ``torch.nn.GRU``; for a gradient on a CPU, by a loop that autograd skips."""
    if not torch.is_grad_enabled() or x.device.type != "cpu":
        return layer(x, start)[0]
    own = dict(layer.named_parameters())
    known = functional.linear(x.transpose(0, 1), own["weight_ih_l0"], own["bias_ih_l0"])
    path = _Gated.apply(known, start[0], own["weight_hh_l0"], own["bias_hh_l0"])
    return path.transpose(0, 1)  # type: ignore[union-attr]


class _Gated(torch.autograd.Function):
    """States ``(T, N, H)`` of gated recurrent units, given what inputs add to the gates.

    Backwards, the slopes of all steps are computed at once, the loop only multiplies, and the
    gradient of the weight is one product over all steps.
    """

    @staticmethod
    def forward(ctx: Any, known: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, rows, H = *known.shape[:2], start.shape[-1]
        path = known.new_empty(steps + 1, rows, H)
        path[0] = start
        y, new = known.new_empty(steps, rows, 3 * H), known.new_empty(steps, rows, H)
        gates, reset, update, hidden = y[..., : 2 * H], *y.chunk(3, -1)
        inputs = known.split((2 * H, H), -1)
        buffers = (*inputs, y, gates, reset, update, hidden, new, path[:-1], path[1:])
        for x_gates, x_new, o, both, r, u, h_new, n, h, out in zip(
            *(b.unbind(0) for b in buffers), strict=True
        ):
            torch.addmm(bias, h, weight.mT, out=o)
            both.add_(x_gates).sigmoid_()
            torch.addcmul(x_new, r, h_new, out=n).tanh_()
            torch.lerp(n, h, u, out=out)
        ctx.save_for_backward(path, y, new, weight)
        return path[1:]

    @staticmethod
    @first_order("call the GRU itself, or a MinGRU, which has all")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        path, y, new, weight = ctx.saved_tensors
        reset, update, h_new = y.chunk(3, -1)
        shut = 1 - update
        to_update = (path[:-1] - new).mul_(update).mul_(shut)
        to_new = shut.mul_(1 - new.square())
        to_reset = h_new * reset * (1 - reset)
        d_y, d_new = torch.empty_like(y), torch.empty_like(new)
        adjoints = torch.cat([torch.zeros_like(path[:1]), grads[0]])
        buffers = (to_reset, to_update, to_new, reset, update, d_new, d_y, *d_y.chunk(3, -1))
        views = zip(*(b.unbind(0) for b in (*buffers, adjoints[:-1], adjoints[1:])), strict=True)
        for a_r, a_u, a_n, r, u, d_n, d, d_r, d_u, d_h, before, grad in reversed([*views]):
            torch.mul(grad, a_n, out=d_n)
            torch.mul(d_n, a_r, out=d_r)
            torch.mul(grad, a_u, out=d_u)
            torch.mul(d_n, r, out=d_h)
            before.addmm_(d, weight).addcmul_(grad, u)
        d_known = torch.cat([d_y[..., : -new.shape[-1]], d_new], -1)
        d_weight = d_y.flatten(0, 1).mT @ path[:-1].flatten(0, 1)
        return d_known, adjoints[0], d_weight, d_y.sum((0, 1))
