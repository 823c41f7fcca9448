"""Combiner: a small network joins the last state and the encoder's features."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from seqlatent.chain import (
    Correction,
    FusedSteps,
    Kernel,
)
from seqlatent.distributions import (
    Carried,
    diagonal_normal,
)
from seqlatent.fused import FusedSampler, by_step, outer, views_by_step
from seqlatent.inference.amortised.posterior import (
    FLOOR,
    Posterior,
    choose,
    conditional,
    require_diagonal,
    require_width,
)
from seqlatent.sequences import Context
from seqlatent.transitions.steps import CarriedSteps

__all__ = ["Combiner"]


class CombinerSampler(FusedSampler):
    """Steps whose distribution a small network reads off the last state; parameters are these.

    Args:
        known: What bias and features add to mean and scale ``(T, N, 2 K)``.
        into: Weight from state to hidden layer ``(H, K)``.
        bias: Bias of the hidden layer.
        out: Weight from hidden layer to mean and scale ``(2 K, H)``.
        floor: Least standard deviation.
    """

    def __init__(
        self, known: Tensor, into: Tensor, bias: Tensor, out: Tensor, floor: float
    ) -> None:
        self.inputs = known, into, bias, out
        self.floor = floor

    def begin(self, steps: int, rows: int) -> None:
        known, self.into, self.bias, self.out = (x.detach() for x in self.inputs)
        self.h = known.new_empty(steps, rows, len(self.into))
        self.o = known.new_empty(steps, rows, len(self.out))
        self.loc, self.scale = known.new_empty(2, steps, rows, len(self.out) // 2).unbind(0)
        self.views = views_by_step(
            known, self.h, self.o, *self.o.chunk(2, -1), self.loc, self.scale
        )

    def moments(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
        known, h, o, mean, raw, loc, scale = self.views[t]
        torch.addmm(self.bias, z, self.into.mT, out=h).tanh_()
        torch.addmm(known, h, self.out.mT, out=o)
        torch.add(softplus(raw), self.floor, out=scale)
        return loc.copy_(mean), scale

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        loc, scale = self.moments(t, state)
        torch.addcmul(loc, scale, eps, out=out)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.loc, self.scale

    def linearise(self, states: Tensor, eps: Tensor, parameters: tuple[Tensor, ...]) -> None:
        self._linearise(states[:-1], eps, parameters)

    def _linearise(self, read: Tensor, eps: Tensor, parameters: tuple[Tensor, ...]) -> None:
        loc, scale = parameters
        self.read = read
        to_raw = self.o.chunk(2, -1)[1].sigmoid()
        self.d_h, self.d_o = torch.empty_like(self.h), torch.empty_like(self.o)
        slopes = loc, scale * to_raw, eps * to_raw, 1 - self.h.square()
        self.slopes = views_by_step(*slopes, *self.d_o.chunk(2, -1), self.d_o, self.d_h)

    def back(self, t: int, grad: Tensor) -> Tensor:
        loc, scale, to_raw, bend, d_loc, d_raw, d_o, d_h = self.slopes[t]
        torch.add(grad, loc, out=d_loc)
        torch.addcmul(scale, grad, to_raw, out=d_raw)
        return torch.mul(d_o @ self.out, bend, out=d_h) @ self.into

    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        return self.d_o, outer(self.d_h, self.read), self.d_h.sum((0, 1)), outer(self.d_o, self.h)


class CarriedSampler(FusedSampler):
    """States ``[z, h]`` whose distribution of ``z`` a small network reads off ``h``.

    Args:
        moves: How ``h`` moves.
        own: Distribution of ``z``, with ``h`` for its state.
    """

    def __init__(self, moves: CarriedSteps, own: CombinerSampler) -> None:
        self.moves, self.own = moves, own
        self.inputs = *moves.inputs, *own.inputs

    def begin(self, steps: int, rows: int) -> None:
        self.moves.begin(steps, rows)
        self.own.begin(steps, rows)

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        width = eps.shape[-1]
        carry = self.moves.move(t, state, state[:, width:], out[:, width:])
        self.own.step(t, carry, eps, out[:, :width])

    def parameters(self) -> tuple[Tensor, ...]:
        return self.own.parameters()

    def linearise(self, states: Tensor, eps: Tensor, parameters: tuple[Tensor, ...]) -> None:
        self.moves.linearise(states)
        self.own._linearise(states[1:, :, eps.shape[-1] :], eps, parameters)

    def back(self, t: int, grad: Tensor) -> Tensor:
        z, carry = grad.tensor_split((-self.moves.width,), -1)
        return self.moves.back(t, self.own.back(t, z).add_(carry))

    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        return *self.moves.gradients(), *self.own.gradients(adjoints)


class Combiner(Posterior):
    r"""Posterior that combines the last state with the encoder's features in a small network.

    .. math:: h = \tfrac12 (\tanh(W z_{t-1} + b) + e_t), \quad
        q(z_t \mid z_{t-1}) = N(\mu(h), \sigma(h))

    For a state that carries memory, :math:`W` reads that memory as it stands at step t. Where the
    data say nothing of a step it is the prior.

    Args:
        feature_dim: Width ``E`` of the encoder's features.
        latent_dim: Random latent dimensions.
        hidden_dim: Width of ``h``.
        carry_dim: Width of the memory that the state carries, 0 if none.

    Example:
        >>> posterior = Combiner(feature_dim=8, latent_dim=2)
        >>> posterior.statistics(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 64])

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017), the
        ST family. A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015), with
        ``carry_dim``.
    """

    def __init__(
        self, feature_dim: int, latent_dim: int, *, hidden_dim: int = 64, carry_dim: int = 0
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.carry_dim = carry_dim
        self.project = nn.Linear(feature_dim, hidden_dim)
        self.state = nn.Linear(carry_dim or latent_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def statistics(self, features: Tensor) -> Tensor:
        return self.project(features)

    def kernel(self, transition: Kernel, c: Context) -> Correction:
        require_width(self, transition, c)
        distribution = conditional(transition, c)
        carried = (
            distribution.carry.shape[-1]
            if isinstance(distribution, Carried) and distribution.base is not None
            else 0
        )
        if carried != self.carry_dim:
            raise ValueError(
                f"Combiner reads {self.carry_dim} dimensions of memory that a state carries, found "
                f"{carried}; build it with carry_dim={carried}."
            )
        if not isinstance(distribution, Carried):
            require_diagonal(distribution)
        return _Combined(
            self, transition, isinstance(distribution, Carried), bool(c.informed.all())
        )

    def combine(self, state: Tensor, e: Tensor) -> Distribution:
        """Normal distribution given the last state, or the carried memory, and the statistics."""
        h = 0.5 * (torch.tanh(self.state(state)) + e)
        loc, scale = self.head(h).chunk(2, -1)
        return diagonal_normal(loc, nn.functional.softplus(scale) + FLOOR)


class _Combined(Correction):
    def __init__(
        self, posterior: Combiner, transition: Kernel, carried: bool, informed: bool
    ) -> None:
        super().__init__(transition, needs_prior=carried or not informed)
        self.posterior = posterior
        self.informed = informed

    def fused_sampler(self, c: Context, samples: int) -> CombinerSampler | CarriedSampler | None:
        if not self.informed:
            return None
        net, out = self.posterior, 0.5 * self.posterior.head.weight
        known = by_step(nn.functional.linear(c.e, out, net.head.bias), samples)
        own = CombinerSampler(known, net.state.weight, net.state.bias, out, FLOOR)
        if not net.carry_dim:
            return None if self.needs_prior else own
        moves = self.transition
        steps_follow_forward = isinstance(moves, FusedSteps) and moves.steps_follow_forward
        steps = (
            moves.steps(c, samples)
            if isinstance(moves, FusedSteps) and steps_follow_forward
            else None
        )
        return CarriedSampler(steps, own) if isinstance(steps, CarriedSteps) else None

    def along(
        self, z: Tensor, parameters: tuple[Tensor, ...]
    ) -> tuple[Distribution | None, Distribution]:
        q, moves = diagonal_normal(*parameters), self.transition
        p = moves.along(z) if self.posterior.carry_dim and isinstance(moves, FusedSteps) else None
        return (p, Carried(q, p.carry)) if isinstance(p, Carried) else (None, q)

    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        if p is None:
            assert z is not None
            return self.posterior.combine(z, c.e)
        if isinstance(p, Carried):
            if p.base is None:
                return p
            if self.informed:
                return Carried(self.posterior.combine(p.carry, c.e), p.carry)
            return Carried(
                choose(c.informed, self.posterior.combine(p.carry, c.e), p.base), p.carry
            )
        state = torch.zeros_like(p.mean) if z is None else z
        return choose(c.informed, self.posterior.combine(state, c.e), p)
