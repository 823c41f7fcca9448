"""The log likelihood of a linear-Gaussian model, by blocks of steps."""

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.kalman.aligned import align, symmetric
from seqlatent.kalman.likelihood import banded
from seqlatent.kalman.likelihood import moving_average as reduced
from seqlatent.kalman.likelihood.derivatives import differentiable
from seqlatent.kalman.likelihood.missing_patterns import (
    Likelihoods,
    TimeInvariantProblem,
    after,
    by_filter,
    ends_of,
    in_order,
    series_groups,
    trusted,
)
from seqlatent.kalman.system import LinearGaussianSystem, Problem
from seqlatent.recurrence import affine_recurrence

__all__ = ["log_likelihood"]

# Series whose reduced forms are worked on together.
_SERIES = 2048


def log_likelihood(system: LinearGaussianSystem, y: Tensor, observed: Tensor) -> Tensor:
    r"""Log likelihood of each series: the sum of what :func:`filter` gives per step, but faster.

    Where the matrices are constant in time, blocks of :math:`m` steps are filtered as one step of
    :math:`m D` observations. What a block is does not depend on the data and is computed once for
    all series that share matrices and pattern of missing values; so are the covariances, until they
    are steady. What depends on the data is products of matrices. The gradient is another pass over
    the blocks, written by hand; a gradient that is to be differentiated again,
    ``create_graph=True``, is that of :func:`filter`. Step by step go matrices that vary in time, an
    R that is singular, and series in whose blocks rounding would be amplified by so much that
    digits were lost. Numbers in single precision are worked on in double.

    Args:
        system: The model. With diffuse coordinates of the first state the result is the limit, for
            a variance :math:`\kappa \to \infty`, of the log likelihood plus
            :math:`\tfrac12 \log\kappa` for each of them that the observations determine.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`, the result ``(*L,)``.

    Raises:
        ValueError: If shapes do not fit, what is observed is no number, or an observation has no
            variance given those before.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> seqlatent.kalman.log_likelihood(walk, y, observed)
        tensor(-3.3426)

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), ch. 5 on diffuse
        starts.
    """
    problem = system.observing(y, observed)
    found = banded.log_likelihood(problem)
    if found is not None:
        return found
    if problem.F.dtype != torch.float64 and y.device.type != "mps":
        Q, P0, R = (_unrounded(x) for x in (problem.Q, problem.P0, problem.R))
        problem = problem._replace(Q=Q, P0=P0, R=R)
    return differentiable(_value, by_filter, problem)


