"""Contributions, components in the units of the data: pooled, or by specification."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.engines import mixture
from seqlatent.forecasting.engines.terms import Decomposed, Normals, Term
from seqlatent.forecasting.features.transforms import Identity, Transform

__all__ = ["Contributions", "by_specification", "pooled"]

_POINTS = (
    377  # of a joint distribution without closed form; a number of Fibonacci's, for an even lattice
)
_CELLS = 4_000_000  # points that are held at once


class Contributions(NamedTuple):
    """Distributions of the components of every row.

    Attributes:
        specification: Which specification says so; empty for all pooled.
        names: Name of each of the ``C`` components.
        kinds: ``"component"``, ``"state"``, ``"irregular"`` or ``"signal"`` of each.
        scales: ``"data"``, ``"factor"`` or the name of a transform of each.
        mean: Means ``(C, R, D)``, NaN where there is none.
        quantiles: Quantiles ``(C, Q, R, D)``.
    """

    specification: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    scales: tuple[str, ...]
    mean: np.ndarray
    quantiles: np.ndarray


Distributions = list[tuple[str, str, str, np.ndarray, np.ndarray]]


def pooled(
    found: Decomposed, transforms: Mapping[str, Transform], levels: Sequence[float]
) -> Contributions:
    r"""The mixture of all members, in the units of the data, where components add up.

    A member that sees the data through a transform g adds its components one by one; what the k-th
    contributes is

    .. math:: g^{-1}(S_k) - g^{-1}(S_{k-1}), \qquad S_k = c_1 + \dots + c_k

    so that the contributions add up to the signal on every path, and so do their means. A component
    that a member does not have is zero there. Quantiles are exact where all distributions are
    transformed normals, and off by less than half a percent of probability where some are
    differences of these.

    Args:
        found: Components by each member.
        transforms: The transforms by name.
        levels: Levels of the quantiles.
    """
    points = np.asarray(levels, dtype=np.float64)
    distributions: Distributions = []
    for name, kind in _names(found):
        members = [terms.get(name) for terms in found.terms]
        mean, quantiles = _mixture(found, members, transforms, points)
        distributions.append((name, kind, "data", mean, quantiles))
    # the irregular is what the signal leaves, so that its distribution is that of the signal
    # reversed
    *_, (_, _, _, mean, _) = distributions
    members = [terms["signal"] for terms in found.terms]
    reverse = _mixture(found, members, transforms, 1 - points)[1]
    y = found.panel.y
    distributions.insert(
        len(distributions) - 1, ("irregular", "irregular", "data", y - mean, y - reverse)
    )
    return _gathered("", distributions)


def by_specification(
    found: Decomposed, transforms: Mapping[str, Transform], levels: Sequence[float]
) -> Iterator[Contributions]:
    """The components that each specification itself has: factors where it describes logarithms.

    The draws of a form are pooled. Of a form of logarithms level and signal are in the units of the
    data and all else is a factor; of another transform all but the signal is on its scale.

    Args:
        found: Components by each member.
        transforms: The transforms by name.
        levels: Levels of the quantiles.
    """
    points = np.asarray(levels, dtype=np.float64)
    for specification in dict.fromkeys(found.specifications):
        index = [m for m, one in enumerate(found.specifications) if one == specification]
        kind = found.kinds[index[0]]
        distribution = transforms[kind]
        weights = found.weights[:, index]
        total = weights.sum(1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        distributions: Distributions = []
        for name, term in found.terms[index[0]].items():
            own = [found.terms[m][name].own for m in index]
            first = term.base is None
            back = distribution if kind == "log" or term.kind == "signal" else Identity()
            scale = "data" if kind == "none" or term.kind == "signal" else kind
            if kind == "log":
                scale = "data" if first else "factor"
            distributions.append((name, term.kind, scale, *_normal(weights, own, back, points)))
        seen = distribution.forward(found.panel.y)
        rest = [
            Normals(seen - found.terms[m]["signal"].own.mean, found.terms[m]["signal"].own.scale)
            for m in index
        ]
        scale = {"none": "data", "log": "factor"}.get(kind, kind)
        back = distribution if kind == "log" else Identity()
        distribution_of = _normal(weights, rest, back, points)
        distributions.insert(
            len(distributions) - 1, ("irregular", "irregular", scale, *distribution_of)
        )
        there = total[:, 0] > 0
        for _, _, _, mean, quantiles in distributions:  # series for which the form does not speak
            mean[~there], quantiles[:, ~there] = np.nan, np.nan
        yield _gathered(specification, distributions)


def _gathered(specification: str, distributions: Distributions) -> Contributions:
    names, kinds, scales, mean, quantiles = zip(*distributions, strict=True)
    return Contributions(specification, names, kinds, scales, np.stack(mean), np.stack(quantiles))


def _names(found: Decomposed) -> list[tuple[str, str]]:
    """Names of all members with their kinds: components as they are added, signal last."""
    kinds: dict[str, str] = {}
    for terms in found.terms:
        kinds |= {name: term.kind for name, term in terms.items() if name not in kinds}
    order = {name: place for place, name in enumerate(kinds)}
    last = {"signal": 2, "known": 1}
    return sorted(
        kinds.items(),
        key=lambda item: (
            last.get(item[0], 1.5 if item[0].startswith("coefficient[") else 0),
            order[item[0]],
        ),
    )


def _normal(
    weights: np.ndarray, own: list[Normals], back: Transform, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and quantiles of a mixture of normals, carried over by one transform."""
    mean, scale = (
        np.stack([distribution.mean for distribution in own]),
        _positive([distribution for distribution in own]),
    )
    share = weights.T[:, :, None]
    return (
        (share * back.mean(mean, scale)).sum(0),
        mixture.quantiles(share, mean, scale, levels, [back] * len(own)),
    )


