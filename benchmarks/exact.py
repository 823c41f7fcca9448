"""How fast is exact inference, beside statsmodels, dynamax, torch-kf and Pyro?

Log likelihoods of linear Gaussian models in double precision, and their gradients in all free
parameters. Two models: a basic structural one (linear trend and a pattern of 24 steps, 25 states)
and a dense one (4 states, 2 observed dimensions); all contestants start from a variance of 1e6.
Every contestant runs in a process of its own on one core, they take turns within each round, times
are of the processor and medians. What a contestant would take too long for is measured on fewer
series, times how many there are more of them, and has a tilde.

dynamax brings JAX along, torch-kf and Pyro a pinned torch, hence environments of their own:

    python -m venv ../peers/dynamax
    ../peers/dynamax/bin/pip install -r benchmarks/peers/requirements-dynamax.txt
    python -m venv ../peers/torch
    ../peers/torch/bin/pip install -r benchmarks/peers/requirements-torch-kalman.txt

    export SEQLATENT_DATA=../shared/data
    python benchmarks/exact.py --peers ../peers/dynamax/bin/python ../peers/torch/bin/python
        [--repeats 5] [--only own] [--write docs/benchmarks.md] [--quick]

Without ``--peers`` only statsmodels is measured, which our own environment has.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exact_cases import Case, cases, structural
from exact_gpu import number
from peers.turns import ALONE, Arrays, Evaluate, Player, matrices, serve
from stopwatch import machine
from torch import Tensor

from seqlatent import kalman

HERE = Path(__file__).parent
TOLERANCE = 1e-7  # largest relative difference of log likelihoods from those of statsmodels
MARKS = "<!-- exact: begin -->", "<!-- exact: end -->"


def log_likelihood(model: tuple[Tensor, ...], y: Tensor, observed: Tensor) -> Tensor:
    """Our log likelihoods ``(B,)``: the only place that says which function is measured."""
    return kalman.log_likelihood(kalman.LinearGaussianSystem(*model), y, observed)


def prepare(model: Arrays, free: list[str], gradient: bool) -> Evaluate:
    """Our turn: makes leaves of what is free."""
    parts: dict[str, Any] = {name: torch.as_tensor(value) for name, value in model.items()}
    y, observed = parts.pop("y"), parts.pop("observed")
    theta = [parts[name].requires_grad_(gradient) for name in free]
    zero, none = parts["F"].new_zeros(len(parts["F"])), y.new_zeros(y.shape[-1])

    def evaluate() -> tuple[Tensor, dict[str, Tensor] | None]:
        with torch.set_grad_enabled(gradient):
            m = matrices(parts, torch)
            # what differs between series gets an axis of time
            Q, R = (x.unsqueeze(1) if x.dim() > 2 else x for x in (m["Q"], m["R"]))
            model = m["F"], zero, Q, zero, m["P0"], m["H"], none, R
            values = log_likelihood(model, y, observed)
        if not gradient:
            return values, None
        slopes = torch.autograd.grad(values.sum(), theta)
        return values.detach(), dict(zip(free, slopes, strict=True))

    return evaluate


def commands(peers: list[str]) -> dict[str, list[str]]:
    """How each contestant is started; ours comes first."""
    found = {
        "ours": [sys.executable, str(HERE / "exact.py"), "--play"],
        "statsmodels": [sys.executable, str(HERE / "peers" / "statsmodels_kalman.py")],
    }
    if peers:
        jax, other = peers[0], peers[-1]
        found["dynamax"] = [jax, str(HERE / "peers" / "dynamax_kalman.py")]
        found["torch-kf"] = [other, str(HERE / "peers" / "torch_kalman.py"), "torch_kf"]
        found["Pyro"] = [other, str(HERE / "peers" / "torch_kalman.py"), "pyro"]
    return found


@dataclass
class Result:
    """What a contestant took, for all series of a case."""

    ms: float
    first: float
    scaled: bool
    values: np.ndarray
    slopes: dict[str, np.ndarray]


Row = dict[str, Result]


def contest(
    case: Case, gradient: bool, players: dict[str, Player], folder: Path, options: Any
) -> Row:
    """Measures one row: contestants take turns, those that are slow fewer of them."""
    file = folder / "problem.npz"
    case.write(file)
    row: Row = {}
    times: dict[str, list[float]] = {}
    for name, player in players.items():
        most = case.limits.get(name, (case.series, case.series))[gradient]
        if not most:
            continue
        series = min(most, case.series)
        found = player.ask(do="set_up", file=str(file), gradient=gradient, series=series)
        slopes = {k: np.array(g) for k, g in found.get("slopes", {}).items()}
        factor = case.series / series
        values = np.array(found["values"])
        row[name] = Result(factor, found["first"], series < case.series, values, slopes)
        times[name] = []
    for _ in range(options.repeats):
        for name, spent in times.items():
            if sum(spent) < 1e3 * options.budget:
                spent.append(players[name].ask(do="turn", least=options.least)["ms"])
    for name, spent in times.items():
        row[name].ms *= statistics.median(spent)
    return row


def difference(row: Row, name: str) -> float:
    """Largest relative difference of log likelihoods from those of statsmodels."""
    a, b = row[name].values, row["statsmodels"].values
    few = min(len(a), len(b))
    return float((np.abs(a[:few] - b[:few]) / np.abs(b[:few])).max())


def slope_difference(row: Row) -> str:
    """The same of our gradient, from the first peer that has one of the same series."""
    mine = row["ours"]
    for name, peer in row.items():
        few = len(peer.values)
        own = few < len(mine.values) and any(len(g) == few for g in peer.slopes.values())
        if name == "ours" or not peer.slopes or not (own or few == len(mine.values)):
            continue
        worst = 0.0
        for key, g in peer.slopes.items():
            found = mine.slopes[key][: len(g)]
            worst = max(worst, float(np.abs(found - g).max() / np.abs(g).max()))
        return f"{worst:.0e} ({name})"
    return ""


def times_table(rows: dict[tuple[str, bool], Row], names: list[str]) -> list[str]:
    """Milliseconds of each contestant, and how many times as long as ours it takes."""
    lines = ["| | gradient | " + " | ".join(f"{n}, ms" for n in names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for (case, gradient), row in rows.items():
        cells = []
        for name in names:
            if name not in row:
                cells.append("n/a")
                continue
            tilde = "~" if row[name].scaled else ""
            text = tilde + number(row[name].ms)
            if name != "ours":
                text += f" (**{number(row[name].ms / row['ours'].ms)}**)"
            cells.append(text)
        lines.append(f"| {case} | {'yes' if gradient else ''} | " + " | ".join(cells) + " |")
    return lines


def agreement_table(rows: dict[tuple[str, bool], Row], names: list[str]) -> list[str]:
    """Relative differences of what was computed in the same run."""
    others = [n for n in names if n != "statsmodels"]
    lines = ["| largest relative difference | " + " | ".join(others) + " | our gradient |"]
    lines.append("|---" * (len(others) + 2) + "|")
    for (case, gradient), row in rows.items():
        if gradient:
            cells = [f"{difference(row, n):.0e}" if n in row else "n/a" for n in others]
            lines.append(f"| {case} | " + " | ".join(cells) + f" | {slope_difference(row)} |")
    return lines


def compile_line(rows: dict[tuple[str, bool], Row]) -> list[str]:
    """What dynamax took before its first answer."""
    spent = [r["dynamax"].first / 1e3 for r in rows.values() if "dynamax" in r]
    if not spent:
        return []
    return [
        "",
        f"dynamax compiles every function at its first call, which took {min(spent):.1f} to "
        f"{max(spent):.1f} s with the call and is not in the table.",
    ]


def long_series(options: Any, folder: Path) -> list[str]:
    """One local level of 100,000 steps, value and gradient: time and memory of fresh processes."""
    steps = 500 if options.quick else 100_000
    lines = [
        "",
        f"### One series of {steps:,} steps",
        "",
        "A local level, log likelihood with gradient, in a fresh process; memory is what the "
        "process grew beyond its imports at its largest.",
        "",
        "| | ms | times as long as ours | MiB | relative difference from statsmodels |",
        "|---|---|---|---|---|",
    ]
    spent: dict[str, tuple[float, float, str, float]] = {}
    for name, command in commands(options.peers).items():
        # what loops in Python is measured on fewer steps
        factor = 10 if name == "torch-kf" and not options.quick else 1
        file = folder / "long.npz"
        Case("", structural(0, (0.1, 1.0)), steps // factor, 1).write(file)
        player = Player(name, command)
        found = player.ask(do="set_up", file=str(file), gradient=True, series=1)
        rounds = 1 if found["first"] > 1e4 else min(3, options.repeats)
        turns = [player.ask(do="turn", least=options.least)["ms"] for _ in range(rounds)]
        memory = player.ask(do="memory")
        player.close()
        ms, mib = (factor * x for x in (statistics.median(turns), memory["peak"] - memory["base"]))
        spent[name] = ms, mib, "~" if factor > 1 else "", found["values"][0]
    exact = spent["statsmodels"][3]
    for name, (ms, mib, tilde, value) in spent.items():
        off = "" if tilde else f"{abs(value / exact - 1):.0e}"
        times = number(ms / spent["ours"][0])
        lines.append(f"| {name} | {tilde}{number(ms)} | {times} | {tilde}{mib:,.0f} | {off} |")
    return lines


def script(name: str, quick: list[str], options: Any) -> list[str]:
    """What another script prints, in a process of its own."""
    command = [sys.executable, str(HERE / name), *(quick if options.quick else [])]
    alone = {**os.environ, **ALONE}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return ["", done.stdout.rstrip()]


def measure(options: Any, folder: Path) -> tuple[list[str], float]:
    """The section in markdown, and the worst difference of our log likelihoods."""
    started = commands(options.peers)
    players = {name: Player(name, command) for name, command in started.items()}
    names = list(players)
    rows: dict[tuple[str, bool], Row] = {}
    for case in cases(options.quick):
        for gradient in (False, True):
            if options.only in case.name:
                began = time.perf_counter()
                rows[case.name, gradient] = contest(case, gradient, players, folder, options)
                spent = time.perf_counter() - began
                print(f"{case.name}, {gradient=}: {spent:.0f} s", file=sys.stderr, flush=True)
    versions = ", ".join(player.versions for player in players.values() if player.versions)
    for player in players.values():
        player.close()
    lines = [f"{machine()} One core each. Peers: {versions}.", ""]
    lines += times_table(rows, names)
    lines += ["", *agreement_table(rows, names), *compile_line(rows)]
    if not options.only:
        lines += long_series(options, folder)
        lines += script(
            "exact_fits.py", ["--series", "2", "--steps", "40", "--panel", "3"], options
        )
        lines += script("exact_gpu.py", ["--quick"], options)
    return lines, max((difference(row, "ours") for row in rows.values()), default=0.0)


def write(path: Path, lines: list[str]) -> None:
    """Puts the lines between the marks of a file, or into a new file."""
    text = "\n".join([MARKS[0], "", *lines, "", MARKS[1]])
    if path.exists():
        before, begin, rest = path.read_text().partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if not (begin and end):
            raise SystemExit(f"{path} has no lines {MARKS[0]} and {MARKS[1]} to write between.")
        path.write_text(before + text + after)
    else:
        path.write_text(text + "\n")


def main() -> None:
    """Prints the tables; ends with an error where our log likelihoods are not statsmodels'."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of turns in a row")
    parser.add_argument(
        "--peers", nargs="*", default=[], help="interpreters that have dynamax, and the others"
    )
    parser.add_argument("--only", default="", help="part of the name of the rows to measure")
    parser.add_argument("--write", type=Path, help="file of which the section is replaced")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.play:
        return serve("", prepare)
    options.least = 0.02
    if options.quick:
        options.repeats, options.least = 1, 0.0
    with tempfile.TemporaryDirectory() as folder:
        lines, worst = measure(options, Path(folder))
    print("\n".join(lines))
    if options.write:
        write(options.write, lines)
    if not worst < TOLERANCE:
        raise SystemExit(f"our log likelihoods differ from those of statsmodels by {worst:.1e}.")
    return None


if __name__ == "__main__":
    main()
