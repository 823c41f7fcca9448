"""Tables of scores: a row for each metric, a column for each model."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.arguments import levels_of
from seqlatent.forecasting.errors import ColumnError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.metrics.cells import (
    Cells,
    Loss,
    aliases,
    interval_columns,
    open_frame,
    quantile_column,
    ratio,
)
from seqlatent.forecasting.metrics.density import negative_log
from seqlatent.forecasting.metrics.interval import covered, width
from seqlatent.forecasting.metrics.pairing import VALUE, long, pair, places
from seqlatent.forecasting.metrics.point import absolute, naive_scale, scaled, squared
from seqlatent.forecasting.metrics.quantile import DECILES, quantile_levels, weighted
from seqlatent.forecasting.metrics.sample import quantile_crps
from seqlatent.forecasting.metrics.sample_paths import Paths

__all__ = ["horizon_scores", "scores"]

SUFFIX = re.compile(r"(?:-(?:lo|hi)-\d+(?:\.\d+)?|-mean|-median|-log_score|-pit|_ql[\d.e-]+)$")

Rows = Iterator[tuple[str, Loss, Cells, list[str]]]


def scores(
    truth: Any,
    forecasts: Any,
    train: Any = None,
    season_length: int = 1,
    level: Any = None,
    *,
    models: Sequence[str] | None = None,
    samples: Any = None,
    probabilities: Sequence[float | int] = DECILES,
    columns: Columns = Columns(),  # noqa: B008
) -> Any:
    r"""Table of all scores that the forecasts allow, over all series, steps and windows.

    Means run over cells, not over series: ``wql`` is the published form
    (:func:`~seqlatent.forecasting.metrics.total_wql`), ``mase`` and ``msis`` are means over series
    and steps. ``rmsse``, ``energy_score`` and ``variogram_score`` are means over series.

    Args:
        truth: Frame of what happened: id, stamp, target(s). Every row with an observed truth must
            have been forecast; forecasts without a truth are left out. None where the forecasts
            hold it, as those of a backtest do.
        forecasts: Frame of forecasts, or of the log scores of a forecaster's ``score``.
        train: Past of the series, for the scaled metrics; rows at or after the first step forecast
            are not used.
        season_length: Steps of a season, for the scaled metrics.
        level: Levels of the intervals to score. None stands for all that the forecasts have.
        models: Aliases. None stands for all of the forecasts.
        samples: Frame of sample paths of the same models, for ``crps`` (taken from quantiles
            otherwise), ``energy_score`` and ``variogram_score``.
        probabilities: Levels of ``wql``.
        columns: Names of the columns.

    Returns:
        Frame of the kind of ``forecasts``: ``metric``, then a column for each model, NaN where a
        model's columns do not allow the score; a score that no model allows has no row.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.metrics import scores
        >>> truth = pd.DataFrame({"unique_id": ["a", "a"], "ds": [3, 4], "y": [1.0, 2.0]})
        >>> scores(truth, truth.assign(y=[1.0, 4.0]).rename(columns={"y": "naive"}))
          metric     naive
        0    mae  1.000000
        1   rmse  1.414214
    """
    cells, paths, names = _prepare(truth, forecasts, models, samples, columns)
    found: list[tuple[str, np.ndarray, list[str]]] = []
    for metric, loss, where, present in _rows(
        cells, paths, names, long(train, columns), season_length, level, probabilities
    ):
        if loss.by_series:
            score = _mean(ratio(loss, where.group, len(where.first)))
        else:
            score = ratio(loss, np.zeros(len(where.group), int), 1)[0]
        found.append((metric, score, present))
    if paths is not None:
        cells, drawn = paths
        found.append(("energy_score", _mean(drawn.energy()), cells))
        found.append(("variogram_score", _mean(drawn.variogram(0.5)), cells))
    return _table(
        {"metric": [metric for metric, _, _ in found]},
        np.array([_spread(score, present, names) for _, score, present in found]),
        names,
        open_frame(forecasts),
    )


def horizon_scores(
    truth: Any,
    forecasts: Any,
    train: Any = None,
    season_length: int = 1,
    level: Any = None,
    *,
    models: Sequence[str] | None = None,
    samples: Any = None,
    probabilities: Sequence[float | int] = DECILES,
    columns: Columns = Columns(),  # noqa: B008
) -> Any:
    r"""Scores of each step ahead, over all series and windows.

    The step of a row is its rank in time among the rows of its series (and window) in
    ``forecasts``, so the first step forecast is 1 whether or not its truth is known.

    Args:
        truth: Frame of what happened, as in :func:`scores`.
        forecasts: Frame of forecasts.
        train: Past of the series, for the scaled metrics.
        season_length: Steps of a season, for the scaled metrics.
        level: Levels of the intervals to score. None stands for all that the forecasts have.
        models: Aliases. None stands for all of the forecasts.
        samples: Frame of sample paths, for ``crps``.
        probabilities: Levels of ``wql``.
        columns: Names of the columns.

    Returns:
        Frame of the kind of ``forecasts``: ``metric``, ``step`` (from 1), then a column for each
        model. Scores of whole paths have no step and are not there.
    """
    cells, paths, names = _prepare(truth, forecasts, models, samples, columns)
    metrics, steps, blocks = [], [], []
    for metric, loss, where, present in _rows(
        cells, paths, names, long(train, columns), season_length, level, probabilities
    ):
        step = _steps(where)
        count = int(step.max()) + 1
        score = ratio(loss, step, count)
        metrics += [metric] * count
        steps += range(1, count + 1)
        blocks.append(np.array([_spread(row, present, names) for row in score]))
    return _table(
        {"metric": metrics, "step": steps},
        np.concatenate(blocks) if blocks else np.empty((0, len(names))),
        names,
        open_frame(forecasts),
    )


def _rows(
    cells: Cells,
    paths: tuple[list[str], Paths] | None,
    names: list[str],
    train: Any,
    season: int,
    level: Any,
    probabilities: Sequence[float | int],
) -> Rows:
    """Yields name, cells' losses, the cells, and the models that allow the score."""
    held = cells.frame.columns

    def having(test: Callable[[str], Any]) -> list[str]:
        return [name for name in names if test(name)]

    point = having(lambda name: name in held)
    scale = naive_scale(cells, train, season) if train is not None else None
    if point:
        yield "mae", absolute(cells, point), cells, point
        yield "rmse", squared(cells, point), cells, point
        if scale is not None:
            yield "mase", scaled(absolute(cells, point), scale), cells, point
            squares = naive_scale(cells, train, season, power=2)
            yield "rmsse", scaled(squared(cells, point), squares), cells, point
    present = having(lambda name: all(quantile_column(held, name, q) for q in probabilities))
    if present:
        yield "wql", weighted(cells, present, probabilities), cells, present
    if paths is not None:
        drawn = paths[1]
        yield "crps", drawn.crps(), drawn.cells, paths[0]
    elif present := having(lambda name: quantile_levels(held, name)):
        yield "crps", quantile_crps(cells, present), cells, present
    for percent in _levels(held, names) if level is None else levels_of(level):
        present = having(lambda name, p=percent: interval_columns(held, name, p) != (None, None))
        if not present:
            raise ColumnError(
                f"level {percent:g} needs columns such as '{names[0]}-lo-{percent:g}', found "
                f"{held}; forecast with level=[{percent:g}].",
                column=f"{names[0]}-lo-{percent:g}",
            )
        ends = width(cells, present, percent)
        yield f"interval_score_level{percent:g}", ends, cells, present
        if scale is not None:
            yield f"msis_level{percent:g}", scaled(ends, scale), cells, present
        yield f"coverage_level{percent:g}", covered(cells, present, percent), cells, present
    if present := having(lambda name: f"{name}-log_score" in held):
        yield "log_score", negative_log(cells, present), cells, present


