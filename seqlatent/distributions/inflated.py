"""Laws with points of their own mass, and laws of several targets side by side."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from seqlatent.distributions.probabilities import Cumulative, cumulative
from seqlatent.distributions.sampling import sample, uniform

__all__ = ["Inflated", "SideBySide"]


class Inflated(Distribution):
    r"""A distribution, and points that have mass beside it.

    .. math:: p(y) = \sum_k \pi_k \, 1[y = x_k] + (1 - \sum_k \pi_k) \, p_0(y)

    with the points :math:`x_k`, their probabilities and the distribution :math:`p_0`.

    Of a law that has no mass of its own at 0 it is a hurdle; of counts it is inflated by zeros. A
    log density is that of mass and Lebesgue measure together. Which point is drawn has no gradient.

    Args:
        base: The distribution :math:`p`.
        logits: Log odds of each point against the base ``(*batch, points)``.
        points: The points :math:`x_k`.

    Example:
        >>> rain = Inflated(torch.distributions.Exponential(2.0), torch.tensor([0.0]), (0.0,))
        >>> rain.log_prob(torch.tensor(0.0)).exp(), rain.mean
        (tensor(0.5000), tensor(0.2500))

    References:
        Some Statistical Models for Limited Dependent Variables (Cragg, 1971). Zero-Inflated Poisson
        Regression (Lambert, 1992).
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]

    def __init__(self, base: Distribution, logits: Tensor, points: tuple[float, ...]) -> None:
        self.base, self.logits, self.points = base, logits, points
        shape = torch.broadcast_shapes(base.batch_shape, logits.shape[:-1])
        super().__init__(shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of the base, with the points."""
        return _With(self.base.support, self.points)  # type: ignore[arg-type]

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Inflated":
        shape = Size(batch_shape)
        logits = self.logits.expand(*shape, len(self.points))
        return Inflated(self.base.expand(shape), logits, self.points)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return sample(self, sample_shape)

    @property
    def log_weights(self) -> Tensor:
        """Log probabilities of the points, and of the base as the last ``(*batch, points + 1)``."""
        return torch.nn.functional.pad(self.logits, (0, 1)).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        weights, support = self.log_weights, self.base.support
        assert support is not None
        inside = support.check(value)
        half = torch.full_like(value, 0.5)
        plain = torch.where(support.check(half), half, 1.0)
        # outside of the base gradients would be NaN
        found = self.base.log_prob(torch.where(inside, value, plain)) + weights[..., -1]
        for k, point in enumerate(self.points):
            mass = weights[..., k].expand(found.shape)
            # a density at one value is nothing beside its mass, a probability is something
            mass = torch.logaddexp(mass, found) if support.is_discrete else mass
            found = torch.where(value == point, mass, found)
        return found

    @property
    def mean(self) -> Tensor:
        weights = self.log_weights.exp()
        points = sum(weights[..., k] * point for k, point in enumerate(self.points))
        return points + weights[..., -1] * self.base.mean

    @property
    def variance(self) -> Tensor:
        weights = self.log_weights.exp()
        mean, variance = self.base.mean, self.base.variance
        square = sum(weights[..., k] * point**2 for k, point in enumerate(self.points))
        square = square + weights[..., -1] * (variance + mean.square())
        return square - self.mean.square()

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles, where the points lie at the ends of a continuous base."""
        weights = self.log_weights.detach().exp()
        edge = [k for k, point in enumerate(self.points) if point <= 0]
        under = sum((weights[..., k] for k in edge), torch.zeros_like(weights[..., -1]))
        rest = (torch.as_tensor(value).to(weights) - under) / weights[..., -1]
        least = torch.finfo(rest.dtype).eps
        found = self.base.icdf(rest.clamp(least, 1 - least))
        for k, point in enumerate(self.points):
            found = torch.where(rest <= 0 if k in edge else rest >= 1, point, found)
        return found


class _With(constraints.Constraint):
    """A support, and points beside it."""

    def __init__(self, support: constraints.Constraint, points: tuple[float, ...]) -> None:
        self.support, self.points = support, points
        self.is_discrete = support.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        found = self.support.check(value)
        for point in self.points:
            found = found | (value == point)
        return found


class SideBySide(Distribution):
    """Cells of several distributions, one after the other along the last axis.

    Args:
        parts: Distributions with batches ``(..., D_i)``.

    Example:
        >>> both = SideBySide([torch.distributions.Normal(torch.zeros(5, 1), 1.0),
        ...     torch.distributions.Poisson(torch.ones(5, 2))])
        >>> both.batch_shape
        torch.Size([5, 3])
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = list(parts)
        self.sizes = [part.batch_shape[-1] for part in parts]
        lead = torch.broadcast_shapes(*(part.batch_shape[:-1] for part in parts))
        super().__init__(Size([*lead, sum(self.sizes)]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of each cell."""
        supports: Any = [part.support for part in self.parts]
        return constraints.cat(supports, dim=-1, lengths=self.sizes)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return sample(self, sample_shape)

    def _joined(self, found: Sequence[Tensor], shape: Size) -> Tensor:
        cells = zip(found, self.sizes, strict=True)
        return torch.cat([x.expand(*shape[:-1], size) for x, size in cells], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        pieces = value.split(self.sizes, -1)
        found = [part.log_prob(y) for part, y in zip(self.parts, pieces, strict=True)]
        return self._joined(found, torch.broadcast_shapes(value.shape, self.batch_shape))

    @property
    def mean(self) -> Tensor:
        return self._joined([part.mean for part in self.parts], self.batch_shape)

    @property
    def variance(self) -> Tensor:
        return self._joined([part.variance for part in self.parts], self.batch_shape)


@sample.register
def _(
    distribution: Inflated, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    with torch.no_grad():
        found = sample(distribution.base.expand(distribution.batch_shape), shape, generator)
        weights = distribution.log_weights.exp().expand(*full, len(distribution.points) + 1)
        u = uniform(full, weights, generator)[..., None]
        index = (u >= weights.cumsum(-1)[..., :-1]).sum(-1)
        for k, point in enumerate(distribution.points):
            found = torch.where(index == k, point, found)
    return found


@sample.register
def _(
    distribution: SideBySide, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    found = [sample(part, shape, generator) for part in distribution.parts]
    like = next((x for x in found if x.is_floating_point()), found[0])
    return distribution._joined([x.to(like) for x in found], Size(shape) + distribution.batch_shape)


@cumulative.register
def _(distribution: Inflated, y: Tensor) -> Cumulative | None:
    found = cumulative(distribution.base, y)
    if found is None:
        return None
    weights = distribution.log_weights.detach().exp()
    below, equal = (weights[..., -1] * x for x in found)
    for k, point in enumerate(distribution.points):
        below = below + torch.where(y > point, weights[..., k], 0.0)
        equal = equal + torch.where(y == point, weights[..., k], 0.0)
    return Cumulative(below, equal)


@cumulative.register
def _(distribution: SideBySide, y: Tensor) -> Cumulative | None:
    pieces = y.split(distribution.sizes, -1)
    found = [cumulative(part, cell) for part, cell in zip(distribution.parts, pieces, strict=True)]
    if any(x is None for x in found):
        return None
    shape = torch.broadcast_shapes(y.shape, distribution.batch_shape)
    below, equal = zip(*(x for x in found if x is not None), strict=True)
    return Cumulative(distribution._joined(below, shape), distribution._joined(equal, shape))
