"""Contracts of parts: what every transition, emission, memory, posterior and engine owes.

Each is a function that takes what builds a part of your own and raises an AssertionError with a
sentence where the part breaks a law, and a class whose tests a class of pytest's may inherit.

Example:
    >>> from seqlatent.testing import check_transition
    >>> check_transition(lambda: seqlatent.transitions.LocalLevel(scale=0.5))[:1]
    ['initial has the batch of its context']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqlatent.testing.contract import Contract, context
from seqlatent.testing.emissions import EmissionContract, check_emission
from seqlatent.testing.memories import MemoryContract, check_memory
from seqlatent.testing.posteriors import PosteriorContract, check_posterior
from seqlatent.testing.transitions import TransitionContract, check_transition

if TYPE_CHECKING:
    from seqlatent.testing.engines import EngineContract, check_engine

__all__ = [
    "Contract",
    "EmissionContract",
    "EngineContract",
    "MemoryContract",
    "PosteriorContract",
    "TransitionContract",
    "check_emission",
    "check_engine",
    "check_memory",
    "check_posterior",
    "check_transition",
    "context",
]


def __getattr__(name: str) -> Any:
    if name in ("EngineContract", "check_engine"):  # dataframes load when they are asked for
        return getattr(import_module("seqlatent.testing.engines"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
