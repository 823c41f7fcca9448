"""Counts and events whose log rate, or log odds, is a linear signal of the state."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Size, Tensor, distributions, nn
from torch.distributions import Distribution, constraints

from seqlatent.distributions import sample
from seqlatent.distributions.sampling import standard_normal
from seqlatent.emissions.linear import RowLoading
from seqlatent.emissions.signals import Derivatives, LinearSignal
from seqlatent.sequences import Context

__all__ = ["LinearBernoulli", "LinearNegativeBinomial", "LinearPoisson"]

_LEAST_DISPERSION, _MOST_DISPERSION = 1e-4, 1e2
_EXACT = 1e8  # greatest mean whose counts are drawn as such; samplers count in integers
_MOST = 1e15  # greatest mean of a drawn count, so that no path reaches infinity


class LinearPoisson(LinearSignal):
    r"""Poisson counts whose log rate is linear in the state.

    .. math:: y \sim \operatorname{Poisson}(\mathrm{scale}\; e^{x}), \qquad x = H z + d

    The shift is not used. Arguments are those of :class:`LinearSignal`.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> p = LinearPoisson(1, loading=LocalLevel().loading)
        >>> p(torch.tensor([[0.0], [1.0]]), Context.regular(2)).mean.T
        tensor([[1.0000, 2.7183]])

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 9.3.
    """

    support = constraints.nonnegative_integer

    def distribution(self, signal: Tensor, c: Context) -> Distribution:
        return _Poisson(signal + c.scale.log())

    def guess(self, y: Tensor, c: Context) -> Tensor:
        return (y + 0.5).log() - c.scale.log()

    def derivatives(self, y: Tensor, signal: Tensor, c: Context) -> Derivatives:
        log_rate = signal + c.scale.log()
        rate = log_rate.exp()
        return Derivatives(_Poisson(log_rate).log_prob(y), y - rate, rate)


class LinearNegativeBinomial(LinearSignal):
    r"""Counts that vary more than Poisson counts, whose log mean is linear in the state.

    .. math:: y \sim \operatorname{NB}(\mu, \alpha), \quad \mu = \mathrm{scale}\; e^{x}, \quad
        x = H z + d, \quad \operatorname{Var} y = \mu + \alpha \mu^2

    Each dimension learns its dispersion :math:`\alpha`, held between 1e-4 and 1e2. The shift is
    not used.

    Args:
        latent_dim: Width ``K`` of the state.
        obs_dim: Observed dimensions ``D``.
        loading: Fixed row of H, for one observed dimension; learned by default.
        bias: Whether a constant offset is learned.
        dispersion: Initial dispersion.
        context_dim: Width of the context ``[m, u]`` that the offset follows; 0 for none.
        exposure: Index of the covariate that multiplies the mean; None for none.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> p = LinearNegativeBinomial(1, loading=LocalLevel().loading, dispersion=0.5)
        >>> p(torch.zeros(1, 1), Context.regular(1)).variance.detach()
        tensor([[1.5000]])

    References:
        Negative Binomial Regression (Hilbe, 2011), chapter 8, the form NB2.
    """

    support = constraints.nonnegative_integer
    logarithms: ClassVar[tuple[str, ...]] = ("log_dispersion",)
    log_dispersion: Tensor

    def __init__(
        self,
        latent_dim: int,
        obs_dim: int = 1,
        *,
        loading: RowLoading | None = None,
        bias: bool = False,
        dispersion: int | float = 0.1,
        context_dim: int = 0,
        exposure: int | None = None,
    ) -> None:
        super().__init__(
            latent_dim,
            obs_dim,
            loading=loading,
            bias=bias,
            context_dim=context_dim,
            exposure=exposure,
        )
        if not _LEAST_DISPERSION <= dispersion <= _MOST_DISPERSION:
            raise ValueError(
                f"dispersion must lie between {_LEAST_DISPERSION:g} and {_MOST_DISPERSION:g}, "
                f"found {dispersion!r}; for less take LinearPoisson."
            )
        self._start("log_dispersion", torch.full((obs_dim,), float(dispersion)).log())

    def distribution(self, signal: Tensor, c: Context) -> Distribution:
        dispersion = self.dispersion(c)
        # a probability of success would round to 1; its logit does not
        logits = signal + c.scale.log() + dispersion.log()
        return _NegativeBinomial(1 / dispersion, logits=logits, validate_args=False)

    def dispersion(self, c: Context) -> Tensor:
        r"""The dispersion :math:`\alpha` ``(..., D)``."""
        return self.read("log_dispersion", c).exp().clamp(_LEAST_DISPERSION, _MOST_DISPERSION)

    def guess(self, y: Tensor, c: Context) -> Tensor:
        return (y + 0.5).log() - c.scale.log()

    def derivatives(self, y: Tensor, signal: Tensor, c: Context) -> Derivatives:
        distribution = self.distribution(signal, c)
        assert isinstance(distribution, distributions.NegativeBinomial)
        total = distribution.total_count + y
        mean = total * distribution.logits.sigmoid()
        return Derivatives(
            distribution.log_prob(y), y - mean, mean * (-distribution.logits).sigmoid()
        )


class LinearBernoulli(LinearSignal):
    r"""Values of 0 or 1, whose log odds are linear in the state.

    .. math:: P(y = 1) = \operatorname{sigmoid}(x), \qquad x = H z + d

    Shift and scale are not used. Arguments are those of :class:`LinearSignal`.

    Example:
        >>> from seqlatent.transitions import LocalLevel
        >>> p = LinearBernoulli(1, loading=LocalLevel().loading)
        >>> p(torch.zeros(1, 1), Context.regular(1)).mean
        tensor([[0.5000]])

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 9.3.
    """

    support = constraints.boolean

    def distribution(self, signal: Tensor, c: Context) -> Distribution:
        return distributions.Bernoulli(logits=signal, validate_args=False)

    def guess(self, y: Tensor, c: Context) -> Tensor:
        return 2 * y - 1

    def derivatives(self, y: Tensor, signal: Tensor, c: Context) -> Derivatives:
        p = signal.sigmoid()
        log_prob = nn.functional.logsigmoid((2 * y - 1) * signal)
        return Derivatives(log_prob, y - p, p * (-signal).sigmoid())


class _Poisson(distributions.Poisson):
    """Poisson distribution by its log rate, whose density does not underflow with the rate."""

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "_Poisson":
        return _Poisson(self.log_rate.expand(Size(batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.log_rate - self.rate - (value + 1).lgamma()


class _NegativeBinomial(distributions.NegativeBinomial):
    """Negative binomial distribution whose samples are bounded."""


@sample.register
def _(
    distribution: _Poisson, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    rate = distribution.rate.detach().expand(Size(shape) + distribution.batch_shape)
    return _counts(rate, generator)


@sample.register
def _(
    distribution: _NegativeBinomial,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    with torch.no_grad():
        total = distribution.total_count.expand(full)
        gamma = sample(distributions.Gamma(total, torch.ones_like(total), False), (), generator)
        return _counts(gamma * distribution.logits.exp().clamp(max=_MOST), generator)


def _counts(rate: Tensor, generator: torch.Generator | None) -> Tensor:
    """Poisson counts; beyond what samplers count, rounded normal draws of the same moments."""
    few = sample(distributions.Poisson(rate.clamp(max=_EXACT), False), (), generator)
    if not bool((rate > _EXACT).any()):
        return few
    rate = rate.clamp(max=_MOST)
    many = rate + rate.sqrt() * standard_normal(rate.shape, rate, generator)
    return torch.where(rate > _EXACT, many.round(), few)
