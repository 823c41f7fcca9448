"""Filter and smoother step by step; what does not differ between series is computed once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.diffuse.directions import Directions, directions
from seqlatent.kalman.diffuse.initialisation import Moments, continued, initial_phase, marked
from seqlatent.kalman.moments.covariance_factors import amplified, by_factors
from seqlatent.kalman.moments.diffuse_smoothing import (
    backwards,
    diffuse_distribution,
    open_ended,
    starting,
)
from seqlatent.kalman.moments.fixed_interval import (
    Chain,
    FirstDistribution,
    attempt,
    either,
    one_by_one,
)
from seqlatent.kalman.posterior_path import Smoothed, backward, chain_moments, time_last
from seqlatent.kalman.riccati import closed_loop, covariances, stack, unstack
from seqlatent.kalman.system import (
    System,
    apply,
    elements,
    join,
    log_evidence,
    matrix_lead,
    path,
    posterior_chain,
    rest,
    system,
    then_nothing,
)


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


def filter(
    F: Tensor,
    b: Tensor,
    Q: Tensor,
    m0: Tensor,
    P0: Tensor,
    H: Tensor,
    d: Tensor,
    R: Tensor,
    y: Tensor,
    observed: Tensor,
    *,
    diffuse: Tensor | None = None,
    undetermined: float = math.inf,
) -> Filtered:
    r"""Kalman filter of partly observed vectors.

    .. math::
        z_1 \sim N(m_0, P_0), \quad z_t = F_t z_{t-1} + b_t + N(0, Q_t), \quad
        y_t = H_t z_t + d_t + N(0, R_t)

    The covariances do not depend on ``y``: along leading axes where neither a matrix nor the
    pattern of ``observed`` differs they are computed once, and the means are one recurrence. What
    is missing is left out exactly, also where R correlates it with what is there. Where subtracting
    covariances would cost half of the digits, as under a vast prior without noise of the state,
    they are carried by factors, as in :func:`filter_square_root`.

    Args:
        F: Transition into step t; unused at the first step, but finite. So are ``b`` and ``Q``.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state, possibly singular.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise; singular is fine while the innovation's is not.
        y: Observations.
        observed: Which of them count.
        diffuse: Which coordinates of the first state are diffuse, without any prior variance: the
            limit of ever larger ones. What P0 says of them is not read.
        undetermined: Variance along directions that observations have not determined yet. An
            infinite one stands on the diagonal of the covariance, at each coordinate that takes
            part, whose other entries are finite; a finite one is that of all such directions,
            :math:`P_t + v B_t B_t^\top`.

    With ``diffuse`` coordinates, ``log_evidence`` is the diffuse one, whose sum is the limit of
    :math:`\log N(y) + \tfrac k2 \log \kappa` for k variances :math:`\kappa \to \infty`: where
    an observation determines a direction, minus half the logarithm of :math:`2 \pi F_\infty`.
    Moments are exact limits too; the mean of what is not determined is one of the possible values.

    Shape:
        F, Q ``(*L, T, K, K)``, b ``(*L, T, K)``, m0 ``(*L, K)``, P0 ``(*L, K, K)``,
        H ``(*L, T, D, K)``, d, y, observed ``(*L, T, D)``, R ``(*L, T, D, D)``, after broadcasting;
        what is constant in time may leave out T, with all axes before it. diffuse ``(K,)``.

    Raises:
        ValueError: If shapes do not fit, a covariance has a negative eigenvalue, what is observed
            is no number, or an observation has no variance.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y = torch.tensor([[1.0], [2.0], [0.0]])
        >>> observed = torch.tensor([[True], [True], [False]])
        >>> seqlatent.kalman.filter(one, zero, one, zero, one, one, zero, one, y, observed).mean.T
        tensor([[0.5000, 1.4000, 1.4000]])

        Of a diffuse level, the first observation is all that is known at the first step:

        >>> diffuse = torch.tensor([True])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> filtered = seqlatent.kalman.filter(*model, y, observed, diffuse=diffuse)
        >>> filtered.mean.T, filtered.predicted_cov.flatten()
        (tensor([[1.0000, 1.6667, 1.6667]]), tensor([   inf, 2.0000, 1.6667]))

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), ch. 4, and ch. 5 for a
        diffuse first state.
    """
    s = system(F, b, Q, m0, P0, H, d, R, y, observed, diffuse=diffuse)
    return filtered(s, diffuse, undetermined, forward)


def forward(s: System) -> Moments:
    """Moments of a filter, step by step: by factors where rounding is amplified too much."""
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    informed = s.observed.flatten(1).any(-1).expand(s.steps).tolist()
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    predicted_cov, cov, gain, S = covariances(F, Q, P0, H, R, informed)
    if amplified(F, H, predicted_cov, S):
        return by_factors(s)
    closed = unstack(closed_loop(F, gain, H @ F), lead)
    predicted_cov, cov, gain, S = (unstack(x, lead) for x in (predicted_cov, cov, gain, S))
    # The prior mean is the first step's offset, to which its update then applies as to any other.
    prior = join(s.m0, rest(s.b, s.steps), s.steps)
    offset = prior + apply(gain, s.y - s.d - apply(s.H, prior))
    mean = path(closed, offset.expand(-1, *s.lead, -1))
    later = apply(rest(s.F, s.steps), mean[:-1]) + rest(s.b, s.steps)
    return scored(s, mean, cov, join(s.m0, later, s.steps), predicted_cov, S)


def scored(
    s: System, mean: Tensor, cov: Tensor, predicted_mean: Tensor, predicted_cov: Tensor, S: Tensor
) -> Moments:
    """Moments with their evidence, from innovation covariances."""
    evidence = log_evidence(s, s.y - s.d - apply(s.H, predicted_mean), S)
    return Moments(mean, cov, predicted_mean, predicted_cov, evidence)


def filtered(
    s: System, diffuse: Tensor | None, undetermined: float, run: Callable[[System], Moments]
) -> Filtered:
    """What a filter returns, by way of the first steps of a diffuse state."""
    if diffuse is None or not bool(diffuse.any()):
        moments = run(s)
    else:
        found = directions(s, diffuse)
        moments = through(s, found, run)
        cov = marked(moments.cov, found.after, found.scale, undetermined)
        predicted_cov = marked(moments.predicted_cov, found.before, found.scale, undetermined)
        moments = moments._replace(cov=cov, predicted_cov=predicted_cov)
    mean, cov, predicted_mean, predicted_cov, evidence = moments
    mean, predicted_mean = mean.movedim(0, -2), predicted_mean.movedim(0, -2)
    shape = (*mean.shape, mean.shape[-1])
    cov, predicted_cov = (x.movedim(0, -3).expand(shape) for x in (cov, predicted_cov))
    return Filtered(mean, cov, predicted_mean, predicted_cov, evidence.movedim(0, -1))


def through(s: System, found: Directions, run: Callable[[System], Moments]) -> Moments:
    """Moments of all steps, those of the first ones as limits."""
    first, later = initial_phase(s, found)
    return first if later is None else continued(first, run(later))


def smoother(
    F: Tensor,
    b: Tensor,
    Q: Tensor,
    filtered: Filtered,
    H: Tensor,
    d: Tensor,
    R: Tensor,
    y: Tensor,
    observed: Tensor,
    *,
    diffuse: Tensor | None = None,
    undetermined: float = math.inf,
) -> Smoothed:
    r"""Smoothed moments, from what later innovations say of each filtered state.

    .. math::
        \hat z_t = m_t + P_t F_{t+1}^\top r_{t+1}, \quad
        V_t = P_t - P_t F_{t+1}^\top N_{t+1} F_{t+1} P_t

    Where later data shrink a filtered covariance by orders of magnitude, as they do under a vast
    prior, that difference has no digit left. Then a backward pass of information and a forward pass
    of moments take its place: given the next observation, a step is
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
        F: Transition, as in :func:`filter`; the other matrices likewise.
        b: Offset of the transition.
        Q: Covariance of the transition.
        filtered: What :func:`filter` returned; its first predicted moments are the prior.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise, possibly singular.
        y: Observations.
        observed: Which of them count.
        diffuse: Which coordinates of the first state are diffuse; by default those whose first
            predicted variance is infinite.
        undetermined: Variance along directions that no observation determines, as in
            :func:`filter`.

    Shape:
        As in :func:`filter`.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> filtered = seqlatent.kalman.filter(*model, y, observed)
        >>> seqlatent.kalman.smoother(one, zero, one, filtered, one, zero, one, y, observed).mean.T
        tensor([[0.8000, 1.4000]])
    """
    return smoothed(F, b, Q, filtered, H, d, R, y, observed, diffuse, undetermined, _smooth, _chain)


def _smooth(s: System) -> Smoothed:
    moments = forward(s)
    return either(s, moments, one_by_one, _chain)


def _chain(s: System, distribution: FirstDistribution) -> Smoothed | None:
    e = elements(s)
    eta = e.eta.expand(-1, *s.lead, -1)
    precision, shift = backward(e.A, e.b, e.C, *(then_nothing(x, s.steps) for x in (e.J, eta)))
    first = distribution(s, shift[:1], precision[:1])
    if first is None:
        return None
    return chain_moments(*posterior_chain(s, e, precision, shift, first), s.steps)


def smoothed(
    F: Tensor,
    b: Tensor,
    Q: Tensor,
    filtered: Filtered,
    H: Tensor,
    d: Tensor,
    R: Tensor,
    y: Tensor,
    observed: Tensor,
    diffuse: Tensor | None,
    undetermined: float,
    run: Callable[[System], Smoothed],
    chain: Chain,
) -> Smoothed:
    """What a smoother returns: of a diffuse state by a chain of the posterior.

    Where that is ill-conditioned, or has not the mean that the filter ends with, its first steps
    follow backwards from the later ones.
    """
    diffuse = starting(filtered.predicted_cov, diffuse)
    prior = filtered.predicted_mean[..., 0, :], filtered.predicted_cov[..., 0, :, :]
    s = system(F, b, Q, *prior, H, d, R, y, observed, diffuse=diffuse)
    if diffuse is None:
        return time_last(run(s))
    found = directions(s, diffuse)
    left = found.left.detach()

    def distribution(s: System, eta: Tensor, J: Tensor) -> tuple[Tensor, Tensor] | None:
        return diffuse_distribution(s, eta, J, diffuse, left)

    result = attempt(s, distribution, chain)
    if result is None or not _same_end(result, filtered, left):
        first, later = initial_phase(s, found)
        result = backwards(s, found, first, later, None if later is None else run(later))
    return open_ended(s, time_last(result), diffuse, left, undetermined)


@torch.no_grad()
def _same_end(chain: Smoothed, filtered: Filtered, left: Tensor) -> bool:
    """Whether a chain ends with the mean that a filter has there, to half of the digits.

    A level that is far from zero may cost it more. Where directions are ``left`` undetermined there
    is no such mean.
    """
    if bool((left != 0).any()):
        return True
    mean, eps = filtered.mean[..., -1, :], torch.finfo(left.dtype).eps
    variance = chain.cov[-1].diagonal(dim1=-2, dim2=-1).clamp_min(0.0)
    off = (chain.mean[-1] - mean).square()
    return bool((off <= eps**0.9 * (variance + eps * mean.square())).all())
