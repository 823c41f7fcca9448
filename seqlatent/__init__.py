"""Latent state models of time series: exact, structured-variational and neural, as one family."""

__version__ = "0.1.0"
