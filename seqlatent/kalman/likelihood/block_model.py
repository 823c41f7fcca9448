"""A block of steps as one step: what many observations say of the state before them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class BlockModel(NamedTuple):
    r"""A block of m steps of a time-invariant model, given the first of its states.

    .. math::
        \begin{bmatrix} y_{1:m} \\ z_{m+1} \end{bmatrix} \Big| z_1 \sim N\left(
        \begin{bmatrix} O \\ \Phi \end{bmatrix} z_1,
        \begin{bmatrix} \Sigma_{yy} & \Sigma_{yz} \\ \cdot & \Sigma_{zz} \end{bmatrix} \right)

    The M = m D rows of the observations are ordered by step, then by dimension.
    """

    rows: Float[Tensor, "*o M K"]
    transition: Float[Tensor, "*f K K"]
    yy: Float[Tensor, "*a M M"]
    yz: Float[Tensor, "*c M K"]
    zz: Float[Tensor, "*d K K"]


def block_model(
    F: Float[Tensor, "*f K K"],
    Q: Float[Tensor, "*q K K"],
    H: Float[Tensor, "*h D K"],
    R: Float[Tensor, "*r D D"],
    rounds: int,
) -> BlockModel:
    r"""The model of a block of :math:`m = 2^{rounds}` steps, by doubling.

    With the rows :math:`O_i = H F^i` and what the shocks before a step have in common with its
    observation, :math:`Z_i = \sum_{l<i} F^l Q\, O_l^\top`,

    .. math:: \operatorname{Cov}(y_j, y_i \mid z_1) = O_{j-i} Z_i + R\,[i = j], \quad
        \operatorname{Cov}(z_{m+1}, y_i \mid z_1) = F^{m-i} Z_i .

    Autograd records a number of operations that is logarithmic in m. Leading axes need only
    broadcast: what all series share is computed once.
    """
    D, K = H.shape[-2:]
    m = 2**rounds
    rows, step, zz = H.expand(*F.shape[: max(F.dim() - H.dim(), 0)], *H.shape), F, Q
    powers = torch.eye(K, dtype=F.dtype, device=F.device).expand(*F.shape[:-2], 1, K, K)
    for _ in range(rounds):
        rows = torch.cat([rows, rows @ step], -2)
        powers = torch.cat([powers, powers @ step.unsqueeze(-3)], -3)
        zz = step @ zz @ step.mT + zz
        step = step @ step
    shocks = _each(powers, (Q @ rows.mT).unflatten(-1, (m, D)).movedim(-2, -3))
    Z = torch.nn.functional.pad(shocks[..., :-1, :, :].cumsum(-3), (0, 0, 0, 0, 1, 0))
    later = torch.cat([powers[..., 1:, :, :], step.unsqueeze(-3)], -3).flip(-3)
    yz = _each(later, Z).mT.flatten(-3, -2)
    yy = _mirrored(Z.mT.flatten(-3, -2) @ rows.mT, R, m)
    return BlockModel(rows, step, yy, yz, zz)


def _each(A: Float[Tensor, "*a m K K"], X: Float[Tensor, "*x m K D"]) -> Float[Tensor, "... m K D"]:
    """A product per step; where all series share the matrices, their columns stand side by side."""
    if A.dim() > 3 or X.dim() == 3:
        return A @ X
    *lead, m, K, D = X.shape
    side = X.reshape(-1, m, K, D).permute(1, 2, 0, 3)
    return (A @ side.flatten(-2)).unflatten(-1, (-1, D)).permute(2, 0, 1, 3).reshape(*lead, m, K, D)


def _mirrored(
    lagged: Float[Tensor, "*a M M"], R: Float[Tensor, "*r D D"], m: int
) -> Float[Tensor, "... M M"]:
    """Covariance of the observations, from that of each with those that follow, by their lag.

    A row of lags starts at the diagonal: shifted right by its number it has a column per step. Read
    with one cell less than it was written, the next row does that by itself.
    """
    D = R.shape[-1]
    blocks = lagged.unflatten(-1, (m, D)).unflatten(-3, (m, D)).movedim(-3, -2)
    diagonal = (blocks[..., :1, :, :] + R[..., None, None, :, :]) / 2
    # what stands on the diagonal is counted from both sides
    lead = diagonal.shape[:-4]
    blocks = torch.cat([diagonal, blocks[..., 1:, :, :].expand(*lead, m, m - 1, D, D)], -3)
    wide = torch.nn.functional.pad(blocks, (0, 0, 0, 0, 0, m)).flatten(-4, -3)
    shifted = wide[..., : m * (2 * m - 1), :, :].unflatten(-3, (m, 2 * m - 1))[..., :m, :, :]
    half = shifted.movedim(-2, -3).flatten(-2).flatten(-3, -2)
    return half + half.mT
