"""Windows, the last rows of each series up to its last value: what a forecast reads."""

from collections.abc import Sequence

import numpy as np

from seqlatent.forecasting.frames.panel import Panel

__all__ = ["cut"]

State = dict[str, np.ndarray]
"""Last rows ``y`` ``(N, D, W)``, how many rows ``age`` without a value came after them ``(N, D)``,
and the time ``last`` of the last row ``(N,)``; where covariates are read, those ``u`` of the rows
with a value, NaN for others ``(N, D, U, W)``. Windows end with a value, and have NaN in front where
there are fewer rows; a target without any value has nothing but NaN, and no age."""

_WINDOWS = ("y", "u")
_SOME = 4096  # windows that are cut at a time


def state_of(panel: Panel, length: int, covariates: bool = False) -> State:
    """State after all rows of a panel, of which ``length`` may be read."""
    last = panel.offsets[1:] - 1
    n, targets, width = panel.batch, panel.y.shape[1], int(min(length, panel.lengths.max()))
    y, age = np.empty((n, targets, width)), np.zeros((n, targets), np.int64)
    state = {"y": y, "age": age, "last": panel.last}
    if covariates:
        state["u"] = np.empty((n, targets, panel.future.shape[1], width))
    for d in range(targets):
        end = last_seen(panel, d)[last]
        known = end >= 0
        age[:, d] = np.where(known, last - end, 0)
        end = np.where(known, end, last)
        y[:, d] = cut(panel, panel.y[:, d], end, width)
        if covariates:
            state["u"][:, d] = cut_covariates(panel, end, y[:, d])
    return state


def followed(state: State, panel: Panel, length: int) -> State:
    """State after the rows of a panel, which follow."""
    old, age = state["y"], state["age"]
    first = panel.offsets[:-1]
    seen = [last_seen(panel, d)[panel.offsets[1:] - 1] for d in range(old.shape[1])]
    place = np.stack([np.where(end >= 0, end - first, -1) for end in seen], 1)  # last new value
    shift = np.where(place >= 0, age + place + 1, 0)
    width = int(min(length, old.shape[2] + shift.max()))
    names = [name for name in _WINDOWS if name in state]
    held = {name: np.empty((*state[name].shape[:-1], width)) for name in names}
    for d in range(old.shape[1]):
        for i in _parts(len(old)):
            rows = age[i, d], first[i], place[i, d]
            y = held["y"][i, d] = _moved(widened(old[i, d], width), panel.y[:, d], *rows)
            for k in range(panel.future.shape[1] if "u" in held else 0):
                before = widened(state["u"][i, d, k], width)
                u = _moved(before, panel.future[:, k], *rows)
                held["u"][i, d, k] = np.where(np.isnan(y), np.nan, u)
    blank = np.isnan(old).all(2)
    waited = np.where(blank, 0, age + panel.lengths[:, None])
    since = panel.lengths[:, None] - 1 - place
    return {**held, "age": np.where(place >= 0, since, waited), "last": panel.last}


def _moved(
    old: np.ndarray, values: np.ndarray, age: np.ndarray, first: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Windows ``(S, W)`` that end with the new values at ``place``, or as they did where -1."""
    width = old.shape[1]
    back = np.arange(width - 1, -1, -1)
    new = place[:, None] - back  # number among the new rows
    # places in the old window, of rows before the new ones: those of its age have no value
    there = np.where(place[:, None] >= 0, width + age[:, None] + new, width - 1 - back)
    past = np.take_along_axis(old, np.clip(there, 0, width - 1), 1)
    past = np.where((there >= 0) & (there < width), past, np.nan)
    rows = values[first[:, None] + np.maximum(new, 0)]
    return np.where(new >= 0, rows, past)


def join(states: Sequence[State]) -> State:
    """States of the same targets, as wide as the widest."""
    width = max(state["y"].shape[2] for state in states)
    widths = [
        {name: widened(x, width) if name in _WINDOWS else x for name, x in state.items()}
        for state in states
    ]
    return {name: np.concatenate([state[name] for state in widths]) for name in states[0]}


def widened(y: np.ndarray, width: int) -> np.ndarray:
    """Windows ``(..., W)`` with NaN in front."""
    lack = width - y.shape[-1]
    if lack <= 0:
        return y
    return np.pad(y, [(0, 0)] * (y.ndim - 1) + [(lack, 0)], constant_values=np.nan)


def cut(panel: Panel, rows: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """Windows ``(S, W, ...)`` of what rows hold ``(R, ...)``, that end with some rows ``(S,)``."""
    found = np.empty((len(end), width, *rows.shape[1:]))
    back = np.arange(width - 1, -1, -1)
    start = panel.offsets[np.searchsorted(panel.offsets, end, side="right") - 1]
    for i in _parts(len(end)):
        row = end[i, None] - back
        inside = row >= start[i, None]
        found[i] = rows[np.where(inside, row, 0)]
        found[i][~inside] = np.nan
    return found


def cut_covariates(panel: Panel, end: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Covariates ``(S, U, W)`` of windows ``(S, W)`` that end with some rows ``(S,)``.

    Those of rows without a value are NaN.
    """
    u = np.moveaxis(cut(panel, panel.future, end, y.shape[1]), 2, 1)
    return np.where(np.isnan(y)[:, None], np.nan, u)


def last_seen(panel: Panel, d: int) -> np.ndarray:
    """The row of the last value of its series up to each row, -1 for none ``(R,)``."""
    rows = np.arange(panel.rows)
    found = np.maximum.accumulate(np.where(np.isnan(panel.y[:, d]), -1, rows))
    return np.where(found >= panel.offsets[panel.owner], found, -1)


def _parts(n: int) -> list[slice]:
    return [slice(i, i + _SOME) for i in range(0, n, _SOME)]
