"""Quantiles of mixtures of normal and log-normal distributions, as tensors."""

import numpy as np
import torch

from seqlatent.forecasting.engines.mixture import quantiles
from seqlatent.forecasting.features.transforms import Identity, Log

__all__ = ["mixture_quantiles"]


def mixture_quantiles(mean, variance, log, levels, weights=None):
    """Quantiles ``(*, L)`` of members ``(M, *)``, of which some are of logarithms."""
    equal = torch.full_like(mean, 1 / len(mean))
    weights = (
        equal
        if weights is None
        else weights.reshape(*weights.shape, *[1] * (mean.ndim - weights.ndim))
    )
    transforms = [Log(1e-290) if one else Identity() for one in log]
    arrays = (x.numpy() for x in (weights, mean, variance.sqrt()))
    found = quantiles(*arrays, np.asarray(levels, dtype=float), transforms)
    return torch.from_numpy(np.moveaxis(found, 0, -1))
