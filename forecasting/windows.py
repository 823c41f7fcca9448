"""Windows, batches of Sequences cut out of a panel: at random for training, whole for filtering."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.panel import Panel
from seqlatent.forecasting.scaling import local, span
from seqlatent.sequences import Sequences

__all__ = ["Numbers", "Windows", "batches", "read", "whole"]


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
        local: How windows are scaled, from their own rows; None where each series has one scale.
        season: Rows of a season, for that.
    """

    panel: Panel
    u: np.ndarray
    codes: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    dtype: torch.dtype
    local: str | None = None
    season: int = 1

    def cut(
        self, series: np.ndarray, start: np.ndarray, length: int, *, known: int | None = None
    ) -> Sequences:
        """Cuts ``length`` rows from each of some series, padded where a series does not reach.

        Args:
            series: Which series ``(B,)``.
            start: First row of each, counted from the series' own first ``(B,)``; below 0 there is
                padding before that.
            length: Rows.
            known: How many rows say how the cut is scaled, where that is local; None takes the
                scales of the series.
        """
        panel = self.panel
        first, stop = panel.offsets[series], panel.offsets[series + 1]
        rows = (first + start)[:, None] + np.arange(length)
        before, beyond = rows < first[:, None], rows >= stop[:, None]
        rows = np.clip(rows, first[:, None], stop[:, None] - 1)
        y = np.where((before | beyond)[..., None], np.nan, panel.y[rows])
        # beyond its ends a series goes on in steps of one
        over = np.cumsum(beyond, 1) - np.cumsum(before[:, ::-1], 1)[:, ::-1]
        t = panel.t[rows] + over
        shift, scale = self.shift[series], self.scale[series]
        if self.local is not None and known is not None:
            digits = 500 * torch.finfo(self.dtype).eps
            usual = (shift, scale)
            shift, scale = local(y[:, :known], self.season, self.local, usual=usual, digits=digits)
        return Sequences.of(
            self._tensor(y),
            t=torch.from_numpy(t),
            u=self._tensor(np.where((before | beyond)[..., None], 0.0, self.u[rows])),
            codes=torch.from_numpy(self.codes[series]),
            shift=self._tensor(shift),
            scale=self._tensor(scale),
        )

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)


@dataclass(frozen=True)
class Windows:
    """Draws training batches: a function of a generator, as :func:`seqlatent.fit` takes it.

    Series are drawn in proportion to the windows that they hold, up to a limit, and windows
    uniformly along a series. The past covariates of each window are hidden after a random row, as
    they are when one forecasts.

    With a horizon every window looks like a forecast: so many rows at its end are what comes, the
    rows before them what is known, from which alone a local scale is computed. How much is known
    differs from batch to batch, as the pasts of series do.

    Args:
        numbers: The panel.
        length: Rows of a window, or of what is known of it.
        batch_size: Windows of a batch.
        flags: Where past covariates and their flags lie in ``u``.
        most: How many times more often a long series is drawn than one of a single window.
        horizon: Rows ahead; 0 for windows without an end to forecast.
        full: Whether all of the past is there, where a series has it, so that every lag is known.
    """

    numbers: Numbers
    length: int
    batch_size: int
    flags: slice
    most: float = 20.0
    horizon: int = 0
    full: bool = False

    def __call__(self, generator: torch.Generator) -> Sequences:
        lengths = self.numbers.panel.lengths
        weight = torch.from_numpy(np.clip(lengths / self.length, 1.0, self.most))
        # a few short series have only so many windows that differ
        size = min(self.batch_size, max(8, int(4 * lengths.sum() // self.length)))
        index = torch.multinomial(weight, size, replacement=True, generator=generator).numpy()
        place = torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        if self.horizon:
            return self._forecasts(index, place, generator)
        room = np.maximum(lengths[index] - self.length, 0)
        start = np.minimum((place * (room + 1)).astype(np.int64), room)
        longest = int(min(self.length, lengths[index].max()))
        known = torch.randint(1, longest + 1, (size, 1), generator=generator)
        return self._hidden(self.numbers.cut(index, start, longest, known=longest), known)

    def _forecasts(
        self, index: np.ndarray, place: np.ndarray, generator: torch.Generator
    ) -> Sequences:
        lengths = self.numbers.panel.lengths[index]
        if self.full:
            share, least, ahead = 1.0, self.length, self.horizon
        else:
            share = 1 - 0.75 * float(torch.rand((), generator=generator)) ** 2
            least, ahead = max(self.numbers.season, 3), max(self.horizon // 2, 1)
        least = np.minimum(least, np.maximum(lengths - ahead, 1))
        most = np.maximum(lengths - ahead, least)
        origin = least + np.minimum((place * (most - least + 1)).astype(np.int64), most - least)
        past = int(min(max(share * self.length, 2), origin.max()))
        batch = self.numbers.cut(index, origin - past, past + self.horizon, known=past)
        return self._hidden(batch, torch.full((len(index), 1), past + 1))

    def _hidden(self, batch: Sequences, known: Tensor) -> Sequences:
        """Hides past covariates of rows after those that are known."""
        if self.flags.start < self.flags.stop:
            hidden = torch.arange(batch.steps) >= known
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
    """All rows of some series, or those that are read before a forecast, padded to the longest."""
    kept = read(numbers.panel, context)[series]
    return numbers.cut(series, numbers.panel.lengths[series] - kept, int(kept.max()))


def read(panel: Panel, context: int | None) -> np.ndarray:
    """How many of its last rows are read of each series before a forecast ``(N,)``.

    As many as the context up to the last value, and those without one that follow; all of them
    without a context.
    """
    if context is None:
        return panel.lengths
    return panel.offsets[1:] - span(panel, context)[0]
