"""Fans: what was observed, and the bands in which the future will lie."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import (
    DEFAULT,
    NamedFrame,
    choose,
    drawn_levels,
    models_of,
)
from seqlatent.forecasting.plots.past import LEAST, draw_past, past_of
from seqlatent.forecasting.plots.style import (
    COLORS,
    LINES,
    band,
    greyed,
    grid,
    legend,
    line,
    new_axes,
    share_scale,
    tidy,
    time_axis,
    tones,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["fan", "fans"]


# Columns that the line of a model is taken from, the first that there is.
POINTS = ("", "-median", "_ql0.5", "-mean")


class Hue(NamedTuple):
    """A model and how it is drawn."""

    model: str
    color: str
    style: Any


class Observed(NamedTuple):
    """What was observed of a series, as far as it is drawn.

    Attributes:
        history: Rows of the past of all series.
        truth: Rows of what came after; None where it is not known, or part of the history.
        id: The series.
        target: The target.
        last: Rows of history to show; None shows three horizons, and at least ``LEAST``.
    """

    history: NamedFrame
    truth: NamedFrame | None
    id: Any
    target: str
    last: int | None


def fan(
    history: Any,
    forecasts: Any,
    *,
    model: str | Sequence[str] | None = None,
    levels: Any = None,
    id: Any = None,
    target: str | None = None,
    truth: Any = None,
    last: int | None = None,
    columns: Columns = DEFAULT,
    ax: "Axes | None" = None,
) -> "Axes":
    """Fan of the forecasts of one series: its past, the median, and bands around it.

    A model alone has all its bands, the wider the lighter. Several models have a hue and a line
    style each, and one band. History at and after the first stamp of the forecasts is drawn as
    truth. Of the windows of a backtest, those are drawn that do not overlap a later one.

    Args:
        history: What was observed, as given to ``fit``. NaN leaves a gap.
        forecasts: What ``predict`` or ``cross_validation`` returned.
        model: Model, or models, to draw; None draws all.
        levels: Levels of the bands in per cent; None takes all there are, or of several models the
            widest up to 80. Empty draws no bands.
        id: Series; None where there is only one.
        target: Target; None where there is only one.
        truth: Frame like ``history`` of what came after.
        last: Rows of history to show; None shows three horizons, and at least 50.
        columns: Names of the columns.
        ax: Axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        DataError: If columns, series or levels are not there, or if one of several series
            or targets must be named.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.plots import fan
        >>> history = pd.DataFrame({"unique_id": "a", "ds": range(4), "y": [1.0, 3.0, 2.0, 3.0]})
        >>> forecasts = pd.DataFrame(
        ...     {"unique_id": "a", "ds": [4, 5], "rw": 3.0, "rw-lo-80": [2, 1], "rw-hi-80": [4, 5]}
        ... )
        >>> ax = fan(history, forecasts)
        >>> ax.get_ylabel(), ax.get_title("left")
        ('y', 'a')
    """
    rows = NamedFrame.of(forecasts, columns, "forecasts")
    past = NamedFrame.observed(history, columns, "history")
    after = None if truth is None else NamedFrame.observed(truth, columns, "truth")
    series = choose(id, rows.values(columns.id), "id", "forecasts")
    rows, name = rows.about(target)
    hues = _hues(rows, model)
    ax = new_axes((9, 3.6)) if ax is None else ax
    observed = Observed(past, after, series, name, last)
    entries = _draw(ax, rows.series(series), observed, hues, levels)
    title = f"{series}, {name}" if rows.targets else f"{series}"
    tidy(ax, title=title, xlabel=ax.get_xlabel(), ylabel=name)
    legend(ax, entries)
    return ax


def fans(
    history: Any,
    forecasts: Any,
    *,
    ids: Sequence[Any] | None = None,
    max_ids: int = 8,
    model: str | Sequence[str] | None = None,
    separate: bool = False,
    levels: Any = None,
    target: str | None = None,
    truth: Any = None,
    last: int | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Fans of several series, one panel for each.

    Args:
        history: What was observed, as given to ``fit``.
        forecasts: What ``predict`` or ``cross_validation`` returned.
        ids: Series to draw; None draws the first ``max_ids``.
        max_ids: How many series to draw where none are named.
        model: Model, or models, to draw; None draws all.
        separate: Whether each model has a panel of its own, on the scale of its neighbours.
        levels: Levels of the bands in per cent, as in :func:`fan`.
        target: Target; None draws a panel for each.
        truth: Frame like ``history`` of what came after.
        last: Rows of history to show, as in :func:`fan`.
        columns: Names of the columns.
        axes: Axes to draw on, in reading order; None makes a grid.

    Returns:
        The axes of the panels in reading order, one-dimensional.

    Raises:
        DataError: If columns, series or levels are not there.
        ValueError: If ``axes`` are too few.
    """
    rows = NamedFrame.of(forecasts, columns, "forecasts")
    past = NamedFrame.observed(history, columns, "history")
    after = None if truth is None else NamedFrame.observed(truth, columns, "truth")
    series = rows.values(columns.id)[:max_ids] if ids is None else list(ids)
    targets: list[str | None] = [target] if target or not rows.targets else [*rows.targets]
    hues = _hues(rows, model)
    groups = [[hue] for hue in hues] if separate else [hues]
    panels = [(id, one, group) for id in series for one in targets for group in groups]
    across = min(len(groups), 4) if separate and len(groups) > 1 else 2
    panel = (10 / across if len(panels) > 1 else 9, 1.9)
    drawn, figure = grid(len(panels), across=across, panel=panel, axes=axes)
    entries: dict[str, Any] = {}
    for place, (ax, (id, one, group)) in enumerate(zip(drawn, panels, strict=True)):
        about, name = rows.about(one)
        observed = Observed(past, after, id, name, last)
        entries |= _draw(ax, about.series(id), observed, group, levels, ticks=5)
        title = ", ".join(
            [f"{id}", *([name] if rows.targets else []), *([group[0].model] if separate else [])]
        )
        lowest = figure is None or place >= len(panels) - across
        left = figure is None or place % across == 0
        tidy(
            ax,
            title=title,
            xlabel=ax.get_xlabel() if lowest else "",
            ylabel=name if left else "",
        )
        ax.yaxis.get_major_locator().set_params(nbins=4, min_n_ticks=3)
    if separate:
        share_scale(drawn, len(groups))
        entries = greyed(entries, [hue.model for hue in hues])
    legend(drawn[0], entries, figure=figure)
    return drawn


