"""What of a drawn series is seen: its length, and blocks and cells that are missing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqlatent.prior.grid import Grid
from seqlatent.prior.hyper import LogUniform, Scalar, Sometimes, Uniform

__all__ = ["Missing"]


@dataclass(frozen=True)
class Missing:
    """Which cells of a series are seen.

    Args:
        length: Part of the steps that a series has, at their end.
        least: Fewest steps that it has.
        cells: Part of its cells that are missing one by one.
        blocks: Probability at a step that a block of missing cells begins.
        block_length: Its length.
    """

    length: Scalar = 1.0
    least: int = 2
    cells: Scalar = Sometimes(0.1, LogUniform(0.01, 0.3))
    blocks: Scalar = Sometimes(0.1, 0.02)
    block_length: Scalar = Uniform(2.0, 12.0)

    def sample(self, grid: Grid) -> Tensor:
        """Which cells are seen ``(B, T)``."""
        length = (grid.scalar(self.length) * grid.steps).round().clamp(self.least, grid.steps)
        step = torch.arange(grid.steps)
        observed = step >= grid.steps - length
        cells, rate = grid.scalar(self.cells), grid.scalar(self.blocks)
        if bool((cells > 0).any()):
            observed = observed & (grid.uniform() >= cells)
        if bool((rate > 0).any()):
            begins = grid.uniform() < rate
            last = torch.where(begins, step, -grid.steps * 2).cummax(1).values
            observed = observed & (step - last >= grid.scalar(self.block_length).round())
        return observed
