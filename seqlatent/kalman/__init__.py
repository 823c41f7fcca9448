"""Exact inference in linear-Gaussian state space models: pure functions on tensors."""

from seqlatent.kalman.diffuse.initialisation import LARGE_VARIANCE, approximate_diffuse, prior
from seqlatent.kalman.likelihood.log_likelihood import log_likelihood
from seqlatent.kalman.moments.information import filter_information
from seqlatent.kalman.moments.parallel_scan import filter_scan, smoother_scan
from seqlatent.kalman.moments.sequential import Filtered, filter, smoother
from seqlatent.kalman.moments.square_root import filter_square_root
from seqlatent.kalman.outliers import Contamination, Doubted, doubt, outlying
from seqlatent.kalman.posterior_path import (
    Kernels,
    Potentials,
    Smoothed,
    path_moments,
    posterior_kernels,
    potentials,
    sample_paths,
)
from seqlatent.kalman.system import LinearGaussianSystem

__all__ = [
    "LARGE_VARIANCE",
    "Contamination",
    "Doubted",
    "Filtered",
    "Kernels",
    "LinearGaussianSystem",
    "Potentials",
    "Smoothed",
    "approximate_diffuse",
    "doubt",
    "filter",
    "filter_information",
    "filter_scan",
    "filter_square_root",
    "log_likelihood",
    "outlying",
    "path_moments",
    "posterior_kernels",
    "potentials",
    "prior",
    "sample_paths",
    "smoother",
    "smoother_scan",
]
