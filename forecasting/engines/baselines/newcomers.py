"""Newcomers, series that were not there in training: their parameters follow from their past.

Series of training keep the parameters that they had. A newcomer's are estimated anew at anchors,
from the rows before them alone: what is said of a row knows no later one, and rows that come one by
one lead to where rows that come at once do.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from seqlatent.forecasting.features.anchors import Anchors, reached
from seqlatent.forecasting.frames.panel import Panel

__all__ = []

Table = dict[str, np.ndarray]

_ANCHORS = Anchors(None, share=2)  # a fit costs more than a filter does
_PAST = ("past.rows", "past.t", "past.y", "past.future")


def anchor_of(panel: Panel) -> np.ndarray:
    """Rows of each series from which its parameters are estimated ``(N,)``."""
    return _ANCHORS.before(reached(panel)[panel.offsets[1:] - 1])


def heads(panel: Panel, anchor: np.ndarray) -> Panel:
    """The rows of each series before its anchor; one without a value where there is none."""
    nth = np.arange(panel.rows) - panel.offsets[panel.owner]
    head = panel.keep(nth < np.maximum(anchor, 1)[panel.owner])
    return replace(head, y=np.where((anchor > 0)[head.owner, None], head.y, np.nan))


def pieces(panel: Panel) -> Iterator[tuple[Panel, np.ndarray, np.ndarray, np.ndarray]]:
    """Series up to some row with a common anchor, and what they speak of.

    Yields:
        The series, the anchor of each, which rows of these are spoken of, and where they lie in the
        panel. All together speak of every row once.
    """
    spans = _ANCHORS.spans(panel)
    for anchor in np.unique(spans.anchor):
        some = spans.select(spans.anchor == anchor)
        whole = panel.select(some.series)
        nth = np.arange(whole.rows) - whole.offsets[whole.owner]
        there = nth < some.stop[whole.owner]
        spoken = there & (nth >= some.first[whole.owner])
        rows = nth + panel.offsets[some.series][whole.owner]
        yield whole.keep(there), some.anchor, spoken[there], rows[spoken]


def remembered(panel: Panel) -> Table:
    """Rows of newcomers, from which parameters are estimated anew."""
    nth = np.arange(panel.rows) - panel.offsets[panel.owner]
    shape = (panel.batch, int(panel.lengths.max(initial=0)))

    def spread(x: np.ndarray) -> np.ndarray:
        out = np.full((*shape, *x.shape[1:]), np.nan)
        out[panel.owner, nth] = x
        return out

    values = panel.lengths, *(spread(x) for x in (panel.t, panel.y, panel.future))
    return dict(zip(_PAST, values, strict=True))


def forgotten(panel: Panel) -> Table:
    """The same of series of training, of which none are needed."""
    n = panel.batch
    widths = panel.y.shape[1], panel.future.shape[1]
    values = np.full(n, -1), np.zeros((n, 0)), *(np.zeros((n, 0, w)) for w in widths)
    return dict(zip(_PAST, values, strict=True))


def split(state: Table) -> tuple[Table, Table]:
    """A state without the rows that it remembers, and these."""
    past = {name: state[name] for name in _PAST}
    return {name: values for name, values in state.items() if name not in past}, past


def recalled(past: Table, like: Panel) -> Panel:
    """What :func:`remembered` wrote, as the rows before those of a panel of the same series."""
    rows, t, y, future = (past[name] for name in _PAST)
    there = np.arange(t.shape[1]) < rows[:, None]
    total = int(rows.sum())
    return replace(
        like,
        offsets=np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
        t=t[there],
        y=y[there],
        future=future[there],
        past=np.full((total, like.past.shape[1]), np.nan),
        row=np.full(total, -1),
        ends=None,
    )
