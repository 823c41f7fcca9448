"""Forecast: a table of series in, a table of the steps ahead out."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.dialect import Dialect
from seqlatent.forecasting.cli.files import (
    check_apart,
    check_folder,
    check_place,
    write_figure,
    write_table,
)
from seqlatent.forecasting.cli.fitting import Settings, check_levels, counted
from seqlatent.forecasting.cli.messages import Failure, Voice, reported, usage
from seqlatent.forecasting.cli.reading import check_there, read_table
from seqlatent.forecasting.cli.sources import Sources, columns_of

if TYPE_CHECKING:
    from seqlatent.forecasting.forecaster import Forecaster
    from seqlatent.forecasting.frames.columns import Columns

__all__ = ["forecast"]


@dataclass(frozen=True)
class Places:
    """Where results go.

    Args:
        out: Table of forecasts.
        plot: Picture.
        paths_out: Table of sample paths.
        save: Folder of the fitted model.
    """

    out: str
    plot: str | None
    paths_out: str | None
    save: str | None

    def check(self, sample_paths: int | None, *, data: bool) -> None:
        """Finds out before any work whether they can be written."""
        if (sample_paths is None) != (self.paths_out is None):
            raise usage("both are needed, or none.", "--sample-paths, --paths-out")
        if "-" in (self.plot, self.save):
            raise usage("only tables can go to stdout.", "--plot, --save")
        if self.out == self.paths_out:
            raise usage("two tables cannot go to one place.", "--out, --paths-out")
        if self.plot is not None and not data:
            raise usage("a plot needs DATA, to draw the past.", "--plot")
        check_place(self.out, "--out")
        check_place(self.paths_out, "--paths-out")
        check_place(self.plot, "--plot", picture=True)
        check_folder(self.save, "--save")


@reported
def forecast(
    horizon: options.Horizon,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Table with a row for each series and time stamp, .csv or .parquet; - for CSV on "
            "stdin. With --load it may be left out, and the model goes on where it stands.",
            show_default=False,
        ),
    ] = None,
    freq: options.Freq = None,
    model: options.Models = None,
    level: options.Levels = None,
    quantile: options.Quantiles = None,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Forecasts, .csv or .parquet; - for CSV on stdout.")
    ] = "-",
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Fan charts, .png, .pdf or .svg.")
    ] = None,
    season_length: options.Seasons = None,
    id_col: options.IdColumn = None,
    time_col: options.TimeColumn = None,
    target_col: options.Targets = None,
    past: options.Past = None,
    future: options.Future = None,
    drop: options.Drop = None,
    static: options.Static = None,
    x: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Covariates known ahead, for the steps to forecast."),
    ] = None,
    members: options.Members = None,
    emission: options.Emission = None,
    seed: options.Seed = None,
    time_limit: options.TimeLimit = None,
    samples: options.Samples = None,
    sample_paths: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Joint sample paths of each series to write."),
    ] = None,
    paths_out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where --sample-paths go.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder to write the fitted model to.")
    ] = None,
    load: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Saved model to forecast with; from the end of DATA if it is given. Nothing is "
            "fitted.",
        ),
    ] = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    date_format: options.DateFormat = None,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Forecasts the next steps of every series in DATA.

    DATA has the columns unique_id, ds and y, or those named by --id-col, --time-col and
    --target-col. For each model the forecasts have its median, its mean, and the ends of its
    intervals.

    seqlatent forecast sales.csv --h 14 --model srnn --out forecast.csv --plot fan.png
    """
    places, voice = Places(out, plot, paths_out, save), Voice(quiet)
    places.check(sample_paths, data=data is not None)
    levels, quantiles = [80.0, 95.0] if level is None else level, quantile or []
    check_levels(levels, quantiles)
    dialect = Dialect(sep, decimal, encoding, date_format).check()
    results = {"--out": out, "--plot": plot, "--paths-out": paths_out}
    check_apart(results, {"DATA": data, "--x": x, "--static": static})
    if [data, x, static].count("-") > 1:
        raise usage("only one table can come from stdin.", "DATA, --x, --static")
    check_there(data, x, static)
    if load is None:
        if data is None:
            raise usage("expected a table, or a saved model with --load.", "DATA")
        settings = Settings(
            model or ["structural"],
            columns_of(id_col, time_col, target_col, future, past),
            freq,
            season_length,
            members,
            emission,
            seed or 0,
            time_limit,
            device,
            threads,
            voice.bars,
        )

        def fits(forecaster: "Forecaster", series: int) -> None:
            from seqlatent.forecasting.arguments import ForecastOptions
            from seqlatent.forecasting.engines.registry import engines_of
            from seqlatent.forecasting.memory_limits import check_forecasts

            wanted = ForecastOptions.of(levels, quantiles, samples)
            engines = engines_of(settings.models, members=members, emission=emission)
            check_forecasts(
                engines.values(), series, horizon, wanted, targets=len(target_col or ["y"])
            )

        forecaster, sources = _fitted(
            settings, voice, data, x, static, drop, id_col is None, dialect, fits
        )
    else:
        given = {
            "--model": model,
            "--freq": freq,
            "--season-length": season_length,
            "--members": members,
            "--emission": emission,
            "--time-limit": time_limit,
            "--past": past,
            "--future": future,
            "--id-col": id_col,
            "--time-col": time_col,
            "--target-col": target_col,
            "--save": save,
        }
        for option, value in given.items():
            if value is not None:
                raise usage("the saved model knows it; leave the option out.", option)
        forecaster, sources = _loaded(load, voice, data, x, static, drop, dialect)
    if save is not None:
        forecaster.save(save)
        voice.say(f"saved the model in {save}")
    again = load is not None and sources.data is not None
    about: dict[str, Any] = {
        "df": sources.frame("data") if again else None,
        "X_df": sources.frame("x"),
        "static_df": sources.frame("static") if again else None,
        "seed": seed,
    }
    with sources.explaining():
        found = forecaster.predict(
            horizon, level=levels, quantiles=quantiles, samples=samples, **about
        )
        paths = None if sample_paths is None else forecaster.sample(horizon, sample_paths, **about)
    _write(places, voice, forecaster.columns, sources, found, paths)


