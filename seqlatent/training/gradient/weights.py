"""Weights: copies of a model's state that are kept, averaged and put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seqlatent.training.gradient.batches import TrainingData

__all__ = []


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def copied(model: nn.Module) -> list[Tensor]:
    """Copies parameters and buffers."""
    return [x.detach().clone() for x in _state(model)]


def restore(model: nn.Module, values: list[Tensor]) -> None:
    """Puts copied values back in place."""
    with torch.no_grad():
        for x, value in zip(_state(model), values, strict=True):
            x.copy_(value)


@contextmanager
def in_double(
    model: nn.Module, data: TrainingData | None, held: TrainingData | None, wanted: bool
) -> Iterator[tuple[TrainingData | None, TrainingData | None]]:
    """Model and data in double precision for a while, where that is wanted and possible.

    A likelihood is a sum over all cells, and single precision rounds it by more than is worth a
    step. Buffers that training does not change come back as they were.
    """
    floating = [x for x in _state(model) if x.is_floating_point()]
    panels = [panel for panel in (data, held) if panel is not None]
    kinds = {x.dtype for x in floating} | {i.y.dtype for panel in panels for i in panel.items}
    place = floating[0].device.type
    if not wanted or kinds != {torch.float32} or place not in ("cpu", "cuda"):
        yield data, held
        return
    model.double()
    try:
        yield (
            None if data is None else data.to(torch.float64),
            None if held is None else held.to(torch.float64),
        )
    finally:
        model.float()


class Average:
    r"""Exponential moving average of a model's parameters.

    .. math:: \bar\theta_i = d_i \bar\theta_{i-1} + (1 - d_i)\, \theta_i, \quad
        d_i = \min(d, (1 + i) / (10 + i))

    The smaller decay of the first steps lets the average forget where training started. Buffers are
    not averaged.

    Args:
        model: Model to follow.
        decay: Decay :math:`d`, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.count = 0
        self.values = [p.detach().clone() for p in model.parameters()]

    def update(self) -> None:
        """Moves the average towards the current parameters."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        with torch.no_grad():
            for value, p in zip(self.values, self.model.parameters(), strict=True):
                value.lerp_(p, 1 - decay)

    def apply(self) -> None:
        """Puts the average into the model for good."""
        with torch.no_grad():
            for p, value in zip(self.model.parameters(), self.values, strict=True):
                p.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model for a while."""
        raw = copied(self.model)
        self.apply()
        try:
            yield
        finally:
            restore(self.model, raw)
