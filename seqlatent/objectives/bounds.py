"""Evidence and bounds on it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.chain import Chain, MarkovChain
from seqlatent.distributions import detach, kl_per_dim
from seqlatent.inference import Amortised, Particles
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.sizes import whole

__all__ = ["annealing", "divergence", "elbo", "evidence", "fivo", "iwae"]


def evidence(
    model: LatentModel, sequences: Sequences, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Log evidence :math:`\log p(y_{1:T})` of each series ``(B,)``.

    Exact with ``Kalman`` (and ``Prior``); with ``Particles`` the logarithm of an unbiased estimate.

    Args:
        model: Model whose inference gives the evidence.
        sequences: Observations.
        generator: Source of randomness where the inference samples.

    Raises:
        TypeError: If the inference only bounds the evidence.

    Example:
        >>> model = seqlatent.zoo.structural()
        >>> evidence(model, Sequences.of(torch.zeros(2, 5, 1))).shape
        torch.Size([2])
    """
    if isinstance(model.inference, Amortised):
        raise TypeError(
            "an amortised inference only bounds the evidence: use elbo or iwae, or fivo for a "
            "tighter bound."
        )
    return model.inference.evidence(model, sequences, generator=generator)


def elbo(
    model: LatentModel,
    sequences: Sequences,
    *,
    samples: int = 1,
    kl_weight: int | float = 1.0,
    free_bits: int | float = 0.0,
    kl_balance: int | float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Evidence lower bound of each series ``(B,)``.

    .. math:: E_q \sum_t \log p(y_t \mid z_t)
        - \beta\, KL(q(z_t \mid z_{t-1}) \,\|\, p(z_t \mid z_{t-1})) \le \log p(y)

    The divergence of a step is analytic where both own factorise over dimensions, else the log
    ratio at the sample, which for the exact posterior has no variance.

    Args:
        model: Model with an amortised or exact inference.
        sequences: Observations.
        samples: Paths per series.
        kl_weight: Weight beta; a value below 1 during the first steps keeps the posterior from
            collapsing.
        free_bits: Nats per latent dimension and step that cost the same whether used or not: a
            dimension whose mean divergence over the batch lies below is held at that cost.
        kl_balance: Share of the divergence's gradient that trains the prior towards the posterior;
            the rest trains the posterior towards the prior. None is the plain gradient, to both.
        generator: Source of randomness.

    Example:
        >>> model = seqlatent.zoo.deep_markov(latent_dim=2, hidden_dim=8)
        >>> elbo(model, Sequences.of(torch.zeros(2, 5, 1)), samples=4).shape
        torch.Size([2])

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016), annealing.
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), free
        bits. Mastering Atari with Discrete World Models (Hafner et al., 2021), KL balancing.
    """
    samples = whole("samples", samples, 1)
    q = model.posterior(sequences)
    z = q.rsample((samples,), generator)
    likelihood = model.emission.log_prob(sequences.y, sequences.observed, z, q.context)
    if free_bits:
        kl = divergence(model, q, z, kl_balance=kl_balance)
        cost = _with_free_bits(kl, free_bits, q.context.informed).sum((-2, -1))
    else:
        first, rest = divergences(model, q, z, kl_balance)
        cost = first.sum(-1) + rest.sum((-2, -1))
    return (likelihood.sum(-1) - kl_weight * cost).mean(0)


def divergence(
    model: LatentModel, q: Chain, z: Tensor, *, kl_balance: int | float | None = None
) -> Tensor:
    """Divergence of a posterior chain from the model's prior along a path ``(*S, B, T, K)``.

    Per latent dimension where the own factorise; else one column with the log ratio at the path.

    Args:
        model: Model whose transition is the prior.
        q: Posterior chain.
        z: Path drawn from it ``(*S, B, T, K)``.
        kl_balance: As in :func:`elbo`.
    """
    first, rest = divergences(model, q, z, kl_balance)
    width = max(first.shape[-1], rest.shape[-1])
    shape = z.shape[:-2]
    first = _widen(first, width).expand(*shape, width)[..., None, :]
    rest = _widen(rest, width).expand(*shape, z.shape[-2] - 1, width)
    return torch.cat([first, rest], -2)


def divergences(
    model: LatentModel, q: Chain, z: Tensor, kl_balance: int | float | None
) -> tuple[Tensor, Tensor]:
    """Divergence of the first step, and of the others."""
    if isinstance(q, MarkovChain):
        prior, own = q.both_conditionals(z, model.transition)
    else:
        prior = MarkovChain(model.transition, q.context).conditionals(z)
        own = q.conditionals(z, prior)
    first = _balanced(own[0], prior[0], z[..., 0, :], kl_balance)
    if z.shape[-2] == 1:  # torch's Independent cannot sum over an axis of no steps
        return first, first.new_zeros(*z.shape[:-2], 0, first.shape[-1])
    return first, _balanced(own[1], prior[1], z[..., 1:, :], kl_balance)


def _widen(x: Tensor, width: int) -> Tensor:
    """Pads dimensions that are random at one step only, as in a flow from a random start."""
    return (
        x
        if x.shape[-1] == width
        else torch.cat([x, x.new_zeros(*x.shape[:-1], width - x.shape[-1])], -1)
    )


def _balanced(q: Distribution, p: Distribution, z: Tensor, balance: float | None) -> Tensor:
    """Divergence per dimension or step, with gradients of prior and posterior weighed apart."""
    if balance is None:
        return _per_dim(q, p, z)
    return balance * _per_dim(detach(q), p, z) + (1 - balance) * _per_dim(q, detach(p), z)


def _per_dim(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    """Divergence per dimension, analytic where both distributions factorise."""
    analytic = kl_per_dim(q, p)
    return (q.log_prob(z) - p.log_prob(z))[..., None] if analytic is None else analytic


def _with_free_bits(kl: Tensor, free_bits: float, informed: Tensor) -> Tensor:
    """Holds the divergence of dimensions that use less than ``free_bits`` at that constant."""
    seen = informed.to(kl.dtype)
    mean = (kl * seen).sum(tuple(range(kl.ndim - 1))) / (
        seen.expand(*kl.shape[:-1], 1).sum().clamp_min(1)
    )
    return torch.where(mean < free_bits, free_bits * seen, kl)


def iwae(
    model: LatentModel,
    sequences: Sequences,
    *,
    samples: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Importance-weighted bound of each series ``(B,)``, between the ELBO and the evidence.

    .. math:: \log \frac1S \sum_{s=1}^S \frac{p(y, z^s)}{q(z^s)}, \quad z^s \sim q

    Args:
        model: Model with an amortised or exact inference.
        sequences: Observations.
        samples: Paths ``S`` per series.
        generator: Source of randomness.

    Example:
        >>> model = seqlatent.zoo.deep_markov(latent_dim=2, hidden_dim=8)
        >>> iwae(model, Sequences.of(torch.zeros(2, 5, 1))).shape
        torch.Size([2])

    References:
        Importance Weighted Autoencoders (Burda et al., 2016).
    """
    samples = whole("samples", samples, 1)
    q = model.posterior(sequences)
    z = q.rsample((samples,), generator)
    log_weights = model.log_joint(z, sequences, q.context).sum(-1) - q.log_prob(z).sum(-1)
    return log_weights.logsumexp(0) - math.log(samples)


