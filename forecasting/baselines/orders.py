"""Orders of ARIMA models: which to try on a series, and what they are to statsmodels."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["LONGEST_SEASON", "Order", "candidates", "fourier", "sarimax_model"]

LONGEST_SEASON = 12
"""Longest season in the state; longer ones become regressors."""

HARMONICS = 3


class Order(NamedTuple):
    """Orders of a seasonal ARIMA model.

    Attributes:
        p: Autoregressive terms.
        d: Differences.
        q: Moving average terms.
        P: Seasonal autoregressive terms.
        D: Seasonal differences.
        Q: Seasonal moving average terms.
        c: 1 with a constant, which is a drift after a difference.
        k: Pairs of sines and cosines of the season.
    """

    p: int = 0
    d: int = 0
    q: int = 0
    P: int = 0
    D: int = 0
    Q: int = 0
    c: int = 0
    k: int = 0


def candidates(y: np.ndarray, season: int) -> list[Order]:
    """A few orders to try, the simplest first, all with the same differences.

    A difference is taken where it makes the series vary less.

    Args:
        y: A series, NaN where missing ``(T,)``.
        season: Steps of the season, 1 for none.
    """
    seen = y[np.isfinite(y)]
    pairs = len(y) >= 2 * season and season > 1
    if pairs and season <= LONGEST_SEASON:
        lagged = y[season:] - y[:-season]
        if np.nanvar(lagged) < np.nanvar(y):
            d = int(np.nanvar(np.diff(lagged)) < np.nanvar(lagged))
            c = 1 - d
            found = [Order(0, d, 1, 0, 1, 1, c), Order(1, d, 0, 0, 1, 1, c)]
            return [*found, Order(1, d, 1, 0, 1, 1, c)]
        k, P = 0, 1
    else:
        k, P = (min(HARMONICS, season // 2) if pairs else 0), 0
    d = int(np.var(np.diff(seen)) < np.var(seen))
    found = [Order(0, d, 1, P, c=1 - d, k=k), Order(1, d, 0, P, c=1 - d, k=k)]
    found.append(Order(1, d, 1, P, c=1 - d, k=k))
    return found if not d or P else [*found, Order(0, 1, 1, P, c=1, k=k)]


def fourier(t: np.ndarray, season: int, pairs: int) -> np.ndarray:
    """Cosines and sines of the season ``(T, 2 pairs)``."""
    angle = 2 * np.pi * np.outer(t / season, np.arange(1, pairs + 1))
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def sarimax_model(y: np.ndarray, x: np.ndarray, order: Order, season: int) -> Any:
    """The model of a series ``(T,)`` in statsmodels, with regressors ``(T, U)``."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    periodic = order.P + order.D + order.Q > 0
    return SARIMAX(
        y,
        exog=x if x.shape[1] else None,
        order=order[:3],
        seasonal_order=(*order[3:6], season) if periodic else (0, 0, 0, 0),
        trend="c" if order.c else "n",
        # it refuses a regressor that happens to be constant over the horizon
        validate_specification=False,
    )
