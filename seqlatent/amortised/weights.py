"""Weights that ship with the package, read when they are first used."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqlatent.amortised.network import Network

__all__ = ["card", "card_of", "load_networks", "pack_networks", "unpack_networks", "weights_hash"]

_FILE = "weights.safetensors"

N = TypeVar("N", bound=nn.Module)


def pack_networks(networks: Sequence[nn.Module], card: dict[str, Any]) -> bytes:
    """A file of networks, in half precision, and what is to be said of them.

    Args:
        networks: The networks, each with what makes another of its sizes in ``config``.
        card: Prior, steps, seeds, scores, as plain values.
    """
    from safetensors.torch import save

    tensors = {
        f"{i}.{name}": weight.half().contiguous()
        for i, network in enumerate(networks)
        for name, weight in network.state_dict().items()
    }
    sizes = [network.config for network in networks]
    return save(tensors, {"card": json.dumps(card), "networks": json.dumps(sizes)})


def unpack_networks(data: bytes, kind: Callable[..., N]) -> list[N]:
    """Reads what :func:`pack_networks` gave, of networks of a kind."""
    from safetensors.torch import load

    tensors: dict[str, Tensor] = load(data)
    found = []
    for i, sizes in enumerate(json.loads(_header(data)["networks"])):
        with torch.device("meta"):  # first weights are not drawn
            network = kind(**sizes)
        prefix = f"{i}."
        network.load_state_dict(
            {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)},
            assign=True,
        )
        found.append(network.eval().requires_grad_(False))
    return found


@cache
def _shipped() -> bytes:
    return files("seqlatent.amortised").joinpath(_FILE).read_bytes()


@cache
def _networks() -> tuple[Network, ...]:
    return tuple(unpack_networks(_shipped(), Network))


def load_networks() -> tuple[Network, ...]:
    """The networks that ship with the package, not to be changed: copy what is to be trained."""
    return _networks()


def weights_hash() -> str:
    """SHA-256 of the weights that ship with the package."""
    return hashlib.sha256(_shipped()).hexdigest()


def card() -> dict[str, Any]:
    """What is to be said of the weights: prior, steps, seeds, sizes, scores."""
    return card_of(_shipped())


def card_of(data: bytes) -> dict[str, Any]:
    """What is to be said of the networks of a file."""
    return json.loads(_header(data)["card"])


def _header(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]
