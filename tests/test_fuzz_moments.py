"""Every way to moments against the joint normal distribution, over random systems.

`make fuzz N=5000` takes so many of them. A tolerance is 1e-9 in deviations (1e-6 for a gradient,
1e-4 for a second derivative, 1e-4 in single precision), and grows with the condition of a case as
rounding does: that of the correlations of the data, the factor by which data, or transitions,
shrink a variance, and the square of how unlike the sizes are by which data determine a diffuse
start. Paths are drawn by potentials, which divide by R: theirs grows with the ratio of the signal's
variance to R, too. Where differences of what was computed are too rough for a derivative, or a line
bends too much for them, differences of the exact moments in hundreds of digits decide.
"""

from functools import cache, partial
from typing import NamedTuple

import pytest
import torch
from exact_moments import Marginals, joint_distribution, precise_moments, slopes_of
from lines import Line
from mpmath import mp
from random_systems import Case, cases, random_case
from reference import LinearGaussian
from small_models import Matrices, Read
from torch import Tensor

from seqlatent import Sequences, kalman
from seqlatent.inference import Kalman
from seqlatent.kalman import LinearGaussianSystem
from seqlatent.linalg import factor
from seqlatent.model import LatentModel, moments

STEPS = 6
STEP = 2e-5  # of differences
EPS = torch.finfo(torch.float64).eps


def some(share: float) -> list[range]:
    """Seeds in chunks: 200 or as many as asked for, or this share of them."""
    return [seeds[: max(1, round(share * len(seeds)))] for seeds in cases(200)]


class Moments(NamedTuple):
    """Filtered, predicted and smoothed moments and evidence per step; the rest may be left out."""

    mean: Tensor | None = None
    cov: Tensor | None = None
    predicted_mean: Tensor | None = None
    predicted_cov: Tensor | None = None
    log_evidence: Tensor | None = None
    smoothed_mean: Tensor | None = None
    smoothed_cov: Tensor | None = None
    cross: Tensor | None = None


def filters(run):
    def apply(model, y, observed, options):
        return Moments(*run(LinearGaussianSystem(*model, **options), y, observed))

    return apply


def smooths(smoother):
    def apply(model, y, observed, options):
        found = smoother(LinearGaussianSystem(*model, **options), y, observed)
        return Moments(None, None, None, None, None, *found)

    return apply


def paths(model, y, observed, options):
    """Moments of sampled paths: one for each noise."""
    system = LinearGaussianSystem(*model, **options)
    potentials = kalman.potentials(system, y, observed)
    q = kalman.posterior_kernels(system, potentials, G=factor(model.Q), G0=factor(model.P0))
    lead, steps, width = q.offset.shape[:-2], q.offset.shape[-2], q.factor.shape[-1]
    noise = torch.eye(steps * width, dtype=y.dtype).reshape(-1, *(1,) * len(lead), steps, width)
    mean = kalman.sample_paths(q, torch.zeros_like(noise[0]).expand(*lead, steps, width))
    level = q._replace(offset=torch.zeros_like(q.offset))  # no digit of theirs is lost to the mean
    off = kalman.sample_paths(level, noise.expand(-1, *lead, steps, width))
    cov = torch.einsum("n...ti,n...sj->...tisj", off, off)
    own = torch.stack([cov[..., t, :, t, :] for t in range(steps)], -3)
    past = [torch.zeros_like(own[..., 0, :, :])]
    past += [cov[..., t, :, t - 1, :] for t in range(1, steps)]
    return Moments(smoothed_mean=mean, smoothed_cov=own, cross=torch.stack(past, -3))


RUNS = {
    "filter": filters(kalman.filter),
    "scan": filters(kalman.filter_scan),
    "square root": filters(kalman.filter_square_root),
    "information": filters(kalman.filter_information),
    "smoother": smooths(kalman.smoother),
    "smoother by scan": smooths(kalman.smoother_scan),
    "paths": paths,
}
TWICE = ("filter", "scan", "square root", "smoother", "smoother by scan")


class Truth(NamedTuple):
    """Exact moments, of which coordinates they are determined, and how hard it is to have them."""

    distribution: Marginals
    moments: Moments
    known: Moments
    size: Tensor
    level: Tensor  # of means
    condition: float


