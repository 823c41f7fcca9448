"""Rows of a frame as arrays: what the pictures are drawn from."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
from narwhals.exceptions import NarwhalsError

from seqlatent.forecasting.errors import ArgumentError, ColumnError, DataError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.timestamps import times_of
from seqlatent.forecasting.frames.wide import lengthen
from seqlatent.forecasting.plots.style import COLORS, TimeAxis
from seqlatent.forecasting.values import floats, missing, several, told
from seqlatent.spelling import meant

__all__ = []

DEFAULT = Columns()
# Which target a row is about, in frames of several targets.
TARGET = "target"

DERIVED = re.compile(
    r"(.+?)(?:-(?:lo|hi)-\d+(?:\.\d+)?|-mean|-median|-pit|-log_score|-probability|_ql0?\.\d+)"
)
INTERVAL = re.compile(r"(.+)-(lo|hi)-(\d+(?:\.\d+)?)")
QUANTILE = re.compile(r"(.+)_ql(0?\.\d+)")


@dataclass(frozen=True)
class NamedFrame:
    """A long frame under a name by which errors call it.

    Args:
        frame: Eager frame.
        columns: Names of its columns.
        what: What the frame is, for errors.
    """

    frame: nw.DataFrame[Any]
    columns: Columns
    what: str

    @classmethod
    def of(cls, frame: Any, columns: Columns, what: str) -> "NamedFrame":
        """Takes a long frame, pandas or polars."""
        try:
            rows = cls(nw.from_native(frame, eager_only=True), columns, what)
        except TypeError:
            raise TypeError(
                f"{what} must be a pandas or a polars frame, found {type(frame).__name__}; "
                "collect lazy frames and make a frame of other data first."
            ) from None
        if not len(rows.frame):
            raise DataError(f"{what} must have rows, found none.")
        return rows

    @classmethod
    def observed(cls, frame: Any, columns: Columns, what: str) -> "NamedFrame":
        """Takes what ``fit`` takes: a long frame, or a pandas series or wide frame."""
        table = lengthen(frame, columns, what)
        return cls.of(frame if table is None else table.frame.to_native(), columns, what)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.frame.columns)

    def require(self, *names: str, hint: str = "") -> None:
        """Raises if a column is absent."""
        for name in names:
            if name not in self.names:
                advice = hint or "rename it, or say columns=Columns(...) with the names you use"
                raise ColumnError(
                    f"{self.what} must have the column {name!r}, found {listed(self.names)}; "
                    f"{advice}.",
                    column=name,
                )

    def values(self, name: str) -> list[Any]:
        """Distinct values of a column in the order of their first appearance."""
        self.require(name)
        return self.frame[name].unique(maintain_order=True).to_list()

    def where(self, name: str, value: Any) -> "NamedFrame":
        """Keeps the rows in which a column has a value; there may be none."""
        self.require(name)
        none = self.keep(np.zeros(len(self.frame), dtype=bool))
        dtype, text = self.frame[name].dtype, isinstance(value, str)
        if (text and dtype.is_numeric()) or (not text and dtype == nw.String):
            return none  # polars would compare "1" and 1 as equal
        try:
            same = (self.frame[name] == value).fill_null(False)
            return NamedFrame(self.frame.filter(same), self.columns, self.what)
        except NarwhalsError:  # a value of another type than the column's is none of its values
            return none

    def keep(self, index: np.ndarray) -> "NamedFrame":
        """Keeps the rows of a mask, or those of an index in its order."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        return NamedFrame(self.frame[index], self.columns, self.what)

    def number(self, name: str) -> np.ndarray:
        """Reads a column as float64, NaN where missing."""
        self.require(name)
        found = floats(self.frame[name])
        if (wrong := found.wrong | found.beyond).any():
            row = int(np.argmax(wrong))
            raise ColumnError(
                f"column {name!r} of {self.what} must hold numbers that float64 holds, found "
                f"{told(self.frame[name][row])}; convert it.",
                column=name,
            )
        return found.values

    def times(self, name: str | None = None) -> TimeAxis:
        """Reads the time column, or another one that holds stamps."""
        name = self.columns.time if name is None else name
        self.require(name)
        stamps = self.frame[name]
        if stamps.dtype.is_numeric():
            return TimeAxis(self.number(name), False, None)
        if missing(stamps).any():
            row = int(np.argmax(missing(stamps)))
            raise TimeError(
                f"column {name!r} of {self.what} must hold a time stamp in every row, found none "
                f"in row {row}; drop the row or correct it.",
                column=name,
                row=row,
            )
        found = times_of(stamps)
        if found is None:
            raise TimeError(
                f"column {name!r} of {self.what} must hold dates, periods or integers, found "
                f"{stamps[0]!r} in a column of dtype {stamps.to_native().dtype}; convert it, for "
                "instance by pandas.to_datetime.",
                column=name,
            )
        from matplotlib.dates import date2num

        x = np.asarray(date2num(found.values.astype("datetime64[us]")))
        return TimeAxis(x, True, found.tz)

    def ordered(self) -> "NamedFrame":
        """Sorts by time."""
        return self.keep(np.argsort(self.times().x, kind="stable"))

    def series(self, id: Any) -> "NamedFrame":
        """Rows of one series in the order of time.

        Raises:
            DataError: If there is no such series; some that there are are listed.
        """
        rows = self.where(self.columns.id, id)
        if not len(rows.frame):
            raise DataError(
                f"id must be a series of {self.what}, found {id!r}; there are "
                f"{listed(self.values(self.columns.id))}.",
                column=self.columns.id,
                id=id,
            )
        return rows.ordered()

    @property
    def targets(self) -> list[str]:
        """Targets that the rows tell apart; empty in a frame of a single target."""
        told = TARGET in self.names and TARGET not in self.columns.targets
        return self.values(TARGET) if told else []

    def about(self, target: str | None) -> tuple["NamedFrame", str]:
        """Rows of one target and its name."""
        targets = self.targets
        if not targets:
            return self, self.columns.targets[0] if target is None else target
        chosen = choose(target, targets, "target", self.what)
        return self.where(TARGET, chosen), chosen

    def models(self) -> list[str]:
        """Names of the models whose columns there are."""
        columns = self.columns
        roles = {columns.id, columns.time, columns.sample, columns.cutoff, *columns.targets, "y"}
        roles |= {TARGET} if self.targets else set()
        found = dict.fromkeys(
            (derived[1] if (derived := DERIVED.fullmatch(name)) else name)
            for name in self.names
            if name not in roles and self.frame[name].dtype.is_numeric()
        )
        if not found:
            raise ColumnError(
                f"{self.what} must have a column for each model, found {listed(self.names)}; "
                "give what predict, sample, score or cross_validation returned."
            )
        return list(found)

    def intervals(self, model: str) -> dict[float, tuple[str, str]]:
        """Columns of the two ends of each central interval of a model, by its level in per cent."""
        ends: dict[float, dict[str, str]] = {}
        for name in self.names:
            if (end := INTERVAL.fullmatch(name)) and end[1] == model:
                ends.setdefault(float(end[3]), {})[end[2]] = name
            elif (end := QUANTILE.fullmatch(name)) and end[1] == model and float(end[2]) != 0.5:
                level = round(100 * abs(2 * float(end[2]) - 1), 6)
                ends.setdefault(level, {}).setdefault("lo" if float(end[2]) < 0.5 else "hi", name)
        return {
            level: (ends[level]["lo"], ends[level]["hi"])
            for level in sorted(ends)
            if len(ends[level]) == 2
        }


