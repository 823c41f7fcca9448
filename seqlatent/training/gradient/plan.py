"""How a fit goes: its optimizer, steps and schedule, as asked for or as suits the model."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqlatent.training.gradient.settings import quick, trainable

__all__ = ["cosine", "lbfgs"]


def cosine(steps: int, *, warmup: int | None = None) -> Callable[[int], float]:
    r"""Learning-rate factor that rises linearly and then falls to zero as half a cosine.

    .. math:: \min\Big(\frac{i + 1}{w}, 1\Big) \cdot
        \frac12 \Big(1 + \cos \pi \frac{\max(i - w, 0)}{n - w}\Big)

    Args:
        steps: Number of steps ``n``.
        warmup: Steps ``w`` of the rise; by default a twentieth of the steps, 100 at most.

    Example:
        >>> factor = cosine(100, warmup=10)
        >>> [round(factor(i), 3) for i in (0, 4, 9, 55, 99)]
        [0.1, 0.5, 1.0, 0.5, 0.0]

    References:
        SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov & Hutter, 2017).
    """
    rise = min(100, steps // 20) if warmup is None else warmup
    if not 0 <= rise < steps:
        raise ValueError(f"warmup must lie between 0 and steps - 1 = {steps - 1}, found {rise}.")

    def factor(step: int) -> float:
        up = min((step + 1) / rise, 1.0) if rise else 1.0
        return up * 0.5 * (1 + math.cos(math.pi * max(step - rise, 0) / (steps - rise)))

    return factor


def lbfgs(
    *, lr: int | float = 1.0, iterations: int = 20, history: int = 20, tolerance: int | float = 1e-9
) -> Callable[[Iterable[Tensor]], torch.optim.LBFGS]:
    """L-BFGS with a strong Wolfe line search, as ``optimizer`` of :func:`fit`.

    The quickest way to the maximum likelihood of a small model with an exact evidence.

    Args:
        lr: First length that the line search tries.
        iterations: Iterations in each step of ``fit``.
        history: Iterations whose curvature is remembered.
        tolerance: Change of the objective per observed cell below which training ends, once there
            is nothing to gain in the metric of the curvature.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> from seqlatent.objectives import evidence
        >>> from seqlatent.zoo import structural
        >>> model = structural()
        >>> data = Sequences.of(torch.randn(2, 50, 1).cumsum(1))
        >>> seqlatent.fit(model, data, evidence, optimizer=lbfgs(), steps=50).stopped
        'converged'

    References:
        On the Limited Memory BFGS Method for Large Scale Optimization (Liu & Nocedal, 1989).
    """
    return partial(
        torch.optim.LBFGS,
        lr=lr,
        max_iter=iterations,
        history_size=history,
        tolerance_grad=0.0,  # which would depend on the units of the parameters
        tolerance_change=tolerance,
        line_search_fn="strong_wolfe",
    )


class Plan(NamedTuple):
    """Optimizer, steps and schedule of a fit.

    Attributes:
        optimizer: Function of parameters that returns an optimizer.
        steps: Number of updates.
        schedule: Factor of the learning rate at each step.
        full: Whether every step reads all data.
        searched: Whether starts are looked for too.
    """

    optimizer: Callable[[Iterable[Tensor]], Any]
    steps: int
    schedule: Callable[[int], Any] | None
    full: bool
    searched: bool


def planned(
    model: nn.Module,
    objective: Any,
    steps: int | None,
    optimizer: Any,
    schedule: Callable[[int], Any] | None,
    *,
    small: bool,
) -> Plan:
    """The plan of a fit.

    Args:
        model: The model.
        objective: What is maximised.
        steps: As asked for, None if not.
        optimizer: As asked for, None if not.
        schedule: As asked for; :func:`cosine` itself stands for the default.
        small: Whether something else was asked for that means small steps on batches.
    """
    searched = optimizer is None and not small and schedule is cosine and quick(model, objective)
    if optimizer is None:
        optimizer = lbfgs() if searched else partial(torch.optim.AdamW, lr=2e-3)
    full = isinstance(optimizer(trainable(model)), torch.optim.LBFGS)
    steps = (100 if full else 1000) if steps is None else steps
    if schedule is cosine:
        schedule = None if full else cosine(steps)
    return Plan(optimizer, steps, schedule, full, searched)
