"""Objectives: bounds hold, terms cost what they say, gradients go where they should."""

import math

import pytest
import torch
from batches import F64, close, normal, seeded, series, standard_error, within
from small_models import (
    POSTERIORS,
    Curved,
    Mean,
    Read,
    Remembering,
    Reverting,
    amortised,
    dense_evidence,
    linear_parts,
)
from torch.distributions import Normal, kl_divergence

from seqlatent.chain import MarkovChain
from seqlatent.inference import Combiner, Kalman, Particles, Prior
from seqlatent.model import LatentModel
from seqlatent.objectives import annealing, divergence, elbo, evidence, fivo, iwae
from seqlatent.sequences import Sequences
from seqlatent.transitions.transition import NoLatent

K, D = 2, 2


def parts():
    transition = Reverting(*(0.3 + normal(K, seed=i).abs() for i in range(3)))
    return transition, linear_parts(K, D, seed=2)[1]


def batch(steps=5, missing=0.3, B=2):
    return series(B, steps, D, missing=missing, seed=4)


def build(posterior="Tilted", kind="filtering", **options):
    return LatentModel(*parts(), amortised(posterior, kind, K, D, **options))


def repeated(s, times):
    return s.select(torch.zeros(times, dtype=torch.long))


# --- bounds --------------------------------------------------------------------------------------


def improved(m, s, steps=30):
    """A few steps of training of the posterior alone."""
    optimiser = torch.optim.Adam(m.inference.parameters(), 0.02)
    generator = seeded(9)
    for _ in range(steps):
        optimiser.zero_grad()
        (-elbo(m, s, samples=4, generator=generator).mean()).backward()
        optimiser.step()


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_elbo_is_below_iwae_is_below_the_evidence(posterior, trained):
    m, s = build(posterior, "smoothing"), batch()
    if trained:
        improved(m, s)
    truth = dense_evidence(m.transition, m.emission, s)
    runs = repeated(s, 1500)
    with torch.no_grad():
        low = elbo(m, runs, generator=seeded())
        middle = iwae(m, runs, samples=4, generator=seeded(1))
        high = iwae(m, runs, samples=32, generator=seeded(2))
    for a, b in ((low, middle), (middle, high)):
        error = (standard_error(a) ** 2 + standard_error(b) ** 2) ** 0.5
        assert a.mean() <= b.mean() + 4 * error
    assert high.mean() <= truth[0] + 4 * standard_error(high)
    assert low.mean() < truth[0]
    # the average of the weights themselves is unbiased
    weights = (high - truth[0]).exp()
    if trained:
        assert within(weights.mean(), 1.0, standard_error(weights), 4.5)


def test_training_the_posterior_closes_the_gap():
    m, s = build("Tilted", "smoothing"), batch()
    truth = dense_evidence(m.transition, m.emission, s)

    def gap():
        with torch.no_grad():
            return (truth - elbo(m, s, samples=300, generator=seeded())).mean()

    before = gap()
    improved(m, s, 60)
    assert gap() < 0.7 * before


@pytest.mark.parametrize("kind", ["filtering", "smoothing"])
def test_fivo_is_a_bound_that_grows_with_its_particles(kind):
    m, s = build("Tilted", kind, weight=0.5), batch()
    truth = dense_evidence(m.transition, m.emission, s)[0]
    runs = repeated(s, 500)
    with torch.no_grad():
        few = fivo(m, runs, particles=4, generator=seeded())
        many = fivo(m, runs, particles=64, generator=seeded(1))
    error = (standard_error(few) ** 2 + standard_error(many) ** 2) ** 0.5
    assert few.mean() <= many.mean() + 4 * error
    assert many.mean() <= truth + 4 * standard_error(many)
    weights = (many - truth).exp()
    assert within(weights.mean(), 1.0, standard_error(weights), 4.5)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_iwae_of_one_sample_is_the_elbo_in_expectation(posterior):
    m, s = build(posterior), batch()
    runs = repeated(s, 2000)
    with torch.no_grad():
        a = elbo(m, runs, generator=seeded())
        b = iwae(m, runs, samples=1, generator=seeded(1))
    error = (standard_error(a) ** 2 + standard_error(b) ** 2) ** 0.5
    assert abs(a.mean() - b.mean()) < 4 * error


def test_without_an_analytic_divergence_elbo_is_iwae_of_one_sample():
    transition, emission = linear_parts(K, D, seed=2)
    m = LatentModel(transition, emission, amortised("Tilted", "smoothing", K, D))
    s = batch()
    close(elbo(m, s, generator=seeded()), iwae(m, s, samples=1, generator=seeded()))


