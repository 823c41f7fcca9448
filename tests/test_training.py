"""fit: what it finds, what it keeps, what it leaves alone, and what it refuses."""

import copy
import math
import threading
from functools import partial

import numpy as np
import pytest
import torch

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Amortised, FilteringEncoder, Kalman, Tilted
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU, reinitialise
from seqlatent.objectives import annealing, elbo, evidence
from seqlatent.sequences import Sequences
from seqlatent.training import History, cosine, fit, lbfgs
from seqlatent.transitions import LocalLevel

ADAM = partial(torch.optim.Adam, lr=0.05)


def walks(batch=12, steps=30, *, scale=0.5, noise=1.0, seed=0):
    """Random walks observed with noise, one cell in ten missing."""
    g = torch.Generator().manual_seed(seed)
    shape, like = (batch, steps, 1), {"generator": g, "dtype": torch.float64}
    y = (scale * torch.randn(shape, **like)).cumsum(1) + noise * torch.randn(shape, **like)
    return Sequences.of(y, observed=torch.rand(shape, generator=g) > 0.1)


def level(inference=None, *, scale=1.0, noise=0.5):
    """A local level, exact unless told otherwise."""
    transition = LocalLevel(scale, initial_scale=10.0)
    emission = LinearGaussian(1, loading=transition.loading, bias=False, scale=noise)
    inference = Kalman() if inference is None else inference
    return LatentModel(transition, emission, inference).double()


def neural():
    """The same level under an encoder, whose objective is noisy."""
    encoder = FilteringEncoder(MinGRU(3, 4, layers=1))
    model = level(Amortised(encoder, Tilted(4, 1), particles=5))
    reinitialise(model.inference, torch.Generator().manual_seed(1))
    return model


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def per_cell(model, sequences, objective=evidence):
    with torch.no_grad():
        return (objective(model, sequences).sum() / sequences.observed.sum()).item()


# What it finds


def test_lbfgs_reaches_the_likelihood_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    y = walks(1, 100, scale=38.0, noise=120.0)
    y = Sequences.of(y.y + 900, observed=y.observed)
    model = LatentModel(
        transition := LocalLevel(50.0, initial_scale=1e3),
        LinearGaussian(1, loading=transition.loading, bias=False, scale=50.0),
        Kalman(),
    ).double()
    history = fit(model, y, evidence, optimizer=lbfgs(), steps=50)
    series = torch.where(y.observed, y.y, torch.nan)[0, :, 0].numpy()
    theirs = sm.tsa.UnobservedComponents(series, "local level")
    theirs.ssm.initialize_known([0.0], [[1e6]])
    theirs.ssm.loglikelihood_burn = 0
    best = theirs.fit(disp=False)
    assert history.stopped == "converged"
    assert evidence(model, y).item() >= best.llf - 1e-3
    ours = torch.cat(
        [p.exp().square() for p in (model.emission.noise.log_scale, model.transition.log_scale)]
    )
    torch.testing.assert_close(ours, torch.tensor(best.params), rtol=1e-2, atol=0)


def test_adam_recovers_the_scales_of_a_panel():
    data = walks(60, 60, scale=0.5, noise=1.0)
    model = level()
    fit(model, data, evidence, optimizer=partial(ADAM, lr=0.1), steps=60, batch_size=20)
    assert model.transition.log_scale.exp().item() == pytest.approx(0.5, rel=0.1)
    assert model.emission.noise.log_scale.exp().item() == pytest.approx(1.0, rel=0.1)


def test_the_elbo_of_an_encoder_rises():
    model, data = neural(), walks()
    history = fit(model, data, optimizer=ADAM, steps=40, schedule=None)
    first, last = (sum(history.objective[i : i + 5]) / 5 for i in (0, 35))
    assert last > first + 0.3


def test_lengths_do_not_change_the_step():
    once = walks(4, 20)
    padded = once.extend(13)
    short, long = level(), level()
    for model, data in ((short, once), (long, padded)):
        fit(model, data, evidence, optimizer=partial(torch.optim.SGD, lr=0.1), steps=3)
    torch.testing.assert_close(weights(short), weights(long), rtol=1e-10, atol=0)


