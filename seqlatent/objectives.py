"""Objectives: plain functions of a model and sequences, one value per series, larger is better."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from seqlatent.chain import Chain, MarkovChain, sample_path
from seqlatent.distributions import detach, draw, kl_per_dim
from seqlatent.emissions import LinearEmission
from seqlatent.inference import Amortised, Kalman, Particles
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences

__all__ = ["annealing", "divergence", "elbo", "evidence", "fivo", "foresight", "iwae", "lookahead"]


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

    The divergence of a step is analytic where both laws factorise over dimensions, else the log
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
    _require_count("samples", samples)
    q = model.posterior(sequences)
    z = q.rsample((samples,), generator)
    likelihood = model.emission.log_prob(sequences.y, sequences.observed, z, q.context)
    if free_bits:
        kl = divergence(model, q, z, kl_balance=kl_balance)
        cost = _held(kl, free_bits, q.context.informed).sum((-2, -1))
    else:
        first, rest = _divergences(model, q, z, kl_balance)
        cost = first.sum(-1) + rest.sum((-2, -1))
    return (likelihood.sum(-1) - kl_weight * cost).mean(0)


def divergence(
    model: LatentModel, q: Chain, z: Tensor, *, kl_balance: int | float | None = None
) -> Tensor:
    """Divergence of a posterior chain from the model's prior along a path ``(*S, B, T, K)``.

    Per latent dimension where the laws factorise; else one column with the log ratio at the path.

    Args:
        model: Model whose transition is the prior.
        q: Posterior chain.
        z: Path drawn from it ``(*S, B, T, K)``.
        kl_balance: As in :func:`elbo`.
    """
    first, rest = _divergences(model, q, z, kl_balance)
    width = max(first.shape[-1], rest.shape[-1])
    shape = z.shape[:-2]
    first = _widen(first, width).expand(*shape, width)[..., None, :]
    rest = _widen(rest, width).expand(*shape, z.shape[-2] - 1, width)
    return torch.cat([first, rest], -2)


def _divergences(
    model: LatentModel, q: Chain, z: Tensor, kl_balance: int | float | None
) -> tuple[Tensor, Tensor]:
    """Divergence of the first step, and of the others."""
    if isinstance(q, MarkovChain):
        prior, laws = q.laws(z, model.transition)
    else:
        prior = MarkovChain(model.transition, q.context).conditionals(z)
        laws = q.conditionals(z, prior)
    first = _balanced(laws[0], prior[0], z[..., 0, :], kl_balance)
    if z.shape[-2] == 1:  # torch's Independent cannot sum over an axis of no steps
        return first, first.new_zeros(*z.shape[:-2], 0, first.shape[-1])
    return first, _balanced(laws[1], prior[1], z[..., 1:, :], kl_balance)


def _widen(x: Tensor, width: int) -> Tensor:
    """Pads dimensions that are random at one step only, as in a flow from a random start."""
    return (
        x
        if x.shape[-1] == width
        else torch.cat([x, x.new_zeros(*x.shape[:-1], width - x.shape[-1])], -1)
    )


def _balanced(q: Distribution, p: Distribution, z: Tensor, balance: float | None) -> Tensor:
    if balance is None:
        return _kl(q, p, z)
    return balance * _kl(detach(q), p, z) + (1 - balance) * _kl(q, detach(p), z)


def _kl(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    analytic = kl_per_dim(q, p)
    return (q.log_prob(z) - p.log_prob(z))[..., None] if analytic is None else analytic


def _held(kl: Tensor, free_bits: float, informed: Tensor) -> Tensor:
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
    _require_count("samples", samples)
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
    _require_count("particles", particles)
    inference = model.inference
    if isinstance(inference, Amortised):
        inference = Particles(particles, inference, threshold=threshold)
    if not isinstance(inference, Particles):
        raise TypeError(
            f"fivo needs Amortised or Particles, found {type(inference).__name__}; use evidence."
        )
    return inference.cloud(model, sequences, generator=generator).log_evidence.sum(-1)


def foresight(
    model: LatentModel,
    sequences: Sequences,
    *,
    horizon: int,
    samples: int = 4,
    past: int | float = 0.0,
    free_bits: int | float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Negative CRPS of sampled futures, summed over the last ``horizon`` steps ``(B,)``.

    .. math:: -\sum_h \Big( \frac1n \sum_i |y^i_h - y_h|
        - \frac1{2n(n-1)} \sum_{ij} |y^i_h - y^j_h| \Big)

    in units of each series' scale. A model with a memory learns by likelihood to go one step on
    from true values; here it goes on from its own samples, so it learns how far to trust them. The
    belief at the start has no gradient, the paths have. For families whose draws are
    reparametrised (real-valued ones): the discrete ones have no gradient.

    Args:
        model: Model; train it by ``elbo`` or ``evidence`` first.
        sequences: Observations: a past, and ``horizon`` steps that it is to foresee.
        horizon: Steps ahead.
        samples: Paths per series, at least 2.
        past: Weight of the evidence lower bound of the steps before, which keeps a posterior in
            step with the model while the paths, whose start has no gradient, change that.
        free_bits: Free bits of that bound.
        generator: Source of randomness.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007).
    """
    _require_count("horizon", horizon)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ValueError(f"samples must be an integer of at least 2, found {samples!r}.")
    start = sequences.steps - horizon
    if start < 1:
        raise ValueError(
            f"foresight needs a past before its horizon of {horizon}, found {sequences.steps} "
            "steps; give it longer windows, or a shorter horizon."
        )
    before, future = sequences.window(0, start), sequences.window(start, sequences.steps)
    belief = model.belief(before, end=True, generator=generator)
    paths = model.forecast(
        belief, horizon, n=samples, u=future.u, t=future.t, gradient=True, generator=generator
    )
    if torch.is_grad_enabled() and not paths.y.requires_grad:
        raise TypeError(
            f"the draws of {type(model.emission).__name__} have no gradient, so foresight cannot "
            "train it; use elbo or evidence alone, or a real-valued emission."
        )
    y = (paths.y - future.shift[:, None]) / future.scale[:, None]
    error = (y - future.normalised).abs().mean(0)
    # In order, the sum of the distances of all pairs is a weighted sum.
    weights = 2 * torch.arange(samples, dtype=y.dtype, device=y.device) - samples + 1
    spread = torch.einsum("s,sbhd->bhd", weights, y.sort(0).values) / (samples * (samples - 1))
    value = -torch.where(future.observed, error - spread, 0.0).sum((-2, -1))
    if past:
        value = value + past * elbo(model, before, free_bits=free_bits, generator=generator)
    return value


