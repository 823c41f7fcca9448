"""Ranks: the processes that train one model together, each on its share of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

__all__ = []


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one of one where there are no others.

    Gradients are exchanged as one tensor after the backward pass, which is also what
    ``DistributedDataParallel`` does with a model of up to some million parameters. Here nothing
    stays behind on the parameters, none of them must take part in every step, and the group can be
    left at once.

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
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def any(self, here: bool) -> bool:
        """Whether something is true on any rank."""
        return self.total(float(here))[0] > 0

    def begin(self, model: nn.Module) -> None:
        """Gives every rank the weights of rank 0."""
        if self.count > 1:
            with torch.no_grad():
                for x in (*model.parameters(), *model.buffers()):
                    dist.broadcast(x, 0)

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sums gradients over ranks; a parameter that none of them used keeps having none."""
        if self.count == 1:
            return
        used = [p.grad is not None for p in parameters]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in grads] + [grads[0].new_tensor(used)])
        dist.all_reduce(flat)
        *pieces, used_by = flat.split([p.numel() for p in parameters] + [len(parameters)])
        for p, piece, users in zip(parameters, pieces, used_by.tolist(), strict=True):
            p.grad = piece.to(p.dtype).view_as(p) if users else None


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
        _join(device)
    try:
        if dist.is_initialized():
            yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield Ranks(0, 1, device)
    finally:
        if own:
            dist.destroy_process_group()


def _join(device: torch.device) -> None:
    """Joins the group that torchrun's environment describes, also for a second and third time."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    # the store outlives a group and holds its addresses: every group needs a prefix of its own
    generation = (store.add("seqlatent/joined", 1) - 1) // count
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"seqlatent/{generation}", store),  # pyright: ignore[reportPrivateImportUsage]
        rank=rank,
        world_size=count,
    )
