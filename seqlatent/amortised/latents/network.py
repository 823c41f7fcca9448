"""The network of latents: from a series to the posterior of what it is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqlatent.amortised.latents.joint import FACTORS, Joint
from seqlatent.amortised.latents.moments import MOMENTS, moments
from seqlatent.amortised.latents.naive import CANDIDATES, LINES, WORLDS
from seqlatent.amortised.latents.reading import FEATURES, Reading
from seqlatent.amortised.latents.truth import EVENTS, PARAMETERS, PRESENT
from seqlatent.amortised.network import MIDDLE, SERIES, Block, Folded, padded, series_features
from seqlatent.amortised.past import Seasons
from seqlatent.amortised.quantiles import LEVELS

__all__ = ["LatentNetwork", "RawLatents", "RawParameters"]

_LARGEST = 9.0  # logarithm of a scale, in units of the changes around


class RawLatents(NamedTuple):
    """What the network says of steps.

    Attributes:
        knots: Quantiles of each quantity ``(B, Q, K, levels)`` in ``unit``, those of ``"level"``,
            ``"signal"`` and ``"value"`` from ``base``; of ``"noise"`` of its logarithm.
        events: Log odds of what may happen at a step ``(B, Q, E)``.
        joint: How level, components and values go together.
        base: Mean of the values around, in the units of the scaled past ``(B, Q)``.
        unit: Usual size of a change around ``(B, Q)``.
    """

    knots: Float[Tensor, "B Q K levels"]
    events: Float[Tensor, "B Q E"]
    joint: Joint
    base: Float[Tensor, "B Q"]
    unit: Float[Tensor, "B Q"]


class RawParameters(NamedTuple):
    """What the network says of parameters.

    Attributes:
        knots: Quantiles ``(B, P, levels)``, of sizes of their logarithm in the scaled past.
        present: Log odds of what there is ``(B, C)``.
    """

    knots: Float[Tensor, "B P levels"]
    present: Float[Tensor, "B C"]


class LatentNetwork(nn.Module):
    r"""Posterior of level, slope, components and noise at each step, and of parameters.

    A trunk reads the series as a whole, a head the steps around one of them: values on both sides,
    means over ever longer spans, values of the same phase. Each quantity has quantiles around a
    learned mix of naive estimates, in units of the changes around the step, so that what is said
    of a step moves and grows with what is there.

    Args:
        components: Components beside the level.
        width: Width of the trunk.
        depth: Residual blocks of the trunk.
        head_width: Width of the head.
        head_depth: Residual blocks of the head.

    Raises:
        ValueError: If components have the same name, or that of another quantity.

    References:
        BayesFlow (Radev et al., 2020), of posteriors that are learned from simulations.
    """

    def __init__(
        self,
        components: Sequence[str] = ("season", "long_season", "ar"),
        *,
        width: int = 256,
        depth: int = 3,
        head_width: int = 128,
        head_depth: int = 2,
    ) -> None:
        super().__init__()
        taken = {"level", "slope", "signal", "value", "noise", "break", "irregular", "regression"}
        if taken & set(components) or len(set(components)) < len(components):
            raise ValueError(
                "components must have names of their own, beside "
                f"{', '.join(sorted(taken))}, found {list(components)}."
            )
        self.components = tuple(components)
        self.config = {
            "components": list(components),
            "width": width,
            "depth": depth,
            "head_width": head_width,
            "head_depth": head_depth,
        }
        self.read = nn.Linear(SERIES + MOMENTS + WORLDS + LINES, width)
        self.trunk = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.state = nn.Linear(width, head_width)
        self.step = nn.Linear(FEATURES, head_width)
        self.head = nn.Sequential(*[Block(head_width) for _ in range(head_depth)])
        self.centres = {
            "level": "level",
            "slope": "slope",
            **dict.fromkeys(self.components, "component"),
            "signal": "signal",
            "value": "value",
            "noise": "",
            "break": "break",
        }
        self._mixed = [CANDIDATES.get(kind, 0) for kind in self.centres.values()]
        each = (len(LEVELS) + 1) * len(self.centres)
        self.joint = ("level", *self.components, "value")
        self._sizes = [sum(self._mixed), each, len(EVENTS), (FACTORS + 1) * len(self.joint)]
        self.out = nn.Linear(head_width, sum(self._sizes))
        self.mix = nn.Linear(width, self._sizes[0])
        each = len(LEVELS) + 1
        self.parameters_out = nn.Linear(width, each * len(PARAMETERS) + len(PRESENT))
        for last in (self.out, self.mix, self.parameters_out):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        # factors that are all alike stay alike
        nn.init.normal_(self.out.weight[-self._sizes[-1] :], std=0.05)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What has a posterior at each step."""
        return tuple(self.centres)

    def lags(self, seasons: Seasons) -> tuple[int, ...]:
        """Steps after which what is in the copula comes back."""
        back = {"season": seasons.short, "long_season": max(seasons.long, 1)}
        return tuple(back.get(name, 1) for name in self.joint)

    def read_series(self, reading: Reading) -> Float[Tensor, "B W"]:
        """What the trunk makes of series."""
        past, long = reading.past, padded(reading.past)
        series = series_features(long, Folded.of(long))
        features = torch.cat([series, moments(past), reading.bank.missed], -1)
        return F.silu(self.trunk(self.read(features)))

    def forward(
        self, reading: Reading, steps: Int[Tensor, "B Q"]
    ) -> tuple[RawLatents, RawParameters]:
        """Posterior at some steps, and of the parameters."""
        x = self.read_series(reading)
        return self.at(x, reading, steps), self.parameters_of(x)

    def at(
        self, x: Float[Tensor, "B W"], reading: Reading, steps: Int[Tensor, "B Q"]
    ) -> RawLatents:
        """Posterior at some steps of series that the trunk has read."""
        read = reading.at(steps)
        h = F.silu(self.head(self.state(x)[:, None] + self.step(read.features)))
        mix, spread, events, joint = torch.split(self.out(h).float(), self._sizes, -1)
        mix = mix + self.mix(x).float()[:, None]
        centre = self._centres(read.candidates, torch.split(mix, self._mixed, -1))
        spread = spread.unflatten(-1, (len(self.centres), len(LEVELS) + 1))
        copula = Joint.of(joint.unflatten(-1, (len(self.joint), FACTORS + 1)))
        return RawLatents(_knots(centre[..., None], spread), events, copula, read.base, read.unit)

    def _centres(self, candidates: dict[str, Tensor], mix: Sequence[Tensor]) -> Tensor:
        """Mixes of naive estimates ``(B, Q, K)``."""
        found: dict[str, Tensor] = {}
        for (name, kind), part in zip(self.centres.items(), mix, strict=True):
            if not kind:
                found[name] = torch.zeros_like(found["level"])
                continue
            naive = candidates[kind]
            if kind in ("signal", "value"):
                together = sum((found[c] for c in self.components), start=found["level"])[..., None]
                if kind == "signal":
                    raw, seen = naive.split(1, -1)
                    naive = torch.where(seen > 0, raw, together)
                naive = torch.cat([naive, together], -1)
            found[name] = (torch.softmax(part, -1) * naive).sum(-1)
        return torch.stack(list(found.values()), -1)

    def parameters_of(self, x: Float[Tensor, "B W"]) -> RawParameters:
        """Posterior of the parameters of series that the trunk has read."""
        raw = self.parameters_out(x).float()
        each = len(LEVELS) + 1
        parts = raw[:, : each * len(PARAMETERS)].view(len(raw), len(PARAMETERS), each)
        present = raw[:, each * len(PARAMETERS) :]
        return RawParameters(_knots(torch.zeros_like(parts[..., :1]), parts), present)


def _knots(centre: Tensor, raw: Tensor) -> Tensor:
    """Quantiles around a centre, from an offset, spreads and the logarithm of their scale.

    The offset is in units of that scale too: what is known well is said as precisely.
    """
    scale = torch.exp(raw[..., -1:].clamp(-_LARGEST, _LARGEST))
    middle = centre + raw[..., :1] * scale
    rest = raw[..., 1:-1]
    spread = 0.5 * (rest + (rest.square() + 4).sqrt()) * scale  # positive, and cheap
    up = torch.cumsum(spread[..., :MIDDLE], -1)
    down = torch.cumsum(spread[..., MIDDLE:], -1).flip(-1)
    return torch.cat([middle - down, middle, middle + up], -1)
