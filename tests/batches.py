"""Batches and comparisons that the tests of the core share."""

import torch

from seqlatent.sequences import Sequences

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def series(batch=2, steps=6, obs_dim=1, *, missing=0.3, seed=0, t=None, covariate_dim=0, **fields):
    y = normal(batch, steps, obs_dim, seed=seed)
    hidden = torch.rand(y.shape, generator=seeded(seed + 1)) < missing
    u = normal(batch, steps, covariate_dim, seed=seed + 2) if covariate_dim else None
    return Sequences.of(torch.where(hidden, torch.nan, y), t=t, u=u, **fields)


def gaps(batch=2, steps=6, seed=0):
    """Irregular times, different for each series."""
    dt = 0.2 + 2 * torch.rand(batch, steps, generator=seeded(seed), dtype=F64)
    return dt.cumsum(1)


def within(estimate, truth, error, sigmas=4.0):
    """Whether a Monte Carlo estimate lies within some standard errors of the truth, everywhere."""
    return bool(((estimate - truth).abs() <= sigmas * error + 1e-12).all())


def standard_error(samples, dim=0):
    return samples.std(dim) / samples.shape[dim] ** 0.5


def close(a, b, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
