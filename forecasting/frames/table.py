"""Tables, the columns of a pandas or polars frame as arrays."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import ColumnError, DataError, TimeError
from seqlatent.forecasting.errors.locate import Rows, plain
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.identifiers import unstorable
from seqlatent.forecasting.frames.ranges import DOUBLE, range_of, too_large
from seqlatent.forecasting.frames.timestamps import Times, read_times
from seqlatent.forecasting.values import floats, is_object, kind_of, missing, told, warn_of_digits
from seqlatent.spelling import meant

__all__ = []

_FEW = 100  # rows


@dataclass(frozen=True)
class Table:
    """A frame, opened.

    Args:
        frame: The frame, behind the interface that pandas and polars share.
        columns: Names of the columns.
        name: What errors call the frame.
        row: Position of each row in the frame as given, where it was not a long one.
        freq: Alias of the frequency, where an index has one.
    """

    frame: nw.DataFrame
    columns: Columns
    name: str = "df"
    row: np.ndarray | None = None
    freq: str | None = None
    _opened: dict[str, nw.Series] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, frame: Any, columns: Columns, name: str = "df") -> "Table":
        """Opens a long frame."""
        if isinstance(frame, pd.DataFrame):
            _check_labels(frame, name)
        elif nw.dependencies.is_polars_lazyframe(frame):
            raise TypeError(f"{name}: expected a frame with data, found a LazyFrame. Collect it.")
        elif not nw.dependencies.is_polars_dataframe(frame):
            raise TypeError(
                f"{name}: expected a pandas or polars DataFrame, found {type(frame).__name__}."
            )
        table = cls(nw.from_native(frame, eager_only=True), columns, name)
        if not len(table.frame):
            raise DataError(f"{name}: expected at least one row, found an empty frame.")
        return table

    @property
    def pandas(self) -> bool:
        """Whether the frame is one of pandas."""
        return self.frame.implementation.is_pandas()

    @property
    def backend(self) -> str:
        """``"pandas"`` or ``"polars"``."""
        return "pandas" if self.pandas else "polars"

    def __len__(self) -> int:
        return len(self.frame)

    def require(self, names: Sequence[str], hint: Callable[[], str] = str) -> None:
        """Makes sure that columns are there."""
        held = self.frame.columns
        for name in names:
            if name not in held:
                raise ColumnError(
                    f"{self.name}: expected a column {name!r}, found {_listed(held)}."
                    f"{meant(name, held)}{hint()}",
                    column=name,
                )

    def column(self, name: str) -> nw.Series:
        """A column, behind the interface that pandas and polars share."""
        if name not in self._opened:
            self._opened[name] = self.frame.get_column(name)
        return self._opened[name]

    def series(self, name: str) -> Any:
        """A column as pandas or polars have it."""
        return self.column(name).to_native()

    def missing(self, name: str) -> np.ndarray:
        """Which cells of a column are None, NaN, NA or NaT ``(R,)``."""
        return missing(self.column(name))

    def position(self, i: int) -> int:
        """Row of the frame as given."""
        return int(i if self.row is None else self.row[i])

    def factorised(self) -> tuple[np.ndarray, np.ndarray]:
        """Identifiers ``(N,)`` in the order of their first appearance, and number of each row."""
        name = self.columns.id
        missing = self.missing(name)
        if missing.any():
            row = self.position(int(np.argmax(missing)))
            raise ColumnError(
                f"{self.name}: column {name!r}, row {row}: expected an identifier, found a missing "
                "value. Drop the row or name its series.",
                column=name,
                row=row,
            )
        series: Any = self.series(name)
        if is_object(self.column(name)):
            series = np.asarray(series, dtype=object)  # an index would guess at a type
        if not self.pandas:
            column = self.column(name)
            if column.dtype in (nw.Categorical, nw.Enum):
                column = column.cast(nw.String)
            series = column.to_numpy()
        elif len(self) <= _FEW and isinstance(series.dtype, pd.StringDtype):
            series = series.to_numpy(object)  # what arrow takes to begin with outlasts a few rows
        codes, uniques = pd.factorize(series)
        ids = np.asarray(uniques)
        if ids.dtype.kind not in "iub":
            ids = ids.astype(object)
        for i in unstorable(ids):
            row, id = self.position(int(np.argmax(codes == i))), ids[i]
            raise ColumnError(
                f"{self.name}: column {name!r}, row {row}: expected identifiers that are "
                f"strings or integers, found {told(id)} of type {type(id).__name__}. "
                f"Make strings of them: df[{name!r}].astype(str).",
                column=name,
                row=row,
            )
        if is_object(self.column(name)):
            self._of_one_kind(ids, np.asarray(codes))
        return ids, np.asarray(codes)

    def _of_one_kind(self, ids: np.ndarray, codes: np.ndarray) -> None:
        """Refuses identifiers that are equal but of another type, such as 1 and True."""
        name = self.columns.id
        kinds = np.array([kind_of(id) for id in ids], object)
        found = self.series(name).to_list()
        for i in np.flatnonzero((kinds != "str")[codes]):
            if kind_of(found[i]) != kinds[codes[i]]:
                raise self._equal(self.position(int(i)), found[i], ids[codes[i]])

    def agree(self, ids: np.ndarray, codes: np.ndarray, known: Iterable[Any]) -> None:
        """Refuses identifiers that are equal to known ones only as True is to 1.

        Args:
            ids: Identifiers of the frame ``(N,)``.
            codes: Number of each row ``(R,)``.
            known: Identifiers seen before.
        """
        before = {id: id for id in known}
        for i, id in enumerate(ids.tolist()):
            other = before.get(id, id)
            same = type(other) is type(id)
            if not same and (kind_of(other) == "bool") != (kind_of(id) == "bool"):
                raise self._equal(self.position(int(np.argmax(codes == i))), id, other)

    def _equal(self, row: int, id: Any, other: Any) -> ColumnError:
        id, other, name = plain(id), plain(other), self.columns.id
        return ColumnError(
            f"{self.name}: column {name!r}, row {row}: expected identifiers that differ, found "
            f"{id!r} of type {type(id).__name__}, which is equal to {other!r} of type "
            f"{type(other).__name__}. Make strings of them: df[{name!r}].astype(str).",
            column=name,
            id=id,
            row=row,
        )

    def rows(self, ids: np.ndarray, codes: np.ndarray, column: str | None = None) -> Rows:
        """The rows of the frame, as errors call them."""
        row = np.arange(len(codes)) if self.row is None else self.row
        return Rows(column or self.columns.time, ids, codes, row, self.name)

    def times(self, rows: Rows) -> Times:
        """The column of time stamps."""
        name = self.columns.time
        missing = self.missing(name)
        if missing.any():
            raise rows.error(
                TimeError,
                rows.first(missing),
                "expected a time stamp, found a missing value. Drop the row or correct it.",
            )
        return read_times(self.column(name), rows)

    def numbers(
        self,
        name: str,
        rows: Rows,
        kind: type[DataError],
        advice: str,
        inside: np.ndarray | None = None,
    ) -> np.ndarray:
        """A column as float64, missing cells as NaN ``(R,)``.

        Args:
            name: Name of the column.
            rows: Names for errors.
            kind: Error about values.
            advice: What to do where the column holds no numbers.
            inside: Rows that are going to be used; None for all.

        Raises:
            DataError: Of the ``kind`` asked for, if it holds no numbers, or an infinite one or one
                that is larger than models compute with.
        """
        column = self.column(name)
        values, wrong, beyond, rounded = floats(column)
        if wrong.any():
            i = rows.first(wrong)
            raise rows.error(
                kind,
                i,
                f"expected numbers, found {plain(column[i])!r} in a column of dtype "
                f"{self.series(name).dtype}. {advice}",
                name,
            )
        infinite = np.isinf(values)
        infinite = infinite if inside is None else infinite & inside
        if infinite.any():
            i = rows.first(infinite)
            if beyond[i]:
                raise rows.error(kind, i, too_large(told(plain(column[i])), DOUBLE), name)
            raise rows.error(
                kind,
                i,
                f"expected a finite number, found {values[i]}. Correct it, or write a missing "
                "value (NaN) if it is not known.",
                name,
            )
        large = np.abs(values) > DOUBLE
        large = large if inside is None else large & inside
        if large.any():
            i = rows.first(large)
            raise rows.error(kind, i, range_of(values[i], DOUBLE), name)
        if rounded.any():
            i = rows.first(rounded)
            warn_of_digits(rows.place(i, name), plain(column[i]), float(values[i]))
        return values


def _check_labels(frame: pd.DataFrame, name: str) -> None:
    if isinstance(frame.columns, pd.MultiIndex):
        raise ColumnError(
            f"{name}: expected plain column names, found {frame.columns.nlevels} levels of them. "
            "Make it long, one row per series and time stamp: df.stack().reset_index()."
        )
    for label in frame.columns:
        if not isinstance(label, str):
            raise ColumnError(
                f"{name}: expected column names that are strings, found {label!r}. Rename it."
            )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()]
        raise ColumnError(
            f"{name}: expected each column once, found {twice[0]!r} twice. Drop one.",
            column=twice[0],
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return f"{shown}, ..." if len(names) > 12 else shown or "no columns"
