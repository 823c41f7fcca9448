"""Emissions: distributions of an observation given the latent state."""

from seqlatent.emissions.anchored import AnchoredNet
from seqlatent.emissions.bernoulli import Bernoulli
from seqlatent.emissions.bounded import (
    CensoredStudentT,
    LogitStudentT,
    SoftplusStudentT,
    UnitCensoredStudentT,
)
from seqlatent.emissions.by_regime import ByRegime
from seqlatent.emissions.by_target import ByTarget
from seqlatent.emissions.categorical import Categorical
from seqlatent.emissions.counts import NegativeBinomial, Poisson
from seqlatent.emissions.emission import Emission, LinearEmission
from seqlatent.emissions.exponential import (
    LinearBernoulli,
    LinearNegativeBinomial,
    LinearPoisson,
)
from seqlatent.emissions.factors import FactorLoadings
from seqlatent.emissions.gaussian import Normal
from seqlatent.emissions.heavy_tailed import StudentT
from seqlatent.emissions.inflated import (
    HurdleStudentT,
    InflatedLogitStudentT,
    ZeroInflatedNegativeBinomial,
)
from seqlatent.emissions.linear import LinearGaussian
from seqlatent.emissions.neural import NeuralEmission
from seqlatent.emissions.signals import LinearSignal

__all__ = [
    "AnchoredNet",
    "Bernoulli",
    "ByRegime",
    "ByTarget",
    "Categorical",
    "CensoredStudentT",
    "Emission",
    "FactorLoadings",
    "HurdleStudentT",
    "InflatedLogitStudentT",
    "LinearBernoulli",
    "LinearEmission",
    "LinearGaussian",
    "LinearNegativeBinomial",
    "LinearPoisson",
    "LinearSignal",
    "LogitStudentT",
    "NegativeBinomial",
    "NeuralEmission",
    "Normal",
    "Poisson",
    "SoftplusStudentT",
    "StudentT",
    "UnitCensoredStudentT",
    "ZeroInflatedNegativeBinomial",
]
