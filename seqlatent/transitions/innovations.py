"""Exponential smoothing as a linear Gaussian model: one noise drives state and observation."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Number, positive
from seqlatent.transitions.structural import Loading, Structural, constant

__all__ = ["Innovations", "Smoothing"]


class Smoothing(NamedTuple):
    """What exponential smoothing takes over of an innovation, and what it keeps of a slope.

    Attributes:
        level: Part of an innovation that enters the level.
        trend: Part that enters the slope, None without one.
        seasonal: Part that enters the effect of the season, None without one.
        damping: What the slope keeps of itself over a step, None where that is all.
    """

    level: Tensor
    trend: Tensor | None
    seasonal: Tensor | None
    damping: Tensor | None


class Innovations(Structural):
    r"""Additive exponential smoothing in innovations form, ETS(A, N/A/Ad, N/A).

    .. math::
        y_t &= \ell_{t-1} + \phi b_{t-1} + s_{t-m} + e_t, \qquad e_t \sim N(0, \sigma^2) \\
        \ell_t &= \ell_{t-1} + \phi b_{t-1} + \alpha e_t, \quad
        b_t = \phi b_{t-1} + \beta e_t, \quad s_t = s_{t-m} + \gamma e_t

    The state is :math:`z_t = [\ell_{t-1}, \phi b_{t-1}, s_{t-1}, \dots, s_{t-m}, e_t]`. All noise
    is in :math:`e_t`, so the emission has none: ``LinearGaussian(..., bias=False, scale=None)``. A
    missing value leaves its innovation open, which the filter integrates out.

    Args:
        scale: Initial standard deviation :math:`\sigma` of the innovations.
        trend: Whether there is a slope.
        damped: Whether that slope dies out.
        season_length: Steps :math:`m` of a season; None for none.
        smoothing_level: Initial :math:`\alpha`.
        smoothing_trend: Initial :math:`\beta`.
        smoothing_seasonal: Initial :math:`\gamma`.
        damping: Initial :math:`\phi`.
        damping_bounds: Between which values :math:`\phi` stays.
        admissible: Whether the learned values stay where forecasts forget the distant past, which
            is all that is needed, rather than in the usual region, where each new state lies
            between the old one and the observation: :math:`0 < \beta < \alpha < 1` and
            :math:`0 < \gamma < 1 - \alpha`.
        initial_scale: Standard deviation of the first level, slope and effects, in units of the
            standardised series; None if they are learned numbers.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Raises:
        ValueError: If a value at the start is outside of its region, or the admissible region of a
            slope with a season is asked for, which has no closed form.

    Example:
        >>> p = Innovations(trend=True, damped=True, season_length=4, smoothing_level=0.4)
        >>> p.smoothing_parameters().level, p.latent_dim
        (tensor([0.4000], grad_fn=<SigmoidBackward0>), 7)

    References:
        Forecasting with Exponential Smoothing: the State Space Approach (Hyndman, Koehler, Ord &
        Snyder, 2008), table 2.2 and chapter 10.
    """

    smoothing: Tensor
    log_scale: Tensor

    def __init__(
        self,
        scale: Number = 0.5,
        *,
        trend: bool = False,
        damped: bool = False,
        season_length: int | None = None,
        smoothing_level: Number = 0.3,
        smoothing_trend: Number = 0.03,
        smoothing_seasonal: Number = 0.05,
        damping: Number = 0.95,
        damping_bounds: tuple[Number, Number] = (0.8, 0.98),
        admissible: bool = False,
        initial_scale: Number | None = None,
    ) -> None:
        m = 0 if season_length is None else season_length
        _check(scale, trend, damped, season_length, admissible, initial_scale)
        seasons = (0,) * (m - 1) + (1,) * (m > 0)
        loading = Loading.of(1, *(1,) * trend, *seasons, 1)
        super().__init__(loading, initial_scale=(1.0,) * loading.latent_dim)
        self.trend, self.damped, self.season_length = trend, damped, season_length
        self.damping_bounds, self.admissible = damping_bounds, admissible
        self.start_scale = None if initial_scale is None else float(initial_scale)
        self.learn_scale("scale", scale)
        start = {"level": smoothing_level}
        start |= {"trend": smoothing_trend} if trend else {}
        start |= {"seasonal": smoothing_seasonal} if m else {}
        start |= {"damping": damping} if damped else {}
        self.start("smoothing", self._free(start))
        if initial_scale is None:
            self.start("initial_mean", torch.zeros(1 + trend + max(m - 1, 0)))

    def smoothing_parameters(self, c: Context | None = None) -> Smoothing:
        """The parameters within their region, of size ``(1,)``, in a context ``(..., 1)``."""
        free = self.read("smoothing", c)
        phi = None
        if self.damped:
            low, high = self.damping_bounds
            phi, free = low + (high - low) * free[..., -1:].sigmoid(), free[..., :-1]
        level, *others = free.split(1, -1)
        if self.admissible and self.trend:
            alpha, beta = _admissible_trend(level, others[0], phi)
            return Smoothing(alpha, beta, None, phi)
        if self.admissible and self.season_length:
            alpha, gamma = _admissible_season(level, others[0], self.season_length)
            return Smoothing(alpha, None, gamma, phi)
        if self.admissible:
            return Smoothing(1 + level.tanh(), None, None, phi)
        alpha = level.sigmoid()
        beta = alpha * others[0].sigmoid() if self.trend else None
        # 1 - alpha, without rounding where it is small
        gamma = (-level).sigmoid() * others[-1].sigmoid() if self.season_length else None
        return Smoothing(alpha, beta, gamma, phi)

    def _free(self, start: dict[str, Number]) -> Tensor:
        """The unconstrained numbers of values at the start."""
        x = {name: torch.tensor([float(value)]).double() for name, value in start.items()}
        free = [x["level"].logit()]
        if self.admissible and self.trend:
            phi = x.get("damping", torch.ones(1).double())
            last = phi * (x["level"] - 1)
            first = (1 - x["level"] + phi * (1 - x["trend"])) / (1 - last)
            free = [last.atanh(), first.atanh()]
        elif self.admissible and self.season_length:
            low = -2 / (self.season_length - 1)
            least = (-self.season_length * x["level"]).clamp(min=0)
            free = [((x["level"] - low) / (2 - low)).logit()]
            free += [((x["seasonal"] - least) / (2 - x["level"] - least)).logit()]
        elif self.admissible:
            free = [(x["level"] - 1).atanh()]
        else:
            free += [(x["trend"] / x["level"]).logit()] if self.trend else []
            free += [(x["seasonal"] / (1 - x["level"])).logit()] if self.season_length else []
        if self.damped:
            low, high = self.damping_bounds
            free += [((x["damping"] - low) / (high - low)).logit()]
        found = torch.cat(free)
        if not bool(found.isfinite().all()):
            region = "admissible" if self.admissible else "usual"
            bounds = f" and damping within {self.damping_bounds}" if self.damped else ""
            raise ValueError(
                f"the smoothing parameters must start inside of the {region} region{bounds}, found "
                f"{', '.join(f'{name} {value}' for name, value in start.items())}; move them "
                "inside."
            )
        return found.to(torch.get_default_dtype())

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        size, found = self.latent_dim, self.smoothing_parameters(c)
        base, last = torch.zeros(size, size, dtype=c.dt.dtype, device=c.dt.device), size - 1
        base[0, 0] = 1.0
        entries: list[tuple[int, int, Tensor]] = [(0, last, found.level)]
        if found.trend is not None:
            phi = torch.ones_like(found.trend) if found.damping is None else found.damping
            base[0, 1] = 1.0
            entries += [(1, 1, phi), (1, last, phi * found.trend)]
        if found.seasonal is not None:
            first = 1 + self.trend
            base[first, last - 1] = 1.0
            steps = torch.arange(first, last - 1, device=base.device)
            base[steps + 1, steps] = 1.0
            entries.append((first, last, found.seasonal))
        where = base.new_zeros(len(entries), size, size)
        for i, (row, column, _) in enumerate(entries):
            where[i, row, column] = 1.0
        values = torch.cat([value for _, _, value in entries], -1)
        F = base + torch.einsum("...i,ijk->...jk", values, where)
        return F, torch.zeros_like(base[0]), self._innovation(c)

    def _innovation(self, c: Context) -> Tensor:
        column = constant([0] * (self.latent_dim - 1) + [1], c)[:, None]
        return column * self.read("log_scale", c).exp()[..., None]

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        innovation, others = self._innovation(c), self.latent_dim - 1
        m = self.season_length or 0
        like = constant([0] * self.latent_dim, c)
        if self.start_scale is None:
            mean = self.read("initial_mean", c)
            if m:
                # effects sum to zero: what they have in common is the level's
                mean = torch.cat([mean, -mean[..., 1 + self.trend :].sum(-1, keepdim=True)], -1)
            return torch.nn.functional.pad(mean, (0, 1)), innovation
        if math.isinf(self.start_scale):
            # the last effect is a level too, and one of the two has to be known
            free = others - (m > 0)
            first = constant([self.start_scale] * free + [0] * (m > 0), c).diag()[:, :free]
        else:
            blocks = [self.start_scale * torch.eye(others - m).to(like)]
            blocks += [self.start_scale * _contrasts(m).to(like)] if m else []
            first = torch.block_diag(*blocks)
        first = torch.nn.functional.pad(first, (0, 0, 0, 1))
        return like, torch.cat([first.expand(*innovation.shape[:-2], -1, -1), innovation], -1)

    def extra_repr(self) -> str:
        found = self.smoothing_parameters()._asdict().items()
        text = [f"{k}={v.detach().mean().item():.3g}" for k, v in found if v is not None]
        if self.season_length:
            text.append(f"season_length={self.season_length}")
        text.append(f"scale={self.log_scale.detach().exp().mean().item():.3g}")
        return ", ".join(text + ([] if self.series is None else [f"series={self.series}"]))


def _admissible_trend(last: Tensor, first: Tensor, phi: Tensor | None) -> tuple[Tensor, Tensor]:
    """Level and trend, from the partial autocorrelations of what becomes of an old state."""
    phi = torch.ones_like(last) if phi is None else phi
    last = last.tanh()
    alpha = 1 + last / phi
    return alpha, (1 - alpha + phi - first.tanh() * (1 - last)) / phi


def _admissible_season(level: Tensor, season: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Level and season, from table 10.1 of Hyndman et al. (2008)."""
    low = -2 / (m - 1)
    alpha = low + (2 - low) * level.sigmoid()
    least = (-m * alpha).clamp(min=0)
    return alpha, least + (2 - alpha - least) * season.sigmoid()


