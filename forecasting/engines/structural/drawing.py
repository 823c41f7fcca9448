"""How parameters of a fit are drawn: from normal approximations, or from their posteriors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training import Deadline, EachHistory, draws_each, posterior_in_parts
from seqlatent.training.likelihood.population_prior import unbounded
from seqlatent.training.likelihood.weighted_draws import written

__all__ = ["USUAL", "Drawing", "Drawn"]

USUAL = {False: 2, True: 16}  # models of each specification, with and without weights
_JUDGED = 4  # models that forecast what was hidden: scores of mixtures cost their square
_FEW = 32  # weighted draws for which these stand
# Levels at which quantiles of weighted draws are kept: those of usual intervals, and the median.
_LEVELS = (0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.995)


class Drawn(NamedTuple):
    """Models with parameters of each series.

    Attributes:
        models: The models, of equal weight.
        shape: k-hat of the posterior of each series ``(B,)``; None where nothing was weighted.
        trusted: Whether the parameters of each series are draws by weights ``(B,)``.
        score: Normal scores of some levels ``(K,)``, ascending.
        vectors: Quantiles of the vectors of each series at these ``(K, B, P)``, linear in the
            scores between and beyond them.
    """

    models: Sequence[LatentModel]
    shape: Tensor | None
    trusted: Tensor | None
    score: Tensor
    vectors: Tensor


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
            deviation = history.cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
            score = deviation.new_tensor([-1.0, 1.0])
            return Drawn(models, None, None, score, history.mode + score[:, None, None] * deviation)
        return self._weighted(model, batch, history)

    def _weighted(self, model: LatentModel, batch: Sequences, history: EachHistory) -> Drawn:
        """Models that stand for weighted draws, which are let go again part by part."""
        assert history.pool is not None
        drawn, vectors, shape, trusted = [], [], [], []
        for _, found in posterior_in_parts(
            model, batch, history, draws=self.points, seed=self.seed
        ):
            drawn.append(found.representatives(self.draws, seed=self.seed))
            vectors.append(unbounded(found.marginals(_LEVELS), history.pool.centre))
            shape.append(found.shape)
            trusted.append(found.rounds > 0)
        models = written(model, batch.codes[:, 0], torch.cat(drawn, 1))
        score = torch.special.ndtri(torch.tensor(_LEVELS, dtype=torch.float64))
        return Drawn(models, torch.cat(shape), torch.cat(trusted), score, torch.cat(vectors, 1))


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
