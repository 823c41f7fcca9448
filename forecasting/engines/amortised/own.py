"""Amortised forecasters of one's own prior: networks trained on what it draws."""

from collections.abc import Sequence
from typing import Any

import torch

from seqlatent.amortised import (
    Adaptation,
    Curriculum,
    Network,
    Rehearsal,
    Seasons,
    Trainer,
    load_networks,
    require_moving,
)
from seqlatent.amortised.latents import LatentTrainer, components_of, load_latent_networks
from seqlatent.forecasting.arguments import flag, real, seasons_of, seed_of, whole
from seqlatent.forecasting.engines.amortised.engine import Amortised
from seqlatent.forecasting.engines.amortised.progress import Bar
from seqlatent.forecasting.errors import ArgumentError
from seqlatent.prior import StructuralPrior
from seqlatent.training import Deadline

__all__ = ["amortise"]

_BATCH = 256  # series of a step: in minutes, more steps tell more than larger ones
_LOOKED_AT = 256  # series that show whether a prior can be learned from
_EVERY = 20  # steps between updates of a progress bar


def amortise(
    prior: StructuralPrior,
    *,
    season_length: int | Sequence[int] = 1,
    horizon: int | None = None,
    minutes: float | int = 10.0,
    steps: int | None = None,
    start: Network | None = None,
    adapt: bool | Adaptation = True,
    latents: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Amortised:
    """Trains a forecaster for the process that a prior describes.

    A network learns from series of the prior what follows from a past, as those that ship with the
    package did from a wide one; what it learns is the posterior predictive distribution under the
    prior, so a narrow prior that is right makes a sharper forecast. What is returned goes into
    :class:`Forecaster`, which saves the network and some series that it learned from: these stand
    in for the prior when the network adapts to a panel, also after it was loaded.

    Args:
        prior: What series are like.
        season_length: Steps of a season, or of two; those of the panels that are to be forecast.
        horizon: Farthest lead that is trained; None for one that suits the seasons. Any may be
            asked for, but those beyond are less well known.
        minutes: Minutes of the clock that all takes, over which the rate of learning falls; how
            many steps that makes, and so the weights, depends on the machine.
        steps: Number of steps in the place of minutes, which says all on any machine.
        start: A network whose copy is trained on; None for the first of those that ship with the
            package, from which less is left to learn than from a new one, ``Network()``.
        adapt: Whether it adapts to the panel that it is fitted to, or how.
        latents: Whether a network of latents is trained as well, in the second half of the time,
            or in as many steps again: components of the prior, by their names, breaks, parameters
            and holes can be asked for then.
        seed: Seed of the first weights and of all that is drawn.
        progress: Whether to show progress.

    Raises:
        ArgumentError: If an argument is out of range.
        ValueError: If the prior draws NaN, infinity or series that say nothing, with the draw.

    Example:
        >>> from seqlatent.forecasting import Forecaster, amortise
        >>> from seqlatent.prior import Cycle, Level, StructuralPrior, Uniform
        >>> prior = StructuralPrior(components=[Level(), Cycle(period=Uniform(17, 23))])
        >>> model = Forecaster(amortise(prior, horizon=6, steps=2), season_length=1)

    References:
        Fast epsilon-free inference of simulation models with Bayesian conditional density
        estimation (Papamakarios & Murray, 2016); ForecastPFN (Dooley et al., 2023).
    """
    if not isinstance(prior, StructuralPrior):
        raise ArgumentError(
            f"prior must be a StructuralPrior, found {type(prior).__name__}; give its components, "
            "noise and observation to seqlatent.prior.StructuralPrior(...).",
            name="prior",
        )
    if not isinstance(start, Network | None):
        raise ArgumentError(
            f"start must be one seqlatent.amortised.Network or None, found {type(start).__name__}.",
            name="start",
        )
    seasons = _seasons(season_length)
    if horizon is not None:
        horizon = whole("horizon", horizon, "a number of steps")
    deadline = Deadline(60 * real("minutes", minutes, "a number of minutes", 0.01))
    if steps is not None:
        steps, deadline = whole("steps", steps, "a number of steps"), Deadline()
    seed, progress, latents = seed_of(seed), flag("progress", progress), flag("latents", latents)
    curriculum = Curriculum(prior, {seasons: 1.0}, batch=_BATCH, horizon=horizon)
    generator = torch.Generator().manual_seed(seed)
    require_moving(curriculum.drawn(generator, seasons, _LOOKED_AT, curriculum.farthest(seasons)))
    rehearsal = Rehearsal.of(curriculum, seasons, generator)
    most = _ENDLESS if steps is None else steps
    start = load_networks()[0] if start is None else start
    trainers = [Trainer(curriculum, steps=most, seed=seed, network=start)]
    if latents:
        shipped = load_latent_networks()[0]
        known = shipped if shipped.components == components_of(prior) else None
        trainers.append(LatentTrainer(curriculum, steps=most, seed=seed, network=known))
    networks = []
    for k, trainer in enumerate(trainers):
        alone = len(trainers) == 1
        limit = deadline if alone else deadline.part(1 / (len(trainers) - k))
        with Bar(progress, steps, limit) as bar:
            networks.append(trainer.run(every=_EVERY, report=bar, deadline=limit))
    own, *told = [[network.requires_grad_(False)] for network in networks]
    told = told[0] if told else None
    engine: Any = Amortised(adapt=adapt, networks=own, rehearsal=rehearsal, latents=told)
    return engine


_ENDLESS = 10**9  # steps that no deadline leaves time for


def _seasons(season_length: Any) -> Seasons:
    lengths = tuple(sorted({m for m in seasons_of(season_length) or () if m > 1}))
    if len(lengths) > 2:
        raise ArgumentError(
            f"season_length must be at most two different lengths, found {season_length!r}.",
            name="season_length",
        )
    return Seasons.of(lengths)
