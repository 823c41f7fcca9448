"""Options that several commands take."""

from typing import Annotated

import typer

__all__ = []

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Table with a row for each series and time stamp, .csv or .parquet; - for CSV on "
        "stdin.",
    ),
]
DataOrModel = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="Table with a row for each series and time stamp, .csv or .parquet; - for CSV on "
        "stdin. With --load it may be left out, and the model goes on where it stands.",
        show_default=False,
    ),
]
Load = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Saved model to forecast with; from the end of DATA if it is given. Nothing is "
        "fitted.",
    ),
]
CovariatesAhead = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Covariates known ahead, for the steps to forecast."),
]
Horizon = Annotated[
    int, typer.Option("--h", "--horizon", metavar="STEPS", min=1, help="Steps ahead.")
]
Freq = Annotated[
    str | None,
    typer.Option(
        metavar="ALIAS",
        help="Frequency: a pandas alias such as h, D, W, MS, the step of integer times, or "
        "irregular; found from the data if left out.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="structural, deep_state, deep_markov, srnn, vrnn, latent_ode; recurrent, amortised; "
        "naive, seasonal_naive, ets, sarimax, theta. Repeat it for several side by side.",
        show_default="structural",
    ),
]
Seasons = Annotated[
    list[int] | None,
    typer.Option(
        "--season-length",
        metavar="STEPS",
        min=1,
        help="Steps of a season, may be repeated; what suits the frequency if left out.",
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-col",
        metavar="COLUMN",
        help="Column that names the series. Without it, a table that has no such column is one "
        "series.",
        show_default="unique_id",
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        "--time-col", metavar="COLUMN", help="Column of ISO dates or integers.", show_default="ds"
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target-col",
        metavar="COLUMN",
        help="Column to forecast; repeat it for a joint model of several.",
        show_default="y",
    ),
]
Past = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Covariate known only up to the present, may be repeated."),
]
Future = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Covariate known ahead, may be repeated; every column without another role if left "
        "out.",
    ),
]
Drop = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Column to ignore, may be repeated.")
]
Static = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Static features, a row for each series."),
]
Sep = Annotated[
    str | None,
    typer.Option(
        "--sep", metavar="CHAR", help="What parts the columns of a CSV; told by it if left out."
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        "--decimal",
        metavar="CHAR",
        help="Decimal point of a CSV, . or a comma; told by it if left out.",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", metavar="NAME", help="Encoding of a CSV.", show_default="utf-8"),
]
DateFormat = Annotated[
    str | None,
    typer.Option(
        "--date-format",
        metavar="FORMAT",
        help="How the dates of a CSV are written, such as %d.%m.%Y.",
        show_default="ISO 8601",
    ),
]
Levels = Annotated[
    list[float] | None,
    typer.Option(
        "--level",
        metavar="PERCENT",
        help="Level of an interval in per cent, may be repeated.",
        show_default="80, 95",
    ),
]
Quantiles = Annotated[
    list[float] | None,
    typer.Option("--quantile", metavar="Q", help="Quantile between 0 and 1, may be repeated."),
]
Samples = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Sample paths behind quantiles that have no closed form."
    ),
]
Members = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Networks in the ensemble of a neural model.")
]
Emission = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Family of the observations of a neural model: normal, student_t, hurdle_student_t, "
        "negative_binomial, poisson, ...; the values decide if left out, and the notes say which.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Seed of everything random.", show_default="0"),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Seconds that the fit of each model may take."),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where neural models train.")]
Threads = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Threads over which an operation is split."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, notes or warnings.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
