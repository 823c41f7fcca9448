"""The network: a memory over innovations, and what it says of any lead from any row."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seqlatent.amortised import LEVELS
from seqlatent.recurrent.history import CANDIDATES, LEAD, ROW, Read

__all__ = ["RecurrentNetwork", "Said"]

_MIDDLE = len(LEVELS) // 2
_LARGEST = 6.0  # logarithm of a spread, in units of the scale
_MOST = 49.0  # bound of the squared size of loadings


class Said(NamedTuple):
    """What is said of leads, in units of the scale from the reference.

    Attributes:
        knots: Quantiles at :data:`~seqlatent.amortised.LEVELS` ``(N, H, Q)``, which do not fall.
        loadings: Of the copula between leads and targets ``(N, H, R)``.
    """

    knots: Float[Tensor, "N H Q"]
    loadings: Float[Tensor, "N H R"]


class RecurrentNetwork(nn.Module):
    r"""Quantiles of each lead around a learned mix of structural forecasts.

    A gated recurrent unit reads the innovations of a bank of filters, in units of their own running
    size, row by row. A head reads its state at an origin, what the filters forecast of a lead from
    there and the last values of its phase, mixes these forecasts and says how wrong the mix is.

    .. math:: q_j = \ell + \sigma \Bigl(\sum_k w_k f_k + e^s \bigl(c + \sum_{i \le j}
        \mathrm{softplus}(r_i)\bigr)\Bigr)

    Args:
        hidden: Width of the memory.
        width: Width of the head.
        blocks: Residual blocks of the head.
        factors: Factors of the copula.
        rows: Covariates of a row.
        ahead: Covariates of a lead.
        static: Static features.
        targets: Targets of a series.

    References:
        A Multi-Horizon Quantile Recurrent Forecaster (Wen et al., 2017), of training on all
        origins at once; ES-RNN (Smyl, 2020), of exponential smoothing beside a recurrent network.
    """

    def __init__(
        self,
        *,
        hidden: int = 96,
        width: int = 160,
        blocks: int = 2,
        factors: int = 6,
        rows: int = 0,
        ahead: int = 0,
        static: int = 0,
        targets: int = 1,
    ) -> None:
        super().__init__()
        self.config = {
            "hidden": hidden,
            "width": width,
            "blocks": blocks,
            "factors": factors,
            "rows": rows,
            "ahead": ahead,
            "static": static,
            "targets": targets,
        }
        self.enter = nn.Linear(ROW, hidden)
        self.memory = nn.GRU(hidden, hidden, batch_first=True)
        self.state, self.lead = nn.Linear(hidden, width), nn.Linear(LEAD, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.out = nn.Linear(width, CANDIDATES + len(LEVELS) + 1)
        self.copula = nn.Linear(width, factors)
        # what covariates do is learned from nothing
        self.row_covariates, self.lead_covariates, self.static = (
            _silent(n, size) for n, size in ((rows, hidden), (ahead, width), (static, width))
        )
        # targets begin as independent of one another
        self.between = nn.Parameter(torch.eye(targets)) if targets > 1 else None
        for last in (self.out, self.copula):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            self.copula.bias[0] = 0.5

    @property
    def own(self) -> list[nn.Parameter]:
        """Weights that a panel alone can tell of: of its covariates and targets."""
        layers = (self.row_covariates, self.lead_covariates, self.static)
        found = [weight for layer in layers for weight in layer.parameters()]
        return found if self.between is None else [*found, self.between]

    def remember(
        self,
        rows: Float[Tensor, "B T F"],
        covariates: Float[Tensor, "B T C"],
        state: Float[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B T M"]:
        """Memory after each row."""
        x = F.silu(self.enter(rows) + self.row_covariates(covariates))
        return self.memory(x, None if state is None else state[None])[0]

    def remember_all(
        self,
        rows: Float[Tensor, "B T F"],
        covariates: Float[Tensor, "B T C"],
        inside: Bool[Tensor, "B T"],
        state: Float[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B T M"]:
        """Memory after each row of series that end together, and begin when they do."""
        steps = rows.shape[1]
        if state is None:
            state = rows.new_zeros(len(rows), self.memory.hidden_size)
        start = steps - inside.sum(1)
        column = torch.arange(steps, device=rows.device)
        first = (column + start[:, None]).clamp_max(steps - 1)[..., None]
        rows, covariates = (
            x.gather(1, first.expand(-1, -1, x.shape[-1])) for x in (rows, covariates)
        )
        found = self.remember(rows, covariates, state)
        back = (column - start[:, None]).clamp_min(0)[..., None].expand(-1, -1, found.shape[-1])
        return torch.where(inside[..., None], found.gather(1, back), state[:, None])

    def forward(
        self,
        memory: Float[Tensor, "N M"],
        read: Read,
        ahead: Float[Tensor, "N H U"],
        static: Float[Tensor, "N S"],
    ) -> Said:
        """What is said of the leads of some origins, of each target by itself."""
        kind = memory.dtype
        lead = self.lead(read.features.to(kind)) + self.lead_covariates(ahead)
        x = lead + (self.state(memory) + self.static(static))[:, None]
        for block in self.blocks:
            x = block(x)
        h = F.silu(x)
        raw = self.out(h)
        mix, offset, rest, scale = torch.split(raw, [CANDIDATES, 1, len(LEVELS) - 1, 1], -1)
        scale = torch.exp(scale.clamp(-_LARGEST, _LARGEST))
        naive = read.candidates.to(kind)
        middle = (torch.softmax(mix, -1) * naive).sum(-1, keepdim=True) + offset * scale
        spread = F.softplus(rest) * scale
        up = torch.cumsum(spread[..., :_MIDDLE], -1)
        down = torch.cumsum(spread[..., _MIDDLE:], -1).flip(-1)
        loadings = self.copula(h)
        size = loadings.square().sum(-1, keepdim=True)
        loadings = loadings * torch.rsqrt(1 + size / _MOST)
        return Said(torch.cat([middle - down, middle, middle + up], -1), loadings)

    def tied(
        self, loadings: Float[Tensor, "N H R"], target: Int[Tensor, " N"]
    ) -> Float[Tensor, "N H F"]:
        r"""Loadings of targets together: a matrix between targets times what leads share.

        .. math:: v_{dh} = W_d \otimes v_h, \quad v_{dh}^\top v_{eg} = (W W^\top)_{de} v_h^\top v_g
        """
        if self.between is None:
            return loadings
        rows = torch.tril(self.between)[target]
        return (rows[:, None, :, None] * loadings[:, :, None]).flatten(2)


class _Block(nn.Module):
    """A residual step, which begins small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(F.silu(self.norm(x)))))


def _silent(inputs: int, outputs: int) -> nn.Module:
    """A linear map that begins as nothing."""
    if not inputs:
        return _Nothing()
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class _Nothing(nn.Module):
    """Nothing, of no inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], 1)
