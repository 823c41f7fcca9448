"""What networks are trained on and adapted to: draws, windows, runs that stop and go on."""

import copy
import hashlib
import math

import pytest
import torch

from seqlatent.amortised import LEVELS, Network, Seasons, context_of, past_of
from seqlatent.amortised import weights as shipped
from seqlatent.amortised.adaptation import Adaptation, Windows, adapt, adapted
from seqlatent.amortised.curriculum import SEASONS, Curriculum
from seqlatent.amortised.objective import loss, normal_scores, quantile_loss
from seqlatent.amortised.training import Trainer

SMALL = {"width": 16, "depth": 1, "head_width": 8, "head_depth": 1, "factors": 2}
TWELVE = Curriculum(seasons={Seasons(12): 1.0}, batch=32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, **sizes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(**{**SMALL, **sizes}).eval()


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def untouched():
    """Nothing global is drawn from or set."""
    before, kind = torch.get_rng_state(), torch.get_default_dtype()
    yield
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == kind


@pytest.mark.usefixtures("untouched")
def test_one_generator_says_all_of_a_batch():
    one, again, other = (Curriculum(batch=16).draw(seeded(seed)) for seed in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert other.y.shape != one.y.shape or not torch.equal(other.y, one.y)


@pytest.mark.parametrize("seasons", [s for s in SEASONS if s.short], ids=str)
def test_every_season_is_drawn(seasons):
    curriculum = Curriculum(batch=12)
    for seed in range(3):
        batch = curriculum.draw(seeded(seed), seasons)
        series = 12 if context_of(seasons) <= 200 else 6
        leads = batch.leads.tolist()
        assert batch.y.shape == batch.observed.shape == (series, context_of(seasons))
        assert batch.future.shape == batch.seen.shape == (series, len(leads))
        assert batch.seasons == seasons
        assert leads == sorted(set(leads))
        assert 1 <= leads[0] <= leads[-1] <= 512
        assert len(leads) <= curriculum.leads
        assert batch.observed[:, -1].all()
        assert batch.seen.all()
        assert batch.y.isfinite().all()
        assert batch.future.isfinite().all()


def test_season_lengths_come_as_often_as_their_weights_say():
    curriculum, generator = Curriculum(seasons={Seasons(0): 1.0, Seasons(7): 3.0}), seeded()
    found = [curriculum.draw_seasons(generator) for _ in range(800)]
    assert 0.7 < sum(s == Seasons(7) for s in found) / 800 < 0.82
    lengths = {s.short for s in found}
    assert min(lengths) == 2
    assert max(lengths) == 60


def test_leads_that_are_asked_for_are_drawn():
    batch = TWELVE.draw(seeded(), Seasons(4), 5, [1, 3, 8])
    assert batch.leads.tolist() == [1, 3, 8]
    assert batch.future.shape == (5, 3)


def test_a_past_goes_on_into_its_leads():
    """Leads that are drawn together and one by one belong to one path."""
    one = TWELVE.draw(seeded(), Seasons(4), 5, list(range(1, 9)))
    other = TWELVE.draw(seeded(), Seasons(4), 5, [2, 8])
    assert torch.equal(one.y, other.y)
    assert torch.equal(one.future[:, [1, 7]], other.future)


def held_out(network, curriculum=TWELVE):
    with torch.no_grad():
        batches = [curriculum.draw(seeded(seed), batch=64) for seed in (100, 101)]
        values = [loss(network, batch, generator=seeded()) for batch in batches]
    return torch.stack(values).mean().item()


@pytest.mark.usefixtures("untouched")
def test_a_trained_network_beats_itself_untrained():
    trainer = Trainer(TWELVE, steps=160, lr=1e-2, average=0.9, network=SMALL)
    before = copy.deepcopy(trainer.network)
    after = trainer.run()
    assert held_out(after) < held_out(before) - 0.02
    assert trainer.step == 160
    assert not after.training


@pytest.mark.usefixtures("untouched")
def test_a_run_that_stops_goes_on_as_if_it_had_not(tmp_path):
    class Stop(Exception):
        pass

    def stop(trainer):
        if trainer.step == 8:
            raise Stop

    def trainer():
        return Trainer(TWELVE, steps=12, network=SMALL)

    through, file = trainer().run(every=4), tmp_path / "run.pt"
    stopped = trainer()
    with pytest.raises(Stop):
        stopped.run(file, every=4, report=stop)
    on = trainer()
    steps = []
    resumed = on.run(file, every=4, report=lambda t: steps.append(t.step))
    assert steps == [12]
    assert same(through, resumed)
    # a run that has ended only says what it came to
    assert same(trainer().run(file, report=stop), through)


def test_seeds_make_other_networks():
    one, again, other = (Trainer(TWELVE, steps=2, seed=s, network=SMALL).run() for s in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_the_loss_is_least_at_the_quantiles_of_what_comes(mean):
    y = torch.randn(20_000, 1, generator=seeded()).double() + mean
    past = past_of(torch.ones(1, 3).double(), torch.ones(1, 3, dtype=torch.bool), Seasons(1))
    seen = torch.ones_like(y, dtype=torch.bool)
    past = past._replace(lower=~past.lower)
    width = torch.tensor(1.0).double().requires_grad_(True)
    shift = torch.tensor(0.0).double().requires_grad_(True)
    x = torch.special.ndtri(torch.tensor(LEVELS).double())
    knots = (mean + shift + width * x).expand(20_000, 1, -1)
    value = quantile_loss(knots, y, past, seen)
    # no other width or place is called better
    assert all(abs(g.item()) < 0.01 for g in torch.autograd.grad(value, (width, shift)))


def test_cells_that_are_not_seen_count_for_nothing():
    batch = TWELVE.draw(seeded(), batch=6)
    seen = torch.rand(batch.seen.shape, generator=seeded(1)) < 0.6
    one = batch._replace(seen=seen)
    other = one._replace(future=torch.where(seen, batch.future, 1e6))
    network = small()
    with torch.no_grad():
        first, second = (loss(network, b, generator=seeded()) for b in (one, other))
    torch.testing.assert_close(first, second)
    empty = batch._replace(seen=torch.zeros_like(seen))
    with torch.no_grad():
        assert loss(network, empty, generator=seeded()).item() == 0


def test_normal_scores_at_a_floor_are_drawn_from_their_atom():
    y = torch.tensor([[0.0, 0.0, 4.0, 1.0, 0.0]]).repeat(500, 1)
    past = past_of(y, torch.ones_like(y, dtype=torch.bool), Seasons(1))
    with torch.no_grad():
        raw = small()(past, torch.tensor([1, 2]))
    zero = -past.origin.expand(-1, 2)
    seen = torch.ones_like(zero, dtype=torch.bool)
    x = normal_scores(raw, zero, past, seen, seeded())
    assert x.isfinite().all()
    assert x[:, 0].unique().numel() > 400
    above = normal_scores(raw, zero + 1 / past.unit, past, seen, seeded())
    assert above[:, 0].unique().numel() > 400  # whole numbers too
    assert (x.amax(0) <= above.amin(0) + 1e-4).all()
    real = past._replace(whole=torch.zeros_like(past.whole), lower=torch.zeros_like(past.lower))
    assert normal_scores(raw, zero, real, seen, seeded())[:, 0].unique().numel() == 1


STEPS, HORIZON = 60, 6


def panel():
    """Values that say their series and step, with holes, unlike beginnings, some too short."""
    y = torch.arange(5.0)[:, None] * 1000 + torch.arange(float(STEPS))
    observed = torch.rand(5, STEPS, generator=seeded()) < 0.8
    for series, begin in enumerate((0, 10, 30, STEPS - 4, STEPS)):
        observed[series, :begin] = False
    return torch.where(observed, y, torch.nan), observed


@pytest.mark.parametrize("held", [0, 6, 13])
@pytest.mark.parametrize("seasons", [Seasons(1), Seasons(4), Seasons(7, 30)], ids=str)
def test_windows_are_rows_of_their_panel(seasons, held):
    y, observed = panel()
    windows = Windows(y, observed, seasons, HORIZON, held_out=held)
    batch = windows.draw(400, 4, seeded())
    past, future, leads = batch.y, batch.future, batch.leads
    assert past.shape == (400, context_of(seasons))
    assert leads.tolist() == sorted(set(leads.tolist()))
    assert len(leads) == 4
    assert leads.max() <= HORIZON
    assert past.isfinite().all()
    assert future.isfinite().all()
    for i in range(400):
        series = int(past[i, batch.observed[i]][0] // 1000)
        columns = torch.arange(past.shape[1])
        steps = past[i, batch.observed[i]] - 1000 * series
        # the step that the last column of the past stands for
        last = steps - (columns[batch.observed[i]] - past.shape[1] + 1)
        assert last.unique().numel() == 1
        origin = int(last[0]) + 1
        rows = origin - past.shape[1] + columns
        inside = rows >= 0
        assert torch.equal(batch.observed[i, inside], observed[series, rows[inside]])
        assert not batch.observed[i, ~inside].any()
        ahead = origin - 1 + leads
        known = (ahead < STEPS - held) & observed[series, ahead.clamp_max(STEPS - 1)]
        assert torch.equal(batch.seen[i], known)
        assert torch.equal(future[i, known], 1000 * series + ahead[known].float())
        assert (future[i, ~known] == 0).all()
        assert series not in (3, 4)
        assert steps.max() < origin < STEPS - held


def test_windows_reach_every_origin():
    y = torch.arange(20.0)[None]
    observed = torch.ones_like(y, dtype=torch.bool)
    windows = Windows(y, observed, Seasons(1), 3)
    batch = windows.draw(500, 20, seeded())
    origins = (batch.y[:, -1] + 1).long().unique().tolist()
    assert origins == list(range(4, 20))
    assert windows.count == len(origins)


@pytest.mark.parametrize("held", [56, 60, 61, 100])
def test_what_is_held_out_may_be_all(held):
    y, observed = panel()
    windows = Windows(y, observed, Seasons(1), HORIZON, held_out=held)
    assert windows.count == 0
    network = small()
    (found,) = adapt([network], windows, curriculum=TWELVE)
    assert same(network, found)


HOW = Adaptation(steps=4, batch=16, drawn=8, lr=1e-3)


@pytest.mark.usefixtures("untouched")
def test_adapted_networks_are_others_and_the_given_ones_stay():
    y, observed = panel()
    windows = Windows(y, observed, Seasons(12), HORIZON)
    given = [small(0).requires_grad_(False), small(1).requires_grad_(False)]
    before = copy.deepcopy(given)
    one, again = (adapt(given, windows, how=HOW, curriculum=TWELVE, seed=5) for _ in range(2))
    other = adapt(given, windows, how=HOW, curriculum=TWELVE, seed=6)
    for i in range(2):
        assert same(given[i], before[i])
        assert same(one[i], again[i])
        assert not same(one[i], other[i])
        assert not same(one[i], given[i])
        assert not one[i].training
        assert not any(p.requires_grad for p in (*one[i].parameters(), *given[i].parameters()))


@pytest.mark.gpu
def test_networks_adapt_on_an_accelerator_and_come_back():
    y, observed = pulses()
    rows = Windows(y, observed, Seasons(12), 12)
    found = [adapt([small()], rows, how=FAST, device=device)[0] for device in ("cpu", "cuda")]
    for here, there in zip(*(network.parameters() for network in found), strict=True):
        assert there.device.type == "cpu"
        torch.testing.assert_close(here, there, rtol=0.05, atol=0.02)


def test_adaptation_ends_where_it_is_told_to():
    y, observed = panel()
    windows = Windows(y, observed, Seasons(12), HORIZON)
    told = []

    def going_on(step, steps):
        told.append((step, steps))
        return step < 2

    (found,) = adapt([small()], windows, how=HOW, curriculum=TWELVE, going_on=going_on)
    assert told == [(0, 4), (1, 4), (2, 4)]
    assert not same(found, small())
    (none,) = adapt([small()], windows, how=HOW, curriculum=TWELVE, going_on=lambda *_: False)
    assert same(none, small())


def test_adaptation_learns_what_its_panel_does():
    windows = Windows(*pulses(40), Seasons(12), 12, held_out=12)
    how = Adaptation(steps=40, batch=64, drawn=0, mix=0.0, lr=1e-2)
    network = small()
    (found,) = adapt([network], windows, how=how)
    batch = windows.draw(256, 20, seeded(9))
    with torch.no_grad():
        before, after = (loss(n, batch, generator=seeded()) for n in (network, found))
    assert after < 0.8 * before


def pulses(series=30, steps=120, missing=0.1):
    """Three high steps in each twelve, at phases of their own, and what is hidden of them."""
    generator = seeded()
    phase = torch.randint(12, (series, 1), generator=generator)
    noise = torch.randn(series, steps, generator=generator)
    y = 10.0 * ((torch.arange(steps) + phase) % 12 < 3) + noise
    observed = torch.rand(series, steps, generator=generator) >= missing
    return torch.where(observed, y, torch.nan), observed


FAST = Adaptation(steps=20, batch=32, drawn=0, mix=0.0, lr=1e-2)


@pytest.mark.usefixtures("untouched")
def test_networks_go_as_far_as_held_out_blocks_say_that_it_pays():
    given = [small(0), small(1)]
    before = copy.deepcopy(given)
    one, again = (adapted(given, *pulses(), Seasons(12), 12, how=FAST) for _ in range(2))
    assert one.share > 0
    assert one.losses[one.share] == min(one.losses.values())
    assert one.losses == again.losses
    assert one.width == again.width
    assert all(0.5 < w < 2 for w in one.width)
    for i in range(2):
        assert same(one.networks[i], again.networks[i])
        assert not same(one.networks[i], given[i])
        assert same(given[i], before[i])


def test_hidden_values_never_matter_to_adaptation():
    y, observed = pulses(8, 80)
    how = Adaptation(steps=3, batch=8, drawn=0, mix=0.0, lr=1e-2)
    values = [torch.where(observed, y, hidden) for hidden in (torch.nan, 1e9)]
    one, other = (adapted([small()], v, observed, Seasons(12), 6, how=how) for v in values)
    assert one.losses == other.losses
    assert all(math.isfinite(loss) for loss in one.losses.values())
    assert one.width == other.width
    assert same(one.networks[0], other.networks[0])


def test_what_adaptation_makes_worse_is_left_as_it_was():
    y, observed = pulses()
    given = adapt([small()], Windows(y, observed, Seasons(12), 12, held_out=24), how=FAST)
    wild = Adaptation(steps=3, batch=16, drawn=0, mix=0.0, lr=20.0)
    found = adapted(given, y, observed, Seasons(12), 12, how=wild)
    assert found.share == 0
    assert found.losses[0.0] < min(found.losses[share] for share in (0.25, 0.5, 0.75))
    assert found.networks[0] is given[0]


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_panel_that_tells_too_little_changes_nothing(steps):
    given, (y, observed) = [small()], pulses(2, steps)
    found = adapted(given, y, observed, Seasons(12), 12, how=FAST)
    assert found.share == 0
    assert found.networks == given
    assert found.width == (1.0, 1.0, 1.0)
    none = adapted(given, y, torch.zeros_like(observed), Seasons(12), 12, how=FAST)
    assert none.networks == given


@pytest.mark.usefixtures("untouched")
def test_networks_are_packed_in_half_precision():
    some, card = [small(0), small(1, width=24)], {"steps": 3, "prior": ["level"]}
    data = shipped.pack_networks(some, card)
    found = shipped.unpack_networks(data, Network)
    for one, other in zip(some, found, strict=True):
        assert one.config == other.config
        assert not other.training
        for (name, weight), back in zip(
            one.state_dict().items(), other.state_dict().values(), strict=True
        ):
            assert back.dtype == torch.float32, name
            torch.testing.assert_close(back, weight, rtol=2**-11, atol=2**-25)
    again = shipped.unpack_networks(shipped.pack_networks(found, card), Network)
    assert all(same(one, other) for one, other in zip(found, again, strict=True))
    assert not any(p.requires_grad for n in found for p in n.parameters())


def test_what_ships_says_what_it_is():
    networks = shipped.load_networks()
    assert networks
    assert isinstance(shipped.card(), dict)
    file = shipped.files("seqlatent.amortised").joinpath("weights.safetensors").read_bytes()
    assert shipped.weights_hash() == hashlib.sha256(file).hexdigest()
    assert all(w.isfinite().all() for n in networks for w in n.state_dict().values())
