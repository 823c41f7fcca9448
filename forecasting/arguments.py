"""Arguments of a forecaster, checked before anything starts."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import ArgumentError, TimeError
from seqlatent.forecasting.time.frequency import IRREGULAR, Frequency, alias_of, plain_freq
from seqlatent.forecasting.values import scalar, several, told
from seqlatent.spelling import meant

__all__ = [
    "ForecastOptions",
    "chosen",
    "device_of",
    "flag",
    "freq_of",
    "horizon",
    "interval",
    "levels_of",
    "objects",
    "one_level",
    "one_quantile",
    "quantiles_of",
    "real",
    "samples_of",
    "seasons_of",
    "seconds_of",
    "seed_of",
    "whole",
]

DEVICES = ("cpu", "cuda", "mps", "xpu")


# Beyond these, quantiles round to the ends, or say more of a tail than any model knows.
_LEAST_LEVEL, _LEAST_QUANTILE = 1e-6, 1e-9


_MOST = sys.float_info.max  # integers may be larger


@dataclass(frozen=True)
class ForecastOptions:
    """What is wanted of the forecasts of a model.

    Args:
        levels: Levels of central intervals, in percent.
        quantiles: Levels of quantiles.
        samples: Sample paths behind quantiles that have no closed form; None leaves it to a model.
    """

    levels: tuple[float | int, ...] = ()
    quantiles: tuple[float | int, ...] = ()
    samples: int | None = None

    @classmethod
    def of(cls, level: Any, quantiles: Any = None, samples: Any = None) -> "ForecastOptions":
        """Reads what a caller gave.

        Raises:
            ArgumentError: If a number is out of range, or none.
        """
        samples = None if samples is None else whole("samples", samples, "a number of paths")
        return cls(levels_of(level), quantiles_of(quantiles), samples)

    @property
    def points(self) -> list[float | int]:
        """Levels of all quantiles that are needed, the median among them, ascending."""
        ends = (p for level in self.levels for p in interval(level))
        return sorted({0.5, *self.quantiles, *ends})

    @property
    def columns(self) -> int:
        """Columns of each model: median, mean, intervals and quantiles."""
        return 2 + 2 * len(self.levels) + len(self.quantiles)


def objects(values: Sequence[Any]) -> np.ndarray:
    """Identifiers as an array, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def whole(name: str, value: Any, what: str, least: int = 1, most: int | None = None) -> int:
    """Reads an integer: of Python, numpy or torch.

    Raises:
        ArgumentError: If it is none, or out of the range that makes sense.
    """
    found = scalar(value)
    fits = isinstance(found, int) and not isinstance(found, bool) and found >= least
    if not fits or (most is not None and found > most):
        upper = "" if most is None else f" and at most {most}"
        raise ArgumentError(
            f"{name} must be {what} of at least {least}{upper}, found {told(value)}.", name=name
        )
    return found


def real(name: str, value: Any, what: str, least: float | int) -> float:
    """Reads a finite number.

    Raises:
        ArgumentError: If it is none, or less than the least that makes sense.
    """
    found = scalar(value)
    fits = isinstance(found, int | float) and not isinstance(found, bool)
    if not fits or not least <= found <= _MOST:
        raise ArgumentError(
            f"{name} must be {what} of at least {least}, found {told(value)}.", name=name
        )
    return float(found)


def flag(name: str, value: Any) -> bool:
    """Reads True or False.

    Raises:
        ArgumentError: If it is neither.
    """
    found = scalar(value)
    if not isinstance(found, bool):
        raise ArgumentError(f"{name} must be True or False, found {told(value)}.", name=name)
    return found


def chosen(name: str, value: Any, among: Iterable[str]) -> str:
    """Reads a word that is one of several.

    Raises:
        ArgumentError: If it is none of them; a word that is like it is told.
    """
    found, known = scalar(value), tuple(among)
    if not isinstance(found, str) or found not in known:
        listed = ", ".join(map(repr, known))
        raise ArgumentError(
            f"{name} must be one of {listed}, found {told(value)}.{meant(found, known)}", name=name
        )
    return str(found)


def horizon(h: Any) -> int:
    """Reads a number of steps."""
    return whole("h", h, "a number of steps")


def levels_of(level: Any) -> tuple[float | int, ...]:
    """Reads levels of intervals, in percent; None is none."""
    return _within("level", level, 100, f"100 percent, by {_LEAST_LEVEL:f}", _LEAST_LEVEL)


def quantiles_of(quantiles: Any) -> tuple[float | int, ...]:
    """Reads levels of quantiles; None is none."""
    return _within("quantiles", quantiles, 1, f"1, by {_LEAST_QUANTILE:g}", _LEAST_QUANTILE)


