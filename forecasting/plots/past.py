"""Past, what was observed of a series up to the forecast, and what came after it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqlatent.forecasting.errors import TimeError
from seqlatent.forecasting.plots.named_frame import NamedFrame
from seqlatent.forecasting.plots.style import GREY, INK, TimeAxis, line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = []

# Truth of at most so many steps is marked by circles, that of more by a line alone.
MARKED = 30
# Rows of history that are shown at least, where nobody says how many.
LEAST = 50


class Past(NamedTuple):
    """What was observed of a series.

    Attributes:
        x: Times of the history shown ``(R,)``.
        y: Its values, NaN where missing ``(R,)``.
        later: Times of the truth ``(H,)``.
        truth: Its values ``(H,)``.
        step: Usual distance of two rows.
    """

    x: np.ndarray
    y: np.ndarray
    later: np.ndarray
    truth: np.ndarray
    step: float


def past_of(
    history: NamedFrame,
    id: Any,
    target: str,
    *,
    first: float,
    last: int | None,
    like: TimeAxis,
    truth: NamedFrame | None = None,
) -> Past:
    """Splits the history of a series where the forecast begins, and adds the truth."""
    x, y = _observed(history, id, target, like)
    before = x < first
    later, after = x[~before], y[~before]
    if truth is not None:
        later, after = _observed(truth, id, target, like)
    shown = slice(None) if last is None else slice(max(0, int(before.sum()) - last), None)
    x, y = x[before][shown], y[before][shown]
    inside = (later >= first) & (later <= like.x.max())
    every = np.concatenate([x, like.x])
    step = float(np.median(np.diff(np.unique(every)))) if len(np.unique(every)) > 1 else 1.0
    return Past(x, y, later[inside], after[inside], step)


def draw_past(ax: "Axes", past: Past, starts: list[float]) -> dict[str, Any]:
    """Draws history, truth and the boundaries between; returns what the legend shows."""
    entries: dict[str, Any] = {}
    if len(past.x):
        look = {"color": INK, "linewidth": 1.0, "zorder": 4}
        entries["observed"] = line(ax, past.x, past.y, **look)
    if len(past.later):
        marked = len(past.later) <= MARKED
        marks = {"marker": "o", "ms": 3.5, "mfc": "white", "mew": 0.9} if marked else {}
        look = {"color": INK, "linewidth": 1.0, "linestyle": (0, (2.5, 1)), "zorder": 5}
        entries["truth"] = line(ax, past.later, past.truth, **look, **marks)
    for start in starts:
        seen = np.concatenate([past.x, past.later])
        seen = seen[seen < start]
        if len(seen):
            boundary = (start + seen.max()) / 2
            ax.axvline(boundary, color=GREY, linewidth=0.8, zorder=0.5)
    return entries


def _observed(
    rows: NamedFrame, id: Any, target: str, like: TimeAxis
) -> tuple[np.ndarray, np.ndarray]:
    rows.require(target, hint="say columns=Columns(target=...) or target= with the name it has")
    rows = rows.series(id)
    times = rows.times()
    if times.date != like.date or (times.zone is None) != (like.zone is None):
        kinds = [
            ("dates with a time zone" if one.zone else "dates") if one.date else "numbers"
            for one in (like, times)
        ]
        raise TimeError(
            f"column {rows.columns.time!r} of {rows.what} must be like that of what is drawn over "
            f"it, {kinds[0]}, found {kinds[1]}; convert one of them.",
            column=rows.columns.time,
        )
    return times.x, rows.number(target)
