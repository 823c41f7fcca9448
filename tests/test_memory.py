"""Memory: all steps at once equal one step at a time, and nothing of the present is read."""

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series
from small_models import BACKBONES, memory

from seqlatent.memory import CausalMemory, NoMemory
from seqlatent.networks import MinGRU
from seqlatent.sequences import Context, Sequences

LAGS = [(), (1,), (3, 1), (2, 5)]
SIZES = {"obs_dim": 2, "covariate_dim": 2, "code_sizes": (3, 2)}


def batch(steps=6, **changes):
    fields = {
        "obs_dim": 2,
        "covariate_dim": 2,
        "codes": torch.tensor([[0, 1], [2, 0], [1, 1]]),
        "t": gaps(3, steps),
        "shift": normal(3, 2, seed=4),
        "scale": normal(3, 2, seed=5).exp(),
        "missing": 0.4,
    }
    s = series(3, steps, **{**fields, **changes})
    observed = s.observed.clone()
    observed[1, 4:] = False  # a ragged end
    observed[2] = False  # nothing at all
    return s.hide(~observed)


def stepped(mem, s, state, first=0, y=None, observed=None):
    """Features of the steps from ``first`` on, one at a time, given the observation before."""
    c = Context.of(s, s.y[..., :0])
    y = torch.zeros_like(s.y[:, 0]) if y is None else y
    observed = torch.zeros_like(s.observed[:, 0]) if observed is None else observed
    out = []
    for t in range(first, s.steps):
        m, state = mem.step(state, y, observed, c[t])
        out.append(m)
        y, observed = s.y[:, t], s.observed[:, t]
    return torch.stack(out, 1), state


def equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        close(x, y)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("lags", LAGS)
def test_all_steps_at_once_equal_one_at_a_time(lags, backbone):
    mem, s = memory(**SIZES, lags=lags, backbone=BACKBONES[backbone]), batch()
    m = mem(s)
    assert m.shape == (3, 6, mem.out_dim)
    found, state = stepped(mem, s, mem.initial((3,), s.y))
    close(found, m)
    equal(state, mem.state_at(s, torch.full((3,), 5)))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("lags", LAGS)
def test_a_state_continues_where_it_stands(lags, backbone):
    mem, s = memory(**SIZES, lags=lags, backbone=BACKBONES[backbone]), batch()
    m = mem(s)
    for stop in (0, 2, 4):
        state = mem.state_at(s.window(0, stop + 1), torch.full((3,), stop))
        found, _ = stepped(mem, s, state, stop + 1, s.y[:, stop], s.observed[:, stop])
        close(found, m[:, stop + 1 :])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_series_may_stand_at_a_step_of_its_own(backbone):
    mem, s = memory(**SIZES, lags=(1, 3), backbone=BACKBONES[backbone]), batch()
    index = torch.tensor([4, 1, -1])
    state = mem.state_at(s, index)
    initial = mem.initial((3,), s.y)
    equal([x[2] for x in state], [x[2] for x in initial])
    for b in (0, 1):
        alone = mem.state_at(s, torch.full((3,), int(index[b])))
        equal([x[b] for x in state], [x[b] for x in alone])


@pytest.mark.parametrize("lags", LAGS)
def test_a_state_with_sample_axes_steps_every_path(lags):
    mem, s = memory(**SIZES, lags=lags), batch()
    state = mem.state_at(s, torch.full((3,), 2))
    c = Context.of(s, s.y[..., :0])[3]
    y, observed = normal(5, 3, 2), torch.rand(5, 3, 2, generator=seeded()) < 0.7
    wide = tuple(x.expand(5, *x.shape) for x in state)
    m, after = mem.step(wide, y, observed, c)
    assert m.shape == (5, 3, mem.out_dim)
    for i in range(5):
        one, alone = mem.step(state, y[i], observed[i], c)
        close(m[i], one)
        equal([x[i] for x in after], alone)


def test_the_present_and_the_future_are_not_read():
    mem, s = memory(**SIZES, lags=(1, 2)), batch(missing=0.0)
    m = mem(s)
    y, u = s.y.clone(), s.u.clone()
    y[:, 3:] = 1e9
    u[:, 4:] = -1e9
    poisoned = Sequences(y, s.observed, s.t, u, s.codes, s.shift, s.scale)
    assert torch.equal(mem(poisoned)[:, :4], m[:, :4])
    assert not torch.equal(mem(poisoned)[:, 4], m[:, 4])


