"""Longer seasons beside a shorter one: days of a week over hours of a day, years over weeks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seqlatent.prior.components import ComponentPrior, Season
from seqlatent.prior.grid import Grid, Part
from seqlatent.prior.hyper import LogUniform, Scalar, Sometimes

__all__ = ["LongSeason"]


@dataclass(frozen=True)
class LongSeason(ComponentPrior):
    """The second season of a grid, where there is one.

    Where it is a whole number of the shorter ones, few enough to have a number each (the days of a
    week), it lifts or lowers each of them, and the last two may have a pattern of their own; else
    it is a sum of a few slow waves (a year).

    Args:
        amplitude: Standard deviation of the numbers, or size of the waves.
        weekend: Whether all are alike but the last two (1).
        pattern: Standard deviation of the pattern that the last two shorter seasons have beside
            that of all.
        waves: Most waves of a long season.
        name: What it is called.
    """

    amplitude: Scalar = Sometimes(0.6, LogUniform(0.1, 8.0))
    weekend: Scalar = Sometimes(0.5, 1.0)
    pattern: Scalar = Sometimes(0.4, LogUniform(0.2, 8.0))
    waves: int = 3
    name: str = "long_season"

    def sample(self, grid: Grid) -> Part:
        amplitude, weekend = grid.scalar(self.amplitude), grid.scalar(self.weekend)
        pattern = grid.scalar(self.pattern)
        parameters = {"amplitude": amplitude, "weekend": weekend, "pattern": pattern}
        if len(grid.season_lengths) < 2:
            return Part(torch.zeros(grid.series, grid.steps), parameters)
        short, long = grid.season_lengths[:2]
        if long % short == 0 and long // short <= 14:
            path = self._blocks(grid, amplitude, weekend, pattern, short, long // short)
        else:
            order = torch.arange(1, self.waves + 1)
            angle = torch.arange(grid.steps) * (2 * math.pi / long)
            basis = torch.cat(
                [torch.cos(order[:, None] * angle), torch.sin(order[:, None] * angle)]
            )
            path = amplitude * (grid.normal(2 * self.waves) / torch.cat([order, order])) @ basis
        return Part(path, parameters)

    @staticmethod
    def _blocks(
        grid: Grid, amplitude: Tensor, weekend: Tensor, pattern: Tensor, short: int, blocks: int
    ) -> Tensor:
        each = grid.normal(blocks)
        last = torch.arange(blocks) >= blocks - 2
        offset = amplitude * torch.where(weekend > 0, torch.where(last, each[:, -1:], 0.0), each)
        # series begin on any day, at any step of it
        first = (grid.uniform(1) * blocks * short).long()
        step = torch.arange(grid.steps) + first
        day = (step // short) % blocks
        own = pattern * torch.gather(Season.shape(grid, short), 1, step % short)
        return torch.gather(offset, 1, day) + own * last[day]
