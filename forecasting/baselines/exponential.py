"""Exponential smoothing with the parts that each series calls for."""

from itertools import product
from typing import Any, ClassVar

import numpy as np

from seqlatent.forecasting.baselines.initial import initial
from seqlatent.forecasting.baselines.innovations import Fit, InnovationsEngine, Misfit
from seqlatent.forecasting.baselines.quiet import quiet

__all__ = ["ETS"]


class ETS(InnovationsEngine):
    """Exponential smoothing with additive errors: a level, with or without damped trend or season.

    Each series takes, of these four, the model with the least corrected AIC. Parameters are fitted
    by statsmodels' ``ETSModel``, from initial states that are computed and not fitted, which makes
    it fast. A season needs two of them in full. A series that cannot be fitted, is constant or
    whose turn comes after the time limit is forecast as a (seasonal) random walk, with a note.

    Args:
        season_length: Steps of the season; None for the shortest that the job names.
        max_rows: Rows at the end of each series to fit; None for ten seasons, and at least 200.

    References:
        Forecasting with Exponential Smoothing (Hyndman et al., 2008), chapters 2, 5, 6.
    """

    alias: ClassVar[str] = "ets"

    def __init__(self, *, season_length: int | None = None, max_rows: int | None = None) -> None:
        super().__init__(
            season_length=season_length,
            max_rows=max_rows,
            options={"season_length": season_length, "max_rows": max_rows},
        )

    def _fit_one(self, y: np.ndarray, season: int) -> Fit:
        unit = float(np.std(y))
        best, least, reasons = None, np.inf, []
        for trend, seasonal in product((False, True), (False, True) if season > 1 else (False,)):
            part = season if seasonal else 1
            if len(y) < _size(part, trend) + 2:
                continue
            try:
                fit, criterion = _fit(y / unit, part, trend)
            except Misfit as error:
                reasons.append(str(error))
                continue
            if criterion < least:
                best, least = fit, criterion
        if best is None:
            raise Misfit(reasons[0] if reasons else f"{len(y)} rows are too few to fit")
        return Fit(
            best.alpha,
            best.beta,
            best.gamma,
            best.phi,
            best.level * unit,
            best.trend * unit,
            None if best.season is None else best.season * unit,
            None,
            best.parameters,
            f"best of those that could be fitted, not so {len(reasons)} ({reasons[0]})"
            if reasons
            else "",
        )


def _size(season: int, trend: bool) -> int:
    """Number of parameters, initial states and the variance among them."""
    return 1 + 2 * trend + (season > 1) + 1 + trend + (season - 1) + 1


def _fit(y: np.ndarray, season: int, trend: bool) -> tuple[Fit, float]:
    """One model by maximum likelihood, and its corrected AIC."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    level, slope, pattern = initial(y, season)
    used = _size(season, trend)
    if not trend:
        level += slope  # the line at the first row
    try:
        with quiet():
            model: Any = ETSModel(
                y,
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
            found = model.fit(disp=0, warn_convergence=False)
            values = dict(zip(model.param_names, np.asarray(found.params), strict=True))
            log_prob, converged = float(found.llf), found.mle_retvals["converged"]
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise Misfit(f"statsmodels: {error}") from error
    if not converged or not np.isfinite(log_prob):
        raise Misfit("statsmodels did not converge")
    criterion = 2 * (used - log_prob) + 2 * used * (used + 1) / (len(y) - used - 1)
    fit = Fit(
        alpha=float(values["smoothing_level"]),
        beta=float(values.get("smoothing_trend", 0.0)),
        gamma=float(values.get("smoothing_seasonal", 0.0)),
        phi=float(values.get("damping_trend", 1.0)),
        level=float(level),
        trend=float(slope) if trend else 0.0,
        season=pattern if season > 1 else None,
        parameters=1 + 2 * trend + (season > 1),
    )
    return fit, criterion
