"""Arguments of a forecaster, checked before anything starts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlatent.forecasting.columns import Columns
from seqlatent.forecasting.engine import Engine
from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.panel import Panel
from seqlatent.forecasting.rows import plain
from seqlatent.forecasting.values import several

__all__ = [
    "check_training",
    "check_values",
    "horizon",
    "levels_of",
    "objects",
    "quantiles_of",
    "samples_of",
    "seasons_of",
    "seconds_of",
    "seed_of",
    "whole",
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


def whole(name: str, value: Any, what: str, least: int = 1) -> int:
    """Checks an integer, of Python or of numpy.

    Raises:
        ValueError: If it is none, or less than the least that makes sense.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be {what} of at least {least}, found {value!r}.")
    return int(value)


def horizon(h: Any) -> int:
    """Checks a number of steps."""
    return whole("h", h, "a number of steps")


def levels_of(level: Any) -> tuple[float | int, ...]:
    """Checks levels of intervals, in percent; None is none."""
    given = _numbers("level", level)
    for lv in given:
        if not 0 < lv < 100:
            raise ValueError(f"level must lie between 0 and 100 percent, found {lv!r}.")
    _told_apart("level", given)
    return given


def quantiles_of(quantiles: Any) -> tuple[float | int, ...]:
    """Checks levels of quantiles; None is none."""
    given = _numbers("quantiles", quantiles)
    for q in given:
        if not 0 < q < 1:
            raise ValueError(f"quantiles must lie between 0 and 1, found {q!r}.")
    _told_apart("quantiles", given)
    return given


def _numbers(name: str, given: Any) -> tuple[float | int, ...]:
    """One number or several, in whatever holds them, as numbers of Python."""
    found = () if given is None else several(given)
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise ValueError(f"{name} must be a list of numbers, found {one!r}.")
    return found


def _told_apart(name: str, given: Sequence[float | int]) -> None:
    """Refuses numbers that would have one name as columns."""
    seen: dict[str, float | int] = {}
    for one in given:
        other = seen.setdefault(f"{one:g}", one)
        if abs(one - other) > 1e-9:
            raise ValueError(
                f"{name} must differ in the first six digits, after which columns are named, found "
                f"{other!r} and {one!r}."
            )


def samples_of(samples: Any, engine: Engine) -> int:
    """Checks a number of paths; None is what the engine prefers."""
    return engine.samples if samples is None else whole("samples", samples, "a number of paths")


def seed_of(seed: Any) -> int:
    """Checks a seed."""
    return whole("seed", seed, "an integer", 0)


def seasons_of(given: Any) -> tuple[int, ...] | None:
    """Checks season lengths; None is left to the clock."""
    if given is None:
        return None
    return tuple(whole("season_length", s, "a number of steps") for s in several(given))


def seconds_of(time_limit: Any) -> float | None:
    """Checks a number of seconds; None is no limit."""
    if time_limit is None:
        return None
    limit = plain(time_limit)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"time_limit must be a positive number of seconds, found {time_limit!r}.")
    return float(limit)
