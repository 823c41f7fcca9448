"""Range of the numbers with which models compute."""

import numpy as np

__all__ = ["SINGLE", "out_of_range", "range_of"]

# Largest magnitudes in double and single precision whose squares, and some sums and products of
# these, are numbers.
DOUBLE, SINGLE = 1e100, 1e15


def out_of_range(y: np.ndarray, owner: np.ndarray, batch: int, limit: float) -> np.ndarray:
    """Cells that are too large, and the largest ones of series that are too small ``(R,)``.

    Values are at most the limit in size, and the largest of a series, if it is not zero, at least
    its inverse. What is beyond would make NaN of the series, and of others that learn with it.

    Args:
        y: Values ``(R,)``, NaN where missing.
        owner: Series of each ``(R,)``.
        batch: How many series there are.
        limit: The largest value that is in range.
    """
    size = np.abs(np.nan_to_num(y))
    largest = np.zeros(batch)
    np.maximum.at(largest, owner, size)
    small = (largest > 0) & (largest < 1 / limit)
    return (size > limit) | (small[owner] & (size == largest[owner]))


def range_of(value: float, limit: float) -> str:
    """What is wrong with a value that is out of range."""
    if abs(value) > limit:
        return too_large(f"{value:g}", limit)
    return _wrong(
        f"the largest value of a series to be 0 or at least {1 / limit:g} in size", f"{value:g}"
    )


def too_large(found: str, limit: float) -> str:
    """What is wrong with a value that is too large, and may be beyond every float."""
    return _wrong(f"a number of at most {limit:g} in size", found)


def _wrong(wanted: str, found: str) -> str:
    return (
        f"expected {wanted}, found {found}. Correct it, write a missing value (NaN) if it is not "
        "known, or choose another unit."
    )
