"""What forecasting networks read of a bank of filters: levels, lines and seasons at the end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.amortised import Seasons, past_of
from seqlatent.amortised.filtering import (
    FILTERED_FORECASTS,
    FILTERED_LEAD,
    FILTERED_SERIES,
    filtered,
)
from seqlatent.amortised.network import padded
from seqlatent.amortised.smoothers import DECAYS, LINEAR, SEASONS

WORLDS, LINES = len(DECAYS), len(LINEAR)


def read(y, seasons, leads, observed=None):
    """What is read of series, and the past they are scaled by."""
    observed = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    past = past_of(y, observed, seasons)
    return filtered(padded(past), torch.tensor(leads)), past


def walks(seed, batch, steps, missing=0.2):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(batch, steps, generator=generator).double().cumsum(1)
    observed = torch.rand(batch, steps, generator=generator) >= missing
    observed[:, -1] = True
    return y, observed


@given(steps=st.integers(2, 60), seed=st.integers(0, 999))
def test_a_flat_forecast_is_the_mean_with_falling_weights(steps, seed):
    y, observed = walks(seed, 3, steps)
    found, past = read(y, Seasons(1), [1, 9], observed)
    age = torch.arange(steps - 1, -1, -1).double()
    for k, decay in enumerate(DECAYS):
        weight = decay**age * observed
        mean = (weight * past.z).sum(1) / weight.sum(1)
        for forecasts in (found.naive[..., k], found.naive[..., WORLDS + 2 * LINES + k]):
            torch.testing.assert_close(forecasts, mean[:, None].expand(-1, 2))


def test_lines_go_on_or_bend():
    y = 3.0 + 2.0 * torch.arange(200.0).double()[None]
    leads = [1, 10, 50]
    found, past = read(y, Seasons(1), leads)
    ahead = (3 + 2 * (199 + torch.tensor(leads).double()) - past.shift) / past.unit
    lines = found.naive[..., WORLDS : WORLDS + LINES]
    bent = found.naive[..., WORLDS + LINES : WORLDS + 2 * LINES]
    # the wider a line, the less it is shrunk to no slope
    torch.testing.assert_close(lines[..., -1], ahead, rtol=0.01, atol=0.02)
    assert (bent < lines + 1e-9).all()
    gains = bent[0, 1:] - bent[0, :-1]
    assert (gains > 0).all()
    assert (gains[1] < gains[0]).all()


@pytest.mark.parametrize("m", [4, 12, 52])
def test_a_season_goes_on_at_its_phase(m):
    generator = torch.Generator().manual_seed(m)
    pattern = torch.randn(m, generator=generator).double()
    pattern = 5 * (pattern - pattern.mean())
    leads = list(range(1, 2 * m + 1))
    t = torch.arange(9 * m + 3)
    found, past = read(pattern[t % m][None], Seasons(m), leads)
    ahead = pattern[(t[-1] + torch.tensor(leads)) % m]
    ahead = ((ahead - past.shift) / past.unit)[..., None]
    slow = found.naive[..., WORLDS + 2 * LINES :][..., 2:WORLDS]
    assert (slow - ahead).abs().mean() < 0.1 * ahead.abs().mean()
    torch.testing.assert_close(found.leads[:, :m], found.leads[:, m:])  # of each phase the same


def test_two_seasons_go_on_together():
    generator = torch.Generator().manual_seed(0)
    day, week = torch.randn(6, generator=generator), torch.randn(42, generator=generator)
    t = torch.arange(42 * 5 + 5)
    y = 4.0 * (day[t % 6] + week[t % 42]).double()[None]
    seasons, leads = Seasons(6, 42), list(range(1, 43))
    found, past = read(y[:, :-5], seasons, leads)
    t = 42 * 5 - 1 + torch.tensor(leads)
    ahead = (4.0 * (day[t % 6] + week[t % 42]).double() - past.shift) / past.unit
    error = (found.naive - ahead[..., None]).abs().mean((0, 1))
    assert error[-WORLDS:].max() < 0.25 * error[:-WORLDS].min()


def test_a_season_grows_with_a_positive_level():
    t = torch.arange(132.0).double()
    y = (torch.exp(0.02 * t) * (1.5 + torch.sin(2 * torch.pi * t / 12)))[None]
    leads = list(range(1, 13))
    found, past = read(y[:, :120], Seasons(12), leads)
    ahead = ((y[:, 120:] - past.shift) / past.unit)[..., None]
    lines = (found.naive[..., WORLDS : WORLDS + LINES] - ahead).abs().mean((0, 1))
    grown = (found.naive[..., -WORLDS - 2 * LINES : -WORLDS - LINES] - ahead).abs().mean((0, 1))
    assert grown.mean() < lines.mean()
    below, _ = read(y[:, :120] - 100, Seasons(12), leads)  # beneath zero nothing is a multiple
    same = below.naive[..., -WORLDS - 2 * LINES : -WORLDS]
    torch.testing.assert_close(same, below.naive[..., WORLDS : WORLDS + 2 * LINES])


@pytest.mark.parametrize("seasons", [Seasons(1), Seasons(12), Seasons(6, 42)], ids=str)
def test_unseen_steps_before_a_past_change_nothing(seasons):
    y, observed = walks(1, 4, 90)
    more = [torch.cat([torch.full((4, 37), fill), x], 1) for x, fill in ((y, 8.0), (observed, 0))]
    leads = [1, 2, 7, 50]
    one, _ = read(y, seasons, leads, observed)
    two, _ = read(more[0], seasons, leads, more[1].bool())
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seasons", [Seasons(1), Seasons(12), Seasons(24, 168)], ids=str)
@pytest.mark.parametrize("batch", [0, 3])
def test_sizes_of_what_is_read(seasons, batch):
    y, observed = walks(2, 3, 30)
    found, _ = read(y[:batch], seasons, [1, 200], observed[:batch])
    assert found.series.shape == (batch, FILTERED_SERIES)
    assert found.leads.shape == (batch, 2, FILTERED_LEAD)
    assert found.naive.shape == (batch, 2, FILTERED_FORECASTS)
    assert all(x.isfinite().all() for x in found)
    assert (WORLDS + 1) * len(SEASONS) == FILTERED_LEAD
