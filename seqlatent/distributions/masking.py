"""Densities of partially observed vectors."""

import math
from functools import singledispatch

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, constraints

from seqlatent.linalg import cholesky

__all__ = ["masked_log_prob"]

_LOG_2PI = math.log(2 * math.pi)


@singledispatch
def masked_log_prob(
    distribution: Distribution, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    """Log density of the observed cells of a vector, the others integrated out; ``(*S, B, T)``.

    Args:
        distribution: Distribution of the vector, event ``(D,)``.
        y: Values, any finite number where unobserved.
        observed: Which cells count.

    Raises:
        TypeError: If the marginal of a part of the vector is not known for the family.
    """
    raise TypeError(
        f"cannot marginalise missing cells out of {type(distribution).__name__}: an emission must "
        "return Independent(..., 1) or MultivariateNormal, or register "
        "seqlatent.distributions.masked_log_prob for its family."
    )


def _inside(support: constraints.Constraint, y: Tensor) -> Tensor:
    """A value in the support, for where nothing was observed: outside, gradients would be NaN."""
    half = torch.full_like(y, 0.5)
    return torch.where(support.check(half), half, 1.0)  # no boundary; 1 for integers and booleans


@masked_log_prob.register
def _(
    distribution: Independent, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    base = distribution.base_dist
    if distribution.reinterpreted_batch_ndims != 1 or base.event_shape:
        raise TypeError(
            "masking needs one event axis of scalar cells, found "
            f"{distribution.reinterpreted_batch_ndims} over {type(base).__name__} of event shape "
            f"{tuple(base.event_shape)}."
        )
    if bool(observed.all()):
        return base.log_prob(y).sum(-1)
    filled = torch.where(observed, y, _inside(base.support, y))
    log_prob = base.log_prob(filled)
    return torch.where(observed, log_prob, torch.zeros_like(log_prob)).sum(-1)


@masked_log_prob.register
def _(
    distribution: MultivariateNormal, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    if bool(observed.all()):
        return distribution.log_prob(y)
    # Unobserved rows become independent unit variances with a zero residual, a mere constant.
    both = observed[..., :, None] & observed[..., None, :]
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    covariance = torch.where(both, distribution.covariance_matrix, eye)
    residual = torch.where(observed, y - distribution.loc, torch.zeros_like(y))
    L = cholesky(covariance, what="observation covariance")
    white = torch.linalg.solve_triangular(L, residual[..., None], upper=False)[..., 0]
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = 0.5 * _LOG_2PI * observed.sum(-1).to(y.dtype)
    return -0.5 * white.square().sum(-1) - log_det - constant
