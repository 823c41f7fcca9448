"""Naive forecasts: the last value, or the last value of the same phase of the season."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from seqlatent.forecasting.engines.baselines.bridges import bridge
from seqlatent.forecasting.engines.baselines.local import (
    LocalEngine,
    Predicted,
    Table,
    rows_by_step,
)
from seqlatent.forecasting.engines.baselines.spread import (
    difference_scale,
    magnitude,
    phase_of,
    positive,
)
from seqlatent.forecasting.engines.engine import Marginals, Scores
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.training import Deadline

__all__ = ["Naive", "SeasonalNaive"]


class LastValue(LocalEngine):
    """Random walks that are seen without noise: one, or one for each phase of a season.

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        intervals: Whether forecasts have a distribution; if not, all quantiles and paths are the
            point.
        options: What the constructor was called with.
    """

    def __init__(self, *, season_length: int | None, intervals: bool, options: dict) -> None:
        super().__init__(options, season_length)
        self._intervals = intervals

    def paths(self, state: Table, future: Future, n: int, seed: int) -> np.ndarray:
        mean, scale, seasonal = self._moments(state, future)
        if not self._intervals:
            return np.repeat(mean[None], n, axis=0)
        z = np.random.default_rng(seed).standard_normal((n, *mean.shape))
        t, m = future.t, self._season
        # Variances at a phase, and of the plain walk, grow from one visit to the next.
        steps = np.diff(t, axis=1, prepend=t[:, :1])[..., None]
        first = np.nan_to_num(t[:, :1, None] - state["recent_t"][:, None], nan=1.0)
        gaps = np.where(np.arange(future.horizon)[:, None] == 0, first, steps)
        walk = np.cumsum(z * (np.sqrt(gaps) * state["step"][:, None]), axis=2)
        cycle = np.sqrt(np.maximum(scale**2, 0.0))
        phases = np.zeros_like(z)
        for h in range(future.horizon if seasonal.any() else 0):
            new = cycle[:, h] if h < m else state["cycle"]
            phases[:, :, h] = z[:, :, h] * new + (phases[:, :, h - m] if h >= m else 0.0)
        blank = np.isnan(state["recent"])[:, None]
        flat = z[:, :, :1] * state["spread"][:, None]
        return mean + np.where(blank, flat, np.where(seasonal, phases, walk))

    def marginals(
        self, state: Table, future: Future, levels: Sequence[float], n: int, seed: int
    ) -> Marginals:
        from scipy.special import ndtri

        mean, scale, _ = self._moments(state, future)
        width = scale if self._intervals else np.zeros_like(scale)
        z = ndtri(np.asarray(levels, dtype=np.float64))[:, None, None, None]
        return Marginals(mean + z * width, mean)

    def score(self, panel: Panel, seed: int) -> Scores:
        if not self._intervals:
            raise NotImplementedError(
                f"a point forecast has no density to score; build {type(self).__name__} with "
                "intervals=True."
            )
        return super().score(panel, seed)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        state = self.start(panel, seed)
        rng = np.random.default_rng(seed)
        draws = np.repeat(panel.y[None], n, axis=0)
        owner, m = panel.owner, self._season
        seasonal = self._seasonal(state)
        for d in range(panel.y.shape[1]):
            missing = np.isnan(panel.y[:, d])
            phase = phase_of(panel.t, m)
            visited = ~np.isnan(state["value"][owner, d, phase]) & seasonal[owner, d]
            blank = np.isnan(state["recent"][owner, d])
            for rows, key, unit, scale in (
                (missing & visited, owner * m + phase, m, state["cycle"][owner, d]),
                (missing & ~visited & ~blank, owner, 1, state["step"][owner, d]),
            ):
                if rows.any():
                    near = np.flatnonzero(np.isin(key, np.unique(key[rows])))
                    drawn = bridge(
                        panel.t[near] / unit, panel.y[near, d], key[near], scale[near], n, rng
                    )
                    draws[:, rows, d] = drawn[:, rows[near]]
            level = rng.standard_normal((n, panel.batch)) * state["spread"][:, d]
            draws[:, blank, d] = (state["center"][:, d] + level)[:, owner[blank]]
        return draws

    def _estimate(self, panel: Panel, deadline: Deadline) -> Table:
        level = magnitude(panel)
        step = difference_scale(panel, 1)
        cycle = difference_scale(panel, self._season)
        for i, d in zip(*np.nonzero(np.isnan(step)), strict=True):
            few = "no value" if np.isnan(level[i, d]) else "one value"
            self._note(panel, int(i), int(d), f"{few}: the spread is that of the whole panel")
        if self._season > 1:
            self._note_seasons(panel)
        shape = (panel.batch, 1)
        return {
            "step": positive(step, step, level, self._pool),
            "cycle": positive(cycle, step, level, self._pool),
            "center": np.tile(self._pool.center, shape),
            "spread": np.tile(self._pool.spread, shape),
        }

    def _note_seasons(self, panel: Panel) -> None:
        """Says which series, or which phases of them, have no season to repeat."""
        m, starts = self._season, panel.offsets[:-1]
        phase = phase_of(panel.t, m)
        for d in range(panel.y.shape[1]):
            seen = np.isfinite(panel.y[:, d])
            first = np.minimum.reduceat(np.where(seen, panel.t, np.inf), starts)
            last = np.maximum.reduceat(np.where(seen, panel.t, -np.inf), starts)
            visited = np.zeros((panel.batch, m), bool)
            visited[panel.owner[seen], phase[seen]] = True
            never = m - visited.sum(1)
            for i in np.flatnonzero((never > 0) & (never < m)):
                rows = int(last[i] - first[i] + 1)
                if rows < m:
                    text = f"{rows} rows with values are fewer than a season of {m}: naive"
                else:
                    text = f"{never[i]} of {m} phases of the season have no value: naive at those"
                self._note(panel, int(i), d, text)

    def _begin(self, parameters: Table, panel: Panel) -> Table:
        shape = (panel.batch, panel.y.shape[1])
        blank = {name: np.full(shape, np.nan) for name in ("recent", "recent_t", "first_t")}
        phases = {name: np.full((*shape, self._season), np.nan) for name in ("value", "when")}
        return {**parameters, **blank, **phases}

    def _advance(self, state: Table, panel: Panel) -> tuple[Table, Predicted]:
        order, steps = rows_by_step(panel)
        state = {name: values[order] for name, values in state.items()}
        mean, scale = np.full_like(panel.y, np.nan), np.full_like(panel.y, np.nan)
        for rows in steps:
            n = len(rows)
            index = np.arange(n)
            active = {name: values[:n] for name, values in state.items()}
            y, t = panel.y[rows], panel.t[rows, None]
            mean[rows], scale[rows], _ = self._cell(active, panel.t[rows])
            blank = np.isnan(active["recent"])
            mean[rows] = np.where(blank, np.nan, mean[rows])
            seen = ~np.isnan(y)
            phase = phase_of(panel.t[rows], self._season)
            for name, new in (("value", y), ("when", t)):
                old = active[name][index, :, phase]
                active[name][index, :, phase] = np.where(seen, new, old)
            np.copyto(active["recent"], y, where=seen)
            np.copyto(active["recent_t"], t, where=seen)
            np.copyto(active["first_t"], t, where=seen & blank)
        back = np.argsort(order)
        return {name: values[back] for name, values in state.items()}, Predicted(mean, scale)

    def _seasonal(self, state: Table) -> np.ndarray:
        """Whether a series has been seen for a season ``(N, D)``."""
        with np.errstate(invalid="ignore"):
            span = state["recent_t"] - state["first_t"] + 1
            return (self._season > 1) & (span >= self._season)

    def _cell(self, state: Table, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and scale of ``y`` at times ``(N,)``, and whether the season gave them."""
        m = self._season
        index, phase = np.arange(len(t)), phase_of(t, m)
        value, when = state["value"][index, :, phase], state["when"][index, :, phase]
        seasonal = self._seasonal(state) & ~np.isnan(value)
        mean = np.where(seasonal, value, state["recent"])
        since = np.where(seasonal, (t[:, None] - when) / m, t[:, None] - state["recent_t"])
        scale = np.where(seasonal, state["cycle"], state["step"]) * np.sqrt(since)
        blank = np.isnan(state["recent"])
        mean = np.where(blank, state["center"], mean)
        return mean, np.where(blank, state["spread"], scale), seasonal

    def _moments(self, state: Table, future: Future) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same at all steps to forecast ``(N, H, D)``."""
        cells = [self._cell(state, future.t[:, h]) for h in range(future.horizon)]
        mean, scale, seasonal = zip(*cells, strict=True)
        return np.stack(mean, 1), np.stack(scale, 1), np.stack(seasonal, 1)


class Naive(LastValue):
    r"""The last value, as a random walk.

    .. math:: y_{T+h} \sim N(y_T, h \sigma^2), \quad
        \sigma^2 = \tfrac{1}{T-1} \sum_t (y_t - y_{t-1})^2

    After missing values :math:`h` counts from the last value observed. At irregular times it is
    a Brownian motion, and :math:`h` the time elapsed.

    Args:
        intervals: Whether forecasts have a distribution; if not, all quantiles and paths are the
            point.

    References:
        Forecasting: Principles and Practice (Hyndman & Athanasopoulos, 2021), section 5.5.
    """

    handles_gaps: ClassVar[bool] = True
    alias: str = "naive"

    def __init__(self, *, intervals: bool = True) -> None:
        super().__init__(season_length=1, intervals=intervals, options={"intervals": intervals})


class SeasonalNaive(LastValue):
    r"""The last value observed at the same phase of the season.

    .. math:: y_{T+h} \sim N(y_{T+h-km}, k \sigma_m^2), \quad
        \sigma_m^2 = \tfrac{1}{T-m} \sum_t (y_t - y_{t-m})^2

    :math:`k` counts the seasons since that value. A series with fewer rows than a season, or a
    phase that was never observed, is forecast as by :class:`Naive`; without seasons all are.

    The scores published under this name are those of the point forecast with no distribution around
    it: ``intervals=False`` reproduces them.

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        intervals: Whether forecasts have a distribution; if not, all quantiles and paths are the
            point.

    References:
        Forecasting: Principles and Practice (Hyndman & Athanasopoulos, 2021), section 5.5.
    """

    alias: str = "seasonal_naive"

    def __init__(self, *, season_length: int | None = None, intervals: bool = True) -> None:
        options = {"season_length": season_length, "intervals": intervals}
        super().__init__(season_length=season_length, intervals=intervals, options=options)
