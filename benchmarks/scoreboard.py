"""How good are the forecasts, task by task, beside published ones?

Fits a forecaster to the training part of a task, predicts the last values of every series once, and
scores them as the published numbers were scored: WQL over the levels .1 to .9, and MASE of the
median. A result is one line of ``benchmarks/scoreboard.jsonl``; the tables of the documentation are
made from all lines, the newest of each task, model and seed.

    export SEQLATENT_DATA=../shared/data
    python benchmarks/scoreboard.py all seasonal_naive
    python benchmarks/scoreboard.py m4_hourly srnn [--seed 0] [--out docs/scoreboard.md]
    python benchmarks/scoreboard.py all ets --origin 1    # the block before the last, for coverage
    python benchmarks/scoreboard.py --render     # the tables alone

The published numbers are read from ``../reference/forecast_published.csv`` beside the data, or from
``--published``: columns dataset, model, WQL, MASE.
"""

import argparse
import csv
import datetime
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.datasets import Task, split, tasks

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).resolve().parent
LINES = FOLDER / "scoreboard.jsonl"
PAGE = FOLDER.parent / "docs" / "scoreboard.md"

LEVELS = tuple(i / 10 for i in range(1, 10))
INTERVALS = (80, 95)
FINE = tuple(i / 100 for i in range(1, 100))  # levels that say where a value lies
ORIGINS = 3
LIMIT = 20 * 60  # seconds that a fit may take
NAIVE = "seasonal_naive"
PUBLISHED = {
    "seasonal-naive": "seasonal naive",
    "auto_ets": "AutoETS",
    "auto_theta": "AutoTheta",
    "auto_arima": "AutoARIMA",
    "chronos-bolt-small": "Chronos-Bolt-small",
}
GROUPS = (
    tuple(task.name for task in tasks()),
    tuple(task.name for task in tasks() if not task.name.startswith("m4_")),
)

# A task's season is that of its error's scale: 1 of weekly rows, whose year has 52. Models that are
# told what a user would tell them, but for the baseline that others are compared with.
SEASONS: dict[str, int | tuple[int, ...]] = {
    "m4_hourly": (24, 168),
    "m4_weekly": 52,
    "exchange_rate": 5,
}

Published = Mapping[str, Mapping[str, tuple[float, float]]]


# --- Scores ------------------------------------------------------------------------------------


def weighted_quantile_loss(y: np.ndarray, quantiles: np.ndarray) -> float:
    r"""WQL: :math:`\sum 2 \max(q (y - \hat y_q), (q - 1)(y - \hat y_q)) / \sum |y|`, mean over q.

    Args:
        y: True values ``(R,)``, NaN where missing.
        quantiles: Forecasts at the levels .1 to .9 ``(R, 9)``.
    """
    seen = ~np.isnan(y)
    error = y[seen, None] - quantiles[seen]
    levels = np.array(LEVELS)
    loss = 2 * np.maximum(levels * error, (levels - 1) * error).sum(0)
    return float(loss.mean() / np.abs(y[seen]).sum())


def scaled_error(y: np.ndarray, median: np.ndarray, past: list[np.ndarray], task: Task) -> float:
    """MASE: mean absolute error over that of the seasonal naive forecast within the past.

    A series that never changes from season to season has no scale, and is left out.

    Args:
        y: True values, those of each series in turn, NaN where missing.
        median: Forecasts of them.
        past: Past of each series, in the same order.
        task: Gives horizon and season.
    """
    scales = []
    for x in past:
        lag = task.season if len(x) > task.season else 1
        change = np.abs(x[lag:] - x[:-lag])
        scales.append(change[~np.isnan(change)].sum() / max((~np.isnan(change)).sum(), 1))
    scale = np.repeat(scales, task.horizon)
    scaled = scale > 0
    return float(np.nanmean(np.abs(y - median)[scaled] / scale[scaled]))


