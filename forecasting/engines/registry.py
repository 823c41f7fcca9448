"""Models by name: latent models, baselines, specs and engines of one's own, each as an engine."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace as replaced
from typing import Any

import numpy as np

from seqlatent.emissions import Emission
from seqlatent.forecasting.engines import baselines
from seqlatent.forecasting.engines.amortised import Amortised
from seqlatent.forecasting.engines.engine import Engine, Packed
from seqlatent.forecasting.engines.latent import recipes
from seqlatent.forecasting.engines.latent.engine import LatentEngine
from seqlatent.forecasting.engines.recurrent import Recurrent
from seqlatent.forecasting.engines.restarted import Restarted
from seqlatent.forecasting.engines.spec import Spec, spec_of
from seqlatent.forecasting.errors import ArgumentError, FolderError
from seqlatent.forecasting.values import several
from seqlatent.spelling import meant

__all__ = [
    "Given",
    "asked_from_dict",
    "asked_to_dict",
    "engines_of",
    "given_of",
    "kind_of",
    "model_of",
    "read_engine",
    "register",
    "registered",
]

Given = Spec | Engine | type[Engine]
"""A model of one's own."""

_REGISTERED: dict[str, Callable[..., Spec | Engine]] = {}

Known = Amortised | Recurrent | baselines.LocalEngine
_KNOWN: dict[str, type[Known]] = {
    Amortised.alias: Amortised,
    Recurrent.alias: Recurrent,
    **baselines.BASELINES,
}
"""Engines of the package that are no latent models."""


def names() -> tuple[str, ...]:
    """Names that a forecaster knows: latent models first, then baselines, then those registered."""
    return tuple(dict.fromkeys([*recipes.OPTIONS, *_KNOWN, *_REGISTERED]))


