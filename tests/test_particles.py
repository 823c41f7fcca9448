"""Particles: unbiased evidence, resampling that counts right, smoothing by backward sampling."""

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series, standard_error, within
from small_models import (
    Counts,
    Curved,
    Mean,
    Read,
    Remembering,
    Reverting,
    amortised,
    dense_evidence,
    dense_posterior,
    linear_parts,
    memory,
)

from seqlatent.chain import Correction
from seqlatent.distributions import Carried
from seqlatent.inference import Latest, Particles
from seqlatent.inference.amortised.tilted import tilt
from seqlatent.inference.particles.backward_sampling import backward_sample
from seqlatent.inference.particles.cloud import particle_filter, systematic_resampling
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, evidence, fivo
from seqlatent.sequences import Context, Sequences

K, D = 2, 2


def repeated(s, times):
    """The first series many times: independent runs in one batch."""
    return s.select(torch.zeros(times, dtype=torch.long))


def linear_model(inference, thin=False):
    transition, emission = linear_parts(K, D, seed=2, thin=thin)
    return LatentModel(transition, emission, inference)


class Informed(Correction):
    """The transition times the likelihood of the step: the best proposal of one step."""

    def __init__(self, transition, y, variance):
        super().__init__(transition)
        self.y, self.variance = y, variance

    def correct(self, p, z, c):
        return tilt(p, c.e, torch.full_like(c.e, 1 / self.variance) * c.informed)


# --- resampling ----------------------------------------------------------------------------------


def test_systematic_resampling_draws_every_particle_about_its_share():
    log_weights = 2 * normal(20, 300)
    log_weights[3] = -torch.inf
    index = systematic_resampling(log_weights, seeded())
    assert index.shape == (20, 300)
    counts = torch.nn.functional.one_hot(index, 20).sum(0).T.to(F64)
    share = 20 * log_weights.softmax(0)
    assert bool((counts >= share.floor() - 1e-9).all())
    assert bool((counts <= share.ceil() + 1e-9).all())
    assert bool((counts[3] == 0).all())


def test_systematic_resampling_is_unbiased():
    log_weights = normal(7)[:, None].expand(7, 4000)
    counts = torch.nn.functional.one_hot(systematic_resampling(log_weights, seeded()), 7).sum(0)
    counts = counts.to(F64)
    assert within(counts.mean(0), 7 * log_weights[:, 0].softmax(0), standard_error(counts))


def test_equal_weights_are_resampled_to_themselves():
    index = systematic_resampling(torch.zeros(8, 5, dtype=F64), seeded())
    assert torch.equal(index, torch.arange(8)[:, None].expand(8, 5))


def test_resampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    systematic_resampling(normal(5, 2), seeded())
    assert torch.equal(before, torch.get_rng_state())


# --- evidence ------------------------------------------------------------------------------------


def unbiased(log_estimates, log_truth):
    ratio = (log_estimates - log_truth).exp()
    assert within(ratio.mean(), 1.0, standard_error(ratio)), (ratio.mean(), standard_error(ratio))


PROPOSALS = {
    "bootstrap": lambda: None,
    "filtering": lambda: amortised("Tilted", "filtering", K, D, weight=0.5),
    "smoothing": lambda: amortised("Tilted", "smoothing", K, D, weight=0.5),
}


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("name", PROPOSALS)
def test_the_evidence_is_unbiased(name, thin):
    m = linear_model(Particles(40, PROPOSALS[name](), threshold=0.7), thin)
    s = series(2, 6, D, missing=0.3, seed=4)
    truth = dense_evidence(m.transition, m.emission, s)
    with torch.no_grad():
        found = evidence(m, repeated(s, 600), generator=seeded())
        assert found.std() > 0.05
        unbiased(found, truth[0])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_evidence_is_unbiased_however_often_it_resamples(threshold):
    m = linear_model(Particles(40, threshold=threshold))
    s = series(1, 4, D, missing=0.0, seed=4)
    truth = dense_evidence(m.transition, m.emission, s)
    with torch.no_grad():
        unbiased(evidence(m, repeated(s, 600), generator=seeded()), truth[0])


def test_the_evidence_converges_to_the_truth():
    m = linear_model(Particles(4000))
    s = series(3, 6, D, missing=0.3, seed=4)
    truth = dense_evidence(m.transition, m.emission, s)
    with torch.no_grad():
        close(evidence(m, s, generator=seeded()), truth, rtol=0, atol=0.15)


def test_a_proposal_that_reads_the_observation_lowers_the_variance():
    rate, mean, scale = torch.tensor([[0.1], [0.0], [1.0]], dtype=F64)
    variance = 0.05
    transition = Reverting(rate, mean, scale)
    emission = Read(*(torch.tensor([x], dtype=F64) for x in ([1.0], 0.0, [variance])))
    m = LatentModel(transition, emission, Particles(20))
    s = repeated(series(1, 8, missing=0.2, seed=1), 300)
    c = Context.of(s, s.y[..., :0]).replace(e=s.y, informed=s.observed)
    with torch.no_grad():
        guided, plain = (
            particle_filter(m, s, c, 20, proposal=q, generator=seeded()).log_evidence.sum(-1)
            for q in (Informed(transition, s.y, variance), None)
        )
    truth = dense_evidence(transition, emission, s.select(slice(0, 1)))
    unbiased(guided, truth)
    assert guided.std() < 0.5 * plain.std()


