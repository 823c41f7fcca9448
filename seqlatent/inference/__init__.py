"""Inference: from observations to a chain over latent paths, exact, amortised or by particles."""

from seqlatent.inference.amortised import Amortised
from seqlatent.inference.anchored import AnchoredParallel, KalmanBackbone
from seqlatent.inference.approximate import (
    Approximate,
    Extended,
    Laplace,
    MomentMatching,
    Unscented,
)
from seqlatent.inference.encoders import Encoder, FilteringEncoder, SmoothingEncoder
from seqlatent.inference.exact import Kalman, Prior
from seqlatent.inference.forward_backward import ForwardBackward
from seqlatent.inference.inference import Inference, Latest, States
from seqlatent.inference.particles import Particles
from seqlatent.inference.posteriors import Combiner, Parallel, Posterior, Tilted
from seqlatent.inference.switching import GPB2, IMM, RaoBlackwell

__all__ = [
    "GPB2",
    "IMM",
    "Amortised",
    "AnchoredParallel",
    "Approximate",
    "Combiner",
    "Encoder",
    "Extended",
    "FilteringEncoder",
    "ForwardBackward",
    "Inference",
    "Kalman",
    "KalmanBackbone",
    "Laplace",
    "Latest",
    "MomentMatching",
    "Parallel",
    "Particles",
    "Posterior",
    "Prior",
    "RaoBlackwell",
    "SmoothingEncoder",
    "States",
    "Tilted",
    "Unscented",
]
