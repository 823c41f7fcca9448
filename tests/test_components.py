"""Every model of statsmodels' UnobservedComponents, and what all components have in common."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LinearGaussian as Reference
from reference import dense_posterior

from seqlatent import zoo
from seqlatent.emissions import LinearGaussian as Observation
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel, moments, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.training import fit_each
from seqlatent.transitions import (
    AR,
    Cycle,
    DampedTrend,
    FixedRegression,
    Innovations,
    Irregular,
    LocalLevel,
    LocalLinearTrend,
    Regression,
    Seasonal,
    Sum,
    TrigonometricSeasonal,
    distinct_harmonics,
    named_trend,
)

exact = {"rtol": 1e-10, "atol": 1e-10}

TRENDS = (
    "irregular",
    "fixed intercept",
    "deterministic constant",
    "local level",
    "random walk",
    "fixed slope",
    "deterministic trend",
    "local linear deterministic trend",
    "random walk with drift",
    "local linear trend",
    "smooth trend",
    "random trend",
)


class TestIrregular(TransitionContract):
    def build(self):
        return Irregular(0.4)

    def test_gaps_count_if_and_only_if_it_says_so(self):
        """It handles gaps because they mean nothing to it."""


class TestUndampedCycle(TransitionContract):
    def build(self):
        return Cycle(9.0, 0.3, damping=None, bounds=(7.0, 12.0), learn_initial=True)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestVagueCycle(TransitionContract):
    def build(self):
        return Cycle(9.0, 0.3, damping=0.9, initial_scale=2.0)


class TestFixedRegression(TransitionContract):
    def build(self):
        return FixedRegression([1, 0], coefficients=(0.5, -1.0))

    def small(self):
        return None

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=2)

    def test_gaps_count_if_and_only_if_it_says_so(self):
        """It handles gaps because they mean nothing to it."""


class TestChosenHarmonics(TransitionContract):
    def build(self):
        return TrigonometricSeasonal(12, (1, 3, 6), 0.3)

    def small(self):
        return TrigonometricSeasonal(12, (5,), 0.3)


# statsmodels -------------------------------------------------------------------------------------


def series(batch=1, steps=60, covariates=0, missing=0.2, codes=False):
    generator = torch.Generator().manual_seed(0)
    like = {"dtype": torch.float64, "generator": generator}
    y = torch.randn(batch, steps, 1, **like).cumsum(1)
    y[torch.rand(batch, steps, 1, generator=generator) < missing] = torch.nan
    u = torch.randn(batch, steps, covariates, **like)
    return Sequences.of(y, u=u, codes=torch.arange(batch)[:, None] if codes else None)


def parameters(model):
    """Returns our values under the names of statsmodels."""
    found = {"sigma2.irregular": model.emission.noise().item()}
    for part in model.transition.parts:
        square = {k[4:]: v.item() ** 2 for k, v in scales(part)}
        if isinstance(part, LocalLevel):
            found["sigma2.level"] = square.get("scale")
        elif isinstance(part, LocalLinearTrend):
            found |= {"sigma2.level": square.get("level_scale")}
            found |= {"sigma2.trend": square.get("slope_scale")}
        elif isinstance(part, Seasonal):
            found["sigma2.seasonal"] = square.get("scale")
        elif isinstance(part, TrigonometricSeasonal):
            name = f"freq_seasonal_{part.period}({part.harmonics})"
            found[f"sigma2.{name}"] = square.get("scale")
        elif isinstance(part, Cycle):
            found["sigma2.cycle"] = square.get("scale")
            found["frequency.cycle"] = 2 * math.pi / part.period.item()
            found["damping.cycle"] = part.damping.item()
        elif isinstance(part, AR):
            found["sigma2.ar"] = square["scale"]
            found |= {f"ar.L{i + 1}": x for i, x in enumerate(part.coefficients.tolist())}
        elif isinstance(part, FixedRegression):
            found |= {f"beta.x{i + 1}": x for i, x in enumerate(part.coefficients.tolist())}
        elif isinstance(part, Irregular):
            found["sigma2.irregular"] = square["scale"]
    return found


def scales(part):
    named = part.named_parameters(recurse=False)
    return [(k, v.exp()) for k, v in named if k.startswith("log_") and k.endswith("scale")]


def theirs(model, sequences, trend, **options):
    """Returns statsmodels' filter at our parameters, with our distribution of the first state."""
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    y = torch.where(sequences.observed, sequences.y, torch.nan)[0].numpy()
    exog = sequences.u[0].numpy() if sequences.u.shape[-1] else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = UnobservedComponents(y, trend, exog=exog, **options)
    values = parameters(model)
    theta = [values[name] for name in reference.param_names]
    m0, G0 = model.transition.initial_moments(model.context(sequences)[0])
    size = reference.k_states
    if not reference._unused_state:
        P0 = (G0 @ G0.mT).detach().numpy()[:size, :size]
        reference.ssm.initialize_known(m0.detach().reshape(-1).numpy()[:size], P0)
    reference.ssm.tolerance = 0
    return reference.filter(theta, transformed=True)


