"""Assumed density filtering with exact moments of one signal."""

import torch
from torch import Tensor

from seqlatent.inference.approximate.extended import climb, objective
from seqlatent.inference.approximate.filtering import Match, MomentFilter, View
from seqlatent.inference.approximate.sites import Approximate
from seqlatent.inference.base import Generative
from seqlatent.sizes import whole

__all__ = ["MomentMatching"]

_ITERATIONS = 30
_PASSES = 3


class MomentMatching(MomentFilter):
    r"""Assumed density filter: after each observation the normal distribution of the exact moments.

    .. math:: E(x \mid y) = \frac1Z \int x\, p(y \mid x)\, N(x; a, s)\, dx

    The state enters an observation by one linear signal x, so the integrals are of one dimension,
    whatever the width of the state: Gauss-Hermite quadrature, its points around the mode first and
    then around the moments that they found. The most accurate of the filters that keep a mean and a
    covariance; what it infers has no gradient.

    Args:
        points: Points of the quadrature.

    Example:
        >>> from seqlatent import emissions, transitions
        >>> level = transitions.LocalLevel()
        >>> counts = emissions.LinearPoisson(1, loading=level.loading)
        >>> model = seqlatent.LatentModel(level, counts, MomentMatching())
        >>> model.filter(seqlatent.Sequences.of(torch.ones(2, 5, 1))).log_evidence.shape
        torch.Size([2, 5])

    References:
        Expectation Propagation for Approximate Bayesian Inference (Minka, 2001), section 2.
        Laplace's Method for Evaluating Integrals, Adaptive (Liu & Pierce, 1994), whose quadrature
        it is.
    """

    def __init__(self, points: int = 20) -> None:
        super().__init__()
        points = whole("points", points, 3)
        self.points = points

    def check_emission(self, model: Generative) -> None:
        Approximate.check_emission(self, model)

    def match(self, view: View) -> Match:
        xi = view.start()
        active = torch.ones_like(view.observed[:, 0])
        for _ in range(_ITERATIONS):
            slope, weight = view.derivatives(xi)
            move = (slope - xi) / (1 + weight.abs())
            xi, active = climb(lambda at: objective(view, at), xi, move, active)
            if not bool(active.any()):
                break
        mean, variance = xi[:, 0], 1 / (1 + view.derivatives(xi)[1][:, 0].abs())
        nodes, weights = gauss_hermite(self.points, view.y)
        evidence = torch.zeros_like(mean)
        tiny = torch.finfo(mean.dtype).tiny
        for _ in range(_PASSES):
            root = variance.clamp_min(tiny).sqrt()
            at = mean + root * nodes[:, None]
            log_weight = view.log_prob(at[..., None]) - at.square() / 2 + root.log()
            log_weight = log_weight + (weights.log() + nodes.square() / 2)[:, None]
            evidence = log_weight.logsumexp(0)
            share = log_weight.softmax(0)
            # moments of the nodes, so that a sharp distribution far from zero keeps its digits
            shift = (share * nodes[:, None]).sum(0)
            spread = (share * (nodes[:, None] - shift).square()).sum(0)
            mean, variance = mean + root * shift, variance * spread
        return _as_observation(view, mean, variance, evidence)

    def extra_repr(self) -> str:
        return f"{self.points}"


def _as_observation(view: View, mean: Tensor, variance: Tensor, evidence: Tensor) -> Match:
    """The normal observation after which a standard normal coordinate has some moments."""
    seen = view.observed[:, 0]
    gain = (1 - variance).clamp_min(4 * torch.finfo(mean.dtype).eps)
    noise = torch.where(seen, variance / gain, 1.0)[:, None, None]
    y = torch.where(seen, mean / gain, 0.0)[:, None]
    return Match(
        torch.ones_like(noise), torch.zeros_like(y), noise, y, torch.where(seen, evidence, 0.0)
    )


def gauss_hermite(points: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights for a standard normal, from the Jacobi matrix of its polynomials."""
    off = torch.arange(1, points, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(off.diag(1) + off.diag(-1))
    return nodes.to(like), vectors[0].square().to(like)
