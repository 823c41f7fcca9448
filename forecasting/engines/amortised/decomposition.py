"""Decomposition of every row by networks of latents: components, holes, breaks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from seqlatent.amortised import SCORES, QuantileFunction, Seasons
from seqlatent.amortised.latents import EVENTS, LatentNetwork, Latents, at_levels, latents
from seqlatent.amortised.latents.joint import Joint, sample
from seqlatent.amortised.latents.truth import FROM_BASE
from seqlatent.forecasting.engines.amortised import covariates, cover
from seqlatent.forecasting.engines.amortised.covariates import Covariates
from seqlatent.forecasting.engines.amortised.cover import Cover, Part
from seqlatent.forecasting.engines.amortised.predictor import TOGETHER, Predictor
from seqlatent.forecasting.engines.contributions import Contributions
from seqlatent.forecasting.engines.engine import Breaks
from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = []

_DRAWS = 2**22  # normal scores that are drawn at once
_ALONE = 20.0  # rate at which what is no factor's is forgotten in a step: at once
_SHARED = TOGETHER / math.sqrt(1 + TOGETHER**2)
_OF_STEPS = ("raw", "place", "unit", "mean", "events")
_KINDS = {"slope": "state", "noise": "state", "irregular": "irregular", "signal": "signal"}


class _Told(NamedTuple):
    """What is told of some rows of one target.

    Attributes:
        rows: The rows ``(M,)``.
        window: In which window each is ``(M,)``.
        place: At which of its steps ``(M,)``.
        found: The posterior of the windows.
        effect: What covariates add to rows ``(M,)``.
    """

    rows: np.ndarray
    window: Tensor
    place: Tensor
    found: Latents
    effect: Tensor

    def select(self, mask: np.ndarray) -> "_Told":
        """Some of the rows."""
        some = torch.from_numpy(mask)
        where = self.window[some], self.place[some]
        return _Told(self.rows[mask], *where, self.found, self.effect[some])

    @property
    def latents(self) -> Latents:
        """The posterior at the rows, each as a series of one step."""
        w, q, found = self.window, self.place, self.found
        at = {name: getattr(found, name)[w, q][:, None] for name in _OF_STEPS}
        joint = Joint(*(x[w, q][:, None] for x in found.joint))
        return replace(found, **at, joint=joint, floor=found.floor[w], whole=found.whole[w])


@dataclass(frozen=True)
class Decomposition:
    """Networks of latents, and what the predictor of their engine knows of the panel.

    Args:
        networks: The networks.
        predictor: Seasons, pool and effects.
    """

    networks: tuple[LatentNetwork, ...]
    predictor: Predictor

    # --- components --------------------------------------------------------------------------

    def components(
        self, panel: Panel, future: Future | None, levels: Sequence[float], *, filtered: bool
    ) -> tuple[Panel, Contributions]:
        """Components of every row, those of the future too; see :meth:`Engine.components`.

        What is estimated of a component of a season that there is not belongs to the level.
        """
        panel = panel if future is None else panel.extended(future)
        quantities, seasons = self._quantities, self.predictor.seasons
        parts = [name for name in self.networks[0].components if name not in absent(seasons)]
        there = ["level", "slope", *parts, "noise", "signal"]
        names, at = [title(name, seasons) for name in there], list(map(quantities.index, there))
        gone = list(map(quantities.index, absent(seasons) & set(quantities)))
        summed = list(map(quantities.index, ["level", *parts]))
        level, signal = quantities.index("level"), quantities.index("signal")
        shown = [*names[:-2], "regression", "noise", "irregular", "signal"]
        if not self.predictor.reads_covariates:
            shown.remove("regression")
        reverse = at_levels([1 - p for p in levels])
        mean = np.full((len(shown), *panel.y.shape), np.nan)
        quantiles = np.full((len(shown), len(levels), *panel.y.shape), np.nan)
        covering = cover.filtered if filtered else cover.smoothed

        def put(name: str, rows: np.ndarray, d: int, middle: Tensor, ends: Tensor) -> None:
            c = shown.index(name)
            mean[c, rows, d], quantiles[c, :, rows, d] = middle.numpy(), ends.numpy()

        for d in range(panel.y.shape[1]):
            for told in self._told(panel, d, covering(panel, d, self.predictor.length)):
                rows, effect, found = told.rows, told.effect, told.latents
                at_place, means = found.place[:, 0].clone(), found.mean[:, 0]
                at_place[:, level] += means[:, gone].sum(1)
                means[:, level] += means[:, gone].sum(1)
                means[:, signal] = means[:, summed].sum(1) + effect
                at_place[:, signal] += effect
                found = replace(found, place=at_place[:, None])
                ends = found.quantiles(levels)[:, 0]
                for name, k in zip(names, at, strict=True):
                    put(name, rows, d, means[:, k], ends[:, k])
                if "regression" in shown:
                    put("regression", rows, d, effect, effect[:, None].expand(-1, len(levels)))
                y = torch.from_numpy(panel.y[rows, d])
                rest = y[:, None] - found.of("signal").knots[:, 0] @ reverse
                put("irregular", rows, d, y - means[:, signal], rest)
        kinds = tuple(_KINDS.get(name, "component") for name in shown)
        scales = ("data",) * len(shown)
        return panel, Contributions("", tuple(shown), kinds, scales, mean, quantiles)

    @property
    def _quantities(self) -> tuple[str, ...]:
        return self.networks[0].quantities

    # --- breaks ------------------------------------------------------------------------------

    def breaks(self, panel: Panel, levels: Sequence[float]) -> Breaks:
        """Breaks of the level and outliers; NaN of series that say nothing of themselves."""
        shape = panel.y.shape
        happened = np.full((len(EVENTS), *shape), np.nan)
        size = np.full((1 + len(levels), *shape), np.nan)
        k = self._quantities.index("break")
        for d in range(shape[1]):
            whole = cover.smoothed(panel, d, self.predictor.length)
            for told in self._told(panel, d, whole.select(~whole.few)):
                found = told.latents
                happened[:, told.rows, d] = found.events[:, 0].T.numpy()
                size[:, told.rows, d] = found.quantiles([0.5, *levels])[:, 0, k].T.numpy()
        at = {name: happened[EVENTS.index(name)] for name in EVENTS}
        return Breaks(at["break"], size[0], size[1:], at["outlier"])

    # --- holes -------------------------------------------------------------------------------

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        """Draws ``(n, R, D)``, joint over what a window tells of."""
        draws = np.repeat(panel.y[None], n, axis=0)
        generator = torch.Generator().manual_seed(seed)
        network = self.networks[0]
        j = network.joint.index("value")
        lag = network.lags(self.predictor.seasons)[j]
        for d, told, function in self._holes(panel):
            joint = told.found.joint
            own = Joint(joint.loadings[:, :, j : j + 1], joint.memory[:, :, j : j + 1])
            some = max(1, _DRAWS // own.memory.numel())
            for k in range(0, n, some):
                scores = sample(own, (lag,), min(some, n - k), generator)[..., 0]
                at = scores[:, told.window, told.place].to(function.knots.dtype)
                draws[k : k + some, told.rows, d] = function.at(at[..., None])[..., 0].numpy()
        return draws

    def completed(self, panel: Panel, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Means ``(R, D)`` and quantiles ``(Q, R, D)`` of values; those seen are themselves."""
        mean, quantiles = panel.y.copy(), np.repeat(panel.y[None], len(levels), axis=0)
        scores = torch.from_numpy(ndtri(np.asarray(levels, dtype=np.float64)))
        for d, told, function in self._holes(panel):
            mean[told.rows, d] = function.mean()[:, 0].numpy()
            at = scores[:, None, None].expand(-1, len(told.rows), 1)
            quantiles[:, told.rows, d] = function.at(at)[..., 0].numpy()
        return mean, quantiles

    def _holes(self, panel: Panel) -> Iterator[tuple[int, _Told, QuantileFunction]]:
        """Rows that lack a value, of one target and some windows, and its distribution."""
        for d in range(panel.y.shape[1]):
            lacks = np.isnan(panel.y[:, d])
            floor, whole = self._bounds(panel, d)
            read = cover.smoothed(panel, d, self.predictor.length).lacking(lacks)
            for told in self._told(panel, d, read):
                hole = told.select(lacks[told.rows])
                series = cover.owner(panel, hole.rows)
                knots = hole.latents.of("value").knots + hole.effect[:, None, None]
                bounds = (torch.from_numpy(x[series])[:, None] for x in (floor, whole))
                yield d, hole, QuantileFunction(knots, *bounds)

    def _bounds(self, panel: Panel, d: int) -> tuple[np.ndarray, np.ndarray]:
        """Least value of each series, and whether it holds whole numbers alone ``(N,)``.

        Of series of fewer than two values all others say so.
        """
        y, pool = panel.y[:, d], self.predictor.pool
        seen = ~np.isnan(y)
        begin = panel.offsets[:-1]
        few = np.add.reduceat(seen, begin, dtype=np.int64) < 2
        lower = np.logical_and.reduceat(~seen | (y >= 0), begin)
        whole = np.logical_and.reduceat(~seen | (y == np.round(y)), begin)
        lower = np.where(few, pool.lower[d], lower)
        return np.where(lower, 0.0, -np.inf), np.where(few, pool.whole[d], whole)

    # --- posteriors --------------------------------------------------------------------------

    def _told(self, panel: Panel, d: int, windows: Cover) -> Iterator[_Told]:
        for part in windows.parts(panel):
            y = torch.from_numpy(part.values(panel.y[:, d]))
            seen = ~y.isnan()
            y, effect = self._without_effects(panel, d, part, y.nan_to_num(), seen)
            found = self._pooled(part, d, y, seen) if part.few else self._latents(part, y, seen)
            rows, window, place = part.rows()
            where = torch.from_numpy(window), torch.from_numpy(place)
            yield _Told(rows, *where, found, effect[:, part.steps][where])

    def _latents(self, part: Part, y: Tensor, seen: Tensor) -> Latents:
        how = {"ahead": part.ahead, "steps": part.steps, "chunk": len(y)}
        return next(latents(self.networks, y, seen, self.predictor.seasons, **how))

    def _without_effects(
        self, panel: Panel, d: int, part: Part, y: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What covariates leave of windows ``(S, W)``, and add to all steps ``(S, W + A)``."""
        if not self.predictor.reads_covariates:
            return y, y.new_zeros(len(y), part.width + part.ahead)
        u = part.covariates(panel.future)
        past = np.where(seen.numpy()[..., None], u[:, : part.width], np.nan).swapaxes(1, 2)
        target = np.full(len(y), d)
        _, effect = covariates.added(self.predictor.effects, y, seen, Covariates(past, u), target)
        return torch.where(seen, y - effect[:, : part.width], 0.0), effect

    def _pooled(self, part: Part, d: int, y: Tensor, seen: Tensor) -> Latents:
        """What all series say of windows of fewer than two values."""
        network, pool = self.networks[0], self.predictor.pool
        index = np.arange(part.steps.start, part.steps.stop)
        apart = np.abs(index - seen.numpy().argmax(1)[:, None]).clip(1)
        value = torch.where(seen.any(1), y.sum(1), torch.nan).numpy()
        target = np.full(len(y), d)
        mean, scale = (torch.from_numpy(x) for x in pool.moments(value, target, apart))
        step = torch.from_numpy(pool.steps(value, target))[:, None].expand_as(scale)
        unit = torch.where(step > 0, step, scale)
        score, quantities = y.new_tensor(SCORES), self._quantities
        raw = score.expand(*scale.shape, len(quantities), -1).clone()
        place = torch.zeros_like(raw[..., 0])
        for name in FROM_BASE:
            wide = torch.where(unit > 0, scale / unit, 1.0)
            raw[:, :, quantities.index(name)] = wide[..., None] * score
            place[:, :, quantities.index(name)] = mean
        raw[:, :, quantities.index("noise")] = score / 2 - math.log(2) / 2
        joint = Joint(
            raw.new_full((*scale.shape, len(network.joint), 1), _SHARED),
            raw.new_full((*scale.shape, len(network.joint)), _ALONE),
        )
        means = place.clone()  # for all but the noise they are the medians
        means[:, :, quantities.index("noise")] = unit * math.exp(1 / 8) / math.sqrt(2)
        return Latents(
            quantities,
            raw,
            place,
            unit,
            means,
            raw.new_full((*scale.shape, len(EVENTS)), torch.nan),
            joint,
            torch.full_like(mean, -torch.inf),
            torch.zeros_like(mean, dtype=torch.bool),
        )


def title(name: str, seasons: Seasons) -> str:
    """Name of a component as it is shown, of a season by its length."""
    named = {"season": f"season{seasons.short}", "long_season": f"season{seasons.long}"}
    return {**named, "ar": "autoregressive"}.get(name, name)


def absent(seasons: Seasons) -> set[str]:
    """Components of seasons that there are not."""
    return {
        name
        for name, length in (("season", seasons.short), ("long_season", seasons.long))
        if length < 2
    }
