"""Backtest: forecasts of the last windows of a table, and their scores."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.dialect import Dialect
from seqlatent.forecasting.cli.files import check_apart, check_place, write_table
from seqlatent.forecasting.cli.fitting import Settings, check_levels, counted
from seqlatent.forecasting.cli.messages import Voice, reported, usage
from seqlatent.forecasting.cli.reading import check_there, read_table
from seqlatent.forecasting.cli.scoring import Windows, backtested, score_table, text_table
from seqlatent.forecasting.cli.sources import Sources, columns_of

if TYPE_CHECKING:
    from seqlatent.forecasting.frames.columns import Columns
    from seqlatent.forecasting.frames.panel import Panel

__all__ = ["DIGITS", "backtest"]

DIGITS = {"wql": 4, "crps": 4, "seconds": 1}


@reported
def backtest(
    data: options.Data,
    horizon: options.Horizon,
    n_windows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Windows; the last one ends with the data.")
    ] = 1,
    step_size: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS", min=1, help="Steps between the starts of windows.", show_default="--h"
        ),
    ] = None,
    refit: Annotated[
        bool, typer.Option(help="Fit at every window, or only at the first one.")
    ] = True,
    freq: options.Freq = None,
    model: options.Models = None,
    level: options.Levels = None,
    quantile: options.Quantiles = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Forecasts and truth of all windows, .csv or .parquet; - for CSV on stdout, the "
            "scores then go to stderr.",
        ),
    ] = None,
    scores_out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The table of scores, .csv or .parquet.")
    ] = None,
    season_length: options.Seasons = None,
    id_col: options.IdColumn = None,
    time_col: options.TimeColumn = None,
    target_col: options.Targets = None,
    past: options.Past = None,
    future: options.Future = None,
    drop: options.Drop = None,
    static: options.Static = None,
    members: options.Members = None,
    emission: options.Emission = None,
    seed: options.Seed = None,
    time_limit: options.TimeLimit = None,
    samples: options.Samples = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    date_format: options.DateFormat = None,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Forecasts the last windows of DATA, and scores the forecasts.

    Each window is forecast from what came before it, as if it were still to come.

    The table has a row for each model: wql, the weighted quantile loss at the deciles; crps, twice
    the mean quantile loss at the deciles and each --quantile; mase, against the seasonal naive
    forecast on the past; the share of values inside the interval of each level; and seconds of
    fitting and forecasting. Of wql, crps and mase, less is better.

    seqlatent backtest sales.csv --h 14 --n-windows 3 --model srnn --model ets
    """
    from seqlatent.forecasting.frames.read import read

    voice = Voice(quiet)
    levels, quantiles = [80.0, 95.0] if level is None else level, quantile or []
    check_levels(levels, quantiles)
    dialect = Dialect(sep, decimal, encoding, date_format).check()
    if scores_out == "-":
        raise usage("the table is on stdout already; expected a file.", "--scores-out")
    check_place(out, "--out")
    check_place(scores_out, "--scores-out")
    check_apart({"--out": out, "--scores-out": scores_out}, {"DATA": data, "--static": static})
    if data == static == "-":
        raise usage("only one table can come from stdin.", "DATA, --static")
    check_there(data, static)
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
    freq_read = settings.forecaster().freq  # finds errors of the command line before reading
    sources = Sources(
        data=read_table(data, settings.columns, single=id_col is None, drop=drop, dialect=dialect),
        static=None
        if static is None
        else read_table(static, settings.columns, option="--static", timed=False, dialect=dialect),
    )
    for line in sources.taken:
        voice.say(line)
    windows = Windows(horizon, n_windows, step_size, refit, levels, quantiles, samples)
    frame = sources.frame("data")
    with sources.explaining():
        panel, style, *_ = read(frame, settings.columns, freq=freq_read)
        voice.say(
            f"{counted(panel.batch, 'series', 'series')}, {counted(len(frame), 'row')}, "
            f"{counted(n_windows, 'window')} of {counted(horizon, 'step')}"
        )
        found, seconds = backtested(settings, frame, windows, voice, sources.frame("static"))
        season = min(season_length or [panel.time_index.default_season])
        train = style.frame(_every_row(panel, settings.columns))
        table = score_table(found, train, settings, season=season, level=levels, seconds=seconds)
    if out is not None:
        write_table(found, out)
    if scores_out is not None:
        write_table(table, scores_out)
    typer.echo(text_table(table, DIGITS), err=out == "-")
    for place, rows in ((out, found), (scores_out, table)):
        if place not in (None, "-"):
            voice.say(f"wrote {place}: {counted(len(rows), 'row')}")


def _every_row(panel: "Panel", columns: "Columns") -> dict[str, Any]:
    """Truth with a row for each step, so that a season ago is a season ago across gaps too."""
    truth = {name: panel.y[:, d] for d, name in enumerate(columns.targets)}
    ids, stamps = panel.ids[panel.owner], panel.time_index.stamps(panel.t)
    return {columns.id: ids, columns.time: stamps} | truth
