"""What neural emissions share: one network from state and context to the parameters of a family."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn import functional

from seqlatent.emissions.emission import Emission
from seqlatent.networks import MLP
from seqlatent.sequences import Context

__all__ = ["NeuralEmission"]

# Data measured on their own scale come nowhere near this; a path that feeds on itself may try to.
_BOUND = 1e6


class NeuralEmission(Emission):
    r"""Emission whose parameters a network reads off the state, the memory and the covariates.

    .. math:: \theta_t = \operatorname{MLP}([z_t, m_t, u_t]), \qquad
        y_{t,d} \sim p(\,\cdot \mid \theta_{t,d}, \mathrm{shift}_d, \mathrm{scale}_d)

    Dimensions are independent given the state. A subclass supplies ``distribution``, and
    ``size``, their number ``P``. The network's outputs are held within a million
    scales of zero, so a long path that feeds its own samples back stays finite.

    Args:
        latent_dim: Width ``K`` of the state that is read, with what it carries; 0 without a latent.
        obs_dim: Observed dimensions ``D``, at least 1.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers; none makes the parameters affine.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(D,)``;
        without the axis ``T`` for a step.
    """

    net: nn.Module
    size: int

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        context_dim: int = 0,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("latent_dim", latent_dim, 0),
            ("obs_dim", obs_dim, 1),
            ("context_dim", context_dim, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{type(self).__name__} expected {name} to be an integer of at least {least}, "
                    f"found {value!r}."
                )
        self.latent_dim, self.obs_dim, self.context_dim = latent_dim, obs_dim, context_dim
        self.net: nn.Module = MLP(latent_dim + context_dim, hidden, obs_dim * self.size)

    @abstractmethod
    def distribution(self, raw: Float[Tensor, "*S D P"], c: Context) -> Distribution:
        """Distribution of each cell, batch ``(*S, B, T, D)``, from ``P`` unbounded parameters."""

    def forward(self, z: Tensor, c: Context) -> Distribution:
        found = (z.shape[-1], c.m.shape[-1] + c.u.shape[-1])
        if found != (self.latent_dim, self.context_dim):
            raise ValueError(
                f"{type(self).__name__} reads a state of width {self.latent_dim} and "
                f"{self.context_dim} context features, found a state of width {found[0]}, "
                f"{c.m.shape[-1]} features of memory and {c.u.shape[-1]} covariates; build it with "
                f"latent_dim={found[0]}, context_dim={found[1]}."
            )
        raw = self.net(c.features(z)).clamp(-_BOUND, _BOUND)
        return Independent(
            self.distribution(raw.unflatten(-1, (self.obs_dim, self.size)), c),
            1,
            validate_args=False,
        )

    def extra_repr(self) -> str:
        return (
            f"latent_dim={self.latent_dim}, obs_dim={self.obs_dim}, context_dim={self.context_dim}"
        )


def positive(raw: Float[Tensor, "*S"], floor: float) -> Float[Tensor, "*S"]:
    """Smooth positive value ``softplus(raw) + floor``."""
    return functional.softplus(raw) + floor
