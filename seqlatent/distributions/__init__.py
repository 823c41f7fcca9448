"""Distributions that torch lacks, and sampling, masking and divergences over those that it has.

Every function dispatches on the distribution's class, so that another family joins by registering
itself, e.g. ``draw.register(MyDistribution)``.
"""

from seqlatent.distributions.bounded import (
    Censored,
    LogisticOf,
    SoftplusOf,
    open_unit_interval,
)
from seqlatent.distributions.carried import Carried
from seqlatent.distributions.diffuse import DiffuseNormal, require_proper
from seqlatent.distributions.divergences import detach, kl_per_dim
from seqlatent.distributions.empirical import Empirical
from seqlatent.distributions.inflated import Inflated, SideBySide
from seqlatent.distributions.masking import masked_log_prob
from seqlatent.distributions.normals import CovarianceNormal, FactorNormal, diagonal_normal
from seqlatent.distributions.pareto import pareto_smoothed
from seqlatent.distributions.probabilities import Cumulative, cumulative
from seqlatent.distributions.sampling import base_noise, reparametrise, sample, standard_normal
from seqlatent.distributions.switched import OneHot, Selected, Switched, regime_of

__all__ = [
    "Carried",
    "Censored",
    "CovarianceNormal",
    "Cumulative",
    "DiffuseNormal",
    "Empirical",
    "FactorNormal",
    "Inflated",
    "LogisticOf",
    "OneHot",
    "Selected",
    "SideBySide",
    "SoftplusOf",
    "Switched",
    "base_noise",
    "cumulative",
    "detach",
    "diagonal_normal",
    "kl_per_dim",
    "masked_log_prob",
    "open_unit_interval",
    "pareto_smoothed",
    "regime_of",
    "reparametrise",
    "require_proper",
    "sample",
    "standard_normal",
]
