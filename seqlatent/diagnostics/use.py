"""Latent use: how much of what the model says of the data passes through its latents."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import pad

from seqlatent.chain import Chain, MarkovChain
from seqlatent.distributions import Carried
from seqlatent.inference import Particles
from seqlatent.model import LatentModel
from seqlatent.objectives import divergence
from seqlatent.sequences import Sequences

__all__ = ["LatentUse", "latent_use"]

_ACTIVE = 0.01
_SILENT = 0.01


@dataclass(frozen=True)
class LatentUse:
    r"""What :func:`latent_use` found.

    Args:
        kl: Mean divergence of posterior from prior, in nats, per step and latent dimension ``(T,
            K)``; one column where the distributions do not factorise over dimensions. Zero at steps
            of which no series has anything to say.
        kl_per_step: Mean divergence of an informed step, all dimensions together, in nats.
        kl_share: Divergence as a share of divergence plus size of the observation log score.
        activity: Share of the variance of each latent that differences between data explain
            ``(K,)``.
        score: Observation log score per observed cell, ``E_q log p(y | z)``.
        shuffled: The same when each series is given the latents of another one.
        prior: The same when latents are drawn from the prior instead.
    """

    kl: Tensor
    kl_per_step: float
    kl_share: float
    activity: Tensor
    score: float
    shuffled: float
    prior: float

    @property
    def active(self) -> Tensor:
        """Which latent dimensions are active ``(K,)``: activity above 0.01."""
        return self.activity > _ACTIVE

    @property
    def lost_when_shuffled(self) -> float:
        """Nats per observed cell that the wrong series' latents cost."""
        return self.score - self.shuffled

    @property
    def lost_with_prior(self) -> float:
        """Nats per observed cell that latents drawn from the prior cost."""
        return self.score - self.prior

    @property
    def collapsed(self) -> bool:
        """Whether it collapsed: KL below 0.01 nats per informed step, or no active dimension."""
        return self.kl_per_step < _SILENT or not bool(self.active.any())

    @property
    def useful(self) -> bool:
        """Whether latents are read: not collapsed, and shuffling them costs 0.01 nats per cell."""
        return not self.collapsed and self.lost_when_shuffled >= _SILENT

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a report."""
        return {
            "kl": self.kl.tolist(),
            "kl_per_step": self.kl_per_step,
            "kl_share": self.kl_share,
            "activity": self.activity.tolist(),
            "active": int(self.active.sum()),
            "score": self.score,
            "lost_when_shuffled": self.lost_when_shuffled,
            "lost_with_prior": self.lost_with_prior,
            "collapsed": self.collapsed,
            "useful": self.useful,
        }

    def __repr__(self) -> str:
        return (
            f"LatentUse(kl_per_step={self.kl_per_step:.3g}, kl_share={self.kl_share:.1%}, "
            f"active={int(self.active.sum())}/{len(self.activity)}, "
            f"lost_when_shuffled={self.lost_when_shuffled:.3g}, "
            f"lost_with_prior={self.lost_with_prior:.3g}, collapsed={self.collapsed}, "
            f"useful={self.useful})"
        )


def latent_use(
    model: LatentModel,
    sequences: Sequences,
    *,
    samples: int = 64,
    generator: torch.Generator | None = None,
) -> LatentUse:
    r"""Measures whether a model uses its latents, or its posterior has collapsed to the prior.

    A strong memory can explain the data alone; the divergence then falls to zero, and the latents
    are noise that the emission learns to ignore. Three looks, from cheap to plain:

    - the divergence :math:`KL(q(z_t \mid z_{t-1}) \| p(z_t \mid z_{t-1}))` of each step and
      dimension;
    - the activity of a dimension: the share of the variance of its innovations over the data that
      the posterior explains, where :math:`\delta` is the mean of the posterior less that of the
      prior, given the last state,

      .. math:: V(\delta) \, / \, \big(V(\delta) + E[V_q(z_t \mid z_{t-1})]\big), \quad
          \delta = E_q[z_t \mid z_{t-1}] - E_p[z_t \mid z_{t-1}]

      For a standard normal prior and a fitted model the denominator is 1, and a dimension is active
      if the variance of its posterior mean is above 0.01, as in the reference;
    - what the observations lose when each series is given the latents of another one (a single
      series those of another time), or draws from the prior, while the context stays its own.

    Args:
        model: Model with an amortised or exact inference.
        sequences: Data to look at, better held out.
        samples: Paths per series.
        generator: Source of randomness.

    Raises:
        TypeError: If the model's posterior has no density (particles).
        ValueError: If the model has no latents, or nothing was observed.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> from seqlatent.zoo import structural
        >>> use = latent_use(structural(), Sequences.of(torch.randn(20, 30, 1).cumsum(1)))
        >>> use.collapsed, use.useful
        (False, True)

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5, for active units.
    """
    if not isinstance(samples, int) or samples < 2:
        raise ValueError(
            f"samples must be at least 2, to tell noise from activity; found {samples!r}."
        )
    if isinstance(model.inference, Particles):
        raise TypeError(
            "a particle posterior has no density, hence no divergence from the prior: look at the "
            "model under an Amortised or Kalman inference."
        )
    if model.transition.latent_dim == 0:
        raise ValueError("the model has no latents (latent_dim is 0): there is no use to measure.")
    observed = sequences.observed.sum()
    if not bool(observed):
        raise ValueError("latent_use needs observed cells, found every cell missing.")
    if sequences.batch == sequences.steps == 1:
        raise ValueError(
            "latent_use needs a second series or step to shuffle with, found one of each."
        )
    generator = private(generator, sequences.y.device)
    with torch.no_grad():
        q = model.posterior(sequences)
        # the noise of q drives the prior's paths too: where q is p, the two are the same
        again = torch.Generator(generator.device)
        again.set_state(generator.get_state())
        z = q.rsample((samples,), generator)
        kl = divergence(model, q, z).mean(0)
        informed = _informed(sequences, q)
        chain = MarkovChain(model.transition, q.context)

        def score(path: Tensor) -> float:
            values = model.emission.log_prob(sequences.y, sequences.observed, path, q.context)
            return (values.sum() / (len(path) * observed)).item()

        own, total = score(z), (kl.sum() / observed).item()
        return LatentUse(
            kl=(kl * informed).sum(0) / informed.sum(0).clamp_min(1),
            kl_per_step=((kl * informed).sum() / informed.sum().clamp_min(1)).item(),
            kl_share=total / max(total + abs(own), torch.finfo(z.dtype).tiny),
            activity=_activity(q, chain, z, informed[..., 0]),
            score=own,
            shuffled=score(_shuffled(z, generator)),
            prior=score(chain.rsample((samples,), again)),
        )


def private(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The generator given, or one seeded by torch's global generator."""
    if generator is not None:
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))


