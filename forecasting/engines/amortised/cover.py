"""Cover, which window says what of which rows: of long series those in which a row is central."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from seqlatent.forecasting.engines.amortised.windows import last_seen
from seqlatent.forecasting.frames.panel import Panel

__all__ = []

_CELLS = 2**13  # steps of windows that are read at once
_EDGE = 2  # unseen steps that are in front of all windows at least


@dataclass(frozen=True)
class Cover:
    """Windows of one target, each of which says something of some rows that follow each other.

    Every row belongs to one of them. A window ends with a value, if its series has any.

    Args:
        start: First row of each window ``(S,)``.
        end: Last row of each ``(S,)``.
        first: First row that it says something of ``(S,)``.
        stop: The row after the last one of these ``(S,)``.
        few: Whether it holds fewer than two values ``(S,)``.
    """

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    few: np.ndarray

    @classmethod
    def of(
        cls,
        seen: np.ndarray,
        start: np.ndarray,
        end: np.ndarray,
        first: np.ndarray,
        stop: np.ndarray,
    ) -> "Cover":
        """Windows of rows of which some are seen, without those that say nothing of any row."""
        count = np.concatenate([[0], np.cumsum(seen)])
        few = count[end + 1] - count[start] < 2
        return cls(start, end, first, stop, few).select(stop > first)

    def select(self, index: np.ndarray) -> "Cover":
        """Some of the windows."""
        return Cover(*(getattr(self, field.name)[index] for field in fields(self)))

    def lacking(self, lacks: np.ndarray) -> "Cover":
        """Windows that say something of rows that lack a value."""
        count = np.concatenate([[0], np.cumsum(lacks)])
        return self.select(count[self.stop] > count[self.first])

    def parts(self, panel: Panel) -> "Iterator[Part]":
        """Windows of like lengths, as many as are read at once.

        Which are together, and in what order, does not tell in which order series came.
        """
        rank = np.argsort(panel.order)[owner(panel, self.end)]
        width, ahead, back = (
            _rounded(x)
            for x in (
                self.end - self.start + 1 + _EDGE,
                np.maximum(self.stop - 1 - self.end, 0),
                np.maximum(self.end - self.first + 1, 0),
            )
        )
        shape = np.stack([width, ahead, back, self.few], 1)
        kinds, kind = np.unique(shape, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        order = np.lexsort([self.end, rank, kind])
        edges = np.searchsorted(kind[order], np.arange(len(kinds) + 1))
        for (w, a, b, few), i, j in zip(kinds.tolist(), edges[:-1], edges[1:], strict=True):
            some = max(1, _CELLS // (w + a))
            for part in np.split(order[i:j], range(some, j - i, some)):
                first, stop = max(w - b, 0), w + a
                for k in range(first, stop, _CELLS):
                    yield Part(self.select(part), w, a, slice(k, min(k + _CELLS, stop)), bool(few))


@dataclass(frozen=True)
class Part:
    """Some windows, and which of their steps are asked for.

    Args:
        cover: The windows.
        width: Steps of each; what lies before its first row is not seen.
        ahead: Steps after it that are reached.
        steps: Steps that are asked for, from the first of the width.
        few: Whether the windows hold fewer than two values each.
    """

    cover: Cover
    width: int
    ahead: int
    steps: slice
    few: bool

    @property
    def index(self) -> np.ndarray:
        """Row of each step, later ones too ``(S, W + A)``; beyond its series it has no meaning."""
        return self.cover.end[:, None] + np.arange(1 - self.width, self.ahead + 1)

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that are told of, their window, and their place among the steps asked for."""
        count = self.cover.stop - self.cover.first
        window = np.repeat(np.arange(len(count)), count)
        begin = np.concatenate([[0], np.cumsum(count)[:-1]])
        row = np.arange(len(window)) + np.repeat(self.cover.first - begin, count)
        place = row - self.cover.end[window] + self.width - 1 - self.steps.start
        inside = (place >= 0) & (place < self.steps.stop - self.steps.start)
        return row[inside], window[inside], place[inside]

    def values(self, y: np.ndarray) -> np.ndarray:
        """Values of rows ``(R,)`` at the steps of the windows ``(S, W)``, NaN before them."""
        index = self.index[:, : self.width]
        inside = index >= self.cover.start[:, None]
        return np.where(inside, y[np.where(inside, index, 0)], np.nan)

    def covariates(self, u: np.ndarray) -> np.ndarray:
        """Covariates of rows ``(R, U)`` at all steps ``(S, W + A, U)``, of no meaning elsewhere."""
        return u[np.clip(self.index, 0, len(u) - 1)]


