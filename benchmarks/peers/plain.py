"""Deep sequence models as research scripts write them: one loop over time under autograd.

At each step the loop advances the recurrent cells, forms prior and posterior, draws, emits, and
adds the step's terms to the bound; normal densities and divergences are written out by hand. The
equations are those of `seqlatent.zoo`, with gated recurrent units as recurrent networks.

References:
    Sequential Neural Models with Stochastic Layers (Fraccaro et al., 2016).
    A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Gated(nn.Module):
    """Mean and scale of the next state: a gate between a decaying move and a network."""

    def __init__(self, latent_dim: int, context_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent_dim + context_dim, hidden_dim)
        self.gate = nn.Linear(hidden_dim, latent_dim)
        self.proposal = nn.Linear(hidden_dim, latent_dim)
        self.scale = nn.Linear(hidden_dim, latent_dim)
        self.decay = nn.Parameter(torch.full((latent_dim,), 2.0))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.hidden(torch.cat([z, context], -1)))
        gate = torch.sigmoid(self.gate(x))
        loc = (1 - gate) * torch.tanh(self.decay) * z + gate * self.proposal(x)
        return loc, softplus(self.scale(x)) + 1e-4


class SRNN(nn.Module):
    """A state space model on top of a recurrent network; the posterior tilts the prior.

    Args:
        obs_dim: Observed dimensions.
        latent_dim: Latent dimensions.
        hidden_dim: Width of all hidden layers and recurrent states.
        fused: Whether the two networks that read data alone are `torch.nn.GRU`, rather than cells
            advanced inside Python loops.
    """

    def __init__(self, obs_dim: int, latent_dim: int, hidden_dim: int, *, fused: bool) -> None:
        super().__init__()
        self.latent_dim, self.fused = latent_dim, fused
        kind = _Layer if fused else _Cells
        self.memory = kind(obs_dim, hidden_dim)
        self.backward_net = kind(obs_dim + hidden_dim, hidden_dim)
        self.potential = nn.Linear(hidden_dim, 2 * latent_dim)
        self.transition = Gated(latent_dim, hidden_dim, hidden_dim)
        self.emission = _network(latent_dim + hidden_dim, hidden_dim, 2 * obs_dim)

    def forward(self, y: Tensor) -> Tensor:
        """The evidence lower bound of each series."""
        memory = self.memory(torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1))
        future = self.backward_net(torch.cat([y, memory], -1).flip(1)).flip(1)
        z, bound = y.new_zeros(len(y), self.latent_dim), y.new_zeros(len(y))
        for t in range(y.shape[1]):
            d = memory[:, t]
            loc, scale = self.transition(z, d)
            centre, raw = self.potential(future[:, t]).chunk(2, -1)
            gain = softplus(raw) * scale.square()
            q_loc, q_scale = (loc + gain * centre) / (1 + gain), scale / (1 + gain).sqrt()
            z = q_loc + q_scale * torch.randn_like(q_scale)
            mean, spread = self.emission(torch.cat([z, d], -1)).chunk(2, -1)
            bound = bound + _normal(y[:, t], mean, softplus(spread) + 1e-4)
            bound = bound - _divergence(q_loc, q_scale, loc, scale)
        return bound


class VRNN(nn.Module):
    """A recurrent network that reads its own latents; the posterior reads its state and y."""

    def __init__(self, obs_dim: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.hidden_dim = latent_dim, hidden_dim
        self.embed_y = nn.Sequential(nn.Linear(obs_dim, hidden_dim), nn.SiLU())
        self.embed_z = nn.Sequential(nn.Linear(latent_dim, hidden_dim), nn.SiLU())
        self.cell = nn.GRUCell(2 * hidden_dim, hidden_dim)
        self.prior = _network(hidden_dim, hidden_dim, 2 * latent_dim)
        self.posterior = _network(2 * hidden_dim, hidden_dim, 2 * latent_dim)
        self.emission = _network(latent_dim + hidden_dim, hidden_dim, 2 * obs_dim)

    def forward(self, y: Tensor) -> Tensor:
        """The evidence lower bound of each series."""
        h, bound = y.new_zeros(len(y), self.hidden_dim), y.new_zeros(len(y))
        for t in range(y.shape[1]):
            x = self.embed_y(y[:, t])
            loc, scale = self.prior(h).chunk(2, -1)
            q_loc, q_scale = self.posterior(torch.cat([x, h], -1)).chunk(2, -1)
            scale, q_scale = softplus(scale) + 1e-4, softplus(q_scale) + 1e-4
            z = q_loc + q_scale * torch.randn_like(q_scale)
            mean, spread = self.emission(torch.cat([z, h], -1)).chunk(2, -1)
            bound = bound + _normal(y[:, t], mean, softplus(spread) + 1e-4)
            bound = bound - _divergence(q_loc, q_scale, loc, scale)
            h = self.cell(torch.cat([x, self.embed_z(z)], -1), h)
        return bound


class _Cells(nn.Module):
    """A recurrent network as a loop over its cell."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(in_dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        h, path = x.new_zeros(len(x), self.cell.hidden_size), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            path.append(h)
        return torch.stack(path, 1)


class _Layer(nn.Module):
    """The same network in one call."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(in_dim, hidden_dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


def _network(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, out_dim))


def _normal(y: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    log_prob = -0.5 * ((y - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return log_prob.sum(-1)


def _divergence(q_loc: Tensor, q_scale: Tensor, p_loc: Tensor, p_scale: Tensor) -> Tensor:
    ratio = q_scale / p_scale
    shift = (q_loc - p_loc) / p_scale
    return 0.5 * (ratio.square() + shift.square() - 1 - 2 * ratio.log()).sum(-1)
