"""A prior over structural latent series that can be drawn from, with the truth beside each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.capacity import brief, shortage
from seqlatent.prior.components import Autoregression, ComponentPrior, Level, Season, Slope
from seqlatent.prior.grid import Grid
from seqlatent.prior.hyper import Signed
from seqlatent.prior.link import KINDS, Link
from seqlatent.prior.missing import Missing
from seqlatent.prior.noise import Noise
from seqlatent.prior.observation import Observation
from seqlatent.prior.seasons import LongSeason
from seqlatent.sequences import Sequences
from seqlatent.sizes import whole

__all__ = ["Drawn", "StructuralPrior"]

_HELD = 20  # arrays of the size of the answer that are held while it is drawn


@dataclass(frozen=True)
class Drawn:
    """Series that were drawn from a prior, and what they were made of.

    Attributes:
        y: Values ``(B, T)``, also where they are not seen.
        observed: Which of them are seen ``(B, T)``.
        components: Each component at each step ``(B, T)``, by name, on the scale of the signal;
            ``"noise"`` and ``"outliers"`` among them. They add up to the signal.
        signal: What the components add up to ``(B, T)``.
        link: The way from the signal to values, and the kind of each series.
        parameters: Parameters ``(B,)`` by ``component.parameter``.
        latents: What else is known of each step ``(B, T)``: breaks by ``component.break``, the
            gain of the next step by ``slope.slope``, ``noise.scale``.
        u: Covariates ``(B, T, U)`` whose effect is the component ``"effects"``.
        season_lengths: Steps of each season.
    """

    y: Float[Tensor, "B T"]
    observed: Bool[Tensor, "B T"]
    components: Mapping[str, Tensor] = field(repr=False)
    signal: Float[Tensor, "B T"] = field(repr=False)
    link: Link = field(repr=False)
    parameters: Mapping[str, Tensor] = field(repr=False)
    latents: Mapping[str, Tensor] = field(repr=False)
    u: Float[Tensor, "B T U"] = field(repr=False)
    season_lengths: tuple[int, ...] = ()

    def sequences(self) -> Sequences:
        """The batch object, in which what is not seen is missing."""
        y = self.y.masked_fill(~self.observed, torch.nan)
        return Sequences.of(y[..., None], u=self.u)

    @property
    def kind(self) -> Int[Tensor, " B"]:
        """Number of each series' kind, of :data:`KINDS`."""
        return self.link.kind

    @property
    def kinds(self) -> list[str]:
        """Kind of each series, in words."""
        return [KINDS[i] for i in self.kind.tolist()]


def _components() -> tuple[ComponentPrior, ...]:
    return (Level(), Slope(), Autoregression(), Season(), LongSeason())


@dataclass(frozen=True)
class StructuralPrior:
    r"""Series that are sums of components and noise, seen through an observation.

    .. math:: x_t = \sum_k c_{k,t} + \varepsilon_t + o_t, \qquad y_t = g(x_t)

    Each component, the noise, the observation g and what is missing have distributions over their
    own parameters, so that a draw is a series of a kind that nobody chose. The defaults are wide:
    walks, damped slopes, breaks, seasons that drift, heavy tails, growth, counts.

    Args:
        components: What the signal is made of.
        noise: The noise and outliers.
        observation: How the signal becomes values.
        missing: What of them is seen.
        effect: Size of the effect of each covariate.

    Example:
        >>> prior = StructuralPrior()
        >>> drawn = prior.sample(4, 60, season_lengths=(12,), generator=torch.Generator())
        >>> drawn.y.shape, sorted(drawn.components)[:3]
        (torch.Size([4, 60]), ['ar', 'level', 'long_season'])

    References:
        Forecasting, Structural Time Series Models (Harvey, 1989). ForecastPFN (Dooley et al., 2023)
        and TempoPFN (2025), of priors on series that networks learn from.
    """

    components: Sequence[ComponentPrior] = field(default_factory=_components)
    noise: Noise = Noise()
    observation: Observation = field(default_factory=Observation)
    missing: Missing = Missing()
    effect: Signed = Signed(1.0)

    def __post_init__(self) -> None:
        names = [component.name for component in self.components]
        twice = {name for name in names if names.count(name) > 1}
        if twice or {"noise", "outliers", "effects"} & set(names):
            raise ValueError(
                "components must have names of their own, other than noise, outliers and effects, "
                f"found {names}; give one another name=."
            )

    def sample(
        self,
        series: int,
        steps: int,
        *,
        season_lengths: Sequence[int] = (),
        u: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Drawn:
        """Draws series and all that they are made of.

        Args:
            series: Series ``B``.
            steps: Steps ``T`` of each.
            season_lengths: Steps of each season, at most two.
            u: Covariates ``(B, T, U)`` whose effects are drawn; none by default.
            generator: Source of randomness; torch's global one by default.

        Raises:
            ValueError: If a size is none, or seasons are not whole steps of at least 2.
            MemoryError: If it would not fit into memory, before anything is drawn.
        """
        series, steps = whole("series", series, 1), whole("steps", steps, 1)
        lengths = tuple(sorted(whole("season_lengths", m, 2) for m in season_lengths))
        if len(set(lengths)) != len(lengths) or len(lengths) > 2:
            raise ValueError(
                f"season_lengths must be at most two different lengths, found {season_lengths!r}."
            )
        needed = series * steps * 4 * (_HELD + len(self.components))
        if lack := shortage(needed):
            raise MemoryError(
                f"{brief(series)} series of {brief(steps)} steps {lack}; draw fewer at a time."
            )
        grid = Grid(series, steps, lengths, generator)
        parts = {component.name: component.sample(grid) for component in self.components}
        paths = {name: part.path for name, part in parts.items()}
        parameters = {f"{n}.{k}": v for n, p in parts.items() for k, v in p.parameters.items()}
        if u is None:
            u = torch.zeros(series, steps, 0)
        elif u.shape[:2] != (series, steps):
            raise ValueError(
                f"u must have the shape (series, steps, U) = ({series}, {steps}, U), found "
                f"{tuple(u.shape)}."
            )
        else:
            size = torch.cat([grid.scalar(self.effect) for _ in range(u.shape[-1])], 1)
            paths["effects"] = (u @ size[..., None])[..., 0]
            parameters |= {f"effects.{i}": size[:, i] for i in range(u.shape[-1])}
        latents = {f"{n}.{k}": v for n, p in parts.items() for k, v in p.latents.items()}
        paths["noise"], paths["outliers"], latents["noise.scale"], own = self.noise.sample(grid)
        signal = torch.stack(list(paths.values())).sum(0)
        y, link, seen = self.observation.sample(grid, signal)
        parameters |= {f"noise.{k}": v for k, v in own.items()}
        parameters |= {f"observation.{k}": v for k, v in seen.items()}
        flat = {k: v.reshape(series) for k, v in parameters.items()}
        observed = self.missing.sample(grid)
        return Drawn(y, observed, paths, signal, link, flat, latents, u, lengths)

    def replace(self, **changes: object) -> "StructuralPrior":
        """The same prior with other parts."""
        return replace(self, **changes)  # type: ignore[arg-type]
