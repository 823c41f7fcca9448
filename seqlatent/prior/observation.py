"""From the latent signal to what is observed: real values, growth, counts, shares."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqlatent.distributions import sample
from seqlatent.prior.grid import Grid
from seqlatent.prior.hyper import LogUniform, Scalar, Sometimes, Uniform
from seqlatent.prior.link import KINDS, Link

__all__ = ["Observation"]


@dataclass(frozen=True)
class Observation:
    r"""How a signal x, components and noise together, becomes a series.

    ``real`` is x, far from zero or near it; ``growth`` is :math:`e^{r(x - c)} / r`; ``positive`` is
    x moved to where it hardly meets zero, and cut there; ``poisson`` and ``overdispersed`` are
    counts whose rate is a multiple of :math:`e^{r(x - c)}`; ``intermittent`` are such counts at
    steps with a demand, whose probability moves with the rate; ``share`` is a logistic function.

    Args:
        weights: How often each kind comes, by name; only those named are drawn.
        rate: How much a unit of x is of the size of a growing series, :math:`r`.
        count_rate: The same of the logarithm of a count's size.
        mean: Usual size of a count.
        dispersion: Variance of overdispersed counts beyond their mean, as a part of its square.
        demand: Usual probability of a demand at a step.
        offset: Distance from zero of a real series, in units of its own spread.
        place: Where in a series the point c lies at which it has its usual size, as a part of it.
        whole: Whether real, growing and positive series are rounded to whole numbers (1).
    """

    weights: dict[str, float] = field(
        default_factory=lambda: {
            "real": 0.37,
            "growth": 0.5,
            "positive": 0.03,
            "poisson": 0.05,
            "overdispersed": 0.02,
            "intermittent": 0.02,
            "share": 0.01,
        }
    )
    rate: Scalar = LogUniform(0.003, 0.2)
    count_rate: Scalar = LogUniform(0.003, 0.2)
    mean: Scalar = LogUniform(0.3, 20.0)
    dispersion: Scalar = LogUniform(0.05, 2.0)
    demand: Scalar = Uniform(0.05, 0.6)
    offset: Scalar = Sometimes(0.5, LogUniform(1.0, 100.0))
    place: Scalar = Uniform(0.0, 1.0)
    whole: Scalar = Sometimes(0.1, 1.0)

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in KINDS or not 0 <= weight < float("inf"):
                raise ValueError(
                    f"weights must be non-negative numbers of {', '.join(KINDS)}, found "
                    f"{name!r}: {weight!r}."
                )
        if not sum(self.weights.values()) > 0:
            raise ValueError("weights must name at least one kind with a positive weight.")

    def sample(self, grid: Grid, signal: Tensor) -> tuple[Tensor, Link, dict[str, Tensor]]:
        """Values ``(B, T)``, the way to them, parameters ``(B, 1)``."""
        weights = torch.tensor([self.weights.get(kind, 0.0) for kind in KINDS])
        kind = torch.multinomial(weights, grid.series, True, generator=grid.generator)
        rate, mean = grid.scalar(self.rate), grid.scalar(self.mean)
        count_rate = grid.scalar(self.count_rate)
        dispersion, demand = grid.scalar(self.dispersion), grid.scalar(self.demand)
        offset, whole = grid.scalar(self.offset), grid.scalar(self.whole)
        place = (grid.scalar(self.place) * grid.steps).long().clamp(0, grid.steps - 1)
        spread = signal.std(1, correction=0, keepdim=True).clamp_min(1e-3)
        real = (kind == KINDS.index("real"))[:, None]
        shift = torch.where(real, offset, 1 + offset.clamp_max(5.0)) * spread
        centre = torch.gather(signal, 1, place)  # where a series has its usual size
        link = Link(kind, centre, shift, rate, count_rate, mean, dispersion, demand)
        y = link.mean(signal)
        y = torch.where((whole > 0) & (kind[:, None] < KINDS.index("poisson")), y.round(), y)
        size = link.size(signal)
        for name in ("poisson", "overdispersed", "intermittent"):
            i = (kind == KINDS.index(name)).nonzero()[:, 0]
            y[i] = self._counts(name, size[i], mean[i], dispersion[i], demand[i], grid.generator)
        parameters = {
            "rate": rate,
            "count_rate": count_rate,
            "mean": mean,
            "dispersion": dispersion,
            "demand": demand,
        }
        return y, link, parameters

    @staticmethod
    def _counts(
        name: str,
        size: Tensor,
        mean: Tensor,
        dispersion: Tensor,
        demand: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        if name != "poisson":
            shape = (1 / dispersion).expand_as(size)
            gamma = torch.distributions.Gamma(shape, torch.ones_like(shape), False)
            size = size * dispersion * sample(gamma, (), generator)
        y = torch.poisson(size, generator=generator)
        if name == "intermittent":
            moved = (demand * (size / mean).sqrt()).clamp(0.0, 1.0)
            some = torch.rand(size.shape, generator=generator) < moved
            return torch.where(some, y + 1, 0.0)
        return y
