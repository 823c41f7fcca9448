"""Linear distributions in continuous time: exact over any gap."""

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from seqlatent.linalg import cholesky, van_loan
from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.linear import fitting
from seqlatent.transitions.parameters import Factor, Initialised, Number
from seqlatent.transitions.structural import Component, Loading, gap
from seqlatent.transitions.transition import DiagonalTransition, LinearTransition

__all__ = ["LinearSDE", "OrnsteinUhlenbeck"]


class OrnsteinUhlenbeck(DiagonalTransition, Component, Initialised):
    r"""Independent coordinates that return to a mean in continuous time, stationary from the start.

    .. math::
        dz = \tfrac{1}{\tau}(\mu - z)\,dt + \sigma \sqrt{2 / \tau}\,dW, \qquad
        z_t \mid z_{t-1} \sim N(\mu + a (z_{t-1} - \mu),\; \sigma^2 (1 - a^2)), \quad
        a = e^{-\Delta_t / \tau}

    The limit of a stationary AR(1) for any gap. As a component of a sum, its coordinates add up.

    Args:
        latent_dim: Width ``K`` of the state.
        time_scale: Initial :math:`\tau` in sampling steps: one for all coordinates, or one each.
        scale: Initial stationary standard deviation :math:`\sigma`.
        mean: Initial mean :math:`\mu`.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> p = OrnsteinUhlenbeck(1, time_scale=2.0)
        >>> dt = torch.tensor([[0.0], [1000.0]])
        >>> p(torch.full((2, 1), 5.0), Context.regular(2, dt=dt)).mean.squeeze(-1)
        tensor([5., 0.], grad_fn=<SqueezeBackward1>)

    References:
        On the Theory of the Brownian Motion (Uhlenbeck & Ornstein, 1930).
    """

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    logarithms: ClassVar[tuple[str, ...]] = ("log_time_scale",)
    log_time_scale: Tensor
    log_scale: Tensor
    mean: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        time_scale: Number | Iterable[Number] = 10.0,
        scale: Number = 1.0,
        mean: Number = 0.0,
    ) -> None:
        super().__init__()
        latent_dim = whole("latent_dim", latent_dim, 1)
        each = tuple(time_scale) if isinstance(time_scale, Iterable) else (time_scale,) * latent_dim
        if len(each) != latent_dim or not all(0 < x < math.inf for x in each):
            raise ValueError(
                f"time_scale must be a positive number of steps, or {latent_dim} of them, found "
                f"{time_scale!r}."
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be a positive standard deviation, found {scale!r}.")
        self.latent_dim = latent_dim
        self.handles_gaps = True
        self.loading = Loading.of(*[1] * latent_dim)
        self.start("log_time_scale", torch.tensor([float(x) for x in each]).log())
        self.start("log_scale", torch.full((latent_dim,), float(scale)).log())
        self.start("mean", torch.full((latent_dim,), float(mean)))

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        dt, rate = gap(c), (-self.log_time_scale).exp()
        exponent = -rate if dt is None else -rate * dt
        lost = -torch.expm1(exponent)
        return (
            exponent.exp(),
            lost * self.mean,
            self.log_scale.exp() * _root(-torch.expm1(2 * exponent)),
        )

    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_scale.exp()

    def extra_repr(self) -> str:
        scales = ", ".join(f"{x:.3g}" for x in self.log_time_scale.exp().tolist())
        return f"{self.latent_dim}, time_scale=({scales})"


def _root(x: Tensor) -> Tensor:
    """Square root whose slope at 0, the distribution over no gap at all, is 0 and not infinite."""
    return torch.where(x > 0, x.clamp_min(torch.finfo(x.dtype).tiny).sqrt(), 0 * x)


class LinearSDE(LinearTransition, Initialised):
    r"""A linear stochastic differential equation, discretised exactly.

    .. math:: dz = (A z + a)\,dt + L\,dW

    The stable form has :math:`A = S - \tfrac12 L L^\top` with :math:`S` skew-symmetric, whose
    stationary distribution is :math:`N(\mu, I)`, from which it starts; :math:`a = -A\mu`. After a
    change of coordinates, which an emission with free loadings absorbs, that is every stable
    equation whose noise reaches all directions. The free form learns :math:`A`, :math:`a`,
    :math:`L` and the distribution of the first state. For matrices that are known, see :meth:`of`.

    The matrix exponential is taken once for each gap that differs from the others.

    Args:
        latent_dim: Width ``K`` of the state.
        stable: Whether it takes the stable form.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> p, dt = LinearSDE(2), torch.tensor([[0.5], [1.0], [7.3]])
        >>> p(torch.zeros(3, 2), Context.regular(3, dt=dt)).batch_shape
        torch.Size([3])

    References:
        Applied Stochastic Differential Equations (Särkkä & Solin, 2019), section 6.2.
    """

    A: Tensor
    a: Tensor
    m0: Tensor
    turn: Tensor
    mean: Tensor

    def __init__(self, latent_dim: int, *, stable: bool = True) -> None:
        super().__init__()
        latent_dim = whole("latent_dim", latent_dim, 1)
        self.latent_dim = latent_dim
        self.handles_gaps = True
        self.stable = stable
        # time scales of 2 to 50 steps
        rate = torch.logspace(math.log10(0.5), math.log10(0.02), latent_dim)
        zeros, eye = torch.zeros(latent_dim), torch.eye(latent_dim)
        self.diffusion = Factor((2 * rate).diag(), what="diffusion L L^T")
        if stable:
            self.start("turn", torch.zeros(latent_dim, latent_dim))
            self.start("mean", zeros)
        else:
            self.start("A", -rate.diag())
            self.start("a", zeros)
            self.start("m0", zeros)
            self.spread = Factor(eye, what="initial covariance P0")

    @classmethod
    def of(
        cls, A: Tensor, a: Tensor, LLT: Tensor, m0: Tensor, P0: Tensor, *, learn: bool = False
    ) -> "LinearSDE":
        r"""Builds the equation from its matrices.

        Args:
            A: Drift.
            a: Offset of the drift.
            LLT: Diffusion :math:`L L^\top`, possibly singular, as where noise enters a velocity.
            m0: Mean of the first state.
            P0: Covariance of the first state.
            learn: Whether the matrices are starting values of parameters, or fixed.

        Shape:
            A, LLT, P0 ``(K, K)``; a, m0 ``(K,)``.

        Raises:
            TypeError: If an argument is no floating tensor.
            ValueError: If a shape does not fit, a value is not finite, LLT or P0 is no covariance,
                or the noise does not reach every direction of the state.

        Example:
            >>> A = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
            >>> zeros, noise = torch.zeros(2), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
            >>> p = LinearSDE.of(A, zeros, noise, zeros, torch.eye(2))
            >>> p.matrices(Context.regular(1))[0]
            tensor([[1., 1.],
                    [0., 1.]])
        """
        a, m0, LLT, P0 = fitting(
            {"A": A}, vectors={"a": a, "m0": m0}, covariances={"LLT": LLT, "P0": P0}
        )
        size = len(A)
        distribution = cls(size, stable=False)
        distribution.diffusion = Factor(LLT, learn=learn, what="diffusion L L^T")
        distribution.spread = Factor(P0, learn=learn, what="initial covariance P0")
        for name, x in (("A", A), ("a", a), ("m0", m0)):
            distribution.start(name, x, learn=learn)
        _, Q = van_loan(A, LLT, A.new_ones(()))
        rank = int(torch.linalg.matrix_rank(Q, hermitian=True))
        if rank < size:
            raise ValueError(
                "the noise must reach every direction of the state, found that the covariance of a "
                f"unit step has rank {rank} of {size}. Give LLT a small variance there, or leave "
                "out of the state what has no noise."
            )
        return distribution

    def drift(self) -> tuple[Tensor, Tensor]:
        r"""Drift :math:`A` ``(K, K)`` and its offset :math:`a` ``(K,)``."""
        if not self.stable:
            return self.A, self.a
        L = self.diffusion()
        A = (self.turn - self.turn.mT) - 0.5 * L @ L.mT
        return A, -A @ self.mean

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        A, a = self.drift()
        L = self.diffusion()
        gaps, index = torch.unique(c.dt[..., 0], return_inverse=True)
        # one more coordinate, which is always 1 and feeds the offset
        size = self.latent_dim
        augmented = torch.nn.functional.pad(torch.cat([A, a[:, None]], -1), (0, 0, 0, 1))
        diffusion = torch.nn.functional.pad(L @ L.mT, (0, 1, 0, 1))
        F, Q = van_loan(augmented, diffusion, gaps)
        F, b, Q = F[..., :size, :size], F[..., :size, size], Q[..., :size, :size]
        G = cholesky(Q, what="covariance of the noise over a gap")
        if len(gaps) == 1:
            return F[0], b[0], G[0]
        return F[index], b[index], G[index]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        if not self.stable:
            return self.m0, self.spread()
        return self.mean, torch.eye(self.latent_dim, dtype=self.mean.dtype, device=self.mean.device)

    def extra_repr(self) -> str:
        return f"{self.latent_dim}, stable={self.stable}"
