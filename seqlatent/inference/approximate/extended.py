"""The iterated extended Kalman filter."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from seqlatent.inference.approximate.filtering import Match, MomentFilter, View, posterior
from seqlatent.inference.approximate.sites import log_normal
from seqlatent.sizes import whole

__all__ = ["Extended"]

_HALVINGS = 40


class Extended(MomentFilter):
    r"""Iterated extended Kalman filter: an emission's mean linearised, its variance taken as given.

    .. math:: y \approx \mu(\hat z) + J (z - \hat z) + N(0, V(\hat z))

    around the point :math:`\hat z` that the update itself leads to. For a family of the exponential
    kind (Poisson, negative binomial, Bernoulli, normal) that is the mode of the step; steps of the
    iteration are halved until they improve. The evidence is Laplace's, step by step.

    For emissions of a linear signal, and for every other one that has a mean and a variance, nets
    included; those are linearised in the whole state. What it infers has no gradient.

    Args:
        iterations: Most points per step; 1 is the classical filter, linearised at the prediction.

    Example:
        >>> from seqlatent import emissions, transitions
        >>> level = transitions.LocalLevel()
        >>> counts = emissions.LinearPoisson(1, loading=level.loading)
        >>> model = seqlatent.LatentModel(level, counts, Extended())
        >>> model.filter(seqlatent.Sequences.of(torch.ones(2, 5, 1))).mean.shape
        torch.Size([2, 5, 1])

    References:
        The Iterated Kalman Filter Update as a Gauss-Newton Method (Bell & Cathey, 1993).
    """

    def __init__(self, iterations: int = 30) -> None:
        super().__init__()
        iterations = whole("iterations", iterations, 1)
        self.iterations = iterations

    def match(self, view: View) -> Match:
        found, _ = linearise(view, self.iterations)
        return scored(view, found)

    def extra_repr(self) -> str:
        return f"{self.iterations}"


def linearise(view: View, iterations: int) -> tuple[Match, Tensor]:
    """The normal observation around the point that it leads to, without its evidence; the point."""
    xi = view.start() if iterations > 1 else view.y.new_zeros(len(view.y), view.size)
    mean, J, variance = slopes(view, xi)
    active = torch.ones_like(mean[:, 0], dtype=torch.bool)
    for i in range(iterations):
        b = mean - (J @ xi[..., None])[..., 0]
        found = Match(J, b, variance.diag_embed(), view.y, mean[:, 0])
        target = posterior(found, view.observed)[0]
        if i + 1 == iterations:
            return found, target
        height = partial(_fit, view, variance)
        xi, active = climb(height, xi, target - xi, active)
        mean, J, variance = slopes(view, xi)
        if not bool(active.any()):
            break
    b = mean - (J @ xi[..., None])[..., 0]
    return Match(J, b, variance.diag_embed(), view.y, mean[:, 0]), xi


def _fit(view: View, noise: Tensor, xi: Tensor) -> Tensor:
    residual = torch.where(view.observed, view.y - view.moments(xi)[0], 0.0)
    return -(residual.square() / noise).sum(-1) / 2 - xi.square().sum(-1) / 2


def climb(
    height: Callable[[Tensor], Tensor], xi: Tensor, move: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """Coordinates ``(B, M)`` after a step that is halved until it does no harm.

    Also whether each series moved far enough for another step to matter.
    """
    eps = torch.finfo(xi.dtype).eps
    value, near = height(xi), 1e3 * eps * (1 + xi.abs())
    allowed, worse = value - 8 * eps * value.abs(), active
    for _ in range(_HALVINGS):
        worse = active & ~(height(xi + move) >= allowed)
        if not bool((worse[:, None] & (move.abs() > near)).any()):
            break
        move = torch.where(worse[:, None], move / 2, move)
    active = active & ~worse
    moved = torch.where(active[:, None], xi + move, xi)
    return moved, active & (move.abs() > near).any(-1)


def slopes(view: View, xi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means ``(B, R)`` of the observations, their Jacobians ``(B, R, M)``, and their variances."""
    with torch.enable_grad():
        free = xi.detach().requires_grad_()
        mean, variance = view.moments(free)
        rows = []
        for column in mean.unbind(-1):
            if column.requires_grad:
                rows.append(torch.autograd.grad(column.sum(), free, retain_graph=True)[0])
            else:
                rows.append(torch.zeros_like(xi))
    return mean.detach(), torch.stack(rows, -2), variance.detach()


def scored(view: View, match: Match) -> Match:
    """Adds the evidence: densities of emission and prior over that of the posterior, at its mean.

    It is exact where the emission is normal, and Laplace's approximation at a mode.
    """
    mean, _, plain = posterior(match, view.observed)
    fitted = (match.A @ mean[..., None])[..., 0] + match.b
    own = log_normal(match.y - fitted, match.V, view.observed)
    return match._replace(log_evidence=plain + view.log_prob(mean) - own)


def objective(view: View, xi: Tensor) -> Tensor:
    """Log density of coordinates and observation, up to a constant."""
    return view.log_prob(xi) - xi.square().sum(-1) / 2
