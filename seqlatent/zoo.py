"""Named models: constructors of a few lines that compose the parts as a paper did."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Collection
from copy import deepcopy
from typing import Any

from seqlatent.emissions import (
    AnchoredNet,
    ByRegime,
    Emission,
    FactorLoadings,
    LinearPoisson,
    LinearSignal,
    NeuralEmission,
    Normal,
)
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import (
    GPB2,
    Amortised,
    AnchoredParallel,
    Combiner,
    Encoder,
    FilteringEncoder,
    ForwardBackward,
    Kalman,
    KalmanBackbone,
    Laplace,
    Parallel,
    Posterior,
    Prior,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel
from seqlatent.networks import GRU, Backbone, Feedforward, MinGRU
from seqlatent.sizes import sized, whole
from seqlatent.transitions import (
    AR,
    Anchored,
    CarriedRecurrence,
    Component,
    ContextualNoise,
    Cycle,
    DampedTrend,
    FixedRegression,
    Gated,
    Innovations,
    Irregular,
    Joint,
    LocalLevel,
    LocalLinearTrend,
    NeuralODE,
    NoLatent,
    Regimes,
    Regression,
    Seasonal,
    Sum,
    SwitchingLinear,
    TrigonometricSeasonal,
    VectorAR,
    distinct_harmonics,
    named_trend,
)

__all__ = [
    "count_structural",
    "deep_markov",
    "deep_state",
    "dynamic_factors",
    "exponential_smoothing",
    "hidden_markov",
    "latent_ode",
    "srnn",
    "structural",
    "switching",
    "unobserved_components",
    "vrnn",
]

_CORE_SCALE = 0.1


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
    freq_seasonal: Collection[tuple[int | float, int | None]] = (),
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


@sized(season_length=2, harmonics=1, hidden_dim=1, code_sizes=1)
def deep_state(
    *,
    trend: bool = True,
    damped: bool = False,
    season_length: int | None = None,
    harmonics: int | None = None,
    covariate_dim: int = 0,
    hidden_dim: int = 32,
    code_sizes: Collection[int] = (),
    initial_scale: int | float = 10.0,
) -> LatentModel:
    r"""A structural model whose noises a network reads off known inputs, inferred exactly.

    .. math:: z_t = F z_{t-1} + G\, w(m_t) \varepsilon_t, \quad
        y_t = h^\top z_t + d(m_t) + r(m_t) \eta_t

    The network sees covariates, codes and scale, never the values, so the model stays linear and
    Gaussian; it is trained on many series at once and shares what they have in common.

    Args:
        trend: Whether the level has a slope of its own.
        damped: Whether that slope dies out, so that forecasts flatten.
        season_length: Steps in a season; None for no seasonal pattern.
        harmonics: How many harmonics make the season, two states each; None gives it a state for
            every step but one.
        covariate_dim: Covariates ``U`` that the network reads.
        hidden_dim: Width of the network.
        code_sizes: Number of categories of each static code.
        initial_scale: Standard deviation of the first level and pattern, in units of the
            standardised series.

    Raises:
        ValueError: If an argument speaks of a part that the model does not have.

    Example:
        >>> deep_state(season_length=4, hidden_dim=8).memory.out_dim
        8

    References:
        Deep State Space Models for Time Series Forecasting (Rangapuram et al., 2018).
    """
    if damped and not trend:
        raise ValueError(
            "damped=True speaks of a slope, and trend=False has none. Leave damped out, or give "
            "trend=True."
        )
    if harmonics is not None and season_length is None:
        raise ValueError(
            f"harmonics={harmonics} speaks of a season, of which there is none. Give "
            "season_length, its steps, or leave harmonics out."
        )
    kind = DampedTrend if trend and damped else LocalLinearTrend if trend else LocalLevel
    parts: list[Component] = [kind(initial_scale=initial_scale)]
    if season_length is not None and harmonics is not None:
        season = TrigonometricSeasonal(season_length, harmonics, initial_scale=initial_scale)
        parts.append(season)
    elif season_length is not None:
        parts.append(Seasonal(season_length, initial_scale=initial_scale))
    inner = Sum(parts)
    width = CausalMemory.input_dim(1, lags=(), covariate_dim=covariate_dim, code_sizes=code_sizes)
    memory = CausalMemory(
        1, MinGRU(width, hidden_dim), lags=(), covariate_dim=covariate_dim, code_sizes=code_sizes
    )
    context_dim = memory.out_dim + covariate_dim
    transition = ContextualNoise(inner, context_dim)
    emission = LinearGaussianEmission(
        inner.latent_dim, loading=inner.loading, bias=False, context_dim=context_dim
    )
    return LatentModel(transition, emission, Kalman(), memory)


@sized(obs_dim=1, hidden_dim=1)
def deep_markov(
    obs_dim: int = 1,
    *,
    latent_dim: int = 16,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    emission: Callable[..., Emission] = Normal,
    posterior: Callable[..., Posterior] = Parallel,
    causal: bool = False,
    irregular: bool = False,
    core: Component | None = None,
    core_scale: int | float = _CORE_SCALE,
) -> LatentModel:
    r"""A deep Markov model: gated transition, neural emission, an encoder that reads the future.

    .. math:: z_t \sim N(\mu(z_{t-1}), \sigma(z_{t-1})), \quad y_t \sim p(y_t \mid z_t)

    All memory is in the latent state, so it has to be used: the model for finding states.

    Args:
        obs_dim: Observed dimensions ``D``.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of all hidden layers.
        covariate_dim: Covariates ``U`` that move state and observation.
        emission: Family of the observations.
        posterior: Family of the posterior: Tilted, Combiner or Parallel, which learns fastest where
            the state is large and the data are sharp.
        causal: Whether the encoder filters; it smooths by default.
        irregular: Whether the transition reads the gaps between observations.
        core: Component, such as a trend with a season, whose states stand before the
            ``latent_dim`` free ones: the model starts as this structural model, filtered by its
            Kalman filter, and learns what is different. For one real-valued observed dimension; the
            encoder then filters, and ``posterior`` is not read.
        core_scale: Standard deviation of the states' noise at the start, with a core.

    Example:
        >>> model = deep_markov(latent_dim=2, hidden_dim=8)
        >>> model.posterior(seqlatent.Sequences.of(torch.zeros(3, 4, 1))).rsample().shape
        torch.Size([3, 4, 2])

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017).
    """
    if core is None and core_scale != _CORE_SCALE:
        raise ValueError(
            f"core_scale={core_scale} speaks of the states of a core, of which there is none. Give "
            "core, a component, or leave core_scale out."
        )
    if core is not None:
        return _anchored(
            core, core_scale, obs_dim, latent_dim, hidden_dim, covariate_dim, emission, irregular
        )
    transition = Gated(
        latent_dim, context_dim=covariate_dim, hidden_dim=hidden_dim, handles_gaps=irregular
    )
    emit = emission(latent_dim, obs_dim, context_dim=covariate_dim, hidden=(hidden_dim,))
    encoder = _encoder(GRU, obs_dim, hidden_dim, covariate_dim, 0, causal)
    inference = Amortised(encoder, posterior(encoder.out_dim, latent_dim))
    return LatentModel(transition, emit, inference)


@sized(obs_dim=1, hidden_dim=1, lags=1, code_sizes=1)
def srnn(
    obs_dim: int = 1,
    *,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    lags: Collection[int] = (1,),
    code_sizes: Collection[int] = (),
    emission: Callable[..., Emission] = Normal,
    posterior: Callable[..., Posterior] = Tilted,
    causal: bool = False,
    irregular: bool = False,
) -> LatentModel:
    r"""A stochastic recurrent network: a latent chain on top of a deterministic memory of the past.

    .. math:: m_t = f(y_{<t}, u_{\le t}), \quad z_t \sim p(z_t \mid z_{t-1}, m_t), \quad
        y_t \sim p(y_t \mid z_t, m_t)

    The forecaster of the family. A strong memory may leave nothing to the latent: see
    :func:`seqlatent.diagnostics.latent_use`.

    Args:
        obs_dim: Observed dimensions ``D``.
        latent_dim: Latent dimensions ``K``; 0 is the deterministic autoregressive network.
        hidden_dim: Width of memory and all hidden layers.
        covariate_dim: Covariates ``U``.
        lags: Past rows that the memory reads at each step.
        code_sizes: Number of categories of each static code.
        emission: Family of the observations.
        posterior: Family of the posterior: Tilted, Combiner or Parallel.
        causal: Whether the encoder filters; it smooths by default.
        irregular: Whether the transition reads the gaps between observations.

    Example:
        >>> model = srnn(lags=(1, 7), hidden_dim=8)
        >>> model.rollout(seqlatent.Sequences.of(torch.zeros(3, 10, 1)), n=5).y.shape
        torch.Size([5, 3, 10, 1])

    References:
        Sequential Neural Models with Stochastic Layers (Fraccaro et al., 2016).
    """
    width = CausalMemory.input_dim(
        obs_dim, lags=lags, covariate_dim=covariate_dim, code_sizes=code_sizes
    )
    backbone = MinGRU(width, hidden_dim)
    memory = CausalMemory(
        obs_dim, backbone, lags=lags, covariate_dim=covariate_dim, code_sizes=code_sizes
    )
    width = hidden_dim + covariate_dim
    emit = emission(latent_dim, obs_dim, context_dim=width, hidden=(hidden_dim,))
    if latent_dim == 0:
        return LatentModel(NoLatent(), emit, Prior(), memory)
    transition = Gated(latent_dim, context_dim=width, hidden_dim=hidden_dim, handles_gaps=irregular)
    # what came before the present is in the memory: only what comes after needs a recurrence
    kind = Feedforward if causal else MinGRU
    encoder = _encoder(kind, obs_dim, hidden_dim, covariate_dim, hidden_dim, causal)
    inference = Amortised(encoder, posterior(encoder.out_dim, latent_dim))
    return LatentModel(transition, emit, inference, memory)


@sized(obs_dim=1, hidden_dim=1, code_sizes=1)
def vrnn(
    obs_dim: int = 1,
    *,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    code_sizes: Collection[int] = (),
    emission: Callable[..., Emission] = Normal,
) -> LatentModel:
    r"""A variational recurrent network: the memory includes the latents, the encoder filters.

    .. math:: h_t = \operatorname{GRU}(h_{t-1}, z_{t-1}, y_{t-1}), \quad
        z_t \sim p(z_t \mid h_t), \quad y_t \sim p(y_t \mid z_t, h_t), \quad q(z_t \mid h_t, y_t)

    Args:
        obs_dim: Observed dimensions ``D``.
        latent_dim: Random latent dimensions; the state also carries ``hidden_dim`` of memory.
        hidden_dim: Width of the memory and all hidden layers.
        covariate_dim: Covariates ``U``.
        code_sizes: Number of categories of each static code.
        emission: Family of the observations.

    Example:
        >>> vrnn(latent_dim=2, hidden_dim=8).transition.latent_dim
        10

    References:
        A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015).
    """
    read = {"covariate_dim": covariate_dim, "code_sizes": code_sizes}
    width = CausalMemory.input_dim(obs_dim, **read)
    memory = CausalMemory(obs_dim, Feedforward(width, hidden_dim), **read)
    width = hidden_dim + covariate_dim
    transition = CarriedRecurrence(latent_dim, hidden_dim, context_dim=width, hidden=(hidden_dim,))
    emit = emission(transition.latent_dim, obs_dim, context_dim=width, hidden=(hidden_dim,))
    encoder = _encoder(Feedforward, obs_dim, hidden_dim, covariate_dim, hidden_dim, causal=True)
    posterior = Combiner(hidden_dim, latent_dim, hidden_dim=hidden_dim, carry_dim=hidden_dim)
    return LatentModel(transition, emit, Amortised(encoder, posterior), memory)


@sized(obs_dim=1, hidden_dim=1)
def latent_ode(
    obs_dim: int = 1,
    *,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    emission: Callable[..., Emission] = Normal,
    diffusion: int | float | None = None,
) -> LatentModel:
    r"""A latent ordinary differential equation from a random start, for irregular times.

    .. math:: z_1 \sim N(\mu, \sigma), \quad \dot z = f(z), \quad y_t \sim p(y_t \mid z_t)

    Args:
        obs_dim: Observed dimensions ``D``.
        latent_dim: Latent dimensions ``K``.
        hidden_dim: Width of all hidden layers.
        covariate_dim: Covariates ``U`` that move state and observation.
        emission: Family of the observations.
        diffusion: Initial standard deviation of process noise over one step; None follows the
            paper, where only the start is random.

    Example:
        >>> t = torch.tensor([0.0, 0.3, 2.0])
        >>> model = latent_ode(latent_dim=2, hidden_dim=8)
        >>> model.smooth(seqlatent.Sequences.of(torch.zeros(1, 3, 1), t=t)).mean.shape
        torch.Size([1, 3, 2])

    References:
        Latent ODEs for Irregularly-Sampled Time Series (Rubanova et al., 2019).
    """
    transition = NeuralODE(
        latent_dim, hidden=(hidden_dim,), diffusion=diffusion, context_dim=covariate_dim
    )
    emit = emission(latent_dim, obs_dim, context_dim=covariate_dim, hidden=(hidden_dim,))
    encoder = _encoder(GRU, obs_dim, hidden_dim, covariate_dim, 0, causal=False)
    return LatentModel(transition, emit, Amortised(encoder, Tilted(encoder.out_dim, latent_dim)))


@sized(states=1, obs_dim=1)
def hidden_markov(
    *,
    states: int = 2,
    obs_dim: int = 1,
    covariate_dim: int = 0,
    stay: int | float = 0.9,
    emission: Callable[..., Emission] = Normal,
) -> LatentModel:
    r"""A hidden Markov model: each regime has a law of the observations, inferred exactly.

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


