"""Drawn series that are kept, where what drew them is not at hand any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised.curriculum import Batch, Curriculum, cut
from seqlatent.amortised.past import Seasons, context_of
from seqlatent.amortised.refused import require_finite

__all__ = ["Rehearsal", "Source"]

_SERIES = 2048


@runtime_checkable
class Source(Protocol):
    """What drawn series come from: a :class:`Curriculum`, or those that it once drew.

    Attributes:
        leads: Most leads of a batch.
    """

    @property
    def leads(self) -> int: ...

    def draw(
        self,
        generator: torch.Generator,
        seasons: Seasons | None = None,
        batch: int | None = None,
        leads: Sequence[int] | None = None,
    ) -> Batch:
        """Draws a batch."""
        ...


@dataclass(frozen=True)
class Rehearsal:
    """Series that networks were trained on, gone over again while they adapt to a panel.

    A prior is code and cannot be saved with the networks that learned from it; what it drew can.

    Args:
        y: Values of pasts ``(N, T)``.
        observed: Which are seen ``(N, T)``.
        future: Values at the leads from 1 on ``(N, H)``.
        seasons: Season lengths.
        leads: Most leads of a batch.

    References:
        Catastrophic forgetting, rehearsal and pseudorehearsal (Robins, 1995).
    """

    y: Float[Tensor, "N T"]
    observed: Bool[Tensor, "N T"]
    future: Float[Tensor, "N H"]
    seasons: Seasons
    leads: int = 20

    @classmethod
    def of(
        cls,
        curriculum: Curriculum,
        seasons: Seasons,
        generator: torch.Generator,
        series: int = _SERIES,
    ) -> "Rehearsal":
        """Draws what is kept."""
        drawn = curriculum.drawn(generator, seasons, series, curriculum.farthest(seasons))
        require_finite(drawn)
        context = context_of(seasons)
        y, observed, future = (
            x.clone()
            for x in (drawn.y[:, :context], drawn.observed[:, :context], drawn.y[:, context:])
        )
        observed[:, -1] = True
        return cls(y, observed, future, seasons, curriculum.leads)

    def draw(
        self,
        generator: torch.Generator,
        seasons: Seasons | None = None,
        batch: int | None = None,
        leads: Sequence[int] | None = None,
    ) -> Batch:
        """Some of the series, cut to any length; leads beyond those that are kept do not count.

        Args:
            generator: Source of randomness.
            seasons: Season lengths, which can only be its own.
            batch: Number of series.
            leads: Steps ahead; the first ones by default.
        """
        if seasons is not None and seasons != self.seasons:
            raise ValueError(
                f"the series that are kept have seasons {tuple(self.seasons)}, found "
                f"{tuple(seasons)}; draw others from their prior."
            )
        i = torch.randint(len(self.y), (batch or len(self.y),), generator=generator)
        ahead = torch.tensor(range(1, self.leads + 1) if leads is None else leads)
        kept = self.future.shape[1]
        future = self.future[i][:, (ahead - 1).clamp_max(kept - 1)]
        seen = (ahead <= kept).expand_as(future)
        observed = cut(self.observed[i], self.seasons, generator)
        return Batch(self.y[i], observed, future, seen, ahead, self.seasons)
