"""Batches of series for training and evaluation, drawn by a generator of their own."""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seqlatent.sequences import Sequences

__all__ = []

Sampler = Callable[[torch.Generator], Sequences]


@dataclass(frozen=True)
class Batch:
    """Series drawn for one step.

    Args:
        sequences: The series.
        index: Where each of them stands in the data ``(B,)``; None where a sampler made them.
    """

    sequences: Sequences
    index: Tensor | None = None

    @cached_property
    def cells(self) -> int:
        """Number of observed cells, at least 1."""
        return max(int(self.sequences.observed.sum()), 1)

    def share(self, rank: int, ranks: int) -> "Batch | None":
        """Picks every ``ranks``-th series; None where nothing is left for this rank."""
        if ranks == 1:
            return self
        if rank >= self.sequences.batch:
            return None
        chosen = slice(rank, None, ranks)
        index = None if self.index is None else self.index[chosen]
        return Batch(self.sequences.select(chosen), index)

    def name(self, i: int) -> str:
        """Tells a user which series stands at position ``i``."""
        return f"series {i} of the batch" if self.index is None else f"series {int(self.index[i])}"


class TrainingData:
    """Series that training draws from, in one batch object or in several of different lengths.

    Args:
        data: Sequences, or a list of them.
        name: What to call the argument in an error.

    Raises:
        TypeError: If an item is of another kind.
        ValueError: If there is nothing in it, or nothing of it was observed.
    """

    def __init__(self, data: Any, name: str = "data") -> None:
        items = [data] if isinstance(data, Sequences) else data
        if not isinstance(items, Collection):
            raise TypeError(
                f"{name} must be Sequences, a list of Sequences, or (for training) a function of a "
                f"torch.Generator that returns Sequences; found {type(data).__name__}. "
                "Build Sequences with Sequences.of(y)."
            )
        for i, item in enumerate(items):
            if not isinstance(item, Sequences):
                raise TypeError(
                    f"{name} must hold Sequences, item {i} is {type(item).__name__}; "
                    "build it with Sequences.of(y)."
                )
        if not items:
            raise ValueError(f"{name} must hold at least one series, found an empty list.")
        self.items = list(items)
        self.cells = sum(int(item.observed.sum()) for item in self.items)
        if not self.cells:
            raise ValueError(
                f"{name} must hold at least one observed cell, found every cell missing."
            )
        self.owner = torch.cat([torch.full((item.batch,), i) for i, item in enumerate(self.items)])
        self.row = torch.cat([torch.arange(item.batch) for item in self.items])
        self.batch = len(self.owner)

    def to(self, dtype: torch.dtype) -> "TrainingData":
        """Casts the values."""
        return TrainingData([item.to(dtype=dtype) for item in self.items])

    @property
    def widths(self) -> dict[str, int]:
        """Widths that data and validation must share."""
        first = self.items[0]
        return {
            "obs_dim": first.obs_dim,
            "covariate_dim": first.covariate_dim,
            "codes": first.codes.shape[1],
        }

    def take(self, index: Tensor) -> Batch:
        """Collates the series at these places, in the order of the items that they come from."""
        owner = self.owner[index]
        picked, places = [], []
        for i in owner.unique().tolist():
            here = index[owner == i]
            picked.append(self.items[i].select(self.row[here].to(self.items[i].y.device)))
            places.append(here)
        return Batch(Sequences.collate(picked), torch.cat(places))

    def all(self) -> Batch:
        """Collates every series."""
        return Batch(
            Sequences.collate(self.items) if len(self.items) > 1 else self.items[0],
            torch.arange(self.batch),
        )

    def chunks(self, size: int) -> Iterator[Batch]:
        """Cuts the data into batches of at most ``size`` series, in order."""
        if self.batch <= size:
            yield self.all()
            return
        for index in torch.arange(self.batch).split(size):
            yield self.take(index)

    def epochs(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Draws without replacement, epoch after epoch, in batches of nearly equal size."""
        if self.batch <= size:
            whole = self.all()
            while True:
                yield whole
        while True:
            order = torch.randperm(self.batch, generator=generator)
            for index in order.tensor_split(-(-self.batch // size)):
                yield self.take(index)


def sampled(sampler: Sampler, generator: torch.Generator) -> Iterator[Batch]:
    """Calls a sampler for each batch, and verifies what it returns."""
    while True:
        drawn = sampler(generator)
        if not isinstance(drawn, Sequences):
            raise TypeError(
                "data, a function, must return Sequences given a torch.Generator, found "
                f"{type(drawn).__name__}."
            )
        yield Batch(drawn)
