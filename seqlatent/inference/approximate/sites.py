"""Sites: normal observations that stand for those of a model, and what follows from them."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import MultivariateNormal

from seqlatent import kalman
from seqlatent.chain import Chain, ConditionallyLinear
from seqlatent.distributions import CovarianceNormal, masked_log_prob
from seqlatent.emissions.emission import LinearEmission
from seqlatent.emissions.signals import LinearSignal
from seqlatent.inference.base import Generative, Inference, States
from seqlatent.inference.kalman import PosteriorChain
from seqlatent.sequences import Context, Sequences

__all__ = ["Approximate"]


class Sites(NamedTuple):
    r"""Normal observations :math:`y_t = H_t z_t + d_t + N(0, R_t)` in place of a model's own.

    Axes are those of :func:`seqlatent.kalman.filter`. ``log_ratio`` is what the logarithm of each
    step's own density exceeds theirs by, at the state around which they were made.
    """

    H: Tensor
    d: Tensor
    R: Tensor
    y: Tensor
    observed: Tensor
    log_ratio: Tensor


class Dynamics(NamedTuple):
    """Matrices of a linear transition over all steps, and factors of its covariances."""

    F: Tensor
    b: Tensor
    G: Tensor
    m0: Tensor
    G0: Tensor

    @property
    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """F, b, Q, m0 and P0."""
        return self.F, self.b, self.G @ self.G.mT, self.m0, self.G0 @ self.G0.mT

    def observed_by(self, sites: Sites) -> kalman.LinearGaussianSystem:
        """The system that sites make of the dynamics."""
        return kalman.LinearGaussianSystem(*self.moments, sites.H, sites.d, sites.R)


def dynamics_of(model: Generative, c: Context) -> Dynamics:
    """The matrices of a model's transition.

    Raises:
        ValueError: If the variance of the first state is infinite.
    """
    transition = model.transition
    assert isinstance(transition, ConditionallyLinear)
    prior = Dynamics(*transition.matrices(c), *transition.initial_moments(c[0]))
    if not bool(prior.G0.isfinite().all()):
        raise ValueError(
            "an approximate inference needs a first state of finite variance, found a diffuse one; "
            "give the components initial_scale=10, which is as wide as a log rate or log odds "
            "can be."
        )
    return prior


def support(model: Generative, sequences: Sequences) -> Tensor:
    """Observations, and where there are none some value that the emission can have."""
    zero = torch.zeros((), dtype=sequences.y.dtype, device=sequences.y.device)
    fill = 0.0 if bool(model.emission.support.check(zero)) else 1.0
    return torch.where(sequences.observed, sequences.y, fill)


def log_normal(
    residual: Float[Tensor, "*r D"],
    R: Float[Tensor, "*v D D"],
    observed: Bool[Tensor, "*o D"],
) -> Tensor:
    """Log density of the observed cells of a residual with a covariance."""
    seen = observed.expand(residual.shape)
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    if R.shape[-1] == 1 or bool((diagonal.diag_embed() == R).all()):
        terms = residual.square() / diagonal + (2 * torch.pi * diagonal).log()
        return -0.5 * torch.where(seen, terms, 0.0).sum(-1)
    distribution = MultivariateNormal(torch.zeros_like(residual), R, validate_args=False)
    return masked_log_prob(distribution, residual, seen)


def exact_sites(model: Generative, sequences: Sequences, c: Context) -> Sites:
    """The observations of a linear Gaussian emission, which need none to stand for them."""
    assert isinstance(model.emission, LinearEmission)
    jacobian = (sequences.observed * sequences.scale.log()[:, None]).sum(-1)
    H, d, R = model.emission.matrices(c)
    return Sites(H, d, R, sequences.normalised, sequences.observed, -jacobian)


class Approximate(Inference):
    """Inference by normal observations that stand for those of the model.

    Given them the model is linear and Gaussian: marginals, paths and densities are those of the
    exact engine. The transition must be linear and Gaussian.
    """

    def check(self, model: Generative) -> None:
        name = type(self).__name__
        if not isinstance(model.transition, ConditionallyLinear):
            raise TypeError(
                f"{name} needs a linear Gaussian transition, found "
                f"{type(model.transition).__name__}; use Amortised (a trained encoder) or "
                "Particles, or a LinearTransition."
            )
        self.check_emission(model)

    def check_emission(self, model: Generative) -> None:
        """Verifies that the emission is one of linear signals, or linear and Gaussian."""
        if not isinstance(model.emission, LinearSignal | LinearEmission):
            raise TypeError(
                f"{type(self).__name__} needs an emission of a linear signal (LinearPoisson, "
                "LinearNegativeBinomial, LinearBernoulli, or your own LinearSignal), found "
                f"{type(model.emission).__name__}; use Extended, Unscented or Particles."
            )

    @abstractmethod
    def sites(self, model: Generative, sequences: Sequences, c: Context) -> Sites:
        """The normal observations that stand for those of the model."""

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        c = model.context(sequences) if c is None else c
        prior, sites = dynamics_of(model, c), self.sites(model, sequences, c)
        return PosteriorChain(kernels(prior, sites), c, (prior.G0.shape[-1], prior.G.shape[-1]))

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        sites = self.sites(model, sequences, c)
        system = dynamics_of(model, c).observed_by(sites)
        filtered = kalman.filter(system, sites.y, sites.observed)
        smoothed = kalman.smoother(system, sites.y, sites.observed, filtered=filtered)
        log_evidence = filtered.log_evidence + sites.log_ratio
        return States(CovarianceNormal(smoothed.mean, smoothed.cov), log_evidence)


def kernels(prior: Dynamics, sites: Sites) -> kalman.Kernels:
    """The posterior chain given sites."""
    system = prior.observed_by(sites)
    potentials = kalman.potentials(system, sites.y, sites.observed)
    return kalman.posterior_kernels(system, potentials, G=prior.G, G0=prior.G0)
