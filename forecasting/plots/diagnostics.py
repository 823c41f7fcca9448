"""Diagnostics: do innovations look like independent standard normal numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.engines.latent.residuals import correlogram
from seqlatent.forecasting.errors import ColumnError, TargetError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import DEFAULT, NamedFrame, choose, listed
from seqlatent.forecasting.plots.style import (
    COLORS,
    GREY,
    INK,
    broken,
    grid,
    tidy,
    time_axis,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["diagnostics"]

_DOTS = 400  # points of a quantile plot that are drawn


def diagnostics(
    innovations: Any,
    *,
    model: str | None = None,
    id: Any = None,
    target: str | None = None,
    lags: int | None = None,
    columns: Columns = DEFAULT,
    axes: Any = None,
) -> np.ndarray:
    """Four looks at innovations: over time, their density, their quantiles, their correlogram.

    Grey is what independent standard normal numbers would do: 95 % of them lie in the band of the
    first panel, 95 % of the points in that of the third and of the bars in that of the fourth. Of
    several series the first panel has the 5 %, 50 % and 95 % quantiles in stretches of time, beside
    lines where they should be.

    Args:
        innovations: What ``innovations`` returned.
        model: Model; None where there is only one.
        id: Series; None takes all together.
        target: Target; None takes all together.
        lags: Lags of the correlogram; None chooses.
        columns: Names of the columns.
        axes: Four axes to draw on, in reading order; None makes new ones.

    Returns:
        The four axes.

    Raises:
        DataError: If columns or series are not there, or there are too few innovations.
    """
    rows = NamedFrame.of(innovations, columns, "innovations")
    there = [n.removesuffix("-innovation") for n in rows.names if n.endswith("-innovation")]
    if not there:
        raise ColumnError(
            f"innovations must have a column '<model>-innovation', found {listed(rows.names)}; "
            "draw what Forecaster.innovations returned."
        )
    model = choose(model, there, "model", "innovations")
    name = f"{model}-innovation"
    if target is not None and rows.targets:
        rows = rows.about(target)[0]
    rows = rows if id is None else rows.series(id)
    series = _series(rows, name)
    times, z = rows.times(), rows.number(name)
    seen = np.isfinite(z)
    if seen.sum() < 5:
        raise TargetError(
            f"column {name!r} must have at least 5 values, found {int(seen.sum())}.", column=name
        )
    axes, _ = grid(4, across=2, panel=(5.0, 2.7), axes=axes)
    if len(series) == 1:
        _over_time(axes[0], times.x, z)
        only = id if id is not None else rows.values(columns.id)[0]
        title = f"{only}: innovations of {model}"
    else:
        _stretches(axes[0], times.x[seen], z[seen])
        title = f"innovations of {model}, {len(series)} series"
    time_axis(axes[0], times, columns.time, ticks=6)
    tidy(axes[0], title=title, xlabel=axes[0].get_xlabel(), ylabel="standard deviations")
    _density(axes[1], z[seen])
    _quantiles(axes[2], np.sort(z[seen]))
    longest = max(len(one) for one in series)
    lags = max(1, min(24, longest // 5)) if lags is None else lags
    _correlogram(axes[3], series, lags)
    return axes


def _series(rows: NamedFrame, name: str) -> list[np.ndarray]:
    """Innovations of each series, and target, in the order of time."""
    found = []
    for target in rows.targets or [None]:
        part = rows if target is None else rows.about(target)[0]
        ids = part.frame[part.columns.id].to_numpy()
        _, code = np.unique(ids.astype(str), return_inverse=True)
        order = np.lexsort((part.times().x, code))
        z = part.number(name)[order]
        found += np.split(z, np.flatnonzero(np.diff(code[order])) + 1)
    return found


def _over_time(ax: "Axes", x: np.ndarray, z: np.ndarray) -> None:
    ax.axhspan(-1.96, 1.96, color=tint(INK, 0.1), linewidth=0, zorder=0)
    ax.axhline(0, color=GREY, linewidth=0.7, zorder=0.5)
    order = np.argsort(x, kind="stable")
    x, z = x[order], z[order]
    ax.plot(*broken(x, z), color=tint(COLORS[0], 0.5), linewidth=0.7, zorder=2)
    out = np.abs(z) > 1.96
    size = 5 if len(z) <= 150 else 3
    ax.plot(x[~out], z[~out], ".", color=COLORS[0], ms=size, mew=0, zorder=3)
    ax.plot(x[out], z[out], ".", color=COLORS[1], ms=size + 2, mew=0, zorder=4)
    ax.margins(x=0.01)


def _stretches(ax: "Axes", x: np.ndarray, z: np.ndarray) -> None:
    """Quantiles of all series in stretches of time that hold equally many of them."""
    levels = np.array([0.05, 0.5, 0.95])
    for level, value in zip(levels, (-1.645, 0.0, 1.645), strict=True):
        ax.axhline(value, color=GREY, linewidth=0.8, zorder=0.5)
        ax.annotate(
            f"{100 * level:g} %", (1, value), xycoords=("axes fraction", "data"), fontsize=8,
            color=GREY, ha="left", va="center", xytext=(3, 0), textcoords="offset points",
        )  # fmt: skip
    order = np.argsort(x, kind="stable")
    x, z = x[order], z[order]
    if len(z) <= 4000:
        ax.plot(x, z, ".", color=tint(COLORS[0], 0.4), ms=3, mew=0, zorder=1)
    parts = max(1, min(40, len(z) // 60))
    middle, found = [], []
    for part in np.array_split(np.arange(len(z)), parts):
        middle.append(x[part].mean())
        found.append(np.quantile(z[part], levels))
    for k, quantile in enumerate(np.array(found).T):
        ax.plot(middle, quantile, color=COLORS[0], linewidth=1.6 if k == 1 else 1.2, zorder=3)
    most = max(3.0, float(np.quantile(np.abs(z), 0.995)))
    ax.set_ylim(-1.1 * most, 1.1 * most)


def _density(ax: "Axes", z: np.ndarray) -> None:
    most = max(3.5, float(np.quantile(np.abs(z), 0.99)) * 1.1)
    bins = int(np.clip(2 * len(z) ** (1 / 3), 8, 40))
    edges = np.linspace(-most, most, 2 * (bins // 2) + 2)
    heights = np.histogram(np.clip(z, -most, most), edges)[0] / len(z) / np.diff(edges)
    ax.stairs(heights, edges, fill=True, color=tint(COLORS[0], 0.4), zorder=1)
    grid = np.linspace(-most, most, 200)
    curve = np.exp(-(grid**2) / 2) / (2 * np.pi) ** 0.5
    ax.plot(grid, curve, color=INK, linewidth=1.2, zorder=3, label="standard normal")
    ax.set_xlim(-most, most)
    ax.set_ylim(0, 1.2 * max(0.4, heights.max()))
    ax.legend(loc="upper right", frameon=False, fontsize=9)
    tidy(ax, title="density", xlabel="innovation")


def _quantiles(ax: "Axes", z: np.ndarray) -> None:
    """Sorted innovations against where those of a standard normal distribution lie."""
    from scipy.special import ndtri
    from scipy.stats import beta

    n = len(z)
    rank = np.arange(1, n + 1)
    if n > _DOTS:  # all of the tails, some of the middle
        ends = _DOTS // 4
        middle = np.linspace(ends + 1, n - ends, _DOTS // 2).round().astype(int)
        rank = np.unique(np.concatenate([rank[:ends], middle, rank[-ends:]]))
    expected = ndtri((rank - 0.5) / n)
    low, high = (ndtri(beta.ppf(tail, rank, n + 1 - rank)) for tail in (0.025, 0.975))
    ax.fill_between(expected, low, high, color=tint(INK, 0.13), linewidth=0, zorder=0)
    ax.plot(expected[[0, -1]], expected[[0, -1]], color=GREY, linewidth=0.8, zorder=0.5)
    ax.plot(expected, z[rank - 1], ".", color=COLORS[0], ms=4, mew=0, zorder=3)
    tidy(ax, title="quantiles", xlabel="standard normal", ylabel="innovations")


def _correlogram(ax: "Axes", series: list[np.ndarray], lags: int) -> None:
    width = max(len(one) for one in series)
    padded = np.full((len(series), width), np.nan)
    for row, one in zip(padded, series, strict=True):
        row[: len(one)] = one
    r, pairs = correlogram(padded, lags)
    lag = np.arange(1, lags + 1)
    edge = 1.96 / np.maximum(pairs, 1) ** 0.5
    ax.fill_between(
        np.r_[0.4, lag, lags + 0.6], -np.r_[edge[0], edge, edge[-1]],
        np.r_[edge[0], edge, edge[-1]], color=tint(INK, 0.13), linewidth=0, zorder=0,
    )  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.7, zorder=0.5)
    ax.vlines(lag, 0, r, color=COLORS[0], linewidth=2.2 if lags <= 30 else 1.2, zorder=3)
    ax.plot(lag, r, ".", color=COLORS[0], ms=5, mew=0, zorder=4)
    most = max(0.25, 1.25 * float(np.abs(r).max()), 1.4 * float(edge.max()))
    ax.set(xlim=(0.4, lags + 0.6), ylim=(-most, most))
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    tidy(ax, title="autocorrelation", xlabel="lag")
