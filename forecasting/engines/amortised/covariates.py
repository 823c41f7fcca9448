"""Covariates that are known ahead: what they add to each target, learned from a panel."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqlatent.amortised import (
    Effects,
    Forecast,
    Network,
    QuantileFunction,
    Seasons,
    with_added,
    with_effects,
    without_effects,
)

__all__ = []

UNUSED = (
    "covariates known ahead are read but not used, for no block that was held out is forecast "
    "better by them"
)
"""What is to be noted where covariates are of no use."""


class Covariates(NamedTuple):
    """Covariates of windows and of leads.

    Attributes:
        past: Of the rows of windows, NaN where they hold no value ``(S, U, W)``.
        ahead: Of leads ``(S, H, U)``.
    """

    past: np.ndarray
    ahead: np.ndarray


PerTarget = tuple[Effects | None, ...]
"""Effects of covariates on each target, None where they are of no use."""


def learned(
    networks: Sequence[Network],
    y: Tensor,
    observed: Tensor,
    u: Tensor,
    seasons: Seasons,
    horizon: int,
    blocks: int,
) -> tuple[PerTarget, Tensor]:
    """Effects of covariates on each target, and what they leave of values.

    Args:
        networks: The networks that forecast the rest.
        y: Values of all series of each target, one target after the other ``(D B, T)``.
        observed: Where they are seen ``(D B, T)``.
        u: Covariates ``(B, T, U)``.
        seasons: Season lengths.
        horizon: Leads that will be asked for.
        blocks: Most blocks that are held out.
    """
    effects, rests = [], []
    for one, seen in zip(y.split(len(u)), observed.split(len(u)), strict=True):
        how = one, seen, u, seasons, horizon
        effects.append(with_effects(networks, *how, blocks=blocks))
        rests.append(one if effects[-1] is None else without_effects(*how, blocks=blocks))
    return tuple(effects), torch.cat(rests)


def added(
    effects: PerTarget, y: Tensor, observed: Tensor, covariates: Covariates, target: np.ndarray
) -> tuple[Tensor, Tensor]:
    """What covariates add to windows ``(S, W)`` and to their leads ``(S, H)``.

    The effects on a series are what its window says, and what all series do where it says little.

    Args:
        effects: Of each target.
        y: Windows ``(S, W)``.
        observed: Where they hold a value ``(S, W)``.
        covariates: Those of the windows and of leads.
        target: Which target each is of ``(S,)``.
    """
    past, ahead = torch.zeros_like(y), y.new_zeros(covariates.ahead.shape[:2])
    _, number, width = covariates.past.shape
    for d, one in enumerate(effects):
        if one is None:
            continue
        part = np.flatnonzero(target == d)
        place = torch.from_numpy(part)
        u = y.new_zeros(len(part), y.shape[1], number)
        held = torch.from_numpy(np.nan_to_num(covariates.past[part]))
        u[:, y.shape[1] - width :] = held.transpose(1, 2)
        own = one.of(y[place], observed[place], u)
        past[place] = one.added(own, u)
        ahead[place] = one.added(own, torch.from_numpy(covariates.ahead[part]))
    return past, ahead


def with_effects_of(
    rest: Forecast,
    ahead: Tensor,
    y: Tensor,
    observed: Tensor,
    moved: Tensor,
) -> Forecast:
    """Forecasts of series by those of what effects leave of them.

    Args:
        rest: Forecasts of what is left.
        ahead: What covariates add to leads ``(S, H)``.
        y: Windows ``(S, W)``.
        observed: Where they hold a value ``(S, W)``.
        moved: Which are of a target that covariates have an effect on ``(S, 1)``.
    """
    found, plain = with_added(rest, ahead, y, observed).marginals, rest.marginals
    # too few values to say what lies below zero: so say all other series
    bounds = moved & (observed.sum(1, keepdim=True) > 1)
    assert plain.floor is not None
    assert plain.whole is not None
    assert found.floor is not None
    assert found.whole is not None
    function = QuantileFunction(
        torch.where(moved[..., None], found.knots, plain.knots),
        torch.where(bounds, found.floor, plain.floor),
        torch.where(bounds, found.whole, plain.whole),
    )
    return rest._replace(marginals=function)


def note(effects: PerTarget) -> str:
    """What is to be noted of covariates that were read; empty where all targets use them."""
    unused = [d + 1 for d, one in enumerate(effects) if one is None]
    if not unused:
        return ""
    if len(unused) == len(effects):
        return UNUSED
    return f"target {', '.join(map(str, unused))}: {UNUSED}"


def summary(effects: PerTarget) -> list[list[float] | None]:
    """Mean effect of each covariate on each target, in usual changes of both; None for none."""
    return [None if one is None else one.shared.tolist() for one in effects]


def effects_to_tensors(effects: PerTarget) -> dict[str, Tensor]:
    """Effects by the number of their target."""
    return {
        f"effects.{d}.{field.name}": torch.as_tensor(getattr(one, field.name))
        for d, one in enumerate(effects)
        if one is not None
        for field in fields(one)
    }


def effects_of_tensors(targets: int, tensors: Mapping[str, Tensor]) -> PerTarget:
    """Reads what :func:`effects_to_tensors` gave."""
    found: list[Effects | None] = []
    for d in range(targets):
        start = f"effects.{d}."
        held: dict[str, Any] = {
            name.removeprefix(start): x for name, x in tensors.items() if name.startswith(start)
        }
        found.append(Effects(**{**held, "lag": int(held["lag"])}) if held else None)
    return tuple(found)
