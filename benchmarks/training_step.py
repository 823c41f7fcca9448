"""How long does one step of training take, beside the same model written the usual way?

One step is: gradients to zero, objective, backward, clip, optimiser; single precision, one thread.
`deep_markov` meets Pyro's deep Markov model, `srnn` and `vrnn` meet scripts in plain torch that
autograd records step by step. All contestants of a table take turns within each round; times are
of the processor, so a busy machine shifts them less.

    python benchmarks/training_step.py [--repeats 9] [--quick]
"""

import statistics
from functools import partial
from typing import Any

import pyro
import torch
from peers import plain, pyro_dmm
from stopwatch import Step, arguments, machine, parameter_count, race, ratio, training_step
from torch import Tensor, nn

from seqlatent import objectives, zoo
from seqlatent.emissions import Bernoulli
from seqlatent.inference import Amortised, Combiner, Encoder, Parallel, SmoothingEncoder, Tilted
from seqlatent.model import LatentModel
from seqlatent.networks import Backbone
from seqlatent.sequences import Sequences


class ReluRNN(Backbone):
    """The recurrent network of Pyro's guide, as a backbone of ours."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, hidden_dim
        self.rnn = nn.RNN(in_dim, hidden_dim, nonlinearity="relu", batch_first=True)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        path, _ = self.rnn(x, None if state is None else state[0][None])
        return path, (path,)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        path, _ = self(x[:, None], state)
        return path[:, 0], (path[:, 0],)

    def initial(self, batch_shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, ...]:
        return (like.new_zeros(*batch_shape, self.out_dim),)


class TwoLayerBernoulli(Bernoulli):
    """Bernoulli emission with two hidden layers, as many as Pyro's."""

    def __init__(self, latent_dim: int, obs_dim: int, *, context_dim: int, hidden: tuple[int]):
        super().__init__(latent_dim, obs_dim, context_dim=context_dim, hidden=hidden * 2)


def deep_markov(quick: bool) -> tuple[dict[str, nn.Module], dict[str, Step]]:
    """Pyro's model and ours, 88 binary dimensions as in a piano roll."""
    batch, steps, obs, latent, hidden = (4, 10, 88, 10, 20) if quick else (20, 100, 88, 100, 200)
    y = (torch.rand(batch, steps, obs) < 0.1).float()
    sizes: dict[str, Any] = {"latent_dim": latent, "hidden_dim": hidden}
    ours = partial(zoo.deep_markov, obs, **sizes, emission=TwoLayerBernoulli)
    families = {
        "Parallel": Parallel,
        "Tilted": Tilted,
        "Combiner": partial(Combiner, hidden_dim=hidden),
    }
    models: dict[str, nn.Module] = {"Pyro": pyro_dmm.DeepMarkov(obs, latent, hidden, hidden)}
    for name, posterior in families.items():
        models[f"deep_markov, {name}"] = own = ours(posterior=posterior)
        encoder = SmoothingEncoder(ReluRNN(Encoder.input_dim(obs), hidden))
        inference = Amortised(encoder, posterior(hidden, latent))
        models[f"{name}, Pyro's encoder"] = LatentModel(own.transition, own.emission, inference)
    peer = models["Pyro"]
    assert isinstance(peer, pyro_dmm.DeepMarkov)
    trained = {name: _ours(model, y) for name, model in models.items() if name != "Pyro"}
    checked = pyro_dmm.trainer(peer, y)

    def unchecked() -> None:
        with pyro.validation_enabled(False):
            checked()

    models["Pyro, checks off"] = peer
    return models, {"Pyro": checked, "Pyro, checks off": unchecked, **trained}


def recurrent(quick: bool) -> tuple[dict[str, nn.Module], dict[str, Step]]:
    """Models with a recurrent memory against loops under autograd."""
    batch, steps, obs, latent, hidden = (4, 10, 8, 4, 8) if quick else (32, 168, 8, 16, 64)
    y = torch.randn(batch, steps, obs).cumsum(1) / 10
    sizes: dict[str, Any] = {"latent_dim": latent, "hidden_dim": hidden}
    loops: dict[str, nn.Module] = {
        "plain srnn, GRU cells": plain.SRNN(obs, latent, hidden, fused=False),
        "plain srnn, torch.nn.GRU": plain.SRNN(obs, latent, hidden, fused=True),
        "plain vrnn": plain.VRNN(obs, latent, hidden),
    }
    models: dict[str, nn.Module] = {"srnn": zoo.srnn(obs, **sizes), "vrnn": zoo.vrnn(obs, **sizes)}
    runs = {name: training_step(model, partial(model, y)) for name, model in loops.items()}
    runs |= {name: _ours(model, y) for name, model in models.items()}
    return loops | models, runs


def _ours(model: nn.Module, y: Tensor) -> Step:
    return training_step(model, partial(objectives.elbo, model, Sequences.of(y)))


def _table(
    models: dict[str, nn.Module], times: dict[str, list[float]], rivals: dict[str, str]
) -> None:
    print("\n| | parameters | median ms | least ms | times as fast | as |")
    print("|---" * 6 + "|")
    for name, own in times.items():
        rival = rivals.get(name)
        beside = f"{ratio(times, rival, name):.2f} | {rival}" if rival else "1 | itself"
        print(
            f"| {name} | {parameter_count(models[name]):,} | {statistics.median(own):.0f} "
            f"| {min(own):.0f} | {beside} |"
        )


def main() -> None:
    """Prints two tables and their conclusion."""
    options = arguments(__doc__, repeats=9)
    print(machine())
    models, runs = deep_markov(options.quick)
    markov = race(runs, options.repeats)
    ours = [name for name in runs if not name.startswith("Pyro")]
    _table(models, markov, dict.fromkeys(["Pyro, checks off", *ours], "Pyro"))
    models, runs = recurrent(options.quick)
    other = race(runs, options.repeats)
    cells, layer, loop = (name for name in runs if name.startswith("plain"))
    _table(models, other, {layer: cells, "srnn": cells, "vrnn": loop})
    found = [ratio(markov, "Pyro", name) for name in ours]
    print(
        f"\nA training step of deep_markov is {min(found):.1f} to {max(found):.1f} times as fast "
        f"as Pyro's, one of srnn {ratio(other, layer, 'srnn'):.1f} to "
        f"{ratio(other, cells, 'srnn'):.1f} times and one of vrnn {ratio(other, loop, 'vrnn'):.1f} "
        "times as fast as a loop in plain torch."
    )


if __name__ == "__main__":
    main()
