"""Fixtures and habits that every test shares.

Nothing here changes torch's defaults: a test that wants float64 says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import trained

os.environ.setdefault("MPLBACKEND", "Agg")

# The default finds the same examples in every run, so that a failure is never a matter of luck;
# `HYPOTHESIS_PROFILE=nightly` searches.
hypothesis.settings.register_profile(
    "default", max_examples=15, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile(
    "nightly", max_examples=300, deadline=None, print_blob=True, database=None
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Names the folder in which the workers of a run find what others of them have trained."""
    if hasattr(config, "workerinput"):
        trained.FOLDERS[:] = [Path(config.option.basetemp).parent / "trained"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine, or the wish of who runs the tests, does not allow."""
    skips = []
    if not torch.cuda.is_available():
        skips.append(("gpu", pytest.mark.skip(reason="no accelerator")))
    if os.environ.get("SEQLATENT_NETWORK") != "1":
        skips.append(("network", pytest.mark.skip(reason="downloads: set SEQLATENT_NETWORK=1")))
    for item in items:
        for name, skip in skips:
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def forked_rng() -> Iterator[None]:
    """Seeds torch's global generator inside a fork: no test sees what another one drew."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed, for the functions that take one."""
    return torch.Generator().manual_seed(0)
