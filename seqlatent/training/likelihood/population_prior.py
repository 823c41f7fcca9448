"""A normal distribution of parameters over a panel, and what it learns from the series."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Pool", "bounded", "unbounded"]

_REACH = 6.0


@dataclass(frozen=True)
class Pool:
    r"""The distribution from which each series of a panel draws its parameters.

    .. math:: \theta_b \sim N(\mu, \Sigma), \qquad
        \text{parameters}_b = c + r \tanh((\theta_b - c) / r)

    A series without any noise would draw its variances to zero for ever: the parameters stay
    within a reach :math:`r = 6` of a centre, the distribution's mean at the start. On a log scale
    that is a factor of 400 both ways.

    Args:
        mean: Mean :math:`\mu`, that of a series of which nothing is known.
        cov: Covariance :math:`\Sigma`.
        centre: Centre :math:`c` of the parameters.

    Shape:
        mean, centre ``(P,)``, cov ``(P, P)``.

    Example:
        >>> pool = Pool(torch.zeros(2), torch.eye(2), torch.zeros(2))
        >>> pool.log_prob(torch.zeros(3, 2))
        tensor([-1.8379, -1.8379, -1.8379])
    """

    mean: Float[Tensor, " P"]
    cov: Float[Tensor, "P P"]
    centre: Float[Tensor, " P"]

    def parameters(self, theta: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """The parameters of a model."""
        return bounded(theta, self.centre)

    def slope(self, theta: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """Derivatives of the parameters."""
        return 1 - ((theta - self.centre) / _REACH).tanh().square()

    @property
    def precision(self) -> Float[Tensor, "P P"]:
        """Inverse of the covariance."""
        return torch.cholesky_inverse(torch.linalg.cholesky(self.cov))

    def log_prob(self, theta: Float[Tensor, "*B P"]) -> Float[Tensor, "*B"]:
        """Log density."""
        prior = torch.distributions.MultivariateNormal(self.mean, self.cov, validate_args=False)
        return prior.log_prob(theta)

    def points(self, n: int, *, widen: float = 1.0, seed: int = 0) -> Float[Tensor, "n P"]:
        """Points that fill the distribution evenly, the mean first.

        Args:
            n: How many.
            widen: Factor of the standard deviations.
            seed: Seed of the scrambling of a Sobol sequence.
        """
        size = len(self.mean)
        uniform = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed).draw(n)
        normal = torch.special.ndtri(uniform.to(torch.float64).clamp(1e-4, 1 - 1e-4))
        normal[0] = 0.0
        factor = torch.linalg.cholesky(self.cov)
        return self.mean + widen * normal.to(self.mean) @ factor.mT

    def learned(
        self, theta: Float[Tensor, "B P"], cov: Float[Tensor, "B P P"], *, weight: float
    ) -> "Pool":
        r"""The distribution that the posteriors of the series have on average.

        .. math::
            \mu' = \frac{\sum_b \hat\theta_b + n_0 \mu}{B + n_0}, \qquad
            \Sigma' = \frac{\sum_b \big( (\hat\theta_b - \mu') (\hat\theta_b - \mu')^\top
            + V_b \big) + n_0 \big( (\mu - \mu') (\mu - \mu')^\top + \Sigma \big)}{B + n_0}

        One step of expectation maximisation with normal approximations of the posteriors. The
        distribution itself counts as ``weight`` series :math:`n_0`.

        Args:
            theta: Modes :math:`\hat\theta_b` of the posteriors.
            cov: Covariances :math:`V_b` of the posteriors.
            weight: How many series this distribution counts for.
        """
        total = len(theta) + weight
        mean = (theta.sum(0) + weight * self.mean) / total
        away, shift = theta - mean, (self.mean - mean)[:, None]
        spread = away.mT @ away + cov.sum(0) + weight * (self.cov + shift @ shift.mT)
        return replace(self, mean=mean, cov=(spread + spread.mT) / (2 * total))


def bounded(theta: Float[Tensor, "*B P"], centre: Float[Tensor, "*C"]) -> Float[Tensor, "*B P"]:
    """Vectors within the reach of a centre."""
    return centre + _REACH * ((theta - centre) / _REACH).tanh()


def unbounded(bounded: Float[Tensor, "*B P"], centre: Float[Tensor, "*C"]) -> Float[Tensor, "*B P"]:
    """The vectors of which these are within the reach of a centre."""
    edge = 1 - torch.finfo(bounded.dtype).eps  # what lies beyond rounds to the end
    return centre + _REACH * ((bounded - centre) / _REACH).clamp(-edge, edge).atanh()
