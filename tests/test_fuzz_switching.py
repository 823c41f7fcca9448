"""Switching linear systems against all paths of regimes, over random ones.

`make fuzz N=5000` takes so many of them. Moments of a state have the tolerance of those of
`test_fuzz_moments`, by the condition of the joint normal of each path of regimes. The logarithm of
a probability is rounded as the log density of what is observed is, relative to its size, and
moments of a mixture by as much of the distance between its parts.
"""

import itertools
from typing import NamedTuple

import pytest
import torch
from exact_moments import Marginals, joint_distribution
from random_regimes import AXES, INF, Switching, System, random_switching
from random_systems import cases
from reference import LinearGaussian
from torch import Tensor

from seqlatent import hmm, kalman, switching

EPS = torch.finfo(torch.float64).eps


def some(share: float) -> list[range]:
    """Seeds in chunks: 200 or as many as asked for, or this share of them."""
    return [seeds[: max(1, round(share * len(seeds)))] for seeds in cases(200)]


def particles(system, y, observed, **kwargs) -> switching.Filtered:
    """The particle filter with all paths, which is exact."""
    size = system.log_initial.shape[-1] ** y.shape[-2]
    return switching.rao_blackwell(system, y, observed, particles=size, **kwargs).filtered


FILTERS = {"imm": switching.imm, "gpb2": switching.gpb2, "particles": particles}


class Truth(NamedTuple):
    """The last regime and state of one series; what logarithms and moments may be off by.

    Moments are in units of ``size``, the deviation of a state in its regime.
    """

    log_evidence: Tensor  # of all steps
    log_prob: Tensor  # (S,)
    mean: Tensor  # (S, K)
    cov: Tensor  # (S, K, K)
    size: Tensor  # (S,)
    limit: float
    rounding: Tensor  # (S,) of logarithms
    spread: Tensor  # (S,) of the parts of a mixture


def distributions(case: System) -> tuple[Tensor, Tensor, Marginals] | None:
    """All possible paths of regimes of one series, their log probabilities, and the states."""
    model, y, observed = case.model, case.y, case.observed
    steps, size = len(y), model.log_initial.shape[-1]
    paths = torch.tensor(list(itertools.product(range(size), repeat=steps)))
    prior = model.log_initial[paths[:, 0]]
    for t in range(1, steps):
        prior = prior + model.log_transition[t, paths[:, t - 1], paths[:, t]]
    paths, prior = paths[prior > -INF], prior[prior > -INF]
    along = {name: getattr(model, name)[torch.arange(steps), paths] for name in "FbQHdR"}
    m0, P0 = model.m0[paths[:, 0]], model.P0[paths[:, 0]]
    system = LinearGaussian(*(along[n] for n in "FbQ"), m0, P0, *(along[n] for n in "HdR"))
    try:
        distribution = joint_distribution(
            system, y.expand(len(paths), -1, -1), observed.expand(len(paths), -1, -1)
        )
    except torch.linalg.LinAlgError:
        return None  # double precision cannot tell
    return paths, prior, distribution


def enumerated(case: System) -> Truth | None:
    """One series by all its paths of regimes."""
    found = distributions(case)
    if found is None:
        return None
    paths, prior, distribution = found
    size, K = case.model.m0.shape[-2:]
    condition = max(
        x.max().item()
        for x in (distribution.condition, distribution.shrinkage, distribution.cancelled)
    )
    if condition > 1e10:
        return None
    limit = max(1e-9, 50 * EPS * condition)
    evidence, mean = distribution.log_evidence[:, -1], distribution.mean[:, -1, -K:]
    joint, cov = prior + evidence, distribution.cov[:, -1, -K:, -K:]
    parts = []
    for state in range(size):
        here = paths[:, -1] == state
        if not here.any():
            none = mean.new_zeros(K)
            parts.append(
                (joint.new_tensor(-INF), none, none.diag(), *none[:1], *none[:1], *none[:1])
            )
            continue
        share = joint[here].softmax(0)
        centre = (share[:, None] * mean[here]).sum(0)
        far = mean[here] - centre
        total = (share[:, None, None] * (cov[here] + far[:, :, None] * far[:, None, :])).sum(0)
        deviation = total.diagonal().clamp_min(0).amax().sqrt() + 1e-9
        apart = (share * far.abs().amax(-1)).sum() / deviation
        counts = torch.where(share > 1e-20, evidence[here].abs() + prior[here].abs(), 0.0).amax()
        parts.append((joint[here].logsumexp(0), centre, total, deviation, 1 + counts, apart))
    log_prob, mean, cov, deviation, counts, apart = (
        torch.stack(x) for x in zip(*parts, strict=True)
    )
    total = joint.logsumexp(0)
    counts = counts + counts[log_prob.argmax()]
    return Truth(total, log_prob - total, mean, cov, deviation, limit, limit * counts, apart)


