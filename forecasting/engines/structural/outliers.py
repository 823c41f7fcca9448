"""Outliers of a panel: which values no parameter should be fitted to, and how many there are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.rows import Rows
from seqlatent.inference import Kalman, Outliers
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training import EachHistory
from seqlatent.training.likelihood.weighted_draws import written

__all__ = []

_SHARE = 0.02  # of outliers, before there is an estimate
_LEAST, _MOST = 0.002, 0.25  # what an estimate can be
_FEW = 50.0  # values that the least share counts for
# Part of the values that lie apart: fewer of them move no parameter by much, and are found among
# normal ones too.
_RARE = 0.005
_LOOKED = 256  # series that say whether there are any
_NUMBERS = 20_000_000  # of covariances at a time


class Doubt(NamedTuple):
    """Which values of a panel are outliers, on the scale of its values or of logarithms.

    Attributes:
        outlying: Which they are ``(B, T)``.
        share: How many are to be expected.
    """

    outlying: Tensor
    share: float

    @property
    def rare(self) -> bool:
        """Whether there are too few to be worth a doubt."""
        return self.share < _RARE


def doubting(models: Sequence[LatentModel], share: float) -> None:
    """Tells models how many outliers to expect."""
    for model in models:
        law_of(model).assume(share)


def doubt_of(
    model: LatentModel, data: Rows, log: bool, *, share: float = _SHARE, few: bool = False
) -> Doubt:
    """The outliers that a fitted model finds.

    Args:
        model: The model, which does not doubt.
        data: The values.
        log: Whether it describes their logarithms.
        share: How many outliers to expect before.
        few: Whether some of the series are enough where they say that there are hardly any.
    """
    batch = data.sequences(log)
    if few and batch.batch > 2 * _LOOKED:
        some = torch.linspace(0, batch.batch - 1, _LOOKED, device=data.y.device).long()
        found = _doubt(model, batch.select(some), share)
        if found.rare:
            return found
    return _doubt(model, batch, share)


def outliers_of(
    model: LatentModel,
    rows: Rows,
    log: bool,
    share: float,
    codes: Tensor,
    shift: Tensor,
    scale: Tensor,
) -> Rows:
    """Rows with the outliers in them that a model of whole series finds.

    Args:
        model: The model.
        rows: Values of each series without its end, one end after the other ``(K B, T)``.
        log: Whether the model describes their logarithms.
        share: How many outliers to expect.
        codes: Which row of parameters is that of each series ``(B,)``.
        shift: Location of each in the units of the model ``(B, 1)``.
        scale: Scale of each ``(B, 1)``.
    """
    times = len(rows.y) // len(codes)
    batch = replace(
        replace(rows, outlying=None).sequences(log),
        codes=codes.repeat(times)[:, None],
        shift=shift.repeat(times, 1),
        scale=scale.repeat(times, 1),
    )
    return replace(rows, outlying=_doubt(model, batch, share).outlying)


def evidence_of(
    model: LatentModel, history: EachHistory, data: Rows, log: bool, share: float
) -> Tensor:
    """Log evidence of all values of each series ``(B,)`` at the modes of a fit."""
    assert history.pool is not None
    vectors = history.pool.parameters(history.mode)
    (mode,) = written(model, data.codes, vectors[None])
    doubting([mode], share)
    with torch.no_grad():
        found = [mode.inference.evidence(mode, part) for part in _parts(mode, data.sequences(log))]
    return torch.cat(found)


def law_of(model: LatentModel) -> Outliers:
    """The law of outliers of a model."""
    assert isinstance(model.inference, Kalman)
    assert model.inference.outliers is not None
    return model.inference.outliers


@torch.no_grad()
def _doubt(model: LatentModel, batch: Sequences, share: float) -> Doubt:
    assert isinstance(model.inference, Kalman)
    law = law_of(model)
    law.assume(share)
    found = [model.inference.outlying(model, part) for part in _parts(model, batch)]
    law.assume(0.0)
    outlying = torch.cat(found) > 0.5
    count, seen = float(outlying.sum()), float(batch.observed.sum())
    estimate = (count + _FEW * _LEAST) / (seen + _FEW)
    return Doubt(outlying, min(max(estimate, _LEAST), _MOST))


def _parts(model: LatentModel, batch: Sequences) -> list[Sequences]:
    """Series whose covariances are held together."""
    each = max(batch.steps * model.transition.latent_dim**2, 1)
    size = max(_NUMBERS // each, 1)
    index = torch.arange(batch.batch, device=batch.y.device)
    return [batch.select(part) for part in index.split(size)]
