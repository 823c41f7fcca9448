"""Parameters on the scale on which they are read: variances, damping, periods, coefficients."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent.scales import log_scales
from seqlatent.training.likelihood.parameter_vectors import Vectors
from seqlatent.transitions import AR
from seqlatent.transitions.cycles import autoregressive_coefficients

__all__ = []

Map = Callable[[Tensor], Tensor]


class Natural(NamedTuple):
    """Natural parameters as functions of the unconstrained ones.

    Attributes:
        names: Their names.
        source: The unconstrained parameter of which each is a monotone function; -1 for a function
            of several.
        bounded: Whether that function has a bound.
        map: Function of vectors ``(N, P)`` that returns ``(N, M)``.
    """

    names: tuple[str, ...]
    source: tuple[int, ...]
    bounded: tuple[bool, ...]
    map: Map

    def jacobian(self, theta: Float[Tensor, "N P"]) -> Float[Tensor, "N M P"]:
        """Derivatives of the natural parameters."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            rows = [
                torch.autograd.grad(x.sum(), theta, retain_graph=True)[0] for x in self.each(theta)
            ]
        return torch.stack(rows, -2)

    def each(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Each natural parameter ``(N,)``."""
        return self.map(theta).unbind(-1)


class _Part(NamedTuple):
    names: list[str]
    columns: list[int]
    single: bool
    bounded: bool
    map: Map


def natural(vectors: Vectors) -> Natural:
    """Finds the natural scale of every parameter of a model."""
    modules = dict(vectors.model.named_modules())
    parts, done = [], set()
    for name in vectors.named:
        if name in done:
            continue
        home, _, own = name.rpartition(".")
        module = modules[home]
        joint = _covariance(vectors, module, home) if own in ("log_scale", "below") else None
        if joint is not None:
            parts.append(joint)
            done |= {f"{home}.log_scale", f"{home}.below"}
        else:
            parts.append(_alone(vectors, module, name))

    def both(theta: Tensor) -> Tensor:
        return torch.cat([part.map(theta[:, part.columns]) for part in parts], -1)

    return Natural(
        tuple(n for part in parts for n in part.names),
        tuple(c if p.single else -1 for p in parts for c in _sources(p)),
        tuple(part.bounded for part in parts for _ in part.names),
        both,
    )


def unconstrained_names(vectors: Vectors) -> tuple[str, ...]:
    """Names of the entries of a vector of parameters."""
    shapes = zip(vectors.named, vectors.shapes, strict=True)
    return tuple(n for name, shape in shapes for n in _entries(name, shape))


def _sources(part: _Part) -> list[int]:
    return part.columns if part.single else [-1] * len(part.names)


def _entries(name: str, shape: torch.Size) -> list[str]:
    if shape.numel() == 1:
        return [name]
    index = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape))
    return [f"{name}[{', '.join(str(int(i)) for i in row)}]" for row in index]


def _alone(vectors: Vectors, module: nn.Module, name: str) -> _Part:
    home, _, own = name.rpartition(".")
    shape = vectors.shapes[list(vectors.named).index(name)]
    span = vectors.columns[name]
    columns = list(range(span.start, span.stop))

    def part(new: str, function: Map, *, single: bool = True, bounded: bool = True) -> _Part:
        names = _entries(f"{home}.{new}" if home else new, shape)
        return _Part(names, columns, single, bounded, function)

    if type(module) is AR and own == "partial":

        def coefficients(x: Tensor) -> Tensor:
            return autoregressive_coefficients(x.tanh())[-1]

        return part("coefficients", coefficients, single=len(columns) == 1)
    if own == "log_time_scale":
        return part("time_scale", torch.exp)
    if name in log_scales(vectors.model):
        title = own.removeprefix("log_").removesuffix("scale")
        return part(title + "variance", lambda x: (2 * x).exp())
    if own == "damping_logit":
        return part("damping", torch.sigmoid)
    band = getattr(module, "band", None)
    if own == "frequency_logit" and isinstance(band, tuple):
        low, high = band
        return part("period", lambda x: 2 * math.pi / (low + (high - low) * x.sigmoid()))
    return part(own, lambda x: x, bounded=False)


def _covariance(vectors: Vectors, module: nn.Module, home: str) -> _Part | None:
    """The entries of a covariance that is learned by its factor, None for variances alone."""
    basis = getattr(module, "basis", None)
    if not hasattr(module, "diagonal") or (module.diagonal and basis is None):
        return None
    spans = [vectors.columns.get(f"{home}.{x}") for x in ("log_scale", "below")]
    scale = spans[0]
    if scale is None:
        return None
    size = scale.stop - scale.start
    columns = [j for span in spans if span is not None for j in range(span.start, span.stop)]
    width = size if basis is None else len(basis)
    row, column = torch.tril_indices(size, size, -1)
    at, to = torch.tril_indices(width, width)

    def entries(x: Tensor) -> Tensor:
        G = x[:, :size].exp().diag_embed()
        if x.shape[1] > size:
            below = torch.zeros_like(G).index_put(
                (torch.arange(len(x))[:, None], row, column), x[:, size:]
            )
            G = G + below
        G = G if basis is None else basis @ G
        return (G @ G.mT)[:, at, to]

    names = [f"{home}[{int(i)}, {int(j)}]" for i, j in zip(at, to, strict=True)]
    return _Part(names, columns, False, True, entries)
