"""Inference gap: what an approximate posterior gives away of the evidence."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqlatent.chain import ConditionallyLinear
from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference import Amortised, Kalman, Particles
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.sizes import whole

__all__ = ["Gap", "inference_gap"]

_RUNS = 4


@dataclass(frozen=True)
class Gap:
    """What :func:`inference_gap` found, for each series ``(B,)``, with standard errors.

    Args:
        elbo: Evidence lower bound.
        elbo_error: Its standard error.
        iwae: Importance-weighted bound.
        iwae_error: Its standard error.
        evidence: Log evidence.
        evidence_error: Its standard error, zero where it is exact.
        steps: Steps with any observed cell.
        exact: Whether the evidence is Kalman's, rather than a particle filter's estimate.
    """

    elbo: Tensor
    elbo_error: Tensor
    iwae: Tensor
    iwae_error: Tensor
    evidence: Tensor
    evidence_error: Tensor
    steps: Tensor
    exact: bool

    @property
    def gap(self) -> Tensor:
        """Evidence less ELBO, the divergence of the posterior in use from the true one ``(B,)``."""
        return self.evidence - self.elbo

    @property
    def gap_error(self) -> Tensor:
        """Standard error of the gap ``(B,)``."""
        return (self.evidence_error.square() + self.elbo_error.square()).sqrt()

    @property
    def per_step(self) -> Tensor:
        """Gap per observed step ``(B,)``, in nats."""
        return self.gap / self.steps

    @property
    def mean(self) -> float:
        """Gap of all series per observed step, in nats."""
        return (self.gap.sum() / self.steps.sum()).item()

    @property
    def mean_error(self) -> float:
        """Standard error of :attr:`mean`."""
        return (self.gap_error.square().sum().sqrt() / self.steps.sum()).item()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a report."""
        names = ("elbo", "elbo_error", "iwae", "iwae_error", "evidence", "evidence_error")
        names += ("gap", "gap_error", "per_step")
        values = {name: getattr(self, name).tolist() for name in names}
        return {**values, "mean": self.mean, "mean_error": self.mean_error, "exact": self.exact}

    def __repr__(self) -> str:
        steps = self.steps.sum()
        bounds = ", ".join(
            f"{name}={(getattr(self, name).sum() / steps).item():.4g}"
            for name in ("elbo", "iwae", "evidence")
        )
        return (
            f"Gap(series={len(self.steps)}, per step: {bounds}, gap={self.mean:.3g} ± "
            f"{self.mean_error:.2g}, exact={self.exact})"
        )


def inference_gap(
    model: LatentModel,
    sequences: Sequences,
    *,
    samples: int = 64,
    particles: int = 1000,
    generator: torch.Generator | None = None,
) -> Gap:
    r"""Measures how far the ELBO of a posterior lies below the evidence.

    .. math:: \log p(y) - E_q \log \frac{p(y, z)}{q(z)} = KL(q(z) \,\|\, p(z \mid y)) \ge 0

    The evidence is exact where transition and emission are linear and Gaussian, whatever inference
    the model uses; elsewhere a particle filter estimates it, with the model's own posterior as
    proposal. A large gap with an IWAE close to the evidence is a posterior of the wrong shape in
    the right place; with both far away the encoder has not learned to infer.

    Args:
        model: Model with an amortised or exact inference.
        sequences: Data to look at.
        samples: Paths per series for ELBO and IWAE.
        particles: Particles of each of four runs of the filter.
        generator: Source of randomness.

    Raises:
        TypeError: If the model's posterior has no density (particles).
        ValueError: If ``samples`` or ``particles`` is too small, or nothing was observed.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> from seqlatent.zoo import structural
        >>> gap = inference_gap(structural(), Sequences.of(torch.randn(3, 20, 1)))
        >>> gap.exact, abs(gap.mean) < 1e-4
        (True, True)

    References:
        Importance Weighted Autoencoders (Burda et al., 2016).
        Inference Suboptimality in Variational Autoencoders (Cremer et al., 2018).
    """
    samples, particles = whole("samples", samples, 2), whole("particles", particles, 1)
    if isinstance(model.inference, Particles):
        raise TypeError(
            "a particle posterior has no density, hence no ELBO and no gap: look at the effective "
            "sample size instead, or give the model an Amortised or Kalman inference."
        )
    steps = sequences.observed.any(-1).sum(1)
    if not bool(steps.all()):
        b = int((steps == 0).nonzero()[0])
        raise ValueError(
            f"series {b} has no observed cell; leave it out with sequences.select(...)."
        )
    with torch.no_grad():
        q = model.posterior(sequences)
        z = q.rsample((samples,), generator)
        log_weights = (model.log_joint(z, sequences, q.context) - q.log_prob(z)).sum(-1)
        iwae, iwae_error = _log_mean(log_weights)
        exact = isinstance(model.transition, ConditionallyLinear) and isinstance(
            model.emission, LinearEmission
        )
        if exact:
            evidence = Kalman().filter(model, sequences).log_evidence.sum(-1)
            evidence_error = torch.zeros_like(evidence)
        else:
            runs = _runs(model, sequences, particles, generator)
            evidence, evidence_error = _log_mean(runs)
        return Gap(
            elbo=log_weights.mean(0),
            elbo_error=log_weights.std(0) / math.sqrt(samples),
            iwae=iwae,
            iwae_error=iwae_error,
            evidence=evidence,
            evidence_error=evidence_error,
            steps=steps,
            exact=exact,
        )


def _runs(
    model: LatentModel, sequences: Sequences, particles: int, generator: torch.Generator | None
) -> Tensor:
    """Log evidence ``(runs, B)`` of independent particle filters, as one batch."""
    proposal = model.inference if isinstance(model.inference, Amortised) else None
    index = torch.arange(sequences.batch, device=sequences.y.device).repeat(_RUNS)
    cloud = Particles(particles, proposal).cloud(
        model, sequences.select(index), generator=generator
    )
    return cloud.log_evidence.sum(-1).reshape(_RUNS, sequences.batch)


def _log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of the mean weight, and its standard error by the delta method."""
    n = len(log_weights)
    log_mean = log_weights.logsumexp(0) - math.log(n)
    return log_mean, (log_weights - log_mean).exp().std(0) / math.sqrt(n)
