"""Filters that keep one normal per regime, and the smoother that goes back over them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import align, rest, symmetric
from seqlatent.switching.aligned import (
    AlignedSystem,
    Branches,
    Filtered,
    Mixture,
    Start,
    aligned,
    collapse,
    predicted,
    rows,
    run,
    shared,
    total,
)
from seqlatent.switching.system import SwitchingSystem

__all__ = ["Smoothed", "gpb2", "imm", "smoother"]


class Smoothed(NamedTuple):
    """Distributions of regime and state given everything; moments are within a regime."""

    log_prob: Float[Tensor, "*L T S"]
    mean: Float[Tensor, "*L T S K"]
    cov: Float[Tensor, "*L T S K K"]


def imm(
    system: SwitchingSystem,
    y: Tensor,
    observed: Tensor,
    *,
    start: Start | None = None,
) -> Filtered:
    r"""Interacting multiple models: a Kalman filter per regime, mixed at each step.

    The exact distribution has one normal per path of regimes. Here those that meet in a regime are
    replaced by one of their mean and covariance, before the step is made: :math:`S` Kalman steps.
    Exact with one regime, and for the regimes where the state says nothing of them. Nearly as good
    as
    :func:`gpb2` at a fraction of the cost. Autograd records the loop.

    Args:
        system: The model.
        y: Observations.
        observed: Which of them count.
        start: Where an earlier filter stopped.

    Shape:
        y, observed ``(*L, T, D)``, the system as it says, after broadcasting.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> y, seen = torch.tensor([[0.0], [0.1], [9.0]]), torch.ones(3, 1).bool()
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> system = seqlatent.switching.SwitchingSystem(*model)
        >>> seqlatent.switching.imm(system, y, seen).log_prob.exp()[:, 1]
        tensor([0.5000, 0.0839, 1.0000])

    References:
        The Interacting Multiple Model Algorithm for Systems with Markovian Switching Coefficients
        (Blom & Bar-Shalom, 1988).
    """
    s = aligned(system, y, observed)
    return run(s, _mixed, _one_per_regime, start)[0]


def gpb2(
    system: SwitchingSystem,
    y: Tensor,
    observed: Tensor,
    *,
    start: Start | None = None,
) -> Filtered:
    r"""Generalised pseudo-Bayes of order two: each regime goes into each next one.

    :math:`S^2` Kalman steps; those that end in one regime are then replaced by a normal
    distribution of their mean and covariance. Its evidence is exact for two steps and nearly so for
    more: it is the filter of Kim (1994), by whose likelihood switching models are commonly
    estimated. Arguments and shapes are those of :func:`imm`. Autograd records the loop.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> y, seen = torch.tensor([[0.0], [0.1], [9.0]]), torch.ones(3, 1).bool()
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> system = seqlatent.switching.SwitchingSystem(*model)
        >>> seqlatent.switching.gpb2(system, y, seen).log_prob.exp()[:, 1]
        tensor([0.5000, 0.0839, 1.0000])

    References:
        Dynamic Linear Models with Markov-Switching (Kim, 1994), section 2.
        Estimation and Tracking (Bar-Shalom & Li, 1993), section 11.6.
    """
    s = aligned(system, y, observed)
    return run(s, branched, _one_per_regime, start)[0]


def branched(s: AlignedSystem, t: int, mixture: Mixture) -> Branches:
    """Every component in every regime of the next step."""
    mean, cov = predicted(s, t, mixture.mean.unsqueeze(-2), mixture.cov.unsqueeze(-3))
    return Branches(rows(s, t, mixture), mean, cov)


def _mixed(s: AlignedSystem, t: int, mixture: Mixture) -> Branches:
    """One component for each regime of the next step: all that may lead to it, as one."""
    weights = rows(s, t, mixture)
    mean, cov = mixture.mean.unsqueeze(-2), mixture.cov.unsqueeze(-3)
    shape = (*weights.shape, mean.shape[-1])
    cov = cov.expand(*shape, shape[-1])
    weights, mean, cov = Branches(weights, mean.expand(shape), cov).collapsed()
    return Branches(weights.unsqueeze(-2), *predicted(s, t, mean.unsqueeze(-3), cov.unsqueeze(-4)))


def _one_per_regime(branches: Branches, moments: tuple[Tensor, Tensor, Tensor]) -> Mixture:
    log_prob, mean, cov = moments
    regime = torch.arange(log_prob.shape[-1], device=log_prob.device).expand(log_prob.shape)
    return Mixture(log_prob, regime, mean, cov)


def smoother(system: SwitchingSystem, filtered: Filtered) -> Smoothed:
    r"""Smoothed distributions of regime and state, from those of a filter.

    .. math::
        p(s_t = j, s_{t+1} = k \mid y_{1:T}) &\approx p(s_{t+1} = k \mid y_{1:T})\,
            p(s_t = j \mid s_{t+1} = k, y_{1:t}) \\
        m^{jk} &= m_t^j + J^{jk} (m_T^k - F_k m_t^j - b_k), \quad
        J^{jk} = P_t^j F_k^\top (F_k P_t^j F_k^\top + Q_k)^{-1}

    collapsed over k. The smoother of Rauch, Tung and Striebel with one regime, and that of a hidden
    Markov model where the state says nothing of the regime.

    Args:
        system: The model.
        filtered: What :func:`imm`, :func:`gpb2` or :func:`rao_blackwell` returned.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> y, seen = torch.tensor([[0.0], [0.1], [9.0]]), torch.ones(3, 1).bool()
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> system = seqlatent.switching.SwitchingSystem(*model)
        >>> filtered = seqlatent.switching.gpb2(system, y, seen)
        >>> smoothed = seqlatent.switching.smoother(system, filtered)
        >>> smoothed.log_prob.exp()[:, 1]
        tensor([0.4614, 0.4517, 1.0000])

    References:
        Dynamic Linear Models with Markov-Switching (Kim, 1994), section 3.
    """
    log_prob, mean, cov, _ = filtered
    *lead, steps = mean.shape[:-2]
    lead = tuple(lead)
    tensors = (system.log_transition, 2), (system.F, 3), (system.b, 2), (system.Q, 3)
    M, F, b, Q = (rest(align(x, lead, event), steps) for x, event in tensors)
    log_prob, mean, cov = log_prob.movedim(-2, 0), mean.movedim(-3, 0), cov.movedim(-4, 0)
    # Regimes j of a step and k of the next one are two axes: what is known at j, in all k.
    back = log_prob[:-1, ..., :, None] + M
    reached = back.detach().amax(-2, keepdim=True) > -torch.inf
    back = torch.where(reached, torch.where(reached, back, 0.0).log_softmax(-2), -torch.inf)
    m, P, F = mean[:-1].unsqueeze(-2), cov[:-1].unsqueeze(-3), F.unsqueeze(-4)
    ahead = (F @ m[..., None])[..., 0] + b.unsqueeze(-3)
    FP = F @ P
    spread = symmetric(FP @ F.mT + Q.unsqueeze(-4))
    J = _solved(spread, FP).mT
    left = m - (J @ ahead[..., None])[..., 0]
    keep = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device) - J @ F
    noise = symmetric(keep @ P @ keep.mT + J @ Q.unsqueeze(-4) @ J.mT)
    path = [(log_prob[-1], mean[-1], cov[-1])]
    for t in range(steps - 2, -1, -1):
        later, m, P = path[-1]
        pair = (later.unsqueeze(-2) + back[t]).mT  # axes k, j
        shares = shared(pair, -2)
        m = left[t] + (J[t] @ m.unsqueeze(-3)[..., None])[..., 0]
        P = noise[t] + J[t] @ P.unsqueeze(-4) @ J[t].mT
        m, P = collapse(shares, m.transpose(-3, -2), P.transpose(-4, -3))
        path.append((total(pair, -2), m, symmetric(P)))
    path.reverse()
    log_prob, mean, cov = (torch.stack(x) for x in zip(*path, strict=True))
    return Smoothed(log_prob.movedim(0, -2), mean.movedim(0, -3), cov.movedim(0, -4))


def _solved(P: Tensor, B: Tensor) -> Tensor:
    """P^{-1} B for a covariance P; by its pseudoinverse where it is singular."""
    # rounding is that of variances before data shrank them
    rounding = torch.finfo(P.dtype).eps ** 0.75
    variance = P.diagonal(dim1=-2, dim2=-1)
    L, info = torch.linalg.cholesky_ex(P.detach())
    pivots = L.diagonal(dim1=-2, dim2=-1).square() / variance.detach()
    thin = (info > 0) | ~(pivots.amin(-1) > rounding)
    if not bool(thin.any()):
        return torch.cholesky_solve(B, torch.linalg.cholesky(P))
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    regular = torch.linalg.cholesky(torch.where(thin[..., None, None], eye, P))
    # in units of the largest variance, which may be of subnormal size
    level = variance.detach().amax(-1)[..., None, None]
    level = torch.where(level > 0, level, 1.0)
    generous = torch.linalg.pinv(P / level, rtol=rounding, hermitian=True)
    return torch.where(
        thin[..., None, None], generous @ (B / level), torch.cholesky_solve(B, regular)
    )