def short(case: Case) -> Case:
    """The first steps of a case."""
    steps = case.y.shape[-2]
    parts = {}
    for name, x in case.model._asdict().items():
        axis = {"F": -3, "Q": -3, "H": -3, "R": -3, "b": -2, "d": -2}.get(name)
        varies = axis is not None and x.dim() >= -axis and x.shape[axis] == steps
        parts[name] = x.narrow(axis, 0, min(STEPS, steps)) if axis and varies else x
    y, observed = case.y[..., :STEPS, :], case.observed[..., :STEPS, :]
    return case._replace(model=LinearGaussian(**parts), y=y, observed=observed)


def spread(distribution: Marginals, steps: int) -> tuple[Moments, Moments]:
    """The moments that filters and smoothers return, and which coordinates are known."""
    lead, size = distribution.mean.shape[:-2], distribution.mean.shape[-1] // steps
    mean, known = (
        x.reshape(*lead, steps + 1, steps, size) for x in (distribution.mean, distribution.known)
    )
    cov = distribution.cov.reshape(*lead, steps + 1, steps, size, steps, size).movedim(-2, -3)
    at = torch.arange(steps)
    cross = cov[..., -1, at, at - 1, :, :]
    cross = torch.cat([torch.zeros_like(cross[..., :1, :, :]), cross[..., 1:, :, :]], -3)
    evidence = distribution.log_evidence.diff(dim=-1)
    found = Moments(
        mean[..., at + 1, at, :],
        cov[..., at + 1, at, at, :, :],
        mean[..., at, at, :],
        cov[..., at, at, at, :, :],
        evidence,
        mean[..., -1, :, :],
        cov[..., -1, at, at, :, :],
        cross,
    )
    after, before, last = known[..., at + 1, at, :], known[..., at, at, :], known[..., -1, :, :]
    past = torch.cat([last[..., :1, :], last[..., :-1, :]], -2)
    pair = Moments(
        after,
        after.unsqueeze(-1) & after.unsqueeze(-2),
        before,
        before.unsqueeze(-1) & before.unsqueeze(-2),
        torch.ones_like(evidence, dtype=torch.bool),
        last,
        last.unsqueeze(-1) & last.unsqueeze(-2),
        last.unsqueeze(-1) & past.unsqueeze(-2),
    )
    return found, pair


def truth(case: Case) -> Truth | None:
    """What is right, or None where double precision cannot tell it."""
    try:
        distribution = joint_distribution(case.model, case.y, case.observed, case.diffuse)
    except torch.linalg.LinAlgError:
        return None
    found, known = spread(distribution, case.y.shape[-2])
    deviation = [
        torch.where(k, x.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt(), 0.0)
        for x, k in ((found.cov, known.mean), (found.predicted_cov, known.predicted_mean))
    ]
    size = 1e-3 * torch.cat(deviation, -2).amax((-1, -2), keepdim=True) + 1e-9
    condition = max(
        x.max().item()
        for x in (distribution.condition, distribution.shrinkage, distribution.cancelled)
    )
    condition *= distribution.unlike.max().item()
    level = distribution.mean.abs().amax((-1, -2))[..., None, None]
    return Truth(distribution, found, known, size, level, condition) if condition < 1e12 else None


def precisely(case: Case, right: Truth) -> Truth:
    """The same with moments in hundreds of digits."""
    series = Line(case, case.seed, added=False).precisely(mp.mpf(0))
    found = precise_moments(series, case.diffuse)
    like = right.moments._asdict()
    return right._replace(
        moments=Moments(**{k: x.reshape(like[k].shape) for k, x in found.items()})
    )


def error(found: Moments, right: Truth, name: str) -> float:
    """The largest error in deviations, of what is known."""
    value, expected, known = (getattr(x, name) for x in (found, right.moments, right.known))
    if name == "log_evidence":
        return ((value - expected).abs() / (1 + expected.abs())).max().item()
    family = name.removesuffix("mean").removesuffix("cov") if name != "cross" else "smoothed_"
    variance = getattr(right.moments, f"{family}cov").diagonal(dim1=-2, dim2=-1)
    scale = torch.where(known.any(-1) if known.dim() > variance.dim() else known, variance, 0.0)
    scale = scale.clamp_min(0).sqrt() + right.size
    if value.dim() == expected.dim() == scale.dim():  # a mean is a sum of ones that are rounded
        scale = scale + expected.abs() + 1e-6 * right.level
    else:
        before = (
            scale if name != "cross" else torch.cat([scale[..., :1, :], scale[..., :-1, :]], -2)
        )
        scale = scale.unsqueeze(-1) * before.unsqueeze(-2)
    off = torch.where(known, (value - expected).abs() / scale, 0.0)
    return off.nan_to_num(nan=torch.inf).max().item()


