"""What all parts of a drawn series share: how many, how long, which seasons, one generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.prior.hyper import Scalar, draw_scalar

__all__ = ["Grid", "Part"]


class Part(NamedTuple):
    """One component of every series, and the parameters that it was drawn with.

    Attributes:
        path: Its values ``(B, T)``.
        parameters: Its parameters by name ``(B,)``.
        latents: What else it knows of each step ``(B, T)``, by name: breaks, a slope.
    """

    path: Tensor
    parameters: dict[str, Tensor]
    latents: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Grid:
    """The steps that components are drawn on.

    Args:
        series: Series ``B``.
        steps: Steps ``T``.
        season_lengths: Steps of each season, shortest first.
        generator: Source of all randomness.
    """

    series: int
    steps: int
    season_lengths: tuple[int, ...] = ()
    generator: torch.Generator | None = None

    def scalar(self, value: Scalar) -> Float[Tensor, "B 1"]:
        """One number for each series."""
        return draw_scalar(value, self.series, self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal noise ``(B, *shape)``, one number a step by default."""
        return torch.randn(self.series, *(shape or (self.steps,)), generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform noise ``(B, *shape)``, one number a step by default."""
        return torch.rand(self.series, *(shape or (self.steps,)), generator=self.generator)

    def jumps(self, rate: Float[Tensor, "B 1"], scale: Float[Tensor, "B 1"]) -> Tensor:
        """Normal jumps ``(B, T)`` at steps that are rare, zero at the others."""
        return (self.uniform() < rate) * scale * self.normal()
