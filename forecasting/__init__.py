"""Dataframes in, dataframes out: forecasters, backtests, metrics, calibration, plots, commands."""
