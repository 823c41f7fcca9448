"""The linear Gaussian emission: a Kalman filter is exact with it."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqlatent.emissions.emission import LinearEmission
from seqlatent.linalg import cholesky
from seqlatent.linalg import factor as psd_factor
from seqlatent.sequences import Context

__all__ = ["LinearGaussian", "RowLoading"]

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
        y_t = m + s \odot (H z_t + d(c_t) + \varepsilon_t), \qquad
        \varepsilon_t \sim N(0, W_t R W_t), \quad W_t = \operatorname{diag} w(c_t)

    with shift m and scale s of the series. H is learned, or fixed by the loading of a structural
    transition. With a context, an offset and a positive factor on each noise follow it, 0
    and 1 at the start. For matrices that are known, see :meth:`of`.

    Args:
        latent_dim: Width ``K`` of the state.
        obs_dim: Observed dimensions ``D``.
        loading: Fixed row of H, for one observed dimension; learned by default.
        bias: Whether a constant offset is learned.
        scale: Initial standard deviation of the noise, in units of the standardised series; None
            for none, which a Kalman filter takes where the state itself is noisy.
        correlated: Whether the noises of several dimensions are correlated.
        context_dim: Width of the context ``[m, u]`` that offset and noise follow; 0 for none.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``.

    Raises:
        ValueError: If a size is out of range, or the loading does not fit.

    Example:
        >>> from seqlatent.emissions.linear import LinearGaussian
        >>> p = LinearGaussian(4, 2)
        >>> p(torch.zeros(3, 4), Context.regular(3, obs_dim=2)).event_shape
        torch.Size([2])
    """

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        loading: RowLoading | None = None,
        bias: bool = True,
        scale: float | None = 0.5,
        correlated: bool = False,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        for name, size, least in (
            ("latent_dim", latent_dim, 1),
            ("obs_dim", obs_dim, 1),
            ("context_dim", context_dim, 0),
        ):
            if isinstance(size, bool) or not isinstance(size, int) or size < least:
                raise ValueError(f"{name} must be an integer of at least {least}, found {size!r}.")
        if loading is not None:
            _require_loading(loading, latent_dim, obs_dim)
        if scale is not None and not 0 <= scale < math.inf:
            raise ValueError(
                "scale must be a positive standard deviation, or None for no noise, found "
                f"{scale!r}."
            )
        self.latent_dim, self.obs_dim, self.context_dim = latent_dim, obs_dim, context_dim
        self.loading = loading
        self.scale = scale if scale else None
        noisy = self.scale is not None
        self.independent = not (correlated and noisy and obs_dim > 1)
        self._hold("H", torch.empty(obs_dim, latent_dim) if loading is None else None)
        self._hold("d", torch.empty(obs_dim) if bias else None)
        self._hold("log_scale", torch.empty(obs_dim) if noisy else None)
        below = torch.empty(obs_dim * (obs_dim - 1) // 2)
        self._hold("below", None if self.independent else below)
        self._hold("head", torch.empty(2, obs_dim, context_dim) if context_dim else None)
        self.reset_parameters()

    def _hold(self, name: str, value: Tensor | None, *, learn: bool = True) -> None:
        if hasattr(self, name):
            delattr(self, name)
        if learn:
            self.register_parameter(name, None if value is None else nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws H with rows of about unit length; the rest returns to its start."""
        with torch.no_grad():
            if self.H is not None:
                device = self.H.device if generator is None else generator.device
                size, dtype = self.H.shape, self.H.dtype
                noise = torch.randn(size, generator=generator, dtype=dtype, device=device)
                self.H.copy_(noise / self.latent_dim**0.5)
            if self.log_scale is not None:
                self.log_scale.fill_(math.log(self.scale or 1.0))
            for parameter in (self.d, self.below, self.head):
                if parameter is not None:
                    parameter.zero_()

    @classmethod
    def of(cls, H: Tensor, d: Tensor, R: Tensor, *, learn: bool = False) -> "LinearGaussian":
        r"""Builds the emission from its matrices, in units of the standardised series.

        Args:
            H: Loadings.
            d: Offset.
            R: Covariance of the noise; singular, or 0 for no noise, where it is not learned.
            learn: Whether the matrices are starting values of parameters, or fixed.

        Shape:
            H ``(D, K)``, d ``(D,)``, R ``(D, D)``.

        Raises:
            TypeError: If an argument is no floating tensor.
            ValueError: If a shape does not fit, a value is not finite, or R is no covariance.

        Example:
            >>> from seqlatent.emissions.linear import LinearGaussian
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
        skew = (R - R.mT).abs().max().item()
        if skew > 1e-6 * R.abs().max().item():
            raise ValueError(
                f"R must be symmetric, found entries that differ by {skew:.3g} from those across "
                "the diagonal; pass the covariance of the noise, not its factor."
            )
        d, R = d.to(H), R.to(H)
        psd_factor(R, what="observation covariance R")
        law = cls(latent_dim, obs_dim)
        law._hold("H", H.clone(), learn=learn)
        law._hold("d", d.clone(), learn=learn)
        law.independent = bool((R == R.diag().diag()).all())
        if learn:
            L = cholesky(R, what="observation covariance R, which is to be learned,")
            row, column = torch.tril_indices(obs_dim, obs_dim, -1)
            law._hold("log_scale", L.diagonal().log())
            law._hold("below", None if law.independent else L[row, column])
        else:
            law._hold("log_scale", None)
            law._hold("fixed_covariance", R.clone(), learn=False)
        return law
