"""Filter and smoother step by step; what does not differ between series is computed once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    aligned,
    informed_steps,
    log_evidence,
    matrix_lead,
    means,
    residuals,
)
from seqlatent.kalman.conditional_steps import (
    conditional_steps,
    moved_back,
    posterior_chain,
)
from seqlatent.kalman.diffuse.directions import Directions, directions
from seqlatent.kalman.diffuse.initialisation import concatenated, initial_phase, marked
from seqlatent.kalman.moments.covariance_factors import amplified, by_factors
from seqlatent.kalman.moments.diffuse_smoothing import (
    backwards,
    diffuse_distribution,
    open_ended,
)
from seqlatent.kalman.moments.fixed_interval import (
    Chain,
    FirstDistribution,
    accurate_chain,
    by_innovations_or_chain,
    one_by_one,
)
from seqlatent.kalman.posterior_path import Smoothed, backward, chain_moments, time_last
from seqlatent.kalman.riccati import closed_loop, covariances, stack, unstack
from seqlatent.kalman.system import LinearGaussianSystem


class Filtered(NamedTuple):
    """Moments of each state given the observations up to its step, and given those before it.

    ``log_evidence`` is log p(y_t | y_<t) per step, zero where nothing was observed. Covariances
    that do not differ between series are views of one.
    """

    mean: Float[Tensor, "*L T K"]
    cov: Float[Tensor, "*L T K K"]
    predicted_mean: Float[Tensor, "*L T K"]
    predicted_cov: Float[Tensor, "*L T K K"]
    log_evidence: Float[Tensor, "*L T"]


class Algorithm(NamedTuple):
    """A filter, a smoother and a chain of the posterior, of systems that are not diffuse."""

    filter: Callable[[AlignedSystem], Moments]
    smoother: Callable[[AlignedSystem], Smoothed]
    chain: Chain


def filter(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    *,
    undetermined: float = math.inf,
) -> Filtered:
    r"""Kalman filter of partly observed vectors.

    The covariances do not depend on ``y``: along leading axes where neither a matrix nor the
    pattern of ``observed`` differs they are computed once, and the means are one recurrence. What
    is missing is left out exactly, also where R correlates it with what is there. Where subtracting
    covariances would cost half of the digits, as under a large prior variance without noise of the
    state, they are carried by factors, as in :func:`filter_square_root`.

    Args:
        system: The model.
        y: Observations.
        observed: Which of them count.
        undetermined: Variance along directions that observations have not determined yet. An
            infinite one stands on the diagonal of the covariance, at each coordinate that takes
            part, whose other entries are finite; a finite one is that of all such directions,
            :math:`P_t + v B_t B_t^\top`.

    With diffuse coordinates of the first state, ``log_evidence`` is the diffuse one, whose sum is
    the limit of :math:`\log N(y) + \tfrac k2 \log \kappa` for k variances
    :math:`\kappa \to \infty`: where an observation determines a direction, minus half the
    logarithm of :math:`2 \pi F_\infty`.
    Moments are exact limits too; the mean of what is not determined is one of the possible values.

    Shape:
        y, observed ``(*L, T, D)``, the system as it says, after broadcasting; the moments
        ``(*L, T, K)`` and ``(*L, T, K, K)``.

    Raises:
        ValueError: If shapes do not fit, what is observed is no number, or an observation has no
            variance.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y = torch.tensor([[1.0], [2.0], [0.0]])
        >>> observed = torch.tensor([[True], [True], [False]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*model)
        >>> seqlatent.kalman.filter(walk, y, observed).mean.T
        tensor([[0.5000, 1.4000, 1.4000]])

        Of a diffuse level, the first observation is all that is known at the first step:

        >>> diffuse = torch.tensor([True])
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*model, diffuse=diffuse)
        >>> filtered = seqlatent.kalman.filter(walk, y, observed)
        >>> filtered.mean.T, filtered.predicted_cov.flatten()
        (tensor([[1.0000, 1.6667, 1.6667]]), tensor([   inf, 2.0000, 1.6667]))

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), ch. 4, and ch. 5 for a
        diffuse first state.
    """
    s = aligned(system.observing(y, observed))
    return filtered(s, undetermined, _SEQUENTIAL.filter)


def forward(s: AlignedSystem) -> Moments:
    """Moments of a filter, step by step: by factors where rounding is amplified too much."""
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    predicted_cov, cov, gain, S = covariances(F, Q, P0, H, R, informed_steps(s))
    if amplified(F, H, predicted_cov, S):
        return by_factors(s)
    closed = unstack(closed_loop(F, gain, H @ F), lead)
    predicted_cov, cov, gain, S = (unstack(x, lead) for x in (predicted_cov, cov, gain, S))
    mean, predicted_mean = means(s, gain, closed)
    evidence = log_evidence(s, residuals(s, predicted_mean), S)
    return Moments(mean, cov, predicted_mean, predicted_cov, evidence)


def filtered(
    s: AlignedSystem, undetermined: float, run: Callable[[AlignedSystem], Moments]
) -> Filtered:
    """What a filter returns, by way of the first steps of a diffuse state."""
    if s.diffuse is None:
        return filter_result(run(s))
    found = directions(s)
    first, later = initial_phase(s, found)
    moments = first if later is None else concatenated(first, run(later))
    cov = marked(moments.cov, found.after, found.scale, undetermined)
    predicted_cov = marked(moments.predicted_cov, found.before, found.scale, undetermined)
    return filter_result(moments._replace(cov=cov, predicted_cov=predicted_cov))


def filter_result(moments: Moments) -> Filtered:
    """What a filter returns, from moments that have time first."""
    mean, cov, predicted_mean, predicted_cov, evidence = moments
    mean, predicted_mean = mean.movedim(0, -2), predicted_mean.movedim(0, -2)
    shape = (*mean.shape, mean.shape[-1])
    cov, predicted_cov = (x.movedim(0, -3).expand(shape) for x in (cov, predicted_cov))
    return Filtered(mean, cov, predicted_mean, predicted_cov, evidence.movedim(0, -1))


def smoother(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    *,
    filtered: Filtered | None = None,
    undetermined: float = math.inf,
) -> Smoothed:
    r"""Smoothed moments, from what later innovations say of each filtered state.

    .. math::
        \hat z_t = m_t + P_t F_{t+1}^\top r_{t+1}, \quad
        V_t = P_t - P_t F_{t+1}^\top N_{t+1} F_{t+1} P_t

    Where later data shrink a filtered covariance by orders of magnitude, as they do under a large
    prior variance, that difference has no digit left. Then a backward pass of information and a
    forward pass of moments take its place: given the next observation, a step is
    :math:`N(E_t z_{t-1} + e_t, C_t)`; what follows it is a potential of precision
    :math:`\Lambda_t`. The posterior is the forward chain of both, and its covariance a sum:

    .. math::
        P_t = A_t P_{t-1} A_t^\top + (I + C_t \Lambda_t)^{-1} C_t, \quad
        A_t = (I + C_t \Lambda_t)^{-1} E_t

    No covariance of the state is inverted in either form, so singular Q and P0 need no care. Where
    the chain itself is ill-conditioned, covariances are products of factors of what the past and
    what the future say, and their derivatives those of the first form. The first steps of a diffuse
    state follow backwards from the next ones.

    Args:
        system: The model.
        y: Observations.
        observed: Which of them count.
        filtered: What :func:`filter` returned for the same, where that is known already: of a
            diffuse state it spares a pass.
        undetermined: Variance along directions that no observation determines, as in
            :func:`filter`.

    Shape:
        As in :func:`filter`.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> seqlatent.kalman.smoother(walk, y, observed).mean.T
        tensor([[0.8000, 1.4000]])
    """
    s = aligned(system.observing(y, observed))
    return smoothed(s, filtered, undetermined, _SEQUENTIAL)


def _smooth(s: AlignedSystem) -> Smoothed:
    return by_innovations_or_chain(s, forward(s), one_by_one, _chain)


def _chain(s: AlignedSystem, distribution: FirstDistribution) -> Smoothed | None:
    e = conditional_steps(s)
    eta = e.eta.expand(-1, *s.lead, -1)
    precision, shift = backward(e.A, e.b, e.C, *(moved_back(x, s.steps) for x in (e.J, eta)))
    first = distribution(s, shift[:1], precision[:1])
    if first is None:
        return None
    return chain_moments(*posterior_chain(s, e, precision, shift, first), s.steps)


_SEQUENTIAL = Algorithm(forward, _smooth, _chain)


def smoothed(
    s: AlignedSystem, filtered: Filtered | None, undetermined: float, by: Algorithm
) -> Smoothed:
    """What a smoother returns: of a diffuse state by a chain of the posterior.

    Where that is ill-conditioned, or has not the mean that the filter ends with, its first steps
    follow backwards from the later ones.
    """
    if s.diffuse is None:
        return time_last(by.smoother(s))
    found = directions(s)
    left = found.left.detach()

    def distribution(s: AlignedSystem, eta: Tensor, J: Tensor) -> tuple[Tensor, Tensor] | None:
        return diffuse_distribution(s, eta, J, left)

    result = accurate_chain(s, distribution, by.chain)
    if result is None or not _same_end(result, _end(s, found, filtered, by), left):
        first, later = initial_phase(s, found)
        result = backwards(s, found, first, later, None if later is None else by.smoother(later))
    return open_ended(s, time_last(result), left, undetermined)


@torch.no_grad()
def _end(
    s: AlignedSystem, found: Directions, filtered: Filtered | None, by: Algorithm
) -> Float[Tensor, "*L K"]:
    """The mean that a filter ends with."""
    if filtered is not None:
        return filtered.mean[..., -1, :]
    first, later = initial_phase(s, found)
    return (first if later is None else by.filter(later)).mean[-1]


@torch.no_grad()
def _same_end(chain: Smoothed, mean: Float[Tensor, "*L K"], left: Tensor) -> bool:
    """Whether a chain ends with the mean that a filter has there, to half of the digits.

    A level that is far from zero may cost it more. Where directions are ``left`` undetermined there
    is no such mean.
    """
    if bool((left != 0).any()):
        return True
    eps = torch.finfo(left.dtype).eps
    variance = chain.cov[-1].diagonal(dim1=-2, dim2=-1).clamp_min(0.0)
    off = (chain.mean[-1] - mean).square()
    return bool((off <= eps**0.9 * (variance + eps * mean.square())).all())
