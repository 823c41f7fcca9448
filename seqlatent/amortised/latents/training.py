"""Trains the network of latents, as the network of forecasts is."""

from typing import Any

from torch import Tensor

from seqlatent.amortised.latents.network import LatentNetwork
from seqlatent.amortised.latents.objective import draw, loss
from seqlatent.amortised.latents.truth import TREND
from seqlatent.amortised.training import Trainer
from seqlatent.prior import StructuralPrior

__all__ = ["LatentTrainer", "components_of"]


class LatentTrainer(Trainer):
    """Trains a network of latents on the truth of drawn series.

    Arguments are those of :class:`~seqlatent.amortised.Trainer`; components that are learned are
    those of the curriculum's prior, but level and slope, whose sum is the level.

    Example:
        >>> from seqlatent.amortised import Curriculum, Seasons
        >>> few = Curriculum(seasons={Seasons(4): 1.0}, batch=4)
        >>> small = {"width": 8, "depth": 1, "head_width": 8, "head_depth": 1}
        >>> network = LatentTrainer(few, steps=2, network=small).run()
        >>> network.quantities[:3]
        ('level', 'slope', 'season')
    """

    def _new(self, sizes: dict[str, Any]) -> LatentNetwork:
        return LatentNetwork(components_of(self.curriculum.prior), **sizes)

    def _batch(self) -> Any:
        return draw(self.curriculum, self.network.components, self.generator).to(self.device)

    def _loss(self, batch: Any) -> Tensor:
        return loss(self.network, batch, self.generator)


def components_of(prior: StructuralPrior) -> tuple[str, ...]:
    """Components of a prior beside the level, in the order in which they are added.

    An autoregression stands last, as what is told apart from the noise last.
    """
    names = [component.name for component in prior.components]
    rest = [name for name in names if name not in TREND]
    return tuple(sorted(rest, key=lambda name: name == "ar"))
