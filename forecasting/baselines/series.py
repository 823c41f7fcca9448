"""Series, one at a time out of tables: orders, parameters and state space form."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.baselines.local import Table
from seqlatent.forecasting.baselines.orders import Order
from seqlatent.forecasting.panel import Panel

__all__ = ["Form", "Series", "bounded", "each", "root", "standard", "trim"]


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


def bounded(P: np.ndarray, limit: float) -> np.ndarray:
    """A covariance whose variances above a limit, which say that nothing is known, are ones."""
    if np.trace(P) <= limit:
        return P
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    return (vectors * np.where(values > limit, 1.0, values)) @ vectors.T


def root(P: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance, which may be singular."""
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
