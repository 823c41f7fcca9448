"""What the filters of this folder share: aligned axes, branches of mixtures, their collapse."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.kalman.aligned import align, innovation_factor, symmetric
from seqlatent.linalg import mask_rows
from seqlatent.switching.system import SwitchingSystem, axes

__all__ = ["Filtered", "Mixture", "Start"]

_LOG_2PI = math.log(2 * math.pi)


class Filtered(NamedTuple):
    """Distributions of regime and state given the observations up to each step.

    ``log_prob`` is the logarithm of the probability of each regime; mean and cov are those of the
    state in that regime; ``log_evidence`` is log p(y_t | y_<t) per step.
    """

    log_prob: Float[Tensor, "*L T S"]
    mean: Float[Tensor, "*L T S K"]
    cov: Float[Tensor, "*L T S K K"]
    log_evidence: Float[Tensor, "*L T"]


class Mixture(NamedTuple):
    """A mixture of normal distributions, each in a regime: what is known after a step."""

    log_weights: Float[Tensor, "*L n"]
    regime: Int[Tensor, "*L n"]
    mean: Float[Tensor, "*L n K"]
    cov: Float[Tensor, "*L n K K"]


class Start(NamedTuple):
    """Where an earlier filter stopped, and which series have such a past; others start anew."""

    mixture: Mixture
    started: Bool[Tensor, "*L"]


class Branches(NamedTuple):
    """What each component of a mixture becomes in each regime of the next step."""

    log_weights: Float[Tensor, "*L n S"]
    mean: Float[Tensor, "*L n S K"]
    cov: Float[Tensor, "*L n S K K"]

    def collapsed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weight, mean and covariance of all branches that end in the same regime."""
        shares = shared(self.log_weights, -2)
        mean, cov = collapse(shares, self.mean, self.cov)
        return total(self.log_weights, -2), mean, cov


class AlignedSystem(NamedTuple):
    """Tensors of every step, with all leading axes, of length one where nothing differs.

    Before the axis of regimes is one for the components of a mixture.
    """

    lead: tuple[int, ...]
    steps: int
    first: Float[Tensor, "*l S"]
    m0: Float[Tensor, "*m0 1 S K"]
    P0: Float[Tensor, "*p 1 S K K"]
    eye: Float[Tensor, "K K"]
    M: Sequence[Tensor]  # (*l, S, S)
    F: Sequence[Tensor]  # (*l, 1, S, K, K)
    b: Sequence[Tensor]
    Q: Sequence[Tensor]
    H: Sequence[Tensor]  # (*l, 1, S, D, K)
    d: Sequence[Tensor]
    R: Sequence[Tensor]
    y: Sequence[Tensor]
    constant: Sequence[Tensor]  # (*l, 1, 1)


def aligned(system: SwitchingSystem, y: Tensor, observed: Tensor) -> AlignedSystem:
    """Aligns the axes of a system and its data; masks the rows of what was not observed.

    Raises:
        ValueError: If numbers of dimensions differ, or axes do not broadcast.
    """
    named = system.observing(y, observed)
    lead, steps = axes(named)
    tensors = {name: align(x, lead, event) for name, (x, event) in named.items()}
    spread, F = _by_step(tensors, steps), system.F
    return AlignedSystem(
        lead,
        steps,
        first=tensors["log_initial"][0],
        m0=tensors["m0"][0].unsqueeze(-3),
        P0=tensors["P0"][0].unsqueeze(-4),
        eye=torch.eye(F.shape[-1], dtype=F.dtype, device=F.device),
        **{name: x.unbind() if len(x) > 1 else (x[0],) * steps for name, x in spread.items()},
    )


