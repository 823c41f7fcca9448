"""How good are forecasts, their intervals, sums and peaks, at several origins of the ten tasks?

    export SEQLATENT_DATA=../shared/data
    python benchmarks/origins.py amortised            # the last three blocks of the training part
    python benchmarks/origins.py amortised --asis     # without adaptation
    python benchmarks/origins.py structural --tasks m3_yearly m1_yearly --origins 1 2

Origin k forecasts the k-th last block of a horizon of the training part from what lies before it;
origin 0 is the test. Losses are relative to the seasonal naive forecast of the same block. Whole
numbers are covered by their randomised probabilities among joint paths, as quantiles of counts
cannot leave exactly a tenth out. The energy score of joint paths stands beside that of the same
marginals with independent leads.
"""

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from scoreboard import LEVELS, SEASONS, block, weighted_quantile_loss

from seqlatent.datasets import Task, tasks

PATHS = 200
THIRDS = 3


def measure(task: Task, origin: int, model: Any, seed: int) -> dict[str, Any] | None:
    """One line of the table; None where no series is long enough."""
    from seqlatent.forecasting import Forecaster

    past, future = block(task, origin)
    if past["unique_id"].nunique() < 4:
        return None
    began = time.process_time()
    fitted = Forecaster(
        model, freq=task.freq, season_length=SEASONS.get(task.name, task.season), seed=seed
    ).fit(past)
    seconds = time.process_time() - began
    levels = sorted({*LEVELS, 0.025, 0.975})
    h = task.horizon
    found = fitted.predict(h, quantiles=levels)
    name = next(c for c in found.columns if c.endswith("_ql0.1")).removesuffix("_ql0.1")
    both = future.merge(found, on=["unique_id", "ds"], how="left", validate="1:1")
    y = both["y"].to_numpy(float).reshape(-1, h)
    q = both[[f"{name}_ql{level}" for level in levels]].to_numpy(float).reshape(*y.shape, -1)
    naive = Forecaster("seasonal_naive", freq=task.freq, season_length=task.season).fit(past)
    base = future.merge(naive.predict(h), on=["unique_id", "ds"], how="left")
    error = np.nansum(np.abs(base["y"] - base["seasonal_naive"])) / np.nansum(np.abs(base["y"]))
    nine = q[..., [levels.index(level) for level in LEVELS]]
    paths = joint_paths(fitted, future, h, name)
    if (past["y"].dropna() % 1 == 0).all():
        unit = ranks(paths, y, np.random.default_rng(1))
        inside, wide = np.abs(unit - 0.5) < 0.4, np.abs(unit - 0.5) < 0.475
    else:
        inside = (y >= q[..., levels.index(0.1)]) & (y <= q[..., levels.index(0.9)])
        wide = (y >= q[..., 0]) & (y <= q[..., -1])
    seen = ~np.isnan(y)
    third = np.arange(h) * THIRDS // h
    line = {
        "relative": weighted_quantile_loss(y.ravel(), nine.reshape(-1, 9)) / error,
        "covers 80": float(inside[seen].mean()),
        "covers 95": float(wide[seen].mean()),
        "thirds 80": [float(inside[:, third == k][seen[:, third == k]].mean()) for k in range(3)],
        "seconds": seconds,
    }
    return line | joint(paths, y)


def joint_paths(fitted: Any, future: pd.DataFrame, h: int, name: str) -> np.ndarray:
    """Joint paths ``(S, N, H)`` of the series of a frame."""
    drawn = fitted.sample(h, n=PATHS)
    value = name if name in drawn else drawn.columns[-1]
    drawn = drawn.sort_values(["sample_id", "unique_id", "ds"], kind="stable")
    order = {id: i for i, id in enumerate(future["unique_id"].drop_duplicates())}
    ids = drawn["unique_id"].drop_duplicates()
    paths = drawn[value].to_numpy(float).reshape(PATHS, len(ids), h)
    return paths[:, np.argsort([order[id] for id in ids])]


def joint(paths: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Coverage of sums and peaks of the horizon, and energy score beside independent leads."""
    full = ~np.isnan(y).any(1)
    paths, y = paths[:, full], y[full]
    rng = np.random.default_rng(0)
    total, peak = covers(paths.sum(2), y.sum(1), rng), covers(paths.max(2), y.max(1), rng)
    mixed = rng.permuted(paths, axis=0)
    unit = paths.std(0).mean(1)
    # series that all paths leave where they are have no unit
    paths, mixed, y, unit = paths[:, unit > 0], mixed[:, unit > 0], y[unit > 0], unit[unit > 0]
    return {
        "sum 80": total,
        "peak 80": peak,
        "energy": energy(paths, y, unit) / energy(mixed, y, unit),
    }


def ranks(paths: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part of the paths below the values, at random where they are tied."""
    less, same = (paths < y).sum(0), (paths == y).sum(0)
    return (less + rng.uniform(size=y.shape) * (same + 1)) / (len(paths) + 1)


def covers(paths: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    """Part of the values between the ranks .1 and .9."""
    return float((np.abs(ranks(paths, y, rng) - 0.5) < 0.4).mean())


def energy(paths: np.ndarray, y: np.ndarray, unit: np.ndarray | float = 1.0) -> float:
    """Energy score of all series, each in a unit of its own."""
    far = np.linalg.norm(paths - y, axis=2).mean(0)
    apart = np.linalg.norm(paths[::2] - paths[1::2], axis=2).mean(0)
    return float(((far - apart / 2) / unit).mean())


def main() -> None:
    """Prints a line for each task and origin, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--asis", action="store_true", help="amortised without adaptation")
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in tasks()])
    parser.add_argument("--origins", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | origin | relative | 80 | 95 | thirds 80 | sum 80 | peak 80 | energy | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    means: dict[int, list[float]] = {}
    for task in tasks():
        if task.name not in given.tasks:
            continue
        for origin in given.origins:
            line = measure(task, origin, _model(given), given.seed)
            if line is None:
                continue
            means.setdefault(origin, []).append(line["relative"])
            thirds = " ".join(f"{v:.2f}" for v in line["thirds 80"])
            print(
                f"| {task.name} | {origin} | {line['relative']:.3f} | {line['covers 80']:.3f} | "
                f"{line['covers 95']:.3f} | {thirds} | {line['sum 80']:.3f} | "
                f"{line['peak 80']:.3f} | {line['energy']:.3f} | {line['seconds']:.1f} |",
                flush=True,
            )
    parts = [
        f"origin {origin}: {np.exp(np.log(found).mean()):.4f} of {len(found)}"
        for origin, found in means.items()
    ]
    print(f"Geometric means of the relative loss: {', '.join(parts)}.")


def _model(given: argparse.Namespace) -> Any:
    from seqlatent.forecasting import Amortised

    if given.model != "amortised":
        return given.model
    return Amortised(adapt=not given.asis)


if __name__ == "__main__":
    main()
