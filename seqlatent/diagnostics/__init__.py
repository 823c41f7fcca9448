"""Diagnostics: whether the latents are used, what inference costs, and whether it is calibrated."""

from seqlatent.diagnostics.calibration import Ranks, simulation_based_calibration
from seqlatent.diagnostics.gap import Gap, inference_gap
from seqlatent.diagnostics.use import LatentUse, latent_use

__all__ = [
    "Gap",
    "LatentUse",
    "Ranks",
    "inference_gap",
    "latent_use",
    "simulation_based_calibration",
]
