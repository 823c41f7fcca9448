"""Sequences, the batch object that every part reads."""

from collections.abc import Callable
from collections.abc import Sequence as Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from seqlatent.sequences.validation import (
    checked_cells,
    checked_codes,
    checked_per_series,
    checked_times,
    first_true,
    require_finite,
    require_float,
    require_horizon,
    require_shape,
)

__all__ = ["Sequences"]


@dataclass(frozen=True)
class Sequences:
    r"""A batch of partially observed series with times, covariates, static codes and scales.

    Every field is always there: no covariates means a width of zero, a missing value means
    ``observed=False`` with ``y=0``. Values stay in their own units; ``shift`` and ``scale`` travel
    beside them, and modules that want standardised values read :attr:`normalised`. Series of
    unequal length are padded with an unobserved tail, which changes no likelihood, so there is no
    field of lengths.

    Build one with :meth:`of`, which validates; the constructor itself trusts its arguments.

    Args:
        y: Values in their own units, zero where unobserved.
        observed: Whether a cell was observed.
        t: Time of each step in sampling steps, strictly increasing along a series; float64 whatever
            the type of the values, so that gaps stay exact however far from 0 the times are.
        u: Covariates known at each step.
        codes: Static categorical codes.
        shift: Location of each series and dimension, in units of ``y``.
        scale: Positive scale of each series and dimension, in units of ``y``.

    Shape:
        ``y``, ``observed`` ``(B, T, D)``; ``t`` ``(B, T)``; ``u`` ``(B, T, U)``; ``codes``
        ``(B, C)``; ``shift``, ``scale`` ``(B, D)``.

    Example:
        >>> s = Sequences.of(torch.tensor([[[1.0], [float("nan")], [3.0]]]))
        >>> s
        Sequences(batch=1, steps=3, obs_dim=1, covariate_dim=0, observed=66.7%, regular=True)
        >>> s.extend(2).steps
        5
    """

    y: Tensor
    observed: Tensor
    t: Tensor
    u: Tensor
    codes: Tensor
    shift: Tensor
    scale: Tensor
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        y: Tensor,
        *,
        observed: Tensor | None = None,
        t: Tensor | None = None,
        u: Tensor | None = None,
        codes: Tensor | None = None,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> "Sequences":
        """Validates tensors and builds the batch; NaN in ``y`` becomes a missing cell.

        Args:
            y: Values ``(B, T, D)``; NaN marks a missing cell.
            observed: Cells to read, ``(B, T, D)`` bool; defaults to all that are not NaN.
            t: Times ``(B, T)`` or ``(T,)`` shared by all series; defaults to 0, 1, 2, ...
            u: Covariates ``(B, T, U)``, finite everywhere.
            codes: Static categorical codes ``(B, C)``, integers from 0.
            shift: Location ``(B, D)``; defaults to 0.
            scale: Positive scale ``(B, D)``; defaults to 1.

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If a shape does not fit, a value is infinite, or times do not increase;
                names the series and the step.
        """
        require_float("y", y)
        if y.ndim != 3:
            hint = "; use y[None, :, None] for one univariate series" if y.ndim == 1 else ""
            raise ValueError(
                "y must have shape (B, T, D) = (series, steps, observed dimensions), found "
                f"{tuple(y.shape)}{hint}."
            )
        batch, steps, obs_dim = y.shape
        if y.numel() == 0:
            raise ValueError(
                "y must hold at least one series, one step and one dimension, found "
                f"{tuple(y.shape)}; a series without a past is one missing step."
            )
        y, observed = checked_cells(y, observed)
        like = {"dtype": y.dtype, "device": y.device}
        if t is None:
            t = torch.arange(steps, dtype=torch.float64, device=y.device).expand(batch, steps)
        else:
            t = checked_times(t, batch, steps, y.device)
        if u is None:
            u = y.new_zeros(batch, steps, 0)
        else:
            require_float("u", u)
            require_shape("u", u, (batch, steps, None), "(B, T, U)")
            require_finite("u", u)
        if codes is None:
            codes = torch.zeros(batch, 0, dtype=torch.long, device=y.device)
        else:
            codes = checked_codes(codes, batch)
        shift = checked_per_series("shift", shift, batch, obs_dim, y.new_zeros(batch, obs_dim))
        scale = checked_per_series("scale", scale, batch, obs_dim, y.new_ones(batch, obs_dim))
        if not bool((scale > 0).all()):
            b, d = first_true(scale <= 0)
            raise ValueError(
                f"scale must be positive, found {scale[b, d].item():g} at series {b}, dimension "
                f"{d}; use 1 for a constant series."
            )
        return cls(
            y, observed, t, u.to(**like), codes.to(y.device), shift.to(**like), scale.to(**like)
        )

    @classmethod
    def collate(cls, items: Collection["Sequences"]) -> "Sequences":
        """Stacks batches into one, padding the shorter ones with an unobserved tail.

        Nothing tells that tail from missing values: a belief that is to stand at each series' last
        observation is ``model.belief(batch, end=False)``.

        Args:
            items: Batches that agree in ``D``, ``U`` and ``C``.

        Raises:
            ValueError: If there is nothing to collate, or widths disagree.
        """
        if len(items) == 0:
            raise ValueError("collate needs at least one Sequences, found an empty list.")
        first = items[0]
        for i, item in enumerate(items):
            for name in ("obs_dim", "covariate_dim"):
                if getattr(item, name) != getattr(first, name):
                    raise ValueError(
                        f"all Sequences must agree in {name}: item 0 has {getattr(first, name)}, "
                        f"item {i} has {getattr(item, name)}."
                    )
            if item.codes.shape[1] != first.codes.shape[1]:
                raise ValueError(
                    f"all Sequences must have the same number of static codes: item 0 has "
                    f"{first.codes.shape[1]}, item {i} has {item.codes.shape[1]}."
                )
        steps = max(item.steps for item in items)
        padded = [
            item if item.steps == steps else item.extend(steps - item.steps) for item in items
        ]
        return cls(*(torch.cat([getattr(p, name) for p in padded]) for name in _NAMES))

    @property
    def batch(self) -> int:
        """Number of series ``B``."""
        return self.y.shape[0]

    @property
    def steps(self) -> int:
        """Number of steps ``T``."""
        return self.y.shape[1]

    @property
    def obs_dim(self) -> int:
        """Number of observed dimensions ``D``."""
        return self.y.shape[2]

    @property
    def covariate_dim(self) -> int:
        """Number of covariates ``U``."""
        return self.u.shape[2]

    @property
    def dt(self) -> Tensor:
        """Gap before each step ``(B, T)``, in the type of ``y``; the first is 1."""
        return self._cached("dt", self._gaps)

    def _gaps(self) -> Tensor:
        gaps = torch.cat([torch.ones_like(self.t[:, :1]), self.t.diff(dim=1)], 1)
        return gaps.to(self.y.dtype)  # subtracted before they are rounded

    @property
    def regular(self) -> bool:
        """Whether every gap is one sampling step."""
        return self._cached("regular", lambda: bool((self.dt == 1).all()))

    @property
    def complete(self) -> bool:
        """Whether every cell was observed."""
        return self._cached("complete", lambda: bool(self.observed.all()))

    @property
    def normalised(self) -> Tensor:
        """``(y - shift) / scale`` where observed, else 0; ``(B, T, D)``."""
        return self._cached("normalised", self._normalised)

    def _normalised(self) -> Tensor:
        z = (self.y - self.shift[:, None]) / self.scale[:, None]
        return torch.where(self.observed, z, torch.zeros_like(z))

    @property
    def log_units(self) -> Tensor:
        """Sum of the log scales of all observed cells ``(B,)``: densities in units of the data."""
        return self._cached("log_units", self._log_units)

    def _log_units(self) -> Tensor:
        return (self.observed * self.scale.log()[:, None]).sum((-1, -2))

    @property
    def last(self) -> Tensor:
        """Index of the last step with any observed cell ``(B,)``, -1 where there is none."""
        return self._cached("last", self._last)

    def _last(self) -> Tensor:
        position = torch.arange(self.steps, device=self.y.device)
        seen = torch.where(self.observed.any(-1), position, position.new_tensor(-1))
        return seen.amax(1)

    def _cached(self, name: str, compute: Callable[[], Any]) -> Any:
        # What is part of a graph, or was made in inference mode, must not be used a second time.
        live = any(x.requires_grad for x in (self.y, self.t, self.shift, self.scale))
        if live or torch.is_inference_mode_enabled():
            return compute()
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def extend(
        self, horizon: int, *, u: Tensor | None = None, t: Tensor | None = None
    ) -> "Sequences":
        """Appends unobserved steps; forecasting and padding are both this.

        Args:
            horizon: Number of steps to append, at least 1.
            u: Covariates of the new steps ``(B, H, U)``; zeros by default, which is right for
                padding only.
            t: Times of the new steps ``(B, H)`` or ``(H,)``; one sampling step apart by default.

        Raises:
            ValueError: If ``horizon < 1``, or shapes or times do not fit.
        """
        require_horizon(horizon)
        batch, obs_dim = self.batch, self.obs_dim
        last = self.t[:, -1:]
        if t is None:
            t = last + torch.arange(1, horizon + 1, dtype=last.dtype, device=last.device)
        else:
            t = checked_times(t, batch, horizon, last.device)
            if not bool((t[:, :1] > last).all()):
                b, _ = first_true(t[:, :1] <= last)
                raise ValueError(
                    f"new times must come after the last one: series {b} ends at "
                    f"t={last[b, 0].item():g} and is extended from t={t[b, 0].item():g}."
                )
        if u is None:
            u = self.u.new_zeros(batch, horizon, self.covariate_dim)
        else:
            require_float("u", u)
            require_shape("u", u, (batch, horizon, self.covariate_dim), "(B, H, U)")
            require_finite("u", u)
        return replace(
            self,
            y=torch.cat([self.y, self.y.new_zeros(batch, horizon, obs_dim)], 1),
            observed=torch.cat(
                [self.observed, self.observed.new_zeros(batch, horizon, obs_dim)], 1
            ),
            t=torch.cat([self.t, t], 1),
            u=torch.cat([self.u, u.to(self.u)], 1),
        )

    def select(self, index: Tensor | slice) -> "Sequences":
        """Picks series by index, mask or slice."""
        return Sequences(*(getattr(self, name)[index] for name in _NAMES))

    def window(self, start: int, stop: int) -> "Sequences":
        """Cuts the steps ``start`` to ``stop - 1`` out of every series."""
        if not 0 <= start < stop <= self.steps:
            raise ValueError(
                f"a window must satisfy 0 <= start < stop <= {self.steps}, found start={start}, "
                f"stop={stop}."
            )
        cut = {name: getattr(self, name)[:, start:stop] for name in ("y", "observed", "t", "u")}
        return replace(self, **cut)

    def hide(self, hidden: Tensor) -> "Sequences":
        """Marks cells ``(B, T, D)`` as missing."""
        observed = self.observed & ~hidden
        return replace(self, y=torch.where(observed, self.y, 0.0), observed=observed)

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Sequences":
        """Moves to a device and casts the floating fields, but for the times."""
        moved = {}
        for name in _NAMES:
            value = getattr(self, name)
            cast = value.is_floating_point() and name != "t"
            moved[name] = value.to(device=device, dtype=dtype if cast else None)
        return Sequences(**moved)

    def __repr__(self) -> str:
        share = 100 * self.observed.float().mean().item() if self.observed.numel() else 100.0
        return (
            f"Sequences(batch={self.batch}, steps={self.steps}, obs_dim={self.obs_dim}, "
            f"covariate_dim={self.covariate_dim}, observed={share:.1f}%, regular={self.regular})"
        )


_NAMES = tuple(f.name for f in fields(Sequences) if f.name != "_cache")
