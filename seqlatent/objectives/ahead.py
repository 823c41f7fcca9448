"""Scores of what is said of steps ahead."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Normal

from seqlatent.chain import sample_path
from seqlatent.distributions import sample
from seqlatent.emissions import LinearEmission
from seqlatent.inference import Amortised, Kalman
from seqlatent.model import LatentModel
from seqlatent.objectives.bounds import (
    divergences,
    elbo,
)
from seqlatent.sequences import Sequences
from seqlatent.sizes import whole

__all__ = ["multi_step_score", "rollout_crps"]


def rollout_crps(
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
    reparametrised (``Emission.differentiable``): those of counts have no gradient.

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
    horizon = whole("horizon", horizon, 1)
    samples = whole("samples", samples, 2)
    start = sequences.steps - horizon
    if start < 1:
        raise ValueError(
            f"rollout_crps needs a past before its horizon of {horizon}, found {sequences.steps} "
            "steps; give it longer windows, or a shorter horizon."
        )
    before, future = sequences.window(0, start), sequences.window(start, sequences.steps)
    belief = model.belief(before, end=True, generator=generator)
    paths = model.forecast(
        belief, horizon, n=samples, u=future.u, t=future.t, gradient=True, generator=generator
    )
    differentiable = model.emission.differentiable and paths.y.requires_grad
    if torch.is_grad_enabled() and not differentiable:
        raise TypeError(
            f"the draws of {type(model.emission).__name__} have no gradient, so rollout_crps "
            "cannot train it; use elbo or evidence alone, or an emission without masses."
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


def multi_step_score(
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
    trains the forecast itself. Each later value is scored under its own predictive distribution,
    which the transition alone carries from the state at step :math:`T`: exactly with ``Kalman``,
    else as a mixture over paths that start from the posterior, a lower bound in expectation.

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
        >>> multi_step_score(model, Sequences.of(torch.zeros(2, 8, 1)), horizon=3).shape
        torch.Size([2])

    References:
        Learning Latent Dynamics for Planning from Pixels (Hafner et al., 2019), section 4, whose
        overshooting trains predictions of several steps. Importance Weighted Autoencoders (Burda et
        al., 2016), the mixture. Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting
        & Raftery, 2007), section 4.2.
    """
    horizon = whole("horizon", horizon, 1)
    samples = whole("samples", samples, 1)
    if horizon >= sequences.steps:
        raise ValueError(
            f"horizon must leave steps before it: found {horizon} of {sequences.steps} steps."
        )
    if model.memory.reads_values:
        raise TypeError(
            f"the memory {type(model.memory).__name__} reads the values that multi_step_score "
            "hides; use elbo or evidence, or a memory of known inputs, CausalMemory(lags=())."
        )
    if score not in ("log", "crps"):
        raise ValueError(f'score must be "log" or "crps", found {score!r}.')
    if isinstance(model.inference, Kalman):
        return _foreseen(model, sequences, horizon, past, score)
    if not isinstance(model.inference, Amortised):
        raise TypeError(
            f"multi_step_score needs Kalman or Amortised, found {type(model.inference).__name__}; "
            "use evidence or fivo."
        )
    if not model.emission.differentiable:
        score = "log"
    if score == "crps" and samples < 2:
        raise ValueError(f"the CRPS needs at least 2 samples, found {samples}.")
    known = sequences.window(0, sequences.steps - horizon)
    q = model.posterior(known)
    z = q.rsample((samples,), generator)
    bound = model.emission.log_prob(known.y, known.observed, z, q.context).sum(-1)
    first, rest = divergences(model, q, z, None)
    bound = bound - first.sum(-1) - rest.sum((-2, -1))
    c = model.context(sequences)[-horizon:]
    state = z[..., -1, :]
    started = torch.ones(sequences.batch, dtype=torch.bool, device=state.device)
    ahead = sample_path(model.transition, c, (samples,), generator, (state, started))
    y, observed = sequences.y[:, -horizon:], sequences.observed[:, -horizon:]
    if score == "log":
        density = model.emission.log_prob(y, observed, ahead, c)
        return past * bound.mean(0) + (density.logsumexp(0) - math.log(samples)).sum(-1)
    drawn = sample(model.emission(ahead, c), (), generator)
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
