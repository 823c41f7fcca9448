"""Regimes: a state that is one of several, by itself or beside a vector that depends on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.chain import ConditionallyLinear
from seqlatent.distributions import OneHot, Switched, regime_of
from seqlatent.sequences import Context
from seqlatent.sizes import whole
from seqlatent.transitions.linear import require
from seqlatent.transitions.parameters import Initialised
from seqlatent.transitions.transition import Transition

__all__ = ["Regimes", "SwitchingLinear"]


class Regimes(Transition, Initialised):
    r"""A Markov chain of a few regimes: the latent state of a hidden Markov model.

    .. math:: p(s_1 = i) = \pi_i, \qquad p(s_t = j \mid s_{t-1} = i) =
        \operatorname{softmax}_j(A_{ij} + w_{ij}^\top c_t)

    The state is a one-hot vector, so that an emission reads it like any other. Distribution of the
    first regime and transitions are learned; at the start every regime is as likely, and likely to
    stay. With a context, transitions follow memory and covariates; w is 0 at the start. For
    probabilities that are known, see :meth:`of`.

    Args:
        states: Number of regimes ``S``, the width of the state.
        stay: Probability of staying in a regime for another step, at the start.
        context_dim: Width of memory and covariates, ``M + U``, that the transitions follow; 0 for
            none.

    Shape:
        ``forward``: z ``(*S, B, T, S)`` -> Distribution, batch ``(*S, B, T)``, event ``(S,)``.

    Example:
        >>> p = Regimes(2, stay=0.75)
        >>> p(torch.tensor([[0.0, 1.0]]), Context.regular(1)).mean.detach()
        tensor([[0.2500, 0.7500]])

    References:
        A New Approach to the Economic Analysis of Nonstationary Time Series and the Business Cycle
        (Hamilton, 1989).
    """

    initial_logits: Tensor
    transition_logits: Tensor
    head: Tensor

    def __init__(self, states: int, *, stay: int | float = 0.9, context_dim: int = 0) -> None:
        super().__init__()
        states, context_dim = whole("states", states, 1), whole("context_dim", context_dim)
        if not 0 < stay < 1:
            raise ValueError(f"stay must be a probability between 0 and 1, found {stay!r}.")
        self.latent_dim, self.context_dim = states, context_dim
        P = torch.full((states, states), (1 - stay) / max(states - 1, 1))
        P.fill_diagonal_(stay if states > 1 else 1.0)
        self.start("initial_logits", torch.zeros(states))
        self.start("transition_logits", P.log())
        if context_dim:
            self.start("head", torch.zeros(states, states, context_dim))

    @classmethod
    def of(cls, P: Tensor, initial: Tensor | None = None, *, learn: bool = False) -> "Regimes":
        """Builds the chain from its probabilities.

        Args:
            P: Transition matrix, ``P[i, j]`` the probability of j after i; 0 is never.
            initial: Distribution of the first regime; the stationary one by default.
            learn: Whether they are starting values of parameters, or fixed.

        Shape:
            P ``(S, S)``, initial ``(S,)``.

        Raises:
            TypeError: If an argument is no floating tensor.
            ValueError: If a shape does not fit, or a row is no probability distribution.

        Example:
            >>> p = Regimes.of(torch.tensor([[0.9, 0.1], [0.3, 0.7]]))
            >>> p.initial(Context.regular(1)).mean
            tensor([[0.7500, 0.2500]])
        """
        require("P", P, (len(P), len(P)) if P.ndim else None, "it leads from regime to regime")
        initial = _stationary(P) if initial is None else initial
        require("initial", initial, (len(P),), f"P has {len(P)} regimes")
        for name, x in (("P", P), ("initial", initial)):
            if bool((x < 0).any()) or not bool(((x.sum(-1) - 1).abs() < 1e-5).all()):
                raise ValueError(
                    f"{name} must have rows of probabilities that sum to one, found "
                    f"{x.tolist()}; P[i, j] is the probability of j after i."
                )
        distribution = cls(len(P))
        distribution.start("initial_logits", initial.to(P).log(), learn=learn)
        distribution.start("transition_logits", P.log(), learn=learn)
        return distribution

    def log_initial(self, c: Context) -> Tensor:
        """Logarithms of the distribution of the first regime ``(S,)``."""
        return self.initial_logits.log_softmax(-1)

    def log_transition(self, c: Context) -> Tensor:
        """Logarithms ``[i, j]`` of the transitions, ``(S, S)`` or, with a context, of each step."""
        logits = self.transition_logits
        if self.context_dim:
            features = c.features(c.dt[..., :0])
            logits = logits + torch.einsum("...u,iju->...ij", features, self.head)
        return logits.log_softmax(-1)

    def initial(self, c: Context) -> Distribution:
        return OneHot(self.log_initial(c).expand(*c.shape, self.latent_dim))

    def forward(self, z: Tensor, c: Context) -> Distribution:
        return OneHot(self.rows(regime_of(z, self.latent_dim), c))

    def rows(self, regime: Tensor, c: Context) -> Tensor:
        """Logarithms ``(..., S)`` of the distribution of the regime after ``regime (...)``."""
        M = self.log_transition(c)
        if M.dim() == 2:
            return M[regime]
        shape = torch.broadcast_shapes(M.shape[:-2], regime.shape)
        index = regime.expand(shape)[..., None, None].expand(*shape, 1, M.shape[-1])
        return M.expand(*shape, *M.shape[-2:]).gather(-2, index)[..., 0, :]

    def extra_repr(self) -> str:
        return f"{self.latent_dim}" + (
            f", context_dim={self.context_dim}" if self.context_dim else ""
        )


@runtime_checkable
class _Loaded(Protocol):
    """A transition that says how its state enters a scalar observation."""

    @property
    def loading(self) -> "_Row": ...


@runtime_checkable
class _Row(Protocol):
    @property
    def latent_dim(self) -> int: ...
    def row(self, u: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Behind:
    """The loading of a state that stands behind the coordinates of its regime."""

    states: int
    inner: _Row

    @property
    def latent_dim(self) -> int:
        """Width of the state with its regime."""
        return self.states + self.inner.latent_dim

    def row(self, u: Tensor) -> Tensor:
        """Weights, zero for the regime."""
        return nn.functional.pad(self.inner.row(u), (self.states, 0))


class SwitchingLinear(Transition):
    r"""A linear Gaussian distribution whose matrices a hidden regime decides.

    .. math:: z_t = F_{s_t} z_{t-1} + b_{s_t} + G_{s_t} \varepsilon_t, \qquad
        s_t \sim \text{Regimes}

    The state is the one-hot regime beside the vector. For dynamics that change their noise, their
    speed or their course now and then and come back: calm and crisis, motion and rest. An emission
    reads the whole state, ``emissions.LinearGaussian(transition.latent_dim, ...)``, or the vector
    in each regime, ``emissions.ByRegime``. Regimes that start alike stay alike: give the parts
    different values.

    Args:
        parts: One linear transition per regime, all of the same width ``K``. What they share may be
            one module.
        stay: Probability of staying in a regime for another step, at the start.
        context_dim: Width of memory and covariates that the switching follows; 0 for none.
        regimes: The chain of regimes, instead of ``stay`` and ``context_dim``.

    Shape:
        ``forward``: z ``(*S, B, T, S + K)`` -> Distribution, batch ``(*S, B, T)``, event
        ``(S + K,)``.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> p = SwitchingLinear([LocalLevel(scale=0.1), LocalLevel(scale=2.0)])
        >>> p(torch.tensor([[1.0, 0.0, 5.0]]), Context.regular(1)).mean.detach()
        tensor([[0.9500, 0.0500, 5.0000]])

    References:
        Dynamic Linear Models with Markov-Switching (Kim, 1994).
    """

    def __init__(
        self,
        parts: Sequence[Transition],
        *,
        stay: int | float = 0.95,
        context_dim: int = 0,
        regimes: Regimes | None = None,
    ) -> None:
        super().__init__()
        wrong = [type(part).__name__ for part in parts if not isinstance(part, ConditionallyLinear)]
        if wrong or not parts:
            raise TypeError(
                "SwitchingLinear needs linear transitions, one for each regime, found "
                f"{', '.join(wrong) or 'none'}; use LinearTransition or DiagonalTransition kinds."
            )
        widths = {part.latent_dim for part in parts}
        if len(widths) > 1:
            raise ValueError(
                f"all parts must have states of the same width, found {sorted(widths)}; add the "
                "components that lack, with a scale of None."
            )
        self.states, self.inner_dim = len(parts), widths.pop()
        self.latent_dim = self.states + self.inner_dim
        if regimes is None:
            regimes = Regimes(self.states, stay=stay, context_dim=context_dim)
        if regimes.latent_dim != self.states:
            raise ValueError(
                f"regimes has {regimes.latent_dim} states for {self.states} parts; give one part "
                "for each."
            )
        self.regimes = regimes
        self.parts = nn.ModuleList(parts)

    @property
    def loading(self) -> _Behind:
        """How the state enters a scalar observation, as the parts say it.

        Raises:
            TypeError: If the parts do not say it.
        """
        first = self.parts[0]
        if not isinstance(first, _Loaded):
            raise TypeError(
                f"{type(first).__name__} has no loading; use an emission that learns H."
            )
        return _Behind(self.states, first.loading)

    def initial(self, c: Context) -> Distribution:
        log_prob = self.regimes.log_initial(c).expand(*c.shape, self.states)
        return Switched(log_prob, [part.initial(c) for part in self._distributions()])

    def forward(self, z: Tensor, c: Context) -> Distribution:
        log_prob = self.regimes.rows(regime_of(z, self.states), c)
        inner = z[..., self.states :]
        return Switched(log_prob, [part(inner, c) for part in self.parts])

    def _distributions(self) -> list[Transition]:
        return [part for part in self.parts if isinstance(part, Transition)]

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """``F (..., S, K, K)``, ``b (..., S, K)`` and covariance ``Q (..., S, K, K)``."""
        found = [part.matrices(c) for part in self.parts if isinstance(part, ConditionallyLinear)]
        F, b, G = zip(*found, strict=True)
        return stacked(F, 2), stacked(b, 1), stacked([g @ g.mT for g in G], 2)

    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        """Mean ``(..., S, K)`` and covariance ``(..., S, K, K)`` of the first vector.

        Raises:
            ValueError: If a first state is diffuse.
        """
        found = [
            part.initial_moments(c) for part in self.parts if isinstance(part, ConditionallyLinear)
        ]
        m0, G0 = zip(*found, strict=True)
        if not all(bool(g.detach().isfinite().all()) for g in G0):
            raise ValueError(
                "a switching model needs a proper distribution of its first state, found an "
                "infinite variance; give the components an initial_scale, such as 10."
            )
        return stacked(m0, 1), stacked([g @ g.mT for g in G0], 2)

    def extra_repr(self) -> str:
        return f"states={self.states}"


def stacked(values: Sequence[Tensor], event: int) -> Tensor:
    """One tensor per regime, broadcast and stacked before its last axes."""
    return torch.stack(torch.broadcast_tensors(*values), -1 - event)


def _stationary(P: Tensor) -> Tensor:
    """The distribution that the chain leaves as it is, where there is one."""
    eye = torch.eye(len(P), dtype=P.dtype, device=P.device)
    ones = torch.ones(1, len(P), dtype=P.dtype, device=P.device)
    target = torch.cat([torch.zeros_like(eye[0]), ones[0, :1]])
    found = torch.linalg.pinv(torch.cat([P.T - eye, ones])) @ target
    found = found.clamp_min(0)
    return found / found.sum()