def _hues(rows: NamedFrame, model: str | Sequence[str] | None) -> list[Hue]:
    """Models to draw, each in the hue of its place among all."""
    there = rows.models()
    asked = models_of(there, model, rows.what)
    order = there if len(there) <= len(COLORS) else asked
    if len(asked) == 1:
        order = asked
    return [Hue(one, COLORS[order.index(one)], LINES[order.index(one)]) for one in asked]


def _draw(
    ax: "Axes",
    rows: NamedFrame,
    observed: Observed,
    hues: Sequence[Hue],
    levels: Any,
    *,
    ticks: int = 8,
) -> dict[str, Any]:
    """Draws a fan, and returns what the legend shows."""
    if levels is None and not any(rows.intervals(hue.model) for hue in hues):
        low, high = (f"{hues[0].model}-{end}-80" for end in ("lo", "hi"))
        raise ColumnError(
            f"forecasts must have intervals to draw a fan, found no columns {low!r} and {high!r}; "
            "predict with level=(80, 95), or draw no bands with levels=().",
            column=low,
        )
    windows = _windows(rows)
    first = windows[0].times().x[0]
    horizon = max(len(window.frame) for window in windows)
    history, truth, id, target, last = observed
    last = max(LEAST, 3 * horizon) if last is None else last
    past = past_of(history, id, target, first=first, last=last, like=rows.times(), truth=truth)
    entries: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for window in windows:
        for hue in hues:
            found = _draw_model(ax, window, hue, levels, count=len(hues), step=past.step)
            entries |= found[0]
            bands = found[1]
    starts = [window.times().x[0] for window in windows]
    seen = draw_past(ax, past, starts)
    time_axis(ax, rows.times(), rows.columns.time, ticks=ticks)
    ax.margins(x=0.01)
    if len(bands) > 4:
        bands = {label: bands[label] for label in (next(iter(bands)), [*bands][-1])}
    return seen | entries | bands


def _draw_model(
    ax: "Axes",
    rows: NamedFrame,
    hue: Hue,
    levels: Any,
    *,
    count: int,
    step: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws the bands and the median of a model."""
    x = rows.times().x
    intervals = rows.intervals(hue.model)
    chosen = drawn_levels(levels, intervals, f"the intervals of {hue.model!r}")
    alone = count == 1
    if levels is None and not alone and chosen:
        chosen = [max([level for level in chosen if level <= 80], default=chosen[0])]
    bands: dict[str, Any] = {}
    colors = tones(hue.color, len(chosen))
    area: Any = None
    for rank, level in reversed(list(enumerate(chosen))):
        low, high = (rows.number(name) for name in intervals[level])
        if alone:
            look = {"color": colors[rank], "zorder": 1 - 0.01 * rank}
            area = band(ax, x, low, high, width=0.8 * step, **look)
            bands = {f"{level:g} %": area, **bands}
        else:
            look = {"color": hue.color, "alpha": 0.24 / count, "zorder": 1}
            area = band(ax, x, low, high, width=0.8 * step, **look)
            for end in (low, high):
                line(ax, x, end, color=hue.color, linestyle=hue.style, linewidth=0.8, alpha=0.8)
    points = next(
        (name for name in (f"{hue.model}{end}" for end in POINTS) if name in rows.names), None
    )
    if points is None:
        return {hue.model: area} if chosen else {}, bands
    median = line(
        ax, x, rows.number(points), color=hue.color, linestyle=hue.style, linewidth=1.6, zorder=3
    )
    if len(x) == 1:
        median.set(marker="o", ms=6, mec="white")
    if alone or not chosen:
        return {hue.model: median}, bands
    held = ", ".join(f"{level:g}" for level in chosen)
    return {f"{hue.model}, {held} %": (area, median)}, bands


def _windows(rows: NamedFrame) -> list[NamedFrame]:
    """Windows of a backtest from the first to the last; the only one of a forecast."""
    if rows.columns.cutoff not in rows.names:
        parts = [rows]
    else:
        cutoffs = rows.times(rows.columns.cutoff).x
        parts = [rows.keep(cutoffs == cutoff) for cutoff in np.unique(cutoffs)[::-1]]
    kept: list[NamedFrame] = []
    for part in parts:
        x = part.times().x
        if (np.diff(x) <= 0).any():
            raise ColumnError(
                f"forecasts must have one row for each id and {part.columns.time}, found several; "
                "draw sample paths with spaghetti.",
                column=part.columns.time,
            )
        if not kept or x[-1] < kept[0].times().x[0]:
            kept.insert(0, part)
    return kept
