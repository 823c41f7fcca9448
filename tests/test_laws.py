"""Laws that hold for every model and all data: searched for exceptions with hypothesis."""

import torch
from batches import F64, close, gaps, normal, seeded, series
from hypothesis import given
from hypothesis import strategies as st
from small_models import (
    Curved,
    Mean,
    Remembering,
    Reverting,
    amortised,
    linear_parts,
    memory,
)

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Combiner, Kalman, Particles
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, evidence, fivo, iwae
from seqlatent.sequences import Sequences
from seqlatent.transitions import LocalLinearTrend, OrnsteinUhlenbeck, Seasonal, Sum

K, D, U = 2, 2, 1


def reverting():
    return Reverting(*(0.3 + normal(K, seed=i).abs() for i in range(3)))


def exact():
    return LatentModel(reverting(), linear_parts(K, D)[1], Kalman())


def structural():
    p = Sum([LocalLinearTrend(), Seasonal(3)])
    return LatentModel(p.double(), LinearGaussian(p.latent_dim, D, loading=None).double(), Kalman())


def remembering():
    past = memory(D, lags=(1, 3), covariate_dim=U)
    q = amortised("Tilted", "smoothing", K, D, covariate_dim=U, memory_dim=4)
    return LatentModel(Curved(K, 4 + U), Mean(K, D, 4 + U), q, past)


def filtering():
    q = amortised("Combiner", "filtering", K, D, covariate_dim=U)
    return LatentModel(Curved(K, U), Mean(K, D, U), q)


def carried():
    q = amortised("Combiner", "filtering", K, D, covariate_dim=U)
    q.posterior = Combiner(q.encoder.out_dim, K, carry_dim=3).double()
    return LatentModel(Remembering(K, 3), Mean(K + 3, D, U), q)


def parallel():
    q = amortised("Parallel", "smoothing", K, D, covariate_dim=U)
    return LatentModel(Curved(K, U), Mean(K, D, U), q)


def particles():
    return LatentModel(reverting(), linear_parts(K, D)[1], Particles(8))


# model, its objective, whether it reads the gaps
CASES = {
    "exact": (exact, evidence, True),
    "structural": (structural, evidence, False),
    "memory": (remembering, elbo, True),
    "filtering": (filtering, elbo, True),
    "carried": (carried, iwae, False),
    "parallel": (parallel, elbo, True),
    "guided": (filtering, fivo, True),
    "particles": (particles, evidence, True),
}
cases = st.sampled_from(sorted(CASES))
seeds = st.integers(0, 1000)
sizes = st.integers(1, 6)


def batch(name, seed, steps=5, B=3, missing=0.4):
    t = gaps(B, steps, seed) if CASES[name][2] else None
    s = series(B, steps, D, missing=missing, seed=seed, covariate_dim=U, t=t)
    return Sequences(
        s.y,
        s.observed,
        s.t,
        s.u,
        s.codes,
        normal(B, D, seed=seed + 5),
        normal(B, D, seed=seed + 6).exp(),
    )


def value(name, s, model=None):
    make, objective, _ = CASES[name]
    torch.manual_seed(0)
    with torch.no_grad():
        return objective(make() if model is None else model, s, generator=seeded())


@given(cases, seeds, sizes, st.integers(1, 4))
def test_appending_unobserved_steps_changes_nothing(name, seed, steps, more):
    s = batch(name, seed, steps)
    close(value(name, s.extend(more)), value(name, s), rtol=1e-9, atol=1e-10)


@given(cases, seeds, sizes)
def test_observing_nothing_is_certain(name, seed, steps):
    s = batch(name, seed, steps)
    nothing = s.hide(torch.ones_like(s.observed))
    close(value(name, nothing), torch.zeros(3, dtype=F64), atol=1e-10)


@given(cases, seeds, sizes)
def test_what_stands_in_missing_cells_is_never_read(name, seed, steps):
    s = batch(name, seed, steps)
    y = torch.where(s.observed, s.y, 1e9)
    poisoned = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
    assert torch.equal(value(name, poisoned), value(name, s))


@given(st.sampled_from(["exact", "structural"]), seeds, sizes)
def test_permuting_or_separating_series_changes_no_evidence(name, seed, steps):
    s = batch(name, seed, steps)
    whole = value(name, s)
    order = torch.tensor([2, 0, 1])
    close(value(name, s.select(order)), whole[order], rtol=1e-9)
    alone = torch.cat([value(name, s.select(slice(b, b + 1))) for b in range(3)])
    close(alone, whole, rtol=1e-9)
    padded = [s.select(slice(0, 1)), s.select(slice(1, 3)).extend(2)]
    close(value(name, Sequences.collate(padded)), whole, rtol=1e-9)


