"""A bank of linear smoothers: level and season of each series under a few sizes of their shocks."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seqlatent.recurrence import linear_recurrence

__all__ = [
    "DECAYS",
    "LINEAR",
    "SEASONS",
    "Bank",
    "bank_of",
    "means_of_phases",
    "sums_around",
    "unfolded",
]

DECAYS = (0.2, 0.5, 0.75, 0.9, 0.97)
"""Weights of the neighbours of a step in its level, of the worlds of the bank."""

LINEAR = (1, 2, 3)  # worlds whose level also has a slope
SEASONS = (0.6, 0.95)
"""Weights of neighbouring seasons in a season."""

_TINY = 1e-280
_ALONE = 1e-6  # weight of all others below which a value stands alone
_PRIOR = 0.3  # seasons without a pattern that one of them is weighed against


class Bank(NamedTuple):
    """Level and season under each of the worlds.

    Attributes:
        level: ``(B, S, W)``.
        season: With seasons that change and that hardly do ``(B, S, 2 W)``.
        linear: Levels by a line around each step ``(B, S, L)``.
        slope: Slopes of these ``(B, S, L)``.
        missed: Logarithm of how far values lie from the level and line of the others, plus the
            season, on average ``(B, W + L)``.
    """

    level: Float[Tensor, "B S W"]
    season: Float[Tensor, "B S V"]
    linear: Float[Tensor, "B S L"]
    slope: Float[Tensor, "B S L"]
    missed: Float[Tensor, "B M"]


def bank_of(z: Float[Tensor, "B S"], o: Float[Tensor, "B S"], m: int, last: int) -> Bank:
    r"""Smooths series that are seen in part.

    The level of a random walk under noise is a mean with weights :math:`a^{|k|}` of the values
    around. A season beside it is found by generalised least squares: what such means leave of the
    values, averaged by phase, has lost the part :math:`H_a(\omega)` of each of its waves, their
    frequency response, and gets it back.

    .. math:: H_a(\omega) = \frac{(1 - a)^2}{1 - 2 a \cos \omega + a^2}

    Args:
        z: Values, zero where there is none.
        o: One where there is one.
        m: Steps of the season.
        last: The last row; later steps are the future.

    References:
        Forecasting, Structural Time Series Models (Harvey, 1989), chapter 2, of smoothing by
        exponential weights on both sides.
    """
    dtype = z.dtype
    z, o = z.double().T.contiguous(), o.double().T.contiguous()  # time first: steps lie together
    a = z.new_tensor(DECAYS)
    k = len(DECAYS)
    seen = o[..., None].expand(*o.shape, k)
    counts = sums_around(a, seen)
    total = (counts[0] + counts[1] - seen).clamp_min(_TINY)
    values = (z * o)[..., None].expand_as(seen)
    if m == 1:
        season = z.new_zeros(*z.shape, len(SEASONS) * k)
    else:
        sums = sums_around(a, values)
        rest = values - (sums[0] + sums[1] - values) / total * o[..., None]
        season = _seasons(rest, o, m, last)
        values = values - season[..., k:] * o[..., None]
    sums = sums_around(a, values)
    level = (sums[0] + sums[1] - values) / total
    linear, slope, others = _lines(a, counts, sums, seen, values, last)
    missed = _missed(values, seen, total, sums, others)
    level = level[torch.arange(len(z), device=z.device).clamp_max(last)]

    def by_series(x: Tensor) -> Tensor:
        return x.to(dtype).transpose(0, 1).contiguous()

    return Bank(
        by_series(level),
        by_series(season),
        by_series(linear),
        by_series(slope),
        torch.log(missed.to(dtype) + 0.02),
    )


def _missed(
    values: Tensor, seen: Tensor, total: Tensor, sums: tuple[Tensor, Tensor], others: Tensor
) -> Tensor:
    """How far values lie from what the others say of them, on average ``(B, W + L)``."""
    rest = total - seen
    near = seen * (rest > _ALONE)  # where there is something near
    level = (sums[0] + sums[1] - 2 * values) / rest.clamp_min(_ALONE)
    apart = torch.cat([values - level, values[..., list(LINEAR)] - others], -1).abs()
    counts = torch.cat([near, near[..., list(LINEAR)]], -1)
    return (apart * counts).sum(0) / counts.sum(0).clamp_min(1)


def sums_around(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of what lies before and after each step, itself included, with falling weights."""
    return _both(a, x, x.flip(0))


