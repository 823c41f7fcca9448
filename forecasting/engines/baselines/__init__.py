"""Baselines: classical models with parameters of their own for each series.

They answer the same calls as the latent models, so that every result can be read beside theirs.
Importing this package does not import statsmodels.
"""

from seqlatent.forecasting.engines.baselines.exponential import ETS
from seqlatent.forecasting.engines.baselines.local import LocalEngine
from seqlatent.forecasting.engines.baselines.naive import Naive, SeasonalNaive
from seqlatent.forecasting.engines.baselines.sarimax import SARIMAX
from seqlatent.forecasting.engines.baselines.theta import Theta

__all__ = ["BASELINES", "ETS", "SARIMAX", "LocalEngine", "Naive", "SeasonalNaive", "Theta"]

BASELINES: dict[str, type[LocalEngine]] = {
    kind.alias: kind for kind in (Naive, SeasonalNaive, ETS, SARIMAX, Theta)
}
