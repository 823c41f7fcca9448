"""States, what the past of some series says about their future, and the rows that it needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.features.anchors import reached
from seqlatent.forecasting.features.windows import Scale
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.model import Belief

__all__ = ["Past", "State", "joined", "within"]


@dataclass(frozen=True)
class Past:
    """Rows of the past that a state still needs: those since it began to be filtered.

    Args:
        rows: The rows; ids are only numbers.
        codes: Static codes as the model numbers them ``(N, C)``.
        known: Place of each series in training, -1 where it was not there ``(N,)``.
        seen: Rows of each series that were seen, those forgotten included ``(N,)``.
        reached: How many of them lie up to the last one with a value ``(N,)``.
    """

    rows: Panel
    codes: np.ndarray
    known: np.ndarray
    seen: np.ndarray
    reached: np.ndarray

    @classmethod
    def of(cls, panel: Panel, codes: np.ndarray, known: np.ndarray) -> "Past":
        """All rows of a panel."""
        rows = replace(panel, ids=np.arange(panel.batch), ends=None)
        return cls(rows, codes, known, panel.lengths, reached(panel)[panel.offsets[1:] - 1])

    @property
    def first(self) -> np.ndarray:
        """Number of the first row that is kept ``(N,)``."""
        return self.seen - self.rows.lengths

    @property
    def last(self) -> np.ndarray:
        """Past covariates of the last row ``(N, P)``."""
        return self.rows.past[self.rows.offsets[1:] - 1]

    def select(self, index: np.ndarray) -> "Past":
        """Picks series."""
        return Past(self.rows.select(index), *(getattr(self, name)[index] for name in _SERIES))

    @classmethod
    def join(cls, items: Sequence["Past"]) -> "Past":
        """Series after series."""
        return cls(
            Panel.join([p.rows for p in items]),
            *(np.concatenate([getattr(p, name) for p in items]) for name in _SERIES),
        )

    def followed(self, panel: Panel) -> "Past":
        """The same series after more rows."""
        rows = self.rows.followed(replace(panel, ends=None))
        new = reached(panel)[panel.offsets[1:] - 1]
        last = np.where(new > 0, self.seen + new, self.reached)
        return replace(self, rows=rows, seen=self.seen + panel.lengths, reached=last)

    def since(self, first: np.ndarray) -> "Past":
        """Without the rows before some number of each series."""
        nth = np.arange(self.rows.rows) - self.rows.offsets[self.rows.owner]
        keep = nth >= (first - self.first)[self.rows.owner]
        return self if keep.all() else replace(self, rows=self.rows.keep(keep))

    def tensors(self) -> dict[str, Tensor]:
        """Rows and numbers, to be saved."""
        arrays = {name: getattr(self.rows, name) for name in _ROWS}
        arrays |= {name: getattr(self, name) for name in _SERIES}
        arrays["static"] = self.rows.codes
        return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], time_index: TimeIndex) -> "Past":
        """Reads what :meth:`tensors` gave."""
        a = {name: tensor.numpy() for name, tensor in tensors.items()}
        rows = Panel(
            ids=np.arange(len(a["seen"])),
            codes=a["static"],
            row=np.arange(len(a["t"])),
            time_index=time_index,
            offsets=a["offsets"],
            t=a["t"],
            y=a["y"],
            future=a["future"],
            past=a["past"],
            real=a["real"],
        )
        return cls(rows, *(a[name] for name in _SERIES))


_SERIES = ("codes", "known", "seen", "reached")
_ROWS = ("offsets", "t", "y", "future", "past", "real")


@dataclass(frozen=True)
class State:
    """What the past of some series says about their future.

    It is a function of rows: how they came, one by one or all at once, leaves no trace.

    Args:
        past: The rows of the past that may still be needed.
        beliefs: Belief of each member of the ensemble, in units of the last anchor.
        shift: Shift of each series in each transform ``(N, V, D)``.
        scale: Scale of each.
        weights: Weight of each member for each series ``(N, M)``.
    """

    past: Past
    beliefs: tuple[Belief, ...]
    shift: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def units(self, view: int) -> Scale:
        """Units of each series in a transform."""
        return Scale(self.shift[:, view], self.scale[:, view])

    def select(self, index: np.ndarray) -> "State":
        """Picks series; all of them in their order are the state itself."""
        if np.array_equal(index, np.arange(len(self.weights))):
            return self
        place = torch.from_numpy(np.asarray(index, dtype=np.int64))
        return State(
            self.past.select(index),
            tuple(b.select(place) for b in self.beliefs),
            *(getattr(self, name)[index] for name in _OWN),
        )

    @classmethod
    def join(cls, states: Sequence["State"]) -> "State":
        """Series after series."""
        if len(states) == 1:
            return states[0]
        beliefs = zip(*(s.beliefs for s in states), strict=True)
        return cls(
            Past.join([s.past for s in states]),
            tuple(Belief.join(member) for member in beliefs),
            *(np.concatenate([getattr(s, name) for s in states]) for name in _OWN),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that it is made of, to be saved."""
        found = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _OWN}
        found |= {f"past.{name}": x for name, x in self.past.tensors().items()}
        for i, belief in enumerate(self.beliefs):
            found |= {f"belief-{i}.{name}": x for name, x in belief.tensors().items()}
        return found

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, Tensor], members: int, time_index: TimeIndex
    ) -> "State":
        """Reads what :meth:`tensors` gave."""
        beliefs = (Belief.of_tensors(within(f"belief-{i}.", tensors)) for i in range(members))
        past = Past.of_tensors(within("past.", tensors), time_index)
        return cls(past, tuple(beliefs), *(tensors[name].numpy() for name in _OWN))


def within(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin alike, by the rest of their names."""
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


_OWN = tuple(f.name for f in fields(State) if f.name not in ("past", "beliefs"))


def joined(parts: Sequence[Sequence[Belief]], order: Sequence[np.ndarray]) -> tuple[Belief, ...]:
    """Beliefs of each member, of groups of series, in the order of the series."""
    place = np.concatenate(order)
    if len(parts) == 1 and np.array_equal(place, np.arange(len(place))):
        return tuple(parts[0])
    back = torch.from_numpy(np.argsort(place))
    return tuple(Belief.join(member).select(back) for member in zip(*parts, strict=True))
