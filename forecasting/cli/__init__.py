"""Command line: forecasts, backtests and a demonstration without a line of Python."""

from seqlatent.forecasting.cli.app import app, main

__all__ = ["app", "main"]