def _both(a: Tensor, x: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    """Recurrences forwards and backwards, of which the second is turned around before."""
    both = torch.stack([x, reverse], 1)
    path = linear_recurrence(a.expand(both.shape[1:]).flatten(), both.flatten(1))
    before, after = path.view_as(both).unbind(1)
    return before, after.flip(0)


def means_of_phases(
    x: Float[Tensor, "S B K"],
    o: Float[Tensor, "S B"],
    m: int,
    last: int,
    decays: Sequence[float],
) -> tuple[Float[Tensor, "N m B V K"], Float[Tensor, "N m B V"]]:
    """Means of the values of a phase, near each season, and how many values count.

    They are shrunk to zero a little. Seasons end with the last row; later ones are as the last.

    Args:
        x: Values, time first, zero where there is none.
        o: One where there is one.
        m: Steps of the season.
        last: The last row; later steps are the future.
        decays: Weights of neighbouring seasons.
    """
    lead, behind = _ends(len(x), m, last)
    blocks = (len(x) + lead + behind) // m
    folded = F.pad(x, (0, 0, 0, 0, lead, behind)).view(blocks, m, *x.shape[1:])
    seen = F.pad(o, (0, 0, lead, behind)).view(blocks, m, o.shape[1])
    kept = (last + 1 + lead) // m
    block = torch.arange(len(folded), device=x.device)
    apart = (block[:, None].clamp_max(kept - 1) - block[:kept]).abs()
    weight = x.new_tensor(decays)[:, None, None] ** apart
    count = torch.einsum("vij,jmn->imnv", weight, seen[:kept])
    top = torch.einsum("vij,jmnk->imnvk", weight, folded[:kept])
    return top / (count + _PRIOR)[..., None], count


def unfolded(x: Float[Tensor, "N m B *K"], steps: int, last: int) -> Float[Tensor, "S B *K"]:
    """What is told of seasons and phases, step by step."""
    lead, _ = _ends(steps, x.shape[1], last)
    return x.flatten(0, 1)[lead : lead + steps]


def _ends(steps: int, m: int, last: int) -> tuple[int, int]:
    """Steps before and after, with which there are whole seasons, one of which ends at the last."""
    return -(last + 1) % m, -(steps - last - 1) % m


def _seasons(rest: Tensor, o: Tensor, m: int, last: int) -> Tensor:
    """Seasons ``(S, B, 2 W)`` by what levels leave."""
    mean, _ = means_of_phases(rest, o, m, last, SEASONS)
    if not mean.numel():  # of nothing there is no transform
        return unfolded(mean.flatten(-2), len(rest), last)
    wave = torch.arange(m // 2 + 1, device=rest.device) * (2 * math.pi / m)
    a = rest.new_tensor(DECAYS)
    kept_part = 1 - (1 - a) ** 2 / (1 - 2 * a * torch.cos(wave)[:, None] + a**2)
    # what is all but lost comes back no more than so far
    gain = torch.where(kept_part > 1e-6, kept_part / (kept_part.square() + 0.01), 0.0)
    spectrum = torch.fft.rfft(mean, dim=1) * gain[:, None, None]
    season = torch.fft.irfft(spectrum, n=m, dim=1).flatten(-2)
    return unfolded(season, len(rest), last)


def _lines(
    a: Tensor,
    counts: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor],
    seen: Tensor,
    values: Tensor,
    last: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lines around each step by least squares with falling weights.

    Returns:
        Their level and slope, and the level of the line through all values but that of the step.
    """
    pick = list(LINEAR)
    a = a[pick]
    s0, t0 = ([x[..., pick] for x in pair] for pair in (counts, sums))
    o, y = seen[..., pick], values[..., pick]
    first = _moments(a, torch.cat([s0[0], t0[0]], -1), torch.cat([s0[1], t0[1]], -1))
    s1, t1 = zip(*(x.chunk(2, -1) for x in first), strict=True)
    one = _moments(a, 2 * s1[0] + s0[0], 2 * s1[1] + s0[1])
    total, top = s0[0] + s0[1] - o, t0[0] + t0[1] - y
    skew, cross = s1[1] - s1[0], t1[1] - t1[0]
    square = one[0] + one[1] + 1.0  # as if one step told of no slope
    scale = (total * square - skew.square()).clamp_min(1e-9)
    slope = (total * cross - skew * top) / scale
    level = (square * top - skew * cross) / scale
    rest = ((total - o) * square - skew.square()).clamp_min(_ALONE)
    others = (square * (top - y) - skew * cross) / rest
    # the future goes on along the line of the last row
    t = torch.arange(len(o), device=o.device)
    held, late = t.clamp_max(last), (t - last).clamp_min(0)[:, None, None]
    slope = slope[held]
    return level[held] + late * slope, slope, others


def _moments(a: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of sums on both sides, which weigh steps by how far they are."""
    a = a.repeat(before.shape[-1] // len(a))
    before, after = (F.pad(a * x, (0, 0, 0, 0, 1, 0))[:-1] for x in (before, after.flip(0)))
    return _both(a, before, after)
