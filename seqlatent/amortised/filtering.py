"""What a bank of smoothers says of the end of a series, and of what follows."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent.amortised.past import Past
from seqlatent.amortised.smoothers import (
    DECAYS,
    LINEAR,
    SEASONS,
    bank_of,
    means_of_phases,
    sums_around,
    unfolded,
)

__all__ = ["FILTERED_FORECASTS", "FILTERED_LEAD", "FILTERED_SERIES", "Filtered", "filtered"]

_WORLDS, _LINES = len(DECAYS), len(LINEAR)
_PATTERNS = _WORLDS * len(SEASONS)
FILTERED_SERIES = 3 * _WORLDS + 3 * _LINES
"""Numbers that are read of a series."""
FILTERED_LEAD = _PATTERNS + len(SEASONS)
"""Numbers that are read of a lead."""
FILTERED_FORECASTS = 3 * _WORLDS + 6 * _LINES
"""Forecasts that a centre may be mixed of."""
_DAMPED = 0.9  # part of a slope that is left a step later
_USUAL = 3  # world whose level a season is part of
_MULTIPLE = 20.0  # most that a season is multiplied by


class Filtered(NamedTuple):
    """Levels, slopes and seasons at the last row, under each world of the bank.

    Attributes:
        series: What a trunk reads ``(B, W)``.
        leads: What a head reads of each lead ``(B, H, L)``.
        naive: Forecasts of each lead ``(B, H, K)``.
    """

    series: Float[Tensor, "B W"]
    leads: Float[Tensor, "B H L"]
    naive: Float[Tensor, "B H K"]


@torch.no_grad()
def filtered(past: Past, leads: Int[Tensor, " H"]) -> Filtered:
    """Filters the past of series under a few sizes of their shocks.

    At the last row smoothers are filters: levels are means with falling weights, lines go on with
    their slope or lose it, seasons are those of generalised least squares, and how far values lie
    from what the others say of them tells the worlds apart.

    Args:
        past: The past, which ends with a value.
        leads: Steps after it.

    References:
        Forecasting, Structural Time Series Models (Harvey, 1989), section 4.4, of steady states.
    """
    z, o = past.z, past.observed.to(past.z.dtype)
    m, last = past.seasons.short, z.shape[1] - 1
    bank = bank_of(z, o, m, last)
    level, linear, slope = (x[:, last] for x in (bank.level, bank.linear, bank.slope))
    season = bank.season[:, last + leads - m * -(-leads // m)]
    lead = leads.to(z.dtype)[:, None]
    damped = (1 - _DAMPED**lead) * _DAMPED / (1 - _DAMPED)
    lines = linear[:, None] + lead * slope[:, None]
    bent = linear[:, None] + damped * slope[:, None]
    flat = level[:, None].expand_as(season[..., :_WORLDS])
    trends = torch.cat([flat, lines, bent], -1)
    # the season that goes with each: of the same world
    same = [*range(_WORLDS), *LINEAR, *LINEAR]
    fast, slow = (season[..., [j + k for k in same]] for j in (0, _WORLDS))
    moving = trends[..., _WORLDS:]
    grown = moving + fast[..., _WORLDS:] * _times(past, moving, level[:, None, _USUAL, None])
    apart, pattern = _long_season(z, o, past.seasons.long, leads)
    longer = pattern[..., 1:] + apart[:, None]
    naive = torch.cat([trends + fast, trends + slow, grown, longer], -1)
    series = [level, linear, 8 * slope, apart]
    return Filtered(
        torch.cat([*map(torch.asinh, series), bank.missed], -1),
        torch.asinh(torch.cat([season, pattern], -1)),
        naive,
    )


def _long_season(z: Tensor, o: Tensor, long: int, leads: Tensor) -> tuple[Tensor, Tensor]:
    """What the longer season says.

    Its patterns are means by phase of what lies beside a level that is too slow to follow them.

    Returns:
        How far values lie from level and pattern at the last row, under each world, plus that
        level ``(B, W)``; the patterns at the leads ``(B, H, V)``.
    """
    if not long:
        nothing = z.new_zeros(len(z), len(leads), len(SEASONS))
        return nothing[:, 0, :1].expand(-1, _WORLDS), nothing
    lack = max(0, long - z.shape[1])  # so that each phase has a place
    y, seen = (F.pad(x.double(), (lack, 0)).T.contiguous()[..., None] for x in (z, o))
    last = len(y) - 1
    top, count = (_around(x, math.exp(-2 / long)) for x in (y, seen))
    level = top / count.clamp_min(1)
    mean, _ = means_of_phases((y - level) * seen, seen[..., 0], long, last, SEASONS)
    pattern = unfolded(mean[..., 0], len(y), last)
    rest = (y - level - pattern[..., 1:]) * seen
    top, count = (
        sums_around(y.new_tensor(DECAYS), x.expand(-1, -1, _WORLDS))[0][-1] for x in (rest, seen)
    )
    found = pattern[last + leads - long * -(-leads // long)].transpose(0, 1)
    return (level[-1] + top / count.clamp_min(1)).to(z.dtype), found.to(z.dtype)


def _around(x: Tensor, decay: float) -> Tensor:
    """Sums on both sides of each step with falling weights."""
    before, after = sums_around(x.new_tensor([decay]), x)
    return before + after - x


def _times(past: Past, trends: Tensor, level: Tensor) -> Tensor:
    """How often what a season is part of has grown, where all values are positive."""
    origin = past.origin[..., None]
    grows = past.lower[..., None] & (level + origin > 0.05)
    times = (trends + origin) / (level + origin).clamp_min(0.05)
    return torch.where(grows, times, 1.0).clamp(0, _MULTIPLE)
