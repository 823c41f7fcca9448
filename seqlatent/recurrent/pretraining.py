"""Training on drawn series, from which the training on a panel starts."""

from typing import Any

import torch
from torch import Tensor

from seqlatent.amortised import Curriculum, Trainer
from seqlatent.amortised.curriculum import cut
from seqlatent.amortised.past import context_of
from seqlatent.recurrent.history import History
from seqlatent.recurrent.network import RecurrentNetwork
from seqlatent.recurrent.objective import Data, Windows

__all__ = ["RecurrentTrainer"]

_NEAREST = 12  # the farthest lead of a draw is no nearer


class RecurrentTrainer(Trainer):
    """Trains a network on series that a prior draws.

    Filters read what is drawn once; several steps are made on windows of it.

    Args:
        curriculum: What it is trained on.
        often: Steps for each draw.
        windows: What is drawn for a step; None for 768 origins of 64 windows of 128 rows.
        options: Those of :class:`~seqlatent.amortised.Trainer`.
    """

    def __init__(
        self,
        curriculum: Curriculum | None = None,
        *,
        often: int = 8,
        windows: Windows | None = None,
        **options: Any,
    ) -> None:
        self.often = often
        self.windows = Windows(768, 4, 128, 8192) if windows is None else windows
        self._left = 0
        super().__init__(Curriculum(batch=256) if curriculum is None else curriculum, **options)

    def _new(self, sizes: dict[str, Any]) -> RecurrentNetwork:
        return RecurrentNetwork(**sizes)

    def _batch(self) -> Data:
        if not self._left:
            self._drawn, self._left = self._draw(), self.often
        self._left -= 1
        return self._drawn

    def _draw(self) -> Data:
        """Series whose pasts are of many lengths, with what followed."""
        curriculum, generator = self.curriculum, self.generator
        seasons = curriculum.draw_seasons(generator)
        context, farthest = context_of(seasons), curriculum.farthest(seasons)
        unit = float(torch.rand(1, generator=generator))
        ahead = round(_NEAREST * (farthest / _NEAREST) ** unit)
        series = curriculum.batch if context <= 200 else curriculum.batch // 2
        drawn = curriculum.drawn(generator, seasons, series, ahead)
        past = cut(drawn.observed[:, :context], seasons, generator)
        seen = torch.cat([past, drawn.observed[:, context:]], 1)
        history = History(drawn.y, seen, seasons)
        blank = torch.zeros(*seen.shape, 0)
        return Data(history, 1, blank, slice(0, 0), blank[:, 0], ahead)

    def _loss(self, batch: Data) -> Tensor:
        found = self.windows.loss(self.network, batch, self.generator)
        # of a draw in which nothing moves nothing is learned
        return next(self.network.parameters()).sum() * 0 if found is None else found
