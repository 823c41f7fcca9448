"""The residual blocks of MinGRU and LRU, and the recurrences inside."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn import functional

from seqlatent.networks.drawing import fill_uniform, unit_uniform
from seqlatent.networks.perceptron import Linear

__all__ = []

Advance = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Cell(ABC, nn.Module):
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


class MinGRUCell(Cell):
    """The recurrence of a minimal gated recurrent unit."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = self.state_dim = hidden_dim
        self.weight = nn.Parameter(torch.empty(2 * hidden_dim, hidden_dim))
        self.bias = nn.Parameter(torch.empty(2 * hidden_dim))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        fill_uniform(self.weight, self.hidden_dim**-0.5, generator)
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


class LRUCell(Cell):
    """The recurrence of a linear recurrent unit, on pairs of real and imaginary parts."""

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
        square = unit_uniform(self.log_decay, generator) * (0.999**2 - 0.5**2) + 0.5**2
        angle = math.pi * unit_uniform(self.log_angle, generator).clamp(min=1e-3)
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


class Block(nn.Module):
    """x + W (cell(u) * silu(V u)) with u = norm(x)."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.norm, self.cell = nn.LayerNorm(cell.hidden_dim), cell
        # The norms have biases already; on a CPU one costs as much as another pass over the data.
        self.gate = Linear(cell.hidden_dim, cell.state_dim, bias=False)
        self.out = Linear(cell.state_dim, cell.hidden_dim, bias=False)

    def forward(self, x: Tensor, h: Tensor | None, advance: Advance) -> tuple[Tensor, Tensor]:
        u = self.norm(x)
        states = self.cell(u, h, advance)
        return x + self.out(states * functional.silu(self.gate(u))), states


class Stack(nn.Module):
    """Blocks one after another, between an embedding of the input and a norm."""

    def __init__(self, in_dim: int, cells: Sequence[Cell]) -> None:
        super().__init__()
        size = cells[0].hidden_dim
        self.state_dims = [cell.state_dim for cell in cells]
        self.embed = Linear(in_dim, size)
        self.blocks = nn.ModuleList(Block(cell) for cell in cells)
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


def one_step(a: Tensor, b: Tensor, h: Tensor | None) -> Tensor:
    """One step of the recurrence, where :func:`linear_recurrence` takes all."""
    return b if h is None else a * h + b
