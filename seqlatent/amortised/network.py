"""The network: from the past of a series to quantiles and dependence of any leads."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqlatent.amortised.filtering import (
    FILTERED_FORECASTS,
    FILTERED_LEAD,
    FILTERED_SERIES,
    filtered,
)
from seqlatent.amortised.past import Past, Seasons
from seqlatent.amortised.quantiles import LEVELS

__all__ = [
    "MIDDLE",
    "SERIES",
    "Block",
    "Folded",
    "Network",
    "Raw",
    "padded",
    "series_features",
]

RECENT = 48  # last values that are read one by one
BLOCKS = 10  # last seasons whose means are read
SPANS = 10  # means over the last 1, 2, 4, ... values
PHASES = 8  # last values of the same phase as a lead
LONG = 3  # last values of the same phase of the longer season
NAIVES = 8 + FILTERED_FORECASTS  # forecasts that the centre is mixed of
SERIES = 3 * RECENT + 3 * BLOCKS + 2 * SPANS + 12  # numbers that are read of a series
MIDDLE = len(LEVELS) // 2
_MOST = 49.0  # bound of the squared size of loadings


class Raw(NamedTuple):
    """What the network says of leads, in the units of the scaled past.

    Attributes:
        knots: Quantiles at :data:`LEVELS` ``(B, H, Q)``, which do not fall.
        loadings: Of the copula between leads ``(B, H, R)``.
    """

    knots: Float[Tensor, "B H Q"]
    loadings: Float[Tensor, "B H R"]


class Block(nn.Module):
    """A residual block that begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class Network(nn.Module):
    r"""Quantiles of each lead as offsets from a learned mix of naive forecasts.

    A trunk reads the series as a whole: its last values, the means of its last seasons and of ever
    longer spans, its roughness, its place beside zero, its season lengths. A head reads that and
    what the past says of one lead: the last values of its phase. So a lead costs little, and any
    may be asked for.

    .. math:: q_j = \sum_k w_k f_k + c + e^s \sum_{i \le j} \mathrm{softplus}(r_i)

    Args:
        width: Width of the trunk.
        depth: Residual blocks of the trunk.
        head_width: Width of the head.
        head_depth: Residual blocks of the head.
        factors: Factors of the copula.

    Example:
        >>> from seqlatent.amortised import Seasons, past_of
        >>> y = torch.arange(40.0)[None] % 12
        >>> past = past_of(y, torch.ones_like(y, dtype=torch.bool), Seasons(12))
        >>> Network(width=16, head_width=8)(past, torch.arange(1, 7)).knots.shape
        torch.Size([1, 6, 15])

    References:
        ForecastPFN (Dooley et al., 2023), of networks that are trained on drawn series alone;
        N-BEATS (Oreshkin et al., 2020), of forecasts by residual blocks.
    """

    def __init__(
        self,
        *,
        width: int = 320,
        depth: int = 4,
        head_width: int = 96,
        head_depth: int = 2,
        factors: int = 8,
    ) -> None:
        super().__init__()
        self.config = {
            "width": width,
            "depth": depth,
            "head_width": head_width,
            "head_depth": head_depth,
            "factors": factors,
        }
        self.read = nn.Linear(SERIES + FILTERED_SERIES, width)
        self.trunk = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.state = nn.Linear(width, head_width)
        self.lead = nn.Linear(4 * PHASES + 3 * LONG + 10 + FILTERED_LEAD, head_width)
        self.head = nn.Sequential(*[Block(head_width) for _ in range(head_depth)])
        self.out = nn.Linear(head_width, NAIVES + len(LEVELS) + 1)
        self.copula = nn.Linear(head_width, factors)
        for last in (self.out, self.copula):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        with torch.no_grad():
            self.copula.bias[0] = 0.5

    def forward(self, past: Past, leads: Int[Tensor, " H"]) -> Raw:
        """Distribution of some leads, of which the first is 1."""
        long = padded(past)
        blocks = Folded.of(long)
        bank = filtered(long, leads)
        x = self.trunk(self.read(torch.cat([series_features(long, blocks), bank.series], -1)))
        lead, naive = _leads(long, blocks, leads)
        lead, naive = torch.cat([lead, bank.leads], -1), torch.cat([naive, bank.naive], -1)
        h = self.head(self.state(F.silu(x))[:, None] + self.lead(lead))
        h = F.silu(h)
        raw = self.out(h)
        mix, centre = torch.softmax(raw[..., :NAIVES], -1), raw[..., NAIVES : NAIVES + 1]
        middle = (mix * naive).sum(-1, keepdim=True) + centre
        spread = F.softplus(raw[..., NAIVES + 1 : -1]) * torch.exp(raw[..., -1:].clamp(-7, 7))
        up = torch.cumsum(spread[..., :MIDDLE], -1)
        down = torch.cumsum(spread[..., MIDDLE:], -1).flip(-1)
        loadings = self.copula(h)
        size = loadings.square().sum(-1, keepdim=True)
        # no lead is all but known from the others: a fiftieth of its variance is its own
        loadings = loadings * torch.rsqrt(1 + size / _MOST)
        return Raw(torch.cat([middle - down, middle, middle + up], -1), loadings)


