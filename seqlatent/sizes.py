"""Sizes and switches of models, read in one way: integers of any library, never a bool for one."""

import inspect
import operator
from collections.abc import Callable, Sequence
from functools import wraps
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

__all__ = ["sized", "whole"]

F = TypeVar("F", bound=Callable[..., Any])


def whole(name: str, value: Any, least: int = 0, *, none: bool = False) -> int:
    """Reads an integer of Python, numpy or torch.

    Args:
        name: What the argument is called.
        value: What was given.
        least: The least that makes sense.
        none: Whether the argument may be None, which is read elsewhere.

    Raises:
        ValueError: If it is no integer, or less.

    Example:
        >>> import numpy as np
        >>> from seqlatent.sizes import whole
        >>> whole("hidden_dim", np.int64(8), 1)
        8
    """
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise ValueError(
            f"{name} must be an integer of at least {least}{', or None' if none else ''}, found "
            f"{value!r}."
        )
    return found


def flag(name: str, value: Any) -> bool:
    """Reads True or False, also numpy's.

    Raises:
        ValueError: If it is neither.
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise ValueError(f"{name} must be True or False, found {value!r}.")
    return bool(value)


def sized(**least: int) -> Callable[[F], F]:
    """Makes a function read its integers and switches, as their annotations call them.

    Args:
        least: The least that makes sense of each integer, where it is not 0.

    Example:
        >>> import numpy as np
        >>> from seqlatent.sizes import sized
        >>> @sized(width=1)
        ... def area(width: int, height: int | None = None) -> int:
        ...     return width * (height or width)
        >>> type(area(np.int64(3)))
        <class 'int'>
    """

    def reading(function: F) -> F:
        signature = inspect.signature(function)
        kinds = {name: p.annotation for name, p in signature.parameters.items()}

        def read(name: str, value: Any) -> Any:
            kind = kinds[name]
            if get_origin(kind) is Sequence and get_args(kind) == (int,):
                return tuple(whole(name, one, least.get(name, 0)) for one in value)
            among = get_args(kind) if isinstance(kind, UnionType) else (kind,)
            if value is None and type(None) in among:
                return value
            if set(among) <= {int, type(None)}:
                return whole(name, value, least.get(name, 0), none=type(None) in among)
            if set(among) <= {bool, type(None)}:
                return flag(name, value)
            return value

        @wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            given = signature.bind(*args, **options)
            given.arguments = {name: read(name, x) for name, x in given.arguments.items()}
            return function(*given.args, **given.kwargs)

        return cast(F, wrapped)

    return reading
