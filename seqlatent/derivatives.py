"""Derivatives that are written by hand once: what they do not know is refused, never left out."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_order", "once"]

Backward = Callable[..., Any]


def first_order(instead: str) -> Callable[[Backward], Backward]:
    """Marks a backward pass of a ``torch.autograd.Function`` that cannot be differentiated.

    A gradient that is to be differentiated again, ``create_graph=True``, is then an error. With
    torch's own ``once_differentiable`` it is one only where the incoming gradient depends on
    something: where that is constant, as for a sum, terms of the second derivative are silently
    left out.

    Args:
        instead: What to do where a second derivative is needed, a clause of the error.

    Example:
        >>> class Cube(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x**3
        ...     @staticmethod
        ...     @first_order("write x * x * x")
        ...     def backward(ctx, grad):
        ...         return 3 * grad * ctx.saved_tensors[0] ** 2
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> torch.autograd.grad(Cube.apply(x), x, create_graph=True)
        Traceback (most recent call last):
        ...
        RuntimeError: Cube has first derivatives alone, found create_graph=True, which asks for
        second ones; write x * x * x.
    """

    def mark(backward: Backward) -> Backward:
        name = backward.__qualname__.split(".")[-2]

        @wraps(backward)
        def run(ctx: Any, *grads: Any) -> Any:
            _refuse(name, instead)
            return backward(ctx, *grads)

        run.first_order = instead  # type: ignore[attr-defined]
        return run

    return mark


def once(x: Tensor, name: str, instead: str) -> Tensor:
    """The same values, through which a gradient passes once.

    For what was found by iteration and then recorded only as far as its first derivatives go.

    Args:
        x: Values.
        name: What they are, the subject of the error.
        instead: What to do where a second derivative is needed, a clause of the error.
    """
    return _Once.apply(x, name, instead) if x.requires_grad else x  # type: ignore[return-value]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, instead: str) -> Tensor:
        ctx.text = name, instead
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        _refuse(*ctx.text)
        return grads[0], None, None


def _refuse(name: str, instead: str) -> None:
    if torch.is_grad_enabled():  # in a backward pass: it is recorded
        raise RuntimeError(
            f"{name} has first derivatives alone, found create_graph=True, which asks for second "
            f"ones; {instead}."
        )
