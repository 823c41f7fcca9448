"""Structural components and their sum, against statsmodels and against hand-made matrices."""

import numpy as np
import pytest
import torch

from seqlatent.chain import MarkovChain
from seqlatent.emissions.linear import LinearGaussian as Observation
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.networks import reinitialise
from seqlatent.sequences import Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.transitions import (
    AR,
    Component,
    Cycle,
    DampedTrend,
    LinearGaussian,
    Loading,
    LocalLevel,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Regression,
    Seasonal,
    Structural,
    Sum,
    TrigonometricSeasonal,
)
from seqlatent.transitions.cycles import autoregressive_coefficients, partial_autocorrelations

exact = {"rtol": 1e-10, "atol": 1e-12}


class TestLocalLevel(TransitionContract):
    def build(self):
        return LocalLevel(0.3, learn_initial=True)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestLocalLevelOnAGrid(TransitionContract):
    def build(self):
        return LocalLevel(0.3)


class TestLocalLinearTrend(TransitionContract):
    def build(self):
        return LocalLinearTrend(0.3, 0.2)


class TestSmoothTrend(TransitionContract):
    def build(self):
        return LocalLinearTrend(None, 0.2, learn_initial=True)


class TestContinuousTrend(TransitionContract):
    def build(self):
        return LocalLinearTrend(0.3, 0.2, continuous=True)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestContinuousTrendOfConstantSlope(TransitionContract):
    def build(self):
        return LocalLinearTrend(0.3, None, continuous=True)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestDampedTrend(TransitionContract):
    def build(self):
        return DampedTrend(0.3, 0.2)


class TestSeasonal(TransitionContract):
    def build(self):
        return Seasonal(4, 0.3, learn_initial=True)

    def small(self):
        return Seasonal(3, 0.3)


class TestTrigonometricSeasonal(TransitionContract):
    def build(self):
        return TrigonometricSeasonal(7.5, 2, 0.3)

    def small(self):
        return TrigonometricSeasonal(7.5, 1, 0.3)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestTrigonometricSeasonalOfAllHarmonics(TransitionContract):
    def build(self):
        return TrigonometricSeasonal(4, scale=0.3)

    def small(self):
        return TrigonometricSeasonal(2, scale=0.3)


class TestCycle(TransitionContract):
    def build(self):
        return Cycle(10.0, 0.3, damping=0.8)

    def context(self, batch, steps):
        return context(batch, steps, irregular=True)


class TestAR(TransitionContract):
    def build(self):
        return AR(3, 0.4, coefficients=(0.5, -0.3, 0.2))

    def small(self):
        return AR(2, 0.4)


class TestRegression(TransitionContract):
    def build(self):
        return Regression((1, 0), scale=0.2, learn_initial=True)

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=2, irregular=True)


class TestFixedRegression(TransitionContract):
    def build(self):
        return Regression((0,))

    def small(self):
        return None

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1)


class TestSum(TransitionContract):
    def build(self):
        return Sum([LocalLevel(0.3), Seasonal(3, 0.2), AR(2), Regression([0])])

    def small(self):
        return Sum([LocalLevel(0.3), AR(1)])

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1)


class TestSumWithGaps(TransitionContract):
    def build(self):
        return Sum([LocalLevel(0.3), Sum([Cycle(9.0), OrnsteinUhlenbeck(2)]), Regression([0])])

    def small(self):
        return Sum([LocalLevel(0.3), OrnsteinUhlenbeck(1)])

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1, irregular=True)


# statsmodels -------------------------------------------------------------------------------------


def series(batch=2, steps=60, covariates=0):
    """Returns a batch with a fifth of the cells missing, each series its own."""
    generator = torch.Generator().manual_seed(0)
    like = {"dtype": torch.float64, "generator": generator}
    y = torch.randn(batch, steps, 1, **like).cumsum(1)
    y[torch.rand(batch, steps, 1, generator=generator) < 0.2] = torch.nan
    u = torch.randn(batch, steps, covariates, **like)
    return Sequences.of(y, u=u)


def model(transition, scale=0.5):
    """Returns a float64 model that observes a structural transition."""
    emission = Observation(
        transition.latent_dim, loading=transition.loading, bias=False, scale=scale
    )
    return LatentModel(transition, emission, Kalman()).double()


