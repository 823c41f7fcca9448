"""Transforms of targets before a model sees them, and the way back."""

from abc import ABC, abstractmethod

import numpy as np

from seqlatent.forecasting.errors import TargetError
from seqlatent.forecasting.panel import Panel

__all__ = ["TRANSFORMS", "Identity", "Log", "Transform"]


class Transform(ABC):
    """An increasing map of targets; quantiles go back through it unchanged."""

    @abstractmethod
    def forward(self, y: np.ndarray, panel: Panel) -> np.ndarray:
        """Targets ``(R, D)`` as the model sees them."""

    @abstractmethod
    def inverse(self, y: np.ndarray) -> np.ndarray:
        """Back to the units of the data."""

    @abstractmethod
    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Mean in the units of the data of what is normal on the model's side."""

    @abstractmethod
    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        """``log |d forward / dy|`` of each cell, for densities."""


class Identity(Transform):
    """Leaves targets as they are."""

    def forward(self, y: np.ndarray, panel: Panel) -> np.ndarray:
        return y

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return mean

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return np.zeros_like(y)


class Log(Transform):
    """Logarithm, for positive series that grow and vary in proportion to their level."""

    def forward(self, y: np.ndarray, panel: Panel) -> np.ndarray:
        wrong = y <= 0
        if wrong.any():
            r, d = (int(i) for i in np.argwhere(wrong)[0])
            i = int(panel.owner[r])
            raise TargetError(
                f"the log transform expects positive values, found {y[r, d]:g} for "
                f"{panel.name(i)} in row {int(panel.row[r])}; use transform='none'.",
                id=panel.ids[i],
                row=int(panel.row[r]),
            )
        return np.log(y)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return np.exp(y)

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.exp(mean + scale**2 / 2)

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return -np.log(y)


TRANSFORMS: dict[str, Transform] = {"none": Identity(), "log": Log()}
