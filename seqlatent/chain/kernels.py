"""Kernels: the conditionals of a Markov chain, and what a kernel may know about itself."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.fused import FusedSampler, Steps
from seqlatent.sequences import Context

__all__ = [
    "ConditionallyLinear",
    "Correction",
    "DiagonalLinear",
    "FusedSteps",
    "Kernel",
    "Marginal",
    "Sampled",
]


@runtime_checkable
class Kernel(Protocol):
    """The conditionals of a Markov chain: a transition, or a transition corrected by data."""

    def initial(self, c: Context) -> Distribution:
        """Distribution of the first state, event ``(K,)``."""
        ...

    def __call__(self, z: Tensor, c: Context) -> Distribution:
        """Distribution of the next state given the last, for one step or for all steps at once."""
        ...


def initial_of(kernel: Kernel, c: Context) -> Distribution:
    """The first state of a kernel.

    Raises:
        TypeError: If it is no distribution of a vector.
        ValueError: If it is not that of each series.
    """
    found = _vector(kernel, "initial", kernel.initial(c))
    batch = tuple(found.batch_shape)
    if batch[len(batch) - len(c.shape) :] != tuple(c.shape):
        raise ValueError(
            f"{type(kernel).__name__}.initial must return a distribution for each series, of batch "
            f"{tuple(c.shape)}, found batch {batch} and event {tuple(found.event_shape)}; give its "
            "parameters the axes of the context, as loc.expand(*c.shape, latent_dim)."
        )
    return found


def next_of(kernel: Kernel, z: Tensor, c: Context) -> Distribution:
    """The next state of a kernel given the last.

    Raises:
        TypeError: If it is no distribution of a vector.
    """
    return _vector(kernel, "forward", kernel(z, c))


def _vector(kernel: Kernel, method: str, found: Distribution) -> Distribution:
    if len(found.event_shape) == 1:
        return found
    raise TypeError(
        f"{type(kernel).__name__}.{method} must return a distribution of the whole state, with one "
        f"event axis, found {type(found).__name__} of batch {tuple(found.batch_shape)} and event "
        f"{tuple(found.event_shape)}; write Independent(..., 1), or "
        "seqlatent.distributions.diagonal_normal(loc, scale)."
    )


class DiagonalLinear(ABC):
    """A kernel whose coordinates evolve independently and linearly: sampled without a loop."""

    @abstractmethod
    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``(..., K)`` of the first state."""

    @abstractmethod
    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Slope, offset and scale ``(..., K)`` of ``z_t = a_t z_{t-1} + b_t + scale_t eps_t``."""


class Sampled(ABC):
    """A kernel that knows a shorter way to its paths than step by step."""

    @abstractmethod
    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        """Draws reparametrised paths ``(*shape, B, T, K)``, and gives its conditionals if known.

        The distributions are those of the first step and of the others, as in
        :meth:`Chain.conditionals`.
        """


class Marginal(ABC):
    """A kernel that knows the normal marginal of every state, its coordinates independent."""

    @abstractmethod
    def marginals(self, c: Context) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every state ``(..., T, K)``."""


class ConditionallyLinear(ABC):
    """A kernel that is linear in the last state with matrices: sampled by a matrix recurrence."""

    @abstractmethod
    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        """Mean ``(..., K)`` and factor ``(..., K, R)`` of the covariance of the first state."""

    @abstractmethod
    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """``F (..., K, K)``, ``b (..., K)``, ``G (..., K, R)`` of ``z_t = F z_{t-1} + b + G e``."""


class FusedSteps(ABC):
    """A transition whose steps and their derivatives are written by hand."""

    @abstractmethod
    def steps(self, c: Context, samples: int) -> Steps:
        """The steps in a context of several, for a number of samples of each series."""

    def along(self, z: Tensor) -> Distribution | None:
        """Distributions of states that the steps led to, where the states themselves show them."""
        return None

    @property
    def steps_follow_forward(self) -> bool:
        """Whether the steps are those of ``forward``: a subclass may have changed that alone."""
        homes = [
            next(kind for kind in type(self).__mro__ if name in vars(kind))
            for name in ("forward", "steps")
        ]
        return homes[0] is homes[1]


class Correction(ABC):
    """Conditionals of a posterior chain: the model's transition, corrected by what the data say.

    Args:
        transition: The model's transition.
        needs_prior: Whether the correction reads the transition's own conditional.
    """

    def __init__(self, transition: Kernel, needs_prior: bool = True) -> None:
        self.transition = transition
        self.needs_prior = needs_prior

    def initial(self, c: Context) -> Distribution:
        """Distribution of the first state."""
        return self.correct(initial_of(self.transition, c), None, c)

    def __call__(self, z: Tensor, c: Context) -> Distribution:
        """Distribution of the next state given the last."""
        return self.correct(next_of(self.transition, z, c) if self.needs_prior else None, z, c)

    @abstractmethod
    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        """The corrected conditional, from the transition's ``p`` and the last state, or None."""

    def fused_sampler(self, c: Context, samples: int) -> FusedSampler | None:
        """Steps with derivatives written by hand, None where there are none."""
        return None

    def along(
        self, z: Tensor, parameters: tuple[Tensor, ...]
    ) -> tuple[Distribution | None, Distribution]:
        """The transition's conditionals, if known, and the corrected ones of a drawn path."""
        raise NotImplementedError
