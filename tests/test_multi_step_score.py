"""What trains forecasts themselves: multi_step_score, windows with a horizon, anchored models."""

from functools import partial

import numpy as np
import pytest
import torch

from seqlatent import zoo
from seqlatent.emissions import NegativeBinomial, Normal, StudentT
from seqlatent.forecasting.features.scaling import Reading, Units, local, measured, recent, scales
from seqlatent.forecasting.features.windows import ModelData, Windows
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.forecasting.time.index import TimeIndex
from seqlatent.inference import Amortised, AnchoredParallel, FilteringEncoder, KalmanBackbone
from seqlatent.model import moments
from seqlatent.networks import MinGRU, reinitialise
from seqlatent.objectives import evidence, multi_step_score
from seqlatent.sequences import Context, Sequences
from seqlatent.training import fit
from seqlatent.transitions import (
    Anchored,
    DampedTrend,
    Gated,
    LocalLevel,
    Sum,
    TrigonometricSeasonal,
)
from seqlatent.zoo import deep_markov, deep_state, srnn, structural


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(batch=4, steps=14, dtype=torch.float64, missing=0.2):
    y = torch.randn(batch, steps, 1, generator=generator(), dtype=dtype).cumsum(1) + 5
    y[torch.rand(y.shape, generator=generator(1)) < missing] = torch.nan
    scale = torch.full((batch, 1), 2.0, dtype=dtype)
    return Sequences.of(y, shift=torch.full_like(scale, 3.0), scale=scale)


def core():
    return Sum([DampedTrend(), TrigonometricSeasonal(4)])


# --- multi_step_score
# ----------------------------------------------------------------------------------


