"""What the network is trained by: quantile loss of each lead, likelihood of their dependence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised import copula
from seqlatent.amortised.curriculum import Batch
from seqlatent.amortised.network import Network, Raw
from seqlatent.amortised.past import Past, past_of
from seqlatent.amortised.quantiles import LEVELS, QuantileFunction

__all__ = ["loss", "normal_scores", "quantile_loss"]

_FARTHEST = 4.0  # normal scores that count as any beyond them
_WIDE = 0.02  # range of normal scores that is more than one of them
_OUTER = (0.3, 0.5)  # weights of the two outermost quantiles on each side, which few values tell of


def loss(
    network: Network,
    batch: Batch,
    dependence: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mean loss of a batch.

    .. math:: \frac{1}{B} \sum_b \frac{\sum_h \bar\rho_{bh}}{H + \sum_h E|Y_{bh}|} - \omega \log c_b

    with the mean quantile loss :math:`\bar\rho` of all levels, values in the units of the scaled
    past, their size under the forecast, which has no gradient, and the density c of the copula at
    the normal scores of the values.

    Args:
        network: The network.
        batch: Pasts and what followed.
        dependence: Weight of the copula.
        generator: Draws the normal scores of whole numbers and of values at a floor.
    """
    past = past_of(batch.y, batch.observed, batch.seasons)
    y = ((batch.future - past.shift) / past.unit).to(next(network.parameters()).dtype)
    past = past.to(y.dtype)
    raw = network(past, batch.leads)
    raw = Raw(raw.knots.to(y.dtype), raw.loadings.to(y.dtype))
    marginal = quantile_loss(raw.knots, y, past, batch.seen)
    if not dependence:
        return marginal
    with torch.autocast(y.device.type, enabled=False):
        x = normal_scores(raw, y, past, batch.seen, generator)
        joint = copula.log_density(x, raw.loadings, batch.seen)
    return marginal - dependence * (joint / batch.seen.sum(1).clamp_min(1)).mean()


def quantile_loss(
    knots: Float[Tensor, "B H Q"], y: Float[Tensor, "B H"], past: Past, seen: Bool[Tensor, "B H"]
) -> Tensor:
    """Mean quantile loss, of each series relative to the size that it is said to have.

    A size of the values themselves would count most where they are small, and narrow what is said.
    """
    # what lies below zero of a series that never does counts as zero
    floor = torch.where(past.lower, -past.origin, -torch.inf)[..., None]
    knots = torch.maximum(knots, floor)
    error = y[..., None] - knots
    level = knots.new_tensor(LEVELS)
    weight = torch.ones_like(level)
    weight[: len(_OUTER)] = weight.new_tensor(_OUTER)
    weight[-len(_OUTER) :] = weight.new_tensor(_OUTER[::-1])
    cell = (torch.maximum(level * error, (level - 1) * error) * weight).sum(-1) / weight.sum()
    count = seen.sum(1).clamp_min(1)
    size = 1 + (knots.detach().abs().mean(-1) * seen).sum(1) / count
    return 2 * ((cell * seen).sum(1) / count / size).mean()


def normal_scores(
    raw: Raw,
    y: Tensor,
    past: Past,
    seen: Bool[Tensor, "B H"],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Normal scores of values, without gradients.

    Where values are whole numbers or a floor, they are drawn between those of half a unit on both
    sides, as the copula says.
    """
    with torch.no_grad():
        function = QuantileFunction(raw.knots)
        x = function.scores(y).clamp(-_FARTHEST, _FARTHEST)
        half = torch.where(past.whole, 0.5 / past.unit, 0.0).to(y)
        low = torch.where(past.whole, function.scores(y - half), x)
        high = torch.where(past.whole, function.scores(y + half, last=True), x)
        zero = past.lower & (y <= -past.origin + 1e-5 * (1 + past.origin.abs()))
        low = torch.where(zero, -_FARTHEST, low)
        high = torch.where(zero, torch.maximum(x, high), high)
        wide = ((high - low > _WIDE) & seen).any(1).nonzero()[:, 0]
        if len(wide):
            drawn = copula.between(low[wide], high[wide], raw.loadings[wide], seen[wide], generator)
            x[wide] = drawn
        return x