def lookahead(
    model: LatentModel,
    sequences: Sequences,
    *,
    horizon: int,
    past: int | float = 1.0,
    score: str = "log",
    samples: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Score of the last ``horizon`` steps given those before, beside the evidence of those.

    .. math:: \lambda \log p(y_{1:T}) + \sum_{h=1}^H S\big(p(y_{T+h} \mid y_{1:T}),\, y_{T+h}\big)

    A model that is trained one step ahead need not be good, or honest, many steps ahead; this
    trains the forecast itself. Each later value is scored under its own predictive law, which the
    transition alone carries from the state at step :math:`T`: exactly with ``Kalman``, else as a
    mixture over paths that start from the posterior, a lower bound in expectation.

    Args:
        model: Model with an exact or an amortised inference, whose memory reads no values.
        sequences: Observations; the last ``horizon`` steps of all series are hidden from the
            inference.
        horizon: Steps ahead :math:`H`, at least 1 and fewer than there are steps.
        past: Weight :math:`\lambda` of the evidence, or its lower bound, of the steps before.
        score: ``"log"``, the log density, or ``"crps"``, minus the continuous ranked probability
            score in units of each series' scale, which outliers bend less. For families whose draws
            have no gradient, such as counts, it is the log density whatever is asked.
        samples: Paths per series with an amortised inference, at least 2 for the CRPS.
        generator: Source of randomness.

    Raises:
        TypeError: If the inference or the memory does not allow it.
        ValueError: If the horizon leaves nothing before it, or there is no such score.

    Example:
        >>> model = seqlatent.zoo.structural(trend=True)
        >>> lookahead(model, Sequences.of(torch.zeros(2, 8, 1)), horizon=3).shape
        torch.Size([2])

    References:
        Learning Latent Dynamics for Planning from Pixels (Hafner et al., 2019), section 4, whose
        overshooting trains predictions of several steps. Importance Weighted Autoencoders (Burda et
        al., 2016), the mixture. Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting
        & Raftery, 2007), section 4.2.
    """
    _require_count("horizon", horizon)
    _require_count("samples", samples)
    if horizon >= sequences.steps:
        raise ValueError(
            f"horizon must leave steps before it: found {horizon} of {sequences.steps} steps."
        )
    if model.memory.reads_values:
        raise TypeError(
            f"the memory {type(model.memory).__name__} reads the values that lookahead hides; use "
            "elbo or evidence, or a memory of known inputs, CausalMemory(lags=())."
        )
    if score not in ("log", "crps"):
        raise ValueError(f'score must be "log" or "crps", found {score!r}.')
    if isinstance(model.inference, Kalman):
        return _foreseen(model, sequences, horizon, past, score)
    if not isinstance(model.inference, Amortised):
        raise TypeError(
            f"lookahead needs Kalman or Amortised, found {type(model.inference).__name__}; use "
            "evidence or fivo."
        )
    if model.emission.support is not constraints.real:
        score = "log"
    if score == "crps" and samples < 2:
        raise ValueError(f"the CRPS needs at least 2 samples, found {samples}.")
    known = sequences.window(0, sequences.steps - horizon)
    q = model.posterior(known)
    z = q.rsample((samples,), generator)
    bound = model.emission.log_prob(known.y, known.observed, z, q.context).sum(-1)
    first, rest = _divergences(model, q, z, None)
    bound = bound - first.sum(-1) - rest.sum((-2, -1))
    c = model.context(sequences)[-horizon:]
    state = z[..., -1, :]
    started = torch.ones(sequences.batch, dtype=torch.bool, device=state.device)
    ahead = sample_path(model.transition, c, (samples,), generator, (state, started))
    y, observed = sequences.y[:, -horizon:], sequences.observed[:, -horizon:]
    if score == "log":
        density = model.emission.log_prob(y, observed, ahead, c)
        return past * bound.mean(0) + (density.logsumexp(0) - math.log(samples)).sum(-1)
    drawn = draw(model.emission(ahead, c), (), generator)
    return past * bound.mean(0) - _ranked(drawn, y, observed, c.scale).sum((-2, -1))


def _ranked(drawn: Tensor, y: Tensor, observed: Tensor, scale: Tensor) -> Tensor:
    """Unbiased estimate of the CRPS of each cell, in scales, from draws ``(S, B, H, D)``."""
    samples = len(drawn)
    error = ((drawn - y) / scale).abs().mean(0)
    # in order, the sum of the distances of all pairs is a weighted sum
    weights = 2 * torch.arange(samples, dtype=y.dtype, device=y.device) - samples + 1
    ordered = (drawn / scale).sort(0).values
    spread = torch.einsum("s,sbhd->bhd", weights, ordered) / (samples * (samples - 1))
    return torch.where(observed, error - spread, 0.0)


def _foreseen(
    model: LatentModel, sequences: Sequences, horizon: int, past: float, score: str
) -> Tensor:
    """Lookahead of a linear Gaussian model, in closed form."""
    assert isinstance(model.inference, Kalman)
    assert isinstance(model.emission, LinearEmission)
    seen = sequences.observed.clone()
    seen[:, -horizon:] = False
    c = model.context(sequences)
    states = model.inference.predict(model, replace(sequences, observed=seen), c=c)
    evidence = states.log_evidence.sum(-1)
    c = c[-horizon:]
    H, d, R = model.emission.matrices(c)
    P = states.marginals.covariance_matrix[:, -horizon:]  # type: ignore[attr-defined]
    loc = (H @ states.mean[:, -horizon:, :, None])[..., 0] + d
    scale = (((H @ P) * H).sum(-1) + R.diagonal(dim1=-2, dim2=-1)).sqrt()
    y = (sequences.y[:, -horizon:] - c.shift) / c.scale
    if score == "log":
        value = Normal(loc, scale, validate_args=False).log_prob(y) - c.scale.log()
    else:
        x = (y - loc) / scale
        density = (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
        spread = x * torch.special.erf(x / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
        value = -scale * spread
    value = torch.where(sequences.observed[:, -horizon:], value, 0.0)
    return past * evidence + value.sum((-2, -1))


def annealing(start: int | float, stop: int | float, steps: int) -> Callable[[int], float]:
    """Linear schedule from ``start`` to ``stop`` over some training steps, constant afterwards.

    Example:
        >>> schedule = annealing(0.0, 1.0, 4)
        >>> [schedule(i) for i in (0, 2, 9)]
        [0.0, 0.5, 1.0]
    """
    _require_count("steps", steps)
    return lambda step: start + (stop - start) * min(step / steps, 1.0)


def _require_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, found {value!r}.")
