"""Distributions that torch lacks, and sampling, masking and divergences over those that it has.

Every function dispatches on the distribution's class, so that another family joins by registering
itself, e.g. ``draw.register(MyDistribution)``.
"""

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    TransformedDistribution,
    constraints,
    register_kl,
)
from torch.distributions import kl_divergence as torch_kl_divergence

from seqlatent.linalg import cholesky, factor

__all__ = [
    "Carried",
    "CovarianceNormal",
    "Empirical",
    "FactorNormal",
    "detach",
    "diagonal_normal",
    "draw",
    "kl_per_dim",
    "masked_log_prob",
    "noise",
    "place",
    "standard_normal",
]

_LOG_2PI = math.log(2 * math.pi)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    r"""Normal distribution with independent coordinates on the last axis.

    Args:
        loc: Mean ``(..., K)``.
        scale: Standard deviation ``(..., K)``.
    """
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


class FactorNormal(Distribution):
    r"""Normal distribution with covariance :math:`G G^\top` of a factor that may be thin.

    .. math:: z = \mu + G \varepsilon, \quad \varepsilon \sim N(0, I_R)

    A structural state moves on a subspace (a seasonal pattern shifts, one noise enters), so its
    covariance is singular. ``log_prob`` is the density on that subspace, with the
    pseudo-determinant; two laws with the same column span are comparable. Columns of ``factor``
    must be linearly independent.

    Args:
        loc: Mean ``(..., K)``.
        factor: Factor ``(..., K, R)``, broadcastable against ``loc``.

    Example:
        >>> p = FactorNormal(torch.zeros(2), torch.tensor([[1.0], [0.0]]))
        >>> p.log_prob(torch.tensor([0.0, 0.0]))
        tensor(-0.9189)
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], factor.shape[:-2])
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.factor = factor
        super().__init__(Size(batch), loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean ``(..., K)``."""
        return self.loc

    @property
    def covariance_matrix(self) -> Tensor:
        """Covariance ``(..., K, K)``, singular where ``factor`` is thin."""
        return (self.factor @ self.factor.mT).expand(*self.loc.shape, self.loc.shape[-1])

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., K)``."""
        return self.factor.square().sum(-1).expand(self.loc.shape)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return place(self, noise(self, sample_shape, generator))

    def log_prob(self, value: Tensor) -> Tensor:
        G = self.factor
        if G.shape[-1] == 0:
            return (value - self.loc).sum(-1) * 0.0
        L = cholesky(G.mT @ G, what="Gram matrix of the noise factor")
        whitener = torch.linalg.solve_triangular(L, G.mT, upper=False).mT
        whitener = torch.linalg.solve_triangular(L.mT, whitener.mT, upper=True).mT
        # whitener = G (G'G)^{-1}: residual @ whitener recovers the noise that made it
        eps = ((value - self.loc)[..., None, :] @ whitener)[..., 0, :]
        log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * eps.square().sum(-1) - log_det - 0.5 * G.shape[-1] * _LOG_2PI


class CovarianceNormal(Distribution):
    """Normal distribution given by its covariance, which may be singular.

    The covariance is factored only to sample or to score.

    Args:
        loc: Mean ``(..., K)``.
        covariance_matrix: Covariance ``(..., K, K)``, broadcastable against ``loc``.
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], covariance_matrix.shape[:-2])
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.covariance_matrix = covariance_matrix.expand(*batch, *covariance_matrix.shape[-2:])
        super().__init__(Size(batch), loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean ``(..., K)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Marginal variances ``(..., K)``."""
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        G = factor(self.covariance_matrix, what="covariance of a state")
        return FactorNormal(self.loc, G).rsample(sample_shape, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        L = cholesky(self.covariance_matrix, what="covariance of a state")
        return FactorNormal(self.loc, L).log_prob(value)


class Carried(Distribution):
    r"""State :math:`s = [z, h]` of a random part :math:`z` and a memory :math:`h` carried along.

    ``log_prob(s)`` scores :math:`z` only: the memory is a function of the past, so it has no
    density of its own. With ``base=None`` the whole state is deterministic.

    Args:
        base: Law of the random part, event ``(K,)``, or None.
        carry: Deterministic part ``(..., M)``.

    Example:
        >>> s = Carried(diagonal_normal(torch.zeros(2), torch.ones(2)), torch.tensor([5.0]))
        >>> draw(s).shape, s.log_prob(torch.tensor([0.0, 0.0, 5.0]))
        (torch.Size([3]), tensor(-1.8379))
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, base: Distribution | None, carry: Tensor) -> None:
        self.base = base
        self.random_dim = 0 if base is None else base.event_shape[0]
        batch = carry.shape[:-1]
        if base is not None:
            batch = torch.broadcast_shapes(batch, base.batch_shape)
        self.carry = carry.expand(*batch, carry.shape[-1])
        super().__init__(
            Size(batch), Size((self.random_dim + carry.shape[-1],)), validate_args=False
        )

    @property
    def mean(self) -> Tensor:
        """Mean of the random part beside the carried part."""
        return self.carry if self.base is None else _beside(self.base.mean, self.carry)

    @property
    def variance(self) -> Tensor:
        """Variance of the random part beside zeros."""
        zeros = torch.zeros_like(self.carry)
        return zeros if self.base is None else _beside(self.base.variance, zeros)

    def rsample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        carry = self.carry.expand(*sample_shape, *self.carry.shape)
        return (
            carry if self.base is None else _beside(draw(self.base, sample_shape, generator), carry)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self.base is None:
            return value.new_zeros(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))
        return self.base.log_prob(value[..., : self.random_dim])


