"""What a panel says to recurrent networks: values and covariates of series that end together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.engines.amortised.windows import cut
from seqlatent.forecasting.frames.panel import Panel

__all__ = []

_CATEGORIES = 50  # categories of a static feature that are told apart, the first of the panel


@dataclass(frozen=True)
class Standard:
    """Means and deviations of the covariates of a panel, and how many categories there are.

    Args:
        ahead: Of those known ahead ``(2, U)``.
        past: Of those known up to the present ``(2, P)``.
        real: Of static numbers ``(2, A)``.
        codes: Categories of each static feature ``(C,)``.
    """

    ahead: np.ndarray
    past: np.ndarray
    real: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> "Standard":
        """Learns from a panel."""
        most = np.array([column.max(initial=0) for column in panel.codes.T], dtype=np.int64)
        return cls(
            _moments(panel.future),
            _moments(panel.past),
            _moments(panel.real),
            np.minimum(most, _CATEGORIES),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Inputs of a network, for one target."""
        return {
            "rows": self.ahead.shape[1] + 2 * self.past.shape[1],
            "ahead": self.ahead.shape[1],
            "static": self.real.shape[1] + int(self.codes.sum()),
        }

    def rows(self, ahead: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Covariates of rows ``(..., C)``, those known ahead first."""
        known = ~np.isnan(past)
        told = np.where(known, _standardised(past, self.past), 0.0)
        return np.concatenate([np.nan_to_num(self.leads(ahead)), told, known], -1)

    def leads(self, ahead: np.ndarray) -> np.ndarray:
        """Covariates of leads ``(..., U)``."""
        return _standardised(ahead, self.ahead)

    def static(self, panel: Panel, targets: int) -> np.ndarray:
        """Static features ``(N D, S)``, which tell targets apart where there are several.

        A category that was not seen in training is none of those that were.
        """
        parts = [np.nan_to_num(_standardised(panel.real, self.real))]
        for column, many in zip(panel.codes.T, self.codes, strict=True):
            parts.append((column[:, None] == np.arange(1, many + 1)).astype(np.float64))
        found = np.repeat(np.concatenate(parts, 1), targets, axis=0)
        if targets == 1:
            return found
        return np.concatenate([found, np.tile(np.eye(targets), (panel.batch, 1))], 1)

    def to_tensors(self) -> dict[str, Tensor]:
        """As a folder holds it."""
        return {f"standard.{k}": torch.from_numpy(np.array(x)) for k, x in vars(self).items()}

    @classmethod
    def of_tensors(cls, tensors: Any) -> "Standard":
        """Reads what :meth:`to_tensors` gave."""
        start = "standard."
        return cls(
            **{k.removeprefix(start): x.numpy() for k, x in tensors.items() if k.startswith(start)}
        )


@dataclass(frozen=True)
class Rows:
    """Rows of series that end with the same column, ``D`` lines for each series.

    Args:
        y: Values, NaN where none is seen ``(N D, W)``.
        there: Which rows there are ``(N D, W)``.
        covariates: Standardised ``(N D, W, C)``.
    """

    y: Tensor
    there: Tensor
    covariates: Tensor

    @classmethod
    def of(cls, panel: Panel, standard: Standard, width: int) -> "Rows":
        """The last rows of each series."""
        last, targets = panel.offsets[1:] - 1, panel.y.shape[1]
        y = np.stack([cut(panel, column, last, width) for column in panel.y.T], 1)
        there = np.arange(width) >= width - panel.lengths[:, None]
        u = standard.rows(
            cut(panel, panel.future, last, width), cut(panel, panel.past, last, width)
        )
        return cls(
            torch.from_numpy(y.reshape(-1, width)),
            torch.from_numpy(np.repeat(there, targets, axis=0)),
            torch.from_numpy(np.repeat(u, targets, axis=0)),
        )


def _moments(x: np.ndarray) -> np.ndarray:
    """Means and deviations of columns ``(2, C)``; a constant column has a deviation of one."""
    if not x.shape[1]:
        return np.zeros((2, 0))
    known = ~np.isnan(x)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, x, 0.0).sum(0) / count
    apart = np.where(known, x - mean, 0.0)
    scale = np.sqrt((apart**2).sum(0) / count)
    still = scale <= 1e-9 * np.maximum(np.abs(mean), 1e-300)
    return np.stack([mean, np.where(still, 1.0, scale)])


def _standardised(x: np.ndarray, moments: np.ndarray) -> np.ndarray:
    return (x - moments[0]) / moments[1]
