"""Associative scans: all first products of log matrices, all first compositions of affine maps."""

import torch
from torch import Tensor


def prefixes(x: Tensor) -> Tensor:
    """Products of all first matrices, as logarithms up to a constant, by pairs, recursively."""
    steps = len(x)
    if steps == 1:
        return x
    odd = prefixes(_product(x[: steps - 1 : 2], x[1::2]))
    even = x[:1]
    if steps > 2:
        even = torch.cat([even, _product(odd[: (steps - 1) // 2], x[2::2])])
    return _interleave(even, odd)


def _product(x: Tensor, y: Tensor) -> Tensor:
    z = (x[..., :, :, None] + y[..., None, :, :]).logsumexp(-2)
    peak = z.amax((-2, -1), keepdim=True)
    return z - peak.clamp_min(torch.finfo(z.dtype).min)


def affine_prefixes(W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All first compositions of the maps h -> W h + b."""
    steps = len(b)
    if steps == 1:
        return W, b
    odd = affine_prefixes(*_follow(W[: steps - 1 : 2], b[: steps - 1 : 2], W[1::2], b[1::2]))
    even = W[:1], b[:1]
    if steps > 2:
        half = (steps - 1) // 2
        later = _follow(odd[0][:half], odd[1][:half], W[2::2], b[2::2])
        even = torch.cat([even[0], later[0]]), torch.cat([even[1], later[1]])
    return _interleave(even[0], odd[0]), _interleave(even[1], odd[1])


def _follow(W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    return W2 @ W1, (W2 @ b1[..., None])[..., 0] + b2


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    pairs = torch.stack([even[: len(odd)], odd], 1).flatten(0, 1)
    return torch.cat([pairs, even[len(odd) :]])
