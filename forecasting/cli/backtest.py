"""Backtest: forecasts of the last windows of a table, and their scores."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.files import check_apart, check_place, write_table
from seqlatent.forecasting.cli.fitting import counted
from seqlatent.forecasting.cli.groups import ModelOptions, QuantileOptions, TableOptions, grouped
from seqlatent.forecasting.cli.messages import Voice, reported, usage
from seqlatent.forecasting.cli.scoring import Windows, backtested, score_table, text_table

if TYPE_CHECKING:
    from seqlatent.forecasting.frames.columns import Columns
    from seqlatent.forecasting.frames.panel import Panel

__all__ = []

DIGITS = {"wql": 4, "crps": 4, "seconds": 1}


@dataclass(frozen=True)
class WindowOptions:
    """Windows at the end of the data, and what is written of them."""

    n_windows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Windows; the last one ends with the data.")
    ] = 1
    step_size: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS", min=1, help="Steps between the starts of windows.", show_default="--h"
        ),
    ] = None
    refit: Annotated[bool, typer.Option(help="Fit at every window, or only at the first one.")] = (
        True
    )
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Forecasts and truth of all windows, .csv or .parquet; - for CSV on stdout, the "
            "scores then go to stderr.",
        ),
    ] = None
    scores_out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The table of scores, .csv or .parquet.")
    ] = None

    @property
    def files(self) -> dict[str, str | None]:
        """The files that are written, by their options."""
        return {"--out": self.out, "--scores-out": self.scores_out}

    def check(self) -> None:
        """Finds out before any work whether results can be written."""
        if self.scores_out == "-":
            raise usage("the table is on stdout already; expected a file.", "--scores-out")
        for option, place in self.files.items():
            check_place(place, option)


@reported
@grouped
def backtest(
    *,
    data: options.Data,
    horizon: options.Horizon,
    windows: WindowOptions,
    models: ModelOptions,
    quantiles: QuantileOptions,
    tables: TableOptions,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Forecasts the last windows of DATA, and scores the forecasts.

    Each window is forecast from what came before it, as if it were still to come.

    The table has a row for each model: wql, the weighted quantile loss at the deciles; crps, twice
    the mean quantile loss at the deciles and each --quantile; mase, against the seasonal naive
    forecast on the past; the share of values inside the interval of each level; and seconds of
    fitting and forecasting. Of wql, crps and mase, less is better.

    seqlatent backtest sales.csv --h 14 --n-windows 3 --model recurrent --model ets
    """
    from seqlatent.forecasting.frames.read import read

    voice, wanted, inputs = Voice(quiet), quantiles.check(), tables.inputs(data)
    windows.check()
    check_apart(windows.files, inputs.places)
    inputs.check()
    settings = models.settings(tables, bars=voice.bars)
    freq = settings.forecaster().freq  # finds errors of the command line before reading
    sources = inputs.read(settings.columns, single=tables.id_col is None)
    for line in sources.taken:
        voice.say(line)
    frame = sources.frame("data")
    asked = Windows(
        horizon,
        windows.n_windows,
        windows.step_size,
        windows.refit,
        wanted.levels,
        wanted.quantiles,
        wanted.samples,
    )
    with sources.explaining():
        panel, style, *_ = read(frame, settings.columns, freq=freq)
        voice.say(
            f"{counted(panel.batch, 'series', 'series')}, {counted(len(frame), 'row')}, "
            f"{counted(asked.number, 'window')} of {counted(horizon, 'step')}"
        )
        found, seconds = backtested(settings, frame, asked, voice, sources.frame("static"))
        season = min(settings.seasons or [panel.time_index.default_season])
        train = style.frame(_every_row(panel, settings.columns))
        table = score_table(
            found, train, settings, season=season, level=wanted.levels, seconds=seconds
        )
    for place, rows in ((windows.out, found), (windows.scores_out, table)):
        if place is not None:
            write_table(rows, place)
    typer.echo(text_table(table, DIGITS), err=windows.out == "-")
    for place, rows in ((windows.out, found), (windows.scores_out, table)):
        if place not in (None, "-"):
            voice.say(f"wrote {place}: {counted(len(rows), 'row')}")


def _every_row(panel: "Panel", columns: "Columns") -> dict[str, Any]:
    """Truth with a row for each step, so that a season ago is a season ago across gaps too."""
    truth = {name: panel.y[:, d] for d, name in enumerate(columns.targets)}
    ids, stamps = panel.ids[panel.owner], panel.time_index.stamps(panel.t)
    return {columns.id: ids, columns.time: stamps} | truth
