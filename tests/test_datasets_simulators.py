"""Simulators: their moments are those of the distribution they document; randomness is private."""

import dataclasses
import functools
import math

import pytest
import torch
from torch.testing import assert_close

from seqlatent import kalman
from seqlatent.datasets import (
    exponential_gaps,
    linear_gaussian,
    lognormal_gaps,
    lorenz,
    pendulum,
    pendulum_images,
    seasonal_counts,
    stochastic_volatility,
    switching,
)
from seqlatent.datasets.physics import _flow

ALL = {
    "linear_gaussian": (linear_gaussian, 1, 2),
    "switching": (switching, 2, 2),
    "stochastic_volatility": (stochastic_volatility, 1, 1),
    "seasonal_counts": (seasonal_counts, 1, 1),
    "overdispersed_counts": (functools.partial(seasonal_counts, dispersion=0.3), 1, 1),
    "pendulum": (pendulum, 2, 2),
    "pendulum_images": (functools.partial(pendulum, images=True), 256, 2),
    "lorenz": (lorenz, 3, 3),
}
IRREGULAR = {k: v[0] for k, v in ALL.items() if k not in ("linear_gaussian", "switching")}

every = pytest.mark.parametrize(("simulate", "obs_dim", "latent_dim"), ALL.values(), ids=ALL)
double = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def covariance(x):
    x = x.reshape(-1, x.shape[-1])
    return x.mT @ x / len(x)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types(simulate, obs_dim, latent_dim, dtype):
    data = simulate(3, 12, generator=seeded(), dtype=dtype, missing=0.25)
    assert data.sequences.y.shape == data.complete.shape == (3, 12, obs_dim)
    assert data.states.shape == (3, 12, latent_dim)
    assert data.regimes.shape == (3, 12)
    assert data.regimes.dtype == torch.long
    floats = [data.sequences.y, data.complete, data.states]
    assert {x.dtype for x in [*floats, *data.parameters.values()]} == {dtype}
    assert data.sequences.t.dtype == torch.float64
    assert isinstance(data.density, str)


@every
def test_a_private_generator_leaves_the_global_one_alone(simulate, obs_dim, latent_dim):
    before = torch.random.get_rng_state()
    first = simulate(2, 8, generator=seeded(1), missing=0.3)
    again = simulate(2, 8, generator=seeded(1), missing=0.3)
    other = simulate(2, 8, generator=seeded(2), missing=0.3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.complete, again.complete)
    assert torch.equal(first.sequences.observed, again.sequences.observed)
    assert not torch.equal(first.states, other.states)


@every
def test_the_global_generator_is_the_default(simulate, obs_dim, latent_dim):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = simulate(2, 8)
        torch.manual_seed(5)
        assert torch.equal(first.complete, simulate(2, 8).complete)


@every
def test_missing_cells_hide_values_but_change_none(simulate, obs_dim, latent_dim):
    full = simulate(8, 100, generator=seeded())
    holes = simulate(8, 100, generator=seeded(), missing=0.4)
    assert torch.equal(full.complete, holes.complete)
    assert full.sequences.complete
    observed = holes.sequences.observed
    rate = 1 - observed.double().mean()
    assert abs(rate - 0.4) < 4 * math.sqrt(0.24 / observed.numel())
    assert torch.equal(holes.sequences.y, torch.where(observed, holes.complete, 0.0))


