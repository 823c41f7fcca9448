"""Recipes: the models of the zoo with the settings that a forecaster gives them by default."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from seqlatent import zoo
from seqlatent.emissions import (
    CensoredStudentT,
    Emission,
    LogitStudentT,
    Normal,
    SoftplusStudentT,
    StudentT,
)
from seqlatent.forecasting.engines.latent.lengths import (
    lag_rows,
    lag_rows_and_ahead,
    lag_rows_twice,
    rows_ahead,
    rows_known,
    rows_of_flow,
    season_lags,
    window_rows,
)
from seqlatent.forecasting.engines.latent.stages import SequentialTraining
from seqlatent.forecasting.engines.latent.training import WindowTraining
from seqlatent.forecasting.engines.spec import DataSummary, Spec, emission_of, register, spec_of
from seqlatent.forecasting.engines.structural.recipe import one_target, structural
from seqlatent.inference import Parallel, Tilted
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, multi_step_score, rollout_crps
from seqlatent.transitions import Component, DampedTrend, Sum, TrigonometricSeasonal

__all__ = [
    "OPTIONS",
    "deep_markov",
    "deep_state",
    "latent_ode",
    "spec_of",
    "srnn",
    "structural",
    "vrnn",
]

Family = str | Callable[..., Emission] | None


def _networks(
    data_summary: DataSummary,
    *,
    make: Callable[..., LatentModel],
    told: Callable[[DataSummary, Any], dict[str, Any]],
    members: int,
    emission: Family,
    hidden_dim: int,
) -> Sequence[LatentModel]:
    """Members of one architecture.

    Args:
        data_summary: What they are built for.
        make: Function of the zoo.
        told: What it is told beside that, from the data and the family of the observations.
        members: How many.
        emission: Family of the observations; None for the one that suits the data.
        hidden_dim: Width of the hidden layers.
    """
    family = emission_of(emission, data_summary)
    options = {
        "hidden_dim": hidden_dim,
        "covariate_dim": data_summary.covariate_dim,
        "emission": family,
        **told(data_summary, family),
    }
    return [make(data_summary.obs_dim, **options) for _ in range(members)]


def _srnn(data_summary: DataSummary, family: Any, *, latent_dim: int) -> dict[str, Any]:
    return {
        "latent_dim": latent_dim,
        "lags": season_lags(data_summary),
        "code_sizes": data_summary.code_sizes,
        "posterior": Parallel,
        "causal": True,
        "irregular": data_summary.irregular,
    }


@register("srnn")
def srnn(
    *,
    members: int = 5,
    steps: int = 900,
    latent_dim: int = 0,
    hidden_dim: int = 64,
    emission: Family = None,
    batch_size: int = 32,
    free_bits: float = 0.05,
) -> Spec:
    """A stochastic recurrent network with seasonal lags: the neural forecaster of the family.

    Two thirds of the steps raise the likelihood of each value given the true ones before it; the
    rest lower the CRPS of futures that the network rolls out from its own samples, which teaches it
    how far to trust them. Draws of counts, and of laws with masses that a hurdle has, have no
    gradient: they get the likelihood alone.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Latent dimensions ``K``; 0 is the deterministic twin, an autoregressive
            recurrent network, which on public data forecasts no worse.
        hidden_dim: Width of memory and hidden layers.
        emission: Family of the observations, a name or a class; None for what the values of each
            target call for, see :mod:`seqlatent.forecasting.engines.laws`.
        batch_size: Windows of a batch.
        free_bits: Nats per latent dimension and step that cost nothing: see
            :func:`seqlatent.objectives.elbo`.
    """
    build = partial(
        _networks,
        make=zoo.srnn,
        told=partial(_srnn, latent_dim=latent_dim),
        members=members,
        emission=emission,
        hidden_dim=hidden_dim,
    )
    bound = partial(elbo, free_bits=free_bits) if latent_dim else elbo
    first = WindowTraining(
        bound,
        max(2 * steps // 3, 1),
        lag_rows_and_ahead,
        batch_size=batch_size,
    )
    paths = partial(rollout_crps, past=0.05, free_bits=free_bits) if latent_dim else rollout_crps
    second = WindowTraining(
        paths,
        max(steps - first.steps, 1),
        lag_rows,
        batch_size=2 * batch_size,
        learning_rate=1e-3,
        horizon=rows_ahead,
        full=True,
    )
    return Spec(
        "srnn",
        build,
        SequentialTraining([first, second], [0.5, 0.5]),
        scaling="standard",
        context=lag_rows_twice,
        samples=200,
    )


def _vrnn(data_summary: DataSummary, family: Any, *, latent_dim: int) -> dict[str, Any]:
    return {"latent_dim": latent_dim, "code_sizes": data_summary.code_sizes}


@register("vrnn")
def vrnn(
    *,
    members: int = 2,
    steps: int = 1500,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    emission: Family = None,
    batch_size: int = 32,
) -> Spec:
    """A variational recurrent network.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of memory and hidden layers.
        emission: Family of the observations.
        batch_size: Windows of a batch.
    """
    build = partial(
        _networks,
        make=zoo.vrnn,
        told=partial(_vrnn, latent_dim=latent_dim),
        members=members,
        emission=emission,
        hidden_dim=hidden_dim,
    )
    return Spec(
        "vrnn",
        build,
        WindowTraining(elbo, steps, window_rows, batch_size=batch_size),
        # in these units a missing value, which the memory reads as zero, is where a series stands
        scaling="local",
        context=window_rows,
        samples=200,
    )


def _core(data_summary: DataSummary) -> Component:
    """Level, slope that dies out, and at most eight harmonics of a season."""
    parts: list[Component] = [DampedTrend()]
    if 1 < data_summary.season <= 128:
        parts.append(TrigonometricSeasonal(data_summary.season, min(8, data_summary.season // 2)))
    return Sum(parts)


def _careful(data_summary: DataSummary) -> float:
    """A learning rate that is low where a season is long: its states start right, and are many."""
    return 4e-3 * data_summary.season**-0.5


def _deep_markov(
    data_summary: DataSummary, family: Any, *, latent_dim: int | None
) -> dict[str, Any]:
    located = (Normal, StudentT, SoftplusStudentT, CensoredStudentT, LogitStudentT)
    plain = data_summary.obs_dim > 1 or data_summary.irregular or family not in located
    anchored: dict[str, Any] = {}
    if not plain:
        anchored = {"core": _core(data_summary), "core_scale": 0.3 * data_summary.season**-0.6}
    return {
        "latent_dim": (16 if plain else 2) if latent_dim is None else latent_dim,
        "posterior": Tilted,
        "causal": True,
        "irregular": data_summary.irregular,
        **anchored,
    }


@register("deep_markov")
def deep_markov(
    *,
    members: int = 2,
    steps: int = 300,
    latent_dim: int | None = None,
    hidden_dim: int = 32,
    emission: Family = None,
    batch_size: int = 32,
) -> Spec:
    """A deep Markov model: all memory is in the latent state.

    One real-valued target at regular times starts from a structural model and learns what is
    different; counts, several targets and irregular times start from nothing. Trained on forecasts
    of many rows ahead.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Free latent dimensions; None is 2 beside a structural model, and 16 without.
        hidden_dim: Width of all hidden layers.
        emission: Family of the observations.
        batch_size: Windows of a batch.
    """
    build = partial(
        _networks,
        make=zoo.deep_markov,
        told=partial(_deep_markov, latent_dim=latent_dim),
        members=members,
        emission=emission,
        hidden_dim=hidden_dim,
    )
    train = WindowTraining(
        partial(multi_step_score, past=0.03, score="crps", samples=8),
        steps,
        rows_known,
        batch_size=batch_size,
        learning_rate=_careful,
        horizon=rows_ahead,
    )
    return Spec(
        "deep_markov",
        build,
        train,
        scaling="local",
        categories=False,
        bounded=True,
        context=rows_known,
        samples=200,
    )


def _deep_state(data_summary: DataSummary, *, hidden_dim: int) -> Sequence[LatentModel]:
    one_target("deep_state", data_summary)
    season = data_summary.season if 1 < data_summary.season <= 128 else None
    return [
        zoo.deep_state(
            damped=True,
            season_length=season,
            harmonics=None if season is None or season <= 12 else min(8, season // 2),
            covariate_dim=data_summary.covariate_dim,
            hidden_dim=hidden_dim,
            code_sizes=data_summary.code_sizes,
            initial_scale=30.0,
        )
    ]


@register("deep_state")
def deep_state(
    *, steps: int = 300, hidden_dim: int = 32, batch_size: int = 32, calibrate: bool = True
) -> Spec:
    """A structural model whose noises a network reads off known inputs, inferred exactly.

    Level, slope that dies out, and season, trained on what they say of many rows ahead. Long
    seasons are smooth: eight harmonics instead of a state for every row.

    Args:
        steps: Updates.
        hidden_dim: Width of the network.
        batch_size: Windows of a batch.
        calibrate: Whether all noises are multiplied by what a block asks for that is held out of a
            second fit, which takes as long as the first.
    """
    build = partial(_deep_state, hidden_dim=hidden_dim)
    train = WindowTraining(
        partial(multi_step_score, past=0.3, score="crps"),
        steps,
        rows_known,
        batch_size=batch_size,
        learning_rate=5e-3,
        horizon=rows_ahead,
    )
    return Spec(
        "deep_state",
        build,
        train,
        scaling="local",
        bounded=True,
        context=rows_known,
        dtype=torch.float64,
        samples=500,
        calibrate=calibrate,
    )


def _latent_ode(data_summary: DataSummary, family: Any, *, latent_dim: int) -> dict[str, Any]:
    return {"latent_dim": latent_dim}


@register("latent_ode")
def latent_ode(
    *,
    members: int = 1,
    steps: int = 600,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    emission: Family = None,
    batch_size: int = 32,
) -> Spec:
    """A latent ordinary differential equation, for irregular times.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of all hidden layers.
        emission: Family of the observations.
        batch_size: Windows of a batch.
    """
    build = partial(
        _networks,
        make=zoo.latent_ode,
        told=partial(_latent_ode, latent_dim=latent_dim),
        members=members,
        emission=emission,
        hidden_dim=hidden_dim,
    )
    return Spec(
        "latent_ode",
        build,
        WindowTraining(elbo, steps, rows_of_flow, batch_size),
        scaling="level",
        context=rows_of_flow,
        calendar=False,
        statics=False,
        samples=200,
    )


OPTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(factory).parameters)
    for name, factory in {
        "structural": structural,
        "deep_state": deep_state,
        "deep_markov": deep_markov,
        "srnn": srnn,
        "vrnn": vrnn,
        "latent_ode": latent_ode,
    }.items()
}
