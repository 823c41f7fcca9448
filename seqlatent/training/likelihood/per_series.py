"""Fitting the parameters of each series of a panel, with a prior learned from all."""

import copy
import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training.deadline import Deadline, Pace
from seqlatent.training.history import History
from seqlatent.training.likelihood.population_prior import Pool
from seqlatent.training.likelihood.quasi_newton import Minima, minimise
from seqlatent.training.likelihood.reparametrisation import Signed
from seqlatent.training.likelihood.series_problems import Problems, Tables

__all__ = ["EachHistory", "draws_each", "fit_each"]

# The inverse Hessian that a descent on deviations starts with; the deviation at which one that is
# near zero starts anew, and most evaluations that it then gets.
_INVERSE, _SMALL, _AGAIN = 0.02, 0.03, 15


@dataclass
class EachHistory(History):
    """Record of a fit of each series.

    Args:
        pool: The distribution of the parameters that was learned, with its mean in the pooled row.
        evidence: Log evidence of each series ``(B,)`` at its parameters.
        marginal: Estimate of the log evidence of each series ``(B,)``, averaged over its posterior.
        mode: Most probable vector of each series ``(B, P)``; see :class:`Pool`.
        cov: Covariances ``(B, P, P)`` of their posteriors, as the descent saw the curvature.
        rounds: Evaluations of each series ``(B,)``.
        converged: Whether a series' next step would have gained less than the tolerance ``(B,)``.
    """

    pool: Pool | None = None
    evidence: Tensor = field(default_factory=lambda: torch.empty(0))
    marginal: Tensor = field(default_factory=lambda: torch.empty(0))
    mode: Tensor = field(default_factory=lambda: torch.empty(0, 0), repr=False)
    cov: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0), repr=False)
    rounds: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    converged: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))


def fit_each(
    model: LatentModel,
    data: Sequences,
    *,
    pool: Pool | None = None,
    pooled: bool = True,
    stages: int = 5,
    sample: int = 256,
    points: int = 64,
    rounds: int = 40,
    tolerance: int | float = 0.02,
    spread: int | float = 1.5,
    weight: int | float = 5.0,
    seed: int = 0,
    deadline: Deadline | None = None,
) -> EachHistory:
    r"""Maximises the evidence of each series over parameters of its own, under a prior of all.

    .. math::
        \hat\theta_b = \arg\max_\theta \; \log p(y_b \mid \theta)
            + \log N(\theta; \mu, \Sigma)

    The distribution is learned by expectation maximisation, so that a short series borrows from the
    others what it cannot say itself. All series are fitted at once and each at its own pace: one
    that has converged costs nothing. The mean of the distribution goes into the pooled row, which
    series that were not there read.

    Args:
        model: A model with a row of parameters per series: :func:`per_series`.
        data: The series; the first static code of each names its row, and no two share one.
        pool: The distribution, where it is known; it is learned by default.
        pooled: Whether there is a distribution. Without, each series has its own maximum of the
            likelihood, ``spread`` says where it is looked for, and ``mode`` and ``cov`` are of
            standard deviations in the place of their logarithms.
        stages: Rounds of expectation maximisation.
        sample: Most series, drawn at random, from which the distribution is learned.
        points: Parameters, spread over the distribution, from the best of which a series starts.
        rounds: Most evaluations of a series in each stage.
        tolerance: Gain in log density below which a step is not worth while.
        spread: Standard deviation of each parameter in the distribution at the start, whose mean
            are the parameters that the pooled row holds.
        weight: How many series that distribution counts for.
        seed: Seed of points and sample.
        deadline: By when to stop, with a distribution; series that are not reached have its mean,
            and no rounds.

    Returns:
        What was learned, and how far each series came.

    Raises:
        ValueError: If the model has no rows, a series no row of its own, or a setting is out of
            range.

    Example:
        >>> from seqlatent.model import per_series
        >>> y = torch.randn(3, 30, 1).cumsum(1)
        >>> model = per_series(seqlatent.zoo.structural(), 3)
        >>> history = fit_each(model, Sequences.of(y, codes=torch.arange(3)[:, None]))
        >>> history.stopped, history.evidence.shape
        ('converged', torch.Size([3]))

    References:
        Empirical Bayes Methods and Applications (Casella, 1985).
        Numerical Optimization (Nocedal & Wright, 2006), chapter 6.
    """
    began = time.perf_counter()
    _check(stages=stages, sample=sample, points=points, rounds=rounds)
    _check_positive(tolerance=tolerance, spread=spread, weight=weight)
    if pool is not None and not pooled:
        raise ValueError(
            "pooled=False fits without a distribution, found a pool; leave one of them out."
        )
    tables, history = Tables(model), EachHistory()
    mean = tables.read(tables.series)
    start = Pool(mean, float(spread) ** 2 * torch.eye(len(mean)).to(mean), mean)
    if not pooled:
        x = Problems(tables, data, start).beginning(start, points, seed)
        _maximise(tables, data, x, history, rounds=rounds, tolerance=tolerance)
        tables.write(tables.series, mean)
        history.seconds = time.perf_counter() - began
        return history
    limit = Deadline() if deadline is None else deadline
    problems = Problems(tables, data, start if pool is None else pool)
    search = _Search(points, rounds, tolerance, seed)
    if pool is None:
        if not limit.never:
            sample = min(sample, _affordable(problems, limit, points + 15 * stages))
        few = _sampled(problems, sample, seed)
        pool = _learned(few, start, stages, weight, search, limit.part(0.5), history)
    found = search.minima(problems, pool, limit)
    history.objective += [-value / problems.cells for value in found.path]
    _record(problems, pool, found, history)
    if not bool(found.rounds.all()) or (limit.passed and history.stopped == "steps"):
        history.stopped = "time"
    history.seconds = time.perf_counter() - began
    return history


