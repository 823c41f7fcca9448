"""Every component, and sums of them, against statsmodels, from a diffuse start.

Log likelihood, filtered, predicted and smoothed states, and forecasts, with missing values also
before the first state is determined.
"""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqlatent import kalman, objectives
from seqlatent.emissions.linear import LinearGaussian as Observation
from seqlatent.inference import Kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.model import LatentModel
from seqlatent.model.predictive import moments
from seqlatent.sequences import Sequences
from seqlatent.transitions import (
    AR,
    Cycle,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
)

structural = pytest.importorskip("statsmodels.tsa.statespace.structural")
Initialization = pytest.importorskip("statsmodels.tsa.statespace.initialization").Initialization

CLOSE = {"rtol": 1e-7, "atol": 1e-8}
STEPS, AHEAD = 40, 5
inf = math.inf
NOISE, LEVEL, SLOPE, SEASON, WAVE = 0.7, 0.5, 0.1, 0.3, 0.2


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def level(scale=LEVEL):
    return LocalLevel(scale, initial_scale=inf)


def trend(level=LEVEL, slope=SLOPE):
    return LocalLinearTrend(level, slope, initial_scale=inf, initial_slope_scale=inf)


def season(period, scale=SEASON):
    return Seasonal(period, scale, initial_scale=inf)


def waves(period, harmonics, scale=WAVE):
    return TrigonometricSeasonal(period, harmonics, scale, initial_scale=inf)


def regression(*columns):
    return Regression(columns, initial_scale=inf)


CYCLE = {"cycle": True, "stochastic_cycle": True, "damped_cycle": True}

# name -> theirs, ours, whether an observation has noise of its own
CASES = {
    "fixed intercept": ({"level": "fixed intercept"}, lambda: [level(None)], True),
    "deterministic constant": ({"level": "dconstant"}, lambda: [level(None)], True),
    "local level": ({"level": "llevel"}, lambda: [level()], True),
    "random walk": ({"level": "rwalk"}, lambda: [level()], False),
    "fixed slope": ({"level": "fixed slope"}, lambda: [trend(None, None)], True),
    "deterministic trend": ({"level": "dtrend"}, lambda: [trend(None, None)], True),
    "local linear deterministic trend": (
        {"level": "lldtrend"},
        lambda: [trend(LEVEL, None)],
        True,
    ),
    "random walk with drift": ({"level": "rwdrift"}, lambda: [trend(LEVEL, None)], False),
    "local linear trend": ({"level": "lltrend"}, lambda: [trend()], True),
    "smooth trend": ({"level": "strend"}, lambda: [trend(None, SLOPE)], True),
    "random trend": ({"level": "rtrend"}, lambda: [trend(None, SLOPE)], False),
    "stochastic seasonal": (
        {"level": "llevel", "seasonal": 4},
        lambda: [level(), season(4)],
        True,
    ),
    "deterministic seasonal": (
        {"level": "lltrend", "seasonal": 4, "stochastic_seasonal": False},
        lambda: [trend(), season(4, None)],
        True,
    ),
    "long seasonal": (
        {"level": "rwalk", "seasonal": 12},
        lambda: [level(), season(12)],
        False,
    ),
    "few harmonics": (
        {"level": "lltrend", "freq_seasonal": [{"period": 7, "harmonics": 2}]},
        lambda: [trend(), waves(7, 2)],
        True,
    ),
    "fixed harmonics": (
        {
            "level": "llevel",
            "freq_seasonal": [{"period": 9.5, "harmonics": 3}],
            "stochastic_freq_seasonal": [False],
        },
        lambda: [level(), waves(9.5, 3, None)],
        True,
    ),
    "cycle": (
        {"level": "llevel", **CYCLE},
        lambda: [level(), Cycle(11.0, 0.4, damping=0.9, initial_scale=inf)],
        True,
    ),
    "stationary cycle": (
        {"level": "llevel", **CYCLE, "stationary": (1, 3)},
        lambda: [level(), Cycle(11.0, 0.4, damping=0.9)],
        True,
    ),
    "fixed cycle": (
        {"level": "llevel", "cycle": True},
        lambda: [level(), Cycle(11.0, None, damping=None, initial_scale=inf)],
        True,
    ),
    "autoregression": (
        {"level": "llevel", "autoregressive": 2},
        lambda: [level(), AR(2, 0.6, coefficients=(0.5, 0.2))],
        True,
    ),
    "regression": (
        {"level": "llevel", "exog": 2},
        lambda: [level(), regression(0, 1)],
        True,
    ),
    "trend, season, autoregression and regression": (
        {"level": "lltrend", "seasonal": 4, "autoregressive": 1, "exog": 1},
        lambda: [trend(), season(4), AR(1, 0.6, coefficients=(0.5,)), regression(0)],
        True,
    ),
    "smooth trend, season, cycle": (
        {"level": "strend", "seasonal": 4, **CYCLE, "stationary": (5, 7)},
        lambda: [trend(None, SLOPE), season(4), Cycle(11.0, 0.4, damping=0.9)],
        True,
    ),
}

