"""Parameters of linear transitions: values to start from, and covariances that stay covariances."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqlatent.linalg import cholesky, factor

__all__ = ["Factor"]

Number = int | float


class Initialised(nn.Module):
    """A module whose parameters start from given values, to which ``reset_parameters`` returns."""

    def __init__(self) -> None:
        super().__init__()
        self._starts: dict[str, Tensor] = {}

    def start(self, name: str, value: Tensor, *, learn: bool = True) -> None:
        """Registers a tensor, as a parameter or, where it is not to be learned, as a buffer."""
        value = value.detach().clone()
        if hasattr(self, name):
            delattr(self, name)
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)
        self._starts[name] = value.clone()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Returns to the values at the start; draws nothing."""
        with torch.no_grad():
            for name, value in self._starts.items():
                getattr(self, name).copy_(value)


class Factor(Initialised):
    r"""A factor of a covariance, of the rank that the covariance has at the start.

    .. math:: P = G G^\top, \qquad G = B L

    :math:`L` is lower triangular with a positive diagonal and learned; :math:`B` is the identity
    where the covariance is regular, else it spans the directions in which there is any variance.

    Args:
        P: Covariance at the start.
        diagonal: Whether it stays diagonal.
        learn: Whether it is learned.
        what: Its name in error messages.

    Shape:
        P ``(K, K)``; the factor is ``(K, R)`` with independent columns.

    Example:
        >>> Factor(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))()
        tensor([[2.],
                [0.]], grad_fn=<MmBackward0>)
    """

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    basis: Tensor | None
    log_scale: Tensor
    below: Tensor

    def __init__(
        self, P: Tensor, *, diagonal: bool = False, learn: bool = True, what: str = "covariance"
    ) -> None:
        super().__init__()
        G = factor(P, what=what)
        spanned = G.abs().sum(0) > 0
        rank = int(spanned.sum())
        self.diagonal = diagonal
        if rank == len(P):
            self.basis = None
            L = cholesky(P, what=what)
        else:
            self.register_buffer("basis", G[:, spanned])
            L = torch.eye(rank, dtype=P.dtype, device=P.device)
        self.start("log_scale", L.diagonal().log(), learn=learn)
        if not diagonal:
            row, column = _below(rank)
            self.start("below", L[row, column], learn=learn)

    def forward(self) -> Float[Tensor, "K R"]:
        G = self.log_scale.exp().diag()
        if not self.diagonal:
            G = G.index_put(_below(len(G)), self.below)
        return G if self.basis is None else self.basis @ G

    def extra_repr(self) -> str:
        rank = len(self.log_scale)
        size = rank if self.basis is None else len(self.basis)
        return f"{size}, rank={rank}" + (", diagonal=True" if self.diagonal else "")


def _below(size: int) -> tuple[Tensor, Tensor]:
    row, column = torch.tril_indices(size, size, -1)
    return row, column


def positive(name: str, value: Number | None) -> float | None:
    """Checks a standard deviation that may be absent; none is None or 0.

    Raises:
        ValueError: If it is negative or no finite number.
    """
    if value is None or value == 0:
        return None
    if not 0 < value < float("inf"):
        raise ValueError(
            f"{name} must be a positive standard deviation, or None for no noise, found {value!r}."
        )
    return float(value)
