"""Innovations models: level, trend and season that all learn from one and the same error."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqlatent.forecasting.engines import calibration
from seqlatent.forecasting.engines.baselines.initial import (
    few,
    filled,
    initial,
    never_seen,
    season_gap,
    window,
)
from seqlatent.forecasting.engines.baselines.local import (
    LATE,
    LocalEngine,
    Predicted,
    Table,
    rows_by_step,
)
from seqlatent.forecasting.engines.baselines.responses import response, skip, variance
from seqlatent.forecasting.engines.baselines.sparse import smoothing_of_gaps
from seqlatent.forecasting.engines.baselines.spread import (
    difference_scale,
    magnitude,
    phase_of,
    positive,
    same_everywhere,
)
from seqlatent.forecasting.engines.calibration import Calibration
from seqlatent.forecasting.engines.engine import FitOptions, Marginals, Packed, Smoothed
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.training import Deadline, Pace

__all__ = []

LONGEST_GAP = 1000
"""Steps without a value after which the distribution of a forecast grows no wider."""


class Misfit(Exception):
    """A model that could not be fitted to a series; the text says why."""


@dataclass(frozen=True)
class Fit:
    """Parameters of one series, and its state before its first row.

    Args:
        alpha: How much of an error goes into the level.
        beta: How much of it goes into the trend.
        gamma: How much of it goes into the season.
        phi: Damping of the trend.
        level: Level before the first row.
        trend: Trend before the first row.
        season: Season of the first ``m`` rows, or None for none.
        factor: Factors of the first ``m`` rows, or None for ones.
        parameters: Number of parameters that the errors were fitted with.
        remark: What went wrong on the way here.
        flat: Why there is no season, where one was asked for.
    """

    alpha: float
    beta: float = 0.0
    gamma: float = 0.0
    phi: float = 1.0
    level: float = 0.0
    trend: float = 0.0
    season: np.ndarray | None = None
    factor: np.ndarray | None = None
    parameters: int = 1
    remark: str = ""
    flat: str = ""


class InnovationsEngine(LocalEngine):
    r"""Exponential smoothing with additive normal errors, for all series at once.

    .. math::
        y_t &= w_t (l_{t-1} + \phi b_{t-1} + s_{t-m} + e_t), \quad e_t \sim N(0, \sigma^2) \\
        l_t &= l_{t-1} + \phi b_{t-1} + \alpha e_t, \quad
        b_t = \phi b_{t-1} + \beta e_t, \quad s_t = s_{t-m} + \gamma e_t

    :math:`w_t` are fixed seasonal factors. A missing value counts as one that was as expected; the
    distribution of what follows is exact for gaps at the end, where :math:`h` counts from the last
    value. Rows before those that were fitted have no score and no components. Of a series that has
    values in less than half of its rows, only a level is fitted, with the gaps as part of its
    distribution.

    Errors one step ahead say too little of those of many steps: parameters and the kind of model
    are uncertain, too. Some series are therefore fitted a second time without their last rows, and
    the spread about the means is multiplied by what these ask for, by lead.

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        max_rows: Values at the end of each series to fit; None for ten seasons, and at least 200.
        calibrate: Whether the spread is that which held-out blocks ask for.
    """

    def __init__(self, *, season_length: int | None, max_rows: int | None, calibrate: bool) -> None:
        options = {"season_length": season_length, "max_rows": max_rows, "calibrate": calibrate}
        super().__init__(options, season_length)
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows must be a positive number of rows, found {max_rows}.")
        self._max_rows = max_rows
        self._calibrate = calibrate
        self.calibration = Calibration(why="nothing was fitted")

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        super().fit(panel, fit_options)
        self.calibration = self._calibrated(panel, fit_options)
        self.summary = {"calibration": self.calibration.to_dict()}

    def _calibrated(self, panel: Panel, fit_options: FitOptions) -> Calibration:
        """What blocks say that are held out of a second fit."""
        if not self._calibrate:
            return Calibration(why="calibrate=False")
        horizon = calibration.usual_horizon(self._season, panel.lengths)
        block = calibration.held_out(panel, horizon, max(4, self._season + 1))
        if block is None:
            return Calibration(why=f"no series has a block of {horizon} rows to hold out")
        trial: InnovationsEngine = type(self)(**{**self._options, "calibrate": False})
        trial.fit(block.head, fit_options)
        state = trial.start(block.head, fit_options.seed)
        mean, scale = trial._moments(state, block.future)
        reached = [LATE not in trial.notes.get(name, "") for name in block.head.ids.tolist()]
        found = calibration.calibrated([((block.truth - mean) / scale)[reached]])
        if found.why and not all(reached):
            found = Calibration(why="no time was left for a second fit")
            said = "time_limit: widths are not calibrated"
            self.note(said)
        return found

    def _window(self) -> int:
        """Number of values to fit."""
        return self._max_rows or max(200, 10 * self._season)

    @abstractmethod
    def _fit_one(self, y: np.ndarray, season: int) -> Fit:
        """Fits a series without missing values; :class:`Misfit` where that fails."""

    def paths(self, state: Table, future: Future, n: int, seed: int) -> np.ndarray:
        state, mean, weight = self._expected(state, future)
        rng = np.random.default_rng(seed)
        series, horizon, targets = mean.shape
        age = np.minimum(state["age"], LONGEST_GAP).astype(np.int64)
        impulses = response(state, int(age.max(initial=0)) + horizon)
        paths = np.empty((n, series, horizon, targets))
        for i in range(series):
            for d in range(targets):
                steps = age[i, d] + horizon
                lag = np.subtract.outer(np.arange(steps), np.arange(steps))
                impulse = np.where(lag >= 0, impulses[i, d, np.abs(lag)], 0.0)
                e = rng.standard_normal((n, steps)) * state["scale"][i, d]
                paths[:, i, :, d] = e @ impulse[age[i, d] :].T
        spread = self.calibration.at(age[:, None] + np.arange(1, horizon + 1)[:, None])
        return mean + weight * spread * paths

    def marginals(
        self, state: Table, future: Future, levels: Sequence[float], n: int, seed: int
    ) -> Marginals:
        from scipy.special import ndtri

        mean, scale = self._moments(state, future)
        z = ndtri(np.asarray(levels, dtype=np.float64))[:, None, None, None]
        return Marginals(mean + z * scale, mean)

    def _moments(self, state: Table, future: Future) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations ``(N, H, D)``."""
        state, mean, weight = self._expected(state, future)
        age = np.minimum(state["age"], LONGEST_GAP).astype(np.int64)
        growth = variance(state, int(age.max(initial=0)) + future.horizon)
        ahead = age[:, None] + np.arange(future.horizon)[:, None]
        factor = np.take_along_axis(growth.transpose(0, 2, 1), ahead, axis=1)
        scale = weight * state["scale"][:, None] * np.sqrt(factor)
        return mean, scale * self.calibration.at(ahead + 1)

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        r"""Level, trend and season after each row.

        These models have one source of error, so that the rows up to :math:`t` leave nothing open
        about the components at :math:`t`, and later rows add nothing: the scales are zero.
        """
        components = np.zeros((panel.rows, panel.y.shape[1], 4))
        self._filter(self._before(panel), panel, components)
        names, kinds = ("level", "trend", "season", "signal"), ("component",) * 3 + ("signal",)
        targets = panel.y.shape[1]
        suffix = [""] if targets == 1 else [f"_{d}" for d in range(targets)]
        mean = components.reshape(panel.rows, -1)
        return Smoothed(
            tuple(name + end for end in suffix for name in names),
            kinds * targets,
            mean,
            np.zeros_like(mean),
        )

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        raise NotImplementedError(
            f"{self.alias!r} cannot draw missing values given later ones; use 'naive', "
            "'seasonal_naive', 'sarimax' or a latent model."
        )

    def _estimate(self, panel: Panel, deadline: Deadline) -> Table:
        shape, m = (panel.batch, panel.y.shape[1]), self._season
        names = ("alpha", "beta", "gamma", "phi", "level0", "trend0", "parameters")
        table = {name: np.zeros(shape) for name in names}
        table |= {"season0": np.zeros((*shape, m)), "factor": np.ones((*shape, m))}
        table["origin"] = np.repeat(panel.last[:, None], shape[1], axis=1)
        starts, pace = panel.offsets[1:] - 1, Pace(deadline)
        for i in range(panel.batch):
            for d in range(shape[1]):
                rows = panel.series(i)
                y = panel.y[rows, d]
                chosen = window(y, self._window())
                fit = self._attempt(panel, i, d, y[chosen], not pace.reaches())
                if chosen.stop:
                    starts[i] = min(starts[i], rows.start + chosen.start)
                    table["origin"][i, d] = panel.t[rows.start + chosen.start]
                phases = phase_of(table["origin"][i, d] + np.arange(m), m)
                for name in ("alpha", "beta", "gamma", "phi", "parameters"):
                    table[name][i, d] = getattr(fit, name)
                table["level0"][i, d], table["trend0"][i, d] = fit.level, fit.trend
                if fit.season is not None:
                    table["season0"][i, d, phases] = fit.season
                if fit.factor is not None:
                    table["factor"][i, d, phases] = fit.factor
        return self._with_scale(table, panel.keep(np.arange(panel.rows) >= starts[panel.owner]))

    def _attempt(self, panel: Panel, series: int, target: int, y: np.ndarray, late: bool) -> Fit:
        """The model asked for, or a walk and a note."""
        if not len(y):
            self._note(
                panel, series, target, "no value: the distribution of the whole panel's values"
            )
            return Fit(alpha=0.0, level=float(self._pool.center[target]))
        m, constant = self._season, same_everywhere(y)
        gap = season_gap(y, m) if m > 1 else ""
        try:
            if late:
                raise Misfit(LATE)
            if len(y) > 1 and constant:
                raise Misfit("it is constant")
            fit = self._fit(y, 1 if gap else m)
        except Misfit as error:
            if m > 1 and not gap and not constant:
                self._note(panel, series, target, f"{error}: seasonal naive")
                self._note(panel, series, target, never_seen(y, m))
                return Fit(alpha=0.0, gamma=1.0, season=filled(y, m)[:m], parameters=m)
            why = f", without the season of {m} ({gap})" if gap and not constant else ""
            self._note(panel, series, target, f"{error}: naive{why}")
            return Fit(alpha=1.0, level=float(y[0]))
        if fit.remark:
            self._note(panel, series, target, fit.remark)
        if m > 1 and fit.season is None and fit.factor is None:
            self._note(panel, series, target, f"without the season of {m}: {gap or fit.flat}")
        else:
            self._note(panel, series, target, never_seen(y, m))
        return fit

    def _fit(self, y: np.ndarray, season: int) -> Fit:
        """The model asked for, or a level where most values are missing."""
        seen = int(np.isfinite(y).sum())
        if seen < 4:
            raise Misfit(few(seen))
        if 2 * seen >= len(y):
            return self._fit_one(filled(y, season), season)
        level, alpha = smoothing_of_gaps(y)
        sparse = f"{seen} of {len(y)} rows have a value"
        return Fit(alpha=alpha, level=level, remark=f"{sparse}: a level alone", flat=sparse)

    def _with_scale(self, table: Table, panel: Panel) -> Table:
        """Adds the standard deviation of the errors, from those of the rows that were fitted."""
        table = {**table, "scale": np.ones_like(table["alpha"])}
        _, (mean, scale), _ = self._filter(self._begin(table, panel), panel)
        squares = ((panel.y - mean) / scale) ** 2
        seen = np.isfinite(squares)
        total = np.add.reduceat(np.where(seen, squares, 0.0), panel.offsets[:-1], axis=0)
        count = np.add.reduceat(seen.astype(np.float64), panel.offsets[:-1], axis=0)
        free = np.maximum(count - table["parameters"], np.minimum(count, 1.0))
        known = count > table["parameters"]
        scale = np.sqrt(np.divide(total, free, where=known, out=np.full_like(total, np.nan)))
        blank = np.add.reduceat(np.isfinite(panel.y), panel.offsets[:-1], axis=0) == 0
        scale = positive(scale, difference_scale(panel, 1), magnitude(panel), self._pool)
        return {**table, "scale": np.where(blank, self._pool.spread, scale)}

    def _begin(self, parameters: Table, panel: Panel) -> Table:
        first, last = panel.offsets[:-1], panel.offsets[1:] - 1
        origin = parameters["origin"]
        anchored = (panel.t[first, None] <= origin) & (origin <= panel.t[last, None])
        start = {name: parameters[f"{name}0"].copy() for name in ("level", "trend", "season")}
        origin = origin.copy()
        for i, d in zip(*np.nonzero(~anchored), strict=True):
            # Other rows than those fitted: the parameters stay, the state begins afresh.
            rows = panel.series(int(i))
            y = panel.y[rows, d]
            if not np.isfinite(y).any():
                origin[i, d] = panel.t[rows][0]
                continue
            skipped = int(np.argmax(np.isfinite(y)))
            t0 = panel.t[rows][skipped]
            m = self._season
            phases = phase_of(t0 + np.arange(len(y) - skipped), m)
            # Fewer than two seasons say less of the season than those that were fitted.
            moving = parameters["gamma"][i, d] > 0 and len(phases) >= 2 * m
            y = filled(y[skipped:], m) / parameters["factor"][i, d, phases]
            if not moving:
                y = y - parameters["season0"][i, d, phases]
            level, trend, season = initial(y, m if moving else 1)
            free = parameters["beta"][i, d] > 0
            origin[i, d] = t0
            if parameters["alpha"][i, d] > 0 or parameters["gamma"][i, d] > 0:
                step = trend if free else parameters["trend0"][i, d]
                start["trend"][i, d] = step
                start["level"][i, d] = level if free else np.mean(y[:1]) - step
            if moving:
                start["level"][i, d] = level if parameters["alpha"][i, d] > 0 else 0.0
                offset = 0.0 if parameters["alpha"][i, d] > 0 else level
                start["season"][i, d, phases[: len(season)]] = season + offset
        age, end = np.zeros_like(origin), panel.t[first, None] - 1 + np.zeros_like(origin)
        return {**parameters, **start, "origin": origin, "age": age, "end": end}

    def _advance(self, state: Table, panel: Panel) -> tuple[Table, Predicted]:
        state, predicted, ages = self._filter(state, panel)
        spread = self.calibration.at(ages + 1)
        return state, predicted._replace(scale=predicted.scale * spread)

    def _filter(
        self, state: Table, panel: Panel, components: np.ndarray | None = None
    ) -> tuple[Table, Predicted, np.ndarray]:
        """The same before calibration, and steps without a value before each row ``(R, D)``."""
        state = skip(state, panel.t[panel.offsets[:-1], None] - state["end"] - 1)
        order, steps = rows_by_step(panel)
        state = {name: values[order] for name, values in state.items()}
        mean, unit = np.full_like(panel.y, np.nan), np.full_like(panel.y, np.nan)
        ages = np.zeros(panel.y.shape, np.int64)
        for rows in steps:
            n = len(rows)
            index = np.arange(n)
            active = {name: values[:n] for name, values in state.items()}
            phase = phase_of(panel.t[rows], self._season)
            y, season = panel.y[rows], active["season"][index, :, phase]
            weight = active["factor"][index, :, phase]
            live = panel.t[rows, None] >= active["origin"]
            damped = active["phi"] * active["trend"]
            level = active["level"] + damped
            expected = weight * (level + season)
            seen = ~np.isnan(y) & live
            error = np.where(seen, (y - expected) / weight, 0.0)
            mean[rows] = np.where(live, expected, np.nan)
            unit[rows] = active["scale"] * weight
            ages[rows] = active["age"]
            np.copyto(active["level"], level + active["alpha"] * error, where=live)
            np.copyto(active["trend"], damped + active["beta"] * error, where=live)
            active["season"][index, :, phase] = season + active["gamma"] * error
            np.copyto(active["age"], np.where(seen, 0, active["age"] + 1), where=live)
            active["end"][:] = panel.t[rows, None]
            if components is not None:
                parts = (active["level"], active["trend"], season + active["gamma"] * error)
                signal = weight * (parts[0] + parts[2])
                components[rows] = np.stack([*parts, signal], axis=-1)
        back = np.argsort(order)
        state = {name: values[back] for name, values in state.items()}
        ages = np.minimum(ages, LONGEST_GAP)
        widen = variance(state, int(ages.max(initial=0)) + 1)
        owner, targets = panel.owner[:, None], np.arange(panel.y.shape[1])
        scale = unit * np.sqrt(widen[owner, targets, ages])
        return state, Predicted(mean, scale), ages

    def packed(self) -> Packed:
        config, tensors = super().packed()
        return Packed({**config, "calibration": self.calibration.to_dict()}, tensors)

    @classmethod
    def unpacked(cls, packed: Packed) -> "LocalEngine":
        engine = super().unpacked(packed)
        assert isinstance(engine, InnovationsEngine)
        # folders of before have none
        if "calibration" in packed.config:
            engine.calibration = Calibration.from_dict(packed.config["calibration"])
            engine.summary = {"calibration": packed.config["calibration"]}
        return engine

    def _expected(self, state: Table, future: Future) -> tuple[Table, np.ndarray, np.ndarray]:
        """State right before the first step, means and factors of all steps ``(N, H, D)``."""
        state = skip(state, future.t[:, :1] - state["end"] - 1)
        index, level, trend = np.arange(len(future.t)), state["level"], state["trend"]
        mean, weight = [], []
        for h in range(future.horizon):
            phase = phase_of(future.t[:, h], self._season)
            trend = state["phi"] * trend
            level = level + trend
            weight.append(state["factor"][index, :, phase])
            mean.append(weight[-1] * (level + state["season"][index, :, phase]))
        return state, np.stack(mean, 1), np.stack(weight, 1)
