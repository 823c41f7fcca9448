"""Sample paths as arrays, and the scores of their margins and of whole paths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scoringrules
import torch

from seqlatent.forecasting.errors import DataError, TimeError
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.metrics.cells import TARGET, Cells, Loss, aliases, values

__all__ = []

BLOCK = 4_000_000  # numbers of an intermediate array: 32 MB


@dataclass(frozen=True)
class Paths:
    """Sample paths, sorted by group, step and sample.

    Attributes:
        cells: The cells, one row for each group and step, with the truth.
        values: Samples of each model ``(R, M)``.
        start: First sample of each cell ``(N,)``.
        count: Number of samples of each cell ``(N,)``; one number within a group.
    """

    cells: Cells
    values: np.ndarray
    start: np.ndarray
    count: np.ndarray

    @classmethod
    def of(
        cls, df: Any, columns: Columns, models: Sequence[str], *, joint: bool = False
    ) -> "Paths":
        """Sorts a frame of samples, all of whose paths must be whole."""
        rows = Cells.of(df, columns, samples=True, joint=joint)
        sample, time = (
            pd.factorize(values(rows.frame, name), sort=True)[0]
            for name in (columns.sample, columns.time)
        )
        if joint and TARGET in rows.frame.columns and TARGET not in columns.targets:
            target, names = pd.factorize(values(rows.frame, TARGET))
            time = time * len(names) + target
        order = np.lexsort((sample, time, rows.group))
        samples = rows.forecasts(aliases(models))[order]
        group, time, sample = rows.group[order], time[order], sample[order]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(group) != 0) | (np.diff(time) != 0)
        start = np.flatnonzero(new)
        cells = Cells.of(rows.frame[order[start]], columns, samples=True, joint=joint)
        paths = cls(cells, samples, start, np.diff(start, append=len(order)))
        paths._check(order, new, group, sample, rows)
        return paths

    def _check(
        self,
        order: np.ndarray,
        new: np.ndarray,
        group: np.ndarray,
        sample: np.ndarray,
        rows: Cells,
    ) -> None:
        """Refuses samples that repeat, and paths that lack a step."""
        again = np.flatnonzero(~new[1:] & (np.diff(sample) == 0))
        if len(again):
            row = int(order[again[0] + 1])
            raise TimeError(
                f"every sample must be there once, found it twice for {rows.name(row)}; drop "
                "repeated rows.",
                column=rows.columns.sample,
                id=rows.frame[rows.columns.id][row],
                row=row,
            )
        cell = np.cumsum(new) - 1
        lead = np.searchsorted(group[self.start], group[self.start])  # first cell of the group
        wrong = self.count != self.count[lead]
        if not wrong.any():
            twin = self.start[lead[cell]] + np.arange(len(cell)) - self.start[cell]
            wrong[cell[sample != sample[twin]]] = True
        if wrong.any():
            row = int(order[self.start[np.flatnonzero(wrong)[0]]])
            raise DataError(
                f"every path must have a value at every step, found other samples for "
                f"{rows.name(row)} than at the first step; complete the paths.",
                column=rows.columns.sample,
                id=rows.frame[rows.columns.id][row],
                row=row,
            )

    def crps(self, *, fair: bool = False) -> Loss:
        """Continuous ranked probability score of each cell."""
        self._enough(fair)
        truth = self.cells.truth
        loss = np.empty((len(truth), self.values.shape[1]))
        for n in np.unique(self.count):
            alike = np.flatnonzero(self.count == n)
            size = max(1, BLOCK // int(n * self.values.shape[1]))
            for block in np.split(alike, np.arange(size, len(alike), size)):
                drawn = self.values[self.start[block][:, None] + np.arange(n)]  # (block, n, M)
                loss[block] = scoringrules.crps_ensemble(
                    np.repeat(truth[block, None], drawn.shape[2], axis=1),
                    np.moveaxis(drawn, 1, 2),
                    estimator="pwm" if fair else "qd",  # pwm equals fair, without all pairs
                    backend="numpy",
                )
        return Loss(loss, np.ones(len(loss)))

    def energy(self, *, fair: bool = False) -> np.ndarray:
        """Energy score of each group and model ``(G, M)``."""
        self._enough(fair)

        def score(y: np.ndarray, x: np.ndarray) -> float:
            n = len(x)
            # each pair once, and no array of all differences
            spread = torch.pdist(torch.from_numpy(np.ascontiguousarray(x))).sum().item()
            pairs = n * (n - 1) if fair else n**2
            return np.linalg.norm(x - y, axis=1).mean() - spread / pairs

        return self._each(score)

    def variogram(self, p: float | int) -> np.ndarray:
        """Variogram score of each group and model ``(G, M)``."""

        def score(y: np.ndarray, x: np.ndarray) -> float:
            expected = np.zeros((len(y), len(y)))
            size = max(1, BLOCK // len(y) ** 2)
            for i in range(0, len(x), size):
                part = x[i : i + size]
                expected += (np.abs(part[:, :, None] - part[:, None, :]) ** p).sum(0)
            observed = np.abs(y[:, None] - y[None, :]) ** p
            return ((observed - expected / len(x)) ** 2).sum()

        return self._each(score)

    def _each(self, score: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """Scores a truth ``(H,)`` and paths ``(n, H)`` for each group and model."""
        cells, truth = self.cells, self.cells.truth
        result = np.full((len(cells.first), self.values.shape[1]), np.nan)
        ends = np.append(cells.first[1:], len(cells.group))
        for g, (begin, end) in enumerate(zip(cells.first, ends, strict=True)):
            seen = np.flatnonzero(~np.isnan(truth[begin:end]))
            n = self.count[begin]
            for m in range(result.shape[1] if len(seen) else 0):
                first = self.start[begin]
                drawn = self.values[first : first + n * (end - begin), m].reshape(-1, n).T
                result[g, m] = score(truth[begin:end][seen], drawn[:, seen])
        return result

    def _enough(self, fair: bool) -> None:
        if fair and self.count.min() < 2:
            raise ValueError("fair scores need at least 2 samples, found 1; draw more.")
