"""Validation of what users give: each message tells what was expected, found, and what to do."""

import torch
from torch import Tensor

__all__ = []


def first_true(wrong: Tensor) -> tuple[int, ...]:
    """Index of the first true cell of a mask."""
    return tuple(int(i) for i in wrong.nonzero()[0])


def require_float(name: str, x: object) -> None:
    """Raises TypeError unless ``x`` is a floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, found {type(x).__name__}; use torch.as_tensor(...)."
        )
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must be a floating tensor, found {x.dtype}; use {name}.float() or "
            f"{name}.double()."
        )


def require_shape(name: str, x: Tensor, shape: tuple[int | None, ...], meaning: str) -> None:
    """Raises ValueError unless ``x`` has the shape, in which None is any length."""
    fits = x.ndim == len(shape) and all(
        n is None or m == n for m, n in zip(x.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{name} must have shape {meaning} = {wanted}, found {tuple(x.shape)}.")


def require_finite(name: str, x: Tensor) -> None:
    """Raises ValueError unless covariates ``(B, T, U)`` are finite."""
    if not bool(torch.isfinite(x).all()):
        where = first_true(~torch.isfinite(x))
        raise ValueError(
            f"{name} must be finite, found {x[where].item()} at series {where[0]}, step "
            f"{where[1]}, column {where[2]}; fill or drop it before, covariates have no notion of "
            "missing."
        )


def require_horizon(horizon: object) -> None:
    """Raises TypeError or ValueError unless a horizon is an int of at least 1."""
    if isinstance(horizon, bool) or not isinstance(horizon, int):
        raise TypeError(f"horizon must be an int, found {type(horizon).__name__}.")
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 step, found {horizon}.")


def checked_cells(y: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values ``(B, T, D)`` with zeros where they are missing, and which cells are observed."""
    if bool(torch.isinf(y).any()):
        b, t, d = first_true(torch.isinf(y))
        raise ValueError(
            f"y must not be infinite, found {y[b, t, d].item()} at series {b}, step {t}, dimension "
            f"{d}; mark a missing value with NaN."
        )
    present = ~torch.isnan(y)
    if observed is not None:
        if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
            found = observed.dtype if isinstance(observed, Tensor) else type(observed).__name__
            raise TypeError(f"observed must be a bool tensor, found {found}.")
        require_shape("observed", observed, tuple(y.shape), "(B, T, D)")
        if bool((observed & ~present).any()):
            b, t, d = first_true(observed & ~present)
            raise ValueError(
                f"y is NaN at series {b}, step {t}, dimension {d}, which observed calls observed; "
                "leave observed out to derive it from the NaN."
            )
        present = observed
    return torch.where(present, y, torch.zeros_like(y)), present


def checked_times(t: object, batch: int, steps: int, device: torch.device) -> Tensor:
    """Times ``(B, T)`` that are finite and increase, float64."""
    if not isinstance(t, Tensor):
        raise TypeError(
            f"t must be a torch.Tensor, found {type(t).__name__}; use torch.as_tensor(...)."
        )
    if t.ndim == 1:
        t = t.expand(batch, -1)
    require_shape("t", t, (batch, steps), "(B, T) or (T,)")
    given, t = t, t.to(device=device, dtype=torch.float64)
    if not bool(torch.isfinite(t).all()):
        b, i = first_true(~torch.isfinite(t))
        raise ValueError(f"t must be finite, found {t[b, i].item()} at series {b}, step {i}.")
    back = t.diff(dim=1) <= 0
    if bool(back.any()):
        b, i = first_true(back)
        hint = "sort the rows, and merge those with equal times"
        if bool(given[b, i + 1] > given[b, i]):
            hint = f"{t.dtype} rounds them to the same number: count them from a later origin"
        raise ValueError(
            f"t must increase along every series: series {b} goes from {t[b, i].item():g} at step "
            f"{i} to {t[b, i + 1].item():g} at step {i + 1}; {hint}."
        )
    return t


def checked_codes(codes: object, batch: int) -> Tensor:
    """Static codes ``(B, C)`` as long integers from 0."""
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
        found = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"codes must be an integer tensor, found {found}.")
    require_shape("codes", codes, (batch, None), "(B, C)")
    if bool((codes < 0).any()):
        b, i = first_true(codes < 0)
        raise ValueError(
            f"codes must be 0 or larger, found {codes[b, i].item()} at series {b}, column {i}."
        )
    return codes.long()


def checked_per_series(name: str, x: object, batch: int, width: int, default: Tensor) -> Tensor:
    """Finite values ``(B, D)`` of the series, or their default."""
    if x is None:
        return default
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, found {type(x).__name__}; use torch.as_tensor(...)."
        )
    require_shape(name, x, (batch, width), "(B, D)")
    if not bool(torch.isfinite(x).all()):
        b, d = first_true(~torch.isfinite(x))
        raise ValueError(
            f"{name} must be finite, found {x[b, d].item()} at series {b}, dimension {d}."
        )
    return x
