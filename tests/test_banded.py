"""Few series of one value each: by a banded covariance, beside the filter and dense algebra."""

import numpy as np
import pytest
import torch
from reference import LinearGaussian, random_covariance, structural
from torch import Tensor

from seqlatent import kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.kalman.likelihood import banded
from seqlatent.kalman.likelihood.banded_inverse import inverse_band

STEPS = 50
FREE = ("Q", "m0", "P0", "d", "R")


def random_model(K: int, g: torch.Generator, own: tuple[int, ...]) -> LinearGaussian:
    """Structural from four states on, dense below; variances of each series with ``own``."""
    base = structural(K - 1, initial_variance=3.0) if K > 3 else None
    F = base.F if base else torch.randn(K, K, dtype=torch.float64, generator=g)
    F = F if base else F / torch.linalg.eigvals(F).abs().max()
    H = base.H if base else torch.randn(1, K, dtype=torch.float64, generator=g)
    vector, number = (torch.randn(n, dtype=torch.float64, generator=g) for n in (K, 1))
    Q, R = (random_covariance(*own, n, generator=g) for n in (K, 1))
    P0 = random_covariance(K, generator=g)
    return LinearGaussian(F, torch.zeros(K, dtype=torch.float64), Q, vector, P0, H, number, R)


def run(f, model: LinearGaussian, y: Tensor, observed: Tensor, diffuse: Tensor | None):
    """Values, and gradients of a weighted sum of them."""
    leaves = {k: x.clone().requires_grad_(k in FREE) for k, x in model._asdict().items()}
    y = y.clone().requires_grad_()
    value = f(LinearGaussian(**leaves), y, observed, diffuse)
    weight = torch.arange(1.0, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    inputs = [*(leaves[k] for k in FREE), y]
    grads = torch.autograd.grad((weight * value).sum(), inputs, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
    for i in (0, 2, 4):
        found[i] = (found[i] + found[i].mT) / 2
    return value.detach(), found


def by_band_if_it_can(
    model: LinearGaussian, y: Tensor, observed: Tensor, diffuse: Tensor | None = None
) -> Tensor | None:
    system = LinearGaussianSystem(*model, diffuse=diffuse)
    return banded.log_likelihood(system.observing(y, observed))


def by_band(model: LinearGaussian, y: Tensor, observed: Tensor, diffuse: Tensor | None) -> Tensor:
    value = by_band_if_it_can(model, y, observed, diffuse)
    assert value is not None
    return value


def by_filter(model: LinearGaussian, y: Tensor, observed: Tensor, diffuse: Tensor | None) -> Tensor:
    return kalman.filter(
        LinearGaussianSystem(*model, diffuse=diffuse), y, observed
    ).log_evidence.sum(-1)


@pytest.mark.parametrize("steps", [9, 11, 14])
def test_a_diffuse_series_hardly_longer_than_its_state(steps):
    model = structural(6)
    y = torch.randn(2, steps, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = y, torch.ones_like(y, dtype=torch.bool), torch.ones(7, dtype=torch.bool)
    value, grads = run(by_band, model, *data)
    expected, right = run(by_filter, model, *data)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(grads, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("K", [1, 2, 3, 7, 14])
@pytest.mark.parametrize("own", [(), (3, 1)], ids=["shared", "own"])
@pytest.mark.parametrize("flat", [False, True], ids=["proper", "diffuse"])
def test_values_and_gradients_are_those_of_the_filter(K, own, flat):
    g = torch.Generator().manual_seed(K)
    model = random_model(K, g, own)
    y = torch.randn(3, STEPS, 1, dtype=torch.float64, generator=g)
    observed = torch.ones_like(y, dtype=torch.bool)
    if own:
        observed[1, 40:] = False
    diffuse = torch.ones(K, dtype=torch.bool) if flat else None
    value, grads = run(by_band, model, y, observed, diffuse)
    expected, slopes = run(by_filter, model, y, observed, diffuse)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    for name, found, right in zip((*FREE, "y"), grads, slopes, strict=True):
        if flat and name in ("m0", "P0"):
            continue
        limit = 1e-8 * float(right.abs().max()) + 1e-10
        assert float((found - right).abs().max()) <= limit, name


def test_second_derivatives_are_those_of_the_filter():
    g = torch.Generator().manual_seed(0)
    model = random_model(2, g, ())
    y = torch.randn(STEPS, 1, dtype=torch.float64, generator=g)
    observed = torch.ones_like(y, dtype=torch.bool)

    def value(f, R: Tensor) -> Tensor:
        return f(model._replace(R=R), y, observed, None)

    found, right = (
        torch.autograd.functional.hessian(lambda R, f=f: value(f, R), model.R)
        for f in (by_band, by_filter)
    )
    torch.testing.assert_close(found, right, rtol=1e-8, atol=0)


def test_single_precision_and_axes_are_kept():
    g = torch.Generator().manual_seed(1)
    model = LinearGaussian(*(x.float() for x in random_model(2, g, ())))
    y = torch.randn(2, 3, STEPS, 1, generator=g)
    observed = torch.ones_like(y, dtype=torch.bool)
    value = by_band(model, y, observed, None)
    assert value.dtype == torch.float32
    assert value.shape == (2, 3)


def test_declines_what_it_cannot_do():
    g = torch.Generator().manual_seed(2)
    model = random_model(2, g, ())
    y = torch.randn(2, STEPS, 1, dtype=torch.float64, generator=g)
    observed = torch.ones_like(y, dtype=torch.bool)
    gap = observed.clone()
    gap[0, 7] = False
    moving = model._replace(R=model.R.expand(STEPS, 1, 1).clone())
    assert by_band_if_it_can(model, y, gap) is None
    assert by_band_if_it_can(moving, y, observed) is None
    assert by_band_if_it_can(model._replace(b=model.b + 1), y, observed) is None
    assert by_band_if_it_can(model, y, observed, torch.tensor([True, False])) is None
    free = model._replace(F=model.F.clone().requires_grad_())
    assert by_band_if_it_can(free, y, observed) is None
    unseen = model._replace(H=torch.zeros_like(model.H))
    assert by_band_if_it_can(unseen, y, observed) is None


@pytest.mark.parametrize("steps", [60, 400])
@pytest.mark.parametrize("level", [0.0, 1e-12, 1e-6])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_near_a_moving_average_of_unit_root(steps, level, offset):
    """A level that hardly moves, far from zero or not: the loglikelihood has its digits anyway."""
    g = torch.Generator().manual_seed(3)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    model = LinearGaussian(one, zero, level * one, zero, one, one, zero, one)
    y = offset + torch.randn(steps, 1, dtype=torch.float64, generator=g)
    observed, diffuse = torch.ones_like(y, dtype=torch.bool), torch.tensor([True])

    def f(model, y, observed, diffuse):
        return kalman.log_likelihood(LinearGaussianSystem(*model, diffuse=diffuse), y, observed)

    # of a level that is free, only differences from the first value count
    value, grads = run(f, model, y, observed, diffuse)
    expected, slopes = run(by_filter, model, y - y[:1], observed, diffuse)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    for i in (0, 4):
        torch.testing.assert_close(grads[i], slopes[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("K", [1, 2, 3, 5, 20])
def test_diagonals_of_an_inverse(K):
    rng, size = np.random.default_rng(K), 70
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    L = np.where((lag >= 0) & (lag <= K), 0.3 * rng.normal(size=(size, size)), 0)
    L += 2 * np.eye(size)
    band = np.stack([np.pad(L.diagonal(-k), (0, k)) for k in range(K + 1)])
    S = np.linalg.inv(L @ L.T)
    right = np.stack([np.pad(S.diagonal(-k), (0, k)) for k in range(K + 1)])
    found = inverse_band(band)
    for k in range(K + 1):
        np.testing.assert_allclose(found[k, : size - k], right[k, : size - k], atol=1e-13)
