"""Emissions: laws of an observation given the latent state."""

from seqlatent.emissions.anchored import AnchoredNet
from seqlatent.emissions.bernoulli import Bernoulli
from seqlatent.emissions.categorical import Categorical
from seqlatent.emissions.counts import NegativeBinomial, Poisson
from seqlatent.emissions.emission import Emission, LinearEmission
from seqlatent.emissions.gaussian import Normal
from seqlatent.emissions.heavy_tailed import StudentT
from seqlatent.emissions.linear import LinearGaussian
from seqlatent.emissions.neural import NeuralEmission

__all__ = [
    "AnchoredNet",
    "Bernoulli",
    "Categorical",
    "Emission",
    "LinearEmission",
    "LinearGaussian",
    "NegativeBinomial",
    "NeuralEmission",
    "Normal",
    "Poisson",
    "StudentT",
]
