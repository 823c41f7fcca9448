"""Small transitions, emissions and models with which the core is tested before any real part is."""

import torch
from batches import F64, normal
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Poisson, constraints

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
from seqlatent.networks import GRU, LRU, MinGRU
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

    def _law(self, out):
        loc, scale = out.chunk(2, -1)
        return diagonal_normal(torch.tanh(loc) * 1.2, nn.functional.softplus(scale) + 0.1)

    def initial(self, c):
        return self._law(self.start(torch.cat([c.m, c.u, torch.ones_like(c.dt)], -1)))

    def forward(self, z, c):
        law = self._law(self.net(c.features(z)))
        scale = law.base_dist.scale * c.dt.sqrt()
        return diagonal_normal(law.base_dist.loc, scale)


class Remembering(Transition):
    """State [z, h]: h is a recurrent function of the past z, and z follows a law given h."""

    def __init__(self, random_dim, memory_dim):
        super().__init__()
        self.random_dim, self.memory_dim = random_dim, memory_dim
        self.latent_dim = random_dim + memory_dim
        self.cell = nn.GRUCell(random_dim, memory_dim).double()
        self.head = nn.Linear(memory_dim, 2 * random_dim).double()

    def _law(self, h):
        loc, scale = self.head(h).chunk(2, -1)
        return Carried(diagonal_normal(loc, nn.functional.softplus(scale) + 0.1), h)

    def initial(self, c):
        return self._law(c.dt.new_zeros(*c.shape, self.memory_dim) + 0.3)

    def forward(self, z, c):
        z, h = z.split([self.random_dim, self.memory_dim], -1)
        shape = h.shape
        h = self.cell(z.reshape(-1, self.random_dim), h.reshape(-1, self.memory_dim))
        return self._law(h.reshape(shape))


class Read(LinearEmission):
    """y = H z + d + N(0, R), in the units of the data."""

    def __init__(self, H, d, R):
        super().__init__()
        self.H, self.d, self.R = nn.Parameter(H), nn.Parameter(d), nn.Parameter(R)
        self.obs_dim = len(H)
        self.independent = bool((torch.diag(R.diagonal()) == R).all())

    def matrices(self, c):
        H = c.scale[..., None] * self.H
        d = c.shift + c.scale * self.d
        return H, d, self.R * c.scale[..., :, None] * c.scale[..., None, :]


class Mean(Emission):
    """Normal with a mean that also reads memory and covariates."""

    def __init__(self, latent_dim, obs_dim, context_dim=0):
        super().__init__()
        self.obs_dim = obs_dim
        self.net = nn.Linear(latent_dim + context_dim, obs_dim).double()

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


BACKBONES = {"MinGRU": MinGRU, "LRU": LRU, "GRU": GRU}
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


def dense(transition, emission, sequences, c=None):
    """Joint normal law of (z_1..z_T, y_1..y_T) of each series, as a list of (mean, covariance)."""
    c = Context.of(sequences, sequences.y[..., :0]) if c is None else c
    B, T, K, D = sequences.batch, sequences.steps, transition.latent_dim, sequences.obs_dim
    m0, G0 = transition.initial_moments(c[0])
    F, b, G = transition.matrices(c)
    H, d, R = emission.matrices(c)
    m0, G0 = m0.expand(B, K), G0.expand(B, K, -1)
    F, b, G = F.expand(B, T, K, K), b.expand(B, T, K), G.expand(B, T, K, -1)
    H, d, R = H.expand(B, T, D, K), d.expand(B, T, D), R.expand(B, T, D, D)
    laws = []
    for i in range(B):
        # z = mean + L eps, with L block lower triangular
        mean, blocks = [m0[i]], [[G0[i]]]
        for t in range(1, T):
            mean.append(F[i, t] @ mean[-1] + b[i, t])
            blocks.append([F[i, t] @ block for block in blocks[-1]] + [G[i, t]])
        widths = [G0.shape[-1]] + [G.shape[-1]] * (T - 1)
        rows = []
        for row in blocks:
            rows.append(
                torch.cat([*row, *(row[0].new_zeros(K, w) for w in widths[len(row) :])], -1)
            )
        L = torch.cat(rows, 0)
        mean = torch.cat(mean)
        P = L @ L.T
        big = torch.block_diag(*H[i])
        total = torch.cat([mean, big @ mean + d[i].reshape(-1)])
        cross = P @ big.T
        S = big @ cross + torch.block_diag(*R[i])
        laws.append((total, torch.cat([torch.cat([P, cross], 1), torch.cat([cross.T, S], 1)])))
    return laws


def dense_evidence(transition, emission, sequences, c=None):
    """log p(y observed) of each series."""
    size = sequences.steps * transition.latent_dim
    out = []
    for i, (mean, cov) in enumerate(dense(transition, emission, sequences, c)):
        seen = sequences.observed[i].reshape(-1)
        if not seen.any():
            out.append(mean.new_zeros(()))
            continue
        y = sequences.y[i].reshape(-1)[seen]
        law = MultivariateNormal(mean[size:][seen], cov[size:, size:][seen][:, seen])
        out.append(law.log_prob(y))
    return torch.stack(out)


def dense_posterior(transition, emission, sequences, c=None):
    """Mean ``(B, T, K)`` and covariance ``(B, T K, T K)`` of the path given what was seen."""
    K, T = transition.latent_dim, sequences.steps
    size = T * K
    means, covs = [], []
    for i, (mean, cov) in enumerate(dense(transition, emission, sequences, c)):
        seen = sequences.observed[i].reshape(-1)
        y = sequences.y[i].reshape(-1)[seen]
        cross = cov[:size, size:][:, seen]
        S = cov[size:, size:][seen][:, seen]
        gain = torch.linalg.solve(S, cross.T).T if seen.any() else cross
        means.append((mean[:size] + gain @ (y - mean[size:][seen])).reshape(T, K))
        covs.append(cov[:size, :size] - gain @ cross.T)
    return torch.stack(means), torch.stack(covs)
