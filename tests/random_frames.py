"""Random frames, seeded: long, wide, a Series or polars; of any types, orders, gaps and names."""

import traceback
import warnings
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

import seqlatent
from seqlatent.forecasting import ArgumentError, Columns, DataError, DigitsWarning

HOMES = {str(Path(seqlatent.__file__).parent), str(Path(__file__).parent.parent / "forecasting")}
AHEAD = 3  # rows of each series that are held back: what comes in updates and future covariates


def identifiers(rng, n):
    kinds = (
        [f"shop {i}" for i in range(n)],
        [str(i) for i in range(n)],
        list(range(-1, n - 1)),
        [2**60 + i for i in range(n)],
        [0.5 + i for i in range(n)],
        [True, False, 2, 3][:n],
        [1, "1", True, 1.0][:n],
        ["nan", "NA", "", " "][:n],
        [None, "a", "b", "c"][:n],
    )
    chances = np.array([6, 1, 3, 1, 1, 1, 1, 1, 0.5])
    return kinds[rng.choice(len(kinds), p=chances / chances.sum())]


def stamps(rng, n):
    begin = pd.Timestamp(str(rng.choice(["2024-01-01", "1999-12-31", "1700-05-05", "2023-10-20"])))
    freq = str(rng.choice(["D", "h", "MS", "W", "YE", "15min", "B"]))
    kind = rng.integers(11)
    if kind == 0:
        return pd.Series(rng.integers(-5, 5) + np.arange(n) * rng.integers(1, 4))
    if kind == 1:
        return pd.Series(pd.period_range(begin, periods=n, freq=str(rng.choice(["M", "D", "h"]))))
    if kind == 2:
        days = pd.date_range(begin, periods=n, freq=freq).tz_localize("UTC")
        return pd.Series(days.tz_convert("Europe/Berlin"))
    if kind == 3:
        return pd.Series(pd.date_range(begin, periods=n, freq=freq).astype(str))
    if kind == 4:
        return pd.Series(begin + pd.to_timedelta(np.sort(rng.integers(0, 99, n)), "h"))
    return pd.Series(pd.date_range(begin, periods=n, freq=freq))


def integers(values):
    return np.nan_to_num(values).clip(-(2**60), 2**60).round().astype(int)


def spoilt(rng, values):
    """Numbers of some type, now and then with a cell that is none."""
    kind = rng.integers(12)
    if kind == 0:
        return pd.Series(integers(values))
    if kind == 1:
        return pd.Series([Decimal(str(round(v, 3))) for v in values], dtype=object)
    if kind == 2:
        return pd.Series([None if rng.random() < 0.3 else v for v in values], dtype=object)
    if kind == 3:
        return pd.Series(values).astype("Float64").mask(rng.random(len(values)) < 0.3)
    if kind == 4:
        cell = [np.inf, "x", "3", 1j, 10**400, 1e308, b"1", pd.Timestamp(0)][rng.integers(8)]
        objects = pd.Series(list(values), dtype=object)
        objects.iloc[rng.integers(len(values))] = cell
        return objects
    if kind == 5:
        return pd.Series(integers(values) + 2**53)
    if kind == 6:
        return pd.Series(np.full(len(values), np.nan))
    return pd.Series(np.where(rng.random(len(values)) < 0.1, np.nan, values))


def values(rng, n):
    """Numbers of some shape and size: noise, walks, counts, flags, constants, extremes."""
    kind = rng.integers(10)
    noise = rng.normal(size=n)
    if kind == 0:
        return rng.poisson(rng.choice([0.3, 5.0, 300.0]), n).astype(float)
    if kind == 1:
        return rng.integers(0, 2, n).astype(float)
    if kind == 2:
        return np.full(n, float(rng.choice([0.0, 7.0, -1e12])))
    if kind == 3:
        return noise * 10.0 ** rng.integers(-30, 30)
    if kind == 4:
        return noise * 1e-6 + 1e9
    if kind == 5:
        return np.exp(noise.cumsum() / 3)
    if kind == 6:
        return np.where(rng.random(n) < 0.1, 1e4 * noise, noise)
    return (noise.cumsum() + 3 * np.sin(np.arange(n))) * 10.0 ** rng.integers(-3, 6)


def names(rng):
    if rng.random() < 0.9:
        return Columns()
    pool = ["naive", "y", "ds", "target", "model", "naive-mean", "value", "cutoff", "id", "_y"]
    id, time, target = (str(name) for name in rng.choice(pool, 3, replace=False))
    sample, cutoff = ("_sample", "_cutoff")
    return Columns(id=id, time=time, target=target, sample=sample, cutoff=cutoff)


@dataclass
class Case:
    """A random panel: what is fitted, what follows, and how it is to be read.

    Attributes:
        df: Rows to fit, long, of pandas.
        later: Rows that follow, of which each series has ``AHEAD`` or none.
        columns: Names of the columns.
        static: Static features, or None.
        form: ``"long"``, ``"polars"``, ``"wide"`` or ``"series"``.
    """

    df: pd.DataFrame
    later: pd.DataFrame
    columns: Columns
    static: Any
    form: str

    def given(self, df):
        """Rows in the form in which they are handed over."""
        c = self.columns
        if self.form == "polars":
            return pl.from_pandas(df)
        if self.form == "wide":
            if df.duplicated([c.time, c.id]).any():  # such as the ids 1 and True
                return df
            return df.pivot(index=c.time, columns=c.id, values=c.target)
        if self.form == "series":
            return pd.Series(df[c.target].array, pd.Index(df[c.time], dtype=df[c.time].dtype))
        return df