def test_unobserved_steps_have_no_evidence():
    m = linear_model(Particles(30))
    s = series(2, 5, D, missing=0.0, seed=4).extend(3)
    with torch.no_grad():
        found = m.filter(s, generator=seeded()).log_evidence
    close(found[:, 5:], torch.zeros(2, 3, dtype=F64))


def test_an_impossible_observation_makes_no_nan():
    m = LatentModel(Reverting(*torch.ones(3, 1, dtype=F64)), Counts(1), Particles(20))
    with torch.no_grad():
        m.emission.net.weight.fill_(400.0)  # rates of exp(+-400): most particles are impossible
        y = torch.tensor([[[3.0], [1.0], [2.0]], [[1e9], [1.0], [0.0]]], dtype=F64)
        m.emission.net.bias.fill_(-torch.inf)
        s = Sequences.of(y)
        states = m.filter(s, generator=seeded())
        assert not bool(states.log_evidence.isnan().any())
        assert not bool(states.mean.isnan().any())
        assert bool((states.log_evidence.sum(-1) == -torch.inf).all())
        assert not bool(m.smooth(s, generator=seeded()).mean.isnan().any())


# --- filtering and smoothing ---------------------------------------------------------------------


def test_filtered_moments_are_those_of_the_exact_filter():
    m = linear_model(Particles(4000))
    s = series(2, 4, D, missing=0.3, seed=4)
    with torch.no_grad():
        states = m.filter(s, generator=seeded())
        for t in range(4):
            exact = dense_posterior(m.transition, m.emission, s.window(0, t + 1))
            mean, variance = exact.mean[:, t], exact.cov[:, t].diagonal(dim1=-2, dim2=-1)
            error = 12 * (variance / 4000).sqrt()  # more than that of independent draws
            assert bool(((states.mean[:, t] - mean).abs() < error).all())
            close(states.variance[:, t], variance, rtol=0.15)


@pytest.mark.parametrize(
    ("name", "thin"), [("bootstrap", False), ("bootstrap", True), ("smoothing", False)]
)
def test_smoothed_moments_are_those_of_the_exact_smoother(name, thin):
    m = linear_model(Particles(300, PROPOSALS[name]()), thin)
    s = series(1, 4, D, missing=0.3, seed=4)
    exact = dense_posterior(m.transition, m.emission, s)
    mean, variance = exact.mean, exact.cov.diagonal(dim1=-2, dim2=-1)
    runs = 25
    with torch.no_grad():
        states = m.smooth(repeated(s, runs), generator=seeded())
    # runs are independent; a filter of n particles has a bias of order 1 / n
    assert within(states.mean.mean(0), mean[0], standard_error(states.mean), 4.5)
    error = 4.5 * standard_error(states.variance) + 0.03 * variance[0]
    assert bool(((states.variance.mean(0) - variance[0]).abs() < error).all())


def test_paths_have_the_covariance_between_steps_of_the_exact_posterior():
    m = linear_model(Particles(800))
    s = series(1, 3, D, missing=0.3, seed=4)
    exact = dense_posterior(m.transition, m.emission, s)
    with torch.no_grad():
        paths = m.posterior(repeated(s, 10)).rsample((400,), seeded())
    paths = paths.flatten(0, 1)
    for t in (1, 2):
        found = torch.cov(torch.cat([paths[:, t], paths[:, t - 1]], -1).T)
        close(found[:K, K:], exact.cross[0, t], rtol=0.15, atol=0.05)
        close(found[:K, :K], exact.cov[0, t], rtol=0.15, atol=0.05)


@pytest.mark.parametrize("kind", ["carried", "thin"])
def test_smoothed_paths_are_possible_where_the_state_moves_on_a_subspace(kind):
    # no particle but the parent leads to a child, so every step of a path is a possible one
    if kind == "carried":
        m = LatentModel(Remembering(2, 3), Mean(5, D), Particles(30))
    else:
        m = linear_model(Particles(30), thin=True)
    s = series(2, 5, D, missing=0.2, seed=4)
    with torch.no_grad():
        z = m.posterior(s).rsample((7,), seeded())
        assert z.shape == (7, 2, 5, m.transition.latent_dim)
        distribution = m.transition(z[..., :-1, :], Context.of(s, s.y[..., :0])[1:])
        if isinstance(distribution, Carried):
            close(distribution.carry, z[..., 1:, 2:])
        else:
            jump = (z[..., 1:, :] - distribution.mean)[..., None]
            basis = torch.linalg.qr(m.transition.G)[0]
            close(basis @ (basis.mT @ jump), jump, atol=1e-10)


