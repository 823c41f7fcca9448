"""How much memory does a large panel take? Fits and forecasts 20,000 short series.

    python benchmarks/panel_memory.py structural [--series 20000] [--rows 50]

Every model in a process of its own: the peak is that of the process.
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd
import torch

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.latent.recipes import spec_of


def panel(series: int, rows: int) -> pd.DataFrame:
    """Random walks with a weekly pattern."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(series, rows)).cumsum(1) + 3 * np.sin(2 * np.pi * np.arange(rows) / 7)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(series), rows),
            "ds": np.tile(np.arange(rows), series),
            "y": (20 + y).reshape(-1),
        }
    )


def main() -> None:
    """Fits, forecasts, and says what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=50)
    found = parser.parse_args()
    torch.set_num_threads(1)
    data = panel(found.series, found.rows)
    # the number of steps does not change the memory
    quick = {"srnn": {"members": 2, "steps": 30}, "deep_markov": {"members": 1, "steps": 20}}
    options = quick.get(found.model)
    model = found.model if options is None else spec_of(found.model, **options)
    start = time.process_time()
    forecaster = Forecaster(model, season_length=7).fit(data)
    fitted = time.process_time()
    forecast = forecaster.predict(14)
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{found.model}: {found.series:,} series of {found.rows} rows, fitted in "
        f"{fitted - start:.0f} s, forecast in {done - fitted:.0f} s of one processor, "
        f"{len(forecast):,} rows, peak {peak:.2f} GiB."
    )


if __name__ == "__main__":
    main()
