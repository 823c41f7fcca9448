"""Calibration: do bands hold as much as they say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.errors import ColumnError, TargetError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import (
    DEFAULT,
    NamedFrame,
    drawn_levels,
    listed,
    models_of,
)
from seqlatent.forecasting.plots.style import (
    COLORS,
    GREY,
    INK,
    LINES,
    MARKERS,
    legend,
    new_axes,
    tidy,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["pit_histogram", "reliability"]


def pit_histogram(
    scores: Any,
    *,
    model: str | Sequence[str] | None = None,
    id: Any = None,
    target: str | None = None,
    bins: int = 10,
    columns: Columns = DEFAULT,
    ax: "Axes | None" = None,
) -> "Axes":
    """Histogram of the probability integral transforms of what was observed.

    It is flat if the predictive distributions are right; bars high at both ends say that they are
    too narrow, in the middle too wide, on one side biased. The grey band holds 95 % of the bars of
    a calibrated model, as many as there are cells, one independent of the other.

    Args:
        scores: What ``score`` returned.
        model: Model, or models, to draw; None draws all.
        id: Series; None takes all together.
        target: Target; None takes all together.
        bins: Number of bars.
        columns: Names of the columns.
        ax: Axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        DataError: If columns or series are not there, or values lie outside 0 and 1.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, found {bins}; 10 suit most.")
    rows = _selected(scores, columns, "scores", id, target)
    there = [name.removesuffix("-pit") for name in rows.names if name.endswith("-pit")]
    if not there:
        raise ColumnError(
            f"scores must have a column '<model>-pit', found {listed(rows.names)}; "
            "draw what score returned."
        )
    models = models_of(there, model, "scores")
    pits = {one: _pits(rows, f"{one}-pit") for one in models}
    ax = new_axes((5.2, 3.2)) if ax is None else ax
    edges = np.linspace(0, 1, bins + 1)
    fewest = min(len(values) for values in pits.values())
    low, high = _binomial(fewest, np.array([1 / bins]))
    low, high = low * bins, high * bins
    entries: dict[str, Any] = {}
    entries["calibrated (95 %)"] = ax.axhspan(
        float(low[0]), float(high[0]), color=INK, alpha=0.13, linewidth=0, zorder=1
    )
    ax.axhline(1, color=GREY, linewidth=0.8, zorder=1.5)
    tallest = float(high[0])
    for at, (one, values) in enumerate(pits.items()):
        heights = np.histogram(values, edges)[0] * bins / len(values)
        tallest = max(tallest, heights.max())
        alone = len(pits) == 1
        if alone:
            look = {"color": tint(COLORS[0], 0.5), "edgecolor": "white", "linewidth": 1}
            ax.bar(edges[:-1], heights, 1 / bins, align="edge", zorder=0.2, **look)
        entries[one] = ax.stairs(
            heights,
            edges,
            color=COLORS[at],
            linestyle=LINES[at],
            linewidth=1.6,
            baseline=None,
            zorder=3,
        )
    ax.set(xlim=(0, 1), ylim=(0, 1.05 * tallest), xticks=[0, 0.25, 0.5, 0.75, 1])
    tidy(ax, xlabel="probability integral transform", ylabel="density")
    legend(ax, entries)
    return ax


