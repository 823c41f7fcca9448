"""Switching linear systems against enumeration of all paths of regimes, each filtered exactly."""

import itertools
import math
from functools import partial
from typing import NamedTuple

import pytest
import torch
from batches import normal, series, standard_error, within
from small_models import linear_parts
from torch import Tensor
from torch.testing import assert_close

from seqlatent import hmm, kalman, switching, zoo
from seqlatent.distributions import detach
from seqlatent.emissions import ByRegime, LinearGaussian, Normal
from seqlatent.inference import GPB2, IMM, ForwardBackward, Kalman, Particles, RaoBlackwell
from seqlatent.model import Belief, LatentModel
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.switching import SwitchingSystem
from seqlatent.testing import TransitionContract, context
from seqlatent.training import fit
from seqlatent.transitions import LinearGaussian as LinearGaussianTransition
from seqlatent.transitions import LocalLevel, LocalLinearTrend, Regimes, SwitchingLinear

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-10}
INF = float("inf")


class Model(NamedTuple):
    """In the order in which the functions take them."""

    log_initial: Tensor
    log_transition: Tensor
    F: Tensor
    b: Tensor
    Q: Tensor
    m0: Tensor
    P0: Tensor
    H: Tensor
    d: Tensor
    R: Tensor


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_model(S=2, K=2, D=1, *, lead=(), time=(), seed=0, far=1.0):
    """Regimes that differ in everything, with matrices that may vary."""
    g = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=F64, generator=g)

    def cov(*shape):
        A = normal(*shape, shape[-1])
        return 0.2 * (A @ A.mT) + 0.1 * torch.eye(shape[-1], dtype=F64)

    axes = (*lead, *time)
    return Model(
        normal(*lead, S).log_softmax(-1),
        (normal(*axes, S, S) + 2 * torch.eye(S, dtype=F64)).log_softmax(-1),
        0.7 * torch.linalg.qr(normal(*axes, S, K, K))[0],
        far * normal(*axes, S, K),
        cov(*axes, S, K),
        normal(*lead, S, K),
        cov(*lead, S, K),
        normal(*axes, S, D, K),
        far * normal(*axes, S, D),
        cov(*axes, S, D),
    )


def data(lead, steps, D, *, missing=0.3, seed=1):
    g = seeded(seed)
    y = 2 * torch.randn(*lead, steps, D, dtype=F64, generator=g)
    return y, torch.rand(y.shape, generator=g) >= missing


class Exact(NamedTuple):
    evidence: Tensor  # of all steps
    filtered: Tensor  # p(s_T | y)
    smoothed: Tensor  # p(s_t | y) (T, S)
    mean: Tensor  # E(z_T | s_T, y) (S, K)
    cov: Tensor
    smoothed_mean: Tensor  # E(z_t | y) (T, K)


def enumerate_paths(model, y, observed):
    """One series: every path of regimes with its own Kalman filter and smoother."""
    S, T = model.log_initial.shape[-1], len(y)
    paths = torch.tensor(list(itertools.product(range(S), repeat=T)))
    M = model.log_transition.expand(T, S, S)
    log_prior = model.log_initial[paths[:, 0]]
    for t in range(1, T):
        log_prior = log_prior + M[t, paths[:, t - 1], paths[:, t]]

    def along(x, event):
        x = x.expand(T, *x.shape[-event - 1 :])
        return x[torch.arange(T), paths]

    F, Q, H, R = (along(getattr(model, name), 2) for name in "FQHR")
    b, d = along(model.b, 1), along(model.d, 1)
    m0, P0 = model.m0[paths[:, 0]], model.P0[paths[:, 0]]
    system = kalman.LinearGaussianSystem(F, b, Q, m0, P0, H, d, R)
    filtered, smoothed = kalman.filter(system, y, observed), kalman.smoother(system, y, observed)
    joint = log_prior + filtered.log_evidence.sum(-1)
    w = joint.softmax(0)
    last = torch.nn.functional.one_hot(paths[:, -1], S).to(F64)
    share = (w[:, None] * last) / (w[:, None] * last).sum(0)
    mean = torch.einsum("ns,nk->sk", share, filtered.mean[:, -1])
    far = filtered.mean[:, -1, None] - mean
    spread = filtered.cov[:, -1, None] + far[..., :, None] * far[..., None, :]
    cov = (share[..., None, None] * spread).sum(0)
    every = torch.nn.functional.one_hot(paths, S).to(F64)
    return Exact(
        joint.logsumexp(0),
        w @ last,
        torch.einsum("n,nts->ts", w, every),
        mean,
        cov,
        torch.einsum("n,ntk->tk", w, smoothed.mean),
    )


