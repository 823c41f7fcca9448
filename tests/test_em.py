"""Expectation maximisation: uphill at every step, and to the maximum that L-BFGS finds."""

import copy
import math

import pytest
import torch
from reference import LinearGaussian as System
from reference import dense_posterior, random_system

from seqlatent import zoo
from seqlatent.emissions import LinearGaussian as Emission
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import em, fit, lbfgs
from seqlatent.training.em.regressions import regressions
from seqlatent.training.em.scales import scales
from seqlatent.training.likelihood.parameter_vectors import Vectors
from seqlatent.transitions import (
    AR,
    Cycle,
    DampedTrend,
    LinearGaussian,
    LocalLevel,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
)

F64 = torch.float64


def structural(*parts, scale=0.5, bias=False):
    transition = Sum(parts)
    emission = Emission(transition.latent_dim, loading=transition.loading, bias=bias, scale=scale)
    return LatentModel(transition, emission, Kalman()).double()


def panel(batch=4, steps=50, *, seed=0, missing=0.1, t=None):
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(4, batch, steps, 1, generator=g, dtype=F64)
    y = (0.5 * draw[0] + (0.15 * draw[2]).cumsum(1)).cumsum(1) + draw[1]
    y[torch.rand(y.shape, generator=g) < missing] = torch.nan
    y[0, steps // 2 :] = torch.nan
    return Sequences.of(y, u=draw[3], codes=torch.arange(batch)[:, None], t=t)


def uphill(history):
    values = torch.tensor(history.objective)
    return bool((values[1:] >= values[:-1]).all())


def rises(model, data):
    """The evidence before and after a single step, without what accelerates it."""
    vectors = Vectors(model, data, "em")
    regress, taken = regressions(vectors)
    found, _ = scales(vectors, taken)
    theta, every = vectors.read(), torch.arange(len(vectors))
    before, gradient = vectors(every, theta)
    new = found.step(theta, gradient, every)
    if regress is not None:
        regress()
        moved = vectors.read()
        moved[:, found.columns] = new[:, found.columns]
        new = moved
    return before, vectors(every, new)[0]


PARTS = {
    "level": lambda: [LocalLevel(0.1)],
    "trend": lambda: [LocalLinearTrend(0.3, 0.1)],
    "continuous": lambda: [LocalLinearTrend(0.3, 0.1, continuous=True, learn_initial_scale=True)],
    "damped": lambda: [DampedTrend(learn_initial=True, learn_initial_scale=True)],
    "season": lambda: [LocalLevel(), Seasonal(4), Cycle(9.0)],
    "harmonics": lambda: [LocalLevel(), TrigonometricSeasonal(5, 2), AR(2)],
    "regression": lambda: [LocalLevel(), Regression([0], scale=0.1), OrnsteinUhlenbeck(1)],
}


@pytest.mark.parametrize("name", PARTS)
def test_a_step_of_every_structural_model_is_uphill(name):
    model = structural(*PARTS[name](), bias=True)
    for _ in range(3):
        before, after = rises(model, panel())
        assert bool(after > before)


def test_irregular_times():
    t = (0.3 + 2 * torch.rand(4, 50, dtype=F64)).cumsum(1)
    model = structural(LocalLinearTrend(0.3, 0.1, continuous=True), OrnsteinUhlenbeck(1))
    for _ in range(3):
        before, after = rises(model, panel(t=t))
        assert bool(after > before)


def test_variances_are_the_moments_that_the_posterior_has():
    """One step from a dense posterior of the noises of level and observation."""
    y = torch.randn(12, 1, dtype=F64).cumsum(0)
    y[3:5] = torch.nan
    model = structural(LocalLevel(0.7, initial_scale=3.0), scale=0.6)
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
    level, noise = ((2 * p.detach()).exp() * one for p in model.parameters())
    system = System(one, zero, level, zero, 9 * one, one, zero, noise)
    joint = dense_posterior(system, y.nan_to_num(), ~y.isnan())
    mean, cov, cross = joint.mean[:, 0], joint.cov[:, 0, 0], joint.cross[:, 0, 0]
    seen = ~y[:, 0].isnan()
    noise = ((y[:, 0] - mean) ** 2 + cov)[seen].mean()
    level = ((mean[1:] - mean[:-1]) ** 2 + cov[1:] + cov[:-1] - 2 * cross[1:]).mean()
    rises(model, Sequences.of(y[None]))
    (log_level,) = model.transition.parameters()
    assert (2 * log_level).exp().item() == pytest.approx(level.item(), rel=1e-8)
    log_noise = model.emission.noise.log_scale
    assert (2 * log_noise).exp().item() == pytest.approx(noise.item(), rel=1e-8)


def gaussian(latent_dim, obs_dim, *, correlated=False, diagonal=False, seed=0):
    model = LatentModel(
        LinearGaussian(latent_dim, diagonal=diagonal),
        Emission(latent_dim, obs_dim, correlated=correlated),
        Kalman(),
    ).double()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=g, dtype=F64)
    return model


