"""Chains: distributions over whole latent paths. The prior is one, and so is every posterior."""

from seqlatent.chain.chain import Chain, MarkovChain
from seqlatent.chain.kernels import (
    ConditionallyLinear,
    Correction,
    DiagonalLinear,
    FusedSteps,
    Kernel,
    Marginal,
    Sampled,
    initial_of,
    next_of,
)
from seqlatent.chain.paths import (
    affine_path,
    first_state,
    sample_path,
    sequential_path,
    step_noise,
)

__all__ = [
    "Chain",
    "ConditionallyLinear",
    "Correction",
    "DiagonalLinear",
    "FusedSteps",
    "Kernel",
    "Marginal",
    "MarkovChain",
    "Sampled",
    "affine_path",
    "first_state",
    "initial_of",
    "next_of",
    "sample_path",
    "sequential_path",
    "step_noise",
]
