"""Sums over windows of any length, from sums from the first step on."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Sums"]


class Sums(NamedTuple):
    """Sums from the first step on, in double precision.

    Attributes:
        values: Of values ``(B, S + 1)``.
        counts: Of how many there are ``(B, S + 1)``.
    """

    values: Float[Tensor, "B S1"]
    counts: Float[Tensor, "B S1"]

    @classmethod
    def of(cls, x: Float[Tensor, "B S"], o: Float[Tensor, "B S"]) -> "Sums":
        """Of values, where ``o`` is one."""
        sums = [torch.cumsum(v.double(), 1) for v in (x * o, o)]
        return cls(*(torch.nn.functional.pad(s, (1, 0)) for s in sums))

    def mean(self, first: Int[Tensor, "*#Q"], end: Int[Tensor, "*#Q"]) -> tuple[Tensor, Tensor]:
        """Means over steps ``first <= t < end``, zero for none, and of how many ``(*Q)``."""
        last = self.values.shape[1] - 1
        first, end = torch.broadcast_tensors(first, end)
        shape = first.shape
        first, end = (x.clamp(0, last).flatten(1) for x in (first, end))
        end = torch.maximum(first, end)
        total, count = (s.gather(1, end) - s.gather(1, first) for s in self)
        mean = total / count.clamp_min(1)
        return mean.view(shape).float(), count.view(shape).float()
