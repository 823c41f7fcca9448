"""Loadings of common factors: how a few states enter many observed dimensions."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from seqlatent.emissions.emission import LinearEmission
from seqlatent.sequences import Context
from seqlatent.sizes import whole

__all__ = ["FactorLoadings"]


class FactorLoadings(LinearEmission):
    r"""Observed dimensions that share factors, each with an error of its own.

    .. math:: y_t = m + s \odot (\Lambda f_t + e_t + d + r \odot \varepsilon_t), \qquad
        z_t = [f_t, \dots, f_{t-p+1}, e_t]

    with the shift m and the scale s of the series. Factors of unit noise variance that depend on
    each other's past could be rotated; loadings that are lower triangular with a positive diagonal
    say which rotation is meant. Errors are white, or states too, and then there is no other noise.

    Args:
        factors: Number of factors ``N``.
        obs_dim: Observed dimensions ``D``, as many at least.
        order: Lags ``p`` of the factors that are in the state.
        triangular: Whether the loadings are lower triangular with a positive diagonal.
        errors: Whether each dimension has an error in the state.
        bias: Whether a constant offset is learned.
        scale: Initial standard deviation of the white noise; not read where errors are states.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``, with
        ``K = N p``, or ``N p + D`` with errors.

    Example:
        >>> p = FactorLoadings(2, 5, errors=True)
        >>> p.latent_dim, p.loadings.shape
        (7, torch.Size([5, 2]))

    References:
        Dynamic Factor Models (Stock & Watson, 2011).
    """

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    weights: Tensor
    offset: Tensor | None
    log_scale: Tensor | None

    def __init__(
        self,
        factors: int,
        obs_dim: int,
        *,
        order: int = 1,
        triangular: bool = False,
        errors: bool = False,
        bias: bool = False,
        scale: int | float = 0.5,
    ) -> None:
        super().__init__()
        factors, obs_dim = whole("factors", factors, 1), whole("obs_dim", obs_dim, 1)
        order = whole("order", order, 1)
        if factors > obs_dim:
            raise ValueError(
                f"factors must be shared: expected at most {obs_dim}, one for each observed "
                f"dimension, found {factors}."
            )
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be a positive standard deviation, found {scale!r}.")
        self.factors, self.obs_dim, self.order = factors, obs_dim, order
        self.triangular, self.errors, self.independent = triangular, errors, True
        self.latent_dim = factors * order + obs_dim * errors
        self._scale = float(scale)
        self.weights = nn.Parameter(torch.empty(obs_dim, factors))
        self.register_parameter("offset", nn.Parameter(torch.zeros(obs_dim)) if bias else None)
        self.register_parameter("log_scale", None if errors else nn.Parameter(torch.zeros(obs_dim)))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws loadings with rows of about half a unit; all else returns to its start."""
        with torch.no_grad():
            device = self.weights.device if generator is None else generator.device
            noise = torch.randn(
                self.weights.shape, generator=generator, dtype=self.weights.dtype, device=device
            )
            self.weights.copy_(noise / (4 * self.factors) ** 0.5)
            if self.offset is not None:
                self.offset.zero_()
            if self.log_scale is not None:
                self.log_scale.fill_(self._scale).log_()

    @property
    def loadings(self) -> Tensor:
        r"""Loadings :math:`\Lambda` ``(D, N)``."""
        if not self.triangular:
            return self.weights
        diagonal = nn.functional.pad(self.weights.diagonal().exp().diag(), (0, 0, 0, self._below))
        return self.weights.tril(-1) + diagonal

    @property
    def _below(self) -> int:
        return self.obs_dim - self.factors

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        H = self.loadings
        eye = torch.eye(self.obs_dim, dtype=H.dtype, device=H.device)
        H = nn.functional.pad(H, (0, self.factors * (self.order - 1)))
        H = torch.cat([H, eye], -1) if self.errors else H
        d = torch.zeros_like(eye[0]) if self.offset is None else self.offset
        R = eye * 0.0 if self.log_scale is None else (2 * self.log_scale).exp().diag()
        return H, d, R

    def extra_repr(self) -> str:
        text = f"{self.factors}, {self.obs_dim}, order={self.order}"
        text += ", triangular=True" if self.triangular else ""
        return text + (", errors=True" if self.errors else "")
