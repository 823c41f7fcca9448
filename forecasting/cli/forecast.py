"""Forecast: a table of series in, a table of the steps ahead out."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.files import (
    check_apart,
    check_folder,
    check_place,
    write_figure,
    write_table,
)
from seqlatent.forecasting.cli.fitting import Settings, counted
from seqlatent.forecasting.cli.groups import ModelOptions, QuantileOptions, TableOptions, grouped
from seqlatent.forecasting.cli.messages import Failure, Voice, reported, usage
from seqlatent.forecasting.cli.reading import Inputs
from seqlatent.forecasting.cli.sources import Sources

if TYPE_CHECKING:
    from seqlatent.forecasting.arguments import ForecastOptions
    from seqlatent.forecasting.forecaster import Forecaster
    from seqlatent.forecasting.frames.columns import Columns

__all__ = []


@dataclass(frozen=True)
class ResultOptions:
    """What is written, and where to."""

    out: Annotated[
        str, typer.Option(metavar="FILE", help="Forecasts, .csv or .parquet; - for CSV on stdout.")
    ] = "-"
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Fan charts, .png, .pdf or .svg.")
    ] = None
    sample_paths: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Joint sample paths of each series to write."),
    ] = None
    paths_out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where --sample-paths go.")
    ] = None
    save: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder to write the fitted model to.")
    ] = None

    @property
    def files(self) -> dict[str, str | None]:
        """The files by their options."""
        return {"--out": self.out, "--plot": self.plot, "--paths-out": self.paths_out}

    def check(self, *, data: bool) -> None:
        """Finds out before any work whether results can be written."""
        if (self.sample_paths is None) != (self.paths_out is None):
            raise usage("both are needed, or none.", "--sample-paths, --paths-out")
        if "-" in (self.plot, self.save):
            raise usage("only tables can go to stdout.", "--plot, --save")
        if self.out == self.paths_out:
            raise usage("two tables cannot go to one place.", "--out, --paths-out")
        if self.plot is not None and not data:
            raise usage("a plot needs DATA, to draw the past.", "--plot")
        for option, place in self.files.items():
            check_place(place, option, picture=option == "--plot")
        check_folder(self.save, "--save")


@reported
@grouped
def forecast(
    *,
    data: options.DataOrModel = None,
    horizon: options.Horizon,
    models: ModelOptions,
    load: options.Load = None,
    quantiles: QuantileOptions,
    results: ResultOptions,
    x: options.CovariatesAhead = None,
    tables: TableOptions,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Forecasts the next steps of every series in DATA.

    DATA has the columns unique_id, ds and y, or those named by --id-col, --time-col and
    --target-col. For each model the forecasts have its median, its mean, and the ends of its
    intervals.

    seqlatent forecast sales.csv --h 14 --model recurrent --out forecast.csv --plot fan.png
    """
    voice = Voice(quiet)
    results.check(data=data is not None)
    wanted, inputs = quantiles.check(), tables.inputs(data, x)
    check_apart(results.files, inputs.places)
    inputs.check()
    if load is None:
        settings = models.settings(tables, bars=voice.bars)
        forecaster, sources = _fitted(
            settings, voice, inputs, wanted, h=horizon, single=tables.id_col is None
        )
    else:
        _check_unsaid(models.learned | tables.learned | {"--save": results.save})
        forecaster, sources = _loaded(load, voice, inputs)
    if results.save is not None:
        forecaster.save(results.save)
        voice.say(f"saved the model in {results.save}")
    again = load is not None and data is not None
    about: dict[str, Any] = {
        "df": sources.frame("data") if again else None,
        "X_df": sources.frame("x"),
        "static_df": sources.frame("static") if again else None,
        "seed": models.seed,
    }
    with sources.explaining():
        found = forecaster.predict(
            horizon,
            level=wanted.levels,
            quantiles=wanted.quantiles,
            samples=wanted.samples,
            **about,
        )
        n = results.sample_paths
        paths = None if n is None else forecaster.sample(horizon, n, **about)
    _write(results, voice, forecaster.columns, sources, found, paths)


def _check_unsaid(given: dict[str, Any]) -> None:
    """Makes sure that no option is given that a saved model knows."""
    for option, value in given.items():
        if value is not None:
            raise usage("the saved model knows it; leave the option out.", option)


def _fitted(
    settings: Settings,
    voice: Voice,
    inputs: Inputs,
    wanted: "ForecastOptions",
    *,
    h: int,
    single: bool,
) -> tuple["Forecaster", Sources]:
    """A forecaster fitted on the data, if its forecasts fit into memory."""
    if inputs.data is None:
        raise usage("expected a table, or a saved model with --load.", "DATA")
    forecaster = settings.forecaster()
    sources = inputs.read(settings.columns, single=single)
    for line in sources.taken:
        voice.say(line)
    frame = sources.frame("data")
    series = frame[settings.columns.id].nunique()
    voice.say(
        f"fitting {', '.join(forecaster.aliases)} on {counted(series, 'series', 'series')}, "
        f"{counted(len(frame), 'row')}"
    )
    with sources.explaining():
        settings.check_room(series, h, wanted)
        forecaster.fit(frame, sources.frame("static"))
    voice.notes(forecaster.notes)
    return forecaster, sources


def _loaded(folder: str, voice: Voice, inputs: Inputs) -> tuple["Forecaster", Sources]:
    """A saved forecaster, and what it forecasts from."""
    from seqlatent.forecasting.forecaster import Forecaster

    forecaster = Forecaster.load(folder)
    single = forecaster.ids == [forecaster.columns.targets[0]]
    sources = inputs.read(forecaster.columns, single=single)
    for line in sources.taken:
        voice.say(line)
    for source in (sources.data, sources.x, sources.static):
        if source is not None:
            _same_ids(source.frame, forecaster.columns.id, forecaster.ids)
    voice.say(f"forecasting with {', '.join(forecaster.aliases)} from {folder}")
    return forecaster, sources


def _same_ids(frame: Any, column: str, known: list[Any]) -> None:
    """Makes identifiers integers, or text, where the model has seen such: a CSV does not tell."""
    dtype = "int64" if all(isinstance(id, int) for id in known) else None
    dtype = "str" if all(isinstance(id, str) for id in known) else dtype
    if dtype is not None:
        with suppress(ValueError, TypeError):  # they are new, and of another kind
            frame[column] = frame[column].astype(dtype)


def _write(
    places: ResultOptions,
    voice: Voice,
    columns: "Columns",
    sources: Sources,
    found: Any,
    paths: Any,
) -> None:
    """Writes the results."""
    if places.plot is not None:
        from seqlatent.forecasting import plots

        try:
            drawn = plots.fans(sources.frame("data"), found, columns=columns)
        except ImportError as error:
            raise Failure(f"--plot needs matplotlib: {error}") from error
        write_figure(drawn[0].figure, places.plot)
        voice.say(f"wrote {places.plot}")
    if paths is not None and places.paths_out is not None:
        write_table(paths, places.paths_out)
        voice.say(f"wrote {places.paths_out}: {counted(len(paths), 'row')}")
    write_table(found, places.out)
    if places.out != "-":
        voice.say(f"wrote {places.out}: {counted(len(found), 'row')}")
