"""Particle filter over regimes, in which the state is integrated out exactly."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent.sizes import whole
from seqlatent.switching.aligned import Branches, Filtered, Mixture, Start, aligned, run
from seqlatent.switching.approximate import branched
from seqlatent.switching.system import SwitchingSystem

__all__ = ["Cloud", "rao_blackwell"]


class Cloud(NamedTuple):
    """What a Rao-Blackwellised particle filter found, and its particles after every step.

    While there are fewer paths of regimes than particles, the rest have weight zero.
    """

    filtered: Filtered
    log_weights: Float[Tensor, "*L T n"]
    regime: Int[Tensor, "*L T n"]
    mean: Float[Tensor, "*L T n K"]
    cov: Float[Tensor, "*L T n K K"]


def rao_blackwell(
    system: SwitchingSystem,
    y: Tensor,
    observed: Tensor,
    *,
    particles: int,
    start: Start | None = None,
    generator: torch.Generator | None = None,
) -> Cloud:
    r"""Rao-Blackwellised particle filter: particles are paths of regimes, each a Kalman filter.

    Regimes are few, so each particle goes into all of them, and is weighed exactly by the next
    observation. Of the :math:`nS` paths that result, n are kept: those with a weight above a
    threshold c keep it, of the others a systematic sample is taken, with weight c,

    .. math:: \sum_i \min(w_i / c,\; 1) = n

    which of all unbiased choices disturbs the weights least. No path is held twice, and nothing is
    random before there are more paths than particles: the filter is exact while
    :math:`S^t \le n`. The exponential of its evidence is unbiased. Arguments and shapes are those
    of :func:`imm`. Moments by regime are taken over all branches, before any is dropped.

    The gradient leaves out the choice of paths, as is usual.

    Args:
        system: The model.
        y: Observations.
        observed: Which of them count.
        particles: Number of paths n that are kept.
        start: Where an earlier filter stopped.
        generator: Source of randomness.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> y, seen = torch.tensor([[0.0], [0.1], [9.0]]), torch.ones(3, 1).bool()
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> system = seqlatent.switching.SwitchingSystem(*model)
        >>> cloud = seqlatent.switching.rao_blackwell(system, y, seen, particles=8)
        >>> cloud.filtered.log_prob.exp()[:, 1]
        tensor([0.5000, 0.0839, 1.0000])

    References:
        On-Line Inference for Hidden Markov Models via Particle Filters (Fearnhead & Clifford,
        2003), the choice of paths. Mixture Kalman Filters (Chen & Liu, 2000). Rao-Blackwellised
        Particle Filtering for Dynamic Bayesian Networks (Doucet et al., 2000).
    """
    particles = whole("particles", particles, 1)
    s = aligned(system, y, observed)

    def reduce(branches: Branches, moments: tuple[Tensor, Tensor, Tensor]) -> Mixture:
        return _kept(branches, particles, generator)

    filtered, mixtures = run(s, branched, reduce, start)
    width = max(x.log_weights.shape[-1] for x in mixtures)
    weights, regime, mean, cov = zip(*(_filled(x, width) for x in mixtures), strict=True)
    return Cloud(
        filtered,
        torch.stack(weights, -2),
        torch.stack(regime, -2),
        torch.stack(mean, -3),
        torch.stack(cov, -4),
    )


def _kept(branches: Branches, count: int, generator: torch.Generator | None) -> Mixture:
    *lead, n, size = branches.log_weights.shape
    weights = branches.log_weights.flatten(-2)
    regime = torch.arange(size, device=weights.device).expand(*lead, n, size).flatten(-2)
    mean, cov = branches.mean, branches.cov
    mean = mean.expand(*lead, n, size, -1).flatten(-3, -2)
    cov = cov.expand(*lead, n, size, *cov.shape[-2:]).flatten(-4, -3)
    if n * size <= count:
        return Mixture(weights, regime, mean, cov)
    index, correction = _choice(weights.detach(), count, generator)
    return Mixture(
        weights.gather(-1, index) - correction,
        regime.gather(-1, index),
        mean.gather(-2, index[..., None].expand(*index.shape, mean.shape[-1])),
        cov.gather(-3, index[..., None, None].expand(*index.shape, *cov.shape[-2:])),
    )


def _choice(
    log_weights: Float[Tensor, "*L m"], count: int, generator: torch.Generator | None
) -> tuple[Int[Tensor, "*L n"], Float[Tensor, "*L n"]]:
    """Which of some weighted items to keep, and the logarithms of their chances to be kept."""
    w, order = log_weights.exp().sort(-1, descending=True)
    tail = w.flip(-1).cumsum(-1).flip(-1)[..., :count]
    left = torch.arange(count, 0, -1, dtype=w.dtype, device=w.device)
    # the first item that the threshold of those behind it would not let through
    cut = (w[..., :count] * left <= tail).to(torch.uint8).argmax(-1, keepdim=True)
    c = tail.gather(-1, cut) / left[cut]
    rank = torch.arange(w.shape[-1], device=w.device)
    # where fewer items than are kept have any weight, c is zero and some without are kept
    chance = torch.where(c > 0, w / c, (rank < count).to(w.dtype))
    chance = torch.where(rank < cut, 1.0, chance.clamp_max(1.0))
    device = w.device if generator is None else generator.device
    u = torch.rand(*w.shape[:-1], 1, dtype=w.dtype, device=device, generator=generator).to(w.device)
    points = torch.arange(count, dtype=w.dtype, device=w.device) + u
    total = chance.cumsum(-1)
    place = torch.searchsorted(total * (count / total[..., -1:]), points, right=True)
    place = place.clamp_max(w.shape[-1] - 1)
    return order.gather(-1, place), chance.gather(-1, place).log()


def _filled(mixture: Mixture, width: int) -> Mixture:
    """A mixture with as many components, those that it lacks of weight zero."""
    lacking = width - mixture.log_weights.shape[-1]
    if not lacking:
        return mixture
    weights, regime, mean, cov = mixture
    return Mixture(
        torch.nn.functional.pad(weights, (0, lacking), value=-torch.inf),
        torch.nn.functional.pad(regime, (0, lacking)),
        torch.cat([mean, mean[..., :1, :].expand(*mean.shape[:-2], lacking, -1)], -2),
        torch.cat([cov, cov[..., :1, :, :].expand(*cov.shape[:-3], lacking, -1, -1)], -3),
    )
