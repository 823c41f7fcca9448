"""Inference in switching linear Gaussian systems: pure functions on tensors."""

from seqlatent.switching.aligned import Filtered, Mixture, Start
from seqlatent.switching.approximate import Smoothed, gpb2, imm, smoother
from seqlatent.switching.backward import Paths, sample_paths
from seqlatent.switching.rao_blackwell import Cloud, rao_blackwell
from seqlatent.switching.system import SwitchingSystem

__all__ = [
    "Cloud",
    "Filtered",
    "Mixture",
    "Paths",
    "Smoothed",
    "Start",
    "SwitchingSystem",
    "gpb2",
    "imm",
    "rao_blackwell",
    "sample_paths",
    "smoother",
]
