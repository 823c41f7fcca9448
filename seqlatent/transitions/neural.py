"""Neural transitions: the gate of deep Markov models, and states that carry a memory."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn import functional

from seqlatent.chain import FusedSteps
from seqlatent.distributions import Carried, diagonal_normal
from seqlatent.fused import by_step
from seqlatent.networks import MLP, Linear
from seqlatent.sequences import Context
from seqlatent.transitions.parameters import Initialised
from seqlatent.transitions.steps import CarriedSteps, GatedSteps
from seqlatent.transitions.transition import Transition

__all__ = ["CarriedRecurrence", "Gated", "InitialNormal"]

_FLOOR = 1e-4  # least standard deviation of a latent: keeps densities finite, and is small beside 1


class InitialNormal(Initialised):
    r"""A learned normal first state, whose mean moves linearly with the context.

    .. math:: z_1 \sim N(\mu + W [m_1, u_1],\ \sigma)

    Starts as a standard normal for a context of zeros.

    Args:
        latent_dim: Width ``K`` of the state.
        context_dim: Width of memory and covariates, ``M + U``.

    Shape:
        Context ``(B, ...)`` -> Distribution, batch ``(B,)``, event ``(K,)``.

    Example:
        >>> InitialNormal(2)(Context.regular(3)).batch_shape
        torch.Size([3])
    """

    log_scales: ClassVar[tuple[str, ...]] = ("log_scale",)
    loc: Tensor
    log_scale: Tensor

    def __init__(self, latent_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.start("loc", torch.zeros(latent_dim))
        self.start("log_scale", torch.zeros(latent_dim))
        self.shift = Linear(context_dim, latent_dim, bias=False) if context_dim else None

    def forward(self, c: Context) -> Independent:
        loc = self.loc
        if self.shift is not None:
            loc = loc + self.shift(c.features(c.m[..., :0]))
        shape = (*c.shape, self.latent_dim)
        return diagonal_normal(loc.expand(shape), self.log_scale.exp().expand(shape))


class Gated(Transition, FusedSteps):
    r"""A gate between a linear and a nonlinear move of the state, as in deep Markov models.

    .. math::
        z_t &\sim N\big((1 - g) \odot a \odot z_{t-1} + g \odot h,\ \sigma\big), \qquad
        x = \tanh(W [z_{t-1}, m_t, u_t] + b), \\
        g &= \operatorname{sigmoid}(W_g x + b_g), \quad h = W_h x + b_h, \quad
        \sigma = \operatorname{softplus}(W_\sigma x + b_\sigma), \quad |a| < 1

    A closed gate is a slowly forgetting walk: the network has to earn its nonlinearity, coordinate
    by coordinate. Unlike in the paper, the linear move is a contraction and the hidden units are
    bounded, so the state stays within bounds for all weights: a rollout cannot diverge, nor can
    a posterior that follows the prior while it is being trained. With ``handles_gaps`` it reads
    the gap as one more input, and learns what it means only where the data have such gaps.

    Args:
        latent_dim: Width ``K`` of the state, at least 1.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden_dim: Width of the hidden layer.
        handles_gaps: Whether the logarithm of the gap is an input.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``;
        without the axis ``T`` for a step.

    Example:
        >>> from seqlatent.sequences import Context
        >>> p = Gated(3, hidden_dim=16)
        >>> p(torch.zeros(7, 5, 3), Context.regular(5)).batch_shape
        torch.Size([7, 5])

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan, Shalit & Sontag,
        2017), section 5. https://arxiv.org/abs/1609.09869
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        context_dim: int = 0,
        hidden_dim: int = 64,
        handles_gaps: bool = False,
    ) -> None:
        super().__init__()
        require_sizes("Gated", 1, latent_dim=latent_dim, hidden_dim=hidden_dim)
        require_sizes("Gated", 0, context_dim=context_dim)
        self.latent_dim, self.hidden_dim = latent_dim, hidden_dim
        self.context_dim, self.handles_gaps = context_dim, handles_gaps
        # A sampling loop pays for calls, not for multiplications: two matrix products give it all.
        self.hidden = Linear(latent_dim + context_dim + handles_gaps, hidden_dim)
        self.head = Linear(hidden_dim, 3 * latent_dim)
        self.raw_decay = nn.Parameter(torch.empty(latent_dim))
        self.first = InitialNormal(latent_dim, context_dim)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the memory of a closed gate to about 28 steps; draws nothing."""
        nn.init.constant_(self.raw_decay, 2.0)

    def initial(self, c: Context) -> Distribution:
        return self.first(c)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        x = _inputs(self, z, c, self.context_dim)
        gate, proposal, scale = self.head(self.hidden(x).tanh()).chunk(3, -1)
        loc = torch.lerp(self.raw_decay.tanh() * z, proposal, gate.sigmoid())
        return diagonal_normal(loc, functional.softplus(scale) + _FLOOR)

    def steps(self, c: Context, samples: int) -> GatedSteps:
        known, into = _known(self, self.hidden, self.latent_dim, c, samples)
        decay = self.raw_decay.tanh()
        return GatedSteps(known, into, self.head.weight, self.head.bias, decay, _FLOOR)

    def extra_repr(self) -> str:
        return sizes(self, "latent_dim", "context_dim", "hidden_dim", "handles_gaps")


class CarriedRecurrence(Transition, Initialised, FusedSteps):
    r"""A random latent :math:`z` beside a recurrent memory :math:`h` of all latents before it.

    .. math:: h_t = \operatorname{GRU}([\phi(z_{t-1}), m_t, u_t], h_{t-1}), \qquad
        z_t \sim N(\mu(h_t), \sigma(h_t))

    The transition of variational recurrent networks and of recurrent state space models: long
    memory of its own without a long latent. Only :math:`z` is random and scored; an emission reads
    the whole state, so its ``latent_dim`` is this one's. The first step is a step of the same cell
    from a learned start.

    Args:
        random_dim: Width of :math:`z`, at least 1.
        carry_dim: Width of :math:`h`, at least 1.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers of the distribution of :math:`z` given :math:`h`.
        handles_gaps: Whether the logarithm of the gap is an input.

    Attributes:
        latent_dim: ``random_dim + carry_dim``, the width of the state.

    Shape:
        ``forward``: state ``(*S, B, T, random_dim + carry_dim)`` -> :class:`Carried` of that event,
        batch ``(*S, B, T)``; without the axis ``T`` for a step.

    Example:
        >>> p = CarriedRecurrence(2, 8)
        >>> p(torch.zeros(7, 5, 10), Context.regular(5)).rsample().shape
        torch.Size([7, 5, 10])

    References:
        A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015), equations 5 and
        7.
        https://arxiv.org/abs/1506.02216

        Learning Latent Dynamics for Planning from Pixels (Hafner et al., 2019), equation 4.
        https://arxiv.org/abs/1811.04551
    """

    before: Tensor

    def __init__(
        self,
        random_dim: int,
        carry_dim: int,
        *,
        context_dim: int = 0,
        hidden: tuple[int, ...] = (64,),
        handles_gaps: bool = False,
    ) -> None:
        super().__init__()
        require_sizes("CarriedRecurrence", 1, random_dim=random_dim, carry_dim=carry_dim)
        require_sizes("CarriedRecurrence", 0, context_dim=context_dim)
        self.random_dim, self.carry_dim = random_dim, carry_dim
        self.latent_dim = random_dim + carry_dim
        self.context_dim, self.handles_gaps = context_dim, handles_gaps
        self.embed = Linear(random_dim, carry_dim)
        self.input_gates = Linear(carry_dim + context_dim + handles_gaps, 3 * carry_dim)
        self.carry_gates = Linear(carry_dim, 3 * carry_dim)
        self.head = MLP(carry_dim, hidden, 2 * random_dim)
        self.start("before", torch.zeros(self.latent_dim))

    def initial(self, c: Context) -> Distribution:
        return self(self.before.expand(*c.shape, self.latent_dim), c)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        previous, carry = z.split((self.random_dim, self.carry_dim), -1)
        x = _inputs(self, functional.silu(self.embed(previous)), c, self.context_dim)
        return self._distribution(self._advance(x, carry))

    def _distribution(self, carry: Tensor) -> Carried:
        loc, scale = self.head(carry).chunk(2, -1)
        return Carried(diagonal_normal(loc, functional.softplus(scale) + _FLOOR), carry)

    def _advance(self, x: Tensor, carry: Tensor) -> Tensor:
        """A gated recurrent unit on the last axis; torch's own cell takes no further axes."""
        sizes = (2 * self.carry_dim, self.carry_dim)
        x_gates, x_new = self.input_gates(x).split(sizes, -1)
        h_gates, h_new = self.carry_gates(carry).split(sizes, -1)
        reset, update = (x_gates + h_gates).sigmoid().chunk(2, -1)
        return torch.lerp(torch.addcmul(x_new, reset, h_new).tanh(), carry, update)

    def steps(self, c: Context, samples: int) -> CarriedSteps:
        known, into = _known(self, self.input_gates, self.carry_dim, c, samples)
        joint = torch.block_diag(self.embed.weight, self.carry_gates.weight)
        return CarriedSteps(known, joint, torch.cat([self.embed.bias, self.carry_gates.bias]), into)

    def along(self, z: Tensor) -> Carried:
        return self._distribution(z[..., self.random_dim :])

    def extra_repr(self) -> str:
        return sizes(self, "random_dim", "carry_dim", "context_dim", "handles_gaps")