def agrees(model, sequences, trend, **options):
    model = model.double()
    reference = theirs(model, sequences, trend, **options)
    with torch.no_grad():
        found = model.filter(sequences).log_evidence[0].numpy()
    np.testing.assert_allclose(found, reference.llf_obs, rtol=1e-7, atol=1e-7)
    return reference


@pytest.mark.parametrize("trend", TRENDS)
def test_every_trend_agrees_with_statsmodels(trend):
    if trend.startswith("fixed"):  # theirs adds a noise, and a warning; an autoregression is one
        model = zoo.unobserved_components(trend, autoregressive=2, initial_scale=10.0)
        agrees(model, series(), trend, autoregressive=2)
    else:
        agrees(zoo.unobserved_components(trend, initial_scale=10.0), series(), trend)


CYCLES = {
    "damped and noisy": {"scale": 0.3, "damping": 0.9},
    "noisy": {"scale": 0.3, "damping": None},
    "damped": {"scale": None, "damping": 0.9, "initial_scale": 5.0},
    "neither": {"scale": None, "damping": None},
    "wide": {"scale": 0.3, "damping": 0.9, "initial_scale": 10.0},
    "bounded": {"scale": 0.3, "damping": 0.9, "bounds": (5.0, 20.0)},
}


@pytest.mark.parametrize("kind", CYCLES)
def test_every_cycle_agrees_with_statsmodels(kind):
    options = CYCLES[kind]
    model = zoo.unobserved_components(
        "local level", cycle=Cycle(11.0, **options), initial_scale=10.0
    )
    agrees(
        model,
        series(),
        "local level",
        cycle=True,
        stochastic_cycle=options["scale"] is not None,
        damped_cycle=options["damping"] is not None,
    )


@pytest.mark.parametrize("stochastic", [True, False])
def test_seasons_agree_with_statsmodels(stochastic):
    model = zoo.unobserved_components(
        "local level",
        season_length=4,
        stochastic_season=stochastic,
        freq_seasonal=[(7, 2), (30.5, 3)],
        stochastic_freq_seasonal=stochastic,
        initial_scale=10.0,
    )
    agrees(
        model,
        series(),
        "local level",
        seasonal=4,
        stochastic_seasonal=stochastic,
        freq_seasonal=[{"period": 7, "harmonics": 2}, {"period": 30.5, "harmonics": 3}],
        stochastic_freq_seasonal=[stochastic] * 2,
    )


@pytest.mark.parametrize("changes", [(False, True), (True, False), (False, False)])
def test_each_season_has_its_own_answer_whether_it_changes(changes):
    model = zoo.unobserved_components(
        "local level",
        freq_seasonal=[(12, 1), (5.347, 1)],
        stochastic_freq_seasonal=changes,
        initial_scale=10.0,
    )
    agrees(
        model,
        series(),
        "local level",
        freq_seasonal=[{"period": 12, "harmonics": 1}, {"period": 5.347, "harmonics": 1}],
        stochastic_freq_seasonal=list(changes),
    )


def test_answers_stay_with_their_seasons_where_one_has_no_harmonic_of_its_own():
    model = zoo.unobserved_components(
        None,
        freq_seasonal=[(24, 2), (48, 1), (12, 2)],
        stochastic_freq_seasonal=(True, True, False),
    )
    parts = {part.period: "scale=" in repr(part) for part in model.transition.parts}
    assert parts == {24: True, 48: True, 12: False}
    model = zoo.unobserved_components(
        None,
        freq_seasonal=[(24, 1), (12, 1), (12, 1)],
        stochastic_freq_seasonal=(True, False, True),
    )
    parts = {part.period: "scale=" in repr(part) for part in model.transition.parts}
    assert parts == {24: True, 12: False}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"stochastic_season": False}, ValueError, r"stochastic_freq_seasonal=False for the harm"),
        (
            {"stochastic_season": False, "freq_seasonal": [(12, 1)]},
            ValueError,
            r"season_length, which is None",
        ),
        (
            {"stochastic_freq_seasonal": False, "season_length": 4},
            ValueError,
            r"or stochastic_season=False for the pattern",
        ),
        (
            {"stochastic_freq_seasonal": [True, False], "freq_seasonal": [(12, 1)]},
            ValueError,
            r"one for each of freq_seasonal, found 2 for 1 seasons",
        ),
        ({"mle_regression": False}, ValueError, r"Give covariate_dim"),
    ],
)
def test_an_answer_about_a_part_that_is_not_there_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        zoo.unobserved_components("local level", **options)


