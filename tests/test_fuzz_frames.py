"""Laws of random frames over every engine: an answer that keeps them, or an error that teaches.

``SEQLATENT_FUZZ=20000`` tries as many frames instead of 300; what each chunk met is its properties
in a report (``--junit-xml``).
"""

import os
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from engines import ENGINES, EXACT
from random_frames import AHEAD, case

from seqlatent.forecasting import (
    ArgumentError,
    ColumnError,
    DataError,
    DigitsWarning,
    Forecaster,
)

FRAMES = int(os.environ.get("SEQLATENT_FUZZ", "300"))
CHUNKS = 10
CHEAP = ("naive", "seasonal_naive", "theta", "ets")
DEAR = tuple(name for name in ENGINES if name not in CHEAP)
SCALED = ("naive", "seasonal_naive", "theta", "ets")
"""Engines whose law of scale holds to the last digits, in powers of two."""


class Leak(AssertionError):
    """What should have been an error of ours, or a law that does not hold."""


def met(act, counts, about):
    """What an act returns, or None where it ends in an error of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DigitsWarning)
            return act()
    except (DataError, ArgumentError, NotImplementedError) as error:
        if not (isinstance(error, ArgumentError | NotImplementedError) or placed(error)):
            raise Leak(f"{about}: an error without a place: {error}") from error
        counts["clean errors"] += 1
        return None
    except Exception as error:
        raise Leak(f"{about}: {type(error).__name__}: {error}") from error


def placed(error):
    """Whether an error says what it is about: a column, a series, a row, or all of the frame."""
    about = (error.column, error.id, error.row)
    return (
        any(x is not None for x in about)
        or isinstance(error, ColumnError)
        or any(
            whole in str(error) for whole in ("freq", "one target", "was built for", "empty frame")
        )
    )


def plain_of(found):
    return found.to_pandas() if isinstance(found, pl.DataFrame) else found


def key(found, columns):
    """Rows of a forecast as text that says series, stamp and target."""
    held = [name for name in (columns.id, columns.time, "target") if name in found]
    return pd.Series(
        [
            "|".join(
                f"{type(x).__name__ if n == columns.id else ''} {x}"
                for n, x in zip(held, row, strict=True)
            )
            for row in found[held].astype(object).itertuples(index=False)
        ]
    )


def numbers(found, columns, alias):
    """Cells of a model by series and stamp, in an order that says nothing of that of rows."""
    found = plain_of(found)
    rows = key(found, columns)
    order = np.argsort(rows.to_numpy(), kind="stable")
    cells = [c for c in found if c == alias or c.startswith((f"{alias}-", f"{alias}_ql"))]
    return rows.to_numpy()[order], found[cells].to_numpy(float)[order]


def agree(found, expected, columns, alias, about, tolerance):
    ids, one = numbers(found, columns, alias)
    others, two = numbers(expected, columns, alias)
    if list(ids) != list(others):
        raise Leak(f"{about}: rows {list(ids)[:3]} for {list(others)[:3]}")
    scale = np.maximum(np.abs(two), np.nanmax(np.abs(two), initial=0.0) * 1e-3 + 1e-300)
    close = (np.abs(one - two) <= tolerance * scale) | (np.isnan(one) & np.isnan(two))
    if not close.all():
        i, j = np.argwhere(~close)[0]
        raise Leak(f"{about}: {one[i, j]!r} for {two[i, j]!r} in {ids[i]}")


def sound(found, alias, about):
    """A forecast that is finite and whose quantiles are ordered."""
    found = plain_of(found)
    cells = found[[f"{alias}-lo-80", alias, f"{alias}-hi-80"]].to_numpy(float)
    if not np.isfinite(found[[c for c in found if c.startswith(alias)]].to_numpy(float)).all():
        raise Leak(f"{about}: a forecast that is not finite")
    if (np.diff(cells, axis=1) < 0).any():
        raise Leak(f"{about}: quantiles out of order")


def known_ahead(model, given, later):
    """Covariates of the rows to forecast, where the model reads some."""
    return given(later) if model._fitted.covariates else None


def check(name, seed, counts):
    """Fits an engine to a random frame, and one or two laws of what it then says."""
    rng = np.random.default_rng([11, seed])
    about = f"{name}, seed {seed}"
    one = met(lambda: case(seed), counts, about)
    counts["frames"] += 1
    columns, given = one.columns, one.given

    def fit(df):
        season = None if seed % 4 else int(rng.integers(1, 9))
        return Forecaster(ENGINES[name](), columns=columns, season_length=season).fit(
            given(df), static_df=one.static
        )

    season_state = rng.bit_generator.state
    model = met(lambda: fit(one.df), counts, f"{about}, fit")
    if model is None:
        return

    def again(df):
        rng.bit_generator.state = season_state
        return met(lambda: fit(df), counts, f"{about}, fit again")

    alias = model.aliases[0]
    x = known_ahead(model, given, one.later) if one.form in ("long", "polars") else None
    found = met(lambda: model.predict(AHEAD, X_df=x, level=[80]), counts, f"{about}, predict")
    if found is None:
        return
    counts["forecasts"] += 1
    sound(found, alias, f"{about}, predict")
    law = LAWS[int(rng.integers(len(LAWS)))]
    counts[law.__name__] += 1
    law(name, one, model, found, x, again, counts, f"{about}, {law.__name__}")


# --- laws -------------------------------------------------------------------------------------


def rows_in_any_order(name, one, model, found, x, again, counts, about):
    if one.form in ("wide", "series"):
        return
    other = again(one.df.sample(frac=1.0, random_state=len(one.df)))
    if other is None:
        raise Leak(f"{about}: a clean frame, and an error for another order of rows")
    expected = other.predict(AHEAD, X_df=x, level=[80])
    agree(expected, found, one.columns, model.aliases[0], about, 1e-9)


def update_is_forecast(name, one, model, found, x, again, counts, about):
    if one.form in ("wide", "series"):
        return
    rows = pd.concat([one.df, one.later], ignore_index=True)
    plain = {"level": [80]}
    if model._fitted.covariates:
        return
    expected = met(lambda: model.predict(AHEAD, df=one.given(rows), **plain), counts, about)
    moved = met(lambda: model.update(one.given(one.later)), counts, f"{about}: update")
    if expected is None or moved is None:
        return
    # particles: the same rows and a sound forecast; their law of moments has a test of its own
    rtol = 1e-6 if name in EXACT else np.inf
    later = moved.predict(AHEAD, **plain)
    sound(later, model.aliases[0], about)
    agree(later, expected, one.columns, model.aliases[0], about, rtol)


def no_look_ahead(name, one, model, found, x, again, counts, about):
    if one.form in ("wide", "series"):
        return
    if len(one.df) < len(one.later):
        return
    elsewhere = {}
    for c in one.columns.targets:  # missing where it was: what is drawn follows the holes
        other = one.df[c].iloc[: len(one.later)].set_axis(one.later.index)
        both = other.notna() & one.later[c].notna()
        elsewhere[c] = other.where(both, one.later[c])
    scores = []
    for later in (one.later, one.later.assign(**elsewhere)):
        rows = one.given(pd.concat([one.df, later], ignore_index=True))
        scores.append(met(lambda rows=rows: model.score(rows), counts, about))
    if any(x is None for x in scores):
        return
    scored = [c for c in plain_of(scores[0]) if str(c).startswith(model.aliases[0])]
    long, other = (plain_of(x)[scored].to_numpy(float)[: len(one.df)] for x in scores)
    if not np.array_equal(long, other, equal_nan=True):
        raise Leak(f"{about}: the score of a row knows later ones")


def in_another_unit(name, one, model, found, x, again, counts, about):
    if name not in SCALED or any(one.df[c].dtype.kind != "f" for c in one.columns.targets):
        return
    if not all((one.df[c] > 0).any() or (one.df[c] < 0).any() for c in one.columns.targets):
        return  # nothing but zeros has no unit
    big = one.df.assign(**{c: one.df[c] * 4.0 for c in one.columns.targets})
    other = again(big)
    if other is None:
        return
    expected = other.predict(AHEAD, X_df=x, level=[80])
    cells = [c for c in plain_of(found) if str(c).startswith(model.aliases[0])]
    scaled = plain_of(found).assign(**{c: 4.0 * plain_of(found)[c] for c in cells})
    agree(expected, scaled, one.columns, model.aliases[0], about, 1e-5)


def saved_and_loaded(name, one, model, found, x, again, counts, about):
    with tempfile.TemporaryDirectory() as folder:
        met(lambda: model.save(Path(folder) / "m"), counts, f"{about}: save")
        specs = [ENGINES[name]()] if name.endswith("own") else []
        loaded = met(lambda: Forecaster.load(Path(folder) / "m", specs=specs), counts, about)
    if loaded is None:
        raise Leak(f"{about}: a model that was saved and cannot be loaded")
    expected = loaded.predict(AHEAD, X_df=x, level=[80])
    agree(expected, found, one.columns, model.aliases[0], about, 0.0)


def every_verb(name, one, model, found, x, again, counts, about):
    df = one.given(one.df)
    for verb in ("score", "impute", "innovations", "diagnose"):
        met(lambda verb=verb: getattr(model, verb)(df), counts, f"{about}: {verb}")
    met(lambda: model.sample(2, n=2, X_df=x), counts, f"{about}: sample")
    if name not in CHEAP and name != "sarimax":
        met(lambda: model.smooth(df), counts, f"{about}: smooth")
    if name in CHEAP:
        season = Forecaster(ENGINES[name](), columns=one.columns)
        met(lambda: season.cross_validation(df, 1), counts, f"{about}: backtest")


LAWS = (
    rows_in_any_order,
    update_is_forecast,
    no_look_ahead,
    in_another_unit,
    saved_and_loaded,
    every_verb,
)

# --- frames -----------------------------------------------------------------------------------


def engine_of(seed):
    """Cheap engines for most frames; every other one for its share of the rest."""
    if seed % 10 < 9:
        return CHEAP[(seed // 10) % 2] if seed % 10 < 7 else CHEAP[2 + (seed // 10) % 2]
    return DEAR[(seed // 10) % len(DEAR)]


@pytest.mark.filterwarnings("ignore::seqlatent.forecasting.DigitsWarning")
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_frames(chunk, record_property):
    counts, leaks = Counter(), []
    for seed in range(chunk, FRAMES, CHUNKS):
        try:
            check(engine_of(seed // CHUNKS + chunk), seed, counts)
        except Leak as leak:
            leaks.append(str(leak))
    for what, count in sorted(counts.items()):
        record_property(what, count)
    assert not leaks, f"{len(leaks)} leaks in {dict(counts)}:\n" + "\n".join(leaks[:20])
    assert counts["forecasts"] > counts["frames"] // 3, counts


@pytest.mark.filterwarnings("ignore::seqlatent.forecasting.DigitsWarning")
@pytest.mark.parametrize(("name", "seed"), [("structural", 14045), ("ensemble", 10318)])
def test_a_frame_that_once_failed(name, seed):
    """A specification of no weight that alone foresaw a row; codes in the order of the series."""
    check(name, seed, Counter())
