"""Spaghetti: joint sample paths, of the future or through the gaps of the past."""

from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.plots.named_frame import DEFAULT, NamedFrame, choose
from seqlatent.forecasting.plots.past import LEAST, Past, draw_past, past_of
from seqlatent.forecasting.plots.style import COLORS, legend, line, new_axes, tidy, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["spaghetti"]


def spaghetti(
    history: Any,
    samples: Any,
    *,
    model: str | None = None,
    id: Any = None,
    target: str | None = None,
    paths: int = 50,
    path: Any = None,
    truth: Any = None,
    last: int | None = None,
    columns: Columns = DEFAULT,
    ax: "Axes | None" = None,
) -> "Axes":
    """Sample paths of one series after its history, one of them emphasised.

    Bands say where each step lies; a path says how steps hang together. What ``impute`` returned is
    drawn into the gaps of the history.

    Args:
        history: What was observed, as given to ``fit``.
        samples: What ``sample`` or ``impute`` returned.
        model: Model; None where there is only one.
        id: Series; None where there is only one.
        target: Target; None where there is only one.
        paths: How many paths to draw, the first ones.
        path: Sample to emphasise; None takes the first.
        truth: Frame like ``history`` of what came after.
        last: Rows of history to show; None shows three horizons and at least 50, or all around
            imputed gaps.
        columns: Names of the columns.
        ax: Axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        DataError: If columns or series are not there, or if one of several series, targets or
            models must be named.
    """
    rows = NamedFrame.of(samples, columns, "samples")
    rows.require(columns.sample, hint="draw what sample or impute returned")
    series = choose(id, rows.values(columns.id), "id", "samples")
    rows, name = rows.about(target)
    imputed = next((own for own in (name, "y") if own in rows.names), None)
    what = imputed or choose(model, rows.models(), "model", "samples")
    rows = rows.series(series)
    numbers = rows.values(columns.sample)
    chosen = numbers[0] if path is None else choose(path, numbers, "path", "samples")
    x, steps = np.unique(rows.times().x, return_inverse=True)
    values = _matrix(rows, what, steps, numbers)
    known = NamedFrame.observed(history, columns, "history")
    after = None if truth is None else NamedFrame.observed(truth, columns, "truth")
    first = np.inf if imputed else x[0]
    last = max(LEAST, 3 * len(x)) if last is None and not imputed else last
    past = past_of(known, series, name, first=first, last=last, like=rows.times(), truth=after)
    if imputed:
        x, values = _into_gaps(past, x, values)

    ax = new_axes((9, 3.6)) if ax is None else ax
    others = [place for place, number in enumerate(numbers) if number != chosen]
    others = others[: max(paths - 1, 0)]
    whose = "" if imputed else f" of {what}"
    entries = _draw_paths(ax, x, values, numbers.index(chosen), others, whose)
    entries = draw_past(ax, past, [] if imputed else [float(x[0])]) | entries
    time_axis(ax, rows.times(), columns.time)
    ax.margins(x=0.01)
    title = f"{series}, {name}" if rows.targets else f"{series}"
    tidy(ax, title=title, xlabel=ax.get_xlabel(), ylabel=name)
    legend(ax, entries)
    return ax


def _matrix(rows: NamedFrame, name: str, steps: np.ndarray, numbers: list[Any]) -> np.ndarray:
    """Paths one below the other, NaN where one has no row."""
    place = {number: at for at, number in enumerate(numbers)}
    at = np.array([place[number] for number in rows.frame[rows.columns.sample].to_list()])
    taken = at * (steps.max() + 1) + steps
    if len(np.unique(taken)) < len(taken):
        raise ColumnError(
            f"samples must have one row for each id, {rows.columns.time} and "
            f"{rows.columns.sample}, found several; a frame of windows is drawn one at a time.",
            column=rows.columns.sample,
        )
    values = np.full((len(numbers), int(steps.max()) + 1), np.nan)
    values[at, steps] = rows.number(name)
    return values


def _into_gaps(past: Past, x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins imputed values to their observed neighbours, and leaves out the rest."""
    seen = np.isfinite(past.y)
    every = np.union1d(past.x, x[x >= past.x[0]] if len(past.x) else x)
    full = np.full((len(values), len(every)), np.nan)
    within = np.isin(x, every)
    full[:, np.searchsorted(every, x[within])] = values[:, within]
    observed = np.searchsorted(every, past.x[seen])
    full[:, observed] = past.y[seen]
    missing = np.ones(len(every) + 2, dtype=bool)
    missing[observed + 1] = False
    missing[[0, -1]] = False
    full[:, ~(missing[1:-1] | missing[:-2] | missing[2:])] = np.nan
    return every, full


def _draw_paths(
    ax: "Axes", x: np.ndarray, values: np.ndarray, emphasised: int, others: list[int], whose: str
) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.6, "zorder": 3}
    entries: dict[str, Any] = {f"one path{whose}": line(ax, x, values[emphasised], **look)}
    # the more paths there are, the lighter each
    alpha = float(np.clip(10 / max(len(others), 1), 0.15, 0.5))
    look = {"color": COLORS[0], "linewidth": 0.7}
    for place in others:
        line(ax, x, values[place], alpha=alpha, zorder=2, **look)
    if others:
        entries[f"{len(others)} more"] = Line2D([], [], alpha=0.6, **look)
    return entries