def register(
    name: str, factory: Callable[..., Spec | Engine], *, replace: bool = False
) -> Callable[..., Spec | Engine]:
    """Makes a model of one's own known by a name, to every forecaster of this process.

    Args:
        name: The name, which is that of its columns.
        factory: Returns the model, a Spec or an Engine; the class of an Engine is one. It is called
            with ``members`` and ``emission`` of a forecaster if it has arguments of these names.
        replace: Whether it may take the place of a model that is known by that name.

    Returns:
        The factory.

    Raises:
        ArgumentError: If the name is taken.
        TypeError: If the name is no text, or the factory cannot be called.

    Example:
        >>> from dataclasses import replace
        >>> from seqlatent.forecasting import Forecaster, register, spec_of
        >>> _ = register("small_srnn", lambda: spec_of("srnn", hidden_dim=8, members=1))
        >>> Forecaster("small_srnn")
        Forecaster(small_srnn, not fitted)
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a text, found {name!r}.")
    if not callable(factory):
        raise TypeError(
            f"factory must be a function that returns a Spec or an Engine, or the class of an "
            f"Engine, found {type(factory).__name__}; write register({name!r}, lambda: model)."
        )
    if name in names() and not replace:
        raise ArgumentError(
            f"name must be new, found {name!r}, which is a model already; choose another, or say "
            "replace=True.",
            name="name",
        )
    _REGISTERED[name] = factory
    return factory


def engines_of(
    model: Any,
    *,
    members: int | None = None,
    emission: str | Callable[..., Emission] | None = None,
) -> dict[str, Engine]:
    """Engines of a model or of several, by the names of their columns; none has seen anything.

    Raises:
        TypeError: If a model is neither a name nor a spec nor an engine.
        ValueError: If there is no model of that name, or two have the same.
    """
    given = list(several(model)) if isinstance(model, list | tuple | np.ndarray) else [model]
    if not given:
        raise ArgumentError("model must name at least one model, found an empty list.")
    options = {"members": members, "emission": emission}
    for option, value in options.items():
        takers = [m for m in names() if option in _options(m)]
        if value is not None and not any(m in takers for m in given if isinstance(m, str)):
            raise ValueError(
                f"{option} is for the models {', '.join(takers)}, found model={model!r}; leave it "
                "out, or set it where the Spec is made."
            )
    found: dict[str, Engine] = {}
    for one in given:
        alias, engine = _engine(one, options)
        if alias in found:
            raise ValueError(
                f"models must differ in name, found {alias!r} twice; give a Spec another name "
                "with dataclasses.replace(spec, name=...), an Engine another alias."
            )
        found[alias] = engine if engine.updates else Restarted(engine)
    return found


def _options(name: str) -> Sequence[str]:
    """Options of a forecaster that a model takes."""
    if name in _REGISTERED:
        return list(inspect.signature(_REGISTERED[name]).parameters)
    return recipes.OPTIONS.get(name, ())


def _engine(model: Any, options: Mapping[str, Any]) -> tuple[str, Engine]:
    if isinstance(model, str):
        return model, _named(model, {k: options[k] for k in options if k in _options(model)})
    if isinstance(model, Spec):
        return model.name, LatentEngine(model)
    if isinstance(model, Engine):
        return _alias(model), _fresh(model, model.alias)
    if isinstance(model, type) and issubclass(model, Engine):
        return _alias(model), _made(model)
    raise TypeError(
        f"model must be a name, a Spec, an Engine or its class, or a list of these, found "
        f"{type(model).__name__}; the names are {', '.join(names())}."
    )


def _named(name: str, options: Mapping[str, Any]) -> Engine:
    if name in _REGISTERED:
        return _registered(name, {k: v for k, v in options.items() if v is not None})
    if name in _KNOWN:
        make: Callable[[], Engine] = _KNOWN[name]  # type: ignore[assignment]
        return make()
    if name not in recipes.OPTIONS:
        raise ArgumentError(
            f"model must be one of {', '.join(names())}, found {name!r}.{meant(name, names())} A "
            "model of your own is passed as a Spec or an Engine, or named by register(name, "
            "factory).",
            name="model",
        )
    return LatentEngine(spec_of(name, **options))


def _registered(name: str, options: Mapping[str, Any]) -> Engine:
    found = _REGISTERED[name](**options)
    if isinstance(found, Spec):
        return LatentEngine(replaced(found, name=name))
    if isinstance(found, Engine):
        return _fresh(found, name)
    raise TypeError(
        f"the factory of {name!r} must return a Spec or an Engine, found {type(found).__name__}."
    )


def _alias(engine: Engine | type[Engine]) -> str:
    return engine.alias or _class_of(engine).__name__


def _class_of(given: Engine | type[Engine]) -> type[Engine]:
    return given if isinstance(given, type) else type(given)


def _fresh(engine: Engine, alias: str) -> Engine:
    """A copy of an engine of one's own, which is left as it was given, under a name."""
    try:
        made = deepcopy(engine)
    except (TypeError, NotImplementedError, RuntimeError) as error:
        name = type(engine).__name__
        raise TypeError(
            f"an Engine is copied before each fit, and {name} cannot be: {error}; pass a function "
            f"that makes it, as register({name!r}, lambda: {name}(...))."
        ) from error
    if made.alias != alias:
        made.alias = alias
    return made


def _made(kind: type[Engine]) -> Engine:
    try:
        return kind()
    except TypeError as error:
        raise TypeError(
            f"the class of an Engine is called without arguments, which {kind.__name__} does not "
            f"take: {error}; pass an instance, {kind.__name__}(...), or give it all three of fit, "
            "start and paths."
        ) from error


# --- files ---------------------------------------------------------------------------------------


def kind_of(engine: Engine) -> str:
    """Name of the class of an engine, as a folder holds it."""
    return type(engine.engine if isinstance(engine, Restarted) else engine).__name__


def given_of(specs: Any, engines: Any, kinds: Mapping[str, str]) -> dict[str, Given]:
    """Models of one's own that a folder is read with, by the names of their columns.

    Args:
        specs: A Spec, or several.
        engines: An Engine, the class of one, or several of these.
        kinds: Names of the classes of the folder's engines, by the names of their columns.

    Raises:
        ArgumentError: If one is of another kind, or no model of the folder has its name.
    """
    found: dict[str, Given] = {}
    for name, given in (("specs", specs), ("engines", engines)):
        for one in given if isinstance(given, list | tuple) else [given]:
            if name == "specs" and isinstance(one, Spec):
                alias, fit = one.name, [one.name]
            elif name == "engines" and _is_engine(one):
                alias, kind = _alias(one), _class_of(one).__name__
                fit = [alias] if alias in kinds else [a for a, k in kinds.items() if k == kind]
            else:
                what = "Specs" if name == "specs" else "Engines or classes of these"
                raise ArgumentError(
                    f"{name} must be {what}, found {type(one).__name__}.", name=name
                )
            if not fit or fit[0] not in kinds:
                raise ArgumentError(
                    f"{name} must have the names of models in the folder, {', '.join(kinds)}, "
                    f"found {alias!r}.",
                    name=name,
                )
            found |= dict.fromkeys(fit, one)
    return found


