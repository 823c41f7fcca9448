"""Moments of series over many lags, which say how large their shocks are."""

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.amortised.past import Past

__all__ = ["MOMENTS", "moments"]

LAGS = (1, 2, 3, 4, 6, 8, 16, 32)  # beside a season and two
MOMENTS = 2 * (len(LAGS) + 2) + 4


def moments(past: Past) -> Float[Tensor, "B M"]:
    """Roughness over lags, how often it was seen, and how changes go together."""
    z, o = past.z.float(), past.observed.float()
    m = past.seasons.short
    found = [part for lag in (*LAGS, m, 2 * m) for part in _change(z, o, lag)]
    gone = (z[:, 1:] - z[:, :-1]) * o[:, 1:] * o[:, :-1]
    square = gone.square().sum(1, keepdim=True).clamp_min(1e-8)
    fourth = gone.square().square().sum(1, keepdim=True).clamp_min(1e-16)
    count = (gone != 0).sum(1, keepdim=True).clamp_min(1)
    next_to = (gone[:, 1:] * gone[:, :-1]).sum(1, keepdim=True)
    again = gone[:, m:] * gone[:, :-m] if m < gone.shape[1] else gone[:, :1] * 0
    found += [
        next_to / square,
        torch.log(fourth * count / square.square()),
        gone.sum(1, keepdim=True) / square.sqrt(),
        again.sum(1, keepdim=True) / square,
    ]
    return torch.cat(found, 1)


def _change(z: Tensor, o: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Logarithm of the mean absolute change over a lag, and of how many there are."""
    lag = min(lag, z.shape[1])  # none that are so far apart say as much as unseen ones
    both = o[:, lag:] * o[:, :-lag]
    count = both.sum(1, keepdim=True)
    size = ((z[:, lag:] - z[:, :-lag]).abs() * both).sum(1, keepdim=True) / count.clamp_min(1)
    return torch.log(size + 0.05), (count + 1).log() / 4
