"""Chains, and the one of a kernel."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution

from seqlatent.chain.kernels import Correction, Kernel, Sampled, initial_of, next_of
from seqlatent.chain.paths import sample_path
from seqlatent.distributions import base_noise, sample
from seqlatent.sequences import Context

__all__ = ["Chain", "MarkovChain"]


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
        """Distributions: step 1, batch ``(B,)``; others, given the path, ``(*S, B, T-1)``.

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
        self._drawn: Any = None

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        if isinstance(self.kernel, Sampled):
            z, own = self.kernel.path(self.context, shape, generator)
            self._drawn = None if own is None else (z, None, own)
            return z
        z = self._fused_path(shape, generator) if torch.is_grad_enabled() else None
        return sample_path(self.kernel, self.context, shape, generator) if z is None else z

    def _fused_path(
        self, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> Tensor | None:
        kernel, (first, rest) = self.kernel, self.context.ends
        if not isinstance(kernel, Correction) or len(rest.shape) != 2 or rest.shape[-1] == 0:
            return None
        sampler = kernel.fused_sampler(rest, Size(shape).numel())
        if sampler is None:
            return None
        p = initial_of(kernel.transition, first)
        q = kernel.correct(p, None, first)
        z = sample(q, shape, generator)
        eps = [base_noise(q, shape, generator).flatten(0, -2) for _ in range(rest.shape[-1])]
        values = sampler.path(z.flatten(0, -2), torch.stack(eps))
        batch = (*shape, rest.shape[0])
        z, *parameters = (x.unflatten(1, batch).movedim(0, -2) for x in values)
        p_rest, q_rest = kernel.along(z[..., 1:, :], tuple(parameters))
        self._drawn = z, None if p_rest is None else (p, p_rest), (q, q_rest)
        return z

    def both_conditionals(
        self, z: Tensor, transition: Kernel
    ) -> tuple[tuple[Distribution, Distribution], tuple[Distribution, Distribution]]:
        """Conditionals of the transition and of the chain itself along a path.

        On the path that was drawn last nothing is computed that the drawing computed already.
        """
        known = isinstance(self.kernel, Correction) and self.kernel.transition is transition
        if not known or self._drawn is None or self._drawn[0] is not z:
            prior = MarkovChain(transition, self.context).conditionals(z)
            return prior, self.conditionals(z, prior)
        _, prior, own = self._drawn
        if prior is None:
            prior = MarkovChain(transition, self.context).conditionals(z)
        return prior, own

    def log_prob(self, z: Float[Tensor, "*S B T K"]) -> Float[Tensor, "*S B T"]:
        first, rest = self.conditionals(z)
        start = first.log_prob(z[..., 0, :])
        if z.shape[-2] == 1:  # torch's Independent cannot sum over an axis of no steps
            return start[..., None]
        return torch.cat([start[..., None], rest.log_prob(z[..., 1:, :])], -1)

    def conditionals(
        self, z: Float[Tensor, "*S B T K"], prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        (first, rest), before = self.context.ends, z[..., :-1, :]
        if prior is not None and isinstance(self.kernel, Correction):
            return self.kernel.correct(prior[0], None, first), self.kernel.correct(
                prior[1], before, rest
            )
        return initial_of(self.kernel, first), next_of(self.kernel, before, rest)
