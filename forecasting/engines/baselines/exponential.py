"""Exponential smoothing with the parts that each series calls for."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from seqlatent.forecasting.engines.baselines.initial import Standard, initial
from seqlatent.forecasting.engines.baselines.innovations_engine import (
    Fit,
    InnovationsEngine,
    Misfit,
)
from seqlatent.forecasting.engines.baselines.polish import polish
from seqlatent.forecasting.engines.baselines.quiet import quiet

__all__ = ["ETS"]

EXACT = 1e-9
"""Root mean square error, in standard deviations of the series, that is none."""

BOUNDS = tuple(
    {
        "smoothing_level": level,
        "smoothing_trend": level,
        "smoothing_seasonal": level,
        "damping_trend": damping,
    }
    for level, damping in ((1e-4, 0.8), (1 - 1e-4, 0.98))
)
"""Ends of the box that statsmodels searches."""


class ETS(InnovationsEngine):
    """Exponential smoothing with additive errors: a level, with or without damped trend or season.

    Each series takes, of these four, the model with the least corrected AIC. Parameters are fitted
    by statsmodels' ``ETSModel``, from initial states that are computed and not fitted, which makes
    it fast. A season needs two of them, with two values at half of its phases (a note tells of
    those that never have one: they lie between their neighbours); a note says of a series that it
    has none, and why. A series that cannot be fitted, is constant or whose turn comes after the
    time limit is forecast as a (seasonal) random walk, with a note.

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        max_rows: Values at the end of each series to fit; None for ten seasons, and at least 200.
        calibrate: Whether the spread is that which blocks ask for that are held out of a second fit
            of some series, by lead.

    References:
        Forecasting with Exponential Smoothing (Hyndman et al., 2008), chapters 2, 5, 6.
    """

    alias: str = "ets"

    def __init__(
        self,
        *,
        season_length: int | None = None,
        max_rows: int | None = None,
        calibrate: bool = True,
    ) -> None:
        super().__init__(season_length=season_length, max_rows=max_rows, calibrate=calibrate)

    def _fit_one(self, y: np.ndarray, season: int) -> Fit:
        data = Standard.of(y)
        best, least, reasons, flat = None, np.inf, [], ""
        for trend, seasonal in product((False, True), (False, True) if season > 1 else (False,)):
            part = season if seasonal else 1
            if len(y) < _size(part, trend) + 2:
                flat = f"{len(y)} rows are too few for its states"
                continue
            try:
                fit, criterion = _fit(data, part, trend)
            except Misfit as error:
                reasons.append(str(error))
                continue
            if seasonal:
                flat = "the corrected AIC is less without one"
            if criterion < least:
                best, least = fit, criterion
        if best is None:
            raise Misfit(reasons[0] if reasons else f"{len(y)} rows are too few to fit")
        failed = f"best of those that could be fitted, not so {len(reasons)}"
        return replace(
            best,
            level=data.shift + best.level * data.unit,
            trend=best.trend * data.unit,
            season=None if best.season is None else best.season * data.unit,
            remark=f"{failed} ({reasons[0]})" if reasons else "",
            flat=flat or (f"{reasons[0]}" if reasons else ""),
        )


def _size(season: int, trend: bool) -> int:
    """Number of parameters, initial states and the variance among them."""
    return 1 + 2 * trend + (season > 1) + 1 + trend + (season - 1) + 1


def _fit(data: Standard, season: int, trend: bool) -> tuple[Fit, float]:
    """One model by maximum likelihood, and its corrected AIC."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    used = _size(season, trend)
    level, slope, pattern = _start(data.digits, season, trend)
    try:
        with quiet():
            model: Any = ETSModel(
                data.digits,
                error="add",
                trend="add" if trend else None,
                damped_trend=trend,
                seasonal="add" if season > 1 else None,
                seasonal_periods=season if season > 1 else None,
                initialization_method="known",
                initial_level=level,
                initial_trend=slope if trend else None,
                initial_seasonal=pattern if season > 1 else None,
            )
            params, log_prob = _maximum(model, EXACT + data.rounding)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise Misfit(f"statsmodels: {error}") from error
    values = dict(zip(model.param_names, params.tolist(), strict=True))
    criterion = 2 * (used - log_prob) + 2 * used * (used + 1) / (len(data.y) - used - 1)
    level, slope, pattern = _start(data.y, season, trend)
    fit = Fit(
        alpha=values["smoothing_level"],
        beta=values.get("smoothing_trend", 0.0),
        gamma=values.get("smoothing_seasonal", 0.0),
        phi=values.get("damping_trend", 1.0),
        level=level,
        trend=slope if trend else 0.0,
        season=pattern if season > 1 else None,
        parameters=1 + 2 * trend + (season > 1),
    )
    return fit, criterion


def _start(y: np.ndarray, season: int, trend: bool) -> tuple[float, float, np.ndarray]:
    """Initial states; without a trend the level is the line's at the first row."""
    level, slope, pattern = initial(y, season)
    return level if trend else level + slope, slope, pattern


def _maximum(model: Any, exact: float) -> tuple[np.ndarray, float]:
    """Parameters of the greatest likelihood, and its logarithm.

    Where the initial states leave no error, any parameters do: statsmodels' first ones are taken.
    """
    start = np.asarray(model.start_params, dtype=float)
    if np.sqrt(np.mean(np.asarray(model.smooth(start).resid) ** 2)) <= exact:
        return start, np.inf
    found = model.fit(disp=0, warn_convergence=False)
    if not found.mle_retvals["converged"] or not np.isfinite(found.llf):
        raise Misfit("statsmodels did not converge")
    names = model.param_names
    lower, upper = (np.array([bounds[name] for name in names]) for bounds in BOUNDS)

    def params(x: np.ndarray) -> np.ndarray:
        """From parameters in a box: trend and season have parts of what the level leaves them."""
        part = {"smoothing_trend": x[0], "smoothing_seasonal": 1 - x[0]}
        return x * [part.get(name, 1.0) for name in names]

    box = np.asarray(found.params) / params(np.array([found.params[0], *np.ones(len(names) - 1)]))
    box[0] = found.params[0]
    best = params(polish(lambda x: -float(model.loglike(params(x))), box, lower, upper))
    return best, float(model.loglike(best))