def test_seasons_as_statsmodels_spells_them_are_refused_with_how_to_write_them():
    with pytest.raises(TypeError, match=r"like \(12, 2\), or \(12, None\).*found \{'period'"):
        zoo.exact._harmonics([{"period": 12, "harmonics": 1}], True)


def test_learned_coefficients_agree_with_statsmodels():
    sequences = series(covariates=2)
    model = zoo.unobserved_components(
        "local level", autoregressive=1, covariate_dim=2, initial_scale=10.0
    )
    with torch.no_grad():
        model.transition.parts[-1].coefficients.copy_(torch.tensor([0.7, -0.3]))
    agrees(model, sequences, "local level", autoregressive=1, mle_regression=True)


def test_coefficients_in_the_state_agree_with_statsmodels():
    model = zoo.unobserved_components(
        "local level", covariate_dim=2, mle_regression=False, initial_scale=10.0
    )
    agrees(model, series(covariates=2), "local level", mle_regression=False)


def test_everything_at_once_agrees_with_statsmodels():
    model = zoo.unobserved_components(
        "local linear trend",
        season_length=4,
        freq_seasonal=[(14, 2)],
        cycle=Cycle(20.0, 0.3, damping=0.9),
        autoregressive=2,
        covariate_dim=2,
        initial_scale=10.0,
    )
    agrees(
        model,
        series(covariates=2),
        "local linear trend",
        seasonal=4,
        freq_seasonal=[{"period": 14, "harmonics": 2}],
        cycle=True,
        stochastic_cycle=True,
        damped_cycle=True,
        autoregressive=2,
    )


def test_a_forecast_of_fixed_coefficients_agrees_with_statsmodels():
    sequences = series(covariates=1)
    model = zoo.unobserved_components("local level", covariate_dim=1, initial_scale=10.0)
    with torch.no_grad():
        model.transition.parts[-1].coefficients.fill_(0.7)
    reference = agrees(model, sequences, "local level", mle_regression=True)
    u = torch.randn(1, 5, 1, dtype=torch.float64)
    forecast = reference.get_forecast(5, exog=u[0].numpy())
    with torch.no_grad():
        mean, variance = moments(model, model.belief(sequences, end=True), 5, u=u)
    np.testing.assert_allclose(mean[0, :, 0], forecast.predicted_mean, rtol=1e-7)
    np.testing.assert_allclose(variance[0, :, 0], forecast.se_mean**2, rtol=1e-7)


# Laws --------------------------------------------------------------------------------------------


SUMS = {
    "irregular": (lambda: [Irregular(0.7)], None, False),
    "undamped cycle": (lambda: [LocalLevel(0.3), Cycle(9.0, damping=None)], 0.5, True),
    "fixed cycle": (
        lambda: [Cycle(9.0, None, damping=None, learn_initial=True), AR(1)],
        None,
        False,
    ),
    "bounded cycle": (lambda: [Irregular(0.2), Cycle(9.0, bounds=(8.0, 10.0))], 0.5, True),
    "regression": (lambda: [FixedRegression([1]), Regression([0], scale=0.2)], 0.5, True),
    "learned regression": (lambda: [FixedRegression([0, 1]), AR(3)], None, False),
    "harmonics": (
        lambda: [LocalLinearTrend(), TrigonometricSeasonal(12, (2, 5), None)],
        0.5,
        False,
    ),
    "smoothing and regression": (
        lambda: [Innovations(trend=True, season_length=4), FixedRegression([0])],
        None,
        False,
    ),
    "everything": (
        lambda: [DampedTrend(), Seasonal(4), Cycle(9.0), AR(2), FixedRegression([1]), Irregular()],
        0.5,
        False,
    ),
}


def build(name):
    parts, scale, irregular = SUMS[name]
    transition = Sum(parts())
    emission = Observation(
        transition.latent_dim, loading=transition.loading, bias=False, scale=scale
    )
    model = LatentModel(transition, emission, Kalman()).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model, irregular


