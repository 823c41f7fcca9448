"""Settings of a training run, verified before anything starts."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from seqlatent.inference import Amortised, ForwardBackward, Kalman, Laplace
from seqlatent.memory import NoMemory
from seqlatent.model import LatentModel
from seqlatent.objectives import elbo, evidence
from seqlatent.training.gradient.batches import TrainingData

__all__ = []

# Most parameters for which quasi-Newton steps on all data are the default.
_FEW = 1000


def check(
    objective: Any,
    optimizer: Any,
    schedules: Any,
    clip: int | float | None,
    average: int | float | None,
    *,
    held_out: bool,
    counts: Mapping[str, int | None],
) -> None:
    """Raises an error that teaches where a setting of :func:`fit` is not as expected."""
    if not callable(objective):
        raise TypeError(
            "objective must be a function of a model and Sequences that returns one value per "
            f"series, such as seqlatent.objectives.elbo; found {objective!r}."
        )
    if isinstance(optimizer, torch.optim.Optimizer) or not (
        optimizer is None or callable(optimizer)
    ):
        raise TypeError(
            "optimizer must be a function of parameters that returns an optimizer, such as "
            f"functools.partial(torch.optim.Adam, lr=1e-3); found {type(optimizer).__name__}."
        )
    for name, value in counts.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ValueError(f"{name} must be an integer of at least 1, found {value!r}.")
        if value is not None and name in ("patience", "evaluate_every") and not held_out:
            raise ValueError(
                f"{name} needs held-out series to look at: pass validation=..., or leave it out."
            )
    if clip is not None and not clip > 0:
        raise ValueError(
            f"clip must be a positive gradient norm, or None not to clip, found {clip}."
        )
    if average is not None and not 0 < average < 1:
        raise ValueError(
            f"average must be a decay between 0 and 1, such as 0.999, found {average}."
        )
    _check_schedules(objective, schedules)


def _check_schedules(objective: Callable[..., Any], schedules: Any) -> None:
    if schedules is None:
        return
    if not isinstance(schedules, Mapping):
        raise TypeError(
            "schedules must map keywords of the objective to functions of the step, such as "
            f'{{"kl_weight": annealing(0.0, 1.0, 1000)}}; found {type(schedules).__name__}.'
        )
    for name, schedule in schedules.items():
        if name == "generator" or not accepts(objective, name):
            known = [p for p in _keywords(objective) if p != "generator"]
            raise ValueError(
                f"schedules names {name!r}, which is no keyword of the objective "
                f"{_title(objective)}; expected {', '.join(known) or 'none, it has no keywords'}."
            )
        if not callable(schedule):
            raise TypeError(
                f"the schedule of {name!r} must be a function of the step, found {schedule!r}; for "
                f"a constant pass functools.partial({_title(objective)}, {name}={schedule!r}) as "
                "objective."
            )


def _title(objective: Callable[..., Any]) -> str:
    inner = getattr(objective, "func", objective)
    return getattr(inner, "__name__", type(inner).__name__)


def _keywords(objective: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(objective).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty]


def accepts(objective: Callable[..., Any], name: str) -> bool:
    """Whether a function takes a keyword of this name."""
    parameters = inspect.signature(objective).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return True
    return name in parameters and name in _keywords(objective)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that training changes."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"{type(model).__name__} has no parameter that requires a gradient: nothing to fit."
        )
    return parameters


def check_widths(data: TrainingData, validation: TrainingData) -> None:
    """Verifies that held-out series have the widths of the training series."""
    for name, width in data.widths.items():
        if validation.widths[name] != width:
            raise ValueError(
                f"validation must have the widths of data: {name} is {width} in data, "
                f"{validation.widths[name]} in validation; prepare both in the same way."
            )


def check_full_batch(panel: TrainingData | None, schedules: Any, average: float | None) -> None:
    """Verifies that nothing changes the objective under L-BFGS, which remembers its curvature."""
    if panel is None:
        raise TypeError(
            "L-BFGS reads all data at every step: pass Sequences, not a function that samples them."
        )
    for name, value in (("schedules", schedules), ("average", average)):
        if value is not None:
            raise ValueError(
                f"L-BFGS needs an objective that stays the same: leave {name} out, or use AdamW."
            )


def suited(model: nn.Module, schedules: Any) -> Callable[..., Any]:
    """The objective that suits an inference: the evidence, where it is not only bounded.

    Schedules are of the bound's keywords, as the evidence has none.
    """
    known = isinstance(model, LatentModel) and not isinstance(model.inference, Amortised)
    return evidence if known and not schedules else elbo


def quick(model: nn.Module, objective: Any) -> bool:
    """Whether the objective is a likelihood that is smooth, without noise, in few parameters."""
    if not isinstance(model, LatentModel) or not isinstance(model.memory, NoMemory):
        return False
    inference = model.inference
    exact = isinstance(inference, Kalman | ForwardBackward)
    smooth = exact or (isinstance(inference, Laplace) and not inference.samples)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return smooth and objective is evidence and count <= _FEW
