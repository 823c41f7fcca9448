"""Persistence: what is fitted as plain values and tensors, written to a folder and read back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seqlatent.forecasting.arguments import freq_of, objects, seasons_of, seconds_of, seed_of
from seqlatent.forecasting.engines.engine import Engine, Packed
from seqlatent.forecasting.engines.registry import (
    Given,
    asked_from_dict,
    asked_to_dict,
    given_of,
    kind_of,
    model_of,
    read_engine,
    registered,
)
from seqlatent.forecasting.errors import ArgumentError, FolderError
from seqlatent.forecasting.fitted import Configuration, Fitted
from seqlatent.forecasting.frames.columns import Columns
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.read import OutputFormat, Statics
from seqlatent.forecasting.last_rows import LastRows
from seqlatent.forecasting.results import columns_to_dict
from seqlatent.forecasting.storage.folder import read_folder, write_folder

__all__ = ["read_fitted", "write_fitted"]

Groups = Mapping[str, Mapping[str, Tensor]]


def write_fitted(place: Path, configuration: Configuration, fitted: Fitted) -> None:
    """Writes models, and what they were asked to be; see :meth:`Forecaster.save`."""
    last_rows, asked_for = fitted.last_rows, configuration.engines()
    models, groups = [], {"last_rows": last_rows.tensors()}
    for i, (alias, engine) in enumerate(fitted.engines.items()):
        packed = engine.packed()
        models.append({"alias": alias, "engine": kind_of(engine), "config": packed.config})
        asked = asked_to_dict(alias, asked_for[alias])
        if asked and kind_of(engine) != kind_of(asked_for[alias]):
            models[-1]["asked"] = asked  # another stands in its place
        groups[f"model-{i}"] = packed.tensors
        groups[f"state-{i}"] = engine.pack(fitted.states[alias])
    config = {
        "models": models,
        "columns": columns_to_dict(configuration.columns),
        "output_format": fitted.output_format.to_dict(),
        "time_index": last_rows.time_index.to_dict(),
        "statics": fitted.statics.to_dict(),
        "covariates": list(fitted.covariates),
        "ids": [encoded(id) for id in last_rows.ids],
        "freq": configuration.freq,
        "season_length": configuration.season_length,
        "notes": list(fitted.remarks),
        "seed": configuration.seed,
        "time_limit": configuration.time_limit,
        "options": {
            name: value
            for name, value in (
                ("members", configuration.members),
                ("emission", configuration.emission),
            )
            if isinstance(value, int | str)  # classes are told by nothing that is written
        },
    }
    write_folder(place, config, groups)


def read_fitted(place: Path, specs: Any, engines: Any) -> tuple[Configuration, Fitted]:
    """Reads what :func:`write_fitted` wrote; see :meth:`Forecaster.load`.

    Args:
        place: Folder to read.
        specs: Specs to use instead of those of the folder: one or several.
        engines: Engines of one's own, or their classes: one or several.
    """
    config, groups = read_folder(place)
    try:
        columns = Columns(**config["columns"])
        kinds = {m["alias"]: m.get("asked", m).get("engine", "") for m in config["models"]}
        given = given_of(specs, engines, kinds)
        models, found, states = _read_models(config["models"], groups, given, config["options"])
        configuration = Configuration(
            models,
            columns,
            freq=freq_of(config["freq"]),
            season_length=seasons_of(config["season_length"]),
            seed=seed_of(config["seed"]),
            time_limit=seconds_of(config["time_limit"]),
        )
        fitted = Fitted(
            columns,
            found,
            states,
            LastRows.from_tensors(
                objects([decoded(code) for code in config["ids"]]),
                config["time_index"],
                groups["last_rows"],
            ),
            OutputFormat.from_dict(config["output_format"]),
            Statics.from_dict(config["statics"]),
            tuple(config["covariates"]),
            tuple(config.get("notes", ())),
        )
        if not found or fitted.batch != len(fitted.last_rows.t):
            raise FolderError(
                f"expected models and {len(fitted.last_rows.t)} ids, found "
                f"{len(found)} and {fitted.batch}; save the model again."
            )
    except FolderError as error:
        raise FolderError(f"{place}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, ArgumentError) and error.name in ("specs", "engines"):
            raise ArgumentError(f"{place}: {error}", name=error.name) from error
        raise FolderError(
            f"{place} was written by seqlatent {config.get('version')}, of which this version "
            f"cannot read {error!r}; fit the forecaster again."
        ) from error
    return configuration, fitted


def _read_models(
    models: list[dict[str, Any]],
    groups: Groups,
    given: Mapping[str, Given],
    options: Mapping[str, Any],
) -> tuple[list[str | Given], dict[str, Engine], dict[str, Any]]:
    """What each model is to be where it is fitted again, the models by name, and their states."""
    again, engines, states = [], {}, {}
    for i, model in enumerate(models):
        alias, packed = model["alias"], Packed(model["config"], dict(groups[f"model-{i}"]))
        own = given.get(alias) or registered(alias, model, options)
        engine = read_engine(model["engine"], packed, own, alias)
        if "asked" in model:
            again.append(asked_from_dict(alias, model["asked"], own))
        else:
            again.append(model_of(alias, engine, own))
        engines[alias], states[alias] = engine, engine.unpack(groups[f"state-{i}"])
    return again, engines, states
