"""Stages: several ways to train, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seqlatent.forecasting.engines.spec import Trainer, Training
from seqlatent.model import LatentModel

__all__ = ["SequentialTraining"]


@dataclass(frozen=True)
class SequentialTraining:
    """Takes each member through several stages before the next one starts.

    A time limit is divided among the members, and within a member by the shares. Members that no
    time is left for would be untrained: the first ones get what there is.

    Args:
        stages: Trainers, in their order.
        shares: Share of the time of a member that each stage may take, which sum to one.
    """

    stages: Sequence[Trainer]
    shares: Sequence[float]

    def __call__(self, models: Sequence[LatentModel], training: Training) -> None:
        fit_options = training.fit_options
        count, deadline = training.affordable(len(models))
        for i, model in enumerate(models[:count]):
            mine, rest = deadline.part(1 / (count - i)), sum(self.shares)
            for k, (stage, share) in enumerate(zip(self.stages, self.shares, strict=True)):
                seed = (fit_options.seed * 100 + i) * 10 + k
                part = replace(fit_options, seed=seed, deadline=mine.part(share / rest))
                rest -= share
                if k and not model.emission.differentiable:
                    continue  # draws without a gradient teach nothing in the later stages
                stage([model], replace(training, fit_options=part, each=0.0))
