"""Units of series: robust levels and sizes of steps."""

import torch
from torch import Tensor

__all__ = ["VAGUE", "VARIED", "completed", "standards"]

VAGUE = 20.0  # standard deviation of a first level, in usual steps
_DIGITS = 1e-13  # differences of this part of the level are those of rounding
VARIED = 1.2  # greatest over least value of a series, above which its logarithm is no line of it
_ORDERS = 30.0  # quartiles of steps so far apart are of different orders


def standards(y: Tensor, season_length: int) -> tuple[Tensor, Tensor]:
    """Mean of the first season of values, and the usual size of a difference over a season.

    Where a season is not seen twice it is the difference of neighbours, or of a value and the one
    before it, however many rows lie between. What is smaller than the digits of the values is none:
    there a small part of the distance from the mean stands in its place. Series of one value have
    no difference of their own, and those without a value no level: see :func:`completed`.

    Args:
        y: Values ``(B, T)``, NaN where nothing was observed.
        season_length: Steps of a season.

    Returns:
        Two tensors ``(B, 1)``; NaN where a series does not say.
    """
    seen = ~y.isnan()
    order = seen.cumsum(1)
    shift = y.where(seen & (order <= max(season_length, 1)), torch.nan).nanmean(1)
    size = y.abs().nanmean(1)
    step = torch.arange(y.shape[1], device=y.device).expand_as(y)
    before = torch.where(seen, step, -1).cummax(1).values[:, :-1]
    apart = (y[:, 1:] - y.gather(1, before.clamp_min(0))).abs().where(before >= 0, torch.nan)
    scale = apart.nanmean(1)
    for lag, least in ((1, 1.0), (season_length, 0.5 * season_length + 1)):
        if lag < y.shape[1]:
            found = (y[:, lag:] - y[:, :-lag]).abs()
            scale = torch.where((~found.isnan()).sum(1) > least, found.nanmean(1), scale)
    away = (y - shift[:, None]).abs().nanmean(1)
    # a series that repeats itself has a width too, and so has a constant one
    floor = 1e-4 * torch.where(away > _DIGITS * size, away, size)
    scale = torch.where(scale <= _DIGITS * size, floor, scale)
    return shift[:, None], scale[:, None]


def completed(
    shift: Tensor, scale: Tensor, usual: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Shift and scale of series that do not say theirs, as the others have them.

    A series without a value stands where the middle one of the others stands, as far from it as
    they are from each other: its first level lies within so many usual steps as a wide prior does.
    One value takes the usual step, relative to the level where the steps of the others are of
    different orders.

    Args:
        shift: Levels ``(B, 1)``, NaN where a series has no value.
        scale: Usual steps ``(B, 1)``, NaN where a series has fewer than two, 0 where all its values
            are.
        usual: Levels and steps of the series to take them from; of those given by default.
    """
    level, step = (shift, scale) if usual is None else usual
    known = (step > 0) & level.isfinite()
    if not bool(known.any()):
        step_of = torch.where(shift.abs() > 0, 0.1 * shift.abs(), torch.ones_like(scale))
        return shift.nan_to_num(0.0), torch.where(scale > 0, scale, step_of)
    level, step = level[known], step[known]
    middle, typical = level.median(), step.median()
    spread = 1.4826 * (level - middle).abs().median()  # that of a normal distribution
    ends = step.quantile(step.new_tensor([0.25, 0.75]))
    relative = (step / level.abs().clamp_min(torch.finfo(step.dtype).tiny)).median()
    alike = bool(ends[1] <= _ORDERS * ends[0])
    alone = typical.expand_as(scale) if alike else relative * shift.abs()
    alone = torch.where(alone > 0, alone, typical)
    wide = torch.maximum(spread, typical) / VAGUE
    found = torch.where(scale.isnan(), torch.where(shift.isnan(), wide, alone), scale)
    return shift.where(shift.isfinite(), middle), torch.where(found > 0, found, 1e-4 * typical)
