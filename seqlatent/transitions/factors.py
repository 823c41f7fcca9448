"""Vector autoregressions, which drive the factors of a panel, and transitions side by side."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.cycles import (
    autoregressive_coefficients,
    partial_autocorrelations,
    stationary_factor,
)
from seqlatent.transitions.linear import require
from seqlatent.transitions.parameters import Initialised, Number, positive
from seqlatent.transitions.structural import _join, block_diagonal
from seqlatent.transitions.transition import LinearTransition, Transition

__all__ = ["Joint", "VectorAR"]


class VectorAR(LinearTransition, Initialised):
    r"""A stationary autoregression of a vector.

    .. math:: x_t = \sum_{j=1}^p \Phi_j x_{t-j} + \sigma \odot \varepsilon_t, \qquad
        z_t = [x_t, \dots, x_{t-p+1}]

    The coefficients are functions of partial autocorrelations, matrices with singular values below
    one, so that it is stationary whatever the parameters. The first state follows the stationary
    distribution. Factors of a panel have noises of unit variance: their size is in the loadings.

    Args:
        size: Coordinates ``N`` of the vector.
        order: Number of lags ``p``.
        diagonal: Whether the coordinates are autoregressions of their own.
        scale: Initial standard deviation :math:`\sigma` of each noise.
        learn_scale: Whether the standard deviations are learned.
        coefficients: Initial :math:`\Phi`, stationary; a first lag of 0.5 by default.

    Shape:
        ``forward``: z ``(*S, B, T, N p)`` -> Distribution, batch ``(*S, B, T)``, event ``(N p,)``;
        coefficients ``(p, N, N)``, or ``(p, N)`` where they are diagonal.

    Example:
        >>> p = VectorAR(2, coefficients=torch.tensor([[[0.5, 0.2], [0.1, 0.8]]]))
        >>> p.coefficients.detach().round(decimals=4)
        tensor([[[0.5000, 0.2000],
                 [0.1000, 0.8000]]])

    References:
        A Note on Reparameterizing a Vector Autoregressive Moving Average Model to Enforce
        Stationarity (Ansley & Kohn, 1986).
    """

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    partial: Tensor
    log_scale: Tensor

    def __init__(
        self,
        size: int,
        order: int = 1,
        *,
        diagonal: bool = False,
        scale: Number = 1.0,
        learn_scale: bool = False,
        coefficients: Tensor | None = None,
    ) -> None:
        super().__init__()
        size, order = whole("size", size, 1), whole("order", order, 1)
        if positive("scale", scale) is None:
            raise ValueError("a stationary autoregression needs a noise, found scale 0 or None.")
        self.size, self.order, self.diagonal = size, order, diagonal
        self.latent_dim = size * order
        shape = (order, size) if diagonal else (order, size, size)
        if coefficients is None:
            coefficients = torch.zeros(shape)
            coefficients[0] = 0.5 if diagonal else 0.5 * torch.eye(size)
        require("coefficients", coefficients, shape, f"{size} coordinates have {order} lags")
        partial = _diagonal_partial if diagonal else _matrix_partial
        self.start("partial", partial(coefficients.double()).to(torch.get_default_dtype()))
        self.start("log_scale", torch.full((size,), float(scale)).log(), learn=learn_scale)

    @property
    def coefficients(self) -> Tensor:
        r"""Coefficients :math:`\Phi` ``(p, N, N)``, or ``(p, N)`` where they are diagonal."""
        if self.diagonal:
            return autoregressive_coefficients(self.partial.tanh().mT)[-1].mT
        phi = _Whittle(self.partial).coefficients
        scale = self.log_scale.exp()
        return scale[:, None] * phi / scale

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        phi, width = self.coefficients, self.latent_dim
        phi = phi.diag_embed() if self.diagonal else phi
        eye = torch.eye(width, dtype=phi.dtype, device=phi.device)
        F = torch.cat([phi.movedim(0, 1).reshape(self.size, width), eye[: width - self.size]])
        return F, torch.zeros_like(eye[0]), eye[:, : self.size] * self.log_scale.exp()

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        if self.diagonal:
            blocks = stationary_factor(self.partial.tanh().mT, self.log_scale[:, None])
            blocks = blocks.movedim(0, -1).diag_embed()
        else:
            blocks = _Whittle(self.partial).stationary * self.log_scale.exp()[:, None]
        G0 = blocks.movedim(1, 2).reshape(self.latent_dim, self.latent_dim)
        return torch.zeros_like(G0[0]), G0

    def extra_repr(self) -> str:
        text = f"{self.size}, order={self.order}"
        return text + (", diagonal=True" if self.diagonal else "")


class Joint(LinearTransition):
    r"""Independent linear transitions side by side.

    .. math:: z_t = [z^1_t, \dots, z^n_t]

    :class:`Sum` adds components up to one observed dimension; here an emission has loadings of its
    own.

    Args:
        parts: The transitions.

    Raises:
        TypeError: If one of them is not linear.

    Example:
        >>> Joint([VectorAR(2, 3), VectorAR(4, diagonal=True)]).latent_dim
        10
    """

    def __init__(self, parts: Iterable[Transition]) -> None:
        super().__init__()
        found: list[LinearTransition] = []
        for part in parts:
            if not isinstance(part, LinearTransition):
                raise TypeError(
                    f"Joint puts linear transitions side by side, found {type(part).__name__} at "
                    f"position {len(found)}; use VectorAR, LinearGaussian or components."
                )
            found.append(part)
        if not found:
            raise ValueError("Joint needs at least one transition, found none.")
        self.parts = nn.ModuleList(found)
        self.latent_dim = sum(part.latent_dim for part in found)
        self.handles_gaps = all(part.handles_gaps for part in found)

    def _linear(self) -> list[LinearTransition]:
        return [part for part in self.parts if isinstance(part, LinearTransition)]

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        if not self.handles_gaps:
            c = c.replace(dt=torch.ones_like(c.dt))
        F, b, G = zip(*(part.matrices(c) for part in self._linear()), strict=True)
        return block_diagonal(F), _join(b), block_diagonal(G)

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        m0, G0 = zip(*(part.initial_moments(c) for part in self._linear()), strict=True)
        return _join(m0), block_diagonal(G0)


class _Whittle:
    r"""Vector autoregressions of orders 0 to p that have given partial autocorrelations.

    .. math::
        \Phi_{s+1,s+1} &= L_s P_{s+1} L_s^{*-1}, \qquad
        \Phi_{s+1,k} = \Phi_{s,k} - \Phi_{s+1,s+1} \Phi^*_{s,s+1-k} \\
        V_{s+1} &= L_s (I - P_{s+1} P_{s+1}^\top) L_s^\top

    with starred letters for the autoregressions on what comes later, and factors L of the noise
    covariances V. In the end the vector is scaled so that the last noise is white.

    Args:
        free: Unconstrained matrices ``(p, N, N)``.

    Attributes:
        coefficients: Those of order p, for white noise ``(p, N, N)``.
        stationary: Blocks ``(p, p, N, N)`` of a factor of the covariance of the last p vectors.
    """

    def __init__(self, free: Tensor) -> None:
        order, size = free.shape[:2]
        eye = torch.eye(size, dtype=free.dtype, device=free.device)
        ahead: list[list[Tensor]] = [[]]
        back: list[Tensor] = []
        L, L_back, factors = eye, eye, [eye]
        for A in free:
            B = torch.linalg.cholesky(eye + A @ A.mT)
            P = torch.linalg.solve_triangular(B, A, upper=False)
            last = L @ _over(P, L_back)
            last_back = L_back @ _over(P.mT, L)
            old = ahead[-1]
            ahead.append([x - last @ y for x, y in zip(old, back[::-1], strict=True)] + [last])
            back = [x - last_back @ y for x, y in zip(back, old[::-1], strict=True)] + [last_back]
            L = _over(L, B)
            C = torch.linalg.cholesky(eye + A.mT @ A)
            half = _over(L_back, C.mT, upper=True)
            L_back = torch.linalg.cholesky(half @ half.mT)
            factors.append(L)
        white = torch.linalg.solve_triangular(L, eye, upper=False)
        self.coefficients = torch.stack([white @ phi @ L for phi in ahead[-1]])
        # each vector less its prediction from the older ones of the state is independent of them
        rows = []
        for i in range(order):
            known = ahead[order - 1 - i]
            rows.append(torch.cat([eye.new_zeros(size, i * size), eye, *(-x for x in known)], -1))
        errors = torch.block_diag(*factors[order - 1 :: -1])
        found = torch.linalg.solve_triangular(
            torch.cat(rows), errors, upper=True, unitriangular=True
        )
        blocks = found.reshape(order, size, order, size).movedim(1, 2)
        self.stationary = white @ blocks


def _over(x: Tensor, L: Tensor, *, upper: bool = False) -> Tensor:
    """``x`` times the inverse of a triangular matrix."""
    return torch.linalg.solve_triangular(L, x, upper=upper, left=False)


def _diagonal_partial(coefficients: Tensor) -> Tensor:
    """Unconstrained numbers ``(p, N)`` of autoregressions side by side."""
    found = torch.stack([partial_autocorrelations(phi) for phi in coefficients.unbind(-1)], -1)
    if not bool((found.abs() < 1).all()):
        raise ValueError(f"the coefficients {coefficients.tolist()} are not stationary.")
    return found.atanh()


def _matrix_partial(coefficients: Tensor) -> Tensor:
    """Unconstrained matrices ``(p, N, N)`` of a vector autoregression with white noise."""
    order, size = coefficients.shape[:2]
    width = order * size
    eye = torch.eye(width, dtype=coefficients.dtype)
    F = torch.cat([coefficients.movedim(0, 1).reshape(size, width), eye[: width - size]])
    if float(torch.linalg.eigvals(F).abs().max()) >= 1:
        raise ValueError(f"the coefficients {coefficients.tolist()} are not stationary.")
    Q = eye.clone()
    Q[size:] = 0.0
    lyapunov = torch.eye(width**2, dtype=eye.dtype) - torch.kron(F, F)
    P = torch.linalg.solve(lyapunov, Q.flatten()).reshape(width, width)
    autocovariance = [P[:size, i * size : (i + 1) * size] for i in range(order)]
    pairs = zip(coefficients, autocovariance[::-1], strict=True)
    autocovariance.append(sum((phi @ gamma for phi, gamma in pairs), torch.zeros(size, size)))
    return _unconstrained(autocovariance)


def _unconstrained(autocovariance: list[Tensor]) -> Tensor:
    """The recursion of :class:`_Whittle` the other way."""
    V = V_back = autocovariance[0]
    eye = torch.eye(len(V), dtype=V.dtype)
    ahead: list[Tensor] = []
    back: list[Tensor] = []
    free = []
    for s in range(len(autocovariance) - 1):
        L, L_back = torch.linalg.cholesky(V), torch.linalg.cholesky(V_back)
        known = [phi @ autocovariance[s - k] for k, phi in enumerate(ahead)]
        rest = autocovariance[s + 1] - sum(known, torch.zeros_like(V))
        P = torch.linalg.solve_triangular(L, _over(rest, L_back.mT, upper=True), upper=False)
        last, last_back = L @ _over(P, L_back), L_back @ _over(P.mT, L)
        ahead, back = (
            [x - last @ y for x, y in zip(ahead, back[::-1], strict=True)] + [last],
            [x - last_back @ y for x, y in zip(back, ahead[::-1], strict=True)] + [last_back],
        )
        V = L @ (eye - P @ P.mT) @ L.mT
        V_back = L_back @ (eye - P.mT @ P) @ L_back.mT
        inverse = torch.linalg.cholesky(eye - P @ P.mT)
        free.append(torch.linalg.solve_triangular(inverse, P, upper=False))
    return torch.stack(free)
