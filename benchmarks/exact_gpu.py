"""How fast is the scan form of the filter beside the loop over time on a GPU?

Log likelihood and gradient of one long series; milliseconds of the clock, medians of three.

    python benchmarks/exact_gpu.py [--quick]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from exact_cases import USUAL, structural
from peers.turns import matrices
from torch import Tensor

from seqlatent import kalman

RUNS = {"loop": kalman.filter, "scan": kalman.filter_scan}


def number(x: float) -> str:
    """Three digits."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def evaluation(
    run: Callable[..., kalman.Filtered], season: int, variances: tuple[float, ...], y: Tensor
) -> Callable[[], float]:
    """A log likelihood with its gradient in the covariance of the transition."""
    model = matrices(structural(season, variances), np)
    m = {k: torch.as_tensor(v, device=y.device) for k, v in model.items()}
    zero, Q = m["F"].new_zeros(len(m["F"])), m["Q"].requires_grad_()
    observed = torch.ones_like(y, dtype=torch.bool)

    def evaluate() -> float:
        tensors = m["F"], zero, Q, zero, m["P0"], m["H"], zero[:1], m["R"]
        system = kalman.LinearGaussianSystem(*tensors)
        value = run(system, y, observed).log_evidence.sum()
        torch.autograd.grad(value, Q)
        return value.item()

    return evaluate


def time_index(evaluate: Callable[[], float], y: Tensor) -> tuple[float, float]:
    """Milliseconds, and the value."""
    value, turns = evaluate(), []
    for _ in range(3):
        start = time.perf_counter()
        evaluate()  # reads a number, and so waits
        if y.is_cuda:
            torch.cuda.synchronize()
        turns.append(1e3 * (time.perf_counter() - start))
    return statistics.median(turns), value


def report(device: str, steps: int) -> list[str]:
    """The table."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    lines = [f"### Scan and loop on {name}", "", f"One series of {steps:,} steps, with gradient."]
    lines += ["", "| states | loop, ms | scan, ms | loop / scan | relative difference |"]
    lines.append("|---" * 5 + "|")
    torch.manual_seed(0)
    y = torch.randn(1, steps, 1, dtype=torch.float64).cumsum(1).to(device)
    for season, variances in ((0, (0.1, 1.0)), (24, USUAL)):
        (loop, a), (scan, b) = (
            time_index(evaluation(run, season, variances, y), y) for run in RUNS.values()
        )
        cells = [number(x) for x in (loop, scan, loop / scan)]
        states = season + 1
        lines.append(f"| {states} | " + " | ".join(cells) + f" | {abs(b / a - 1):.0e} |")
    return lines


def main() -> None:
    """Prints the table, or that there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a short series, on any device")
    quick = parser.parse_args().quick
    if torch.cuda.is_available():
        print("\n".join(report("cuda", 100 if quick else 10_000)))
    elif quick:
        print("\n".join(report("cpu", 100)))
    else:
        print("No GPU here: the scan form was not measured.")


if __name__ == "__main__":
    main()
