"""Seasonal ARIMA with regressors."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from seqlatent.forecasting.engines.baselines.initial import (
    Standard,
    few,
    never_seen,
    season_gap,
    window,
)
from seqlatent.forecasting.engines.baselines.local import LocalEngine, Predicted, Table
from seqlatent.forecasting.engines.baselines.orders import (
    Order,
    candidates,
    exact,
    fourier,
    sarimax_model,
    search,
)
from seqlatent.forecasting.engines.baselines.quiet import quiet
from seqlatent.forecasting.engines.baselines.series import (
    Form,
    Series,
    bounded,
    each,
    levelled,
    root,
    standard,
    trim,
)
from seqlatent.forecasting.engines.baselines.spread import (
    difference_scale,
    magnitude,
    positive,
    same_everywhere,
)
from seqlatent.forecasting.engines.engine import Marginals, OutOfTime, Smoothed
from seqlatent.forecasting.engines.rehearsal import foretold
from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.training import Deadline

__all__ = ["SARIMAX"]

EXACT = 1e-9
"""Root mean square error, in standard deviations of the series, that is none."""

DIFFUSE = 1e5
"""Variance, in units of the series', above which nothing is known yet (it begins at a million)."""


_BRIEF = 0.5  # seconds that are no reason to leave a model out


class Scales(NamedTuple):
    """Standard deviations of one series: of a step, of a season's step, of what has no error."""

    step: float
    cycle: float
    exact: float


