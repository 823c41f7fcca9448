"""The training loop: fit."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import nn

from seqlatent.training.gradient import settings
from seqlatent.training.gradient.batches import Batch, TrainingData, sampled
from seqlatent.training.gradient.descent import Descent
from seqlatent.training.gradient.heldout import HeldOut
from seqlatent.training.gradient.plan import Plan, cosine, planned
from seqlatent.training.gradient.ranks import chosen_device, joined
from seqlatent.training.gradient.starts import starts
from seqlatent.training.gradient.surface import WORTH, Surface, judge
from seqlatent.training.gradient.weights import Average, in_double
from seqlatent.training.history import History

__all__ = ["fit"]

# Steps from each start before the best is chosen.
_TRIAL = 2


def fit(
    model: nn.Module,
    data: Any,
    objective: Any = None,
    *,
    validation: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    optimizer: Any = None,
    schedule: Callable[[int], Any] | None = cosine,
    clip: int | float | None = 10.0,
    schedules: Any = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    average: int | float | None = None,
    seed: int = 0,
    progress: bool = False,
    device: torch.device | str | None = None,
    callback: Callable[[History], Any] | None = None,
) -> History:
    r"""Maximises an objective over the parameters of a model, in place.

    .. math:: \max_\theta \; \sum_{b \in \mathrm{batch}} \mathrm{objective}_b(\theta) \, / \,
        \text{number of observed cells of the batch}

    Per observed cell, so that a learning rate does not depend on the length of the series or on how
    much is missing. What is left out is chosen by the model:

    - Exact models without networks, and the counts that ``Laplace`` fits, get their evidence
      maximised by L-BFGS on all data, in double precision, from several starts that are read off
      the data (:func:`~seqlatent.training.gradient.starts.starts`), until there is nothing to gain
      in any units of the parameters. Of two maxima that differ by less than a tenth of a nat the
      one nearest to the model's own parameters is kept.
    - All others get steps of AdamW on batches of their evidence, where their inference has one, or
      of the elbo. So do exact models where ``batch_size``, ``schedule``, ``schedules`` or
      ``average`` is given, or an objective of your own.

    With ``validation`` the best weights seen are kept, otherwise the last ones. A
    step whose objective or gradient is not finite is skipped; ten in a row are an error.

    All randomness comes from generators made from ``seed``: the same seed gives the same weights to
    the bit, torch's global generator is neither read nor moved, and fits in several threads do not
    disturb each other.

    Started by ``torchrun``, or with ``torch.distributed`` initialised, every process calls ``fit``
    with the same arguments, takes its share of each batch, and ends with the same weights; the
    batches are those that one process would draw.

    Args:
        model: The model; its mode (train or eval) is left alone.
        data: Sequences, or a list of Sequences of different lengths, drawn without replacement
            epoch after epoch; or a function of a ``torch.Generator`` (on the CPU) that returns one
            batch.
        objective: Function ``(model, sequences) -> (B,)``, larger is better, called with
            ``generator=`` if it takes that; set other keywords with ``functools.partial``. By
            default the evidence, or the elbo where the inference is amortised or ``schedules`` are
            given.
        validation: Held-out Sequences, or a list of them, scored by the objective without scheduled
            keywords and with the same noise each time.
        steps: Number of updates; 1000 by default, 100 with L-BFGS.
        batch_size: Most series in a batch, over all processes; 32 by default.
        optimizer: Function of parameters that returns an optimizer; by default as above, AdamW with
            learning rate 0.002. An L-BFGS optimizer (see :func:`lbfgs`) starts at the model's own
            parameters, works on all data at once, with noise that is the same at each evaluation,
            and stops when the objective changes no more and, with up to 64 parameters, the gradient
            in the metric of the curvature promises less than 0.001 nats.
        schedule: Factor of the learning rate at each step; the default, :func:`cosine`, stands for
            ``cosine(steps)`` and leaves L-BFGS alone. None is constant.
        clip: Largest gradient norm; None does not clip. L-BFGS is not clipped.
        schedules: Keywords of the objective that change with the step, such as
            ``{"kl_weight": annealing(0.0, 1.0, 1000)}``.
        evaluate_every: Steps between evaluations; a twentieth of ``steps`` by default.
        patience: Evaluations without improvement after which to stop; None makes all steps.
        average: Decay of an exponential moving average of the weights, such as 0.999, which is
            evaluated and kept instead of the raw weights.
        seed: Seed of batches and noise.
        progress: Whether to show a progress bar.
        device: Where to train; the model is moved there. Where it is, by default. Under torchrun
            ``"cuda"`` gives each process an accelerator of its own.
        callback: Called with the history after every step; training stops when it returns True.

    Returns:
        Objectives, evaluations, why training ended and, with L-BFGS, what was left to gain.

    Raises:
        TypeError: If an argument is of the wrong kind, or data and model differ in dtype.
        ValueError: If a setting is out of range, data are empty, or widths differ.
        FloatingPointError: If ten steps in a row were not finite.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> from seqlatent.zoo import structural
        >>> data = Sequences.of(torch.randn(8, 20, 1).cumsum(1))
        >>> fit(structural(), data).stopped
        'converged'
        >>> history = fit(structural(), data, batch_size=4, steps=5)
        >>> history.steps, history.stopped
        (5, 'steps')

    References:
        Decoupled Weight Decay Regularization (Loshchilov & Hutter, 2019), the default optimizer.
        Averaging Weights Leads to Wider Optima and Better Generalization (Izmailov et al., 2018).
    """
    objective = settings.suited(model, schedules) if objective is None else objective
    counts = {"steps": steps, "batch_size": batch_size}
    counts |= {"evaluate_every": evaluate_every, "patience": patience}
    held_out = validation is not None
    settings.check(objective, optimizer, schedules, clip, average, held_out=held_out, counts=counts)
    panel, held = _panels(data, validation)
    parameters, place = settings.trainable(model), chosen_device(model, device)
    model.to(place)
    small = bool(schedules) or average is not None or batch_size is not None or panel is None
    plan = planned(model, objective, steps, optimizer, schedule, small=small)
    if plan.full:
        settings.check_full_batch(panel, schedules, average)
    batch_size = batch_size or 32
    every = evaluate_every or max(1, plan.steps // 20)
    history, began = History(), time.perf_counter()
    with (
        joined(place) as ranks,
        torch.enable_grad(),
        in_double(model, panel, held, plan.searched) as (panel, held),
    ):
        ranks.begin(model)
        batches = _batches(data, panel, batch_size, plan.full, seed)
        begin = partial(Descent, model, objective, schedules or {}, clip=clip, ranks=ranks)
        if plan.searched:
            _start(begin, plan.optimizer, next(batches), seed)
            ranks.begin(model)
        descent = begin(optimizer=plan.optimizer(parameters), seed=seed, history=history)
        mean = None if average is None else Average(model, average)
        watch = _held_out(descent, held, batch_size, mean, patience, every)
        with _Bar(plan.steps, progress and ranks.rank == 0) as bar:
            _descend(_steps(descent, batches, plan), descent, mean, watch, callback, bar)
    history.seconds = time.perf_counter() - began
    if plan.searched and history.stopped in ("stalled", "steps") and steps is None:
        warnings.warn(_unfinished(history), stacklevel=2)
    return history


def _panels(data: Any, validation: Any) -> tuple[TrainingData | None, TrainingData | None]:
    """Training data, None where they are a function that samples them, and held-out ones."""
    panel = None if callable(data) else TrainingData(data)
    held = None if validation is None else TrainingData(validation, "validation")
    if panel is not None and held is not None:
        settings.check_widths(panel, held)
    return panel, held


def _held_out(
    descent: Descent,
    held: TrainingData | None,
    batch_size: int,
    mean: Average | None,
    patience: int | None,
    every: int,
) -> HeldOut | None:
    """What looks at held-out data, where there are any."""
    if held is None:
        return None
    score = partial(descent.score, held, batch_size)
    return HeldOut(descent.model, score, mean, patience, every, descent.history)


def _descend(
    steps: Iterator[int],
    descent: Descent,
    mean: Average | None,
    watch: HeldOut | None,
    callback: Callable[[History], Any] | None,
    bar: "_Bar",
) -> None:
    """Makes the steps, until the callback asks for an end or held-out data have seen enough."""
    history = descent.history
    for done in steps:
        if mean is not None:
            mean.update()
        bar.show(history)
        asked = callback is not None and descent.ranks.any(bool(callback(history)))
        if asked or (watch is not None and watch.visit(done)):
            history.stopped = "callback" if asked else "patience"
            break
    if watch is not None:
        watch.finish(history.steps)
    elif mean is not None:
        mean.apply()


def _unfinished(history: History) -> str:
    left = "" if history.gain is None else f", a further step promises {history.gain:.2g} nats"
    return (
        f"the maximum of the likelihood was not reached in {history.steps} steps{left}: call fit "
        "again to go on from here, bring the values to unit scale with Sequences.of(y, shift=..., "
        "scale=...), or leave out a component that the data do not determine."
    )


def _batches(
    data: Any, panel: TrainingData | None, batch_size: int, full: bool, seed: int
) -> Iterator[Batch]:
    order = torch.Generator().manual_seed(seed)
    if panel is None:
        return sampled(data, order)
    return repeat(panel.all()) if full else panel.epochs(batch_size, order)


def _start(
    begin: Callable[..., Descent], optimizer: Callable[..., Any], batch: Batch, seed: int
) -> None:
    """Puts the start from which a few steps lead highest into the model."""

    def trial() -> Descent:
        optim = optimizer([p for p in model.parameters() if p.requires_grad])
        return begin(optimizer=optim, seed=seed, history=History())

    model = begin.args[0]  # type: ignore[attr-defined]
    surface = Surface(trial(), batch)
    found = starts(model, surface, seed)
    best, highest = found[0], -math.inf
    for point in found if len(found) > 1 else []:
        value = surface.value(point)
        if value > -math.inf:
            descent = trial()
            for step in range(_TRIAL):
                descent.update_fully(batch, step)
            value = surface.value(surface.read())
        # what the model came with is kept where nothing is better by more than a trifle
        if value > highest + 100 * WORTH:
            best, highest = surface.read(), value
    surface.write(best)


def _steps(descent: Descent, batches: Iterator[Batch], plan: Plan) -> Iterator[int]:
    """Makes the steps, and counts them; ends early where L-BFGS has converged."""
    if plan.full:
        yield from _full_steps(descent, next(batches), plan.steps, plan.schedule)
        return
    groups = descent.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for step in range(plan.steps):
        _rate(groups, rates, step, plan.schedule)
        descent.update(next(batches), step)
        yield step + 1


def _full_steps(
    descent: Descent, batch: Batch, steps: int, schedule: Callable[[int], float] | None
) -> Iterator[int]:
    """Steps of L-BFGS, until it stands still where there is nothing to gain in any units."""
    groups, history, surface = descent.optimizer.param_groups, descent.history, None
    rates, last = [group["lr"] for group in groups], -math.inf
    for step in range(steps):
        _rate(groups, rates, step, schedule)
        value = descent.update_fully(batch, step)
        if abs(value - last) <= groups[0]["tolerance_change"]:
            surface = Surface(descent, batch) if surface is None else surface
            verdict = judge(surface)
            history.gain = None if verdict is None else verdict.gain
            if verdict is None or verdict.better is None:
                done = verdict is None or verdict.gain <= surface.worth(value)
                history.stopped = "converged" if done else "stalled"
                return
            surface.write(verdict.better)
            descent.optimizer.state.clear()
            value = -math.inf
        last = value
        yield step + 1
    verdict = judge(Surface(descent, batch))
    history.gain = None if verdict is None else verdict.gain


def _rate(
    groups: list[dict[str, Any]],
    rates: list[float],
    step: int,
    schedule: Callable[[int], float] | None,
) -> None:
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate * (1.0 if schedule is None else schedule(step))


class _Bar:
    """Progress on the terminal, or none."""

    def __init__(self, steps: int, shown: bool) -> None:
        self.bar = None
        if shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, history: History) -> None:
        if self.bar is not None:
            shown = f"objective={history.objective[-1]:.4g}"
            if history.validation:
                shown += f", validation={history.validation[-1]:.4g}"
            self.bar.set_postfix_str(shown, refresh=False)
            self.bar.update()
