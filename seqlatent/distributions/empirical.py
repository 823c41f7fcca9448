"""Empirical, the distribution of weighted particles."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from seqlatent.distributions.sampling import sample, uniform

__all__ = ["Empirical"]


class Empirical(Distribution):
    r"""Weighted particles: what a particle filter, or a set of posterior draws, says about a state.

    Args:
        values: Particles ``(N, ..., K)``.
        log_weights: Log weights ``(N, ...)``, normalised here.

    Example:
        >>> p = Empirical(torch.tensor([[0.0], [1.0]]), torch.tensor([0.75, 0.25]).log())
        >>> p.mean
        tensor([0.2500])
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]

    def __init__(self, values: Tensor, log_weights: Tensor) -> None:
        self.values = values
        self.log_weights = log_weights.log_softmax(0)
        super().__init__(values.shape[1:-1], values.shape[-1:], validate_args=False)

    @property
    def weights(self) -> Tensor:
        """Normalised weights ``(N, ...)``."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """Weighted mean ``(..., K)``."""
        return (self.weights[..., None] * self.values).sum(0)

    @property
    def variance(self) -> Tensor:
        """Weighted variance ``(..., K)``."""
        return (self.weights[..., None] * (self.values - self.mean).square()).sum(0)

    @property
    def covariance_matrix(self) -> Tensor:
        """Weighted covariance ``(..., K, K)``."""
        centred = self.values - self.mean
        return torch.einsum("n...,n...i,n...j->...ij", self.weights, centred, centred)

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return sample(self, sample_shape, generator)

    def quantile(self, q: float) -> Tensor:
        """Smallest particle whose cumulative weight reaches ``q``, per coordinate ``(..., K)``."""
        ordered, order = self.values.sort(0)
        weights = self.weights[..., None].expand_as(self.values).gather(0, order)
        index = (weights.cumsum(0) < q - 1e-12).sum(0, keepdim=True).clamp(max=len(ordered) - 1)
        return ordered.gather(0, index)[0]


@sample.register
def _(
    distribution: Empirical, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    cdf = distribution.weights.movedim(0, -1).cumsum(-1)
    u = uniform(Size(shape) + distribution.batch_shape, cdf, generator)
    index = (u[..., None] >= cdf).sum(-1).clamp(max=cdf.shape[-1] - 1)
    values = distribution.values.movedim(0, -2).expand(
        *index.shape, *distribution.values.shape[:1], -1
    )
    index = index[..., None, None].expand(*index.shape, 1, values.shape[-1])
    return values.gather(-2, index)[..., 0, :]
