"""Cells, the rows of a frame that metrics score: the boundary between frames and arrays."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import ColumnError, DataError, TimeError
from seqlatent.forecasting.errors.locate import plain
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.timestamps import times_of
from seqlatent.forecasting.frames.wide import lengthen
from seqlatent.forecasting.values import floats, missing, several, told, warn_of_digits
from seqlatent.spelling import meant

__all__ = []

TARGET = "target"  # the column that tells the targets of a joint model apart


class Loss(NamedTuple):
    """A score as a ratio of two sums over cells.

    Attributes:
        loss: Numerator of each cell and model ``(R, M)``; NaN leaves the cell out.
        weight: Denominator of each cell ``(R,)``.
        root: Whether the ratio's square root is the score.
        by_series: Whether a table shows the mean of the series' scores, not the score of all cells.
    """

    loss: np.ndarray
    weight: np.ndarray
    root: bool = False
    by_series: bool = False


def ratio(loss: Loss, group: np.ndarray, n: int) -> np.ndarray:
    """Score of each of ``n`` groups of cells and model ``(n, M)``; NaN where nothing counts."""
    result = np.full((n, loss.loss.shape[1]), np.nan)
    for m, column in enumerate(loss.loss.T):
        kept = ~np.isnan(column)
        above = np.bincount(group[kept], column[kept], n)
        below = np.bincount(group[kept], loss.weight[kept], n)
        np.divide(above, below, out=result[:, m], where=below > 0)
    return np.sqrt(result) if loss.root else result


def open_frame(df: Any, what: str = "df") -> nw.DataFrame[Any]:
    """Wraps a pandas or polars frame."""
    try:
        return nw.from_native(df, eager_only=True)
    except TypeError:
        raise TypeError(
            f"{what} must be a pandas or polars DataFrame, found {type(df).__name__}."
        ) from None


def require(frame: nw.DataFrame[Any], names: Sequence[str], what: str = "df") -> None:
    """Checks that columns are there."""
    for name in names:
        if name not in frame.columns:
            raise ColumnError(
                f"{what} must have the column {name!r}, found {frame.columns}; compute it, or name "
                f"the one meant.{meant(name, frame.columns)}",
                column=name,
            )


def open_past(df: Any, columns: Columns, what: str) -> nw.DataFrame[Any]:
    """Wraps what ``fit`` takes: a long frame, or a pandas Series or wide frame as a long one."""
    table = lengthen(df, columns, what)
    return open_frame(df if table is None else table.frame.to_native(), what)


def numbers(frame: nw.DataFrame[Any], name: str, what: str = "df") -> np.ndarray:
    """A column as float64, NaN where it is missing."""
    require(frame, [name], what)
    found = floats(frame[name])
    if found.wrong.any():
        row = int(np.argmax(found.wrong))
        raise ColumnError(
            f"column {name!r} of {what} must hold numbers, found {frame[name][row]!r} in row {row} "
            f"and dtype {frame[name].dtype}; convert it.",
            column=name,
            row=row,
        )
    if found.beyond.any():
        row = int(np.argmax(found.beyond))
        raise ColumnError(
            f"column {name!r} of {what} must hold numbers that float64 holds, found "
            f"{told(frame[name][row])} in row {row}; correct it, or choose another unit.",
            column=name,
            row=row,
        )
    if found.rounded.any():
        row = int(np.argmax(found.rounded))
        place = f"{what}: column {name!r}, row {row}"
        warn_of_digits(place, plain(frame[name][row]), float(found.values[row]))
    return found.values


def values(frame: nw.DataFrame[Any], name: str, what: str = "df") -> np.ndarray:
    """A column of ids, stamps or the like, none of them missing; stamps in UTC."""
    require(frame, [name], what)
    empty = np.flatnonzero(missing(frame[name]))
    if len(empty):
        raise ColumnError(
            f"column {name!r} of {what} must be complete, found a missing value in row "
            f"{empty[0]}; fill or drop such rows.",
            column=name,
            row=int(empty[0]),
        )
    times = None if frame[name].dtype.is_integer() else times_of(frame[name])
    return frame[name].to_numpy() if times is None else times.values


def codes(*sides: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Numbers the distinct tuples of several tables of keys alike, in the order of appearance.

    Args:
        sides: Tables, each a list of as many key columns as the others.

    Returns:
        Number of each row of each table. Equal tuples have equal numbers across the tables.
    """
    lengths = np.cumsum([len(side[0]) for side in sides])
    result = np.zeros(lengths[-1], np.int64)
    for parts in zip(*sides, strict=True):
        kinds = {"M" if part.dtype.kind == "M" else "-" for part in parts if len(part)}
        if len(kinds) > 1:
            raise TimeError(
                "the frames must agree in their stamps, found datetimes in one and "
                "other values in another; convert one of them."
            )
        mixed = len({part.dtype.kind for part in parts}) > 1
        joined = np.concatenate([_objects(part) if mixed else part for part in parts])
        number, distinct = pd.factorize(joined)
        result = pd.factorize(result * (len(distinct) + 1) + number)[0]
    return np.split(result, lengths[:-1])


def _objects(part: np.ndarray) -> np.ndarray:
    """Keys as objects that are equal to none of another type: 1 is not True."""
    if part.dtype.kind != "b":
        return part.astype(object)
    out = np.empty(len(part), object)
    out[:] = [("bool", value) for value in part.tolist()]
    return out