def test_a_list_of_lengths_is_one_panel():
    parts = [walks(3, 20), walks(1, 9, seed=1), walks(4, 15, seed=2)]
    a, b = level(), level()
    one = fit(a, parts, evidence, optimizer=lbfgs(), steps=20)
    two = fit(b, Sequences.collate(parts), evidence, optimizer=lbfgs(), steps=20)
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-8, atol=1e-8)
    assert one.objective[-1] == pytest.approx(two.objective[-1], rel=1e-10)


def test_an_epoch_sees_every_series_once_in_batches_of_equal_size():
    data = [walks(7, 10), walks(4, 12, seed=1)]
    whole = Sequences.collate(data)
    seen = []

    def spying(model, sequences):
        seen.append(sequences.y[:, :10, 0].sum(1))
        return evidence(model, sequences)

    fit(level(), data, spying, steps=6, batch_size=4)
    assert [len(s) for s in seen] == [4, 4, 3, 4, 4, 3]
    expected = whole.y[:, :10, 0].sum(1).sort().values
    for epoch in (seen[:3], seen[3:]):
        torch.testing.assert_close(torch.cat(epoch).sort().values, expected)
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))


def test_a_sampler_makes_the_batches():
    data, widths = walks(5, 40), []

    def windows(generator):
        start = int(torch.randint(30, (), generator=generator))
        widths.append(start)
        return data.window(start, start + 10)

    a, b = neural(), neural()
    for model in (a, b):
        fit(model, windows, steps=4)
    assert widths[:4] == widths[4:]
    assert len(set(widths)) > 1
    assert torch.equal(weights(a), weights(b))


# Reproducible, and alone


def test_one_seed_twice_gives_the_same_bits_and_two_seeds_do_not():
    found = []
    for seed in (3, 3, 4):
        model = neural()
        fit(model, walks(), validation=walks(seed=9), steps=6, batch_size=5, seed=seed, average=0.9)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_global_state_is_left_alone():
    model = neural().eval()
    torch.set_grad_enabled(False)
    try:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        fit(model, walks(), validation=walks(seed=1), steps=3)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
        assert (threads, dtype) == (torch.get_num_threads(), torch.get_default_dtype())
        assert not torch.is_grad_enabled()
        assert not model.training
        assert all(p.grad is None for p in model.parameters())
    finally:
        torch.set_grad_enabled(True)