@pytest.mark.parametrize(
    "distribution", [True, exponential_gaps, functools.partial(lognormal_gaps, spread=1.0)]
)
@pytest.mark.parametrize("simulate", IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_times(simulate, distribution):
    data = simulate(4, 15, irregular=distribution, generator=seeded())
    t = data.sequences.t
    assert bool((t[:, 0] == 0).all())
    assert bool((t.diff(dim=1) > 0).all())
    assert not data.sequences.regular
    assert simulate(4, 15, generator=seeded()).sequences.regular


@pytest.mark.parametrize(
    ("distribution", "variance"), [(exponential_gaps, 1.0), (lognormal_gaps, math.exp(0.25) - 1)]
)
def test_gaps_have_mean_one(distribution, variance):
    gaps = distribution(200, 500, generator=seeded(), dtype=double)
    assert gaps.min() > 0
    assert abs(gaps.mean() - 1) < 4 * math.sqrt(variance / gaps.numel())
    assert_close(gaps.var(), torch.tensor(variance, dtype=double), rtol=0.05, atol=0)


def test_linear_gaussian_is_stationary_with_unit_variance():
    data = linear_gaussian(20_000, 6, latent_dim=3, obs_dim=2, generator=seeded(), dtype=double)
    eye = torch.eye(3, dtype=double)
    par = data.parameters
    assert_close(par["F"] @ par["F"].mT + par["Q"], eye)
    assert_close(par["P0"], eye)
    for t in (0, 5):
        assert_close(covariance(data.states[:, t]), eye, rtol=0, atol=0.05)


def test_linear_gaussian_follows_its_parameters():
    F = torch.tensor([[0.9, 0.3], [-0.2, 0.7]], dtype=double)
    b = torch.tensor([0.5, -1.0], dtype=double)
    Q = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=double)
    H = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]], dtype=double)
    d = torch.tensor([3.0, 0.0, 1.0], dtype=double)
    R = torch.diag(torch.tensor([0.1, 0.2, 0.0], dtype=double))
    data = linear_gaussian(2000, 30, F=F, b=b, Q=Q, H=H, d=d, R=R, generator=seeded())
    par, z = data.parameters, data.states
    assert z.dtype == double
    shock = z[:, 1:] - z[:, :-1] @ F.mT - b
    assert_close(covariance(shock), Q, rtol=0, atol=0.02)
    assert_close(
        (shock[:, 1:] * shock[:, :-1]).mean((0, 1)), torch.zeros(2, dtype=double), rtol=0, atol=0.02
    )
    noise = data.complete - z @ H.mT - d
    assert_close(covariance(noise), R, rtol=0, atol=0.01)
    assert noise[..., 2].abs().max() < 1e-12
    assert_close(F @ par["P0"] @ F.mT + Q, par["P0"])
    assert_close(F @ par["m0"] + b, par["m0"])
    for t in (0, 29):
        centred = z[:, t] - par["m0"]
        assert_close(covariance(centred), par["P0"], rtol=0, atol=0.3)
        assert_close(centred.mean(0), torch.zeros(2, dtype=double), rtol=0, atol=0.2)


def test_innovations_of_the_true_kalman_filter_are_white():
    data = linear_gaussian(500, 20, generator=seeded(3), dtype=double)
    F, H, Q, R, P = (data.parameters[k] for k in ("F", "H", "Q", "R", "P0"))
    m = data.parameters["m0"].expand(500, 2)
    standard = []
    for t in range(20):
        S = H @ P @ H.mT + R
        e = data.complete[:, t] - m @ H.mT
        standard.append(e / S.sqrt())
        K = P @ H.mT / S
        m = (m + e @ K.mT) @ F.mT
        P = F @ (P - K @ H @ P) @ F.mT + Q
    e = torch.cat(standard, 1)
    assert abs(e.mean()) < 4 / math.sqrt(e.numel())
    assert abs(e.var() - 1) < 4 * math.sqrt(2 / e.numel())
    assert abs((e[:, 1:] * e[:, :-1]).mean()) < 4 / math.sqrt(e.numel())


def test_the_parameters_are_a_linear_gaussian_system():
    data = linear_gaussian(50, 40, obs_dim=2, generator=seeded(), dtype=double, missing=0.2)
    y, observed = data.sequences.y, data.sequences.observed
    system = kalman.LinearGaussianSystem(**data.parameters)
    truth = kalman.filter(system, y, observed).log_evidence.sum(-1)
    assert truth.shape == (50,)
    for name in ("F", "Q", "H", "R"):
        wrong = dict(data.parameters) | {name: 0.6 * data.parameters[name]}
        system = kalman.LinearGaussianSystem(**wrong)
        assert truth.sum() > kalman.filter(system, y, observed).log_evidence.sum()


