"""Weights of recurrent networks that ship with the package, read when they are first used."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from seqlatent.amortised.weights import card_of, unpack_networks
from seqlatent.recurrent.network import RecurrentNetwork

__all__ = ["load_recurrent_networks", "recurrent_card", "recurrent_hash"]

_FILE = "weights.safetensors"


@cache
def _shipped() -> bytes:
    return files("seqlatent.recurrent").joinpath(_FILE).read_bytes()


@cache
def load_recurrent_networks() -> tuple[RecurrentNetwork, ...]:
    """The networks that ship with the package, not to be changed: training copies them."""
    return tuple(unpack_networks(_shipped(), RecurrentNetwork))


def recurrent_card() -> dict[str, Any]:
    """What is to be said of these weights: prior, steps, seeds, sizes."""
    return card_of(_shipped())


def recurrent_hash() -> str:
    """SHA-256 of these weights."""
    return hashlib.sha256(_shipped()).hexdigest()
