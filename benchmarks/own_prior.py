"""Does a prior of one's own pay? Networks trained on it beside those that ship with the package.

    python benchmarks/own_prior.py                # ten minutes of training for each process
    python benchmarks/own_prior.py --minutes 2 oscillator

Two processes that somebody may know: a damped oscillation whose period lies between 17 and 23 steps
and is no season, and a tank that is used up and filled again. Fresh panels of each, of five seeds,
are forecast 20 steps ahead: by the shipped networks as they are, by those adapted to the panel, and
by networks that were trained on the prior, as they are. The score is the mean quantile loss of the
levels 0.05, 0.10, ..., 0.95, which is half the CRPS, in units of the process.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from seqlatent.forecasting import Amortised, Forecaster, amortise
from seqlatent.prior import (
    Cycle,
    Level,
    LogUniform,
    Missing,
    Noise,
    Observation,
    StructuralPrior,
    Uniform,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from own_prior import TANK

HORIZON, SERIES, SEEDS = 20, 200, range(100, 105)
LEVELS = np.arange(1, 20) / 20

OSCILLATOR = StructuralPrior(
    components=[
        Level(scale=LogUniform(0.03, 0.5), break_rate=0.0),
        Cycle(period=Uniform(17.0, 23.0), damping=Uniform(0.95, 1.0)),
    ],
    noise=Noise(scale=1.0, heavy=0.0, volatility=0.0, outlier_rate=0.0),
    observation=Observation(weights={"real": 1.0}, offset=0.0, whole=0.0),
    missing=Missing(cells=0.0, blocks=0.0),
)
PRIORS = {"oscillator": OSCILLATOR, "tank": TANK}


def main() -> None:
    """Trains on each prior and prints a table for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(PRIORS))
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        own = amortise(PRIORS[name], minutes=given.minutes, adapt=False)
        models = {
            "shipped": Amortised(adapt=False),
            "shipped, adapted": Amortised(horizon=HORIZON),
            "own prior": own,
        }
        rows = {seed: [scored(m, name, seed) for m in models.values()] for seed in SEEDS}
        loss = pd.DataFrame({s: [x[0] for x in row] for s, row in rows.items()}, list(models))
        covered = [np.mean([row[k][1] for row in rows.values()]) for k in range(len(models))]
        print(f"{name}: quantile loss by seed of the data, and what 80 % intervals cover")
        table = loss.assign(mean=loss.mean(axis=1), covered=covered)
        print(table.round(3).to_string(), flush=True)
        gain = 1 - loss.loc["own prior"].mean() / loss.drop("own prior").mean(axis=1).min()
        print(f"{name}: {given.minutes:g} minutes on its prior lower the loss by {gain:.0%}.\n")


def panel(name: str, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of series of 30 to 150 steps, and what follows ``(N, H)``."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    y = PRIORS[name].sample(SERIES, 150 + HORIZON, generator=generator).y.double().numpy()
    lengths = np.exp(rng.uniform(np.log(30), np.log(150), SERIES)).astype(int)
    parts = [
        pd.DataFrame({"unique_id": i, "ds": np.arange(150 - n, 150), "y": y[i, 150 - n : 150]})
        for i, n in enumerate(lengths)
    ]
    return pd.concat(parts, ignore_index=True), y[:, 150:]


def scored(engine: Amortised, name: str, seed: int) -> tuple[float, float]:
    """Mean quantile loss, and what 80 % intervals cover."""
    df, truth = panel(name, seed)
    model = Forecaster(engine, season_length=1, freq=1).fit(df)
    found = model.predict(HORIZON, quantiles=list(LEVELS))
    columns = [c for c in found.columns if "_ql" in c or "-q" in c]
    q = found[columns].to_numpy().reshape(SERIES, HORIZON, len(LEVELS))
    error = truth[..., None] - q
    loss = np.maximum(LEVELS * error, (LEVELS - 1) * error).mean()
    low, high = q[..., 1], q[..., -2]
    return float(loss), float(((truth >= low) & (truth <= high)).mean())


if __name__ == "__main__":
    main()
