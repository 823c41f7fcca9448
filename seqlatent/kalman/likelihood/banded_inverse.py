"""Diagonals of the inverse of a banded covariance, from its Cholesky factor."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

Array = np.ndarray
# Columns of a block, for bands that are narrower.
_BLOCK = 16


def routines() -> Any:
    """LAPACK, which takes a band in one call."""
    from scipy.linalg import lapack

    return lapack


def inverse_band(L: Float[Array, "W N"]) -> Float[Array, "W N"]:
    r"""Diagonals of :math:`S = (L L^\top)^{-1}`: row k holds :math:`S_{i+k,i}`.

    Blocks of columns b follow each other from the last to the first. Only the leading corner of
    the next block, :math:`c_{b+1}`, enters the one before: with X the inverse of the transposed
    diagonal block, and :math:`M = X B^\top` for the rows B of the next block,

    .. math:: S_b = X X^\top + M c_{b+1} M^\top, \quad S_{b+1,b} = -c_{b+1} M^\top

    Args:
        L: Diagonals of the factor, the main one first; what leaves the matrix is zero.

    References:
        On Computing Certain Elements of the Inverse of a Sparse Matrix (Erisman & Tinney, 1975).
    """
    return _of_two(L) if len(L) == 2 else _of_many(L)


def _of_two(L: Float[Array, "2 N"]) -> Float[Array, "2 N"]:
    """Of a bidiagonal factor the main diagonal is a linear recurrence by itself."""
    ratio = L[1] / L[0]
    band = np.empty(L.shape, order="F")
    band[0, 1:] = -(ratio[:-1] ** 2)
    diagonal, _ = routines().dtbtrs(band, (1 / L[0] ** 2)[:, None], uplo="U", diag="U")
    below = np.zeros(L.shape[1])
    below[:-1] = -ratio[:-1] * diagonal[1:, 0]
    return np.stack([diagonal[:, 0], below])


def _of_many(L: Float[Array, "W N"]) -> Float[Array, "W N"]:
    width, size = L.shape
    K, block = width - 1, max(_BLOCK, width - 1)
    number = -(-size // block)
    # column c of a block lies K cells wider than it is, so that a step to the right and one down
    # reach the next diagonal entry
    wide = block + K
    memory = np.zeros((number, block, wide))
    padded = np.zeros((number * block, width))
    padded[:size], padded[size:, 0] = L.T, 1.0
    _band(memory, width)[...] = padded.reshape(number, block, width)
    upper, below = memory[..., :block], memory[..., block:]
    eye = torch.eye(block, dtype=torch.float64)
    X = torch.linalg.solve_triangular(torch.from_numpy(upper), eye, upper=True).numpy()
    M = X @ below
    squares = X @ X.transpose(0, 2, 1)
    corners = np.zeros((number, K, K))
    corner, lead = corners[-1], M[:, :K]
    for n in range(number - 1, 0, -1):
        corner = squares[n, :K, :K] + lead[n] @ corner @ lead[n].T
        corners[n - 1] = corner
    carried = M @ corners
    memory[..., :block] = squares + carried @ M.transpose(0, 2, 1)
    memory[..., block:] = -carried
    return np.ascontiguousarray(_band(memory, width).reshape(-1, width)[:size].T)


def _band(memory: Float[Array, "n b w"], width: int) -> Float[Array, "n b W"]:
    """The diagonals of blocks as a view ``(n, b, K + 1)``."""
    number, block, wide = memory.shape
    cell = memory.itemsize
    strides = (block * wide * cell, (wide + 1) * cell, cell)
    return np.lib.stride_tricks.as_strided(memory, (number, block, width), strides)
