"""What are the parameters' posteriors worth to a forecast, and how far are they to be trusted?

    export SEQLATENT_DATA=../shared/data
    python benchmarks/bayes.py                         # the last block of the training part
    python benchmarks/bayes.py --tasks m3_yearly --origins 2 --series 100
    python benchmarks/bayes.py --forecaster --origins 1 2     # the whole mixture, all series

Origin k forecasts the k-th last block of a horizon of the training part from what lies before it.
One specification of the structural model at a time; its parameters by maximum likelihood of each
series, most probable under a distribution that is learned from all, drawn from normal
approximations of the posteriors (2 on opposite sides, and 64), and drawn by weights (128, or 16
that stand for them). CRPS of each mixture in usual seasonal differences of the series, over that of
maximum likelihood; seconds are of this processor.

With --forecaster the engine as a whole, all specifications with their weights and widths: losses of
``structural(bayes=True)`` over those of ``structural`` (mean of nine quantiles, each series in the
units of the data, and in seasonal differences of its own), coverage of 80 % and seconds of both.
"""

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from origins import block
from scoreboard import LEVELS, SEASONS
from torch import Tensor

from seqlatent.datasets import tasks
from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.engines.structural import Specification
from seqlatent.forecasting.engines.structural.rows import Rows, prepared
from seqlatent.model import LatentModel, moments
from seqlatent.sequences import Sequences
from seqlatent.training import draws_each, fit_each, posterior_each

TASKS = ("m1_yearly", "m3_yearly", "m1_quarterly")
TRENDS = ("damped", "drift", "reverting")
ROWS = 400


