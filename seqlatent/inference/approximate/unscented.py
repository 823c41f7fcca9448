"""The unscented Kalman filter, once or iterated."""

import torch
from torch import Tensor

from seqlatent.inference.approximate.extended import linearise, objective, scored
from seqlatent.inference.approximate.filtering import Match, MomentFilter, View, posterior
from seqlatent.linalg import cholesky
from seqlatent.sizes import whole

__all__ = ["Unscented"]


class Unscented(MomentFilter):
    r"""Unscented Kalman filter: an emission's mean and variance at a few points of the state.

    .. math:: y \approx A z + b + N(0, \Omega), \quad
        A = \operatorname{Cov}(y, z) \operatorname{Cov}(z)^{-1}

    with moments from points :math:`m \pm \sqrt{M + \lambda}\, G_i` and :math:`m`, where
    :math:`\lambda = \alpha^2 (M + \kappa) - M` and M is 1 for a linear signal, else the width of
    the state. Points are placed again around the posterior that the last ones led to, the first
    time around that of :class:`Extended`: under a wide prior the mean of a count is not linear at
    all. What it infers has no gradient.

    Args:
        alpha: Spread of the points.
        beta: Weight of the middle point in the covariance: 2 suits a normal distribution and a
            small alpha.
        kappa: Secondary spread; None is ``max(3 - M, 0)``, which with ``alpha=1, beta=0`` matches
            four moments.
        iterations: How often points are placed; 1 is the classical filter, with points of the
            prediction.

    Example:
        >>> from seqlatent import emissions, transitions
        >>> level = transitions.LocalLevel()
        >>> counts = emissions.LinearPoisson(1, loading=level.loading)
        >>> model = seqlatent.LatentModel(level, counts, Unscented())
        >>> model.smooth(seqlatent.Sequences.of(torch.ones(2, 5, 1))).mean.shape
        torch.Size([2, 5, 1])

    References:
        Unscented Filtering and Nonlinear Estimation (Julier & Uhlmann, 2004).
        Posterior Linearization Filter: Principles and Implementation Using Sigma Points
        (García-Fernández et al., 2015).
    """

    def __init__(
        self,
        alpha: int | float = 1.0,
        beta: int | float = 0.0,
        kappa: int | float | None = None,
        *,
        iterations: int = 5,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be a positive spread, found {alpha!r}.")
        iterations = whole("iterations", iterations, 1)
        self.alpha, self.beta, self.kappa = float(alpha), float(beta), kappa
        self.iterations = iterations

    def match(self, view: View) -> Match:
        xi = view.y.new_zeros(len(view.y), view.size)
        if self.iterations == 1:
            eye = torch.eye(view.size, dtype=xi.dtype, device=xi.device).expand(len(xi), -1, -1)
            return scored(view, self._regressed(view, xi, eye))
        found, mode = linearise(view, 30)
        least = objective(view, mode) - 4.5 * view.size
        for _ in range(self.iterations - 1):
            mean, cov, _ = posterior(found, view.observed)
            new = self._regressed(view, mean, cov)
            # a round that leads far from the mode is not taken
            kept = objective(view, posterior(new, view.observed)[0]) >= least
            found = Match(
                *(
                    torch.where(kept.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
                    for a, b in zip(new, found, strict=True)
                )
            )
        return scored(view, found)

    def _regressed(self, view: View, mean: Tensor, cov: Tensor) -> Match:
        """Statistical linear regression of the observation on coordinates of some moments."""
        size = view.size
        kappa = max(3 - size, 0) if self.kappa is None else self.kappa
        spread = self.alpha**2 * (size + kappa)
        if not spread > 0:
            raise ValueError(
                f"the sigma points of {size} coordinates coincide: alpha^2 (M + kappa) must be "
                f"positive, found {spread:g}; raise kappa."
            )
        L = cholesky(cov, what="covariance of a state")
        arms = spread**0.5 * L.mT.movedim(-2, 0)
        points = torch.cat([mean[None], mean + arms, mean - arms])
        weights = mean.new_full((2 * size + 1, 1, 1), 0.5 / spread)
        weights[0] = 1 - size / spread
        outer = weights.clone()
        outer[0] += 1 - self.alpha**2 + self.beta
        y, noise = view.moments(points)
        centre = (weights * y).sum(0)
        rest = y - centre
        # the covariance with xi = mean + L u is a combination of the arms
        with_u = (rest[1 : size + 1] - rest[size + 1 :]).movedim(0, -1) * 0.5 / spread**0.5
        A = torch.linalg.solve_triangular(L.mT, with_u.mT, upper=True).mT
        total = torch.einsum("nbi,nbj->bij", outer * rest, rest) - with_u @ with_u.mT
        within = (weights * noise).sum(0).diag_embed()
        # a middle point of negative weight must not make a variance negative
        negative = (total.diagonal(dim1=-2, dim2=-1) < 0).any(-1)[:, None, None]
        V = torch.where(negative, 0.0, total) + within
        b = centre - (A @ mean[..., None])[..., 0]
        return Match(A, b, V, view.y, mean.new_zeros(len(mean)))

    def extra_repr(self) -> str:
        return f"{self.alpha:g}, {self.beta:g}, {self.kappa}, iterations={self.iterations}"