@given(st.sampled_from(["exact", "structural"]), seeds, sizes)
def test_the_evidence_of_a_head_is_the_head_of_the_evidence(name, seed, steps):
    s = batch(name, seed, steps + 2)
    m = CASES[name][0]()
    with torch.no_grad():
        close(
            m.filter(s).log_evidence[:, :steps].sum(-1),
            evidence(m, s.window(0, steps)),
            rtol=1e-9,
            atol=1e-10,
        )


@given(st.sampled_from(["exact", "structural"]), seeds, sizes)
def test_filter_is_smoother_at_the_last_step(name, seed, steps):
    s = batch(name, seed, steps)
    m = CASES[name][0]()
    with torch.no_grad():
        filtered, smoothed = m.filter(s), m.smooth(s)
        close(filtered.mean[:, -1], smoothed.mean[:, -1], rtol=1e-7, atol=1e-8)
        close(filtered.variance[:, -1], smoothed.variance[:, -1], rtol=1e-7, atol=1e-8)


@given(cases, seeds, st.floats(-3, 3), st.floats(0.01, 100))
def test_units_shift_a_bound_by_the_log_jacobian(name, seed, shift, factor):
    s = batch(name, seed)
    y = torch.where(s.observed, s.y * factor + shift, 0.0)
    moved = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift * factor + shift, s.scale * factor)
    if CASES[name][0] is remembering:
        return  # a memory also reads the size of the scale
    jacobian = s.observed.sum((1, 2)) * torch.tensor(factor, dtype=F64).log()
    close(value(name, moved), value(name, s) - jacobian, rtol=1e-8, atol=1e-8)


@given(st.sampled_from(["exact", "filtering", "particles"]), seeds, sizes)
def test_the_future_changes_no_state_before_it(name, seed, stop):
    s = batch(name, seed, 7)
    m = CASES[name][0]()
    later = torch.arange(7)[:, None] >= stop
    poisoned = Sequences(
        torch.where(later, 1e6, s.y),
        s.observed | later,
        s.t,
        torch.where(later, -1e3, s.u),
        s.codes,
        s.shift,
        s.scale,
    )
    with torch.no_grad():
        a, b = (m.filter(x, generator=seeded()) for x in (s, poisoned))
    close(a.mean[:, :stop], b.mean[:, :stop])
    close(a.log_evidence[:, :stop], b.log_evidence[:, :stop])


@given(seeds, st.floats(0.1, 0.9))
def test_an_unobserved_step_within_a_gap_changes_nothing(seed, share):
    torch.manual_seed(seed)
    m = LatentModel(OrnsteinUhlenbeck(K).double(), linear_parts(K, D)[1], Kalman())
    s = batch("exact", seed, 5)
    where = s.t[:, 2] + share * (s.t[:, 3] - s.t[:, 2])

    def insert(x, new):
        return torch.cat([x[:, :3], new[:, None], x[:, 3:]], 1)

    split = Sequences(
        insert(s.y, torch.zeros_like(s.y[:, 0])),
        insert(s.observed, torch.zeros_like(s.observed[:, 0])),
        insert(s.t, where),
        insert(s.u, s.u[:, 0]),
        s.codes,
        s.shift,
        s.scale,
    )
    with torch.no_grad():
        close(evidence(m, split), evidence(m, s), rtol=1e-9)
        a, b = m.smooth(s), m.smooth(split)
        kept = [0, 1, 2, 4, 5]
        close(b.mean[:, kept], a.mean, rtol=1e-7, atol=1e-9)
        close(b.variance[:, kept], a.variance, rtol=1e-7, atol=1e-9)
        x, y = m.belief(s, end=True).latest, m.belief(split, end=True).latest
        close(x.mean, y.mean, rtol=1e-8, atol=1e-9)
        close(x.cov, y.cov, rtol=1e-8, atol=1e-9)


@given(st.sampled_from(["exact", "structural"]), seeds, st.integers(1, 6))
def test_evidence_is_a_sum_over_beliefs(name, seed, cut):
    # the chain rule: what the rest adds, given the belief at the cut
    s = batch(name, seed, 7)
    m = CASES[name][0]()
    with torch.no_grad():
        whole = m.filter(s)
        belief = m.belief(s.window(0, cut), end=True)
        for t in range(cut, 7):
            belief = m.update(belief, s.window(t, t + 1))
    close(belief.latest.mean, whole.mean[:, -1], rtol=1e-7, atol=1e-8)
    variance = belief.latest.cov.diagonal(dim1=-2, dim2=-1)
    close(variance, whole.variance[:, -1], rtol=1e-7, atol=1e-8)


@given(cases, seeds, st.integers(1, 3))
def test_forecasts_are_prefixes_of_longer_ones(name, seed, more):
    s = batch(name, seed)
    torch.manual_seed(0)
    m = CASES[name][0]()
    belief = m.belief(s, generator=seeded())
    u = normal(3, 2 + more, U, seed=seed)
    short = m.forecast(belief, 2, n=3, u=u[:, :2], generator=seeded())
    long = m.forecast(belief, 2 + more, n=3, u=u, generator=seeded())
    close(short.z, long.z[..., :2, :])