def runs(case: Case) -> list[str]:
    """Which ways take a case: square roots no diffuse start, what divides by R a regular one."""
    names = [name for name in RUNS if name != "square root" or case.diffuse is None]
    if "R=zero" in case.kind or "R=low rank" in case.kind:
        names = [name for name in names if name not in ("information", "paths")]
    return names


def signal(case: Case, right: Truth) -> float:
    """How many times the noise what is observed varies: potentials divide by the noise.

    Of a diffuse start they are all that is known: what the whole of them is rounded to is inverted
    where they say least.
    """
    *lead, steps, _ = case.y.shape
    H, R = (case.model.full(tuple(lead), steps)[i] for i in (5, 7))
    P, known = right.moments.predicted_cov, right.known.predicted_cov
    variance = (H @ torch.where(known, P, 0.0) @ H.mT).diagonal(dim1=-2, dim2=-1)
    noise = R.diagonal(dim1=-2, dim2=-1)
    found = max(1.0, (variance / noise).max().item())
    if case.diffuse is not None:
        first = right.moments.smoothed_cov[..., 0, :, :].diagonal(dim1=-2, dim2=-1)
        first = torch.where(right.known.smoothed_mean[..., 0, :], first, 0.0).max()
        found = max(found, ((H.square().sum(-1) / noise).max() * first).item())
    return found


def far(case: Case, right: Truth) -> bool:
    """Whether values, or means, are a thousand times as large as the states deviate."""
    level = max(x.abs().max().item() for x in (case.y, right.distribution.mean))
    return level > 1e6 * right.size.min().item()


def options(case: Case) -> dict[str, Tensor]:
    return {} if case.diffuse is None else {"diffuse": case.diffuse}


@pytest.mark.parametrize("seeds", some(1.0), ids=str)
def test_every_way_has_the_moments_of_the_joint_distribution(seeds):
    for seed in seeds:
        case = short(random_case(seed))
        right = truth(case)
        if right is None:
            continue
        tolerance = max(1e-9, 50 * EPS * right.condition)
        sharp = cache(partial(precisely, case, right))
        for name in runs(case):
            if name == "paths" and not right.distribution.settled[..., -1].all():
                continue  # what nothing determines has a large variance there
            found = RUNS[name](case.model, case.y, case.observed, options(case))
            limit = tolerance * (signal(case, right) if name == "paths" else 1.0)
            for field, value in found._asdict().items():
                if value is not None:
                    off = error(found, right, field)
                    if off >= limit:  # of the joint distribution in double precision as it may be
                        off = error(found, sharp(), field)
                    assert off < limit, f"{name}, {field}: {off:.1e}, case {case.kind} ({seed})"


@pytest.mark.parametrize(
    "seed", [790, 1192, 1159, 1576, 1740, 1760, 820, 908, 1848, 2169, 2663, 3869]
)
def test_cases_that_many_seeds_found(seed):
    """Smoothers under wide priors, an exact observation, and small precisions in single numbers."""
    test_every_way_has_the_moments_of_the_joint_distribution([seed])
    test_single_precision_has_four_digits_where_a_case_leaves_them([seed])


def test_smoothed_covariances_under_a_large_prior_keep_their_digits():
    case = short(random_case(1192))
    right = truth(case)
    for name in ("smoother", "smoother by scan"):
        found = RUNS[name](case.model, case.y, case.observed, {})
        assert max(error(found, right, x) for x in ("smoothed_cov", "cross")) < 1e-10, name


# --- derivatives