def test_a_posterior_of_particles_has_shapes_but_no_density():
    m = linear_model(Particles(10))
    s = series(2, 3, D, seed=4)
    chain = m.posterior(s)
    assert chain.rsample((), seeded()).shape == (2, 3, K)
    assert chain.rsample((4, 5), seeded()).shape == (4, 5, 2, 3, K)
    z = chain.rsample((2,), seeded())
    for act in (lambda: chain.log_prob(z), lambda: chain.conditionals(z)):
        with pytest.raises(TypeError, match=r"particle posterior has no density.*fivo"):
            act()
    with pytest.raises(TypeError, match=r"no density"):
        elbo(m, s, generator=seeded())


def test_backward_sampling_may_draw_more_paths_than_particles():
    m = linear_model(Particles(6))
    s = series(2, 3, D, seed=4)
    c = m.context(s)
    cloud = m.inference.cloud(m, s, generator=seeded())
    assert backward_sample(m, cloud, c, 15, seeded()).shape == (15, 2, 3, K)


def test_smoothed_states_keep_their_evidence():
    m = linear_model(Particles(10))
    s = series(2, 3, D, seed=4)
    a, b = m.filter(s, generator=seeded()), m.smooth(s, generator=seeded())
    assert torch.equal(a.log_evidence, b.log_evidence)


# --- continuing ----------------------------------------------------------------------------------


def parts(kind):
    if kind == "memory":
        return Curved(K, 4), Mean(K, D, 4), memory(D)
    return (*linear_parts(K, D, seed=2), None)


@pytest.mark.parametrize("kind", ["plain", "memory"])
def test_row_by_row_is_all_at_once(kind):
    transition, emission, past = parts(kind)
    m = LatentModel(transition, emission, Particles(25), past)
    s = series(3, 7, D, missing=0.4, seed=4, t=gaps(3, 7) if kind == "memory" else None)
    with torch.no_grad():
        cloud = m.inference.cloud(m, s, generator=seeded())
        generator = seeded()
        belief = m.belief(s.window(0, 2), end=True, generator=generator)
        for t in range(2, 7):
            belief = m.update(belief, s.window(t, t + 1), generator=generator)
            for found, expected in (
                (belief.latest.values, cloud.values[..., t, :]),
                (belief.latest.log_weights, cloud.log_weights[..., t]),
            ):
                if kind == "plain":  # bit for bit; a memory differs by rounding
                    assert torch.equal(found, expected)
                else:
                    close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_series_that_has_not_started_begins_with_the_initial_distribution():
    m = linear_model(Particles(3000))
    s = series(2, 1, D, missing=0.0, seed=4)
    started = torch.tensor([True, False])
    far = torch.full((3000, 2, K), 50.0, dtype=F64)
    start = Latest(None, None, far, torch.zeros(3000, 2, dtype=F64), started)
    with torch.no_grad():
        cloud = particle_filter(
            m, s, m.context(s), 3000, proposal=None, start=start, generator=seeded()
        )
        fresh = particle_filter(m, s, m.context(s), 3000, generator=seeded(1))
    assert bool((cloud.values[:, 0].abs() > 5).any())
    error = 6 * fresh.log_evidence.abs().mean() / 3000**0.5
    assert (cloud.log_evidence - fresh.log_evidence)[1].abs() < error
    assert (cloud.log_evidence - fresh.log_evidence)[0].abs() > 1


def test_series_do_not_share_noise_or_weights():
    m = linear_model(Particles(25))
    s = series(2, 5, D, missing=0.2, seed=4)
    other = Sequences(
        torch.cat([s.y[:1], 10 * s.y[1:]]), s.observed, s.t, s.u, s.codes, s.shift, s.scale
    )
    with torch.no_grad():
        a, b = (m.filter(x, generator=seeded()) for x in (s, other))
    assert torch.equal(a.log_evidence[0], b.log_evidence[0])
    assert not torch.equal(a.log_evidence[1], b.log_evidence[1])


def test_the_filter_ignores_the_future():
    transition, emission, past = parts("memory")
    m = LatentModel(transition, emission, Particles(25), past)
    s = series(2, 5, D, missing=0.0, seed=4)
    y = s.y.clone()
    y[:, 3:] = 1e9
    poisoned = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    with torch.no_grad():
        a, b = (m.filter(x, generator=seeded()).log_evidence for x in (s, poisoned))
    assert torch.equal(a[:, :3], b[:, :3])


# --- boundaries ----------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    for n in (0, True):
        with pytest.raises(ValueError, match=r"particles of at least 1, found"):
            Particles(n)
    with pytest.raises(ValueError, match=r"share between 0 and 1, found 1.5"):
        Particles(3, threshold=1.5)
    with pytest.raises(TypeError, match=r"must be an Amortised inference, found Particles"):
        Particles(3, Particles(3))


def test_every_parameter_gets_a_gradient_of_the_bound():
    proposal = amortised("Tilted", "filtering", K, D, weight=0.5)
    m = LatentModel(*linear_parts(K, D, seed=2), proposal)
    s = series(2, 5, D, missing=0.2, seed=4)
    fivo(m, s, particles=8, generator=seeded()).sum().backward()
    for name, p in m.named_parameters():
        assert p.grad is not None, name
        assert bool(p.grad.isfinite().all()), name
