"""Divergences between distributions, and distributions cut from the graph."""

from functools import singledispatch

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
            return torch_kl_divergence(q.base_dist, p.base_dist)
    return None


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