def _contrasts(size: int) -> Tensor:
    """Orthonormal columns ``(size, size - 1)`` that sum to zero."""
    step = torch.arange(1, size, dtype=torch.float64)
    upper = torch.ones(size, size - 1, dtype=torch.float64).triu()
    upper[range(1, size), range(size - 1)] = -step
    return upper / (step * (step + 1)).sqrt()


def _check(
    scale: Number,
    trend: bool,
    damped: bool,
    season_length: object,
    admissible: bool,
    initial_scale: Number | None,
) -> None:
    if positive("scale", scale) is None:
        raise ValueError("innovations drive everything, found scale 0 or None; pass more than 0.")
    if damped and not trend:
        raise ValueError("a damped slope needs trend=True, found damped=True without it.")
    if season_length is not None and (
        isinstance(season_length, bool) or not isinstance(season_length, int) or season_length < 2
    ):
        raise ValueError(
            f"season_length must be an integer of at least 2 steps, or None, found "
            f"{season_length!r}."
        )
    if admissible and trend and season_length:
        raise ValueError(
            "the admissible region of a slope with a season has no closed form; leave out "
            "admissible, for the usual region."
        )
    if initial_scale is not None and not initial_scale > 0:
        raise ValueError(
            "initial_scale must be a positive standard deviation, or None for a first state that "
            f"is learned, found {initial_scale!r}."
        )
