"""Training on all origins of a panel at once, for as many steps as held-out blocks ask for."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqlatent.amortised import LEVELS, QuantileFunction, Seasons, copula
from seqlatent.amortised.network import Raw
from seqlatent.amortised.objective import normal_scores, quantile_loss
from seqlatent.amortised.past import Past
from seqlatent.recurrent.history import History, Read
from seqlatent.recurrent.network import RecurrentNetwork, Said

__all__ = ["Recipe", "Trained", "train"]

LEAST = 3  # values from which a row is an origin
_DEPENDENCE = 0.05  # weight of the copula
_AVERAGE = 0.99  # share of the past that averaged weights keep at a step
_WIDTHS = tuple(math.exp(k / 20) for k in range(-8, 13))
_SHOCKS = 60.0  # values of a held-out third that count half: series share what surprises them
_THIRDS = 3
_FASTER = 10.0  # times the rate for what covariates do, which begins as nothing
# More steps are better than a held-out loss says on the way: rates have not fallen yet.
_ALIKE = 0.02


@dataclass(frozen=True)
class Recipe:
    """How networks are trained.

    Args:
        members: Networks, of seeds of their own.
        steps: Most steps of each; None for 150, and one more for each thousand values, up to 600.
        lr: Highest learning rate.
        series: Series of a step.
        origins: Rows of each of them from which is forecast.
        leads: Leads of each.
        window: Least rows that a memory is trained over.
        every: Steps after which the held-out block is looked at.
    """

    members: int = 3
    steps: int | None = None
    lr: float = 2e-3
    series: int = 48
    origins: int = 8
    leads: int = 4
    window: int = 96
    every: int = 25


@dataclass
class Trained:
    """What a training has found.

    Attributes:
        networks: The networks.
        steps: Steps of each.
        losses: Loss of the held-out block by steps; empty where nothing could be held out.
        width: Factor of the spread of each third of the horizon, by the held-out block.
    """

    networks: list[RecurrentNetwork]
    steps: int
    losses: dict[int, float] = field(default_factory=dict)
    width: tuple[float, ...] = (1.0,) * _THIRDS


@dataclass(frozen=True)
class Data:
    """A panel to be trained on: ``D`` rows of the history for each series, one for each target.

    Args:
        history: The series.
        targets: Targets ``D``.
        row: Covariates of each row, standardised ``(B, T, C)``.
        ahead: Which of them are known ahead.
        static: Static features ``(B, S)``.
    """

    history: History
    targets: int
    row: Tensor
    ahead: slice
    static: Tensor

    def inputs(self, i: Tensor, step: Tensor, leads: Tensor) -> tuple[Tensor, Tensor]:
        """Covariates of leads ``(N, H, U)`` and series ``(N, S)``."""
        at = (step[:, None] + leads).clamp_max(self.row.shape[1] - 1)
        return self.row[i[:, None], at][..., self.ahead], self.static[i]


def train(
    data: Data,
    horizon: int,
    *,
    farthest: int | None = None,
    how: Recipe = Recipe(),
    seed: int = 0,
    going_on: Callable[[int, int], bool] = lambda step, steps: True,
) -> Trained:
    """Trains networks on a panel.

    The first is trained without the last block of a horizon, whose loss says after how many steps
    it is best to stop, and how wide intervals should be; all are then trained on everything for as
    many steps.

    Args:
        data: The panel.
        horizon: Leads of the block that is held out.
        farthest: Leads that are trained on, as many by default.
        how: Members, steps, rate.
        seed: Seed of first weights and of what is drawn.
        going_on: Told the number of a step and of all; where it says no, no more are made.
    """
    farthest = horizon if farthest is None else farthest
    cells = int(data.history.seen.sum())
    most = min(150 + cells // 1000, 600) if how.steps is None else how.steps
    total = most * (1 + how.members)
    judge = _Judge(data, horizon)
    trial = _Run(data, farthest, how, most, seed, judge.before if judge.able else None)
    losses: dict[int, float] = {}
    networks_at: dict[int, RecurrentNetwork] = {}
    done = 0
    if judge.able:
        for step in range(most):
            if not going_on(done, total):
                break
            trial.step()
            done += 1
            if (step + 1) % how.every == 0 or step + 1 == most:
                network = trial.averaged()
                losses[step + 1] = judge.loss([network])
                networks_at[step + 1] = network
    best = max((k for k, x in losses.items() if x <= min(losses.values()) + _ALIKE), default=most)
    kept = networks_at.get(best)
    width = judge.width([kept]) if kept is not None else (1.0,) * _THIRDS
    networks, stopped = [], False
    for k in range(how.members):
        run = _Run(data, farthest, how, best, seed + 1 + k, None)
        for _ in range(best):
            if not going_on(done, total):
                stopped = True
                break
            run.step()
            done += 1
        if not stopped:
            networks.append(run.averaged())
        elif not networks:
            networks.append(run.averaged() if kept is None else kept)
        if stopped:
            break
    return Trained(networks, best, losses, width)


class _Run:
    """One network on its way."""

    def __init__(
        self, data: Data, horizon: int, how: Recipe, steps: int, seed: int, end: int | None
    ) -> None:
        self.data, self.horizon, self.how, self.steps = data, horizon, how, steps
        h = data.history
        self.end = h.y.shape[1] if end is None else end
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = RecurrentNetwork(
                rows=data.row.shape[-1],
                ahead=data.row[..., data.ahead].shape[-1],
                static=data.static.shape[-1],
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.AdamW(self._groups(), how.lr, weight_decay=1e-3)
        self.kept = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.done = 0
        m, long = h.seasons
        self.window = min(self.end - 1, max(how.window, 4 * m, 2 * long))
        first = h.inside.to(torch.int64).argmax(1).view(-1, data.targets).amin(1)
        self.first = first
        self.able = (first < self.end - 1).nonzero()[:, 0]

    def _groups(self) -> list[dict[str, Any]]:
        """Weights, and by how much faster each is learned."""
        of_covariates = [x for layer in self.network.covariates for x in layer.parameters()]
        known = {id(x) for x in of_covariates}
        rest = [x for x in self.network.parameters() if id(x) not in known]
        return [{"params": rest, "times": 1.0}, {"params": of_covariates, "times": _FASTER}]

    def averaged(self) -> RecurrentNetwork:
        """The network with the averaged weights."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.kept)
        return network.eval().requires_grad_(False)

    def step(self) -> None:
        """One step."""
        part = self.done / self.steps
        rate = min(1, (self.done + 1) / 50) * max(0.02, (1 + math.cos(math.pi * part)) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = self.how.lr * rate * group["times"]
        value = self._loss()
        self.optimiser.zero_grad()
        if value is not None:
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
        self.done += 1
        keep = min(_AVERAGE, self.done / (self.done + 9))
        with torch.no_grad():
            for name, weight in self.network.state_dict().items():
                self.kept[name].lerp_(weight, 1 - keep)

    def _loss(self) -> Tensor | None:
        """Loss of some windows, at some of their rows."""
        h, how, d = self.data.history, self.how, self.data.targets
        g = self.generator
        many = max(1, how.series // d)
        series = self.able[torch.randint(len(self.able), (many,), generator=g)]
        room = self.end - self.window
        low = self.first[series].clamp_max(room)
        begin = low + (torch.rand(many, generator=g) * (room - low + 1)).long()
        begin = torch.minimum(begin, torch.tensor(room))
        every = (series[:, None] * d + torch.arange(d)).flatten()
        columns = begin.repeat_interleave(d)[:, None] + torch.arange(self.window)
        rows = h.rows[every[:, None], columns].float()
        memory = self.network.remember(rows, self.data.row[every[:, None], columns])
        own = torch.randint(self.window, (many, how.origins), generator=g)
        # near leads are asked for more often than far ones, as their values are told apart better
        unit = torch.rand(many, how.origins, how.leads, generator=g)
        leads = 1 + (self.horizon * unit.square()).long()
        # of each origin all targets: (series, origin, target)
        place = own[:, :, None].expand(-1, -1, d)
        i = (series[:, None, None] * d + torch.arange(d)).expand(-1, how.origins, -1).flatten()
        step = (begin[:, None, None] + place).flatten()
        which = (torch.arange(many)[:, None, None] * d + torch.arange(d)).expand_as(place).flatten()
        memory = memory[which, place.flatten()]
        leads = leads[:, :, None].expand(-1, -1, d, -1).reshape(-1, how.leads)
        return _loss_of(self.network, self.data, memory, i, step, leads, self.end, g)


def _loss_of(
    network: RecurrentNetwork,
    data: Data,
    memory: Tensor,
    i: Tensor,
    step: Tensor,
    leads: Tensor,
    end: int,
    generator: torch.Generator,
) -> Tensor | None:
    h, d = data.history, data.targets
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
    past = _past(read, h.seasons)
    target = ((h.y[i[:, None], at] - read.reference) / past.scale).float()
    target = torch.where(seen, target, 0.0)
    past = past.to(torch.float32)
    # what is not seen weighs nothing, but would count as series
    share = seen.any(1).float().mean()
    marginal = quantile_loss(said.knots, target, past, seen) / share
    x = normal_scores(Raw(said.knots, said.loadings), target, past, seen, generator)
    # leads of all targets stand together
    x, loadings, known = (
        t.reshape(-1, d * leads.shape[1], *t.shape[2:]) for t in (x, said.loadings, seen)
    )
    joint = copula.log_density(x, loadings, known) / known.sum(1).clamp_min(1)
    return marginal - _DEPENDENCE * joint.sum() / known.any(1).sum()


def _past(read: Read, seasons: Seasons) -> Past:
    """An origin as the objective of networks knows it: its reference and its scale."""
    scale = torch.where(read.scale > 0, read.scale, 1.0)
    blank = torch.zeros_like(scale)
    return Past(blank, blank.bool(), read.reference, scale, read.lower, read.whole, seasons)


class _Judge:
    """The last block of a horizon, and how well networks forecast it."""

    def __init__(self, data: Data, horizon: int) -> None:
        self.data, self.horizon = data, horizon
        h = data.history
        self.before = h.y.shape[1] - horizon
        self.able = False
        if self.before < 2:
            return
        column = self.before - 1
        count = h.traces.scalars["number"][:, column]
        known = h.seen[:, self.before :].any(1)
        able = (count >= LEAST + 1) & known & h.inside[:, column]
        # a trial must have something to learn from
        learns = (h.seen[:, : self.before].sum() >= 24) & bool(able.any())
        self.able = bool(learns)
        self.rows = able.nonzero()[:, 0][:2000]

    def _said(self, networks: Sequence[RecurrentNetwork]) -> tuple[Tensor, Tensor, Tensor, Past]:
        h, rows = self.data.history, self.rows
        step = torch.full((len(rows),), self.before - 1)
        leads = torch.arange(1, self.horizon + 1).expand(len(rows), -1)
        read = h.origins(rows, step, leads).read()
        ahead, static = self.data.inputs(rows, step, leads)
        found = []
        for network in networks:
            there = slice(0, self.before)
            memory = network.remember_all(
                h.rows[rows, there].float(), self.data.row[rows, there], h.inside[rows, there]
            )
            found.append(network(memory[:, -1], read, ahead, static).knots)
        past = _past(read, h.seasons)
        y = ((h.y[rows, self.before :] - read.reference) / past.scale).float()
        return torch.stack(found).mean(0), y, h.seen[rows, self.before :], past.to(torch.float32)

    @torch.no_grad()
    def loss(self, networks: Sequence[RecurrentNetwork]) -> float:
        """Mean of the logarithms of pooled loss and loss of series alike."""
        knots, y, seen, past = self._said(networks)
        alike = quantile_loss(knots, y, past, seen)
        return float(alike.log() + _pooled(knots, y, seen, past).log()) / 2

    @torch.no_grad()
    def width(self, networks: Sequence[RecurrentNetwork]) -> tuple[float, ...]:
        """Factors of the spread of each third with the least loss, shrunk towards one."""
        knots, y, seen, _ = self._said(networks)
        third = (torch.arange(self.horizon) * _THIRDS) // self.horizon
        found: list[float] = []
        for k in range(_THIRDS):
            part = third == k
            if not bool(part.any()):
                found.append(found[-1] if found else 1.0)
                continue
            losses = []
            for width in _WIDTHS:
                wide = QuantileFunction(knots[:, part]).widened(knots.new_full((1,), width))
                losses.append(float(_alike(wide.knots, y[:, part], seen[:, part])))
            best = _WIDTHS[min(range(len(losses)), key=losses.__getitem__)]
            told = int(seen[:, part].any(1).sum())
            found.append(best ** (told / (told + _SHOCKS)))
        return tuple(found)


def _alike(knots: Tensor, y: Tensor, seen: Tensor) -> Tensor:
    """Quantile loss of series alike, each in units of its scale."""
    level = knots.new_tensor(LEVELS)
    error = torch.where(seen, y, 0.0)[..., None] - knots
    cell = torch.maximum(level * error, (level - 1) * error).mean(-1) * seen
    return (cell.sum(1) / seen.sum(1).clamp_min(1)).mean()


def _pooled(knots: Tensor, y: Tensor, seen: Tensor, past: Past) -> Tensor:
    """Quantile loss of all values over their size."""
    level = knots.new_tensor(LEVELS)
    error = torch.where(seen, y, 0.0)[..., None] - knots
    cell = torch.maximum(level * error, (level - 1) * error).mean(-1) * seen * past.scale
    size = ((y * past.scale + past.shift).abs() * seen).sum()
    return 2 * cell.sum() / size.clamp_min(1e-30)


def said_of(
    networks: Sequence[RecurrentNetwork],
    memories: Sequence[Tensor],
    read: Read,
    ahead: Tensor,
    static: Tensor,
) -> Said:
    """What networks say together: quantiles averaged by level, copulas as correlations."""
    found = [
        network(memory, read, ahead, static)
        for network, memory in zip(networks, memories, strict=True)
    ]
    knots = torch.stack([one.knots for one in found]).mean(0)
    return Said(knots, copula.averaged([one.loadings for one in found]))
