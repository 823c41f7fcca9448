"""A contestant in a process of its own, which takes a turn whenever it is told to.

Every line of the standard input is a request in JSON, every line of the standard output its answer.
Times are of this process alone and of the processor, so that contestants can take turns. A problem
is a file of arrays: ``y`` and ``observed (B, T, D)``, ``P0``, and either the variances of a
structural model (``log_variances`` of the disturbances and, last, of the noise; ``select`` says
which disturbance drives which state; ``F``, ``H``) or a dense model (``F, H`` and the factors
``Q_factor, R_factor``). What is named in ``free`` is what the gradient is taken in.

    {"do": "set_up", "file": "problem.npz", "gradient": true, "series": 32}
    {"do": "turn", "least": 0.02}
    {"do": "memory"}
"""

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
# gives log likelihoods (B,), and gradients in what is free, or None where none were asked for
Evaluate = Callable[[], tuple[Any, Arrays | None]]


def matrices(model: dict[str, Any], xp: Any) -> dict[str, Any]:
    """F, Q, H, R and P0 of a problem in numpy, jax.numpy or torch, with leading axes if it has."""
    F, H, P0 = model["F"], model["H"], model["P0"]
    if "log_variances" not in model:
        G, E = model["Q_factor"], model["R_factor"]
        return {"F": F, "Q": G @ G.mT, "H": H, "R": E @ E.mT, "P0": P0}
    variances = xp.exp(model["log_variances"])
    eye = xp.eye(F.shape[-1], dtype=F.dtype)
    Q = (variances[..., :-1] @ model["select"].T)[..., None] * eye
    return {"F": F, "Q": Q, "H": H, "R": variances[..., -1:, None], "P0": P0}


def read(file: str, series: int | None) -> tuple[Arrays, list[str]]:
    """The arrays of a problem for its first series, and the names of those that are free."""
    with np.load(file) as found:
        model = {name: found[name] for name in found.files}
    free = model.pop("free").tolist()
    own = model.get("log_variances", model["F"]).ndim > 1 and "log_variances" in model
    for name in ("y", "observed", *(["log_variances"] if own else [])):
        model[name] = model[name][:series]
    return model, free


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    try:  # what getrusage says includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(versions: str, prepare: Callable[[Arrays, list[str], bool], Evaluate]) -> None:
    """Answers requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not look like an answer
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    base, evaluate = peak(), None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "set_up":
            evaluate = None  # its memory must not be held twice
            model, free = read(request["file"], request.get("series"))
            gradient = request["gradient"]
            start = time.process_time()
            evaluate = prepare(model, free, gradient)
            values, slopes = evaluate()
            answer: dict[str, Any] = {
                "first": 1e3 * (time.process_time() - start),
                "values": np.asarray(values).tolist(),
            }
            if slopes is not None:
                answer["slopes"] = {name: np.asarray(g).tolist() for name, g in slopes.items()}
        elif request["do"] == "turn":
            assert evaluate is not None
            answer = {"ms": _turn(evaluate, request.get("least", 0.02))}
        else:
            answer = {"base": base, "peak": peak()}
        print(json.dumps(answer), file=answers, flush=True)


def _turn(evaluate: Evaluate, least: float) -> float:
    """Milliseconds of an evaluation, of several in a row where one is short."""
    count, start = 0, time.process_time()
    while True:
        evaluate()
        count += 1
        spent = time.process_time() - start
        if spent >= least:
            return 1e3 * spent / count


class Player:
    """A contestant in a process of its own, which takes a turn whenever it is asked."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ALONE},
        )
        self.versions: str = self._answer()["versions"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            command = " ".join(map(str, self.process.args))
            raise SystemExit(f"{self.name} ended early; see what it says with: {command}")
        return json.loads(answer)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()
