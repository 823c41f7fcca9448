"""Amortised posteriors: a tilt conditions a Gaussian; where nothing is seen they are the prior."""

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series
from small_models import (
    POSTERIORS,
    Curved,
    Mean,
    Remembering,
    Reverting,
    amortised,
    linear_parts,
    memory,
)
from torch.distributions import Independent, StudentT

from seqlatent.chain import (
    ConditionallyLinear,
    DiagonalLinear,
    MarkovChain,
    Sampled,
    sequential_path,
)
from seqlatent.distributions import Carried, FactorNormal, diagonal_normal, kl_per_dim
from seqlatent.inference import Combiner, Parallel, Tilted
from seqlatent.inference.amortised.posterior import choose
from seqlatent.inference.amortised.tilted import TiltedKernel, tilt
from seqlatent.linalg import condition
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, iwae
from seqlatent.sequences import Context, Sequences

B, K, D, U = 3, 2, 2, 1


def reverting():
    return Reverting(*(0.3 + normal(K, seed=i).abs() for i in range(3)))


TRANSITIONS = {
    "affine": (reverting, False),
    "linear": (lambda: linear_parts(K)[0], False),
    "thin": (lambda: linear_parts(K, thin=True)[0], False),
    "curved": (lambda: Curved(K, U), False),
    "with memory": (lambda: Curved(K, U + 4), True),
    "carried": (lambda: Remembering(K, 3), False),
}
TRIPLES = [
    ("Tilted", "affine", "smoothing"),
    ("Tilted", "linear", "filtering"),
    ("Tilted", "thin", "smoothing"),
    ("Tilted", "curved", "backward"),
    ("Tilted", "with memory", "filtering"),
    ("Tilted", "carried", "smoothing"),
    ("Combiner", "affine", "filtering"),
    ("Combiner", "with memory", "smoothing"),
    ("Combiner", "carried", "filtering"),
    ("Parallel", "affine", "filtering"),
    ("Parallel", "curved", "filtering"),
    ("Parallel", "with memory", "smoothing"),
]
each = pytest.mark.parametrize(("posterior", "transition", "kind"), TRIPLES)


def build(posterior, transition, kind="filtering", **options):
    make, remembers = TRANSITIONS[transition]
    p = make()
    context_dim = U + (4 if remembers else 0)
    if transition == "carried" and posterior == "Combiner":
        q = amortised(posterior, kind, K, D, covariate_dim=U, **options)
        q.posterior = Combiner(q.encoder.out_dim, K, carry_dim=3).double()
    else:
        memory_dim = 4 if remembers else 0
        q = amortised(posterior, kind, K, D, covariate_dim=U, memory_dim=memory_dim, **options)
    past = memory(D, covariate_dim=U) if remembers else None
    return LatentModel(p, Mean(p.latent_dim, D, context_dim), q, past)


def batch(steps=6, missing=0.4, ragged=True, irregular=False, seed=0):
    t = gaps(B, steps) if irregular else None
    s = series(B, steps, D, missing=missing, covariate_dim=U, t=t, seed=seed)
    observed = s.observed.clone()
    observed[0, -1, 0] = True
    if ragged:
        observed[1, steps // 2 :] = False
        observed[2] = False
    return Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)


def is_irregular(transition):
    return transition not in ("linear", "thin", "carried")


# --- the tilt ------------------------------------------------------------------------------------


def conditioned(loc, P, m, w):
    """The normal N(loc, P) given an observation m of z with independent variances 1 / w."""
    eye = torch.eye(K, dtype=F64)
    observed = (w > 0).expand(m.shape)
    R = torch.diag_embed(torch.where(observed, 1 / w, 1.0).expand(m.shape))
    return condition(loc, P, eye, torch.zeros(K, dtype=F64), R, m, observed)[:2]


def potential(*shape):
    m, w = normal(*shape, K, seed=1), normal(*shape, K, seed=2).exp()
    w[0, 0] = 0
    return m, w


