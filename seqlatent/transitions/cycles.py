"""Components that return to their mean: stochastic cycle, autoregression."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.parameters import Number, positive
from seqlatent.transitions.seasonals import rotation
from seqlatent.transitions.structural import Loading, Structural, constant, gap

__all__ = ["AR", "Cycle", "autoregressive_coefficients"]


class Cycle(Structural):
    r"""A stochastic cycle, which returns to zero at the rate of its damping.

    .. math::
        z_t = \rho^{\Delta_t} R(\lambda \Delta_t)\, z_{t-1} + s(\Delta_t)\, \varepsilon_t, \qquad
        s^2(\Delta) = \sigma^2 \frac{1 - \rho^{2\Delta}}{1 - \rho^2}, \quad \lambda = 2 \pi / p

    with the rotation R of :class:`TrigonometricSeasonal`. Period and damping are learned. The first
    state follows the stationary distribution :math:`N(0, \sigma^2 / (1 - \rho^2))`, or a wide one.
    Without damping, :math:`\rho = 1`, or without noise there is no stationary distribution.

    Args:
        period: Initial period :math:`p`, more than 2 steps.
        scale: Initial standard deviation :math:`\sigma` of one unit step; None for no noise.
        damping: Initial :math:`\rho` in (0, 1); None for a cycle that never dies.
        bounds: Between which periods the learned one stays, of 2 steps and more.
        initial_scale: Standard deviation of the first state, in units of the standardised series;
            None for that of the stationary distribution, or 10 where there is none.
        learn_initial: Whether the mean of the first state is learned, or 0.

    Shape:
        ``forward``: z ``(*S, B, T, 2)`` -> Distribution, batch ``(*S, B, T)``, event ``(2,)``.

    Example:
        >>> Cycle(40.0)
        Cycle(period=40, damping=0.95, scale=0.1)
        >>> Cycle(11.0, None, damping=None, bounds=(9.0, 13.0))
        Cycle(period=11)

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), ch. 2.3.3.
    """

    frequency_logit: Tensor
    damping_logit: Tensor | None

    def __init__(
        self,
        period: Number,
        scale: Number | None = 0.1,
        *,
        damping: Number | None = 0.95,
        bounds: tuple[Number, Number] = (2.0, math.inf),
        initial_scale: Number | None = None,
        learn_initial: bool = False,
    ) -> None:
        _check_period(period, bounds)
        if damping is not None and not 0 < damping < 1:
            raise ValueError(
                f"damping must lie in (0, 1), found {damping!r}; a cycle that never dies has "
                "damping=None."
            )
        noisy = positive("scale", scale) is not None
        if damping is not None and not noisy and initial_scale is None:
            raise ValueError(
                "a cycle that returns to zero needs a noise, found scale 0 or None; pass "
                "damping=None for one that never dies, or an initial_scale for one that does."
            )
        first = 10.0 if initial_scale is None else initial_scale
        super().__init__(
            Loading.of(1, 0), initial_scale=(first, first), learn_initial=learn_initial
        )
        self.stationary = damping is not None and initial_scale is None
        self.handles_gaps = True
        self.band = 2 * math.pi / bounds[1], 2 * math.pi / bounds[0]
        part = (2 * math.pi / period - self.band[0]) / (self.band[1] - self.band[0])
        self.start("frequency_logit", torch.tensor([part]).logit())
        if damping is None:
            self.register_parameter("damping_logit", None)
        else:
            self.start("damping_logit", torch.tensor([float(damping)]).logit())
        self.learn_scale("scale", scale)

    @property
    def period(self) -> Tensor:
        """Period in steps ``(1,)``, within its bounds."""
        return 2 * math.pi / self._frequency(None)

    @property
    def damping(self) -> Tensor:
        """What a cycle keeps of itself over a step ``(1,)``, in (0, 1), or 1."""
        return self._log_damping(None).exp()

    def _frequency(self, c: Context | None) -> Tensor:
        low, high = self.band
        return low + (high - low) * self.read("frequency_logit", c).sigmoid()

    def _log_damping(self, c: Context | None) -> Tensor:
        if self.damping_logit is None:
            return torch.zeros_like(self.frequency_logit[..., :1])
        return nn.functional.logsigmoid(self.read("damping_logit", c))

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        dt = gap(c)
        dt = constant([1], c) if dt is None else dt
        F, growth = rotation((self._frequency(c) * dt)[..., 0]), dt
        if self.damping_logit is not None:
            log_damping = self._log_damping(c)
            F = F * (dt * log_damping).exp()[..., None]
            growth = torch.expm1(2 * dt * log_damping) / torch.expm1(2 * log_damping)
        eye = torch.eye(2, dtype=F.dtype, device=F.device)
        scale = self.scale_of("scale", c)
        G = eye[:, :0] if scale is None else (scale * growth.sqrt())[..., None] * eye
        return F, torch.zeros_like(eye[0]), G

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        mean, G0 = super().initial_moments(c)
        scale = self.scale_of("scale", c)
        if not self.stationary or scale is None:
            return mean, G0
        left = -torch.expm1(2 * self._log_damping(c))
        eye = torch.eye(2, dtype=G0.dtype, device=G0.device)
        return mean, (scale / left.sqrt())[..., None] * eye

    def extra_repr(self) -> str:
        found = {"period": self.period}
        if self.damping_logit is not None:
            found["damping"] = self.damping
        text = [f"{name}={value.detach().mean().item():.3g}" for name, value in found.items()]
        scale = self.scale_of("scale")
        text += [] if scale is None else [f"scale={scale.detach().mean().item():.3g}"]
        return ", ".join(text + ([] if self.series is None else [f"series={self.series}"]))


class AR(Structural):
    r"""A stationary autoregression.

    .. math:: x_t = \sum_{j=1}^p \phi_j x_{t-j} + \sigma \varepsilon_t, \qquad
        z_t = [x_t, \dots, x_{t-p+1}]

    The coefficients are functions of partial autocorrelations :math:`r_j = \tanh(\cdot)`, so that
    it is stationary whatever the parameters. The first state follows the stationary distribution.

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
        order = whole("order", order, 1)
        if positive("scale", scale) is None:
            raise ValueError("a stationary autoregression needs a noise, found scale 0 or None.")
        phi = (0.5,) + (0.0,) * (order - 1) if coefficients is None else tuple(coefficients)
        if len(phi) != order:
            raise ValueError(f"an AR({order}) has {order} coefficients, found {len(phi)}.")
        partial = partial_autocorrelations(torch.tensor(phi, dtype=torch.float64))
        if not bool((partial.abs() < 1).all()):
            raise ValueError(
                f"the coefficients {phi} are not stationary; difference the series, or use "
                "LocalLevel or Seasonal for what does not return to its mean."
            )
        super().__init__(Loading.of(1, *[0] * (order - 1)), initial_scale=(1.0,) * order)
        self.start("partial", partial.atanh().to(torch.get_default_dtype()))
        self.learn_scale("scale", scale)

    @property
    def coefficients(self) -> Tensor:
        r"""Coefficients :math:`\phi` ``(p,)``."""
        return autoregressive_coefficients(self.partial.tanh())[-1]

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        phi = autoregressive_coefficients(self.read("partial", c).tanh())[-1]
        eye = torch.eye(self.latent_dim, dtype=phi.dtype, device=phi.device)
        shift = eye[:-1].expand(*phi.shape[:-1], -1, -1)
        F = torch.cat([phi[..., None, :], shift], -2)
        return F, torch.zeros_like(eye[0]), eye[:, :1] * self.read("log_scale", c).exp()[..., None]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        factor = stationary_factor(self.read("partial", c).tanh(), self.read("log_scale", c))
        return constant([0] * self.latent_dim, c), factor

    def extra_repr(self) -> str:
        phi = self.coefficients.detach().reshape(-1, self.latent_dim).mean(0).tolist()
        text = [str(self.latent_dim), f"scale={self.log_scale.detach().exp().mean().item():.3g}"]
        text += [f"coefficients=({', '.join(f'{x:.3g}' for x in phi)})"]
        return ", ".join(text + ([] if self.series is None else [f"series={self.series}"]))


