"""Held-out evaluation: which of the weights that training passed through are kept."""

import math
from collections.abc import Callable

import torch
from torch import nn

from seqlatent.training.gradient.weights import Average, copied, restore
from seqlatent.training.history import History

__all__ = []


class HeldOut:
    """Evaluates the model now and then, remembers the best weights, and says when to give up.

    Args:
        model: The model in training.
        score: Held-out objective of the model as it stands, larger is better.
        average: Averaged weights, evaluated in place of the raw ones.
        patience: Evaluations without improvement after which to stop; None never stops.
        every: Steps between evaluations.
        history: Where evaluations are recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        score: Callable[[], float],
        average: Average | None,
        patience: int | None,
        every: int,
        history: History,
    ) -> None:
        self.model = model
        self.score = score
        self.average = average
        self.patience = patience
        self.every = every
        self.history = history
        self.best = -math.inf
        self.weights: list[torch.Tensor] | None = None
        self.waited = 0
        self.evaluate(0)

    def evaluate(self, step: int) -> None:
        """Evaluates the weights after ``step`` steps."""
        if self.average is None:
            self._look(step)
        else:
            with self.average.applied():
                self._look(step)

    def _look(self, step: int) -> None:
        value = self.score()
        self.history.evaluated.append(step)
        self.history.validation.append(value)
        self.waited += 1
        # not a number compares false: such weights are never the best
        if value > self.best:
            self.best, self.weights, self.waited = value, copied(self.model), 0
            self.history.best_step = step

    def visit(self, step: int) -> bool:
        """Evaluates where it is time to, and tells whether patience has run out."""
        if step % self.every:
            return False
        self.evaluate(step)
        return self.patience is not None and self.waited >= self.patience

    def finish(self, step: int) -> None:
        """Evaluates the last weights too, and puts the best ones into the model."""
        if self.history.evaluated[-1] != step:
            self.evaluate(step)
        if self.weights is not None:
            restore(self.model, self.weights)
        elif self.average is not None:
            self.average.apply()