def test_tilting_a_diagonal_normal_is_conditioning_on_an_observation():
    loc, scale = normal(5, 4, K), normal(4, K, seed=3).exp()
    m, w = potential(4)
    q = tilt(diagonal_normal(loc, scale.expand(5, 4, K)), m, w)
    mean, P = conditioned(loc, torch.diag_embed(scale**2), m, w)
    close(q.mean, mean)
    close(q.variance, P.diagonal(dim1=-2, dim2=-1).expand(5, 4, K))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_tilting_a_factor_normal_is_conditioning_on_an_observation(columns, shared):
    loc = normal(5, 4, K)
    G = normal(K, columns, seed=4) if shared else normal(4, K, columns, seed=4)
    m, w = potential(4)
    q = tilt(FactorNormal(loc, G), m, w)
    mean, P = conditioned(loc, G @ G.mT, m, w)
    close(q.mean, mean)
    close(q.covariance_matrix, P.expand(5, 4, K, K))


def test_a_weight_of_zero_leaves_the_distribution_bit_for_bit():
    loc, m = normal(4, K), normal(4, K, seed=1)
    w = torch.zeros(4, K, dtype=F64)
    p = diagonal_normal(loc, normal(4, K, seed=2).exp())
    q = tilt(p, m, w)
    assert torch.equal(q.mean, p.mean)
    assert torch.equal(q.stddev, p.stddev)
    p = FactorNormal(loc, normal(K, 1))
    q = tilt(p, m, w)
    assert torch.equal(q.mean, p.mean)
    assert torch.equal(q.factor, p.factor.expand(4, K, 1))


def test_the_memory_that_a_state_carries_is_not_tilted():
    base, carry = diagonal_normal(normal(4, K), torch.ones(4, K, dtype=F64)), normal(4, 3)
    m, w = potential(4)
    q = tilt(Carried(base, carry), m, w)
    assert torch.equal(q.carry, carry)
    close(q.base.mean, tilt(base, m, w).mean)
    nothing = Carried(None, carry)
    assert tilt(nothing, m, w) is nothing


def test_laws_that_cannot_be_corrected_say_what_to_use():
    heavy = Independent(StudentT(3.0, normal(4, K), 1.0), 1)
    with pytest.raises(TypeError, match=r"Tilted needs .* normal, found Independent; use Combiner"):
        tilt(heavy, *potential(4))
    factor = FactorNormal(normal(4, K), normal(K, 1))
    informed = torch.ones(4, 1, dtype=torch.bool)
    diagonal = diagonal_normal(normal(4, K), torch.ones(4, K, dtype=F64))
    with pytest.raises(TypeError, match=r"Combiner and Parallel need .* found FactorNormal"):
        choose(informed, diagonal, factor)
    with pytest.raises(ValueError, match=r"weight must be positive, found 0"):
        Tilted(3, K, weight=0.0)


def test_posteriors_of_another_width_or_kind_than_the_state_are_refused():
    s = batch()
    wider = {"Tilted": 2 * K, "Combiner": 2 * K, "Parallel": 1}
    for posterior, latent_dim in wider.items():
        m = build(posterior, "curved")
        m.inference.posterior = POSTERIORS[posterior](m.inference.encoder.out_dim, latent_dim)
        with pytest.raises(ValueError, match=rf"{latent_dim} latent .* Curved has 2 random"):
            m.double().posterior(s)
    complete = batch(missing=0.0, ragged=False)
    for transition in ("linear", "thin"):
        for posterior in ("Combiner", "Parallel"):
            for x in (s, complete):
                with pytest.raises(TypeError, match=r"diagonal normal .*found FactorNormal"):
                    build(posterior, transition).posterior(x)
    with pytest.raises(TypeError, match=r"diagonal normal conditionals, found Carried"):
        build("Parallel", "carried").posterior(complete)
    m = build("Combiner", "carried")
    m.inference.posterior = Combiner(m.inference.encoder.out_dim, K).double()
    with pytest.raises(ValueError, match=r"reads 0 dim.* found 3; build it with carry_dim=3"):
        m.posterior(complete)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_steps_without_noise_stay_without_noise(missing):
    # a flow of a random start: only the start has a posterior
    from test_chain import Deterministic

    s = batch(missing=missing, ragged=False)
    q = amortised("Combiner", "smoothing", K, D, covariate_dim=U)
    m = LatentModel(Deterministic(), Mean(K, D, U), q)
    chain = m.posterior(s)
    z = chain.rsample((3,), seeded())
    first, rest = chain.conditionals(z)
    assert not isinstance(first, Carried)
    assert isinstance(rest, Carried)
    close(rest.mean, z[..., 1:, :])
    assert bool(elbo(m, s, samples=3, generator=seeded()).isfinite().all())


