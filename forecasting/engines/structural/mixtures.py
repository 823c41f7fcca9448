"""Mixtures of normal and log-normal distributions: ranks, densities, and the CRPS."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = []

_CHUNK = 1024  # cells whose distribution functions are tabulated at once
_NODES = torch.linspace(-4.0, 4.0, 17, dtype=torch.float64)
_MOST = 700.0  # exponents beyond are no numbers any more


def ranks(
    y: Tensor,
    mean: Tensor,
    variance: Tensor,
    log: Sequence[bool],
    weights: Tensor | None = None,
) -> Tensor:
    """Levels in (0, 1) at which values lie in a mixture of normal and log-normal distributions."""
    below = torch.special.ndtr((_seen(y, _is_log(log, mean)) - mean) / variance.sqrt())
    return (_weights(mean, weights) * below).sum(0)


def log_densities(y: Tensor, mean: Tensor, variance: Tensor, log: Sequence[bool]) -> Tensor:
    """Log densities ``(M, *)`` of values under each of some normal and log-normal distributions."""
    is_log = _is_log(log, mean)
    x = _seen(y, is_log)
    density = -0.5 * ((x - mean).square() / variance + (2 * math.pi * variance).log())
    return density - torch.where(is_log, x, 0.0)


def crps_products(
    y: Float[Tensor, " N"],
    mean: Float[Tensor, "F D N"],
    variance: Float[Tensor, "F D N"],
    log: Sequence[bool],
) -> tuple[Float[Tensor, "F F N"], Float[Tensor, "F N"], Float[Tensor, " N"]]:
    r"""What the CRPS of any mixture of specifications is made of, for each value.

    .. math::
        \text{CRPS}(w) = \int \Big(\sum_i w_i F_i(x) - 1\{x \ge y\}\Big)^2 dx
            = w^\top A w - 2 w^\top b + c

    A specification is an equal mixture of its draws. The integral is a sum over nodes that lie
    dense where the distributions have their mass; beyond a hundred times the nearest distance it is
    cut off.

    Args:
        y: Values.
        mean: Means of the draws of each specification, of the logarithm where ``log`` says so.
        variance: Variances.
        log: Whether a specification is log-normal.

    Returns:
        :math:`A, b, c`.

    References:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007).
    """
    parts = [
        _products(y[i], mean[..., i], variance[..., i], log)
        for i in torch.arange(len(y), device=y.device).split(_CHUNK)
    ]
    A, b, c = zip(*parts, strict=True)
    return torch.cat(A, -1), torch.cat(b, -1), torch.cat(c, -1)


def _products(
    y: Tensor, mean: Tensor, variance: Tensor, log: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    is_log, scale = _is_log(log, mean), variance.sqrt()
    nodes = mean[None] + scale[None] * _NODES.to(mean).reshape(-1, 1, 1, 1)
    nodes = torch.where(is_log, nodes.clamp_max(_MOST).exp(), nodes)
    middle, spread = nodes[8], (nodes[10] - nodes[6]).flatten(0, 1)
    reach = 100 * ((middle - y).abs().flatten(0, 1).amin(0) + spread.amin(0))
    nodes = nodes.flatten(0, 2).clamp(y - reach, y + reach)
    x = torch.cat([nodes, y[None]]).sort(0).values
    below = torch.special.ndtr((_seen(x[:, None, None], is_log) - mean) / scale).mean(
        2
    )  # (G, F, N)
    width = x.diff(dim=0)
    # the mean of both ends of an interval, squared products of which err little on so many
    below = (below[1:] + below[:-1]) / 2
    above = ((x[1:] + x[:-1]) / 2 >= y).to(y)
    A = torch.einsum("gin,gjn,gn->ijn", below, below, width)
    b = torch.einsum("gin,gn,gn->in", below, above, width)
    return A, b, (above * width).sum(0)


def _is_log(log: Sequence[bool], like: Tensor) -> Tensor:
    return torch.as_tensor(log, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


def _seen(y: Tensor, is_log: Tensor) -> Tensor:
    """Values as each distribution sees them."""
    return torch.where(is_log, y.clamp_min(torch.finfo(y.dtype).tiny).log(), y)


def _weights(mean: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.full_like(mean[:, :1], 1 / len(mean)).expand_as(mean)
    return weights.reshape(*weights.shape, *[1] * (mean.ndim - weights.ndim)).to(mean)
