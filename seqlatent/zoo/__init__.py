"""Named models: constructors of a few lines that compose the parts as a paper did."""

from seqlatent.zoo.exact import (
    count_structural,
    dynamic_factors,
    exponential_smoothing,
    structural,
    unobserved_components,
)
from seqlatent.zoo.markov_switching import hidden_markov, switching
from seqlatent.zoo.neural import deep_markov, deep_state, latent_ode, srnn, vrnn

__all__ = [
    "count_structural",
    "deep_markov",
    "deep_state",
    "dynamic_factors",
    "exponential_smoothing",
    "hidden_markov",
    "latent_ode",
    "srnn",
    "structural",
    "switching",
    "unobserved_components",
    "vrnn",
]
