"""Orders of ARIMA models: which to try on a series, and what they are to statsmodels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlatent.forecasting.engines.baselines.local import LATE
from seqlatent.forecasting.engines.baselines.polish import polish
from seqlatent.forecasting.engines.baselines.quiet import quiet
from seqlatent.training import Deadline, Pace

__all__ = []

LONGEST_SEASON = 12
"""Longest season in the state; longer ones become regressors."""

HARMONICS = 3

UNIT = 1 - 1e-3
"""Largest autoregressive coefficient whose neighbours are stationary, too."""


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
        season: Steps of the season, 1 for none or where there are not two of them.
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
        k, P = (harmonics(y, season) if pairs else 0), 0
    d = int(np.var(np.diff(seen)) < np.var(seen))
    found = [Order(0, d, 1, P, c=1 - d, k=k), Order(1, d, 0, P, c=1 - d, k=k)]
    found.append(Order(1, d, 1, P, c=1 - d, k=k))
    return found if not d or P else [*found, Order(0, 1, 1, P, c=1, k=k)]


def harmonics(y: np.ndarray, season: int) -> int:
    """Number of pairs of sines and cosines, fewer than three where some phases have no value.

    A long run of such phases, as a night without readings, is told from the others by a high power
    of the distance. Each of them is told no worse than by one value of its own, if more than one
    pair is to be kept.
    """
    phases = np.arange(season)
    seen = np.isin(phases, np.flatnonzero(np.isfinite(y)) % season)
    for k in range(min(HARMONICS, season // 2), 1, -1):
        design = np.concatenate([np.ones((season, 1)), fourier(phases, season, k)], axis=1)
        weights = np.linalg.lstsq(design[seen].T, design[~seen].T, rcond=None)[0]
        if (weights**2).sum(0).max(initial=0.0) <= 1:
            return k
    return 1


def exact(
    y: np.ndarray, x: np.ndarray, season: int, error: float
) -> tuple[Order, np.ndarray] | None:
    """Differences and a constant that leave no error, and their regression; None if none do.

    A likelihood without errors has no maximum, so that no optimiser finds these.

    Args:
        y: A series, NaN where missing ``(T,)``.
        x: Regressors ``(T, U)``.
        season: Steps of the season, 1 for none.
        error: Largest root mean square error that is none.

    Returns:
        The order, and its constant and coefficients ``(1 + U,)``.
    """
    design = np.concatenate([np.ones((len(y), 1)), x], axis=1)
    for d, D in ((0, 0), (1, 0), (0, 1), (1, 1))[: 2 if season == 1 else 4]:
        left, right = y, design
        if D:
            left, right = left[season:] - left[:-season], right[season:] - right[:-season]
        if d:
            left, right = np.diff(left), np.diff(right, axis=0)
        right = np.concatenate([np.ones((len(left), 1)), right[:, 1:]], axis=1)
        seen = np.isfinite(left)
        if seen.sum() < 2 * right.shape[1] + 2:
            continue
        found = np.linalg.lstsq(right[seen], left[seen], rcond=None)[0]
        if np.sqrt(np.mean((left[seen] - right[seen] @ found) ** 2)) <= error:
            return Order(d=d, D=D, c=1), found
    return None


def fourier(t: np.ndarray, season: int, pairs: int) -> np.ndarray:
    """Cosines and sines of the season ``(T, 2 pairs)``."""
    angle = 2 * np.pi * np.outer(t / season, np.arange(1, pairs + 1))
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def sarimax_model(
    y: np.ndarray, x: np.ndarray, order: Order, season: int, *, diffuse: bool = False
) -> Any:
    """The model of a series ``(T,)`` in statsmodels, with regressors ``(T, U)``.

    Its start is diffuse by a large variance, which costs digits, or exactly.
    """
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
        use_exact_diffuse=diffuse,
    )


def _corrected(found: Any, y: np.ndarray) -> float:
    """Corrected AIC of a model that statsmodels fitted; missing values count as no rows."""
    k, n = found.df_model, found.nobs_effective - int(np.isnan(y).sum())
    return float(found.aic + 2 * k * (k + 1) / (n - k - 1)) if n > k + 1 else np.inf


def _polished(model: Any, order: Order, values: np.ndarray) -> np.ndarray:
    """Parameters of a model that statsmodels fitted, to all the digits of its likelihood.

    Models with a second autoregressive or moving average term are left as they are: their
    coefficients have no box.
    """
    if max(order.p, order.q, order.P, order.Q) > 1:
        return values
    rest = len(values) - (order.p + order.q + order.P + order.Q) - 1
    bounds = [np.inf] * rest + [UNIT] * order.p + [1.0] * order.q + [UNIT] * order.P
    box = np.array([*bounds, *[1.0] * order.Q, np.inf])
    if (np.abs(values) > box).any() or values[-1] <= 0:
        return values

    def loss(x: np.ndarray) -> float:
        return -float(model.loglike(np.array([*x[:-1], np.exp(x[-1])]), transformed=True))

    try:
        found = polish(loss, np.array([*values[:-1], np.log(values[-1])]), -box, box)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return values
    return np.array([*found[:-1], np.exp(found[-1])])


def search(
    y: np.ndarray,
    t: np.ndarray,
    x: np.ndarray,
    orders: Sequence[Order],
    season: int,
    deadline: Deadline,
) -> tuple[tuple[Order, np.ndarray] | None, str]:
    """The order of the least corrected AIC with its parameters, and what went wrong on the way.

    Args:
        y: Values ``(T,)``.
        t: Times ``(T,)``.
        x: Regressors ``(T, U)``.
        orders: Orders to try.
        season: Steps of the season.
        deadline: By when the search ends.
    """
    best, least, reason, pace = None, np.inf, "", Pace(deadline)
    for order in orders:
        if not pace.reaches():
            reason = LATE
            break
        try:
            with quiet():
                u = np.concatenate([x, fourier(t, season, order.k)], axis=1)
                model = sarimax_model(y, u, order, season)
                found = model.fit(disp=0, maxiter=100, cov_type="none", warn_convergence=False)
                values, criterion = np.asarray(found.params), _corrected(found, y)
                converged = found.mle_retvals["converged"]
        except (ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError) as error:
            reason = f"statsmodels: {error}"
            continue
        if not converged or not np.isfinite(values).all():
            reason = "statsmodels did not converge"
            continue
        if not np.isfinite(criterion):
            reason = f"{np.isfinite(y).sum()} values are too few to fit"
            continue
        if criterion < least:
            best, least = (order, values), criterion
    # polishing takes about as long as a few of the fits
    if best is not None and pace.reaches(3.0):
        with quiet():
            u = np.concatenate([x, fourier(t, season, best[0].k)], axis=1)
            model = sarimax_model(y, u, best[0], season, diffuse=True)
            best = (best[0], _polished(model, *best))
    return best, reason