def fivo(
    model: LatentModel,
    sequences: Sequences,
    *,
    particles: int = 16,
    threshold: int | float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Filtering variational objective of each series ``(B,)``: a particle filter's log evidence.

    The model's amortised posterior proposes; resampling lets the bound stay tight on long series.
    The gradient leaves out the discrete ancestors, as is usual.

    Args:
        model: Model with an amortised inference, or with particles.
        sequences: Observations.
        particles: Number of particles; with ``Particles`` as inference its own number counts.
        threshold: Share of effective particles below which a series is resampled.
        generator: Source of randomness.

    Example:
        >>> model = seqlatent.zoo.deep_markov(latent_dim=2, hidden_dim=8)
        >>> fivo(model, Sequences.of(torch.zeros(2, 5, 1)), particles=4).shape
        torch.Size([2])

    References:
        Filtering Variational Objectives (Maddison et al., 2017).
    """
    particles = whole("particles", particles, 1)
    inference = model.inference
    if isinstance(inference, Amortised):
        inference = Particles(particles, inference, threshold=threshold)
    if not isinstance(inference, Particles):
        raise TypeError(
            f"fivo needs Amortised or Particles, found {type(inference).__name__}; use evidence."
        )
    return inference.cloud(model, sequences, generator=generator).log_evidence.sum(-1)


def annealing(start: int | float, stop: int | float, steps: int) -> Callable[[int], float]:
    """Linear schedule from ``start`` to ``stop`` over some training steps, constant afterwards.

    Example:
        >>> schedule = annealing(0.0, 1.0, 4)
        >>> [schedule(i) for i in (0, 2, 9)]
        [0.0, 0.5, 1.0]
    """
    steps = whole("steps", steps, 1)
    return lambda step: start + (stop - start) * min(step / steps, 1.0)
