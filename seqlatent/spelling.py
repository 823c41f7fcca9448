"""Spelling, which known name was meant by one that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["meant"]


def meant(found: Any, known: Iterable[Any]) -> str:
    """A question to put behind an error about a name: empty where no known name is close.

    Args:
        found: What was given.
        known: Names that there are.

    Example:
        >>> meant("sarima", ["naive", "sarimax"])
        " Did you mean 'sarimax'?"
        >>> meant("xyz", ["naive", "sarimax"])
        ''
    """
    names = {name.lower(): name for name in known if isinstance(name, str)}
    close = get_close_matches(found.lower(), names, 1) if isinstance(found, str) else []
    return f" Did you mean {names[close[0]]!r}?" if close else ""