def run_rao_blackwell(*args, particles=4096, generator=None, **kwargs):
    return switching.rao_blackwell(
        *args, particles=particles, generator=generator, **kwargs
    ).filtered


ALL = {"imm": switching.imm, "gpb2": switching.gpb2, "rao_blackwell": run_rao_blackwell}
every_filter = pytest.mark.parametrize("run", ALL.values(), ids=ALL)


@every_filter
@pytest.mark.parametrize("D", [1, 2])
def test_one_regime_is_a_kalman_filter(run, D):
    model = random_model(1, 2, D, lead=(3,), time=(6,))
    y, observed = data((3,), 6, D)
    rest = [x.squeeze(-3) for x in (model.F, model.Q, model.P0, model.H, model.R)]
    F, Q, P0, H, R = rest
    b, m0, d = (x.squeeze(-2) for x in (model.b, model.m0, model.d))
    system = kalman.LinearGaussianSystem(F, b, Q, m0, P0, H, d, R)
    exact = kalman.filter(system, y, observed)
    found = run(SwitchingSystem(*model), y, observed)
    assert_close(found.log_evidence, exact.log_evidence, **EXACT)
    assert_close(found.mean.squeeze(-2), exact.mean, **EXACT)
    assert_close(found.cov.squeeze(-3), exact.cov, **EXACT)
    assert_close(found.log_prob, torch.zeros(3, 6, 1, dtype=F64), **EXACT)
    smoothed = switching.smoother(SwitchingSystem(*model), found)
    exact = kalman.smoother(system, y, observed)
    assert_close(smoothed.mean.squeeze(-2), exact.mean, **EXACT)
    assert_close(smoothed.cov.squeeze(-3), exact.cov, **EXACT)


@every_filter
def test_a_state_that_says_nothing_leaves_a_hidden_markov_model(run):
    model = random_model(3, 2, 2, lead=(2,), time=(1,))
    model = model._replace(H=0 * model.H)
    y, observed = data((2,), 7, 2)
    both = observed[..., :, None] & observed[..., None, :]
    R = torch.where(both[..., None, :, :], model.R, torch.eye(2, dtype=F64))
    r = torch.where(observed[..., None, :], y[..., None, :] - model.d, 0.0)
    zero = torch.zeros(2, dtype=F64)
    ll = torch.distributions.MultivariateNormal(zero, R).log_prob(r)
    ll = ll + 0.5 * math.log(2 * torch.pi) * (~observed).sum(-1).to(F64)[..., None]
    found = run(SwitchingSystem(*model), y, observed)
    exact = hmm.filter(model.log_initial, model.log_transition, ll)
    assert_close(found.log_prob, exact.log_prob, **EXACT)
    assert_close(found.log_evidence, exact.log_evidence, **EXACT)
    smoothed = switching.smoother(SwitchingSystem(*model), found)
    exact = hmm.smoother(model.log_initial, model.log_transition, ll)
    assert_close(smoothed.log_prob, exact.log_prob, **EXACT)


@pytest.mark.parametrize(("S", "T", "D"), [(2, 1, 1), (2, 2, 1), (2, 6, 1), (3, 4, 2)])
def test_with_all_paths_the_particle_filter_is_exact(S, T, D):
    model = random_model(S, 2, D, time=(T,))
    y, observed = data((), T, D)
    exact = enumerate_paths(model, y, observed)
    cloud = switching.rao_blackwell(SwitchingSystem(*model), y, observed, particles=S**T)
    found = cloud.filtered
    assert_close(found.log_evidence.sum(), exact.evidence, **EXACT)
    assert_close(found.log_prob[-1].exp(), exact.filtered, **EXACT)
    assert_close(found.mean[-1], exact.mean, **EXACT)
    assert_close(found.cov[-1], exact.cov, **EXACT)
    assert_close(cloud.log_weights[-1].logsumexp(-1).item(), 0.0, **EXACT)
    # of particles that could hold all but the last branching, the last moments are exact too
    fewer = switching.rao_blackwell(SwitchingSystem(*model), y, observed, particles=S ** (T - 1))
    assert_close(fewer.filtered.log_evidence.sum(), exact.evidence, **EXACT)


