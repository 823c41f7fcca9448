"""Transition, the distribution of the next latent state, and its linear kinds."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.chain import ConditionallyLinear, DiagonalLinear, Sampled
from seqlatent.distributions import DiffuseNormal, FactorNormal, diagonal_normal
from seqlatent.kalman import approximate_diffuse
from seqlatent.sequences import Context

__all__ = ["DiagonalTransition", "LargeVarianceStart", "LinearTransition", "NoLatent", "Transition"]


class Transition(nn.Module, ABC):
    r"""Distribution of the latent path: its first state, and each next state given the last.

    .. math:: p(z_1 \mid c_1), \quad p(z_t \mid z_{t-1}, c_t)

    ``forward`` does one step ``(*S, B, K)`` or all steps ``(*S, B, T, K)`` in one call: it acts on
    the last axis and broadcasts over the others. Distributions have event ``(K,)``; ``initial`` has
    batch ``c.shape``.

    Attributes:
        latent_dim: Width ``K`` of the state, with what it carries.
        handles_gaps: Whether the distribution reads ``c.dt``; if not, irregular times are refused.
    """

    latent_dim: int
    handles_gaps: bool = False

    @abstractmethod
    def initial(self, c: Context) -> Distribution:
        """Distribution of the first state; ``c`` is the context of the first step."""

    @abstractmethod
    def forward(self, z: Tensor, c: Context) -> Distribution:
        """Distribution of the next state given the last one and the context of the next step."""


class LinearTransition(Transition, ConditionallyLinear):
    r"""Transition that is linear and Gaussian given its context.

    .. math:: z_1 \sim N(m_0, G_0 G_0^\top), \quad z_t = F_t z_{t-1} + b_t + G_t \varepsilon_t

    A subclass supplies ``matrices`` and ``initial_moments``, whose shapes need only broadcast
    against the batch: a time-invariant ``F`` is ``(K, K)``. ``G`` may have fewer columns than rows,
    and those must be independent. An infinity on the diagonal of ``G_0`` makes that coordinate of
    the first state diffuse.
    """

    def initial(self, c: Context) -> Distribution:
        loc, factor = self.initial_moments(c)
        loc = loc.expand(*c.shape, self.latent_dim)
        diffuse = bool(factor.isinf().any())
        return DiffuseNormal(loc, factor) if diffuse else FactorNormal(loc, factor)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        F, b, G = self.matrices(c)
        loc = z @ F.mT if F.ndim == 2 else (F @ z[..., None])[..., 0]
        return FactorNormal(loc + b, G)


class LargeVarianceStart(LinearTransition):
    """A linear transition whose first state has the standard deviation 1e4 where it is diffuse.

    Args:
        transition: The transition.
    """

    def __init__(self, transition: Transition) -> None:
        super().__init__()
        self.transition = transition
        self.latent_dim = transition.latent_dim
        self.handles_gaps = transition.handles_gaps

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.transition, ConditionallyLinear)
        return self.transition.matrices(c)

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        assert isinstance(self.transition, ConditionallyLinear)
        m0, G0 = self.transition.initial_moments(c)
        return m0, approximate_diffuse(G0)


class DiagonalTransition(Transition, DiagonalLinear, ConditionallyLinear):
    r"""Transition whose coordinates evolve independently and linearly, given the context.

    .. math:: z_t = a_t \odot z_{t-1} + b_t + s_t \odot \varepsilon_t

    A subclass supplies ``affine`` and ``initial_affine``; paths are sampled by one recurrence with
    no loop over time.
    """

    def initial(self, c: Context) -> Distribution:
        loc, scale = self.initial_affine(c)
        shape = (*c.shape, self.latent_dim)
        return diagonal_normal(loc.expand(shape), scale.expand(shape))

    def forward(self, z: Tensor, c: Context) -> Distribution:
        a, b, scale = self.affine(c)
        loc = a * z + b
        return diagonal_normal(loc, scale.expand(loc.shape))

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        loc, scale = self.initial_affine(c)
        return loc, scale.diag_embed()

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        a, b, scale = self.affine(c)
        return a.diag_embed(), b, scale.diag_embed()


class NoLatent(Transition, Sampled):
    """A state of width zero: what remains of a model is its deterministic twin."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 0
        self.handles_gaps = True

    def initial(self, c: Context) -> Distribution:
        empty = torch.zeros(*c.shape, 0, dtype=c.dt.dtype, device=c.dt.device)
        return diagonal_normal(empty, empty)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        empty = z.new_zeros(*torch.broadcast_shapes(z.shape[:-1], c.shape), 0)
        return diagonal_normal(empty, empty)

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, None]:
        return context.dt.new_zeros(*shape, *context.shape, 0), None