def test_linear_gaussian_walks_without_stationarity():
    data = linear_gaussian(
        3, 5, F=torch.eye(1), Q=torch.zeros(1, 1), P0=torch.zeros(1, 1), m0=torch.ones(1)
    )
    assert torch.equal(data.states, torch.ones(3, 5, 1))


def test_a_given_mean_goes_with_the_stationary_covariance():
    par = linear_gaussian(2, 3, F=torch.eye(1) / 2, m0=torch.ones(1)).parameters
    assert par["m0"].item() == 1
    assert_close(par["P0"], torch.tensor([[4 / 3]]))


def test_values_follow_the_device_and_type_of_what_is_given():
    for dtype in (torch.float32, double):
        assert lorenz(1, 2, H=torch.eye(3, dtype=dtype)).states.dtype == dtype
        assert linear_gaussian(1, 2, R=torch.eye(2, dtype=dtype)).states.dtype == dtype


def test_sizes_are_read_off_the_matrices():
    data = linear_gaussian(2, 5, H=torch.ones(3, 4))
    assert data.states.shape == (2, 5, 4)
    assert data.complete.shape == (2, 5, 3)
    assert linear_gaussian(2, 5, R=torch.eye(2), Q=torch.eye(5)).states.shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"F": torch.ones(2, 3)}, r"F must have shape \(3, 3\), found \(2, 3\)"),
        ({"F": torch.eye(2), "Q": torch.eye(3)}, r"Q must have shape \(2, 2\), found \(3, 3\)"),
        ({"F": torch.eye(2) / 2, "b": torch.ones(2, 1)}, r"b must have shape \(2,\)"),
        ({"F": torch.tensor(0.5)}, r"F must have shape \(2, 2\), found \(\)"),
        ({"H": torch.ones(1, 2), "R": torch.eye(2)}, r"R must have shape \(1, 1\)"),
        ({"F": torch.eye(2)}, r"F must be stable .* found 1; give P0"),
        ({"Q": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, "Q is a covariance and must be symmetric"),
        ({"Q": -torch.eye(2)}, "Q was expected to be positive semi-definite"),
        ({"P0": torch.full((2, 2), torch.nan)}, "P0 must be finite"),
        ({"F": 3 * torch.eye(1), "P0": torch.eye(1), "steps": 500}, "diverged; use fewer steps"),
    ],
)
def test_linear_gaussian_refuses_what_does_not_fit(given, match):
    with pytest.raises(ValueError, match=match):
        linear_gaussian(**given)


@pytest.mark.parametrize("regimes", [1, 2, 4])
def test_switching_follows_its_parameters(regimes):
    data = switching(400, 60, regimes=regimes, persistence=0.8, generator=seeded(), dtype=double)
    par, z, s = data.parameters, data.states, data.regimes
    assert_close(par["transition"].sum(1), torch.ones(regimes, dtype=double))
    assert set(s.unique().tolist()) == set(range(regimes))
    if regimes > 1:
        stay = (s[:, 1:] == s[:, :-1]).double().mean()
        assert abs(stay - 0.8) < 4 * math.sqrt(0.16 / s[:, 1:].numel())
    for k in range(regimes):
        here = s[:, 1:] == k
        shock = z[:, 1:][here] - z[:, :-1][here] @ par["F"][k].mT - par["b"][k]
        assert_close(covariance(shock), par["Q"][k], rtol=0, atol=0.05)
    assert_close(covariance(data.complete - z @ par["H"].mT), par["R"], rtol=0, atol=0.01)