VALUES = {
    "sigma2.irregular": NOISE**2,
    "sigma2.level": LEVEL**2,
    "sigma2.trend": SLOPE**2,
    "sigma2.seasonal": SEASON**2,
    "sigma2.freq_seasonal_7(2)": WAVE**2,
    "sigma2.cycle": 0.4**2,
    "frequency.cycle": 2 * math.pi / 11,
    "damping.cycle": 0.9,
    "sigma2.ar": 0.6**2,
    "ar.L2": 0.2,
    "ar.L1": 0.5,
}


def data(columns, missing, scale=1.0):
    rng = np.random.default_rng(0)
    t = np.arange(STEPS)
    y = scale * (np.cumsum(rng.normal(size=STEPS)) + 3 * np.sin(t * 2 * np.pi / 4) + 0.2 * t)
    y[list(missing)] = np.nan
    return y, rng.normal(size=(STEPS + AHEAD, columns))


def their_model(name, y, u):
    options = dict(CASES[name][0])
    stationary = options.pop("stationary", None)
    if options.pop("exog", 0):
        options |= {"exog": u[:STEPS], "mle_regression": False}
    with warnings.catch_warnings():  # they add noise where there is none at all
        warnings.simplefilter("ignore", structural.SpecificationWarning)
        theirs = structural.UnobservedComponents(y, use_exact_diffuse=True, **options)
    if stationary is not None:  # a cycle, which is diffuse by default
        start = Initialization(theirs.k_states)
        start.set((0, stationary[0]), "diffuse")
        start.set(stationary, "stationary")
        theirs.ssm.initialization = start
    theirs.ssm.tolerance = 0  # or covariances that hardly change are held fixed
    return theirs


def our_model(name):
    _, components, noisy = CASES[name]
    transition = Sum(components())
    emission = Observation(
        transition.latent_dim,
        1,
        loading=transition.loading,
        bias=False,
        scale=NOISE if noisy else None,
    )
    return LatentModel(transition, emission, Kalman())


def path(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 0)))