def variance(part, name="scale"):
    scale = part.scale_of(name) if isinstance(part, Structural) else part.log_scale.exp()
    return 0.0 if scale is None else scale.item() ** 2


def parameters(part):
    """Returns what statsmodels calls the parameters of a component."""
    if isinstance(part, LocalLevel):
        return {"sigma2.level": variance(part)}
    if isinstance(part, LocalLinearTrend):
        names = {"level": "level_scale", "trend": "slope_scale"}
        return {f"sigma2.{theirs}": variance(part, mine) for theirs, mine in names.items()}
    if isinstance(part, Seasonal):
        return {"sigma2.seasonal": variance(part)}
    if isinstance(part, TrigonometricSeasonal):
        return {f"sigma2.freq_seasonal_{part.period}({part.harmonics})": variance(part)}
    if isinstance(part, Cycle):
        return {
            "sigma2.cycle": variance(part),
            "frequency.cycle": 2 * np.pi / part.period.item(),
            "damping.cycle": part.damping.item(),
        }
    if isinstance(part, AR):
        phi = part.coefficients.tolist()
        return {"sigma2.ar": variance(part), **{f"ar.L{i + 1}": x for i, x in enumerate(phi)}}
    return {}


CASES = {
    "level": (lambda: [LocalLevel(0.3)], {"level": "llevel"}),
    "trend": (lambda: [LocalLinearTrend(0.3, 0.1)], {"level": "lltrend"}),
    "smooth trend": (lambda: [LocalLinearTrend(None, 0.1)], {"level": "strend"}),
    "seasonal": (lambda: [Seasonal(4, 0.2)], {"seasonal": 4}),
    "fixed seasonal": (
        lambda: [LocalLevel(0.3), Seasonal(4, None)],
        {"level": "llevel", "seasonal": 4, "stochastic_seasonal": False},
    ),
    "trigonometric": (
        lambda: [TrigonometricSeasonal(12, 3, 0.2)],
        {"freq_seasonal": [{"period": 12, "harmonics": 3}]},
    ),
    "cycle": (
        lambda: [Cycle(10.0, 0.3, damping=0.9)],
        {"cycle": True, "damped_cycle": True, "stochastic_cycle": True},
    ),
    "autoregression": (
        lambda: [AR(2, 0.4, coefficients=(0.5, 0.3))],
        {"autoregressive": 2},
    ),
    "regression": (lambda: [LocalLevel(0.3), Regression([0, 1])], {"level": "llevel", "exog": 2}),
    "all": (
        lambda: [
            LocalLinearTrend(0.3, 0.1),
            Seasonal(4, 0.2),
            TrigonometricSeasonal(7, 2, 0.1),
            Cycle(20.0, 0.3, damping=0.9),
            AR(2, 0.4, coefficients=(0.5, -0.3)),
            Regression([0, 1]),
        ],
        {
            "level": "lltrend",
            "seasonal": 4,
            "freq_seasonal": [{"period": 7, "harmonics": 2}],
            "cycle": True,
            "damped_cycle": True,
            "stochastic_cycle": True,
            "autoregressive": 2,
            "exog": 2,
        },
    ),
}


def moments(part, c):
    m0, G0 = part.initial_moments(c)
    return m0.detach().numpy(), (G0 @ G0.mT).detach().numpy()


def smooth_with_statsmodels(transition, sequences, b, noise, options):
    """Returns what statsmodels says of one series, the first state being known in distribution."""
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    y = torch.where(sequences.observed, sequences.y, torch.nan)[b].numpy()
    options = dict(options) if "level" in options else {"irregular": True, **options}
    if options.pop("exog", 0):
        options |= {"exog": sequences.u[b].numpy(), "mle_regression": False}
    reference = UnobservedComponents(y, **options)
    values = {"sigma2.irregular": noise}
    for part in transition.parts:
        values |= parameters(part)
    theta = [values[name] for name in reference.param_names]  # without those of no noise
    reference.ssm.tolerance = 0
    reference.ssm.initialize_known(*moments(transition, context(1, 1)[0]))
    return reference.smooth(theta, transformed=True)


