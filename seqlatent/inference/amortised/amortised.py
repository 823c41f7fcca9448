"""Amortised inference: an encoder and a family of chains, trained with the model."""

import torch
from torch import Tensor

from seqlatent.chain import Chain, Correction, Marginal, MarkovChain, sequential_path
from seqlatent.distributions import Empirical, diagonal_normal, sample
from seqlatent.inference.amortised.encoders import Encoder, FilteringEncoder
from seqlatent.inference.amortised.posterior import Posterior
from seqlatent.inference.base import Generative, Inference, Latest, States, at, position
from seqlatent.inference.particles.cloud import latest_of, particle_filter
from seqlatent.sequences import Context, Sequences

__all__ = ["Amortised"]


class Amortised(Inference):
    r"""Posterior whose parameters a network gives, for every series at once and with no iteration.

    With a causal encoder it filters: draws from the chain given the data so far are its filtering
    distribution, and an update is one more step. With a two-sided encoder it smooths; it filters by
    drawing smoothed paths and keeping their last state (at the last step smoothing is filtering),
    and is
    updated by guided particles: the encoder reads the new rows alone, its chain proposes, and
    importance weights correct it.

    ``log_evidence`` of its states is the evidence lower bound of each step.

    Args:
        encoder: Network from observations to features.
        posterior: Family of chains: Tilted, Combiner or Parallel.
        particles: Draws that represent a distribution of the state.

    Example:
        >>> model = seqlatent.zoo.deep_markov(latent_dim=2, hidden_dim=8)
        >>> q = model.posterior(Sequences.of(torch.zeros(3, 5, 1)))
        >>> q.rsample((10,)).shape
        torch.Size([10, 3, 5, 2])

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014).
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017).
    """

    def __init__(self, encoder: Encoder, posterior: Posterior, *, particles: int = 100) -> None:
        super().__init__()
        if isinstance(particles, bool) or not isinstance(particles, int) or particles < 1:
            raise ValueError(
                f"particles must be a number of draws of at least 1, found {particles!r}."
            )
        for name, part, kind in (
            ("encoder", encoder, Encoder),
            ("posterior", posterior, Posterior),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name} must be of class {kind.__name__}, found {type(part).__name__}."
                )
        self.encoder = encoder
        self.posterior = posterior
        self.particles = particles

    @property
    def causal(self) -> bool:
        """Whether the encoder is causal: later data do not change the distribution of a state."""
        return self.encoder.causal

    def proposal(
        self, model: Generative, sequences: Sequences, c: Context
    ) -> tuple[Correction, Context]:
        """The posterior's kernel, and the context with the statistics that it reads."""
        features = self.encoder(sequences, c)
        c = c.replace(
            e=self.posterior.statistics(features), informed=self.encoder.informed(sequences)
        )
        return self.posterior.kernel(model.transition, c), c

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        c = model.context(sequences) if c is None else c
        return MarkovChain(*self.proposal(model, sequences, c))

    def _states(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context | None,
        generator: torch.Generator | None,
    ) -> States:
        q = self(model, sequences, c)
        with torch.no_grad():
            z = q.rsample((self.particles,), generator)
            prior = MarkovChain(model.transition, q.context)
            log_joint = prior.log_prob(z) + model.emission.log_prob(
                sequences.y, sequences.observed, z, q.context
            )
            bound = (log_joint - q.log_prob(z)).mean(0)
        return States(Empirical(z, z.new_zeros(z.shape[:-1])), bound)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        if not self.causal:
            raise TypeError(
                "a two-sided encoder reads the future at every step but the last, so it cannot "
                "filter a whole series: use smooth(), belief() for the state at the last "
                "observation, a FilteringEncoder, or Particles(proposal=...)."
            )
        return self._states(model, sequences, c, generator)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        return self._states(model, sequences, c, generator)

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
        if isinstance(self.encoder, FilteringEncoder):
            return self._filtered(self.encoder, model, sequences, c, start, end, generator)
        with torch.no_grad():
            kernel, c = self.proposal(model, sequences, c)
            if start is None or not bool(start.started.any()):
                z = MarkovChain(kernel, c).rsample((self.particles,), generator)
                return _last_of(z, sequences, start, end)
            cloud = particle_filter(
                model,
                sequences,
                c,
                self.particles,
                proposal=kernel,
                start=start,
                generator=generator,
            )
            return latest_of(cloud, sequences, start, end)

    def _filtered(
        self,
        encoder: FilteringEncoder,
        model: Generative,
        sequences: Sequences,
        c: Context,
        start: Latest | None,
        end: bool | Tensor,
        generator: torch.Generator | None,
    ) -> Latest:
        with torch.no_grad():
            state = start.encoder if start is not None and start.encoder else None
            features, states = encoder.run(sequences, c, state)
            c = c.replace(
                e=self.posterior.statistics(features), informed=encoder.informed(sequences)
            )
            kernel = self.posterior.kernel(model.transition, c)
            index = position(sequences, end)
            if start is None and isinstance(kernel, Marginal):
                # one state is wanted, and its distribution is known: no path is drawn for it
                loc, scale = (at(x, index) for x in kernel.marginals(c))
                values = sample(diagonal_normal(loc, scale), (self.particles,), generator)
                latest = _equal(values, index >= 0)
            else:
                before = None
                if start is not None:
                    before = start.particles(self.particles, generator), start.started
                z = sequential_path(kernel, c, (self.particles,), generator, before)
                latest = _last_of(z, sequences, start, end)
        fresh = (
            encoder.backbone.initial((sequences.batch,), sequences.y) if state is None else state
        )
        stays = (index < 0)[:, None]
        kept = tuple(
            torch.where(stays, f, at(s, index)) for f, s in zip(fresh, states, strict=True)
        )
        return latest.replace(encoder=kept)


def _last_of(z: Tensor, sequences: Sequences, start: Latest | None, end: bool | Tensor) -> Latest:
    index = position(sequences, end)
    values = at(z.movedim(0, 2), index).movedim(1, 0)
    started = index >= 0
    if start is not None:
        if start.values is not None and len(start.values) == len(values):
            values = torch.where(started[:, None], values, start.values)
        started = started | start.started
    return _equal(values, started)


def _equal(values: Tensor, started: Tensor) -> Latest:
    log_weights = values.new_zeros(values.shape[:-1]).log_softmax(0)
    return Latest(None, None, values, log_weights, started)