def vectors_of(latent_dim, obs_dim, *, batch=5, steps=25, missing=0.2, seed=0):
    g = torch.Generator().manual_seed(seed)
    F, b, Q, m0, P0, H, d, R = random_system(latent_dim, obs_dim, generator=g)
    model = LatentModel(LinearGaussian.of(F, b, Q, m0, P0), Emission.of(H, d, R), Kalman()).double()
    empty = Sequences.of(torch.zeros(batch, steps, obs_dim, dtype=F64))
    y = model.rollout(empty, generator=g).y[0]
    y[torch.rand(y.shape, generator=g) < missing] = torch.nan
    y[1, steps // 2 :] = torch.nan
    y[2, 3:6] = torch.nan
    y[3] = torch.nan
    return Sequences.of(y)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_step_of_free_matrices_is_uphill(missing, correlated, diagonal):
    data = vectors_of(2, 3, missing=missing)
    model = gaussian(2, 3, correlated=correlated, diagonal=diagonal)
    for _ in range(5):
        before, after = rises(model, data)
        assert bool(after > before)


def test_a_step_ends_where_the_expected_joint_density_is_greatest():
    """Its gradient, by the posterior before the step, vanishes at the matrices after it."""
    data = vectors_of(2, 2, missing=0.3).select(torch.tensor([0, 1, 2, 4]))
    model = gaussian(2, 2, correlated=True)
    old = copy.deepcopy(model)
    with torch.no_grad():
        g = torch.Generator().manual_seed(3)
        z = old.posterior(data).rsample((4000,), generator=g)
    rises(model, data)
    last = data.last[:, None] >= torch.arange(25)
    joint = (model.log_joint(z, data) * last).sum((-1, -2)).mean()
    grads = torch.autograd.grad(joint, [model.transition.F, model.transition.b])
    before = (old.log_joint(z, data) * last).sum((-1, -2)).mean()
    reference = torch.autograd.grad(before, [old.transition.F, old.transition.b])
    for found, was in zip(grads, reference, strict=True):
        assert found.abs().max() < 0.1 * was.abs().max()


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: structural(LocalLevel(0.1), bias=True), lambda: panel()),
        (lambda: structural(LocalLinearTrend(0.5, 0.1)), lambda: panel()),
        (lambda: structural(LocalLevel(), Regression([0])), lambda: panel(seed=3)),
        (lambda: gaussian(1, 2), lambda: vectors_of(1, 2, steps=40)),
    ],
    ids=["level", "trend", "regression", "free"],
)
@pytest.mark.slow
def test_it_comes_to_the_maximum_of_lbfgs(make, data):
    model, other, data = make(), make(), data()
    history = em(model, data, steps=400)
    fit(other, data, evidence, optimizer=lbfgs(tolerance=1e-12), steps=100, device="cpu")
    assert uphill(history)
    assert history.stopped == "converged"
    found, best = (evidence(m, data).sum().item() for m in (model, other))
    assert found == pytest.approx(history.evidence.sum().item(), rel=1e-12)
    assert found > best - 1e-4
    assert history.objective[-1] * int(data.observed.sum()) == pytest.approx(found)


def test_it_comes_to_the_maximum_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    data = panel(1, 80, missing=0.0, seed=2).window(0, 40)
    model = structural(LocalLevel(0.3, initial_scale=1e3))
    em(model, data, steps=200)
    reference = sm.tsa.UnobservedComponents(data.y[0, :, 0].numpy(), level="llevel")
    reference.ssm.initialize_known([0.0], [[1e6]])
    reference.loglikelihood_burn = 0
    best = reference.fit(disp=False, maxiter=500)
    assert evidence(model, data).item() == pytest.approx(best.llf, abs=1e-4)


def test_a_diffuse_level_comes_to_the_maximum_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    data = panel(1, 40, missing=0.1, seed=4).window(0, 20)
    model = structural(LocalLevel(0.5, initial_scale=math.inf))
    history = em(model, data, steps=200)
    assert history.closed == tuple(n for n, _ in model.named_parameters())
    y = torch.where(data.observed, data.y, torch.nan)[0, :, 0].numpy()
    reference = sm.tsa.UnobservedComponents(y, level="llevel", use_exact_diffuse=True)
    best = reference.fit(disp=False, maxiter=500)
    assert evidence(model, data).item() == pytest.approx(best.llf, abs=1e-4)


