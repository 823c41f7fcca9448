"""Inference: from observations to a chain over latent paths, exact, amortised or by particles."""

from seqlatent.inference.amortised import Amortised
from seqlatent.inference.anchored import AnchoredParallel, KalmanBackbone
from seqlatent.inference.encoders import Encoder, FilteringEncoder, SmoothingEncoder
from seqlatent.inference.exact import Kalman, Prior
from seqlatent.inference.inference import Inference, Latest, States
from seqlatent.inference.particles import Particles
from seqlatent.inference.posteriors import Combiner, Parallel, Posterior, Tilted

__all__ = [
    "Amortised",
    "AnchoredParallel",
    "Combiner",
    "Encoder",
    "FilteringEncoder",
    "Inference",
    "Kalman",
    "KalmanBackbone",
    "Latest",
    "Parallel",
    "Particles",
    "Posterior",
    "Prior",
    "SmoothingEncoder",
    "States",
    "Tilted",
]
