"""Mixtures over the members of an ensemble: who draws which path, quantiles of normals."""

from collections.abc import Sequence

import numpy as np
import torch

from seqlatent.forecasting.features.transforms import Transform

__all__ = ["allot", "quantiles"]


def allot(weights: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
    """Member that draws each path of each series ``(n, N)``.

    Their numbers are as close to the weights as whole paths allow.

    Args:
        weights: Weights of the members ``(N, M)``, which sum to one.
        n: Paths.
        generator: Source of randomness, one number per series.
    """
    # systematic resampling: one uniform number places n equidistant points on the weights
    place = torch.rand(len(weights), generator=generator, dtype=torch.float64).numpy()
    points = (np.arange(n)[:, None] + place) / n
    bounds = np.cumsum(weights, 1)[:, :-1]
    owner = (points[:, :, None] >= bounds[None]).sum(-1)
    # the k-th path should not tell the member
    order = torch.randperm(n, generator=generator).numpy()
    return owner[order]


def quantiles(
    weights: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    levels: np.ndarray,
    transforms: Sequence[Transform],
) -> np.ndarray:
    """Quantiles of mixtures of transformed normals ``(Q, ...)``, in the units of the data.

    Args:
        weights: Weights of the components ``(M, ...)``, broadcastable against the means.
        mean: Means ``(M, ...)``, each as its model sees the data.
        scale: Standard deviations ``(M, ...)``.
        levels: Levels ``(Q,)``, strictly between 0 and 1.
        transforms: How each component sees the data.
    """
    normal = _ndtri(levels).reshape(-1, *(1,) * (mean.ndim - 1))
    each = np.stack(
        [
            distribution.inverse(mean[m] + scale[m] * normal)
            for m, distribution in enumerate(transforms)
        ],
        1,
    )
    if len(mean) == 1:
        return each[:, 0]
    weights = np.broadcast_to(weights, mean.shape)
    used = weights > 0
    low = np.where(used, each, np.inf).min(1)
    high = np.where(used, each, -np.inf).max(1)
    target = levels.reshape(-1, *(1,) * (mean.ndim - 1))
    for _ in range(50):
        middle = (low + high) / 2
        below = np.zeros_like(middle)
        for m, distribution in enumerate(transforms):
            below += weights[m] * _ndtr((distribution.forward(middle) - mean[m]) / scale[m])
        under = below < target
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return (low + high) / 2


def _ndtri(p: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(p)).numpy()


def _ndtr(x: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(np.ascontiguousarray(x))).numpy()
