"""Errors and warnings of dataframes, and the words that say where in a frame something stands."""

from seqlatent.forecasting.errors.errors import (
    ArgumentError,
    ColumnError,
    CovariateError,
    DataError,
    DigitsWarning,
    FolderError,
    GapsWarning,
    TargetError,
    TimeError,
)

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