@dataclass(frozen=True)
class Cells:
    """Rows of a frame, grouped by what a metric is computed for.

    Attributes:
        frame: The rows.
        columns: Names of the columns; one target.
        keys: Columns that make a group: id, target where there are several, cutoff where there is.
        group: Number of the group of each row ``(R,)``.
        first: First row of each group ``(G,)``.
    """

    frame: nw.DataFrame[Any]
    columns: Columns
    keys: tuple[str, ...]
    group: np.ndarray
    first: np.ndarray

    @classmethod
    def of(
        cls, df: Any, columns: Columns, *, samples: bool = False, joint: bool = False
    ) -> "Cells":
        """Groups the rows of a frame.

        Args:
            df: Frame of forecasts, with the truth as a column.
            columns: Names of its columns.
            samples: Whether its rows may be sample paths.
            joint: Whether the targets of a series make one group.
        """
        frame = open_frame(df)
        if not samples and columns.sample in frame.columns:
            raise ColumnError(
                f"df must have one row for each cell, found sample paths (column "
                f"{columns.sample!r}); crps, energy_score and variogram_score take those.",
                column=columns.sample,
            )
        taken = (columns.id, columns.time, *columns.targets, columns.cutoff, columns.sample)
        optional = (() if joint or TARGET in taken else (TARGET,)) + (columns.cutoff,)
        keys = (columns.id, *(name for name in optional if name in frame.columns))
        (group,) = codes([values(frame, key) for key in keys])
        return cls(frame, columns, keys, group, np.unique(group, return_index=True)[1])

    @property
    def truth(self) -> np.ndarray:
        """Truth of each row, NaN where it was not observed ``(R,)``."""
        return numbers(self.frame, self.columns.targets[0])

    @property
    def times(self) -> np.ndarray:
        """Stamps of the rows ``(R,)``."""
        return values(self.frame, self.columns.time)

    def forecasts(self, names: Sequence[str]) -> np.ndarray:
        """Columns of forecasts ``(R, M)``, which must be there wherever the truth is."""
        roles = {*self.keys, self.columns.time, self.columns.cutoff, *self.columns.targets}
        for name in names:
            if name in roles:
                raise ColumnError(
                    f"models must be columns of forecasts, found {name!r}, which holds the truth, "
                    "identifiers or stamps; rename one of the two.",
                    column=name,
                )
        found = np.column_stack([numbers(self.frame, name) for name in names])
        rows, which = np.nonzero(np.isnan(found) & ~np.isnan(self.truth)[:, None])
        if len(rows):
            name = list(names)[which[0]]
            raise DataError(
                f"every observed truth needs a forecast, found none in {name!r} for "
                f"{self.name(rows[0])}; forecast it, or set its truth to NaN to leave it out.",
                column=name,
                id=self.frame[self.columns.id][int(rows[0])],
                row=int(rows[0]),
            )
        return found

    def name(self, row: int | np.integer) -> str:
        """A row as errors call it."""
        timed = self.columns.time in self.frame.columns
        return named(self.frame, [*self.keys, *([self.columns.time] if timed else [])], row)

    def frame_of(self, scores: np.ndarray, models: Sequence[str]) -> Any:
        """Native frame of one row for each group: its keys and its scores ``(G, M)``."""
        # without a copy of its own index, pandas would align the scores with the rows' old one
        keys = nw.maybe_reset_index(self.frame.select(*self.keys)[self.first])
        backend = self.frame.implementation
        return keys.with_columns(
            *(
                nw.new_series(model, scores[:, m], nw.Float64, backend=backend)
                for m, model in enumerate(models)
            )
        ).to_native()

    def score(self, loss: Loss, models: Sequence[str]) -> Any:
        """Native frame of one row for each group, from a score's cells."""
        return self.frame_of(ratio(loss, self.group, len(self.first)), models)


def aliases(models: Any) -> list[str]:
    """Checks a list of models."""
    found = [] if isinstance(models, str | Mapping) or models is None else list(several(models))
    if not found or not all(isinstance(name, str) for name in found):
        raise TypeError(f"models must be a list of at least one alias, found {models!r}.")
    return found


def quantile_column(names: Sequence[str], model: str, q: float | int) -> str | None:
    """Column of a model's ``q`` quantile: ``Alias_ql0.1``, or ``Alias-lo-80``, or ``Alias``."""
    for name in names:
        found = re.fullmatch(re.escape(model) + r"_ql(\d*\.?\d+(?:e-?\d+)?)", name)
        if found and np.isclose(float(found[1]), q, rtol=0, atol=1e-9):
            return name
    if np.isclose(q, 0.5):
        return model if model in names else None
    lo, hi = interval_columns(names, model, 100 * abs(1 - 2 * q))
    return lo if q < 0.5 else hi


def interval_columns(
    names: Sequence[str], model: str, level: float | int
) -> tuple[str, str] | tuple[None, None]:
    """Columns of a model's central interval, ``Alias-lo-80`` and ``Alias-hi-80``."""
    for name in names:
        found = re.fullmatch(re.escape(model) + r"-lo-(\d+(?:\.\d+)?)", name)
        upper = f"{model}-hi-{found[1]}" if found else ""
        if found and upper in names and np.isclose(float(found[1]), level, rtol=0, atol=1e-7):
            return name, upper
    return None, None


def named(frame: nw.DataFrame[Any], keys: Sequence[str], row: int | np.integer) -> str:
    """A row as errors call it."""
    found = ((key, frame[key][int(row)]) for key in keys)
    plain = (
        (key, value.item() if isinstance(value, np.generic) else value) for key, value in found
    )
    return ", ".join(f"{key} {value!r}" for key, value in plain)
