"""Whether a series is like those that networks learned from: a conformal test of its features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised.curriculum import Curriculum
from seqlatent.amortised.forecast import forecast
from seqlatent.amortised.network import Network
from seqlatent.amortised.past import Seasons
from seqlatent.amortised.rehearsal import Rehearsal
from seqlatent.amortised.weights import load_networks

__all__ = ["TYPICAL_ROWS", "Typicality", "shipped_typicality"]

LENGTHS = (12, 18, 27, 40, 60, 90, 135, 200)
"""Last rows that are looked at: of a series as many as it has."""

TYPICAL_ROWS = LENGTHS[-1]
"""Most rows that are looked at."""

_NEIGHBOURS = 5
_RIDGE = 0.1  # of the covariance of features, some of which hardly vary beside the others
_FARTHEST = 12.0  # usual deviations of a feature that count as any beyond them
_MAPPED = 90  # last values that are compared two by two
_SOME = 256  # series at a time


@dataclass(frozen=True)
class _Reference:
    """Features of drawn series of one length.

    Args:
        center: Middle of each feature ``(F,)``.
        scale: Usual deviation of each ``(F,)``.
        turn: What makes scaled features uncorrelated ``(F, F)``.
        places: Features of most of the series, scaled and turned ``(K, F)``.
        distances: How far each of the others lies from these, ascending ``(C,)``.
    """

    center: Tensor
    scale: Tensor
    turn: Tensor
    places: Tensor
    distances: Tensor

    @classmethod
    def of(cls, features: Float[Tensor, "N F"]) -> "_Reference":
        most, others = features.tensor_split([3 * len(features) // 5])
        low, center, high = torch.quantile(most, most.new_tensor([0.05, 0.5, 0.95]), dim=0)
        scale = ((high - low) / 3.3).clamp_min(1e-2)
        identity, nothing = torch.eye(len(center)), most.new_zeros(0)
        scaled = cls(center, scale, identity, nothing, nothing).placed(most)
        turn = torch.linalg.cholesky(torch.linalg.inv(torch.cov(scaled.mT) + _RIDGE * identity))
        found = cls(center, scale, turn, scaled @ turn, nothing)
        return replace(found, distances=found.distance(others).sort().values)

    def placed(self, features: Tensor) -> Tensor:
        """Features scaled and turned."""
        scaled = ((features - self.center) / self.scale).clamp(-_FARTHEST, _FARTHEST)
        return scaled @ self.turn

    def distance(self, features: Tensor) -> Tensor:
        """Mean distance from the nearest drawn series."""
        far = torch.cdist(self.placed(features), self.places)
        return far.topk(min(_NEIGHBOURS, far.shape[1]), largest=False).values.mean(1)

    def p_values(self, distance: Tensor) -> Tensor:
        """Part of the drawn series that are as far, with the series itself among them."""
        count = len(self.distances)
        nearer = torch.searchsorted(self.distances, distance)
        return (1 + count - nearer) / (count + 1)


@dataclass
class Typicality:
    r"""How usual series are among those that networks learned from.

    A series is described by what does not change with its unit: where the last values lie under
    the forecast of those before, and the shape of the past itself (ties, jumps, tails, smoothness,
    periods that were not announced, the order of neighbours, how well a value says the next).
    Its distance from the nearest of most of the drawn series is compared with such distances of the
    others. A fresh draw is as likely to have any rank, so that the p-value

    .. math:: p = \frac{1 + \#\{c : d_c \ge d\}}{C + 1}

    is below :math:`\alpha` for a part of :math:`\alpha` of them, whatever features and networks.

    Args:
        networks: Networks whose forecasts are looked at.
        drawn: Series that they learned from.

    References:
        Algorithmic Learning in a Random World (Vovk, Gammerman & Shafer, 2005), of conformal tests;
        Algorithms for mining distance-based outliers (Knorr & Ng, 1998).
    """

    networks: Sequence[Network]
    drawn: Rehearsal
    _references: dict[int, _Reference] = field(default_factory=dict, repr=False)

    def test(
        self, y: Float[Tensor, "B T"], observed: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Distances and p-values; NaN for series of too few rows to tell.

        Args:
            y: Values, of which the last column is the last row of each series.
            observed: Which are seen.
        """
        steps = torch.arange(y.shape[1], 0, -1)
        rows = torch.where(observed, steps, 0).amax(1)  # from the first value to the end
        rows = torch.where(observed.sum(1) >= 0.5 * rows, rows, 0)  # mostly holes: not told
        distance, p = (torch.full((len(y),), math.nan) for _ in range(2))
        size = torch.searchsorted(torch.tensor(LENGTHS), rows, right=True) - 1
        for k in size.unique().tolist():
            if k < 0:
                continue
            one = (size == k).nonzero()[:, 0]
            reference = self.reference(LENGTHS[k])
            last = slice(y.shape[1] - LENGTHS[k], y.shape[1])
            distance[one] = reference.distance(self.features(y[one, last], observed[one, last]))
            p[one] = reference.p_values(distance[one])
        return distance, p

    def reference(self, length: int) -> _Reference:
        """What drawn series of a length are like; made once."""
        if length not in self._references:
            y, observed = self.drawn.y[:, -length:], self.drawn.observed[:, -length:]
            able = observed.sum(1) >= 0.5 * length
            self._references[length] = _Reference.of(self.features(y[able], observed[able]))
        return self._references[length]

    def features(
        self, y: Float[Tensor, "B T"], observed: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B F"]:
        """What is looked at."""
        parts = [
            torch.cat(
                [
                    _of_forecast(self.networks, *some, self.drawn.seasons),
                    _of_past(*some, self.drawn.seasons),
                ],
                1,
            )
            for some in zip(y.split(_SOME), observed.split(_SOME), strict=True)
        ]
        return torch.cat(parts).float()


def _of_forecast(
    networks: Sequence[Network], y: Tensor, observed: Tensor, seasons: Seasons
) -> Tensor:
    """Where the last values lie under the forecast of those before them."""
    ahead = max(2, min(y.shape[1] // 5, 24))
    past, seen = y[:, :-ahead], observed[:, :-ahead]
    known = observed[:, -ahead:].to(y.dtype)
    found = forecast(networks, past, seen, seasons, torch.arange(1, ahead + 1)).marginals
    assert found.whole is not None
    half = torch.where(found.whole, 0.5, 0.0)
    low, high = found.scores(y[:, -ahead:] - half), found.scores(y[:, -ahead:] + half, last=True)
    x = ((low.clamp(-30, 30) + high.clamp(-30, 30)) / 2) * known
    count = known.sum(1).clamp_min(1)
    mean, square = x.sum(1) / count, x.square().sum(1) / count
    pairs = (known[:, 1:] * known[:, :-1]).sum(1).clamp_min(1)
    follow = (x[:, 1:] * x[:, :-1]).sum(1) / pairs / (square + 0.1)
    return torch.stack(
        [torch.asinh(mean), (square + 0.05).log(), torch.asinh(x.abs().amax(1)), follow], 1
    )


def _of_past(y: Tensor, observed: Tensor, seasons: Seasons) -> Tensor:
    """Shape of the series itself, in units of its own changes."""
    o = observed.to(y.dtype)
    count = o.sum(1, keepdim=True).clamp_min(1)
    z = (y - (y * o).sum(1, keepdim=True) / count) * o
    both = o[:, 1:] * o[:, :-1]
    pairs = both.sum(1, keepdim=True).clamp_min(1)
    d = (z[:, 1:] - z[:, :-1]) * both
    unit = d.abs().sum(1, keepdim=True) / pairs
    tiny = 1e-5 * (y * o).abs().amax(1, keepdim=True)
    unit = torch.where(unit > tiny, unit, 1.0)
    z, d, tiny = z / unit, d / unit, tiny / unit
    square = (d.square().sum(1) / pairs[:, 0]).clamp_min(1e-3)
    variance = (z.square().sum(1) / count[:, 0]).clamp_min(1e-3)
    skew = (z**3).sum(1) / count[:, 0] / variance**1.5
    kurtosis = (z**4).sum(1) / count[:, 0] / variance**2
    still = ((d.abs() <= tiny) * both).sum(1) / pairs[:, 0]
    simple = [
        _distinct(z, observed, tiny).log(),
        still,
        torch.log1p(d.abs().amax(1)),
        square.log(),
        (d**3).sum(1) / pairs[:, 0] / square**1.5,
        0.5 * variance.log(),
        skew,
        (skew.square() + 1) / kurtosis.clamp_min(1e-3),  # Sarle's: large with two far levels
    ]
    return torch.cat(
        [
            torch.stack(simple, 1),
            _repeats(d, both, seasons),
            _patterns(z, observed),
            _map(z, d, observed, seasons),
            _levels(z, observed, tiny),
        ],
        1,
    ).nan_to_num()


def _distinct(z: Tensor, observed: Tensor, tiny: Tensor) -> Tensor:
    """Part of the values that differ from all others that are less."""
    held = torch.where(observed, z, torch.where(observed, z, -torch.inf).amax(1, keepdim=True))
    more = (held.sort(1).values.diff(dim=1) > tiny).sum(1) + 1
    return more / observed.sum(1).clamp_min(1)


def _repeats(d: Tensor, both: Tensor, seasons: Seasons) -> Tensor:
    """Autocorrelations of changes: at one and two steps, at the season, at the best other lag."""
    n = d.shape[1]
    size = 2 * n
    power = torch.fft.rfft(d, size).abs().square()
    pairs = torch.fft.irfft(torch.fft.rfft(both, size).abs().square(), size)[:, :n].round()
    found = torch.fft.irfft(power, size)[:, :n] / pairs.clamp_min(1)
    found = found / (
        d.square().sum(1, keepdim=True) / both.sum(1, keepdim=True).clamp_min(1)
    ).clamp_min(1e-3)
    lag = torch.arange(n)
    m = seasons.short
    other = (lag >= 3) & (lag <= max(n // 2, 4))
    season = found[:, m] if 1 < m < n // 2 else torch.zeros_like(found[:, 0])
    if m > 1:
        other &= lag % m != 0
    best = torch.where(other, found, -1.0).amax(1)
    return torch.stack([found[:, 1], found[:, 2], season, best], 1)


def _patterns(z: Tensor, observed: Tensor) -> Tensor:
    """How evenly the six orders of three neighbours come, and how rare the rarest is."""
    a, b, c = z[:, :-2], z[:, 1:-1], z[:, 2:]
    all_seen = observed[:, :-2] & observed[:, 1:-1] & observed[:, 2:]
    code = (a < b).long() + 2 * (b < c).long() + 4 * (a < c).long()
    count = torch.zeros(len(z), 8).scatter_add_(1, code, all_seen.float())
    total = count.sum(1, keepdim=True).clamp_min(1)
    share = count / total
    entropy = -(share * share.clamp_min(1e-9).log()).sum(1)
    # up-up, up-down (higher and lower), down-up (higher and lower), down-down
    orders = torch.stack([count[:, k] for k in (7, 5, 1, 6, 2, 0)], 1) / total
    return torch.stack([entropy, torch.log(orders[:, 0] + 0.03), torch.log(orders[:, 5] + 0.03)], 1)


def _map(z: Tensor, d: Tensor, observed: Tensor, seasons: Seasons) -> Tensor:
    """How much better the nearest values of the past say the next ones than the last value does.

    By one value, and by two; where there is a season, than its last value if that is better.
    """
    z, d, observed = z[:, -_MAPPED:], d[:, 1 - _MAPPED :], observed[:, -_MAPPED:]
    naive = _typical((d[:, 1:]).abs(), observed[:, 1:-1] & observed[:, 2:])
    m = seasons.short
    if 1 < m < z.shape[1] // 2:
        both = observed[:, m:] & observed[:, :-m]
        season = _typical((z[:, m:] - z[:, :-m]).abs(), both)
        naive = torch.where(both.any(1), torch.minimum(naive, season), naive)
    before, now, then = z[:, :-2], z[:, 1:-1], z[:, 2:]
    seen = observed[:, :-2] & observed[:, 1:-1] & observed[:, 2:]
    able = seen[:, :, None] & seen[:, None] & ~torch.eye(now.shape[1], dtype=torch.bool)
    apart = (now[:, :, None] - now[:, None]).abs()
    found = []
    for distance in (apart, apart + (before[:, :, None] - before[:, None]).abs()):
        nearest = torch.where(able, distance, torch.inf).argmin(2)
        error = _typical((then - torch.gather(then, 1, nearest)).abs(), seen)
        found.append(torch.log((error + 0.01) / (naive + 0.01)))
    return torch.stack(found, 1)


def _typical(x: Tensor, seen: Tensor) -> Tensor:
    """A mean in which few large values count little."""
    return ((x.sqrt() * seen).sum(1) / seen.sum(1).clamp_min(1)).square()


def _levels(z: Tensor, observed: Tensor, tiny: Tensor) -> Tensor:
    """Whether values lie on two sides of a gap, and how often they cross it.

    Few different values have gaps all over: what is counted is what else has one.
    """
    top = torch.where(observed, z, -torch.inf).amax(1, keepdim=True)
    held, _ = torch.where(observed, z, top).sort(1)
    gaps = held.diff(dim=1)
    gap, place = gaps.max(1)
    middle = torch.gather(held, 1, place[:, None]) + gap[:, None] / 2
    side = torch.where(observed, z, top) > middle
    crossings = ((side[:, 1:] != side[:, :-1]) & observed[:, 1:] & observed[:, :-1]).sum(1)
    wide = gap / (held[:, -1] - held[:, 0]).clamp_min(1e-6)
    often = (crossings - 2).clamp_min(0).float().log1p()
    different = _distinct(z, observed, tiny)
    return torch.stack([wide * often * different, often * (wide > 0.25) * different], 1)


@lru_cache(maxsize=16)
def shipped_typicality(seasons: Seasons) -> Typicality:
    """That of the networks of the package, made once for some seasons."""
    drawn = Rehearsal.of(Curriculum(), seasons, torch.Generator().manual_seed(0))
    return Typicality(load_networks(), drawn)
