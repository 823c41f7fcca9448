"""Series with the same covariance path, in pieces that fit into the cache."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.kalman.aligned import AlignedSystem, aligned
from seqlatent.kalman.diffuse.directions import Directions, directions, overlooked
from seqlatent.kalman.diffuse.initialisation import concatenated, initial_phase
from seqlatent.kalman.likelihood.block_model import BlockModel, block_model
from seqlatent.kalman.likelihood.diffuse_regression import nearly_collinear, regression
from seqlatent.kalman.likelihood.initial_block import diffuse_condition, initial_block
from seqlatent.kalman.likelihood.later_blocks import later_blocks
from seqlatent.kalman.moments.information import augmented_filter
from seqlatent.kalman.moments.sequential import forward
from seqlatent.kalman.system import Problem

_LOG_2PI = math.log(2 * math.pi)
# What a block costs apart from arithmetic, in operations: of about ten calls and their checks.
_OVERHEAD = 2e6
# Numbers of the matrices of a block that are worked on together, so that they stay in the cache.
_CELLS = 2**19
# What rounding may add to the log likelihood, by the cell: a part of what is promised, for the
# condition counts the worst variance once.
_AMPLIFIED = 3e-11


class TimeInvariantProblem(NamedTuple):
    """A model whose matrices are shared ``(i, j)`` or of each series ``(B, i, j)``, and its data.

    ``seen`` is None where all was; ``ends`` counts the steps up to the last of which anything was.
    """

    F: Tensor
    Q: Tensor
    H: Tensor
    R: Tensor
    P0: Tensor
    m0: Float[Tensor, "B K"]
    y: Float[Tensor, "B T D"]
    seen: Bool[Tensor, "B T D"] | None
    ends: Int[Tensor, " B"]
    diffuse: Tensor | None

    @property
    def per_series(self) -> bool:
        """Whether any matrix differs between the series."""
        return any(x.dim() == 3 for x in (self.F, self.Q, self.H, self.R, self.P0))

    def select(self, index: Tensor) -> "TimeInvariantProblem":
        """Some of the series."""
        F, Q, H, R, P0 = (x[index] if x.dim() == 3 else x for x in self[:5])
        m0, y, ends = (x[index] for x in (self.m0, self.y, self.ends))
        seen = None if self.seen is None else self.seen[index]
        return TimeInvariantProblem(F, Q, H, R, P0, m0, y, seen, ends, self.diffuse)


class Likelihoods(NamedTuple):
    """Log likelihoods of some series."""

    number: Int[Tensor, " N"]
    value: Float[Tensor, " N"]


class SeriesGroups(NamedTuple):
    """Series that are worked on together: G groups of C series with one covariance path each.

    Args:
        number: Their numbers ``(G, C)``.
        real: Which of them are, and not a repetition that fills up a group ``(G, C)``.
        rounds: Steps of a block are two to this power.
        per_series: Whether groups have matrices or patterns of their own.
        longer: Whether longer blocks are tried before single steps where digits would be lost: a
            prior of large variance is met by more rows then.
    """

    number: Tensor
    real: Tensor
    rounds: int
    per_series: bool
    longer: bool = True

    def evaluate(self, problem: TimeInvariantProblem) -> list[Likelihoods]:
        """Numbers and log likelihoods of the series that are real."""
        F, Q, H, R, _ = self._matrices(problem)
        block, (early, later) = block_model(F, Q, H, R, self.rounds), self._patterns(problem)
        diffuse, stop = problem.diffuse, int(self.take(problem.ends).max())
        limit = trusted(problem.y.dtype, self._cells(problem))
        if diffuse is not None and 2**self.rounds < stop:
            known = self._every(diffuse_condition(block, early, diffuse) < limit)
            if not bool(known.all()):
                more = self._alone(~known, self.rounds + 1)
                return more.evaluate(problem) + self._some(known, problem)
        value, condition = self._by_blocks(problem, block, early, later, stop)
        good = self._every(condition < limit)
        if bool(good.all()):
            return [
                Likelihoods(
                    self.number[self.real], value[self.real if self.per_series else self.real[0]]
                )
            ]
        if self.longer and 2**self.rounds < stop:
            more = self._alone(~good, self.rounds + 2)._replace(longer=False)
            return more.evaluate(problem) + self._some(good, problem)
        poor = self.number[~good][self.real[~good]]
        found = Likelihoods(poor, step_by_step(problem.select(poor)))
        return [found, *self._some(good, problem)]

    def _alone(self, which: Tensor, rounds: int) -> "SeriesGroups":
        """The series of some groups, each by itself, in longer blocks."""
        chosen = self.real[which]
        number = self.number[which][chosen].unsqueeze(-1)
        return SeriesGroups(
            number, torch.ones_like(number, dtype=torch.bool), rounds, True, self.longer
        )

    def _cells(self, problem: TimeInvariantProblem) -> int | Tensor:
        """The number of cells that were seen in each group."""
        if problem.seen is None:
            return problem.y[0].numel()
        return self.take(problem.seen)[..., 0, :, :].sum((-1, -2)).clamp_min(1)

    def _every(self, x: Tensor) -> Tensor:
        return x.expand(len(self.number))

    def _some(self, which: Tensor, problem: TimeInvariantProblem) -> list[Likelihoods]:
        """The groups of which something is true, by themselves."""
        if not bool(which.any()):
            return []
        return self._replace(number=self.number[which], real=self.real[which]).evaluate(problem)

    def _matrices(self, problem: TimeInvariantProblem) -> list[Tensor]:
        chosen = self.number[:, 0]
        return [x[chosen] if x.dim() == 3 and self.per_series else x for x in problem[:5]]

    def _patterns(self, problem: TimeInvariantProblem) -> tuple[Tensor | None, Tensor | None]:
        """What was seen in the first block, and after it, by one pattern for a group.

        What comes after the end of a series is there as if it were seen.
        """
        if problem.seen is None:
            return None, None
        early = self.take(problem.seen)[..., 0, :, :]
        steps = early.shape[-2]
        later = (early | after(self.take(problem.ends)[..., 0], steps)).flatten(-2)
        early = early[..., : 2**self.rounds, :].flatten(-2)
        return None if bool(early.all()) else early.to(problem.y.dtype), later

    def _by_blocks(
        self,
        problem: TimeInvariantProblem,
        block: BlockModel,
        early: Tensor | None,
        later: Tensor | None,
        stop: int,
    ) -> tuple[Float[Tensor, "*G C"], Float[Tensor, "*g"]]:
        """Log likelihoods, and the condition of each group."""
        m0, y, ends = (self.take(x) for x in (problem.m0, problem.y, problem.ends))
        y, D, most = y.flatten(-2), y.shape[-1], min(2**self.rounds, y.shape[-2]) * y.shape[-1]
        P0 = self._matrices(problem)[4]
        first = initial_block(block, m0, P0, y[..., :most], early, problem.diffuse)
        value, condition = first.log_evidence, first.condition
        if stop * D <= most:
            return value, condition
        data = _later(y[..., : stop * D], later, ends, most, D)
        more, further = later_blocks(block, first.mean, first.cov, first.size, *data)
        number: Tensor | int = y.shape[-1] - most
        if problem.seen is not None:
            number = self.take(problem.seen)[..., 2**self.rounds :, :].flatten(-2).sum(-1)
            number = number.to(y.dtype)
        return value + more - 0.5 * _LOG_2PI * number, torch.maximum(condition, further)

    def take(self, x: Tensor) -> Tensor:
        """The rows of these series, ``(G, C, *)``, or ``(C, *)`` of the one group of all."""
        if self.per_series:
            return x[self.number]
        return x


def _later(
    y: Tensor, pattern: Tensor | None, ends: Tensor, width: int, D: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Rows after the first block by blocks, those that were seen, and those that count."""
    stop = y.shape[-1]
    number = -(-(stop - width) // width)
    short = number * width - (stop - width)

    def blocks(x: Tensor, filler: float) -> Tensor:
        x = x[..., width:stop].to(y.dtype)
        x = torch.nn.functional.pad(x, (0, short), value=filler) if short else x
        return x.unflatten(-1, (number, width)).movedim(-2, 0)

    if pattern is not None:
        pattern = None if bool(pattern[..., width:stop].all()) else blocks(pattern, 1.0)
    counted = None
    if short or bool((ends * D < stop).any()):
        rows = torch.arange(stop, device=y.device)
        every = ends.flatten()[:1].reshape([1] * ends.dim())
        least = ends if bool((ends * D < stop).any()) else every
        counted = blocks(rows < least[..., None] * D, 0.0)
    return blocks(y, 0.0), pattern, counted


def trusted(dtype: torch.dtype, cells: int | Tensor) -> float | Tensor:
    """Condition below which the log likelihood of so many cells has all digits that matter."""
    return _AMPLIFIED * cells / torch.finfo(dtype).eps


def in_order(found: list[Likelihoods]) -> Float[Tensor, " B"]:
    """Log likelihoods of all series, from those of some at a time."""
    order = torch.cat([each.number for each in found])
    return torch.cat([each.value for each in found])[order.argsort()]


def step_by_step(problem: TimeInvariantProblem) -> Float[Tensor, " B"]:
    """By the filter, which takes what is too ill-conditioned as a block of rows row by row."""
    F, Q, H, R = (x.unsqueeze(-3) if x.dim() == 3 else x for x in problem[:4])
    y, seen, m0 = problem.y, problem.seen, problem.m0
    seen = torch.ones_like(y, dtype=torch.bool) if seen is None else seen
    b, d = y.new_zeros(m0.shape[-1]), y.new_zeros(y.shape[-1])
    return by_filter(Problem(F, b, Q, m0, problem.P0, H, d, R, y, seen, problem.diffuse))


def by_filter(problem: Problem) -> Tensor:
    """What the filter finds."""
    s = aligned(problem)
    if s.diffuse is None:
        return forward(s).log_evidence.sum(0).expand(s.lead)
    found = directions(s)
    value = _diffuse(s, found)
    if not value.requires_grad or not (s.F.requires_grad or s.H.requires_grad):
        return value
    if not overlooked(s, found):
        return value
    if bool(torch.linalg.cholesky_ex(s.R.detach())[1].any()):
        return value
    # of each step by itself there is no such derivative, of their sum there is
    known = augmented_filter(s)
    if known is None:
        return value
    total = known.log_evidence.sum(0).expand(value.shape)
    # what stays undetermined is left out of an information that has no derivative there
    left = (found.left != 0).flatten(-2).any(-1).expand(value.shape)
    return torch.where(left, value, total + (value - total).detach())


def _diffuse(s: AlignedSystem, found: Directions) -> Tensor:
    """Of a diffuse start what the filter finds, or a regression where rows nearly are collinear."""
    first, later = initial_phase(s, found)
    try:
        moments = first if later is None else concatenated(first, forward(later))
        collinear = nearly_collinear(s, moments, found.settled.plain)
    except ValueError:  # what was left of a variance by rounding is none
        known = regression(s, found.left)
        if known is None:
            raise
        return known
    known = regression(s, found.left) if collinear else None
    return moments.log_evidence.sum(0).expand(s.lead) if known is None else known


def series_groups(problem: TimeInvariantProblem) -> Iterator[SeriesGroups]:
    """Groups of series with the same covariance path, in pieces that fit into the cache."""
    batch, steps, D = problem.y.shape
    K, device = problem.F.shape[-1], problem.y.device
    if problem.per_series:
        rounds = _rounds(steps, D, K, batch, batch)
        yield from _pieces(torch.arange(batch, device=device)[:, None], None, rounds, D, K)
        return
    rounds = _rounds(steps, D, K, 1, batch)
    pattern = problem.seen
    if problem.seen is not None:
        pattern = problem.seen | after(problem.ends, steps)
        pattern[:, : 2**rounds] = problem.seen[:, : 2**rounds]
    if pattern is None or bool((pattern == pattern[:1]).all()):
        index = torch.arange(batch, device=device)[None]
        yield SeriesGroups(index, torch.ones_like(index, dtype=torch.bool), rounds, False)
        return
    _, group, count = pattern.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
    member = group.argsort(stable=True)
    start = count.cumsum(0) - count
    rounds = min(rounds, _rounds(steps, D, K, len(count), batch))
    size = count.double().log2().ceil().long()
    for power in size.unique().tolist():
        chosen = (size == power).nonzero()[:, 0]
        slot = torch.arange(int(count[chosen].max()), device=device)
        real = slot < count[chosen, None]
        index = member[start[chosen, None] + torch.where(real, slot, 0)]
        yield from _pieces(index, real, rounds, D, K)


def _pieces(
    index: Tensor, real: Tensor | None, rounds: int, D: int, K: int
) -> Iterator[SeriesGroups]:
    real = torch.ones_like(index, dtype=torch.bool) if real is None else real
    width = 2**rounds * D
    most = max(_CELLS // (width * width + width * K + K * K), 8)
    for i in range(0, len(index), most):
        yield SeriesGroups(index[i : i + most], real[i : i + most], rounds, True)


def _rounds(steps: int, D: int, K: int, groups: int, batch: int) -> int:
    """The size of a block, as a power of two, that takes the least time."""

    def cost(rounds: int) -> float:
        width = 2**rounds * D
        group = 6 * K**3 + 6 * K**2 * width + 4 * K * width**2 + width**3
        data = 4 * K * width + width**2
        return -(-steps // 2**rounds) * (_OVERHEAD + groups * group + batch * data) + groups * group

    return min(range(math.ceil(math.log2(max(steps, 1))) + 1), key=cost)


def ends_of(seen: Bool[Tensor, "*L T D"]) -> Tensor:
    """Steps up to the last one of which anything was seen."""
    steps = seen.shape[-2]
    if bool(seen[..., -1, 0].all()):
        return torch.full(seen.shape[:-2], steps, device=seen.device)
    step = torch.arange(1, steps + 1, device=seen.device)
    return torch.where(seen.any(-1), step, 0).amax(-1)


def after(ends: Tensor, steps: int) -> Tensor:
    """Which cells come after the end."""
    return (torch.arange(steps, device=ends.device) >= ends[..., None])[..., None]