def smoothed(panel: Panel, d: int, length: int) -> Cover:
    """Windows of at most some length, half of which they share, back from the last value of each.

    A row is told of by the window in whose middle it lies most; a hole by one window, where it can
    be. What comes before the first window and after the last belongs to these.
    """
    offsets, half = panel.offsets, max(1, length // 2)
    before = last_seen(panel, d)
    last = before[offsets[1:] - 1]
    known = last >= 0
    after = _next_seen(panel, d)
    lead = after[offsets[:-1]]  # first value
    extent = np.where(known, last - lead + 1, 1)
    count = 1 + np.maximum(0, -(-(extent - length) // half))
    series = np.repeat(np.arange(panel.batch), count)
    nth = np.arange(len(series)) - np.repeat(np.cumsum(count) - count, count)
    back = np.repeat(count, count) - 1 - nth
    # windows end with values, and there are no two of the same end
    end = np.where(
        known[series], before[np.where(known, last, 0)[series] - half * back], offsets[series]
    )
    fresh = np.concatenate([[True], (series[1:] != series[:-1]) | (end[1:] != end[:-1])])
    series, end = series[fresh], end[fresh]
    opens = np.concatenate([[True], series[1:] != series[:-1]])
    shuts = np.concatenate([opens[1:], [True]])
    start = np.where(opens, offsets[series], np.maximum(end - length + 1, offsets[series]))
    first = offsets[series].copy()
    inner = np.flatnonzero(~opens)
    middle = -(-(end[inner] + end[inner - 1] - length + 1) // 2)
    first[inner] = _beside_holes(
        np.maximum(middle, start[inner]),
        start[inner],
        end[inner - 1],
        before,
        after,
        offsets[series[inner]],
    )
    # of windows that take over in one hole the first that does has it
    first = np.maximum.accumulate(first)
    stop = np.where(shuts, offsets[series + 1], np.append(first[1:], panel.rows))
    return Cover.of(~np.isnan(panel.y[:, d]), start, end, first, stop)


def filtered(panel: Panel, d: int, length: int) -> Cover:
    """Windows that end with each value: those of rows up to the next one, which know no more."""
    offsets, before = panel.offsets, last_seen(panel, d)
    rows = np.arange(panel.rows)
    opens = (rows == offsets[panel.owner]) | (before == rows)
    first = rows[opens]
    stop = np.append(first[1:], panel.rows)
    start = np.maximum(first - length + 1, offsets[panel.owner[first]])
    return Cover.of(~np.isnan(panel.y[:, d]), start, first, first, stop)


def _beside_holes(
    place: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    offsets: np.ndarray,
) -> np.ndarray:
    """Rows at which a window takes over, moved to an end of the hole that they lie in.

    Args:
        place: Rows at which windows take over.
        start: First row of these windows.
        end: Last row of those before them.
        before: The last value up to each row.
        after: The next value from each row on.
        offsets: First row of the series.
    """
    opens = np.maximum(before[np.maximum(place - 1, 0)], offsets - 1) + 1
    shuts = after[place]
    inside = (opens < place) & (shuts > place)
    here, there = inside & (opens >= start), inside & (shuts <= end)
    late = 2 * place <= opens + shuts  # most of the hole is where the window takes over
    moved = np.where(here & (late | ~there), opens, shuts)
    return np.where(here | there, moved, place)


def owner(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """Series of some rows."""
    return np.searchsorted(panel.offsets, rows, side="right") - 1


def _next_seen(panel: Panel, d: int) -> np.ndarray:
    """The row of the first value of its series from each row on, the row after it for none."""
    seen = ~np.isnan(panel.y[:, d])
    rows = np.where(seen, np.arange(panel.rows), panel.rows)
    found = np.minimum.accumulate(rows[::-1])[::-1]
    return np.minimum(found, panel.offsets[panel.owner + 1])


def _rounded(x: np.ndarray) -> np.ndarray:
    """Lengths rounded up, by less than an eighth; none stays none."""
    unit = 2.0 ** np.maximum(np.floor(np.log2(np.maximum(x, 1))) - 3, 0)
    return (np.ceil(x / unit) * unit).astype(np.int64)
