"""Box-Cox transform: there and back, its mean, and the choice of its exponent."""

import numpy as np
import pytest

from seqlatent.forecasting.features.transforms import BoxCox, Identity, Log, guerrero, likelihood

EXPONENTS = (0.0, 1e-9, 0.01, 0.3, 0.5, 1.0, 2.0)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_way_back_leads_back(exponent, offset):
    y = np.array([0.5, 1.0, 3.0, 1e4])
    transform = BoxCox(0.5, exponent=exponent, offset=offset)
    np.testing.assert_allclose(transform.inverse(transform.forward(y)), y, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e12])
def test_scales_do_not_matter(scale):
    y = scale * np.array([0.0, 1.0, 3.0, 10.0, 2.0, 8.0])
    transform = BoxCox.of(y)
    np.testing.assert_allclose(
        transform.inverse(transform.forward(y)), y, rtol=1e-6, atol=1e-9 * scale
    )
    assert transform.offset == scale / 2


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_it_increases_and_so_does_the_way_back(exponent):
    transform = BoxCox(0.1, exponent=exponent)
    assert (np.diff(transform.forward(np.linspace(0.1, 9.0, 50))) > 0).all()
    back = transform.inverse(np.linspace(-60.0, 2000.0, 400))
    assert np.isfinite(back).all()
    assert (np.diff(back) >= 0).all()
    assert (back >= 0).all()


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_quantiles_go_back_exactly(exponent):
    transform = BoxCox(exponent=exponent)
    x = np.random.default_rng(0).normal(1.0, 1.5, 2001)
    for q in (0.1, 0.5, 0.9):
        back = np.quantile(transform.inverse(x), q, method="nearest")
        assert back == transform.inverse(np.quantile(x, [q], method="nearest"))[0]


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_its_mean_is_an_integral(exponent, offset):
    transform = BoxCox(exponent=exponent, offset=offset)
    for mean, scale in ((1.0, 0.1), (2.0, 0.7), (0.5, 1.2)):
        x = np.linspace(mean - 12 * scale, mean + 12 * scale, 200_001)
        density = np.exp(-0.5 * ((x - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
        expected = np.trapezoid(transform.inverse(x) * density, x)
        found = transform.mean(np.array([mean]), np.array([scale]))[0]
        np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_its_ends_are_the_logarithm_and_nothing():
    y, mean, scale = np.array([0.7, 2.0, 30.0]), np.array([1.0]), np.array([0.5])
    log, transform = Log(0.7), BoxCox(0.7, exponent=0.0)
    for name in ("forward", "log_jacobian"):
        np.testing.assert_allclose(getattr(transform, name)(y), getattr(log, name)(y))
    np.testing.assert_allclose(transform.mean(mean, scale), log.mean(mean, scale))
    transform = BoxCox(0.7, exponent=1.0)
    np.testing.assert_allclose(transform.forward(y) + 1, y)
    np.testing.assert_allclose(transform.log_jacobian(y), Identity().log_jacobian(y), atol=1e-15)
    np.testing.assert_allclose(transform.mean(mean + 9, scale), mean + 10)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_its_jacobian_is_its_derivative(exponent):
    y, transform = np.array([0.8, 2.0, 5.0]), BoxCox(0.5, exponent=exponent, offset=0.2)
    slope = (transform.forward(y + 1e-6) - transform.forward(y - 1e-6)) / 2e-6
    np.testing.assert_allclose(np.exp(transform.log_jacobian(y)), slope, rtol=1e-6)


def test_what_was_never_so_small_stays_finite():
    for exponent in EXPONENTS:
        transform = BoxCox(2.0, exponent=exponent)
        assert np.isfinite(transform.forward(np.array([0.0, -5.0]))).all()
        assert np.isnan(transform.forward(np.array([np.nan]))).all()


# The exponent ------------------------------------------------------------------------------------


def simulated(exponent, steps=600, season=12):
    """Returns a series that is a line with a season and normal noise after the power."""
    generator = np.random.default_rng(1)
    t = np.arange(steps)
    x = 5 + 6 * t / steps + 0.8 * np.sin(2 * np.pi * t / season)
    x = x + 0.3 * generator.standard_normal(steps)
    return BoxCox(1.0, exponent=exponent).inverse(x)


@pytest.mark.parametrize("method", [guerrero, likelihood])
@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.6, 1.0])
def test_it_finds_the_exponent(exponent, method):
    transform = BoxCox.of(simulated(exponent), season_length=12, method=method)
    assert transform.exponent == pytest.approx(exponent, abs=0.12)
    assert transform.offset == 0


def test_the_likelihood_agrees_with_scipy():
    """Without line and season it is the classical one."""
    stats = pytest.importorskip("scipy.stats")
    y = np.random.default_rng(0).gamma(3.0, 2.0, 500)
    t = np.linspace(0, 1, 500)
    classical = stats.boxcox_normmax(y, brack=(0.0, 1.0), method="mle")
    assert likelihood(y) == pytest.approx(classical, abs=0.02)
    assert likelihood(y * np.exp(0 * t) * 1e6) == pytest.approx(likelihood(y), abs=1e-6)


def test_guerrero_agrees_with_its_definition():
    y = simulated(0.3, 120)
    blocks = y.reshape(-1, 12)
    mean, scale = blocks.mean(1), blocks.std(1, ddof=1)
    grid = np.linspace(0, 1, 2001)
    ratio = scale[:, None] / mean[:, None] ** (1 - grid)
    best = grid[(ratio.std(0, ddof=1) / ratio.mean(0)).argmin()]
    assert guerrero(y, season_length=12) == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("method", [guerrero, likelihood])
def test_gaps_are_left_out(method):
    y = simulated(0.3)
    y[np.random.default_rng(2).random(len(y)) < 0.3] = np.nan
    found = BoxCox.of(y, season_length=12, method=method).exponent
    assert found == pytest.approx(0.3, abs=0.15)


@pytest.mark.parametrize("method", [guerrero, likelihood])
@pytest.mark.parametrize("y", [[3.0], [2.0] * 30, [1.0, 2.0], [np.nan, 4.0, np.nan]])
def test_a_series_that_says_nothing_stays_as_it_is(y, method):
    assert BoxCox.of(np.array(y), season_length=4, method=method).exponent == 1.0


@pytest.mark.parametrize("method", [guerrero, likelihood])
def test_bounds_hold(method):
    found = BoxCox.of(simulated(0.0), season_length=12, method=method, bounds=(0.4, 0.9))
    assert found.exponent == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: BoxCox(exponent=-0.5), "exponent must be a number of at least 0, found -0.5"),
        (lambda: BoxCox(offset=-1.0), "offset must be a number of at least 0"),
        (lambda: BoxCox(0.0), "least must be the least positive value"),
        (lambda: BoxCox.of(np.array([1.0, -2.0])), "targets of at least 0, found -2"),
        (lambda: BoxCox.of(np.array([0.0, np.nan])), "needs positive targets, found none"),
        (lambda: BoxCox.of(np.ones(3), bounds=(1.0, 0.5)), "bounds must be two exponents"),
    ],
)
def test_bad_values_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()
