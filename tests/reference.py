"""Slow, obviously right oracles: what the package computes cleverly, computed plainly.

Everything here works on one series at a time; :func:`each` loops over leading axes.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class LinearGaussian(NamedTuple):
    """z_1 ~ N(m0, P0), z_t = F_t z_{t-1} + b_t + N(0, Q_t), y_t = H_t z_t + d_t + N(0, R_t).

    In the order in which the functions of `seqlatent.kalman` take them. Leading axes and time may
    be left out where nothing differs along them.
    """

    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor

    def full(self, lead: tuple[int, ...], steps: int) -> "LinearGaussian":
        """Returns the same model with every axis written out."""
        K, D = self.F.shape[-1], self.H.shape[-2]
        shapes = [(steps, K, K), (steps, K), (steps, K, K), (K,), (K, K)]
        shapes += [(steps, D, K), (steps, D), (steps, D, D)]
        return LinearGaussian(
            *(x.expand(*lead, *shape).clone() for x, shape in zip(self, shapes, strict=True))
        )


class Posterior(NamedTuple):
    """Moments of the states given all observations; ``cross[t]`` is Cov(z_t, z_{t-1})."""

    log_evidence: Tensor
    mean: Tensor
    cov: Tensor
    cross: Tensor


class Filtered(NamedTuple):
    """Moments of the states given the past, with and without the present, and log p(y_t | y_<t)."""

    mean: Tensor
    cov: Tensor
    predicted_mean: Tensor
    predicted_cov: Tensor
    log_evidence: Tensor


def dense_prior(model: LinearGaussian, steps: int) -> tuple[Tensor, Tensor]:
    """Mean ``(T K)`` and covariance ``(T K, T K)`` of all states of one series at once."""
    F, b, Q, m0, P0 = model.full((), steps)[:5]
    K = len(m0)
    # (I - shifted F) z = noise with mean (m0, b_2, ...) and covariance diag(P0, Q_2, ...)
    chain = torch.eye(steps * K, dtype=F.dtype)
    for t in range(1, steps):
        chain[t * K : (t + 1) * K, (t - 1) * K : t * K] = -F[t]
    noise = torch.block_diag(P0, *Q[1:])
    inverse = torch.linalg.inv(chain)
    return inverse @ torch.cat([m0, *b[1:]]), inverse @ noise @ inverse.T


def dense_posterior(model: LinearGaussian, y: Tensor, observed: Tensor) -> Posterior:
    """Conditions the joint Gaussian of all states and all observed cells of one series."""
    steps, K = len(y), model.F.shape[-1]
    mean, cov = dense_prior(model, steps)
    H, d, S = _dense_observations(model, cov, observed)
    y = y.flatten()[observed.flatten()]
    gain = torch.linalg.solve(S, H @ cov).T
    residual = y - d - H @ mean
    log_evidence = -0.5 * (
        residual @ torch.linalg.solve(S, residual)
        + torch.linalg.slogdet(S)[1]
        + len(y) * torch.log(torch.tensor(2 * torch.pi, dtype=S.dtype))
    )
    mean, cov = mean + gain @ residual, cov - gain @ S @ gain.T
    blocks = cov.reshape(steps, K, steps, K).movedim(2, 1)
    index = torch.arange(steps)
    cross = blocks[index, index - 1].clone()
    cross[0] = 0
    return Posterior(log_evidence, mean.reshape(steps, K), blocks[index, index], cross)


def dense_condition(model: LinearGaussian, observed: Tensor) -> float:
    """The condition of the joint covariance, by which the dense evidence loses digits."""
    _, cov = dense_prior(model, len(observed))
    return float(torch.linalg.cond(_dense_observations(model, cov, observed)[2]))


def _dense_observations(
    model: LinearGaussian, cov: Tensor, observed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings and offsets of all observed cells, and their covariance."""
    H, d, R = model.full((), len(observed))[5:]
    seen = observed.flatten()
    H, d = torch.block_diag(*H)[seen], d.flatten()[seen]
    return H, d, H @ cov @ H.T + torch.block_diag(*R)[seen][:, seen]