def test_more_samples_average_the_elbo():
    m, s = build(), batch()
    q = m.posterior(s)
    z = q.rsample((3,), seeded())
    kl = divergence(m, q, z).sum((-2, -1))
    likelihood = m.emission.log_prob(s.y, s.observed, z, q.context).sum(-1)
    close(elbo(m, s, samples=3, generator=seeded()), (likelihood - kl).mean(0))


# --- divergence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_divergence_is_that_of_each_step_and_dimension(posterior, steps):
    m, s = build(posterior), batch(steps)
    q = m.posterior(s)
    z = q.rsample((3,), seeded())
    kl = divergence(m, q, z)
    assert kl.shape == (3, 2, steps, K)
    c = q.context
    first = kl_divergence(q.kernel.initial(c[0]), m.transition.initial(c[0]))
    close(kl[..., 0, :].sum(-1), first.expand(3, 2))
    for t in range(1, steps):
        before = z[..., t - 1, :]
        distributions = q.kernel(before, c[t]).base_dist, m.transition(before, c[t]).base_dist
        close(kl[..., t, :], kl_divergence(*distributions).expand(3, 2, K))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_divergence_is_a_log_ratio_where_laws_do_not_factorise(steps):
    transition, emission = linear_parts(K, D, seed=2)
    m = LatentModel(transition, emission, amortised("Tilted", "smoothing", K, D))
    s = batch(steps)
    q = m.posterior(s)
    z = q.rsample((3,), seeded())
    kl = divergence(m, q, z)
    assert kl.shape == (3, 2, steps, 1)
    close(kl[..., 0], q.log_prob(z) - MarkovChain(transition, q.context).log_prob(z))


def test_divergence_of_a_carried_state_is_that_of_its_random_part():
    q = amortised("Combiner", "filtering", K, D)
    q.posterior = Combiner(q.encoder.out_dim, K, carry_dim=3).double()
    m = LatentModel(Remembering(K, 3), Mean(K + 3, D), q)
    s = batch()
    chain = m.posterior(s)
    z = chain.rsample((3,), seeded())
    kl = divergence(m, chain, z)
    assert kl.shape == (3, 2, 5, K)
    a, p = (x[1] for x in (chain.conditionals(z), m.prior(s).conditionals(z)))
    close(kl[..., 1:, :], kl_divergence(a.base.base_dist, p.base.base_dist))


# --- what prevents collapse ----------------------------------------------------------------------


def test_kl_weight_scales_the_divergence():
    m, s = build(), batch()
    q = m.posterior(s)
    kl = divergence(m, q, q.rsample((1,), seeded())).sum((-2, -1))[0]
    plain = elbo(m, s, generator=seeded())
    close(elbo(m, s, kl_weight=0.25, generator=seeded()), plain + 0.75 * kl)
    close(elbo(m, s, kl_weight=0.0, generator=seeded()), plain + kl)


def test_free_bits_hold_the_cost_of_idle_dimensions():
    m, s = build(), batch()
    q = m.posterior(s)
    z = q.rsample((2,), seeded())
    kl = divergence(m, q, z)
    likelihood = m.emission.log_prob(s.y, s.observed, z, q.context).sum(-1)
    seen = q.context.informed.to(F64)
    used = (kl * seen).sum((0, 1, 2)) / (seen.sum() * 2)
    bits = (
        used.detach().mean().item()
    )  # between the two dimensions: one is held, one pays what it uses
    assert used.min() < bits < used.max()
    held = torch.where(used < bits, bits * seen, kl)
    expected = (likelihood - held.sum((-2, -1))).mean(0)
    close(elbo(m, s, samples=2, free_bits=bits, generator=seeded()), expected)
    # below what every dimension uses they change nothing
    small = 0.5 * used.detach().min().item()
    close(
        elbo(m, s, samples=2, free_bits=small, generator=seeded()),
        elbo(m, s, samples=2, generator=seeded()),
    )


def test_dimensions_that_are_held_have_no_gradient_of_the_divergence():
    m, s = build(), batch()
    parameters = list(m.inference.parameters())

    def gradients(**options):
        value = elbo(m, s, samples=2, generator=seeded(), **options).sum()
        return torch.autograd.grad(value, parameters)

    for a, b in zip(gradients(free_bits=100.0), gradients(kl_weight=0.0), strict=True):
        close(a, b)


