"""Arguments of a forecaster, checked before anything starts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlatent.forecasting.columns import Columns
from seqlatent.forecasting.engine import Engine
from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.panel import Panel

__all__ = [
    "check_training",
    "check_values",
    "count",
    "horizon",
    "levels_of",
    "objects",
    "quantiles_of",
    "samples_of",
    "seasons_of",
    "seed_of",
]


def check_training(panel: Panel, columns: Columns) -> None:
    """Verifies that there is something to learn from.

    Raises:
        TargetError: If a series has a single row, or a target no value at all.
    """
    short = np.flatnonzero(panel.lengths < 2)
    if len(short):
        i = int(short[0])
        raise TargetError(
            f"fit needs at least 2 rows of every series, found 1 for {panel.name(i)} (and "
            f"{len(short) - 1} more such series); give it more rows, or leave it out here and "
            "pass it to predict(df=...), which takes new series of any length.",
            id=panel.ids[i],
            row=int(panel.row[panel.offsets[i]]),
        )
    for d, name in enumerate(columns.targets):
        if np.isnan(panel.y[:, d]).all():
            raise TargetError(
                f"column {name!r} has no value at all, found only missing ones in "
                f"{panel.rows} rows; a model needs something to learn from.",
                column=name,
            )


def check_values(panel: Panel) -> None:
    """Verifies that every series has a value from which the others can be told.

    Raises:
        TargetError: If one has none.
    """
    some = np.add.reduceat((~np.isnan(panel.y)).any(1), panel.offsets[:-1])
    empty = np.flatnonzero(some == 0)
    if len(empty):
        i = int(empty[0])
        raise TargetError(
            f"impute needs at least one value of every series, found none for {panel.name(i)} (and "
            f"{len(empty) - 1} more such series): nothing says where it lies; leave it out, or "
            "draw from its own past with sample.",
            id=panel.ids[i],
        )


def objects(values: Sequence[Any]) -> np.ndarray:
    """Identifiers as an array, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def horizon(h: Any) -> int:
    """Checks a number of steps."""
    if isinstance(h, bool) or not isinstance(h, int | np.integer) or h < 1:
        raise ValueError(f"h must be a number of steps of at least 1, found {h!r}.")
    return int(h)


def levels_of(level: Any) -> tuple[float | int, ...]:
    """Checks levels of intervals, in percent."""
    given = [level] if isinstance(level, int | float) else list(level)
    for lv in given:
        if isinstance(lv, bool) or not isinstance(lv, int | float) or not 0 < lv < 100:
            raise ValueError(f"level must lie between 0 and 100 percent, found {lv!r}.")
    return tuple(given)


def quantiles_of(quantiles: Any) -> tuple[float, ...]:
    """Checks levels of quantiles."""
    given = () if quantiles is None else tuple(quantiles)
    for q in given:
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 < q < 1:
            raise ValueError(f"quantiles must lie between 0 and 1, found {q!r}.")
    return given


def samples_of(samples: Any, engine: Engine) -> int:
    """Checks a number of paths; None is what the engine prefers."""
    if samples is None:
        return engine.samples
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise ValueError(f"samples must be a number of paths of at least 1, found {samples!r}.")
    return int(samples)


def seed_of(seed: Any) -> int:
    """Checks a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, found {seed!r}.")
    return int(seed)


def seasons_of(given: Any) -> tuple[int, ...] | None:
    """Checks season lengths; None is left to the clock."""
    if given is None:
        return None
    seasons = (given,) if isinstance(given, int | np.integer) else tuple(given)
    for s in seasons:
        if isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 1:
            raise ValueError(f"season_length must be a number of steps of at least 1, found {s!r}.")
    return tuple(int(s) for s in seasons)


def count(name: str, n: Any, what: str) -> int:
    """Checks a number of paths or draws."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{name} must be a number of {what} of at least 1, found {n!r}.")
    return int(n)
