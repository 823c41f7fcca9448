"""Exact inference in linear-Gaussian state space models: pure functions on tensors."""

from seqlatent.kalman.information import filter_information
from seqlatent.kalman.initial import VAGUE, prior, widened
from seqlatent.kalman.likelihood import log_likelihood
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
from seqlatent.kalman.square_root import filter_square_root

__all__ = [
    "VAGUE",
    "Filtered",
    "Kernels",
    "Potentials",
    "Smoothed",
    "filter",
    "filter_information",
    "filter_scan",
    "filter_square_root",
    "log_likelihood",
    "path_moments",
    "posterior_kernels",
    "potentials",
    "prior",
    "sample_paths",
    "smoother",
    "smoother_scan",
    "widened",
]
