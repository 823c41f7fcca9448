"""Baselines: classical models with parameters of their own for each series.

They answer the same calls as the latent models, so that every result can be read beside theirs.
Importing this package does not import statsmodels.
"""

from seqlatent.forecasting.baselines.exponential import ETS
from seqlatent.forecasting.baselines.local import LocalEngine
from seqlatent.forecasting.baselines.naive import Naive, SeasonalNaive
from seqlatent.forecasting.baselines.sarimax import SARIMAX
from seqlatent.forecasting.baselines.theta import Theta

__all__ = ["BASELINES", "ETS", "SARIMAX", "LocalEngine", "Naive", "SeasonalNaive", "Theta"]

BASELINES: dict[str, type[LocalEngine]] = {
    kind.alias: kind for kind in (Naive, SeasonalNaive, ETS, SARIMAX, Theta)
}
