"""Distributions of what follows windows, many at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seqlatent.amortised import (
    LEVELS,
    SCORES,
    Forecast,
    Network,
    QuantileFunction,
    Seasons,
    context_of,
    forecast,
)
from seqlatent.forecasting.engines.amortised.covariates import (
    Covariates,
    PerTarget,
    added,
    with_effects_of,
)
from seqlatent.forecasting.engines.amortised.windows import widened
from seqlatent.forecasting.engines.baselines.spread import PanelSpread
from seqlatent.forecasting.frames.panel import Panel

__all__ = ["TOGETHER", "Pool", "Predictor"]

TOGETHER = 3.0
"""Loading of a series without a past, all of whose steps lie on one side."""

_LEADS = 2048  # leads that the networks are asked for at once
_CELLS = 2**15  # leads of series that are computed at once
_EXACT = 50_000  # cells of a call up to which networks run in double precision


@dataclass(frozen=True)
class Pool:
    """What a whole panel says about a series that says nothing of itself.

    Args:
        center: Mean of all cells ``(D,)``.
        spread: Standard deviation of all cells ``(D,)``.
        step: Scale of a step, and
        ratio: its part that is relative to the size of a series ``(D,)``.
        lower: Whether no value lies below zero ``(D,)``.
        whole: Whether all values are whole numbers ``(D,)``.
    """

    center: np.ndarray
    spread: np.ndarray
    step: np.ndarray
    ratio: np.ndarray
    lower: np.ndarray
    whole: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> "Pool":
        """Summarises a panel."""
        seen = ~np.isnan(panel.y)
        y = np.where(seen, panel.y, 0.0)
        lower, whole = np.all(y >= 0, axis=0), np.all(y == np.round(y), axis=0)
        return cls(*PanelSpread.of(panel), np.asarray(lower), np.asarray(whole))

    def steps(self, value: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Scales of a step ``(S,)`` of series of one value, or NaN for none."""
        size = np.where(np.abs(value) > 0, np.abs(value), self.spread[target])
        return self.step[target] + self.ratio[target] * size

    def moments(
        self, value: np.ndarray, target: np.ndarray, leads: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means ``(S, 1)`` and scales ``(S, H)`` of series of one value, or NaN for none."""
        blank = np.isnan(value)
        walk = self.steps(value, target)[:, None] * np.sqrt(leads)
        scale = np.where(blank[:, None], self.spread[target][:, None], walk)
        return np.where(blank, self.center[target], value)[:, None], scale


@dataclass(frozen=True)
class Predictor:
    """Networks, and what they are told of a panel.

    Args:
        networks: Networks in double precision, so that a forecast is the same beside any others.
        single: The same in single precision, for more cells than are worth twice the time.
        seasons: Season lengths.
        pool: What stands for series of fewer than two values.
        width: Factors of the spread of equal parts of a horizon.
        horizon: Leads of that horizon; any beyond it are as the last ones.
        effects: Effects of covariates on each target.
    """

    networks: tuple[Network, ...]
    single: tuple[Network, ...]
    seasons: Seasons
    pool: Pool
    width: tuple[float, ...] = (1.0,)
    horizon: int = 1
    effects: PerTarget = ()

    @property
    def length(self) -> int:
        """Last rows of a series that are read."""
        return context_of(self.seasons)

    @property
    def reads_covariates(self) -> bool:
        """Whether covariates that are known ahead have an effect on a target."""
        return any(one is not None for one in self.effects)

    def of(self, cells: int) -> "Predictor":
        """What forecasts that many cells in a call.

        Rounding in single precision, a millionth of a usual change in the mean, is far below what
        networks know, but not the same whatever other series are asked for: few cells are exact to
        the last digits, and many are done in three fifths of the time.
        """
        return self if cells <= _EXACT else replace(self, networks=self.single)

    def forecast(
        self,
        y: np.ndarray,
        leads: np.ndarray,
        target: np.ndarray,
        covariates: Covariates | None = None,
    ) -> Forecast:
        """Distributions of some leads.

        Args:
            y: Windows ``(S, W)``, which end with a value.
            leads: Steps after it, those of each window one by one ``(S, H)``.
            target: Which target they are of ``(S,)``.
            covariates: Those of the windows and leads, where they are read.
        """
        y = widened(y, self.length)
        values, seen = torch.from_numpy(np.nan_to_num(y)), torch.from_numpy(~np.isnan(y))
        if covariates is None:
            return self._rest(values, seen, leads, target)
        past, ahead = added(self.effects, values, seen, covariates, target)
        rest = self._rest(torch.where(seen, values - past, 0.0), seen, leads, target)
        moved = np.array([one is not None for one in self.effects])[target, None]
        return with_effects_of(rest, ahead, values, seen, torch.from_numpy(moved))

    def _rest(
        self, values: Tensor, seen: Tensor, leads: np.ndarray, target: np.ndarray
    ) -> Forecast:
        """Distributions of what covariates do not say."""
        parts: list[tuple[np.ndarray, Forecast]] = []
        for index, ahead in _alike(leads):
            place = torch.from_numpy(index)
            parts.append((index, self._of(values[place], seen[place], ahead)))
        back = torch.from_numpy(np.argsort(np.concatenate([index for index, _ in parts])))
        found = [
            (f.marginals.knots, f.marginals.floor, f.marginals.whole, f.loadings) for _, f in parts
        ]
        knots, floor, whole, loadings = (torch.cat(x)[back] for x in zip(*found, strict=True))
        few = np.flatnonzero(seen.sum(1).numpy() < 2)
        if len(few):
            where = torch.from_numpy(few)
            y = torch.where(seen, values, torch.nan)[where].numpy()
            sparse = self._pooled(y, leads[few], target[few], loadings.shape[-1])
            for x, put in zip((knots, floor, whole, loadings), sparse, strict=True):
                x[where] = put
        return Forecast(QuantileFunction(knots, floor, whole), loadings)

    def _of(self, values: Tensor, seen: Tensor, leads: np.ndarray) -> Forecast:
        """Distributions of the same leads of all, some at a time."""
        found = [
            forecast(
                self.networks,
                values,
                seen,
                self.seasons,
                part.tolist(),
                chunk=int(np.clip(_CELLS // len(part), 1, 256)),
            )
            for part in np.split(leads, range(_LEADS, len(leads), _LEADS))
        ]
        first = found[0].marginals
        knots = torch.cat([f.marginals.knots for f in found], 1)
        parts = len(self.width)
        nth = np.clip((leads - 1) * parts // self.horizon, 0, parts - 1)
        factor = torch.tensor(self.width, dtype=knots.dtype)[torch.from_numpy(nth)]
        function = QuantileFunction(knots, first.floor, first.whole).widened(factor)
        return Forecast(function, torch.cat([f.loadings for f in found], 1))

    def _pooled(
        self, y: np.ndarray, leads: np.ndarray, target: np.ndarray, factors: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Knots, floor, units and loadings of series of fewer than two values."""
        value = np.where(np.isnan(y).all(1), np.nan, np.nansum(y, 1))
        mean, scale = self.pool.moments(value, target, leads)
        knots = mean[..., None] + scale[..., None] * np.array(SCORES)
        floor = np.where(self.pool.lower[target], 0.0, -np.inf)[:, None]
        loadings = np.zeros((*leads.shape, factors))
        loadings[..., 0] = TOGETHER
        whole = self.pool.whole[target][:, None]
        return (
            torch.from_numpy(knots).expand(-1, -1, len(LEVELS)),
            torch.from_numpy(floor),
            torch.from_numpy(whole),
            torch.from_numpy(loadings),
        )


def _alike(leads: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of windows of which the same leads are asked, and these."""
    if (leads == leads[:1]).all():
        yield np.arange(len(leads)), leads[0]
        return
    kinds, kind = np.unique(leads, axis=0, return_inverse=True)
    for k, ahead in enumerate(kinds):
        yield np.flatnonzero(kind.reshape(-1) == k), ahead
