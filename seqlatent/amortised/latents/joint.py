"""How latents of several steps go together: a copula of few factors and of what stays."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.recurrence import linear_recurrence

__all__ = ["FACTORS", "Joint", "pair_density", "sample"]

FACTORS = 6  # that all steps and quantities share
_MOST = 49.0  # bound of the squared size of loadings


class Joint(NamedTuple):
    r"""Normal scores of quantities over time.

    .. math:: x_{jt} = \lambda_{jt}^T f + \sqrt{1 - |\lambda_{jt}|^2}\, e_{jt}, \qquad
        e_{jt} = \rho_{jt} e_{j, t - l_j} + \sqrt{1 - \rho_{jt}^2}\, \varepsilon_{jt}

    with factors f that all share, and a lag l of one step, or of a season for what comes back with
    it.

    Attributes:
        loadings: ``(B, Q, J, R)``, of a squared size below one.
        memory: Minus the logarithm of :math:`\rho` ``(B, Q, J)``.
    """

    loadings: Float[Tensor, "B Q J R"]
    memory: Float[Tensor, "B Q J"]

    @classmethod
    def of(cls, raw: Float[Tensor, "B Q J N"]) -> "Joint":
        """From numbers of any size, R + 1 of each quantity."""
        v, rate = raw[..., :-1], raw[..., -1]
        size = v.square().sum(-1, keepdim=True)
        v = v * torch.rsqrt(1 + size / _MOST)
        return cls(
            v * torch.rsqrt(1 + v.square().sum(-1, keepdim=True)),
            0.5 * (rate + (rate.square() + 4).sqrt()),
        )

    @property
    def own(self) -> Float[Tensor, "B Q J"]:
        """Part of the deviation that is no factor's."""
        return (1 - self.loadings.square().sum(-1)).clamp_min(1e-6).sqrt()


def pair_density(
    joint: Joint,
    other: Joint,
    x: Float[Tensor, "B Q J"],
    y: Float[Tensor, "B Q J"],
    apart: Int[Tensor, "B Q"],
    lags: Int[Tensor, " J"],
    counts: Bool[Tensor, "B Q J J"],
) -> Tensor:
    """Mean log density of pairs of scores beside that of independent ones.

    Args:
        joint: At some steps.
        other: At others.
        x: Normal scores there.
        y: And there.
        apart: Steps between them.
        lags: Steps after which each quantity comes back.
        counts: Which pairs count.

    References:
        An Overview of Composite Likelihood Methods (Varin, Reid and Firth, 2011).
    """
    r = torch.einsum("bqjr,bqkr->bqjk", joint.loadings, other.loadings)
    times = apart[..., None] / lags
    back = (apart[..., None] % lags == 0) * torch.exp(-times * (joint.memory + other.memory) / 2)
    r = r + torch.diag_embed(joint.own * other.own * back)
    r = r.clamp(-0.995, 0.995)
    left = 1 - r.square()
    a, b = x[..., :, None], y[..., None, :]
    square = r.square() * (a.square() + b.square()) - 2 * r * a * b
    density = -0.5 * (left.log() + square / left)
    return (density * counts).sum() / counts.sum().clamp_min(1)


@torch.no_grad()
def sample(
    joint: Joint, lags: tuple[int, ...], n: int, generator: torch.Generator | None = None
) -> Float[Tensor, "S B Q J"]:
    """Normal scores of joint draws at consecutive steps."""
    b, steps, _, r = joint.loadings.shape
    kind = {"dtype": joint.memory.dtype, "device": joint.memory.device, "generator": generator}
    factors = torch.randn(n, b, 1, 1, r, **kind)
    found = (joint.loadings * factors).sum(-1)
    rho = torch.exp(-joint.memory)
    for i, lag in enumerate(lags):
        noise = torch.randn(n, b, steps, **kind) * (1 - rho[..., i].square()).sqrt()
        pad = -steps % lag
        rounds = math.ceil(steps / lag)
        a = torch.nn.functional.pad(rho[..., i], (0, pad)).view(b, rounds, lag)
        e = torch.nn.functional.pad(noise, (0, pad)).view(n, b, rounds, lag)
        first = torch.randn(n, b, lag, **kind)
        path = linear_recurrence(a, e, first).view(n, b, -1)[..., :steps]
        found[..., i] += joint.own[..., i] * path
    return found