def test_unobserved_steps_have_no_free_bits():
    m, s = build(), batch(missing=0.0)
    longer = s.extend(4)
    a, b = (elbo(m, x, free_bits=0.5, generator=seeded()) for x in (s, longer))
    close(a, b)


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.8, 1.0])
def test_kl_balance_keeps_the_value_and_shares_the_gradient(balance):
    m, s = build("Combiner"), batch(missing=0.0)
    q = m.posterior(s)
    z = q.rsample((1,), seeded()).detach()

    def gradients(value, of):
        grads = torch.autograd.grad(value.sum(), of, allow_unused=True, retain_graph=True)
        pairs = zip(grads, of, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    prior, posterior = list(m.transition.parameters()), list(m.inference.parameters())
    plain, balanced = divergence(m, q, z), divergence(m, q, z, kl_balance=balance)
    close(balanced, plain)
    close(gradients(balanced, prior), balance * gradients(plain, prior))
    close(gradients(balanced, posterior), (1 - balance) * gradients(plain, posterior))
    close(elbo(m, s, kl_balance=balance, generator=seeded()), elbo(m, s, generator=seeded()))


def test_kl_balance_of_one_half_is_half_the_gradient():
    m, s = build("Combiner"), batch(missing=0.0)
    value = elbo(m, s, kl_balance=0.5, generator=seeded()).sum()
    plain = elbo(m, s, kl_weight=0.5, generator=seeded()).sum()
    z_free = list(m.transition.parameters())
    for a, b in zip(
        torch.autograd.grad(value, z_free, retain_graph=True),
        torch.autograd.grad(plain, z_free, retain_graph=True),
        strict=True,
    ):
        close(a, b)


def test_annealing_is_linear_and_then_constant():
    schedule = annealing(0.1, 0.9, 4)
    for step, value in ((0, 0.1), (1, 0.3), (2, 0.5), (4, 0.9), (100, 0.9)):
        assert math.isclose(schedule(step), value)
    down = annealing(2.0, 1.0, 2)
    assert [down(i) for i in range(4)] == [2.0, 1.5, 1.0, 1.0]


# --- which inference gives what ------------------------------------------------------------------


def test_evidence_refuses_an_inference_that_only_bounds_it():
    m, s = build(), batch()
    with pytest.raises(TypeError, match=r"only bounds the evidence: use elbo or iwae, or fivo"):
        evidence(m, s)


def test_fivo_refuses_exact_inference():
    m = LatentModel(*parts(), Kalman())
    with pytest.raises(TypeError, match=r"fivo needs Amortised or Particles, found Kalman; use ev"):
        fivo(m, batch())


def test_fivo_with_particles_is_their_evidence():
    m, s = LatentModel(*parts(), Particles(7)), batch()
    with torch.no_grad():
        a, b = fivo(m, s, generator=seeded()), evidence(m, s, generator=seeded())
    assert torch.equal(a, b)


def test_a_model_without_latents_has_its_likelihood_as_evidence_and_elbo():
    m, s = LatentModel(NoLatent(), Mean(0, D), Prior()), batch()
    distribution = m.emission(s.y[..., :0], m.context(s))
    log_prob = Normal(distribution.mean, distribution.stddev).log_prob(s.y)
    expected = (log_prob * s.observed).sum((1, 2))
    for objective in (evidence, elbo, iwae):
        close(objective(m, s), expected)


def test_all_objectives_are_one_value_per_series_that_ignores_the_others():
    m, s = build(), batch(B=3)
    exact = LatentModel(m.transition, m.emission, Kalman())
    other = Sequences(
        torch.cat([s.y[:2], 5 * s.y[2:]]), s.observed, s.t, s.u, s.codes, s.shift, s.scale
    )
    for objective, model in ((elbo, m), (iwae, m), (fivo, m), (evidence, exact)):
        with torch.no_grad():
            a, b = (objective(model, x, generator=seeded()) for x in (s, other))
        assert a.shape == (3,)
        close(a[:2], b[:2])
        assert a[2] != b[2]


def test_wrong_counts_are_refused():
    m, s = build(), batch()
    for wrong in (0, True, 2.0):
        for call in (
            lambda n: elbo(m, s, samples=n),
            lambda n: iwae(m, s, samples=n),
            lambda n: fivo(m, s, particles=n),
            lambda n: annealing(0.0, 1.0, n),
        ):
            with pytest.raises((ValueError, TypeError), match=r"samples|particles|steps"):
                call(wrong)
    with pytest.raises(ValueError, match=r"samples must be an integer of at least 1, found 0"):
        elbo(m, s, samples=0)


def test_objectives_leave_the_global_generator_alone():
    m, s = build("Parallel"), batch()
    before = torch.get_rng_state()
    for objective in (elbo, iwae, fivo):
        objective(m, s, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_a_nonlinear_model_trains():
    m = LatentModel(Curved(K), Mean(K, D), amortised("Tilted", "filtering", K, D))
    s = batch(missing=0.2)
    optimiser = torch.optim.Adam(m.parameters(), 0.02)
    values = []
    generator = seeded()
    for _ in range(25):
        optimiser.zero_grad()
        loss = -elbo(m, s, samples=4, generator=generator).mean()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert sum(values[-5:]) < sum(values[:5])
    assert isinstance(parts()[1], Read)
