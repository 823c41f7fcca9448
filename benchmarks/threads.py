"""What does a second thread cost a fit, in seconds of the processor and of the wall?

    python benchmarks/threads.py

Meant for a machine that others use as well: there a thread that waits for another burns its time.
"""

import argparse
import time

from time_limit import frame

from seqlatent.forecasting import Forecaster, spec_of

CASES = {
    "structural, 1 series": ("structural", 1),
    "structural, 20 series": (spec_of("structural", specifications=["damped"]), 20),
    "srnn, 20 series": (spec_of("srnn", members=1, steps=60), 20),
    "deep_state, 20 series": (spec_of("deep_state", steps=20), 20),
}


def main() -> None:
    """Measures every case in turns, after a first fit that loads what is needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    print("| fit | threads | processor, s | wall, s |\n|---|---|---|---|")
    worst = 0.0
    for name, (model, series) in CASES.items():
        df, spent = frame(series), {1: [], 2: []}
        Forecaster(model, time_limit=2, threads=1).fit(df)
        for _ in range(rounds):
            for count, seen in spent.items():
                wall, processor = time.perf_counter(), time.process_time()
                Forecaster(model, threads=count).fit(df)
                seen.append((time.process_time() - processor, time.perf_counter() - wall))
        best = {count: min(seen) for count, seen in spent.items()}
        worst = max(worst, best[2][0] / best[1][0])
        for count, (processor, wall) in best.items():
            print(f"| {name} | {count} | {processor:.1f} | {wall:.1f} |", flush=True)
    print(f"A second thread costs up to {worst:.1f} times the processor time of one.")


if __name__ == "__main__":
    main()
