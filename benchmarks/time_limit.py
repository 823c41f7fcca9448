"""How long does a fit take under a limit of time, and what does it say that it left out?

    python benchmarks/time_limit.py
    python benchmarks/time_limit.py --limit 2 --series 1 --series 200 --write docs/benchmarks.md

Monthly series of 96 rows, on one thread; each engine in a process of its own, whose libraries are
loaded by a first fit. A fit is to end within 1.5 times the limit, and at least 2 s.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ENGINES = (
    *("naive", "seasonal_naive", "ets", "theta", "sarimax"),
    *("structural", "deep_state", "deep_markov", "srnn", "vrnn", "latent_ode"),
)
BEGIN, END = "<!-- time_limit: begin -->\n", "<!-- time_limit: end -->\n"


def frame(series: int, rows: int = 96):
    """Random walks with a season of twelve months."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    t = np.arange(rows)
    y = 50 + rng.normal(size=(series, rows)).cumsum(1) + 8 * np.sin(2 * np.pi * t / 12)
    ds = pd.date_range("2015-01-01", periods=rows, freq="MS")
    ids = np.repeat([f"s{i:05d}" for i in range(series)], rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(ds, series), "y": y.ravel()})


def measure(engine: str, sizes: list[int], limits: list[float]) -> None:
    """Prints a line of JSON for each size and limit."""
    from seqlatent.forecasting import Forecaster

    Forecaster(engine, time_limit=0.1, threads=1).fit(frame(1))
    for limit in limits:
        for size in sizes:
            df = frame(size)
            began = time.perf_counter()
            model = Forecaster(engine, time_limit=limit, threads=1).fit(df)
            seconds = time.perf_counter() - began
            note = model.notes.get(engine, {}).get(None, "").split("; impute")[0]
            print(json.dumps([engine, size, limit, seconds, note]), flush=True)


def main() -> None:
    """Measures every engine, and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", action="append")
    parser.add_argument("--series", type=int, action="append")
    parser.add_argument("--limit", type=float, action="append")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes, limits = given.series or [1, 200, 2000], given.limit or [2.0, 10.0]
    if given.child:
        measure(given.engine[0], sizes, limits)
        return
    lines = ["| engine | series | limit, s | seconds | note |", "|---|---|---|---|---|"]
    late = total = 0
    for engine in given.engine or ENGINES:
        command = [sys.executable, __file__, "--child", "--engine", engine]
        command += [x for size in sizes for x in ("--series", str(size))]
        command += [x for limit in limits for x in ("--limit", str(limit))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            _, size, limit, seconds, note = json.loads(line)
            late += seconds > max(1.5 * limit, 2.0)
            total += 1
            lines.append(f"| `{engine}` | {size} | {limit:g} | {seconds:.2f} | {note} |")
            print(lines[-1], flush=True)
    verdict = f"{total - late} of {total} fits ended within 1.5 times their limit, or 2 s."
    print(verdict)
    if given.write:
        text = given.write.read_text()
        head, _, rest = text.partition(BEGIN)
        if not rest:
            head, rest = f"{text.rstrip()}\n\n## Limits of time\n\n", END
        body = "\n".join([*lines, "", verdict, ""])
        given.write.write_text(f"{head}{BEGIN}\n{body}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
