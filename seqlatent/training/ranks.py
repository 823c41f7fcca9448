"""Ranks: the processes that train one model together, each on its share of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seqlatent.sequences import Sequences

__all__ = ["Ranks", "Scored", "joined"]


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one of one where there are no others.

    Args:
        rank: Number of this process.
        count: Number of processes.
        device: Where the exchange takes place.
    """

    rank: int
    count: int
    device: torch.device

    def total(self, *values: float) -> list[float]:
        """Sums of numbers over all ranks."""
        if self.count == 1:
            return list(values)
        both = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(both)
        return both.tolist()

    def any(self, here: bool) -> bool:
        """Whether something is true on any rank."""
        return self.total(float(here))[0] > 0

    def wrap(self, scored: "Scored") -> nn.Module:
        """Lets the backward pass average gradients over ranks; all start with rank 0's weights."""
        if self.count == 1:
            return scored
        scored.touch = True
        return DistributedDataParallel(scored, broadcast_buffers=False)


class Scored(nn.Module):
    """A model under an objective, as a module whose forward pass can be distributed.

    Args:
        model: The model.
        objective: Function of model and sequences.
    """

    def __init__(self, model: nn.Module, objective: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.touch = False

    def forward(self, sequences: Sequences, keywords: dict[str, Any]) -> Tensor:
        values = self.objective(self.model, sequences, **keywords)
        if not self.touch:
            return values
        # Ranks wait for every parameter's gradient, also where a batch leaves one unused.
        return (
            values
            + 0.0 * torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad]).sum()
        )


def chosen_device(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Where to train: as asked, else where the model is; several processes each have their own."""
    place = next(model.parameters()).device if device is None else torch.device(device)
    if place.type == "cuda" and place.index is None:
        local = os.environ.get("LOCAL_RANK")
        return torch.device("cuda", torch.cuda.current_device() if local is None else int(local))
    return place


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Joins the other processes, if there are any, and leaves the group only if it was joined here.

    Args:
        device: Where this process trains.
    """
    if not dist.is_available():
        yield Ranks(0, 1, device)
        return
    launched = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()
    own = launched and not dist.is_initialized() and int(os.environ["WORLD_SIZE"]) > 1
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.is_initialized():
            yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield Ranks(0, 1, device)
    finally:
        if own:
            dist.destroy_process_group()
