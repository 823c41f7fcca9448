"""Link, the way from the signal of a series to the size of its values."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["KINDS", "Link"]

KINDS = ("real", "growth", "positive", "poisson", "overdispersed", "intermittent", "share")
"""Kinds of series: x itself, its exponential, x above a floor of zero, counts of two kinds, demand
with many zeros, a share between 0 and 1."""


class Link(NamedTuple):
    r"""What a signal is in the units of the data, for each series.

    Attributes:
        kind: Number of each series' kind, of :data:`KINDS` ``(B,)``.
        centre: Signal c at which a series has its usual size ``(B, 1)``.
        shift: What real and positive series have beside their signal ``(B, 1)``.
        rate: Part of its size that a growing series gains by a unit of the signal ``(B, 1)``.
        count_rate: The same of the logarithm of a count's size ``(B, 1)``.
        usual: Usual size of a count ``(B, 1)``.
        dispersion: Variance of counts beyond their mean, as a part of its square ``(B, 1)``.
        demand: Usual probability of a demand, and usual share ``(B, 1)``.
    """

    kind: Int[Tensor, " B"]
    centre: Float[Tensor, "B 1"]
    shift: Float[Tensor, "B 1"]
    rate: Float[Tensor, "B 1"]
    count_rate: Float[Tensor, "B 1"]
    usual: Float[Tensor, "B 1"]
    dispersion: Float[Tensor, "B 1"]
    demand: Float[Tensor, "B 1"]

    def of(self, *kinds: str) -> Tensor:
        """Which series are of some kinds ``(B, 1)``."""
        return torch.stack([self.kind == KINDS.index(kind) for kind in kinds]).any(0)[:, None]

    def size(self, signal: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Size of counts where there is a demand."""
        return torch.exp(((signal - self.centre) * self.count_rate).clamp(-3, 3)) * self.usual

    def _demand(self, size: Tensor, power: int) -> Tensor:
        r"""Mean of :math:`p(\lambda) \lambda^n` where counts have a demand with probability p.

        The rate :math:`\lambda` has the size as its mean and a gamma distribution; the demand grows
        with its root, as far as it may.
        """
        shape = 1 / self.dispersion
        order = power + 0.5
        gamma = torch.lgamma(shape + order) - torch.lgamma(shape) - order * shape.log()
        usual = self.demand * (size / self.usual).sqrt() * gamma.exp()
        return torch.minimum(usual, torch.ones_like(usual)) * size**power

    def mean(self, signal: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Values that a signal without noise leads to, on average."""
        x, rate = signal - self.centre, self.rate
        size = self.size(signal)
        y = torch.where(self.of("real"), signal + self.shift, size)
        y = torch.where(self.of("growth"), torch.exp((x * rate).clamp(-6, 6)) / rate, y)
        y = torch.where(self.of("positive"), (x + self.shift).clamp_min(0.0), y)
        some = self._demand(size, 0) + self._demand(size, 1)
        y = torch.where(self.of("intermittent"), some, y)
        share = torch.sigmoid(x * rate.clamp_min(0.02) + torch.logit(self.demand))
        return torch.where(self.of("share"), share, y)

    def derivative(self, signal: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """What the mean gains by a unit of the signal."""
        rate, mean, size = self.rate, self.mean(signal), self.size(signal)
        gain = torch.where(self.of("real", "positive"), torch.ones_like(mean), size)
        gain = torch.where(self.of("growth"), rate * mean, gain)
        gain = torch.where(self.of("poisson", "overdispersed"), self.count_rate * size, gain)
        some = 0.5 * self._demand(size, 0) + 1.5 * self._demand(size, 1)
        gain = torch.where(self.of("intermittent"), self.count_rate * some, gain)
        share = rate.clamp_min(0.02) * mean * (1 - mean)
        return torch.where(self.of("share"), share, gain)

    def deviation(
        self, signal: Float[Tensor, "B T"], noise: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Standard deviation of values, where the signal has noise of a standard deviation."""
        size = self.size(signal)
        variance = size + torch.where(self.of("poisson"), 0.0, self.dispersion) * size.square()
        first, second, third = (self._demand(size, n) for n in range(3))
        some = (first + 3 * second + third - (first + second).square()).clamp_min(0)
        own = torch.where(self.of("poisson", "overdispersed"), variance, torch.zeros_like(size))
        own = torch.where(self.of("intermittent"), some, own)
        return ((self.derivative(signal) * noise).square() + own).sqrt()