def test_two_threads_do_not_disturb_each_other():
    alone, together = [neural() for _ in range(2)], [neural() for _ in range(2)]
    tasks = [partial(fit, data=walks(seed=i), steps=8, batch_size=5, seed=i) for i in range(2)]
    for task, model in zip(tasks, alone, strict=True):
        task(model)
    threads = [
        threading.Thread(target=task, args=(model,))
        for task, model in zip(tasks, together, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(weights(a), weights(b))


def test_train_and_eval_fit_the_same():
    a, b = neural().train(), neural().eval()
    for model in (a, b):
        fit(model, walks(), steps=3)
    assert torch.equal(weights(a), weights(b))
    assert a.training
    assert not b.training


def test_it_is_silent_and_progress_is_not(capfd):
    fit(level(), walks(), evidence, steps=2)
    assert capfd.readouterr() == ("", "")
    fit(level(), walks(), evidence, validation=walks(seed=1), steps=2, progress=True)
    assert "validation=" in capfd.readouterr().err


# What it keeps


class Hump:
    """A data-free objective whose held-out value peaks on the way: the parameter walks past it."""

    def __init__(self, peak):
        self.peak = peak

    def __call__(self, model, sequences):
        x = next(model.parameters()).sum()
        score = x if torch.is_grad_enabled() else -(x - self.peak).square()
        return score.expand(sequences.batch) * sequences.observed.sum((1, 2))


def walker():
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    return model


WALK = {"optimizer": partial(torch.optim.SGD, lr=1.0), "schedule": None, "evaluate_every": 1}


def test_the_best_weights_are_restored_and_patience_ends_the_run():
    model, data = walker(), walks(3, 4)
    history = fit(model, data, Hump(3.0), validation=data, steps=50, patience=2, **WALK)
    assert weights(model).item() == pytest.approx(3.0)
    assert (history.best_step, history.steps, history.stopped) == (3, 5, "patience")
    assert history.best == pytest.approx(0.0)
    assert history.evaluated == [0, 1, 2, 3, 4, 5]
    assert history.validation == pytest.approx([-9, -4, -1, 0, -1, -4])


def test_without_patience_all_steps_are_made_and_the_best_is_kept_all_the_same():
    model, data = walker(), walks(3, 4)
    history = fit(
        model, data, Hump(-1.0), validation=[data], steps=7, **{**WALK, "evaluate_every": 3}
    )
    assert weights(model).item() == 0.0
    assert history.evaluated == [0, 3, 6, 7]
    assert (history.best_step, history.stopped) == (0, "steps")


def test_weights_whose_score_is_no_number_are_never_the_best():
    def objective(model, sequences):
        value = Hump(2.0)(model, sequences)
        return value if torch.is_grad_enabled() else value * torch.nan

    model, data = walker(), walks(3, 4)
    history = fit(model, data, objective, validation=data, steps=4, **WALK)
    assert history.best_step is None
    assert history.best is None
    assert weights(model).item() == 4.0
    model = walker()
    fit(model, data, objective, validation=data, steps=4, average=0.5, **WALK)
    assert 0.0 < weights(model).item() < 4.0


def test_validation_sees_the_same_noise_each_time_and_no_gradient():
    seen = []

    def noisy(model, sequences, *, generator=None):
        if not torch.is_grad_enabled():
            seen.append(torch.rand(3, generator=generator))
        return evidence(model, sequences)

    data = walks(5, 6)
    fit(level(), data, noisy, validation=data, steps=2, batch_size=2, evaluate_every=1)
    first, second, third = torch.stack(seen).reshape(3, 3, 3)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first[0], first[1])


def test_averaged_weights_are_evaluated_and_kept():
    model, data = walker(), walks(3, 4)
    fit(model, data, Hump(0.0), steps=60, average=0.9, **{**WALK, "evaluate_every": None})
    mean = 0.0
    for i in range(60):
        decay = min(0.9, (1 + i) / (10 + i))
        mean = decay * mean + (1 - decay) * (i + 1)
    assert weights(model).item() == pytest.approx(mean)
    model = walker()
    history = fit(model, data, Hump(20.3), validation=data, steps=60, average=0.9, **WALK)
    assert weights(model).item() == pytest.approx(20.3, abs=0.5)
    assert history.best_step > 21  # the raw weights are there after 20


def test_a_callback_sees_the_history_and_may_end_the_run():
    seen = []

    def callback(history):
        seen.append(history.steps)
        return history.steps == 3

    history = fit(level(), walks(), evidence, steps=9, optimizer=ADAM, callback=callback)
    assert seen == [1, 2, 3]
    assert history.stopped == "callback"


def test_history_reads_well():
    history = fit(level(), walks(), evidence, validation=walks(seed=1), steps=2)
    assert history.seconds > 0
    text = repr(history)
    assert text.startswith("History(steps=2, objective=-")
    assert "(best -" in text
    assert repr(History()) == "History(steps=0, skipped=0, seconds=0.0, stopped='steps')"


# Schedules


def test_the_objective_follows_its_schedule_and_validation_does_not():
    seen = {True: [], False: []}

    def objective(model, sequences, *, kl_weight=7.0):
        seen[torch.is_grad_enabled()].append(kl_weight)
        return evidence(model, sequences)

    fit(
        level(),
        walks(),
        objective,
        validation=walks(seed=1),
        steps=4,
        schedules={"kl_weight": annealing(0.0, 1.0, 2)},
    )
    assert seen[True] == [0.0, 0.5, 1.0, 1.0]
    assert set(seen[False]) == {7.0}


def test_a_keyword_that_is_already_set_may_be_scheduled():
    model = neural()
    objective = partial(elbo, kl_weight=0.5, samples=2)
    history = fit(model, walks(), objective, steps=2, schedules={"kl_weight": lambda step: 0.1})
    assert all(math.isfinite(x) for x in history.objective)


def test_an_objective_that_takes_any_keyword_may_be_scheduled_by_any():
    seen = []

    def objective(model, sequences, **options):
        seen.append(options.keys())
        return evidence(model, sequences)

    fit(level(), walks(), objective, steps=1, schedules={"heat": lambda step: 1.0})
    assert seen == [{"heat", "generator"}]


def test_the_learning_rate_follows_its_schedule():
    model, data = walker(), walks(3, 4)
    options = {"optimizer": partial(torch.optim.SGD, lr=0.5), "steps": 3}
    fit(model, data, Hump(0.0), schedule=lambda step: float(step), **options)
    assert weights(model).item() == pytest.approx(0.5 * (0 + 1 + 2))
    model = walker()
    fit(model, data, Hump(0.0), **options)
    assert weights(model).item() == pytest.approx(0.5 * sum(cosine(3)(i) for i in range(3)))


def test_clip_bounds_the_gradient():
    model, data = walker(), walks(3, 4)
    fit(model, data, Hump(0.0), steps=1, clip=0.25, **{**WALK, "evaluate_every": None})
    assert weights(model).item() == pytest.approx(0.25)
    model = walker()
    fit(model, data, Hump(0.0), steps=1, clip=None, **{**WALK, "evaluate_every": None})
    assert weights(model).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("steps", "warmup"), [(1, None), (5, 0), (40, None), (300, 10)])
