"""Offsets, the steps of pandas as text that keeps every parameter, and back."""

import datetime
import json
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd

from seqlatent.forecasting.errors import TimeError

__all__ = ["brief"]

SHOWN = 60  # characters of parameters that errors show


def written(offset: Any) -> str:
    """An offset as text: its alias where that says everything, else its class and parameters.

    Example:
        >>> import pandas as pd
        >>> from seqlatent.forecasting.time.offsets import written
        >>> written(pd.offsets.MonthEnd(2))
        '2ME'
        >>> written(pd.offsets.CustomBusinessDay(weekmask="Sun Mon", holidays=["2024-12-25"]))
        'CustomBusinessDay{"holidays": ["2024-12-25"], "weekmask": "Sun Mon"}'
    """
    kind = type(offset).__name__
    if getattr(pd.offsets, kind, None) is not type(offset):
        raise TimeError(
            f"freq: expected an offset of pandas, found {offset!r} of the class {kind}. Use one of "
            "pd.offsets, such as CustomBusinessDay(weekmask=..., holidays=[...])."
        )
    alias = offset.freqstr
    if _parsed(alias) == offset and (kind != "Week" or offset.weekday is not None):
        return alias
    if kind == "Week":
        return f"{offset.n if offset.n > 1 else ''}W"
    plain = {
        name: _plain(name, value, offset)
        for name, value in offset.kwds.items()
        if name != "calendar"
    }
    plain |= {"n": None if offset.n == 1 else offset.n, "normalize": offset.normalize or None}
    kept = {name: value for name, value in plain.items() if value not in (None, [], 0.0)}
    return kind + json.dumps(kept, sort_keys=True)


def read_offset(text: str) -> Any:
    """The offset that some text stands for; None if there is none."""
    match = re.fullmatch(r"([A-Z]\w*)(\{.*\})", text)
    if match is None:
        return _parsed(text)
    try:
        parameters = json.loads(match[2])
        if "offset" in parameters:
            parameters["offset"] = pd.Timedelta(seconds=parameters["offset"])
        return getattr(pd.offsets, match[1])(**parameters)
    except (ValueError, TypeError, AttributeError):
        return None


def brief(freq: Any) -> str:
    """A frequency as errors show it: long lists of parameters are cut."""
    text = str(freq)
    head, brace, rest = text.partition("{")
    if not brace or len(rest) <= SHOWN:
        return repr(freq)
    return repr(f"{head}{{{rest[:SHOWN]}...}}")


def on_offset(offset: Any, stamp: Any) -> bool:
    """Whether an offset may step from a stamp: a ``DateOffset`` from the day that it sets."""
    if type(offset) is not pd.DateOffset:
        return bool(offset.is_on_offset(stamp))
    fixed = {name: value for name, value in offset.kwds.items() if not name.endswith("s")}
    return not fixed or stamp + pd.DateOffset(**fixed) == stamp


def _parsed(alias: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return pd.tseries.frequencies.to_offset(alias)
    except (ValueError, TypeError, KeyError, Warning):
        return None


def _plain(name: str, value: Any, offset: Any) -> Any:
    """A parameter as JSON takes it."""
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(name, item, offset) for item in value]
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[D]"))
    if isinstance(value, datetime.time):
        return value.strftime("%H:%M")
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TimeError(
        f"freq: expected parameters that are numbers, text or dates, found {name}={value!r} in "
        f"{offset!r}. Use another offset, or periods: df['ds'].dt.to_period('M')."
    )
