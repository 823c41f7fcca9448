"""Emissions that read the state through a linear signal: a log rate, log odds, a location."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from seqlatent.emissions.emission import Emission
from seqlatent.emissions.linear import RowLoading
from seqlatent.sequences import Context

__all__ = ["LinearSignal"]


class Derivatives(NamedTuple):
    """Log density of each cell, its slope in the signal, and its curvature, the sign turned.

    All are of shape ``(..., D)``.
    """

    log_prob: Tensor
    slope: Tensor
    weight: Tensor


class LinearSignal(Emission):
    r"""Emission that is a distribution of one linear signal for each observed dimension.

    .. math:: x_t = H z_t + d(c_t), \qquad y_{t,i} \sim p(\,\cdot \mid x_{t,i})

    H is learned, or fixed by the loading of a structural transition, so that level, season and
    regression add up to a log rate or to log odds. Dimensions are independent given the state. A
    subclass supplies ``distribution``; what :class:`~seqlatent.inference.Laplace` needs of it, two
    derivatives in the signal, is taken by autograd where a subclass does not write them out.

    Args:
        latent_dim: Width ``K`` of the state.
        obs_dim: Observed dimensions ``D``.
        loading: Fixed row of H, for one observed dimension; learned by default.
        bias: Whether a constant offset is learned.
        context_dim: Width of the context ``[m, u]`` that the offset follows; 0 for none.
        exposure: Index of the covariate whose logarithm is added to the signal, such as the number
            at risk, or of days in a month; None for none.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``;
        without the axis ``T`` for a step.

    Raises:
        ValueError: If a size is out of range, or the loading does not fit.
    """

    H: Tensor | None
    d: Tensor | None
    head: Tensor | None

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        loading: RowLoading | None = None,
        bias: bool = False,
        context_dim: int = 0,
        exposure: int | None = None,
    ) -> None:
        super().__init__()
        for name, size, least in (
            ("latent_dim", latent_dim, 1),
            ("obs_dim", obs_dim, 1),
            ("context_dim", context_dim, 0),
            ("exposure", 0 if exposure is None else exposure, 0),
        ):
            if isinstance(size, bool) or not isinstance(size, int) or size < least:
                raise ValueError(
                    f"{type(self).__name__} expected {name} to be an integer of at least {least}, "
                    f"found {size!r}."
                )
        if loading is not None and (obs_dim != 1 or loading.latent_dim != latent_dim):
            raise ValueError(
                f"a loading weighs {loading.latent_dim} states for one observed dimension, found "
                f"latent_dim={latent_dim}, obs_dim={obs_dim}; pass latent_dim and loading of the "
                "same transition, or leave the loading out to learn H."
            )
        self.latent_dim, self.obs_dim, self.context_dim = latent_dim, obs_dim, context_dim
        self.loading, self.exposure = loading, exposure
        self.series: int | None = None
        self._starts: dict[str, Tensor] = {}
        self.register_parameter("H", None)
        if loading is None:
            self.H = nn.Parameter(torch.empty(obs_dim, latent_dim))
        self._start("d", torch.zeros(obs_dim) if bias else None)
        self._start("head", torch.zeros(obs_dim, context_dim) if context_dim else None)
        self.reset_parameters()

    @abstractmethod
    def distribution(self, signal: Tensor, c: Context) -> Distribution:
        """Distribution of each cell, batch ``(*S, B, T, D)``, given its signal."""

    def guess(self, y: Tensor, c: Context) -> Tensor:
        """A finite signal under which each value is likely: where a search for a mode starts."""
        return torch.zeros_like(y)

    def derivatives(self, y: Tensor, signal: Tensor, c: Context) -> Derivatives:
        """Log density of each cell and its first two derivatives; they are differentiable too."""
        with torch.enable_grad():
            free = signal if signal.requires_grad else signal.detach().requires_grad_()
            log_prob = self.distribution(free, c).log_prob(y)
            (slope,) = torch.autograd.grad(log_prob.sum(), free, create_graph=True)
            curvature = None
            if slope.requires_grad:
                (curvature,) = torch.autograd.grad(
                    slope.sum(), free, create_graph=True, allow_unused=True
                )
        weight = torch.zeros_like(slope) if curvature is None else -curvature
        found = Derivatives(log_prob, slope, weight)
        return found if torch.is_grad_enabled() else Derivatives(*(x.detach() for x in found))

    def rows(self, c: Context) -> tuple[Tensor, Tensor]:
        """Loadings ``H (..., D, K)`` and offsets ``d (..., D)`` of the signal."""
        if self.loading is not None:
            H = self.loading.row(c.u)[..., None, :]
        else:
            assert self.H is not None
            H = self.H
        d = c.dt.new_zeros(self.obs_dim) if self.d is None else self.read("d", c)
        if self.head is not None:
            d = d + c.features(c.dt[..., :0]) @ self.head.mT
        return H, d if self.exposure is None else d + self._exposed(c)

    def signal(self, z: Tensor, c: Context) -> Tensor:
        """The signal of a state ``(*S, B, T, D)``."""
        H, d = self.rows(c)
        return (H @ z[..., None])[..., 0] + d

    def forward(self, z: Tensor, c: Context) -> Distribution:
        return Independent(self.distribution(self.signal(z, c), c), 1, validate_args=False)

    def read(self, name: str, c: Context) -> Tensor:
        """A parameter, or each series' row of it."""
        value = getattr(self, name)
        return value if self.series is None else c.row(value)

    def tabulate(self, series: int) -> None:
        """Gives each of so many series an offset and a dispersion, and one more to all others.

        Every row starts from the shared values. A series reads the row that its first static code
        names; the last row, of index ``series``, is that of a series which was not there. Loadings
        and what follows a context stay shared.
        """
        if self.series is not None:
            raise ValueError(
                f"{type(self).__name__} has parameters of {self.series} series already; build the "
                "model anew."
            )
        self.series = series
        for name in ("d", "log_dispersion"):
            value = getattr(self, name, None)
            if value is not None:
                self._start(name, value.detach().expand(series + 1, -1))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws H with rows of about unit length where it is learned; else returns to the start."""
        with torch.no_grad():
            for name, value in self._starts.items():
                getattr(self, name).copy_(value)
            if self.H is not None:
                device = self.H.device if generator is None else generator.device
                size, dtype = self.H.shape, self.H.dtype
                noise = torch.randn(size, generator=generator, dtype=dtype, device=device)
                self.H.copy_(noise / self.latent_dim**0.5)

    def _start(self, name: str, value: Tensor | None) -> None:
        """Registers a parameter that starts from a value, or None."""
        if hasattr(self, name):
            delattr(self, name)
        if value is not None:
            self._starts[name] = value.detach().clone()
            value = nn.Parameter(value.detach().clone())
        self.register_parameter(name, value)

    def _exposed(self, c: Context) -> Tensor:
        assert self.exposure is not None
        if self.exposure >= c.u.shape[-1]:
            raise ValueError(
                f"the exposure is covariate {self.exposure}, the first being 0, and the sequences "
                f"have {c.u.shape[-1]}; pass it as Sequences.of(..., u=...)."
            )
        exposure = c.u[..., self.exposure, None]
        if not bool((exposure > 0).all()):
            raise ValueError(
                f"an exposure must be positive at every step, found {exposure.min().item():g}; "
                "mark the cell as missing and give it an exposure of 1, or correct the covariate."
            )
        return exposure.log()

    def extra_repr(self) -> str:
        text = f"{self.latent_dim}, {self.obs_dim}"
        text += "" if self.series is None else f", series={self.series}"
        return text + (f", context_dim={self.context_dim}" if self.context_dim else "")