def _within(name: str, values: Any, most: int, words: str, least: float) -> tuple[float | int, ...]:
    """Numbers between 0 and ``most``, neither closer to it than ``least`` nor repeated."""
    given = _numbers(name, values)
    for x in given:
        if not least <= x <= most - least:
            raise ArgumentError(
                f"{name} must lie between 0 and {words} or more, found {told(x)}.", name=name
            )
    _told_apart(name, given)
    return given


def one_level(level: Any) -> float | int:
    """Reads the level of one interval, in percent."""
    found = scalar(level)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 100:
        raise ArgumentError(
            f"level must be a percentage between 0 and 100, found {told(level)}.", name="level"
        )
    return found


def one_quantile(q: Any) -> float | int:
    """Reads the level of one quantile."""
    found = scalar(q)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1:
        raise ArgumentError(
            f"the level of a quantile must lie between 0 and 1, found {told(q)}.", name="q"
        )
    return found


def interval(level: int | float) -> tuple[float, float]:
    """Levels of the quantiles at both ends of a central interval, given in percent."""
    return round(0.5 - level / 200, 10), round(0.5 + level / 200, 10)


def _numbers(name: str, given: Any) -> tuple[float | int, ...]:
    """One number or several, in whatever holds them, as numbers of Python."""
    found = () if given is None else several(given)
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise ArgumentError(f"{name} must be a list of numbers, found {told(one)}.", name=name)
    return found


def _told_apart(name: str, given: Sequence[float | int]) -> None:
    """Refuses numbers that would have one name as columns."""
    seen: dict[str, float | int] = {}
    for one in given:
        other = seen.setdefault(f"{one:g}", one)
        if abs(one - other) > 1e-9:
            raise ArgumentError(
                f"{name} must differ in the first six digits, after which columns are named, found "
                f"{told(other)} and {told(one)}.",
                name=name,
            )


def samples_of(samples: Any, preferred: int) -> int:
    """Reads a number of paths; None is what the engine prefers."""
    return preferred if samples is None else whole("samples", samples, "a number of paths")


def seed_of(seed: Any) -> int:
    """Reads a seed; those of members and chunks follow from it, and have to be 64-bit numbers."""
    return whole("seed", seed, "an integer", 0, 2**53)


def seasons_of(given: Any) -> tuple[int, ...] | None:
    """Reads season lengths; None is left to the time index."""
    if given is None:
        return None
    return tuple(whole("season_length", s, "a number of steps", 1, 2**53) for s in several(given))


def seconds_of(time_limit: Any) -> float | None:
    """Reads a number of seconds or a duration; None and infinity are no limit."""
    if time_limit is None:
        return None
    limit = _duration(time_limit)
    limit = scalar(limit.total_seconds() if isinstance(limit, timedelta) else limit)
    fits = isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0
    if not fits or _MOST < limit < math.inf:
        raise ArgumentError(
            f"time_limit must be a positive number of seconds, found {told(time_limit)}.",
            name="time_limit",
        )
    return None if limit == math.inf else float(limit)


def freq_of(freq: Any) -> str | int | None:
    """Reads a frequency: an alias, an offset, a duration, a step of integers; None infers it.

    Raises:
        TimeError: If there is no such frequency.
    """
    found = plain_freq(scalar(_duration(freq)))
    step = isinstance(found, int) and not isinstance(found, bool)
    if found is None or (step and 0 < found < 2**63):
        return found
    if step and found > 0:
        raise TimeError(
            f"freq: expected a step of integers that 64 bits hold, found {told(found)}. Give the "
            "step that the stamps have."
        )
    alias = alias_of(found)
    if alias.lower() != IRREGULAR:
        Frequency.parse(alias)
    return alias


def _duration(value: Any) -> Any:
    """A duration of Python or numpy as one of pandas; anything else as it is."""
    value = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    return pd.Timedelta(value) if isinstance(value, timedelta | np.timedelta64) else value


def device_of(device: Any) -> str:
    """Reads a device, and makes sure that this machine has it.

    Raises:
        ArgumentError: If there is no such device here.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"device must be a device of torch such as 'cpu', 'cuda' or 'cuda:1', found "
            f"{told(device)}.",
            name="device",
        ) from error
    if found.type == "cpu":
        return str(found)
    home = getattr(torch, found.type, None) if found.type in DEVICES else None
    count = 0 if home is None else home.device_count()
    if (found.index or 0) >= count:
        here = ["cpu", *(f"{found.type}:{i}" for i in range(count))]
        raise ArgumentError(
            f"device must be one that this machine has, found {told(device)}; here there "
            f"{'are' if count else 'is only'} {', '.join(map(repr, here))}.",
            name="device",
        )
    return str(found)
