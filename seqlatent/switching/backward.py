"""Backward simulation of paths of regimes, along which the state is smoothed exactly."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqlatent import kalman
from seqlatent.kalman.aligned import innovation_factor
from seqlatent.sizes import whole
from seqlatent.switching.aligned import AlignedSystem, aligned, collapse, shared
from seqlatent.switching.approximate import Smoothed
from seqlatent.switching.rao_blackwell import Cloud
from seqlatent.switching.system import SwitchingSystem

__all__ = ["Paths", "sample_paths"]


class Paths(NamedTuple):
    """Paths of regimes drawn from the posterior, and the state's distribution along each."""

    regime: Int[Tensor, "*L n T"]
    mean: Float[Tensor, "*L n T K"]
    cov: Float[Tensor, "*L n T K K"]

    def smoothed(self, states: int) -> Smoothed:
        """Distributions of regime and state at each step, over the paths.

        Args:
            states: Number of regimes.
        """
        count = self.regime.shape[-2]
        named = torch.nn.functional.one_hot(self.regime, states).to(self.mean.dtype)
        weights = named.log().transpose(-3, -2)  # axes T, n, S
        mean = self.mean.transpose(-3, -2).unsqueeze(-2)
        cov = self.cov.transpose(-4, -3).unsqueeze(-3)
        mean, cov = collapse(shared(weights, -2), mean, cov)
        return Smoothed((named.sum(-3) / count).log(), mean, cov)


@torch.no_grad()
def sample_paths(
    system: SwitchingSystem,
    y: Tensor,
    observed: Tensor,
    *,
    cloud: Cloud,
    paths: int,
    generator: torch.Generator | None = None,
) -> Paths:
    r"""Draws paths of regimes given everything, from the particles of a filter.

    From the last step to the first, each path chooses among the particles i of a step,

    .. math:: p(i) \propto w_i\, p(s_{t+1} \mid s_t^i) \int N(z; m_i, P_i)\,
        \exp(-\tfrac12 z^\top \Lambda z + \eta^\top z)\, dz

    where the potential is what the observations to come say of the state, in the regimes that the
    path has chosen already. It need not be one of the filter's own paths, of which few are left
    early on. Given the regimes, the state is smoothed exactly. Without gradients.

    Args:
        system: The model.
        y: Observations.
        observed: Which of them count.
        cloud: What :func:`rao_blackwell` returned for the same arguments.
        paths: Number of paths.
        generator: Source of randomness.

    Example:
        >>> one, zero, half = torch.ones(2, 1, 1), torch.zeros(2, 1), torch.full((2,), 0.5).log()
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> noise = torch.tensor([0.01, 25.0]).reshape(2, 1, 1)
        >>> y, seen = torch.tensor([[0.0], [0.1], [9.0]]), torch.ones(3, 1).bool()
        >>> model = (half, stay, one, zero, noise, zero, one, one, zero, 0.1 * one)
        >>> system = seqlatent.switching.SwitchingSystem(*model)
        >>> cloud = seqlatent.switching.rao_blackwell(system, y, seen, particles=8)
        >>> drawn = seqlatent.switching.sample_paths(system, y, seen, cloud=cloud, paths=5)
        >>> drawn.regime[:, -1]
        tensor([1, 1, 1, 1, 1])

    References:
        Rao-Blackwellized Particle Smoothers for Conditionally Linear Gaussian Models (Lindsten,
        Bunch, Särkkä, Schön & Godsill, 2016).
    """
    paths = whole("paths", paths, 1)
    s = aligned(system, y, observed)
    size = s.eye.shape[-1]
    weights = cloud.log_weights[..., -1, :].unsqueeze(-2)
    count = weights.shape[-1]
    index = _drawn(weights.expand(*s.lead, paths, count), generator)
    regime = [cloud.regime[..., -1, :].gather(-1, index)]
    J, h = s.eye.new_zeros(*s.lead, paths, size, size), s.eye.new_zeros(*s.lead, paths, size)
    for t in range(s.steps - 2, -1, -1):
        J, h = _backward(s, t + 1, regime[-1], J, h)
        M = s.M[t + 1].expand(*s.lead, *s.M[t + 1].shape[-2:])
        before = cloud.regime[..., t, :]
        rows = M.gather(-2, before[..., None].expand(*before.shape, M.shape[-1])).mT
        prior = rows.gather(-2, regime[-1][..., None].expand(*regime[-1].shape, count))
        fit = _overlap(s, cloud.mean[..., t, :, :], cloud.cov[..., t, :, :, :], J, h)
        index = _drawn(cloud.log_weights[..., t, :].unsqueeze(-2) + prior + fit, generator)
        regime.append(before.gather(-1, index))
    regime.reverse()
    return _along(s, torch.stack(regime, -1))


