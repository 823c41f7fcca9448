"""Latent: components and states behind a series, as the smoother sees them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.errors import DataError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots import parts
from seqlatent.forecasting.plots.named_frame import (
    DEFAULT,
    NamedFrame,
    choose,
    drawn_levels,
    listed,
)
from seqlatent.forecasting.plots.past import past_of
from seqlatent.forecasting.plots.style import (
    COLORS,
    GREY,
    INK,
    band,
    grid,
    legend,
    line,
    tidy,
    time_axis,
    tones,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["breaks", "components", "latents"]

END = re.compile(r"(lo|hi)-(\d+(?:\.\d+)?)")


def components(
    smoothed: Any,
    *,
    model: str | None = None,
    id: Any = None,
    names: Sequence[str] | None = None,
    levels: Any = None,
    history: Any = None,
    last: int | None = None,
    specification: str | None = None,
    target: str | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Components of one series with their bands, one panel below the other.

    What was observed lies as dots over the signal: the components of a forecaster hold it, as the
    sum of signal and irregular; for what ``smooth`` returned give the ``history``. A line divides
    rows that were observed from those ahead.

    Args:
        smoothed: What ``components`` or ``smooth`` returned.
        model: Model; None where there is only one.
        id: Series; None where there is only one.
        names: Components to draw; None draws the signal and all components.
        levels: Levels of the bands in per cent; None takes all there are.
        history: What was observed, drawn as dots over the signal.
        last: Rows to show; None shows all.
        specification: Specification, where each tells its own components.
        target: Target, where there are several that tell components.
        columns: Names of the columns.
        axes: Axes to draw on, in reading order; None stacks new ones.

    Returns:
        The axes of the panels from top to bottom, one-dimensional.

    Raises:
        DataError: If columns, series, levels or components are not there, or if one of
            several series or models must be named.
    """
    rows = parts.as_states(NamedFrame.of(smoothed, columns, "smoothed"), specification, target)
    rows = _of_series(rows, model, id, last)
    chosen = _names(rows, ("signal", "component"), names, None)
    seen = parts.observed(rows) if history is None else history
    seen = None if seen is None else NamedFrame.observed(seen, columns, "history")
    return _panels(rows, chosen, levels, axes, seen)


