"""Anchors, the rows at which the units of a series are taken anew."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.frames.panel import Panel

__all__ = ["Anchors", "Spans", "reached"]


class Spans(NamedTuple):
    """Pieces of series: each is filtered from its start, and says something of its last rows.

    Rows are counted from each series' own first.

    Attributes:
        series: Which series.
        start: First row of the piece.
        anchor: Row before which the rows lie from which its units follow.
        first: First row that it speaks of.
        stop: Row after the last.
    """

    series: np.ndarray
    start: np.ndarray
    anchor: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    def select(self, index: np.ndarray) -> "Spans":
        """Picks pieces."""
        return Spans(*(x[index] for x in self))


@dataclass(frozen=True)
class Anchors:
    r"""Where the units of a series are taken, and from where it is filtered.

    A series whose last value is row ``n`` stands in the units of its last anchor :math:`a \le n`:
    they follow from the last ``context`` rows before row ``a``, and it is filtered from the first
    of these. So a state is a function of the rows alone, however they came, and no row is judged in
    units that know it. Early anchors lie close, since a few rows more say much more; later ones an
    eighth of a context apart. Rows without a value at the end do not count. Series whose units are
    fixed need none but to forget.

    Nor need they forget where the state is exact and its distribution began with a certain row:
    once half a context of rows has been seen since, the series is filtered from there, however long
    it grows.

    Args:
        context: Most rows that are read; None for all.
        fixed: Whether units do not change, so that only the first row moves.
        share: Units are older than the present by less than this part of the rows that they read.
    """

    context: int | None
    fixed: bool = False
    share: int = 8

    def upto(self, rows: int) -> np.ndarray:
        """All anchors from 0 to ``rows``."""
        found, anchor = [0], 0
        while (anchor := self._next(anchor, rows)) <= rows:
            found.append(anchor)
        return np.array(found, np.int64)

    def following(self, anchor: np.ndarray) -> np.ndarray:
        """The anchors after some, of series whose units are not fixed."""
        most = anchor if self.context is None else np.minimum(anchor, self.context)
        return anchor + np.maximum(1, most // self.share)

    def _next(self, anchor: int, rows: int) -> int:
        if not self.fixed:
            most = anchor if self.context is None else min(anchor, self.context)
            return anchor + max(1, most // self.share)
        if self.context is None:
            return rows + 1
        half = max(1, self.context // 2)
        return self.context + half if anchor == 0 else anchor + half

    def before(self, seen: np.ndarray) -> np.ndarray:
        """The anchor of series of which so many rows were seen, the last one with a value."""
        most = int(seen.max(initial=0))
        step = max(1, (self.context or 0) // (2 if self.fixed else self.share))
        even = self.context is not None and most > self.context + step
        found = self.upto((self.context or 0) + step if even else most)
        anchor = found[np.searchsorted(found, seen, side="right") - 1]
        if not even:
            return anchor
        # beyond the first context they lie evenly
        return np.where(seen > found[-1], seen - (seen - found[-1]) % step, anchor)

    def start(self, anchor: np.ndarray) -> np.ndarray:
        """The row from which a series is filtered."""
        return anchor * 0 if self.context is None else np.maximum(anchor - self.context, 0)

    def settled(self, seen: np.ndarray, begin: np.ndarray) -> np.ndarray:
        """Whether a series is filtered from row ``begin`` on, infinity for none, to stay there."""
        return seen - begin >= (0 if self.context is None else self.context // 2)

    def place(self, seen: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Anchor, and row from which a series is filtered, as in :meth:`settled`."""
        settled = self.settled(seen, begin)
        row = np.where(settled, begin, 0).astype(np.int64)
        if settled.all():
            return row, row
        anchor = self.before(seen)
        return np.where(settled, row, anchor), np.where(settled, row, self.start(anchor))

    def spans(self, panel: Panel, begin: np.ndarray | None = None, *, whole: bool = False) -> Spans:
        """Pieces that together speak of every row, once.

        Args:
            panel: The series.
            begin: Row from which each is filtered once it has settled; infinity for none ``(N,)``.
            whole: Whether they lie as if every row had a value.
        """
        owner = panel.owner
        nth = np.arange(1, panel.rows + 1) - panel.offsets[owner]
        seen = nth if whole else reached(panel)
        before = np.concatenate([[0], seen[:-1]])
        before[panel.offsets[:-1]] = 0
        begin = np.full(panel.batch, np.inf) if begin is None else begin
        anchor, start = self.place(before, begin[owner])
        moved = (np.diff(owner) != 0) | (np.diff(anchor) != 0) | (np.diff(start) != 0)
        first = np.flatnonzero(np.concatenate([[True], moved]))
        stop = np.concatenate([first[1:], [panel.rows]])
        series = owner[first]
        offset = panel.offsets[series]
        return Spans(series, start[first], anchor[first], first - offset, stop - offset)


def reached(panel: Panel) -> np.ndarray:
    """Rows of its series up to the last one with a value, at every row ``(R,)``."""
    place = np.arange(1, panel.rows + 1)
    begin = panel.offsets[:-1][panel.owner]
    seen = np.where(np.isnan(panel.y).all(1), 0, place)
    return np.maximum(np.maximum.accumulate(seen) - begin, 0)
