"""Pareto-smoothed importance sampling: weights with a calmer tail, and how far to trust them."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Smoothed", "pareto_shape", "pareto_smoothed"]

_FEWEST = 5  # values of a tail that a distribution can be fitted to
# Strength and mean of the prior of a shape, and values in the prior of a scale: Zhang & Stephens.
_PRIOR, _MEAN, _QUARTILES = 10.0, 0.5, 3.0


class Smoothed(NamedTuple):
    """Importance weights after smoothing.

    Attributes:
        log_weights: Their logarithms ``(S, *B)``; the weights sum to one over S.
        shape: Shape of the tail ``(*B,)``, k-hat: means by the weights have a finite variance below
            .5, and are of practical use up to about .7. Minus infinity where all weights are equal;
            infinity where the tail is too short to tell.
    """

    log_weights: Float[Tensor, " S *B"]
    shape: Float[Tensor, " *B"]

    @property
    def effective(self) -> Float[Tensor, " *B"]:
        """Draws from the target that would say as much, one over the sum of squared weights."""
        return 1 / self.log_weights.mul(2).exp().sum(0)


def pareto_smoothed(log_weights: Float[Tensor, " S *B"]) -> Smoothed:
    r"""Normalises importance weights, the largest replaced by quantiles of a Pareto distribution.

    .. math::
        w_{(S - M + i)} \to F^{-1}_{k, \sigma}\Big(\frac{i - 1/2}{M}\Big) + w_{(S - M)},
        \qquad M = \min(S / 5, 3 \sqrt S)

    Raw weights may have an infinite variance, which no sample shows; the shape :math:`k` of the
    generalised Pareto distribution that fits their tail does. No weight exceeds the largest raw
    one.

    Args:
        log_weights: Logarithms of the raw weights, up to a constant; minus infinity is a weight of
            zero.

    Raises:
        ValueError: If a weight is not a number or infinite, or all of one problem are zero.

    Example:
        >>> log_weights = 0.3 * torch.randn(1000, 2)
        >>> found = pareto_smoothed(log_weights)
        >>> bool((found.shape < 0.7).all()), bool((found.effective > 800).all())
        (True, True)

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024).
    """
    bad = log_weights.isnan() | (log_weights == math.inf)
    if bool(bad.any()) or bool((log_weights == -math.inf).all(0).any()):
        raise ValueError(
            "log_weights must be numbers or minus infinity, some of them finite for each problem, "
            "found none or others; look at the densities that they are made of."
        )
    x = log_weights.double()
    x = x - x.amax(0)
    size = len(x)
    tail = math.ceil(min(size / 5, 3 * math.sqrt(size)))
    shape = torch.full_like(x[0], math.inf)
    shape[x.amin(0) == 0] = -math.inf
    if tail >= _FEWEST:
        order = x.argsort(0)
        top = order[size - tail :]
        cut = x.gather(0, order[size - tail - 1 : size - tail]).exp()
        beyond = x.gather(0, top).exp() - cut
        told = (beyond > 0).sum(0) >= _FEWEST
        k, sigma = pareto_shape(torch.where(told, beyond, torch.ones_like(beyond)))
        level = (torch.arange(tail, dtype=x.dtype, device=x.device) + 0.5) / tail
        level = level.reshape(-1, *[1] * k.ndim)
        smooth = (cut + _quantile(level, k, sigma)).log().clamp_max(0)
        shape = torch.where(told, k, shape)
        x = x.scatter(0, top, torch.where(told, smooth, x.gather(0, top)))
    return Smoothed((x - x.logsumexp(0)).to(log_weights), shape.to(log_weights))


def pareto_shape(x: Float[Tensor, " M *B"]) -> tuple[Float[Tensor, " *B"], Float[Tensor, " *B"]]:
    """Shape and scale of generalised Pareto distributions, given values that are sorted.

    The mean of a posterior over a grid of the ratio of both, with a weak prior of the shape around
    one half, as few values say little.

    Args:
        x: Values that are at least 0, in increasing order.

    References:
        A New and Efficient Estimation Method for the Generalized Pareto Distribution (Zhang &
        Stephens, 2009).
    """
    n = len(x)
    tiny = torch.finfo(x.dtype).tiny
    points = 30 + math.isqrt(n)
    quartile = x[math.floor(n / 4 + 0.5) - 1].clamp_min(tiny)
    grid = torch.arange(points, dtype=x.dtype, device=x.device) + 0.5
    grid = (1 - (points / grid).sqrt()).reshape(-1, *[1] * (x.ndim - 1))
    b = grid / (_QUARTILES * quartile) + 1 / x[-1].clamp_min(tiny)
    k = (-b[:, None] * x).log1p().mean(1)
    weight = (n * ((-b / k).log() - k - 1)).nan_to_num(-math.inf).softmax(0)
    b = (weight * b).sum(0)
    k = (-b * x).log1p().mean(0)
    return (n * k + _PRIOR * _MEAN) / (n + _PRIOR), -k / b


def _quantile(level: Tensor, k: Tensor, sigma: Tensor) -> Tensor:
    """Quantiles of generalised Pareto distributions."""
    exponential = -(-level).log1p()
    small = k.abs() < 1e-12
    safe = torch.where(small, 1.0, k)
    return sigma * torch.where(small, exponential, (safe * exponential).expm1() / safe)