@pytest.mark.parametrize("irregular", [False, True])
def test_volatility_follows_its_distribution(irregular):
    data = stochastic_volatility(
        300,
        80,
        rate=0.2,
        scale=0.8,
        mean=0.5,
        irregular=irregular,
        generator=seeded(),
        dtype=double,
    )
    z, gap = data.states[..., 0], data.sequences.dt[:, 1:]
    n = z[:, 1:].numel()
    for t in (0, 79):
        assert abs(z[:, t].mean() - 0.5) < 4 * 0.8 / math.sqrt(300)
        assert abs(z[:, t].std() - 0.8) < 4 * 0.8 / math.sqrt(600)
    a = torch.exp(-0.2 * gap)
    shock = (z[:, 1:] - 0.5 - a * (z[:, :-1] - 0.5)) / (0.8 * (1 - a**2).sqrt())
    assert abs(shock.mean()) < 4 / math.sqrt(n)
    assert abs(shock.var() - 1) < 4 * math.sqrt(2 / n)
    value = data.complete[..., 0] / torch.exp(z / 2)
    assert abs(value.var() - 1) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize("dispersion", [0.0, 0.5])
def test_counts_follow_their_distribution(dispersion):
    data = seasonal_counts(
        400, 48, dispersion=dispersion, level=2.0, irregular=True, generator=seeded(), dtype=double
    )
    par = data.parameters
    angle = 2 * math.pi * data.sequences.t / par["period"] - par["phase"][:, None]
    rate = torch.exp(par["level"][:, None] + par["amplitude"] * angle.cos() + data.states[..., 0])
    y = data.complete[..., 0]
    assert bool((y.frac() == 0).all())
    assert bool((y >= 0).all())
    pearson = (y - rate) / (rate + dispersion * rate**2).sqrt()
    assert abs(pearson.mean()) < 4 / math.sqrt(y.numel())
    assert abs(pearson.var() - 1) < 0.05


def energy(z):
    return z[..., 1] ** 2 / 2 - 9.81 * z[..., 0].cos()


def test_a_pendulum_without_friction_keeps_its_energy():
    data = pendulum(
        5, 100, damping=0.0, process_scale=0.0, irregular=True, generator=seeded(), dtype=double
    )
    e = energy(data.states)
    assert_close(e, e[:, :1].expand_as(e), rtol=0, atol=1e-3)
    assert data.states[..., 1].diff(dim=1).abs().max() > 0.1


def test_a_pendulum_with_friction_comes_to_rest():
    data = pendulum(5, 600, damping=1.0, process_scale=0.0, obs_scale=0.0, generator=seeded())
    assert_close(data.complete[:, -1], torch.tensor([0.0, 1.0]).expand(5, 2), rtol=0, atol=1e-3)


def test_pendulum_images_show_the_bob():
    angle = torch.tensor([0.0, math.pi / 2, math.pi, -math.pi / 2], dtype=double)
    image = pendulum_images(angle).view(4, 16, 16)
    weight = image - image.flatten(1).amin(1)[:, None, None]
    axis = (torch.arange(16, dtype=double) + 0.5) / 16 * 2.5 - 1.25
    down = (weight.sum(2) * axis).sum(1) / weight.sum((1, 2))
    across = (weight.sum(1) * axis).sum(1) / weight.sum((1, 2))
    assert_close(down, angle.cos(), rtol=0, atol=0.05)
    assert_close(across, angle.sin(), rtol=0, atol=0.05)
    assert image.min() >= 0.01
    assert image.max() <= 0.99


def test_pixels_are_bernoulli():
    data = pendulum(100, 50, images=True, generator=seeded(), dtype=double)
    p = pendulum_images(data.states[..., 0])
    residual = (data.complete - p) / (p * (1 - p)).sqrt()
    assert abs(residual.mean()) < 4 / math.sqrt(residual.numel())
    assert "obs_scale" not in data.parameters


