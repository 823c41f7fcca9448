"""Parallel: a free Gauss-Markov chain, sampled without a loop."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.chain import (
    Correction,
    DiagonalLinear,
    Kernel,
    Marginal,
    Sampled,
    step_noise,
)
from seqlatent.distributions import (
    diagonal_normal,
    reparametrise,
)
from seqlatent.inference.amortised.posterior import (
    FLOOR,
    Posterior,
    choose,
    conditional,
    require_diagonal,
    require_width,
)
from seqlatent.networks import MLP
from seqlatent.recurrence import linear_recurrence
from seqlatent.sequences import Context

__all__ = ["Parallel"]


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
        require_width(self, transition, c)
        require_diagonal(conditional(transition, c))
        informed = bool(c.informed.all())
        if informed:
            return _Whole(transition, needs_prior=False)
        if isinstance(transition, DiagonalLinear):
            return _AffineFree(transition)
        # steps that follow the data, as padding does, need not slow down those that the data inform
        tail = bool((c.informed[..., 1:, :] <= c.informed[..., :-1, :]).all())
        return _Spliced(transition) if tail or not torch.is_grad_enabled() else _Free(transition)


def _coefficients(c: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and standard deviation of each step of a free chain."""
    a, b, s = c.e.chunk(3, -1)
    return a.tanh(), b, nn.functional.softplus(s) + FLOOR


class _Free(Correction):
    def correct(self, p: Distribution | None, z: Tensor | None, c: Context) -> Distribution:
        a, b, s = _coefficients(c)
        loc = b if z is None else a * z + b
        q = diagonal_normal(loc, s.expand(loc.shape))
        return choose(c.informed, q, p) if self.needs_prior and p is not None else q


class _AffineFree(_Free, DiagonalLinear, Sampled):
    """Free where the data inform, elsewhere the moves of a transition that is linear too."""

    transition: DiagonalLinear

    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        _, b, s = _coefficients(c)
        loc, scale = self.transition.initial_affine(c)
        return torch.where(c.informed, b, loc), torch.where(c.informed, s, scale)

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        pairs = zip(_coefficients(c), self.transition.affine(c), strict=True)
        a, b, s = (torch.where(c.informed, free, own) for free, own in pairs)
        return a, b, s

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        first, rest = context.ends
        loc, scale = self.initial_affine(first)
        a, b, s = self.affine(rest)
        a = nn.functional.pad(a, (0, 0, 1, 0))
        b, s = (torch.cat([x[..., None, :], y], -2) for x, y in ((loc, b), (scale, s)))
        return _moved(a, b, s, shape, generator)[0], None


class _Whole(_Free, Sampled, Marginal):
    """Free at every step."""

    def marginals(self, c: Context) -> tuple[Tensor, Tensor]:
        a, b, s = _coefficients(c)
        return linear_recurrence(a, b), linear_recurrence(a.square(), s.square()).sqrt()

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        a, b, s = _coefficients(context)
        z, shock, _ = _moved(a, b, s, shape, generator)
        loc, s = z - shock, s.expand(z.shape)
        first = diagonal_normal(loc[..., 0, :], s[..., 0, :])
        return z, (first, diagonal_normal(loc[..., 1:, :], s[..., 1:, :]))


def _moved(
    a: Tensor, b: Tensor, s: Tensor, shape: tuple[int, ...], generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """A path of slopes, offsets and standard deviations, its shocks, and their noise."""
    eps = step_noise(torch.Size((*shape, *b.shape)), b, generator)
    shock = s * eps
    # before the first step there is nothing for its slope to act on
    return linear_recurrence(a, b + shock), shock, eps


class _Spliced(_Free, Sampled):
    """Free while the data inform, the prior where they do not.

    Up to its first hole a series moves as if there were none, to the last bit.
    """

    def path(
        self, context: Context, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, tuple[Distribution, Distribution] | None]:
        free, _, eps = _moved(*_coefficients(context), shape, generator)
        informed = context.informed[..., 0]
        first = int(informed.flatten(0, -2).all(0).cumprod(0).sum())
        whole = informed.cumprod(-1).bool()
        resumed = (informed & ~whole).flatten(0, -2).any(0).tolist()
        path = list(free.unbind(-2))
        for t, c in list(enumerate(context.unbind()))[first:]:
            with torch.no_grad():  # nothing observed depends on these states, so no gradient does
                distribution = self.transition(path[t - 1], c) if t else self.transition.initial(c)
                prior = reparametrise(distribution, eps[..., t, :])
            if resumed[t]:
                after = reparametrise(self.correct(None, path[t - 1], c), eps[..., t, :])
                path[t] = torch.where(whole[..., t, None], path[t], after)
            path[t] = torch.where(c.informed, path[t], prior)
        return torch.stack(path, -2), None
