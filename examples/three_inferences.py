"""One model under three inferences: exact, particles, and an encoder trained for it.

The generative parts are built once. Another inference is another LatentModel of the same parts.
"""

import os

import torch

from seqlatent.datasets import linear_gaussian
from seqlatent.diagnostics import inference_gap
from seqlatent.emissions import LinearGaussian as LinearGaussianEmission
from seqlatent.inference import Amortised, Encoder, Kalman, Particles, SmoothingEncoder, Tilted
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU
from seqlatent.objectives import elbo, evidence
from seqlatent.training import fit
from seqlatent.transitions import LinearGaussian


def main() -> None:
    """Compares evidence and smoothed means."""
    generator = torch.Generator().manual_seed(0)
    data = linear_gaussian(
        batch=128, steps=50, latent_dim=2, obs_dim=2, missing=0.3, generator=generator
    )
    truth = data.parameters
    transition = LinearGaussian.of(*(truth[name] for name in ("F", "b", "Q", "m0", "P0")))
    emission = LinearGaussianEmission.of(*(truth[name] for name in ("H", "d", "R")))

    exact = LatentModel(transition, emission, Kalman())
    particles = LatentModel(transition, emission, Particles(500))
    encoder = SmoothingEncoder(MinGRU(Encoder.input_dim(2), 32), MinGRU(Encoder.input_dim(2), 32))
    amortised = LatentModel(transition, emission, Amortised(encoder, Tilted(encoder.out_dim, 2)))
    steps = 30 if os.environ.get("SEQLATENT_FAST") else 600
    print(fit(amortised, data.sequences, elbo, steps=steps, batch_size=64))

    smoothed = exact.smooth(data.sequences)
    with torch.no_grad():
        table = {
            "Kalman, exact": (evidence(exact, data.sequences), smoothed),
            "Particles, estimate": (
                evidence(particles, data.sequences, generator=generator),
                particles.smooth(data.sequences, generator=generator),
            ),
            "Amortised, lower bound": (
                elbo(amortised, data.sequences, samples=20, generator=generator),
                amortised.smooth(data.sequences, generator=generator),
            ),
        }
    print(f"{'inference':24s} {'log evidence':>12s} {'corr. with exact mean':>22s}")
    for name, (value, states) in table.items():
        pair = torch.stack([states.mean.flatten(), smoothed.mean.flatten()])
        print(f"{name:24s} {value.mean():12.3f} {torch.corrcoef(pair)[0, 1]:22.4f}")
    print(inference_gap(amortised, data.sequences, generator=generator))


if __name__ == "__main__":
    main()
