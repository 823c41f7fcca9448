"""The Bayes answer for short structural series: dense Gaussians, parameters by weighted draws.

What networks that were trained on a prior should say, computed without them. Series are a level
with a slope, a season of 12 and noise; the sizes of their shocks have log-uniform distributions.
Given these, series are jointly normal, with a level that starts anywhere and a unit that may be
any: what is left is what no shift and no scale changes, as for a network. Sizes are drawn by
adaptive importance sampling (Cappe et al., 2004), with the weights of all rounds against the
mixture of their proposals (Owen and Zhou, 2000).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqlatent.amortised import Curriculum, Seasons
from seqlatent.prior import (
    Level,
    LogUniform,
    Missing,
    Noise,
    Observation,
    Season,
    Signed,
    Slope,
    StructuralPrior,
)

SEASON = 12
NAMES = ("level.scale", "slope.scale", "season.amplitude", "season.drift")
LIMITS = ((0.02, 2.0), (0.002, 0.2), (0.3, 6.0), (0.01, 0.5))
_FIRST = 0.3  # deviation of the first slope
_FREEDOM = 6  # of the proposals' tails


def prior() -> StructuralPrior:
    """What series are drawn from."""
    level, slope, amplitude, drift = (LogUniform(*limits) for limits in LIMITS)
    return StructuralPrior(
        components=(
            Level(scale=level, break_rate=0.0),
            Slope(
                drift=0.0, home=0.0, start=Signed(_FIRST), damping=1.0, scale=slope, break_rate=0.0
            ),
            Season(amplitude=amplitude, smooth=0.0, drift=drift, growth=0.0),
        ),
        noise=Noise(scale=1.0, heavy=0.0, volatility=0.0, outlier_rate=0.0),
        observation=Observation(weights={"real": 1.0}, offset=0.0, whole=0.0),
        missing=Missing(cells=0.0, blocks=0.0),
    )


def curriculum(batch: int = 256) -> Curriculum:
    """Batches of such series."""
    return Curriculum(prior=prior(), seasons={Seasons(SEASON): 1.0}, batch=batch)


@dataclass(frozen=True)
class Answer:
    """The posterior of one series.

    Args:
        mean: Mean of level, slope, season and signal at each step, by name ``(S,)``.
        draws: Draws of the same ``(N, S)``.
        future: Joint draws of what follows ``(N, H)``.
        centre: Mean of what follows under each of the draws of the sizes ``(N, H)``.
        scale: Its standard deviation ``(N, H)``.
        sizes: Draws of the sizes, of all parameters ``(N, 4)``.
        effective: Effective number of the weighted draws of the sizes.
    """

    mean: dict[str, Tensor]
    draws: dict[str, Tensor]
    future: Tensor
    centre: Tensor
    scale: Tensor
    sizes: Tensor
    effective: float


class Exact:
    """Posteriors of series that lie on the last steps of a grid.

    Args:
        steps: Steps of the grid, future ones included.
        draws: Draws of each answer.
        proposals: Draws of the sizes in each of three rounds.
    """

    def __init__(self, steps: int, draws: int = 200, proposals: int = 384) -> None:
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        sums = torch.tril(torch.ones(steps, steps, dtype=torch.float64))
        block, phase = (t.long() - 1) // SEASON, (t.long() - 1) % SEASON
        same = (phase[:, None] == phase).double()
        seasons = torch.minimum(block[:, None], block) + 1
        # shocks of the slope add to the level from their own step on
        twice = sums @ sums
        self.level = torch.stack([sums @ sums.T, twice @ twice.T])
        self.season = torch.stack([same - 1 / SEASON, same * seasons])
        self.first = _FIRST**2 * torch.outer(t, t)
        # the gain of the next step, beside the level
        self.cross = torch.stack([torch.zeros_like(sums), sums @ twice.T])
        self.gain = torch.stack([torch.zeros_like(sums), sums @ sums.T])
        self.first_cross = _FIRST**2 * t.expand(steps, -1)
        self.draws, self.proposals = draws, proposals
        self.low, self.high = torch.tensor(LIMITS, dtype=torch.float64).log().T

    def _covariances(self, p: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of level and season ``(P, S, S)``, in units of the noise."""
        square = (2 * p).exp()
        level, season = (x[:, index][:, :, index] for x in (self.level, self.season))
        trend = torch.einsum("pk,kij->pij", square[:, :2], level) + self.first[index][:, index]
        return trend, torch.einsum("pk,kij->pij", square[:, 2:], season)

    def _fit(self, p: Tensor, y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log posterior up to a constant, factors, the mean, the residual sum of squares."""
        trend, season = self._covariances(p, seen)
        factor = torch.linalg.cholesky(trend + season + torch.eye(len(seen), dtype=y.dtype))
        both = torch.stack([torch.ones_like(y), y], 1).expand(len(p), -1, 2)
        one, own = torch.linalg.solve_triangular(factor, both, upper=False).unbind(-1)
        weight = one.square().sum(1)
        mean = (one * own).sum(1) / weight
        rest = own.square().sum(1) - weight * mean.square()
        logdet = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        value = -logdet - 0.5 * weight.log() - 0.5 * (len(y) - 1) * rest.log()
        return value, factor, mean, rest

    def _weighted(
        self, y: Tensor, seen: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draws of the sizes and their weights."""
        n, k = self.proposals, len(NAMES)
        unit = torch.rand(n, k, dtype=y.dtype, generator=generator).clamp(1e-9, 1 - 1e-9)
        z, proposals = torch.logit(unit), []
        value = self._value(z, y, seen)
        for _ in range(2):
            weight = torch.softmax(value - _mixture(z, proposals), 0)
            mean = (weight[:, None] * z).sum(0)
            spread = ((z - mean).T * weight) @ (z - mean)
            root = torch.linalg.cholesky(1.3 * spread + 0.05 * torch.eye(k, dtype=y.dtype))
            proposals.append((mean, root))
            normal = torch.randn(n, k + _FREEDOM, dtype=y.dtype, generator=generator)
            tail = normal[:, k:].square().mean(1, keepdim=True).sqrt()
            more = mean + normal[:, :k] / tail @ root.T
            z = torch.cat([z, more])
            value = torch.cat([value, self._value(more, y, seen)])
        return self._sizes(z), torch.softmax(value - _mixture(z, proposals), 0)

    def _sizes(self, z: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(z)

    def _value(self, z: Tensor, y: Tensor, seen: Tensor) -> Tensor:
        return self._fit(self._sizes(z), y, seen)[0] + _uniform(z)

    def __call__(
        self, y: Tensor, seen: Tensor, steps: Tensor, generator: torch.Generator, ahead: int
    ) -> Answer:
        """Posterior given some values.

        Args:
            y: Values ``(T,)``.
            seen: Their steps, in the grid.
            steps: Steps that are asked for ``(S,)``, those seen among them.
            generator: Source of randomness.
            ahead: How many of the last steps are the future ``H``.
        """
        sizes, weight = self._weighted(y, seen, generator)
        drawn = torch.multinomial(weight, self.draws, True, generator=generator)
        which, back = torch.unique(drawn, return_inverse=True)
        p = sizes[which]
        _, factor, mean, rest = self._fit(p, y, seen)
        freedom = torch.randn(self.draws, len(y) - 1, dtype=y.dtype, generator=generator)
        unit = (rest[back] / freedom.square().sum(1)).sqrt()[:, None]
        at = torch.searchsorted(steps, seen)
        trend, season = self._covariances(p, steps)
        square = (2 * p).exp()[:, :2]
        cross, gain = (x[:, steps][:, :, steps] for x in (self.cross, self.gain))
        slope = torch.einsum("pk,kij->pij", square, cross) + self.first_cross[steps][:, steps]
        steep = torch.einsum("pk,kij->pij", square, gain) + _FIRST**2
        wanted = {
            "level": (trend[:, :, at], trend, 1.0),
            "slope": (slope[:, :, at], steep, 0.0),
            "season": (season[:, :, at], season, 0.0),
            "signal": (trend[:, :, at] + season[:, :, at], trend + season, 1.0),
        }
        solved = torch.cholesky_solve((y - mean[:, None])[..., None], factor)[..., 0]
        one = torch.cholesky_solve(torch.ones_like(solved)[..., None], factor)[..., 0]
        means, draws = {}, {}
        for name, (to_seen, own, flat) in wanted.items():
            centre = mean[:, None] * flat + torch.einsum("pij,pj->pi", to_seen, solved)
            known = torch.linalg.solve_triangular(factor, to_seen.mT, upper=False)
            lost = flat - (to_seen * one[:, None]).sum(-1)
            cov = own - known.mT @ known
            cov = cov + lost[:, :, None] * lost[:, None] / one.sum(1)[:, None, None]
            scale = cov.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()[back] * unit
            means[name] = centre[back].mean(0)
            normal = torch.randn(scale.shape, dtype=y.dtype, generator=generator)
            draws[name] = centre[back] + scale * normal
        cov = cov[:, -ahead:, -ahead:] + torch.eye(ahead, dtype=y.dtype)
        root = torch.linalg.cholesky(cov)[back]
        normal = torch.randn(self.draws, ahead, 1, dtype=y.dtype, generator=generator)
        centre = centre[back][:, -ahead:]
        future = centre + unit * (root @ normal)[..., 0]
        scale = cov.diagonal(dim1=1, dim2=2).sqrt()[back] * unit
        effective = 1 / weight.square().sum().item()
        return Answer(means, draws, future, centre, scale, p[back], effective)

    def plugged(
        self, p: Tensor, y: Tensor, seen: Tensor, steps: Tensor, ahead: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation ``(H,)`` of what follows, if the sizes were known to be these."""
        p = p[None]
        _, factor, mean, rest = self._fit(p, y, seen)
        trend, season = self._covariances(p, steps)
        both = (trend + season)[0]
        at = torch.searchsorted(steps, seen)
        to_seen = both[-ahead:, at]
        solved = torch.cholesky_solve((y - mean)[:, None], factor[0])[:, 0]
        one = torch.cholesky_solve(torch.ones_like(y)[:, None], factor[0])[:, 0]
        known = torch.linalg.solve_triangular(factor[0], to_seen.T, upper=False)
        lost = 1 - to_seen @ one
        own = both.diagonal()[-ahead:] + 1
        variance = own - known.square().sum(0) + lost.square() / one.sum()
        scale = (variance * rest / (len(y) - 1)).sqrt()
        return (mean + to_seen @ solved), scale


def _uniform(z: Tensor) -> Tensor:
    """Log density of what is uniform on the scale of probabilities."""
    return -(F.softplus(z) + F.softplus(-z)).sum(-1)


def _mixture(z: Tensor, proposals: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Log density of all proposals, as many draws being of each."""
    k = z.shape[1]
    parts = [_uniform(z)]
    for mean, root in proposals:
        x = torch.linalg.solve_triangular(root, (z - mean).T, upper=False).square().sum(0)
        parts.append(
            math.lgamma((_FREEDOM + k) / 2)
            - math.lgamma(_FREEDOM / 2)
            - k / 2 * math.log(_FREEDOM * math.pi)
            - root.diagonal().log().sum()
            - (_FREEDOM + k) / 2 * torch.log1p(x / _FREEDOM)
        )
    return torch.stack(parts).logsumexp(0) - math.log(len(parts))


def crps(y: Tensor, centre: Tensor, scale: Tensor, parts: int = 100) -> Tensor:
    """CRPS ``(H,)`` of a mixture of normals ``(N, H)``, in closed form (Grimit et al., 2006)."""
    centre, scale = centre[:parts], scale[:parts]
    apart = centre[:, None] - centre
    both = (scale[:, None].square() + scale.square()).sqrt()
    return _mean_size(y - centre, scale).mean(0) - 0.5 * _mean_size(apart, both).mean((0, 1))


def _mean_size(mean: Tensor, scale: Tensor) -> Tensor:
    """Mean absolute value of normal numbers."""
    x = mean / scale
    density = torch.exp(-0.5 * x.square()) * math.sqrt(2 / math.pi)
    return mean * (2 * torch.special.ndtr(x) - 1) + scale * density
