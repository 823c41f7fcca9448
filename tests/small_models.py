"""Small transitions, emissions and models with which the core is tested before any real part is."""

import reference
import torch
from batches import F64, normal
from reference import LinearGaussian
from torch import nn
from torch.distributions import Independent, Poisson, constraints

from seqlatent.distributions import Carried, diagonal_normal
from seqlatent.emissions.emission import Emission, LinearEmission
from seqlatent.inference import (
    Amortised,
    Combiner,
    Encoder,
    FilteringEncoder,
    Parallel,
    SmoothingEncoder,
    Tilted,
)
from seqlatent.memory import CausalMemory
from seqlatent.networks import GRU, LRU, MLP, Feedforward, MinGRU
from seqlatent.sequences import Context
from seqlatent.transitions.transition import DiagonalTransition, LinearTransition, Transition


class Matrices(LinearTransition):
    """z_1 ~ N(m0, G0 G0'), z_t = F z_{t-1} + b + G eps."""

    def __init__(self, F, b, G, m0, G0):
        super().__init__()
        self.F, self.b, self.G = nn.Parameter(F), nn.Parameter(b), nn.Parameter(G)
        self.m0, self.G0 = nn.Parameter(m0), nn.Parameter(G0)
        self.latent_dim = F.shape[-1]

    def initial_moments(self, c):
        return self.m0, self.G0

    def matrices(self, c):
        return self.F, self.b, self.G


class Reverting(DiagonalTransition):
    """Ornstein-Uhlenbeck in K independent coordinates; reads the gaps."""

    handles_gaps = True

    def __init__(self, rate, mean, scale):
        super().__init__()
        self.rate, self.mean, self.scale = (nn.Parameter(x) for x in (rate, mean, scale))
        self.latent_dim = len(rate)

    def initial_affine(self, c):
        return self.mean, self.scale

    def affine(self, c):
        a = torch.exp(-self.rate * c.dt)
        return a, self.mean * (1 - a), self.scale * (1 - a.square()).sqrt()


class Curved(Transition):
    """Nonlinear and normal, reading memory, covariates and gaps."""

    handles_gaps = True

    def __init__(self, latent_dim, context_dim=0):
        super().__init__()
        self.latent_dim = latent_dim
        self.net = nn.Linear(latent_dim + context_dim, 2 * latent_dim).double()
        self.start = nn.Linear(context_dim + 1, 2 * latent_dim).double()

    def _distribution(self, out):
        loc, scale = out.chunk(2, -1)
        return diagonal_normal(torch.tanh(loc) * 1.2, nn.functional.softplus(scale) + 0.1)

    def initial(self, c):
        return self._distribution(self.start(c.features(torch.ones_like(c.dt))))

    def forward(self, z, c):
        distribution = self._distribution(self.net(c.features(z)))
        scale = distribution.base_dist.scale * c.dt.sqrt()
        return diagonal_normal(distribution.base_dist.loc, scale)


class Remembering(Transition):
    """State [z, h]: h is a recurrent function of the past z, and z is random given h."""

    def __init__(self, random_dim, memory_dim):
        super().__init__()
        self.random_dim, self.memory_dim = random_dim, memory_dim
        self.latent_dim = random_dim + memory_dim
        self.cell = nn.GRUCell(random_dim, memory_dim).double()
        self.head = nn.Linear(memory_dim, 2 * random_dim).double()

    def _distribution(self, h):
        loc, scale = self.head(h).chunk(2, -1)
        return Carried(diagonal_normal(loc, nn.functional.softplus(scale) + 0.1), h)

    def initial(self, c):
        return self._distribution(c.dt.new_zeros(*c.shape, self.memory_dim) + 0.3)

    def forward(self, z, c):
        z, h = z.split([self.random_dim, self.memory_dim], -1)
        shape = h.shape
        h = self.cell(z.reshape(-1, self.random_dim), h.reshape(-1, self.memory_dim))
        return self._distribution(h.reshape(shape))


class Read(LinearEmission):
    """y = H z + d + N(0, R), in standardised units."""

    def __init__(self, H, d, R):
        super().__init__()
        self.H, self.d, self.R = nn.Parameter(H), nn.Parameter(d), nn.Parameter(R)
        self.obs_dim = len(H)
        self.independent = bool((torch.diag(R.diagonal()) == R).all())

    def matrices(self, c):
        return self.H, self.d, self.R


