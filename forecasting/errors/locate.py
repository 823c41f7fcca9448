"""Rows, the rows of a frame as errors call them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqlatent.forecasting.errors import DataError

__all__ = ["Rows", "plain", "shown"]


@dataclass(frozen=True)
class Rows:
    """Where each of some rows lies in the frame as given.

    Args:
        column: Column that errors are about unless they say otherwise.
        ids: Identifiers ``(N,)``.
        owner: Series of each row ``(R,)``.
        row: Position of each row in the frame as given ``(R,)``.
        frame: What errors call the frame.
    """

    column: str
    ids: np.ndarray
    owner: np.ndarray
    row: np.ndarray
    frame: str = "df"

    @classmethod
    def bare(cls, offsets: np.ndarray, column: str = "ds") -> "Rows":
        """Rows of arrays that no frame stands behind: series are called by their number."""
        lengths = np.diff(offsets)
        series = np.arange(len(lengths))
        return cls(column, series, np.repeat(series, lengths), np.arange(int(lengths.sum())))

    def select(self, series: np.ndarray, index: np.ndarray) -> "Rows":
        """Some rows ``index``, all of some ``series``, which are numbered anew."""
        number = np.zeros(len(self.ids), np.int64)
        number[series] = np.arange(len(series))
        owner = number[self.owner[index]]
        return replace(self, ids=self.ids[series], owner=owner, row=self.row[index])

    def first(self, mask: np.ndarray) -> int:
        """Which row of a mask ``(R,)`` comes first in the frame as given."""
        chosen = np.flatnonzero(mask)
        return int(chosen[np.argmin(self.row[chosen])])

    def error(
        self, kind: type[DataError], i: int, message: str, column: str | None = None
    ) -> DataError:
        """An error about row ``i``, with its place in front of the message."""
        column = self.column if column is None else column
        id, row = plain(self.ids[self.owner[i]]), int(self.row[i])
        return kind(f"{self.place(i, column)}: {message}", column=column, id=id, row=row)

    def place(self, i: int, column: str) -> str:
        """Row ``i`` as messages call it."""
        id, row = plain(self.ids[self.owner[i]]), int(self.row[i])
        return f"{self.frame}: column {column!r}, id {id!r}, row {row}"


def plain(value: Any) -> Any:
    """A value without numpy around it."""
    return value.item() if isinstance(value, np.generic) else value


def shown(stamp: Any, tz: str | None = None) -> str:
    """A time stamp, an integer or a datetime64 in UTC, as a person writes it."""
    if not isinstance(stamp, np.datetime64):
        return str(plain(stamp))
    import pandas as pd

    time = pd.Timestamp(stamp)
    if tz is not None:
        time = time.tz_localize("UTC").tz_convert(tz)
    text = str(time)
    return text.removesuffix(" 00:00:00")
