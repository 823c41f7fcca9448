"""Polishing a minimum, to all the digits that its loss has."""

from collections.abc import Callable

import numpy as np

__all__ = []

STEP = 1e-4
"""Distance of the differences that stand for derivatives."""

NEAR = 1e-3
"""Step after which curvature is taken anew."""

LONGEST = 0.2
"""Longest step."""

FLAT = 1e-7
"""Curvature, as a part of the largest, under which a direction is left alone."""


def polish(
    loss: Callable[[np.ndarray], float],
    x: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    steps: int = 10,
) -> np.ndarray:
    """A minimum in a box by Newton's method, from one that is right to a few digits.

    Optimisers stop where a loss no longer falls, which is at half of its digits; where they stop
    depends on the rounding of the data. The zero of the gradient has twice as many, so that a
    series and its multiple, or the same series higher up, have the same minimum.

    Args:
        loss: Loss of parameters ``(k,)``, smooth; also a little outside the box.
        x: Where to begin ``(k,)``.
        lower: Lower ends of the box ``(k,)``.
        upper: Upper ends of the box ``(k,)``.
        steps: Most steps.

    Returns:
        The minimum; ``x`` where nothing near is better.
    """
    x, value = np.clip(x, lower, upper), loss(np.clip(x, lower, upper))
    hessian, moved = np.zeros((0, 0)), np.inf
    for _ in range(steps):
        if moved > NEAR:
            hessian = _hessian(loss, x, value)
        gradient = _gradient(loss, x)
        if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            break
        low, high = x <= lower + 1e-9, x >= upper - 1e-9
        free = ~((low & (gradient > 0)) | (high & (gradient < 0)))
        new = x.copy()
        new[free] -= _newton(hessian[np.ix_(free, free)], gradient[free])
        new = np.clip(new, lower, upper)
        found = loss(new)
        if not found <= value + 1e-10 * (1 + abs(value)):
            break
        moved = np.abs(new - x).max(initial=0.0)
        x, value = new, found
        if moved < 1e-11:
            break
    return x


def _newton(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """A step down, to the minimum of a quadratic where there is one, none in flat directions."""
    if not len(gradient):
        return gradient
    values, vectors = np.linalg.eigh(hessian)
    curved = np.abs(values) > FLAT * np.abs(values).max()
    step = vectors[:, curved] @ ((vectors[:, curved].T @ gradient) / np.abs(values[curved]))
    return step * min(1.0, LONGEST / max(float(np.linalg.norm(step)), LONGEST))


def _gradient(loss: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    steps = STEP * np.eye(len(x))
    return np.array([loss(x + step) - loss(x - step) for step in steps]) / (2 * STEP)


def _hessian(loss: Callable[[np.ndarray], float], x: np.ndarray, value: float) -> np.ndarray:
    steps = STEP * np.eye(len(x))
    up, down = (np.array([loss(x + sign * step) for step in steps]) for sign in (1, -1))
    hessian = np.diag((up + down - 2 * value) / STEP**2)
    for i in range(len(x)):
        for j in range(i):
            both = loss(x + steps[i] + steps[j]) + loss(x - steps[i] - steps[j])
            around = up[i] + down[i] + up[j] + down[j] - 2 * value
            hessian[i, j] = hessian[j, i] = (both - around) / (2 * STEP**2)
    return hessian
