"""fit in several processes: one launch of two runs every case, and its results are compared here.

Run as a script by torchrun, this file is the program that the processes execute.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from seqlatent.emissions import LinearGaussian
from seqlatent.inference import Amortised, FilteringEncoder, Kalman, Tilted
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU, reinitialise
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit, lbfgs
from seqlatent.transitions import LocalLevel

ADAM = partial(torch.optim.Adam, lr=0.05)


def walks(batch=11, steps=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape, like = (batch, steps, 1), {"generator": g, "dtype": torch.float64}
    y = torch.randn(shape, **like).cumsum(1) + torch.randn(shape, **like)
    return Sequences.of(y, observed=torch.rand(shape, generator=g) > 0.1)


def level(inference=None):
    transition = LocalLevel(0.3)
    emission = LinearGaussian(1, loading=transition.loading, bias=False)
    return LatentModel(transition, emission, inference or Kalman()).double()


def neural():
    encoder = FilteringEncoder(MinGRU(3, 4, layers=1))
    model = level(Amortised(encoder, Tilted(4, 1), particles=5))
    reinitialise(model.inference, torch.Generator().manual_seed(1))
    model.unused = torch.nn.Parameter(torch.ones(3).double())
    return model


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def plain():
    """Uneven shares of uneven batches, held-out evaluation, averaged weights."""
    model = level()
    data, held = walks(), walks(5, seed=1)
    return model, fit(
        model, data, evidence, validation=held, steps=8, batch_size=5, optimizer=ADAM, average=0.9
    )


def full():
    model = level()
    return model, fit(model, walks(), evidence, optimizer=lbfgs(), steps=20)


def lonely():
    """Batches of a single series: one rank has nothing to do."""
    model = level()
    return model, fit(model, walks(3), evidence, batch_size=1, steps=5, optimizer=ADAM)


def noisy():
    """Noise differs between ranks, and a parameter is never used."""
    model = neural()
    return model, fit(model, walks(), elbo, steps=4, optimizer=ADAM)


def skipping():
    """A value that is not finite, on the last rank only, at one step."""
    count = iter(range(99))

    def objective(model, sequences):
        values = evidence(model, sequences)
        last = dist.get_world_size() - 1 if dist.is_initialized() else 0
        wrong = next(count) == 1 and rank() == last
        return values * torch.nan if wrong else values

    model = level()
    return model, fit(model, walks(), objective, steps=3, optimizer=ADAM, schedule=None)


def stopping():
    """A callback that asks to stop, on the last rank only."""
    model = level()

    def callback(history):
        last = dist.get_world_size() - 1 if dist.is_initialized() else 0
        return rank() == last and history.steps == 2

    return model, fit(model, walks(), evidence, steps=9, optimizer=ADAM, callback=callback)


CASES = {f.__name__: f for f in (plain, full, lonely, noisy, skipping, stopping)}
EXACT = ("plain", "full", "lonely", "skipping", "stopping")


def solve(case):
    model, history = CASES[case]()
    return {
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "objective": torch.tensor(history.objective, dtype=torch.float64),
        "validation": torch.tensor(history.validation, dtype=torch.float64),
        "best_step": history.best_step,
        "skipped": history.skipped,
        "stopped": history.stopped,
    }


def main(folder):
    number = int(os.environ["RANK"])
    found = {case: solve(case) for case in CASES}
    assert not dist.is_initialized(), "fit leaves the group that it joined"
    try:
        fit(level(), walks(), lambda m, s: evidence(m, s) * (torch.nan if number else 1), steps=20)
    except FloatingPointError as error:
        found["error"] = str(error)
    dist.init_process_group("gloo")
    solve("plain")
    found["kept"] = dist.is_initialized()
    dist.destroy_process_group()
    torch.save(found, Path(folder) / f"{number}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two ranks found."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, __file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stdout
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_ranks_end_with_the_same_weights_and_history(both, case):
    one, two = (found[case] for found in both)
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, two[name], rtol=0, atol=0, equal_nan=True)
        else:
            assert value == two[name]


@pytest.mark.parametrize("case", EXACT)
def test_two_processes_do_what_one_does(both, case):
    alone, together = solve(case), both[0][case]
    for name, value in alone.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, together[name], rtol=1e-6, atol=1e-6, equal_nan=True)
        else:
            assert value == together[name]


def test_ranks_draw_different_noise(both):
    alone, together = solve("noisy"), both[0]["noisy"]
    assert not torch.allclose(alone["objective"], together["objective"], rtol=1e-6)
    torch.testing.assert_close(alone["weights"][:3], torch.ones(3).double())
    torch.testing.assert_close(together["weights"][:3], torch.ones(3).double())


def test_ten_steps_in_a_row_fail_on_every_rank(both):
    assert "it is nan for series 1 and 4 more" in both[1]["error"]
    assert "or its value in another process" in both[0]["error"]


def test_a_group_that_was_there_before_is_left_in_place(both):
    assert both[0]["kept"]
    assert both[1]["kept"]


if __name__ == "__main__":
    main(sys.argv[1])
