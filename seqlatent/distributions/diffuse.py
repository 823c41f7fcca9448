"""Normal distributions of which some coordinates have no variance, the limit of large ones."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from seqlatent.distributions.divergences import detach
from seqlatent.distributions.sampling import sample
from seqlatent.linalg import cholesky

__all__ = ["DiffuseNormal", "require_proper"]

_LOG_2PI = math.log(2 * math.pi)


class DiffuseNormal(Distribution):
    r"""Normal distribution with infinite variances: diffuse where a factor has an infinity.

    .. math:: z = \mu + G \varepsilon + E \delta, \quad \varepsilon \sim N(0, I), \quad
        p(\delta_i) = (2 \pi)^{-1/2}

    with a unit vector in E for each coordinate in whose row there is an infinity. It is no
    probability, and cannot be drawn from; with that constant the log evidence that belongs to it
    is the diffuse one, the limit of :math:`\log p(y) + \tfrac k2 \log \kappa` for k variances
    :math:`\kappa \to \infty`.

    Args:
        loc: Mean ``(..., K)``.
        factor: Factor ``(..., K, R)``, broadcastable against ``loc``; a column with an infinity is
            that of one coordinate.

    Example:
        >>> p = DiffuseNormal(torch.zeros(2), torch.tensor([[torch.inf, 0.0], [0.0, 1.0]]))
        >>> p.variance, p.log_prob(torch.tensor([100.0, 0.0]))
        (tensor([inf, 1.]), tensor(-1.8379))

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 5.1.
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]

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
    def variance(self) -> Tensor:
        """Marginal variances ``(..., K)``, infinite where it is diffuse."""
        return self.factor.square().sum(-1).expand(self.loc.shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        require_proper(self.factor)
        raise AssertionError

    def log_prob(self, value: Tensor) -> Tensor:
        infinite = self.factor.isinf()
        flat = infinite.any(-2, keepdim=True)
        G = torch.where(flat | infinite.any(-1, keepdim=True), 0.0, self.factor)
        G = G + (infinite & flat).to(G.dtype)
        L = cholesky(G.mT @ G, what="Gram matrix of the noise factor")
        noise = torch.cholesky_solve(G.mT.expand(*L.shape[:-1], -1), L)
        eps = (noise @ (value - self.loc)[..., None])[..., 0]
        eps = torch.where(flat[..., 0, :], 0.0, eps)
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * eps.square().sum(-1) - log_det - 0.5 * G.shape[-1] * _LOG_2PI


def require_proper(factor: Tensor) -> None:
    """Verifies that a distribution can be drawn from.

    Raises:
        ValueError: If its factor has an infinity.
    """
    infinite = factor.isinf()
    if bool(infinite.any()):
        rows = infinite.any(-1).reshape(-1, factor.shape[-2]).any(0)
        found = rows.nonzero()[:, 0].tolist()
        raise ValueError(
            "Paths were expected to start from a first state that can be drawn, found infinite "
            f"variances in its coordinates {found}. Give the components a finite initial_scale, "
            "such as initial_scale=10.0, or draw from what data leave: model.posterior, or "
            "model.forecast of a belief."
        )


@sample.register
def _(
    distribution: DiffuseNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    return distribution.rsample(Size(shape))


@detach.register
def _(distribution: DiffuseNormal) -> Distribution:
    return DiffuseNormal(distribution.loc.detach(), distribution.factor.detach())
