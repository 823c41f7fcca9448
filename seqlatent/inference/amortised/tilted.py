"""Tilted: the model's own transition, corrected by a learned Gaussian potential."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from seqlatent.chain import (
    ConditionallyLinear,
    Correction,
    DiagonalLinear,
    FusedSteps,
    Kernel,
)
from seqlatent.distributions import (
    Carried,
    FactorNormal,
    diagonal_normal,
    require_proper,
)
from seqlatent.fused import FusedSampler, by_step, views_by_step
from seqlatent.inference.amortised.posterior import Posterior, require_width
from seqlatent.networks import MLP
from seqlatent.sequences import Context
from seqlatent.transitions.steps import GatedSteps

__all__ = ["Tilted"]


class TiltedSampler(FusedSampler):
    """Normal steps, each tilted by a normal potential; parameters are those before and after.

    Args:
        prior: Steps that are tilted.
        m: Means of the potentials ``(T, N, K)``.
        w: Their precisions.
    """

    def __init__(self, prior: GatedSteps, m: Tensor, w: Tensor) -> None:
        self.prior = prior
        self.inputs = m, w, *prior.inputs

    def begin(self, steps: int, rows: int) -> None:
        self.prior.begin(steps, rows)
        self.m, self.w = (x.detach() for x in self.inputs[:2])
        buffers = self.m.new_empty(4, *self.m.shape).unbind(0)
        self.kept, self.root, self.loc, self.scale = buffers
        self.views = views_by_step(self.m, self.w, *buffers)

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        loc, scale = self.prior.moments(t, state)
        m, w, kept, root, q_loc, q_scale = self.views[t]
        torch.reciprocal((w * scale).mul_(scale).add_(1.0), out=kept)
        torch.sqrt(kept, out=root)
        torch.addcmul(loc, 1 - kept, m - loc, out=q_loc)
        torch.mul(scale, root, out=q_scale)
        torch.addcmul(q_loc, q_scale, eps, out=out)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.prior.loc, self.prior.scale, self.loc, self.scale

    def linearise(self, states: Tensor, eps: Tensor, parameters: tuple[Tensor, ...]) -> None:
        self.prior.linearise(states)
        loc, scale, self.q_loc, self.q_scale = parameters
        self.eps, self.away = eps, self.m - self.prior.loc
        shrink = self.kept * self.root  # slope of the tilted scale in the scale
        bend = (2 * self.w * self.prior.scale * self.away).mul_(self.kept).mul_(self.kept)
        to_loc = torch.addcmul(loc, self.q_loc, self.kept)
        to_scale = torch.addcmul(scale, self.q_loc, bend).addcmul_(self.q_scale, shrink)
        self.d_loc, self.d_scale = torch.empty_like(loc), torch.empty_like(loc)
        slopes = to_loc, self.kept, to_scale, torch.addcmul(bend, eps, shrink)
        self.slopes = views_by_step(*slopes, self.d_loc, self.d_scale)

    def back(self, t: int, grad: Tensor) -> Tensor:
        to_loc, kept, to_scale, slope, d_loc, d_scale = self.slopes[t]
        torch.addcmul(to_loc, grad, kept, out=d_loc)
        torch.addcmul(to_scale, grad, slope, out=d_scale)
        return self.prior.back(t, d_loc, d_scale)

    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        q_loc = adjoints + self.q_loc
        q_scale = torch.addcmul(self.q_scale, adjoints, self.eps)
        scale = self.prior.scale
        tight = (scale * self.kept).square()
        d_w = (q_loc * self.away - 0.5 * q_scale * scale / self.root) * tight
        return q_loc * (1 - self.kept), d_w, *self.prior.gradients(self.d_loc)


class Tilted(Posterior):
    r"""The model's own transition, corrected by a learned Gaussian potential.

    .. math:: q(z_t \mid z_{t-1}) \propto p(z_t \mid z_{t-1})\, N(z_t; m(e_t), 1 / w(e_t))

    Zero weight gives the prior exactly, so steps of which the data say nothing cost nothing, and
    training starts from the model's own dynamics. With a transition that is linear the tilt is
    linear, hence sampled without a loop. The exact posterior of a linear Gaussian model whose
    messages are diagonal is in the family.

    Args:
        feature_dim: Width ``E`` of the encoder's features.
        latent_dim: Random latent dimensions.
        hidden: Widths of the layers between features and potential.
        weight: Initial weight relative to a unit variance; small weights start near the prior.

    Example:
        >>> walk, c = seqlatent.transitions.LocalLevel(), Context.regular(3, 5)
        >>> posterior = Tilted(feature_dim=8, latent_dim=1)
        >>> c = c.replace(e=posterior.statistics(torch.zeros(3, 5, 8)))
        >>> posterior.kernel(walk, c)(torch.zeros(3, 1), c[1]).event_shape
        torch.Size([1])

    References:
        Composing graphical models with neural networks (Johnson et al., 2016).
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017).
    """

    def __init__(
        self,
        feature_dim: int,
        latent_dim: int,
        *,
        hidden: tuple[int, ...] = (),
        weight: int | float = 0.1,
    ) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(
                f"weight must be positive, found {weight}; the default 0.1 starts near the prior."
            )
        self.latent_dim = latent_dim
        self.head = MLP(feature_dim, hidden, 2 * latent_dim)
        self.offset = torch.tensor(weight).expm1().log().item()

    def statistics(self, features: Tensor) -> Tensor:
        m, w = self.head(features).chunk(2, -1)
        return torch.cat([m, nn.functional.softplus(w + self.offset)], -1)

    def kernel(self, transition: Kernel, c: Context) -> Correction:
        require_width(self, transition, c)
        if isinstance(transition, DiagonalLinear):
            return _AffineTilt(transition)
        if isinstance(transition, ConditionallyLinear):
            return _LinearTilt(transition)
        return TiltedKernel(transition)


def _potential(c: Context) -> tuple[Tensor, Tensor]:
    m, w = c.e.chunk(2, -1)
    return m, w * c.informed


def tilt(distribution: Distribution, m: Tensor, w: Tensor) -> Distribution:
    r"""The distribution proportional to a normal one, carried or not, times :math:`N(z; m, 1/w)`.

    Raises:
        TypeError: If the distribution is not normal.
    """
    if isinstance(distribution, Carried):
        return (
            distribution
            if distribution.base is None
            else Carried(tilt(distribution.base, m, w), distribution.carry)
        )
    if isinstance(distribution, FactorNormal):
        A, offset, factor = _tilt_factor(distribution.factor, m, w)
        return FactorNormal((A @ distribution.loc[..., None])[..., 0] + offset, factor)
    if isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal):
        loc, scale = distribution.base_dist.loc, distribution.base_dist.scale
        gain = w * scale.square()
        kept = 1 / (1 + gain)
        return diagonal_normal(loc + gain * kept * (m - loc), scale * kept.sqrt())
    raise TypeError(
        "Tilted needs a transition whose conditionals are normal, found "
        f"{type(distribution).__name__}; use Combiner or Particles."
    )


def _tilt_factor(G: Tensor, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``A, b`` and a factor of the tilt of N(mu, G G'), whose mean is ``A mu + b``."""
    weighted = G * w[..., None]
    M = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device) + G.mT @ weighted
    L = torch.linalg.cholesky(M)
    gain = G @ torch.cholesky_solve(weighted.mT.expand(*L.shape[:-1], -1), L)
    A = torch.eye(G.shape[-2], dtype=G.dtype, device=G.device) - gain
    factor = torch.linalg.solve_triangular(L, G.mT.expand(*L.shape[:-1], -1), upper=False).mT
    return A, (gain @ m[..., None])[..., 0], factor


