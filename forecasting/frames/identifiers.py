"""Identifiers as JSON holds them."""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import FolderError

__all__ = ["decoded", "encoded"]

_DIGITS = 4000  # of an integer, more than which Python does not write as text

# How a value of each type becomes text, and text a value again.
_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "Timestamp": (pd.Timestamp.isoformat, pd.Timestamp),
    "datetime": (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date.isoformat, datetime.date.fromisoformat),
}


def unstorable(ids: np.ndarray) -> list[int]:
    """Places of identifiers that are no text, number or truth value, as a folder holds them.

    Fractions and numbers of more than double precision are none of these.
    """
    return [i for i, id in enumerate(ids) if not _storable(id)]


def _storable(value: Any) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int):
        return abs(value) < 10**_DIGITS
    return isinstance(value, str | float)


def encoded(value: Any) -> Any:
    """An identifier as JSON holds it: a number, text, or a pair of a type and text.

    Raises:
        TypeError: If its type is not known.
    """
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    kind = type(value).__name__
    if kind not in _KINDS:
        raise TypeError(
            f"ids must be strings, numbers or dates to be saved, found {value!r} of type {kind}; "
            "convert them with str()."
        )
    return [kind, _KINDS[kind][0](value)]


def decoded(code: Any) -> Any:
    """Reads what :func:`encoded` gave.

    Raises:
        FolderError: If it gave nothing like this.
    """
    if not isinstance(code, list):
        return code
    if len(code) != 2 or code[0] not in _KINDS:
        raise FolderError(f"expected an id of type {', '.join(_KINDS)}, found {code!r}.")
    return _KINDS[code[0]][1](code[1])