def latents(
    smoothed: Any,
    *,
    model: str | None = None,
    id: Any = None,
    names: Sequence[str] | None = None,
    max_states: int = 8,
    levels: Any = None,
    last: int | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Latent states of one series with their bands, one panel below the other.

    Args:
        smoothed: What ``smooth`` returned.
        model: Model; None where there is only one.
        id: Series; None where there is only one.
        names: States to draw; None draws the first ``max_states``.
        max_states: How many states to draw where none are named.
        levels: Levels of the bands in per cent; None takes all there are.
        last: Rows to show; None shows all.
        columns: Names of the columns.
        axes: Axes to draw on, in reading order; None stacks new ones.

    Returns:
        The axes of the panels from top to bottom, one-dimensional.

    Raises:
        DataError: If columns, series, levels or states are not there, or if one of
            several series or models must be named.
    """
    rows = parts.as_states(NamedFrame.of(smoothed, columns, "smoothed"), None, None)
    rows = _of_series(rows, model, id, last)
    return _panels(rows, _names(rows, ("state",), names, max_states), levels, axes)


def breaks(
    smoothed: Any,
    found: Any,
    *,
    model: str | None = None,
    id: Any = None,
    threshold: float = 0.5,
    levels: Any = None,
    last: int | None = None,
    target: str | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Level of one series with its bands and where it breaks, and below how sure that is.

    A line marks a row at which a break is more probable than not, an open circle a value that is
    more probably an outlier than not.

    Args:
        smoothed: What ``components`` or ``smooth`` returned.
        found: What ``breaks`` returned.
        model: Model; None where there is only one.
        id: Series; None where there is only one.
        threshold: Probability from which on a break or an outlier is marked.
        levels: Levels of the bands in per cent; None takes all there are.
        last: Rows to show; None shows all.
        target: Target, where there are several.
        columns: Names of the columns.
        axes: Two axes to draw on; None stacks new ones.

    Returns:
        The axes of the two panels, one-dimensional.

    Raises:
        DataError: If columns, series or levels are not there, or if one of several series or
            models must be named.
    """
    told = NamedFrame.of(found, columns, "found")
    told.require(columns.id, columns.time, hint="draw what breaks returned")
    knowing = [name.removesuffix("-break") for name in told.names if name.endswith("-break")]
    if not knowing:
        told.require("Model-break", hint="draw what breaks returned")
    model = choose(model, knowing, "model", "found")
    id = choose(id, told.values(columns.id), "id", "found")
    told, target = told.about(target)
    told = told.series(id)
    rows = parts.as_states(NamedFrame.of(smoothed, columns, "smoothed"), None, target)
    rows = _of_series(rows, model, id, last)
    level = rows.where("name", choose("level", rows.values("name"), "names", "smoothed")).ordered()
    told = told.keep(told.times().x >= level.times().x[0])
    intervals = _intervals(rows)
    drawn = [(one, *intervals[one]) for one in drawn_levels(levels, intervals, "smoothed")]
    axes, _ = grid(2, across=1, panel=(9, 1.9), axes=axes, sharex=True, ratios=[2.0, 1.0])
    upper, lower = axes[:2]
    entries = _draw(upper, level, drawn)
    x, y = told.times().x, told.number(target)
    jumps, apart = (told.number(f"{model}-{event}") for event in ("break", "outlier"))
    size = {"ms": 3, "color": INK, "mew": 0}
    (entries["observed"],) = upper.plot(x, y, ".", zorder=4, **size)
    for at in x[jumps >= threshold]:
        entries["break"] = upper.axvline(at, color=COLORS[1], linewidth=1, zorder=2)
    if (odd := apart >= threshold).any():
        look = {"mfc": "none", "mec": COLORS[1], "ms": 8, "linestyle": "", "marker": "o"}
        (entries["outlier"],) = upper.plot(x[odd], y[odd], zorder=5, **look)
    lower.vlines(x, 0, jumps, color=COLORS[1], linewidth=1)
    lower.plot(x, apart, ".", color=GREY, ms=3, mew=0)
    lower.set_ylim(0, 1)
    time_axis(lower, level.times(), columns.time)
    upper.margins(x=0.01)
    tidy(upper, title=f"level, {id}", ylabel=target)
    tidy(lower, title="probability of a break, of an outlier (dots)", xlabel=lower.get_xlabel())
    legend(upper, entries)
    return axes


def _of_series(rows: NamedFrame, model: str | None, id: Any, last: int | None) -> NamedFrame:
    """Rows of one model and series, the last ones."""
    columns, hint = rows.columns, "draw what smooth returned"
    rows.require(columns.id, columns.time, "model", "kind", "name", "mean", hint=hint)
    rows = rows.where("model", choose(model, rows.values("model"), "model", "smoothed"))
    rows = rows.series(choose(id, rows.values(columns.id), "id", "smoothed"))
    if last is not None:
        x = rows.times().x
        rows = rows.keep(x >= np.unique(x)[-last:][0])
    return rows


def _panels(
    rows: NamedFrame,
    chosen: Sequence[tuple[str, str]],
    levels: Any,
    axes: Any,
    seen: NamedFrame | None = None,
) -> np.ndarray:
    """Draws a panel for each name and kind, and what was observed over signals."""
    columns, intervals = rows.columns, _intervals(rows)
    drawn = drawn_levels(levels, intervals, "smoothed")
    end = parts.last_observed(rows)
    axes, figure = grid(len(chosen), across=1, panel=(9, 1.45), axes=axes, sharex=True)
    entries: dict[str, Any] = {}
    for place, (ax, (name, kind)) in enumerate(zip(axes, chosen, strict=True)):
        # of several targets, each has a signal of its name
        target = name if name in columns.targets else columns.targets[0]
        part = rows.where("name", name).ordered()
        base = parts.base(part)
        found = _draw(ax, part, [(level, *intervals[level]) for level in drawn], base)
        if end is not None:
            ax.axvline(end, color=GREY, linewidth=0.8, zorder=0.5)
        if kind == "signal" and seen is not None:
            found |= _dots(ax, part, seen, target)
        entries |= found
        time_axis(ax, part.times(), columns.time)
        ax.margins(x=0.01)
        lowest = figure is None or place == len(chosen) - 1
        xlabel = ax.get_xlabel() if lowest else ""
        tidy(
            ax,
            title=f"{name}{', a factor' if base else ''}",
            xlabel=xlabel,
            ylabel=target * (kind == "signal"),
        )
        ax.yaxis.get_major_locator().set_params(nbins=4, min_n_ticks=3)
        if not lowest:
            ax.xaxis.get_offset_text().set_visible(False)
    legend(axes[0], entries)
    return axes


def _names(
    rows: NamedFrame, kinds: tuple[str, ...], names: Sequence[str] | None, most: int | None
) -> list[tuple[str, str]]:
    """Names to draw with their kinds, signals first."""
    kind = dict(zip(rows.frame["name"].to_list(), rows.frame["kind"].to_list(), strict=True))
    if names is not None:
        return [(choose(name, list(kind), "names", "smoothed"), kind[name]) for name in names]
    there = [(name, kind[name]) for wanted in kinds for name in kind if kind[name] == wanted]
    if not there:
        other = "latents" if "component" in kinds else "components"
        raise DataError(
            f"smoothed must have rows of kind {kinds[-1]!r}, found {listed(set(kind.values()))}; "
            f"draw them with {other}."
        )
    return there[:most]


def _intervals(rows: NamedFrame) -> dict[float, tuple[str, str]]:
    levels = sorted(
        float(end[2]) for name in rows.names if (end := END.fullmatch(name)) and end[1] == "lo"
    )
    found = {level: (f"lo-{level:g}", f"hi-{level:g}") for level in levels}
    return {level: ends for level, ends in found.items() if set(ends) <= set(rows.names)}


def _draw(
    ax: "Axes", rows: NamedFrame, bands: Sequence[tuple[float, str, str]], base: float = 0.0
) -> dict[str, Any]:
    """Draws the mean of a part between its bands, and where it does nothing if it crosses that."""
    x = rows.times().x
    mean = rows.number("mean")
    areas: dict[str, Any] = {}
    colors = tones(COLORS[0], len(bands))
    for rank, (level, low, high) in reversed(list(enumerate(bands))):
        look = {"color": colors[rank], "zorder": 1 - 0.01 * rank}
        area = band(ax, x, rows.number(low), rows.number(high), **look)
        areas = {f"{level:g} %": area, **areas}
    drawn = line(ax, x, mean, color=COLORS[0], linewidth=1.3 if len(x) <= 400 else 0.9, zorder=3)
    if np.nanmin(mean) < base < np.nanmax(mean):
        ax.axhline(base, color=GREY, linewidth=0.6, zorder=0.5)
    return {"mean": drawn, **areas}


def _dots(ax: "Axes", part: NamedFrame, history: NamedFrame, target: str) -> dict[str, Any]:
    """Draws what was observed over the stretch that a part covers."""
    from matplotlib.lines import Line2D

    times = part.times()
    id = part.frame[part.columns.id].to_list()[0]
    past = past_of(history, id, target, first=np.inf, last=None, like=times)
    inside = past.x >= times.x[0]
    size = 5 if inside.sum() <= 150 else 3 if inside.sum() <= 400 else 2
    # over the mean, which would else hide them where it fits well
    look: dict[str, Any] = {"color": INK, "marker": ".", "linestyle": "", "mew": 0, "zorder": 4}
    ax.plot(past.x[inside], past.y[inside], ms=size, **look)
    return {"observed": Line2D([], [], ms=6, **look)}
