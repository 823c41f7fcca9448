"""Multilayer perceptrons, of which either side may be empty."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent.networks.drawing import fill_uniform

__all__ = ["MLP", "Linear"]


class Linear(nn.Linear):
    """A linear layer that may have no inputs, in which case it is a learned constant."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        bound = max(self.in_features, 1) ** -0.5
        for parameter in self.parameters():
            fill_uniform(parameter, bound, generator)


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
        check_sizes("MLP", 0, in_dim=in_dim, out_dim=out_dim)
        check_sizes("MLP", 1, **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        self.in_dim, self.out_dim = in_dim, out_dim
        sizes = [in_dim, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [Linear(before, after), activation()]
        self.layers = nn.Sequential(*layers, Linear(sizes[-1], out_dim))

    def forward(self, x: Float[Tensor, "*S I"]) -> Float[Tensor, "*S O"]:
        return self.layers(x)


def check_sizes(what: str, least: int, **sizes: int) -> None:
    """Raises ValueError unless every size of ``what`` is an integer of at least ``least``."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < least:
            raise ValueError(
                f"{what} expected {name} to be an integer of at least {least}, found {size!r}."
            )
