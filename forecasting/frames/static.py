"""Statics, features of a series that do not change with time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import narwhals as nw
import numpy as np

from seqlatent.forecasting.errors import ColumnError, CovariateError
from seqlatent.forecasting.errors.locate import plain
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.table import Table
from seqlatent.forecasting.values import floats, is_object, kind_of, missing

__all__ = []


@dataclass(frozen=True)
class Statics:
    """Names and kinds of the static features of training, and what is needed to code them.

    Args:
        reals: Names of the numeric features.
        means: Mean of each in training.
        scales: Standard deviation of each in training; 1 where it was constant.
        categories: Names of the categorical features.
        vocabularies: Values of each in training, sorted, in the order of their codes 1, 2, ...
    """

    reals: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    vocabularies: tuple[tuple[Any, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all features."""
        return (*self.reals, *self.categories)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical feature, with 0 for a value not seen in training."""
        return tuple(len(vocabulary) + 1 for vocabulary in self.vocabularies)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        vocabularies = [[*map(encoded, values)] for values in self.vocabularies]
        return {**asdict(self), "vocabularies": vocabularies}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Statics":
        """Reads what :meth:`to_dict` gave."""
        vocabularies = tuple(tuple(map(decoded, values)) for values in d["vocabularies"])
        rest = {name: tuple(d[name]) for name in ("reals", "means", "scales", "categories")}
        return cls(**rest, vocabularies=vocabularies)


def read_static(
    frame: Any,
    ids: np.ndarray,
    columns: Columns | None = None,
    *,
    statics: Statics | None = None,
) -> tuple[np.ndarray, np.ndarray, Statics]:
    """Reads static features, one row per series.

    Strings, categories and booleans become codes, numbers are standardised; a number that names
    something (a region, a store) should come as a string. Rows of other series are ignored, and
    so are, after training, columns that training did not have.

    Args:
        frame: Pandas or polars frame with a column of identifiers; None for no features.
        ids: Identifiers of the series to read ``(N,)``.
        columns: Names of the columns.
        statics: Features of training; None in training.

    Returns:
        Real features ``(N, A)``, codes ``(N, C)``, and the features of training.

    Raises:
        CovariateError: If a series is absent, comes twice, or has a missing or infinite value.
        ColumnError: If a column is missing or holds neither numbers nor categories.
    """
    if frame is None:
        if statics is not None and statics.names:
            raise CovariateError(
                f"static_df: expected the static features of training, {list(statics.names)}, "
                "found no static_df. Give it.",
                column=statics.names[0],
            )
        return np.zeros((len(ids), 0)), np.zeros((len(ids), 0), np.int64), Statics()
    columns = Columns() if columns is None else columns
    table = Table.open(frame, columns, "static_df")
    table.require([columns.id, *(statics.names if statics is not None else ())])
    place = _places(table, ids)
    names = [name for name in table.frame.columns if name != columns.id]
    kinds = {name: _kind(table, name) for name in names if statics is None or name in statics.names}
    if statics is None:
        statics = _learned(table, place, kinds, ids)
    for name, kind in kinds.items():
        expected = "real" if name in statics.reals else "category"
        if kind != expected:
            words = {"real": "numbers", "category": "strings or categories"}
            raise ColumnError(
                f"static_df: column {name!r}: expected {words[expected]} as in training, found "
                f"{words[kind]}. Convert it with astype.",
                column=name,
            )
    real = np.zeros((len(ids), len(statics.reals)))
    for i, name in enumerate(statics.reals):
        real[:, i] = (_reals(table, name, place, ids) - statics.means[i]) / statics.scales[i]
    codes = np.zeros((len(ids), len(statics.categories)), np.int64)
    for i, name in enumerate(statics.categories):
        known = {_key(value): code for code, value in enumerate(statics.vocabularies[i], 1)}
        values = _values(table, name, place, ids)
        codes[:, i] = [known.get(_key(value), 0) for value in values]
    return real, codes, statics


def _places(table: Table, ids: np.ndarray) -> np.ndarray:
    """Row of each series ``(N,)``."""
    id_name = table.columns.id
    found, codes = table.factorised()
    counts = np.bincount(codes, minlength=len(found))
    if counts.max() > 1:
        id = plain(found[np.argmax(counts > 1)])
        row = int(np.flatnonzero(codes == np.argmax(counts > 1))[1])
        raise CovariateError(
            f"static_df: column {id_name!r}, id {id!r}, row {row}: expected one row per series, "
            "found a second one. Drop one: static_df.drop_duplicates().",
            column=id_name,
            id=id,
            row=row,
        )
    table.agree(found, codes, ids.tolist())
    place = {id: row for row, id in enumerate(found.tolist())}
    for id in ids.tolist():
        if id not in place:
            raise CovariateError(
                f"static_df: column {id_name!r}: expected a row for every series, found none for "
                f"id {id!r}{other_type(id, found)}. Add it.",
                column=id_name,
                id=id,
            )
    return np.array([place[id] for id in ids.tolist()], np.int64)


def other_type(id: Any, found: Sequence[Any] | np.ndarray) -> str:
    """A hint where identifiers are of another type than those looked for."""
    other = plain(found[0]) if len(found) else id
    if isinstance(other, str) == isinstance(id, str):
        return ""
    return f" (its identifiers are such as {other!r}, of type {type(other).__name__})"


def _kind(table: Table, name: str) -> str:
    column = table.column(name)
    dtype = column.dtype
    found: Any = None
    if is_object(column):
        values = np.array(column.to_list(), object)[~missing(column)]
        kinds = {"category" if isinstance(v, str | bool | np.bool_) else "other" for v in values}
        if kinds <= {"category"}:
            return "category"
        if not floats(column).wrong.any():
            return "real"
        found = plain(values[0])
    elif dtype in (nw.String, nw.Categorical, nw.Enum, nw.Boolean):
        return "category"
    elif dtype.is_numeric():
        return "real"
    else:
        found = plain(column[0])
    raise ColumnError(
        f"static_df: column {name!r}: expected numbers, strings, categories or booleans, found "
        f"{found!r} in a column of dtype {table.series(name).dtype}. Convert it or drop it.",
        column=name,
    )


def _learned(table: Table, place: np.ndarray, kinds: dict[str, str], ids: np.ndarray) -> Statics:
    reals = tuple(name for name, kind in kinds.items() if kind == "real")
    # sorted, so that neither sums nor codes follow the order of the series
    values = [np.sort(_reals(table, name, place, ids)) for name in reals]
    same = [not len(v) or v[0] == v[-1] for v in values]  # the mean of equal values can round
    categories = tuple(name for name, kind in kinds.items() if kind == "category")
    vocabularies = tuple(
        tuple(sorted({_key(v): v for v in found}.values(), key=lambda v: (kind_of(v), str(v))))
        for found in (_values(table, name, place, ids) for name in categories)
    )
    return Statics(
        reals,
        tuple(
            float(v[:1].mean() if one else v.mean()) for v, one in zip(values, same, strict=True)
        ),
        tuple(1.0 if one else float(v.std()) for v, one in zip(values, same, strict=True)),
        categories,
        vocabularies,
    )


def _key(value: Any) -> tuple[str, Any]:
    """A value that is equal to no value of another type: 1 is not True."""
    return kind_of(value), value


def _reals(table: Table, name: str, place: np.ndarray, ids: np.ndarray) -> np.ndarray:
    owner = np.zeros(len(table), np.int64)
    owner[place] = np.arange(len(ids))
    rows = table.rows(ids, owner, name)
    inside = np.zeros(len(table), bool)
    inside[place] = True
    values = table.numbers(name, rows, CovariateError, "", inside)
    _complete(np.isnan(values)[place], name, place, ids)
    return values[place]


def _values(table: Table, name: str, place: np.ndarray, ids: np.ndarray) -> list[Any]:
    _complete(table.missing(name)[place], name, place, ids)
    found = table.series(name).to_list()
    return [plain(found[i]) for i in place]


def _complete(missing: np.ndarray, name: str, place: np.ndarray, ids: np.ndarray) -> None:
    if missing.any():
        i = int(np.argmax(missing))
        id, row = plain(ids[i]), int(place[i])
        raise CovariateError(
            f"static_df: column {name!r}, id {id!r}, row {row}: expected a value, found a missing "
            "one. Fill it in.",
            column=name,
            id=id,
            row=row,
        )
