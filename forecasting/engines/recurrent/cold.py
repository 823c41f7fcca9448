"""What a panel says of series that have no values yet, by their static features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from seqlatent.forecasting.frames.panel import Panel

__all__ = []

_LEAST = 4  # values of a series from which its level is told
_PENALTIES = (*np.logspace(-3, 4, 15), np.inf)  # of coefficients, each the size of one static's


@dataclass(frozen=True)
class Cold:
    r"""Level, season and spread of a series without values, by ridge regressions on its statics.

    .. math:: \ell_i = a + b^\top x_i + \tau \varepsilon_i, \quad
        \log \sigma_i = c + d^\top x_i, \quad s_{ik} = f_k + g_k^\top x_i

    How much is believed of statics is chosen by leaving out each series in turn; without any that
    tell, it is what the other series are on average. Of what is never below zero, level and season
    are those of logarithms.

    Args:
        coefficients: Of level, logarithm of the spread and each phase, the constant first
            ``(D, 1 + S, 2 + m)``.
        spread: What is not known of a level ``(D,)``.
        logarithms: Whether levels are logarithms ``(D,)``.
        known: Whether there were series to learn from ``(D,)``.
    """

    coefficients: np.ndarray
    spread: np.ndarray
    logarithms: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, panel: Panel, static: np.ndarray, season: int) -> "Cold":
        """Learns from the last values of each series.

        Args:
            panel: The panel.
            static: Static features ``(N, S)``.
            season: Steps of a season.
        """
        targets, size = panel.y.shape[1], 1 + static.shape[1]
        coefficients = np.zeros((targets, size, 2 + season))
        spread, logarithms, known = np.ones(targets), *(np.zeros(targets, bool) for _ in range(2))
        for d in range(targets):
            found = _summaries(panel, d, season)
            told = np.flatnonzero(~np.isnan(found).any(1))
            if len(told) < 2:
                continue
            known[d], logarithms[d] = True, _positive(panel, d)
            found = _of_logarithms(found) if logarithms[d] else _of_values(found)
            x = np.concatenate([np.ones((len(told), 1)), static[told]], 1)
            coefficients[d, :, :2], spread[d] = _ridge(x, found[told, :2], by=0)
            if season > 1:
                coefficients[d, :, 2:], _ = _ridge(x, found[told, 2:])
        return cls(coefficients, spread, logarithms, known)

    def quantiles(
        self, static: np.ndarray, target: np.ndarray, times: np.ndarray, scores: Sequence[float]
    ) -> np.ndarray:
        """Quantiles ``(N, H, Q)`` at normal scores.

        Args:
            static: Static features, and any more ``(N, S + E)``.
            target: Targets ``(N,)``.
            times: Steps of the time index ``(N, H)``.
            scores: The scores ``(Q,)``.
        """
        size = self.coefficients.shape[1] - 1
        x = np.concatenate([np.ones((len(static), 1)), static[:, :size]], 1)
        said = np.einsum("ns,nsk->nk", x, self.coefficients[target])
        season = said.shape[1] - 2
        phase = np.rint(times).astype(np.int64) % max(season, 1)
        middle = said[:, :1] + (np.take_along_axis(said[:, 2:], phase, 1) if season > 1 else 0.0)
        scale = np.sqrt(self.spread[target] ** 2 + np.exp(2 * said[:, 1]))
        found = middle[..., None] + scale[:, None, None] * np.asarray(scores)
        return np.where(self.logarithms[target][:, None, None], np.exp(found), found)

    def to_tensors(self) -> dict[str, Tensor]:
        """As a folder holds it."""
        return {f"cold.{name}": from_numpy(np.array(x)) for name, x in vars(self).items()}

    @classmethod
    def of_tensors(cls, tensors: Any) -> "Cold":
        """Reads what :meth:`to_tensors` gave."""
        return cls(**{name: tensors[f"cold.{name}"].numpy() for name in cls.__annotations__})


def _summaries(panel: Panel, d: int, season: int) -> np.ndarray:
    """Level, spread and phases of each series ``(N, 2 + m)``, NaN of those that say too little."""
    found = np.full((panel.batch, 2 + season), np.nan)
    for i, (first, end) in enumerate(zip(panel.offsets[:-1], panel.offsets[1:], strict=True)):
        first = max(first, end - max(3 * season, 12))
        y, t = panel.y[first:end, d], panel.t[first:end]
        seen = ~np.isnan(y)
        if seen.sum() < _LEAST:
            continue
        y, phase = y[seen], np.rint(t[seen]).astype(np.int64) % season
        level = y.mean()
        count = np.bincount(phase, minlength=season)
        total = np.bincount(phase, y - level, minlength=season)
        # a phase that was seen once says half of what it says
        apart = total / (count + 1) if season > 1 else np.zeros(1)
        rest = np.sqrt(np.mean((y - level - apart[phase]) ** 2))
        found[i] = [level, rest, *apart]
    return found


def _of_logarithms(found: np.ndarray) -> np.ndarray:
    """The same of logarithms: parts of the level instead of differences from it."""
    level = found[:, :1]
    level = np.maximum(level, 1e-3 * np.nanmedian(level))  # some may be all zero
    apart = np.log1p(np.maximum(found[:, 2:] / level, -0.95))
    spread = np.log(np.maximum(found[:, 1:2] / level, 1e-6))
    return np.concatenate([np.log(level), spread, apart], 1)


def _of_values(found: np.ndarray) -> np.ndarray:
    """The same with the logarithm of the spread."""
    least = 1e-6 * np.nanmax(np.abs(found[:, :2]))
    spread = np.log(np.maximum(found[:, 1:2], least if least > 0 else 1e-300))
    return np.concatenate([found[:, :1], spread, found[:, 2:]], 1)


def _positive(panel: Panel, d: int) -> bool:
    y = panel.y[:, d]
    y = y[~np.isnan(y)]
    return bool((y >= 0).all() and (y > 0).mean() > 0.5)


def _ridge(x: np.ndarray, y: np.ndarray, by: int | None = None) -> tuple[np.ndarray, float]:
    """Coefficients ``(S, K)`` with the least error of series left out, of all columns or one.

    Returns:
        The coefficients, and the root of that error.
    """
    mean, constant = x[:, 1:].mean(0), y.mean(0)
    u, s, v = np.linalg.svd(x[:, 1:] - mean, full_matrices=False)
    z, n = u.T @ (y - constant), len(x)
    best: tuple[np.ndarray, float] | None = None
    for penalty in _PENALTIES:
        kept = s**2 / (s**2 + penalty * n / 100) if np.isfinite(penalty) else np.zeros_like(s)
        lever = 1 / n + (u**2 * kept).sum(1, keepdims=True)
        left_out = (y - constant - u @ (kept[:, None] * z)) / np.maximum(1 - lever, 1e-3)
        error = float(np.sqrt(np.mean((left_out if by is None else left_out[:, by]) ** 2)))
        if best is None or error < best[1] * (1 - 1e-9):
            part = np.divide(kept, s, out=np.zeros_like(s), where=s > 1e-9 * s.max(initial=0))
            slope = v.T @ (part[:, None] * z)
            best = np.concatenate([(constant - mean @ slope)[None], slope], 0), error
    assert best is not None
    return best
