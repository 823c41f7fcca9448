"""Series, one at a time out of tables: orders, parameters and state space form."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.engines.baselines.local import Table
from seqlatent.forecasting.engines.baselines.orders import Order
from seqlatent.forecasting.frames.panel import Panel

__all__ = []


class Series(NamedTuple):
    """One target of one series, taken out of a table of parameters or of states."""

    order: Order
    values: np.ndarray
    shift: float
    unit: float
    center: np.ndarray
    spread: np.ndarray


class Form(NamedTuple):
    """State space form of one series: z' = F z + c + R e, y = offset + Z z."""

    mean: np.ndarray
    covariance: np.ndarray
    F: np.ndarray
    c: np.ndarray
    R: np.ndarray
    Z: np.ndarray
    offset: np.ndarray


def each(table: Table) -> Iterator[tuple[int, int, Series]]:
    """Number of the series, number of the target, and what a table holds of it."""
    series, targets = table["shift"].shape
    for i in range(series):
        for d in range(targets):
            values = table["values"][i, d]
            order = Order(*table["order"][i, d].tolist())
            shift, unit = float(table["shift"][i, d]), float(table["unit"][i, d])
            values = values[np.isfinite(values)]
            yield i, d, Series(order, values, shift, unit, table["center"][i], table["spread"][i])


def standard(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales of the covariates of each series ``(N, U)``."""
    starts, lengths = panel.offsets[:-1], panel.lengths[:, None]
    center = np.add.reduceat(panel.future, starts, axis=0) / lengths
    squares = (panel.future - center[panel.owner]) ** 2
    spread = np.sqrt(np.add.reduceat(squares, starts, axis=0) / lengths)
    return center, np.where(spread > 1e-12 * np.abs(center), spread, 1.0)


def trim(a: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A state's mean and covariance without the NaN that made it as wide as the others."""
    size = int(np.isfinite(a).sum())
    return a[:size], P[:size, :size]


def bounded(P: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """A covariance whose variances above a limit, which say that nothing is known, are ones.

    Returns:
        The covariance, and the directions ``(S, K)`` of which nothing is known.
    """
    if np.trace(P) <= limit:
        return P, np.empty((len(P), 0))
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    covariance = (vectors * np.where(values > limit, 1.0, values)) @ vectors.T
    return covariance, vectors[:, values > limit]


def levelled(
    a: np.ndarray, unknown: np.ndarray, F: np.ndarray, c: np.ndarray, Z: np.ndarray, steps: int
) -> np.ndarray:
    """A state whose unknown directions are such that its forecast moves least from step to step.

    A phase of a season that was never seen is then expected on a line between its neighbours.

    Args:
        a: The state's mean, of which what is in the unknown directions is arbitrary ``(S,)``.
        unknown: Directions of which nothing is known, orthonormal ``(S, K)``.
        F: Transition ``(S, S)``.
        c: What each step adds ``(S,)``.
        Z: Row of the design ``(S,)``.
        steps: Number of steps to look at.
    """
    a = a - unknown @ (unknown.T @ a)
    path, response, state, moved = np.empty(steps), np.empty((steps, unknown.shape[1])), a, unknown
    for h in range(steps):
        path[h], response[h] = Z @ state, Z @ moved
        state, moved = F @ state + c, F @ moved
    steepness = np.linalg.lstsq(np.diff(response, axis=0), -np.diff(path), rcond=1e-6)[0]
    return a + unknown @ steepness


def root(P: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance, which may be singular."""
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
