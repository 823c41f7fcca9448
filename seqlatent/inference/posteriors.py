"""Amortised posteriors: chains made of encoder features and the model's own transition."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from seqlatent.chain import (
    Affine,
    Correction,
    Kernel,
    Linear,
    Marginal,
    Sampled,
    Stepped,
    affine_path,
    step_noise,
)
from seqlatent.distributions import (
    Carried,
    FactorNormal,
    diagonal_normal,
    place,
    require_proper,
)
from seqlatent.networks import MLP
from seqlatent.recurrence import linear_recurrence
from seqlatent.sequences import Context
from seqlatent.walks import CarriedSteps, CarriedWalk, CombinedWalk, GatedSteps, TiltedWalk, by_step

__all__ = ["Combiner", "Parallel", "Posterior", "Tilted"]


_FLOOR = 1e-4  # least standard deviation, small beside 1


class Posterior(nn.Module, ABC):
    """A family of posterior chains.

    Attributes:
        latent_dim: Random latent dimensions, without what a state carries.
    """

    latent_dim: int

    @abstractmethod
    def statistics(self, features: Tensor) -> Tensor:
        """What the kernel reads of an encoder's features, for all steps; it becomes ``c.e``."""

    @abstractmethod
    def kernel(self, transition: Kernel, c: Context) -> Correction:
        """The posterior's conditionals, given the model's transition and a context of all steps."""


def _require_width(posterior: Posterior, transition: Kernel, c: Context) -> None:
    with torch.no_grad():
        law = transition.initial(c[0])
    width = law.random_dim if isinstance(law, Carried) else law.event_shape[0]
    if width != posterior.latent_dim:
        raise ValueError(
            f"{type(posterior).__name__} has {posterior.latent_dim} latent dimensions, and "
            f"{type(transition).__name__} has {width} random ones; give both the same number."
        )


def _conditional(transition: Kernel, c: Context) -> Distribution:
    """Law of one step of the transition, to see of which kind they are."""
    with torch.no_grad():
        first = transition.initial(c[0])
        first = first if isinstance(first, Carried) else _require_diagonal(first)
        return transition(first.mean, c[0])


class Tilted(Posterior):
    r"""The model's own transition, corrected by a learned Gaussian potential.

    .. math:: q(z_t \mid z_{t-1}) \propto p(z_t \mid z_{t-1})\, N(z_t; m(e_t), 1 / w(e_t))

    Zero weight gives the prior exactly, so steps of which the data say nothing cost nothing, and
    training starts from the model's own dynamics. With a transition that is linear the tilt is
    linear, hence sampled without a loop. The exact posterior of a linear Gaussian model whose
    messages are diagonal is in the family.

    Args:
        feature_dim: Width ``E`` of the encoder's features.
        latent_dim: Random latent dimensions.
        hidden: Widths of the layers between features and potential.
        weight: Initial weight relative to a unit variance; small weights start near the prior.

    Example:
        >>> walk, c = seqlatent.transitions.LocalLevel(), Context.regular(3, 5)
        >>> posterior = Tilted(feature_dim=8, latent_dim=1)
        >>> c = c.replace(e=posterior.statistics(torch.zeros(3, 5, 8)))
        >>> posterior.kernel(walk, c)(torch.zeros(3, 1), c[1]).event_shape
        torch.Size([1])

    References:
        Composing graphical models with neural networks (Johnson et al., 2016).
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017).
    """

    def __init__(
        self,
        feature_dim: int,
        latent_dim: int,
        *,
        hidden: tuple[int, ...] = (),
        weight: int | float = 0.1,
    ) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(
                f"weight must be positive, found {weight}; the default 0.1 starts near the prior."
            )
        self.latent_dim = latent_dim
        self.head = MLP(feature_dim, hidden, 2 * latent_dim)
        self.offset = torch.tensor(weight).expm1().log().item()

    def statistics(self, features: Tensor) -> Tensor:
        m, w = self.head(features).chunk(2, -1)
        return torch.cat([m, nn.functional.softplus(w + self.offset)], -1)

    def kernel(self, transition: Kernel, c: Context) -> Correction:
        _require_width(self, transition, c)
        if isinstance(transition, Affine):
            return _AffineTilt(transition)
        if isinstance(transition, Linear):
            return _LinearTilt(transition)
        return _Tilt(transition)


