"""Trials: series without their end, and what specifications say of it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.drawing import Drawing
from seqlatent.forecasting.engines.structural.outliers import doubting
from seqlatent.forecasting.engines.structural.rows import Rows, at, hidden, length, without_end
from seqlatent.forecasting.engines.structural.specifications import Specification
from seqlatent.forecasting.engines.structural.stacking import Block
from seqlatent.model import LatentModel, moments
from seqlatent.sequences import Sequences
from seqlatent.training import Deadline, EachHistory, fit_each

__all__ = []

POINTS = 32  # parameters from the best of which a series starts
# Blocks that are hidden one after the other at the end of each series: what shocks one spares the
# other. Few series have more of them, so many ends in all.
_BLOCKS, _ENDS, _MOST_BLOCKS = 2, 24, 12


class Trials(NamedTuple):
    """Series without their end, several ends of each one after the other.

    Attributes:
        rows: What is left of them ``(K B, T)``.
        y: What was hidden ``(K, B, H)``.
        scale: Usual step of each ``(B,)``.
        series: Which series of the panel each is ``(B,)``.
        first: Step of each with which what was hidden begins ``(K, B)``.
    """

    rows: Rows
    y: Tensor
    scale: Tensor
    series: Tensor
    first: Tensor

    def without(self, outlying: Tensor) -> "Trials":
        """The same without some values of the panel ``(B, T)`` in what was hidden."""
        horizon = self.y.shape[-1]
        place = self.first[..., None] + torch.arange(horizon, device=self.y.device)
        out = torch.nn.functional.pad(outlying, (0, horizon))[self.series]
        out = out.expand(len(place), *out.shape).gather(-1, place)
        return self._replace(y=self.y.masked_fill(out, torch.nan))


def trials_of(data: Rows, horizon: int, sample: int, seed: int) -> Trials | None:
    """Some series without their end, then without more of it; None where nothing can be hidden."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.y), generator=generator)[:sample].to(data.y.device)
    whole = data.select(chosen)
    scale = whole.sequences(False).scale[:, 0]
    parts, targets, first = [], [], []
    for i in range(min(max(_BLOCKS, math.ceil(_ENDS / len(chosen))), _MOST_BLOCKS)):
        short = without_end(whole, horizon)
        target = hidden(whole, short, horizon)
        if i >= _BLOCKS:  # enough must be left of a series
            target = target.where(length(short.y)[:, None] >= 2 * horizon, torch.nan)
        if not bool((~target.isnan()).any()):
            break
        parts.append(short)
        targets.append(target)
        first.append(length(short.y))
        whole = short
    if not parts:
        return None
    y, t, u = (torch.cat([getattr(p, name) for p in parts]) for name in ("y", "t", "u"))
    rows = Rows(y, t, torch.arange(len(y), device=y.device), u, data.season_length)
    return Trials(rows, torch.stack(targets), scale, chosen, torch.stack(first))


def forecasts_of(
    specification: Specification,
    trials: Trials,
    history: EachHistory,
    drawing: Drawing,
    deadline: Deadline,
    share: float = 0.0,
) -> tuple[Tensor, Tensor] | None:
    """Means and variances ``(D, K, B, H)`` of what follows, under parameters of what was.

    None where there is no time for all of them. With a share of outliers the models doubt what they
    see; those that the trials mark have no part in their parameters.
    """
    rows = trials.rows
    model, batch = specification.model(len(rows.y)), rows.sequences(specification.log)
    trial = fit_each(
        model, batch, pool=history.pool, points=POINTS // 4, seed=drawing.seed, deadline=deadline
    )
    if trial.stopped == "time":
        return None
    drawn = drawing(model, batch, trial, deadline)
    doubting(drawn.models, share)
    rows = replace(rows, outlying=None)
    mean, variance = ahead(
        drawn.models, rows.sequences(specification.log), rows, trials.y.shape[-1]
    )
    shape = (drawing.draws, *trials.y.shape)
    return mean.reshape(shape), variance.reshape(shape)


def ahead(
    models: Sequence[LatentModel], batch: Sequences, rows: Rows, horizon: int
) -> tuple[Tensor, Tensor]:
    """Means and variances ``(D, B, H)`` of what follows each series."""
    place = length(rows.y)[:, None] + torch.arange(horizon, device=rows.y.device)
    u = at(rows.u, place)
    found = [moments(m, m.belief(batch, end=False), horizon, u=u) for m in models]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    return mean, variance


def blocks_of(trials: Trials, forecasts: Sequence[tuple[Tensor, Tensor]]) -> list[Block]:
    """Forecasts of each specification beside what was hidden."""
    mean, variance = (torch.stack(x) for x in zip(*forecasts, strict=True))
    return [
        Block(y, mean[:, :, i], variance[:, :, i], trials.scale) for i, y in enumerate(trials.y)
    ]