def data(irregular=False, steps=14, batch=2, codes=False):
    found = series(batch, steps, covariates=2, missing=0.25, codes=codes)
    if not irregular:
        return found
    gaps = 0.3 + torch.rand(batch, steps, generator=torch.Generator().manual_seed(1)).double()
    options = {"observed": found.observed, "u": found.u, "t": gaps.cumsum(1)}
    return Sequences.of(found.y, codes=found.codes, **options)


def dense(model, one):
    """Returns the log density of what one series shows, jointly with everything."""
    c = model.context(one)
    F, b, G = model.transition.matrices(c)
    m0, G0 = model.transition.initial_moments(c[0])
    H, d, R = model.emission.matrices(c)
    F, G, H, R = (x[0] if x.ndim > 3 else x for x in (F, G, H, R))
    b = b[0] if b.ndim > 2 else b
    m0, G0 = (x[0] if x.ndim > n else x for x, n in ((m0, 1), (G0, 2)))
    system = Reference(F, b, G @ G.mT, m0, G0 @ G0.mT, H, d, R)
    return dense_posterior(system, one.normalised[0], one.observed[0]).log_evidence


def dense_each(model, sequences):
    each = [sequences.select(torch.tensor([i])) for i in range(sequences.batch)]
    return torch.stack([dense(model, one) for one in each])


@pytest.mark.parametrize("name", SUMS)
def test_the_evidence_is_that_of_the_joint_distribution(name):
    model, irregular = build(name)
    sequences = data(irregular)
    with torch.no_grad():
        torch.testing.assert_close(
            evidence(model, sequences), dense_each(model, sequences), **exact
        )


ANY = (
    lambda: LocalLevel(0.3),
    lambda: LocalLinearTrend(0.3, None, learn_initial=True),
    lambda: DampedTrend(None, 0.2),
    lambda: Seasonal(3, 0.2),
    lambda: TrigonometricSeasonal(5, (2,), None),
    lambda: Cycle(9.0),
    lambda: Cycle(7.0, damping=None),
    lambda: AR(2),
    lambda: Regression([0]),
    lambda: FixedRegression([1], coefficients=(0.5,)),
    lambda: Irregular(0.4),
    lambda: Innovations(trend=True, initial_scale=2.0),
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(ANY), min_size=1, max_size=4))
def test_any_sum_has_the_evidence_of_its_joint_distribution(kinds):
    transition = Sum([kind() for kind in kinds])
    emission = Observation(transition.latent_dim, loading=transition.loading, bias=False)
    model = LatentModel(transition, emission, Kalman()).double()
    sequences = data(steps=10)
    with torch.no_grad():
        found, expected = evidence(model, sequences), dense_each(model, sequences)
    torch.testing.assert_close(found, expected, **exact)


@pytest.mark.parametrize("name", SUMS)
def test_the_evidence_has_a_gradient(name):
    model, irregular = build(name)
    sequences = data(irregular, steps=8, batch=1)
    names = [f"model.{name}" for name, _ in model.named_parameters()]

    def value(*parameters):
        found = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(Evidence(model), found, (sequences,))

    start = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(value, start)


class Evidence(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sequences):
        return evidence(self.model, sequences)


@pytest.mark.parametrize("name", SUMS)
def test_series_may_have_rows_of_their_own(name):
    shared, irregular = build(name)
    model = per_series(build(name)[0], 3)
    sequences = data(irregular, batch=3, codes=True)
    with torch.no_grad():
        torch.testing.assert_close(evidence(model, sequences), evidence(shared, sequences), **exact)
        for p in model.parameters():
            assert len(p) == 4
            p[1] += 0.2
        found = evidence(model, sequences)
        torch.testing.assert_close(found, dense_each(model, sequences), **exact)
        apart = (found - evidence(shared, sequences)).abs() > 1e-6
        assert apart.tolist() == [False, True, False]
    assert repr(model)


def test_the_smoothed_states_of_a_model_without_a_prior_variance():
    """A fixed regression and white noise: the effect is known, the rest is what is left."""
    model, _ = build("learned regression")
    sequences = data()
    with torch.no_grad():
        states = model.smooth(sequences)
        effect = model.transition.parts[0].effect(model.context(sequences))
    torch.testing.assert_close(states.mean[..., :1], effect, **exact)
    torch.testing.assert_close(
        states.marginals.variance[..., 0], torch.zeros(2, 14).double(), rtol=0, atol=1e-12
    )


def test_each_series_is_fitted():
    sequences = series(3, 60, codes=True)
    model = zoo.unobserved_components("local level", cycle=Cycle(11.0), autoregressive=1)
    model = per_series(model.double(), 3)
    with torch.no_grad():
        before = evidence(model, sequences)
    history = fit_each(model, sequences, stages=1, points=8)
    assert (history.evidence > before).all()


