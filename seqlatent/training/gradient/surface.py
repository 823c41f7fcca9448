"""The objective of all data as a function of a vector of parameters, and what there is to gain."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.scales import log_scales
from seqlatent.training.gradient.batches import Batch
from seqlatent.training.gradient.descent import Descent

__all__ = []

# Nats that are worth another step, and the most parameters whose curvature is looked at.
WORTH, _MOST = 1e-3, 64
_LONGEST, _HALVINGS, _FLAT = 3.0, 6, 1e-6
# Where a standard deviation is tried, in units of the largest one of the model.
_TRIED = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)


class Surface:
    """A function of a vector ``(P,)`` of the trainable parameters, in nats over all data.

    Args:
        descent: What evaluates the objective.
        batch: All data.

    Attributes:
        logarithmic: Which entries are logarithms of standard deviations.
    """

    def __init__(self, descent: Descent, batch: Batch) -> None:
        self.descent, self.batch = descent, batch
        named = [(n, p) for n, p in descent.model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        scales = log_scales(descent.model)
        self.logarithmic = torch.cat(
            [torch.full((p.numel(),), n in scales, device=p.device) for n, p in named]
        )

    def __len__(self) -> int:
        return len(self.logarithmic)

    def read(self) -> Float[Tensor, " P"]:
        """The vector as it stands."""
        return torch.cat([p.detach().flatten() for p in self.parameters])

    @torch.no_grad()
    def write(self, x: Float[Tensor, " P"]) -> None:
        """Puts a vector into the model."""
        parts = x.split([p.numel() for p in self.parameters])
        for p, part in zip(self.parameters, parts, strict=True):
            p.copy_(part.view_as(p))

    def worth(self, value: float) -> float:
        """Nats that are worth a step, given a value per cell: more than its rounding at least."""
        eps = torch.finfo(self.parameters[0].dtype).eps
        return max(WORTH, 10 * eps * abs(value) * self.batch.cells)

    def value(self, x: Float[Tensor, " P"]) -> float:
        """The objective, minus infinity where it is not finite."""
        self.write(x)
        return self.descent.value(self.batch) * self.batch.cells

    def slope(self, x: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """The objective and its gradient."""
        self.write(x)
        value = self.descent.slope(self.batch)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        gradient = torch.cat([g.flatten() for g in grads])
        self.descent.optimizer.zero_grad(set_to_none=True)
        return value * self.batch.cells, -gradient * self.batch.cells


class Verdict(NamedTuple):
    """What is left to gain at a point.

    Attributes:
        gain: Nats that a Newton step promises, in whichever units the parameters are.
        better: A point that is better by more than is worth a step, None where none was found.
    """

    gain: float
    better: Tensor | None


def judge(surface: Surface) -> Verdict | None:
    r"""Whether a point is a maximum, judged by the gradient in the metric of the curvature.

    .. math:: \tfrac12\, g^\top |H|^{-1} g

    is the gain that Newton's step promises; it has the units of the objective, nats, and is the
    same in all units of the parameters. Where a standard deviation has come near zero the objective
    is flat in its logarithm whichever value is best, so that other values of it are tried as well,
    and where the objective is not concave the way up from the saddle.

    Returns:
        The verdict; None where there are too many parameters for their curvature, or the objective
        is not finite. The model stays as it was.
    """
    if len(surface) > _MOST:
        return None
    x = surface.read()
    value, gradient = surface.slope(x)
    if not (math.isfinite(value) and bool(gradient.isfinite().all())):
        surface.write(x)
        return None
    step, gain, ascents = _newton(surface, x, gradient)
    worth = surface.worth(value / surface.batch.cells)
    better = _first(surface, x, value + worth, [2.0**-i * step for i in range(_HALVINGS)])
    if better is None:
        better = _best(surface, value + worth, [x + a for a in ascents] + _scales(surface, x))
    surface.write(x)
    return Verdict(gain, better)


def _newton(surface: Surface, x: Tensor, gradient: Tensor) -> tuple[Tensor, float, list[Tensor]]:
    """The step, the gain that it promises, and steps to both sides of a saddle."""
    unit = torch.finfo(x.dtype).eps ** (1 / 3)
    columns = []
    for j in range(len(x)):
        there, length = x.clone(), unit * max(1.0, abs(float(x[j])))
        there[j] += length
        columns.append((gradient - surface.slope(there)[1]) / length)
    H = torch.stack(columns, -1)
    H = ((H + H.mT) / 2).nan_to_num(0.0, 0.0, 0.0)
    size = H.diagonal().abs().clamp_min(_FLAT).sqrt()
    values, vectors = torch.linalg.eigh(H / (size[:, None] * size))
    along = vectors.mT @ (gradient / size)
    flat = values.abs().clamp_min(_FLAT)
    step = (vectors @ (along / flat)) / size
    gain = 0.5 * float((along.square() / flat).sum())
    ascents = []
    if float(values[0]) < -1e-3:
        way = vectors[:, 0] / size
        ascents = [sign * length * way for sign in (1, -1) for length in (0.3, 1.0, 3.0)]
    return _bounded(surface, step), gain, [_bounded(surface, a) for a in ascents]


def _bounded(surface: Surface, step: Tensor) -> Tensor:
    """A step that changes no standard deviation by more than so many powers of e."""
    far = step[surface.logarithmic].abs()
    longest = float(far.max()) if len(far) else 0.0
    return step * min(1.0, _LONGEST / max(longest, _LONGEST))


def _scales(surface: Surface, x: Tensor) -> list[Tensor]:
    """Points at which one standard deviation has another value."""
    columns = surface.logarithmic.nonzero()[:, 0].tolist()
    if not columns:
        return []
    largest, points = float(x[columns].max()), []
    for j in columns:
        for share in _TRIED:
            value = largest + math.log(share)
            # far below the others all values are the same
            if max(abs(value - float(x[j])), 0.0) > 0.3 and max(value, float(x[j])) > largest - 12:
                there = x.clone()
                there[j] = value
                points.append(there)
    return points


def _first(surface: Surface, x: Tensor, least: float, steps: list[Tensor]) -> Tensor | None:
    for step in steps:
        if surface.value(x + step) > least:
            return x + step
    return None


def _best(surface: Surface, least: float, points: list[Tensor]) -> Tensor | None:
    values = [surface.value(point) for point in points]
    best = max(range(len(points)), key=values.__getitem__, default=None)
    return None if best is None or values[best] <= least else points[best]
