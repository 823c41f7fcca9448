"""Series as filters have seen them, and what is read of any of their rows and leads."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.amortised import Seasons
from seqlatent.recurrent.filters import (
    GAINS,
    LINEAR,
    LOGARITHMS,
    PHI,
    Filters,
    FilterState,
    Traces,
    scale_of,
)

__all__ = ["CANDIDATES", "LEAD", "ROW", "History", "Origins", "Read", "kept_rows", "rows_of"]

_K, _LINEAR = len(GAINS), len(LINEAR)
_SAME = [LINEAR.index(gains) for gains in LOGARITHMS]  # filters of values with the same gains
_FAR = 4.0  # logarithm of a forecast over the last value
_MANY = 512
_MIDDLE = 8  # filter whose level values and forecasts are told from
_PHASES, _LONG = 4, 2  # last values of the same phase of both seasons that are read
ROW = _K + 2 * _LINEAR + 8
"""Numbers that a memory reads of a row."""
CANDIDATES = _K + 4
"""Forecasts of a lead that are mixed."""
LEAD = _K + _LINEAR + 2 * (_PHASES + _LONG) + 17
"""Numbers that are read of a lead."""


def kept_rows(seasons: Seasons) -> int:
    """Last rows whose values are read one by one."""
    return max(_PHASES * seasons.short, _LONG * seasons.long)


class Read(NamedTuple):
    """What is read of the leads of some origins.

    Attributes:
        features: ``(N, H, F)``.
        candidates: Forecasts, in units of the scale from the reference ``(N, H, K)``.
        reference: Level that values are told from ``(N, 1)``.
        scale: Usual size of an error ``(N, 1)``.
        lower: Whether no value so far lies below zero ``(N, 1)``.
        whole: Whether all are whole numbers ``(N, 1)``.
    """

    features: Float[Tensor, "N H F"]
    candidates: Float[Tensor, "N H K"]
    reference: Float[Tensor, "N 1"]
    scale: Float[Tensor, "N 1"]
    lower: Bool[Tensor, "N 1"]
    whole: Bool[Tensor, "N 1"]


class Origins(NamedTuple):
    """Rows of series after which something is forecast, and all that is read there.

    Attributes:
        level: ``(N, K)``.
        slope: ``(N, K)``.
        season: Of each lead, both seasons together ``(N, H, K)``.
        scalars: By name ``(N,)``.
        near: Last values of the phase of each lead, NaN where none is seen ``(N, H, 4)``.
        far: The same of the longer season ``(N, H, 2)``.
        leads: Steps ahead ``(N, H)``.
        seasons: Season lengths.
    """

    level: Float[Tensor, "N K"]
    slope: Float[Tensor, "N K"]
    season: Float[Tensor, "N H K"]
    scalars: dict[str, Tensor]
    near: Float[Tensor, "N H P"]
    far: Float[Tensor, "N H L"]
    leads: Int[Tensor, "N H"]
    seasons: Seasons

    @classmethod
    def of(
        cls,
        state: FilterState,
        recent: Float[Tensor, "N W"],
        leads: Int[Tensor, "N H"],
        seasons: Seasons,
    ) -> "Origins":
        """The rows at which states are, with the last values, NaN where none is seen."""
        rows = torch.arange(len(leads))[:, None]
        at = state.place[:, None] - 1 + leads
        season = state.season[rows, at % seasons.short]
        if seasons.long:
            season = season + state.long[rows, at % seasons.long]
        scalars = {
            name: getattr(state, name)
            for name in ("number", "zeros", "waited", "last", "least", "whole", "place", "change")
        }
        width = recent.shape[1]
        near, far = (_picked(recent, rows, width - 1 + index) for index in _indices(leads, seasons))
        scalars["scale"] = state.scale
        return cls(state.level, state.slope, season, scalars, near, far, leads, seasons)

    def read(self) -> Read:
        """What a network reads, in units of the scale from a reference."""
        m, long = self.seasons
        s = self.scalars
        scale = s["scale"]
        unit = torch.where(scale > 0, scale, 1.0)[:, None, None]
        reference = self.level[:, None, _MIDDLE, None]
        h = self.leads.to(self.level.dtype)
        damped = (PHI * (1 - PHI**h) / (1 - PHI))[..., None]
        ahead = self.level[:, None] + damped * self.slope[:, None]
        trend = (ahead[..., :_LINEAR] - reference) / unit
        candidates = trend + self.season[..., :_LINEAR] / unit
        # forecasts of logarithms, where they mean something
        lower, whole, positive = s["least"] >= 0, s["whole"].bool(), s["least"] > 0
        value = torch.where(positive, s["last"], 1.0)[:, None, None]
        grown = (ahead + self.season)[..., _LINEAR:] - value.log()
        grown = (value * grown.clamp(-_FAR, _FAR).exp() - reference) / unit
        grown = torch.where(positive[:, None, None], grown, candidates[..., _SAME])
        candidates = torch.cat([candidates, grown], -1)

        def told(x: Tensor) -> tuple[Tensor, Tensor]:
            seen = ~x.isnan()
            return torch.where(seen, (x.nan_to_num() - reference) / unit, 0.0), seen.to(x.dtype)

        near, has_near = told(self.near)
        far, has_far = told(self.far)
        last = ((s["last"][:, None, None] - reference) / unit).expand_as(near[..., :1])
        same = torch.where(has_near[..., :1] > 0, near[..., :1], last)
        beyond = torch.where(has_far[..., :1] > 0, far[..., :1], same)
        many = has_near.sum(-1, keepdim=True)
        usual = torch.where(many > 0, near.sum(-1, keepdim=True) / many.clamp_min(1), last)
        height = (reference / unit)[..., 0].expand_as(h)
        per_row = [
            torch.asinh(height) * lower[:, None],
            lower[:, None],
            whole[:, None],
            positive[:, None],
            (s["zeros"] * lower)[:, None],
            (s["waited"].log1p())[:, None],
            _many(s["number"])[:, None],
            _ratio(s["scale"], s["change"])[:, None],
        ]
        per_lead = [
            h.log() / 3,
            (h / m).clamp_max(6).log1p(),
            1 / h,
            (self.leads % m) / m,
            torch.full_like(h, math.log(m) / 3),
            torch.full_like(h, math.log(max(long, 1)) / 5),
            (self.leads > m).to(h.dtype),
            torch.asinh(last[..., 0]),
            torch.asinh(usual[..., 0]),
        ]
        features = [
            torch.asinh(candidates),
            torch.asinh(trend),
            torch.asinh(near),
            has_near,
            torch.asinh(far),
            has_far,
            *(x.to(h.dtype).expand_as(h)[..., None] for x in (*per_row, *per_lead)),
        ]
        mixed = torch.cat([candidates, same, last, beyond, usual], -1)
        return Read(
            torch.cat(features, -1),
            mixed,
            reference[:, 0],
            scale[:, None],
            lower[:, None],
            whole[:, None],
        )


class History:
    """Series that end with the same column, at all rows of which one may ask what follows.

    Args:
        y: Values.
        seen: Which are seen.
        seasons: Season lengths.
        inside: Which rows there are; all from the first that is seen by default.
    """

    def __init__(
        self,
        y: Float[Tensor, "B T"],
        seen: Bool[Tensor, "B T"],
        seasons: Seasons,
        inside: Bool[Tensor, "B T"] | None = None,
    ) -> None:
        self.y, self.seen, self.seasons = y.double(), seen, seasons
        self.inside = seen.cummax(1).values if inside is None else inside
        filters = Filters(seasons.short, seasons.long)
        self.state, self.traces = filters.run(self.y, seen, inside=self.inside)
        self.known = torch.where(seen, self.y, torch.nan)
        self.rows = rows_of(self.traces, self.y, seen)

    def origins(
        self, series: Int[Tensor, " N"], step: Int[Tensor, " N"], leads: Int[Tensor, "N H"]
    ) -> Origins:
        """Some rows of some series."""
        tr, (m, long) = self.traces, self.seasons
        i = series[:, None]
        at = step[:, None] + leads

        def phase(x: Tensor, length: int) -> Tensor:
            there = at - length * (-(-leads // length))
            return x[i, there.clamp_min(0)] * (there >= 0)[..., None]

        season = phase(tr.season, m)
        if long:
            season = season + phase(tr.long, long)
        scalars = {k: x[series, step] for k, x in tr.scalars.items()}
        scalars["scale"] = scale_of(scalars.pop("error"), scalars["change"], scalars["last"])
        near, far = (
            _picked(self.known, i, step[:, None, None] + index)
            for index in _indices(leads, self.seasons)
        )
        return Origins(
            tr.level[series, step],
            tr.slope[series, step],
            season,
            scalars,
            near,
            far,
            leads,
            self.seasons,
        )


def rows_of(tr: Traces, y: Tensor, seen: Tensor) -> Float[Tensor, "B T F"]:
    """What a memory reads of each row, in units of the scale there."""
    scale = scale_of(*(tr.scalars[k] for k in ("error", "change", "last")))
    unit = torch.where(scale > 0, scale, 1.0)[..., None]
    o = seen.to(unit.dtype)[..., None]
    lower = (tr.scalars["least"] >= 0).to(unit.dtype)[..., None]
    value = torch.where(seen, y, 0.0)[..., None]
    positive = (tr.scalars["least"] > 0).to(unit.dtype)[..., None]
    # an error of a logarithm is one of a part of the value
    size = torch.where(positive > 0, tr.scalars["last"][..., None], 0.0)
    features = [
        torch.asinh(tr.error[..., :_LINEAR] / unit),
        torch.asinh(tr.error[..., _LINEAR:].clamp(-_FAR, _FAR) * size / unit),
        torch.asinh(4 * tr.slope[..., :_LINEAR] / unit),
        torch.asinh((value - tr.level[..., :_LINEAR]) / unit) * o,
        o,
        _many(tr.scalars["number"])[..., None],
        tr.scalars["waited"][..., None].log1p(),
        _ratio(scale, tr.scalars["change"])[..., None],
        lower,
        lower * torch.asinh(tr.scalars["last"][..., None] / unit),
        lower * o * (value == 0),
        positive,
    ]
    return torch.cat(features, -1)


def _many(number: Tensor) -> Tensor:
    """How many values there were; of more than any series of a training has as of that many."""
    return number.clamp_max(_MANY).log1p() / 4


def _ratio(scale: Tensor, change: Tensor) -> Tensor:
    """Logarithm of a scale over the mean change, zero where nothing has moved."""
    moved = (scale > 0) & (change > 0)
    return torch.where(moved, scale / torch.where(moved, change, 1.0), 1.0).clamp_min(1e-6).log()


def _indices(leads: Tensor, seasons: Seasons) -> tuple[Tensor, Tensor]:
    """Steps from an origin to values of the same phase ``(N, H, P)`` and ``(N, H, L)``."""
    m, long = seasons
    ahead = leads[..., None]
    near = ahead - m * (-(-ahead // m)) - m * torch.arange(_PHASES)
    if not long:
        return near, torch.full_like(near[..., :_LONG], -(2**40))
    return near, ahead - long * (-(-ahead // long)) - long * torch.arange(_LONG)


def _picked(values: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Values ``(N, H, P)`` at columns, NaN before the first."""
    found = values[rows[..., None], index.clamp_min(0)]
    return torch.where(index >= 0, found, torch.nan)
