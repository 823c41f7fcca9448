"""Outputs: what forecasts, states, draws and scores look like as columns of a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from seqlatent.forecasting.columns import Columns
from seqlatent.forecasting.engine import Scores, Smoothed
from seqlatent.forecasting.panel import Panel
from seqlatent.forecasting.style import as_given

__all__ = [
    "columns_to_dict",
    "forecast_columns",
    "head",
    "imputed",
    "interval",
    "scored",
    "smoothed",
]

Data = dict[str, np.ndarray]


def interval(level: int | float) -> tuple[float, float]:
    """Levels of the quantiles at both ends of a central interval, given in percent."""
    return round(0.5 - level / 200, 10), round(0.5 + level / 200, 10)


def head(columns: Columns, ids: np.ndarray, stamps: np.ndarray, n: int | None = None) -> Data:
    """The columns that say what each row of a forecast is about: series, step, target, path."""
    batch, horizon = stamps.shape
    copies, width = (1 if n is None else n), len(columns.targets)
    data = {
        columns.id: np.repeat(ids, copies * horizon * width),
        columns.time: np.repeat(np.repeat(stamps, copies, 0).reshape(-1), width),
    }
    if width > 1:
        data["target"] = np.tile(_names(columns.targets), batch * copies * horizon)
    if n is not None:
        data[columns.sample] = np.tile(np.repeat(np.arange(n), horizon * width), batch)
    return data


def forecast_columns(
    alias: str,
    at: Mapping[float, np.ndarray],
    mean: np.ndarray,
    levels: Sequence[int | float],
    quantiles: Sequence[int | float],
) -> Data:
    """Median, mean, intervals and quantiles of one model."""
    data = {alias: at[0.5], f"{alias}-mean": mean}
    for level in levels:
        low, high = interval(level)
        data[f"{alias}-lo-{level:g}"] = at[low]
        data[f"{alias}-hi-{level:g}"] = at[high]
    return data | {f"{alias}_ql{q:g}": at[q] for q in quantiles}


def smoothed(
    columns: Columns, panel: Panel, alias: str, states: Smoothed, levels: Sequence[int | float]
) -> Data:
    """One row per series, time and name; rows that only fill a gap come too."""
    rows = np.repeat(np.arange(panel.rows), len(states.names))
    name = np.tile(np.arange(len(states.names)), panel.rows)
    there = ~np.isnan(states.mean.reshape(-1))
    rows, name = rows[there], name[there]
    mean, scale = states.mean[rows, name], states.scale[rows, name]
    data = _rows(columns, panel, rows) | {
        "model": np.full(len(rows), alias, dtype=object),
        "kind": _names(states.kinds)[name],
        "name": _names(states.names)[name],
        "mean": mean,
    }
    for level in levels:
        z = float(torch.special.ndtri(torch.tensor(interval(level)[1], dtype=torch.float64)))
        data[f"lo-{level:g}"] = mean - z * scale
        data[f"hi-{level:g}"] = mean + z * scale
    return data


def imputed(columns: Columns, panel: Panel, draws: np.ndarray, complete: bool) -> Data:
    """One row per draw and cell that is missing, or per draw and cell."""
    n, width = len(draws), panel.y.shape[1]
    wanted = np.ones_like(panel.y, dtype=bool) if complete else np.isnan(panel.y)
    r, d = np.nonzero(wanted)
    data = _rows(columns, panel, np.tile(r, n))
    if width > 1:
        data["target"] = _names(columns.targets)[np.tile(d, n)]
    data[columns.sample] = np.repeat(np.arange(n), len(r))
    data[columns.targets[0] if width == 1 else "y"] = draws[:, r, d].reshape(-1)
    return data


def scored(columns: Columns, panel: Panel, scores: Mapping[str, Scores]) -> Data:
    """The rows as they came, each with its scores."""
    rows, width = as_given(panel), panel.y.shape[1]
    data = _rows(columns, panel, np.repeat(rows, width))
    if width > 1:
        data["target"] = np.tile(_names(columns.targets), len(rows))
    data[columns.targets[0] if width == 1 else "y"] = panel.y[rows].reshape(-1)
    for alias, found in scores.items():
        data[f"{alias}-log_score"] = np.repeat(found.log_score[rows], width)
        data[f"{alias}-pit"] = found.pit[rows].reshape(-1)
    return data


def columns_to_dict(columns: Columns) -> dict[str, Any]:
    """Arguments of the columns, for JSON."""
    return {k: v for k, v in asdict(columns).items() if k != "targets"}


def _rows(columns: Columns, panel: Panel, rows: np.ndarray) -> Data:
    return {
        columns.id: panel.ids[panel.owner[rows]],
        columns.time: panel.clock.stamps(panel.t[rows]),
    }


def _names(names: Sequence[str]) -> np.ndarray:
    return np.array(list(names), dtype=object)
