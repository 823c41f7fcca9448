"""Laplace's approximation: a normal distribution at the mode of the whole path."""

import math

import torch
from torch import Tensor

from seqlatent import kalman
from seqlatent.derivatives import once
from seqlatent.distributions import CovarianceNormal, FactorNormal, standard_normal
from seqlatent.emissions.emission import LinearEmission
from seqlatent.emissions.signals import LinearSignal
from seqlatent.inference.approximate.matching import MomentMatching, gauss_hermite
from seqlatent.inference.approximate.sites import (
    Approximate,
    Dynamics,
    Sites,
    dynamics_of,
    exact_sites,
    kernels,
    log_normal,
    support,
)
from seqlatent.inference.base import Generative, Latest, States
from seqlatent.sequences import Context, Sequences
from seqlatent.sizes import whole

__all__ = ["Laplace"]

_HALVINGS = 60
_RECORDED = 30


class Laplace(Approximate):
    r"""Posterior of counts and events on a linear state: the mode of the path, and its curvature.

    .. math:: \hat z = \arg\max_z \log p(z) + \log p(y \mid z), \quad
        \log p(y) \approx \log \tilde p(y)
        + \sum_t \log \frac{p(y_t \mid \hat x_t)}{\tilde p(y_t \mid \hat x_t)}

    Newton's method: observations are replaced by normal ones with the same first two derivatives at
    the present signals x, whose exact smoother gives the next; steps are halved where they would
    lose, so that it cannot diverge, and each series stops by itself. The posterior over paths is a
    chain, so objectives of paths work. The evidence has gradients in all parameters, the motion of
    the mode included: models are fitted by it.

    Smoothed marginals are those of the chain, their means moved by the skewness that a mode does
    not see. Marginals given the past come from :class:`MomentMatching`; so do beliefs.

    Args:
        iterations: Most steps of Newton's method.
        tolerance: Greatest change of a signal, relative to one plus its size, that ends it.
        samples: Number of paths from the chain, even, half of them the mirror images of the others,
            with which the evidence is corrected by importance sampling: its exponential is then
            unbiased. 0 for Laplace's approximation.
        points: Points of the quadrature of the filter.

    Example:
        >>> from seqlatent import emissions, transitions
        >>> level = transitions.LocalLevel()
        >>> counts = emissions.LinearPoisson(1, loading=level.loading)
        >>> model = seqlatent.LatentModel(level, counts, Laplace())
        >>> seqlatent.objectives.evidence(model, seqlatent.Sequences.of(torch.ones(2, 5, 1))).shape
        torch.Size([2])

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), sections 10.6 and
        11.6. Estimation for Non-Gaussian State Space Models by Importance Sampling (Shephard &
        Pitt, 1997).
    """

    def __init__(
        self,
        *,
        iterations: int = 100,
        tolerance: int | float = 1e-8,
        samples: int = 0,
        points: int = 20,
    ) -> None:
        super().__init__()
        iterations = whole("iterations", iterations, 1)
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, found {tolerance!r}.")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 0 or samples % 2:
            raise ValueError(
                "samples must be an even number of paths, each with its mirror image, or 0, found "
                f"{samples!r}."
            )
        self.iterations, self.tolerance, self.samples = iterations, float(tolerance), samples
        self.points = MomentMatching(points).points

    def sites(self, model: Generative, sequences: Sequences, c: Context) -> Sites:
        if isinstance(model.emission, LinearEmission):
            return exact_sites(model, sequences, c)
        newton = _Newton(model, sequences, c)
        with torch.no_grad():
            x = newton.mode(self.iterations, self.tolerance)
            steps = 1 if newton.concave(x) else _RECORDED
        if torch.is_grad_enabled():
            # One more step, recorded: at the mode its derivatives are those of the mode itself.
            # Without concavity the step is not Newton's, and they are approached by repeating it.
            for _ in range(steps):
                x = newton.signal(newton.path(newton.sites(x)))
            x = once(x, "the mode that Laplace finds", "take differences of gradients")
        return newton.sites(x)

    @torch.no_grad()
    def mode(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Tensor:
        """The most likely path ``(B, T, K)``, without gradients."""
        c = model.context(sequences) if c is None else c
        return kalman.sample_paths(
            *_still(kernels(dynamics_of(model, c), self.sites(model, sequences, c)))
        )

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        states = super().smooth(model, sequences, c=c)
        if isinstance(model.emission, LinearEmission):
            return states
        newton = _Newton(model, sequences, c)
        P = states.marginals.covariance_matrix  # type: ignore[attr-defined]
        sites = newton.corrected(states.mean, P, self.points)
        return States(CovarianceNormal(newton.path(sites), P), states.log_evidence)

    def evidence(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        c = model.context(sequences) if c is None else c
        prior, sites = dynamics_of(model, c), self.sites(model, sequences, c)
        filtered = kalman.filter(prior.observed_by(sites), sites.y, sites.observed)
        plain = filtered.log_evidence.sum(-1)
        if not self.samples or isinstance(model.emission, LinearEmission):
            return plain + sites.log_ratio.sum(-1)
        q = kernels(prior, sites)
        size = torch.Size((self.samples // 2, *q.offset.shape[:-1], q.factor.shape[-1]))
        noise = standard_normal(size, q.offset, generator)
        z = kalman.sample_paths(q, torch.cat([noise, -noise]))
        newton = _Newton(model, sequences, c)
        log_ratio = newton.log_ratio(newton.signal(z), sites).sum(-1)
        return plain + log_ratio.logsumexp(0) - math.log(self.samples)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        return MomentMatching(self.points).filter(model, sequences, c=c, generator=generator)

    def latest(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        *,
        start: Latest | None = None,
        end: bool | Tensor = False,
        generator: torch.Generator | None = None,
    ) -> Latest:
        return MomentMatching(self.points).latest(model, sequences, c, start=start, end=end)

    def extra_repr(self) -> str:
        return f"samples={self.samples}" if self.samples else ""


class _Newton:
    """The search for the mode of the paths of a batch of series."""

    def __init__(self, model: Generative, sequences: Sequences, c: Context) -> None:
        assert isinstance(model.emission, LinearSignal)
        self.emission, self.c = model.emission, c
        self.prior = dynamics_of(model, c)
        self.H, self.d = self.emission.rows(c)
        self.y, self.observed = support(model, sequences), sequences.observed

    def mode(self, iterations: int, tolerance: float) -> Tensor:
        """Signals of the mode ``(B, T, D)``."""
        x = self.emission.guess(self.y, self.c)
        z = self.path(self.sites(x))
        x = self.signal(z)
        value = self.objective(z, x)
        eps = torch.finfo(x.dtype).eps
        tolerance = max(tolerance, 1e2 * eps)
        active = torch.ones_like(value, dtype=torch.bool)
        for _ in range(iterations):
            move = self.path(self.sites(x)) - z
            share = active.to(x.dtype)
            # a step below the root of eps gains less than the objective is rounded by: none is lost
            near = ~_exceeds(self.signal(z + move), x, eps**0.5)
            allowed = torch.where(near, -torch.inf, value - 8 * eps * value.abs())
            worse = active
            there, signal, reached = z, x, value
            for _ in range(_HALVINGS):
                there = z + share[:, None, None] * move
                signal = self.signal(there)
                reached = self.objective(there, signal)
                worse = active & ~(reached >= allowed)
                if not bool(worse.any()):
                    break
                share = torch.where(worse, share / 2, share)
            better = (active & ~worse)[:, None, None]
            far = _exceeds(signal, x, tolerance)
            z, x = torch.where(better, there, z), torch.where(better, signal, x)
            value = torch.where(better[:, 0, 0], reached, value)
            active = active & far & ~worse
            if not bool(active.any()):
                break
        return x

    def signal(self, z: Tensor) -> Tensor:
        """Signals of paths ``(*S, B, T, D)``."""
        return (self.H @ z[..., None])[..., 0] + self.d

    def sites(self, x: Tensor) -> Sites:
        """Normal observations with the emission's derivatives at signals ``(B, T, D)``."""
        log_prob, slope, weight = self.emission.derivatives(self.y, x, self.c)
        # the mode does not depend on weights: where there is no curvature, or the wrong one, any do
        weight = weight.abs().clamp_min(torch.finfo(x.dtype).tiny ** 0.25)
        R = torch.where(self.observed, 1 / weight, 1.0)
        residual = torch.where(self.observed, slope, 0.0) * R
        R = R.diag_embed()
        own = torch.where(self.observed, log_prob, 0.0).sum(-1)
        log_ratio = own - log_normal(residual, R, self.observed)
        return Sites(self.H, self.d, R, x + residual, self.observed, log_ratio)

    def log_ratio(self, x: Tensor, sites: Sites) -> Tensor:
        """What the log density of the emission exceeds that of sites by ``(*S, B, T)``."""
        log_prob = self.emission.distribution(x, self.c).log_prob(self.y)
        own = torch.where(self.observed, log_prob, 0.0).sum(-1)
        return own - log_normal(sites.y - x, sites.R, self.observed)

    def concave(self, x: Tensor) -> bool:
        """Whether no observed cell's density curves upwards at signals."""
        weight = self.emission.derivatives(self.y, x, self.c).weight
        return not bool((self.observed & (weight < 0)).any())

    def corrected(self, z: Tensor, P: Tensor, points: int) -> Sites:
        """Sites whose slopes are expected ones under marginals, so that skewness moves the mean."""
        x = self.signal(z)
        nodes, weights = gauss_hermite(points, x)
        spread = ((self.H @ P) * self.H).sum(-1).clamp_min(0).sqrt()
        around = x + spread * nodes.reshape(-1, 1, 1, 1)
        slopes = self.emission.derivatives(self.y.expand_as(around), around, self.c).slope
        expected = torch.tensordot(weights, slopes, 1)
        sites = self.sites(x)
        shift = expected - self.emission.derivatives(self.y, x, self.c).slope
        shift = torch.where(self.observed & shift.isfinite(), shift, 0.0)
        return sites._replace(y=sites.y + shift * sites.R.diagonal(dim1=-2, dim2=-1))

    def path(self, sites: Sites) -> Tensor:
        """Mean path ``(B, T, K)`` given sites."""
        return kalman.sample_paths(*_still(kernels(self.prior, sites)))

    def objective(self, z: Tensor, x: Tensor) -> Tensor:
        """Log density of paths and observations ``(B,)``, up to a constant."""
        log_prob = self.emission.distribution(x, self.c).log_prob(self.y)
        own = torch.where(self.observed, log_prob, 0.0).sum((-2, -1))
        found = own + _log_prior(self.prior, z)
        return torch.where(found.isnan(), -torch.inf, found)


def _exceeds(x: Tensor, before: Tensor, tolerance: float) -> Tensor:
    """Whether any signal of a series moved by more than so much of one plus its size ``(B,)``."""
    return ~((x - before).abs() <= tolerance * (1 + before.abs())).flatten(1).all(-1)


def _still(q: kalman.Kernels) -> tuple[kalman.Kernels, Tensor]:
    """A chain without noise, whose path is its mean."""
    return q, torch.zeros_like(q.factor[..., 0, :])


def _log_prior(prior: Dynamics, z: Tensor) -> Tensor:
    """Log density of paths ``(B,)`` on the directions that have noise."""
    F, b, G, m0, G0 = prior
    found = FactorNormal(m0, _spanning(G0)).log_prob(z[..., 0, :])
    if z.shape[-2] == 1:
        return found
    F, G = (x[..., 1:, :, :] if x.ndim > 2 and x.shape[-3] > 1 else x for x in (F, G))
    b = b[..., 1:, :] if b.ndim > 1 and b.shape[-2] > 1 else b
    moved = (F @ z[..., :-1, :, None])[..., 0] + b
    return found + FactorNormal(moved, G).log_prob(z[..., 1:, :]).sum(-1)


def _spanning(G: Tensor) -> Tensor:
    """A factor without columns that are zero for every series."""
    flat = G.reshape(-1, G.shape[-1])
    return G[..., (flat != 0).any(0)]
