"""Threads of torch, set for as long as a call lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["on_threads"]

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")

# The number is one for the whole process: it is put back by whoever leaves last.
_LOCK = threading.Lock()
_INSIDE: list[int] = []


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Sets the threads over which torch splits an operation, and puts them back.

    The number is that of the process: what other Python threads do meanwhile runs on as many, and
    of calls that overlap the last one to begin decides. Once all have ended it is what it was
    before the first of them.

    Args:
        count: Threads; None leaves them as they are.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    if count is None:
        yield
        return
    import torch

    with _LOCK:
        if not _INSIDE:
            _INSIDE.append(torch.get_num_threads())
        _INSIDE.append(count)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _LOCK:
            # the outermost number stays at the bottom until nobody is inside
            last = len(_INSIDE) - 1 - _INSIDE[::-1].index(count)
            del _INSIDE[last]
            torch.set_num_threads(_INSIDE[-1])
            if len(_INSIDE) == 1:
                _INSIDE.clear()


def on_threads(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """Runs a method on as many threads as its object's ``threads`` says."""

    @wraps(method)
    def run(self: M, *given: P.args, **named: P.kwargs) -> R:
        owner: Any = self
        with threads(owner.threads):
            return method(self, *given, **named)

    return run