class _Search(NamedTuple):
    """How the most probable parameters of a series are looked for: see :func:`fit_each`."""

    points: int
    rounds: int
    tolerance: float | int
    seed: int

    def minima(self, problems: Problems, pool: Pool, deadline: Deadline) -> Minima:
        """Those of all series."""
        if not deadline.never:
            return _in_chunks(problems, pool, self, deadline)
        x = problems.beginning(pool, self.points, self.seed)
        return self.descend(problems, pool, x, deadline)

    def descend(self, problems: Problems, pool: Pool, x: Tensor, deadline: Deadline) -> Minima:
        """Those to which a descent leads."""
        return minimise(
            problems.posterior(pool),
            x,
            0.5 * pool.cov,
            rounds=self.rounds,
            tolerance=self.tolerance,
            deadline=deadline,
        )


def _sampled(problems: Problems, sample: int, seed: int) -> Problems:
    """So many series, drawn at random."""
    data, generator = problems.data, torch.Generator().manual_seed(seed)
    chosen = torch.randperm(data.batch, generator=generator)[:sample].to(problems.row.device)
    return Problems(problems.tables, data.select(chosen), problems.bound)


def _learned(
    few: Problems,
    start: Pool,
    stages: int,
    weight: int | float,
    search: _Search,
    deadline: Deadline,
    history: EachHistory,
) -> Pool:
    """The distribution of the parameters, by expectation maximisation over some series."""
    pool = start
    x = few.beginning(pool, search.points, search.seed, deadline.part(0.3))
    inverse = 0.5 * pool.cov
    for _ in range(stages):
        if deadline.passed:
            break
        found = minimise(
            few.posterior(pool),
            x,
            inverse,
            rounds=search.rounds,
            tolerance=5 * search.tolerance,
            deadline=deadline,
        )
        x, inverse = found.x, found.inverse
        pool = start.learned(x, inverse, weight=weight)
        history.objective += [-value / few.cells for value in found.path]
    return pool


def _record(problems: Problems, pool: Pool, found: Minima, history: EachHistory) -> None:
    """Writes what was found into the model's rows and the history."""
    tables = problems.tables
    tables.write(problems.row, pool.parameters(found.x))
    tables.write(tables.series, pool.parameters(pool.mean))
    history.pool, history.rounds, history.converged = pool, found.rounds, found.converged
    history.mode, history.cov = found.x, found.inverse
    history.evidence = -found.value - pool.log_prob(found.x)
    # Laplace's approximation of the integral over the parameters
    volume = torch.linalg.slogdet(2 * math.pi * found.inverse)[1]
    history.marginal = -found.value + 0.5 * volume
    history.stopped = "converged" if bool(found.converged.all()) else "steps"


def _affordable(problems: Problems, deadline: Deadline, evaluations: int) -> int:
    """Series that so many evaluations take a quarter of the time for."""
    theta = problems.tables.read(problems.tables.series)[None]
    size, most = 4, problems.data.batch
    while size < most:
        began = deadline.spent
        problems(torch.arange(size, device=theta.device), theta.expand(size, -1))
        if 4 * evaluations * (deadline.spent - began) > deadline.left:
            break
        size *= 2
    return size