def panel(task: object, origin: int, series: int) -> tuple[Rows, Tensor]:
    """Rows of some series before an origin, and the block that follows ``(B, H)``."""
    past, future = block(task, origin)  # type: ignore[arg-type]
    ids = future["unique_id"].unique()
    ids = ids[:: max(1, len(ids) // series)][:series]
    before = {id: g.to_numpy(float) for id, g in past.groupby("unique_id")["y"] if id in set(ids)}
    after = future[future["unique_id"].isin(ids)].groupby("unique_id")["y"]
    y = np.full((len(ids), max(map(len, before.values()))), np.nan)
    for i, id in enumerate(ids):
        y[i, y.shape[1] - len(before[id]) :] = before[id]
    target = np.stack([after.get_group(id).to_numpy(float) for id in ids])
    return prepared(torch.from_numpy(y), task.season, ROWS), torch.from_numpy(target)  # type: ignore


def crps(y: Tensor, weights: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """CRPS ``(B, H)`` of mixtures of normals, components first."""

    def apart(m: Tensor, v: Tensor) -> Tensor:
        s = v.sqrt()
        z = m / s
        return s * (2 * (-z.square() / 2).exp() / math.sqrt(2 * math.pi)) + m * torch.erf(
            z / math.sqrt(2)
        )

    w = weights[..., None]
    near = (w * apart(y - mean, variance)).sum(0)
    within = sum(
        (w * w[i] * apart(mean - mean[i], variance + variance[i])).sum(0) for i in range(len(mean))
    )
    return near - within / 2


def ahead(models: Sequence[LatentModel], data: Sequences, h: int) -> tuple[Tensor, Tensor, Tensor]:
    """Equal weights, means and variances ``(S, B, H)``."""
    found = [moments(m, m.belief(data, end=False), h) for m in models]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    return torch.full(mean.shape[:2], 1 / len(mean)).double(), mean, variance


def measure(rows: Rows, y: Tensor, trend: str, seed: int) -> dict[str, float]:
    """One line of the table."""
    season, h = rows.season_length, y.shape[1]
    specification = Specification(trend, ((season, season // 2),) if season > 1 else ())
    data = rows.sequences(log=False)
    own, model = (specification.model(len(y)) for _ in range(2))
    began = time.process_time()
    fit_each(own, data, pooled=False, seed=seed)
    single = time.process_time()
    history = fit_each(model, data, points=32, seed=seed)
    pooled = time.process_time()
    posterior = posterior_each(model, data, history, seed=seed)
    done = time.process_time()
    mean, variance = (x[..., 0] for x in posterior.moments(data, h, end=False))
    forecasts = {
        "likelihood": ahead([own], data, h),
        "mode": ahead([model], data, h),
        "normal 2": ahead(draws_each(model, data, history, 2, seed=seed), data, h),
        "normal 64": ahead(draws_each(model, data, history, 64, seed=seed), data, h),
        "weights": (posterior.log_weights.exp(), mean, variance),
        "16 of them": ahead(posterior.models(16, seed=seed), data, h),
    }
    scores, covers = {}, {}
    for name, (w, m, v) in forecasts.items():
        scores[name] = float((crps(y, w, m, v) / data.scale).mean())
        rank = (w[..., None] * torch.special.ndtr((y - m) / v.sqrt())).sum(0)
        covers[name] = float(((rank - 0.5).abs() <= 0.4).double().mean())
    base = scores["likelihood"]
    return {
        **{name: value / base for name, value in scores.items() if name != "likelihood"},
        **{f"{name} covers": covers[name] for name in ("likelihood", "normal 2", "weights")},
        "k-hat < .7": float((posterior.shape < 0.7).double().mean()),
        "effective": float(posterior.effective.median()),
        "fit s": pooled - single,
        "likelihood s": single - began,
        "posterior s": done - pooled,
    }


def whole(task: object, origin: int, seed: int) -> dict[str, float]:
    """One line of the table of whole engines."""
    past, future = block(task, origin)  # type: ignore[arg-type]
    lag, levels = task.season, np.array(LEVELS)  # type: ignore[attr-defined]
    season = SEASONS.get(task.name, lag)  # type: ignore[attr-defined]
    y = future["y"].to_numpy(float)
    each = past.groupby("unique_id")["y"]
    unit = each.apply(lambda y: y.diff(lag).abs().mean()).reindex(future["unique_id"]).to_numpy()
    moves = unit > 0
    losses, covers, seconds = [], [], []
    for bayes in (False, True):
        spec = spec_of("structural", bayes=bayes)
        began = time.process_time()
        model = Forecaster(spec, freq=task.freq, season_length=season, seed=seed)  # type: ignore
        found = model.fit(past).predict(task.horizon, quantiles=list(LEVELS))  # type: ignore
        seconds.append(time.process_time() - began)
        found = future.merge(found, on=["unique_id", "ds"], how="left", validate="1:1")
        q = found[[f"structural_ql{level:g}" for level in LEVELS]].to_numpy(float)
        error = y[:, None] - q
        loss = 2 * np.maximum(levels * error, (levels - 1) * error).mean(1)
        losses.append((loss.sum(), (loss[moves] / unit[moves]).mean()))
        covers.append(float(((y >= q[:, 0]) & (y <= q[:, -1])).mean()))
    return {
        "loss": losses[1][0] / losses[0][0],
        "in differences": losses[1][1] / losses[0][1],
        "covers": covers[0],
        "bayes covers": covers[1],
        "s": seconds[0],
        "bayes s": seconds[1],
    }


def compared(names: Sequence[str], origins: Sequence[int], seed: int) -> None:
    """Prints a line for each task and origin of the whole engines, and means over all."""
    lines: list[dict[str, float]] = []
    for task in tasks():
        for origin in origins if task.name in names else ():
            line = whole(task, origin, seed)
            if not lines:
                print(f"| task | origin | {' | '.join(line)} |")
                print("|---" * (2 + len(line)) + "|")
            lines.append(line)
            cells = " | ".join(f"{x:.3g}" for x in line.values())
            print(f"| {task.name} | {origin} | {cells} |", flush=True)
    loss, own, ratio = (
        float(np.exp(np.mean([np.log(f(line)) for line in lines])))
        for f in (
            lambda line: line["loss"],
            lambda line: line["in differences"],
            lambda line: line["bayes s"] / line["s"],
        )
    )
    print(
        f"structural(bayes=True) has {loss:.3f} times the loss of structural, {own:.3f} times in "
        f"seasonal differences, in {ratio:.1f} times its time."
    )


def main() -> None:
    """Prints a line for each task, origin and specification, and means over all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--trends", nargs="+", default=list(TRENDS))
    parser.add_argument("--origins", nargs="+", type=int, default=[1])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forecaster", action="store_true", help="the engine as a whole")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.forecaster:
        compared(given.tasks, given.origins, given.seed)
        return
    lines: list[dict[str, float]] = []
    for task in tasks():
        for origin in given.origins if task.name in given.tasks else ():
            rows, y = panel(task, origin, given.series)
            for trend in given.trends:
                line = measure(rows, y, trend, given.seed)
                if not lines:
                    print(f"| task | origin | specification | {' | '.join(line)} |")
                    print("|---" * (3 + len(line)) + "|")
                lines.append(line)
                cells = " | ".join(f"{x:.3g}" for x in line.values())
                print(f"| {task.name} | {origin} | {trend} | {cells} |", flush=True)
    mean = {k: float(np.mean([line[k] for line in lines])) for k in lines[0]}
    better = float(np.mean([line["weights"] < 1 for line in lines]))
    print(
        f"Weighted draws: {100 * (1 - mean['weights']):.1f} % less CRPS than maximum likelihood "
        f"(better in {100 * better:.0f} % of the lines; normal approximations: "
        f"{100 * (1 - mean['normal 2']):.1f} %), k-hat is below .7 for "
        f"{100 * mean['k-hat < .7']:.0f} % of the series."
    )


if __name__ == "__main__":
    main()
