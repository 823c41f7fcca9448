"""How good are joint forecasts of several targets: energy scores, and intervals of their sum?

    export SEQLATENT_DATA=../shared/data
    python benchmarks/joint.py                       # rows 6,000 to 9,000 are trained on
    python benchmarks/joint.py --first 2000          # rows 2,000 to 5,000, to choose by
    python benchmarks/joint.py --models recurrent --seeds 0 1

Transformer stations of etth1 (seven channels) and the load zones of gefcom2012_load (twenty), in
units of their means and deviations over the 3,000 rows that are trained on; then twenty windows of
24 hours, each forecast after the rows before it. The energy score of a window is that of all its
hours and targets together.
"""

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from origins import covers

from seqlatent.datasets import load
from seqlatent.forecasting import Columns, Forecaster

ROWS, HOURS, WINDOWS, PATHS = 3000, 24, 20, 200
MODELS = ("seasonal_naive", "structural", "recurrent")
ALONE = ("structural",)  # models of one target: each is a series of its own
TARGETS = {
    "etth1": ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"],
    "gefcom2012_load": [f"load_{k}" for k in range(1, 21)],
}


def rows(name: str, first: int) -> pd.DataFrame:
    """Rows that are trained on and those of the windows, standardised by the former."""
    targets = TARGETS[name]
    df = load(name)[["ds", *targets]].iloc[first : first + ROWS + WINDOWS * HOURS]
    y = df[targets].astype(float)
    past = y.iloc[:ROWS]
    y = (y - past.mean()) / past.std(ddof=0)
    return y.assign(ds=pd.to_datetime(df["ds"]), unique_id="a").reset_index(drop=True)


def measure(name: str, first: int, model: Any, seed: int) -> dict[str, float]:
    """Scores of all windows."""
    df = wide = rows(name, first)
    targets = TARGETS[name]
    columns = Columns(target=targets)
    if model in ALONE:
        columns = Columns()
        df = df.melt(["ds"], targets, "target", "y").rename(columns={"target": "unique_id"})
        df = df.sort_values(["ds", "unique_id"], kind="stable", ignore_index=True)
    each = len(df) // (ROWS + WINDOWS * HOURS)  # lines of the frame for each row
    began = time.process_time()
    forecaster = Forecaster(model, freq="h", season_length=[24, 168], columns=columns, seed=seed)
    fitted = forecaster.fit(df.iloc[: ROWS * each])
    seconds = time.process_time() - began
    truth, drawn = [], []
    for window in range(WINDOWS):
        done = ROWS + window * HOURS
        if window:
            fitted = fitted.update(df.iloc[(done - HOURS) * each : done * each])
        paths = fitted.sample(HOURS, n=PATHS)
        which = "unique_id" if model in ALONE else "target"
        paths = paths.sort_values(["sample_id", "ds", which])
        (value,) = fitted.aliases
        shape = (PATHS, HOURS, len(targets))
        drawn.append(paths[value].to_numpy(float).reshape(shape))
        ahead = wide.iloc[done : done + HOURS]
        truth.append(ahead[sorted(targets)].to_numpy(float))
    y, x = np.stack(truth), np.stack(drawn, 1)
    flat, seen = x.reshape(PATHS, WINDOWS, -1), y.reshape(WINDOWS, -1)
    far = np.linalg.norm(flat - seen, axis=2).mean(0)
    apart = np.linalg.norm(flat[::2] - flat[1::2], axis=2).mean(0)
    low, high = np.quantile(x, [0.1, 0.9], axis=0)
    rng = np.random.default_rng(0)
    return {
        "energy": float((far - apart / 2).mean()),
        "covers 80": float(((y >= low) & (y <= high)).mean()),
        "sum 80": covers(x.sum(3), y.sum(2), rng),
        "total 80": covers(x.sum((2, 3)), y.sum((1, 2)), rng),
        "seconds": seconds,
    }


def main() -> None:
    """Prints a line for each set, model and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=6000)
    parser.add_argument("--sets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | model | seed | energy | 80 | sum of targets 80 | sum of all 80 | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.sets:
        for model in given.models:
            for seed in given.seeds:
                line = measure(name, given.first, model, seed)
                print(
                    f"| {name} | `{model}` | {seed} | {line['energy']:.2f} | "
                    f"{line['covers 80']:.2f} | {line['sum 80']:.2f} | {line['total 80']:.2f} | "
                    f"{line['seconds']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
