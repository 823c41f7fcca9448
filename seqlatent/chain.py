"""Chains: distributions over whole latent paths. The prior is one, and so is every posterior."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution, Independent

from seqlatent.distributions import Carried, draw, noise, place, standard_normal
from seqlatent.recurrence import affine_recurrence, linear_recurrence
from seqlatent.sequences import Context

__all__ = ["Affine", "Chain", "Correction", "Kernel", "Linear", "MarkovChain"]


@runtime_checkable
class Kernel(Protocol):
    """The conditionals of a Markov chain: a transition, or a transition corrected by data."""

    def initial(self, c: Context) -> Distribution:
        """Law of the first state, event ``(K,)``."""
        ...

    def __call__(self, z: Tensor, c: Context) -> Distribution:
        """Law of the next state given the last, for one step or for all steps at once."""
        ...


class Affine(ABC):
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
    ) -> Tensor:
        """Draws reparametrised paths ``(*shape, B, T, K)``."""


class Linear(ABC):
    """A kernel that is linear in the last state with matrices: sampled by a matrix recurrence."""

    @abstractmethod
    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        """Mean ``(..., K)`` and factor ``(..., K, R)`` of the covariance of the first state."""

    @abstractmethod
    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """``F (..., K, K)``, ``b (..., K)``, ``G (..., K, R)`` of ``z_t = F z_{t-1} + b + G e``."""


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
        """Law of the first state."""
        return self.correct(self.transition.initial(c), None, c)

    def __call__(self, z: Tensor, c: Context) -> Distribution:
        """Law of the next state given the last."""
        return self.correct(self.transition(z, c) if self.needs_prior else None, z, c)

    @abstractmethod
    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        """The corrected law, from the transition's ``p`` and the last state, None at first."""


class Chain(ABC):
    """A distribution over latent paths ``z`` of shape ``(*S, B, T, K)``.

    Attributes:
        context: What the chain conditions on, for all steps.
    """

    context: Context

    @abstractmethod
    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws reparametrised paths ``(*shape, B, T, K)``."""

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "*S B T K"]) -> Float[Tensor, "*S B T"]:
        """Log density of each step of a path given the step before it."""

    @abstractmethod
    def conditionals(
        self, z: Float[Tensor, "*S B T K"], prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        """Laws of step 1, batch ``(B,)``, and of the others given the path, ``(*S, B, T-1)``.

        Args:
            z: Path.
            prior: The prior's conditionals on the same path, where they are at hand: a posterior
                that corrects them need not compute them again.
        """


class MarkovChain(Chain):
    r"""Markov chain over the steps of a batch.

    .. math:: p(z_{1:T}) = p(z_1 \mid c_1) \prod_{t=2}^T p(z_t \mid z_{t-1}, c_t)

    Densities are evaluated for all steps at once. Sampling takes the shortest way that the kernel
    allows: a recurrence where it is linear, else a loop of which autograd sees only one call for
    all steps.

    Args:
        kernel: The conditionals: a transition, or what an inference made of it.
        context: What they condition on, for all steps.

    Example:
        >>> walk = seqlatent.transitions.LocalLevel()
        >>> chain = MarkovChain(walk, Context.regular(3, 5))
        >>> z = chain.rsample((10,))
        >>> z.shape, chain.log_prob(z).shape
        (torch.Size([10, 3, 5, 1]), torch.Size([10, 3, 5]))
    """

    def __init__(self, kernel: Kernel, context: Context) -> None:
        self.kernel = kernel
        self.context = context

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        if isinstance(self.kernel, Sampled):
            return self.kernel.path(self.context, shape, generator)
        return sample_path(self.kernel, self.context, shape, generator)

    def log_prob(self, z: Float[Tensor, "*S B T K"]) -> Float[Tensor, "*S B T"]:
        first, rest = self.conditionals(z)
        start = first.log_prob(z[..., 0, :])
        if z.shape[-2] == 1:  # torch's Independent cannot sum over an axis of no steps
            return start[..., None]
        return torch.cat([start[..., None], rest.log_prob(z[..., 1:, :])], -1)

    def conditionals(
        self, z: Float[Tensor, "*S B T K"], prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        first, rest, before = self.context[0], self.context[1:], z[..., :-1, :]
        if prior is not None and isinstance(self.kernel, Correction):
            return self.kernel.correct(prior[0], None, first), self.kernel.correct(
                prior[1], before, rest
            )
        return self.kernel.initial(first), self.kernel(before, rest)


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
            the others start from the initial law.
    """
    if start is None or not bool(start[1].any()):
        if isinstance(kernel, Affine):
            return affine_path(kernel, context, shape, generator)[0]
        if isinstance(kernel, Linear):
            return _linear_path(kernel, context, shape, generator)
    elif isinstance(kernel, Linear) and bool(start[1].all()):
        return _continued_path(kernel, context, start[0], generator)
    return sequential_path(kernel, context, shape, generator, start)


