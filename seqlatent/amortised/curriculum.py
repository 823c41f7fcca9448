"""What a network is trained on: batches of drawn series, cut into a past and leads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.amortised.past import Seasons, context_of
from seqlatent.amortised.refused import require_finite
from seqlatent.prior import (
    Autoregression,
    Drawn,
    Level,
    LogUniform,
    LongSeason,
    Missing,
    Observation,
    Season,
    Signed,
    Slope,
    Sometimes,
    StructuralPrior,
    Uniform,
)

__all__ = ["SEASONS", "Batch", "Curriculum", "cut"]

SEASONS: dict[Seasons, float] = {
    Seasons(1): 3,
    Seasons(4): 3,
    Seasons(5): 1,
    Seasons(7): 2,
    Seasons(12): 4,
    Seasons(13): 0.5,
    Seasons(24): 1.5,
    Seasons(48): 0.3,
    Seasons(52): 1.5,
    Seasons(96): 0.3,
    Seasons(168): 0.3,
    Seasons(24, 168): 2,
    Seasons(7, 365): 0.5,
    Seasons(0): 1.0,
}
"""How often seasons come; 0 is any other of 2 to 60 steps."""


class Batch(NamedTuple):
    """Pasts and what followed.

    Attributes:
        y: Values of the past, whose last column is the last row ``(B, T)``.
        observed: Which are seen ``(B, T)``.
        future: Values at the leads ``(B, H)``.
        seen: Which of these count ``(B, H)``.
        leads: Steps ahead ``(H,)``.
        seasons: Season lengths.
    """

    y: Float[Tensor, "B T"]
    observed: Bool[Tensor, "B T"]
    future: Float[Tensor, "B H"]
    seen: Bool[Tensor, "B H"]
    leads: Int[Tensor, " H"]
    seasons: Seasons

    def to(self, device: str | torch.device) -> "Batch":
        """The same elsewhere."""
        moved = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


def _prior() -> StructuralPrior:
    weights = {
        "real": 0.4,
        "growth": 0.47,
        "poisson": 0.05,
        "overdispersed": 0.04,
        "intermittent": 0.04,
    }
    slope = Slope(
        drift=Sometimes(0.5, Signed(LogUniform(0.003, 0.6))),
        start=Sometimes(0.4, Signed(LogUniform(0.01, 0.6))),
        scale=Sometimes(0.6, LogUniform(0.003, 0.3)),
    )
    season = Season(
        drift=Sometimes(0.75, LogUniform(0.01, 0.6)),
        growth=Sometimes(0.5, LogUniform(0.005, 0.05)),
        break_rate=Sometimes(0.1, 0.1),
    )
    return StructuralPrior(
        components=(Level(), slope, Autoregression(), season, LongSeason()),
        observation=Observation(
            weights=weights,
            offset=0.0,
            whole=Sometimes(0.05, 1.0),
            count_rate=LogUniform(0.005, 0.4),
            dispersion=LogUniform(0.05, 4.0),
        ),
        missing=Missing(cells=Sometimes(0.05, LogUniform(0.01, 0.2)), blocks=Sometimes(0.05, 0.02)),
    )


@dataclass(frozen=True)
class Curriculum:
    """Draws batches of series of all seasons, lengths and horizons.

    Args:
        prior: What series are drawn from.
        seasons: How often each pair of season lengths comes.
        batch: Series of a batch, half as many of those whose past is long.
        leads: Most leads of a batch, which are drawn among those of its horizon.
        horizon: Farthest lead; None for one that suits the seasons, and a few times as far in some
            batches.
    """

    prior: StructuralPrior = field(default_factory=_prior)
    seasons: dict[Seasons, float] = field(default_factory=lambda: dict(SEASONS))
    batch: int = 512
    leads: int = 20
    horizon: int | None = None

    def draw_seasons(self, generator: torch.Generator) -> Seasons:
        """Season lengths of a batch."""
        weights = torch.tensor(list(self.seasons.values()), dtype=torch.float64)
        found = list(self.seasons)[int(torch.multinomial(weights, 1, generator=generator))]
        if found.short:
            return found
        return Seasons(int(torch.randint(2, 61, (1,), generator=generator)))

    def draw(
        self,
        generator: torch.Generator,
        seasons: Seasons | None = None,
        batch: int | None = None,
        leads: Sequence[int] | None = None,
    ) -> Batch:
        """Draws a batch.

        Args:
            generator: Source of randomness.
            seasons: Season lengths; drawn by default.
            batch: Number of series.
            leads: Steps ahead; drawn by default.

        Raises:
            ValueError: If the prior draws what is no number.
        """
        seasons = self.draw_seasons(generator) if seasons is None else seasons
        context = context_of(seasons)
        if batch is None:
            batch = self.batch if context <= 200 else self.batch // 2
        ahead = self._leads(seasons, generator) if leads is None else torch.tensor(leads)
        drawn = self.drawn(generator, seasons, batch, int(ahead.max()))
        require_finite(drawn)
        observed = cut(drawn.observed[:, :context], seasons, generator)
        future = drawn.y[:, context - 1 + ahead]
        return Batch(
            drawn.y[:, :context],
            observed,
            future,
            torch.ones_like(future, dtype=torch.bool),
            ahead,
            seasons,
        )

    def drawn(self, generator: torch.Generator, seasons: Seasons, series: int, ahead: int) -> Drawn:
        """Series of all that is read and so many steps more, with what they are made of."""
        context = context_of(seasons)
        steps = context + ahead
        near = Uniform(max(context - 24, 0) / steps, (context - 1) / steps)
        prior = self.prior.replace(observation=_replaced(self.prior.observation, place=near))
        lengths = [m for m in seasons if m > 1]
        return prior.sample(series, steps, season_lengths=lengths, generator=generator)

    def farthest(self, seasons: Seasons) -> int:
        """The farthest lead that is drawn with some seasons."""
        if self.horizon is not None:
            return self.horizon
        return 128 if seasons.short == 1 else min(max(4 * seasons.short, 24), 512)

    def _leads(self, seasons: Seasons, generator: torch.Generator) -> Tensor:
        m = seasons.short
        usual = self.horizon or (14 if m == 1 else min(max(2 * m, 10), 48))
        most = self.farthest(seasons)
        far = 1.0 if self.horizon else float(torch.rand(1, generator=generator))
        if far < 0.2:
            unit = float(torch.rand(1, generator=generator))
            usual = int(usual * (most / usual) ** unit)
        if usual <= self.leads:
            return torch.arange(1, usual + 1)
        return 1 + torch.randperm(usual, generator=generator)[: self.leads].sort().values


def _replaced(observation: Observation, **changes: object) -> Observation:
    return Observation(**{**vars(observation), **changes})  # type: ignore[arg-type]


def cut(observed: Tensor, seasons: Seasons, generator: torch.Generator) -> Tensor:
    """What is seen of pasts of many lengths, which end with a value."""
    batch, context = observed.shape
    length = _lengths(batch, context, seasons.short, generator)
    observed = observed & (torch.arange(context) >= context - length[:, None])
    observed[:, -1] = True
    return observed


def _lengths(batch: int, context: int, m: int, generator: torch.Generator) -> Tensor:
    """Lengths of pasts: each order of magnitude alike, a few shorter than a season and a half."""
    unit = torch.rand(batch, generator=generator)
    least = max(6, int(1.5 * m))
    usual = least * torch.exp(unit * math.log(max(1.3 * context / least, 1.0)))
    short = 2 + unit * (least - 2)
    few = torch.rand(batch, generator=generator) < 0.06
    return torch.where(few, short, usual).long().clamp(2, context)
