"""Recurrent networks with a structured state, behind a forecaster."""

from seqlatent.forecasting.engines.recurrent.engine import Recurrent

__all__ = ["Recurrent"]
