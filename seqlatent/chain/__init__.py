"""Chains: distributions over whole latent paths. The prior is one, and so is every posterior."""

from seqlatent.chain.chain import Chain, MarkovChain
from seqlatent.chain.kernels import Affine, Correction, Kernel, Linear, Marginal, Sampled, Stepped
from seqlatent.chain.paths import (
    affine_path,
    first_state,
    sample_path,
    sequential_path,
    step_noise,
)

__all__ = [
    "Affine",
    "Chain",
    "Correction",
    "Kernel",
    "Linear",
    "Marginal",
    "MarkovChain",
    "Sampled",
    "Stepped",
    "affine_path",
    "first_state",
    "sample_path",
    "sequential_path",
    "step_noise",
]
