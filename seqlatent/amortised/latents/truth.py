"""Truth, what drawn series are made of in the units of the data."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.prior import KINDS, Drawn

__all__ = [
    "EVENTS",
    "FROM_BASE",
    "PARAMETERS",
    "PRESENT",
    "TREND",
    "events_of",
    "parameters_of",
    "truth_of",
]

EVENTS: tuple[str, ...] = ("break", "outlier")
"""What happens at a step or does not."""

FROM_BASE: tuple[str, ...] = ("level", "signal", "value")
"""What has a place beside the values, and not only a size."""

TREND: tuple[str, ...] = ("level", "slope")
"""Components whose sum is the level."""

PARAMETERS: dict[str, str] = {
    "level.scale": "scale",
    "slope.scale": "scale",
    "slope.damping": "number",
    "season.drift": "scale",
    "season.amplitude": "scale",
    "long_season.amplitude": "scale",
    "ar.scale": "scale",
    "ar.coefficient": "number",
    "noise.scale": "scale",
}
"""Parameters whose posterior is learned, and whether they are sizes in the units of the data at the
last row or numbers without a unit."""

PRESENT: tuple[str, ...] = (
    "level.scale",
    "level.break_rate",
    "slope",
    "slope.scale",
    "season.amplitude",
    "season.drift",
    "season.growth",
    "long_season.amplitude",
    "ar.scale",
    "noise.heavy",
    "noise.volatility",
    "noise.outlier_rate",
    "multiplicative",
)
"""What a series has or has not."""


def truth_of(drawn: Drawn, components: Sequence[str]) -> dict[str, Float[Tensor, "B T"]]:
    r"""Level, slope, components and the rest, in the units of the data.

    What a component contributes is what it adds to those before it, :math:`g(S_k) - g(S_{k-1})`
    with the mean g of values under a signal, so that the level and the components add up to the
    signal whatever g is.

    Args:
        drawn: Drawn series.
        components: Components beside the level, in the order in which they are added.

    Returns:
        ``"level"``, ``"slope"`` (gain of the level in the next step), each component, ``"signal"``
        (all but noise), ``"value"``, ``"noise"`` (standard deviation of a value around the signal)
        and ``"break"`` (by how much the level has jumped).
    """
    link, paths = drawn.link, drawn.components
    nothing = torch.zeros_like(drawn.y)
    total = sum((paths[name] for name in TREND if name in paths), start=nothing)
    level = link.mean(total)
    found = {"level": level}
    rate = link.derivative(total)
    found["slope"] = rate * drawn.latents.get("slope.slope", nothing)
    found["break"] = level - link.mean(total - drawn.latents.get("level.break", nothing))
    before = level
    for name in components:
        total = total + paths.get(name, nothing)
        after = link.mean(total)
        found[name] = after - before
        before = after
    found |= {"signal": before, "value": drawn.y}
    found["noise"] = link.deviation(total, drawn.latents["noise.scale"])
    return found


def events_of(drawn: Drawn) -> dict[str, Bool[Tensor, "B T"]]:
    """Where the level breaks and where there are outliers."""
    breaks = drawn.latents.get("level.break", torch.zeros_like(drawn.y))
    return {"break": breaks != 0, "outlier": drawn.components["outliers"] != 0}


def parameters_of(drawn: Drawn, last: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters ``(B,)`` and what is there ``(B,)``.

    Sizes are in the units of the data at one step, where a series has a size of its own: of a
    growing series, a part of its level there.
    """
    trend = sum(
        (drawn.components[name] for name in TREND if name in drawn.components),
        start=torch.zeros_like(drawn.y),
    )
    rate = drawn.link.derivative(trend)[:, last]
    nothing = torch.zeros_like(rate)
    held = drawn.parameters
    found = {
        name: held.get(name, nothing) * (rate if kind == "scale" else 1.0)
        for name, kind in PARAMETERS.items()
    }
    heavy = held["noise.heavy"] > 0
    # of heavy tails, that of normal noise with the same quartiles
    found["noise.scale"] = found["noise.scale"] * torch.where(heavy, 0.7 * 1.134, 1.0)
    there = {name: held.get(name, nothing) != 0 for name in PRESENT}
    moves = [held.get(f"slope.{name}", nothing) != 0 for name in ("drift", "start", "scale")]
    there["slope"] = torch.stack(moves).any(0)
    additive = torch.tensor([kind in ("real", "positive") for kind in KINDS])
    there["multiplicative"] = ~additive[drawn.kind]
    return found, there


def log_scale(value: Tensor) -> Tensor:
    """Logarithms of sizes, of those that are none as well."""
    return value.clamp_min(math.exp(-20)).log()
