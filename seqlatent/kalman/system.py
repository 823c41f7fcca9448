"""A linear Gaussian state space model: its tensors, verified once, and together with data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.validation import (
    check_covariances,
    check_diffuse,
    check_observations,
    check_shapes,
    once,
)
from seqlatent.linalg import broadcast_shapes

__all__ = ["LinearGaussianSystem", "Problem"]


@dataclass(frozen=True, eq=False)
class LinearGaussianSystem:
    r"""A linear Gaussian state space model, as the functions of this folder take it.

    .. math::
        z_1 \sim N(m_0, P_0), \quad z_t = F_t z_{t-1} + b_t + N(0, Q_t), \quad
        y_t = H_t z_t + d_t + N(0, R_t)

    Shapes and covariances are verified once, when it is made.

    Args:
        F: Transition into step t; unused at the first step, but finite. So are ``b`` and ``Q``.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state, possibly singular.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise; for filters and smoothers it may be singular while
            the innovation's is not.
        diffuse: Which coordinates of the first state are diffuse, without any prior variance: the
            limit of ever larger ones. What P0 says of them is not read, and set to zero.

    Shape:
        F, Q ``(*L, T, K, K)``, b ``(*L, T, K)``, m0 ``(*L, K)``, P0 ``(*L, K, K)``,
        H ``(*L, T, D, K)``, d ``(*L, T, D)``, R ``(*L, T, D, D)``, after broadcasting; what is
        constant in time may leave out T, with all axes before it. diffuse ``(K,)``.

    Raises:
        ValueError: If shapes do not fit or a covariance has a negative eigenvalue.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> walk = (one, zero, one, zero, one, one, zero, one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> walk.latent_dim, walk.obs_dim
        (1, 1)
    """

    # What is given is verified below, in words that say more than a check of types.
    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor
    diffuse: Tensor | None = None

    def __post_init__(self) -> None:
        check_shapes(**self._tensors())
        diffuse, P0 = self.diffuse, self.P0
        if diffuse is not None:
            check_diffuse(diffuse, self.latent_dim)
            P0 = without_diffuse(P0, diffuse)
            object.__setattr__(self, "P0", P0)
        check_covariances(Q=self.Q, P0=P0, R=self.R)

    @property
    def latent_dim(self) -> int:
        """Width K of the state."""
        return self.F.shape[-1]

    @property
    def obs_dim(self) -> int:
        """Number D of observed dimensions."""
        return self.H.shape[-2]

    def observing(self, y: Tensor, observed: Tensor) -> "Problem":
        """The system and what was observed of it.

        Raises:
            ValueError: If shapes do not fit, or what is observed is no number.
        """
        tensors = self._tensors()
        check_shapes(**tensors, y=y, observed=observed)
        check_observations(y, observed)
        diffuse = self.diffuse
        diffuse = diffuse if diffuse is not None and bool(diffuse.any()) else None
        return Problem(**tensors, y=y, observed=observed, diffuse=diffuse)

    def _tensors(self) -> dict[str, Tensor]:
        names = ("F", "b", "Q", "m0", "P0", "H", "d", "R")
        return {name: getattr(self, name) for name in names}


class Problem(NamedTuple):
    """A system and what was observed of it, verified; ``diffuse`` is None where nothing is."""

    F: Float[Tensor, "*f K K"]
    b: Float[Tensor, "*b K"]
    Q: Float[Tensor, "*q K K"]
    m0: Float[Tensor, "*m K"]
    P0: Float[Tensor, "*p K K"]
    H: Float[Tensor, "*h D K"]
    d: Float[Tensor, "*d D"]
    R: Float[Tensor, "*r D D"]
    y: Float[Tensor, "*y D"]
    observed: Bool[Tensor, "*o D"]
    diffuse: Bool[Tensor, " K"] | None

    @property
    def axes(self) -> tuple[tuple[int, ...], int]:
        """The leading axes of all tensors, broadcast, and the number of steps."""
        matrices = (self.F, self.Q, self.P0.unsqueeze(-3), self.H, self.R)
        return leading(matrices, (self.b, self.m0.unsqueeze(-2), self.d, self.y, self.observed))


def without_diffuse(P0: Tensor, diffuse: Bool[Tensor, " K"]) -> Tensor:
    """The covariance of a first state with zeros for what it says of diffuse coordinates."""
    kept = once(P0).masked_fill(diffuse | diffuse[:, None], 0.0)
    return kept if kept.shape == P0.shape else kept.expand(P0.shape)


def leading(matrices: Iterable[Tensor], vectors: Iterable[Tensor]) -> tuple[tuple[int, ...], int]:
    """The leading axes of some tensors, broadcast, and the number of steps."""
    shapes = [x.shape[:-2] for x in matrices] + [x.shape[:-1] for x in vectors]
    *lead, steps = broadcast_shapes(*shapes)
    return tuple(lead), steps
