"""What an engine of networks says of rows that are there, where it has networks of latents."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from seqlatent.amortised import Network
from seqlatent.amortised.latents import LatentNetwork, load_latent_networks
from seqlatent.forecasting.engines import unread
from seqlatent.forecasting.engines.amortised import options, usual
from seqlatent.forecasting.engines.amortised.decomposition import Decomposition
from seqlatent.forecasting.engines.amortised.parameters import parameters
from seqlatent.forecasting.engines.amortised.predictor import Predictor
from seqlatent.forecasting.engines.contributions import Contributions
from seqlatent.forecasting.engines.engine import Breaks, Engine
from seqlatent.forecasting.engines.parameters import Parameters
from seqlatent.forecasting.frames.panel import Future, Panel

__all__ = ["Inspected"]


class Inspected(Engine):
    """Components, parameters, breaks and holes of rows that are there.

    It is one part of :class:`Amortised`, which sets the attributes.

    Attributes:
        own: Networks of one's own; None for those of the package.
        latents: Networks of latents that were given, if any.
        predictor: What the panel is read by.
        targets: How many there are.
    """

    own: tuple[Network, ...] | None
    latents: tuple[LatentNetwork, ...] | None
    predictor: Predictor
    targets: int

    @property
    def _latents(self) -> tuple[LatentNetwork, ...]:
        """Networks of latents; networks of one's own have none unless they are given."""
        if self.latents is not None:
            return self.latents
        return load_latent_networks() if self.own is None else ()

    @property
    def named(self) -> bool:  # type: ignore[override]
        """Whether there are networks of latents."""
        return bool(self._latents)

    parametric = breaking = named  # type: ignore[assignment]

    def _decomposition(self, panel: Panel) -> Decomposition:
        """What tells of the rows of a panel; notes which of its series say nothing themselves."""
        self._require(panel)
        options.require_latents(self._latents)
        said = ((id, text) for id, text in usual.short(panel) if text not in self.notes.get(id, ""))
        self.note_each(list(said))
        networks = tuple(deepcopy(network).float().eval() for network in self._latents)
        return Decomposition(networks, self.predictor)

    def components(
        self,
        panel: Panel,
        future: Future | None,
        levels: Sequence[float],
        *,
        filtered: bool,
        specifications: bool,
    ) -> tuple[Panel, list[Contributions]]:
        known = self._decomposition(panel)
        longer, found = known.components(panel, future, levels, filtered=filtered)
        return longer, [found._replace(specification=self.alias * specifications)]

    def parameters(
        self, panel: Panel, levels: Sequence[float], seed: int, *, specifications: bool
    ) -> list[Parameters]:
        known = self._decomposition(panel)
        who = self.alias * specifications
        return [parameters(known.networks, known.predictor, panel, levels, who)]

    def breaks(self, panel: Panel, levels: Sequence[float]) -> Breaks:
        return self._decomposition(panel).breaks(panel, levels)

    def impute(self, panel: Panel, n: int, seed: int) -> np.ndarray:
        if not self.named:
            return super().impute(panel, n, seed)
        return self._decomposition(panel).impute(panel, n, seed)

    def completed(
        self, panel: Panel, levels: Sequence[float], n: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.named:
            return super().completed(panel, levels, n, seed)
        return self._decomposition(panel).completed(panel, levels)

    def _require(self, panel: Panel) -> None:
        unread.require_grid(self.alias, panel)
        unread.require_targets(panel, self.targets)