def loop_filter(model: LinearGaussian, y: Tensor, observed: Tensor) -> Filtered:
    """Filters one series in a Python loop that leaves out the rows of what was not observed."""
    F, b, Q, m, P, H, d, R = model.full((), len(y))
    path = []
    for t in range(len(y)):
        if t > 0:
            m, P = F[t] @ m + b[t], F[t] @ P @ F[t].T + Q[t]
        predicted = m, P
        seen = observed[t]
        log_evidence = torch.zeros((), dtype=m.dtype)
        if seen.any():
            h, r = H[t][seen], R[t][seen][:, seen]
            distribution = torch.distributions.MultivariateNormal(
                h @ m + d[t][seen], h @ P @ h.T + r, validate_args=False
            )
            gain = P @ h.T @ torch.linalg.inv(distribution.covariance_matrix)
            keep = torch.eye(len(m), dtype=m.dtype) - gain @ h
            log_evidence = distribution.log_prob(y[t][seen])
            m, P = (
                m + gain @ (y[t][seen] - distribution.mean),
                keep @ P @ keep.T + gain @ r @ gain.T,
            )
        path.append(Filtered(m, P, *predicted, log_evidence))
    return Filtered(*(torch.stack(x) for x in zip(*path, strict=True)))


def each(
    oracle: Callable[..., NamedTuple], model: LinearGaussian, y: Tensor, observed: Tensor
) -> tuple[Tensor, ...]:
    """Applies an oracle to every series of a batch of any number of leading axes."""
    *lead, steps, _ = torch.broadcast_shapes(y.shape, observed.shape)
    full = model.full(tuple(lead), steps)
    y, observed = (x.expand(*lead, steps, -1) for x in (y, observed))
    results = [
        oracle(LinearGaussian(*(x[i] for x in full)), y[i], observed[i])
        for i in itertools.product(*map(range, lead))
    ]
    stacked = [torch.stack(x) for x in zip(*results, strict=True)]
    return type(results[0])(*(x.reshape(*lead, *x.shape[1:]) for x in stacked))


def random_covariance(
    *shape: int, rank: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """A covariance ``(*, K, K)`` with eigenvalues of order one, or of lower ``rank``."""
    *lead, size = shape
    rank = size if rank is None else rank
    G = torch.randn(*lead, size, rank, dtype=torch.float64, generator=generator)
    P = G @ G.mT / max(rank, 1)
    return P if rank < size else P + 0.2 * torch.eye(size, dtype=torch.float64)


def random_system(
    latent_dim: int,
    obs_dim: int,
    steps: int | None = None,
    lead: tuple[int, ...] = (),
    *,
    rank: int | None = None,
    generator: torch.Generator | None = None,
) -> LinearGaussian:
    """A stable model with correlated noises; matrices that vary in time if ``steps`` is given."""
    time = () if steps is None else (steps,)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    F = normal(*lead, *time, latent_dim, latent_dim)
    F = 0.95 * F / torch.linalg.matrix_norm(F, 2)[..., None, None]
    return LinearGaussian(
        F,
        normal(*lead, *time, latent_dim),
        random_covariance(*lead, *time, latent_dim, rank=rank, generator=generator),
        normal(*lead, latent_dim),
        random_covariance(*lead, latent_dim, generator=generator),
        normal(*lead, *time, obs_dim, latent_dim),
        normal(*lead, *time, obs_dim),
        random_covariance(*lead, *time, obs_dim, generator=generator),
    )


def random_data(
    lead: tuple[int, ...],
    steps: int,
    obs_dim: int,
    missing: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Observations, and which cells of them count: each is missing with the probability given."""
    y = torch.randn(*lead, steps, obs_dim, dtype=torch.float64, generator=generator)
    observed = torch.rand(*lead, steps, obs_dim, generator=generator) >= missing
    return torch.where(observed, y, 0), observed


def structural(
    period: int = 24,
    scales: tuple[float, float, float] = (0.3, 0.1, 0.2),
    noise: float = 1.0,
    initial_variance: float = 1e6,
) -> LinearGaussian:
    """A local linear trend with a dummy seasonal: ``period + 1`` states, three with noise."""
    K = period + 1
    F = torch.zeros(K, K, dtype=torch.float64)
    F[0, :2] = F[1, 1] = 1
    F[2, 2:] = -1
    F[3:, 2:-1] = torch.eye(K - 3)
    H = torch.zeros(1, K, dtype=torch.float64)
    H[0, 0] = H[0, 2] = 1
    zero, eye = torch.zeros(K, dtype=torch.float64), torch.eye(K, dtype=torch.float64)
    Q = torch.nn.functional.pad(torch.tensor(scales, dtype=torch.float64) ** 2, (0, K - 3)).diag()
    R = torch.full((1, 1), noise**2, dtype=torch.float64)
    return LinearGaussian(F, zero, Q, zero, initial_variance * eye, H, zero[:1], R)
