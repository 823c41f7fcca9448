"""Windows, batches of Sequences cut out of a panel: at random for training, whole for filtering."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.errors import DataError, TargetError
from seqlatent.forecasting.features.anchors import Anchors, Spans, reached
from seqlatent.forecasting.features.scaling import Units
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.sequences import Sequences
from seqlatent.training import NotFinite

__all__ = ["ModelData", "Scale", "Windows", "batches", "whole"]

# How the core calls a series of a batch, and a target.
_SERIES = re.compile(r"\bseries (\d+)(?: of the batch)?\b")
_PARAMETER = re.compile(r"Expected parameter (\w+) .*? of distribution (\w+)", re.DOTALL)
_DIMENSION = re.compile(r"\bdimension (\d+)\b")


class Scale(NamedTuple):
    """Units of some series.

    Attributes:
        shift: Where each stands ``(B, D)``.
        scale: How far each moves ``(B, D)``.
    """

    shift: np.ndarray
    scale: np.ndarray

    def select(self, index: np.ndarray) -> "Scale":
        """Picks series."""
        return Scale(self.shift[index], self.scale[index])


@dataclass(frozen=True)
class ModelData:
    """A panel as a model reads it: rows in flat arrays, what is static per series.

    Args:
        panel: The panel, whose targets may have been transformed.
        u: Covariates of every row ``(R, U)``.
        codes: Static codes as the model numbers them ``(N, C)``.
        known: Place of each series in training, -1 where it was not there ``(N,)``.
        units: How the units of a series follow from its rows.
        dtype: Type of the model's parameters.
        flags: Where past covariates and their flags lie in ``u``.
    """

    panel: Panel
    u: np.ndarray
    codes: np.ndarray
    known: np.ndarray
    units: Units
    dtype: torch.dtype
    flags: slice

    def scale(self, series: np.ndarray, stop: np.ndarray, *, training: bool = False) -> Scale:
        """Units of some series, from their rows before ``stop`` ``(B,)``.

        Args:
            series: Which series ``(B,)``.
            stop: Row after the last that is read, counted from the series' own first ``(B,)``.
            training: Whether a series of training is treated as one that was not there, for it
                must not know how it goes on.
        """
        most = max(int(stop.max(initial=0)), 1)
        if self.units.context is not None:
            most = min(most, self.units.context)
        first = self.panel.offsets[series]
        rows = (first + stop)[:, None] - most + np.arange(most)
        inside = rows >= first[:, None]
        y = np.where(inside[..., None], self.panel.y[np.maximum(rows, 0)], np.nan)
        new = training and not self.units.fixed
        known = np.full(len(series), -1) if new else self.known[series]
        return Scale(*self.units(y, known))

    def cut(
        self,
        series: np.ndarray,
        start: np.ndarray,
        length: int,
        scale: Scale,
        *,
        stop: np.ndarray | None = None,
        plain: bool = False,
    ) -> Sequences:
        """Cuts ``length`` rows from each of some series, padded where a series does not reach.

        Values are distances from their zero, in units of a typical scale, so that numbers far from
        zero lose no digits and a panel means the same in other units.

        Args:
            series: Which series ``(B,)``.
            start: First row of each, counted from the series' own first ``(B,)``; below 0 there is
                padding before that.
            length: Rows.
            scale: Units of each.
            stop: Row after the last that is there, each series' own end by default ``(B,)``.
            plain: Whether values stay in their own units, beside shift and scale.
        """
        panel = self.panel
        first = panel.offsets[series]
        end = panel.offsets[series + 1] if stop is None else first + stop
        rows = (first + start)[:, None] + np.arange(length)
        before, beyond = rows < first[:, None], rows >= end[:, None]
        rows = np.clip(rows, first[:, None], end[:, None] - 1)
        y = np.where((before | beyond)[..., None], np.nan, panel.y[rows])
        # beyond its ends a series goes on in steps of one
        over = np.cumsum(beyond, 1) - np.cumsum(before[:, ::-1], 1)[:, ::-1]
        t = panel.t[rows] + over
        u = np.where((before | beyond)[..., None], 0.0, self.u[rows])
        if not plain:
            y = self.units.inwards(y, scale.shift[:, None])
        return Sequences.of(
            self._tensor(y),
            t=torch.from_numpy(t),
            u=self._tensor(u),
            codes=torch.from_numpy(self.codes[series]),
            shift=self._tensor(
                scale.shift if plain else self.units.inwards(scale.shift, scale.shift)
            ),
            scale=self._tensor(scale.scale if plain else scale.scale / self.units.unit),
        )

    def piece(self, spans: Spans, steps: int, *, plain: bool = False) -> Sequences:
        """Pieces of series, each from its start, in units of its anchor, padded to ``steps``."""
        scale = self.scale(spans.series, spans.anchor)
        data = self.cut(spans.series, spans.start, steps, scale, stop=spans.stop, plain=plain)
        data.u[:, 0, self.flags] = 0.0  # one who starts here does not know the row before
        return data

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)


@dataclass(frozen=True)
class Windows:
    """Draws training batches: a function of a generator, as :func:`seqlatent.fit` takes it.

    Series are drawn in proportion to the windows that they hold, up to a limit, and windows
    uniformly along a series. The past covariates of each window are hidden after a random row, as
    they are when one forecasts.

    With a horizon every window looks like a forecast: so many rows at its end are what comes, the
    rows before them what is known. How much is known differs from batch to batch, as the pasts of
    series do. Units are those in which a forecast from the end of what is known would be made;
    without a horizon they are taken at a random row of the second half.

    Args:
        model_data: The panel.
        length: Rows of a window, or of what is known of it.
        batch_size: Windows of a batch.
        most: How many times more often a long series is drawn than one of a single window.
        horizon: Rows ahead; 0 for windows without an end to forecast.
        full: Whether all of the past is there, where a series has it, so that every lag is known.
    """

    model_data: ModelData
    length: int
    batch_size: int
    most: float = 20.0
    horizon: int = 0
    full: bool = False
    drawn: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    @contextmanager
    def naming(self, advice: str) -> Iterator[None]:
        """Tells what goes wrong with the batch drawn last in the words of the frame.

        Args:
            advice: What to do where an objective is not finite.

        Raises:
            TargetError: For each error about a series of the batch.
        """
        try:
            yield
        except NotFinite as error:
            raise self._told(f"{error.found} {advice}") from error
        except ValueError as error:
            text, distribution = str(error), _PARAMETER.match(str(error))
            if distribution:  # torch shows all of the tensor
                name, kind = distribution[1], distribution[2]
                text = f"training came to a parameter {name} of {kind} that is none. {advice}"
            elif isinstance(error, DataError) or not _SERIES.search(text):
                raise
            raise self._told(text) from error

    def _told(self, text: str) -> TargetError:
        """An error whose text calls series by their ids and dimensions by their columns."""
        panel = self.model_data.panel
        named = [int(i) for i in _SERIES.findall(text) if int(i) < len(self.drawn)]
        series = self.drawn[named[0]] if named else None
        text = _SERIES.sub(lambda found: panel.name(self.drawn[int(found[1])]), text)
        target = _DIMENSION.search(text)
        d = int(target[1]) if target else 0
        text = _DIMENSION.sub(lambda found: panel.column(int(found[1])), text)
        known = bool(panel.targets) and (target is not None or len(panel.targets) == 1)
        columns = "" if target else f"{', '.join(map(panel.column, range(panel.y.shape[1])))}: "
        return TargetError(
            columns + text,
            column=panel.targets[d] if known else None,
            id=None if series is None else panel.ids[series],
        )

    @cached_property
    def _reached(self) -> np.ndarray:
        return reached(self.model_data.panel)

    def __call__(self, generator: torch.Generator) -> Sequences:
        lengths = self.model_data.panel.lengths
        weight = torch.from_numpy(np.clip(lengths / self.length, 1.0, self.most))
        # a few short series have only so many windows that differ
        size = min(self.batch_size, max(8, int(4 * lengths.sum() // self.length)))
        index = torch.multinomial(weight, size, replacement=True, generator=generator).numpy()
        self.drawn[:] = index.tolist()
        place = torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        if self.horizon:
            return self._forecasts(index, place, generator)
        room = np.maximum(lengths[index] - self.length, 0)
        start = np.minimum((place * (room + 1)).astype(np.int64), room)
        longest = int(min(self.length, lengths[index].max()))
        known = torch.randint(1, longest + 1, (size, 1), generator=generator)
        half = (longest + 1) // 2
        judged = torch.randint(half, longest + 1, (size,), generator=generator).numpy()
        scale = self._scale(index, np.minimum(start + judged, lengths[index]))
        return self._hidden(self.model_data.cut(index, start, longest, scale), known)

    def _scale(self, index: np.ndarray, seen: np.ndarray) -> Scale:
        """Units in which a series stands of which so many rows were seen."""
        rows = self.model_data.panel.offsets[index] + np.maximum(seen, 1) - 1
        anchor = Anchors(self.model_data.units.context).before(self._reached[rows])
        return self.model_data.scale(index, anchor, training=True)

    def _forecasts(
        self, index: np.ndarray, place: np.ndarray, generator: torch.Generator
    ) -> Sequences:
        lengths = self.model_data.panel.lengths[index]
        if self.full:
            share, least, ahead = 1.0, self.length, self.horizon
        else:
            share = 1 - 0.75 * float(torch.rand((), generator=generator)) ** 2
            least, ahead = max(self.model_data.units.season, 3), max(self.horizon // 2, 1)
        least = np.minimum(least, np.maximum(lengths - ahead, 1))
        most = np.maximum(lengths - ahead, least)
        origin = least + np.minimum((place * (most - least + 1)).astype(np.int64), most - least)
        past = int(min(max(share * self.length, 2), origin.max()))
        scale = self._scale(index, origin)
        batch = self.model_data.cut(index, origin - past, past + self.horizon, scale)
        return self._hidden(batch, torch.full((len(index), 1), past + 1))

    def _hidden(self, batch: Sequences, known: Tensor) -> Sequences:
        """Hides past covariates of rows after those that are known."""
        flags = self.model_data.flags
        if flags.start < flags.stop:
            hidden = torch.arange(batch.steps) >= known
            batch.u[:, :, flags].masked_fill_(hidden[..., None], 0.0)
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


def whole(
    model_data: ModelData, series: np.ndarray, scale: Scale, *, plain: bool = False
) -> Sequences:
    """All rows of some series, padded to the longest."""
    lengths = model_data.panel.lengths[series]
    return model_data.cut(series, lengths * 0, int(lengths.max()), scale, plain=plain)
