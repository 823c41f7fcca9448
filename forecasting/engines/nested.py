"""Nested values: dictionaries, tuples and dataclasses of arrays, picked, joined and saved."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqlatent.forecasting.errors import FolderError
from seqlatent.forecasting.frames.identifiers import decoded, encoded
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.index import TimeIndex

__all__ = []

STRUCTURE = "structure"
_PLAIN = (type(None), bool, int, float, str, np.bool_, np.integer, np.floating)


def select(value: Any, index: np.ndarray) -> Any:
    """Picks series of everything that has them as its first axis.

    Args:
        value: Tensors and arrays, in tuples, dictionaries and dataclasses.
        index: Places of the series.

    Raises:
        TypeError: If the first axes differ, or something has none.
    """
    _batch(value)
    place = torch.from_numpy(np.asarray(index, dtype=np.int64))
    return _each(lambda x: x[place.to(x.device)] if isinstance(x, Tensor) else x[index], [value])


def join(values: Sequence[Any]) -> Any:
    """Puts the series of several values of one kind behind one another.

    Raises:
        TypeError: If one cannot be picked from, or what all series share differs.
    """
    for value in values:
        _batch(value)
    return _each(
        lambda *x: torch.cat(x) if isinstance(x[0], Tensor) else np.concatenate(x), list(values)
    )


def _batch(value: Any) -> int | None:
    """Series of which everything in a value speaks, None where it holds no arrays."""
    sizes = {where: _first(leaf, where) for where, leaf in _leaves(value, "state")}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{where} {size}" for where, size in sizes.items())
        raise TypeError(
            "the arrays of a state must all have the series as their first axis, found first axes "
            f"of {found}; keep what all series share in the engine, or give it select and join of "
            "its own."
        )
    return next(iter(sizes.values()), None)


def _first(leaf: Any, where: str) -> int:
    if isinstance(leaf, Tensor | np.ndarray) and leaf.ndim:
        return len(leaf)
    found = "an array without axes" if isinstance(leaf, Tensor | np.ndarray) else _kind(leaf)
    raise TypeError(
        "a state must be made of tensors and arrays whose first axis is the series, in tuples, "
        f"dictionaries and dataclasses, found {found} at {where}; make it an array, or give the "
        "engine select, join, pack and unpack of its own."
    )


def _leaves(value: Any, where: str) -> list[tuple[str, Any]]:
    """Arrays by their places; a number, text or None that a name stands for is shared by all."""
    parts = _named(value)
    if parts is not None:
        shared = [x for x in parts.items() if not isinstance(x[1], _PLAIN)]
        return [one for key, x in shared for one in _leaves(x, f"{where}[{key!r}]")]
    if isinstance(value, tuple):
        return [one for i, x in enumerate(value) for one in _leaves(x, f"{where}[{i}]")]
    return [(where, value)]


def _named(value: Any) -> dict[Any, Any] | None:
    """Parts that have names, of dictionaries, named tuples and dataclasses."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()  # type: ignore[attr-defined]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return None