def _prepare(
    truth: Any, forecasts: Any, models: Sequence[str] | None, samples: Any, columns: Columns
) -> tuple[Cells, tuple[list[str], Paths] | None, list[str]]:
    """Joins truth and forecasts, and finds the models."""
    name, *others = columns.targets
    single = replace(columns, target=VALUE if others else name)
    frame = pair(truth, open_frame(forecasts, "forecasts"), columns, single)
    cells = Cells.of(frame, single)
    names = _models(cells) if models is None else aliases(models)
    if not names:
        raise ColumnError(f"forecasts must have columns of models, found {frame.columns}.")
    if samples is None:
        return cells, None, names
    if truth is None and single.targets[0] in frame.columns:
        known = places(frame, columns)
        truth = frame.select(*known, *single.targets).unique(known)  # windows overlap
    drawn = pair(truth, open_frame(samples, "samples"), columns, single)
    present = [name for name in names if name in drawn.columns]
    if not present:
        raise ColumnError(f"samples must have paths of one of {names}, found {drawn.columns}.")
    return cells, (present, Paths.of(drawn, single, present)), names


def _models(cells: Cells) -> list[str]:
    """Aliases of the columns that hold numbers and have no other role."""
    columns = cells.columns
    roles = {*cells.keys, columns.time, columns.cutoff, *columns.targets}
    numeric = [
        name
        for name in cells.frame.columns
        if name not in roles and cells.frame[name].dtype.is_numeric()
    ]
    return list(dict.fromkeys(SUFFIX.sub("", name) for name in numeric))


def _levels(held: Sequence[str], names: Sequence[str]) -> list[float]:
    """Levels of the intervals of all models, ascending."""
    pattern = "|".join(map(re.escape, names))
    found = (re.fullmatch(rf"(?:{pattern})-lo-(\d+(?:\.\d+)?)", name) for name in held)
    levels = {float(match[1]) for match in found if match}
    return sorted(level for level in levels if 0 < level < 100)


def _steps(cells: Cells) -> np.ndarray:
    """Steps ahead, from 0 ``(R,)``."""
    order = np.lexsort((pd.factorize(cells.times, sort=True)[0], cells.group))
    group = cells.group[order]
    step = np.empty(len(order), int)
    step[order] = np.arange(len(order)) - np.searchsorted(group, group)
    return step


def _mean(scores: np.ndarray) -> np.ndarray:
    """Mean over groups, NaN only where none has a score."""
    cell = Loss(scores, np.ones(len(scores)))
    return ratio(cell, np.zeros(len(scores), int), 1)[0]


def _spread(score: np.ndarray, present: Sequence[str], names: Sequence[str]) -> list[float]:
    """Scores of all models, NaN for those that have none."""
    known = dict(zip(present, score.tolist(), strict=True))
    return [known.get(name, np.nan) for name in names]


def _table(
    head: dict[str, Any], body: np.ndarray, names: Sequence[str], like: nw.DataFrame[Any]
) -> Any:
    """Native frame of the kind of ``like``."""
    for name in names:
        if name in head:
            raise ColumnError(
                f"models must have names of their own, found {name!r}, a column of the table; "
                "rename it.",
                column=name,
            )
    data = {name: body.reshape(-1, len(names))[:, m] for m, name in enumerate(names)}
    return nw.from_dict({**head, **data}, backend=like.implementation).to_native()