class TiltedKernel(Correction):
    """Conditionals of the tilted chain."""

    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        assert p is not None
        return tilt(p, *_potential(c))

    def fused_sampler(self, c: Context, samples: int) -> TiltedSampler | None:
        if not isinstance(self.transition, FusedSteps) or not self.transition.steps_follow_forward:
            return None
        prior = self.transition.steps(c, samples)
        if not isinstance(prior, GatedSteps):
            return None
        m, w = _potential(c)
        return TiltedSampler(prior, by_step(m, samples), by_step(w, samples))

    def along(self, z: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Distribution, Distribution]:
        return diagonal_normal(*parameters[:2]), diagonal_normal(*parameters[2:])


class _AffineTilt(TiltedKernel, DiagonalLinear):
    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        assert isinstance(self.transition, DiagonalLinear)
        loc, scale = self.transition.initial_affine(c)
        m, w = _potential(c)
        gain = w * scale.square()
        return (loc + gain * m) / (1 + gain), scale / (1 + gain).sqrt()

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.transition, DiagonalLinear)
        a, b, scale = self.transition.affine(c)
        m, w = _potential(c)
        gain = w * scale.square()
        return a / (1 + gain), (b + gain * m) / (1 + gain), scale / (1 + gain).sqrt()


class _LinearTilt(TiltedKernel, ConditionallyLinear):
    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        assert isinstance(self.transition, ConditionallyLinear)
        loc, G = self.transition.initial_moments(c)
        require_proper(G)
        A, offset, factor = _tilt_factor(G, *_potential(c))
        return (A @ loc[..., None])[..., 0] + offset, factor

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.transition, ConditionallyLinear)
        F, b, G = self.transition.matrices(c)
        A, offset, factor = _tilt_factor(G, *_potential(c))
        return A @ F, (A @ b[..., None])[..., 0] + offset, factor
