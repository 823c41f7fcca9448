"""Log likelihoods of random systems: the filter's, with gradients and second derivatives.

Two hundred cases by default, `make fuzz N=5000` takes more. Where the log likelihood and the filter
differ by more than they may, a filter in hundreds of digits decides which of them is wrong: the
filter has tests of its own.

What is asked: values to 1e-9, gradients to 1e-6, second derivatives to 1e-4, and in single
precision values to 1e-4. To that comes what no algorithm can avoid, the rounding of the numbers
that it is given: ten times what the result moves by when they are nudged by as much, or by more,
scaled down, where double precision would not see it. The gradient of P0 is what a prior takes away
of the information that data have on the first state: little of it under a large one, but rounded
as a whole.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from random_systems import Case, cases, precise_log_likelihood, precise_slopes, random_case
from reference import LinearGaussian, dense_condition, dense_posterior
from torch import Tensor

from seqlatent import kalman

NUDGE = 1e-10
ROUNDING = 2.0**-52
Likelihood = Callable[[Case], Tensor]


def ours(case: Case) -> Tensor:
    return kalman.log_likelihood(*case.arguments)


def filters(case: Case) -> Tensor:
    return kalman.filter(*case.arguments).log_evidence.sum(-1)


def chunks() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seeds", cases(200), ids=str)


def each(seeds: range) -> Iterator[Case]:
    return (random_case(seed) for seed in seeds)


def allowed(f: Likelihood, case: Case, found: Tensor, size: float = NUDGE) -> Tensor:
    """What rounding of the numbers of a case, or a nudge of another size, does to a result."""
    # several nudges, since what one or two of them do may cancel by chance
    moved = torch.stack([(f(case.nudged(size, i)) - found).abs() for i in range(5)])
    return 10 * moved.amax(0)


@chunks()
def test_values(seeds):
    for case in each(seeds):
        found, expected = ours(case), filters(case)
        assert found.shape == case.y.shape[:-2]
        size = torch.maximum(expected.abs(), case.observed.sum((-1, -2)).clamp_min(1))
        limit = 1e-9 * size
        if not bool(((found - expected).abs() <= limit).all()):
            expected = precise_log_likelihood(case)
            limit = limit + ROUNDING / NUDGE * allowed(filters, case, filters(case))
        assert bool(((found - expected).abs() <= limit).all()), (case.seed, case.kind)


@chunks()
def test_single_precision(seeds):
    for case in each(seeds):
        found, expected = ours(case.to(torch.float32)), ours(case)
        assert found.dtype == torch.float32
        size = torch.maximum(expected.abs(), case.observed.sum((-1, -2)).clamp_min(1))
        limit, wrong = 1e-4 * size, (found - expected).abs()
        if not bool((wrong <= limit).all()):
            limit = limit + allowed(ours, case, expected, torch.finfo(torch.float32).eps)
        assert bool((wrong <= limit).all()), (case.seed, case.kind)


def gradients(f: Likelihood, case: Case) -> dict[str, Tensor]:
    """Gradients of the sum over series; those of covariances are symmetric."""
    leaves = {k: x.clone().requires_grad_() for k, x in case.model._asdict().items()}
    leaves["y"] = case.y.clone().requires_grad_()
    y = leaves["y"]
    model = LinearGaussian(*(leaves[name] for name in LinearGaussian._fields))
    value = f(case._replace(model=model, y=y)).sum()
    if not value.requires_grad:
        return {name: torch.zeros_like(x) for name, x in leaves.items()}
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    found = {}
    for (name, x), grad in zip(leaves.items(), grads, strict=True):
        grad = torch.zeros_like(x) if grad is None else grad
        found[name] = (grad + grad.mT) / 2 if name in ("Q", "P0", "R") else grad
    return found


def along(case: Case, name: str, direction: Tensor) -> Case:
    """A direction in which one tensor of a case moves."""
    parts = {k: torch.zeros_like(x) for k, x in case.model._asdict().items()}
    y = torch.zeros_like(case.y)
    if name == "y":
        y = direction
    else:
        parts[name] = direction
    return case._replace(model=LinearGaussian(**parts), y=y)


@chunks()
def test_gradients(seeds):
    for case in each(seeds):
        found, expected = gradients(ours, case), gradients(filters, case)
        size = max(float(filters(case).abs().sum()), 1.0)
        for name, grad in found.items():
            right, x = expected[name], case.y if name == "y" else getattr(case.model, name)
            # what a gradient of zero is rounded to: a part of the value, in units of what moves
            least = 1e-12 * size / max(float(x.abs().max()), 1e-3)
            limit = 1e-6 * float(right.abs().max()) + least
            wrong = grad - right
            if float(wrong.abs().max()) <= limit:
                continue
            moved = allowed(lambda c, k=name: gradients(filters, c)[k], case, right)
            limit += ROUNDING / NUDGE * float(moved.max())
            if name == "P0":
                limit += 10 * ROUNDING * float(information(case).max())
            if float(wrong.abs().max()) <= limit:
                continue
            way = wrong / torch.linalg.vector_norm(wrong)
            slope, _ = precise_slopes(case, along(case, name, way))
            off = abs(float((grad * way).sum()) - slope)
            assert off <= limit * wrong.numel() ** 0.5, (case.seed, name, case.kind)


def information(case: Case) -> Tensor:
    """What data say of each coordinate of the first state, of which nothing is left to say.

    It is the gradient of a prior without variance, under data that are the very mean.
    """
    unknown = {k: torch.zeros_like(getattr(case.model, k)) for k in ("b", "m0", "P0", "d")}
    model = case.model._replace(**unknown)
    known = case._replace(model=model, y=torch.zeros_like(case.y), diffuse=None)
    return -2 * gradients(filters, known)["P0"].diagonal(dim1=-2, dim2=-1)


@pytest.mark.parametrize(
    ("seed", "name"), [(362, "F"), (362, "P0"), (489, "P0"), (489, "Q"), (527, "H")]
)
def test_the_filter_itself_is_right_where_subtracting_costs_digits(seed, name):
    """Vast starts without noise of the state, and more rows than states under little noise."""
    case = random_case(seed)
    value, grad = precise_log_likelihood(case), gradients(filters, case)[name]
    torch.testing.assert_close(filters(case), value, rtol=1e-9, atol=1e-7)
    way = grad / torch.linalg.vector_norm(grad)
    slope, _ = precise_slopes(case, along(case, name, way))
    assert float((grad * way).sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("seed", [311, 5854, 6129, 6440, 704])
def test_cases_that_many_seeds_found(seed):
    """Explosive without noise of the state, rows that contradict each other, a trend at 1e10."""
    for distribution in (test_values, test_gradients):
        distribution(range(seed, seed + 1))


@pytest.mark.parametrize("seed", [5647, 6174])
def test_as_many_steps_as_a_diffuse_start_has_coordinates(seed):
    test_values(range(seed, seed + 1))
    test_gradients(range(seed, seed + 1))


@pytest.mark.parametrize("seed", [1983, 4675, 5335])
def test_a_diffuse_start_that_rows_know_through_small_differences(seed):
    """States that die out before all is known: the rows are nearly combinations of each other."""
    case, seeds = random_case(seed), range(seed, seed + 1)
    right = precise_log_likelihood(case)
    torch.testing.assert_close(ours(case), right, rtol=1e-10, atol=0)
    test_gradients(seeds)
    test_second_derivatives(seeds)


@pytest.mark.parametrize("size", [6, 8, 10])
def test_many_states_that_die_out_have_a_likelihood_under_a_diffuse_start(size):
    g = torch.Generator().manual_seed(0)
    low = torch.rand(size, dtype=torch.float64, generator=g) * 0.6 + 0.05
    normal = torch.randn(3, size, size, dtype=torch.float64, generator=g)
    F = torch.diag(low) + 0.3 * normal[0].triu(1)
    zero, eye = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    Q = normal[1] @ normal[1].mT / size + 0.1 * eye
    model = LinearGaussian(F, zero, Q, zero, eye, normal[2, :1], zero[:1], eye[:1, :1])
    y = torch.randn(20, 1, dtype=torch.float64, generator=g)
    seen, diffuse = torch.ones_like(y, dtype=torch.bool), torch.ones_like(zero, dtype=torch.bool)
    case = Case(0, "", model, y, seen, diffuse)
    right = precise_log_likelihood(case)
    torch.testing.assert_close(ours(case), right, rtol=1e-9, atol=0)
    grad = gradients(ours, case)["F"]
    way = grad / torch.linalg.vector_norm(grad)
    slope, _ = precise_slopes(case, along(case, "F", way))
    assert float((grad * way).sum()) == pytest.approx(slope, rel=1e-6)


def test_a_long_block_from_a_state_that_is_known_backwards():
    """A trend of order four whose first state is seen only later, then carried on by sixteen steps.

    What is added up is thousands of times as large as what is left, and rounded as an inverse is.
    """
    case = random_case(362)
    right = precise_log_likelihood(case)
    torch.testing.assert_close(ours(case), right, rtol=1e-9, atol=0)
    test_gradients(range(362, 363))


def test_a_season_takes_out_what_a_first_observation_left_of_a_diffuse_start():
    """A coordinate that a sum of opposite numbers makes zero has their rounding, not its own."""
    case = random_case(5564)
    right = precise_log_likelihood(case)
    torch.testing.assert_close(filters(case), right, rtol=1e-9, atol=0)
    test_second_derivatives(range(5564, 5565))


@pytest.mark.parametrize("seed", [24, 726, 1227])
def test_loadings_of_zero_on_what_is_not_known_yet_have_a_gradient(seed):
    """Also one that is to be differentiated again: a change would be seen, and a later row says."""
    case = random_case(seed)
    H = case.model.H.clone().requires_grad_()
    value = ours(case._replace(model=case.model._replace(H=H))).sum()
    (plain,) = torch.autograd.grad(value, H, retain_graph=True)
    (graph,) = torch.autograd.grad(value, H, create_graph=True)
    torch.testing.assert_close(graph, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
    way = torch.randn(H.shape, dtype=H.dtype, generator=torch.Generator().manual_seed(seed))
    _, second = precise_slopes(case, along(case, "H", way))
    (found,) = torch.autograd.grad((graph * way).sum(), H)
    assert float((found * way).sum()) == pytest.approx(second, rel=1e-4)


def test_a_direction_that_nothing_determines_beside_loadings_of_zero():
    test_gradients(range(23191, 23192))


@pytest.mark.parametrize("seed", [5690, 5895])
def test_singular_covariances_rounded_to_single_precision(seed):
    test_single_precision(range(seed, seed + 1))


def test_a_block_counts_what_later_rows_leave_of_a_variance():
    """Whole series of three rows that nearly explain each other, of a trend of order five."""
    case = random_case(3230)
    right = precise_log_likelihood(case)
    torch.testing.assert_close(ours(case), right, rtol=0, atol=2e-9)


def scaled(case: Case, factors: Tensor) -> Case:
    """A case whose tensors are multiplied by factors, one each."""
    *parts, y = (x * s for x, s in zip((*case.model, case.y), factors, strict=True))
    return case._replace(model=LinearGaussian(*parts), y=y)


def slopes(case: Case, factors: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
    factors = factors.detach().requires_grad_()
    value = ours(scaled(case, factors)).sum()
    if not value.requires_grad:
        return factors, 0 * factors
    return factors, torch.autograd.grad(value, factors, create_graph=graph)[0]


@chunks()
def test_second_derivatives(seeds):
    """By the factors of all tensors, in some direction, as differences of gradients."""
    for case in each(seeds[::2]):
        g = torch.Generator().manual_seed(case.seed)
        one, way = torch.ones(9, dtype=torch.float64), torch.randn(9, generator=g).double()
        factors, slope = slopes(case, one, graph=True)
        (found,) = torch.autograd.grad(slope @ way, factors)
        step = 1e-4
        high, low = (slopes(case, one + sign * step * way, graph=False)[1] for sign in (1, -1))
        expected = (high - low) / (2 * step)
        size = max(float(filters(case).abs().sum()), 1.0)
        limit = 1e-4 * float(expected.abs().max()) + 1e-7 * size
        if bool(((found - expected).abs() <= limit).all()):
            continue
        parts = zip((*case.model, case.y), way, strict=True)
        *model, y = (x * w for x, w in parts)
        _, second = precise_slopes(case, case._replace(model=LinearGaussian(*model), y=y))
        assert abs(float(found @ way) - second) <= limit, (case.seed, case.kind)


def test_values_of_small_cases_are_those_of_the_dense_gaussian():
    for case in each(range(60)):
        if case.diffuse is not None or case.y[0].numel() > 60:
            continue
        for one, found in zip(case.series(), ours(case).flatten(), strict=True):
            if bool(one.observed.any()):
                expected = dense_posterior(one.model, one.y, one.observed).log_evidence
                # the dense form inverts the joint covariance, and rounds by its condition
                rounding = torch.finfo(torch.float64).eps * dense_condition(one.model, one.observed)
                within = 1e-9 + 10 * rounding
                torch.testing.assert_close(found, expected, rtol=within, atol=within)
