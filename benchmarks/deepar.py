"""How fast are the neural forecasters, beside DeepAR of GluonTS?

Training: a step on windows of 168 + 48 hours of the M4 competition's hourly series, 32 windows at a
time, both with Adam, clipped gradients, Student's t and the same lags; ours is one network of the
forecaster's ensemble. DeepAR is measured at its default size and at the width that gives it as many
parameters as ours. Prediction: 100 sample paths of 48 steps for 1,000 series, each contestant in a
fresh process that reports its time and its largest memory. One thread each; contestants take turns
and never run at the same time; times are of the processor, the least of all rounds.

GluonTS needs an older pandas, hence an environment of its own; torch comes first and pinned:

    python -m venv ../gluonts
    ../gluonts/bin/pip install torch==2.13.0
    ../gluonts/bin/pip install -r benchmarks/peers/requirements-gluonts.txt

    export SEQLATENT_DATA=../shared/data SEQLATENT_GLUONTS_PYTHON=../gluonts/bin/python
    python benchmarks/deepar.py [--model recurrent] [--repeats 20] [--python PATH] [--quick]

``recurrent`` reads as many windows of as many hours, and is asked for four leads from each of 384
of their rows; what its filters have read is at hand before a step, and computed for a forecast.
"""

import argparse
import copy
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stopwatch import machine, parameter_count
from torch import Tensor, nn

from seqlatent.amortised import QuantileFunction, Seasons, copula
from seqlatent.datasets import split
from seqlatent.forecasting import DataSummary, spec_of
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo
from seqlatent.recurrent import Data, History, Windows, load_recurrent_networks
from seqlatent.sequences import Sequences

PEER = Path(__file__).parent / "peers" / "gluonts_deepar.py"
CONTEXT, HORIZON, BATCH, PATHS, SERIES = 168, 48, 32, 100, 1000
PEER_ROWS = 32  # series that GluonTS predicts at once: its batch size
OUR_ROWS = 100  # as many paths at once as keep a step of the rollout inside the cache
SEASONS = (24, 168)
LAGS = (*range(1, 8), *(24 * day + hour for day in range(1, 8) for hour in (-1, 0, 1)))


def recipe() -> tuple[LatentModel, Callable[..., Tensor]]:
    """The forecaster to measure, and its objective: the only place that says what it is."""
    spec = spec_of("srnn")
    data_summary = DataSummary(
        covariate_dim=2 * len(SEASONS), season_lengths=SEASONS, series=414, rows=700
    )
    model = spec.build(data_summary)[0]
    if model.memory.lags != LAGS:
        raise SystemExit(f"the recipe reads the lags {model.memory.lags}: give them to DeepAR too.")
    return model, getattr(spec.train, "objective", elbo)


class Panel:
    """Series of unequal length from which windows are drawn, with phases of day and week."""

    def __init__(self, y: np.ndarray, lengths: np.ndarray) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.y = torch.as_tensor(y, dtype=torch.float32)
        time = torch.arange(int(self.lengths.max()) + HORIZON)
        angles = [2 * math.pi * time / season for season in SEASONS]
        self.phases = torch.stack([f(a) for a in angles for f in (torch.sin, torch.cos)], -1)
        series = self.y.split(self.lengths.tolist())
        self.scale = torch.stack([s.abs().mean() for s in series])[:, None]
        self.shift = torch.zeros_like(self.scale)

    def rows(self, series: Tensor, first: Tensor, steps: int) -> Sequences:
        """Windows that start at these rows; rows before the first one are unobserved."""
        index = first[:, None] + torch.arange(steps)
        known = index.clamp_min(0)
        observed = index >= 0
        y = torch.where(observed, self.y[self.starts[series, None] + known], 0.0)[..., None]
        codes = torch.zeros(len(series), 0, dtype=torch.long)
        own = self.shift[series], self.scale[series]
        t = index.to(y.dtype)
        return Sequences(y, observed[..., None], t, self.phases[known], codes, *own)

    def window(self) -> Sequences:
        """A batch of windows to train on."""
        series = torch.randint(len(self.lengths), (BATCH,))
        room = self.lengths[series] - (CONTEXT + HORIZON) + 1
        first = (torch.rand(BATCH) * room).long()
        return self.rows(series, first, CONTEXT + HORIZON)

    def past(self, series: Tensor) -> Sequences:
        """All that a forecast may read: as many rows as DeepAR is given."""
        steps = CONTEXT + max(LAGS)
        return self.rows(series, self.lengths[series] - steps, steps)

    def future(self, series: Tensor) -> Tensor:
        """Covariates of the steps to forecast."""
        return self.phases[self.lengths[series, None] + torch.arange(HORIZON)]


