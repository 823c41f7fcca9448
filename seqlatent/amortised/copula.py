"""Dependence between leads: a Gaussian copula whose correlations are of few factors."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["averaged", "log_density", "rows", "sample"]


def rows(raw: Float[Tensor, "*L H R"]) -> tuple[Float[Tensor, "*L H R"], Float[Tensor, "*L H"]]:
    r"""Loadings of unit variance, and what variance is left.

    .. math:: \lambda_h = v_h / \sqrt{1 + |v_h|^2}, \quad \psi_h = 1 / (1 + |v_h|^2), \quad
        R = \Lambda \Lambda^T + \mathrm{diag}(\psi)

    so that R has ones on its diagonal whatever :math:`v`.
    """
    own = 1 / (1 + raw.square().sum(-1))
    return raw * own.sqrt()[..., None], own


def log_density(
    x: Float[Tensor, "B H"], raw: Float[Tensor, "B H R"], seen: Bool[Tensor, "B H"]
) -> Float[Tensor, " B"]:
    """Log densities of the copula at normal scores, of those that are seen.

    By Woodbury's identity, in the number of factors.
    """
    loading, own = rows(raw)
    loading = loading * seen[..., None]
    scaled = loading / own[..., None]
    inner = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device) + (
        scaled.transpose(-1, -2) @ loading
    )
    factor = torch.linalg.cholesky(inner)
    x = x * seen
    projected = torch.linalg.solve_triangular(
        factor, (scaled.transpose(-1, -2) @ x[..., None]), upper=False
    )[..., 0]
    square = (x.square() / own).sum(-1) - projected.square().sum(-1)
    logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + (own.log() * seen).sum(-1)
    return -0.5 * (logdet + square - x.square().sum(-1))


def sample(
    raw: Float[Tensor, "B H R"], n: int, generator: torch.Generator | None = None
) -> Float[Tensor, "S B H"]:
    """Normal scores of ``n`` joint paths."""
    loading, own = rows(raw)
    kind = {"dtype": raw.dtype, "device": raw.device, "generator": generator}
    factors = torch.randn(n, *raw.shape[:-2], raw.shape[-1], **kind)
    noise = torch.randn(n, *raw.shape[:-1], **kind)
    # of few factors, summed one by one: a product of matrices would repeat the loadings
    paths = own.sqrt() * noise
    for k in range(raw.shape[-1]):
        paths.addcmul_(loading[..., k], factors[..., k, None])
    return paths


def averaged(raws: "list[Tensor]") -> Tensor:
    """Loadings whose correlations are the mean of those of several, with the factors of all."""
    if len(raws) == 1:
        return raws[0]
    parts = [rows(raw) for raw in raws]
    own = torch.stack([part[1] for part in parts]).mean(0)
    loading = torch.cat([part[0] for part in parts], -1) / math.sqrt(len(raws))
    return loading / own.sqrt()[..., None]
