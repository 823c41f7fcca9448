"""Parameters of each series by some specifications: pooled by their weights, or one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.training.likelihood.population_prior import bounded, unbounded

__all__ = ["KINDS", "Marginals", "Parameters", "by_specification", "in_order", "pooled"]

_BISECTIONS = 50
_LEAST = 1e-9  # distance of quantiles of draws that are the same


class Parameters(NamedTuple):
    """Posteriors of the parameters of each series.

    Attributes:
        specification: Which specification says so; empty for all pooled.
        names: Name of each of the ``P`` parameters, ``component.parameter``.
        median: Medians ``(P, N, D)``, NaN where a series does not have the parameter.
        quantiles: Quantiles ``(P, Q, N, D)``.
        probability: Probability that a series has the parameter ``(P, N, D)``.
    """

    specification: str
    names: tuple[str, ...]
    median: np.ndarray
    quantiles: np.ndarray
    probability: np.ndarray


# From what a model holds to what is read, by the kind of a parameter.
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": torch.exp,
    "share": torch.sigmoid,
    "correlation": torch.tanh,
}


@dataclass(frozen=True)
class Marginals:
    """Posterior of each parameter of each series under one specification.

    A quantile function is linear in the normal score, between those that are given and beyond them:
    two of them make a normal distribution. The parameters lie within the reach of a centre.

    Args:
        specification: Its name.
        names: Name of each of the ``P`` parameters.
        kinds: Kind of each, of :data:`KINDS`.
        score: Normal scores ``(K,)``, ascending.
        vectors: Quantiles there ``(K, N, P)``, of what the model holds before it is bounded.
        centre: Centre of the bounds ``(P,)``.
        unit: What a scale of one is in the units of the data ``(N,)``.
        weight: Weight of the specification for each series ``(N,)``.
    """

    specification: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    score: Tensor
    vectors: Tensor
    centre: Tensor
    unit: Tensor
    weight: Tensor

    def select(self, index: Tensor) -> "Marginals":
        """Some of the series."""
        parts = {"unit": self.unit[index], "weight": self.weight[index]}
        return replace(self, vectors=self.vectors[:, index], **parts)

    def quantiles(self, p: int, score: Tensor) -> Tensor:
        """Quantiles of a parameter at normal scores ``(Q,)`` as a model holds it ``(Q, N)``.

        Scales are logarithms, in the units of the data.
        """
        found = _piecewise(score[:, None], self.score[:, None, None], self._vectors(p))
        return bounded(found, self.centre[p]) + self._unit(p)

    def below(self, p: int, x: Tensor) -> Tensor:
        """Probability that a parameter lies below values ``(Q, N)``, as a model holds it."""
        vectors = unbounded(x - self._unit(p), self.centre[p])
        return torch.special.ndtr(_piecewise(vectors, self._vectors(p), self.score[:, None, None]))

    def _vectors(self, p: int) -> Tensor:
        return self.vectors[:, None, :, p].double()

    def _unit(self, p: int) -> Tensor | float:
        return self.unit.log() if self.kinds[p] == "scale" else 0.0

    def packed(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain values and tensors, as a folder holds them."""
        words = ("specification", "names", "kinds")
        numbers = ("score", "vectors", "centre", "unit", "weight")
        return (
            {name: getattr(self, name) for name in words},
            {name: getattr(self, name).contiguous().clone() for name in numbers},
        )

    @classmethod
    def unpacked(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Marginals":
        """Reads what :meth:`packed` gave."""
        return cls(
            config["specification"],
            tuple(config["names"]),
            tuple(config["kinds"]),
            tensors["score"],
            tensors["vectors"],
            tensors["centre"],
            tensors["unit"],
            tensors["weight"],
        )


def pooled(found: Sequence[Marginals], levels: Sequence[float]) -> Parameters:
    """The mixture of specifications by their weights, of those that have a parameter.

    Args:
        found: What each says.
        levels: Levels of the quantiles.
    """
    names = in_order(name for one in found for name in one.names)
    points = torch.tensor([0.5, *levels], dtype=torch.float64)
    values, probability = [], []
    for name in names:
        own = [(one, one.names.index(name)) for one in found if name in one.names]
        weight = torch.stack([one.weight for one, _ in own])
        total = weight.sum(0)
        mixed = _mixed(own, weight / total.clamp_min(torch.finfo(total.dtype).tiny), points)
        one, p = own[0]
        values.append(torch.where(total > 0, KINDS[one.kinds[p]](mixed), torch.nan))
        probability.append(total.clamp_max(1.0))
    return _gathered("", names, values, probability)


def by_specification(found: Sequence[Marginals], levels: Sequence[float]) -> Iterator[Parameters]:
    """What each specification says for itself, with its weight as the probability.

    Args:
        found: What each says.
        levels: Levels of the quantiles.
    """
    score = torch.special.ndtri(torch.tensor([0.5, *levels], dtype=torch.float64))
    for one in found:
        names = in_order(one.names)
        places = [one.names.index(name) for name in names]
        values = [
            torch.where(one.weight > 0, KINDS[one.kinds[p]](one.quantiles(p, score)), torch.nan)
            for p in places
        ]
        yield _gathered(one.specification, names, values, [one.weight] * len(names))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of parameters, each once: by component, level and slope first, and the noise last.

    Example:
        >>> in_order(["noise.scale", "slope.initial_scale", "slope.scale", "noise.scale"])
        ('slope.scale', 'slope.initial_scale', 'noise.scale')
    """
    once = list(dict.fromkeys(names))
    parts = list(dict.fromkeys(name.partition(".")[0] for name in once))
    rank = {"level": 0, "slope": 1, "noise": 3}

    def key(name: str) -> tuple[int, int, bool]:
        part, _, own = name.partition(".")
        return rank.get(part, 2), parts.index(part), own.startswith("initial")

    return tuple(sorted(once, key=key))


def _mixed(own: Sequence[tuple[Marginals, int]], weight: Tensor, points: Tensor) -> Tensor:
    """Quantiles ``(Q, N)`` of a mixture, as a model holds the parameter."""
    score = torch.special.ndtri(points)
    each = torch.stack([one.quantiles(p, score) for one, p in own])
    if len(own) == 1:
        return each[0]
    used = (weight > 0)[:, None]
    low = torch.where(used, each, torch.inf).amin(0)
    high = torch.where(used, each, -torch.inf).amax(0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = sum(w * one.below(p, middle) for w, (one, p) in zip(weight, own, strict=True))
        under = below < points[:, None]
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def _piecewise(x: Tensor, at: Tensor, to: Tensor) -> Tensor:
    """A function that is linear between given points ``(K, ...)`` and goes on beyond them."""
    slope = to.diff(dim=0) / at.diff(dim=0).clamp_min(_LEAST)
    found = to[0] + slope[0] * (x - at[0])
    for k in range(1, len(slope)):
        found = torch.where(x > at[k], to[k] + slope[k] * (x - at[k]), found)
    return found


def _gathered(
    specification: str,
    names: tuple[str, ...],
    values: Sequence[Tensor],
    probability: Sequence[Tensor],
) -> Parameters:
    every = torch.stack(list(values)).numpy()[..., None]
    share = torch.stack(list(probability)).numpy()[..., None]
    return Parameters(specification, names, every[:, 0], every[:, 1:], share)
