"""Hidden Markov models against all paths of states, over random ones.

`make fuzz N=5000` takes so many of them. Logarithms are sums over steps of logarithms that were
given, so that each is rounded by a few units of the largest of those times the number of steps: a
tolerance is in proportion to that, of gradients too, which are made of exponentials of such sums.
"""

from typing import NamedTuple

import pytest
import torch
from random_regimes import INF, Chain, random_chain
from random_systems import cases
from torch import Tensor

from seqlatent import hmm

FILTERS = {"filter": hmm.filter, "scan": hmm.filter_scan}
SMOOTHERS = {"smoother": hmm.smoother, "smoother by scan": hmm.smoother_scan}


def some(share: float) -> list[range]:
    """Seeds in chunks: 200 or as many as asked for, or this share of them."""
    return [seeds[: max(1, round(share * len(seeds)))] for seeds in cases(200)]


# --- hidden Markov models


class Marginals(NamedTuple):
    """Logarithms of all that there is to know, and of each possible path."""

    log_prob: Tensor
    log_predicted: Tensor
    log_evidence: Tensor
    smoothed: Tensor
    log_pair: Tensor
    paths: Tensor | None = None
    joint: Tensor | None = None


def summed(x: Tensor, place: Tensor, size: int) -> Tensor:
    """Logarithms of sums of exponentials of what is at each place; -inf where nothing is."""
    parts = [x[place == i] for i in range(size)]
    return torch.stack([p.logsumexp(0) if len(p) else x.new_tensor(-INF) for p in parts])


def enumerated(first: Tensor, M: Tensor, ll: Tensor) -> Marginals:
    """One series by all its paths; a step that none explains is as if it were missing."""
    steps, size = ll.shape
    joint, paths = first.new_zeros(1), torch.zeros(1, 0, dtype=torch.long)
    found: list[tuple[Tensor, ...]] = []
    for t in range(steps):
        base = joint.logsumexp(0)
        joint = joint[:, None] + (M[t, paths[:, -1]] if t else first)
        now = torch.arange(size).repeat(len(paths))[:, None]
        joint, paths = joint.flatten(), torch.cat([paths.repeat_interleave(size, 0), now], 1)
        joint, paths = joint[joint > -INF], paths[joint > -INF]
        predicted = summed(joint, paths[:, -1], size) - base
        after = joint + ll[t, paths[:, -1]]
        evidence = after.new_tensor(-INF)
        if bool((after > -INF).any()):
            joint, paths = after[after > -INF], paths[after > -INF]
            evidence = joint.logsumexp(0) - base
        found.append((summed(joint, paths[:, -1], size) - joint.logsumexp(0), predicted, evidence))
    distribution = joint - joint.logsumexp(0)
    pairs = paths[:, :-1] * size + paths[:, 1:]
    return Marginals(
        *(torch.stack(x) for x in zip(*found, strict=True)),
        torch.stack([summed(distribution, s, size) for s in paths.unbind(1)]),
        torch.cat(
            [
                distribution.new_zeros(0),
                *(summed(distribution, p, size**2) for p in pairs.unbind(1)),
            ]
        ).reshape(-1, size, size),
        paths,
        distribution,
    )


def truths(case: Chain) -> list[Marginals]:
    """The distributions of each series."""
    first, M, ll = case.model
    steps, size = ll.shape[-2:]
    M = M if M.dim() > 2 else M[None]
    lead = torch.broadcast_shapes(first.shape[:-1], M.shape[:-3], ll.shape[:-2])
    first, M = first.expand(*lead, size), M.expand(*lead, steps, size, size)
    flat = (x.reshape(-1, *x.shape[len(lead) :]) for x in (first, M, ll.expand(*lead, steps, size)))
    return [enumerated(*one) for one in zip(*flat, strict=True)]


def rounding(case: Chain) -> float:
    """What a sum over steps of logarithms is rounded by, with room."""
    size = max(x[x > -INF].abs().max().item() if (x > -INF).any() else 0 for x in case.model)
    return 40 * torch.finfo(case.log_initial.dtype).eps * case.log_likelihood.shape[-2] * (1 + size)


