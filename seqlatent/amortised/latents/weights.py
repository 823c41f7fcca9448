"""Weights of networks of latents that ship with the package, read when they are first used."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from seqlatent.amortised.latents.network import LatentNetwork
from seqlatent.amortised.weights import card_of, unpack_networks

__all__ = ["latent_card", "latent_hash", "load_latent_networks"]

_FILE = "weights.safetensors"


@cache
def _shipped() -> bytes:
    return files("seqlatent.amortised.latents").joinpath(_FILE).read_bytes()


@cache
def load_latent_networks() -> tuple[LatentNetwork, ...]:
    """The networks of latents that ship with the package, not to be changed."""
    return tuple(unpack_networks(_shipped(), LatentNetwork))


def latent_card() -> dict[str, Any]:
    """What is to be said of these weights: prior, steps, seeds, sizes, scores."""
    return card_of(_shipped())


def latent_hash() -> str:
    """SHA-256 of these weights."""
    return hashlib.sha256(_shipped()).hexdigest()
