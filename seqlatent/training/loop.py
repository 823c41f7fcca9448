"""The training loop: fit, and the optimizer and learning-rate schedule that it offers."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from seqlatent.objectives import elbo
from seqlatent.sequences import Sequences
from seqlatent.training import settings
from seqlatent.training.batches import Batch, Panel, cells, sampled
from seqlatent.training.heldout import HeldOut
from seqlatent.training.history import History
from seqlatent.training.ranks import Ranks, Scored, chosen_device, joined
from seqlatent.training.weights import Average

__all__ = ["cosine", "fit", "lbfgs"]

_DEFAULT: Any = object()
_PATIENCE_NOT_FINITE = 10
_ADVICE = (
    "Lower the learning rate (optimizer=partial(torch.optim.AdamW, lr=5e-4)), clip gradients harder (clip=1.0), or bring "
    "the values to unit scale with Sequences.of(..., shift=..., scale=...)."
)


def fit(
    model: nn.Module,
    data: Any,
    objective: Any = elbo,
    *,
    validation: Any = None,
    steps: int = 1000,
    batch_size: int = 32,
    optimizer: Any = None,
    schedule: Callable[[int], float] | None = _DEFAULT,
    clip: float | None = 10.0,
    schedules: Any = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    average: float | None = None,
    seed: int = 0,
    progress: bool = False,
    device: torch.device | str | None = None,
    callback: Callable[[History], Any] | None = None,
) -> History:
    r"""Maximises an objective over the parameters of a model, in place.

    .. math:: \max_\theta \; \frac{\sum_b \mathrm{objective}_b(\theta)}{\text{number of observed cells of the batch}}

    Per observed cell, so that a learning rate does not depend on the length of the series or on how much is missing.
    With ``validation`` the best weights seen are kept, otherwise the last ones. A step whose
    objective or gradient is not finite is skipped; ten in a row are an error.

    All randomness comes from generators made from ``seed``: the same seed gives the same weights to the bit, torch's
    global generator is neither read nor moved, and fits in several threads do not disturb each other.

    Started by ``torchrun``, or with ``torch.distributed`` initialised, every process calls ``fit`` with the same arguments, takes
    its share of each batch, and ends with the same weights; the batches are those that one process would draw.

    Args:
        model: The model; its mode (train or eval) is left alone.
        data: Sequences; or a list of Sequences of different lengths; both are drawn without replacement, epoch
            after epoch. Or a function of a ``torch.Generator`` (on the CPU) that returns the Sequences of one batch.
        objective: Function ``(model, sequences) -> (B,)``, larger is better, called with ``generator=`` if it
            takes that; set other keywords with ``functools.partial``.
        validation: Held-out Sequences, or a list of them, scored by the objective without scheduled keywords and
            with the same noise each time.
        steps: Number of updates.
        batch_size: Series per batch, over all processes.
        optimizer: Function of parameters that returns an optimizer; AdamW with learning rate 0.002 by default. An
            L-BFGS optimizer (see :func:`lbfgs`) works on all data at once, with noise that is the same at
            each evaluation, and stops when the objective changes no more.
        schedule: Factor of the learning rate at each step; :func:`cosine` by default, None is constant.
        clip: Largest gradient norm; None does not clip.
        schedules: Keywords of the objective that change with the step, such as
            ``{"kl_weight": annealing(0.0, 1.0, 1000)}``.
        evaluate_every: Steps between evaluations; a twentieth of ``steps`` by default.
        patience: Evaluations without improvement after which to stop; None makes all steps.
        average: Decay of an exponential moving average of the weights, such as 0.999, which is evaluated and kept
            instead of the raw weights.
        seed: Seed of batches and noise.
        progress: Whether to show a progress bar.
        device: Where to train; the model is moved there. Where it is, by default.
        callback: Called with the history after every step; training stops when it returns True.

    Returns:
        Objectives, evaluations and why training ended.

    Raises:
        TypeError: If an argument is of the wrong kind, or data and model differ in dtype.
        ValueError: If a setting is out of range, data are empty, or widths differ.
        FloatingPointError: If ten steps in a row were not finite.

    Example:
        >>> model = seqlatent.zoo.local_level()
        >>> data = Sequences.of(torch.randn(8, 20, 1).cumsum(1))
        >>> history = fit(model, data, seqlatent.objectives.evidence, steps=5, schedule=None)
        >>> history.steps, history.objective[-1] > history.objective[0]
        (5, True)

    References:
        Decoupled Weight Decay Regularization (Loshchilov & Hutter, 2019), the default optimizer.
        Averaging Weights Leads to Wider Optima and Better Generalization (Izmailov et al., 2018), for ``average``.
    """
    settings.check(
        objective,
        validation=validation,
        counts={"steps": steps, "batch_size": batch_size, "evaluate_every": evaluate_every, "patience": patience},
        optimizer=optimizer,
        clip=clip,
        schedules=schedules,
        patience=patience,
        evaluate_every=evaluate_every,
        average=average,
    )
    panel = None if callable(data) else Panel(data)
    held = None if validation is None else Panel(validation, "validation")
    if panel is not None and held is not None:
        settings.check_widths(panel, held)
    parameters = settings.trainable(model)
    place = chosen_device(model, device)
    model.to(place)
    descent = (torch.optim.AdamW(parameters, lr=2e-3, fused=False) if optimizer is None else optimizer(parameters))
    full = isinstance(descent, torch.optim.LBFGS)
    if full:
        settings.check_full_batch(panel, schedules, average)
    if schedule is _DEFAULT:
        schedule = None if full else cosine(steps)
    history = History()
    began = time.perf_counter()
    with joined(place) as ranks, torch.enable_grad():
        descent = Descent(model, objective, schedules or {}, updates, clip, ranks, seed)
        mean = None if average is None else Average(model, average)
        watch = None
        if held is not None:
            watch = HeldOut(model, lambda: descent.score(held, batch_size), mean, patience, history)
            watch.evaluate(0)
        order = torch.Generator().manual_seed(seed)
        if panel is None:
            stream = sampled(data, order)
        else:
            stream = repeat(panel.all()) if full else panel.epochs(batch_size, order)
        every = max(1, steps // 20) if evaluate_every is None else evaluate_every
        with _bar(steps, progress and ranks.rank == 0) as bar:
            for step in range(steps):
                _rate(updates, rates, schedule, step)
                batch = next(stream)
                history.objective.append((descent.update_fully if full else descent.update)(batch, step))
                ...
        _loop(run, stream, steps, schedule, watch, mean, every, callback, progress)
    history.seconds = time.perf_counter() - began
    return history
