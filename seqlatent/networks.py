"""Networks: multilayer perceptrons, causal backbones, and drawing parameters from one generator."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional

from seqlatent.recurrence import linear_recurrence

__all__ = ["GRU", "LRU", "MLP", "Backbone", "Feedforward", "MinGRU", "reinitialise"]

Advance = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Linear(nn.Linear):
    """A linear layer that may have no inputs, in which case it is a learned constant."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        bound = max(self.in_features, 1) ** -0.5
        for parameter in self.parameters():
            _uniform(parameter, bound, generator)


class MLP(nn.Module):
    r"""A multilayer perceptron.

    .. math:: W_n\, \phi(\dots \phi(W_1 x + b_1) \dots) + b_n

    Without inputs it is a learned constant; without outputs it is empty.

    Args:
        in_dim: Number of inputs, 0 allowed.
        hidden: Sizes of the hidden layers; none makes it affine.
        out_dim: Number of outputs, 0 allowed.
        activation: Constructor of the activation :math:`\phi`.

    Shape:
        ``(*, in_dim)`` -> ``(*, out_dim)``.

    Example:
        >>> MLP(3, [16], 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_sizes("MLP", 0, in_dim=in_dim, out_dim=out_dim)
        _check_sizes("MLP", 1, **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        self.in_dim, self.out_dim = in_dim, out_dim
        sizes = [in_dim, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [Linear(before, after), activation()]
        self.layers = nn.Sequential(*layers, Linear(sizes[-1], out_dim))

    def forward(self, x: Float[Tensor, "*S I"]) -> Float[Tensor, "*S O"]:
        return self.layers(x)


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

    stack: "_Stack"

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        return self.stack(x, state, linear_recurrence)

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        return self.stack(x, state, _one_step)

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
        _check_sizes("MinGRU", 0, in_dim=in_dim)
        _check_sizes("MinGRU", 1, hidden_dim=hidden_dim, layers=layers)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.stack = _Stack(in_dim, [_MinGRUCell(hidden_dim) for _ in range(layers)])


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
        _check_sizes("LRU", 0, in_dim=in_dim)
        _check_sizes("LRU", 1, hidden_dim=hidden_dim, layers=layers)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.stack = _Stack(in_dim, [_LRUCell(hidden_dim) for _ in range(layers)])


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
        _check_sizes("GRU", 0, in_dim=in_dim)
        _check_sizes("GRU", 1, hidden_dim=hidden_dim, layers=layers)
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
                path, _ = layer(x.reshape(-1, *x.shape[-2:]), rows)
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

    Args:
        in_dim: Number of input features, 0 allowed.
        hidden_dim: Width of the hidden layer; also ``out_dim``.

    Shape:
        As :class:`Backbone`; the state is an empty tuple.

    Example:
        >>> out, states = Feedforward(3, 16)(torch.zeros(4, 7, 3))
        >>> out.shape, states
        (torch.Size([4, 7, 16]), ())
    """

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        _check_sizes("Feedforward", 0, in_dim=in_dim)
        _check_sizes("Feedforward", 1, hidden_dim=hidden_dim)
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.net = MLP(in_dim, (hidden_dim,), hidden_dim)

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


# --- the blocks of MinGRU and LRU ---------------------------------------------------------------


class _Cell(ABC, nn.Module):
    """A recurrence whose coefficients are functions of the input alone."""

    hidden_dim: int
    state_dim: int

    @abstractmethod
    def coefficients(
        self, x: Float[Tensor, "*S H"]
    ) -> tuple[Inexact[Tensor, "..."], Inexact[Tensor, "*S N"]]:
        """The a and b of h_t = a_t h_{t-1} + b_t, real or complex."""

    def forward(self, x: Tensor, h: Tensor | None, advance: Advance) -> Tensor:
        a, b = self.coefficients(x)
        if not b.is_complex():
            return advance(a, b, h)
        start = None if h is None else torch.complex(h[..., 0::2], h[..., 1::2])
        return torch.view_as_real(advance(a, b, start)).flatten(-2)


