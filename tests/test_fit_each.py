"""Each series with parameters of its own: tables, the descent of all at once, the pool."""

import warnings

import pytest
import torch

from seqlatent import zoo
from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, moments, per_series
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Context, Sequences
from seqlatent.training import Pool, draws_each, fit_each
from seqlatent.training.likelihood.quasi_newton import minimise
from seqlatent.transitions import (
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
)


def structural(*parts, scale=0.5):
    transition = Sum(parts)
    emission = LinearGaussian(
        transition.latent_dim, loading=transition.loading, bias=False, scale=scale
    )
    return LatentModel(transition, emission, Kalman()).double()


PARTS = {
    "level": lambda: [LocalLevel(0.3)],
    "linear": lambda: [LocalLinearTrend(0.3, 0.05, learn_initial=True)],
    "linear-continuous": lambda: [LocalLinearTrend(0.3, 0.05, continuous=True)],
    "damped-season": lambda: [
        DampedTrend(learn_initial_scale=True),
        Seasonal(3, learn_initial_scale=True),
    ],
    "trigonometric": lambda: [
        LocalLinearTrend(0.3, None, learn_initial_scale=True),
        TrigonometricSeasonal(4, learn_initial_scale=True),
    ],
    "regression": lambda: [LocalLevel(), Regression([0], scale=0.1)],
}


def panel(batch=4, steps=25, *, seed=0, u=False, noise=0.5):
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, batch, steps, 1, generator=g, dtype=torch.float64)
    y = draw[0].cumsum(1) + noise * draw[1]
    cov = torch.randn(batch, steps, 1, generator=g, dtype=torch.float64) if u else None
    return Sequences.of(y, u=cov, codes=torch.arange(batch)[:, None])


