"""Your own model, emission and baseline behind a forecaster, each in a few lines.

A damped walk that leans to a level of its own, values with Laplace noise, and the climatology of a
season: the first two make a Spec, the third is an Engine. Both stand beside models of the package,
are scored in one backtest, saved, loaded and fitted again; their contracts say what they owe.
"""

import os
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace

from seqlatent import LatentModel, elbo
from seqlatent.datasets import elnino
from seqlatent.emissions import Emission
from seqlatent.forecasting import (
    DataSummary,
    Engine,
    FitOptions,
    Forecaster,
    Future,
    Panel,
    Spec,
    WindowTraining,
    metrics,
    register,
)
from seqlatent.inference import Amortised, SmoothingEncoder, Tilted
from seqlatent.networks import MinGRU
from seqlatent.sequences import Context
from seqlatent.testing import check_emission, check_engine, check_transition
from seqlatent.transitions import DiagonalTransition

FAST = bool(os.environ.get("SEQLATENT_FAST"))


class Leaning(DiagonalTransition):
    """z_t = a z_{t-1} + (1 - a) m + s noise, in several independent coordinates."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.rate = nn.Parameter(torch.linspace(1.0, 4.0, latent_dim))
        self.mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.full((latent_dim,), -1.0))

    def initial_affine(self, c: Context) -> tuple[Tensor, Tensor]:
        return self.mean, torch.ones_like(self.mean)

    def affine(self, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        a = self.rate.sigmoid()
        return a, (1 - a) * self.mean, self.log_scale.exp()


class Sharp(Emission):
    """y ~ Laplace around a linear map of the state and of what is known of the step."""

    def __init__(self, latent_dim: int, obs_dim: int, context_dim: int) -> None:
        super().__init__()
        self.obs_dim = obs_dim
        self.layer = nn.Linear(latent_dim + context_dim, obs_dim)
        self.log_scale = nn.Parameter(torch.full((obs_dim,), -1.0))

    def forward(self, z: Tensor, c: Context) -> Distribution:
        loc = c.shift + c.scale * self.layer(c.features(z))
        return Independent(Laplace(loc, (c.scale * self.log_scale.exp()).expand_as(loc)), 1)


def build(data: DataSummary) -> list[LatentModel]:
    """Two members, which differ in what the seed draws for their layers."""
    members = []
    for _ in range(2):
        width = SmoothingEncoder.input_dim(data.obs_dim, covariate_dim=data.covariate_dim)
        encoder = SmoothingEncoder(MinGRU(width, 16), MinGRU(width, 16))
        emission = Sharp(3, data.obs_dim, data.covariate_dim)
        inference = Amortised(encoder, Tilted(encoder.out_dim, 3))
        members.append(LatentModel(Leaning(3), emission, inference))
    return members


def length(data: DataSummary) -> int:
    """Rows of a training window: five seasons."""
    return 5 * data.season


train = WindowTraining(elbo, steps=10 if FAST else 400, length=length, learning_rate=5e-3)
leaning = Spec("leaning", build, train, scaling="standard")


class Climatology(Engine):
    """Draws whole seasons of the past, as far above or below the last season as they were then."""

    alias = "climatology"

    def fit(self, panel: Panel, fit_options: FitOptions) -> None:
        self.season = (*fit_options.season_lengths, 1)[0]

    def start(self, panel: Panel, seed: int) -> list[np.ndarray]:
        return [self._seasons(panel.y[panel.series(i)]) for i in range(panel.batch)]

    def _seasons(self, y: np.ndarray) -> np.ndarray:
        """Whole seasons up to the last row ``(K, S, D)``, holes filled by the season before."""
        size = self.season
        short = max(size - len(y), 0)
        y = np.pad(y, ((short, 0), (0, 0)), mode="edge")[(len(y) + short) % size :]
        seasons = np.nan_to_num(y.reshape(-1, size, y.shape[1]), nan=float(np.nanmean(y)))
        for k, holes in enumerate(np.isnan(y).reshape(seasons.shape)):
            seasons[k] = np.where(holes, seasons[max(k - 1, 0)], seasons[k])
        return seasons

    def paths(self, state: list[np.ndarray], future: Future, n: int, seed: int) -> np.ndarray:
        drawn = []
        for seasons in state:
            steps = np.diff(seasons, axis=0) if len(seasons) > 1 else 0 * seasons
            pick = np.random.default_rng(seed).integers(len(steps), size=(n, future.horizon))
            step = np.arange(future.horizon)
            change = steps[pick[:, step // self.season], step % self.season]
            drawn.append(seasons[-1, step % self.season] + change)
        return np.stack(drawn, 1)


def main() -> None:
    """Checks the parts, compares them with the package's models, and keeps them."""
    print(f"transition: {len(check_transition(lambda: Leaning(2)))} laws hold")
    print(f"emission: {len(check_emission(lambda dims: Sharp(3, dims, 2)))} laws hold")
    print(f"baseline: {len(check_engine(Climatology))} laws hold")

    df = elnino().tail(180) if FAST else elnino()
    register("sharp", lambda: leaning)  # a name, for the command line and configuration files too
    model = Forecaster(["sharp", Climatology, "seasonal_naive"], seed=1)
    windows = model.cross_validation(df, 12, n_windows=2 if FAST else 5, refit=False, level=[80])
    print(metrics.scores(None, windows, level=[80]))

    model.fit(df)
    with TemporaryDirectory() as folder:
        model.save(folder)
        again = Forecaster.load(folder, engines=[Climatology])
    print(again.predict(3, level=[80]))
    assert again.predict(3).equals(model.predict(3))


if __name__ == "__main__":
    main()