def test_initial_weight_is_the_one_asked_for():
    head = Tilted(3, K, weight=0.25).double()
    for p in head.parameters():
        torch.nn.init.zeros_(p)
    stats = head.statistics(normal(4, 3))
    close(stats[..., K:], torch.full((4, K), 0.25, dtype=F64), rtol=1e-6)


@pytest.mark.parametrize("transition", ["affine", "linear", "thin"])
def test_sampling_a_linear_tilt_in_parallel_is_sampling_it_step_by_step(transition):
    m, s = build("Tilted", transition), batch(irregular=is_irregular(transition))
    chain = m.posterior(s)
    assert isinstance(
        chain.kernel, DiagonalLinear if transition == "affine" else ConditionallyLinear
    )
    found = chain.rsample((4,), seeded())
    close(found, sequential_path(TiltedKernel(m.transition), chain.context, (4,), seeded()))
    generic = MarkovChain(TiltedKernel(m.transition), chain.context)
    close(chain.log_prob(found), generic.log_prob(found))


def test_parallel_is_sampled_without_a_loop_where_it_can():
    complete = batch(missing=0.0, ragged=False)
    assert isinstance(build("Parallel", "curved").posterior(complete).kernel, Sampled)
    assert not isinstance(build("Parallel", "curved").posterior(batch()).kernel, DiagonalLinear)
    assert isinstance(build("Parallel", "affine").posterior(batch()).kernel, DiagonalLinear)


@pytest.mark.parametrize("transition", ["affine", "curved"])
def test_a_free_path_is_the_same_up_to_a_hole_and_goes_on_after_it(transition):
    m, complete = build("Parallel", transition), batch(missing=0.0, ragged=False)
    hidden = torch.zeros_like(complete.observed)
    hidden[0, 2] = hidden[0, 4:] = hidden[1, 3] = True
    with torch.no_grad():
        whole = m.posterior(complete).rsample((4,), seeded())
        q = m.posterior(complete.hide(hidden))
        found = q.rsample((4,), seeded())
        close(found, sequential_path(q.kernel, q.context, (4,), seeded()))
    for i, steps in enumerate((2, 3, 6)):
        assert torch.equal(found[:, i, :steps], whole[:, i, :steps])


# --- laws ----------------------------------------------------------------------------------------


@each
def test_paths_follow_the_densities_that_are_scored(posterior, transition, kind):
    m, s = build(posterior, transition, kind), batch(irregular=is_irregular(transition))
    q = m.posterior(s)
    z = q.rsample((3,), seeded())
    assert z.shape == (3, B, 6, m.transition.latent_dim)
    c, kernel = q.context, q.kernel
    expected = [kernel.initial(c[0]).log_prob(z[..., 0, :])]
    expected += [kernel(z[..., t - 1, :], c[t]).log_prob(z[..., t, :]) for t in range(1, 6)]
    close(q.log_prob(z), torch.stack(expected, -1))
    close(sequential_path(kernel, c, (3,), seeded()), z)
    prior = MarkovChain(m.transition, c).conditionals(z)
    for a, b in zip(q.conditionals(z), q.conditionals(z, prior), strict=True):
        close(a.mean, b.mean)
        close(a.variance, b.variance)


@each
def test_where_nothing_is_observed_the_posterior_is_the_prior(posterior, transition, kind):
    m, s = build(posterior, transition, kind), batch(irregular=is_irregular(transition))
    s = s.hide(torch.ones_like(s.observed))
    q, p = m.posterior(s), m.prior(s)
    z = q.rsample((3,), seeded())
    close(z, p.rsample((3,), seeded()))
    close(q.log_prob(z), p.log_prob(z))
    distributions = zip(q.conditionals(z), p.conditionals(z), strict=True)
    for a, b in distributions:
        close(a.mean, b.mean)
        close(a.variance, b.variance)
        kl = kl_per_dim(a, b)
        assert kl is None or torch.equal(kl, torch.zeros_like(kl))
    close(elbo(m, s, generator=seeded()), torch.zeros(B, dtype=F64), atol=1e-11)
    close(iwae(m, s, samples=3, generator=seeded()), torch.zeros(B, dtype=F64), atol=1e-11)


