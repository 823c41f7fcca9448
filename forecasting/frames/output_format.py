"""Style, how frames are given back: in the kind, types and time zone in which one came in."""

from dataclasses import asdict, dataclass, field
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.frames.table import Table

__all__ = ["as_given"]


@dataclass(frozen=True)
class OutputFormat:
    """The kind of a frame and the types of its identifiers and time stamps.

    Args:
        columns: Names of the columns.
        backend: ``"pandas"`` or ``"polars"``.
        id: Type of the identifiers, as the backend writes it.
        time: Type of the time stamps, as the backend writes it.
        tz: Time zone of the time stamps.
        categories: Identifiers that a categorical type knows, in its order.
        ordered: Whether their order means something.
    """

    columns: Columns = field(default_factory=Columns)
    backend: str = "pandas"
    id: str = "object"
    time: str = "datetime64[ns]"
    tz: str | None = None
    categories: tuple[Any, ...] | None = None
    ordered: bool = False

    @classmethod
    def of(cls, table: Table, tz: str | None) -> "OutputFormat":
        """The style of a table."""
        columns = table.columns
        id, time = table.series(columns.id).dtype, table.series(columns.time).dtype
        categories, ordered = None, False
        if isinstance(id, pd.CategoricalDtype):
            categories, ordered = tuple(id.categories.tolist()), bool(id.ordered)
            id = "category"
        elif not table.pandas:
            kind, time = (table.column(name).dtype for name in (columns.id, columns.time))
            time = f"Datetime[{time.time_unit}]" if isinstance(time, nw.Datetime) else str(time)
            id = str(kind)
            if isinstance(kind, nw.Enum):
                categories, id = tuple(kind.categories), "Enum"
        return cls(columns, table.backend, _name(id), _name(time), tz, categories, ordered)

    def frame(self, data: dict[str, np.ndarray]) -> Any:
        """A frame of some columns.

        Args:
            data: Columns by their names, all of one length. The columns of identifiers, and of
                time stamps and cutoffs (as a time index gives them), get the types they came in.
        """
        stamps = (self.columns.time, self.columns.cutoff)
        if self.backend == "pandas":
            built = {}
            for name, values in data.items():
                made = self._pandas_id if name == self.columns.id else pd.Series
                made = self._pandas_time if name in stamps else made
                built[name] = made(values)
            return pd.DataFrame(built)
        frame = nw.from_dict(
            {name: _for_polars(values) for name, values in data.items()},
            backend="polars",
        )
        casts = [self._cast(name, data[name]) for name in data if name in stamps]
        if self.columns.id in data:
            casts.append(nw.col(self.columns.id).cast(self._polars_id(data[self.columns.id])))
        return frame.with_columns(*casts).to_native()

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        columns = {k: v for k, v in asdict(self.columns).items() if k != "targets"}
        categories = None if self.categories is None else [*map(encoded, self.categories)]
        return {**asdict(self), "columns": columns, "categories": categories}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "OutputFormat":
        """Reads what :meth:`to_dict` gave."""
        categories = None if d["categories"] is None else tuple(map(decoded, d["categories"]))
        return cls(**{**d, "columns": Columns(**d["columns"]), "categories": categories})

    def _pandas_id(self, ids: np.ndarray) -> pd.Series:
        if self.id == "category":
            return pd.Series(pd.Categorical(ids, self._levels(ids), ordered=self.ordered))
        try:
            return pd.Series(ids).astype(pd.api.types.pandas_dtype(self.id))
        except (ValueError, TypeError, OverflowError):  # other identifiers than in training
            return pd.Series(ids)

    def _pandas_time(self, stamps: np.ndarray) -> pd.Series:
        series = pd.Series(stamps)
        if stamps.dtype.kind != "M":
            dtype: Any = pd.api.types.pandas_dtype(self.time)
            narrow = series.astype(dtype)
            return narrow if (narrow.astype(np.int64) == series).all() else series
        if self.time.startswith("period["):
            freq = self.time.removeprefix("period[").removesuffix("]")
            return pd.Series(pd.DatetimeIndex(stamps).to_period(freq))
        if self.tz is not None:
            series = series.dt.tz_localize("UTC").dt.tz_convert(self.tz)
        return series.astype(pd.api.types.pandas_dtype(self.time))

    def _polars_id(self, ids: np.ndarray) -> Any:
        if self.id == "Enum":
            return nw.Enum(self._levels(ids))
        return getattr(nw, self.id)

    def _levels(self, ids: np.ndarray) -> list[Any]:
        """Categories of training, then those of identifiers that it did not have."""
        return list(dict.fromkeys([*(self.categories or ()), *pd.unique(ids)]))

    def _cast(self, name: str, stamps: np.ndarray) -> nw.Expr:
        column = nw.col(name)
        if stamps.dtype.kind != "M":
            bounds = np.iinfo(self.time.lower())
            fits = bool(((stamps >= bounds.min) & (stamps <= bounds.max)).all())
            return column.cast(getattr(nw, self.time)) if fits else column
        if self.time == "Date":
            return column.cast(nw.Date)
        unit: Any = self.time.removeprefix("Datetime[").removesuffix("]")
        column = column.cast(nw.Datetime(unit))
        if self.tz is None:
            return column
        return column.dt.replace_time_zone("UTC").dt.convert_time_zone(self.tz)


def as_given(panel: Panel) -> np.ndarray:
    """Rows of a panel in the order of the frame that it was read from, without filled gaps."""
    order = np.argsort(panel.row, kind="stable")
    return order[np.count_nonzero(panel.row < 0) :]


def _for_polars(values: np.ndarray) -> Any:
    if values.dtype == np.dtype("datetime64[s]"):
        return values.astype("datetime64[ms]")  # the coarsest unit of polars
    return values.tolist() if values.dtype == np.dtype(object) else values


def _name(dtype: Any) -> str:
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        return f"string[{dtype.storage}]"
    return str(dtype)
