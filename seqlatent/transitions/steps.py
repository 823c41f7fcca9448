"""Steps of neural transitions, with their derivatives by hand."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from seqlatent.fused import Steps, gradient_of_known, known_by_step, outer, views_by_step

__all__ = ["CarriedSteps", "GatedSteps"]


class GatedSteps(Steps):
    """Normal distribution of a gated move; see the transition of that name.

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
        self.views = views_by_step(
            known_by_step(known, steps), self.x, self.o, *parts, self.loc, self.scale
        )

    def moments(self, t: int, z: Tensor) -> tuple[Tensor, Tensor]:
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
        self.slopes = views_by_step(*slopes, *self.d_o.chunk(3, -1), self.d_o, self.d_x)

    def back(self, t: int, loc: Tensor, scale: Tensor) -> Tensor:
        to_gate, gate, to_raw, bend, kept, d_gate, d_proposal, d_raw, d_o, d_x = self.slopes[t]
        torch.mul(loc, to_gate, out=d_gate)
        torch.mul(loc, gate, out=d_proposal)
        torch.mul(scale, to_raw, out=d_raw)
        torch.mul(d_o @ self.out, bend, out=d_x)
        return (d_x @ self.into).addcmul_(loc, kept)

    def gradients(self, loc: Tensor) -> tuple[Tensor, ...]:
        return (
            gradient_of_known(self.d_x, self.inputs[0]),
            outer(self.d_x, self.before),
            outer(self.d_o, self.x),
            self.d_o.sum((0, 1)),
            (loc * self.kept).mul_(self.before).sum((0, 1)),
        )


class CarriedSteps(Steps):
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
        known = known_by_step(known, steps)
        self.views = views_by_step(known, self.y, raw, both, reset, update, h_new, self.x, self.new)

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
        self.slopes = views_by_step(
            to_reset, to_update, to_new, reset, to_raw, update, *parts, *mirror
        )

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
            gradient_of_known(self.d_a, self.inputs[0]),
            outer(self.d_y, self.before),
            self.d_y.sum((0, 1)),
            outer(self.d_a, self.x),
        )
