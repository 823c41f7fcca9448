"""Models by name: latent models, baselines and specs, each as an engine."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seqlatent.emissions import Emission
from seqlatent.forecasting.engines import baselines
from seqlatent.forecasting.engines.engine import Engine, Packed
from seqlatent.forecasting.engines.latent import recipes
from seqlatent.forecasting.engines.latent.engine import LatentEngine
from seqlatent.forecasting.engines.spec import Spec, spec_of
from seqlatent.forecasting.errors import ArgumentError, FolderError
from seqlatent.forecasting.values import several
from seqlatent.spelling import meant

__all__ = ["engines_of", "model_of", "names", "read_engine"]


def names() -> tuple[str, ...]:
    """Names that a forecaster knows: latent models first, then baselines."""
    return (*recipes.OPTIONS, *baselines.BASELINES)


def engines_of(
    model: Any,
    *,
    members: int | None = None,
    emission: str | Callable[..., Emission] | None = None,
) -> dict[str, Engine]:
    """Engines of a model or of several, by the names of their columns.

    Raises:
        TypeError: If a model is neither a name nor a spec.
        ValueError: If there is no model of that name, or two have the same.
    """
    given = list(several(model)) if isinstance(model, list | tuple | np.ndarray) else [model]
    if not given:
        raise ArgumentError("model must name at least one model, found an empty list.")
    for option, value in (("members", members), ("emission", emission)):
        takers = [m for m in recipes.OPTIONS if option in recipes.OPTIONS[m]]
        if value is not None and not any(m in takers for m in given if isinstance(m, str)):
            raise ValueError(
                f"{option} is for the models {', '.join(takers)}, found model={model!r}; leave it "
                "out, or set it where the Spec is made."
            )
    found: dict[str, Engine] = {}
    for one in given:
        alias, engine = _engine(one, {"members": members, "emission": emission})
        if alias in found:
            raise ValueError(
                f"models must differ in name, found {alias!r} twice; give a Spec another name "
                "with dataclasses.replace(spec, name=...)."
            )
        found[alias] = engine
    return found


def _engine(model: Any, options: Mapping[str, Any]) -> tuple[str, Engine]:
    if isinstance(model, Spec):
        return model.name, LatentEngine(model)
    if not isinstance(model, str):
        raise TypeError(
            f"model must be a name, a Spec, or a list of these, found {type(model).__name__}; "
            f"the names are {', '.join(names())}."
        )
    if model in baselines.BASELINES:
        make: Callable[[], Engine] = baselines.BASELINES[model]  # type: ignore[assignment]
        return model, make()
    if model not in recipes.OPTIONS:
        raise ArgumentError(
            f"model must be one of {', '.join(names())}, found {model!r}.{meant(model, names())}",
            name="model",
        )
    known = recipes.OPTIONS[model]
    return model, LatentEngine(spec_of(model, **{k: options[k] for k in options if k in known}))


def read_engine(kind: str, packed: Packed, spec: Spec | None) -> Engine:
    """Reads an engine that a forecaster has written.

    Args:
        kind: Name of its class.
        packed: What it has learned.
        spec: The spec to use instead of the saved one.

    Raises:
        FolderError: If there is no such kind, or no spec where one is needed.
    """
    if kind == LatentEngine.__name__:
        return LatentEngine.unpacked(packed, spec)
    for baseline in baselines.BASELINES.values():
        if baseline.__name__ == kind:
            return baseline.unpacked(packed)
    raise FolderError(
        f"the folder holds a model of the kind {kind!r}, which this version does not know; "
        "upgrade seqlatent."
    )


def model_of(alias: str, engine: Engine) -> str | Spec:
    """The model that such an engine is made from: a spec, or the name of a baseline."""
    return engine.spec if isinstance(engine, LatentEngine) else alias
