"""What the network of latents is trained by: quantile loss on the truth of drawn series."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.amortised.curriculum import Curriculum, cut
from seqlatent.amortised.latents.joint import Joint, pair_density
from seqlatent.amortised.latents.network import LatentNetwork, RawLatents
from seqlatent.amortised.latents.reading import Reading, ahead_of
from seqlatent.amortised.latents.truth import (
    EVENTS,
    FROM_BASE,
    PARAMETERS,
    PRESENT,
    events_of,
    log_scale,
    parameters_of,
    truth_of,
)
from seqlatent.amortised.past import Seasons, context_of, past_of
from seqlatent.amortised.quantiles import LEVELS, QuantileFunction
from seqlatent.amortised.refused import require_finite

__all__ = ["LatentBatch", "draw", "loss"]

QUERIES = 20  # steps of each series that are asked for
_FARTHEST = 1e4  # units beyond which a truth counts as this far
_NARROW = 0.02  # part of a unit below which the size of a posterior makes no difference


class LatentBatch(NamedTuple):
    """Series, steps of them, and the truth there.

    Attributes:
        y: Values of the past, whose last column is the last row ``(B, T)``.
        observed: Which are seen ``(B, T)``.
        steps: Steps that are asked for ``(B, Q)``, from the first of the past on.
        truth: What series are made of there, in the units of the data ``(B, Q)``.
        events: What happens there ``(B, Q)``.
        parameters: Parameters ``(B,)``.
        present: What there is ``(B,)``.
        seasons: Season lengths.
    """

    y: Float[Tensor, "B T"]
    observed: Bool[Tensor, "B T"]
    steps: Int[Tensor, "B Q"]
    truth: dict[str, Tensor]
    events: dict[str, Tensor]
    parameters: dict[str, Tensor]
    present: dict[str, Tensor]
    seasons: Seasons

    def to(self, device: str | torch.device) -> "LatentBatch":
        """The same elsewhere."""

        def moved(x: object) -> object:
            if isinstance(x, dict):
                return {k: v.to(device) for k, v in x.items()}
            return x.to(device) if isinstance(x, Tensor) else x

        return LatentBatch(*(moved(x) for x in self))  # type: ignore[arg-type]


def draw(
    curriculum: Curriculum,
    components: Sequence[str],
    generator: torch.Generator,
    seasons: Seasons | None = None,
    batch: int | None = None,
) -> LatentBatch:
    """Draws series of a curriculum, with holes, and steps of them.

    Args:
        curriculum: What series are drawn from.
        components: Components beside the level.
        generator: Source of randomness.
        seasons: Season lengths; drawn by default.
        batch: Number of series.
    """
    seasons = curriculum.draw_seasons(generator) if seasons is None else seasons
    context = context_of(seasons)
    if batch is None:
        batch = curriculum.batch if context <= 200 else curriculum.batch // 2
    ahead = ahead_of(seasons)
    drawn = curriculum.drawn(generator, seasons, batch, ahead)
    require_finite(drawn)
    observed = _holes(cut(drawn.observed[:, :context], seasons, generator), seasons, generator)
    first = observed.float().argmax(1, keepdim=True)
    unit = torch.rand(batch, QUERIES, generator=generator)
    inside = first + (unit * (context - first)).long()
    # the last steps, what follows, holes and what came before matter more than how many they are
    late = torch.maximum(context - 1 - (unit * 6).long(), first)
    after = context + (unit.square() * ahead).long()
    before = (first - 1 - (unit * ahead).long()).clamp_min(0)
    t = torch.arange(context)
    lacking = (~observed & (t > first)).float() + 1e-9 * (t >= first)
    hole = torch.multinomial(lacking, QUERIES, True, generator=generator)
    which = torch.rand(batch, QUERIES, generator=generator)
    steps = torch.where(which < 0.15, late, inside)
    steps = torch.where(which > 0.5, steps, torch.where(which > 0.15, hole, steps))
    steps = torch.where(which > 0.85, after, steps)
    steps = torch.where(which > 0.98, before, steps)
    half = QUERIES // 2  # whose partners are near them, or a season away
    m = seasons.short
    apart = torch.tensor([1, 1, 1, 2, 2, 3, 5, m, m, m, 2 * m, max(seasons.long, 1)])
    apart = apart[torch.randint(len(apart), (batch, half), generator=generator)]
    steps[:, half:] = steps[:, :half] + apart
    steps = steps.clamp_max(context + ahead - 1)
    pick = lambda x: x.gather(1, steps)  # noqa: E731
    parameters, present = parameters_of(drawn, context - 1)
    return LatentBatch(
        drawn.y[:, :context],
        observed,
        steps,
        {k: pick(v) for k, v in truth_of(drawn, components).items()},
        {k: pick(v) for k, v in events_of(drawn).items()},
        parameters,
        present,
        seasons,
    )


def _holes(observed: Tensor, seasons: Seasons, generator: torch.Generator) -> Tensor:
    """Holes in most series, single ones in some and long ones in others."""
    n, steps = observed.shape
    kind = torch.rand(n, 1, generator=generator)
    share = torch.where(
        kind < 0.5, 0.02 + 0.4 * torch.rand(n, 1, generator=generator).square(), 0.0
    )
    single = torch.rand(n, steps, generator=generator) < share
    length = 2 + (torch.rand(n, 1, generator=generator) * max(2 * seasons.short, 8)).long()
    start = (torch.rand(n, 1, generator=generator) * steps).long()
    t = torch.arange(steps)
    block = (kind > 0.7) & (t >= start) & (t < start + length)
    hidden = observed & ~single & ~block
    hidden[:, -1] = True
    # two values are the least of a series
    few = hidden.sum(1, keepdim=True) < 2
    return torch.where(few, observed, hidden)


def loss(
    network: LatentNetwork, batch: LatentBatch, generator: torch.Generator | None = None
) -> Tensor:
    """Mean loss of a batch: of each quantity in units of the spread that it is said to have.

    The spread has no gradient, so that it weighs cells and moves no quantile.

    Args:
        network: The network.
        batch: Series and the truth.
        generator: Spreads whole numbers over their units, in the copula.
    """
    past = past_of(batch.y, batch.observed, batch.seasons)
    past = past.to(torch.float32)
    with torch.autocast(batch.y.device.type, enabled=False):
        reading = Reading(past, int(batch.steps.max()) - batch.y.shape[1] + 1)
    raw, parameters = network(reading, batch.steps)
    shift, scale = past.shift, past.unit
    seen = torch.nn.functional.pad(batch.observed, (0, reading.steps - batch.y.shape[1]))
    hidden = ~seen.gather(1, batch.steps)
    truths, counts = [], []
    for name in network.quantities:
        truth = batch.truth[name]
        if name in FROM_BASE:
            truth = ((truth - shift) / scale - raw.base) / raw.unit
        elif name == "noise":
            truth = log_scale(truth / scale / raw.unit)
        else:
            truth = truth / scale / raw.unit
        truths.append(truth.clamp(-_FARTHEST, _FARTHEST))
        which = {"value": hidden, "break": batch.events["break"]}
        counts.append(which.get(name, torch.ones_like(hidden)))
    latents = _quantiles(raw.knots, torch.stack(truths, -1), torch.stack(counts, -1)).sum()
    happened = torch.stack([batch.events[name] for name in EVENTS], -1).float()
    events = F.binary_cross_entropy_with_logits(raw.events, happened) * len(EVENTS)
    held, there = [], []
    for name, kind in PARAMETERS.items():
        value = batch.parameters[name]
        there.append(value > 0 if kind == "scale" else torch.ones_like(value, dtype=torch.bool))
        held.append(log_scale(value / scale[:, 0]) if kind == "scale" else value)
    known = _quantiles(parameters.knots, torch.stack(held, -1), torch.stack(there, -1)).sum()
    has = torch.stack([batch.present[name] for name in PRESENT], -1).float()
    present = F.binary_cross_entropy_with_logits(parameters.present, has) * len(PRESENT)
    with torch.autocast(batch.y.device.type, enabled=False):
        truth = torch.stack(truths, -1)
        unit = torch.rand(hidden.shape, generator=generator).to(truth) - 0.5
        spread = unit * past.whole / scale / raw.unit
        truth[..., network.quantities.index("value")] += spread
        together = _together(network, raw, truth, hidden, batch)
    return latents + events + 0.3 * (known + present) - together


def _together(
    network: LatentNetwork, raw: RawLatents, truth: Tensor, hidden: Tensor, batch: LatentBatch
) -> Tensor:
    """Log density of the copula, of pairs at the same step and at two of them."""
    pick = [network.quantities.index(name) for name in network.joint]
    knots = raw.knots[:, :, pick].detach().flatten(1, 2)
    scores = QuantileFunction(knots).scores(truth[..., pick].flatten(1).contiguous())
    x = scores.clamp(-4, 4).unflatten(1, (-1, len(pick)))
    counts = torch.ones_like(x, dtype=torch.bool)
    counts[..., -1] = hidden
    half = QUERIES // 2
    first, second = (
        Joint(raw.joint.loadings[:, i], raw.joint.memory[:, i])
        for i in (slice(half), slice(half, None))
    )
    a, b = x[:, :half], x[:, half:]
    ca, cb = counts[:, :half], counts[:, half:]
    apart = batch.steps[:, half:] - batch.steps[:, :half]
    lags = torch.tensor(network.lags(batch.seasons), device=x.device)
    two = ca[..., :, None] & cb[..., None, :] & (apart > 0)[..., None, None]
    # a quantity at one step is all that there is of it
    other = ~torch.eye(len(pick), dtype=torch.bool, device=x.device)
    one = ca[..., :, None] & ca[..., None, :] & other
    return pair_density(first, second, a, b, apart, lags, two) + pair_density(
        first, first, a, a, torch.zeros_like(apart), lags, one
    )


def _quantiles(
    knots: Float[Tensor, "*B K levels"], y: Float[Tensor, "*B K"], counts: Bool[Tensor, "*B K"]
) -> Float[Tensor, " K"]:
    """Mean quantile loss where something counts, over the spread that is said."""
    error = y[..., None] - knots
    level = knots.new_tensor(LEVELS)
    cell = torch.maximum(level * error, (level - 1) * error).mean(-1)
    spread = (knots[..., 11] - knots[..., 3]).detach() + _NARROW
    total = (cell / spread * counts).flatten(0, -2).sum(0)
    return 2 * total / counts.flatten(0, -2).sum(0).clamp_min(1)