@each
def test_appended_unobserved_steps_change_nothing(posterior, transition, kind):
    m, s = build(posterior, transition, kind), batch(irregular=is_irregular(transition))
    longer = s.extend(3)
    q, q2 = m.posterior(s), m.posterior(longer)
    z, z2 = q.rsample((3,), seeded()), q2.rsample((3,), seeded())
    close(z2[..., :6, :], z)
    close(q2.log_prob(z2)[..., :6], q.log_prob(z))
    for objective in (elbo, iwae):
        a, b = (objective(m, x, samples=3, generator=seeded()) for x in (s, longer))
        close(a, b, rtol=1e-9)


@each
def test_permuting_series_permutes_results(posterior, transition, kind):
    m, s = build(posterior, transition, kind), batch(irregular=is_irregular(transition))
    order = torch.tensor([2, 0, 1])
    z = m.posterior(s).rsample((3,), seeded())
    q = m.posterior(s.select(order))
    close(q.log_prob(z[:, order]), m.posterior(s).log_prob(z)[:, order])
    # each series alone
    for b in range(B):
        alone = m.posterior(s.select(slice(b, b + 1)))
        close(alone.log_prob(z[:, b : b + 1]), m.posterior(s).log_prob(z)[:, b : b + 1])


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_filtering_posterior_ignores_the_future(posterior):
    m, s = build(posterior, "with memory"), batch(missing=0.0, ragged=False)
    z = m.posterior(s).rsample((3,), seeded())
    y = s.y.clone()
    y[:, 3:] = 1e9
    poisoned = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    z2 = m.posterior(poisoned).rsample((3,), seeded())
    assert torch.equal(z2[..., :3, :], z[..., :3, :])
    assert not torch.equal(z2[..., 3, :], z[..., 3, :])


@each
def test_every_parameter_gets_a_finite_gradient(posterior, transition, kind):
    m, s = build(posterior, transition, kind), batch(irregular=is_irregular(transition))
    elbo(m, s, samples=2, generator=seeded()).sum().backward()
    for name, p in m.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_gradients_of_the_elbo_are_those_of_the_recorded_loop(posterior):
    from test_chain import recorded

    m, s = build(posterior, "curved" if posterior == "Parallel" else "carried"), batch()
    parameters = list(m.parameters())

    def value(path):
        q = m.posterior(s)
        z = path(q)
        return (m.log_joint(z, s, q.context) - q.log_prob(z)).sum()

    found = torch.autograd.grad(value(lambda q: q.rsample((2,), seeded())), parameters)
    expected = torch.autograd.grad(
        value(lambda q: recorded(q.kernel, q.context, (2,), seeded())), parameters
    )
    for a, b in zip(found, expected, strict=True):
        close(a, b, rtol=1e-9, atol=1e-11)


def test_combiner_reads_the_carried_memory_at_its_own_step():
    m, s = build("Combiner", "carried"), batch(missing=0.0, ragged=False)
    q = m.posterior(s)
    z = q.rsample((), seeded())
    distribution = q.conditionals(z)[1]
    assert isinstance(distribution, Carried)
    moved = z.clone()
    moved[:, :-1, :K] += (
        1.0  # a different past z gives a different memory, hence another distribution
    )
    assert not torch.equal(q.conditionals(moved)[1].base.mean, distribution.base.mean)


def test_float32_stays_float32():
    for triple in TRIPLES:
        m = build(*triple).float()
        s = batch().to(dtype=torch.float32)
        z = m.posterior(s).rsample((2,), seeded())
        assert z.dtype == torch.float32
        assert elbo(m, s, generator=seeded()).dtype == torch.float32
    assert Context.of(s, s.y).m.dtype == torch.float32
    assert Parallel(3, K).statistics(torch.zeros(2, 3)).shape == (2, 3 * K)
