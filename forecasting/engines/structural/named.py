"""Names of the parameters of a specification, in the words of the field."""

import torch

from seqlatent.forecasting.engines.parameters import Marginals
from seqlatent.forecasting.engines.structural.drawing import Drawn
from seqlatent.forecasting.engines.structural.rows import Rows
from seqlatent.forecasting.engines.structural.specifications import Specification
from seqlatent.model import LatentModel
from seqlatent.training import Pool
from seqlatent.transitions import AR, Sum, TrigonometricSeasonal

__all__ = []

# What comes after the name of the component, and the kind, by the name that a module has for it.
_OWN = {
    "log_scale": ("scale", "scale"),
    "log_level_scale": ("scale", "scale"),
    "log_slope_scale": ("scale", "scale"),
    "log_initial_scale": ("initial_scale", "scale"),
    "damping_logit": ("damping", "share"),
    "partial": ("coefficient", "correlation"),
}
_OF_SLOPE = ("log_slope_scale", "log_initial_scale", "damping_logit")


def named(model: LatentModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and kinds of the entries of a series' vector.

    Example:
        >>> from seqlatent.forecasting.engines.structural import Specification
        >>> named(Specification("drift", ((12, 6),)).model(3))[0][:3]
        ('slope.initial_scale', 'level.scale', 'season12.initial_scale')
    """
    assert isinstance(model.transition, Sum)
    parts = {f"transition.components.{i}": part for i, part in enumerate(model.transition.parts)}
    names, kinds = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        home, _, own = name.rpartition(".")
        ending, kind = _OWN[own]
        names.append(f"{_component(parts.get(home), own)}.{ending}")
        kinds.append(kind)
    return tuple(names), tuple(kinds)


def _component(part: object, own: str) -> str:
    if part is None:
        return "noise"
    if isinstance(part, TrigonometricSeasonal):
        return f"season{part.period:g}"
    if isinstance(part, AR):
        return "autoregressive"
    return "slope" if own in _OF_SLOPE else "level"


def marginals_of(
    specification: Specification, model: LatentModel, rows: Rows, drawn: Drawn, pool: Pool | None
) -> Marginals:
    """Posteriors of the parameters of each series under one specification, of weight one.

    What is a part of the values where it describes logarithms is that part of their geometric mean.

    Args:
        specification: The specification.
        model: Its model.
        rows: The values.
        drawn: How its parameters were drawn.
        pool: The distribution of the parameters.
    """
    assert pool is not None
    unit = rows.sequences(specification.log).scale[:, 0]
    if specification.log:
        unit = unit * rows.y.clamp_min(torch.finfo(rows.y.dtype).tiny).log().nanmean(1).exp()
    names, kinds = named(model)
    vectors = drawn.vectors.float()  # as many as the parameters of all draws
    weight = torch.ones_like(unit)
    return Marginals(
        specification.name, names, kinds, drawn.score, vectors, pool.centre, unit, weight
    )
