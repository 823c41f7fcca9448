"""Trainers: how the members of an ensemble learn from a panel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from seqlatent.forecasting.engines.spec import DataSummary, Training
from seqlatent.forecasting.features.windows import Windows
from seqlatent.model import LatentModel
from seqlatent.training import Deadline, History, Pace, cosine, fit

__all__ = ["WindowTraining"]

_ADVICE = (
    "Look for values far from all others there, or leave the series out; with a Spec of your own "
    "lower its rate or clip harder: WindowTraining(learning_rate=5e-4, clip=1.0)."
)


@dataclass(frozen=True)
class WindowTraining:
    """Trains each member on windows drawn at random, one member after the other.

    A learning rate that falls as a cosine of the steps, or of the time where that is short, makes
    the end of training the best place to stop, so that no rows are held out to find it.

    Args:
        objective: Function ``(model, sequences) -> (B,)``.
        steps: Updates of each member.
        batch_size: Windows of a batch.
        length: Rows of a window, from a summary of the data.
        learning_rate: Highest learning rate of AdamW, or a function of that summary.
        weight_decay: Of AdamW.
        clip: Largest gradient norm.
        horizon: Rows at the end of every window that are to be forecast, from a summary of the
            data: the objective is then told, as ``horizon=``. None for windows without.
        full: Whether windows have all of the past that fits into them.
    """

    objective: Any
    steps: int
    length: Callable[[DataSummary], int]
    batch_size: int = 32
    learning_rate: float | Callable[[DataSummary], float] = 2e-3
    weight_decay: float = 1e-2
    clip: float = 10.0
    horizon: Callable[[DataSummary], int] | None = None
    full: bool = False

    def __call__(self, models: Sequence[LatentModel], training: Training) -> None:
        fit_options = training.fit_options
        data_summary = training.data_summary
        horizon = 0 if self.horizon is None else self.horizon(data_summary)
        objective = partial(self.objective, horizon=horizon) if horizon else self.objective
        count, deadline = training.affordable(len(models))
        seen = {id(view): view for view in map(training.view, models[:count])}
        every = {
            place: Windows(
                view,
                self.length(data_summary),
                self.batch_size,
                horizon=horizon,
                full=self.full,
            )
            for place, view in seen.items()
        }
        for i, model in enumerate(models[:count]):
            mine = deadline.part(1 / (count - i))
            rate = self.learning_rate
            rate = rate(data_summary) if callable(rate) else rate
            seed = fit_options.seed * 1000 + i
            made = 0
            if not mine.passed:
                made = self._train(
                    model,
                    objective,
                    every[id(training.view(model))],
                    rate,
                    seed,
                    mine,
                    fit_options.progress,
                    fit_options.device,
                ).steps
            training.steps.setdefault(id(model), []).append((made, self.steps))
            model.to("cpu")

    def _train(
        self,
        model: LatentModel,
        objective: Any,
        windows: Windows,
        highest: float,
        seed: int,
        deadline: Deadline,
        progress: bool,
        device: str,
    ) -> History:
        pace = Pace(deadline)
        by_steps = cosine(self.steps)

        def passed(step: int) -> float:
            spent = 0.0 if deadline.never else deadline.spent / deadline.total
            return max(step / self.steps, spent)

        def rate(step: int) -> float:
            return by_steps(min(int(passed(step) * self.steps), self.steps - 1)) or 1e-8

        def over(history: History) -> bool:
            return not pace.reaches()

        place = torch.device(device)
        pace.reaches()

        def batch(generator: torch.Generator) -> Any:
            return windows(generator).to(device=place)

        with windows.naming(_ADVICE):
            return fit(
                model,
                batch,
                objective,
                steps=self.steps,
                optimizer=partial(torch.optim.AdamW, lr=highest, weight_decay=self.weight_decay),
                schedule=rate,
                clip=self.clip,
                seed=seed,
                progress=progress,
                device=place,
                callback=over,
            )
