"""Particle filters and backward sampling, for every model that can be sampled and scored."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.chain import Chain, Correction
from seqlatent.distributions import Empirical
from seqlatent.inference.base import Generative, Inference, Latest, States
from seqlatent.inference.particles.backward_sampling import backward_sample
from seqlatent.inference.particles.cloud import (
    Cloud,
    latest_of,
    particle_filter,
)
from seqlatent.sequences import Context, Sequences

__all__ = ["Particles"]


@runtime_checkable
class Proposing(Protocol):
    """An inference that can propose particles: a kernel, and the context that it reads."""

    def proposal(
        self, model: Generative, sequences: Sequences, c: Context
    ) -> tuple[Correction, Context]: ...


class Particles(Inference):
    r"""Particle filter with backward sampling: any model, at the price of ``n`` copies.

    Its evidence is unbiased.

    Args:
        n: Number of particles.
        proposal: A trained :class:`Amortised` inference to draw from; None draws from the model's
            transition.
        threshold: Share of ``n`` below which the effective sample size triggers resampling.

    Example:
        >>> exact = seqlatent.zoo.structural()
        >>> model = seqlatent.LatentModel(exact.transition, exact.emission, Particles(100))
        >>> model.filter(Sequences.of(torch.zeros(2, 5, 1))).log_evidence.shape
        torch.Size([2, 5])

    References:
        Monte Carlo Smoothing for Nonlinear Time Series (Godsill, Doucet & West, 2004), for backward
        sampling.
    """

    def __init__(
        self, n: int = 1000, proposal: Inference | None = None, *, threshold: int | float = 0.5
    ) -> None:
        super().__init__()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a number of particles of at least 1, found {n!r}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a share between 0 and 1, found {threshold}.")
        if proposal is not None and not isinstance(proposal, Proposing):
            raise TypeError(
                f"proposal must be an Amortised inference, found {type(proposal).__name__}."
            )
        self.n = n
        self.threshold = threshold
        self.proposal = proposal

    def cloud(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context | None = None,
        *,
        start: Latest | None = None,
        generator: torch.Generator | None = None,
    ) -> Cloud:
        """Runs the filter and keeps all particles."""
        c = model.context(sequences) if c is None else c
        kernel = None
        if self.proposal is not None:
            kernel, c = self.proposal.proposal(model, sequences, c)
        return particle_filter(
            model,
            sequences,
            c,
            self.n,
            proposal=kernel,
            start=start,
            threshold=self.threshold,
            generator=generator,
        )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        return ParticleChain(self, model, sequences, model.context(sequences) if c is None else c)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        cloud = self.cloud(model, sequences, c, generator=generator)
        return States(Empirical(cloud.values, cloud.log_weights), cloud.log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        cloud = self.cloud(model, sequences, c, generator=generator)
        paths = backward_sample(model, cloud, c, self.n, generator)
        return States(Empirical(paths, paths.new_zeros(paths.shape[:-1])), cloud.log_evidence)

    def latest(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        *,
        start: Latest | None = None,
        end: bool | Tensor = False,
        generator: torch.Generator | None = None,
    ) -> Latest:
        cloud = self.cloud(model, sequences, c, start=start, generator=generator)
        return latest_of(cloud, sequences, start, end)


class ParticleChain(Chain):
    """Posterior over paths by backward sampling; it can be drawn from but has no density."""

    def __init__(
        self, particles: Particles, model: Generative, sequences: Sequences, context: Context
    ) -> None:
        self.particles = particles
        self.model = model
        self.sequences = sequences
        self.context = context

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        cloud = self.particles.cloud(self.model, self.sequences, self.context, generator=generator)
        count = int(torch.Size(shape).numel())
        paths = backward_sample(self.model, cloud, self.context, count, generator)
        return paths.reshape(*shape, *paths.shape[1:])

    def log_prob(self, z: Float[Tensor, "*S B T K"]) -> Float[Tensor, "*S B T"]:
        raise TypeError(
            "a particle posterior has no density: use the objectives evidence or fivo, or "
            "Amortised for elbo and iwae."
        )

    def conditionals(
        self, z: Float[Tensor, "*S B T K"], prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        self.log_prob(z)
        raise AssertionError
