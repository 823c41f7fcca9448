"""Responses, what one error does to all later values of an innovations model."""

import numpy as np

from seqlatent.forecasting.engines.baselines.local import Table

__all__ = []


def skip(state: Table, gap: np.ndarray) -> Table:
    """State after steps without a value."""
    gap = np.where(state["end"] + 1 >= state["origin"], gap, 0.0)
    if not (gap > 0).any():
        return state
    phi = state["phi"]
    decay = phi**gap
    total = np.where(phi < 1, phi * (1 - decay) / np.where(phi < 1, 1 - phi, 1.0), gap)
    return {
        **state,
        "level": state["level"] + total * state["trend"],
        "trend": decay * state["trend"],
        "age": state["age"] + gap,
    }


def response(state: Table, steps: int) -> np.ndarray:
    """What an error of one does to the values 0 to ``steps - 1`` later ``(N, D, steps)``."""
    m, j = state["season"].shape[-1], np.arange(steps)
    powers = state["phi"][..., None] ** j
    powers[..., 0] = 0.0
    again = (j % m == 0) & (j > 0)
    impulse = (
        state["alpha"][..., None]
        + state["beta"][..., None] * np.cumsum(powers, axis=-1)
        + state["gamma"][..., None] * again
    )
    impulse[..., 0] = 1.0
    return impulse


def variance(state: Table, steps: int) -> np.ndarray:
    """Variance of the values 1 to ``steps`` ahead by that of an error ``(N, D, steps)``."""
    return np.cumsum(response(state, steps) ** 2, axis=-1)