def stationary_factor(partial: Tensor, log_scale: Tensor) -> Tensor:
    r"""Factor of the covariance of :math:`[x_t, \dots, x_{t-p+1}]` of stationary autoregressions.

    The prediction error of :math:`x_{t-i}` from what comes before it in the state has the variance
    :math:`\sigma^2 \prod_{j > p-1-i} (1 - r_j^2)^{-1}`, and the errors are independent: one
    triangular system gives a factor.

    Args:
        partial: Partial autocorrelations ``(..., p)``.
        log_scale: Logarithms of the standard deviations ``(..., 1)`` of the noise.

    Shape:
        The factor is ``(..., p, p)``.
    """
    order = partial.shape[-1]
    every = autoregressive_coefficients(partial)
    rows = [nn.functional.pad(-phi, (order - phi.shape[-1], 0)) for phi in every[:-1]]
    rows = [torch.zeros_like(partial), *rows][::-1]
    whiten = torch.stack(rows, -2) + torch.eye(order, dtype=partial.dtype, device=partial.device)
    left = torch.log1p(-partial.square()).flip(-1).cumsum(-1)
    errors = (log_scale - left / 2).exp()
    return torch.linalg.solve_triangular(
        whiten, errors.diag_embed(), upper=True, unitriangular=True
    )


def autoregressive_coefficients(partial: Tensor) -> list[Tensor]:
    r"""Coefficients of the autoregressions of orders 1 to p with given partial autocorrelations.

    .. math:: \phi_{k,k} = r_k, \qquad \phi_{k,j} = \phi_{k-1,j} - r_k\, \phi_{k-1,k-j}

    Args:
        partial: Partial autocorrelations ``(..., p)`` in (-1, 1).

    References:
        The Fitting of Time-Series Models (Durbin, 1960).
    """
    phi, every = partial[..., :0], []
    for r in partial.split(1, -1):
        phi = torch.cat([phi - r * phi.flip(-1), r], -1)
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


def _check_period(period: Number, bounds: tuple[Number, Number]) -> None:
    low, high = bounds
    if not 2 <= low < high:
        raise ValueError(
            f"bounds must be two periods of at least 2 steps, in order, found {bounds!r}: faster "
            "cycles look like slower ones."
        )
    if not 2 < period < math.inf:
        raise ValueError(
            f"period must be more than 2 steps, found {period!r}: faster cycles look like slower "
            "ones."
        )
    if not low < period < high:
        raise ValueError(
            f"period must lie between its bounds {bounds!r}, found {period!r}; start within them."
        )
