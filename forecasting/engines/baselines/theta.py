"""The theta method: half the trend, and exponential smoothing."""

from typing import Any

import numpy as np

from seqlatent.forecasting.engines.baselines.initial import Standard
from seqlatent.forecasting.engines.baselines.innovations_engine import (
    Fit,
    InnovationsEngine,
    Misfit,
)
from seqlatent.forecasting.engines.baselines.polish import polish
from seqlatent.forecasting.engines.baselines.quiet import quiet
from seqlatent.forecasting.engines.baselines.spread import ROUNDING

__all__ = ["Theta"]

CRITICAL = 1.645**2
"""Least test statistic of a season: one autocorrelation in ten of noise is greater."""


class Theta(InnovationsEngine):
    r"""Exponential smoothing that drifts by half the slope of a line through the series.

    Slope, smoothing parameter and seasonal factors (or, where values are not all positive, sums)
    are those of statsmodels' ``ThetaModel``, and so are the means. A season needs two of them, with
    two values at half of its phases (a note tells of those that never have one: they lie between
    their neighbours), and an autocorrelation; a note says of a series that it has none, and why.
    Factors have a zero: seasonal series that are moved from or to where all values are positive
    have other widths. With
    :math:`l'_t = l_t + \tfrac{b}{2\alpha} (1 - (1 - \alpha)^t)` it smooths with drift,

    .. math:: \hat y_{t+1} = l'_t, \quad l'_{t+1} = l'_t + \tfrac{b}{2} + \alpha e_{t+1}

    and errors are normal, so that :math:`h` steps ahead have variance
    :math:`\sigma^2 (1 + (h - 1) \alpha^2)`, times the square of a seasonal factor. (statsmodels'
    own intervals have :math:`1 + (h - 1)(1 + (1 - \alpha)^2)`, which no smoothing model has.)

    Args:
        season_length: Steps of the season; None for the shortest that the fit options name.
        max_rows: Values at the end of each series to fit; None for four seasons, and at least 500.
        calibrate: Whether the spread is that which blocks ask for that are held out of a second fit
            of some series, by lead.

    References:
        Unmasking the Theta Method (Hyndman & Billah, 2003).
    """

    alias: str = "theta"

    def __init__(
        self,
        *,
        season_length: int | None = None,
        max_rows: int | None = None,
        calibrate: bool = True,
    ) -> None:
        super().__init__(season_length=season_length, max_rows=max_rows, calibrate=calibrate)

    def _window(self) -> int:
        return self._max_rows or max(500, 4 * self._season)

    def _fit_one(self, y: np.ndarray, season: int) -> Fit:
        exact = 1e-9 * np.std(y) + ROUNDING * np.abs(y).max()
        try:
            with quiet():
                parts, factors, flat = _season(y, season)
                rows = np.arange(len(y)) % season
                rest = y / parts[rows] if factors else y - parts[rows]
                # Without an error left, any parameter does.
                level = np.ptp(rest) <= exact
                slope, alpha = (0.0, 0.1) if level else _line_and_smoothing(rest)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            raise Misfit(f"statsmodels: {error}") from error
        periodic = season > 1 and not flat
        return Fit(
            alpha=alpha,
            level=float(rest[0]) - slope / 2,
            trend=slope / 2,
            season=parts if periodic and not factors else None,
            factor=parts if periodic and factors else None,
            parameters=2,
            flat=flat,
        )


def _season(y: np.ndarray, season: int) -> tuple[np.ndarray, bool, str]:
    """Parts of the season ``(season,)``, whether they are factors, and why there is none."""
    from statsmodels.tsa.seasonal import seasonal_decompose
    from statsmodels.tsa.stattools import acf

    none = np.zeros(season)
    if season == 1:
        return none, False, ""
    rho: Any = acf(y - y.mean(), nlags=season, fft=True)
    if len(y) * rho[-1] ** 2 <= CRITICAL * np.sum(rho[:-1] ** 2):
        return none, False, "no autocorrelation at it"
    if y.min() > 0:
        factors = np.asarray(seasonal_decompose(y, model="multiplicative", period=season).seasonal)
        if factors.min() > 0:
            return factors[:season], True, ""
    sums = seasonal_decompose(y - y.mean(), model="additive", period=season).seasonal
    return np.asarray(sums)[:season], False, ""


def _line_and_smoothing(y: np.ndarray) -> tuple[float, float]:
    """Slope of the line through a series, and the parameter of its exponential smoothing."""
    from scipy.signal import lfilter
    from statsmodels.tsa.forecasting.theta import ThetaModel

    data = Standard.of(y)
    found: Any = ThetaModel(data.digits, deseasonalize=False).fit()
    slope, alpha = (float(value) for value in np.asarray(found.params))
    if not np.isfinite([slope, alpha]).all():
        raise Misfit("statsmodels did not converge")

    def loss(x: np.ndarray) -> float:
        first, rest = data.digits[:1], data.digits[1:]
        levels: Any = lfilter(x, [1.0, x[0] - 1], rest, zi=(1 - x) * first)[0]
        errors = rest - np.concatenate([first, levels[:-1]])
        return float(len(y) / 2 * np.log(np.sum(errors**2)))

    alpha = polish(loss, np.array([alpha]), np.zeros(1), np.ones(1))[0]
    return slope * data.unit, float(alpha)