def _backward(
    s: AlignedSystem, t: int, regime: Tensor, J: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The potential of the state before a step, from that of the state after it."""
    H, R, F, Q = (_of(s, x[t], regime, 2) for x in (s.H, s.R, s.F, s.Q))
    d, y, b = (_of(s, x[t], regime, 1) for x in (s.d, s.y, s.b))
    L = innovation_factor(R, "covariance R of the observation noise")
    both = torch.linalg.solve_triangular(L, torch.cat([H, (y - d)[..., None]], -1), upper=False)
    white, news = both[..., :-1], both[..., -1:]
    J = J + white.mT @ white
    shift = h[..., None] + white.mT @ news - J @ b[..., None]
    kept = torch.linalg.solve(s.eye + J @ Q, torch.cat([J, shift], -1))
    J = F.mT @ kept[..., :-1] @ F
    return (J + J.mT) / 2, (F.mT @ kept[..., -1:])[..., 0]


def _overlap(s: AlignedSystem, m: Tensor, P: Tensor, J: Tensor, h: Tensor) -> Tensor:
    """Log integral of each particle times each path's potential ``(*L, paths, n)``."""
    m, P, J, h = m.unsqueeze(-3), P.unsqueeze(-4), J.unsqueeze(-3), h.unsqueeze(-2)
    Jm = (J @ m[..., None])[..., 0]
    far = h - Jm
    G = s.eye + P @ J
    moved = torch.linalg.solve(G, (P @ far[..., None]))[..., 0]
    quadratic = (h * m).sum(-1) - 0.5 * (m * Jm).sum(-1) + 0.5 * (far * moved).sum(-1)
    return quadratic - 0.5 * torch.linalg.slogdet(G)[1]


def _of(s: AlignedSystem, x: Tensor, regime: Tensor, event: int) -> Tensor:
    """What a tensor ``(*l, 1, S, ...)`` is in the regimes ``(*L, n)``."""
    tail, states = x.shape[x.dim() - event :], s.first.shape[-1]
    x = x.squeeze(-2 - event).expand(*s.lead, states, *tail)
    index = regime.reshape(*regime.shape, *(1 for _ in tail)).expand(*regime.shape, *tail)
    return x.gather(-1 - event, index)


def _along(s: AlignedSystem, regime: Tensor) -> Paths:
    """The exact smoother along paths ``(*L, n, T)``."""
    now = regime.unbind(-1)

    def path(x: tuple[Tensor, ...], event: int) -> Tensor:
        found = [_of(s, step, r, event) for step, r in zip(x, now, strict=True)]
        return torch.stack(found, -1 - event)

    F, Q, H, R = (path(tuple(x), 2) for x in (s.F, s.Q, s.H, s.R))
    b, d, y = (path(tuple(x), 1) for x in (s.b, s.d, s.y))
    m0, P0 = _of(s, s.m0, now[0], 1), _of(s, s.P0, now[0], 2)
    seen = torch.ones_like(y, dtype=torch.bool)  # what is missing is a phantom already
    system = kalman.LinearGaussianSystem(F, b, Q, m0, P0, H, d, R)
    smoothed = kalman.smoother(system, y, seen)
    return Paths(regime, smoothed.mean, smoothed.cov)


def _drawn(log_weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Indices drawn from the last axis."""
    cdf = log_weights.softmax(-1).cumsum(-1)
    cdf = cdf / cdf[..., -1:]
    device = cdf.device if generator is None else generator.device
    u = torch.rand(cdf.shape[:-1], dtype=cdf.dtype, device=device, generator=generator)
    return torch.searchsorted(cdf, u.to(cdf.device)[..., None], right=True)[..., 0]