def _potential(c: Context) -> tuple[Tensor, Tensor]:
    m, w = c.e.chunk(2, -1)
    return m, w * c.informed


def tilt(law: Distribution, m: Tensor, w: Tensor) -> Distribution:
    r"""The law proportional to a normal one, carried or not, times :math:`N(z; m, 1/w)`.

    Raises:
        TypeError: If the law is not normal.
    """
    if isinstance(law, Carried):
        return law if law.base is None else Carried(tilt(law.base, m, w), law.carry)
    if isinstance(law, FactorNormal):
        A, offset, factor = _tilt_factor(law.factor, m, w)
        return FactorNormal((A @ law.loc[..., None])[..., 0] + offset, factor)
    if isinstance(law, Independent) and isinstance(law.base_dist, Normal):
        loc, scale = law.base_dist.loc, law.base_dist.scale
        gain = w * scale.square()
        kept = 1 / (1 + gain)
        return diagonal_normal(loc + gain * kept * (m - loc), scale * kept.sqrt())
    raise TypeError(
        f"Tilted needs a transition whose conditionals are normal, found {type(law).__name__}; use "
        "Combiner or Particles."
    )


def _tilt_factor(G: Tensor, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``A, b`` and a factor of the tilt of N(mu, G G'), whose mean is ``A mu + b``."""
    weighted = G * w[..., None]
    M = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device) + G.mT @ weighted
    L = torch.linalg.cholesky(M)
    gain = G @ torch.cholesky_solve(weighted.mT.expand(*L.shape[:-1], -1), L)
    A = torch.eye(G.shape[-2], dtype=G.dtype, device=G.device) - gain
    factor = torch.linalg.solve_triangular(L, G.mT.expand(*L.shape[:-1], -1), upper=False).mT
    return A, (gain @ m[..., None])[..., 0], factor


class _Tilt(Correction):
    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        assert p is not None
        return tilt(p, *_potential(c))

    def walk(self, c: Context, samples: int) -> TiltedWalk | None:
        if not isinstance(self.transition, Stepped) or not self.transition.faithful:
            return None
        prior = self.transition.steps(c, samples)
        if not isinstance(prior, GatedSteps):
            return None
        m, w = _potential(c)
        return TiltedWalk(prior, by_step(m, samples), by_step(w, samples))

    def along(self, z: Tensor, laws: tuple[Tensor, ...]) -> tuple[Distribution, Distribution]:
        return diagonal_normal(*laws[:2]), diagonal_normal(*laws[2:])


class _AffineTilt(_Tilt, Affine):
    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        assert isinstance(self.transition, Affine)
        loc, scale = self.transition.initial_affine(c)
        m, w = _potential(c)
        gain = w * scale.square()
        return (loc + gain * m) / (1 + gain), scale / (1 + gain).sqrt()

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.transition, Affine)
        a, b, scale = self.transition.affine(c)
        m, w = _potential(c)
        gain = w * scale.square()
        return a / (1 + gain), (b + gain * m) / (1 + gain), scale / (1 + gain).sqrt()


class _LinearTilt(_Tilt, Linear):
    def initial_moments(self, c: Context) -> tuple[Tensor, Tensor]:
        assert isinstance(self.transition, Linear)
        loc, G = self.transition.initial_moments(c)
        require_proper(G)
        A, offset, factor = _tilt_factor(G, *_potential(c))
        return (A @ loc[..., None])[..., 0] + offset, factor

    def matrices(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.transition, Linear)
        F, b, G = self.transition.matrices(c)
        A, offset, factor = _tilt_factor(G, *_potential(c))
        return A @ F, (A @ b[..., None])[..., 0] + offset, factor