def _informed(sequences: Sequences, q: Chain) -> Tensor:
    """Steps ``(B, T, 1)`` of which the data say something: none after the last observation."""
    position = torch.arange(sequences.steps, device=sequences.y.device)
    return q.context.informed & (position <= sequences.last[:, None])[..., None]


def _activity(q: Chain, prior: Chain, z: Tensor, informed: Tensor) -> Tensor:
    p = prior.conditionals(z)
    columns = []
    for distribution, before in zip(q.conditionals(z, p), p, strict=True):
        mean, variance = _moments(distribution)
        columns.append((mean - _moments(before)[0], variance))
    # how far the posterior moves a step, and how far it lets it vary
    shift, spread = (_all_steps(first, rest, z) for first, rest in zip(*columns, strict=True))
    shift, spread = shift[:, informed], spread[:, informed]
    # a mean over samples is noisy, and its noise is no activity
    noise = shift.var(0).mean(0) / len(z)
    explained = (shift.mean(0).var(0, correction=0) - noise).clamp_min(0)
    return explained / (explained + spread.mean((0, 1))).clamp_min(torch.finfo(z.dtype).tiny)


def _moments(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and variance of the random part of a state."""
    if isinstance(distribution, Carried):
        if distribution.base is None:
            return distribution.carry[..., :0], distribution.carry[..., :0]
        distribution = distribution.base
    return distribution.mean, distribution.variance


def _all_steps(first: Tensor, rest: Tensor, z: Tensor) -> Tensor:
    """Joins step 1 and the later ones; a dimension that is random at one of them only is 0 else."""
    samples, batch, steps, _ = z.shape
    width = max(first.shape[-1], rest.shape[-1])
    first = pad(first, (0, width - first.shape[-1])).expand(samples, batch, width)
    rest = pad(rest, (0, width - rest.shape[-1])).expand(samples, batch, steps - 1, width)
    return torch.cat([first[:, :, None], rest], 2)


def _shuffled(z: Tensor, generator: torch.Generator) -> Tensor:
    """Gives each series the path of another one; a single series its own, shifted in time."""
    axis = 1 if z.shape[1] > 1 else 2
    size = z.shape[axis]
    shift = torch.randint(1, size, (len(z), 1), device=generator.device, generator=generator)
    index = (torch.arange(size, device=generator.device) + shift) % size
    shape = [len(z), 1, 1, 1]
    shape[axis] = size
    return z.gather(axis, index.to(z.device).reshape(shape).expand_as(z))
