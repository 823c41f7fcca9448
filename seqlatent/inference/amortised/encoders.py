"""Encoders: networks that read observations into features for an amortised posterior."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from seqlatent.networks import Backbone
from seqlatent.sequences import Context, Sequences

__all__ = ["Encoder", "FilteringEncoder", "SmoothingEncoder"]

State = tuple[Tensor, ...]


class Encoder(nn.Module, ABC):
    """A network from observations, their mask, covariates, gaps and memory to features.

    Attributes:
        out_dim: Number of features ``E``.
        causal: Whether the features of a step read nothing after it.
    """

    out_dim: int
    causal: bool

    @abstractmethod
    def forward(self, sequences: Sequences, c: Context) -> Float[Tensor, "B T E"]:
        """Features of every step."""

    @abstractmethod
    def informed(self, sequences: Sequences) -> Bool[Tensor, "B T 1"]:
        """Whether the encoder's data say anything about a step beyond the state before it."""

    @staticmethod
    def input_dim(obs_dim: int, *, covariate_dim: int = 0, memory_dim: int = 0) -> int:
        """Number of input features that a backbone of an encoder must accept."""
        return 2 * obs_dim + covariate_dim + 1 + memory_dim


def _inputs(sequences: Sequences, c: Context, backbone: Backbone) -> Tensor:
    """Standardised values on the scale of asinh, mask, covariates, log gap, memory."""
    y = sequences.normalised
    x = torch.cat([y.asinh(), sequences.observed.to(y.dtype), c.u, c.dt.log(), c.m], -1)
    if x.shape[-1] != backbone.in_dim:
        raise ValueError(
            f"the backbone of an encoder must read {x.shape[-1]} features here, found one that "
            f"reads {backbone.in_dim}; size it with Encoder.input_dim({y.shape[-1]}, "
            f"covariate_dim={c.u.shape[-1]}, memory_dim={c.m.shape[-1]})."
        )
    return x


class FilteringEncoder(Encoder):
    """Causal encoder: the features of a step read that step and those before it.

    Args:
        backbone: Causal network over ``Encoder.input_dim(...)`` features.

    Example:
        >>> encoder = FilteringEncoder(seqlatent.networks.MinGRU(Encoder.input_dim(1), 8))
        >>> s = Sequences.of(torch.zeros(2, 5, 1))
        >>> encoder(s, Context.of(s, s.y[..., :0])).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.causal = True
        self.backbone = backbone
        self.out_dim = backbone.out_dim

    def forward(self, sequences: Sequences, c: Context) -> Float[Tensor, "B T E"]:
        return self.run(sequences, c, None)[0]

    def run(self, sequences: Sequences, c: Context, state: State | None) -> tuple[Tensor, State]:
        """Features, and the states after every step, continuing from a state."""
        return self.backbone(_inputs(sequences, c, self.backbone), state)

    def informed(self, sequences: Sequences) -> Bool[Tensor, "B T 1"]:
        return sequences.observed.any(-1, keepdim=True)


class SmoothingEncoder(Encoder):
    """Two-sided encoder: the features of a step read the whole series.

    The backward direction starts at each series' last observation, so that a padded tail changes
    nothing.

    Args:
        backward: Causal network run from the last observation to the first.
        forward: Causal network run from the first step on; None reads the present and future only,
            which is enough where the last state sums up the past.

    Example:
        >>> width = Encoder.input_dim(1)
        >>> SmoothingEncoder(*(seqlatent.networks.GRU(width, 8) for _ in range(2))).out_dim
        16

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017),
        section 3.
    """

    def __init__(self, backward: Backbone, forward: Backbone | None = None) -> None:
        super().__init__()
        self.causal = False
        self.backward_net = backward
        self.forward_net = forward
        self.out_dim = backward.out_dim + (0 if forward is None else forward.out_dim)

    def forward(self, sequences: Sequences, c: Context) -> Float[Tensor, "B T E"]:
        x = _inputs(sequences, c, self.backward_net)
        if bool((sequences.last == sequences.steps - 1).all()):  # nothing to leave in its place
            behind = self.backward_net(x.flip(1))[0].flip(1)
            if self.forward_net is None:
                return behind
            return torch.cat([behind, self.forward_net(x)[0]], -1)
        order = _mirror(sequences.last, sequences.steps)
        index = order[..., None]
        behind, _ = self.backward_net(x.gather(1, index.expand_as(x)))
        behind = behind.gather(1, index.expand_as(behind))
        if self.forward_net is None:
            return behind
        return torch.cat([behind, self.forward_net(x)[0]], -1)

    def informed(self, sequences: Sequences) -> Bool[Tensor, "B T 1"]:
        position = torch.arange(sequences.steps, device=sequences.y.device)
        return (position <= sequences.last[:, None])[..., None]


def _mirror(last: Int[Tensor, " B"], steps: int) -> Int[Tensor, "B T"]:
    """Order that reverses the steps up to ``last`` and leaves the rest; its own inverse."""
    position = torch.arange(steps, device=last.device)
    return torch.where(position <= last[:, None], last[:, None] - position, position)