def _fitted(
    settings: Settings,
    voice: Voice,
    data: str,
    x: str | None,
    static: str | None,
    drop: list[str] | None,
    single: bool,
    dialect: Dialect,
    fits: Callable[["Forecaster", int], None],
) -> tuple["Forecaster", Sources]:
    """A forecaster fitted on the data, if its forecasts fit into memory."""
    forecaster = settings.forecaster()
    sources = _sources(settings.columns, data, x, static, drop, single, dialect)
    for line in sources.taken:
        voice.say(line)
    frame = sources.frame("data")
    series = frame[settings.columns.id].nunique()
    voice.say(
        f"fitting {', '.join(forecaster.aliases)} on {counted(series, 'series', 'series')}, "
        f"{counted(len(frame), 'row')}"
    )
    with sources.explaining():
        fits(forecaster, series)
        forecaster.fit(frame, sources.frame("static"))
    voice.notes(forecaster.notes)
    return forecaster, sources


def _loaded(
    folder: str,
    voice: Voice,
    data: str | None,
    x: str | None,
    static: str | None,
    drop: list[str] | None,
    dialect: Dialect,
) -> tuple["Forecaster", Sources]:
    """A saved forecaster, and what it forecasts from."""
    from seqlatent.forecasting.forecaster import Forecaster

    forecaster = Forecaster.load(folder)
    single = forecaster.ids == [forecaster.columns.targets[0]]
    sources = _sources(forecaster.columns, data, x, static, drop, single, dialect)
    for line in sources.taken:
        voice.say(line)
    for source in (sources.data, sources.x, sources.static):
        if source is not None:
            _same_ids(source.frame, forecaster.columns.id, forecaster.ids)
    voice.say(f"forecasting with {', '.join(forecaster.aliases)} from {folder}")
    return forecaster, sources


def _sources(
    columns: "Columns",
    data: str | None,
    x: str | None,
    static: str | None,
    drop: list[str] | None,
    single: bool,
    dialect: Dialect,
) -> Sources:
    about: dict[str, Any] = {"single": single, "dialect": dialect}
    return Sources(
        data=None if data is None else read_table(data, columns, drop=drop, **about),
        x=None if x is None else read_table(x, columns, option="--x", **about),
        static=None
        if static is None
        else read_table(static, columns, option="--static", timed=False, **about),
    )


def _same_ids(frame: Any, column: str, known: list[Any]) -> None:
    """Makes identifiers integers, or text, where the model has seen such: a CSV does not tell."""
    dtype = "int64" if all(isinstance(id, int) for id in known) else None
    dtype = "str" if all(isinstance(id, str) for id in known) else dtype
    if dtype is not None:
        with suppress(ValueError, TypeError):  # they are new, and of another kind
            frame[column] = frame[column].astype(dtype)


def _write(
    places: Places, voice: Voice, columns: "Columns", sources: Sources, found: Any, paths: Any
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