def _anchored(
    core: Component,
    scale: int | float,
    obs_dim: int,
    free: int,
    hidden_dim: int,
    covariate_dim: int,
    emission: Callable[..., Emission],
    irregular: bool,
) -> LatentModel:
    if obs_dim != 1 or irregular:
        raise ValueError(
            "a core needs one observed dimension at regular times, found "
            f"obs_dim={obs_dim}, irregular={irregular}; leave it out."
        )
    transition = Anchored(
        core, free=free, context_dim=covariate_dim, hidden_dim=hidden_dim, scale=scale
    )
    width = transition.latent_dim
    emit = emission(width, obs_dim, context_dim=covariate_dim, hidden=(hidden_dim,))
    if not isinstance(emit, NeuralEmission):
        raise TypeError(f"a core needs a neural emission, found {type(emit).__name__}.")
    emit.net = AnchoredNet(core.loading, width, covariate_dim, (hidden_dim,), emit.size)
    read = Encoder.input_dim(obs_dim, covariate_dim=covariate_dim)
    # the filter's own noises: the posterior is not tied to the prior
    encoder = FilteringEncoder(KalmanBackbone(deepcopy(core), MinGRU(read, hidden_dim)))
    posterior = AnchoredParallel(encoder.out_dim, width, core.latent_dim)
    return LatentModel(transition, emit, Amortised(encoder, posterior))


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


def _encoder(
    backbone: Callable[[int, int], Backbone],
    obs_dim: int,
    hidden_dim: int,
    covariate_dim: int,
    memory_dim: int,
    causal: bool,
) -> Encoder:
    width = Encoder.input_dim(obs_dim, covariate_dim=covariate_dim, memory_dim=memory_dim)
    kind = FilteringEncoder if causal else SmoothingEncoder
    return kind(backbone(width, hidden_dim))
