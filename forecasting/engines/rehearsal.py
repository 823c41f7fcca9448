"""Rehearsals: how long work will take, from how long it takes for few."""

from collections.abc import Callable
from typing import Any

import numpy as np

from seqlatent.training import Deadline

__all__ = ["foretold"]

_FEW = (1, 1, 16)  # series of a rehearsal, the first of which pays for what is done once


def foretold(work: Callable[[np.ndarray], Any], count: int, deadline: Deadline) -> float:
    """Seconds that work takes for so many series, from how long it takes for few.

    Args:
        work: What is done with some series, by their places.
        count: How many there are.
        deadline: Whose clock is read; few series are enough where it is near.
    """
    spent: list[tuple[int, float]] = []
    for size in _FEW:
        began = deadline.spent
        work(np.arange(min(size, count)))
        spent.append((min(size, count), deadline.spent - began))
        if 4 * spent[-1][1] > deadline.left:
            break
    if len(spent) < len(_FEW) or count <= spent[-1][0]:
        few, short = spent[-1]
        return short * max(1.0, count / few / 4)  # several together cost less than one by one
    (few, short), (many, long) = spent[-2:]
    each = max((long - short) / (many - few), long / many / 10)
    return long + each * (count - many)
