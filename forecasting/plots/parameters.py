"""Parameters: intervals of the parameters of a series, of several models side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import (
    DEFAULT,
    NamedFrame,
    choose,
    drawn_levels,
    models_of,
)
from seqlatent.forecasting.plots.style import (
    COLORS,
    GREY,
    INK,
    MARKERS,
    greyed,
    grid,
    legend,
    tidy,
    tones,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["parameters"]

# Which parameters share an axis, by what comes after the component; others have one of their own.
_SHARED = {
    "scale": "standard deviation, units of the data",
    "initial_scale": "standard deviation, units of the data",
    "damping": "damping, coefficient",
    "coefficient": "damping, coefficient",
}
_PROBABILITY = "probability"
_SURE = 0.995  # a probability that is written as 100 %


def parameters(
    found: Any,
    *,
    id: Any = None,
    model: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    levels: Any = None,
    specification: str | None = None,
    target: str | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Parameters of one series with their intervals, those of several models below one another.

    Standard deviations share a panel with a logarithmic axis, dampings and coefficients another,
    and so does what a series has or has not, of which no more than its probability is known.
    Right of a parameter that a series may not have stands how probable it is.

    Args:
        found: What ``parameters`` returned.
        id: Series; None where there is only one.
        model: Model, or models, to draw; None draws all.
        names: Parameters to draw; None draws all.
        levels: Levels of the intervals in per cent; None takes all there are.
        specification: Specification, where each tells its own parameters.
        target: Target, where there are several that tell parameters.
        columns: Names of the columns.
        axes: Axes to draw on, in reading order; None stacks new ones.

    Returns:
        The axes of the panels from top to bottom, one-dimensional.

    Raises:
        DataError: If columns, series, levels or parameters are not there, or if one of several
            series must be named.
    """
    rows = NamedFrame.of(found, columns, "found")
    rows.require(columns.id, "parameter", hint="draw what parameters returned")
    chosen = choose(id, rows.values(columns.id), "id", "found")
    rows = rows.where(columns.id, chosen)
    if "specification" in rows.names:
        among = rows.values("specification")
        rows = rows.where("specification", choose(specification, among, "specification", "found"))
    rows, _ = rows.about(target)
    models = models_of(rows.models(), model, "found")
    intervals = {one: rows.intervals(one) for one in models}
    drawn = drawn_levels(levels, intervals[models[0]], "found")
    there = rows.values("parameter")
    asked = there if names is None else [choose(n, there, "names", "found") for n in names]
    panels = _panels(rows, asked, models)
    count = [len(inside) for inside in panels.values()]
    height = 0.34 * max(1.0, 0.55 * len(models))
    axes, _ = grid(
        len(panels),
        across=1,
        panel=(7.5, height * sum(count) / len(count) + 0.55),
        axes=axes,
        ratios=[one + 0.5 for one in count],
    )
    entries: dict[str, Any] = {}
    for ax, (label, inside) in zip(axes, panels.items(), strict=True):
        for k, one in enumerate(models):
            ends = [(level, *intervals[one][level]) for level in drawn]
            place = (k - (len(models) - 1) / 2) / (len(models) + 0.6)
            sized = label != _PROBABILITY
            entries |= _draw(ax, rows, inside, one, ends, k, place, sized=sized)
        if label.startswith("standard"):
            ax.set_xscale("log")
        if label == _PROBABILITY:
            ax.set_xlim(-0.02, 1.02)
        ax.set_yticks(range(len(inside)), inside)
        ax.set_ylim(len(inside) - 0.45, -0.55)
        if ax.texts:
            ax.annotate("probability", (1.01, 1), xycoords="axes fraction", fontsize=8, color=GREY)
        tidy(ax, xlabel=label)
        ax.tick_params(axis="y", length=0)
    axes[0].set_title(f"{chosen}", loc="left", fontsize=10, color=INK)
    if len(models) > 1:
        entries = {one: entries[one] for one in models} | greyed(entries, models)
    legend(axes[0], entries)
    return axes


def _panels(rows: NamedFrame, names: Sequence[str], models: Sequence[str]) -> dict[str, list[str]]:
    """Which parameters share a panel, by what its axis says; what has no size stands last."""
    panels: dict[str, list[str]] = {}
    for name in names:
        own = str(name).rpartition(".")[2]
        one = rows.where("parameter", name)
        unsized = all(np.isnan(one.number(model)).all() for model in models)
        label = _PROBABILITY if unsized else _SHARED.get(own, own)
        panels.setdefault(label, []).append(name)
    if _PROBABILITY in panels:
        panels[_PROBABILITY] = panels.pop(_PROBABILITY)
    return panels


def _draw(
    ax: "Axes",
    rows: NamedFrame,
    names: Sequence[str],
    model: str,
    ends: Sequence[tuple[float, str, str]],
    k: int,
    place: float,
    *,
    sized: bool,
) -> dict[str, Any]:
    """Draws the intervals of one model, wide ones below narrow ones, and how probable each is.

    Of what has no size the probability is drawn itself.
    """
    from matplotlib.patches import Patch

    at = [rows.where("parameter", name) for name in names]

    def of(column: str) -> np.ndarray:
        return np.array([one.number(column)[0] for one in at])

    y = np.arange(len(names)) + place
    colors = tones(COLORS[k], len(ends))
    areas: dict[str, Any] = {}
    look: dict[str, Any] = {"color": COLORS[k], "marker": MARKERS[k], "linestyle": "", "ms": 5}
    if not sized:
        (drawn,) = ax.plot(of(f"{model}-probability"), y, mec="white", mew=0.6, **look)
        return {model: drawn}
    for rank, (level, low, high) in reversed(list(enumerate(ends))):
        width = 7 - 2.5 * rank if len(ends) > 1 else 5
        look = {"color": colors[rank], "linewidth": max(width, 2), "zorder": 1 - 0.01 * rank}
        ax.hlines(y, of(low), of(high), **look)
        areas = {f"{level:g} %": Patch(color=colors[rank]), **areas}
    look = {"color": COLORS[k], "marker": MARKERS[k], "linestyle": "", "ms": 5, "zorder": 3}
    (drawn,) = ax.plot(of(model), y, mec="white", mew=0.6, **look)
    if (probability := f"{model}-probability") in rows.names:
        for value, height in zip(of(probability), y, strict=True):
            if value < _SURE:
                text, at_end = f"{100 * value:.0f} %", (1.01, height)
                look = {"xycoords": ("axes fraction", "data"), "va": "center"}
                ax.annotate(text, at_end, fontsize=8, color=GREY, **look)
    return {model: drawn, **areas}
