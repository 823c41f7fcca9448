"""Inference for a model without random latents."""

import torch
from torch import Tensor

from seqlatent.chain import Chain, MarkovChain
from seqlatent.distributions import Empirical
from seqlatent.inference.base import Generative, Inference, Latest, States, position
from seqlatent.sequences import Context, Sequences

__all__ = ["Prior"]


class Prior(Inference):
    """Inference for a model without random latents, whose posterior is its prior."""

    def check(self, model: Generative) -> None:
        if model.transition.latent_dim:
            raise TypeError(
                f"Prior infers nothing, and {type(model.transition).__name__} has "
                f"{model.transition.latent_dim} latent dimensions; use Kalman, Amortised or "
                "Particles."
            )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        return MarkovChain(model.transition, model.context(sequences) if c is None else c)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        z = sequences.y.new_zeros(sequences.batch, sequences.steps, 0)
        log_evidence = model.emission.log_prob(sequences.y, sequences.observed, z, c)
        return States(Empirical(z[None], torch.zeros_like(log_evidence)[None]), log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        return self.filter(model, sequences, c=c, generator=generator)

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
        values = sequences.y.new_zeros(1, sequences.batch, 0)
        started = position(sequences, end) >= 0
        if start is not None:
            started = started | start.started
        return Latest(None, None, values, values.sum(-1), started)
