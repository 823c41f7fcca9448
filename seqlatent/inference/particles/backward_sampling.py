"""Backward sampling of smoothed paths from a particle filter's cloud."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.distributions import Carried, FactorNormal, sample
from seqlatent.inference.base import Generative
from seqlatent.inference.particles.cloud import Cloud, take
from seqlatent.sequences import Context

__all__ = []


# Densities that backward sampling evaluates at a time: enough to keep a processor busy.
_CELLS = 1 << 20


def backward_sample(
    model: Generative,
    cloud: Cloud,
    c: Context,
    count: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws smoothed paths ``(count, B, T, K)`` from a filter's particles, without gradients.

    Where the state carries deterministic memory, or moves on a subspace, no particle but the parent
    can lead to a child, and the paths are traced along their ancestors.
    """
    with torch.no_grad():
        steps = c.unbind()
        weights = cloud.log_weights
        index = sample(
            torch.distributions.Categorical(logits=weights[..., -1].T, validate_args=False),
            (count,),
            generator,
        )
        path = [take(cloud.values[..., -1, :], index)]
        for t in range(len(steps) - 2, -1, -1):
            distribution = model.transition(cloud.values[..., t, :], steps[t + 1])
            if isinstance(distribution, Carried) or _is_thin(distribution):
                index = cloud.ancestors[..., t + 1].gather(0, index)
            else:
                index = _backward_index(distribution, weights[..., t], path[-1], generator)
            path.append(take(cloud.values[..., t, :], index))
        path.reverse()
        return torch.stack(path, -2)


def _is_thin(distribution: Distribution) -> bool:
    return (
        isinstance(distribution, FactorNormal)
        and distribution.factor.shape[-1] < distribution.event_shape[0]
    )


def _backward_index(
    distribution: Distribution,
    log_weights: Tensor,
    following: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Index of a parent for each following state, many of them at a time."""
    size = max(1, _CELLS // max(1, log_weights.numel()))
    drawn = []
    for part in following.split(size):
        logits = (log_weights + distribution.log_prob(part[:, None])).movedim(1, -1)
        choice = torch.distributions.Categorical(logits=logits, validate_args=False)
        drawn.append(sample(choice, (), generator))
    return torch.cat(drawn)
