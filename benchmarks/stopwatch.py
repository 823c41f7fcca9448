"""What the scripts here share: contestants that take turns, and the line on the machine."""

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

Step = Callable[[], object]


def arguments(doc: str | None, repeats: int) -> argparse.Namespace:
    """Reads ``--repeats`` and ``--quick``, and keeps torch on one thread."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds that are counted")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    found = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return found


def machine() -> str:
    """One line on what the numbers were measured with."""
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} thread of {_processor()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, Python {platform.python_version()}, "
        f"{datetime.date.today():%B %Y}; processor time."
    )


def training_step(model: nn.Module, objective: Callable[[], Tensor]) -> Step:
    """One step of training: gradients to zero, objective, backward, clip, Adam."""
    parameters = list(model.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        adam.zero_grad()
        (-objective().mean()).backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        adam.step()

    return step


def race(contestants: Mapping[str, Step], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each contestant; they take turns within a round."""
    for step in contestants.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, step in contestants.items():
            start = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - start))
    return times


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times as fast one contestant is as another, at the median."""
    return statistics.median(times[slow]) / statistics.median(times[fast])


def parameter_count(model: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in model.parameters())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
