"""Distributions of the parameters of a series, one number for each."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Hyper", "LogUniform", "Scalar", "Signed", "Sometimes", "Uniform", "draw_scalar"]


class Hyper(ABC):
    """A distribution of a parameter over series."""

    @abstractmethod
    def sample(self, series: int, generator: torch.Generator | None = None) -> Float[Tensor, "B 1"]:
        """One number for each series."""


Scalar = float | int | Hyper
"""A number that all series share, or the distribution of one for each."""


def draw_scalar(
    value: Scalar, series: int, generator: torch.Generator | None = None
) -> Float[Tensor, "B 1"]:
    """One number for each series, the same where it is given as such."""
    if isinstance(value, Hyper):
        return value.sample(series, generator)
    return torch.full((series, 1), float(value))


@dataclass(frozen=True)
class Uniform(Hyper):
    """Uniform between two numbers.

    Args:
        low: The least.
        high: The greatest.
    """

    low: float | int
    high: float | int

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(
                f"Uniform expects finite low <= high, found {self.low} and {self.high}."
            )

    def sample(self, series: int, generator: torch.Generator | None = None) -> Tensor:
        unit = torch.rand(series, 1, generator=generator)
        return self.low + (self.high - self.low) * unit


@dataclass(frozen=True)
class LogUniform(Hyper):
    """Uniform on a logarithmic scale: each order of magnitude is as likely as the next.

    Args:
        low: The least, positive.
        high: The greatest.
    """

    low: float | int
    high: float | int

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(
                f"LogUniform expects 0 < low <= high, found {self.low} and {self.high}."
            )

    def sample(self, series: int, generator: torch.Generator | None = None) -> Tensor:
        unit = torch.rand(series, 1, generator=generator)
        return self.low * torch.exp(math.log(self.high / self.low) * unit)


@dataclass(frozen=True)
class Signed(Hyper):
    """A normal number of mean zero, whose standard deviation may itself be drawn.

    Args:
        scale: Standard deviation.
    """

    scale: Scalar = 1.0

    def sample(self, series: int, generator: torch.Generator | None = None) -> Tensor:
        size = draw_scalar(self.scale, series, generator)
        return size * torch.randn(series, 1, generator=generator)


@dataclass(frozen=True)
class Sometimes(Hyper):
    """Drawn for a part of the series, and one number for the others.

    Args:
        probability: Probability that a series has it.
        value: What it then is.
        otherwise: What it is for the others.
    """

    probability: float | int
    value: Scalar
    otherwise: Scalar = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"Sometimes expects a probability between 0 and 1, found {self.probability}."
            )

    def sample(self, series: int, generator: torch.Generator | None = None) -> Tensor:
        has = torch.rand(series, 1, generator=generator) < self.probability
        value = draw_scalar(self.value, series, generator)
        return torch.where(has, value, draw_scalar(self.otherwise, series, generator))
