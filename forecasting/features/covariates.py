"""Inputs, what a model reads beside its targets: covariates, calendar, season phases, statics."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.time.index import TimeIndex

__all__ = ["Inputs"]

_DAYS = (24, 48, 96)  # seasons that are a day, of hours or parts of them: days come in weeks
_HARMONICS = 3  # of each season, so that its phase shows in more than a single wave


@dataclass(frozen=True)
class Inputs:
    """How the covariates ``u`` of a batch are put together, and on which scale.

    In this order: covariates known ahead; each past covariate as it was one row before, beside a
    flag that says whether it was known; static numbers; calendar; sine and cosine of each season.

    Args:
        future_mean: Mean of each covariate known ahead, over the training rows.
        future_scale: Standard deviation of it, 1 where it is constant.
        past_mean: Mean of each past covariate.
        past_scale: Standard deviation of it.
        real_dim: Static numbers that are read.
        calendar: Whether calendar features are read.
        season_lengths: Seasons whose phase is read.
    """

    future_mean: tuple[float, ...] = ()
    future_scale: tuple[float, ...] = ()
    past_mean: tuple[float, ...] = ()
    past_scale: tuple[float, ...] = ()
    real_dim: int = 0
    calendar: bool = False
    season_lengths: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, panel: Panel, *, calendar: bool, season_lengths: tuple[int, ...], reals: bool = True
    ) -> "Inputs":
        """Learns the scales from training rows."""
        future, past = _moments(panel.future), _moments(panel.past)
        # a calendar knows the phase of its seasons; integer times do not
        seasons = season_lengths if panel.time_index.kind == "integer" else ()
        weeks = tuple(7 * s for s in seasons if s in _DAYS and panel.lengths.max() >= 14 * s)
        seasons = tuple(dict.fromkeys((*seasons, *weeks)))
        return cls(*future, *past, panel.real.shape[1] if reals else 0, calendar, tuple(seasons))

    def width(self, time_index: TimeIndex) -> int:
        """Number of covariates ``U``."""
        return self.rows(
            time_index,
            np.zeros(1),
            np.zeros((1, len(self.future_mean))),
            np.zeros((1, len(self.past_mean))),
            np.zeros((1, self.real_dim)),
        ).shape[1]

    def of_panel(self, panel: Panel) -> np.ndarray:
        """Covariates of every row of a panel ``(R, U)``."""
        before = np.full_like(panel.past, np.nan)
        before[1:] = panel.past[:-1]
        before[panel.offsets[:-1]] = np.nan
        return self.rows(
            panel.time_index,
            panel.t,
            panel.future,
            before,
            panel.real[panel.owner][:, : self.real_dim],
        )

    def of_future(
        self, time_index: TimeIndex, future: Future, real: np.ndarray, last: np.ndarray
    ) -> np.ndarray:
        """Covariates of steps ahead ``(N, H, U)``.

        Args:
            time_index: The time index of the panel.
            future: Times, and covariates known ahead.
            real: Static numbers ``(N, A)``.
            last: Past covariates of the last row ``(N, P)``.
        """
        n, horizon = future.t.shape
        before = np.full((n, horizon, len(self.past_mean)), np.nan)
        before[:, 0] = last
        flat = self.rows(
            time_index,
            future.t.reshape(-1),
            future.u.reshape(n * horizon, -1),
            before.reshape(n * horizon, len(self.past_mean)),
            np.repeat(real[:, : self.real_dim], horizon, 0),
        )
        return flat.reshape(n, horizon, flat.shape[1])

    def rows(
        self,
        time_index: TimeIndex,
        t: np.ndarray,
        future: np.ndarray,
        before: np.ndarray,
        real: np.ndarray,
    ) -> np.ndarray:
        """Covariates of single rows, ``before`` being the past covariates of the row before."""
        known = ~np.isnan(before)
        scaled = (before - np.array(self.past_mean)) / np.array(self.past_scale)
        parts = [
            (future - np.array(self.future_mean)) / np.array(self.future_scale),
            np.where(known, scaled, 0.0),
            known.astype(np.float64),
            real,
        ]
        if self.calendar:
            parts.append(time_index.features(t)[0])
        for season in self.season_lengths:
            for k in range(1, min(_HARMONICS, season // 2) + 1):
                angle = 2 * np.pi * k * (t % season) / season
                parts.append(np.stack([np.sin(angle), np.cos(angle)], -1))
        return np.concatenate(parts, 1)

    @property
    def flags(self) -> slice:
        """Where the past covariates and their flags lie in ``u``."""
        start = len(self.future_mean)
        return slice(start, start + 2 * len(self.past_mean))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "Inputs":
        """Reads what :meth:`to_dict` wrote."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        return cls(**plain)


def _moments(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not x.shape[1]:
        return (), ()
    seen = ~np.isnan(x)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, x, 0.0).sum(0) / count
    scale = np.sqrt(np.where(seen, (x - mean) ** 2, 0.0).sum(0) / count)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1e-300), scale, 1.0)
    return tuple(mean.tolist()), tuple(scale.tolist())
