"""Longer seasons beside a shorter one: days of a week over hours of a day, years over weeks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seqlatent.prior.components import ComponentPrior
from seqlatent.prior.grid import Grid, Part
from seqlatent.prior.hyper import LogUniform, Scalar, Sometimes

__all__ = ["LongSeason"]


@dataclass(frozen=True)
class LongSeason(ComponentPrior):
    """The second season of a grid, where there is one.

    Where it is a whole number of the shorter ones, few enough to have a number each (the days of a
    week), it lifts or lowers each of them; else it is a sum of a few slow waves (a year).

    Args:
        amplitude: Standard deviation of the numbers, or size of the waves.
        weekend: Whether all are alike but the last two (1).
        waves: Most waves of a long season.
        name: What it is called.
    """

    amplitude: Scalar = Sometimes(0.6, LogUniform(0.1, 8.0))
    weekend: Scalar = Sometimes(0.5, 1.0)
    waves: int = 3
    name: str = "long_season"

    def sample(self, grid: Grid) -> Part:
        amplitude, weekend = grid.scalar(self.amplitude), grid.scalar(self.weekend)
        parameters = {"amplitude": amplitude, "weekend": weekend}
        if len(grid.season_lengths) < 2:
            return Part(torch.zeros(grid.series, grid.steps), parameters)
        short, long = grid.season_lengths[:2]
        step = torch.arange(grid.steps)
        if long % short == 0 and long // short <= 14:
            path = self._blocks(grid, amplitude, weekend, step // short, long // short)
        else:
            order = torch.arange(1, self.waves + 1)
            angle = step * (2 * math.pi / long)
            basis = torch.cat(
                [torch.cos(order[:, None] * angle), torch.sin(order[:, None] * angle)]
            )
            path = amplitude * (grid.normal(2 * self.waves) / torch.cat([order, order])) @ basis
        return Part(path, parameters)

    @staticmethod
    def _blocks(
        grid: Grid, amplitude: Tensor, weekend: Tensor, block: Tensor, blocks: int
    ) -> Tensor:
        each = grid.normal(blocks)
        two = torch.where(torch.arange(blocks) >= blocks - 2, each[:, -1:], 0.0)
        offset = amplitude * torch.where(weekend > 0, two, each)
        # series begin on any day
        first = (grid.uniform(1) * blocks).long()
        return torch.gather(offset, 1, (block + first) % blocks)
