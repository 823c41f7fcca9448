"""Your own model in 40 lines: stochastic volatility at irregular times with missing values.

The log variance is an Ornstein-Uhlenbeck process, exact over any gap; a return is normal with that
variance. Two small classes say so, the rest is the package: an encoder, the tilted posterior, fit.
"""

import os

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from seqlatent.datasets import stochastic_volatility
from seqlatent.distributions import diagonal_normal
from seqlatent.emissions import Emission
from seqlatent.inference import Amortised, Encoder, Particles, SmoothingEncoder, Tilted
from seqlatent.model import LatentModel
from seqlatent.networks import MinGRU
from seqlatent.objectives import elbo, evidence
from seqlatent.sequences import Context
from seqlatent.training import fit
from seqlatent.transitions import DiagonalTransition


class LogVariance(DiagonalTransition):
    """dz = (mean - z) / time dt + noise, with its stationary distribution at the start."""

    handles_gaps = True
    log_scales = ("log_scale",)

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 1
        self.mean = nn.Parameter(torch.zeros(1))
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.log_time = nn.Parameter(torch.full((1,), 2.0))

    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_scale.exp()

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        a = torch.exp(-c.dt / self.log_time.exp())
        return a, (1 - a) * self.mean, self.log_scale.exp() * (1 - a**2).sqrt()


class Returns(Emission):
    """y ~ N(0, exp(z))."""

    obs_dim = 1

    def forward(self, z: Tensor, c: Context) -> Distribution:
        return diagonal_normal(torch.zeros_like(z), c.scale * torch.exp(z / 2))


def main() -> None:
    """Simulates, fits, and compares with the truth."""
    generator = torch.Generator().manual_seed(0)
    data = stochastic_volatility(
        batch=64, steps=200, irregular=True, missing=0.3, generator=generator
    )
    encoder = SmoothingEncoder(MinGRU(Encoder.input_dim(1), 32), MinGRU(Encoder.input_dim(1), 32))
    model = LatentModel(LogVariance(), Returns(), Amortised(encoder, Tilted(encoder.out_dim, 1)))
    steps = 30 if os.environ.get("SEQLATENT_FAST") else 500
    history = fit(model, data.sequences, elbo, steps=steps, batch_size=32)
    print(data.sequences, history, sep="\n")

    states = model.smooth(data.sequences, generator=generator)
    pair = torch.stack([states.mean.flatten(), data.states.flatten()])
    print(f"correlation of smoothed and true log variance {torch.corrcoef(pair)[0, 1]:.3f}")
    particles = LatentModel(model.transition, model.emission, Particles(500))
    with torch.no_grad():
        bound = elbo(model, data.sequences, samples=20, generator=generator).mean()
        estimate = evidence(particles, data.sequences, generator=generator).mean()
    print(f"evidence per series: bound {bound:.2f}, particle estimate {estimate:.2f}")


if __name__ == "__main__":
    main()
