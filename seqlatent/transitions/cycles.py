"""Components that return to their mean: stochastic cycle, autoregression."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Initialised, Number, positive
from seqlatent.transitions.seasonals import rotation
from seqlatent.transitions.structural import Component, Loading, constant, gap
from seqlatent.transitions.transition import LinearTransition

__all__ = ["AR", "Cycle", "autoregressive_coefficients", "partial_autocorrelations"]


class Cycle(LinearTransition, Component, Initialised):
    r"""A stochastic cycle, which returns to zero at the rate of its damping.

    .. math::
        z_t = \rho^{\Delta_t} R(\lambda \Delta_t)\, z_{t-1} + s(\Delta_t)\, \varepsilon_t, \qquad
        s^2(\Delta) = \sigma^2 \frac{1 - \rho^{2\Delta}}{1 - \rho^2}, \quad \lambda = 2 \pi / p

    with the rotation R of :class:`TrigonometricSeasonal`. Period and damping are learned. The first
    state follows the stationary law :math:`N(0, \sigma^2 / (1 - \rho^2))`.

    Args:
        period: Initial period :math:`p`, more than 2 steps.
        scale: Initial standard deviation :math:`\sigma` of one unit step.
        damping: Initial :math:`\rho` in (0, 1).

    Shape:
        ``forward``: z ``(*S, B, T, 2)`` -> Distribution, batch ``(*S, B, T)``, event ``(2,)``.

    Example:
        >>> Cycle(40.0)
        Cycle(period=40, damping=0.95, scale=0.1)

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.3.3.
    """

    period_excess: Tensor
    damping_logit: Tensor
    log_scale: Tensor

    def __init__(self, period: Number, scale: Number = 0.1, *, damping: Number = 0.95) -> None:
        super().__init__()
        if not 2 < period < math.inf:
            raise ValueError(
                f"period must be more than 2 steps, found {period!r}: faster cycles look like "
                "slower ones."
            )
        if not 0 < damping < 1:
            raise ValueError(
                f"damping must lie in (0, 1), found {damping!r}; a cycle that never dies is "
                "TrigonometricSeasonal(period, 1)."
            )
        if positive("scale", scale) is None:
            raise ValueError("a cycle that returns to zero needs a noise, found scale 0 or None.")
        self.latent_dim = 2
        self.handles_gaps = True
        self.loading = Loading.of(1, 0)
        self.start("period_excess", torch.tensor(float(period) - 2).log())
        self.start("damping_logit", torch.tensor(float(damping)).logit())
        self.start("log_scale", torch.tensor(float(scale)).log())

    @property
    def period(self) -> Tensor:
        """Period in steps, at least 2."""
        return 2 + self.period_excess.exp()

    @property
    def damping(self) -> Tensor:
        """What a cycle keeps of itself over a step, in (0, 1)."""
        return self.damping_logit.sigmoid()

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        dt = gap(c)
        dt = constant([1], c)[0] if dt is None else dt[..., 0]
        log_damping = torch.nn.functional.logsigmoid(self.damping_logit)
        F = rotation(2 * math.pi / self.period * dt) * (dt * log_damping).exp()[..., None, None]
        growth = torch.expm1(2 * dt * log_damping) / torch.expm1(2 * log_damping)
        eye = torch.eye(2, dtype=F.dtype, device=F.device)
        G = (self.log_scale.exp() * growth.sqrt())[..., None, None] * eye
        return F, torch.zeros_like(eye[0]), G

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        log_damping = torch.nn.functional.logsigmoid(self.damping_logit)
        scale = self.log_scale.exp() / (-torch.expm1(2 * log_damping)).sqrt()
        eye = torch.eye(2, dtype=scale.dtype, device=scale.device)
        return torch.zeros_like(eye[0]), scale * eye

    def extra_repr(self) -> str:
        period, damping, scale = (
            self.period.item(),
            self.damping.item(),
            self.log_scale.exp().item(),
        )
        return f"period={period:.3g}, damping={damping:.3g}, scale={scale:.3g}"


class AR(LinearTransition, Component, Initialised):
    r"""A stationary autoregression.

    .. math:: x_t = \sum_{j=1}^p \phi_j x_{t-j} + \sigma \varepsilon_t, \qquad
        z_t = [x_t, \dots, x_{t-p+1}]

    The coefficients are functions of partial autocorrelations :math:`r_j = \tanh(\cdot)`, so that
    it is stationary whatever the parameters. The first state follows the stationary law.

    Args:
        order: Number of lags :math:`p`.
        scale: Initial standard deviation :math:`\sigma`.
        coefficients: Initial :math:`\phi`, stationary; a first lag of 0.5 by default.

    Shape:
        ``forward``: z ``(*S, B, T, p)`` -> Distribution, batch ``(*S, B, T)``, event ``(p,)``.

    Example:
        >>> AR(2, coefficients=(0.5, 0.3)).coefficients
        tensor([0.5000, 0.3000], grad_fn=<CatBackward0>)

    References:
        On the Partial Autocorrelation Parameterization (Monahan, 1984).
    """

    partial: Tensor
    log_scale: Tensor

    def __init__(
        self, order: int, scale: Number = 0.3, *, coefficients: Iterable[Number] | None = None
    ) -> None:
        super().__init__()
        if isinstance(order, bool) or not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be an integer of at least 1, found {order!r}.")
        if positive("scale", scale) is None:
            raise ValueError("a stationary autoregression needs a noise, found scale 0 or None.")
        phi = (0.5,) + (0.0,) * (order - 1) if coefficients is None else tuple(coefficients)
        if len(phi) != order:
            raise ValueError(f"an AR({order}) has {order} coefficients, found {len(phi)}.")
        self.latent_dim = order
        self.loading = Loading.of(1, *[0] * (order - 1))
        partial = partial_autocorrelations(torch.tensor(phi, dtype=torch.float64))
        if not bool((partial.abs() < 1).all()):
            raise ValueError(
                f"the coefficients {phi} are not stationary; difference the series, or use "
                "LocalLevel or Seasonal for what does not return to its mean."
            )
        self.start("partial", partial.atanh().to(torch.get_default_dtype()))
        self.start("log_scale", torch.tensor(float(scale)).log())

    @property
    def coefficients(self) -> Tensor:
        r"""Coefficients :math:`\phi` ``(p,)``."""
        return autoregressive_coefficients(self.partial.tanh())[-1]

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        phi = self.coefficients
        eye = torch.eye(self.latent_dim, dtype=phi.dtype, device=phi.device)
        F = torch.cat([phi[None], eye[:-1]])
        return F, torch.zeros_like(eye[0]), eye[:, :1] * self.log_scale.exp()

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        r"""Moments of the stationary law.

        The prediction error of :math:`x_{t-i}` from what comes before it in the state has the
        variance :math:`\sigma^2 \prod_{j > p-1-i} (1 - r_j^2)^{-1}`, and the errors are
        independent: one triangular system gives a factor of the covariance.
        """
        order, partial = self.latent_dim, self.partial.tanh()
        every = autoregressive_coefficients(partial)
        rows = [torch.nn.functional.pad(-phi, (order - len(phi), 0)) for phi in every[:-1]]
        rows = [torch.zeros_like(partial), *rows][::-1]
        whiten = torch.stack(rows) + torch.eye(order, dtype=partial.dtype, device=partial.device)
        left = torch.log1p(-partial.square()).flip(0).cumsum(0)
        errors = (self.log_scale - left / 2).exp()
        factor = torch.linalg.solve_triangular(
            whiten, errors.diag(), upper=True, unitriangular=True
        )
        return torch.zeros_like(partial), factor

    def extra_repr(self) -> str:
        phi = ", ".join(f"{x:.3g}" for x in self.coefficients.tolist())
        return f"{self.latent_dim}, scale={self.log_scale.exp().item():.3g}, coefficients=({phi})"


def autoregressive_coefficients(partial: Tensor) -> list[Tensor]:
    r"""Coefficients of the autoregressions of orders 1 to p with given partial autocorrelations.

    .. math:: \phi_{k,k} = r_k, \qquad \phi_{k,j} = \phi_{k-1,j} - r_k\, \phi_{k-1,k-j}

    Args:
        partial: Partial autocorrelations ``(p,)`` in (-1, 1).

    References:
        The Fitting of Time-Series Models (Durbin, 1960).
    """
    phi, every = partial[:0], []
    for r in partial.unbind():
        phi = torch.cat([phi - r * phi.flip(0), r[None]])
        every.append(phi)
    return every


def partial_autocorrelations(coefficients: Tensor) -> Tensor:
    """Partial autocorrelations ``(p,)``: all in (-1, 1) if and only if it is stationary."""
    phi, partial = coefficients, []
    while len(phi):
        r = phi[-1]
        partial.append(r)
        if bool(r.abs() >= 1):
            return torch.stack([*(torch.zeros_like(r) for _ in phi[:-1]), *partial[::-1]])
        phi = (phi[:-1] + r * phi[:-1].flip(0)) / (1 - r.square())
    return torch.stack(partial[::-1])
