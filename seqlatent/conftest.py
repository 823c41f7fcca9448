"""What the examples in docstrings find: `torch`, `seqlatent`, and a random state of their own."""

from contextlib import ExitStack
from typing import Any

import pytest
import torch

import seqlatent


@pytest.fixture(autouse=True)
def doctest_environment(request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]) -> None:
    """Injects the names; seeds inside a fork, so that an example prints the same in any order."""
    doctest_namespace["torch"] = torch
    doctest_namespace["seqlatent"] = seqlatent
    # No `yield`: this file is part of the package, whose functions the run-time type checks wrap,
    # and pytest would not see that a wrapped function is a generator.
    stack = ExitStack()
    stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
    request.addfinalizer(stack.close)  # noqa: PT021
    torch.manual_seed(0)
