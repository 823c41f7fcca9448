"""Pieces of series that are computed together, whatever values the series have."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.features.anchors import Anchors, Spans
from seqlatent.forecasting.features.windows import batches
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["Piece", "pieces"]

_TOGETHER = 16  # series of a batch of which some stand in the units of an earlier anchor
_SHORT, _ALIKE = 8, 8  # rows of the pieces that are taken together at least; pieces of one length


class Piece(NamedTuple):
    """Pieces of series that are computed together, and what each of them speaks of.

    Attributes:
        spans: The pieces as they are computed.
        first: First row that each speaks of.
        stop: Row after the last, the first one itself where it speaks of none.
        lead: First step of the padded batch at which a piece may speak.
        steps: Steps of the padded batch.
        number: Tells the batch from all others, for the seed of its noise.
    """

    spans: Spans
    first: np.ndarray
    stop: np.ndarray
    lead: int
    steps: int
    number: int


def pieces(
    panel: Panel,
    anchors: Anchors,
    cells: int,
    *,
    begin: np.ndarray | None = None,
    some: np.ndarray | None = None,
    drawn: bool = True,
) -> Iterator[Piece]:
    """Pieces that together speak of every row, once, in batches that nothing later changes.

    Noise is drawn for a batch at once, and even sums come out otherwise in a batch of another
    shape. So that later rows change nothing that is said of earlier ones, pieces lie where they
    would if every row had a value, and who is computed with whom follows from the number of the
    row. A row before which values are missing may stand in the units of an earlier anchor: it is
    computed once more in these.

    Args:
        panel: The series.
        anchors: Where their units are taken.
        cells: Most rows of a padded batch.
        begin: Row from which each is filtered once it has settled; infinity for none ``(N,)``.
        some: Which series are spoken of ``(N,)``; all by default.
        drawn: Whether noise is drawn for them, so that not even the end of a series may tell who is
            computed with whom.
    """
    some = np.ones(panel.batch, dtype=bool) if some is None else some
    usual = anchors.spans(panel, begin, whole=True)
    found = anchors.spans(panel, begin)
    usual, found = usual.select(some[usual.series]), found.select(some[found.series])
    row = [panel.offsets[x.series] + x.first for x in (usual, found)]
    at = np.unique(np.concatenate(row))
    block, span = (np.searchsorted(x, at, side="right") - 1 for x in row)
    first = at - panel.offsets[usual.series[block]]
    stop = np.minimum(usual.stop[block], found.stop[span])
    same = (usual.start[block] == found.start[span]) & (usual.anchor[block] == found.anchor[span])
    spoken = Spans(usual.series[block], found.start[span], found.anchor[span], first, stop)
    series = np.flatnonzero(some)
    if anchors.fixed or not drawn:
        usual_stop = usual.stop
        yield from _usual(usual, block[same], spoken.select(same), cells)
    else:
        usual_stop = anchors.following(usual.anchor)
        yield from _even(panel, anchors, spoken.select(same), series, cells)
    late = ~same
    ends = usual.first[block[late]], usual_stop[block[late]]
    yield from _late(panel, spoken.select(late), ends, series, cells)


def _usual(usual: Spans, block: np.ndarray, spoken: Spans, cells: int) -> Iterator[Piece]:
    """Pieces of any length, by the lengths of all series.

    Args:
        usual: The pieces as they would be without holes.
        block: Which of them each of the following is a part of.
        spoken: What is said of the rows.
        cells: Most rows of a padded batch.
    """
    first, stop = usual.first.copy(), usual.first.copy()
    first[block], stop[block] = spoken.first, spoken.stop
    lengths = usual.stop - usual.start
    for k, index in enumerate(batches(lengths, cells)):
        if (stop[index] > first[index]).any():
            spans = usual.select(index)
            lead, steps = int((spans.first - spans.start).min()), int(lengths[index].max())
            yield Piece(spans, first[index], stop[index], lead, steps, 7919 * k)


def _even(
    panel: Panel, anchors: Anchors, spoken: Spans, series: np.ndarray, cells: int
) -> Iterator[Piece]:
    """Pieces that lie at the same rows in all series.

    Those of nearly one length are computed together, for all series that reach the first of them:
    the pieces beyond the end of a series are empty.

    Args:
        panel: The series.
        anchors: Where their units are taken.
        spoken: What is said of the rows.
        series: The series that are computed together.
        cells: Most rows of a padded batch.
    """
    longest = int(panel.lengths.max())
    grid = anchors.upto(2 * longest + _SHORT)  # no batch ends with the last row
    start, stop = anchors.start(grid), anchors.following(grid)
    rows = stop - start
    short = np.ceil(np.log2(np.maximum(rows, _SHORT))).astype(np.int64)
    kind = np.where(start > 0, short.max() + 1 + np.cumsum(start > 0) // _ALIKE, short)
    known = spoken.series * len(grid) + np.searchsorted(grid, spoken.anchor)
    for k in np.unique(kind[grid < longest]):
        mine = np.flatnonzero(kind == k)
        lead, steps = int((grid - start)[mine].min()), int(rows[mine].max())
        size = max(1, cells // (steps * len(mine)))
        for nth, members in enumerate(np.split(series, range(size, len(series), size))):
            members = members[panel.lengths[members] > grid[mine[0]]]
            each, j = np.repeat(members, len(mine)), np.tile(mine, len(members))
            to = np.searchsorted(known, each * len(grid) + j)
            told = known[np.minimum(to, len(known) - 1)] == each * len(grid) + j
            if not told.any():
                continue
            most = panel.lengths[each]
            ends = np.minimum(grid[j], most), np.minimum(stop[j], most)
            spans = Spans(each, np.minimum(start[j], most - 1), ends[0], ends[0], ends[1])
            first, last = ends[0].copy(), ends[0].copy()
            first[told], last[told] = spoken.first[to[told]], spoken.stop[to[told]]
            number = _number(0, int(grid[mine[0]]), steps, nth)
            yield Piece(spans, first, last, lead, steps, number)


def _late(
    panel: Panel,
    spoken: Spans,
    ends: tuple[np.ndarray, np.ndarray],
    series: np.ndarray,
    cells: int,
) -> Iterator[Piece]:
    """Rows that stand in the units of an earlier anchor than they would without holes.

    Args:
        panel: The series.
        spoken: What is said of the rows.
        ends: First row, and row after the last, of the piece that each would be a part of.
        series: The series that may be computed together.
        cells: Most rows of a padded batch.
    """
    place = np.zeros(panel.batch, dtype=np.int64)
    place[series] = np.arange(len(series))
    most = np.clip(cells // (ends[1] - spoken.start), 1, _TOGETHER)
    keys = np.stack([spoken.start, spoken.anchor, *ends, most, place[spoken.series] // most], 1)
    distinct, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    for k, key in enumerate(distinct):
        start, anchor, first, stop, size, nth = (int(x) for x in key)
        members = series[nth * size : (nth + 1) * size]
        members = members[panel.lengths[members] > first]
        spans = Spans(
            members,
            np.full(len(members), start),
            np.full(len(members), anchor),
            np.full(len(members), first),
            np.minimum(panel.lengths[members], stop),
        )
        firsts, stops = spans.first.copy(), spans.first.copy()
        mine = np.flatnonzero(owner == k)
        to = np.searchsorted(members, spoken.series[mine])
        firsts[to], stops[to] = spoken.first[mine], spoken.stop[mine]
        yield Piece(spans, firsts, stops, first - start, stop - start, _number(1, *key.tolist()))


def _number(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
