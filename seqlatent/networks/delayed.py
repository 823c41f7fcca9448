"""A backbone that also reads inputs of earlier steps."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seqlatent.networks.backbones import Backbone
from seqlatent.networks.perceptron import check_sizes

__all__ = ["Delayed"]


class Delayed(Backbone):
    r"""A backbone that reads the present input and some features of it as they were before.

    .. math:: o_t = \mathrm{inner}([x_t, \tilde x_{t-l_1}, \dots, \tilde x_{t-l_n}]), \qquad
        \tilde x = \text{the first features of } x

    A recurrent state has to carry what happened a season ago through every step since; here it is
    an input. Before the first step delayed features are 0.

    Args:
        inner: Backbone over ``Delayed.input_dim(in_dim, lags, features)`` features.
        in_dim: Number of input features.
        lags: Steps back, each at least 1.
        features: How many of the first features are delayed.

    Shape:
        As :class:`Backbone`; before the states of the inner backbone comes one with the delayed
        features of the last ``max(lags)`` steps.

    Raises:
        ValueError: If the inner backbone has another width, or lags are not positive integers.

    Example:
        >>> from seqlatent.networks import MinGRU
        >>> inner = MinGRU(Delayed.input_dim(3, (1, 12), 2), 16)
        >>> Delayed(inner, 3, (1, 12), 2)(torch.zeros(4, 20, 3))[0].shape
        torch.Size([4, 20, 16])
    """

    def __init__(self, inner: Backbone, in_dim: int, lags: Sequence[int], features: int) -> None:
        super().__init__()
        check_sizes("Delayed", 0, in_dim=in_dim, features=features)
        lags = tuple(lags)
        if any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in lags):
            raise ValueError(f"lags must be integers of at least 1, found {lags}.")
        width = self.input_dim(in_dim, lags, features)
        if features > in_dim or inner.in_dim != width:
            raise ValueError(
                f"the inner backbone must read {width} features, found one that reads "
                f"{inner.in_dim}; size it with Delayed.input_dim({in_dim}, lags, features), where "
                "features is at most in_dim."
            )
        self.inner = inner
        self.in_dim, self.out_dim = in_dim, inner.out_dim
        self.lags, self.features = lags, features
        self.depth = max(lags, default=0)

    @staticmethod
    def input_dim(in_dim: int, lags: Sequence[int], features: int) -> int:
        """Number of input features that the inner backbone must accept."""
        return in_dim + len(tuple(lags)) * features

    def forward(
        self, x: Float[Tensor, "*S T I"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "*S2 T O"], tuple[Tensor, ...]]:
        lead, steps = x.shape[:-2], x.shape[-2]
        state = self.initial(lead, x) if state is None else state
        buffer = state[0].unflatten(-1, (self.depth, self.features))
        buffer = buffer.expand(*lead, *buffer.shape[-2:])
        history = torch.cat([buffer, x[..., : self.features]], -2)
        delayed = [history[..., self.depth - k : self.depth - k + steps, :] for k in self.lags]
        out, states = self.inner(torch.cat([x, *delayed], -1), state[1:])
        # after step t the buffer holds the rows that end with t
        rows = torch.arange(1, steps + 1, device=x.device)[:, None]
        rows = rows + torch.arange(self.depth, device=x.device)
        return out, (history[..., rows, :].flatten(-2), *states)

    def step(
        self, x: Float[Tensor, "*S I"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*S2 O"], tuple[Tensor, ...]]:
        out, states = self(x[..., None, :], state)
        return out[..., 0, :], tuple(s[..., 0, :] for s in states)

    def initial(self, batch_shape: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
        buffer = like.new_zeros(*batch_shape, self.depth * self.features)
        return (buffer, *self.inner.initial(batch_shape, like))

    def extra_repr(self) -> str:
        return f"lags={self.lags}, features={self.features}"
