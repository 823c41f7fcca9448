"""One-step prediction: each observation as the model saw it coming."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.chain import MarkovChain, initial_of
from seqlatent.distributions import cumulative, sample
from seqlatent.emissions.emission import LinearEmission
from seqlatent.inference import Amortised, ForwardBackward, Kalman, Particles
from seqlatent.inference.switching import Switching
from seqlatent.model.latent_model import LatentModel
from seqlatent.sequences import Context, Sequences

__all__ = ["OneStep", "one_step"]


class OneStep(NamedTuple):
    """How each step was predicted from the steps before it.

    Attributes:
        log_prob: ``log p(y_t | y_{<t})`` in the units of the data ``(B, T)``; 0 where nothing was
            observed.
        below: ``P(Y_t < y_t | y_{<t})`` of each cell ``(B, T, D)``.
        equal: ``P(Y_t = y_t | y_{<t})``, which is 0 for a density.
        innovation: Distance of each cell from its mean, in standard deviations, where the
            predictive distribution is normal and known, and its normal score where it is one of
            values and outliers; else None.
        drawn: Whether the probabilities are shares of draws of :math:`y_t`.
    """

    log_prob: Tensor
    below: Tensor
    equal: Tensor
    innovation: Tensor | None = None
    drawn: bool = False


@torch.no_grad()
def one_step(
    model: LatentModel,
    sequences: Sequences,
    *,
    samples: int = 100,
    first: int = 0,
    generator: torch.Generator | None = None,
) -> OneStep:
    r"""Predictive distribution of each observation, evaluated at what was observed.

    .. math:: p(y_t \mid y_{<t}) = \int p(y_t \mid z_t, c_t)\, p(z_t \mid z_{t-1}, c_t)\,
        p(z_{t-1} \mid y_{<t})\, dz

    Exact with ``Kalman``. Otherwise an average over states drawn from the filter: that of a causal
    encoder, else a particle filter; where a family has no distribution function in closed form the
    probabilities come from as many draws of :math:`y_t`. What is said of a step does not change
    with later ones.

    Args:
        model: The model.
        sequences: Observations.
        samples: States, and observations, per step.
        first: First step that is wanted: only the distribution of it and of later ones is returned.
        generator: Source of randomness.

    Example:
        >>> model = seqlatent.zoo.structural()
        >>> scores = one_step(model, Sequences.of(torch.zeros(2, 5, 1)))
        >>> scores.log_prob.shape, scores.below[0, 0]
        (torch.Size([2, 5]), tensor([0.5000]))

    References:
        Present Position and Potential Developments: the Prequential Approach (Dawid, 1984).
    """
    c = model.context(sequences)
    if isinstance(model.inference, Kalman):
        return _exact(model, model.inference, sequences, c, first)
    z = _predicted(model, sequences, c, samples, generator)[..., first:, :]
    c, wanted = c[first:], sequences.window(first, sequences.steps)
    y, observed = wanted.y, wanted.observed
    log_prob = model.emission.log_prob(y, observed, z, c).logsumexp(0) - math.log(len(z))
    log_prob = torch.where(observed.any(-1), log_prob, 0.0)
    found = cumulative(model.emission(z, c), y)
    if found is not None:
        return OneStep(log_prob, found.below.mean(0), found.equal.mean(0))
    copies = max(1, samples // len(z))
    # step by step: how much noise a step takes must not move that of the steps before it
    drawn = torch.stack(
        [
            sample(model.emission(z[..., t, :], now), (copies,), generator).flatten(0, 1).to(y)
            for t, now in enumerate(c.unbind())
        ],
        -2,
    )
    below, equal = (drawn < y).to(y).mean(0), (drawn == y).to(y).mean(0)
    return OneStep(log_prob, below, equal, drawn=True)


def _exact(
    model: LatentModel, kalman: Kalman, sequences: Sequences, c: Context, first: int
) -> OneStep:
    assert isinstance(model.emission, LinearEmission)
    doubted = kalman.doubted(model, sequences, c=c)
    if doubted is not None:
        jacobian = (sequences.observed * sequences.scale.log()[:, None]).sum(-1)
        log_prob, innovation = doubted.log_evidence - jacobian, doubted.score[..., None]
        log_prob, innovation = log_prob[:, first:], innovation[:, first:]
        below = torch.special.ndtr(innovation)
        return OneStep(log_prob, below, torch.zeros_like(below), innovation)
    states = kalman.predict(model, sequences, c=c)
    H, d, R = model.emission.matrices(c)
    P = states.marginals.covariance_matrix  # type: ignore[attr-defined]
    loc = c.shift + c.scale * ((H @ states.mean[..., None])[..., 0] + d)
    spread = ((H @ P) * H).sum(-1) + R.diagonal(dim1=-2, dim2=-1)
    innovation = (sequences.y - loc) / (c.scale * spread.sqrt())
    below = torch.special.ndtr(innovation)
    log_prob, below, innovation = (x[:, first:] for x in (states.log_evidence, below, innovation))
    return OneStep(log_prob, below, torch.zeros_like(below), innovation)


def _predicted(
    model: LatentModel,
    sequences: Sequences,
    c: Context,
    samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Draws of each state given the steps before it ``(S, B, T, K)``."""
    if model.transition.latent_dim == 0:
        return sequences.y.new_zeros(1, sequences.batch, sequences.steps, 0)
    inference = model.inference
    if isinstance(inference, Amortised) and inference.causal:
        q = inference(model, sequences, c)
        assert isinstance(q, MarkovChain)
        z, c = q.rsample((samples,), generator), q.context
    else:
        filters = isinstance(inference, Particles | ForwardBackward | Switching)
        particles = inference if filters else Particles(samples)
        marginals = particles.filter(model, sequences, c=c, generator=generator).marginals
        z = sample(marginals, (samples,), generator)
    first = sample(initial_of(model.transition, c[0]), (samples,), generator)
    if sequences.steps == 1:
        return first[..., None, :]
    rest = sample(model.transition(z[..., :-1, :], c[1:]), (), generator)
    return torch.cat([first[..., None, :], rest], -2)
