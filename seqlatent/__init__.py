"""Sequential latent-variable models of time series: exact, structured-variational and neural.

A model is a :class:`~seqlatent.memory.Memory`, a :class:`~seqlatent.transitions.Transition` and an
:class:`~seqlatent.emissions.Emission`; an :class:`~seqlatent.inference.Inference` turns
observations into another :class:`~seqlatent.chain.Chain`; every objective compares the two.

The names and modules below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqlatent.model import Belief, LatentModel
    from seqlatent.objectives import elbo, evidence, fivo, iwae
    from seqlatent.sequences import Context, Sequences
    from seqlatent.training import fit

__version__ = "0.1.0"

__all__ = [
    "Belief",
    "Context",
    "LatentModel",
    "Sequences",
    "__version__",
    "elbo",
    "evidence",
    "fit",
    "fivo",
    "iwae",
]

_HOMES = {
    "Belief": "model",
    "Context": "sequences",
    "LatentModel": "model",
    "Sequences": "sequences",
    "elbo": "objectives",
    "evidence": "objectives",
    "fit": "training",
    "fivo": "objectives",
    "iwae": "objectives",
}
_MODULES = {
    "chain",
    "datasets",
    "diagnostics",
    "distributions",
    "emissions",
    "forecasting",
    "hmm",
    "inference",
    "kalman",
    "linalg",
    "memory",
    "model",
    "networks",
    "objectives",
    "prior",
    "recurrence",
    "sequences",
    "switching",
    "testing",
    "training",
    "transitions",
    "zoo",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"seqlatent.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"seqlatent.{name}")
    raise AttributeError(f"module 'seqlatent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
