"""What takes long to train, made once for all workers of a run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

FOLDERS: list[Path] = []  # that of this run, where it has workers


def shared(name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, or gave another worker."""
    if not FOLDERS:
        return make()
    FOLDERS[0].mkdir(exist_ok=True)
    path = FOLDERS[0] / f"{name}.pickle"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())


class Trained(dict):
    """Models by name, each trained when it is first asked for.

    Args:
        group: What tells them from those of other files.
        make: Trains one.
    """

    def __init__(self, group: str, make: Callable[[str], Any]) -> None:
        self.group, self.make = group, make

    def __missing__(self, name: str) -> Any:
        found = self[name] = shared(f"{self.group}-{name}", lambda: self.make(name))
        return found
