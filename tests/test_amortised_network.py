"""What a network reads of a past, and that it says the same of a lead whatever lies beside it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.amortised import Network, Seasons, context_of, forecast, past_of

SEASONS = [
    Seasons(1),
    Seasons(2),
    Seasons(4),
    Seasons(7),
    Seasons(12),
    Seasons(52),
    Seasons(168),
    Seasons(24, 168),
    Seasons(7, 365),
    Seasons(400),
]
LEADS = torch.tensor([1, 2, 5, 12, 13, 40])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, dtype=torch.float64):
    """A small network whose weights are all alive."""
    with torch.random.fork_rng(devices=[]):
        found = Network(width=16, depth=1, head_width=8, head_depth=1, factors=2).to(dtype)
    generator = seeded(seed)
    for weight in found.parameters():
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator).to(dtype)
    return found.requires_grad_(False)


def series(batch=6, steps=100, seed=0, missing=0.2):
    """Walks of many sizes, half of them positive, with holes."""
    generator = seeded(seed)
    y = torch.randn(batch, steps, generator=generator).double().cumsum(1)
    y[::2] = y[::2].abs() + 3
    y = y * torch.logspace(-3, 3, batch).double()[:, None]
    observed = torch.rand(batch, steps, generator=generator) >= missing
    observed[:, -1] = True
    return y, observed


def said(y, observed, seasons, leads=LEADS, net=None):
    net = network() if net is None else net
    past = past_of(y, observed, seasons)
    return net(past.to(next(net.parameters()).dtype), leads)


def close(one, other, tolerance=1e-10):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


ODD = {
    "none seen": (torch.randn(1, 30, generator=seeded()), torch.zeros(1, 30, dtype=torch.bool)),
    "constant": (torch.full((1, 30), 7.5), torch.ones(1, 30, dtype=torch.bool)),
    "zeros": (torch.zeros(1, 30), torch.ones(1, 30, dtype=torch.bool)),
    "one row": (torch.tensor([[3.0]]), torch.ones(1, 1, dtype=torch.bool)),
    "two rows": (torch.tensor([[3.0, 5.0]]), torch.ones(1, 2, dtype=torch.bool)),
    "one unseen row": (torch.tensor([[3.0]]), torch.zeros(1, 1, dtype=torch.bool)),
    "tiny": (torch.randn(1, 30, generator=seeded()) * 1e-30, torch.ones(1, 30, dtype=torch.bool)),
    "huge": (torch.randn(1, 30, generator=seeded()) * 1e30, torch.ones(1, 30, dtype=torch.bool)),
    "far away": (1e6 + torch.arange(30.0)[None] % 2, torch.ones(1, 30, dtype=torch.bool)),
}


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_series_give_finite_forecasts(name, seasons, dtype):
    y, observed = ODD[name]
    past = past_of(y.to(dtype), observed, seasons)
    assert all(x.isfinite().all() for x in (past.z, past.shift, past.scale, past.origin))
    found = forecast([network(dtype=dtype)], y.to(dtype), observed, seasons, [1, 2, 30])
    assert found.marginals.knots.isfinite().all()
    assert found.loadings.isfinite().all()
    assert found.sample(5, seeded()).isfinite().all()
    assert found.marginals.mean().isfinite().all()


def test_zeros_and_nothing_are_forecast_as_zero():
    for name in ("zeros", "none seen"):
        y, observed = ODD[name]
        knots = forecast([network()], y.double(), observed, Seasons(7), [1, 9]).marginals.knots
        assert torch.equal(knots, torch.zeros_like(knots)), name


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_a_past_has_no_units(seasons):
    y, observed = series()
    one = past_of(y, observed, seasons)
    for factor in (2.0**20, 2.0**-30):
        other = past_of(factor * y, observed, seasons)
        assert torch.equal(other.z, one.z)
        assert torch.equal(other.scale, factor * one.scale)
        assert torch.equal(other.shift, factor * one.shift)
    other = past_of(1.7e3 * y, observed, seasons)
    torch.testing.assert_close(other.z, one.z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.scale, 1.7e3 * one.scale, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
@pytest.mark.parametrize("shift", [-1000.0, -3.0, 64.0])
def test_zero_means_nothing_to_a_series_that_goes_below_it(seasons, shift):
    y, observed = series()
    y = y - y.max() - 100  # all below zero, and still so
    one, other = (forecast([network()], z, observed, seasons, [1, 7, 40]) for z in (y, y + shift))
    torch.testing.assert_close(other.marginals.knots, one.marginals.knots + shift)
    torch.testing.assert_close(other.loadings, one.loadings)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
@pytest.mark.parametrize("hidden", [torch.nan, torch.inf, 1e30, -0.5])
def test_hidden_values_never_matter(seasons, hidden):
    y, observed = series()
    other = torch.where(observed, y, hidden)
    one, two = past_of(y, observed, seasons), past_of(other, observed, seasons)
    for name in ("z", "shift", "scale", "lower", "whole"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    knots = [forecast([network()], v, observed, seasons, LEADS).marginals.knots for v in (y, other)]
    assert torch.equal(*knots)


def test_what_values_are_is_seen():
    y = torch.tensor([[0.0, 3.0, 2.0], [-1.0, 3.0, 2.0], [0.5, 3.0, 2.0], [9.0, 9.0, 9.0]])
    y = y.double()
    observed = torch.ones_like(y, dtype=torch.bool)
    past = past_of(y, observed, Seasons(1))
    assert past.lower[:, 0].tolist() == [True, False, True, True]
    assert past.whole[:, 0].tolist() == [True, True, False, True]
    observed[:, 0] = False
    past = past_of(y, observed, Seasons(1))
    assert past.lower.all()
    assert past.whole.all()
    marginals = forecast([network()], y, observed, Seasons(1), [1]).marginals
    assert (marginals.at(torch.full((4, 1), -9.0).double()) >= 0).all()


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
@pytest.mark.parametrize("steps", [2, 30, 100, 389])
@pytest.mark.parametrize("more", [1, 5, 37, 500])
def test_unseen_steps_before_a_past_change_nothing(seasons, steps, more):
    y, observed = series(steps=steps)
    one = said(y, observed, seasons)
    before = torch.full((len(y), more), torch.nan).double()
    unseen = torch.zeros_like(before, dtype=torch.bool)
    other = said(torch.cat([before, y], 1), torch.cat([unseen, observed], 1), seasons)
    close(one, other)


def test_unseen_steps_before_a_past_change_nothing_in_single_precision():
    y, observed = series()
    net = network(dtype=torch.float32)
    one = said(y, observed, Seasons(24), net=net)
    padded = (torch.nn.functional.pad(v, (60, 0)) for v in (y, observed))
    close(one, said(*padded, Seasons(24), net=net), 1e-4)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_a_lead_is_the_same_whatever_else_is_asked_for(seasons):
    y, observed = series()
    together = said(y, observed, seasons)
    for i, lead in enumerate(LEADS):
        alone = said(y, observed, seasons, lead[None])
        close([x[:, i : i + 1] for x in together], alone)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_a_series_is_the_same_whatever_lies_beside_it(seasons):
    y, observed = series()
    together = said(y, observed, seasons)
    for i in range(len(y)):
        close([x[i : i + 1] for x in together], said(y[i : i + 1], observed[i : i + 1], seasons))
    parts = [forecast([network()], y, observed, seasons, LEADS, chunk=n) for n in (512, 4)]
    close([p.marginals.knots for p in parts[:1]], [p.marginals.knots for p in parts[1:]])


@given(
    st.sampled_from(SEASONS),
    st.integers(2, 150),
    st.integers(1, 600),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_quantiles_never_fall_whatever_is_missing(seasons, steps, lead, missing, seed):
    y, observed = series(4, steps, seed, missing)
    observed[1:] &= torch.rand(3, steps, generator=seeded(seed)) >= missing
    knots, loadings = said(y, observed, seasons, torch.tensor([1, lead]), network(seed))
    assert knots.isfinite().all()
    assert loadings.isfinite().all()
    assert (knots.diff() >= 0).all()


@pytest.mark.parametrize("seasons", [Seasons(1), Seasons(24, 168)], ids=str)
def test_all_is_computed_where_the_series_are(seasons):
    y, observed = (x.to("meta") for x in series())
    with torch.device("meta"):
        net = Network(width=16, head_width=8)
    raw = net(past_of(y, observed, seasons).to(torch.float32), LEADS.to("meta"))
    assert raw.knots.device.type == raw.loadings.device.type == "meta"


def test_several_networks_are_averaged_by_level():
    y, observed = series()
    some = [network(seed) for seed in range(3)]
    alone = [forecast([net], y, observed, Seasons(12), LEADS).marginals.knots for net in some]
    found = forecast(some, y, observed, Seasons(12), LEADS)
    torch.testing.assert_close(found.marginals.knots, torch.stack(alone).mean(0))
    assert found.loadings.shape == (6, len(LEADS), 6)


def test_a_batch_of_no_series_has_a_forecast():
    y, observed = series()
    found = forecast([network()], y[:0], observed[:0], Seasons(12), [1, 2])
    assert found.marginals.knots.shape == (0, 2, 15)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_what_is_read_holds_each_season(seasons):
    assert context_of(seasons) >= max(2 * max(seasons), 100)


def test_seasons_of_several_lengths():
    assert Seasons.of(()) == Seasons(1, 0)
    assert Seasons.of((7,)) == Seasons(7, 0)
    assert Seasons.of((24, 168)) == Seasons(24, 168)
    assert Seasons.of((24, 168, 8766)) == Seasons(24, 8766)


@pytest.mark.parametrize("level", [0.0, 1e3, 1e6])
def test_single_precision_does_however_large_the_level(level):
    walk = torch.randn(40, 120, generator=seeded(), dtype=torch.float64).cumsum(1) + level
    seen = torch.ones_like(walk, dtype=torch.bool)
    single, double = (
        forecast([network(dtype=dtype)], walk, seen, Seasons(7), range(1, 15)).marginals.knots
        for dtype in (torch.float32, torch.float64)
    )
    away = (single - double).abs() / (double[..., -1:] - double[..., :1])
    assert away.mean() < 1e-5
    assert away.max() < 1e-3