def test_cosine_rises_to_one_and_falls(steps, warmup):
    factor = cosine(steps, warmup=warmup)
    factors = [factor(i) for i in range(steps)]
    assert max(factors) == pytest.approx(1.0, abs=1e-3)
    assert all(0 < f <= 1 for f in factors)
    assert factors[-1] == min(factors) or steps == 1 or warmup == 10


# Numbers that are none


def bad_at(wrong_steps, series=1):
    """Evidence that is not a number at some steps, for one series of the batch."""
    count = iter(range(10_000))

    def objective(model, sequences):
        values = evidence(model, sequences)
        if next(count) in wrong_steps:
            values = values.clone()
            values[series] = values[series] * torch.nan
        return values

    return objective


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    model = level()
    objective = bad_at({1, 2})
    history = fit(model, walks(), objective, steps=4, schedule=None, optimizer=ADAM)
    assert history.skipped == 2
    assert [math.isnan(x) for x in history.objective] == [False, True, True, False]
    other = level()
    fit(other, walks(), evidence, steps=2, schedule=None, optimizer=ADAM)
    assert torch.equal(weights(model), weights(other))


def test_a_gradient_that_is_not_finite_is_skipped_too():
    def objective(model, sequences):
        x = next(model.parameters()).sum()
        return (x.abs() + 1).sqrt().expand(sequences.batch) + (x * 0).sqrt()

    model = walker()
    history = fit(model, walks(2, 3), objective, steps=3, validation=walks(2, 3))
    assert history.skipped == 3
    assert weights(model).item() == 0.0
    with pytest.raises(FloatingPointError, match="gradient"):
        fit(model, walks(2, 3), objective, steps=10)


def test_ten_in_a_row_are_an_error_that_names_step_series_and_remedy():
    data = walks(12, 5)
    with pytest.raises(
        FloatingPointError, match=r"10 steps in a row.*step 12: it is nan for series 1"
    ):
        fit(level(), data, bad_at(range(3, 99)), steps=40)
    with pytest.raises(FloatingPointError, match=r"Lower the learning rate .* clip .* scale"):
        fit(level(), data, bad_at(range(99)), steps=40)


def test_the_error_names_the_series_of_the_data_not_of_the_batch():
    data = walks(40, 5)
    data.y[23, 2] = 1e200

    def squared(model, sequences):
        x = next(model.parameters()).sum()
        return x - sequences.y.square().square().sum((1, 2))

    parts = [data.select(slice(0, 10)), data.select(slice(10, 40))]
    with pytest.raises(FloatingPointError, match="-inf for series 23"):
        fit(walker(), parts, squared, steps=10, batch_size=40)
    with pytest.raises(FloatingPointError, match="-inf for series 3 of the batch"):
        fit(walker(), lambda g: data.select(slice(20, 40)), squared, steps=10)


def test_lbfgs_starts_from_a_finite_value_and_turns_back_from_others():
    with pytest.raises(FloatingPointError, match="at step 0: it is nan for series 1"):
        fit(level(), walks(), bad_at(range(99)), steps=3, optimizer=lbfgs())
    model = level()
    fit(model, walks(), bad_at({2, 5}), steps=30, optimizer=lbfgs())
    other = level()
    fit(other, walks(), evidence, steps=30, optimizer=lbfgs())
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-4, atol=1e-4)


