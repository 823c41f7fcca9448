"""Makes the weights that ship with the package: networks of several seeds, trained side by side.

    python benchmarks/amortised_weights.py build/amortised            # one process for each seed
    python benchmarks/amortised_weights.py build/amortised --device cuda
    python benchmarks/amortised_weights.py build/amortised --pack     # what is there, as it is

    python benchmarks/amortised_weights.py build/latents --kind latents
    python benchmarks/amortised_weights.py build/recurrent --kind recurrent

A run that was stopped goes on from the checkpoints in its folder. At the end the networks, and a
card of how they were made, are written to ``weights.safetensors`` beside the code that reads them.
"""

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from seqlatent.amortised import Curriculum, Network, Trainer
from seqlatent.amortised.latents import LatentNetwork, LatentTrainer
from seqlatent.amortised.weights import pack_networks
from seqlatent.recurrent import RecurrentNetwork, RecurrentTrainer

PACKAGE = Path(__file__).parent.parent / "seqlatent"


class Kind(NamedTuple):
    """Networks of a kind, and how those that ship are trained."""

    network: type[nn.Module]
    trainer: type[Trainer]
    folder: str
    seeds: tuple[int, ...]
    steps: int
    batch: int
    half: bool = True


KINDS = {
    "forecasts": Kind(Network, Trainer, "amortised", (0, 1), 40_000, 512),
    "latents": Kind(LatentNetwork, LatentTrainer, "amortised/latents", (0,), 18_000, 256),
    "recurrent": Kind(RecurrentNetwork, RecurrentTrainer, "recurrent", (0, 1), 24_000, 256, False),
}


def main() -> None:
    """Trains what is not yet trained, and packs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", type=int, help="train this seed in this process")
    parser.add_argument("--pack", action="store_true", help="train nothing")
    parser.add_argument("--scores", type=Path, help="JSON of scores, for the card")
    parser.add_argument("--kind", choices=KINDS, default="forecasts")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    kind = KINDS[given.kind]
    given.seeds, given.steps = given.seeds or kind.seeds, given.steps or kind.steps
    given.out = given.out or PACKAGE / kind.folder / "weights.safetensors"
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        train(given)
        return
    if not given.pack:
        command = [sys.executable, __file__, *sys.argv[1:], "--one"]
        runs = [subprocess.Popen([*command, str(seed)]) for seed in given.seeds]
        if any([run.wait() for run in runs]):
            sys.exit("a training failed; what it wrote is above")
    pack(given)


def train(given: argparse.Namespace) -> None:
    """One network, from its checkpoint where there is one."""
    torch.set_num_threads(1)
    begun = time.time()

    def report(trainer: Trainer) -> None:
        losses = {k: round(v, 4) for k, v in sorted(trainer.losses.items())}
        print(
            f"seed {given.one}: step {trainer.step} of {trainer.steps}, {trainer.seconds / 60:.1f} "
            f"minutes of the processor, {(time.time() - begun) / 60:.1f} of the clock; {losses}",
            flush=True,
        )

    kind = KINDS[given.kind]
    trainer = kind.trainer(
        Curriculum(batch=kind.batch),
        steps=given.steps,
        seed=given.one,
        device=given.device,
        half=kind.half,
    )
    trainer.run(_checkpoint(given.folder, given.one), report=report)


def _checkpoint(folder: Path, seed: int) -> Path:
    return folder / f"seed{seed}.pt"


def pack(given: argparse.Namespace) -> None:
    """Writes the averaged weights of the checkpoints, and the card."""
    kind = KINDS[given.kind]
    networks, steps, minutes = [], [], []
    for seed in given.seeds:
        state = torch.load(_checkpoint(given.folder, seed), weights_only=True)
        network = kind.network()
        network.load_state_dict({k: v.cpu() for k, v in state["averaged"].items()})
        networks.append(network)
        steps.append(state["step"])
        minutes.append(round(state["seconds"] / 60, 1))
    learned_from = Curriculum(batch=kind.batch)
    card = {
        "seeds": list(given.seeds),
        "steps": steps,
        "minutes": minutes,
        "parameters": sum(p.numel() for network in networks for p in network.parameters()),
        "batch": learned_from.batch,
        "seasons": {"x".join(map(str, s)): w for s, w in learned_from.seasons.items()},
        "prior": _plain(learned_from.prior),
        "torch": torch.__version__,
    }
    if given.scores is not None:
        card["scores"] = json.loads(given.scores.read_text())
    data = pack_networks(networks, card)
    given.out.write_bytes(data)
    print(f"{given.out}: {len(data) / 2**20:.1f} MiB, sha256 {hashlib.sha256(data).hexdigest()}")


def _plain(value: object) -> object:
    """A dataclass of the prior, as plain values that name its class."""
    if dataclasses.is_dataclass(value):
        held = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **held}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


if __name__ == "__main__":
    main()
