"""Sequences, the batch object that every part reads, and Context, what a step may condition on."""

from collections.abc import Callable
from collections.abc import Sequence as Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Context", "Sequences"]


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
        t: Time of each step in sampling steps, strictly increasing along a series.
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
        _require_float("y", y)
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
        y, observed = _missing(y, observed)
        like = {"dtype": y.dtype, "device": y.device}
        if t is None:
            t = torch.arange(steps, **like).expand(batch, steps)
        else:
            t = _times(t, batch, steps, y)
        if u is None:
            u = y.new_zeros(batch, steps, 0)
        else:
            _require_float("u", u)
            _require_shape("u", u, (batch, steps, None), "(B, T, U)")
            _require_finite("u", u)
        if codes is None:
            codes = torch.zeros(batch, 0, dtype=torch.long, device=y.device)
        else:
            codes = _codes(codes, batch)
        shift = _per_series("shift", shift, batch, obs_dim, y.new_zeros(batch, obs_dim))
        scale = _per_series("scale", scale, batch, obs_dim, y.new_ones(batch, obs_dim))
        if not bool((scale > 0).all()):
            b, d = _first(scale <= 0)
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
        """Gap before each step ``(B, T)``; the first is 1."""
        return self._cached(
            "dt", lambda: torch.cat([torch.ones_like(self.t[:, :1]), self.t.diff(dim=1)], 1)
        )

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
        _require_horizon(horizon)
        batch, obs_dim = self.batch, self.obs_dim
        last = self.t[:, -1:]
        if t is None:
            t = last + torch.arange(1, horizon + 1, dtype=last.dtype, device=last.device)
        else:
            t = _times(t, batch, horizon, last)
            if not bool((t[:, :1] > last).all()):
                b, _ = _first(t[:, :1] <= last)
                raise ValueError(
                    f"new times must come after the last one: series {b} ends at "
                    f"t={last[b, 0].item():g} and is extended from t={t[b, 0].item():g}."
                )
        if u is None:
            u = self.u.new_zeros(batch, horizon, self.covariate_dim)
        else:
            _require_float("u", u)
            _require_shape("u", u, (batch, horizon, self.covariate_dim), "(B, H, U)")
            _require_finite("u", u)
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
        """Moves to a device and casts the floating fields."""
        moved = {}
        for name in _NAMES:
            value = getattr(self, name)
            moved[name] = value.to(
                device=device, dtype=dtype if value.is_floating_point() else None
            )
        return Sequences(**moved)

    def __repr__(self) -> str:
        share = 100 * self.observed.float().mean().item() if self.observed.numel() else 100.0
        return (
            f"Sequences(batch={self.batch}, steps={self.steps}, obs_dim={self.obs_dim}, "
            f"covariate_dim={self.covariate_dim}, observed={share:.1f}%, regular={self.regular})"
        )


_NAMES = tuple(f.name for f in fields(Sequences) if f.name != "_cache")


@dataclass(frozen=True)
class Context:
    r"""What a generative module may condition on at a step: covariates, gap, codes, memory.

    For posteriors it also holds the features ``e`` of an encoder, and ``informed``: whether the
    data that the encoder may read say anything about a step. The current observation is never in
    it. A range of steps has fields ``(*S, B, T, feature)``, a single step ``(*S, B, feature)``;
    ``c[t]`` is a step, ``c[1:]`` a range.

    Args:
        u: Covariates.
        dt: Gap before the step, in sampling steps.
        codes: Static codes.
        shift: Location of the observations.
        scale: Scale of the observations.
        m: Memory features of the past.
        e: Encoder features, for posteriors only.
        informed: Whether a posterior may depart from the prior at this step.

    Example:
        >>> c = Context.regular(3, 5, m=torch.zeros(3, 5, 2))
        >>> c[0].m.shape, c[1:].dt.shape
        (torch.Size([3, 2]), torch.Size([3, 4, 1]))
    """

    u: Tensor
    dt: Tensor
    codes: Tensor
    shift: Tensor
    scale: Tensor
    m: Tensor
    e: Tensor
    informed: Tensor

    @classmethod
    def regular(
        cls,
        batch: int,
        steps: int | None = None,
        *,
        obs_dim: int = 1,
        dtype: torch.dtype | None = None,
        **values: Tensor,
    ) -> "Context":
        """Builds a context of unit gaps with nothing in it but what is given."""
        shape = (batch,) if steps is None else (batch, steps)
        empty = torch.zeros(*shape, 0, dtype=dtype)
        ones = torch.ones(*shape, 1, dtype=dtype)
        base = {
            "u": empty,
            "dt": ones,
            "codes": empty.long(),
            "shift": torch.zeros(*shape, obs_dim, dtype=dtype),
            "scale": torch.ones(*shape, obs_dim, dtype=dtype),
            "m": empty,
            "e": empty,
            "informed": ones.bool(),
        }
        unknown = set(values) - set(base)
        if unknown:
            raise ValueError(
                f"Context has the fields {', '.join(base)}; found {', '.join(sorted(unknown))}."
            )
        return cls(**{**base, **values})

    @classmethod
    def of(cls, sequences: Sequences, m: Tensor) -> "Context":
        """Builds the context of every step of a batch, given its memory features ``(B, T, M)``."""
        steps = sequences.steps

        def spread(x: Tensor) -> Tensor:
            return x[:, None].expand(-1, steps, -1)

        return cls(
            u=sequences.u,
            dt=sequences.dt[..., None],
            codes=spread(sequences.codes),
            shift=spread(sequences.shift),
            scale=spread(sequences.scale),
            m=m,
            e=m[..., :0],
            informed=torch.ones_like(sequences.observed[..., :1]),
        )

    def __getitem__(self, index: int | slice) -> "Context":
        return Context(*(getattr(self, f.name)[..., index, :] for f in fields(self)))

    def unbind(self) -> list["Context"]:
        """Splits a range into its steps; cheaper than indexing it in a loop."""
        columns = [getattr(self, f.name).unbind(-2) for f in fields(self)]
        return [Context(*step) for step in zip(*columns, strict=True)]

    def detach(self) -> "Context":
        """Cuts every field from the graph."""
        return Context(*(getattr(self, f.name).detach() for f in fields(self)))

    def replace(self, **changes: Tensor) -> "Context":
        """Copies the context with some fields changed."""
        return replace(self, **changes)

    def features(self, z: Tensor) -> Tensor:
        """``z``, memory and covariates side by side, ``(*S, B, T, K + M + U)``."""
        parts = [p for p in (z, self.m, self.u) if p.shape[-1]]
        if not parts:
            return z
        shape = torch.broadcast_shapes(z.shape[:-1], *(p.shape[:-1] for p in parts))
        return torch.cat([p.expand(*shape, p.shape[-1]) for p in parts], -1)

    @property
    def shape(self) -> torch.Size:
        """Shape without the feature axis."""
        return torch.broadcast_shapes(self.dt.shape[:-1], self.m.shape[:-1])


