"""Application: the commands under one name."""

from typing import Annotated

import typer

from seqlatent import __version__
from seqlatent.forecasting.cli.backtest import backtest
from seqlatent.forecasting.cli.demo import demo
from seqlatent.forecasting.cli.forecast import forecast
from seqlatent.forecasting.cli.info import info

__all__ = ["app", "main"]

app = typer.Typer(
    name="seqlatent",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (forecast, backtest, info, demo):
    app.command()(command)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"seqlatent {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def seqlatent(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Forecasts of time series with models that have a latent state.

    Results go to files or stdout, progress and messages to stderr. The exit status is 0, 1 where
    data or a model do not allow what was asked, 2 where the command was not understood.
    """


def main() -> None:
    """Runs the command line."""
    app(prog_name="seqlatent")
