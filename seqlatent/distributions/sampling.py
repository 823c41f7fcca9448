"""Sampling with a private generator: the noise of a distribution, its place, and any draw."""

from collections.abc import Sequence
from functools import singledispatch

import torch
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
)

__all__ = ["base_noise", "reparametrise", "sample", "standard_normal"]


def standard_normal(shape: Size, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise in dtype and on device of ``like``, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


def uniform(shape: Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in dtype and on device of ``like``, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


@singledispatch
def base_noise(
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
def reparametrise(distribution: Distribution, eps: Tensor) -> Tensor:
    """Turns standard normal noise into a reparametrised sample of the distribution."""
    raise TypeError(f"{type(distribution).__name__} is not an affine transform of normal noise.")


@base_noise.register
def _(
    distribution: Independent, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return base_noise(distribution.base_dist, shape, generator)


@base_noise.register
def _(
    distribution: Normal, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return standard_normal(Size(shape) + distribution.batch_shape, distribution.loc, generator)


@reparametrise.register
def _(distribution: Independent, eps: Tensor) -> Tensor:
    return reparametrise(distribution.base_dist, eps)


@reparametrise.register
def _(distribution: Normal, eps: Tensor) -> Tensor:
    return torch.addcmul(distribution.loc, distribution.scale, eps)


@singledispatch
def sample(
    distribution: Distribution,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples with a private generator, reparametrised where the family allows it.

    A family that is not registered is drawn by its quantiles, where torch knows those.

    Args:
        distribution: Any torch distribution of a registered family, or with ``icdf``.
        shape: Leading sample shape.
        generator: Source of randomness; None is torch's global one.

    Raises:
        TypeError: If a generator is given, and the family is neither registered nor has ``icdf``.
    """
    if generator is not None:
        return _by_quantiles(distribution, Size(shape), generator)
    return (
        distribution.rsample(Size(shape))
        if distribution.has_rsample
        else distribution.sample(Size(shape))
    )


def _by_quantiles(distribution: Distribution, shape: Size, generator: torch.Generator) -> Tensor:
    name = type(distribution).__name__
    try:
        like = distribution.icdf(torch.tensor(0.5))
        u = uniform(shape + like.shape, like.detach(), generator)
        least = torch.finfo(u.dtype).eps  # the ends would be infinite
        return distribution.icdf(u.clamp(least, 1 - least))
    except NotImplementedError as error:
        raise TypeError(
            f"cannot draw from {name} with a private generator: register a sampler with "
            f"seqlatent.distributions.sample.register({name}), or pass generator=None."
        ) from error


@sample.register
def _(
    distribution: Independent, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return sample(distribution.base_dist, shape, generator)


@sample.register
def _(
    distribution: Normal, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return reparametrise(distribution, base_noise(distribution, shape, generator))


@sample.register
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


@sample.register
def _(
    distribution: Gamma, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    return _standard_gamma(distribution.concentration.expand(full), generator) / distribution.rate


@sample.register
def _(
    distribution: StudentT, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    eps = standard_normal(full, distribution.loc, generator)
    chi2 = 2 * _standard_gamma((distribution.df / 2).expand(full), generator)
    # a chi-square that underflows would put an infinity into a path that is fed back
    ratio = (distribution.df / chi2.clamp_min(torch.finfo(chi2.dtype).tiny)).sqrt()
    return distribution.loc + distribution.scale * eps * ratio


@sample.register
def _(
    distribution: Poisson, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    return _poisson(
        distribution.rate.detach().expand(Size(shape) + distribution.batch_shape), generator
    )


@sample.register
def _(
    distribution: NegativeBinomial,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    full = Size(shape) + distribution.batch_shape
    with torch.no_grad():
        gamma = _standard_gamma(distribution.total_count.expand(full), generator)
        return _poisson(gamma * distribution.logits.exp(), generator)


@sample.register
def _(
    distribution: Bernoulli, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    probs = distribution.probs.detach()
    return (uniform(Size(shape) + distribution.batch_shape, probs, generator) < probs).to(
        probs.dtype
    )


@sample.register
def _(
    distribution: Categorical, shape: Sequence[int] = (), generator: torch.Generator | None = None
) -> Tensor:
    cdf = distribution.probs.detach().cumsum(-1)
    u = uniform(Size(shape) + distribution.batch_shape, cdf, generator)
    index = (u[..., None] >= cdf).sum(-1)
    return index.clamp(max=cdf.shape[-1] - 1)


@sample.register
def _(
    distribution: MixtureSameFamily,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    chosen = sample(distribution.mixture_distribution, shape, generator)
    values = sample(distribution.component_distribution, shape, generator)
    axis = -1 - len(distribution.event_shape)
    index = chosen.reshape(*chosen.shape, 1, *(1 for _ in distribution.event_shape))
    index = index.expand(*chosen.shape, 1, *distribution.event_shape)
    return values.gather(axis, index).squeeze(axis)


@sample.register
def _(
    distribution: TransformedDistribution,
    shape: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    x = sample(distribution.base_dist, shape, generator)
    for transform in distribution.transforms:
        x = transform(x)
    return x  # type: ignore[return-value]