@pytest.mark.parametrize("seeds", some(0.4), ids=str)
def test_filters_have_the_laws_of_all_paths(seeds):
    for seed in seeds:
        whole = random_switching(seed)
        steps = whole.y.shape[-2]
        for name, stop in {("imm", 1), ("gpb2", 1), ("gpb2", min(2, steps)), ("particles", steps)}:
            case = whole.until(stop)
            found = FILTERS[name](*case.arguments)
            log_prob, mean, cov = (
                flat(x, n)[:, -1] for x, n in zip(found[:3], (2, 3, 4), strict=True)
            )
            evidence = flat(found.log_evidence, 1).sum(-1)
            for i, one in enumerate(case.series()):
                right = enumerated(one)
                if right is None:
                    continue
                where = f"{name}, step {stop}, series {i}, {case.kind} ({seed})"
                off = (evidence[i] - right.log_evidence).abs()
                assert off <= right.rounding.max(), f"evidence {off:.1e}, {where}"
                off = torch.where(
                    log_prob[i] == right.log_prob, 0.0, (log_prob[i] - right.log_prob).abs()
                )
                assert (off <= right.rounding).all(), f"log_prob {off.max():.1e}, {where}"
                for k in range(len(log_prob[i])):
                    if right.log_prob[k] == -INF or right.rounding[k] > 1e-3:
                        continue
                    size, more = right.size[k], right.rounding[k] * right.spread[k]
                    off = (mean[i, k] - right.mean[k]).abs().max() / (
                        size + right.mean[k].abs().max()
                    )
                    assert off <= right.limit + more, f"mean {off:.1e}, {where}"
                    off = (cov[i, k] - right.cov[k]).abs().max() / size.square()
                    assert off <= right.limit + 10 * more, f"cov {off:.1e}, {where}"


def flat(x: Tensor, event: int) -> Tensor:
    """All leading axes as one, before so many others."""
    return x.flatten(0, -event - 1) if x.dim() > event else x.unsqueeze(0)


def alike(case: System) -> System:
    """The same where every regime is the first one."""
    parts = {}
    for name, x in case.model._asdict().items():
        event = AXES[name][0]
        if name not in ("log_initial", "log_transition"):
            x = x.narrow(-event, 0, 1).expand(x.shape)
        parts[name] = x
    return case._replace(model=Switching(**parts))