def test_lbfgs_fits_a_noisy_objective_under_frozen_noise():
    model = neural()
    history = fit(model, walks(), partial(elbo, samples=4), optimizer=lbfgs(iterations=5), steps=4)
    assert history.objective == sorted(history.objective)
    assert history.objective[-1] > history.objective[0] + 0.3


# Refusals


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"objective": "elbo"}, TypeError, "objective must be a function .* found 'elbo'"),
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1, found 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, found 0"),
        ({"batch_size": True}, ValueError, "batch_size must be .* found True"),
        ({"clip": 0.0}, ValueError, "clip must be a positive"),
        ({"average": 1.0}, ValueError, "average must be a decay between 0 and 1"),
        ({"patience": 2}, ValueError, "patience needs held-out series .* validation="),
        ({"evaluate_every": 2}, ValueError, "evaluate_every needs held-out series"),
        ({"data": torch.zeros(2, 3, 1)}, TypeError, "data must be Sequences.* found Tensor"),
        ({"data": []}, ValueError, "at least one series, found an empty list"),
        ({"data": [walks(), None]}, TypeError, "item 1 is NoneType"),
        (
            {"data": Sequences.of(torch.full((1, 2, 1), torch.nan))},
            ValueError,
            "every cell missing",
        ),
        ({"data": lambda g: torch.zeros(1)}, TypeError, "must return Sequences"),
        ({"data": walks().to(dtype=torch.float32)}, TypeError, r"data.to\(dtype=torch.float64"),
        ({"validation": 3}, TypeError, "validation must be Sequences"),
        (
            {"validation": Sequences.of(torch.zeros(2, 3, 2).double())},
            ValueError,
            "obs_dim is 1 in data, 2 in validation",
        ),
        (
            {"schedules": {"beta": abs}},
            ValueError,
            "names 'beta', which is no keyword .* kl_weight",
        ),
        ({"schedules": {"generator": abs}}, ValueError, "names 'generator'"),
        ({"schedules": {"kl_weight": 0.5}}, TypeError, r"partial\(elbo, kl_weight=0.5\)"),
        ({"schedules": [1]}, TypeError, "schedules must map keywords"),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1)])},
            TypeError,
            "optimizer must be a function",
        ),
        ({"optimizer": "adam"}, TypeError, "found str"),
        (
            {"objective": lambda m, s: evidence(m, s).mean()},
            ValueError,
            r"shape \(12,\), found \(\)",
        ),
        ({"objective": lambda m, s: 1.0}, ValueError, "found float"),
        ({"data": lambda g: walks(), "optimizer": lbfgs()}, TypeError, "L-BFGS reads all data"),
        ({"average": 0.9, "optimizer": lbfgs()}, ValueError, "leave average out"),
        (
            {"schedules": {"kl_weight": abs}, "optimizer": lbfgs()},
            ValueError,
            "leave schedules out",
        ),
    ],
)
def test_a_wrong_argument_is_explained(changes, error, match):
    arguments = {"model": level(), "data": walks(), "steps": 3, **changes}
    with pytest.raises(error, match=match):
        fit(**arguments)


def test_a_model_with_nothing_to_fit_is_refused():
    model = level()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="LatentModel has no parameter that requires a gradient"):
        fit(model, walks(), steps=1)


def test_warmup_must_leave_steps():
    with pytest.raises(ValueError, match="between 0 and steps - 1 = 4, found 5"):
        cosine(5, warmup=5)


def test_frozen_parameters_stay():
    model = level()
    model.transition.requires_grad_(False)
    before = copy.deepcopy(model.transition.state_dict())
    fit(model, walks(), evidence, steps=3)
    torch.testing.assert_close(dict(model.transition.state_dict()), dict(before))


def test_it_moves_the_model_to_a_device_that_is_asked_for():
    model = level()
    fit(model, walks(), evidence, steps=1, device="cpu")
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.gpu
def test_it_fits_on_an_accelerator():
    model = neural()
    history = fit(model, walks(), validation=walks(seed=1), steps=5, device="cuda")
    assert next(model.parameters()).is_cuda
    assert all(math.isfinite(x) for x in history.objective)