@pytest.mark.parametrize("name", CASES)
def test_it_agrees_with_statsmodels(name):
    components, options = CASES[name]
    transition = Sum(components()).double()
    sequences = series(covariates=options.get("exog", 0))
    ours = model(transition)
    noise = ours.emission.noise().item()
    with torch.no_grad():
        filtered, smoothed = ours.filter(sequences), ours.smooth(sequences)
    for b in range(sequences.batch):
        theirs = smooth_with_statsmodels(transition, sequences, b, noise, options)
        for found, expected in (
            (filtered.log_evidence[b], theirs.llf_obs),
            (filtered.marginals.mean[b], theirs.filtered_state.T),
            (filtered.marginals.covariance_matrix[b], theirs.filtered_state_cov.T),
            (smoothed.marginals.mean[b], theirs.smoothed_state.T),
            (smoothed.marginals.covariance_matrix[b], theirs.smoothed_state_cov.T),
        ):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_an_autoregression_without_noise_agrees_with_statsmodels():
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    transition = AR(3, 0.4, coefficients=(0.5, -0.3, 0.2)).double()
    sequences = series()
    with torch.no_grad():
        log_evidence = model(transition, scale=None).filter(sequences).log_evidence
        theta = [*transition.coefficients.tolist(), transition.log_scale.exp().item() ** 2]
    for b in range(2):
        y = torch.where(sequences.observed, sequences.y, torch.nan)[b].numpy()
        theirs = SARIMAX(y, order=(3, 0, 0), trend=None)
        theirs.ssm.tolerance = 0
        expected = theirs.filter(theta, transformed=True).llf_obs
        np.testing.assert_allclose(log_evidence[b].numpy(), expected, rtol=1e-8, atol=1e-8)


def test_all_harmonics_of_an_even_period_agree_with_statsmodels():
    """Theirs has one more state, which is never seen."""
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    transition = TrigonometricSeasonal(4, scale=0.3).double()
    sequences = series(batch=1)
    ours = model(transition)
    y = torch.where(sequences.observed, sequences.y, torch.nan)[0].numpy()
    theirs = UnobservedComponents(y, irregular=True, freq_seasonal=[{"period": 4}])
    theirs.ssm.tolerance = 0
    theirs.ssm.initialize_known(np.zeros(4), 100 * np.eye(4))
    theta = [ours.emission.noise().item(), variance(transition)]
    with torch.no_grad():
        found = ours.filter(sequences).log_evidence[0].numpy()
    np.testing.assert_allclose(found, theirs.smooth(theta).llf_obs, rtol=1e-8, atol=1e-8)


def test_a_damped_trend_agrees_with_statsmodels_filter_on_its_matrices():
    pytest.importorskip("statsmodels")
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    transition = DampedTrend(0.3, 0.2, damping=0.8).double()
    sequences = series(batch=1)
    ours = model(transition)
    phi, noise = transition.damping_logit.sigmoid().item(), ours.emission.noise().item()
    theirs = KalmanSmoother(1, 2, 2, tolerance=0)
    theirs.bind(torch.where(sequences.observed, sequences.y, torch.nan)[0].numpy())
    theirs["design"] = [[1.0, 0.0]]
    theirs["obs_cov"] = [[noise]]
    theirs["transition"] = [[1.0, 1.0], [0.0, phi]]
    theirs["selection"] = np.eye(2)
    scales = [variance(transition, name) for name in ("level_scale", "slope_scale")]
    theirs["state_cov"] = np.diag(scales)
    theirs.initialize_known(np.zeros(2), np.diag([100.0, 1.0]))
    theirs = theirs.smooth()
    with torch.no_grad():
        filtered, smoothed = ours.filter(sequences), ours.smooth(sequences)
    for found, expected in (
        (filtered.log_evidence[0], theirs.llf_obs),
        (smoothed.marginals.mean[0], theirs.smoothed_state.T),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("components", "irregular"),
    [
        (lambda: [LocalLinearTrend(0.3, 0.1), Seasonal(4, 0.2), AR(2), Regression([0])], False),
        (lambda: [LocalLevel(0.3), Cycle(7.0), TrigonometricSeasonal(5, 2, None)], True),
    ],
)
def test_every_path_of_the_posterior_gives_the_evidence(components, irregular):
    """The noise is singular: densities live on the subspace where the state moves."""
    ours = model(Sum(components()))
    sequences = series(steps=20, covariates=1)
    if irregular:
        gaps = 0.2 + torch.rand(2, 20, dtype=torch.float64)
        observed, u = sequences.observed, sequences.u
        sequences = Sequences.of(sequences.y, observed=observed, t=gaps.cumsum(1), u=u)
    with torch.no_grad():
        posterior = ours.posterior(sequences)
        z = posterior.rsample((3,))
        found = ours.log_joint(z, sequences).sum(-1) - posterior.log_prob(z).sum(-1)
        evidence = ours.filter(sequences).log_evidence.sum(-1)
    torch.testing.assert_close(found, evidence.expand_as(found), rtol=1e-10, atol=1e-10)