class Empirical(Distribution):
    r"""Weighted particles: what a particle filter, or a set of posterior draws, says about a state.

    Args:
        values: Particles ``(N, ..., K)``.
        log_weights: Log weights ``(N, ...)``, normalised here.

    Example:
        >>> p = Empirical(torch.tensor([[0.0], [1.0]]), torch.tensor([0.75, 0.25]).log())
        >>> p.mean
        tensor([0.2500])
    """

    arg_constraints: ClassVar = {}  # type: ignore[assignment]
    support = constraints.real_vector  # type: ignore[assignment]

    def __init__(self, values: Tensor, log_weights: Tensor) -> None:
        self.values = values
        self.log_weights = log_weights.log_softmax(0)
        super().__init__(values.shape[1:-1], values.shape[-1:], validate_args=False)

    @property
    def weights(self) -> Tensor:
        """Normalised weights ``(N, ...)``."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """Weighted mean ``(..., K)``."""
        return (self.weights[..., None] * self.values).sum(0)

    @property
    def variance(self) -> Tensor:
        """Weighted variance ``(..., K)``."""
        return (self.weights[..., None] * (self.values - self.mean).square()).sum(0)

    @property
    def covariance_matrix(self) -> Tensor:
        """Weighted covariance ``(..., K, K)``."""
        centred = self.values - self.mean
        return torch.einsum("n...,n...i,n...j->...ij", self.weights, centred, centred)

    def sample(
        self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        return draw(self, sample_shape, generator)

    def quantile(self, q: float) -> Tensor:
        """Smallest particle whose cumulative weight reaches ``q``, per coordinate ``(..., K)``."""
        ordered, order = self.values.sort(0)
        weights = self.weights[..., None].expand_as(self.values).gather(0, order)
        index = (weights.cumsum(0) < q - 1e-12).sum(0, keepdim=True).clamp(max=len(ordered) - 1)
        return ordered.gather(0, index)[0]


def _beside(left: Tensor, right: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
    return torch.cat(
        [left.expand(*shape, left.shape[-1]), right.expand(*shape, right.shape[-1])], -1
    )


# --- sampling with a private generator ----------------------------------------------------------


def standard_normal(shape: Size, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise in dtype and on device of ``like``, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


@singledispatch
def noise(
    distribution: Distribution,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the standard normal noise from which :func:`place` makes a sample of the distribution.

    Raises:
        TypeError: If the family is no location-scale transform of normal noise.
    """
    raise TypeError(f"{type(distribution).__name__} is not an affine transform of normal noise.")


@singledispatch
def place(distribution: Distribution, eps: Tensor) -> Tensor:
    """Turns standard normal noise into a reparametrised sample of the distribution."""
    raise TypeError(f"{type(distribution).__name__} is not an affine transform of normal noise.")


