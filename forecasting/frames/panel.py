"""Panel, many series of unequal length as flat arrays: what stands behind every frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.time.index import TimeIndex

__all__ = ["Future", "Panel", "order_of"]


@dataclass(frozen=True)
class Panel:
    """Series one after the other, each in the order of time, gaps filled with NaN.

    Args:
        ids: Identifiers ``(N,)``, in the order of their first appearance.
        offsets: Series ``i`` has the rows ``offsets[i]`` to ``offsets[i + 1]`` ``(N + 1,)``.
        t: Time of each row in steps of the time index, float64 ``(R,)``.
        y: Targets, NaN where missing, float64 ``(R, D)``.
        future: Covariates known ahead, finite, float64 ``(R, U)``.
        past: Covariates known up to the present, NaN where missing, float64 ``(R, P)``.
        real: Static real features, float64 ``(N, A)``.
        codes: Static categories, int64 ``(N, C)``; 0 is a category not seen in training.
        row: Position of each row in the frame as given; -1 for rows that fill a gap ``(R,)``.
        time_index: Steps to time stamps and back.
        ends: Stamp of the last row of each series, in ticks ``(N,)``; None where its time says it.
        unread: Rows that came second in an hour that comes twice, and were not read.
        targets: Names of the targets ``(D,)``; empty where nothing says them.
    """

    ids: np.ndarray
    offsets: np.ndarray
    t: np.ndarray
    y: np.ndarray
    future: np.ndarray
    past: np.ndarray
    real: np.ndarray
    codes: np.ndarray
    row: np.ndarray
    time_index: TimeIndex
    ends: np.ndarray | None = None
    unread: int = 0
    targets: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Number of series ``N``."""
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Number of rows ``R``, those that fill gaps included."""
        return len(self.t)

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each series ``(N,)``."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> np.ndarray:
        """Series of each row ``(R,)``."""
        return np.repeat(np.arange(self.batch), self.lengths)

    @property
    def last(self) -> np.ndarray:
        """Time of the last row of each series ``(N,)``."""
        return self.t[self.offsets[1:] - 1]

    @property
    def end(self) -> np.ndarray:
        """Stamp of the last row of each series, in ticks ``(N,)``."""
        if self.ends is not None:
            return self.ends
        return self.time_index.ticks(self.time_index.stamps(self.last))

    @property
    def open(self) -> np.ndarray:
        """Rows that there may be, not those of a left out hour or a holiday ``(R,)``."""
        return self.time_index.open(self.t)

    @property
    def order(self) -> np.ndarray:
        """The series in the order of their identifiers ``(N,)``."""
        return order_of(self.ids)

    def ordered(self) -> tuple["Panel", np.ndarray]:
        """The series by their identifiers, and where each row of this panel is there ``(R,)``."""
        order = self.order
        return self.select(order), np.argsort(_ranges(self.offsets[order], self.lengths[order]))

    def series(self, i: int) -> slice:
        """Rows of series ``i``."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def select(self, index: np.ndarray | slice | Sequence[int]) -> "Panel":
        """Picks series, in the order of ``index``."""
        everyone = np.arange(self.batch)
        chosen = everyone[index]
        if np.array_equal(chosen, everyone):
            return self
        lengths = self.lengths[chosen]
        return self._take(chosen, _ranges(self.offsets[chosen], lengths), lengths)

    def keep(self, mask: np.ndarray) -> "Panel":
        """Keeps the rows of a mask ``(R,)``; every series must keep one."""
        if mask.all():
            return self
        lengths = np.bincount(self.owner[mask], minlength=self.batch)
        return self._take(np.arange(self.batch), np.flatnonzero(mask), lengths)

    def tail(self, n: int) -> "Panel":
        """Keeps the last ``n`` rows of each series."""
        lengths = np.minimum(self.lengths, n)
        rows = _ranges(self.offsets[1:] - lengths, lengths)
        return self._take(np.arange(self.batch), rows, lengths)

    def drop_tail(self, n: int | np.ndarray) -> "Panel":
        """Drops the last ``n`` rows of each series, but leaves each at least its first row."""
        lengths = np.maximum(self.lengths - n, 1)
        return self._take(np.arange(self.batch), _ranges(self.offsets[:-1], lengths), lengths)

    def reaching(self, n: int) -> np.ndarray:
        """How many rows at the end of each series hold its last ``n`` open ones ``(N,)``.

        Rows before them that are not open are counted too, so that what is left ends with a row.
        """
        if not self.time_index.folded:
            return np.minimum(n, self.lengths)
        open_ = self.open
        found = []
        for i in range(self.batch):
            place = np.flatnonzero(open_[self.series(i)])
            kept = place[max(len(place) - n, 0) - 1] + 1 if len(place) > n else 0
            found.append(self.lengths[i] - kept)
        return np.array(found)

    @classmethod
    def join(cls, panels: Sequence["Panel"]) -> "Panel":
        """Puts panels on one time index behind one another, series after series."""
        starts = np.cumsum([0, *(p.rows for p in panels[:-1])])
        ends = [p.offsets[1:] + start for p, start in zip(panels, starts, strict=True)]
        names = ("ids", "t", "y", "future", "past", "real", "codes", "row")
        return replace(
            panels[0],
            offsets=np.concatenate([[0], *ends]).astype(np.int64),
            ends=None,
            **{name: np.concatenate([getattr(p, name) for p in panels]) for name in names},
        )

    def followed(self, later: "Panel") -> "Panel":
        """The same series, each with the rows that follow in another panel."""
        n = self.batch
        both = Panel.join([self, later]).select(np.arange(2 * n).reshape(2, n).T.reshape(-1))
        return replace(
            both,
            ids=self.ids,
            offsets=both.offsets[::2],
            real=self.real,
            codes=self.codes,
            ends=later.ends,
        )

    def extended(self, future: "Future") -> "Panel":
        """A panel in which every series goes on, with values that are missing."""
        h = future.horizon
        place = np.repeat(self.offsets[1:], h)

        def behind(rows: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.insert(rows, place, new, axis=0)

        def blank(rows: np.ndarray) -> np.ndarray:
            return behind(rows, np.full((len(place), rows.shape[1]), np.nan))

        return replace(
            self,
            offsets=self.offsets + h * np.arange(self.batch + 1),
            t=behind(self.t, future.t.reshape(-1)),
            y=blank(self.y),
            future=behind(self.future, future.u.reshape(len(place), -1)),
            past=blank(self.past),
            row=behind(self.row, np.full(len(place), -1)),
        )

    def _take(self, series: np.ndarray, rows: np.ndarray, lengths: np.ndarray) -> "Panel":
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ends = None
        if self.ends is not None and len(rows):
            last = self.t[rows[offsets[1:] - 1]]
            moved = self.time_index.ticks(self.time_index.stamps(last))
            ends = np.where(last == self.last[series], self.ends[series], moved)
        return replace(
            self,
            ids=self.ids[series],
            offsets=offsets,
            ends=ends,
            t=self.t[rows],
            y=self.y[rows],
            future=self.future[rows],
            past=self.past[rows],
            real=self.real[series],
            codes=self.codes[series],
            row=self.row[rows],
        )

    def name(self, i: int) -> str:
        """Series ``i`` as errors call it."""
        return f"id {_plain(self.ids[i])!r}"

    def column(self, d: int) -> str:
        """Target ``d`` as errors call it."""
        return f"column {self.targets[d]!r}" if self.targets else f"target {d + 1}"

    def wrong(self, r: int, d: int, message: str) -> TargetError:
        """An error about a value, whose place comes before the message."""
        i = int(np.searchsorted(self.offsets, r, side="right")) - 1
        row = int(self.row[r])
        return TargetError(
            f"{self.column(d)}, {self.name(i)}, row {row}: {message}",
            column=self.targets[d] if self.targets else None,
            id=self.ids[i],
            row=row,
        )


class Future(NamedTuple):
    """Steps to forecast.

    Attributes:
        t: Times in steps of the time index ``(N, H)``.
        u: Covariates known ahead ``(N, H, U)``.
        place: Which steps are wanted as rows, one after the other ``(N, R)``; None for all.
        stamps: Stamps of those rows ``(N, R)``.
    """

    t: np.ndarray
    u: np.ndarray
    place: np.ndarray | None = None
    stamps: np.ndarray | None = None

    @property
    def horizon(self) -> int:
        """Number of steps ``H``."""
        return self.t.shape[1]

    def select(self, index: np.ndarray | slice) -> "Future":
        """Picks series."""
        return Future(*(None if x is None else x[index] for x in self))  # type: ignore[arg-type]

    @property
    def rows(self) -> int:
        """Number of rows that are wanted of each series."""
        return self.horizon if self.place is None else self.place.shape[1]

    def wanted(self, values: np.ndarray) -> np.ndarray:
        """Values ``(S, N, H, D)`` of the rows that are wanted ``(S, N, R, D)``."""
        if self.place is None:
            return values
        return np.take_along_axis(values, self.place[None, :, :, None], 2)


def order_of(ids: np.ndarray) -> np.ndarray:
    """Identifiers in an order that does not depend on the one in which they come ``(N,)``."""
    keys = [(type(_plain(id)).__name__, str(id)) for id in ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of several runs of rows, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(
        starts - np.concatenate([[0], ends[:-1]]), lengths
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
