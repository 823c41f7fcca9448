"""Proposals of parameters, heavy in the tails and of two widths along each axis."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.training.likelihood.many_parameters import Densities
from seqlatent.training.likelihood.population_prior import Pool

__all__ = []

_DEGREES = 8.0  # of freedom
# Along an axis the density is looked at so many deviations away, on both sides; a side is at least
# and at most so much wider than the curvature says.
_AWAY, _LEAST, _MOST = (1.0, 2.0, 4.0), 0.3, 3.0
_FLAT = 0.25  # least curvature, that of the prior being 1
_STEP = 0.5  # of a difference of gradients, in deviations
_BISECTIONS = 60


@dataclass(frozen=True)
class SplitStudent:
    r"""A Student distribution along axes, each with a scale for either side of the centre.

    .. math::
        \theta = c + A x, \qquad p(x) = t_8\big(x_1 / q_1^\pm, \dots, x_P / q_P^\pm\big)
            \prod_i \frac{2}{q_i^- + q_i^+}

    A variance that may well be zero has a posterior that falls off on one side and not on the
    other, on a log scale. The tails are heavier than those of any posterior under a normal prior,
    whose weights are thus bounded.

    Args:
        centre: Where the density is highest :math:`c`.
        axes: Axes :math:`A`, as columns.
        low: Scales :math:`q^-` of what is below the centre.
        high: Scales :math:`q^+` of what is above.

    Shape:
        centre, low, high ``(B, P)``, axes ``(B, P, P)``.

    References:
        Bayesian Inference in Econometric Models Using Monte Carlo Integration (Geweke, 1989),
        section 4.
    """

    centre: Float[Tensor, "B P"]
    axes: Float[Tensor, "B P P"]
    low: Float[Tensor, "B P"]
    high: Float[Tensor, "B P"]

    @classmethod
    def around(
        cls,
        densities: Densities,
        mode: Float[Tensor, "B P"],
        value: Float[Tensor, " B"],
        cov: Float[Tensor, "B P P"],
    ) -> "SplitStudent":
        r"""The proposal whose curvature and whose widths are those of given densities.

        .. math::
            q_i^\pm = \max_\delta \delta \Big/
                \sqrt{8 \big(e^{2 \Delta(\pm\delta) / (8 + P)} - 1\big)}, \qquad
            \Delta(\delta) = \log p(c) - \log p(c + \delta a_i)

        Along each axis its tail is above that of the target wherever the target was looked at.

        Args:
            densities: The densities.
            mode: Where each is highest, about.
            value: Log densities there.
            cov: Covariances that the search for the mode ended with, for the size of steps.
        """
        L = torch.linalg.cholesky(densities.prior.cov)
        precision = _precision(densities, L, mode, cov)
        curvature, vectors = torch.linalg.eigh(precision)
        scale = curvature.clamp_min(_FLAT).rsqrt()
        axes = L @ vectors * scale[:, None, :]
        size = mode.shape[1]
        away = torch.tensor(_AWAY, dtype=mode.dtype, device=mode.device)
        steps = torch.cat([-away, away])[:, None, None, None] * axes.permute(2, 0, 1)
        found = densities((mode + steps).flatten(0, 1)).reshape(2, len(away), size, -1)
        drop = (value - found).clamp_min(0)
        width = away[:, None, None] / (_DEGREES * (2 * drop / (_DEGREES + size)).expm1()).sqrt()
        low, high = width.amax(1).clamp(_LEAST, _MOST).mT
        return cls(mode, axes, low, high)

    def at(self, u: Float[Tensor, "S *B E"]) -> Float[Tensor, "S B P"]:
        """Vectors at points of the unit cube, which has a dimension more than they."""
        below = self.low / (self.low + self.high)
        side, radius = u[..., :-1], _radius(u[..., -1:])
        left = side < below
        # the distance from the centre on the side that a coordinate fell to
        p = torch.where(left, 1 - side / below, (side - below) / (1 - below))
        most = 1 - torch.finfo(u.dtype).eps
        x = torch.special.ndtri((0.5 + 0.5 * p).clamp_max(most)) * radius
        x = x * torch.where(left, -self.low, self.high)
        return self.centre + (self.axes @ x[..., None])[..., 0]

    def log_prob(self, theta: Float[Tensor, "S B P"]) -> Float[Tensor, "S B"]:
        """Log density."""
        x = torch.linalg.solve(self.axes, (theta - self.centre).movedim(0, -1)).movedim(-1, 0)
        x = x / torch.where(x < 0, self.low, self.high)
        size, degrees = x.shape[-1], _DEGREES
        constant = math.lgamma((degrees + size) / 2) - math.lgamma(degrees / 2)
        constant -= size / 2 * math.log(math.pi * degrees)
        radial = -(degrees + size) / 2 * (x.square().sum(-1) / degrees).log1p()
        volume = ((self.low + self.high) / 2).log().sum(-1)
        return constant + radial - volume - torch.linalg.slogdet(self.axes)[1]

    def select(self, index: Tensor) -> "SplitStudent":
        """Picks series by index."""
        return SplitStudent(self.centre[index], self.axes[index], self.low[index], self.high[index])

    def spanning(self, prior: Pool) -> "SplitStudent":
        """The proposal that covers a prior, the same for each series."""
        one = torch.ones_like(self.centre)
        L = torch.linalg.cholesky(prior.cov).expand_as(self.axes)
        return SplitStudent(prior.mean.expand_as(one), L, one, one)

    def moved(self, theta: Float[Tensor, "S B P"], weights: Float[Tensor, "S B"]) -> "SplitStudent":
        """The proposal with the moments of weighted draws; few draws keep some of its widths."""
        mean = (weights[..., None] * theta).sum(0)
        away = theta - mean
        cov = torch.einsum("sb,sbp,sbq->bpq", weights, away, away)
        effective = 1 / weights.square().sum(0)
        own = self.axes * ((self.low + self.high) / 2)[:, None, :]
        few = (theta.shape[-1] / (theta.shape[-1] + effective))[:, None, None]
        cov = (1 - few) * cov + few * own @ own.mT
        one = torch.ones_like(mean)
        return SplitStudent(mean, torch.linalg.cholesky(cov), one, one)


def _precision(densities: Densities, L: Tensor, mode: Tensor, cov: Tensor) -> Tensor:
    """Negative second derivatives in units of the prior, over steps as wide as the density."""
    size = mode.shape[1]
    inverse = torch.linalg.solve_triangular(L, cov, upper=False)
    spread = torch.linalg.solve_triangular(L, inverse.mT, upper=False)
    step = _STEP * spread.diagonal(dim1=-2, dim2=-1).clamp(1e-4, 1.0).sqrt()
    moves = step.mT[..., None] * L.mT[:, None]
    points = torch.cat([mode + moves, mode - moves])
    up, down = (densities.gradients(points) @ L).reshape(2, size, *mode.shape)
    found = ((down - up) / (2 * step.mT[..., None])).permute(1, 0, 2)
    return (found + found.mT) / 2


def _radius(u: Tensor) -> Tensor:
    """Factors of a normal variable that make it Student's, at given probabilities."""
    half = torch.full_like(u, _DEGREES / 2)
    low, high = torch.zeros_like(u), torch.full_like(u, 64.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        under = torch.special.gammainc(half, middle) < u
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (half / high).sqrt()
