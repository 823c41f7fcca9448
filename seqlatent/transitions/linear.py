"""The linear Gaussian transition with free matrices."""

import torch
from torch import Tensor

from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.parameters import Factor, Initialised
from seqlatent.transitions.transition import LinearTransition

__all__ = ["LinearGaussian"]


class LinearGaussian(LinearTransition, Initialised):
    r"""A linear Gaussian distribution that is the same at every step.

    .. math:: z_1 \sim N(m_0, P_0), \quad z_t = F z_{t-1} + b + N(0, Q)

    All matrices are learned; the eigenvalues of F may leave the unit circle. At the start every
    coordinate decays at a rate of its own, from 0.95 to 0.5, with unit variance. For matrices that
    are known, see :meth:`of`.

    Args:
        latent_dim: Width ``K`` of the state.
        diagonal: Whether the noise of the coordinates is independent, in Q and in the first state.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``.

    Example:
        >>> p = LinearGaussian(2)
        >>> p(torch.zeros(3, 5, 2), Context.regular(3, 5)).batch_shape
        torch.Size([3, 5])
    """

    F: Tensor
    b: Tensor
    m0: Tensor

    def __init__(self, latent_dim: int, *, diagonal: bool = False) -> None:
        super().__init__()
        latent_dim = whole("latent_dim", latent_dim, 1)
        self.latent_dim = latent_dim
        decay, zeros = torch.linspace(0.95, 0.5, latent_dim), torch.zeros(latent_dim)
        Q, P0 = (1 - decay.square()).diag(), torch.eye(latent_dim)
        self._hold(decay.diag(), zeros, Q, zeros, P0, learn=True, diagonal=diagonal)

    @classmethod
    def of(
        cls,
        F: Tensor,
        b: Tensor,
        Q: Tensor,
        m0: Tensor,
        P0: Tensor,
        *,
        learn: bool = False,
    ) -> "LinearGaussian":
        r"""Builds the distribution from its matrices.

        Args:
            F: Transition matrix.
            b: Offset.
            Q: Covariance of the noise, possibly singular: it keeps the directions that it has.
            m0: Mean of the first state.
            P0: Covariance of the first state, possibly singular.
            learn: Whether the matrices are starting values of parameters, or fixed.

        Shape:
            F, Q, P0 ``(K, K)``; b, m0 ``(K,)``.

        Raises:
            TypeError: If an argument is no floating tensor.
            ValueError: If a shape does not fit, a value is not finite, or Q or P0 is not symmetric
                positive semi-definite.

        Example:
            >>> one, zero = torch.ones(1, 1), torch.zeros(1)
            >>> walk = LinearGaussian.of(one, zero, one, zero, 100 * one)
            >>> walk.initial(Context.regular(1)).variance
            tensor([[100.]])
        """
        b, m0, Q, P0 = fitting({"F": F}, vectors={"b": b, "m0": m0}, covariances={"Q": Q, "P0": P0})
        distribution = cls(len(F))
        distribution._hold(F, b, Q, m0, P0, learn=learn, diagonal=False)
        return distribution

    def _hold(
        self,
        F: Tensor,
        b: Tensor,
        Q: Tensor,
        m0: Tensor,
        P0: Tensor,
        *,
        learn: bool,
        diagonal: bool,
    ) -> None:
        for name, x in (("F", F), ("b", b), ("m0", m0)):
            self.start(name, x, learn=learn)
        self.noise = Factor(Q, diagonal=diagonal, learn=learn, what="transition covariance Q")
        self.spread = Factor(P0, diagonal=diagonal, learn=learn, what="initial covariance P0")

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        return self.F, self.b, self.noise()

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        return self.m0, self.spread()

    def extra_repr(self) -> str:
        return f"{self.latent_dim}"


def fitting(
    square: dict[str, Tensor], *, vectors: dict[str, Tensor], covariances: dict[str, Tensor]
) -> list[Tensor]:
    """Checks that vectors and covariances fit a square matrix, and gives them its precision."""
    ((first, matrix),) = square.items()
    _require_square(first, matrix)
    size = len(matrix)
    for name, x in vectors.items():
        require(name, x, (size,), f"{first} is {size} x {size}")
    for name, x in covariances.items():
        require(name, x, (size, size), f"{first} is {size} x {size}")
        _require_symmetric(name, x)
    return [x.to(matrix) for x in (*vectors.values(), *covariances.values())]


def _require_square(name: str, x: object) -> None:
    """Checks for a square floating matrix of finite numbers."""
    if isinstance(x, Tensor) and (x.ndim != 2 or x.shape[0] != x.shape[1] or not len(x)):
        raise ValueError(f"{name} must be a square matrix (K, K), found shape {tuple(x.shape)}.")
    require(name, x, None, "")


def require(name: str, x: object, shape: tuple[int, ...] | None, why: str) -> None:
    """Checks for a floating tensor of finite numbers and, where one is given, of a shape."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name} must be a floating tensor, found {found}; use torch.as_tensor(...).double()."
        )
    if shape is not None and tuple(x.shape) != shape:
        raise ValueError(f"{name} must have shape {shape} because {why}, found {tuple(x.shape)}.")
    if not bool(x.isfinite().all()):
        where = tuple(int(i) for i in (~x.isfinite()).nonzero()[0])
        raise ValueError(f"{name} must be finite, found {x[where].item()} at {where}.")


def _require_symmetric(name: str, x: Tensor) -> None:
    """Checks that a matrix is its own transpose, up to rounding."""
    skew = (x - x.mT).abs().max().item()
    if skew > 1e-6 * x.abs().max().item():
        raise ValueError(
            f"{name} must be symmetric, found entries that differ by {skew:.3g} from those across "
            "the diagonal; pass a covariance, not its Cholesky factor (L @ L.mT)."
        )
