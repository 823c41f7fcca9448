"""Particle filters, for every model that can be sampled and scored."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.chain import Correction, initial_of, next_of
from seqlatent.distributions import sample
from seqlatent.inference.base import Generative, Latest, at, position
from seqlatent.sequences import Context, Sequences

__all__ = ["latest_of", "particle_filter"]


class Cloud(NamedTuple):
    """Weighted particles at every step.

    Attributes:
        values: Particles ``(N, B, T, K)``.
        log_weights: Normalised log weights ``(N, B, T)``.
        ancestors: Index ``(N, B, T)`` of each particle's parent at the step before; its own at the
            first step.
        log_evidence: Estimate of ``log p(y_t | y_{<t})``, ``(B, T)``; its exponentiated sum is
            unbiased.
    """

    values: Tensor
    log_weights: Tensor
    ancestors: Tensor
    log_evidence: Tensor


def systematic_resampling(
    log_weights: Float[Tensor, "N B"], generator: torch.Generator | None = None
) -> Int[Tensor, "N B"]:
    r"""Ancestor indices drawn with one uniform per series.

    Index ``i`` is drawn between ``floor(N w_i)`` and ``ceil(N w_i)`` times, with mean ``N w_i``.

    References:
        Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space Models (Kitagawa,
        1996).
    """
    n, batch = log_weights.shape
    device = log_weights.device if generator is None else generator.device
    u = torch.rand(batch, 1, dtype=log_weights.dtype, device=device, generator=generator).to(
        log_weights.device
    )
    cdf = log_weights.detach().softmax(0).cumsum(0).T.contiguous()
    points = (torch.arange(n, dtype=cdf.dtype, device=cdf.device) + u) / n
    return torch.searchsorted(cdf, points, right=True).clamp_max(n - 1).T


def take(values: Tensor, index: Tensor) -> Tensor:
    """Particles ``(N, B, K)`` at the indices ``(M, B)``."""
    return values.gather(0, index[..., None].expand(*index.shape, values.shape[-1]))


def particle_filter(
    model: Generative,
    sequences: Sequences,
    c: Context,
    n: int,
    *,
    proposal: Correction | None = None,
    start: Latest | None = None,
    threshold: int | float = 0.5,
    generator: torch.Generator | None = None,
) -> Cloud:
    r"""Sequential importance sampling with systematic resampling.

    Args:
        model: The generative model.
        sequences: Observations.
        c: Context of every step; with the statistics of the proposal in it if there is one.
        n: Number of particles ``N``.
        proposal: Distribution to draw from, a correction of the model's transition; None is the
            transition itself (bootstrap).
        start: State before the first step.
        threshold: A series is resampled where its effective sample size falls below
            ``threshold * n``.
        generator: Source of randomness.

    References:
        Novel Approach to Nonlinear/Non-Gaussian Bayesian State Estimation (Gordon, Salmond & Smith,
        1993). Filtering Variational Objectives (Maddison et al., 2017).
    """
    steps = c.unbind()
    batch = sequences.batch
    log_weights = uniform = sequences.y.new_zeros(n, batch).log_softmax(0)
    own = torch.arange(n, device=log_weights.device)[:, None].expand(n, batch)
    z, started = None, None
    if start is not None and bool(start.started.any()):
        z, log_weights = _continue(start, n, log_weights, generator)
        started = start.started
    record: list[tuple[Tensor, ...]] = []
    for t, now in enumerate(steps):
        ancestors = own
        if z is not None:
            log_weights, ancestors = _resample(log_weights, own, threshold, generator)
            z = take(z, ancestors)
        z, log_ratio = _propose(model, proposal, z, started if t == 0 else None, now, n, generator)
        increment = log_ratio + model.emission.log_prob(
            sequences.y[:, t], sequences.observed[:, t], z, now
        )
        log_weights = log_weights + increment
        log_evidence = log_weights.logsumexp(0)
        # Where no particle explains a step the evidence is zero, and the filter goes on with all.
        lost = log_evidence == -torch.inf
        log_weights = torch.where(lost, uniform, log_weights - log_evidence)
        record.append((z, log_weights, ancestors, log_evidence))
    values, weights, ancestors, log_evidence = zip(*record, strict=True)
    return Cloud(
        torch.stack(values, -2),
        torch.stack(weights, -1),
        torch.stack(ancestors, -1),
        torch.stack(log_evidence, -1),
    )


def _continue(
    start: Latest, n: int, uniform: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Particles and weights to go on from: the start's where their number fits, else draws."""
    exact = start.cov is None and start.values is not None and len(start.values) == n
    if exact and start.values is not None and start.log_weights is not None:
        return start.values, torch.where(start.started, start.log_weights, uniform)
    return start.draw(n, generator), uniform


def _resample(
    log_weights: Tensor, own: Tensor, threshold: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    n = len(log_weights)
    poor = (2 * log_weights.detach()).logsumexp(0).neg().exp() < threshold * n
    # drawn whether used or not: one series' weights must not shift another's noise
    drawn = systematic_resampling(log_weights, generator)
    uniform = torch.zeros_like(log_weights).log_softmax(0)
    return torch.where(poor, uniform, log_weights), torch.where(poor, drawn, own)


def _propose(
    model: Generative,
    proposal: Correction | None,
    z: Tensor | None,
    started: Tensor | None,
    c: Context,
    n: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Draws the next particles and scores prior against proposal."""
    if z is None:
        return _draw(initial_of(model.transition, c), None, proposal, c, (n,), generator)
    moved = _draw(next_of(model.transition, z, c), z, proposal, c, (), generator)
    if started is None or bool(started.all()):
        return moved
    fresh = _draw(initial_of(model.transition, c), None, proposal, c, (n,), generator)
    chosen = torch.where(started[:, None], moved[0], fresh[0])
    return chosen, torch.where(started, moved[1], fresh[1])


def _draw(
    p: Distribution,
    z: Tensor | None,
    proposal: Correction | None,
    c: Context,
    shape: tuple[int, ...],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    if proposal is None:
        value = sample(p, shape, generator)
        return value, value.new_zeros(value.shape[:-1])
    q = proposal.correct(p, z, c)
    value = sample(q, shape, generator)
    return value, p.log_prob(value) - q.log_prob(value)


def latest_of(
    cloud: Cloud, sequences: Sequences, start: Latest | None, end: bool | Tensor
) -> Latest:
    """The particles at the step where a filter stops."""
    index = position(sequences, end)
    values = at(cloud.values.movedim(0, 2), index).movedim(1, 0)
    log_weights = at(cloud.log_weights.movedim(0, 2), index).T
    started = index >= 0
    if start is not None:
        if (
            start.values is not None
            and start.log_weights is not None
            and len(start.values) == len(values)
        ):
            values = torch.where(started[:, None], values, start.values)
            log_weights = torch.where(started, log_weights, start.log_weights)
        started = started | start.started
    return Latest(None, None, values, log_weights, started)
