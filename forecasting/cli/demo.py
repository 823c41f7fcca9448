"""Demo: the main work on data that are at hand, from a table to scores and a picture."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.files import check_place, write_figure, write_table
from seqlatent.forecasting.cli.fitting import Settings
from seqlatent.forecasting.cli.messages import Failure, Voice, reported

if TYPE_CHECKING:
    import pandas as pd

__all__ = []

HIDDEN = 24
YEAR = 12
LEVELS = (80, 95)
DRAWN = ("structural", "recurrent")
MODELS = ("seasonal_naive", "ets", *DRAWN)
# Seconds of training of each model: a bound for slow machines, or the quick look.
FULL, QUICK = 100.0, 5.0
DIGITS = {"wql": 4, "mase": 2, "coverage80": 2, "seconds": 1}


@reported
def demo(
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for forecast.csv and fan.png.")
    ] = ".",
    quick: Annotated[
        bool, typer.Option("--quick", help="Hardly fit anything: a look in half a minute.")
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Forecasts three classic series, and draws the forecasts.

    The sea off Peru, carbon dioxide on Mauna Loa (with months that are missing), and the turnover
    of Europe's makers of electrical equipment come with statsmodels. The last two years of each are
    hidden, forecast by a structural model, by recurrent networks that drawn series have taught
    before, and by two baselines, and compared.
    """
    began = time.perf_counter()
    if not Path(out).is_dir():
        raise Failure(f"--out {out}: there is no such folder; make it first.")
    table, picture = (str(Path(out) / name) for name in ("forecast.csv", "fan.png"))
    check_place(table, "--out")
    check_place(picture, "--out", picture=True)

    from seqlatent.forecasting import plots
    from seqlatent.forecasting.cli.scoring import Windows, backtested, score_table, text_table
    from seqlatent.forecasting.frames.columns import Columns

    voice = Voice(quiet)
    frame = classics()
    _introduce(frame, voice)
    settings = Settings(MODELS, Columns(), time_limit=QUICK if quick else FULL, bars=voice.bars)
    found, seconds = backtested(settings, frame, Windows(HIDDEN, level=LEVELS), voice)
    scores = score_table(found, frame, settings, season=YEAR, level=[80], seconds=seconds)
    write_table(found.drop(columns=[name for name in found if "_ql" in name]), table)
    others = [name for name in found if name.startswith(tuple(set(MODELS) - {*DRAWN}))]
    axes = plots.fans(
        frame,
        found.drop(columns=others),
        model=DRAWN,
        separate=True,
        levels=LEVELS,
        last=8 * YEAR,
    )
    write_figure(axes[0].figure, picture)
    each = _by_series(found, frame, settings)
    typer.echo(f"{HIDDEN} months ahead, all series\n")
    typer.echo(text_table(scores.drop(columns="crps"), DIGITS))
    typer.echo(f"\nmase of each series\n\n{text_table(each, dict.fromkeys(MODELS, 2))}")
    typer.echo(f"\nwrote {table} and {picture}")
    voice.say(f"{time.perf_counter() - began:.0f} s in all")


def classics() -> "pd.DataFrame":
    """Three monthly series of unequal lengths, the months without a measurement missing."""
    import pandas as pd

    from seqlatent.datasets import co2, elec_equip, elnino

    weekly = co2()
    monthly = weekly.set_index("ds")["y"].resample("MS").mean().rename_axis("ds").reset_index()
    return pd.concat([elnino(), monthly.assign(unique_id="co2"), elec_equip()], ignore_index=True)


def _introduce(frame: "pd.DataFrame", voice: Voice) -> None:
    for id, rows in frame.groupby("unique_id", sort=False):
        missing = int(rows["y"].isna().sum())
        lost = f", {missing} missing" if missing else ""
        first, last = rows["ds"].min(), rows["ds"].max()
        voice.say(f"{id}: {len(rows)} months, {first:%Y-%m} to {last:%Y-%m}{lost}")


def _by_series(found: "pd.DataFrame", frame: "pd.DataFrame", settings: Settings) -> "pd.DataFrame":
    from seqlatent.forecasting.metrics import mase

    table = mase(found, list(settings.models), YEAR, frame)
    return table.drop(columns="cutoff").rename(columns={"unique_id": "series"})
