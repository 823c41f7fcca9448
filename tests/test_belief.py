"""The model as a whole: beliefs, their updates and files, forecasts and rollouts."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batches import F64, close, gaps, normal, seeded, series, standard_error, within
from safetensors.torch import save_file
from small_models import (
    Counts,
    Curved,
    Mean,
    Read,
    Remembering,
    Reverting,
    amortised,
    dense_posterior,
    linear_parts,
    memory,
)
from torch import nn

from seqlatent import files, zoo
from seqlatent.inference import Combiner, Kalman, Particles, Prior
from seqlatent.model import Belief, LatentModel
from seqlatent.sequences import Sequences
from seqlatent.transitions.transition import LinearTransition, NoLatent

K, D, U, M = 2, 2, 1, 4


class Driven(LinearTransition):
    """Linear, with an offset that reads memory and covariates, and noise that reads the gap."""

    handles_gaps = True

    def __init__(self, context_dim):
        super().__init__()
        self.latent_dim = K
        self.F = nn.Parameter(0.9 * torch.linalg.qr(normal(K, K))[0])
        self.b = nn.Linear(context_dim, K).double()

    def initial_moments(self, c):
        return self.b(c.features(c.dt[..., :0])), torch.eye(K, dtype=F64)

    def matrices(self, c):
        G = 0.5 * torch.eye(K, dtype=F64) * c.dt[..., None].sqrt()
        return self.F, self.b(c.features(c.dt[..., :0])), G


def past():
    return memory(D, lags=(1, 3), covariate_dim=U, code_sizes=(3,))


def read(seed=5):
    return linear_parts(K, D, seed=seed)[1]


def reverting():
    return Reverting(*(0.3 + normal(K, seed=i).abs() for i in range(3)))


def encoded(posterior, **options):
    q = amortised(posterior, "filtering", K, D, covariate_dim=U, memory_dim=M, particles=6)
    return LatentModel(Curved(K, M + U), Mean(K, D, M + U), q, past())


def carried():
    q = amortised("Combiner", "filtering", K, D, covariate_dim=U, memory_dim=M, particles=6)
    q.posterior = Combiner(q.encoder.out_dim, K, carry_dim=3).double()
    return LatentModel(Remembering(K, 3), Mean(K + 3, D, M + U), q, past())


MODELS = {
    "Kalman": lambda: LatentModel(linear_parts(K, D)[0], read(), Kalman()),
    "Kalman, gaps": lambda: LatentModel(reverting(), read(), Kalman()),
    "Kalman, memory": lambda: LatentModel(Driven(M + U), read(), Kalman(), past()),
    "Tilted": lambda: encoded("Tilted"),
    "Combiner": lambda: encoded("Combiner"),
    "Parallel": lambda: encoded("Parallel"),
    "carried": carried,
    "Particles": lambda: LatentModel(reverting(), read(), Particles(20)),
    "Particles, memory": lambda: LatentModel(
        Curved(K, M + U), Mean(K, D, M + U), Particles(20), past()
    ),
    "Prior": lambda: LatentModel(NoLatent(), Mean(0, D, M + U), Prior(), past()),
}
IRREGULAR = set(MODELS) - {"Kalman", "carried"}


def batch(name, steps=8, B=3, seed=0, t=None):
    s = series(
        B,
        steps,
        D,
        missing=0.3,
        covariate_dim=U,
        seed=seed,
        t=gaps(B, steps) if name in IRREGULAR and t is None else t,
        codes=torch.arange(B)[:, None] % 3,
        shift=normal(B, D, seed=8),
        scale=normal(B, D, seed=9).exp(),
    )
    observed = s.observed.clone()
    observed[:, 3] = False  # rows without any observation in the middle
    observed[0, 4] = False
    observed[0, -1] = True
    return Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)


def fields(belief):
    latest = belief.latest
    named = {n: getattr(belief, n) for n in ("y", "observed", "t", "u", "codes", "shift", "scale")}
    named |= {n: getattr(latest, n) for n in ("mean", "cov", "values", "log_weights", "started")}
    named |= {f"memory {i}": x for i, x in enumerate(belief.memory)}
    named |= {f"encoder {i}": x for i, x in enumerate(latest.encoder)}
    return {n: x for n, x in named.items() if x is not None}


def same(a, b, **tolerance):
    a, b = fields(a), fields(b)
    assert a.keys() == b.keys()
    for name in a:
        close(a[name], b[name], **tolerance)


LOOSE = {"rtol": 1e-8, "atol": 1e-9}


# --- updates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_row_by_row_is_the_belief_of_the_full_series(name):
    m, s = MODELS[name](), batch(name)
    whole = m.belief(s, end=True, generator=seeded())
    generator = seeded()
    belief = m.belief(s.window(0, 2), end=True, generator=generator)
    for t in range(2, 8):
        belief = m.update(belief, s.window(t, t + 1), generator=generator)
    same(belief, whole, **LOOSE)
    generator = seeded()
    belief = m.belief(s.window(0, 2), end=True, generator=generator)
    same(m.update(belief, s.window(2, 8), generator=generator), whole, **LOOSE)


@pytest.mark.parametrize("name", MODELS)
def test_a_belief_that_has_not_started_begins_with_its_first_row(name):
    m, s = MODELS[name](), batch(name)
    nothing = s.window(0, 2).hide(torch.ones(3, 2, D, dtype=torch.bool))
    empty = m.belief(nothing, end=False)
    assert not bool(empty.latest.started.any())
    later = s.window(2, 8)
    found = m.update(empty, later, generator=seeded())
    same(found, m.belief(later, end=True, generator=seeded()), **LOOSE)


@pytest.mark.parametrize("name", ["Kalman", "Kalman, gaps", "Kalman, memory", "Prior"])
def test_each_series_stands_at_its_own_last_observation(name):
    m, s = MODELS[name](), batch(name)
    observed = s.observed.clone()
    observed[1, 5:] = False
    observed[1, 4, 0] = True
    observed[2] = False
    s = Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)
    belief = m.belief(s, end=False)
    assert belief.latest.started.tolist() == [True, True, False]
    assert belief.t.tolist() == [s.t[0, 7].item(), s.t[1, 4].item(), s.t[2, 0].item() - 1]
    for b, stop in ((0, 8), (1, 5)):
        alone = m.belief(s.select(slice(b, b + 1)).window(0, stop), end=False)
        same(belief.select(slice(b, b + 1)), alone, **LOOSE)
    # rows that arrive together, each at the next step of its own series
    t = belief.t[:, None] + 1
    rows = Sequences.of(normal(3, 1, D, seed=3), t=t, u=normal(3, 1, U, seed=4))
    found = m.update(belief, rows)
    for b, stop in ((0, 8), (1, 5)):
        own = rows.select(slice(b, b + 1))
        alone = m.update(m.belief(s.select(slice(b, b + 1)).window(0, stop), end=False), own)
        same(found.select(slice(b, b + 1)), alone, **LOOSE)
    fresh = Sequences(
        rows.y[2:], rows.observed[2:], rows.t[2:], rows.u[2:], s.codes[2:], s.shift[2:], s.scale[2:]
    )
    same(found.select(slice(2, 3)), m.belief(fresh, end=True), **LOOSE)


@pytest.mark.parametrize("name", ["Tilted", "Particles", "carried"])
def test_sampled_beliefs_stand_at_the_last_observation_too(name):
    m, s = MODELS[name](), batch(name)
    observed = s.observed.clone()
    observed[1, 5:] = False
    observed[1, 4, 0] = True
    observed[2] = False
    s = Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)
    belief, end = (m.belief(s, end=end, generator=seeded()) for end in (False, True))
    short = m.belief(s.window(0, 5), end=True, generator=seeded())
    assert belief.latest.started.tolist() == [True, True, False]
    for b, other in ((0, end), (1, short)):
        same(belief.select(slice(b, b + 1)), other.select(slice(b, b + 1)), **LOOSE)
    rows = Sequences.of(normal(3, 1, D), t=belief.t[:, None] + 1, u=normal(3, 1, U))
    updated = m.update(belief, rows, generator=seeded())
    assert bool(updated.latest.started.all())
    for name_, x in fields(updated).items():
        assert bool(x.isfinite().all()), name_


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_begin_after_the_last_row_whether_it_was_observed_or_not(name):
    m, s = MODELS[name](), batch(name)
    observed = s.observed.clone()
    observed[:, 6:] = False
    s = Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)
    belief = m.belief(s, generator=seeded())
    close(belief.t, s.t[:, -1])
    same(belief, m.belief(s, end=True, generator=seeded()), **LOOSE)
    if name == "Kalman":
        mean, cov = moments(linear_parts(K, D)[0], read(), s.extend(3))
        paths = m.forecast(belief, 3, n=4000, u=normal(3, 3, U), generator=seeded())
        for b in range(3):
            have_moments(paths.y[:, b], mean[b, 8:], cov[b, 8:])


def test_a_padded_tail_leaves_the_belief_where_it_was():
    for name in MODELS:
        m, s = MODELS[name](), batch(name)
        same(
            m.belief(s.extend(3), end=False, generator=seeded()),
            m.belief(s, end=False, generator=seeded()),
            **LOOSE,
        )


def test_the_state_without_an_own_filter_is_updated_by_guided_particles():
    transition, emission = linear_parts(K, D, seed=2)
    s = series(3, 6, D, missing=0.2, seed=4)
    exact = LatentModel(transition, emission, Kalman())
    q = amortised("Tilted", "smoothing", K, D, particles=6000, weight=0.3)
    m = LatentModel(transition, emission, q)
    start = exact.belief(s.window(0, 4), end=True)
    truth = exact.belief(s, end=True)
    found = m.update(start, s.window(4, 6), generator=seeded()).latest
    assert found.values.shape == (6000, 3, K)
    mean = (found.log_weights.exp()[..., None] * found.values).sum(0)
    sd = truth.latest.cov.diagonal(dim1=-2, dim2=-1).sqrt()
    assert bool(((mean - truth.latest.mean).abs() < 0.12 * sd).all())


def test_a_two_sided_encoder_filters_its_own_last_state_by_smoothing():
    m = LatentModel(
        Curved(K, U), Mean(K, D, U), amortised("Tilted", "smoothing", K, D, covariate_dim=U)
    )
    s = batch("Curved", t=torch.arange(8.0, dtype=F64))
    z = m.posterior(s).rsample((5,), seeded())
    belief = m.belief(s, generator=seeded())
    close(belief.latest.values, torch.stack([z[:, b, int(s.last[b])] for b in range(3)], 1))
    with pytest.raises(TypeError, match=r"two-sided encoder .*cannot filter.*FilteringEncoder"):
        m.filter(s)
    assert m.smooth(s, generator=seeded()).mean.shape == (3, 8, K)


def test_beliefs_carry_no_gradients():
    for name in MODELS:
        m, s = MODELS[name](), batch(name)
        belief = m.update(m.belief(s.window(0, 5), end=True), s.window(5, 8))
        assert not any(x.requires_grad for x in fields(belief).values()), name


def test_rows_that_do_not_continue_are_refused():
    m, s = MODELS["Kalman"](), batch("Kalman")
    belief = m.belief(s.window(0, 4), end=True)
    with pytest.raises(ValueError, match=r"belief has 3 series, the rows have 2; .*select"):
        m.update(belief, s.window(4, 5).select(slice(0, 2)))
    with pytest.raises(ValueError, match=r"series 0 stands at t=3, and its first row has t=3"):
        m.update(belief, s.window(3, 5))
    with pytest.raises(ValueError, match=r"belief has 1 covariates, the rows have 0"):
        m.update(belief, series(3, 1, D, t=torch.tensor([4.0], dtype=F64)))
    with pytest.raises(ValueError, match=r"ignores the gaps .* found 2 at series 0, step 0"):
        m.update(belief, s.window(5, 6))
    with pytest.raises(ValueError, match=r"emission has 2 observed dimensions.* have 1"):
        m.update(belief, series(3, 1, 1, t=torch.tensor([4.0], dtype=F64), covariate_dim=U))


def test_kalman_does_not_continue_from_particles():
    parts = linear_parts(K, D)
    s = batch("Kalman")
    particles = LatentModel(*parts, Particles(5))
    belief = particles.belief(s.window(0, 4), end=True, generator=seeded())
    with pytest.raises(ValueError, match=r"found one with particles; filter the data again"):
        LatentModel(*parts, Kalman()).update(belief, s.window(4, 5))


def test_particles_continue_from_an_exact_belief():
    parts = linear_parts(K, D)
    s = batch("Kalman")
    exact = LatentModel(*parts, Kalman())
    start = exact.belief(s.window(0, 4), end=True)
    found = LatentModel(*parts, Particles(4000)).update(start, s.window(4, 8), generator=seeded())
    truth = exact.update(start, s.window(4, 8)).latest
    w = found.latest.log_weights.exp()[..., None]
    sd = truth.cov.diagonal(dim1=-2, dim2=-1).sqrt()
    error = ((w * found.latest.values).sum(0) - truth.mean).abs() / sd
    assert bool((error < 0.25).all())


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_belief_is_the_same_belief(name, tmp_path):
    m, s = MODELS[name](), batch(name)
    belief = m.belief(s, generator=seeded())
    path = tmp_path / "belief.safetensors"
    belief.save(path)
    loaded = Belief.load(path)
    a, b = fields(belief), fields(loaded)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)
    u = normal(3, 4, U)
    paths = [m.forecast(x, 4, n=3, u=u, generator=seeded()) for x in (belief, loaded)]
    assert torch.equal(paths[0].y, paths[1].y)
    rows = Sequences.of(normal(3, 1, D), t=belief.t[:, None] + 1, u=normal(3, 1, U))
    updated = [m.update(x, rows, generator=seeded()) for x in (belief, loaded)]
    same(*updated)
    assert [p.name for p in tmp_path.iterdir()] == ["belief.safetensors"]


def saved(tmp_path):
    m = MODELS["Kalman"]()
    path = tmp_path / "belief.safetensors"
    belief = m.belief(batch("Kalman"))
    belief.save(str(path))
    return belief, path


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no belief at .*Belief.save"):
            Belief.load(path)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "text"])
def test_a_damaged_file_says_so(damage, tmp_path):
    _, path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-9], "noise": b"\xff" * len(data), "empty": b"", "text": b"{}"}[damage]
    )
    with pytest.raises(ValueError, match=r"no readable safetensors file .*save it again"):
        Belief.load(path)


@pytest.mark.parametrize("place", range(0, 100, 9))
def test_a_flipped_bit_is_found(place, tmp_path):
    _, path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1 - place] ^= 1 << place % 8
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        Belief.load(path)


def test_a_save_keeps_links_permissions_and_what_is_beside(tmp_path):
    belief, path = saved(tmp_path)
    path.chmod(0o640)
    link, other = tmp_path / "link.safetensors", tmp_path / "belief.safetensors.part"
    link.symlink_to(path)
    other.write_text("mine")
    belief.select(slice(0, 1)).save(link)
    assert link.is_symlink()
    assert other.read_text() == "mine"
    assert path.stat().st_mode & 0o777 == 0o640
    assert Belief.load(path).batch == 1


def test_a_file_that_lacks_a_field_says_which(tmp_path):
    path = tmp_path / "x.safetensors"
    header = {"seqlatent": json.dumps({"kind": "belief", "format": 2})}
    save_file({"y": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(ValueError, match=r"lacks observed, t, .*latest.started; it is damaged"):
        Belief.load(path)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"seqlatent": "nonsense"}, {"seqlatent": "[1]"}]
)
def test_a_foreign_file_says_so(metadata, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"weights.safetensors holds no seqlatent belief"):
        Belief.load(path)


def test_a_newer_format_says_what_to_upgrade(tmp_path):
    path = tmp_path / "x.safetensors"
    header = {"seqlatent": json.dumps({"kind": "belief", "format": 99})}
    save_file({"y": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(ValueError, match=r"has belief format 99, .* reads format 2; upgrade"):
        Belief.load(path)


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    belief, path = saved(tmp_path)
    before = path.read_bytes()

    def fail(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        belief.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["belief.safetensors"]


# --- forecasts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_have_a_shape_and_a_private_source_of_randomness(name):
    m, s = MODELS[name](), batch(name)
    belief = m.belief(s, generator=seeded())
    before = torch.get_rng_state()
    u = normal(3, 5, U)
    a, b = (m.forecast(belief, 5, n=7, u=u, generator=seeded(4)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert a.y.shape == (7, 3, 5, D)
    assert a.z.shape == (7, 3, 5, m.transition.latent_dim)
    assert torch.equal(a.y, b.y)
    assert torch.equal(a.z, b.z)
    assert a.y.dtype == F64
    assert not a.y.requires_grad
    assert not torch.equal(a.y, m.forecast(belief, 5, n=7, u=u, generator=seeded(5)).y)
    assert m.forecast(belief, 1, n=1, u=u[:, :1]).y.shape == (1, 3, 1, D)


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_read_nothing_beyond_the_belief(name):
    m, s = MODELS[name](), batch(name)
    poisoned = Sequences(
        torch.where(torch.arange(8)[:, None] < 6, s.y, 1e9),
        s.observed,
        s.t,
        s.u,
        s.codes,
        s.shift,
        s.scale,
    )
    u = normal(3, 4, U)
    a, b = (
        m.forecast(m.belief(x.window(0, 6), generator=seeded()), 4, n=3, u=u, generator=seeded())
        for x in (s, poisoned)
    )
    assert torch.equal(a.y, b.y)


def test_wrong_forecasts_are_refused():
    m, s = MODELS["Kalman, memory"](), batch("Kalman, memory")
    belief = m.belief(s)
    u = normal(3, 2, U)
    with pytest.raises(ValueError, match=r"horizon must be at least 1 step, found 0"):
        m.forecast(belief, 0, u=u)
    for n in (0, True):
        with pytest.raises(ValueError, match=r"n must be a number of paths of at least 1, found"):
            m.forecast(belief, 2, n=n, u=u)
    with pytest.raises(ValueError, match=r"1 covariates: give those .* as u, shape \(3, 2, 1\)"):
        m.forecast(belief, 2)
    with pytest.raises(ValueError, match=r"u must have shape \(B, H, U\) = \(3, 3, 1\)"):
        m.forecast(belief, 3, u=u)
    with pytest.raises(ValueError, match=r"new times must come after the last one"):
        m.forecast(belief, 2, u=u, t=torch.tensor([0.0, 1.0], dtype=F64))
    regular = MODELS["Kalman"]()
    belief = regular.belief(batch("Kalman"))
    t = belief.t[0] + torch.tensor([1.0, 3.0], dtype=F64)
    with pytest.raises(ValueError, match=r"Matrices ignores the gaps .* found 2 at series 0"):
        regular.forecast(belief, 2, u=u, t=t)


def test_sequences_that_do_not_fit_are_refused():
    m = MODELS["Kalman"]()
    with pytest.raises(ValueError, match=r"Matrices ignores the gaps .* series 0, step 1; put"):
        m.context(series(2, 3, D, t=torch.tensor([0.0, 2.0, 3.0], dtype=F64)))
    with pytest.raises(ValueError, match=r"2 observed dimensions, the sequences have 1"):
        m.context(series(2, 3, 1))
    counts = LatentModel(reverting(), Counts(K), Particles(5))
    y = torch.tensor([[[1.0], [2.5]]], dtype=F64)
    with pytest.raises(ValueError, match=r"Counts expects counts .*found 2.5 at series 0, step 1"):
        counts.context(Sequences.of(y))
    with pytest.raises(ValueError, match=r"ignores the gaps"):
        m.rollout(series(2, 3, D, t=torch.tensor([0.0, 2.0, 3.0], dtype=F64)))


def test_sequences_of_another_precision_are_refused():
    m, s = MODELS["Kalman"](), batch("Kalman")
    with pytest.raises(ValueError, match=r"model is torch.float64 on cpu, .* are torch.float32 on"):
        m.filter(s.to(dtype=torch.float32))
    belief = m.belief(s.window(0, 4), end=True)
    with pytest.raises(ValueError, match=r"sequences.to\(dtype=torch.float64, device='cpu'\)"):
        m.update(belief, s.window(4, 5).to(dtype=torch.float32))


def test_parts_of_the_wrong_kind_are_refused():
    transition, emission = linear_parts(K, D)
    with pytest.raises(TypeError, match=r"Prior infers nothing, and Matrices has 2 latent"):
        LatentModel(transition, emission, Prior())
    check = getattr(LatentModel.__init__, "__wrapped__", LatentModel.__init__)
    for parts, message in (
        ((emission, emission, Kalman()), r"transition must be of class Transition, found Read"),
        ((transition, transition, Kalman()), r"emission must be of class Emission, found Matrices"),
        ((transition, emission, emission), r"inference must be of class Inference, found Read"),
        ((transition, emission, Kalman(), emission), r"memory must be of class Memory, found Read"),
    ):
        with pytest.raises(TypeError, match=message):
            check(LatentModel.__new__(LatentModel), *parts)


def moments(transition, emission, s):
    """Mean and variance of y given what was observed of ``s``, at every step."""
    exact = dense_posterior(transition, emission, s)
    H, d, R = emission.matrices(None)
    scale, shift = s.scale[:, None], s.shift[:, None]
    mean = shift + scale * (exact.mean @ H.T + d)
    variance = (H @ exact.cov @ H.T + R).diagonal(dim1=-2, dim2=-1) * scale.square()
    return mean, variance


def have_moments(y, mean, variance, sigmas=4.5):
    assert within(y.mean(0), mean, standard_error(y), sigmas)
    square = (y - mean).square()
    assert within(square.mean(0), variance, standard_error(square), sigmas)


LINEAR = {
    "no memory": lambda: (*linear_parts(K, D, seed=2), None),
    "a memory that nobody reads": lambda: (*linear_parts(K, D, seed=2), memory(D, hidden_dim=M)),
    "gaps": lambda: (reverting(), read(), None),
}


@pytest.mark.parametrize("name", LINEAR)
def test_forecasts_have_the_moments_of_the_joint_distribution(name):
    transition, emission, past = LINEAR[name]()
    m = LatentModel(transition, emission, Kalman(), past)
    s = series(2, 5, D, missing=0.0, seed=4, shift=normal(2, D), scale=normal(2, D, seed=1).exp())
    t = torch.tensor([5.5, 6.0, 8.0], dtype=F64) if name == "gaps" else None
    with torch.no_grad():
        mean, variance = moments(transition, emission, s.extend(3, t=t))
        paths = m.forecast(m.belief(s), 3, n=4000, t=t, generator=seeded())
    have_moments(paths.y, mean[:, 5:], variance[:, 5:])


@pytest.mark.parametrize("name", LINEAR)
def test_rollouts_have_the_moments_of_the_prior(name):
    transition, emission, past = LINEAR[name]()
    m = LatentModel(transition, emission, Kalman(), past)
    t = gaps(2, 4) if name == "gaps" else None
    s = series(2, 4, D, seed=4, t=t, shift=normal(2, D), scale=normal(2, D, seed=1).exp())
    nothing = s.hide(torch.ones_like(s.observed))
    with torch.no_grad():
        mean, variance = moments(transition, emission, nothing)
        paths = m.rollout(s, n=4000, generator=seeded())
        again = m.rollout(nothing, n=4000, generator=seeded())
    assert torch.equal(paths.y, again.y)
    assert paths.z.shape == (4000, 2, 4, K)
    have_moments(paths.y, mean, variance)


def test_forecasts_of_particles_have_the_moments_of_the_joint_distribution():
    transition, emission = linear_parts(K, D, seed=2)
    s = series(2, 5, D, missing=0.2, seed=4)
    m = LatentModel(transition, emission, Particles(4000))
    with torch.no_grad():
        belief = m.belief(s, generator=seeded())
        exact = LatentModel(transition, emission, Kalman()).belief(s).latest
        paths = m.forecast(belief, 1, n=4000, generator=seeded())
        mean = exact.mean @ transition.F.T + transition.b
    assert bool(((paths.z[..., 0, :].mean(0) - mean).abs() < 0.15).all())


def test_an_unstarted_belief_forecasts_the_prior():
    transition, emission = linear_parts(K, D, seed=2)
    m = LatentModel(transition, emission, Kalman())
    s = series(2, 4, D, missing=0.0, seed=4)
    observed = s.observed.clone()
    observed[1] = False
    s = Sequences(s.y * observed, observed, s.t, s.u, s.codes, s.shift, s.scale)
    with torch.no_grad():
        paths = m.forecast(m.belief(s, end=False), 2, n=4000, generator=seeded())
        mean, variance = moments(transition, emission, s)
        ahead = moments(transition, emission, s.extend(2))
    have_moments(paths.y[:, 1], mean[1, :2], variance[1, :2])
    have_moments(paths.y[:, 0], ahead[0][0, 4:], ahead[1][0, 4:])


def test_each_path_feeds_its_own_samples_back():
    m, s = MODELS["Prior"](), batch("Prior")
    observed = s.observed.clone()
    observed[:, -1] = True  # every belief stands at the last step
    s = Sequences(s.y, observed, s.t, s.u, s.codes, s.shift, s.scale)
    u = normal(3, 3, U)
    paths = m.forecast(m.belief(s), 3, n=4, u=u, generator=seeded())
    generator = seeded()
    torch.rand(4, 3, generator=generator, dtype=F64)  # picks the states, which are empty
    noise = [torch.randn(4, 3, D, generator=generator, dtype=F64) for _ in range(3)]
    longer = s.extend(3, u=u)
    observed = longer.observed.clone()
    observed[:, 8:] = True
    for i in range(4):
        # the features of a path are those of the past continued by its own values
        y = torch.cat([s.y, paths.y[i]], 1)
        filled = Sequences(y, observed, longer.t, longer.u, s.codes, s.shift, s.scale)
        distribution = m.emission(filled.y[..., :0], m.context(filled))
        for h in range(3):
            expected = distribution.mean[:, 8 + h] + distribution.stddev[:, 8 + h] * noise[h][i]
            close(paths.y[i, :, h], expected, rtol=1e-9)


def test_float32_stays_float32():
    for name in MODELS:
        m, s = MODELS[name]().float(), batch(name).to(dtype=torch.float32)
        if name == "Kalman, memory":
            continue  # Driven writes float64 by hand
        belief = m.belief(s, generator=seeded())
        paths = m.forecast(belief, 2, n=2, u=torch.zeros(3, 2, U), generator=seeded())
        assert paths.y.dtype == torch.float32, name
    assert isinstance(MODELS["Kalman"]().emission, Read)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_one_row_more_is_what_the_filter_finds_after_a_start_of_any_size(scale):
    """A step by itself keeps the digits that a filter of many steps keeps."""
    model = zoo.structural(trend=True, season_length=4).double()
    seeded(0)
    y = normal(2, 12, 1)
    y[1, 7] = torch.nan
    belief = model.belief(Sequences.of(y[:, :6]))
    large = replace(belief.latest, cov=belief.latest.cov * scale)
    by_one = by_two = replace(belief, latest=large)
    for t in range(6, 12, 2):
        rows = Sequences.of(y[:, t : t + 2], t=torch.arange(t, t + 2).double())
        by_two = model.update(by_two, rows)
        for i in (t, t + 1):
            row = Sequences.of(y[:, i : i + 1], t=torch.tensor([float(i)], dtype=F64))
            by_one = model.update(by_one, row)
    torch.testing.assert_close(by_one.latest.mean, by_two.latest.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(by_one.latest.cov, by_two.latest.cov, rtol=1e-7, atol=1e-7)


class Killed(BaseException):
    """A process that ends before anything can be cleaned up."""


def kill(*where):
    raise Killed


@pytest.mark.parametrize("end", ["belief.safetensors", "link"])
def test_a_save_removes_what_killed_saves_left(end, tmp_path, monkeypatch):
    belief, path = saved(tmp_path)
    place = tmp_path / end
    if end == "link":
        place.symlink_to(path)
    other = tmp_path / "other.safetensors"
    for target in (place, place, other):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            patch.setattr(Path, "unlink", lambda self, **options: None)
            with pytest.raises(Killed):
                belief.save(target)
    mine = {"belief.safetensors", end}
    left = [p for p in tmp_path.iterdir() if p.name not in mine]
    assert len(left) == 3
    assert all(files.DRAFT.fullmatch(p.name) for p in left)
    foreign = tmp_path / ".seqlatent-of-mine.part"
    foreign.write_text("kept")
    belief.save(place)
    left = {p.name for p in tmp_path.iterdir()} - mine
    assert len(left) == 2  # that of the other file, and what none of ours is called
    assert foreign.read_text() == "kept"
    belief.save(other)
    assert {p.name for p in tmp_path.iterdir()} == {*mine, other.name, foreign.name}
    assert Belief.load(place).y.equal(belief.y)
