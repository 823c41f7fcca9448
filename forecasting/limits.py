"""Limits of time: what is fitted within one, and what forecasts where there was too little."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqlatent.forecasting.engine import Engine, Job, OutOfTime
from seqlatent.forecasting.panel import Future, Panel
from seqlatent.training import Deadline

if TYPE_CHECKING:
    from seqlatent.forecasting.latent import LatentEngine
    from seqlatent.forecasting.specs import Training
    from seqlatent.model import LatentModel

__all__ = ["fitted", "foretold", "trained"]

_LEVELS = (0.1, 0.5, 0.9)
_JUDGED = 32  # most series of the last block
_PATHS = 50
_FEW = (1, 1, 16)  # series of a rehearsal, the first of which pays for what is done once


def fitted(engine: Engine, panel: Panel, job: Job, seed: int) -> tuple[Engine, Any]:
    """Fits an engine, and stands it after all rows.

    Where the deadline leaves no time for that, or so little that the last block would have been
    forecast better by the seasonal naive forecast, that takes its place, and says so.

    Args:
        engine: The engine.
        panel: All rows.
        job: What it is told.
        seed: Seed of what is drawn.

    Returns:
        The engine that forecasts, and its state.
    """
    try:
        engine.fit(panel, job)
    except OutOfTime as error:
        return _naive(panel, job, seed, str(error))
    if engine.doubtful:
        ratio = _beside_naive(engine, panel, job, seed)
        if not ratio < 1:
            why = f"its loss on the last block is {ratio:.3g} times that of the seasonal naive"
            if not np.isfinite(ratio):
                why = "no time was left to judge it on the last block"
            return _naive(panel, job, seed, f"{engine.stopped}; {why}")
    return engine, engine.start(panel, seed)


def _naive(panel: Panel, job: Job, seed: int, why: str) -> tuple[Engine, Any]:
    """The seasonal naive forecast, which notes why it stands there."""
    from seqlatent.forecasting.baselines import Naive, SeasonalNaive

    seasonal = panel.clock.kind != "irregular" and bool(job.season_lengths)
    engine = SeasonalNaive() if seasonal else Naive()
    engine.fit(panel, Job(job.season_lengths, job.seed))
    name = "seasonal naive" if seasonal else "naive"
    said = f"{why}: the {name} forecast stands in its place; give it more time"
    engine.notes[None] = "; ".join(filter(None, [said, engine.notes.get(None, "")]))
    return engine, engine.start(panel, seed)


def foretold(work: Callable[[np.ndarray], Any], count: int, deadline: Deadline) -> float:
    """Seconds that work takes for so many series, from how long it takes for few.

    Args:
        work: What is done with some series, by their places.
        count: How many there are.
        deadline: Whose clock is read; few series are enough where it is near.
    """
    spent: list[tuple[int, float]] = []
    for size in _FEW:
        began = deadline.spent
        work(np.arange(min(size, count)))
        spent.append((min(size, count), deadline.spent - began))
        if 4 * spent[-1][1] > deadline.left:
            break
    if len(spent) < len(_FEW) or count <= spent[-1][0]:
        few, short = spent[-1]
        return short * max(1.0, count / few / 4)  # several together cost less than one by one
    (few, short), (many, long) = spent[-2:]
    each = max((long - short) / (many - few), long / many / 10)
    return long + each * (count - many)


def trained(
    engine: "LatentEngine", models: "Sequence[LatentModel]", training: "Training", panel: Panel
) -> np.ndarray | None:
    """Trains members in the time that there is, after which all series are to be started.

    Returns:
        Weights of the members ``(N, M)``, zero for those that no time was left for; None for equal
        ones.
    """
    from dataclasses import replace

    job = training.job
    if job.deadline.never:
        return engine.spec.train(models, training)
    import torch

    few = panel.select(np.arange(min(2, panel.batch)))
    engine.models = tuple(models)
    engine.weights = np.full((panel.batch, len(models)), 1 / len(models))
    with torch.no_grad():
        standing = foretold(
            lambda index: engine.start(panel.select(index), 0), panel.batch, job.deadline
        )
        began = job.deadline.spent
        _losses(engine, few, job, 0)
        if 20 * (judging := job.deadline.spent - began) > job.deadline.left:
            began = job.deadline.spent  # the first time is none to go by
            _losses(engine, few, job, 0)
            judging = job.deadline.spent - began
    each = standing / len(models)
    judging *= 1.5
    left = job.deadline.left - judging
    if left < each:
        raise OutOfTime(
            f"time_limit is too short: to filter {panel.batch} series takes {each + judging:.2g} s "
            "for one model"
        )
    until = job.deadline.sooner(judging + standing)
    inner = replace(training, job=replace(job, deadline=until), each=each)
    weights = engine.spec.train(models, inner)
    untrained = [
        bool(steps := inner.steps.get(id(m))) and not sum(made for made, _ in steps) for m in models
    ]
    if inner.steps:
        untrained = [
            dull or id(m) not in inner.steps for dull, m in zip(untrained, models, strict=True)
        ]
        if all(untrained):
            raise OutOfTime("stopped by time_limit before the first step")
        made, wanted = (
            sum(step[k] for steps in inner.steps.values() for step in steps) for k in (0, 1)
        )
        wanted = wanted * len(models) // len(inner.steps)
        if made < wanted:
            used = len(models) - sum(untrained)
            of = f", with {used} of {len(models)} networks" if used < len(models) else ""
            inner.said.append(f"stopped by time_limit after {made} of {wanted} steps{of}")
    engine.stopped, engine.doubtful = "; ".join([*inner.said, *inner.spared]), bool(inner.said)
    if any(untrained) and weights is None:
        weights = np.tile(~np.array(untrained) / (len(models) - sum(untrained)), (panel.batch, 1))
    kept = len(models) if weights is None else int((weights > 0).any(0).sum())
    engine.standing = each * kept
    return weights


def _beside_naive(engine: Engine, panel: Panel, job: Job, seed: int) -> float:
    """Loss on the last block, as a part of that of the seasonal naive; infinite without time."""
    deadline = job.deadline.sooner(engine.standing)
    ratio, size, spent = np.inf, min(2, panel.batch), 0.0
    while True:
        # twice as many take at most twice as long
        if deadline.left < 2 * spent or deadline.passed:
            return ratio
        began = deadline.spent
        places = np.unique(np.linspace(0, panel.batch - 1, size).astype(int))
        some = panel.select(places)
        mine, naive = _losses(engine, some, job, seed)
        seen = np.isfinite(mine) & np.isfinite(naive)
        if seen.any():
            scale = np.maximum(naive[seen], 1e-12 + 1e-3 * np.nanmean(naive))
            ratio = float(np.mean(mine[seen] / scale) / np.mean(naive[seen] / scale))
        if size >= min(_JUDGED, panel.batch):
            return ratio if seen.any() else 0.0
        size, spent = min(2 * size, _JUDGED, panel.batch), deadline.spent - began


def _losses(engine: Engine, panel: Panel, job: Job, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantile losses ``(N,)`` of series on their last blocks, and those of the naive forecast."""
    from seqlatent.forecasting.baselines import Naive, SeasonalNaive

    season = (*job.season_lengths, 1)[0]
    h = max(1, min(max(6, round(1.5 * season)), 48, int(panel.lengths.min()) // 3))
    if int(panel.lengths.min()) < 3:
        return np.full(panel.batch, np.nan), np.full(panel.batch, np.nan)
    head = panel.drop_tail(np.full(panel.batch, h))
    rows = panel.offsets[1:, None] - h + np.arange(h)
    future, truth = Future(panel.t[rows], panel.future[rows]), panel.y[rows]
    regular = panel.clock.kind != "irregular" and bool(job.season_lengths)
    naive = SeasonalNaive() if regular else Naive()
    naive.fit(head, Job(job.season_lengths, job.seed))
    found = []
    for one in (engine, naive):
        law = one.law(one.start(head, seed), future, _LEVELS, _PATHS, seed)
        loss = np.zeros_like(truth)
        for level, q in zip(_LEVELS, law.quantiles, strict=True):
            loss += np.maximum(level * (truth - q), (level - 1) * (truth - q))
        seen = ~np.isnan(truth)
        total, count = np.where(seen, loss, 0.0).sum((1, 2)), seen.sum((1, 2))
        found.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return found[0], found[1]