def case(seed):
    """The random panel of a seed."""
    rng = np.random.default_rng([7, seed])
    columns = names(rng)
    width = 2 if columns == Columns() and rng.random() < 0.1 else 1
    extra, past, future = [], [], None
    if columns == Columns():
        extra = [name for name in ("x", "cutoff", "naive", "sample_id") if rng.random() < 0.06]
        past = extra[-1:] if rng.random() < 0.3 else []
        future = None if rng.random() < 0.7 else [name for name in extra if name not in past]
        targets = ["y", "z"] if width == 2 else "y"
        roles = {"sample": "path", "cutoff": "until"} if rng.random() < 0.5 else {}
        past = [name for name in past if roles or name not in ("cutoff", "sample_id")]
        future = future and [n for n in future if roles or n not in ("cutoff", "sample_id")]
        columns = Columns(target=targets, future=future, past=past, **roles)
    df = _rows(rng, columns)
    rows = df.groupby(df[columns.id].map(_told), sort=False, dropna=False)
    clean = rng.random() < 0.7
    for name in columns.targets:
        one = values(rng, len(df))
        df[name] = pd.Series(one) if clean else spoilt(rng, one)
        if clean and rng.random() < 0.5:
            df.loc[rng.random(len(df)) < rng.choice([0.1, 0.6]), name] = np.nan
    for name in extra:
        one = values(rng, len(df))
        df[name] = pd.Series(one) if rng.random() < 0.8 else spoilt(rng, one)
    last = rows.cumcount(ascending=False).to_numpy() < AHEAD
    if rng.random() < 0.05:
        df.loc[len(df)] = df.iloc[0]
        last = np.append(last, False)
    if rng.random() < 0.2:
        kept = (rng.random(len(df)) > 0.2) | last
        df, last = df[kept].reset_index(drop=True), last[kept]
    if rng.random() < 0.1:
        df[columns.id] = df[columns.id].astype("category")
    if rng.random() < 0.3:
        turned = rng.permutation(len(df))
        df, last = df.iloc[turned].reset_index(drop=True), last[turned]
    static = None
    if rng.random() < 0.1:
        ids = df[columns.id].drop_duplicates().to_list()
        static = pd.DataFrame({columns.id: pd.Series(ids, dtype=df[columns.id].dtype)})
        static["size"] = spoilt(rng, values(rng, len(ids)))
        if rng.random() < 0.5:
            static["kind"] = rng.choice(["a", "b"], len(ids))
    return Case(df[~last], df[last], columns, static, _form(rng, df, columns, static))


def _told(id):
    return f"{type(id).__name__} {id}"


def _rows(rng, columns):
    """Identifiers and stamps of some series."""
    parts = []
    for id in identifiers(rng, rng.integers(1, 4)):
        n = AHEAD + int(rng.choice([1, 2, 5, 12, 25], p=[0.03, 0.07, 0.2, 0.4, 0.3]))
        ids = pd.Series([id] * n, dtype=object)
        parts.append(pd.DataFrame({columns.id: ids, columns.time: stamps(rng, n)}))
        if rng.random() < 0.95 and len(parts) > 1:  # most panels have one kind of stamps
            first = parts[0][columns.time]
            parts[-1] = pd.DataFrame({columns.id: ids[: len(first)], columns.time: first[:n]})
    df = pd.concat(parts, ignore_index=True)
    df[columns.id] = df[columns.id].infer_objects()
    return df


def _form(rng, df, columns, static):
    form = str(rng.choice(["long", "polars", "wide", "series"], p=[0.7, 0.14, 0.08, 0.08]))
    if form == "polars":
        return (
            form if plain(df) and not df[columns.time].dtype.name.startswith("period") else "long"
        )
    if form == "long" or static is not None or columns != Columns():
        return "long"
    if df[columns.id].nunique() > 1:
        twice = df.duplicated([columns.id, columns.time]).any()
        return "wide" if form == "wide" and not twice else "long"
    return form


def plain(df):
    """Whether polars has the types of a frame, whose objects it would guess at."""
    return not any(
        dtype.kind == "O" and not isinstance(dtype, pd.StringDtype) for dtype in df.dtypes
    )


def deliberate(error):
    """Whether an error is one of ours, or was raised by the package in words of its own."""
    if isinstance(error, DataError | ArgumentError):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    ours = any(str(Path(last)).startswith(home) for home in HOMES)
    return isinstance(error, ValueError | TypeError) and ours


def attempt(act, about):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DigitsWarning)
            return act()
    except Exception as error:
        if not deliberate(error):
            raise AssertionError(f"{about}: {type(error).__name__}: {error}") from error
        return None
