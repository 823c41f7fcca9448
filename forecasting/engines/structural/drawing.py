"""How parameters of a fit are drawn: from normal approximations, or from their posteriors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training import Deadline, EachHistory, draws_each, posterior_each

__all__ = ["USUAL", "Drawing", "Drawn"]

USUAL = {False: 2, True: 16}  # models of each specification, with and without weights
_JUDGED = 4  # models that forecast what was hidden: scores of mixtures cost their square
_FEW = 32  # weighted draws for which these stand


class Drawn(NamedTuple):
    """Models with parameters of each series.

    Attributes:
        models: The models, of equal weight.
        shape: k-hat of the posterior of each series ``(B,)``; None where nothing was weighted.
        trusted: Whether the parameters of each series are draws by weights ``(B,)``.
    """

    models: Sequence[LatentModel]
    shape: Tensor | None
    trusted: Tensor | None


@dataclass(frozen=True)
class Drawing:
    """Draws models from a fit.

    Args:
        draws: Models of each specification.
        bayes: Whether parameters are drawn by their exact likelihood, rather than from the normal
            distributions that the search for the modes ended with.
        seed: Seed of the draws.
        points: Weighted draws of each posterior, for which the models stand.
    """

    draws: int
    bayes: bool = False
    seed: int = 0
    points: int = 128

    def judged(self) -> "Drawing":
        """The same with no more models than a trial is worth."""
        if not self.bayes:
            return self
        return replace(self, draws=min(self.draws, _JUDGED), points=_FEW)

    def __call__(
        self, model: LatentModel, batch: Sequences, history: EachHistory, deadline: Deadline
    ) -> Drawn:
        """Models of a fit; from normal distributions where there is no time for more."""
        # weighted draws take less time than the fit did
        if not self.bayes or (not deadline.never and deadline.left < history.seconds):
            models = draws_each(model, batch, history, self.draws, seed=self.seed)
            return Drawn(models, None, None)
        found = posterior_each(model, batch, history, draws=self.points, seed=self.seed)
        models = found.models(self.draws, seed=self.seed)
        return Drawn(models, found.shape, found.rounds > 0)


def told(name: str, drawn: Drawn) -> str:
    """What is to be known of the posteriors of a specification, in words."""
    if drawn.shape is None or drawn.trusted is None:
        return f"{name}: normal approximations, for want of time"
    half, most = torch.quantile(
        drawn.shape.double().clamp(-9, 9), torch.tensor([0.5, 0.9]).double()
    )
    lost = int((~drawn.trusted).sum())
    ending = f", {lost} of {len(drawn.trusted)} series by normal approximations" if lost else ""
    return f"{name}: k-hat {half:.2f} (median), {most:.2f} (90 %){ending}"