def _in_chunks(problems: Problems, prior: Pool, search: _Search, deadline: Deadline) -> Minima:
    """Descents of some series after the other, as many as there is time for."""
    data = problems.data
    batch = data.batch
    x, value = prior.mean.repeat(batch, 1), prior.mean.new_full((batch,), math.nan)
    inverse, gradient = prior.cov.repeat(batch, 1, 1), torch.zeros_like(x)
    count = torch.zeros(batch, dtype=torch.long, device=x.device)
    converged = torch.zeros(batch, dtype=torch.bool, device=x.device)
    path: list[float] = []
    pace, begin, width = Pace(deadline), 0, 16
    while begin < batch:
        if not pace.reaches(min(width, batch - begin)) and (begin or deadline.passed):
            break
        index = torch.arange(begin, min(begin + width, batch), device=x.device)
        part = Problems(problems.tables, data.select(index), prior)
        start = part.beginning(prior, search.points, search.seed, deadline.part(0.3))
        found = search.descend(part, prior, start, deadline)
        x[index], value[index], inverse[index] = found.x, found.value, found.inverse
        gradient[index], count[index] = found.gradient, found.rounds
        converged[index] = found.converged
        path += found.path[-1:]
        begin, width = begin + width, 2 * width
    return Minima(x, value, gradient, inverse, count, converged, path)


def _maximise(
    tables: Tables,
    data: Sequences,
    theta: Tensor,
    history: EachHistory,
    *,
    rounds: int,
    tolerance: int | float,
) -> None:
    """Writes the maxima of the likelihood that are found from given parameters."""
    chart = Signed(tables.logarithmic.to(theta.device))
    problems = Problems(tables, data, chart)
    inverse = _INVERSE * torch.eye(theta.shape[-1]).to(theta)
    settings = {"rounds": rounds, "tolerance": tolerance}
    found = minimise(problems.likelihood, chart.coordinates(theta), inverse, **settings)
    x, value, count = found.x, found.value, found.rounds
    cov, converged = found.inverse, found.converged
    history.objective += [-v / problems.cells for v in found.path]
    # the slope at the end, which says of which variances zero is not the best value
    moved = chart.away_from_zero(x, found.gradient, _SMALL, 10 * tolerance)
    again = (moved != x).any(-1).nonzero()[:, 0]
    if len(again):

        def evaluate(index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return problems.likelihood(again[index], x)

        other = minimise(evaluate, moved[again], inverse, rounds=_AGAIN, tolerance=tolerance)
        better = other.value < value[again]
        chosen = again[better]
        x[chosen], value[chosen] = other.x[better], other.value[better]
        cov[chosen], converged[chosen] = other.inverse[better], other.converged[better]
        count[again] += other.rounds
    tables.write(problems.row, chart.parameters(x))
    history.mode, history.cov, history.evidence = x, cov, -value
    history.marginal = torch.full_like(value, math.nan)
    history.rounds, history.converged = count, converged
    history.stopped = "converged" if bool(converged.all()) else "steps"


def draws_each(
    model: LatentModel, data: Sequences, history: EachHistory, n: int, *, seed: int = 0
) -> list[LatentModel]:
    """Models whose rows are drawn from normal approximations of the posteriors of a fit.

    A mixture of them says how uncertain the parameters are, most of all those of short series.
    Draws come in pairs on opposite sides of the mode; a single one is the mode.

    Args:
        model: The model that was fitted.
        data: The series.
        history: What :func:`fit_each` returned.
        n: How many models.
        seed: Seed of the draws.

    Example:
        >>> from seqlatent.model import per_series
        >>> model = per_series(seqlatent.zoo.structural(), 2)
        >>> data = Sequences.of(torch.randn(2, 30, 1), codes=torch.arange(2)[:, None])
        >>> len(draws_each(model, data, fit_each(model, data), 4))
        4
    """
    _check(n=n)
    if history.pool is None:
        raise ValueError("draws need the history that fit_each returned, found one without a pool.")
    mode, row = history.mode, data.codes[:, 0]
    factor = torch.linalg.cholesky_ex(history.cov)[0]
    generator = torch.Generator().manual_seed(seed)
    models, away = [], torch.zeros_like(mode)
    for i in range(n):
        if n > 1 and i % 2 == 0:
            eps = torch.randn(mode.shape, generator=generator, dtype=torch.float64).to(mode)
            away = (factor @ eps[..., None])[..., 0]
        drawn = copy.deepcopy(model)
        Tables(drawn).write(row, history.pool.parameters(mode + away * (1 if i % 2 else -1)))
        models.append(drawn)
    return models


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, found {value!r}.")


def _check_positive(**numbers: int | float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, found {value!r}.")
