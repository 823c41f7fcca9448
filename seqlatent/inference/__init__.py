"""Inference: from observations to a chain over latent paths, exact, amortised or by particles."""

from seqlatent.inference.amortised.amortised import Amortised
from seqlatent.inference.amortised.combiner import Combiner
from seqlatent.inference.amortised.encoders import Encoder, FilteringEncoder, SmoothingEncoder
from seqlatent.inference.amortised.parallel import Parallel
from seqlatent.inference.amortised.posterior import Posterior
from seqlatent.inference.amortised.structural_core import AnchoredParallel, KalmanBackbone
from seqlatent.inference.amortised.tilted import Tilted
from seqlatent.inference.approximate import (
    Approximate,
    Extended,
    Laplace,
    MomentMatching,
    Unscented,
)
from seqlatent.inference.base import Inference, Latest, States
from seqlatent.inference.hmm import ForwardBackward
from seqlatent.inference.kalman import Kalman
from seqlatent.inference.outliers import Outliers
from seqlatent.inference.particles.particles import Particles
from seqlatent.inference.prior import Prior
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
    "Outliers",
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
