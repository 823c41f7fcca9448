"""Inference, from observations to a chain over latent paths, and what filters return."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.chain import Chain
from seqlatent.distributions import Empirical, standard_normal
from seqlatent.linalg import factor
from seqlatent.sequences import Context, Sequences

if TYPE_CHECKING:
    from seqlatent.emissions.emission import Emission
    from seqlatent.memory import Memory
    from seqlatent.transitions.transition import Transition

__all__ = ["Generative", "Inference", "Latest", "States", "at", "position"]


@runtime_checkable
class Generative(Protocol):
    """What an inference reads of a model."""

    @property
    def transition(self) -> "Transition": ...
    @property
    def emission(self) -> "Emission": ...
    @property
    def memory(self) -> "Memory": ...
    def context(self, sequences: Sequences) -> Context: ...


@dataclass(frozen=True)
class Latest:
    """What is known of the latent state at one step of each series: moments, or weighted particles.

    With particles and covariances it is a mixture of normal distributions around the particles.

    Args:
        mean: Mean ``(B, K)``, or None.
        cov: Covariance ``(B, K, K)``, of each particle ``(B, N, K, K)``, or None.
        values: Particles ``(N, B, K)``, or None.
        log_weights: Normalised log weights ``(N, B)``, or None.
        started: Whether a series had a step yet ``(B,)``; if not, its next state follows the
            initial distribution.
        encoder: State of a causal encoder after that step, leading axis ``(B,)``.
    """

    mean: Tensor | None
    cov: Tensor | None
    values: Tensor | None
    log_weights: Tensor | None
    started: Tensor
    encoder: tuple[Tensor, ...] = ()

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws states ``(n, B, K)``."""
        if self.mean is not None and self.cov is not None:
            eps = standard_normal(torch.Size((n, *self.mean.shape)), self.mean, generator)
            return self.mean + (factor(self.cov, what="belief covariance") @ eps[..., None])[..., 0]
        assert self.values is not None
        assert self.log_weights is not None
        if self.cov is not None:
            return self._mixed(self.values, self.log_weights, self.cov, n, generator)
        return Empirical(self.values, self.log_weights).sample(torch.Size((n,)), generator)

    def _mixed(
        self,
        values: Tensor,
        log_weights: Tensor,
        cov: Tensor,
        n: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draws from a mixture of normal distributions."""
        # the index of a particle is drawn as its value
        index = torch.arange(len(values), dtype=values.dtype, device=values.device)
        index = index[:, None, None].expand(*log_weights.shape, 1)
        chosen = Empirical(index, log_weights).sample(torch.Size((n,)), generator)[..., 0].long()
        series = torch.arange(values.shape[1], device=values.device)
        G = factor(cov, what="belief covariance")[series, chosen]
        centre = values[chosen, series]
        return centre + (G @ standard_normal(centre.shape, centre, generator)[..., None])[..., 0]

    def particles(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """States ``(n, B, K)``: the particles where they are ``n`` of equal weight, else draws."""
        if self.values is None or self.log_weights is None or len(self.values) != n:
            return self.draw(n, generator)
        if self.cov is not None:
            return self.draw(n, generator)
        equal = bool((self.log_weights == self.log_weights[:1]).all())
        return self.values if equal else self.draw(n, generator)

    def select(self, index: Tensor | slice) -> "Latest":
        """Picks series by index, mask or slice."""
        return Latest(
            mean=None if self.mean is None else self.mean[index],
            cov=None if self.cov is None else self.cov[index],
            values=None if self.values is None else self.values[:, index],
            log_weights=None if self.log_weights is None else self.log_weights[:, index],
            started=self.started[index],
            encoder=tuple(s[index] for s in self.encoder),
        )

    @classmethod
    def join(cls, items: Collection["Latest"]) -> "Latest":
        """Puts states of the same kind behind one another, series after series."""
        kinds = {(x.mean is None, 0 if x.values is None else len(x.values)) for x in items}
        if len(kinds) != 1:
            raise ValueError(
                "states must be of one kind, all with moments or all with the same number of "
                "particles; filter the data again with one model."
            )

        def along(axis: int, parts: list[Tensor | None]) -> Tensor | None:
            found = [x for x in parts if x is not None]
            return torch.cat(found, axis) if found else None

        return cls(
            mean=along(0, [x.mean for x in items]),
            cov=along(0, [x.cov for x in items]),
            values=along(1, [x.values for x in items]),
            log_weights=along(1, [x.log_weights for x in items]),
            started=torch.cat([x.started for x in items]),
            encoder=tuple(torch.cat(s) for s in zip(*(x.encoder for x in items), strict=True)),
        )

    def replace(self, **changes: Tensor | tuple[Tensor, ...] | None) -> "Latest":
        """Copies with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class States:
    r"""Marginals of the latent state at every step, and the evidence.

    Args:
        marginals: Distribution of each state, batch ``(B, T)``, event ``(K,)``: normal, or weighted
            particles.
        log_evidence: ``log p(y_t | y_{<t})`` of each step ``(B, T)``, zero where nothing was
            observed: exact, an unbiased estimate of its exponential, or a lower bound, as the
                inference says.
    """

    marginals: Distribution
    log_evidence: Tensor

    @property
    def mean(self) -> Tensor:
        """Means ``(B, T, K)``."""
        return self.marginals.mean

    @property
    def variance(self) -> Tensor:
        """Variances ``(B, T, K)``."""
        return self.marginals.variance


class Inference(nn.Module, ABC):
    """A way from observations to the latent path: exact, amortised or by particles.

    Called with a model and sequences it gives a chain, the posterior over whole paths.
    """

    def check(self, model: Generative) -> None:
        """Verifies, once at construction, that the inference fits the model; else a TypeError."""
        return

    @abstractmethod
    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        """Posterior over latent paths; ``c`` saves computing the model's context twice."""

    @abstractmethod
    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        """States given the past and present; nothing of the future enters."""

    @abstractmethod
    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        """States given everything."""

    def evidence(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log evidence of each series ``(B,)``: the sum of what the filter finds at each step."""
        return self.filter(model, sequences, c=c, generator=generator).log_evidence.sum(-1)

    @abstractmethod
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
        """The state where filtering stops, from which rollouts start.

        Args:
            model: The generative model.
            sequences: Observations.
            c: The model's context of them.
            start: Where an earlier filter stopped; the sequences continue from there.
            end: Whether to stop at the last step, rather than at each series' last observation; or
                the index of the step at which to stop ``(B,)``.
            generator: Source of randomness where the inference samples.
        """


def position(sequences: Sequences, end: bool | Tensor) -> Tensor:
    """Index ``(B,)`` of the step at which a filter stops; -1 where a series never started."""
    if isinstance(end, Tensor):
        return end
    return torch.full_like(sequences.last, sequences.steps - 1) if end else sequences.last


def at(values: Tensor, index: Tensor) -> Tensor:
    """Gathers ``values (B, T, ...)`` at one step per series ``(B,)``."""
    return values[torch.arange(len(index), device=index.device), index.clamp_min(0)]