def test_parameters_without_a_closed_form_are_named_and_move():
    model = structural(DampedTrend(0.3, 0.1, damping=0.5))
    history = em(model, panel(steps=30), steps=12)
    assert history.stepped == ("transition.components.0.damping_logit",)
    assert len(history.closed) == 3
    assert uphill(history)
    assert "stepped=['transition.components.0.damping_logit']" in repr(history)
    assert model.transition.components[0].damping_logit.sigmoid().item() != pytest.approx(0.5)


def test_what_is_not_learned_stays():
    model = gaussian(2, 2, correlated=True)
    fixed = [model.transition.F, model.transition.spread.log_scale, model.emission.d]
    for p in fixed:
        p.requires_grad_(False)
    kept = [p.clone() for p in fixed]
    history = em(model, vectors_of(2, 2), steps=10)
    assert all(torch.equal(a, b) for a, b in zip(kept, fixed, strict=True))
    assert history.fixed == ("transition.F", "transition.spread.log_scale", "emission.d")
    assert uphill(history)
    assert not torch.equal(model.transition.b, gaussian(2, 2, correlated=True).transition.b)


def test_directions_without_noise_stay_so():
    zero, one = torch.zeros(2, dtype=F64), torch.ones(1, 1, dtype=F64)
    F = torch.tensor([[0.3, 0.0], [1.0, 0.0]], dtype=F64)
    Q, eye = torch.diag(torch.tensor([2.0, 0.0], dtype=F64)), torch.eye(2, dtype=F64)
    H = torch.tensor([[1.0, 0.0]], dtype=F64)
    for R in (0.5 * one, 0 * one):
        transition = LinearGaussian.of(F, zero, Q, zero, eye, learn=True)
        transition.m0.requires_grad_(False)
        transition.spread.requires_grad_(False)
        model = LatentModel(transition, Emission.of(H, zero[:1], R), Kalman())
        history = em(model, panel(seed=1), steps=20)
        assert uphill(history)
        assert history.objective[-1] > history.objective[0] + 1e-3
        torch.testing.assert_close(model.transition.F[1], F[1])


def test_each_series_is_fitted_as_if_alone():
    data = panel(3, 40, missing=0.05)
    model = per_series(structural(LocalLevel(0.3)), 3)
    history = em(model, data, steps=200)
    assert uphill(history)
    assert bool(history.converged.all())
    assert history.rows.tolist() == [0, 1, 2]
    found = evidence(model, data)
    torch.testing.assert_close(found.detach(), history.evidence)
    for b in range(3):
        alone = structural(LocalLevel(0.3))
        em(alone, data.select(torch.tensor([b])), steps=200)
        best = evidence(alone, data.select(torch.tensor([b]))).item()
        assert found[b].item() == pytest.approx(best, abs=1e-4)
    table = next(model.transition.parameters())
    assert table[-1].exp().item() == pytest.approx(0.3)


def test_each_series_with_parameters_without_a_closed_form():
    model = per_series(structural(DampedTrend(0.3, 0.1)), 3)
    history = em(model, panel(3, 30), steps=8)
    assert uphill(history)
    assert history.stepped


@pytest.mark.parametrize("scale", [1e-8, 1e12])
def test_units_do_not_matter(scale):
    data = panel()
    y = torch.where(data.observed, data.y * scale, torch.nan)
    big = Sequences.of(y, scale=torch.full((4, 1), scale, dtype=F64))
    models = [structural(LocalLevel(0.3)) for _ in range(2)]
    for model, batch in zip(models, (data, big), strict=True):
        em(model, batch, steps=20)
    for p, other in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, other, rtol=1e-5, atol=1e-6)


def test_float32_and_a_short_series():
    model = structural(LocalLevel(0.3)).float()
    em(model, panel().to(dtype=torch.float32), steps=10)
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in model.parameters())
    model = structural(LocalLevel(0.3))
    em(model, Sequences.of(torch.ones(2, 1, 1, dtype=F64)), steps=5)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_bad_input_is_refused():
    data = Sequences.of(torch.zeros(2, 5, 1))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, found 0"):
        em(zoo.structural(), data, steps=0)
    with pytest.raises(ValueError, match="tolerance must be a number of at least 0"):
        em(zoo.structural(), data, tolerance=-1.0)
    with pytest.raises(ValueError, match="at least one observed cell"):
        em(zoo.structural(), Sequences.of(torch.full((2, 5, 1), torch.nan)))
    with pytest.raises(TypeError, match="whose inference is Kalman, found Amortised"):
        em(zoo.deep_markov(hidden_dim=4), data)
    frozen = zoo.structural().requires_grad_(False)
    with pytest.raises(ValueError, match="parameters that are learned, found none"):
        em(frozen, data)
    with pytest.raises(ValueError, match="train networks with fit"):
        em(zoo.deep_state(hidden_dim=32), data)
