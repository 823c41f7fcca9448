"""Pieces of series that are computed together, whatever values the series have."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.features.anchors import Anchors, Spans
from seqlatent.forecasting.features.windows import batches
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["Piece", "pieces"]

_TOGETHER = 16  # series of a batch of which some stand in the units of an earlier anchor


class Piece(NamedTuple):
    """Pieces of series that are computed together, and what each of them speaks of.

    Attributes:
        spans: The pieces as they are computed.
        first: First row that each speaks of.
        stop: Row after the last, the first one itself where it speaks of none.
        number: Tells the batch from all others, for the seed of its noise.
    """

    spans: Spans
    first: np.ndarray
    stop: np.ndarray
    number: int

    @property
    def lead(self) -> int:
        """First step of the padded batch at which a piece may speak."""
        return int((self.spans.first - self.spans.start).min())


def pieces(
    panel: Panel,
    anchors: Anchors,
    cells: int,
    *,
    begin: np.ndarray | None = None,
    some: np.ndarray | None = None,
) -> Iterator[Piece]:
    """Pieces that together speak of every row, once, in batches that no value or hole changes.

    Noise is drawn for a batch at once, and even sums come out otherwise in a batch of another
    shape. So that later rows change nothing that is said of earlier ones, pieces lie where they
    would if every row had a value, and who is computed with whom follows from how many rows there
    are. A row before which values are missing may stand in the units of an earlier anchor: it is
    computed once more in these.

    Args:
        panel: The series.
        anchors: Where their units are taken.
        cells: Most rows of a padded batch.
        begin: Row from which each is filtered once it has settled; infinity for none ``(N,)``.
        some: Which series are spoken of ``(N,)``; all by default.
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
    firsts, stops = usual.first.copy(), usual.first.copy()
    firsts[block[same]], stops[block[same]] = first[same], stop[same]
    for k, index in enumerate(batches(usual.stop - usual.start, cells)):
        if (stops[index] > firsts[index]).any():
            yield Piece(usual.select(index), firsts[index], stops[index], 7919 * k)
    late = ~same
    spoken = Spans(
        usual.series[block[late]],
        found.start[span[late]],
        found.anchor[span[late]],
        first[late],
        stop[late],
    )
    yield from _late(panel, spoken, usual.select(block[late]), np.flatnonzero(some), cells)


def _late(
    panel: Panel, spoken: Spans, usual: Spans, series: np.ndarray, cells: int
) -> Iterator[Piece]:
    """Rows that stand in the units of an earlier anchor than they would without holes.

    Args:
        panel: The series.
        spoken: The rows, and from where they are filtered, in these units.
        usual: The piece of each as it would be without holes.
        series: The series that may be computed together.
        cells: Most rows of a padded batch.
    """
    place = np.zeros(panel.batch, dtype=np.int64)
    place[series] = np.arange(len(series))
    most = np.clip(cells // (usual.stop - spoken.start), 1, _TOGETHER)
    chunk = place[spoken.series] // most
    keys = np.stack([spoken.start, spoken.anchor, usual.first, usual.stop, most, chunk], 1)
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
        number = int(np.random.SeedSequence([*key.tolist(), 1]).generate_state(1)[0])
        yield Piece(spans, firsts, stops, number)
