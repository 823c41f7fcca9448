"""Fused samplers: paths drawn by a loop that autograd does not see, with derivatives by hand.

A fused sampler draws all steps of a chain on rows ``(N, .)``, one for each sample of each series,
and knows the derivative of its steps. What depends on the context alone is computed beforehand for
all steps at once, and enters as an input ``(T, N, .)`` beside the weights. Backwards, the slopes of
all steps are computed at once, so that the loop only multiplies; the gradient of a weight is then
one product over all steps.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from seqlatent.derivatives import first_order

__all__ = [
    "FusedSampler",
    "Steps",
    "by_step",
    "gradient_of_known",
    "known_by_step",
    "outer",
    "views_by_step",
]


class Steps(ABC):
    """Steps of a transition and their derivatives, of which fused samplers are made.

    Attributes:
        inputs: Tensors that receive a gradient.
    """

    inputs: tuple[Tensor, ...]

    @abstractmethod
    def begin(self, steps: int, rows: int) -> None:
        """Allocates what the steps keep."""


class FusedSampler(ABC):
    """Steps of a chain, their parameters, and their derivatives; used for one path.

    Attributes:
        inputs: Tensors that receive a gradient.
    """

    inputs: tuple[Tensor, ...]

    @abstractmethod
    def begin(self, steps: int, rows: int) -> None:
        """Allocates what the steps keep."""

    @abstractmethod
    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        """Writes the next state."""

    @abstractmethod
    def parameters(self) -> tuple[Tensor, ...]:
        """Parameters ``(T, N, K)`` of the parameters along the path."""

    @abstractmethod
    def linearise(self, states: Tensor, eps: Tensor, parameters: tuple[Tensor, ...]) -> None:
        """Computes the slopes of all steps, given the gradients in the parameters."""

    @abstractmethod
    def back(self, t: int, grad: Tensor) -> Tensor:
        """Gradient in the state before step ``t``, given that in the state after it."""

    @abstractmethod
    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the inputs, given those in the states after each step."""

    def path(self, first: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
        """States ``(T + 1, N, K)`` from the first one on, and the parameters of the parameters."""
        return _Path.apply(self, first, eps, *self.inputs)  # type: ignore[return-value]


class _Path(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sampler: FusedSampler, first: Tensor, eps: Tensor, *inputs: Tensor
    ) -> Any:
        sampler.begin(len(eps), len(first))
        states = first.new_empty(len(eps) + 1, *first.shape)
        states[0] = first
        places = states.unbind(0)
        for t, noise in enumerate(eps.unbind(0)):
            sampler.step(t, places[t], noise, places[t + 1])
        ctx.sampler = sampler
        ctx.save_for_backward(states, eps)
        return (states, *sampler.parameters())

    @staticmethod
    @first_order("sample with a Parallel posterior, or take differences of gradients")
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        sampler, ctx.sampler = ctx.sampler, None
        if sampler is None:
            raise RuntimeError(
                "the gradient of a path that was sampled step by step can be taken once, found a "
                "second backward pass; add the objectives up, or sample another path."
            )
        states, eps = ctx.saved_tensors
        sampler.linearise(states, eps, grads[1:])
        adjoints = grads[0].clone(memory_format=torch.contiguous_format)
        steps = adjoints.unbind(0)
        for t in range(len(eps) - 1, -1, -1):
            steps[t].add_(sampler.back(t, steps[t + 1]))
        return None, adjoints[0], None, *sampler.gradients(adjoints[1:])


def by_step(x: Tensor, samples: int) -> Tensor:
    """Values ``(B, T, .)`` as ``(T, N, .)``, repeated for every sample of a series."""
    x = x.transpose(0, 1)
    if samples == 1:
        return x.contiguous()
    return x[:, None].expand(-1, samples, -1, -1).flatten(1, 2)


def views_by_step(*buffers: Tensor | list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Views of every step: taken once, because taking them in the loop costs as much as a sum."""
    return [*zip(*(x.unbind(0) if isinstance(x, Tensor) else x for x in buffers), strict=True)]


def known_by_step(known: Tensor, steps: int) -> Tensor | list[Tensor]:
    """What is added at each step: of its own ``(T, N, .)``, or the same ``(.,)`` at all."""
    return known if known.ndim == 3 else [known] * steps


def gradient_of_known(grad: Tensor, known: Tensor) -> Tensor:
    """The gradient of what is added at each step, from those at all steps."""
    return grad if known.ndim == 3 else grad.sum((0, 1))


def outer(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of a weight, given those in its outputs and its inputs at all steps."""
    return grad.flatten(0, 1).mT @ x.reshape(-1, x.shape[-1])