class Mean(Emission):
    """Normal with a mean that also reads memory and covariates."""

    def __init__(self, latent_dim, obs_dim, context_dim=0):
        super().__init__()
        self.obs_dim = obs_dim
        self.net = MLP(latent_dim + context_dim, (), obs_dim).double()

    def forward(self, z, c):
        loc = c.shift + c.scale * self.net(c.features(z))
        return diagonal_normal(loc, (0.5 * c.scale).expand(loc.shape))


class Counts(Emission):
    support = constraints.nonnegative_integer

    def __init__(self, latent_dim):
        super().__init__()
        self.obs_dim = 1
        self.net = nn.Linear(latent_dim, 1).double()

    def forward(self, z, c):
        return Independent(Poisson(self.net(z).exp(), validate_args=False), 1, validate_args=False)


BACKBONES = {"MinGRU": MinGRU, "LRU": LRU, "GRU": GRU, "Feedforward": Feedforward}
POSTERIORS = {"Tilted": Tilted, "Combiner": Combiner, "Parallel": Parallel}
ENCODERS = ("filtering", "smoothing", "backward")


def encoder(kind, obs_dim, *, covariate_dim=0, memory_dim=0, hidden_dim=6):
    width = Encoder.input_dim(obs_dim, covariate_dim=covariate_dim, memory_dim=memory_dim)
    if kind == "filtering":
        return FilteringEncoder(MinGRU(width, hidden_dim)).double()
    forward = MinGRU(width, hidden_dim) if kind == "smoothing" else None
    return SmoothingEncoder(MinGRU(width, hidden_dim), forward).double()


def amortised(posterior, kind, latent_dim, obs_dim, *, particles=5, weight=None, **sizes):
    net = encoder(kind, obs_dim, **sizes)
    head = POSTERIORS[posterior](net.out_dim, latent_dim).double()
    if weight is not None:
        head = Tilted(net.out_dim, latent_dim, weight=weight).double()
    return Amortised(net, head, particles=particles)


def memory(
    obs_dim=1, *, lags=(1, 2), covariate_dim=0, code_sizes=(), backbone=MinGRU, hidden_dim=4
):
    sizes = {"lags": lags, "covariate_dim": covariate_dim, "code_sizes": code_sizes}
    width = CausalMemory.input_dim(obs_dim, **sizes)
    return CausalMemory(obs_dim, backbone(width, hidden_dim), **sizes).double()


def linear_parts(K=2, D=1, *, seed=0, thin=False):
    """A stable random linear Gaussian model."""
    F = 0.9 * torch.linalg.qr(normal(K, K, seed=seed))[0]
    G = normal(K, 1 if thin else K, seed=seed + 1) * 0.5 + torch.eye(K, 1 if thin else K, dtype=F64)
    transition = Matrices(
        F, 0.1 * normal(K, seed=seed + 2), G, normal(K, seed=seed + 3), torch.eye(K, dtype=F64)
    )
    A = normal(D, D, seed=seed + 4)
    R = 0.3 * torch.eye(D, dtype=F64) + 0.1 * A @ A.T
    return transition, Read(normal(D, K, seed=seed + 5), normal(D, seed=seed + 6), R)


def system(transition, emission, sequences, c=None):
    """The model as the oracles take it, in the units of the data."""
    c = Context.of(sequences, sequences.y[..., :0]) if c is None else c
    F, b, G = transition.matrices(c)
    m0, G0 = transition.initial_moments(c[0])
    H, d, R = emission.matrices(c)
    H, d = c.scale[..., None] * H, c.shift + c.scale * d
    R = c.scale[..., :, None] * R * c.scale[..., None, :]
    return LinearGaussian(F, b, G @ G.mT, m0, G0 @ G0.mT, H, d, R)


def dense_posterior(transition, emission, sequences, c=None):
    """Evidence ``(B,)``, and moments of the states ``(B, T, ...)``, from the joint normal."""
    model = system(transition, emission, sequences, c)
    return reference.each(reference.dense_posterior, model, sequences.y, sequences.observed)


def dense_evidence(transition, emission, sequences, c=None):
    """log p(y observed) of each series."""
    return dense_posterior(transition, emission, sequences, c).log_evidence
