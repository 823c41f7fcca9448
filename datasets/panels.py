"""Benchmark sets as long frames of ``unique_id, ds, y``, and the split of each scoreboard task."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seqlatent.datasets.archive import load
from seqlatent.datasets.catalogue import TASKS, Task, require_dataset, require_task

if TYPE_CHECKING:
    import pandas as pd

PARTS = {task.name: (task.dataset, task.period) for task in TASKS if task.period}
PARTS["m3_other"] = ("m3", "OTHER")

MONTHS = {"YEARLY": 12, "QUARTERLY": 3, "MONTHLY": 1}


def load_long(
    name: str, *, root: str | os.PathLike[str] | None = None, download: bool = True
) -> "pd.DataFrame":
    """Loads a benchmark set as a long frame, ready for a forecaster.

    ``y`` is float64 with NaN where a value is missing; further columns are covariates. ``ds`` is a
    time stamp where the source gives one, else it counts steps (or days, or hours: see
    ``docs/datasets.md``). The competition sets M1 and M3 mix frequencies and are loaded by part:
    ``"m1_monthly"``, ``"m3_other"``. Their few series of unknown date start in 1970.

    Args:
        name: Name of a set in :func:`catalogue`, or of a task in :func:`tasks`.
        root: Folder to look in first, and to download to.
        download: Whether a set that is not found may be downloaded.

    Returns:
        ``unique_id, ds, y`` and covariates, in the order of the source, each series in the order of
        time.

    Raises:
        ValueError: If the set has no such form, or is to be loaded by part.
    """
    dataset, period = PARTS.get(name, (name, ""))
    require_dataset(dataset)
    if not period and dataset in ("m1", "m3"):
        parts = ", ".join(part for part in PARTS if part.startswith(dataset))
        raise ValueError(f"{name} mixes frequencies: load one part of it, {parts}.")
    if dataset not in PANELS:
        instead = f"load({name!r})" + (f" or piano_rolls({name!r})" if dataset in ROLLS else "")
        usable = ", ".join(sorted({*PANELS, *PARTS} - {"m1", "m3"}))
        raise ValueError(
            f"name must be a set of series to forecast, found {name!r}, which has no form "
            f"unique_id, ds, y; use {instead}. These have one: {usable}."
        )
    frame = load(dataset, root=root, download=download)
    if period:
        frame = frame.loc[frame["period"] == period]
    return PANELS[dataset](frame)


def split(
    task: str | Task, *, root: str | os.PathLike[str] | None = None, download: bool = True
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Loads a scoreboard task as training and test frames.

    The test is the last ``horizon`` values of each series.

    Args:
        task: Name of a task in :func:`tasks`, or a :class:`Task`.
        root: Folder to look in first, and to download to.
        download: Whether a set that is not found may be downloaded.

    Returns:
        Two long frames ``unique_id, ds, y``.
    """
    task = require_task(task)
    frame = load_long(task.name if task.period else task.dataset, root=root, download=download)
    if task.zero_fill:
        frame = frame.assign(y=frame["y"].fillna(0.0))
    left = frame.groupby("unique_id", sort=False).cumcount(ascending=False)
    test = left < task.horizon
    return frame.loc[~test].reset_index(drop=True), frame.loc[test].reset_index(drop=True)


def _melt(
    frame: "pd.DataFrame", time: str, values: Sequence[str], covariates: Sequence[str] = ()
) -> "pd.DataFrame":
    """Stacks columns; covariates are shared by all series."""
    import numpy as np
    import pandas as pd

    rows = len(frame)
    ids = np.repeat(np.array(values, dtype=object), rows)
    long = {
        "unique_id": pd.Series(ids).astype(str),
        "ds": np.tile(frame[time].to_numpy(), len(values)),
        "y": frame[list(values)].to_numpy(np.float64).T.reshape(-1),
    }
    return pd.DataFrame(long | {c: np.tile(frame[c].to_numpy(), len(values)) for c in covariates})


def _rename(
    frame: "pd.DataFrame", series: str, time: str, value: str, covariates: Sequence[str] = ()
) -> "pd.DataFrame":
    """A long frame under the usual names; ``series`` is a column, or the only series' name."""
    ids = frame[series].astype(str) if series in frame else series
    long = frame.loc[:, [time, value, *covariates]].rename(columns={time: "ds", value: "y"})
    long["y"] = long["y"].astype("float64")
    long.insert(0, "unique_id", ids)
    return long.reset_index(drop=True)


def _wide(time: str, *skip: str) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    return lambda frame: _melt(frame, time, [c for c in frame.columns if c not in (time, *skip)])


def _long(
    series: str, time: str, value: str, *covariates: str
) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    return lambda frame: _rename(frame, series, time, value, covariates)


def _others(
    series: str, time: str, value: str, *skip: str
) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    """As :func:`_long`, with all columns but ``skip`` as covariates."""

    def convert(frame: "pd.DataFrame") -> "pd.DataFrame":
        covariates = [c for c in frame.columns if c not in (series, time, value, *skip)]
        return _rename(frame, series, time, value, covariates)

    return convert


def _gefcom_load(frame: "pd.DataFrame") -> "pd.DataFrame":
    loads = [c for c in frame.columns if c.startswith("load_")]
    return _melt(frame, "ds", loads, [c for c in frame.columns if c.startswith("temp_")])


def _competition(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Dates from the year and period in which a series starts; steps where there is no calendar."""
    period = frame["period"].iloc[0]
    if period not in MONTHS:
        return _rename(frame, "series", "t", "y")
    months = MONTHS[period]
    year = frame["start_year"].where(frame["start_year"] > 1, 1970).astype("int64")
    first = (year - 1970) * 12 + (frame["start_period"].astype("int64") - 1) * months
    month = first + frame["t"].astype("int64") * months
    ds = month.to_numpy().astype("datetime64[M]").astype("datetime64[us]")
    return _rename(frame.assign(ds=ds), "series", "ds", "y")


ROLLS = ("jsb_chorales", "musedata", "nottingham")

PANELS: dict[str, Callable[["pd.DataFrame"], "pd.DataFrame"]] = {
    "bike_sharing": _others("bike_sharing", "ds", "cnt", "casual", "registered"),
    "car_parts": _wide("ds"),
    "electricity_14d": _wide("ds"),
    "epf_short": _long("series", "ds", "y", "exog1", "exog2"),
    "etth1": _wide("ds"),
    "ettm1": _wide("ds"),
    "exchange_rate": _wide("t", "part"),
    "gefcom2012_load": _gefcom_load,
    "gefcom2012_wind": _wide("ds"),
    "german_solar_2": _others("series", "elapsed_h", "power", "t"),
    "illness": _wide("ds"),
    "m1": _competition,
    "m3": _competition,
    "m4_hourly": _long("series", "t", "y"),
    "m4_weekly": _long("series", "t", "y"),
    "m5_small": _others("series", "ds", "y"),
    "pbcseq": _others("id", "day", "bili"),
    "stock": _wide("t"),
    "vic_elec": _long("vic_elec", "ds_utc", "demand", "temperature", "holiday"),
}
