"""Calibration: how much wider or narrower forecasts are made, by lead, as held-out blocks say.

An engine forecasts blocks that it did not see. Where intervals that should cover 80 % of them cover
less, all that it says of such leads is spread by a factor about its middle: quantiles, sample paths
and densities alike, so that ranks of paths and what ties their leads together stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = [
    "ENDS",
    "LEAST",
    "Calibration",
    "calibrated",
    "held_out",
    "scores_of",
    "usual_horizon",
]

ENDS = (0.1, 0.5, 0.9)
"""Levels that say where a value lies in its forecast."""

LEAST = 8
"""Series of a third of the horizon below which it tells nothing."""

# Series of a held-out third that count half, as what surprises one surprises others: for wider
# forecasts, and for narrower ones, which one quiet block asks for too readily.
_SHOCKS, _QUIET = 10.0, 40.0
_MOST = 0.9  # largest logarithm of a factor, both ways
_LEVEL, _WIDE = 0.8, 0.95
_JUDGES = 256  # series of a held-out block that are enough to judge by
_FEW = 16  # series that are judged by, though they are more than half of them
_LONGEST = 48  # leads
_PARTS = 2.5  # least length of a series by the rows that are held out


@dataclass(frozen=True)
class Calibration:
    """Factors of the spread of forecasts, by lead; ``print`` shows them as a table.

    Args:
        factors: Of each part of a horizon, one for each target: of thirds, or of all of it.
        covered: Part of the held-out values that 80 % intervals covered without the factors.
        series: Series of which a block was held out.
        horizon: Leads of that horizon; those beyond it are as the last ones.
        why: Why nothing was learned; empty where something was.

    Example:
        >>> from seqlatent.forecasting.engines.calibration import Calibration
        >>> print(Calibration(((1.0,), (1.2,), (1.5,)), ((0.8,), (0.7,), (0.6,)), 50, 9))
        spread of forecasts, from the last 9 rows of 50 series, held out
          leads  factor  80 % covered
          1-3      1.00          80 %
          4-6      1.20          70 %
          7-9      1.50          60 %
    """

    factors: tuple[tuple[float, ...], ...] = ()
    covered: tuple[tuple[float, ...], ...] = ()
    series: int = 0
    horizon: int = 1
    why: str = ""

    @property
    def plain(self) -> bool:
        """Whether all stays as it is."""
        return all(factor == 1.0 for third in self.factors for factor in third)

    @cached_property
    def _of_lead(self) -> np.ndarray:
        """Factors of the leads of the horizon ``(H, D)``."""
        leads = np.arange(self.horizon)
        middle = [p.mean() for p in _parts(self.horizon, len(self.factors))]
        logs = np.log(np.asarray(self.factors))
        return np.exp(np.stack([np.interp(leads, middle, log) for log in logs.T], 1))

    def at(self, leads: np.ndarray) -> np.ndarray | float:
        """Factors of leads of each target ``(..., D)``, from 1 on.

        They change evenly from the middle of a third to that of the next.
        """
        if self.plain:
            return 1.0
        place = np.clip(leads, 1, self.horizon).astype(np.int64) - 1
        return self._of_lead[place, np.arange(place.shape[-1])]

    def __str__(self) -> str:
        if self.why:
            return f"spread of forecasts as it is: {self.why}"
        several = len(self.factors[0]) > 1
        head = ("leads", *(["target"] if several else []), "factor", "80 % covered")
        rows = []
        for part, factors, covered in zip(
            _parts(self.horizon, len(self.factors)), self.factors, self.covered, strict=True
        ):
            leads = f"{part[0] + 1}-{part[-1] + 1}" if len(part) > 1 else f"{part[0] + 1}"
            for d, (factor, share) in enumerate(zip(factors, covered, strict=True)):
                own = [str(d)] if several else []
                rows.append((leads, *own, f"{factor:.2f}", f"{100 * share:.0f} %"))
        widths = [max(len(row[j]) for row in (head, *rows)) for j in range(len(head))]
        lines = [
            f"spread of forecasts, from the last {self.horizon} rows of {self.series} series, "
            "held out"
        ]
        for row in (head, *rows):
            cells = [row[0].ljust(widths[0])]
            cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  " + "  ".join(cells))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Calibration":
        """Reads what :meth:`to_dict` wrote."""
        found = dict(config)
        for name in ("factors", "covered"):
            found[name] = tuple(tuple(third) for third in config[name])
        return cls(**found)


def calibrated(scores: Sequence[np.ndarray], parts: int = 3) -> Calibration:
    """The factors with which 80 % intervals would have covered 80 % of held-out values.

    They are drawn towards 1, the more so the fewer series there are: series share what surprises
    them, and the next block has other surprises. Forecasts become narrower only as far as 95 %
    intervals allow it, too: where many values are alike, as zeros are, they say nothing of a width.

    Args:
        scores: Normal scores of held-out values in their forecasts ``(N, H, D)``, of one block
            after the other, NaN where there is none.
        parts: Parts of the horizon that have factors of their own.
    """
    from scipy.special import ndtri

    z = np.minimum(np.abs(np.concatenate(scores)), 1e300)
    edge, outer, most = ndtri((1 + _LEVEL) / 2), ndtri((1 + _WIDE) / 2), np.exp(_MOST)
    factors, covered, last = [], [], np.ones(z.shape[-1])
    for part in _parts(z.shape[1], parts):
        each, share = last.copy(), np.full_like(last, np.nan)
        for d in range(z.shape[-1]):
            inside = z[:, part, d]
            count = int(np.isfinite(inside).any(1).sum())
            if count < LEAST:
                continue
            inside = inside[np.isfinite(inside)]
            factor = np.quantile(inside, _LEVEL) / edge
            if factor < 1:
                factor = min(1.0, max(factor, np.quantile(inside, _WIDE) / outer))
            factor = np.clip(factor, 1 / most, most)
            half = _SHOCKS if factor > 1 else _QUIET
            each[d], share[d] = factor ** (count / (count + half)), np.mean(inside <= edge)
        factors.append(tuple(each.tolist()))
        covered.append(tuple(share.tolist()))
        last = each
    series = int(np.isfinite(z).any((1, 2)).sum())
    if all(np.isnan(third).all() for third in covered):
        return Calibration(why=f"{series} series with a block to hold out are fewer than {LEAST}")
    return Calibration(tuple(factors), tuple(covered), series, z.shape[1])


def usual_horizon(season: int, lengths: np.ndarray) -> int:
    """Leads to calibrate: two seasons, or a third of shorter series."""
    two = 14 if season <= 1 else min(max(2 * season, 10), _LONGEST)
    return max(1, min(two, int(np.median(lengths)) // 3))


class HeldOut(NamedTuple):
    """Series without their last rows, and these.

    Attributes:
        head: What is left of the series.
        future: The steps that were held out.
        truth: Their values, NaN where there is none or the value before them is missing
            ``(N, H, D)``.
    """

    head: Panel
    future: Future
    truth: np.ndarray


def held_out(panel: Panel, horizon: int, least: int) -> HeldOut | None:
    """Some series of a panel without their last rows; None where none is long enough.

    At most half of the series, so that a second fit takes half of the time of the first; the same
    ones in whatever order they come.

    Args:
        panel: The series.
        horizon: Rows to hold out.
        least: Values that must be left of a series.
    """
    seen = np.isfinite(panel.y).all(1)
    before = np.concatenate([[0], np.cumsum(seen)])
    cut = panel.offsets[1:] - horizon
    long = panel.lengths >= _PARTS * horizon
    begun = before[np.where(long, cut, 0)] - before[panel.offsets[:-1]] >= least
    order = panel.order
    able = order[(long & begun)[order]]
    if not len(able):
        return None
    size = min(len(able), max(_FEW, panel.batch // 2), _JUDGES)
    some = panel.select(able[np.linspace(0, len(able) - 1, size).astype(int)])
    rows = some.offsets[1:, None] - horizon + np.arange(horizon)
    known = np.isfinite(some.y[rows[:, 0] - 1])
    truth = np.where(known[:, None], some.y[rows], np.nan)
    return HeldOut(some.drop_tail(horizon), Future(some.t[rows], some.future[rows]), truth)


def scores_of(truth: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Normal scores of values, from where they lie between the quantiles of :data:`ENDS`.

    Args:
        truth: Values ``(N, H, D)``, NaN where there is none.
        quantiles: Quantiles ``(3, N, H, D)``.
    """
    from scipy.special import ndtri

    low, middle, high = quantiles
    away = truth - middle
    half = np.where(away > 0, high - middle, middle - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(away == 0, 0.0, away / half * ndtri(ENDS[-1]))


def _parts(horizon: int, count: int) -> list[np.ndarray]:
    """Numbers of the leads of each part of a horizon, from 0; of short ones there are fewer."""
    return np.array_split(np.arange(horizon), min(horizon, count))
