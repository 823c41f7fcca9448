"""Forms of the structural model: which trend, which seasons, of the values or their logarithms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqlatent.emissions import LinearGaussian
from seqlatent.forecasting.features.units import VAGUE, VARIED
from seqlatent.inference import Kalman, Outliers
from seqlatent.model import LatentModel, per_series
from seqlatent.spelling import meant
from seqlatent.transitions import (
    AR,
    Component,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Sum,
    TrigonometricSeasonal,
)

__all__ = ["TRENDS", "Specification", "candidates", "reading", "specification_of"]

_COEFFICIENT = 5.0  # in usual seasonal differences, per standard deviation of the covariate

TRENDS = {
    "level": "a random walk",
    "drift": "a random walk with a constant slope",
    "damped": "a slope that dies out",
    "smooth": "a wandering slope, no other noise of the level",
    "trend": "a wandering level with a wandering slope",
    "reverting": "a level to which the series returns",
}


@dataclass(frozen=True)
class Specification:
    """A specification of the structural model.

    Args:
        trend: ``"level"``, ``"drift"`` (a level with a constant slope), ``"damped"`` (one that dies
            out), ``"smooth"`` (a wandering slope alone), ``"trend"`` (level and slope wander) or
            ``"reverting"`` (a stationary autoregression around a constant level).
        seasons: Periods of its seasonal patterns, and the harmonics of each.
        log: Whether it describes the logarithm of the values.
        covariate_dim: Covariates, each with a constant coefficient of each series.
        fixed: Whether seasonal patterns never change.

    Example:
        >>> from seqlatent.forecasting.engines.structural import Specification
        >>> Specification("drift", ((12, 6),), log=True).name
        'log drift, season 12'
    """

    trend: str
    seasons: tuple[tuple[int, int], ...] = ()
    log: bool = False
    covariate_dim: int = 0
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.trend not in TRENDS:
            raise ValueError(
                f"trend must be one of {', '.join(map(repr, TRENDS))}, found {self.trend!r}."
            )

    @property
    def name(self) -> str:
        """The specification in words."""
        kind = "fixed season" if self.fixed else "season"
        seasons = "".join(f", {kind} {period}" for period, _ in self.seasons)
        return f"{'log ' if self.log else ''}{self.trend}{seasons}"

    def model(self, series: int) -> LatentModel:
        """A model of this specification with a row of parameters for each of so many series."""
        parts = _trend(self.trend)
        parts += [
            TrigonometricSeasonal(
                p, n, None if self.fixed else 0.02, initial_scale=0.5, learn_initial_scale=True
            )
            for p, n in self.seasons
        ]
        if self.covariate_dim:
            parts.append(Regression(range(self.covariate_dim), initial_scale=_COEFFICIENT))
        transition = Sum(parts)
        emission = LinearGaussian(
            transition.latent_dim, loading=transition.loading, bias=False, scale=0.4
        )
        # a share of outliers comes with the fit, where it finds any
        inference = Kalman(Outliers(0.0))
        return per_series(LatentModel(transition, emission, inference).double(), series)


def _trend(kind: str) -> list[Component]:
    if kind == "level":
        return [LocalLevel(0.6, initial_scale=VAGUE)]
    if kind == "reverting":
        return [LocalLevel(None, initial_scale=VAGUE), AR(1, 0.6, coefficients=(0.9,))]
    if kind == "damped":
        slope = DampedTrend(
            0.3,
            0.03,
            damping=0.9,
            initial_scale=VAGUE,
            initial_slope_scale=0.1,
            learn_initial_scale=True,
        )
        return [slope]
    level, slope = {"drift": (0.6, None), "smooth": (None, 0.1), "trend": (0.3, 0.05)}[kind]
    line = LocalLinearTrend(
        level,
        slope,
        initial_scale=VAGUE,
        initial_slope_scale=0.1,
        learn_initial_scale=True,
    )
    return [line]


def specification_of(text: str) -> Specification:
    """The specification that a few words name, without its seasons.

    Args:
        text: A trend, ``"log"`` before it for logarithms, ``"fixed season"`` or ``"no season"``
            after a comma.

    Raises:
        ValueError: If the words name none.

    Example:
        >>> from seqlatent.forecasting.engines.structural import specification_of
        >>> specification_of("log damped, fixed season")
        Specification(trend='damped', seasons=(), log=True, covariate_dim=0, fixed=True)
    """
    words, _, season = (part.strip() for part in str(text).partition(","))
    first, _, rest = words.partition(" ")
    log = first == "log"
    trend = rest.strip() if log else words
    if trend not in TRENDS or season not in ("", "fixed season", "no season"):
        raise ValueError(
            f"a specification is one of {', '.join(TRENDS)}, 'log' before it for logarithms and "
            f"', fixed season' or ', no season' after it, found {text!r}; for example "
            f"'log damped, fixed season'.{meant(trend, TRENDS)}"
        )
    return Specification(trend, log=log, fixed=season == "fixed season")


def seasons_of(
    season_length: int | Sequence[int], longest: int
) -> tuple[tuple[tuple[int, int], ...], str]:
    """Periods that are used, with the harmonics of each, and why others are not.

    Args:
        season_length: Steps of a season, or of several; 1 for none.
        longest: Observations of the longest series: a season is used where two fit in.
    """
    periods = [season_length] if isinstance(season_length, int) else sorted(set(season_length))
    seasons: list[tuple[int, int]] = []
    why = ""
    for period in periods:
        if period <= 1:
            continue
        if longest < 2 * period:
            why = f"no season of {period}: the longest series has {longest} values, not two of it"
            continue
        # what the shorter season repeats is not described a second time
        least = min(p for p, _ in seasons) if seasons else 0
        most = period // least - 1 if least else period // 2
        seasons.append((period, max(1, min(most, 12 if not seasons else 6))))
    return tuple(seasons), why


def varied(y: Tensor) -> bool:
    """Whether one of some positive series ``(B, T)`` varies by a fifth of its level.

    Where none does, a logarithm is a line of the values: its specifications would repeat theirs,
    and lose digits.
    """
    seen = ~y.isnan()
    most = torch.where(seen, y, -math.inf).amax(1)
    return bool((most > VARIED * torch.where(seen, y, math.inf).amin(1)).any())


def allowed_by(y: Tensor) -> dict[str, Any]:
    """What values ``(B, T)`` have to say about which specifications can be."""
    seen = ~y.isnan()
    return {
        "longest": int(seen.sum(1).max()),
        "positive": bool((y[seen] > 0).all()),
        "logarithms": varied(y),
    }


def candidates(
    season_length: int | Sequence[int],
    *,
    longest: int,
    positive: bool,
    logarithms: bool = True,
    covariate_dim: int = 0,
    specifications: Sequence[str | Specification] | None = None,
) -> tuple[Specification, ...]:
    """The specifications that are mixed, given season, longest series and sign of the values.

    Drift, damped trend and a level that is returned to forecast badly in different situations, and
    so do a trend of the values and one of their logarithms; which of them is wrong a series of
    usual length does not say. Without a specification that returns, forecasts of what does are too
    wide.

    Args:
        season_length: Steps of a season, or of several; 1 for none.
        longest: Observations of the longest series: a season is used where two fit in.
        positive: Whether all values are positive.
        logarithms: Whether logarithms say something else than the values; see :func:`varied`.
        covariate_dim: Covariates.
        specifications: Forms that are wanted, in words (see :func:`specification_of`) or as
            :class:`Specification`; a specification in words gets the seasons above, any other keeps
            its own. By default damped, drift and reverting, and where logarithms are of use log
            damped and log drift.

    Raises:
        ValueError: If a specification is unknown, none is wanted, or logarithms are and a value is
            not positive.
    """
    seasons, _ = seasons_of(season_length, longest)
    if specifications is None:
        specifications = (
            "damped",
            "drift",
            "reverting",
            *(("log damped", "log drift") if positive and logarithms else ()),
        )
    if isinstance(specifications, str) or not len(specifications):
        raise ValueError(
            "specifications must be a list of at least one specification, found "
            f"{specifications!r}; for example "
            "['level', 'log damped']."
        )
    found = []
    for given in specifications:
        specification = given
        if isinstance(specification, str):
            words, specification = specification, specification_of(specification)
            specification = (
                specification
                if words.endswith("no season")
                else replace(specification, seasons=seasons)
            )
        specification = replace(specification, covariate_dim=covariate_dim)
        if specification.log and not positive:
            raise ValueError(
                f"the specification {specification.name!r} describes logarithms, found a value "
                "that is not positive; "
                "leave it out, or shift the values."
            )
        found.append(specification)
    return tuple(found)


def left_out(
    season_length: int | Sequence[int],
    *,
    longest: int,
    positive: bool,
    logarithms: bool = True,
    usual: bool = True,
) -> tuple[str, ...]:
    """Why seasons, and specifications of logarithms among the usual ones, are not compared."""
    found = [why] if (why := seasons_of(season_length, longest)[1]) else []
    if usual and not positive:
        found.append("logarithms: some values are not positive")
    elif usual and not logarithms:
        found.append("logarithms: no series varies by a fifth of its level")
    return tuple(found)


def reading(specifications: Sequence[Specification]) -> tuple[int, int]:
    """Most rows of a series that are read, and series from which the distribution is learned."""
    longest = max(
        (period for specification in specifications for period, _ in specification.seasons),
        default=1,
    )
    if any(sum(n for _, n in specification.seasons) > 8 for specification in specifications):
        return max(2 * longest, 240), 64
    return max(400, 3 * longest), 256