@pytest.mark.parametrize("seeds", some(0.15), ids=str)
def test_regimes_that_are_alike_leave_a_kalman_filter(seeds):
    for seed in seeds:
        case = alike(random_switching(seed)).full()
        model, where = case.model, f"{case.kind} ({seed})"
        one = [getattr(model, name).select(-AXES[name][0], 0) for name in Switching._fields[2:]]
        rights = [enumerated(x) for x in case.series()]
        if any(x is None for x in rights):
            continue
        system = kalman.LinearGaussianSystem(*one)
        exact = kalman.filter(system, case.y, case.observed)
        after = kalman.smoother(system, case.y, case.observed)
        nothing = case.y.new_zeros(*case.y.shape[:-1], model.log_initial.shape[-1])
        chain = hmm.filter(*model[:2], nothing)
        limit = max(x.limit for x in rights)
        rounding = limit * (1 + exact.log_evidence.abs().max())
        for name, run in FILTERS.items():
            found = run(*case.arguments)
            assert (found.log_evidence - exact.log_evidence).abs().max() <= rounding, (name, where)
            off = difference(found.log_prob, chain.log_prob) / (1 + chain.log_prob.abs())
            assert off.nan_to_num(0.0).max() <= rounding, f"{name}, {where}"
            same(found, exact.mean, exact.cov, limit, f"{name}, {where}")
            if limit < 1e-8:  # backward, a predicted covariance is divided by
                smoothed = switching.smoother(switching.SwitchingSystem(*model), found)
                right = hmm.smoother(*model[:2], nothing).log_prob
                off = difference(smoothed.log_prob, right) / (1 + right.abs())
                assert off.nan_to_num(0.0).max() <= rounding, f"{name}, smoother, {where}"
                same(smoothed, after.mean, after.cov, 1e3 * limit, f"{name}, smoother, {where}")


def difference(x: Tensor, y: Tensor) -> Tensor:
    """How far logarithms are apart, zero where both are infinite."""
    return torch.where(x == y, 0.0, (x - y).abs())


def same(found, mean: Tensor, cov: Tensor, limit: float, where: str) -> None:
    """Distributions of states are these in each regime that is possible."""
    possible = found.log_prob > -INF
    size = cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).amax((-1, -2), keepdim=True).sqrt() + 1e-9
    off = (found.mean - mean.unsqueeze(-2)).abs() / (size + mean.abs()).unsqueeze(-2)
    off = torch.where(possible.unsqueeze(-1), off, 0.0)
    assert (off <= limit).all(), f"mean {off.max():.1e} {where}"
    off = (found.cov - cov.unsqueeze(-3)).abs() / size.square()[..., None, None]
    off = torch.where(possible[..., None, None], off, 0.0)
    assert (off <= limit).all(), f"cov {off.max():.1e} {where}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seeds", some(0.4), ids=str)
def test_marginals_are_distributions(seeds, dtype):
    eps = torch.finfo(dtype).eps
    for seed in seeds:
        case = random_switching(seed).to(dtype)
        if dtype == torch.float32 and "absurd" in case.kind:
            continue  # parts of mixtures that are so far apart leave no digit for the noise
        for name, run in FILTERS.items():
            found = run(*case.arguments)
            smoothed = switching.smoother(case.arguments[0], found)
            where = f"{name}, {case.kind} ({seed})"
            assert found.log_evidence.isfinite().all(), where
            most = max(x.abs().max() for x in (case.model.P0, found.cov, smoothed.cov))
            for x in (found, smoothed):
                assert x.mean.dtype == dtype
                assert x.mean.isfinite().all(), where
                assert (x.log_prob.exp().sum(-1) - 1).abs().max() <= 100 * eps, where
                assert torch.equal(x.cov, x.cov.mT), where
                assert torch.linalg.eigvalsh(x.cov).min() >= -100 * eps * most, where


@pytest.mark.parametrize("seeds", some(0.1), ids=str)
def test_order_and_company_do_not_count(seeds):
    for seed in seeds:
        case = random_switching(seed)
        rights = [enumerated(x) for x in case.series()]
        if any(x is None for x in rights):
            continue
        g, limit = torch.Generator().manual_seed(seed), max(x.limit for x in rights)
        order = torch.randperm(case.model.log_initial.shape[-1], generator=g)
        parts = {k: x.index_select(-AXES[k][0], order) for k, x in case.model._asdict().items()}
        parts["log_transition"] = parts["log_transition"].index_select(-1, order)
        turned = case._replace(model=Switching(**parts))
        unread = case._replace(y=torch.where(case.observed, case.y, torch.nan))
        stop = int(torch.randint(1, case.y.shape[-2] + 1, (), generator=g))
        for name, run in FILTERS.items():
            found, where = run(*case.arguments), f"{name}, {case.kind} ({seed})"
            sequel = [run(*one.arguments) for one in case.series()]
            alone = (
                torch.stack(x).reshape(y.shape)
                for x, y in zip(zip(*sequel, strict=True), found, strict=True)
            )
            other = run(*turned.arguments)
            turns = [x.index_select(-n, order) for x, n in zip(found[:3], (1, 2, 3), strict=True)]
            cut = run(*case.until(stop).arguments)
            start = [flat(x, n)[:, :stop] for x, n in zip(found, (2, 3, 4, 1), strict=True)]
            close(switching.Filtered(*alone), found, limit, f"alone, {where}")
            close(other, switching.Filtered(*turns, found.log_evidence), limit, f"turned, {where}")
            close(run(*unread.arguments), found, limit, f"unread, {where}")
            close(cut, switching.Filtered(*start), limit, f"cut, {where}")


