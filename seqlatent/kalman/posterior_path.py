"""The posterior as a chain that runs forward: potentials of the future, kernels, paths, moments."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    align,
    aligned,
    apply,
    join,
    matrix_lead,
    noise_factor,
    path,
    rest,
    symmetric,
)
from seqlatent.kalman.diffuse.initialisation import diffuse_precision, prior_factor
from seqlatent.kalman.riccati import congruence, information, stack, unstack
from seqlatent.kalman.system import LinearGaussianSystem, leading
from seqlatent.linalg import cholesky


class Potentials(NamedTuple):
    r"""What each state has to explain: p(y_{t:T} | z_t) up to a constant.

    .. math:: \beta_t(z_t) \propto \exp(-\tfrac12 z_t^\top \Lambda_t z_t + \eta_t^\top z_t)
    """

    precision: Float[Tensor, "*L T K K"]
    shift: Float[Tensor, "*L T K"]


class Kernels(NamedTuple):
    r"""A chain of affine Gaussian steps, z_t = A_t z_{t-1} + offset_t + factor_t eps_t.

    At the first step A is zero: offset and factor give the distribution of z_1. Factors of fewer
    columns than the widest are filled up with columns of zeros on the right.
    """

    A: Float[Tensor, "*L T K K"]
    offset: Float[Tensor, "*L T K"]
    factor: Float[Tensor, "*L T K R"]


class Smoothed(NamedTuple):
    """Moments of each state of a chain; ``cross`` is Cov(z_t, z_{t-1}), zero at the first step."""

    mean: Float[Tensor, "*L T K"]
    cov: Float[Tensor, "*L T K K"]
    cross: Float[Tensor, "*L T K K"]


def potentials(system: LinearGaussianSystem, y: Tensor, observed: Tensor) -> Potentials:
    r"""Backward information filter: what all observations from step t on say of z_t.

    .. math::
        \Lambda_t &= H_t^\top R_t^{-1} H_t + A_{t+1}^\top \Lambda_{t+1} F_{t+1}, \quad
        A_t = (I + Q_t \Lambda_t)^{-1} F_t \\
        \eta_t &= H_t^\top R_t^{-1} (y_t - d_t) + A_{t+1}^\top (\eta_{t+1} - \Lambda_{t+1} b_{t+1})

    Q may be singular; R may not. Precisions are shared by series as covariances are in the filter.

    Args:
        system: The model; its first state plays no part. R is positive definite.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> beta = seqlatent.kalman.potentials(walk, y, observed)
        >>> beta.precision.flatten(), beta.shift.flatten()
        (tensor([1.5000, 1.0000]), tensor([2., 2.]))
    """
    s = aligned(system.observing(y, observed))
    L = noise_factor(s.R)
    white = torch.linalg.solve_triangular(L, s.H, upper=False)
    loadings = torch.linalg.solve_triangular(L.mT, white, upper=True)
    eta, J = apply(loadings.mT, s.y - s.d), white.mT @ white
    F, b, Q = rest(s.F, s.steps), rest(s.b, s.steps), rest(s.Q, s.steps)
    J = J.expand(s.steps, *J.shape[1:])
    precision, shift = backward(F, b, Q, J, eta.expand(s.steps, *s.lead, -1))
    if not bool(precision.isfinite().all()):
        raise ValueError(
            "The covariance R of the observation noise was expected to leave digits of what the "
            f"state varies by, found a least variance of {_least(system.R):.3g} in {y.dtype}, by "
            "which potentials divide. Compute in float64, use kalman.filter and kalman.smoother, "
            "which do not divide by R, or give R more variance."
        )
    shift = shift.movedim(0, -2)
    return Potentials(precision.movedim(0, -3).expand(*shift.shape, shift.shape[-1]), shift)


def posterior_kernels(
    system: LinearGaussianSystem,
    potentials: Potentials,
    *,
    G: Float[Tensor, "*g K R"],
    G0: Float[Tensor, "*p K R0"],
) -> Kernels:
    r"""The exact posterior chain: each step of the prior, tilted by the potential of what follows.

    .. math::
        q(z_t \mid z_{t-1}) \propto p(z_t \mid z_{t-1})\, \beta_t(z_t), \quad
        \text{factor}_t = G_t L_t, \; L_t L_t^\top = (I + G_t^\top \Lambda_t G_t)^{-1}

    Prior and posterior factor have the same column span, so their densities compare also where Q is
    singular: log p(z) + log p(y | z) - log q(z) is the log evidence on every path. A diffuse
    coordinate of the first state has the constant prior density :math:`(2 \pi)^{-1/2}`, with which
    that is so too. A first state that data leave open in some direction is given a standard
    deviation of 1e4 in its diffuse coordinates, so that paths can be drawn.

    Args:
        system: The model.
        potentials: What :func:`potentials` returned.
        G: Factor of the transition's covariance, Q = G G^T.
        G0: Factor of the first state's covariance, P0 = G0 G0^T. A coordinate with an infinity in
            its row is diffuse; that column is its own. Where G0 is finite, diffuse coordinates of
            the system have a column of their own each, after those that have anything in other
            rows.

    Shape:
        G ``(*L, T, K, R)``, G0 ``(*L, K, R0)``; the factors returned have max(R, R0) columns.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> beta = seqlatent.kalman.potentials(walk, y, observed)
        >>> q = seqlatent.kalman.posterior_kernels(walk, beta, G=one, G0=one)
        >>> q.A.flatten(), q.offset.flatten()
        (tensor([0.0000, 0.5000]), tensor([0.8000, 1.0000]))
    """
    G0, diffuse_columns = prior_factor(G0, system.diffuse)
    F, b = system.F, system.b
    matrices, vectors = (F, G, potentials.precision), (b, potentials.shift)
    m0, G0 = system.m0.unsqueeze(-2), G0.unsqueeze(-3)
    lead, steps = leading((*matrices, G0), (*vectors, m0))
    F, G, G0, precision = (align(x, lead, 2) for x in (F, G, G0, potentials.precision))
    b, m0, shift = (align(x, lead, 1) for x in (b, m0, potentials.shift))
    F, b, G = rest(F, steps), rest(b, steps), rest(G, steps)
    # A distribution that does not look back is a step whose matrix is zero.
    zero = precision.new_zeros(precision.shape[-2:])
    A0, offset0, G0 = _tilt(zero, m0, G0, precision[:1], shift[:1], diffuse_columns)
    A, offset, G = _tilt(F, b, G, rest(precision, steps), rest(shift, steps))
    width = max(G0.shape[-1], G.shape[-1])
    G0, G = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in (G0, G))
    A, offset, factor = join(A0, A, steps), join(offset0, offset, steps), join(G0, G, steps)
    offset = offset.movedim(0, -2).expand(*lead, steps, -1)
    A, factor = (x.movedim(0, -3).expand(*lead, steps, -1, -1) for x in (A, factor))
    return Kernels(A, offset, factor)


def sample_paths(kernels: Kernels, noise: Float[Tensor, "*SL T R"]) -> Float[Tensor, "*SL T K"]:
    r"""Paths of a chain, from standard normal noise.

    .. math:: z_t = A_t z_{t-1} + \text{offset}_t + \text{factor}_t\, \varepsilon_t

    Args:
        kernels: The chain.
        noise: Standard normal :math:`\varepsilon`, with the axes of samples in front.

    Shape:
        noise ``(*S, *L, T, R)`` -> ``(*S, *L, T, K)``.

    Example:
        >>> one = torch.ones(3, 1, 1)
        >>> walk = seqlatent.kalman.Kernels(one, torch.zeros(3, 1), one)
        >>> seqlatent.kalman.sample_paths(walk, torch.tensor([[1.0], [2.0], [-1.0]])).T
        tensor([[1., 3., 2.]])
    """
    lead, _ = leading((), (kernels.offset, noise))
    A, factor = align(kernels.A, lead, 2), align(kernels.factor, lead, 2)
    offset, noise = align(kernels.offset, lead, 1), noise.movedim(-2, 0)
    return path(A, offset + apply(factor, noise)).movedim(0, -2)


def path_moments(kernels: Kernels) -> Smoothed:
    """Moments of the states of a chain, without sampling.

    Args:
        kernels: The chain; of the exact posterior, the moments are those of :func:`smoother`.

    Shape:
        mean ``(*L, T, K)``, cov and cross ``(*L, T, K, K)``.

    Example:
        >>> one = torch.ones(3, 1, 1)
        >>> walk = seqlatent.kalman.Kernels(one, torch.zeros(3, 1), one)
        >>> seqlatent.kalman.path_moments(walk).cov.flatten()
        tensor([1., 2., 3.])
    """
    *lead, steps, _ = kernels.offset.shape
    A, factor = (align(x, tuple(lead), 2) for x in (kernels.A, kernels.factor))
    return time_last(chain_moments(A, kernels.offset.movedim(-2, 0), factor @ factor.mT, steps))


def backward(
    F: Float[Tensor, "_ *f K K"],
    b: Float[Tensor, "_ *b K"],
    Q: Float[Tensor, "_ *q K K"],
    J: Float[Tensor, "T *j K K"],
    eta: Float[Tensor, "T *L K"],
) -> tuple[Float[Tensor, "T *p K K"], Float[Tensor, "T *L K"]]:
    """Precision and shift of the potential of all that follows from each step on.

    ``F``, ``b``, ``Q`` are of the steps from the second on; ``J``, ``eta`` are what each step says.
    """
    lead = matrix_lead(F, Q, J)
    precision, A = (unstack(x, lead) for x in information(*(stack(x, lead) for x in (F, Q, J))))
    step = apply(A.mT, apply(precision[1:], b))
    direct = torch.cat([eta[:-1] - step, eta[-1:]])
    last = torch.zeros_like(precision[:1])
    return precision, path(torch.cat([A.mT, last]), direct, reverse=True)


def chain_moments(
    A: Float[Tensor, "_ *a K K"],
    offset: Float[Tensor, "T *L K"],
    V: Float[Tensor, "_ *v K K"],
    steps: int,
) -> Smoothed:
    """Moments of a chain z_t = A_t z_{t-1} + offset_t + N(0, V_t); all has time first."""
    lead, later = matrix_lead(A, V), rest(A, steps)
    V = V.expand(steps, *V.shape[1:])
    cov = unstack(symmetric(congruence(stack(later, lead), stack(V, lead))), lead)
    return with_cross(path(A, offset), cov, later)


def with_cross(
    mean: Float[Tensor, "T *L K"], cov: Float[Tensor, "T *c K K"], A: Float[Tensor, "_ *a K K"]
) -> Smoothed:
    """Moments, time first, with covariances of neighbours: ``A`` has steps from the second on."""
    return Smoothed(mean, cov, join(torch.zeros_like(cov[:1]), A @ cov[:-1], len(cov)))


def time_last(x: Smoothed) -> Smoothed:
    """What a smoother returns, from moments that have time first."""
    mean = x.mean.movedim(0, -2)
    shape = (*mean.shape, mean.shape[-1])
    return Smoothed(mean, *(P.movedim(0, -3).expand(shape) for P in (x.cov, x.cross)))


def _least(R: Tensor) -> float:
    return R.detach().diagonal(dim1=-2, dim2=-1).amin().item()


def _tilt(
    F: Tensor,
    b: Tensor,
    G: Tensor,
    precision: Tensor,
    shift: Tensor,
    diffuse_columns: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A step N(F z + b, G G^T) times a potential, as matrix, offset and factor.

    Noise of ``diffuse_columns`` has no density.
    """
    total = diffuse_precision(G.mT @ precision @ G, diffuse_columns)
    C = cholesky(total, what="precision of the posterior's noise")
    G = torch.linalg.solve_triangular(C, G.mT, upper=False).mT
    offset = b + apply(G, apply(G.mT, shift - apply(precision, b)))
    return F - G @ (G.mT @ (precision @ F)), offset, G