def score(
    train: "pd.DataFrame", test: "pd.DataFrame", forecast: "pd.DataFrame", task: Task, alias: str
) -> dict[str, float]:
    """All scores of a forecast, a frame as ``Forecaster.predict`` gives it.

    Raises:
        ValueError: If the forecast lacks a row of the test, or holds NaN.
    """
    keys = ["unique_id", "ds"]
    levels = [f"{alias}_ql{level}" for level in LEVELS]
    ends = [f"{alias}-{end}-{width}" for width in INTERVALS for end in ("lo", "hi")]
    both = test[[*keys, "y"]].merge(forecast[[*keys, *levels, *ends]], how="left", validate="1:1")
    missing = both[[*levels, *ends]].isna().any(axis=1)
    if missing.any():
        row = both.loc[missing.idxmax(), keys].to_dict()
        raise ValueError(f"{int(missing.sum())} rows have no complete forecast; the first is {row}")
    y, quantiles = both["y"].to_numpy(np.float64), both[levels].to_numpy(np.float64)
    median = quantiles[:, len(LEVELS) // 2]
    series = dict(list(train.groupby("unique_id", sort=False)["y"]))
    past = [series[i].to_numpy(np.float64) for i in test["unique_id"].drop_duplicates()]
    found = {
        "wql": weighted_quantile_loss(y, quantiles),
        "wql_median": weighted_quantile_loss(y, np.repeat(median[:, None], len(LEVELS), 1)),
        "mase": scaled_error(y, median, past, task),
    }
    for width in INTERVALS:
        low, high = (both[f"{alias}-{end}-{width}"].to_numpy(np.float64) for end in ("lo", "hi"))
        found[f"coverage_{width}"] = float(((low <= y) & (y <= high))[~np.isnan(y)].mean())
    return found


def covered(
    test: "pd.DataFrame", forecast: "pd.DataFrame", horizon: int, alias: str
) -> dict[str, list[float]]:
    """Parts of the values inside central intervals, for each third of the horizon.

    A value is where its level is: between those quantiles that it lies between, at random among
    those that it equals, so that whole numbers can be covered as often as they should be.

    Returns:
        ``thirds_80`` and ``thirds_95``, and how many values there are, ``thirds_rows``.
    """
    keys, columns = ["unique_id", "ds"], [f"{alias}_ql{level}" for level in FINE]
    both = test[[*keys, "y"]].merge(forecast[[*keys, *columns]], how="left", validate="1:1")
    y, quantiles = both["y"].to_numpy(np.float64), both[columns].to_numpy(np.float64)
    less, same = (quantiles < y[:, None]).sum(1), (quantiles == y[:, None]).sum(1)
    chance = np.random.default_rng(0).uniform(size=len(y))
    level = (less + chance * (same + 1)) / (len(FINE) + 1)
    third = both.groupby("unique_id", sort=False).cumcount().to_numpy() * 3 // horizon
    parts = [(third == k) & ~np.isnan(y) for k in range(3)]
    found: dict[str, list[float]] = {"thirds_rows": [float(part.sum()) for part in parts]}
    for width in INTERVALS:
        inside = np.abs(level - 0.5) <= width / 200
        found[f"thirds_{width}"] = [float(inside[part].mean()) for part in parts]
    return found


def block(task: Task, origin: int) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Past and future of an origin, of the series that are long enough.

    Origin k is the k-th last block of a horizon of the training part; origin 0 is the test.
    """
    past, _ = split(task)
    if origin == 0:
        # what was not observed is not scored
        return past, split(replace(task, zero_fill=False))[1]
    size = past.groupby("unique_id", sort=False)["y"].transform("size")
    back = past.groupby("unique_id", sort=False).cumcount(ascending=False)
    able = size >= origin * task.horizon + max(4, task.season + 1)
    before = past[able & (back >= origin * task.horizon)]
    inside = (back >= (origin - 1) * task.horizon) & (back < origin * task.horizon)
    return before, past[able & inside]


def run(task: Task, model: str, seed: int, origin: int, published: Published) -> dict[str, Any]:
    """Fits, predicts and scores: a line of the scoreboard."""
    import torch

    from seqlatent.forecasting import Forecaster

    torch.set_num_threads(1)
    train, test = block(task, origin)
    season = task.season if model == NAIVE else SEASONS.get(task.name, task.season)
    processor, wall = time.process_time(), time.perf_counter()
    forecaster = Forecaster(
        model, freq=task.freq, season_length=season, seed=seed, time_limit=LIMIT
    ).fit(train)
    fitted, seconds = time.process_time(), time.perf_counter() - wall
    forecast = forecaster.predict(task.horizon, level=INTERVALS, quantiles=FINE)
    done = time.process_time()
    scale = split(replace(task, zero_fill=False))[0] if origin == 0 else train
    line = {
        "task": task.name,
        "model": model,
        "seed": seed,
        "origin": origin,
        **score(scale, test, forecast, task, model),
        **covered(test, forecast, task.horizon, model),
        "minutes": (done - processor) / 60,
        "minutes_predict": (done - fitted) / 60,
        "minutes_wall": (time.perf_counter() - wall) / 60,
        "capped": seconds > 0.9 * LIMIT,
        "season": season,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if model == NAIVE and origin == 0:
        line["reproduces"] = reproduces(line, published["seasonal-naive"][task.name][0])
    return line


def reproduces(line: Mapping[str, Any], published: float) -> bool:
    """Whether the published WQL is met to four digits: by the quantiles, or by the median alone.

    The published seasonal naive forecast is a point; one with quantiles of its own has a smaller
    WQL, and is the same forecast if its median is that point.
    """
    return any(f"{line[key]:.4f}" == f"{published:.4f}" for key in ("wql", "wql_median"))


# --- Files -------------------------------------------------------------------------------------


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to the results."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The newest line of each task, model, seed and origin."""
    if not path.is_file():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text]
    return list({(x["model"], x["task"], x["seed"], x.get("origin", 0)): x for x in lines}.values())


