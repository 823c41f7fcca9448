"""A limit of time holds for every engine, and says what was not reached: on a clock that ticks."""

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.forecasting import Forecaster, forecaster, spec_of
from seqlatent.forecasting.engines.baselines import SeasonalNaive
from seqlatent.forecasting.engines.registry import names
from seqlatent.training import Deadline, Pace, fit_each


class Ticking:
    """A clock on which a second passes with every look."""

    def __init__(self, tick=1.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def frame(series=4, rows=36):
    rng = np.random.default_rng(0)
    t = np.arange(rows)
    y = 50 + rng.normal(size=(series, rows)).cumsum(1) + 8 * np.sin(2 * np.pi * t / 12)
    ds = pd.date_range("2015-01-01", periods=rows, freq="MS")
    ids = np.repeat([f"s{i}" for i in range(series)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(ds, series), "y": y.ravel()})


SMALL = {
    "deep_state": {"steps": 20, "hidden_dim": 4},
    "deep_markov": {"steps": 20, "hidden_dim": 4},
    "srnn": {"steps": 20, "hidden_dim": 4, "members": 2},
    "vrnn": {"steps": 20, "hidden_dim": 4, "members": 1},
    "latent_ode": {"steps": 20, "hidden_dim": 4},
}


@pytest.mark.parametrize("limit", [1, 60])
@pytest.mark.parametrize("name", names())
def test_every_engine_ends_and_forecasts_through_all_verbs(name, limit, monkeypatch, tmp_path):
    time_index = Ticking()
    monkeypatch.setattr(forecaster, "Deadline", lambda seconds: Deadline(seconds, time_index))
    model = spec_of(name, **SMALL[name]) if name in SMALL else name
    df = frame()
    fitted = Forecaster(model, time_limit=limit).fit(df)
    # a second passes with each look: what goes on looking goes on working
    assert time_index.now < 1.5 * limit + 60
    engine = fitted._engines[name]
    if limit == 1 and name not in ("naive", "seasonal_naive"):
        assert "time_limit" in fitted.notes[name][None]
    if isinstance(engine, SeasonalNaive) and name != "seasonal_naive":
        assert "seasonal naive forecast stands in its place" in fitted.notes[name][None]
    found = fitted.predict(3)
    assert list(found.columns[2:4]) == [name, f"{name}-mean"]
    assert np.isfinite(found.iloc[:, 2:].to_numpy()).all()
    assert (found[f"{name}-hi-80"] > found[f"{name}-lo-80"]).all()
    fitted.save(tmp_path / "m")
    loaded = Forecaster.load(tmp_path / "m")
    assert loaded.predict(3).equals(found)
    if name in SMALL:  # what is fitted next is what was asked for, not what stood in its place
        (asked,) = loaded._model
        assert asked.config == model.config
    more = df[df.unique_id == "s0"].tail(1).assign(ds=lambda x: x.ds + pd.offsets.MonthBegin())
    assert len(loaded.update(more).predict(2)) == 8
    assert np.isfinite(fitted.score(df)[f"{name}-pit"].dropna()).all()


def test_what_takes_the_place_is_the_seasonal_naive_forecast(monkeypatch):
    monkeypatch.setattr(forecaster, "Deadline", lambda seconds: Deadline(seconds, Ticking()))
    df = frame()
    found = Forecaster(spec_of("vrnn", **SMALL["vrnn"]), time_limit=2).fit(df).predict(5)
    plain = Forecaster("seasonal_naive").fit(df).predict(5)
    np.testing.assert_array_equal(found.iloc[:, 2:], plain.iloc[:, 2:])


def test_a_limit_that_is_never_reached_changes_no_training(monkeypatch):
    monkeypatch.setattr(forecaster, "Deadline", lambda s: Deadline(s, Ticking(0.0)))
    df = frame(2)
    for name in ("ets", "theta"):
        wide = Forecaster(name, time_limit=1e6).fit(df).predict(4)
        assert wide.equals(Forecaster(name).fit(df).predict(4))


def test_series_that_are_not_reached_have_the_distribution_of_all():
    from seqlatent.model import per_series
    from seqlatent.sequences import Sequences
    from seqlatent.zoo import structural

    y = torch.randn(60, 30, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    data = Sequences.of(y, codes=torch.arange(60)[:, None])
    history = fit_each(
        per_series(structural(), 60), data, points=4, deadline=Deadline(60.0, Ticking())
    )
    reached = history.rounds > 0
    assert history.stopped == "time"
    assert 0 < reached.sum() < 60
    rest = history.mode[~reached]
    assert history.pool is not None
    torch.testing.assert_close(rest, history.pool.mean.expand_as(rest))


def test_a_pace_begins_nothing_that_does_not_end_in_time():
    now = [0.0]
    pace = Pace(Deadline(10.0, lambda: now[0]))
    done = 0
    while pace.reaches():
        now[0] += 3.0
        done += 1
    assert (done, now[0]) == (3, 9.0)


def test_the_first_piece_is_soon_forgotten():
    now = [0.0]
    pace = Pace(Deadline(20.0, lambda: now[0]))
    done = 0
    while pace.reaches():
        now[0] += 1.0 if done else 8.0
        done += 1
    assert done > 8
    assert now[0] <= 20


def test_parts_and_earlier_ends():
    now = [0.0]
    whole = Deadline(10.0, lambda: now[0])
    now[0] = 4.0
    assert whole.part(0.5).left == 3.0
    assert whole.sooner(2.0).left == 4.0
    assert whole.sooner(-2.0).left == 8.0
    assert Deadline().part(0.5).never
    assert Deadline().sooner(5.0).never
