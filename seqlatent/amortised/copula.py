"""Dependence between leads: a Gaussian copula whose correlations are of few factors."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["averaged", "between", "log_density", "rows", "sample"]

_FARTHEST = 4.0  # normal scores beyond which none is drawn
_SWEEPS = 6  # of a Markov chain that begins with independent leads


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


@torch.no_grad()
def between(
    low: Float[Tensor, "B H"],
    high: Float[Tensor, "B H"],
    raw: Float[Tensor, "B H R"],
    seen: Bool[Tensor, "B H"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B H"]:
    """Draws normal scores of which limits alone are known, given those of the other leads.

    What is a whole number has a range of scores. Drawn without regard to the others, they would be
    all but independent however the numbers move together; drawn as the copula says, the gradient of
    :func:`log_density` is on average that of the likelihood of the ranges (Fisher's identity).

    Args:
        low: Least normal scores, equal to ``high`` where they are known.
        high: Greatest normal scores.
        raw: Loadings.
        seen: Which leads count.
        generator: Source of randomness.

    References:
        The Calculation of Posterior Distributions by Data Augmentation (Tanner & Wong, 1987).
    """
    low, high = low.clamp(-_FARTHEST, _FARTHEST), high.clamp(-_FARTHEST, _FARTHEST)
    size = (1 + raw.square().sum(-1)).sqrt()  # u = size x has a noise of one around the factors
    loading = raw * seen[..., None]
    eye = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
    factor = torch.linalg.cholesky(eye + loading.transpose(-1, -2) @ loading)
    x = _truncated(torch.zeros_like(low), low, high, generator)
    for _ in range(_SWEEPS):
        told = loading.transpose(-1, -2) @ (size * x)[..., None]
        mean = torch.cholesky_solve(told, factor)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        factors = mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True)
        x = _truncated((raw @ factors)[..., 0], low * size, high * size, generator) / size
    return x


def _truncated(
    mean: Tensor, low: Tensor, high: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Normal numbers of unit variance between limits."""
    unit = torch.rand(mean.shape, generator=generator).to(mean)
    # far above, differences of what is left keep their digits
    turned = low + high > 2 * mean
    first = torch.special.ndtr(torch.where(turned, mean - high, low - mean))
    last = torch.special.ndtr(torch.where(turned, mean - low, high - mean))
    drawn = torch.special.ndtri((first + unit * (last - first)).clamp(1e-30, 1 - 1e-7))
    return torch.minimum(torch.maximum(mean + torch.where(turned, -drawn, drawn), low), high)


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