class Combiner(Posterior):
    r"""Posterior that combines the last state with the encoder's features in a small network.

    .. math:: h = \tfrac12 (\tanh(W z_{t-1} + b) + e_t), \quad
        q(z_t \mid z_{t-1}) = N(\mu(h), \sigma(h))

    For a state that carries memory, :math:`W` reads that memory as it stands at step t. Where the
    data say nothing of a step it is the prior.

    Args:
        feature_dim: Width ``E`` of the encoder's features.
        latent_dim: Random latent dimensions.
        hidden_dim: Width of ``h``.
        carry_dim: Width of the memory that the state carries, 0 if none.

    Example:
        >>> posterior = Combiner(feature_dim=8, latent_dim=2)
        >>> posterior.statistics(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 64])

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017), the
        ST family. A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015), with
        ``carry_dim``.
    """

    def __init__(
        self, feature_dim: int, latent_dim: int, *, hidden_dim: int = 64, carry_dim: int = 0
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.carry_dim = carry_dim
        self.project = nn.Linear(feature_dim, hidden_dim)
        self.state = nn.Linear(carry_dim or latent_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def statistics(self, features: Tensor) -> Tensor:
        return self.project(features)

    def kernel(self, transition: Kernel, c: Context) -> Correction:
        _require_width(self, transition, c)
        law = _conditional(transition, c)
        carried = law.carry.shape[-1] if isinstance(law, Carried) and law.base is not None else 0
        if carried != self.carry_dim:
            raise ValueError(
                f"Combiner reads {self.carry_dim} dimensions of memory that a state carries, found "
                f"{carried}; build it with carry_dim={carried}."
            )
        if not isinstance(law, Carried):
            _require_diagonal(law)
        return _Combined(self, transition, isinstance(law, Carried), bool(c.informed.all()))

    def combine(self, state: Tensor, e: Tensor) -> Distribution:
        """Normal law given the last state, or the carried memory, and the statistics."""
        h = 0.5 * (torch.tanh(self.state(state)) + e)
        loc, scale = self.head(h).chunk(2, -1)
        return diagonal_normal(loc, nn.functional.softplus(scale) + _FLOOR)


class _Combined(Correction):
    def __init__(
        self, posterior: Combiner, transition: Kernel, carried: bool, informed: bool
    ) -> None:
        super().__init__(transition, needs_prior=carried or not informed)
        self.posterior = posterior
        self.informed = informed

    def walk(self, c: Context, samples: int) -> CombinedWalk | CarriedWalk | None:
        if not self.informed:
            return None
        net, out = self.posterior, 0.5 * self.posterior.head.weight
        known = by_step(nn.functional.linear(c.e, out, net.head.bias), samples)
        own = CombinedWalk(known, net.state.weight, net.state.bias, out, _FLOOR)
        if not net.carry_dim:
            return None if self.needs_prior else own
        moves = self.transition
        faithful = isinstance(moves, Stepped) and moves.faithful
        steps = moves.steps(c, samples) if isinstance(moves, Stepped) and faithful else None
        return CarriedWalk(steps, own) if isinstance(steps, CarriedSteps) else None

    def along(
        self, z: Tensor, laws: tuple[Tensor, ...]
    ) -> tuple[Distribution | None, Distribution]:
        q, moves = diagonal_normal(*laws), self.transition
        p = moves.along(z) if self.posterior.carry_dim and isinstance(moves, Stepped) else None
        return (p, Carried(q, p.carry)) if isinstance(p, Carried) else (None, q)

    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        if p is None:
            assert z is not None
            return self.posterior.combine(z, c.e)
        if isinstance(p, Carried):
            if p.base is None:
                return p
            if self.informed:
                return Carried(self.posterior.combine(p.carry, c.e), p.carry)
            return Carried(
                choose(c.informed, self.posterior.combine(p.carry, c.e), p.base), p.carry
            )
        state = torch.zeros_like(p.mean) if z is None else z
        return choose(c.informed, self.posterior.combine(state, c.e), p)


def choose(informed: Tensor, q: Distribution, p: Distribution) -> Distribution:
    """``q`` where informed and ``p`` elsewhere, for diagonal normal laws."""
    q, p = _require_diagonal(q), _require_diagonal(p)
    loc = torch.where(informed, q.base_dist.loc, p.base_dist.loc)
    return diagonal_normal(loc, torch.where(informed, q.base_dist.scale, p.base_dist.scale))


def _require_diagonal(law: Distribution) -> Independent:
    if isinstance(law, Independent) and isinstance(law.base_dist, Normal):
        return law
    raise TypeError(
        "Combiner and Parallel need a transition with diagonal normal conditionals, found "
        f"{type(law).__name__}; use Tilted, Kalman or Particles."
    )


class Parallel(Posterior):
    r"""A free Gauss-Markov chain whose coefficients the encoder gives; sampled without a loop.

    .. math:: q(z_t \mid z_{t-1}) = N(a(e_t) z_{t-1} + b(e_t),\ s(e_t)), \quad |a| < 1

    Cheap for every transition, also where the model's own dynamics are slow to follow; it does not
    know them, though, and has to learn them a second time.

    Args:
        feature_dim: Width ``E`` of the encoder's features.
        latent_dim: Random latent dimensions.
        hidden: Widths of the layers between features and coefficients.

    Example:
        >>> posterior = Parallel(feature_dim=8, latent_dim=2)
        >>> posterior.statistics(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 6])
    """

    def __init__(self, feature_dim: int, latent_dim: int, *, hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.head = MLP(feature_dim, hidden, 3 * latent_dim)

    def statistics(self, features: Tensor) -> Tensor:
        return self.head(features)

    def kernel(self, transition: Kernel, c: Context) -> Correction:
        _require_width(self, transition, c)
        _require_diagonal(_conditional(transition, c))
        informed = bool(c.informed.all())
        if informed:
            return _Whole(transition, needs_prior=False)
        if isinstance(transition, Affine):
            return _AffineFree(transition)
        # steps that follow the data, as padding does, need not slow down those that the data inform
        tail = bool((c.informed[..., 1:, :] <= c.informed[..., :-1, :]).all())
        return _Spliced(transition) if tail else _Free(transition)


def _coefficients(c: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and standard deviation of each step of a free chain."""
    a, b, s = c.e.chunk(3, -1)
    return a.tanh(), b, nn.functional.softplus(s) + _FLOOR


class _Free(Correction):
    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        a, b, s = _coefficients(c)
        loc = b if z is None else a * z + b
        q = diagonal_normal(loc, s.expand(loc.shape))
        return choose(c.informed, q, p) if self.needs_prior and p is not None else q


class _AffineFree(_Free, Affine):
    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        _, b, s = _coefficients(c)
        if not isinstance(self.transition, Affine):
            return b, s
        loc, scale = self.transition.initial_affine(c)
        return torch.where(c.informed, b, loc), torch.where(c.informed, s, scale)

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        free = _coefficients(c)
        if not isinstance(self.transition, Affine):
            return free
        own = self.transition.affine(c)
        a, b, s = (torch.where(c.informed, f, p) for f, p in zip(free, own, strict=True))
        return a, b, s


class _Whole(_Free, Sampled, Marginal):
    """Free at every step."""

    def marginals(self, c: Context) -> tuple[Tensor, Tensor]:
        a, b, s = _coefficients(c)
        return linear_recurrence(a, b), linear_recurrence(a.square(), s.square()).sqrt()

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        a, b, s = _coefficients(context)
        eps = step_noise(torch.Size((*shape, *b.shape)), b, generator)
        shock = s * eps
        # before the first step there is nothing for its slope to act on
        z = linear_recurrence(a, b + shock)
        loc, s = z - shock, s.expand(z.shape)
        first = diagonal_normal(loc[..., 0, :], s[..., 0, :])
        return z, (first, diagonal_normal(loc[..., 1:, :], s[..., 1:, :]))


class _Spliced(_Free, Sampled):
    """Free while the data inform, the prior after that."""

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        free, eps = affine_path(_AffineFree(self.transition, False), context, shape, generator)
        first = int(context.informed[..., 0].flatten(0, -2).all(0).sum())
        path = list(free.unbind(-2))
        for t, c in list(enumerate(context.unbind()))[first:]:
            with torch.no_grad():  # nothing observed depends on these states, so no gradient does
                law = self.transition(path[t - 1], c) if t else self.transition.initial(c)
                prior = place(law, eps[..., t, :])
            path[t] = torch.where(c.informed, path[t], prior)
        return torch.stack(path, -2), None