class Ours:
    """Our model, and the step that training makes."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.model, self.objective = recipe()
        self.parameters = list(self.model.parameters())
        self.adam = torch.optim.Adam(self.parameters, lr=1e-3)
        self.ready = panel.window()

    def train(self, steps: int, loader: bool) -> float:
        """Milliseconds of a step: batch, gradients to zero, objective, backward, clip, Adam."""
        start = time.process_time()
        for _ in range(steps):
            batch = self.panel.window() if loader else Sequences(*_fields(self.ready))
            self.adam.zero_grad()
            (-self.objective(self.model, batch).mean() / batch.steps).backward()
            nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.adam.step()
        return 1e3 * (time.process_time() - start) / steps

    def forecast(self, paths: int, rows: int) -> tuple[float, tuple[int, ...]]:
        """Seconds for paths of all series, and the shape of what came out."""
        start = time.process_time()
        found = []
        for series in torch.arange(len(self.panel.lengths)).split(rows):
            belief = self.model.belief(self.panel.past(series), end=False)
            future = self.panel.future(series)
            found.append(self.model.forecast(belief, HORIZON, n=paths, u=future).y[..., 0])
        y = torch.cat(found, 1)
        return time.process_time() - start, tuple(y.shape)


class OursRecurrent:
    """The network over a bank of filters, and the step that its training makes."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        (shipped, *_) = load_recurrent_networks()
        self.model = copy.deepcopy(shipped).requires_grad_(True).train()
        self.parameters = list(self.model.parameters())
        self.adam = torch.optim.Adam(self.parameters, lr=1e-3)
        self.windows = Windows(rows=CONTEXT + HORIZON, cells=BATCH * (CONTEXT + HORIZON))
        self.generator = torch.Generator().manual_seed(0)
        self._data: Data | None = None

    @property
    def data(self) -> Data:
        """The panel as filters have read it, each series at the end of its row."""
        if self._data is None:
            lengths = self.panel.lengths
            width = int(lengths.max())
            y, seen = torch.zeros(len(lengths), width), torch.zeros(len(lengths), width).bool()
            for i, part in enumerate(self.panel.y.split(lengths.tolist())):
                y[i, width - len(part) :], seen[i, width - len(part) :] = part, True
            blank = torch.zeros(len(lengths), width, 0)
            history = History(y, seen, Seasons(*SEASONS))
            self._data = Data(history, 1, blank, slice(0, 0), blank[:, 0], HORIZON)
        return self._data

    def train(self, steps: int, loader: bool) -> float:
        """Milliseconds of a step: windows are drawn in any of them."""
        data = self.data
        start = time.process_time()
        for _ in range(steps):
            loss = self.windows.loss(self.model, data, self.generator)
            assert loss is not None
            self.adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.adam.step()
        return 1e3 * (time.process_time() - start) / steps

    @torch.no_grad()
    def forecast(self, paths: int, rows: int) -> tuple[float, tuple[int, ...]]:
        """Seconds for paths of all series, from rows to filters, memories and paths."""
        network, generator = self.model.eval(), self.generator
        start = time.process_time()
        found = []
        leads = torch.arange(1, HORIZON + 1)
        for series in torch.arange(len(self.panel.lengths)).split(256):
            past = self.panel.past(series)
            y, seen = past.y[..., 0], past.observed[..., 0]
            history = History(y, seen, Seasons(*SEASONS))
            last = torch.full((len(y),), y.shape[1] - 1)
            blank = torch.zeros(*y.shape, 0)
            memory = network.remember_all(history.rows.float(), blank, history.inside)[:, -1]
            read = history.origins(torch.arange(len(y)), last, leads.expand(len(y), -1)).read()
            none = torch.zeros(len(y), HORIZON, 0)
            said = network(memory, read, none, none[:, 0])
            knots = said.knots * read.scale[..., None] + read.reference[..., None]
            scores = copula.sample(said.loadings.double(), paths, generator)
            found.append(QuantileFunction(knots.double()).at(scores))
        y = torch.cat(found, 1)
        return time.process_time() - start, tuple(y.shape)


