"""Exact inference in linear-Gaussian state space models: pure functions on tensors."""

from seqlatent.kalman.paths import (
    Kernels,
    Potentials,
    Smoothed,
    path_moments,
    posterior_kernels,
    potentials,
    sample_paths,
)
from seqlatent.kalman.scan import filter_scan, smoother_scan
from seqlatent.kalman.sequential import Filtered, filter, smoother

__all__ = [
    "Filtered",
    "Kernels",
    "Potentials",
    "Smoothed",
    "filter",
    "filter_scan",
    "path_moments",
    "posterior_kernels",
    "potentials",
    "sample_paths",
    "smoother",
    "smoother_scan",
]