@pytest.mark.parametrize("missing", [(), (1, 2, 5, 20), (0, 3, 4, 39)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_everything_is_what_statsmodels_gives(name, missing):
    y, u = data(CASES[name][0].get("exog", 0), missing)
    theirs, model = their_model(name, y, u), our_model(name)
    result = theirs.smooth([VALUES[p] for p in theirs.param_names])
    found = result.filter_results
    smoothed = result.smoother_results
    start = found.nobs_diffuse
    sequences = Sequences.of(
        torch.from_numpy(y)[None, :, None], u=torch.from_numpy(u[None, :STEPS])
    )
    with torch.no_grad():
        filtered, predicted = model.filter(sequences), model.inference.predict(model, sequences)
        ours = model.smooth(sequences)
        evidence = objectives.evidence(model, sequences)
    assert_close(evidence, torch.tensor([found.llf_obs.sum()]), **CLOSE)
    assert_close(filtered.log_evidence[0], torch.from_numpy(found.llf_obs), **CLOSE)
    assert_close(filtered.mean[0, start:], path(found.filtered_state)[start:], **CLOSE)
    assert_close(
        filtered.marginals.covariance_matrix[0, start:],
        path(found.filtered_state_cov)[start:],
        **CLOSE,
    )
    assert_close(predicted.mean[0, start:], path(found.predicted_state)[start:-1], **CLOSE)
    assert_close(
        predicted.marginals.covariance_matrix[0, start:],
        path(found.predicted_state_cov)[start:-1],
        **CLOSE,
    )
    assert_close(ours.mean[0], path(smoothed.smoothed_state), **CLOSE)
    assert_close(ours.marginals.covariance_matrix[0], path(smoothed.smoothed_state_cov), **CLOSE)
    # a state is finite as soon as theirs has no diffuse part left
    left = path(found.predicted_diffuse_state_cov)[1 : start + 1].diagonal(dim1=-2, dim2=-1)
    if theirs.ssm["transition"].shape[0] <= 2:
        F = torch.from_numpy(theirs.ssm["transition"])
        variance = filtered.variance[0, :start].isinf().double()
        assert torch.equal((variance @ F.T.abs() > 0), left > 1e-9)
    ahead = result.get_forecast(AHEAD, exog=u[STEPS:] if u.shape[1] else None)
    later = torch.from_numpy(u[None, STEPS:])
    belief = model.belief(sequences, end=True)
    mean, variance = moments(model, belief, AHEAD, u=later if u.shape[1] else None)
    assert_close(mean[0, :, 0], torch.from_numpy(np.asarray(ahead.predicted_mean)), **CLOSE)
    assert_close(variance[0, :, 0], torch.from_numpy(np.asarray(ahead.var_pred_mean)), **CLOSE)


@pytest.mark.parametrize("name", ["local linear trend", "autoregression", "long seasonal"])
def test_a_panel_of_series_that_miss_different_values(name):
    patterns = [(), (0,), (1, 2, 5), (0, 1, 2, 3), tuple(range(8))]
    rows = [data(0, missing)[0] for missing in patterns]
    sequences = Sequences.of(torch.from_numpy(np.stack(rows))[..., None])
    model = our_model(name)
    evidence = objectives.evidence(model, sequences)
    for y, found in zip(rows, evidence, strict=True):
        theirs = their_model(name, y, None)
        expected = theirs.loglike([VALUES[p] for p in theirs.param_names])
        assert_close(found.item(), expected, **CLOSE)


@pytest.mark.parametrize("name", ["local linear trend", "stochastic seasonal"])
def test_the_gradient_of_the_likelihood(name):
    y, _ = data(0, (1, 2, 20))
    theirs, model = their_model(name, y, None), our_model(name)
    objectives.evidence(model, Sequences.of(torch.from_numpy(y)[None, :, None])).backward()
    ours = {
        "sigma2.irregular": model.emission.noise.log_scale,
        "sigma2.level": getattr(model.transition.components[0], "log_level_scale", None),
    }
    if ours["sigma2.level"] is None:
        ours["sigma2.level"] = model.transition.components[0].log_scale
    for name, parameter in ours.items():
        values = np.array([VALUES[p] for p in theirs.param_names])
        at, step = theirs.param_names.index(name), 1e-5
        more, less = values.copy(), values.copy()
        more[at] *= math.exp(2 * step)
        less[at] *= math.exp(-2 * step)
        slope = (theirs.loglike(more) - theirs.loglike(less)) / (2 * step)
        assert_close(parameter.grad.item(), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("run", [kalman.filter, kalman.filter_scan])
def test_two_observed_dimensions_with_correlated_noise(run):
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(size=(2, 25)), 1)
    y[0, [0, 4]], y[1, [0, 1, 9]] = np.nan, np.nan
    theirs = KalmanSmoother(k_endog=2, k_states=3)
    theirs.bind(np.asfortranarray(y))
    F = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 0.6]])
    H = np.array([[1.0, 0.0, 1.0], [0.5, 0.3, 0.0]])
    R, Q = np.array([[0.5, 0.2], [0.2, 0.4]]), np.diag([0.3, 0.1, 0.2])
    theirs["transition"], theirs["design"], theirs["selection"] = F, H, np.eye(3)
    theirs["obs_cov"], theirs["state_cov"], theirs.tolerance = R, Q, 0
    theirs.initialize_diffuse()
    theirs.filter_method = 16  # univariate, as they treat correlated noise of a diffuse state
    with warnings.catch_warnings():  # of disturbances, which are not compared
        warnings.simplefilter("ignore", UserWarning)
        expected = theirs.smooth()
    observed = torch.from_numpy(~np.isnan(y.T))
    F, H, R, Q = (torch.from_numpy(x) for x in (F, H, R, Q))
    zero, eye, data = torch.zeros(3), torch.eye(3), torch.from_numpy(np.nan_to_num(y.T))
    diffuse = torch.ones(3, dtype=torch.bool)
    system = LinearGaussianSystem(F, zero, Q, zero, eye, H, zero[:2], R, diffuse=diffuse)
    found = run(system, data, observed)
    assert_close(found.log_evidence, torch.from_numpy(expected.llf_obs.copy()), **CLOSE)
    start = expected.nobs_diffuse
    assert_close(found.cov[start:], path(expected.filtered_state_cov)[start:], **CLOSE)
    for smoother in (kalman.smoother, kalman.smoother_scan):
        smoothed = smoother(system, data, observed)
        assert_close(smoothed.mean, path(expected.smoothed_state), **CLOSE)
        assert_close(smoothed.cov, path(expected.smoothed_state_cov), **CLOSE)
