"""Groups of options that several commands take, each an object of its own."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.dialect import Dialect
from seqlatent.forecasting.cli.fitting import Settings
from seqlatent.forecasting.cli.messages import usage
from seqlatent.forecasting.cli.reading import Inputs
from seqlatent.forecasting.cli.sources import columns_of

if TYPE_CHECKING:
    from seqlatent.forecasting.arguments import ForecastOptions

__all__ = []


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of its groups one by one, as a command line has them.

    Args:
        command: A function, of which some parameters are annotated with a dataclass whose fields
            are options.
    """
    taken, groups, flat = signature(command), {}, []
    for parameter in taken.parameters.values():
        kind = parameter.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind
        for field in fields(kind):
            default = Parameter.empty if field.default is MISSING else field.default
            flat.append(
                Parameter(
                    field.name, Parameter.KEYWORD_ONLY, default=default, annotation=field.type
                )
            )

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: kind(**{f.name: given.pop(f.name) for f in fields(kind) if f.name in given})
            for name, kind in groups.items()
        }
        command(**given, **made)

    run.__signature__ = taken.replace(parameters=flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


@dataclass(frozen=True)
class ModelOptions:
    """Which models, and how they are fitted."""

    model: options.Models = None
    freq: options.Freq = None
    season_length: options.Seasons = None
    members: options.Members = None
    emission: options.Emission = None
    seed: options.Seed = None
    time_limit: options.TimeLimit = None
    device: options.Device = "cpu"
    threads: options.Threads = 1

    def settings(self, table: "TableOptions", *, bars: bool) -> Settings:
        """What forecasters are made from."""
        return Settings(
            self.model or ["structural"],
            columns_of(table.id_col, table.time_col, table.target_col, table.future, table.past),
            freq=self.freq,
            seasons=self.season_length,
            members=self.members,
            emission=self.emission,
            seed=self.seed or 0,
            time_limit=self.time_limit,
            device=self.device,
            threads=self.threads,
            bars=bars,
        )

    @property
    def learned(self) -> dict[str, Any]:
        """Options of which a saved model has its own values."""
        return {
            "--model": self.model,
            "--freq": self.freq,
            "--season-length": self.season_length,
            "--members": self.members,
            "--emission": self.emission,
            "--time-limit": self.time_limit,
        }


@dataclass(frozen=True)
class QuantileOptions:
    """What the forecasts tell of their distribution."""

    level: options.Levels = None
    quantile: options.Quantiles = None
    samples: options.Samples = None

    def check(self) -> "ForecastOptions":
        """Makes sure that levels and quantiles are what they should be.

        Raises:
            typer.BadParameter: If one is out of range.
        """
        from seqlatent.forecasting.arguments import ForecastOptions
        from seqlatent.forecasting.errors import ArgumentError

        levels = [80.0, 95.0] if self.level is None else self.level
        try:
            return ForecastOptions.of(levels, self.quantile, self.samples)
        except ArgumentError as error:
            raise usage(str(error), "--level" if error.name == "level" else "--quantile") from error


@dataclass(frozen=True)
class TableOptions:
    """What the columns of tables are, and how their text is written."""

    id_col: options.IdColumn = None
    time_col: options.TimeColumn = None
    target_col: options.Targets = None
    past: options.Past = None
    future: options.Future = None
    drop: options.Drop = None
    static: options.Static = None
    sep: options.Sep = None
    decimal: options.Decimal = None
    encoding: options.Encoding = None
    date_format: options.DateFormat = None

    def inputs(self, data: str | None, x: str | None = None) -> Inputs:
        """The tables that a command reads.

        Raises:
            typer.BadParameter: If an option is not what it should be.
        """
        dialect = Dialect(self.sep, self.decimal, self.encoding, self.date_format).check()
        return Inputs(data, x, self.static, tuple(self.drop or ()), dialect)

    @property
    def learned(self) -> dict[str, Any]:
        """Options of which a saved model has its own values."""
        return {
            "--past": self.past,
            "--future": self.future,
            "--id-col": self.id_col,
            "--time-col": self.time_col,
            "--target-col": self.target_col,
        }
