"""Smoothed moments out of a filter's innovations, and when that costs digits."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    after,
    apply,
    innovation_factor,
    join,
    matrix_lead,
    path,
    regular,
    residuals,
    rest,
    symmetric,
)
from seqlatent.kalman.conditional_steps import first_distribution
from seqlatent.kalman.moments.two_filter import smoothed_covariances
from seqlatent.kalman.posterior_path import Smoothed
from seqlatent.kalman.riccati import closed_loop, congruence, stack, unstack

Backward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
FirstDistribution = Callable[[AlignedSystem, Tensor, Tensor], tuple[Tensor, Tensor] | None]
Chain = Callable[[AlignedSystem, FirstDistribution], Smoothed | None]


def by_innovations(
    s: AlignedSystem, moments: Moments, backward: Backward
) -> tuple[Smoothed, Tensor]:
    r"""Smoothed moments, time first, from what a filter's later innovations say.

    .. math::
        r_t &= H_t^\top S_t^{-1} v_t + L_t^\top r_{t+1}, \quad
        N_t = H_t^\top S_t^{-1} H_t + L_t^\top N_{t+1} L_t, \quad L_t = F_{t+1} (I - k_t H_t) \\
        \hat z_t &= m_t + P_t F_{t+1}^\top r_{t+1}, \quad
        V_t = P_t - P_t F_{t+1}^\top N_{t+1} F_{t+1} P_t

    Nothing but the innovations' covariance is inverted. With the moments comes the most by which
    rounding of what is subtracted is amplified in what is left of a variance.

    Args:
        s: The model.
        moments: What a filter found.
        backward: Vectors and matrices r and N from the matrices :math:`L^\top` and what each step
            adds to them.

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), sections 4.4 and 4.7.
    """
    mean, P, predicted_mean, predicted_cov, _ = moments
    F, steps, size = rest(s.F, s.steps), s.steps, s.F.shape[-1]
    eye = torch.eye(size, dtype=P.dtype, device=P.device)
    PH = predicted_cov @ s.H.mT
    L = innovation_factor(s.H @ PH + s.R, "innovation covariance H P H^T + R")
    gain = torch.cholesky_solve(PH.mT, L).mT
    loadings = torch.linalg.solve_triangular(L, s.H.expand(*L.shape[:-1], size), upper=False)
    residual = residuals(s, predicted_mean).unsqueeze(-1)
    news = apply(loadings.mT, torch.linalg.solve_triangular(L, residual, upper=False).squeeze(-1))
    kept = F @ closed_loop(eye, gain, s.H)[:-1]
    kept = torch.cat([kept.mT, kept.new_zeros(1, *kept.shape[1:])])
    r, N = backward(kept, news.expand(steps, *s.lead, size), loadings.mT @ loadings)
    PF = P[:-1] @ F.mT
    mean = after(mean[:-1] + apply(PF, r[1:]), mean[-1:])
    cov = after(symmetric(P[:-1] - PF @ N[1:] @ PF.mT), P[-1:])
    cross = (eye - predicted_cov[1:] @ N[1:]) @ PF.mT
    found = Smoothed(mean, cov, join(torch.zeros_like(cov[:1]), cross, steps))
    return found, _amplified(PF, N[1:], cov[:-1])


@torch.no_grad()
def _amplified(PF: Tensor, N: Tensor, cov: Tensor) -> Tensor:
    """The most by which a variance is less than the terms of the sum that is subtracted."""
    size = N.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt().unsqueeze(-1)
    terms = (PF.abs() @ size).squeeze(-1).square()
    left = cov.diagonal(dim1=-2, dim2=-1)
    ratio = torch.where(terms > 0, terms / left.clamp_min(torch.finfo(left.dtype).tiny), 0.0)
    return ratio.amax() if ratio.numel() else ratio.new_zeros(())


def one_by_one(kept: Tensor, news: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """The backward recursions of :func:`by_innovations`, step by step."""
    lead = matrix_lead(kept, said)
    N = congruence(stack(kept[:-1], lead), stack(symmetric(said), lead), reverse=True)
    return path(kept, news, reverse=True), unstack(N, lead)


def by_innovations_or_chain(
    s: AlignedSystem, moments: Moments, backward: Backward, chain: Chain, off: float = 0.0
) -> Smoothed:
    """What innovations give, or a chain of the posterior where subtracting costs digits.

    It costs them where it amplifies what the moments are ``off`` by, or rounding. The means lose
    none. A chain that does not have the same was itself too ill-conditioned: then factors have the
    covariances, and innovations their derivatives.
    """
    found, amplified = by_innovations(s, moments, backward)
    limit = torch.finfo(amplified.dtype).eps
    cheap = bool(amplified * max(off, limit) < limit**0.7)
    if cheap and regular(s.H @ moments.predicted_cov @ s.H.mT + s.R):
        return found
    other = accurate_chain(s, first_distribution, chain)
    if other is not None:
        before = moments.cov.detach().diagonal(dim1=-2, dim2=-1)
        apart = (other.mean - found.mean).detach().square()
        if bool((apart <= limit * (before + found.mean.square())).all()):
            return other
    if not divisible(s, 0.4):  # factors are divided by: half as many digits are lost
        return found
    exact = smoothed_covariances(s)
    cov, cross = (x + (y - x).detach() for x, y in zip(found[1:], exact, strict=True))
    return found._replace(cov=cov, cross=cross)


def accurate_chain(
    s: AlignedSystem, distribution: FirstDistribution, chain: Chain
) -> Smoothed | None:
    """A chain of the posterior, or None where there is none or its precisions lost their digits."""
    if not divisible(s):
        return None
    try:
        return chain(s, distribution)
    except ValueError:
        return None  # arguments were verified before: it is a precision that is none by rounding


def divisible(s: AlignedSystem, power: float = 0.2) -> bool:
    """Whether observations have a density given the state of the step before, beyond rounding."""
    H, Q, R = (rest(x, s.steps) for x in (s.H, s.Q, s.R))
    return regular(H @ Q @ H.mT + R, power)
