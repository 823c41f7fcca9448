"""Info: what a saved model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqlatent.forecasting.cli import options
from seqlatent.forecasting.cli.fitting import counted
from seqlatent.forecasting.cli.messages import reported
from seqlatent.forecasting.cli.scoring import text_table

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    Groups = dict[str, dict[str, Tensor]]

__all__ = []

SHOWN = 10


@reported
def info(
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR", help="Folder that forecast --save or Forecaster.save wrote."),
    ],
    debug: options.Debug = False,
) -> None:
    """Tells what a saved model is.

    Its models with their members and parameters, its series with their last time stamps, its
    covariates, and who wrote it.
    """
    from seqlatent.forecasting.errors import FolderError
    from seqlatent.forecasting.storage.folder import read_folder

    place = Path(folder)
    config, groups = read_folder(place)
    try:
        lines, models, series = (
            _about(place, config),
            _models(config, groups),
            _series(config, groups),
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FolderError(
            f"{place} was written by seqlatent {config.get('version')}, of which this version "
            f"cannot read {error!r}; fit the forecaster again."
        ) from error
    wide = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{name.ljust(wide)}  {value}")
    typer.echo(f"\n{text_table(models)}\n\n{text_table(series.head(SHOWN))}")
    if len(series) > SHOWN:
        typer.echo(f"... and {counted(len(series) - SHOWN, 'more series', 'more series')}")


def _about(place: Path, config: dict[str, Any]) -> dict[str, str]:
    from seqlatent.forecasting.time.index import TimeIndex

    columns, time_index, statics = config["columns"], config["time_index"], config["statics"]
    target = columns["target"]
    targets = target if isinstance(target, str) else ", ".join(target)
    size = sum(file["size"] for file in config["files"])
    season = config["season_length"] or [TimeIndex.from_dict(time_index).default_season]
    return {
        "folder": f"{place}, {_bytes(size)}, format {config['format']}",
        "written by": f"seqlatent {config['version']}, torch {config['torch']}",
        "columns": f"id {columns['id']}, time {columns['time']}, target {targets}",
        "known ahead": ", ".join(config["covariates"]) or "-",
        "past only": ", ".join(columns["past"]) or "-",
        "static": ", ".join([*statics["reals"], *statics["categories"]]) or "-",
        "frequency": f"{time_index['freq'] or time_index['kind']}, season of "
        f"{', '.join(map(str, season))}",
        "seed": f"{config['seed']}",
    }


def _models(config: dict[str, Any], groups: "Groups") -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for i, model in enumerate(config["models"]):
        rows.append({"model": model["alias"], **_kind(model["config"], groups[f"model-{i}"])})
    table = pd.DataFrame(rows)
    table["members"] = ["-" if m != m else f"{m:.0f}" for m in table["members"]]
    return table


def _kind(config: dict[str, Any], tensors: "dict[str, Tensor]") -> dict[str, Any]:
    """What sort of model one is, and how large."""
    if "networks" in config:  # whose numbers may be those of the package
        found = "amortised", config["networks"], config["parameters"]
    else:
        members = config.get("members")
        begin = "" if members is None else "member-"
        numbers = sum(x.numel() for name, x in tensors.items() if name.startswith(begin))
        found = "baseline" if members is None else "latent", members, numbers
    kind, members, numbers = found
    return {
        "kind": kind,
        "members": float("nan") if members is None else members,
        "parameters": numbers,
    }


def _series(config: dict[str, Any], groups: "Groups") -> "pd.DataFrame":
    import pandas as pd

    from seqlatent.forecasting.arguments import objects
    from seqlatent.forecasting.errors.locate import shown
    from seqlatent.forecasting.frames.identifiers import decoded
    from seqlatent.forecasting.last_rows import LastRows

    ids = objects([decoded(code) for code in config["ids"]])
    last_rows = LastRows.from_tensors(ids, config["time_index"], groups["last_rows"])
    stamps = last_rows.time_index.stamps(last_rows.t)
    return pd.DataFrame(
        {
            f"series ({len(last_rows.ids)})": [str(id) for id in last_rows.ids],
            "last time": [shown(stamp, last_rows.time_index.tz) for stamp in stamps],
        }
    )


def _bytes(size: float | int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