def test_lorenz_stays_on_its_attractor():
    data = lorenz(20, 200, obs_scale=0.0, generator=seeded(), dtype=double)
    x, y, z = data.states.unbind(-1)
    assert torch.equal(data.complete, data.states)
    assert x.abs().max() < 25
    assert y.abs().max() < 35
    assert z.min() > 0
    assert z.max() < 55
    assert (x[:, 1:] * x[:, :-1] < 0).any()  # both wings are visited
    assert abs(z.mean() - 23.5) < 1.5


def test_lorenz_noise_and_observation_matrix():
    H = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    data = lorenz(50, 40, H=H, obs_scale=0.5, generator=seeded(), dtype=double)
    noise = data.complete - data.states @ H.mT.double()
    assert_close(covariance(noise), 0.25 * torch.eye(2, dtype=double), rtol=0, atol=0.03)
    quiet = lorenz(5, 3, step=1e-4, process_scale=0.0, generator=seeded(), dtype=double)
    loud = lorenz(5, 3, step=1e-4, process_scale=100.0, generator=seeded(), dtype=double)
    moved = (loud.states - quiet.states)[:, 1]
    assert 0.3 < moved.std() < 3  # 100 * sqrt(1e-4) = 1


def test_the_integrator_has_order_four():
    def drift(z):
        return torch.stack([z[:, 1], -z[:, 0].sin()], -1)

    z = torch.tensor([[1.0, 0.5]], dtype=double)
    gap = torch.ones(1, dtype=double)
    exact = _flow(drift, z, gap, longest=1e-3)
    errors = [(_flow(drift, z, gap, longest=h) - exact).norm() for h in (0.2, 0.1, 0.05)]
    assert 14 < errors[0] / errors[1] < 18
    assert 14 < errors[1] / errors[2] < 18


@every
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"batch": 0}, "batch must be at least 1, found 0"),
        ({"steps": 0}, "steps must be at least 1, found 0"),
        ({"missing": 1.0}, r"missing must be a rate in \[0, 1\), found 1.0"),
        ({"missing": -0.1}, r"missing must be a rate in \[0, 1\), found -0.1"),
        ({"missing": math.nan}, r"missing must be a rate"),
    ],
)
def test_sizes_and_rates_are_checked(simulate, obs_dim, latent_dim, wrong, match):
    with pytest.raises(ValueError, match=match):
        simulate(**wrong)


@pytest.mark.parametrize(
    ("simulate", "wrong", "match"),
    [
        (linear_gaussian, {"latent_dim": 0}, "latent_dim must be at least 1"),
        (switching, {"regimes": 0}, "regimes must be at least 1"),
        (switching, {"persistence": 1.0}, r"persistence must be a probability in \[0, 1\)"),
        (stochastic_volatility, {"rate": 0.0}, "rate must be positive and finite, found 0.0"),
        (stochastic_volatility, {"scale": -1.0}, "scale must be zero or positive"),
        (seasonal_counts, {"period": 0.0}, "period must be positive"),
        (seasonal_counts, {"dispersion": -0.1}, "dispersion must be zero or positive"),
        (pendulum, {"length": math.inf}, "length must be positive and finite, found inf"),
        (pendulum, {"damping": -1.0}, "damping must be zero or positive"),
        (lorenz, {"step": 0.0}, "step must be positive"),
        (lorenz, {"H": torch.ones(2, 2)}, r"H must have shape \(D, 3\).*found \(2, 2\)"),
        (lorenz, {"steps": 3, "process_scale": 1e30}, "diverged"),
    ],
)
def test_parameters_are_checked(simulate, wrong, match):
    with pytest.raises(ValueError, match=match):
        simulate(**wrong)


def test_other_checks():
    with pytest.raises(ValueError, match="spread must be positive"):
        lognormal_gaps(2, 2, spread=0.0)
    with pytest.raises(TypeError, match=r"dtype must be a floating type, found torch\.int64"):
        lorenz(dtype=torch.int64)


def test_results_are_frozen():
    data = linear_gaussian(1, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.density = ""
    assert repr(data).startswith("Simulated(sequences=Sequences(batch=1, steps=2")
    assert "tensor(" not in repr(data)
