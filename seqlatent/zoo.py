"""Named models: constructors of a few lines that compose the parts as a paper did."""

from collections.abc import Callable
from collections.abc import Sequence as Collection

from seqlatent.emissions import Emission, Normal
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import (
    Amortised,
    Combiner,
    Encoder,
    FilteringEncoder,
    Kalman,
    Posterior,
    Prior,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.model import LatentModel
from seqlatent.networks import GRU, Backbone, Feedforward, MinGRU
from seqlatent.transitions import (
    CarriedRecurrence,
    ContextualNoise,
    Gated,
    LocalLevel,
    LocalLinearTrend,
    NeuralODE,
    NoLatent,
    Regression,
    Seasonal,
    Sum,
)

__all__ = ["deep_markov", "deep_state", "latent_ode", "srnn", "structural", "vrnn"]


def structural(
    *, trend: bool = False, season_length: int | None = None, covariate_dim: int = 0
) -> LatentModel:
    """Basic structural model: level or trend, seasonal pattern, regression; exact inference.

    Args:
        trend: Whether the level has a slope.
        season_length: Steps in a season; None for no seasonal pattern.
        covariate_dim: Covariates with a fixed regression coefficient each.

    References:
        Forecasting, Structural Time Series Models and the Kalman Filter (Harvey, 1989).
    """
    parts = [LocalLinearTrend() if trend else LocalLevel()]
    parts += [] if season_length is None else [Seasonal(season_length)]
    parts += [Regression(covariate_dim)] if covariate_dim else []
    transition = Sum(parts)
    emission = LinearGaussianEmission(transition.latent_dim, 1, loading=transition.loading)
    return LatentModel(transition, emission, Kalman())


def deep_state(
    *,
    trend: bool = True,
    season_length: int | None = None,
    covariate_dim: int = 0,
    hidden_dim: int = 32,
    code_sizes: Collection[int] = (),
) -> LatentModel:
    """Structural model whose noises and observation law a recurrent network gives; exact inference.

    References:
        Deep State Space Models for Time Series Forecasting (Rangapuram et al., 2018).
    """
    inner = structural(trend=trend, season_length=season_length).transition
    known = {"lags": (), "covariate_dim": covariate_dim, "code_sizes": code_sizes}
    memory = CausalMemory(1, MinGRU(CausalMemory.input_dim(1, **known), hidden_dim), **known)
    context_dim = memory.out_dim + covariate_dim
    emission = LinearGaussianEmission(
        inner.latent_dim, 1, loading=inner.loading, context_dim=context_dim
    )
    return LatentModel(ContextualNoise(inner, context_dim), emission, Kalman(), memory)


def deep_markov(
    obs_dim: int = 1,
    *,
    latent_dim: int = 16,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    emission: Callable[..., Emission] = Normal,
    posterior: Callable[..., Posterior] = Tilted,
    causal: bool = False,
) -> LatentModel:
    """Deep Markov model: gated transition, neural emission, an encoder that reads the future.

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017).
    """
    transition = Gated(latent_dim, context_dim=covariate_dim, hidden_dim=hidden_dim)
    emit = emission(latent_dim, obs_dim, context_dim=covariate_dim, hidden=(hidden_dim,))
    encoder = _encoder(GRU, obs_dim, hidden_dim, covariate_dim, 0, causal)
    return LatentModel(transition, emit, Amortised(encoder, posterior(encoder.out_dim, latent_dim)))


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
) -> LatentModel:
    """Stochastic recurrent network: a state space model on top of a deterministic memory of the past.

    ``latent_dim=0`` is the deterministic autoregressive network.

    References:
        Sequential Neural Models with Stochastic Layers (Fraccaro et al., 2016).
    """
    read = {"lags": lags, "covariate_dim": covariate_dim, "code_sizes": code_sizes}
    memory = CausalMemory(
        obs_dim, MinGRU(CausalMemory.input_dim(obs_dim, **read), hidden_dim), **read
    )
    context_dim = memory.out_dim + covariate_dim
    emit = emission(latent_dim, obs_dim, context_dim=context_dim, hidden=(hidden_dim,))
    if latent_dim == 0:
        return LatentModel(NoLatent(), emit, Prior(), memory)
    transition = Gated(latent_dim, context_dim=context_dim, hidden_dim=hidden_dim)
    encoder = _encoder(MinGRU, obs_dim, hidden_dim, covariate_dim, memory.out_dim, causal)
    inference = Amortised(encoder, posterior(encoder.out_dim, latent_dim))
    return LatentModel(transition, emit, inference, memory)


def vrnn(
    obs_dim: int = 1,
    *,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    covariate_dim: int = 0,
    emission: Callable[..., Emission] = Normal,
) -> LatentModel:
    """Variational recurrent network: the memory of the past includes the latents, and the encoder filters.

    References:
        A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015).
    """
    read = {"lags": (1,), "covariate_dim": covariate_dim}
    backbone = Feedforward(CausalMemory.input_dim(obs_dim, **read), hidden_dim)
    memory = CausalMemory(obs_dim, backbone, **read)
    context_dim = hidden_dim + covariate_dim
    transition = CarriedRecurrence(
        latent_dim, hidden_dim, context_dim=context_dim, hidden=(hidden_dim,)
    )
    emit = emission(transition.latent_dim, obs_dim, context_dim=context_dim, hidden=(hidden_dim,))
    encoder = _encoder(Feedforward, obs_dim, hidden_dim, covariate_dim, hidden_dim, causal=True)
    posterior = Combiner(hidden_dim, latent_dim, hidden_dim=hidden_dim, carry_dim=hidden_dim)
    return LatentModel(transition, emit, Amortised(encoder, posterior), memory)


def latent_ode(
    obs_dim: int = 1,
    *,
    latent_dim: int = 8,
    hidden_dim: int = 64,
    emission: Callable[..., Emission] = Normal,
    diffusion: float | None = None,
) -> LatentModel:
    """Latent ordinary differential equation from a random start, for series at irregular times.

    Args:
        diffusion: Initial standard deviation of process noise per square root of a step; None follows the paper,
            where only the start is random.

    References:
        Latent ODEs for Irregularly-Sampled Time Series (Rubanova et al., 2019).
    """
    transition = NeuralODE(latent_dim, hidden=(hidden_dim,), diffusion=diffusion)
    emit = emission(latent_dim, obs_dim, context_dim=0, hidden=(hidden_dim,))
    encoder = _encoder(GRU, obs_dim, hidden_dim, 0, 0, causal=False)
    return LatentModel(transition, emit, Amortised(encoder, Tilted(encoder.out_dim, latent_dim)))


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