class SARIMAX(LocalEngine):
    r"""Seasonal ARIMA of low order around a regression on covariates that are known ahead.

    .. math:: \phi(B) \Phi(B^m) (1 - B)^d (1 - B^m)^D (y_t - \beta^\top u_t) = c
        + \theta(B) \Theta(B^m) e_t

    Of three or four orders each series takes the one with the least corrected AIC; ``order`` and
    ``seasonal_order`` fix it. Differences are taken where they make the series vary less. Seasons
    of more than 12 steps become three pairs of sines and cosines, or fewer where these would leave
    phases without a value to chance. A season needs two of them, and two values at half of its
    phases, else a note says that there is none. Phases that never have one are expected between
    their neighbours, and vary as the series did. Missing values are exact. A series that cannot be
    fitted, is constant or whose turn comes after the time limit is forecast as a (seasonal) random
    walk, with a note. Where a forecast from other rows than those fitted has too few to tell the
    state, what they leave open varies as the series did.

    Each fit takes from a tenth of a second to seconds: give thousands of series a time limit.

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        order: ``(p, d, q)`` instead of a search.
        seasonal_order: ``(P, D, Q)`` with it.
        max_rows: Values at the end of each series to fit, within five times as many rows; None for
            three seasons, and at least 200.

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 3.4.
    """

    handles_covariates: ClassVar[bool] = True
    alias: str = "sarimax"

    def __init__(
        self,
        *,
        season_length: int | None = None,
        order: Sequence[int] | None = None,
        seasonal_order: Sequence[int] = (0, 0, 0),
        max_rows: int | None = None,
    ) -> None:
        fixed = None if order is None else (*order, *seasonal_order)
        if fixed is not None and (len(fixed) != 6 or min(fixed) < 0):
            raise ValueError(
                f"order and seasonal_order must be three numbers each, found {order} and "
                f"{seasonal_order}; write order=(0, 1, 1), seasonal_order=(0, 1, 1)."
            )
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows must be a positive number of rows, found {max_rows}.")
        super().__init__(
            {
                "season_length": season_length,
                "order": None if order is None else list(order),
                "seasonal_order": list(seasonal_order),
                "max_rows": max_rows,
            },
            season_length,
        )
        self._max_rows = max_rows
        self._order = None if fixed is None else Order(*fixed)

    def paths(self, state: Table, future: Future, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        paths = np.empty((n, *future.t.shape, self._targets))
        for i, d, one in each(state):
            form, lead = self._form(state, i, d, one, future)
            z = form.mean + rng.standard_normal((n, len(form.mean))) @ root(form.covariance)
            for h in range(-lead, future.horizon):
                if h >= 0:
                    paths[:, i, h, d] = form.offset[h] + z @ form.Z
                z = z @ form.F.T + form.c + rng.standard_normal((n, form.R.shape[1])) @ form.R.T
        return paths

    def marginals(
        self, state: Table, future: Future, levels: Sequence[float], n: int, seed: int
    ) -> Marginals:
        from scipy.special import ndtri

        mean = np.empty((*future.t.shape, self._targets))
        scale = np.empty_like(mean)
        for i, d, one in each(state):
            form, lead = self._form(state, i, d, one, future)
            a, P, least = form.mean, form.covariance, one.unit**2 * one.values[-1]
            for h in range(-lead, future.horizon):
                if h >= 0:
                    mean[i, h, d] = form.offset[h] + form.Z @ a
                    scale[i, h, d] = np.sqrt(max(form.Z @ P @ form.Z, least))
                a, P = form.F @ a + form.c, form.F @ P @ form.F.T + form.R @ form.R.T
        z = ndtri(np.asarray(levels, dtype=np.float64))[:, None, None, None]
        return Marginals(mean + z * scale, mean)

    def smooth(self, panel: Panel, seed: int) -> Smoothed:
        """The series itself, where it was not observed, too."""
        mean, scale = np.empty(panel.y.shape), np.empty(panel.y.shape)
        state = self._before(panel)
        for i, d, one in each(state):
            rows = panel.series(i)
            model = self._model(one, panel.y[rows, d], panel.t[rows], panel.future[rows])
            found = model.ssm.smooth()
            Z = model["design"][0]
            offset = np.broadcast_to(model["obs_intercept"], (1, model.nobs))[0]
            mean[rows, d] = one.shift + one.unit * (offset + Z @ found.smoothed_state)
            P = np.einsum("i,ijt,j->t", Z, found.smoothed_state_cov, Z)
            seen = np.isfinite(panel.y[rows, d])
            scale[rows, d] = one.unit * np.sqrt(np.where(seen, 0.0, np.maximum(P, 0.0)))
        targets = panel.y.shape[1]
        names = tuple(f"signal_{d}" for d in range(targets)) if targets > 1 else ("signal",)
        return Smoothed(names, ("signal",) * targets, mean, scale)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        draws = np.repeat(panel.y[None], n, axis=0)
        state = self._before(panel)
        for i, d, one in each(state):
            rows = panel.series(i)
            missing = np.isnan(panel.y[rows, d])
            if not missing.any():
                continue
            model = self._model(one, panel.y[rows, d], panel.t[rows], panel.future[rows])
            Z = model["design"][0]
            offset = np.broadcast_to(model["obs_intercept"], (1, model.nobs))[0]
            smoother = model.simulation_smoother()
            for draw in range(n):
                smoother.simulate(rng=rng)
                signal = offset + Z @ smoother.simulated_state
                drawn = one.shift + one.unit * signal
                draws[draw, rows, d] = np.where(missing, drawn, panel.y[rows, d])
        return draws

    def _foretold(self, panel: Panel, deadline: Deadline) -> float:
        if deadline.never:
            return 0.0

        def stand(index: np.ndarray) -> None:
            some = panel.select(index)
            self._advance(self._begin(self._estimate(some, Deadline(0.0)), some), some)

        seconds = foretold(stand, panel.batch, deadline)
        self.notes = {k: v for k, v in self.notes.items() if k is None}
        if seconds > max(deadline.left, _BRIEF):
            raise OutOfTime(
                f"time_limit is too short: to filter {panel.batch} series takes {seconds:.2g} s"
            )
        return 1.5 * seconds  # fitted ones have larger states

    def _estimate(self, panel: Panel, deadline: Deadline) -> Table:
        shape = (panel.batch, panel.y.shape[1])
        level, step = magnitude(panel), difference_scale(panel, 1)
        cycle = positive(difference_scale(panel, self._season), step, level, self._pool)
        exact = positive(np.zeros(shape), step, level, self._pool)
        step = positive(step, step, level, self._pool)
        limit = self._max_rows or max(200, 3 * self._season)
        windows = [
            [window(panel.y[panel.series(i), d], limit, 5 * limit) for d in range(shape[1])]
            for i in range(shape[0])
        ]
        starts = panel.offsets[1:] - 1
        for i, chosen in enumerate(windows):
            first = [rows.start for rows in chosen if rows.stop]
            starts[i] = min([starts[i], *(panel.offsets[i] + np.array(first, np.int64))])
        center, spread = standard(panel.keep(np.arange(panel.rows) >= starts[panel.owner]))
        orders = np.zeros((*shape, len(Order._fields)), np.int64)
        shift, unit = np.zeros(shape), np.ones(shape)
        found: list[np.ndarray] = []
        for i in range(shape[0]):
            for d in range(shape[1]):
                chosen = windows[i][d]
                rows = slice(panel.offsets[i] + chosen.start, panel.offsets[i] + chosen.stop)
                scales = Scales(float(step[i, d]), float(cycle[i, d]), float(exact[i, d]))
                x = (panel.future[rows] - center[i]) / spread[i]
                order, values, shift[i, d], unit[i, d] = self._attempt(
                    panel, i, d, panel.y[rows, d], panel.t[rows], x, scales, deadline
                )
                orders[i, d] = order
                found.append(values)
        width = max(len(values) for values in found)
        padded = [np.pad(v, (0, width - len(v)), constant_values=np.nan) for v in found]
        table = {"order": orders, "values": np.stack(padded).reshape(*shape, width)}
        return {**table, "shift": shift, "unit": unit, "center": center, "spread": spread}

    def _attempt(
        self,
        panel: Panel,
        series: int,
        target: int,
        y: np.ndarray,
        t: np.ndarray,
        x: np.ndarray,
        scales: Scales,
        deadline: Deadline,
    ) -> tuple[Order, np.ndarray, float, float]:
        """The best of the candidates, or a walk and a note."""
        free = np.zeros(x.shape[1])
        if not len(y):
            self._note(
                panel, series, target, "no value: the distribution of the whole panel's values"
            )
            pool = self._pool
            center, spread = float(pool.center[target]), float(pool.spread[target])
            return Order(), np.array([*free, 1.0]), center, spread
        m, count = self._season, int(np.isfinite(y).sum())
        gap = season_gap(y, m) if m > 1 else ""
        lost = f"without the season of {m} ({gap})" if gap else ""
        if self._order and not any(self._order[3:6]):
            lost = ""
        elif self._order and m == 1:
            lost = "without seasonal_order (no season is known: give season_length)"
        constant = same_everywhere(y)
        if constant and count > 1:
            reason = "it is constant"
        elif count < 8 + x.shape[1]:
            reason = few(count)
        else:
            data = Standard.of(y)
            best, reason = self._fit(data, t, x, 1 if gap else m, scales, deadline)
            if best is not None:
                if reason:
                    self._note(panel, series, target, f"best of the orders fitted: {reason}")
                periodic = any((best[0].P, best[0].D, best[0].Q, best[0].k))
                self._note(panel, series, target, lost)
                self._note(panel, series, target, never_seen(y, m) if periodic else "")
                return *best, data.shift, data.unit
        periodic = m > 1 and not gap and not constant
        name = "seasonal naive" if periodic else "naive"
        without = [lost] if lost and not constant else []
        without += ["without covariates"] if x.shape[1] else []
        self._note(panel, series, target, ", ".join([f"{reason}: {name}", *without]))
        self._note(panel, series, target, never_seen(y, m) if periodic else "")
        order, scale = (Order(D=1), scales.cycle) if periodic else (Order(d=1), scales.step)
        return order, np.array([*free, 1.0]), float(np.nanmean(y)), scale

    def _fit(
        self,
        data: Standard,
        t: np.ndarray,
        x: np.ndarray,
        season: int,
        scales: Scales,
        deadline: Deadline,
    ) -> tuple[tuple[Order, np.ndarray] | None, str]:
        """Order and parameters, without a search where there is nothing left to explain."""
        sure = exact(data.y, x, season, EXACT + data.rounding)
        if sure is not None and not self._order:
            order, values = sure
            return (order, np.array([*values, (scales.exact / data.unit) ** 2])), ""
        with quiet():
            orders = [self._order] if self._order else candidates(data.digits, season)
        if season == 1:
            orders = [order._replace(P=0, D=0, Q=0) for order in orders]
        return search(data.digits, t, x, orders, self._season, deadline)

    def _begin(self, parameters: Table, panel: Panel) -> Table:
        shape = parameters["shift"].shape
        end = panel.t[panel.offsets[:-1], None] - 1 + np.zeros(shape)
        # No column yet: the model's own initial distribution holds.
        empty = {"mean": np.zeros((*shape, 0)), "covariance": np.zeros((*shape, 0, 0))}
        return {**parameters, **empty, "end": end}

    def _advance(self, state: Table, panel: Panel) -> tuple[Table, Predicted]:
        mean, scale = np.full_like(panel.y, np.nan), np.full_like(panel.y, np.nan)
        ends: list[tuple[np.ndarray, np.ndarray]] = []
        for i, d, one in each(state):
            rows = panel.series(i)
            lead = int(panel.t[rows][0] - state["end"][i, d] - 1)
            y = np.pad(panel.y[rows, d], (lead, 0), constant_values=np.nan)
            t = np.pad(panel.t[rows], (lead, 0))
            x = np.pad(panel.future[rows], ((lead, 0), (0, 0)))
            model = self._model(one, y, t, x)
            a, P = trim(state["mean"][i, d], state["covariance"][i, d])
            if len(a):
                model.ssm.initialize_known(a, P)
            found = model.ssm.filter()
            # An error is never less than what is new in it; rounding beside a diffuse start is.
            variance = np.maximum(found.forecasts_error_cov[0, 0, lead:], one.values[-1])
            known = variance < DIFFUSE
            expected = one.shift + one.unit * found.forecasts[0, lead:]
            mean[rows, d] = np.where(known, expected, np.nan)
            scale[rows, d] = one.unit * np.sqrt(np.where(known, variance, np.nan))
            ends.append((found.predicted_state[:, -1], found.predicted_state_cov[..., -1]))
        shape, width = state["shift"].shape, max(len(a) for a, _ in ends)
        means = np.full((len(ends), width), np.nan)
        covariances = np.full((len(ends), width, width), np.nan)
        for row, (a, P) in enumerate(ends):
            means[row, : len(a)], covariances[row, : len(a), : len(a)] = a, P
        end = np.repeat(panel.t[panel.offsets[1:] - 1, None], shape[1], axis=1)
        after = {
            "mean": means.reshape(*shape, width),
            "covariance": covariances.reshape(*shape, width, width),
            "end": end,
        }
        return {**state, **after}, Predicted(mean, scale)

    def _model(self, one: Series, y: np.ndarray, t: np.ndarray, x: np.ndarray) -> Any:
        """The model of a series in statsmodels, with its parameters, ready to filter."""
        with quiet():
            x = (x - one.center) / one.spread
            u = np.concatenate([x, fourier(t, self._season, one.order.k)], axis=1)
            model = sarimax_model((y - one.shift) / one.unit, u, one.order, self._season)
            model.update(one.values, transformed=True)
        return model

    def _form(self, state: Table, i: int, d: int, one: Series, future: Future) -> tuple[Form, int]:
        t = future.t[i]
        model = self._model(one, np.full(len(t), np.nan), t, future.u[i])
        offset = np.broadcast_to(model["obs_intercept"], (1, len(t)))[0]
        a, P = trim(state["mean"][i, d], state["covariance"][i, d])
        P, unknown = bounded(P, DIFFUSE)
        c = np.broadcast_to(model["state_intercept"].reshape(len(a), -1)[:, 0], a.shape)
        R = model["selection"] @ np.sqrt(model["state_cov"])
        Z, unit = model["design"][0], one.unit
        F = model["transition"]
        if unknown.shape[1] and one.order.D:
            a = levelled(a, unknown, F, c, Z, 2 * self._season)
        form = Form(a, P, F, c, R, Z * unit, one.shift + unit * offset)
        return form, int(t[0] - state["end"][i, d] - 1)
