"""Sampled paths of a kernel: by a recurrence where it is linear, otherwise step by step."""

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent

from seqlatent.chain.kernels import (
    ConditionallyLinear,
    DiagonalLinear,
    Kernel,
    initial_of,
    next_of,
)
from seqlatent.derivatives import first_order
from seqlatent.distributions import (
    Carried,
    base_noise,
    reparametrise,
    require_proper,
    sample,
    standard_normal,
)
from seqlatent.recurrence import affine_recurrence, linear_recurrence
from seqlatent.sequences import Context

__all__ = ["affine_path", "first_state", "sample_path", "sequential_path"]


def sample_path(
    kernel: Kernel,
    context: Context,
    shape: tuple[int, ...] = (),
    generator: torch.Generator | None = None,
    start: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Samples a path, by a recurrence where the kernel is linear and otherwise step by step.

    Args:
        kernel: The conditionals.
        context: What they condition on, for all steps.
        shape: Leading sample shape.
        generator: Source of randomness.
        start: State before the first step ``(*shape, B, K)``, and which series have one ``(B,)``;
            the others start from the initial distribution.
    """
    if start is None or not bool(start[1].any()):
        if isinstance(kernel, DiagonalLinear):
            return affine_path(kernel, context, shape, generator)[0]
        if isinstance(kernel, ConditionallyLinear):
            return _linear_path(kernel, context, shape, generator)
    elif isinstance(kernel, ConditionallyLinear) and bool(start[1].all()):
        return _continued_path(kernel, context, start[0], generator)
    return sequential_path(kernel, context, shape, generator, start)


def _continued_path(
    kernel: ConditionallyLinear, context: Context, before: Tensor, generator: torch.Generator | None
) -> Tensor:
    F, b, G = kernel.matrices(context)
    *leading, steps = context.shape
    size = Size((*before.shape[:-1], steps, G.shape[-1]))
    eps = step_noise(size, before, generator)
    F = F.expand(*leading, steps, *F.shape[-2:])
    return affine_recurrence(F, b + (G @ eps[..., None])[..., 0], before)


def affine_path(
    kernel: DiagonalLinear,
    context: Context,
    shape: tuple[int, ...],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Paths of independent coordinates that move linearly, by one recurrence, and their noise."""
    loc, scale = kernel.initial_affine(context[0])
    a, b, s = kernel.affine(context[1:])
    batch = context.shape
    eps = step_noise(Size(shape) + batch + loc.shape[-1:], loc, generator)
    start = (loc + scale * eps[..., 0, :]).expand(*shape, *batch[:-1], loc.shape[-1])
    rest = linear_recurrence(
        a.expand(*batch[:-1], batch[-1] - 1, a.shape[-1]), b + s * eps[..., 1:, :], start
    )
    return torch.cat([start[..., None, :], rest], -2), eps


def _linear_path(
    kernel: ConditionallyLinear,
    context: Context,
    shape: tuple[int, ...],
    generator: torch.Generator | None,
) -> Tensor:
    loc, start_factor = kernel.initial_moments(context[0])
    require_proper(start_factor)
    F, b, G = kernel.matrices(context[1:])
    batch, latent_dim = context.shape, F.shape[-1]
    *leading, steps = batch
    eps = standard_normal(Size(shape) + Size(leading) + start_factor.shape[-1:], loc, generator)
    start = (loc + (start_factor @ eps[..., None])[..., 0]).expand(*shape, *leading, latent_dim)
    eps = step_noise(Size(shape) + Size(leading) + (steps - 1,) + G.shape[-1:], loc, generator)
    shocks = b + (G @ eps[..., None])[..., 0]
    F = F.expand(*leading, steps - 1, latent_dim, latent_dim)
    return torch.cat([start[..., None, :], affine_recurrence(F, shocks, start)], -2)


def step_noise(shape: Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws noise step by step, so that a path may be continued later with the same generator."""
    *leading, steps, width = shape
    draws = [standard_normal(Size((*leading, width)), like, generator) for _ in range(steps)]
    return torch.stack(draws, -2) if draws else like.new_zeros(shape)


def sequential_path(
    kernel: Kernel,
    context: Context,
    shape: tuple[int, ...] = (),
    generator: torch.Generator | None = None,
    start: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    r"""Samples a path step by step, at the cost of one recorded call for all steps.

    The loop runs on detached states. Its result is then computed a second time for all steps at
    once, from the detached path and the same noise, and that call is what autograd records; the
    dependence of each step on the one before it is added in the backward pass by the adjoint
    recursion :math:`\lambda_t = g_t + (\partial z_{t+1} / \partial z_t)^\top \lambda_{t+1}`, which
    needs vector-Jacobian products in the state alone. Weight gradients are thus taken once, with a
    batch of ``B * T``, not ``T`` times.

    Falls back to recording the loop where a conditional is no location-scale transform of normal
    noise.

    Args:
        kernel: The conditionals.
        context: What they condition on, for all steps.
        shape: Leading sample shape.
        generator: Source of randomness.
        start: State before the first step ``(*shape, B, K)``, and which series have one ``(B,)``;
            the others start from the initial distribution.
    """
    steps = context.unbind()
    z = first_state(kernel, steps[0], Size(shape), generator, start)
    if len(steps) == 1:
        return z[..., None, :]
    if not _is_pathwise(next_of(kernel, z, steps[1])):
        path = [z]
        for c in steps[1:]:
            path.append(sample(kernel(path[-1], c), (), generator))
        return torch.stack(path, -2)
    record = torch.is_grad_enabled()
    previous, following, eps = [], [], []
    state = z
    for c in (c.detach() for c in steps[1:]):
        state = state.detach().requires_grad_(record)
        distribution = kernel(state, c)
        previous.append(state)
        eps.append(base_noise(distribution, (), generator))
        state = reparametrise(distribution, eps[-1])
        following.append(state)
    if not record:
        return torch.stack([z, *following], -2)
    with torch.no_grad():
        before = torch.stack(previous, -2)
    again = reparametrise(kernel(before, context[1:]), torch.stack(eps, -2))
    return _Adjoint.apply(z, again, previous, following)


def first_state(
    kernel: Kernel,
    c: Context,
    shape: Size,
    generator: torch.Generator | None,
    start: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Draws the first state: initially or, where there is a past, from its end."""
    if start is None or not bool(start[1].any()):
        return sample(initial_of(kernel, c), shape, generator)
    state, started = start
    moved = next_of(kernel, state, c)
    if bool(started.all()):
        return sample(moved, (), generator)
    fresh = initial_of(kernel, c)
    return torch.where(
        started[:, None], sample(moved, (), generator), sample(fresh, shape, generator)
    )


def _is_pathwise(distribution: Distribution) -> bool:
    if isinstance(distribution, Carried) and distribution.base is not None:
        return _is_pathwise(distribution.base)
    if isinstance(distribution, Independent):
        return _is_pathwise(distribution.base_dist)
    return base_noise.dispatch(type(distribution)) is not base_noise.dispatch(object)


class _Adjoint(torch.autograd.Function):
    """Joins the first state and the recorded steps, and chains their gradients backwards."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        rest: Tensor,
        previous: list[Tensor],
        following: list[Tensor],
    ) -> Tensor:
        ctx.links = previous, following
        return torch.cat([first[..., None, :], rest], -2)

    @staticmethod
    @first_order("sample with a Parallel posterior, or take differences of gradients")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.links is None:
            raise RuntimeError(
                "the gradient of a path that was sampled step by step can be taken once, found a "
                "second backward pass; add the objectives up, or sample another path."
            )
        previous, following = ctx.links
        ctx.links = None
        steps = grads[0].unbind(-2)
        adjoint = steps[-1]
        adjoints = [adjoint]
        for t in range(len(previous) - 1, -1, -1):
            with torch.enable_grad():
                (flow,) = torch.autograd.grad(following[t], previous[t], adjoint, allow_unused=True)
            adjoint = steps[t] if flow is None else steps[t] + flow
            adjoints.append(adjoint)
        adjoints.reverse()
        return adjoints[0], torch.stack(adjoints[1:], -2), None, None
