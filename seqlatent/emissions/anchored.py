"""A network of an emission that starts as the loading of a structural model."""

import torch
from torch import Tensor, nn

from seqlatent.emissions.linear import RowLoading
from seqlatent.networks import MLP

__all__ = ["AnchoredNet"]

_SOFT = 0.3  # what the network adds at the start, beside the loading
_NARROW = -1.0  # the noise starts at about a third of a scale


class AnchoredNet(nn.Module):
    r"""Parameters of an emission: a loading of the first states, and what a network adds.

    .. math:: \rho = h^\top z_{1:k} + f(\operatorname{asinh} z, m, u)

    for the first parameter, the location; the others are the network's alone.

    Args:
        loading: Weights of the first states in the location.
        latent_dim: Width of the state.
        context_dim: Width of memory and covariates.
        hidden: Widths of the hidden layers.
        size: Number of parameters.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> AnchoredNet(LocalLevel().loading, 2, 0, (8,), 3)(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        loading: RowLoading,
        latent_dim: int,
        context_dim: int,
        hidden: tuple[int, ...],
        size: int,
    ) -> None:
        super().__init__()
        self.loading, self.latent_dim = loading, latent_dim
        self.net = MLP(latent_dim + context_dim, hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        z, known = x.tensor_split((self.latent_dim,), -1)
        added = _SOFT * self.net(torch.cat([z.asinh(), known], -1))
        row = self.loading.row(known)
        line = (z[..., : self.loading.latent_dim] * row).sum(-1, keepdim=True)
        narrow = torch.zeros_like(added[..., 1:])
        narrow[..., :1] = _NARROW
        return torch.cat([added[..., :1] + line, added[..., 1:] + narrow], -1)
