"""Training in the time that there is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from seqlatent.forecasting.engines.baselines.beside import losses
from seqlatent.forecasting.engines.engine import Engine, FitOptions, OutOfTime
from seqlatent.forecasting.engines.rehearsal import foretold
from seqlatent.forecasting.engines.spec import Members, Trainer, Training
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.model import LatentModel

__all__ = []


class Trained(NamedTuple):
    """What training in a limited time came to.

    Attributes:
        models: The members.
        weights: Weights of the members ``(N, M)``, zero for those that no time was left for; None
            for equal ones.
        stopped: What the deadline left undone, in words.
        doubtful: Whether that leaves open whether it is better than a naive forecast.
        with_history: Seconds that the start of all series takes.
    """

    models: Sequence[LatentModel]
    weights: np.ndarray | None
    stopped: str = ""
    doubtful: bool = False
    with_history: float = 0.0


def trained(
    engine: Engine,
    train: Trainer,
    models: Sequence[LatentModel],
    training: Training,
    panel: Panel,
) -> Trained:
    """Trains members in the time that there is, after which all series are to be started.

    Args:
        engine: The engine, which has the members before they are trained: it is tried for the time
            that starts and forecasts take.
        train: Trains the members in place.
        models: The members.
        training: What the trainer gets.
        panel: All rows.

    Raises:
        OutOfTime: If there is not enough for one member.
    """
    fit_options = training.fit_options
    if fit_options.deadline.never:
        return Trained(*_made(train, models, training))
    with_history, judging = _rehearsed(engine, panel, fit_options)
    each = with_history / len(models)
    if fit_options.deadline.left - judging < each:
        raise OutOfTime(
            f"time_limit is too short: to filter {panel.batch} series takes {each + judging:.2g} s "
            "for one model"
        )
    until = fit_options.deadline.sooner(judging + with_history)
    inner = replace(training, fit_options=replace(fit_options, deadline=until), each=each)
    models, weights = _made(train, models, inner)
    untrained = _untrained(models, inner)
    if any(untrained) and weights is None:
        weights = np.tile(~np.array(untrained) / (len(models) - sum(untrained)), (panel.batch, 1))
    kept = len(models) if weights is None else int((weights > 0).any(0).sum())
    stopped = "; ".join([*inner.said, *inner.spared])
    return Trained(models, weights, stopped, bool(inner.said), each * kept)


def _made(
    train: Trainer, models: Sequence[LatentModel], training: Training
) -> tuple[Sequence[LatentModel], np.ndarray | None]:
    """The members after training, those that were given or others, and their weights."""
    found = train(models, training)
    return found if isinstance(found, Members) else (models, found)


def _rehearsed(engine: Engine, panel: Panel, fit_options: FitOptions) -> tuple[float, float]:
    """Seconds that a start of all series takes, and a judgement on their last rows."""
    few, deadline = panel.select(np.arange(min(2, panel.batch))), fit_options.deadline
    with torch.no_grad():
        with_history = foretold(
            lambda index: engine.start(panel.select(index), 0), panel.batch, deadline
        )
        began = deadline.spent
        losses(engine, few, fit_options, 0)
        if 20 * (judging := deadline.spent - began) > deadline.left:
            began = deadline.spent  # the first time is none to go by
            losses(engine, few, fit_options, 0)
            judging = deadline.spent - began
    return with_history, 1.5 * judging


def _untrained(models: Sequence[LatentModel], training: Training) -> list[bool]:
    """Which members made no step; what is left undone is said."""
    steps = training.steps
    found = [bool(own := steps.get(id(m))) and not sum(made for made, _ in own) for m in models]
    if not steps:
        return found
    found = [dull or id(m) not in steps for dull, m in zip(found, models, strict=True)]
    if all(found):
        raise OutOfTime("stopped by time_limit before the first step")
    made, wanted = (sum(step[k] for own in steps.values() for step in own) for k in (0, 1))
    wanted = wanted * len(models) // len(steps)
    if made < wanted:
        used = len(models) - sum(found)
        of = f", with {used} of {len(models)} networks" if used < len(models) else ""
        training.said.append(f"stopped by time_limit after {made} of {wanted} steps{of}")
    return found