def _unrounded(P: Tensor) -> Tensor:
    """A covariance in double precision, without negative eigenvalues by rounding to single."""
    P = P.double()
    with torch.no_grad():
        variances = P.diagonal(dim1=-2, dim2=-1)
        unit = torch.where(variances > 0, variances, 1.0).sqrt()
        unit = unit.unsqueeze(-1) * unit.unsqueeze(-2)
        scaled = symmetric(P / unit)
        slack = 64 * torch.finfo(P.dtype).eps * torch.eye(P.shape[-1]).to(P)
        if not bool(torch.linalg.cholesky_ex(scaled + slack)[1].any()):
            return P
        values, vectors = torch.linalg.eigh(scaled)
        mended = unit * ((vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT)
    return P + (mended - P.detach())


def _value(problem: Problem) -> Tensor:
    lead, _ = problem.axes
    matrices = (problem.F, problem.Q, problem.H, problem.R)
    if all(len(align(x, lead, 2)) == 1 for x in matrices) and _regular(problem.R):
        found = _at_once(problem)
        if found is not None:
            return found
    return by_filter(problem)


def _at_once(problem: Problem) -> Tensor | None:
    """The same for constant matrices and a regular R, by the reduced form or by blocks."""
    F, b, Q, m0, P0, H, d, R, y, observed, diffuse = problem
    lead, steps = problem.axes
    aligned = [align(x, lead, 2)[0] for x in (F, Q, H, R, P0.unsqueeze(-3))]
    F, Q, H, R, P0 = (_each(x, lead) for x in aligned)
    prior = align(m0.unsqueeze(-2), lead, 1)[0].expand(*lead, -1).reshape(-1, F.shape[-1])
    if b.requires_grad or bool(b.any()):
        drift = _drift(aligned[0], b, aligned[2], lead, steps)
        if _hides_digits(drift, y - d, R):
            return None
        d = d + drift
    if d.requires_grad or bool(d.any()):
        y = y - d
    y, seen = (x.expand(*lead, steps, -1).reshape(-1, steps, y.shape[-1]) for x in (y, observed))
    ends = ends_of(seen)
    complete = bool(seen.all())
    y = y if complete else y.masked_fill(~seen, 0.0)
    seen = None if complete else seen
    batch = TimeInvariantProblem(F, Q, H, R, P0, prior, y, seen, ends, diffuse)
    value = _of_reduced(batch)
    return (_of_blocks(batch) if value is None else value).reshape(lead)


def _of_reduced(problem: TimeInvariantProblem) -> Tensor | None:
    """By the reduced form, where series have matrices of their own and it is exact."""
    F, _, H, _, _, _, y, seen, ends, diffuse = problem
    order, steps = F.shape[-1], y.shape[1]
    fixed = F.dim() == H.dim() == 2 and not (F.requires_grad or H.requires_grad)
    # a step costs a few calls: they are worth it where many series, or their matrices, share them
    many = problem.per_series or len(y) >= 4 * steps
    if not many or not fixed or diffuse is None or y.shape[-1] > 1:
        return None
    if (
        y.dtype != torch.float64
        or not bool(diffuse.all())
        or int(ends.min()) < order
        or steps == order
    ):
        return None  # as many values as a start takes have no differences
    if seen is not None and not bool((seen | after(ends, steps)).all()):
        return None
    form = reduced.reduce(F, H)
    if form is None:
        return None
    every = torch.arange(len(y), device=y.device).split(_SERIES)
    return in_order([found for index in every for found in _reduced(form, problem, index)])


def _reduced(
    form: reduced.Reduced, problem: TimeInvariantProblem, index: Tensor
) -> list[Likelihoods]:
    some = problem.select(index)
    value, condition = reduced.likelihood(form, some.Q, some.R, some.y[..., 0], some.ends)
    good = condition < trusted(value.dtype, some.ends)
    if bool(good.all()):
        return [Likelihoods(index, value)]
    left = Likelihoods(index[~good], _of_blocks(problem.select(index[~good])))
    return [left, *(_reduced(form, problem, index[good]) if bool(good.any()) else [])]


def _of_blocks(problem: TimeInvariantProblem) -> Tensor:
    """Block by block, the series in groups."""
    return in_order(
        [found for group in series_groups(problem) for found in group.evaluate(problem)]
    )


def _each(x: Float[Tensor, "*l i j"], lead: tuple[int, ...]) -> Tensor:
    """A matrix ``(i, j)`` where all series share it, else one of each ``(B, i, j)``."""
    if x.shape[:-2].numel() == 1:
        return x.reshape(x.shape[-2:])
    return x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])


def _regular(R: Tensor) -> bool:
    """Whether all covariances are positive definite."""
    if R.shape[-1] == 1:
        return bool((R > 0).all())
    return not bool(torch.linalg.cholesky_ex(R)[1].any())


def _drift(F: Tensor, b: Tensor, H: Tensor, lead: tuple[int, ...], steps: int) -> Tensor:
    """What offsets of the transition add to the observations: a path of its own."""
    b = align(b, lead, 1)
    later = b[1:] if len(b) > 1 else b.expand(steps - 1, *b.shape[1:])
    offset = torch.cat([torch.zeros_like(b[:1]), later]).movedim(0, -2)
    path = affine_recurrence(F.unsqueeze(-3), offset)
    return path @ H.mT


def _hides_digits(drift: Tensor, y: Tensor, R: Tensor) -> bool:
    """Whether so much is taken off the observations that no digits of them are left."""
    with torch.no_grad():
        noise = R.diagonal(dim1=-2, dim2=-1).amin().sqrt()
        most = torch.maximum(10 * y.abs().amax(), 1e5 * noise)
        return not bool(drift.abs().amax() <= most)