def _by_step(aligned: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Tensors of steps with an axis of components; rows of what was not observed are masked."""
    seen = aligned["observed"]
    count = seen.sum(-1).to(aligned["F"].dtype).expand(steps, *seen.shape[1:-1])
    constant = count * (0.5 * _LOG_2PI)
    seen, y = seen.unsqueeze(-2), aligned["y"].unsqueeze(-2)
    H, d, R = aligned["H"], aligned["d"], aligned["R"]
    if not bool(seen.all()):
        H, d, R, y = mask_rows(H, d, R, y, seen)
    vectors = {"b": aligned["b"], "d": d, "y": y}
    matrices = {"F": aligned["F"], "Q": aligned["Q"], "H": H, "R": R}
    return {
        "M": aligned["log_transition"],
        "constant": constant[..., None, None],
        **{name: x.unsqueeze(-3) for name, x in vectors.items()},
        **{name: x.unsqueeze(-4) for name, x in matrices.items()},
    }


Propose = Callable[[AlignedSystem, int, Mixture], Branches]
Reduce = Callable[[Branches, tuple[Tensor, Tensor, Tensor]], Mixture]


def run(
    s: AlignedSystem, propose: Propose, reduce: Reduce, start: Start | None
) -> tuple[Filtered, list[Mixture]]:
    """The loop of every filter: propose branches, weigh them by the observation, reduce them.

    Args:
        s: The model.
        propose: Branches of a mixture at a step, before its observation.
        reduce: What to go on with, from weighed branches, and those collapsed.
        start: The state before the first step.
    """
    record, mixtures = [], []
    for t in range(s.steps):
        branches = _opening(s, propose, start) if t == 0 else propose(s, t, mixtures[-1])
        branches, evidence = _weighed(s, t, branches)
        moments = branches.collapsed()
        record.append((*moments, evidence))
        mixtures.append(reduce(branches, moments))
    log_prob, mean, cov, evidence = (torch.stack(x) for x in zip(*record, strict=True))
    filtered = Filtered(
        log_prob.movedim(0, -2), mean.movedim(0, -3), cov.movedim(0, -4), evidence.movedim(0, -1)
    )
    return filtered, mixtures


def _opening(s: AlignedSystem, propose: Propose, start: Start | None) -> Branches:
    size = s.first.shape[-1]
    first = s.first.unsqueeze(-2).expand(*s.lead, 1, size)
    m0 = s.m0.expand(*s.lead, 1, *s.m0.shape[-2:])
    fresh = Branches(first, m0, s.P0.expand(*m0.shape, m0.shape[-1]))
    if start is None or not bool(start.started.any()):
        return fresh
    moved = propose(s, 0, start.mixture)
    started = start.started.expand(s.lead)[..., None, None]
    # a series without a past starts every branch alike
    alike = fresh.log_weights - math.log(moved.mean.shape[-3])
    return Branches(
        torch.where(started, moved.log_weights, alike),
        torch.where(started[..., None], moved.mean, fresh.mean),
        torch.where(started[..., None, None], moved.cov, fresh.cov),
    )


def rows(s: AlignedSystem, t: int, mixture: Mixture) -> Tensor:
    """Log weights of each component in each regime of the next step ``(*L, n, S)``."""
    M = s.M[t].expand(*s.lead, *s.M[t].shape[-2:])
    index = mixture.regime[..., None].expand(*mixture.regime.shape, M.shape[-1])
    return mixture.log_weights[..., None] + M.gather(-2, index)


def predicted(
    s: AlignedSystem, t: int, mean: Float[Tensor, "*x K"], cov: Float[Tensor, "*x K K"]
) -> tuple[Tensor, Tensor]:
    """Moments ``(*L, n, S, K)`` that lead to the next ones, from ``(*L, n or 1, S or 1, K)``."""
    F = s.F[t]
    mean = (F @ mean[..., None])[..., 0] + s.b[t]
    return mean, symmetric(F @ cov @ F.mT + s.Q[t])


def collapse(
    shares: Float[Tensor, "*x n S"], mean: Float[Tensor, "*y n _s K"], cov: Tensor
) -> tuple[Float[Tensor, "*z S K"], Float[Tensor, "*z S K K"]]:
    """Moments of mixtures over the axis ``n`` of normal distributions."""
    centre = (shares[..., None] * mean).sum(-3)
    far = mean - centre.unsqueeze(-3)
    spread = cov + far[..., :, None] * far[..., None, :]
    return centre, symmetric((shares[..., None, None] * spread).sum(-4))


def shared(x: Tensor, dim: int) -> Tensor:
    """Softmax, equal where all are impossible."""
    return x.clamp_min(torch.finfo(x.dtype).min / 4).softmax(dim)


def total(x: Tensor, dim: int) -> Tensor:
    """Logarithm of a sum of exponentials, whose gradient is zero where all are impossible."""
    peak = x.detach().amax(dim, keepdim=True)
    possible = peak > -torch.inf
    x = torch.where(possible, x, 0.0).logsumexp(dim)
    return torch.where(possible.squeeze(dim), x, -torch.inf)


def _weighed(s: AlignedSystem, t: int, branches: Branches) -> tuple[Branches, Tensor]:
    """Branches given the observation of a step, and its log evidence."""
    H, R, m, P = s.H[t], s.R[t], branches.mean, branches.cov
    residual = s.y[t] - s.d[t] - (H @ m[..., None])[..., 0]
    PH = P @ H.mT
    V = H @ PH + R
    L = innovation_factor(V, "innovation covariance H P H^T + R")
    if V.shape[-1] == 1:
        gain, white, log_det = PH / V, residual.square() / V[..., 0], V[..., 0].log()
    else:
        gain = torch.cholesky_solve(PH.mT, L).mT
        white = torch.linalg.solve_triangular(L, residual[..., None], upper=False)[..., 0].square()
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log()
    density = -0.5 * (white + log_det).sum(-1) - s.constant[t]
    # densities may be so small that a weight beside one would have no digit left
    possible = branches.log_weights.detach() > -torch.inf
    peak = torch.where(possible, density.detach(), -torch.inf).amax((-2, -1), keepdim=True)
    weights = branches.log_weights + (density - peak)
    evidence = weights.flatten(-2).logsumexp(-1) + peak[..., 0, 0]
    weights = weights.flatten(-2).log_softmax(-1).unflatten(-1, weights.shape[-2:])
    keep = s.eye - gain @ H
    cov = symmetric(keep @ P @ keep.mT + gain @ R @ gain.mT)
    mean = m + (gain @ residual[..., None])[..., 0]
    return Branches(weights, mean, cov.expand(*weights.shape, *cov.shape[-2:])), evidence
