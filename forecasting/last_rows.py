"""Tails, where each series stands, and how new rows follow."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.errors import CovariateError, TimeError
from seqlatent.forecasting.errors.locate import shown
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.index import TimeIndex

__all__ = ["LastRows"]


@dataclass(frozen=True)
class Follow:
    """How the states of a forecaster move over new rows.

    Args:
        known: Series that had a state and have new rows, by their place in the state.
        rows: Their new rows, gaps since the last one filled; None where there are none.
        fresh: Rows of series that are new; None where there are none.
        batch: Series that had a state.
    """

    known: np.ndarray
    rows: Panel | None
    fresh: Panel | None
    batch: int

    def apply(self, engine: Engine, state: Any, seed: int) -> Any:
        """The state after the rows, series in the order of the rows that follow.

        The engine meets them in the order of their identifiers, whatever order they came in.
        """
        if self.rows is not None:
            by = self.rows.order
            known = self.known[by]
            moved = engine.update(engine.select(state, known), self.rows.select(by), seed)
            still = np.ones(self.batch, bool)
            still[known] = False
            rest = np.flatnonzero(still)
            parts = [engine.select(state, rest), moved] if len(rest) else [moved]
            order = np.argsort(np.concatenate([rest, known]))
            state = engine.select(engine.join(parts), order)
        if self.fresh is not None:
            by = self.fresh.order
            began = engine.start(self.fresh.select(by), seed)
            state = engine.join([state, engine.select(began, np.argsort(by))])
        return state


@dataclass(frozen=True)
class LastRows:
    """Last row of each series.

    Args:
        ids: Identifiers ``(N,)``.
        t: Time of the last row in steps of the time index ``(N,)``.
        real: Static numbers ``(N, A)``.
        codes: Static categories ``(N, C)``.
        time_index: Steps to time stamps and back.
        ends: Stamp of the last row in ticks, where its time does not say it ``(N,)``.
    """

    ids: np.ndarray
    t: np.ndarray
    real: np.ndarray
    codes: np.ndarray
    time_index: TimeIndex
    ends: np.ndarray | None = None

    @classmethod
    def of(cls, panel: Panel) -> "LastRows":
        """Last rows of a panel."""
        ends = panel.end if panel.time_index.wall else None
        return cls(panel.ids, panel.last, panel.real, panel.codes, panel.time_index, ends)

    def with_statics(self, panel: Panel, names: tuple[str, ...]) -> Panel:
        """A panel of series that are known, with the static features that they had."""
        place = {id: i for i, id in enumerate(self.ids)}
        for i, id in enumerate(panel.ids):
            if id not in place:
                raise CovariateError(
                    f"{panel.name(i)} is new, and the model was fitted with the static features "
                    f"{', '.join(names)}; pass static_df with a row for it.",
                    column=names[0],
                    id=id,
                )
        index = [place[id] for id in panel.ids]
        return replace(panel, real=self.real[index], codes=self.codes[index])

    def tensors(self) -> dict[str, Tensor]:
        """What is numbers, to be saved."""
        arrays = {name: getattr(self, name) for name in ("t", "real", "codes", "ends")}
        return {name: torch.from_numpy(x) for name, x in arrays.items() if x is not None}

    @classmethod
    def from_tensors(
        cls, ids: np.ndarray, time_index: dict[str, Any], tensors: dict[str, Tensor]
    ) -> "LastRows":
        """Reads what :meth:`tensors` gave."""
        t, real, codes = (tensors[name].numpy() for name in ("t", "real", "codes"))
        ends = tensors["ends"].numpy() if "ends" in tensors else None
        return cls(ids, t, real, codes, TimeIndex.from_dict(time_index), ends)

    def follow(
        self, panel: Panel, covariates: tuple[str, ...], columns: Columns
    ) -> tuple["LastRows", Follow]:
        """Verifies that new rows follow, and says how to take them in."""
        place = {id: i for i, id in enumerate(self.ids)}
        where = np.array([place.get(id, -1) for id in panel.ids], dtype=np.int64)
        old, new = np.flatnonzero(where >= 0), np.flatnonzero(where < 0)
        last_rows, rows, fresh = self, None, None
        known = panel.select(old)
        if len(old) and self.ends is not None:
            ends = self.ends.copy()
            ends[where[old]] = np.maximum(ends[where[old]], known.end)
            last_rows = replace(last_rows, ends=ends)
            kept = ~self._repeats(known, where[old], self.ends[where[old]])
            left = np.unique(known.owner[kept])
            kept = kept[np.isin(known.owner, left)]
            known, old = known.select(left), old[left]
            known = known.keep(kept) if len(old) else known
        if len(old):
            rows = self._continued(known, where[old], covariates, columns)
            t = self.t.copy()
            t[where[old]] = rows.last
            last_rows = replace(last_rows, t=t)
        if len(new):
            fresh = panel.select(new)
            last_rows = replace(
                last_rows,
                ids=np.concatenate([last_rows.ids, fresh.ids]),
                t=np.concatenate([last_rows.t, fresh.last]),
                real=np.concatenate([last_rows.real, fresh.real]),
                codes=np.concatenate([last_rows.codes, fresh.codes]),
                ends=None
                if last_rows.ends is None
                else np.concatenate([last_rows.ends, fresh.end]),
            )
        return last_rows, Follow(where[old], rows, fresh, len(self.ids))

    def _repeats(self, panel: Panel, where: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Rows that come second in an hour that comes twice, of which the first was seen."""
        seen = panel.t <= self.t[where][panel.owner]
        return seen & (self.time_index.again(panel.t) > ends[panel.owner])

    def _continued(
        self, panel: Panel, where: np.ndarray, covariates: tuple[str, ...], columns: Columns
    ) -> Panel:
        """New rows of known series, with the steps since the last row put in as missing."""
        first = panel.t[panel.offsets[:-1]]
        late = np.flatnonzero(first <= self.t[where])
        if len(late):
            i = int(late[0])
            row = int(panel.offsets[i])
            seen, found = (
                shown(self.time_index.stamps(np.array([t]))[0], self.time_index.tz)
                for t in (self.t[where[i]], panel.t[row])
            )
            raise TimeError(
                f"df: column {columns.time!r}, {panel.name(i)}, row {int(panel.row[row])}: "
                f"expected rows after the last one seen, {seen}, found {found}. Pass only rows "
                "that are new.",
                column=columns.time,
                id=panel.ids[i],
                row=int(panel.row[row]),
            )
        if self.time_index.kind == "irregular":
            return panel
        gap = np.round(first - self.t[where]).astype(np.int64) - 1
        if not gap.any():
            return panel
        for i in np.flatnonzero(gap) if covariates else ():
            steps = self.t[where[i]] + np.arange(1, gap[i] + 1)
            absent = steps[self.time_index.open(steps)]
            if not len(absent):
                continue
            missing = shown(self.time_index.stamps(absent)[0], self.time_index.tz)
            raise CovariateError(
                f"{panel.name(int(i))} has no row at {missing}, so that the covariate "
                f"{covariates[0]!r} is unknown there; add the row, its target may be NaN.",
                column=covariates[0],
                id=panel.ids[i],
            )
        return _padded(panel, gap, self.t[where])


def _padded(panel: Panel, gap: np.ndarray, last: np.ndarray) -> Panel:
    """Puts missing rows before the first one of each series."""
    lengths = panel.lengths + gap
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = int(offsets[-1])
    owner = np.repeat(np.arange(panel.batch), lengths)
    nth = np.arange(rows) - offsets[owner]
    old = nth >= gap[owner]

    def spread(x: np.ndarray, fill: int | float) -> np.ndarray:
        out = np.full((rows, *x.shape[1:]), fill, dtype=x.dtype)
        out[old] = x
        return out

    t = last[owner] + 1 + nth
    t[old] = panel.t
    future = panel.future[panel.offsets[owner]]
    future[old] = panel.future
    return replace(
        panel,
        offsets=offsets,
        t=t,
        y=spread(panel.y, np.nan),
        future=future,
        past=spread(panel.past, np.nan),
        row=spread(panel.row, -1),
    )
