"""Models of linear Gaussian states whose inference is exact, or nearly so: structural, factors."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Collection
from typing import Any, SupportsFloat, SupportsInt

from seqlatent.emissions import (
    FactorLoadings,
    LinearPoisson,
    LinearSignal,
)
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import (
    Kalman,
    Laplace,
)
from seqlatent.model import LatentModel
from seqlatent.sizes import sized, whole
from seqlatent.transitions import (
    AR,
    Component,
    Cycle,
    FixedRegression,
    Innovations,
    Irregular,
    Joint,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
    VectorAR,
    distinct_harmonics,
    named_trend,
)

__all__ = [
    "count_structural",
    "dynamic_factors",
    "exponential_smoothing",
    "structural",
    "unobserved_components",
]


@sized(season_length=2)
def structural(
    *, trend: bool = False, season_length: int | None = None, covariate_dim: int = 0
) -> LatentModel:
    r"""A basic structural model: level or trend, seasonal pattern and regression, inferred exactly.

    .. math:: y_t = \mu_t + \gamma_t + \beta^\top u_t + \varepsilon_t

    Three or four parameters: the first choice for a short series, and the yardstick for the rest.

    Args:
        trend: Whether the level has a slope of its own.
        season_length: Steps in a season; None for no seasonal pattern.
        covariate_dim: Covariates ``U``, each with a constant coefficient.

    Example:
        >>> model = structural(season_length=4)
        >>> model.transition.latent_dim
        4

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), chapter 2.
    """
    transition = _components(trend, season_length, covariate_dim)
    emission = LinearGaussianEmission(transition.latent_dim, loading=transition.loading, bias=False)
    return LatentModel(transition, emission, Kalman())


@sized(season_length=2)
def count_structural(
    *,
    trend: bool = False,
    season_length: int | None = None,
    covariate_dim: int = 0,
    emission: Callable[..., LinearSignal] = LinearPoisson,
) -> LatentModel:
    r"""A structural model of counts or events: components add up to a log rate, or to log odds.

    .. math:: y_t \sim \operatorname{Poisson}(\mathrm{scale}\, e^{x_t}), \quad
        x_t = \mu_t + \gamma_t + \beta^\top u_t

    Inferred at the mode of the path, and fitted by Laplace's evidence.

    Args:
        trend: Whether the level has a slope of its own.
        season_length: Steps in a season; None for no seasonal pattern.
        covariate_dim: Covariates ``U``, each with a constant coefficient.
        emission: LinearPoisson, LinearNegativeBinomial or LinearBernoulli.

    Example:
        >>> model = count_structural(season_length=4)
        >>> model.smooth(seqlatent.Sequences.of(torch.ones(3, 10, 1))).mean.shape
        torch.Size([3, 10, 4])

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), chapter 9.
    """
    transition = _components(trend, season_length, covariate_dim)
    emit = emission(transition.latent_dim, loading=transition.loading)
    return LatentModel(transition, emit, Laplace())


@sized(season_length=2)
def unobserved_components(
    trend: str | None = "local linear trend",
    *,
    season_length: int | None = None,
    stochastic_season: bool = True,
    freq_seasonal: Collection[tuple[SupportsFloat, SupportsInt | None]] = (),
    stochastic_freq_seasonal: bool | Collection[bool] = True,
    cycle: Cycle | None = None,
    autoregressive: int = 0,
    covariate_dim: int = 0,
    mle_regression: bool = True,
    irregular: bool | None = None,
    initial_scale: int | float = math.inf,
) -> LatentModel:
    r"""A structural model as statsmodels' ``UnobservedComponents`` spells it, inferred exactly.

    .. math:: y_t = \mu_t + \gamma_t + c_t + a_t + \beta^\top u_t + \varepsilon_t

    Args:
        trend: One of the twelve names: "irregular" or "deterministic constant" to "local linear
            trend"; None for no trend, and no noise of the observation.
        season_length: Steps in a season with a state for each but one; None for no such pattern.
        stochastic_season: Whether that pattern changes. It says nothing of ``freq_seasonal``.
        freq_seasonal: Periods with the number of their harmonics, None for all; of harmonics that
            several periods have, the shortest keeps them.
        stochastic_freq_seasonal: Whether the harmonics change: one answer for all, or one for each
            of ``freq_seasonal``.
        cycle: A :class:`Cycle`, which says if it is damped, noisy and within bounds.
        autoregressive: Lags of an autoregression, 0 for none.
        covariate_dim: Covariates ``U``, each with a constant coefficient.
        mle_regression: Whether coefficients are learned numbers, rather than a part of the state.
        irregular: Whether the observation has noise; by default what the trend's name says.
        initial_scale: Standard deviation of the first state of trend, seasons and coefficients, in
            units of the standardised series; exactly diffuse by default.

    Raises:
        TypeError: If ``freq_seasonal`` does not hold pairs.
        ValueError: If an argument speaks of a part that the model does not have, or there are not
            as many answers as seasons.

    Example:
        >>> model = unobserved_components("random walk", cycle=Cycle(11.0), autoregressive=1)
        >>> model.transition.loading.constant
        (1.0, 1.0, 0.0, 1.0)

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989), chapter 2.
    """
    first, noisy = named_trend(trend or "irregular", initial_scale=initial_scale)
    noisy = noisy and trend is not None if irregular is None else irregular
    if not stochastic_season and season_length is None:
        raise ValueError(
            "stochastic_season=False speaks of the pattern of season_length, which is None. Give "
            "season_length, or stochastic_freq_seasonal=False for the harmonics of freq_seasonal."
        )
    if not mle_regression and not covariate_dim:
        raise ValueError(
            "mle_regression=False speaks of the coefficients of covariates, of which there are "
            "none. Give covariate_dim, their number."
        )
    parts: list[Component] = [] if first is None else [first]
    if season_length is not None:
        scale = 0.05 if stochastic_season else None
        parts.append(Seasonal(season_length, scale, initial_scale=initial_scale))
    for period, own, changes in _harmonics(freq_seasonal, stochastic_freq_seasonal):
        scale = 0.05 if changes else None
        parts.append(TrigonometricSeasonal(period, own, scale, initial_scale=initial_scale))
    parts += [] if cycle is None else [cycle]
    parts += [AR(autoregressive)] if autoregressive else []
    if covariate_dim and mle_regression:
        parts.append(FixedRegression(range(covariate_dim)))
    elif covariate_dim:
        parts.append(Regression(range(covariate_dim), initial_scale=initial_scale))
    return _observed(parts, noisy)


def _harmonics(
    seasons: Collection[Any], stochastic: bool | Collection[bool]
) -> list[tuple[int | float, tuple[int, ...], bool]]:
    """Periods with the harmonics that are their own, and whether those change."""
    for season in seasons:
        if not isinstance(season, tuple | list) or len(season) != 2:
            raise TypeError(
                "freq_seasonal was expected to hold pairs of a period and the number of its "
                f"harmonics, like (12, 2), or (12, None) for all of them, found {season!r}."
            )
    answers = [stochastic] * len(seasons) if isinstance(stochastic, bool) else list(stochastic)
    if len(answers) != len(seasons):
        raise ValueError(
            "stochastic_freq_seasonal was expected to be one answer, or one for each of "
            f"freq_seasonal, found {len(answers)} for {len(seasons)} seasons."
        )
    seasons = [
        (
            period.item() if hasattr(period, "item") else period,
            None if own is None else whole("freq_seasonal's number of harmonics", own, 1),
        )
        for period, own in seasons
    ]
    if stochastic is False and not seasons:
        raise ValueError(
            "stochastic_freq_seasonal=False speaks of the harmonics of freq_seasonal, of which "
            "there are none. Give freq_seasonal, or stochastic_season=False for the pattern of "
            "season_length."
        )
    own = distinct_harmonics(seasons, keep_empty=True)
    return [(*x, bool(answer)) for x, answer in zip(own, answers, strict=True) if x[1]]


@sized(season_length=2)
def exponential_smoothing(
    *,
    trend: bool = False,
    damped: bool = False,
    season_length: int | None = None,
    admissible: bool = False,
    initial_scale: int | float | None = None,
) -> LatentModel:
    r"""Additive exponential smoothing, ETS(A, N/A/Ad, N/A), as a model with exact inference.

    .. math:: y_t = \ell_{t-1} + \phi b_{t-1} + s_{t-m} + e_t

    Args:
        trend: Whether there is a slope.
        damped: Whether that slope dies out.
        season_length: Steps in a season; None for no seasonal pattern.
        admissible: Whether smoothing parameters may leave the usual region; see
            :class:`Innovations`.
        initial_scale: Standard deviation of the first state, in units of the standardised series;
            None if it is learned.

    Example:
        >>> model = exponential_smoothing(trend=True, season_length=4)
        >>> model.filter(seqlatent.Sequences.of(torch.randn(2, 12, 1))).log_evidence.shape
        torch.Size([2, 12])

    References:
        Forecasting with Exponential Smoothing: the State Space Approach (Hyndman et al., 2008).
    """
    transition = Innovations(
        trend=trend,
        damped=damped,
        season_length=season_length,
        admissible=admissible,
        initial_scale=initial_scale,
    )
    return _observed([transition], noisy=False)


@sized(obs_dim=1, factors=1, order=1)
def dynamic_factors(
    obs_dim: int,
    factors: int,
    order: int = 1,
    *,
    idiosyncratic: str = "white",
    correlated: bool = False,
    bias: bool = False,
) -> LatentModel:
    r"""A panel of series that share a few autoregressive factors, inferred exactly.

    .. math:: y_t = \Lambda f_t + e_t, \qquad f_t = \sum_{j=1}^p \Phi_j f_{t-j} + \eta_t, \quad
        \eta_t \sim N(0, I)

    Args:
        obs_dim: Observed dimensions ``D``.
        factors: Number of factors.
        order: Lags ``p`` of the factors.
        idiosyncratic: Errors of the dimensions: "white", or "ar" for first-order autoregressions.
        correlated: Whether a factor depends on the past of the others; loadings are then lower
            triangular with a positive diagonal, as factors could be rotated.
        bias: Whether a constant offset is learned.

    Example:
        >>> model = dynamic_factors(5, 2, idiosyncratic="ar")
        >>> model.smooth(seqlatent.Sequences.of(torch.randn(1, 20, 5))).mean.shape
        torch.Size([1, 20, 7])

    References:
        Dynamic Factor Models (Stock & Watson, 2011).
    """
    if idiosyncratic not in ("white", "ar"):
        raise ValueError(f'idiosyncratic must be "white" or "ar", found {idiosyncratic!r}.')
    errors = idiosyncratic == "ar"
    parts = [VectorAR(factors, order, diagonal=not correlated)]
    parts += [VectorAR(obs_dim, diagonal=True, scale=0.5, learn_scale=True)] if errors else []
    emission = FactorLoadings(
        factors, obs_dim, order=order, triangular=correlated, errors=errors, bias=bias
    )
    return LatentModel(Joint(parts), emission, Kalman())


def _components(trend: bool, season_length: int | None, covariate_dim: int) -> Sum:
    parts: list[Component] = [LocalLinearTrend() if trend else LocalLevel()]
    if season_length is not None:
        parts.append(Seasonal(season_length))
    if covariate_dim:
        parts.append(Regression(range(covariate_dim)))
    return Sum(parts)


def _observed(parts: list[Component], noisy: bool) -> LatentModel:
    """The sum of components with a noise of the observation, or with none."""
    if not parts and noisy:
        parts, noisy = [Irregular()], False
    transition = Sum(parts)
    learned = [name for name, _ in transition.named_parameters() if "initial" not in name]
    if not noisy and not any("scale" in name for name in learned):
        raise ValueError(
            "a model needs a noise, and neither its components nor the observation have one; use "
            '"deterministic constant" or "deterministic trend", or pass irregular=True.'
        )
    scale = 0.5 if noisy else None
    emission = LinearGaussianEmission(
        transition.latent_dim, loading=transition.loading, bias=False, scale=scale
    )
    return LatentModel(transition, emission, Kalman())
