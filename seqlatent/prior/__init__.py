"""Priors over structural latent series that can be drawn from, with the truth beside each draw."""

from seqlatent.prior.components import (
    Autoregression,
    ComponentPrior,
    Cycle,
    Level,
    Season,
    Slope,
)
from seqlatent.prior.grid import Grid, Part
from seqlatent.prior.hyper import Hyper, LogUniform, Scalar, Signed, Sometimes, Uniform
from seqlatent.prior.link import KINDS, Link
from seqlatent.prior.missing import Missing
from seqlatent.prior.noise import Noise
from seqlatent.prior.observation import Observation
from seqlatent.prior.seasons import LongSeason
from seqlatent.prior.structural import Drawn, StructuralPrior

__all__ = [
    "KINDS",
    "Autoregression",
    "ComponentPrior",
    "Cycle",
    "Drawn",
    "Grid",
    "Hyper",
    "Level",
    "Link",
    "LogUniform",
    "LongSeason",
    "Missing",
    "Noise",
    "Observation",
    "Part",
    "Scalar",
    "Season",
    "Signed",
    "Slope",
    "Sometimes",
    "StructuralPrior",
    "Uniform",
]
