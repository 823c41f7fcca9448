"""DeepAR of GluonTS in an interpreter of its own: it takes a turn whenever it is told to.

Every line of the standard input is a request in JSON, every line of the standard output its answer.
Times are of this process alone, so that contestants in several processes can take turns.

    {"do": "set_up", "panel": "panel.npz", "lags": [1, 2], "context": 168, "horizon": 48,
     "batch": 32, "hidden": [40]}
    {"do": "train", "hidden": 40, "loader": true, "steps": 5}
    {"do": "forecast", "hidden": 40, "paths": 100, "rows": 32}

References:
    DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks (Salinas et al., 2020).
    GluonTS: Probabilistic and Neural Time Series Modeling in Python (Alexandrov et al., 2020).
"""

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gluonts
import lightning
import numpy as np
import pandas as pd
import torch
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator
from torch import nn


class DeepAR:
    """An estimator, the module that its trainer would train, and the step that it would make."""

    def __init__(self, data: ListDataset, hidden: int, request: dict[str, Any]) -> None:
        self.data = data
        self.estimator = DeepAREstimator(
            freq="h",
            prediction_length=request["horizon"],
            context_length=request["context"],
            hidden_size=hidden,
            lags_seq=list(request["lags"]),
            batch_size=request["batch"],
            num_batches_per_epoch=10**9,
        )
        self.module = self.estimator.create_lightning_module().train()
        self.parameters = list(self.module.parameters())
        self.adam = torch.optim.Adam(
            self.parameters, lr=self.module.lr, weight_decay=self.module.weight_decay
        )
        self.batches = self._loader()
        self.ready = next(self.batches)

    def _loader(self) -> Iterator[dict[str, torch.Tensor]]:
        transformed = self.estimator.create_transformation().apply(self.data, is_train=True)
        cached = list(transformed)  # as its trainer does with cache_data
        return iter(self.estimator.create_training_data_loader(cached, self.module))

    @property
    def size(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters)

    def train(self, steps: int, loader: bool) -> float:
        """Milliseconds of a step: batch, gradients to zero, loss, backward, clip, Adam."""
        start = time.process_time()
        for i in range(steps):
            batch = next(self.batches) if loader else self.ready
            self.adam.zero_grad()
            self.module.training_step(batch, i).backward()
            nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.adam.step()
        return 1e3 * (time.process_time() - start) / steps

    def forecast(self, paths: int, rows: int) -> tuple[float, tuple[int, ...]]:
        """Seconds for paths of all series, and the shape of what came out."""
        self.module.eval()
        self.estimator.batch_size = rows
        transformation = self.estimator.create_transformation()
        predictor = self.estimator.create_predictor(transformation, self.module)
        start = time.process_time()
        found = [f.samples for f in predictor.predict(self.data, num_samples=paths)]
        seconds = time.process_time() - start
        self.module.train()
        return seconds, (len(found), *found[0].shape)


def _memory() -> float:
    """Largest resident memory of this process so far, in GiB."""
    try:  # what getrusage says includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _read(path: str) -> ListDataset:
    panel = np.load(path)
    start = pd.Period("2000-01-01 00:00", freq="h")
    ends = panel["lengths"].cumsum()
    series = np.split(panel["y"], ends[:-1])
    return ListDataset([{"start": start, "target": y} for y in series], freq="h")


def main() -> None:
    """Answers requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not look like an answer
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = _memory()
    models: dict[int, DeepAR] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        if request["do"] == "set_up":
            data = _read(request["panel"])
            models = {hidden: DeepAR(data, hidden, request) for hidden in request["hidden"]}
            answer = {
                "versions": f"gluonts {gluonts.__version__}, lightning {lightning.__version__}, "
                f"torch {torch.__version__}",
                "parameters": {str(hidden): model.size for hidden, model in models.items()},
            }
        elif request["do"] == "train":
            model = models[request["hidden"]]
            answer = {"ms": model.train(request["steps"], request["loader"])}
        else:
            model = models[request["hidden"]]
            seconds, shape = model.forecast(request["paths"], request["rows"])
            answer = {"seconds": seconds, "shape": shape, "base": base, "peak": _memory()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
