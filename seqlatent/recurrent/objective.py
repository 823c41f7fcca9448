"""What networks are trained by: the loss of windows of a panel, at all of their rows and leads."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.amortised import Seasons, copula
from seqlatent.amortised.network import Raw
from seqlatent.amortised.objective import normal_scores, quantile_loss
from seqlatent.amortised.past import Past
from seqlatent.recurrent.history import History, Read
from seqlatent.recurrent.network import RecurrentNetwork, Said

__all__ = ["LEAST", "Data", "Windows", "past_of"]

LEAST = 3  # values from which a row is an origin
_DEPENDENCE = 0.05  # weight of the copula


@dataclass(frozen=True)
class Data:
    """Series to be trained on: ``D`` rows of the history for each, one for each target.

    Args:
        history: The series.
        targets: Targets ``D``.
        row: Covariates of each row, standardised ``(B, T, C)``.
        ahead: Which of them are known ahead.
        static: Static features ``(B, S)``.
        farthest: Leads that are trained on.
        end: Row before which all that is trained on lies; the last by default.
    """

    history: History
    targets: int
    row: Tensor
    ahead: slice
    static: Tensor
    farthest: int
    end: int | None = None

    @property
    def seasons(self) -> Seasons:
        """Season lengths."""
        return self.history.seasons

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of a network of the panel."""
        return {
            "rows": self.row.shape[-1],
            "ahead": self.row[..., self.ahead].shape[-1],
            "static": self.static.shape[-1],
            "targets": self.targets,
        }

    def inputs(self, i: Tensor, step: Tensor, leads: Tensor) -> tuple[Tensor, Tensor]:
        """Covariates of leads ``(N, H, U)`` and series ``(N, S)``."""
        at = (step[:, None] + leads).clamp_max(self.row.shape[1] - 1)
        return self.row[i[:, None], at][..., self.ahead], self.static[i]


class Told(NamedTuple):
    """What a network says of leads of some origins, all targets of each in turn, and what came.

    Attributes:
        said: Quantiles and loadings.
        y: Values, in units of the scale from the reference ``(N, H)``.
        past: Reference and scale of origins.
        seen: Which values there are ``(N, H)``.
        target: Which target each line is of ``(N,)``.
    """

    said: Said
    y: Tensor
    past: Past
    seen: Tensor
    target: Tensor

    def scores(self, network: RecurrentNetwork, generator: torch.Generator) -> Tensor:
        """Normal scores of the values ``(N, H)``, without gradients."""
        loadings = network.tied(self.said.loadings, self.target)
        raw = Raw(self.said.knots, loadings)
        return normal_scores(raw, self.y, self.past, self.seen, generator)

    def joint(self, network: RecurrentNetwork, x: Tensor, targets: int) -> Tensor:
        """Mean log density of the copula for a value, leads of all targets together."""
        loadings = network.tied(self.said.loadings, self.target)
        x, loadings, seen = (
            t.reshape(-1, targets * x.shape[1], *t.shape[2:]) for t in (x, loadings, self.seen)
        )
        found = copula.log_density(x, loadings, seen) / seen.sum(1).clamp_min(1)
        return found.sum() / seen.any(1).sum()


@dataclass(frozen=True)
class Windows:
    """What is drawn of a panel for a step.

    A memory costs as much as it has rows, an origin as much as any other: of long windows there are
    few, with many origins each.

    Args:
        origins: Rows from which is forecast, those of all series together.
        leads: Leads of each.
        rows: Least rows that a memory is trained over.
        cells: Rows of all series together, at most.
    """

    origins: int = 384
    leads: int = 4
    rows: int = 96
    cells: int = 3072

    def loss(
        self, network: RecurrentNetwork, data: Data, generator: torch.Generator
    ) -> Tensor | None:
        """Mean loss of some windows, at some of their rows; None where nothing can be told."""
        told = self.told(network, data, generator)
        if told is None:
            return None
        # what is not seen weighs nothing, but would count as series
        share = told.seen.any(1).float().mean()
        marginal = quantile_loss(told.said.knots, told.y, told.past, told.seen) / share
        x = told.scores(network, generator)
        return marginal - _DEPENDENCE * told.joint(network, x, data.targets)

    def told(
        self, network: RecurrentNetwork, data: Data, generator: torch.Generator
    ) -> "Told | None":
        """What a network says of some windows, and what came; None where nothing did."""
        h, d, g = data.history, data.targets, generator
        end = h.y.shape[1] if data.end is None else data.end
        m, long = h.seasons
        width = min(end - 1, max(self.rows, 4 * m, 2 * long))
        first = h.inside.to(torch.int64).argmax(1).view(-1, d).amin(1)
        able = (first < end - 1).nonzero()[:, 0]
        many = max(1, min(self.cells // width, self.origins // 8) // d)
        each = max(1, self.origins // (many * d))
        series = able[torch.randint(len(able), (many,), generator=g)]
        room = end - width
        low = first[series].clamp_max(room)
        begin = low + (torch.rand(many, generator=g) * (room - low + 1)).long()
        begin = begin.clamp_max(room)
        every = (series[:, None] * d + torch.arange(d)).flatten()
        columns = begin.repeat_interleave(d)[:, None] + torch.arange(width)
        rows = h.rows[every[:, None], columns].float()
        memory = network.remember(rows, data.row[every[:, None], columns])
        own = torch.randint(width, (many, each), generator=g)
        # near leads are asked for more often than far ones, as their values are told apart better
        unit = torch.rand(many, each, self.leads, generator=g)
        leads = 1 + (data.farthest * unit.square()).long()
        # of each origin all targets: (series, origin, target)
        place = own[:, :, None].expand(-1, -1, d)
        i = (series[:, None, None] * d + torch.arange(d)).expand(-1, each, -1).flatten()
        step = (begin[:, None, None] + place).flatten()
        which = (torch.arange(many)[:, None, None] * d + torch.arange(d)).expand_as(place).flatten()
        memory = memory[which, place.flatten()]
        leads = leads[:, :, None].expand(-1, -1, d, -1).reshape(-1, self.leads)
        inside = step[:, None] + leads < end
        leads = torch.where(inside, leads, 1)
        origins = h.origins(i, step, leads)
        at = (step[:, None] + leads).clamp_max(h.y.shape[1] - 1)
        able = (origins.scalars["number"] >= LEAST) & (origins.scalars["scale"] > 0)
        seen = h.seen[i[:, None], at] & inside & able[:, None]
        if not bool(seen.any()):
            return None
        read = origins.read()
        said = network(memory, read, *data.inputs(i, step, leads))
        past = past_of(read, h.seasons)
        y = ((h.y[i[:, None], at] - read.reference) / past.scale).float()
        y = torch.where(seen, y, 0.0)
        return Told(said, y, past.to(torch.float32), seen, i % d)


def past_of(read: Read, seasons: Seasons) -> Past:
    """An origin as the objective of networks knows it: its reference and its scale."""
    scale = torch.where(read.scale > 0, read.scale, 1.0)
    blank = torch.zeros_like(scale)
    return Past(blank, blank.bool(), read.reference, scale, read.lower, read.whole, seasons)
