"""Horizon: how skill fades with the steps ahead."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.errors import DataError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import DEFAULT, NamedFrame, models_of
from seqlatent.forecasting.plots.style import COLORS, LINES, MARKERS, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["horizon_scores"]

STEP = "step"


def horizon_scores(
    table: Any,
    *,
    model: str | Sequence[str] | None = None,
    metric: str = "score",
    columns: Columns = DEFAULT,
    ax: "Axes | None" = None,
) -> "Axes":
    """Score of each model by the number of steps ahead.

    Args:
        table: Frame with a column ``step``, 1 for the first step ahead, and one for each model.
        model: Model, or models, to draw; None draws all.
        metric: Name of the score, for the axis.
        columns: Names of the columns, of which none counts as a model.
        ax: Axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        DataError: If columns are not there, or a step has several rows.
    """
    rows = NamedFrame.of(table, columns, "table")
    rows.require(STEP, hint="give scores by step ahead")
    steps = rows.number(STEP)
    if len(np.unique(steps)) < len(steps):
        raise DataError(
            "table must have one row for each step, found several; average them, or keep those of "
            "one series, target and metric.",
            column=STEP,
        )
    order = np.argsort(steps)
    models = models_of([name for name in rows.models() if name != STEP], model, "table")
    ax = new_axes((7, 3.2)) if ax is None else ax
    ends = []
    for at, one in enumerate(models):
        values = rows.number(one)[order]
        marker = {"marker": MARKERS[at], "ms": 4.5, "mec": "white", "mew": 0.6}
        look = {"color": COLORS[at], "linestyle": LINES[at], "linewidth": 1.5}
        ax.plot(steps[order], values, **look, **(marker if len(steps) <= 30 else {}))
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            ends.append((float(values[known[-1]]), one, COLORS[at]))
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 3, 4, 6, 10]))
    ax.margins(x=0.02)
    tidy(ax, xlabel="steps ahead", ylabel=metric)
    _label_ends(ax, ends, float(steps.max()))
    return ax


def _label_ends(ax: "Axes", ends: list[tuple[float, str, str]], x: float) -> None:
    """Writes the name of each line at its right end, none over another."""
    low, high = ax.get_ylim()
    size = ax.get_window_extent().height / ax.figure.dpi * 72
    apart = 11 * (high - low) / size
    places = sorted(ends)
    heights = np.array([value for value, _, _ in places])
    for _ in range(200):  # pushes neighbours apart until all have room
        close = apart - np.diff(heights)
        if not (close > 1e-9 * apart).any():
            break
        push = np.maximum(close, 0) / 2
        heights[:-1] -= push
        heights[1:] += push
    for height, (_, name, color) in zip(heights, places, strict=True):
        ax.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