def results(name: str, model: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What a filter or smoother returns, by the names of what is right, series in one axis."""
    if name in FILTERS:
        found = FILTERS[name](*model)._asdict()
    else:
        found = SMOOTHERS[name](*model)._asdict()
        found["smoothed"] = found.pop("log_prob")
    axes = {"log_evidence": 1, "log_pair": 3}
    return {
        k: x.flatten(0, x.dim() - 1 - axes.get(k, 2)) if x.dim() > axes.get(k, 2) else x[None]
        for k, x in found.items()
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seeds", some(0.7), ids=str)
def test_filters_and_smoothers_have_the_laws_of_all_paths(seeds, dtype):
    for seed in seeds:
        case = random_chain(seed).to(dtype)
        right, limit = truths(case.to(torch.float64)), rounding(case)
        for name in (*FILTERS, *SMOOTHERS):
            for field, found in results(name, case.model).items():
                assert found.dtype == dtype
                expected = torch.stack([getattr(one, field) for one in right])
                assert found.shape == expected.shape, (name, field, case.kind, seed)
                if field in ("log_prob", "smoothed", "log_pair"):
                    total = found.exp().sum((-1, -2) if field == "log_pair" else -1)
                    assert ((total - 1).abs() < 40 * torch.finfo(dtype).eps).all(), (name, seed)
                off = torch.where(found == expected, 0.0, (found - expected).abs())
                assert (off <= limit).all(), (
                    f"{name}, {field}: {off.max():.1e} {case.kind} ({seed})"
                )


@pytest.mark.parametrize("seeds", some(0.7), ids=str)
def test_evidence_kernels_and_best_paths_are_those_of_all_paths(seeds):
    for seed in seeds:
        case = random_chain(seed)
        limit, where = rounding(case), f"{case.kind} ({seed})"
        evidence = hmm.log_evidence(*case.model).flatten()
        q, best = hmm.posterior_kernels(*case.model), hmm.viterbi(*case.model)
        steps, size = case.log_likelihood.shape[-2:]
        initial = q.log_initial.reshape(-1, size)
        moves = q.log_transition.reshape(len(initial), steps - 1, size, size)
        for i, one in enumerate(truths(case)):
            total, log_q = one.log_evidence.sum(), initial[i, one.paths[:, 0]]
            for t in range(1, one.paths.shape[1]):
                log_q = log_q + moves[i, t - 1, one.paths[:, t - 1], one.paths[:, t]]
            assert ((log_q - one.joint).abs() <= limit).all(), where
            assert evidence[i] == total or (evidence[i] - total).abs() <= limit, where
            found, expected = best.log_joint.flatten()[i], total + one.joint.max()
            assert found == expected or (found - expected).abs() <= limit, where
            own = one.joint[(one.paths == best.path.reshape(-1, steps)[i]).all(-1)]
            assert len(own), f"an impossible path, {where}"
            assert own >= one.joint.max() - limit, where


@pytest.mark.parametrize("seeds", some(0.3), ids=str)
def test_gradients_are_those_of_sums_over_all_paths(seeds):
    for seed in seeds:
        case, g = random_chain(seed), torch.Generator().manual_seed(seed)
        inputs = [x.clone().requires_grad_() for x in case.model]
        right = truths(case._replace(**dict(zip(Chain._fields[2:], inputs, strict=True))))
        runs = {name: results(name, tuple(inputs)) for name in (*FILTERS, *SMOOTHERS)}
        runs["evidence"] = {"log_evidence": hmm.log_evidence(*inputs).reshape(-1, 1)}
        for name, found in runs.items():
            ours = theirs = inputs[0].new_zeros(())
            for field, x in found.items():
                expected = torch.stack([getattr(one, field) for one in right])
                if name == "evidence":
                    expected = expected.sum(-1, keepdim=True)
                w = torch.randn(x.shape, dtype=x.dtype, generator=g)
                w, possible = w * (expected.detach() > -INF), expected.detach() > -INF
                ours = ours + torch.where(possible, w * x, 0.0).sum()
                theirs = theirs + torch.where(possible, w * expected, 0.0).sum()
            pairs = zip(slopes(ours, inputs), slopes(theirs, inputs), strict=True)
            for part, (slope, exact) in zip(Chain._fields[2:], pairs, strict=True):
                limit = rounding(case) * (1 + exact.abs().max()) * exact.numel() ** 0.5
                off = (slope - exact).abs().max()
                assert off <= limit, f"{name}, {part}: {off:.1e}, {case.kind} ({seed})"


def slopes(x: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients, zero where there is none."""
    if not x.requires_grad:
        return [torch.zeros_like(y) for y in inputs]
    found = torch.autograd.grad(x, inputs, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(y) if z is None else z for y, z in zip(inputs, found, strict=True)]


@pytest.mark.parametrize("seeds", some(0.2), ids=str)
def test_draws_are_possible_and_have_their_frequencies(seeds):
    number = 1000
    for seed in seeds:
        case = random_chain(seed)
        g = torch.Generator().manual_seed(seed)
        drawn = hmm.sample_paths(*case.model, (number,), g)
        drawn = drawn.reshape(number, -1, drawn.shape[-1])
        for i, one in enumerate(truths(case)):
            same = (drawn[:, i, None] == one.paths).all(-1)
            assert same.any(-1).all(), f"an impossible path, {case.kind} ({seed})"
            distribution, share = one.joint.exp(), same.double().mean(0)
            limit = 6 * (distribution * (1 - distribution) / number).sqrt() + 8 / number
            assert ((share - distribution).abs() <= limit).all(), f"{case.kind} ({seed})"
