"""Rows, values of a panel with each series at the start of its row."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqlatent.forecasting.features.units import completed, standards
from seqlatent.sequences import Sequences

__all__ = ["Rows", "prepared"]


@dataclass(frozen=True)
class Rows:
    """Values of a panel, each series at the start of its row, and the clock that it had.

    Args:
        y: Values ``(B, T)``, NaN where nothing was observed.
        t: Times ``(B, T)``.
        codes: Row of parameters of each series ``(B,)``.
        u: Covariates ``(B, T, U)``.
        season_length: Steps of the season by which scales are taken.
        outlying: Which values no parameter is to be fitted to ``(B, T)``; None for none.
    """

    y: Tensor
    t: Tensor
    codes: Tensor
    u: Tensor
    season_length: int
    outlying: Tensor | None = None

    def select(self, index: Tensor) -> "Rows":
        """Picks series by index."""
        out = None if self.outlying is None else self.outlying[index]
        return replace(
            self,
            y=self.y[index],
            t=self.t[index],
            codes=self.codes[index],
            u=self.u[index],
            outlying=out,
        )

    def sequences(self, log: bool) -> Sequences:
        """The batch object, standardised by the usual size of a seasonal difference.

        Outlying values are missing in it, and count in its units.
        """
        y = self.y.clamp_min(torch.finfo(self.y.dtype).tiny).log() if log else self.y
        shift, scale = completed(*standards(y, self.season_length))
        if self.outlying is not None:
            y = y.masked_fill(self.outlying, torch.nan)
        return Sequences.of(
            y[..., None], t=self.t, u=self.u, codes=self.codes[:, None], shift=shift, scale=scale
        )


def prepared(
    y: Tensor,
    season_length: int,
    rows: int,
    codes: Tensor | None = None,
    u: Tensor | None = None,
) -> Rows:
    """Moves each series to the start of its row, without what lies before its last rows."""
    batch, steps = y.shape
    seen = ~y.isnan()
    step = torch.arange(steps, device=y.device)
    first = torch.where(seen, step, steps).amin(1).clamp_max(steps - 1)
    last = torch.where(seen, step, -1).amax(1)
    first = torch.maximum(first, last + 1 - rows)
    width = max(int((last + 1 - first).max()), 1)
    place = first[:, None] + torch.arange(width, device=y.device)
    inside = place <= last[:, None]
    values = y.gather(1, place.clamp_max(steps - 1))
    known = y.new_zeros(batch, steps, 0) if u is None else u.to(y)
    known = at(known, place) * inside[..., None]
    codes = torch.arange(batch, device=y.device) if codes is None else codes
    values = torch.where(inside, values, torch.nan)
    return Rows(values, place.to(y.dtype), codes, known, season_length)


def at(u: Tensor, index: Tensor) -> Tensor:
    """Rows of ``u (B, T, U)`` at ``index (B, H)``, the last one where there is none."""
    index = index.clamp_max(u.shape[1] - 1)[..., None].expand(*index.shape, u.shape[-1])
    return u.gather(1, index)


def without_end(data: Rows, horizon: int) -> Rows:
    """Hides the last steps of each series: as many as the horizon, at most a third of it."""
    steps = length(data.y)
    hide = torch.minimum(torch.full_like(steps, horizon), steps // 3)
    step = torch.arange(data.y.shape[1], device=data.y.device)
    keep = step < (steps - hide)[:, None]
    return replace(data, y=torch.where(keep, data.y, torch.nan))


def hidden(data: Rows, short: Rows, horizon: int) -> Tensor:
    """What was hidden after the end of each series ``(B, H)``, NaN where there is nothing."""
    place = length(short.y)[:, None] + torch.arange(horizon, device=data.y.device)
    return torch.nn.functional.pad(data.y, (0, horizon), value=torch.nan).gather(1, place)


def length(y: Tensor) -> Tensor:
    """Steps up to the last value of each series ``(B,)``."""
    step = torch.arange(1, y.shape[1] + 1, device=y.device)
    return torch.where(~y.isnan(), step, 0).amax(1)
