"""Naive estimates of what there is at a step, which a network mixes and corrects."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.amortised.smoothers import DECAYS, LINEAR, SEASONS, Bank

__all__ = [
    "ADJUSTING",
    "CANDIDATES",
    "LINES",
    "PATTERNS",
    "SPANS",
    "WORLDS",
    "Phases",
    "Sides",
    "levels",
    "patterns",
    "slopes",
    "values",
]

SPANS = (2, 4, 8, 16, 32, 64, 128)  # spans whose means are read on each side
WORLDS, LINES, PATTERNS = len(DECAYS), len(LINEAR), len(DECAYS) * len(SEASONS)
ADJUSTING = WORLDS + 1  # season of the bank without which values are read
_USUAL = (4, 16, 64)  # spans whose means a level may be

CANDIDATES = {
    "level": 11 + WORLDS + LINES,
    "slope": 6 + LINES,
    "component": 14 + PATTERNS,
    "signal": 2,
    "value": 4,
    "break": 3,
}
"""Naive estimates that each kind of centre is mixed of."""


class Sides(NamedTuple):
    """Values and means on both sides, in units from the base, and where they are seen."""

    before: Tensor
    has_before: Tensor
    after: Tensor
    has_after: Tensor
    behind: Tensor
    n_behind: Tensor
    ahead: Tensor
    n_ahead: Tensor


class Phases(NamedTuple):
    """Deviations at the same phase in units, and where they are seen."""

    back: Tensor
    n_back: Tensor
    forth: Tensor
    n_forth: Tensor
    own: Tensor
    has_own: Tensor
    near: Tensor
    mean: Tensor
    known: Tensor
    beside: Tensor


def levels(sides: Sides, bank: Bank, far: Tensor) -> Float[Tensor, "B Q K"]:
    """Of the level: values and means on both sides, smoothers."""
    some = [SPANS.index(k) for k in _USUAL]
    before, after = sides.before[..., :1], sides.after[..., :1]
    found = [torch.zeros_like(before), before, after, (before + after) / 2]
    found += [sides.behind[..., some], sides.ahead[..., some], -far[..., -1:]]
    return torch.cat([*found, bank.level, bank.linear], -1)


def slopes(sides: Sides, bank: Bank) -> Float[Tensor, "B Q K"]:
    """Of the gain of the level in a step."""
    behind, ahead = sides.behind, sides.ahead
    four, sixteen, more = (SPANS.index(k) for k in _USUAL)
    found = [
        torch.zeros_like(behind[..., 0]),
        (behind[..., four] - behind[..., sixteen]) / 6,
        (behind[..., sixteen] - behind[..., more]) / 24,
        (ahead[..., sixteen] - ahead[..., four]) / 6,
        (ahead[..., four] - behind[..., four]) / 4,
        (ahead[..., sixteen] - behind[..., sixteen]) / 16,
    ]
    return torch.cat([torch.stack(found, -1), bank.slope], -1)


def patterns(
    sides: Sides, phases: Phases, bank: Bank, far: Tensor, times: Float[Tensor, "B Q 1"]
) -> Float[Tensor, "B Q K"]:
    """Of a component beside the level; a season grows ``times`` with what it is part of."""
    back, forth = phases.back[..., :1], phases.forth[..., :1]
    count = phases.n_back[..., :1] + phases.n_forth[..., :1]
    seen = (far[..., 8:9] + far[..., 10:11]).clamp_min(1)
    found = [
        torch.zeros_like(back),
        phases.near,
        phases.mean,
        back,
        forth,
        (back + forth) / count.clamp_min(1),
        phases.near * times,
        far[..., 0:1],
        far[..., 2:3],
        (far[..., 4:5] + far[..., 6:7]) / seen,
        far[..., 4:5],
        far[..., 12:13],
        sides.before[..., :1],
        sides.after[..., :1],
    ]
    return torch.cat([*found, bank.season], -1)


def values(sides: Sides, bank: Bank) -> Float[Tensor, "B Q 3"]:
    """Of a value: those beside it, with its season."""
    own = bank.season[..., ADJUSTING : ADJUSTING + 1]
    before, after = own + sides.before[..., :1], own + sides.after[..., :1]
    return torch.cat([before, after, (before + after) / 2], -1)
