"""Estimates, the posterior of what series are made of in the units of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised.latents.joint import Joint
from seqlatent.amortised.latents.network import LatentNetwork
from seqlatent.amortised.latents.reading import Reading
from seqlatent.amortised.latents.truth import EVENTS, FROM_BASE, PARAMETERS, PRESENT
from seqlatent.amortised.past import Seasons, past_of
from seqlatent.amortised.quantiles import LEVELS, QuantileFunction

__all__ = ["Latents", "Parameters", "at_levels", "latents", "parameters"]

_SPREAD = (3, 11)  # knots whose distance says how sure an estimate is


@dataclass(frozen=True)
class Latents:
    """Posterior at each step of some series.

    Args:
        names: Name of each quantity.
        raw: Quantiles at :data:`~seqlatent.amortised.LEVELS` in units of the changes around, of
            ``"noise"`` of its logarithm ``(B, S, K, levels)``.
        place: Where each quantity has its zero, in the units of the data ``(B, S, K)``.
        unit: Unit of the changes around each step, in those of the data ``(B, S)``.
        mean: Means ``(B, S, K)``; level and components add up to the signal.
        events: Probability of a break of the level and of an outlier ``(B, S, E)``.
        joint: How level, components and values go together.
        floor: Least value of each series, minus infinity for none ``(B, 1)``.
        whole: Which series hold whole numbers alone ``(B, 1)``.
    """

    names: tuple[str, ...]
    raw: Float[Tensor, "B S K levels"]
    place: Float[Tensor, "B S K"]
    unit: Float[Tensor, "B S"]
    mean: Float[Tensor, "B S K"]
    events: Float[Tensor, "B S E"]
    joint: Joint
    floor: Float[Tensor, "B 1"]
    whole: Bool[Tensor, "B 1"]

    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "B S K L"]:
        """Quantiles of all quantities, of values without their floor and units."""
        found = self.raw @ at_levels(levels).to(self.raw)
        noise = self.names.index("noise")
        found[:, :, noise] = found[:, :, noise].exp()
        return found.to(self.place.dtype) * self.unit[..., None, None] + self.place[..., None]

    @property
    def knots(self) -> Float[Tensor, "B S K levels"]:
        """Quantiles at :data:`~seqlatent.amortised.LEVELS`, in the units of the data."""
        return self.quantiles(LEVELS)

    def of(self, name: str) -> QuantileFunction:
        """Distribution of one quantity at each step."""
        k = self.names.index(name)
        knots = self.raw[:, :, k]
        knots = knots.exp() if name == "noise" else knots
        knots = knots.to(self.place.dtype) * self.unit[..., None] + self.place[:, :, k, None]
        if name == "value":
            return QuantileFunction(knots, self.floor, self.whole)
        return QuantileFunction(knots)

    def event(self, name: str) -> Float[Tensor, "B S"]:
        """Probability of an event at each step."""
        return self.events[..., EVENTS.index(name)]


class Parameters(NamedTuple):
    """Posterior of the parameters of some series.

    Attributes:
        knots: Quantiles of each of :data:`~seqlatent.amortised.latents.PARAMETERS`, of sizes in the
            units of the data at the last row ``(B, P, levels)``.
        present: Probability of each of :data:`~seqlatent.amortised.latents.PRESENT` ``(B, C)``.
    """

    knots: Float[Tensor, "B P levels"]
    present: Float[Tensor, "B C"]

    def of(self, name: str) -> Float[Tensor, "B levels"]:
        """Quantiles of one parameter."""
        return self.knots[:, list(PARAMETERS).index(name)]

    def probability(self, name: str) -> Float[Tensor, " B"]:
        """Probability that there is something."""
        return self.present[:, list(PRESENT).index(name)]


def latents(
    networks: Sequence[LatentNetwork],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    seasons: Seasons,
    *,
    ahead: int = 0,
    steps: slice | None = None,
    chunk: int = 512,
) -> Iterator[Latents]:
    """Posterior of what series are made of, some series at a time.

    Args:
        networks: Networks of the same components, whose quantiles are averaged.
        y: Values, whose last column is the last one of each.
        observed: Which are seen, the last among them.
        seasons: Season lengths.
        ahead: Steps after the last one that are wanted too.
        steps: Which steps are wanted, counted from the first of ``y``; all by default.
        chunk: Series at a time.
    """
    for i in range(0, len(y), chunk):
        yield _some(networks, y[i : i + chunk], observed[i : i + chunk], seasons, ahead, steps)


@torch.no_grad()
def _some(
    networks: Sequence[LatentNetwork],
    y: Tensor,
    observed: Tensor,
    seasons: Seasons,
    ahead: int,
    steps: slice | None,
) -> Latents:
    lack = -y.shape[1]
    y, observed = _long_enough(y, observed, seasons)
    lack += y.shape[1]
    past = past_of(y, observed, seasons)
    single = past.to(torch.float32)
    reading = Reading(single, ahead)
    index = torch.arange(lack, reading.steps, device=y.device)[steps or slice(None)]
    index = index.expand(len(y), -1)
    first = networks[0]
    raws = [network.at(network.read_series(reading), reading, index) for network in networks]
    knots = torch.stack([raw.knots for raw in raws]).mean(0)
    knots, mean = _adding_up(first.quantities, first.components, knots)
    # where nothing moves, nothing is known but that
    unit = raws[0].unit.to(y.dtype) * past.scale
    place = torch.zeros(mean.shape, dtype=y.dtype, device=y.device)
    base = raws[0].base.to(y.dtype) * past.scale + past.shift
    for name in FROM_BASE:
        place[:, :, first.quantities.index(name)] = base
    odds = torch.stack([raw.events for raw in raws]).mean(0).to(y.dtype)
    joint = Joint(*(torch.stack(x).mean(0) for x in zip(*(r.joint for r in raws), strict=True)))
    return Latents(
        first.quantities,
        knots,
        place,
        unit,
        mean.to(y.dtype) * unit[..., None] + place,
        torch.sigmoid(odds),
        joint,
        torch.where(past.lower, 0.0, -torch.inf).to(y.dtype),
        past.whole,
    )


def _long_enough(y: Tensor, observed: Tensor, seasons: Seasons) -> tuple[Tensor, Tensor]:
    """Rows in front, so that the last step of each phase has a place, seen or not."""
    lack = max(0, 2 * seasons.short - y.shape[1])
    y, observed = (torch.nn.functional.pad(x, (lack, 0)) for x in (y, observed))
    return y, observed


def _adding_up(
    names: tuple[str, ...], components: Sequence[str], knots: Tensor
) -> tuple[Tensor, Tensor]:
    """Moves quantiles so that means add up, each by as much as it is unsure.

    Means of a posterior add up; estimates of them are moved by the least squares adjustment that
    makes them, each by its variance (Stone, Champernowne and Meade, 1942).
    """
    weight = _means().to(knots)
    mean = knots @ weight
    noise = names.index("noise")
    mean[..., noise] = knots[:, :, noise].exp() @ weight
    parts = [names.index(name) for name in ("level", *components)]
    signal = names.index("signal")
    size = (knots[..., _SPREAD[1]] - knots[..., _SPREAD[0]]).square()
    lack = mean[..., signal] - mean[..., parts].sum(-1)
    total = size[..., parts].sum(-1) + size[..., signal]
    share = lack / total.clamp_min(torch.finfo(knots.dtype).tiny)
    move = torch.zeros_like(mean)
    move[..., parts] = share[..., None] * size[..., parts]
    move[..., signal] = -share * size[..., signal]
    return knots + move[..., None], mean + move


@cache
def _means() -> Float[Tensor, " levels"]:
    """Weights of quantiles in a mean, which is linear in them."""
    one = torch.eye(len(LEVELS), dtype=torch.float64)
    return QuantileFunction(one[None]).mean()[0]


def at_levels(levels: Sequence[float]) -> Float[Tensor, "levels L"]:
    """Weights of quantiles in those at other levels."""
    scores = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64))
    one = torch.eye(len(LEVELS), dtype=torch.float64)
    return QuantileFunction(one[None]).at(scores[:, None, None].expand(-1, 1, len(LEVELS)))[:, 0].T


@torch.no_grad()
def parameters(
    networks: Sequence[LatentNetwork],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    seasons: Seasons,
    *,
    chunk: int = 4096,
) -> Parameters:
    """Posterior of the parameters of series, arguments as in :func:`latents`."""
    knots, present = [], []
    scale = torch.tensor([kind == "scale" for kind in PARAMETERS.values()])[:, None]
    for i in range(0, len(y), chunk):
        past = past_of(*_long_enough(y[i : i + chunk], observed[i : i + chunk], seasons), seasons)
        reading = Reading(past.to(torch.float32))
        raws = [network.parameters_of(network.read_series(reading)) for network in networks]
        found = torch.stack([raw.knots for raw in raws]).mean(0).to(y.dtype)
        sized = found.exp() * past.scale[..., None]
        knots.append(torch.where(scale, sized, found))
        odds = torch.stack([raw.present for raw in raws]).mean(0).to(y.dtype)
        present.append(torch.sigmoid(odds))
    return Parameters(torch.cat(knots), torch.cat(present))