def _mixture(
    found: Decomposed,
    members: Sequence[Term | None],
    transforms: Mapping[str, Transform],
    levels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    plain, none = Identity(), np.zeros(found.panel.y.shape)
    terms = [Term("component", Normals(none, none)) if one is None else one for one in members]
    distributions = [
        plain if one is None or kind == "none" else transforms[kind]
        for one, kind in zip(members, found.kinds, strict=True)
    ]
    differs = [
        term.base is not None and distribution is not plain
        for term, distribution in zip(terms, distributions, strict=True)
    ]
    weights = found.weights.T[:, :, None]
    means = []
    for term, distribution, apart in zip(terms, distributions, differs, strict=True):
        if apart:
            assert term.total is not None
            assert term.base is not None
            means.append(distribution.mean(*term.total) - distribution.mean(*term.base))
        else:
            means.append(distribution.mean(*term.own))
    mean = (weights * np.stack(means)).sum(0)
    if any(differs):
        return mean, _by_points(found.weights, terms, distributions, differs, levels)
    scale = _positive([term.own for term in terms])
    own = np.stack([term.own.mean for term in terms])
    return mean, mixture.quantiles(weights, own, scale, levels, distributions)


def _positive(distributions: Sequence[Normals]) -> np.ndarray:
    """Standard deviations, those that are zero replaced by tiny ones."""
    scale = np.stack([distribution.scale for distribution in distributions])
    size = np.abs(np.stack([distribution.mean for distribution in distributions])).max(
        0
    ) + scale.max(0)
    return np.maximum(scale, 1e-12 * size + 1e-290)


def _by_points(
    weights: np.ndarray,
    terms: Sequence[Term],
    distributions: Sequence[Transform],
    differs: Sequence[bool],
    levels: np.ndarray,
) -> np.ndarray:
    """Quantiles of a mixture in which some distributions are differences of transformed normals."""
    first, second = _points()
    rows, width = terms[0].own.mean.shape
    size = max(1, _CELLS // (_POINTS * len(terms) * width))
    out = np.empty((len(levels), rows, width))
    for start in range(0, rows, size):
        part = slice(start, start + size)
        values = []
        for term, distribution, apart in zip(terms, distributions, differs, strict=True):
            mean, scale = term.own.mean[part], term.own.scale[part]
            if not apart:
                values.append(distribution.inverse(mean + scale * first))
                continue
            assert term.total is not None
            assert term.base is not None
            base, spread = term.base.mean[part], term.base.scale[part]
            shared = (term.total.scale[part] ** 2 - spread**2 - scale**2) / 2
            slope = np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
            slope = np.clip(slope, -scale, scale)
            below = base + spread * first
            above = below + mean + slope * first + np.sqrt(scale**2 - slope**2) * second
            values.append(distribution.inverse(above) - distribution.inverse(below))
        share = np.repeat(weights[part].T / _POINTS, _POINTS, 0)[:, :, None]
        out[:, part] = _weighted(np.concatenate(values), share, levels)
    return out


def _points() -> tuple[np.ndarray, np.ndarray]:
    """Points ``(N, 1, 1)`` that fill a standard normal distribution in two dimensions evenly."""
    from scipy.special import ndtri

    k = np.arange(_POINTS)
    first = (k + 0.5) / _POINTS
    second = (0.5 + k * (5**0.5 - 1) / 2) % 1
    return ndtri(first)[:, None, None], ndtri(second)[:, None, None]


def _weighted(values: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles along the first axis, between the middles of weighted points."""
    order = np.argsort(values, 0)
    values = np.take_along_axis(values, order, 0)
    weights = np.take_along_axis(np.broadcast_to(weights, values.shape), order, 0)
    middle = np.cumsum(weights, 0) - weights / 2
    out = []
    for level in levels:
        above = np.clip((middle < level).sum(0), 1, len(values) - 1)[None]
        x0, x1 = (np.take_along_axis(values, above + i, 0)[0] for i in (-1, 0))
        p0, p1 = (np.take_along_axis(middle, above + i, 0)[0] for i in (-1, 0))
        share = np.clip((level - p0) / np.maximum(p1 - p0, 1e-300), 0, 1)
        out.append(x0 + share * (x1 - x0))
    return np.stack(out)
