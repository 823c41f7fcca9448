"""Exact inference in hidden Markov models: pure functions on tensors of logarithms."""

from seqlatent.hmm.decoding import Viterbi, sample_chain, sample_paths, viterbi
from seqlatent.hmm.forward_backward import (
    Filtered,
    Kernels,
    Smoothed,
    filter,
    filter_scan,
    log_evidence,
    posterior_kernels,
    smoother,
    smoother_scan,
)

__all__ = [
    "Filtered",
    "Kernels",
    "Smoothed",
    "Viterbi",
    "filter",
    "filter_scan",
    "log_evidence",
    "posterior_kernels",
    "sample_chain",
    "sample_paths",
    "smoother",
    "smoother_scan",
    "viterbi",
]
