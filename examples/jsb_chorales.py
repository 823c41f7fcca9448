"""A deep Markov model on the JSB chorales, the standard set of polyphonic music.

Trains on 229 chorales, keeps the weights that do best on the 76 held out, and reports the bound
on the 77 test chorales in nats per step: sum of bounds over sum of lengths, the normaliser of the
deep Markov model's paper (Krishnan et al., 2017), which has 6.93 with 5,000 epochs.
"""

import argparse
import os
from functools import partial

import torch

from seqlatent.datasets import piano_rolls
from seqlatent.diagnostics import latent_use
from seqlatent.emissions import Bernoulli
from seqlatent.inference import Combiner, Parallel, Tilted
from seqlatent.model import LatentModel
from seqlatent.objectives import annealing, divergence, elbo
from seqlatent.sequences import Sequences
from seqlatent.training import fit
from seqlatent.zoo import deep_markov

POSTERIORS = {
    "parallel": lambda width: partial(Parallel, hidden=(width,)),
    "tilted": lambda width: partial(Tilted, hidden=(width,)),
    "combiner": lambda width: partial(Combiner, hidden_dim=width),
}


def batches(pieces: Sequences, size: int):
    """Returns a sampler of pieces of similar length, so that little of a batch is padding."""
    lengths = pieces.last + 1

    def draw(generator: torch.Generator) -> Sequences:
        jitter = 8 * torch.randn(pieces.batch, generator=generator)
        order = (lengths + jitter).argsort()
        start = int(torch.randint(pieces.batch - size + 1, (), generator=generator))
        chosen = order[start : start + size]
        return pieces.select(chosen).window(0, int(lengths[chosen].max()))

    return draw


def nats_per_step(model: LatentModel, pieces: Sequences, samples: int = 20) -> tuple[float, float]:
    """Returns minus the bound, and its divergence, per time step."""
    generator = torch.Generator().manual_seed(1)
    bound = kl = 0.0
    with torch.no_grad():
        for start in range(0, pieces.batch, 20):
            some = pieces.select(slice(start, start + 20))
            bound += elbo(model, some, samples=samples, generator=generator).sum().item()
            q = model.posterior(some)
            path = q.rsample((samples,), generator)
            kl += divergence(model, q, path).sum((-2, -1)).mean(0).sum().item()
    steps = (pieces.last + 1).sum().item()
    return -bound / steps, kl / steps


def main() -> None:
    """Trains, selects, reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=20 if os.environ.get("SEQLATENT_FAST") else 8000
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--root", default=os.environ.get("SEQLATENT_DATA"), help="folder of the data"
    )
    parser.add_argument("--posterior", choices=POSTERIORS, default="parallel")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for name, kind, value in (
        ("latent", int, 64),
        ("hidden", int, 192),
        ("rate", float, 2e-3),
        ("decay", float, 0.1),
        ("batch", int, 20),
    ):
        parser.add_argument(f"--{name}", type=kind, default=value)
    options = parser.parse_args()

    pieces = piano_rolls("jsb_chorales", root=options.root)
    torch.manual_seed(options.seed)
    model = deep_markov(
        88,
        latent_dim=options.latent,
        hidden_dim=options.hidden,
        emission=Bernoulli,
        posterior=POSTERIORS[options.posterior](options.hidden),
    )
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {pieces['train']}")
    history = fit(
        model,
        batches(pieces["train"], options.batch),
        elbo,
        validation=pieces["valid"],
        steps=options.steps,
        batch_size=options.batch,
        optimizer=partial(
            torch.optim.AdamW, lr=options.rate, weight_decay=options.decay, betas=(0.95, 0.999)
        ),
        clip=0.05,
        schedules={"kl_weight": annealing(0.1, 1.0, max(options.steps // 8, 1))},
        evaluate_every=max(options.steps // 40, 1),
        average=0.998,
        seed=options.seed,
        progress=not options.quiet,
    )
    print(history)
    for split in ("train", "valid", "test"):
        bound, kl = nats_per_step(model, pieces[split])
        print(f"{split:5s} {bound:6.3f} nats per step, divergence {kl:.3f} ({kl / bound:.0%})")
    generator = torch.Generator().manual_seed(2)
    print(latent_use(model, pieces["test"].select(slice(0, 20)), generator=generator))


if __name__ == "__main__":
    main()
