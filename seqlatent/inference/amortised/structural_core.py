"""Inference around a Kalman filter: its means, and what a network adds to them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent import kalman
from seqlatent.inference.amortised.parallel import Parallel
from seqlatent.networks import Backbone
from seqlatent.sequences import Context
from seqlatent.transitions.structural import Component

__all__ = ["AnchoredParallel", "KalmanBackbone"]

_NOISE = 0.5  # standard deviation of the observation at the start, in scales
_NARROW = -3.0  # the posterior starts with standard deviations of about 0.05
_SOFT = 0.1  # what the network adds at the start, beside the filter's mean
_LOOSE = 0.01  # what the last state adds, which the mean knows already


class KalmanBackbone(Backbone):
    r"""A causal backbone that adds the filtered mean of a structural model to its features.

    .. math:: o_t = [\mathrm{inner}(x_{1:t}),\ E(z_t \mid y_{1:t})]

    The recursion that is optimal for level, slope and season need not be found by descent; its
    noises are learned with all else. It reads the first two features of an encoder's input: the
    standardised value on the scale of asinh, and whether it was observed.

    Args:
        core: Component of one observed dimension, which does not depend on covariates.
        inner: Backbone that reads the same input.
        initial_scale: Standard deviation of the first state.

    Shape:
        As :class:`~seqlatent.networks.Backbone`; before the inner states come the filter's mean
        and covariance.

    Example:
        >>> from seqlatent.networks import MinGRU
        >>> from seqlatent.transitions import LocalLevel
        >>> backbone = KalmanBackbone(LocalLevel(), MinGRU(3, 8))
        >>> backbone(torch.zeros(2, 5, 3))[0].shape
        torch.Size([2, 5, 9])

    References:
        A New Approach to Linear Filtering and Prediction Problems (Kalman, 1960).
    """

    def __init__(
        self, core: Component, inner: Backbone, *, initial_scale: int | float = 30.0
    ) -> None:
        super().__init__()
        self.core, self.inner = core, inner
        self.in_dim, self.out_dim = inner.in_dim, inner.out_dim + core.latent_dim
        self.initial_scale = float(initial_scale)
        self.log_noise = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Returns to the noise at the start; draws nothing."""
        nn.init.constant_(self.log_noise, math.log(_NOISE))

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        size = self.core.latent_dim
        c = Context.regular(1, dtype=x.dtype)
        c = c.replace(**{name: getattr(c, name).to(x.device) for name in ("u", "dt", "codes")})
        F, b, G = self.core.matrices(c)
        Q = G @ G.mT
        eye = torch.eye(size, dtype=x.dtype, device=x.device)
        if state is None:  # the same for all series, so that their covariances are computed once
            m0, P0 = x.new_zeros(size), self.initial_scale**2 * eye
        else:
            m0 = state[0] @ F.mT
            P0 = F @ state[1].unflatten(-1, (size, size)) @ F.mT + Q
        H = self.core.loading.row(c.u[0])[None]
        R = (2 * self.log_noise).exp()[None]
        y, seen = x[..., :1].sinh(), x[..., 1:2] > 0.5
        system = kalman.LinearGaussianSystem(F, b, Q, m0, P0, H, x.new_zeros(1), R)
        filtered = kalman.filter(system, y, seen)
        out, states = self.inner(x, None if state is None else state[2:])
        cov = filtered.cov.expand(*filtered.mean.shape, size).flatten(-2)
        return torch.cat([out, filtered.mean], -1), (filtered.mean, cov, *states)

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        out, states = self(x[..., None, :], state)
        return out[..., 0, :], tuple(s[..., 0, :] for s in states)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        size = self.core.latent_dim
        eye = torch.eye(size, dtype=like.dtype, device=like.device)
        cov = (self.initial_scale**2 * eye).flatten().expand(*batch_shape, -1)
        return (like.new_zeros(*batch_shape, size), cov, *self.inner.initial(batch_shape, like))


class AnchoredParallel(Parallel):
    r"""A free Gauss-Markov chain that starts at the means that a :class:`KalmanBackbone` gives.

    .. math:: q(z_t \mid z_{t-1}) = N(a(e_t) z_{t-1} + b(e_t) + [\hat z_t, 0],\ s(e_t))

    with :math:`a` and :math:`b` small at the start, and :math:`\hat z_t` the filter's mean.

    Args:
        feature_dim: Width ``E`` of the encoder's features, of which the last are means.
        latent_dim: Random latent dimensions, of which the first are structural.
        core_dim: Number of means.

    Example:
        >>> posterior = AnchoredParallel(feature_dim=9, latent_dim=2, core_dim=1)
        >>> posterior.statistics(torch.zeros(3, 5, 9)).shape
        torch.Size([3, 5, 6])
    """

    def __init__(self, feature_dim: int, latent_dim: int, core_dim: int) -> None:
        super().__init__(feature_dim, latent_dim)
        self.core_dim = core_dim

    def statistics(self, features: Tensor) -> Tensor:
        learned, mean = features.tensor_split((features.shape[-1] - self.core_dim,), -1)
        a, b, s = self.head(torch.cat([learned, mean.asinh()], -1)).chunk(3, -1)
        anchor = nn.functional.pad(mean, (0, self.latent_dim - self.core_dim))
        return torch.cat([_LOOSE * a, anchor + _SOFT * b, s + _NARROW], -1)