OURS: dict[str, type] = {"srnn": Ours, "recurrent": OursRecurrent}


def _fields(sequences: Sequences) -> tuple[Tensor, ...]:
    """Fields without what was cached, so that no step profits from the one before."""
    s = sequences
    return s.y, s.observed, s.t, s.u, s.codes, s.shift, s.scale


class Peer:
    """GluonTS in another interpreter, which takes a turn whenever it is asked."""

    def __init__(self, python: str, panel: Path, hidden: list[int]) -> None:
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=alone,
        )
        settings = {"lags": LAGS, "context": CONTEXT, "horizon": HORIZON, "batch": BATCH}
        self.about = self.ask(do="set_up", panel=str(panel), hidden=hidden, **settings)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            command = " ".join(map(str, self.process.args))
            raise SystemExit(f"the peer ended early; see what it says with: {command}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()


class Contest:
    """What one run measures."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.python = options.python
        self.file, self.many = folder / "panel.npz", folder / "many.npz"
        write(self.file, options.series)
        write(self.many, options.series, repeated=options.forecasts)

    @cached_property
    def own(self) -> Any:
        """Our model on the panel."""
        return OURS[self.options.model](Panel(**np.load(self.file)))

    @cached_property
    def matched(self) -> int:
        """Width at which DeepAR has about as many parameters as our model."""
        ours = parameter_count(self.own.model)
        return min(range(8, 400), key=lambda hidden: abs(deepar_size(hidden) - ours))

    def training(self) -> dict[str, dict[str, Any]]:
        """Milliseconds of a step and parameters of each contestant."""
        own, model = self.own, self.options.model
        sizes = [40, self.matched]
        peer = Peer(self.python, self.file, sizes)
        print(f"Peer: {peer.about['versions']}.")
        steps = self.options.steps
        turns: dict[str, Callable[[bool], float]] = {model: lambda drawn: own.train(steps, drawn)}
        size = {model: parameter_count(own.model)}
        for hidden in sizes:
            name = f"DeepAR, 2 x {hidden}"
            size[name] = peer.about["parameters"][str(hidden)]
            turns[name] = partial(_peer_turn, peer, hidden, steps)
        found = {name: {"parameters": size[name], True: [], False: []} for name in turns}
        for repeat in range(self.options.repeats + 1):
            for drawn in (False, True):
                for name, turn in turns.items():
                    ms = turn(drawn)
                    if repeat:
                        found[name][drawn].append(ms)
        peer.close()
        return found

    def prediction(self) -> dict[str, list[dict[str, Any]]]:
        """Seconds and memory of each contestant, in a fresh process each time."""
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(self.options.forecast_repeats):
            found.setdefault(self.options.model, []).append(self._ours())
            for hidden in (40, self.matched):
                found.setdefault(f"DeepAR, 2 x {hidden}", []).append(self._peers(hidden))
        return found

    def _ours(self) -> dict[str, Any]:
        model = self.options.model
        command = [sys.executable, __file__, "--model", model, "--alone", str(self.many)]
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, env=alone, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def _peers(self, hidden: int) -> dict[str, Any]:
        peer = Peer(self.python, self.many, [hidden])
        answer = peer.ask(do="forecast", hidden=hidden, paths=PATHS, rows=PEER_ROWS)
        peer.close()
        return answer


def _peer_turn(peer: Peer, hidden: int, steps: int, drawn: bool) -> float:
    return peer.ask(do="train", hidden=hidden, loader=drawn, steps=steps)["ms"]


def deepar_size(hidden: int) -> int:
    """Parameters of DeepAR with two layers of this width: lags, five times, three statics."""
    inputs = len(LAGS) + 5 + 3
    first, second = (4 * hidden * (width + hidden + 2) for width in (inputs, hidden))
    return first + second + 3 * (hidden + 1) + 1


def write(path: Path, series: int | None, repeated: int | None = None) -> None:
    """Writes the training part of the hourly series, or as many as asked, in turn."""
    frame, _ = split("m4_hourly")
    values = [y.to_numpy() for _, y in frame.groupby("unique_id", sort=False)["y"]][:series]
    if repeated is not None:
        values = [values[i % len(values)] for i in range(repeated)]
    np.savez(path, y=np.concatenate(values), lengths=np.array([len(y) for y in values]))


def memory() -> float:
    """Largest resident memory of this process so far, in GiB."""
    try:  # what getrusage says includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def alone(path: str, model: str) -> None:
    """Predicts in this process and prints what it cost."""
    base = memory()
    seconds, shape = OURS[model](Panel(**np.load(path))).forecast(PATHS, OUR_ROWS)
    print(json.dumps({"seconds": seconds, "shape": shape, "base": base, "peak": memory()}))


def report_training(found: Mapping[str, Mapping[Any, Any]]) -> float:
    """Prints the table; how many times as fast ours is as the DeepAR of its size."""
    unrolled = {name: CONTEXT + HORIZON - (name not in OURS) for name in found}
    print("\n| | parameters | ms a step | series-steps a second | with the drawing of batches |")
    print("|---" * 5 + "|")
    rate = {}
    for name, row in found.items():
        cells = 1e3 * BATCH * unrolled[name]
        rate[name] = cells / min(row[False]), cells / min(row[True])
        print(
            f"| {name} | {row['parameters']:,} | {min(row[False]):.1f} | {rate[name][0]:,.0f} "
            f"| {rate[name][1]:,.0f} |"
        )
    ours, default, matched = rate.values()
    print(
        f"\nA step of ours handles {ours[0] / matched[0]:.2f} times as many series-steps a second "
        f"as DeepAR of its size and {ours[0] / default[0]:.2f} times as many as DeepAR by default; "
        f"with the drawing of batches {ours[1] / matched[1]:.2f} and {ours[1] / default[1]:.2f}."
    )
    return ours[0] / matched[0]


def report_prediction(found: Mapping[str, list[dict[str, Any]]], series: int) -> None:
    """Prints the table."""
    print(f"\n{PATHS} paths of {HORIZON} steps for {series:,} series:\n")
    print("| | seconds | largest memory, GiB | of which imports, GiB |")
    print("|---" * 4 + "|")
    for name, runs in found.items():
        seconds, peak, base = (min(run[key] for run in runs) for key in ("seconds", "peak", "base"))
        print(f"| {name} | {seconds:.1f} | {peak:.2f} | {base:.2f} |")


def main() -> None:
    """Prints two tables and their conclusion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=OURS, default="srnn")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of training that count")
    parser.add_argument("--forecast-repeats", type=int, default=2, help="rounds of prediction")
    parser.add_argument("--steps", type=int, default=2, help="training steps in a turn")
    parser.add_argument("--forecasts", type=int, default=SERIES, help="series to predict")
    parser.add_argument("--series", type=int, default=None, help="series to train on; all of them")
    default = os.environ.get("SEQLATENT_GLUONTS_PYTHON")
    parser.add_argument("--python", default=default, help="interpreter that has gluonts")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.alone:
        return alone(options.alone, options.model)
    if not options.python:
        parser.error("name the interpreter that has gluonts: --python or SEQLATENT_GLUONTS_PYTHON.")
    if options.quick:
        options.repeats, options.steps, options.series = 1, 1, 20
        options.forecasts, options.forecast_repeats = 20, 1
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(options, Path(folder))
        report_training(contest.training())
        report_prediction(contest.prediction(), options.forecasts)
    return None


if __name__ == "__main__":
    main()
