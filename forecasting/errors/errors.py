"""Errors of the dataframe boundary: what was expected, what was found and where, what to do."""

from typing import Any

__all__ = [
    "ArgumentError",
    "ColumnError",
    "CovariateError",
    "DataError",
    "DigitsWarning",
    "FolderError",
    "GapsWarning",
    "TargetError",
    "TimeError",
]


class DataError(ValueError):
    """A frame that cannot be used as it is.

    Args:
        message: What was expected, what was found, what to do.
        column: Column that it is about.
        id: Series that it is about.
        row: Position of the first offending row in the frame as given, counted from 0.
    """

    def __init__(
        self, message: str, *, column: str | None = None, id: Any = None, row: int | None = None
    ) -> None:
        super().__init__(message)
        self.column = column
        self.id = id
        self.row = row


class ColumnError(DataError):
    """A column that is missing, of a wrong type, or in two roles."""


class TimeError(DataError):
    """Time stamps that repeat, miss the grid, mix time zones, or have an unknown frequency."""


class TargetError(DataError):
    """Target values that no model, or not this one, can take."""


class CovariateError(DataError):
    """Covariates that are absent or have gaps where a model needs them."""


class ArgumentError(ValueError):
    """An argument that is of another kind than expected, out of range, or of no use here.

    Args:
        message: What was expected, what was found, what to do.
        name: Name of the argument.
    """

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class FolderError(ValueError):
    """A model folder that is damaged, foreign, or newer than this version."""


class DigitsWarning(UserWarning):
    """Integers with more digits than float64 holds, which are rounded."""


class GapsWarning(UserWarning):
    """A frequency that was asked for, at which hardly any step has a row."""
