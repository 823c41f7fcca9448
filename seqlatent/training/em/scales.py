"""Standard deviations and offsets whose maximisation step is read off the score."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.chain import ConditionallyLinear
from seqlatent.emissions import LinearEmission
from seqlatent.model import LatentModel
from seqlatent.scales import log_scales
from seqlatent.sequences import Context
from seqlatent.training.likelihood.parameter_vectors import Vectors

__all__ = []

_DOUBLED = 0.34657359027997264  # log(2) / 2: a standard deviation whose variance doubles
_LEAST = 1e-8


class Matrices(NamedTuple):
    """A linear Gaussian model, time last among the leading axes."""

    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor


class Scales(NamedTuple):
    r"""Logarithms of standard deviations, and how many noises each of them governs.

    Where a covariance is :math:`A + \sigma^2 B`, its noise is a sum of two; with the part that
    :math:`\sigma` governs as what is missing, expectation maximisation gives

    .. math::
        \sigma'^2 = \frac1n E \sum_i (\sigma \varepsilon_i)^2
            = \sigma^2 \Big( 1 + \frac1n \frac{\partial \log p(y)}{\partial \log \sigma} \Big)

    with n the number of its noises, whatever is missing of the observations.

    Attributes:
        columns: Which entries of a vector of parameters they are.
        noises: Their number of noises in each problem ``(N, J)``.
    """

    columns: Tensor
    noises: Tensor

    def step(self, theta: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """Vectors after a maximisation step in these entries."""
        count, score = self.noises[index], gradient[:, self.columns]
        factor = torch.where(count > 0, 1 + score / count.clamp_min(1), 1.0)
        theta = theta.clone()
        theta[:, self.columns] += 0.5 * factor.clamp_min(_LEAST).log()
        return theta


def scales(vectors: Vectors, taken: set[str]) -> tuple[Scales, list[str]]:
    """Finds the scales of a model, by doubling each variance and looking at what changes.

    Args:
        vectors: Parameters and data.
        taken: Names of parameters that have another maximisation step.

    Returns:
        The scales, and the names of the parameters that consist of them.
    """
    model, data = vectors.model, vectors.data
    theta = vectors.read()
    empty = torch.zeros(0, dtype=torch.long, device=theta.device)
    none = Scales(empty, theta.new_zeros(len(theta), 0))
    logarithmic = log_scales(model)
    names = [name for name in vectors.named if name not in taken and name in logarithmic]
    with torch.no_grad():
        c = model.context(data)
        base = matrices(model, c)
        parts: dict[str, list[tuple[int, list[Tensor]]]] = {}
        for name in names:
            columns = range(vectors.columns[name].start, vectors.columns[name].stop)
            found = [(j, _part(vectors, theta, j, c, base)) for j in columns]
            if all(part is not None for _, part in found):
                parts[name] = [(j, part) for j, part in found if part is not None]
        every = [entry for entries in parts.values() for entry in entries]
        if not every or not _additive(vectors, theta, every, c, base):
            vectors.write(theta)
            return none, []
        count = torch.stack([_count(vectors, part) for _, part in every], -1)
        vectors.write(theta)
    columns = torch.tensor([j for j, _ in every], device=theta.device)
    return Scales(columns, count), list(parts)


def matrices(model: LatentModel, c: Context) -> Matrices:
    """Matrices of a model in a context, with covariances in the place of factors."""
    transition, emission = model.transition, model.emission
    assert isinstance(transition, ConditionallyLinear)
    assert isinstance(emission, LinearEmission)
    F, b, G = transition.matrices(c)
    m0, G0 = transition.initial_moments(c[0])
    G0 = torch.where(G0.isfinite(), G0, 0)
    return Matrices(F, b, G @ G.mT, m0, G0 @ G0.mT, *emission.matrices(c))


def _moved(vectors: Vectors, theta: Tensor, c: Context, changes: dict[int, float]) -> Matrices:
    there = theta.clone()
    for j, change in changes.items():
        there[:, j] += change
    vectors.write(there)
    return matrices(vectors.model, c)


def _part(
    vectors: Vectors, theta: Tensor, j: int, c: Context, base: Matrices
) -> list[Tensor] | None:
    """What a scale contributes to Q, P0 and R, None where it does anything else."""
    up = _moved(vectors, theta, c, {j: _DOUBLED})
    down = _moved(vectors, theta, c, {j: -_DOUBLED})
    same = all(_equal(getattr(up, x), getattr(base, x)) for x in ("F", "b", "m0", "H", "d"))
    if not same:
        return None
    parts = []
    for x in ("Q", "P0", "R"):
        P, more, less = getattr(base, x), getattr(up, x), getattr(down, x)
        own = more - P
        if not _close(less, P - own / 2, P) or not _psd(own, P) or not _psd(P - own, P):
            return None
        parts.append(own)
    return parts


def _additive(
    vectors: Vectors,
    theta: Tensor,
    every: list[tuple[int, list[Tensor]]],
    c: Context,
    base: Matrices,
) -> bool:
    """Whether the contributions of all scales add up to no more than the covariances."""
    up = _moved(vectors, theta, c, {j: _DOUBLED for j, _ in every})
    for i, x in enumerate(("Q", "P0", "R")):
        P, total = getattr(base, x), sum(part[i] for _, part in every)
        if not _close(getattr(up, x), P + total, P) or not _psd(P - total, P):
            return False
    return True


def _count(vectors: Vectors, part: list[Tensor]) -> Float[Tensor, " N"]:
    """How many noises a scale governs in each problem, up to the last observation of a series."""
    data = vectors.data
    Q, P0, R = part
    step = torch.arange(data.steps, device=data.y.device)
    later = (step > 0) & (step <= data.last[:, None])
    in_state = (_rank(Q).expand(data.batch, data.steps) * later).sum(-1)
    at_first = _rank(P0).expand(data.batch) * (data.last >= 0)
    seen = (R.diagonal(dim1=-2, dim2=-1) > 0) & data.observed
    total = in_state + at_first + seen.flatten(1).sum(-1).to(in_state.dtype)
    return vectors.together(total, vectors.owner, len(vectors))


def _unit(P: Tensor, like: Tensor) -> Tensor:
    """A covariance in units of the standard deviations of another."""
    scale = like.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    return P / (scale.unsqueeze(-1) * scale.unsqueeze(-2))


def _close(a: Tensor, b: Tensor, like: Tensor) -> bool:
    return bool((_unit(a - b, like).abs() < torch.finfo(a.dtype).eps ** 0.6).all())


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _psd(P: Tensor, like: Tensor) -> bool:
    if not P.numel():
        return True
    least = torch.linalg.eigvalsh(_unit(P, like)).amin()
    return bool(least > -(torch.finfo(P.dtype).eps ** 0.6))


def _rank(P: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(_unit(P, P))
    return (values > torch.finfo(P.dtype).eps ** 0.6).sum(-1).to(P.dtype)
