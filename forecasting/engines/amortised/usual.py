"""What is said of single series: of how few values they are, and how unlike those of the prior."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from seqlatent.amortised import TYPICAL_ROWS, Typicality
from seqlatent.forecasting.engines.amortised import windows
from seqlatent.forecasting.frames.panel import Panel

__all__ = []

NOTED = 2000
"""Most series of a panel that are tested when a forecaster is fitted; any are when asked for."""

_RARE = 0.01


def tested(typicality: Typicality, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Distances of series from drawn ones, and p-values ``(N, D)``."""
    y = windows.state_of(panel, TYPICAL_ROWS)["y"]
    flat = torch.from_numpy(y.reshape(-1, y.shape[2]))
    seen = ~flat.isnan()
    distance, p = typicality.test(flat.nan_to_num(), seen)
    return distance.numpy().reshape(y.shape[:2]), p.numpy().reshape(y.shape[:2])


def remarks(panel: Panel, found: tuple[np.ndarray, np.ndarray] | None) -> Iterator[tuple[Any, str]]:
    """Series that hardly any that the networks learned from are like."""
    if found is None:
        return
    p = found[1]
    for i, d in np.argwhere(p <= _RARE).tolist():  # none where it is NaN
        text = (
            f"unlike what the networks learned from: {p[i, d]:.1%} of that is as far from the rest"
        )
        yield _id(panel, i), f"{_target(panel, d)}{text}"


def short(panel: Panel) -> Iterator[tuple[Any, str]]:
    """Series of fewer than two values."""
    count = np.add.reduceat(~np.isnan(panel.y), panel.offsets[:-1], 0, dtype=np.int64)
    for i, d in np.argwhere(count < 2).tolist():
        few = "one value: it moves" if count[i, d] else "no value: it stands and moves"
        yield _id(panel, i), f"{_target(panel, d)}{few} as the other series do"


def _target(panel: Panel, d: int) -> str:
    return f"target {d + 1}: " if panel.y.shape[1] > 1 else ""


def _id(panel: Panel, i: int) -> Any:
    return panel.ids[i : i + 1].tolist()[0]