@noise.register
def _(
    distribution: Independent, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return noise(distribution.base_dist, shape, generator)


@noise.register
def _(
    distribution: Normal, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return standard_normal(Size(shape) + distribution.batch_shape, distribution.loc, generator)


@noise.register
def _(
    distribution: FactorNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    size = Size(shape) + distribution.batch_shape + distribution.factor.shape[-1:]
    return standard_normal(size, distribution.loc, generator)


@noise.register
def _(
    distribution: Carried, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    if distribution.base is None:
        return distribution.carry.new_zeros(Size(shape) + distribution.batch_shape + (0,))
    return noise(distribution.base, shape, generator)


@place.register
def _(distribution: Independent, eps: Tensor) -> Tensor:
    return place(distribution.base_dist, eps)


@place.register
def _(distribution: Normal, eps: Tensor) -> Tensor:
    return torch.addcmul(distribution.loc, distribution.scale, eps)


@place.register
def _(distribution: FactorNormal, eps: Tensor) -> Tensor:
    return distribution.loc + (distribution.factor @ eps[..., None])[..., 0]


@place.register
def _(distribution: Carried, eps: Tensor) -> Tensor:
    if distribution.base is None:
        return distribution.carry.expand(*eps.shape[:-1], -1)
    return _beside(place(distribution.base, eps), distribution.carry)


@singledispatch
def draw(
    distribution: Distribution,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples with a private generator, reparametrised where the family allows it.

    Args:
        distribution: Any torch distribution of a registered family.
        shape: Leading sample shape.
        generator: Source of randomness; None is torch's global one.

    Raises:
        TypeError: If a generator is given and the family is not registered.
    """
    if generator is not None:
        raise TypeError(
            f"cannot draw from {type(distribution).__name__} with a private generator: register a "
            f"sampler with seqlatent.distributions.draw.register({type(distribution).__name__}), "
            "or pass generator=None."
        )
    return (
        distribution.rsample(Size(shape))
        if distribution.has_rsample
        else distribution.sample(Size(shape))
    )


@draw.register
def _(
    distribution: Independent, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return draw(distribution.base_dist, shape, generator)


@draw.register
def _(
    distribution: Normal, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return place(distribution, noise(distribution, shape, generator))


@draw.register
def _(
    distribution: FactorNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    return distribution.rsample(Size(shape), generator)


@draw.register
def _(
    distribution: Carried, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return distribution.rsample(Size(shape), generator)


@draw.register
def _(
    distribution: CovarianceNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    return distribution.rsample(shape, generator)


@draw.register
def _(
    distribution: MultivariateNormal,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    loc = distribution.loc
    eps = standard_normal(
        Size(shape) + distribution.batch_shape + distribution.event_shape, loc, generator
    )
    return loc + (distribution.scale_tril @ eps[..., None])[..., 0]


def _standard_gamma(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None and generator.device != concentration.device:
        elsewhere = concentration.to(generator.device)
        return _standard_gamma(elsewhere, generator).to(concentration.device)
    return torch._standard_gamma(concentration, generator=generator)  # type: ignore[attr-defined]


def _poisson(rate: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None and generator.device != rate.device:
        return torch.poisson(rate.to(generator.device), generator=generator).to(rate.device)
    return torch.poisson(rate, generator=generator)


def _uniform(shape: Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


@draw.register
def _(
    distribution: Gamma, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    return _standard_gamma(distribution.concentration.expand(full), generator) / distribution.rate


@draw.register
def _(
    distribution: StudentT, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    eps = standard_normal(full, distribution.loc, generator)
    chi2 = 2 * _standard_gamma((distribution.df / 2).expand(full), generator)
    # a chi-square that underflows would put an infinity into a path that is fed back
    ratio = (distribution.df / chi2.clamp_min(torch.finfo(chi2.dtype).tiny)).sqrt()
    return distribution.loc + distribution.scale * eps * ratio


@draw.register
def _(
    distribution: Poisson, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return _poisson(
        distribution.rate.detach().expand(Size(shape) + distribution.batch_shape), generator
    )


@draw.register
def _(
    distribution: NegativeBinomial,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    with torch.no_grad():
        gamma = _standard_gamma(distribution.total_count.expand(full), generator)
        return _poisson(gamma * distribution.logits.exp(), generator)


@draw.register
def _(
    distribution: Bernoulli, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    probs = distribution.probs.detach()
    return (_uniform(Size(shape) + distribution.batch_shape, probs, generator) < probs).to(
        probs.dtype
    )


@draw.register
def _(
    distribution: Categorical, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    cdf = distribution.probs.detach().cumsum(-1)
    u = _uniform(Size(shape) + distribution.batch_shape, cdf, generator)
    index = (u[..., None] >= cdf).sum(-1)
    return index.clamp(max=cdf.shape[-1] - 1)


@draw.register
def _(
    distribution: MixtureSameFamily,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    chosen = draw(distribution.mixture_distribution, shape, generator)
    values = draw(distribution.component_distribution, shape, generator)
    axis = -1 - len(distribution.event_shape)
    index = chosen.reshape(*chosen.shape, 1, *(1 for _ in distribution.event_shape))
    index = index.expand(*chosen.shape, 1, *distribution.event_shape)
    return values.gather(axis, index).squeeze(axis)


@draw.register
def _(
    distribution: TransformedDistribution,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    x = draw(distribution.base_dist, shape, generator)
    for transform in distribution.transforms:
        x = transform(x)
    return x  # type: ignore[return-value]


@draw.register
def _(
    distribution: Empirical, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    cdf = distribution.weights.movedim(0, -1).cumsum(-1)
    u = _uniform(Size(shape) + distribution.batch_shape, cdf, generator)
    index = (u[..., None] >= cdf).sum(-1).clamp(max=cdf.shape[-1] - 1)
    values = distribution.values.movedim(0, -2).expand(
        *index.shape, *distribution.values.shape[:1], -1
    )
    index = index[..., None, None].expand(*index.shape, 1, values.shape[-1])
    return values.gather(-2, index)[..., 0, :]


# --- densities of partially observed vectors ----------------------------------------------------


@singledispatch
def masked_log_prob(
    distribution: Distribution, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    """Log density of the observed cells of a vector, the others integrated out; ``(*S, B, T)``.

    Args:
        distribution: Law of the vector, event ``(D,)``.
        y: Values, any finite number where unobserved.
        observed: Which cells count.

    Raises:
        TypeError: If the marginal of a part of the vector is not known for the family.
    """
    raise TypeError(
        f"cannot marginalise missing cells out of {type(distribution).__name__}: an emission must "
        "return Independent(..., 1) or MultivariateNormal, or register "
        "seqlatent.distributions.masked_log_prob for its family."
    )


def _inside(support: constraints.Constraint, y: Tensor) -> Tensor:
    """A value in the support, for where nothing was observed: outside, gradients would be NaN."""
    half = torch.full_like(y, 0.5)
    return torch.where(support.check(half), half, 1.0)  # no boundary; 1 for integers and booleans


@masked_log_prob.register
def _(
    distribution: Independent, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    base = distribution.base_dist
    if distribution.reinterpreted_batch_ndims != 1 or base.event_shape:
        raise TypeError(
            "masking needs one event axis of scalar cells, found "
            f"{distribution.reinterpreted_batch_ndims} over {type(base).__name__} of event shape "
            f"{tuple(base.event_shape)}."
        )
    filled = torch.where(observed, y, _inside(base.support, y))
    log_prob = base.log_prob(filled)
    return torch.where(observed, log_prob, torch.zeros_like(log_prob)).sum(-1)


@masked_log_prob.register
def _(
    distribution: MultivariateNormal, y: Float[Tensor, "*any D"], observed: Bool[Tensor, "*any D"]
) -> Tensor:
    if bool(observed.all()):
        return distribution.log_prob(y)
    # Unobserved rows become independent unit variances with a zero residual, a mere constant.
    both = observed[..., :, None] & observed[..., None, :]
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    covariance = torch.where(both, distribution.covariance_matrix, eye)
    residual = torch.where(observed, y - distribution.loc, torch.zeros_like(y))
    L = cholesky(covariance, what="observation covariance")
    white = torch.linalg.solve_triangular(L, residual[..., None], upper=False)[..., 0]
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = 0.5 * _LOG_2PI * observed.sum(-1).to(y.dtype)
    return -0.5 * white.square().sum(-1) - log_det - constant


# --- divergences --------------------------------------------------------------------------------


def kl_per_dim(q: Distribution, p: Distribution) -> Tensor | None:
    """Divergence KL(q || p) of each latent dimension ``(..., K)``, None if it does not factorise.

    Carried states are compared on their random part.
    """
    if isinstance(q, Carried) and isinstance(p, Carried):
        if q.base is None or p.base is None:
            return q.carry[..., :0]
        return kl_per_dim(q.base, p.base)
    if isinstance(q, Independent) and isinstance(p, Independent):
        same = q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims == 1
        if same and isinstance(q.base_dist, Normal) and isinstance(p.base_dist, Normal):
            return torch_kl_divergence(q.base_dist, p.base_dist)
    return None


@register_kl(Carried, Carried)
def _kl_carried(q: Carried, p: Carried) -> Tensor:
    if q.base is None or p.base is None:
        return q.carry.new_zeros(q.batch_shape)
    return torch_kl_divergence(q.base, p.base)


@singledispatch
def detach(distribution: Distribution) -> Distribution:
    """Copies a distribution with its parameters cut from the graph.

    Raises:
        TypeError: If the family is not registered.
    """
    raise TypeError(
        f"cannot detach {type(distribution).__name__}: register it with "
        "seqlatent.distributions.detach.register."
    )


@detach.register
def _(distribution: Independent) -> Distribution:
    return Independent(
        detach(distribution.base_dist), distribution.reinterpreted_batch_ndims, validate_args=False
    )


@detach.register
def _(distribution: Normal) -> Distribution:
    return Normal(distribution.loc.detach(), distribution.scale.detach(), validate_args=False)


@detach.register
def _(distribution: FactorNormal) -> Distribution:
    return FactorNormal(distribution.loc.detach(), distribution.factor.detach())


@detach.register
def _(distribution: Carried) -> Distribution:
    base = None if distribution.base is None else detach(distribution.base)
    return Carried(base, distribution.carry.detach())
