"""What an engine of networks has learned, as plain values and tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from seqlatent.amortised import Adaptation, Network, Rehearsal, Seasons
from seqlatent.amortised.latents import LatentNetwork
from seqlatent.forecasting.engines.amortised.predictor import Pool
from seqlatent.forecasting.errors import FolderError

__all__ = ["networks_of", "pool_of", "pool_to_tensors"]

CHANGED = (
    "the networks of the package are others than when this was saved, and forecasts differ from "
    "those of then"
)
"""What is to be noted where forecasts come from other networks than before."""

TOLD_OTHERWISE = (
    "the networks of latents of the package are others than when this was saved, and components, "
    "breaks, parameters and holes differ from those of then"
)
"""The same of what is told of rows that are there."""

_KEPT = ("y", "observed", "future")

N = TypeVar("N", bound=nn.Module)


def adapt_to_dict(adapt: bool | Adaptation) -> Any:
    """How networks are adapted, as JSON holds it."""
    return adapt if isinstance(adapt, bool) else asdict(adapt)


def adapt_from_dict(held: Any) -> bool | Adaptation:
    """Reads what :func:`adapt_to_dict` gave."""
    return held if isinstance(held, bool) else Adaptation(**held)


def networks_to_tensors(
    prefix: str, networks: Sequence[Network] | Sequence[LatentNetwork]
) -> dict[str, Tensor]:
    """Weights of networks by their names."""
    return {
        f"{prefix}.{i}.{name}": weight.detach().contiguous()
        for i, network in enumerate(networks)
        for name, weight in network.state_dict().items()
    }


def networks_of(
    prefix: str,
    sizes: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
    kind: type[N] = Network,
) -> tuple[N, ...]:
    """Reads what :func:`networks_to_tensors` gave, of networks of a kind and of some sizes."""
    found = []
    for i, size in enumerate(sizes):
        start = f"{prefix}.{i}."
        weights = {k.removeprefix(start): x for k, x in tensors.items() if k.startswith(start)}
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            network = kind(**size)
        now = {k: x.shape for k, x in network.state_dict().items()}
        if now != {k: x.shape for k, x in weights.items()}:
            raise FolderError(
                f"the folder holds a {kind.__name__} whose weights have other shapes than in this "
                "version of seqlatent, which reads more of a series: fit or train again, or load "
                "it with the version that wrote it."
            )
        network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        found.append(network.eval().requires_grad_(False))
    return tuple(found)


def pool_to_tensors(pool: Pool) -> dict[str, Tensor]:
    """Arrays of a pool by their names."""
    return {f"pool.{name}": torch.from_numpy(np.array(x)) for name, x in vars(pool).items()}


def pool_of(tensors: Mapping[str, Tensor]) -> Pool:
    """Reads what :func:`pool_to_tensors` gave."""
    start = "pool."
    return Pool(
        **{k.removeprefix(start): x.numpy() for k, x in tensors.items() if k.startswith(start)}
    )


def rehearsal_to_tensors(rehearsal: Rehearsal | None) -> dict[str, Tensor]:
    """Drawn series by their names."""
    if rehearsal is None:
        return {}
    return {f"rehearsal.{name}": getattr(rehearsal, name) for name in _KEPT}


def rehearsal_of(
    leads: int | None, seasons: Seasons, tensors: Mapping[str, Tensor]
) -> Rehearsal | None:
    """Reads what :func:`rehearsal_to_tensors` gave; no leads where there was none."""
    if leads is None:
        return None
    y, observed, future = (tensors[f"rehearsal.{name}"] for name in _KEPT)
    return Rehearsal(y, observed, future, seasons, leads)


def sizes_of(networks: Sequence[Network] | Sequence[LatentNetwork] | None) -> list[Any] | None:
    """Sizes of networks, as JSON holds them."""
    return None if networks is None else [network.config for network in networks]


def same(networks: Sequence[Network], others: Sequence[Network]) -> bool:
    """Whether networks have the same weights."""
    if len(networks) != len(others):
        return False
    pairs = [
        (x, y)
        for one, other in zip(networks, others, strict=True)
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    ]
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


def size(networks: Sequence[Network]) -> int:
    """Number of weights."""
    return sum(x.numel() for network in networks for x in network.parameters())
