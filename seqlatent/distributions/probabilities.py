"""Cumulative probabilities of distributions, in closed form where there is one."""

from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

__all__ = ["Cumulative", "cumulative"]


class Cumulative(NamedTuple):
    """Probabilities of what is smaller than a value, and of the value itself.

    Attributes:
        below: ``P(Y < y)``.
        equal: ``P(Y = y)``, 0 for a density.
    """

    below: Tensor
    equal: Tensor


@singledispatch
def cumulative(distribution: Distribution, y: Tensor) -> Cumulative | None:
    """Probabilities below and at each cell, without a gradient; None without a closed form.

    Args:
        distribution: Distribution of the cells, independent of each other.
        y: Values, broadcastable against the cells.

    Example:
        >>> from seqlatent.distributions import cumulative
        >>> cumulative(torch.distributions.Normal(0.0, 1.0), torch.tensor(0.0)).below
        tensor(0.5000)
    """
    return None


@cumulative.register
def _(distribution: Independent, y: Tensor) -> Cumulative | None:
    return cumulative(distribution.base_dist, y)


@cumulative.register
def _(distribution: Normal, y: Tensor) -> Cumulative | None:
    below = torch.special.ndtr((y - distribution.loc.detach()) / distribution.scale.detach())
    return Cumulative(below, torch.zeros_like(below))


@cumulative.register
def _(distribution: StudentT, y: Tensor) -> Cumulative | None:
    from scipy.special import stdtr

    z = (y - distribution.loc.detach()) / distribution.scale.detach()
    below = by_scipy(stdtr, distribution.df.detach(), z)
    return Cumulative(below, torch.zeros_like(below))


@cumulative.register
def _(distribution: Poisson, y: Tensor) -> Cumulative | None:
    rate = distribution.rate.detach()
    below = torch.where(y > 0, torch.special.gammaincc(y.clamp_min(1), rate), 0.0)
    return Cumulative(below, distribution.log_prob(y).detach().exp())


@cumulative.register
def _(distribution: NegativeBinomial, y: Tensor) -> Cumulative | None:
    from scipy.special import betainc

    count, stop = distribution.total_count.detach(), torch.sigmoid(-distribution.logits.detach())
    below = torch.where(y > 0, by_scipy(betainc, count, y.clamp_min(1), stop), 0.0)
    return Cumulative(below, distribution.log_prob(y).detach().exp())


@cumulative.register
def _(distribution: Bernoulli, y: Tensor) -> Cumulative | None:
    p = distribution.probs.detach()
    return Cumulative(torch.where(y > 0, 1 - p, 0.0 * p), torch.where(y > 0, p, 1 - p))


@cumulative.register
def _(distribution: MixtureSameFamily, y: Tensor) -> Cumulative | None:
    if distribution.event_shape:
        return None  # cells of one mixture are not independent
    found = cumulative(distribution.component_distribution, y[..., None])
    if found is None:
        return None
    weights = distribution.mixture_distribution.probs.detach()
    return Cumulative(*((weights * x).sum(-1) for x in found))


def by_scipy(function: Any, *arguments: Tensor) -> Tensor:
    """A function of scipy on tensors, in double precision."""
    found = function(*(x.detach().double().cpu().numpy() for x in arguments))
    return torch.as_tensor(found).to(arguments[0])
