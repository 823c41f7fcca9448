"""Linear distributions whose parameters follow the context: memory features and covariates."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from seqlatent.networks import MLP
from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.parameters import Initialised
from seqlatent.transitions.transition import DiagonalTransition, LinearTransition, Transition

__all__ = ["ContextAffine", "ContextualNoise"]

# softplus of it is 1
_UNIT = math.log(math.e - 1)


class ContextualNoise(LinearTransition, Initialised):
    r"""A linear distribution whose noises grow or shrink with the context.

    .. math:: z_t = F z_{t-1} + b + G \operatorname{diag}(w(c_t))\, \varepsilon_t, \qquad
        w(c) = \operatorname{softplus}(W [m, u] + \operatorname{softplus}^{-1}(1))

    At the start :math:`w = 1`, the distribution inside. A memory that has read many series thus
    says how fast the level of this one moves now: a deep state-space model.

    Args:
        inner: The distribution whose noises are scaled.
        context_dim: Width of ``[m, u]``, at least 1.
        initial: Whether the context also shifts the mean of the first state.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Raises:
        TypeError: If the distribution inside is not linear.
        ValueError: If there is no context, or no noise to scale.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> p = ContextualNoise(LocalLevel(), context_dim=2)
        >>> p(torch.zeros(3, 1), Context.regular(3, u=torch.ones(3, 2))).event_shape
        torch.Size([1])

    References:
        Deep State Space Models for Time Series Forecasting (Rangapuram et al., 2018).
    """

    noise_weight: Tensor
    mean_weight: Tensor | None

    def __init__(self, inner: Transition, context_dim: int, *, initial: bool = True) -> None:
        super().__init__()
        if not isinstance(inner, LinearTransition):
            raise TypeError(
                "ContextualNoise scales the noises of a LinearTransition, found "
                f"{type(inner).__name__}; ContextAffine has independent coordinates that follow "
                "the context."
            )
        if isinstance(context_dim, bool) or not isinstance(context_dim, int) or context_dim < 1:
            raise ValueError(
                "context_dim must be the width of [m, u], an integer of at least 1, found "
                f"{context_dim!r}; without memory and covariates use the distribution inside."
            )
        probe = next(chain(inner.parameters(), inner.buffers()), torch.empty(0))
        c = Context.regular(1, u=probe.new_zeros(1, context_dim), dtype=probe.dtype)
        c = c.replace(dt=c.dt.to(probe), m=c.m.to(probe))
        noises = inner.matrices(c)[2].shape[-1]
        if noises == 0:
            raise ValueError(
                "the distribution inside has no noise to scale; give it one, e.g. scale=0.1."
            )
        self.inner = inner
        self.latent_dim = inner.latent_dim
        self.handles_gaps = inner.handles_gaps
        self.context_dim = context_dim
        self.start("noise_weight", probe.new_zeros(noises, context_dim))
        self.register_parameter("mean_weight", None)
        if initial:
            self.start("mean_weight", probe.new_zeros(inner.latent_dim, context_dim))

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        F, b, G = self.inner.matrices(c)
        factor = torch.nn.functional.softplus(_features(c) @ self.noise_weight.mT + _UNIT)
        return F, b, G * factor[..., None, :]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        m0, G0 = self.inner.initial_moments(c)
        if self.mean_weight is not None:
            m0 = m0 + _features(c) @ self.mean_weight.mT
        return m0, G0

    def extra_repr(self) -> str:
        return f"context_dim={self.context_dim}"


class ContextAffine(DiagonalTransition):
    r"""Independent linear coordinates whose coefficients a network reads off the context.

    .. math:: z_t = a(c_t) \odot z_{t-1} + b(c_t) + s(c_t) \odot \varepsilon_t, \qquad a \in (-1, 1)

    Nonlinear in memory and covariates, linear in the state: paths are sampled without a loop, and a
    Kalman filter is exact. At the start :math:`a` is near 0.9 and the stationary variance near 1.

    Args:
        latent_dim: Width ``K`` of the state.
        context_dim: Width of ``[m, u]``; 0 gives coefficients that are the same at every step.
        hidden: Sizes of the hidden layers.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> p = ContextAffine(4, context_dim=2)
        >>> p(torch.zeros(3, 5, 4), Context.regular(3, 5, u=torch.ones(3, 5, 2))).batch_shape
        torch.Size([3, 5])
    """

    def __init__(self, latent_dim: int, context_dim: int, hidden: Sequence[int] = (32,)) -> None:
        super().__init__()
        latent_dim = whole("latent_dim", latent_dim, 1)
        self.latent_dim = latent_dim
        self.head = MLP(context_dim, hidden, 3 * latent_dim)
        self.initial_head = MLP(context_dim, hidden, 2 * latent_dim)

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        a, b, scale = self.head(_features(c)).chunk(3, -1)
        unit = math.log(math.expm1((1 - 0.9**2) ** 0.5))
        return (a + math.atanh(0.9)).tanh(), b, torch.nn.functional.softplus(scale + unit)

    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        loc, scale = self.initial_head(_features(c)).chunk(2, -1)
        return loc, torch.nn.functional.softplus(scale + _UNIT)

    def extra_repr(self) -> str:
        return f"{self.latent_dim}"


def _features(c: Context) -> Tensor:
    """Memory and covariates ``(..., M + U)``."""
    return c.features(c.dt[..., :0])
