"""The log likelihood of a diffuse start whose coordinates are coefficients of a regression."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.aligned import (
    AlignedSystem,
    Moments,
    apply,
    informed_steps,
    innovation_factor,
    matrix_lead,
    means,
    regular,
    residuals,
    rest,
)
from seqlatent.kalman.diffuse.as_parameter import paths
from seqlatent.kalman.riccati import closed_loop, covariances, stack, unstack

_LOG_2PI = math.log(2 * math.pi)
# Rounding of a variance, in its units to this power of the precision, that gradients can stand.
_AMPLIFIED = 0.3


@torch.no_grad()
def nearly_collinear(s: AlignedSystem, moments: Moments, plain: Bool[Tensor, "_ *l D"]) -> bool:
    """Whether a diffuse start leaves variances beside which those of later rows lose their digits.

    Rows that are nearly combinations of each other determine some directions with a large variance.
    What of that a later row sees is rounded by as much, relative to the variance of that row.

    Args:
        s: The system.
        moments: What a filter found.
        plain: Which rows of the first steps determine no direction.
    """
    if s.steps == 1:
        return False
    size = moments.cov[:-1].diagonal(dim1=-2, dim2=-1).cummax(0)[0]
    F, H, R = (rest(x, s.steps) for x in (s.F, s.H, s.R))
    variance = (H @ moments.predicted_cov[1:] @ H.mT + R).diagonal(dim1=-2, dim2=-1)
    rounding = apply((H @ F).square(), size)
    fine = variance > torch.finfo(variance.dtype).eps ** _AMPLIFIED * rounding
    first = len(plain) - 1
    return not bool((fine[:first] | ~plain[1:]).all() and fine[first:].all())


def regression(s: AlignedSystem, left: Float[Tensor, "*l k k"]) -> Float[Tensor, "*L"] | None:
    r"""Log likelihoods with the first state's diffuse coordinates as coefficients.

    Innovations of a filter that knows them are :math:`w - X \delta`, in units of their deviations
    :math:`L`. With the orthogonal factor :math:`X = A B`

    .. math::
        -2 \log p(y) = \|w - A A^\top w\|^2 + 2 \log|B| + 2 \log|L| + M \log 2\pi

    No product :math:`X^\top X` is formed: nearly collinear columns cost digits by their condition,
    not by its square. It has all derivatives.

    None where an observation has no noise of its own, or directions are ``left`` undetermined.
    """
    if bool((left != 0).any()) or not regular(s.R, 0.4):
        return None
    lead = matrix_lead(s.F, s.Q, s.P0, s.H, s.R)
    F, Q, P0, H, R = (stack(x, lead) for x in (s.F, s.Q, s.P0, s.H, s.R))
    found = covariances(F, Q, P0, H, R, informed_steps(s))
    _, _, gain, S = (unstack(x, lead) for x in found)
    closed = closed_loop(s.F, gain, s.H @ s.F)
    L = innovation_factor(S, "covariance of an observation of a known first state")
    X = _rows(paths(s, gain, closed, L).seen)
    scale = torch.linalg.vector_norm(X.detach(), dim=-2, keepdim=True)
    if not bool((scale.isfinite() & (scale > 0)).all()):
        return None
    A, B = torch.linalg.qr(X / scale)
    pivots = B.detach().diagonal(dim1=-2, dim2=-1).abs()
    if not bool((pivots > torch.finfo(X.dtype).eps ** 0.75).all()):
        return None

    def white(s: AlignedSystem) -> Float[Tensor, "*L M"]:
        _, predicted = means(s, gain, closed)
        residual = residuals(s, predicted).unsqueeze(-1)
        solved = torch.linalg.solve_triangular(L, residual, upper=False)
        return solved.squeeze(-1).movedim(0, -2).flatten(-2)

    assert s.diffuse is not None
    # a start near the estimate: squares of what is far off would have no digit left
    with torch.no_grad():
        estimate = torch.linalg.solve_triangular(B, apply(A.mT, white(s)).unsqueeze(-1), upper=True)
        estimate = estimate.squeeze(-1) / scale.squeeze(-2)
    place = torch.eye(len(s.diffuse), dtype=X.dtype, device=X.device)[s.diffuse]
    w = white(s._replace(m0=s.m0 + estimate @ place))
    square = (w - apply(A, apply(A.mT, w))).square().sum(-1)
    log_det = B.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1) + scale.log().sum((-1, -2))
    log_det = log_det + L.diagonal(dim1=-2, dim2=-1).log().sum((0, -1))
    number = s.observed.expand(s.steps, *s.observed.shape[1:]).sum((0, -1)).to(w.dtype)
    return (-0.5 * (square + _LOG_2PI * number) - log_det).expand(s.lead)


def _rows(x: Float[Tensor, "T *l E k"]) -> Float[Tensor, "*l M k"]:
    """The rows of all steps one below the other."""
    return x.movedim(0, -3).flatten(-3, -2)
