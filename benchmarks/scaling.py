"""Does a training step cost the same per time step, however long the series?

Milliseconds of one training step of models of the zoo, divided by the number of time steps T, for
four series; single precision (double for exact inference), one thread, medians of processor time.
Cost that grows is the usual price of a path that autograd sees written step by step.

    python benchmarks/scaling.py [--repeats 3] [--quick]
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from stopwatch import arguments, machine, race, training_step

from seqlatent import objectives, zoo
from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences

BATCH, OBS_DIM = 4, 2
LENGTHS = (64, 256, 1024, 4096)
MODELS: dict[str, Callable[[], LatentModel]] = {
    "structural": partial(zoo.structural, trend=True, season_length=12),
    "deep_state": partial(zoo.deep_state, season_length=12),
    "deep_markov": partial(zoo.deep_markov, OBS_DIM),
    "srnn": partial(zoo.srnn, OBS_DIM),
    "vrnn": partial(zoo.vrnn, OBS_DIM),
    "latent_ode": partial(zoo.latent_ode, OBS_DIM),
}
EXACT = ("structural", "deep_state")


def milliseconds(name: str, steps: int, repeats: int) -> float:
    """Median time of a training step, per time step."""
    exact = name in EXACT
    y = torch.randn(BATCH, steps, 1 if exact else OBS_DIM).cumsum(1) / 10
    model = MODELS[name]()
    if exact:
        model, y = model.double(), y.double()
    objective = objectives.evidence if exact else objectives.elbo
    step = training_step(model, partial(objective, model, Sequences.of(y)))
    return statistics.median(race({name: step}, repeats)[name]) / steps


def main() -> None:
    """Prints the table and its conclusion."""
    options = arguments(__doc__, repeats=3)
    lengths = LENGTHS[:2] if options.quick else LENGTHS
    print(machine())
    print("\n| ms per time step, T = | " + " | ".join(map(str, lengths)) + " | last / best |")
    print("|---" * (len(lengths) + 2) + "|")
    growth = {}
    for name in MODELS:
        costs = [milliseconds(name, steps, options.repeats) for steps in lengths]
        growth[name] = costs[-1] / min(costs)
        cells = " | ".join(f"{cost:.3f}" for cost in costs)
        print(f"| {name} | {cells} | {growth[name]:.2f} |", flush=True)
    worst = max(growth, key=growth.__getitem__)
    print(
        f"\nAt {lengths[-1]} steps a time step costs at most {growth[worst]:.1f} times what it "
        f"costs at the cheapest length ({worst})."
    )


if __name__ == "__main__":
    main()
