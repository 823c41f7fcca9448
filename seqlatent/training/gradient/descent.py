"""Descent: single updates of a model's weights, and the score of the weights as they stand."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqlatent.sequences import Sequences
from seqlatent.training.gradient.batches import Batch, TrainingData
from seqlatent.training.gradient.ranks import Ranks
from seqlatent.training.gradient.settings import accepts
from seqlatent.training.history import History

__all__ = []

_TOLERATED = 10
_HUGE = 1e10
_ADVICE = (
    "Lower the learning rate (optimizer=partial(torch.optim.AdamW, lr=5e-4)), clip gradients "
    "harder (clip=1.0), or bring the values to unit scale with Sequences.of(..., shift=..., "
    "scale=...)."
)


class NotFinite(FloatingPointError):
    """An objective that is not finite where training cannot go on.

    Args:
        found: When, and of which series.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return f"{self.found} {_ADVICE}"


class Descent:
    """Updates of a model under an objective, and what makes them reproducible.

    Args:
        model: The model.
        objective: Function of model and sequences.
        schedules: Keywords of the objective that change with the step.
        optimizer: Optimizer of the model's parameters.
        clip: Largest gradient norm, None does not clip.
        ranks: This process among those that train together.
        seed: Seed of the noise.
        history: Where objectives and skipped steps are recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[..., Tensor],
        schedules: Mapping[str, Callable[[int], float]],
        optimizer: torch.optim.Optimizer,
        clip: int | float | None,
        ranks: Ranks,
        seed: int,
        history: History,
    ) -> None:
        self.model = model
        self.objective = objective
        self.schedules = schedules
        self.optimizer = optimizer
        self.clip = math.inf if clip is None else float(clip)
        self.ranks = ranks
        self.seed = seed
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.noisy = accepts(objective, "generator")
        self.noise = self.generator("noise")
        self.history = history
        self.failures = 0

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of this process's noise; two purposes, or two ranks, never share a seed."""
        number = 2 * self.ranks.rank + (purpose == "validation")
        return torch.Generator(self.ranks.device).manual_seed(
            (self.seed * 2_654_435_761 + 97 * number + 1) % 2**63
        )

    def update(self, batch: Batch, step: int) -> None:
        """Makes one step on a batch, or skips it where objective or gradient are not finite."""
        keywords = {name: schedule(step) for name, schedule in self.schedules.items()}
        value, bad, error = self._differentiate(batch, keywords, self.noise)
        if not bad:
            # the norm is that of all ranks together: they skip or move as one
            bad = not bool(nn.utils.clip_grad_norm_(self.parameters, self.clip).isfinite())
        if not bad:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.history.objective.append(math.nan if bad else value)
        self.history.skipped += bad
        self.failures = self.failures + 1 if bad else 0
        if self.failures == _TOLERATED:
            when = f"in {_TOLERATED} steps in a row, the last of them step {step}"
            raise _not_finite(when, error)

    def update_fully(self, batch: Batch, step: int) -> float:
        """Makes one L-BFGS step on all data, and gives the objective per cell before it.

        The noise is the same at every evaluation, so that the line search sees a function. Where
        that is not finite it is given a huge value, from which the search turns back.
        """
        found: list[float] = []

        def closure() -> float:
            self.optimizer.zero_grad(set_to_none=True)
            value, bad, error = self._differentiate(
                batch, {}, self.generator("noise"), tolerant=bool(found)
            )
            grads = [p.grad for p in self.parameters if p.grad is not None]
            bad = bad or not all(bool(g.isfinite().all()) for g in grads)
            if bad and not found:
                raise _not_finite(f"at step {step}", error)
            if bad:
                self.optimizer.zero_grad(set_to_none=True)
                return _HUGE
            found.append(value)
            return -value

        self.optimizer.step(closure)
        self.optimizer.zero_grad(set_to_none=True)
        self.history.objective.append(found[0])
        return found[0]

    def value(self, batch: Batch) -> float:
        """Objective per cell of a batch, under the noise of a full step; minus infinity if none."""
        with torch.no_grad():
            value, bad, _ = self._differentiate(batch, {}, self.generator("noise"), tolerant=True)
        return -math.inf if bad else value

    def slope(self, batch: Batch) -> float:
        """The same, and leaves the gradient of its negative on the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        value, bad, _ = self._differentiate(batch, {}, self.generator("noise"), tolerant=True)
        return -math.inf if bad else value

    def score(self, panel: TrainingData, size: int) -> float:
        """Objective per cell of held-out series, under the same noise each time."""
        generator, total = self.generator("validation"), 0.0
        with torch.no_grad():
            for batch in panel.chunks(size):
                share = batch.share(self.ranks.rank, self.ranks.count)
                if share is not None:
                    total += self._values(share, {}, generator).sum().item()
        return self.ranks.total(total)[0] / panel.cells

    def _differentiate(
        self,
        batch: Batch,
        keywords: dict[str, Any],
        generator: torch.Generator,
        *,
        tolerant: bool = False,
    ) -> tuple[float, bool, str]:
        """Objective per cell over all ranks; whether it is not finite, and where; gradients.

        A tolerant search takes parameters at which a covariance is none for a value that is not
        finite.
        """
        share = batch.share(self.ranks.rank, self.ranks.count)
        loss, value, error = None, 0.0, ""
        if share is not None:
            try:
                values = self._values(share, keywords, generator)
                loss, error = -values.sum() / batch.cells, _where(values, share)
                value = 0.0 if error else -loss.item()
            except (ValueError, torch.linalg.LinAlgError) as found:  # pyright: ignore
                if not tolerant:
                    raise
                error = str(found)
        value, wrong = self.ranks.total(value, float(bool(error)))
        if not wrong and torch.is_grad_enabled():
            if loss is not None:
                loss.backward()
            self.ranks.add_gradients(self.parameters)
        return value, wrong > 0, error

    def _values(self, share: Batch, keywords: dict[str, Any], generator: torch.Generator) -> Tensor:
        noise = {"generator": generator} if self.noisy else {}
        sequences = self._placed(share.sequences)
        values: Any = self.objective(self.model, sequences, **keywords, **noise)
        if not isinstance(values, Tensor) or values.shape != (sequences.batch,):
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the objective must return one value per series, shape ({sequences.batch},), "
                f"found {found}; sum over steps and average over samples, but not over series."
            )
        return values

    def _placed(self, sequences: Sequences) -> Sequences:
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        if sequences.y.dtype != dtype:
            raise TypeError(
                f"the model has {dtype} parameters, the data are {sequences.y.dtype}: use "
                f"data.to(dtype={dtype}) or model.to({sequences.y.dtype})."
            )
        here = sequences.y.device == self.ranks.device
        return sequences if here else sequences.to(device=self.ranks.device)


def _where(values: Tensor, share: Batch) -> str:
    """Tells which series have a value that is not finite; empty where all are."""
    wrong = (~values.detach().isfinite()).nonzero()[:, 0].tolist()
    if not wrong:
        return ""
    more = f" and {len(wrong) - 1} more of the batch" if len(wrong) > 1 else ""
    return f"it is {values[wrong[0]].item()} for {share.name(wrong[0])}{more}"


def _not_finite(when: str, where: str) -> NotFinite:
    found = where or "its gradient is not, or its value in another process"
    return NotFinite(f"the objective was not finite {when}: {found}.")
