"""Training on all origins of a panel at once, for as many steps as held-out blocks ask for."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqlatent.amortised import copula
from seqlatent.recurrent.history import Read
from seqlatent.recurrent.judging import THIRDS, Judge
from seqlatent.recurrent.network import RecurrentNetwork, Said
from seqlatent.recurrent.objective import Data, Windows

__all__ = ["Recipe", "Trained", "said_of", "train"]

_AVERAGE = 0.99  # share of the past that averaged weights keep at a step
_FASTER = 10.0  # times the rate for what a panel alone can tell, which begins as nothing
_TIES, _TIED = 6, 120  # draws of windows, and steps, by which targets are tied together
# More steps are better than a held-out loss says on the way: rates have not fallen yet.
_ALIKE = 0.02


@dataclass(frozen=True)
class Recipe:
    """How networks are trained.

    Args:
        members: Networks, of seeds of their own.
        steps: Most steps of each; None for 100, and one more for 2,000 values each, up to 300.
        lr: Highest learning rate.
        windows: What is drawn for a step.
        every: Steps after which the held-out block is looked at.
    """

    members: int = 3
    steps: int | None = None
    lr: float = 2e-3
    windows: Windows = field(default_factory=Windows)
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
    width: tuple[float, ...] = (1.0,) * THIRDS


def train(
    data: Data,
    horizon: int,
    *,
    start: Sequence[RecurrentNetwork] = (),
    how: Recipe = Recipe(),
    seed: int = 0,
    going_on: Callable[[int, int], bool] = lambda step, steps: True,
) -> Trained:
    """Trains networks on a panel.

    The first is trained without the last block of a horizon, whose loss says after how many steps
    it is best to stop, and how wide intervals should be; all are then trained on everything for as
    many steps. Of three or more that start from drawn series the last one stays as it was, unless
    there is something that a panel alone can tell of: what moved a whole panel of late, and all
    others have learned, it has not.

    Args:
        data: The panel.
        horizon: Leads of the block that is held out.
        start: Networks that have learned from drawn series, gone on with in turn; none for first
            weights.
        how: Members, steps, rate.
        seed: Seed of first weights and of what is drawn.
        going_on: Told the number of a step and of all; where it says no, no more are made.
    """
    cells = int(data.history.seen.sum())
    most = min(100 + cells // 2000, 300) if how.steps is None else how.steps
    kept_as = [copy.deepcopy(start[-1])] if _stays(data, how, start) else []
    trained = how.members - len(kept_as)
    total = most * (1 + trained)
    judge = Judge(data, horizon)
    losses: dict[int, float] = {}
    networks_at: dict[int, RecurrentNetwork] = {}
    done = 0
    if judge.able:
        before = dataclasses.replace(data, end=judge.before)
        trial = _Run(before, how, most, seed, start[0] if start else None)
        for step in range(most + 1):
            if step % how.every == 0 or step == most:
                network = networks_at[step] = trial.averaged()
                losses[step] = judge.loss([network] * trained + kept_as)
            if step == most or not going_on(done, total):
                break
            trial.step()
            done += 1
    best = max((k for k, x in losses.items() if x <= min(losses.values()) + _ALIKE), default=most)
    kept = networks_at.get(best)
    width = (1.0,) * THIRDS if kept is None else judge.width([kept] * trained + kept_as)
    networks, stopped = [], False
    for k in range(trained):
        first = start[k % len(start)] if start else None
        run = _Run(data, how, best, seed + 1 + k, first)
        for _ in range(best):
            if not going_on(done, total):
                stopped = True
                break
            run.step()
            done += 1
        if not stopped:
            networks.append(_tied(run.averaged(), data, how, run.generator))
        elif not networks:
            networks.append(run.averaged() if kept is None else kept)
        if stopped:
            break
    return Trained(networks + kept_as, best, losses, width)


def _stays(data: Data, how: Recipe, start: Sequence[RecurrentNetwork]) -> bool:
    """Whether one of the networks stays as it was."""
    own = sum(data.sizes[name] for name in ("rows", "ahead", "static"))
    return bool(start) and how.members > 2 and not own and data.targets == 1


def _tied(
    network: RecurrentNetwork, data: Data, how: Recipe, generator: torch.Generator
) -> RecurrentNetwork:
    """A network whose targets are tied together as all windows say, and not the last steps alone.

    What leads and targets share is learned slower than what each will be, and a held-out block
    does not ask for it.
    """
    if network.between is None:
        return network
    told = []
    with torch.no_grad():
        for _ in range(_TIES):
            one = how.windows.told(network, data, generator)
            if one is not None:
                told.append((one, one.scores(network, generator)))
    if not told:
        return network
    network.between.requires_grad_(True)
    optimiser = torch.optim.Adam([network.between], 0.05)
    for step in range(_TIED):
        one, x = told[step % len(told)]
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / _TIED)
        optimiser.zero_grad()
        (-one.joint(network, x, data.targets)).backward()
        optimiser.step()
    return network.requires_grad_(False)


class _Run:
    """One network on its way."""

    def __init__(
        self,
        data: Data,
        how: Recipe,
        steps: int,
        seed: int,
        start: RecurrentNetwork | None,
    ) -> None:
        self.data, self.how, self.steps = data, how, steps
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = {} if start is None else start.config
            self.network = RecurrentNetwork(**sizes | data.sizes)
        if start is not None:
            self.network.load_state_dict(start.state_dict(), strict=False)
        self.generator = torch.Generator().manual_seed(seed)
        own = {id(weight) for weight in self.network.own}
        rest = [weight for weight in self.network.parameters() if id(weight) not in own]
        groups = [{"params": rest, "times": 1.0}, {"params": self.network.own, "times": _FASTER}]
        self.optimiser = torch.optim.AdamW(groups, how.lr, weight_decay=1e-3)
        self.kept = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.done = 0

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
        value = self.how.windows.loss(self.network, self.data, self.generator)
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


def said_of(
    networks: Sequence[RecurrentNetwork],
    memories: Sequence[Tensor],
    read: Read,
    ahead: Tensor,
    static: Tensor,
    target: Tensor,
) -> Said:
    """What networks say together: quantiles averaged by level, copulas as correlations."""
    found = [
        network(memory, read, ahead, static)
        for network, memory in zip(networks, memories, strict=True)
    ]
    knots = torch.stack([one.knots for one in found]).mean(0)
    tied = [n.tied(one.loadings, target) for n, one in zip(networks, found, strict=True)]
    return Said(knots, copula.averaged(tied))
