"""Neural ordinary differential equations: the state flows over the gap between observations."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.distributions import Carried, diagonal_normal
from seqlatent.networks import MLP
from seqlatent.sequences import Context
from seqlatent.transitions.neural import InitialNormal, require_context, require_sizes, sizes
from seqlatent.transitions.parameters import Initialised, positive
from seqlatent.transitions.transition import Transition

__all__ = ["BoundedField", "NeuralODE"]

Derivative = Callable[[Tensor, Tensor], Tensor]

_FIXED = ("euler", "midpoint", "rk4")
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


class BoundedField(Initialised):
    r"""A vector field that cannot run away: bounded by a learned speed, pulled to zero.

    .. math:: f(z, c) = v \odot \tanh(\operatorname{MLP}([z, m, u])) - r \odot z, \quad
        v > 0,\ 0 < r < 1

    Starts near the zero field. Along it no state leaves the box of half-widths :math:`v / r` once
    it is inside.

    Args:
        latent_dim: Width ``K`` of the state.
        context_dim: Width of memory and covariates, ``M + U``.
        hidden: Widths of the hidden layers.
        speed: Initial :math:`v`.
        pull: Initial :math:`r`.

    Shape:
        ``(*, K + M + U)`` -> ``(*, K)``.

    Example:
        >>> BoundedField(2)(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    logarithms: ClassVar[tuple[str, ...]] = ("log_speed",)
    log_speed: Tensor
    logit_pull: Tensor

    def __init__(
        self,
        latent_dim: int,
        context_dim: int = 0,
        *,
        hidden: tuple[int, ...] = (64,),
        speed: float = 0.1,
        pull: float = 0.02,
    ) -> None:
        super().__init__()
        _require_positive("BoundedField", speed=speed, pull=pull)
        if pull >= 1:
            raise ValueError(
                f"pull must be below 1, found {pull}: at 1 a state is forgotten in a step."
            )
        self.latent_dim = latent_dim
        self.net = MLP(latent_dim + context_dim, hidden, latent_dim)
        self.start("log_speed", torch.full((latent_dim,), math.log(speed)))
        self.start("logit_pull", torch.full((latent_dim,), math.log(pull / (1 - pull))))

    def forward(self, x: Tensor) -> Tensor:
        drift = self.log_speed.exp() * self.net(x).tanh()
        return torch.addcmul(drift, self.logit_pull.sigmoid(), x[..., : self.latent_dim], value=-1)


class NeuralODE(Transition):
    r"""A state that flows along a learned vector field for as long as the gap lasts.

    .. math:: z_t \sim N\big(\varphi_{\Delta_t}(z_{t-1}),\ \sigma^2 \Delta_t + \kappa^2\big), \qquad
        \frac{d}{ds} \varphi_s(z) = f(\varphi_s(z), m_t, u_t)

    For irregular times. Memory and covariates are held constant over the gap. With neither process
    noise :math:`\sigma` nor jumps :math:`\kappa` all randomness is in the first state: that is the
    latent ODE, whose conditionals are :class:`~seqlatent.distributions.Carried` without a random
    part. It has no way to take up a later surprise; with noise, every observation corrects the
    path. The flow over a gap is the flow over its parts; the noise enters at the end of a gap, so
    splitting one with an unobserved step changes the distribution a little.

    Every series has its own gap: the equation is solved in the time :math:`\tau = s / \Delta_t`, in
    which all gaps are one long. A method with fixed steps cuts each gap into
    :math:`\lceil \Delta_t / \mathrm{max\_step} \rceil` equal ones, so a series does not depend on
    what it is batched with, and costs at most twice as many steps as its own gap needs. Adaptive
    methods choose one step for all series, whose results then agree within the tolerance only.

    A gap beyond ``longest`` counts as one of that length, so that the work of a gap is bounded: a
    :class:`BoundedField` forgets where it came from in :math:`1 / r` steps, and where on a cycle a
    state is after many more is beyond what any solver tells. Up to there the flow is exact.

    Args:
        latent_dim: Width ``K`` of the state, at least 1.
        hidden: Widths of the hidden layers of a :class:`BoundedField`.
        field: Another vector field, ``[z, m, u]`` ``(*, K + M + U)`` -> ``(*, K)``; ``hidden`` is
            then not read.
        diffusion: Initial standard deviation of the process noise per square root of a sampling
            step; None for none.
        jump: Initial standard deviation of a jump at each step, whatever the gap; None for none.
        method: Solver of torchdiffeq: ``euler``, ``midpoint`` or ``rk4`` with fixed steps;
            ``dopri5``, ``dopri8``, ``bosh3``, ``fehlberg2`` or ``adaptive_heun``, adaptive.
        max_step: Longest fixed step, in sampling steps.
        longest: Longest gap over which the state flows and noise gathers, in sampling steps.
        rtol: Relative tolerance of an adaptive method.
        atol: Absolute tolerance of an adaptive method.
        adjoint: Whether gradients come from a second equation solved backwards, with memory that
            does not grow with the number of solver steps, rather than through the solver.
        context_dim: Width of memory and covariates, ``M + U``.

    Shape:
        ``forward``: z ``(*S, B, T, K)`` -> Distribution, batch ``(*S, B, T)``, event ``(K,)``;
        without the axis ``T`` for a step.

    Example:
        >>> p = NeuralODE(2, diffusion=0.1)
        >>> p(torch.zeros(7, 5, 2), Context.regular(5, dt=torch.rand(5, 1) + 0.1)).batch_shape
        torch.Size([7, 5])

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), section 5.
        https://arxiv.org/abs/1806.07366

        Latent ODEs for Irregularly-Sampled Time Series (Rubanova, Chen & Duvenaud, 2019).
        https://arxiv.org/abs/1907.03907
    """

    handles_gaps = True

    def __init__(
        self,
        latent_dim: int,
        *,
        hidden: tuple[int, ...] = (64,),
        field: nn.Module | None = None,
        diffusion: float | None = 0.1,
        jump: float | None = None,
        method: str = "rk4",
        max_step: float = 1.0,
        longest: float = 256.0,
        rtol: float = 1e-5,
        atol: float = 1e-6,
        adjoint: bool = False,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        require_sizes("NeuralODE", 1, latent_dim=latent_dim)
        require_sizes("NeuralODE", 0, context_dim=context_dim)
        _require_positive("NeuralODE", max_step=max_step, longest=longest, rtol=rtol, atol=atol)
        diffusion, jump = positive("diffusion", diffusion), positive("jump", jump)
        if method not in _FIXED + _ADAPTIVE:
            raise ValueError(
                f"NeuralODE expected method to be one of {', '.join(_FIXED)} (fixed steps) or "
                f"{', '.join(_ADAPTIVE)} (adaptive), found {method!r}."
            )
        self.latent_dim, self.context_dim = latent_dim, context_dim
        self.method, self.max_step, self.longest = method, max_step, longest
        self.adjoint, self.rtol, self.atol = adjoint, rtol, atol
        self.field = (
            BoundedField(latent_dim, context_dim, hidden=hidden) if field is None else field
        )
        self.first = InitialNormal(latent_dim, context_dim)
        self.diffusion = None if diffusion is None else _Scale(latent_dim, diffusion)
        self.jump = None if jump is None else _Scale(latent_dim, jump)

    def initial(self, c: Context) -> Distribution:
        return self.first(c)

    def forward(self, z: Tensor, c: Context) -> Distribution:
        require_context(self, c, self.context_dim)
        loc = self.flow(z, c)
        if self.diffusion is None and self.jump is None:
            return Carried(None, loc)
        variance = loc.new_zeros(())
        if self.diffusion is not None:
            variance = self.diffusion().square() * c.dt.clamp_max(self.longest)
        if self.jump is not None:
            variance = variance + self.jump().square()
        return diagonal_normal(loc, variance.sqrt().expand(loc.shape))

    def flow(self, z: Tensor, c: Context) -> Tensor:
        """Where the noiseless flow takes a state over the gap ``c.dt``; shape ``(*S, B, T, K)``."""
        features = c.features(c.m[..., :0])
        shape = torch.broadcast_shapes(z.shape[:-1], features.shape[:-1], c.dt.shape[:-1])
        z, features = z.expand(*shape, -1), features.expand(*shape, -1)
        if z.numel() == 0:
            return z
        dt = c.dt.clamp_max(self.longest)
        if self.method in _ADAPTIVE or not bool((dt > self.max_step).any()):
            return self._solve(self._along(features, lambda tau: dt), z, 1, (features, dt))
        flat = (x.expand(*shape, -1).flatten(0, -2) for x in (z, features, dt))
        return self._in_turn(*flat).reshape(z.shape)

    def _along(self, features: Tensor, speed: Callable[[Tensor], Tensor]) -> Derivative:
        """The field in the solver's time, of which ``speed`` says how much of a gap passes."""

        def derivative(tau: Tensor, state: Tensor) -> Tensor:
            x = torch.cat([state, features], -1) if self.context_dim else state
            return speed(tau) * self.field(x)

        return derivative

    def _in_turn(
        self,
        z: Float[Tensor, "N K"],
        features: Float[Tensor, "N C"],
        dt: Float[Tensor, "N 1"],
    ) -> Float[Tensor, "N K"]:
        """The flow over gaps of several fixed steps; those that are over leave at powers of two.

        A gap of n steps passes in the first n units of time, and then stands still.
        """
        counts = (dt.detach() / self.max_step).ceil().clamp_min(1)
        pace, begin, most = dt / counts, 0, int(counts.max())
        while begin < most:
            steps = min(max(begin, 1), most - begin)
            alive = (counts[:, 0] > begin).nonzero()[:, 0]
            left, gaps, known = counts[alive] - begin, pace[alive], features[alive]

            def speed(tau: Tensor, left: Tensor = left, gaps: Tensor = gaps) -> Tensor:
                return torch.where(tau.floor() < left, gaps, torch.zeros_like(gaps))

            moved = self._solve(
                self._along(known, speed), z[alive], steps, (known, gaps), jumps=True
            )
            z = z.index_copy(0, alive, moved)
            begin += steps
        return z

    def _solve(
        self,
        derivative: Derivative,
        z: Tensor,
        steps: int,
        inputs: tuple[Tensor, ...],
        *,
        jumps: bool = False,
    ) -> Tensor:
        from torchdiffeq import odeint, odeint_adjoint

        times = torch.tensor([0.0, float(steps)], dtype=z.dtype, device=z.device)
        if self.method in _FIXED:
            # the pace jumps between steps: a solver asks for it just inside the step it is taking
            options = {"step_size": 1.0, "perturb": jumps}
        else:
            # an adaptive solver that steps beyond the end interpolates back, with a greater error
            options = {"step_t": times}
        settings: dict[str, Any] = {
            "method": self.method,
            "rtol": self.rtol,
            "atol": self.atol,
            "options": options,
        }
        if self.adjoint:
            # what the closure reads and wants gradients for has to be named
            settings["adjoint_params"] = (*self.field.parameters(), *inputs)
        solve: Callable[..., Any] = odeint_adjoint if self.adjoint else odeint
        return solve(derivative, z, times, **settings)[-1]

    def extra_repr(self) -> str:
        return sizes(self, "latent_dim", "context_dim", "method", "max_step", "longest", "adjoint")


class _Scale(Initialised):
    """A learned standard deviation per dimension."""

    log: Tensor

    def __init__(self, size: int, value: float) -> None:
        super().__init__()
        self.start("log", torch.full((size,), math.log(value)))

    def forward(self) -> Tensor:
        return self.log.exp()

    def extra_repr(self) -> str:
        return str(len(self.log))


def _require_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{owner} expected {name} to be a positive number, found {value!r}.")
