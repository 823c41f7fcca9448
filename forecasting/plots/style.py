"""Style of the pictures: colours, lines and axes, set on what is drawn and nowhere else."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = []

# Okabe and Ito's colours, distinguishable by all; lines and markers say the same in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY = "#1a1a1a", "#777777"


class TimeAxis(NamedTuple):
    """Time stamps as positions on an axis.

    Attributes:
        x: Numbers as they are, or days since 1970 in UTC ``(R,)``.
        date: Whether they are dates.
        zone: Time zone of the dates, or None.
    """

    x: np.ndarray
    date: bool
    zone: str | None


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """Mixes a colour with white; opaque, so that it prints the same everywhere."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def tones(color: str, count: int) -> list[tuple[float, float, float]]:
    """Tints of nested bands, from the narrowest, which is the darkest."""
    strengths = np.linspace(0.5, 0.2, count) if count > 1 else [0.3]
    return [tint(color, float(strength)) for strength in strengths]


def new_axes(size: Sequence[float | int]) -> "Axes":
    """Axes on a figure of their own that pyplot does not know."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0], size[1]), dpi=120, layout="constrained")
    return figure.subplots()


def grid(
    count: int,
    *,
    across: int,
    panel: Sequence[float | int],
    axes: Any = None,
    sharex: bool = False,
    ratios: Sequence[float] | None = None,
) -> tuple[np.ndarray, "Figure | None"]:
    """Axes for a number of panels ``(count,)``, and their figure if it is new.

    Raises:
        ValueError: If axes were given, but not enough.
    """
    if axes is not None:
        given = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(given) < count:
            raise ValueError(f"axes must be enough for {count} panels, found {len(given)}.")
        return given[:count], None
    from matplotlib.figure import Figure

    across = min(across, count)
    down = -(-count // across)
    size = (panel[0] * across, panel[1] * down + 0.6)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    made = figure.subplots(down, across, squeeze=False, sharex=sharex, height_ratios=ratios).ravel()
    for spare in made[count:]:
        spare.remove()
    return made[:count], figure


def share_scale(axes: np.ndarray, across: int) -> None:
    """Gives the panels of each series one scale."""
    for start in range(0, len(axes), across):
        row = axes[start : start + across]
        limits = np.array([ax.get_ylim() for ax in row])
        for ax in row:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def tidy(ax: "Axes", *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Leaves of the frame what is read, and names the axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelsize=9)
    ax.set_xlabel(xlabel, fontsize=10)
    ax.set_ylabel(ylabel, fontsize=10)
    if title:
        ax.set_title(title, loc="left", fontsize=10, color=INK)


def time_axis(ax: "Axes", times: TimeAxis, label: str, *, ticks: int = 8) -> None:
    """Marks the dates concisely, or the integers as integers, and names the axis."""
    if not times.date:
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
        ax.set_xlabel(label, fontsize=10)
        return
    from zoneinfo import ZoneInfo

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    zone = None
    if times.zone is not None:
        try:
            zone = ZoneInfo(times.zone)
        except (KeyError, ValueError, OSError):  # fixed offsets have no name that all know
            zone = ZoneInfo("UTC")
        label = f"{label} ({zone.key})"
    ax.xaxis_date(zone)
    locator = AutoDateLocator(zone, minticks=3, maxticks=ticks)
    ax.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, zone)
    ax.xaxis.set_major_formatter(formatter)
    ax.xaxis.get_offset_text().set_fontsize(9)
    ax.set_xlabel(label, fontsize=10)


def broken(x: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Puts NaN where rows are absent, so that no line is drawn across a gap.

    A gap is absent rows if it is well above nearly all others: weekends are none.
    """
    gaps = np.diff(x)
    if len(gaps) < 3:
        return x, *values
    absent = np.flatnonzero(gaps > 1.5 * np.quantile(gaps, 0.9)) + 1
    middle = (x[absent - 1] + x[absent]) / 2
    return np.insert(x, absent, middle), *(np.insert(value, absent, np.nan) for value in values)


def line(ax: "Axes", x: np.ndarray, y: np.ndarray, **look: Any) -> Any:
    """Draws a line with its gaps; values alone between gaps become dots, and are seen."""
    x, y = broken(x, y)
    (drawn,) = ax.plot(x, y, **look)
    there = np.concatenate([[False], np.isfinite(y), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    if alone.any():
        dots = {key: value for key, value in look.items() if key in ("color", "zorder", "alpha")}
        ax.plot(x[alone], y[alone], ".", ms=4, **dots)
    return drawn


def band(ax: "Axes", x: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> Any:
    """Fills between two ends; a single step becomes a bar as wide as ``width``."""
    width = look.pop("width", 0.8)
    if len(x) == 1:
        x, low, high = x + np.array([-width / 2, width / 2]), low.repeat(2), high.repeat(2)
    else:
        x, low, high = broken(x, low, high)
    return ax.fill_between(x, low, high, **{"linewidth": 0, **look})


def greyed(entries: dict[str, Any], models: list[str]) -> dict[str, Any]:
    """What a legend shows of panels that name their models: bands of any hue."""
    from matplotlib.patches import Patch

    levels = [label for label in entries if label.endswith(" %")]
    shades = dict(zip(levels, tones(GREY, len(levels)), strict=True))
    kept = {label: entry for label, entry in entries.items() if label not in {*models, *levels}}
    return kept | {label: Patch(color=shade) for label, shade in shades.items()}


def legend(ax: "Axes", entries: dict[str, Any], *, figure: "Figure | None" = None) -> None:
    """Puts a legend above the right end of the axes, or of the figure if it is given.

    It shares the line with the title if there is room for both, else the title moves up.
    """
    size = ax.get_window_extent() if figure is None else figure.bbox
    room = size.width / ax.figure.dpi * 72
    # widths in points, of letters and handles in the size below
    widths = [5.2 * len(label) + 34 for label in entries]
    ncols = (
        min(len(entries), max(1, int(room / max(widths)))) if sum(widths) > room else len(widths)
    )
    look: dict[str, Any] = {
        "ncols": ncols,
        "frameon": False,
        "fontsize": 9,
        "handlelength": 1.6,
        "handletextpad": 0.5,
        "columnspacing": 1.4,
        "borderaxespad": 0.1,
    }
    handles, labels = list(entries.values()), list(entries)
    if figure is not None:
        figure.legend(handles, labels, loc="outside upper right", **look)
        return
    ax.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), **look)
    title = ax.get_title("left")
    rows = -(-len(labels) // ncols)
    if rows > 1 or sum(widths) + 6 * len(title) > room:
        ax.set_title(title, loc="left", fontsize=10, color=INK, pad=6 + 14 * rows)