# Laws of each component --------------------------------------------------------------------------


def test_a_seasonal_pattern_without_noise_repeats_and_sums_to_zero():
    p = Seasonal(5, None).double()
    path = MarkovChain(p, context(2, 20)).rsample().detach()
    effects = path[..., 0]
    torch.testing.assert_close(effects[:, 5:], effects[:, :-5], **exact)
    torch.testing.assert_close(effects[:, 5:10].sum(1), torch.zeros(2).double(), **exact)


@pytest.mark.parametrize(("period", "harmonics"), [(6, 3), (6, 2), (7, None), (4.5, 2)])
def test_a_trigonometric_pattern_without_noise_repeats(period, harmonics):
    p = TrigonometricSeasonal(period, harmonics, None).double()
    path = MarkovChain(p, context(2, 30)).rsample().detach()
    effects = path @ p.loading.row(torch.zeros(0).double())
    repeat = int(2 * period) if period != int(period) else period
    torch.testing.assert_close(effects[:, repeat:], effects[:, :-repeat], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Cycle(12.0, 0.3, damping=0.9),
        lambda: AR(1, 0.4, coefficients=(0.9,)),
        lambda: AR(4, 0.4, coefficients=(0.5, -0.3, 0.2, 0.1)),
    ],
)
def test_the_first_state_is_stationary(build):
    p = build().double()
    F, _, G = p.matrices(context(1, 2))
    _, G0 = p.initial_moments(context(1, 2)[0])
    P = G0 @ G0.mT
    torch.testing.assert_close(F @ P @ F.mT + G @ G.mT, P, **exact)


def test_an_autoregression_is_stationary_whatever_its_parameters():
    p = AR(5).double()
    with torch.no_grad():
        p.partial.copy_(torch.randn(5, dtype=torch.float64))
    F, _, _ = p.matrices(context(1, 2))
    assert torch.linalg.eigvals(F.detach()).abs().max() < 1


def test_partial_autocorrelations_and_coefficients_are_inverse():
    r = torch.tensor([0.3, -0.8, 0.5, 0.1], dtype=torch.float64)
    phi = autoregressive_coefficients(r)[-1]
    torch.testing.assert_close(partial_autocorrelations(phi), r, **exact)


def test_partial_autocorrelations_have_a_gradient():
    r = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: autoregressive_coefficients(r)[-1], (r,))


def test_the_stationary_distribution_has_a_gradient_near_a_unit_root():
    p = AR(2, coefficients=(1.999, -0.9995)).double()
    c = context(1, 3)
    z = MarkovChain(p, c).rsample().detach()
    MarkovChain(p, c).log_prob(z).sum().backward()
    assert all(x.grad.isfinite().all() for x in p.parameters())


def test_constant_matrices_have_no_other_axes():
    p = Sum([LocalLinearTrend(), Seasonal(4), Cycle(9.0), AR(2), Regression([0])])
    c = context(2, 5, covariate_dim=1)
    F, b, G = p.matrices(c)
    m0, G0 = p.initial_moments(c[0])
    assert F.shape == (10, 10)
    assert b.shape == m0.shape == (10,)
    assert G.shape == (10, 6)
    assert G0.shape == (10, 10)


def test_a_sum_knows_where_its_components_lie():
    p = Sum([LocalLevel(), Seasonal(4), Regression([1])])
    assert p.slices == (slice(0, 1), slice(1, 4), slice(4, 5))
    assert p.loading == Loading((1.0, 1.0, 0.0, 0.0, 0.0), (-1, -1, -1, -1, 1))
    assert p.loading.latent_dim == p.latent_dim == 5