class _MinGRUCell(_Cell):
    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = self.state_dim = hidden_dim
        self.weight = nn.Parameter(torch.empty(2 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.empty(2 * hidden_dim))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        _uniform(self.weight, self.hidden_dim**-0.5, generator)
        # A gate of 1/n is a memory of n steps: sigmoid(-log(n - 1)) = 1/n.
        spread = torch.linspace(0.0, math.log(99.0), self.hidden_dim)
        with torch.no_grad():
            self.bias.copy_(torch.cat([torch.zeros(self.hidden_dim), -spread]))

    def coefficients(
        self, x: Float[Tensor, "*S H"]
    ) -> tuple[Inexact[Tensor, "..."], Inexact[Tensor, "*S N"]]:
        candidate, gate = functional.linear(x, self.weight, self.bias).chunk(2, -1)
        z = gate.sigmoid()
        return 1 - z, z * candidate


class _LRUCell(_Cell):
    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        pairs = (hidden_dim + 1) // 2
        self.hidden_dim, self.state_dim = hidden_dim, 2 * pairs
        self.project = Linear(hidden_dim, 2 * pairs, bias=False)
        self.log_decay = nn.Parameter(torch.empty(pairs))
        self.log_angle = nn.Parameter(torch.empty(pairs))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        # Uniform on the ring of moduli .5 to .999 and angles up to pi, as in section 3.3; a real
        # output makes conjugates redundant.
        square = _draw(self.log_decay, generator) * (0.999**2 - 0.5**2) + 0.5**2
        angle = math.pi * _draw(self.log_angle, generator).clamp(min=1e-3)
        with torch.no_grad():
            self.log_decay.copy_((-0.5 * square.log()).log())
            self.log_angle.copy_(angle.log())

    def coefficients(
        self, x: Float[Tensor, "*S H"]
    ) -> tuple[Inexact[Tensor, "..."], Inexact[Tensor, "*S N"]]:
        decay = self.log_decay.exp()
        scale = torch.expm1(-2 * decay).neg().sqrt()
        inputs = torch.view_as_complex(self.project(x).unflatten(-1, (-1, 2)))
        return torch.polar((-decay).exp(), self.log_angle.exp()), scale * inputs


class _Block(nn.Module):
    """x + W (cell(u) * silu(V u)) with u = norm(x)."""

    def __init__(self, cell: _Cell) -> None:
        super().__init__()
        self.norm, self.cell = nn.LayerNorm(cell.hidden_dim), cell
        # The norms have biases already; on a CPU one costs as much as another pass over the data.
        self.gate = Linear(cell.hidden_dim, cell.state_dim, bias=False)
        self.out = Linear(cell.state_dim, cell.hidden_dim, bias=False)

    def forward(self, x: Tensor, h: Tensor | None, advance: Advance) -> tuple[Tensor, Tensor]:
        u = self.norm(x)
        states = self.cell(u, h, advance)
        return x + self.out(states * functional.silu(self.gate(u))), states


class _Stack(nn.Module):
    def __init__(self, in_dim: int, cells: Sequence[_Cell]) -> None:
        super().__init__()
        size = cells[0].hidden_dim
        self.state_dims = [cell.state_dim for cell in cells]
        self.embed = Linear(in_dim, size)
        self.blocks = nn.ModuleList(_Block(cell) for cell in cells)
        self.norm = nn.LayerNorm(size)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None, advance: Advance
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.embed(x)
        states = []
        for block, h in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            x, path = block(x, h, advance)
            states.append(path)
        return self.norm(x), tuple(states)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        return tuple(like.new_zeros(*batch_shape, size) for size in self.state_dims)


def _one_step(a: Tensor, b: Tensor, h: Tensor | None) -> Tensor:
    return b if h is None else a * h + b


# --- drawing parameters -------------------------------------------------------------------------


def reinitialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws all parameters of a module afresh, in the order of its submodules.

    Construction draws from torch's global generator; afterwards this makes the parameters a
    function of one private generator, whatever else was drawn before. Knows linear, embedding,
    recurrent and normalising layers of torch; any other module with parameters of its
    own says how to draw those in a method ``reset_parameters(generator)``.

    Args:
        module: The module, changed in place.
        generator: Source of randomness; torch's global generator by default.

    Raises:
        TypeError: If a submodule holds parameters that nobody says how to draw. Nothing is changed.

    Example:
        >>> a, b = MLP(2, [4], 1), MLP(2, [4], 1)
        >>> reinitialise(a, torch.Generator().manual_seed(0))
        >>> reinitialise(b, torch.Generator().manual_seed(0))
        >>> x = torch.ones(2)
        >>> torch.equal(a(x), b(x))
        True
    """
    resets = [_reset(m, name) for name, m in module.named_modules() if [*m.parameters(False)]]
    for reset in resets:
        reset(generator)


Reset = Callable[[torch.Generator | None], None]


def _reset(module: nn.Module, name: str) -> Reset:
    own = getattr(module, "reset_parameters", None)
    if own is not None and inspect.signature(own).parameters:
        return own
    draw = _layer.dispatch(type(module))
    if draw is _layer.dispatch(object):
        held = ", ".join(key for key, _ in module.named_parameters(recurse=False))
        raise TypeError(
            "reinitialise expected layers of torch or modules with a method "
            f"reset_parameters(generator), found {type(module).__name__} at '{name}' with the "
            f"parameters {held}. Give it that method."
        )
    return lambda generator: draw(module, generator)


@singledispatch
def _layer(module: Any, generator: torch.Generator | None) -> None:
    raise NotImplementedError


@_layer.register
def _(module: nn.Linear, generator: torch.Generator | None) -> None:
    for parameter in module.parameters(False):
        _uniform(parameter, max(module.in_features, 1) ** -0.5, generator)


@_layer.register
def _(module: nn.RNNBase, generator: torch.Generator | None) -> None:
    for parameter in module.parameters(False):
        _uniform(parameter, module.hidden_size**-0.5, generator)


@_layer.register
def _(module: nn.Embedding, generator: torch.Generator | None) -> None:
    weight, device = module.weight, _device(module.weight, generator)
    with torch.no_grad():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=device)
        weight.copy_(noise)
        if module.padding_idx is not None:
            weight[module.padding_idx] = 0


@_layer.register(nn.LayerNorm)
@_layer.register(nn.RMSNorm)
@_layer.register(nn.GroupNorm)
def _(module: nn.LayerNorm | nn.RMSNorm | nn.GroupNorm, generator: torch.Generator | None) -> None:
    module.reset_parameters()  # ones and zeros: nothing is drawn


def _device(parameter: Tensor, generator: torch.Generator | None) -> torch.device:
    """Values are drawn where the generator is: they do not depend on where the parameter is."""
    return parameter.device if generator is None else generator.device


def _draw(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    device = _device(parameter, generator)
    values = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype, device=device)
    return values.to(parameter.device)


def _uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    with torch.no_grad():
        parameter.copy_((2 * _draw(parameter, generator) - 1) * bound)


def _check_sizes(what: str, least: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or size < least:
            raise ValueError(
                f"{what} expected {name} to be an integer of at least {least}, found {size!r}."
            )
