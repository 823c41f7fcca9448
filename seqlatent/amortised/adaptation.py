"""Adapts networks to a panel, by a few steps on windows of its own past beside drawn series."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised.curriculum import Batch, Curriculum
from seqlatent.amortised.forecast import forecast
from seqlatent.amortised.network import Network
from seqlatent.amortised.objective import loss
from seqlatent.amortised.past import Seasons, context_of, past_of
from seqlatent.amortised.quantiles import LEVELS, QuantileFunction
from seqlatent.amortised.rehearsal import Source

__all__ = ["Adaptation", "Adapted", "Windows", "adapt", "adapted"]


@dataclass(frozen=True)
class Adaptation:
    """How networks are adapted.

    Args:
        steps: Steps of gradient descent, fewer where there are few windows.
        lr: Highest learning rate.
        batch: Windows of a step.
        drawn: Series of a step that are drawn from the prior.
        mix: Weight of their loss.
        blocks: Blocks of a horizon each, held out to see whether adaptation pays.
    """

    steps: int = 50
    lr: float = 5e-4
    batch: int = 256
    drawn: int = 128
    mix: float = 0.3
    blocks: int = 2


class Windows:
    """Windows of all of the past of a panel.

    Args:
        y: Values, each series at the end of its row ``(B, T)``.
        observed: Which are seen ``(B, T)``.
        seasons: Season lengths.
        horizon: Leads that will be asked for.
        held_out: Last steps of each series that are in no window.
    """

    def __init__(
        self,
        y: Float[Tensor, "B T"],
        observed: Bool[Tensor, "B T"],
        seasons: Seasons,
        horizon: int,
        held_out: int = 0,
    ) -> None:
        steps = torch.arange(y.shape[1], dtype=torch.int32)
        self.y, self.observed = y, observed & (steps < y.shape[1] - held_out)
        self.seasons, self.horizon = seasons, horizon
        first = torch.where(self.observed, steps, len(steps)).amin(1)  # first value of each series
        last = torch.where(self.observed, steps, -1).amax(1)
        least = max(4, min(seasons.short, 60) + 1)
        self.first = first + least
        # an origin has at least one value after it
        self.last = last
        self._seen = torch.where(self.observed, steps, -1).cummax(1).values
        self.able = (self.last >= self.first).nonzero()[:, 0]
        self.count = int((self.last - self.first + 1)[self.able].sum())

    def draw(self, n: int, leads: int, generator: torch.Generator) -> Batch:
        """Some windows, with values after them."""
        i = self.able[torch.randint(len(self.able), (n,), generator=generator)]
        first, last = self.first[i], self.last[i]
        unit = torch.rand(n, generator=generator)
        origin = first + (unit * (last - first + 1)).long().clamp_max(last - first)
        origin = self._seen[i, origin - 1] + 1  # after a value, as the pasts that were drawn end
        ahead = torch.arange(1, self.horizon + 1)
        if self.horizon > leads:
            ahead = ahead[torch.randperm(self.horizon, generator=generator)[:leads].sort().values]
        past, seen = self._cells(i, origin[:, None] + torch.arange(-context_of(self.seasons), 0))
        future, known = self._cells(i, origin[:, None] - 1 + ahead)
        return Batch(past, seen, future, known, ahead, self.seasons)

    def _cells(self, i: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        inside = (column >= 0) & (column < self.y.shape[1])
        column = column.clamp(0, self.y.shape[1] - 1)
        seen = self.observed[i[:, None], column] & inside
        return torch.where(seen, self.y[i[:, None], column], 0.0), seen


def adapt(
    networks: Sequence[Network],
    windows: Windows,
    *,
    how: Adaptation = Adaptation(),
    curriculum: Source | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    going_on: Callable[[int, int], bool] = lambda step, steps: True,
) -> list[Network]:
    """Copies of networks, adapted to a panel.

    Args:
        networks: The networks, which stay as they are.
        windows: Windows of the panel.
        how: Steps, rate, mixture.
        curriculum: What drawn series come from; that of the weights of the package by default.
        seed: Seed of windows and drawn series.
        device: Where to compute; windows and series are drawn, and networks returned, on the CPU.
        going_on: Told the number of a step and of all; where it says no, no more are made.
    """
    steps = min(how.steps, 4 * windows.count // max(windows.horizon, 1))
    curriculum = Curriculum() if curriculum is None else curriculum
    adapted = []
    for k, network in enumerate(networks):
        network = copy.deepcopy(network).to(device).requires_grad_(True).train()
        generator = torch.Generator().manual_seed(seed + 104729 * k)
        optimiser = torch.optim.AdamW(network.parameters(), how.lr)
        for step in range(steps):
            if not going_on(k * steps + step, steps * len(networks)):
                break
            for group in optimiser.param_groups:
                group["lr"] = how.lr * min(1, (step + 1) / 20) * max(0.1, 1 - step / steps)
            own = windows.draw(how.batch, curriculum.leads, generator)
            value = loss(network, own.to(device), generator=generator)
            if how.mix:
                drawn = curriculum.draw(generator, windows.seasons, how.drawn, own.leads.tolist())
                value = value + how.mix * loss(network, drawn.to(device), generator=generator)
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        adapted.append(network.eval().requires_grad_(False).to("cpu"))
    return adapted


class Adapted(NamedTuple):
    """Networks for a panel, and why they are what they are.

    Attributes:
        networks: The networks.
        share: How far they went from those that were given to those adapted, 0 to 0.75.
        width: Factor of the spread of each third of the horizon, from the held-out blocks.
        losses: Logarithm of the quantile loss on held-out blocks at each share that was tried.
    """

    networks: list[Network]
    share: float
    width: tuple[float, ...]
    losses: dict[float, float]


# Never all the way: what blocks behind say of a panel is less sure than they seem, and a quarter
# of what was known before costs little where they are right.
SHARES = (0.0, 0.25, 0.5, 0.75)
_THIRDS = 3


def adapted(
    networks: Sequence[Network],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    seasons: Seasons,
    horizon: int,
    *,
    how: Adaptation = Adaptation(),
    curriculum: Source | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    going_on: Callable[[int, int], bool] = lambda step, steps: True,
) -> Adapted:
    """Adapts networks to a panel as far as held-out blocks say that it pays.

    They are first adapted to what lies before the last blocks, and the weights between those that
    were given and those adapted that forecast these blocks best are sought; then adapted to all.

    Args:
        networks: The networks, which stay as they are.
        y: Values, each series at the end of its row.
        observed: Which are seen.
        seasons: Season lengths.
        horizon: Leads that will be asked for.
        how: Steps, rate, mixture, blocks.
        curriculum: What drawn series come from; that of the weights of the package by default.
        seed: Seed of all that is drawn.
        device: Where to take steps.
        going_on: Told the number of a step and of all; where it says no, no more are made.

    References:
        Robust fine-tuning of zero-shot models (Wortsman et al., 2022), of weights in between.
    """
    whole = Windows(y, observed, seasons, horizon)
    past, blocks = held_out(y, observed, seasons, horizon, how.blocks)
    if not blocks or not how.steps:
        return Adapted(list(networks), 0.0, (1.0,) * _THIRDS, {})
    told = _Told(going_on)
    steps = partial(adapt, networks, how=how, curriculum=curriculum, device=device, going_on=told)
    trial = steps(past, seed=seed)
    losses = {}
    for share in SHARES:
        between = _between(networks, trial, share)
        losses[share] = sum(_loss(between, block) for block in blocks) / len(blocks)
    share = min(SHARES, key=lambda s: losses[s])
    if losses[share] > losses[0.0] - GAIN:
        share = 0.0
    width = _widths(_between(networks, trial, share), blocks)
    if not share:
        return Adapted(list(networks), 0.0, width, losses)
    told.before = told.steps
    final = trial
    if not told.stopped:
        final = steps(whole, seed=seed + 1)
    return Adapted(_between(networks, final, share), share, width, losses)


class _Told:
    """Counts the steps of both adaptations as one, and remembers whether one was refused."""

    def __init__(self, going_on: Callable[[int, int], bool]) -> None:
        self.going_on, self.before, self.steps, self.stopped = going_on, 0, 0, False

    def __call__(self, step: int, steps: int) -> bool:
        self.steps = steps
        if not self.going_on(self.before + step, 2 * steps):
            self.stopped = True
        return not self.stopped


_JUDGES = 2000  # series of a held-out block that are enough to judge by
_LEAST = 32  # windows below which a panel tells too little
GAIN = 0.003  # least gain on held-out blocks for which networks are changed


def held_out(
    y: Tensor, observed: Tensor, seasons: Seasons, horizon: int, most: int
) -> tuple[Windows, list[Batch]]:
    """Windows of what lies before the last blocks, and these; no block of what tells too little.

    Of short series fewer blocks are held out.
    """
    for count in range(most, 0, -1):
        past = Windows(y, observed, seasons, horizon, held_out=count * horizon)
        if past.count >= _LEAST:
            ends = [k * horizon for k in range(count, 0, -1)]
            found = [block_of(y, observed, seasons, horizon, end) for end in ends]
            return past, [block for block in found if block is not None]
    return Windows(y, observed, seasons, horizon), []


def block_of(
    y: Tensor, observed: Tensor, seasons: Seasons, horizon: int, held_out: int
) -> Batch | None:
    """The block of a horizon that begins that many steps before the end, of series that have it."""
    end = y.shape[1] - held_out
    context = context_of(seasons)
    if end < 1:
        return None
    past, seen = y[:, max(0, end - context) : end], observed[:, max(0, end - context) : end]
    known = observed[:, end : end + horizon]
    future = torch.where(known, y[:, end : end + horizon], 0.0)
    least = max(4, min(seasons.short, 60) + 1)
    able = (observed[:, :end].sum(1) >= least) & known.any(1) & seen[:, -1]
    able = able.nonzero()[:, 0]
    if not len(able):
        return None
    able = able[torch.linspace(0, len(able) - 1, min(len(able), _JUDGES)).long()]
    ahead = torch.arange(1, horizon + 1)
    return Batch(past[able], seen[able], future[able], known[able], ahead, seasons)


def _between(
    networks: Sequence[Network], adapted: Sequence[Network], share: float
) -> list[Network]:
    """Networks whose weights lie between two."""
    if share == 1:
        return list(adapted)
    if share == 0:
        return list(networks)
    found = []
    for one, other in zip(networks, adapted, strict=True):
        between = copy.deepcopy(other)
        far = one.state_dict()
        between.load_state_dict({k: far[k].lerp(v, share) for k, v in other.state_dict().items()})
        found.append(between)
    return found


_WIDTHS = tuple(math.exp(k / 20) for k in range(-8, 13))
_SHOCKS = 60.0  # values of a held-out third that count half: series share what surprises them


def _widths(networks: Sequence[Network], blocks: Sequence[Batch]) -> tuple[float, ...]:
    """Factors of the spread of each third of the horizon with the least loss, shrunk towards 1."""
    found = []
    horizon = len(blocks[0].leads)
    third = (torch.arange(horizon) * _THIRDS) // horizon
    forecasts = [
        forecast(networks, b.y, b.observed, seasons=b.seasons, leads=b.leads) for b in blocks
    ]
    for k in range(_THIRDS):
        best, least, seen = 1.0, math.inf, 0
        if not bool((third == k).any()):
            found.append(found[-1] if found else 1.0)
            continue
        for width in _WIDTHS:
            total = 0.0
            for block, one in zip(blocks, forecasts, strict=True):
                wide = one.marginals.widened(one.marginals.knots.new_full((horizon,), width))
                total += _alike(wide, block, third == k)
            if total < least:
                best, least = width, total
        seen = sum(int((block.seen[:, third == k]).any(1).sum()) for block in blocks)
        found.append(best ** (seen / (seen + _SHOCKS)))
    return tuple(found)


def _alike(marginals: QuantileFunction, block: Batch, leads: Tensor) -> float:
    """Quantile loss of some leads, of series alike."""
    unit = past_of(block.y, block.observed, block.seasons).unit
    seen = block.seen & leads
    cell = _cells(marginals, block) * seen / unit
    return float((cell.sum(1) / seen.sum(1).clamp_min(1)).mean())


def _cells(marginals: QuantileFunction, block: Batch) -> Tensor:
    """Mean quantile loss of each value, zero where there is none."""
    knots = marginals.floored
    level = knots.new_tensor(LEVELS)
    error = torch.where(block.seen, block.future, 0.0)[..., None] - knots
    return torch.maximum(level * error, (level - 1) * error).mean(-1) * block.seen


def _loss(networks: Sequence[Network], block: Batch) -> float:
    found = forecast(networks, block.y, block.observed, seasons=block.seasons, leads=block.leads)
    return block_loss(found.marginals, block)


def block_loss(marginals: QuantileFunction, block: Batch) -> float:
    """Quantile loss of a block: of all values by their size, and of series alike, as a mean."""
    past = past_of(block.y, block.observed, block.seasons)
    seen, cell = block.seen, _cells(marginals, block)
    pooled = 2 * cell.sum() / (block.future.abs() * seen).sum().clamp_min(1e-300)
    count = seen.sum(1).clamp_min(1)
    # the size of the past, for one of the outcome would count most where that is small
    size = 1 + past.z.abs().sum(1) / past.observed.sum(1).clamp_min(1)
    alike = 2 * (cell.sum(1) / count / past.unit[:, 0] / size).mean()
    return float(pooled.log() + alike.log()) / 2
