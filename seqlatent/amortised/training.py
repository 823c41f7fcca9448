"""Trains a network on drawn series; a run that was stopped goes on from its checkpoint."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqlatent.amortised.curriculum import Curriculum
from seqlatent.amortised.network import Network
from seqlatent.amortised.objective import loss
from seqlatent.files import replacing
from seqlatent.training import Deadline, Pace

__all__ = ["Trainer"]


class Trainer:
    """Trains one network.

    Args:
        curriculum: What it is trained on.
        steps: Steps of the whole training, over which the rate falls to nothing.
        seed: Seed of the first weights and of all that is drawn.
        lr: Highest learning rate.
        average: Share of the past that the averaged weights keep at a step.
        device: Where to compute; series are drawn on the CPU.
        half: Whether products of matrices are computed in bfloat16, which takes two thirds of the
            time on processors that have it.
        network: Sizes of the network, or a network whose copy is trained on.

    Attributes:
        network: The network that is trained.
        averaged: Its weights averaged over the last steps, which are those to use.
        step: Steps done.
        seconds: Seconds of the processor that they took.
    """

    def __init__(
        self,
        curriculum: Curriculum | None = None,
        *,
        steps: int = 30_000,
        seed: int = 0,
        lr: float = 1e-3,
        average: float = 0.998,
        device: str = "cpu",
        half: bool = True,
        network: dict[str, Any] | nn.Module | None = None,
    ) -> None:
        self.curriculum = Curriculum() if curriculum is None else curriculum
        self.steps, self.seed, self.lr, self.average = steps, seed, lr, average
        self.device, self.half = device, half
        self.network: Any
        if isinstance(network, nn.Module):
            self.network = copy.deepcopy(network).to(device).requires_grad_(True).train()
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.network = self._new(network or {}).to(device)
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.averaged = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr, weight_decay=1e-4)
        self.step, self.seconds = 0, 0.0
        self.losses: dict[str, float] = {}

    def run(
        self,
        checkpoint: Path | None = None,
        *,
        every: int = 500,
        report: Callable[["Trainer"], Any] = lambda trainer: None,
        deadline: Deadline | None = None,
    ) -> Any:
        """Trains to the end and returns the averaged network.

        Args:
            checkpoint: File that the run is kept in, and goes on from where it is there.
            every: Steps between checkpoints and reports.
            report: Called at each.
            deadline: By when the run ends, if the steps are not done before: the rate falls by the
                part of the time or of the steps that is spent, whichever is more.
        """
        deadline = Deadline() if deadline is None else deadline
        if checkpoint is not None and checkpoint.exists():
            self._restore(torch.load(checkpoint, weights_only=True))
        pace, in_time = Pace(deadline), True
        while in_time and self.step < self.steps:
            begun = time.process_time()
            for _ in range(min(every, self.steps - self.step)):
                in_time = pace.reaches()
                if not in_time:
                    break
                spent = 0.0 if deadline.never else deadline.spent / deadline.total
                self._step(max(spent, self.step / self.steps))
            self.seconds += time.process_time() - begun
            if checkpoint is not None:
                with replacing(checkpoint) as draft:
                    torch.save(self._state(), draft)
            report(self)
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.averaged)
        return network.eval()

    # --- what is trained, and by what ---------------------------------------------------------

    def _new(self, sizes: dict[str, Any]) -> Any:
        """A network with first weights."""
        return Network(**sizes)

    def _batch(self) -> Any:
        """The next batch, with its ``seasons``."""
        return self.curriculum.draw(self.generator).to(self.device)

    def _loss(self, batch: Any) -> Tensor:
        return loss(self.network, batch, generator=self.generator)

    def _step(self, done: float) -> None:
        """One step, when a part of the training is done."""
        rate = (
            self.lr * min(1, (self.step + 1) / 300) * max(0.01, (1 + math.cos(math.pi * done)) / 2)
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = self._batch()
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.half):
            value = self._loss(batch)
        self.optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        keep = min(self.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, weight in self.network.state_dict().items():
                self.averaged[name].lerp_(weight, 1 - keep)
        name = "x".join(str(m) for m in batch.seasons if m)
        self.losses[name] = 0.98 * self.losses.get(name, value.item()) + 0.02 * value.item()
        self.step += 1

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
