"""What a held-out block says of networks: how many steps, how wide."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seqlatent.amortised import LEVELS, QuantileFunction
from seqlatent.amortised.objective import quantile_loss
from seqlatent.amortised.past import Past
from seqlatent.recurrent.network import RecurrentNetwork
from seqlatent.recurrent.objective import LEAST, Data, past_of

__all__ = ["THIRDS", "Judge"]

THIRDS = 3
_WIDTHS = tuple(math.exp(k / 20) for k in range(-8, 13))
_MOST = 800  # blocks of series that are told from
_ROWS = 512  # that are remembered before the first of them; what was earlier is long forgotten
_TOLD, _BLOCKS = 200, 8  # so many are wanted, and no more of a series
_PART = 8  # part of a series that is held out
_SHOCKS = 60.0  # values of a held-out third that count half: series share what surprises them


class Judge:
    """The last blocks of a horizon, and how well networks forecast them.

    Few long series have several, as one block of theirs tells little: what it holds is one shock.

    Args:
        data: The panel.
        horizon: Leads of a block.
    """

    def __init__(self, data: Data, horizon: int) -> None:
        self.data, self.horizon = data, horizon
        h = data.history
        lengths = h.inside.sum(1).double()
        usual = int(lengths.median()) // (_PART * horizon)
        blocks = max(1, min(_TOLD // len(h.y), _BLOCKS, usual))
        self.before = h.y.shape[1] - blocks * horizon
        self.able = False
        if self.before < 2:
            return
        steps = self.before - 1 + horizon * torch.arange(blocks)
        count = h.traces.scalars["number"][:, steps]
        leads = steps[:, None] + torch.arange(1, horizon + 1)
        able = (count >= LEAST + 1) & h.seen[:, leads].any(-1) & h.inside[:, steps]
        # a trial must have something to learn from
        learns = (h.seen[:, : self.before].sum() >= 24) & bool(able.any())
        self.able = bool(learns)
        found = able.nonzero()
        some = torch.linspace(0, len(found) - 1, min(_MOST, len(found))).round().long()
        rows, block = found[some].unbind(1)
        self.rows, self.steps = rows, steps[block]

    def _said(self, networks: Sequence[RecurrentNetwork]) -> tuple[Tensor, Tensor, Tensor, Past]:
        h, rows, steps = self.data.history, self.rows, self.steps
        leads = torch.arange(1, self.horizon + 1).expand(len(rows), -1)
        read = h.origins(rows, steps, leads).read()
        inputs = self.data.inputs(rows, steps, leads)
        series, which = rows.unique(return_inverse=True)
        first = max(0, int(steps.min()) + 1 - _ROWS)
        there = slice(first, int(steps.max()) + 1)
        found: dict[int, Tensor] = {}
        for network in networks:
            if id(network) in found:
                continue
            memory = network.remember_all(
                h.rows[series, there].float(), self.data.row[series, there], h.inside[series, there]
            )
            found[id(network)] = network(memory[which, steps - first], read, *inputs).knots
        past = past_of(read, h.seasons)
        at = steps[:, None] + leads
        y = ((h.y[rows[:, None], at] - read.reference) / past.scale).float()
        knots = torch.stack([found[id(network)] for network in networks]).mean(0)
        return knots, y, h.seen[rows[:, None], at], past.to(torch.float32)

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
        # of what has hardly moved before any change would count most
        size = 1 + knots.abs().mean((1, 2))
        third = (torch.arange(self.horizon) * THIRDS) // self.horizon
        found: list[float] = []
        for k in range(THIRDS):
            part = third == k
            if not bool(part.any()):
                found.append(found[-1] if found else 1.0)
                continue
            losses = []
            for width in _WIDTHS:
                wide = QuantileFunction(knots[:, part]).widened(knots.new_full((1,), width))
                losses.append(float(_alike(wide.knots, y[:, part], seen[:, part], size)))
            best = _WIDTHS[min(range(len(losses)), key=losses.__getitem__)]
            told = int(seen[:, part].any(1).sum())
            found.append(best ** (told / (told + _SHOCKS)))
        return tuple(found)


def _alike(knots: Tensor, y: Tensor, seen: Tensor, size: Tensor) -> Tensor:
    """Quantile loss of series alike, each in units of a size."""
    level = knots.new_tensor(LEVELS)
    error = torch.where(seen, y, 0.0)[..., None] - knots
    cell = torch.maximum(level * error, (level - 1) * error).mean(-1) * seen
    return (cell.sum(1) / seen.sum(1).clamp_min(1) / size).mean()


def _pooled(knots: Tensor, y: Tensor, seen: Tensor, past: Past) -> Tensor:
    """Quantile loss of all values over their size."""
    level = knots.new_tensor(LEVELS)
    error = torch.where(seen, y, 0.0)[..., None] - knots
    cell = torch.maximum(level * error, (level - 1) * error).mean(-1) * seen * past.scale
    size = ((y * past.scale + past.shift).abs() * seen).sum()
    return 2 * cell.sum() / size.clamp_min(1e-30)
