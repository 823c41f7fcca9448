"""Quiet, calling libraries that warn a lot without their warnings reaching the user."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = []

LOCK = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses warnings, of numpy's arithmetic too.

    ``warnings.catch_warnings`` swaps filters that belong to the whole process: two threads that
    enter and leave it in turns would leave the wrong ones behind. So only one of our threads is in
    here at a time. While it is, warnings of foreign threads are lost, too, and a foreign thread
    with a ``catch_warnings`` of its own can still undo ours; that cannot be had otherwise before
    Python 3.14. Each block is one fit of one series, so that it is short.
    """
    with LOCK, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
