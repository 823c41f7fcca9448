"""Series with the same covariance path, in pieces that fit into the cache."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.kalman.blocks import continued
from seqlatent.kalman.first_block import begin, determines
from seqlatent.kalman.lifted import lift

_LOG_2PI = math.log(2 * math.pi)
# What a block costs apart from arithmetic, in operations: of about ten calls and their checks.
_OVERHEAD = 2e6
# Numbers of the matrices of a block that are worked on together, so that they stay in the cache.
_CELLS = 2**19


class Problem(NamedTuple):
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
    def own(self) -> bool:
        """Whether any matrix differs between the series."""
        return any(x.dim() == 3 for x in (self.F, self.Q, self.H, self.R, self.P0))

    def select(self, index: Tensor) -> "Problem":
        """Some of the series."""
        F, Q, H, R, P0 = (x[index] if x.dim() == 3 else x for x in self[:5])
        m0, y, ends = (x[index] for x in (self.m0, self.y, self.ends))
        seen = None if self.seen is None else self.seen[index]
        return Problem(F, Q, H, R, P0, m0, y, seen, ends, self.diffuse)


class Part(NamedTuple):
    """Series that are worked on together: G groups of C series with one covariance path each.

    Args:
        number: Their numbers ``(G, C)``.
        real: Which of them are, and not a repetition that fills up a group ``(G, C)``.
        rounds: Steps of a block are two to this power.
        own: Whether groups have matrices or patterns of their own.
    """

    number: Tensor
    real: Tensor
    rounds: int
    own: bool

    def values(self, problem: Problem) -> Float[Tensor, " N"]:
        """Log likelihoods of the series that are real."""
        F, Q, H, R, P0 = (
            x[self.number[:, 0]] if x.dim() == 3 and self.own else x for x in problem[:5]
        )
        m0, y, ends = (self.take(x) for x in (problem.m0, problem.y, problem.ends))
        y, (steps, D) = y.flatten(-2), y.shape[-2:]
        stop = int(ends.max())
        block, most = lift(F, Q, H, R, self.rounds), min(2**self.rounds, steps) * D
        early = later = None
        if problem.seen is not None:
            # one pattern for the group: what comes after the end of a series is as if it were seen
            early = self.take(problem.seen)[..., 0, :, :]
            later = (early | after(self.take(problem.ends)[..., 0], steps)).flatten(-2)
            early = early.flatten(-2)[..., :most]
            early = None if bool(early.all()) else early.to(y.dtype)
        flat = problem.diffuse
        short = flat is not None and 2**self.rounds < stop
        if flat is not None and short and not determines(block, early, flat, most):
            single, real = (x.reshape(-1, 1) for x in (self.number, self.real))
            return Part(single, real, self.rounds + 1, True).values(problem)
        started = begin(block, m0, P0, y[..., :most], early, flat)
        value = started.log_evidence
        if stop * D > most:
            data = _later(y[..., : stop * D], later, ends, most, D)
            value = value + continued(block, started.mean, started.cov, *data)
            if problem.seen is None:
                value = value - 0.5 * _LOG_2PI * (y.shape[-1] - most)
            else:
                number = self.take(problem.seen)[..., 2**self.rounds :, :].flatten(-2).sum(-1)
                value = value - 0.5 * _LOG_2PI * number.to(y.dtype)
        return value[self.real if self.own else self.real[0]]

    def take(self, x: Tensor) -> Tensor:
        """The rows of these series, ``(G, C, *)``, or ``(C, *)`` of the one group of all."""
        if self.own:
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


def parts(problem: Problem) -> Iterator[Part]:
    """Groups of series with the same covariance path, in pieces that fit into the cache."""
    batch, steps, D = problem.y.shape
    K, device = problem.F.shape[-1], problem.y.device
    if problem.own:
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
        yield Part(index, torch.ones_like(index, dtype=torch.bool), rounds, False)
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


def _pieces(index: Tensor, real: Tensor | None, rounds: int, D: int, K: int) -> Iterator[Part]:
    real = torch.ones_like(index, dtype=torch.bool) if real is None else real
    width = 2**rounds * D
    most = max(_CELLS // (width * width + width * K + K * K), 8)
    for i in range(0, len(index), most):
        yield Part(index[i : i + most], real[i : i + most], rounds, True)


def _rounds(steps: int, D: int, K: int, groups: int, batch: int) -> int:
    """The size of a block, as a power of two, that takes the least time."""

    def cost(rounds: int) -> float:
        width = 2**rounds * D
        own = 6 * K**3 + 6 * K**2 * width + 4 * K * width**2 + width**3
        data = 4 * K * width + width**2
        return -(-steps // 2**rounds) * (_OVERHEAD + groups * own + batch * data) + groups * own

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
