"""Carried, the distribution of a state of which a part is a memory of the past."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from seqlatent.distributions.sampling import base_noise, reparametrise, sample

__all__ = ["Carried"]


class Carried(Distribution):
    r"""State :math:`s = [z, h]` of a random part :math:`z` and a memory :math:`h` carried along.

    ``log_prob(s)`` scores :math:`z` only: the memory is a function of the past, so it has no
    density of its own. With ``base=None`` the whole state is deterministic.

    Args:
        base: Distribution of the random part, event ``(K,)``, or None.
        carry: Deterministic part ``(..., M)``.

    Example:
        >>> z = seqlatent.distributions.diagonal_normal(torch.zeros(2), torch.ones(2))
        >>> s = Carried(z, torch.tensor([5.0]))
        >>> sample(s).shape, s.log_prob(torch.tensor([0.0, 0.0, 5.0]))
        (torch.Size([3]), tensor(-1.8379))
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, base: Distribution | None, carry: Tensor) -> None:
        self.base = base
        self.random_dim = 0 if base is None else base.event_shape[0]
        batch = carry.shape[:-1]
        if base is not None:
            batch = torch.broadcast_shapes(batch, base.batch_shape)
        self.carry = carry.expand(*batch, carry.shape[-1])
        super().__init__(
            Size(batch), Size((self.random_dim + carry.shape[-1],)), validate_args=False
        )

    @property
    def mean(self) -> Tensor:
        """Mean of the random part beside the carried part."""
        return self.carry if self.base is None else _beside(self.base.mean, self.carry)

    @property
    def variance(self) -> Tensor:
        """Variance of the random part beside zeros."""
        zeros = torch.zeros_like(self.carry)
        return zeros if self.base is None else _beside(self.base.variance, zeros)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        carry = self.carry.expand(*sample_shape, *self.carry.shape)
        return (
            carry
            if self.base is None
            else _beside(sample(self.base, sample_shape, generator), carry)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self.base is None:
            return value.new_zeros(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))
        return self.base.log_prob(value[..., : self.random_dim])


@base_noise.register
def _(
    distribution: Carried, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    if distribution.base is None:
        return distribution.carry.new_zeros(Size(shape) + distribution.batch_shape + (0,))
    return base_noise(distribution.base, shape, generator)


@reparametrise.register
def _(distribution: Carried, eps: Tensor) -> Tensor:
    if distribution.base is None:
        return distribution.carry.expand(*eps.shape[:-1], -1)
    return _beside(reparametrise(distribution.base, eps), distribution.carry)


@sample.register
def _(
    distribution: Carried, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return distribution.rsample(Size(shape), generator)


def _beside(left: Tensor, right: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
    return torch.cat(
        [left.expand(*shape, left.shape[-1]), right.expand(*shape, right.shape[-1])], -1
    )
