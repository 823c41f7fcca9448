"""Transforms of targets before a model sees them, and the way back."""

from abc import ABC, abstractmethod

import numpy as np

__all__ = ["TRANSFORMS", "Identity", "Log", "Transform"]


class Transform(ABC):
    """An increasing map of targets; quantiles go back through it unchanged.

    Args:
        least: The least positive value of training.
    """

    def __init__(self, least: float = 1.0) -> None:
        self.least = least

    @abstractmethod
    def forward(self, y: np.ndarray) -> np.ndarray:
        """Targets as the model sees them."""

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

    def forward(self, y: np.ndarray) -> np.ndarray:
        return y

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return mean

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return np.zeros_like(y)


class Log(Transform):
    """Logarithm, for positive series that grow and vary in proportion to their level.

    Training data are positive. What comes later may not be, an outage that is a zero: it counts as
    a tenth of the least value of training, which is far off and yet finite.
    """

    def forward(self, y: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(y, self.least / 10))

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(y, 700.0))

    def mean(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(mean + scale**2 / 2, 700.0))

    def log_jacobian(self, y: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(y, self.least / 10))


TRANSFORMS: dict[str, type[Transform]] = {"none": Identity, "log": Log}
