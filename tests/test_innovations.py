"""Innovations forms of exponential smoothing, against statsmodels and against the recursions."""

import math
import warnings

import numpy as np
import pytest
import torch
from reference import LinearGaussian as Reference
from reference import dense_posterior

from seqlatent import zoo
from seqlatent.model import moments, per_series
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.training import fit_each
from seqlatent.transitions import Innovations

exact = {"rtol": 1e-10, "atol": 1e-10}

FORMS = {
    "ANN": {},
    "AAN": {"trend": True},
    "AAdN": {"trend": True, "damped": True},
    "ANA": {"season_length": 4},
    "AAA": {"trend": True, "season_length": 4},
    "AAdA": {"trend": True, "damped": True, "season_length": 4},
}
VALUES = {
    "smoothing_level": 0.4,
    "smoothing_trend": 0.15,
    "smoothing_seasonal": 0.25,
    "damping": 0.9,
}
LEVEL, SLOPE, SEASON = 1.5, 0.3, (0.7, -0.4, 1.2, 0.1)


class TestLearnedStart(TransitionContract):
    def build(self):
        return Innovations(0.4, trend=True, damped=True, season_length=3)

    def small(self):
        return Innovations(0.4, trend=True)


class TestVagueStart(TransitionContract):
    def build(self):
        return Innovations(0.4, trend=True, season_length=3, initial_scale=2.0)

    def small(self):
        return Innovations(0.4, initial_scale=2.0)


class TestAdmissible(TransitionContract):
    def build(self):
        return Innovations(0.4, trend=True, admissible=True, smoothing_level=1.2)