def test_a_missing_value_is_told_from_a_value_of_zero():
    mem, s = memory(**SIZES, lags=(1,)), batch(missing=0.0)
    y, seen = s.y.clone(), s.observed.clone()
    y[:, 2] = s.shift.reshape(y[:, 2].shape)
    zero = Sequences(y, seen, s.t, s.u, s.codes, s.shift, s.scale)
    seen = seen.clone()
    seen[:, 2] = False
    missing = Sequences(y, seen, s.t, s.u, s.codes, s.shift, s.scale)
    off = (mem(zero) - mem(missing)).detach().abs().amax(-1)
    assert float(off[:, :3].max()) == 0
    assert float(off[:2, 3].min()) > 1e-3


def test_what_stands_in_missing_cells_is_not_read():
    mem, s = memory(**SIZES), batch()
    poisoned = Sequences(
        torch.where(s.observed, s.y, 1e9), s.observed, s.t, s.u, s.codes, s.shift, s.scale
    )
    assert torch.equal(mem(poisoned), mem(s))
    state = mem.initial((3,), s.y)
    c = Context.of(s, s.y[..., :0])[0]
    nothing = torch.zeros(3, 2, dtype=torch.bool)
    a, b = (mem.step(state, x, nothing, c)[0] for x in (s.y[:, 0] * 0, s.y[:, 0] * 0 + 1e9))
    assert torch.equal(a, b)


def test_a_padded_tail_changes_no_feature_before_it():
    mem, s = memory(**SIZES, lags=(1, 4)), batch()
    # products of matrices of other sizes may round otherwise
    torch.testing.assert_close(mem(s.extend(3))[:, :6], mem(s), rtol=1e-12, atol=1e-12)


def test_series_do_not_see_each_other():
    mem, s = memory(**SIZES, lags=(1, 4)), batch()
    order = torch.tensor([2, 0, 1])
    close(mem(s.select(order)), mem(s)[order])
    for b in range(3):
        close(mem(s.select(slice(b, b + 1))), mem(s)[b : b + 1])


def test_standardised_values_are_read_whatever_the_units():
    mem = memory(1, lags=(1,))
    s = series(missing=0.0)
    shift, scale = torch.full((2, 1), 7.0, dtype=F64), torch.full((2, 1), 3.0, dtype=F64)
    moved = Sequences.of(s.y * 3 + 7, shift=shift, scale=scale)
    lagged = mem._inputs(moved)[..., :2]
    close(lagged, mem._inputs(s)[..., :2])


def test_no_memory_has_no_features():
    s = batch()
    mem = NoMemory()
    assert mem(s).shape == (3, 6, 0)
    assert mem.out_dim == 0
    state, c = mem.state_at(s, s.last), Context.of(s, s.y[..., :0])[0]
    m, after = mem.step(state, normal(5, 3, 2), torch.ones(5, 3, 2, dtype=torch.bool), c)
    assert m.shape == (5, 3, 0)
    assert after == state == mem.initial((3,), s.y)


def test_wrong_widths_are_refused():
    mem = memory(**SIZES)
    cases = {
        r"reads 2 observed dimensions, found 1": {"obs_dim": 1, "shift": None, "scale": None},
        r"reads 2 covariates, the sequences have 1": {"covariate_dim": 1},
        r"reads 2 static codes, the sequences have 0": {"codes": None},
        r"static code 1 has 2 categories, found code 5.*larger": {
            "codes": torch.tensor([[0, 1], [2, 0], [1, 5]])
        },
    }
    for message, changes in cases.items():
        s = series(
            3,
            4,
            **{
                **{"obs_dim": 2, "covariate_dim": 2},
                **{"codes": torch.zeros(3, 2).long()},
                **changes,
            },
        )
        with pytest.raises(ValueError, match=message):
            mem(s)


@pytest.mark.parametrize("lags", [(0,), (1, -2), (True,), (1.5,)])
def test_lags_that_read_the_present_are_refused(lags):
    with pytest.raises((ValueError, TypeError), match=r"lags"):
        CausalMemory(1, MinGRU(4, 4), lags=lags)


def test_repeated_lags_are_refused():
    with pytest.raises(ValueError, match=r"lags must not repeat, found \(1, 1\)"):
        CausalMemory(1, MinGRU(4, 4), lags=(1, 1))


def test_a_backbone_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"must read 4 features, found one that reads 5; size"):
        CausalMemory(1, MinGRU(5, 4), lags=(1,))


def test_input_dim_counts_what_a_backbone_reads():
    mem, s = memory(**SIZES, lags=(1, 3)), batch()
    width = CausalMemory.input_dim(2, lags=(1, 3), covariate_dim=2, code_sizes=(3, 2))
    assert mem._inputs(s).shape[-1] == width == 8 + 2 + 1 + 2 + 16


def test_every_parameter_gets_a_gradient():
    mem = memory(**SIZES, lags=(1, 3))
    mem(batch()).square().sum().backward()
    for name, p in mem.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name