def reliability(
    cv: Any,
    *,
    model: str | Sequence[str] | None = None,
    levels: Any = None,
    id: Any = None,
    target: str | None = None,
    columns: Columns = DEFAULT,
    ax: "Axes | None" = None,
) -> "Axes":
    """Share of what was observed that central intervals held, against their level.

    Below the diagonal a model is too sure. The grey band holds 95 % of the points of a calibrated
    model, as many as there are cells, one independent of the other; steps of one forecast are not,
    so that points a little outside prove nothing.

    Args:
        cv: What ``cross_validation`` returned, or forecasts with a column of the target.
        model: Model, or models, to draw; None draws all that have intervals.
        levels: Levels in per cent; None takes all there are.
        id: Series; None takes all together.
        target: Target; None takes all together.
        columns: Names of the columns.
        ax: Axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        DataError: If columns, series or levels are not there, or nothing was observed.
    """
    rows = _selected(cv, columns, "cv", id, target)
    truth = next((name for name in (columns.targets[0], "y") if name in rows.names), None)
    if truth is None:
        rows.require(columns.targets[0], hint="join what was observed to the forecasts")
    observed = rows.number(truth or columns.targets[0])
    there = [one for one in rows.models() if rows.intervals(one)]
    if not there:
        raise ColumnError(
            f"cv must have intervals, found {listed(rows.names)}; cross-validate with level=(50, "
            "80, 95)."
        )
    points: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    counts = []
    for one in models_of(there, model, "cv"):
        intervals = rows.intervals(one)
        chosen = drawn_levels(levels, intervals, f"the intervals of {one!r}")
        held = []
        for level in chosen:
            low, high = (rows.number(name) for name in intervals[level])
            known = np.isfinite(observed) & np.isfinite(low) & np.isfinite(high)
            if not known.any():
                raise TargetError(
                    f"cv must have observed values in column {truth!r} where {one!r} has "
                    "intervals, found none.",
                    column=truth,
                )
            counts.append(int(known.sum()))
            held.append(((low <= observed) & (observed <= high))[known].mean())
        points[one] = np.array(chosen), 100 * np.array(held)
    return _draw_reliability(new_axes((4.2, 4.2)) if ax is None else ax, points, min(counts))


def _draw_reliability(
    ax: "Axes", points: dict[str, tuple[np.ndarray, np.ndarray]], count: int
) -> "Axes":
    share = np.linspace(0, 1, 201)
    low, high = _binomial(count, share)
    look = {"color": tint(INK, 0.13), "linewidth": 0, "zorder": 0}
    entries: dict[str, Any] = {
        "calibrated (95 %)": ax.fill_between(100 * share, 100 * low, 100 * high, **look)
    }
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, zorder=0.5)
    for at, (one, (levels, held)) in enumerate(points.items()):
        (entries[one],) = ax.plot(
            levels,
            held,
            color=COLORS[at],
            linestyle=LINES[at],
            marker=MARKERS[at],
            ms=5,
            mec="white",
            mew=0.6,
            linewidth=1.4,
            zorder=3,
        )
    ticks = [0, 25, 50, 75, 100]
    ax.set(xlim=(0, 101), ylim=(0, 101), aspect="equal", xticks=ticks, yticks=ticks)
    tidy(ax, xlabel="level of the interval (%)", ylabel="observations inside (%)")
    ax.legend(list(entries.values()), list(entries), loc="best", frameon=False, fontsize=9)
    return ax


def _selected(frame: Any, columns: Columns, what: str, id: Any, target: str | None) -> NamedFrame:
    rows = NamedFrame.of(frame, columns, what)
    if target is not None and rows.targets:
        rows = rows.about(target)[0]
    return rows if id is None else rows.series(id)


def _pits(rows: NamedFrame, name: str) -> np.ndarray:
    values = rows.number(name)
    values = values[np.isfinite(values)]
    if not len(values):
        raise TargetError(f"column {name!r} must have values, found NaN only.", column=name)
    if values.min() < 0 or values.max() > 1:
        outside = values[(values < 0) | (values > 1)][0]
        raise TargetError(
            f"column {name!r} must lie between 0 and 1, found {outside:g}; draw what score "
            "returned.",
            column=name,
        )
    return values


def _binomial(count: int, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares between which 95 % of binomial shares lie."""
    if count > 2000:
        spread = 1.96 * np.sqrt(share * (1 - share) / count)
        return np.clip(share - spread, 0, 1), np.clip(share + spread, 0, 1)
    k = np.arange(1, count + 1)
    choices = np.concatenate([[0.0], np.cumsum(np.log((count - k + 1) / k))])
    inner = np.clip(share, 1e-12, 1 - 1e-12)[:, None]
    counts = np.arange(count + 1)
    log_mass = choices + counts * np.log(inner) + (count - counts) * np.log1p(-inner)
    below = np.cumsum(np.exp(log_mass), axis=-1)
    low, high = ((below < tail).sum(-1) / count for tail in (0.025, 0.975))
    return low, high
