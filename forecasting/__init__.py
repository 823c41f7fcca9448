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
    from seqlatent.forecasting.engines.amortised.engine import Amortised
    from seqlatent.forecasting.engines.amortised.own import amortise
    from seqlatent.forecasting.engines.engine import Engine, FitOptions
    from seqlatent.forecasting.engines.latent.stages import SequentialTraining
    from seqlatent.forecasting.engines.latent.training import WindowTraining
    from seqlatent.forecasting.engines.recurrent.engine import Recurrent
    from seqlatent.forecasting.engines.registry import register
    from seqlatent.forecasting.engines.spec import DataSummary, Spec, Training, spec_of
    from seqlatent.forecasting.forecaster import Forecaster
    from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = [
    "Amortised",
    "ArgumentError",
    "ColumnError",
    "Columns",
    "CovariateError",
    "DataError",
    "DataSummary",
    "DigitsWarning",
    "Engine",
    "FitOptions",
    "FolderError",
    "Forecaster",
    "Future",
    "GapsWarning",
    "Panel",
    "Recurrent",
    "SequentialTraining",
    "Spec",
    "TargetError",
    "TimeError",
    "Training",
    "WindowTraining",
    "amortise",
    "metrics",
    "plots",
    "register",
    "spec_of",
]

# pandas, torch and the models load when a forecaster is asked for, not with the package.
_HOMES = {
    "Amortised": "engines.amortised.engine",
    "DataSummary": "engines.spec",
    "Engine": "engines.engine",
    "FitOptions": "engines.engine",
    "Forecaster": "forecaster",
    "Future": "frames.panel",
    "Panel": "frames.panel",
    "Recurrent": "engines.recurrent.engine",
    "SequentialTraining": "engines.latent.stages",
    "Spec": "engines.spec",
    "Training": "engines.spec",
    "WindowTraining": "engines.latent.training",
    "amortise": "engines.amortised.own",
    "register": "engines.registry",
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