def data(steps=40, missing=0.0, batch=1):
    generator = torch.Generator().manual_seed(5)
    like = {"dtype": torch.float64, "generator": generator}
    y = torch.randn(batch, steps, 1, **like).cumsum(1) + torch.randn(batch, steps, 1, **like)
    y = y + torch.tensor(SEASON, dtype=torch.float64).repeat(steps // 4 + 1)[:steps, None]
    y[torch.rand(batch, steps, 1, generator=generator) < missing] = torch.nan
    return y


def model(form, **options):
    ours = zoo.exponential_smoothing(**FORMS[form]).double()
    ours.transition = Innovations(1.0, **FORMS[form], **VALUES, **options).double()
    return ours


def values(ours):
    """Returns what statsmodels calls the smoothing parameters, in its order."""
    return [x.item() for x in ours.transition.smoothing_parameters() if x is not None]


def known(form, scale=1.0):
    """Returns a model whose first state is the one of this file."""
    ours = model(form)
    options = FORMS[form]
    season = (
        torch.tensor(SEASON, dtype=torch.float64)
        if "season_length" in options
        else torch.zeros(4).double()
    )
    phi = values(ours)[-1] if options.get("damped") else 1.0
    start = [LEVEL + season.mean().item()] + [phi * SLOPE] * ("trend" in options)
    start += (season - season.mean())[:-1].tolist() * ("season_length" in options)
    with torch.no_grad():
        ours.transition.initial_mean.copy_(torch.tensor(start, dtype=torch.float64))
        ours.transition.log_scale.fill_(np.log(scale))
    return ours


def theirs(form, y):
    """Returns statsmodels' model and the parameters of this file in its order."""
    pytest.importorskip("statsmodels")
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    options = FORMS[form]
    trend, season = "trend" in options, "season_length" in options
    reference = ETSModel(
        pd.Series(y),
        trend="add" if trend else None,
        damped_trend=options.get("damped", False),
        seasonal="add" if season else None,
        seasonal_periods=options.get("season_length"),
    )
    theta = values(model(form))
    theta += [LEVEL] + [SLOPE] * trend + list(SEASON) * season
    return reference, np.array(theta)


@pytest.mark.parametrize("form", FORMS)
def test_evidence_and_forecast_agree_with_statsmodels(form):
    y = data()
    reference, theta = theirs(form, y[0, :, 0].numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = reference.smooth(theta)
        forecast = fitted.get_prediction(start=40, end=51, method="exact")
    ours = known(form, float(np.sqrt(fitted.sse / 40)))
    with torch.no_grad():
        sequences = Sequences.of(y)
        found = evidence(ours, sequences).item()
        mean, variance = moments(ours, ours.belief(sequences), 12)
    np.testing.assert_allclose(found, fitted.llf, rtol=1e-9)
    np.testing.assert_allclose(mean[0, :, 0], forecast.predicted_mean, rtol=1e-8)
    np.testing.assert_allclose(variance[0, :, 0], forecast.forecast_variance, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_evidence_agrees_with_the_state_space_form_of_statsmodels(form):
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.exponential_smoothing import ExponentialSmoothing

    y, options = data(missing=0.2), FORMS[form]
    season = torch.tensor(SEASON, dtype=torch.float64)
    reference = ExponentialSmoothing(
        y[0, :, 0].numpy(),
        trend="trend" in options,
        damped_trend=options.get("damped", False),
        seasonal=options.get("season_length"),
        concentrate_scale=False,
        initialization_method="estimated",
    )
    start = [LEVEL] + [SLOPE] * ("trend" in options)
    start += (season - season.mean())[:3].tolist() * ("season_length" in options)
    reference.ssm.tolerance = 0
    ours = known(form, 0.7)
    theirs = reference.filter([*values(ours), 0.7**2, *start], transformed=True)
    with torch.no_grad():
        ours.transition.initial_mean[0] = LEVEL
        filtered = ours.filter(Sequences.of(y)).log_evidence[0]
        smoothed = ours.smooth(Sequences.of(y)).mean[0]
    np.testing.assert_allclose(filtered.numpy(), theirs.llf_obs, rtol=1e-9, atol=1e-9)
    assert smoothed.isfinite().all()


@pytest.mark.parametrize("form", ["ANN", "AAdA"])
def test_a_fit_of_statsmodels_has_the_evidence_that_it_says(form):
    reference, _ = theirs(form, data()[0, :, 0].numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = reference.fit(disp=False, maxiter=200)
    found = dict(zip(reference.param_names, fitted.params, strict=True))
    ours = zoo.exponential_smoothing(**FORMS[form]).double()
    phi = found.get("damping_trend", 1.0)
    ours.transition = Innovations(
        np.sqrt(fitted.sse / 40),
        **FORMS[form],
        smoothing_level=found["smoothing_level"],
        smoothing_trend=found.get("smoothing_trend", 0.1),
        smoothing_seasonal=found.get("smoothing_seasonal", 0.1),
        damping=phi if phi < 1 else 0.9,
        damping_bounds=(0.7, 1.0),
    ).double()
    season = torch.tensor([v for k, v in found.items() if "seasonal." in k]).double()
    with torch.no_grad():
        start = [found["initial_level"] + (season.mean().item() if len(season) else 0)]
        start += [phi * found["initial_trend"]] if "initial_trend" in found else []
        start += (season - season.mean())[:-1].tolist() if len(season) else []
        ours.transition.initial_mean.copy_(torch.tensor(start, dtype=torch.float64))
        log_evidence = evidence(ours, Sequences.of(data())).item()
    # our parameters started as single precision
    np.testing.assert_allclose(log_evidence, fitted.llf, rtol=1e-6)


# Laws --------------------------------------------------------------------------------------------


def dense(ours, sequences):
    """Returns the log density of what was observed under the joint distribution of everything."""
    c = ours.context(sequences)
    F, b, G = ours.transition.matrices(c)
    m0, G0 = ours.transition.initial_moments(c[0])
    H, d, R = ours.emission.matrices(c)
    system = Reference(F, b, G @ G.mT, m0, G0 @ G0.mT, H, d, R)
    y, observed = sequences.normalised, sequences.observed
    return torch.stack(
        [dense_posterior(system, *x).log_evidence for x in zip(y, observed, strict=True)]
    )


@pytest.mark.parametrize("initial_scale", [None, 3.0])
@pytest.mark.parametrize("form", FORMS)
def test_the_evidence_is_that_of_the_joint_distribution(form, initial_scale):
    ours = model(form, initial_scale=initial_scale)
    sequences = Sequences.of(data(15, 0.3, batch=2))
    with torch.no_grad():
        torch.testing.assert_close(evidence(ours, sequences), dense(ours, sequences), **exact)


@pytest.mark.parametrize("initial_scale", [None, 3.0])
@pytest.mark.parametrize(("form", "admissible"), [("AAdA", False), ("AAN", True), ("ANA", True)])
def test_the_evidence_has_a_gradient(form, admissible, initial_scale):
    ours = model(form, initial_scale=initial_scale, admissible=admissible)
    sequences = Sequences.of(data(12, 0.2))
    names = [name for name, _ in ours.named_parameters()]

    def value(*parameters):
        return torch.func.functional_call(
            Evidence(ours),
            dict(zip([f"model.{n}" for n in names], parameters, strict=True)),
            (sequences,),
        )

    start = [p.detach().clone().requires_grad_() for p in ours.parameters()]
    assert torch.autograd.gradcheck(value, start)


class Evidence(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sequences):
        return evidence(self.model, sequences)


@pytest.mark.parametrize("form", FORMS)
def test_an_innovation_is_what_a_forecast_misses(form):
    """Without gaps the filter is the recursion of the book."""
    ours, y = known(form), data(20)
    with torch.no_grad():
        filtered = ours.filter(Sequences.of(y))
    e, variance = filtered.marginals.mean[0, :, -1], filtered.marginals.variance[0]
    p, options = ours.transition.smoothing_parameters(), FORMS[form]
    phi = 1.0 if p.damping is None else p.damping.item()
    level, slope = LEVEL, SLOPE if "trend" in options else 0.0
    season = list(SEASON) if "season_length" in options else [0.0] * 4
    for t in range(20):
        error = y[0, t, 0].item() - level - phi * slope - season[-1]
        assert e[t].item() == pytest.approx(error, rel=1e-8, abs=1e-8)
        level = level + phi * slope + p.level.item() * error
        slope = phi * slope + (0.0 if p.trend is None else p.trend.item() * error)
        gamma = 0.0 if p.seasonal is None else p.seasonal.item()
        season = [season[-1] + gamma * error, *season[:-1]]
    torch.testing.assert_close(variance, torch.zeros_like(variance), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["ANN", "AAN", "AAdN", "ANA"])
def test_the_admissible_region_is_where_old_states_are_forgotten(form):
    """The state less the gain of what it forecasts has its eigenvalues inside the unit circle."""
    generator = torch.Generator().manual_seed(2)
    ours = model(form, admissible=True).transition
    level = []
    for _ in range(50):
        with torch.no_grad():
            free = 3 * torch.randn(ours.smoothing.shape, generator=generator, dtype=torch.float64)
            ours.smoothing.copy_(free)
        F, _, _ = ours.matrices(context(1, 1))
        h = ours.loading.row(torch.zeros(0).double())
        # the state before the innovation, and what the innovation does to it
        D = F[:-1, :-1] - F[:-1, -1:] * h[:-1]
        size = torch.linalg.eigvals(D.detach()).abs().sort().values
        # level and season share one direction, which no observation sees
        assert size[-1 - ("season_length" in FORMS[form])] < 1 + 1e-9
        level.append(ours.smoothing_parameters().level.item())
    assert max(level) > 1.2


@pytest.mark.parametrize("admissible", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_it_starts_where_it_is_told(form, admissible):
    if admissible and form in ("AAA", "AAdA"):
        pytest.skip("there is no closed form")
    found = model(form, admissible=admissible).transition.smoothing_parameters()
    for name, value in (
        (found.level, 0.4),
        (found.trend, 0.15),
        (found.seasonal, 0.25),
        (found.damping, 0.9),
    ):
        assert name is None or name.item() == pytest.approx(value, abs=1e-6)


def test_the_usual_region_holds_everywhere():
    ours = Innovations(trend=True, damped=True, season_length=4).double()
    with torch.no_grad():
        ours.smoothing.copy_(5 * torch.randn(4, dtype=torch.float64))
    p = ours.smoothing_parameters()
    assert 0 < p.level < 1
    assert 0 < p.trend < p.level
    assert 0 < p.seasonal < 1 - p.level
    assert 0.8 < p.damping < 0.98


def test_a_wide_start_is_the_limit_of_a_learned_one():
    """Seasonal effects sum to zero under the prior too."""
    ours = Innovations(season_length=4, initial_scale=2.0).double()
    _, G0 = ours.initial_moments(context(1, 1)[0])
    P0 = (G0 @ G0.mT).detach()
    expected = 4 * (torch.eye(4) - 0.25).double()
    torch.testing.assert_close(P0[1:5, 1:5], expected, rtol=1e-6, atol=1e-6)
    assert P0[0, 0] == 4
    assert P0[5, 5] == pytest.approx(0.25)


def test_a_belief_is_updated_row_by_row():
    ours, y = known("AAdA"), data(20, 0.2)
    everything = Sequences.of(y)
    with torch.no_grad():
        whole = ours.belief(everything, end=True)
        belief = ours.belief(everything.window(0, 12), end=True)
        belief = ours.update(belief, everything.window(12, 20))
        for one, other in zip(moments(ours, belief, 5), moments(ours, whole, 5), strict=True):
            torch.testing.assert_close(one, other, **exact)
        paths = ours.forecast(belief, 5, n=20)
    assert paths.y.shape == (20, 1, 5, 1)


def test_series_have_rows_of_their_own():
    y = data(30, batch=3)
    sequences = Sequences.of(y, codes=torch.arange(3)[:, None])
    ours = per_series(model("AAdA"), 3)
    with torch.no_grad():
        shared = evidence(model("AAdA"), sequences)
        torch.testing.assert_close(evidence(ours, sequences), shared, **exact)
        ours.transition.smoothing[1] += 0.5
        ours.transition.initial_mean[1] += 0.5
        moved = evidence(ours, sequences)
    assert ((moved - shared).abs() > 1e-6).tolist() == [False, True, False]
    torch.testing.assert_close(evidence(ours, sequences), dense_rows(ours, sequences), **exact)


def dense_rows(ours, sequences):
    return torch.stack([dense_row(ours, sequences.select(torch.tensor([i]))) for i in range(3)])


def dense_row(ours, one):
    c = ours.context(one)
    F, b, G = ours.transition.matrices(c)
    m0, G0 = ours.transition.initial_moments(c[0])
    H, d, R = ours.emission.matrices(c)
    F, G = F.reshape(F.shape[-2:]), G.reshape(G.shape[-2:])
    m0, G0 = m0.reshape(m0.shape[-1:]), G0.reshape(G0.shape[-2:])
    system = Reference(F, b, G @ G.mT, m0, G0 @ G0.mT, H, d, R.reshape(1, 1))
    return dense_posterior(system, one.normalised[0], one.observed[0]).log_evidence


def test_each_series_is_fitted():
    y = data(40, batch=3)
    scale = y.std(1)
    sequences = Sequences.of(y, codes=torch.arange(3)[:, None], shift=y.mean(1), scale=scale)
    ours = per_series(zoo.exponential_smoothing(season_length=4).double(), 3)
    with torch.no_grad():
        before = evidence(ours, sequences)
    history = fit_each(ours, sequences, stages=1, points=8)
    assert (history.evidence > before).all()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Innovations(0.0), "found scale 0 or None"),
        (lambda: Innovations(damped=True), "needs trend=True"),
        (lambda: Innovations(season_length=1), "at least 2 steps, or None, found 1"),
        (
            lambda: Innovations(trend=True, season_length=4, admissible=True),
            "has no closed form",
        ),
        (lambda: Innovations(smoothing_level=1.5), "must start inside of the usual region"),
        (
            lambda: Innovations(trend=True, damped=True, damping=0.5),
            r"usual region and damping within \(0.8, 0.98\), found level 0.3",
        ),
        (lambda: Innovations(initial_scale=-1.0), "must be a positive standard deviation"),
    ],
)
def test_bad_values_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize("form", FORMS)
def test_a_diffuse_start_is_the_limit_of_wide_ones(form):
    """The last seasonal effect is known: it could not be told from the level."""
    ours, wide = model(form, initial_scale=math.inf), model(form, initial_scale=math.inf)
    moments_of = wide.transition.initial_moments
    width = 1e4

    def replaced(c):
        m0, G0 = moments_of(c)
        return m0, torch.where(G0.isinf(), width, G0)

    object.__setattr__(wide.transition, "initial_moments", replaced)
    sequences = Sequences.of(data(30, 0.1))
    with torch.no_grad():
        expected = evidence(wide, sequences)
        diffuse = (ours.transition.latent_dim - 1) - ("season_length" in FORMS[form])
        expected = expected + diffuse * math.log(width)
        torch.testing.assert_close(evidence(ours, sequences), expected, rtol=1e-5, atol=1e-5)
        assert ours.smooth(sequences).mean.isfinite().all()


def test_a_diffuse_start_has_a_gradient():
    ours = model("AAdA", initial_scale=math.inf)
    evidence(ours, Sequences.of(data(20, 0.1))).sum().backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())
