"""Recipes: the models of the zoo with the settings that a forecaster gives them by default."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import torch

from seqlatent import zoo
from seqlatent.emissions import Emission
from seqlatent.forecasting.specs import Setting, Spec, emission_of, named, spec_of
from seqlatent.forecasting.trainers import ByWindows
from seqlatent.inference import Parallel
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, evidence

__all__ = ["OPTIONS", "deep_markov", "deep_state", "latent_ode", "spec_of", "srnn", "vrnn"]

Family = str | Callable[..., Emission] | None


def season_lags(setting: Setting) -> tuple[int, ...]:
    """Rows that an autoregressive memory reads: the last ones, and those around each season.

    For hourly data 1 to 7, and around each multiple of 24 up to a week.
    """
    season = setting.season
    most = max(setting.rows // 2, 1)
    lags = set(range(1, 8))
    if season > 1:
        week = max((s for s in setting.season_lengths if s <= 400), default=season)
        last = week if week > season else season * max(1, min(7, 168 // season))
        for k in range(season, last + 1, season):
            lags |= {k - 1, k, k + 1}
    return tuple(sorted(lag for lag in lags if 1 <= lag <= most)) or (1,)


def window_rows(setting: Setting) -> int:
    """Rows of a training window: a few seasons, and what the lags look back to."""
    season = setting.season
    return int(min(max(setting.rows, 16), max(9 * season, 64), 256))


@named("srnn")
def srnn(
    *,
    members: int = 3,
    steps: int = 2600,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    emission: Family = None,
    batch_size: int = 32,
    free_bits: float = 0.05,
) -> Spec:
    """A stochastic recurrent network with seasonal lags: the neural forecaster of the family.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of memory and hidden layers.
        emission: Family of the observations, a name or a class; counts get a negative binomial, all
            else a Student-t law.
        batch_size: Windows of a batch.
        free_bits: Nats per latent dimension and step that cost nothing: see
            :func:`seqlatent.objectives.elbo`.
    """

    def build(setting: Setting) -> Sequence[LatentModel]:
        return [
            zoo.srnn(
                setting.obs_dim,
                latent_dim=latent_dim,
                hidden_dim=hidden_dim,
                covariate_dim=setting.covariate_dim,
                lags=season_lags(setting),
                code_sizes=setting.code_sizes,
                emission=emission_of(emission, setting),
                posterior=Parallel,
                causal=True,
                irregular=setting.irregular,
            )
            for _ in range(members)
        ]

    train = ByWindows(partial(elbo, free_bits=free_bits), steps, window_rows, batch_size=batch_size)
    return Spec("srnn", build, train, samples=200)


@named("vrnn")
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

    def build(setting: Setting) -> Sequence[LatentModel]:
        return [
            zoo.vrnn(
                setting.obs_dim,
                latent_dim=latent_dim,
                hidden_dim=hidden_dim,
                covariate_dim=setting.covariate_dim,
                emission=emission_of(emission, setting),
            )
            for _ in range(members)
        ]

    return Spec(
        "vrnn", build, ByWindows(elbo, steps, window_rows, batch_size=batch_size), samples=200
    )


@named("deep_markov")
def deep_markov(
    *,
    members: int = 2,
    steps: int = 2000,
    latent_dim: int = 16,
    hidden_dim: int = 64,
    emission: Family = None,
    batch_size: int = 32,
) -> Spec:
    """A deep Markov model: all memory is in the latent state.

    Args:
        members: Networks of the ensemble.
        steps: Updates of each.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of all hidden layers.
        emission: Family of the observations.
        batch_size: Windows of a batch.
    """

    def build(setting: Setting) -> Sequence[LatentModel]:
        return [
            zoo.deep_markov(
                setting.obs_dim,
                latent_dim=latent_dim,
                hidden_dim=hidden_dim,
                covariate_dim=setting.covariate_dim,
                emission=emission_of(emission, setting),
                causal=True,
                irregular=setting.irregular,
            )
            for _ in range(members)
        ]

    train = ByWindows(elbo, steps, window_rows, batch_size=batch_size)
    return Spec("deep_markov", build, train, scaling="level", samples=200)


@named("deep_state")
def deep_state(*, steps: int = 400, hidden_dim: int = 32, batch_size: int = 32) -> Spec:
    """A structural model whose noises a network reads off known inputs, inferred exactly.

    Args:
        steps: Updates.
        hidden_dim: Width of the network.
        batch_size: Windows of a batch.
    """

    def build(setting: Setting) -> Sequence[LatentModel]:
        _one_target("deep_state", setting)
        season = setting.season if 1 < setting.season <= 60 else None
        return [
            zoo.deep_state(
                season_length=season,
                covariate_dim=setting.covariate_dim,
                hidden_dim=hidden_dim,
                code_sizes=setting.code_sizes,
            )
        ]

    train = ByWindows(evidence, steps, window_rows, batch_size=batch_size, learning_rate=5e-3)
    return Spec("deep_state", build, train, scaling="level", dtype=torch.float64, samples=500)


@named("latent_ode")
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

    def build(setting: Setting) -> Sequence[LatentModel]:
        return [
            zoo.latent_ode(
                setting.obs_dim,
                latent_dim=latent_dim,
                hidden_dim=hidden_dim,
                emission=emission_of(emission, setting),
            )
            for _ in range(members)
        ]

    return Spec(
        "latent_ode",
        build,
        ByWindows(elbo, steps, lambda setting: min(max(setting.rows, 8), 64), batch_size),
        scaling="level",
        calendar=False,
        statics=False,
        samples=200,
    )


def _one_target(name: str, setting: Setting) -> None:
    if setting.obs_dim > 1:
        raise TypeError(
            f"{name} forecasts one target, found {setting.obs_dim}; use 'srnn', 'vrnn' or "
            "'deep_markov', which model several jointly, or a forecaster for each target."
        )


@named("structural")
def structural() -> Spec:
    """Level or trend, and season."""

    def build(setting: Setting) -> Sequence[LatentModel]:
        _one_target("structural", setting)
        season = setting.season if setting.season > 1 else None
        return [zoo.structural(trend=True, season_length=season)]

    train = ByWindows(evidence, 60, window_rows, learning_rate=5e-2)
    return Spec(
        "structural",
        build,
        train,
        scaling="level",
        dtype=torch.float64,
        calendar=False,
        statics=False,
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
