"""Scales of series, from their past alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from seqlatent.forecasting.features.units import VARIED, completed, standards
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["Reading", "Units", "leading", "span", "varied"]

_CLIP = 10.0  # a value counts at most so many times the median: one spike must not set the scale
_ENOUGH = 8  # values that say how far a series moves, before which the panel has a say in it
_ROUNDING = 1e-13  # of the largest value: what is less is no movement


class Measured(NamedTuple):
    """What rows say of where a series stands and how far it moves.

    Attributes:
        shift: Where it stands ``(N, D)``, 0 where nothing was observed.
        scale: How far it moves, 0 or NaN where that does not show.
        number: How many values the scale comes from.
    """

    shift: np.ndarray
    scale: np.ndarray
    number: np.ndarray


class Reading(NamedTuple):
    """How the values of a target are read.

    Attributes:
        kind: What is measured of a series; see :func:`measured`.
        free: Whether values may be counted in any unit, and not as they are.
        relative: Whether zero is where a series stands, and not that of the data.
    """

    kind: str
    free: bool = True
    relative: bool = True


@dataclass(frozen=True)
class Units:
    """How the units of a series follow from its rows, learned from a panel.

    Rows of the past are measured. A series that shows too little is helped out by its own units in
    training, and one that was not there by those of a typical series.

    Args:
        readings: How the values of each target are read.
        season: Rows of a season.
        context: Most rows that are read, the last ones; None for all.
        shift: Shift of each training series and target ``(M, D)``.
        scale: Scale of each ``(M, D)``.
        fixed: Whether series of training keep the units that they had there.
    """

    readings: tuple[Reading, ...]
    season: int
    context: int | None
    shift: np.ndarray
    scale: np.ndarray
    fixed: bool = False

    @classmethod
    def of(
        cls,
        panel: Panel,
        readings: tuple[Reading, ...],
        *,
        season: int,
        context: int | None,
        fixed: bool = False,
    ) -> "Units":
        """Learns from the rows of training."""
        shift, scale = scales(panel, _kinds(readings), season=season, rows=context)
        return cls(readings, season, context, shift, scale, fixed)

    @cached_property
    def typical(self) -> np.ndarray:
        """Scale of a typical series ``(D,)``."""
        return np.median(self.scale, 0)

    @cached_property
    def unit(self) -> np.ndarray:
        """What values are counted in ``(D,)``."""
        return np.where([one.free for one in self.readings], self.typical, 1.0)

    @cached_property
    def _relative(self) -> np.ndarray:
        return np.array([one.relative for one in self.readings])

    def zero(self, shift: np.ndarray) -> np.ndarray:
        """Where models see zero, in the units of the data."""
        return np.where(self._relative, shift, 0.0)

    def inwards(self, y: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Values as models read them: distances from their zero, in units of a typical scale."""
        return (y - self.zero(shift)) / self.unit

    def outwards(self, y: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Values of models in the units of the data."""
        return self.zero(shift) + self.unit * y

    def __call__(self, y: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale ``(N, D)`` after some rows.

        Args:
            y: The last rows of each series ``(N, T, D)``, NaN where there is none.
            known: Place of each series in training, -1 where it was not there ``(N,)``.
        """
        there = (known >= 0)[:, None]
        middle = np.median(self.shift, 0)
        # one who knows nothing of a series knows how far apart they lie
        apart = np.maximum(self.typical, np.median(np.abs(self.shift - middle), 0))
        before = np.where(there, self.shift[known], middle)
        usual = np.where(there, self.scale[known], self.typical)
        found = measured(y, _kinds(self.readings), self.season)
        blank = np.logical_and.reduce(np.isnan(y), axis=1)
        shift = np.where(blank, before, found.shift)
        scale = np.where(blank & ~there, apart, _helped(found, usual))
        if self.fixed:
            return np.where(there, before, shift), np.where(there, usual, scale)
        return shift, scale


def _helped(found: Measured, usual: np.ndarray) -> np.ndarray:
    """Scales that are usable, from what was measured and from what is usual."""
    moves = np.isfinite(found.scale) & (found.scale > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(found.number < _ENOUGH, found.number / (found.number + 1), 1.0)
        blend = np.exp(share * np.log(found.scale) + (1 - share) * np.log(usual))
    # a constant series varies by what is small beside its level, and beside the others
    size = np.abs(found.shift)
    still = 1e-3 * np.where(size > 0, np.minimum(size, usual), usual)
    return np.where(moves, blend, np.where(found.number > 0, still, usual))


def _kinds(readings: tuple[Reading, ...]) -> str | tuple[str, ...]:
    """What is measured: of all targets alike, or of each."""
    kinds = tuple(one.kind for one in readings)
    return kinds[0] if len(set(kinds)) == 1 else kinds


def scales(
    panel: Panel,
    kind: str | tuple[str, ...],
    *,
    season: int = 1,
    rows: int | None = None,
    usual: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each series and target of a panel, of the kind named.

    Args:
        panel: Rows to read; whatever they hold is taken for the past.
        kind: One of ``KINDS``, or one of each target; see :func:`measured`.
        season: Rows of a season.
        rows: How many rows up to the last value of a series count; None for all.
        usual: Those of the series of training, for a series that does not say its own; those of
            the panel by default.

    Returns:
        Two arrays ``(N, D)``; the scale is positive and finite whatever the rows hold.
    """
    most = int(panel.lengths.max())
    rows = most if rows is None else min(rows, most)
    if kind == "differences":
        y = leading(panel, panel.y, rows)
        own = standards(torch.from_numpy(y[..., 0]), season)
        others = None if usual is None else (torch.from_numpy(usual[0]), torch.from_numpy(usual[1]))
        shift, scale = completed(*own, others)
        return shift.numpy(), scale.numpy()
    y = recent(panel, rows)
    found = measured(y, kind, season)
    if usual is None:
        usual = _of_panel(found, np.logical_and.reduce(np.isnan(y), axis=1))
    kinds = (kind,) * y.shape[-1] if isinstance(kind, str) else kind
    units = Units(tuple(map(Reading, kinds)), season, None, *usual)
    return units(y, np.full(panel.batch, -1))


def _of_panel(found: Measured, blank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of those series that say theirs; something where none does."""
    shift, scale = np.zeros((1, blank.shape[1])), np.ones((1, blank.shape[1]))
    for d in range(blank.shape[1]):
        there = ~blank[:, d]
        moves = there & (found.scale[:, d] > 0)
        if there.any():
            shift[0, d] = np.median(found.shift[there, d])
            size = np.median(np.abs(found.shift[there, d]))
            scale[0, d] = 1e-3 * size if size > 0 else 1.0
        if moves.any():
            scale[0, d] = np.median(found.scale[moves, d])
    return shift, scale


def measured(y: np.ndarray, kind: str | tuple[str, ...], season: int = 1) -> Measured:
    """What rows say of each series, of the kind named.

    Args:
        y: Last rows of each series, NaN where missing.
        kind: ``"magnitude"``, ``"level"``, ``"standard"``, ``"differences"``, ``"local"`` or
            ``"counts"``; see :func:`magnitude`, :func:`level_and_spread`, :func:`standard`,
            :func:`differences`, :func:`local` and :func:`counts`.
            Of each target, where they differ.
        season: Rows of a season, for differences and what is local.

    Shape:
        y ``(N, T, D)`` -> ``(N, D)``.
    """
    if not isinstance(kind, str):
        parts = [measured(y[..., d, None], one, season) for d, one in enumerate(kind)]
        return Measured(*(np.concatenate(x, 1) for x in zip(*parts, strict=True)))
    found = _MEASURES[kind](y, season)
    with np.errstate(invalid="ignore"):
        size = np.fmax.reduce(np.abs(y), axis=1, initial=0.0)
        moves = found.scale > _ROUNDING * size
    return found._replace(scale=np.where(moves, found.scale, 0.0))


def magnitude(y: np.ndarray, season: int) -> Measured:
    """Shift 0 and the mean absolute value, large values clipped at ten medians.

    For positive series whose level says how much they vary.
    """
    scale, count = _clipped(np.abs(y))
    return Measured(np.zeros_like(scale), scale, count)


def counts(y: np.ndarray, season: int) -> Measured:
    """Shift 0 and the mean, with half a count added so that zeros differ by their number."""
    seen = ~np.isnan(y)
    count = seen.sum(1)
    scale = (np.abs(np.where(seen, y, 0.0)).sum(1) + 0.5) / (count + 1)
    return Measured(np.zeros_like(scale), scale, np.where(count > 0, _ENOUGH, 0))


def level_and_spread(y: np.ndarray, season: int) -> Measured:
    """Median, and mean absolute deviation from it, large deviations clipped at ten medians."""
    shift = np.nan_to_num(_middle(y))
    scale, count = _clipped(np.abs(y - shift[:, None]))
    return Measured(shift, scale, np.maximum(count - 1, 0))


def standard(y: np.ndarray, season: int) -> Measured:
    """Mean and standard deviation, values clipped at ten median deviations from the median."""
    seen = ~np.isnan(y)
    count = seen.sum(1)
    middle = np.nan_to_num(_middle(y))
    away = np.where(seen, y - middle[:, None], 0.0)
    most = _top(away, seen)
    away = np.clip(away, -most, most)
    mean = away.sum(1) / np.maximum(count, 1)
    square = np.where(seen, (away - mean[:, None]) ** 2, 0.0).sum(1)
    scale = np.sqrt(square / np.maximum(count, 1))
    return Measured(middle + mean, scale, np.maximum(count - 1, 0))


def differences(y: np.ndarray, season: int) -> Measured:
    """Mean of the first season, and the usual size of a difference over a season.

    In these units the noises of structural models are alike across series.
    """
    seen = np.logical_or.reduce(~np.isnan(y), axis=2)
    there = np.logical_or.reduce(seen, axis=1)
    first = np.where(there, seen.argmax(1), y.shape[1] - 1)
    place = first[:, None] + np.arange(y.shape[1])
    moved = np.take_along_axis(y, np.minimum(place, y.shape[1] - 1)[..., None], 1)
    moved = np.where((place < y.shape[1])[..., None], moved, np.nan)[..., 0]
    shift, scale = standards(torch.from_numpy(moved), season)
    count = np.maximum((~np.isnan(moved)).sum(1, keepdims=True) - 1, 0)
    return Measured(shift.numpy(), scale.numpy(), count)


def local(y: np.ndarray, season: int) -> Measured:
    r"""Where each series stands, and how far it moves: mean of its last season, mean difference.

    .. math:: m = \frac1s \sum_{i<s} y_{T-i}, \qquad
        a = \frac{\sum_t |y_t - y_{t-s}|}{\#t}

    A model that reads :math:`(y - m) / a` sees every window from where it ends, so that a forecast
    is a departure from the present, in units in which that of the naive forecast is about 1.

    References:
        Another Look at Measures of Forecast Accuracy (Hyndman & Koehler, 2006), the scale.
    """
    seen = ~np.isnan(y)
    season = season if season < y.shape[1] else 1
    # the last season, or as many rows as were seen last
    late = seen & (seen[:, ::-1].cumsum(1)[:, ::-1] <= season)
    shift = np.where(late, y, 0.0).sum(1) / np.maximum(late.sum(1), 1)
    scale, number = np.zeros_like(shift), np.zeros(shift.shape, np.int64)
    for lag in (season, 1):
        if lag < y.shape[1]:
            mean, count = _clipped(np.abs(y[:, lag:] - y[:, :-lag]))
            use = (scale == 0) & (count > (1 if lag > 1 else 0)) & (mean > 0)
            scale, number = np.where(use, mean, scale), np.where(use, count, number)
    spread, _ = _clipped(np.abs(y - shift[:, None]))
    count = np.maximum(seen.sum(1) - 1, 0)
    scale = np.maximum(np.where(scale > 0, scale, spread), 1e-3 * spread)
    return Measured(shift, scale, np.where(number > 0, number, count))


_MEASURES: dict[str, Callable[[np.ndarray, int], Measured]] = {
    "magnitude": magnitude,
    "counts": counts,
    "level": level_and_spread,
    "standard": standard,
    "differences": differences,
    "local": local,
}
KINDS = tuple(_MEASURES)


def span(panel: Panel, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """First row and row after the last one of what is read of each series, among all ``(N,)``.

    From its first value to its last one, and at most so many rows back from there, however many
    rows without a value follow. A series without a value has its last row.
    """
    seen = ~np.isnan(panel.y).all(1)
    place = np.arange(panel.rows)
    first = np.minimum.reduceat(np.where(seen, place, panel.rows), panel.offsets[:-1])
    stop = np.maximum.reduceat(np.where(seen, place, -1), panel.offsets[:-1]) + 1
    empty = stop == 0
    first = np.where(empty, panel.offsets[1:] - 1, first)
    stop = np.where(empty, panel.offsets[1:], stop)
    return first if rows is None else np.maximum(first, stop - rows), stop


def varied(panel: Panel) -> bool:
    """Whether a target varies by more than a small part of its level in some series.

    Of positive series; it is where logarithms say something else than the values.
    """
    seen, first = ~np.isnan(panel.y), panel.offsets[:-1]
    most = np.maximum.reduceat(np.where(seen, panel.y, -np.inf), first)
    return bool((most > VARIED * np.minimum.reduceat(np.where(seen, panel.y, np.inf), first)).any())


def leading(panel: Panel, values: np.ndarray, rows: int) -> np.ndarray:
    """The rows up to the last value of each series ``(N, rows, *)``, NaN after its end."""
    start, _ = span(panel, rows)
    index = start[:, None] + np.arange(rows)
    inside = index < panel.offsets[1:, None]
    return np.where(inside[..., None], values[np.minimum(index, panel.rows - 1)], np.nan)


def recent(panel: Panel, rows: int) -> np.ndarray:
    """The rows up to the last value of each series ``(N, rows, D)``, NaN before its first."""
    index = span(panel)[1][:, None] - rows + np.arange(rows)
    inside = index >= panel.offsets[:-1, None]
    return np.where(inside[..., None], panel.y[np.maximum(index, 0)], np.nan)


def _middle(x: np.ndarray) -> np.ndarray:
    """Median along axis 1 of what is no NaN; NaN where there is nothing."""
    count = (~np.isnan(x)).sum(1)
    if not x.shape[1]:
        return np.full(count.shape, np.nan)
    ordered = np.sort(x, 1)
    upper = np.minimum(count // 2, x.shape[1] - 1)[:, None]
    lower = np.maximum((count - 1) // 2, 0)[:, None]
    low, high = (np.take_along_axis(ordered, place, 1)[:, 0] for place in (lower, upper))
    return np.where(count > 0, low + (high - low) / 2, np.nan)


def _top(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Ten times the median size of what is not zero ``(N, 1, D)``, infinity where there is none."""
    size = np.abs(x)
    typical = _middle(np.where(seen & (size > 0), size, np.nan))
    return np.where(np.isnan(typical), np.inf, _CLIP * typical)[:, None]


def _clipped(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of sizes along axis 1, large ones clipped at ten medians, and how many there are."""
    seen = ~np.isnan(x)
    count = seen.sum(1)
    held = np.minimum(np.where(seen, x, 0.0), _top(x, seen))
    return held.sum(1) / np.maximum(count, 1), count
