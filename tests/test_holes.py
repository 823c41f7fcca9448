"""Series that are mostly holes: what is read of them, and where they are taken to stand."""

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.latent.recipes import deep_state, srnn, structural
from seqlatent.forecasting.features.anchors import reached
from seqlatent.forecasting.features.scaling import Reading, Units, recent, scales, span
from seqlatent.forecasting.features.units import completed, standards
from seqlatent.forecasting.frames.panel import Panel

SMALL = {
    "structural": lambda: structural(["level", "log drift"], draws=1, criterion="equal"),
    "deep_state": lambda: deep_state(steps=3, hidden_dim=4),
    "srnn": lambda: srnn(members=1, steps=3, hidden_dim=8),
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def long(y, id="a", freq="D"):
    ds = pd.date_range("2024-01-01", periods=len(y), freq=freq)
    return pd.DataFrame({"unique_id": id, "ds": ds, "y": y})


def holes(*series):
    """A panel of series of any length, NaN where they have no value."""
    from seqlatent.forecasting.time.index import TimeIndex

    lengths = np.array([len(y) for y in series])
    offsets = np.concatenate([[0], lengths.cumsum()])
    n, rows = len(series), int(lengths.sum())
    t = np.concatenate([np.arange(k) for k in lengths]).astype(float)
    y = np.concatenate(series).astype(float)[:, None]
    none, real = np.zeros((rows, 0)), np.zeros((n, 0))
    time_index = TimeIndex.of(t.astype(int), offsets, 1)
    return Panel(
        np.arange(n), offsets, t, y, none, none, real, real.astype(int), np.arange(rows), time_index
    )


N = np.nan
PANEL = (
    np.r_[1.0, 2.0, 3.0, 4.0, 5.0],
    np.r_[N, 7.0, 8.0, N, 9.0, N, N],
    np.r_[N, N, N],
)


def test_what_is_read_ends_at_the_last_value():
    first, stop = span(holes(*PANEL))
    assert first.tolist() == [0, 6, 14]
    assert stop.tolist() == [5, 10, 15]
    assert span(holes(*PANEL), 2)[0].tolist() == [3, 8, 14]
    # units count rows up to the last value, after which a forecast begins at the last row
    seen = reached(holes(*PANEL))
    assert seen[[4, 11, 14]].tolist() == [5, 5, 0]
    np.testing.assert_array_equal(recent(holes(*PANEL), 2)[:, :, 0], [[4, 5], [N, 9], [N, N]])


def test_a_tail_without_values_changes_no_units():
    y = 50 + noise(60)
    tail = np.r_[y, np.full(300, N)]
    for kind in ("local", "differences"):
        a, b = (scales(holes(x), kind, season=7, rows=40) for x in (y, tail))
        np.testing.assert_allclose(a, b)


@pytest.mark.parametrize("kind", ["magnitude", "level", "standard", "differences", "local"])
def test_a_series_without_a_value_stands_where_the_others_stand(kind):
    y = [1000 + 50 * i + noise(30, seed=i) for i in range(5)]
    shift, scale = scales(holes(*y, np.full(30, N)), kind)
    assert scale[5, 0] > 0
    if kind != "magnitude":
        assert 1040 < shift[5, 0] < 1160
    # one that is new stands where those of training stood
    shift, scale = scales(holes(np.full(3, N)), kind, usual=scales(holes(*y), kind))
    assert scale[0, 0] > 0
    if kind != "magnitude":
        assert 1040 < shift[0, 0] < 1160


def test_a_window_without_a_value_has_the_units_that_it_is_given():
    y = np.stack([noise(8, 1) + 5, np.full((8, 1), N), np.r_[np.full(7, N), 3.0][:, None]])
    usual = np.array([[1.0], [2.0], [3.0]]), np.array([[4.0], [5.0], [6.0]])
    shift, scale = Units((Reading("local"),), 1, None, *usual)(y, np.arange(3))
    assert shift[1:, 0].tolist() == [2, 3]
    assert scale[1:, 0].tolist() == [5, 6]
    assert scale[0, 0] < 3


def test_steps_are_told_from_values_far_apart():
    y = torch.full((1, 300), N, dtype=torch.float64)
    y[0, ::30] = 100 + 10 * torch.from_numpy(noise(10))
    scale = standards(y, 7)[1].item()
    assert 5 < scale < 20


def test_one_value_moves_as_the_others_do():
    y = torch.full((3, 20), N, dtype=torch.float64)
    y[:2] = 1e6 + torch.from_numpy(noise(2, 20))
    y[2, 4] = 1e6
    scale = completed(*standards(y, 1))[1]
    assert scale[2].item() == pytest.approx(scale[:2].min().item())
    # steps of different orders are relative to the level
    y[1] = 1e-3 + 1e-5 * torch.from_numpy(noise(20))
    y[2, 4] = 1e-3
    assert completed(*standards(y, 1))[1][2].item() < 1e-3


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("kind", ["differences", "local"])
def test_an_offset_changes_no_steps(kind, offset):
    y = noise(3, 60).cumsum(1)
    found = scales(holes(*(y + offset)), kind, season=4)
    expected = scales(holes(*y), kind, season=4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    np.testing.assert_allclose(found[0] - offset, expected[0], atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_a_series_that_repeats_itself_has_a_width_of_its_own_size(offset):
    t = torch.arange(96, dtype=torch.float64)
    y = 10 * torch.sin(2 * torch.pi * t / 12) + offset
    scale = standards(y[None], 12)[1].item()
    assert 1e-4 < scale < 1e-2


@pytest.mark.parametrize("name", [pytest.param("structural", marks=pytest.mark.slow), "deep_state"])
def test_a_sensor_that_is_off_is_forecast_where_it_stood(name):
    y = 50 + noise(2, 90)
    y[1, 50:] = N
    spec = SMALL[name]()
    df = pd.concat([long(y[0], "on"), long(y[1], "off")])
    f = Forecaster(spec, season_length=1).fit(df).predict(1, level=[80]).set_index("unique_id")
    for end in ("", "-mean"):
        assert 45 < f.loc["off", name + end] < 55


@pytest.mark.parametrize("every", [30, pytest.param(90, marks=pytest.mark.slow)])
def test_readings_now_and_then_are_forecast(every):
    t = np.arange(1200)
    df = long(np.where(t % every == 0, 1100 + 10 * noise(1200), N))
    spec = structural(["level"], draws=1)
    f = Forecaster(spec).fit(df).predict(3, level=[80])
    assert f["structural"].between(1060, 1140).all()
    assert (f["structural-hi-80"] - f["structural-lo-80"]).between(5, 150).all()


@pytest.mark.parametrize("name", list(SMALL))
def test_a_series_without_a_value_is_noted(name):
    y = 1000 + 50 * np.arange(4)[:, None] + 10 * noise(4, 30)
    df = pd.concat([long(y[i], f"s{i}") for i in range(4)] + [long(np.full(30, N), "empty")])
    model = Forecaster(SMALL[name](), season_length=1).fit(df)
    f = model.predict(1, level=[80]).set_index("unique_id").loc["empty"]
    assert 900 < f[name] < 1300
    assert f[f"{name}-lo-80"] < f[f"{name}-hi-80"]
    assert "no value" in model.notes[name]["empty"]
