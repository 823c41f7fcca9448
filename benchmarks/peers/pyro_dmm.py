"""The deep Markov model in Pyro: step for step what Pyro's own example computes, without flows.

A gated transition, an emission network with two hidden layers, and a guide that reads a recurrent
network run backwards over the data. Model and guide are loops over time whose sites `Trace_ELBO`
scores one by one; the divergence is estimated at the sample. The optimiser clips gradients.

References:
    Pyro: Deep Universal Probabilistic Programming (Bingham et al., 2019); its Deep Markov Model
    example. https://pyro.ai/examples/dmm.html
"""

from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Normal
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, nn
from torch.nn.functional import softplus


class Transition(nn.Module):
    """Mean and scale of the next state: a gate between a linear move and a network."""

    def __init__(self, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = _two_layers(latent_dim, hidden_dim, latent_dim)
        self.proposal = _two_layers(latent_dim, hidden_dim, latent_dim)
        self.linear = nn.Linear(latent_dim, latent_dim)
        self.scale = nn.Linear(latent_dim, latent_dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        gate, proposal = torch.sigmoid(self.gate(z)), self.proposal(z)
        loc = (1 - gate) * self.linear(z) + gate * proposal
        return loc, softplus(self.scale(torch.relu(proposal)))


class Combiner(nn.Module):
    """Mean and scale of the guide's next state, from the last one and the future of the data."""

    def __init__(self, latent_dim: int, rnn_dim: int) -> None:
        super().__init__()
        self.state = nn.Linear(latent_dim, rnn_dim)
        self.loc = nn.Linear(rnn_dim, latent_dim)
        self.scale = nn.Linear(rnn_dim, latent_dim)

    def forward(self, z: Tensor, future: Tensor) -> tuple[Tensor, Tensor]:
        h = 0.5 * (torch.tanh(self.state(z)) + future)
        return self.loc(h), softplus(self.scale(h))


class DeepMarkov(nn.Module):
    """Model and guide."""

    def __init__(self, obs_dim: int, latent_dim: int, hidden_dim: int, rnn_dim: int) -> None:
        super().__init__()
        self.transition = Transition(latent_dim, hidden_dim)
        self.emission = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.ReLU(),
            _two_layers(hidden_dim, hidden_dim, obs_dim),
            nn.Sigmoid(),
        )
        self.combiner = Combiner(latent_dim, rnn_dim)
        self.rnn = nn.RNN(obs_dim, rnn_dim, nonlinearity="relu", batch_first=True)
        self.start = nn.Parameter(torch.zeros(latent_dim))
        self.guide_start = nn.Parameter(torch.zeros(latent_dim))
        self.rnn_start = nn.Parameter(torch.zeros(1, 1, rnn_dim))

    def model(self, y: Tensor, mask: Tensor, annealing: float) -> None:
        """Samples states and scores observations, one step after the other."""
        pyro.module("dmm", self)
        z = self.start.expand(len(y), -1)
        with pyro.plate("series", len(y)):
            for t in pyro.markov(range(y.shape[1])):
                seen = mask[:, t : t + 1]
                with poutine.scale(scale=annealing):
                    distribution = Normal(*self.transition(z)).mask(seen).to_event(1)
                    z = pyro.sample(f"z_{t}", distribution)
                observation = Bernoulli(self.emission(z)).mask(seen).to_event(1)
                pyro.sample(f"y_{t}", observation, obs=y[:, t])

    def guide(self, y: Tensor, mask: Tensor, annealing: float) -> None:
        """Samples states given the future of the data."""
        pyro.module("dmm", self)
        start = self.rnn_start.expand(1, len(y), -1).contiguous()
        future = self.rnn(y.flip(1), start)[0].flip(1)
        z = self.guide_start.expand(len(y), -1)
        with pyro.plate("series", len(y)):
            for t in pyro.markov(range(y.shape[1])):
                with poutine.scale(scale=annealing):
                    distribution = Normal(*self.combiner(z, future[:, t]))
                    z = pyro.sample(f"z_{t}", distribution.mask(mask[:, t : t + 1]).to_event(1))


def trainer(model: DeepMarkov, y: Tensor) -> Callable[[], object]:
    """One training step on a batch, as a function without arguments."""
    pyro.clear_param_store()
    adam = ClippedAdam({"lr": 3e-4, "betas": (0.96, 0.999), "clip_norm": 10.0, "lrd": 0.99996})
    svi = SVI(model.model, model.guide, adam, Trace_ELBO())
    mask = torch.ones(y.shape[:2])
    return lambda: svi.step(y, mask, 1.0)


def _two_layers(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))
