"""Quasi-Newton descents of many small problems at once, each at its own pace."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.training.deadline import Deadline, Pace

__all__ = ["minimise"]

_SUFFICIENT = 1e-4
_SHORTEST = 1e-6

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Minima(NamedTuple):
    """Where the descents ended.

    Attributes:
        x: Arguments ``(B, P)``.
        value: Values there ``(B,)``.
        gradient: Gradients there ``(B, P)``.
        inverse: Estimates of the inverse Hessians ``(B, P, P)``.
        rounds: Evaluations of each problem ``(B,)``.
        converged: Whether a problem's next step would have gained less than the tolerance.
        path: Sum of the values after each round.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    inverse: Tensor
    rounds: Tensor
    converged: Tensor
    path: list[float]


def minimise(
    evaluate: Evaluate,
    x: Float[Tensor, "B P"],
    inverse: Float[Tensor, "*B P P"],
    *,
    rounds: int,
    tolerance: int | float,
    longest: float = 2.0,
    deadline: Deadline | None = None,
) -> Minima:
    r"""Minimises independent functions of a few variables by BFGS, all of them in one call a round.

    .. math::
        x' = x - t\, B g, \qquad B' = (I - \rho s y^\top) B (I - \rho y s^\top) + \rho s s^\top,
        \quad s = x' - x, \; y = g' - g, \; \rho = 1 / s^\top y

    In each round every problem that is not done is evaluated once: at its next step, or where that
    did not lower the value enough, at a shorter one. A problem is done when the gain that its model
    predicts, :math:`g^\top B g / 2`, is below the tolerance; it is not evaluated again.

    Args:
        evaluate: Function of indices ``(A,)`` and arguments ``(A, P)`` that returns values ``(A,)``
            and gradients ``(A, P)``; what is not finite is turned back from.
        x: Arguments to start from.
        inverse: Inverse Hessians to start from.
        rounds: Most evaluations of a problem.
        tolerance: Gain that is not worth a step.
        longest: Longest step.
        deadline: By when to stop where one is; all are evaluated once.

    Example:
        >>> def square(index, x):
        ...     return (x**2).sum(-1), 2 * x
        >>> found = minimise(square, torch.ones(3, 2), torch.eye(2), rounds=9, tolerance=1e-9)
        >>> bool((found.x.abs() < 1e-3).all())
        True

    References:
        Numerical Optimization (Nocedal & Wright, 2006), chapter 6.
    """
    batch, size = x.shape
    pace = Pace(Deadline() if deadline is None else deadline)
    pace.reaches(batch)
    x, inverse = x.clone(), inverse.expand(batch, size, size).clone()
    value, gradient = evaluate(torch.arange(batch, device=x.device), x)
    finite = value.isfinite() & gradient.isfinite().all(-1)
    path = [value[finite].sum().item()]
    count = torch.ones(batch, dtype=torch.long, device=x.device)
    direction = _direction(inverse, gradient, longest)
    length = torch.ones_like(value)
    converged = -0.5 * (direction * gradient).sum(-1) < tolerance
    active = finite & ~converged
    for _ in range(rounds - 1):
        index = active.nonzero()[:, 0]
        if not len(index) or not pace.reaches(len(index)):
            break
        step = length[index, None] * direction[index]
        new_value, new_gradient = evaluate(index, x[index] + step)
        count[index] += 1
        slope = (gradient[index] * step).sum(-1)
        good = new_value <= value[index] + _SUFFICIENT * slope
        good &= new_gradient.isfinite().all(-1)
        bad = index[~good]
        length[bad] *= _shorter(slope, new_value - value[index])[~good]
        active[bad[length[bad] < _SHORTEST]] = False
        moved, step = index[good], step[good]
        change = new_gradient[good] - gradient[moved]
        x[moved] += step
        value[moved], gradient[moved] = new_value[good], new_gradient[good]
        inverse[moved] = _updated(inverse[moved], step, change)
        direction[moved] = _direction(inverse[moved], gradient[moved], longest)
        length[moved] = 1.0
        done = -0.5 * (direction[moved] * gradient[moved]).sum(-1) < tolerance
        converged[moved] = done
        active[moved[done]] = False
        path.append(value[finite].sum().item())
    return Minima(x, value, gradient, inverse, count, converged, path)


def _direction(inverse: Tensor, gradient: Tensor, longest: float) -> Tensor:
    step = -(inverse @ gradient[..., None])[..., 0]
    return step * (longest / step.norm(dim=-1, keepdim=True).clamp_min(longest))


def _shorter(slope: Float[Tensor, " A"], rise: Float[Tensor, " A"]) -> Float[Tensor, " A"]:
    """Where the parabola through value, slope and the value found is least, within bounds."""
    factor = -0.5 * slope / (rise - slope)
    return torch.where(factor.isfinite(), factor, 0.2).clamp(0.1, 0.5)


def _updated(
    inverse: Float[Tensor, "A P P"], s: Float[Tensor, "A P"], y: Float[Tensor, "A P"]
) -> Float[Tensor, "A P P"]:
    """The inverse Hessian that maps a change of the gradient to the step that made it."""
    curvature = (s * y).sum(-1)
    usable = curvature > 1e-10 * s.norm(dim=-1) * y.norm(dim=-1)
    rho = torch.where(usable, 1 / curvature, 0.0)[:, None, None]
    left = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device) - rho * (
        s[:, :, None] * y[:, None, :]
    )
    return left @ inverse @ left.mT + rho * s[:, :, None] * s[:, None, :]
