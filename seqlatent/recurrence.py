"""Linear recurrences over time, hidden from autograd in one function with a hand-written backward.

The gradient of a linear recurrence is a linear recurrence that runs the other way, so a forward and
a backward pass are two loops over time that autograd never records. The function below is paired
with its adjoint and each is the other's derivative: they differentiate any number of times.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Inexact
from torch import Tensor

__all__ = ["affine_recurrence", "linear_recurrence"]

# Elements per step from which the loop is at least as fast as the scan on a CPU; at a single series
# of a thousand steps the scan is seven times faster.
_WIDE = 512


def linear_recurrence(
    a: Tensor, b: Tensor, initial: Tensor | None = None, *, reverse: bool = False
) -> Tensor:
    r"""The path of a diagonal linear recurrence, all steps at once.

    .. math:: h_t = a_t \odot h_{t-1} + b_t, \qquad h_0 = \text{initial}

    On a CPU this is :func:`linear_recurrence_loop`; on any other device, and where a step is too
    small to be worth launching by itself, :func:`linear_recurrence_scan`. They agree to rounding.

    Args:
        a: Coefficients, real or complex, of any modulus. Axes broadcast against those of ``b`` from
            the right: ``(K,)`` is constant in time and ``(B, T, K)`` is shared by samples.
            Coefficients that differ by series but not in time need their axis: ``(B, 1, K)``.
        b: Inputs.
        initial: State before the first step (``reverse``: after the last); zero by default.
        reverse: Run from the last step to the first, :math:`h_t = a_t \odot h_{t+1} + b_t`.

    Shape:
        a, b ``(*L, T, K)`` after broadcasting, initial ``(*L, K)`` -> ``(*L, T, K)``.

    Example:
        >>> a, b = torch.tensor([0.5]), torch.ones(3, 1)
        >>> linear_recurrence(a, b).squeeze(-1)
        tensor([1.0000, 1.5000, 1.7500])
        >>> linear_recurrence(a, 0 * b, torch.tensor([8.0]), reverse=True).squeeze(-1)
        tensor([1., 2., 4.])

    References:
        Parallelizing Linear Recurrent Neural Nets Over Sequence Length (Martin & Cundy, 2018).
        https://arxiv.org/abs/1709.04057
    """
    return _diagonal(a, b, initial, reverse, None)


def linear_recurrence_loop(
    a: Tensor, b: Tensor, initial: Tensor | None = None, *, reverse: bool = False
) -> Tensor:
    """The path of a diagonal linear recurrence by an in-place loop over time.

    The fastest way where a step has many elements and launching an operation is cheap. Arguments
    and shapes are those of :func:`linear_recurrence`.

    Example:
        >>> linear_recurrence_loop(torch.ones(1), torch.ones(4, 1), reverse=True).squeeze(-1)
        tensor([4., 3., 2., 1.])
    """
    return _diagonal(a, b, initial, reverse, _LOOP)


def linear_recurrence_scan(
    a: Tensor, b: Tensor, initial: Tensor | None = None, *, reverse: bool = False
) -> Tensor:
    r"""The path of a diagonal linear recurrence by an associative scan.

    Two neighbouring steps compose into one, :math:`(a_2 a_1,\; a_2 b_1 + b_2)`. Composing pairs
    recursively takes :math:`2 \log_2 T` rounds, of work linear in :math:`T` altogether. Nothing is
    divided, so zeros and growth are as exact as in the loop. Arguments and shapes are those of
    :func:`linear_recurrence`.

    Example:
        >>> linear_recurrence_scan(torch.ones(1), torch.ones(4, 1)).squeeze(-1)
        tensor([1., 2., 3., 4.])

    References:
        Prefix Sums and Their Applications (Blelloch, 1990).
    """
    return _diagonal(a, b, initial, reverse, _SCAN)


def affine_recurrence(
    F: Tensor, b: Tensor, initial: Tensor | None = None, *, reverse: bool = False
) -> Tensor:
    r"""The path of a linear recurrence whose coefficients are matrices.

    .. math:: h_t = F_t\, h_{t-1} + b_t, \qquad h_0 = \text{initial}

    A loop over time. Leading axes along which ``F`` is shared become the rows of one matrix product
    per step, so a ``(K, K)`` costs a single product per step for the whole batch.

    Args:
        F: Coefficients; axes broadcast against those of ``b`` from the right. ``(K, K)`` is
            constant, ``(T, K, K)`` is shared by series, ``(B, 1, K, K)`` differs by series only.
        b: Inputs.
        initial: State before the first step (``reverse``: after the last); zero by default.
        reverse: Run from the last step to the first, :math:`h_t = F_t h_{t+1} + b_t`.

    Shape:
        F ``(*L, T, K, K)`` and b ``(*L, T, K)`` after broadcasting, initial ``(*L, K)`` ->
        ``(*L, T, K)``.

    Example:
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> affine_recurrence(turn, torch.ones(2, 2), torch.tensor([1.0, 0.0]))
        tensor([[ 1.,  2.],
                [-1.,  2.]])
    """
    *lead, steps = _affine_shape(F, b, initial)
    size = F.shape[-1]
    b = b.expand(*lead, steps, size)
    if steps == 0:
        return b if initial is None else b + initial.unsqueeze(-2)
    F = F.reshape((1,) * (len(lead) + 3 - F.dim()) + F.shape)
    # Axes along which F differs come first, as a batch; the others are the rows of a product.
    axes = range(len(lead))
    order = [i for i in axes if F.shape[i] == lead[i]] + [i for i in axes if F.shape[i] != lead[i]]
    batched = sum(F.shape[i] == lead[i] for i in axes)
    batch, rows = [lead[i] for i in order[:batched]], [lead[i] for i in order[batched:]]
    n, p = torch.Size(batch).numel(), torch.Size(rows).numel()
    last = len(lead)
    # (last + 2, last + 1) transposes: rows are multiplied from the right.
    F = F.permute(last, *order, last + 2, last + 1).reshape(F.shape[last], n, size, size)
    b = b.permute(last, *order, last + 1).reshape(steps, n, p, size)
    if initial is not None:
        initial = initial.expand(*lead, size).permute(*order, last).reshape(n, p, size)
    h = _apply(_Recurrence, F, b, initial, reverse, _MATRIX)
    places = [1 + order.index(i) for i in axes]
    return h.reshape(steps, *batch, *rows, size).permute(*places, 0, last + 1)


def _diagonal(
    a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool, algebra: "_Algebra | None"
) -> Tensor:
    shape = _diagonal_shape(a, b, initial)
    *lead, steps, size = shape
    a, b = a.expand(shape), b.expand(shape)
    if steps == 0:
        return a * b if initial is None else a * b + initial.unsqueeze(-2)
    if initial is not None:
        initial = initial.expand(*lead, size)
    if algebra is None:
        wide = shape.numel() >= _WIDE * steps
        algebra = _LOOP if wide and b.device.type == "cpu" else _SCAN
    h = _apply(_Recurrence, a.movedim(-2, 0), b.movedim(-2, 0), initial, reverse, algebra)
    return h.movedim(0, -2)


def _diagonal_shape(a: Tensor, b: Tensor, initial: Tensor | None) -> torch.Size:
    tensors = _same_kind("linear_recurrence", {"a": a, "b": b, "initial": initial})
    found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
    wanted = (
        "linear_recurrence expected a and b of shape (*L, T, K) and initial of shape (*L, K), "
        f"found {found}"
    )
    if max(a.dim(), b.dim()) < 2 or (initial is not None and initial.dim() < 1):
        raise ValueError(f"{wanted}. Give a or b a time axis before the last: b.unsqueeze(-2).")
    shapes = [a.shape, b.shape]
    if initial is not None:
        shapes.append(initial.unsqueeze(-2).shape)
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        raise ValueError(
            f"{wanted}, which do not broadcast. Coefficients that are constant in time but differ "
            "by series need a time axis of length 1: a.unsqueeze(-2)."
        ) from None


def _affine_shape(F: Tensor, b: Tensor, initial: Tensor | None) -> torch.Size:
    tensors = _same_kind("affine_recurrence", {"F": F, "b": b, "initial": initial})
    found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
    wanted = (
        "affine_recurrence expected F of shape (*L, T, K, K), b of shape (*L, T, K) and initial of "
        f"shape (*L, K), found {found}"
    )
    if F.dim() < 2 or b.dim() < 1 or max(F.dim() - 1, b.dim()) < 2:
        raise ValueError(f"{wanted}. Give F or b a time axis: b.unsqueeze(-2).")
    if {F.shape[-2:], *(2 * x.shape[-1:] for x in tensors.values())} != {2 * F.shape[-1:]}:
        raise ValueError(f"{wanted}. Make F square and the last axis of all of them K long.")
    shapes = [F.shape[:-2], b.shape[:-1]]
    if initial is not None:
        shapes.append(initial.unsqueeze(-2).shape[:-1])
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        raise ValueError(
            f"{wanted}, which do not broadcast. Matrices that are constant in time but differ by "
            "series need a time axis of length 1: F.unsqueeze(-3)."
        ) from None


def _same_kind(what: str, candidates: dict[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {
        name: x for name, x in candidates.items() if x is not None or name != "initial"
    }
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{what} expected a torch.Tensor for {name}, found {type(x).__name__}. "
                "Convert it with torch.as_tensor(...)."
            )
    kinds = {(x.dtype, x.device) for x in tensors.values()}
    if len(kinds) > 1 or not all(d.is_floating_point or d.is_complex for d, _ in kinds):
        found = ", ".join(f"{name} {x.dtype} on {x.device}" for name, x in tensors.items())
        raise TypeError(
            f"{what} expected tensors of one floating or complex dtype on one device, "
            f"found {found}. Convert them with .to(...)."
        )
    return tensors


# --- Below, time is the first axis of everything ------------------------------------------------


class _Algebra(NamedTuple):
    """How a coefficient acts on a state: elementwise, or as a matrix from the right."""

    path: Callable[[Tensor, Tensor, Tensor | None, bool, bool], Tensor]
    act: Callable[[Tensor, Tensor], Tensor]  # (h, a) -> h a
    adjoint: Callable[[Tensor], Tensor]  # a -> a^H
    outer: Callable[[Tensor, Tensor, int], Tensor]  # (h, g, steps of a) -> the gradient of a


class _Recurrence(torch.autograd.Function):
    """h_t = h_{t-1} a_t + b_t."""

    @staticmethod
    def forward(
        a: Inexact[Tensor, "..."],
        b: Inexact[Tensor, "T *L K"],
        initial: Inexact[Tensor, "*L K"] | None,
        reverse: bool,
        algebra: _Algebra,
    ) -> Inexact[Tensor, "T *L K"]:
        return algebra.path(a, b, initial, reverse, False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, initial, ctx.reverse, ctx.algebra = inputs
        ctx.save_for_backward(a, initial, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, initial, h = ctx.saved_tensors
        algebra, back = ctx.algebra, ctx.algebra.adjoint(a)
        g = _apply(_Adjoint, back, grads[0], ctx.reverse, algebra)
        grad_a = grad_initial = None
        if ctx.needs_input_grad[0]:
            start = torch.zeros_like(h[0]) if initial is None else initial
            grad_a = algebra.outer(_previous(h, start, ctx.reverse), g, len(a))
        if ctx.needs_input_grad[2]:
            first = -1 if ctx.reverse else 0
            grad_initial = algebra.act(g[first], back[first])
        return grad_a, g, grad_initial, None, None


class _Adjoint(torch.autograd.Function):
    """g_t = g_{t+1} a_{t+1} + x_t: `_Recurrence` as a map of its inputs b, transposed."""

    @staticmethod
    def forward(
        a: Inexact[Tensor, "..."], x: Inexact[Tensor, "T *L K"], reverse: bool, algebra: _Algebra
    ) -> Inexact[Tensor, "T *L K"]:
        return algebra.path(a, x, None, not reverse, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, ctx.reverse, ctx.algebra = inputs
        ctx.save_for_backward(a, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, g = ctx.saved_tensors
        algebra = ctx.algebra
        h = _apply(_Recurrence, algebra.adjoint(a), grads[0], None, ctx.reverse, algebra)
        grad_a = None
        if ctx.needs_input_grad[0]:
            # The coefficient of step t took g_t into the step before it.
            before = _previous(h, torch.zeros_like(h[0]), ctx.reverse)
            grad_a = algebra.outer(g, before, len(a))
        return grad_a, h, None, None


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    return function.apply(*inputs)  # type: ignore[return-value]


def _previous(h: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """The states that the steps start from, in the layout of h, which a `torch.cat` would lose."""
    before = torch.empty_like(h)
    if reverse:
        before[:-1], before[-1] = h[1:], start
    else:
        before[1:], before[0] = h[:-1], start
    return before


def _loop(
    step: Callable[..., Tensor],
    a: Tensor,
    b: Tensor,
    initial: Tensor | None,
    reverse: bool,
    lagged: bool,
) -> Tensor:
    """The path by a loop; ``lagged`` takes the coefficient of the step that a step comes from."""
    h = torch.empty_like(b)  # in the layout of b: no copy before the layer that reads it
    h_steps, b_steps, a_steps = h.unbind(), b.resolve_conj().unbind(), a.resolve_conj().unbind()
    if len(a_steps) == 1:
        a_steps = a_steps * len(b_steps)
    order = range(len(b_steps) - 1, -1, -1) if reverse else range(len(b_steps))
    before = order[0]
    if initial is None:
        h_steps[before].copy_(b_steps[before])
    else:
        step(b_steps[before], initial, a_steps[before], out=h_steps[before])
    for t in order[1:]:
        step(b_steps[t], h_steps[before], a_steps[before if lagged else t], out=h_steps[t])
        before = t
    return h


def _scan(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool, lagged: bool) -> Tensor:
    """The path by an associative scan; arguments as in `_loop`."""
    if reverse:
        a, b = a.flip(0), b.flip(0)
    if lagged:
        a = a.roll(1, 0)  # without an initial state the first coefficient is not used
    if initial is not None:
        b = torch.cat([torch.addcmul(b[:1], a[:1], initial[None]), b[1:]])
    h = _compose(a, b)
    return h.flip(0) if reverse else h


def _compose(a: Tensor, b: Tensor) -> Tensor:
    steps, half = len(b), len(b) // 2
    if steps == 1:
        return b.clone()
    a_odd, a_even, b_even = a[1::2], a[: 2 * half : 2], b[: 2 * half : 2]
    odd = _compose(a_odd * a_even, torch.addcmul(b[1::2], a_odd, b_even))
    h = torch.empty_like(b)
    h[0], h[1::2] = b[0], odd
    torch.addcmul(b[2::2], a[2::2], odd[: (steps - 1) // 2], out=h[2::2])
    return h


def _product(h: Tensor, g: Tensor, steps: int) -> Tensor:
    return h.conj() * g


def _outer(h: Tensor, g: Tensor, steps: int) -> Tensor:
    """The sum of h^H g over rows and, where the matrix is the same at all steps, over time."""
    if steps == 1:
        h, g = h.transpose(0, 1).flatten(1, 2)[None], g.transpose(0, 1).flatten(1, 2)[None]
    return h.mH @ g


_LOOP = _Algebra(partial(_loop, torch.addcmul), torch.mul, torch.conj, _product)
_SCAN = _Algebra(_scan, torch.mul, torch.conj, _product)
_MATRIX = _Algebra(partial(_loop, torch.baddbmm), torch.matmul, lambda F: F.mH, _outer)
