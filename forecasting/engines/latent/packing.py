"""Packing: an ensemble as plain values and tensors, as a folder holds it."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from seqlatent.forecasting.engines.engine import Packed
from seqlatent.forecasting.engines.latent.ensemble import Ensemble
from seqlatent.forecasting.engines.parameters import Marginals
from seqlatent.forecasting.engines.series_state import within
from seqlatent.forecasting.engines.spec import DataSummary, Spec
from seqlatent.forecasting.errors import FolderError
from seqlatent.forecasting.features.covariates import Inputs
from seqlatent.forecasting.frames.identifiers import decoded, encoded

__all__ = []


def packed(ensemble: Ensemble, posteriors: Sequence[Marginals]) -> Packed:
    """All that an ensemble has learned, and the posteriors of its parameters."""
    arrays = {"weights": ensemble.weights, "since": ensemble.since}
    for kind, units in ensemble.units.items():
        arrays |= {f"shift.{kind}": units.shift, f"scale.{kind}": units.scale}
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    for i, model in enumerate(ensemble.models):
        tensors |= {f"member-{i}.{k}": v for k, v in model.state_dict().items()}
    config = {
        "data_summary": ensemble.data_summary.to_dict(),
        "inputs": ensemble.inputs.to_dict(),
        "members": len(ensemble.models),
        "ids": [encoded(id) for id in ensemble.places],
        "posteriors": [],
    }
    for i, one in enumerate(posteriors):
        words, numbers = one.packed()
        config["posteriors"].append(words)
        tensors |= {f"posterior-{i}.{k}": v for k, v in numbers.items()}
    return Packed(config, tensors)


def posteriors(found: Packed) -> tuple[Marginals, ...]:
    """Posteriors of the parameters that :func:`packed` was given; of older folders none."""
    return tuple(
        Marginals.unpacked(words, within(f"posterior-{i}.", found.tensors))
        for i, words in enumerate(found.config.get("posteriors", []))
    )


def unpacked(found: Packed, spec: Spec, kept: list[int] | None) -> Ensemble:
    """Reads what :func:`packed` gave.

    Args:
        found: What it gave.
        spec: How the members are built.
        kept: Which of them there are; None for all.

    Raises:
        FolderError: If the spec builds others.
    """
    config, arrays = found
    ensemble = Ensemble.built(
        spec,
        DataSummary.from_dict(config["data_summary"]),
        Inputs.from_dict(config["inputs"]),
        {decoded(code): i for i, code in enumerate(config["ids"])},
        seed=0,
    )
    if kept is not None:
        ensemble = ensemble.keep(kept)
    if len(ensemble.models) != config["members"]:
        raise FolderError(
            f"the folder holds {config['members']} members of {spec.name!r}, its Spec builds "
            f"{len(ensemble.models)}; pass the Spec that it was fitted with as specs=[...]."
        )
    for i, model in enumerate(ensemble.models):
        try:
            model.load_state_dict(within(f"member-{i}.", arrays))
        except RuntimeError as error:
            raise FolderError(
                f"the folder holds other parameters of {spec.name!r} than its Spec builds "
                f"({error}); pass the Spec that it was fitted with as specs=[...]."
            ) from error
        model.eval().requires_grad_(False)
    units = {
        kind: ensemble.units_of(arrays[f"shift.{kind}"].numpy(), arrays[f"scale.{kind}"].numpy())
        for kind in ensemble.views
    }
    since, weights = arrays["since"].numpy(), arrays["weights"].numpy()
    return replace(ensemble, units=units, since=since, weights=weights)
