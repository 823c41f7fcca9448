"""The Kalman filter that reads observations as information: its cost in them is that of a sum."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    aligned,
    apply,
    informed_steps,
    innovation_factor,
    matrix_lead,
    means,
    noise_factor,
    residuals,
)
from seqlatent.kalman.diffuse.as_parameter import (
    estimate,
    ill_determined,
    paths,
    with_estimated_start,
)
from seqlatent.kalman.moments.sequential import Filtered, filter, filter_result
from seqlatent.kalman.riccati import closed_loop, covariances, stack, unstack
from seqlatent.kalman.system import LinearGaussianSystem
from seqlatent.linalg import factor, mask_rows

_LOG_2PI = math.log(2 * math.pi)


class _Said(NamedTuple):
    r"""What an observation says of its state: an observation :math:`G^\top z + N(0, I)` of K rows.

    ``floor`` is the log density of the whole at the state that explains it best.
    """

    G: Float[Tensor, "*j K K"]
    y: Float[Tensor, "*e K"]
    floor: Float[Tensor, "*c"]


def filter_information(system: LinearGaussianSystem, y: Tensor, observed: Tensor) -> Filtered:
    r"""Kalman filter for many observed dimensions, each of which adds information on few states.

    .. math::
        J_t = H^\top R^{-1} H, \quad \eta_t = H^\top R^{-1} (y_t - d), \quad
        P_t = (I + P^-_t J_t)^{-1} P^-_t, \quad m_t = m^-_t + P_t (\eta_t - J_t m^-_t)

    It returns what :func:`filter` returns, and never sees a matrix of D x D within a step: where
    R is constant and every row observed it is factored once, where R is diagonal never. Missing
    rows of a diagonal R are left out of sums. The states keep covariances, so that Q, F and P0
    may be singular; only what is said of a diffuse first state is a precision, which starts at 0.

    On one core, for D = 50, K = 5 and ten series of 200 steps, it took an eighth of the time of
    :func:`filter` where a fifth of the cells was missing, and a twentieth with the gradient; with
    no cell missing a half, and a third. From D = 2 K down :func:`filter` is the quicker one.

    Args:
        system: The model. R is positive definite; one that is diagonal is taken to stay so: its
            gradient is that of the diagonal. A coordinate of a diffuse first state on which nothing
            has been said yet has an infinite variance. The evidence is the limit of that of a prior
            variance :math:`\kappa`, times :math:`\kappa^{k/2}` for the k coordinates that the data
            determine.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`.

    Raises:
        ValueError: If R is not positive definite.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*model)
        >>> seqlatent.kalman.filter_information(walk, y, observed).mean.T
        tensor([[0.5000, 1.4000]])
        >>> diffuse = torch.tensor([True])
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*model, diffuse=diffuse)
        >>> seqlatent.kalman.filter_information(walk, y, observed).mean.T
        tensor([[1.0000, 1.6667]])

    References:
        Likelihood-based Dynamic Factor Analysis for Measurement and Forecasting (Jungbacker &
        Koopman, 2015).
        The Diffuse Kalman Filter (de Jong, 1991).
    """
    problem = system.observing(y, observed)
    said = _said(problem.H, problem.d, problem.R, y, observed)
    if said is None:
        return filter(system, y, observed)
    size = system.latent_dim
    eye = torch.eye(size, dtype=said.y.dtype, device=said.y.device)
    seen = observed.any(-1, keepdim=True).expand(*observed.shape[:-1], size)
    lead = torch.broadcast_shapes(y.shape[:-1], observed.shape[:-1])
    few = said.y.expand(*torch.broadcast_shapes(said.y.shape[:-1], lead), size)
    # what is not observed has loadings of zero already
    rows = {"H": said.G.mT, "d": few.new_zeros(size), "R": eye, "y": few}
    s = aligned(problem._replace(**rows, observed=torch.ones_like(seen)))
    informed = seen.movedim(-2, 0).flatten(1).any(-1).expand(s.steps).tolist()
    found = augmented_filter(s, informed)
    if found is None:
        return filter(system, y, observed)
    result = filter_result(found)
    evidence = (result.log_evidence + said.floor).expand(result.mean.shape[:-1])
    return result._replace(log_evidence=evidence)


def augmented_filter(s: AlignedSystem, informed: list[bool] | None = None) -> Moments | None:
    """A filter that learns its diffuse start as a parameter, of which P0 has no variance.

    None where digits would be lost. Evidences have no constant; their sum has all derivatives,
    also in loadings through which rows would see a direction that they do not see.

    Args:
        s: The system.
        informed: Which steps have any observation, if the system does not say so.
    """
    informed = informed_steps(s) if informed is None else informed
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    filtered = covariances(F, Q, P0, H, R, informed)
    predicted_cov, cov, gain, S = (unstack(x, lead) for x in filtered)
    closed = closed_loop(s.F, gain, s.H @ s.F)
    L = innovation_factor(S, "covariance of an observation of a known first state")

    def from_start(s: AlignedSystem) -> tuple[Moments, Tensor]:
        """Moments, and innovations divided by L."""
        mean, predicted_mean = means(s, gain, closed)
        residual = residuals(s, predicted_mean).unsqueeze(-1)
        white = torch.linalg.solve_triangular(L, residual, upper=False).squeeze(-1)
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        evidence = -0.5 * white.square().sum(-1) - log_det
        return Moments(mean, cov, predicted_mean, predicted_cov, evidence), white

    result, white = from_start(s)
    if s.diffuse is None:
        return result
    found = paths(s, gain, closed, L)
    if ill_determined(found.precision):
        return None
    # a start near the one that data say: squares of what is far off would have no digit left
    place = estimate(found, white)
    eye = torch.eye(s.F.shape[-1], dtype=place.dtype, device=place.device)
    result, white = from_start(s._replace(m0=s.m0 + place @ eye[s.diffuse]))
    return with_estimated_start(result, found, white, place)


def _said(H: Tensor, d: Tensor, R: Tensor, y: Tensor, observed: Tensor) -> _Said | None:
    """What each observation says, and the log density at the state that explains it best.

    None where observations say nothing in some direction, in which a change of their loadings would
    say something.
    """
    observed = _narrow(observed)
    diagonal = bool((R.diagonal(dim1=-2, dim2=-1).diag_embed() == R).all())
    if diagonal:
        variance = R.diagonal(dim1=-2, dim2=-1)
        _require_positive(variance)
        weight = torch.where(observed, 1 / variance, 0)
        log_det = torch.where(observed, variance.log(), 0).sum(-1)
        residual = torch.where(observed, y - d, 0)
        J, shift = _weighted(H, weight), apply(H.mT, weight * residual)
    else:
        if not bool(observed.all()):
            H, d, R, y = mask_rows(H, d, R, y, observed)
        L = noise_factor(R)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        H = torch.linalg.solve_triangular(L, H, upper=False)
        # one column per observation where the factor is shared
        residual = apply(_inverse(L), y - d)
        weight, J, shift = torch.ones_like(residual), H.mT @ H, apply(H.mT, residual)
    G, inverse, full = _root(J, observed.any(-1)[..., None, None])
    if not full and torch.is_grad_enabled() and H.requires_grad:
        return None
    few = apply(inverse, shift)
    best = apply(inverse.mT, few)
    rest_of_y = residual - apply(H, best)
    count = observed.sum(-1).to(y.dtype)
    floor = -0.5 * ((weight * rest_of_y.square()).sum(-1) + log_det + _LOG_2PI * count)
    return _Said(G, few, floor)


def _weighted(H: Tensor, weight: Tensor) -> Tensor:
    """H^T diag(weight) H; for loadings that are constant one product of matrices."""
    if H.ndim > 2:
        return (H * weight.unsqueeze(-1)).mT @ H
    obs_dim, size = H.shape
    squares = (H.unsqueeze(-1) * H.unsqueeze(-2)).reshape(obs_dim, size * size)
    return (weight @ squares).reshape(*weight.shape[:-1], size, size)


def _root(J: Tensor, any_seen: Tensor) -> tuple[Tensor, Tensor, bool]:
    """A square factor of the information, its pseudo-inverse, and whether that is the inverse."""
    eye = torch.eye(J.shape[-1], dtype=J.dtype, device=J.device)
    L, info = torch.linalg.cholesky_ex(torch.where(any_seen, J, eye))
    pivots = L.detach().diagonal(dim1=-2, dim2=-1)
    least = torch.finfo(J.dtype).eps ** 0.4 * pivots.amax(-1)
    if not bool(info.any()) and bool((pivots.amin(-1) > least).all()):
        return torch.where(any_seen, L, 0), torch.where(any_seen, _inverse(L), 0), True
    G = factor(J, what="information H^T R^{-1} H")
    return G, torch.linalg.pinv(G), False


def _inverse(L: Tensor) -> Tensor:
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L, eye, upper=False)


def _narrow(observed: Tensor) -> Tensor:
    """A pattern without the axes along which it is the same."""
    for axis in range(observed.ndim - 1):
        one = observed.narrow(axis, 0, 1)
        if observed.shape[axis] > 1 and bool((observed == one).all()):
            observed = one
    while observed.ndim > 1 and observed.shape[0] == 1:
        observed = observed[0]
    return observed


def _require_positive(variance: Tensor) -> None:
    wrong = variance.detach()[~(variance > 0)]
    if len(wrong):
        raise ValueError(
            "The covariance R of the observation noise was expected to have positive variances, "
            f"found {wrong[0]:.3g}. Information divides by it: use kalman.filter, which does not, "
            "or mark what is known exactly as not observed."
        )