def loss(found: Moments, right: Truth, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A number of each kind of moments, to which all contribute that are all determined."""
    parts = {}
    for name, value in found._asdict().items():
        if name == "log_evidence" and value is not None:
            parts[name] = value.sum()
        elif value is not None:
            when = settled_at(right, name, value)
            parts[name] = torch.where(when, weights[name] * value, 0.0).sum()
    return parts


def settled_at(right: Truth, name: str, value: Tensor) -> Tensor:
    """At which steps of which series data determine all of these moments."""
    settled = right.distribution.settled
    when = settled[..., 1:] if name in ("mean", "cov") else settled[..., :-1]
    if name.startswith(("smoothed", "cross")):
        when = settled[..., -1:].expand(*settled.shape[:-1], settled.shape[-1] - 1)
    return when.reshape(*when.shape, *(1,) * (value.dim() - when.dim()))


def weigh(right: Truth, seed: int) -> dict[str, Tensor]:
    """Random weights of moments, by their deviations."""
    g, weights = torch.Generator().manual_seed(seed), {}
    for name, value in right.moments._asdict().items():
        if name == "log_evidence":
            continue
        normal = torch.randn(value.shape, dtype=value.dtype, generator=g)
        square = name.endswith(("cov", "cross"))
        scale = right.size.unsqueeze(-1).square() if square else right.size
        weights[name] = (normal + normal.mT if square and name != "cross" else normal) / scale
    return weights


def precise_slopes(
    case: Case, right: Truth, weights: dict[str, Tensor], line: Line
) -> dict[str, tuple[float, float]]:
    """First and second derivatives of what :func:`loss` is of the exact moments."""
    masked = {
        name: torch.where(settled_at(right, name, x), x, 0.0).reshape(
            -1, *x.shape[case.y.dim() - 2 :]
        )
        for name, x in weights.items()
    }
    count = len(case.series())
    each = [{name: x[i] for name, x in masked.items()} for i in range(count)]
    return slopes_of(line.precisely, each, case.diffuse)


def slopes(parts: dict[str, Tensor], h: Tensor, *, twice: bool = False) -> dict[str, Tensor]:
    return {
        name: torch.autograd.grad(x, h, retain_graph=True, create_graph=twice)[0]
        for name, x in parts.items()
        if x.requires_grad
    }


@pytest.mark.parametrize("seeds", some(0.3), ids=str)
def test_every_way_has_the_gradient_of_the_joint_distribution(seeds):
    for seed in seeds:
        case = short(random_case(seed))
        right = truth(case)
        if right is None or not right.distribution.generic.all() or right.condition > 1e6:
            continue  # where a change determines more, there is no gradient
        weights, line = weigh(right, seed), Line(case, seed, added=True)
        h = torch.zeros((), dtype=torch.float64, requires_grad=True)
        model, y = line.at(h)
        distribution = joint_distribution(model, y, case.observed, case.diffuse)
        exact = slopes(loss(spread(distribution, y.shape[-2])[0], right, weights), h)
        for name in runs(case):
            if name == "paths":
                continue  # factors of what is singular have a gradient while their rank stays
            model, y = line.at(h)
            found = RUNS[name](model, y, case.observed, options(case))
            parts = loss(found, right, weights)
            for field, slope in slopes(parts, h).items():
                scale = exact[field].abs() + parts[field].detach().abs() + 1
                off = ((slope - exact[field]).abs() / scale).item()
                limit = max(1e-6, 1e4 * EPS * right.condition)
                assert off < limit, f"{name}, {field}: {off:.1e}, case {case.kind} ({seed})"


def test_a_scan_of_one_step_has_the_gradient_of_an_update_under_a_large_prior():
    """An observation without much noise: the mean moves by small differences of its information."""
    test_every_way_has_the_gradient_of_the_joint_distribution([1011])


@pytest.mark.parametrize("seeds", some(0.1), ids=str)
def test_derivatives_are_those_of_differences_twice(seeds):
    for seed in seeds:
        case = short(random_case(seed))
        right = truth(case)
        if right is None or not right.distribution.generic.all() or right.condition > 1e4:
            continue
        weights, line = weigh(right, seed), Line(case, seed, added=False)
        exact = cache(partial(precise_slopes, case, right, weights, line))

        def at(name, h, case=case, right=right, weights=weights, line=line):
            h = torch.tensor(h, dtype=torch.float64, requires_grad=True)
            model, y = line.at(h)
            parts = loss(RUNS[name](model, y, case.observed, options(case)), right, weights)
            return h, parts, slopes(parts, h, twice=name in TWICE and not h)

        for name in runs(case):
            h, middle, first = at(name, 0.0)
            (_, low, slow), (_, high, fast) = at(name, -STEP), at(name, STEP)
            rounding = 50 * EPS * right.condition * (signal(case, right) if name == "paths" else 1)
            for field, slope in first.items():
                found, value = slope.detach(), middle[field].detach()
                scale = found.abs() + value.abs() + 1
                about = (high[field] - low[field]).detach() / (2 * STEP)
                if (found - about).abs() > 1e-6 * scale:
                    about = exact()[field][0]  # such a line bends too much, or is too rough
                off = ((found - about).abs() / scale).item()
                assert off < max(1e-6, rounding), (
                    f"{name}, {field}: {off:.1e}, {case.kind} ({seed})"
                )
                if name in TWICE and slope.requires_grad:
                    second = torch.autograd.grad(slope, h, retain_graph=True)[0]
                    scale = scale + second.abs()
                    about = (fast[field] - slow[field]) / (2 * STEP)
                    if (second - about).abs() > 1e-4 * scale:
                        about = exact()[field][1]
                    off = ((second - about).abs() / scale).item()
                    assert off < 1e-4, f"{name}, {field}, twice: {off:.1e}, {case.kind} ({seed})"


@pytest.mark.parametrize("seeds", some(0.2), ids=str)
def test_single_precision_has_four_digits_where_a_case_leaves_them(seeds):
    for seed in seeds:
        case = short(random_case(seed))
        rounded = case.to(torch.float32).to(torch.float64)
        right = truth(rounded)
        if right is None or right.condition > 100 or far(case, right):
            continue
        single = rounded.to(torch.float32)
        for name in runs(case):
            rounding = 8 * torch.finfo(torch.float32).eps * signal(rounded, right)
            if name == "paths" and (rounding > 1 or not right.distribution.settled[..., -1].all()):
                continue  # there is no digit left of what is divided by the noise
            found = RUNS[name](single.model, single.y, case.observed, options(case))
            limit = 1e-4 * max(1.0, right.condition)
            limit = max(limit, rounding) if name == "paths" else limit
            for field, value in found._asdict().items():
                if value is not None:
                    off = error(Moments(**{field: value.double()}), right, field)
                    assert off < limit, f"{name}, {field}: {off:.1e}, case {case.kind} ({seed})"


# --- beliefs


@pytest.mark.parametrize("seeds", some(0.1), ids=str)
def test_beliefs_forecasts_and_updates_are_the_joint_distribution_conditioned(seeds):
    for seed in seeds:
        case = short(random_case(seed))
        one = case.series()[-1]
        stop = len(one.y) // 2
        distribution = LinearGaussian(
            *(x[-1] if i not in (3, 4) else x for i, x in enumerate(one.model))
        )
        case = one._replace(model=distribution)
        right = truth(case)
        if (
            right is None
            or right.condition > 1e6
            or stop < 1
            or not right.distribution.settled[stop]
        ):
            continue
        tolerance = max(1e-9, 50 * EPS * right.condition)
        flat = torch.zeros(len(distribution.m0)).bool() if case.diffuse is None else case.diffuse
        G0 = factor(torch.where(flat | flat[:, None], 0.0, distribution.P0))
        G0 = torch.cat([G0, torch.zeros_like(G0).masked_fill(flat.diag(), torch.inf)], -1)
        transition = Matrices(
            distribution.F, distribution.b, factor(distribution.Q), distribution.m0, G0
        )
        model = LatentModel(
            transition, Read(distribution.H, distribution.d, distribution.R), Kalman()
        )
        rows = Sequences.of(case.y[None], observed=case.observed[None])
        belief = model.belief(rows.window(0, stop))
        ahead = right.distribution.mean[stop].reshape(case.y.shape[0], -1)[stop:]
        noise = right.distribution.cov[stop].reshape(*(len(case.y), len(distribution.m0)) * 2)
        mean, variance = moments(model, belief, len(case.y) - stop)
        size = (
            1e3 * right.size.max() * distribution.H.norm() + distribution.R.diagonal().max().sqrt()
        )
        for t in range(stop, len(case.y)):
            right_variance = (
                distribution.H @ noise[t, :, t] @ distribution.H.T + distribution.R
            ).diagonal()
            off = (
                mean[0, t - stop] - distribution.H @ ahead[t - stop] - distribution.d
            ).abs() / size
            wide = (variance[0, t - stop] - right_variance).abs() / size.square()
            assert max(off.max(), wide.max()) < tolerance, f"case {case.kind} ({seed})"
            belief = model.update(belief, rows.window(t, t + 1))
            latest = Moments(mean=belief.latest.mean, cov=belief.latest.cov)
            exact = Moments(*(x[t : t + 1] for x in right.moments[:2]))
            known = Moments(*(x[t : t + 1] for x in right.known[:2]))
            here = right._replace(moments=exact, known=known)
            for field in ("mean", "cov"):
                off = error(latest, here, field)
                assert off < tolerance, f"{field}: {off:.1e}, case {case.kind} ({seed})"