def _is_engine(given: Any) -> bool:
    return isinstance(given, Engine) or (isinstance(given, type) and issubclass(given, Engine))


def registered(alias: str, saved: Mapping[str, Any], options: Mapping[str, Any]) -> Given | None:
    """The model that is registered under a name, where a folder needs it.

    Args:
        alias: The name.
        saved: What the folder says of the model, and of that in whose place it stands.
        options: Options of the forecaster.
    """
    asked = saved.get("asked")
    if asked is None and saved["engine"] == LatentEngine.__name__:
        asked = saved["config"]["spec"]
    told = asked["factory"] if asked else _known(saved["engine"], saved["config"])
    if told or alias not in _REGISTERED:
        return None
    made = _registered(alias, {k: v for k, v in options.items() if k in _options(alias)})
    return made.spec if isinstance(made, LatentEngine) else made


def model_of(alias: str, engine: Engine, given: Given | None = None) -> str | Given:
    """The model that is fitted where such an engine is fitted again.

    Args:
        alias: Name of its columns.
        engine: The engine.
        given: What a folder was read with in its place.
    """
    inner = engine.engine if isinstance(engine, Restarted) else engine
    if isinstance(inner, LatentEngine):
        return inner.spec
    if type(inner) in _KNOWN.values():
        assert isinstance(inner, Known)
        there = _KNOWN.get(alias)
        return alias if there not in (None, type(inner)) else _fresh(inner.unfitted(), alias)
    return _fresh(given if isinstance(given, Engine) else inner, alias)


def asked_to_dict(alias: str, engine: Engine) -> dict[str, Any] | None:
    """What a folder says of an engine in whose place another stands; None where its name says it.

    Args:
        alias: Name of its columns.
        engine: The engine that was asked for, unfitted.
    """
    if isinstance(engine, LatentEngine):
        return engine.spec.to_dict()
    known = type(engine) in _KNOWN.values()
    return None if known else {"factory": None, "engine": kind_of(engine)}


def asked_from_dict(alias: str, config: Mapping[str, Any], given: Given | None) -> str | Given:
    """Reads what :func:`asked_to_dict` gave."""
    if given is not None:
        return given
    if "engine" in config:
        raise _lacking(alias, config["engine"])
    return Spec.from_dict(dict(config))


def read_engine(kind: str, packed: Packed, given: Given | None, alias: str = "") -> Engine:
    """Reads an engine that a forecaster has written.

    Args:
        kind: Name of its class.
        packed: What it has learned.
        given: The spec to use instead of the saved one, or the engine, or its class.
        alias: Name of its columns.

    Raises:
        FolderError: If there is no such kind, or nothing is given where something is needed.
    """
    # another may stand in the place of what is given
    if given is not None and not isinstance(given, Spec) and _class_of(given).__name__ == kind:
        found = _class_of(given).unpacked(packed)
        return found if found.updates else Restarted(found)
    if kind == LatentEngine.__name__:
        return LatentEngine.unpacked(packed, given if isinstance(given, Spec) else None)
    known = _known(kind, packed.config)
    if known is None:
        raise _lacking(alias, kind)
    return known.unpacked(packed)


def _known(kind: str, config: Mapping[str, Any]) -> type[Known] | None:
    """The engine of the package of that name; a stranger's class may have the same."""
    found = [one for one in _KNOWN.values() if one.__name__ == kind]
    return found[0] if found and "attributes" not in config else None


def _lacking(alias: str, kind: str) -> FolderError:
    return FolderError(
        f"the model {alias!r} is an Engine of your own{f' of the class {kind!r}' if kind else ''}, "
        f"which is not saved, so that reading a folder runs no code but that of the package: pass "
        f"its class or an instance, as Forecaster.load(folder, engines=[{kind or 'engine'}]), or "
        f"register({alias!r}, factory) before. If it is none of yours, upgrade seqlatent."
    )
