"""Models with hidden regimes: a hidden Markov model, and a structural one that switches."""

from collections.abc import Callable
from copy import deepcopy

from seqlatent.emissions import ByRegime, Emission, Normal
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import GPB2, ForwardBackward
from seqlatent.model import LatentModel
from seqlatent.sizes import sized
from seqlatent.transitions import (
    Component,
    LocalLevel,
    LocalLinearTrend,
    Regimes,
    Seasonal,
    Sum,
    SwitchingLinear,
)

__all__ = ["hidden_markov", "switching"]


@sized(states=1, obs_dim=1)
def hidden_markov(
    *,
    states: int = 2,
    obs_dim: int = 1,
    covariate_dim: int = 0,
    stay: int | float = 0.9,
    emission: Callable[..., Emission] = Normal,
) -> LatentModel:
    r"""A hidden Markov model: each regime has a distribution of the observations, inferred exactly.

    .. math:: p(s_t \mid s_{t-1}) = A_{s_{t-1} s_t}, \quad y_t \mid s_t, u_t \sim p_{s_t}(u_t)

    For data that jump between a few levels or habits. The likelihood has several maxima; ``fit``
    without an optimizer starts from clusters of the data and keeps the best.

    Args:
        states: Number of regimes.
        obs_dim: Observed dimensions ``D``.
        covariate_dim: Covariates ``U`` that shift the parameters, in all regimes alike.
        stay: Probability of staying in a regime for another step, at the start.
        emission: Family of the observations.

    Example:
        >>> model = hidden_markov(states=3)
        >>> model.filter(seqlatent.Sequences.of(torch.zeros(2, 5, 1))).mean.shape
        torch.Size([2, 5, 3])

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition (Rabiner,
        1989).
    """
    emit = emission(states, obs_dim, context_dim=covariate_dim, hidden=())
    return LatentModel(Regimes(states, stay=stay), emit, ForwardBackward())


@sized(states=1, season_length=2)
def switching(
    *,
    states: int = 2,
    trend: bool = False,
    season_length: int | None = None,
    stay: int | float = 0.95,
) -> LatentModel:
    r"""A structural model whose noises change with a hidden regime, inferred by Kim's filter.

    .. math:: \mu_t = \mu_{t-1} + \sigma_{s_t} \varepsilon_t, \quad
        y_t = \mu_t + \gamma_t + \tau_{s_t} \eta_t

    For a level that is calm for long, and at times is not. Regimes are ordered from calm to wild at
    the start.

    Args:
        states: Number of regimes.
        trend: Whether the level has a slope of its own.
        season_length: Steps in a season; None for no seasonal pattern.
        stay: Probability of staying in a regime for another step, at the start.

    Example:
        >>> switching(states=2).transition.latent_dim
        3

    References:
        Dynamic Linear Models with Markov-Switching (Kim, 1994).
    """
    kind = LocalLinearTrend if trend else LocalLevel
    season: list[Component] = [] if season_length is None else [Seasonal(season_length)]
    parts = [Sum([kind(0.05 * 8.0**i), *deepcopy(season)]) for i in range(states)]
    width, loading = parts[0].latent_dim, parts[0].loading
    emissions = [
        LinearGaussianEmission(width, loading=loading, bias=False, scale=0.2 * 2.0**i)
        for i in range(states)
    ]
    return LatentModel(SwitchingLinear(parts, stay=stay), ByRegime(emissions), GPB2())
