"""Windows, batches of Sequences cut out of a panel: at random for training, whole for filtering."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.panel import Panel
from seqlatent.sequences import Sequences

__all__ = ["Numbers", "Windows", "batches", "whole"]


@dataclass(frozen=True)
class Numbers:
    """A panel as a model reads it: rows in flat arrays, what is static per series.

    Args:
        panel: The panel, whose targets may have been transformed.
        u: Covariates of every row ``(R, U)``.
        codes: Static codes as the model numbers them ``(N, C)``.
        shift: Shift of each series ``(N, D)``.
        scale: Scale of each series ``(N, D)``.
        dtype: Type of the model's parameters.
    """

    panel: Panel
    u: np.ndarray
    codes: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    dtype: torch.dtype

    def cut(self, series: np.ndarray, start: np.ndarray, length: int) -> Sequences:
        """Cuts ``length`` rows from each of some series, padded where a series ends.

        Args:
            series: Which series ``(B,)``.
            start: First row of each, counted from the series' own first ``(B,)``.
            length: Rows.
        """
        panel = self.panel
        first = panel.offsets[series] + start
        rows = first[:, None] + np.arange(length)
        inside = rows < panel.offsets[series + 1][:, None]
        rows = np.minimum(rows, panel.offsets[series + 1][:, None] - 1)
        y = np.where(inside[..., None], panel.y[rows], np.nan)
        # beyond its last row a series goes on in steps of one
        over = np.cumsum(~inside, 1)
        t = panel.t[rows] + over
        return Sequences.of(
            self._tensor(y),
            t=self._tensor(t),
            u=self._tensor(np.where(inside[..., None], self.u[rows], 0.0)),
            codes=torch.from_numpy(self.codes[series]),
            shift=self._tensor(self.shift[series]),
            scale=self._tensor(self.scale[series]),
        )

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)


@dataclass(frozen=True)
class Windows:
    """Draws training batches: a function of a generator, as :func:`seqlatent.fit` takes it.

    Series are drawn in proportion to the windows that they hold, up to a limit, and windows
    uniformly along a series. The past covariates of each window are hidden after a random row, as
    they are when one forecasts.

    Args:
        numbers: The panel.
        length: Rows of a window.
        batch_size: Windows of a batch.
        flags: Where past covariates and their flags lie in ``u``.
        most: How many times more often a long series is drawn than one of a single window.
    """

    numbers: Numbers
    length: int
    batch_size: int
    flags: slice
    most: float = 20.0

    def __call__(self, generator: torch.Generator) -> Sequences:
        lengths = self.numbers.panel.lengths
        weight = torch.from_numpy(np.clip(lengths / self.length, 1.0, self.most))
        size = min(self.batch_size, max(len(lengths), 8))
        index = torch.multinomial(weight, size, replacement=True, generator=generator).numpy()
        room = np.maximum(lengths[index] - self.length, 0)
        place = torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        start = np.minimum((place * (room + 1)).astype(np.int64), room)
        longest = int(min(self.length, lengths[index].max()))
        batch = self.numbers.cut(index, start, longest)
        if self.flags.start < self.flags.stop:
            known = torch.randint(1, longest + 1, (size, 1), generator=generator)
            hidden = torch.arange(longest) >= known
            batch.u[:, :, self.flags].masked_fill_(hidden[..., None], 0.0)
        return batch


def batches(lengths: np.ndarray, cells: int, most: int = 4096) -> Iterator[np.ndarray]:
    """Groups series of similar length, so that a padded batch has at most so many rows.

    Args:
        lengths: Rows of each series.
        cells: Most rows of a padded batch, unless one series alone has more.
        most: Most series of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    i = 0
    while i < len(order):
        size = int(np.clip(cells // max(int(lengths[order[i]]), 1), 1, most))
        yield order[i : i + size]
        i += size


def whole(numbers: Numbers, series: np.ndarray, context: int | None = None) -> Sequences:
    """All rows of some series, or the last ``context`` of each, padded to the longest."""
    lengths = numbers.panel.lengths[series]
    kept = lengths if context is None else np.minimum(lengths, context)
    return numbers.cut(series, lengths - kept, int(kept.max()))
