"""Distributions of what follows origins, and one-step scores of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqlatent.amortised import SCORES, QuantileFunction, Seasons
from seqlatent.forecasting.engines.amortised.predictor import TOGETHER, Pool
from seqlatent.forecasting.engines.recurrent.cold import Cold
from seqlatent.forecasting.engines.recurrent.inputs import Rows, Standard
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.recurrent import History, Origins, RecurrentNetwork, said_of

__all__ = []

_LEADS = 2**14  # rows that are scored at once
_MIDDLE = len(SCORES) // 2


@dataclass(frozen=True)
class Predictor:
    """Networks in double precision, and what they are told of a panel.

    Args:
        networks: The networks.
        seasons: Season lengths.
        pool: What stands for series of fewer than two values, and
        cold: for those of none, by their static features.
        standard: Units of covariates.
        width: Factors of the spread of equal parts of a horizon.
        horizon: Leads of that horizon; any beyond it are as the last ones.
    """

    networks: tuple[RecurrentNetwork, ...]
    seasons: Seasons
    pool: Pool
    cold: Cold
    standard: Standard
    width: tuple[float, ...]
    horizon: int

    def forecast(
        self,
        origins: Origins,
        memories: Sequence[Tensor],
        ahead: Tensor,
        static: Tensor,
        target: np.ndarray,
        times: np.ndarray | None = None,
    ) -> tuple[QuantileFunction, Tensor]:
        """Distributions ``(N, H)`` and loadings ``(N, H, R)`` of the leads of origins.

        Args:
            origins: The origins.
            memories: Memory of each network there ``(N, M)``.
            ahead: Covariates of the leads ``(N, H, U)``.
            static: Static features ``(N, S)``.
            target: Which target each is of ``(N,)``.
            times: Steps of the time index of the leads ``(N, H)``, where there may be series
                without values.
        """
        read = origins.read()
        said = said_of(self.networks, memories, read, ahead, static, torch.from_numpy(target))
        knots = said.knots * read.scale[..., None] + read.reference[..., None]
        knots = self._widened(knots, origins.leads)
        floor = torch.where(read.lower, 0.0, -torch.inf).to(knots.dtype)
        whole, loadings = read.whole.clone(), said.loadings
        few = (origins.scalars["number"] < 2).nonzero()[:, 0]
        if len(few):  # the panel says what they do not
            of = target[few.numpy()]
            number, last, waited = (origins.scalars[k][few] for k in ("number", "last", "waited"))
            value = torch.where(number > 0, last, torch.nan).numpy()
            since = (origins.leads[few] + waited[:, None].long()).numpy()
            mean, scale = (torch.from_numpy(x) for x in self.pool.moments(value, of, since))
            knots[few] = mean[..., None] + scale[..., None] * knots.new_tensor(SCORES)
            none = few[(number == 0) & torch.from_numpy(self.cold.known[of])].numpy()
            if len(none) and times is not None:
                features = static[none].numpy()
                quantiles = self.cold.quantiles(features, target[none], times[none], SCORES)
                knots[none] = torch.from_numpy(quantiles)
            least = np.where(self.pool.lower[of], 0.0, -np.inf)
            floor[few] = torch.from_numpy(least).to(floor)[:, None]
            whole[few] = torch.from_numpy(self.pool.whole[of])[:, None]
            loadings[few] = 0.0
            loadings[few, :, 0] = TOGETHER
        return QuantileFunction(knots, floor, whole), loadings

    def _widened(self, knots: Tensor, leads: Tensor) -> Tensor:
        parts = len(self.width)
        nth = ((leads - 1) * parts // self.horizon).clamp(0, parts - 1)
        factor = torch.tensor(self.width, dtype=knots.dtype)[nth][..., None]
        middle = knots[..., _MIDDLE, None]
        return middle + (knots - middle) * factor

    @torch.no_grad()
    def scores(self, panel: Panel, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log scores and probability transforms of rows, each from those before ``(R, D)``.

        Args:
            panel: The rows.
            unit: Uniform numbers, for values that have a probability of their own ``(R, D)``.
        """
        width, targets = int(panel.lengths.max()), panel.y.shape[1]
        rows = Rows.of(panel, self.standard, width)
        seen = ~rows.y.isnan()
        inside = rows.there & seen.cummax(1).values
        history = History(rows.y.nan_to_num(), seen, self.seasons, inside)
        memories = [
            network.remember_all(history.rows, rows.covariates, inside) for network in self.networks
        ]
        static = torch.from_numpy(self.standard.static(panel, targets))
        known = slice(0, self.standard.sizes["ahead"])
        # holes are forecast too: who stands beside whom in a product of matrices, whose last digits
        # depend on it, must not follow from what is missing
        asked = rows.there.clone()
        asked[:, 0] = False
        asked[:, 1:] &= inside[:, :-1]
        line, column = asked.nonzero(as_tuple=True)
        log_prob, pit = (np.full(panel.y.shape, np.nan) for _ in range(2))
        row = panel.offsets[1:][line.numpy() // targets] - width + column.numpy()
        target = line.numpy() % targets
        for k in range(0, len(line), _LEADS):
            part = slice(k, k + _LEADS)
            i, t = line[part], column[part]
            origins = history.origins(i, t - 1, torch.ones_like(i)[:, None])
            ahead = rows.covariates[i, t][:, None, known]
            before = [memory[i, t - 1] for memory in memories]
            function, _ = self.forecast(origins, before, ahead, static[i], target[part])
            y = rows.y[i, t].nan_to_num()[:, None]
            less, up_to = (x[:, 0].numpy() for x in function.distribution(y))
            at = row[part], target[part]
            log_prob[at] = function.log_prob(y)[:, 0].numpy()
            pit[at] = np.clip(less + unit[at] * (up_to - less), 0.0, 1.0)
        missing = np.isnan(panel.y)
        log_prob[missing] = pit[missing] = np.nan
        return log_prob, pit
