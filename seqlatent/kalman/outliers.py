"""A filter that doubts: for each value how much of an outlier it is, given those before it."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import aligned, apply, at, symmetric
from seqlatent.kalman.diffuse.initialisation import LARGE_VARIANCE
from seqlatent.kalman.moments.sequential import smoother
from seqlatent.kalman.system import LinearGaussianSystem

__all__ = ["Contamination", "Doubted", "doubt", "outlying"]


class Contamination(NamedTuple):
    r"""The law of outliers.

    Attributes:
        share: Probability :math:`\pi` of an outlier.
        sizes: Their sizes :math:`\kappa_j`, in least standard deviations of an innovation.
        odds: Probabilities :math:`w_j` of these sizes.
    """

    share: Float[Tensor, ""]
    sizes: Float[Tensor, " J"]
    odds: Float[Tensor, " J"]

    @property
    def weights(self) -> Float[Tensor, " M"]:
        """Probabilities of all components, that of a value recorded right first."""
        return torch.cat([(1 - self.share)[None], self.share * self.odds])


class Doubted(NamedTuple):
    r"""What a filter that doubts makes of the values of some series.

    Attributes:
        noise: Variance of the noise with which each value counts ``(*L, T)``, infinite never.
        log_evidence: ``log p(y_t | y_{<t})`` of the mixture ``(*L, T)``; 0 where nothing was
            observed.
        score: Normal score :math:`\Phi^{-1}(P(Y_t < y_t \mid y_{<t}))` of each value in it.
        probability: Probability that each value is an outlier; 0 where nothing was observed.
        run: How many of the last values lay apart, after each step ``(*L, T)``.
    """

    noise: Tensor
    log_evidence: Tensor
    score: Tensor
    probability: Tensor
    run: Tensor


_PASSES = 3  # of weights that all values give
_DIGITS = 1e-9


class _Step(NamedTuple):
    """Variances of the innovation under each component, their log odds, and the posterior."""

    variance: Tensor
    log_prob: Tensor
    posterior: Tensor


def doubt(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    law: Contamination,
    patience: int = 3,
    run: Tensor | None = None,
) -> Doubted:
    r"""Filters a system whose observations are now and then outliers.

    .. math::
        y_t = h^\top z_t + d + \varepsilon_t, \qquad
        \varepsilon_t \sim (1 - \pi)\, N(0, R) + \pi \sum_j w_j N(0, R + \kappa_j^2 v), \qquad
        v = R + h^\top Q h

    Given the component of each value the model is linear and Gaussian. Here each update is that of
    the mean precision of the innovation, :math:`1 / S = \sum_j p_j / S_j`, with the probability
    :math:`p_j` of each component given the values up to this one: the mean is then that of the
    mixture, and a filter, a smoother or a chain of the same system with the noise
    :math:`S - h^\top P h` in the place of R is exact given these weights. A step depends on no
    later one.

    What stays apart is no outlier: after ``patience`` values in a row that each look like one, what
    follows is taken at its word until a value is near its prediction again. So a level that breaks
    is followed as a filter without doubt would, so many rows later.

    Args:
        system: The model, of one observed dimension.
        y: Observations.
        observed: Which of them count.
        law: The law of outliers.
        patience: How many values in a row may be outliers.
        run: How many of the values before the first step lay apart ``(*L)``; none by default.

    Raises:
        ValueError: If shapes do not fit, or several dimensions are observed.

    References:
        Robustification of Kalman Filter Models (Meinhold & Singpurwalla, 1989).
        Approximate Inference in State-Space Models with Heavy-Tailed Noise (Agamennoni, Nieto &
        Nebot, 2012).
    """
    if system.obs_dim != 1:
        raise ValueError(
            f"outliers are told apart in one observed dimension, found {system.obs_dim}; filter "
            "without them, or the dimensions one by one."
        )
    s = aligned(system.observing(y, observed))
    P = s.P0[0]
    if s.diffuse is not None:
        P = P + LARGE_VARIANCE * s.diffuse.to(P).diag()
    m, record = s.m0[0], []
    run = m.new_zeros(s.lead) if run is None else run
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    for t in range(s.steps):
        F, Q, h, R = at(s.F, t), at(s.Q, t), at(s.H, t)[..., 0, :], at(s.R, t)[..., 0, 0]
        seen = at(s.observed, t)[..., 0]
        if t:
            m, P = apply(F, m) + at(s.b, t), symmetric(F @ P @ F.mT + Q)
        Ph = apply(P, h)
        spread = (Ph * h).sum(-1)
        residual = at(s.y, t)[..., 0] - at(s.d, t)[..., 0] - (h * m).sum(-1)
        least = R + (apply(Q, h) * h).sum(-1)
        step = _components(residual, spread + R, least, law)
        apart = 1 - step.posterior[..., 0]
        patient = run < patience
        S = torch.where(patient, 1 / (step.posterior / step.variance).sum(-1), spread + R)
        noise = (S - spread).clamp_min(R)
        gain = torch.where(seen[..., None], Ph / S[..., None], 0.0)
        m = m + gain * residual[..., None]
        kept = eye - gain[..., :, None] * h[..., None, :]
        P = symmetric(
            kept @ P @ kept.mT + noise[..., None, None] * gain[..., :, None] * gain[..., None, :]
        )
        run = torch.where(seen, torch.where(apart > 0.5, run + 1, 0.0), run)
        # all components are symmetric around one mean: the nearer tail has digits
        tail = torch.special.ndtr(-residual.abs()[..., None] / step.variance.sqrt())
        tail = (law.weights * tail).sum(-1).clamp_min(torch.finfo(tail.dtype).tiny)
        record.append(
            (
                noise,
                torch.where(seen, step.log_prob, 0.0),
                -residual.sign() * torch.special.ndtri(tail),
                torch.where(seen, apart * patient, 0.0),
                run,
            )
        )
    shape = (*s.lead, s.steps)
    return Doubted(
        *(
            torch.stack([x.expand(s.lead) for x in column], -1).expand(shape)
            for column in zip(*record, strict=True)
        )
    )


def _components(residual: Tensor, variance: Tensor, least: Tensor, law: Contamination) -> _Step:
    """The components of an innovation, given what it is without an outlier."""
    wide = variance[..., None] + law.sizes.square() * least[..., None]
    every = torch.cat([variance[..., None], wide], -1)
    terms = residual[..., None].square() / every + (2 * math.pi * every).log()
    log_joint = law.weights.log() - 0.5 * terms
    log_prob = log_joint.logsumexp(-1)
    return _Step(every, log_prob, (log_joint - log_prob[..., None]).exp())


def outlying(
    system: LinearGaussianSystem,
    y: Tensor,
    observed: Tensor,
    law: Contamination,
    patience: int = 3,
) -> Tensor:
    r"""Probability that each value is an outlier, given all others ``(*L, T)``.

    What the others say of a value is what all say, without its own part:

    .. math:: 1 / s_{-t} = 1 / s_t - 1 / R_t

    under weights from the past first, and then under those that all values give.

    Args:
        system: The model, of one observed dimension.
        y: Observations.
        observed: Which of them count.
        law: The law of outliers.
        patience: As in :func:`doubt`.

    References:
        Expectation Propagation for Approximate Bayesian Inference (Minka, 2001).
    """
    noise = doubt(system, y, observed, law, patience).noise
    seen, h, R = observed[..., 0], system.H[..., 0, :], system.R[..., 0, 0]
    least = R + (apply(system.Q, h) * h).sum(-1)
    found = torch.zeros_like(noise)
    for _ in range(_PASSES):
        smoothed = smoother(replace(system, R=noise[..., None, None]), y, observed)
        value = (h * smoothed.mean).sum(-1) + system.d[..., 0]
        spread = (apply(smoothed.cov, h) * h).sum(-1)
        # a value is in what all say of it with a precision that is less than the whole one
        rest = (1 - spread / noise).clamp_min(_DIGITS)
        spread = torch.where(seen, spread / rest, spread)
        residual = (y[..., 0] - value) / rest
        step = _components(residual, spread + R, least, law)
        found = torch.where(seen, 1 - step.posterior[..., 0], 0.0)
        noise = (1 / (step.posterior / step.variance).sum(-1) - spread).clamp_min(R)
        lasting = _runs(found > 0.5, seen) > patience
        found, noise = torch.where(lasting, 0.0, found), torch.where(lasting, R, noise)
    return found


def _runs(apart: Tensor, seen: Tensor) -> Tensor:
    """How many values in a row lie apart around each that does ``(*L, T)``, 0 elsewhere."""
    run = (seen & ~apart).cumsum(-1)  # constant over a run, and at the value before it
    size = apart.new_zeros((*apart.shape[:-1], apart.shape[-1] + 1), dtype=torch.long)
    size = size.scatter_add(-1, run, apart.long())
    return size.gather(-1, run) * apart
