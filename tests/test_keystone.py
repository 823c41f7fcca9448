"""The keystone: with exact inference, log p(y, z) - log q(z) is the log evidence on every path.

One equality certifies sequences, masks, transition, emission, chain, Kalman and objectives at once.
"""

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series, standard_error, within
from small_models import (
    Read,
    Reverting,
    dense_evidence,
    dense_posterior,
    linear_parts,
    memory,
)
from torch import nn

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.objectives import divergence, elbo, evidence, iwae
from seqlatent.sequences import Sequences
from seqlatent.transitions import LocalLinearTrend, OrnsteinUhlenbeck, Seasonal, Sum
from seqlatent.transitions.transition import LinearTransition


class Driven(LinearTransition):
    """Matrices that depend on covariates, memory and gaps: different at every step and series."""

    handles_gaps = True

    def __init__(self, latent_dim, context_dim):
        super().__init__()
        self.latent_dim = latent_dim
        self.F = nn.Linear(context_dim, latent_dim**2).double()
        self.b = nn.Linear(context_dim, latent_dim).double()

    def _inputs(self, c):
        return c.features(c.dt[..., :0])

    def initial_moments(self, c):
        eye = torch.eye(self.latent_dim, dtype=F64)
        return self.b(self._inputs(c)), 1.5 * eye

    def matrices(self, c):
        x = self._inputs(c)
        F = self.F(x).tanh().unflatten(-1, (self.latent_dim, self.latent_dim))
        G = torch.eye(self.latent_dim, dtype=F64) * c.dt[..., None].sqrt()
        return F, self.b(x), G


def read(K, D, seed=5):
    return linear_parts(K, D, seed=seed)[1]


def trend_and_season():
    p = Sum([LocalLinearTrend(), Seasonal(4)])
    return p, LinearGaussian(p.latent_dim, 1, loading=p.loading)


SYSTEMS = {  # parts, observed dimensions, covariates, whether a memory, whether gaps
    "one by one": (lambda: linear_parts(1, 1), 1, 0, False, False),
    "two by one": (lambda: linear_parts(2, 1), 1, 0, False, False),
    "one by three": (lambda: linear_parts(1, 3), 3, 0, False, False),
    "five by three": (lambda: linear_parts(5, 3), 3, 0, False, False),
    "singular": (lambda: linear_parts(3, 2, thin=True), 2, 0, False, False),
    "structural": (trend_and_season, 1, 0, False, False),
    "gaps": (
        lambda: (Reverting(*(0.3 + normal(2, seed=i).abs() for i in range(3))), read(2, 2)),
        2,
        0,
        False,
        True,
    ),
    "Ornstein-Uhlenbeck": (lambda: (OrnsteinUhlenbeck(2), read(2, 2)), 2, 0, False, True),
    "covariates": (lambda: (Driven(2, 3), read(2, 2)), 2, 3, False, True),
    "memory": (lambda: (Driven(2, 4 + 1), read(2, 2)), 2, 1, True, True),
}
PATTERNS = ("some", "none", "one", "all", "ragged")
CASES = [(name, "some") for name in SYSTEMS] + [
    (name, pattern) for name in ("two by one", "structural", "memory") for pattern in PATTERNS[1:]
]


def build(name):
    make, obs_dim, covariate_dim, remembers, _ = SYSTEMS[name]
    transition, emission = (part.double() for part in make())
    past = memory(obs_dim, covariate_dim=covariate_dim) if remembers else None
    return LatentModel(transition, emission, Kalman(), past)


