"""Particle filters and backward sampling, for every model that can be sampled and scored."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from seqlatent.chain import Chain, Correction
from seqlatent.distributions import Carried, Empirical, FactorNormal, draw
from seqlatent.inference.inference import Generative, Inference, Latest, States, at, position
from seqlatent.sequences import Context, Sequences

__all__ = ["Cloud", "ParticleChain", "Particles", "particle_filter", "systematic_resampling"]

# Densities that backward sampling evaluates at a time: enough to keep a processor busy.
_CELLS = 1 << 20


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


def _take(values: Tensor, index: Tensor) -> Tensor:
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
        proposal: Law to draw from, a correction of the model's transition; None is the transition
            itself (bootstrap).
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
            z = _take(z, ancestors)
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
    if start.values is not None and start.log_weights is not None and len(start.values) == n:
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
        return _draw(model.transition.initial(c), None, proposal, c, (n,), generator)
    moved = _draw(model.transition(z, c), z, proposal, c, (), generator)
    if started is None or bool(started.all()):
        return moved
    fresh = _draw(model.transition.initial(c), None, proposal, c, (n,), generator)
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
        value = draw(p, shape, generator)
        return value, value.new_zeros(value.shape[:-1])
    q = proposal.correct(p, z, c)
    value = draw(q, shape, generator)
    return value, p.log_prob(value) - q.log_prob(value)


@runtime_checkable
class Proposing(Protocol):
    """An inference that can propose particles: a kernel, and the context that it reads."""

    def proposal(
        self, model: Generative, sequences: Sequences, c: Context
    ) -> tuple[Correction, Context]: ...


class Particles(Inference):
    r"""Particle filter with backward sampling: any model, at the price of ``n`` copies.

    Its evidence is unbiased.

    Args:
        n: Number of particles.
        proposal: A trained :class:`Amortised` inference to draw from; None draws from the model's
            transition.
        threshold: Share of ``n`` below which the effective sample size triggers resampling.

    Example:
        >>> exact = seqlatent.zoo.structural()
        >>> model = seqlatent.LatentModel(exact.transition, exact.emission, Particles(100))
        >>> model.filter(Sequences.of(torch.zeros(2, 5, 1))).log_evidence.shape
        torch.Size([2, 5])

    References:
        Monte Carlo Smoothing for Nonlinear Time Series (Godsill, Doucet & West, 2004), for backward
        sampling.
    """

    def __init__(
        self, n: int = 1000, proposal: Inference | None = None, *, threshold: int | float = 0.5
    ) -> None:
        super().__init__()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a number of particles of at least 1, found {n!r}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a share between 0 and 1, found {threshold}.")
        if proposal is not None and not isinstance(proposal, Proposing):
            raise TypeError(
                f"proposal must be an Amortised inference, found {type(proposal).__name__}."
            )
        self.n = n
        self.threshold = threshold
        self.proposal = proposal

    def cloud(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context | None = None,
        *,
        start: Latest | None = None,
        generator: torch.Generator | None = None,
    ) -> Cloud:
        """Runs the filter and keeps all particles."""
        c = model.context(sequences) if c is None else c
        kernel = None
        if self.proposal is not None:
            kernel, c = self.proposal.proposal(model, sequences, c)
        return particle_filter(
            model,
            sequences,
            c,
            self.n,
            proposal=kernel,
            start=start,
            threshold=self.threshold,
            generator=generator,
        )

    def forward(self, model: Generative, sequences: Sequences, c: Context | None = None) -> Chain:
        return ParticleChain(self, model, sequences, model.context(sequences) if c is None else c)

    def filter(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        cloud = self.cloud(model, sequences, c, generator=generator)
        return States(Empirical(cloud.values, cloud.log_weights), cloud.log_evidence)

    def smooth(
        self,
        model: Generative,
        sequences: Sequences,
        *,
        c: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> States:
        c = model.context(sequences) if c is None else c
        cloud = self.cloud(model, sequences, c, generator=generator)
        paths = backward_sample(model, cloud, c, self.n, generator)
        return States(Empirical(paths, paths.new_zeros(paths.shape[:-1])), cloud.log_evidence)

    def latest(
        self,
        model: Generative,
        sequences: Sequences,
        c: Context,
        *,
        start: Latest | None = None,
        end: bool = False,
        generator: torch.Generator | None = None,
    ) -> Latest:
        cloud = self.cloud(model, sequences, c, start=start, generator=generator)
        return latest_of(cloud, sequences, start, end)


def latest_of(cloud: Cloud, sequences: Sequences, start: Latest | None, end: bool) -> Latest:
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


class ParticleChain(Chain):
    """Posterior over paths by backward sampling; it can be drawn from but has no density."""

    def __init__(
        self, particles: Particles, model: Generative, sequences: Sequences, context: Context
    ) -> None:
        self.particles = particles
        self.model = model
        self.sequences = sequences
        self.context = context

    def rsample(
        self, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        cloud = self.particles.cloud(self.model, self.sequences, self.context, generator=generator)
        count = int(torch.Size(shape).numel())
        paths = backward_sample(self.model, cloud, self.context, count, generator)
        return paths.reshape(*shape, *paths.shape[1:])

    def log_prob(self, z: Float[Tensor, "*S B T K"]) -> Float[Tensor, "*S B T"]:
        raise TypeError(
            "a particle posterior has no density: use the objectives evidence or fivo, or "
            "Amortised for elbo and iwae."
        )

    def conditionals(
        self, z: Float[Tensor, "*S B T K"], prior: tuple[Distribution, Distribution] | None = None
    ) -> tuple[Distribution, Distribution]:
        self.log_prob(z)
        raise AssertionError


def backward_sample(
    model: Generative,
    cloud: Cloud,
    c: Context,
    count: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws smoothed paths ``(count, B, T, K)`` from a filter's particles, without gradients.

    Where the state carries deterministic memory, or moves on a subspace, no particle but the parent
    can lead to a child, and the paths are traced along their ancestors.
    """
    with torch.no_grad():
        steps = c.unbind()
        weights = cloud.log_weights
        index = draw(
            torch.distributions.Categorical(logits=weights[..., -1].T, validate_args=False),
            (count,),
            generator,
        )
        path = [_take(cloud.values[..., -1, :], index)]
        for t in range(len(steps) - 2, -1, -1):
            law = model.transition(cloud.values[..., t, :], steps[t + 1])
            if isinstance(law, Carried) or _is_thin(law):
                index = cloud.ancestors[..., t + 1].gather(0, index)
            else:
                index = _backward_index(law, weights[..., t], path[-1], generator)
            path.append(_take(cloud.values[..., t, :], index))
        path.reverse()
        return torch.stack(path, -2)


def _is_thin(law: Distribution) -> bool:
    return isinstance(law, FactorNormal) and law.factor.shape[-1] < law.event_shape[0]


def _backward_index(
    law: Distribution,
    log_weights: Tensor,
    following: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Index of a parent for each following state, many of them at a time."""
    size = max(1, _CELLS // max(1, log_weights.numel()))
    drawn = []
    for part in following.split(size):
        logits = (log_weights + law.log_prob(part[:, None])).movedim(1, -1)
        choice = torch.distributions.Categorical(logits=logits, validate_args=False)
        drawn.append(draw(choice, (), generator))
    return torch.cat(drawn)
