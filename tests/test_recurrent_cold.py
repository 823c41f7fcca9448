"""Series without values: their level, season and spread follow from static features."""

import numpy as np
import pandas as pd
import pytest

from seqlatent.forecasting import Forecaster, Recurrent

SEASON, ROWS = 4, 40


def panel(effect, series=60, seed=0, log=True):
    """Series whose level, and the size of whose season, are decided by a static, and those."""
    rng = np.random.default_rng(seed)
    frames, statics = [], []
    for i in range(series):
        a, kind = rng.normal(), rng.choice(["x", "y"])
        wave = np.array([0.3, -0.1, -0.3, 0.1]) * (1 if kind == "x" else -1)
        level = effect * a
        y = level + np.tile(wave, ROWS // SEASON) + 0.05 * rng.normal(size=ROWS)
        y = np.exp(3 + y) if log else 10 * y
        ds = pd.date_range("2015-01-01", periods=ROWS, freq="QS")
        frames.append(pd.DataFrame({"unique_id": f"s{i:02}", "ds": ds, "y": y}))
        statics.append({"unique_id": f"s{i:02}", "a": a, "kind": kind})
    return pd.concat(frames, ignore_index=True), pd.DataFrame(statics)


def blank(df, static):
    """The last ten series as new ones, of whose values none is known."""
    ids = static["unique_id"].tail(10)
    new = df["unique_id"].isin(ids)
    first = df[new].groupby("unique_id").head(8).assign(y=np.nan)
    return df[~new], first, df[new].groupby("unique_id").nth([8, 9, 10, 11])


@pytest.mark.parametrize("log", [True, False])
def test_levels_and_seasons_of_new_series_follow_their_statics(log):
    df, static = panel(1.0, log=log)
    old, first, truth = blank(df, static)
    model = Forecaster(Recurrent(members=1, steps=1), freq="QS", season_length=SEASON)
    model.fit(old, static_df=static[static["unique_id"].isin(old["unique_id"])])
    found = model.update(first, static_df=static).predict(4, level=[80])
    both = truth.merge(found, on=["unique_id", "ds"])
    assert len(both) == 40
    unit = np.log if log else (lambda x: x / 10)
    error = unit(both["recurrent"]) - unit(both["y"])
    assert np.sqrt((error**2).mean()) < 0.25  # the levels alone deviate by one
    moved = unit(both["recurrent"]) - unit(both["recurrent"]).groupby(both["unique_id"]).transform(
        "mean"
    )
    true = unit(both["y"]) - unit(both["y"]).groupby(both["unique_id"]).transform("mean")
    assert np.corrcoef(moved, true)[0, 1] > 0.9


def test_statics_that_tell_nothing_are_not_believed():
    df, static = panel(0.0)
    rng = np.random.default_rng(1)
    levels = df["unique_id"].map(dict(zip(static["unique_id"], rng.normal(size=60), strict=True)))
    df["y"] = df["y"] * np.exp(levels)
    old, first, truth = blank(df, static)
    model = Forecaster(Recurrent(members=1, steps=1), freq="QS", season_length=SEASON)
    model.fit(old, static_df=static[static["unique_id"].isin(old["unique_id"])])
    found = model.update(first, static_df=static).predict(4, level=[80])
    both = truth.merge(found, on=["unique_id", "ds"])
    inside = (both["y"] >= both["recurrent-lo-80"]) & (both["y"] <= both["recurrent-hi-80"])
    assert inside.mean() > 0.5
    assert np.log(both["recurrent"]).groupby(both["ds"]).std().max() < 0.6
