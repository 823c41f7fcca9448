"""The theta method: half the trend, and exponential smoothing."""

from typing import Any, ClassVar

import numpy as np

from seqlatent.forecasting.baselines.innovations import Fit, InnovationsEngine, Misfit
from seqlatent.forecasting.baselines.quiet import quiet

__all__ = ["Theta"]


class Theta(InnovationsEngine):
    r"""Exponential smoothing that drifts by half the slope of a line through the series.

    Slope, smoothing parameter and seasonal factors (or, where values are not all positive, sums)
    are those of statsmodels' ``ThetaModel``, and so are the means. With
    :math:`l'_t = l_t + \tfrac{b}{2\alpha} (1 - (1 - \alpha)^t)` it smooths with drift,

    .. math:: \hat y_{t+1} = l'_t, \quad l'_{t+1} = l'_t + \tfrac{b}{2} + \alpha e_{t+1}

    and errors are normal, so that :math:`h` steps ahead have variance
    :math:`\sigma^2 (1 + (h - 1) \alpha^2)`, times the square of a seasonal factor. (statsmodels'
    own intervals have :math:`1 + (h - 1)(1 + (1 - \alpha)^2)`, which no smoothing model has.)

    Args:
        season_length: Steps of the season; None for the shortest that the job names.
        max_rows: Rows at the end of each series to fit.

    References:
        Unmasking the Theta Method (Hyndman & Billah, 2003).
    """

    alias: ClassVar[str] = "theta"

    def __init__(self, *, season_length: int | None = None, max_rows: int = 500) -> None:
        super().__init__(
            season_length=season_length,
            max_rows=max_rows,
            options={"season_length": season_length, "max_rows": max_rows},
        )

    def _fit_one(self, y: np.ndarray, season: int) -> Fit:
        from statsmodels.tsa.forecasting.theta import ThetaModel

        try:
            with quiet():
                model: Any = ThetaModel(y, period=season, deseasonalize=season > 1)
                found = model.fit()
                slope, alpha = (float(value) for value in np.asarray(found.params))
                parts = np.asarray(found.forecast_components(season)["seasonal"], dtype=float)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            raise Misfit(f"statsmodels: {error}") from error
        if not np.isfinite([slope, alpha]).all() or not 0 <= alpha <= 1:
            raise Misfit("statsmodels did not converge")
        # The forecast begins at phase len(y), the parts of Fit at phase 0 of the series.
        parts = np.roll(parts, len(y) % season)
        factors = season > 1 and model.method.startswith("mul")
        first = y[0] / parts[0] if factors else y[0] - parts[0] * (season > 1)
        return Fit(
            alpha=alpha,
            level=float(first) - slope / 2,
            trend=slope / 2,
            season=parts if season > 1 and not factors else None,
            factor=parts if factors else None,
            parameters=2,
        )
