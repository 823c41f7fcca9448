"""Posteriors of parameters: quadrature over a grid, and laws that hold for any model and rows."""

import copy
import math

import numpy as np
import pytest
import torch

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, moments, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import Pool, draws_each, fit_each, posterior_each, posterior_in_parts
from seqlatent.training.likelihood import parameter_posterior
from seqlatent.training.likelihood.population_prior import unbounded
from seqlatent.transitions import (
    AR,
    DampedTrend,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
)

FLOAT = torch.float64
KINDS = {
    "level": lambda: [LocalLevel(0.4, initial_scale=5.0)],
    "drift": lambda: [LocalLinearTrend(0.3, None, learn_initial_scale=True)],
    "damped": lambda: [DampedTrend(0.3, 0.05, learn_initial_scale=True)],
    "season": lambda: [LocalLevel(0.3), Seasonal(3, learn_initial_scale=True)],
    "reverting": lambda: [LocalLevel(None), AR(1, 0.5, coefficients=(0.8,))],
    "regression": lambda: [LocalLevel(0.3), Regression([0], scale=0.1)],
}


def structural(kind, batch, scale=0.5):
    transition = Sum(KINDS[kind]())
    emission = LinearGaussian(
        transition.latent_dim, loading=transition.loading, bias=False, scale=scale
    )
    return per_series(LatentModel(transition, emission, Kalman()).double(), batch)


def panel(batch, steps, *, seed=0, level=0.4, holes=0.0, u=False):
    g = torch.Generator().manual_seed(seed)
    eps = torch.randn(2, batch, steps, 1, generator=g, dtype=FLOAT)
    y = (level * eps[0]).cumsum(1) + eps[1]
    y[torch.rand(y.shape, generator=g) < holes] = torch.nan
    cov = torch.randn(batch, steps, 1, generator=g, dtype=FLOAT) if u else None
    return Sequences.of(y, u=cov, codes=torch.arange(batch)[:, None])


def fitted(kind, data, **keywords):
    model = structural(kind, data.batch)
    return model, fit_each(model, data, stages=2, points=8, **keywords)


@pytest.fixture(scope="module")
def small():
    """Two series, a level with two variances, and all parameters on a fine grid."""
    data = panel(2, 40)
    mean = torch.tensor([-1.0, 0.0], dtype=FLOAT)
    pool = Pool(mean, torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=FLOAT), mean)
    model, history = fitted("level", data, pool=pool)
    axes = [
        m + torch.linspace(-6, 6, 81, dtype=FLOAT) * v
        for m, v in zip(mean, (0.7, 0.55), strict=True)
    ]
    theta = torch.cartesian_prod(*axes)
    wide = structural("level", len(theta))
    with torch.no_grad():
        wide.transition.components[0].log_scale[:-1] = pool.parameters(theta)[:, :1]
        wide.emission.noise.log_scale[:-1] = pool.parameters(theta)[:, 1:]
    return data, model, history, theta, wide


def on_grid(small, b):
    """Weights of the grid for one series, its log evidence, and rows for the model of the grid."""
    data, _, history, theta, wide = small
    rows = data.select(torch.full((len(theta),), b))
    rows = Sequences.of(rows.y, codes=torch.arange(len(theta))[:, None])
    with torch.no_grad():
        value = evidence(wide, rows) + history.pool.log_prob(theta)
    cell = (theta[81] - theta[0])[0] * (theta[1] - theta[0])[1]
    return value.softmax(0), value.logsumexp(0) + cell.log(), rows


def test_means_under_the_posterior_are_those_of_quadrature(small):
    data, model, history, _, wide = small
    posterior = posterior_each(model, data, history, draws=8192)
    natural = posterior.natural(data)
    names = ["transition.components.0.variance", "emission.noise.variance"]
    assert sorted(natural) == sorted(names)
    mean, variance = posterior.moments(data, 4)
    predictive = posterior.predictive(data, 4)
    centre, cov = posterior.smooth(data)
    quantiles = posterior.quantiles(data, 4, [0.1, 0.9])
    for b in range(2):
        w, total, rows = on_grid(small, b)
        assert posterior.log_evidence[b].item() == pytest.approx(total.item(), abs=1e-3)
        exact = [
            (2 * wide.transition.components[0].log_scale[:-1, 0]).exp(),
            (2 * wide.emission.noise.log_scale[:-1, 0]).exp(),
        ]
        for name, value in zip(names, exact, strict=True):
            found = posterior.expect(natural[name])[b].item()
            assert found == pytest.approx((w * value).sum().item(), abs=1e-3)
        m, v = (x[..., 0] for x in moments(wide, wide.belief(rows), 4))
        middle = w @ m
        spread = w @ (v + (m - middle).square())
        torch.testing.assert_close(posterior.expect(mean)[b, :, 0], middle, rtol=0, atol=1e-3)
        torch.testing.assert_close(predictive.mean[b, :, 0], middle, rtol=0, atol=1e-3)
        torch.testing.assert_close(predictive.variance[b, :, 0], spread, rtol=1e-3, atol=1e-3)
        for q, level in zip(quantiles[:, b, :, 0], (0.1, 0.9), strict=True):
            below = w @ torch.special.ndtr((q - m) / v.sqrt())
            torch.testing.assert_close(below, torch.full_like(below, level), rtol=0, atol=1e-3)
        with torch.no_grad():
            states = wide.smooth(rows)
        z, P = states.mean[..., 0], states.marginals.covariance_matrix[..., 0, 0]
        torch.testing.assert_close(centre[b, :, 0], w @ z, rtol=0, atol=1e-3)
        exact = w @ (P + (z - w @ z).square())
        torch.testing.assert_close(cov[b, :, 0, 0], exact, rtol=2e-3, atol=1e-3)
    assert bool((posterior.shape < 0.7).all())
    assert bool((variance > 0).all())


