"""The log likelihood of a linear-Gaussian model, by blocks of steps."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqlatent.kalman import reduced
from seqlatent.kalman.blocks import begin, continued, determines
from seqlatent.kalman.elements import align, leading
from seqlatent.kalman.lifted import lift
from seqlatent.kalman.sequential import filter
from seqlatent.recurrence import affine_recurrence

__all__ = ["log_likelihood"]

_LOG_2PI = math.log(2 * math.pi)
# What a block costs apart from arithmetic, in operations: of about ten calls and their checks.
_OVERHEAD = 2e6
# Numbers of the matrices of a block that are worked on together, so that they stay in the cache.
_CELLS = 2**18
# Series whose reduced forms are worked on together.
_SERIES = 2048


def log_likelihood(
    F: Float[Tensor, "*f K K"],
    b: Float[Tensor, "*b K"],
    Q: Float[Tensor, "*q K K"],
    m0: Float[Tensor, "*m K"],
    P0: Float[Tensor, "*p K K"],
    H: Float[Tensor, "*h D K"],
    d: Float[Tensor, "*d D"],
    R: Float[Tensor, "*r D D"],
    y: Float[Tensor, "*y D"],
    observed: Bool[Tensor, "*o D"],
    *,
    diffuse: Bool[Tensor, " K"] | None = None,
) -> Float[Tensor, "*L"]:
    r"""Log likelihood of each series: the sum of what :func:`filter` gives per step, but faster.

    Where the matrices are constant in time, blocks of :math:`m` steps are filtered as one step of
    :math:`m D` observations. What a block is does not depend on the data and is computed once for
    all series that share matrices and pattern of missing values; so are the covariances, until they
    are steady. What depends on the data is products of matrices. The gradient is another pass over
    the blocks, written by hand. Matrices that vary in time, or an R that is singular, go step by
    step.

    Args:
        F: Transition; the other matrices and vectors as in :func:`filter`.
        b: Offset of the transition.
        Q: Covariance of the transition.
        m0: Mean of the first state.
        P0: Covariance of the first state.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise.
        y: Observations.
        observed: Which of them count.
        diffuse: Coordinates of the first state with an infinite variance; rows and columns of
            ``P0`` are not read there. The result is the limit, for a variance
            :math:`\kappa \to \infty`, of the log likelihood plus :math:`\tfrac12 \log\kappa` for
            each of them that the observations determine.

    Shape:
        As in :func:`filter`, the result ``(*L,)``.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, one, one, zero, one)
        >>> seqlatent.kalman.log_likelihood(*model, y, observed)
        tensor(-3.3426)

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), ch. 5 on diffuse
        starts.
    """
    lead, steps = leading((F, Q, P0.unsqueeze(-3), H, R), (b, m0.unsqueeze(-2), d, y, observed))
    matrices = [align(x, lead, 2) for x in (F, Q, H, R)]
    if any(len(x) > 1 for x in matrices) or not _regular(R):
        model = (F, b, Q, m0, P0, H, d, R)
        return filter(*model, y, observed, diffuse=diffuse).log_evidence.sum(-1)
    aligned = [x[0] for x in (*matrices, align(P0.unsqueeze(-3), lead, 2))]
    F, Q, H, R, P0 = (_own(x, lead) for x in aligned)
    prior = align(m0.unsqueeze(-2), lead, 1)[0].expand(*lead, -1).reshape(-1, F.shape[-1])
    if b.requires_grad or bool(b.any()):
        d = d + _drift(aligned[0], b, aligned[2], lead, steps)
    if d.requires_grad or bool(d.any()):
        y = y - d
    y, seen = (x.expand(*lead, steps, -1).reshape(-1, steps, y.shape[-1]) for x in (y, observed))
    ends = _ends(seen)
    complete = bool(seen.all())
    y = y if complete else y.masked_fill(~seen, 0.0)
    problem = Problem(F, Q, H, R, P0, prior, y, None if complete else seen, ends, diffuse)
    value = _of_reduced(problem)
    if value is None:
        return _of_blocks(problem).reshape(lead)
    lost = ~value.isfinite()
    if bool(lost.any()):
        value = value.masked_scatter(lost, _of_blocks(problem.select(lost.nonzero()[:, 0])))
    return value.reshape(lead)


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
        matrices = (x[index] if x.dim() == 3 else x for x in self[:5])
        seen = None if self.seen is None else self.seen[index]
        return Problem(
            *matrices, self.m0[index], self.y[index], seen, self.ends[index], self.diffuse
        )


def _of_reduced(problem: Problem) -> Tensor | None:
    """By the reduced form, where series have matrices of their own and it is exact."""
    F, Q, H, R, _, _, y, seen, ends, diffuse = problem
    order, steps = F.shape[-1], y.shape[1]
    fixed = F.dim() == H.dim() == 2 and not (F.requires_grad or H.requires_grad)
    # a step costs a few calls: they are worth it where many series, or their matrices, share them
    many = problem.own or len(y) >= 4 * steps
    if not many or not fixed or diffuse is None or y.shape[-1] > 1:
        return None
    if y.dtype != torch.float64 or not bool(diffuse.all()) or int(ends.min()) < order:
        return None
    if seen is not None and not bool((seen | _after(ends, steps)).all()):
        return None
    form = reduced.reduce(F, H)
    if form is None:
        return None
    values = []
    for index in torch.arange(len(y), device=y.device).split(_SERIES):
        q, r = (x[index] if x.dim() == 3 else x for x in (Q, R))
        values.append(reduced.likelihood(form, q, r, y[index, :, 0], ends[index]))
    return torch.cat(values)


def _of_blocks(problem: Problem) -> Tensor:
    """Block by block, the series in groups."""
    found = [(part.number[part.real], part.values(problem)) for part in _parts(problem)]
    order = torch.cat([index for index, _ in found])
    return torch.cat([value for _, value in found])[order.argsort()]


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
            later = (early | _after(self.take(problem.ends)[..., 0], steps)).flatten(-2)
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
        least = ends if bool((ends * D < stop).any()) else ends.flatten()[:1]
        counted = blocks(rows < least[..., None] * D, 0.0)
    return blocks(y, 0.0), pattern, counted


def _parts(problem: Problem) -> Iterator[Part]:
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
        pattern = problem.seen | _after(problem.ends, steps)
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


def _ends(seen: Bool[Tensor, "*L T D"]) -> Tensor:
    """Steps up to the last one of which anything was seen."""
    steps = seen.shape[-2]
    if bool(seen[..., -1, 0].all()):
        return torch.full(seen.shape[:-2], steps, device=seen.device)
    step = torch.arange(1, steps + 1, device=seen.device)
    return torch.where(seen.any(-1), step, 0).amax(-1)


def _after(ends: Tensor, steps: int) -> Tensor:
    """Which cells come after the end."""
    return (torch.arange(steps, device=ends.device) >= ends[..., None])[..., None]


def _own(x: Float[Tensor, "*l i j"], lead: tuple[int, ...]) -> Tensor:
    """A matrix ``(i, j)`` where all series share it, else one of each ``(B, i, j)``."""
    if x.shape[:-2].numel() == 1:
        return x.reshape(x.shape[-2:])
    return x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])


def _regular(R: Tensor) -> bool:
    """Whether all covariances are positive definite."""
    if R.shape[-1] == 1:
        return bool((R > 0).all())
    return not bool(torch.linalg.cholesky_ex(R)[1].any())


def _drift(F: Tensor, b: Tensor, H: Tensor, lead: tuple[int, ...], steps: int) -> Tensor:
    """What offsets of the transition add to the observations: a path of its own."""
    b = align(b, lead, 1)
    later = b[1:] if len(b) > 1 else b.expand(steps - 1, *b.shape[1:])
    offset = torch.cat([torch.zeros_like(b[:1]), later]).movedim(0, -2)
    path = affine_recurrence(F.unsqueeze(-3), offset)
    return path @ H.mT
