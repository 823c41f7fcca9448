"""Dataframes in, dataframes out: forecasters, backtests, metrics, plots, commands."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqlatent.forecasting.errors import (
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
from seqlatent.forecasting.frames.columns import Columns

if TYPE_CHECKING:
    from seqlatent.forecasting import metrics, plots
    from seqlatent.forecasting.engines.spec import DataSummary, Spec, spec_of
    from seqlatent.forecasting.forecaster import Forecaster

__all__ = [
    "ArgumentError",
    "ColumnError",
    "Columns",
    "CovariateError",
    "DataError",
    "DataSummary",
    "DigitsWarning",
    "FolderError",
    "Forecaster",
    "GapsWarning",
    "Spec",
    "TargetError",
    "TimeError",
    "metrics",
    "plots",
    "spec_of",
]

# pandas, torch and the models load when a forecaster is asked for, not with the package.
_HOMES = {
    "Forecaster": "forecaster",
    "DataSummary": "engines.spec",
    "Spec": "engines.spec",
    "spec_of": "engines.latent.recipes",
}


def __getattr__(name: str) -> Any:
    if name in ("metrics", "plots"):
        return import_module(f"seqlatent.forecasting.{name}")
    if name in _HOMES:
        return getattr(import_module(f"seqlatent.forecasting.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