class Folded(NamedTuple):
    """A past folded by its season, latest first."""

    width: int
    mean: Tensor  # (B, BLOCKS)
    share: Tensor  # of the steps of a season that are seen (B, BLOCKS)
    deviation: Tensor  # of each value from the mean of its season (B, T)

    @classmethod
    def of(cls, past: Past) -> "Folded":
        z, o = past.z, past.observed.to(past.z.dtype)
        n, steps = z.shape
        width = _width(past.seasons)
        blocks = min(BLOCKS, steps // width)
        kept = slice(steps - blocks * width, steps)
        count = o[:, kept].view(n, blocks, width).sum(-1)
        mean = (z * o)[:, kept].view(n, blocks, width).sum(-1) / count.clamp_min(1)
        mean, share = (F.pad(v.flip(1), (0, BLOCKS - blocks)) for v in (mean, count / width))
        nth = (torch.arange(steps - 1, -1, -1, device=z.device) // width).clamp_max(blocks - 1)
        return cls(width, mean, share, (z - mean[:, nth]) * o)


def series_features(past: Past, folded: "Folded") -> Tensor:
    """What a trunk reads of series ``(B, W)``."""
    z, o = past.z, past.observed.to(past.z.dtype)
    # where zero lies tells nothing of a series that goes below it
    origin = torch.where(past.lower, past.origin, 0.0)
    steps, m = z.shape[1], past.seasons.short
    squash = torch.asinh
    recent, seen = z[:, -RECENT:], o[:, -RECENT:]
    before = slice(steps - RECENT - m, steps - m)
    season = (recent - z[:, before]) * seen * o[:, before]
    spans = torch.tensor([min(2**k, steps) - 1 for k in range(SPANS)])
    sums, counts = (torch.cumsum(v.flip(1), 1)[:, spans] for v in (z * o, o))
    both = seen[:, 1:] * seen[:, :-1]
    moves = (recent[:, 1:] - recent[:, :-1]).abs() * both
    total = o.sum(1, keepdim=True).clamp_min(1)
    level = z + origin
    near = 1e-6 * (1 + origin.abs())
    zeros = ((level.abs() < near) * o).sum(1, keepdim=True) / total * past.lower
    least = torch.where(past.observed, level, torch.inf).amin(1, keepdim=True)
    least = torch.where(past.lower, least, 0.0)
    rough = folded.deviation[:, -3 * folded.width :].abs().sum(1, keepdim=True) / o[
        :, -3 * folded.width :
    ].sum(1, keepdim=True).clamp_min(1)
    scalars = [
        total.log() / 4,
        squash(origin.clamp(-1e3, 1e3)),
        squash(1 / (origin.abs() + 0.01)),
        torch.full_like(total, math.log(m) / 3),
        torch.full_like(total, math.log(max(past.seasons.long, 1)) / 5),
        squash(rough),
        squash(moves.sum(1, keepdim=True) / both.sum(1, keepdim=True).clamp_min(1)),
        zeros,
        (~past.lower).to(z.dtype),
        squash(least.clamp(-1e3, 1e3)),
        squash(moves.amax(1, keepdim=True)),
        past.whole.to(z.dtype),
    ]
    mean, share = folded.mean, folded.share
    features = [
        squash(recent),
        seen,
        squash(season),
        squash(mean),
        share,
        (share > 0) * squash(mean - mean[:, :1]),
        squash(sums / counts.clamp_min(1)),
        counts / z.new_tensor([2.0**k for k in range(SPANS)]),
        *scalars,
    ]
    return torch.cat(features, -1)


def _width(seasons: Seasons) -> int:
    """Steps of a block whose mean is read."""
    return seasons.short if seasons.short > 1 else 4


def padded(past: Past) -> Past:
    """A past that is long enough to be read, with unseen steps before it."""
    m = past.seasons.short
    width = _width(past.seasons)
    steps = max(past.z.shape[1], RECENT + m, 2 * width)
    if steps < BLOCKS * width:  # the oldest season is a block of its own, however little is seen
        steps = -(-steps // width) * width
    lack = steps - past.z.shape[1]
    if lack <= 0:
        return past
    return past._replace(z=F.pad(past.z, (lack, 0)), observed=F.pad(past.observed, (lack, 0)))


def _leads(past: Past, folded: Folded, leads: Tensor) -> tuple[Tensor, Tensor]:
    """What the head reads of each lead ``(B, H, W)``, and naive forecasts ``(B, H, K)``."""
    z, o = past.z, past.observed.to(past.z.dtype)
    n, steps = z.shape
    m, long = past.seasons
    h = len(leads)
    squash = torch.asinh
    seasons = -(-leads // m)
    first = steps - 1 + leads - m * seasons  # last step of the same phase
    index = first[:, None] - m * torch.arange(PHASES, device=z.device)
    value, seen = _at(z, o, index)
    deviation, _ = _at(folded.deviation, o, index)
    beside = _at(folded.deviation, o, first[:, None] + leads.new_tensor([-2, -1]))[0]
    if m <= 4:
        beside = torch.zeros_like(beside)
    far, far_seen, far_deviation = _long_season(z, o, folded.deviation, long, leads)
    lead = leads.to(z.dtype)
    alone = [
        (lead / m).clamp_max(6).log1p(),
        lead.log() / 3,
        1 / lead,
        torch.full_like(lead, math.log(m) / 3),
        ((leads - 1) % m / m).to(z.dtype),
        (leads > m).to(z.dtype),
    ]
    features = torch.cat(
        [
            squash(value),
            seen,
            squash(deviation),
            squash(deviation - deviation.mean(-1, keepdim=True)),
            squash(beside),
            squash(far),
            far_seen,
            squash(far_deviation),
            torch.stack(alone, -1).expand(n, h, len(alone)),
            seen.mean(-1, keepdim=True),
            squash(value[..., :1] - z[:, -1:, None]),
        ],
        -1,
    )
    now, share = folded.mean[:, :1], folded.share
    drift = torch.where(share[:, 1:2] > 0, now - folded.mean[:, 1:2], 0.0) / folded.width
    last, same = z[:, -1:].expand(n, h), value[..., 0]
    known = seen[..., :4].sum(-1).clamp_min(1)
    usual = now + (deviation[..., :4] * seen[..., :4]).sum(-1) / known
    naive = [
        same,
        last,
        now.expand(n, h),
        last + drift * lead,
        same + drift * (m * seasons if m > 1 else lead),
        usual,
        torch.where(far_seen[..., 0] > 0, far[..., 0], same),
        _multiplied(past, value, deviation, seen, now, usual),
    ]
    return features, torch.stack(naive, -1)


def _long_season(
    z: Tensor, o: Tensor, deviation: Tensor, long: int, leads: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of the phase in the longer season, where they are seen, deviations ``(B, H, K)``."""
    if not long:
        nothing = z.new_zeros(len(z), len(leads), LONG)
        return nothing, nothing, nothing
    latest = z.shape[1] - 1 + leads - long * -(-leads // long)
    index = latest[:, None] - long * torch.arange(LONG, device=z.device)
    return *_at(z, o, index), _at(deviation, o, index)[0]


def _multiplied(
    past: Past, value: Tensor, deviation: Tensor, seen: Tensor, now: Tensor, usual: Tensor
) -> Tensor:
    """The last mean times the usual part of a phase in it, where all values are positive."""
    if past.seasons.short == 1:
        return usual
    origin = past.origin[..., None]
    size = value - deviation + origin  # mean of the season of each value
    # what a part has beyond one: parts themselves lose what is small beside a large origin
    more = torch.where(seen[..., :4] > 0, deviation[..., :4] / size[..., :4], 0.0)
    more = (more.sum(-1) / seen[..., :4].sum(-1).clamp_min(1)).clamp(-1, 19)
    fits = past.lower & ((size[..., :4] > 0.05) | (seen[..., :4] == 0)).all(-1)
    fits = fits & (seen[..., 0] > 0)
    return torch.where(fits, now + (now + past.origin) * more, usual)


def _at(z: Tensor, o: Tensor, index: Int[Tensor, "H K"]) -> tuple[Tensor, Tensor]:
    """Values at steps ``(B, H, K)`` and where they are seen, zero before the past."""
    inside = (index >= 0) & (index < z.shape[1])
    index = index.clamp(0, z.shape[1] - 1)
    return z[:, index] * inside, o[:, index] * inside
