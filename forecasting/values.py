"""Values, a column read as numbers: one way for every frame that comes in."""

import numbers
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np

from seqlatent.capacity import brief
from seqlatent.forecasting.errors import DigitsWarning
from seqlatent.forecasting.errors.locate import plain

__all__ = [
    "floats",
    "is_object",
    "is_text",
    "kind_of",
    "missing",
    "scalar",
    "several",
    "told",
    "warn_of_digits",
]

EXACT = 2**53  # integers up to here are float64 numbers


class Floats(NamedTuple):
    """A column as numbers.

    Attributes:
        values: The numbers, NaN where one is missing or is none ``(R,)``.
        wrong: Cells that hold no number ``(R,)``.
        beyond: Cells whose number is finite, but larger than any float64 ``(R,)``.
        rounded: Cells whose integer has more digits than a float64 holds ``(R,)``.
    """

    values: np.ndarray
    wrong: np.ndarray
    beyond: np.ndarray
    rounded: np.ndarray


def is_object(column: Any) -> bool:
    """Whether a column holds Python objects, of which each cell has to be looked at."""
    if column.implementation.is_pandas():  # narwhals judges by the first cells alone
        return column.to_native().dtype == object
    return column.dtype == nw.Object


def is_text(column: Any) -> bool:
    """Whether a column holds text alone, of whatever type: that of pandas 2 is object."""
    if column.implementation.is_pandas():
        import pandas as pd

        return pd.api.types.infer_dtype(column.to_native(), skipna=True) == "string"
    return column.dtype == nw.String


def missing(column: Any) -> np.ndarray:
    """Which cells of a column are None, NaN, NA or NaT ``(R,)``."""
    if column.implementation.is_pandas():
        return np.asarray(column.to_native().array.isna(), bool)
    empty = column.is_null()
    if column.dtype.is_float():
        empty = empty | column.is_nan().fill_null(True)
    return empty.to_numpy()


def floats(column: Any) -> Floats:
    """Reads numbers: of any numeric type, booleans, and objects such as Decimals.

    Args:
        column: Column of a frame behind narwhals.
    """
    dtype = column.dtype
    beyond = np.zeros(len(column), bool)
    if not is_object(column) and (dtype.is_numeric() or dtype == nw.Boolean):
        if column.implementation.is_pandas():
            values = column.to_native().to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = column.cast(nw.Float64).to_numpy()
        wrong, whole = np.zeros(len(values), bool), dtype.is_integer() or dtype.is_decimal()
    else:
        found, empty = column.to_list(), missing(column)
        wrong = np.zeros(len(found), bool)
        values = np.full(len(found), np.nan)
        for i in np.flatnonzero(~empty):
            number = _number(found[i])
            wrong[i] = number is None
            beyond[i] = number is not None and np.isinf(number) and number != found[i]
            values[i] = np.nan if number is None else number
        whole = True
    rounded = (
        np.isfinite(values) & (np.abs(values) >= EXACT) if whole else np.zeros(len(values), bool)
    )
    for i in np.flatnonzero(rounded):
        rounded[i] = _differs(column[int(i)], float(values[i]))
    return Floats(values, wrong, beyond, rounded)


def told(value: Any) -> str:
    """A value as messages call it; an integer of very many digits by the first of them.

    Example:
        >>> from seqlatent.forecasting.values import told
        >>> told("a"), told(7), told(-(10**400))
        ("'a'", '7', '-1e+400')
    """
    if isinstance(value, Fraction):
        return f"{told(value.numerator)}/{told(value.denominator)}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return brief(value) if whole and abs(value) >= 10**20 else repr(value)


def warn_of_digits(place: str, found: Any, value: Any) -> None:
    """Says that an integer has lost digits."""
    warnings.warn(
        f"{place}: expected numbers that float64 holds, found {found}, read as {value:.0f}; "
        "integers beyond 2**53 lose their last digits. Count from another origin, or in a larger "
        "unit, if they matter.",
        DigitsWarning,
        stacklevel=2,
    )


def kind_of(value: Any) -> str:
    """What a value is, so that none is taken for another that Python holds equal: 1 and True."""
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, numbers.Integral):
        return "int"
    return "float" if isinstance(value, numbers.Real) else type(value).__name__


def scalar(value: Any) -> Any:
    """One value without what holds it: a number of numpy, an array or tensor without axes.

    A number of less than double precision is the shortest decimal that it stands for: what was
    written as 0.1 is 0.1.

    Example:
        >>> import numpy as np
        >>> from seqlatent.forecasting.values import scalar
        >>> scalar(np.float32(0.1)), scalar(np.array(7))
        (0.1, 7)
    """
    if isinstance(value, Decimal | Fraction):
        number = _number(value)
        return value if number is None else number
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    kind = str(value.dtype).removeprefix("torch.")
    number = value.item()
    if isinstance(number, float | np.floating) and kind in ("float32", "float16"):
        return float(str((np.float32 if kind == "float32" else np.float16)(number)))
    if kind == "bfloat16":
        return float(f"{number:.3g}")
    return float(number) if isinstance(number, np.floating) else number


def several(given: Any) -> tuple[Any, ...]:
    """One value or several, in whatever holds them, without numpy or torch around them."""
    given = given.to_numpy() if hasattr(given, "to_numpy") else given  # its items keep their type
    alone = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
    alone = alone or getattr(given, "ndim", None) == 0
    return tuple(scalar(one) for one in ([given] if alone else given))


def _number(value: Any) -> float | None:
    if isinstance(value, Decimal):
        return float("nan") if value.is_nan() else float(value)
    if not isinstance(value, numbers.Real | np.bool_):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return float("-inf" if value < 0 else "inf")


def _differs(found: Any, value: float) -> bool:
    found = plain(found)
    whole = isinstance(found, int | Decimal) and np.isfinite(value) and found == int(found)
    return whole and int(found) != int(value)
