"""Fitting: forecasters made from options."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlatent.forecasting.cli.messages import usage

if TYPE_CHECKING:
    from seqlatent.forecasting.arguments import ForecastOptions
    from seqlatent.forecasting.forecaster import Forecaster
    from seqlatent.forecasting.frames.columns import Columns

__all__ = []

# Options by the first word of what a forecaster says of its arguments.
HINTS = {
    "device": "--device",
    "freq:": "--freq",
    "members": "--members",
    "emission": "--emission",
    "time_limit": "--time-limit",
    "threads": "--threads",
    "season_length": "--season-length",
    "seed": "--seed",
    "columns": "--model, --id-col, --time-col, --target-col",
}


class Settings(NamedTuple):
    """Options of a forecaster.

    Attributes:
        models: Names of the models.
        columns: Names of the columns.
        freq: Frequency, as text.
        seasons: Steps of each season; None for what suits the frequency.
        members: Networks in an ensemble.
        emission: Family of the observations.
        seed: Seed of everything random.
        time_limit: Seconds of training of each model.
        device: Where neural models train.
        threads: Threads over which an operation is split.
        bars: Whether to show progress bars.
    """

    models: Sequence[str]
    columns: "Columns"
    freq: str | None = None
    seasons: Sequence[int] | None = None
    members: int | None = None
    emission: str | None = None
    seed: int = 0
    time_limit: float | int | None = None
    device: str = "cpu"
    threads: int = 1
    bars: bool = False

    def forecaster(self) -> "Forecaster":
        """A forecaster of all models, side by side.

        Raises:
            typer.BadParameter: If the options do not fit each other.
        """
        return self._made(self.models, self.members, self.emission)

    def alone(self, model: str) -> "Forecaster":
        """A forecaster of one of the models, with the options that it takes."""
        from seqlatent.forecasting.engines.latent.recipes import OPTIONS

        taken = OPTIONS.get(model, ())
        members = self.members if "members" in taken else None
        return self._made([model], members, self.emission if "emission" in taken else None)

    def check_room(self, series: int, h: int, wanted: "ForecastOptions") -> None:
        """Makes sure that forecasts of so many series fit into memory, before a fit.

        Raises:
            ArgumentError: If they do not.
        """
        from seqlatent.forecasting.engines.registry import engines_of
        from seqlatent.forecasting.memory_limits import check_forecasts

        engines = engines_of(list(self.models), members=self.members, emission=self.emission)
        targets = len(self.columns.targets)
        check_forecasts(engines.values(), series, h, wanted, targets=targets)

    def _made(
        self, models: Sequence[str], members: int | None, emission: str | None
    ) -> "Forecaster":
        from seqlatent.forecasting.forecaster import Forecaster
        from seqlatent.forecasting.frames.names import check_names

        freq: Any = self.freq
        if freq is not None and freq.lstrip("-").isdigit():
            freq = int(freq)
        try:
            made = Forecaster(
                list(models),
                freq=freq,
                season_length=None if self.seasons is None else list(self.seasons),
                columns=self.columns,
                members=members,
                emission=emission,
                seed=self.seed,
                time_limit=self.time_limit,
                progress=self.bars,
                device=self.device,
                threads=self.threads,
            )
            check_names(self.columns, made.aliases)
        except (TypeError, ValueError) as error:
            word = str(error).split(" ", 1)[0]
            raise usage(str(error).removeprefix("freq: "), HINTS.get(word, "--model")) from error
        return made


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
