"""Every model with every kind of input: the guide's table says what is read, noted or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqlatent.amortised import Adaptation
from seqlatent.forecasting import (
    Amortised,
    Columns,
    Forecaster,
    Recurrent,
    TargetError,
    TimeError,
    spec_of,
)
from seqlatent.forecasting.engines.registry import names

GUIDE = Path(__file__).parent.parent / "docs" / "guide" / "forecasting.md"
KINDS = (
    "known ahead",
    "past",
    "static numbers",
    "static categories",
    "several targets",
    "irregular times",
)
SMALL = {
    "structural": {"specifications": ["level"]},
    "deep_state": {"steps": 2, "hidden_dim": 4},
    "srnn": {"members": 1, "steps": 2, "hidden_dim": 4},
    "vrnn": {"members": 1, "steps": 2, "hidden_dim": 4, "latent_dim": 2},
    "deep_markov": {"members": 1, "steps": 2, "hidden_dim": 4},
    "latent_ode": {"members": 1, "steps": 2, "hidden_dim": 4, "latent_dim": 2},
}
ROWS, AHEAD = 28, 2


def table():
    """Cells of the guide's table, by model and kind."""
    lines = GUIDE.read_text().splitlines()
    head = lines.index("| name | " + " | ".join(KINDS) + " |")
    found = {}
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            return found
        name, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        found[name] = dict(zip(KINDS, cells, strict=True))
    return found


CELLS = table()


def forecaster(name, columns=None, **options):
    model = spec_of(name, **SMALL[name]) if name in SMALL else name
    if name == "amortised":
        model = Amortised(adapt=Adaptation(steps=2, batch=16, drawn=16))
    if name == "recurrent":
        # from first weights no held-out block is forecast best without a step
        model = Recurrent(members=1, steps=20, pretrained=False)
    season = 1 if name == "structural" else 4  # whose seasons take their time
    return Forecaster(model, columns=columns, **{"season_length": season, **options})


def frame():
    rng = np.random.default_rng(0)
    ds = pd.date_range("2024-01-01", periods=ROWS)
    wave = 10 + 3 * np.sin(np.pi * np.arange(ROWS) / 2)
    parts = [
        pd.DataFrame({"unique_id": id, "ds": ds, "y": wave + rng.normal(0, 0.3, ROWS)})
        for id in "ab"
    ]
    df = pd.concat(parts, ignore_index=True)
    return df.assign(x=rng.normal(size=len(df)), z=df["y"] + rng.normal(size=len(df)))


def ahead(x):
    ds = pd.date_range("2024-01-01", periods=ROWS + AHEAD)[-AHEAD:]
    return pd.concat([pd.DataFrame({"unique_id": id, "ds": ds, "x": x}) for id in "ab"])


def static(**more):
    return pd.DataFrame({"unique_id": ["a", "b"], **more})


def values(found, name):
    return found[[c for c in found if c.startswith(name)]].to_numpy(float)


def with_known_ahead(name):
    df = frame().drop(columns="z")
    df["y"] += 2 * df["x"]  # what helps nothing may be left out
    model = forecaster(name).fit(df)
    return model, [model.predict(AHEAD, X_df=ahead(x), samples=20) for x in (-1.0, 1.0)]


def with_past(name):
    df = frame().drop(columns="z")
    df.loc[5, "x"] = np.nan
    model = forecaster(name, Columns(past=["x"])).fit(df)
    other = df.assign(x=df["x"].where(df["ds"] < df["ds"].max(), 3.0))
    return model, [model.predict(AHEAD, df=rows, samples=20) for rows in (df, other)]


def with_static(name, first, second):
    df = frame()[["unique_id", "ds", "y"]]
    model = forecaster(name).fit(df, static_df=first)
    given = [model.predict(AHEAD, df=df, static_df=s, samples=20) for s in (first, second)]
    return model, given


ASKED = {
    "known ahead": with_known_ahead,
    "past": with_past,
    "static numbers": lambda name: with_static(
        name, static(size=[1.0, 2.0]), static(size=[2.0, 1.0])
    ),
    "static categories": lambda name: with_static(
        name, static(kind=["u", "v"]), static(kind=["v", "u"])
    ),
}


def test_the_table_is_of_all_models():
    assert set(CELLS) == set(names())
    assert {cell for cells in CELLS.values() for cell in cells.values()} == {"yes", "no", "-"}


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("name", CELLS)
def test_inputs_are_read_or_noted(name, kind):
    model, (one, other) = ASKED[kind](name)
    assert np.isfinite(values(one, name)).all()
    read = CELLS[name][kind] == "yes"
    assert read == (not np.array_equal(values(one, name), values(other, name)))
    note = model.notes.get(name, {}).get(None, "")
    assert read == (not any(word in note for word in ("not read", "ignores"))), note


@pytest.mark.parametrize("name", CELLS)
def test_several_targets_are_forecast_or_refused(name):
    df = frame().drop(columns="x")
    model = forecaster(name, Columns(target=["y", "z"]))
    if CELLS[name]["several targets"] == "no":
        with pytest.raises(TargetError, match="use 'recurrent', 'srnn', 'vrnn' or 'deep_markov'"):
            model.fit(df)
        return
    found = model.fit(df).predict(AHEAD, samples=5)
    assert found["target"].tolist() == ["y", "z"] * AHEAD * 2
    assert np.isfinite(values(found, name)).all()


@pytest.mark.parametrize("name", CELLS)
def test_irregular_times_are_read_or_refused(name):
    hours = np.random.default_rng(1).integers(0, 20, 2 * ROWS)
    df = frame()[["unique_id", "ds", "y"]]
    df["ds"] += pd.to_timedelta(hours, "h")
    model = forecaster(name, freq="irregular", season_length=4)
    if CELLS[name]["irregular times"] == "no":
        with pytest.raises(TimeError, match="'naive'"):
            model.fit(df)
        return
    assert np.isfinite(values(model.fit(df).predict(AHEAD, samples=5), name)).all()


@pytest.mark.parametrize("kind", ["missing", "counts"])
@pytest.mark.parametrize("name", CELLS)
def test_missing_values_and_counts_are_taken(name, kind):
    rng = np.random.default_rng(2)
    df = frame()[["unique_id", "ds", "y"]]
    if kind == "missing":
        df["y"] = df["y"].where(rng.random(len(df)) > 0.25)
    else:
        df["y"] = rng.poisson(2, len(df)).astype(float)
    found = values(forecaster(name).fit(df).predict(AHEAD, samples=5), name)
    assert np.isfinite(found).all()
