"""Walks: paths drawn by a loop that autograd does not see, with derivatives written by hand.

A walk draws all steps of a chain on rows ``(N, .)``, one for each sample of each series, and knows
the derivative of its steps. What depends on the context alone is computed beforehand for all steps
at once, and enters as an input ``(T, N, .)`` beside the weights. Backwards, the slopes of all steps
are computed at once, so that the loop only multiplies; the gradient of a weight is then one product
over all steps.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from seqlatent.derivatives import first_order

__all__ = [
    "CarriedSteps",
    "CarriedWalk",
    "CombinedWalk",
    "GatedSteps",
    "TiltedWalk",
    "Walk",
    "by_step",
]


class Walk(ABC):
    """Steps of a chain, their laws, and their derivatives; used for one path.

    Attributes:
        inputs: Tensors that receive a gradient.
    """

    inputs: tuple[Tensor, ...]

    @abstractmethod
    def begin(self, steps: int, rows: int) -> None:
        """Allocates what the steps keep."""

    @abstractmethod
    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        """Writes the next state."""

    @abstractmethod
    def laws(self) -> tuple[Tensor, ...]:
        """Parameters ``(T, N, K)`` of the laws along the path."""

    @abstractmethod
    def linearise(self, states: Tensor, eps: Tensor, laws: tuple[Tensor, ...]) -> None:
        """Computes the slopes of all steps, given the gradients in the laws."""

    @abstractmethod
    def back(self, t: int, grad: Tensor) -> Tensor:
        """Gradient in the state before step ``t``, given that in the state after it."""

    @abstractmethod
    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the inputs, given those in the states after each step."""

    def path(self, first: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
        """States ``(T + 1, N, K)`` from the first one on, and the parameters of the laws."""
        return _Path.apply(self, first, eps, *self.inputs)  # type: ignore[return-value]


class _Path(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: Walk, first: Tensor, eps: Tensor, *inputs: Tensor) -> Any:
        walk.begin(len(eps), len(first))
        states = first.new_empty(len(eps) + 1, *first.shape)
        states[0] = first
        places = states.unbind(0)
        for t, noise in enumerate(eps.unbind(0)):
            walk.step(t, places[t], noise, places[t + 1])
        ctx.walk = walk
        ctx.save_for_backward(states, eps)
        return (states, *walk.laws())

    @staticmethod
    @first_order("sample with a Parallel posterior, or take differences of gradients")
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        walk, ctx.walk = ctx.walk, None
        if walk is None:
            raise RuntimeError(
                "the gradient of a path that was sampled step by step can be taken once, found a "
                "second backward pass; add the objectives up, or sample another path."
            )
        states, eps = ctx.saved_tensors
        walk.linearise(states, eps, grads[1:])
        adjoints = grads[0].clone(memory_format=torch.contiguous_format)
        steps = adjoints.unbind(0)
        for t in range(len(eps) - 1, -1, -1):
            steps[t].add_(walk.back(t, steps[t + 1]))
        return None, adjoints[0], None, *walk.gradients(adjoints[1:])


class GatedSteps:
    """Normal law of a gated move; see the transition of that name.

    Args:
        known: What bias and context add to the hidden layer, ``(T, N, H)`` or ``(H,)``.
        into: Weight from state to hidden layer ``(H, K)``.
        out: Weight from hidden layer to gate, proposal and scale ``(3 K, H)``.
        bias: Bias of those.
        decay: Slope of the linear move ``(K,)``.
        floor: Least standard deviation.
    """

    def __init__(
        self, known: Tensor, into: Tensor, out: Tensor, bias: Tensor, decay: Tensor, floor: float
    ) -> None:
        self.inputs = known, into, out, bias, decay
        self.floor = floor

    def begin(self, steps: int, rows: int) -> None:
        known, self.into, self.out, self.bias, self.decay = (x.detach() for x in self.inputs)
        K, H = len(self.decay), len(self.into)
        self.x, self.o = known.new_empty(steps, rows, H), known.new_empty(steps, rows, 3 * K)
        self.loc, self.scale = known.new_empty(2, steps, rows, K).unbind(0)
        parts = self.o.chunk(3, -1)
        self.views = _each(_known(known, steps), self.x, self.o, *parts, self.loc, self.scale)

    def law(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
        known, x, o, gate, proposal, raw, loc, scale = self.views[t]
        torch.addmm(known, z, self.into.mT, out=x).tanh_()
        torch.addmm(self.bias, x, self.out.mT, out=o)
        torch.lerp(self.decay * z, proposal, gate.sigmoid_(), out=loc)
        torch.add(softplus(raw), self.floor, out=scale)
        return loc, scale

    def linearise(self, states: Tensor) -> None:
        gate, proposal, raw = self.o.chunk(3, -1)
        self.before, self.kept = states[:-1], 1 - gate
        to_gate = (proposal - self.decay * self.before).mul_(gate).mul_(self.kept)
        self.d_x, self.d_o = torch.empty_like(self.x), torch.empty_like(self.o)
        slopes = to_gate, gate, raw.sigmoid(), 1 - self.x.square(), self.kept * self.decay
        self.slopes = _each(*slopes, *self.d_o.chunk(3, -1), self.d_o, self.d_x)

    def back(self, t: int, loc: Tensor, scale: Tensor) -> Tensor:
        to_gate, gate, to_raw, bend, kept, d_gate, d_proposal, d_raw, d_o, d_x = self.slopes[t]
        torch.mul(loc, to_gate, out=d_gate)
        torch.mul(loc, gate, out=d_proposal)
        torch.mul(scale, to_raw, out=d_raw)
        torch.mul(d_o @ self.out, bend, out=d_x)
        return (d_x @ self.into).addcmul_(loc, kept)

    def gradients(self, loc: Tensor) -> tuple[Tensor, ...]:
        return (
            _of_known(self.d_x, self.inputs[0]),
            _outer(self.d_x, self.before),
            _outer(self.d_o, self.x),
            self.d_o.sum((0, 1)),
            (loc * self.kept).mul_(self.before).sum((0, 1)),
        )


class TiltedWalk(Walk):
    """Normal steps, each tilted by a normal potential; laws are the steps' own and the tilted ones.

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
        self.views = _each(self.m, self.w, *buffers)

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        loc, scale = self.prior.law(t, state)
        m, w, kept, root, q_loc, q_scale = self.views[t]
        torch.reciprocal((w * scale).mul_(scale).add_(1.0), out=kept)
        torch.sqrt(kept, out=root)
        torch.addcmul(loc, 1 - kept, m - loc, out=q_loc)
        torch.mul(scale, root, out=q_scale)
        torch.addcmul(q_loc, q_scale, eps, out=out)

    def laws(self) -> tuple[Tensor, ...]:
        return self.prior.loc, self.prior.scale, self.loc, self.scale

    def linearise(self, states: Tensor, eps: Tensor, laws: tuple[Tensor, ...]) -> None:
        self.prior.linearise(states)
        loc, scale, self.q_loc, self.q_scale = laws
        self.eps, self.away = eps, self.m - self.prior.loc
        shrink = self.kept * self.root  # slope of the tilted scale in the scale
        bend = (2 * self.w * self.prior.scale * self.away).mul_(self.kept).mul_(self.kept)
        to_loc = torch.addcmul(loc, self.q_loc, self.kept)
        to_scale = torch.addcmul(scale, self.q_loc, bend).addcmul_(self.q_scale, shrink)
        self.d_loc, self.d_scale = torch.empty_like(loc), torch.empty_like(loc)
        slopes = to_loc, self.kept, to_scale, torch.addcmul(bend, eps, shrink)
        self.slopes = _each(*slopes, self.d_loc, self.d_scale)

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


class CombinedWalk(Walk):
    """Steps whose law a small network reads off the last state; laws are these.

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
        self.views = _each(known, self.h, self.o, *self.o.chunk(2, -1), self.loc, self.scale)

    def law(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
        known, h, o, mean, raw, loc, scale = self.views[t]
        torch.addmm(self.bias, z, self.into.mT, out=h).tanh_()
        torch.addmm(known, h, self.out.mT, out=o)
        torch.add(softplus(raw), self.floor, out=scale)
        return loc.copy_(mean), scale

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        loc, scale = self.law(t, state)
        torch.addcmul(loc, scale, eps, out=out)

    def laws(self) -> tuple[Tensor, ...]:
        return self.loc, self.scale

    def linearise(self, states: Tensor, eps: Tensor, laws: tuple[Tensor, ...]) -> None:
        self._linearise(states[:-1], eps, laws)

    def _linearise(self, read: Tensor, eps: Tensor, laws: tuple[Tensor, ...]) -> None:
        loc, scale = laws
        self.read = read
        to_raw = self.o.chunk(2, -1)[1].sigmoid()
        self.d_h, self.d_o = torch.empty_like(self.h), torch.empty_like(self.o)
        slopes = loc, scale * to_raw, eps * to_raw, 1 - self.h.square()
        self.slopes = _each(*slopes, *self.d_o.chunk(2, -1), self.d_o, self.d_h)

    def back(self, t: int, grad: Tensor) -> Tensor:
        loc, scale, to_raw, bend, d_loc, d_raw, d_o, d_h = self.slopes[t]
        torch.add(grad, loc, out=d_loc)
        torch.addcmul(scale, grad, to_raw, out=d_raw)
        return torch.mul(d_o @ self.out, bend, out=d_h) @ self.into

    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        return self.d_o, _outer(self.d_h, self.read), self.d_h.sum((0, 1)), _outer(self.d_o, self.h)


class CarriedSteps:
    """Memory that a state carries along, a gated recurrent unit; see ``CarriedRecurrence``.

    Args:
        known: What bias and context add to the gates ``(T, N, 3 M)`` or ``(3 M,)``.
        joint: Weight from the state to embedding and gates ``(4 M, R + M)``, block diagonal.
        bias: Bias of those.
        into: Weight from embedding to gates ``(3 M, M)``.
    """

    def __init__(self, known: Tensor, joint: Tensor, bias: Tensor, into: Tensor) -> None:
        self.inputs = known, joint, bias, into
        self.width = into.shape[1]

    def begin(self, steps: int, rows: int) -> None:
        known, self.joint, self.bias, self.into = (x.detach() for x in self.inputs)
        M = self.width
        self.y = known.new_empty(steps, rows, 4 * M)
        self.x, self.new = known.new_empty(2, steps, rows, M).unbind(0)
        raw, reset, update, h_new = self.y.chunk(4, -1)
        both = self.y[..., M : 3 * M]
        known = _known(known, steps)
        self.views = _each(known, self.y, raw, both, reset, update, h_new, self.x, self.new)

    def move(self, t: int, state: Tensor, carry: Tensor, out: Tensor) -> Tensor:
        known, y, raw, both, reset, update, h_new, x, new = self.views[t]
        torch.addmm(self.bias, state, self.joint.mT, out=y)
        torch.mul(raw, raw.sigmoid(), out=x)
        inputs = torch.addmm(known, x, self.into.mT)
        x_both, x_new = inputs.split((2 * self.width, self.width), -1)
        both.add_(x_both).sigmoid_()
        torch.addcmul(x_new, reset, h_new, out=new).tanh_()
        return torch.lerp(new, carry, update, out=out)

    def linearise(self, states: Tensor) -> None:
        M = self.width
        raw, reset, update, h_new = self.y.chunk(4, -1)
        self.before = states[:-1]
        shut, open_ = 1 - update, raw.sigmoid()
        to_update = (self.before[..., -M:] - self.new).mul_(update).mul_(shut)
        to_new = shut.mul_(1 - self.new.square())
        to_reset = h_new * reset * (1 - reset)
        to_raw = torch.addcmul(open_, self.x, 1 - open_)
        self.d_a, self.d_y = self.y.new_empty(*self.x.shape[:2], 3 * M), torch.empty_like(self.y)
        parts = *self.d_a.chunk(3, -1), self.d_a[..., : 2 * M], self.d_a
        mirror = self.d_y[..., :M], self.d_y[..., M : 3 * M], self.d_y[..., 3 * M :], self.d_y
        self.slopes = _each(to_reset, to_update, to_new, reset, to_raw, update, *parts, *mirror)

    def back(self, t: int, grad: Tensor) -> Tensor:
        to_reset, to_update, to_new, reset, to_raw, update, *rest = self.slopes[t]
        d_reset, d_update, d_new, d_both, d_a, d_raw, d_gates, d_h_new, d_y = rest
        torch.mul(grad, to_new, out=d_new)
        torch.mul(d_new, to_reset, out=d_reset)
        torch.mul(grad, to_update, out=d_update)
        torch.mul(d_new, reset, out=d_h_new)
        d_gates.copy_(d_both)
        torch.mul(d_a @ self.into, to_raw, out=d_raw)
        before = d_y @ self.joint
        before[:, -self.width :].addcmul_(grad, update)
        return before

    def gradients(self) -> tuple[Tensor, ...]:
        return (
            _of_known(self.d_a, self.inputs[0]),
            _outer(self.d_y, self.before),
            self.d_y.sum((0, 1)),
            _outer(self.d_a, self.x),
        )


class CarriedWalk(Walk):
    """States ``[z, h]`` whose law of ``z`` a small network reads off ``h``.

    Args:
        moves: How ``h`` moves.
        own: Law of ``z``, with ``h`` for its state.
    """

    def __init__(self, moves: CarriedSteps, own: CombinedWalk) -> None:
        self.moves, self.own = moves, own
        self.inputs = *moves.inputs, *own.inputs

    def begin(self, steps: int, rows: int) -> None:
        self.moves.begin(steps, rows)
        self.own.begin(steps, rows)

    def step(self, t: int, state: Tensor, eps: Tensor, out: Tensor) -> None:
        width = eps.shape[-1]
        carry = self.moves.move(t, state, state[:, width:], out[:, width:])
        self.own.step(t, carry, eps, out[:, :width])

    def laws(self) -> tuple[Tensor, ...]:
        return self.own.laws()

    def linearise(self, states: Tensor, eps: Tensor, laws: tuple[Tensor, ...]) -> None:
        self.moves.linearise(states)
        self.own._linearise(states[1:, :, eps.shape[-1] :], eps, laws)

    def back(self, t: int, grad: Tensor) -> Tensor:
        z, carry = grad.tensor_split((-self.moves.width,), -1)
        return self.moves.back(t, self.own.back(t, z).add_(carry))

    def gradients(self, adjoints: Tensor) -> tuple[Tensor, ...]:
        return *self.moves.gradients(), *self.own.gradients(adjoints)


def by_step(x: Tensor, samples: int) -> Tensor:
    """Values ``(B, T, .)`` as ``(T, N, .)``, repeated for every sample of a series."""
    x = x.transpose(0, 1)
    if samples == 1:
        return x.contiguous()
    return x[:, None].expand(-1, samples, -1, -1).flatten(1, 2)


def _each(*buffers: Tensor | list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Views of every step: taken once, because taking them in the loop costs as much as a sum."""
    return [*zip(*(x.unbind(0) if isinstance(x, Tensor) else x for x in buffers), strict=True)]


def _known(known: Tensor, steps: int) -> Tensor | list[Tensor]:
    return known if known.ndim == 3 else [known] * steps


def _of_known(grad: Tensor, known: Tensor) -> Tensor:
    return grad if known.ndim == 3 else grad.sum((0, 1))


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of a weight, given those in its outputs and its inputs at all steps."""
    return grad.flatten(0, 1).mT @ x.reshape(-1, x.shape[-1])
