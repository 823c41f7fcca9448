"""Predictive moments of a model that is linear and Gaussian, without sampling."""

import torch
from torch import Tensor

from seqlatent.chain import ConditionallyLinear
from seqlatent.emissions.emission import LinearEmission
from seqlatent.kalman import approximate_diffuse
from seqlatent.model.belief import Belief, require_room
from seqlatent.model.latent_model import LatentModel
from seqlatent.sequences import Context

__all__ = ["moments"]


@torch.no_grad()
def moments(
    model: LatentModel,
    belief: Belief,
    horizon: int,
    *,
    u: Tensor | None = None,
    t: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Exact mean and variance of future observations, in the units of the data.

    .. math:: y_{T+h} \mid y_{1:T} \sim N(H m_h + d,\; H P_h H^\top + R), \quad
        m_h = F m_{h-1} + b, \quad P_h = F P_{h-1} F^\top + Q

    The predictive distribution is normal, so these are all of its quantiles; joint futures of
    several steps are those of :meth:`LatentModel.forecast`.

    Args:
        model: A model with linear transition and emission, whose memory, if it has one, reads known
            inputs alone.
        belief: Where the past left off, with moments: that of ``Kalman``.
        horizon: Steps ahead ``H``, at least 1.
        u: Covariates of the future ``(B, H, U)``; required where the model has covariates.
        t: Times of the future ``(B, H)`` or ``(H,)``; one sampling step apart by default.

    Returns:
        Mean and variance, each ``(B, H, D)``.

    Raises:
        TypeError: If the model is not linear and Gaussian, has a memory that reads values, or the
            belief holds particles.
        ValueError: If ``horizon < 1``, or covariates or times do not fit.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> model = seqlatent.zoo.structural()
        >>> belief = model.belief(Sequences.of(torch.zeros(2, 5, 1)))
        >>> mean, variance = moments(model, belief, 3)
        >>> mean.shape, bool((variance.diff(dim=1) > 0).all())
        (torch.Size([2, 3, 1]), True)

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 4.11.
    """
    transition, emission = model.transition, model.emission
    if not isinstance(transition, ConditionallyLinear) or not isinstance(emission, LinearEmission):
        raise TypeError(
            "exact moments need a linear transition and a linear emission, found "
            f"{type(transition).__name__} and {type(emission).__name__}; use forecast, which "
            "samples."
        )
    if model.memory.reads_values:
        raise TypeError(
            f"the memory {type(model.memory).__name__} reads what is yet to be observed, so that "
            "the predictive distribution is no normal distribution; use forecast, which samples, "
            "or a memory of known inputs, CausalMemory(lags=())."
        )
    latest = belief.latest
    if latest.mean is None or latest.cov is None:
        raise TypeError(
            "exact moments start from a belief with moments, found one with particles; filter the "
            "data with Kalman, or use forecast, which samples."
        )
    width = latest.mean.shape[-1]
    require_room(belief, horizon, width + width**2)
    future = _remembered(model, belief, model.upcoming(belief, horizon, u=u, t=t))
    H, d, R = emission.matrices(future)
    m0, G0 = transition.initial_moments(future[0])
    G0 = approximate_diffuse(G0)
    F, b, G = transition.matrices(future)
    steps = future.dt.shape[-2]
    Q = G @ G.mT
    mean, cov = latest.mean, latest.cov
    means, covs = [], []
    for i in range(steps):
        F_i, Q_i, b_i = _step(F, i, 2), _step(Q, i, 2), _step(b, i, 1)
        mean, cov = (F_i @ mean[..., None])[..., 0] + b_i, F_i @ cov @ F_i.mT + Q_i
        if i == 0:
            started = latest.started[:, None]
            mean = torch.where(started, mean, m0)
            cov = torch.where(started[..., None], cov, G0 @ G0.mT)
        means.append(mean)
        covs.append(cov)
    m, P = torch.stack(means, -2), torch.stack(covs, -3)
    loc = future.shift + future.scale * ((H @ m[..., None])[..., 0] + d)
    spread = ((H @ P) * H).sum(-1) + R.diagonal(dim1=-2, dim2=-1)
    return loc, future.scale.square() * spread


def _remembered(model: LatentModel, belief: Belief, future: Context) -> Context:
    """The context with the features of a memory that does not wait for values."""
    if not model.memory.out_dim:
        return future
    state, y, observed, features = belief.memory, belief.y, belief.observed, []
    for c in future.unbind():
        m, state = model.memory.step(state, y, observed, c)
        features.append(m)
        y, observed = torch.zeros_like(y), torch.zeros_like(observed)
    return future.replace(m=torch.stack(features, -2))


def _step(x: Tensor, i: int, event: int) -> Tensor:
    """One step of what has steps ``(..., T, *)``, has one for all, or has no axis of steps."""
    if x.ndim == event:
        return x
    axis = x.ndim - event - 1
    return x.select(axis, i if x.shape[axis] > 1 else 0)