def test_few_models_stand_for_many_draws(small):
    data, model, history, _, _ = small
    posterior = posterior_each(model, data, history)
    models = posterior.models(32)
    assert len(models) == 32
    mean = torch.stack([moments(m, m.belief(data), 4)[1] for m in models]).mean(0)
    whole = posterior.expect(posterior.moments(data, 4)[1])
    torch.testing.assert_close(mean, whole, rtol=0.05, atol=0)
    pooled = [p.detach()[-1] for p in model.parameters()]
    for drawn in models:
        for p, q in zip(drawn.parameters(), pooled, strict=True):
            assert torch.equal(p.detach()[-1], q)


def test_paths_are_draws_from_the_mixture(small):
    data, model, history, _, _ = small
    posterior = posterior_each(model, data, history)
    g = torch.Generator().manual_seed(0)
    paths = posterior.paths(data, 3, n=4000, generator=g)
    assert paths.shape == (4000, 2, 3, 1)
    predictive = posterior.predictive(data, 3)
    error = predictive.stddev / math.sqrt(4000)
    assert bool(((paths.mean(0) - predictive.mean).abs() < 4 * error).all())
    torch.testing.assert_close(paths.std(0), predictive.stddev, rtol=0.06, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_laws_of_any_model_and_rows(kind, seed):
    g = torch.Generator().manual_seed(seed)
    batch, steps = (int(torch.randint(a, b, (), generator=g)) for a, b in ((1, 6), (4, 40)))
    u = kind == "regression"
    data = panel(batch, steps, seed=seed, holes=0.2, u=u, level=float(seed))
    model, history = fitted(kind, data, seed=seed)
    before = copy.deepcopy(model.state_dict())
    posterior = posterior_each(model, data, history, draws=64, seed=seed)
    # the model is left as it is
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    weights = posterior.log_weights.exp()
    torch.testing.assert_close(weights.sum(0), torch.ones(batch, dtype=FLOAT))
    assert bool(posterior.theta.isfinite().all())
    assert bool((posterior.effective >= 1).all())
    told = (posterior.rounds > 0) == (posterior.shape <= 0.7)
    assert bool(told.all())
    # an unobserved tail says nothing
    longer = posterior_each(model, data.extend(3), history, draws=64, seed=seed)
    torch.testing.assert_close(longer.theta, posterior.theta, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(longer.log_weights.exp(), weights, rtol=1e-4, atol=1e-6)
    # each series is a problem of its own, wherever it stands
    order = torch.randperm(batch, generator=g)
    moved = copy.copy(history)
    for name in ("mode", "cov", "evidence"):
        setattr(moved, name, getattr(history, name)[order])
    other = posterior_each(model, data.select(order), moved, draws=64, seed=seed)
    torch.testing.assert_close(other.log_weights.exp(), weights[:, order], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.shape, posterior.shape[order], rtol=1e-4, atol=1e-4)
    # every draw is filtered under its own parameters
    future = torch.zeros(batch, 2, 1, dtype=FLOAT) if u else None
    mean, variance = posterior.moments(data, 2, u=future)
    row, s = torch.arange(batch), int(torch.randint(0, 64, (), generator=g))
    single = copy.deepcopy(model)
    widths = [p.shape[-1] for p in single.parameters()]
    with torch.no_grad():
        parts = posterior.theta[s].split(widths, -1)
        for p, part in zip(single.parameters(), parts, strict=True):
            p[row] = part
    expected = moments(single, single.belief(data), 2, u=future)
    torch.testing.assert_close((mean[s], variance[s]), expected, rtol=1e-8, atol=1e-8)


def test_without_rows_the_posterior_is_the_prior():
    data = panel(3, 12)
    data = Sequences.of(
        torch.where(torch.arange(3)[:, None, None] == 1, torch.nan, data.y), codes=data.codes
    )
    mean = torch.tensor([-0.5, 0.2], dtype=FLOAT)
    pool = Pool(mean, 0.25 * torch.eye(2, dtype=FLOAT), mean)
    model, history = fitted("level", data, pool=pool)
    posterior = posterior_each(model, data, history, draws=2048)
    theta = posterior.expect(posterior.theta)[1]
    torch.testing.assert_close(theta, mean, rtol=0, atol=5e-3)
    spread = posterior.expect((posterior.theta - theta).square())[1].sqrt()
    torch.testing.assert_close(spread, torch.full_like(spread, 0.5), rtol=0.03, atol=0)
    assert posterior.log_evidence[1].item() == pytest.approx(0.0, abs=5e-3)


def test_series_whose_weights_cannot_be_trusted_are_drawn_from_a_normal_distribution(monkeypatch):
    data = panel(2, 30)
    model, history = fitted("level", data)
    first = posterior_each(model, data, history)
    assert bool((first.rounds > 0).all())
    monkeypatch.setattr(parameter_posterior, "_TRUSTED", -10.0)
    lost = posterior_each(model, data, history)
    assert lost.rounds.tolist() == [0, 0]
    torch.testing.assert_close(lost.log_weights.exp(), torch.full((128, 2), 1 / 128).double())
    away = lost.theta.mean(0) - history.pool.parameters(history.mode)
    assert bool((away.abs() < 0.1).all())


def test_constant_short_and_empty_series_have_a_posterior():
    y = torch.full((4, 12, 1), torch.nan, dtype=FLOAT)
    y[0] = 5.0
    y[1, :1] = 3.0
    y[2, [2, 5]] = 1.0
    data = Sequences.of(y, codes=torch.arange(4)[:, None])
    model, history = fitted("damped", data)
    posterior = posterior_each(model, data, history)
    found = posterior.quantiles(data, 3, [0.1, 0.5, 0.9])
    assert bool(found.isfinite().all())
    assert bool((found.diff(dim=0) > 0).all())


def test_the_same_seed_gives_the_same_draws_and_no_global_generator_moves():
    data = panel(2, 20)
    model, history = fitted("drift", data)
    state = torch.random.get_rng_state()
    draws = [posterior_each(model, data, history, seed=s).theta for s in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_float32_stays_float32():
    data = panel(2, 20).to(dtype=torch.float32)
    model = structural("level", 2).float()
    history = fit_each(model, data, stages=1, points=8)
    posterior = posterior_each(model, data, history)
    assert posterior.theta.dtype == posterior.log_weights.dtype == torch.float32
    assert posterior.quantiles(data, 2, [0.5]).dtype == torch.float32


def test_bad_input_is_refused():
    data = panel(2, 20)
    model, history = fitted("level", data)
    with pytest.raises(ValueError, match="draws must be an integer of at least 8, found 4"):
        posterior_each(model, data, history, draws=4)
    free = fit_each(structural("level", 2), data, pooled=False)
    with pytest.raises(ValueError, match="needs the prior"):
        posterior_each(model, data, free)
    posterior = posterior_each(model, data, history)
    with pytest.raises(ValueError, match="of 2 series, found data of 1"):
        posterior.moments(data.select(slice(0, 1)), 2)
    with pytest.raises(ValueError, match=r"levels must lie in \(0, 1\)"):
        posterior.quantiles(data, 2, [0.0])
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        posterior.models(0)
    assert len(draws_each(model, data, history, 2)) == 2


def test_posteriors_of_some_series_at_a_time_are_those_of_all(monkeypatch):
    data = panel(7, 25, holes=0.1)
    model, history = fitted("damped", data)
    whole = posterior_each(model, data, history, draws=64)
    monkeypatch.setattr(parameter_posterior, "_PAIRS", 3 * 64)
    split = posterior_each(model, data, history, draws=64)
    for name in ("theta", "log_weights", "shape", "effective", "log_evidence"):
        expected = getattr(whole, name)
        torch.testing.assert_close(getattr(split, name), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(split.rounds, whole.rounds)
    assert torch.equal(split.row, whole.row)
    for index, part in posterior_in_parts(model, data, history, draws=64):
        assert len(index) <= 3
        expected = whole.representatives(8, seed=1)[:, index]
        torch.testing.assert_close(part.representatives(8, seed=1), expected, rtol=1e-5, atol=1e-5)
        few, least = data.select(index), whole.moments(data, 2)[0][:, index]
        torch.testing.assert_close(part.moments(few, 2)[0], least, rtol=1e-4, atol=1e-4)


def test_quantiles_of_parameters_are_those_of_quadrature(small):
    data, model, history, theta, _ = small
    levels = [0.025, 0.1, 0.5, 0.9, 0.975]
    found = posterior_each(model, data, history, draws=8192).marginals(levels)
    parameters = history.pool.parameters(theta)
    torch.testing.assert_close(unbounded(parameters, history.pool.centre), theta)
    for b in range(2):
        w, _, _ = on_grid(small, b)
        for p in range(2):
            x, inverse = parameters[:, p].unique(return_inverse=True)
            below = torch.zeros_like(x).index_add(0, inverse, w).cumsum(0)
            # a cell of the grid holds what lies half a step around it
            edges = torch.cat([(x[1:] + x[:-1]) / 2, x[-1:]])
            at = np.interp(found[:, b, p].numpy(), edges.numpy(), below.numpy())
            np.testing.assert_allclose(at, levels, atol=5e-3)
