"""Recurrent forecasters: filters, what is read of origins, memories, training."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.amortised import Curriculum, Seasons
from seqlatent.forecasting import ArgumentError, Columns, Forecaster, Recurrent
from seqlatent.recurrent import (
    Data,
    Filters,
    FilterState,
    History,
    Origins,
    Recipe,
    RecurrentNetwork,
    RecurrentTrainer,
    Windows,
    train,
)
from seqlatent.recurrent.filters import GAINS, LINEAR, LOGARITHMS, PHI
from seqlatent.recurrent.history import CANDIDATES, LEAD, ROW, kept_rows

SEASONS = [Seasons(1), Seasons(4), Seasons(12), Seasons(4, 12)]
BATCH = 5


def walks(seed, steps, batch=BATCH, missing=0.2):
    """Walks with a season, of many sizes, each beginning where it likes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(batch, steps, generator=generator).double().cumsum(1)
    y = y + 3 * torch.sin(torch.arange(steps) * (2 * torch.pi / 4))
    y = (y + 20) * torch.logspace(-3, 3, batch).double()[:, None]
    seen = torch.rand(batch, steps, generator=generator) >= missing
    first = torch.randint(0, max(1, steps // 2), (batch, 1), generator=generator)
    return y, seen & (torch.arange(steps) >= first)


def same(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# --- filters -------------------------------------------------------------------------------------


@given(steps=st.integers(2, 40), cut=st.integers(0, 40), seed=st.integers(0, 99))
@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_filters_go_on_from_any_row(seasons, steps, cut, seed):
    y, seen = walks(seed, steps)
    filters, cut = Filters(*seasons), min(cut, steps)
    inside = seen.cummax(1).values
    whole, traces = filters.run(y, seen, inside=inside)
    first, before = filters.run(y[:, :cut], seen[:, :cut], inside=inside[:, :cut])
    second, after = filters.run(y[:, cut:], seen[:, cut:], first, inside[:, cut:])
    same(whole, second, rtol=0, atol=0)
    for name in ("level", "slope", "error"):
        both = torch.cat([getattr(before, name), getattr(after, name)], 1)
        torch.testing.assert_close(getattr(traces, name), both, rtol=0, atol=0)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_rows_that_are_not_there_change_nothing(seasons):
    y, seen = walks(0, 30)
    filters = Filters(*seasons)
    alone = [filters.run(y[i : i + 1, k:], seen[i : i + 1, k:])[0] for i, k in starts(seen)]
    state, _ = filters.run(y, seen, inside=seen.cummax(1).values)
    together = FilterState(*(torch.cat(x) for x in zip(*alone, strict=True)))
    same(state, together, rtol=0, atol=0)


def starts(seen):
    return enumerate(seen.to(torch.int64).argmax(1).tolist())


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_filters_move_and_grow_with_their_series(seasons):
    y, seen = walks(1, 40)
    size, shift = 3.7, -250.0
    inside = seen.cummax(1).values
    _, one = Filters(*seasons).run(y, seen, inside=inside)
    _, two = Filters(*seasons).run(size * y + shift, seen, inside=inside)
    on, linear = inside[..., None], slice(len(LINEAR))
    expected = (size * one.level + shift) * on
    torch.testing.assert_close(expected[..., linear], (two.level * on)[..., linear])
    for name in ("slope", "season", "long", "error"):
        expected = size * getattr(one, name)[..., linear]
        found = getattr(two, name)[..., linear]
        torch.testing.assert_close(expected, found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_filters_of_logarithms_are_those_of_values_that_are_logarithms(seasons):
    y, seen = walks(1, 40)
    y = (y / y.abs().amax(1, keepdim=True)).exp()
    inside = seen.cummax(1).values
    _, one = Filters(*seasons).run(y, seen, inside=inside)
    _, two = Filters(*seasons).run(y.log(), seen, inside=inside)
    same_gains = [LINEAR.index(gains) for gains in LOGARITHMS]
    for name in ("level", "slope", "season", "long", "error"):
        found = getattr(one, name)[..., len(LINEAR) :]
        torch.testing.assert_close(found, getattr(two, name)[..., same_gains])


def test_what_is_not_positive_has_forecasts_of_values_alone():
    values, seen = walks(2, 40, missing=0.0)
    for y in (values - 1e9, values.abs() * (torch.arange(40) != 25)):
        history = History(y, seen, Seasons(4))
        leads = torch.tensor([1, 4, 9]).expand(BATCH, -1)
        read = history.origins(torch.arange(BATCH), torch.full((BATCH,), 39), leads).read()
        same_gains = [LINEAR.index(gains) for gains in LOGARITHMS]
        values = read.candidates[..., : len(LINEAR)]
        logarithms = read.candidates[..., len(LINEAR) : len(GAINS)]
        torch.testing.assert_close(logarithms, values[..., same_gains])


def test_without_slope_and_season_a_level_is_a_mean_that_forgets():
    y, _ = walks(2, 300, missing=0.0)
    y = y - y[:, :1]
    state, _ = Filters().run(y, torch.ones_like(y, dtype=torch.bool))
    for k, (alpha, slope, _) in enumerate(LINEAR):
        if slope:
            continue
        level = torch.zeros(BATCH).double()
        for t in range(y.shape[1]):
            gain = max(alpha, 1 / (t + 1))  # a mean of all values, until there are enough
            level = level + gain * (y[:, t] - level)
        torch.testing.assert_close(state.level[:, k], level)


def test_a_row_without_a_value_moves_the_level_along_its_slope():
    y = torch.arange(40.0).double()[None]
    seen = torch.ones_like(y, dtype=torch.bool)
    seen[:, -3:] = False
    _, traces = Filters(4).run(y, seen)
    ahead = traces.level[:, 36] + PHI * traces.slope[:, 36]
    torch.testing.assert_close(traces.level[:, 37], ahead)
    torch.testing.assert_close(traces.slope[:, 37], PHI * traces.slope[:, 36])
    assert (traces.error[:, 37:] == 0).all()
    assert traces.scalars["waited"][0, -1] == 3


def test_seasons_are_learned_both():
    generator = torch.Generator().manual_seed(3)
    short, long = torch.randn(4, generator=generator), torch.randn(12, generator=generator)
    t = torch.arange(240)
    y = (5 * short[t % 4] + 5 * long[t % 12]).double()[None]
    seen = torch.ones_like(y, dtype=torch.bool)
    (_, one), (_, both) = Filters(4).run(y, seen), Filters(4, 12).run(y, seen)
    # filters whose levels follow every value leave seasons little
    late = (slice(None), slice(200, None), slice(8))
    assert both.error[late].abs().mean() < 0.2 * one.error[late].abs().mean()


# --- origins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
@pytest.mark.parametrize("steps", [3, 17, 50])
def test_the_last_row_is_read_in_training_as_in_forecasts(seasons, steps):
    y, seen = walks(4, steps)
    history = History(y, seen, seasons)
    leads = torch.tensor([1, 2, 3, 4, 5, 12, 13, 30]).expand(BATCH, -1)
    last = torch.full((BATCH,), steps - 1)
    one = history.origins(torch.arange(BATCH), last, leads).read()
    kept = torch.nn.functional.pad(history.known, (kept_rows(seasons), 0), value=torch.nan)
    recent = kept[:, -kept_rows(seasons) :]
    two = Origins.of(history.state, recent, leads, seasons).read()
    begun = history.state.number > 0
    same((x[begun] for x in one), (x[begun] for x in two))
    assert one.features.shape == (BATCH, 8, LEAD)
    assert one.candidates.shape == (BATCH, 8, CANDIDATES)
    assert history.rows.shape == (BATCH, steps, ROW)


@pytest.mark.parametrize("seasons", SEASONS, ids=str)
def test_what_is_read_has_no_units(seasons):
    y, seen = walks(5, 40)
    leads = torch.tensor([1, 4, 9]).expand(BATCH, -1)
    last = torch.full((BATCH,), 39)
    reads = [
        History(size * y, seen, seasons).origins(torch.arange(BATCH), last, leads).read()
        for size in (1.0, 1e5)
    ]
    torch.testing.assert_close(reads[0].features, reads[1].features)
    torch.testing.assert_close(reads[0].candidates, reads[1].candidates)


@pytest.mark.parametrize(
    "y", [torch.full((1, 20), 7.0), torch.zeros(1, 20), 1e9 + torch.zeros(1, 20)], ids=str
)
def test_what_never_moves_is_read(y):
    y = y.double()
    history = History(y, torch.ones_like(y, dtype=torch.bool), Seasons(4))
    read = history.origins(torch.tensor([0]), torch.tensor([19]), torch.tensor([[1, 5]])).read()
    assert read.features.isfinite().all()
    torch.testing.assert_close(read.scale, 0.01 * y[:, :1])
    torch.testing.assert_close(read.candidates, torch.zeros_like(read.candidates))


# --- network -------------------------------------------------------------------------------------


def network(**sizes):
    """A small network whose weights are all alive."""
    with torch.random.fork_rng(devices=[]):
        found = RecurrentNetwork(hidden=6, width=8, factors=2, **sizes).double()
    generator = torch.Generator().manual_seed(0)
    for weight in found.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator).double()
    return found.requires_grad_(False)


@given(cut=st.integers(0, 30), seed=st.integers(0, 99))
def test_a_memory_goes_on_from_any_row(cut, seed):
    y, seen = walks(seed, 30)
    history, net = History(y, seen, Seasons(4)), network(rows=2)
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(BATCH, 30, 2, generator=generator).double()
    whole = net.remember_all(history.rows, u, history.inside)
    state = torch.zeros(BATCH, 6).double()
    for part in (slice(0, cut), slice(cut, 30)):
        if part.start == part.stop:
            continue
        rows = history.rows[:, part], u[:, part], history.inside[:, part]
        state = net.remember_all(*rows, state)[:, -1]
    torch.testing.assert_close(state, whole[:, -1])


def test_a_memory_is_that_of_a_series_alone():
    y, seen = walks(6, 30)
    history, net = History(y, seen, Seasons(4)), network()
    none = torch.zeros(BATCH, 30, 0).double()
    together = net.remember_all(history.rows, none, history.inside)
    for i, k in starts(seen):
        alone = net.remember(history.rows[i : i + 1, k:], none[i : i + 1, k:])
        torch.testing.assert_close(together[i, k:], alone[0])


def test_quantiles_do_not_fall_and_covariates_begin_as_nothing():
    y, seen = walks(7, 30)
    history = History(y, seen, Seasons(4))
    leads = torch.arange(1, 9).expand(BATCH, -1)
    read = history.origins(torch.arange(BATCH), torch.full((BATCH,), 29), leads).read()
    memory = torch.randn(BATCH, 96, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = RecurrentNetwork(rows=1, ahead=2, static=3)
    blank = torch.zeros(BATCH, 8, 2), torch.zeros(BATCH, 3)
    one = net(memory, read, *blank)
    two = net(memory, read, blank[0] + 5, blank[1] - 5)
    same(one, two, rtol=0, atol=0)
    assert (one.knots.diff(dim=-1) >= 0).all()


def test_targets_are_independent_until_a_panel_says_that_they_are_not():
    y, seen = walks(8, 30)
    history = History(y, seen, Seasons(4))
    leads = torch.arange(1, 4).expand(BATCH, -1)
    read = history.origins(torch.arange(BATCH), torch.full((BATCH,), 29), leads).read()
    memory, blank = torch.zeros(BATCH, 6).double(), torch.zeros(BATCH, 3, 0).double()
    net = network(targets=3)
    chance = torch.tensor([[1.0, 0, 0], [0.6, -0.8, 0], [0.0, 0.0, 1.0]]).double()
    alone = net(memory, read, blank, blank[:, 0]).loadings
    for between in (torch.eye(3).double(), 4 * chance):
        net.between.copy_(between)
        said = [net.tied(alone, torch.full((BATCH,), target)) for target in range(3)]
        of_leads, of_targets = alone @ alone.mT, between @ between.mT
        for i in range(3):
            for j in range(3):
                torch.testing.assert_close(said[i] @ said[j].mT, of_targets[i, j] * of_leads)


# --- training ------------------------------------------------------------------------------------


def panel(series=12, steps=60, seed=0, targets=1):
    y, seen = walks(seed, steps, series * targets, missing=0.05)
    history = History(y, seen, Seasons(4))
    blank = torch.zeros(series * targets, steps, 0), torch.zeros(series * targets, 0)
    return Data(history, targets, blank[0], slice(0, 0), blank[1], farthest=4)


def small():
    """A network that steps cost little of."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RecurrentNetwork(hidden=16, width=24, factors=2)


@pytest.mark.parametrize("targets", [1, 3])
def test_a_training_learns_and_says_when_it_was_best(targets):
    how = Recipe(members=2, steps=60, every=20)
    found = train(panel(targets=targets), 4, start=[small()], how=how, seed=1)
    assert list(found.losses) == [0, 20, 40, 60]
    assert found.losses[found.steps] <= min(found.losses.values()) + 0.02
    assert found.losses[60] < found.losses[20] + 0.05
    assert len(found.networks) == 2
    assert all(0.5 < width < 2 for width in found.width)


def test_a_training_starts_where_it_is_told():
    start = network()
    how = Recipe(members=2, steps=1, every=1, lr=1e-12)
    data = dataclasses.replace(panel(targets=2), row=torch.zeros(24, 60, 3))
    found = train(data, 4, start=[start], how=how)
    for member in found.networks:
        assert member.config == start.config | {"rows": 3, "ahead": 0, "targets": 2}
        for name, weight in start.state_dict().items():
            torch.testing.assert_close(member.state_dict()[name], weight.float())


@pytest.mark.parametrize("targets", [1, 2])
def test_one_of_three_networks_stays_as_it_was(targets):
    start = network().float()
    found = train(panel(targets=targets), 4, start=[start], how=Recipe(members=3, steps=2))
    assert len(found.networks) == 3
    alike = [
        all(torch.equal(w, one.state_dict()[name]) for name, w in start.state_dict().items())
        for one in found.networks
    ]
    # where targets are to be learned of, none does
    assert alike == [False, False, targets == 1]
    assert found.networks[2] is not start


def test_drawn_series_are_learned_from():
    windows = Windows(origins=64, leads=3, rows=32, cells=512)
    trainer = RecurrentTrainer(
        Curriculum(batch=24), steps=6, often=3, windows=windows, network={"hidden": 8, "width": 8}
    )
    network = trainer.run()
    assert trainer.step == 6
    assert all(w.isfinite().all() for w in network.parameters())


def test_a_training_is_repeated_by_its_seed():
    how = Recipe(members=1, steps=4, every=2)
    one, two, other = (train(panel(), 4, start=[small()], how=how, seed=seed) for seed in (1, 1, 2))
    weights = [torch.cat([w.flatten() for w in f.networks[0].parameters()]) for f in (one, two)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    last = torch.cat([w.flatten() for w in other.networks[0].parameters()])
    assert not torch.equal(weights[0], last)


@pytest.mark.parametrize("allowed", [0, 3, 7])
def test_a_training_that_is_stopped_leaves_a_network(allowed):
    how = Recipe(members=2, steps=6, every=2)
    found = train(panel(), 4, start=[small()], how=how, going_on=lambda step, steps: step < allowed)
    # networks that the held-out block would have left as they are need no steps
    assert len(found.networks) == (2 if found.steps == 0 else 1)
    assert all(w.isfinite().all() for w in found.networks[0].parameters())


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_few_rows_are_trained_on_without_a_held_out_block(steps):
    found = train(panel(2, steps), 4, start=[small()], how=Recipe(members=1, steps=3))
    assert not found.losses
    assert found.width == (1.0, 1.0, 1.0)


# --- engine --------------------------------------------------------------------------------------


def frame(seed=0, rows=48, series=6):
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(series):
        t = np.arange(rows)
        promo = rng.integers(0, 2, rows).astype(float)
        y = 50 + 10 * promo + 3 * np.sin(2 * np.pi * t / 4) + rng.normal(0, 1, rows)
        ds = pd.date_range("2015-01-01", periods=rows, freq="QS")
        frames.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y, "promo": promo}))
    return pd.concat(frames, ignore_index=True)


def test_covariates_that_are_known_ahead_are_read():
    df = frame()
    past, future = df[df["ds"] < "2025-01-01"], df[df["ds"] >= "2025-01-01"]
    columns = Columns(future=["promo"])
    model = Recurrent(members=1, steps=80, horizon=4)
    fitted = Forecaster(model, freq="QS", season_length=4, columns=columns).fit(past)
    known = future.drop(columns="y")
    h = known.groupby("unique_id").size().iloc[0]
    on, off = (
        fitted.predict(h, X_df=known.assign(promo=value))["recurrent"].mean()
        for value in (1.0, 0.0)
    )
    assert 5 < on - off < 14


@pytest.mark.slow
def test_several_targets_have_a_joint_law():
    rng = np.random.default_rng(0)
    both = rng.normal(size=(400,)).cumsum()
    df = pd.DataFrame(
        {
            "unique_id": "a",
            "ds": pd.date_range("2020-01-01", periods=400, freq="D"),
            "one": both + 0.1 * rng.normal(size=400),
            "two": both + 0.1 * rng.normal(size=400),
        }
    )
    columns = Columns(target=["one", "two"])
    model = Recurrent(members=1, steps=80, horizon=4)
    fitted = Forecaster(model, freq="D", season_length=1, columns=columns).fit(df)
    paths = fitted.sample(5, 400)
    last = paths[paths["ds"] == paths["ds"].max()]
    values = last.pivot_table(index="sample_id", columns="target", values="recurrent")
    assert values.corr().iloc[0, 1] > 0.5


@pytest.mark.parametrize("bad", [0, -1, True])
@pytest.mark.parametrize("name", ["members", "steps", "horizon"])
def test_bad_options_are_refused(name, bad):
    with pytest.raises(ArgumentError, match=f"{name} must be a whole number of at least 1"):
        Recurrent(**{name: bad})
