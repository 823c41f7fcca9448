"""What the network reads of a series: its past in units of its own changes."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Past", "Seasons", "context_of", "past_of"]


class Seasons(NamedTuple):
    """Season lengths of a batch.

    Attributes:
        short: Steps of the shorter one, 1 for none.
        long: Steps of the longer one, 0 for none.
    """

    short: int = 1
    long: int = 0

    @classmethod
    def of(cls, lengths: "tuple[int, ...]") -> "Seasons":
        """Of season lengths, shortest first; of more than two the first and the last."""
        if not lengths:
            return cls()
        return cls(lengths[0], lengths[-1] if len(lengths) > 1 else 0)


class Past(NamedTuple):
    """Past of a batch of series, scaled.

    Attributes:
        z: Values in units of ``scale`` from ``shift``, zero where there is none ``(B, T)``.
        observed: Where there is one ``(B, T)``.
        shift: Mean of the last season ``(B, 1)``.
        scale: Usual size of a change ``(B, 1)``.
        lower: Whether no value lies below zero ``(B, 1)``.
        whole: Whether all values are whole numbers ``(B, 1)``.
        seasons: Season lengths.
    """

    z: Float[Tensor, "B T"]
    observed: Bool[Tensor, "B T"]
    shift: Float[Tensor, "B 1"]
    scale: Float[Tensor, "B 1"]
    lower: Bool[Tensor, "B 1"]
    whole: Bool[Tensor, "B 1"]
    seasons: Seasons

    def to(self, dtype: torch.dtype) -> "Past":
        """The same with numbers of another type."""
        real = {k: getattr(self, k).to(dtype) for k in ("z", "shift", "scale")}
        return self._replace(**real)

    @property
    def unit(self) -> Float[Tensor, "B 1"]:
        """What a change of one in ``z`` is; one where nothing has a scale."""
        return torch.where(self.scale > 0, self.scale, 1.0)

    @property
    def origin(self) -> Float[Tensor, "B 1"]:
        """Zero in the units of ``z``, with the sign turned."""
        return self.shift / self.unit


def context_of(seasons: Seasons) -> int:
    """Last steps of a series that are read."""
    short, long = seasons
    if long:
        return min(max(3 * long, 8 * short), 1400)
    if short == 1:
        return 160
    return min(max(120, 16 * short), max(384, 4 * short))


def past_of(y: Float[Tensor, "B T"], observed: Bool[Tensor, "B T"], seasons: Seasons) -> Past:
    """Scales the past of series; the last column is the last row of each.

    A series all of whose changes are zero is scaled by its size; one of zeros alone by nothing, so
    that its forecast is zero.
    """
    steps, m = y.shape[1], seasons.short
    y = torch.where(observed, y, 0.0)
    o = observed.to(y.dtype)
    width = min(max(m, 6), steps)
    shift = _mean(y[:, -width:], o[:, -width:])
    shift = torch.where(o[:, -width:].sum(1, keepdim=True) > 0, shift, _mean(y, o))
    one, _ = _change(y, o, 1)
    scale = one
    if 1 < m < steps:
        season, count = _change(y, o, m)
        scale = torch.where(count >= 2, (one + season) / 2, one)
    size = _mean(y.abs(), o)
    tiny = 64 * torch.finfo(y.dtype).eps
    scale = torch.where(scale > tiny * size, scale, 0.01 * size)
    unit = torch.where(scale > 0, scale, 1.0)
    z = torch.where(observed, (y - shift) / unit, 0.0)
    lower = ((y >= 0) | ~observed).all(1, keepdim=True)
    whole = ((y == y.round()) | ~observed).all(1, keepdim=True)
    return Past(z, observed, shift, scale, lower, whole, seasons)


def _mean(y: Tensor, o: Tensor) -> Tensor:
    return (y * o).sum(1, keepdim=True) / o.sum(1, keepdim=True).clamp_min(1)


def _change(y: Tensor, o: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Mean absolute change over a lag, and of how many it is."""
    if lag >= y.shape[1]:
        return torch.zeros_like(y[:, :1]), torch.zeros_like(y[:, :1])
    both = o[:, lag:] * o[:, :-lag]
    return _mean((y[:, lag:] - y[:, :-lag]).abs(), both), both.sum(1, keepdim=True)
