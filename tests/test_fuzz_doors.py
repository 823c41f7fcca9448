"""Random frames at every door: the order of rows and series says nothing, and errors teach.

``SEQLATENT_FUZZ=2000`` tries as many frames instead of a hundred.
"""

import os

import numpy as np
import pandas as pd
import polars as pl
import pytest
from random_frames import attempt, identifiers, names, plain, spoilt, stamps

from seqlatent.forecasting import Columns, Forecaster, metrics
from seqlatent.forecasting.metrics.cells import open_frame

FRAMES = int(os.environ.get("SEQLATENT_FUZZ", "100"))
CHUNKS = 5
MODELS = ["naive", "seasonal_naive"]


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
    if rng.random() < 0.1 and columns == Columns() and pd.notna(df["unique_id"].iloc[0]):
        one = df[df["unique_id"] == df["unique_id"].iloc[0]]
        return pd.Series(one["y"].array, pd.Index(one["ds"], dtype=one["ds"].dtype), name="y")
    return df


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
    return None if not model._fitted.covariates else df


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
            if seed % 3 == 0 and plain(df):
                polars = pl.from_pandas(df)
                other = attempt(lambda d=polars, c=columns: Forecaster(MODELS, columns=c).fit(d), 0)
                if other is not None:
                    same(found, other.predict(2, level=[80]), columns, seed)
        if seed % 3:
            doors(model, df, columns)
    assert fitted >= FRAMES // CHUNKS // 5