def test_components_of_a_sum_are_independent():
    parts = [LocalLevel(0.3), Cycle(9.0)]
    p = Sum(parts).double()
    c = context(2, 5, irregular=True)
    path = MarkovChain(p, c).rsample()
    total = sum(
        MarkovChain(q, c).log_prob(path[..., s]) for q, s in zip(parts, p.slices, strict=True)
    )
    torch.testing.assert_close(MarkovChain(p, c).log_prob(path), total, **exact)


def test_a_sum_handles_gaps_if_all_its_components_do():
    assert Sum([LocalLevel(), Cycle(9.0), TrigonometricSeasonal(12, 3)]).handles_gaps
    assert not Sum([LocalLevel(), Seasonal(4)]).handles_gaps
    assert not TrigonometricSeasonal(12).handles_gaps


def test_rows_of_a_loading_follow_the_covariates():
    loading = Loading.of(1.0) + Loading((0.5, 0.0), (2, 0))
    u = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    torch.testing.assert_close(
        loading.row(u), torch.tensor([[1.0, 3.5, 1.0], [1.0, 6.5, 4.0]]), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match=r"reads covariate 2, .*sequences have 2"):
        loading.row(u[:, :2])


def test_initial_scales_are_taken():
    p = LocalLinearTrend(initial_scale=3.0, initial_slope_scale=0.5)
    assert p.initial(context(1, 1)[0]).stddev.tolist() == [[3.0, 0.5]]


def test_a_component_of_ones_own_joins_a_sum():
    class Trend(LinearGaussian, Component):
        loading = Loading.of(1.0, 0.0)

    assert Sum([Trend(2), LocalLevel()]).latent_dim == 3


def test_parameters_return_to_their_start():
    p = Sum([LocalLinearTrend(0.3, 0.1), Cycle(9.0), AR(2)])
    before = [x.clone() for x in p.parameters()]
    with torch.no_grad():
        for x in p.parameters():
            x.add_(1.0)
    reinitialise(p, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(before, p.parameters(), strict=True))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: LocalLevel(-1.0), "scale must be a positive standard deviation.*found -1.0"),
        (lambda: LocalLevel(float("nan")), "scale must be a positive standard deviation"),
        (lambda: LocalLevel(initial_scale=0), "initial_scale must be a positive"),
        (lambda: DampedTrend(damping=1.0), r"damping must lie in \(0, 1\), found 1.0; at 1 it is"),
        (lambda: Seasonal(1), "period must be an integer of at least 2 steps, found 1"),
        (lambda: TrigonometricSeasonal(1.5), "period must be a number of at least 2 steps"),
        (lambda: TrigonometricSeasonal(7, 4), "a period of 7 steps has 1 to 3 harmonics, found 4"),
        (lambda: TrigonometricSeasonal(7, 0), "a period of 7 steps has 1 to 3 harmonics, found 0"),
        (lambda: Cycle(2.0), "period must be more than 2 steps, found 2.0"),
        (lambda: Cycle(9.0, damping=1.0), r"damping must lie in \(0, 1\), found 1.0"),
        (lambda: Cycle(9.0, 0.0), "a cycle that returns to zero needs a noise"),
        (lambda: AR(0), "order must be an integer of at least 1, found 0"),
        (lambda: AR(1, 0.0), "a stationary autoregression needs a noise"),
        (lambda: AR(2, coefficients=(0.5,)), r"an AR\(2\) has 2 coefficients, found 1"),
        (lambda: AR(1, coefficients=(1.0,)), r"coefficients \(1.0,\) are not stationary"),
        (lambda: AR(3, coefficients=(0.0, 2.0, 0.5)), "are not stationary"),
        (lambda: Regression([]), "covariates must be indices of columns of u"),
        (lambda: Regression([-1]), "covariates must be indices"),
        (lambda: Regression([1, 1]), r"covariates must not repeat, found \(1, 1\)"),
        (lambda: Sum([]), "Sum needs at least one component, found none"),
    ],
)
def test_wrong_arguments_are_named(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_what_is_no_component_is_named():
    with pytest.raises(TypeError, match=r"found LinearGaussian at position 1; .*Component"):
        Sum([LocalLevel(), LinearGaussian(2)])