def _each(change: Callable[..., Any], values: Sequence[Any]) -> Any:
    """Values of one structure, their arrays put through a function together."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise TypeError(f"states must be of one type, found {' and '.join(map(_kind, values))}.")
    if isinstance(first, _PLAIN):
        if any(value != first and not (value != value and first != first) for value in values):
            raise TypeError(
                f"states must agree in what all series share, found {first!r} beside others; make "
                "it an array with the series as its first axis."
            )
        return first
    parts = [_named(value) for value in values]
    if parts[0] is not None:
        changed = {key: _each(change, [p[key] for p in parts if p]) for key in parts[0]}
        if isinstance(first, dict):
            return changed
        return type(first)(**changed) if isinstance(first, tuple) else replace(first, **changed)
    if isinstance(first, tuple):
        return tuple(_each(change, together) for together in zip(*values, strict=True))
    return change(*values)


def flat(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON holds it; its arrays are put among the tensors, by their places.

    Args:
        value: Numbers, text, arrays and tensors, in lists, tuples, dictionaries and dataclasses.
        where: What the value is, for errors and names of tensors.
        tensors: Where arrays go.

    Raises:
        FolderError: If something is of another kind.
    """
    if isinstance(value, np.bool_ | np.integer | np.floating):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}  # JSON has no infinity
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().contiguous()
        return {"tensor": where}
    if isinstance(value, np.ndarray):
        return _flat_array(value, where, tensors)
    if isinstance(value, Panel):
        parts: Any = {f.name: getattr(value, f.name) for f in fields(value)}
        parts["time_index"] = json.dumps(value.time_index.to_dict())
        return {"panel": flat(parts, where, tensors)}
    named = _named(value)
    if isinstance(value, dict):
        pairs = [[_key(k, where), flat(x, f"{where}.{k}", tensors)] for k, x in value.items()]
        return {"dict": pairs}
    if named is not None:
        parts = {k: flat(x, f"{where}.{k}", tensors) for k, x in named.items()}
        return {"class": type(value).__qualname__, "parts": parts}
    if isinstance(value, list | tuple):
        items = [flat(x, f"{where}.{i}", tensors) for i, x in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    raise FolderError(
        "what is saved must be made of numbers, text, arrays and tensors, in lists, tuples, "
        f"dictionaries and dataclasses, found {_kind(value)} at {where}; keep what it has learned "
        "as arrays, or give the engine packed and unpacked (of a state: pack and unpack) of its "
        "own."
    )


def _flat_array(value: np.ndarray, where: str, tensors: dict[str, Tensor]) -> Any:
    if value.dtype.kind in "OUT":
        cells = [_key(x, where) for x in value.reshape(-1).tolist()]
        return {"objects": cells, "shape": list(value.shape), "dtype": value.dtype.kind}
    # torch has neither time stamps nor wide unsigned numbers
    wide = value.dtype.kind in "Mm" or (value.dtype.kind == "u" and value.dtype.itemsize > 1)
    held = value.astype(np.int64) if wide else value
    tensors[where] = torch.from_numpy(np.array(held, order="C"))
    return {"array": where, "dtype": value.dtype.str}


def _key(key: Any, where: str) -> Any:
    try:
        return encoded(key)
    except TypeError as error:
        raise FolderError(f"{where}: {error}") from error


def restored(structure: Any, tensors: Mapping[str, Tensor], home: type) -> Any:
    """Reads what :func:`flat` gave.

    Args:
        structure: What JSON held.
        tensors: The arrays.
        home: A class beside which the dataclasses and named tuples are defined.

    Raises:
        FolderError: If a class is not there.
    """
    if not isinstance(structure, dict):
        return structure

    def inner(part: Any) -> Any:
        return restored(part, tensors, home)

    (kind, held), *rest = structure.items()
    if kind == "float":
        return float.fromhex(held)
    if kind == "tensor":
        return tensors[held].clone()
    if kind == "array":
        return np.array(tensors[held].numpy()).astype(dict(rest)["dtype"])
    if kind == "objects":
        shape, letter = dict(rest)["shape"], dict(rest)["dtype"]
        cells = np.empty(len(held), dtype=object)
        cells[:] = [decoded(code) for code in held]
        return (cells.astype(str) if letter == "U" else cells).reshape(shape)
    if kind == "panel":
        parts = inner(held)
        return Panel(**parts | {"time_index": TimeIndex.from_dict(json.loads(parts["time_index"]))})
    if kind == "dict":
        return {decoded(key): inner(part) for key, part in held}
    if kind == "class":
        made = {key: inner(part) for key, part in structure["parts"].items()}
        return _class(held, home)(**made)
    items = [inner(part) for part in held]
    return tuple(items) if kind == "tuple" else items


def _class(name: str, home: type) -> Any:
    """A dataclass or named tuple, from the modules in which an engine's classes are defined."""
    for kind in home.__mro__:
        found: Any = sys.modules.get(kind.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        # a folder names no other code than this
        fits = is_dataclass(found) or (isinstance(found, type) and issubclass(found, tuple))
        if isinstance(found, type) and fits and found.__module__ == kind.__module__:
            return found
    raise FolderError(
        f"the folder holds a value of the class {name}, which is not defined at the top of the "
        f"module of {home.__qualname__}; define it there, or give the engine pack and unpack of "
        "its own."
    )


def as_tensors(value: Any, where: str) -> dict[str, Tensor]:
    """A value as tensors alone, one of which says how it is built.

    Raises:
        FolderError: If something in it is no value that can be saved.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(flat(value, where, tensors)).encode()
    return {**tensors, STRUCTURE: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def from_tensors(tensors: Mapping[str, Tensor], home: type) -> Any:
    """Reads what :func:`as_tensors` gave."""
    text = tensors[STRUCTURE].numpy().tobytes().decode()
    return restored(json.loads(text), tensors, home)


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