def read_published(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """WQL and MASE by model and task."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            task = row["dataset"].removeprefix("monash_")
            found.setdefault(row["model"], {})[task] = float(row["WQL"]), float(row["MASE"])
    return found


# --- Tables ------------------------------------------------------------------------------------


def render(lines: Sequence[Mapping[str, Any]], published: Published) -> str:
    """The page of the documentation."""
    names = [task.name for task in tasks()]
    ours = _means([line for line in lines if line.get("origin", 0) == 0])
    naive = published["seasonal-naive"]
    wql, mase = (
        {f"`{model}`": {task: x[key] for task, x in row.items()} for model, row in ours.items()}
        | {
            f"{label}, published": {task: x[place] for task, x in published[model].items()}
            for model, label in PUBLISHED.items()
        }
        for place, key in enumerate(("wql", "mase"))
    )
    relative = {
        name: {task: row[task] / naive[task][0] for task in names if task in row}
        for name, row in wql.items()
    }
    parts = [_HEAD, "## Relative to the seasonal naive forecast\n", _MEANS]
    parts.append(_table(relative, names, ".3f", GROUPS))
    parts += ["## WQL\n", _table(wql, names, ".4f")]
    parts += ["## MASE\n", _table(mase, names, ".3f")]
    parts += ["## Coverage\n", _COVERAGE, _covered_table(lines, names)]
    parts += ["## Time\n", _TIME, _time_table(ours, names)]
    return "\n".join(parts) + _notes(lines, ours)


def _means(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over seeds of each number, by model and task; the naive forecast first."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for line in sorted(lines, key=lambda x: (x["model"] != NAIVE, x["model"])):
        groups.setdefault(line["model"], {}).setdefault(line["task"], []).append(line)
    keys = ("wql", "mase", "minutes", *(f"coverage_{width}" for width in INTERVALS))
    return {
        model: {
            task: {key: fmean(x[key] for x in same) for key in keys}
            | {"seeds": len(same), "capped": any(x.get("capped") for x in same)}
            for task, same in row.items()
        }
        for model, row in groups.items()
    }


def _table(
    rows: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    specification: str,
    groups: Sequence[Sequence[str]] = (),
) -> str:
    """Models by tasks, the least of each column in bold, then geometric means over groups."""
    least = {
        task: min(format(r[task], specification) for r in rows.values() if task in r)
        for task in names
    }
    text = _header([*names, *(f"{len(group)} tasks" for group in groups)])
    for name, row in rows.items():
        cells = [_cell(row.get(task), specification, least[task]) for task in names]
        cells += [_geometric(row, group) for group in groups]
        text += f"| {name} | {' | '.join(cells)} |\n"
    return text


def _header(names: Sequence[str]) -> str:
    return f"| | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|\n"


def _cell(value: float | None, specification: str, least: str) -> str:
    if value is None:
        return ""
    text = format(value, specification)
    return f"**{text}**" if text == least else text


def _geometric(row: Mapping[str, float], group: Sequence[str]) -> str:
    """Geometric mean, with the number of tasks in brackets where some are missing."""
    values = [row[task] for task in group if task in row]
    if not values:
        return ""
    mean = math.exp(fmean(map(math.log, values)))
    return f"{mean:.3f}" if len(values) == len(group) else f"({mean:.3f} of {len(values)})"


def _covered_table(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Parts covered in each third, of all origins and seeds that there are."""
    text = _header(names)
    for model in sorted({x["model"] for x in lines}, key=lambda name: (name != NAIVE, name)):
        for width in INTERVALS:
            cells = [
                _pooled([x for x in lines if (x["model"], x["task"]) == (model, task)], width)
                for task in names
            ]
            text += f"| `{model}`, {width} % | {' | '.join(cells)} |\n"
    return text


def _pooled(lines: Sequence[Mapping[str, Any]], width: int) -> str:
    known = [x for x in lines if f"thirds_{width}" in x]
    if not known:
        return ""
    rows = np.array([x["thirds_rows"] for x in known])
    inside = np.nansum(np.array([x[f"thirds_{width}"] for x in known], float) * rows, 0)
    thirds = " ".join(f"{100 * share:.0f}" for share in inside / np.maximum(rows.sum(0), 1))
    origins = len({x["origin"] for x in known})
    marks = "" if origins == ORIGINS else f", {origins} of {ORIGINS}"
    return f"**{100 * inside.sum() / rows.sum():.0f}** ({thirds}{marks})"


def _time_table(ours: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> str:
    text = _header(names)
    for model, row in ours.items():
        cells = [_minutes(row[task]) if task in row else "" for task in names]
        text += f"| `{model}` | {' | '.join(cells)} |\n"
    return text


def _minutes(line: Mapping[str, float]) -> str:
    minutes = line["minutes"]
    if minutes < 0.05:
        return "< 0.1"
    text = f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"
    return f"{text}, capped" if line["capped"] else text


def _notes(lines: Sequence[Mapping[str, Any]], ours: Mapping[str, Any]) -> str:
    text = ""
    several = {
        f"`{model}` ({x['seeds']:.0f})"
        for model, row in ours.items()
        for x in row.values()
        if x["seeds"] > 1
    }
    if several:
        text += f"\nMeans over seeds, as many as the brackets say: {', '.join(sorted(several))}.\n"
    dates: dict[str, set[str]] = {}
    for line in lines:
        if "date" in line:
            dates.setdefault(line["model"], set()).add(line["date"][:10])
    if dates:
        days = (f"`{model}` {', '.join(sorted(found))}" for model, found in sorted(dates.items()))
        text += f"\nMeasured with the code of: {'; '.join(days)}.\n"
    wrong = [line["task"] for line in lines if not line.get("reproduces", True)]
    if wrong:
        text += (
            "\n**Our seasonal naive forecast differs from the published one** on "
            f"{', '.join(wrong)}: compare nothing in these columns with published rows.\n"
        )
    elif NAIVE in ours:
        text += (
            "\nThe published seasonal naive forecast is one value at all levels; it is the median "
            "of ours.\n"
        )
    return text


_HEAD = """# Scoreboard

Made by `python benchmarks/scoreboard.py`. Ten tasks; the last values of every series are forecast
once and compared with what happened. WQL is the pinball loss of the levels .1 to .9 over the sum of
absolute values; MASE is the error of the median beside that of the seasonal naive forecast within
the past. Lower is better, and the least of a column is bold. Rows marked "published" are quoted
from the results of the Chronos and fev repositories on the same data; Chronos-Bolt-small was
trained on the two M4 sets.
"""
_MEANS = """WQL over that of the published seasonal naive forecast; on the right the geometric mean
over all tasks, and over those that every row reports (in brackets where tasks are missing).
"""
_COVERAGE = """Percent of the values inside the intervals of 80 and 95 percent; in brackets those
of each third of the horizon. Of the last three blocks of every series, the test and two before it,
each forecast from the rows before it, and of all seeds ("1 of 3" where of fewer blocks). A value
that equals quantiles, as whole numbers do, has any of their levels, by chance.
"""
_TIME = f"""Minutes of processor time for fit and forecast on one thread; a fit ends after
{LIMIT // 60} minutes with what it has by then ("capped").
"""


def main() -> None:
    """Runs the tasks asked for, one after the other, and writes the page after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", nargs="?", choices=["all", *(task.name for task in tasks())])
    parser.add_argument("model", nargs="?", help="any name that Forecaster takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--origin", type=int, default=0, help="blocks before the test")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    parser.add_argument("--lines", type=Path, default=LINES, help="results to add to")
    data = Path(os.environ.get("SEQLATENT_DATA", "../shared/data"))
    beside = data.parent / "reference" / "forecast_published.csv"
    parser.add_argument("--published", type=Path, default=beside, help="published numbers")
    parser.add_argument("--render", action="store_true", help="write the page alone")
    options = parser.parse_args()
    if not options.render and (options.task is None or options.model is None):
        parser.error("name a task (or all) and a model, or pass --render.")
    if not options.published.is_file():
        parser.error(f"no published numbers at {options.published}; name them by --published.")
    published = read_published(options.published)
    for task in [] if options.render else tasks():
        if options.task in ("all", task.name):
            line = run(task, options.model, options.seed, options.origin, published)
            append(options.lines, line)
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()})
            if not line.get("reproduces", True):
                print(f"ATTENTION: differs from the published WQL of {task.name}.")
            options.out.write_text(render(read_lines(options.lines), published), encoding="utf-8")
    options.out.write_text(render(read_lines(options.lines), published), encoding="utf-8")


if __name__ == "__main__":
    main()
