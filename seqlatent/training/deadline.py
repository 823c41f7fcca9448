"""Deadlines: moments by which work ends, and whether the next piece of it fits before them."""

import math
import time
from collections.abc import Callable

__all__ = ["Deadline", "Pace"]


class Deadline:
    """A moment that may have passed.

    Args:
        seconds: From now; None for never.
        clock: Seconds of a clock that only goes forward.

    Example:
        >>> from seqlatent.training import Deadline
        >>> Deadline().left, Deadline(0.0).passed
        (inf, True)
    """

    def __init__(
        self, seconds: float | int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._began = clock()
        self._end = math.inf if seconds is None else self._began + seconds

    @property
    def never(self) -> bool:
        """Whether there is no end."""
        return self._end == math.inf

    @property
    def left(self) -> float:
        """Seconds that are left, infinite for ever."""
        return math.inf if self.never else self._end - self._clock()

    @property
    def spent(self) -> float:
        """Seconds since it was set."""
        return self._clock() - self._began

    @property
    def total(self) -> float:
        """Seconds from when it was set to its end."""
        return self._end - self._began

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left <= 0

    def part(self, share: float | int) -> "Deadline":
        """One that is set now and ends after a share of what is left."""
        return Deadline(None if self.never else max(self.left, 0.0) * share, self._clock)

    def sooner(self, seconds: float | int) -> "Deadline":
        """One that ends so many seconds before; later, if they are less than none."""
        return Deadline(None if self.never else self.left - seconds, self._clock)


class Pace:
    """Whether the next piece of work still ends in time, judged by those before it.

    Args:
        deadline: By when.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._last: tuple[float, float] | None = None
        self._rate = 0.0

    def reaches(self, size: float | int = 1) -> bool:
        """Whether a piece of this size that begins now ends in time; the one before it is over."""
        if self._deadline.never:
            return True
        now = self._deadline.spent
        if self._last is not None:
            began, done = self._last
            rate = (now - began) / done
            # the first piece pays for what is done once
            self._rate = max(rate, 0.5 * (self._rate + rate))
        self._last = now, max(size, 1e-9)
        return self._deadline.left > self._rate * size
