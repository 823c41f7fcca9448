"""Shares of specifications and widths, from held-out blocks or by a criterion."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.mixtures import crps_products, log_densities, ranks

__all__ = ["CRITERIA"]

CRITERIA = ("heldout", "aic", "bic", "equal")

_SHRINKAGE = 0.1  # of the CRPS, for a weight that departs from the equal one
_FEW = 20  # series that say as much of the weights as the wish for equal ones
_MOST = 0.9  # largest logarithm of a factor of the widths, both ways


class Block(NamedTuple):
    """Forecasts of what was hidden from the specifications, and what it was.

    Args:
        y: Values ``(B, H)``, NaN where there are none.
        mean: Means of the draws of each specification ``(F, D, B, H)``, of logarithms where it has
            them.
        variance: Variances.
        scale: Usual size of a difference of each series ``(B,)``.
    """

    y: Tensor
    mean: Tensor
    variance: Tensor
    scale: Tensor


class Heldout(NamedTuple):
    """What hidden blocks say of specifications; the CRPS of a mixture is quadratic in its weights.

    Args:
        A: Products ``(F, F)``; see :func:`crps_products`.
        b: Products ``(F,)``.
        c: Products ``()``.
        crps: CRPS of each specification alone ``(F,)``, in usual seasonal differences.
        log_score: Mean negative log density of each specification ``(F,)``, in these units.
        best: Part of the series and blocks for which each specification had the least CRPS
            ``(F,)``.
        cells: Values that were hidden.
    """

    A: Tensor
    b: Tensor
    c: Tensor
    crps: Tensor
    log_score: Tensor
    best: Tensor
    cells: int

    def of(self, weights: Tensor) -> Tensor:
        """The CRPS of a mixture."""
        return weights @ self.A @ weights - 2 * weights @ self.b + self.c


def by_heldout(blocks: Sequence[Block], log: Sequence[bool]) -> tuple[Tensor, Heldout | None]:
    r"""Shares ``(F,)`` with which forecasts of hidden blocks would have had the least CRPS.

    .. math::
        \min_w \frac{\text{CRPS}(w)}{\text{CRPS}(1/F)}
            + \lambda \Big(1 + \frac{n_0}{B}\Big) \sum_i w_i \log (F w_i)

    Each series counts in units of its usual seasonal difference. Shares are drawn towards equal
    ones, the more so the fewer series there are: which specification was best in one block of time
    says less of the next one than the number of values suggests, for a panel's series are shocked
    together.

    Args:
        blocks: Forecasts of hidden blocks.
        log: Whether a specification describes logarithms.
    """
    size = len(log)
    equal = torch.full((size,), 1 / size, dtype=torch.float64)
    parts = [found for block in blocks if (found := _heldout(block, log)) is not None]
    if not parts:
        return equal, None
    mean = Heldout(
        *(
            torch.stack([getattr(part, name) for part in parts]).mean(0)
            for name in ("A", "b", "c", "crps", "log_score", "best")
        ),
        cells=sum(part.cells for part in parts),
    )
    if size == 1:
        return equal, mean
    equal = equal.to(mean.A)
    norms = [p.of(equal) for p in parts]
    pull = _SHRINKAGE * (1 + _FEW / _counted(blocks))
    logits = torch.zeros_like(equal, requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        descent.zero_grad()
        weights = logits.softmax(0)
        loss = sum(p.of(weights) / norm for p, norm in zip(parts, norms, strict=True)) / len(parts)
        value = loss + pull * (weights * (size * weights).log()).sum()
        value.backward()
        return value

    with torch.enable_grad():
        descent.step(objective)
    return logits.detach().softmax(0), mean


def _heldout(block: Block, log: Sequence[bool]) -> Heldout | None:
    seen = ~block.y.isnan()
    if not bool(seen.any()):
        return None
    y, mean, variance = block.y[seen], block.mean[..., seen], block.variance[..., seen]
    scale = block.scale[:, None].expand_as(block.y)[seen]
    owner = torch.arange(len(seen), device=seen.device)[:, None].expand_as(block.y)[seen]
    A, b, c = crps_products(y, mean, variance, log)
    each = A.diagonal(dim1=0, dim2=1).mT - 2 * b + c
    flat = mean.transpose(0, 1).flatten(0, 1), variance.transpose(0, 1).flatten(0, 1)
    density = log_densities(y, flat[0], flat[1], [*log] * mean.shape[1])
    density = density.unflatten(0, (mean.shape[1], -1)).logsumexp(0) - math.log(mean.shape[1])
    # a series whose past hardly moved must not outweigh all others
    typical = each.median(0).values
    scale = torch.maximum(scale, typical / 10)
    series = each.new_zeros(len(log), len(seen)).index_add(1, owner, each / scale)
    counted = seen.any(1)
    best = torch.nn.functional.one_hot(series[:, counted].argmin(0), len(log)).double().mean(0)
    return Heldout(
        (A / scale).mean(-1),
        (b / scale).mean(-1),
        (c / scale).mean(-1),
        (each / scale).mean(-1),
        -(density + scale.log()).mean(-1),
        best,
        int(seen.sum()),
    )


def by_information(
    evidence: Tensor, size: Sequence[int], count: Tensor, criterion: str
) -> tuple[Tensor, Tensor]:
    r"""Shares of each series ``(B, F)`` by an information criterion, and its sums ``(F,)``.

    .. math:: w_{bi} \propto e^{-\text{IC}_{bi} / 2}, \qquad
        \text{AIC} = 2 k_i - 2 \log p_i(y_b), \quad \text{BIC} = k_i \log T_b - 2 \log p_i(y_b)

    Args:
        evidence: Log evidence of the values of each series under each specification ``(B, F)``.
        size: Parameters of each specification.
        count: Values of each series ``(B,)``.
        criterion: ``"aic"`` or ``"bic"``.

    References:
        Model Selection and Multimodel Inference (Burnham & Anderson, 2002), section 2.9.
    """
    each = torch.tensor(size, dtype=evidence.dtype, device=evidence.device)
    price = 2.0 if criterion == "aic" else count.clamp_min(1).to(evidence).log()[:, None]
    value = price * each - 2 * evidence
    return (-0.5 * value).softmax(-1), value.sum(0)


def information_of(
    evidence: Tensor, size: Sequence[int], y: Tensor, log: Sequence[bool], criterion: str
) -> tuple[Tensor, Tensor]:
    """Shares of each series ``(B, F)``, and the sum of the criterion over series ``(F,)``.

    Args:
        evidence: Log evidence of each series under each specification ``(B, F)``, of logarithms
            where it describes them.
        size: Parameters of each specification.
        y: Values ``(B, T)``.
        log: Whether a specification describes logarithms.
        criterion: ``"aic"`` or ``"bic"``.
    """
    # the evidence of the values, also of specifications that describe their logarithms
    jacobian = y.clamp_min(torch.finfo(y.dtype).tiny).log().nansum(1)
    shift = torch.stack([jacobian if x else torch.zeros_like(jacobian) for x in log], 1)
    return by_information(evidence - shift, size, (~y.isnan()).sum(1), criterion)


def without(weights: Tensor, tells: Tensor) -> Tensor:
    """Shares ``(B, F)`` without those of specifications that tell nothing, where others do."""
    left = weights * tells
    total = left.sum(1, keepdim=True)
    return torch.where(total > 0, left / total, weights)


def calibration_factor(blocks: Sequence[Block], log: Sequence[bool], weights: Tensor) -> float:
    """The factor of all standard deviations with which 80 % intervals cover 80 % of the blocks.

    Args:
        blocks: Forecasts of hidden blocks.
        log: Whether a specification describes logarithms.
        weights: Shares of the specifications of each series ``(B, F)``.
    """
    if not (count := _counted(blocks)):
        return 1.0
    draws = blocks[0].mean.shape[1]
    draw_weights = (weights.mT / draws).repeat_interleave(draws, 0)
    each = [x for x in log for _ in range(draws)]
    distributions = [(b.mean.flatten(0, 1), b.variance.flatten(0, 1)) for b in blocks]
    low, high = -_MOST, _MOST
    for _ in range(20):  # coverage grows with the factor
        middle = (low + high) / 2
        factor = math.exp(2 * middle)
        inside = [
            ((ranks(b.y, m, v * factor, each, draw_weights) - 0.5).abs() <= 0.4)[~b.y.isnan()]
            for b, (m, v) in zip(blocks, distributions, strict=True)
        ]
        enough = bool(torch.cat(inside).double().mean() >= 0.8)
        low, high = (low, middle) if enough else (middle, high)
    # what few series ask for is mostly chance
    return math.exp((low + high) / 2 * count / (count + 10))


def _counted(blocks: Sequence[Block]) -> float:
    """How many series the blocks speak of, two blocks one after the other as one."""
    return sum(int((~b.y.isnan()).any(1).sum()) for b in blocks) / 2