def close(x: switching.Filtered, y: switching.Filtered, limit: float, where: str) -> None:
    """Two filters found the same, by how well their numbers are determined."""
    x, y = (
        switching.Filtered(*(flat(v, n) for v, n in zip(z, (2, 3, 4, 1), strict=True)))
        for z in (x, y)
    )
    counts = 1 + y.log_evidence.abs().cumsum(-1)
    off = (x.log_evidence - y.log_evidence).abs() / counts
    assert (off <= limit).all(), f"log_evidence {off.max():.1e} {where}"
    off = difference(x.log_prob, y.log_prob) / (
        counts[..., None] + y.log_prob.clamp_min(-1e300).abs()
    )
    assert (off <= limit).all(), f"log_prob {off.max():.1e} {where}"
    if limit * counts.max() > 1e-6:
        return
    size = y.cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).amax((-1, -2), keepdim=True).sqrt() + 1e-9
    level = size + y.mean.abs().amax((-1, -2), keepdim=True)
    limit = 100 * limit * float(counts.max())
    off = torch.where(y.log_prob[..., None] > -INF, (x.mean - y.mean).abs() / level, 0.0)
    assert (off <= limit).all(), f"mean {off.max():.1e} {where}"
    off = torch.where(
        y.log_prob[..., None, None] > -INF, (x.cov - y.cov).abs() / level[..., None].square(), 0.0
    )
    assert (off <= limit).all(), f"cov {off.max():.1e} {where}"


@pytest.mark.parametrize("seeds", some(0.15), ids=str)
def test_gradients_are_those_of_all_paths(seeds):
    for seed in seeds:
        whole = random_switching(seed)
        for name, stop in (("gpb2", min(2, whole.y.shape[-2])), ("particles", whole.y.shape[-2])):
            case = whole.until(stop)
            leaves = [x.clone().requires_grad_() for x in (*case.model, case.y)]
            case = case._replace(model=Switching(*leaves[:-1]), y=leaves[-1])
            found = [distributions(one) for one in case.series()]
            if any(x is None for x in found):
                continue
            distribution = [x[2] for x in found]
            worst = max(
                x.max().item()
                for one in distribution
                for x in (one.condition, one.shrinkage, one.cancelled)
            )
            size = max(one.log_evidence.abs().max().item() for one in distribution)
            limit = 1e4 * EPS * worst * (1 + size)
            if limit > 1e-3:
                continue
            exact = sum((prior + one.log_evidence[:, -1]).logsumexp(0) for _, prior, one in found)
            value = FILTERS[name](*case.arguments).log_evidence.sum()
            for part, slope, right in zip(
                (*Switching._fields, "y"), *(slopes(x, leaves) for x in (value, exact)), strict=True
            ):
                if part in ("Q", "P0", "R"):
                    slope, right = (slope + slope.mT) / 2, (right + right.mT) / 2
                off = ((slope - right).abs() / (1 + right.abs().max())).max()
                where = f"{name}, {part}: {off:.1e}, {case.kind} ({seed})"
                assert off <= max(1e-6, limit), where


def slopes(x: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradients, zero where there is none."""
    if not x.requires_grad:
        return [torch.zeros_like(y) for y in leaves]
    found = torch.autograd.grad(x, leaves, allow_unused=True)
    return [torch.zeros_like(y) if z is None else z for y, z in zip(leaves, found, strict=True)]
