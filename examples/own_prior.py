"""A forecaster for a process that you know: a prior of your own, and networks that learn from it.

Run it with ``python examples/own_prior.py``. A tank is used up at a rate of its own and filled when
it is empty, at no fixed time: no model of level, slope and season says so, and a dozen lines do.
"""

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from seqlatent.forecasting import Amortised, Forecaster, amortise
from seqlatent.prior import (
    ComponentPrior,
    Grid,
    LogUniform,
    Missing,
    Noise,
    Observation,
    Part,
    Scalar,
    StructuralPrior,
)

FAST = bool(os.environ.get("SEQLATENT_FAST"))
HORIZON, SERIES, ROWS = 12, 50, 90


@dataclass(frozen=True)
class Tank(ComponentPrior):
    """What is in a tank that is used up and filled again."""

    capacity: Scalar = LogUniform(20.0, 100.0)
    days: Scalar = LogUniform(6.0, 40.0)  # that a tank lasts
    name: str = "tank"

    def sample(self, grid: Grid) -> Part:
        capacity, days = grid.scalar(self.capacity), grid.scalar(self.days)
        used = torch.exp(0.3 * grid.normal()) / days  # parts of a tank
        left = 1 - (grid.uniform(1) + used.cumsum(1)) % 1
        return Part(capacity * left, {"capacity": capacity, "days": days})


TANK = StructuralPrior(
    components=[Tank()],
    noise=Noise(heavy=0.0, volatility=0.0, outlier_rate=0.0),
    observation=Observation(weights={"real": 1.0}, offset=0.0, whole=0.0),
    missing=Missing(cells=0.0, blocks=0.0),
)


def loss(model: Forecaster, truth: np.ndarray) -> float:
    """Mean quantile loss of the levels 0.1 to 0.9, half the CRPS."""
    levels = np.arange(1, 10) / 10
    found = model.predict(HORIZON, quantiles=list(levels))
    q = found[[f"amortised_ql{level:.1f}" for level in levels]].to_numpy()
    error = truth.reshape(-1, 1) - q
    return float(np.maximum(levels * error, (levels - 1) * error).mean())


def main() -> None:
    """Looks at draws, trains on them, and forecasts tanks that were not drawn before."""
    drawn = TANK.sample(3, 30, generator=torch.Generator().manual_seed(0))
    print("draws first:", *(row.round().int().tolist() for row in drawn.y), sep="\n")
    engine = amortise(TANK, horizon=HORIZON, adapt=False, steps=20 if FAST else None)

    y = TANK.sample(SERIES, ROWS + HORIZON, generator=torch.Generator().manual_seed(1)).y
    past = y[:, :ROWS].double().numpy()
    rows = {"unique_id": np.repeat(range(SERIES), ROWS), "ds": np.tile(range(ROWS), SERIES)}
    df, truth = pd.DataFrame({**rows, "y": past.ravel()}), y[:, ROWS:].numpy()
    known = Forecaster(engine, season_length=1).fit(df)
    wide = Forecaster(Amortised(adapt=False), season_length=1).fit(df)
    losses = loss(known, truth), loss(wide, truth)
    print(
        f"quantile loss by the tank's prior {losses[0]:.2f}, by that of the package {losses[1]:.2f}"
    )
    assert losses[0] < losses[1] or FAST, "who knows the process forecasts it better"


if __name__ == "__main__":
    main()
