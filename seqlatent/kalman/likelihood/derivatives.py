"""Functions whose fast form has first derivatives only, and whose plain one has all."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqlatent.kalman.system import Problem

Form = Callable[[Problem], Tensor]


def differentiable(fast: Form, plain: Form, problem: Problem) -> Tensor:
    """A function of a problem by its fast form, in double precision, with derivatives of any order.

    Where the gradient is itself to be differentiated, ``create_graph=True``, it is that of the
    plain form.

    Args:
        fast: The form of the value and of its gradient.
        plain: Another form of the same, of operations that differentiate any number of times.
        problem: What both take; all but the pattern of what was observed may have a gradient.
    """
    parts, others = problem[:9], (problem.observed, problem.diffuse)
    if torch.is_grad_enabled() and any(x.requires_grad for x in parts):
        return _Differentiable.apply(fast, plain, others, *parts)  # type: ignore[return-value]
    return fast(_problem([_double(x) for x in parts], others)).to(problem.F.dtype)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fast: Form,
        plain: Form,
        others: Any,
        *parts: Tensor,
    ) -> Tensor:
        ctx.fast, ctx.plain, ctx.others = fast, plain, others
        ctx.save_for_backward(*parts)
        ctx.recorded = _recorded(ctx, parts)
        return ctx.recorded[1].detach().to(parts[0].dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts, again = ctx.saved_tensors, torch.is_grad_enabled()
        if again:
            inner = [x for x, needed in zip(parts, ctx.needs_input_grad[3:], strict=True) if needed]
            value = ctx.plain(_problem([_double(x) for x in parts], ctx.others))
        else:
            # what was recorded is let go with the first pass, as autograd does by default
            inner, value = ctx.recorded or _recorded(ctx, parts)
            ctx.recorded = None
        found = iter(
            torch.autograd.grad(
                value, inner, grads[0].to(value.dtype), create_graph=again, allow_unused=True
            )
        )
        wanted = zip(parts, ctx.needs_input_grad[3:], strict=True)
        result = [next(found) if needed else None for _, needed in wanted]
        result = [None if g is None else g.to(x.dtype) for g, x in zip(result, parts, strict=True)]
        return None, None, None, *result


def _recorded(ctx: Any, parts: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
    """Copies of what needs a gradient, and the value as a function of them."""
    needed = ctx.needs_input_grad[3:]
    with torch.enable_grad():
        copies = [
            _double(x.detach()).requires_grad_(need) for x, need in zip(parts, needed, strict=True)
        ]
        value = ctx.fast(_problem(copies, ctx.others))
    return [x for x, need in zip(copies, needed, strict=True) if need], value


def _problem(parts: Sequence[Tensor], others: tuple[Tensor, Tensor | None]) -> Problem:
    F, b, Q, m0, P0, H, d, R, y = parts
    return Problem(F, b, Q, m0, P0, H, d, R, y, *others)


def _double(x: Tensor) -> Tensor:
    """In double precision, on devices that have it."""
    return x if x.device.type == "mps" else x.double()