def test_approximations_are_exact_for_two_steps_and_close_after():
    for seed in range(5):
        model = random_model(2, 2, 1, seed=seed)
        y, observed = data((), 8, 1, missing=0.2, seed=seed)
        exact = [enumerate_paths(model, y[:t], observed[:t]) for t in range(1, 9)]
        gpb2, imm = (ALL[name](SwitchingSystem(*model), y, observed) for name in ("gpb2", "imm"))
        for t in range(2):
            assert_close(gpb2.log_evidence[: t + 1].sum(), exact[t].evidence, **EXACT)
            assert_close(gpb2.log_prob[t].exp(), exact[t].filtered, **EXACT)
            assert_close(gpb2.mean[t], exact[t].mean, **EXACT)
            assert_close(gpb2.cov[t], exact[t].cov, **EXACT)
        distribution = torch.stack([x.filtered for x in exact])
        for found, error in ((gpb2, 0.03), (imm, 0.2)):
            assert (found.log_prob.exp() - distribution).abs().max() < error
            assert (found.log_evidence.sum() - exact[-1].evidence).abs() < 5 * error


def test_smoothing_is_close_where_the_regime_is_one_of_the_noise():
    worst = []
    for seed in range(5):
        model = random_model(2, 2, 1, seed=seed, far=0.0)
        loud = torch.tensor([1.0, 4.0], dtype=F64)[:, None, None]
        same = {
            name: getattr(model, name)[:1].expand(2, *getattr(model, name).shape[1:])
            for name in ("F", "Q", "H", "R", "m0", "P0")
        }
        model = model._replace(**{**same, "Q": same["Q"] * loud})
        y, observed = data((), 8, 1, missing=0.2, seed=seed)
        exact = enumerate_paths(model, y, observed)
        for name in ("imm", "gpb2"):
            smoothed = switching.smoother(
                SwitchingSystem(*model), ALL[name](SwitchingSystem(*model), y, observed)
            )
            mean = (smoothed.log_prob.exp()[..., None] * smoothed.mean).sum(-2)
            worst.append((smoothed.log_prob.exp() - exact.smoothed).abs().max())
            worst.append((mean - exact.smoothed_mean).abs().max())
    assert max(worst) < 0.2


def test_the_evidence_of_few_particles_is_unbiased():
    repeats = 4000
    model = random_model(2, 1, 1, far=0.7)
    y, observed = data((), 7, 1, missing=0.1)
    exact = enumerate_paths(model, y, observed).evidence
    y = y.expand(repeats, *y.shape)
    for particles in (1, 2, 5):
        cloud = switching.rao_blackwell(
            SwitchingSystem(*model), y, observed, particles=particles, generator=seeded()
        )
        ratio = (cloud.filtered.log_evidence.sum(-1) - exact).exp()
        assert ratio.std() > 1e-6
        assert (ratio.mean() - 1).abs() < 4 * ratio.std() / repeats**0.5
        assert_close(cloud.log_weights.logsumexp(-1), torch.zeros(repeats, 7, dtype=F64), **EXACT)
        estimate = (cloud.filtered.log_prob[:, -1].exp() * ratio[:, None]).mean(0)
        distribution = enumerate_paths(model, y[0], observed).filtered
        assert_close(estimate, distribution, atol=0.05, rtol=0)
    assert ratio.std() < 0.1


@every_filter
def test_axes_broadcast(run):
    model = random_model(2, 2, 2)
    y, observed = data((2, 3), 5, 2)
    shift = torch.arange(3, dtype=F64)[:, None, None, None]
    model = model._replace(d=model.d + shift, F=model.F * torch.ones(2, 1, 1, 1, 1, 1, dtype=F64))
    model = model._replace(log_transition=model.log_transition.expand(5, 2, 2))
    found = run(SwitchingSystem(*model), y, observed)
    for i, j in itertools.product(range(2), range(3)):
        own = model._replace(d=model.d[j], F=model.F[i, 0])
        for x, z in zip(found, run(SwitchingSystem(*own), y[i, j], observed[i, j]), strict=True):
            assert_close(x[i, j], z, **EXACT)


