"""Outputs: what forecasts, states, draws and scores look like as columns of a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from seqlatent.forecasting.arguments import ForecastOptions, interval
from seqlatent.forecasting.engines.contributions import Contributions
from seqlatent.forecasting.engines.engine import Breaks, Scores, Smoothed
from seqlatent.forecasting.engines.latent import residuals as innovations
from seqlatent.forecasting.engines.latent.components import named
from seqlatent.forecasting.engines.parameters import Parameters, in_order
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.output_format import as_given
from seqlatent.forecasting.frames.panel import Panel

__all__ = [
    "COMPONENTS",
    "DIAGNOSED",
    "PARAMETERS",
    "SMOOTHED",
    "Data",
    "broken",
    "columns_to_dict",
    "completed",
    "components",
    "diagnosed",
    "forecast_columns",
    "head",
    "imputed",
    "innovated",
    "parameters",
    "parts",
    "scored",
    "smoothed",
    "summarised",
]

Data = dict[str, np.ndarray]

# Columns of ours in the frames of some verbs, beside identifiers, stamps and bands.
SMOOTHED = ("target", "model", "kind", "name", "mean")
COMPONENTS = ("target", "model", "specification", "component", "scale", "mean")
PARAMETERS = ("target", "specification", "parameter")
DIAGNOSED = ("model", "target", "test", "lag", "n", "statistic", "p_value")


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
    options: ForecastOptions,
) -> Data:
    """Median, mean, intervals and quantiles of one model."""
    data = {alias: at[0.5], f"{alias}-mean": mean}
    for level in options.levels:
        low, high = interval(level)
        data[f"{alias}-lo-{level:g}"] = at[low]
        data[f"{alias}-hi-{level:g}"] = at[high]
    return data | {f"{alias}_ql{q:g}": at[q] for q in options.quantiles}


def smoothed(
    columns: Columns, panel: Panel, alias: str, states: Smoothed, levels: Sequence[int | float]
) -> Data:
    """One row per series, time and name; rows that only fill a gap come too."""
    rows = np.repeat(np.arange(panel.rows), len(states.names))
    name = np.tile(np.arange(len(states.names)), panel.rows)
    there = ~np.isnan(states.mean.reshape(-1)) & panel.open[rows]
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


def components(
    columns: Columns,
    panel: Panel,
    alias: str,
    found: Contributions,
    levels: Sequence[int | float],
    covariates: Sequence[str],
    *,
    specifications: bool,
) -> Data:
    """One row per series, time, target and component, where there is one."""
    names = [named(name, covariates) for name in found.names]
    data, bands, pick = _contributed(columns, panel, alias, found, levels)
    if specifications:
        data["specification"] = np.full(len(pick), found.specification, dtype=object)
    data |= {"component": _names(names)[pick], "scale": _names(found.scales)[pick]}
    return data | bands


def parts(
    columns: Columns,
    panel: Panel,
    alias: str,
    found: Contributions,
    levels: Sequence[int | float],
    covariates: Sequence[str],
) -> Data:
    """Components in the columns of :func:`smoothed`, without the irregular, which is no state."""
    data, bands, pick = _contributed(columns, panel, alias, found, levels)
    names = [named(name, covariates) for name in found.names]
    data |= {"kind": _names(found.kinds)[pick], "name": _names(names)[pick]} | bands
    kept = data["kind"] != "irregular"
    return {name: values[kept] for name, values in data.items()}


def _contributed(
    columns: Columns,
    panel: Panel,
    alias: str,
    found: Contributions,
    levels: Sequence[int | float],
) -> tuple[Data, Data, np.ndarray]:
    """Rows of components without their names, their bands, and which component each is about."""
    mean = found.mean.transpose(1, 2, 0)
    rows, target, pick = np.nonzero(~np.isnan(mean) & panel.open[:, None, None])
    data = _rows(columns, panel, rows)
    if panel.y.shape[1] > 1:
        data["target"] = _names(columns.targets)[target]
    data["model"] = np.full(len(rows), alias, dtype=object)
    bands = {"mean": mean[rows, target, pick]}
    for k, level in enumerate(levels):
        bands[f"lo-{level:g}"] = found.quantiles[pick, 2 * k, rows, target]
        bands[f"hi-{level:g}"] = found.quantiles[pick, 2 * k + 1, rows, target]
    return data, bands, pick


def parameters(
    columns: Columns,
    ids: np.ndarray,
    place: np.ndarray,
    found: Mapping[str, Sequence[Parameters]],
    levels: Sequence[int | float],
    *,
    specifications: bool,
) -> Data:
    """One row per series, target, specification and parameter that a model knows.

    Args:
        columns: Names of the columns.
        ids: The series ``(N,)``.
        place: Where each of them is in what was found ``(N,)``.
        found: What each model says.
        levels: Levels of the bands.
        specifications: Whether each specification says its own.
    """
    keys: dict[str, list[str]] = {}
    for one in (one for each in found.values() for one in each):
        keys.setdefault(one.specification, []).extend(one.names)
    keys = {specification: list(in_order(names)) for specification, names in keys.items()}
    rows = [(specification, name) for specification, names in keys.items() for name in names]
    at = {key: i for i, key in enumerate(rows)}
    shape = (len(ids), len(columns.targets), len(rows))
    values: Data = {}
    for alias, each in found.items():
        own = [alias, *(f"{alias}-{end}-{x:g}" for x in levels for end in ("lo", "hi"))]
        own.append(f"{alias}-probability")
        table = np.full((len(own), *shape), np.nan)
        for one in each:
            k = [at[one.specification, name] for name in one.names]
            told = np.concatenate(
                [one.median[:, None], one.quantiles, one.probability[:, None]], axis=1
            )[:, :, place]
            table[..., k] = told.transpose(1, 2, 3, 0)
        values |= dict(zip(own, table, strict=True))
    told = [~np.isnan(values[a]) | (values[f"{a}-probability"] > 0) for a in found]
    i, d, k = np.nonzero(np.logical_or.reduce(told))
    data = {columns.id: ids[i]}
    if len(columns.targets) > 1:
        data["target"] = _names(columns.targets)[d]
    if specifications:
        data["specification"] = _names([row[0] for row in rows])[k]
    data["parameter"] = _names([row[1] for row in rows])[k]
    return data | {name: table[i, d, k] for name, table in values.items()}


def innovated(columns: Columns, panel: Panel, found: Mapping[str, np.ndarray]) -> Data:
    """The rows as they came, each with how far it fell from what was foreseen."""
    data, rows = _given(columns, panel)
    return data | {f"{alias}-innovation": x[rows].reshape(-1) for alias, x in found.items()}


def diagnosed(
    columns: Columns,
    panel: Panel,
    found: Mapping[str, np.ndarray],
    usual: Mapping[str, tuple[np.ndarray, np.ndarray] | None],
    lags: int | None,
    season: int,
) -> Data:
    """One row per series, model, target and test, and per number of lags.

    Args:
        columns: Names of the columns.
        panel: The rows.
        found: Innovations of each model ``(R, D)``.
        usual: Of models that learned from others, how far series lie from these, and p-values.
        lags: Most lags; None for what suits the season and each series.
        season: Steps of a season.
    """
    made: list[tuple[Any, ...]] = []
    for i, (start, stop) in enumerate(zip(panel.offsets[:-1], panel.offsets[1:], strict=True)):
        for alias, x in found.items():
            for d, target in enumerate(columns.targets):
                series = x[start:stop, d]
                most = lags
                if most is None:
                    most = 2 * season if season > 1 else 10
                    most = max(1, min(most, int((~np.isnan(series)).sum()) // 5))
                checks = innovations.checks(series, most)
                if (told := usual[alias]) is not None:
                    n = int((~np.isnan(panel.y[start:stop, d])).sum())
                    checks.append(innovations.Check("prior", 0, n, *(x[i, d] for x in told)))
                made += [(i, alias, target, *check) for check in checks]
    index, *rest = zip(*made, strict=True)
    data: Data = {columns.id: panel.ids[np.array(index)]}
    for name, values in zip(DIAGNOSED, rest, strict=True):
        text = name in ("model", "target", "test")
        data[name] = _names(values) if text else np.array(values)
    if len(columns.targets) == 1:
        del data["target"]
    return data


def summarised(data: Data) -> Data:
    """What the tests of :func:`diagnosed` say of the panel: one row per model, target and test."""
    keys = [name for name in ("model", "target", "test", "lag") if name in data]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*(data[name] for name in keys), strict=True)):
        groups.setdefault(key, []).append(row)
    found = [innovations.pooled(data["p_value"][rows]) for rows in groups.values()]
    out: Data = {}
    for name, values in zip(keys, zip(*groups, strict=True), strict=True):
        out[name] = np.array(values) if name == "lag" else _names(values)
    for name, numbers in zip(
        ("series", "share_below_05", "uniform_p"), zip(*found, strict=True), strict=True
    ):
        out[name] = np.array(numbers)
    return out


def completed(
    columns: Columns,
    panel: Panel,
    mean: np.ndarray,
    quantiles: np.ndarray,
    levels: Sequence[int | float],
    complete: bool,
) -> Data:
    """One row per cell that is missing, or per cell: median, mean and bands.

    Args:
        columns: Names of the columns.
        panel: The rows.
        mean: Means ``(R, D)``.
        quantiles: The median, then both ends of each level ``(Q, R, D)``.
        levels: Levels of the bands.
        complete: Whether cells come that are not missing.
    """
    data, r, d = _cells(columns, panel, 1, complete=complete)
    name = _value(columns)
    data |= {name: quantiles[0, r, d], f"{name}-mean": mean[r, d]}
    for k, level in enumerate(levels):
        data[f"{name}-lo-{level:g}"] = quantiles[2 * k + 1, r, d]
        data[f"{name}-hi-{level:g}"] = quantiles[2 * k + 2, r, d]
    return data


def imputed(columns: Columns, panel: Panel, draws: np.ndarray, complete: bool) -> Data:
    """One row per draw and cell that is missing, or per draw and cell."""
    data, r, d = _cells(columns, panel, len(draws), complete=complete)
    data[columns.sample] = np.repeat(np.arange(len(draws)), len(r))
    return data | {_value(columns): draws[:, r, d].reshape(-1)}


def scored(columns: Columns, panel: Panel, scores: Mapping[str, Scores]) -> Data:
    """The rows as they came, each with its scores."""
    data, rows = _given(columns, panel)
    for alias, found in scores.items():
        data[f"{alias}-log_score"] = np.repeat(found.log_score[rows], panel.y.shape[1])
        data[f"{alias}-pit"] = found.pit[rows].reshape(-1)
    return data


def broken(
    columns: Columns, panel: Panel, found: Mapping[str, Breaks], levels: Sequence[int | float]
) -> Data:
    """The rows as they came, each with what is known of a break and of an outlier there."""
    data, rows = _given(columns, panel)
    for alias, breaks in found.items():
        told = {f"{alias}-break": breaks.probability, f"{alias}-break-size": breaks.size}
        for k, level in enumerate(levels):
            told[f"{alias}-break-size-lo-{level:g}"] = breaks.quantiles[2 * k]
            told[f"{alias}-break-size-hi-{level:g}"] = breaks.quantiles[2 * k + 1]
        told[f"{alias}-outlier"] = breaks.outlier
        data |= {name: x[rows].reshape(-1) for name, x in told.items()}
    return data


def columns_to_dict(columns: Columns) -> dict[str, Any]:
    """Arguments of the columns, for JSON."""
    return {k: v for k, v in asdict(columns).items() if k != "targets"}


def _value(columns: Columns) -> str:
    """Column of the values of all targets."""
    return columns.targets[0] if len(columns.targets) == 1 else "y"


def _given(columns: Columns, panel: Panel) -> tuple[Data, np.ndarray]:
    """The rows of a frame as they came, below one another for several targets, and where they are.

    Returns:
        The columns, and the rows of the panel in the order of the frame.
    """
    rows, width = as_given(panel), panel.y.shape[1]
    data = _rows(columns, panel, np.repeat(rows, width))
    if width > 1:
        data["target"] = np.tile(_names(columns.targets), len(rows))
    return data | {_value(columns): panel.y[rows].reshape(-1)}, rows


def _cells(
    columns: Columns, panel: Panel, copies: int, *, complete: bool
) -> tuple[Data, np.ndarray, np.ndarray]:
    """Missing cells, or all, so many times: what says which they are, their rows and targets."""
    wanted = np.ones_like(panel.y, dtype=bool) if complete else np.isnan(panel.y)
    r, d = np.nonzero(wanted & panel.open[:, None])
    data = _rows(columns, panel, np.tile(r, copies))
    if panel.y.shape[1] > 1:
        data["target"] = _names(columns.targets)[np.tile(d, copies)]
    return data, r, d


def _rows(columns: Columns, panel: Panel, rows: np.ndarray) -> Data:
    return {
        columns.id: panel.ids[panel.owner[rows]],
        columns.time: panel.time_index.stamps(panel.t[rows]),
    }


def _names(names: Sequence[str]) -> np.ndarray:
    return np.array(list(names), dtype=object)
