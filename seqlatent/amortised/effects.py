"""Linear effects of covariates that are known ahead, learned from a panel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from seqlatent.amortised.adaptation import GAIN, block_loss, held_out
from seqlatent.amortised.curriculum import Batch
from seqlatent.amortised.forecast import Forecast, forecast
from seqlatent.amortised.network import Network
from seqlatent.amortised.past import Seasons, past_of
from seqlatent.amortised.quantiles import QuantileFunction

__all__ = ["Effects", "effects_of", "with_added", "with_effects", "without_effects"]

_ROUNDS = 4  # times that outliers and dependence are judged by what the last effects leave
_STEPS = 40  # of the fixed point of variances between series
_FAR = 3.0  # residuals beyond it are cut, in standard deviations
_MANY = 4.5  # sizes beyond it are cut, in median sizes, which is as far
_OVERLAP = 1.25  # variance of an effect to that if changes were independent: values are in two each
_LEAST = 1e-3  # least noise, in units of the usual change
_USUAL = 0.3  # deviation between series that is expected, as a part of the mean effect
_NONE = 1e-12  # a variance of nothing
_ENOUGH = 2**21  # numbers of covariates that are enough to learn from
_CELLS = 2**18  # numbers of covariates that are computed with at once, as a cache holds them


@dataclass(frozen=True)
class Effects:
    r"""Effects of covariates on a panel.

    .. math:: y_{it} = f_{it} + s_i \beta_i^T (u_{it} - \bar u) / d, \quad
        \beta_i \sim \mathcal{N}(\mu, \mathrm{diag}(\tau^2))

    with the part f that a network forecasts, the usual change :math:`s_i` of a series, and the
    usual changes d of covariates.

    Attributes:
        shared: Means :math:`\mu` over series ``(U,)``.
        between: Variances :math:`\tau^2` between series ``(U,)``.
        size: Usual changes d ``(U,)``.
        centre: Means of the covariates ``(U,)``.
        relative: Usual change of a series to the mean size of its values, which stands for that of
            a series that is too short to have changed ``()``.
        lag: Steps over which changes are.
    """

    shared: Float[Tensor, " U"]
    between: Float[Tensor, " U"]
    size: Float[Tensor, " U"]
    centre: Float[Tensor, " U"]
    relative: Float[Tensor, ""]
    lag: int

    def of(
        self,
        y: Float[Tensor, "B T"],
        observed: Bool[Tensor, "B T"],
        u: Shaped[Tensor, "B T U"],
    ) -> Float[Tensor, "B U"]:
        """Effects on each series, in its units: those of all, moved by what it says itself."""
        some = max(1, _CELLS // max(u[0].numel(), 1)) if len(u) else 1
        if len(y) > some:
            parts = zip(y.split(some), observed.split(some), u.split(some), strict=True)
            return torch.cat([self.of(*part) for part in parts])
        changes = _Changes.of(y, observed, u, self.lag, self.size)
        own = _own(*changes.evidence(None), self.shared, self.between)
        for _ in range(_ROUNDS - 1):
            own = _own(*changes.evidence(own), self.shared, self.between)
        instead = self.relative.to(y.dtype) * _mean_size(y, observed)
        return own * torch.where(changes.compared, changes.unit, instead) / self.size

    def added(
        self, effects: Float[Tensor, "B U"], u: Shaped[Tensor, "B T U"]
    ) -> Float[Tensor, "B T"]:
        """What covariates add to each value."""
        return ((u.to(effects.dtype) - self.centre) @ effects[..., None])[..., 0]


def effects_of(
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    u: Shaped[Tensor, "B T U"],
    seasons: Seasons,
) -> Effects:
    """Learns effects from changes from one season to the next, or from one step to the next.

    Effects that are no larger than chance makes them are drawn to nothing, and those of each series
    to those of all by as much as series are alike.

    Args:
        y: Values.
        observed: Which are seen; neither values nor covariates of others are read.
        u: Covariates, finite where values are seen.
        seasons: Season lengths.

    Example:
        >>> from seqlatent.amortised import Seasons, effects_of
        >>> y = torch.arange(40.0)[None] % 4
        >>> u = (torch.arange(40) % 9 == 0).float()[None, :, None]
        >>> observed = torch.ones_like(y, dtype=torch.bool)
        >>> effects = effects_of(y + 3 * u[..., 0], observed, u, Seasons(4))
        >>> effects.of(y + 3 * u[..., 0], observed, u).round(decimals=2)
        tensor([[3.]])

    References:
        Bayesian Data Analysis (Gelman et al., 2013), chapter 5, of effects of each that are drawn
        to those of all; Bayesian interpolation (MacKay, 1992), of variances by a fixed point;
        Robust Statistics (Huber, 1981), section 7.8, of residuals that are cut;
        Prais and Winsten (1954), of errors that depend on the last one.
    """
    some = max(1, _ENOUGH // max(u[:1].numel(), 1))
    if len(y) > some:  # of many series, some in equal distances
        chosen = torch.linspace(0, len(y) - 1, some).long()
        y, observed, u = y[chosen], observed[chosen], u[chosen]
    u = torch.where(observed[..., None], u.to(y.dtype), 0.0)
    centre = u.sum((0, 1)) / observed.sum().clamp_min(1)
    lag = seasons.short if seasons.short < y.shape[1] // 2 else 1
    changes = _Changes.of(y, observed, u, lag, torch.ones_like(centre))
    size = (changes.moved.square().sum((0, 1)) / changes.seen.sum().clamp_min(1)).sqrt()
    size = torch.where(size > 0, size, 1.0)
    changes = changes._replace(moved=changes.moved / size)
    own, shared, between = None, torch.zeros_like(size), torch.ones_like(size)
    for _ in range(_ROUNDS):
        information, right = changes.evidence(own)
        shared, between = _hierarchy(information, right)
        own = _own(information, right, shared, between)
    moving = changes.unit > 0
    relative = changes.unit[moving] / _mean_size(y, observed)[moving]
    relative = relative.median() if len(relative) else shared.new_zeros(())
    return Effects(shared, between, size, centre, relative, lag)


def with_effects(
    networks: Sequence[Network],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    u: Shaped[Tensor, "B T U"],
    seasons: Seasons,
    horizon: int,
    *,
    blocks: int = 2,
) -> Effects | None:
    """Effects learned from all rows, or None where held-out blocks are forecast no better by them.

    Args:
        networks: The networks that forecast what covariates do not say.
        y: Values, each series at the end of its row.
        observed: Which are seen.
        u: Covariates, finite where values are seen.
        seasons: Season lengths.
        horizon: Leads that will be asked for.
        blocks: Most blocks of a horizon each that are held out.
    """
    past, plain = held_out(y, observed, seasons, horizon, blocks)
    if not plain:
        return None
    rest = _without(y, observed, past.observed, u, seasons)
    _, without = held_out(rest, observed, seasons, horizon, blocks)
    before = after = 0.0
    for block, other in zip(plain, without, strict=True):
        before += block_loss(_forecast(networks, block).marginals, block)
        found = with_added(
            _forecast(networks, other), block.future - other.future, block.y, block.observed
        )
        after += block_loss(found.marginals, block)
    if (before - after) / len(plain) < GAIN:
        return None
    return effects_of(y, observed, u, seasons)


def without_effects(
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    u: Shaped[Tensor, "B T U"],
    seasons: Seasons,
    horizon: int,
    *,
    blocks: int = 2,
) -> Float[Tensor, "B T"]:
    """What effects learned before the blocks that are held out leave of all values.

    So the blocks are as new to effects as what is to be forecast, and their errors as large.

    Args:
        y: Values, each series at the end of its row.
        observed: Which are seen; what is left of others is zero.
        u: Covariates, finite where values are seen.
        seasons: Season lengths.
        horizon: Leads that will be asked for.
        blocks: Most blocks of a horizon each that are held out.
    """
    past, _ = held_out(y, observed, seasons, horizon, blocks)
    return _without(y, observed, past.observed, u, seasons)


def _without(y: Tensor, observed: Tensor, told: Tensor, u: Tensor, seasons: Seasons) -> Tensor:
    effects = effects_of(y, told, u, seasons)
    return torch.where(observed, y - effects.added(effects.of(y, told, u), u), 0.0)


def with_added(
    rest: Forecast,
    added: Float[Tensor, "B H"],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
) -> Forecast:
    """Forecast of series by that of what effects leave of them.

    Args:
        rest: Forecast of what is left.
        added: What covariates add to each lead.
        y: Past of the series, which says whether they lie below zero and are whole numbers.
        observed: Which are seen.
    """
    past = past_of(y, observed, Seasons())
    knots = rest.marginals.floored
    floor = torch.where(past.lower, 0.0, -torch.inf).to(knots)
    return rest._replace(marginals=QuantileFunction(knots + added[..., None], floor, past.whole))


def _forecast(networks: Sequence[Network], block: Batch) -> Forecast:
    return forecast(networks, block.y, block.observed, seasons=block.seasons, leads=block.leads)


class _Changes(NamedTuple):
    """Changes of a panel, each series in units of its usual one.

    Attributes:
        values: Changes of values ``(B, T)``, zero where there are none.
        moved: Changes of covariates ``(B, T, U)``, zero where there are none of values.
        seen: Where there are any ``(B, T)``.
        unit: Usual change ``(B, 1)``, zero where nothing changes.
        compared: Whether there are two values between which there could be a change ``(B, 1)``.
    """

    values: Tensor
    moved: Tensor
    seen: Tensor
    unit: Tensor
    compared: Tensor

    @classmethod
    def of(cls, y: Tensor, observed: Tensor, u: Tensor, lag: int, size: Tensor) -> "_Changes":
        y = torch.where(observed, y, 0.0)
        u = torch.where(observed[..., None], u.to(y.dtype), 0.0)
        lag = min(lag, y.shape[1] - 1)
        late, early = slice(lag, None), slice(0, y.shape[1] - lag)
        # a single row has changed from itself by nothing, which is not seen
        seen = observed[:, late] & observed[:, early] & (lag > 0)
        values = (y[:, late] - y[:, early]) * seen
        moved = (u[:, late] - u[:, early]) * seen[..., None] / size
        unit = _usual(values, seen)
        values = values / torch.where(unit > 0, unit, 1.0)
        return cls(values, moved, seen & (unit > 0), unit, seen.any(1, keepdim=True))

    def evidence(self, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """What each series says of its effects ``(B, U, U)``, and that times them ``(B, U)``.

        Args:
            own: Effects by whose residuals outliers and dependence are judged ``(B, U)``. Without
                any, nothing is an outlier, for a strong effect would be one.
        """
        fitted = 0.0 if own is None else (self.moved @ own[..., None])[..., 0]
        left = (self.values - fitted) * self.seen
        follows, pair = self._dependence(left)
        scale = torch.where(pair, 1.0, (1 - follows**2).sqrt()) * self.seen
        share = follows * pair

        def alone(x: Tensor) -> Tensor:
            """What the last change does not say; all of a change without one, as wide."""
            last = torch.zeros_like(x)
            last[:, 1:] = x[:, :-1]
            return x * scale[..., None] - last * share[..., None]

        left, moved = alone(left[..., None])[..., 0], alone(self.moved)
        noise = _noise(left, self.seen)
        if own is not None:
            left = left.clamp(-_FAR * noise, _FAR * noise)
        weight = 1 / (_OVERLAP * noise**2)
        information = moved.transpose(1, 2) @ moved * weight[..., None]
        right = (moved * left[..., None]).sum(1) * weight
        if own is not None:
            right = right + (information @ own[..., None])[..., 0]
        return information, right

    def _dependence(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """Correlation of residuals with the last ones ``(B, 1)``, and where there are such."""
        noise = _noise(left, self.seen)
        left = left.clamp(-_FAR * noise, _FAR * noise)
        pair = torch.zeros_like(self.seen)
        pair[:, 1:] = self.seen[:, 1:] & self.seen[:, :-1]
        one, two = left[:, :-1] * pair[:, 1:], left[:, 1:] * pair[:, 1:]
        size = (one**2 + two**2).sum(1, keepdim=True) / 2
        # as if ten pairs more had none; all but a random walk at most
        return ((one * two).sum(1, keepdim=True) / (size + 10 * noise**2)).clamp(-0.5, 0.98), pair


def _mean_size(y: Tensor, observed: Tensor) -> Tensor:
    size = torch.where(observed, y, 0.0).abs().sum(1, keepdim=True)
    return size / observed.sum(1, keepdim=True).clamp_min(1)


def _usual(x: Tensor, seen: Tensor) -> Tensor:
    """Mean size of what is not far from the median size ``(B, 1)``; zero where nothing is seen.

    A mean of all would grow with the effects of days that are few; a median alone is not exact
    enough to compare series by.
    """
    size = torch.where(seen, x.abs(), torch.nan)
    middle = size.nanmedian(1, keepdim=True).values
    size = torch.where(middle > 0, torch.minimum(size, _MANY * middle), size)
    return size.nanmean(1, keepdim=True).nan_to_num(0.0)


def _noise(x: Tensor, seen: Tensor) -> Tensor:
    """Standard deviation of most, as if they were normal ``(B, 1)``."""
    return (math.sqrt(math.pi / 2) * _usual(x, seen)).clamp_min(_LEAST)


def _hierarchy(information: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of effects over series ``(U,)``, of the greatest evidence."""
    series, number = right.shape
    eye = torch.eye(number, dtype=right.dtype, device=right.device)
    shared, between = right.new_zeros(number), right.new_ones(number)
    prior = right.new_full((number,), 1e4)  # variance of the means, by the same fixed point
    for _ in range(_STEPS):
        weight, projected = _said_of_shared(information, right, between)
        inner = eye + prior[:, None] * weight.sum(0)
        covariance = torch.linalg.solve(inner, torch.diag(prior))
        shared = covariance @ projected.sum(0)
        known = (1 - covariance.diagonal() / prior).clamp_min(1e-6)
        prior = (shared**2 / known).clamp_min(_NONE)
        away = between * (projected - weight @ shared)
        known = between * weight.diagonal(dim1=1, dim2=2)
        # few series say little of how much they differ: one more is as far away as is usual
        one, freedom = known.mean(0), known.sum(0) * (1 - 1 / series)
        far = away.square().sum(0) + one * (_USUAL * shared) ** 2
        between = (far / (freedom + one).clamp_min(_NONE)).clamp(_NONE, 1e6)
    return shared, between


def _said_of_shared(information: Tensor, right: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    r"""What each series says of the means, :math:`(A^{-1} + T)^{-1}`, and that times them."""
    inner = torch.eye(len(between), dtype=right.dtype, device=right.device) + information * between
    both = torch.linalg.solve(inner, torch.cat([information, right[..., None]], -1))
    return both[..., :-1], both[..., -1]


def _own(information: Tensor, right: Tensor, shared: Tensor, between: Tensor) -> Tensor:
    """Means of the effects of each series ``(B, U)``."""
    weight, projected = _said_of_shared(information, right, between)
    return shared + between * (projected - weight @ shared)