@every_filter
def test_what_is_missing_is_not_read(run):
    model = random_model(2, 2, 2)
    y, observed = data((2,), 5, 2)
    observed[0, 2] = False
    found = run(SwitchingSystem(*model), y, observed)
    other = run(SwitchingSystem(*model), torch.where(observed, y, torch.nan), observed)
    for x, z in zip(found, other, strict=True):
        assert_close(x, z, **EXACT)
    assert_close(found.log_evidence[0, 2].item(), 0.0, **EXACT)
    none = run(SwitchingSystem(*model), y, torch.zeros_like(observed))
    assert_close(none.log_evidence, torch.zeros(2, 5, dtype=F64), **EXACT)
    ahead = (none.log_prob[:, -2, :, None] + model.log_transition).logsumexp(-2)
    assert_close(none.log_prob[:, -1], ahead, **EXACT)


@every_filter
def test_probabilities_sum_to_one_beside_data_that_no_regime_explains(run):
    model = random_model(2, 2, 1)
    y, observed = data((2,), 5, 1, missing=0.0)
    y[:, 2] = 1e7
    found = run(SwitchingSystem(*model), y, observed)
    assert found.log_evidence[:, 2].max() < -1e11
    smoothed = switching.smoother(SwitchingSystem(*model), found)
    for x in (found, smoothed):
        assert_close(x.log_prob.exp().sum(-1), torch.ones(2, 5, dtype=F64), rtol=0, atol=1e-14)


@every_filter
def test_a_filter_goes_on_from_where_it_stopped(run):
    model = random_model(2, 2, 1)
    y, observed = data((3,), 7, 1)
    whole = run(SwitchingSystem(*model), y, observed)
    if run is run_rao_blackwell:
        cloud = switching.rao_blackwell(
            SwitchingSystem(*model), y[:, :4], observed[:, :4], particles=200
        )
        past = switching.Mixture(
            *(x[:, -1] for x in (cloud.log_weights, cloud.regime, cloud.mean, cloud.cov))
        )
    else:
        before = run(SwitchingSystem(*model), y[:, :4], observed[:, :4])
        log_prob, mean, cov = before.log_prob[:, -1], before.mean[:, -1], before.cov[:, -1]
        past = switching.Mixture(log_prob, torch.arange(2).expand(3, 2), mean, cov)
    started = torch.tensor([True, True, False])
    start = switching.Start(past, started)
    later = run(SwitchingSystem(*model), y[:, 4:], observed[:, 4:], start=start)
    fresh = run(SwitchingSystem(*model), y[:, 4:], observed[:, 4:])
    for x, z, new in zip(later, whole, fresh, strict=True):
        assert_close(x[:2], z[:2, 4:], **EXACT)
        assert_close(x[2], new[2], **EXACT)


@pytest.mark.parametrize("run", [switching.imm, switching.gpb2])
@pytest.mark.parametrize("D", [1, 2])
def test_gradients_of_the_evidence_are_right(run, D):
    model = [x.requires_grad_() for x in random_model(2, 2, D)]
    y, observed = data((), 3, D)
    assert torch.autograd.gradcheck(
        lambda *m: run(
            SwitchingSystem(*(x @ x.mT if i in (4, 6, 9) else x for i, x in enumerate(m))),
            y,
            observed,
        ).log_evidence.sum(),
        model,
    )


def test_regimes_that_are_impossible_stay_out():
    model = random_model(3, 2, 1)
    first = torch.tensor([0.0, -INF, -INF], dtype=F64)
    M = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]], dtype=F64).log()
    model = Model(first, M, *model[2:])
    y, observed = data((2,), 6, 1)
    exact = enumerate_paths(
        Model(first[:2], M[:2, :2], *(x[:2] for x in model[2:])), y[0], observed[0]
    )
    for name, run in ALL.items():
        inputs = [x.clone().requires_grad_() for x in model]
        found = run(SwitchingSystem(*inputs), y, observed)
        assert (found.log_prob[..., 2] == -INF).all()
        assert found.mean.isfinite().all()
        assert found.cov.isfinite().all()
        if name == "rao_blackwell":
            assert_close(found.log_evidence[0].sum(), exact.evidence, **EXACT)
        found.log_evidence.sum().backward()
        assert all(x.grad is None or x.grad.isfinite().all() for x in inputs[2:])
        smoothed = switching.smoother(SwitchingSystem(*model), found)
        assert (smoothed.log_prob[..., 2] == -INF).all()
        assert smoothed.mean.isfinite().all()


