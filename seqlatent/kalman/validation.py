"""What the functions of this folder demand of their arguments, and how they say so."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Covariances that are so few are checked for negative eigenvalues, more of them for variances only.
_FEW = 16

_AXES = {
    "F": "KK",
    "b": "K",
    "Q": "KK",
    "G": "KR",
    "m0": "K",
    "P0": "KK",
    "H": "DK",
    "d": "D",
    "R": "DD",
    "y": "D",
    "observed": "D",
}


def check_shapes(**tensors: Tensor) -> None:
    """Verifies that a model's tensors fit together.

    The width of the state is that of ``F``, the number of observed dimensions that of ``H``.

    Raises:
        ValueError: If a shape does not fit; it names the tensor.
    """
    _check_shapes(tuple(tensors), tuple([x.shape for x in tensors.values()]))


@lru_cache(maxsize=64)
def _check_shapes(names: tuple[str, ...], given: tuple[torch.Size, ...]) -> None:
    """A descent asks the same of every step."""
    shapes = [(name, tuple(size)) for name, size in zip(names, given, strict=True)]
    for name, shape in shapes:
        if len(shape) < len(_AXES[name]):
            raise ValueError(
                f"{name} was expected to have at least {len(_AXES[name])} axes, "
                f"{_named(name)}, found shape {shape}."
            )
    found = dict(shapes)
    sizes = {"K": found["F"][-1], "D": found["H"][-2]}
    for name, shape in shapes:
        event = shape[-len(_AXES[name]) :]
        expected = tuple(sizes.get(axis, event[i]) for i, axis in enumerate(_AXES[name]))
        if event != expected:
            raise ValueError(
                f"{name} was expected to have the shape {_named(name)} = (..., "
                f"{', '.join(map(str, expected))}), found {shape}: by F the state has "
                f"K = {sizes['K']} dimensions, by H there are D = {sizes['D']} observed ones."
            )
    try:
        torch.broadcast_shapes(*(_lead(name, shape) for name, shape in shapes))
    except RuntimeError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes)
        raise ValueError(
            "The leading axes and steps (*L, T) of all tensors were expected to broadcast against "
            f"each other, found {listed}. What is constant in time leaves out T, with all axes "
            "before it; what differs by series only has a T of one."
        ) from None


def _named(name: str) -> str:
    return f"(..., {', '.join(_AXES[name])})"


def _lead(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    lead = shape[: len(shape) - len(_AXES[name])]
    return (*lead, 1) if name in ("m0", "P0") else lead


def check_covariances(**covariances: Tensor) -> None:
    """Verifies that covariances have no negative variance and, where they are few, eigenvalue.

    Raises:
        ValueError: If one has; it names the matrix.
    """
    for name, P in covariances.items():
        P = once(P.detach())
        # one positive number is most often all there is
        if not P.numel() or (P.numel() == 1 and 0 <= P.item() < math.inf):
            continue
        variances = P.diagonal(dim1=-2, dim2=-1)
        limit = torch.finfo(P.dtype).eps ** 0.5
        size = variances.abs().mean(-1, keepdim=True)
        wrong = bool((variances < -limit * size).any()) or not bool(size.isfinite().all())
        if not wrong and P.shape[-1] > 1 and P[..., 0, 0].numel() <= _FEW:
            tiny = torch.finfo(P.dtype).tiny
            shifted = P + (limit * size + tiny).expand_as(variances).diag_embed()
            wrong = bool(torch.linalg.cholesky_ex(shifted)[1].any())
        if wrong:
            _refuse(name, P, variances)


def _refuse(name: str, P: Tensor, variances: Tensor) -> None:
    if not bool(P.isfinite().all()):
        remedy = (
            " A first state of infinite variance is diffuse: seqlatent.kalman.prior(G0) gives P0 "
            "and diffuse."
            if name == "P0"
            else ""
        )
        raise ValueError(f"{name} was expected to be finite, found NaN or infinity.{remedy}")
    lowest = torch.linalg.eigvalsh(P).min().item()
    raise ValueError(
        f"{name} was expected to be a covariance, symmetric and positive semi-definite, found a "
        f"matrix of shape {tuple(P.shape[-2:])} with the eigenvalue {lowest:.3g} and variances "
        f"from {variances.min().item():.3g} to {variances.max().item():.3g}. Build it as G G^T."
    )


def once(x: Tensor) -> Tensor:
    """Leaves out the repetitions of an expanded tensor."""
    for i in range(x.dim()):
        if x.stride(i) == 0 and x.shape[i] > 1:
            x = x.narrow(i, 0, 1)
    return x


def check_observations(y: Tensor, observed: Tensor) -> None:
    """Verifies that what is marked as observed is a number.

    Raises:
        ValueError: If it is not.
    """
    y = y.detach()
    if bool(y.sum().isfinite()):  # one look at a sum for one at each value
        return
    wrong = observed & ~y.isfinite()
    if bool(wrong.any()):
        where = tuple(int(i) for i in wrong.nonzero()[0])
        value = y.expand(wrong.shape)[where].item()
        raise ValueError(
            f"What is observed was expected to be finite, found {value} in y at {where}, in "
            f"{int(wrong.sum())} of {int(observed.expand(wrong.shape).sum())} observed cells; "
            "mark it as not observed."
        )


def check_diffuse(diffuse: Any, size: int) -> None:
    """Verifies that ``diffuse`` says of each coordinate whether it is.

    Raises:
        ValueError: If it does not.
    """
    good = isinstance(diffuse, Tensor) and diffuse.dtype == torch.bool
    if not good or tuple(diffuse.shape) != (size,):
        found = (
            f"{diffuse.dtype} of shape {tuple(diffuse.shape)}"
            if isinstance(diffuse, Tensor)
            else type(diffuse).__name__
        )
        raise ValueError(
            f"diffuse was expected to be a tensor of bool of shape (K,) = ({size},), which "
            f"coordinates of the first state have infinite variance, found {found}; "
            "seqlatent.kalman.prior(G0) gives it."
        )
