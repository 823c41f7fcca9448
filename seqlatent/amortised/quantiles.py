"""A distribution by its quantiles at fixed levels, which normal scores are mapped through."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["LEVELS", "SCORES", "QuantileFunction"]

LEVELS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)
"""Levels of the knots."""

SCORES = tuple(math.sqrt(2) * torch.erfinv(torch.tensor(2 * u - 1).double()).item() for u in LEVELS)
"""Normal scores of the knots."""

_UNITS = 16  # whole numbers on both sides of a median whose rounding a mean counts one by one


_BELOW_FLOOR = 0.01  # part of what would lie below a floor that does


class QuantileFunction:
    r"""Quantiles of many cells, linear in the normal score between knots and beyond the last ones.

    .. math:: Q(\Phi(x)) = q_i + (q_{i+1} - q_i) \frac{x - x_i}{x_{i+1} - x_i}

    A normal distribution is met exactly, and tails fall as its own do. Where a cell has a floor,
    whatever would lie below it is an atom there; where it holds whole numbers, each has the mass of
    half a unit on both of its sides.

    Args:
        knots: Values at the levels, which do not fall.
        floor: Least value of each series, minus infinity for none.
        whole: Which series hold whole numbers alone.

    Shape:
        knots ``(B, H, Q)``, floor ``(B, 1)``, whole ``(B, 1)``.
    """

    def __init__(
        self,
        knots: Float[Tensor, "B H Q"],
        floor: Float[Tensor, "B 1"] | None = None,
        whole: Bool[Tensor, "B 1"] | None = None,
    ) -> None:
        self.knots = knots
        self.floor, self.whole = floor, whole
        self._x = torch.tensor(SCORES, dtype=knots.dtype, device=knots.device)

    def at(self, x: Float[Tensor, "*S B H"]) -> Float[Tensor, "*S B H"]:
        """Values at normal scores."""
        x = x.contiguous()
        i = (torch.bucketize(x, self._x) - 1).clamp(0, len(self._x) - 2)
        knots = self.knots.expand(*x.shape[:-2], *self.knots.shape)
        low, high = (torch.gather(knots, -1, (i + k)[..., None])[..., 0] for k in (0, 1))
        x0, x1 = self._x[i], self._x[i + 1]
        return self._bounded(low + (high - low) * (x - x0) / (x1 - x0))

    def _bounded(self, y: Tensor) -> Tensor:
        if self.whole is not None:
            y = torch.where(self.whole, y.round(), y)
        return y if self.floor is None else torch.maximum(y, self.floor)

    @property
    def floored(self) -> Float[Tensor, "B H Q"]:
        """Knots, none below the floor."""
        return (
            self.knots if self.floor is None else torch.maximum(self.knots, self.floor[..., None])
        )

    def widened(self, factor: Float[Tensor, " H"]) -> "QuantileFunction":
        """The same with the distances from the median of each lead multiplied."""
        middle = self.knots[..., len(LEVELS) // 2, None]
        knots = middle + (self.knots - middle) * factor[:, None]
        return QuantileFunction(knots, self.floor, self.whole)

    def scores(self, y: Float[Tensor, "B H"], last: bool = False) -> Float[Tensor, "B H"]:
        """Normal scores at which the values lie, of the distribution without floor or units.

        Where quantiles are equal a value has many, of which this is the first or the ``last``.
        """
        return self._piece(y, right=last)[0]

    def _piece(self, y: Tensor, right: bool = False) -> tuple[Tensor, Tensor]:
        """Scores of values, and by how much the value grows with the score there.

        Where quantiles are equal a value has many scores, of which this is the first, or the last
        one at its ``right``.
        """
        y = y.contiguous()
        i = torch.searchsorted(self.knots.contiguous(), y[..., None], right=right)[..., 0] - 1
        i = i.clamp(0, len(self._x) - 2)
        low, high = (torch.gather(self.knots, -1, (i + k)[..., None])[..., 0] for k in (0, 1))
        x0, x1 = self._x[i], self._x[i + 1]
        slope = ((high - low) / (x1 - x0)).clamp_min(torch.finfo(y.dtype).tiny)
        inside = x0 + ((y - low) / slope).clamp(-1e3, 1e3)
        # equal quantiles at an end go on: all of the tail is one value
        beyond = (y >= high) if right else (y > high)
        return torch.where(high > low, inside, torch.where(beyond, x1 + 40, x0 - 40)), slope

    def mean(self) -> Float[Tensor, "B H"]:
        """Means, exact but for whole numbers that spread over dozens, and then to a hundredth."""
        knots = self.knots
        if self.floor is None and self.whole is None:  # they are linear in the knots
            one = torch.eye(knots.shape[-1], dtype=knots.dtype, device=knots.device)
            return knots @ QuantileFunction(one[:, None])._above(None)[:, 0]
        least = torch.full_like(knots[..., 0], -torch.inf)
        if self.floor is not None:
            least = torch.maximum(least, self.floor)
        floored = least.isfinite()
        middle = knots[..., len(LEVELS) // 2]
        start = torch.where(floored, least, middle)
        mean = torch.where(floored, start + self._above(start), self._above(None))
        if self.whole is None or not bool(self.whole.any()):
            return mean
        # of Q rounded, the sum of P(Q > k - 1/2) stands for the integral of P(Q > t) up to each k
        first = torch.maximum(middle.round() - _UNITS, least)
        steps = torch.zeros_like(mean)
        for k in range(2 * _UNITS):
            steps = steps + _below(-self._piece(first + k + 0.5)[0])
        smooth = self._above(first) - self._above(first + 2 * _UNITS)
        return torch.where(self.whole, mean + steps - smooth, mean)

    def _above(self, least: Tensor | None) -> Tensor:
        """Mean of what values exceed a number by, or of the values themselves."""
        x = self._x
        # the pieces at both ends go on without end
        edges = torch.cat([x.new_tensor([-torch.inf]), x[1:-1], x.new_tensor([torch.inf])])
        slope = (self.knots[..., 1:] - self.knots[..., :-1]) / (x[1:] - x[:-1])
        base = self.knots[..., :-1] - slope * x[:-1]
        if least is not None:
            edges = torch.maximum(edges, self._piece(least)[0][..., None])
            base = base - least[..., None]
        cdf, pdf = _below(edges), torch.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi)
        return (base * cdf.diff() - slope * pdf.diff()).sum(-1)

    def _limits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scores between which draws are the values, that are equal where they are no atom."""
        below = above = y
        if self.whole is not None:
            below = torch.where(self.whole, y.ceil() - 0.5, y)
            above = torch.where(self.whole, y.floor() + 0.5, y)
        first, last = self._piece(below)[0], self._piece(above, right=True)[0]
        if self.floor is not None:
            first = torch.where(y <= self.floor, -torch.inf, first)
            last = torch.where(y < self.floor, -torch.inf, last)
        return first, last

    def distribution(self, y: Float[Tensor, "B H"]) -> tuple[Tensor, Tensor]:
        """Probabilities of less than the values, and of no more than them ``(B, H)``."""
        first, last = self._limits(y)
        return _below(first), _below(last)

    def log_prob(self, y: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """Log densities, or log probabilities at a floor and of whole numbers."""
        x, slope = self._piece(y)
        density = -0.5 * x**2 - 0.5 * math.log(2 * math.pi) - slope.log()
        first, last = self._limits(y)
        # far above, differences of what is left keep their digits
        turned = first > 0
        mass = _below(torch.where(turned, -first, last)) - _below(torch.where(turned, -last, first))
        mass = mass.clamp_min(torch.finfo(y.dtype).tiny).log()
        atom = torch.zeros_like(y, dtype=torch.bool)
        if self.floor is not None:
            atom = atom | (y <= self.floor)
        if self.whole is not None:
            atom = atom | self.whole
        found = torch.where(atom, mass, density)
        if self.floor is None:
            return found
        # a floor is what the past says, and a value below it no more than a surprise
        return torch.where(y < self.floor, density + math.log(_BELOW_FLOOR), found)


def _below(x: Tensor) -> Tensor:
    """Normal probabilities, which torch's own lose where they are small."""
    return 0.5 * torch.special.erfc(-x / math.sqrt(2))