def test_a_state_without_noise_is_smoothed():
    """An autoregression of order two in companion form that sometimes stands still."""
    F = torch.tensor([[1.2, -0.4], [1.0, 0.0]], dtype=F64).expand(2, 2, 2)
    Q = torch.zeros(2, 2, 2, dtype=F64)
    Q[1, 0, 0] = 0.5
    M = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64).log()
    zero = torch.zeros(2, 2, dtype=F64)
    H = torch.tensor([[1.0, 0.0]], dtype=F64).expand(2, 1, 2)
    R = 0.1 * torch.ones(2, 1, 1, dtype=F64)
    y, observed = data((), 6, 1)
    first = torch.tensor([0.5, 0.5], dtype=F64).log()
    system = SwitchingSystem(first, M, F, zero, Q, zero, 0 * Q, H, zero[:, :1], R)
    smoothed = switching.smoother(system, switching.gpb2(system, y, observed))
    exact = enumerate_paths(system, y, observed)
    assert (smoothed.log_prob.exp() - exact.smoothed).abs().max() < 0.1
    assert smoothed.mean.isfinite().all()


def test_paths_drawn_backwards_have_the_distribution_of_the_posterior():
    n = 2000
    model = random_model(2, 2, 1, seed=3)
    y, observed = data((2,), 5, 1, missing=0.2)
    for particles in (32, 8):  # all paths, and a quarter of them
        cloud = switching.rao_blackwell(
            SwitchingSystem(*model), y, observed, particles=particles, generator=seeded()
        )
        drawn = switching.sample_paths(
            SwitchingSystem(*model), y, observed, cloud=cloud, paths=n, generator=seeded()
        )
        smoothed = drawn.smoothed(2)
        share = smoothed.log_prob.exp()
        mean = (share[..., None] * smoothed.mean).sum(-2)
        bound = 4.5 / n**0.5 if particles == 32 else 0.15
        for b in range(2):
            exact = enumerate_paths(model, y[b], observed[b])
            assert (share[b] - exact.smoothed).abs().max() < 0.5 * bound
            assert (mean[b] - exact.smoothed_mean).abs().max() < bound
    one = Model(*(x[..., :1] if x.dim() == 1 else x[:1] for x in model))
    one = one._replace(log_transition=one.log_transition[:, :1])
    cloud = switching.rao_blackwell(SwitchingSystem(*one), y, observed, particles=1)
    drawn = switching.sample_paths(
        SwitchingSystem(*one), y, observed, cloud=cloud, paths=2
    ).smoothed(1)
    exact = switching.smoother(SwitchingSystem(*one), cloud.filtered)
    assert_close(drawn.mean, exact.mean, **EXACT)
    assert_close(drawn.cov, exact.cov, **EXACT)
    with pytest.raises(ValueError, match=r"paths must be an integer of at least 1"):
        switching.sample_paths(SwitchingSystem(*model), y, observed, cloud=cloud, paths=0)