def scattered(model, seed=0):
    """Gives every row of every table other values."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.4 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return model


def alone(name, model, row):
    """The shared model that has the parameters of one row."""
    single = structural(*PARTS[name]())
    state = {k: v[row] if v.ndim > 1 else v for k, v in model.state_dict().items()}
    single.load_state_dict(state)
    return single


@pytest.mark.parametrize("name", PARTS)
def test_each_row_is_the_shared_model_with_its_parameters(name):
    data = panel(3, u=name == "regression")
    model = scattered(per_series(structural(*PARTS[name]()), 3))
    together = evidence(model, data)
    future = data.u[:, :2] if data.covariate_dim else None
    mean, variance = moments(model, model.belief(data), 2, u=future)
    for row in range(3):
        single, one = alone(name, model, row), data.select(slice(row, row + 1))
        torch.testing.assert_close(
            evidence(single, one), together[row : row + 1], rtol=1e-10, atol=0
        )
        u = None if future is None else future[row : row + 1]
        m, v = moments(single, single.belief(one), 2, u=u)
        torch.testing.assert_close((m[0], v[0]), (mean[row], variance[row]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_the_evidence_is_that_of_every_sampled_path(name, generator):
    data = panel(3, 8, u=name == "regression")
    model = scattered(per_series(structural(*PARTS[name]()), 3))
    found = elbo(model, data, samples=3, generator=generator)
    torch.testing.assert_close(found, evidence(model, data), rtol=1e-8, atol=1e-8)


def test_matrices_differ_between_series_and_not_between_steps():
    model = per_series(structural(DampedTrend(), Seasonal(4)), 5)
    codes = torch.arange(5)[:, None, None].expand(5, 30, 1)
    c = Context.regular(5, 30, codes=codes, dtype=torch.float64)
    F, _, G = model.transition.matrices(c)
    assert F.shape == (5, 1, 5, 5)
    assert G.shape == (5, 1, 5, 3)
    assert model.emission.matrices(c)[2].shape == (5, 1, 1, 1)
    same = c.replace(codes=torch.full_like(codes, 5))
    assert model.transition.matrices(same)[0].shape == (1, 1, 5, 5)


def test_a_series_that_was_not_there_reads_the_pooled_row():
    data = panel(3)
    model = scattered(per_series(structural(*PARTS["level"]()), 3))
    new = Sequences.of(data.y[:1], codes=torch.tensor([[3]]))
    expected = evidence(alone("level", model, 3), data.select(slice(0, 1)))
    torch.testing.assert_close(evidence(model, new), expected)
    wrong = Sequences.of(data.y[:1], codes=torch.tensor([[4]]))
    with pytest.raises(ValueError, match="found the code 4; a series that was not fitted reads"):
        evidence(model, wrong)
    with pytest.raises(ValueError, match="first static code names"):
        evidence(model, Sequences.of(data.y[:1]))


def test_rows_survive_saving_selecting_and_updating():
    data = panel(4, 20)
    model = scattered(per_series(structural(*PARTS["damped-season"]()), 4))
    again = per_series(structural(*PARTS["damped-season"]()), 4)
    again.load_state_dict(model.state_dict())
    index = torch.tensor([2, 0])
    whole = again.belief(data).select(index)
    before = again.belief(data.window(0, 15).select(index))
    updated = again.update(before, data.select(index).window(15, 20))
    torch.testing.assert_close(updated.latest.mean, whole.latest.mean)
    paths = again.forecast(whole, 3, n=2000, generator=torch.Generator().manual_seed(1)).y
    mean, variance = moments(again, whole, 3)
    torch.testing.assert_close(paths.mean(0), mean, rtol=0, atol=0.3)
    torch.testing.assert_close(paths.std(0), variance.sqrt(), rtol=0.1, atol=0)


def test_it_finds_the_maximum_that_statsmodels_finds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm = pytest.importorskip("statsmodels.api")
    data = panel(3, 80, noise=1.0)
    model = per_series(structural(LocalLevel(0.3, initial_scale=1e3)), 3)
    none = torch.zeros(2, dtype=torch.float64)
    broad = Pool(none, 1e4 * torch.eye(2, dtype=torch.float64), none)
    history = fit_each(model, data, pool=broad, tolerance=1e-9, points=32, rounds=200)
    assert bool(history.converged.all())
    for b in range(3):
        reference = sm.tsa.UnobservedComponents(data.y[b, :, 0].numpy(), level="llevel")
        reference.ssm.initialize_known([0.0], [[1e6]])
        reference.loglikelihood_burn = 0
        best = reference.fit(disp=False, maxiter=500, method="lbfgs", pgtol=1e-8)
        assert history.evidence[b].item() == pytest.approx(best.llf, abs=2e-3)
    torch.testing.assert_close(evidence(model, data).detach(), history.evidence, rtol=1e-8, atol=0)


def test_every_series_stops_when_its_own_next_step_is_not_worth_while():
    target = torch.tensor([[0.0, 0.0], [3.0, -2.0], [50.0, 7.0]], dtype=torch.float64)
    asked = []

    def bowl(index, x):
        asked.append(index.tolist())
        away = x - target[index]
        steep = torch.tensor([1.0, 9.0], dtype=x.dtype)
        return (steep * away**2).sum(-1) / 2, steep * away

    eye = torch.eye(2, dtype=torch.float64)
    found = minimise(bowl, torch.zeros_like(target), eye, rounds=200, tolerance=1e-12)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, target, rtol=0, atol=1e-5)
    assert found.rounds[0] == 1 < found.rounds[1] < found.rounds[2] == len(asked)
    assert asked[-1] == [2]
    inverse = torch.diag(torch.tensor([1.0, 1 / 9], dtype=torch.float64))
    torch.testing.assert_close(found.inverse[2], inverse, rtol=0, atol=0.02)


def test_a_descent_turns_back_from_what_is_not_finite():
    def wall(index, x):
        outside = x[:, 0] <= 0
        value = torch.where(outside, torch.nan, x[:, 0] - x[:, 0].log())
        return value, 1 - 1 / x

    start = torch.tensor([[5.0]], dtype=torch.float64)
    steep = 10 * torch.eye(1, dtype=torch.float64)
    found = minimise(wall, start, steep, rounds=60, tolerance=1e-12, longest=20.0)
    assert found.x.item() == pytest.approx(1.0, abs=1e-4)


def test_the_pooled_distribution_is_learned_and_short_series_follow_it():
    g = torch.Generator().manual_seed(0)
    level = 0.5 * torch.exp(0.1 * torch.randn(60, 1, generator=g, dtype=torch.float64))
    eps = torch.randn(2, 60, 60, generator=g, dtype=torch.float64)
    y = ((level * eps[0]).cumsum(1) + eps[1])[..., None]
    y[0, 4:] = torch.nan
    data = Sequences.of(y, codes=torch.arange(60)[:, None])
    model = per_series(structural(LocalLevel(0.1, initial_scale=10.0), scale=0.3), 60)
    history = fit_each(model, data, points=16)
    pooled = history.pool.parameters(history.pool.mean).exp()
    assert pooled[0].item() == pytest.approx(0.5, rel=0.25)
    assert pooled[1].item() == pytest.approx(1.0, rel=0.15)
    table = next(model.transition.parameters()).detach()
    expected = history.pool.parameters(history.pool.mean)
    torch.testing.assert_close(table[-1], expected[:1])
    sd = history.pool.cov.diagonal().sqrt()
    assert bool(((history.mode[0] - history.pool.mean).abs() < sd).all())
    assert history.stopped == "converged"
    assert history.objective[-1] == pytest.approx(
        (history.evidence + history.pool.log_prob(history.mode)).sum().item()
        / int(data.observed.sum())
    )


def test_the_same_seed_gives_the_same_rows_and_no_global_generator_moves():
    data = panel(4)
    state = torch.random.get_rng_state()
    rows = []
    for seed in (0, 0, 1):
        model = per_series(structural(LocalLevel(0.3)), 4)
        history = fit_each(model, data, seed=seed, stages=2, sample=2, points=8)
        drawn = draws_each(model, data, history, 3, seed=seed)
        rows.append([p.detach() for m in drawn for p in m.parameters()])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(rows[0], rows[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(rows[0], rows[2], strict=True))


def test_draws_stand_on_opposite_sides_of_the_mode():
    data = panel(3)
    model = per_series(structural(LocalLevel(0.3)), 3)
    history = fit_each(model, data, stages=1, points=8)
    table = next(model.transition.parameters()).detach()
    up, down = (
        next(m.transition.parameters()).detach() for m in draws_each(model, data, history, 2)
    )
    torch.testing.assert_close((up + down) / 2, table, rtol=0, atol=0.1)
    assert bool(((up - table) * (down - table) < 0)[:-1].all())
    (only,) = draws_each(model, data, history, 1)
    torch.testing.assert_close(next(only.transition.parameters()).detach(), table)


@pytest.mark.parametrize("scale", [1e-8, 1e12])
def test_rescaled_data_give_the_same_parameters(scale):
    data = panel(3)
    big = Sequences.of(
        data.y * scale, codes=data.codes, scale=torch.full((3, 1), scale, dtype=torch.float64)
    )
    models = [per_series(structural(LocalLevel(0.3)), 3) for _ in range(2)]
    first, second = (
        fit_each(models[0], data, stages=1, points=8),
        fit_each(models[1], big, stages=1, points=8),
    )
    torch.testing.assert_close(first.mode, second.mode, rtol=1e-5, atol=1e-7)


def test_constant_short_and_empty_series_are_fitted():
    y = torch.full((4, 12, 1), torch.nan, dtype=torch.float64)
    y[0] = 5.0
    y[1, :1] = 3.0
    y[2, [2, 5]] = 1.0
    data = Sequences.of(y, codes=torch.arange(4)[:, None])
    model = per_series(structural(DampedTrend(learn_initial_scale=True)), 4)
    history = fit_each(model, data, stages=2, points=8)
    assert bool(history.mode.isfinite().all())
    mean, variance = moments(model, model.belief(data), 3)
    assert bool(mean.isfinite().all())
    assert bool((variance > 0).all())


def test_float32_stays_float32():
    data = panel(2).to(dtype=torch.float32)
    history = fit_each(per_series(zoo.structural(), 2), data, stages=1, points=8)
    assert history.mode.dtype == torch.float32


@pytest.mark.parametrize(
    ("codes", "keywords", "message"),
    [
        ([[0], [0]], {}, "found the code 0 twice"),
        ([[0], [2]], {}, "rows of 2 series, found the code 2"),
        (None, {}, "found no codes"),
        ([[0], [1]], {"stages": 0}, "stages must be an integer of at least 1, found 0"),
        ([[0], [1]], {"points": 0}, "points must be an integer"),
        ([[0], [1]], {"tolerance": 0}, "tolerance must be a positive number"),
    ],
)
def test_bad_input_is_refused(codes, keywords, message):
    codes = None if codes is None else torch.tensor(codes)
    data = Sequences.of(torch.zeros(2, 5, 1), codes=codes)
    with pytest.raises(ValueError, match=message):
        fit_each(per_series(zoo.structural(), 2), data, **keywords)


def test_models_without_rows_are_refused():
    data = Sequences.of(torch.zeros(2, 5, 1), codes=torch.arange(2)[:, None])
    with pytest.raises(ValueError, match="make them with per_series"):
        fit_each(zoo.structural(), data)
    with pytest.raises(ValueError, match="series must be a number of series"):
        per_series(zoo.structural(), 0)
    with pytest.raises(ValueError, match="already"):
        per_series(per_series(zoo.structural(), 2), 2)
    with pytest.raises(TypeError, match="is OrnsteinUhlenbeck, whose parameters all series share"):
        per_series(structural(LocalLevel(), OrnsteinUhlenbeck(1)), 2)
    with pytest.raises(TypeError, match="with a loading"):
        per_series(LatentModel(LocalLevel(), LinearGaussian(1), Kalman()), 2)