def batch(name, steps=6, pattern="some", B=3):
    _, D, U, _, irregular = SYSTEMS[name]
    s = series(
        B,
        steps,
        D,
        missing=0.3,
        covariate_dim=U,
        t=gaps(B, steps) if irregular else None,
        shift=normal(B, D, seed=8),
        scale=normal(B, D, seed=9).exp(),
    )
    observed = {
        "some": s.observed,
        "none": torch.ones_like(s.observed),
        "all": torch.zeros_like(s.observed),
        "one": torch.ones_like(s.observed),
        "ragged": s.observed.clone(),
    }[pattern].clone()
    if pattern == "one":
        observed[0, steps // 2, 0] = False
    if pattern == "ragged":
        observed[1, steps // 2 :] = False
        observed[2] = False
    y = torch.where(observed, normal(B, steps, D, seed=11), 0.0)
    return Sequences(y, observed, s.t, s.u, s.codes, s.shift, s.scale)


def certify(m, s):
    c = m.context(s)
    exact = dense_evidence(m.transition, m.emission, s, c)
    q = m.posterior(s)
    z = q.rsample((4,), seeded())
    ratio = m.log_joint(z, s, c).sum(-1) - q.log_prob(z).sum(-1)
    close(ratio, exact.expand(4, -1), rtol=1e-9, atol=1e-9)
    # the same on paths that the posterior did not draw, but that the prior could
    far = m.prior(s).rsample((4,), seeded(1))
    ratio = m.log_joint(far, s, c).sum(-1) - q.log_prob(far).sum(-1)
    close(ratio, exact.expand(4, -1), rtol=1e-8, atol=1e-8)
    close(evidence(m, s), exact, rtol=1e-9, atol=1e-9)
    close(elbo(m, s, samples=2, generator=seeded()), exact, rtol=1e-9, atol=1e-9)
    close(iwae(m, s, samples=3, generator=seeded()), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_log_joint_minus_log_posterior_is_the_evidence_on_every_path(name, pattern):
    with torch.no_grad():
        certify(build(name), batch(name, pattern=pattern))


@pytest.mark.parametrize("name", SYSTEMS)
def test_so_it_is_for_a_single_step(name):
    with torch.no_grad():
        certify(build(name), batch(name, 1))


def test_so_it_is_for_a_single_step_unobserved_and_for_two():
    with torch.no_grad():
        certify(build("memory"), batch("memory", 1, "all"))
        certify(build("structural"), batch("structural", 2))


@pytest.mark.parametrize("name", ["two by one", "structural", "memory"])
def test_gradients_of_all_three_are_those_of_the_dense_evidence(name):
    m, s = build(name), batch(name)
    parameters = [p for p in m.parameters() if p.requires_grad]

    def gradients(value):
        grads = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for g, p in zip(grads, parameters, strict=True)
            ]
        )

    exact = gradients(dense_evidence(m.transition, m.emission, s, m.context(s)))
    close(gradients(evidence(m, s)), exact, rtol=1e-7, atol=1e-8)
    close(gradients(iwae(m, s, samples=3, generator=seeded())), exact, rtol=1e-7, atol=1e-8)
    close(gradients(elbo(m, s, samples=3, generator=seeded())), exact, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", SYSTEMS)
def test_states_are_those_of_the_joint_normal_distribution(name):
    m, s = build(name), batch(name)
    with torch.no_grad():
        exact = dense_posterior(m.transition, m.emission, s, m.context(s))
        smoothed = m.smooth(s)
        close(smoothed.mean, exact.mean, rtol=1e-8, atol=1e-9)
        close(smoothed.marginals.covariance_matrix, exact.cov, rtol=1e-8, atol=1e-9)
        filtered = m.filter(s)
        close(filtered.mean[:, -1], exact.mean[:, -1], rtol=1e-8, atol=1e-9)
        exactly = LatentModel(m.transition, m.emission, Kalman(scan=True), m.memory)
        for scanned, looped in ((exactly.filter(s), filtered), (exactly.smooth(s), smoothed)):
            close(scanned.mean, looped.mean, rtol=1e-7, atol=1e-8)
            close(scanned.variance, looped.variance, rtol=1e-7, atol=1e-8)
            close(scanned.log_evidence, looped.log_evidence, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["five by three", "singular", "memory"])
def test_paths_have_the_moments_of_the_smoother(name):
    m, s = build(name), batch(name)
    with torch.no_grad():
        z = m.posterior(s).rsample((3000,), seeded())
        exact = dense_posterior(m.transition, m.emission, s, m.context(s))
    assert within(z.mean(0), exact.mean, standard_error(z), 4.5)
    square = (z - exact.mean).square()
    variance = exact.cov.diagonal(dim1=-2, dim2=-1)
    assert within(square.mean(0), variance, standard_error(square), 5.0)


def test_where_nothing_is_observed_the_exact_posterior_is_the_prior():
    for name in ("two by one", "singular", "memory"):
        m, s = build(name), batch(name, pattern="all")
        with torch.no_grad():
            q, p = m.posterior(s), m.prior(s)
            z = p.rsample((3,), seeded())
            close(q.log_prob(z), p.log_prob(z), rtol=1e-9, atol=1e-9)
            close(divergence(m, q, z).sum(-1), torch.zeros(3, 3, 6, dtype=F64), atol=1e-9)


def test_units_shift_the_evidence_by_the_log_jacobian():
    m = build("five by three")
    s = batch("five by three")
    factor = torch.tensor([2.0, 0.3, 7.0], dtype=F64)
    moved = Sequences(
        s.y * factor, s.observed, s.t, s.u, s.codes, s.shift * factor, s.scale * factor
    )
    with torch.no_grad():
        jacobian = (s.observed * factor.log()).sum((1, 2))
        close(evidence(m, moved), evidence(m, s) - jacobian)


def test_exact_inference_names_the_part_that_is_not_linear():
    from small_models import Curved, Mean

    with pytest.raises(TypeError, match=r"the transition Curved is not linear.*Amortised"):
        LatentModel(Curved(2), read(2, 1), Kalman())
    with pytest.raises(TypeError, match=r"transition Curved and the emission Mean"):
        LatentModel(Curved(2), Mean(2, 1), Kalman())
    assert isinstance(LatentModel(linear_parts(2, 1)[0], read(2, 1), Kalman()).emission, Read)
