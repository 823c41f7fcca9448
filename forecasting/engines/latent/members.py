"""Members of an ensemble before training, as a spec builds them and the seed decides."""

import threading
from copy import deepcopy

import torch

from seqlatent.forecasting.engines.spec import DataSummary, Seeded, Spec
from seqlatent.model import LatentModel
from seqlatent.networks import reinitialise

__all__ = []

# Building a model draws from torch's global generator, which is put back; two at once must not mix.
_BUILDING = threading.Lock()


def members_of(spec: Spec, data_summary: DataSummary, seed: int) -> tuple[LatentModel, ...]:
    """Untrained members of a spec, in its type.

    What they come with is kept, and what the build draws follows from the seed; members of
    :class:`Seeded` builds are drawn anew.

    Raises:
        TypeError: If the build gives no list of models.
    """
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        built = spec.build(data_summary)
    _check(built)
    if not isinstance(spec.build, Seeded):
        # trained in place, they would begin the next fit where this one ends
        return tuple(deepcopy(model).to(spec.dtype) for model in built)
    for i, model in enumerate(built):
        model.to(spec.dtype)
        reinitialise(model, torch.Generator().manual_seed(1000 * seed + i))
    return tuple(built)


def _check(built: object) -> None:
    listed = isinstance(built, list | tuple)
    if listed and built and all(isinstance(model, LatentModel) for model in built):
        return
    inside = f" of {', '.join(type(model).__name__ for model in built)}" if listed and built else ""
    raise TypeError(
        "Spec.build must return a list of LatentModels, the members, found "
        f"{type(built).__name__}{inside}; write build=lambda data_summary: [LatentModel(...)]."
    )
