"""Pareto-smoothed weights: tails whose shape is known, and what other implementations find."""

import math

import pytest
import torch

from seqlatent.distributions import pareto_smoothed
from seqlatent.distributions.pareto import pareto_shape

# log weights at (i + 1/2) / S: logarithms of quantiles
KINDS = {
    "pareto": lambda u: -0.9 * u.log(),
    "lognormal": lambda u: 1.5 * torch.special.ndtri(u),
    "exponential": lambda u: (-u.log()).log(),
}
# what arviz-stats 0.8 finds: the shape, and the three largest log weights
KNOWN = {
    ("pareto", 100): (
        0.720596743489738,
        (-2.889332391665801, -2.50228927833722, -1.68783114668622),
    ),
    ("pareto", 900): (0.84097275810461, (-3.34049072206457, -2.909386366551518, -1.98378482773154)),
    ("lognormal", 100): (0.51488191575095, (-2.75715324080646, -2.44113369105621, -1.803964992989)),
    ("lognormal", 900): (0.47929210063453, (-3.7442638598536, -3.4799539477836, -3.0225678383387)),
    ("exponential", 100): (0.203271840956968, (-3.213087797993, -3.036047120273, -2.948189150170)),
    ("exponential", 900): (0.065825818067567, (-4.968785019601, -4.870582065217, -4.791354293771)),
}


def levels(size):
    u = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return u[torch.randperm(size, generator=torch.Generator().manual_seed(size))]


@pytest.mark.parametrize(("kind", "size"), KNOWN)
def test_shapes_and_weights_are_those_of_arviz(kind, size):
    found = pareto_smoothed(KINDS[kind](levels(size)))
    shape, largest = KNOWN[kind, size]
    assert found.shape.item() == pytest.approx(shape, abs=1e-10)
    top = found.log_weights.sort().values[-3:]
    torch.testing.assert_close(top, torch.tensor(largest, dtype=top.dtype), rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_a_long_sample_tells_the_shape_and_the_scale(k):
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = 3.0 * ((-k * (1 - u).log()).expm1() / k).sort().values
    shape, scale = pareto_shape(x)
    assert shape.item() == pytest.approx(k, abs=0.01)
    assert scale.item() == pytest.approx(3.0, rel=0.02)


def test_weights_stay_in_their_order_and_problems_apart():
    g = torch.Generator().manual_seed(0)
    raw = 1.2 * torch.randn(200, 3, 2, generator=g, dtype=torch.float64)
    found = pareto_smoothed(raw)
    torch.testing.assert_close(found.log_weights.exp().sum(0), torch.ones(3, 2).double())
    assert bool((found.log_weights.gather(0, raw.argsort(0)).diff(dim=0) >= 0).all())
    assert bool((found.effective > 1).all())
    assert bool((found.effective < 200).all())
    one = pareto_smoothed(raw[:, 1, 1] + 7.0)
    torch.testing.assert_close(one.log_weights, found.log_weights[:, 1, 1])
    torch.testing.assert_close(one.shape, found.shape[1, 1])


def test_smoothing_lessens_the_error_of_heavy_weights():
    g = torch.Generator().manual_seed(1)
    # a normal target of unit variance, proposals of half the width: weights of infinite variance
    x = 0.6 * torch.randn(200, 500, generator=g, dtype=torch.float64)
    raw = -0.5 * x.square() + 0.5 * (x / 0.6).square()
    smooth = pareto_smoothed(raw).log_weights.exp()
    plain = raw.softmax(0)
    error = [((w * x.square()).sum(0) - 1).square().mean().sqrt() for w in (plain, smooth)]
    assert error[1] < error[0]


def test_equal_zero_and_few_weights():
    equal = pareto_smoothed(torch.zeros(50, 1, dtype=torch.float64))
    assert equal.shape.item() == -math.inf
    assert equal.effective.item() == pytest.approx(50)
    some = torch.zeros(50, dtype=torch.float64)
    some[:48] = -math.inf
    found = pareto_smoothed(some)
    assert found.shape.item() == math.inf
    assert found.effective.item() == pytest.approx(2)
    assert pareto_smoothed(torch.randn(10)).shape.item() == math.inf
    assert pareto_smoothed(torch.randn(100)).log_weights.dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_none_are_refused(bad):
    x = torch.zeros(30)
    x[3] = bad
    with pytest.raises(ValueError, match="log_weights must be numbers or minus infinity"):
        pareto_smoothed(x)
    with pytest.raises(ValueError, match="some of them finite"):
        pareto_smoothed(torch.full((30,), -math.inf))
