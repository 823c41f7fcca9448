"""What a simulator returns, and what all simulators share: gaps, missing cells, checks."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from seqlatent.capacity import brief, shortage
from seqlatent.sequences import Sequences

GapDistribution = Callable[..., Tensor]
"""Draws gaps: ``gaps(batch, steps, generator=..., dtype=...)`` is positive ``(B, T)``, mean 1."""

SHORTEST_GAP = (
    1e-3  # keeps times strictly increasing after rounding; moves the mean by less than 1e-6
)


class Settings(TypedDict):
    """What torch's sampling functions need to know."""

    generator: torch.Generator | None
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Simulated:
    r"""Simulated data beside everything that made them.

    Args:
        sequences: What a model may see.
        complete: The values without anything missing, for scoring an imputation.
        states: The true latent paths.
        parameters: The true parameters; :attr:`density` tells what each letter means.
        density: The joint distribution of states and values, in the letters of ``parameters``.
        regimes: The true discrete regime of each step; zero throughout where there is only one.

    Shape:
        ``complete`` ``(B, T, D)``; ``states`` ``(B, T, K)``; ``regimes`` ``(B, T)``.

    Example:
        >>> from seqlatent.datasets import linear_gaussian
        >>> data = linear_gaussian(4, 50, missing=0.2)
        >>> data.states.shape, sorted(data.parameters)
        (torch.Size([4, 50, 2]), ['F', 'H', 'P0', 'Q', 'R', 'b', 'd', 'm0'])
    """

    sequences: Sequences
    complete: Tensor = field(repr=False)
    states: Tensor = field(repr=False)
    parameters: Mapping[str, Tensor] = field(repr=False)
    density: str
    regimes: Tensor = field(repr=False)


def exponential_gaps(
    batch: int,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Gaps of a Poisson process, one event per step: :math:`\Delta_t \sim \mathrm{Exp}(1)`.

    Args:
        batch: Number of series.
        steps: Number of gaps of each series.
        generator: Source of randomness; torch's global one by default.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns ``(B, T)``; gaps below 0.001 are lengthened to that.

    Example:
        >>> round(exponential_gaps(100, 1000).mean().item(), 2)
        1.0
    """
    require_sizes(0.0, batch=batch, steps=steps)
    uniform = torch.rand(batch, steps, **settings(generator, dtype))
    return (-torch.log1p(-uniform)).clamp_min(SHORTEST_GAP)


def lognormal_gaps(
    batch: int,
    steps: int,
    *,
    spread: float = 0.5,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Gaps that vary around one sampling step: :math:`\log \Delta_t \sim N(-s^2/2, s^2)`, mean 1.

    Pass ``functools.partial(lognormal_gaps, spread=1.0)`` to a simulator to change the spread.

    Args:
        batch: Number of series.
        steps: Number of gaps of each series.
        spread: Standard deviation :math:`s` of the logarithm of a gap.
        generator: Source of randomness; torch's global one by default.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns ``(B, T)``; gaps below 0.001 are lengthened to that.

    Example:
        >>> round(lognormal_gaps(100, 1000).mean().item(), 2)
        1.0
    """
    require_positive("spread", spread)
    require_sizes(0.0, batch=batch, steps=steps)
    normal = torch.randn(batch, steps, **settings(generator, dtype))
    return torch.exp(spread * normal - spread**2 / 2).clamp_min(SHORTEST_GAP)


def settings(
    generator: torch.Generator | None, dtype: torch.dtype | None, *given: Tensor | None
) -> Settings:
    """Arguments of torch's sampling functions; they follow given tensors and the generator."""
    first = next((x for x in given if x is not None), None)
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(
            f"dtype must be a floating type, found {dtype}; use torch.float32 or torch.float64."
        )
    default = torch.empty(0) if first is None else first
    if dtype is None:
        dtype = default.dtype if default.is_floating_point() else torch.get_default_dtype()
    device = default.device if generator is None else generator.device
    return {"generator": generator, "dtype": dtype, "device": device}


def times(
    irregular: bool | GapDistribution, batch: int, steps: int, how: Settings
) -> tuple[Tensor, Tensor]:
    """Times from 0 and the gap before each step, ``(B, T)``; the first gap is 1 by convention."""
    ones = torch.ones(batch, steps, dtype=how["dtype"], device=how["device"])
    if irregular is False:
        gaps = ones
    else:
        distribution = exponential_gaps if irregular is True else irregular
        drawn = distribution(batch, steps - 1, generator=how["generator"], dtype=how["dtype"])
        gaps = torch.cat([ones[:, :1], drawn], 1)
    return gaps.cumsum(1) - gaps[:, :1], gaps


def observe(y: Tensor, t: Tensor, missing: float, how: Settings) -> Sequences:
    """Hides each cell with probability ``missing``; drawn last, so the rate changes no data."""
    if not bool(torch.isfinite(y).all()):
        raise ValueError(
            "the simulation must stay finite, but it diverged; use fewer steps, a shorter step or "
            "a stable system."
        )
    hidden = torch.rand(y.shape, **how) < missing
    return Sequences.of(y, observed=~hidden, t=t)


def one_regime(states: Tensor) -> Tensor:
    """Labels of a system that never switches: zeros ``(B, T)``."""
    return torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)


def scalars(how: Settings, **values: float) -> dict[str, Tensor]:
    """Parameters that are single numbers, as tensors."""
    return {k: torch.tensor(v, dtype=how["dtype"], device=how["device"]) for k, v in values.items()}


def require_sizes(missing: float, *, batch: int, steps: int, **dims: int) -> None:
    """Checks the rate of missing cells, counts that must be at least 1, and that all fits.

    Args:
        missing: Rate of missing cells.
        batch: Number of series.
        steps: Steps of each.
        dims: Numbers that a step has of something.
    """
    for name, value in {"batch": batch, "steps": steps, **dims}.items():
        if operator.index(value) < 1:
            raise ValueError(f"{name} must be at least 1, found {value}.")
    width = sum(operator.index(value) for value in dims.values()) + 1
    text = shortage(8 * width * operator.index(batch) * operator.index(steps))
    if text:
        name = "batch" if batch > steps else "steps"
        raise ValueError(
            f"{name} must leave series that fit into memory: {brief(batch)} series x "
            f"{brief(steps)} steps need at least {text}; ask for fewer series or steps."
        )
    if not 0 <= missing < 1:
        raise ValueError(
            f"missing must be a rate in [0, 1), found {missing}; 0.3 hides about 30% of the cells."
        )


def require_positive(name: str, value: float, *, or_zero: bool = False) -> None:
    """Checks a finite number that must be positive."""
    fits = math.isfinite(value) and (value >= 0 if or_zero else value > 0)
    if not fits:
        raise ValueError(
            f"{name} must be {'zero or ' if or_zero else ''}positive and finite, found {value}."
        )
