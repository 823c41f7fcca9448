"""Coordinates in which the likelihood of a series is nearly quadratic, at zero variances too."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = []

_LEAST = 1e-8


@dataclass(frozen=True)
class Signed:
    r"""Standard deviations with a sign, where a model has their logarithms.

    .. math:: \text{parameter} = \log |x|

    A variance that is best zero is at minus infinity on a log scale, and a descent never arrives.
    The likelihood is an even, smooth function of the deviation itself, which is what
    maximum likelihood is found in; all other parameters are as they are.

    Args:
        logarithmic: Which parameters are logarithms of scales.

    Shape:
        logarithmic ``(P,)``.

    Example:
        >>> chart = Signed(torch.tensor([True, False]))
        >>> chart.parameters(torch.tensor([-1.0, -1.0]))
        tensor([ 0., -1.])
    """

    logarithmic: Bool[Tensor, " P"]

    def coordinates(self, theta: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """Coordinates of the parameters of a model."""
        return torch.where(self.logarithmic, theta.exp(), theta)

    def parameters(self, x: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """The parameters of a model."""
        return torch.where(self.logarithmic, x.abs().clamp_min(_LEAST).log(), x)

    def slope(self, x: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """Derivatives of the parameters."""
        size = x.abs().clamp_min(_LEAST)
        return torch.where(self.logarithmic, torch.where(x < 0, -1 / size, 1 / size), 1.0)

    def away_from_zero(
        self, x: Float[Tensor, "B P"], gradient: Float[Tensor, "B P"], least: float, gain: float
    ) -> Float[Tensor, "B P"]:
        """Small deviations whose variance should be larger, at a deviation that is not small.

        At zero an even function has no slope, whichever way it goes: a descent that comes near
        stays. The derivative in the variance says whether it should have.

        Args:
            x: Coordinates.
            gradient: Of the value that is minimised.
            least: The deviation.
            gain: What a variance must promise to gain there.
        """
        promised = -gradient / (2 * torch.where(x == 0, 1.0, x)) * least**2
        rising = self.logarithmic & (x.abs() < least) & (promised > gain)
        return torch.where(rising, least, x)