def test_it_scores_the_exact_predictive_distribution():
    model, s, h = structural(trend=True, season_length=4).double(), sequences(), 5
    past = s.window(0, s.steps - h)
    belief = model.belief(past, end=True)
    mean, variance = moments(model, belief, h)
    distribution = torch.distributions.Normal(mean, variance.sqrt())
    y, seen = s.y[:, -h:], s.observed[:, -h:]
    expected = torch.where(seen, distribution.log_prob(y), 0.0).sum((-2, -1))
    found = multi_step_score(model, s, horizon=h, past=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    both = multi_step_score(model, s, horizon=h, past=0.5)
    torch.testing.assert_close(both, expected + 0.5 * evidence(model, past), rtol=1e-9, atol=1e-9)


def test_its_crps_is_that_of_many_draws():
    model, s, h = structural().double(), sequences(missing=0.0), 3
    belief = model.belief(s.window(0, s.steps - h), end=True)
    draws = model.forecast(belief, h, n=4000, generator=generator()).y
    y = s.y[:, -h:]
    pairs = (draws - draws.roll(1, 0)).abs().mean(0)
    crps = ((draws - y).abs().mean(0) - pairs / 2) / s.scale[:, None]
    found = multi_step_score(model, s, horizon=h, past=0.0, score="crps")
    torch.testing.assert_close(found, -crps.sum((-2, -1)), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("score", ["log", "crps"])
@pytest.mark.parametrize("anchored", [False, True])
def test_it_sees_nothing_of_what_it_scores(score, anchored):
    """The horizon's values enter the score alone: the paths to it stay where they were."""
    model = deep_markov(
        latent_dim=2,
        hidden_dim=8,
        emission=StudentT,
        causal=True,
        core=core() if anchored else None,
    ).double()
    s = sequences(missing=0.0)
    far = s.y.clone()
    far[:, -1] += 1000.0
    moved = Sequences(far, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    hide = s.observed.clone()
    hide[:, -1] = False
    run = partial(multi_step_score, model, horizon=3, score=score)
    a, b = (run(x.hide(~hide), generator=generator()) for x in (s, moved))
    torch.testing.assert_close(a, b)
    assert (run(moved, generator=generator()) < run(s, generator=generator())).all()


def test_counts_are_scored_by_density():
    model = deep_markov(latent_dim=2, hidden_dim=8, emission=NegativeBinomial, causal=True)
    y = torch.poisson(torch.full((3, 12, 1), 2.0), generator=generator())
    value = multi_step_score(model, Sequences.of(y), horizon=4, score="crps", generator=generator())
    value.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.emission.parameters())


@pytest.mark.parametrize("build", [structural, partial(deep_markov, latent_dim=2, hidden_dim=8)])
def test_training_by_it_gains(build):
    model, s = build().double(), sequences(8, 20)
    reinitialise(model, generator())
    run = partial(multi_step_score, horizon=5, past=0.1, score="crps", samples=8)
    before = run(model, s, generator=generator()).mean()
    fit(model, lambda _: s, run, steps=60, seed=0, progress=False)
    assert run(model, s, generator=generator()).mean() > before


def test_lookahead_needs_a_past_and_a_memory_of_known_inputs():
    s = sequences()
    with pytest.raises(ValueError, match="horizon must leave steps"):
        multi_step_score(structural().double(), s, horizon=14)
    with pytest.raises(TypeError, match="reads the values"):
        multi_step_score(srnn(hidden_dim=4).double(), s, horizon=2)
    with pytest.raises(ValueError, match='"log" or "crps"'):
        multi_step_score(structural().double(), s, horizon=2, score="mse")
    with pytest.raises(ValueError, match="at least 2 samples"):
        multi_step_score(deep_markov(hidden_dim=4).double(), s, horizon=2, score="crps", samples=1)


# --- moments ahead ------------------------------------------------------------------------------


def test_moments_with_a_memory_of_known_inputs_are_those_of_paths():
    model = deep_state(season_length=4, covariate_dim=2, hidden_dim=6, damped=True).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator(3), dtype=p.dtype)
    u = torch.randn(3, 15, 2, generator=generator(4), dtype=torch.float64)
    y = torch.randn(3, 12, 1, generator=generator(5), dtype=torch.float64).cumsum(1)
    belief = model.belief(Sequences.of(y, u=u[:, :12]), end=True)
    mean, variance = moments(model, belief, 3, u=u[:, 12:])
    paths = model.forecast(belief, 3, n=20_000, u=u[:, 12:], generator=generator()).y
    close = {"rtol": 0.05, "atol": 4 * float((variance / 20_000).sqrt().max())}
    torch.testing.assert_close(paths.mean(0), mean, **close)
    torch.testing.assert_close(paths.var(0), variance, **close)


def test_moments_refuse_a_memory_that_reads_values():
    assert not deep_state(hidden_dim=4).memory.reads_values
    assert srnn(hidden_dim=4).memory.reads_values


@pytest.mark.parametrize(
    ("season", "harmonics", "width"), [(12, None, 13), (24, 3, 8), (None, None, 2)]
)
def test_deep_state_with_harmonics(season, harmonics, width):
    model = deep_state(season_length=season, harmonics=harmonics, damped=True, hidden_dim=4)
    assert model.transition.latent_dim == width


# --- anchored models ----------------------------------------------------------------------------


def backbone():
    net = KalmanBackbone(core(), MinGRU(4, 6)).double()
    reinitialise(net, generator())
    return net


def test_a_kalman_backbone_is_the_same_in_pieces_and_step_by_step():
    net = backbone()
    x = torch.randn(3, 9, 4, generator=generator(2), dtype=torch.float64)
    x[..., 1] = (x[..., 1] > -0.5).double()
    whole, states = net(x)
    first, middle = net(x[:, :4])
    rest, _ = net(x[:, 4:], tuple(h[:, -1] for h in middle))
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    state = tuple(h[:, 3] for h in states)
    for t in range(4, 9):
        out, state = net.step(x[:, t], state)
        torch.testing.assert_close(out, whole[:, t])


def test_it_adds_the_filtered_mean():
    net, s = backbone(), sequences(3, 8)
    x = torch.cat(
        [s.normalised.asinh(), s.observed.double(), torch.zeros(3, 8, 2, dtype=torch.float64)], -1
    )
    mean = net(x)[0][..., -net.core.latent_dim :]
    later = x.clone()
    later[:, 5:] = 0
    torch.testing.assert_close(net(later)[0][:, :5, -net.core.latent_dim :], mean[:, :5])
    fitted = (mean * torch.tensor(net.core.loading.constant)).sum(-1)
    seen = s.observed[..., 0]
    assert (fitted - s.normalised[..., 0])[seen].abs().mean() < s.normalised[..., 0][seen].std()


def test_a_closed_gate_moves_as_the_component_does():
    distribution = Anchored(core(), free=2, hidden_dim=4, scale=0.01).double()
    torch.nn.init.zeros_(distribution.head.weight)
    torch.nn.init.constant_(
        distribution.head.bias, -40.0
    )  # closes the gate, and quietens the noise
    z = torch.randn(5, distribution.latent_dim, generator=generator(), dtype=torch.float64)
    F = distribution.core.matrices(Context.regular(5, dtype=torch.float64))[0]
    expected = z[:, : distribution.core.latent_dim] @ F.mT
    found = distribution(z, Context.regular(5, dtype=torch.float64)).mean
    torch.testing.assert_close(found[:, :-2], expected)


def test_an_untrained_anchored_model_forecasts_a_line_and_a_season():
    t = torch.arange(40.0)
    y = (10 + 0.5 * t + 3 * torch.tensor([1.0, -1.0, 2.0, -2.0]).repeat(10))[None, :, None]
    model = deep_markov(latent_dim=1, hidden_dim=8, causal=True, core=core(), core_scale=0.01)
    reinitialise(model, generator())
    scale = torch.full((1, 1), 2.0)
    belief = model.belief(
        Sequences.of(y[:, :36], shift=torch.full((1, 1), 26.0), scale=scale),
        generator=generator(),
    )
    found = model.forecast(belief, 4, n=200, generator=generator()).y.mean(0)
    assert (found - y[:, 36:]).abs().max() < 2.5


def test_an_anchored_belief_is_updated_as_if_filtered_anew():
    model = deep_markov(latent_dim=1, hidden_dim=6, causal=True, core=core()).double()
    s = sequences(3, 12)
    known = model.belief(s.window(0, 8), end=True, generator=generator())
    new = model.update(known, s.window(8, 12), generator=generator())
    whole = model.belief(s, end=True, generator=generator())
    for a, b in zip(new.latest.encoder, whole.latest.encoder, strict=True):
        torch.testing.assert_close(a, b)


def test_an_anchored_model_says_what_it_needs():
    with pytest.raises(ValueError, match="one observed dimension"):
        deep_markov(2, core=LocalLevel())
    with pytest.raises(TypeError, match="needs a component"):
        Anchored(Gated(2))
    with pytest.raises(ValueError, match="standard deviation in"):
        Anchored(LocalLevel(), scale=0)
    q = AnchoredParallel(5, 3, 1)
    assert isinstance(Amortised(FilteringEncoder(MinGRU(3, 5)), q).posterior, AnchoredParallel)
    model = zoo.deep_markov(core=LocalLevel(), emission=Normal, latent_dim=2)
    assert model.transition.latent_dim == 3


# --- local scales, windows with a horizon -------------------------------------------------------


def panel(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    t = np.concatenate([np.arange(n, dtype=np.float64) for n in lengths])
    y = rng.normal(size=(len(t), 1)).cumsum(0) + 20
    none = np.zeros((len(t), 0))
    n = len(lengths)
    return Panel(
        np.arange(n),
        offsets,
        t,
        y,
        none,
        none,
        np.zeros((n, 0)),
        np.zeros((n, 0), int),
        np.arange(len(t)),
        TimeIndex.of(t.astype(int), offsets, 1),
    )


def test_local_scales_are_equivariant_and_read_the_end():
    y = np.random.default_rng(0).normal(size=(5, 30, 1)).cumsum(1)
    y[:, ::7] = np.nan
    shift, scale, number = local(y, 4)
    moved, stretched, again = local(3 * y + 7, 4)
    np.testing.assert_allclose(moved, 3 * shift + 7)
    np.testing.assert_allclose(stretched, 3 * scale)
    np.testing.assert_array_equal(again, number)
    np.testing.assert_allclose(local(y[:, -8:], 4).shift, shift)


def test_local_scales_of_what_says_little():
    y = np.full((3, 6, 1), np.nan)
    y[1], y[2, -1] = 4.0, 2.0
    usual = np.zeros((1, 1)), np.full((1, 1), 5.0)
    shift, scale = Units((Reading("local"),), 12, None, *usual)(y, np.full(3, -1))
    assert np.isfinite(shift).all()
    assert (scale > 0).all()
    assert shift[1, 0] == 4.0
    assert scale[2, 0] == 5.0  # one value moves as is usual
    zero, mean, _ = measured(np.array([[[0.0], [0.0], [3.0]]]), "counts")
    assert zero[0, 0] == 0
    assert mean[0, 0] == pytest.approx(3.5 / 4)


def test_scales_of_a_panel_are_those_of_its_last_rows():
    p = panel(30, 9)
    last = recent(p, 12)
    assert np.isnan(last[1, :3]).all()
    np.testing.assert_array_equal(last[1, 3:], p.y[30:])
    found = scales(p, "local", season=4, rows=12)
    np.testing.assert_array_equal(found[0], local(last, 4).shift)
    np.testing.assert_array_equal(found[1][0], local(last, 4).scale[0])


def numbers(p, kind="local"):
    u, codes = np.zeros((p.rows, 0)), np.zeros((p.batch, 0), int)
    units = Units.of(p, (Reading(kind, kind != "counts"),), season=4, context=12)
    return ModelData(p, u, codes, np.arange(p.batch), units, torch.float64, slice(0, 0))


def test_windows_with_a_horizon_are_scaled_by_what_comes_before():
    p = panel(60, 25, 7)
    windows = Windows(numbers(p), 16, 64, horizon=6)
    for seed in range(5):
        s = windows(generator(seed))
        known = s.steps - 6
        assert s.observed[:, :known].any(1).all()
        assert s.observed[:, known:].any(1).all()
        assert s.regular
        assert (s.shift == 0).all()  # values are distances from it
        if known < 12:
            continue
        y = torch.where(s.observed, s.y, torch.nan).numpy()[:, known - 12 : known]
        full = ~np.isnan(y).any((1, 2))
        assert full.any()
        near = local(y[full], 4)
        np.testing.assert_allclose(near.shift, 0, atol=1e-12)
        np.testing.assert_allclose(s.scale[full], near.scale)


def test_a_cut_before_the_first_row_is_padded():
    p = panel(10)
    data, first = numbers(p), np.array([0])
    s = data.cut(first, first - 3, 8, data.scale(first, first + 10))
    assert s.observed[0, :, 0].tolist() == [False] * 3 + [True] * 5
    np.testing.assert_array_equal(s.t[0], np.arange(-3.0, 5.0))
