"""Models with networks: deep Markov, recurrent and continuous ones."""

from collections.abc import Callable
from collections.abc import Sequence as Collection
from copy import deepcopy

from seqlatent.emissions import (
    AnchoredNet,
    Emission,
    NeuralEmission,
    Normal,
)
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import (
    Amortised,
    AnchoredParallel,
    Combiner,
    Encoder,
    FilteringEncoder,
    Kalman,
    KalmanBackbone,
    Parallel,
    Posterior,
    Prior,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel
from seqlatent.networks import GRU, Backbone, Feedforward, MinGRU
from seqlatent.sizes import sized
from seqlatent.transitions import (
    Anchored,
    CarriedRecurrence,
    Component,
    ContextualNoise,
    DampedTrend,
    Gated,
    LocalLevel,
    LocalLinearTrend,
    NeuralODE,
    NoLatent,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
)

__all__ = ["deep_markov", "deep_state", "latent_ode", "srnn", "vrnn"]

_CORE_SCALE = 0.1


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