def _first(wrong: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in wrong.nonzero()[0])


def _require_float(name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, found {type(x).__name__}; use torch.as_tensor(...)."
        )
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must be a floating tensor, found {x.dtype}; use {name}.float() or "
            f"{name}.double()."
        )


def _require_shape(name: str, x: Tensor, shape: tuple[int | None, ...], meaning: str) -> None:
    fits = x.ndim == len(shape) and all(
        n is None or m == n for m, n in zip(x.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{name} must have shape {meaning} = {wanted}, found {tuple(x.shape)}.")


def _require_finite(name: str, x: Tensor) -> None:
    if not bool(torch.isfinite(x).all()):
        where = _first(~torch.isfinite(x))
        raise ValueError(
            f"{name} must be finite, found {x[where].item()} at series {where[0]}, step "
            f"{where[1]}, column {where[2]}; fill or drop it before, covariates have no notion of "
            "missing."
        )


def _require_horizon(horizon: object) -> None:
    if isinstance(horizon, bool) or not isinstance(horizon, int):
        raise TypeError(f"horizon must be an int, found {type(horizon).__name__}.")
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 step, found {horizon}.")


def _missing(y: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    if bool(torch.isinf(y).any()):
        b, t, d = _first(torch.isinf(y))
        raise ValueError(
            f"y must not be infinite, found {y[b, t, d].item()} at series {b}, step {t}, dimension "
            f"{d}; mark a missing value with NaN."
        )
    present = ~torch.isnan(y)
    if observed is not None:
        if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
            found = observed.dtype if isinstance(observed, Tensor) else type(observed).__name__
            raise TypeError(f"observed must be a bool tensor, found {found}.")
        _require_shape("observed", observed, tuple(y.shape), "(B, T, D)")
        if bool((observed & ~present).any()):
            b, t, d = _first(observed & ~present)
            raise ValueError(
                f"y is NaN at series {b}, step {t}, dimension {d}, which observed calls observed; "
                "leave observed out to derive it from the NaN."
            )
        present = observed
    return torch.where(present, y, torch.zeros_like(y)), present


def _times(t: object, batch: int, steps: int, like: Tensor) -> Tensor:
    if not isinstance(t, Tensor):
        raise TypeError(
            f"t must be a torch.Tensor, found {type(t).__name__}; use torch.as_tensor(...)."
        )
    if t.ndim == 1:
        t = t.expand(batch, -1)
    _require_shape("t", t, (batch, steps), "(B, T) or (T,)")
    given, t = t, t.to(like)
    if not bool(torch.isfinite(t).all()):
        b, i = _first(~torch.isfinite(t))
        raise ValueError(f"t must be finite, found {t[b, i].item()} at series {b}, step {i}.")
    back = t.diff(dim=1) <= 0
    if bool(back.any()):
        b, i = _first(back)
        hint = "sort the rows, and merge those with equal times"
        if bool(given[b, i + 1] > given[b, i]):
            hint = f"{t.dtype} rounds them to the same number: count them from a later origin"
        raise ValueError(
            f"t must increase along every series: series {b} goes from {t[b, i].item():g} at step "
            f"{i} to {t[b, i + 1].item():g} at step {i + 1}; {hint}."
        )
    return t


def _codes(codes: object, batch: int) -> Tensor:
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
        found = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"codes must be an integer tensor, found {found}.")
    _require_shape("codes", codes, (batch, None), "(B, C)")
    if bool((codes < 0).any()):
        b, i = _first(codes < 0)
        raise ValueError(
            f"codes must be 0 or larger, found {codes[b, i].item()} at series {b}, column {i}."
        )
    return codes.long()


def _per_series(name: str, x: object, batch: int, width: int, default: Tensor) -> Tensor:
    if x is None:
        return default
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, found {type(x).__name__}; use torch.as_tensor(...)."
        )
    _require_shape(name, x, (batch, width), "(B, D)")
    if not bool(torch.isfinite(x).all()):
        b, d = _first(~torch.isfinite(x))
        raise ValueError(
            f"{name} must be finite, found {x[b, d].item()} at series {b}, dimension {d}."
        )
    return x