def test_a_private_generator_decides_what_is_kept():
    model = random_model(2, 1, 1)
    y, observed = data((3,), 8, 1)
    state = torch.get_rng_state()
    runs = [
        run_rao_blackwell(SwitchingSystem(*model), y, observed, particles=4, generator=seeded(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0].log_evidence, runs[1].log_evidence)
    assert not torch.equal(runs[0].log_evidence, runs[2].log_evidence)
    assert torch.equal(state, torch.get_rng_state())


def test_errors_teach():
    model = random_model(2, 2, 1)
    y, observed = data((3,), 5, 1)
    with pytest.raises(ValueError, match=r"S = 2 regimes.*needs b to end in \(2, 2\).*Stack"):
        switching.imm(SwitchingSystem(*model._replace(b=model.b[:, :1])), y, observed)
    with pytest.raises(ValueError, match=r"leading axes and steps that broadcast"):
        switching.gpb2(SwitchingSystem(*model._replace(F=model.F.expand(4, 2, 2, 2))), y, observed)
    with pytest.raises(ValueError, match=r"particles must be an integer of at least 1"):
        switching.rao_blackwell(SwitchingSystem(*model), y, observed, particles=0)
    with pytest.raises(ValueError, match=r"positive variances"):
        switching.imm(SwitchingSystem(*model._replace(R=0 * model.R, H=0 * model.H)), y, observed)


# --- as models


INFERENCES = {"IMM": IMM, "GPB2": GPB2, "RaoBlackwell": lambda: RaoBlackwell(300)}
every_inference = pytest.mark.parametrize("inference", INFERENCES.values(), ids=INFERENCES)


def panel(B=3, steps=6, D=1):
    return series(
        B, steps, D, missing=0.3, shift=normal(B, D, seed=8), scale=normal(B, D, seed=9).exp()
    )


def parts(K=2, D=1, states=2):
    """Transitions and emissions of so many regimes."""
    found = [linear_parts(K, D, seed=10 * i) for i in range(states)]
    return [x for x, _ in found], [x for _, x in found]


def build(inference, K=2, D=1, states=2):
    transitions, emissions = parts(K, D, states)
    model = LatentModel(SwitchingLinear(transitions), ByRegime(emissions), inference())
    return model.double()


def functions(model, s):
    """The tensors of a model, and its data in standardised units."""
    c = model.context(s)
    p = model.transition
    return (
        Model(
            p.regimes.log_initial(c[0]),
            p.regimes.log_transition(c),
            *p.matrices(c),
            *p.initial_moments(c[0]),
            *model.emission.matrices(c),
        ),
        s.normalised,
        s.observed,
    )


class TestSwitchingLinear(TransitionContract):
    batch, steps = 3, 3

    def build(self):
        return SwitchingLinear(parts()[0], context_dim=1)

    def small(self):
        return None

    def context(self, batch, steps):
        return context(batch, steps, covariate_dim=1)


@every_inference
@pytest.mark.parametrize("D", [1, 2])
def test_a_model_of_one_regime_is_that_of_a_kalman_filter(inference, D):
    transition, emission = linear_parts(2, D)
    s = panel(D=D)
    exact = LatentModel(transition, emission, Kalman())
    model = LatentModel(SwitchingLinear([transition]), ByRegime([emission]), inference()).double()
    assert_close(evidence(model, s), evidence(exact, s), **EXACT)
    for found, expected in (
        (model.filter(s), exact.filter(s)),
        (model.smooth(s), exact.smooth(s)),
    ):
        assert_close(found.mean[..., 1:], expected.mean, **EXACT)
        assert_close(found.variance[..., 1:], expected.variance, **EXACT)
        assert_close(found.mean[..., 0], torch.ones(3, 6, dtype=F64), **EXACT)
    last, expected = model.belief(s).latest, exact.belief(s).latest
    assert_close(last.values[0, :, 1:], expected.mean, **EXACT)
    assert_close(last.cov[:, 0, 1:, 1:], expected.cov, **EXACT)


@every_inference
def test_the_evidence_of_a_model_is_that_of_the_paths(inference):
    model, s = build(inference), panel(steps=5)
    system, y, observed = functions(model, s)
    jacobian = (s.observed * s.scale.log()[:, None]).sum((-2, -1))
    for b in range(3):
        exact = enumerate_paths(system, y[b], observed[b])
        found, expected = evidence(model, s)[b], exact.evidence - jacobian[b]
        bound = 1e-9 if isinstance(model.inference, RaoBlackwell) else 0.5
        assert (found - expected).abs() < bound
        if isinstance(model.inference, RaoBlackwell):
            mean = (exact.filtered[:, None] * exact.mean).sum(0)
            state = torch.cat([exact.filtered, mean])
            assert_close(model.filter(s).mean[b, -1], state, **EXACT)


def test_a_linear_emission_reads_the_whole_state():
    transitions, _ = parts(2, 2)
    H, d = normal(2, 4), normal(2, seed=1)
    R = torch.tensor([[0.5, 0.2], [0.2, 0.4]], dtype=F64)
    whole = LatentModel(SwitchingLinear(transitions), LinearGaussian.of(H, d, R), GPB2()).double()
    by_regime = ByRegime([LinearGaussian.of(H[:, 2:], d + H[:, i], R) for i in range(2)])
    model = LatentModel(whole.transition, by_regime, GPB2())
    s = panel(D=2)
    assert_close(evidence(whole, s), evidence(model, s), **EXACT)
    c, z = whole.context(s), whole.prior(s).rsample((4,), seeded())
    one, other = (m.emission.log_prob(s.y, s.observed, z, c) for m in (whole, model))
    assert_close(one, other, **EXACT)
    assert_close(whole.emission(z, c).mean, model.emission(z, c).mean, **EXACT)
    assert_close(whole.emission(z, c).variance, model.emission(z, c).variance, **EXACT)


@every_inference
def test_a_belief_goes_on_from_where_the_filter_stopped(inference, tmp_path):
    model, s = build(inference), panel(steps=7)
    whole = model.belief(s, end=True)
    early = model.belief(s.window(0, 4), end=True)
    early.save(tmp_path / "belief.safetensors")
    early = Belief.load(tmp_path / "belief.safetensors")
    halves = [
        model.update(early.select(i), s.window(4, 7).select(i))
        for i in (torch.tensor([0]), torch.tensor([1, 2]))
    ]
    later = Belief.join(halves)
    for name in ("values", "log_weights", "cov"):
        found, expected = getattr(later.latest, name), getattr(whole.latest, name)
        assert_close(found, expected, **EXACT)
    fresh = Sequences(s.y, torch.zeros_like(s.observed), s.t, s.u, s.codes, s.shift, s.scale)
    nothing = model.belief(fresh, end=False)
    assert not nothing.latest.started.any()
    row = Sequences.of(
        s.y[:, :1], observed=s.observed[:, :1], t=s.t[:, 0:1], shift=s.shift, scale=s.scale
    )
    first = model.update(nothing, row).latest
    expected = model.belief(row, end=True).latest
    means = [(x.log_weights.exp()[..., None] * x.values).sum(0) for x in (first, expected)]
    assert_close(*means, **EXACT)


def test_draws_of_a_belief_have_its_moments():
    model, s = build(GPB2), panel()
    latest = model.belief(s, end=True).latest
    z = latest.draw(20_000, seeded())
    states = model.filter(s)
    assert within(z.mean(0), states.mean[:, -1], standard_error(z), 4.5)
    square = (z - states.mean[:, -1]).square()
    assert within(square.mean(0), states.variance[:, -1], standard_error(square), 5.0)
    assert latest.particles(2, seeded()).shape == (2, 3, 4)
    paths = model.forecast(model.belief(s, end=True), 2, n=20_000, generator=seeded())
    system, _, _ = functions(model, s)
    ahead = states.marginals.regime.probs[:, -1] @ system.log_transition.exp()
    assert within(paths.z[:, :, 0, :2].mean(0), ahead, standard_error(paths.z[:, :, 0, :2]), 4.5)


def test_paths_of_the_prior_score_as_they_are_drawn():
    model, s = build(GPB2), panel()
    z = model.prior(s).rsample((5,), seeded())
    system, _, _ = functions(model, s)
    regime = z[..., :2].argmax(-1)
    before, after = regime[..., :-1], regime[..., 1:]
    x, y = z[..., :-1, 2:], z[..., 1:, 2:]
    loc = (system.F[after] @ x[..., None])[..., 0] + system.b[after]
    distribution = torch.distributions.MultivariateNormal(loc, system.Q[after])
    expected = system.log_transition[before, after] + distribution.log_prob(y)
    assert_close(model.prior(s).log_prob(z)[..., 1:], expected, **EXACT)
    found = detach(model.transition(z[..., :-1, :], model.context(s)[1:]))
    assert_close(found.log_prob(z[..., 1:, :]), expected.detach(), **EXACT)


def test_particles_agree():
    model, s = build(lambda: RaoBlackwell(64)), panel(1)
    rough = LatentModel(model.transition, model.emission, Particles(1000))
    with torch.no_grad():
        found, exact = rough.filter(s, generator=seeded()), model.filter(s)
    assert_close(found.log_evidence.sum(-1), exact.log_evidence.sum(-1), atol=0.4, rtol=0)
    assert_close(found.mean[..., :2], exact.mean[..., :2], atol=0.1, rtol=0)


def test_wrong_parts_are_named():
    transitions, emissions = parts()
    with pytest.raises(TypeError, match=r"IMM needs the transition SwitchingLinear.*Regimes alone"):
        LatentModel(Regimes(2), ByRegime(emissions), IMM())
    with pytest.raises(TypeError, match=r"GPB2 needs an emission that is linear.*found Normal"):
        LatentModel(SwitchingLinear(transitions), Normal(4), GPB2())
    with pytest.raises(TypeError, match=r"ByRegime has 1 emissions for 2 regimes"):
        LatentModel(SwitchingLinear(transitions), ByRegime(emissions[:1]), GPB2())
    with pytest.raises(TypeError, match=r"ForwardBackward.*use IMM, GPB2 or RaoBlackwell"):
        LatentModel(SwitchingLinear(transitions), ByRegime(emissions), ForwardBackward())
    with pytest.raises(TypeError, match=r"not a chain over paths"):
        build(GPB2).posterior(panel())
    with pytest.raises(ValueError, match=r"same width, found \[1, 2\]"):
        SwitchingLinear([LocalLevel(), LocalLinearTrend()])
    with pytest.raises(TypeError, match=r"needs linear transitions.*found Regimes"):
        SwitchingLinear([Regimes(2)])
    with pytest.raises(ValueError, match=r"regimes has 3 states for 2 parts"):
        SwitchingLinear(transitions, regimes=Regimes(3))
    with pytest.raises(ValueError, match=r"n must be a number of particles"):
        RaoBlackwell(0)
    with pytest.raises(TypeError, match=r"LinearGaussian has no loading"):
        SwitchingLinear([LinearGaussianTransition(2)]).loading.row(torch.zeros(0))
    exact = LatentModel(*linear_parts(2, 1), Kalman())
    s = panel()
    with pytest.raises(ValueError, match=r"continues from a belief with regimes"):
        build(GPB2).update(exact.belief(s), later_row(s))


def later_row(s):
    return Sequences.of(s.y[:, :1], t=s.t[:, -1:] + 1, shift=s.shift, scale=s.scale)


def test_infinite_variances_of_the_first_state_are_refused():
    p = SwitchingLinear([LocalLevel(initial_scale=math.inf), LocalLevel(1.0)])
    model = LatentModel(p, LinearGaussian(p.latent_dim, loading=p.loading), GPB2())
    with pytest.raises(ValueError, match=r"proper distribution of its first state.*initial_scale"):
        model.filter(Sequences.of(torch.zeros(1, 3, 1)))


def test_a_fit_finds_the_regimes():
    """A local level that is calm, and at times is not: which is when?"""
    g = seeded(3)
    B, T = 8, 40
    calm = torch.arange(T) // 20 % 2 == 0
    step = torch.where(calm, 0.03, 1.0) * torch.randn(B, T, dtype=F64, generator=g)
    y = step.cumsum(-1) + 0.1 * torch.randn(B, T, dtype=F64, generator=g)
    data = Sequences.of(y[..., None])
    p = SwitchingLinear([LocalLevel(0.1), LocalLevel(0.5)])
    emission = LinearGaussian(p.latent_dim, loading=p.loading, bias=False)
    model = LatentModel(p, emission, GPB2()).double()
    before = evidence(model, data).sum()
    learn = partial(torch.optim.Adam, lr=0.2)
    fit(model, data, evidence, steps=15, optimizer=learn, schedule=None)
    assert evidence(model, data).sum() > before
    with torch.no_grad():
        found = model.smooth(data).mean[..., 1] < 0.5
    assert (found == calm).double().mean() > 0.9


@pytest.mark.parametrize("trend", [False, True])
def test_the_named_model_trains(trend):
    model = zoo.switching(states=2, trend=trend, season_length=4).double()
    data = Sequences.of(normal(3, 12, 1).cumsum(1))
    history = fit(model, data, evidence, steps=4, schedule=None)
    assert history.objective[-1] > history.objective[0]
    assert model.forecast(model.belief(data), 3, n=5).y.isfinite().all()
