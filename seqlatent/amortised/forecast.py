"""Forecasts of networks, whose quantiles and correlations are averaged."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.amortised import copula
from seqlatent.amortised.network import Network
from seqlatent.amortised.past import Seasons, past_of
from seqlatent.amortised.quantiles import QuantileFunction

__all__ = ["Forecast", "forecast"]


class Forecast(NamedTuple):
    """Joint distribution of the leads of many series.

    Attributes:
        marginals: Of each lead, in the units of the series ``(B, H)``.
        loadings: Of the copula between leads ``(B, H, R)``.
    """

    marginals: QuantileFunction
    loadings: Float[Tensor, "B H R"]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "S B H"]:
        """Joint sample paths."""
        return self.marginals.at(copula.sample(self.loadings, n, generator))


def forecast(
    networks: Sequence[Network],
    y: Float[Tensor, "B T"],
    observed: Bool[Tensor, "B T"],
    seasons: Seasons,
    leads: Sequence[int] | Tensor,
    *,
    chunk: int = 512,
) -> Forecast:
    """Forecasts leads of series from their pasts.

    Args:
        networks: Networks, whose quantiles are averaged level by level, and whose copulas are
            averaged as correlations are.
        y: Values, of which the last column is the last row of each series.
        observed: Which are seen. A series of which none is gets zeros.
        seasons: Season lengths.
        leads: Steps ahead, from 1.
        chunk: Series at a time.

    Returns:
        The forecast, in the type of ``y``.
    """
    leads = torch.as_tensor(leads, device=y.device)
    parts = [
        _some(networks, y[i : i + chunk], observed[i : i + chunk], seasons, leads)
        for i in range(0, max(len(y), 1), chunk)
    ]
    knots, floor, whole, loadings = (torch.cat(x) for x in zip(*parts, strict=True))
    return Forecast(QuantileFunction(knots, floor, whole), loadings)


@torch.no_grad()
def _some(
    networks: Sequence[Network], y: Tensor, observed: Tensor, seasons: Seasons, leads: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    past = past_of(y, observed, seasons)
    raws = [network(past.to(_dtype(network)), leads) for network in networks]
    knots = torch.stack([raw.knots.to(y.dtype) for raw in raws]).mean(0)
    knots = knots * past.scale[..., None] + past.shift[..., None]
    floor = torch.where(past.lower, 0.0, -torch.inf).to(y.dtype)
    return knots, floor, past.whole, copula.averaged([raw.loadings.to(y.dtype) for raw in raws])


def _dtype(network: Network) -> torch.dtype:
    return next(network.parameters()).dtype
