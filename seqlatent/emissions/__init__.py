"""Emissions: distributions of an observation given the latent state."""

from seqlatent.emissions.anchored import AnchoredNet
from seqlatent.emissions.bernoulli import Bernoulli
from seqlatent.emissions.by_regime import ByRegime
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
from seqlatent.emissions.linear import LinearGaussian
from seqlatent.emissions.neural import NeuralEmission
from seqlatent.emissions.signals import LinearSignal

__all__ = [
    "AnchoredNet",
    "Bernoulli",
    "ByRegime",
    "Categorical",
    "Emission",
    "FactorLoadings",
    "LinearBernoulli",
    "LinearEmission",
    "LinearGaussian",
    "LinearNegativeBinomial",
    "LinearPoisson",
    "LinearSignal",
    "NegativeBinomial",
    "NeuralEmission",
    "Normal",
    "Poisson",
    "StudentT",
]
