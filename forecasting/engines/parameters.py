"""Parameters of each series by some specifications: pooled by their weights, or one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.training.likelihood.population_prior import bounded, unbounded

__all__ = ["KINDS", "Marginals", "Parameters", "by_specification", "in_order", "pooled"]

_BISECTIONS = 18
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

    def curve(self, p: int) -> "Curve":
        """The distribution of a parameter of each series, as a model holds it.

        Scales are logarithms, in the units of the data.
        """
        unit = self.unit.log() if self.kinds[p] == "scale" else torch.zeros_like(self.unit)
        vectors = self.vectors[:, :, p].double().mT.contiguous()
        return Curve(self.score.expand_as(vectors).contiguous(), vectors, self.centre[p], unit)

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


class Curve(NamedTuple):
    """Distributions of one parameter, by their quantiles at some normal scores.

    Attributes:
        score: The scores ``(N, K)``.
        vectors: Quantiles there, before they are bounded ``(N, K)``.
        centre: Centre of the bounds.
        unit: What is added to what is bounded ``(N,)``.
    """

    score: Tensor
    vectors: Tensor
    centre: Tensor
    unit: Tensor

    def quantiles(self, score: Tensor) -> Tensor:
        """Quantiles at other normal scores ``(Q,)``, of each series ``(N, Q)``."""
        wanted = score.expand(len(self.score), -1).contiguous()
        found = _piecewise(wanted, self.score, self.vectors)
        return bounded(found, self.centre) + self.unit[:, None]

    def below(self, x: Tensor) -> Tensor:
        """Probability of what is less than values ``(N, Q)``."""
        vectors = unbounded(x - self.unit[:, None], self.centre)
        return torch.special.ndtr(_piecewise(vectors, self.vectors, self.score))


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
        own = [one for one in found if name in one.names]
        place = [one.names.index(name) for one in own]
        weight = torch.stack([one.weight for one in own])
        total = weight.sum(0)
        share = weight / total.clamp_min(torch.finfo(total.dtype).tiny)
        curves = [one.curve(p) for one, p in zip(own, place, strict=True)]
        mixed = KINDS[own[0].kinds[place[0]]](_mixed(curves, share, points))
        values.append(torch.where(total[:, None] > 0, mixed, torch.nan))
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
        there = (one.weight > 0)[:, None]
        values = [
            torch.where(there, KINDS[one.kinds[p]](one.curve(p).quantiles(score)), torch.nan)
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


def _mixed(curves: Sequence[Curve], weight: Tensor, points: Tensor) -> Tensor:
    """Quantiles ``(N, Q)`` of mixtures with weights ``(F, N)``, as a model holds the parameter."""
    each = torch.stack([curve.quantiles(torch.special.ndtri(points)) for curve in curves])
    if len(curves) == 1:
        return each[0]

    def below(x: Tensor) -> Tensor:
        parts = (w[:, None] * c.below(x) for w, c in zip(weight, curves, strict=True))
        return torch.stack(list(parts)).sum(0)

    used = (weight > 0)[..., None]
    low = torch.where(used, each, torch.inf).amin(0)
    high = torch.where(used, each, -torch.inf).amax(0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        under = below(middle) < points
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    # what is left is so short that the distribution function is a line there
    start, end = below(low), below(high)
    width = (end - start).clamp_min(torch.finfo(end.dtype).tiny)
    return low + (high - low) * ((points - start) / width).clamp(0, 1)


def _piecewise(x: Tensor, at: Tensor, to: Tensor) -> Tensor:
    """Functions of ``x (N, Q)``, linear between points ``(N, K)`` and on beyond the last two."""
    above = torch.searchsorted(at, x.contiguous()).clamp(1, at.shape[-1] - 1)
    a0, a1, b0, b1 = (y.gather(-1, above + i) for y in (at, to) for i in (-1, 0))
    return b0 + (x - a0) * (b1 - b0) / (a1 - a0).clamp_min(_LEAST)


def _gathered(
    specification: str,
    names: tuple[str, ...],
    values: Sequence[Tensor],
    probability: Sequence[Tensor],
) -> Parameters:
    every = torch.stack(list(values)).mT.numpy()[..., None]
    share = torch.stack(list(probability)).numpy()[..., None]
    return Parameters(specification, names, every[:, 0], every[:, 1:], share)
