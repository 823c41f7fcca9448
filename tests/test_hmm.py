"""Hidden Markov models against enumeration of all paths, and against statsmodels."""

import itertools

import numpy as np
import pytest
import torch
from batches import normal, series
from small_models import memory
from torch import nn
from torch.distributions import constraints
from torch.testing import assert_close

from seqlatent import hmm, zoo
from seqlatent.distributions import diagonal_normal
from seqlatent.emissions import ByRegime, Emission, NeuralEmission, Normal, Poisson
from seqlatent.inference import ForwardBackward, Particles
from seqlatent.model import LatentModel, one_step
from seqlatent.objectives import elbo, evidence, iwae
from seqlatent.sequences import Context, Sequences
from seqlatent.testing import TransitionContract, context
from seqlatent.training import fit, lbfgs
from seqlatent.transitions import LocalLevel, Regimes

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-10}
FILTERS = (hmm.filter, hmm.filter_scan)
SMOOTHERS = (hmm.smoother, hmm.smoother_scan)
INF = float("inf")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_model(lead=(), steps=5, states=3, *, varying=False, impossible=False, seed=0):
    """Log initial distribution, log transitions and log likelihoods."""
    g = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=F64, generator=g)

    first, ll = normal(*lead, states), 2 * normal(*lead, steps, states)
    M = normal(*lead, steps, states, states) if varying else normal(states, states)
    if impossible:
        first[..., 0] = -INF
        M[..., 1, 0] = -INF
        ll[..., steps // 2, 1] = -INF
    return first.log_softmax(-1), M.log_softmax(-1), ll


def enumerated(first, M, ll):
    """Paths ``(N, T)`` of one series, and log p(path, y)."""
    steps, states = ll.shape
    M = M.expand(steps, states, states)
    paths = torch.tensor(list(itertools.product(range(states), repeat=steps)))
    joint = first[paths[:, 0]] + ll[0, paths[:, 0]]
    for t in range(1, steps):
        joint = joint + M[t, paths[:, t - 1], paths[:, t]] + ll[t, paths[:, t]]
    return paths, joint


KINDS = {
    "constant": {},
    "varying": {"varying": True},
    "impossible": {"impossible": True},
    "impossible and varying": {"varying": True, "impossible": True},
    "one step": {"steps": 1},
    "two steps": {"steps": 2, "varying": True},
    "one state": {"states": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_equals_enumeration(kind):
    first, M, ll = model = random_model(**KINDS[kind])
    steps, states = ll.shape
    paths, joint = enumerated(*model)
    evidence, weights = joint.logsumexp(0), joint.softmax(0)
    one_hot = torch.nn.functional.one_hot(paths, states).to(F64)
    marginal = torch.einsum("n,nti->ti", weights, one_hot)
    pair = torch.einsum("n,nti,ntj->tij", weights, one_hot[:, :-1], one_hot[:, 1:])
    for run in FILTERS:
        filtered = run(*model)
        assert_close(filtered.log_evidence.sum(), evidence, **EXACT)
        assert_close(filtered.log_predicted[0], first, **EXACT)
        for t in range(steps):
            p, x = enumerated(first, M if M.dim() == 2 else M[: t + 1], ll[: t + 1])
            distribution = torch.zeros(states, dtype=F64).index_add(0, p[:, t], x.softmax(0))
            assert_close(filtered.log_prob[t].exp(), distribution, **EXACT)
            assert_close(filtered.log_evidence[: t + 1].sum(), x.logsumexp(0), **EXACT)
    for run in SMOOTHERS:
        smoothed = run(*model)
        assert_close(smoothed.log_prob.exp(), marginal, **EXACT)
        assert_close(smoothed.log_pair.exp(), pair, **EXACT)
        assert_close(smoothed.log_evidence.sum(), evidence, **EXACT)
    assert_close(hmm.log_evidence(*model), evidence, **EXACT)
    best = hmm.viterbi(*model)
    assert_close(best.log_joint, joint.max(), **EXACT)
    assert torch.equal(best.path, paths[joint.argmax()])
    q = hmm.posterior_kernels(*model)
    log_q = q.log_initial[paths[:, 0]]
    for t in range(1, steps):
        log_q = log_q + q.log_transition[t - 1, paths[:, t - 1], paths[:, t]]
    possible = joint > -INF
    assert_close((joint - log_q)[possible], evidence.expand(int(possible.sum())), **EXACT)


@pytest.mark.parametrize("varying", [False, True])
def test_axes_broadcast(varying):
    first, M, ll = random_model((2, 3), 6, varying=varying)
    # shared by series, different between samples; constant in time where it does not vary
    M = M[:, :1] if varying else torch.stack([M, M.flip(-1)])[:, None, None]
    first = first[0]
    for run in (*FILTERS, *SMOOTHERS):
        found = run(first, M, ll)
        for i, j in itertools.product(range(2), range(3)):
            alone = run(first[j], M[i, 0] if varying else M[i, 0, 0], ll[i, j])
            for x, y in zip(found, alone, strict=True):
                assert_close(x[i, j], y, **EXACT)
    path = hmm.viterbi(first, M, ll).path
    assert path.shape == (2, 3, 6)
    assert hmm.log_evidence(first, M, ll).shape == (2, 3)
    assert hmm.sample_paths(first, M, ll, (4, 2)).shape == (4, 2, 2, 3, 6)


def outputs(run, *model):
    """Every output that is finite, one after another; one evidence per step among them."""
    found = run(*model)
    found = found if isinstance(found, tuple) else (found,)
    return torch.cat([x.flatten() for x in found])


@pytest.mark.parametrize("run", [*FILTERS, *SMOOTHERS, hmm.log_evidence])
@pytest.mark.parametrize("kind", ["constant", "varying", "by series", "by step"])
def test_gradients_are_right(run, kind):
    first, M, ll = random_model((2,), 3, 2, varying=kind == "varying")
    if kind == "by series":
        M = torch.stack([M, M.flip(0)])[:, None]
    if kind == "by step":
        M = random_model((), 3, 2, varying=True)[1]
    inputs = [x.clone().requires_grad_() for x in (first, M, ll)]
    assert torch.autograd.gradcheck(lambda *x: outputs(run, *x), inputs)


@pytest.mark.parametrize("run", FILTERS)
def test_the_gradient_in_logarithms_is_that_in_probabilities(run):
    first, M, ll = random_model((2,), 6)
    g = seeded(3)
    weights = [torch.randn(x.shape, dtype=F64, generator=g) for x in run(first, M, ll)]

    def gradients(M):
        inputs = [x.clone().requires_grad_() for x in (first, M, ll)]
        total = sum((w * x).sum() for w, x in zip(weights, hmm.filter(*inputs), strict=True))
        return torch.autograd.grad(total, inputs)

    # a transition of e^-800 is the same as none, but for the loop that it takes
    M = torch.where(torch.eye(3, dtype=F64).roll(1, 0) > 0, -800.0, M)
    close = torch.where(M < -100, -600.0, M)
    for x, y in zip(gradients(M), gradients(close), strict=True):
        assert_close(x, y, **EXACT)


def test_the_gradient_of_the_evidence_is_fishers_identity():
    first, M, ll = (x.requires_grad_() for x in random_model((), 7, impossible=True))
    of_first, of_M, of_ll = torch.autograd.grad(hmm.log_evidence(first, M, ll), (first, M, ll))
    with torch.no_grad():
        smoothed = hmm.smoother(first, M, ll)
    assert_close(of_ll, smoothed.log_prob.exp(), **EXACT)
    assert_close(of_M, smoothed.log_pair.exp().sum(0), **EXACT)
    assert_close(of_first, smoothed.log_prob[0].exp(), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("sparse", [False, True])
def test_extreme_likelihoods_lose_nothing(sparse, dtype):
    first, M, ll = random_model((2,), 40, 3)
    if sparse:  # no way back, and staying put nearly free: a state far behind may win in the end
        M = torch.tensor([[0.0, -3.0, -INF], [-INF, 0.0, -2.0], [-INF, -INF, 0.0]]).to(F64)
        M = M.log_softmax(-1)
    ll = 1e5 * ll.round()
    value = first[:, :, None]
    value = first + ll[:, 0]
    for t in range(1, 40):
        value = (value[..., None] + M).logsumexp(-2) + ll[:, t]
    exact = value.logsumexp(-1)
    model = [x.to(dtype) for x in (first, M, ll)]
    for run in FILTERS:
        filtered = run(*model)
        assert not filtered.log_prob.isnan().any()
        assert_close(filtered.log_evidence.double().sum(-1), exact, rtol=1e-6, atol=0)
        if dtype == F64:
            assert_close(filtered.log_evidence.sum(-1), exact, rtol=1e-13, atol=0)
    assert torch.equal(hmm.filter(*model).log_prob.argmax(-1)[:, -1], value.argmax(-1))


def test_a_missing_step_only_predicts():
    first, M, ll = random_model((2,), 5)
    ll[:, 2] = 0
    filtered = hmm.filter(first, M, ll)
    assert_close(filtered.log_evidence[:, 2], torch.zeros(2, dtype=F64), **EXACT)
    assert_close(filtered.log_prob[:, 2], filtered.log_predicted[:, 2], **EXACT)
    ahead = (filtered.log_prob[:, 1, :, None] + M).logsumexp(-2)
    assert_close(filtered.log_predicted[:, 2], ahead, **EXACT)


@pytest.mark.parametrize("run", [*FILTERS, *SMOOTHERS])
@pytest.mark.parametrize("how", ["the likelihood", "the transition", "the start"])
def test_where_no_state_explains_a_step_the_evidence_is_zero_and_the_filter_goes_on(run, how):
    first, M, ll = random_model((2,), 5)
    at = 0 if how == "the start" else 2
    if how == "the likelihood":
        ll[0, 2] = -INF
    elif how == "the transition":
        M = torch.eye(3, dtype=F64).log()  # no switching, and the only state that is left is lost
        ll[0, 1, 1:] = -INF
        ll[0, 2, 0] = -INF
    else:
        first, ll[0, 0] = torch.eye(3, dtype=F64)[0].log(), torch.tensor([-INF, 0.0, 0.0])
    free = ll.clone()
    free[0, at] = 0
    found, expected = run(first, M, ll), run(first, M, free)
    assert found.log_evidence[0, at] == -INF
    later = torch.arange(5) != at
    assert_close(found.log_evidence[0, later], expected.log_evidence[0, later], **EXACT)
    assert_close(found.log_evidence[1], expected.log_evidence[1], **EXACT)
    assert not any(x.isnan().any() for x in found)
    if run in FILTERS:
        assert_close(found.log_prob.exp(), expected.log_prob.exp(), **EXACT)
    x = ll.clone().requires_grad_()
    e = run(first, M, x).log_evidence
    e[e > -INF].sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[0, at] == 0).all()


def test_paths_go_on_where_the_states_that_are_left_do_not_explain_a_step():
    first, M, ll = random_model((), 4)
    M = torch.eye(3, dtype=F64).roll(1, 1).log()  # one state after the other
    ll[1], ll[2, 2] = torch.tensor([-INF, 0.0, -INF]), -INF  # the second, then not the third
    free = ll.clone()
    free[2] = 0
    found, expected = (hmm.posterior_kernels(first, M, x) for x in (ll, free))
    assert_close(found.log_initial.exp(), expected.log_initial.exp(), **EXACT)
    assert hmm.sample_paths(first, M, ll, (20,), seeded()).unique(dim=0).tolist() == [[0, 1, 2, 0]]
    best = hmm.viterbi(first, M, ll)
    assert best.path.tolist() == [0, 1, 2, 0]
    assert best.log_joint == -INF


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_transitions_that_underflow_keep_their_logarithms(dtype):
    M = torch.tensor([[0.0, -800.0], [-5000.0, 0.0]], dtype=dtype)
    first, ll = torch.tensor([0.0, -INF], dtype=dtype), torch.zeros(3, 2, dtype=dtype)
    expected = torch.tensor([-INF, -800.0, -800.0], dtype=dtype)
    for run in FILTERS:
        found = run(first, M, ll).log_prob[:, 1]
        assert found[0] == -INF
        assert_close(found[1:], expected[1:] + torch.tensor([1.0, 2.0], dtype=dtype).log())


def test_draws_have_the_frequencies_of_the_posterior():
    first, M, ll = random_model((2,), 4, impossible=True)
    n = 20_000
    drawn = hmm.sample_paths(first, M, ll, (n,), seeded())
    assert drawn.shape == (n, 2, 4)
    for b in range(2):
        paths, joint = enumerated(first[b], M, ll[b])
        weights = joint.softmax(0)
        code = 3 ** torch.arange(3, -1, -1)
        share = torch.bincount((drawn[:, b] * code).sum(-1), minlength=len(paths)) / n
        assert torch.equal((paths * code).sum(-1), torch.arange(len(paths)))
        assert ((share - weights).abs() <= 5 * (weights * (1 - weights) / n).sqrt() + 2 / n).all()
    state = torch.get_rng_state()
    assert torch.equal(drawn, hmm.sample_paths(first, M, ll, (n,), seeded()))
    assert torch.equal(state, torch.get_rng_state())


def test_draws_keep_to_rare_and_to_impossible_states():
    first, M, ll = random_model((), 30)
    ll = torch.where(torch.rand(30, 3, generator=seeded(1)) < 0.4, -INF, ll)
    ll[:, 2] = 0
    drawn = hmm.sample_paths(first, M, ll, (500,), seeded())
    assert (ll.expand(500, -1, -1).gather(-1, drawn[..., None]) > -INF).all()


def test_statsmodels_has_the_same_evidence():
    markov = pytest.importorskip("statsmodels.tsa.regime_switching.markov_regression")
    g = np.random.default_rng(0)
    y = np.where(np.arange(80) // 20 % 2 == 0, 0.0, 2.0) + g.standard_normal(80)
    model = markov.MarkovRegression(y, k_regimes=2, switching_variance=True)
    # p[0->0], p[1->0], means, variances
    params = np.array([0.9, 0.2, -0.1, 2.1, 0.8, 1.3])
    M = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64)
    start = torch.tensor([2 / 3, 1 / 3], dtype=F64)  # stationary
    distribution = torch.distributions.Normal(
        torch.tensor([-0.1, 2.1], dtype=F64), torch.tensor([0.8, 1.3], dtype=F64).sqrt()
    )
    ll = distribution.log_prob(torch.as_tensor(y)[:, None])
    assert_close(hmm.log_evidence(start.log(), M.log(), ll).item(), model.loglike(params))
    result = model.smooth(params)
    smoothed = hmm.smoother(start.log(), M.log(), ll).log_prob.exp().numpy()
    np.testing.assert_allclose(smoothed, result.smoothed_marginal_probabilities, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p, M, ll: (p, M, ll[..., :2]), r"number of states S must be the same"),
        (lambda p, M, ll: (p, M.expand(4, 3, 3), ll), r"transition matrix for each step"),
        (lambda p, M, ll: (p, M, ll * torch.nan), r"log_likelihood must hold numbers.*found nan"),
        (lambda p, M, ll: (p, M, ll + INF), r"found inf.*scale of zero"),
        (lambda p, M, ll: (p - INF, M, ll), r"log_initial must leave at least one state"),
        (lambda p, M, ll: (p.expand(3, 3), M, ll.expand(2, 5, 3)), r"do not broadcast"),
        (lambda p, M, ll: (p, M, ll[0]), r"add the axes that lack"),
    ],
)
def test_errors_teach(change, match):
    with pytest.raises(ValueError, match=match):
        hmm.filter(*change(*random_model()))


# --- as models


def coin(P=((0.9, 0.1), (0.2, 0.8)), loc=(-1.0, 2.0), scale=(0.5, 1.0), **kwargs):
    """A Gaussian hidden Markov model of two regimes with known parameters."""
    P = torch.tensor(P, dtype=F64)
    read = [Constant(m, s) for m, s in zip(loc, scale, strict=True)]
    return LatentModel(Regimes.of(P, learn=True), ByRegime(read), ForwardBackward(**kwargs))


class Constant(Emission):
    """A normal distribution that reads nothing but shift and scale."""

    def __init__(self, loc, scale):
        super().__init__()
        self.obs_dim = 1
        self.loc = nn.Parameter(torch.tensor([loc], dtype=F64))
        self.log_scale = nn.Parameter(torch.tensor([scale], dtype=F64).log())

    def forward(self, z, c):
        loc = c.shift + c.scale * self.loc
        scale = (c.scale * self.log_scale.exp()).expand(loc.shape)
        return diagonal_normal(loc.expand(*z.shape[:-1], 1), scale.expand(*z.shape[:-1], 1))


def neural(emission, memory=None, **kwargs):
    torch.manual_seed(1)
    width = 0 if memory is None else memory.out_dim
    emit = emission(3, 1, context_dim=1 + width, hidden=(4,)).double()
    regimes = Regimes(3, context_dim=1 + width, stay=0.6).double()
    with torch.no_grad():
        regimes.head.normal_()
        regimes.transition_logits.normal_()
    return LatentModel(regimes, emit, ForwardBackward(**kwargs), memory)


def panel(model, steps=6):
    covariates = 1 if isinstance(model.emission, NeuralEmission) else 0
    s = series(3, steps, 1, missing=0.3, covariate_dim=covariates, scale=normal(3, 1).exp())
    if model.emission.support is not constraints.real:
        y = (3 * s.y.abs()).round()
        s = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    return s


class TestRegimes(TransitionContract):
    pathwise = False

    def build(self):
        regimes = Regimes(3, stay=0.5, context_dim=2)
        with torch.no_grad():
            regimes.head.fill_(0.3)[0, 1] = -0.5
        return regimes

    def small(self):
        return None

    def context(self, batch, steps):
        return context(batch, steps, memory_dim=1, covariate_dim=1)

    def test_the_state_gets_a_finite_gradient(self):
        pytest.skip("a regime has no neighbourhood")


MODELS = {
    "by regime": coin,
    "normal": lambda **kwargs: neural(Normal, **kwargs),
    "counts": lambda **kwargs: neural(Poisson, **kwargs),
    "autoregressive": lambda **kwargs: neural(
        Normal, memory(1, lags=(1,), covariate_dim=1), **kwargs
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [1, 6])
def test_log_joint_minus_log_posterior_is_the_evidence_on_every_path(name, steps):
    model = MODELS[name]()
    s = panel(model, steps)
    exact = evidence(model, s)
    q, c = model.posterior(s), model.context(s)
    for path in (q.rsample((4,), seeded()), model.prior(s).rsample((4,), seeded())):
        ratio = model.log_joint(path, s, c).sum(-1) - q.log_prob(path).sum(-1)
        assert_close(ratio, exact.expand(4, -1), **EXACT)
    assert_close(model.filter(s).log_evidence.sum(-1), exact, **EXACT)
    assert_close(elbo(model, s, samples=2, generator=seeded()), exact, **EXACT)
    assert_close(iwae(model, s, samples=2, generator=seeded()), exact, **EXACT)
    scanned = LatentModel(
        model.transition, model.emission, ForwardBackward(scan=True), model.memory
    )
    assert_close(evidence(scanned, s), exact, **EXACT)
    for one, other in ((scanned.filter(s), model.filter(s)), (scanned.smooth(s), model.smooth(s))):
        assert_close(one.mean, other.mean, **EXACT)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(value):
        found = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
        ]

    of_exact = gradients(exact)
    for value in (elbo(model, s, samples=3, generator=seeded()), evidence(scanned, s)):
        for x, y in zip(gradients(value), of_exact, strict=True):
            assert_close(x, y, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_a_belief_goes_on_from_where_it_stopped(name):
    model = MODELS[name]()
    s = panel(model, 8)
    whole = model.belief(s, end=True)
    later = model.update(model.belief(s.window(0, 5), end=True), s.window(5, 8))
    for x, y in zip(
        (later.latest.log_weights, later.latest.values),
        (whole.latest.log_weights, whole.latest.values),
        strict=True,
    ):
        assert_close(x, y, **EXACT)
    last = model.filter(s).mean[:, -1]
    assert_close(whole.latest.log_weights.exp().T, last, **EXACT)
    u = torch.zeros(3, 4, s.covariate_dim, dtype=F64)
    paths = model.forecast(later, 4, n=50, u=u, generator=seeded())
    assert paths.y.shape == (50, 3, 4, 1)
    assert ((paths.z == 0) | (paths.z == 1)).all()
    assert (paths.z.sum(-1) == 1).all()


def test_forecasts_have_the_distribution_of_the_chain():
    model = coin()
    s = panel(model, 5)
    belief = model.belief(s, end=True)
    z = model.forecast(belief, 2, n=20_000, generator=seeded()).z
    P = model.transition.log_transition(model.context(s)).exp()
    now = belief.latest.log_weights.exp().T
    for h in range(2):
        now = now @ P
        assert_close(z[:, :, h].mean(0), now.detach(), atol=0.02, rtol=0)


def test_what_is_never_observed_keeps_the_initial_distribution():
    model = coin()
    s = panel(model, 4)
    nothing = Sequences(s.y, torch.zeros_like(s.observed), s.t, s.u, s.codes, s.shift, s.scale)
    belief = model.belief(nothing, end=False)
    assert not belief.latest.started.any()
    assert_close(evidence(model, nothing), torch.zeros(3, dtype=F64), **EXACT)
    fresh = model.update(belief, Sequences.of(torch.ones(3, 1, 1, dtype=F64), t=s.t[:, :1]))
    direct = model.belief(
        Sequences(
            torch.ones(3, 1, 1, dtype=F64),
            torch.ones(3, 1, 1).bool(),
            s.t[:, :1],
            s.u[:, :1],
            s.codes,
            s.shift,
            s.scale,
        )
    )
    assert_close(fresh.latest.log_weights, direct.latest.log_weights, **EXACT)


def test_particles_agree():
    model = coin()
    s = panel(model)
    rough = LatentModel(model.transition, model.emission, Particles(500))
    with torch.no_grad():
        found = rough.filter(s, generator=seeded())
    assert_close(found.mean, model.filter(s).mean.detach(), atol=0.1, rtol=0)
    assert_close(found.log_evidence.sum(-1), evidence(model, s).detach(), atol=0.4, rtol=0)
    smoothed = rough.smooth(s, generator=seeded())
    assert_close(smoothed.mean, model.smooth(s).mean.detach(), atol=0.12, rtol=0)


def test_a_fit_recovers_the_parameters():
    model = coin(P=((0.97, 0.03), (0.06, 0.94)))
    empty = Sequences.of(torch.zeros(20, 100, 1, dtype=F64))
    y = model.rollout(empty, generator=seeded()).y[0]
    guess = coin(P=((0.8, 0.2), (0.2, 0.8)), loc=(-0.5, 0.5), scale=(1.0, 1.0))
    data = Sequences.of(y)
    fit(guess, data, evidence, steps=40, optimizer=lbfgs(), schedule=None)
    assert evidence(guess, data).sum() >= evidence(model, data).sum()
    P = guess.transition.log_transition(guess.context(data)).exp().detach()
    assert_close(P, torch.tensor([[0.97, 0.03], [0.06, 0.94]], dtype=F64), atol=0.02, rtol=0)
    for part, loc, scale in zip(guess.emission.parts, (-1.0, 2.0), (0.5, 1.0), strict=True):
        assert abs(part.loc.item() - loc) < 0.1
        assert abs(part.log_scale.exp().item() - scale) < 0.1
    path = guess.inference.paths(guess, data).path
    assert path.shape == (20, 100)


def test_the_named_model_trains_and_predicts_one_step():
    model = zoo.hidden_markov(states=2, covariate_dim=1, emission=Poisson).double()
    data = panel(model, 12)
    history = fit(model, data, evidence, steps=5, schedule=None)
    assert history.objective[-1] > history.objective[0]
    scores = one_step(model, data, samples=4000, generator=seeded())
    exact = model.filter(data).log_evidence.detach()
    assert_close(scores.log_prob, exact, atol=0.1, rtol=0)


def test_known_probabilities_and_the_stationary_distribution():
    P = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=F64)
    regimes = Regimes.of(P, learn=True)
    c = Context.regular(2, dtype=F64)
    distribution = regimes.initial(c).mean[0]
    assert_close(distribution @ P, distribution, **EXACT)
    assert_close(regimes(torch.eye(3, dtype=F64)[:2], c).mean, P[:2], **EXACT)
    regimes(torch.eye(3, dtype=F64)[:2], c).log_prob(torch.eye(3, dtype=F64)[:2]).sum().backward()
    assert regimes.transition_logits.grad.isfinite().all()
    before = regimes.transition_logits.clone()
    with torch.no_grad():
        regimes.transition_logits.add_(1.0)
    regimes.reset_parameters()
    assert torch.equal(regimes.transition_logits, before)


def test_wrong_parts_are_named():
    with pytest.raises(TypeError, match=r"needs the transition Regimes, found LocalLevel.*Kalman"):
        LatentModel(LocalLevel(), Normal(1), ForwardBackward())
    with pytest.raises(TypeError, match=r"ByRegime has 2 emissions for 3 regimes"):
        LatentModel(Regimes(3), coin().emission, ForwardBackward())
    with pytest.raises(ValueError, match=r"same observed dimensions, found \[1, 2\]"):
        ByRegime([Normal(0, 1), Normal(0, 2)])
    with pytest.raises(ValueError, match=r"same support"):
        ByRegime([Normal(0, 1), Poisson(0, 1)])
    with pytest.raises(TypeError, match=r"ByRegime needs emissions.*found none"):
        ByRegime([])
    with pytest.raises(ValueError, match=r"stay must be a probability"):
        Regimes(2, stay=1.0)
    with pytest.raises(ValueError, match=r"states must be an integer of at least 1"):
        Regimes(0)
    with pytest.raises(ValueError, match=r"rows of probabilities that sum to one"):
        Regimes.of(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"initial must have shape \(2,\)"):
        Regimes.of(torch.eye(2), torch.ones(3) / 3)