def test_a_period_stays_within_its_bounds():
    cycle = Cycle(9.0, bounds=(7.0, 12.0))
    for value in (-30.0, 0.0, 30.0):
        with torch.no_grad():
            cycle.frequency_logit.fill_(value)
        assert 7.0 - 1e-4 <= cycle.period.item() <= 12.0 + 1e-4


def test_harmonics_of_a_day_and_a_week_do_not_repeat():
    day, week = distinct_harmonics([(24, None), (168, None)])
    assert day == (24, tuple(range(1, 13)))
    assert len(week[1]) == 84 - 12
    assert not any(j % 7 == 0 for j in week[1])
    model = zoo.unobserved_components("local level", freq_seasonal=[(168, 10), (24, 6)])
    assert [part.latent_dim for part in model.transition.parts] == [1, 18, 12]
    assert distinct_harmonics([(12, 6), (6, 3)]) == [(12, (1, 3, 5)), (6, (1, 2, 3))]
    assert distinct_harmonics([(12, 2), (12, 2)]) == [(12, (1, 2))]


def test_the_first_state_of_a_named_trend_is_as_wide_as_it_says():
    trend, noisy = named_trend("smooth trend", initial_scale=7.0)
    assert trend.initial_scale == (7.0, 7.0)
    assert noisy


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: named_trend("quadratic"), "trend must be one of irregular, fixed intercept"),
        (lambda: Irregular(0.0), "found scale 0 or None"),
        (lambda: Cycle(9.0, None), "needs a noise, found scale 0 or None; pass damping=None"),
        (lambda: Cycle(9.0, bounds=(1.0, 12.0)), "bounds must be two periods"),
        (lambda: Cycle(9.0, bounds=(10.0, 12.0)), "period must lie between its bounds"),
        (lambda: FixedRegression([]), "covariates must be indices of columns"),
        (lambda: FixedRegression([1, 1]), "covariates must not repeat"),
        (lambda: FixedRegression([1], coefficients=()), "1 covariates have as many"),
        (lambda: TrigonometricSeasonal(12, (3, 7)), r"1 to 6 harmonics, found \(3, 7\)"),
        (lambda: TrigonometricSeasonal(12, ()), r"1 to 6 harmonics, found \(\)"),
        (lambda: zoo.unobserved_components(None), "needs at least one component"),
        (lambda: zoo.unobserved_components("fixed slope"), "needs a noise"),
    ],
)
def test_bad_values_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_a_covariate_that_is_not_there_is_missed():
    with pytest.raises(ValueError, match="reads covariate 2, the first being 0"):
        FixedRegression([2]).matrices(context(1, 3, covariate_dim=1))


# Exactly diffuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trend", [name for name in TRENDS if "fixed" not in name])
def test_a_diffuse_start_agrees_with_statsmodels(trend):
    """A cycle stays damped and noisy there, but its first state is diffuse too."""
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    sequences = series(missing=0.1)
    model = zoo.unobserved_components(
        trend,
        season_length=4,
        freq_seasonal=[(7, 2)],
        cycle=Cycle(20.0, 0.3, damping=0.9, initial_scale=math.inf),
        autoregressive=1,
        initial_scale=math.inf,
    ).double()
    y = torch.where(sequences.observed, sequences.y, torch.nan)[0].numpy()
    reference = UnobservedComponents(
        y,
        trend,
        seasonal=4,
        freq_seasonal=[{"period": 7, "harmonics": 2}],
        cycle=True,
        stochastic_cycle=True,
        damped_cycle=True,
        autoregressive=1,
        use_exact_diffuse=True,
    )
    values = parameters(model)
    theta = [values[name] for name in reference.param_names]
    with torch.no_grad():
        found = evidence(model, sequences).item()
    assert found == pytest.approx(reference.loglike(theta, transformed=True), rel=1e-7)


def test_diffuse_coefficients_agree_with_statsmodels():
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    sequences = series(covariates=2, missing=0.1)
    model = zoo.unobserved_components(
        "local level", covariate_dim=2, mle_regression=False, initial_scale=math.inf
    ).double()
    y = torch.where(sequences.observed, sequences.y, torch.nan)[0].numpy()
    reference = UnobservedComponents(
        y,
        "local level",
        exog=sequences.u[0].numpy(),
        mle_regression=False,
        use_exact_diffuse=True,
    )
    values = parameters(model)
    theta = [values[name] for name in reference.param_names]
    with torch.no_grad():
        found = evidence(model, sequences).item()
    assert found == pytest.approx(reference.loglike(theta, transformed=True), rel=1e-7)
