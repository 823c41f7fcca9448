"""Posterior families: chains made of encoder features and the model's own transition."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from seqlatent.chain import Correction, Kernel, initial_of, next_of
from seqlatent.distributions import (
    Carried,
    diagonal_normal,
)
from seqlatent.sequences import Context

__all__ = ["Posterior"]

FLOOR = 1e-4  # least standard deviation, small beside 1


class Posterior(nn.Module, ABC):
    """A family of posterior chains.

    Attributes:
        latent_dim: Random latent dimensions, without what a state carries.
    """

    latent_dim: int

    @abstractmethod
    def statistics(self, features: Tensor) -> Tensor:
        """What the kernel reads of an encoder's features, for all steps; it becomes ``c.e``."""

    @abstractmethod
    def kernel(self, transition: Kernel, c: Context) -> Correction:
        """The posterior's conditionals, given the model's transition and a context of all steps."""


def require_width(posterior: Posterior, transition: Kernel, c: Context) -> None:
    """Verifies that a posterior has as many latent dimensions as the transition draws.

    Raises:
        ValueError: If it has others.
    """
    with torch.no_grad():
        distribution = initial_of(transition, c[0])
    width = (
        distribution.random_dim
        if isinstance(distribution, Carried)
        else distribution.event_shape[0]
    )
    if width != posterior.latent_dim:
        raise ValueError(
            f"{type(posterior).__name__} has {posterior.latent_dim} latent dimensions, and "
            f"{type(transition).__name__} has {width} random ones; give both the same number."
        )


def conditional(transition: Kernel, c: Context) -> Distribution:
    """The distribution of one step of the transition, to see of which kind they are."""
    with torch.no_grad():
        first = initial_of(transition, c[0])
        first = first if isinstance(first, Carried) else require_diagonal(first)
        return next_of(transition, first.mean, c[0])


def choose(informed: Tensor, q: Distribution, p: Distribution) -> Distribution:
    """``q`` where informed and ``p`` elsewhere, for diagonal normal distributions."""
    q, p = require_diagonal(q), require_diagonal(p)
    loc = torch.where(informed, q.base_dist.loc, p.base_dist.loc)
    return diagonal_normal(loc, torch.where(informed, q.base_dist.scale, p.base_dist.scale))


def require_diagonal(distribution: Distribution) -> Independent:
    """The distribution itself, which is normal with independent coordinates.

    Raises:
        TypeError: If it is another.
    """
    if isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal):
        return distribution
    raise TypeError(
        "Combiner and Parallel need a transition with diagonal normal conditionals, found "
        f"{type(distribution).__name__}; use Tilted, Kalman or Particles."
    )
