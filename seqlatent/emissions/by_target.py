"""An emission for each target."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from seqlatent.distributions import SideBySide
from seqlatent.emissions.emission import Emission
from seqlatent.sequences import Context

__all__ = ["ByTarget"]


class ByTarget(Emission):
    r"""Targets of different kinds, each with a family of its own, independent given the state.

    .. math:: y_{t,d} \sim p_d(\,\cdot \mid z_t, c_t)

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``, as many as there are families.
        families: Family of each target, a class of one observed dimension.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers of each.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``.

    Example:
        >>> from seqlatent.emissions import Poisson, StudentT
        >>> p = ByTarget(3, 2, families=(StudentT, Poisson))
        >>> p(torch.zeros(7, 5, 3), Context.regular(5, obs_dim=2)).sample().shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int,
        *,
        families: Sequence[Callable[..., Emission]],
        context_dim: int = 0,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        if len(families) != obs_dim:
            raise ValueError(
                f"ByTarget needs a family for each of {obs_dim} observed dimensions, found "
                f"{len(families)}."
            )
        parts = [one(latent_dim, 1, context_dim=context_dim, hidden=hidden) for one in families]
        self.obs_dim = obs_dim
        self.parts = nn.ModuleList(parts)
        self.support = constraints.cat([part.support for part in parts], -1, [1] * obs_dim)

    def _parts(self) -> list[Emission]:
        return [part for part in self.parts if isinstance(part, Emission)]

    @property
    def shifted(self) -> tuple[bool, ...]:
        return tuple(part.shifted[0] for part in self._parts())

    @property
    def supports(self) -> tuple[constraints.Constraint, ...]:
        return tuple(part.support for part in self._parts())

    @property
    def differentiable(self) -> bool:
        return all(part.differentiable for part in self._parts())

    def forward(self, z: Tensor, c: Context) -> Distribution:
        found = []
        for d, part in enumerate(self._parts()):
            own = part(z, c.replace(shift=c.shift[..., d, None], scale=c.scale[..., d, None]))
            if not isinstance(own, Independent):
                raise TypeError(
                    f"ByTarget needs families that return Independent(..., 1), found "
                    f"{type(part).__name__}, which returns {type(own).__name__}."
                )
            found.append(own.base_dist)
        return Independent(SideBySide(found), 1, validate_args=False)
