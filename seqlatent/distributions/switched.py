"""Distributions of a state with a regime: mixtures that know their component, and one chosen."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from seqlatent.distributions.divergences import detach
from seqlatent.distributions.masking import masked_log_prob
from seqlatent.distributions.sampling import sample, uniform

__all__ = ["OneHot", "Selected", "Switched", "regime_of"]


class OneHot(Distribution):
    """Distribution of a regime as a one-hot vector.

    Args:
        log_prob: Logarithms of the probabilities ``(..., S)``, normalised here; -inf is never.

    Example:
        >>> p = OneHot(torch.tensor([0.25, 0.75]).log())
        >>> p.mean, p.log_prob(torch.tensor([0.0, 1.0])).exp()
        (tensor([0.2500, 0.7500]), tensor(0.7500))
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.one_hot  # type: ignore[assignment]

    def __init__(self, log_prob: Tensor) -> None:
        self.logits = log_prob.log_softmax(-1)
        super().__init__(log_prob.shape[:-1], log_prob.shape[-1:], validate_args=False)

    @property
    def probs(self) -> Tensor:
        """Probabilities ``(..., S)``."""
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        """Probabilities, which are the mean of the vector."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate."""
        return self.probs * (1 - self.probs)

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return sample(self, sample_shape, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        return _chosen(self.logits, value.argmax(-1))


def regime_of(z: Tensor, states: int) -> Tensor:
    """Index of the regime that the first coordinates of a state name, ``(...)``."""
    return z[..., :states].argmax(-1)


class Switched(Distribution):
    r"""Distribution of a state :math:`[s, z]`: a one-hot regime, and a vector that depends on it.

    .. math:: p(s = i) = \pi_i, \qquad z \mid s = i \sim p_i

    Args:
        log_prob: Logarithms of the probabilities of the regimes ``(..., S)``.
        parts: Distribution of the vector in each regime, event ``(K,)``.

    Example:
        >>> normal = seqlatent.distributions.diagonal_normal
        >>> parts = [normal(torch.zeros(1), torch.ones(1)), normal(torch.ones(1), torch.ones(1))]
        >>> p = Switched(torch.tensor([0.25, 0.75]).log(), parts)
        >>> p.mean, p.variance
        (tensor([0.2500, 0.7500, 0.7500]), tensor([0.1875, 0.1875, 1.1875]))
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]

    def __init__(self, log_prob: Tensor, parts: Sequence[Distribution]) -> None:
        states = log_prob.shape[-1]
        batch = torch.broadcast_shapes(log_prob.shape[:-1], *(p.batch_shape for p in parts))
        self.regime = OneHot(log_prob.expand(*batch, states))
        self.parts = tuple(parts)
        self.states = states
        super().__init__(Size(batch), Size((states + parts[0].event_shape[0],)), False)

    @property
    def mean(self) -> Tensor:
        """Probabilities of the regimes beside the mean of the vector."""
        weights, mean = self.regime.probs, self._stacked("mean")
        return torch.cat([weights, (weights[..., None] * mean).sum(-2)], -1)

    @property
    def variance(self) -> Tensor:
        """Variances of the regime's coordinates beside those of the vector."""
        weights, mean = self.regime.probs, self._stacked("mean")
        far = mean - (weights[..., None] * mean).sum(-2, keepdim=True)
        variance = (weights[..., None] * (self._stacked("variance") + far.square())).sum(-2)
        return torch.cat([weights * (1 - weights), variance], -1)

    def _stacked(self, name: str) -> Tensor:
        values = [getattr(p, name).expand(*self.batch_shape, -1) for p in self.parts]
        return torch.stack(values, -2)

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return sample(self, sample_shape, generator).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        index, z = regime_of(value, self.states), value[..., self.states :]
        inside = _pick([p.log_prob(z) for p in self.parts], index, 0)
        return _chosen(self.regime.logits, index) + inside


class Selected(Distribution):
    """Distribution of an observation in a regime that is known: one of several.

    Args:
        index: Regime ``(...)``.
        parts: Distributions, one for each regime, of the same event.

    Example:
        >>> normal = seqlatent.distributions.diagonal_normal
        >>> parts = [normal(torch.zeros(1), torch.ones(1)), normal(torch.ones(1), torch.ones(1))]
        >>> Selected(torch.tensor([0, 1, 1]), parts).mean.T
        tensor([[0., 1., 1.]])
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]

    def __init__(self, index: Tensor, parts: Sequence[Distribution]) -> None:
        batch = torch.broadcast_shapes(index.shape, *(p.batch_shape for p in parts))
        self.index, self.parts = index.expand(batch), tuple(parts)
        super().__init__(Size(batch), parts[0].event_shape, False)

    @property
    def support(self) -> Any:
        """Where values may lie."""
        return self.parts[0].support

    @property
    def mean(self) -> Tensor:
        """Mean in the regime."""
        return _pick([p.mean for p in self.parts], self.index, len(self.event_shape))

    @property
    def variance(self) -> Tensor:
        """Variance in the regime."""
        return _pick([p.variance for p in self.parts], self.index, len(self.event_shape))

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return sample(self, sample_shape, generator).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return _pick([p.log_prob(value) for p in self.parts], self.index, 0)


def _pick(values: Sequence[Tensor], index: Tensor, event: int) -> Tensor:
    """From one value per regime, that of the regime; events are the last axes."""
    every = torch.stack(torch.broadcast_tensors(*values), -1)
    split = every.dim() - 1 - event
    batch, tail = torch.broadcast_shapes(index.shape, every.shape[:split]), every.shape[split:-1]
    index = index.expand(batch).reshape(*batch, *(1 for _ in tail), 1).expand(*batch, *tail, 1)
    return every.expand(*batch, *tail, len(values)).gather(-1, index)[..., 0]


def _chosen(log_prob: Tensor, index: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(log_prob.shape[:-1], index.shape)
    index = index.expand(batch)[..., None]
    return log_prob.expand(*batch, log_prob.shape[-1]).gather(-1, index)[..., 0]


@sample.register
def _(
    distribution: OneHot,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    cdf = distribution.probs.detach().cumsum(-1)
    cdf = cdf / cdf[..., -1:]  # ends at one exactly, so that no draw falls behind
    u = uniform(Size(shape) + distribution.batch_shape, cdf, generator)
    index = (u[..., None] >= cdf).sum(-1)
    return torch.nn.functional.one_hot(index, cdf.shape[-1]).to(cdf.dtype)


@sample.register
def _(
    distribution: Switched, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    regime = sample(distribution.regime, shape, generator)
    values = [_drawn(p, shape, distribution.batch_shape, generator) for p in distribution.parts]
    return torch.cat([regime, _pick(values, regime.argmax(-1), 1)], -1)


@sample.register
def _(
    distribution: Selected, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    batch, event = distribution.batch_shape, len(distribution.event_shape)
    values = [_drawn(p, shape, batch, generator) for p in distribution.parts]
    return _pick(values, distribution.index.expand(*shape, *batch), event)


def _drawn(
    part: Distribution, shape: Sequence[int], batch: Size, generator: torch.Generator | None
) -> Tensor:
    """A draw for each element of a batch that may be larger than the part's own."""
    lacking = len(batch) - len(part.batch_shape)
    if part.batch_shape != batch[lacking:]:
        part, lacking = part.expand(batch), 0
    return sample(part, (*shape, *batch[:lacking]), generator)


@masked_log_prob.register
def _(
    distribution: Selected, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    scores = [masked_log_prob(p, y, observed) for p in distribution.parts]
    return _pick(scores, distribution.index, 0)


@detach.register
def _(distribution: OneHot) -> Distribution:
    return OneHot(distribution.logits.detach())


@detach.register
def _(distribution: Switched) -> Distribution:
    return Switched(distribution.regime.logits.detach(), [detach(p) for p in distribution.parts])
