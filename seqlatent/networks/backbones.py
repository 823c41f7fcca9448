"""Causal backbones: sequence networks that run over all steps at once or step by step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent.networks.blocks import LRUCell, MinGRUCell, Stack, one_step
from seqlatent.networks.gated import gated_path
from seqlatent.networks.perceptron import Linear, check_sizes
from seqlatent.recurrence import linear_recurrence

__all__ = ["GRU", "LRU", "Backbone", "Feedforward", "MinGRU"]


class Backbone(ABC, nn.Module):
    r"""A causal sequence network: features of everything up to and including a step.

    .. math:: o_t, s_t = f(x_t, s_{t-1})

    All steps at once and one step at a time are the same function, so a path that is fed in pieces
    with the state passed on equals the path fed at once. States come at every step and layer:
    whoever wants to go on from step t takes them there.

    Shape:
        ``forward``: x ``(*S, B, T, in_dim)``, state a tuple of ``(*S, B, h)`` or None for the
        initial one -> out ``(*S, B, T, out_dim)``, states a tuple of ``(*S, B, T, h)`` per layer.

        ``step``: x ``(*S, B, in_dim)``, state -> out ``(*S, B, out_dim)``, state.
    """

    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        """Outputs and states at all steps."""

    @abstractmethod
    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        """The output and state after one more step."""

    @abstractmethod
    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        """The state before the first step, in the dtype and on the device of ``like``."""


class _Stacked(Backbone):
    """A backbone of residual blocks whose cells are linear recurrences."""

    stack: "Stack"

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        return self.stack(x, state, linear_recurrence)

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        return self.stack(x, state, one_step)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        return self.stack.initial(batch_shape, like)


class MinGRU(_Stacked):
    r"""Residual blocks of minimal gated recurrent units, parallel in time.

    .. math:: h_t = (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t, \qquad
        z_t = \operatorname{sigmoid}(W_z x_t + b_z), \quad \tilde h_t = W_h x_t + b_h

    Gate and candidate read the input alone, so the state is a linear recurrence and no step waits
    for a matrix product of the one before it. Each block is normalised, its state is gated by the
    input, and the result is added to the block's input. Gates start with memories of 2 to 100
    steps, spread evenly on a log scale.

    Args:
        in_dim: Number of input features, 0 allowed.
        hidden_dim: Width of the blocks and size of each layer's state; also ``out_dim``.
        layers: Number of blocks.

    Shape:
        As :class:`Backbone`; each layer's state has ``hidden_dim`` entries.

    Example:
        >>> backbone = MinGRU(3, 16)
        >>> out, states = backbone(torch.zeros(4, 7, 3))
        >>> out.shape, states[0].shape
        (torch.Size([4, 7, 16]), torch.Size([4, 7, 16]))

    References:
        Were RNNs All We Needed? (Feng et al., 2024), section 3.1. https://arxiv.org/abs/2410.01201

        Can Recurrent Neural Networks Warp Time? (Tallec & Ollivier, 2018), for the gates' start.
    """

    def __init__(self, in_dim: int, hidden_dim: int, layers: int = 2) -> None:
        super().__init__()
        check_sizes("MinGRU", 0, in_dim=in_dim)
        check_sizes("MinGRU", 1, hidden_dim=hidden_dim, layers=layers)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.stack = Stack(in_dim, [MinGRUCell(hidden_dim) for _ in range(layers)])


class LRU(_Stacked):
    r"""Residual blocks of linear recurrent units: decaying oscillators, parallel in time.

    .. math:: h_t = \lambda \odot h_{t-1} + \gamma \odot (B x_t), \qquad
        \lambda = \exp(-e^{\nu} + i e^{\theta}), \quad \gamma = \sqrt{1 - |\lambda|^2}

    The state is complex and its coefficients do not depend on the input: fit for smooth and
    periodic signals, where :class:`MinGRU` selects what to remember. The exponential keeps
    :math:`|\lambda| < 1`. A state is stored as alternating real and imaginary parts.

    Args:
        in_dim: Number of input features, 0 allowed.
        hidden_dim: Width of the blocks; also ``out_dim``.
        layers: Number of blocks.

    Shape:
        As :class:`Backbone`; each layer's state has ``hidden_dim`` entries, one more if odd.

    Example:
        >>> backbone = LRU(3, 16, layers=1)
        >>> state = backbone.initial((4,), torch.zeros(()))
        >>> out, state = backbone.step(torch.zeros(4, 3), state)
        >>> out.shape, state[0].shape
        (torch.Size([4, 16]), torch.Size([4, 16]))

    References:
        Resurrecting Recurrent Neural Networks for Long Sequences (Orvieto et al., 2023), section 3.
        https://arxiv.org/abs/2303.06349
    """

    def __init__(self, in_dim: int, hidden_dim: int, layers: int = 2) -> None:
        super().__init__()
        check_sizes("LRU", 0, in_dim=in_dim)
        check_sizes("LRU", 1, hidden_dim=hidden_dim, layers=layers)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.stack = Stack(in_dim, [LRUCell(hidden_dim) for _ in range(layers)])


class GRU(Backbone):
    """Gated recurrent units, whose output is the state of the last layer.

    The state enters its own gates: more expressive per layer than :class:`MinGRU`, but each step
    has to wait for the one before it.

    Args:
        in_dim: Number of input features, 0 allowed.
        hidden_dim: Size of each layer's state; also ``out_dim``.
        layers: Number of layers.

    Shape:
        As :class:`Backbone`; each layer's state has ``hidden_dim`` entries.

    Example:
        >>> out, states = GRU(3, 16)(torch.zeros(4, 7, 3))
        >>> torch.equal(out, states[-1])
        True

    References:
        Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014), section 2.3.
    """

    def __init__(self, in_dim: int, hidden_dim: int, layers: int = 1) -> None:
        super().__init__()
        check_sizes("GRU", 0, in_dim=in_dim)
        check_sizes("GRU", 1, hidden_dim=hidden_dim, layers=layers)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        # One module per layer, because a deep torch.nn.GRU shows the states of its last one only.
        # It needs an input as well: a constant zero where there is none.
        sizes = [max(in_dim, 1), *(hidden_dim for _ in range(layers))]
        self.layers = nn.ModuleList(nn.GRU(*pair, batch_first=True) for pair in pairwise(sizes))

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        state = self.initial((), x) if state is None else state
        lead = torch.broadcast_shapes(x.shape[:-2], *(h.shape[:-1] for h in state))
        x = x.expand(*lead, *x.shape[-2:]) if self.in_dim else x.new_zeros(*lead, x.shape[-2], 1)
        states = []
        for layer, h in zip(self.layers, state, strict=True):
            if x.numel():
                rows = h.expand(*lead, self.out_dim).reshape(1, -1, self.out_dim)
                path = gated_path(layer, x.reshape(-1, *x.shape[-2:]), rows)
                x = path.unflatten(0, lead) if lead else path.squeeze(0)
            else:  # torch.nn.GRU accepts neither no steps nor no series
                x = x.new_zeros(*x.shape[:-1], self.out_dim)
            states.append(x)
        return x, tuple(states)

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        out, states = self(x.unsqueeze(-2), state)
        return out.squeeze(-2), tuple(h.squeeze(-2) for h in states)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        return tuple(like.new_zeros(*batch_shape, self.out_dim) for _ in self.layers)


class Feedforward(Backbone):
    """A backbone without a state, which reads each step by itself.

    Its last layer has an activation too: what reads its features starts with a linear layer.

    Args:
        in_dim: Number of input features, 0 allowed.
        hidden_dim: Width of the layer; also ``out_dim``.

    Shape:
        As :class:`Backbone`; the state is an empty tuple.

    Example:
        >>> out, states = Feedforward(3, 16)(torch.zeros(4, 7, 3))
        >>> out.shape, states
        (torch.Size([4, 7, 16]), ())
    """

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        check_sizes("Feedforward", 0, in_dim=in_dim)
        check_sizes("Feedforward", 1, hidden_dim=hidden_dim)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.net = nn.Sequential(Linear(in_dim, hidden_dim), nn.SiLU())

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        return self.net(x), ()

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        return self.net(x), ()

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        return ()
