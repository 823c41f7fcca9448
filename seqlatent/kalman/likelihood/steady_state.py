"""Blocks of steps once their covariance is steady: products of matrices with the data."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Relative change of a covariance over a block below which it counts as steady, in units of eps.
_STEADY = 32
# Numbers of the observations of steady blocks that are worked on together.
_CELLS = 2**16


def is_steady(P: Float[Tensor, "*p K K"], later: Float[Tensor, "*p K K"]) -> bool:
    """Whether a covariance no longer changes; most often its diagonal denies that at once."""
    tolerance = _STEADY * torch.finfo(P.dtype).eps
    old, new = (x.diagonal(dim1=-2, dim2=-1) for x in (P, later))
    limit = tolerance * old.amax(-1, keepdim=True)
    if bool(((new - old).abs() > limit).any()):
        return False
    return not bool(((later - P).abs() > limit.unsqueeze(-1)).any())


def shared(path: list[int], counted: Tensor | None) -> tuple[int, int]:
    """The range of the blocks that share the steady covariance and all of whose rows count."""
    begin, end = path[-1], len(path)
    if counted is not None:
        whole = (counted[begin:] == 1).flatten(1).all(-1).tolist()
        end = begin + next((i for i, each in enumerate(whole) if not each), len(whole))
    return begin, end


def run_steady(
    rows: Tensor,
    transition: Tensor,
    L: Tensor,
    W: Tensor,
    x: Float[Tensor, "*L C K"],
    y: Float[Tensor, "N *L C M"],
    counted: Float[Tensor, "N *c _ M"] | None,
    out: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "*L C"]:
    """Negative log density of the blocks of one covariance, some at a time.

    Only the recursion of the means, of the size of a state, goes block by block.
    """
    gain = torch.linalg.solve_triangular(L.mT, W, upper=True)
    closed = (transition - gain.mT @ rows).mT
    total, some = torch.zeros_like(x[..., 0]), max(_CELLS // y[0].numel(), 1)
    for i in range(0, len(y), some):
        part = y[i : i + some]
        drive, path = part @ gain, []
        for each in drive.unbind():
            path.append(x)
            x = x @ closed + each
        means = torch.stack(path)
        e = _divided(part - means @ rows.mT, L.mT, upper=True)
        total = total + surprise(L, e, None if counted is None else counted[i : i + some]).sum(0)
        if out is not None:
            out[0][i : i + some], out[1][i : i + some] = means, e
    return total


class EqualBlocks(NamedTuple):
    """Blocks with one covariance, and what a filter found.

    Args:
        P: Covariance before each block.
        L: Factor of the covariance of its observations.
        W: That divided into their covariance with the state that follows.
        x: Means before each block.
        e: Observations relative to them, divided by L.
        seen: 1 for rows that were seen, 0 for others, which are phantoms; all by default.
        counted: 1 for rows that count, 0 for those after the end of a series, where not all do: the
            last block of it, which is the only one then.
    """

    P: Float[Tensor, "*p K K"]
    L: Float[Tensor, "*p M M"]
    W: Float[Tensor, "*p M K"]
    x: Float[Tensor, "N *L C K"]
    e: Float[Tensor, "N *L C M"]
    seen: Float[Tensor, "*w M"] | None
    counted: Float[Tensor, "*c _ M"] | None


def adjoint(
    rows: Tensor,
    transition: Tensor,
    blocks: EqualBlocks,
    weight: Float[Tensor, "*L C 1"],
    of_x: Float[Tensor, "*L C K"],
    of_P: Float[Tensor, "*P K K"],
    of_data: bool,
) -> tuple[Any, ...]:
    r"""Gradients from blocks with one covariance, by the closed loop :math:`A = \Phi - K O`.

    With :math:`u = S^{-1} (y - O x)`, :math:`p = O^\top u`, the gain :math:`K = W^\top L^{-1}`, the
    filtered mean :math:`\hat x = x + P p` and the gradients :math:`\lambda, \Lambda` of the mean
    and covariance that follow,

    .. math::
        \bar x &= A^\top \lambda + p, \quad
        \bar P = A^\top \Lambda A + \tfrac12 (p p^\top - O^\top S^{-1} O)
            + \tfrac12 (p \lambda^\top A + A^\top \lambda p^\top) \\
        \bar S &= \tfrac12 (u u^\top - S^{-1}) - \tfrac12 (K^\top \lambda u^\top
            + u \lambda^\top K) + K^\top \Lambda K, \quad
        \bar\Sigma_{yz} = u \lambda^\top - 2 K^\top \Lambda \\
        \bar\Phi &= \lambda \hat x^\top + 2 \Lambda A P, \quad
        \bar O = u \hat x^\top - S^{-1} O P + u \lambda^\top A P - K^\top \bar\Phi

    A step back by the closed loop shrinks what comes later: by :math:`\Phi` and what the update
    takes off again, under a transition that grows, both would be large. Only the recursions of
    :math:`\lambda` and :math:`\Lambda` go block by block.

    Args:
        rows: Rows of a block.
        transition: Its transition.
        blocks: What was found on the way there.
        weight: Of each series.
        of_x: Gradient of the mean that follows.
        of_P: Gradient of the covariance that follows.
        of_data: Whether the gradient of the data is asked for.
    """
    P, L, W, x, e, seen, counted = blocks
    solve, number = torch.linalg.solve_triangular, len(x)
    gain = solve(L.mT, W, upper=True).mT
    closed = transition - gain @ rows
    u = _divided(e if counted is None else e * counted, L, upper=False)
    used = u if bool((weight == 1).all()) else weight * u
    p, weighted = u @ rows, used @ rows
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    half = solve(L, eye, upper=False)
    count = (weight if counted is None else weight * counted).sum(-2).unsqueeze(-1)
    inverse = half.mT @ (count * half)
    if seen is not None:
        inverse = inverse * seen.unsqueeze(-1) * seen.unsqueeze(-2)
    path = []
    for each in reversed(weighted.unbind()):
        path.append(of_x)
        of_x = of_x @ closed + each
    after = torch.stack(path[::-1])
    cross = p.mT @ (after @ closed)
    direct = 0.5 * (weighted.mT @ p - rows.mT @ inverse @ rows + cross + cross.mT)
    total = torch.zeros_like(of_P)
    for each in reversed(direct.unbind()):
        total += of_P
        of_P = closed.mT @ of_P @ closed + each
    both, said = _gram(u, after), _gram(u, used) - number * inverse
    mixed = gain.mT @ both.mT
    of_S = 0.5 * (said - mixed - mixed.mT) + gain.mT @ total @ gain
    of_cross = both - 2 * gain.mT @ total
    of_y = (after @ gain - used).unbind() if of_data else [e[0]] * number
    ahead, level = closed @ P, rows @ P
    of_transition = _gram(after, x) + both.mT @ level + 2 * total @ ahead
    of_rows = _gram(used, x) + said @ level + both @ ahead - gain.mT @ of_transition
    return of_rows, of_transition, of_S, of_cross, total, of_x, of_P, of_y


def _gram(a: Float[Tensor, "N *L C i"], b: Float[Tensor, "N *L C j"]) -> Float[Tensor, "*L i j"]:
    """The sum over blocks and series of a^T b, as one product."""
    a, b = (x.movedim(0, -3).flatten(-3, -2) for x in (a, b))
    return a.mT @ b


def _divided(e: Float[Tensor, "N *L C M"], L: Tensor, *, upper: bool) -> Tensor:
    """Rows times the inverse of a triangular factor, those of all blocks as one matrix."""
    if L.dim() == 2:
        rows = torch.linalg.solve_triangular(L, e.flatten(0, -2), upper=upper, left=False)
        return rows.reshape(e.shape)
    rows = e.movedim(0, -3).flatten(-3, -2)
    rows = torch.linalg.solve_triangular(L, rows, upper=upper, left=False)
    return rows.unflatten(-2, (len(e), -1)).movedim(-3, 0)


def surprise(L: Tensor, e: Tensor, counted: Tensor | None) -> Tensor:
    """Negative log density of white innovations, without its constant."""
    logs = L.diagonal(dim1=-2, dim2=-1).log().unsqueeze(-2)
    if counted is None:
        return 0.5 * torch.linalg.vecdot(e, e) + logs.sum(-1)
    return torch.linalg.vecdot(counted, torch.addcmul(logs, e, e, value=0.5))
