"""What is read of each step of a series: what lies on both sides of it, and at the same phase."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent.amortised.latents import naive
from seqlatent.amortised.latents.naive import (
    ADJUSTING,
    LINES,
    PATTERNS,
    SPANS,
    WORLDS,
    Phases,
    Sides,
)
from seqlatent.amortised.latents.sums import Sums
from seqlatent.amortised.past import Past, Seasons
from seqlatent.amortised.smoothers import Bank, bank_of, means_of_phases, unfolded

__all__ = ["FEATURES", "Reading", "Step", "ahead_of"]

NEAR = 8  # values that are read one by one on each side
CYCLES = 4  # values of the same phase on each side
ROUGH = (4, 16, 64)  # spans whose roughness is read on each side
FEATURES = (
    4 * NEAR
    + 4 * len(SPANS)
    + (4 * CYCLES + 9)
    + (2 * WORLDS + PATTERNS + 2 * LINES)
    + 13
    + (2 * len(ROUGH) + 1)
    + 12
)
_DECAY = 0.6  # of the weight of a season from one to the next
_MULTIPLE = 20.0  # most that a season is multiplied by


def ahead_of(seasons: Seasons) -> int:
    """Steps after the last row that are asked for in training."""
    return 14 if seasons.short == 1 else min(2 * seasons.short, 48)


class Step(NamedTuple):
    """Some steps of each series, read.

    Attributes:
        features: What a head reads ``(B, Q, F)``.
        candidates: Naive estimates by kind ``(B, Q, K)``, in ``unit`` from ``base``.
        base: Mean of the values around ``(B, Q)``.
        unit: Usual size of a change around ``(B, Q)``.
    """

    features: Float[Tensor, "B Q F"]
    candidates: dict[str, Tensor]
    base: Float[Tensor, "B Q"]
    unit: Float[Tensor, "B Q"]


class _Query(NamedTuple):
    """Steps that are asked for, and where they lie.

    Attributes:
        step: The steps ``(B, Q)``.
        left: The last one up to each that is seen, -1 for none.
        right: The first one from each on that is seen, after all for none.
        late: How far each lies after the last row.
        phase: The last row of the same phase, of steps after it.
        base: Mean of the values around ``(B, Q, 1)``.
        unit: Usual size of a change around ``(B, Q, 1)``.
    """

    step: Tensor
    left: Tensor
    right: Tensor
    late: Tensor
    phase: Tensor
    base: Tensor
    unit: Tensor


class Reading:
    """Series as a head reads them, at any of their steps and some beyond.

    Args:
        past: The past.
        ahead: Steps after it.

    Example:
        >>> from seqlatent.amortised import Seasons, past_of
        >>> y = torch.arange(40.0)[None] % 12
        >>> past = past_of(y, torch.ones_like(y, dtype=torch.bool), Seasons(12))
        >>> step = Reading(past, 3).at(torch.tensor([[0, 20, 42]]))
        >>> step.features.shape == (1, 3, FEATURES)
        True
    """

    def __init__(self, past: Past, ahead: int = 0) -> None:
        self.past, self.last = past, past.z.shape[1] - 1
        self.origin = past.origin.float()
        seen = F.pad(past.observed, (0, ahead))
        self.z, self.o = F.pad(past.z.float(), (0, ahead)), seen.to(torch.float32)
        self.steps = self.z.shape[1]
        self.t = torch.arange(self.steps, device=self.z.device).expand_as(self.z)
        self.left = torch.where(seen, self.t, -1).cummax(1).values
        self.short, self.long = past.seasons
        # however far ahead is asked for, a step has nothing after it as far off as in training
        beyond = self.last + 1 + ahead_of(past.seasons)
        self.right = torch.where(seen, self.t, beyond).flip(1).cummin(1).values.flip(1)
        self.first = self.right[:, :1].clamp_max(self.last)
        # and one before the first value nothing before it, however many rows are in front
        self.left = torch.maximum(self.left, self.first - 1 - ahead_of(past.seasons))
        sums = Sums.of(self.z, self.o)
        wide = self.short if self.short > 4 else self.short * -(-6 // self.short)
        self.base = self._around(sums, wide)
        self.slow = self._around(sums, self.long) if self.long else self.base
        self.deviation = (self.z - self.base) * self.o
        self.near, self.all, self.known = self._seasons()
        self.bank = bank_of(self.z, self.o, self.short, self.last)
        self.adjusted = (self.z - self.bank.season[..., ADJUSTING]) * self.o
        self._adjusted = Sums.of(self.adjusted, self.o)
        self._rough = self._roughness()
        self.unit = self._unit()

    def _centre(self, half: int) -> Tensor:
        """Middle of a window around each step that moves inside at the ends."""
        ends = self.t.new_tensor(self.last - half)
        centre = torch.maximum(torch.minimum(self.t, ends), self.first + half)
        middle = (self.last + self.first) // 2
        return torch.where(self.last - self.first < 2 * half, middle, centre)

    def _around(self, sums: Sums, width: int) -> Tensor:
        """Means over a window around each step, that grows where little is seen.

        A window of an even season counts both of its ends by half.
        """
        found = torch.zeros_like(self.z)
        lacking = torch.ones_like(self.t, dtype=torch.bool)
        total = self.o.sum(1, keepdim=True)
        least = torch.minimum(total, total.new_tensor(0.5 * width)).clamp_min(1)
        for times in (1, 2, 4, 8):
            half, odd = (width * times) // 2, (width * times) % 2
            centre = self._centre(half)
            mean, count = sums.mean(centre - half, centre + half + odd)
            if not odd:
                other, more = sums.mean(centre - half + 1, centre + half + 1)
                mean = (mean * count + other * more) / (count + more).clamp_min(1)
                count = (count + more) / 2
            enough = lacking & (count >= least)
            found = torch.where(enough, mean, found)
            lacking = lacking & ~enough
        whole, _ = sums.mean(torch.zeros_like(self.t), torch.full_like(self.t, self.steps))
        return torch.where(lacking, whole, found)

    def _seasons(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a phase has beyond the mean: of near seasons, of all; how many near ones count."""
        m = self.short
        if m == 1:
            zero = torch.zeros_like(self.z)
            return zero, zero, zero
        # those of all seasons weigh alike
        folded = means_of_phases(self.deviation.T[..., None], self.o.T, m, self.last, (_DECAY, 1.0))
        mean, count = (unfolded(x, self.steps, self.last) for x in folded)
        near, mean, count = mean[..., 0, 0], mean[..., 1, 0], count[..., 0]
        return near.T.contiguous(), mean.T.contiguous(), count.T.contiguous()

    def _roughness(self) -> Sums:
        """Absolute changes since the value before, at steps with two neighbours."""
        both = F.pad(self.o[:, 1:] * self.o[:, :-1], (1, 0))
        moves = F.pad((self.adjusted[:, 1:] - self.adjusted[:, :-1]).abs(), (1, 0))
        return Sums.of(moves * both, both)

    def _unit(self) -> Tensor:
        rest = Sums.of((self.adjusted - self.base).abs() * self.o, self.o)
        half = max(self.short, 8)
        centre = self._centre(half)
        windows = (
            (centre - half, centre + half + 1),
            (torch.zeros_like(self.t), torch.full_like(self.t, self.steps)),
        )
        local, usual = (
            self._rough.mean(*window)[0] / 2 + rest.mean(*window)[0] / 2 for window in windows
        )
        unit = local + 0.1 * usual
        return torch.where(unit > 1e-4, unit, 1.0)

    # --- some steps --------------------------------------------------------------------------

    def at(self, step: Int[Tensor, "B Q"]) -> Step:
        """What is read at some steps of each series, counted from the first of the past."""
        late = (step - self.last).clamp_min(0)
        phase = step - self.short * (-(-late // self.short))
        base, unit, left, right = (
            x.gather(1, step) for x in (self.base, self.unit, self.left, self.right)
        )
        q = _Query(step, left, right, late, phase, base[..., None], unit[..., None])
        sides, phases, far, bank = self._sides(q), self._phases(q), self._far(q), self._banked(q)
        raw, seen = self._at(self.z, step[..., None])
        raw = (raw - q.base) / q.unit * seen
        jump = self._jump(q, sides)
        squash = torch.asinh
        features = [
            *(squash(x) for x in (sides.before, sides.after, sides.behind, sides.ahead)),
            sides.has_before,
            sides.has_after,
            sides.n_behind / q.step.new_tensor(SPANS),
            sides.n_ahead / q.step.new_tensor(SPANS),
            *(squash(x) for x in (phases.back, phases.forth, phases.own, phases.beside)),
            squash(torch.cat([phases.near, phases.mean], -1)),
            phases.n_back,
            phases.n_forth,
            phases.has_own,
            phases.known / 4,
            *(squash(x) for x in (bank.level, bank.season, bank.linear, 8 * bank.slope)),
            squash((raw - bank.level - bank.season[..., WORLDS:]) * seen),
            squash(far),
            self._rough_around(q),
            squash(jump[..., :1]),
            self._place(q),
        ]
        candidates = {
            "level": naive.levels(sides, bank, far),
            "slope": naive.slopes(sides, bank),
            "component": naive.patterns(sides, phases, bank, far, self._times(q)),
            "signal": torch.cat([raw, seen], -1),
            "value": naive.values(sides, bank),
            "break": torch.cat([torch.zeros_like(raw), jump], -1),
        }
        return Step(torch.cat(features, -1), candidates, base, unit)

    def _at(self, x: Tensor, index: Int[Tensor, "*Q"]) -> tuple[Tensor, Tensor]:
        """Values at steps of each series and where there is one, zero where none is seen."""
        flat = index.flatten(1)
        inside = (flat >= 0) & (flat < self.steps)
        flat = flat.clamp(0, self.steps - 1)
        seen = self.o.gather(1, flat) * inside
        return (x.gather(1, flat) * seen).view(index.shape), seen.view(index.shape)

    def _sides(self, q: _Query) -> Sides:
        j = torch.arange(NEAR, device=q.step.device)
        before, has_before = self._at(self.adjusted, q.left[..., None] - j)
        after, has_after = self._at(self.adjusted, q.right[..., None] + j)
        span = q.step.new_tensor(SPANS)
        left, right = q.left[..., None] + 1, q.right[..., None]
        behind, n_behind = self._adjusted.mean(left - span, left)
        ahead, n_ahead = self._adjusted.mean(right, right + span)
        return Sides(
            (before - q.base) / q.unit * has_before,
            has_before,
            (after - q.base) / q.unit * has_after,
            has_after,
            (behind - q.base) / q.unit * (n_behind > 0),
            n_behind,
            (ahead - q.base) / q.unit * (n_ahead > 0),
            n_ahead,
        )

    def _phases(self, q: _Query) -> Phases:
        m = self.short
        cycle = m * torch.arange(CYCLES, device=q.step.device)
        earlier = (q.phase - (q.late == 0) * m)[..., None] - cycle
        back, n_back = self._at(self.deviation, earlier)
        forth, n_forth = self._at(self.deviation, q.step[..., None] + m + cycle)
        own, has_own = self._at(self.deviation, q.step[..., None])
        near, mean, known = (
            x.gather(1, q.phase)[..., None] for x in (self.near, self.all, self.known)
        )
        index = q.phase[..., None] + q.step.new_tensor([-2, -1, 1, 2])
        # beyond the ends those of the season beside
        index = torch.where(index < 0, index + m, torch.where(index > self.last, index - m, index))
        beside = self.near.gather(1, index.clamp(0, self.last).flatten(1)).view(index.shape)
        if m <= 4:  # their neighbours are the other phases, or what is near in time
            beside, back, forth = beside * 0, back * (m > 1), forth * (m > 1)
        return Phases(
            back / q.unit,
            n_back,
            forth / q.unit,
            n_forth,
            own / q.unit,
            has_own,
            near / q.unit,
            mean / q.unit,
            known,
            beside / q.unit,
        )

    def _far(self, q: _Query) -> Tensor:
        """What the longer season says ``(B, Q, 13)``.

        Two seasons before and two after: values, means around, and where there are some; last what
        the mean of the shorter season has beyond that of the longer one.
        """
        if not self.long:
            return torch.zeros(*q.step.shape, 13, device=q.step.device)
        ahead = q.late.clamp_min(0)
        last = q.step - self.long * (-(-ahead // self.long)) - (ahead == 0) * self.long
        index = torch.stack(
            [last, last - self.long, q.step + self.long, q.step + 2 * self.long], -1
        )
        value, _ = self._at(self.z - self.near - self.slow, index)
        inside = (index >= self.first[..., None]) & (index <= self.last)
        flat = index.clamp(0, self.last).flatten(1)
        mean = (self.base - self.slow).gather(1, flat).view(index.shape) * inside
        now = q.base - self.slow.gather(1, q.step)[..., None]
        return torch.cat([value / q.unit, mean / q.unit, inside.float(), now / q.unit], -1)

    def _banked(self, q: _Query) -> Bank:
        """The bank at some steps, in units from the base."""
        level, season, linear, slope = (
            x.gather(1, q.step[..., None].expand(-1, -1, x.shape[-1])) for x in self.bank[:4]
        )
        return Bank(
            (level - q.base) / q.unit,
            season / q.unit,
            (linear - q.base) / q.unit,
            slope / q.unit,
            self.bank.missed,
        )

    def _times(self, q: _Query) -> Tensor:
        """How often what is at a step is that at the last row of its phase ``(B, Q, 1)``."""
        place = q.base + self.origin[..., None]
        here = self.base.gather(1, q.phase)[..., None] + self.origin[..., None]
        grown = self.past.lower[..., None] & (here > 0.05 * q.unit)
        return torch.where(grown, place / here.clamp_min(1e-6), 1.0).clamp(0, _MULTIPLE)

    def _jump(self, q: _Query, sides: Sides) -> Tensor:
        """Two guesses of how far the level has jumped at a step ``(B, Q, 2)``."""
        step, right = q.step[..., None], q.right[..., None]
        old, n_old = self._adjusted.mean(step - 4, step)
        new, n_new = self._adjusted.mean(right, right + 4)
        jump = (new - old) / q.unit * (n_old > 0) * (n_new > 0)
        before, n_before = self._at(self.adjusted, step - 1)
        one = (sides.after[..., :1] - (before - q.base) / q.unit) * n_before
        return torch.cat([jump, one], -1)

    def _rough_around(self, q: _Query) -> Tensor:
        """Logarithm of the roughness on both sides ``(B, Q, 6)``."""
        span = q.step.new_tensor(ROUGH)
        left, right = q.left[..., None] + 1, q.right[..., None] + 1
        sides = self._rough.mean(left - span, left), self._rough.mean(right, right + span)
        return torch.log(torch.cat([mean for mean, _ in sides], -1) / q.unit + 0.05)

    def _place(self, q: _Query) -> Tensor:
        """Where a step lies, in time and beside zero ``(B, Q, 12)``."""
        m, late = self.short, q.late.float()
        base, unit = q.base[..., 0], q.unit[..., 0]
        gaps = torch.stack([q.step - q.left, q.right - q.step], -1).clamp(0, 500)
        ends = torch.stack([q.step - self.first, self.last - q.step], -1).clamp(0, 2000)
        lower, whole = (x.float().expand_as(base) for x in (self.past.lower, self.past.whole))
        level = (base + self.origin) / unit
        scalars = [
            torch.asinh(level * lower),
            unit.log(),
            late.clamp_max(500).log1p() / 3,
            (late / m).clamp_max(6).log1p(),
            torch.full_like(base, math.log(m) / 3),
            lower,
            whole,
            torch.asinh(whole / unit / self.past.unit.float()),
        ]
        return torch.cat(
            [gaps.float().log1p() / 3, ends.float().log1p() / 4, torch.stack(scalars, -1)], -1
        )
