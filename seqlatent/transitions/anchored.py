"""A neural transition that adds to the move of a structural model."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

from seqlatent.distributions import diagonal_normal
from seqlatent.networks import Linear
from seqlatent.sequences import Context
from seqlatent.transitions.neural import InitialNormal, _inputs, require_sizes
from seqlatent.transitions.parameters import Initialised
from seqlatent.transitions.structural import Component
from seqlatent.transitions.transition import Transition

__all__ = ["Anchored"]

_FLOOR = 1e-4  # least standard deviation of a latent
_CLOSED = -2.0  # gates start at an eighth


class Anchored(Transition, Initialised):
    r"""The linear move of a structural model, and a gated nonlinear one that is added.

    .. math::
        z_t &\sim N\big(F z_{t-1} + s\, g \odot h,\ \sigma\big), \qquad
        x = \tanh(W [\operatorname{asinh} z_{t-1}, m_t, u_t] + b), \\
        g &= \operatorname{sigmoid}(W_g x + b_g - 2), \quad h = W_h x + b_h, \quad
        \sigma = \operatorname{softplus}(W_\sigma x + b_\sigma)

    It starts as level, slope and season, which go on for as long as nobody looks, and learns where
    the data depart from that. A gate that forgets a little at every step cannot hold a pattern over
    a long horizon; so nothing is forgotten, and what is added is counted in :math:`s`, the scale of
    the noise at the start. Besides the structural states there are free ones, which keep what they
    hold for about 28 steps.

    Args:
        core: Component whose move it starts from.
        free: Free latent dimensions.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden_dim: Width of the layer before gate, proposal and scale.
        scale: Standard deviation :math:`s` of the noise at the start; in (0, 1].

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``;
        without the axis ``T`` for a step.

    Example:
        >>> from seqlatent.transitions import LocalLinearTrend
        >>> p = Anchored(LocalLinearTrend(), free=1, hidden_dim=8)
        >>> p(torch.zeros(5, 3), Context.regular(5)).event_shape
        torch.Size([3])

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017), the
        gate. Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989).
    """

    raw_decay: Tensor

    def __init__(
        self,
        core: Transition,
        *,
        free: int = 0,
        context_dim: int = 0,
        hidden_dim: int = 32,
        scale: int | float = 0.1,
    ) -> None:
        super().__init__()
        if not isinstance(core, Component):
            raise TypeError(
                "Anchored needs a component (LocalLevel, Seasonal, ... or a Sum of them), found "
                f"{type(core).__name__}."
            )
        require_sizes("Anchored", 1, hidden_dim=hidden_dim)
        require_sizes("Anchored", 0, free=free, context_dim=context_dim)
        if not 0 < scale <= 1:
            raise ValueError(
                f"scale must be a standard deviation in (0, 1], in scales of a series, found "
                f"{scale!r}."
            )
        self.core, self.free = core, free
        self.latent_dim = core.latent_dim + free
        self.context_dim, self.handles_gaps = context_dim, False
        self.scale = float(scale)
        self.offset = math.log(math.expm1(scale))
        self.hidden = Linear(self.latent_dim + context_dim, hidden_dim)
        self.head = Linear(hidden_dim, 3 * self.latent_dim)
        self.start("raw_decay", torch.full((free,), 2.0))
        self.first = InitialNormal(self.latent_dim, context_dim)

    def initial(self, c: Context) -> Distribution:
        return self.first(c)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        x = _inputs(self, z.asinh(), c, self.context_dim)
        gate, proposal, scale = self.head(self.hidden(x).tanh()).chunk(3, -1)
        F = self.core.matrices(c)[0]
        core = (F @ z[..., : self.core.latent_dim, None])[..., 0]
        kept = torch.cat([core, self.raw_decay.tanh() * z[..., self.core.latent_dim :]], -1)
        loc = kept + self.scale * (gate + _CLOSED).sigmoid() * proposal
        return diagonal_normal(loc, functional.softplus(scale + self.offset) + _FLOOR)

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}, context_dim={self.context_dim}"
