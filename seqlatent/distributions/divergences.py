"""Divergences between distributions, and distributions cut from the graph."""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, register_kl
from torch.distributions import kl_divergence as torch_kl_divergence

from seqlatent.distributions.carried import Carried
from seqlatent.distributions.normals import FactorNormal

__all__ = ["detach", "kl_per_dim"]


def kl_per_dim(q: Distribution, p: Distribution) -> Tensor | None:
    """Divergence KL(q || p) of each latent dimension ``(..., K)``, None if it does not factorise.

    Carried states are compared on their random part.
    """
    if isinstance(q, Carried) and isinstance(p, Carried):
        if q.base is None or p.base is None:
            return q.carry[..., :0]
        return kl_per_dim(q.base, p.base)
    if isinstance(q, Independent) and isinstance(p, Independent):
        same = q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims == 1
        if same and isinstance(q.base_dist, Normal) and isinstance(p.base_dist, Normal):
            return _NormalDivergence.apply(
                q.base_dist.loc, q.base_dist.scale, p.base_dist.loc, p.base_dist.scale
            )
    return None


class _NormalDivergence(torch.autograd.Function):
    r"""KL(q || p) of normals, :math:`\tfrac12 (r^2 + d^2 - 1) - \log r`, by fewer operations.

    With :math:`r = \sigma_q / \sigma_p` and :math:`d = (\mu_q - \mu_p) / \sigma_p`. A training step
    takes it at every state, and written out it would cost as much as the networks.
    """

    @staticmethod
    def forward(ctx: Any, q_loc: Tensor, q_scale: Tensor, p_loc: Tensor, p_scale: Tensor) -> Tensor:
        r, d = q_scale / p_scale, (q_loc - p_loc).div_(p_scale)
        ctx.save_for_backward(q_loc, q_scale, p_loc, p_scale)
        square = (r * r).addcmul_(d, d)
        return square.sub_(1).mul_(0.5).sub_(r.log())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        # of the inputs alone, so that second derivatives are right
        q_loc, q_scale, p_loc, p_scale = ctx.saved_tensors
        r, d = q_scale / p_scale, (q_loc - p_loc) / p_scale
        weighed = grads[0] / p_scale
        to_loc = weighed * d
        to_p = weighed * (1 - r * r - d * d)
        found = (to_loc, weighed * r - grads[0] / q_scale, -to_loc, to_p)
        return tuple(x.sum_to_size(y.shape) for x, y in zip(found, ctx.saved_tensors, strict=True))


@register_kl(Carried, Carried)
def _kl_carried(q: Carried, p: Carried) -> Tensor:
    if q.base is None or p.base is None:
        return q.carry.new_zeros(q.batch_shape)
    return torch_kl_divergence(q.base, p.base)


@singledispatch
def detach(distribution: Distribution) -> Distribution:
    """Copies a distribution with its parameters cut from the graph.

    Raises:
        TypeError: If the family is not registered.
    """
    raise TypeError(
        f"cannot detach {type(distribution).__name__}: register it with "
        "seqlatent.distributions.detach.register."
    )


@detach.register
def _(distribution: Independent) -> Distribution:
    return Independent(
        detach(distribution.base_dist), distribution.reinterpreted_batch_ndims, validate_args=False
    )


@detach.register
def _(distribution: Normal) -> Distribution:
    return Normal(distribution.loc.detach(), distribution.scale.detach(), validate_args=False)


@detach.register
def _(distribution: FactorNormal) -> Distribution:
    return FactorNormal(distribution.loc.detach(), distribution.factor.detach())


@detach.register
def _(distribution: Carried) -> Distribution:
    base = None if distribution.base is None else detach(distribution.base)
    return Carried(base, distribution.carry.detach())
