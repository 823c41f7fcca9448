"""The linear Gaussian emission, with which a Kalman filter is exact."""

import math
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqlatent.emissions.emission import LinearEmission
from seqlatent.linalg import cholesky, factor
from seqlatent.sequences import Context
from seqlatent.sizes import whole

__all__ = ["LinearGaussian"]

# softplus of it is 1
_UNIT = math.log(math.e - 1)


@runtime_checkable
class RowLoading(Protocol):
    """How a state enters a scalar observation, as structural transitions say it."""

    @property
    def latent_dim(self) -> int:
        """Width ``K`` of the state."""
        ...

    def row(self, u: Tensor) -> Tensor:
        """Weights ``(K,)`` or ``(..., K)`` for covariates ``(..., U)``."""
        ...


class LinearGaussian(LinearEmission):
    r"""An observation that is linear in the state, with normal noise.

    .. math::
        y_t = m + s \odot (H z_t + d(c_t) + w(c_t) \odot \varepsilon_t), \qquad
        \varepsilon_t \sim N(0, R)

    with the shift m and the scale s of the series. H is learned, or fixed by the loading of a
    structural transition. With a context, offset and noise follow it: a sum is added to the one, a
    positive factor :math:`w` multiplies the other, 0 and 1 at the start. For matrices that are
    known, see :meth:`of`.

    Args:
        latent_dim: Width ``K`` of the state.
        obs_dim: Observed dimensions ``D``.
        loading: Fixed row of H, for one observed dimension; learned by default.
        bias: Whether a constant offset is learned.
        scale: Initial standard deviation of the noise, in units of the standardised series; None
            for no noise, with which a Kalman filter works where the state itself is noisy.
        correlated: Whether the noises of the dimensions are correlated.
        context_dim: Width of the context ``[m, u]`` that offset and noise follow; 0 for none.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``.

    Raises:
        ValueError: If a size is out of range, or the loading does not fit.

    Example:
        >>> p = LinearGaussian(4, 2)
        >>> p(torch.zeros(3, 4), Context.regular(3, obs_dim=2)).event_shape
        torch.Size([2])
    """

    H: Tensor
    d: Tensor | None
    head: Tensor | None

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        loading: RowLoading | None = None,
        bias: bool = True,
        scale: int | float | None = 0.5,
        correlated: bool = False,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        latent_dim, obs_dim = whole("latent_dim", latent_dim, 1), whole("obs_dim", obs_dim, 1)
        context_dim = whole("context_dim", context_dim)
        scale = 0.0 if scale is None else float(scale)
        if not 0 <= scale < math.inf:
            raise ValueError(
                f"scale must be a positive standard deviation, or None for no noise, found {scale}."
            )
        if loading is not None:
            _require_loading(loading, latent_dim, obs_dim)
        self.latent_dim, self.obs_dim, self.context_dim = latent_dim, obs_dim, context_dim
        self.loading = loading
        self.series: int | None = None
        self.independent = not correlated or obs_dim == 1 or scale == 0
        self._starts: dict[str, Tensor | None] = {}
        self._hold("H", None if loading else torch.empty(obs_dim, latent_dim), random=True)
        self._hold("d", torch.zeros(obs_dim) if bias else None)
        self._hold("head", torch.zeros(2 * obs_dim, context_dim) if context_dim else None)
        R = scale**2 * torch.eye(obs_dim)
        self.noise = _Covariance(R, diagonal=self.independent, learn=scale > 0)
        self.reset_parameters()

    @classmethod
    def of(cls, H: Tensor, d: Tensor, R: Tensor, *, learn: bool = False) -> "LinearGaussian":
        r"""Builds the emission from its matrices, in units of the standardised series.

        Args:
            H: Loadings.
            d: Offset.
            R: Covariance of the noise; where it is not learned it may be singular, or 0.
            learn: Whether the matrices are starting values of parameters, or fixed.

        Shape:
            H ``(D, K)``, d ``(D,)``, R ``(D, D)``.

        Raises:
            TypeError: If an argument is no floating tensor.
            ValueError: If a shape does not fit, a value is not finite, or R is no covariance.

        Example:
                >>> one = torch.ones(1, 1)
            >>> p = LinearGaussian.of(one, torch.zeros(1), 0.25 * one)
            >>> p(torch.ones(1, 1), Context.regular(1)).stddev
            tensor([[0.5000]])
        """
        _require("H", H, None)
        if H.ndim != 2 or not H.numel():
            raise ValueError(
                "H must have shape (D, K) = (observed dimensions, latent dimensions), found "
                f"{tuple(H.shape)}."
            )
        obs_dim, latent_dim = H.shape
        _require("d", d, (obs_dim,))
        _require("R", R, (obs_dim, obs_dim))
        if not torch.allclose(R, R.mT, rtol=1e-6):
            raise ValueError(
                "R must be symmetric, found entries that differ from those across the diagonal; "
                "pass the covariance of the noise, not its factor."
            )
        d, R = d.to(H), R.to(H)
        distribution = cls(latent_dim, obs_dim)
        distribution.independent = bool((R.diag().diag() == R).all())
        distribution.noise = _Covariance(R, diagonal=distribution.independent, learn=learn)
        for name, x in (("H", H), ("d", d)):
            distribution._hold(name, x, learn=learn)
        return distribution

    def tabulate(self, series: int) -> None:
        """Gives each of so many series offset and noise of its own, and one more to all others.

        Every row starts from the shared values. A series reads the row that its first static code
        names; the last row, of index ``series``, is that of a series which was not there. Loadings
        and what follows a context stay shared.

        Raises:
            ValueError: If series have parameters of their own already, or the noise is correlated.
        """
        if self.series is not None:
            raise ValueError(
                f"LinearGaussian has parameters of {self.series} series already; build the model "
                "anew."
            )
        if not self.noise.diagonal:
            raise ValueError(
                "a noise of each series must be independent between the dimensions, found a "
                "correlated one; use LinearGaussian(..., correlated=False)."
            )
        self.series = series
        if isinstance(self.d, nn.Parameter):
            self._hold("d", self.d.detach().expand(series + 1, -1))
        self.noise.tabulate(series)

    def _hold(
        self, name: str, value: Tensor | None, *, learn: bool = True, random: bool = False
    ) -> None:
        """Registers a tensor, and what it starts from; nothing where that is drawn at random."""
        self._starts.pop(name, None)
        if value is not None and not random:
            self._starts[name] = value.detach().clone()
        _register(self, name, value, learn)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws H with rows of about unit length where it is learned; else returns to the start."""
        with torch.no_grad():
            for name, value in self._starts.items():
                getattr(self, name).copy_(value)
            if self.H is not None and "H" not in self._starts:
                device = self.H.device if generator is None else generator.device
                size, dtype = self.H.shape, self.H.dtype
                noise = torch.randn(size, generator=generator, dtype=dtype, device=device)
                self.H.copy_(noise / self.latent_dim**0.5)

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        H = self.H if self.loading is None else self.loading.row(c.u)[..., None, :]
        d = H.new_zeros(self.obs_dim) if self.d is None else self.d
        if self.series is not None and d.ndim > 1:
            d = c.row(d)
        R = self.noise(None if self.series is None else c)
        if self.head is not None:
            features = c.features(c.dt[..., :0])
            offset, factor = (features @ self.head.mT).chunk(2, -1)
            spread = nn.functional.softplus(factor + _UNIT)
            d, R = d + offset, spread[..., :, None] * R * spread[..., None, :]
        return H, d, R

    def extra_repr(self) -> str:
        shape = f"{self.latent_dim}, {self.obs_dim}"
        shape += "" if self.series is None else f", series={self.series}"
        return shape + (f", context_dim={self.context_dim}" if self.context_dim else "")


class _Covariance(nn.Module):
    """A covariance: learned by a lower factor with positive diagonal, or fixed, and maybe 0."""

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    R: Tensor
    log_scale: Tensor
    below: Tensor

    def __init__(self, R: Tensor, *, diagonal: bool, learn: bool) -> None:
        super().__init__()
        factor(R, what="observation covariance R")
        self.learn, self.diagonal = learn, diagonal
        if not learn:
            self.register_buffer("R", R.detach().clone())
            return
        if int(torch.linalg.matrix_rank(R, hermitian=True)) < len(R):
            raise ValueError(
                "R must be positive definite to be learned, found a singular matrix; pass "
                "learn=False, or give every dimension a little noise."
            )
        L = cholesky(R.detach(), what="observation covariance R")
        self._starts = {"log_scale": L.diagonal().log()}
        if not diagonal:
            row, column = torch.tril_indices(len(R), len(R), -1)
            self._starts["below"] = L[row, column]
        for name, value in self._starts.items():
            self.register_parameter(name, nn.Parameter(value.clone()))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Returns to the values at the start; draws nothing."""
        with torch.no_grad():
            for name, value in self._starts.items():
                getattr(self, name).copy_(value)

    def tabulate(self, series: int) -> None:
        """Gives a row to each series, and one to all others; nothing where it is fixed."""
        if self.learn:
            rows = self.log_scale.detach().expand(series + 1, -1).clone()
            self._starts["log_scale"] = rows
            self.register_parameter("log_scale", nn.Parameter(rows.clone()))

    def forward(self, c: Context | None = None) -> Tensor:
        if not self.learn:
            return self.R
        if self.diagonal:
            log_scale = self.log_scale if c is None else c.row(self.log_scale)
            return (2 * log_scale).exp().diag_embed()
        L = self.log_scale.exp().diag()
        row, column = torch.tril_indices(len(L), len(L), -1)
        L = L.index_put((row, column), self.below)
        return L @ L.mT

    def extra_repr(self) -> str:
        scale = self.forward().detach().diagonal(dim1=-2, dim2=-1).sqrt()
        scale = scale.reshape(-1, scale.shape[-1]).mean(0).tolist()
        text = f"scale=({', '.join(f'{x:.3g}' for x in scale)})"
        return text + ("" if self.diagonal else ", correlated=True")


def _register(module: nn.Module, name: str, value: Tensor | None, learn: bool) -> None:
    if hasattr(module, name):
        delattr(module, name)
    if value is None:
        module.register_parameter(name, None)
    elif learn:
        module.register_parameter(name, nn.Parameter(value.detach().clone()))
    else:
        module.register_buffer(name, value.detach().clone())


def _require_loading(loading: RowLoading, latent_dim: int, obs_dim: int) -> None:
    if obs_dim != 1:
        raise ValueError(
            f"a loading gives the row of one observed dimension, found obs_dim={obs_dim}; leave it "
            "out to learn H."
        )
    if loading.latent_dim != latent_dim:
        raise ValueError(
            f"the loading weighs {loading.latent_dim} states, latent_dim is {latent_dim}; pass "
            "transition.latent_dim and transition.loading of the same transition."
        )


def _require(name: str, x: object, shape: tuple[int, ...] | None) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name} must be a floating tensor, found {found}; use torch.as_tensor(...).double()."
        )
    if shape is not None and tuple(x.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape} to fit the rows of H, found {tuple(x.shape)}."
        )
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite, found {x[~x.isfinite()][0].item()} in it.")
