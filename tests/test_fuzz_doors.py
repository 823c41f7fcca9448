"""Random frames at every door: the order of rows and series says nothing, and errors teach.

``SEQLATENT_FUZZ=2000`` tries as many frames instead of a hundred.
"""

import os
import traceback
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import seqlatent
from seqlatent.forecasting import Columns, DataError, DigitsWarning, Forecaster, metrics
from seqlatent.forecasting.metrics.cells import open_frame

FRAMES = int(os.environ.get("SEQLATENT_FUZZ", "100"))
CHUNKS = 5
MODELS = ["naive", "seasonal_naive"]
HOMES = {str(Path(seqlatent.__file__).parent), str(Path(__file__).parent.parent / "forecasting")}


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


def spoilt(rng, values):
    """Numbers of some type, now and then with a cell that is none."""
    kind = rng.integers(12)
    if kind == 0:
        return pd.Series(values.round().astype(int))
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
        return pd.Series(values.round().astype(int) + 2**53)
    if kind == 6:
        return pd.Series(np.full(len(values), np.nan))
    return pd.Series(np.where(rng.random(len(values)) < 0.1, np.nan, values))


def names(rng):
    if rng.random() < 0.9:
        return Columns()
    pool = ["naive", "y", "ds", "target", "model", "naive-mean", "value", "cutoff", "id", "_y"]
    id, time, target = (str(name) for name in rng.choice(pool, 3, replace=False))
    sample, cutoff = ("_sample", "_cutoff")
    return Columns(id=id, time=time, target=target, sample=sample, cutoff=cutoff)


def frame(rng, columns):
    parts = []
    for id in identifiers(rng, rng.integers(1, 4)):
        n = int(rng.choice([1, 2, 5, 12, 25], p=[0.03, 0.07, 0.2, 0.4, 0.3]))
        ids = pd.Series([id] * n, dtype=object)
        parts.append(pd.DataFrame({columns.id: ids, columns.time: stamps(rng, n)}))
        if rng.random() < 0.95 and len(parts) > 1:  # most panels have one kind of stamps
            first = parts[0][columns.time]
            parts[-1] = pd.DataFrame({columns.id: ids[: len(first)], columns.time: first[:n]})
    df = pd.concat(parts, ignore_index=True)
    df[columns.id] = df[columns.id].infer_objects()
    df[columns.target] = spoilt(
        rng, rng.normal(size=len(df)).cumsum() * 10.0 ** rng.integers(-3, 6)
    )
    if rng.random() < 0.15:
        df["x"] = spoilt(rng, rng.normal(size=len(df)))
    if rng.random() < 0.05:
        df = pd.concat([df, df.iloc[:1]], ignore_index=True)
    if rng.random() < 0.1:
        df[columns.id] = df[columns.id].astype("category")
    if rng.random() < 0.1 and columns == Columns():
        one = df.groupby("unique_id", sort=False).get_group(df["unique_id"].iloc[0])
        return pd.Series(one["y"].array, pd.Index(one["ds"], dtype=one["ds"].dtype), name="y")
    return df


def deliberate(error):
    """Whether an error is one of ours, or was raised by the package in words of its own."""
    if isinstance(error, DataError):
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


def doors(model, df, columns):
    """Every verb that takes a frame, and what scores its answers."""
    again = attempt(lambda: model.predict(1, df=df, X_df=ahead(model, df)), "predict again")
    for verb in ("score", "impute", "innovations", "diagnose"):
        attempt(lambda verb=verb: getattr(model, verb)(df), verb)
    attempt(lambda: model.sample(2, n=2, X_df=ahead(model, df)), "sample")
    attempt(lambda: model.update(df), "update")
    cv = attempt(
        lambda: Forecaster(MODELS, columns=columns).cross_validation(df, 1, level=None), "backtest"
    )
    if cv is not None:
        assert open_frame(cv)[columns.target].dtype.is_numeric()
        attempt(lambda: metrics.scores(None, cv, df, 1, columns=columns), "scores")
    return again


def ahead(model, df):
    return None if not model._names else df


def ordered(found, columns):
    """Forecasts in an order that does not depend on that of rows and series."""
    found = found.to_pandas() if isinstance(found, pl.DataFrame) else found
    key = found[columns.id].map(lambda id: f"{type(id).__name__} {id}")
    order = np.lexsort((found[columns.time].astype(str), key))
    cells = [name for name in found if name.startswith(tuple(MODELS))]
    return key.to_numpy()[order], found[cells].to_numpy(float)[order]


def same(one, other, columns, about):
    ids, values = ordered(one, columns)
    others, again = ordered(other, columns)
    assert list(ids) == list(others), about
    scale = np.maximum(np.abs(values), np.abs(values).max() * 1e-3)
    assert (np.abs(again - values) <= 1e-9 * scale).all(), about


def _plain(df):
    """Whether polars has the types of a frame, whose objects it would guess at."""
    return not any(
        dtype.kind == "O" and not isinstance(dtype, pd.StringDtype) for dtype in df.dtypes
    )


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_frames(chunk):
    fitted = 0
    for seed in range(chunk, FRAMES, CHUNKS):
        rng = np.random.default_rng(seed)
        columns = attempt(lambda rng=rng: names(rng), seed)
        if columns is None:
            continue
        df = frame(rng, columns)
        model = attempt(lambda df=df, c=columns: Forecaster(MODELS, columns=c).fit(df), seed)
        if model is None:
            continue
        fitted += 1
        found = attempt(lambda m=model, df=df: m.predict(2, X_df=ahead(m, df), level=[80]), seed)
        if found is not None and isinstance(df, pd.DataFrame):
            shuffled = df.sample(frac=1.0, random_state=seed)
            other = attempt(
                lambda d=shuffled, c=columns: Forecaster(MODELS, columns=c).fit(d), seed
            )
            same(found, other.predict(2, level=[80]), columns, seed)
            if seed % 3 == 0 and _plain(df):
                polars = pl.from_pandas(df)
                other = attempt(lambda d=polars, c=columns: Forecaster(MODELS, columns=c).fit(d), 0)
                if other is not None:
                    same(found, other.predict(2, level=[80]), columns, seed)
        if seed % 3:
            doors(model, df, columns)
    assert fitted >= FRAMES // CHUNKS // 5