def choose(value: Any, among: Sequence[Any], name: str, what: str) -> Any:
    """Returns the value, or the only one there is if it is None.

    Raises:
        DataError: If it is not among them, or None where there are several.
    """
    if value is None and len(among) == 1:
        return among[0]
    if value is None:
        raise DataError(
            f"{name} must be named where {what} hold several, found None; give {name}= one of "
            f"{listed(among)}."
        )
    if value not in among:
        raise DataError(
            f"{name} must be one that {what} hold, found {value!r}; there are {listed(among)}."
            f"{meant(value, among)}",
            id=value if name == "id" else None,
        )
    return value


def models_of(there: list[str], model: str | Sequence[str] | None, what: str) -> list[str]:
    """Models to draw: those asked for, or all there are.

    Raises:
        ValueError: If one is not there, or they are more than can be told apart.
    """
    asked = there if model is None else [model] if isinstance(model, str) else list(model)
    for one in asked:
        choose(one, there, "model", what)
    if not 0 < len(asked) <= len(COLORS):
        raise ValueError(
            f"model must name at most {len(COLORS)} models, more cannot be told apart, found "
            f"{len(asked)}; choose among {listed(there)}."
        )
    return asked


def drawn_levels(levels: Any, intervals: dict[float, tuple[str, str]], what: str) -> list[float]:
    """Levels to draw, the narrowest first: those asked for, or all there are.

    Raises:
        ColumnError: If one that was asked for is not there.
    """
    if levels is None:
        return list(intervals)
    levels = several(levels)
    for level in levels:
        if isinstance(level, bool) or not isinstance(level, int | float):
            raise ArgumentError(
                f"levels must be numbers in per cent, found {level!r}.", name="levels"
            )
        if float(level) not in intervals:
            found = ", ".join(f"{one:g}" for one in intervals) or "none"
            raise ColumnError(
                f"levels must be among those that {what} hold, found {level:g}; there are: "
                f"{found}. Ask the forecaster for it: level=({level:g},)."
            )
    return sorted(float(level) for level in levels)


def listed(values: Iterable[Any], most: int = 6) -> str:
    """Writes a few values, and how many there are in all if there are more."""
    values = list(values)
    shown = ", ".join(repr(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"