def _continued_path(
    kernel: Linear, context: Context, before: Tensor, generator: torch.Generator | None
) -> Tensor:
    F, b, G = kernel.matrices(context)
    *leading, steps = context.shape
    size = Size((*before.shape[:-1], steps, G.shape[-1]))
    eps = _step_noise(size, before, generator)
    F = F.expand(*leading, steps, *F.shape[-2:])
    return affine_recurrence(F, b + (G @ eps[..., None])[..., 0], before)


def affine_path(
    kernel: Affine, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Paths of independent coordinates that move linearly, by one recurrence, and their noise."""
    loc, scale = kernel.initial_affine(context[0])
    a, b, s = kernel.affine(context[1:])
    batch = context.shape
    eps = _step_noise(Size(shape) + batch + loc.shape[-1:], loc, generator)
    start = (loc + scale * eps[..., 0, :]).expand(*shape, *batch[:-1], loc.shape[-1])
    rest = linear_recurrence(
        a.expand(*batch[:-1], batch[-1] - 1, a.shape[-1]), b + s * eps[..., 1:, :], start
    )
    return torch.cat([start[..., None, :], rest], -2), eps


def _linear_path(
    kernel: Linear, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    loc, start_factor = kernel.initial_moments(context[0])
    F, b, G = kernel.matrices(context[1:])
    batch, latent_dim = context.shape, F.shape[-1]
    *leading, steps = batch
    eps = standard_normal(Size(shape) + Size(leading) + start_factor.shape[-1:], loc, generator)
    start = (loc + (start_factor @ eps[..., None])[..., 0]).expand(*shape, *leading, latent_dim)
    eps = _step_noise(Size(shape) + Size(leading) + (steps - 1,) + G.shape[-1:], loc, generator)
    shocks = b + (G @ eps[..., None])[..., 0]
    F = F.expand(*leading, steps - 1, latent_dim, latent_dim)
    return torch.cat([start[..., None, :], affine_recurrence(F, shocks, start)], -2)


def _step_noise(shape: Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
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
            the others start from the initial law.
    """
    steps = context.unbind()
    z = first_state(kernel, steps[0], Size(shape), generator, start)
    if len(steps) == 1:
        return z[..., None, :]
    if not _is_pathwise(kernel(z, steps[1])):
        path = [z]
        for c in steps[1:]:
            path.append(draw(kernel(path[-1], c), (), generator))
        return torch.stack(path, -2)
    record = torch.is_grad_enabled()
    previous, following, eps = [], [], []
    state = z
    for c in (c.detach() for c in steps[1:]):
        state = state.detach().requires_grad_(record)
        law = kernel(state, c)
        previous.append(state)
        eps.append(noise(law, (), generator))
        state = place(law, eps[-1])
        following.append(state)
    if not record:
        return torch.stack([z, *following], -2)
    with torch.no_grad():
        before = torch.stack(previous, -2)
    again = place(kernel(before, context[1:]), torch.stack(eps, -2))
    return _Adjoint.apply(z, again, previous, following)


def first_state(
    kernel: Kernel,
    c: Context,
    shape: Size,
    generator: torch.Generator | None,
    start: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Draws the first state: from the initial law or, where there is a past, from its end."""
    if start is None or not bool(start[1].any()):
        return draw(kernel.initial(c), shape, generator)
    state, started = start
    moved = kernel(state, c)
    if bool(started.all()):
        return draw(moved, (), generator)
    fresh = kernel.initial(c)
    return torch.where(started[:, None], draw(moved, (), generator), draw(fresh, shape, generator))


def _is_pathwise(law: Distribution) -> bool:
    if isinstance(law, Carried) and law.base is not None:
        return _is_pathwise(law.base)
    if isinstance(law, Independent):
        return _is_pathwise(law.base_dist)
    return noise.dispatch(type(law)) is not noise.dispatch(object)


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
    @once_differentiable
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