def _known(
    transition: "Gated | CarriedRecurrence", layer: Linear, width: int, c: Context, samples: int
) -> tuple[Tensor, Tensor]:
    """What bias and context add to a layer at every step, and its weight for the other inputs."""
    weight = layer.weight
    if weight.shape[-1] == width:
        require_context(transition, c, transition.context_dim)
        return layer.bias, weight
    x = _inputs(transition, c.dt[..., :0], c, transition.context_dim)
    return by_step(functional.linear(x, weight[:, width:], layer.bias), samples), weight[:, :width]


def require_context(transition: Transition, c: Context, context_dim: int) -> None:
    """Raises a ValueError unless memory and covariates have the width that a transition reads."""
    found = c.m.shape[-1] + c.u.shape[-1]
    if found != context_dim:
        raise ValueError(
            f"{type(transition).__name__} reads {context_dim} context features, found "
            f"{c.m.shape[-1]} of memory and {c.u.shape[-1]} covariates; build it with "
            f"context_dim={found}."
        )


def _inputs(transition: Transition, z: Tensor, c: Context, context_dim: int) -> Tensor:
    """State, memory, covariates and, if the transition handles gaps, the logarithm of the gap."""
    require_context(transition, c, context_dim)
    x = c.features(z) if context_dim else z
    if not transition.handles_gaps:
        return x
    gap = c.dt.log()
    shape = torch.broadcast_shapes(x.shape[:-1], gap.shape[:-1])
    return torch.cat([x.expand(*shape, x.shape[-1]), gap.expand(*shape, 1)], -1)


def require_sizes(owner: str, least: int, **values: int) -> None:
    """Raises a ValueError unless every value is an integer of at least ``least``."""
    for name, size in values.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            hint = "; NoLatent is the transition without a state" if name == "latent_dim" else ""
            raise ValueError(
                f"{owner} expected {name} to be an integer of at least {least}, found "
                f"{size!r}{hint}."
            )


def sizes(module: nn.Module, *names: str) -> str:
    """Text for a repr: ``name=value`` of each attribute."""
    return ", ".join(f"{name}={getattr(module, name)}" for name in names)
