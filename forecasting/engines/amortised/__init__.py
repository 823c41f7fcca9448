"""Networks that have learned from drawn series, behind a forecaster."""

from seqlatent.forecasting.engines.amortised.engine import Amortised

__all__ = ["Amortised"]
