"""Options of an engine of networks: what may be given, and what stands for what is not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlatent.amortised import Adaptation, Network, Rehearsal, Seasons
from seqlatent.amortised.latents import LatentNetwork

__all__ = ["usual_leads"]


def check(adapt: Any, horizon: Any, networks: Any, rehearsal: Any, latents: Any) -> None:
    """Raises a TypeError or ValueError that says which option is out of range."""
    if not isinstance(adapt, bool | Adaptation):
        raise TypeError(
            f"adapt must be True, False or an Adaptation, found {type(adapt).__name__}; write "
            "Adaptation(steps=...) for other than the usual number of steps."
        )
    if horizon is not None and horizon < 1:
        raise ValueError(
            f"horizon must be a positive number of steps, found {horizon}; give None for two "
            "seasons, or what the rows allow."
        )
    if networks is not None and not (
        networks and all(isinstance(network, Network) for network in networks)
    ):
        raise TypeError(
            "networks must be one or more of seqlatent.amortised.Network, found "
            f"{networks!r}; give None for those of the package."
        )
    if not isinstance(rehearsal, Rehearsal | None):
        raise TypeError(
            "rehearsal must be a seqlatent.amortised.Rehearsal or None, found "
            f"{type(rehearsal).__name__}; write Rehearsal.of(curriculum, ...)."
        )
    if latents is not None and not (
        latents and all(isinstance(network, LatentNetwork) for network in latents)
    ):
        raise TypeError(
            "latents must be one or more of seqlatent.amortised.latents.LatentNetwork, found "
            f"{latents!r}; give None for those of the package."
        )
    if latents is not None and len({network.quantities for network in latents}) > 1:
        raise TypeError(
            "latents must be networks of the same components, whose quantiles are averaged, found "
            f"{[network.components for network in latents]}."
        )


def require_latents(networks: Sequence[LatentNetwork]) -> None:
    """Raises a TypeError where there are no networks that tell components."""
    if not networks:
        raise TypeError(
            "components, parameters and breaks of 'amortised' need networks of latents, which "
            "networks of one's own have only if they are given: write Amortised(networks=..., "
            "latents=[...]) with seqlatent.amortised.latents.LatentNetwork, or use 'structural'."
        )


def usual_leads(seasons: Seasons, lengths: np.ndarray) -> int:
    """Leads to adapt to where none are asked for: two seasons, or a quarter of shorter series."""
    two = 14 if seasons.short == 1 else min(max(2 * seasons.short, 10), 48)
    return max(1, min(two, int(np.median(lengths)) // 4))
