"""Normal distributions: with independent coordinates, with a thin factor, with a covariance."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from seqlatent.distributions.sampling import base_noise, reparametrise, sample, standard_normal
from seqlatent.linalg import cholesky, factor

__all__ = ["CovarianceNormal", "FactorNormal", "diagonal_normal"]

_LOG_2PI = math.log(2 * math.pi)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    r"""Normal distribution with independent coordinates on the last axis.

    Args:
        loc: Mean ``(..., K)``.
        scale: Standard deviation ``(..., K)``.
    """
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


class FactorNormal(Distribution):
    r"""Normal distribution with covariance :math:`G G^\top` of a factor that may be thin.

    .. math:: z = \mu + G \varepsilon, \quad \varepsilon \sim N(0, I_R)

    A structural state moves on a subspace (a seasonal pattern shifts, one noise enters), so its
    covariance is singular. ``log_prob`` is the density on that subspace, with the
    pseudo-determinant; two distributions with the same column span are comparable. Columns of
    ``factor`` must be linearly independent.

    Args:
        loc: Mean ``(..., K)``.
        factor: Factor ``(..., K, R)``, broadcastable against ``loc``.

    Example:
        >>> p = FactorNormal(torch.zeros(2), torch.tensor([[1.0], [0.0]]))
        >>> p.log_prob(torch.tensor([0.0, 0.0]))
        tensor(-0.9189)
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], factor.shape[:-2])
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.factor = factor
        super().__init__(Size(batch), loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean ``(..., K)``."""
        return self.loc

    @property
    def covariance_matrix(self) -> Tensor:
        """Covariance ``(..., K, K)``, singular where ``factor`` is thin."""
        return (self.factor @ self.factor.mT).expand(*self.loc.shape, self.loc.shape[-1])

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., K)``."""
        return self.factor.square().sum(-1).expand(self.loc.shape)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return reparametrise(self, base_noise(self, sample_shape, generator))

    def log_prob(self, value: Tensor) -> Tensor:
        G = self.factor
        if G.shape[-1] == 0:
            return (value - self.loc).sum(-1) * 0.0
        L = cholesky(G.mT @ G, what="Gram matrix of the noise factor")
        whitener = torch.linalg.solve_triangular(L, G.mT, upper=False).mT
        whitener = torch.linalg.solve_triangular(L.mT, whitener.mT, upper=True).mT
        # whitener = G (G'G)^{-1}: residual @ whitener recovers the noise that made it
        eps = ((value - self.loc)[..., None, :] @ whitener)[..., 0, :]
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * eps.square().sum(-1) - log_det - 0.5 * G.shape[-1] * _LOG_2PI


@base_noise.register
def _(
    distribution: FactorNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    size = Size(shape) + distribution.batch_shape + distribution.factor.shape[-1:]
    return standard_normal(size, distribution.loc, generator)


@reparametrise.register
def _(distribution: FactorNormal, eps: Tensor) -> Tensor:
    return distribution.loc + (distribution.factor @ eps[..., None])[..., 0]


@sample.register
def _(
    distribution: FactorNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    return distribution.rsample(Size(shape), generator)


class CovarianceNormal(Distribution):
    """Normal distribution given by its covariance, which may be singular.

    The covariance is factored only to sample or to score.

    Args:
        loc: Mean ``(..., K)``.
        covariance_matrix: Covariance ``(..., K, K)``, broadcastable against ``loc``.
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], covariance_matrix.shape[:-2])
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.covariance_matrix = covariance_matrix.expand(*batch, *covariance_matrix.shape[-2:])
        super().__init__(Size(batch), loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean ``(..., K)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., K)``."""
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        G = factor(self.covariance_matrix, what="covariance of a state")
        return FactorNormal(self.loc, G).rsample(sample_shape, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        L = cholesky(self.covariance_matrix, what="covariance of a state")
        return FactorNormal(self.loc, L).log_prob(value)


@sample.register
def _(
    distribution: CovarianceNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    return distribution.rsample(shape, generator)
