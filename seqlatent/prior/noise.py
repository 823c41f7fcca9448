"""Noise of the observations: heavy tails, a volatility that moves or breaks, outliers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqlatent.prior.grid import Grid
from seqlatent.prior.hyper import LogUniform, Scalar, Sometimes

__all__ = ["Noise"]

_QUARTILES = 1.134  # of Student's distribution with three degrees of freedom, beside the normal's
_FAR = 12.0  # deviations beyond which a heavy tail is cut, so that no draw is all that is seen


@dataclass(frozen=True)
class Noise:
    r"""Noise of a series, in units of which its components are drawn.

    Args:
        scale: Standard deviation of the noise, of which 1 is the usual one.
        heavy: Whether it is Student's with three degrees of freedom (1) or normal (0).
        volatility: Standard deviation by which the logarithm of its variance walks at a step.
        break_rate: Probability at a step that its size changes for good.
        break_scale: Standard deviation of the logarithm of that change.
        outlier_rate: Probability of an outlier at a step.
        outlier_scale: Standard deviation of outliers.
    """

    scale: Scalar = LogUniform(0.05, 2.0)
    heavy: Scalar = Sometimes(0.35, 1.0)
    volatility: Scalar = Sometimes(0.3, LogUniform(0.01, 0.25))
    break_rate: Scalar = 0.0
    break_scale: Scalar = 0.7
    outlier_rate: Scalar = Sometimes(0.25, 0.015)
    outlier_scale: Scalar = 6.0

    def sample(self, grid: Grid) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Noise, outliers and the noise's scale ``(B, T)``, and the parameters ``(B, 1)``.

        The scale of heavy tails is the deviation that normal noise of the same quartiles has.
        """
        scale, heavy, volatility = (
            grid.scalar(x) for x in (self.scale, self.heavy, self.volatility)
        )
        rate, size = grid.scalar(self.outlier_rate), grid.scalar(self.outlier_scale)
        walk = torch.cumsum(volatility * grid.normal(), 1).clamp(-2, 2)
        breaks = grid.scalar(self.break_rate)
        if bool((breaks > 0).any()):
            change = grid.jumps(breaks, grid.scalar(self.break_scale))
            walk = walk + torch.cumsum(2 * change, 1).clamp(-4, 4)
        moving = scale * torch.exp(0.5 * walk)
        path = moving * self._standard(grid, heavy)
        outliers = scale * grid.jumps(rate, size)
        parameters = {
            "scale": scale,
            "heavy": heavy,
            "volatility": volatility,
            "outlier_rate": rate,
            "outlier_scale": size,
        }
        quartiles = torch.where(heavy > 0, 0.7 * _QUARTILES, 1.0)
        return path, outliers, moving * quartiles, parameters

    @staticmethod
    def _standard(grid: Grid, heavy: Tensor) -> Tensor:
        normal = grid.normal()
        if not bool((heavy > 0).any()):
            return normal
        chi = torch.stack([grid.normal().square() for _ in range(3)]).sum(0)
        student = normal / (chi / 3 + 1e-3).sqrt()
        return torch.where(heavy > 0, 0.7 * student.clamp(-_FAR, _FAR), normal)
